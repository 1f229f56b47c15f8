//! A snapshot being cut: told by the store in slices, written piece by piece, read back, and given its name.
//!
//! ```text
//!   cut ──> writing: slices ─> parts ─> pieces ──> reading back ──> naming ──> it counts
//!                 one piece at the disk at a time        any difference: given up, and tried again later
//! ```
//!
//! Always: everything but the store is copied in the turn of the cut, and the store is held at it, so that the file is
//! the state after one entry; what a turn does here is bounded; parts end where the records say and not where a turn
//! did, so that members write equal bytes. Left out: when one is cut (`snapshots`).

use super::group::Replica;
use super::sessions_bytes::SessionsCut;
use super::snapshots::{OrderedBy, SnapshotPolicy, file_of, micros_for};
use super::{FileDone, FileOrder, Output};
use crate::ids::BootMicros;
use crate::kv::{Cut, Store};
use crate::limits::{SNAPSHOT_PART_BYTES, SNAPSHOT_STEPS_PER_TURN};
use crate::raft::Position;
use crate::snapshot::{Damage, FileKind, FileName, HEADER_BYTES, Kind, Opening, Reader, Verified, Writer};
use crate::sometimes;
use bytes::{Bytes, BytesMut};

/// A snapshot being cut.
pub(super) struct Cutting {
    file: FileName,
    /// What is still to be told of the store.
    cut: Cut,
    /// What is still to be told of the sessions.
    sessions: SessionsCut,
    /// What is still to be told of users and roles.
    users: Bytes,
    /// None once all parts are made.
    writer: Option<Writer>,
    /// What the file will be, once all parts are made.
    expected: Option<Verified>,
    /// Made, and not at the disk yet: whole parts, and behind them what there is of the next.
    waiting: BytesMut,
    /// Bytes of the whole parts.
    whole_bytes: usize,
    /// Bytes that the disk has, or that are on their way to it.
    offset: u64,
    policy: SnapshotPolicy,
    bytes_per_second: u64,
    stage: Stage,
    /// What was ordered of the disk.
    ticket: Option<u64>,
    /// Nothing is ordered before this, so that the disk has time for the log.
    rests_until: BootMicros,
}

enum Stage {
    Writing,
    /// Everything is durable, and is read back up to this offset.
    Reading(Reader, u64),
    Naming,
}

impl Cutting {
    /// The last entry that is in it, if its file may have its final name already.
    pub(super) fn being_named(&self) -> Option<Position> {
        matches!(self.stage, Stage::Naming).then_some(self.file.position)
    }

    /// When it wants to go on.
    pub(super) fn deadline(&self) -> BootMicros {
        if self.ticket.is_none() {
            self.rests_until
        } else if self.has_room() {
            BootMicros(0)
        } else {
            BootMicros(u64::MAX)
        }
    }

    /// Whether more may be made before what is waiting is at the disk.
    fn has_room(&self) -> bool {
        self.expected.is_none() && self.whole_bytes < self.policy.piece_bytes
    }

    /// Makes parts, as many as fit into a turn and as the next piece needs.
    fn make_parts(&mut self, store: &mut Store) {
        let mut steps_left = SNAPSHOT_STEPS_PER_TURN;
        while steps_left > 0 && self.has_room() {
            let Some(writer) = &mut self.writer else { return };
            if let Some(part) = self.sessions.part() {
                writer.part(Kind::Sessions, &part, &mut self.waiting);
                self.whole_bytes = self.waiting.len();
                continue;
            }
            if !self.users.is_empty() {
                let part = self.users.split_to(self.users.len().min(SNAPSHOT_PART_BYTES));
                writer.part(Kind::Users, &part, &mut self.waiting);
                self.whole_bytes = self.waiting.len();
                continue;
            }
            let steps = steps_left.clamp(1, SNAPSHOT_STEPS_PER_TURN / 4);
            steps_left -= steps;
            if self.waiting.len() == self.whole_bytes {
                // Room for two parts at a time: of those, hardly anything is moved.
                let part_bytes = HEADER_BYTES + SNAPSHOT_PART_BYTES;
                if self.waiting.capacity() - self.waiting.len() < part_bytes {
                    self.waiting.reserve(2 * part_bytes);
                }
                Writer::begin_part(&mut self.waiting);
            }
            let payload_start = self.whole_bytes + HEADER_BYTES;
            let bytes_max = payload_start + SNAPSHOT_PART_BYTES;
            let is_told = !self.cut.slice(store, bytes_max, steps, &mut self.waiting);
            if self.waiting.len() >= bytes_max || (is_told && self.waiting.len() > payload_start) {
                writer.end_part(Kind::Store, self.whole_bytes, &mut self.waiting);
                self.whole_bytes = self.waiting.len();
            }
            if is_told {
                store.release();
                self.waiting.truncate(self.whole_bytes);
                if let Some(writer) = self.writer.take() {
                    self.expected = Some(writer.finish(&mut self.waiting));
                    self.whole_bytes = self.waiting.len();
                }
            }
        }
    }

    /// The next piece for the disk, if there is enough for one.
    fn next_piece(&mut self) -> Option<FileOrder> {
        let count = self.whole_bytes.min(self.policy.piece_bytes);
        let is_last = self.expected.is_some() && count == self.whole_bytes;
        if count == 0 || (count < self.policy.piece_bytes && !is_last) {
            return None;
        }
        let bytes = self.waiting.split_to(count).freeze();
        self.whole_bytes -= count;
        let offset = self.offset;
        self.offset += bytes.len() as u64;
        let is_synced = self.policy.is_synced(offset, bytes.len(), is_last);
        Some(FileOrder::Write { offset, bytes, is_synced })
    }

