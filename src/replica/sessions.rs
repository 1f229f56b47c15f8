//! Sessions: what makes a client's retry apply exactly once, across any failover (DESIGN §10).
//!
//! This is replicated state. It changes only in apply, from the entry alone, so every member holds the same table
//! and gives the same answer. Always: a result is remembered from its apply until the client says, with its
//! low-water mark, that it has it; a sequence at or below that mark is refused, never run again.
//!
//! Memory is bounded twice. By number: a session remembers at most `SESSION_WINDOW` results, of which
//! `SESSION_ANSWERS_RESERVED` are its own and the rest come out of `SESSIONS_ANSWERS_SHARED_MAX` that all sessions share; a
//! write whose result would find no place is not run. By bytes: of a result that is not small and finds no room it is
//! remembered that there was one, so that the write is not run again; a small one always has room.
//!
//! Left out: when a session is idle (the leader's own clock decides that, `propose.rs`, and only proposes), and what a
//! command means.

use super::answer_size::answer_bytes;
use super::in_order::InOrder;
use crate::api::{Refusal, Response, Stamp};
use crate::ids::{LogIndex, SessionId};
use crate::limits::{
    SESSION_ANSWERS_RESERVED, SESSION_BYTES_MAX, SESSION_WINDOW, SESSIONS_ANSWERS_SHARED_MAX,
    SESSIONS_BYTES_MAX, SESSIONS_MAX, SMALL_ANSWER_BYTES_MAX,
};
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

/// Responses by sequence. Of their memory no more is kept than for those that a session has reserved.
pub(super) type Responses = InOrder<Response, { SESSION_ANSWERS_RESERVED / 2 }>;

/// One client's identity and the responses it may still ask for.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// The client has every response up to and including this sequence.
    pub(super) low_water: u64,
    /// Responses above the low-water mark, by sequence.
    pub(super) responses: Responses,
    /// Bytes of those that are not small.
    pub(super) bytes: usize,
    /// The newest entry that named this session.
    pub(super) last_named: LogIndex,
}

/// All sessions of one replica.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) table: BTreeMap<SessionId, Session>,
    /// Responses that all sessions remember.
    pub(super) responses_count: usize,
    /// Those of them for which no place is reserved.
    pub(super) shared_count: usize,
    /// Bytes of those that are not small.
    pub(super) bytes: usize,
}

impl Session {
    /// Responses for which no place is reserved.
    pub(super) fn shared_count(&self) -> usize {
        self.responses.len().saturating_sub(SESSION_ANSWERS_RESERVED)
    }
}

