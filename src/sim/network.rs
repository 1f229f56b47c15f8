//! The network between members: it loses, doubles, delays and reorders what it carries, and comes apart.
//!
//! Always: what is in flight between two members when their connection is reset is lost; a frame that a reset cuts in
//! the middle arrives mangled, once, and is the last of its connection; a cut link carries nothing, in one direction
//! or in both; a half-open one loses what is sent into it, and nobody is told. Clients are reached over links of their
//! own. Left out: bandwidth, which is the business of the real connection's tests.

use super::clock::TrueMicros;
use super::fault_plan::FaultPlan;
use super::random::Random;
use bytes::Bytes;

/// The links between every two members, one for each direction.
#[derive(Debug)]
pub(super) struct Network {
    members_count: usize,
    links: Vec<Link>,
    /// Whether a partition cuts clients' requests off from each member, and its answers from them.
    client_cuts: Vec<ClientCut>,
    /// The same, as cut by a partition that concerns clients alone.
    own_client_cuts: Vec<ClientCut>,
    /// Counts partitions, so that mending an old one leaves a newer one alone.
    generation: u32,
    /// Whether the partition is not in force for the moment: it flaps.
    is_lifted: bool,
    random: Random,
}

#[derive(Clone, Debug, Default)]
struct Link {
    is_cut: bool,
    /// Counts resets.
    connection: u32,
    /// When the last frame on this link arrives: nothing overtakes it unless the plan reorders.
    latest: TrueMicros,
    /// Until when nothing comes out of it; what is sent meanwhile is late, not lost.
    clogged_until: TrueMicros,
    /// Until when what is sent is lost, because the other end of the connection is gone and nobody has noticed.
    half_open_until: TrueMicros,
}

/// What a member and its clients do not hear of each other.
#[derive(Clone, Copy, Debug, Default)]
struct ClientCut {
    requests: bool,
    answers: bool,
}

/// When a frame arrives: not at all, once or twice.
pub(super) type Arrivals = [Option<TrueMicros>; 2];

/// How the members are separated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(super) enum Shape {
    /// One member from all others.
    Isolated,
    /// Some members from the rest.
    Halves,
    /// One member hears nobody, though all hear it.
    Deaf,
    /// Nobody hears one member, though it hears all.
    Mute,
    /// Two members from each other; both see the rest.
    Pair,
    /// Two groups from each other; one member sees both.
    Bridge,
    /// Each member sees its neighbours in a row.
    Chain,
    /// Each member sees its neighbours in a ring.
    Ring,
    /// One link, one way.
    OneWay,
    /// Each link in each direction by the toss of a coin.
    Ragged,
}

impl Shape {
    /// Every shape.
    pub(super) const ALL: [Self; 10] = [
        Self::Isolated,
        Self::Halves,
        Self::Deaf,
        Self::Mute,
        Self::Pair,
        Self::Bridge,
        Self::Chain,
        Self::Ring,
        Self::OneWay,
        Self::Ragged,
    ];
}

impl Shape {
    /// Its name in a report.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Isolated => "partition_isolated",
            Self::Halves => "partition_halves",
            Self::Deaf => "partition_deaf",
            Self::Mute => "partition_mute",
            Self::Pair => "partition_pair",
            Self::Bridge => "partition_bridge",
            Self::Chain => "partition_chain",
            Self::Ring => "partition_ring",
            Self::OneWay => "partition_one_way",
            Self::Ragged => "partition_ragged",
        }
    }
}

/// The longest delay of the tail.
const TAIL_MICROS_MAX: u64 = 5_000_000;

impl Network {
    /// A whole network of `members_count` members.
    pub(super) fn new(members_count: usize, random: Random) -> Self {
        Self {
            members_count,
            links: vec![Link::default(); members_count * members_count],
            client_cuts: vec![ClientCut::default(); members_count],
            own_client_cuts: vec![ClientCut::default(); members_count],
            generation: 0,
            is_lifted: false,
            random,
        }
    }

