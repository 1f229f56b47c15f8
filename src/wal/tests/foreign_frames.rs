//! Frames that this build's writer does not write yet, or never will: resets, and those of a newer build.

use super::*;
use crate::limits::{LOG_INDEX_MAX, TERM_MAX};
use wal_format::{GroupTail, Reset};

impl Rig {
    /// Puts a frame made by hand where the next one goes. Afterwards only `reopen` may write.
    fn put_by_hand(&mut self, kind: FrameKind, build: impl FnOnce(&mut FrameWriter)) {
        let next = self.recover().next.expect("there is a segment");
        let place = Place {
            segment: next.segment.0,
            salt: next.salt,
            sequence: next.sequence,
            previous_hash: next.previous_hash,
        };
        let mut frame = FrameWriter::new(kind, place, 0);
        build(&mut frame);
        let (frame, _) = frame.finish();
        self.put(&WalWrite { segment: next.segment, offset: next.offset, frame: Bytes::from(frame) });
    }

    /// The log of the one group begins anew above `snapshot`, and ends at `last`.
    fn put_reset(&mut self, kind: wal_format::RunKind, snapshot: (u64, u64), last: (u64, u64)) {
        self.put_by_hand(FrameKind::Reset, |frame| frame.reset(&reset(kind, snapshot, last)));
    }
}

fn tail(group: GroupId, index: u64, term: u64) -> GroupTail {
    GroupTail {
        group: group.0,
        hard_state: wal_format::HardState { term, vote: 3, commit: 0 },
        last: wal_format::Position { index, term },
    }
}

fn reset(kind: wal_format::RunKind, snapshot: (u64, u64), last: (u64, u64)) -> Reset {
    Reset {
        tail: tail(ONE, last.0, last.1),
        kind,
        snapshot: wal_format::Position { index: snapshot.0, term: snapshot.1 },
    }
}

#[test]
fn a_reset_starts_the_log_anew_at_the_snapshot() {
    let mut rig = Rig::opened();
    rig.append(ONE, 0, &[1, 1, 1], 50);
    rig.snapshots.insert(ONE, vec![position(20, 2)]);
    rig.put_reset(wal_format::RunKind::Append, (20, 2), (20, 2));
    rig.reopen();
    let truth = rig.truth.get_mut(&ONE).unwrap();
    truth.hard_state.term = Term(2);
    let run = Some((RunKind::Append, position(20, 2), [2, 2].as_slice(), 50));
    let mut write = write_of(ONE, truth, run);
    write.last = position(22, 2);
    rig.write(&[write]);
    rig.reopen();
    let found = rig.recover();
    let group = &found.groups[&ONE];
    assert_eq!((group.log.base, group.snapshot), (position(20, 2), position(20, 2)));
    assert_eq!((group.log.entries.len(), group.last()), (2, position(22, 2)));
    assert_eq!(group.log.islands, []);
}

/// Seed 11144043672550: the only snapshot rots, what it held is filled in from other members, and the next start says again
/// that it is missing.
#[test]
fn what_fills_the_place_of_a_lost_snapshot_is_found_again() {
    let mut rig = Rig::opened();
    rig.snapshots.insert(ONE, vec![position(3, 1)]);
    rig.put_reset(wal_format::RunKind::Append, (3, 1), (3, 1));
    rig.reopen();
    let truth = rig.truth.get_mut(&ONE).unwrap();
    truth.hard_state.term = Term(1);
    let above = Some((RunKind::Append, position(3, 1), [1, 1].as_slice(), 50));
    let write = GroupWrite { last: position(5, 1), ..write_of(ONE, truth, above) };
    rig.write(&[write]);
    rig.snapshots.clear();
    let lost = &rig.recover().groups[&ONE];
    assert_eq!((lost.log.base, lost.log.islands.len()), (Position::START, 1));
    assert!(lost.log.is_reset_owed, "the log on disk still begins behind what was lost");
    rig.put_reset(wal_format::RunKind::Fill, (0, 0), (5, 1));
    rig.reopen();
    let truth = rig.truth.get_mut(&ONE).unwrap();
    truth.hard_state.term = Term(1);
    let fill = Some((RunKind::Fill, Position::START, [1, 1, 1].as_slice(), 50));
    let write = GroupWrite { last: position(5, 1), ..write_of(ONE, truth, fill) };
    rig.write(&[write]);
    let found = &rig.recover().groups[&ONE];
    assert_eq!((found.log.base, found.log.islands.len()), (Position::START, 0));
    assert_eq!((found.log.entries.len(), found.last()), (5, position(5, 1)));
    assert!(!found.log.is_reset_owed);
}

#[test]
fn a_snapshot_into_a_hole_keeps_what_lies_above_it() {
    for (snapshot, islands_count) in [(5, 1), (6, 0), (7, 0)] {
        let mut rig = Rig::opened();
        for index in 0..3 {
            rig.append(ONE, index * 3, &[1, 1, 1], 50);
        }
        rig.flip(2, 100);
        rig.snapshots.insert(ONE, vec![position(snapshot, 1)]);
        rig.put_reset(wal_format::RunKind::Fill, (snapshot, 1), (9, 1));
        rig.reopen();
        let found = rig.recover();
        let group = &found.groups[&ONE];
        assert_eq!((group.log.base, group.last()), (position(snapshot, 1), position(9, 1)));
        assert_eq!(group.log.islands.len(), islands_count);
        let above = 9 - snapshot.max(6);
        assert_eq!(group.records.len() as u64, above, "everything intact above {snapshot} is there");
    }
}

#[test]
fn what_a_newer_build_wrote_is_refused_and_not_taken_for_damage() {
    let mut rig = Rig::opened();
    let mut newer = record(ONE, 1, 1, 10).to_vec();
    newer[12] = 7;
    let checksum = crc32c::crc32c(&newer[4..]).to_le_bytes();
    newer[..4].copy_from_slice(&checksum);
    let run = wal_format::Run {
        kind: wal_format::RunKind::Append,
        previous: wal_format::Position::default(),
        first: 1,
        last: 1,
    };
    rig.put_by_hand(FrameKind::Batch, |frame| {
        frame.batch(&tail(ONE, 1, 1), Some(&run), core::iter::once(newer.as_slice()));
    });
    let refused = rig.try_recover().unwrap_err();
    let offset = rig.last_write.as_ref().unwrap().offset;
    assert!(matches!(refused, RecoveryFailed::Newer { offset: found, .. } if found == offset), "{refused}");
}

/// Found by a property: a term at the end of 64 bits, under a checksum that holds, was recovered, and the core counted on
/// from it.
#[test]
fn an_index_or_term_that_no_log_can_have_reached_is_not_believed() {
    let largest = u64::MAX;
    for (index, term) in [(3, largest), (largest, 1), (3, TERM_MAX + 1), (LOG_INDEX_MAX + 1, 1)] {
        let mut rig = Rig::opened();
        rig.append(ONE, 0, &[1, 1, 1], 50);
        rig.put_by_hand(FrameKind::Seal, |frame| frame.repeat(&[tail(ONE, index, term), tail(TWO, 0, 0)]));
        let found = rig.recover();
        let group = &found.groups[&ONE];
        assert!(group.counts_for_nothing, "whose frame it was, and what it said, nobody knows");
        assert_eq!(group.log.hard_state.term, Term(1), "({index}, {term}) is not believed");
        assert_eq!(group.last(), position(3, 1), "({index}, {term}) is not believed");
    }
}
