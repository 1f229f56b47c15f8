//! The names of snapshot files.

use crate::ids::{GroupId, LogIndex, Term};
use crate::raft::Position;

/// What a file is, by the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// Being written here; after a restart of no use.
    Part,
    /// Being received from a leader; after a restart of no use.
    Incoming,
    /// Whole, durable and read back.
    Whole,
    /// Cut of a state that most members do not have: used by nobody, kept for whoever looks for the cause.
    Distrusted,
}

/// The name of a snapshot's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileName {
    /// Of which group.
    pub group: GroupId,
    /// The last entry that is in it.
    pub position: Position,
    /// How far it has come.
    pub kind: FileKind,
}

impl FileKind {
    const fn ending(self) -> &'static str {
        match self {
            Self::Part => "part",
            Self::Incoming => "incoming",
            Self::Whole => "snap",
            Self::Distrusted => "distrusted",
        }
    }
}

impl FileName {
    /// The name as a text; such texts sort by group and index.
    pub fn text(&self) -> String {
        let Position { index, term } = self.position;
        format!("snap-{:08x}-{:016x}-{:016x}.{}", self.group.0, index.0, term.0, self.kind.ending())
    }

    /// Reads a text; None if it is not exactly one that `text` gives.
    pub fn parse(text: &str) -> Option<Self> {
        let (stem, ending) = text.strip_prefix("snap-")?.split_once('.')?;
        let kinds = [FileKind::Part, FileKind::Incoming, FileKind::Whole, FileKind::Distrusted];
        let kind = kinds.into_iter().find(|kind| kind.ending() == ending)?;
        let mut numbers = stem.split('-');
        let mut number = || u64::from_str_radix(numbers.next()?, 16).ok();
        let group = GroupId(u32::try_from(number()?).ok()?);
        let position = Position { index: LogIndex(number()?), term: Term(number()?) };
        let name = Self { group, position, kind };
        (name.text() == text).then_some(name)
    }
}
