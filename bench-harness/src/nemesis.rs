//! Rounds of faults against a cluster of real processes under load, and the judgement of everything its clients saw.
//!
//! Each round starts clients, does one thing to the members, and waits until writes are acknowledged again. At the end
//! every member is read whole, all must be equal, and two judges look for anything impossible in what anybody was told
//! (`nemesis/judgement.rs`). What always holds: the faults follow from the seed, which is printed; a kill is SIGKILL and a
//! restart uses the same command line. What it leaves out: lost syncs (the kernel keeps what a killed process gave it;
//! `mainstay sim` looks there).

mod clients;
mod judgement;
mod links;
mod recorder;
mod steadfast;
mod witness;

use self::clients::{Clients, Written};
use self::judgement::Judgement;
use self::links::Links;
use self::recorder::Recorder;
use crate::{program, raw_dsync};
use clap::{Args, ValueEnum};
use mainstay::check::{Operation, picture, to_lines};
use mainstay::cli::cluster::{ClusterError, ClusterOptions, LocalCluster};
use mainstay::ids::Revision;
use rustix::process::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a machine that is not broken.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long one look at the writes takes at the most, so that Ctrl-C is heard.
const GLANCE: Duration = Duration::from_millis(100);

/// Members and clients at a time, at the most.
const MEMBERS_MAX: u32 = 9;
const CLIENTS_MAX: u32 = 64;

/// Writes acknowledged before and after each fault.
const WRITES: usize = 100;

/// How long a leader stands still at the least when it is paused: longer than two election timeouts.
const PAUSE_SECONDS_MIN: u16 = 2;

/// The arguments of `bench-harness nemesis`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// How many faults, one after the other; a thousand need a few gigabytes for what was seen
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    rounds: u32,
    /// Members of the cluster
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..=i64::from(MEMBERS_MAX)))]
    members: u16,
    /// Which faults, in which order [default: drawn, and printed]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// One fault only, in every round
    #[arg(long, value_enum, value_name = "FAULT")]
    only: Option<Fault>,
    /// Clients at a time, which write and read
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=i64::from(CLIENTS_MAX)))]
    clients: u16,
    /// Their election timeout
    #[arg(long, default_value_t = 700, value_parser = clap::value_parser!(u64).range(100..=10_000))]
    election_ms: u64,
    /// This binary instead of the one built from this tree
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Whether leaders answer reads alone, under a lease, or ask a quorum
    #[arg(long, value_enum, value_name = "MODE", default_value_t)]
    read_mode: ReadMode,
    /// How long a paused leader stands still at the most, in seconds; drawn for each pause, and 2 at the least
    #[arg(long, value_name = "SECONDS", default_value_t = PAUSE_SECONDS_MIN,
        value_parser = clap::value_parser!(u16).range(i64::from(PAUSE_SECONDS_MIN)..=30))]
    pause_seconds_max: u16,
    /// Write down what the clients did and were told, as JSON lines; what is wrong is drawn beside it
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Plant this bug in every member, to see it found (needs a build with `--features mainstay/planted`)
    #[arg(long, value_name = "BUG")]
    planted: Option<u32>,
    /// Where the members' data goes [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// How members confirm linearizable reads, as `mainstay start --read-mode` has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReadMode {
    /// The leader answers alone while its lease lasts
    #[default]
    Lease,
    /// A quorum is asked
    Quorum,
}

impl ReadMode {
    /// As the command line has it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Quorum => "quorum",
        }
    }
}

/// What is done to the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Fault {
    /// The leader is killed and started again
    KillLeader,
    /// A follower is
    KillFollower,
    /// So many are that no quorum is left
    KillMajority,
    /// All are
    KillAll,
    /// A follower is killed, and again in the middle of three starts
    KillWhileStarting,
    /// The leader stands still for longer than two election timeouts, and goes on
    PauseLeader,
    /// The leader is cut off, stands still as in pause-leader, goes on, and stays cut off for an election timeout more:
    /// nobody can tell it that it was replaced
    PauseLeaderCutOff,
    /// The leader is cut off from the others, and not from clients, for three election timeouts
    CutOffLeader,
    /// The leader is told to end, and started again
    EndLeader,
}

