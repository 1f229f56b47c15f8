//! Snapshots of this member: when one is cut, which are kept, and what of the log they make superfluous.
//!
//! Always: a snapshot counts only when it is whole and durable under its own name and was read back; one is cut only of
//! what this member's own disk holds of the log; the log is trimmed only up to the second-newest that counts, so that a
//! newest one which rots can be borne, and never below what is kept for followers. No follower, however slow, keeps the
//! log from being trimmed: it gets a snapshot, and the log above that is kept for it only up to a bound (`log_room`). Left
//! out: how one is written (`cutting`), sent and received (`install`).

use super::cutting::Cutting;
use super::group::Replica;
use super::install::{Chunks, Incoming};
use super::restore::{FoundContent, FoundSnapshot};
use super::saving::Saves;
use super::{FileDone, FileOrder, Output, Shard};
use crate::ids::{BootMicros, GroupId, LogIndex};
use crate::limits::{
    HOT_LOG_BYTES_MIN, HOT_LOG_ENTRIES_MIN, SNAPSHOT_BYTES_PER_SECOND, SNAPSHOT_CHUNK_BYTES,
    SNAPSHOT_ENTRIES, SNAPSHOT_GENERATIONS, SNAPSHOT_GENTLENESS, SNAPSHOT_LOG_BYTES, SNAPSHOT_MICROS,
    SNAPSHOT_PATIENCE_BYTES, SNAPSHOT_PIECE_BYTES, SNAPSHOT_RETRY_MICROS, SNAPSHOT_SEND_GENTLENESS,
    SNAPSHOT_SEND_SECONDS, SNAPSHOT_SYNC_PIECES, TRIM_ENTRIES_PER_TURN,
};
use crate::raft::{Position, SnapshotName};
use crate::snapshot::{FileKind, FileName, Verified};
use crate::wal::{GroupOpening, WantedSegment};
use crate::{planted, sometimes};
use std::collections::BTreeMap;

/// When snapshots are cut, and what is kept of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// One is cut when so many entries were applied since the last,
    pub entries: u64,
    /// or so many bytes of them,
    pub log_bytes: u64,
    /// though a large one waits for entries of twice the bytes that the last one had, or of so many.
    pub patience_bytes: u64,
    /// or any, and this time has passed.
    pub micros: u64,
    /// So many entries of the log are forgotten in a turn at the most.
    pub trim_entries: u64,
    /// Entries at the end of the log that are kept for followers,
    pub hot_entries: u64,
    /// unless they take more than this.
    pub hot_bytes: u64,
    /// So much is written, and sent to each follower, in a second.
    pub bytes_per_second: u64,
    /// So much is written at once, and read back; whole blocks.
    pub piece_bytes: usize,
    /// So much is sent to a follower at once; whole blocks.
    pub chunk_bytes: usize,
    /// How long one that failed is not tried again.
    pub retry_micros: u64,
}

impl SnapshotPolicy {
    /// That of a server.
    pub const SERVER: Self = Self {
        entries: SNAPSHOT_ENTRIES,
        log_bytes: SNAPSHOT_LOG_BYTES,
        patience_bytes: SNAPSHOT_PATIENCE_BYTES,
        micros: SNAPSHOT_MICROS,
        trim_entries: TRIM_ENTRIES_PER_TURN,
        hot_entries: HOT_LOG_ENTRIES_MIN,
        hot_bytes: HOT_LOG_BYTES_MIN,
        bytes_per_second: SNAPSHOT_BYTES_PER_SECOND,
        piece_bytes: SNAPSHOT_PIECE_BYTES,
        chunk_bytes: SNAPSHOT_CHUNK_BYTES,
        retry_micros: SNAPSHOT_RETRY_MICROS,
    };

