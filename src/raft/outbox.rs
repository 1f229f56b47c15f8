//! Messages that wait for the disk: nothing that depends on a term or a vote leaves before that is durable.
//!
//! A held message of an older term is worthless and dropped. A later message of one kind to one peer takes the
//! place of an earlier one, as if that had been lost, so the box is bounded by kinds times peers.

use super::durability::Ballot;
use super::interface::Output;
use super::message::Message;
use crate::ids::MemberId;
use crate::{planted, sometimes};
use core::mem::discriminant;

/// What is held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Outbox {
    held: Vec<Held>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held {
    to: MemberId,
    message: Message,
    ballot: Ballot,
}

impl Outbox {
    /// Sends now, or once `ballot`, the current term and vote, is durable.
    pub(super) fn send(
        &mut self,
        to: MemberId,
        message: Message,
        ballot: Ballot,
        durable: Ballot,
        out: &mut Vec<Output>,
    ) {
        let held = Held { to, message, ballot };
        if held.is_covered_by(durable) {
            out.push(Output::Send { to, message: held.message });
            return;
        }
        let kind = discriminant(&held.message);
        self.held.retain(|other| other.to != to || discriminant(&other.message) != kind);
        self.held.push(held);
    }

    /// Releases what is now covered.
    pub(super) fn release(&mut self, durable: Ballot, out: &mut Vec<Output>) {
        for held in core::mem::take(&mut self.held) {
            if held.is_covered_by(durable) {
                out.push(Output::Send { to: held.to, message: held.message });
            } else {
                self.held.push(held);
            }
        }
    }

    /// Drops everything: the term has moved on.
    pub(super) fn clear(&mut self) {
        if !self.held.is_empty() {
            sometimes!(HeldMessageOutdated);
        }
        self.held.clear();
    }
}

impl Held {
    /// Within one term a vote, once given, stays; so a durable vote is this one or this message needs none.
    fn is_covered_by(&self, durable: Ballot) -> bool {
        let depends_on_vote = match &self.message {
            Message::VoteRequest(_) => true,
            Message::VoteReply(reply) => {
                if planted!(18) {
                    return true;
                }
                reply.is_granted
            }
            Message::PreVoteRequest(_)
            | Message::PreVoteReply(_)
            | Message::AppendRequest(_)
            | Message::AppendReply(_)
            | Message::TimeoutNow(_)
            | Message::ReadIndexRequest(_)
            | Message::ReadIndexReply(_)
            | Message::FillRequest(_)
            | Message::FillReply(_)
            | Message::SnapshotChunk(_)
            | Message::SnapshotReply(_) => false,
        };
        durable.term == self.ballot.term && (!depends_on_vote || durable.vote == self.ballot.vote)
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{PreVoteReply, VoteReply, VoteRequest};
    use super::super::testing::position;
    use super::*;
    use crate::ids::Term;

    const NOW: Ballot = Ballot { term: Term(2), vote: Some(MemberId(1)) };
    const TERM_ONLY: Ballot = Ballot { term: Term(2), vote: None };
    const OLD: Ballot = Ballot { term: Term(1), vote: None };

    fn request() -> Message {
        Message::VoteRequest(VoteRequest { term: Term(2), last: position(1, 1), is_transfer: false })
    }

    #[test]
    fn a_vote_waits_for_the_vote_and_a_refusal_for_the_term() {
        let (mut outbox, mut out) = (Outbox::default(), Vec::new());
        let reply = |is_granted| Message::VoteReply(VoteReply { term: Term(2), is_granted });
        outbox.send(MemberId(2), reply(true), NOW, OLD, &mut out);
        outbox.send(MemberId(3), reply(false), NOW, OLD, &mut out);
        outbox.send(MemberId(3), request(), NOW, OLD, &mut out);
        assert_eq!(out, []);
        outbox.release(TERM_ONLY, &mut out);
        assert_eq!(out, [Output::Send { to: MemberId(3), message: reply(false) }]);
        outbox.release(NOW, &mut out);
        assert_eq!(out.len(), 3);
        outbox.release(NOW, &mut out);
        assert_eq!(out.len(), 3, "a message leaves once");
    }

    #[test]
    fn a_later_message_takes_the_place_of_an_earlier_one() {
        let (mut outbox, mut out) = (Outbox::default(), Vec::new());
        let reply = |asked| {
            Message::PreVoteReply(PreVoteReply { term: Term(2), asked: Term(asked), is_granted: false })
        };
        for asked in 1..100 {
            outbox.send(MemberId(2), reply(asked), NOW, OLD, &mut out);
        }
        outbox.release(NOW, &mut out);
        assert_eq!(out, [Output::Send { to: MemberId(2), message: reply(99) }]);
    }

    #[test]
    fn what_is_durable_already_leaves_at_once() {
        let (mut outbox, mut out) = (Outbox::default(), Vec::new());
        outbox.send(MemberId(2), request(), NOW, NOW, &mut out);
        assert_eq!(out, [Output::Send { to: MemberId(2), message: request() }]);
    }
}