    /// Decides when what `from` sends to `to` at `now` arrives, and on which connection it travels.
    pub(super) fn send(
        &mut self,
        plan: &FaultPlan,
        now: TrueMicros,
        from: usize,
        to: usize,
    ) -> (Arrivals, u32) {
        let link = from * self.members_count + to;
        let is_cut = self.links[link].is_cut && !self.is_lifted;
        let is_half_open = self.links[link].half_open_until > now;
        if is_cut || is_half_open || self.random.chance(plan.loss_chance) {
            return ([None, None], 0);
        }
        let first = self.arrival(plan, now, link);
        let second = if self.random.chance(plan.duplication_chance) {
            Some(self.arrival(plan, now, link))
        } else {
            None
        };
        ([Some(first), second], self.links[link].connection)
    }

    fn arrival(&mut self, plan: &FaultPlan, now: TrueMicros, link: usize) -> TrueMicros {
        let delay = if self.random.chance(plan.tail_chance) {
            self.random.magnitude(plan.delay_micros, TAIL_MICROS_MAX)
        } else {
            plan.wait(plan.delay_micros, &mut self.random)
        };
        let link = &mut self.links[link];
        let arrival = now.max(link.clogged_until).after(delay + 1);
        if plan.is_reordering {
            return arrival;
        }
        link.latest = link.latest.max(arrival);
        link.latest
    }

    /// Whether a frame sent on `connection` still arrives: it was not reset meanwhile. A link that was cut after the
    /// frame had left does not stop it.
    pub(super) fn delivers(&self, from: usize, to: usize, connection: u32) -> bool {
        self.links[from * self.members_count + to].connection == connection
    }

    /// Clogs what goes into `member`, what comes out of it, or both, until `end`.
    pub(super) fn clog(&mut self, member: usize, end: TrueMicros) {
        let direction = self.random.below(3);
        for other in 0..self.members_count {
            let into = other * self.members_count + member;
            let out_of = member * self.members_count + other;
            if direction != 0 {
                self.links[into].clogged_until = end;
            }
            if direction != 1 {
                self.links[out_of].clogged_until = end;
            }
        }
    }

    /// Nothing of other members comes to `member` before `end`; it is late, not lost.
    pub(super) fn deafen(&mut self, member: usize, end: TrueMicros) {
        for other in 0..self.members_count {
            self.links[other * self.members_count + member].clogged_until = end;
        }
    }

    /// The connection from `from` to `to` has lost its far end; its near end notices at `end`.
    pub(super) fn half_open(&mut self, from: usize, to: usize, end: TrueMicros) {
        let link = &mut self.links[from * self.members_count + to];
        link.connection += 1;
        link.half_open_until = end;
    }

    /// Whether clients' requests reach `member`.
    pub(super) fn hears_clients(&self, member: usize) -> bool {
        let by_partition = self.client_cuts[member].requests && !self.is_lifted;
        !by_partition && !self.own_client_cuts[member].requests
    }

    /// Whether the answers of `member` reach its clients.
    pub(super) fn is_heard_by_clients(&self, member: usize) -> bool {
        let by_partition = self.client_cuts[member].answers && !self.is_lifted;
        !by_partition && !self.own_client_cuts[member].answers
    }

    /// Cuts clients off from `centre`, or from all but `centre`, in one direction or both; the members see each other.
    pub(super) fn cut_clients(&mut self, centre: usize) {
        let cut = ClientCut { requests: self.random.below(3) > 0, answers: self.random.below(3) > 0 };
        let is_all_but_centre = self.random.below(3) == 0;
        for (member, own) in self.own_client_cuts.iter_mut().enumerate() {
            *own = if (member == centre) == is_all_but_centre { ClientCut::default() } else { cut };
        }
    }

    /// Ends what `cut_clients` did.
    pub(super) fn mend_clients(&mut self) {
        self.own_client_cuts.fill(ClientCut::default());
    }

    /// Loses everything in flight between `one` and `other`, both ways.
    pub(super) fn reset(&mut self, one: usize, other: usize) {
        for link in [one * self.members_count + other, other * self.members_count + one] {
            self.links[link].connection += 1;
            self.links[link].latest = TrueMicros(0);
        }
    }

    /// Loses everything in flight to and from `member`.
    pub(super) fn reset_all_of(&mut self, member: usize) {
        for other in 0..self.members_count {
            if other != member {
                self.reset(member, other);
            }
        }
    }

