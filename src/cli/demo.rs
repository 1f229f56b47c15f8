//! `mainstay demo`: three members as real processes, a live workload, the leader killed and brought back, and no
//! acknowledged write lost.
//!
//! What always holds: every number it prints was measured in this run; everything it started is ended and the
//! temporary directory removed, also on Ctrl-C; the exit code says whether every acknowledged write was read back.
//! What it leaves out: load for benchmarks and faults other than a kill (both in bench-harness).

mod show;

use super::cluster::{ClusterError, ClusterOptions, LocalCluster};
use super::workload::{Ledgers, Verdict, Workload, Written, client};
use crate::api::Status;
use clap::Args;
use serde::Serialize;
use show::{Meter, Voice};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long the workload runs if nobody says.
const SECONDS_DEFAULT: u64 = 8;

/// Threads that write.
///
/// Chosen: enough that several writes share each sync, few enough for a laptop.
const WRITERS: usize = 8;

/// How long members may take to find each other, or to come back.
const READY_PATIENCE: Duration = Duration::from_secs(30);

/// How long one look at the channel takes at the most, so that Ctrl-C is heard.
const GLANCE: Duration = Duration::from_millis(100);

/// How long reading back and looking for the leader may take before they count as failed.
const CALL_PATIENCE: Duration = Duration::from_secs(10);

/// How long members have to end in good order.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// The arguments of `mainstay demo`.
#[derive(Args, Debug)]
pub(super) struct DemoArgs {
    /// How many members
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    members: u16,

    /// Run the workload for this long, then end instead of staying up
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,

    /// Kill the leader with SIGKILL on the way and bring it back (without --seconds this is always done)
    #[arg(long)]
    kill_leader: bool,

    /// Keep the members' data here instead of in a temporary directory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Native ports are this, this + 10, …; each member's client and peer ports follow it [default: free ones]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..=65_400))]
    base_port: Option<u16>,

    /// End by itself and print one JSON object; progress goes to stderr
    #[arg(long)]
    json: bool,
}

/// What is printed at the end, for machines.
#[derive(Debug, Serialize)]
struct Summary {
    members: u16,
    seconds: u64,
    writes: u64,
    acked_lost: u64,
    failover_ms: Option<u64>,
    write_p50_ms: f64,
    write_p99_ms: f64,
}