const FAULTS: [Fault; 9] = [
    Fault::KillLeader,
    Fault::KillFollower,
    Fault::KillMajority,
    Fault::KillAll,
    Fault::KillWhileStarting,
    Fault::PauseLeader,
    Fault::PauseLeaderCutOff,
    Fault::CutOffLeader,
    Fault::EndLeader,
];

impl Fault {
    const fn name(self) -> &'static str {
        match self {
            Self::KillLeader => "kill-leader",
            Self::KillFollower => "kill-follower",
            Self::KillMajority => "kill-majority",
            Self::KillAll => "kill-all",
            Self::KillWhileStarting => "kill-while-starting",
            Self::PauseLeader => "pause-leader",
            Self::PauseLeaderCutOff => "pause-leader-cut-off",
            Self::CutOffLeader => "cut-off-leader",
            Self::EndLeader => "end-leader",
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum NemesisError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Machine(#[from] std::io::Error),
    #[error("the past cannot be read: {0}")]
    Unread(#[from] mainstay::client::Failure),
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("this build has no bugs to plant; build it with --features mainstay/planted")]
    NothingPlanted,
    #[error("member {name} cannot be read: {why}")]
    MemberUnread { name: String, why: String },
    #[error("members {} and {} hold different pairs at revision {revision}", names[0], names[1])]
    Unequal { names: [String; 2], revision: Revision },
    #[error("the members came to no common revision in {} s, but to {revisions:?}", PATIENCE.as_secs())]
    Apart { revisions: Vec<Option<Revision>> },
    #[error("nobody leads after {} s", PATIENCE.as_secs())]
    NoLeader,
    #[error("no write was acknowledged for {seconds} s; the last failure: {last}", seconds = PATIENCE.as_secs())]
    Stuck { last: String },
    #[error("{name} did not end in {seconds} s after SIGTERM", seconds = PATIENCE.as_secs())]
    NoEnd { name: String },
    #[error("interrupted")]
    Interrupted,
}

/// What all rounds came to.
#[derive(Debug, Default)]
struct Tally {
    judgement: Judgement,
    /// Whether all members were read in the end, and were equal.
    are_equal: bool,
    gaps_ms: Vec<u64>,
    /// For each round, the longest time from the fault on in which no write was acknowledged.
    silences_ms: Vec<u64>,
    faults: BTreeMap<Fault, u32>,
}

/// Runs the rounds.
pub(crate) fn run(options: &Options) -> ExitCode {
    let seed = options
        .seed
        .unwrap_or_else(|| u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32);
    eprintln!("nemesis: {} rounds, --seed {seed}", options.rounds);
    let mut tally = Tally::default();
    let result = rounds_and_judgement(options, seed, &mut tally);
    report(options, seed, &mut tally, result.as_ref().err());
    match result {
        Ok(()) if tally.judgement.is_possible() => ExitCode::SUCCESS,
        Ok(()) | Err(_) => ExitCode::FAILURE,
    }
}

fn rounds_and_judgement(options: &Options, seed: u64, tally: &mut Tally) -> Result<(), NemesisError> {
    let recorder = Recorder::new(options.history.as_deref()).map_err(|error| {
        let path = options.history.clone().unwrap_or_default();
        NemesisError::File { path, error }
    })?;
    let recorder = Arc::new(recorder);
    let result = rounds(options, seed, tally, &recorder);
    let history = recorder.history();
    if result.is_err() {
        // What was seen until then may say why, or be wrong as well.
        tally.judgement = Judgement::by_search(&history);
    }
    if result.is_err() || !tally.judgement.is_possible() {
        keep(options, seed, &tally.judgement, &history)?;
    }
    if let (Some(path), Some(error)) = (&options.history, recorder.broken()) {
        return Err(NemesisError::File { path: path.clone(), error });
    }
    result
}

fn rounds(
    options: &Options,
    seed: u64,
    tally: &mut Tally,
    recorder: &Arc<Recorder>,
) -> Result<(), NemesisError> {
    let is_interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&is_interrupted))?;
    }
    let mut cluster = LocalCluster::prepare(cluster_options(options)?)?;
    eprintln!(
        "noise floor of {}: {}",
        cluster.directory().display(),
        raw_dsync::noise_floor(cluster.directory())?
    );
    let peers: Vec<SocketAddr> = cluster.members.iter().map(|member| member.peer).collect();
    let links = Links::open(&peers)?;
    for (from, to, address) in links.routes() {
        cluster.route(from, to, address);
    }
    for position in 0..cluster.members.len() {
        cluster.launch(position)?;
    }
    for position in 0..cluster.members.len() {
        cluster.wait_ready(position, PATIENCE)?;
    }
    // Every run writes, so no two runs on one directory begin at the same revision.
    let first_revision = leader(&cluster)?.1;
    let mut nemesis = Nemesis {
        cluster,
        links,
        election: Duration::from_millis(options.election_ms),
        clients_count: options.clients,
        pause_seconds_max: options.pause_seconds_max,
        recorder: Arc::clone(recorder),
        state: seed,
        is_interrupted,
    };
    for round in 1..=options.rounds {
        let fault = options.only.unwrap_or(FAULTS[nemesis.below(FAULTS.len())]);
        let (gap, silence) = nemesis.round(fault, round, &format!("nemesis/{first_revision}/{round:06}"))?;
        let [gap_ms, silence_ms] = [gap, silence].map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
        eprintln!(
            "round {round}: {}, over after {gap_ms} ms, {silence_ms} ms of them without a write",
            fault.name()
        );
        tally.gaps_ms.push(gap_ms);
        tally.silences_ms.push(silence_ms);
        *tally.faults.entry(fault).or_default() += 1;
    }
    tally.judgement = judgement::pass(&nemesis.cluster, &nemesis.recorder, first_revision == 1)?;
    tally.are_equal = true;
    nemesis.cluster.end(PATIENCE);
    Ok(())
}

