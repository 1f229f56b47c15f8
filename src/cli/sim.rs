//! `mainstay sim`: simulated clusters under faults, every promise checked.
//!
//! The simulator itself (`crate::sim`) is pure; this file gives it threads, the time of day and a terminal. Seeds are
//! handed out in order to one thread a core. A run that panics has failed like one that breaks an invariant:
//! the panic hook reports it and keeps that thread still, because in a release build a panic that went on would end
//! the process.
//!
//! Always: what a machine reads goes to stdout, progress goes to stderr; a failing seed prints one line that does
//! it again. Left out: anything about what is simulated.

mod explore;

use crate::sim::{
    Campaign, DeathAt, Outcome, RunOptions, Tally, Trace, crash_points, run as run_seed, run_crash_point,
    soak,
};
use clap::Args;
use core::fmt;
use serde::Serialize;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Failures after which a campaign stops: whoever looks at them begins with the first.
const FAILURES_MAX: u64 = 10;

/// Seeds run if only a budget says when to stop.
const SEEDS_UNBOUNDED: u64 = u64::MAX / 2;

#[cfg(feature = "planted")]
const PLANTED_SEEDS_MAX: u64 = 2_000;

/// The arguments of `mainstay sim`.
#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a flag of the command line
pub(super) struct SimArgs {
    /// Run this one seed
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "budget"])]
    seed: Option<u64>,

    /// Tell everything that happens in it, one line an event
    #[arg(long, requires = "seed")]
    trace: bool,

    /// Print nothing but the hash of everything that happened in it
    #[arg(long, requires = "seed", conflicts_with_all = ["trace", "json"])]
    trace_hash: bool,

    /// Run scripts once for every completion of a disk in them, a member dying there, and again in its recovery
    #[arg(long, conflicts_with_all = ["seed", "seeds", "minutes"])]
    crash_points: bool,

    /// Of the crash points at which a member dies twice, only every Nth, beginning with the one that --first says
    #[arg(long, value_name = "N", requires = "crash_points", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    twice_every: u64,

    /// Instead of seeds: so many simulated hours of steady work, in which nothing may grow
    #[arg(long, value_name = "H", conflicts_with_all = ["seed", "seeds", "first", "minutes", "crash_points"])]
    soak_hours: Option<u64>,

    /// Run this many seeds [default: 100, or as many as fit into the budget]
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,

    /// Begin with this seed
    #[arg(long, value_name = "S", default_value_t = 1)]
    first: u64,

    /// Simulated minutes a seed
    #[arg(long, value_name = "M", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,

    /// Begin no further seed after this time, such as 30s, 5m or 2h
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    budget: Option<Duration>,

    /// Draw each impossible history as a page in this directory, which is made if need be
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,

    /// Print the summary as one line of JSON
    #[arg(long)]
    json: bool,

    /// Instead of seeds: every schedule of three members of the consensus core, breadth first, in a few small worlds
    #[arg(long, conflicts_with_all = ["seed", "seeds", "first", "minutes"])]
    explore: bool,

    /// With --explore: states in each world at most; a hundred bytes each
    #[arg(long, value_name = "N", requires = "explore", default_value_t = 10_000_000)]
    states: u32,

    /// With --explore: only this world, `whole`, `empty`, `divided`, `led`, `reading` or `handed`
    #[arg(long, value_name = "NAME", requires = "explore")]
    world: Option<String>,

    /// Switch bugs on, one at a time, and see that they are found: `all`, or their numbers
    #[cfg(feature = "planted")]
    #[arg(long, value_name = "BUGS")]
    planted: Option<String>,
}

/// Runs what was asked for.
#[allow(clippy::needless_pass_by_value)] // the front door hands its arguments over
pub(super) fn run(arguments: SimArgs) -> ExitCode {
    report_panics();
    if arguments.explore {
        return explore::run(&arguments);
    }
    #[cfg(feature = "planted")]
    if let Some(bugs) = arguments.planted.clone() {
        return planted(&arguments, &bugs);
    }
    if let Some(hours) = arguments.soak_hours {
        return soak_for(&arguments, hours);
    }
    match arguments.seed {
        Some(seed) => one(&arguments, seed),
        None => many(&arguments),
    }
}

