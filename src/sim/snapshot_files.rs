//! The files of snapshots on a simulated disk: what is in them, what is ordered of them, and what a crash leaves.
//!
//! Always: orders are done one after the other; what was written before a synced write that was reported is durable, and
//! whatever else was written a crash may take away, sector by sector, under whichever name; at a crash the order under way
//! may be done, undone, or a write of it in part, and those behind it were never begun. A name is changed whole or not at all.
//! What may come to harm: one bit of the newest whole file of a member whose log and snapshots are otherwise sound, as
//! long as every entry that this leaves uncovered stands on the disks of a majority of the others.

use super::disk::SECTOR_BYTES;
use super::events::Event;
use super::invariants::{Broken, holds};
use super::random::{Random, fingerprint};
use super::run::Run;
use super::trace::Trace;
use crate::ids::{GroupId, LogIndex};
use crate::raft::Position;
use crate::replica::{FileDone, FileOrder, Input};
use crate::snapshot::{FileKind, FileName};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A file.
#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// So many from its start are durable.
    durable: usize,
}

impl Content {
    fn write(&mut self, offset: usize, bytes: &[u8], is_synced: bool) {
        self.bytes.truncate(offset);
        self.bytes.extend_from_slice(bytes);
        self.durable = if is_synced { self.bytes.len() } else { self.durable.min(offset) };
    }

    /// The power fails: what is not durable may be gone, and is from now on as it is.
    fn crash(&mut self, random: &mut Random) {
        for sector in self.bytes[self.durable..].chunks_mut(SECTOR_BYTES) {
            if random.below(2) == 0 {
                sector.fill(0);
            }
        }
        self.durable = self.bytes.len();
    }
}

/// All files of snapshots on one disk.
#[derive(Clone, Debug, Default)]
pub(super) struct SnapshotFiles {
    files: BTreeMap<String, Content>,
    /// Those in which a bit has flipped.
    harmed: BTreeSet<String>,
    orders: VecDeque<(u64, FileName, FileOrder)>,
    /// Where the next chunk of a snapshot that is being received belongs, by its file; in this boot.
    incoming: BTreeMap<String, u64>,
}

impl SnapshotFiles {
    /// Something is to be done; whether nothing was under way.
    fn order(&mut self, ticket: u64, file: FileName, order: FileOrder) -> bool {
        self.orders.push_back((ticket, file, order));
        self.orders.len() == 1
    }

    /// The chunks of a snapshot that comes from another member are written one behind the other, each once, or from the start
    /// again (catalogue 26).
    fn a_snapshot_comes_in_order(&mut self, file: FileName, order: &FileOrder) -> Result<(), Broken> {
        let FileOrder::Write { offset, bytes, .. } = order else { return Ok(()) };
        if file.kind != FileKind::Incoming {
            return Ok(());
        }
        let due = self.incoming.insert(file.text(), offset + bytes.len() as u64).unwrap_or(0);
        holds(*offset == due || *offset == 0, "a_snapshot_comes_in_order", || {
            format!("{} goes on at {offset}, and came up to {due}", file.text())
        })
    }

    /// The names of all files.
    pub(super) fn names(&self) -> Vec<FileName> {
        self.files.keys().filter_map(|name| FileName::parse(name)).collect()
    }

    /// Some bytes of a file.
    pub(super) fn read(&self, file: FileName, offset: u64, bytes_count: usize) -> Option<Vec<u8>> {
        let content = &self.files.get(&file.text())?.bytes;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        content.get(from..content.len().min(from + bytes_count)).map(<[u8]>::to_vec)
    }

    /// The whole snapshots that are sound, oldest first.
    fn sound(&self) -> Vec<Position> {
        let names = self.files.keys().filter(|name| !self.harmed.contains(*name));
        let names = names.filter_map(|name| FileName::parse(name));
        names.filter(|name| name.kind == FileKind::Whole).map(|name| name.position).collect()
    }

    /// The newest whole snapshot that is sound.
    pub(super) fn covers(&self) -> Position {
        self.sound().last().copied().unwrap_or(Position::START)
    }