    /// Whether the write of so many bytes at `offset` makes a snapshot durable up to there: the last does, and one now and then.
    pub(super) fn is_synced(&self, offset: u64, bytes: usize, is_last: bool) -> bool {
        let every = self.piece_bytes as u64 * SNAPSHOT_SYNC_PIECES;
        (is_last && !planted!(421)) || offset / every != (offset + bytes as u64) / every
    }

    /// How long so many bytes take.
    pub(super) const fn micros_for(&self, bytes: usize) -> u64 {
        micros_for(bytes, self.bytes_per_second)
    }

    /// How long so many bytes take of a snapshot that is sent.
    ///
    /// A short one is sent in some seconds, within bounds: faster it would only take more of the time of clients.
    pub(super) fn send_micros_for(&self, bytes: usize, snapshot_bytes: u64) -> u64 {
        let least = self.bytes_per_second.div_ceil(SNAPSHOT_SEND_GENTLENESS);
        let wanted = snapshot_bytes / SNAPSHOT_SEND_SECONDS;
        micros_for(bytes, wanted.clamp(least, self.bytes_per_second))
    }

    /// How much of a snapshot that will have about so many bytes is written in a second, if the one before was cut so long ago.
    ///
    /// So slowly that it is done in a quarter of that time, within bounds: the log and clients have the disk and the thread, and
    /// where much is written the log is not kept for long.
    fn cut_bytes_per_second(&self, bytes: u64, micros: u64) -> u64 {
        let wanted = bytes.saturating_mul(4 * 1_000_000) / micros.max(1);
        wanted.clamp(self.bytes_per_second.div_ceil(SNAPSHOT_GENTLENESS), self.bytes_per_second)
    }
}

/// Who ordered something of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OrderedBy {
    /// The snapshot being cut.
    Cutting,
    /// The snapshot being received.
    Incoming,
    /// A snapshot being sent.
    Chunks,
    /// A client that keeps it elsewhere.
    Saving,
}

/// What was applied up to some moment.
#[derive(Clone, Copy, Debug)]
struct Since {
    index: LogIndex,
    bytes: u64,
    at: BootMicros,
}

/// The snapshots of one replica.
pub(super) struct Snapshots {
    pub(super) policy: SnapshotPolicy,
    /// Those that count, oldest first.
    generations: Vec<Position>,
    /// Cut here, and not offered to followers yet, oldest first.
    unoffered: Vec<Verified>,
    /// What is known of the newest of those, if it was read in this boot.
    verified: Option<Verified>,
    pub(super) saves: Saves,
    pub(super) cutting: Option<Cutting>,
    pub(super) incoming: Option<Incoming>,
    pub(super) chunks: Chunks,
    /// When the last one was cut.
    since: Since,
    /// None is begun before this.
    rests_until: BootMicros,
    /// Files that are of no use.
    useless: Vec<FileName>,
    /// Files that count no more, until another snapshot does.
    damaged: Vec<FileName>,
    /// Orders under way.
    orders: BTreeMap<u64, OrderedBy>,
    next_ticket: u64,
    /// Whether the log can be trimmed further than it is.
    is_trim_due: bool,
    /// Whether one was being sent in the turn before, which may have kept the log from being trimmed.
    was_sending: bool,
    /// One that counted was lost: another is cut as soon as possible.
    is_one_missing: bool,
    /// Snapshots that were given up.
    pub(super) failed_count: u64,
}

