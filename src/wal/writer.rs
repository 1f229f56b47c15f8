//! Group commit: what groups want durable becomes one frame at a time.
//!
//! What always holds: one write is in flight at most; every frame names each of its groups in full, and again
//! each group of the frame before it; the first frame of a boot and of a segment is an opening, and the frame
//! after an opening repeats everything the opening said; every frame fits in its segment.
//!
//! What it leaves out: whether a write succeeded. A failed write stops the process (DESIGN §8).

use super::seal::Seal;
use super::segments::{Segments, WantedSegment};
use super::words::{encoded_position, encoded_reset, encoded_run, encoded_tail};
use super::{Configuration, Identity, Recovered};
use crate::ids::{BootMicros, GroupId, LogIndex, SegmentNumber, Term};
use crate::limits::WAL_SEGMENT_BYTES_MIN;
use crate::raft::{HardState, Position, Reset, Run, RunKind};
use crate::{planted, sometimes};
use bytes::Bytes;
use std::collections::BTreeMap;
use wal_format::{
    BLOCK_BYTES, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameKind, FrameWriter, Place, batch_bytes_count,
    group_opening_bytes_count, identity_bytes_count, repeat_bytes_count, reset_bytes_count,
};

/// How a shard's log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalOptions {
    /// Bytes of a new segment: a multiple of the block size.
    pub segment_bytes: u64,
    /// The shard whose log this is.
    pub shard: u16,
}

/// What one group wants durable with the next write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupWrite {
    /// The group.
    pub group: GroupId,
    /// Its full hard state.
    pub hard_state: HardState,
    /// The end of its log for votes once this is durable.
    pub last: Position,
    /// The entries to write, if any.
    pub run: Option<Run>,
    /// The encoded entries of `run`, in order.
    pub records: Vec<Bytes>,
    /// That the log begins anew behind a snapshot; then there is no run.
    pub reset: Option<Reset>,
}

impl GroupWrite {
    /// The same as several writes, each with at most this many bytes of records, to be made durable in order.
    ///
    /// Every part is a sound write of its own: a crash between two leaves a shorter log. A record larger than
    /// the bound gets a part of its own.
    pub fn split(self, records_bytes_max: usize) -> Vec<Self> {
        let Some(run) = self.run else { return vec![self] };
        let mut parts: Vec<Self> = Vec::new();
        let mut part_bytes = 0;
        for (record, index) in self.records.into_iter().zip(run.first.0..) {
            let position = position_of(&record, LogIndex(index));
            if parts.is_empty() || part_bytes + record.len() > records_bytes_max {
                let previous = parts.last().map_or(run.previous, |before: &Self| before.last);
                part_bytes = 0;
                parts.push(Self {
                    group: self.group,
                    hard_state: self.hard_state,
                    last: previous,
                    run: Some(Run { previous, first: position.index, ..run }),
                    records: Vec::new(),
                    reset: None,
                });
            }
            part_bytes += record.len();
            if let Some(part) = parts.last_mut() {
                part.last = position;
                part.run = part.run.map(|run| Run { last: position.index, ..run });
                part.records.push(record);
            }
        }
        for part in &mut parts {
            // A fill leaves the end of the log for votes where it was.
            if run.kind == RunKind::Fill {
                part.last = self.last;
            }
        }
        parts
    }
}

/// What openings must say of one hosted group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOpening {
    /// The group.
    pub group: GroupId,
    /// Its hard state; of use only if the log has not heard of the group yet.
    pub hard_state: HardState,
    /// The end of its log; of use only if the log has not heard of the group yet.
    pub last: Position,
    /// Its newest verified snapshot.
    pub snapshot: Position,
    /// Its configuration.
    pub configuration: Configuration,
}

/// A write to do, durably.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalWrite {
    /// The segment.
    pub segment: SegmentNumber,
    /// Bytes from the segment's start; a multiple of the block size.
    pub offset: u64,
    /// What to write: whole blocks.
    pub frame: Bytes,
}

/// Everything the log says of one group, as of the last frame.
#[derive(Clone, Debug)]
struct Hosted {
    hard_state: HardState,
    last: Position,
    snapshot: Position,
    counts_for_nothing: bool,
    configuration: Configuration,
}

