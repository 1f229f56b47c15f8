//! Snapshots on their way from one member to another: a leader reads pieces of its newest, a follower writes them to a file
//! of its own, reads it back, and puts the state in it in the place of its own.
//!
//! ```text
//!   leader                                        follower
//!   raft wants a chunk ─> read a piece ──────────> write it durably ─> acknowledge ─> …
//!                                                 the last one: read all back, restore, name it,
//!                                                 then log, store and sessions change in one turn
//! ```
//!
//! Always: a chunk is acknowledged when it is durable, and what is acknowledged need not be sent again; a received file
//! counts only when it was read back and found to be what the leader named; the state is replaced only if raft says so,
//! which it does never below what is committed here; a leader that finds its own file damaged cuts another one. Left out:
//! which follower needs one, and what is sent again (`raft`).

use super::group::Replica;
use super::restore::{Restored, Restorer};
use super::snapshots::{OrderedBy, file_of, name_of};
use super::state_check::StateCheck;
use super::{FileDone, FileOrder, Output};
use crate::ids::{BootMicros, MemberId};
use crate::peer::Body;
use crate::raft::{Installed, Position, SnapshotName};
use crate::snapshot::{BLOCK_BYTES, Damage, FileKind, FileName, Reader};
use crate::sometimes;
use bytes::Bytes;
use std::collections::BTreeMap;

/// A chunk that raft wants of a file.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    to: MemberId,
    session: u64,
    snapshot: SnapshotName,
    offset: u64,
}

/// What is being sent, to whom.
#[derive(Default)]
pub(super) struct Chunks {
    /// Wanted, and not read before this instant: a follower is sent only so much in a second.
    waiting: Vec<(BootMicros, Wanted)>,
    /// Being read, by their tickets.
    reading: BTreeMap<u64, Wanted>,
    /// Of each follower, when it may be sent more, and what was sent of which file.
    followers: BTreeMap<MemberId, Sending>,
}

/// A file being sent to one follower.
struct Sending {
    rests_until: BootMicros,
    snapshot: SnapshotName,
    /// Looks at everything that leaves, so that a file that rotted is found here.
    reader: Reader,
    offset: u64,
}

impl Chunks {
    /// When one is to be read.
    pub(super) fn deadline(&self) -> BootMicros {
        self.waiting.iter().map(|(due, _)| *due).min().unwrap_or(BootMicros(u64::MAX))
    }

    /// Whether what leaves next is sound, as far as can be told.
    fn is_sound(&mut self, wanted: &Wanted, bytes: &[u8]) -> bool {
        let Some(sending) = self.followers.get_mut(&wanted.to) else { return true };
        if wanted.offset == 0 || sending.snapshot != wanted.snapshot {
            sending.snapshot = wanted.snapshot;
            (sending.reader, sending.offset) = (Reader::new(), 0);
        }
        if wanted.offset != sending.offset {
            return true;
        }
        sending.offset += bytes.len() as u64;
        sending.reader.feed(bytes, |_| Ok::<_, Damage>(())).is_ok()
    }
}

/// A snapshot being received.
pub(super) struct Incoming {
    snapshot: SnapshotName,
    file: FileName,
    stage: Stage,
    ticket: Option<u64>,
}

enum Stage {
    /// A chunk of so many bytes is being written at an offset, or the next is awaited.
    Receiving { offset: u64, bytes_count: u32 },
    /// Everything is durable, and is read back up to this offset.
    Reading { restorer: Box<Restorer>, offset: u64 },
    /// It is being given its name.
    Naming(Box<Restored>),
}

impl Replica {
    /// Raft wants a chunk of a snapshot for a follower.
    pub(super) fn chunk_wanted(
        &mut self,
        now: BootMicros,
        (to, session): (MemberId, u64),
        (snapshot, offset): (SnapshotName, u64),
    ) {
        let chunks = &mut self.snapshots.chunks;
        let due = chunks.followers.get(&to).map_or(now, |sending| sending.rests_until.max(now));
        chunks.waiting.push((due, Wanted { to, session, snapshot, offset }));
    }

    /// Reads what is to be sent now.
    pub(super) fn carry_on_sending(&mut self, now: BootMicros, outputs: &mut Vec<Output>) {
        let mut waiting = std::mem::take(&mut self.snapshots.chunks.waiting);
        waiting.retain(|(due, wanted)| {
            if *due > now {
                return true;
            }
            let left = wanted.snapshot.bytes_count.saturating_sub(wanted.offset);
            let bytes_count =
                usize::try_from(left).unwrap_or(usize::MAX).min(self.snapshots.policy.piece_bytes);
            let file = file_of(self.setup.group, wanted.snapshot.position, FileKind::Whole);
            let order = FileOrder::Read { offset: wanted.offset, bytes_count };
            let ticket = self.snapshots.order(OrderedBy::Chunks, file, order, outputs);
            let rests_until = now.after(self.snapshots.policy.micros_for(bytes_count));
            let chunks = &mut self.snapshots.chunks;
            chunks.reading.insert(ticket, *wanted);
            let sending = chunks.followers.entry(wanted.to).or_insert_with(|| Sending {
                rests_until,
                snapshot: wanted.snapshot,
                reader: Reader::new(),
                offset: 0,
            });
            sending.rests_until = rests_until;
            false
        });
        self.snapshots.chunks.waiting.append(&mut waiting);
    }

