//! The facade: one member's consensus state for one group, driven by calls, answering in outputs.
//!
//! Always holds: nothing is sent that depends on an undurable term or vote (`outbox`); a term change happens in
//! `become_follower` or `become_candidate` and nowhere else; every public method ends with the cheap invariants.
//! The rules themselves live in the files named in the room's front door.

use super::batch::Batch;
use super::candidate::Poll;
use super::durability::Durability;
use super::fill::Filling;
use super::follower::Follower;
use super::interface::{
    Config, Mark, NotLeader, Output, Persist, ReadRefused, RecoveredLog, RoleName, Run, RunKind,
    TransferRefused,
};
use super::invariants;
use super::leader::Leader;
use super::leader_lease::Released;
use super::log::{Change, Log};
use super::message::{Entry, HardState, Message, Position};
use super::outbox::Outbox;
use super::progress::Progress;
use super::random::Random;
use super::read_index::FollowerReads;
use super::snapshot::Snapshots;
use crate::ids::{BootMicros, LogIndex, MemberId, Term};
use crate::limits::RAFT_VOTERS_MAX;
use crate::planted;

/// One member's consensus state for one group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub(super) id: MemberId,
    /// The other voters.
    pub(super) peers: Vec<MemberId>,
    pub(super) election_micros: u64,
    pub(super) heartbeat_micros: u64,
    pub(super) noop_bytes: u32,
    pub(super) lease_micros: u64,
    persist_bytes_max: usize,
    pub(super) random: Random,
    pub(super) hard_state: HardState,
    pub(super) log: Log,
    pub(super) durability: Durability,
    pub(super) outbox: Outbox,
    pub(super) role: Role,
    /// The election timeout drawn last, from [E, 2E).
    pub(super) election_timeout: u64,
    /// When this member, unless it leads, will campaign.
    pub(super) election_at: BootMicros,
    pub(super) reads: FollowerReads,
    pub(super) last_read: u64,
    pub(super) filling: Filling,
    pub(super) snapshots: Snapshots,
    /// When an entry last entered the log, in this boot.
    pub(super) received_at: BootMicros,
    /// What the leader of the term that `TimeoutNow` came in released.
    pub(super) released_to_us: Released,
    /// The leader that `LeaderChanged` named last.
    announced: Option<(Term, MemberId)>,
    /// The end of the log that the disk names above holes, and the index that settles it once written: its own, or
    /// that of the entry which contradicted it.
    pub(super) named: Option<(Position, LogIndex)>,
}

/// What a member is in its term, and what it knows only in that role.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    Follower(Follower),
    PreCandidate(Poll),
    Candidate(Poll),
    Leader(Box<Leader>),
}

impl Node {
    /// A member as recovery found it: a follower that knows no leader. All that was recovered is durable.
    pub fn new(config: Config, recovered: RecoveredLog, now: BootMicros) -> Self {
        assert!(config.voters.contains(&config.id), "a member is one of its group's voters");
        assert!(config.voters.len() <= RAFT_VOTERS_MAX, "the number of voters is bounded");
        let mut peers: Vec<MemberId> =
            config.voters.into_iter().filter(|voter| *voter != config.id).collect();
        peers.sort_unstable();
        peers.dedup();
        let durability = Durability::recovered(recovered.hard_state);
        let log = Log::recovered(recovered.base, recovered.entries, recovered.islands);
        let mut random = Random::new(config.seed);
        let first_request = random.number();
        let mut node = Self {
            id: config.id,
            peers,
            election_micros: config.election_micros,
            heartbeat_micros: config.heartbeat_micros,
            noop_bytes: config.noop_bytes,
            lease_micros: config.lease_micros,
            persist_bytes_max: config.persist_bytes_max,
            random,
            hard_state: recovered.hard_state,
            log,
            durability,
            outbox: Outbox::default(),
            role: Role::Follower(Follower::without_leader()),
            election_timeout: config.election_micros,
            election_at: now,
            reads: FollowerReads::new(first_request),
            last_read: 0,
            filling: Filling::new(now),
            snapshots: Snapshots::default(),
            received_at: now,
            released_to_us: None,
            announced: None,
            named: None,
        };
        node.settle_recovered_state(recovered.snapshot);
        node.name_end();
        if recovered.is_reset_owed {
            node.owe_reset();
        }
        if !node.peers.is_empty() {
            node.draw_election_timeout(now);
        }
        invariants::assert_all(&node);
        node
    }

