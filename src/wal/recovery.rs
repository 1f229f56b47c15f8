//! What a log found on disk still says (DESIGN §8, "Recovery").
//!
//! What always holds: the answer depends on the segments alone; whatever was acknowledged and is not in the
//! answer is named as a hole, or its group counts for nothing.
//!
//! What it leaves out: looking for frames in bytes (`scan`), and what a frame does to one group's log
//! (`group_log`).

use super::group_log::GroupLog;
use super::scan::{BadFrame, FoundFrame, Origin, Part, is_blank, next_written, read_frame};
use super::{Configuration, Identity, NextFrame, SpareSegment, WalOptions};
use crate::ids::{GroupId, LogIndex, SegmentNumber};
use crate::limits::{WAL_FIRST_WRITE_BYTES_MAX, WAL_NOTES_MAX, WAL_SEGMENT_BYTES_MIN};
use crate::raft::{Entry, Position, RecoveredLog};
use crate::{planted, sometimes};
use bytes::Bytes;
use std::collections::BTreeMap;
use wal_format::{BLOCK_BYTES, Damage, DamageKind, FrameClaims, FrameHeader, starts_like_a_frame};

/// A segment as it was found: what its name says, and its bytes.
#[derive(Clone, Copy, Debug)]
pub struct FoundSegment<'a> {
    /// Its number, from its name.
    pub number: SegmentNumber,
    /// Its salt, from its name.
    pub salt: u64,
    /// All its bytes.
    pub bytes: &'a [u8],
    /// The same, if the records that come out may share them: as long as one is held, all are.
    pub shared: Option<&'a Bytes>,
}

/// What one group still has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredGroup {
    /// Its log and hard state, holes named.
    pub log: RecoveredLog,
    /// The encoded record of every entry in `log`, those of islands included.
    pub records: BTreeMap<LogIndex, Bytes>,
    /// The newest snapshot that can be restored; index 0 for none.
    pub snapshot: Position,
    /// The newest snapshot that the log names. One that is newer than what can be restored was lost.
    pub named: Position,
    /// The configuration that the last opening named. The true one follows from snapshot and log.
    pub configuration: Configuration,
    /// Its vote or the end of its log may be lost: it must not vote, campaign or acknowledge anything until
    /// it is added again as a learner.
    pub counts_for_nothing: bool,
}

/// Everything a log still says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Whose log it is; `None` if no opening is left, or there never was one.
    pub identity: Option<Identity>,
    /// Its groups.
    pub groups: BTreeMap<GroupId, RecoveredGroup>,
    /// Where the next frame goes; `None` if there is no segment.
    pub next: Option<NextFrame>,
    /// Segments that are ready and hold nothing.
    pub spares: Vec<SpareSegment>,
    /// Number and salt of the segments before the one in which the next frame goes, oldest first.
    pub full: Vec<(SegmentNumber, u64)>,
    /// The highest number that any segment has.
    pub newest: SegmentNumber,
    /// What is worth a line in the log, in the order found.
    pub notes: Vec<Note>,
}

/// Something recovery met and dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The write in flight when the process died was dropped: nobody had been told that it was durable.
    DroppedTail {
        /// The segment.
        segment: SegmentNumber,
        /// Bytes from the segment's start.
        offset: u64,
        /// What is wrong with it.
        damage: Damage,
    },
    /// Frames were lost that others follow, or that a crash cannot have torn.
    Corruption {
        /// The segment.
        segment: SegmentNumber,
        /// Bytes from the segment's start.
        offset: u64,
        /// What is wrong there.
        damage: Damage,
    },
    /// Frames are missing just before this segment: the end of the one before it, or whole segments.
    Missing {
        /// The segment that names a frame before it which is not there.
        before: SegmentNumber,
    },
    /// A group's log has a hole.
    Hole {
        /// The group.
        group: GroupId,
        /// The end of what is contiguous below it.
        below: Position,
        /// The last missing entry.
        last: Position,
    },
    /// A group's vote or tail may be lost.
    CountsForNothing {
        /// The group.
        group: GroupId,
    },
    /// Frames were lost and no opening follows, so the identity may be older than it was.
    IdentityInDoubt,
}