fn cluster_options(options: &Options) -> Result<ClusterOptions, NemesisError> {
    let mut cluster = ClusterOptions::new(program::find(options.program.as_deref())?, options.members);
    cluster.election_ms = options.election_ms;
    cluster.heartbeat_ms = options.election_ms / 10;
    cluster.directory.clone_from(&options.data);
    cluster.arguments.extend(["--read-mode".to_owned(), options.read_mode.name().to_owned()]);
    if let Some(bug) = options.planted {
        if !mainstay::planted::IS_COMPILED {
            return Err(NemesisError::NothingPlanted);
        }
        cluster.variables.push(("MAINSTAY_PLANTED".to_owned(), bug.to_string()));
    }
    Ok(cluster)
}

/// Keeps a history that shows something wrong, and draws what is impossible in it.
fn keep(
    options: &Options,
    seed: u64,
    judgement: &Judgement,
    history: &[Operation],
) -> Result<(), NemesisError> {
    let lines = options.history.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("mainstay-nemesis-{}.jsonl", std::process::id()))
    });
    let write = |path: &Path, text: String| {
        eprintln!("see {}", path.display());
        std::fs::write(path, text).map_err(|error| NemesisError::File { path: path.to_owned(), error })
    };
    if options.history.is_none() {
        write(&lines, to_lines(history))?;
    }
    if let Some(violation) = &judgement.violation {
        eprintln!("{violation}");
        let title = format!("nemesis --seed {seed}: an impossible history");
        write(&lines.with_extension("html"), picture(&title, violation))?;
    }
    Ok(())
}

/// The position of the member that leads, and the revision it is at.
fn leader(cluster: &LocalCluster) -> Result<(usize, u64), NemesisError> {
    let (position, status) = cluster.leader(PATIENCE).ok_or(NemesisError::NoLeader)?;
    Ok((position, status.revision.0))
}

/// How long nothing was acknowledged.
struct Silence {
    /// The last acknowledgement.
    since: Instant,
    longest: Duration,
}

