//! What people see of the demo: lines with the time in front, rates and latencies, and what to paste.
//!
//! What always holds: with `--json` nothing of this goes to stdout. What it leaves out: deciding anything.

use crate::cli::workload::Written;
use hdrhistogram::Histogram;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The longest write that is told from longer ones.
const LATENCY_MICROS_MAX: u64 = 60_000_000;

/// How often rates are shown.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Says what happens as it happens.
#[derive(Debug)]
pub(super) struct Voice {
    is_stdout_for_machines: bool,
    began: Instant,
}

impl Voice {
    pub(super) const fn new(is_stdout_for_machines: bool, began: Instant) -> Self {
        Self { is_stdout_for_machines, began }
    }

    /// One line, with the time since the start.
    pub(super) fn say(&self, words: &str) {
        self.lines(&format!("{:6.1} s  {words}", self.began.elapsed().as_secs_f64()));
    }

    /// Lines as they are.
    pub(super) fn lines(&self, words: &str) {
        if self.is_stdout_for_machines {
            eprintln!("{words}");
        } else {
            println!("{words}");
        }
    }
}

/// Latencies and rates of acknowledged writes.
#[derive(Debug)]
pub(super) struct Meter {
    all: Histogram<u64>,
    recent: Histogram<u64>,
    line_at: Instant,
    last_failure: Option<String>,
}

impl Meter {
    pub(super) fn new(began: Instant) -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3)
                .expect("the bounds are in order and 3 digits are few")
        };
        Self { all: histogram(), recent: histogram(), line_at: began + LINE_EVERY, last_failure: None }
    }

    /// Counts one write.
    pub(super) fn take_in(&mut self, written: &Written) {
        if let Some(words) = &written.failure {
            self.last_failure = Some(words.clone());
            return;
        }
        let micros = written.ended.saturating_duration_since(written.began).as_micros();
        let micros = u64::try_from(micros).unwrap_or(LATENCY_MICROS_MAX).max(1);
        self.all.saturating_record(micros);
        self.recent.saturating_record(micros);
    }

    /// The line about the last second, once a second.
    pub(super) fn line_if_due(&mut self, now: Instant) -> Option<String> {
        if now < self.line_at {
            return None;
        }
        let seconds = now.saturating_duration_since(self.line_at).as_secs_f64() + LINE_EVERY.as_secs_f64();
        #[allow(clippy::cast_precision_loss)] // a rate for people
        let rate = self.recent.len() as f64 / seconds;
        let line = format!(
            "  {rate:8.0} writes/s, p50 {:.2} ms, p99 {:.2} ms",
            millis(&self.recent, 0.5),
            millis(&self.recent, 0.99)
        );
        self.recent.reset();
        self.line_at = now + LINE_EVERY;
        Some(line)
    }

    /// The time that this share of all acknowledged writes took at the most.
    pub(super) fn quantile_ms(&self, share: f64) -> f64 {
        millis(&self.all, share)
    }

    /// What the last failure was, to be put behind a sentence; empty if there was none.
    pub(super) fn failure_words(&self) -> String {
        self.last_failure.as_ref().map_or_else(String::new, |words| format!("; the last of them: {words}"))
    }
}

/// Milliseconds with three digits behind the point.
fn millis(histogram: &Histogram<u64>, share: f64) -> f64 {
    if histogram.is_empty() {
        return 0.0;
    }
    #[allow(clippy::cast_precision_loss)] // bounded by LATENCY_MICROS_MAX
    let micros = histogram.value_at_quantile(share) as f64;
    micros / 1_000.0
}

/// How a person would name this program in the shell they are in.
pub(super) fn program() -> String {
    let Ok(path) = std::env::current_exe() else { return "mainstay".to_owned() };
    let here: Option<PathBuf> = std::env::current_dir().ok();
    let shown = here.and_then(|here| path.strip_prefix(here).ok().map(PathBuf::from)).unwrap_or(path);
    shown.display().to_string()
}

/// What to paste into another terminal while the cluster is up.
pub(super) fn paste_lines(endpoints: &[SocketAddr], clients: &[SocketAddr]) -> String {
    let program = program();
    let [endpoints, clients] = [endpoints, clients]
        .map(|addresses| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    format!(
        "\nThe cluster stays up until Ctrl-C. In another terminal:\n\n  \
           {program} status --endpoints {endpoints}\n  \
           {program} put --endpoints {endpoints} greeting hello\n  \
           {program} get --endpoints {endpoints} greeting\n  \
           etcdctl --endpoints {clients} get greeting\n"
    )
}

#[cfg(test)]
mod tests {
    use super::{Meter, Written, paste_lines};
    use std::time::{Duration, Instant};

    #[allow(clippy::disallowed_methods)] // an instant to count from
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn rates_are_of_the_last_second_and_quantiles_of_all() {
        let began = now();
        let mut meter = Meter::new(began);
        let written = |micros| Written { began, ended: began + Duration::from_micros(micros), failure: None };
        for _ in 0..99 {
            meter.take_in(&written(1_000));
        }
        meter.take_in(&written(50_000));
        meter.take_in(&Written { failure: Some("gone".to_owned()), ..written(9) });
        assert_eq!(meter.line_if_due(began), None);
        let line = meter.line_if_due(began + Duration::from_secs(1)).expect("a second is over");
        assert!(line.contains("100 writes/s, p50 1.00 ms"), "{line}");
        let line = meter.line_if_due(began + Duration::from_secs(2)).expect("another second is over");
        assert!(line.contains("0 writes/s"), "{line}");
        assert!((meter.quantile_ms(1.0) - 50.0).abs() < 0.1);
        assert!(meter.failure_words().contains("gone"));
    }

    #[test]
    fn the_lines_to_paste_name_every_member() {
        let addresses = ["127.0.0.1:1", "127.0.0.1:2"].map(|address| address.parse().expect("address"));
        let lines = paste_lines(&addresses, &addresses);
        assert!(lines.contains("status --endpoints 127.0.0.1:1,127.0.0.1:2"), "{lines}");
    }
}
