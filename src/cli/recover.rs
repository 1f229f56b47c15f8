//! `mainstay recover --data DIR --stop-before INDEX`: cuts the end off the log of a member that is not running.
//!
//! The last resort for an entry that makes every member fail when it is applied: they fail again at every start. Always:
//! without `--force` nothing is changed; what is cut off is copied to a file first; one durable write does it, which reads
//! back as it should or is reported; term and vote stay. Left out: the other members, which a person has to see to.

use super::inspect::{EntryReport, restorable};
use crate::ids::{GroupId, LogIndex, SegmentNumber};
use crate::io::{DataDirectory, DiskError, now, random_seed};
use crate::limits::WAL_SEGMENT_BYTES;
use crate::wal::{
    CannotCut, Cut, FoundSegment, Recovered, RecoveryFailed, Wal, WalOptions, WantedSegment, cut, recover,
};
use clap::Args;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use wal_format::{SegmentName, parse_segment_file_name, segment_file_name};

pub(super) const EXAMPLES: &str = "\
Examples:
  mainstay recover --data /var/lib/mainstay --stop-before 4711            shows what would be cut off; changes nothing
  mainstay recover --data /var/lib/mainstay --stop-before 4711 --force
  mainstay recover --data /var/lib/mainstay --stop-before 4711 --force --drop-committed

For the case that one entry of the log makes every member fail when it is applied, each time it is started. Stop all
members; cut the log of every one of them before the same entry; only then start them. A member whose log was not cut
brings the entry back, or stops because what it knows to be committed is gone. docs/recovery.md says more.

Whatever is cut off is lost to the cluster, clients may have been told that it is done, and a copy is left in the data
directory. Exit codes: 0 cut, or shown what would be; 1 refused; 2 the arguments were not understood, or the directory
cannot be read.";

/// The arguments of `mainstay recover`.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES, after_help = EXAMPLES)]
pub(super) struct RecoverArgs {
    /// The data directory of a member that is not running
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// The first entry to cut off
    #[arg(long, value_name = "INDEX", value_parser = clap::value_parser!(u64).range(1..))]
    stop_before: u64,

    /// Do it; without this it is only shown
    #[arg(long)]
    force: bool,

    /// Also if this member knows that entries to be cut off are committed
    #[arg(long)]
    drop_committed: bool,
}

/// Entries that are shown of those to be cut off: so many of the first.
const SHOWN_MAX: usize = 20;

/// Why nothing was cut.
#[derive(Debug, thiserror::Error)]
enum NotCut {
    #[error("{0}")]
    Disk(#[from] DiskError),
    #[error("{} holds no log: name the data directory of a member (what --data says)", .0.display())]
    NoLog(PathBuf),
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the log cannot be used: {0}")]
    Log(#[from] RecoveryFailed),
    #[error("{0}")]
    Refused(#[from] CannotCut),
    #[error(
        "this member knows that the log is committed up to entry {commit}, so clients may have been told of what \
         would be cut off: add --drop-committed if that is meant"
    )]
    Committed { commit: LogIndex },
    #[error("the log ends with entry {found} after the cut, not with {wanted}: this is a bug")]
    NotAsWanted { found: LogIndex, wanted: LogIndex },
    #[error("the copy of what is cut off could not be written to {}: {source}", path.display())]
    NoCopy { path: PathBuf, source: io::Error },
}

/// The log of a stopped member, held so that it cannot be started meanwhile.
struct StoppedLog {
    directory: DataDirectory,
    path: PathBuf,
}

/// Runs what was asked for.
pub(super) fn run(arguments: &RecoverArgs) -> ExitCode {
    match try_run(arguments) {
        Ok(text) => super::output::print(text.as_bytes()),
        Err(problem) => {
            eprintln!("error: nothing was cut: {problem}");
            let is_unreadable =
                matches!(problem, NotCut::NoLog(_) | NotCut::Unreadable { .. } | NotCut::Log(_));
            ExitCode::from(if is_unreadable { 2 } else { 1 })
        }
    }
}

fn try_run(arguments: &RecoverArgs) -> Result<String, NotCut> {
    let stop_before = LogIndex(arguments.stop_before);
    let log = StoppedLog::open(&arguments.data)?;
    let recovered = log.recover()?;
    let cut = cut(&recovered, GroupId::FIRST, stop_before)?;
    if stop_before <= cut.commit && !arguments.drop_committed && arguments.force {
        return Err(NotCut::Committed { commit: cut.commit });
    }
    let told = told(&cut, stop_before);
    if !arguments.force {
        let also = if stop_before <= cut.commit { " --drop-committed" } else { "" };
        return Ok(format!(
            "{told}\nNothing was changed. To do it, stop all members, and for each of them:\n  mainstay recover --data DIR \
             --stop-before {stop_before} --force{also}\n"
        ));
    }
    let copy = log.keep_copy(&cut, stop_before)?;
    log.write(&recovered, &cut)?;
    let wanted = cut.write.last.index;
    let found = log.recover()?.groups.get(&GroupId::FIRST).map_or(LogIndex(0), |group| group.last().index);
    if found != wanted {
        return Err(NotCut::NotAsWanted { found, wanted });
    }
    Ok(format!(
        "{told}\nDone: the log ends with entry {wanted}. What was cut off is in {}.\nNow do the same with every other \
         member, before the same entry, while none runs; a log that ends before it anyway is refused and needs nothing. \
         Then start them all.\n",
        copy.display()
    ))
}

/// What is to be cut off, in words.
fn told(cut: &Cut, stop_before: LogIndex) -> String {
    let last = cut.dropped.last_key_value().map_or(stop_before, |(index, _)| *index);
    let count = cut.dropped.len();
    let shown: String =
        cut.dropped.values().take(SHOWN_MAX).map(|record| EntryReport::text_of(record)).collect();
    let more = count.checked_sub(SHOWN_MAX).filter(|more| *more > 0);
    let more = more.map_or_else(String::new, |more| format!("      and {more} more\n"));
    format!(
        "{count} entries are to be cut off, {stop_before} to {last}; this member knows of commits up to {}.\n{shown}{more}",
        cut.commit
    )
}

impl StoppedLog {
    fn open(path: &Path) -> Result<Self, NotCut> {
        let unreadable = |source| NotCut::Unreadable { path: path.to_owned(), source };
        let mut names = std::fs::read_dir(path).map_err(unreadable)?.filter_map(Result::ok);
        if !names.any(|entry| parse_segment_file_name(&entry.file_name().to_string_lossy()).is_some()) {
            return Err(NotCut::NoLog(path.to_owned()));
        }
        Ok(Self { directory: DataDirectory::open(path)?, path: path.to_owned() })
    }

