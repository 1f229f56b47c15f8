//! Answering candidates, in every role: at most one vote a term, durable before it is told, and only for a log at
//! least as long as one's own (Raft §5.4.1); none while a leader is heard (thesis 4.2.3).

use super::interface::Output;
use super::message::{Message, PreVoteReply, PreVoteRequest, VoteReply, VoteRequest};
use super::node::{Node, Role};
use crate::ids::{BootMicros, MemberId};
use crate::{planted, sometimes};

impl Node {
    /// Whether a leader was heard within E, so that nobody needs another. A leader hears itself while a majority
    /// answers it.
    pub(super) fn hears_leader(&self, now: BootMicros) -> bool {
        match &self.role {
            Role::Follower(follower) => {
                follower.leader.is_some() && now.since(follower.heard_at) < self.election_micros
            }
            Role::PreCandidate(_) | Role::Candidate(_) => false,
            Role::Leader(leader) => !self.has_lost_majority(leader, now),
        }
    }

    /// Whether to drop a message before it can change the term: a request for a vote that nobody needs.
    pub(super) fn is_ignored(&self, now: BootMicros, message: &Message) -> bool {
        match message {
            Message::VoteRequest(request) => {
                let is_ignored =
                    request.term >= self.hard_state.term && !request.is_transfer && self.hears_leader(now);
                if is_ignored {
                    sometimes!(VoteIgnoredByStickiness);
                }
                is_ignored
            }
            Message::PreVoteRequest(_)
            | Message::PreVoteReply(_)
            | Message::VoteReply(_)
            | Message::AppendRequest(_)
            | Message::AppendReply(_)
            | Message::TimeoutNow(_)
            | Message::ReadIndexRequest(_)
            | Message::ReadIndexReply(_)
            | Message::FillRequest(_)
            | Message::FillReply(_)
            | Message::SnapshotChunk(_)
            | Message::SnapshotReply(_) => false,
        }
    }

    /// Says whether a vote would be given. A refusal tells the own term, so that a candidate whose term is behind
    /// can catch up (catalogue 15).
    pub(super) fn receive_pre_vote_request(
        &mut self,
        now: BootMicros,
        from: MemberId,
        request: PreVoteRequest,
        out: &mut Vec<Output>,
    ) {
        let is_granted = request.term > self.hard_state.term
            && request.last.is_up_to_date_with(self.log.vote_position())
            && !self.hears_leader(now);
        if self.hears_leader(now) {
            sometimes!(PreVoteRefusedByStickiness);
        } else if !request.last.is_up_to_date_with(self.log.vote_position()) {
            sometimes!(PreVoteRefusedForLog);
        }
        if planted!(15) && !is_granted {
            return;
        }
        let reply = PreVoteReply { term: self.hard_state.term, asked: request.term, is_granted };
        self.send(from, Message::PreVoteReply(reply), out);
    }

