//! `mainstay inspect wal DIR` and `inspect snapshot DIR`: what a member's log and snapshots hold, offline and read-only.
//!
//! Frames, entries and damage are shown as they stand in the files (`listing`); what they come to is said by
//! `crate::wal::recover`, the recovery that the server itself runs. What always holds: nothing is written, nothing is
//! locked, and whatever the bytes are, they are described and not trusted. Exit code 0 if a member could start from
//! it with nothing missing, 1 if not, and 2 if it could not be read at all. What it leaves out: mending anything, and
//! the directory of a running member, whose last frame may be seen half written.

mod listing;
mod snapshots;

use crate::io::MappedFile;
use crate::wal::{FoundSegment, Note, Recovered, WalOptions, recover};
use clap::{Args, Subcommand};
pub(super) use listing::EntryReport;
use listing::Segment;
use serde::Serialize;
use snapshots::Snapshot;
pub(super) use snapshots::restorable;
use std::io::{self, BufWriter, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use wal_format::{SegmentName, parse_segment_file_name};

/// The arguments of `mainstay inspect`.
#[derive(Args, Debug)]
pub(super) struct InspectArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show frames, entries, groups and damage of the write-ahead log in a data directory
    Wal(WalArgs),
    /// Show and verify the snapshots in a data directory
    Snapshot(SnapshotArgs),
}

