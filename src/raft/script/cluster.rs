//! A cluster of pure nodes in which nothing happens by itself: clocks, writes and messages wait for the script.
//!
//! A *step* gives one node one input and ends its turn, as a replica would: the input, then `flush`, then the next
//! write is handed over if none is in flight. Messages a step sends go to the end of the queue of their link; a
//! link that is cut loses them. Every member counts time from an epoch of its own, and from another one after a
//! restart.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::checks::History;
use super::disk::{Disk, Write};
use super::notation::{Names, kind, show_log, show_member, show_position, show_role};
use crate::ids::{BootMicros, LogIndex, MemberId};
use crate::raft::{
    Config, Entry, Installed, Message, Node, Output, Position, ReadRefused, RoleName, SnapshotName,
};

/// From whom, to whom.
pub(super) type Link = (MemberId, MemberId);

/// Steps a `settle` may take before it counts as endless.
const SETTLE_STEPS_MAX: usize = 5_000;

/// How all members of a cluster behave.
pub(super) struct Settings {
    pub(super) election_micros: u64,
    pub(super) heartbeat_micros: u64,
    /// How long leaders answer alone, and those who come after them wait; 0 for never.
    pub(super) lease_micros: u64,
    pub(super) seed: u64,
    /// Bytes of a snapshot in one message.
    pub(super) chunk_bytes: u64,
}

/// What becomes of a snapshot that is whole.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is verified, gets its own name, and is installed.
    Installed,
    /// It gets its own name, and no more.
    Switched,
    /// It is not what its name says.
    Refused,
}

/// One member: its disk, and while it runs its node.
pub(super) struct Member {
    pub(super) disk: Disk,
    pub(super) node: Option<Node>,
    pub(super) clock: BootMicros,
    /// Whether its disk completes nothing.
    pub(super) is_stalled: bool,
    in_flight: Option<Write>,
    /// A chunk on its way to the temporary file: of which snapshot, its offset, its bytes.
    storing: Option<(SnapshotName, u64, u32)>,
    /// The temporary file, and how many bytes it has.
    incoming: Option<(SnapshotName, u64)>,
    /// A snapshot under its own name that is still to be installed.
    switched: Option<SnapshotName>,
    boots: u64,
}

/// Everything a script can act on.
pub(super) struct Cluster {
    pub(super) members: BTreeMap<MemberId, Member>,
    pub(super) names: Names,
    /// What the current command did, one line each.
    pub(super) report: Vec<String>,
    /// Whether messages and writes are left out of the report.
    pub(super) is_quiet: bool,
    pub(super) queues: BTreeMap<Link, VecDeque<Message>>,
    pub(super) held: BTreeMap<Link, VecDeque<Message>>,
    pub(super) cut: BTreeSet<Link>,
    history: History,
    settings: Settings,
    is_booted: bool,
}

impl Cluster {
    /// A cluster whose members all have this disk; nobody runs yet.
    pub(super) fn new(voters: &[MemberId], disk: &Disk, settings: Settings) -> Self {
        let member = || Member {
            disk: disk.clone(),
            node: None,
            clock: BootMicros(0),
            is_stalled: false,
            in_flight: None,
            storing: None,
            incoming: None,
            switched: None,
            boots: 0,
        };
        Self {
            members: voters.iter().map(|id| (*id, member())).collect(),
            names: Names::default(),
            report: Vec::new(),
            is_quiet: false,
            queues: BTreeMap::new(),
            held: BTreeMap::new(),
            cut: BTreeSet::new(),
            history: History::default(),
            settings,
            is_booted: false,
        }
    }

    /// Gives a member another disk before the cluster runs.
    pub(super) fn replace_disk(&mut self, id: MemberId, disk: Disk) -> Result<(), String> {
        if self.is_booted {
            return Err("disks are set up before the first member runs".to_owned());
        }
        self.member(id)?.disk = disk;
        Ok(())
    }