impl Sessions {
    /// Opens the session of the entry at `index`, whose index becomes its id.
    pub(super) fn open(&mut self, index: LogIndex) -> Response {
        if self.table.len() >= SESSIONS_MAX {
            return Response::Refused(Refusal::TooManySessions);
        }
        let session = SessionId(index.0);
        let opened = Session { low_water: 0, responses: Responses::default(), bytes: 0, last_named: index };
        self.table.insert(session, opened);
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
            self.forget(session);
        }
        Response::SessionClosed
    }

    /// A session is known no more, and with it goes what it remembers.
    fn forget(&mut self, session: SessionId) {
        if let Some(ended) = self.table.remove(&session) {
            self.responses_count -= ended.responses.len();
            self.shared_count -= ended.shared_count();
            self.bytes -= ended.bytes;
        }
    }

    /// Ends a session that nothing named after `idle_since`. A write that was appended in between keeps it.
    pub(super) fn expire(&mut self, session: SessionId, idle_since: LogIndex) {
        if self.last_named(session).is_some_and(|named| named <= idle_since) {
            sometimes!(SessionExpired);
            self.forget(session);
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
            let shared_before = session.shared_count();
            while session.responses.first().is_some_and(|first| first <= stamp.low_water)
                && let Some((_, response)) = session.responses.pop_first()
            {
                let freed = remembered_bytes(&response);
                session.bytes -= freed;
                self.bytes -= freed;
                self.responses_count -= 1;
            }
            self.shared_count -= shared_before - session.shared_count();
        }
        if stamp.sequence <= session.low_water {
            sometimes!(SequenceForgotten);
            return Verdict::Refuse(Refusal::SequenceForgotten);
        }
        if let Some(response) = session.responses.get(stamp.sequence) {
            sometimes!(RetryAnsweredFromMemory);
            // Catalogue 35: a retry that was applied is applied again.
            if !crate::planted!(35) {
                return Verdict::Seen(response.clone());
            }
        }
        if stamp.sequence - session.low_water > SESSION_WINDOW {
            return Verdict::Refuse(Refusal::SequenceBeyondWindow);
        }
        let has_place = session.responses.len() < SESSION_ANSWERS_RESERVED
            || self.shared_count < SESSIONS_ANSWERS_SHARED_MAX;
        if !has_place {
            return Verdict::Refuse(Refusal::Overloaded);
        }
        Verdict::Fresh
    }

    /// Keeps the response of a write that `judge` called fresh.
    pub(super) fn remember(&mut self, stamp: Stamp, response: &Response) {
        let session = self.table.get_mut(&stamp.session).expect("judge found the session in this same apply");
        let bytes = remembered_bytes(response);
        let has_room = bytes == 0
            || (self.bytes + bytes <= SESSIONS_BYTES_MAX && session.bytes + bytes <= SESSION_BYTES_MAX);
        let (response, bytes) = if has_room {
            (response.clone(), bytes)
        } else {
            sometimes!(ResponseTooLongToRemember);
            (Response::Refused(Refusal::AnswerTooLong), 0)
        };
        let shared_before = session.shared_count();
        session.bytes += bytes;
        self.bytes += bytes;
        self.responses_count += 1;
        let was_there = session.responses.insert(stamp.sequence, response);
        assert!(was_there.is_none() || crate::planted!(35), "a sequence is run once");
        self.shared_count += session.shared_count() - shared_before;
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

    /// How many responses are remembered, and how many bytes those take that are not small.
    pub(super) const fn remembered(&self) -> (usize, usize) {
        (self.responses_count, self.bytes)
    }

    /// Every open session, in order.
    pub(super) fn open_sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.table.keys().copied()
    }
}

