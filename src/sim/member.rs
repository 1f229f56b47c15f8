//! One member: a shard, the disk and the clock it runs on, and what waits for its next turn.
//!
//! Always: a boot sees only its own clock and what its own disk holds; what was meant for an earlier boot never
//! reaches a later one.

use super::clock::{BootClock, TrueMicros};
use super::disk::{Disk, DiskWrite};
use super::durable::{DurableImage, FrameFacts, RunFacts};
use super::fault_plan::FaultPlan;
use super::invariants::Broken;
use super::random::{Random, fingerprint};
use crate::ids::{GroupId, LogIndex, MemberId, Term};
use crate::raft::Position;
use crate::replica::{Input, Observation, Options, Shard};
use wal_format::{Frame, GroupTail, RunKind, Section};

/// A member of the simulated cluster.
pub(super) struct Member {
    /// Its name.
    pub(super) id: MemberId,
    /// Counts its boots, and its deaths.
    pub(super) boot: u32,
    /// The process, if it runs.
    pub(super) shard: Option<Shard>,
    /// Its disk.
    pub(super) disk: Disk,
    /// This boot's clock.
    pub(super) clock: BootClock,
    /// What the next turn takes.
    pub(super) inbox: Vec<Input>,
    /// When a turn is planned; several may be, and this is the first.
    pub(super) turn_at: TrueMicros,
    /// Until when the process stands still.
    pub(super) paused_until: TrueMicros,
    /// When the last frame that waited for it to go on arrives.
    pub(super) drained_at: TrueMicros,
    /// Until when its disk completes nothing.
    pub(super) stalled_until: TrueMicros,
    /// Since when its disk has owed it entries, and where its log ended then.
    pub(super) owed_since: Option<(TrueMicros, LogIndex)>,
    /// What is durable.
    pub(super) image: DurableImage,
    /// What was durable on the disk that was lost. One lost disk is borne, so what it held at its end still counts.
    pub(super) lost_image: Option<DurableImage>,
    /// How it looked after its last turn in this boot.
    pub(super) observed: Option<Observation>,
    /// Its disk was lost: whatever it does now counts for nothing.
    pub(super) is_wiped: bool,
    /// It does not come back in this run.
    pub(super) is_kept_down: bool,
    /// Its disk has rotted and it has not recovered whole since.
    pub(super) is_rotten: bool,
    session_idle_micros: u64,
}

impl Member {
    /// A member that has not booted yet, with an empty disk.
    pub(super) fn new(id: MemberId, session_idle_micros: u64, random: &mut Random) -> Self {
        Self {
            id,
            boot: 0,
            shard: None,
            disk: Disk::new(),
            clock: BootClock::new(TrueMicros(0), 0, random),
            inbox: Vec::new(),
            turn_at: TrueMicros(u64::MAX),
            paused_until: TrueMicros(0),
            drained_at: TrueMicros(0),
            stalled_until: TrueMicros(0),
            owed_since: None,
            image: DurableImage::default(),
            lost_image: None,
            observed: None,
            is_wiped: false,
            is_kept_down: false,
            is_rotten: false,
            session_idle_micros,
        }
    }

    /// Starts a process on what the disk holds.
    ///
    /// # Errors
    /// If it says it cannot: nothing that this simulator does to a disk justifies that.
    pub(super) fn start(
        &mut self,
        now: TrueMicros,
        plan: &FaultPlan,
        random: &mut Random,
    ) -> Result<(), Broken> {
        self.clock = BootClock::new(now, plan.drift_ppm, random);
        let options = Options {
            member: self.id,
            initial_members: (1..=plan.members_count as u64).map(MemberId).collect(),
            election_micros: plan.election_micros,
            heartbeat_micros: plan.election_micros / 6,
            session_idle_micros: self.session_idle_micros,
            segment_bytes: plan.segment_bytes,
            seed: random.next_u64(),
        };
        let shard = Shard::start(options, self.disk.segments(), self.clock.read(now));
        self.observed = None;
        self.inbox.clear();
        self.turn_at = TrueMicros(u64::MAX);
        match shard {
            Ok(shard) => {
                self.shard = Some(shard);
                Ok(())
            }
            Err(refused) => Err(Broken {
                invariant: "a_member_starts_from_what_a_crash_leaves",
                explanation: format!("{} does not start: {refused}", self.id),
            }),
        }
    }

    /// What counts of its disk when the disks that hold an entry are counted.
    pub(super) fn counting_image(&self) -> &DurableImage {
        self.lost_image.as_ref().unwrap_or(&self.image)
    }

    /// Whether its process runs.
    pub(super) const fn is_up(&self) -> bool {
        self.shard.is_some()
    }

    /// The record of a log entry, as its process holds it.
    pub(super) fn record(&self, index: LogIndex) -> Option<bytes::Bytes> {
        self.shard.as_ref()?.record(GroupId::FIRST, index)
    }

    /// A write has landed for good: takes it into the image. Returns the runs of entries in it.
    ///
    /// # Errors
    /// If the frame does not decode, or takes back what was durable.
    pub(super) fn land(&mut self, write: &DiskWrite) -> Result<Vec<RunFacts>, Broken> {
        let salt = self.disk.segment(write.segment).map_or(0, |segment| segment.salt);
        let Some(facts) = read_frame(&write.bytes, salt) else {
            return Err(Broken {
                invariant: "what_is_written_decodes",
                explanation: format!("{} wrote a frame to {} that does not decode", self.id, write.segment),
            });
        };
        let range = write.offset..write.offset + write.bytes.len();
        self.image.land(write.segment, range, &facts)?;
        Ok(facts.runs)
    }

    /// Whether all of `write` stands on the disk.
    pub(super) fn has_landed(&self, write: &DiskWrite) -> bool {
        let range = write.offset..write.offset + write.bytes.len();
        self.disk.read(write.segment, range) == Some(&write.bytes[..])
    }
}

/// What a frame says about the first group; `None` if any of it does not decode.
pub(super) fn read_frame(bytes: &[u8], salt: u64) -> Option<FrameFacts> {
    let frame = Frame::decode(bytes, salt).ok()?;
    let mut facts = FrameFacts::default();
    for section in frame.sections() {
        match section.ok()? {
            Section::Batch(batch) => {
                if batch.tail.group != GroupId::FIRST.0 {
                    continue;
                }
                note_tail(&mut facts, &batch.tail);
                let Some(run) = batch.run else { continue };
                let mut entries = Vec::new();
                for record in batch.records {
                    let record = record.ok()?;
                    entries.push((Term(record.header.term), fingerprint(record.bytes)));
                }
                facts.runs.push(RunFacts {
                    is_fill: run.kind == RunKind::Fill,
                    previous: Position { index: LogIndex(run.previous.index), term: Term(run.previous.term) },
                    entries,
                });
            }
            Section::GroupOpening(opening) if opening.tail.group == GroupId::FIRST.0 => {
                note_tail(&mut facts, &opening.tail);
            }
            // Repeats say what an earlier frame said; resets come with snapshots.
            Section::Identity(_) | Section::GroupOpening(_) | Section::Repeat(_) | Section::Reset(_) => {}
        }
    }
    Some(facts)
}

fn note_tail(facts: &mut FrameFacts, tail: &GroupTail) {
    let vote = (tail.hard_state.vote != 0).then_some(MemberId(tail.hard_state.vote));
    facts.hard_state = Some((Term(tail.hard_state.term), vote));
}