    /// Fits the hard state to the log. The commit hint counts only in a sound log: below a hole, what is left
    /// of the log may be entries that the damaged frame had replaced. What a snapshot holds is committed, whatever
    /// the hint says: it may have become durable after the last hard state (catalogue 22).
    fn settle_recovered_state(&mut self, snapshot: Position) {
        assert!(self.log.holds(snapshot), "the log starts at or below the snapshot and holds its last entry");
        let hint = self.hard_state.commit;
        let committed = if planted!(22) { self.log.base().index.min(hint) } else { snapshot.index };
        self.hard_state.commit =
            if self.log.has_hole() { committed } else { hint.min(self.log.last().index).max(committed) };
        let newest = self.log.newest_term();
        if newest > self.hard_state.term {
            self.hard_state.term = newest;
            self.hard_state.vote = None;
        }
    }

    /// Notes which end of the log the disk names above holes, if there are any.
    pub(super) fn name_end(&mut self) {
        let end = self.log.vote_position();
        self.named = self.log.has_hole().then_some((end, end.index));
    }

    /// A message from a peer. Whatever it says, nothing here panics; what cannot be true is dropped.
    pub fn receive(&mut self, now: BootMicros, from: MemberId, message: Message, out: &mut Vec<Output>) {
        if !self.peers.contains(&from) || !message.is_well_formed() {
            return;
        }
        if self.is_ignored(now, &message) {
            return;
        }
        if planted!(10) && matches!(&message, Message::AppendRequest(request) if request.entries.is_empty()) {
            self.hard_state.term = self.hard_state.term.max(message.term());
        }
        if message.term() > self.hard_state.term && changes_term(&message) {
            self.become_follower(now, message.term(), None, out);
        }
        match message {
            Message::PreVoteRequest(request) => self.receive_pre_vote_request(now, from, request, out),
            Message::PreVoteReply(reply) => self.receive_pre_vote_reply(now, from, reply, out),
            Message::VoteRequest(request) => self.receive_vote_request(now, from, request, out),
            Message::VoteReply(reply) => self.receive_vote_reply(now, from, reply, out),
            Message::AppendRequest(request) => self.receive_append_request(now, from, &request, out),
            Message::AppendReply(reply) => self.receive_append_reply(now, from, reply, out),
            Message::TimeoutNow(order) => self.receive_timeout_now(now, from, order, out),
            Message::ReadIndexRequest(request) => self.receive_read_index_request(from, request, out),
            Message::ReadIndexReply(reply) => self.receive_read_index_reply(from, reply, out),
            Message::FillRequest(request) => self.receive_fill_request(from, request, out),
            Message::FillReply(reply) => self.receive_fill_reply(now, from, &reply, out),
            Message::SnapshotChunk(chunk) => self.receive_snapshot_chunk(now, from, chunk, out),
            Message::SnapshotReply(reply) => self.receive_snapshot_reply(now, from, reply),
        }
        self.settle(now, out);
    }

