//! Finds frames in the bytes of a segment, and says of bytes that are not a frame what a crash could have
//! made of them.

use super::group_log::FoundEntry;
use super::recovery::FoundSegment;
use crate::ids::{LogIndex, Term};
use crate::limits::{LOG_INDEX_MAX, TERM_MAX};
use crate::planted;
use crate::raft::Position;
use bytes::Bytes;
use wal_format::{
    BLOCK_BYTES, Damage, DamageKind, Frame, FrameClaims, FrameHeader, GroupOpening, GroupTail, Identity,
    Reset, Run, Section, starts_like_a_frame,
};

/// A frame that is whole: every checksum in it is right and every part was decoded.
#[derive(Debug)]
pub(super) struct FoundFrame {
    pub(super) header: FrameHeader,
    pub(super) parts: Vec<Part>,
}

/// What one section says, copied out of the segment.
#[derive(Debug)]
pub(super) enum Part {
    Identity(Identity),
    Opening(GroupOpening),
    Tail(GroupTail),
    Write { tail: GroupTail, run: Option<Run>, entries: Vec<FoundEntry> },
    Reset(Reset),
}

impl Part {
    /// Whether a log can have reached what it names. Whoever reads a log counts on from its indices and terms, and that
    /// must not overflow, whatever stands there.
    fn is_reachable(&self) -> bool {
        match self {
            Self::Identity(_) => true,
            Self::Opening(opening) => {
                is_tail_reachable(&opening.tail)
                    && is_position_reachable(opening.snapshot)
                    && opening.configuration.index <= LOG_INDEX_MAX
            }
            Self::Tail(tail) => is_tail_reachable(tail),
            Self::Write { tail, run, entries } => {
                is_tail_reachable(tail)
                    && run.is_none_or(|run| is_position_reachable(run.previous) && run.last <= LOG_INDEX_MAX)
                    && entries.iter().all(|entry| entry.position.term.0 <= TERM_MAX)
            }
            Self::Reset(reset) => is_tail_reachable(&reset.tail) && is_position_reachable(reset.snapshot),
        }
    }
}

fn is_tail_reachable(tail: &GroupTail) -> bool {
    let GroupTail { hard_state, last, .. } = tail;
    hard_state.term <= TERM_MAX && hard_state.commit <= LOG_INDEX_MAX && is_position_reachable(*last)
}

const fn is_position_reachable(position: wal_format::Position) -> bool {
    position.index <= LOG_INDEX_MAX && position.term <= TERM_MAX
}

/// Where a frame was expected and none is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadFrame {
    /// Bytes from the segment's start.
    pub(super) offset: usize,
    /// What is wrong, counted from there.
    pub(super) damage: Damage,
    /// How it can have come about.
    pub(super) origin: Origin,
}

/// How bytes that are no good frame can have come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nothing was written there, or it was wiped.
    Blank,
    /// A write that a crash tore, or rot.
    TornOrRotted,
    /// Its checksum is right, so it was written like this and no crash tore it.
    Written,
    /// A build that knows more than this one wrote it.
    Newer,
}

/// Reads the frame at `offset`, believing it whole or not at all.
/// `place`: of its segment among those found.
pub(super) fn read_frame(
    segment: &FoundSegment<'_>,
    offset: usize,
    place: usize,
) -> Result<FoundFrame, BadFrame> {
    let bytes = segment.bytes.get(offset..).unwrap_or_default();
    let bad = |damage: Damage, origin| BadFrame { offset, damage, origin };
    if is_blank(bytes.get(..BLOCK_BYTES).unwrap_or(bytes)) {
        let damage = Damage { offset: 0, kind: DamageKind::NotAFrame };
        return Err(bad(damage, Origin::Blank));
    }
    let mut salt = segment.salt;
    if planted!(43) {
        salt = FrameClaims::read(bytes).map_or(salt, |claims| claims.place.salt);
    }
    let repaired = if planted!(44) { with_zero_padding(bytes) } else { None };
    let shared = segment.shared.filter(|_| repaired.is_none());
    let bytes = repaired.as_deref().unwrap_or(bytes);
    let frame = Frame::decode(bytes, salt).map_err(|damage| bad(damage, origin_of_envelope(damage.kind)))?;
    if frame.header.place.segment != segment.number.0 && !planted!(43) {
        let damage = Damage { offset: 0, kind: DamageKind::OtherSalt };
        return Err(bad(damage, Origin::Written));
    }
    let parts =
        parts_of(&frame, (place, shared)).map_err(|damage| bad(damage, origin_of_content(damage.kind)))?;
    if !parts.iter().all(Part::is_reachable) {
        let damage = Damage { offset: 0, kind: DamageKind::Contradiction };
        return Err(bad(damage, Origin::Written));
    }
    Ok(FoundFrame { header: frame.header, parts })
}

