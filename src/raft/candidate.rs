//! Asking for leadership: first whether an election could be won (thesis 9.6), then for votes (Raft §5.2).
//!
//! Always holds: a candidate's requests leave only when its own term and vote are durable, its own vote counts only
//! then, and no other vote counts before it. A member with a hole, or whose disk owes an answer, does not campaign.
//! What voters answer is in `voter`.

use super::message::{Message, PreVoteReply, PreVoteRequest, VoteReply, VoteRequest};
use super::node::{Node, Role};
use super::{interface::Output, quorum};
use crate::ids::{BootMicros, MemberId};
use crate::limits::RAFT_NUMBER_MAX;
use crate::{planted, sometimes};

/// Who said yes so far.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Poll {
    granted: Vec<MemberId>,
}

impl Poll {
    const fn new() -> Self {
        Self { granted: Vec::new() }
    }

    /// Counts a yes, once for each voter.
    fn grant(&mut self, voter: MemberId) {
        if !self.granted.contains(&voter) {
            self.granted.push(voter);
        }
    }

    fn holds(&self, voter: MemberId) -> bool {
        self.granted.contains(&voter)
    }

    fn is_won(&self, voters_count: usize) -> bool {
        self.granted.len() >= quorum::majority(voters_count)
    }
}

impl Node {
    /// The election timeout passed: asks for pre-votes, or waits once more if this member should not lead.
    pub(super) fn campaign(&mut self, now: BootMicros, out: &mut Vec<Output>) {
        let is_able = self.may_campaign(now);
        let is_waiting_for_disk = matches!(self.role, Role::Candidate(_)) && self.is_disk_stalled(now);
        self.draw_election_timeout(now);
        if is_waiting_for_disk {
            sometimes!(CampaignDeferredForDisk);
            return;
        }
        if matches!(self.role, Role::Candidate(_)) {
            sometimes!(CampaignWithoutAResult);
        }
        self.become_follower(now, self.hard_state.term, None, out);
        if !is_able {
            if self.log.has_hole() {
                sometimes!(CampaignDeferredForHole);
            } else {
                sometimes!(CampaignDeferredForDisk);
            }
            return;
        }
        let mut poll = Poll::new();
        poll.grant(self.id);
        self.role = Role::PreCandidate(poll);
        let request = PreVoteRequest { term: self.hard_state.term.next(), last: self.log.vote_position() };
        for at in 0..self.peers.len() {
            self.send(self.peers[at], Message::PreVoteRequest(request), out);
        }
        self.end_pre_vote_if_won(now, out);
    }

    /// Whether this member could serve as a leader.
    pub(super) fn may_campaign(&self, now: BootMicros) -> bool {
        let has_next_term = self.hard_state.term.next().0 < RAFT_NUMBER_MAX;
        !self.log.has_hole() && !self.is_disk_stalled(now) && has_next_term
    }

    /// Counts a promised vote. A grant carries the voter's term only for information.
    pub(super) fn receive_pre_vote_reply(
        &mut self,
        now: BootMicros,
        from: MemberId,
        reply: PreVoteReply,
        out: &mut Vec<Output>,
    ) {
        let is_current = reply.asked == self.hard_state.term.next();
        if let Role::PreCandidate(poll) = &mut self.role
            && is_current
            && reply.is_granted
        {
            poll.grant(from);
            self.end_pre_vote_if_won(now, out);
        }
    }

    fn end_pre_vote_if_won(&mut self, now: BootMicros, out: &mut Vec<Output>) {
        if let Role::PreCandidate(poll) = &self.role
            && poll.is_won(self.voters_count())
        {
            sometimes!(PreVoteWon);
            self.become_candidate(now, false, out);
        }
    }

    /// Enters the next term and votes for itself. The requests wait for the disk.
    pub(super) fn become_candidate(&mut self, now: BootMicros, is_transfer: bool, out: &mut Vec<Output>) {
        assert!(!self.log.has_hole(), "a member with a hole does not campaign");
        let term = self.hard_state.term.next();
        self.become_follower(now, term, None, out);
        self.hard_state.vote = Some(self.id);
        self.role = Role::Candidate(Poll::new());
        self.draw_election_timeout(now);
        let request = VoteRequest { term, last: self.log.last(), is_transfer };
        for at in 0..self.peers.len() {
            self.send(self.peers[at], Message::VoteRequest(request), out);
        }
    }

    /// Counts the candidate's own vote once it is durable; no other can have come before.
    pub(super) fn count_own_vote(&mut self, now: BootMicros, out: &mut Vec<Output>) {
        if self.durability.ballot() != self.hard_state.into() {
            return;
        }
        if let Role::Candidate(poll) = &mut self.role {
            poll.grant(self.id);
        }
        self.end_vote_if_won(now, out);
    }

