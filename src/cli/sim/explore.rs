//! `mainstay sim --explore`: every schedule of a small cluster of the consensus core, up to a bound.
//!
//! What is explored, and what is abstracted, says `raft/explore`; this file gives it the time of day and a terminal. Always:
//! one world after the other, each the same way every time, so a number of states brings one back to the same place.
//! A release build ends where the core panics, and cannot tell the way there; it says how to have it told.

use super::{SimArgs, now};
use crate::sim::{Explored, Progress, WORLDS, World, explore};
use serde::Serialize;
use std::cell::Cell;
use std::process::ExitCode;
use std::time::Duration;

/// What is printed at the end.
#[derive(Default, Serialize)]
struct Summary {
    states: usize,
    steps: u64,
    /// Every state up to so many steps from the beginning was expanded, in every world that does not end before.
    depth: u32,
    complete: bool,
    violations: u32,
    seconds: f64,
    worlds: Vec<OfWorld>,
}

#[derive(Serialize)]
struct OfWorld {
    world: &'static str,
    states: usize,
    steps: u64,
    depth: u32,
    complete: bool,
    members: usize,
    messages: usize,
    seconds: f64,
    violation: Option<String>,
}

thread_local! {
    /// The world that is explored, and how many states were known when its last state began to be expanded.
    static EXPLORED: Cell<(&str, usize)> = const { Cell::new(("", 0)) };
}

/// Says, where the core panics, how to see the way there.
fn report_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        let (world, states) = EXPLORED.get();
        let command = format!("cargo run -- sim --explore --world {world} --states {}", states + 1);
        eprintln!("the core broke an assertion of its own; see the way there with: {command}");
    }));
}

/// Explores what was asked for.
pub(super) fn run(arguments: &SimArgs) -> ExitCode {
    let is_wanted = |world: &&World| arguments.world.as_ref().is_none_or(|name| name == world.name);
    let worlds: Vec<&World> = WORLDS.iter().filter(is_wanted).collect();
    if worlds.is_empty() {
        let names: Vec<&str> = WORLDS.iter().map(|world| world.name).collect();
        eprintln!("there is no such world; there are {}", names.join(", "));
        return ExitCode::from(2);
    }
    report_panics();
    let mut summary = Summary { depth: u32::MAX, complete: true, ..Summary::default() };
    let share = arguments.budget.map(|budget| budget / u32::try_from(worlds.len()).unwrap_or(1));
    for world in worlds {
        summary.add(one(*world, arguments.states as usize, share));
    }
    if summary.complete {
        summary.depth = summary.worlds.iter().map(|world| world.depth).max().unwrap_or(0);
    }
    if arguments.json {
        println!("{}", serde_json::json!(summary));
    } else {
        println!(
            "{} states, {} steps, all to depth {}, {} violations",
            summary.states, summary.steps, summary.depth, summary.violations
        );
    }
    if summary.violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(world: World, states_max: usize, budget: Option<Duration>) -> OfWorld {
    let began = now();
    let mut told_at = began;
    let explored = explore(world, states_max, |progress| {
        EXPLORED.set((world.name, progress.states));
        if !progress.expanded.is_multiple_of(4_096) {
            return true;
        }
        if told_at.elapsed() > Duration::from_secs(10) {
            told_at = now();
            tell(world.name, &progress);
        }
        budget.is_none_or(|budget| began.elapsed() < budget)
    });
    tell(world.name, &explored.progress);
    tell_violation(world.name, &explored);
    let progress = explored.progress;
    OfWorld {
        world: world.name,
        states: progress.states,
        steps: progress.steps,
        depth: progress.depth,
        complete: explored.is_complete,
        members: progress.members,
        messages: progress.letters,
        seconds: seconds(began.elapsed().as_secs_f64()),
        violation: explored.violation.map(|violation| violation.truth),
    }
}

impl Summary {
    fn add(&mut self, world: OfWorld) {
        self.states += world.states;
        self.steps += world.steps;
        self.depth = if world.complete { self.depth } else { self.depth.min(world.depth) };
        self.complete &= world.complete;
        self.violations += u32::from(world.violation.is_some());
        self.seconds = seconds(self.seconds + world.seconds);
        self.worlds.push(world);
    }
}

/// To a tenth.
fn seconds(exact: f64) -> f64 {
    (exact * 10.0).round() / 10.0
}

fn tell(world: &str, progress: &Progress) {
    eprintln!(
        "{world}: {} states, {} expanded, whole to depth {}; {} members, {} messages",
        progress.states, progress.expanded, progress.depth, progress.members, progress.letters
    );
}

fn tell_violation(world: &str, explored: &Explored) {
    if let Some(violation) = &explored.violation {
        eprintln!("{world}: broken after {} steps: {}", violation.depth, violation.truth);
        eprintln!("{}", violation.trace.join("\n"));
    }
}
