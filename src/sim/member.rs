//! One member: a shard, the disk and the clock it runs on, and what waits for its next turn.
//!
//! Always: a boot sees only its own clock and what its own disk holds; what was meant for an earlier boot never
//! reaches a later one.

use super::clock::{BootClock, TrueMicros};
use super::disk::{Disk, DiskWrite};
use super::durable::{DurableImage, FrameFacts, ResetFacts, RunFacts};
use super::fault_plan::FaultPlan;
use super::invariants::Broken;
use super::random::{Random, fingerprint};
use super::watchers;
use crate::ids::{GroupId, LogIndex, MemberId, SegmentNumber, Term};
use crate::peer::PEER_VERSIONS;
use crate::raft::Position;
use crate::replica::{Input, Observation, Options, Shard, restore_newest};
use std::collections::VecDeque;
use wal_format::{Frame, GroupTail, RunKind, Section};

/// A crash at a completion of a member's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CrashPoint {
    /// Completions still to come, the fatal one included; at least one.
    pub(super) completions_left: u64,
    /// Whether what completes then is still under way when the member dies, or is done and the member not told.
    pub(super) is_torn: bool,
}

/// A segment being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Making {
    pub(super) segment: SegmentNumber,
    pub(super) salt: u64,
    /// The one that it is made of.
    pub(super) recycled: Option<SegmentNumber>,
}

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
    /// Its last turns, if nothing came in or out and each wanted another at once.
    pub(super) vain_turns: u32,
    /// Until when the process stands still.
    pub(super) paused_until: TrueMicros,
    /// When the last frame that waited for it to go on arrives.
    pub(super) drained_at: TrueMicros,
    /// Until when its disk completes nothing.
    pub(super) stalled_until: TrueMicros,
    /// Until when its processor is slow.
    pub(super) slow_until: TrueMicros,
    /// Until when its disk is slow.
    pub(super) disk_slow_until: TrueMicros,
    /// Until when its disk answers some requests with errors.
    pub(super) disk_sick_until: TrueMicros,
    /// Until when its disk has no room for another segment.
    pub(super) disk_full_until: TrueMicros,
    /// The segment being made.
    pub(super) making: Option<Making>,
    /// Completions of its disk after which it dies, counted down; `None` for never.
    pub(super) dies_after: Option<CrashPoint>,
    /// Where it dies in its next boots, if that is laid down.
    pub(super) deaths: VecDeque<CrashPoint>,
    /// Completions of its disk so far, over all boots.
    pub(super) completions_count: u64,
    /// When it last heard each member, in this boot.
    pub(super) heard_at: Vec<TrueMicros>,
    /// Whether each member has greeted it in this boot.
    pub(super) greeted: Vec<bool>,
    /// Since when it leads its term.
    pub(super) led_since: TrueMicros,
    /// Since when its disk has owed it entries, and where its log ended then.
    pub(super) owed_since: Option<(TrueMicros, LogIndex)>,
    /// What is durable.
    pub(super) image: DurableImage,
    /// What its disk once held, to be set back to; only beyond the promise.
    pub(super) old_disk: Option<Disk>,
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
            vain_turns: 0,
            paused_until: TrueMicros(0),
            drained_at: TrueMicros(0),
            stalled_until: TrueMicros(0),
            slow_until: TrueMicros(0),
            disk_slow_until: TrueMicros(0),
            disk_sick_until: TrueMicros(0),
            disk_full_until: TrueMicros(0),
            making: None,
            dies_after: None,
            deaths: VecDeque::new(),
            completions_count: 0,
            heard_at: Vec::new(),
            greeted: Vec::new(),
            led_since: TrueMicros(0),
            owed_since: None,
            image: DurableImage::default(),
            old_disk: None,
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
            lease: plan.lease(random),
            session_idle_micros: self.session_idle_micros,
            waiting_max: plan.waiting_max,
            state_check_entries: plan.state_check_entries,
            quota_bytes: plan.quota_bytes,
            watches: watchers::BOUNDS,
            snapshots: plan.snapshots,
            segment_bytes: plan.segment_bytes,
            seed: random.next_u64(),
        };
        let files = &self.disk.snapshots;
        let read = |file, offset, bytes_count| files.read(file, offset, bytes_count).map(bytes::Bytes::from);
        let found = restore_newest(options.seed, &files.names(), read);
        let shard = Shard::start(options, &self.disk.found(), found, self.clock.read(now));
        self.observed = None;
        self.inbox.clear();
        self.turn_at = TrueMicros(u64::MAX);
        self.heard_at = vec![now; plan.members_count];
        self.greeted = vec![false; plan.members_count];
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

    /// The segment being made is there.
    ///
    /// # Errors
    /// If what it was made of held something that is needed.
    pub(super) fn make(&mut self, making: Making, plan: &FaultPlan) -> Result<(), Broken> {
        let Making { segment, salt, recycled } = making;
        if let Some(old) = recycled {
            self.disk.recycle_segment(old, segment, salt);
            self.forget_segment(old, plan)?;
        }
        self.disk.make_segment(segment, salt, plan.segment_bytes, plan.is_recycling);
        Ok(())
    }

    /// A segment is removed, as the process wants it.
    ///
    /// # Errors
    /// If it held something that is needed.
    pub(super) fn remove_segment(&mut self, segment: SegmentNumber, plan: &FaultPlan) -> Result<(), Broken> {
        self.disk.remove_segment(segment);
        self.forget_segment(segment, plan)
    }

    fn forget_segment(&mut self, segment: SegmentNumber, plan: &FaultPlan) -> Result<(), Broken> {
        let forgotten = self.image.forget_segment(segment);
        if plan.exceeds { Ok(()) } else { forgotten }
    }

    /// Its clock stands still for so long: whatever it waits for takes that much longer.
    pub(super) fn waits_longer(&mut self, micros: u64) {
        self.owed_since = self.owed_since.map(|(since, log_end)| (since.after(micros), log_end));
        self.led_since = self.led_since.after(micros);
        for heard_at in &mut self.heard_at {
            *heard_at = heard_at.after(micros);
        }
    }

    /// Before anything else of a peer comes its greeting.
    pub(super) fn greeted_by(&mut self, peer: usize) {
        if self.is_up()
            && let Some(greeted) = self.greeted.get_mut(peer)
            && !std::mem::replace(greeted, true)
        {
            let peer = MemberId(peer as u64 + 1);
            self.inbox.push(Input::PeerSpeaks { peer, version: PEER_VERSIONS.1 });
        }
    }

    /// A turn takes what waits: whoever sent any of it is heard now.
    pub(super) fn hear_inbox(&mut self, now: TrueMicros) {
        let now = self.clock.counts_from(now);
        for input in &self.inbox {
            if let Input::Peer { from, .. } = input
                && let Some(heard_at) =
                    usize::try_from(from.0).ok().and_then(|at| self.heard_at.get_mut(at - 1))
            {
                *heard_at = now;
            }
        }
    }

    /// The latest instant since which it has heard a majority, itself included.
    pub(super) fn majority_heard_at(&self, me: usize) -> TrueMicros {
        let mut heard: Vec<_> = self.heard_at.clone();
        if let Some(own) = heard.get_mut(me) {
            *own = TrueMicros(u64::MAX);
        }
        heard.sort_unstable();
        heard.get((heard.len().max(1) - 1) / 2).copied().unwrap_or(TrueMicros(u64::MAX)).max(self.led_since)
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

    /// The whole frame that stands, after a crash, where `write` was under way. Mostly it is that write, if any; but
    /// sectors of it may also have completed a frame that an earlier crash tore at the same place.
    pub(super) fn frame_left_by(&self, write: &DiskWrite) -> Option<DiskWrite> {
        let segment = self.disk.segment(write.segment)?;
        let there = segment.bytes.get(write.offset..)?;
        let meant = Frame::decode(&write.bytes, segment.salt).ok()?;
        let found = Frame::decode(there, segment.salt).ok()?;
        let bytes = there.get(..found.header.bytes_count)?;
        (found.header.place == meant.header.place)
            .then(|| DiskWrite { bytes: bytes::Bytes::copy_from_slice(bytes), ..write.clone() })
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
            Section::Reset(reset) if reset.tail.group == GroupId::FIRST.0 => {
                note_tail(&mut facts, &reset.tail);
                facts.reset = Some(ResetFacts {
                    is_fill: reset.kind == RunKind::Fill,
                    snapshot: Position {
                        index: LogIndex(reset.snapshot.index),
                        term: Term(reset.snapshot.term),
                    },
                });
            }
            // Repeats say what an earlier frame said.
            Section::Identity(_) | Section::GroupOpening(_) | Section::Repeat(_) | Section::Reset(_) => {}
        }
    }
    Some(facts)
}

fn note_tail(facts: &mut FrameFacts, tail: &GroupTail) {
    let vote = (tail.hard_state.vote != 0).then_some(MemberId(tail.hard_state.vote));
    let commit = LogIndex(tail.hard_state.commit);
    facts.hard_state = Some((Term(tail.hard_state.term), vote, commit));
}
