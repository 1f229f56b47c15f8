//! What members say to each other, as bytes: frames whole, checked and bounded, or refused with a reason.
//!
//! ```text
//! offset  0        4        8       9          12                16               20
//!         +--------+--------+-------+----------+-----------------+----------------+--- … ---+--- … ---+
//!         | magic  | crc    |version| zero     | envelope length | payload length | envelope| payload |
//!         | 4      | u32    | u8    | 3        | u32             | u32            | rkyv    | raw     |
//!         +--------+--------+-------+----------+-----------------+----------------+--- … ---+--- … ---+
//!                           |<------------------- crc covers all of this -------------------------->|
//! ```
//!
//! The envelope carries what differs per receiver or over time: identities, the raft message, the lengths of what
//! follows. The payload is raw: the encoded entries, byte for byte as they lie in the sender's log and will lie in
//! the receiver's; or who asks (number u32, revision u64, left out for nobody: the kind of a forward says so by its bit 0x80) and
//! then the body of a forwarded request; or its answer. None of it is copied on the way in.
//!
//! What always holds: lengths are compared with their limits before anything is waited for or allocated; the CRC32C
//! is checked before the envelope is looked at, because bytecheck alone lets most flipped bits pass (DESIGN §8);
//! bytecheck is run all the same, because a checksum says nothing about who wrote the bytes; the records' lengths
//! are those that the raft entries name.
//!
//! The envelope is rkyv: its layout follows the crate's version, its features and the structs in `envelope.rs`. So
//! it may not outlive a process: it is never stored, and a change to those structs is a new version byte. Whatever
//! must be read again later (entries, commands) is in the payload, in formats of its own.
//!
//! What it leaves out: connections and their handshake, who may speak for which member, what the messages mean.
#![forbid(unsafe_code)]

mod envelope;
mod frame;
mod handshake;
#[cfg(test)]
mod tests;

pub use frame::{Asker, Body, ForwardStamp, Frame, HEADER_BYTES, PeerDamage, decode, encode, frame_length};
pub use handshake::{Greeting, PEER_VERSION_USERS, PEER_VERSION_WAITING, PEER_VERSIONS};
