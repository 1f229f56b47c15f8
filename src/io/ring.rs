//! One io_uring: submissions gathered over a turn, one system call for all of them, completions as events.
//!
//! Always: a buffer lent to the kernel is owned by its operation in `operations` until its completion, whatever the
//! caller does meanwhile; if the ring is dropped with operations in flight their memory is leaked, never freed under
//! the kernel's hands. Left out: who wants what: an event carries the caller's own tag.

use super::AlignedBuffer;
use super::operation::{Operation, SEND_PIECES_MAX, SendHeader, descriptor};
use crate::ids::BootMicros;
use bytes::Bytes;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::net::SocketAddrAny;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The caller's name for an operation; it comes back with the event.
pub type Tag = u64;

/// Submission slots of a ring; more are queued in memory until the kernel has taken these.
///
/// Chosen: a busy turn of 256 connections, peers and the disk.
const SUBMISSIONS: u32 = 1_024;

/// `IORING_RECVSEND_POLL_FIRST` of the kernel's interface (Linux 5.19).
const RECEIVE_POLL_FIRST: u16 = 1;

/// Longest wait for a completion, in microseconds.
///
/// Chosen: an hour; "for ever" does not fit the kernel's clock.
const WAIT_MICROS_MAX: u64 = 3_600 * 1_000_000;

/// Why there is no ring, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The kernel does not let us have one.
    #[error(
        "io_uring is not to be had here ({source}). mainstay needs Linux 5.19 or later with io_uring switched on: \
         check `sysctl kernel.io_uring_disabled` (0 is wanted), the container's seccomp profile, and memlock limits"
    )]
    Setup {
        /// What the kernel said.
        source: io::Error,
    },
    /// A call on the ring failed; nothing can be trusted to complete.
    #[error("io_uring failed: {source}")]
    Enter {
        /// What the kernel said.
        source: io::Error,
    },
}

/// Something that has completed.
#[derive(Debug)]
pub enum Event {
    /// A connection came in, or accepting ended.
    Accepted {
        /// The listener's tag.
        tag: Tag,
        /// The new socket.
        socket: io::Result<OwnedFd>,
        /// Whether accepting on this listener has ended with this.
        has_ended: bool,
    },
    /// A connection attempt ended.
    Connected {
        /// The caller's tag.
        tag: Tag,
        /// How.
        result: io::Result<()>,
    },
    /// Bytes came in, none at the end of the stream.
    Received {
        /// The caller's tag.
        tag: Tag,
        /// The bytes received; the buffer may be lent again.
        buffer: Vec<u8>,
        /// How many, or why none.
        result: io::Result<usize>,
    },
    /// Bytes went out, perhaps fewer than asked.
    Sent {
        /// The caller's tag.
        tag: Tag,
        /// What was to be sent.
        pieces: Vec<Bytes>,
        /// How many bytes went.
        result: io::Result<usize>,
    },
    /// A file write ended.
    Written {
        /// The caller's tag.
        tag: Tag,
        /// The buffer, to be used again.
        buffer: AlignedBuffer,
        /// How many bytes were written.
        result: io::Result<usize>,
    },
    /// Another thread rang.
    Woken {
        /// The caller's tag.
        tag: Tag,
    },
}

struct InFlight {
    tag: Tag,
    operation: Operation,
}

/// One io_uring and everything in flight on it. It stays on the thread that made it.
pub struct Ring {
    uring: IoUring,
    operations: Vec<Option<InFlight>>,
    free: Vec<usize>,
    /// Submissions that found the queue full.
    queued: VecDeque<squeue::Entry>,
    /// System calls made so far.
    pub enters: u64,
}

impl Ring {
    /// Sets up a ring for this thread alone, with deferred task work where the kernel has it.
    ///
    /// # Errors
    /// `RingError::Setup`: io_uring is switched off or too old.
    pub fn new() -> Result<Self, RingError> {
        let modern = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(4 * SUBMISSIONS)
            .build(SUBMISSIONS);
        let uring = match modern {
            Ok(uring) => uring,
            // Kernels before 6.1 know neither flag.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::builder()
                .setup_cqsize(4 * SUBMISSIONS)
                .build(SUBMISSIONS)
                .map_err(|source| RingError::Setup { source })?,
            Err(source) => return Err(RingError::Setup { source }),
        };
        Ok(Self { uring, operations: Vec::new(), free: Vec::new(), queued: VecDeque::new(), enters: 0 })
    }