    /// What is to be ordered of the disk next.
    fn next_order(&mut self) -> Option<FileOrder> {
        match &mut self.stage {
            Stage::Writing => match self.next_piece() {
                Some(piece) => Some(piece),
                None if self.expected.is_some() => {
                    self.stage = Stage::Reading(Reader::new(), 0);
                    Some(FileOrder::Read { offset: 0, bytes_count: self.policy.piece_bytes })
                }
                None => None,
            },
            Stage::Reading(_, offset) if *offset < self.offset => {
                Some(FileOrder::Read { offset: *offset, bytes_count: self.policy.piece_bytes })
            }
            Stage::Reading(..) => {
                self.stage = Stage::Naming;
                Some(FileOrder::Keep)
            }
            Stage::Naming => None,
        }
    }

    /// Some bytes were read back. False if they are not what was written.
    fn was_read(&mut self, bytes: &[u8]) -> bool {
        let Stage::Reading(reader, offset) = &mut self.stage else { return false };
        *offset += bytes.len() as u64;
        if bytes.is_empty() || reader.feed(bytes, |_| Ok::<_, Damage>(())).is_err() {
            return false;
        }
        *offset < self.offset || std::mem::take(reader).finish().ok() == self.expected
    }
}

impl Replica {
    /// Cuts a snapshot of everything applied.
    pub(super) fn begin_cutting(&mut self, now: BootMicros, bytes_per_second: u64) {
        let position = Position { index: self.applied, term: self.applied_term };
        let cut = self.store.cut();
        let opening = Opening {
            cluster: self.setup.cluster,
            group: self.setup.group,
            position,
            state_hash: self.state_hash,
            revision: cut.revision(),
            compacted: cut.compacted(),
            lease_micros: self.lease_terms.micros,
            lease_drift_ppm: self.lease_terms.drift_ppm,
            configuration: self.setup.configuration.clone(),
        };
        let mut waiting = BytesMut::new();
        let writer = Writer::new(&opening, &mut waiting);
        self.snapshots.cutting = Some(Cutting {
            file: file_of(self.setup.group, position, FileKind::Part),
            cut,
            sessions: self.sessions.cut(),
            users: if self.auth.has_history() { Bytes::from(self.auth.to_bytes()) } else { Bytes::new() },
            writer: Some(writer),
            expected: None,
            whole_bytes: waiting.len(),
            waiting,
            offset: 0,
            policy: self.snapshots.policy,
            bytes_per_second,
            stage: Stage::Writing,
            ticket: None,
            rests_until: now,
        });
    }

    /// The snapshot under way goes on, as far as the disk and the turn allow.
    pub(super) fn carry_on_cutting(&mut self, now: BootMicros, outputs: &mut Vec<Output>) {
        let Some(mut cutting) = self.snapshots.cutting.take() else { return };
        cutting.make_parts(&mut self.store);
        if cutting.ticket.is_none()
            && cutting.rests_until <= now
            && let Some(order) = cutting.next_order()
        {
            // What is read back costs about half of what is written.
            let bytes_count = match &order {
                FileOrder::Write { bytes, .. } => bytes.len(),
                FileOrder::Read { bytes_count, .. } => *bytes_count / 2,
                FileOrder::Keep | FileOrder::Distrust | FileOrder::Remove => 0,
            };
            let pace = if self.is_cut_urgent() {
                self.snapshots.policy.bytes_per_second
            } else {
                cutting.bytes_per_second
            };
            cutting.rests_until = now.after(micros_for(bytes_count, pace));
            cutting.ticket = Some(self.snapshots.order(OrderedBy::Cutting, cutting.file, order, outputs));
        }
        self.snapshots.cutting = Some(cutting);
    }

    /// What the cutting ordered is done, or has failed.
    pub(super) fn cutting_done(
        &mut self,
        now: BootMicros,
        ticket: u64,
        done: &FileDone,
        outputs: &mut Vec<Output>,
    ) {
        let Some(cutting) = self.snapshots.cutting.as_mut().filter(|it| it.ticket == Some(ticket)) else {
            return;
        };
        cutting.ticket = None;
        let is_sound = match (done, &cutting.stage) {
            (FileDone::Written, Stage::Writing) | (FileDone::Kept, Stage::Naming) => true,
            (FileDone::Read(bytes), Stage::Reading(..)) => cutting.was_read(bytes),
            (FileDone::Written | FileDone::Read(_) | FileDone::Kept | FileDone::Failed, _) => false,
        };
        if !is_sound {
            sometimes!(SnapshotGivenUp);
            self.give_up_cutting();
            self.snapshots.rest(now);
        } else if *done == FileDone::Kept
            && let Some(Cutting { expected: Some(verified), .. }) = self.snapshots.cutting.take()
        {
            self.snapshots.was_cut(verified);
            self.snapshot_counts(verified);
            self.tell_savers(now, verified, outputs);
        }
    }

    /// Nothing comes of the snapshot under way.
    pub(super) fn give_up_cutting(&mut self) {
        if let Some(cutting) = self.snapshots.cutting.take() {
            self.store.release();
            self.snapshots.saves.cut_failed();
            self.snapshots.discard(cutting.file);
        }
    }
}
