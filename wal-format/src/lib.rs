//! The bytes of the write-ahead log and nothing else; `FORMAT.md` draws them and says what each is for.
//!
//! Two things are encoded here. An *entry* ([`encode_entry`]) is encoded and checksummed once, by the leader,
//! and the same bytes go to every disk and over every wire. A *frame* ([`FrameWriter`]) is one write to one
//! log: it holds entries and, for each group it touches, what recovery must know if an earlier frame is
//! damaged.
//!
//! What always holds: a decoder reads any bytes, of any length, without panicking, and returns either what
//! was encoded or a [`Damage`] that says where and what. Nothing is allocated for a length that is only
//! claimed.
//!
//! What it leaves out: files, segments as a whole, and what damage means; those are decisions, made by
//! whoever writes and recovers the log. Numbers are plain integers here, because this crate knows no other.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod damage;
mod entry;
mod frame;
mod name;
mod opening;
mod reader;
mod section;

pub use damage::{Damage, DamageKind};
pub use entry::{
    ENTRY_HEADER_BYTES, ENTRY_VERSION, EntryHeader, EntryKind, decode_entry, decode_entry_again,
    encode_entry, entry_bytes_count,
};
pub use frame::{
    BLOCK_BYTES, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_VERSION, Frame, FrameClaims, FrameHeader,
    FrameKind, FrameWriter, Place, Sections, starts_like_a_frame,
};
pub use name::{SegmentName, parse_segment_file_name, segment_file_name};
pub use opening::{Configuration, GroupOpening, Identity, Member, MemberKind, NAME_BYTES_MAX};
pub use section::{
    Batch, GroupTail, HardState, Position, Record, Records, Reset, Run, RunKind, Section, Tails,
    batch_bytes_count, group_opening_bytes_count, identity_bytes_count, repeat_bytes_count,
    reset_bytes_count,
};
