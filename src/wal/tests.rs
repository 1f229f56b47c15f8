//! Stories of crashes and rot: what was written, what became of the disk, what recovery makes of it.

use super::*;
use crate::ids::{BootMicros, GroupId, LogIndex, MemberId, SegmentNumber, Term};
use crate::property;
use crate::raft::{HardState, Position, Run, RunKind};
use bytes::Bytes;
use std::collections::BTreeMap;
use wal_format::{BLOCK_BYTES, EntryHeader, EntryKind, FrameKind, FrameWriter, Place, encode_entry};

mod foreign_frames;
mod frames_astray;
mod lost_frames;
#[cfg(feature = "planted")]
mod planted_bugs;
mod properties;

const OPTIONS: WalOptions = WalOptions { segment_bytes: 64 * 1_024, shard: 0 };
const IDENTITY: Identity = Identity { directory: 77, cluster: 99, member: 1, shard: 0 };
const SECTOR_BYTES: usize = 512;
const ONE: GroupId = GroupId(1);
const TWO: GroupId = GroupId(2);

/// What a group's log truly is.
#[derive(Clone, Debug, Default, PartialEq)]
struct Truth {
    hard_state: HardState,
    /// Terms of the entries 1, 2, …
    terms: Vec<u64>,
}

/// A log, its disk and the truth about it.
struct Rig {
    /// What can be restored.
    snapshots: BTreeMap<GroupId, Vec<Position>>,
    wal: Wal,
    disk: BTreeMap<u64, (u64, Vec<u8>)>,
    truth: BTreeMap<GroupId, Truth>,
    now: BootMicros,
    boot: u64,
    last_write: Option<WalWrite>,
    frames: Vec<(u64, u64, usize)>,
}

fn position(index: u64, term: u64) -> Position {
    Position { index: LogIndex(index), term: Term(term) }
}

fn record(group: GroupId, index: u64, term: u64, size: usize) -> Bytes {
    let header = EntryHeader {
        group: group.0,
        term,
        index,
        kind: EntryKind::Command,
        keyspace: 1,
        session: 2,
        sequence: 3,
        low_water: 1,
        principal: 0,
        auth_revision: 0,
    };
    let mut bytes = Vec::new();
    let body: Vec<u8> = (0..size).map(|at| u8::try_from((at + size) % 251).unwrap()).collect();
    encode_entry(&header, &body, &mut bytes);
    Bytes::from(bytes)
}

impl Truth {
    fn last(&self) -> Position {
        self.at(self.terms.len() as u64)
    }

    fn at(&self, index: u64) -> Position {
        let before = usize::try_from(index).unwrap();
        let term = before.checked_sub(1).map_or(0, |at| self.terms[at]);
        position(index, term)
    }
}