impl Snapshots {
    /// What a start found. `applied`: what was restored.
    pub(super) fn found(
        policy: SnapshotPolicy,
        found: &[FoundSnapshot],
        applied: LogIndex,
        now: BootMicros,
    ) -> Self {
        let mut generations = Vec::new();
        let mut verified = None;
        let (mut useless, mut damaged) = (Vec::new(), Vec::new());
        for FoundSnapshot { name, content } in found {
            match content {
                FoundContent::Restored(restored) => {
                    verified = Some(restored.verified);
                    generations.push(name.position);
                }
                FoundContent::Unread => generations.push(name.position),
                FoundContent::Damaged(_) => {
                    sometimes!(SnapshotFoundDamaged);
                    damaged.push(*name);
                }
                FoundContent::Unfinished => useless.push(*name),
                FoundContent::Newer(_) => {}
            }
        }
        generations.sort_unstable_by_key(|position| position.index);
        if applied > LogIndex(0) {
            sometimes!(StartedFromSnapshot);
            if found.iter().any(|found| matches!(found.content, FoundContent::Damaged(_))) {
                sometimes!(StartedFromOlderSnapshot);
            }
        }
        Self {
            policy,
            generations,
            unoffered: Vec::new(),
            verified,
            saves: Saves::default(),
            cutting: None,
            incoming: None,
            chunks: Chunks::default(),
            since: Since { index: applied, bytes: 0, at: now },
            rests_until: now,
            useless,
            is_one_missing: !damaged.is_empty(),
            damaged,
            orders: BTreeMap::new(),
            next_ticket: 0,
            // Older ones were not read in this boot: the next that counts makes the newest of these the second.
            is_trim_due: false,
            was_sending: false,
            failed_count: 0,
        }
    }

    /// The newest one that counts.
    pub(super) fn newest(&self) -> Position {
        self.generations.last().copied().unwrap_or(Position::START)
    }

    /// One was cut here. Followers are offered it when it can be trusted.
    pub(super) fn was_cut(&mut self, verified: Verified) {
        self.unoffered.push(verified);
    }

    /// The newest one that counts, if it is known to be sound.
    pub(super) fn newest_verified(&self) -> Option<Verified> {
        self.verified.filter(|verified| verified.position == self.newest())
    }

    /// Whether that one counts.
    pub(super) fn has(&self, position: Position) -> bool {
        self.generations.contains(&position)
    }

    /// The one before it.
    fn second_newest(&self) -> Position {
        let at = self.generations.len().checked_sub(2);
        at.and_then(|at| self.generations.get(at)).copied().unwrap_or(Position::START)
    }

    /// Orders something of the disk. It is answered, unless it is a removal.
    pub(super) fn order(
        &mut self,
        by: OrderedBy,
        file: FileName,
        order: FileOrder,
        outputs: &mut Vec<Output>,
    ) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if !matches!(order, FileOrder::Remove | FileOrder::Distrust) {
            self.orders.insert(ticket, by);
        }
        outputs.push(Output::SnapshotFile { ticket, file, order });
        ticket
    }

    /// Something failed: nothing is begun for a while.
    pub(super) fn rest(&mut self, now: BootMicros) {
        self.failed_count += 1;
        self.rests_until = now.after(self.policy.retry_micros);
    }

    /// The state is a snapshot's: nothing changed since.
    pub(super) const fn nothing_new_since(&mut self, index: LogIndex, bytes: u64, at: BootMicros) {
        self.since = Since { index, bytes, at };
    }

    /// A file is of no use any more.
    pub(super) fn discard(&mut self, file: FileName) {
        self.useless.push(file);
    }

    /// One that counted was found damaged. Its file stays until another is in its place: a start may know better.
    pub(super) fn lose(&mut self, file: FileName) {
        self.is_one_missing |= self.newest() == file.position;
        if self.generations.contains(&file.position) {
            self.generations.retain(|position| *position != file.position);
            self.damaged.push(file);
        }
    }
}

/// How long so many bytes take.
pub(super) const fn micros_for(bytes: usize, bytes_per_second: u64) -> u64 {
    (bytes as u64).saturating_mul(1_000_000) / bytes_per_second
}

/// The name of a file of this replica.
pub(super) const fn file_of(group: GroupId, position: Position, kind: FileKind) -> FileName {
    FileName { group, position, kind }
}

/// A snapshot's name for raft.
pub(super) const fn name_of(verified: Verified) -> SnapshotName {
    let Verified { position, bytes_count, hash } = verified;
    SnapshotName { position, bytes_count, hash }
}