/// What remembering a response takes of the bytes there are: nothing if it is small. The refusal that stands for one that
/// found no room is small, too.
pub(super) fn remembered_bytes(response: &Response) -> usize {
    let bytes = answer_bytes(response);
    if bytes <= SMALL_ANSWER_BYTES_MAX { 0 } else { bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Revision;
    use crate::kv::{Applied, LeaseOutcome, Outcome, StoreRefusal, TimeToLive};
    use bytes::Bytes;

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
    fn no_sequence_is_too_high_to_be_forgotten() {
        let mut sessions = opened();
        let last = stamp(u64::MAX, u64::MAX - 1);
        assert_eq!(sessions.judge(LogIndex(3), last), Verdict::Fresh);
        sessions.remember(last, &Response::SessionClosed);
        sessions.judge(LogIndex(4), stamp(u64::MAX, u64::MAX));
        assert_eq!(sessions.responses_count, 0);
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

    /// The answer to a read of `bytes` bytes.
    fn long(bytes: usize) -> Response {
        let key = Bytes::from(vec![b'k'; bytes]);
        let known = TimeToLive { ttl_ms: 1, remaining_ms: 1, keys: vec![key] };
        let outcome = Outcome::Lease(LeaseOutcome::TimeToLive(Some(known)));
        Response::Applied(Applied { revision: Revision(1), outcome })
    }

    #[test]
    fn of_a_response_that_is_too_long_it_is_remembered_that_there_was_one() {
        let mut sessions = opened();
        for (sequence, bytes) in [(1, SESSION_BYTES_MAX / 2), (2, SESSION_BYTES_MAX), (3, 10)] {
            assert_eq!(sessions.judge(LogIndex(sequence + 1), stamp(sequence, 0)), Verdict::Fresh);
            sessions.remember(stamp(sequence, 0), &long(bytes));
        }
        let kept = |sessions: &mut Sessions, sequence| sessions.judge(LogIndex(9), stamp(sequence, 0));
        assert_eq!(kept(&mut sessions, 1), Verdict::Seen(long(SESSION_BYTES_MAX / 2)));
        assert_eq!(kept(&mut sessions, 2), Verdict::Seen(Response::Refused(Refusal::AnswerTooLong)));
        assert_eq!(kept(&mut sessions, 3), Verdict::Seen(long(10)));
        assert_eq!(sessions.remembered().0, 3);
    }

    #[test]
    fn what_is_remembered_is_counted_and_forgotten_with_the_low_water_mark_and_the_session() {
        let mut sessions = opened();
        for sequence in 1..=10 {
            assert_eq!(sessions.judge(LogIndex(2), stamp(sequence, 0)), Verdict::Fresh);
            sessions.remember(stamp(sequence, 0), &long(1_000));
        }
        let (count, bytes) = sessions.remembered();
        assert!(count == 10 && bytes > 10_000, "{count} responses of {bytes} bytes");
        assert_eq!(sessions.judge(LogIndex(3), stamp(11, 9)), Verdict::Fresh);
        sessions.remember(stamp(11, 9), &long(1_000));
        assert_eq!(sessions.remembered().0, 2);
        assert_eq!(sessions.close(SessionId(1)), Response::SessionClosed);
        assert_eq!(sessions.remembered(), (0, 0));
    }

    #[test]
    fn a_small_response_is_remembered_though_there_is_room_for_no_long_one() {
        let mut sessions = opened();
        let refused = Applied { revision: Revision(7), outcome: Outcome::Refused(StoreRefusal::NoSpace) };
        let answers = [long(SESSION_BYTES_MAX - 200), long(300), Response::Applied(refused)];
        for (sequence, answer) in (1..).zip(&answers) {
            assert_eq!(sessions.judge(LogIndex(2), stamp(sequence, 0)), Verdict::Fresh);
            sessions.remember(stamp(sequence, 0), answer);
        }
        let kept: Vec<Verdict> =
            (1..=3).map(|sequence| sessions.judge(LogIndex(9), stamp(sequence, 0))).collect();
        let [first, _, third] = answers;
        let forgotten = Response::Refused(Refusal::AnswerTooLong);
        assert_eq!(kept, [first, forgotten, third].map(Verdict::Seen));
    }

    /// Opens so many sessions, and has each but the last remember all that its window allows.
    fn full(count: u64) -> Sessions {
        let mut sessions = Sessions::default();
        for index in 1..=count {
            sessions.open(LogIndex(index));
        }
        for session in 1..count {
            for sequence in 1..=SESSION_WINDOW {
                let stamp = Stamp { session: SessionId(session), sequence, low_water: 0 };
                assert_eq!(sessions.judge(LogIndex(1), stamp), Verdict::Fresh);
                sessions.remember(stamp, &Response::SessionClosed);
            }
        }
        sessions
    }

    #[test]
    fn whatever_others_leave_lying_a_session_has_places_of_its_own() {
        let window = usize::try_from(SESSION_WINDOW).expect("the window is small");
        let count = SESSIONS_ANSWERS_SHARED_MAX.div_ceil(window - SESSION_ANSWERS_RESERVED) as u64;
        let mut sessions = full(count);
        let last = |sequence, low_water| Stamp { session: SessionId(count), sequence, low_water };
        let mut sequence = 0;
        while sessions.judge(LogIndex(1), last(sequence + 1, 0)) == Verdict::Fresh {
            sequence += 1;
            sessions.remember(last(sequence, 0), &Response::SessionClosed);
        }
        let left = SESSIONS_ANSWERS_SHARED_MAX % (window - SESSION_ANSWERS_RESERVED);
        assert_eq!(usize::try_from(sequence).expect("few"), SESSION_ANSWERS_RESERVED + left);
        // No write is run whose result could not be remembered.
        let refused = Verdict::Refuse(Refusal::Overloaded);
        assert_eq!(sessions.judge(LogIndex(1), last(sequence + 1, 0)), refused);
        // A session that opens now has its places all the same, and whoever takes its answers has them again.
        sessions.open(LogIndex(count + 1));
        let new = Stamp { session: SessionId(count + 1), sequence: 1, low_water: 0 };
        assert_eq!(sessions.judge(LogIndex(1), new), Verdict::Fresh);
        assert_eq!(sessions.judge(LogIndex(1), last(sequence + 1, sequence)), Verdict::Fresh);
        assert_eq!(sessions.close(SessionId(1)), Response::SessionClosed);
        assert_eq!(sessions.close(SessionId(count)), Response::SessionClosed);
        let kept = (count - 2) * SESSION_WINDOW;
        assert_eq!(sessions.remembered(), (usize::try_from(kept).expect("a million"), 0));
        assert_eq!(
            sessions.shared_count,
            (window - SESSION_ANSWERS_RESERVED) * usize::try_from(count - 2).expect("few")
        );
    }
}