/// A run of entries as a group writes it; `last` is the end of its log for votes afterwards.
fn write_of(group: GroupId, truth: &Truth, run: Option<(RunKind, Position, &[u64], usize)>) -> GroupWrite {
    let (run, records) = match run {
        None => (None, Vec::new()),
        Some((kind, previous, terms, size)) => {
            let first = previous.index.next();
            let run = Run { kind, previous, first, last: LogIndex(previous.index.0 + terms.len() as u64) };
            let records = terms.iter().zip(first.0..);
            let records = records.map(|(term, index)| record(group, index, *term, size)).collect();
            (Some(run), records)
        }
    };
    GroupWrite { group, hard_state: truth.hard_state, last: truth.last(), run, records, reset: None }
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self {
            snapshots: BTreeMap::new(),
            wal: Wal::create(OPTIONS, IDENTITY, 1),
            disk: BTreeMap::new(),
            truth: BTreeMap::new(),
            now: BootMicros(1),
            boot: 1,
            last_write: None,
            frames: Vec::new(),
        };
        let openings = [ONE, TWO].map(|group| GroupOpening {
            group,
            hard_state: HardState::default(),
            last: Position::START,
            snapshot: Position::START,
            configuration: Configuration::default(),
        });
        rig.truth = [ONE, TWO].map(|group| (group, Truth::default())).into();
        rig.wal.set_opening(IDENTITY, openings.into());
        rig
    }

    /// A rig whose first opening is durable.
    fn opened() -> Self {
        let mut rig = Self::new();
        rig.write(&[]);
        rig
    }

    fn make_segments(&mut self) {
        while let Some(WantedSegment { segment: number, salt, .. }) = self.wal.wants_segment() {
            let bytes = vec![0; usize::try_from(OPTIONS.segment_bytes).unwrap()];
            self.disk.insert(number.0, (salt, bytes));
            self.wal.segment_ready(number);
        }
    }

    fn put(&mut self, write: &WalWrite) {
        let at = usize::try_from(write.offset).unwrap();
        let (_, bytes) = self.disk.get_mut(&write.segment.0).unwrap();
        bytes[at..at + write.frame.len()].copy_from_slice(&write.frame);
        self.frames.push((write.segment.0, write.offset, write.frame.len()));
        self.last_write = Some(write.clone());
    }

    fn write(&mut self, groups: &[GroupWrite]) {
        self.make_segments();
        self.now = self.now.after(100);
        let write = self.wal.write(self.now, groups).expect("there is room");
        assert!(self.wal.write(self.now, groups).is_none(), "one write is in flight at most");
        self.put(&write);
        self.wal.written(self.now);
    }

    fn seal(&mut self) {
        self.make_segments();
        self.now = self.wal.seal_deadline().expect("a frame is unsealed");
        let write = self.wal.seal(self.now).expect("there is room");
        self.put(&write);
        self.wal.written(self.now);
    }

    /// Appends entries behind the first `keep` of the group's log, and makes that durable.
    fn append(&mut self, group: GroupId, keep: usize, terms: &[u64], size: usize) {
        let truth = self.truth.get_mut(&group).unwrap();
        truth.terms.truncate(keep);
        let previous = truth.last();
        truth.terms.extend(terms);
        truth.hard_state =
            HardState { term: Term(*terms.last().unwrap()), vote: Some(MemberId(3)), commit: previous.index };
        let run = Some((RunKind::Append, previous, terms, size));
        let write = write_of(group, truth, run);
        self.write(&[write]);
    }

    /// Writes entries of the truth into a hole.
    fn fill(&mut self, group: GroupId, first: u64, last: u64) {
        let truth = &self.truth[&group];
        let range = usize::try_from(first - 1).unwrap()..usize::try_from(last).unwrap();
        let run = Some((RunKind::Fill, truth.at(first - 1), &truth.terms[range], 50));
        let write = write_of(group, truth, run);
        self.write(&[write]);
    }

    fn vote(&mut self, group: GroupId, term: u64, member: u64) {
        let truth = self.truth.get_mut(&group).unwrap();
        truth.hard_state.term = Term(term);
        truth.hard_state.vote = Some(MemberId(member));
        let write = write_of(group, truth, None);
        self.write(&[write]);
    }

    fn try_recover(&self) -> Result<Recovered, RecoveryFailed> {
        self.try_recover_from(&self.shared())
    }

    /// The segments on the disk, as what owns itself.
    fn shared(&self) -> Vec<Bytes> {
        self.disk.values().map(|(_, bytes)| Bytes::copy_from_slice(bytes)).collect()
    }

    fn try_recover_from(&self, shared: &[Bytes]) -> Result<Recovered, RecoveryFailed> {
        let segments: Vec<_> = self
            .disk
            .iter()
            .enumerate()
            .map(|(place, (number, (salt, bytes)))| FoundSegment {
                number: SegmentNumber(*number),
                salt: *salt,
                bytes: shared.get(place).map_or(bytes.as_slice(), |shared| shared),
                shared: shared.get(place),
            })
            .collect();
        recover(OPTIONS, &segments, &self.snapshots)
    }

    fn recover(&self) -> Recovered {
        self.try_recover().expect("the log can be used")
    }

    /// Crashes, recovers, and makes the opening of the new boot durable.
    fn reopen(&mut self) {
        let recovered = self.recover();
        let copied = self.try_recover_from(&[]).expect("the log can be used");
        assert_eq!(recovered, copied, "records that share bytes are the same records");
        self.boot += 1;
        self.wal = Wal::resume(OPTIONS, &recovered, self.boot);
        self.write(&[]);
    }

    fn flip(&mut self, frame: usize, byte: usize) {
        let (segment, offset, _) = self.frames[frame];
        let at = usize::try_from(offset).unwrap() + byte;
        self.disk.get_mut(&segment).unwrap().1[at] ^= 1;
    }

    fn assert_whole(&self, found: &Recovered) {
        for (group, truth) in &self.truth {
            assert_is_whole(truth, &found.groups[group]);
        }
    }
}

fn assert_is_whole(truth: &Truth, found: &RecoveredGroup) {
    let terms: Vec<u64> = found.log.entries.iter().map(|entry| entry.term.0).collect();
    assert_eq!(terms, truth.terms);
    assert_eq!(found.log.hard_state, truth.hard_state);
    assert!(found.log.islands.is_empty(), "there is no hole");
    assert!(!found.counts_for_nothing, "nothing is in doubt");
    assert_records_are_true(truth, found);
}