impl Replica {
    /// The end of a turn: a snapshot is cut if one is due, the one under way goes on, and the log is trimmed.
    pub(super) fn serve_snapshots(&mut self, now: BootMicros, outputs: &mut Vec<Output>) {
        for file in std::mem::take(&mut self.snapshots.useless) {
            self.snapshots.order(OrderedBy::Cutting, file, FileOrder::Remove, outputs);
        }
        self.forget_needless_incoming(outputs);
        if self.is_cut_due(now) {
            sometimes!(SnapshotCut);
            let snapshots = &mut self.snapshots;
            let is_one_missing = std::mem::take(&mut snapshots.is_one_missing);
            let micros = if is_one_missing { 0 } else { now.since(snapshots.since.at) };
            let pace = snapshots.policy.cut_bytes_per_second(self.store.bytes(), micros);
            snapshots.since = Since { index: self.applied, bytes: self.applied_bytes, at: now };
            self.begin_cutting(now, pace);
        }
        self.carry_on_cutting(now, outputs);
        self.carry_on_sending(now, outputs);
        self.carry_on_saving(now, outputs);
        self.offer_trusted();
        self.trim_log();
    }

    /// Something that was ordered of the disk is done, or has failed.
    pub(super) fn file_done(
        &mut self,
        now: BootMicros,
        ticket: u64,
        done: FileDone,
        outputs: &mut Vec<Output>,
    ) {
        match self.snapshots.orders.remove(&ticket) {
            Some(OrderedBy::Cutting) => self.cutting_done(now, ticket, &done, outputs),
            Some(OrderedBy::Incoming) => self.incoming_done(now, ticket, &done, outputs),
            Some(OrderedBy::Chunks) => self.chunk_done(now, ticket, done, outputs),
            Some(OrderedBy::Saving) => self.piece_done(now, ticket, done, outputs),
            None => {}
        }
    }

    /// A snapshot counts from now on: this member cut it or received it.
    pub(super) fn snapshot_counts(&mut self, verified: Verified) {
        let snapshots = &mut self.snapshots;
        snapshots.generations.retain(|position| *position != verified.position);
        snapshots.generations.push(verified.position);
        snapshots.generations.sort_unstable_by_key(|position| position.index);
        // One that reaches further than this may be sound after all, and the only one that does: it stays.
        let is_replaced = |file: &FileName| file.position.index <= verified.position.index;
        let (replaced, kept): (Vec<FileName>, Vec<FileName>) =
            snapshots.damaged.drain(..).partition(is_replaced);
        snapshots.damaged = kept;
        snapshots.useless.extend(replaced.into_iter().filter(|file| file.position != verified.position));
        if snapshots.newest() == verified.position {
            snapshots.verified = Some(verified);
        }
        // A file that is being sent or read stays until it is not, and the one that is offered until another is.
        let sent = self.node.snapshots_sent().chain(self.node.snapshot_offered());
        let sent: Vec<Position> = sent.map(|snapshot| snapshot.position).collect();
        let is_read = |position: &Position| sent.contains(position) || snapshots.saves.is_held(*position);
        while snapshots.generations.len() > SNAPSHOT_GENERATIONS
            && let Some(at) = snapshots.generations.iter().position(|position| !is_read(position))
            && at + SNAPSHOT_GENERATIONS <= snapshots.generations.len()
        {
            let oldest = snapshots.generations.remove(at);
            snapshots.useless.push(file_of(self.setup.group, oldest, FileKind::Whole));
        }
        snapshots.is_trim_due = true;
        self.is_opening_due = true;
    }

    /// Whether a snapshot is to be cut now.
    fn is_cut_due(&self, now: BootMicros) -> bool {
        let snapshots = &self.snapshots;
        // Only what this member's own disk holds is cut: a snapshot may not be ahead of its log.
        let is_durable = self.applied <= self.node.durable();
        snapshots.cutting.is_none() && is_durable && self.cut_deadline().is_some_and(|due| due <= now)
    }

