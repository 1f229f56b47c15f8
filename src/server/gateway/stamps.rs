//! The sessions of a gateway: its writes are stamped, so that each is applied once however often it is sent.
//!
//! Always: the low-water mark of a stamp is below every write of the session that somebody still waits for; a write that
//! nobody waits for any more is given up, and from then on is applied never or was applied before. A session that the
//! members do not know any more is forgotten with all its stamps. Left out: when a write is sent again (`writing`).

use crate::api::Stamp;
use crate::ids::SessionId;
use crate::limits::{GATEWAY_SESSIONS_MAX, SESSION_WINDOW};
use std::collections::BTreeSet;

#[derive(Debug)]
struct Session {
    id: SessionId,
    /// The sequence of the next write.
    next: u64,
    /// The sequences that somebody waits for.
    awaited: BTreeSet<u64>,
}

impl Session {
    fn low_water(&self) -> u64 {
        self.awaited.first().unwrap_or(&self.next) - 1
    }

    fn stamp(&self, sequence: u64) -> Stamp {
        Stamp { session: self.id, sequence, low_water: self.low_water() }
    }
}

/// The sessions, and whether one more is being opened.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    sessions: Vec<Session>,
    is_opening: bool,
}

/// What whoever wants to write is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Send it with this stamp.
    Stamp(Stamp),
    /// Open a session, and say how it went.
    Open,
    /// Wait until somebody else has.
    Wait,
    /// There is no room in any session, and there are enough of them.
    Full,
}

impl Stamps {
    /// A stamp for a new write.
    pub(super) fn take(&mut self) -> Taken {
        let has_room = |session: &&mut Session| session.next - session.low_water() <= SESSION_WINDOW;
        if let Some(session) = self.sessions.iter_mut().find(has_room) {
            let sequence = session.next;
            session.next += 1;
            session.awaited.insert(sequence);
            return Taken::Stamp(session.stamp(sequence));
        }
        if self.is_opening {
            return Taken::Wait;
        }
        if self.sessions.len() >= GATEWAY_SESSIONS_MAX {
            return Taken::Full;
        }
        self.is_opening = true;
        Taken::Open
    }

    /// How the opening of a session went that `take` asked for.
    pub(super) fn opened(&mut self, session: Option<SessionId>) {
        self.is_opening = false;
        if let Some(id) = session {
            self.sessions.push(Session { id, next: 1, awaited: BTreeSet::new() });
        }
    }

    /// The stamp of the same write for another attempt, with the low-water mark of now.
    pub(super) fn renewed(&self, stamp: Stamp) -> Stamp {
        let session = self.sessions.iter().find(|session| session.id == stamp.session);
        session.map_or(stamp, |session| session.stamp(stamp.sequence))
    }

    /// Nobody waits for this write any more.
    pub(super) fn release(&mut self, stamp: Stamp) {
        if let Some(session) = self.sessions.iter_mut().find(|session| session.id == stamp.session) {
            session.awaited.remove(&stamp.sequence);
        }
    }

    /// The members do not know this session any more.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.sessions.retain(|it| it.id != session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(stamps: &mut Stamps) -> Stamp {
        match stamps.take() {
            Taken::Stamp(stamp) => stamp,
            other @ (Taken::Open | Taken::Wait | Taken::Full) => panic!("a stamp was expected: {other:?}"),
        }
    }

    #[test]
    fn one_asker_opens_a_session_and_the_others_wait() {
        let mut stamps = Stamps::default();
        assert_eq!((stamps.take(), stamps.take()), (Taken::Open, Taken::Wait));
        stamps.opened(None);
        assert_eq!(stamps.take(), Taken::Open, "it could not be opened: the next one tries");
        stamps.opened(Some(SessionId(7)));
        assert_eq!(stamp(&mut stamps), Stamp { session: SessionId(7), sequence: 1, low_water: 0 });
    }

    #[test]
    fn the_low_water_mark_is_below_everything_that_is_awaited() {
        let mut stamps = Stamps::default();
        stamps.take();
        stamps.opened(Some(SessionId(7)));
        let all: Vec<Stamp> = (0..4).map(|_| stamp(&mut stamps)).collect();
        stamps.release(all[1]);
        stamps.release(all[2]);
        assert_eq!(stamp(&mut stamps).low_water, 0, "the first is awaited");
        stamps.release(all[0]);
        assert_eq!(stamps.renewed(all[3]).low_water, 3);
    }

    #[test]
    fn no_session_has_more_under_way_than_its_window_and_there_are_so_many_sessions() {
        let mut stamps = Stamps::default();
        let mut first = None;
        for number in 1..=GATEWAY_SESSIONS_MAX as u64 {
            assert_eq!(stamps.take(), Taken::Open);
            stamps.opened(Some(SessionId(number)));
            for _ in 0..SESSION_WINDOW {
                first.get_or_insert(stamp(&mut stamps));
            }
        }
        assert_eq!(stamps.take(), Taken::Full);
        let first = first.expect("one was taken");
        stamps.release(first);
        assert_eq!(stamp(&mut stamps).session, first.session, "there is room again");
        stamps.forget(first.session);
        assert_eq!(stamps.take(), Taken::Open);
    }
}