/// Whatever was found is true, wherever it stands.
fn assert_records_are_true(truth: &Truth, found: &RecoveredGroup) {
    let islands = found.log.islands.iter().flat_map(|island| &island.entries);
    let entries: Vec<_> = found.log.entries.iter().chain(islands).collect();
    assert_eq!(entries.len(), found.records.len(), "every entry has its record");
    for entry in entries {
        assert_eq!(entry.position(), truth.at(entry.index.0), "an entry found is true");
        let (header, _) = wal_format::decode_entry(&found.records[&entry.index]).unwrap();
        assert_eq!((header.index, header.term), (entry.index.0, entry.term.0));
    }
}

/// A log of both groups in several frames, with votes, entries of other terms superseded, and a seal at the
/// end.
fn eventful() -> Rig {
    let mut rig = Rig::opened();
    rig.append(ONE, 0, &[1, 1, 1], 50);
    rig.append(TWO, 0, &[2], 5_000);
    rig.vote(ONE, 3, 2);
    rig.append(ONE, 2, &[3, 3], 50);
    rig.append(TWO, 1, &[2, 2], 10);
    rig
}

fn seeded(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let mixed = *state ^ (*state >> 29);
    mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
}

#[test]
fn an_empty_directory_is_an_empty_log() {
    assert_eq!(recover(OPTIONS, &[], &BTreeMap::new()), Ok(Recovered::default()));
    let mut rig = Rig::new();
    rig.make_segments();
    let found = rig.recover();
    assert_eq!((found.identity, found.groups.len()), (None, 0));
    assert_eq!(found.next.unwrap().offset, 0);
}

#[test]
fn what_is_written_reads_back_over_many_segments_and_boots() {
    let mut rig = Rig::opened();
    let mut state = 5;
    for term in 1..60 {
        let kept = rig.truth[&ONE].terms.len();
        let keep = kept - usize::try_from(seeded(&mut state)).unwrap() % (kept.min(2) + 1);
        let size = usize::try_from(seeded(&mut state) % 9_000).unwrap();
        rig.append(ONE, keep, &[term, term], size);
        if term % 3 == 0 {
            rig.append(TWO, 0, &[term], 10);
        }
        if term % 5 == 0 {
            rig.seal();
        }
        if term % 7 == 0 {
            rig.reopen();
        }
        let found = rig.recover();
        rig.assert_whole(&found);
        assert_eq!(found.identity, Some(IDENTITY));
        assert_eq!(found.notes, []);
    }
    assert!(rig.disk.len() > 5, "the log went over several segments");
}

#[test]
fn a_write_waits_for_its_segment() {
    let mut wal = Wal::create(OPTIONS, IDENTITY, 1);
    assert!(wal.write(BootMicros(1), &[]).is_none(), "no segment is there yet");
    let WantedSegment { segment: number, .. } = wal.wants_segment().unwrap();
    assert_eq!(wal.wants_segment(), None, "a segment is asked for once");
    wal.segment_ready(number);
    let write = wal.write(BootMicros(1), &[]).unwrap();
    assert_eq!((write.segment, write.offset), (number, 0));
    assert!(wal.wants_segment().is_some(), "one is made ahead of need");
}

#[test]
fn a_seal_is_written_once_after_an_idle_while() {
    let mut rig = Rig::opened();
    rig.append(ONE, 0, &[1], 10);
    let deadline = rig.wal.seal_deadline().unwrap();
    assert_eq!(deadline, rig.now.after(crate::limits::WAL_SEAL_MICROS));
    assert!(rig.wal.seal(BootMicros(deadline.0 - 1)).is_none(), "it is too early");
    rig.seal();
    assert_eq!(rig.wal.seal_deadline(), None);
    assert!(rig.wal.seal(deadline.after(1_000_000)).is_none(), "a seal is not sealed");
    rig.append(ONE, 1, &[1], 10);
    assert!(rig.wal.seal_deadline().is_some(), "a batch wants a new seal");
}

#[test]
fn a_write_too_large_for_one_frame_is_split_and_each_part_is_sound() {
    for kind in [RunKind::Append, RunKind::Fill] {
        let mut rig = Rig::opened();
        let terms: Vec<u64> = (1..200).collect();
        let mut truth = Truth::default();
        truth.terms.clone_from(&terms);
        let whole = write_of(ONE, &truth, Some((kind, Position::START, &terms, 1_500)));
        let records = whole.records.clone();
        let parts = whole.split(rig.wal.records_bytes_max());
        assert!(parts.len() > 4);
        for part in &parts {
            rig.write(core::slice::from_ref(part));
            let found = rig.recover();
            assert_eq!(found.groups[&ONE].last(), part.last);
            assert_eq!(found.groups[&ONE].log.entries.last().unwrap().index, part.run.unwrap().last);
        }
        rig.truth.insert(ONE, truth);
        rig.assert_whole(&rig.recover());
        let parts = parts.into_iter().flat_map(|part| part.records);
        assert_eq!(parts.collect::<Vec<_>>(), records);
    }
}