/// What the frame before the next one held, which the next one must repeat.
#[derive(Clone, Debug)]
enum Before {
    /// Nothing: there is none, or the next frame is an opening anyway.
    Nothing,
    /// An opening: all groups, in full.
    Opening,
    /// These groups.
    Groups(Vec<GroupId>),
}

/// The write-ahead log of one shard, as its writer sees it.
#[derive(Debug)]
pub struct Wal {
    identity: Identity,
    hosted: BTreeMap<GroupId, Hosted>,
    segments: Segments,
    before: Before,
    is_opening_due: bool,
    is_in_flight: bool,
    seal: Seal,
}

impl Wal {
    /// The log of an empty directory. It has no segments; the first frame will be an opening.
    pub fn create(options: WalOptions, identity: Identity, salts_seed: u64) -> Self {
        let segments = Segments::none(checked_segment_bytes(options), salts_seed);
        Self::new(Identity { shard: options.shard, ..identity }, BTreeMap::new(), segments)
    }

    /// Goes on after what recovery found. The next frame is an opening: over the dropped frame if there was
    /// one.
    ///
    /// The seed must be fresh in every boot: a salt drawn twice makes old frames look like new ones.
    pub fn resume(options: WalOptions, recovered: &Recovered, salts_seed: u64) -> Self {
        let segment_bytes = checked_segment_bytes(options);
        let segments = Segments::found(segment_bytes, salts_seed, recovered);
        let hosted = recovered.groups.iter().map(|(group, found)| {
            let hosted = Hosted {
                hard_state: found.log.hard_state,
                last: found.last(),
                snapshot: found.snapshot,
                counts_for_nothing: found.counts_for_nothing,
                configuration: found.configuration.clone(),
            };
            (*group, hosted)
        });
        let identity = Identity { shard: options.shard, ..recovered.identity.unwrap_or_default() };
        Self::new(identity, hosted.collect(), segments)
    }

    fn new(identity: Identity, hosted: BTreeMap<GroupId, Hosted>, segments: Segments) -> Self {
        Self {
            identity,
            hosted,
            segments,
            before: Before::Nothing,
            is_opening_due: true,
            is_in_flight: false,
            seal: Seal::Done,
        }
    }

    /// The segment to make next, with the salt for its name. Each is asked for once, ahead of need.
    pub fn wants_segment(&mut self) -> Option<WantedSegment> {
        self.segments.wants()
    }

    /// A segment that is needed no more, neither as it is nor for the next one: its file may go. Ask until there is none.
    pub fn surplus_segment(&mut self) -> Option<(SegmentNumber, u64)> {
        self.segments.surplus()
    }

    /// The entries of a group up to and including `upto` are needed no more, because snapshots hold them.
    pub fn trim(&mut self, group: GroupId, upto: LogIndex) {
        self.segments.trim(group, upto);
    }

    /// The segment asked for exists, zero-filled, and its directory entry is durable.
    pub fn segment_ready(&mut self, segment: SegmentNumber) {
        self.segments.ready(segment);
    }

    /// Whether no write is in flight.
    pub fn is_idle(&self) -> bool {
        !self.is_in_flight
    }

    /// The most bytes of records that one write surely has room for, for one group.
    pub fn records_bytes_max(&self) -> usize {
        let opening = self.frame_bytes_count(FrameKind::Opening, &[]) + 2 * BLOCK_BYTES as u64;
        let room = self.segments.smallest_bytes().min(FRAME_BYTES_MAX as u64);
        usize::try_from(room.saturating_sub(opening)).expect("a frame fits in memory")
    }

    /// Says what openings must say from now on. A change makes the next frame an opening.
    ///
    /// Hard states and ends of logs are kept current from what is written; the ones given here count only for
    /// a group that is new to this log.
    pub fn set_opening(&mut self, identity: Identity, groups: Vec<GroupOpening>) {
        let identity = Identity { shard: self.identity.shard, ..identity };
        if self.identity != identity {
            self.identity = identity;
            self.is_opening_due = true;
        }
        let mut hosted = BTreeMap::new();
        for opening in groups {
            let known = self.hosted.remove(&opening.group);
            let is_same = known.as_ref().is_some_and(|known| {
                known.snapshot == opening.snapshot && known.configuration == opening.configuration
            });
            self.is_opening_due |= !is_same;
            let next = Hosted {
                hard_state: known.as_ref().map_or(opening.hard_state, |known| known.hard_state),
                last: known.as_ref().map_or(opening.last, |known| known.last),
                counts_for_nothing: known.is_some_and(|known| known.counts_for_nothing),
                snapshot: opening.snapshot,
                configuration: opening.configuration,
            };
            hosted.insert(opening.group, next);
        }
        self.is_opening_due |= !self.hosted.is_empty();
        self.hosted = hosted;
    }