    /// Keeps `file` open for as long as the ring has work in flight, also after a kill: the kernel lets go of
    /// a ring's files only when its last operation has ended (catalogue 55).
    ///
    /// # Errors
    /// `RingError::Setup`: the kernel takes no registered files.
    pub fn hold(&mut self, file: RawFd) -> Result<(), RingError> {
        self.uring.submitter().register_files(&[file]).map_err(|source| RingError::Setup { source })
    }

    /// Accepts connections on `listener` until that fails.
    pub fn accept(&mut self, tag: Tag, listener: RawFd) {
        let entry = opcode::AcceptMulti::new(descriptor(listener)).flags(libc::SOCK_CLOEXEC).build();
        self.submit(tag, Operation::Accept, entry);
    }

    /// Connects `socket` to `address`.
    pub fn connect(&mut self, tag: Tag, socket: RawFd, address: SocketAddr) {
        let address = Box::new(SocketAddrAny::from(address));
        let (pointer, length) = (address.as_ptr(), address.addr_len());
        let entry = opcode::Connect::new(descriptor(socket), pointer.cast(), length).build();
        self.submit(tag, Operation::Connect { _address: address }, entry);
    }

    /// Receives into `buffer`'s capacity.
    pub fn receive(&mut self, tag: Tag, socket: RawFd, mut buffer: Vec<u8>) {
        buffer.clear();
        let capacity = u32::try_from(buffer.capacity()).unwrap_or(u32::MAX);
        // A stream that was just read has seldom more: the kernel waits first instead of trying in vain.
        let entry = opcode::Recv::new(descriptor(socket), buffer.as_mut_ptr(), capacity)
            .ioprio(RECEIVE_POLL_FIRST)
            .build();
        self.submit(tag, Operation::Receive { buffer }, entry);
    }

    /// Sends `pieces`, in order, as far as one call takes them.
    pub fn send(&mut self, tag: Tag, socket: RawFd, pieces: Vec<Bytes>) {
        let flags = libc::MSG_NOSIGNAL;
        let (entry, header) = match pieces.as_slice() {
            [piece] => {
                // Of a piece of more than 4 GiB the rest is sent next.
                let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
                (opcode::Send::new(descriptor(socket), piece.as_ptr(), length).flags(flags).build(), None)
            }
            several => {
                let header = Box::new(SendHeader::gather(several));
                let message = &raw const header.message;
                let flags = flags.unsigned_abs();
                (opcode::SendMsg::new(descriptor(socket), message).flags(flags).build(), Some(header))
            }
        };
        self.submit(tag, Operation::Send { pieces, _header: header }, entry);
    }

    /// Pieces that one `send` takes at the most.
    pub const fn send_pieces_max() -> usize {
        SEND_PIECES_MAX
    }

    /// Writes the first `count` bytes of `buffer` at `offset`; durable when complete if `is_synced`.
    pub fn write(
        &mut self,
        tag: Tag,
        file: RawFd,
        offset: u64,
        (buffer, count): (AlignedBuffer, usize),
        is_synced: bool,
    ) {
        assert!(count <= buffer.len(), "a write stays within its buffer");
        let length = u32::try_from(count).expect("a write is far below 4 GiB");
        let flags = if is_synced { libc::RWF_DSYNC } else { 0 };
        let entry = opcode::Write::new(descriptor(file), buffer.as_ptr(), length)
            .offset(offset)
            .rw_flags(flags)
            .build();
        self.submit(tag, Operation::Write { buffer }, entry);
    }

    /// Waits for another thread to ring `eventfd`.
    pub fn listen_for_wake(&mut self, tag: Tag, eventfd: RawFd) {
        let mut counter = Box::new([0; 8]);
        let entry = opcode::Read::new(descriptor(eventfd), counter.as_mut_ptr(), 8).build();
        self.submit(tag, Operation::Wake { _counter: counter }, entry);
    }

    /// Cancels everything in flight on `socket`, then closes it. The cancelled operations still complete.
    pub fn close(&mut self, socket: OwnedFd) {
        let builder = types::CancelBuilder::fd(descriptor(socket.as_raw_fd())).all();
        let entry = opcode::AsyncCancel2::new(builder).build();
        self.submit(0, Operation::Close { socket }, entry);
    }

