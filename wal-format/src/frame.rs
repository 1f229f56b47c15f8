//! One write to one log: a header, sections, and padding to whole blocks, under one checksum.
//!
//! What always holds: the checksum covers the salt, the header, the body *and the padding*, and is checked
//! before anything else is believed but the length, which only says how far it reaches.

use crate::damage::{Damage, DamageKind};
use crate::opening::{GroupOpening, Identity};
use crate::reader::{Reader, length_u32};
use crate::section::{
    GroupTail, IDENTITY, REPEAT, Reset, Run, Section, decode_section, encode_batch, encode_group_opening,
    encode_header, encode_reset, identity_bytes_count, repeat_bytes_count,
};
use alloc::vec::Vec;

/// Frames start and end at multiples of this.
pub const BLOCK_BYTES: usize = 4_096;

/// Bytes of the largest frame.
///
/// Chosen: several times the largest turn; small enough that a reader can hold one whatever its header
/// claims.
pub const FRAME_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// Bytes in front of a frame's body.
pub const FRAME_HEADER_BYTES: usize = 48;

/// The version of the frame layout that this build writes, and the newest it reads.
pub const FRAME_VERSION: u16 = 1;

const MAGIC: [u8; 4] = *b"MWAL";

/// The checksum covers everything from here on.
const COVERED_OFFSET: usize = 8;

const VERSION_OFFSET: usize = 8;
const KIND_OFFSET: usize = 10;
const LENGTH_OFFSET: usize = 12;
const SALT_OFFSET: usize = 32;

/// What a frame was written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// The first of a segment, the first after recovery, and the one after a change of what openings say. May
    /// hold batches as well.
    Opening,
    /// Hard states and entries.
    Batch,
    /// Nothing new: written when nothing else is, so that the frame before it has a valid one after it.
    Seal,
    /// A snapshot was installed.
    Reset,
}

impl FrameKind {
    const fn number(self) -> u8 {
        match self {
            Self::Opening => 1,
            Self::Batch => 2,
            Self::Seal => 3,
            Self::Reset => 4,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Opening),
            2 => Some(Self::Batch),
            3 => Some(Self::Seal),
            4 => Some(Self::Reset),
            _ => None,
        }
    }
}

/// Where a frame stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The segment's number.
    pub segment: u64,
    /// The segment's salt.
    pub salt: u64,
    /// The frame's number within its segment, from 0.
    pub sequence: u32,
    /// The hash of the frame before this one, in whichever segment it is; 0 for the first frame of a log.
    pub previous_hash: u64,
}

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it was written for.
    pub kind: FrameKind,
    /// Where it stands.
    pub place: Place,
    /// Its size in bytes, padding included: a multiple of [`BLOCK_BYTES`].
    pub bytes_count: usize,
    /// Its own hash, which the next frame names.
    pub hash: u64,
}

/// What the first bytes of a frame claim, before anything is checked: for reports, tools, and finding frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameClaims {
    /// Where the frame stands.
    pub place: Place,
    /// Its size in bytes, padding included.
    pub bytes_count: usize,
    /// Bytes of its sections.
    pub body_bytes_count: usize,
    checksum: u32,
    version: u16,
    kind: u8,
    reserved: u8,
}

/// A frame whose checksum is right.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// What it says of itself.
    pub header: FrameHeader,
    body: &'a [u8],
}

/// The sections of a frame. The first damage ends them.
#[derive(Clone, Debug)]
pub struct Sections<'a> {
    reader: Reader<'a>,
    is_broken: bool,
}

/// Builds one frame: sections are appended, then `finish` pads and checksums it.
#[derive(Debug)]
pub struct FrameWriter {
    salt: u64,
    bytes: Vec<u8>,
}

