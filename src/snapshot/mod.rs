//! Snapshots as bytes: parts, checksums, what a file must be to be believed, and what it is called.
//!
//! A snapshot is the whole replicated state of one group as of one entry. `FORMAT.md` draws the file; here it is written
//! part by part ([`Writer`]) and read piece by piece, in pieces of any size ([`Reader`]), so that neither needs it in
//! memory.
//!
//! What always holds: equal state gives equal bytes on every member; a reader believes a part only with its checksum, its
//! tag and its number, and a snapshot only whole, with the hash in its closing; any other bytes are refused with what
//! is wrong and where, and nothing makes it panic.
//!
//! It leaves out what is in the parts (`kv/serial.rs`, `replica/sessions_bytes.rs`), files, and when a snapshot is made,
//! kept, sent or believed (`replica`).
#![forbid(unsafe_code)]

mod name;
mod part;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use name::{FileKind, FileName};
pub use part::{BLOCK_BYTES, HEADER_BYTES, Kind, Opening};
pub use reader::{Damage, Fault, Part, Reader, Verified};
pub use writer::Writer;
