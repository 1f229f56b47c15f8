//! Leading: appending proposals, replicating them, and the commit rule (`advance_commit`).
//!
//! Always holds: a leader only appends to its log; it has no hole; its own copy of an entry counts only when it is
//! durable here. It steps down when it hears no majority for E, or when its disk stands still while others' go on.
//! Appends leave in `flush_leader`, once a turn; heartbeats in `tick_leader`.

use super::batch::Batch;
use super::interface::{NotLeader, Output};
use super::leader_lease::LeaderLease;
use super::message::{AppendReply, AppendResult, Entry, Message, Position};
use super::node::{Node, Role};
use super::progress::{Header, Progress};
use super::quorum;
use super::read_index::LeaderReads;
use super::transfer::Transfer;
use crate::ids::{BootMicros, LogIndex, MemberId};
use crate::{planted, sometimes};

/// What only a leader knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leader {
    /// The first entry of its term. Once it is committed, so is everything before.
    pub(super) noop: LogIndex,
    pub(super) followers: Vec<Progress>,
    pub(super) reads: LeaderReads,
    pub(super) lease: LeaderLease,
    pub(super) transfer: Option<Transfer>,
    pub(super) heartbeat_at: BootMicros,
    /// Until when something is held back that the last `flush_leader` could have sent.
    pub(super) gathers_until: Option<BootMicros>,
    /// What its disk was given last, while that may hold back what comes next.
    pub(super) batch: Option<Batch>,
}

impl Leader {
    pub(super) fn follower(&mut self, peer: MemberId) -> Option<&mut Progress> {
        self.followers.iter_mut().find(|follower| follower.peer == peer)
    }

    /// The latest instant since which a majority was heard.
    fn majority_heard_at(&self) -> BootMicros {
        if self.followers.is_empty() || planted!(14) {
            return BootMicros(u64::MAX);
        }
        let others = self.followers.iter().map(|follower| follower.heard_at().0);
        BootMicros(quorum::reached_by_majority(others.chain([u64::MAX])))
    }
}

impl Node {
    /// A majority voted for this member: it leads, and starts its term with a no-op (thesis 6.4).
    pub(super) fn become_leader(&mut self, now: BootMicros, out: &mut Vec<Output>) {
        assert!(self.durability.ballot() == self.hard_state.into(), "a leader's own vote is durable");
        let index = self.log.last().index.next();
        let noop = Position { index, term: self.hard_state.term };
        let random = &mut self.random;
        let followers =
            self.peers.iter().map(|peer| Progress::new(*peer, random.number(), index, now)).collect();
        self.role = Role::Leader(Box::new(Leader {
            noop: index,
            followers,
            reads: LeaderReads::default(),
            lease: LeaderLease::default(),
            transfer: None,
            heartbeat_at: now.after(self.heartbeat_micros),
            gathers_until: None,
            batch: None,
        }));
        self.append_own(now, self.noop_bytes);
        out.push(Output::Elected { noop });
    }

    fn append_own(&mut self, now: BootMicros, bytes_count: u32) {
        let index = self.log.last().index.next();
        self.log.append(Entry { index, term: self.hard_state.term, bytes_count });
        self.durability.added(index, index);
        if let Role::Leader(leader) = &mut self.role
            && leader.lease.has_begun()
        {
            leader.lease.appended(now, index);
        }
    }

    /// Gives proposals their places.
    pub(super) fn append_proposals(&mut self, now: BootMicros, sizes: &[u32]) -> Result<Position, NotLeader> {
        let Role::Leader(leader) = &self.role else {
            return Err(NotLeader { leader: self.leader() });
        };
        if let Some(transfer) = &leader.transfer {
            return Err(NotLeader { leader: Some(transfer.to) });
        }
        let index = self.log.last().index.next();
        for bytes_count in sizes {
            self.append_own(now, *bytes_count);
        }
        Ok(Position { index, term: self.hard_state.term })
    }

    /// No longer a leader. What it had promised to readers fails.
    pub(super) fn depose(&mut self, out: &mut Vec<Output>) {
        if let Role::Leader(leader) = &mut self.role {
            out.push(Output::Deposed { term: self.hard_state.term });
            leader.reads.fail_all(out);
        }
    }

