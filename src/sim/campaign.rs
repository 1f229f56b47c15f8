//! Many seeds, summed up. Who runs them, and on how many threads, is the caller's business.

use super::run::{Counts, Outcome};
use super::tally::Tally;
use core::fmt;

/// The sum of many runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Campaign {
    /// Runs finished, failed ones included.
    pub seeds: u64,
    /// Simulated time over all of them.
    pub simulated_micros: u64,
    /// Runs that failed.
    pub failures: u64,
    /// The lowest seed that failed.
    pub first_failed_seed: Option<u64>,
    /// What that seed broke: an invariant, or an assertion in the words of its panic.
    pub first_broken: Option<String>,
    /// Everything that happened.
    pub counts: Counts,
    /// Faults by kind.
    pub faults: Tally,
    /// Rare events by name.
    pub markers: Tally,
}

impl Campaign {
    /// Adds the run of `seed`.
    pub fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.simulated_micros += outcome.simulated.0;
        self.counts = self.counts.plus(outcome.counts);
        self.faults.add(&outcome.faults);
        self.markers.add(&outcome.markers);
        match &outcome.failure {
            Some(failure) => self.fail(seed, failure.invariant),
            None => self.seeds += 1,
        }
    }

    /// Adds a run that broke something; if that was a panic, nothing else is known of it.
    pub fn fail(&mut self, seed: u64, broken: &str) {
        self.seeds += 1;
        self.failures += 1;
        if self.first_failed_seed.is_none_or(|first| seed < first) {
            self.first_failed_seed = Some(seed);
            self.first_broken = Some(broken.to_owned());
        }
    }
}

impl Counts {
    /// The sum of both.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            turns: self.turns + other.turns,
            crashes: self.crashes + other.crashes,
            torn_writes: self.torn_writes + other.torn_writes,
            rotten_frames: self.rotten_frames + other.rotten_frames,
            holes: self.holes + other.holes,
            partitions: self.partitions + other.partitions,
            leaders: self.leaders + other.leaders,
            committed: self.committed + other.committed,
            copies: self.copies + other.copies,
            answered: self.answered + other.answered,
            not_done: self.not_done + other.not_done,
            unknown: self.unknown + other.unknown,
            undecided: self.undecided + other.undecided,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} turns, {} terms led, {} entries committed ({} of them retries), {} operations answered, {} not done, \
             {} unknown, {} histories undecided by the search; {} crashes, {} torn writes, {} harmed frames, \
             {} recoveries with a hole, {} partitions",
            self.turns,
            self.leaders,
            self.committed,
            self.copies,
            self.answered,
            self.not_done,
            self.unknown,
            self.undecided,
            self.crashes,
            self.torn_writes,
            self.rotten_frames,
            self.holes,
            self.partitions,
        )
    }
}