/// Calls `check` with the disk as each combination of landed sectors of the last write leaves it.
fn with_every_tear(rig: &mut Rig, before: &BTreeMap<u64, (u64, Vec<u8>)>, mut check: impl FnMut(&mut Rig)) {
    let write = rig.last_write.clone().unwrap();
    let sectors = write.frame.len() / SECTOR_BYTES;
    let combinations = 1_u32 << sectors.min(8);
    for landed in 0..combinations - 1 {
        rig.disk.clone_from(before);
        let at = usize::try_from(write.offset).unwrap();
        let (_, bytes) = rig.disk.get_mut(&write.segment.0).unwrap();
        for sector in (0..sectors).filter(|sector| landed & (1 << (sector % 8)) != 0) {
            let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
            bytes[at + range.start..at + range.end].copy_from_slice(&write.frame[range]);
        }
        check(rig);
    }
}

#[test]
fn a_torn_tail_is_dropped_however_it_was_torn_and_so_is_a_torn_opening_over_it() {
    let mut rig = eventful();
    let (before, truth) = (rig.disk.clone(), rig.truth.clone());
    rig.append(ONE, 3, &[4, 4], 2_500);
    let last = rig.last_write.clone().unwrap();
    rig.truth.clone_from(&truth);
    let mut torn_disks = Vec::new();
    with_every_tear(&mut rig, &before, |rig| {
        let found = rig.recover();
        // A tear that left out nothing but zeros left a whole frame.
        if found.groups[&ONE].log.entries.len() == 3 + 2 {
            return;
        }
        rig.assert_whole(&found);
        assert_eq!(found.next.unwrap().offset, last.offset, "the next frame goes over the dropped one");
        torn_disks.push(rig.disk.clone());
    });
    assert!(torn_disks.len() > 100);
    for torn in torn_disks.iter().step_by(17) {
        rig.disk.clone_from(torn);
        rig.reopen();
        let opening = rig.last_write.clone().unwrap();
        assert_eq!(opening.offset, last.offset);
        let found = rig.recover();
        rig.assert_whole(&found);
        with_every_tear(&mut rig, torn, |rig| {
            let found = rig.recover();
            rig.assert_whole(&found);
            let end = last.offset + opening.frame.len() as u64;
            let is_whole = found.next.unwrap().offset == end;
            assert!(is_whole || found.next.unwrap().offset == last.offset);
        });
    }
}

#[test]
fn a_crash_in_the_very_first_write_leaves_an_empty_log() {
    let mut rig = Rig::new();
    rig.make_segments();
    let before = rig.disk.clone();
    rig.write(&[]);
    let mut torn_count = 0;
    with_every_tear(&mut rig, &before, |rig| {
        let found = rig.recover();
        if found.identity.is_none() {
            torn_count += 1;
            assert_eq!((found.groups.len(), found.next.unwrap().offset), (0, 0));
        }
    });
    assert!(torn_count > 100);
}

#[test]
fn a_torn_first_write_of_a_later_segment_is_dropped_and_written_over() {
    let mut rig = Rig::opened();
    let mut before = (rig.disk.clone(), rig.truth.clone());
    while rig.last_write.as_ref().unwrap().segment == SegmentNumber(1) {
        rig.make_segments();
        before = (rig.disk.clone(), rig.truth.clone());
        let kept = rig.truth[&ONE].terms.len();
        rig.append(ONE, kept, &[1], 6_000);
    }
    (rig.disk, rig.truth) = before;
    let torn = rig.last_write.clone().unwrap();
    rig.disk.get_mut(&2).unwrap().1[..SECTOR_BYTES].copy_from_slice(&torn.frame[..SECTOR_BYTES]);
    let found = rig.recover();
    rig.assert_whole(&found);
    let next = found.next.unwrap();
    assert_eq!((next.segment, next.offset), (SegmentNumber(2), 0));
    rig.reopen();
    let found = rig.recover();
    rig.assert_whole(&found);
}

#[test]
fn one_flipped_byte_anywhere_is_found_and_named_and_never_shortens_the_log_in_silence() {
    let mut rig = eventful();
    rig.seal();
    rig.reopen();
    rig.append(ONE, 4, &[5], 50);
    rig.seal();
    let (last_segment, last_offset, _) = *rig.frames.last().unwrap();
    let whole = rig.disk.clone();
    let frames = rig.frames.clone();
    for (segment, offset, count) in frames {
        let is_last = (segment, offset) == (last_segment, last_offset);
        for byte in 0..count {
            let at = usize::try_from(offset).unwrap() + byte;
            let bit = 1 << (byte % 8);
            rig.disk.get_mut(&segment).unwrap().1[at] ^= bit;
            assert_flip_is_harmless(&rig, is_last);
            rig.disk.get_mut(&segment).unwrap().1[at] ^= bit;
        }
    }
    assert_eq!(rig.disk, whole);
}