    /// Submits what was gathered and waits until something completes or `deadline` has come, then drains.
    ///
    /// # Errors
    /// `RingError::Enter`: the ring is broken.
    pub fn turn(
        &mut self,
        now: BootMicros,
        deadline: BootMicros,
        events: &mut Vec<Event>,
    ) -> Result<(), RingError> {
        self.fill_submissions();
        // What does not fit goes ahead without waiting: it may be what the rest waits for.
        while !self.queued.is_empty() {
            self.enters += 1;
            match self.uring.submit() {
                Ok(_) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR)) => {}
                // There is no room for more completions: those that are there must be taken first.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN)) => break,
                Err(source) => return Err(RingError::Enter { source }),
            }
            self.fill_submissions();
        }
        let wait = deadline.since(now).min(WAIT_MICROS_MAX);
        // One completion is always asked for, also when there is no time to wait: with deferred task work the kernel
        // brings completions forward only to those who ask.
        let limit = types::Timespec::new().sec(wait / 1_000_000).nsec(sub_second_nanos(wait));
        let args = types::SubmitArgs::new().timespec(&limit);
        self.enters += 1;
        match self.uring.submitter().submit_with_args(1, &args) {
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => {}
            Err(source) => return Err(RingError::Enter { source }),
        }
        self.drain(events);
        Ok(())
    }

    fn drain(&mut self, events: &mut Vec<Event>) {
        loop {
            let Some(completion) = self.uring.completion().next() else { return };
            self.complete(&completion, events);
        }
    }

    fn complete(&mut self, completion: &cqueue::Entry, events: &mut Vec<Event>) {
        let slot = usize::try_from(completion.user_data()).expect("user data is one of our slots");
        let result = completion.result();
        let outcome = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        if cqueue::more(completion.flags()) {
            let tag = self.operations[slot].as_ref().expect("a multishot operation stays in its slot").tag;
            events.push(Event::Accepted { tag, socket: outcome.map(|_| owned(result)), has_ended: false });
            return;
        }
        let InFlight { tag, operation } =
            self.operations[slot].take().expect("a completion has its operation");
        self.free.push(slot);
        match operation {
            Operation::Accept => {
                events.push(Event::Accepted { tag, socket: outcome.map(|_| owned(result)), has_ended: true });
            }
            Operation::Connect { .. } => {
                events.push(Event::Connected { tag, result: outcome.map(|_| ()) });
            }
            Operation::Receive { mut buffer } => {
                let count = *outcome.as_ref().unwrap_or(&0);
                assert!(count <= buffer.capacity(), "the kernel stays within the buffer it was lent");
                // SAFETY: the kernel has initialised the first `count` bytes, which are within the capacity.
                unsafe { buffer.set_len(count) };
                events.push(Event::Received { tag, buffer, result: outcome });
            }
            Operation::Send { pieces, .. } => events.push(Event::Sent { tag, pieces, result: outcome }),
            Operation::Write { buffer } => events.push(Event::Written { tag, buffer, result: outcome }),
            Operation::Wake { .. } => events.push(Event::Woken { tag }),
            Operation::Close { socket } => drop(socket),
        }
    }

    fn submit(&mut self, tag: Tag, operation: Operation, entry: squeue::Entry) {
        let in_flight = Some(InFlight { tag, operation });
        let slot = if let Some(slot) = self.free.pop() {
            self.operations[slot] = in_flight;
            slot
        } else {
            self.operations.push(in_flight);
            self.operations.len() - 1
        };
        self.queued.push_back(entry.user_data(slot as u64));
    }

    /// Moves queued submissions into the kernel's queue, as far as it has room.
    fn fill_submissions(&mut self) {
        let mut submissions = self.uring.submission();
        while let Some(entry) = self.queued.pop_front() {
            // SAFETY: what the entry points at is owned by its operation, which stays in `operations` until the
            // completion, and which `Drop` leaks rather than frees.
            if unsafe { submissions.push(&entry) }.is_err() {
                self.queued.push_front(entry);
                return;
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel may still write into what is in flight, so that memory is never used again.
        std::mem::forget(std::mem::take(&mut self.operations));
    }
}

/// The descriptor that an accept has just returned.
fn owned(descriptor: i32) -> OwnedFd {
    // SAFETY: a successful accept returns a new descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

fn sub_second_nanos(micros: u64) -> u32 {
    u32::try_from(micros % 1_000_000 * 1_000).expect("below one thousand million")
}
