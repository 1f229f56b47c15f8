//! Apply: committed entries, in order, become changes of the store and answers to whoever waits.
//!
//! Always: apply looks at nothing but the entry and the replicated state, so every member comes to the same state
//! and the same response (a leader's countdown of leases, which is its own affair, learns of it); it cannot fail; an answer leaves only for an entry of the very term in which it was
//! proposed. Left out: whether an entry is committed (`raft`), and what a command means (`kv`).

use super::bootstrap::mix;
use super::group::Replica;
use super::in_order::InOrder;
use super::lease_terms::LeaseTerms;
use super::sessions::Verdict;
use super::users::who_asked;
use super::{Output, group};
use crate::api::{Refusal, Response, Stamp};
use crate::ids::{BootMicros, LogIndex, MemberId, SessionId, Term, Ticket};
use crate::kv::Command;
use crate::limits::LOOK_AHEAD_MAX;
use crate::peer::Body;
use crate::sometimes;
use bytes::Bytes;
use wal_format::{EntryHeader, EntryKind};

/// Who wants the response of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A client of this member.
    Client(Ticket),
    /// A peer that forwarded for its client.
    Peer {
        /// Which.
        member: MemberId,
        /// Its number for the forward.
        request: u64,
    },
    /// Nobody: the leader proposed it by itself.
    Nobody,
}

/// A proposal of this leader that is not applied yet.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) term: Term,
    pub(super) asker: Asker,
    pub(super) bytes: usize,
}

/// Proposals by index. Memory for twice as many as a busy leader has under way may be kept.
pub(super) type Proposals = InOrder<Waiting, 4_096>;

impl Replica {
    /// Applies what is committed, as much as this turn has time for, and answers whoever waited for it.
    pub(super) fn apply_committed(&mut self, now: BootMicros, outputs: &mut Vec<Output>) {
        // What comes after a state that is wrong is wrong, too, and so is every answer.
        let mut looked = self.applied;
        while self.applied < self.node.commit() && self.divergence().is_none() && self.has_time_left() {
            if self.applied == looked {
                looked = self.look_ahead();
            }
            let index = self.applied.next();
            let record = self.entries.get(index).expect("what is committed is held").clone();
            let (header, body) =
                wal_format::decode_entry_again(&record).expect("records are checked when they come in");
            assert!(header.index == index.0, "a record stands at the index it names");
            let body = record.slice_ref(body);
            let term = Term(header.term);
            let response = self.apply(now, index, &header, &body);
            self.applied = index;
            self.applied_term = term;
            self.applied_bytes += record.len() as u64;
            self.start_counting_if_due(now, term);
            // As long as there was never a user, that hash is 0.
            let contents = self.store.state_hash() ^ self.auth.state_hash().rotate_left(32);
            self.state_hash = mix(self.state_hash ^ mix(header.index) ^ mix(header.term << 1) ^ contents);
            self.note_state(index);
            self.settle(index, term, response, outputs);
        }
        if self.divergence().is_none() {
            self.pass_early_answers_on(outputs);
            self.serve_ready_reads(now, outputs);
        }
    }

    /// Has the store go ahead to the keys of the next few entries. Answers with the last of these.
    fn look_ahead(&self) -> LogIndex {
        let last = LogIndex(self.node.commit().0.min(self.applied.0 + LOOK_AHEAD_MAX as u64));
        let bodies = (self.applied.0 + 1..=last.0).filter_map(|index| {
            let record = self.entries.get(LogIndex(index))?;
            wal_format::decode_entry_again(record).ok()
        });
        self.store.look_ahead(bodies.filter_map(|(_, body)| crate::api::key_put(body)));
        last
    }

    /// Runs one entry. The response is the same on every member.
    fn apply(&mut self, now: BootMicros, index: LogIndex, header: &EntryHeader, body: &Bytes) -> Response {
        let session = SessionId(header.session);
        let who = who_asked(header);
        match header.kind {
            EntryKind::NoOp => {
                self.lease_terms = LeaseTerms::decode(body);
                Response::SessionClosed
            }
            EntryKind::Configuration => Response::SessionClosed,
            EntryKind::StateCheck => {
                self.hear_state(header, body);
                Response::SessionClosed
            }
            EntryKind::OpenSession | EntryKind::CloseSession | EntryKind::Command | EntryKind::Users
                if let Err(refusal) = self.may_use_sessions(who) =>
            {
                Response::Refused(refusal.into())
            }
            EntryKind::OpenSession => self.sessions.open(index),
            EntryKind::CloseSession => self.sessions.close(session),
            EntryKind::ExpireSession => {
                self.sessions.expire(session, LogIndex(header.low_water));
                Response::SessionClosed
            }
            EntryKind::Command | EntryKind::Users if session == SessionId(0) => {
                sometimes!(BareWriteApplied);
                self.run(now, index, header, body)
            }
            EntryKind::Command | EntryKind::Users => {
                let stamp = Stamp { session, sequence: header.sequence, low_water: header.low_water };
                match self.sessions.judge(index, stamp) {
                    Verdict::Fresh => {
                        let response = self.run(now, index, header, body);
                        self.sessions.remember(stamp, &response);
                        response
                    }
                    Verdict::Seen(response) => response,
                    Verdict::Refuse(refusal) => Response::Refused(refusal),
                }
            }
        }
    }

    fn run(&mut self, now: BootMicros, index: LogIndex, header: &EntryHeader, body: &Bytes) -> Response {
        let who = who_asked(header);
        if header.kind == EntryKind::Users {
            return self.run_users(who, body);
        }
        match crate::api::decode_command(body) {
            Ok(command) => {
                if let Err(refusal) = self.may_run(who, &command) {
                    return Response::Refused(refusal.into());
                }
                if matches!(command, Command::Compact(_)) {
                    // Whoever keeps up is told of what came before it, which may soon be out of reach.
                    self.watch_advance();
                }
                let applied = self.store.apply(&command);
                if let Command::Lease(command) = &command {
                    self.lease_applied(now, index, command, &applied.outcome);
                }
                Response::Applied(applied)
            }
            // The leader decoded it before proposing, so this is another version's command: refused by all alike.
            Err(_) => Response::Refused(Refusal::Malformed),
        }
    }

    /// Hands the response of the entry at `index` to whoever proposed it here.
    fn settle(&mut self, index: LogIndex, term: Term, response: Response, outputs: &mut Vec<Output>) {
        let Some(waiting) = self.proposals.remove(index.0) else {
            return;
        };
        self.proposals_bytes -= waiting.bytes;
        assert!(waiting.term == term, "a leader's own proposal is never overwritten while it leads");
        self.turn_answer_bytes += crate::api::response_bytes_expected(&response);
        self.answer(waiting.asker, response, outputs);
    }

    /// Sends a response to whoever asked.
    pub(super) fn answer(&self, asker: Asker, response: Response, outputs: &mut Vec<Output>) {
        match asker {
            Asker::Client(ticket) => outputs.push(group::reply(ticket, response)),
            Asker::Peer { member, request } => {
                let response = crate::api::encode_response(&response);
                self.send(member, Body::ForwardReply { request, response }, outputs);
            }
            Asker::Nobody => {}
        }
    }
}