    /// Time has come to `now`.
    pub fn tick(&mut self, now: BootMicros, out: &mut Vec<Output>) {
        match &self.role {
            Role::Leader(_) => self.tick_leader(now, out),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                self.fail_late_reads(now, out);
                if now >= self.election_at {
                    self.campaign(now, out);
                }
            }
        }
        self.request_fill(now, out);
        self.settle(now, out);
    }

    /// Appends entries of these sizes; the first gets the returned position, the others follow on it.
    ///
    /// # Errors
    /// When this member does not lead, or is handing its leadership over.
    pub fn propose(&mut self, now: BootMicros, sizes: &[u32]) -> Result<Position, NotLeader> {
        let first = self.append_proposals(now, sizes)?;
        self.watch_disk(now);
        invariants::assert_cheap(self);
        Ok(first)
    }

    /// Registers a linearizable read; `ReadReady` or `ReadFailed` with the returned number follows.
    ///
    /// # Errors
    /// When no leader is known, or too many reads wait.
    pub fn read(&mut self, _now: BootMicros) -> Result<u64, ReadRefused> {
        self.register_read()
    }

    /// Starts handing leadership to `to` (thesis 3.10).
    ///
    /// # Errors
    /// When this member does not lead, or the target is not another voter.
    pub fn transfer(
        &mut self,
        now: BootMicros,
        to: MemberId,
        out: &mut Vec<Output>,
    ) -> Result<(), TransferRefused> {
        self.start_transfer(now, to)?;
        self.drive_transfer(out);
        self.settle(now, out);
        Ok(())
    }

    /// Sends what this turn has gathered: new entries to peers, one read round. Once, at the end of a turn.
    pub fn flush(&mut self, now: BootMicros, out: &mut Vec<Output>) {
        match &self.role {
            Role::Leader(_) => {
                self.flush_leader(now, out);
                self.drive_transfer(out);
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => self.flush_reads(now, out),
        }
        self.settle(now, out);
    }

    /// What the next write must hold, if anything is not yet handed over and nothing is held back (`batch`). Call it when
    /// no write is in flight.
    pub fn persist(&mut self, now: BootMicros) -> Option<Persist> {
        if self.durability.is_writing() || !self.durability.is_owed(self.hard_state) {
            return None;
        }
        if self.holds_until(now).is_some() {
            return None;
        }
        let reset = self.durability.reset_due();
        let mut run = if reset.is_none() { self.next_run() } else { None };
        let named = self.still_named(run);
        if let (Some(run), Some(_), false) = (&mut run, named, planted!(51)) {
            run.kind = RunKind::Fill;
        }
        let mark = self.durability.hand_over(self.hard_state, run.map(|run| run.last));
        if let (Some(run), Role::Leader(leader)) = (run, &mut self.role) {
            leader.batch = Some(Batch::handed(run.first, run.last, now));
        }
        self.watch_disk(now);
        let last = named.unwrap_or_else(|| self.end_on_disk(run));
        let covered = self.durability.next_run().map_or(self.log.last().index, |span| span.first.previous());
        let commit = self.hard_state.commit.min(covered);
        invariants::assert_cheap(self);
        Some(Persist { mark, hard_state: HardState { commit, ..self.hard_state }, reset, run, last })
    }

    /// The run to write next: the start of the lowest range that waits, as much as one write may hold.
    fn next_run(&self) -> Option<Run> {
        let span = self.durability.next_run()?;
        let mut bytes_count = 0;
        let mut last = span.first;
        for entry in self.log.range(span.first, span.last) {
            bytes_count += entry.bytes_count as usize;
            if entry.index > span.first && bytes_count > self.persist_bytes_max {
                break;
            }
            last = entry.index;
        }
        // Nothing on disk above `first` may be wanted any more if the run is to supersede it.
        let is_end = span.last == self.log.last().index && !self.log.has_hole();
        let kind = if is_end || planted!(51) { RunKind::Append } else { RunKind::Fill };
        let previous = self.log.position_at(span.first.previous());
        let previous = previous.unwrap_or_else(|| self.log.base());
        Some(Run { kind, previous, first: span.first, last })
    }

    /// The end of the log that the disk names above holes, unless `run` settles it. Until then a crash brings the holes
    /// back, whatever has arrived in memory, and the member must vote as if its log were intact (DESIGN §8).
    fn still_named(&mut self, run: Option<Run>) -> Option<Position> {
        let (_, settled_by) = self.named?;
        if run.is_some_and(|run| run.last >= settled_by) {
            self.named = None;
        }
        self.named.map(|(end, _)| end)
    }

    /// Where the log on disk ends, for votes, once `run` is written.
    fn end_on_disk(&self, run: Option<Run>) -> Position {
        if self.log.has_hole() {
            return self.log.vote_position();
        }
        let last = self.log.last().index;
        let unwritten = self.durability.last_run().filter(|span| span.last == last);
        let end = unwritten.map_or(last, |span| span.first.previous());
        assert!(run.is_none_or(|run| run.last <= end), "a run lies within the log on disk");
        self.log.position_at(end).unwrap_or_else(|| self.log.base())
    }

    /// The write that held `mark` is durable.
    pub fn persisted(&mut self, now: BootMicros, mark: Mark, out: &mut Vec<Output>) {
        if !self.durability.completed(mark) {
            return;
        }
        self.outbox.release(self.durability.ballot(), out);
        self.note_durable_batch(now);
        match &self.role {
            Role::Follower(_) => self.tell_durable(out),
            Role::PreCandidate(_) => {}
            Role::Candidate(_) => self.count_own_vote(now, out),
            Role::Leader(_) => self.advance_commit(now, out),
        }
        self.settle(now, out);
    }

    /// When `tick` must be called at the latest.
    pub fn next_deadline(&self) -> BootMicros {
        let role = match &self.role {
            Role::Leader(leader) => self.leader_deadline(leader),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => self
                .reads
                .deadline(self.election_micros)
                .map_or(self.election_at, |at| at.min(self.election_at)),
        };
        if self.log.has_hole() { role.min(self.filling.request_at) } else { role }
    }

    /// What this member is in its term.
    pub fn role(&self) -> RoleName {
        match &self.role {
            Role::Follower(_) => RoleName::Follower,
            Role::PreCandidate(_) => RoleName::PreCandidate,
            Role::Candidate(_) => RoleName::Candidate,
            Role::Leader(_) => RoleName::Leader,
        }
    }

    /// Who leads the current term, if known.
    pub fn leader(&self) -> Option<MemberId> {
        match &self.role {
            Role::Follower(follower) => follower.leader,
            Role::PreCandidate(_) | Role::Candidate(_) => None,
            Role::Leader(_) => Some(self.id),
        }
    }

    /// Term, vote and commit as they are in memory.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Everything up to here is committed.
    pub fn commit(&self) -> LogIndex {
        self.hard_state.commit
    }

    /// The end of the contiguous log.
    pub fn last(&self) -> Position {
        self.log.last()
    }

    /// The contiguous log's end that is durable here; 0 while the log on disk has not started anew behind an installed
    /// snapshot.
    pub fn durable(&self) -> LogIndex {
        self.durability.durable_upto(self.log.last().index)
    }

    /// The furthest that another voter has acknowledged to this leader; 0 if this member does not lead.
    pub fn acknowledged(&self) -> LogIndex {
        match &self.role {
            Role::Leader(leader) => {
                let matched = leader.followers.iter().map(Progress::matched);
                matched.max().unwrap_or_default()
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => LogIndex(0),
        }
    }

    /// Whether a hole keeps this member from campaigning.
    pub fn has_hole(&self) -> bool {
        self.log.has_hole()
    }

    /// The term of the entry at `index`, if the contiguous log holds it.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.log.term_at(index)
    }

    /// Checks every invariant of the room, also those that walk the whole log.
    pub fn assert_invariants(&self) {
        invariants::assert_all(self);
    }
}