    /// Starts every member, once.
    pub(super) fn boot_once(&mut self) -> Result<(), String> {
        if self.is_booted {
            return Ok(());
        }
        self.is_booted = true;
        let ids = self.ids();
        for id in &ids {
            self.start(*id)?;
        }
        self.history.check(&self.members)?;
        for id in ids {
            self.step(id, |_, _, _| ())?;
        }
        Ok(())
    }

    /// All members.
    pub(super) fn ids(&self) -> Vec<MemberId> {
        self.members.keys().copied().collect()
    }

    /// A member, running or not.
    pub(super) fn member(&mut self, id: MemberId) -> Result<&mut Member, String> {
        self.members.get_mut(&id).ok_or_else(|| format!("there is no member {}", id.0))
    }

    /// The node of a running member.
    pub(super) fn node(&self, id: MemberId) -> Result<&Node, String> {
        let member = self.members.get(&id).and_then(|member| member.node.as_ref());
        member.ok_or_else(|| format!("member {} does not run", id.0))
    }

    /// The highest index anybody has ever committed.
    pub(super) fn commit(&self) -> LogIndex {
        self.history.commit()
    }

    fn start(&mut self, id: MemberId) -> Result<(), String> {
        self.names.restarted(id);
        let voters = self.ids();
        let Settings { election_micros, heartbeat_micros, lease_micros, .. } = self.settings;
        let seed = self.settings.seed;
        let member = self.member(id)?;
        member.boots += 1;
        member.clock = BootMicros(id.0 * 7_000_000 + member.boots * 1_000_000);
        let seed = seed * 1_000_003 + id.0 * 1_009 + member.boots;
        let config = Config {
            id,
            voters,
            election_micros,
            heartbeat_micros,
            seed,
            noop_bytes: 64,
            lease_micros,
            persist_bytes_max: crate::limits::TURN_APPEND_BYTES_MAX,
        };
        let mut node = Node::new(config, member.disk.recover(), member.clock);
        for snapshot in &member.disk.snapshots {
            node.snapshot_taken(*snapshot);
        }
        member.node = Some(node);
        Ok(())
    }

    /// A member comes back with what its disk holds.
    pub(super) fn restart(&mut self, id: MemberId) -> Result<(), String> {
        if self.member(id)?.node.is_some() {
            return Err(format!("member {} runs already", id.0));
        }
        self.start(id)?;
        self.step(id, |_, _, _| ())
    }

    /// A member dies. What its disk does not hold is gone; with `has_landed` the write in flight made it.
    pub(super) fn crash(&mut self, id: MemberId, has_landed: bool) -> Result<(), String> {
        let member = self.member(id)?;
        if member.node.take().is_none() {
            return Err(format!("member {} does not run", id.0));
        }
        (member.storing, member.switched) = (None, None);
        let in_flight = member.in_flight.take();
        if let Some(write) = in_flight.filter(|_| has_landed) {
            member.disk.apply(&write)?;
        }
        let disk = member.disk.clone();
        self.history.crashed(id, &disk);
        self.history.check(&self.members)
    }

    /// The disk of a member that is down loses entries. From now on fewer disks may hold what is committed.
    pub(super) fn rot(&mut self, id: MemberId, first: LogIndex, last: LogIndex) -> Result<(), String> {
        if self.node(id).is_ok() {
            return Err("only the disk of a member that is down rots".to_owned());
        }
        self.history.rotted();
        self.member(id)?.disk.rot(first, last)
    }

    /// One input to one node, the end of its turn, and the checks.
    pub(super) fn step<R>(
        &mut self,
        id: MemberId,
        input: impl FnOnce(&mut Node, BootMicros, &mut Vec<Output>) -> R,
    ) -> Result<R, String> {
        let lease_micros = self.settings.lease_micros;
        let member = self.member(id)?;
        let now = member.clock;
        let node = member.node.as_mut().ok_or_else(|| format!("member {} does not run", id.0))?;
        let mut outputs = Vec::new();
        let result = input(node, now, &mut outputs);
        let noop_of =
            |output: &Output| if let Output::Elected { noop } = output { Some(*noop) } else { None };
        if let Some(noop) = outputs.iter().find_map(noop_of).filter(|_| lease_micros > 0) {
            // Nobody has ever leased when the first entry is appended.
            node.set_others_lease(now, if noop.index > LogIndex(1) { lease_micros } else { 0 });
            node.lease_from(now, noop.index);
        }
        node.flush(now, &mut outputs);
        for output in outputs {
            self.take(id, output)?;
        }
        self.hand_over_write(id)?;
        self.history.check(&self.members)?;
        Ok(result)
    }