impl FrameWriter {
    /// Starts a frame whose sections will have about `body_bytes_count` bytes.
    pub fn new(kind: FrameKind, place: Place, body_bytes_count: usize) -> Self {
        let count = (FRAME_HEADER_BYTES + body_bytes_count).next_multiple_of(BLOCK_BYTES);
        let mut bytes = Vec::with_capacity(count);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&FRAME_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[kind.number(), 0]);
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&place.sequence.to_le_bytes());
        bytes.extend_from_slice(&place.segment.to_le_bytes());
        bytes.extend_from_slice(&place.salt.to_le_bytes());
        bytes.extend_from_slice(&place.previous_hash.to_le_bytes());
        assert!(bytes.len() == FRAME_HEADER_BYTES, "the header has its fixed size");
        Self { salt: place.salt, bytes }
    }

    /// The size of a frame whose sections have this many bytes.
    pub const fn frame_bytes_count(body_bytes_count: usize) -> usize {
        (FRAME_HEADER_BYTES + body_bytes_count).next_multiple_of(BLOCK_BYTES)
    }

    /// Appends whose log this is.
    pub fn identity(&mut self, identity: &Identity) {
        encode_header(IDENTITY, identity_bytes_count(), &mut self.bytes);
        identity.encode(&mut self.bytes);
    }

    /// Appends everything about one hosted group.
    pub fn group_opening(&mut self, opening: &GroupOpening) {
        encode_group_opening(opening, &mut self.bytes);
    }

    /// Appends the tails of the groups in the frame before this one; nothing if there are none.
    pub fn repeat(&mut self, tails: &[GroupTail]) {
        if tails.is_empty() {
            return;
        }
        encode_header(REPEAT, repeat_bytes_count(tails.len()), &mut self.bytes);
        for tail in tails {
            tail.encode(&mut self.bytes);
        }
    }

    /// Appends one group's part of this write; `records` are the encoded entries of `run`.
    pub fn batch<'r>(
        &mut self,
        tail: &GroupTail,
        run: Option<&Run>,
        records: impl Iterator<Item = &'r [u8]> + Clone,
    ) {
        encode_batch(tail, run, records, &mut self.bytes);
    }

    /// Appends the record of an installed snapshot.
    pub fn reset(&mut self, reset: &Reset) {
        encode_reset(reset, &mut self.bytes);
    }

    /// Pads, fills in the header, and checksums everything once. Returns the frame and its hash.
    pub fn finish(mut self) -> (Vec<u8>, u64) {
        let body_bytes_count = self.bytes.len() - FRAME_HEADER_BYTES;
        let bytes_count = self.bytes.len().next_multiple_of(BLOCK_BYTES);
        assert!(bytes_count <= FRAME_BYTES_MAX, "whoever fills a frame keeps it in bounds");
        self.bytes.resize(bytes_count, 0);
        let blocks_count = length_u32(bytes_count / BLOCK_BYTES).to_le_bytes();
        self.bytes[LENGTH_OFFSET..LENGTH_OFFSET + 4].copy_from_slice(&blocks_count);
        let body_bytes_count = length_u32(body_bytes_count).to_le_bytes();
        self.bytes[LENGTH_OFFSET + 4..LENGTH_OFFSET + 8].copy_from_slice(&body_bytes_count);
        let checksum = checksum(self.salt, &self.bytes[COVERED_OFFSET..]);
        self.bytes[MAGIC.len()..COVERED_OFFSET].copy_from_slice(&checksum.to_le_bytes());
        let hash = hash(&self.bytes[..FRAME_HEADER_BYTES]);
        (self.bytes, hash)
    }
}

