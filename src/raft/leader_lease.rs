//! The leader's right to answer reads alone, after `LeaseGuard` (Davis, Demirbas et al., SIGMOD '26): the log is the lease.
//!
//! ```text
//!   old leader   append e (a) ──send──> … e committed … answers alone until a + Δ, by its own clock
//!   new leader            receives e (r) … elected: appends, replicates, and commits nothing until r + wait, by its own
//! ```
//!
//! Always holds: only a committed entry of the own term gives a lease, counted from its own append in this boot, which is
//! before anybody else can have received it; a leader of a later term holds that entry (Raft §5.4) and commits nothing
//! until Δ(1+ρ)/(1−ρ) has passed on its own clock since it received the last entry of an earlier term (the start, for
//! recovered ones; the installation, for those in a snapshot). So while anybody answers alone, nothing newer is committed.
//! No instant leaves the member that read it. How long others' leases are is the caller's to know: the log says it.
//!
//! **What would break it, and what prevents that:**
//!
//! | interleaving | prevented by |
//! |---|---|
//! | the leader checks its lease, is paused, another commits, and the answer goes to a read that came after that | the check is in `flush`, at an instant read after all reads of the turn had come (catalogue 32); what comes later waits for the next flush |
//! | entries are sent with an instant, and another clock is asked whether it has passed; or an instant of an earlier boot is | instants are never sent and never stored (catalogue 50) |
//! | time is counted in ticks, which stand still with the process | a lease is a matter of `now` alone |
//! | an entry of an earlier term gives a lease: its receivers count from an older receipt | only entries of the own term are noted |
//! | an entry that is not committed gives one: the next leader may lack it | `LeaderLease::committed` |
//! | a member leads twice and counts from an entry of its earlier term | what was noted is part of `Leader` |
//! | a new leader counts from the last message, or its election, or from the receipt of committed entries only | every entry that enters the log counts, whoever sends it |
//! | a filled hole or a snapshot brings entries later than the newest | the same |
//! | leadership is handed over, the target need not wait, and the old leader still answers alone | the order names term and index; of that term no entry up to there gives a lease again (catalogue 13) |
//! | the order arrives late, after the old leader has gone on and leases anew | then its newer entry is committed: the target holds it and waits, or lacks it and is not elected (catalogue 52) |
//! | the order comes before the old leader has itself waited for leases of earlier terms | it is given only after a commit of the own term |
//! | the target loses its election and wins a later one, and another has led and leased in between | the wait is skipped in the very next term only |
//! | the lease is longer than others believe (catalogue 47, 59) | it is as long as a no-op of the term says, and only that and what follows gives one; so it is in every later leader's log |
//! | a voter of a version that knows no leases leads next, and does not wait | whoever calls `lease_from` knows that every voter waits |
//!
//! Left out: reads at the old commit index while a new leader waits.

use super::interface::Output;
use super::leader::Leader;
use super::message::TimeoutNow;
use super::node::{Node, Role};
use crate::ids::{BootMicros, LogIndex, Term};
use crate::{planted, sometimes};
use std::collections::VecDeque;

/// What a leader notes for its lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct LeaderLease {
    /// How long it answers alone on an entry, in microseconds; 0 for never.
    micros: u64,
    /// Entries of the own term that are not committed, each the first that was appended at its instant.
    appended: VecDeque<(LogIndex, BootMicros)>,
    /// The newest committed one of those, and when it was appended.
    committed: Option<(LogIndex, BootMicros)>,
    /// When the newest entry was appended.
    newest_at: BootMicros,
    /// Entries up to here give no lease any more: somebody may lead without waiting for them.
    released: LogIndex,
    /// Until when nothing is committed, because others may answer alone.
    defers_until: Option<BootMicros>,
    /// What the last flush found, when it was, and time as ticks count it: for planted bugs.
    was_valid: bool,
    flushed_at: BootMicros,
    ticked: BootMicros,
}

impl LeaderLease {
    /// Entries from `index` on, which was just appended, give leases of this length; those before do not.
    fn begin(&mut self, now: BootMicros, index: LogIndex, micros: u64) {
        (self.micros, self.committed) = (micros, None);
        self.appended.clear();
        self.appended(now, index);
    }

    /// Whether entries that are appended now give a lease.
    pub(super) const fn has_begun(&self) -> bool {
        self.micros > 0
    }