    /// The next write: these groups' parts, with an opening in front if one is due or a segment begins.
    ///
    /// `None` if a write is in flight, if there is nothing to write, or if the segment that it needs is not
    /// ready. Then nothing has changed, and the same groups may be given again. One group appears once at the
    /// most.
    pub fn write(&mut self, _now: BootMicros, groups: &[GroupWrite]) -> Option<WalWrite> {
        if self.is_in_flight || (groups.is_empty() && !self.is_opening_due) {
            return None;
        }
        let kind = self.make_room(FrameKind::Batch, groups)?;
        Some(self.frame(kind, groups))
    }

    /// The write in flight is durable.
    pub fn written(&mut self, now: BootMicros) {
        assert!(self.is_in_flight, "only a write in flight becomes durable");
        self.is_in_flight = false;
        self.segments.durable();
        self.seal = self.seal.after_write(now);
    }

    /// When `seal` is to be called, unless something is written first.
    pub fn seal_deadline(&self) -> Option<BootMicros> {
        let kind = self.kind_due(FrameKind::Seal);
        let has_room =
            self.segments.fits(self.frame_bytes_count(kind, &[])) || self.segments.spare_bytes().is_some();
        if self.is_in_flight || !has_room {
            return None;
        }
        self.seal.deadline()
    }

    /// The seal, if its time has come. An opening stands in for it where the segment is full.
    pub fn seal(&mut self, now: BootMicros) -> Option<WalWrite> {
        if self.seal_deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        let kind = self.make_room(FrameKind::Seal, &[])?;
        sometimes!(Sealed);
        Some(self.frame(kind, &[]))
    }

    /// Makes sure that a frame fits, going on to the next segment if it must; returns the kind that it has to
    /// be.
    fn make_room(&mut self, wanted: FrameKind, groups: &[GroupWrite]) -> Option<FrameKind> {
        let kind = self.kind_due(wanted);
        if self.segments.fits(self.frame_bytes_count(kind, groups)) {
            return Some(kind);
        }
        let spare_bytes = self.segments.spare_bytes()?;
        assert!(
            self.frame_bytes_count(FrameKind::Opening, groups) <= spare_bytes,
            "a write is small enough for one segment"
        );
        self.segments.roll();
        Some(FrameKind::Opening)
    }

    /// The kind that the next frame has to be.
    fn kind_due(&self, wanted: FrameKind) -> FrameKind {
        if self.is_opening_due { FrameKind::Opening } else { wanted }
    }

    /// Whether a frame of this kind says everything about every group.
    fn says_everything(&self, kind: FrameKind) -> bool {
        kind == FrameKind::Opening || matches!(self.before, Before::Opening)
    }

    fn frame_bytes_count(&self, kind: FrameKind, groups: &[GroupWrite]) -> u64 {
        let mut count = 0;
        if self.says_everything(kind) {
            let openings = self.hosted.iter().map(|(group, hosted)| hosted.opening(*group));
            count += identity_bytes_count();
            count += openings.map(|opening| group_opening_bytes_count(&opening)).sum::<usize>();
        } else if let Before::Groups(before) = &self.before {
            count += repeat_bytes_count(before.len());
        }
        for write in groups {
            if write.reset.is_some() {
                count += reset_bytes_count();
                continue;
            }
            let records = write.records.iter().map(Bytes::len).sum();
            count += batch_bytes_count(write.run.map(|run| encoded_run(&run)).as_ref(), records);
        }
        FrameWriter::frame_bytes_count(count) as u64
    }