/// Why a log cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryFailed {
    /// Two segments have one number.
    #[error("two segments have the number {segment}: one of them does not belong here")]
    TwoSegments {
        /// The number.
        segment: SegmentNumber,
    },
    /// A frame of a newer build.
    #[error("{segment}, byte {offset}: {damage}; a newer build wrote this")]
    Newer {
        /// The segment.
        segment: SegmentNumber,
        /// Bytes from the segment's start.
        offset: u64,
        /// What this build does not know.
        damage: Damage,
    },
    /// A log of another shard.
    #[error("this is the log of shard {found}, not of shard {expected}")]
    OtherShard {
        /// The shard that was asked for.
        expected: u16,
        /// The shard whose log it is.
        found: u16,
    },
    /// There is something, and not one valid frame, and it is not what a crash in the very first write
    /// leaves.
    #[error("{segment} holds something, and no frame in the log is valid")]
    NothingValid {
        /// The first segment that is not empty.
        segment: SegmentNumber,
    },
}

impl RecoveredGroup {
    /// The end of the log for votes: of the last island, if there is a hole.
    pub fn last(&self) -> Position {
        let contiguous = self.log.entries.last().map_or(self.log.base, Entry::position);
        self.log
            .islands
            .last()
            .map_or(contiguous, |island| island.entries.last().map_or(island.predecessor, Entry::position))
    }
}

/// Of each group, the snapshots that its state can be restored from.
pub type Restorable = BTreeMap<GroupId, Vec<Position>>;

/// Reads a log back from all the segments found, in any order; none in a new directory. `snapshots`: of each group those
/// that can be restored. The log that comes out begins at or below the newest of them.
///
/// # Errors
///
/// If the log cannot be used at all. Damage is not an error: it is repaired from peers, so it comes back as
/// holes.
pub fn recover(
    options: WalOptions,
    segments: &[FoundSegment<'_>],
    snapshots: &Restorable,
) -> Result<Recovered, RecoveryFailed> {
    let mut segments = segments.to_vec();
    segments.sort_by_key(|segment| segment.number);
    for pair in segments.windows(2) {
        if let [first, second] = pair
            && first.number == second.number
        {
            return Err(RecoveryFailed::TwoSegments { segment: first.number });
        }
    }
    let mut recovery = Recovery {
        options,
        segments: &segments,
        identity: None,
        is_identity_in_doubt: false,
        groups: BTreeMap::new(),
        last: None,
        bad: Vec::new(),
        notes: Vec::new(),
    };
    for place in 0..segments.len() {
        recovery.read_segment(place)?;
    }
    recovery.finish(snapshots)
}

/// The last frame believed.
#[derive(Clone, Copy, Debug)]
struct LastFrame {
    /// Its segment's place among the segments found.
    place: usize,
    /// Where it ends.
    end: usize,
    sequence: u32,
    hash: u64,
}

/// A recovery under way.
struct Recovery<'a> {
    options: WalOptions,
    segments: &'a [FoundSegment<'a>],
    identity: Option<Identity>,
    is_identity_in_doubt: bool,
    groups: BTreeMap<GroupId, GroupLog>,
    last: Option<LastFrame>,
    /// What was bad since the last frame believed: the place of its segment, and what.
    bad: Vec<(usize, BadFrame)>,
    notes: Vec<Note>,
}

