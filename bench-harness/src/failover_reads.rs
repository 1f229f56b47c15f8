//! How soon linearizable reads are answered again after the leader was killed.
//!
//! ```text
//!    survivors    read, read, read, … one in each millisecond, at each          ───────────────► time
//!    leader       leads ──── killed │ 300 ms │ … the first answer … answered by both
//! ```
//!
//! What always holds: reads are sent at instants that were settled before, whatever is answered (open loop). What it leaves out:
//! whether the answers are right; that is `nemesis`.

use crate::nemesis::ReadMode;
use crate::program;
use clap::Args;
use mainstay::api::{ReadMode as Freshness, Request, Response};
use mainstay::cli::cluster::{ClusterError, ClusterOptions, LocalCluster};
use mainstay::cli::workload::client;
use mainstay::client::{Connection, Trouble};
use mainstay::ids::KeyspaceId;
use mainstay::kv::{KeyRange, Query, Range};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a machine that is not broken.
const PATIENCE: Duration = Duration::from_mins(1);

/// Between two reads of one survivor.
const PACE: Duration = Duration::from_millis(1);

/// How long reads go on before the leader is killed, and after.
const BEFORE: Duration = Duration::from_millis(500);
const AFTER: Duration = Duration::from_secs(2);

/// What is looked at.
const WINDOW: Duration = Duration::from_millis(300);

