//! Cutting the end off a group's log by hand: the last resort when an entry makes every member fail (`mainstay recover`).
//!
//! One frame does it: a tail that names an earlier end of the log drops whatever lies beyond (`wal-format/FORMAT.md`), so a
//! cut is done or not done, and term and vote stay as they are. Always: nothing is cut that a snapshot holds, and nothing
//! from a log in which something is missing. Left out: whether it should be done. What was committed may be lost by it,
//! and unless every member's log is cut at the same entry, members differ.

use super::{GroupWrite, Recovered};
use crate::ids::{GroupId, LogIndex};
use crate::raft::{Entry, HardState, Position};
use bytes::Bytes;
use std::collections::BTreeMap;

/// What cutting a log comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The write that does it.
    pub write: GroupWrite,
    /// The records of the entries that are dropped by it.
    pub dropped: BTreeMap<LogIndex, Bytes>,
    /// The last entry that this member knows to be committed; perhaps more is.
    pub commit: LogIndex,
}

/// Why a log cannot be cut there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotCut {
    /// No such group.
    #[error("there is no log of {group} here")]
    NoSuchGroup {
        /// Which was asked for.
        group: GroupId,
    },
    /// Something is missing in it.
    #[error(
        "something is missing in this log: start the member beside sound ones, which supply it, or cut theirs"
    )]
    NotWhole,
    /// It is not an entry of the log.
    #[error("the log ends with entry {last}, before {stop_before}: nothing is to be cut")]
    BeyondTheEnd {
        /// What was asked for.
        stop_before: LogIndex,
        /// The end of the log.
        last: LogIndex,
    },
    /// A snapshot holds it.
    #[error(
        "entry {stop_before} is in the snapshot of entry {snapshot}: it was applied here once, and cannot be cut off"
    )]
    InSnapshot {
        /// What was asked for.
        stop_before: LogIndex,
        /// The newest snapshot.
        snapshot: LogIndex,
    },
}

/// How to make the log of `group` end just before `stop_before`.
///
/// # Errors
/// It cannot end there.
pub fn cut(recovered: &Recovered, group: GroupId, stop_before: LogIndex) -> Result<Cut, CannotCut> {
    let found = recovered.groups.get(&group).ok_or(CannotCut::NoSuchGroup { group })?;
    let log = &found.log;
    if found.counts_for_nothing || !log.islands.is_empty() || log.is_reset_owed {
        return Err(CannotCut::NotWhole);
    }
    let snapshot = found.snapshot.index.max(found.named.index).max(log.base.index);
    if stop_before <= snapshot {
        return Err(CannotCut::InSnapshot { stop_before, snapshot });
    }
    let last = found.last().index;
    if stop_before > last {
        return Err(CannotCut::BeyondTheEnd { stop_before, last });
    }
    let kept = log.entries.iter().rev().find(|entry| entry.index < stop_before);
    let end: Position = kept.map_or(log.base, Entry::position);
    let hard_state = HardState { commit: log.hard_state.commit.min(end.index), ..log.hard_state };
    let write = GroupWrite { group, hard_state, last: end, run: None, records: Vec::new(), reset: None };
    let dropped = found.records.range(stop_before..).map(|(index, record)| (*index, record.clone()));
    Ok(Cut { write, dropped: dropped.collect(), commit: log.hard_state.commit })
}
