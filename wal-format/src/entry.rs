//! One log entry as bytes: encoded and checksummed once, by the leader, then copied and never made again.
//!
//! What always holds: the checksum covers everything behind it, and is checked before anything is believed
//! but the length, which only says how far the checksum reaches.

use crate::damage::{Damage, DamageKind};
use crate::frame::FRAME_BYTES_MAX;
use crate::reader::{Reader, length_u32};
use alloc::vec::Vec;

/// Bytes in front of an entry's body.
pub const ENTRY_HEADER_BYTES: usize = 72;

/// The version of the entry layout that this build writes, and the newest it reads.
pub const ENTRY_VERSION: u8 = 1;

/// Bytes of the checksum, which covers all bytes after itself.
const CHECKSUM_BYTES: usize = 4;

/// What an entry is for. Numbers 7 to 12 are reserved (`FORMAT.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// Nothing; a leader's first entry of its term.
    NoOp,
    /// A client's command; the body is the command in the native protocol's encoding.
    Command,
    /// A change of the configuration.
    Configuration,
    /// Opens a client's session; the session's id is this entry's index.
    OpenSession,
    /// Closes the session named in the header.
    CloseSession,
    /// Ends the session named in the header because its client was silent.
    ExpireSession,
    /// A member says what it made of the log up to an entry: the session is the member's id, the sequence the entry's index,
    /// the low-water mark the hash of its state.
    StateCheck,
    /// A change of users and roles; the body is the change as the room of users writes it.
    Users,
}

impl EntryKind {
    /// The number that stands for it in an entry.
    pub const fn number(self) -> u8 {
        match self {
            Self::NoOp => 1,
            Self::Command => 2,
            Self::Configuration => 3,
            Self::OpenSession => 4,
            Self::CloseSession => 5,
            Self::ExpireSession => 6,
            Self::StateCheck => 13,
            Self::Users => 14,
        }
    }

    /// The kind that a number stands for, if this build knows one.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::NoOp),
            2 => Some(Self::Command),
            3 => Some(Self::Configuration),
            4 => Some(Self::OpenSession),
            5 => Some(Self::CloseSession),
            6 => Some(Self::ExpireSession),
            13 => Some(Self::StateCheck),
            14 => Some(Self::Users),
            _ => None,
        }
    }
}

/// Everything about an entry but its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    /// The Raft group whose log this is in.
    pub group: u32,
    /// The term of the leader that made it.
    pub term: u64,
    /// Its index in the group's log.
    pub index: u64,
    /// What it is for.
    pub kind: EntryKind,
    /// The keyspace it acts on.
    pub keyspace: u32,
    /// The client's session; 0 for none.
    pub session: u64,
    /// The client's number for this command within its session.
    pub sequence: u64,
    /// Every sequence up to and including this one was answered and will not be sent again.
    pub low_water: u64,
    /// Who asked, as the authentication room numbers users; 0 for nobody in particular.
    pub principal: u32,
    /// The revision of the authentication store under which the leader let it through.
    pub auth_revision: u64,
}

/// Bytes of the encoded entry whose body has this many.
pub const fn entry_bytes_count(body_bytes_count: usize) -> usize {
    ENTRY_HEADER_BYTES + body_bytes_count
}

/// Appends the encoded entry to `to`.
pub fn encode_entry(header: &EntryHeader, body: &[u8], to: &mut Vec<u8>) {
    let count = entry_bytes_count(body.len());
    assert!(count <= FRAME_BYTES_MAX, "an entry fits in a frame");
    let start = to.len();
    to.reserve(count);
    to.extend_from_slice(&[0; CHECKSUM_BYTES]);
    to.extend_from_slice(&length_u32(count).to_le_bytes());
    to.extend_from_slice(&header.group.to_le_bytes());
    to.extend_from_slice(&[header.kind.number(), ENTRY_VERSION, 0, 0]);
    to.extend_from_slice(&header.term.to_le_bytes());
    to.extend_from_slice(&header.index.to_le_bytes());
    to.extend_from_slice(&header.keyspace.to_le_bytes());
    to.extend_from_slice(&header.principal.to_le_bytes());
    to.extend_from_slice(&header.session.to_le_bytes());
    to.extend_from_slice(&header.sequence.to_le_bytes());
    to.extend_from_slice(&header.low_water.to_le_bytes());
    to.extend_from_slice(&header.auth_revision.to_le_bytes());
    to.extend_from_slice(body);
    let (checksum, covered) = to[start..].split_at_mut(CHECKSUM_BYTES);
    checksum.copy_from_slice(&crc32c::crc32c(covered).to_le_bytes());
}

/// Decodes the entry at the start of `bytes`: its header and its body.
///
/// The entry takes [`entry_bytes_count`] of the body's length; what follows is not looked at. The checksum is
/// checked first.
///
/// # Errors
///
/// Names what is wrong, and where from the start of `bytes`.
pub fn decode_entry(bytes: &[u8]) -> Result<(EntryHeader, &[u8]), Damage> {
    let (checksum, mut reader) = bounded(bytes)?;
    if crc32c::crc32c(reader.rest()) != checksum {
        return Err(Damage { offset: 0, kind: DamageKind::WrongChecksum });
    }
    reader.take(4)?;
    decode_checked(reader)
}

/// Decodes the entry at the start of `bytes` without looking at its checksum: for a record that was decoded by
/// [`decode_entry`], or encoded, in this process, and has been kept in memory since.
///
/// # Errors
///
/// Names what is wrong, and where from the start of `bytes`.
pub fn decode_entry_again(bytes: &[u8]) -> Result<(EntryHeader, &[u8]), Damage> {
    let (_, mut reader) = bounded(bytes)?;
    reader.take(4)?;
    decode_checked(reader)
}

/// The checksum of the entry at the start of `bytes`, and what it covers.
fn bounded(bytes: &[u8]) -> Result<(u32, Reader<'_>), Damage> {
    let mut length = Reader::new(bytes, 0);
    let checksum = length.u32()?;
    let impossible = length.damage(DamageKind::ImpossibleLength);
    let count = length.length()?;
    if !(ENTRY_HEADER_BYTES..=FRAME_BYTES_MAX).contains(&count) {
        return Err(impossible);
    }
    let record = Reader::new(bytes, 0).take(count)?;
    let mut reader = Reader::new(record, 0);
    reader.take(CHECKSUM_BYTES)?;
    Ok((checksum, reader))
}

/// Decodes what follows the length, once the checksum is known to be right.
fn decode_checked(mut reader: Reader<'_>) -> Result<(EntryHeader, &[u8]), Damage> {
    let group = reader.u32()?;
    let at_kind = reader;
    let number = reader.u8()?;
    let at_version = reader;
    let version = reader.u8()?;
    if version != ENTRY_VERSION {
        return Err(at_version.damage(DamageKind::UnknownVersion(u16::from(version))));
    }
    let kind = EntryKind::from_number(number).ok_or(at_kind.damage(DamageKind::UnknownKind(number)))?;
    reader.zeros(2)?;
    let header = EntryHeader {
        group,
        kind,
        term: reader.u64()?,
        index: reader.u64()?,
        keyspace: reader.u32()?,
        principal: reader.u32()?,
        session: reader.u64()?,
        sequence: reader.u64()?,
        low_water: reader.u64()?,
        auth_revision: reader.u64()?,
    };
    Ok((header, reader.rest()))
}
