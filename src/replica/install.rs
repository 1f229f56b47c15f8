//! Snapshots on their way from one member to another: a leader reads pieces of its newest, a follower writes them to a file
//! of its own, reads it back, and puts the state in it in the place of its own.
//!
//! ```text
//!   leader                                        follower
//!   raft wants a chunk ─> it was read ───────────> order its write ─> acknowledge it, unless too many are not read back ─> …
//!                         read the next            written: take it into the state to be, read it back and compare
//!                                                  the last one: all is durable, acknowledge it and name the file,
//!                                                  then log, store and sessions change in one turn
//! ```
//!
//! So several chunks are under way: one is read here while others are written there. What was acknowledged is not sent again as
//! long as the follower runs; one that starts anew begins with nothing, because what was received in part is removed then. So
//! only the whole has to be durable, and is, before the last chunk is acknowledged.
//!
//! Always: a received file counts only when all of it is durable, was read back, each chunk behind its write, and is what the leader
//! named (what a disk makes of it later, also of what its own cache answered with, is found where the file is used); the state is
//! replaced only if raft says so, which it does never below what is committed here; a leader that finds its own file damaged cuts
//! another one. Left out: which follower needs one, and what is sent again (`raft`).

use super::group::Replica;
use super::lease_terms::LeaseTerms;
use super::restore::{Restored, Restorer};
use super::snapshots::{OrderedBy, file_of, name_of};
use super::state_check::StateCheck;
use super::{FileDone, FileOrder, Output};
use crate::ids::{BootMicros, MemberId};
use crate::limits::CHUNKS_WRITTEN_MAX;
use crate::peer::Body;
use crate::raft::{Installed, Position, SnapshotName};
use crate::snapshot::{BLOCK_BYTES, Damage, FileKind, FileName, Reader};
use crate::{planted, sometimes};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

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
    ahead: Option<Ahead>,
}

/// The chunk that will be wanted next, read or being read.
struct Ahead {
    snapshot: SnapshotName,
    offset: u64,
    ticket: u64,
    bytes: Option<Bytes>,
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
}

enum Stage {
    /// Chunks are being written and read back, oldest first, or the next is awaited. What was written is taken into the state to
    /// be.
    Receiving(Box<Restorer>, VecDeque<Chunk>),
    /// It is being given its name, by the order with this ticket.
    Naming(Box<Restored>, u64),
}

/// A chunk that came: it is written, and right afterwards read back.
struct Chunk {
    write: u64,
    read: u64,
    offset: u64,
    bytes: Bytes,
    /// Whether the leader was told that it is here.
    is_acknowledged: bool,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

impl Incoming {
    /// Whether nothing is ordered.
    fn is_idle(&self) -> bool {
        matches!(&self.stage, Stage::Receiving(_, chunks) if chunks.is_empty())
    }

    /// Whether a chunk of this snapshot can be written now.
    fn takes(&self, offset: u64) -> bool {
        match &self.stage {
            Stage::Receiving(_, chunks) => {
                chunks.is_empty() || (offset > 0 && chunks.len() < CHUNKS_WRITTEN_MAX)
            }
            Stage::Naming(..) => false,
        }
    }
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

    /// Sends what was read ahead and reads what was not, if its time has come.
    pub(super) fn carry_on_sending(&mut self, now: BootMicros, outputs: &mut Vec<Output>) {
        let waiting = std::mem::take(&mut self.snapshots.chunks.waiting);
        let (due, waiting): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(due, _)| *due <= now);
        self.snapshots.chunks.waiting = waiting;
        for (_, wanted) in due {
            let bytes_count = self.chunk_bytes(wanted.snapshot, wanted.offset);
            let pause = self.snapshots.policy.send_micros_for(bytes_count, wanted.snapshot.bytes_count);
            let chunks = &mut self.snapshots.chunks;
            let sending = chunks.followers.entry(wanted.to).or_insert_with(|| Sending {
                rests_until: now,
                snapshot: wanted.snapshot,
                reader: Reader::new(),
                offset: 0,
                ahead: None,
            });
            // By what a disk or a thread was late, up to a chunk, the next comes sooner.
            let owed = BootMicros(now.0.saturating_sub(pause));
            sending.rests_until = sending.rests_until.max(owed).after(pause);
            let is_this = |ahead: &Ahead| (ahead.snapshot, ahead.offset) == (wanted.snapshot, wanted.offset);
            match sending.ahead.take().filter(is_this) {
                Some(Ahead { bytes: Some(bytes), .. }) => self.send_chunk(now, wanted, bytes, outputs),
                Some(Ahead { ticket, bytes: None, .. }) => {
                    chunks.reading.insert(ticket, wanted);
                }
                None => {
                    let ticket = self.read_chunk(wanted.snapshot, wanted.offset, outputs);
                    self.snapshots.chunks.reading.insert(ticket, wanted);
                }
            }
        }
    }

