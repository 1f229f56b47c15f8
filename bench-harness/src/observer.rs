//! What processes cost while they are measured: CPU, context switches, and how late this machine lets a thread run.
//!
//! What always holds: the figures are differences of the kernel's own counters between two instants. What it leaves
//! out: work that the kernel does for a process in somebody else's name (a loopback packet is received by whoever
//! sends it), and threads that ended in between, whose switches are lost.

use hdrhistogram::Histogram;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The kernel counts a process's time in hundredths of a second for everybody who reads `stat` (`USER_HZ`).
const TICK_MICROS: u64 = 10_000;

/// How long the thread sleeps that finds out how late it wakes.
const NAP: Duration = Duration::from_millis(1);

/// A nap is recorded as this late if it was later: a minute.
const LATENESS_NANOS_MAX: u64 = 60_000_000_000;

/// A process that is watched.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    /// Its name in a cluster.
    pub(crate) name: String,
    /// Its id.
    pub(crate) pid: u32,
}

/// What a process has cost: since it began, or between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// CPU, user and system.
    pub(crate) cpu_micros: u64,
    /// Of it, in the kernel.
    pub(crate) system_micros: u64,
    /// Context switches of all its threads, voluntary or not.
    pub(crate) switches: u64,
}

impl Usage {
    /// What `pid` has cost so far; `None` once it is gone.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (user, system) = times_in(&stat)?;
        let mut switches = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            // A thread may end between the two looks.
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            switches += switches_in(&status);
        }
        let system_micros = system * TICK_MICROS;
        Some(Self { cpu_micros: user * TICK_MICROS + system_micros, system_micros, switches })
    }

    /// What it has cost since `earlier`.
    #[must_use]
    pub(crate) const fn since(self, earlier: Self) -> Self {
        Self {
            cpu_micros: self.cpu_micros.saturating_sub(earlier.cpu_micros),
            system_micros: self.system_micros.saturating_sub(earlier.system_micros),
            switches: self.switches.saturating_sub(earlier.switches),
        }
    }

    /// Both together.
    #[must_use]
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self {
            cpu_micros: self.cpu_micros + other.cpu_micros,
            system_micros: self.system_micros + other.system_micros,
            switches: self.switches + other.switches,
        }
    }
}

/// User and system time in a line of `/proc/PID/stat`. The second field is a name in parentheses that may hold
/// anything, so fields are counted from its end.
fn times_in(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn switches_in(status: &str) -> u64 {
    let lines = status.lines().filter(|line| line.contains("ctxt_switches:"));
    lines.filter_map(|line| line.rsplit('\t').next()?.trim().parse::<u64>().ok()).sum()
}

/// CPU that anybody on this machine has used since its start, in microseconds.
pub(crate) fn busy_micros() -> Option<u64> {
    busy_ticks_in(&fs::read_to_string("/proc/stat").ok()?).map(|ticks| ticks * TICK_MICROS)
}

/// All of the first line of `/proc/stat` but idling and waiting (fields 4 and 5), up to what a hypervisor took.
fn busy_ticks_in(stat: &str) -> Option<u64> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(7);
    let ticks = fields.map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    Some(ticks.iter().sum::<u64>() - idle)
}

/// A thread that naps for a millisecond again and again and notes how late it wakes: this machine's noise.
#[derive(Debug)]
pub(crate) struct Hiccups {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Histogram<u64>>,
}

impl Hiccups {
    /// Starts to nap.
    pub(crate) fn start() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        Self { is_over, thread: std::thread::spawn(move || nap_until(&seen)) }
    }

    /// How late it woke each time, in nanoseconds.
    pub(crate) fn stop(self) -> Histogram<u64> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("a nap does not panic")
    }
}

#[allow(clippy::disallowed_methods)] // what is measured is real time
fn nap_until(is_over: &AtomicBool) -> Histogram<u64> {
    let bounds = Histogram::new_with_bounds(1, LATENESS_NANOS_MAX, 3);
    let mut lateness = bounds.expect("the bounds are constants in order");
    while !is_over.load(Ordering::Relaxed) {
        let before = Instant::now();
        // Nobody unparks this thread.
        std::thread::park_timeout(NAP);
        let late = before.elapsed().saturating_sub(NAP);
        lateness.saturating_record(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX));
    }
    lateness
}

#[cfg(test)]
mod tests {
    use super::{Hiccups, Usage, busy_ticks_in, switches_in, times_in};

    #[test]
    fn times_are_found_behind_whatever_the_process_is_called() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 123 45 0 0 20 0 1";
        assert_eq!(times_in(stat), Some((123, 45)));
        assert_eq!(times_in("12 (cut"), None);
    }

    #[test]
    fn a_machine_is_busy_with_everything_but_idling() {
        let stat = "cpu  100 1 20 5000 600 3 4 77 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy_ticks_in(stat), Some(128));
        assert_eq!(busy_ticks_in("intr 5"), None);
    }

    #[test]
    fn both_kinds_of_switches_count() {
        assert_eq!(
            switches_in("Name:\tx\nvoluntary_ctxt_switches:\t40\nnonvoluntary_ctxt_switches:\t2\n"),
            42
        );
    }

    #[test]
    fn the_cost_of_this_process_grows_and_naps_are_late() {
        let before = Usage::of(std::process::id()).expect("this process runs");
        let hiccups = Hiccups::start();
        while Usage::of(std::process::id()).expect("this process runs").since(before).switches < 20 {}
        let lateness = hiccups.stop();
        assert!(lateness.len() > 1);
        assert!(lateness.max() > 1_000, "no kernel wakes a thread within a microsecond");
        assert!(Usage::of(u32::MAX).is_none());
    }
}