    /// Builds the frame, which fits, and takes it as written next.
    fn frame(&mut self, kind: FrameKind, groups: &[GroupWrite]) -> WalWrite {
        let next = self.segments.next();
        let place = Place {
            segment: next.segment.0,
            salt: next.salt,
            sequence: next.sequence,
            previous_hash: next.previous_hash,
        };
        let size = usize::try_from(self.frame_bytes_count(kind, groups)).expect("a frame fits in memory");
        let mut frame = FrameWriter::new(kind, place, size - FRAME_HEADER_BYTES);
        self.repeat_before(kind, &mut frame);
        for write in groups {
            self.batch(write, &mut frame);
        }
        let (bytes, hash) = frame.finish();
        self.segments.placed(bytes.len() as u64, hash);
        self.after_frame(kind, groups);
        WalWrite { segment: next.segment, offset: next.offset, frame: Bytes::from(bytes) }
    }

    /// What a frame says before its own batches: everything, or the groups of the frame before it.
    fn repeat_before(&self, kind: FrameKind, frame: &mut FrameWriter) {
        if planted!(54) && kind != FrameKind::Opening {
            return;
        }
        if self.says_everything(kind) {
            frame.identity(&self.identity);
            for (group, hosted) in &self.hosted {
                frame.group_opening(&hosted.opening(*group));
            }
        } else if let Before::Groups(before) = &self.before {
            let hosted = before.iter().filter_map(|group| Some((*group, self.hosted.get(group)?)));
            let tails: Vec<_> =
                hosted.map(|(group, hosted)| encoded_tail(group, hosted.hard_state, hosted.last)).collect();
            frame.repeat(&tails);
        }
    }

    fn batch(&mut self, write: &GroupWrite, frame: &mut FrameWriter) {
        let announced = write.run.map_or(0, |run| run.last.0 - run.previous.index.0);
        assert!(announced == write.records.len() as u64, "a run brings the records it announces");
        let tail = encoded_tail(write.group, write.hard_state, write.last);
        if let Some(reset) = write.reset {
            assert!(write.run.is_none(), "a reset comes without entries");
            frame.reset(&encoded_reset(tail, reset));
        } else {
            let run = write.run.map(|run| encoded_run(&run));
            frame.batch(&tail, run.as_ref(), write.records.iter().map(Bytes::as_ref));
        }
        let hosted = self.hosted.entry(write.group).or_insert_with(Hosted::unknown);
        hosted.hard_state = write.hard_state;
        hosted.last = write.last;
        if let Some(run) = &write.run {
            self.segments.holds(write.group, run.last);
        }
    }

    fn after_frame(&mut self, kind: FrameKind, groups: &[GroupWrite]) {
        self.is_in_flight = true;
        self.is_opening_due &= kind != FrameKind::Opening;
        self.seal = if kind == FrameKind::Seal { Seal::Done } else { Seal::Waiting };
        self.before = match (kind, &self.before) {
            (FrameKind::Opening, _) => Before::Opening,
            // A seal holds the groups it repeats and no others.
            (FrameKind::Seal, Before::Opening) => Before::Groups(self.hosted.keys().copied().collect()),
            (FrameKind::Seal, before) => before.clone(),
            (FrameKind::Batch | FrameKind::Reset, _) => {
                Before::Groups(groups.iter().map(|write| write.group).collect())
            }
        };
    }
}

impl Hosted {
    /// A group of which openings were told nothing yet.
    fn unknown() -> Self {
        Self {
            hard_state: HardState::default(),
            last: Position::START,
            snapshot: Position::START,
            counts_for_nothing: false,
            configuration: Configuration::default(),
        }
    }

    fn opening(&self, group: GroupId) -> wal_format::GroupOpening {
        wal_format::GroupOpening {
            tail: encoded_tail(group, self.hard_state, self.last),
            snapshot: encoded_position(self.snapshot),
            counts_for_nothing: self.counts_for_nothing,
            configuration: if planted!(27) && self.snapshot != Position::START {
                Configuration::default()
            } else {
                self.configuration.clone()
            },
        }
    }
}

/// The position of an entry of ours, from its record.
fn position_of(record: &Bytes, index: LogIndex) -> Position {
    let (header, _) = wal_format::decode_entry_again(record).expect("a record was checked when it came in");
    assert!(header.index == index.0, "the records of a run are in order");
    Position { index, term: Term(header.term) }
}

fn checked_segment_bytes(options: WalOptions) -> u64 {
    assert!(
        options.segment_bytes.is_multiple_of(BLOCK_BYTES as u64),
        "a segment is a whole number of blocks"
    );
    assert!(options.segment_bytes >= WAL_SEGMENT_BYTES_MIN, "a segment holds an opening and then some");
    options.segment_bytes
}
