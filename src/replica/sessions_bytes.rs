//! The table of sessions as bytes, and from bytes: what a snapshot holds of it (`snapshot/FORMAT.md`, "Sessions").
//!
//! What always holds: equal tables give equal bytes; from these bytes comes an equal table; any other bytes are refused.
//! The table is copied whole in the turn in which the snapshot is cut, and encoded part by part in later ones.

use super::sessions::{Responses, Session, Sessions, remembered_bytes};
use crate::ids::{LogIndex, SessionId};
use crate::limits::{SESSION_WINDOW, SESSIONS_MAX, SNAPSHOT_PART_BYTES};
use bytes::Bytes;
use std::collections::BTreeMap;

const SESSION: u8 = 1;
const RESPONSE: u8 = 2;
const END: u8 = 3;

/// Bytes that are no sessions: what is wrong with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) &'static str);

const CUT_SHORT: Malformed = Malformed("the bytes end in the middle of a record");

/// The table as it was at one moment, being told.
#[derive(Debug)]
pub(super) struct SessionsCut {
    /// What is still to be told.
    table: BTreeMap<SessionId, Session>,
    /// Whether the first of these was begun, and only responses are left of it.
    is_begun: bool,
    sessions_count: u64,
    responses_count: u64,
    is_told: bool,
}

impl SessionsCut {
    /// The payload of the next part: whole records, up to the one that fills it. None once all is told.
    pub(super) fn part(&mut self) -> Option<Vec<u8>> {
        if self.is_told {
            return None;
        }
        let mut part = Vec::new();
        while let Some(mut first) = self.table.first_entry() {
            let id = *first.key();
            let session = first.get_mut();
            if !core::mem::replace(&mut self.is_begun, true) {
                part.push(SESSION);
                put(&mut part, &[id.0, session.low_water, session.last_named.0]);
            }
            while part.len() < SNAPSHOT_PART_BYTES
                && let Some((sequence, response)) = session.responses.pop_first()
            {
                part.push(RESPONSE);
                put(&mut part, &[sequence]);
                let response = crate::api::encode_response(&response);
                let length = u32::try_from(response.len()).expect("a response that is remembered is short");
                part.extend_from_slice(&length.to_le_bytes());
                part.extend_from_slice(&response);
            }
            if part.len() >= SNAPSHOT_PART_BYTES {
                return Some(part);
            }
            first.remove();
            self.is_begun = false;
        }
        self.is_told = true;
        part.push(END);
        put(&mut part, &[self.sessions_count, self.responses_count]);
        Some(part)
    }
}

impl Sessions {
    /// The table as it is now, to be told part by part. Keys and values of answers are shared and not copied.
    pub(super) fn cut(&self) -> SessionsCut {
        SessionsCut {
            table: self.table.clone(),
            is_begun: false,
            sessions_count: self.table.len() as u64,
            responses_count: self.responses_count as u64,
            is_told: false,
        }
    }
}

fn put(to: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        to.extend_from_slice(&number.to_le_bytes());
    }
}

/// A table of sessions on its way from bytes.
#[derive(Debug, Default)]
pub(super) struct SessionsRestorer {
    sessions: Sessions,
    is_ended: bool,
}