    /// A chunk was read, or could not be.
    pub(super) fn chunk_done(
        &mut self,
        now: BootMicros,
        ticket: u64,
        done: FileDone,
        outputs: &mut Vec<Output>,
    ) {
        let Some(wanted) = self.snapshots.chunks.reading.remove(&ticket) else { return };
        let Wanted { to, session, snapshot, offset } = wanted;
        let bytes = match done {
            FileDone::Read(bytes) => bytes,
            FileDone::Written | FileDone::Kept | FileDone::Failed => Bytes::new(),
        };
        let is_sound = self.snapshots.chunks.is_sound(&wanted, &bytes);
        if bytes.is_empty() || !is_sound {
            sometimes!(SnapshotUnreadable);
            if let Some(sending) = self.snapshots.chunks.followers.get_mut(&to) {
                sending.rests_until = now.after(self.snapshots.policy.retry_micros);
            }
            // An error of the disk is no damage, and may be over the next time.
            if !is_sound {
                self.snapshots.lose(file_of(self.setup.group, snapshot.position, FileKind::Whole));
            }
            self.consensus_alone(now, outputs, |node, out| {
                node.chunk_unreadable(now, (to, session), snapshot, out);
            });
            return;
        }
        let bytes_count = u32::try_from(bytes.len()).expect("a piece is short");
        if let Some(message) = self.node.chunk_read(to, session, snapshot, offset, bytes_count) {
            self.send(to, Body::Raft { message, records: vec![bytes] }, outputs);
        }
    }

    /// A chunk of a snapshot came from the leader.
    pub(super) fn chunk_came(
        &mut self,
        now: BootMicros,
        (snapshot, offset): (SnapshotName, u64),
        bytes: &Bytes,
        outputs: &mut Vec<Output>,
    ) {
        let is_aligned = offset.is_multiple_of(BLOCK_BYTES as u64) && bytes.len().is_multiple_of(BLOCK_BYTES);
        let bytes_count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let group = self.setup.group;
        let before = self.snapshots.incoming.as_ref();
        let is_same = before.is_some_and(|before| before.snapshot == snapshot);
        // One order at a time: what is under way for another snapshot is waited for.
        let is_busy = before.is_some_and(|before| before.ticket.is_some());
        if !is_aligned || is_busy || (offset > 0 && !is_same) {
            self.consensus_alone(now, outputs, |node, out| node.snapshot_refused(now, snapshot, out));
            return;
        }
        if let Some(before) = self.snapshots.incoming.take_if(|before| before.snapshot != snapshot) {
            sometimes!(InstallBegunAnew);
            self.snapshots.order(OrderedBy::Incoming, before.file, FileOrder::Remove, outputs);
        }
        let file = file_of(group, snapshot.position, FileKind::Incoming);
        let order = FileOrder::Write { offset, bytes: bytes.clone() };
        let ticket = Some(self.snapshots.order(OrderedBy::Incoming, file, order, outputs));
        let stage = Stage::Receiving { offset, bytes_count };
        self.snapshots.incoming = Some(Incoming { snapshot, file, stage, ticket });
    }

    /// What the receiving ordered is done, or has failed.
    pub(super) fn incoming_done(
        &mut self,
        now: BootMicros,
        ticket: u64,
        done: FileDone,
        outputs: &mut Vec<Output>,
    ) {
        if self.snapshots.incoming.as_ref().and_then(|incoming| incoming.ticket) != Some(ticket) {
            return;
        }
        let Some(mut incoming) = self.snapshots.incoming.take() else { return };
        incoming.ticket = None;
        let (snapshot, file) = (incoming.snapshot, incoming.file);
        let next = match (done, incoming.stage) {
            (FileDone::Written, Stage::Receiving { offset, bytes_count }) => {
                let is_last = offset + u64::from(bytes_count) >= snapshot.bytes_count;
                let stage = if is_last {
                    Stage::Reading { restorer: Box::new(Restorer::new(self.setup.boot_seed)), offset: 0 }
                } else {
                    Stage::Receiving { offset, bytes_count }
                };
                self.snapshots.incoming = Some(Incoming { snapshot, file, stage, ticket: None });
                self.consensus_alone(now, outputs, |node, out| {
                    node.chunk_durable(now, snapshot, offset, bytes_count, out);
                });
                if !is_last {
                    return;
                }
                Some(FileOrder::Read { offset: 0, bytes_count: self.snapshots.policy.piece_bytes })
            }
            (FileDone::Read(bytes), Stage::Reading { restorer, offset }) => {
                self.incoming_read((snapshot, file), restorer, offset, &bytes)
            }
            (FileDone::Kept, Stage::Naming(restored)) => {
                self.install(now, *restored, outputs);
                return;
            }
            (FileDone::Written | FileDone::Read(_) | FileDone::Kept | FileDone::Failed, _) => None,
        };
        let Some(order) = next else {
            self.refuse_incoming(now, (snapshot, file), outputs);
            return;
        };
        let ticket = self.snapshots.order(OrderedBy::Incoming, file, order, outputs);
        if let Some(incoming) = &mut self.snapshots.incoming {
            incoming.ticket = Some(ticket);
        }
    }

