//! The client's clock: this boot's own, which goes on while the machine is suspended.
//!
//! A lease does not wait for a holder that sleeps: members count its time on a clock of this kind (DESIGN §9), so whoever
//! counts what is left of it with one that stood still would believe to hold what ended long ago. Left out: waiting. What
//! waits for a while waits longer when the machine is suspended, and looks at this clock after.

use core::ops::Add;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// A moment of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BootInstant(Duration);

impl BootInstant {
    /// The time since `earlier`; zero if that is in fact later.
    pub(super) const fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for BootInstant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// Now, by `CLOCK_BOOTTIME`.
pub(super) fn now() -> BootInstant {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).expect("the boot clock counts up from zero");
    let nanos = u32::try_from(time.tv_nsec).expect("a fraction of a second is not negative");
    BootInstant(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::{BootInstant, now};
    use rustix::time::{ClockId, clock_gettime};
    use std::time::Duration;

    /// Elsewhere than in a test nothing but `now` reads a clock.
    fn boot_time() -> BootInstant {
        let time = clock_gettime(ClockId::Boottime);
        let part = |number| u64::try_from(number).expect("not negative");
        BootInstant(Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec)))
    }

    #[test]
    fn it_is_the_clock_that_goes_on_in_suspend() {
        let (before, told, after) = (boot_time(), now(), boot_time());
        assert!(before <= told && told <= after, "{before:?} {told:?} {after:?}");
    }

    #[test]
    fn what_is_earlier_is_no_time_ago() {
        let second = Duration::from_secs(1);
        let (one, other) = (now(), now() + second);
        assert!(other.saturating_duration_since(one) >= second);
        assert_eq!(one.saturating_duration_since(other), Duration::ZERO);
        assert!(one + Duration::MAX > other);
    }
}