/// Why a demo could not show what it is for.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("{0}")]
    Machine(#[from] std::io::Error),
    #[error("no member leads after {} ms; `{program} status` would say why", READY_PATIENCE.as_millis())]
    NoLeader { program: String },
    #[error("the writes cannot be read back: {0}")]
    Unread(#[from] crate::client::Failure),
    #[error("not one write was acknowledged{0}")]
    NothingWritten(String),
    #[error("interrupted")]
    Interrupted,
}

/// Runs the demo.
#[allow(clippy::needless_pass_by_value)] // the front door hands its arguments over
pub(super) fn run(arguments: DemoArgs) -> ExitCode {
    let is_unattended = arguments.seconds.is_some() || arguments.json;
    let demo = Demo {
        seconds: arguments.seconds.unwrap_or(SECONDS_DEFAULT),
        is_kill_wanted: arguments.kill_leader || !is_unattended,
        voice: Voice::new(arguments.json, now()),
        is_interrupted: Arc::new(AtomicBool::new(false)),
    };
    match demo.run(&arguments, is_unattended) {
        Ok(verdict) if verdict.is_kept() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(DemoError::Interrupted) => {
            eprintln!("interrupted: the members are ended, nothing was checked");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Demo {
    seconds: u64,
    is_kill_wanted: bool,
    voice: Voice,
    is_interrupted: Arc<AtomicBool>,
}

/// What was measured while the workload ran.
struct Measured {
    meter: Meter,
    failover: Option<Duration>,
    ledgers: Ledgers,
}

impl Demo {
    fn run(&self, arguments: &DemoArgs, is_unattended: bool) -> Result<Verdict, DemoError> {
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&self.is_interrupted))?;
        }
        let mut options = ClusterOptions::new(std::env::current_exe()?, arguments.members);
        options.directory.clone_from(&arguments.data);
        options.base_port = arguments.base_port;
        let mut cluster = LocalCluster::prepare(options)?;
        self.begin(&mut cluster)?;
        let measured = self.measure(&mut cluster)?;
        let verdict = self.read_back(&cluster, &measured)?;
        self.tell_end(arguments, &measured, verdict);
        if !is_unattended {
            self.stay(&mut cluster);
        }
        for name in cluster.end(END_PATIENCE) {
            self.voice.say(&format!("{name} did not end after SIGTERM and was killed"));
        }
        Ok(verdict)
    }

    /// Starts everybody.
    fn begin(&self, cluster: &mut LocalCluster) -> Result<(), DemoError> {
        let count = cluster.members.len();
        self.voice
            .say(&format!("starting {count} members as real processes in {}", cluster.directory().display()));
        for position in 0..count {
            cluster.launch(position)?;
        }
        for position in 0..count {
            self.wait_ready(cluster, position)?;
            let member = &cluster.members[position];
            self.voice.say(&format!(
                "  {} is ready: pid {}, native {}, peers {}, log {}",
                member.name,
                member.pid().unwrap_or(0),
                member.native,
                member.peer,
                member.log.display()
            ));
        }
        Ok(())
    }

    /// As `LocalCluster::wait_ready`, but hears Ctrl-C.
    fn wait_ready(&self, cluster: &mut LocalCluster, position: usize) -> Result<(), DemoError> {
        let until = now() + READY_PATIENCE;
        loop {
            self.check_interrupt()?;
            match cluster.wait_ready(position, GLANCE) {
                Ok(_) => return Ok(()),
                Err(ClusterError::Late { .. }) if now() < until => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The workload, with the kill in the middle of it.
    fn measure(&self, cluster: &mut LocalCluster) -> Result<Measured, DemoError> {
        let (leader, status) = self.leader(cluster)?;
        let name = &cluster.members[leader].name;
        self.voice.say(&format!("{name} leads in term {}; {WRITERS} clients begin to write", status.term.0));
        // Every run writes, so no two runs on one directory begin at the same revision.
        let prefix = format!("demo/{}", status.revision.0);
        let (workload, written) = Workload::start(&cluster.endpoints(), WRITERS, &prefix);
        let began = now();
        let mut run = Run { demo: self, written, meter: Meter::new(began), began };
        let result = run.go(cluster, leader);
        let Run { meter, .. } = run;
        let ledgers = workload.stop();
        let failover = result?;
        if ledgers.acked_count() == 0 {
            return Err(DemoError::NothingWritten(meter.failure_words()));
        }
        Ok(Measured { meter, failover, ledgers })
    }

    /// Who leads, and how it sees itself.
    fn leader(&self, cluster: &LocalCluster) -> Result<(usize, Status), DemoError> {
        let until = now() + READY_PATIENCE;
        while now() < until {
            self.check_interrupt()?;
            if let Some(found) = cluster.leader(GLANCE) {
                return Ok(found);
            }
        }
        Err(DemoError::NoLeader { program: show::program() })
    }

    fn read_back(&self, cluster: &LocalCluster, measured: &Measured) -> Result<Verdict, DemoError> {
        let count = measured.ledgers.acked_count();
        self.voice.say(&format!("{count} writes were acknowledged; reading every one of them back"));
        let mut client = client(&cluster.endpoints(), CALL_PATIENCE);
        Ok(measured.ledgers.verify(&mut client)?)
    }

    fn tell_end(&self, arguments: &DemoArgs, measured: &Measured, verdict: Verdict) {
        let Verdict { acked, lost, twice, unknown, foreign, .. } = verdict;
        let there = acked - lost;
        self.voice.say(&format!(
            "{there} of {acked} acknowledged writes are there, {lost} lost, {twice} applied twice"
        ));
        if unknown > 0 {
            self.voice
                .say(&format!("{unknown} more were not acknowledged{}", measured.meter.failure_words()));
        }
        if foreign > 0 {
            self.voice.say(&format!("{foreign} keys are there that nobody wrote"));
        }
        let summary = Summary {
            members: arguments.members,
            seconds: self.seconds,
            writes: acked,
            acked_lost: lost,
            failover_ms: measured.failover.map(|gap| u64::try_from(gap.as_millis()).unwrap_or(u64::MAX)),
            write_p50_ms: measured.meter.quantile_ms(0.5),
            write_p99_ms: measured.meter.quantile_ms(0.99),
        };
        self.voice.say(&format!(
            "writes took p50 {} ms, p99 {} ms; {}",
            summary.write_p50_ms,
            summary.write_p99_ms,
            summary
                .failover_ms
                .map_or("nobody was killed".to_owned(), |gap| format!("failover took {gap} ms")),
        ));
        if arguments.json {
            // Field by field, in the order in which they are documented.
            println!("{}", serde_json::to_string(&summary).expect("numbers are JSON"));
        }
    }

    /// Keeps the cluster up until somebody has seen enough.
    fn stay(&self, cluster: &mut LocalCluster) {
        let clients: Vec<_> = cluster.members.iter().map(|member| member.client).collect();
        self.voice.lines(&show::paste_lines(&cluster.endpoints(), &clients));
        while !self.is_interrupted.load(Ordering::Relaxed) {
            // Nobody unparks this thread: it only lets some time pass.
            std::thread::park_timeout(GLANCE);
            for member in cluster.members.iter_mut().filter(|member| member.is_started()) {
                if let Some(status) = member.wait_end(Duration::ZERO) {
                    self.voice.say(&format!(
                        "{} ended ({status}); its log: {}",
                        member.name,
                        member.log.display()
                    ));
                }
            }
        }
        self.voice.say("ending the members");
    }

    fn check_interrupt(&self) -> Result<(), DemoError> {
        if self.is_interrupted.load(Ordering::Relaxed) { Err(DemoError::Interrupted) } else { Ok(()) }
    }
}

/// The workload while it runs.
struct Run<'a> {
    demo: &'a Demo,
    written: Receiver<Written>,
    meter: Meter,
    began: Instant,
}

impl Run<'_> {
    /// Returns how long writes stood still, if somebody was killed.
    fn go(&mut self, cluster: &mut LocalCluster, leader: usize) -> Result<Option<Duration>, DemoError> {
        let length = Duration::from_secs(self.demo.seconds);
        let mut failover = None;
        if self.demo.is_kill_wanted {
            self.watch_until(self.began + length * 3 / 8)?;
            failover = Some(self.kill_and_bring_back(cluster, leader, self.began + length * 5 / 8)?);
        }
        self.watch_until(self.began + length)?;
        Ok(failover)
    }

    fn kill_and_bring_back(
        &mut self,
        cluster: &mut LocalCluster,
        leader: usize,
        back_at: Instant,
    ) -> Result<Duration, DemoError> {
        let voice = &self.demo.voice;
        let members_count = cluster.members.len();
        let member = &mut cluster.members[leader];
        voice.say(&format!(
            "killing the leader {} (SIGKILL, pid {})",
            member.name,
            member.pid().unwrap_or(0)
        ));
        let killed_at = now();
        member.kill();
        let dead_at = now();
        let is_majority_left = (members_count - 1) * 2 > members_count;
        if !is_majority_left {
            voice.say("without it there is no majority, so it comes back at once");
            cluster.launch(leader)?;
        }
        let first = self.first_after(dead_at)?;
        let gap = first.saturating_duration_since(killed_at);
        let (next, status) = self.demo.leader(cluster)?;
        let name = &cluster.members[next].name;
        voice.say(&format!(
            "writes go on after {} ms: {name} leads in term {}",
            gap.as_millis(),
            status.term.0
        ));
        if is_majority_left {
            self.watch_until(back_at)?;
            voice.say(&format!("{} comes back, with the same command line", cluster.members[leader].name));
            cluster.launch(leader)?;
        }
        self.wait_ready(cluster, leader)?;
        voice.say(&format!("{} is ready again", cluster.members[leader].name));
        Ok(gap)
    }

    /// As `Demo::wait_ready`, while the writes go on being counted.
    fn wait_ready(&mut self, cluster: &mut LocalCluster, position: usize) -> Result<(), DemoError> {
        let until = now() + READY_PATIENCE;
        loop {
            match cluster.wait_ready(position, Duration::ZERO) {
                Ok(_) => return Ok(()),
                Err(ClusterError::Late { .. }) if now() < until => self.watch_until(now() + GLANCE / 4)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// When the first write that was begun after `instant` was acknowledged.
    fn first_after(&mut self, instant: Instant) -> Result<Instant, DemoError> {
        let until = now() + READY_PATIENCE;
        while now() < until {
            if let Some(written) = self.take(until)?
                && written.failure.is_none()
                && written.began >= instant
            {
                return Ok(written.ended);
            }
        }
        Err(DemoError::NoLeader { program: show::program() })
    }

    fn watch_until(&mut self, until: Instant) -> Result<(), DemoError> {
        while now() < until {
            self.take(until)?;
        }
        Ok(())
    }

    /// The next write, if there is one soon.
    fn take(&mut self, until: Instant) -> Result<Option<Written>, DemoError> {
        self.demo.check_interrupt()?;
        let patience = until.saturating_duration_since(now()).min(GLANCE);
        let written = match self.written.recv_timeout(patience) {
            Ok(written) => Some(written),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(DemoError::NothingWritten(self.meter.failure_words()));
            }
        };
        if let Some(written) = &written {
            self.meter.take_in(written);
        }
        if let Some(line) = self.meter.line_if_due(now()) {
            self.demo.voice.say(&line);
        }
        Ok(written)
    }
}

#[allow(clippy::disallowed_methods)] // real processes take real time
fn now() -> Instant {
    Instant::now()
}
