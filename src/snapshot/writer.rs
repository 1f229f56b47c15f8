//! Writes a snapshot, part by part.

use super::part::{self, BLOCK_BYTES, Closing, HEADER_BYTES, Kind, Opening, PartsHash};
use super::reader::Verified;
use crate::limits::SNAPSHOT_PART_BYTES_MAX;
use crate::raft::Position;
use bytes::BytesMut;

/// A snapshot being written: takes payloads, gives bytes.
#[derive(Debug)]
pub struct Writer {
    position: Position,
    tag: u64,
    hash: PartsHash,
    parts_count: u32,
    bytes_count: u64,
    last: Kind,
}

impl Writer {
    /// Begins a snapshot; appends its first bytes.
    pub fn new(opening: &Opening, to: &mut BytesMut) -> Self {
        let payload = opening.encode();
        let tag = PartsHash::tag(&payload);
        let mut writer = Self {
            position: opening.position,
            tag,
            hash: PartsHash(tag),
            parts_count: 0,
            bytes_count: 0,
            last: Kind::Opening,
        };
        writer.encode(Kind::Opening, &payload, to);
        writer
    }

    /// Appends the next bytes: a part of sessions, users or store with this payload.
    pub fn part(&mut self, kind: Kind, payload: &[u8], to: &mut BytesMut) {
        let start = Self::begin_part(to);
        to.extend_from_slice(payload);
        self.end_part(kind, start, to);
    }

    /// Begins a part, whose payload is to be appended to `to`; where it begins there.
    pub fn begin_part(to: &mut BytesMut) -> usize {
        part::begin(to)
    }

    /// Ends the part that begins at `start`, of which `to` holds the payload by now and nothing behind it.
    pub fn end_part(&mut self, kind: Kind, start: usize, to: &mut BytesMut) {
        let is_content = matches!(kind, Kind::Sessions | Kind::Users | Kind::Store);
        assert!(is_content && kind >= self.last, "parts come in order");
        assert!(
            to.len() - start <= HEADER_BYTES + SNAPSHOT_PART_BYTES_MAX,
            "a part ends with the record that fills it"
        );
        self.end(kind, start, to);
    }

    /// Appends the last bytes, and says what the whole file will be found to be.
    pub fn finish(mut self, to: &mut BytesMut) -> Verified {
        let closing =
            Closing { parts_count: self.parts_count, bytes_count: self.bytes_count, hash: self.hash.0 };
        self.encode(Kind::Closing, &closing.encode(), to);
        let whole = self.bytes_count.next_multiple_of(BLOCK_BYTES as u64);
        to.extend((self.bytes_count..whole).map(|_| 0_u8));
        Verified { position: self.position, bytes_count: whole, hash: closing.hash }
    }

    fn encode(&mut self, kind: Kind, payload: &[u8], to: &mut BytesMut) {
        let start = Self::begin_part(to);
        to.extend_from_slice(payload);
        self.end(kind, start, to);
    }

    fn end(&mut self, kind: Kind, start: usize, to: &mut BytesMut) {
        let part = part::end(self.tag, self.parts_count, kind, start, to);
        self.hash.absorb(part);
        self.parts_count += 1;
        self.bytes_count += part.len() as u64;
        self.last = kind;
    }
}
