//! The batch that a leader gave its disk last, and for how long the next one waits for it.
//!
//! A peer that is at a batch still would only queue what comes, and what was gathered meanwhile costs one write, one frame and one
//! acknowledgement at each member, however much it is. So a leader keeps step with its peers: it writes and sends the next
//! batch when they have the last. Always: it waits for no longer than `LEADER_WAIT_FACTOR` times what its own disk took,
//! and never for longer than it gathers; what promises something (term, vote, a log that starts anew) waits for nothing.

use super::node::{Node, Role};
use super::progress::Progress;
use crate::ids::{BootMicros, LogIndex};
use crate::limits::{GATHER_MICROS_MAX, LEADER_WAIT_ENTRIES_MIN, LEADER_WAIT_FACTOR};
use crate::sometimes;

/// A batch of a leader's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Batch {
    first: LogIndex,
    last: LogIndex,
    pub(super) handed_at: BootMicros,
    /// Until when the next one waits; known once this one is durable here.
    pub(super) awaited_until: Option<BootMicros>,
}

impl Batch {
    /// A batch that is given to the disk now.
    pub(super) const fn handed(first: LogIndex, last: LogIndex, now: BootMicros) -> Self {
        Self { first, last, handed_at: now, awaited_until: None }
    }

    /// It is durable here.
    fn is_durable(&mut self, now: BootMicros, micros_max: u64) {
        let micros = now.since(self.handed_at).saturating_mul(LEADER_WAIT_FACTOR).min(micros_max);
        self.awaited_until = Some(self.handed_at.after(micros));
    }

    /// Whether a majority still lacks it, which is durable here; or, if it is not a small one, any peer that is in step: one that
    /// has all before it, and was sent it in a pipeline that flows.
    fn is_awaited(&self, followers: &[Progress]) -> bool {
        let have_count = 1 + followers.iter().filter(|follower| follower.matched() >= self.last).count();
        let is_in_step = |follower: &Progress| {
            follower.matched() >= self.first.previous() && follower.has_in_flight(self.last)
        };
        let is_small = self.last.0 - self.first.previous().0 < LEADER_WAIT_ENTRIES_MIN;
        2 * have_count <= followers.len() + 1 || (!is_small && followers.iter().any(is_in_step))
    }
}

impl Node {
    /// For how long, in microseconds, a leader holds something back at the most.
    pub(super) fn gather_micros_max(&self) -> u64 {
        GATHER_MICROS_MAX.min(self.heartbeat_micros / 4)
    }

    /// What a leader's disk was given last is durable.
    pub(super) fn note_durable_batch(&mut self, now: BootMicros) {
        let micros_max = self.gather_micros_max();
        if let Role::Leader(leader) = &mut self.role
            && let Some(batch) = &mut leader.batch
            && batch.awaited_until.is_none()
        {
            batch.is_durable(now, micros_max);
        }
    }

