//! The write-ahead log: what is written where, and what a log found on disk still says (DESIGN §8).
//!
//! One log serves all groups of a shard. It is a row of segments, each a file of whole 4 KiB blocks, and each
//! write is one *frame*, padded to blocks and under one checksum (`wal-format/FORMAT.md`):
//!
//! ```text
//!  segment 7                                   segment 8 (spare: made, empty)
//! ┌─────────┬───────┬───────┬──────┬─ ─ ─ ─┐  ┌─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─┐
//! │ opening │ batch │ batch │ seal │ free    │ free
//! └─────────┴───────┴───────┴──────┴─ ─ ─ ─┘  └─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─┘
//!   every     names the groups of the frame
//!   group     before it, so one damaged frame
//!             loses no vote and hides no tail
//! ```
//!
//! [`Wal`] turns what groups want to be durable into one frame at a time. At most one write is in flight;
//! what arrives meanwhile is the next batch, so group commit needs no timer. After 20 ms with nothing to
//! write it writes a *seal*, so that rot in the last batch cannot be taken for a write that a crash tore.
//!
//! [`recover`] reads segments back. Its one hard question is what a bad frame means. With no valid frame
//! after it, it is the write in flight when the process died: nobody was told that it is durable, so it is
//! dropped. With a valid frame after it, it is corruption: the log has a hole, and the frames behind tell
//! where the log really ends. Then the member votes as if its log were whole and lets peers fill the hole;
//! nothing is silently cut off.
//!
//! What always holds: no bytes make recovery panic; a frame is believed whole or not at all; a shorter log
//! comes out without a hole only if what is missing was never acknowledged.
//!
//! What this room leaves out: files. It says what to write and is told what was found.
#![forbid(unsafe_code)]

mod cut;
mod group_log;
mod recovery;
mod scan;

mod seal;
mod segments;
mod words;
mod writer;

pub use cut::{CannotCut, Cut, cut};
pub use recovery::{FoundSegment, Note, Recovered, RecoveredGroup, RecoveryFailed, Restorable, recover};
pub use segments::{NextFrame, SpareSegment, WantedSegment};
pub use wal_format::{Configuration, Identity, Member, MemberKind};
pub use writer::{GroupOpening, GroupWrite, Wal, WalOptions, WalWrite};

#[cfg(test)]
mod tests;
