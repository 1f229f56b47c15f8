//! Which segment is being written, where in it the next frame goes, and which one comes next.
//!
//! What always holds: numbers only grow; a segment is written only after it was reported ready; a frame lies
//! whole in one segment; frames follow each other without a gap. A full segment becomes free, the oldest first, when
//! all entries in it were trimmed and a later segment begins with two durable frames, which repeat whatever else it said.

use super::Recovered;
use crate::ids::{GroupId, LogIndex, SegmentNumber};
use crate::limits::{WAL_FREE_SEGMENTS_MAX, WAL_SPARE_SEGMENTS_MAX};
use crate::sometimes;
use std::collections::{BTreeMap, VecDeque};

/// Where the next frame goes, and what it must name as the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextFrame {
    /// The segment.
    pub segment: SegmentNumber,
    /// The segment's salt.
    pub salt: u64,
    /// Bytes of the segment.
    pub segment_bytes: u64,
    /// Bytes from the segment's start; a multiple of the block size.
    pub offset: u64,
    /// The frame's number within the segment.
    pub sequence: u32,
    /// The hash of the last valid frame; 0 if there is none.
    pub previous_hash: u64,
}

/// A segment that is ready to be written and holds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpareSegment {
    /// Its number.
    pub segment: SegmentNumber,
    /// Its salt.
    pub salt: u64,
    /// Its size.
    pub segment_bytes: u64,
}

/// A segment to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedSegment {
    /// Its number.
    pub segment: SegmentNumber,
    /// The salt for its name.
    pub salt: u64,
    /// Number and salt of one that is needed no more: it may be renamed, and is to hold zeros or its old bytes.
    pub recycled: Option<(SegmentNumber, u64)>,
}

/// A segment that is not written any more.
#[derive(Clone, Debug)]
struct Full {
    segment: SegmentNumber,
    salt: u64,
    /// The highest entry of each group that it may hold.
    upto: BTreeMap<GroupId, LogIndex>,
}

/// The segments of one log.
#[derive(Debug)]
pub(super) struct Segments {
    segment_bytes: u64,
    /// State of the generator of salts.
    salts: u64,
    current: Option<NextFrame>,
    /// Ready, in order of their numbers, which follow on `current`.
    spares: VecDeque<SpareSegment>,
    /// Asked for and not yet reported ready.
    asked: Option<SpareSegment>,
    /// The number of the next one to ask for.
    next_number: SegmentNumber,
    /// The hash of the last frame, which the next one names.
    previous_hash: u64,
    /// Those before `current` that hold something, oldest first.
    full: VecDeque<Full>,
    /// The highest entry of each group that `current` may hold.
    upto: BTreeMap<GroupId, LogIndex>,
    /// How many frames in `current` are durable that this boot wrote.
    begun_count: u64,
    /// Up to where each group's entries are needed no more.
    trimmed: BTreeMap<GroupId, LogIndex>,
    /// Those that hold nothing any more.
    free: VecDeque<(SegmentNumber, u64)>,
}

impl Segments {
    /// The segments of an empty directory: none.
    pub(super) fn none(segment_bytes: u64, salts_seed: u64) -> Self {
        Self {
            segment_bytes,
            salts: salts_seed,
            current: None,
            spares: VecDeque::new(),
            asked: None,
            next_number: SegmentNumber(1),
            previous_hash: 0,
            full: VecDeque::new(),
            upto: BTreeMap::new(),
            begun_count: 0,
            trimmed: BTreeMap::new(),
            free: VecDeque::new(),
        }
    }

    /// The segments that recovery found.
    pub(super) fn found(segment_bytes: u64, salts_seed: u64, recovered: &Recovered) -> Self {
        let next = recovered.next;
        let mut segments = Self::none(segment_bytes, salts_seed);
        segments.previous_hash = next.map_or(0, |next| next.previous_hash);
        segments.current = next;
        segments.spares.extend(&recovered.spares);
        // Which of them holds what is not known: none goes before all that was found is trimmed.
        segments.upto = recovered.groups.iter().map(|(group, found)| (*group, found.last().index)).collect();
        let full = recovered.full.iter();
        segments.full = full
            .map(|(segment, salt)| Full { segment: *segment, salt: *salt, upto: segments.upto.clone() })
            .collect();
        segments.next_number = SegmentNumber(recovered.newest.0.saturating_add(1));
        segments.assert_invariants();
        segments
    }

    /// The segment to make next, if one is wanted and was not asked for already.
    pub(super) fn wants(&mut self) -> Option<WantedSegment> {
        if self.asked.is_some() || self.spares.len() >= WAL_SPARE_SEGMENTS_MAX {
            return None;
        }
        let asked = SpareSegment {
            segment: self.next_number,
            salt: self.next_salt(),
            segment_bytes: self.segment_bytes,
        };
        self.asked = Some(asked);
        self.next_number = SegmentNumber(self.next_number.0 + 1);
        let recycled = self.free.pop_front();
        if recycled.is_some() {
            sometimes!(SegmentRecycled);
        }
        Some(WantedSegment { segment: asked.segment, salt: asked.salt, recycled })
    }

