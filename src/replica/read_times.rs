//! How reads were answered, and how long that took, for whoever measures.
//!
//! Always: what a turn notes is of that turn alone, so it is bounded by what a turn answers; reads that came in one turn
//! and are answered in one are one line. Left out: what becomes of it, which is the server's (`server/stages.rs`).

use crate::ids::BootMicros;

/// How a read of the store was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReadPath {
    /// Linearizable, by a leader alone.
    Lease,
    /// Linearizable, by a leader that asked a quorum.
    Quorum,
    /// Linearizable, by a member that asked the leader.
    Follower,
    /// From what was applied.
    Serializable,
    /// From what was applied, within an age, or by the leader's word if that was too old.
    MaxAge,
    /// From what was applied, at a revision or later, or by the leader's word if that had not come.
    MinRevision,
}

impl ReadPath {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Lease, Self::Quorum, Self::Follower, Self::Serializable, Self::MaxAge, Self::MinRevision];

    /// Its name among counters and times.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Quorum => "quorum",
            Self::Follower => "follower",
            Self::Serializable => "serializable",
            Self::MaxAge => "max_age",
            Self::MinRevision => "min_revision",
        }
    }
}

/// Reads that were answered alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadTime {
    /// How.
    pub path: ReadPath,
    /// From the turn in which they came to that in which they were answered, in microseconds.
    pub micros: u64,
    /// How many.
    pub count: u64,
}

/// What the last turn answered.
#[derive(Debug, Default)]
pub(super) struct ReadTimes(Vec<ReadTime>);

impl ReadTimes {
    /// A turn begins.
    pub(super) fn begin(&mut self) {
        self.0.clear();
    }

    /// A read that came then is answered.
    pub(super) fn answered(&mut self, path: ReadPath, came: BootMicros, now: BootMicros) {
        let micros = now.since(came);
        match self.0.last_mut() {
            Some(last) if (last.path, last.micros) == (path, micros) => last.count += 1,
            Some(_) | None => self.0.push(ReadTime { path, micros, count: 1 }),
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> &[ReadTime] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_that_came_and_were_answered_together_are_one_line() {
        let mut times = ReadTimes::default();
        times.answered(ReadPath::Lease, BootMicros(5), BootMicros(5));
        times.answered(ReadPath::Lease, BootMicros(7), BootMicros(7));
        times.answered(ReadPath::Follower, BootMicros(1), BootMicros(7));
        let line = |path, micros, count| ReadTime { path, micros, count };
        assert_eq!(times.all(), [line(ReadPath::Lease, 0, 2), line(ReadPath::Follower, 6, 1)]);
        times.begin();
        assert_eq!(times.all(), []);
    }
}