    /// How many bytes are sent from there on.
    fn chunk_bytes(&self, snapshot: SnapshotName, offset: u64) -> usize {
        let left = snapshot.bytes_count.saturating_sub(offset);
        usize::try_from(left).unwrap_or(usize::MAX).min(self.snapshots.policy.chunk_bytes)
    }

    fn read_chunk(&mut self, snapshot: SnapshotName, offset: u64, outputs: &mut Vec<Output>) -> u64 {
        let bytes_count = self.chunk_bytes(snapshot, offset);
        let file = file_of(self.setup.group, snapshot.position, FileKind::Whole);
        self.snapshots.order(OrderedBy::Chunks, file, FileOrder::Read { offset, bytes_count }, outputs)
    }

    /// A chunk was read, or could not be.
    pub(super) fn chunk_done(
        &mut self,
        now: BootMicros,
        ticket: u64,
        done: FileDone,
        outputs: &mut Vec<Output>,
    ) {
        let bytes = match done {
            FileDone::Read(bytes) => bytes,
            FileDone::Written | FileDone::Kept | FileDone::Failed => Bytes::new(),
        };
        let chunks = &mut self.snapshots.chunks;
        if let Some(wanted) = chunks.reading.remove(&ticket) {
            self.send_chunk(now, wanted, bytes, outputs);
            return;
        }
        let mut followers = chunks.followers.values_mut();
        let is_its = |sending: &&mut Sending| sending.ahead.as_ref().is_some_and(|it| it.ticket == ticket);
        if let Some(sending) = followers.find(is_its) {
            // What cannot be read is read again when it is wanted.
            sending.ahead = sending.ahead.take().filter(|_| !bytes.is_empty());
            if let Some(ahead) = &mut sending.ahead {
                ahead.bytes = Some(bytes);
            }
        }
    }

