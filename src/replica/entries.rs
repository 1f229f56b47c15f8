//! The encoded records of a replica's log entries, by index: what raft numbers, this holds.
//!
//! A record is encoded once, by the leader that made the entry, and shared from then on: the same bytes go to the
//! write-ahead log, to every peer and to apply (DESIGN §1). Always: a record stands at the index it names, and the
//! replica asks only for indices that raft said are in the log. What a leader encodes lies side by side, because records
//! come and go in order, and a place of its own for each costs an eighth more. Left out: which entry wins a conflict;
//! raft says so.

use crate::deque::ChunkedDeque;
use crate::ids::{GroupId, LogIndex};
use crate::limits::RECORDS_BLOCK_BYTES;
use crate::raft::{Message, Position};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use wal_format::EntryHeader;

/// Records by log index. Holes are possible: a damaged log keeps what lies above them (DESIGN §8).
#[derive(Debug)]
pub(super) struct Entries {
    /// The record at `front + i` is `records[i]`; an empty one is a hole.
    records: ChunkedDeque<Bytes>,
    /// The lowest index of the log: just above its base.
    front: u64,
    /// Bytes of all records.
    bytes: u64,
    /// Where the next records are encoded to: what is left of a block.
    block: BytesMut,
    /// A record on its way there; empty between calls.
    scratch: Vec<u8>,
}

impl Entries {
    /// Takes over what recovery read from disk, of a log that begins just above `base`.
    pub(super) fn recovered(base: LogIndex, records: BTreeMap<LogIndex, Bytes>) -> Self {
        let mut entries = Self {
            records: ChunkedDeque::new(),
            front: base.next().0,
            bytes: 0,
            block: BytesMut::new(),
            scratch: Vec::new(),
        };
        for (index, record) in records {
            entries.put(index, record);
        }
        entries
    }

    /// Encodes the record of an entry. Small ones share blocks of memory; a block is freed with the last of its records.
    pub(super) fn encode(&mut self, header: &EntryHeader, body: &[u8]) -> Bytes {
        let bytes_count = wal_format::entry_bytes_count(body.len());
        // So that the rest of a block, which is given up, is an eighth at the most.
        if bytes_count > RECORDS_BLOCK_BYTES / 8 {
            let mut record = Vec::with_capacity(bytes_count);
            wal_format::encode_entry(header, body, &mut record);
            return Bytes::from(record);
        }
        if self.block.capacity() < bytes_count {
            self.block = BytesMut::with_capacity(RECORDS_BLOCK_BYTES);
        }
        wal_format::encode_entry(header, body, &mut self.scratch);
        self.block.extend_from_slice(&self.scratch);
        self.scratch.clear();
        self.block.split().freeze()
    }

    /// Stores the record of `index`, in place of any that stood there.
    pub(super) fn put(&mut self, index: LogIndex, record: Bytes) {
        assert!(index.0 >= self.front, "nothing of the log lies at or below its base");
        let offset = usize::try_from(index.0 - self.front).expect("a log in memory is shorter than memory");
        while self.records.len() < offset {
            self.records.push_back(Bytes::new());
        }
        self.bytes += record.len() as u64;
        if let Some(slot) = self.records.get_mut(offset) {
            self.bytes -= slot.len() as u64;
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
        let gone = self.records.range(kept..usize::MAX);
        self.bytes -= gone.map(|record| record.len() as u64).sum::<u64>();
        self.records.truncate(kept);
    }

    /// The log begins just above `base` now: drops every record at or below it.
    pub(super) fn trim(&mut self, base: LogIndex) {
        while self.front <= base.0 {
            let Some(record) = self.records.pop_front() else {
                self.front = base.0 + 1;
                break;
            };
            self.bytes -= record.len() as u64;
            self.front += 1;
        }
    }

    /// Bytes of all records.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The highest index above which there are at least `entries_min` records, or records of `bytes_min` bytes; just below
    /// the first if there are never so many.
    pub(super) fn last_within(&self, entries_min: u64, bytes_min: u64) -> LogIndex {
        let (mut entries, mut bytes) = (0, 0);
        let enough = self.records.iter().rev().position(|record| {
            entries += 1;
            bytes += record.len() as u64;
            entries >= entries_min || bytes >= bytes_min
        });
        let kept = enough.map_or(self.records.len(), |at| at + 1) as u64;
        LogIndex(self.front + self.records.len() as u64 - kept - 1)
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

/// Whether the records behind a message are whole, are the entries that it numbers and nothing more, and fit in one
/// write; or are the one chunk that it names.
pub(super) fn carries_its_entries(
    group: GroupId,
    message: &Message,
    records: &[Bytes],
    bytes_max: usize,
) -> bool {
    if let Message::SnapshotChunk(chunk) = message {
        return matches!(records, [bytes] if bytes.len() as u64 == u64::from(chunk.bytes_count));
    }
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
    fn what_is_trimmed_is_gone_and_the_rest_stays_at_its_index() {
        let mut entries = Entries::recovered(LogIndex(0), BTreeMap::new());
        for index in 1..=10 {
            entries.put(LogIndex(index), record("0123456789"));
        }
        assert_eq!(entries.last_within(3, 1_000), LogIndex(7), "three are kept");
        assert_eq!(entries.last_within(9, 25), LogIndex(7), "25 bytes are in three");
        assert_eq!(entries.last_within(20, 1_000), LogIndex(0), "there are never so many");
        entries.trim(LogIndex(4));
        assert_eq!((entries.get(LogIndex(4)), entries.bytes()), (None, 60));
        assert_eq!(entries.run(LogIndex(5), LogIndex(10)).len(), 6);
        entries.trim(LogIndex(20));
        entries.put(LogIndex(21), record("a"));
        assert_eq!((entries.get(LogIndex(10)), entries.bytes()), (None, 1));
        assert_eq!(entries.get(LogIndex(21)), Some(&record("a")));
    }

    #[test]
    fn small_records_lie_side_by_side_and_large_ones_alone() {
        let mut entries = Entries::recovered(LogIndex(0), BTreeMap::new());
        let mut encode = |index: u64, body: &[u8]| {
            let header = EntryHeader {
                group: 1,
                term: 1,
                index,
                kind: wal_format::EntryKind::Command,
                keyspace: 0,
                session: 0,
                sequence: 0,
                low_water: 0,
                principal: 0,
                auth_revision: 0,
            };
            let record = entries.encode(&header, body);
            let (decoded, found) = wal_format::decode_entry(&record).expect("it was encoded");
            assert_eq!((decoded, found), (header, body));
            assert_eq!(record.len(), wal_format::entry_bytes_count(body.len()), "nothing lies behind it");
            record
        };
        let (first, second) = (encode(1, b"one"), encode(2, b"two"));
        assert_eq!(first.as_ptr().wrapping_add(first.len()), second.as_ptr());
        let large = encode(3, &vec![7; RECORDS_BLOCK_BYTES]);
        let third = encode(4, b"four");
        assert_eq!(second.as_ptr().wrapping_add(second.len()), third.as_ptr());
        assert!(large.try_into_mut().is_ok(), "it is alone in its memory");
        for index in 5..5_000 {
            encode(index, &index.to_le_bytes());
        }
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