impl Silence {
    fn hear(&mut self, write: &Written) {
        if write.failure.is_none() && write.ended > self.since {
            self.longest = self.longest.max(write.ended - self.since);
            self.since = write.ended;
        }
    }
}

struct Nemesis {
    cluster: LocalCluster,
    links: Links,
    election: Duration,
    clients_count: u16,
    pause_seconds_max: u16,
    recorder: Arc<Recorder>,
    /// Of the chooser of faults.
    state: u64,
    is_interrupted: Arc<AtomicBool>,
}

impl Nemesis {
    /// A number below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        self.state = self.state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        usize::try_from(self.state >> 33).unwrap_or(0) % bound
    }

    /// Load, one fault, and how long it took until everybody was back and `WRITES` more writes were acknowledged; and
    /// the longest time in it without an acknowledged write.
    fn round(
        &mut self,
        fault: Fault,
        round: u32,
        prefix: &str,
    ) -> Result<(Duration, Duration), NemesisError> {
        // The first numbers are those of the members, which are read in the end.
        let numbers = (round * (MEMBERS_MAX + CLIENTS_MAX), self.clients_count);
        let (clients, written) = Clients::start(&self.cluster.endpoints(), numbers, prefix, &self.recorder);
        let result = self.strike_under_load(fault, &written);
        clients.stop();
        result
    }

    fn strike_under_load(
        &mut self,
        fault: Fault,
        written: &Receiver<Written>,
    ) -> Result<(Duration, Duration), NemesisError> {
        self.wait_for(written, WRITES)?;
        let mut silence = Silence { since: now(), longest: Duration::ZERO };
        let began = silence.since;
        self.strike(fault)?;
        // What was acknowledged meanwhile waits in the channel, with its instants.
        while let Ok(write) = written.try_recv() {
            silence.hear(&write);
        }
        self.wait_for_and_hear(written, WRITES, &mut silence)?;
        Ok((began.elapsed(), silence.longest))
    }

    fn strike(&mut self, fault: Fault) -> Result<(), NemesisError> {
        let count = self.cluster.members.len();
        let leader = leader(&self.cluster)?.0;
        let follower = (leader + 1 + self.below(count - 1)) % count;
        match fault {
            Fault::KillLeader => self.kill_and_restart(&[leader]),
            Fault::KillFollower => self.kill_and_restart(&[follower]),
            Fault::KillMajority => {
                let majority: Vec<usize> = (0..=count / 2).map(|step| (leader + step) % count).collect();
                self.kill_and_restart(&majority)
            }
            Fault::KillAll => self.kill_and_restart(&(0..count).collect::<Vec<_>>()),
            Fault::KillWhileStarting => {
                self.cluster.members[follower].kill();
                for _ in 0..3 {
                    self.cluster.launch(follower)?;
                    // Nobody unparks this thread: the member gets some way into its start.
                    let micros = self.below(60_000) as u64;
                    std::thread::park_timeout(Duration::from_micros(micros));
                    self.cluster.members[follower].kill();
                }
                Ok(self.cluster.restart(follower, PATIENCE)?)
            }
            Fault::PauseLeader => {
                self.pause(leader);
                Ok(())
            }
            Fault::PauseLeaderCutOff => {
                self.links.cut_off(leader);
                self.pause(leader);
                std::thread::park_timeout(self.election);
                self.links.mend();
                Ok(())
            }
            Fault::CutOffLeader => {
                self.links.cut_off(leader);
                std::thread::park_timeout(3 * self.election);
                self.links.mend();
                Ok(())
            }
            Fault::EndLeader => {
                self.cluster.members[leader].signal(Signal::TERM);
                if self.cluster.members[leader].wait_end(PATIENCE).is_none() {
                    return Err(NemesisError::NoEnd { name: self.cluster.members[leader].name.clone() });
                }
                Ok(self.cluster.restart(leader, PATIENCE)?)
            }
        }
    }

    /// A member stands still for a while. Nobody unparks this thread meanwhile.
    fn pause(&mut self, member: usize) {
        self.cluster.members[member].signal(Signal::STOP);
        let longer_ms = usize::from(self.pause_seconds_max - PAUSE_SECONDS_MIN) * 1_000;
        let more_ms = if longer_ms > 0 { self.below(longer_ms) } else { 0 };
        let pause = Duration::from_secs(PAUSE_SECONDS_MIN.into()) + Duration::from_millis(more_ms as u64);
        std::thread::park_timeout(pause);
        self.cluster.members[member].signal(Signal::CONT);
    }

    fn kill_and_restart(&mut self, positions: &[usize]) -> Result<(), NemesisError> {
        for &position in positions {
            self.cluster.members[position].kill();
        }
        for &position in positions {
            self.cluster.launch(position)?;
        }
        for &position in positions {
            self.cluster.wait_ready(position, PATIENCE)?;
        }
        Ok(())
    }

    /// Waits until `count` writes that were begun from now on are acknowledged.
    fn wait_for(&self, written: &Receiver<Written>, count: usize) -> Result<(), NemesisError> {
        self.wait_for_and_hear(written, count, &mut Silence { since: now(), longest: Duration::ZERO })
    }

    /// The same, and notes how long nothing was acknowledged.
    fn wait_for_and_hear(
        &self,
        written: &Receiver<Written>,
        count: usize,
        silence: &mut Silence,
    ) -> Result<(), NemesisError> {
        let began = now();
        let mut acked_count = 0;
        let mut last = "none".to_owned();
        while began.elapsed() < PATIENCE {
            if self.is_interrupted.load(Ordering::Relaxed) {
                return Err(NemesisError::Interrupted);
            }
            let Ok(write) = written.recv_timeout(GLANCE) else { continue };
            silence.hear(&write);
            match write.failure {
                Some(failure) => last = failure,
                None if write.began >= began => acked_count += 1,
                None => {}
            }
            if acked_count == count {
                return Ok(());
            }
        }
        Err(NemesisError::Stuck { last })
    }
}