    /// Mends what was cut, then cuts links in a random shape around `centre`; returns what was done.
    pub(super) fn partition(&mut self, centre: usize) -> (Shape, u32) {
        self.mend_links();
        self.generation += 1;
        let shape = Shape::ALL[self.random.position(Shape::ALL.len())];
        let other = (centre + 1 + self.random.position(self.members_count.max(2) - 1)) % self.members_count;
        let cuts = self.cuts(shape, centre, other);
        for (link, is_cut) in self.links.iter_mut().zip(cuts) {
            link.is_cut = is_cut;
        }
        // Sometimes the connections notice at once, and what was in flight on them is lost.
        if self.random.below(2) == 0 {
            for link in self.links.iter_mut().filter(|link| link.is_cut) {
                link.connection += 1;
            }
        }
        // Clients share the fate of one side, or of none.
        if self.random.below(3) == 0 {
            self.client_cuts[centre] = ClientCut { requests: true, answers: true };
        }
        (shape, self.generation)
    }

    /// Mends what was cut, then cuts `centre` off from all other members; clients still see it.
    pub(super) fn isolate(&mut self, centre: usize) -> u32 {
        self.mend_links();
        self.generation += 1;
        let cuts = self.cuts(Shape::Isolated, centre, centre);
        for (link, is_cut) in self.links.iter_mut().zip(cuts) {
            link.is_cut = is_cut;
        }
        self.generation
    }

    /// Which links a shape cuts, in the order of `links`.
    fn cuts(&mut self, shape: Shape, centre: usize, other: usize) -> Vec<bool> {
        let count = self.members_count;
        let sides: Vec<bool> = (0..count).map(|_| self.random.below(2) == 0).collect();
        // The order of a row or a ring, beginning anywhere.
        let place = |member: usize| (member + count - centre) % count;
        let mut cuts = Vec::with_capacity(count * count);
        for from in 0..count {
            for to in 0..count {
                let apart = place(from).abs_diff(place(to));
                let is_cut = match shape {
                    Shape::Isolated => from == centre || to == centre,
                    Shape::Halves => sides[from] != sides[to],
                    Shape::Deaf => to == centre,
                    Shape::Mute => from == centre,
                    Shape::Pair => (from, to) == (centre, other) || (to, from) == (centre, other),
                    Shape::Bridge => from != centre && to != centre && sides[from] != sides[to],
                    Shape::Chain => apart > 1,
                    Shape::Ring => apart > 1 && apart < count - 1,
                    Shape::OneWay => (from, to) == (centre, other),
                    Shape::Ragged => self.random.below(2) == 0,
                };
                cuts.push(is_cut && from != to);
            }
        }
        cuts
    }

    /// Lifts the partition of `generation` for a while, or puts it back in force; whether it is still the current one.
    pub(super) fn flap(&mut self, generation: u32) -> bool {
        let is_current = generation == self.generation && self.links.iter().any(|link| link.is_cut);
        self.is_lifted = is_current && !self.is_lifted;
        is_current
    }

    /// Mends every link, if no partition later than `generation` has been made.
    pub(super) fn heal(&mut self, generation: u32) {
        if generation == self.generation {
            self.mend_links();
        }
    }

    /// Mends every link.
    pub(super) fn mend_links(&mut self) {
        for link in &mut self.links {
            link.is_cut = false;
        }
        self.is_lifted = false;
        self.client_cuts.fill(ClientCut::default());
    }

    /// Ends every clog and every half-open connection, and loses what they have delayed.
    pub(super) fn unclog_links(&mut self) {
        for link in &mut self.links {
            link.connection += 1;
            link.latest = TrueMicros(0);
            link.clogged_until = TrueMicros(0);
            link.half_open_until = TrueMicros(0);
        }
    }
}

