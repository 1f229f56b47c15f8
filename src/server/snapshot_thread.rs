//! The thread for the files of snapshots: it writes, reads, names and removes them, one order after the other.
//!
//! Always: what is reported as written and synced, or as named, is durable, past the page cache where the file system
//! allows; what goes wrong with a snapshot is logged here and reported as failed, and ends nothing: the log still holds
//! what it would have held. Left out: what is in the files, and what follows from a failure (`replica`).

use super::mailbox::{Mailbox, Note};
use crate::io::{DataDirectory, DiskError};
use crate::replica::{FileDone, FileOrder};
use crate::snapshot::{FileKind, FileName};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

/// Something to do with a file.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) ticket: u64,
    pub(super) file: FileName,
    pub(super) order: FileOrder,
}

/// Starts the thread, on `cpus` unless that is empty. It ends when the returned sender is dropped.
pub(super) fn start(
    directory: Arc<DataDirectory>,
    mailbox: Mailbox,
    removed: Sender<OwnedFd>,
    cpus: Vec<u32>,
) -> std::io::Result<Sender<Task>> {
    // A replica has one order under way for each snapshot being cut or sent, and a few for one being received.
    let (sender, tasks) = channel::<Task>();
    thread::Builder::new().name("snapshots".to_owned()).spawn(move || {
        if !cpus.is_empty()
            && let Err(error) = crate::io::run_on(&cpus)
        {
            tracing::warn!(?cpus, %error, "the snapshot thread runs where the kernel puts it");
        }
        for Task { ticket, file, order } in tasks {
            let done = perform(&directory, &removed, file, order).unwrap_or_else(|error| {
                tracing::warn!(file = file.text(), %error, "a snapshot: this member tries again by itself");
                Some(FileDone::Failed)
            });
            let Some(done) = done else { continue };
            // The shard empties its mailbox with every turn; nobody unparks this thread.
            while !mailbox.put(Note::SnapshotFile { group: file.group, ticket, done: done.clone() }) {
                thread::park_timeout(Duration::from_millis(1));
            }
        }
    })?;
    Ok(sender)
}

/// Does what was ordered. Nothing is said of a removal.
fn perform(
    directory: &DataDirectory,
    removed: &Sender<OwnedFd>,
    file: FileName,
    order: FileOrder,
) -> Result<Option<FileDone>, DiskError> {
    let name = file.text();
    Ok(match order {
        FileOrder::Write { offset, bytes, is_synced } => {
            directory.write_at(&name, offset, &bytes, is_synced)?;
            Some(FileDone::Written)
        }
        FileOrder::Read { offset, bytes_count } => {
            Some(FileDone::Read(directory.read_at(&name, offset, bytes_count)?))
        }
        FileOrder::Keep => {
            directory.rename(&name, &FileName { kind: FileKind::Whole, ..file }.text())?;
            tracing::info!(index = file.position.index.0, term = file.position.term.0, "a snapshot counts");
            Some(FileDone::Kept)
        }
        FileOrder::Distrust => {
            directory.rename(&name, &FileName { kind: FileKind::Distrusted, ..file }.text())?;
            tracing::error!(
                index = file.position.index.0,
                "a snapshot of a state that most members do not have"
            );
            None
        }
        FileOrder::Remove => {
            if let Some(file) = directory.unlink(&name)? {
                // If nobody takes it, it goes at once.
                drop(removed.send(file));
            }
            None
        }
    })
}