fn one(arguments: &SimArgs, seed: u64) -> ExitCode {
    let mut trace = if arguments.trace {
        Trace::with_lines(Box::new(|line| println!("{line}")))
    } else {
        Trace::hashed()
    };
    let began = now();
    let outcome = run_seed(RunOptions::of_minutes(seed, arguments.minutes), &mut trace);
    let mut campaign = Campaign::default();
    campaign.add(seed, &outcome);
    if arguments.trace_hash {
        tell_failure(arguments, Task::Seed(seed), &outcome);
        println!("{:016x}", trace.hash());
        return ExitCode::SUCCESS;
    }
    eprintln!("{} events, trace hash {:016x}", trace.events_count(), trace.hash());
    tell_failure(arguments, Task::Seed(seed), &outcome);
    finish(arguments, &campaign, began.elapsed())
}

fn soak_for(arguments: &SimArgs, hours: u64) -> ExitCode {
    let began = now();
    let (outcome, [first, second]) = soak(hours, &mut Trace::hashed());
    eprintln!("a member had at the most, in the first half: {first}");
    eprintln!("and in the second: {second}");
    if let Some(failure) = &outcome.failure {
        eprintln!("broke {} at {}: {}", failure.invariant, failure.at, failure.explanation);
    }
    let mut campaign = Campaign::default();
    campaign.add(0, &outcome);
    finish(arguments, &campaign, began.elapsed())
}

/// All points at which a member dies once, and of those at which it dies twice as many as are asked for.
fn some_crash_points(arguments: &SimArgs) -> Vec<DeathAt> {
    let mut twice = arguments.first;
    let mut points = crash_points();
    points.retain(|death| {
        twice += u64::from(death.is_twice());
        !death.is_twice() || twice.is_multiple_of(arguments.twice_every)
    });
    points
}

fn many(arguments: &SimArgs) -> ExitCode {
    let points = if arguments.crash_points { some_crash_points(arguments) } else { Vec::new() };
    let unbounded = match points.len() as u64 {
        0 if arguments.budget.is_some() => SEEDS_UNBOUNDED,
        0 => 100,
        all => all,
    };
    let work = Work {
        points: points.into(),
        first: arguments.first,
        seeds_max: arguments.seeds.unwrap_or(unbounded),
        minutes: arguments.minutes,
        deadline: arguments.budget.map(|budget| now() + budget),
        failures_max: FAILURES_MAX,
        bug: 0,
    };
    if arguments.crash_points {
        eprintln!("{} crash points of two scripts", work.seeds_max);
    } else {
        eprintln!("seeds from {}, {} simulated minutes each", work.first, work.minutes);
    }
    let (campaign, busy) = work.run(|task, outcome| tell_failure(arguments, task, outcome));
    finish(arguments, &campaign, busy)
}

/// What is printed at the end.
#[derive(Serialize)]
struct Summary {
    seeds: u64,
    sim_hours: f64,
    speed_x: f64,
    failures: u64,
    first_failed_seed: Option<u64>,
    faults: BTreeMap<&'static str, u64>,
    markers: BTreeMap<&'static str, u64>,
}

/// `busy` is the time spent on runs, summed over the threads.
fn finish(arguments: &SimArgs, campaign: &Campaign, busy: Duration) -> ExitCode {
    let simulated = Duration::from_micros(campaign.simulated_micros);
    let rounded = |value: f64| (value * 1_000.0).round() / 1_000.0;
    let summary = Summary {
        seeds: campaign.seeds,
        sim_hours: rounded(simulated.as_secs_f64() / 3_600.0),
        speed_x: rounded(simulated.as_secs_f64() / busy.as_secs_f64().max(1e-9)),
        failures: campaign.failures,
        first_failed_seed: campaign.first_failed_seed,
        faults: campaign.faults.counts().clone(),
        markers: campaign.markers.counts().clone(),
    };
    eprintln!("{}", campaign.counts);
    tell_never("faults that never struck", &campaign.faults);
    tell_never("marked places never passed", &campaign.markers);
    let words = format!(
        "{} seeds, {} simulated hours at {} times real time a core: {} failed",
        summary.seeds, summary.sim_hours, summary.speed_x, summary.failures
    );
    if arguments.json {
        println!("{}", serde_json::json!(summary));
    } else if arguments.trace {
        // A trace of one seed is the same bytes every time; how fast it was is not.
        eprintln!("{words}");
    } else {
        println!("{words}");
    }
    if campaign.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell_never(what: &str, tally: &Tally) {
    let never = tally.never();
    if !never.is_empty() {
        eprintln!("{what}: {}", never.join(", "));
    }
}

fn tell_failure(arguments: &SimArgs, task: Task, outcome: &Outcome) {
    let Some(failure) = &outcome.failure else {
        return;
    };
    eprintln!("{task} broke {} at {}: {}", failure.invariant, failure.at, failure.explanation);
    tell_reproduction(task, arguments.minutes);
    let (Some(directory), Some(page)) = (&arguments.report, failure.picture()) else {
        return;
    };
    match write_page(directory, task, &page) {
        Ok(page) => eprintln!("see {}", page.display()),
        Err(error) => eprintln!("no picture in {}: {error}", directory.display()),
    }
}

fn write_page(directory: &Path, task: Task, page: &str) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(directory)?;
    let path = directory.join(format!("{task}.html").replace(' ', "-"));
    std::fs::write(&path, page)?;
    Ok(path)
}

