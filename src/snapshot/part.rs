//! One part of a snapshot: its header, its checksum, and what the opening and the closing say.

use crate::ids::{ClusterId, GroupId, LogIndex, Revision, Term};
use crate::raft::Position;
use bytes::BytesMut;
use wal_format::Configuration;

/// Snapshot files are whole numbers of these.
pub const BLOCK_BYTES: usize = 4_096;

/// Bytes before a part's payload.
pub const HEADER_BYTES: usize = 32;

/// The first bytes of every opening.
const MAGIC: [u8; 4] = *b"MSNP";
const VERSION: u16 = 2;

/// Bytes of an opening before its configuration.
const OPENING_BYTES: usize = 72;
/// Versions before this one say nothing of the leader's lease: there was none. That is what is written where there is none.
const VERSION_WITH_LEASE: u16 = 2;

/// Bytes of a closing.
pub(super) const CLOSING_BYTES: usize = 24;

/// What a part holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Which snapshot this is.
    Opening,
    /// Sessions, with the responses that they remember.
    Sessions,
    /// Users and roles, if there ever were any.
    Users,
    /// The store.
    Store,
    /// That it is whole.
    Closing,
}

impl Kind {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Opening => 1,
            Self::Sessions => 2,
            Self::Store => 3,
            Self::Closing => 4,
            Self::Users => 5,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Opening, Self::Sessions, Self::Users, Self::Store, Self::Closing]
            .into_iter()
            .find(|kind| kind.number() == number)
    }
}

/// Which snapshot this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// Of which group.
    pub group: GroupId,
    /// The last entry that is in it.
    pub position: Position,
    /// The rolling hash of everything applied up to there.
    pub state_hash: u64,
    /// The store's revision.
    pub revision: Revision,
    /// The oldest revision that can be read; 0 if every one can.
    pub compacted: Revision,
    /// How long the leader of the newest term in it answered reads alone, in microseconds, and by how much clocks may be
    /// wrong, in parts per million: a later leader waits so long before it commits anything.
    pub lease_micros: u64,
    /// The second of these.
    pub lease_drift_ppm: u32,
    /// The configuration as of that entry.
    pub configuration: Configuration,
}

impl Opening {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut to = Vec::with_capacity(OPENING_BYTES);
        to.extend_from_slice(&MAGIC);
        // Without a lease it is what builds read that know of none.
        let has_lease = self.lease_micros > 0;
        let version = if has_lease { VERSION } else { VERSION_WITH_LEASE - 1 };
        to.extend_from_slice(&version.to_le_bytes());
        to.extend_from_slice(&[0; 2]);
        to.extend_from_slice(&self.cluster.0.to_le_bytes());
        to.extend_from_slice(&self.group.0.to_le_bytes());
        let Position { index, term } = self.position;
        for number in [index.0, term.0, self.state_hash, self.revision.0, self.compacted.0] {
            to.extend_from_slice(&number.to_le_bytes());
        }
        if has_lease {
            to.extend_from_slice(&self.lease_micros.to_le_bytes());
            to.extend_from_slice(&self.lease_drift_ppm.to_le_bytes());
        }
        self.configuration.encode(&mut to);
        to
    }

    /// Whether a newer build wrote these bytes.
    pub(super) fn is_newer(bytes: &[u8]) -> bool {
        let mut fields = Fields(bytes);
        let is_ours = fields.take() == Some(MAGIC);
        is_ours && fields.take().is_some_and(|version| u16::from_le_bytes(version) > VERSION)
    }

    /// None if these bytes are no opening of this version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let is_ours = fields.take()? == MAGIC;
        let version = u16::from_le_bytes(fields.take()?);
        if !is_ours || !(1..=VERSION).contains(&version) || fields.take()? != [0; 2] {
            return None;
        }
        let cluster = ClusterId(fields.u64()?);
        let group = GroupId(u32::from_le_bytes(fields.take()?));
        let position = Position { index: LogIndex(fields.u64()?), term: Term(fields.u64()?) };
        let (state_hash, revision, compacted) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (lease_micros, lease_drift_ppm) = if version < VERSION_WITH_LEASE {
            (0, 0)
        } else {
            (fields.u64()?, u32::from_le_bytes(fields.take()?))
        };
        Some(Self {
            cluster,
            group,
            position,
            state_hash,
            revision: Revision(revision),
            compacted: Revision(compacted),
            lease_micros,
            lease_drift_ppm,
            configuration: Configuration::decode(fields.0).ok()?,
        })
    }
}

/// Takes fixed fields off the front of some bytes.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

/// That a snapshot is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closing {
    pub(super) parts_count: u32,
    pub(super) bytes_count: u64,
    pub(super) hash: u64,
}

impl Closing {
    pub(super) fn encode(self) -> [u8; CLOSING_BYTES] {
        let mut bytes = [0; CLOSING_BYTES];
        bytes[..4].copy_from_slice(&self.parts_count.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.bytes_count.to_le_bytes());
        bytes[16..].copy_from_slice(&self.hash.to_le_bytes());
        bytes
    }
}

/// Room for the header of a part, whose payload is to be appended behind it. Returns where the part begins.
pub(super) fn begin(to: &mut BytesMut) -> usize {
    let start = to.len();
    to.extend_from_slice(&[0; HEADER_BYTES]);
    start
}

/// Writes the header of the part that begins at `start` and ends with `to`, and gives the part. `tag` and `number` say where it
/// belongs.
pub(super) fn end(tag: u64, number: u32, kind: Kind, start: usize, to: &mut BytesMut) -> &[u8] {
    let part = &mut to[start..];
    let length = u32::try_from(part.len() - HEADER_BYTES).expect("parts are bounded");
    part[4..8].copy_from_slice(&length.to_le_bytes());
    part[8..16].copy_from_slice(&tag.to_le_bytes());
    part[16..20].copy_from_slice(&number.to_le_bytes());
    part[20] = kind.number();
    let checksum = crc32c::crc32c(&part[4..]);
    part[..4].copy_from_slice(&checksum.to_le_bytes());
    part
}

/// A hash over parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartsHash(pub(super) u64);

impl PartsHash {
    const fn word(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }

    pub(super) fn absorb(&mut self, part: &[u8]) {
        self.word(part.len() as u64);
        let (words, rest) = part.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            self.word(rest.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte)));
        }
    }

    /// The tag of the snapshot with this opening.
    pub(super) fn tag(opening: &[u8]) -> u64 {
        let mut hash = Self(0);
        hash.absorb(opening);
        hash.0
    }
}