/// Steps that several roles take.
impl Node {
    /// Follows `leader` (or nobody yet) in `term`, from whatever role.
    pub(super) fn become_follower(
        &mut self,
        now: BootMicros,
        term: Term,
        leader: Option<MemberId>,
        out: &mut Vec<Output>,
    ) {
        assert!(term >= self.hard_state.term, "a term never goes back");
        if let Role::Leader(_) = self.role {
            self.depose(out);
            self.draw_election_timeout(now);
        }
        self.fail_reads(out);
        if term > self.hard_state.term {
            self.hard_state = HardState { term, vote: None, ..self.hard_state };
            self.outbox.clear();
        }
        self.role = Role::Follower(Follower::of(leader, now));
    }

    /// Draws a new timeout from [E, 2E) and starts it.
    pub(super) fn draw_election_timeout(&mut self, now: BootMicros) {
        let jitter = self.random.below(self.election_micros);
        self.election_timeout = self.election_micros + if planted!(16) { 0 } else { jitter };
        self.election_at = now.after(self.election_timeout);
    }

    /// Sends a message once the term (and for votes the vote) it depends on is durable.
    pub(super) fn send(&mut self, to: MemberId, message: Message, out: &mut Vec<Output>) {
        self.outbox.send(to, message, self.hard_state.into(), self.durability.ballot(), out);
    }

    /// Takes entries from a peer into the log and the books; their `previous` is held here.
    pub(super) fn accept(&mut self, now: BootMicros, entries: &[Entry], out: &mut Vec<Output>) {
        if entries.is_empty() {
            return;
        }
        let mut changes = Vec::new();
        self.log.accept(entries, &mut changes);
        for change in changes {
            match change {
                Change::Cut { from, is_below_island } => {
                    self.durability.cut(from);
                    self.named = self.named.map(|(named, until)| (named, until.min(from)));
                    if !is_below_island {
                        out.push(Output::Superseded { from });
                    }
                }
                Change::EndDropped { at, is_below_island } => {
                    self.named = self.named.map(|(named, until)| (named, until.min(at)));
                    if !is_below_island {
                        out.push(Output::Superseded { from: at });
                    }
                }
                Change::Added { first, last } => {
                    self.durability.added(first, last);
                    self.received_entries(now);
                    out.push(Output::Accepted { first, last });
                }
            }
        }
    }

    /// Moves the commit index up to `upto` and says so, once.
    pub(super) fn commit_upto(&mut self, upto: LogIndex, out: &mut Vec<Output>) {
        if upto > self.hard_state.commit {
            self.hard_state.commit = upto;
            out.push(Output::Committed { upto });
        }
    }

    /// Whether the own disk has owed an answer for so long that this member should not lead.
    pub(super) fn is_disk_stalled(&self, now: BootMicros) -> bool {
        let waiting = self.durability.waiting_since();
        waiting.is_some_and(|waiting| now.since(waiting.since) >= self.election_micros / 2)
    }

    fn watch_disk(&mut self, now: BootMicros) {
        self.durability.watch(now, self.hard_state, self.log.last().index);
    }