fn tell_reproduction(task: Task, minutes: u64) {
    if let Task::Seed(seed) = task {
        eprintln!("reproduce it with: mainstay sim --seed {seed} --minutes {minutes} --trace");
    }
}

/// One run of many.
#[derive(Clone, Copy)]
enum Task {
    Seed(u64),
    CrashPoint(DeathAt),
}

impl Task {
    fn run(self, minutes: u64) -> Outcome {
        match self {
            Self::Seed(seed) => run_seed(RunOptions::of_minutes(seed, minutes), &mut Trace::hashed()),
            Self::CrashPoint(death) => run_crash_point(death, &mut Trace::hashed()),
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seed(seed) => write!(f, "seed {seed}"),
            Self::CrashPoint(death) => write!(f, "the script in which {death}"),
        }
    }
}

/// The time of day of this machine, for speed and budgets alone; no run ever sees it.
#[allow(clippy::disallowed_methods)] // a command line is a clock's place
fn now() -> Instant {
    Instant::now()
}

/// Which seeds are to be run, and until when.
#[derive(Clone)]
struct Work {
    /// The crash points to be run instead of seeds, if there are any.
    points: Arc<[DeathAt]>,
    first: u64,
    seeds_max: u64,
    minutes: u64,
    deadline: Option<Instant>,
    failures_max: u64,
    /// The planted bug to switch on; 0 for none.
    bug: u32,
}

/// What a thread says of a run.
enum Report {
    Finished(u64, Box<Outcome>, Duration),
    Panicked(u64, String),
    /// The thread has no more to do.
    Done,
}

impl Work {
    /// Runs the seeds on one thread a core; returns the sum, and the time spent on runs over all threads.
    fn run(self, tell: impl Fn(Task, &Outcome)) -> (Campaign, Duration) {
        let threads_count = std::thread::available_parallelism().map_or(1, usize::from);
        let next = Arc::new(AtomicU64::new(0));
        let (sender, receiver) = channel();
        for _ in 0..threads_count {
            self.spawn(&next, &sender);
        }
        self.gather(&next, &sender, &receiver, threads_count, tell)
    }

    fn gather(
        self,
        next: &Arc<AtomicU64>,
        sender: &Sender<Report>,
        receiver: &Receiver<Report>,
        mut threads_count: usize,
        tell: impl Fn(Task, &Outcome),
    ) -> (Campaign, Duration) {
        let mut campaign = Campaign::default();
        let mut busy = Duration::ZERO;
        let mut last_told = now();
        while threads_count > 0 {
            match receiver.recv() {
                Ok(Report::Finished(seed, outcome, took)) => {
                    campaign.add(seed, &outcome);
                    busy += took;
                    tell(self.task(seed), &outcome);
                }
                Ok(Report::Panicked(seed, message)) => {
                    campaign.fail(seed, &message.replace('\n', " "));
                    eprintln!("{} panicked: {message}", self.task(seed));
                    if self.bug == 0 {
                        tell_reproduction(self.task(seed), self.minutes);
                    }
                    // The thread stands still for ever; another takes its place.
                    self.spawn(next, sender);
                }
                Ok(Report::Done) | Err(_) => threads_count -= 1,
            }
            if campaign.failures >= self.failures_max {
                next.store(self.seeds_max, Ordering::Relaxed);
            }
            if last_told.elapsed() > Duration::from_secs(10) {
                last_told = now();
                eprintln!("{} seeds, {} failed; {}", campaign.seeds, campaign.failures, campaign.counts);
            }
        }
        (campaign, busy)
    }

    /// What the number of a run stands for.
    fn task(&self, seed: u64) -> Task {
        let point = usize::try_from(seed - self.first).ok().and_then(|at| self.points.get(at));
        point.map_or(Task::Seed(seed), |death| Task::CrashPoint(*death))
    }

