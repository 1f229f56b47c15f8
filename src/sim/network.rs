//! The network between members: it loses, doubles, delays and reorders what it carries, and comes apart.
//!
//! Always: a frame arrives whole or not at all, unchanged (a stream with its own checksums carries it); what is in
//! flight between two members when their connection is reset is lost; a cut link carries nothing, in one direction
//! or in both. Clients are reached over links of their own, which have loss but no partitions from each other.
//! Left out: frames cut in the middle and bandwidth, which are the business of the real connection's tests.

use super::clock::TrueMicros;
use super::fault_plan::FaultPlan;
use super::random::Random;

/// The links between every two members, one for each direction.
#[derive(Debug)]
pub(super) struct Network {
    members_count: usize,
    links: Vec<Link>,
    /// Whether clients can reach each member.
    is_cut_from_clients: Vec<bool>,
    /// Counts partitions, so that mending an old one leaves a newer one alone.
    generation: u32,
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
}

/// When a frame arrives: not at all, once or twice.
pub(super) type Arrivals = [Option<TrueMicros>; 2];

/// How the members are separated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    Bridge,
    /// Each link in each direction by the toss of a coin.
    Ragged,
}

const SHAPES: [Shape; 6] =
    [Shape::Isolated, Shape::Halves, Shape::Deaf, Shape::Mute, Shape::Bridge, Shape::Ragged];

/// The longest delay of the tail.
const TAIL_MICROS_MAX: u64 = 5_000_000;

impl Network {
    /// A whole network of `members_count` members.
    pub(super) fn new(members_count: usize, random: Random) -> Self {
        Self {
            members_count,
            links: vec![Link::default(); members_count * members_count],
            is_cut_from_clients: vec![false; members_count],
            generation: 0,
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
        if self.links[link].is_cut || self.random.chance(plan.loss_chance) {
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

    /// Whether clients can reach `member`, and it them.
    pub(super) fn is_reachable_by_clients(&self, member: usize) -> bool {
        !self.is_cut_from_clients[member]
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
        let shape = SHAPES[self.random.position(SHAPES.len())];
        let other = (centre + 1 + self.random.position(self.members_count.max(2) - 1)) % self.members_count;
        let sides: Vec<bool> = (0..self.members_count).map(|_| self.random.below(2) == 0).collect();
        for from in 0..self.members_count {
            for to in 0..self.members_count {
                let is_cut = match shape {
                    Shape::Isolated => from == centre || to == centre,
                    Shape::Halves => sides[from] != sides[to],
                    Shape::Deaf => to == centre,
                    Shape::Mute => from == centre,
                    Shape::Bridge => (from, to) == (centre, other) || (to, from) == (centre, other),
                    Shape::Ragged => self.random.below(2) == 0,
                };
                self.links[from * self.members_count + to].is_cut = is_cut && from != to;
            }
        }
        // Sometimes the connections notice at once, and what was in flight on them is lost.
        if self.random.below(2) == 0 {
            for link in self.links.iter_mut().filter(|link| link.is_cut) {
                link.connection += 1;
            }
        }
        // Clients share the fate of one side, or of none.
        if self.random.below(3) == 0 {
            self.is_cut_from_clients[centre] = true;
        }
        (shape, self.generation)
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
        self.is_cut_from_clients.fill(false);
    }

    /// Ends every clog, and loses what it has delayed.
    pub(super) fn unclog_links(&mut self) {
        for link in &mut self.links {
            link.connection += 1;
            link.latest = TrueMicros(0);
            link.clogged_until = TrueMicros(0);
        }
    }
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
    fn a_bridge_separates_two_who_both_see_the_third() {
        let mut network = network();
        while network.partition(0).0 != Shape::Bridge {}
        let cuts = network.links.iter().filter(|link| link.is_cut).count();
        assert_eq!(cuts, 2);
    }
}
