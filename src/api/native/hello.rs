//! The handshake's two bodies (PROTOCOL §3).
//!
//! They keep their layout in every version and may grow at the end, so here, and only here, bytes after the
//! known fields are ignored.

use super::cursor::{Cursor, Malformed};
use super::frame::{Frame, begin_frame, finish_frame};
use super::kind;
use crate::ids::{ClusterId, MemberId};
use bytes::{BufMut, Bytes};

/// A set of features beyond version 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(pub u64);

impl Features {
    /// Options of puts and ranges, nested transactions, compaction.
    pub const STORE: Self = Self(1);
    /// Watches.
    pub const WATCHES: Self = Self(2);
    /// Leases.
    pub const LEASES: Self = Self(4);
    /// The space alarm.
    pub const SPACE_ALARM: Self = Self(8);
    /// Space alarms raised by hand.
    pub const ALARMS_BY_HAND: Self = Self(64);
    /// Snapshots, to be saved.
    pub const SNAPSHOTS: Self = Self(32);
    /// Reads that say how old their answer may be.
    pub const BOUNDED_READS: Self = Self(128);
    /// All that this build understands.
    pub const KNOWN: Self = Self(
        Self::STORE.0
            | Self::WATCHES.0
            | Self::LEASES.0
            | Self::SPACE_ALARM.0
            | Self::SNAPSHOTS.0
            | Self::ALARMS_BY_HAND.0
            | Self::BOUNDED_READS.0,
    );

    /// Whether all of `other` are in the set.
    pub const fn have(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The features that are in both sets.
    #[must_use]
    pub const fn shared_with(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// What the client says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The lowest version it speaks.
    pub version_min: u8,
    /// The highest.
    pub version_max: u8,
    /// What it understands beyond the version.
    pub features: Features,
    /// The cluster it insists on.
    pub cluster: Option<ClusterId>,
}

/// What the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerHello {
    /// The version chosen.
    pub version: u8,
    /// The cluster; 0 while it has not come together for the first time.
    pub cluster: ClusterId,
    /// Who answers.
    pub member: MemberId,
    /// The features both understand.
    pub features: Features,
    /// Longest body towards the server.
    pub request_bytes_max: u32,
    /// Longest body towards the client.
    pub response_bytes_max: u32,
    /// Longest key.
    pub key_bytes_max: u32,
    /// Most compares, and most operations in either list, of a transaction.
    pub txn_operations_max: u32,
    /// Unanswered requests allowed on this connection.
    pub requests_in_flight_max: u32,
    /// How far above its low-water mark a session's sequence may be.
    pub sequence_window: u32,
}

impl ClientHello {
    /// The whole frame.
    pub fn encode_frame(&self) -> Bytes {
        let mut out = begin_frame(18);
        out.put_u8(self.version_min);
        out.put_u8(self.version_max);
        out.put_u64_le(self.features.0);
        out.put_u64_le(self.cluster.map_or(0, |cluster| cluster.0));
        finish_frame(out, kind::CLIENT_HELLO, 0)
    }

    /// Reads the body of a frame that must be a client hello.
    ///
    /// # Errors
    /// The frame is of another kind, or shorter than a hello.
    pub fn decode(frame: &Frame) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(&frame.body);
        if frame.kind != kind::CLIENT_HELLO {
            return Err(cursor.unknown("first kind", 0, frame.kind));
        }
        let version_min = cursor.u8("version_min")?;
        let version_max = cursor.u8("version_max")?;
        let features = Features(cursor.u64("features")?);
        let cluster = match cursor.u64("cluster")? {
            0 => None,
            cluster => Some(ClusterId(cluster)),
        };
        Ok(Self { version_min, version_max, features, cluster })
    }
}

impl ServerHello {
    /// The whole frame.
    pub fn encode_frame(&self) -> Bytes {
        let mut out = begin_frame(49);
        out.put_u8(self.version);
        out.put_u64_le(self.cluster.0);
        out.put_u64_le(self.member.0);
        out.put_u64_le(self.features.0);
        out.put_u32_le(self.request_bytes_max);
        out.put_u32_le(self.response_bytes_max);
        out.put_u32_le(self.key_bytes_max);
        out.put_u32_le(self.txn_operations_max);
        out.put_u32_le(self.requests_in_flight_max);
        out.put_u32_le(self.sequence_window);
        finish_frame(out, kind::SERVER_HELLO, 0)
    }

    /// Reads the body of a frame that must be a server hello.
    ///
    /// # Errors
    /// The frame is of another kind, or shorter than a hello.
    pub fn decode(frame: &Frame) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(&frame.body);
        if frame.kind != kind::SERVER_HELLO {
            return Err(cursor.unknown("first kind", 0, frame.kind));
        }
        Ok(Self {
            version: cursor.u8("version")?,
            cluster: ClusterId(cursor.u64("cluster")?),
            member: MemberId(cursor.u64("member")?),
            features: Features(cursor.u64("features")?),
            request_bytes_max: cursor.u32("request_bytes_max")?,
            response_bytes_max: cursor.u32("response_bytes_max")?,
            key_bytes_max: cursor.u32("key_bytes_max")?,
            txn_operations_max: cursor.u32("txn_operations_max")?,
            requests_in_flight_max: cursor.u32("requests_in_flight_max")?,
            sequence_window: cursor.u32("sequence_window")?,
        })
    }
}