    /// An entry was appended.
    pub(super) fn appended(&mut self, now: BootMicros, index: LogIndex) {
        let now = self.time(now);
        self.newest_at = now;
        if self.appended.back().is_none_or(|(_, at)| *at != now) {
            self.appended.push_back((index, now));
        }
    }

    /// What counts as the time: `now`, and no count of ticks, which stand still with the process.
    fn time(&self, now: BootMicros) -> BootMicros {
        if planted!(149) { self.ticked } else { now }
    }

    /// A heartbeat was due.
    pub(super) const fn ticked(&mut self, micros: u64) {
        self.ticked = self.ticked.after(micros);
    }

    /// Everything up to `commit` is committed.
    fn committed(&mut self, commit: LogIndex) {
        while let Some(entry) = self.appended.pop_front_if(|(index, _)| *index <= commit) {
            self.committed = Some(entry);
        }
    }

    /// When the lease ends; none without one.
    fn ends_at(&self) -> Option<BootMicros> {
        let (index, at) = self.committed?;
        let is_released = index <= self.released && !planted!(13);
        (self.has_begun() && !is_released).then(|| at.after(self.micros))
    }

    /// Until when nothing may be committed.
    pub(super) const fn defers_until(&self) -> Option<BootMicros> {
        self.defers_until
    }

    /// Entries up to `last` were released by an order to campaign.
    pub(super) fn release(&mut self, last: LogIndex) {
        self.released = self.released.max(last);
    }

    /// The transfer was given up.
    pub(super) fn transfer_given_up(&mut self) {
        // Catalogue 52: as if the order could not arrive any more.
        if planted!(52) {
            self.released = LogIndex(0);
        }
    }

    /// For exploration, in which there is neither time nor lease.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

impl Node {
    /// Others' leases, as the log tells of them: nothing is committed until `wait_micros` after the last entry of an earlier
    /// term came. Call it at once when `Output::Elected` says that this member leads.
    pub fn set_others_lease(&mut self, now: BootMicros, wait_micros: u64) {
        let (received_at, is_released) = (self.received_at, self.is_released_to_us());
        let has_others = !self.peers.is_empty();
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        assert!(self.hard_state.commit < leader.noop, "nothing of the term is committed when it begins");
        let until = if planted!(50) { BootMicros(wait_micros) } else { received_at.after(wait_micros) };
        if is_released {
            sometimes!(LeaseReleasedToUs);
        } else if has_others && now < until {
            sometimes!(CommitDeferredForLease);
            leader.lease.defers_until = Some(until);
        }
    }

    /// Whether the leader of the term before released all that this log holds of it, and ordered this member to lead.
    fn is_released_to_us(&self) -> bool {
        let (Role::Leader(leader), Some((term, last))) = (&self.role, self.released_to_us) else {
            return false;
        };
        let holds_no_more = leader.noop.previous() <= last || planted!(52);
        term.next() == self.hard_state.term && holds_no_more
    }

    /// The leader of `order.term` released its lease and ordered this member to campaign.
    pub(super) fn note_release(&mut self, order: TimeoutNow) {
        self.released_to_us = Some((order.term, order.last));
    }

    /// Entries entered the log: another may answer alone on them from now on.
    pub(super) fn received_entries(&mut self, now: BootMicros) {
        self.received_at = now;
    }

    /// Whether commits wait for others' leases, at `now`. The wait ends for good with it.
    pub(super) fn is_deferring(&mut self, now: BootMicros) -> bool {
        let Role::Leader(leader) = &mut self.role else {
            return false;
        };
        leader.lease.defers_until = leader.lease.defers_until.filter(|until| now < *until);
        leader.lease.defers_until.is_some()
    }

    /// Whether this leader may answer alone the reads that came before `now` was read.
    pub(super) fn holds_lease(&mut self, now: BootMicros) -> bool {
        let commit = self.hard_state.commit;
        let Role::Leader(leader) = &mut self.role else {
            return false;
        };
        leader.lease.committed(commit);
        let flushed_at = core::mem::replace(&mut leader.lease.flushed_at, now);
        let now = leader.lease.time(if planted!(150) { flushed_at } else { now });
        let is_valid = leader.lease.ends_at().is_some_and(|ends| now < ends);
        let found = core::mem::replace(&mut leader.lease.was_valid, is_valid);
        if planted!(32) { found } else { is_valid }
    }