#[derive(Args, Debug)]
struct SnapshotArgs {
    /// The data directory of a member that is not running
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Print them as one JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct WalArgs {
    /// The data directory of a member that is not running
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Only what it comes to, not every frame and entry
    #[arg(long)]
    summary: bool,

    /// Print it as one JSON object
    #[arg(long)]
    json: bool,
}

/// Everything about a log.
#[derive(Debug, Serialize)]
struct Report {
    directory: String,
    /// Whether a member could start from this with nothing missing.
    is_sound: bool,
    /// Why the log cannot be used at all, if it cannot.
    refused: Option<String>,
    identity: Option<IdentityReport>,
    groups: Vec<GroupReport>,
    notes: Vec<String>,
    frames: u64,
    entries: u64,
    segments: Vec<Segment>,
}

#[derive(Debug, Serialize)]
struct IdentityReport {
    cluster_id: String,
    member_id: String,
    directory_id: String,
    shard: u16,
}

#[derive(Debug, Serialize)]
struct GroupReport {
    group: u32,
    term: u64,
    vote: String,
    commit_index: u64,
    last_index: u64,
    last_term: u64,
    entries: usize,
    counts_for_nothing: bool,
    members: Vec<String>,
}

/// Runs what was asked for.
pub(super) fn run(arguments: InspectArgs) -> ExitCode {
    match arguments.what {
        What::Wal(arguments) => run_wal(&arguments),
        What::Snapshot(arguments) => run_snapshot(&arguments),
    }
}

fn refuse(directory: &Path, error: &io::Error) -> ExitCode {
    eprintln!(
        "error: {} cannot be inspected: {error}; name the data directory of a member (what --data says)",
        directory.display()
    );
    ExitCode::from(2)
}

fn run_snapshot(arguments: &SnapshotArgs) -> ExitCode {
    let all = match snapshots::read_all(&arguments.directory) {
        Ok(all) => all,
        Err(error) => return refuse(&arguments.directory, &error),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let told = if arguments.json {
        serde_json::to_writer(&mut out, &all).map_err(io::Error::from).and_then(|()| writeln!(out))
    } else {
        all.iter().try_for_each(|snapshot| snapshot.tell(&mut out))
    };
    // As below: whoever reads may have seen enough.
    let _ = told.and_then(|()| out.flush());
    if all.iter().any(Snapshot::is_damaged) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn run_wal(arguments: &WalArgs) -> ExitCode {
    let report = match inspect(&arguments.directory) {
        Ok(report) => report,
        Err(error) => return refuse(&arguments.directory, &error),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let told = if arguments.json {
        tell_json(&mut out, &report)
    } else {
        tell(&mut out, &report, arguments.summary)
    };
    // Whoever reads may have seen enough and closed the pipe, which changes nothing about the log.
    let _ = told.and_then(|()| out.flush());
    if report.is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Reads every segment in `directory`.
fn inspect(directory: &Path) -> io::Result<Report> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        if let Some(name) = parse_segment_file_name(&file) {
            files.push((file, name, MappedFile::open(&entry.path())?));
        }
    }
    files.sort_by(|(left, _, _), (right, _, _)| left.cmp(right));
    Ok(report_of(&directory.display().to_string(), &files, &snapshots::read_all(directory)?))
}

fn report_of<Bytes: Deref<Target = [u8]>>(
    directory: &str,
    files: &[(String, SegmentName, Bytes)],
    snapshots: &[Snapshot],
) -> Report {
    let found = files.iter().map(|(_, name, bytes)| FoundSegment {
        number: crate::ids::SegmentNumber(name.number),
        salt: name.salt,
        bytes,
        shared: None,
    });
    let found: Vec<FoundSegment<'_>> = found.collect();
    let segments: Vec<Segment> =
        files.iter().map(|(file, name, bytes)| Segment::read(file, name, bytes)).collect();
    // The log need not hold what the newest sound snapshot does.
    let restorable = snapshots::positions(snapshots);
    // A directory holds the log of one shard today; one file of another is refused by the recovery itself.
    let shard = files.first().map_or(0, |(_, name, _)| name.shard);
    let options = WalOptions { shard, segment_bytes: crate::limits::WAL_SEGMENT_BYTES_MIN };
    let mut report = Report {
        directory: directory.to_owned(),
        is_sound: false,
        refused: None,
        identity: None,
        groups: Vec::new(),
        notes: Vec::new(),
        frames: segments.iter().map(|segment| segment.frames.len() as u64).sum(),
        entries: segments.iter().map(Segment::entries_count).sum(),
        segments,
    };
    match recover(options, &found, &restorable) {
        Ok(recovered) => report.take_in(&recovered),
        Err(refused) => report.refused = Some(refused.to_string()),
    }
    if files.is_empty() {
        report.notes.push("there is no segment: a new directory, or not a member's".to_owned());
    }
    report
}

impl Report {
    fn take_in(&mut self, recovered: &Recovered) {
        self.identity = recovered.identity.map(|identity| IdentityReport {
            cluster_id: format!("{:016x}", identity.cluster),
            member_id: format!("{:016x}", identity.member),
            directory_id: format!("{:016x}", identity.directory),
            shard: identity.shard,
        });
        self.groups = recovered
            .groups
            .iter()
            .map(|(group, found)| GroupReport {
                group: group.0,
                term: found.log.hard_state.term.0,
                vote: found.log.hard_state.vote.map_or_else(String::new, |vote| format!("{:016x}", vote.0)),
                commit_index: found.log.hard_state.commit.0,
                last_index: found.last().index.0,
                last_term: found.last().term.0,
                entries: found.records.len(),
                counts_for_nothing: found.counts_for_nothing,
                members: found
                    .configuration
                    .members
                    .iter()
                    .map(|member| format!("{}={}", member.name, member.address))
                    .collect(),
            })
            .collect();
        self.is_sound = recovered.notes.iter().all(|note| matches!(note, Note::DroppedTail { .. }));
        self.notes = recovered.notes.iter().map(words_of).collect();
    }
}

fn words_of(note: &Note) -> String {
    match note {
        Note::DroppedTail { segment, offset, damage } => format!(
            "{segment}, byte {offset}: a write that was in flight at the end ({damage}); nobody was told that it is \
             durable, so it is dropped"
        ),
        Note::Corruption { segment, offset, damage } => {
            format!("{segment}, byte {offset}: corruption, {damage}; the member repairs it from its peers")
        }
        Note::Missing { before } => format!("frames are missing just before {before}"),
        Note::Hole { group, below, last } => format!(
            "{group} has a hole from index {} to {}; the member fills it from its peers and does not campaign before",
            below.index.0.saturating_add(1),
            last.index
        ),
        Note::CountsForNothing { group } => format!(
            "{group}: a vote or the end of its log may be lost; the member counts for nothing until it is added again"
        ),
        Note::IdentityInDoubt => {
            "frames were lost and no opening follows: the identity may be an older one".to_owned()
        }
    }
}

fn tell_json(out: &mut impl Write, report: &Report) -> io::Result<()> {
    serde_json::to_writer(&mut *out, report)?;
    writeln!(out)
}

fn tell(out: &mut impl Write, report: &Report, is_summary: bool) -> io::Result<()> {
    for segment in &report.segments {
        segment.tell(out, is_summary)?;
    }
    if let Some(identity) = &report.identity {
        let IdentityReport { cluster_id, member_id, directory_id, shard } = identity;
        writeln!(
            out,
            "identity cluster={cluster_id} member={member_id} directory={directory_id} shard={shard}"
        )?;
    }
    for group in &report.groups {
        writeln!(
            out,
            "group {} term={} vote={} commit={} last={} of term {} entries={}{} members={}",
            group.group,
            group.term,
            if group.vote.is_empty() { "-" } else { &group.vote },
            group.commit_index,
            group.last_index,
            group.last_term,
            group.entries,
            if group.counts_for_nothing { " counts-for-nothing" } else { "" },
            group.members.join(","),
        )?;
    }
    for note in &report.notes {
        writeln!(out, "note {note}")?;
    }
    match &report.refused {
        Some(words) => writeln!(out, "refused: {words}"),
        None if report.is_sound => {
            writeln!(out, "sound: {} frames, {} entries", report.frames, report.entries)
        }
        None => writeln!(out, "damaged: {} frames, {} entries readable", report.frames, report.entries),
    }
}

#[cfg(test)]
mod tests {
    use super::{Report, report_of, tell, tell_json};
    use wal_format::{
        FrameKind, FrameWriter, GroupOpening, GroupTail, HardState, Identity, Place, Position, SegmentName,
    };

    const NAME: SegmentName = SegmentName { shard: 0, number: 1, salt: 77 };

    fn tail() -> GroupTail {
        GroupTail {
            group: 1,
            hard_state: HardState { term: 3, vote: 2, commit: 0 },
            last: Position { index: 0, term: 0 },
        }
    }

    /// A segment with an opening and a seal.
    fn segment() -> Vec<u8> {
        let place = Place { segment: 1, salt: 77, sequence: 0, previous_hash: 0 };
        let mut frame = FrameWriter::new(FrameKind::Opening, place, 0);
        frame.identity(&Identity { directory: 5, cluster: 6, member: 2, shard: 0 });
        frame.group_opening(&GroupOpening {
            tail: tail(),
            snapshot: Position::default(),
            counts_for_nothing: false,
            configuration: wal_format::Configuration::default(),
        });
        let (mut bytes, previous_hash) = frame.finish();
        let place = Place { sequence: 1, previous_hash, ..place };
        let mut frame = FrameWriter::new(FrameKind::Seal, place, 0);
        frame.repeat(&[tail()]);
        bytes.extend(frame.finish().0);
        bytes.resize(64 * 1_024, 0);
        bytes
    }

    fn reported(bytes: Vec<u8>) -> (Report, String) {
        let report = report_of("d", &[("wal".to_owned(), NAME, bytes)], &[]);
        let mut text = Vec::new();
        tell(&mut text, &report, false).expect("memory takes it");
        tell_json(&mut Vec::new(), &report).expect("memory takes it");
        (report, String::from_utf8(text).expect("text"))
    }

    #[test]
    fn a_sound_log_is_told_frame_by_frame() {
        let (report, text) = reported(segment());
        assert!(report.is_sound, "{text}");
        assert_eq!(report.frames, 2);
        assert!(text.contains("opening") && text.contains("seal") && text.contains("term=3"), "{text}");
    }

    #[test]
    fn a_flipped_bit_before_a_sound_frame_is_damage() {
        let mut bytes = segment();
        bytes[100] ^= 1;
        let (report, text) = reported(bytes);
        assert!(!report.is_sound, "{text}");
        assert!(text.contains("a wrong checksum"), "{text}");
    }

    #[test]
    fn garbage_is_described_and_never_panics() {
        let mut state = 4_711_u64;
        let mut below = |bound: u64| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 33) % bound
        };
        for round in 0..300_u64 {
            let mut bytes = if round % 2 == 0 { segment() } else { vec![0; 16 * 1_024] };
            for _ in 0..=below(64) {
                let place = usize::try_from(below(9_000)).expect("small");
                bytes[place] = below(256).to_le_bytes()[0];
            }
            bytes.truncate(usize::try_from(below(20_000)).expect("small"));
            reported(bytes);
        }
        assert!(!reported(vec![0xa5; 512 * 1_024]).0.is_sound);
    }

    #[test]
    fn a_directory_without_a_log_says_so() {
        let report = report_of::<Vec<u8>>("d", &[], &[]);
        assert!(report.notes.join(" ").contains("no segment"));
    }
}
