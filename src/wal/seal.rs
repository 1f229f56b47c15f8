//! When to write a seal: once, after a while with nothing else to write.
//!
//! A frame with no valid frame after it looks like a write that a crash tore. A seal behind the last batch
//! ends that doubt, so that rot in the batch is found to be rot (DESIGN §8).

use crate::ids::BootMicros;
use crate::limits::WAL_SEAL_MICROS;

/// Whether the last frame has been sealed, and when it will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seal {
    /// There is nothing to seal: no frame yet in this boot, or the last one is a seal.
    Done,
    /// The last frame is not durable yet.
    Waiting,
    /// The last frame is durable; seal it at this instant unless another is written first.
    At(BootMicros),
}

impl Seal {
    /// The last frame became durable.
    pub(super) const fn after_write(self, now: BootMicros) -> Self {
        match self {
            Self::Waiting => Self::At(now.after(WAL_SEAL_MICROS)),
            Self::Done | Self::At(_) => self,
        }
    }

    /// The instant of the seal, if one is due.
    pub(super) const fn deadline(self) -> Option<BootMicros> {
        match self {
            Self::At(deadline) => Some(deadline),
            Self::Done | Self::Waiting => None,
        }
    }
}
