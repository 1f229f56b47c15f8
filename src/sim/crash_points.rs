//! Every crash point of fixed scripts: the same run again and again, dying at another completion of a disk each time.
//!
//! Chance finds the crash that is likely; this finds the one that is not. Both scripts are clusters of three under
//! ordinary load. In the first nothing goes wrong, and several segments are made and filled. In the second snapshots are
//! cut every ten entries, the log is trimmed behind them, and members are cut off until they need one: so files
//! are written, renamed, read and removed, segments recycled, logs begun anew. A first run counts each member's
//! completions; then one run for each of them, and each in two manners: the write, the file or the new segment is still
//! under way when the process dies, or is done and the process was not told. The nested points die a second time, at one
//! of the first completions of the recovery from the first death.
//!
//! Always: up to its first death a run is its script, to the event, because one seed decides all of it; afterwards
//! every invariant is checked, and the cluster must come to rest whole, as after any faults.

use super::events::Fault;
use super::fault_plan::FaultPlan;
use super::member::CrashPoint;
use super::run::{Outcome, Run, RunOptions};
use super::trace::Trace;
use crate::replica::SnapshotPolicy;
use core::fmt;

/// The members of both scripts.
const MEMBERS_COUNT: usize = 3;

/// What the members do until one of them dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    /// They write.
    Log,
    /// They write, and cut, trim, send and install snapshots.
    Snapshots,
}

/// Where one run of a script dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeathAt {
    script: Script,
    member: usize,
    first: CrashPoint,
    second: Option<CrashPoint>,
}

impl DeathAt {
    /// Whether the member dies again in its recovery.
    pub const fn is_twice(&self) -> bool {
        self.second.is_some()
    }
}

/// The points of both scripts; of each the nested ones come last.
pub fn crash_points() -> Vec<DeathAt> {
    [Script::Log, Script::Snapshots].into_iter().flat_map(Script::points).collect()
}

impl Script {
    fn points(self) -> Vec<DeathAt> {
        let mut run = self.run();
        // An invariant that the script itself breaks is found again in every run of a point.
        let _ = run.live_through(&mut Trace::hashed());
        let mut single = Vec::new();
        for (member, completions_count) in run.completions_of_script().into_iter().enumerate() {
            let at = |first| DeathAt { script: self, member, first, second: None };
            single.extend(points(completions_count).map(at));
        }
        let again = |death: &DeathAt| {
            let death = *death;
            points(self.nested_max()).map(move |second| DeathAt { second: Some(second), ..death })
        };
        let nested: Vec<DeathAt> = single.iter().flat_map(again).collect();
        single.extend(nested);
        single
    }

    /// How many completions of a recovery are died at.
    const fn nested_max(self) -> u64 {
        match self {
            Self::Log => 4,
            Self::Snapshots => 1,
        }
    }

    fn run(self) -> Run {
        let faults_micros = match self {
            // Enough for three segments of each member.
            Self::Log => 1_000_000,
            // Enough for each member to be sent a snapshot.
            Self::Snapshots => 1_500_000,
        };
        Run::with_plan(RunOptions { seed: self.seed(), faults_micros }, self.plan())
    }

    const fn seed(self) -> u64 {
        match self {
            // Any would do.
            Self::Log => 7,
            // One of those in which more than one member needs a snapshot.
            Self::Snapshots => 28,
        }
    }

    fn plan(self) -> FaultPlan {
        let plan = FaultPlan {
            segment_bytes: 128 * 1_024,
            election_micros: 100_000,
            down_micros: 60_000,
            ..FaultPlan::without_faults(MEMBERS_COUNT)
        };
        match self {
            Self::Log => plan,
            Self::Snapshots => FaultPlan {
                snapshots: SnapshotPolicy {
                    entries: 10,
                    log_bytes: 100_000,
                    patience_bytes: 0,
                    micros: 400_000,
                    trim_entries: 4,
                    hot_entries: 3,
                    hot_bytes: 2_000,
                    bytes_per_second: 2_000_000,
                    piece_bytes: 4_096,
                    chunk_bytes: 4_096,
                    retry_micros: 20_000,
                },
                partition_micros: 800_000,
                ..plan
            }
            .with_interval(Fault::Partition, 400_000),
        }
    }
}

/// The first so many completions, in both manners.
fn points(completions_count: u64) -> impl Iterator<Item = CrashPoint> {
    let at = |completions_left| [true, false].map(|is_torn| CrashPoint { completions_left, is_torn });
    (1..=completions_count).flat_map(at)
}

/// Runs the script up to that death, and on.
pub fn run_crash_point(death: DeathAt, trace: &mut Trace) -> Outcome {
    let mut run = death.script.run();
    run.members[death.member].deaths = [Some(death.first), death.second].into_iter().flatten().collect();
    run.finish(trace)
}

impl fmt::Display for DeathAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manner = |point: CrashPoint| if point.is_torn { "under way" } else { "done" };
        let first = self.first;
        if self.script == Script::Snapshots {
            write!(f, "snapshots are cut and ")?;
        }
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
        assert!(points.len() > 1_000, "the scripts have {} points", points.len());
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

    #[test]
    fn in_the_second_script_snapshots_are_cut_sent_and_installed_and_logs_trimmed() {
        let outcome = Script::Snapshots.run().finish(&mut Trace::hashed());
        assert_eq!(outcome.failure, None);
        for marker in ["snapshot_cut", "log_trimmed", "snapshot_offered", "snapshot_installed"] {
            let times = outcome.markers.counts().get(marker).copied().unwrap_or(0);
            assert!(times > 1, "{marker} was passed {times} times; {:?}", outcome.markers);
        }
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