/// Whether `bytes` begin with the magic number of a frame; says nothing of the rest.
pub fn starts_like_a_frame(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

impl FrameClaims {
    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    ///
    /// Only if there is no header, or a length in it is impossible.
    pub fn read(bytes: &[u8]) -> Result<Self, Damage> {
        let mut reader = Reader::new(bytes, 0);
        let not_a_frame = reader.damage(DamageKind::NotAFrame);
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(not_a_frame);
        }
        let checksum = reader.u32()?;
        let version = reader.u16()?;
        let kind = reader.u8()?;
        let reserved = reader.u8()?;
        let impossible = reader.damage(DamageKind::ImpossibleLength);
        let blocks_count = reader.length()?;
        let body_bytes_count = reader.length()?;
        let sequence = reader.u32()?;
        let place =
            Place { sequence, segment: reader.u64()?, salt: reader.u64()?, previous_hash: reader.u64()? };
        if blocks_count == 0 || blocks_count > FRAME_BYTES_MAX / BLOCK_BYTES {
            return Err(impossible);
        }
        Ok(Self {
            checksum,
            version,
            kind,
            reserved,
            bytes_count: blocks_count * BLOCK_BYTES,
            body_bytes_count,
            place,
        })
    }
}

impl<'a> Frame<'a> {
    /// Decodes the frame at the start of `bytes`, which must carry this salt. What follows it is not looked
    /// at.
    ///
    /// The sections are decoded, and their damage found, only when they are walked.
    ///
    /// # Errors
    ///
    /// Names what is wrong, and where from the start of `bytes`. `UnknownVersion` comes only after the
    /// checksum was found right, so it means a newer build and not damage.
    pub fn decode(bytes: &'a [u8], salt: u64) -> Result<Self, Damage> {
        let claims = FrameClaims::read(bytes)?;
        let damage = |offset, kind| Damage { offset, kind };
        if claims.place.salt != salt {
            return Err(damage(SALT_OFFSET, DamageKind::OtherSalt));
        }
        let frame = Reader::new(bytes, 0).take(claims.bytes_count)?;
        let mut covered = Reader::new(frame, 0);
        covered.take(COVERED_OFFSET)?;
        if checksum(salt, covered.rest()) != claims.checksum {
            return Err(damage(0, DamageKind::WrongChecksum));
        }
        if claims.version != FRAME_VERSION {
            return Err(damage(VERSION_OFFSET, DamageKind::UnknownVersion(claims.version)));
        }
        let unknown_kind = damage(KIND_OFFSET, DamageKind::UnknownKind(claims.kind));
        let kind = FrameKind::from_number(claims.kind).ok_or(unknown_kind)?;
        let mut rest = Reader::new(frame, 0);
        let header_bytes = rest.take(FRAME_HEADER_BYTES)?;
        let body = rest.take(claims.body_bytes_count)?;
        if claims.reserved != 0 {
            return Err(damage(KIND_OFFSET + 1, DamageKind::NotZero));
        }
        if rest.rest().len() >= BLOCK_BYTES {
            return Err(damage(LENGTH_OFFSET, DamageKind::ImpossibleLength));
        }
        rest.zeros(rest.rest().len())?;
        let header = FrameHeader {
            kind,
            place: claims.place,
            bytes_count: claims.bytes_count,
            hash: hash(header_bytes),
        };
        Ok(Self { header, body })
    }

    /// Its sections, in order.
    pub const fn sections(&self) -> Sections<'a> {
        Sections::of_body(self.body)
    }
}

impl<'a> Sections<'a> {
    /// Walks bytes as if they were the body of a frame, with no checksum to vouch for them: for tools and
    /// tests.
    pub const fn of_body(body: &'a [u8]) -> Self {
        Self { reader: Reader::new(body, FRAME_HEADER_BYTES), is_broken: false }
    }
}

impl<'a> Iterator for Sections<'a> {
    type Item = Result<Section<'a>, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_broken || self.reader.is_empty() {
            return None;
        }
        let section = decode_section(&mut self.reader);
        self.is_broken = section.is_err();
        Some(section)
    }
}

fn checksum(salt: u64, covered: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), covered)
}

/// A 64-bit hash of the header, whose checksum stands for the rest: the chain needs no second pass over the
/// frame. Never 0, which means "no frame before".
fn hash(header: &[u8]) -> u64 {
    let mut hash = 0x6d61_696e_7374_6179_u64;
    for word in header.as_chunks::<8>().0 {
        hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 32;
    }
    hash.max(1)
}