impl Recovery<'_> {
    fn read_segment(&mut self, place: usize) -> Result<(), RecoveryFailed> {
        let Some(segment) = self.segments.get(place) else {
            return Ok(());
        };
        let mut offset = 0;
        while offset < segment.bytes.len() {
            match self.read_chained(place, segment, offset) {
                Ok(frame) => {
                    let end = offset + frame.header.bytes_count;
                    self.believe(place, end, frame)?;
                    offset = end;
                }
                Err(bad) if bad.origin == Origin::Newer => {
                    return Err(RecoveryFailed::Newer {
                        segment: segment.number,
                        offset: offset as u64,
                        damage: bad.damage,
                    });
                }
                Err(bad) => {
                    if self.bad.len() < WAL_NOTES_MAX || bad.origin == Origin::Written {
                        self.bad.push((place, bad));
                    }
                    let mut next = next_written(segment, offset + BLOCK_BYTES);
                    if planted!(39) {
                        next = None;
                    }
                    let Some(next) = next else { break };
                    offset = next;
                }
            }
        }
        Ok(())
    }

    /// Reads a frame, which must be able to stand here, and right behind a valid one must name that one.
    fn read_chained(
        &self,
        place: usize,
        segment: &FoundSegment<'_>,
        offset: usize,
    ) -> Result<FoundFrame, BadFrame> {
        let frame = read_frame(segment, offset, place)?;
        if self.is_astray(place, offset, frame.header.place.sequence) {
            sometimes!(FrameAstray);
            return Err(BadFrame {
                offset,
                damage: Damage { offset: 0, kind: DamageKind::Contradiction },
                origin: Origin::TornOrRotted,
            });
        }
        let follows = self.last.filter(|last| last.place == place && last.end == offset);
        match follows {
            Some(last) if last.hash != frame.header.place.previous_hash => Err(BadFrame {
                offset,
                damage: Damage { offset: 0, kind: DamageKind::Contradiction },
                origin: Origin::Written,
            }),
            Some(_) | None => Ok(frame),
        }
    }

    /// Whether a frame with this number cannot stand here, because all before it would have to fit in front of it and
    /// behind the last one believed: a disk wrote it to the wrong place. It says nothing about what belongs here.
    fn is_astray(&self, place: usize, offset: usize, sequence: u32) -> bool {
        if planted!(105) {
            return false;
        }
        let last = self.last.filter(|last| last.place == place);
        let (end, lowest) = last.map_or((0, 0), |last| (last.end, last.sequence.saturating_add(1)));
        let missing_max = u32::try_from(offset.saturating_sub(end) / BLOCK_BYTES).unwrap_or(u32::MAX);
        !(lowest..=lowest.saturating_add(missing_max)).contains(&sequence)
    }

    /// Takes in a valid frame.
    fn believe(&mut self, place: usize, end: usize, frame: FoundFrame) -> Result<(), RecoveryFailed> {
        let header = frame.header;
        let previous_hash = self.last.map_or(0, |last| last.hash);
        // The oldest segment kept begins with an opening and names a frame that was recycled.
        let is_oldest = self.last.is_none() && self.bad.is_empty() && header.place.segment > 1;
        if header.place.previous_hash == previous_hash || is_oldest {
            if self.bad.iter().any(|(_, bad)| bad.origin != Origin::Blank) {
                sometimes!(OldTearPassed);
            }
            // What was bad in between is a write that a crash tore, long since dropped.
            self.bad.clear();
        } else {
            self.frames_were_lost(place, &header);
        }
        for part in frame.parts {
            self.take_in(part)?;
        }
        self.last = Some(LastFrame { place, end, sequence: header.place.sequence, hash: header.hash });
        Ok(())
    }

    /// Frames between the last one believed and this one are gone.
    fn frames_were_lost(&mut self, place: usize, found: &FrameHeader) {
        sometimes!(FrameLostInTheMiddle);
        let is_one_frame = self.last.is_some_and(|last| {
            last.place == place && last.sequence.checked_add(2) == Some(found.place.sequence)
        });
        if !is_one_frame {
            // A single lost frame's groups are all named by the one behind it. Of several, only the last
            // one's are.
            self.is_identity_in_doubt = true;
            self.doubt_all();
        }
        let bad = core::mem::take(&mut self.bad);
        let was_found = self.note_corruption(&bad);
        if !was_found {
            self.note(Note::Missing { before: SegmentNumber(found.place.segment) });
        }
    }

    fn doubt_all(&mut self) {
        for group in self.groups.values_mut() {
            group.doubt();
        }
    }

    fn take_in(&mut self, part: Part) -> Result<(), RecoveryFailed> {
        match part {
            Part::Identity(identity) => {
                if identity.shard != self.options.shard {
                    return Err(RecoveryFailed::OtherShard {
                        expected: self.options.shard,
                        found: identity.shard,
                    });
                }
                self.identity = Some(identity);
                self.is_identity_in_doubt = false;
            }
            Part::Opening(opening) => self.group(opening.tail.group).open(&opening),
            Part::Tail(tail) => self.group(tail.group).name(&tail),
            Part::Write { tail, run, entries } => {
                let group = self.group(tail.group);
                if let Some(run) = run {
                    group.write(&run, entries);
                }
                group.name(&tail);
            }
            Part::Reset(reset) => {
                let group = self.group(reset.tail.group);
                group.reset(&reset);
                group.name(&reset.tail);
            }
        }
        Ok(())
    }

    fn group(&mut self, group: u32) -> &mut GroupLog {
        self.groups.entry(GroupId(group)).or_insert_with(GroupLog::new)
    }

    fn finish(mut self, snapshots: &BTreeMap<GroupId, Vec<Position>>) -> Result<Recovered, RecoveryFailed> {
        if self.last.is_none() {
            self.assure_empty()?;
        }
        let bad = core::mem::take(&mut self.bad);
        if bad.iter().any(|(_, bad)| bad.origin == Origin::Written) {
            // No crash tore this, and nothing behind it names what it held.
            self.is_identity_in_doubt = true;
            self.doubt_all();
            self.note_corruption(&bad);
        } else {
            for (place, bad) in bad.iter().filter(|(_, bad)| bad.origin != Origin::Blank) {
                sometimes!(TornTailDropped);
                let segment = self.number(*place);
                self.note(Note::DroppedTail { segment, offset: bad.offset as u64, damage: bad.damage });
            }
        }
        let (next, spares) = self.next_and_spares(&bad);
        let groups = core::mem::take(&mut self.groups);
        let shared = self.segments.iter().map(|segment| segment.shared.map_or(0, Bytes::len));
        let shared: Vec<usize> = shared.collect();
        let groups: BTreeMap<_, _> = groups
            .into_iter()
            .map(|(id, group)| {
                let snapshots = snapshots.get(&id).into_iter().flatten();
                let newest = snapshots.max_by_key(|snapshot| snapshot.index).copied();
                (id, group.finish(newest.unwrap_or(Position::START), &shared))
            })
            .collect();
        self.note_groups(&groups);
        let before =
            self.segments.iter().filter(|segment| next.is_some_and(|next| segment.number < next.segment));
        let full = before.map(|segment| (segment.number, segment.salt)).collect();
        Ok(Recovered {
            identity: self.identity,
            groups,
            next,
            spares,
            full,
            newest: self.segments.last().map_or(SegmentNumber(0), |newest| newest.number),
            notes: self.notes,
        })
    }

    /// Where the next frame goes: behind the last one believed, or over the start of a later segment's first
    /// write if that is what was dropped.
    fn next_and_spares(&self, bad: &[(usize, BadFrame)]) -> (Option<NextFrame>, Vec<SpareSegment>) {
        let last_place = self.last.map_or(0, |last| last.place);
        let dropped = bad
            .iter()
            .find(|(place, bad)| *place > last_place && bad.origin != Origin::Blank && bad.offset == 0);
        if dropped.is_some() {
            sometimes!(FirstWriteOfSegmentDropped);
        }
        let place = dropped.map_or(last_place, |(place, _)| *place);
        let mut spares = self.segments.iter().skip(place).filter_map(|segment| {
            let blocks_count = segment.bytes.len() / BLOCK_BYTES;
            let segment_bytes = (blocks_count * BLOCK_BYTES) as u64;
            (segment_bytes >= WAL_SEGMENT_BYTES_MIN).then_some(SpareSegment {
                segment: segment.number,
                salt: segment.salt,
                segment_bytes,
            })
        });
        let next = spares.next().map(|current| {
            let begun = self.last.filter(|last| self.number(last.place) == current.segment);
            NextFrame {
                segment: current.segment,
                salt: current.salt,
                segment_bytes: current.segment_bytes,
                offset: begun.map_or(0, |last| last.end as u64),
                sequence: begun.map_or(0, |last| last.sequence.saturating_add(1)),
                previous_hash: self.last.map_or(0, |last| last.hash),
            }
        });
        (next, spares.collect())
    }

    /// With no valid frame anywhere: refuses unless a crash in the very first write of a log leaves just
    /// this.
    fn assure_empty(&self) -> Result<(), RecoveryFailed> {
        for segment in self.segments {
            let is_first = segment.number == SegmentNumber(1);
            let reach = if is_first { first_write_reach(segment.bytes) } else { 0 };
            let (reached, beyond) = segment.bytes.split_at_checked(reach).unwrap_or((segment.bytes, &[]));
            let behind_first_block = reached.chunks(BLOCK_BYTES).skip(1);
            let is_second_write = behind_first_block.into_iter().any(starts_like_a_frame);
            if is_second_write || !is_blank(beyond) {
                return Err(RecoveryFailed::NothingValid { segment: segment.number });
            }
        }
        if let Some((place, _)) = self.bad.iter().find(|(_, bad)| bad.origin == Origin::Written) {
            return Err(RecoveryFailed::NothingValid { segment: self.number(*place) });
        }
        Ok(())
    }

    fn number(&self, place: usize) -> SegmentNumber {
        self.segments.get(place).map_or(SegmentNumber(0), |segment| segment.number)
    }

    /// Notes everything bad that is not blank; whether there was any.
    fn note_corruption(&mut self, bad: &[(usize, BadFrame)]) -> bool {
        let mut was_found = false;
        for (place, bad) in bad.iter().filter(|(_, bad)| bad.origin != Origin::Blank) {
            was_found = true;
            let segment = self.number(*place);
            self.note(Note::Corruption { segment, offset: bad.offset as u64, damage: bad.damage });
        }
        was_found
    }

    fn note_groups(&mut self, groups: &BTreeMap<GroupId, RecoveredGroup>) {
        for (group, found) in groups {
            let mut below = found.log.entries.last().map_or(found.log.base, Entry::position);
            if !found.log.islands.is_empty() {
                sometimes!(RecoveredWithHole);
            }
            for island in &found.log.islands {
                self.note(Note::Hole { group: *group, below, last: island.predecessor });
                below = island.entries.last().map_or(island.predecessor, Entry::position);
            }
            if found.counts_for_nothing {
                self.note(Note::CountsForNothing { group: *group });
            }
        }
        if self.is_identity_in_doubt {
            self.note(Note::IdentityInDoubt);
        }
    }

    fn note(&mut self, note: Note) {
        if self.notes.len() < WAL_NOTES_MAX {
            self.notes.push(note);
        }
    }
}

/// How far the first write of a log reaches into its segment: as far as its header claims, if that is left.
fn first_write_reach(bytes: &[u8]) -> usize {
    let claimed = FrameClaims::read(bytes).map_or(usize::MAX, |claims| claims.bytes_count);
    claimed.min(WAL_FIRST_WRITE_BYTES_MAX).min(bytes.len())
}