/// The first block at or after `offset` where something stands that no crash can have torn: a whole frame, or
/// one that was written wrong.
pub(super) fn next_written(segment: &FoundSegment<'_>, offset: usize) -> Option<usize> {
    let mut offset = offset;
    while let Some(rest) = segment.bytes.get(offset..)
        && !rest.is_empty()
    {
        if starts_like_a_frame(rest) {
            match read_frame(segment, offset, 0) {
                Ok(_) => return Some(offset),
                Err(bad) => match bad.origin {
                    Origin::Written | Origin::Newer => return Some(offset),
                    Origin::Blank | Origin::TornOrRotted => {}
                },
            }
        }
        offset += BLOCK_BYTES;
    }
    None
}

/// Whether all bytes are zero.
pub(super) fn is_blank(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| *word == [0; 16]) && rest.iter().all(|byte| *byte == 0)
}

/// What a frame's envelope being bad says: until the checksum is right, anything may have happened.
fn origin_of_envelope(kind: DamageKind) -> Origin {
    match kind {
        DamageKind::UnknownVersion(_) | DamageKind::UnknownKind(_) => Origin::Newer,
        DamageKind::NotZero => Origin::Written,
        DamageKind::CutShort
        | DamageKind::NotAFrame
        | DamageKind::ImpossibleLength
        | DamageKind::OtherSalt
        | DamageKind::WrongChecksum
        | DamageKind::Contradiction
        | DamageKind::NotText => Origin::TornOrRotted,
    }
}

/// What a frame's content being bad says, once its checksum is right.
fn origin_of_content(kind: DamageKind) -> Origin {
    match kind {
        DamageKind::UnknownVersion(_) | DamageKind::UnknownKind(_) => Origin::Newer,
        DamageKind::CutShort
        | DamageKind::NotAFrame
        | DamageKind::ImpossibleLength
        | DamageKind::OtherSalt
        | DamageKind::WrongChecksum
        | DamageKind::NotZero
        | DamageKind::Contradiction
        | DamageKind::NotText => Origin::Written,
    }
}

fn parts_of(frame: &Frame<'_>, origin: (usize, Option<&Bytes>)) -> Result<Vec<Part>, Damage> {
    let mut parts = Vec::new();
    for section in frame.sections() {
        match section? {
            Section::Identity(identity) => parts.push(Part::Identity(identity)),
            Section::GroupOpening(opening) => parts.push(Part::Opening(opening)),
            Section::Repeat(tails) => parts.extend(tails.map(Part::Tail)),
            Section::Batch(batch) => parts.push(Part::Write {
                tail: batch.tail,
                run: batch.run,
                entries: entries_of(batch.records, origin)?,
            }),
            Section::Reset(reset) => parts.push(Part::Reset(reset)),
        }
    }
    Ok(parts)
}

fn entries_of(
    records: wal_format::Records<'_>,
    (place, shared): (usize, Option<&Bytes>),
) -> Result<Vec<FoundEntry>, Damage> {
    let own = |record: &[u8]| match shared {
        Some(segment) => segment.slice_ref(record),
        None => Bytes::copy_from_slice(record),
    };
    records
        .map(|record| {
            let record = record?;
            Ok(FoundEntry {
                position: Position { index: LogIndex(record.header.index), term: Term(record.header.term) },
                record: own(record.bytes),
                place,
            })
        })
        .collect()
}

/// The planted bug "padding outside the checksum": as if whatever stands in the padding did not count.
fn with_zero_padding(bytes: &[u8]) -> Option<Vec<u8>> {
    let claims = FrameClaims::read(bytes).ok()?;
    let mut frame = bytes.get(..claims.bytes_count)?.to_vec();
    let padding = frame.get_mut(wal_format::FRAME_HEADER_BYTES.checked_add(claims.body_bytes_count)?..)?;
    padding.fill(0);
    Some(frame)
}