    fn spawn(&self, next: &Arc<AtomicU64>, sender: &Sender<Report>) {
        let (next, sender) = (Arc::clone(next), sender.clone());
        let this = self.clone();
        std::thread::spawn(move || {
            #[cfg(feature = "planted")]
            crate::planted::switch_on(this.bug);
            loop {
                let offset = next.fetch_add(1, Ordering::Relaxed);
                let is_late = this.deadline.is_some_and(|deadline| now() >= deadline);
                if offset >= this.seeds_max || is_late {
                    break;
                }
                let seed = this.first + offset;
                CURRENT.with_borrow_mut(|current| *current = Some((seed, sender.clone())));
                let began = now();
                let outcome = this.task(seed).run(this.minutes);
                CURRENT.with_borrow_mut(|current| *current = None);
                if sender.send(Report::Finished(seed, Box::new(outcome), began.elapsed())).is_err() {
                    return;
                }
            }
            // Nobody listens any more only if the campaign is over.
            let _ = sender.send(Report::Done);
        });
    }
}

thread_local! {
    /// The seed this thread runs, and whom to tell if it panics.
    static CURRENT: RefCell<Option<(u64, Sender<Report>)>> = const { RefCell::new(None) };
}

/// Makes a panic in a run a report of that run's failure.
fn report_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let current = CURRENT.with_borrow_mut(Option::take);
        let Some((seed, sender)) = current else {
            usual(panic);
            return;
        };
        // Nobody listens any more only if the campaign is over.
        let _ = sender.send(Report::Panicked(seed, panic.to_string()));
        loop {
            std::thread::park();
        }
    }));
}

/// A time such as `30s`, `5m` or `2h`; a bare number is seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3_600,
        other => return Err(format!("`{other}` is not a unit of time here: use s, m or h")),
    };
    let count: u64 = digits
        .parse()
        .map_err(|_| format!("`{text}` is not a time: write a number and s, m or h, such as 5m"))?;
    Ok(Duration::from_secs(count.saturating_mul(unit)))
}

#[cfg(feature = "planted")]
fn planted(arguments: &SimArgs, bugs: &str) -> ExitCode {
    use crate::sim::PLANTED_BUGS;

    let mut chosen = Vec::new();
    if bugs == "all" {
        chosen.extend(PLANTED_BUGS);
    } else {
        for number in bugs.split(',') {
            let Some(bug) = PLANTED_BUGS.iter().find(|bug| number.parse() == Ok(bug.number)) else {
                let known: Vec<_> = PLANTED_BUGS.iter().map(|bug| bug.number.to_string()).collect();
                eprintln!("no bug `{number}` is planted; there are {}", known.join(", "));
                return ExitCode::from(2);
            };
            chosen.push(bug);
        }
    }
    if let (Some(seed), [bug]) = (arguments.seed, chosen.as_slice()) {
        crate::planted::switch_on(bug.number);
        return one(arguments, seed);
    }
    let found: Vec<Hunt> = chosen.into_iter().map(|bug| find(arguments, *bug)).collect();
    if arguments.json {
        println!("{}", serde_json::json!(found));
    }
    if found.iter().all(|bug| bug.found) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether a planted bug was found.
#[cfg(feature = "planted")]
#[derive(Serialize)]
struct Hunt {
    bug: u32,
    name: &'static str,
    found: bool,
    seed: Option<u64>,
    seeds_tried: u64,
    /// What the first seed that failed broke.
    broken: Option<String>,
}

#[cfg(feature = "planted")]
fn find(arguments: &SimArgs, bug: crate::sim::PlantedBug) -> Hunt {
    let seeds_max = arguments.seeds.unwrap_or(PLANTED_SEEDS_MAX);
    let work = Work {
        points: Arc::default(),
        first: arguments.first,
        seeds_max,
        minutes: arguments.minutes,
        deadline: arguments.budget.map(|budget| now() + budget),
        failures_max: 1,
        bug: bug.number,
    };
    let (campaign, _) = work.run(|task, outcome| {
        if let Some(failure) = &outcome.failure {
            eprintln!("    {task} broke {} at {}", failure.invariant, failure.at);
        }
    });
    let seed = campaign.first_failed_seed;
    let hunt = Hunt {
        bug: bug.number,
        name: bug.name,
        found: seed.is_some(),
        seed,
        seeds_tried: seed.map_or(campaign.seeds, |seed| seed - arguments.first + 1),
        broken: campaign.first_broken,
    };
    match seed {
        Some(seed) => {
            eprintln!("bug {} ({}): found by seed {seed}, the {}th", bug.number, bug.name, hunt.seeds_tried);
        }
        None => eprintln!("bug {} ({}): NOT FOUND in {} seeds", bug.number, bug.name, hunt.seeds_tried),
    }
    hunt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_number_and_perhaps_a_unit() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_mins(5)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_hours(2)));
        assert!(parse_duration("5 parsecs").is_err());
        assert!(parse_duration("m").is_err());
    }
}