    /// The end of every public method that may change what others see.
    pub(super) fn settle(&mut self, now: BootMicros, out: &mut Vec<Output>) {
        self.watch_disk(now);
        let known = self.leader().map(|leader| (self.hard_state.term, leader));
        if known != self.announced {
            self.announced = known;
            let leader = known.map(|(_, leader)| leader);
            out.push(Output::LeaderChanged { term: self.hard_state.term, leader });
        }
        invariants::assert_cheap(self);
    }
}

/// Whether a higher term in this message is one that somebody is in (thesis 9.6).
fn changes_term(message: &Message) -> bool {
    match message {
        Message::PreVoteRequest(_) => false,
        Message::PreVoteReply(reply) => !reply.is_granted,
        Message::VoteRequest(_)
        | Message::VoteReply(_)
        | Message::AppendRequest(_)
        | Message::AppendReply(_)
        | Message::TimeoutNow(_)
        | Message::ReadIndexRequest(_)
        | Message::ReadIndexReply(_)
        | Message::FillRequest(_)
        | Message::FillReply(_)
        | Message::SnapshotChunk(_)
        | Message::SnapshotReply(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{append, config, elect, entries, member, position, receive, recovered, sync};
    use super::*;
    use crate::limits::TURN_APPEND_BYTES_MAX;

    #[test]
    fn a_run_never_exceeds_what_one_write_may_hold() {
        let mut node = Node::new(config(1, 3, 1), recovered(&[1]), BootMicros(0));
        let now = elect(&mut node);
        let half = u32::try_from(TURN_APPEND_BYTES_MAX / 2).unwrap();
        node.propose(now, &[half, half, 1]).unwrap();
        let first = node.persist(now).unwrap();
        assert_eq!(first.run.map(|run| (run.first.0, run.last.0)), Some((3, 4)));
        assert_eq!(first.last, position(4, 2), "the disk will end there");
        node.persisted(now, first.mark, &mut Vec::new());
        let second = node.persist(now).unwrap();
        assert_eq!(second.run.map(|run| (run.first.0, run.last.0)), Some((5, 5)));
    }

    #[test]
    fn one_write_is_in_flight_at_a_time_and_nothing_is_written_for_nothing() {
        let mut node = member(recovered(&[1]));
        assert_eq!(node.persist(BootMicros(0)), None);
        receive(&mut node, 0, 2, append(2, position(1, 1), entries(2, &[2]), 0));
        let mark = node.persist(BootMicros(0)).unwrap().mark;
        receive(&mut node, 0, 2, append(2, position(2, 2), entries(3, &[2]), 3));
        assert_eq!(node.persist(BootMicros(0)), None);
        node.persisted(BootMicros(0), mark, &mut Vec::new());
        assert!(node.persist(BootMicros(0)).is_some());
    }

    #[test]
    fn a_commit_hint_never_passes_what_the_disk_will_hold() {
        let mut node = member(recovered(&[1]));
        let large = u32::try_from(TURN_APPEND_BYTES_MAX).unwrap();
        let mut new = entries(2, &[2, 2]);
        new[0].bytes_count = large;
        receive(&mut node, 0, 2, append(2, position(1, 1), new, 3));
        assert_eq!(node.commit(), LogIndex(3));
        let persist = node.persist(BootMicros(0)).unwrap();
        assert_eq!(persist.hard_state.commit, LogIndex(2));
    }

    #[test]
    fn held_messages_of_an_older_term_are_dropped() {
        let mut node = member(recovered(&[1]));
        receive(&mut node, 0, 2, append(2, position(1, 1), Vec::new(), 0));
        let mark = node.persist(BootMicros(0)).unwrap().mark;
        receive(&mut node, 0, 3, append(3, position(1, 1), Vec::new(), 0));
        let mut out = Vec::new();
        node.persisted(BootMicros(0), mark, &mut out);
        assert_eq!(out, [], "the answer in term 2 is worthless, the one in term 3 not yet durable");
        assert_eq!(sync(&mut node, BootMicros(0)).len(), 1);
    }

    #[test]
    fn a_recovered_commit_hint_is_clamped_to_the_log() {
        let mut found = recovered(&[1, 1]);
        found.hard_state.commit = LogIndex(9);
        assert_eq!(member(found).commit(), LogIndex(2));
    }

    #[test]
    fn strangers_are_not_heard() {
        let mut node = member(recovered(&[1]));
        assert_eq!(receive(&mut node, 0, 4, append(9, position(1, 1), Vec::new(), 0)), []);
        assert_eq!(receive(&mut node, 0, 1, append(9, position(1, 1), Vec::new(), 0)), []);
        assert_eq!(node.hard_state().term, Term(1));
    }
}