    /// What the log says now.
    fn recover(&self) -> Result<Recovered, NotCut> {
        let mut files = Vec::new();
        for name in self.directory.file_names()? {
            if let Some(segment) = parse_segment_file_name(&name) {
                files.push((segment, self.directory.read(&name)?));
            }
        }
        let found: Vec<FoundSegment<'_>> = files
            .iter()
            .map(|(name, bytes)| FoundSegment {
                number: SegmentNumber(name.number),
                salt: name.salt,
                bytes,
                shared: Some(bytes),
            })
            .collect();
        let snapshots = restorable(&self.path)
            .map_err(|source| NotCut::Unreadable { path: self.path.clone(), source })?;
        Ok(recover(OPTIONS, &found, &snapshots)?)
    }

    /// Copies what is to be cut off, as it stands in the log (`wal-format/FORMAT.md`, "Entry").
    fn keep_copy(&self, cut: &Cut, stop_before: LogIndex) -> Result<PathBuf, NotCut> {
        let last = cut.dropped.last_key_value().map_or(stop_before, |(index, _)| *index);
        let path = self.path.join(format!("cut-{:016x}-{:016x}.entries", stop_before.0, last.0));
        let written = std::fs::File::create(&path).and_then(|mut file| {
            cut.dropped.values().try_for_each(|record| file.write_all(record))?;
            file.sync_all()?;
            std::fs::File::open(&self.path)?.sync_all()
        });
        written.map_err(|source| NotCut::NoCopy { path: path.clone(), source })?;
        Ok(path)
    }

    /// Writes the one frame that does it.
    fn write(&self, recovered: &Recovered, cut: &Cut) -> Result<(), NotCut> {
        let unreadable = |source| NotCut::Unreadable { path: self.path.clone(), source };
        let mut wal = Wal::resume(OPTIONS, recovered, random_seed().map_err(unreadable)?);
        let mut salts: Vec<(SegmentNumber, u64)> =
            recovered.spares.iter().map(|spare| (spare.segment, spare.salt)).collect();
        salts.extend(recovered.next.map(|next| (next.segment, next.salt)));
        let write = loop {
            if let Some(write) = wal.write(now(), std::slice::from_ref(&cut.write)) {
                break write;
            }
            let wanted = wal.wants_segment();
            let WantedSegment { segment, salt, .. } =
                wanted.expect("a write that finds no segment asks for one");
            self.directory.make_zeroed(&name_of(segment, salt), WAL_SEGMENT_BYTES, || u64::MAX)?;
            salts.push((segment, salt));
            wal.segment_ready(segment);
        };
        let salt = salts.iter().find(|(segment, _)| *segment == write.segment).map(|(_, salt)| *salt);
        let name = name_of(write.segment, salt.expect("a write goes to a segment that is there"));
        self.directory.overwrite_at(&name, write.offset, &write.frame)?;
        Ok(())
    }
}

const OPTIONS: WalOptions = WalOptions { segment_bytes: WAL_SEGMENT_BYTES, shard: 0 };

fn name_of(segment: SegmentNumber, salt: u64) -> String {
    segment_file_name(&SegmentName { shard: 0, number: segment.0, salt })
}
