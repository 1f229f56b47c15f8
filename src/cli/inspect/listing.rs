//! One segment's frames as they stand in the file, whether or not they belong together.
//!
//! What always holds: it moves forward by whole blocks and ends at the end of the file. Entries are named by their
//! headers; their values are users' and are not shown.

use crate::api;
use crate::kv::{Command, LeaseCommand};
use bytes::Bytes;
use serde::Serialize;
use std::io::{self, Write};
use wal_format::{
    BLOCK_BYTES, Batch, Damage, EntryKind, Frame, FrameKind, GroupTail, Record, RunKind, Section,
    SegmentName, decode_entry, starts_like_a_frame,
};

/// Bytes of a key that are shown.
const KEY_SHOWN_BYTES_MAX: usize = 64;

/// A segment's file.
#[derive(Debug, Serialize)]
pub(super) struct Segment {
    file: String,
    number: u64,
    size_bytes: usize,
    pub(super) frames: Vec<FrameReport>,
    damage: Vec<DamageReport>,
}

/// A frame whose checksum is right.
#[derive(Debug, Serialize)]
pub(super) struct FrameReport {
    offset_bytes: usize,
    size_bytes: usize,
    kind: &'static str,
    sequence: u32,
    hash: String,
    previous_hash: String,
    sections: Vec<SectionReport>,
}

#[derive(Debug, Serialize)]
struct SectionReport {
    kind: &'static str,
    words: String,
    entries: Vec<EntryReport>,
}

#[derive(Debug, Serialize)]
pub(in crate::cli) struct EntryReport {
    group: u32,
    index: u64,
    term: u64,
    kind: &'static str,
    size_bytes: usize,
    session: u64,
    sequence: u64,
    /// What a command does, and to which key.
    what: String,
}

/// Bytes that should be a frame, or a part of one, and are not.
#[derive(Debug, Serialize)]
struct DamageReport {
    offset_bytes: usize,
    what: String,
}

impl Segment {
    /// Reads all frames that can be found in `bytes`.
    pub(super) fn read(file: &str, name: &SegmentName, bytes: &[u8]) -> Self {
        let mut segment = Self {
            file: file.to_owned(),
            number: name.number,
            size_bytes: bytes.len(),
            frames: Vec::new(),
            damage: Vec::new(),
        };
        let mut offset = 0;
        while let Some(rest) = bytes.get(offset..)
            && !rest.is_empty()
        {
            offset += segment.read_at(offset, rest, name.salt);
        }
        segment
    }

    /// Reads what begins at `offset`; returns how far to move on.
    fn read_at(&mut self, offset: usize, rest: &[u8], salt: u64) -> usize {
        let is_behind_a_frame =
            self.frames.last().map_or(0, |frame| frame.offset_bytes + frame.size_bytes) == offset;
        match Frame::decode(rest, salt) {
            Ok(frame) => {
                let bytes_count = frame.header.bytes_count;
                let report = self.frame(offset, &frame);
                self.frames.push(report);
                bytes_count
            }
            Err(damage) => {
                let block = rest.get(..BLOCK_BYTES).unwrap_or(rest);
                let is_blank = block.iter().all(|byte| *byte == 0);
                if starts_like_a_frame(rest) || (is_behind_a_frame && !is_blank) {
                    self.damaged(offset, damage);
                }
                BLOCK_BYTES
            }
        }
    }

    fn damaged(&mut self, offset: usize, damage: Damage) {
        let offset_bytes = offset.saturating_add(damage.offset);
        self.damage.push(DamageReport { offset_bytes, what: damage.kind.to_string() });
    }

    fn frame(&mut self, offset: usize, frame: &Frame<'_>) -> FrameReport {
        let mut sections = Vec::new();
        for section in frame.sections() {
            match section {
                Ok(section) => sections.push(self.section(offset, section)),
                Err(damage) => self.damaged(offset, damage),
            }
        }
        FrameReport {
            offset_bytes: offset,
            size_bytes: frame.header.bytes_count,
            kind: frame_kind(frame.header.kind),
            sequence: frame.header.place.sequence,
            hash: format!("{:016x}", frame.header.hash),
            previous_hash: format!("{:016x}", frame.header.place.previous_hash),
            sections,
        }
    }

    fn section(&mut self, offset: usize, section: Section<'_>) -> SectionReport {
        let plain = |kind, words| SectionReport { kind, words, entries: Vec::new() };
        match section {
            Section::Identity(identity) => plain(
                "identity",
                format!(
                    "cluster={:016x} member={:016x} directory={:016x} shard={}",
                    identity.cluster, identity.member, identity.directory, identity.shard
                ),
            ),
            Section::GroupOpening(opening) => plain(
                "group-opening",
                format!(
                    "{} snapshot={} members={}{}",
                    tail_words(&opening.tail),
                    opening.snapshot.index,
                    opening.configuration.members.len(),
                    if opening.counts_for_nothing { " counts-for-nothing" } else { "" }
                ),
            ),
            Section::Repeat(tails) => {
                plain("repeat", tails.map(|tail| tail_words(&tail)).collect::<Vec<_>>().join("; "))
            }
            Section::Reset(reset) => plain(
                "reset",
                format!(
                    "{} {} snapshot={}",
                    tail_words(&reset.tail),
                    run_kind(reset.kind),
                    reset.snapshot.index
                ),
            ),
            Section::Batch(batch) => self.batch(offset, batch),
        }
    }

    fn batch(&mut self, offset: usize, batch: Batch<'_>) -> SectionReport {
        let run = batch.run.map_or_else(String::new, |run| {
            let kind = run_kind(run.kind);
            format!(
                " {kind} {}..{} after {} of term {}",
                run.first, run.last, run.previous.index, run.previous.term
            )
        });
        let mut entries = Vec::new();
        for record in batch.records {
            match record {
                Ok(record) => entries.push(EntryReport::of(&record)),
                Err(damage) => self.damaged(offset, damage),
            }
        }
        SectionReport { kind: "batch", words: format!("{}{run}", tail_words(&batch.tail)), entries }
    }