fn report(options: &Options, seed: u64, tally: &mut Tally, error: Option<&NemesisError>) {
    if let Some(error) = error {
        eprintln!("error: {error}");
    }
    tally.gaps_ms.sort_unstable();
    tally.silences_ms.sort_unstable();
    let Judgement { acked, reads, unknown, not_done, undecided, .. } = tally.judgement;
    let verdict = tally.judgement.word();
    let fault_p50 = tally.gaps_ms.get(tally.gaps_ms.len() / 2).copied();
    let fault_max = tally.gaps_ms.last().copied();
    let silence_p50 = tally.silences_ms.get(tally.silences_ms.len() / 2).copied();
    let silence_max = tally.silences_ms.last().copied();
    if options.json {
        let faults: BTreeMap<&str, u32> =
            tally.faults.iter().map(|(fault, count)| (fault.name(), *count)).collect();
        let summary = serde_json::json!({
            "rounds": tally.gaps_ms.len(), "members": options.members, "seed": seed,
            "read_mode": options.read_mode.name(), "acked": acked,
            "reads": reads, "unknown": unknown, "not_done": not_done, "verdict": verdict, "undecided": undecided,
            "members_equal": tally.are_equal, "fault_p50_ms": fault_p50, "fault_max_ms": fault_max,
            "silence_p50_ms": silence_p50, "silence_max_ms": silence_max, "faults": faults,
            "error": error.map(ToString::to_string),
        });
        println!("{summary}");
    } else {
        let rounds = tally.gaps_ms.len();
        println!("{rounds} rounds: {acked} writes acknowledged, {reads} reads answered, {unknown} never");
        let equal = if tally.are_equal { "all members are equal" } else { "the members were not compared" };
        println!("the history is {verdict}; {equal}");
        if let (Some(p50), Some(max)) = (silence_p50, silence_max) {
            println!("without a write after a fault: {p50} ms in the median, {max} ms at the worst");
        }
    }
}

#[allow(clippy::disallowed_methods)] // what is measured is real time
fn now() -> Instant {
    Instant::now()
}