fn assert_flip_is_harmless(rig: &Rig, is_last: bool) {
    let found = rig.recover();
    if is_last {
        // The last frame is a seal: dropping it loses nothing.
        rig.assert_whole(&found);
    } else {
        assert!(found.notes.iter().any(|note| matches!(note, Note::Corruption { .. })));
    }
    for (group, truth) in &rig.truth {
        let found = &found.groups[group];
        assert!(!found.counts_for_nothing, "later frames name everything");
        assert_eq!(found.log.hard_state, truth.hard_state, "no vote is lost");
        assert_eq!(found.last(), truth.last(), "the member votes as if its log were whole");
        let is_short = found.records.len() < truth.terms.len();
        assert!(!is_short || !found.log.islands.is_empty(), "what is missing is a hole");
        let islands = found.log.islands.iter().flat_map(|island| &island.entries);
        for entry in islands {
            assert_eq!(entry.position(), truth.at(entry.index.0), "an island is true");
        }
    }
}

#[test]
fn rot_in_a_sealed_tail_is_a_hole_at_the_end() {
    let mut rig = Rig::opened();
    rig.append(ONE, 0, &[1, 1], 50);
    rig.append(ONE, 2, &[2, 2], 50);
    rig.seal();
    rig.flip(2, 1_000);
    let found = rig.recover();
    let log = &found.groups[&ONE].log;
    assert_eq!(log.entries.len(), 2);
    assert_eq!(log.islands.len(), 1);
    assert_eq!(log.islands[0].predecessor, position(4, 2));
    assert_eq!(log.islands[0].entries, []);
    assert_is_whole(&rig.truth[&TWO], &found.groups[&TWO]);
}

#[test]
fn a_fill_closes_a_hole_and_supersedes_nothing_above_it() {
    let mut rig = Rig::opened();
    for index in 0..3 {
        rig.append(ONE, index * 3, &[1, 1, 1], 50);
    }
    rig.seal();
    rig.flip(2, 100);
    let found = rig.recover();
    let log = &found.groups[&ONE].log;
    assert_eq!((log.entries.len(), log.islands.len()), (3, 1));
    assert_eq!(log.islands[0].predecessor, position(6, 1));
    assert_eq!(log.islands[0].entries.len(), 3);
    assert_eq!(found.groups[&ONE].last(), position(9, 1));
    rig.reopen();
    rig.fill(ONE, 4, 5);
    let found = rig.recover();
    let log = &found.groups[&ONE].log;
    assert_eq!((log.entries.len(), log.islands.len()), (5, 1));
    rig.fill(ONE, 6, 6);
    let found = rig.recover();
    assert_is_whole(&rig.truth[&ONE], &found.groups[&ONE]);
    rig.reopen();
    let found = rig.recover();
    assert_is_whole(&rig.truth[&ONE], &found.groups[&ONE]);
}

#[test]
fn a_fill_that_replaces_entries_puts_what_follows_them_in_doubt() {
    let mut rig = Rig::opened();
    rig.append(ONE, 0, &[1, 1, 1, 1], 50);
    // This one supersedes entries 2 to 4 and is damaged, so the old ones seem to be part of the log.
    rig.append(ONE, 1, &[2, 2, 2, 2, 2], 50);
    rig.append(ONE, 6, &[2, 2], 50);
    rig.flip(2, 100);
    let found = rig.recover();
    let log = &found.groups[&ONE].log;
    assert_eq!((log.entries.len(), log.islands[0].predecessor), (4, position(6, 2)));
    rig.reopen();
    rig.fill(ONE, 2, 3);
    let found = rig.recover();
    let log = &found.groups[&ONE].log;
    assert_eq!(log.entries.len(), 3, "the old entry 4 does not follow on the new entry 3");
    assert_eq!(log.islands[0].predecessor, position(6, 2));
    rig.fill(ONE, 4, 6);
    let found = rig.recover();
    assert_is_whole(&rig.truth[&ONE], &found.groups[&ONE]);
}

#[test]
fn a_fill_drops_the_island_it_contradicts_and_keeps_those_above() {
    let mut rig = Rig::opened();
    rig.append(ONE, 0, &[1, 1, 1], 50);
    rig.append(ONE, 3, &[1, 1], 50);
    rig.append(ONE, 5, &[1], 50);
    // This one replaces all but the first entry, and is damaged like the one before the island at 6.
    rig.append(ONE, 1, &[2; 8], 50);
    rig.append(ONE, 9, &[2], 50);
    rig.flip(2, 100);
    rig.flip(4, 100);
    let log = &rig.recover().groups[&ONE].log;
    let below: Vec<_> = log.islands.iter().map(|island| island.predecessor).collect();
    assert_eq!(below, [position(5, 1), position(9, 2)]);
    rig.reopen();
    rig.fill(ONE, 2, 7);
    let log = &rig.recover().groups[&ONE].log;
    assert_eq!((log.entries.len(), log.islands.len()), (7, 1), "what was acknowledged is not lost again");
    assert_eq!(log.islands[0].predecessor, position(9, 2));
    rig.fill(ONE, 8, 9);
    assert_is_whole(&rig.truth[&ONE], &rig.recover().groups[&ONE]);
}

