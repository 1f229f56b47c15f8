//! What can happen to a shard.

use crate::api::{Request, UsersRequest, WatchRequest};
use crate::auth::Who;
use crate::ids::{GroupId, MemberId, SegmentNumber, StreamId, Ticket, WatchId};
use bytes::Bytes;

/// The ticket of a request, and who asks.
pub(super) type Asked = (Ticket, Who);

/// One thing that happened since the last turn. Time passes with every turn; there is no input for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A segment asked for by `Output::MakeSegment` exists, zero-filled, and its directory entry is durable.
    SegmentReady {
        /// Which.
        segment: SegmentNumber,
    },
    /// The one write in flight is durable.
    Written,
    /// Something that `Output::SnapshotFile` ordered is done, or has failed.
    SnapshotFile {
        /// Of which group's snapshot.
        group: GroupId,
        /// The order's.
        ticket: u64,
        /// What became of it.
        done: FileDone,
    },
    /// A whole frame from a peer, not yet checked.
    Peer {
        /// Who sent it, as far as the connection knows.
        from: MemberId,
        /// The frame.
        frame: Bytes,
    },
    /// A peer has greeted. What it says holds until it says another thing.
    PeerSpeaks {
        /// Who.
        peer: MemberId,
        /// The highest version of the peer protocol that it speaks.
        version: u8,
    },
    /// A client's request.
    Client {
        /// For the reply.
        ticket: Ticket,
        /// Who asks.
        who: Who,
        /// What it wants.
        request: Request,
    },
    /// A client's request about users and roles.
    Users {
        /// For the reply.
        ticket: Ticket,
        /// Who asks.
        who: Who,
        /// What it wants.
        request: UsersRequest,
    },
    /// A client's request about the watches on one of its connections.
    Watch {
        /// For the reply.
        ticket: Ticket,
        /// Who asks.
        who: Who,
        /// The connection. Never one whose `StreamClosed` was given.
        stream: StreamId,
        /// The name that the request gives to a watch, if it creates one.
        name: WatchId,
        /// What it wants.
        request: WatchRequest,
    },
    /// Of all that was told on a connection, so many bytes have not left yet.
    StreamTaken {
        /// Which.
        stream: StreamId,
        /// How many.
        waiting_bytes: usize,
    },
    /// A connection is no more, and no watch on it.
    StreamClosed {
        /// Which.
        stream: StreamId,
    },
    /// Hand leadership to another member if this one leads (SIGTERM; `member transfer`).
    HandOver {
        /// To whom; anyone caught up if not said.
        to: Option<MemberId>,
    },
}

/// What became of an order about a snapshot's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileDone {
    /// The bytes are written, and durable if the order says so.
    Written,
    /// The bytes at that place: fewer than asked for only at the end of the file.
    Read(Bytes),
    /// It has its name, durably.
    Kept,
    /// Something went wrong; the file is of no use any more unless it was only read.
    Failed,
}