    /// Does the order under way. What is said of it, if anything.
    fn perform(&mut self, file: FileName, order: &FileOrder) -> Option<FileDone> {
        let name = file.text();
        Some(match order {
            FileOrder::Write { offset, bytes, is_synced } => {
                let offset = usize::try_from(*offset).unwrap_or(usize::MAX);
                self.files.entry(name).or_default().write(offset, bytes, *is_synced);
                FileDone::Written
            }
            FileOrder::Read { offset, bytes_count } => match self.read(file, *offset, *bytes_count) {
                Some(bytes) => FileDone::Read(Bytes::from(bytes)),
                None => FileDone::Failed,
            },
            FileOrder::Keep => match self.files.remove(&name) {
                Some(content) => {
                    let whole = FileName { kind: FileKind::Whole, ..file }.text();
                    self.harmed.remove(&whole);
                    self.files.insert(whole, content);
                    FileDone::Kept
                }
                None => FileDone::Failed,
            },
            FileOrder::Distrust => {
                if let Some(content) = self.files.remove(&name) {
                    self.files.insert(FileName { kind: FileKind::Distrusted, ..file }.text(), content);
                }
                return None;
            }
            FileOrder::Remove => {
                self.files.remove(&name);
                self.harmed.remove(&name);
                return None;
            }
        })
    }

    /// The power fails.
    pub(super) fn crash(&mut self, random: &mut Random) {
        self.incoming.clear();
        let under_way = self.orders.pop_front();
        self.orders.clear();
        if let Some((_, file, mut order)) = under_way
            && random.below(3) > 0
        {
            if let FileOrder::Write { is_synced, .. } = &mut order {
                *is_synced &= random.below(2) == 0;
            }
            self.perform(file, &order);
        }
        for content in self.files.values_mut() {
            content.crash(random);
        }
    }

    /// Flips a bit of this file; whether there is one.
    fn flip_bit(&mut self, name: &str, random: &mut Random) -> bool {
        let content = self.files.get_mut(name).map(|content| &mut content.bytes);
        let Some(content) = content.filter(|content| !content.is_empty()) else { return false };
        let at = random.position(content.len());
        content[at] ^= 1 << random.below(8);
        self.harmed.insert(name.to_owned());
        true
    }

    /// Flips a bit of any file.
    pub(super) fn flip_any_bit(&mut self, random: &mut Random) {
        let names: Vec<String> = self.files.keys().cloned().collect();
        if !names.is_empty() {
            let name = &names[random.position(names.len())];
            self.flip_bit(name, random);
        }
    }
}

impl Run {
    /// A member orders something about the file of a snapshot.
    ///
    /// # Errors
    /// If it is a piece of a snapshot that does not belong there.
    pub(super) fn order_of_file(
        &mut self,
        member: usize,
        (ticket, file, order): (u64, FileName, FileOrder),
    ) -> Result<(), Broken> {
        let files = &mut self.members[member].disk.snapshots;
        files.a_snapshot_comes_in_order(file, &order)?;
        if files.order(ticket, file, order) {
            self.plan_file_done(member);
        }
        Ok(())
    }

    fn plan_file_done(&mut self, member: usize) {
        let at = self.now.after(self.disk_wait(member)).max(self.members[member].stalled_until);
        let boot = self.members[member].boot;
        self.queue.plan(at, Event::FileDone { member, boot });
    }

    /// The order under way is done, or fails.
    pub(super) fn file_is_done(&mut self, member: usize, boot: u32, trace: &mut Trace) -> Result<(), Broken> {
        let this = &self.members[member];
        if this.boot != boot {
            return Ok(());
        }
        if this.stalled_until > self.now {
            self.queue.plan(this.stalled_until, Event::FileDone { member, boot });
            return Ok(());
        }
        if self.is_crash_point(member, true) {
            return self.crash(member, trace);
        }
        let is_full = self.members[member].disk_full_until > self.now;
        let is_sick = self.members[member].disk_sick_until > self.now && self.random.below(2) == 0;
        let files = &mut self.members[member].disk.snapshots;
        let Some((ticket, file, order)) = files.orders.pop_front() else { return Ok(()) };
        let fails = match order {
            FileOrder::Write { .. } => is_full || is_sick,
            FileOrder::Read { .. } | FileOrder::Keep => is_sick,
            FileOrder::Remove | FileOrder::Distrust => false,
        };
        let done = if fails { Some(FileDone::Failed) } else { files.perform(file, &order) };
        if fails {
            self.faults.count("snapshot_order_failed");
        }
        trace.record(
            self.now,
            [17, member as u64, file.position.index.0, ticket],
            format_args!("m{}: {} {}", member + 1, file.text(), words(&order, done.as_ref())),
        );
        if done == Some(FileDone::Kept) {
            self.snapshot_is_kept(member, file)?;
        }
        self.refresh_coverage(member);
        if !self.members[member].disk.snapshots.orders.is_empty() {
            self.plan_file_done(member);
        }
        if self.is_crash_point(member, false) {
            return self.crash(member, trace);
        }
        match done {
            Some(done) => self.give(member, Input::SnapshotFile { group: file.group, ticket, done }, trace),
            None => Ok(()),
        }
    }