    /// Steps down if it should not lead; otherwise sends the heartbeats that are due.
    pub(super) fn tick_leader(&mut self, now: BootMicros, out: &mut Vec<Output>) {
        let Role::Leader(leader) = &self.role else {
            return;
        };
        if leader.lease.defers_until().is_some_and(|until| now >= until) {
            self.advance_commit(now, out);
        }
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let (is_alone, is_outrun) = (self.has_lost_majority(leader, now), self.is_outrun(leader, now));
        if is_alone {
            sometimes!(LeaderWithoutMajority);
        } else if is_outrun {
            sometimes!(LeaderOutrunByOthersDisks);
        }
        if is_alone || is_outrun {
            self.become_follower(now, self.hard_state.term, None, out);
            return;
        }
        let (heartbeat_micros, election_micros) = (self.heartbeat_micros, self.election_micros);
        let header = self.header();
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if leader.transfer.as_ref().is_some_and(|transfer| now >= transfer.deadline) {
            sometimes!(TransferTimedOut);
            leader.transfer = None;
            leader.lease.transfer_given_up();
        }
        // The flush at the end of this turn sends what was gathered.
        leader.gathers_until = leader.gathers_until.filter(|until| now < *until);
        leader.batch = leader.batch.filter(|batch| batch.awaited_until.is_none_or(|until| now < until));
        if now < leader.heartbeat_at {
            return;
        }
        leader.heartbeat_at = now.after(heartbeat_micros);
        leader.lease.ticked(heartbeat_micros);
        if let Some(transfer) = &mut leader.transfer {
            transfer.is_sent = false;
        }
        for follower in &mut leader.followers {
            follower.before_heartbeat(now, election_micros, self.log.base().index);
            let message = Message::AppendRequest(follower.empty_append(&self.log, header));
            out.push(Output::Send { to: follower.peer, message });
        }
    }

    /// Check-quorum: whether no majority, this member included, was heard for E (thesis 6.2).
    pub(super) fn has_lost_majority(&self, leader: &Leader, now: BootMicros) -> bool {
        now.since(leader.majority_heard_at()) >= self.election_micros
    }

    /// Whether the own disk stands still while another voter's has gone on since (catalogue 45, 46).
    fn is_outrun(&self, leader: &Leader, now: BootMicros) -> bool {
        self.outrun_at(leader).is_some_and(|at| now >= at)
    }

    /// When this leader will count as outrun if its disk does not answer.
    fn outrun_at(&self, leader: &Leader) -> Option<BootMicros> {
        // While commits wait for others' leases a disk that stands still delays nobody.
        let may_step_down = leader.lease.defers_until().is_none() && !planted!(45);
        let waiting = self.durability.waiting_since().filter(|_| may_step_down)?;
        let is_passed = leader.followers.iter().any(|follower| follower.matched() > waiting.log_end);
        is_passed.then(|| waiting.since.after(self.election_micros / 2))
    }

    /// When this leader must act at the latest.
    pub(super) fn leader_deadline(&self, leader: &Leader) -> BootMicros {
        let majority_lost_at = leader.majority_heard_at().after(self.election_micros);
        let mut deadline = leader.heartbeat_at.min(majority_lost_at);
        if let Some(transfer) = &leader.transfer {
            deadline = deadline.min(transfer.deadline);
        }
        let is_held = self.durability.owes_entries_alone(self.hard_state);
        let held_until = leader.batch.and_then(|batch| batch.awaited_until).filter(|_| is_held);
        for until in [leader.gathers_until, held_until, leader.lease.defers_until()].into_iter().flatten() {
            deadline = deadline.min(until);
        }
        self.outrun_at(leader).map_or(deadline, |at| deadline.min(at))
    }

    fn header(&self) -> Header {
        let round = match &self.role {
            Role::Leader(leader) => leader.reads.newest_round(),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => 0,
        };
        Header { term: self.hard_state.term, commit: self.hard_state.commit, round }
    }

    /// Until when this leader gathers for its peers: while its own disk writes, and not for long; then while it holds
    /// its next batch back. A peer's disk is at the same batch meanwhile, so what it got earlier would only wait there, in
    /// many small messages.
    fn gathers_until(&self, now: BootMicros) -> Option<BootMicros> {
        if !self.durability.is_writing() {
            return self.holds_until(now);
        }
        let batch = match &self.role {
            Role::Leader(leader) => leader.batch.filter(|batch| batch.awaited_until.is_none()),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
        };
        let owed_since = self.durability.waiting_since()?.since;
        let until = batch.map_or(owed_since, |batch| batch.handed_at).after(self.gather_micros_max());
        (now < until).then_some(until)
    }