    /// One output of a step.
    fn take(&mut self, id: MemberId, output: Output) -> Result<(), String> {
        let text = match output {
            Output::Send { to, message } => return self.send(id, to, message),
            Output::Accepted { first, last } => {
                if self.is_quiet {
                    return Ok(());
                }
                format!("accepted {first}..{last}")
            }
            Output::LeaderChanged { term, leader } => {
                if self.is_quiet {
                    return Ok(());
                }
                format!("leader of term {term} is {}", show_member(leader))
            }
            Output::ReadChunk { to, session, snapshot, offset } => {
                return self.read_chunk(id, (to, session), snapshot, offset);
            }
            Output::WriteChunk { snapshot, offset, bytes_count } => {
                self.member(id)?.storing = Some((snapshot, offset, bytes_count));
                if self.is_quiet {
                    return Ok(());
                }
                let end = offset + u64::from(bytes_count);
                format!("stores {offset}..{end} of snapshot {}", show_position(snapshot.position))
            }
            Output::Rebased { base } => format!("log starts anew above {}", show_position(base)),
            Output::Superseded { from } => format!("superseded from {from}"),
            Output::Elected { noop } => {
                format!("elected in term {} with no-op {}", noop.term, show_position(noop))
            }
            Output::LeaseAges => "lease ages".to_owned(),
            Output::Deposed { term } => format!("deposed from term {term}"),
            Output::Committed { upto } => format!("committed {upto}"),
            Output::ReadReady { request, index } => {
                self.history.check_read(id, request, index)?;
                format!("read {} ready at {index}", self.names.read(id, request))
            }
            Output::ReadFailed { request } => format!("read {} failed", self.names.read(id, request)),
        };
        self.report.push(format!("{}: {text}", id.0));
        Ok(())
    }

    /// A chunk is read from a snapshot's file and sent at once, if that file is there.
    fn read_chunk(
        &mut self,
        id: MemberId,
        (to, session): (MemberId, u64),
        snapshot: SnapshotName,
        offset: u64,
    ) -> Result<(), String> {
        let left = snapshot.bytes_count.checked_sub(offset).ok_or("a chunk lies in its file")?;
        let bytes = u32::try_from(left.min(self.settings.chunk_bytes)).map_err(|_| "a chunk is small")?;
        let member = self.member(id)?;
        let has_file = member.disk.snapshots.contains(&snapshot);
        let node = member.node.as_mut().ok_or("a dead member reads")?;
        if !has_file {
            return Err(format!(
                "{} reads snapshot {}, which it has not",
                id.0,
                show_position(snapshot.position)
            ));
        }
        match node.chunk_read(to, session, snapshot, offset, bytes) {
            Some(message) => self.send(id, to, message),
            None => Ok(()),
        }
    }

    /// A member takes a snapshot of what it has committed up to `index`.
    pub(super) fn take_snapshot(&mut self, id: MemberId, index: LogIndex, bytes: u64) -> Result<(), String> {
        let node = self.node(id)?;
        let term = node.term_at(index).ok_or_else(|| format!("the log of {} does not hold {index}", id.0))?;
        let position = Position { index, term };
        let snapshot = SnapshotName { position, bytes_count: bytes, hash: index.0 };
        self.member(id)?.disk.snapshots.push(snapshot);
        self.step(id, |node, _, _| node.snapshot_taken(snapshot))
    }

