//! What must be true of the frames between members, beyond durability: sessions do not mix, and entries are the log's.
//!
//! Always: looked at where a frame leaves its sender; a broken truth is returned with its name.

use super::invariants::{Broken, holds};
use crate::ids::{MemberId, Term};
use crate::raft::{AppendResult, Message};
use std::collections::BTreeMap;

/// The replication sessions that leaders have opened.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// By leader, follower and term: in one term a leader replicates to a follower in one session.
    opened: BTreeMap<(MemberId, MemberId, Term), u64>,
}

impl Sessions {
    /// Checks the session that a message from `from` to `to` names.
    ///
    /// # Errors
    /// If a leader has two with one follower in one term, or a follower acknowledges in one of another term.
    pub(super) fn replication_sessions_never_mix(
        &mut self,
        from: MemberId,
        to: MemberId,
        message: &Message,
    ) -> Result<(), Broken> {
        const NAME: &str = "replication_sessions_never_mix";
        match message {
            Message::AppendRequest(request) => {
                let opened = *self.opened.entry((from, to, request.term)).or_insert(request.session);
                holds(opened == request.session, NAME, || {
                    format!("{from} has two sessions with {to} in term {}", request.term)
                })
            }
            Message::SnapshotChunk(chunk) => {
                let opened = *self.opened.entry((from, to, chunk.term)).or_insert(chunk.session);
                holds(opened == chunk.session, NAME, || {
                    format!("{from} has two sessions with {to} in term {}", chunk.term)
                })
            }
            Message::AppendReply(reply) => {
                // To tell the leader of an older term of this one, an answer names that leader's session.
                if !matches!(reply.result, AppendResult::Matched { .. }) {
                    return Ok(());
                }
                let opened = self.opened.get(&(to, from, reply.term));
                let is_known = opened.is_none_or(|opened| *opened == reply.session);
                holds(is_known, NAME, || {
                    format!("{from} acknowledges to {to} in a session of another term than {}", reply.term)
                })
            }
            Message::PreVoteRequest(_)
            | Message::PreVoteReply(_)
            | Message::VoteRequest(_)
            | Message::VoteReply(_)
            | Message::TimeoutNow(_)
            | Message::ReadIndexRequest(_)
            | Message::ReadIndexReply(_)
            | Message::FillRequest(_)
            | Message::FillReply(_)
            | Message::SnapshotReply(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LogIndex;
    use crate::raft::{AppendReply, AppendRequest, Position};

    fn append(term: u64, session: u64) -> Message {
        Message::AppendRequest(AppendRequest {
            term: Term(term),
            session,
            round: 0,
            previous: Position::START,
            commit: LogIndex(0),
            entries: Vec::new(),
        })
    }

    fn reply(term: u64, session: u64) -> Message {
        let result = AppendResult::Matched { upto: LogIndex(0) };
        Message::AppendReply(AppendReply { term: Term(term), session, round: 0, result })
    }

    #[test]
    fn two_sessions_in_one_term_and_an_answer_in_a_foreign_one_are_found() {
        let mut sessions = Sessions::default();
        let (leader, follower) = (MemberId(1), MemberId(2));
        let mut check =
            |from, to, message: Message| sessions.replication_sessions_never_mix(from, to, &message);
        assert!(check(leader, follower, append(3, 7)).is_ok());
        assert!(check(leader, follower, append(4, 8)).is_ok());
        assert!(check(follower, leader, reply(4, 8)).is_ok());
        assert!(check(follower, leader, reply(4, 7)).is_err());
        assert!(check(leader, follower, append(3, 9)).is_err());
    }
}