#[test]
fn an_append_supersedes_islands() {
    let mut rig = Rig::opened();
    for index in 0..3 {
        rig.append(ONE, index * 3, &[1, 1, 1], 50);
    }
    rig.flip(2, 100);
    rig.reopen();
    rig.append(ONE, 3, &[2], 50);
    let found = rig.recover();
    assert_is_whole(&rig.truth[&ONE], &found.groups[&ONE]);
}

#[test]
fn a_lost_frame_that_shortened_the_log_leaves_no_entry_above_its_end() {
    let mut rig = Rig::opened();
    rig.append(ONE, 0, &[1, 1, 1, 1, 1], 50);
    rig.append(ONE, 2, &[2], 50);
    rig.vote(TWO, 1, 1);
    rig.flip(2, 100);
    let found = rig.recover();
    let log = &found.groups[&ONE].log;
    assert_eq!(log.entries.len(), 2);
    assert_eq!(log.islands[0].predecessor, position(3, 2));
}

#[test]
fn a_vote_in_a_damaged_frame_is_named_by_the_next_one() {
    let mut rig = Rig::opened();
    rig.vote(ONE, 7, 2);
    rig.append(TWO, 0, &[1], 50);
    rig.flip(1, 60);
    let found = rig.recover();
    assert_eq!(found.groups[&ONE].log.hard_state, rig.truth[&ONE].hard_state);
    rig.assert_whole(&found);
}

#[test]
fn a_group_that_no_later_frame_names_counts_for_nothing_and_stays_so() {
    let mut rig = Rig::opened();
    rig.append(TWO, 0, &[1], 50);
    rig.append(ONE, 0, &[1], 50);
    rig.vote(ONE, 7, 2);
    rig.append(TWO, 1, &[1], 50);
    rig.append(TWO, 2, &[1], 50);
    // Both frames of group one, and the one that repeats it.
    for frame in [2, 3, 4] {
        rig.flip(frame, 60);
    }
    for _ in 0..2 {
        let found = rig.recover();
        assert!(found.groups[&ONE].counts_for_nothing);
        assert!(!found.groups[&TWO].counts_for_nothing);
        assert!(found.notes.contains(&Note::CountsForNothing { group: ONE }));
        rig.reopen();
    }
}

#[test]
fn a_segment_whose_opening_rotted_is_still_read() {
    let mut rig = Rig::opened();
    while rig.disk.len() < 4 {
        let kept = rig.truth[&ONE].terms.len();
        rig.append(ONE, kept, &[1], 6_000);
    }
    let begins_second = |frame: &(u64, u64, usize)| frame.0 == 2 && frame.1 == 0;
    let opening = rig.frames.iter().position(begins_second).unwrap();
    rig.flip(opening, 200);
    let found = rig.recover();
    let group = &found.groups[&ONE];
    assert_eq!(group.last(), rig.truth[&ONE].last());
    assert_eq!(group.log.islands.len(), 1);
    assert_eq!(group.records.len(), rig.truth[&ONE].terms.len() - 1, "one entry was in that frame");
    assert_records_are_true(&rig.truth[&ONE], group);
}

#[test]
fn a_missing_segment_is_a_hole() {
    let mut rig = Rig::opened();
    while rig.disk.len() < 5 {
        let kept = rig.truth[&ONE].terms.len();
        rig.append(ONE, kept, &[1], 6_000);
    }
    rig.disk.remove(&2);
    let found = rig.recover();
    assert!(found.notes.contains(&Note::Missing { before: SegmentNumber(3) }));
    let group = &found.groups[&ONE];
    assert_eq!((group.log.islands.len(), group.last()), (1, rig.truth[&ONE].last()));
    assert!(!group.counts_for_nothing, "the opening of the third segment names it");
    assert_records_are_true(&rig.truth[&ONE], group);
}