    /// Gives the vote of this term, or not. The answer waits for the disk.
    pub(super) fn receive_vote_request(
        &mut self,
        now: BootMicros,
        from: MemberId,
        request: VoteRequest,
        out: &mut Vec<Output>,
    ) {
        let term = self.hard_state.term;
        let is_granted = request.term == term
            && self.hard_state.vote.is_none_or(|vote| vote == from)
            && self.leader().is_none()
            && request.last.is_up_to_date_with(self.log.vote_position());
        if is_granted {
            self.become_follower(now, term, None, out);
            self.hard_state.vote = Some(from);
            self.draw_election_timeout(now);
        } else {
            sometimes!(VoteRefused);
        }
        self.send(from, Message::VoteReply(VoteReply { term, is_granted }), out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{append, elect, member, position, receive, recovered, sent, sync};
    use super::super::{Position, RoleName};
    use super::*;
    use crate::ids::Term;

    fn vote(term: u64, last: Position, is_transfer: bool) -> Message {
        Message::VoteRequest(VoteRequest { term: Term(term), last, is_transfer })
    }

    fn answer(node: &mut Node, now: u64, from: u64, message: Message) -> Option<bool> {
        let mut out = receive(node, now, from, message);
        out.extend(sync(node, BootMicros(now)));
        sent(&out).iter().find_map(|message| {
            if let Message::VoteReply(reply) = message { Some(reply.is_granted) } else { None }
        })
    }

    #[test]
    fn a_vote_is_told_only_when_it_is_durable() {
        let mut node = member(recovered(&[1]));
        let out = receive(&mut node, 0, 2, vote(2, position(1, 1), false));
        assert!(sent(&out).is_empty());
        let out = sync(&mut node, BootMicros(0));
        let reply = VoteReply { term: Term(2), is_granted: true };
        assert_eq!(sent(&out), [&Message::VoteReply(reply)]);
    }

    #[test]
    fn one_vote_is_given_in_a_term_and_the_same_one_again() {
        let mut node = member(recovered(&[1]));
        assert_eq!(answer(&mut node, 0, 2, vote(2, position(1, 1), false)), Some(true));
        assert_eq!(answer(&mut node, 0, 3, vote(2, position(9, 1), false)), Some(false));
        assert_eq!(answer(&mut node, 0, 2, vote(2, position(1, 1), false)), Some(true));
    }

    #[test]
    fn a_longer_log_of_an_older_term_gets_no_vote() {
        let mut node = member(recovered(&[1, 2]));
        assert_eq!(answer(&mut node, 0, 2, vote(3, position(9, 1), false)), Some(false));
        assert_eq!(answer(&mut node, 0, 2, vote(3, position(2, 2), false)), Some(true));
    }

    #[test]
    fn who_hears_a_leader_votes_for_nobody_but_the_leaders_own_choice() {
        let mut node = member(recovered(&[1]));
        receive(&mut node, 0, 3, append(1, position(1, 1), Vec::new(), 0));
        assert_eq!(answer(&mut node, 999, 2, vote(2, position(1, 1), false)), None);
        assert_eq!(node.hard_state().term, Term(1));
        assert_eq!(answer(&mut node, 999, 2, vote(2, position(1, 1), true)), Some(true));
        let mut node = member(recovered(&[1]));
        receive(&mut node, 0, 3, append(1, position(1, 1), Vec::new(), 0));
        assert_eq!(answer(&mut node, 1_000, 2, vote(2, position(1, 1), false)), Some(true));
    }

    #[test]
    fn a_leader_that_hears_its_majority_needs_no_other() {
        let mut node = member(recovered(&[1]));
        let now = elect(&mut node);
        assert_eq!(answer(&mut node, now.0, 3, vote(9, position(9, 8), false)), None);
        assert_eq!(node.role(), RoleName::Leader);
        assert_eq!(answer(&mut node, now.0, 3, vote(9, position(9, 8), true)), Some(true));
        assert_eq!(node.role(), RoleName::Follower);
    }

    #[test]
    fn a_pre_vote_request_changes_nothing_and_its_refusal_tells_the_term() {
        let mut node = member(recovered(&[5]));
        let before = node.hard_state();
        let request = PreVoteRequest { term: Term(3), last: position(1, 2) };
        let out = receive(&mut node, 0, 2, Message::PreVoteRequest(request));
        let reply = PreVoteReply { term: Term(5), asked: Term(3), is_granted: false };
        assert_eq!(sent(&out), [&Message::PreVoteReply(reply)]);
        let request = PreVoteRequest { term: Term(99), last: position(1, 5) };
        let out = receive(&mut node, 0, 2, Message::PreVoteRequest(request));
        let reply = PreVoteReply { term: Term(5), asked: Term(99), is_granted: true };
        assert_eq!(sent(&out), [&Message::PreVoteReply(reply)]);
        assert_eq!(node.hard_state(), before);
    }
}
