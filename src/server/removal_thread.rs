//! The thread that gives back what removed files took of the disk, one after the other and gently.
//!
//! Always: whatever it is given has no name any more, so that a crash leaves nothing behind. It is a thread of its own because
//! those that make segments and write snapshots must not wait for it.

use crate::io::shrink_gently;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Sender, channel};
use std::thread;

/// Starts the thread, on `cpus` unless that is empty. It ends when all of the returned sender are dropped.
pub(super) fn start(cpus: Vec<u32>) -> std::io::Result<Sender<OwnedFd>> {
    // As many as a snapshot makes superfluous at once: what is open here is bounded by the disk.
    let (sender, files) = channel();
    thread::Builder::new().name("removal".to_owned()).spawn(move || {
        if !cpus.is_empty()
            && let Err(error) = crate::io::run_on(&cpus)
        {
            tracing::warn!(?cpus, %error, "the removal thread runs where the kernel puts it");
        }
        for file in files {
            shrink_gently(file);
        }
    })?;
    Ok(sender)
}
