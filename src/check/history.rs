//! What clients did and what they were told.

use super::words;
use crate::ids::SessionId;
use crate::kv::{Applied, Command, Query};
use core::fmt;

/// One operation of one client, with all its retries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who did it.
    pub client: u32,
    /// When its first attempt left; on a line of time shared by all clients, in microseconds.
    pub invoked: u64,
    /// When its answer came; `None` if none ever did.
    pub completed: Option<u64>,
    /// What was asked.
    pub call: Call,
    /// What was answered.
    pub answer: Answer,
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A change of the store.
    Write {
        /// Its identity over all retries.
        write: WriteId,
        /// The change.
        command: Command,
    },
    /// A read.
    Read {
        /// What to read.
        query: Query,
        /// Whether it must see whatever completed before it began; otherwise any state that ever was will do.
        is_linearizable: bool,
    },
}

/// What makes two entries of the log the same write.
///
/// A write without a stamp has session 0, and in place of a sequence whatever tells it from all others. It has no
/// retries: a second copy of it is another write, that nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteId {
    /// The client's session.
    pub session: SessionId,
    /// The number of the write in it.
    pub sequence: u64,
}

impl WriteId {
    /// A committed write that none of the clients asked for whose history is judged: somebody else's, or the cluster's own.
    /// `index` tells it from all others.
    pub const fn of_others(index: u64) -> Self {
        Self { session: SessionId(u64::MAX), sequence: index }
    }

    /// Whether it is such a write.
    pub fn is_of_others(self) -> bool {
        self.session == SessionId(u64::MAX)
    }

    /// Whether copies of it are retries.
    pub fn has_stamp(self) -> bool {
        self.session != SessionId(0)
    }
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The store's answer.
    Applied(Applied),
    /// Every attempt was refused with certainty: it has had and will have no effect.
    NotDone,
    /// Nobody can tell; of a read: it was given up.
    Unknown,
}

/// A write as it stands in the committed log.
#[derive(Clone, Debug)]
pub struct CommittedWrite {
    /// Which write; a second copy of one is a retry.
    pub write: WriteId,
    /// The change.
    pub command: Command,
}

impl fmt::Display for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.has_stamp() {
            write!(f, "{}/{}", self.session, self.sequence)
        } else {
            write!(f, "{:016x} without a stamp", self.sequence)
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {} {}..", self.client, self.invoked)?;
        match self.completed {
            Some(completed) => write!(f, "{completed} µs: ")?,
            None => write!(f, "never: ")?,
        }
        if let Call::Write { write, .. } = &self.call {
            write!(f, "write {write}: ")?;
        }
        write!(f, "{} -> {}", words::asked(&self.call), words::answered(&self.answer))
    }
}