impl SessionsRestorer {
    /// Reads the payload of a part, in order. `applied`: the last entry that is in the snapshot.
    pub(super) fn part(&mut self, part: Vec<u8>, applied: LogIndex) -> Result<(), Malformed> {
        let mut rest = Bytes::from(part);
        while !rest.is_empty() {
            if self.is_ended {
                return Err(Malformed("something follows the end of the sessions"));
            }
            match take::<1>(&mut rest)? {
                [SESSION] => self.session(&mut rest, applied)?,
                [RESPONSE] => self.response(&mut rest)?,
                [END] => {
                    let announced = (number(&mut rest)?, number(&mut rest)?);
                    if announced != (self.sessions.table.len() as u64, self.sessions.responses_count as u64) {
                        return Err(Malformed("sessions or responses are missing"));
                    }
                    self.is_ended = true;
                }
                _ => return Err(Malformed("a record of no known kind")),
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Sessions, Malformed> {
        if self.is_ended { Ok(self.sessions) } else { Err(Malformed("the end of the sessions is missing")) }
    }

    fn session(&mut self, rest: &mut Bytes, applied: LogIndex) -> Result<(), Malformed> {
        let (id, low_water) = (SessionId(number(rest)?), number(rest)?);
        let last_named = LogIndex(number(rest)?);
        let follows = self.sessions.table.last_key_value().is_none_or(|(last, _)| *last < id);
        let is_possible = follows
            && id != SessionId(0)
            && (id.0..=applied.0).contains(&last_named.0)
            && self.sessions.table.len() < SESSIONS_MAX;
        if !is_possible {
            return Err(Malformed("an impossible session"));
        }
        let session = Session { low_water, responses: Responses::default(), bytes: 0, last_named };
        self.sessions.table.insert(id, session);
        Ok(())
    }

    fn response(&mut self, rest: &mut Bytes) -> Result<(), Malformed> {
        let sequence = number(rest)?;
        let length = usize::try_from(u32::from_le_bytes(take(rest)?)).unwrap_or(usize::MAX);
        if length > rest.len() {
            return Err(CUT_SHORT);
        }
        // A copy of its own, so that it does not keep the whole part alive.
        let response = Bytes::copy_from_slice(&rest.split_to(length));
        let response = crate::api::decode_response(&response)
            .map_err(|_| Malformed("a response that cannot be read"))?;
        let mut last = self.sessions.table.last_entry().ok_or(Malformed("a response of no session"))?;
        let session = last.get_mut();
        let follows = session.responses.last().is_none_or(|last| last < sequence);
        let is_possible =
            follows && sequence > session.low_water && sequence - session.low_water <= SESSION_WINDOW;
        if !is_possible {
            return Err(Malformed("an impossible response"));
        }
        let bytes = remembered_bytes(&response);
        session.bytes += bytes;
        let shared_before = session.shared_count();
        session.responses.insert(sequence, response);
        self.sessions.shared_count += session.shared_count() - shared_before;
        self.sessions.bytes += bytes;
        self.sessions.responses_count += 1;
        Ok(())
    }
}

fn take<const N: usize>(rest: &mut Bytes) -> Result<[u8; N], Malformed> {
    let taken = *rest.first_chunk::<N>().ok_or(CUT_SHORT)?;
    let _ = rest.split_to(N);
    Ok(taken)
}

fn number(rest: &mut Bytes) -> Result<u64, Malformed> {
    take(rest).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Refusal, Response, Stamp};
    use crate::ids::Revision;
    use crate::kv::{Applied, LeaseOutcome, Outcome, TimeToLive};

    /// Sessions that remember answers of many lengths.
    fn sessions() -> Sessions {
        let mut sessions = Sessions::default();
        for index in 1..=20 {
            sessions.open(LogIndex(index));
        }
        for (at, length) in [10, 90_000, 400_000, 7, 200_000].into_iter().cycle().take(40).enumerate() {
            let at = at as u64;
            let stamp = Stamp { session: SessionId(1 + at % 18), sequence: 1 + at / 3, low_water: at / 9 };
            let keys = vec![Bytes::from(vec![b'k'; 1_000]); length / 1_000];
            let known = TimeToLive { ttl_ms: 9, remaining_ms: 1, keys };
            let outcome = Outcome::Lease(LeaseOutcome::TimeToLive(Some(known)));
            if sessions.judge(LogIndex(100 + at), stamp) == super::super::sessions::Verdict::Fresh {
                sessions.remember(stamp, &Response::Applied(Applied { revision: Revision(at), outcome }));
            }
        }
        let stamp = Stamp { session: SessionId(20), sequence: 3, low_water: 0 };
        let _ = sessions.judge(LogIndex(200), stamp);
        sessions.remember(stamp, &Response::Refused(Refusal::AnswerTooLong));
        sessions
    }

    fn parts_of(sessions: &Sessions) -> Vec<Vec<u8>> {
        let mut cut = sessions.cut();
        core::iter::from_fn(|| cut.part()).collect()
    }

    fn restored(parts: impl IntoIterator<Item = Vec<u8>>) -> Result<Sessions, Malformed> {
        let mut restorer = SessionsRestorer::default();
        for part in parts {
            restorer.part(part, LogIndex(200))?;
        }
        restorer.finish()
    }

    #[test]
    fn a_table_comes_back_equal_and_gives_the_same_bytes_again() {
        let sessions = sessions();
        let parts = parts_of(&sessions);
        assert!(parts.len() > 3, "it takes several parts");
        let again = restored(parts.clone()).expect("it is whole");
        assert_eq!(format!("{again:?}"), format!("{sessions:?}"));
        assert_eq!(parts_of(&again), parts);
        assert_eq!(restored(parts_of(&Sessions::default())).expect("it is whole").count(), 0);
    }

    #[test]
    fn bytes_that_are_cut_or_changed_are_refused_or_make_another_table() {
        let mut sessions = Sessions::default();
        sessions.open(LogIndex(3));
        let stamp = Stamp { session: SessionId(3), sequence: 5, low_water: 4 };
        let _ = sessions.judge(LogIndex(9), stamp);
        sessions.remember(stamp, &Response::SessionClosed);
        let whole: Vec<u8> = parts_of(&sessions).concat();
        for length in 0..whole.len() {
            assert!(restored([whole[..length].to_vec()]).is_err(), "cut at {length}");
        }
        for bit in 0..8 * whole.len() {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let _ = restored([flipped]);
        }
    }
}
