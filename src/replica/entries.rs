//! The encoded records of a replica's log entries, by index: what raft numbers, this holds.
//!
//! A record is encoded once, by the leader that made the entry, and shared from then on: the same bytes go to the
//! write-ahead log, to every peer and to apply (DESIGN §1). Always: a record stands at the index it names, and the
//! replica asks only for indices that raft said are in the log. Left out: which entry wins a conflict; raft says so.

use crate::ids::{GroupId, LogIndex};
use crate::raft::{Message, Position};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// Records by log index. Holes are possible: a damaged log keeps what lies above them (DESIGN §8).
#[derive(Debug)]
pub(super) struct Entries {
    /// The record at `front + i` is `records[i]`; an empty one is a hole.
    records: VecDeque<Bytes>,
    /// The lowest index of the log: just above its base.
    front: u64,
}

impl Entries {
    /// Takes over what recovery read from disk, of a log that begins just above `base`.
    pub(super) fn recovered(base: LogIndex, records: BTreeMap<LogIndex, Bytes>) -> Self {
        let mut entries = Self { records: VecDeque::new(), front: base.next().0 };
        for (index, record) in records {
            entries.put(index, record);
        }
        entries
    }

    /// Stores the record of `index`, in place of any that stood there.
    pub(super) fn put(&mut self, index: LogIndex, record: Bytes) {
        assert!(index.0 >= self.front, "nothing of the log lies at or below its base");
        let offset = usize::try_from(index.0 - self.front).expect("a log in memory is shorter than memory");
        while self.records.len() < offset {
            self.records.push_back(Bytes::new());
        }
        if let Some(slot) = self.records.get_mut(offset) {
            *slot = record;
        } else {
            self.records.push_back(record);
        }
    }

    /// The record at `index`, if held.
    pub(super) fn get(&self, index: LogIndex) -> Option<&Bytes> {
        let offset = usize::try_from(index.0.checked_sub(self.front)?).ok()?;
        self.records.get(offset).filter(|record| !record.is_empty())
    }

    /// Drops every record at or above `from`.
    pub(super) fn supersede(&mut self, from: LogIndex) {
        let kept = usize::try_from(from.0.saturating_sub(self.front)).unwrap_or(usize::MAX);
        self.records.truncate(kept);
    }

    /// The records `first..=last`, shared.
    pub(super) fn run(&self, first: LogIndex, last: LogIndex) -> Vec<Bytes> {
        (first.0..=last.0)
            .map(|index| self.get(LogIndex(index)).expect("raft asks only for entries of the log").clone())
            .collect()
    }

    /// The records behind `entries` of a message, after `previous`.
    pub(super) fn after(&self, previous: Position, count: usize) -> Vec<Bytes> {
        let Ok(count) = u64::try_from(count) else {
            return Vec::new();
        };
        self.run(previous.index.next(), LogIndex(previous.index.0 + count))
    }
}

/// Whether the records behind a message are whole, are the entries that it numbers and nothing more, and fit in one write.
pub(super) fn carries_its_entries(
    group: GroupId,
    message: &Message,
    records: &[Bytes],
    bytes_max: usize,
) -> bool {
    let (_, entries) = message.carried();
    entries.len() == records.len()
        && entries.iter().zip(records).all(|(entry, record)| {
            wal_format::decode_entry(record).is_ok_and(|(header, body)| {
                let is_all = record.len() == wal_format::entry_bytes_count(body.len());
                let is_it =
                    (header.group, header.index, header.term) == (group.0, entry.index.0, entry.term.0);
                is_it && is_all && record.len() <= bytes_max
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn records_stand_at_their_index_until_superseded() {
        let mut entries = Entries::recovered(LogIndex(0), BTreeMap::new());
        for (index, text) in [(1, "a"), (2, "b"), (3, "c")] {
            entries.put(LogIndex(index), record(text));
        }
        assert_eq!(entries.run(LogIndex(2), LogIndex(3)), vec![record("b"), record("c")]);
        entries.supersede(LogIndex(2));
        assert_eq!(entries.get(LogIndex(2)), None);
        entries.put(LogIndex(2), record("B"));
        assert_eq!(entries.after(Position::START, 2), vec![record("a"), record("B")]);
    }

    #[test]
    fn a_hole_is_held_open_and_filled_in_place() {
        let found = BTreeMap::from([(LogIndex(4), record("d"))]);
        let mut entries = Entries::recovered(LogIndex(0), found);
        assert_eq!(entries.get(LogIndex(2)), None);
        entries.put(LogIndex(1), record("a"));
        entries.put(LogIndex(2), record("b"));
        entries.put(LogIndex(3), record("c"));
        assert_eq!(entries.run(LogIndex(1), LogIndex(4)).len(), 4);
    }
}