    /// Reads came: says so if there is no lease, or the newest entry is so old that it will soon end.
    pub(super) fn refresh_lease(&self, leader: &Leader, now: BootMicros, out: &mut Vec<Output>) {
        let age_micros = leader.lease.time(now).since(leader.lease.newest_at);
        let is_due = !leader.lease.has_begun() || age_micros >= self.lease_micros / 2;
        let is_able = leader.transfer.is_none() && self.hard_state.commit >= leader.noop;
        if self.lease_micros > 0 && is_due && is_able {
            out.push(Output::LeaseAges);
        }
    }

    /// The entry of the own term at `index`, appended just now, says in the log how long this leader answers alone: from it on,
    /// committed entries give a lease. Every later leader holds it, and waits, if it knows how to: that is the caller's to
    /// be sure of.
    pub fn lease_from(&mut self, now: BootMicros, index: LogIndex) {
        let micros = self.lease_micros;
        assert!(index == self.log.last().index, "a lease begins with the newest entry");
        if let Role::Leader(leader) = &mut self.role {
            leader.lease.begin(now, index, micros);
        }
    }

    /// No entry gives a lease any more, until one begins anew.
    pub fn lease_no_more(&mut self) {
        if let Role::Leader(leader) = &mut self.role {
            leader.lease.micros = 0;
        }
    }

    /// How long this leader answers alone on one entry, in microseconds; 0 if it does not, or does not lead.
    pub fn leases_micros(&self) -> u64 {
        match &self.role {
            Role::Leader(leader) => leader.lease.micros,
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => 0,
        }
    }

    /// Until when this leader commits nothing, because others may answer reads alone.
    pub fn defers_until(&self) -> Option<BootMicros> {
        match &self.role {
            Role::Leader(leader) => leader.lease.defers_until,
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }
}

/// The term and last index that a leader released.
pub(super) type Released = Option<(Term, LogIndex)>;

#[cfg(test)]
mod tests {
    use super::super::message::{AppendResult, Message};
    use super::super::testing::{append, config, elect, entries, position, receive, recovered, reply, sync};
    use super::super::{Position, RoleName};
    use super::*;
    use crate::ids::MemberId;

    /// Δ, in microseconds; the election timeout is 1,000.
    const LEASE: u64 = 600;

    fn member() -> Node {
        let config = super::super::Config { lease_micros: LEASE, ..config(1, 3, 1) };
        Node::new(config, recovered(&[1]), BootMicros(0))
    }

    fn matched(upto: u64) -> AppendResult {
        AppendResult::Matched { upto: LogIndex(upto) }
    }

    /// A leader whose no-op, at index 2, was appended at the returned instant and is committed.
    fn leader() -> (Node, BootMicros) {
        let mut node = member();
        let (now, mut out) = (elect(&mut node), Vec::new());
        node.lease_from(now, LogIndex(2));
        node.tick(now.after(100), &mut out);
        receive(&mut node, now.0 + 100, 2, reply(&out, 2, matched(2)).unwrap());
        assert_eq!(node.commit(), LogIndex(2));
        (node, now)
    }

    /// What a read that comes at `now` is answered with at once, and whether the lease wants to be renewed.
    fn read(node: &mut Node, now: BootMicros) -> (bool, bool) {
        let (request, mut out) = (node.read(now).unwrap(), Vec::new());
        node.flush(now, &mut out);
        let index = node.commit();
        (out.contains(&Output::ReadReady { request, index }), out.contains(&Output::LeaseAges))
    }

    #[test]
    fn a_read_is_answered_alone_until_the_lease_ends_counted_from_the_append() {
        let (mut node, appended) = leader();
        assert_eq!(read(&mut node, appended.after(LEASE / 2 - 1)), (true, false));
        assert_eq!(read(&mut node, appended.after(LEASE - 1)), (true, true));
        assert_eq!(read(&mut node, appended.after(LEASE)), (false, true));
    }