    /// Whether the one that is being cut is waited for: by a client, or by a log that grows faster than when it was begun.
    pub(super) fn is_cut_urgent(&self) -> bool {
        let Snapshots { policy, since, saves, .. } = &self.snapshots;
        let entries = self.applied.0.saturating_sub(since.index.0);
        let bytes = self.applied_bytes.saturating_sub(since.bytes);
        saves.wants_cut() || entries >= policy.entries / 2 || bytes >= policy.log_bytes / 2
    }

    /// When a snapshot is due; None if nothing changed since the last.
    fn cut_deadline(&self) -> Option<BootMicros> {
        let snapshots = &self.snapshots;
        let Snapshots { policy, since, rests_until, .. } = snapshots;
        let entries = self.applied.0.saturating_sub(since.index.0);
        let bytes = self.applied_bytes.saturating_sub(since.bytes);
        // So writing snapshots costs less than writing the log, as long as the store is not larger than that.
        let last_bytes = snapshots.verified.map_or(0, |last| last.bytes_count);
        let is_worth_it = bytes >= last_bytes.saturating_mul(2).min(policy.patience_bytes);
        let is_due = (entries >= policy.entries && is_worth_it) || bytes >= policy.log_bytes;
        // Another of what is left would take nobody's place: as long as no more is applied, it is waited for.
        let is_one_missing = snapshots.is_one_missing && self.applied > snapshots.newest().index;
        let is_wanted = is_one_missing || snapshots.saves.wants_cut();
        let due =
            if is_due || is_wanted { *rests_until } else { since.at.after(policy.micros).max(*rests_until) };
        (entries > 0 || is_wanted).then_some(due)
    }

    /// When something about snapshots is to be done at the latest.
    pub(super) fn snapshots_deadline(&self) -> BootMicros {
        let snapshots = &self.snapshots;
        let sending = snapshots.chunks.deadline().min(snapshots.saves.deadline());
        let cutting = match &snapshots.cutting {
            Some(cutting) => cutting.deadline(),
            // What is not durable yet will be, and that makes a turn.
            None if self.applied > self.node.durable() => BootMicros(u64::MAX),
            None => self.cut_deadline().unwrap_or(BootMicros(u64::MAX)),
        };
        let has_more = !snapshots.useless.is_empty() || snapshots.is_trim_due;
        let more = if has_more { BootMicros(0) } else { BootMicros(u64::MAX) };
        cutting.min(sending).min(more)
    }

    /// Offers the newest snapshot that can be trusted to whoever needs one, which is also how far the log may be trimmed.
    ///
    /// One that was cut after the last entry at which this member's state was most members' may hold another state, and a
    /// follower that got it would make most members of few (catalogue 49). So it waits, as long as the log has room for
    /// what is not trimmed meanwhile; and before the first comparison of this boot there is nothing to go by.
    fn offer_trusted(&mut self) {
        if self.snapshots.unoffered.is_empty() {
            return;
        }
        let is_long = self.entries.bytes() > self.log_room();
        let snapshots = &mut self.snapshots;
        let is_alone = self.setup.directories.len() == 1;
        let agreed = self.state_check.agreed().filter(|_| !is_alone && !is_long);
        let waits = |verified: &Verified| agreed.is_some_and(|agreed| verified.position.index > agreed);
        let trusted: Vec<Verified> =
            snapshots.unoffered.extract_if(.., |verified| !waits(verified)).collect();
        for verified in trusted {
            // What was removed or found damaged meanwhile is offered to nobody.
            if !snapshots.generations.contains(&verified.position) {
                continue;
            }
            self.node.snapshot_taken(name_of(verified));
            snapshots.is_trim_due = true;
        }
    }

