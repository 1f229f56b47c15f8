//! The parts of a frame's body.
//!
//! A section is a kind, a length and that many bytes. What always holds: a section is decoded only after its
//! frame's checksum was found right, and still nothing in it is believed beyond its length.

use crate::damage::{Damage, DamageKind};
use crate::entry::{EntryHeader, decode_entry, entry_bytes_count};
use crate::opening::{GroupOpening, Identity, read_flag};
use crate::reader::{Reader, length_u32};
use alloc::vec::Vec;

/// Bytes of a section's kind and length.
pub(crate) const SECTION_HEADER_BYTES: usize = 8;

const TAIL_BYTES: usize = 48;
const POSITION_BYTES: usize = 16;
const RUN_BYTES: usize = 32;
const IDENTITY_BYTES: usize = 32;

pub(crate) const IDENTITY: u8 = 1;
pub(crate) const GROUP_OPENING: u8 = 2;
pub(crate) const REPEAT: u8 = 3;
pub(crate) const BATCH: u8 = 4;
pub(crate) const RESET: u8 = 5;

/// An entry's index and term; index 0 is before every log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The index.
    pub index: u64,
    /// The term.
    pub term: u64,
}

/// What Raft must not forget besides its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term seen.
    pub term: u64,
    /// Whom the member voted for in that term; 0 for nobody.
    pub vote: u64,
    /// A commit index known at the time.
    pub commit: u64,
}

/// What every frame says of each group in it, and again of each group in the frame before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupTail {
    /// The group.
    pub group: u32,
    /// Its full hard state.
    pub hard_state: HardState,
    /// The end of its log for votes.
    pub last: Position,
}

/// What a run of entries does to what the log already holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunKind {
    /// Supersedes every earlier entry at or above its first index.
    Append,
    /// Supplied into a hole: supersedes nothing above it.
    Fill,
}

/// Consecutive entries of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// What it supersedes.
    pub kind: RunKind,
    /// The entry just before the first.
    pub previous: Position,
    /// The first entry's index.
    pub first: u64,
    /// The last entry's index.
    pub last: u64,
}

/// One group's part of a write.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// Hard state and end of the log as of this write.
    pub tail: GroupTail,
    /// The entries, if any, as announced.
    pub run: Option<Run>,
    /// The entries themselves.
    pub records: Records<'a>,
}

/// A snapshot was installed: the log starts anew behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Hard state and end of the log as of this write.
    pub tail: GroupTail,
    /// `Append`: the log is empty behind the snapshot. `Fill`: what lies above the snapshot stays.
    pub kind: RunKind,
    /// The snapshot's position.
    pub snapshot: Position,
}

/// One part of a frame's body.
#[derive(Clone, Debug)]
pub enum Section<'a> {
    /// Whose log this is.
    Identity(Identity),
    /// Everything about one hosted group.
    GroupOpening(GroupOpening),
    /// Tails of groups in the frame before this one.
    Repeat(Tails<'a>),
    /// A group's part of this write.
    Batch(Batch<'a>),
    /// A snapshot was installed.
    Reset(Reset),
}

/// The tails in a repeat section.
#[derive(Clone, Debug)]
pub struct Tails<'a> {
    reader: Reader<'a>,
}

/// One entry of a run, its checksum found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Everything but its body.
    pub header: EntryHeader,
    /// All of the entry's bytes, as they were encoded.
    pub bytes: &'a [u8],
    /// Its body.
    pub body: &'a [u8],
}

/// The entries of a run. Each is checked when it is reached, and the first damage ends them.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    reader: Reader<'a>,
    group: u32,
    /// The indices still expected; empty at the end.
    expected: Option<(u64, u64)>,
    /// No entry's term is below the one before it.
    term_min: u64,
    is_broken: bool,
}

/// Bytes of an identity section.
pub const fn identity_bytes_count() -> usize {
    SECTION_HEADER_BYTES + IDENTITY_BYTES
}

/// Bytes of a group's opening section.
pub fn group_opening_bytes_count(opening: &GroupOpening) -> usize {
    SECTION_HEADER_BYTES + TAIL_BYTES + POSITION_BYTES + 4 + opening.configuration.bytes_count()
}