    /// Until when this leader holds its next batch back from its disk and its peers, if it does now.
    pub(super) fn holds_until(&self, now: BootMicros) -> Option<BootMicros> {
        let Role::Leader(leader) = &self.role else {
            return None;
        };
        let (batch, until) = leader.batch.and_then(|batch| Some((batch, batch.awaited_until?)))?;
        let is_held = now < until
            && self.durability.owes_entries_alone(self.hard_state)
            && batch.is_awaited(&leader.followers);
        if is_held {
            sometimes!(BatchHeldForPeers);
        }
        is_held.then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{elect, member, receive, recovered, reply, sent};
    use super::super::{AppendResult, Output};
    use super::*;

    /// Member 1 leads, all that was before is committed, and a batch of `count` entries that was given to its disk and sent
    /// at the returned instant was durable there three microseconds later.
    fn after_a_batch(count: usize, out: &mut Vec<Output>) -> (Node, BootMicros, LogIndex) {
        let mut node = member(recovered(&[1, 2]));
        let mut now = elect(&mut node);
        node.tick(now.after(100), out);
        now = now.after(100);
        for peer in [2, 3] {
            let matched = AppendResult::Matched { upto: node.last().index };
            receive(&mut node, now.0, peer, reply(out, peer, matched).unwrap());
        }
        now = now.after(40);
        node.propose(now, &vec![10; count]).unwrap();
        node.flush(now, out);
        let mark = node.persist(now).unwrap().mark;
        node.persisted(now.after(3), mark, &mut Vec::new());
        let last = node.last().index;
        assert!(node.commit() < last);
        (node, now, last)
    }

    fn acknowledge(node: &mut Node, now: BootMicros, from: u64, upto: LogIndex, out: &[Output]) {
        receive(node, now.0, from, reply(out, from, AppendResult::Matched { upto }).unwrap());
    }

    /// What a flush sends at `now`, and whether something is given to the disk.
    fn goes_on(node: &mut Node, now: BootMicros) -> (usize, bool) {
        let mut out = Vec::new();
        node.tick(now, &mut out);
        node.flush(now, &mut out);
        (sent(&out).len(), node.persist(now).is_some())
    }

    #[test]
    fn the_next_batch_waits_until_a_majority_has_the_last() {
        let mut out = Vec::new();
        let (mut node, now, last) = after_a_batch(1, &mut out);
        node.propose(now.after(4), &[10]).unwrap();
        assert_eq!(goes_on(&mut node, now.after(5)), (0, false));
        acknowledge(&mut node, now.after(6), 2, last, &out);
        assert_eq!(goes_on(&mut node, now.after(6)), (2, true));
    }

    #[test]
    fn behind_a_batch_that_is_not_small_it_waits_for_all_whom_it_was_sent_to() {
        let mut out = Vec::new();
        let count = usize::try_from(LEADER_WAIT_ENTRIES_MIN).unwrap();
        let (mut node, now, last) = after_a_batch(count, &mut out);
        node.propose(now.after(4), &[10]).unwrap();
        acknowledge(&mut node, now.after(6), 2, last, &out);
        assert_eq!(node.commit(), last);
        assert_eq!(goes_on(&mut node, now.after(6)), (0, false));
        acknowledge(&mut node, now.after(7), 3, last, &out);
        assert_eq!(goes_on(&mut node, now.after(7)), (2, true));
    }

    #[test]
    fn a_peer_that_is_not_in_step_is_not_waited_for() {
        let mut out = Vec::new();
        let count = usize::try_from(LEADER_WAIT_ENTRIES_MIN).unwrap();
        let (mut node, now, last) = after_a_batch(count, &mut out);
        node.propose(now.after(4), &vec![10; count]).unwrap();
        acknowledge(&mut node, now.after(6), 2, last, &out);
        // Member 3 lacks that batch still when it is sent the next, and when the next is durable with the others.
        let now = now.after(30);
        node.tick(now, &mut out);
        node.flush(now, &mut out);
        let mark = node.persist(now).unwrap().mark;
        node.persisted(now.after(3), mark, &mut Vec::new());
        let upto = node.last().index;
        acknowledge(&mut node, now.after(4), 2, upto, &out);
        node.propose(now.after(5), &[10]).unwrap();
        assert_eq!(goes_on(&mut node, now.after(5)), (2, true));
    }

    #[test]
    fn what_a_read_round_takes_along_is_given_to_the_own_disk_as_well() {
        let mut out = Vec::new();
        let (mut node, now, _) = after_a_batch(1, &mut out);
        node.propose(now.after(4), &[10]).unwrap();
        assert_eq!(goes_on(&mut node, now.after(5)), (0, false));
        node.read(now.after(6)).unwrap();
        assert_eq!(goes_on(&mut node, now.after(6)), (2, true));
    }

    #[test]
    fn it_waits_for_some_times_what_the_own_disk_took_and_no_longer() {
        let mut out = Vec::new();
        let (mut node, now, _) = after_a_batch(1, &mut out);
        node.propose(now.after(4), &[10]).unwrap();
        let until = now.after(3 * LEADER_WAIT_FACTOR);
        assert_eq!(goes_on(&mut node, now.after(5)), (0, false));
        assert_eq!(node.next_deadline(), until, "it wakes for that");
        assert_eq!(goes_on(&mut node, until), (2, true));
        assert!(node.next_deadline() > until, "and not twice");
    }

    #[test]
    fn a_member_that_leads_no_more_holds_nothing_back() {
        let mut out = Vec::new();
        let (mut node, now, _) = after_a_batch(1, &mut out);
        node.propose(now.after(4), &[10]).unwrap();
        assert_eq!(goes_on(&mut node, now.after(5)), (0, false));
        node.tick(now.after(2_000), &mut out);
        assert_eq!(node.role(), super::super::RoleName::Follower);
        assert!(node.persist(now.after(2_000)).is_some());
    }
}