    /// A member forgets its log up to `index`, in memory and on disk.
    pub(super) fn trim(&mut self, id: MemberId, index: LogIndex) -> Result<Position, String> {
        let base = self.step(id, |node, _, _| node.trim(index))?;
        self.member(id)?.disk.trim(base);
        Ok(base)
    }

    /// Whether a chunk is on its way to a member's temporary file.
    pub(super) fn is_storing(&self, id: MemberId) -> bool {
        self.members.get(&id).is_some_and(|member| member.storing.is_some())
    }

    /// A chunk is held; if the snapshot is whole, it meets its fate.
    pub(super) fn store(&mut self, id: MemberId, fate: Fate) -> Result<(), String> {
        let member = self.member(id)?;
        let (snapshot, offset, bytes) = member.storing.take().ok_or("no chunk is being stored")?;
        let held = member.incoming.filter(|(held, _)| *held == snapshot && offset > 0);
        if held.map_or(0, |(_, bytes)| bytes) != offset || bytes == 0 {
            return Err(format!("a chunk at {offset} of {bytes} bytes does not go on with its file"));
        }
        let end = offset + u64::from(bytes);
        member.incoming = Some((snapshot, end));
        self.step(id, |node, now, out| node.chunk_held(now, snapshot, offset, end, out))?;
        if end < snapshot.bytes_count {
            return Ok(());
        }
        if fate == Fate::Refused {
            return self.step(id, |node, now, out| node.snapshot_refused(now, snapshot, out));
        }
        self.member(id)?.disk.snapshots.push(snapshot);
        self.member(id)?.switched = Some(snapshot);
        if fate == Fate::Switched { Ok(()) } else { self.install(id) }
    }

    /// A snapshot under its own name is installed.
    fn install(&mut self, id: MemberId) -> Result<(), String> {
        let snapshot = self.member(id)?.switched.take().ok_or("no snapshot is to be installed")?;
        let before = self.node(id)?.commit();
        let installed = self.step(id, |node, now, out| node.install(now, snapshot, out))?;
        if installed == Installed::Replaced && before >= snapshot.position.index {
            return Err(format!("a snapshot replaces the newer state of {}", id.0));
        }
        Ok(())
    }

    fn send(&mut self, from: MemberId, to: MemberId, message: Message) -> Result<(), String> {
        let shown = self.names.show(from, to, &message);
        let is_lost = self.cut.contains(&(from, to));
        if !self.is_quiet {
            let lost = if is_lost { " (lost)" } else { "" };
            self.report.push(format!("{}->{} {shown}{lost}", from.0, to.0));
        }
        let member = self.members.get(&from).ok_or("an unknown member sends")?;
        let node = member.node.as_ref().ok_or("a dead member sends")?;
        self.history.check_send(from, to, (node, &member.disk, member.incoming), &message)?;
        if !self.members.contains_key(&to) || from == to {
            return Err(format!("{} sends to {}, which is no peer of it", from.0, to.0));
        }
        if !is_lost {
            self.queues.entry((from, to)).or_default().push_back(message);
        }
        Ok(())
    }

    /// Several reads are asked in one turn.
    pub(super) fn read(&mut self, id: MemberId, count: u64) -> Result<Vec<Result<u64, ReadRefused>>, String> {
        let committed = self.history.commit();
        let results = self.step(id, |node, now, _| (0..count).map(|_| node.read(now)).collect::<Vec<_>>())?;
        for read in results.iter().flatten() {
            self.history.read_began(id, *read, committed);
        }
        Ok(results)
    }

    /// When no write is in flight, the next one starts.
    fn hand_over_write(&mut self, id: MemberId) -> Result<(), String> {
        let member = self.member(id)?;
        if member.in_flight.is_some() {
            return Ok(());
        }
        let now = member.clock;
        let Some(node) = member.node.as_mut() else {
            return Ok(());
        };
        let Some(persist) = node.persist(now) else {
            return Ok(());
        };
        let mut entries = Vec::new();
        if let Some(run) = persist.run {
            for index in (run.first.0..=run.last.0).map(LogIndex) {
                let term =
                    node.term_at(index).ok_or_else(|| format!("a run names {index}, not in the log"))?;
                entries.push(Entry { index, term, bytes_count: super::notation::ENTRY_BYTES });
            }
        }
        let write = Write { persist, entries };
        let shown = write.show();
        member.in_flight = Some(write);
        if !self.is_quiet {
            self.report.push(format!("{} writes {shown}", id.0));
        }
        Ok(())
    }