    /// Counts a vote.
    pub(super) fn receive_vote_reply(
        &mut self,
        now: BootMicros,
        from: MemberId,
        reply: VoteReply,
        out: &mut Vec<Output>,
    ) {
        let is_granted = reply.is_granted || planted!(17);
        if reply.term != self.hard_state.term || !is_granted {
            return;
        }
        let own = self.id;
        if let Role::Candidate(poll) = &mut self.role
            && poll.holds(own)
        {
            poll.grant(from);
            self.end_vote_if_won(now, out);
        }
    }

    fn end_vote_if_won(&mut self, now: BootMicros, out: &mut Vec<Output>) {
        if let Role::Candidate(poll) = &self.role
            && poll.is_won(self.voters_count())
        {
            self.become_leader(now, out);
        }
    }

    pub(super) const fn voters_count(&self) -> usize {
        self.peers.len() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{member, receive, recovered, sent, sync};
    use super::super::{Mark, RoleName};
    use super::*;
    use crate::ids::Term;

    fn pre_candidate() -> (Node, BootMicros) {
        let mut node = member(recovered(&[1]));
        let now = node.next_deadline();
        node.tick(now, &mut Vec::new());
        assert_eq!(node.role(), RoleName::PreCandidate);
        (node, now)
    }

    fn pre_vote(asked: u64, term: u64, is_granted: bool) -> Message {
        Message::PreVoteReply(PreVoteReply { term: Term(term), asked: Term(asked), is_granted })
    }

    #[test]
    fn a_pre_candidate_changes_nothing_durable() {
        let (mut node, now) = pre_candidate();
        assert_eq!(node.hard_state().term, Term(1));
        assert_eq!(node.persist(now), None);
    }

    #[test]
    fn vote_requests_leave_only_when_the_own_vote_is_durable() {
        let (mut node, now) = pre_candidate();
        let out = receive(&mut node, now.0, 2, pre_vote(2, 1, true));
        assert_eq!(node.role(), RoleName::Candidate);
        assert_eq!(sent(&out).len(), 0);
        let out = sync(&mut node, now);
        assert_eq!(sent(&out).len(), 2);
    }

    #[test]
    fn a_vote_that_comes_before_the_own_is_durable_does_not_count() {
        let (mut node, now) = pre_candidate();
        receive(&mut node, now.0, 2, pre_vote(2, 1, true));
        let vote = Message::VoteReply(VoteReply { term: Term(2), is_granted: true });
        receive(&mut node, now.0, 2, vote.clone());
        receive(&mut node, now.0, 3, vote.clone());
        assert_eq!(node.role(), RoleName::Candidate);
        sync(&mut node, now);
        receive(&mut node, now.0, 3, vote);
        assert_eq!(node.role(), RoleName::Leader);
    }

    #[test]
    fn a_granted_pre_vote_of_a_higher_term_changes_no_term_and_a_refusal_does() {
        let (mut node, now) = pre_candidate();
        receive(&mut node, now.0, 2, pre_vote(9, 8, true));
        assert_eq!((node.role(), node.hard_state().term), (RoleName::PreCandidate, Term(1)));
        receive(&mut node, now.0, 2, pre_vote(2, 8, false));
        assert_eq!((node.role(), node.hard_state().term), (RoleName::Follower, Term(8)));
    }

    #[test]
    fn each_campaign_draws_its_own_timeout() {
        let (mut node, _) = pre_candidate();
        let mut timeouts = Vec::new();
        for _ in 0..20 {
            let now = node.next_deadline();
            node.tick(now, &mut Vec::new());
            timeouts.push(node.next_deadline().since(now));
        }
        assert!(timeouts.iter().all(|micros| (1_000..2_000).contains(micros)));
        timeouts.sort_unstable();
        timeouts.dedup();
        assert!(timeouts.len() > 10);
    }

    #[test]
    fn a_member_whose_disk_stands_still_does_not_campaign() {
        let mut node = member(recovered(&[1]));
        let request =
            VoteRequest { term: Term(2), last: super::super::testing::position(1, 1), is_transfer: false };
        receive(&mut node, 0, 2, Message::VoteRequest(request));
        assert_eq!(node.persist(BootMicros(0)).unwrap().mark, Mark(1));
        let now = node.next_deadline();
        node.tick(now, &mut Vec::new());
        assert_eq!(node.role(), RoleName::Follower);
        node.persisted(now, Mark(1), &mut Vec::new());
        node.tick(node.next_deadline(), &mut Vec::new());
        assert_eq!(node.role(), RoleName::PreCandidate);
    }

    #[test]
    fn a_single_voter_leads_once_its_vote_and_commits_once_its_write_is_durable() {
        let config = super::super::testing::config(1, 1, 1);
        let now = BootMicros(0);
        let mut node = Node::new(config, recovered(&[]), now);
        let mut out = Vec::new();
        node.tick(now, &mut out);
        assert_eq!(node.role(), RoleName::Candidate);
        let mark = node.persist(now).unwrap().mark;
        node.persisted(now, mark, &mut out);
        assert_eq!((node.role(), node.commit().0), (RoleName::Leader, 0));
        sync(&mut node, now);
        assert_eq!(node.commit().0, 1);
    }
}