    /// How many entries were readable.
    pub(super) fn entries_count(&self) -> u64 {
        let sections = self.frames.iter().flat_map(|frame| &frame.sections);
        sections.map(|section| section.entries.len() as u64).sum()
    }

    /// Prints it for people.
    pub(super) fn tell(&self, out: &mut impl Write, is_summary: bool) -> io::Result<()> {
        let (frames, entries) = (self.frames.len(), self.entries_count());
        let Self { file, size_bytes, .. } = self;
        writeln!(
            out,
            "segment {} {file} size_bytes={size_bytes} frames={frames} entries={entries}",
            self.number
        )?;
        for frame in self.frames.iter().filter(|_| !is_summary) {
            let FrameReport { offset_bytes, size_bytes, kind, sequence, .. } = frame;
            writeln!(out, "  frame {sequence} at {offset_bytes}: {kind}, {size_bytes} bytes")?;
            for section in &frame.sections {
                writeln!(out, "    {} {}", section.kind, section.words)?;
                for entry in &section.entries {
                    entry.tell(out)?;
                }
            }
        }
        for damage in &self.damage {
            writeln!(out, "  damage at {}: {}", damage.offset_bytes, damage.what)?;
        }
        Ok(())
    }
}

impl EntryReport {
    fn of(record: &Record<'_>) -> Self {
        let header = record.header;
        Self {
            group: header.group,
            index: header.index,
            term: header.term,
            kind: entry_kind(header.kind),
            size_bytes: record.bytes.len(),
            session: header.session,
            sequence: header.sequence,
            what: if header.kind == EntryKind::Command { command_words(record.body) } else { String::new() },
        }
    }

    /// A line about an encoded entry.
    pub(in crate::cli) fn text_of(record: &[u8]) -> String {
        let told = decode_entry(record).map_or_else(
            |damage| Ok(format!("      an entry that cannot be read: {damage}\n").into_bytes()),
            |(header, body)| {
                let mut text = Vec::new();
                Self::of(&Record { header, bytes: record, body }).tell(&mut text).map(|()| text)
            },
        );
        told.map_or_else(|_| String::new(), |text| String::from_utf8_lossy(&text).into_owned())
    }

    fn tell(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { index, term, kind, size_bytes, what, .. } = self;
        write!(out, "      entry {index} term={term} {kind} {size_bytes} bytes")?;
        if self.session != 0 {
            write!(out, " session={} sequence={}", self.session, self.sequence)?;
        }
        if what.is_empty() { writeln!(out) } else { writeln!(out, " {what}") }
    }
}

fn command_words(body: &[u8]) -> String {
    match api::decode_command(&Bytes::copy_from_slice(body)) {
        Ok(Command::Put(put)) => format!("put {} ({} bytes)", key_words(&put.key), put.value.len()),
        Ok(Command::DeleteRange(delete)) => format!("delete {:?}", delete.range),
        Ok(Command::Compact(compact)) => format!("compact to revision {}", compact.revision),
        Ok(Command::Lease(command)) => lease_words(&command),
        Ok(Command::SpaceAlarm(alarm)) => {
            let by_hand = alarm.by_hand.map(|number| format!(" {number} by hand")).unwrap_or_default();
            format!("space alarm{by_hand}{}", if alarm.is_raised { "" } else { " called off" })
        }
        Ok(Command::Txn(txn)) => format!(
            "txn of {} compares, {} or {} operations",
            txn.compares.len(),
            txn.success.len(),
            txn.failure.len()
        ),
        Err(malformed) => format!("a command this build cannot read: {malformed}"),
    }
}

fn lease_words(command: &LeaseCommand) -> String {
    match command {
        LeaseCommand::Grant(grant) => format!("grant lease {:x} for {} ms", grant.lease.0, grant.ttl_ms),
        LeaseCommand::Revoke(revoke) => format!("revoke lease {:x}", revoke.lease.0),
        LeaseCommand::Expire(life) => format!("expire lease {:x}", life.lease.0),
        LeaseCommand::Checkpoint(all) => format!("checkpoint of {} leases", all.len()),
        LeaseCommand::Renew(life) => format!("renew lease {:x}", life.lease.0),
    }
}

fn key_words(key: &[u8]) -> String {
    let shown = key.get(..KEY_SHOWN_BYTES_MAX).unwrap_or(key);
    format!("\"{}\"{}", shown.escape_ascii(), if shown.len() < key.len() { "…" } else { "" })
}

fn tail_words(tail: &GroupTail) -> String {
    let GroupTail { group, hard_state, last } = tail;
    format!(
        "group={group} term={} vote={:016x} commit={} last={} of term {}",
        hard_state.term, hard_state.vote, hard_state.commit, last.index, last.term
    )
}

fn frame_kind(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::Opening => "opening",
        FrameKind::Batch => "batch",
        FrameKind::Seal => "seal",
        FrameKind::Reset => "reset",
    }
}

fn run_kind(kind: RunKind) -> &'static str {
    match kind {
        RunKind::Append => "append",
        RunKind::Fill => "fill",
    }
}

fn entry_kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::NoOp => "no-op",
        EntryKind::Command => "command",
        EntryKind::Configuration => "configuration",
        EntryKind::OpenSession => "open-session",
        EntryKind::CloseSession => "close-session",
        EntryKind::ExpireSession => "expire-session",
        EntryKind::StateCheck => "state-check",
        EntryKind::Users => "users",
    }
}
