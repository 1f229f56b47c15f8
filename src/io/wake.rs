//! How another thread rings the shard: an eventfd that the ring reads.

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// A bell that many threads may ring and one ring hears.
#[derive(Clone, Debug)]
pub struct Wake {
    counter: Arc<OwnedFd>,
}

impl Wake {
    /// A bell that nobody has rung.
    ///
    /// # Errors
    /// The kernel's; in practice only that there are no descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { counter: Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?) })
    }

    /// Rings. Ringing twice before anybody listened is ringing once.
    #[allow(clippy::host_endian_bytes)] // An eventfd counts in the machine's own byte order.
    pub fn ring(&self) {
        // The counter overflows only after 2^64 rings, and a closed listener needs no waking.
        let _ = rustix::io::write(&*self.counter, &1_u64.to_ne_bytes());
    }

    /// What the ring listens on.
    pub fn descriptor(&self) -> RawFd {
        self.counter.as_raw_fd()
    }
}