#[test]
fn the_frame_after_a_rotted_opening_says_all_that_it_said() {
    let mut rig = Rig::opened();
    let bootstrapped = Identity { cluster: 5, ..IDENTITY };
    let opening = |group, name: &str| GroupOpening {
        group,
        hard_state: HardState::default(),
        last: Position::START,
        snapshot: Position::START,
        configuration: Configuration {
            index: 0,
            members: vec![Member {
                id: 1,
                directory: 77,
                kind: MemberKind::Voter,
                name: name.into(),
                address: "here:1".into(),
            }],
        },
    };
    rig.wal.set_opening(bootstrapped, vec![opening(ONE, "a"), opening(TWO, "b")]);
    rig.append(ONE, 0, &[1], 50);
    rig.seal();
    rig.flip(1, 200);
    let found = rig.recover();
    assert_eq!(found.identity, Some(bootstrapped));
    assert_eq!(found.groups[&TWO].configuration.members[0].name, "b");
    assert_eq!(found.groups[&ONE].last(), position(1, 1));
}

#[test]
fn frames_of_an_earlier_life_of_a_segment_are_not_believed() {
    let mut rig = eventful();
    let old = rig.disk[&1].1.clone();
    rig.disk.get_mut(&2).unwrap().1 = old;
    let found = rig.recover();
    rig.assert_whole(&found);
}

#[test]
fn a_record_with_a_wrong_checksum_makes_its_whole_frame_bad_and_is_never_taken_for_a_torn_write() {
    let mut rig = Rig::opened();
    rig.append(ONE, 0, &[1], 50);
    let mut write = write_of(ONE, &rig.truth[&ONE], Some((RunKind::Append, position(1, 1), &[1], 50)));
    write.last = position(2, 1);
    let mut broken = write.records[0].to_vec();
    broken[80] ^= 1;
    write.records[0] = Bytes::from(broken);
    rig.write(&[write]);
    let found = rig.recover();
    assert!(found.groups[&ONE].counts_for_nothing, "nothing behind it names what it held");
    assert_eq!(found.groups[&ONE].log.entries.len(), 1);
}

#[test]
fn a_log_without_one_valid_frame_is_refused_unless_it_is_a_torn_first_write() {
    let mut rig = eventful();
    for frame in 0..rig.frames.len() {
        rig.flip(frame, 60);
    }
    let segment = SegmentNumber(1);
    assert_eq!(rig.try_recover(), Err(RecoveryFailed::NothingValid { segment }));
    let mut rig = eventful();
    rig.disk.get_mut(&1).unwrap().0 ^= 1;
    assert_eq!(rig.try_recover(), Err(RecoveryFailed::NothingValid { segment }));
}

#[test]
fn records_share_the_bytes_of_a_segment_that_holds_little_else() {
    let mut rig = Rig::opened();
    rig.append(ONE, 0, &[1, 1, 1], 15_000);
    rig.append(ONE, 3, &[1, 1], 8_000);
    let segments = rig.shared();
    assert_eq!(segments.len(), 2, "the second run did not fit behind the first");
    let recovered = rig.try_recover_from(&segments).unwrap();
    let records = &recovered.groups[&ONE].records;
    let shares = |index: u64| {
        let record = &records[&LogIndex(index)];
        segments.iter().any(|segment| segment.as_ptr_range().contains(&record.as_ptr()))
    };
    assert_eq!([1, 2, 3, 4, 5].map(shares), [true, true, true, false, false]);
}

#[test]
fn the_log_of_another_shard_is_refused() {
    let rig = eventful();
    let (salt, bytes) = &rig.disk[&1];
    let segment = FoundSegment { number: SegmentNumber(1), salt: *salt, bytes, shared: None };
    let options = WalOptions { shard: 3, ..OPTIONS };
    let refused = RecoveryFailed::OtherShard { expected: 3, found: 0 };
    assert_eq!(recover(options, &[segment], &BTreeMap::new()), Err(refused));
    let twice = RecoveryFailed::TwoSegments { segment: SegmentNumber(1) };
    assert_eq!(recover(OPTIONS, &[segment, segment], &BTreeMap::new()), Err(twice));
}

#[test]
fn no_bytes_make_recovery_panic() {
    property::hold(200, |seed| {
        let mut state = seed;
        let mut rig = if seed % 2 == 0 { eventful() } else { Rig::opened() };
        if seed % 3 == 0 {
            rig.seal();
            rig.reopen();
        }
        for _ in 0..=seeded(&mut state) % 6 {
            let Some((_, bytes)) = rig.disk.get_mut(&(1 + seeded(&mut state) % 2)) else {
                continue;
            };
            if bytes.is_empty() {
                continue;
            }
            let at = usize::try_from(seeded(&mut state)).unwrap() % bytes.len();
            let count = 1 + usize::try_from(seeded(&mut state)).unwrap() % 9_000;
            for byte in bytes.iter_mut().skip(at).take(count) {
                *byte = u8::try_from(seeded(&mut state) & 0xff).unwrap();
            }
            if seeded(&mut state).is_multiple_of(4) {
                bytes.truncate(at);
            }
        }
        if let Ok(found) = rig.try_recover() {
            let resumed = Wal::resume(OPTIONS, &found, seed);
            assert!(resumed.is_idle());
        }
    });
}