    /// Whether a write of this member is on its way to its disk.
    pub(super) fn has_write(&self, id: MemberId) -> bool {
        self.members.get(&id).is_some_and(|member| member.in_flight.is_some())
    }

    /// The write in flight has completed.
    pub(super) fn sync(&mut self, id: MemberId) -> Result<(), String> {
        let member = self.member(id)?;
        let write = member.in_flight.take().ok_or_else(|| format!("member {} writes nothing", id.0))?;
        member.disk.apply(&write)?;
        if !self.is_quiet {
            self.report.push(format!("{} synced", id.0));
        }
        self.step(id, |node, now, out| node.persisted(now, write.persist.mark, out))
    }

    /// A message arrives. Messages to the dead are lost.
    pub(super) fn receive(&mut self, link: Link, message: Message) -> Result<(), String> {
        if self.member(link.1)?.node.is_none() {
            return Ok(());
        }
        self.step(link.1, |node, now, out| node.receive(now, link.0, message, out))
    }

    /// Takes the first message of a link, or the first of a kind.
    pub(super) fn take_message(&mut self, link: Link, wanted: Option<&str>) -> Option<Message> {
        let queue = self.queues.get_mut(&link)?;
        let place = queue.iter().position(|message| wanted.is_none_or(|wanted| kind(message) == wanted))?;
        queue.remove(place)
    }

    /// The clock of one member moves by `micros`; its node ticks at every deadline on the way, and at the end.
    pub(super) fn tick(&mut self, id: MemberId, micros: u64) -> Result<(), String> {
        let target = self.member(id)?.clock.after(micros);
        while self.tick_to_deadline(id, target)? {}
        self.member(id)?.clock = target;
        self.step(id, Node::tick)
    }

    /// Moves one clock to its node's deadline and ticks there, if that comes before `target`.
    fn tick_to_deadline(&mut self, id: MemberId, target: BootMicros) -> Result<bool, String> {
        let deadline = self.node(id)?.next_deadline();
        let member = self.member(id)?;
        if deadline >= target {
            return Ok(false);
        }
        member.clock = member.clock.max(deadline);
        let now = member.clock;
        self.step(id, Node::tick)?;
        if self.node(id)?.next_deadline() <= now {
            return Err(format!("after a tick the deadline of {} has still passed", id.0));
        }
        Ok(true)
    }

    /// Moves one clock from deadline to deadline until its node campaigns. Gives the microseconds this took.
    pub(super) fn campaign(&mut self, id: MemberId) -> Result<u64, String> {
        let begin = self.member(id)?.clock;
        for _ in 0..100 {
            let far = self.member(id)?.clock.after(10 * self.settings.election_micros);
            self.tick_to_deadline(id, far)?;
            match self.node(id)?.role() {
                RoleName::PreCandidate | RoleName::Candidate => {
                    return Ok(self.member(id)?.clock.since(begin));
                }
                RoleName::Leader if self.members.len() == 1 => {
                    return Ok(self.member(id)?.clock.since(begin));
                }
                RoleName::Follower | RoleName::Leader => {}
            }
        }
        Err(format!("member {} does not campaign", id.0))
    }