/// Bytes of a repeat section with this many tails.
pub const fn repeat_bytes_count(tails_count: usize) -> usize {
    SECTION_HEADER_BYTES + tails_count * TAIL_BYTES
}

/// Bytes of a batch section whose records have this many bytes.
pub const fn batch_bytes_count(run: Option<&Run>, records_bytes_count: usize) -> usize {
    let run_bytes = if run.is_some() { RUN_BYTES } else { 0 };
    SECTION_HEADER_BYTES + TAIL_BYTES + 4 + run_bytes + records_bytes_count
}

/// Bytes of a reset section.
pub const fn reset_bytes_count() -> usize {
    SECTION_HEADER_BYTES + TAIL_BYTES + 4 + POSITION_BYTES
}

impl RunKind {
    const fn number(self) -> u8 {
        match self {
            Self::Append => 1,
            Self::Fill => 2,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Append),
            2 => Some(Self::Fill),
            _ => None,
        }
    }
}

impl Position {
    pub(crate) fn encode(self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.index.to_le_bytes());
        to.extend_from_slice(&self.term.to_le_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Damage> {
        Ok(Self { index: reader.u64()?, term: reader.u64()? })
    }
}

impl GroupTail {
    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.group.to_le_bytes());
        to.extend_from_slice(&[0; 4]);
        to.extend_from_slice(&self.hard_state.term.to_le_bytes());
        to.extend_from_slice(&self.hard_state.vote.to_le_bytes());
        to.extend_from_slice(&self.hard_state.commit.to_le_bytes());
        self.last.encode(to);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Damage> {
        let group = reader.u32()?;
        reader.zeros(4)?;
        let hard_state = HardState { term: reader.u64()?, vote: reader.u64()?, commit: reader.u64()? };
        let last = Position::decode(reader)?;
        Ok(Self { group, hard_state, last })
    }
}

pub(crate) fn encode_header(kind: u8, bytes_count: usize, to: &mut Vec<u8>) {
    to.extend_from_slice(&[kind, 0, 0, 0]);
    to.extend_from_slice(&length_u32(bytes_count - SECTION_HEADER_BYTES).to_le_bytes());
}

pub(crate) fn encode_group_opening(opening: &GroupOpening, to: &mut Vec<u8>) {
    encode_header(GROUP_OPENING, group_opening_bytes_count(opening), to);
    opening.tail.encode(to);
    opening.snapshot.encode(to);
    to.extend_from_slice(&[u8::from(opening.counts_for_nothing), 0, 0, 0]);
    opening.configuration.encode(to);
}

pub(crate) fn encode_batch<'r>(
    tail: &GroupTail,
    run: Option<&Run>,
    records: impl Iterator<Item = &'r [u8]> + Clone,
    to: &mut Vec<u8>,
) {
    let records_bytes_count = records.clone().map(<[u8]>::len).sum();
    encode_header(BATCH, batch_bytes_count(run, records_bytes_count), to);
    tail.encode(to);
    let kind = run.map_or(0, |run| run.kind.number());
    to.extend_from_slice(&[kind, 0, 0, 0]);
    if let Some(run) = run {
        run.previous.encode(to);
        to.extend_from_slice(&run.first.to_le_bytes());
        to.extend_from_slice(&run.last.to_le_bytes());
    }
    for record in records {
        to.extend_from_slice(record);
    }
}

pub(crate) fn encode_reset(reset: &Reset, to: &mut Vec<u8>) {
    encode_header(RESET, reset_bytes_count(), to);
    reset.tail.encode(to);
    to.extend_from_slice(&[reset.kind.number(), 0, 0, 0]);
    reset.snapshot.encode(to);
}

/// Decodes the section at the reader and moves behind it.
pub(crate) fn decode_section<'a>(reader: &mut Reader<'a>) -> Result<Section<'a>, Damage> {
    let at_kind = *reader;
    let kind = reader.u8()?;
    reader.zeros(3)?;
    let count = reader.length()?;
    let body_offset = reader.offset();
    let mut body = Reader::new(reader.take(count)?, body_offset);
    let section = match kind {
        IDENTITY => Section::Identity(Identity::decode(&mut body)?),
        GROUP_OPENING => Section::GroupOpening(decode_group_opening(&mut body)?),
        REPEAT => Section::Repeat(decode_repeat(&mut body)?),
        BATCH => Section::Batch(decode_batch(&mut body)?),
        RESET => Section::Reset(decode_reset(&mut body)?),
        other => return Err(at_kind.damage(DamageKind::UnknownKind(other))),
    };
    body.end()?;
    Ok(section)
}