    /// Sends every follower what it lacks; one that lacks nothing hears of a new read round or commit index. While
    /// this leader gathers, only what goes with the write in flight and what readers wait for is sent.
    pub(super) fn flush_leader(&mut self, now: BootMicros, out: &mut Vec<Output>) {
        let commit = self.hard_state.commit;
        let gathers_until = self.gathers_until(now);
        let is_leased = self.answer_reads_alone(now, out);
        let gathered_from = self.durability.next_run().map_or(self.log.last().index.next(), |run| run.first);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let is_round_new = !is_leased && leader.reads.start_round(commit, leader.noop);
        let header = self.header();
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let gathers_until = gathers_until.filter(|_| !is_round_new);
        let (base, newest) = (self.log.base().index, self.snapshots.newest());
        leader.gathers_until = None;
        if gathers_until.is_none() {
            // What is sent now is written now, too.
            leader.batch = leader.batch.filter(|batch| batch.awaited_until.is_none());
        }
        for follower in &mut leader.followers {
            let to = follower.peer;
            if gathers_until.is_some() && follower.has_all_before(gathered_from) {
                let is_held = follower.next() <= self.log.last().index || follower.is_behind_commit(commit);
                leader.gathers_until = leader.gathers_until.or(gathers_until.filter(|_| is_held));
                continue;
            }
            if let Some((snapshot, offset)) = follower.chunk_due(base, newest) {
                out.push(Output::ReadChunk { to, session: follower.session(), snapshot, offset });
            }
            let mut is_told = false;
            while let Some(request) = follower.next_append(&self.log, header) {
                out.push(Output::Send { to, message: Message::AppendRequest(request) });
                is_told = true;
            }
            if !is_told && (is_round_new || follower.is_behind_commit(commit)) {
                let message = Message::AppendRequest(follower.empty_append(&self.log, header));
                out.push(Output::Send { to, message });
            }
        }
        if is_round_new {
            self.confirm_reads(out);
        }
    }

    /// Sends a follower with a hole what this leader's log holds above `previous`, whatever was acknowledged; or a
    /// snapshot, if it holds that no more.
    pub(super) fn repair_follower(&mut self, to: MemberId, previous: Position, out: &mut Vec<Output>) {
        let header = self.header();
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(follower) = leader.follower(to) else {
            return;
        };
        if previous.index < self.log.base().index {
            follower.offer(self.snapshots.newest());
        } else {
            let message = Message::AppendRequest(follower.repair_append(&self.log, header, previous));
            out.push(Output::Send { to, message });
        }
    }