    /// All clocks move together; members tick at their deadlines. With `is_live`, writes complete and messages
    /// arrive at once after each of them.
    pub(super) fn advance(&mut self, micros: u64, is_live: bool) -> Result<(), String> {
        let mut left = micros;
        loop {
            if is_live {
                self.settle()?;
            }
            let next = self.nearest_deadline().filter(|(_, wait)| *wait <= left);
            let Some((id, wait)) = next else { break };
            for member in self.members.values_mut() {
                member.clock = member.clock.after(wait);
            }
            left -= wait;
            self.step(id, Node::tick)?;
            if self.node(id)?.next_deadline() <= self.member(id)?.clock {
                return Err(format!("after a tick the deadline of {} has still passed", id.0));
            }
        }
        for member in self.members.values_mut() {
            member.clock = member.clock.after(left);
        }
        Ok(())
    }

    fn nearest_deadline(&self) -> Option<(MemberId, u64)> {
        let waits = self.members.iter().filter_map(|(id, member)| {
            let deadline = member.node.as_ref()?.next_deadline();
            Some((*id, deadline.since(member.clock)))
        });
        waits.min_by_key(|(_, wait)| *wait)
    }

    /// Completes writes and delivers messages until nothing is left to do. Time does not pass.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        for _ in 0..SETTLE_STEPS_MAX {
            let can_sync = |member: &Member| member.in_flight.is_some() && !member.is_stalled;
            let writer = self.members.iter().find(|(_, member)| can_sync(member)).map(|(id, _)| *id);
            if let Some(id) = writer {
                self.sync(id)?;
                continue;
            }
            let storing =
                self.members.iter().find(|(_, member)| member.storing.is_some() && !member.is_stalled);
            if let Some(id) = storing.map(|(id, _)| *id) {
                self.store(id, Fate::Installed)?;
                continue;
            }
            let switched = self.members.iter().find(|(_, member)| member.switched.is_some());
            if let Some(id) = switched.map(|(id, _)| *id) {
                self.install(id)?;
                continue;
            }
            // Links take turns, so that none starves while others keep talking.
            let waiting = self.queues.values().map(VecDeque::len).max().unwrap_or(0);
            let link = self.queues.iter().find(|(_, queue)| queue.len() == waiting).map(|(link, _)| *link);
            let Some(link) = link.filter(|_| waiting > 0) else {
                return Ok(());
            };
            if let Some(message) = self.take_message(link, None) {
                self.receive(link, message)?;
            }
        }
        Err("the cluster does not come to rest".to_owned())
    }

    /// Members hear each other only inside a group they share; a member may be in several. Messages on the way
    /// across a cut are lost.
    pub(super) fn partition(&mut self, groups: &[Vec<MemberId>]) {
        self.cut.clear();
        let ids = self.ids();
        for from in &ids {
            for to in &ids {
                let is_joined = groups.iter().any(|group| group.contains(from) && group.contains(to));
                if from != to && !is_joined {
                    self.cut_link((*from, *to));
                }
            }
        }
    }

    /// One direction between two members is cut.
    pub(super) fn cut_link(&mut self, link: Link) {
        self.cut.insert(link);
        self.queues.remove(&link);
    }

    /// What one member is, in a line.
    pub(super) fn show(&self, id: MemberId) -> Result<String, String> {
        let member = self.members.get(&id).ok_or_else(|| format!("there is no member {}", id.0))?;
        let Some(node) = &member.node else {
            return Ok(format!("{} down, disk {}", id.0, member.disk.show()));
        };
        let role = show_role(node.role());
        let state = node.hard_state();
        let hole = if node.has_hole() { " hole" } else { "" };
        let base = node.base();
        let base =
            if base == Position::START { String::new() } else { format!(" base={}", show_position(base)) };
        Ok(format!(
            "{} {role} term={} vote={} leader={} commit={} durable={} log={}{base}{hole}",
            id.0,
            state.term,
            show_member(state.vote),
            show_member(node.leader()),
            node.commit(),
            node.durable(),
            show_log(&log_of(node)),
        ))
    }
}

/// The contiguous log a node holds in memory.
pub(super) fn log_of(node: &Node) -> Vec<Position> {
    let indices = (node.base().index.0 + 1..=node.last().index.0).map(LogIndex);
    indices.filter_map(|index| Some(Position { index, term: node.term_at(index)? })).collect()
}