    /// Equal states are equal bytes, whoever writes them.
    fn snapshot_is_kept(&mut self, member: usize, file: FileName) -> Result<(), Broken> {
        if self.plan.exceeds {
            return Ok(());
        }
        let this = &self.members[member];
        let whole = FileName { kind: FileKind::Whole, ..file };
        let content = this.disk.snapshots.read(whole, 0, usize::MAX / 2).unwrap_or_default();
        self.truth.equal_states_make_equal_snapshots(this.id, file.position, fingerprint(&content))
    }

    /// The image knows what snapshots cover.
    pub(super) fn refresh_coverage(&mut self, member: usize) {
        let this = &mut self.members[member];
        this.image.set_covered(this.disk.snapshots.covers());
    }

    /// Perhaps the newest snapshot of a dead member rots.
    pub(super) fn harm_snapshot(&mut self, member: usize, trace: &mut Trace) {
        let sound = self.members[member].disk.snapshots.sound();
        let Some(newest) = sound.last().copied() else { return };
        let older = sound.len().checked_sub(2).and_then(|at| sound.get(at)).copied().unwrap_or_default();
        // What only the newest covers must stand elsewhere, or on this disk.
        let is_covered = |index: u64| {
            let index = LogIndex(index);
            let others = self.members.iter().enumerate().filter(|(other, _)| *other != member);
            let holds = |image: &super::durable::DurableImage| image.is_held(index);
            others.filter(|(_, other)| holds(&other.image)).count() * 2 > self.members.len()
        };
        if !(older.index.0 + 1..=newest.index.0).all(is_covered) {
            return;
        }
        let file = FileName { group: GroupId::FIRST, position: newest, kind: FileKind::Whole };
        let this = &mut self.members[member];
        if this.disk.snapshots.flip_bit(&file.text(), &mut self.random) {
            self.faults.count("snapshot_bit_flipped");
            trace.record(
                self.now,
                [18, member as u64, newest.index.0, 0],
                format_args!("{} rots at m{}", file.text(), member + 1),
            );
            self.refresh_coverage(member);
            let this = &mut self.members[member];
            if !this.image.is_whole() {
                this.image.lose_snapshot();
                this.is_rotten = true;
            }
        }
    }
}

/// What was ordered and what came of it, in words.
fn words(order: &FileOrder, done: Option<&FileDone>) -> String {
    let ordered = match order {
        FileOrder::Write { offset, bytes, is_synced } => {
            format!("write {} at {offset}{}", bytes.len(), if *is_synced { ", synced" } else { "" })
        }
        FileOrder::Read { offset, bytes_count } => format!("read {bytes_count} at {offset}"),
        FileOrder::Keep => "keep".to_owned(),
        FileOrder::Remove => "remove".to_owned(),
        FileOrder::Distrust => "distrust".to_owned(),
    };
    if done == Some(&FileDone::Failed) { format!("{ordered}: failed") } else { ordered }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_that_is_doubled_or_skipped_is_noticed_and_a_new_beginning_is_not() {
        let mut files = SnapshotFiles::default();
        let file = FileName { group: GroupId::FIRST, position: Position::START, kind: FileKind::Incoming };
        let mut write = |file, offset| {
            let order = FileOrder::Write { offset, bytes: Bytes::from_static(&[0; 8]), is_synced: false };
            files.a_snapshot_comes_in_order(file, &order).is_ok()
        };
        assert!(write(file, 0) && write(file, 8) && write(file, 16));
        assert!(!write(file, 16), "doubled");
        assert!(write(file, 0) && write(file, 8));
        assert!(!write(file, 24), "skipped");
        let own = FileName { kind: FileKind::Whole, ..file };
        assert!(write(own, 64), "what a member writes of its own comes from no other");
    }
}