/// Frames with right checksums and senseless content: a stranger's, or a bug's.
#[test]
fn no_senseless_frames_make_recovery_panic() {
    property::hold(400, |seed| {
        let mut state = seed + 1_000;
        let mut bytes = Vec::new();
        let mut previous_hash = 0;
        for sequence in 0..30 {
            let place = Place {
                segment: 1,
                salt: 7,
                sequence,
                previous_hash: if seeded(&mut state).is_multiple_of(5) { 3 } else { previous_hash },
            };
            let mut frame = FrameWriter::new(FrameKind::Batch, place, 0);
            senseless_section(&mut state, &mut frame);
            let (frame, hash) = frame.finish();
            previous_hash = hash;
            if seeded(&mut state).is_multiple_of(6) {
                bytes.resize(bytes.len() + BLOCK_BYTES, 0xaa);
            }
            bytes.extend_from_slice(&frame);
        }
        let segment = FoundSegment { number: SegmentNumber(1), salt: 7, bytes: &bytes, shared: None };
        let found = recover(OPTIONS, &[segment], &BTreeMap::new()).unwrap();
        for group in found.groups.values() {
            let islands = group.log.islands.iter().flat_map(|island| &island.entries);
            assert_eq!(group.log.entries.len() + islands.count(), group.records.len());
        }
    });
}

fn senseless_section(state: &mut u64, frame: &mut FrameWriter) {
    let mut small = |bound: u64| seeded(state) % bound;
    let tail = wal_format::GroupTail {
        group: 1,
        hard_state: wal_format::HardState::default(),
        last: wal_format::Position { index: small(14), term: small(4) },
    };
    let snapshot = wal_format::Position { index: small(8), term: small(4) };
    let kind = if small(2) == 0 { wal_format::RunKind::Append } else { wal_format::RunKind::Fill };
    if small(8) == 0 {
        frame.reset(&wal_format::Reset { tail, kind, snapshot });
        return;
    }
    let mut term = small(4);
    let previous = wal_format::Position { index: small(12), term };
    let count = 1 + small(4);
    let run = wal_format::Run { kind, previous, first: previous.index + 1, last: previous.index + count };
    let mut records = Vec::new();
    for index in run.first..=run.last {
        term += small(2);
        records.push(record(GroupId(1), index, term, 3));
    }
    frame.batch(&tail, Some(&run), records.iter().map(Bytes::as_ref));
}

#[test]
fn one_write_cuts_the_end_off_a_log_and_leaves_term_and_vote() {
    let mut rig = eventful();
    let last = rig.truth[&ONE].last().index.0;
    for stop_before in (1..=last).rev() {
        let recovered = rig.recover();
        let cut = cut(&recovered, ONE, LogIndex(stop_before)).expect("it can end there");
        assert_eq!(cut.dropped.keys().map(|index| index.0).collect::<Vec<_>>(), [stop_before]);
        rig.boot += 1;
        rig.wal = Wal::resume(OPTIONS, &recovered, rig.boot);
        rig.write(&[cut.write]);
        let truth = rig.truth.get_mut(&ONE).unwrap();
        truth.terms.truncate(usize::try_from(stop_before - 1).unwrap());
        truth.hard_state.commit = truth.hard_state.commit.min(LogIndex(stop_before - 1));
        rig.assert_whole(&rig.recover());
    }
    rig.reopen();
    rig.append(ONE, 0, &[4, 4], 50);
    rig.assert_whole(&rig.recover());
}

#[test]
fn nothing_is_cut_that_a_snapshot_holds_or_that_is_not_there() {
    let mut rig = eventful();
    let (last, snapshot) = (rig.truth[&ONE].last().index, rig.truth[&ONE].at(2));
    rig.snapshots.insert(ONE, vec![snapshot]);
    let recovered = rig.recover();
    let (stop_before, snapshot) = (LogIndex(2), snapshot.index);
    assert_eq!(cut(&recovered, ONE, stop_before), Err(CannotCut::InSnapshot { stop_before, snapshot }));
    assert!(cut(&recovered, ONE, LogIndex(3)).is_ok());
    let stop_before = last.next();
    assert_eq!(cut(&recovered, ONE, stop_before), Err(CannotCut::BeyondTheEnd { stop_before, last }));
    let group = GroupId(9);
    assert_eq!(cut(&recovered, group, last), Err(CannotCut::NoSuchGroup { group }));
    rig.snapshots.clear();
    rig.flip(1, 100);
    assert_eq!(cut(&rig.recover(), ONE, last), Err(CannotCut::NotWhole));
}