    /// A segment that holds nothing any more and is not needed for another.
    pub(super) fn surplus(&mut self) -> Option<(SegmentNumber, u64)> {
        if self.free.len() > WAL_FREE_SEGMENTS_MAX { self.free.pop_front() } else { None }
    }

    /// The segment being written holds an entry of this index.
    pub(super) fn holds(&mut self, group: GroupId, index: LogIndex) {
        let upto = self.upto.entry(group).or_default();
        *upto = index.max(*upto);
    }

    /// What was placed is durable.
    pub(super) fn durable(&mut self) {
        self.begun_count += 1;
        self.free_full();
    }

    /// The entries of a group up to this one are needed no more.
    pub(super) fn trim(&mut self, group: GroupId, upto: LogIndex) {
        let trimmed = self.trimmed.entry(group).or_default();
        *trimmed = upto.max(*trimmed);
        self.free_full();
    }

    fn free_full(&mut self) {
        let is_needed = |full: &Full| {
            full.upto.iter().any(|(group, upto)| self.trimmed.get(group).is_none_or(|trimmed| upto > trimmed))
        };
        // The second frame repeats all that the first one says, so that either may rot.
        while self.begun_count >= 2
            && let Some(full) = self.full.front()
            && !is_needed(full)
        {
            sometimes!(SegmentFreed);
            self.free.push_back((full.segment, full.salt));
            self.full.pop_front();
        }
    }

    /// The segment that was asked for exists, zero-filled and durably named.
    pub(super) fn ready(&mut self, segment: SegmentNumber) {
        let asked = self.asked.take();
        assert!(
            asked.is_some_and(|asked| asked.segment == segment),
            "only the segment that was asked for becomes ready, once"
        );
        self.spares.extend(asked);
        self.assert_invariants();
    }

    /// Whether a frame of this size fits behind the last one in the current segment.
    pub(super) fn fits(&self, frame_bytes_count: u64) -> bool {
        self.current.is_some_and(|next| next.offset + frame_bytes_count <= next.segment_bytes)
    }

    /// The size of the smallest segment that will be written.
    pub(super) fn smallest_bytes(&self) -> u64 {
        let spares = self.spares.iter().map(|spare| spare.segment_bytes);
        spares.min().map_or(self.segment_bytes, |smallest| smallest.min(self.segment_bytes))
    }

    /// The size of the next segment, if it is ready.
    pub(super) fn spare_bytes(&self) -> Option<u64> {
        self.spares.front().map(|spare| spare.segment_bytes)
    }

    /// Goes on to the next segment, which must be ready.
    pub(super) fn roll(&mut self) {
        sometimes!(SegmentSwitched);
        let spare = self.spares.pop_front().expect("the log rolls only when a spare is ready");
        if let Some(NextFrame { segment, salt, .. }) = self.current {
            self.full.push_back(Full { segment, salt, upto: core::mem::take(&mut self.upto) });
        }
        self.begun_count = 0;
        self.current = Some(NextFrame {
            segment: spare.segment,
            salt: spare.salt,
            segment_bytes: spare.segment_bytes,
            offset: 0,
            sequence: 0,
            previous_hash: self.previous_hash,
        });
        self.assert_invariants();
    }

    /// Where the next frame goes.
    pub(super) fn next(&self) -> NextFrame {
        self.current.expect("a place is asked for only when a frame fits there")
    }

    /// A frame of this size and hash was placed at `next`.
    pub(super) fn placed(&mut self, frame_bytes_count: u64, hash: u64) {
        let mut next = self.next();
        next.offset += frame_bytes_count;
        next.sequence += 1;
        next.previous_hash = hash;
        self.previous_hash = hash;
        self.current = Some(next);
        self.assert_invariants();
    }

    /// Draws a salt (splitmix64, Steele and others, OOPSLA '14). Never 0, so that a zeroed header has no
    /// salt.
    fn next_salt(&mut self) -> u64 {
        self.salts = self.salts.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut drawn = self.salts;
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (drawn ^ (drawn >> 31)).max(1)
    }

    fn assert_invariants(&self) {
        let mut newest = SegmentNumber(0);
        if let Some(next) = self.current {
            newest = next.segment;
            assert!(next.offset <= next.segment_bytes, "the next frame starts within its segment");
            assert!(next.previous_hash == self.previous_hash, "there is one last frame");
        }
        for spare in self.spares.iter().chain(&self.asked) {
            assert!(spare.segment > newest, "segments are used in the order of their numbers");
            newest = spare.segment;
        }
        for full in &self.full {
            let is_older = self.current.is_some_and(|next| full.segment < next.segment);
            assert!(is_older, "what is full is older than what is written");
        }
        assert!(self.next_number > newest, "a new segment has a number never used before");
    }
}