fn decode_group_opening(reader: &mut Reader<'_>) -> Result<GroupOpening, Damage> {
    let tail = GroupTail::decode(reader)?;
    let snapshot = Position::decode(reader)?;
    let counts_for_nothing = read_flag(reader)?;
    reader.zeros(3)?;
    Ok(GroupOpening {
        tail,
        snapshot,
        counts_for_nothing,
        configuration: crate::Configuration::read(reader)?,
    })
}

fn decode_repeat<'a>(reader: &mut Reader<'a>) -> Result<Tails<'a>, Damage> {
    if !reader.rest().len().is_multiple_of(TAIL_BYTES) {
        return Err(reader.damage(DamageKind::ImpossibleLength));
    }
    let tails = Tails { reader: *reader };
    let mut check = tails.clone();
    while let Some(tail) = check.next_tail() {
        tail?;
    }
    reader.take(reader.rest().len())?;
    Ok(tails)
}

fn decode_run(reader: &mut Reader<'_>) -> Result<Option<Run>, Damage> {
    let at_kind = *reader;
    let number = reader.u8()?;
    reader.zeros(3)?;
    if number == 0 {
        return Ok(None);
    }
    let kind = RunKind::from_number(number).ok_or(at_kind.damage(DamageKind::UnknownKind(number)))?;
    let run = Run { kind, previous: Position::decode(reader)?, first: reader.u64()?, last: reader.u64()? };
    if run.previous.index.checked_add(1) != Some(run.first) || run.last < run.first {
        return Err(at_kind.damage(DamageKind::Contradiction));
    }
    Ok(Some(run))
}

fn decode_batch<'a>(reader: &mut Reader<'a>) -> Result<Batch<'a>, Damage> {
    let tail = GroupTail::decode(reader)?;
    let run = decode_run(reader)?;
    let records = Records {
        reader: *reader,
        group: tail.group,
        expected: run.map(|run| (run.first, run.last)),
        term_min: run.map_or(0, |run| run.previous.term),
        is_broken: false,
    };
    reader.take(reader.rest().len())?;
    Ok(Batch { tail, run, records })
}

fn decode_reset(reader: &mut Reader<'_>) -> Result<Reset, Damage> {
    let tail = GroupTail::decode(reader)?;
    let at_kind = *reader;
    let number = reader.u8()?;
    let kind = RunKind::from_number(number).ok_or(at_kind.damage(DamageKind::UnknownKind(number)))?;
    reader.zeros(3)?;
    Ok(Reset { tail, kind, snapshot: Position::decode(reader)? })
}

impl Tails<'_> {
    fn next_tail(&mut self) -> Option<Result<GroupTail, Damage>> {
        if self.reader.is_empty() {
            return None;
        }
        Some(GroupTail::decode(&mut self.reader))
    }
}

impl Iterator for Tails<'_> {
    type Item = GroupTail;

    fn next(&mut self) -> Option<GroupTail> {
        self.next_tail()?.ok()
    }
}

impl<'a> Records<'a> {
    fn next_record(&mut self) -> Result<Option<Record<'a>>, Damage> {
        let Some((index, last)) = self.expected else {
            self.reader.end()?;
            return Ok(None);
        };
        let start = self.reader.offset();
        let (header, body) = decode_entry(self.reader.rest()).map_err(|damage| damage.moved_by(start))?;
        let is_expected = header.group == self.group && header.index == index && header.term >= self.term_min;
        if !is_expected {
            return Err(self.reader.damage(DamageKind::Contradiction));
        }
        let bytes = self.reader.take(entry_bytes_count(body.len()))?;
        self.expected = if index == last { None } else { Some((index + 1, last)) };
        self.term_min = header.term;
        Ok(Some(Record { header, bytes, body }))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_broken {
            return None;
        }
        let record = self.next_record();
        self.is_broken = record.is_err();
        record.transpose()
    }
}
