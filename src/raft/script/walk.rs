//! Random commands under the same checks: scenarios that nobody thought of writing.
//!
//! A walk makes command lines from a seed, runs them as a script's, then heals everything and expects one log
//! everywhere within seconds. A walk that fails prints its lines: they are a script, ready to be cut down and kept in
//! `testdata` under the sentence it shows.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::commands::Interpreter;
use super::panic_text;
use crate::property;
use crate::raft::random::Random;

/// Commands of one walk before the cluster is healed.
const STEPS: u64 = 400;

/// Walks from one run of the tests.
const WALKS: u64 = 400;

/// Whose disk rots, in walks with rot: a minority of any cluster here.
const ROTTING_MEMBER: u64 = 1;

#[test]
fn random_commands_break_no_truth() {
    property::hold(WALKS, |seed| {
        if let Some(failure) = failure_of(seed) {
            panic!("{failure}");
        }
    });
}

/// Of the planted bugs, those that random commands find in as many walks as every run of the tests makes. The others need
/// a situation that is rare here; their scripts show it.
#[cfg(feature = "planted")]
#[test]
fn random_commands_find_planted_bugs() {
    for bug in [17, 18, 19, 23, 31, 51] {
        crate::planted::switch_on(bug);
        let failure = (0..WALKS).find_map(failure_of);
        crate::planted::switch_on(0);
        assert!(failure.is_some(), "bug {bug} is found in {WALKS} walks");
    }
}

/// How a walk failed, and its lines.
fn failure_of(seed: u64) -> Option<String> {
    let mut lines = Vec::new();
    let walked = catch_unwind(AssertUnwindSafe(|| walk(seed, &mut lines)));
    let reason = walked.unwrap_or_else(|panic| Err(panic_text(panic.as_ref()))).err()?;
    Some(format!("walk {seed} failed: {reason}\n\n{}", lines.join("\n")))
}

fn walk(seed: u64, lines: &mut Vec<String>) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut interpreter = Interpreter::default();
    let mut run = |line: String| {
        lines.push(line.clone());
        interpreter.run(&line).1?;
        Ok::<_, String>(interpreter.chances())
    };
    let voters = match random.below(3) {
        0 => "1,2,3",
        1 => "1,2,3,4",
        _ => "1,2,3,4,5",
    };
    run(format!("cluster voters={voters} seed={seed}"))?;
    let mut chances = run("run 1000ms".to_owned())?;
    let weather = Weather {
        with_rot: random.below(2) == 0,
        tick_ms_max: [120, 400][usize::from(random.below(2) == 0)],
        leaves_leaders_behind: random.below(3) == 0,
    };
    for _ in 0..STEPS {
        let line = chances.choose(&mut random, weather);
        chances = run(line)?;
    }
    run("heal".to_owned())?;
    run("unstall".to_owned())?;
    for id in chances.down {
        run(format!("restart {id}"))?;
    }
    run("run 6000ms".to_owned())?;
    run("assert same-logs".to_owned())?;
    run("assert committed-everywhere".to_owned())?;
    Ok(())
}

/// What kind of walk this is.
#[derive(Clone, Copy)]
struct Weather {
    /// Whether one member's disk rots.
    with_rot: bool,
    /// Long ticks of single members make many elections, short ones few.
    tick_ms_max: u64,
    /// Whether leaders are cut off and get less time than the others, so that they are deposed and do not know it.
    leaves_leaders_behind: bool,
}

/// What could happen next.
pub(super) struct Chances {
    /// Links on which a message waits, as `1->2`.
    pub(super) links: Vec<String>,
    /// Members with a write in flight.
    pub(super) writers: Vec<u64>,
    /// Members with a chunk on its way to their temporary file.
    pub(super) storing: Vec<u64>,
    /// Members that run.
    pub(super) up: Vec<u64>,
    /// Members that lead, or believe so.
    pub(super) leading: Vec<u64>,
    /// Members that do not run.
    pub(super) down: Vec<u64>,
    /// The end of the contiguous durable log of the member whose disk may rot, while it is down.
    pub(super) rotting_end: u64,
    /// Just below the first entry of that log.
    pub(super) rotting_base: u64,
}