    /// A follower's answer. One of an older term, of another session, or of something never sent, counts for
    /// nothing.
    pub(super) fn receive_append_reply(
        &mut self,
        now: BootMicros,
        from: MemberId,
        reply: AppendReply,
        out: &mut Vec<Output>,
    ) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let newest_round = leader.reads.newest_round();
        let Some(follower) = leader.follower(from) else {
            return;
        };
        if reply.term != self.hard_state.term
            || reply.session != follower.session()
            || reply.round > newest_round
        {
            if reply.session != follower.session() {
                sometimes!(AckOfAnotherSession);
            }
            return;
        }
        follower.heard(now, reply.round);
        match reply.result {
            AppendResult::Matched { upto } => {
                if follower.acknowledged(upto, self.log.base().index) {
                    self.advance_commit(now, out);
                }
            }
            AppendResult::Conflict { rejected, hint } => {
                follower.rejected(rejected, hint, &self.log, self.snapshots.newest());
            }
        }
        self.confirm_reads(out);
    }

    /// The commit rule (Raft §5.4.2): an entry is committed when a majority holds it durably *and* it is of the
    /// leader's own term; everything before it is committed with it. An entry of an earlier term is never
    /// committed by counting copies, because a later leader could still replace it (figure 8). And nothing is while a
    /// leader of an earlier term may answer reads alone (`leader_lease`).
    pub(super) fn advance_commit(&mut self, now: BootMicros, out: &mut Vec<Output>) {
        if self.is_deferring(now) {
            return;
        }
        let durable = self.durable();
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let mut own = if planted!(19) { self.log.last().index } else { durable };
        if planted!(20) && leader.followers.is_empty() {
            own = self.log.last().index;
        }
        let matched = leader.followers.iter().map(|follower| follower.matched().0);
        let all = matched.chain([own.0]);
        let upto = if planted!(46) { all.min().unwrap_or(0) } else { quorum::reached_by_majority(all) };
        let upto = LogIndex(upto);
        if self.log.term_at(upto) == Some(self.hard_state.term) || planted!(1) {
            let first = self.hard_state.commit.next();
            if first <= upto && self.log.term_at(first) != Some(self.hard_state.term) {
                sometimes!(PriorTermEntriesCommitted);
            }
            self.commit_upto(upto, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{elect, entries, member, position, receive, recovered, reply, sent, sync};
    use super::super::{HardState, RecoveredLog, RoleName};
    use super::*;

    /// Member 1 leading term 3 over a log whose last entry is of term 2; what it sends is in `out`.
    fn leader(out: &mut Vec<Output>) -> (Node, BootMicros) {
        let mut node = member(recovered(&[1, 2]));
        let now = elect(&mut node);
        node.tick(now.after(100), out);
        (node, now.after(100))
    }

    fn matched(upto: u64) -> AppendResult {
        AppendResult::Matched { upto: LogIndex(upto) }
    }

    #[test]
    fn an_entry_of_an_earlier_term_is_not_committed_by_counting() {
        let mut out = Vec::new();
        let (mut node, now) = leader(&mut out);
        receive(&mut node, now.0, 2, reply(&out, 2, matched(2)).unwrap());
        assert_eq!(node.commit(), LogIndex(0));
        let news = receive(&mut node, now.0, 2, reply(&out, 2, matched(3)).unwrap());
        assert_eq!(news, [Output::Committed { upto: LogIndex(3) }]);
    }

    #[test]
    fn the_own_copy_counts_only_when_durable() {
        let mut out = Vec::new();
        let (mut node, now) = leader(&mut out);
        assert_eq!(node.propose(now, &[10]), Ok(position(4, 3)));
        receive(&mut node, now.0, 2, reply(&out, 2, matched(3)).unwrap());
        node.flush(now, &mut out);
        receive(&mut node, now.0, 2, reply(&out, 2, matched(4)).unwrap());
        assert_eq!(node.commit(), LogIndex(3));
        assert!(sync(&mut node, now).contains(&Output::Committed { upto: LogIndex(4) }));
    }

    #[test]
    fn answers_of_another_session_or_round_count_for_nothing() {
        let mut out = Vec::new();
        let (mut node, now) = leader(&mut out);
        let Some(Message::AppendReply(answer)) = reply(&out, 2, matched(3)) else {
            panic!("the leader sent an append");
        };
        let other_session = AppendReply { session: answer.session ^ 1, ..answer };
        receive(&mut node, now.0, 2, Message::AppendReply(other_session));
        let future_round = AppendReply { round: 9, ..answer };
        receive(&mut node, now.0, 2, Message::AppendReply(future_round));
        let beyond = AppendReply { result: matched(4), ..answer };
        receive(&mut node, now.0, 2, Message::AppendReply(beyond));
        assert_eq!(node.commit(), LogIndex(0));
    }

    #[test]
    fn a_leader_that_hears_no_majority_steps_down_after_an_election_timeout() {
        let mut out = Vec::new();
        let mut node = member(recovered(&[1]));
        let now = elect(&mut node);
        node.tick(now.after(999), &mut out);
        assert_eq!(node.role(), RoleName::Leader);
        out.clear();
        assert_eq!(node.next_deadline(), now.after(1_000));
        node.tick(now.after(1_000), &mut out);
        assert_eq!((node.role(), node.leader()), (RoleName::Follower, None));
        let term = node.hard_state().term;
        assert_eq!(out, [Output::Deposed { term }, Output::LeaderChanged { term, leader: None }]);
    }

    #[test]
    fn a_leader_whose_disk_is_outrun_steps_down_and_one_that_is_merely_slow_does_not() {
        for is_outrun in [false, true] {
            let mut out = Vec::new();
            let (mut node, now) = leader(&mut out);
            receive(&mut node, now.0, 2, reply(&out, 2, matched(3)).unwrap());
            node.propose(now, &[10]).unwrap();
            node.persist(now).unwrap();
            node.flush(now, &mut out);
            if is_outrun {
                node.propose(now, &[10]).unwrap();
                node.flush(now, &mut out);
                assert_eq!(node.next_deadline(), now.after(25), "nothing is gathered for longer than this");
                node.flush(now.after(25), &mut out);
            }
            let upto = node.last().index.0;
            receive(&mut node, now.0, 2, reply(&out, 2, matched(upto)).unwrap());
            node.tick(now.after(499), &mut out);
            assert_eq!(node.role(), RoleName::Leader);
            node.tick(now.after(500), &mut out);
            assert_eq!(node.role() == RoleName::Follower, is_outrun);
        }
    }

    #[test]
    fn heartbeats_are_empty_appends_at_the_heartbeat_interval() {
        let mut out = Vec::new();
        let (mut node, now) = leader(&mut out);
        assert_eq!(sent(&out).len(), 2);
        out.clear();
        node.tick(now.after(99), &mut out);
        assert_eq!(out, []);
        assert_eq!(node.next_deadline(), now.after(100));
    }

    #[test]
    fn a_member_with_a_hole_votes_as_if_it_had_none_and_never_leads() {
        let island = super::super::Island { predecessor: position(3, 2), entries: entries(4, &[2]) };
        let hard_state = HardState { term: crate::ids::Term(2), vote: None, commit: LogIndex(4) };
        let recovered = RecoveredLog {
            hard_state,
            entries: entries(1, &[1]),
            islands: vec![island],
            ..RecoveredLog::default()
        };
        let mut node = member(recovered);
        assert_eq!(node.commit(), LogIndex(0), "what is below a hole may have been replaced");
        for _ in 0..100 {
            let now = node.next_deadline();
            node.tick(now, &mut Vec::new());
            assert!(node.next_deadline() > now);
            assert_eq!(node.role(), RoleName::Follower);
        }
    }
}
