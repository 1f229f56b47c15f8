//! What became of the operations: latencies of those due in the window, acknowledgements in it, errors by kind.
//!
//! What always holds: an operation that was due in the window is in exactly one of the counts. What it leaves out:
//! the warm-up, of which nothing is counted but errors; only the seconds of the load are told with it.

use super::pacing::Nanos;
use super::report::ratio;
use hdrhistogram::Histogram;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

/// A latency is recorded as this one if it is longer: ten minutes.
const LATENCY_NANOS_MAX: u64 = 600_000_000_000;

/// Seconds of a load that are remembered; the later ones of a longer load are not.
const SECONDS_MAX: usize = 700;

/// The counts of one run.
#[derive(Debug)]
pub(crate) struct Tally {
    window: Range<Nanos>,
    /// From when an operation was due to its acknowledgement, in nanoseconds.
    pub(crate) latencies: Histogram<u64>,
    /// From when an operation was due to when it was handed to its connection: what the load itself adds, and the
    /// waiting for room.
    pub(crate) lateness: Histogram<u64>,
    /// The latencies since the last line of progress.
    pub(crate) recent: Histogram<u64>,
    /// Acknowledgements that came in the window.
    pub(crate) acknowledged: u64,
    /// Every failure, warm-up included.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Operations due in the window that could not even be sent in it. Their waiting up to then is in `latencies`.
    pub(crate) unsent: u64,
    /// The seconds of the load, warm-up included, as lines of progress tell them; one may have been longer.
    pub(crate) seconds: Vec<Second>,
}

/// About a second of a load.
#[derive(Debug)]
pub(crate) struct Second {
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    /// Of the operations that were served in it, in nanoseconds, to 1 %.
    pub(crate) latencies: Histogram<u64>,
}

impl Tally {
    /// Counts for operations due in `window`.
    pub(crate) fn new(window: Range<Nanos>) -> Self {
        Self {
            window,
            latencies: histogram(3),
            lateness: histogram(3),
            recent: histogram(3),
            acknowledged: 0,
            errors: BTreeMap::new(),
            unsent: 0,
            seconds: Vec::new(),
        }
    }

    /// A second of the load has passed.
    pub(crate) fn second_ended(&mut self, began: Instant, ended: Instant) {
        if self.seconds.len() < SECONDS_MAX {
            let mut latencies = histogram(2);
            latencies.add(&self.recent).expect("the bounds are the same");
            self.seconds.push(Second { began, ended, latencies });
        }
        self.recent.reset();
    }

    /// The latency in milliseconds that this share of operations did not exceed in the seconds that are meant; 0 of none.
    pub(crate) fn latency_ms_in(&self, is_meant: impl Fn(&Second) -> bool, quantile: f64) -> f64 {
        let mut latencies = histogram(2);
        for second in self.seconds.iter().filter(|second| is_meant(second)) {
            latencies.add(&second.latencies).expect("the bounds are the same");
        }
        ratio(latencies.value_at_quantile(quantile) / 1_000, 1_000)
    }

    /// An operation was handed to its connection.
    pub(crate) fn sent(&mut self, due: Nanos, now: Nanos) {
        if self.window.contains(&due) {
            self.lateness.saturating_record(now.saturating_sub(due));
        }
    }

    /// An operation was served.
    pub(crate) fn served(&mut self, due: Nanos, now: Nanos) {
        let latency = now.saturating_sub(due);
        self.recent.saturating_record(latency);
        if self.window.contains(&due) {
            self.latencies.saturating_record(latency);
        }
        if self.window.contains(&now) {
            self.acknowledged += 1;
        }
    }

    /// `count` operations failed for the same reason.
    pub(crate) fn failed(&mut self, why: Cow<'static, str>, count: u64) {
        if count > 0 {
            *self.errors.entry(why.into_owned()).or_insert(0) += count;
        }
    }

    /// An operation was due and not sent when the load ended: it waited at least until then.
    pub(crate) fn unsent(&mut self, due: Nanos) {
        if self.window.contains(&due) {
            self.unsent += 1;
            self.latencies.saturating_record(self.window.end - due);
        }
    }

    /// All failures.
    pub(crate) fn errors_count(&self) -> u64 {
        self.errors.values().sum()
    }
}

fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, digits).expect("the bounds are constants in order")
}

#[cfg(test)]
mod tests {
    use super::Tally;
    use std::time::Duration;

    #[test]
    fn the_warm_up_is_left_out_except_for_its_errors() {
        let mut tally = Tally::new(100..200);
        tally.served(50, 90);
        tally.served(50, 120);
        tally.served(150, 180);
        tally.served(190, 220);
        tally.failed("overloaded".into(), 2);
        tally.failed("overloaded".into(), 1);
        tally.failed("nothing".into(), 0);
        tally.unsent(99);
        tally.unsent(199);
        assert_eq!(tally.acknowledged, 2, "answers at 120 and 180");
        assert_eq!(tally.latencies.len(), 3, "due at 150 and 190, and unsent at 199");
        assert_eq!(tally.unsent, 1);
        // The seconds are told with the warm-up, each once.
        let [first, second] = [1, 2].map(|after| super::super::engine::now() + Duration::from_secs(after));
        tally.second_ended(first, second);
        tally.served(200, 3_000_200);
        tally.second_ended(second, second);
        assert_eq!(tally.seconds.iter().map(|second| second.latencies.len()).collect::<Vec<_>>(), [4, 1]);
        let later = tally.latency_ms_in(|it| it.began == second, 0.99);
        assert!((2.9..3.1).contains(&later), "{later}");
        assert!(tally.latency_ms_in(|it| it.ended == first, 0.99) < f64::EPSILON);
        assert_eq!(tally.errors.into_iter().collect::<Vec<_>>(), [("overloaded".to_owned(), 3)]);
    }
}
