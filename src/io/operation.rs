//! What is in flight, and the memory it has lent to the kernel.
//!
//! An [`Operation`] is boxed where the kernel holds a pointer into it, so that moving the slot that holds it moves
//! no lent byte. Always: from submission to the last completion the operation lives in the ring's table, and nobody
//! else can reach its buffers.

use super::AlignedBuffer;
use bytes::Bytes;
use rustix::net::SocketAddrAny;
use std::os::fd::{OwnedFd, RawFd};

/// Most pieces that one send gathers.
///
/// Chosen: far below the kernel's 1,024; more pieces than this are cheaper copied together.
pub(super) const SEND_PIECES_MAX: usize = 64;

/// One operation in flight. Descriptors are the caller's to keep open until the completion. What begins with an
/// underscore is held for the kernel alone.
pub(super) enum Operation {
    /// Accepts until it fails or is cancelled (multishot).
    Accept,
    /// Connects; the kernel reads the address.
    Connect { _address: Box<SocketAddrAny> },
    /// Receives into `buffer`, up to its capacity.
    Receive { buffer: Vec<u8> },
    /// Sends `pieces`, gathered if they are more than one.
    Send { pieces: Vec<Bytes>, _header: Option<Box<SendHeader>> },
    /// Writes `buffer`'s first bytes to a file.
    Write { buffer: AlignedBuffer },
    /// Reads the eight bytes of an eventfd.
    Wake { _counter: Box<[u8; 8]> },
    /// Cancels everything on one descriptor, which is closed when that is done.
    Close { socket: OwnedFd },
}

/// A message header and the pieces it points at, kept together for `sendmsg`.
pub(super) struct SendHeader {
    pub(super) message: libc::msghdr,
    _pieces: Vec<libc::iovec>,
}

// SAFETY: the pointers inside point into memory that this struct owns and into `Bytes` owned by the same `Operation`;
// both are plain memory that any thread may own.
unsafe impl Send for SendHeader {}

impl SendHeader {
    /// A header that gathers the first `SEND_PIECES_MAX` of `pieces`.
    pub(super) fn gather(pieces: &[Bytes]) -> Self {
        let gathered = pieces.iter().take(SEND_PIECES_MAX).map(|piece| libc::iovec {
            // The kernel only reads what a send gathers.
            iov_base: piece.as_ptr().cast_mut().cast(),
            iov_len: piece.len(),
        });
        let mut pieces: Vec<libc::iovec> = gathered.collect();
        // SAFETY: all zeros is a valid `msghdr` (null pointers, no lengths).
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        // The vector's memory stays where it is when the header moves.
        message.msg_iov = pieces.as_mut_ptr();
        message.msg_iovlen = pieces.len();
        Self { message, _pieces: pieces }
    }
}

/// The descriptor of a file or socket that an operation works on.
pub(super) fn descriptor(fd: RawFd) -> io_uring::types::Fd {
    io_uring::types::Fd(fd)
}
