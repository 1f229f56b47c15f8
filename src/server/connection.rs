//! One connection, without its socket: bytes come in, frames are taken off; pieces to send wait here.
//!
//! Always: what waits to be sent is bounded, and whoever lets it grow beyond the bound is dropped; a connection
//! that has not greeted, or not finished a frame, in time is dropped. Left out: the socket's operations, and what
//! frames mean. Between socket and codec stands a byte transform, which is the identity until TLS takes its place.

use crate::ids::{BootMicros, MemberId};
use crate::limits::{CONNECTION_PATIENCE_MICROS, SEND_QUEUE_BYTES_ENOUGH, SEND_QUEUE_BYTES_MAX};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

/// What a connection is for, and how far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A native client that has not said hello.
    NewClient,
    /// A native client.
    Client,
    /// A peer that connected to us and has not greeted.
    NewPeer,
    /// A peer that sends us frames.
    PeerIn(MemberId),
    /// Our connection to a peer, not open yet or not greeted back.
    Opening(MemberId),
    /// Our connection to a peer: our frames go out here.
    PeerOut(MemberId),
}

/// Bytes of gathered answers that become a piece.
///
/// Chosen: 64 short ones and more; a connection keeps at most twice as much memory for its next answers.
const GATHERED_BYTES_ENOUGH: usize = 4 * 1_024;

/// A connection and what waits on it.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) purpose: Purpose,
    /// Received and not taken off yet.
    pub(super) inbound: BytesMut,
    outbound: VecDeque<Bytes>,
    /// Answers behind `outbound` that are to leave as one piece.
    gathered: BytesMut,
    /// Of `outbound`, of what is gathered, and of what the kernel has.
    outbound_bytes: usize,
    /// Whether the kernel has some of `outbound`.
    pub(super) is_sending: bool,
    /// Whether nothing is received until more has been sent.
    pub(super) is_paused: bool,
    /// Whether it has, or had, a watch.
    pub(super) is_watching: bool,
    /// Whether everything sent goes out and then the connection ends.
    pub(super) is_ending: bool,
    /// When an unfinished greeting or frame is given up.
    patience_until: Option<BootMicros>,
    /// Requests whose answers are awaited.
    pub(super) in_flight_count: usize,
    /// Since when an answer has waited for the kernel to take it.
    pub(super) answering_since: Option<BootMicros>,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, purpose: Purpose, now: BootMicros) -> Self {
        Self {
            socket,
            purpose,
            inbound: BytesMut::new(),
            outbound: VecDeque::new(),
            gathered: BytesMut::new(),
            outbound_bytes: 0,
            is_sending: false,
            is_paused: false,
            is_watching: false,
            is_ending: false,
            patience_until: Some(now.after(CONNECTION_PATIENCE_MICROS)),
            in_flight_count: 0,
            answering_since: None,
        }
    }

    /// The byte transform on the way in.
    pub(super) fn received(&mut self, bytes: &[u8]) {
        self.inbound.extend_from_slice(bytes);
    }

    /// The byte transform on the way out. Returns whether the queue is still within its bound.
    pub(super) fn queue(&mut self, piece: Bytes) -> bool {
        self.end_gathering();
        self.outbound_bytes += piece.len();
        self.outbound.push_back(piece);
        self.outbound_bytes <= SEND_QUEUE_BYTES_MAX
    }

    /// Has `append` put an answer behind the others, to leave with them as one piece. Returns whether the queue is still within
    /// its bound.
    pub(super) fn gather(&mut self, append: impl FnOnce(&mut BytesMut)) -> bool {
        let before = self.gathered.len();
        append(&mut self.gathered);
        assert!(self.gathered.len() >= before, "answers are added, and none is taken back");
        self.outbound_bytes += self.gathered.len() - before;
        if self.gathered.len() >= GATHERED_BYTES_ENOUGH {
            self.end_gathering();
        }
        self.outbound_bytes <= SEND_QUEUE_BYTES_MAX
    }

    /// What is gathered becomes a piece.
    fn end_gathering(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let piece = if self.gathered.len() < GATHERED_BYTES_ENOUGH {
            self.gathered.split()
        } else {
            // Large memory is not kept for the next answers.
            std::mem::take(&mut self.gathered)
        };
        self.outbound.push_back(piece.freeze());
    }

    /// The next pieces to hand to the kernel, which become its own until `sent`.
    pub(super) fn pieces_to_send(&mut self, count_max: usize) -> Option<Vec<Bytes>> {
        if self.is_sending {
            return None;
        }
        self.end_gathering();
        if self.outbound.is_empty() {
            return None;
        }
        self.is_sending = true;
        let count = self.outbound.len().min(count_max);
        Some(self.outbound.drain(..count).collect())
    }

    /// The kernel took `count` bytes of `pieces`; the rest waits again, in front.
    pub(super) fn sent(&mut self, pieces: Vec<Bytes>, count: usize) {
        self.is_sending = false;
        self.outbound_bytes -= count;
        let mut left = count;
        let mut unsent = Vec::new();
        for mut piece in pieces {
            if piece.len() <= left {
                left -= piece.len();
            } else {
                unsent.push(piece.split_off(left));
                left = 0;
            }
        }
        for piece in unsent.into_iter().rev() {
            self.outbound.push_front(piece);
        }
    }

    /// Bytes that wait to be sent, those lent to the kernel included.
    pub(super) const fn waiting_bytes(&self) -> usize {
        self.outbound_bytes
    }

    /// Whether a client has so much to take that it may not ask for more yet.
    pub(super) fn is_congested(&self) -> bool {
        self.purpose == Purpose::Client && self.outbound_bytes > SEND_QUEUE_BYTES_ENOUGH
    }

    /// Since when the oldest answer had waited, once all have left.
    pub(super) fn answers_left(&mut self) -> Option<BootMicros> {
        if self.is_drained() { self.answering_since.take() } else { None }
    }

    /// Whether nothing waits to be sent.
    pub(super) fn is_drained(&self) -> bool {
        self.outbound_bytes == 0 && !self.is_sending
    }

    /// Everything that was due has come: an open frame starts the clock, a finished one stops it.
    pub(super) fn mind(&mut self, now: BootMicros) {
        if self.is_new() || self.is_ending {
            return;
        }
        if self.inbound.is_empty() || self.is_congested() {
            self.patience_until = None;
        } else if self.patience_until.is_none() {
            self.patience_until = Some(now.after(CONNECTION_PATIENCE_MICROS));
        }
    }

    /// A whole frame was taken off: whatever is left was begun after it.
    pub(super) fn progressed(&mut self) {
        if !self.is_new() {
            self.patience_until = None;
        }
    }

    /// Sends what waits, then ends; whoever does not take it is not waited for.
    pub(super) fn end(&mut self, now: BootMicros) {
        self.inbound.clear();
        self.is_ending = true;
        self.patience_until = Some(now.after(CONNECTION_PATIENCE_MICROS));
    }

    fn is_new(&self) -> bool {
        matches!(self.purpose, Purpose::NewClient | Purpose::NewPeer | Purpose::Opening(_))
    }

    /// The greeting is done.
    pub(super) fn greeted(&mut self, purpose: Purpose) {
        self.purpose = purpose;
        self.patience_until = None;
    }

    /// When the connection is given up unless something comes.
    pub(super) fn deadline(&self) -> Option<BootMicros> {
        self.patience_until
    }
}
