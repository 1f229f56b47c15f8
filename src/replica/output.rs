//! What a shard wants done.

use crate::api::Response;
use crate::ids::{MemberId, SegmentNumber, Ticket};
use crate::snapshot::FileName;
use crate::watch::{Batch, Ending, Place};
use bytes::Bytes;

/// One thing to do after a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Make a zero-filled segment with this number and salt in its name, sync its directory, answer `SegmentReady`.
    MakeSegment {
        /// Its number.
        segment: SegmentNumber,
        /// Its random salt.
        salt: u64,
        /// Number and salt of one that holds nothing any more: its file may be renamed instead, as it is.
        recycled: Option<(SegmentNumber, u64)>,
    },
    /// Remove a segment that holds nothing any more. That it is gone need not be durable.
    RemoveSegment {
        /// Its number.
        segment: SegmentNumber,
        /// Its salt.
        salt: u64,
    },
    /// Write these bytes, durably (`RWF_DSYNC`), and answer `Written`. At most one is in flight.
    Write {
        /// Where: the segment.
        segment: SegmentNumber,
        /// Where: bytes from the segment's start; a multiple of the block size.
        offset: u64,
        /// What; a whole number of blocks.
        frame: Bytes,
        /// Always true; a planted bug makes it false, and then nothing promises durability.
        is_synced: bool,
    },
    /// Do something with a snapshot's file. Orders about one file are done in their order, and answered but for the last two.
    SnapshotFile {
        /// For the answer.
        ticket: u64,
        /// Which file.
        file: FileName,
        /// What to do.
        order: FileOrder,
    },
    /// Send a frame to a peer. It may be lost.
    Send {
        /// To whom.
        to: MemberId,
        /// What.
        frame: Bytes,
    },
    /// Answer a client.
    Reply {
        /// The request's ticket.
        ticket: Ticket,
        /// The answer.
        response: Response,
    },
    /// Tell these watches the same. Whatever is told to one stream, and every reply to it, is sent in this order.
    Tell {
        /// Whom; those on one stream follow each other.
        to: Vec<Place>,
        /// What.
        batch: Batch,
    },
    /// Tell a watch that it has ended.
    EndWatch {
        /// Which.
        to: Place,
        /// Why.
        why: Ending,
    },
}

/// What to do with a snapshot's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOrder {
    /// Write these bytes behind what was written before; at 0 the file is made anew.
    Write {
        /// Where; a multiple of the block size.
        offset: u64,
        /// What; whole blocks.
        bytes: Bytes,
        /// Whether all of the file is to be durable when this is reported as done. Otherwise it may be lost as long as no later
        /// write is synced.
        is_synced: bool,
    },
    /// Read.
    Read {
        /// From where.
        offset: u64,
        /// How much; less at the end of the file.
        bytes_count: usize,
    },
    /// Give it the name of a whole snapshot, durably, in place of any file of that name.
    Keep,
    /// Remove it; it may not be there.
    Remove,
    /// Give it the name of one that nobody trusts; it may not be there.
    Distrust,
}