    /// What this member cut since its state was last found to be most members' holds another state, perhaps. It is not what
    /// the next start begins with.
    pub(super) fn distrust_snapshots(&mut self, outputs: &mut Vec<Output>) {
        let agreed = self.state_check.agreed().unwrap_or_default();
        let generations = std::mem::take(&mut self.snapshots.generations);
        let cutting = self.snapshots.cutting.as_ref().and_then(Cutting::being_named);
        let doubtful = generations.into_iter().chain(cutting).filter(|position| position.index > agreed);
        for position in doubtful {
            sometimes!(SnapshotDistrusted);
            let file = file_of(self.setup.group, position, FileKind::Whole);
            self.snapshots.order(OrderedBy::Cutting, file, FileOrder::Distrust, outputs);
        }
    }

    /// How long the log may get for the sake of others: four times what may be written between two snapshots, or as long as one
    /// that is being sent, which at the pace of sending has arrived before as much was written; but sixteen times at the most,
    /// because all of it is in memory.
    fn log_room(&self) -> u64 {
        let least = self.snapshots.policy.log_bytes.saturating_mul(4);
        let sent = self.node.snapshots_sent().map(|snapshot| snapshot.bytes_count).max();
        sent.unwrap_or(0).clamp(least, least.saturating_mul(4))
    }

    /// Forgets what of the log nobody needs any more, as much as fits into a turn.
    fn trim_log(&mut self) {
        let is_sending = self.node.snapshots_sent().next().is_some();
        let has_sent = std::mem::replace(&mut self.snapshots.was_sending, is_sending) && !is_sending;
        if !std::mem::take(&mut self.snapshots.is_trim_due) && !has_sent {
            return;
        }
        let policy = self.snapshots.policy;
        let hot = self.entries.last_within(policy.hot_entries, policy.hot_bytes);
        // Whoever is being sent a snapshot needs the log above it, unless that takes too much.
        let sent = self.node.snapshots_sent().map(|snapshot| snapshot.position.index).min();
        let sent = sent.filter(|_| self.entries.bytes() <= self.log_room());
        let upto = self.snapshots.second_newest().index.min(hot).min(sent.unwrap_or(hot)).min(self.applied);
        let now = LogIndex(self.node.base().index.0.saturating_add(policy.trim_entries)).min(upto);
        if now > self.node.base().index {
            sometimes!(LogTrimmed);
            let base = self.node.trim(now);
            // Where a hole begins below, nothing is trimmed before it is filled.
            self.snapshots.is_trim_due = base.index == now && now < upto;
            self.entries.trim(base.index);
            self.trimmed = Some(base.index);
        }
    }
}

impl Shard {
    /// The end of a turn: segments to come are made, and those that hold nothing any more go.
    pub(super) fn order_segments(&mut self, outputs: &mut Vec<Output>) {
        while let Some(WantedSegment { segment, salt, recycled }) = self.wal.wants_segment() {
            outputs.push(Output::MakeSegment { segment, salt, recycled });
        }
        while let Some((segment, salt)) = self.wal.surplus_segment() {
            outputs.push(Output::RemoveSegment { segment, salt });
        }
    }

    /// The end of a turn: openings of the log name the newest snapshots, and it forgets what replicas have trimmed.
    pub(super) fn name_snapshots_and_trim(&mut self) {
        let mut is_opening_due = false;
        for replica in self.replicas.values_mut() {
            is_opening_due |= std::mem::take(&mut replica.is_opening_due);
        }
        if is_opening_due {
            let opening = |(group, replica): (&GroupId, &Replica)| GroupOpening {
                group: *group,
                hard_state: replica.node.hard_state(),
                last: replica.node.last(),
                snapshot: replica.snapshots.newest(),
                configuration: replica.setup.configuration.clone(),
            };
            self.wal.set_opening(self.identity, self.replicas.iter().map(opening).collect());
        }
        for (group, replica) in &mut self.replicas {
            if let Some(base) = replica.trimmed.take() {
                self.wal.trim(*group, base);
            }
        }
    }
}
