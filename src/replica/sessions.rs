//! Sessions: what makes a client's retry apply exactly once, across any failover (DESIGN §10).
//!
//! This is replicated state. It changes only in apply, from the entry alone, so every member holds the same table
//! and gives the same answer. Always: a result is remembered from its apply until the client says, with its
//! low-water mark, that it has it; a sequence at or below that mark is refused, never run again; a session
//! remembers at most `SESSION_WINDOW` results. Left out: when a session is idle (the leader's own clock decides
//! that, `expiry.rs`, and only proposes), and what a command means.

use crate::api::{Refusal, Response, Stamp};
use crate::ids::{LogIndex, SessionId};
use crate::limits::{SESSION_WINDOW, SESSIONS_MAX};
use crate::sometimes;
use std::collections::BTreeMap;

/// What apply must do with a stamped write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Run it, then `remember` its response.
    Fresh,
    /// It ran before; this was the response.
    Seen(Response),
    /// Do not run it.
    Refuse(Refusal),
}

/// One client's identity and the responses it may still ask for.
#[derive(Debug)]
struct Session {
    /// The client has every response up to and including this sequence.
    low_water: u64,
    /// Responses above the low-water mark, by sequence.
    responses: BTreeMap<u64, Response>,
    /// The newest entry that named this session.
    last_named: LogIndex,
}

/// All sessions of one replica.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    table: BTreeMap<SessionId, Session>,
}

impl Sessions {
    /// Opens the session of the entry at `index`, whose index becomes its id.
    pub(super) fn open(&mut self, index: LogIndex) -> Response {
        if self.table.len() >= SESSIONS_MAX {
            return Response::Refused(Refusal::TooManySessions);
        }
        let session = SessionId(index.0);
        self.table.insert(session, Session { low_water: 0, responses: BTreeMap::new(), last_named: index });
        Response::SessionOpened { session }
    }

    /// Closes a session on its client's word.
    pub(super) fn close(&mut self, session: SessionId) -> Response {
        if !self.table.contains_key(&session) {
            sometimes!(ClosingOfUnknownSession);
            return Response::Refused(Refusal::SessionUnknown);
        }
        sometimes!(SessionClosed);
        // A session is closed for its client, and goes on to be known.
        if !crate::planted!(108) {
            self.table.remove(&session);
        }
        Response::SessionClosed
    }

    /// Ends a session that nothing named after `idle_since`. A write that was appended in between keeps it.
    pub(super) fn expire(&mut self, session: SessionId, idle_since: LogIndex) {
        if self.last_named(session).is_some_and(|named| named <= idle_since) {
            sometimes!(SessionExpired);
            self.table.remove(&session);
        }
    }

    /// Decides what becomes of a stamped write in the entry at `index`.
    pub(super) fn judge(&mut self, index: LogIndex, stamp: Stamp) -> Verdict {
        let Some(session) = self.table.get_mut(&stamp.session) else {
            sometimes!(SessionUnknown);
            return Verdict::Refuse(Refusal::SessionUnknown);
        };
        session.last_named = index;
        if stamp.low_water > session.low_water {
            session.low_water = stamp.low_water;
            session.responses = session.responses.split_off(&(stamp.low_water.saturating_add(1)));
        }
        if stamp.sequence <= session.low_water {
            sometimes!(SequenceForgotten);
            return Verdict::Refuse(Refusal::SequenceForgotten);
        }
        if let Some(response) = session.responses.get(&stamp.sequence) {
            sometimes!(RetryAnsweredFromMemory);
            // Catalogue 35: a retry that was applied is applied again.
            if !crate::planted!(35) {
                return Verdict::Seen(response.clone());
            }
        }
        if stamp.sequence - session.low_water > SESSION_WINDOW {
            return Verdict::Refuse(Refusal::SequenceBeyondWindow);
        }
        Verdict::Fresh
    }

    /// Keeps the response of a write that `judge` called fresh.
    pub(super) fn remember(&mut self, stamp: Stamp, response: &Response) {
        let session = self.table.get_mut(&stamp.session).expect("judge found the session in this same apply");
        session.responses.insert(stamp.sequence, response.clone());
        let window = usize::try_from(SESSION_WINDOW).expect("the window is small");
        assert!(session.responses.len() <= window, "a session remembers at most its window");
    }

    /// The newest entry that named `session`.
    pub(super) fn last_named(&self, session: SessionId) -> Option<LogIndex> {
        self.table.get(&session).map(|found| found.last_named)
    }

    /// How many sessions are open.
    pub(super) fn count(&self) -> usize {
        self.table.len()
    }

    /// Every open session, in order.
    pub(super) fn open_sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.table.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(sequence: u64, low_water: u64) -> Stamp {
        Stamp { session: SessionId(1), sequence, low_water }
    }

    fn opened() -> Sessions {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.open(LogIndex(1)), Response::SessionOpened { session: SessionId(1) });
        sessions
    }

    #[test]
    fn a_retry_gets_the_first_answer_and_does_not_run_again() {
        let mut sessions = opened();
        assert_eq!(sessions.judge(LogIndex(2), stamp(1, 0)), Verdict::Fresh);
        sessions.remember(stamp(1, 0), &Response::SessionClosed);
        assert_eq!(sessions.judge(LogIndex(3), stamp(1, 0)), Verdict::Seen(Response::SessionClosed));
    }

    #[test]
    fn sequences_may_arrive_in_any_order_within_the_window() {
        let mut sessions = opened();
        assert_eq!(sessions.judge(LogIndex(2), stamp(3, 0)), Verdict::Fresh);
        sessions.remember(stamp(3, 0), &Response::SessionClosed);
        assert_eq!(sessions.judge(LogIndex(3), stamp(2, 0)), Verdict::Fresh);
        assert_eq!(
            sessions.judge(LogIndex(4), stamp(SESSION_WINDOW + 1, 0)),
            Verdict::Refuse(Refusal::SequenceBeyondWindow)
        );
    }

    #[test]
    fn a_sequence_at_the_low_water_mark_is_refused_for_ever() {
        let mut sessions = opened();
        assert_eq!(sessions.judge(LogIndex(2), stamp(5, 4)), Verdict::Fresh);
        assert_eq!(sessions.judge(LogIndex(3), stamp(4, 0)), Verdict::Refuse(Refusal::SequenceForgotten));
    }

    #[test]
    fn a_closed_session_takes_no_writes_and_cannot_be_closed_again() {
        let mut sessions = opened();
        assert_eq!(sessions.close(SessionId(1)), Response::SessionClosed);
        assert_eq!(sessions.judge(LogIndex(2), stamp(1, 0)), Verdict::Refuse(Refusal::SessionUnknown));
        assert_eq!(sessions.close(SessionId(1)), Response::Refused(Refusal::SessionUnknown));
    }

    #[test]
    fn a_write_between_the_last_look_and_the_expiry_keeps_the_session() {
        let mut sessions = opened();
        let _ = sessions.judge(LogIndex(7), stamp(1, 0));
        sessions.expire(SessionId(1), LogIndex(6));
        assert_eq!(sessions.last_named(SessionId(1)), Some(LogIndex(7)));
        sessions.expire(SessionId(1), LogIndex(7));
        assert_eq!(sessions.judge(LogIndex(9), stamp(2, 0)), Verdict::Refuse(Refusal::SessionUnknown));
    }
}
