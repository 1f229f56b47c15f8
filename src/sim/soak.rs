//! A long time without much ado: simulated hours of steady work on a constant number of keys, in which nothing may grow.
//!
//! ```text
//!   clients, holders, watchers ──slowly──> three members, which cut, trim, compact and forget
//!   now and then one of them dies, or is cut off until the others have trimmed what it lacks
//! ```
//!
//! Every few simulated seconds each member is measured: entries and bytes of its log, segments and files of snapshots on
//! its disk, sessions, leases, bytes of keys with their histories. Always: what is measured stays below bounds that do
//! not depend on how long the run is; what else holds in every run is checked in this one too.

use super::clock::TrueMicros;
use super::events::Fault;
use super::fault_plan::FaultPlan;
use super::invariants::{Broken, holds};
use super::run::{Outcome, Run, RunOptions};
use super::trace::Trace;
use crate::limits::SNAPSHOT_GENERATIONS;
use crate::replica::SnapshotPolicy;
use core::fmt;

const SECOND: u64 = 1_000_000;
const HOUR: u64 = 3_600 * SECOND;

/// Time between two measurements.
const SURVEY_MICROS: u64 = 10 * SECOND;

/// How much slower than usual everyone goes about it: hours at the usual pace would take hours.
const PACE: u64 = 30;

/// The run's seed; any would do.
const SEED: u64 = 11;

const POLICY: SnapshotPolicy = SnapshotPolicy {
    entries: 1_000,
    log_bytes: 1_000_000,
    patience_bytes: 100_000,
    micros: 600 * SECOND,
    trim_entries: 200,
    hot_entries: 100,
    hot_bytes: 100_000,
    bytes_per_second: 1_000_000,
    piece_bytes: 16 * 1_024,
    chunk_bytes: 16 * 1_024,
    retry_micros: SECOND,
};

/// How much of everything a member had at the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heights {
    /// Entries of the log in memory.
    pub log_entries: u64,
    /// Bytes of them.
    pub log_bytes: u64,
    /// Segments on the disk.
    pub segments: u64,
    /// Files of snapshots on the disk, unfinished ones included.
    pub snapshot_files: u64,
    /// Sessions known.
    pub sessions: u64,
    /// Answers remembered for them.
    pub answers: u64,
    /// Leases.
    pub leases: u64,
    /// Bytes of keys, with their histories.
    pub keyspace_bytes: u64,
}

/// What none of it may exceed, however long it goes on.
///
/// Two snapshots' worth of log, one more while the third is cut, and one while a follower is sent what it lacks; of that
/// log a segment holds at least 64 writes. Everyone has one session, and those that were lost go when they are idle.
const BOUNDS: Heights = Heights {
    log_entries: 4 * POLICY.entries,
    log_bytes: 4 * POLICY.log_bytes,
    segments: 4 * POLICY.entries / 64 + 4,
    snapshot_files: SNAPSHOT_GENERATIONS as u64 + 2,
    sessions: 60,
    answers: 1_000,
    leases: 40,
    keyspace_bytes: 4_000_000,
};

impl Heights {
    /// Each with its name and its bound.
    fn rows(&self) -> [(&'static str, u64, u64); 8] {
        [
            ("log entries", self.log_entries, BOUNDS.log_entries),
            ("log bytes", self.log_bytes, BOUNDS.log_bytes),
            ("segments", self.segments, BOUNDS.segments),
            ("snapshot files", self.snapshot_files, BOUNDS.snapshot_files),
            ("sessions", self.sessions, BOUNDS.sessions),
            ("answers remembered", self.answers, BOUNDS.answers),
            ("leases", self.leases, BOUNDS.leases),
            ("keyspace bytes", self.keyspace_bytes, BOUNDS.keyspace_bytes),
        ]
    }

    /// The higher of each.
    fn raise(&mut self, other: &Self) {
        self.log_entries = self.log_entries.max(other.log_entries);
        self.log_bytes = self.log_bytes.max(other.log_bytes);
        self.segments = self.segments.max(other.segments);
        self.snapshot_files = self.snapshot_files.max(other.snapshot_files);
        self.sessions = self.sessions.max(other.sessions);
        self.answers = self.answers.max(other.answers);
        self.leases = self.leases.max(other.leases);
        self.keyspace_bytes = self.keyspace_bytes.max(other.keyspace_bytes);
    }
}

impl fmt::Display for Heights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, height, bound)) in self.rows().into_iter().enumerate() {
            write!(f, "{}{name} {height} of {bound}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Lives through so many simulated hours. Also returns how much of everything a member had at the most, in the first half
/// and in the second.
pub fn soak(hours: u64, trace: &mut Trace) -> (Outcome, [Heights; 2]) {
    soak_for(hours * HOUR, trace)
}

fn soak_for(faults_micros: u64, trace: &mut Trace) -> (Outcome, [Heights; 2]) {
    let mut run = Run::with_plan(RunOptions { seed: SEED, faults_micros }, plan());
    let result = run.live_through(trace);
    let heights = run.heights;
    (run.sum_up(result), heights)
}

fn plan() -> FaultPlan {
    let plan = FaultPlan {
        election_micros: 1_500_000,
        down_micros: 60 * SECOND,
        partition_micros: 600 * SECOND,
        compacts: true,
        is_steady: true,
        pace: PACE,
        snapshots: POLICY,
        ..FaultPlan::without_faults(3)
    };
    plan.with_interval(Fault::Crash, 2 * HOUR).with_interval(Fault::Partition, 2 * HOUR)
}

impl Run {
    /// Lets everything happen that is planned before `end`; in a steady run, with a look at every member now and then.
    pub(super) fn live_until(&mut self, end: TrueMicros, trace: &mut Trace) -> Result<(), Broken> {
        while self.plan.is_steady && self.now.after(SURVEY_MICROS) < end {
            self.run_until(self.now.after(SURVEY_MICROS), trace)?;
            let half = usize::from(self.now.0 > end.0 / 2);
            for member in 0..self.members.len() {
                self.nothing_grows(member, half)?;
            }
        }
        self.run_until(end, trace)
    }

    fn nothing_grows(&mut self, member: usize, half: usize) -> Result<(), Broken> {
        let this = &self.members[member];
        let Some(observed) = &this.observed else { return Ok(()) };
        let queue = |name: &str| {
            observed
                .queues
                .iter()
                .find(|(queue, ..)| *queue == name)
                .map_or(0, |(_, length, _)| *length as u64)
        };
        let heights = Heights {
            log_entries: observed.last.index.0 - observed.base.index.0,
            log_bytes: observed.log_bytes,
            segments: this.disk.segments().len() as u64,
            snapshot_files: this.disk.snapshots.names().len() as u64,
            sessions: queue("sessions"),
            answers: queue("responses remembered"),
            leases: queue("leases"),
            keyspace_bytes: observed.keyspace_bytes,
        };
        self.heights[half].raise(&heights);
        for (name, height, bound) in heights.rows() {
            holds(height <= bound, "nothing_grows_for_ever", || {
                format!("{} has {height} {name}, and {bound} are allowed", this.id)
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_minutes_of_steady_work_leave_nothing_behind() {
        let (outcome, [first, second]) = soak_for(HOUR / 3, &mut Trace::hashed());
        assert_eq!(outcome.failure, None, "first half: {first}; second half: {second}");
        let passed = |marker: &str| outcome.markers.counts().get(marker).copied().unwrap_or(0);
        assert!(passed("log_trimmed") > 2 && passed("snapshot_cut") > 5, "{:?}", outcome.markers);
        assert!(outcome.counts.committed > 2_000, "{}", outcome.counts);
    }
}
