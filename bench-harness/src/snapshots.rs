//! What a large keyspace costs: memory, restarts, snapshots while clients write, and a follower that needs one.
//!
//! ```text
//!   fill ─> memory ─> writes alone ─> writes while the leader cuts ─> a member restarts
//!        ─> history is compacted ─> a follower is away until the log is trimmed beyond it ─> writes while it comes back
//!           (twice: its process stands still, and goes on; it is down, and has to start first)
//! ```
//!
//! What always holds: latencies are of one cluster in one run, so their ratios mean something; snapshots are cut when this asks
//! for one, and otherwise hardly; what a follower is sent is about the keys that were asked for. What it leaves out: judging what
//! clients see.

use crate::load::options::LoadArgs;
use crate::load::report::Measured;
use crate::load::tally::Second;
use crate::load::{self, LoadError};
use crate::target::System;
use crate::{machine, program};
use bytes::Bytes;
use clap::{Args, Parser};
use mainstay::api::ReadMode;
use mainstay::cli::cluster::{ClusterError, ClusterOptions, LocalCluster, LocalMember};
use mainstay::cli::workload::client;
use mainstay::client::{Failure, NoSnapshot, SnapshotDownload};
use mainstay::kv::{Command, Compact, KeyRange, Outcome, Query, Range};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a machine that is not broken.
const PATIENCE: Duration = Duration::from_mins(5);

/// Before anything of a load is counted.
const WARM_UP_SECONDS: u64 = 2;

/// Entries written in a second while a follower is away. In two of them it is more than a log is kept for one
/// (`HOT_LOG_ENTRIES_MIN`), and it is few beside the keys, each of which would be in the snapshot once more.
const MISSED_ENTRIES_PER_SECOND: &str = "10000";

const EXAMPLES: &str = "\
Examples:
  bench-harness snapshots                                 a million keys of 1 KiB, 20,000 writes a second
  bench-harness snapshots --value-bytes 256 --json        of 256 B; one line of JSON
  bench-harness snapshots --keys 50000 --seconds 3        a quick look

Exit code 1 when something did not come about.";

