//! `mainstay snapshot save PATH` from a running cluster, and `mainstay snapshot verify PATH` of a file.
//!
//! Always: a saved snapshot holds everything that was committed when it was asked for; its file gets its name only when it
//! is whole, durable and read back, and never in the place of another file. Left out: a cluster from a snapshot.

use super::client_args::ClientArgs;
use super::output::{Format, json_line, print, usage};
use super::snapshot_file::Contents;
use crate::client::{NoSnapshot, SnapshotDownload};
use crate::snapshot::{Damage, Opening, Part, Reader, Verified};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

pub(super) const EXAMPLES: &str = "\
Examples:
  mainstay snapshot save backup.snap
  mainstay snapshot save backup.snap --endpoints 10.0.0.2:2378,10.0.0.3:2378
  mainstay snapshot save backup.snap --json
  mainstay snapshot verify backup.snap

A member cuts a snapshot that holds everything committed by now, and gives it out while it goes on to serve; name a
follower first to leave the leader alone. --timeout is how long a member may say nothing, and how long members are asked
again, one after the other, while none gives one, as without a leader. Progress is on stderr.
Exit codes: 0 saved, or sound; 1 not saved, or damaged (what, and at which byte); 2 the arguments were not understood, or
the file cannot be read.";

/// The arguments of `mainstay snapshot`.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES, after_help = EXAMPLES)]
pub(super) struct SnapshotArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Save a snapshot of everything that is committed now
    #[command(after_long_help = EXAMPLES, after_help = EXAMPLES)]
    Save {
        /// The file to make; it must not be there
        path: PathBuf,

        #[command(flatten)]
        client: ClientArgs,
    },
    /// Say what is in a snapshot file, and whether a member would restore it
    #[command(after_long_help = EXAMPLES, after_help = EXAMPLES)]
    Verify {
        /// The file
        path: PathBuf,

        /// Print it as one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Members are asked at least so often, in turn, before it is given up.
const ATTEMPTS_MIN: usize = 3;

/// The pause after every member was asked in vain.
const PAUSE: Duration = Duration::from_millis(100);

/// Between two words about progress.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Bytes read at once.
const PIECE_BYTES: usize = 1_024 * 1_024;

/// Why nothing was saved.
#[derive(Debug, thiserror::Error)]
enum NotSaved {
    /// The member; another one may do better.
    #[error("{0}")]
    Member(#[from] NoSnapshot),
    /// What came, or what the disk gave back.
    #[error("what came is damaged, {0}")]
    Damaged(#[from] Damage),
    /// It is sound, and not what the member promised.
    #[error("what came is another snapshot than the member named")]
    Other,
    /// The file.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
}

/// What was saved.
#[derive(Debug, Serialize)]
struct Saved {
    path: String,
    cluster_id: String,
    member_id: String,
    index: u64,
    term: u64,
    revision: u64,
    bytes: u64,
    hash: String,
    millis: u64,
}

/// Runs what was asked for.
pub(super) fn run(arguments: &SnapshotArgs) -> ExitCode {
    match &arguments.what {
        What::Save { path, client } => run_save(path, client),
        What::Verify { path, json } => run_verify(path, *json),
    }
}

fn run_verify(path: &Path, json: bool) -> ExitCode {
    let contents = match Contents::of_file(path) {
        Ok(contents) => contents,
        Err(error) => {
            eprintln!("error: {} cannot be read: {error}", path.display());
            return ExitCode::from(2);
        }
    };
    let text = if json {
        json_line(&contents)
    } else {
        let mut text = path.display().to_string().into_bytes();
        contents
            .tell(&mut text)
            .and_then(|()| contents.tell_verdict(&mut text))
            .expect("memory takes what is written to it");
        text
    };
    let printed = print(&text);
    if contents.is_sound { printed } else { ExitCode::FAILURE }
}

fn run_save(path: &Path, client: &ClientArgs) -> ExitCode {
    let endpoints = match client.endpoints() {
        Ok(endpoints) => endpoints,
        Err(problem) => return usage(&problem),
    };
    let format = client.format_or(Format::Simple);
    if !matches!(format, Format::Simple | Format::Json) {
        return usage("what was saved is printed as simple or json");
    }
    match save_from_any(path, &endpoints, client.timeout()) {
        Ok(saved) if format == Format::Json => print(&json_line(&saved)),
        Ok(saved) => {
            let Saved { path, member_id, index, term, revision, bytes, hash, .. } = saved;
            let text = format!(
                "saved {path} from member {member_id}: index={index} term={term} revision={revision} \
                 bytes={bytes} hash={hash}\n"
            );
            print(text.as_bytes())
        }
        Err(problem) => {
            eprintln!("error: nothing was saved: {problem}");
            if format == Format::Json {
                let error = serde_json::json!({ "error": { "code": "not-saved", "message": problem } });
                print(&json_line(&error));
            }
            ExitCode::FAILURE
        }
    }
}

/// Saves from the first member that gives a whole snapshot. Members are asked in turn, at least for as long as `timeout`: while
/// there is no leader, none gives one.
fn save_from_any(path: &Path, endpoints: &[String], timeout: Duration) -> Result<Saved, String> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(format!("{} is there already: name another file, or remove it", path.display()));
    }
    let (began, least) = (now(), ATTEMPTS_MIN.max(endpoints.len()));
    let mut last = String::new();
    for (attempt, endpoint) in endpoints.iter().cycle().enumerate() {
        if attempt >= least && began.elapsed() >= timeout {
            break;
        }
        if attempt > 0 && attempt % endpoints.len() == 0 {
            // Nobody unparks this thread.
            std::thread::park_timeout(PAUSE);
        }
        match save(path, endpoint, timeout) {
            Ok(saved) => return Ok(saved),
            Err(NotSaved::File { path, source }) => return Err(format!("{}: {source}", path.display())),
            Err(problem) => {
                let problem = format!("{endpoint}: {problem}");
                if problem != last {
                    eprintln!("{problem}");
                }
                last = problem;
            }
        }
    }
    Err(last)
}

fn save(path: &Path, endpoint: &str, timeout: Duration) -> Result<Saved, NotSaved> {
    let began = now();
    let mut progress = Progress::new();
    let waiting = || progress.tell(|| format!("{endpoint} cuts a snapshot"));
    let mut download = SnapshotDownload::begin(endpoint, None, timeout, waiting)?;
    let unfinished = Unfinished::new(path);
    let (opening, verified) = unfinished.fill(&mut download, &mut progress)?;
    unfinished.name(path)?;
    Ok(Saved {
        path: path.display().to_string(),
        cluster_id: format!("{:016x}", opening.cluster.0),
        member_id: format!("{:016x}", download.member().0),
        index: verified.position.index.0,
        term: verified.position.term.0,
        revision: opening.revision.0,
        bytes: verified.bytes_count,
        hash: format!("{:016x}", verified.hash),
        millis: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// A file that is being filled; it goes if nothing comes of it.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It is gone already if it got its name.
        let _ = fs::remove_file(&self.0);
    }
}

impl Unfinished {
    /// Beside `path`, so that it can be renamed.
    fn new(path: &Path) -> Self {
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}.part", std::process::id()));
        Self(path.with_file_name(name))
    }

    fn failed(&self, source: io::Error) -> NotSaved {
        NotSaved::File { path: self.0.clone(), source }
    }

    /// Writes what comes, makes it durable and reads it back: it must be the whole of what the member named.
    fn fill(
        &self,
        download: &mut SnapshotDownload,
        progress: &mut Progress,
    ) -> Result<(Opening, Verified), NotSaved> {
        let made = OpenOptions::new().write(true).create_new(true).open(&self.0);
        let mut file = made.map_err(|error| self.failed(error))?;
        let (mut saved, all) = (0, download.bytes_count);
        while let Some(piece) = download.next_piece()? {
            file.write_all(&piece).map_err(|error| self.failed(error))?;
            saved += piece.len() as u64;
            progress.tell(|| format!("{} of {} MiB", saved >> 20, all.div_ceil(1 << 20)));
        }
        file.sync_all().map_err(|error| self.failed(error))?;
        let (opening, verified) = self.read_back()?;
        let position = verified.position;
        let named = (download.index, download.term, download.bytes_count, download.hash);
        if (position.index, position.term, verified.bytes_count, verified.hash) != named
            || opening.cluster != download.cluster()
        {
            return Err(NotSaved::Other);
        }
        Ok((opening, verified))
    }

    fn read_back(&self) -> Result<(Opening, Verified), NotSaved> {
        let mut file = File::open(&self.0).map_err(|error| self.failed(error))?;
        let (mut reader, mut opening) = (Reader::new(), None);
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count = file.read(&mut piece).map_err(|error| self.failed(error))?;
            if count == 0 {
                break;
            }
            reader.feed(piece.get(..count).unwrap_or_default(), |part| {
                if let Part::Opening(found) = part {
                    opening = Some(*found);
                }
                Ok::<_, Damage>(())
            })?;
        }
        let verified = reader.finish()?;
        opening.map(|opening| (opening, verified)).ok_or(NotSaved::Other)
    }

    /// Gives it its name, durably, if no file has that name.
    fn name(self, path: &Path) -> Result<(), NotSaved> {
        // A link and not a renaming, because that would take the place of a file that came meanwhile.
        let named = fs::hard_link(&self.0, path).and_then(|()| fs::remove_file(&self.0)).and_then(|()| {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
        });
        named.map_err(|source| NotSaved::File { path: path.to_owned(), source })
    }
}

/// What is said on stderr meanwhile, not too often.
struct Progress {
    told: Instant,
}

impl Progress {
    fn new() -> Self {
        Self { told: now() }
    }

    fn tell(&mut self, words: impl FnOnce() -> String) {
        if self.told.elapsed() >= TELL_EVERY {
            self.told = now();
            eprintln!("{}", words());
        }
    }
}

#[allow(clippy::disallowed_methods)] // tells a person how long it takes
fn now() -> Instant {
    Instant::now()
}