    /// Sends a chunk, if it is sound and still wanted, and reads the next one ahead.
    fn send_chunk(&mut self, now: BootMicros, wanted: Wanted, bytes: Bytes, outputs: &mut Vec<Output>) {
        let Wanted { to, session, snapshot, offset } = wanted;
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
        let bytes_count = u32::try_from(bytes.len()).expect("a chunk is short");
        let next = offset + u64::from(bytes_count);
        let message = self.node.chunk_read(to, session, snapshot, offset, bytes_count);
        let Some(message) = message else { return };
        self.send(to, Body::Raft { message, records: vec![bytes] }, outputs);
        if next < snapshot.bytes_count {
            let ticket = self.read_chunk(snapshot, next, outputs);
            if let Some(sending) = self.snapshots.chunks.followers.get_mut(&to) {
                sending.ahead = Some(Ahead { snapshot, offset: next, ticket, bytes: None });
            }
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
        let is_taken = is_aligned
            && match &self.snapshots.incoming {
                Some(before) if before.snapshot == snapshot => before.takes(offset),
                // What is under way for another snapshot is waited for.
                Some(before) => offset == 0 && before.is_idle(),
                None => offset == 0,
            };
        if !is_taken {
            self.consensus_alone(now, outputs, |node, out| node.snapshot_refused(now, snapshot, out));
            return;
        }
        if let Some(before) = self.snapshots.incoming.take_if(|before| before.snapshot != snapshot) {
            sometimes!(InstallBegunAnew);
            self.snapshots.order(OrderedBy::Incoming, before.file, FileOrder::Remove, outputs);
        }
        let file = file_of(self.setup.group, snapshot.position, FileKind::Incoming);
        let end = offset + bytes.len() as u64;
        let is_synced = self.snapshots.policy.is_synced(offset, bytes.len(), end >= snapshot.bytes_count);
        let order = FileOrder::Write { offset, bytes: bytes.clone(), is_synced };
        let write = self.snapshots.order(OrderedBy::Incoming, file, order, outputs);
        let order = FileOrder::Read { offset, bytes_count: bytes.len() };
        let read = self.snapshots.order(OrderedBy::Incoming, file, order, outputs);
        let begun = self.snapshots.incoming.take().filter(|_| offset > 0);
        let mut incoming = begun.unwrap_or_else(|| {
            let restorer = Box::new(Restorer::new(self.setup.boot_seed));
            Incoming { snapshot, file, stage: Stage::Receiving(restorer, VecDeque::new()) }
        });
        if let Stage::Receiving(_, chunks) = &mut incoming.stage {
            chunks.push_back(Chunk { write, read, offset, bytes: bytes.clone(), is_acknowledged: false });
        }
        self.snapshots.incoming = Some(incoming);
        self.acknowledge_chunk(now, outputs);
    }

    /// The leader learns that a chunk is here, as long as there is room for the next; unless it is the last, which has to be
    /// durable.
    fn acknowledge_chunk(&mut self, now: BootMicros, outputs: &mut Vec<Output>) {
        let Some(incoming) = &mut self.snapshots.incoming else { return };
        let snapshot = incoming.snapshot;
        let Stage::Receiving(_, chunks) = &mut incoming.stage else { return };
        let mut with_room_behind = chunks.iter_mut().take(CHUNKS_WRITTEN_MAX - 1);
        // Raft waits for one at a time, which came last.
        let Some(awaited) = with_room_behind.find(|chunk| !chunk.is_acknowledged) else { return };
        if awaited.end() < snapshot.bytes_count {
            awaited.is_acknowledged = true;
            let (offset, end) = (awaited.offset, awaited.end());
            self.consensus_alone(now, outputs, |node, out| {
                node.chunk_held(now, snapshot, offset, end, out);
            });
        }
    }

    /// What the receiving ordered is done, or has failed.
    pub(super) fn incoming_done(
        &mut self,
        now: BootMicros,
        ticket: u64,
        done: &FileDone,
        outputs: &mut Vec<Output>,
    ) {
        let Some(mut incoming) = self.snapshots.incoming.take() else { return };
        let (snapshot, file) = (incoming.snapshot, incoming.file);
        let is_sound = match &mut incoming.stage {
            Stage::Receiving(restorer, chunks) => match chunks.front() {
                Some(first) if ticket == first.write => {
                    *done == FileDone::Written && restorer.feed(&first.bytes, Some(&self.store)).is_ok()
                }
                Some(first) if ticket == first.read => *done == FileDone::Read(first.bytes.clone()),
                // It was ordered for what was given up since.
                Some(_) | None => true,
            },
            Stage::Naming(_, named) => ticket != *named || *done == FileDone::Kept,
        };
        if !is_sound {
            self.refuse_incoming(now, (snapshot, file), outputs);
            return;
        }
        match incoming.stage {
            Stage::Naming(restored, named) if ticket == named => self.install(now, *restored, outputs),
            stage => {
                self.snapshots.incoming = Some(Incoming { stage, ..incoming });
                self.chunk_read_back(now, ticket, outputs);
            }
        }
    }

    /// If this was the oldest chunk being read back, there is room for another, or all of it is there and gets its name.
    fn chunk_read_back(&mut self, now: BootMicros, ticket: u64, outputs: &mut Vec<Output>) {
        let Some(incoming) = &mut self.snapshots.incoming else { return };
        let (snapshot, file) = (incoming.snapshot, incoming.file);
        let Stage::Receiving(_, chunks) = &mut incoming.stage else { return };
        let Some(chunk) = chunks.pop_front_if(|first| first.read == ticket) else { return };
        if chunk.end() < snapshot.bytes_count {
            self.acknowledge_chunk(now, outputs);
            return;
        }
        let stage = self.snapshots.incoming.take().map(|incoming| incoming.stage);
        let Some(Stage::Receiving(restorer, _)) = stage else { return };
        let restored = restorer.finish().ok().filter(|it| self.is_snapshot_of_ours(snapshot, it));
        let Some(restored) = restored else {
            self.refuse_incoming(now, (snapshot, file), outputs);
            return;
        };
        let ticket = self.snapshots.order(OrderedBy::Incoming, file, FileOrder::Keep, outputs);
        let stage = Stage::Naming(Box::new(restored), ticket);
        self.snapshots.incoming = Some(Incoming { snapshot, file, stage });
        self.consensus_alone(now, outputs, |node, out| {
            node.chunk_held(now, snapshot, chunk.offset, chunk.end(), out);
        });
    }

    /// Whether a state is of this group, and the one that the leader named.
    fn is_snapshot_of_ours(&self, snapshot: SnapshotName, restored: &Restored) -> bool {
        (restored.opening.cluster, restored.opening.group) == (self.setup.cluster, self.setup.group)
            && name_of(restored.verified) == snapshot
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
        let is_needless =
            |incoming: &mut Incoming| incoming.is_idle() && incoming.snapshot.position.index <= applied;
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
        let Restored { verified, opening, sessions, users, store } = restored;
        // Whoever keeps up is told of everything that leads up to it, as far as it is known here.
        self.watch_advance();
        self.store = store;
        self.turn_walked_from = self.store.walked();
        self.sessions = sessions;
        self.auth = users;
        self.withdraw_watches();
        // What was noted of the state before says nothing of this one.
        self.state_check = StateCheck::new(self.node.last().index, self.setup.state_check_entries);
        self.applied = verified.position.index;
        self.applied_term = verified.position.term;
        let (micros, drift_ppm) = (opening.lease_micros, opening.lease_drift_ppm);
        self.lease_terms = LeaseTerms { micros, drift_ppm };
        // Catalogue 47: a snapshot that does not say it.
        if planted!(147) {
            self.lease_terms = LeaseTerms::NONE;
        }
        self.state_hash = opening.state_hash;
        self.snapshots.nothing_new_since(self.applied, self.applied_bytes, now);
    }
}