/// The arguments of `bench-harness snapshots`.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Options {
    /// Keys in the store
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    keys: u64,
    /// Bytes of each value
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    value_bytes: u32,
    /// Writes a second while something is measured
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// Seconds of each load
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Where the members' data goes [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// This binary of mainstay instead of the one built from this tree
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Machine(#[from] std::io::Error),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("the cluster does not answer: {0}")]
    Silent(#[from] Failure),
    #[error("no snapshot: {0}")]
    Snapshot(#[from] NoSnapshot),
    #[error("{0}")]
    NotThere(&'static str),
}

/// Runs `bench-harness snapshots`.
pub(crate) fn run(options: &Options) -> ExitCode {
    match measure(options) {
        Ok(report) if options.json => println!("{report}"),
        Ok(report) => println!("{report:#}"),
        Err(error) => {
            eprintln!("bench-harness snapshots: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Why a follower hears nothing.
#[derive(Clone, Copy)]
enum Away {
    /// Its process stands still, and keeps its state.
    StandsStill,
    /// There is no process: to come back it has to start, from what is on its disk.
    Down,
}

/// How a follower came back, while clients wrote.
struct CameBack {
    measured: Measured,
    /// Seconds until it answered.
    answers_in: f64,
    /// Seconds until it had everything that was there when it began.
    back_in: f64,
    /// Of the seconds of the load until it answered, and of those from then on until it was back; 0 of no second.
    p99_while_it_starts_ms: f64,
    p99_from_then_on_ms: f64,
}

/// A cluster, and how it is put under load.
struct Rig<'a> {
    options: &'a Options,
    cluster: LocalCluster,
    is_interrupted: Arc<AtomicBool>,
}

fn measure(options: &Options) -> Result<Value, Failed> {
    let mut cluster_options = ClusterOptions::new(program::find(options.program.as_deref())?, 3);
    cluster_options.directory =
        options.data.as_ref().map(|place| place.join(format!("bench-snapshots-{}", std::process::id())));
    let removed = cluster_options.directory.clone().map(crate::target::Removed);
    // Cut when this asks for it, so that what is measured is what is said to be measured.
    cluster_options.arguments = vec!["--snapshot-entries".to_owned(), "100000000".to_owned()];
    let disk = cluster_options.directory.clone().unwrap_or_else(std::env::temp_dir);
    std::fs::create_dir_all(&disk)?;
    let is_interrupted = load::watch_for_interrupts()?;
    let mut rig = Rig { options, cluster: LocalCluster::start(cluster_options, PATIENCE)?, is_interrupted };
    eprintln!("snapshots: writing {} keys of {} B", options.keys, options.value_bytes);
    let filling = now();
    rig.load(&["--op", "get", "--seconds", "1", "--warmup", "0", "--depth", "16"])?;
    let fill_seconds = filling.elapsed().as_secs_f64();
    rig.check_that_all_keys_are_there()?;
    let memory = rig.memory();
    let (bytes, first_cut) = rig.cut_everywhere()?;
    eprintln!("snapshots: a snapshot of {} MiB in {first_cut:.1} s; writes alone", bytes >> 20);
    let before = rig.writes()?;
    let (cutting, during) = rig.writes_while_cutting()?;
    let restart = rig.restart()?;
    let stood_still = rig.writes_while_a_follower_comes_back(Away::StandsStill)?;
    let was_down = rig.writes_while_a_follower_comes_back(Away::Down)?;
    let report = json!({
        "keys": options.keys,
        "value_bytes": options.value_bytes,
        "rate": options.rate,
        "fill_s": fill_seconds,
        "members": memory,
        "snapshot_bytes": bytes,
        "cut_alone_s": first_cut,
        "alone": latencies(&before, &before),
        "while_cutting": latencies(&cutting, &before),
        "cuts_s": during,
        "restart_s": restart,
        "while_a_follower_comes_back": latencies(&stood_still.measured, &before),
        "follower_back_s": stood_still.back_in,
        "while_a_follower_starts_and_comes_back": latencies(&was_down.measured, &before),
        "follower_started_and_back_s": was_down.back_in,
        "of_that_its_start_s": was_down.answers_in,
        "while_it_starts_p99_ms": was_down.p99_while_it_starts_ms,
        "while_it_is_sent_a_snapshot_p99_ms": was_down.p99_from_then_on_ms,
        "machine": machine::describe(&disk),
        "commit": machine::commit(),
    });
    drop(rig);
    drop(removed);
    Ok(report)
}

fn latencies(measured: &Measured, before: &Measured) -> Value {
    let p99 = measured.latency_ms(0.99);
    json!({
        "ops_per_s": measured.ops_per_s(),
        "errors": measured.tally.errors_count(),
        "p50_ms": measured.latency_ms(0.5),
        "p99_ms": p99,
        "max_ms": measured.latency_ms(1.0),
        "p99_of_alone": p99 / before.latency_ms(0.99).max(0.001),
        "raw_dsync_p99_us": measured.raw_dsync.as_ref().map(|raw| raw.value_at_quantile(0.99) / 1_000),
    })
}

/// A line of arguments of a load.
#[derive(Parser)]
struct Line {
    #[command(flatten)]
    load: LoadArgs,
}

impl Rig<'_> {
    /// The native addresses of all members, the leader's first.
    fn endpoints(&self) -> Result<Vec<String>, Failed> {
        let mut endpoints: Vec<String> = self.cluster.endpoints().iter().map(ToString::to_string).collect();
        endpoints.rotate_left(self.leader()?);
        Ok(endpoints)
    }

    fn leader(&self) -> Result<usize, Failed> {
        let leader = self.cluster.leader(PATIENCE).map(|(position, _)| position);
        leader.ok_or(Failed::NotThere("nobody leads"))
    }

    /// Puts the cluster under load.
    fn load(&self, arguments: &[&str]) -> Result<Measured, Failed> {
        self.loader(arguments)?().map_err(Failed::from)
    }

    /// What does so, also on another thread.
    fn loader(
        &self,
        arguments: &[&str],
    ) -> Result<impl FnOnce() -> Result<Measured, LoadError> + Send + use<>, Failed> {
        let (keys, bytes) = (self.options.keys.to_string(), self.options.value_bytes.to_string());
        let line = [&["load", "--keys", &keys, "--value-bytes", &bytes], arguments].concat();
        let args = Line::parse_from(line).load;
        let (endpoints, is_interrupted) = (self.endpoints()?, Arc::clone(&self.is_interrupted));
        Ok(move || load::measure(&args, System::Mainstay, &endpoints, &is_interrupted))
    }

    /// Writes at the rate, on a thread of their own.
    fn writer(&self) -> Result<impl FnOnce() -> Result<Measured, LoadError> + Send + use<>, Failed> {
        let [rate, seconds, warm_up] =
            [self.options.rate, self.options.seconds, WARM_UP_SECONDS].map(|number| number.to_string());
        let flags = ["--op", "put", "--connections", "64", "--depth", "16", "--rate", &rate];
        self.loader(&[flags.as_slice(), &["--seconds", &seconds, "--warmup", &warm_up]].concat())
    }

    fn writes(&self) -> Result<Measured, Failed> {
        Ok(self.writer()?()?)
    }

    /// A change of leader while they were written leaves some out, and then nothing that is measured is what it is said to be.
    fn check_that_all_keys_are_there(&self) -> Result<(), Failed> {
        let all = Range { count_only: true, ..Range::new(KeyRange::From(Bytes::new())) };
        let mut client = client(&self.cluster.endpoints(), PATIENCE);
        let answer = client.read(Query::Range(all), ReadMode::Linearizable)?;
        match answer.outcome {
            Outcome::Range(found) if found.count == self.options.keys => Ok(()),
            _ => Err(Failed::NotThere("some keys could not be written, because the leader changed, perhaps")),
        }
    }

    /// Memory of each member, and what it says that its keys take.
    fn memory(&self) -> Vec<Value> {
        let members = self.cluster.members.iter();
        members
            .map(|member| {
                let resident = member.pid().and_then(resident_bytes);
                json!({
                    "name": member.name,
                    "rss_bytes": resident,
                    "keyspace_bytes": counter(member, "keyspace_bytes"),
                    "log_bytes": counter(member, "log_bytes"),
                })
            })
            .collect()
    }

    /// Has every member cut a snapshot, so that none is at one when the next thing is measured: what the slowest says.
    fn cut_everywhere(&self) -> Result<(u64, f64), Failed> {
        let addresses = self.endpoints()?;
        thread::scope(|scope| {
            let cuts: Vec<_> = addresses.iter().map(|address| scope.spawn(|| cut(address))).collect();
            let mut slowest = (0, 0.0);
            for a_cut in cuts {
                let (bytes, took) = a_cut.join().expect("a cut does not panic")?;
                slowest = if took > slowest.1 { (bytes, took) } else { slowest };
            }
            Ok(slowest)
        })
    }

    /// Writes, and snapshots that the leader cuts all the while.
    fn writes_while_cutting(&self) -> Result<(Measured, Vec<f64>), Failed> {
        let address = self.endpoints()?.swap_remove(0);
        let write = self.writer()?;
        let until = now() + Duration::from_secs(WARM_UP_SECONDS + self.options.seconds);
        eprintln!("snapshots: writes while the leader cuts");
        thread::scope(|scope| {
            let writes = scope.spawn(write);
            let mut took = Vec::new();
            while now() < until {
                took.push(cut(&address)?.1);
            }
            let measured = writes.join().expect("a load does not panic")?;
            Ok((measured, took))
        })
    }

    /// Ends a follower in good order and starts it: how long that takes until it serves, in seconds.
    fn restart(&mut self) -> Result<f64, Failed> {
        let follower = (self.leader()? + 1) % self.cluster.members.len();
        eprintln!("snapshots: a member restarts");
        self.cluster.members[follower].signal(Signal::TERM);
        self.cluster.members[follower].wait_end(PATIENCE).ok_or(Failed::NotThere("a member does not end"))?;
        let began = now();
        self.cluster.restart(follower, PATIENCE)?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// The end of a member's log, which it may be too busy to tell at once.
    fn last_index_of(&self, position: usize) -> Result<u64, Failed> {
        let until = now() + PATIENCE;
        loop {
            match last_index(&self.cluster.members[position]) {
                Some(index) => return Ok(index),
                None if now() > until => return Err(Failed::NotThere("a member is silent")),
                None => thread::park_timeout(Duration::from_millis(100)),
            }
        }
    }

    /// A follower is away until what it needs is trimmed; then it comes back, while clients write.
    fn writes_while_a_follower_comes_back(&mut self, away: Away) -> Result<CameBack, Failed> {
        let leader = self.leader()?;
        let follower = (leader + 1) % self.cluster.members.len();
        self.compact()?;
        let had = self.last_index_of(follower)?;
        match away {
            Away::StandsStill => self.cluster.members[follower].signal(Signal::STOP),
            Away::Down => self.cluster.members[follower].kill(),
        }
        eprintln!("snapshots: a follower is away");
        self.write_until_trimmed(follower, had)?;
        eprintln!("snapshots: it comes back, while clients write");
        let (write, leader) = (self.writer()?, self.leader()?);
        let Self { cluster, .. } = self;
        thread::scope(|scope| {
            let writes = scope.spawn(write);
            thread::park_timeout(Duration::from_secs(WARM_UP_SECONDS));
            let target =
                last_index(&cluster.members[leader]).ok_or(Failed::NotThere("the leader is silent"))?;
            let began = now();
            match away {
                Away::StandsStill => cluster.members[follower].signal(Signal::CONT),
                Away::Down => cluster.launch(follower)?,
            }
            let mut answered = None;
            loop {
                let applied = applied_index(&cluster.members[follower]);
                if applied.is_some() {
                    answered.get_or_insert_with(now);
                }
                if applied.is_some_and(|applied| applied >= target) {
                    break;
                }
                if began.elapsed() > PATIENCE {
                    return Err(Failed::NotThere("the follower is not back"));
                }
                thread::park_timeout(Duration::from_millis(20));
            }
            let (back, answered) = (now(), answered.unwrap_or(began));
            let measured = writes.join().expect("a load does not panic")?;
            let p99_in = |is_meant: &dyn Fn(&Second) -> bool| measured.tally.latency_ms_in(is_meant, 0.99);
            Ok(CameBack {
                answers_in: (answered - began).as_secs_f64(),
                back_in: (back - began).as_secs_f64(),
                // The second in which it answers is part of its start.
                p99_while_it_starts_ms: p99_in(&|second| second.ended > began && second.began <= answered),
                p99_from_then_on_ms: p99_in(&|second| second.began > answered && second.began < back),
                measured,
            })
        })
    }

    /// Writes for so many seconds, not fast.
    fn write_some(&self, seconds: &str) -> Result<(), Failed> {
        let flags = ["--op", "put", "--connections", "16", "--depth", "64", "--warmup", "0"];
        let rate = ["--rate", MISSED_ENTRIES_PER_SECOND, "--seconds", seconds];
        self.load(&[flags.as_slice(), &rate].concat()).map(drop)
    }

    /// Compacts the history that earlier writes left, and waits until no member has any of it.
    fn compact(&self) -> Result<(), Failed> {
        eprintln!("snapshots: history is compacted");
        let status = self.cluster.members[self.leader()?].status();
        let revision = status.ok_or(Failed::NotThere("the leader is silent"))?.revision;
        let compaction = Command::Compact(Compact { revision });
        client(&self.cluster.endpoints(), PATIENCE).write(&compaction)?;
        let taken = || self.cluster.members.iter().map(|member| counter(member, "keyspace_bytes"));
        let mut before: Vec<Option<u64>> = Vec::new();
        let until = now() + PATIENCE;
        while before.is_empty() || before.contains(&None) || !taken().eq(before.iter().copied()) {
            if now() > until {
                return Err(Failed::NotThere("a compaction does not end"));
            }
            before = taken().collect();
            thread::park_timeout(Duration::from_secs(1));
        }
        Ok(())
    }

    /// Writes until both others have no log any more of what comes after `had`, the last entry that `follower` has.
    fn write_until_trimmed(&self, follower: usize, had: u64) -> Result<(), Failed> {
        self.write_some("2")?;
        // Logs are trimmed up to the second-newest snapshot: of both others, because either may lead when it comes back.
        let others: Vec<usize> = (0..self.cluster.members.len()).filter(|other| *other != follower).collect();
        for _ in 0..2 {
            self.write_some("1")?;
            for other in &others {
                cut(&self.cluster.members[*other].native.to_string())?;
            }
        }
        let until = now() + PATIENCE;
        let is_kept = |other: &usize| {
            counter(&self.cluster.members[*other], "log_base_index").is_none_or(|base| base <= had)
        };
        while others.iter().any(is_kept) {
            if now() > until {
                return Err(Failed::NotThere("a log is not trimmed beyond what the follower has"));
            }
            self.write_some("1")?;
        }
        Ok(())
    }
}

/// Has the member at `address` cut a snapshot: its bytes, and how long it took.
fn cut(address: &str) -> Result<(u64, f64), Failed> {
    let began = now();
    let download = SnapshotDownload::begin(address, None, PATIENCE, || ())?;
    Ok((download.bytes_count, began.elapsed().as_secs_f64()))
}

fn last_index(member: &LocalMember) -> Option<u64> {
    member.status().map(|status| status.last_index.0)
}

fn applied_index(member: &LocalMember) -> Option<u64> {
    member.status().map(|status| status.applied_index.0)
}

fn counter(member: &LocalMember, name: &str) -> Option<u64> {
    let counters = member.status()?.counters;
    counters.iter().find(|counter| counter.name == name).map(|counter| counter.value)
}

/// Memory of a process that is not swapped out.
fn resident_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1_024)
}

#[allow(clippy::disallowed_methods)] // measures how long real members take
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::resident_bytes;

    #[test]
    fn the_memory_of_this_process_is_found() {
        assert!(resident_bytes(std::process::id()).is_some_and(|bytes| bytes > 100_000));
        assert_eq!(resident_bytes(u32::MAX), None);
    }
}
