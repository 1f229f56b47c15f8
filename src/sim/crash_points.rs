//! Every crash point of one fixed script: the same run again and again, dying at another completion of a disk each time.
//!
//! Chance finds the crash that is likely; this finds the one that is not. The script is a calm cluster of three under
//! ordinary load that makes and fills several segments. A first run counts each member's completions; then one run for
//! each of them, and each in two manners: the write or the new segment is still under way when the process dies, or is
//! done and the process was not told. The nested points die a second time, at one of the first completions of the
//! recovery from the first death.
//!
//! Always: up to its first death a run is the script, to the event, because one seed decides all of it; afterwards
//! every invariant is checked, and the cluster must come to rest whole, as after any faults.

use super::fault_plan::FaultPlan;
use super::member::CrashPoint;
use super::run::{Outcome, Run, RunOptions};
use super::trace::Trace;
use core::fmt;

/// The script's seed; any would do.
const SEED: u64 = 7;

/// How long the script is. Enough for three segments of each member.
const SCRIPT_MICROS: u64 = 1_000_000;

/// How many completions of a recovery are died at.
const NESTED_MAX: u64 = 4;

/// The script's members.
const MEMBERS_COUNT: usize = 3;

/// Where one run of the script dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeathAt {
    member: usize,
    first: CrashPoint,
    second: Option<CrashPoint>,
}

/// The points of the whole script, the nested ones last.
pub fn crash_points() -> Vec<DeathAt> {
    let mut script = Run::with_plan(options(), plan());
    // An invariant that the script itself breaks is found again in every run of a point.
    let _ = script.live_through(&mut Trace::hashed());
    let mut single = Vec::new();
    for (member, completions_count) in script.completions_of_script().into_iter().enumerate() {
        single.extend(points(completions_count).map(|first| DeathAt { member, first, second: None }));
    }
    let again = |death: &DeathAt| {
        let death = *death;
        points(NESTED_MAX).map(move |second| DeathAt { second: Some(second), ..death })
    };
    let nested: Vec<DeathAt> = single.iter().flat_map(again).collect();
    single.extend(nested);
    single
}

/// The first so many completions, in both manners.
fn points(completions_count: u64) -> impl Iterator<Item = CrashPoint> {
    let at = |completions_left| [true, false].map(|is_torn| CrashPoint { completions_left, is_torn });
    (1..=completions_count).flat_map(at)
}

/// Runs the script up to that death, and on.
pub fn run_crash_point(death: DeathAt, trace: &mut Trace) -> Outcome {
    let mut run = Run::with_plan(options(), plan());
    run.members[death.member].deaths = [Some(death.first), death.second].into_iter().flatten().collect();
    run.finish(trace)
}

const fn options() -> RunOptions {
    RunOptions { seed: SEED, faults_micros: SCRIPT_MICROS }
}

fn plan() -> FaultPlan {
    FaultPlan {
        segment_bytes: 128 * 1_024,
        election_micros: 100_000,
        down_micros: 60_000,
        ..FaultPlan::without_faults(MEMBERS_COUNT)
    }
}

impl fmt::Display for DeathAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manner = |point: CrashPoint| if point.is_torn { "under way" } else { "done" };
        let first = self.first;
        write!(f, "m{} dies at completion {}, {}", self.member + 1, first.completions_left, manner(first))?;
        if let Some(second) = self.second {
            write!(f, "; again at {} of its recovery, {}", second.completions_left, manner(second))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_completion_a_member_dies_at_the_cluster_comes_to_rest() {
        let points = crash_points();
        assert!(points.len() > 1_000, "the script has {} points", points.len());
        let mut deaths = 0;
        // The first writes of all, then some of everything; `mainstay sim --crash-points` runs them all.
        for (at, death) in points.iter().enumerate() {
            if at < 8 || at % 331 == 0 {
                let outcome = run_crash_point(*death, &mut Trace::hashed());
                assert_eq!(outcome.failure, None, "{death}");
                deaths += outcome.counts.crashes;
            }
        }
        assert!(deaths > 20, "the members died {deaths} times");
    }

    #[cfg(feature = "planted")]
    #[test]
    fn a_planted_log_without_syncs_is_found_at_some_point() {
        crate::planted::switch_on(42);
        let finds = |death: &DeathAt| run_crash_point(*death, &mut Trace::hashed()).failure.is_some();
        let is_found = crash_points().iter().step_by(97).any(finds);
        crate::planted::switch_on(0);
        assert!(is_found);
    }
}
