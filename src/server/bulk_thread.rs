//! The thread for slow work on segments: it makes them ahead of need, of old ones or of zeros, and takes old ones their names.
//!
//! Always: a segment is reported ready only when its zeros, its length and its name are durable. A segment
//! that cannot be made is a full or dying disk: the report says so, and the shard asks again later.

use super::mailbox::{Mailbox, Note};
use crate::ids::SegmentNumber;
use crate::io::DataDirectory;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use wal_format::{SegmentName, segment_file_name};

/// A segment to make.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    pub(super) segment: SegmentNumber,
    pub(super) salt: u64,
    /// Number and salt of one that holds nothing any more and may become this one.
    pub(super) recycled: Option<(SegmentNumber, u64)>,
    /// Whether it is not to be made but removed, because it holds nothing any more.
    pub(super) is_removal: bool,
}

/// Starts the thread, on `cpus` unless that is empty. It ends when the returned sender is dropped. The disk is not kept busy by
/// it, as long as it is ahead of the log: `last_used` says how many bytes of the log's last segment are used, and the next is
/// there when half of them are.
pub(super) fn start(
    directory: Arc<DataDirectory>,
    segment_bytes: u64,
    mailbox: Mailbox,
    removed: Sender<OwnedFd>,
    cpus: Vec<u32>,
    last_used: &Arc<AtomicU64>,
) -> std::io::Result<Sender<Order>> {
    // The shard asks for one segment at a time; removals are as many as a snapshot made superfluous at once.
    let (sender, orders) = channel::<Order>();
    let last_used = Arc::clone(last_used);
    let bytes_needed = move || last_used.load(Ordering::Relaxed).saturating_mul(2);
    thread::Builder::new().name("bulk".to_owned()).spawn(move || {
        if !cpus.is_empty()
            && let Err(error) = crate::io::run_on(&cpus)
        {
            tracing::warn!(?cpus, %error, "the bulk thread runs where the kernel puts it");
        }
        for order in orders {
            let name = file_name(order.segment, order.salt);
            if order.is_removal {
                match directory.unlink(&name) {
                    // If nobody takes it, it goes at once.
                    Ok(file) => drop(file.map(|file| removed.send(file))),
                    Err(error) => {
                        tracing::warn!(name, %error, "a segment that is needed no more stays on the disk");
                    }
                }
                continue;
            }
            // One of another size was made by another version: it is not worth more than its space.
            let recycled = order.recycled.map(|(segment, salt)| file_name(segment, salt));
            let recycled = recycled.and_then(|old| directory.recycle(&old, &name, segment_bytes).ok());
            let made = match recycled {
                Some(file) => Ok(file),
                None => directory.make_zeroed(&name, segment_bytes, &bytes_needed),
            };
            let note = match made {
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

fn file_name(segment: SegmentNumber, salt: u64) -> String {
    segment_file_name(&SegmentName { shard: 0, number: segment.0, salt })
}
