//! Handing leadership over (thesis 3.10): stop proposals, bring the target up to date, tell it to campaign at once.
//!
//! Always holds: a transfer ends with the leader's term or after E, whichever is first (catalogue 12); an order to
//! campaign counts only in the term and from the leader that gave it.

use super::interface::{NotLeader, Output, TransferRefused};
use super::message::{Message, TimeoutNow};
use super::node::{Node, Role};
use crate::ids::{BootMicros, MemberId};
use crate::{planted, sometimes};

/// A transfer under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Transfer {
    pub(super) to: MemberId,
    /// When it is given up.
    pub(super) deadline: BootMicros,
    /// Whether the order went out since the last heartbeat.
    pub(super) is_sent: bool,
}

impl Node {
    /// The follower that is furthest along: whom to hand over to when nobody is named. None unless this member leads.
    pub fn transfer_candidate(&self) -> Option<MemberId> {
        let Role::Leader(leader) = &self.role else { return None };
        leader.followers.iter().max_by_key(|follower| follower.matched()).map(|follower| follower.peer)
    }

    /// Notes the transfer; a new one takes the place of an old one.
    pub(super) fn start_transfer(&mut self, now: BootMicros, to: MemberId) -> Result<(), TransferRefused> {
        let known = self.leader();
        let deadline = if planted!(12) { BootMicros(u64::MAX) } else { now.after(self.election_micros) };
        let Role::Leader(leader) = &mut self.role else {
            return Err(TransferRefused::NotLeader(NotLeader { leader: known }));
        };
        if !self.peers.contains(&to) {
            return Err(TransferRefused::NoSuchVoter);
        }
        leader.transfer = Some(Transfer { to, deadline, is_sent: false });
        Ok(())
    }

    /// Sends the order once the target holds the whole log. With it goes the lease, so the leases of earlier leaders must
    /// have ended: something of the own term is committed.
    pub(super) fn drive_transfer(&mut self, out: &mut Vec<Output>) {
        let last = self.log.last().index;
        let (term, commit) = (self.hard_state.term, self.hard_state.commit);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if commit < leader.noop {
            return;
        }
        let Some(transfer) = &mut leader.transfer else {
            return;
        };
        let to = transfer.to;
        let is_caught_up =
            leader.followers.iter().any(|follower| follower.peer == to && follower.matched() == last);
        if is_caught_up && !transfer.is_sent {
            sometimes!(TransferOrdered);
            transfer.is_sent = true;
            leader.lease.release(last);
            out.push(Output::Send { to, message: Message::TimeoutNow(TimeoutNow { term, last }) });
        }
    }

    /// Campaigns at once, without asking first, if the order is the current leader's and nothing is missing here.
    pub(super) fn receive_timeout_now(
        &mut self,
        now: BootMicros,
        from: MemberId,
        order: TimeoutNow,
        out: &mut Vec<Output>,
    ) {
        let is_current = order.term == self.hard_state.term && self.leader() == Some(from);
        let Role::Follower(follower) = &self.role else {
            return;
        };
        if is_current && follower.matched >= order.last && self.may_campaign(now) {
            sometimes!(TransferObeyed);
            self.note_release(order);
            self.become_candidate(now, true, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::RoleName;
    use super::super::message::AppendResult;
    use super::super::testing::{append, elect, member, position, receive, recovered, reply, sent, sync};
    use super::*;
    use crate::ids::{LogIndex, Term};

    fn order(term: u64, last: u64) -> Message {
        Message::TimeoutNow(TimeoutNow { term: Term(term), last: LogIndex(last) })
    }

    #[test]
    fn the_order_waits_until_the_target_holds_the_log_and_proposals_wait_for_the_order() {
        let (mut node, mut out) = (member(recovered(&[1])), Vec::new());
        let now = elect(&mut node).after(100);
        node.tick(now, &mut out);
        node.transfer(now, MemberId(3), &mut out).unwrap();
        assert_eq!(node.propose(now, &[1]), Err(NotLeader { leader: Some(MemberId(3)) }));
        assert!(!sent(&out).contains(&&order(2, 2)));
        let answer = reply(&out, 3, AppendResult::Matched { upto: LogIndex(2) }).unwrap();
        receive(&mut node, now.0, 3, answer);
        out.clear();
        node.flush(now, &mut out);
        assert!(sent(&out).contains(&&order(2, 2)));
    }

    #[test]
    fn a_transfer_is_given_up_after_an_election_timeout() {
        let (mut node, mut out) = (member(recovered(&[1])), Vec::new());
        let mut now = elect(&mut node);
        node.transfer(now, MemberId(3), &mut out).unwrap();
        for _ in 0..10 {
            now = now.after(100);
            out.clear();
            node.tick(now, &mut out);
            let answer = reply(&out, 2, AppendResult::Matched { upto: LogIndex(2) }).unwrap();
            receive(&mut node, now.0, 2, answer);
        }
        assert!(node.propose(now, &[1]).is_ok());
    }

    #[test]
    fn only_another_voter_can_be_the_target_and_only_a_leader_can_transfer() {
        let (mut node, mut out) = (member(recovered(&[1])), Vec::new());
        let refused = TransferRefused::NotLeader(NotLeader { leader: None });
        assert_eq!(node.transfer(BootMicros(0), MemberId(2), &mut out), Err(refused));
        let now = elect(&mut node);
        for target in [1, 4] {
            let answer = node.transfer(now, MemberId(target), &mut out);
            assert_eq!(answer, Err(TransferRefused::NoSuchVoter));
        }
    }

    #[test]
    fn an_order_counts_only_from_the_leader_of_the_term_and_with_nothing_missing() {
        let mut node = member(recovered(&[1, 1]));
        receive(&mut node, 0, 2, order(1, 1));
        receive(&mut node, 0, 2, append(1, position(2, 1), Vec::new(), 0));
        receive(&mut node, 0, 3, order(1, 1));
        receive(&mut node, 0, 2, order(1, 3));
        assert_eq!(node.role(), RoleName::Follower);
        receive(&mut node, 0, 2, order(1, 2));
        assert_eq!(node.role(), RoleName::Candidate);
        let out = sync(&mut node, BootMicros(0));
        let is_transfer =
            |message: &&Message| matches!(message, Message::VoteRequest(request) if request.is_transfer);
        assert_eq!(sent(&out).into_iter().filter(is_transfer).count(), 2);
    }
}