    /// Nothing comes of what was received: the leader may begin anew.
    fn refuse_incoming(
        &mut self,
        now: BootMicros,
        (snapshot, file): (SnapshotName, FileName),
        outputs: &mut Vec<Output>,
    ) {
        sometimes!(InstallRefused);
        self.snapshots.incoming = None;
        self.snapshots.order(OrderedBy::Incoming, file, FileOrder::Remove, outputs);
        self.snapshots.failed_count += 1;
        self.consensus_alone(now, outputs, |node, out| node.snapshot_refused(now, snapshot, out));
    }

    /// Some of a received file was read back. The next order; None if it is not what it should be.
    fn incoming_read(
        &mut self,
        (snapshot, file): (SnapshotName, FileName),
        mut restorer: Box<Restorer>,
        offset: u64,
        bytes: &[u8],
    ) -> Option<FileOrder> {
        let offset = offset + bytes.len() as u64;
        if bytes.is_empty() || restorer.feed(bytes).is_err() {
            return None;
        }
        let (stage, order) = if offset < snapshot.bytes_count {
            (
                Stage::Reading { restorer, offset },
                FileOrder::Read { offset, bytes_count: self.snapshots.policy.piece_bytes },
            )
        } else {
            let restored = restorer.finish().ok()?;
            let is_ours = (restored.opening.cluster, restored.opening.group)
                == (self.setup.cluster, self.setup.group)
                && name_of(restored.verified) == snapshot;
            if !is_ours {
                return None;
            }
            (Stage::Naming(Box::new(restored)), FileOrder::Keep)
        };
        self.snapshots.incoming = Some(Incoming { snapshot, file, stage, ticket: None });
        Some(order)
    }

    /// A received snapshot is whole, durable and verified: it counts, and if raft says so it becomes the state.
    fn install(&mut self, now: BootMicros, restored: Restored, outputs: &mut Vec<Output>) {
        let verified = restored.verified;
        let name = name_of(verified);
        self.replacing = Some(Box::new(restored));
        let mut installed = Installed::Kept;
        self.consensus_alone(now, outputs, |node, out| installed = node.install(now, name, out));
        match (installed, self.replacing.take()) {
            (Installed::Kept, _) => sometimes!(InstallOfWhatWasKnown),
            (Installed::Replaced, replacing) => {
                sometimes!(InstallFinished);
                assert!(replacing.is_none(), "a log that begins anew has the state to begin with");
            }
        }
        if verified.position.index <= self.node.commit() {
            self.snapshot_counts(verified);
        } else {
            self.snapshots.discard(file_of(self.setup.group, verified.position, FileKind::Whole));
        }
    }

    /// What is being received is of no use once more is applied here.
    pub(super) fn forget_needless_incoming(&mut self, outputs: &mut Vec<Output>) {
        let applied = self.applied;
        let is_needless = |incoming: &mut Incoming| {
            let is_idle = incoming.ticket.is_none() && matches!(incoming.stage, Stage::Receiving { .. });
            is_idle && incoming.snapshot.position.index <= applied
        };
        if let Some(incoming) = self.snapshots.incoming.take_if(is_needless) {
            self.snapshots.order(OrderedBy::Incoming, incoming.file, FileOrder::Remove, outputs);
        }
    }

    /// Raft's log begins just above `base` now, because the snapshot that is being installed holds what is below.
    pub(super) fn rebase(&mut self, base: Position, now: BootMicros) {
        self.entries.trim(base.index);
        let restored = self.replacing.take().filter(|restored| restored.verified.position == base);
        let restored = restored.expect("a log begins anew only above what is being installed");
        self.give_up_cutting();
        self.become_restored(*restored, now);
    }

    /// The state becomes what a snapshot holds.
    pub(super) fn become_restored(&mut self, restored: Restored, now: BootMicros) {
        let Restored { verified, opening, sessions, store } = restored;
        // Whoever keeps up is told of everything that leads up to it, as far as it is known here.
        self.watch_advance();
        self.store = store;
        self.turn_walked_from = self.store.walked();
        self.sessions = sessions;
        // What was noted of the state before says nothing of this one.
        self.state_check = StateCheck::new(self.node.last().index);
        self.applied = verified.position.index;
        self.applied_term = verified.position.term;
        self.state_hash = opening.state_hash;
        self.snapshots.nothing_new_since(self.applied, self.applied_bytes, now);
    }
}