    #[test]
    fn only_what_is_appended_from_the_entry_on_that_says_so_gives_a_lease() {
        let mut node = member();
        let (now, mut out) = (elect(&mut node), Vec::new());
        node.tick(now.after(100), &mut out);
        receive(&mut node, now.0 + 100, 2, reply(&out, 2, matched(2)).unwrap());
        assert_eq!(read(&mut node, now.after(101)), (false, true), "nothing in the log tells of a lease");
        node.propose(now.after(101), &[10]).unwrap();
        node.lease_from(now.after(101), LogIndex(3));
        assert_eq!(node.leases_micros(), LEASE);
        out.clear();
        node.flush(now.after(102), &mut out);
        assert!(!read(&mut node, now.after(103)).0, "that entry is not committed");
        sync(&mut node, now.after(103));
        receive(&mut node, now.0 + 103, 2, reply(&out, 2, matched(3)).unwrap());
        assert_eq!(read(&mut node, now.after(100 + LEASE)), (true, true), "counted from the second entry");
        node.lease_no_more();
        assert_eq!((read(&mut node, now.after(101 + LEASE)).0, node.leases_micros()), (false, 0));
    }

    #[test]
    fn an_entry_that_is_not_committed_gives_no_lease() {
        let (mut node, appended) = leader();
        node.propose(appended.after(LEASE - 1), &[10]).unwrap();
        assert_eq!(read(&mut node, appended.after(LEASE)), (false, false));
    }

    #[test]
    fn a_new_leader_replicates_and_commits_nothing_until_others_leases_have_ended() {
        let mut node = member();
        receive(&mut node, 400, 2, append(1, position(1, 1), entries(2, &[1]), 0));
        sync(&mut node, BootMicros(400));
        let (now, mut out) = (elect(&mut node), Vec::new());
        node.set_others_lease(now, 5_000);
        node.tick(now.after(100), &mut out);
        let (now, answer) = (now.after(100), reply(&out, 2, matched(3)).unwrap());
        receive(&mut node, now.0, 2, answer.clone());
        assert_eq!((node.commit(), node.defers_until()), (LogIndex(0), Some(BootMicros(5_400))));
        let mut at = now;
        while at.after(100).0 < 5_400 {
            at = at.after(100);
            out.clear();
            node.tick(at, &mut out);
            receive(&mut node, at.0, 2, reply(&out, 2, matched(3)).unwrap_or(answer.clone()));
            assert_eq!((node.role(), node.commit()), (RoleName::Leader, LogIndex(0)));
        }
        assert!(node.next_deadline() <= BootMicros(5_400));
        node.tick(BootMicros(5_400), &mut out);
        assert_eq!(node.commit(), LogIndex(3), "and then all of it");
    }

    /// A leader of term 2 elected because the leader of term 1 said so when its log ended with `last`.
    fn ordered(last: Position) -> Node {
        let mut node = member();
        receive(&mut node, 0, 2, append(1, position(1, 1), entries(2, &[1]), 0));
        sync(&mut node, BootMicros(0));
        let order = TimeoutNow { term: Term(1), last: last.index };
        receive(&mut node, 0, 2, Message::TimeoutNow(order));
        sync(&mut node, BootMicros(0));
        let vote = super::super::message::VoteReply { term: Term(2), is_granted: true };
        receive(&mut node, 0, 3, Message::VoteReply(vote));
        assert_eq!(node.role(), RoleName::Leader);
        node.set_others_lease(BootMicros(0), 5_000);
        node
    }

    #[test]
    fn only_what_was_released_need_not_be_waited_for() {
        assert_eq!(ordered(position(2, 1)).defers_until(), None);
        let until = Some(BootMicros(5_000));
        assert_eq!(ordered(position(1, 1)).defers_until(), until, "the log holds more than was released");
    }

    #[test]
    fn who_ordered_another_to_lead_answers_alone_only_on_a_later_entry() {
        let (mut node, appended) = leader();
        let mut out = Vec::new();
        node.transfer(appended.after(100), MemberId(2), &mut out).unwrap();
        assert!(out.iter().any(|it| matches!(it, Output::Send { message: Message::TimeoutNow(_), .. })));
        assert!(!read(&mut node, appended.after(101)).0);
        for at in (200..=1_200).step_by(100).map(|micros| appended.after(micros)) {
            out.clear();
            node.tick(at, &mut out);
            receive(&mut node, at.0, 2, reply(&out, 2, matched(2)).unwrap());
        }
        let now = appended.after(1_200);
        assert_eq!(read(&mut node, now), (false, true), "also when the transfer was given up");
        node.propose(now, &[10]).unwrap();
        out.clear();
        node.flush(now, &mut out);
        sync(&mut node, now);
        receive(&mut node, now.0, 2, reply(&out, 2, matched(3)).unwrap());
        assert!(read(&mut node, now.after(1)).0);
    }
}
