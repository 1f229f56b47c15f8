//! Time: one true line of it, and clocks that each count from an instant of their own.
//!
//! Always: a member never learns the true time. Each boot of each member reads a clock with a random epoch and a
//! rate that drifts within a bound, so that code which compares two members' clocks, or two boots' clocks of one
//! member, is wrong by days and is found out (RELIABILITY §7).
//! A clock can stand still for a while, as a hypervisor's guest sees it. Left out: wall clocks, which no part of a
//! member reads; clocks that go back.

use super::random::Random;
use crate::ids::BootMicros;
use core::fmt;

/// Microseconds of true time since the run began. Only the simulator sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrueMicros(pub u64);

impl TrueMicros {
    /// The instant `micros` later.
    #[must_use]
    pub const fn after(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }
}

impl fmt::Display for TrueMicros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// What one boot of one member reads as the time.
#[derive(Clone, Copy, Debug)]
pub(super) struct BootClock {
    booted: TrueMicros,
    epoch: u64,
    /// Parts per million by which this clock runs fast; negative when slow.
    drift_ppm: i32,
    /// The time over which it stood still last, or still does.
    frozen: (TrueMicros, TrueMicros),
    /// How long it had stood still before that, in all.
    lost_micros: u64,
}

/// How far apart two epochs can be: thirty days.
const EPOCH_MICROS_MAX: u64 = 30 * 24 * 3_600 * 1_000_000;

impl BootClock {
    /// The clock of a boot that begins at `booted`, drifting at most `drift_ppm_max` either way.
    pub(super) fn new(booted: TrueMicros, drift_ppm_max: u32, random: &mut Random) -> Self {
        let bound = i32::try_from(drift_ppm_max).unwrap_or(i32::MAX);
        let drift = random.between(0, 2 * u64::from(drift_ppm_max));
        Self {
            booted,
            epoch: random.below(EPOCH_MICROS_MAX),
            drift_ppm: i32::try_from(drift).unwrap_or(0) - bound,
            frozen: (booted, booted),
            lost_micros: 0,
        }
    }

    /// Stands still from `now` on until `until`, unless it does already; returns whether that is new.
    pub(super) fn freeze(&mut self, now: TrueMicros, until: TrueMicros) -> bool {
        let is_new = self.frozen.1 <= now;
        if is_new {
            self.lost_micros += self.frozen.1.0 - self.frozen.0.0;
            self.frozen = (now, until.max(now));
        }
        is_new
    }

    /// From when on it counts what begins at `now`.
    pub(super) fn counts_from(&self, now: TrueMicros) -> TrueMicros {
        now.max(self.frozen.1)
    }

    /// Whether it ever stood still, or does.
    pub(super) const fn has_stood_still(&self) -> bool {
        self.lost_micros > 0 || self.frozen.0.0 < self.frozen.1.0
    }

    /// Goes on, if it stands still.
    pub(super) fn thaw(&mut self, now: TrueMicros) {
        self.frozen.1 = self.frozen.1.min(now).max(self.frozen.0);
    }

    /// What the clock shows at `now`.
    pub(super) fn read(&self, now: TrueMicros) -> BootMicros {
        let (from, until) = self.frozen;
        let standing = now.min(until).0.saturating_sub(from.0) + self.lost_micros;
        let elapsed = now.0.saturating_sub(self.booted.0).saturating_sub(standing);
        let rate = u128::from(self.rate());
        let shown = u128::from(elapsed) * rate / 1_000_000;
        BootMicros(self.epoch.saturating_add(u64::try_from(shown).unwrap_or(u64::MAX)))
    }

    /// The first true instant at which the clock shows `reading` or later.
    pub(super) fn when(&self, reading: BootMicros) -> TrueMicros {
        let shown = u128::from(reading.0.saturating_sub(self.epoch));
        let elapsed = (shown * 1_000_000).div_ceil(u128::from(self.rate()));
        let at = self.booted.after(u64::try_from(elapsed).unwrap_or(u64::MAX)).after(self.lost_micros);
        let (from, until) = self.frozen;
        if at > from { at.after(until.0 - from.0) } else { at }
    }

    fn rate(&self) -> u64 {
        u64::try_from(1_000_000 + i64::from(self.drift_ppm)).unwrap_or(1).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_read_back_is_reached_and_not_a_microsecond_early() {
        let mut random = Random::new(3);
        for _ in 0..1_000 {
            let clock = BootClock::new(TrueMicros(random.below(1 << 40)), 50_000, &mut random);
            let start = clock.read(clock.booted);
            let deadline = start.after(random.below(1 << 30) + 1);
            let when = clock.when(deadline);
            assert!(clock.read(when) >= deadline);
            assert!(clock.read(TrueMicros(when.0 - 1)) < deadline);
        }
    }

    #[test]
    fn a_clock_that_stood_still_goes_on_from_where_it_stood() {
        let mut clock = BootClock::new(TrueMicros(0), 0, &mut Random::new(5));
        let start = clock.read(TrueMicros(0));
        for (from, until) in [(100, 400), (500, 600)] {
            clock.freeze(TrueMicros(from), TrueMicros(until));
        }
        assert_eq!(clock.read(TrueMicros(550)), start.after(200));
        assert_eq!(clock.read(TrueMicros(650)), start.after(250));
        assert_eq!(clock.when(start.after(250)), TrueMicros(650));
        assert_eq!(clock.when(start.after(200)), TrueMicros(500));
        clock.thaw(TrueMicros(550));
        assert_eq!(clock.read(TrueMicros(600)), start.after(250));
    }

    #[test]
    fn two_boots_have_nothing_in_common() {
        let mut random = Random::new(4);
        let first = BootClock::new(TrueMicros(0), 100, &mut random);
        let second = BootClock::new(TrueMicros(0), 100, &mut random);
        let apart = first.read(TrueMicros(0)).0.abs_diff(second.read(TrueMicros(0)).0);
        assert!(apart > 1_000_000);
    }
}