impl Chances {
    /// Mostly lets messages and writes arrive; now and then something goes wrong.
    fn choose(&self, random: &mut Random, weather: Weather) -> String {
        if weather.leaves_leaders_behind && random.below(2) == 0 {
            return self.leave_leader_behind(random, weather);
        }
        let up = pick(random, &self.up);
        let link = pick(random, &self.links);
        // What cannot happen is let pass without a word: it would be time for all, in which nobody stays behind.
        let choices = if self.storing.is_empty() { 103 } else { 108 };
        let line = match random.below(choices) {
            0..40 => link.map(|link| format!("deliver {link}")),
            40..43 => link.map(|link| format!("drop {link}")),
            43..45 => link.map(|link| format!("duplicate {link}")),
            45..47 => link.map(|link| format!("reorder {link}")),
            47..65 => pick(random, &self.writers).map(|id| format!("sync {id}")),
            65..77 => up.map(|id| format!("tick {id} +{}ms", 1 + random.below(weather.tick_ms_max))),
            77..84 => up.map(|id| format!("propose {id} n={}", 1 + random.below(3))),
            84..91 => up.map(|id| format!("read {id}")),
            91 => up.map(|id| format!("transfer {id}->{}", 1 + random.below(3))),
            92 => up.map(|id| format!("crash {id}")),
            93 => up.map(|id| format!("crash {id} landed")),
            94..97 => pick(random, &self.down).map(|id| format!("restart {id}")),
            97 if weather.with_rot && self.rotting_end > self.rotting_base => {
                let first = self.rotting_base + 1 + random.below(self.rotting_end - self.rotting_base);
                let last = first + random.below(self.rotting_end - first + 1);
                Some(format!("rot {ROTTING_MEMBER} {first}..{last}"))
            }
            98 => Some(
                match random.below(3) {
                    0 => "partition 1 | 2,3,4,5",
                    1 => "partition 1,2 | 2,3,4 | 4,5",
                    _ => "heal",
                }
                .to_owned(),
            ),
            100..102 => up.map(|id| format!("snapshot {id}")),
            102 => up.map(|id| format!("trim {id}")),
            103 => pick(random, &self.storing).map(|id| format!("store {id} refused")),
            104 => pick(random, &self.storing).map(|id| format!("store {id} switched")),
            105..108 => pick(random, &self.storing).map(|id| format!("store {id}")),
            _ => None,
        };
        line.unwrap_or_else(|| format!("run {}ms", 1 + random.below(60)))
    }
    /// Time for those that do not lead, and reads of those that do; now and then one of these is cut off.
    fn leave_leader_behind(&self, random: &mut Random, weather: Weather) -> String {
        let others: Vec<u64> = self.up.iter().copied().filter(|id| !self.leading.contains(id)).collect();
        let line = match random.below(20) {
            0 => pick(random, &self.leading).map(|id| {
                let others = (1..=5).filter(|other| *other != id).map(|other: u64| other.to_string());
                format!("partition {id} | {}", others.collect::<Vec<_>>().join(","))
            }),
            1..4 => pick(random, &self.leading).map(|id| format!("read {id}")),
            4..6 => pick(random, &self.leading).map(|id| format!("propose {id}")),
            6..10 => pick(random, &others)
                .map(|id| format!("tick {id} +{}ms", 1 + random.below(weather.tick_ms_max))),
            10..14 => pick(random, &self.writers).map(|id| format!("sync {id}")),
            _ => pick(random, &self.links).map(|link| format!("deliver {link}")),
        };
        line.unwrap_or_else(|| format!("advance {}ms", 1 + random.below(10)))
    }
}

fn pick<T: Clone>(random: &mut Random, from: &[T]) -> Option<T> {
    usize::try_from(random.below(from.len() as u64)).ok().and_then(|at| from.get(at)).cloned()
}
