//! The thread for slow work on files: it makes and zero-fills segments ahead of need.
//!
//! Always: a segment is reported ready only when its zeros, its length and its name are durable. A segment
//! that cannot be made is a full or dying disk: the report says so, and the shard asks again later.

use super::mailbox::{Mailbox, Note};
use crate::ids::SegmentNumber;
use crate::io::DataDirectory;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use wal_format::{SegmentName, segment_file_name};

/// A segment to make.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    pub(super) segment: SegmentNumber,
    pub(super) salt: u64,
    /// Whether the log goes on meanwhile, so that the disk is not to be kept busy.
    pub(super) is_gentle: bool,
}

/// Starts the thread, on `cpus` unless that is empty. It ends when the returned sender is dropped.
pub(super) fn start(
    directory: Arc<DataDirectory>,
    segment_bytes: u64,
    mailbox: Mailbox,
    cpus: Vec<u32>,
) -> std::io::Result<Sender<Order>> {
    // The shard asks for one segment at a time, so this channel holds one order at the most.
    let (sender, orders) = channel::<Order>();
    thread::Builder::new().name("bulk".to_owned()).spawn(move || {
        if !cpus.is_empty()
            && let Err(error) = crate::io::run_on(&cpus)
        {
            tracing::warn!(?cpus, %error, "the bulk thread runs where the kernel puts it");
        }
        for order in orders {
            let name = SegmentName { shard: 0, number: order.segment.0, salt: order.salt };
            let note = match directory.make_zeroed(&segment_file_name(&name), segment_bytes, order.is_gentle)
            {
                Ok(file) => Note::SegmentMade { segment: order.segment, file },
                Err(error) => Note::SegmentFailed { order, why: error.to_string() },
            };
            if !mailbox.put(note) {
                return;
            }
        }
    })?;
    Ok(sender)
}
