//! How other threads reach a shard: a bounded queue and a bell.
//!
//! Always: a full mailbox refuses; it never waits and never grows. The bell is rung only after the note is in the
//! queue, so a shard that was woken finds it.

use super::bulk_thread::Order;
use crate::ids::{GroupId, SegmentNumber};
use crate::io::Wake;
use crate::replica::FileDone;
use crossbeam::queue::ArrayQueue;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Notes that may wait.
///
/// Chosen: one segment at a time, a few signals, and what is ordered of snapshots' files: some for each member.
const NOTES_MAX: usize = 64;

/// What another thread tells the shard.
#[derive(Debug)]
pub(super) enum Note {
    /// A segment exists, durably.
    SegmentMade {
        /// Which.
        segment: SegmentNumber,
        /// Its file, open for writing.
        file: OwnedFd,
    },
    /// A segment could not be made.
    SegmentFailed {
        /// Which was asked for.
        order: Order,
        /// What the disk said.
        why: String,
    },
    /// Something about a snapshot's file is done, or has failed.
    SnapshotFile {
        /// Of which group's snapshot.
        group: GroupId,
        /// The order's.
        ticket: u64,
        /// What became of it.
        done: FileDone,
    },
    /// SIGTERM or SIGINT: hand over, drain, end.
    Stop,
}

/// A shard's mailbox; clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Mailbox {
    notes: Arc<ArrayQueue<Note>>,
    wake: Wake,
}

impl Mailbox {
    pub(super) fn new(wake: Wake) -> Self {
        Self { notes: Arc::new(ArrayQueue::new(NOTES_MAX)), wake }
    }

    /// Leaves a note and rings. False if the box is full: the note is dropped.
    pub(super) fn put(&self, note: Note) -> bool {
        let is_taken = self.notes.push(note).is_ok();
        self.wake.ring();
        is_taken
    }

    /// The oldest note.
    pub(super) fn take(&self) -> Option<Note> {
        self.notes.pop()
    }
}