/// The arguments of `bench-harness failover-reads`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// How often the leader is killed
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
    rounds: u32,
    /// Members of the cluster
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..=9))]
    members: u16,
    /// Their election timeout
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(100..=10_000))]
    election_ms: u64,
    /// Whether leaders answer reads alone, under a lease, or ask a quorum
    #[arg(long, value_enum, value_name = "MODE", default_value_t)]
    read_mode: ReadMode,
    /// This binary instead of the one built from this tree
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Machine(#[from] std::io::Error),
    #[error("a write before anything was done: {0}")]
    Unwritten(#[from] mainstay::client::Failure),
    #[error("a survivor: {0}")]
    Survivor(#[from] Trouble),
    #[error("nobody leads after {} s", PATIENCE.as_secs())]
    NoLeader,
    #[error("a reader panicked")]
    Panicked,
}

/// One read: when it was to be sent, and when it was answered with a value.
type Read = (Instant, Option<Instant>);

/// What was seen in one round.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Reads sent in the window after the kill, and those of them answered in it.
    sent: u32,
    answered: u32,
    /// From the kill to the first answer to a read that was sent after it, in milliseconds; none if there was none.
    first_ms: Option<u128>,
}

/// Runs `bench-harness failover-reads`.
pub(crate) fn run(options: &Options) -> ExitCode {
    match rounds(options) {
        Ok(seen) => {
            report(options, &seen);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn rounds(options: &Options) -> Result<Vec<Seen>, Failed> {
    let mut cluster_options =
        ClusterOptions::new(program::find(options.program.as_deref())?, options.members);
    cluster_options.election_ms = options.election_ms;
    cluster_options.arguments.extend(["--read-mode".to_owned(), options.read_mode.name().to_owned()]);
    let mut cluster = LocalCluster::start(cluster_options, PATIENCE)?;
    client(&cluster.endpoints(), PATIENCE).put("key", "value")?;
    let mut all = Vec::new();
    for round in 1..=options.rounds {
        let seen = one_round(&mut cluster)?;
        eprintln!("round {round}: {seen:?}");
        all.push(seen);
    }
    cluster.end(PATIENCE);
    Ok(all)
}

fn one_round(cluster: &mut LocalCluster) -> Result<Seen, Failed> {
    let leader = cluster.leader(PATIENCE).ok_or(Failed::NoLeader)?.0;
    let began = now();
    let readers: Vec<_> = cluster
        .endpoints()
        .into_iter()
        .enumerate()
        .filter(|(position, _)| *position != leader)
        .map(|(_, member)| std::thread::spawn(move || read_on(member, began)))
        .collect();
    // Nobody unparks this thread.
    std::thread::park_timeout(BEFORE);
    cluster.members[leader].kill();
    let killed = now();
    let mut reads = Vec::new();
    for reader in readers {
        reads.extend(reader.join().map_err(|_| Failed::Panicked)??);
    }
    cluster.restart(leader, PATIENCE)?;
    Ok(seen(&reads, killed))
}

/// Sends a read in every millisecond until all is over.
fn read_on(member: SocketAddr, began: Instant) -> Result<Vec<Read>, Trouble> {
    let mut connection = Connection::open(&member.to_string(), None, PATIENCE)?;
    let (mut reads, mut waiting): (Vec<Read>, BTreeMap<u64, usize>) = (Vec::new(), BTreeMap::new());
    let request = Request::Read {
        keyspace: KeyspaceId::FIRST,
        query: Query::Range(Range::new(KeyRange::Key("key".into()))),
        mode: Freshness::Linearizable,
    };
    let mut due = began;
    while due < began + BEFORE + AFTER {
        if now() >= due {
            match connection.send(&request) {
                Ok(id) => {
                    waiting.insert(id, reads.len());
                    reads.push((due, None));
                }
                Err(Trouble::TooManyInFlight(_)) => reads.push((due, None)),
                Err(trouble) => return Err(trouble),
            }
            due += PACE;
            continue;
        }
        match connection.receive_within(due.saturating_duration_since(now())) {
            Ok((id, response)) => {
                let is_answer = matches!(response, Response::Applied(_));
                if let Some(at) = waiting.remove(&id).filter(|_| is_answer) {
                    reads[at].1 = Some(now());
                }
            }
            Err(Trouble::TimedOut) => {}
            Err(trouble) => return Err(trouble),
        }
    }
    Ok(reads)
}

fn seen(reads: &[Read], killed: Instant) -> Seen {
    let end = killed + WINDOW;
    let count = |it: usize| u32::try_from(it).unwrap_or(u32::MAX);
    let later: Vec<&Read> = reads.iter().filter(|(sent, _)| *sent >= killed).collect();
    let in_window: Vec<&&Read> = later.iter().filter(|(sent, _)| *sent < end).collect();
    let answered = in_window.iter().filter(|(_, answered)| answered.is_some_and(|at| at < end)).count();
    let first = later.iter().filter_map(|(_, answered)| *answered).min();
    Seen {
        sent: count(in_window.len()),
        answered: count(answered),
        first_ms: first.map(|at| (at - killed).as_millis()),
    }
}

fn report(options: &Options, seen: &[Seen]) {
    let sent: u32 = seen.iter().map(|it| it.sent).sum();
    let answered: u32 = seen.iter().map(|it| it.answered).sum();
    let share = f64::from(answered) / f64::from(sent.max(1));
    let mut first: Vec<u128> = seen.iter().filter_map(|it| it.first_ms).collect();
    first.sort_unstable();
    let (p50, max) = (first.get(first.len() / 2), first.last());
    if options.json {
        let summary = serde_json::json!({
            "rounds": seen.len(), "members": options.members, "election_ms": options.election_ms,
            "read_mode": options.read_mode.name(), "window_ms": WINDOW.as_millis(), "reads_sent": sent,
            "reads_answered": answered, "share": share, "first_answer_p50_ms": p50, "first_answer_max_ms": max,
        });
        println!("{summary}");
    } else {
        println!(
            "{} kills, {} mode: {:.1} % of the reads of the first {} ms were answered in them",
            seen.len(),
            options.read_mode.name(),
            share * 100.0,
            WINDOW.as_millis()
        );
        if let (Some(p50), Some(max)) = (p50, max) {
            println!("from the kill to the first answer: {p50} ms in the median, {max} ms at the worst");
        }
    }
}

#[allow(clippy::disallowed_methods)] // what is measured is real time
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::{Seen, seen};
    use std::time::Duration;

    #[test]
    fn only_what_is_sent_and_answered_in_the_window_counts() {
        let began = super::now();
        let killed = began + Duration::from_millis(1);
        let at = |ms| killed + Duration::from_millis(ms);
        let reads = [
            (began, Some(at(5))),
            (at(10), Some(at(250))),
            (at(20), Some(at(301))),
            (at(30), None),
            (at(301), Some(at(302))),
        ];
        let Seen { sent, answered, first_ms } = seen(&reads, killed);
        assert_eq!((sent, answered, first_ms), (3, 1, Some(250)));
    }
}