/// A frame as a broken stream leaves it: cut short, or with one wrong bit.
pub(super) fn mangled(frame: &Bytes, random: &mut Random) -> Bytes {
    let at = random.position(frame.len().max(1));
    if random.below(2) == 0 {
        return frame.slice(..at);
    }
    let mut bytes = frame.to_vec();
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
    Bytes::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        Network::new(3, Random::new(1))
    }

    #[test]
    fn without_reordering_nothing_overtakes() {
        let mut network = network();
        let plan = FaultPlan { tail_chance: 200_000, delay_micros: 1_000, ..FaultPlan::without_faults(3) };
        let mut latest = TrueMicros(0);
        for now in 0..1_000 {
            let ([arrival, _], _) = network.send(&plan, TrueMicros(now), 0, 1);
            let arrival = arrival.unwrap();
            assert!(arrival >= latest && arrival > TrueMicros(now));
            latest = arrival;
        }
    }

    #[test]
    fn a_reset_loses_what_is_in_flight_both_ways_and_nothing_else() {
        let mut network = network();
        let plan = FaultPlan::without_faults(3);
        let (_, there) = network.send(&plan, TrueMicros(0), 0, 1);
        let (_, back) = network.send(&plan, TrueMicros(0), 1, 0);
        let (_, elsewhere) = network.send(&plan, TrueMicros(0), 0, 2);
        network.reset(0, 1);
        assert!(!network.delivers(0, 1, there));
        assert!(!network.delivers(1, 0, back));
        assert!(network.delivers(0, 2, elsewhere));
    }

    #[test]
    fn a_partition_heals_unless_a_later_one_has_come() {
        let mut network = network();
        let cut = |network: &Network| network.links.iter().any(|link| link.is_cut);
        let mut generation = 0;
        while !cut(&network) {
            (_, generation) = network.partition(0);
        }
        network.heal(generation - 1);
        assert!(cut(&network));
        network.heal(generation);
        assert!(!cut(&network));
    }

    #[test]
    fn who_is_cut_off_hears_no_member_and_still_its_clients() {
        let (mut network, plan) = (network(), FaultPlan::without_faults(3));
        let generation = network.isolate(0);
        let arrives =
            |network: &mut Network, from, to| network.send(&plan, TrueMicros(0), from, to).0[0].is_some();
        assert!(!arrives(&mut network, 0, 1) && !arrives(&mut network, 2, 0) && arrives(&mut network, 1, 2));
        assert!(network.hears_clients(0) && network.is_heard_by_clients(0));
        network.heal(generation);
        assert!(arrives(&mut network, 0, 1));
    }

    /// How many members each member can reach both ways.
    fn neighbours(members_count: usize, shape: Shape) -> Vec<usize> {
        let mut network = Network::new(members_count, Random::new(1));
        let cuts = network.cuts(shape, 1, 0);
        let sees = |from: usize, to: usize| !cuts[from * members_count + to];
        let both = |one: usize, other: usize| one != other && sees(one, other) && sees(other, one);
        (0..members_count).map(|one| (0..members_count).filter(|other| both(one, *other)).count()).collect()
    }

    #[test]
    fn each_shape_leaves_the_neighbours_it_is_named_for() {
        assert_eq!(neighbours(3, Shape::Isolated), [1, 0, 1]);
        assert_eq!(neighbours(3, Shape::Pair), [1, 1, 2]);
        assert_eq!(neighbours(5, Shape::Ring), [2; 5]);
        let mut chain = neighbours(5, Shape::Chain);
        chain.sort_unstable();
        assert_eq!(chain, [1, 1, 2, 2, 2]);
        let bridge = neighbours(5, Shape::Bridge);
        assert_eq!(bridge[1], 4, "the bridge sees both groups");
        assert_eq!(neighbours(3, Shape::OneWay), [1, 1, 2]);
    }

    #[test]
    fn a_flapping_partition_comes_and_goes_until_it_is_mended() {
        let mut network = network();
        let plan = FaultPlan::without_faults(3);
        let arrives = |network: &mut Network| network.send(&plan, TrueMicros(0), 0, 1).0[0].is_some();
        let generation = loop {
            let (_, generation) = network.partition(0);
            if !arrives(&mut network) {
                break generation;
            }
        };
        assert!(network.flap(generation) && arrives(&mut network));
        assert!(network.flap(generation) && !arrives(&mut network));
        network.heal(generation);
        assert!(!network.flap(generation) && arrives(&mut network));
    }

    #[test]
    fn a_half_open_connection_loses_what_is_sent_one_way() {
        let mut network = network();
        let plan = FaultPlan::without_faults(3);
        network.half_open(0, 1, TrueMicros(50));
        assert_eq!(network.send(&plan, TrueMicros(49), 0, 1).0, [None, None]);
        assert!(network.send(&plan, TrueMicros(49), 1, 0).0[0].is_some());
        assert!(network.send(&plan, TrueMicros(50), 0, 1).0[0].is_some());
    }
}
