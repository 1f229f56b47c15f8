//! Was what clients were told of their leases kept? Never early, and in time.
//!
//! A lease that was granted or renewed, as its client was told, lasts for its TTL at the least, counted from when the
//! client *asked*. And it ends: its TTL after the last renewal at the latest, or, if a leader took over since, when what the
//! log said remained is over.
//!
//! A lease whose client asked for its end is not early. Always: it goes by what clients asked and were told and by when the end was committed, on one true line of time, and
//! knows nothing of how time is counted. Whether a renewal without an answer took effect nobody knows, so such a
//! lease is not judged late. Left out: what ends with a lease, which the judges of histories see.

use crate::ids::LeaseId;
use core::fmt;

/// What happened to one lease; times are on one line, in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseHistory {
    /// Which.
    pub lease: LeaseId,
    /// How long a renewal makes it last.
    pub ttl_micros: u64,
    /// Its grant and its renewals, as they were asked for.
    pub renewals: Vec<Renewal>,
    /// When its end was committed.
    pub ended: Option<u64>,
    /// Whether it ended because its client asked for that.
    pub is_revoked: bool,
    /// The last leader that took over while the lease lived, if nothing hindered it in counting since.
    pub counted: Option<Counted>,
}

/// A question that makes a lease last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// When it was asked.
    pub asked: u64,
    /// What the client was told.
    pub told: Told,
}

/// What a client was told of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The lease lasts, at this time.
    Lasts(u64),
    /// For certain, nothing was done.
    NotDone,
    /// Nothing, or nothing certain.
    Nothing,
}

impl Renewal {
    const fn promised_at(&self) -> Option<u64> {
        match self.told {
            Told::Lasts(at) => Some(at),
            Told::NotDone | Told::Nothing => None,
        }
    }
}

/// From when on a leader counts a lease down, and from how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// When the first entry of its term was committed.
    pub from: u64,
    /// What the log before it says remained.
    pub remaining_micros: u64,
}

/// What is allowed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseBounds {
    /// How fast or slow clocks may be, in millionths.
    pub drift_ppm: u32,
    /// How long it may take from running out to the commit of the end.
    pub commit_micros: u64,
    /// The time of looking.
    pub now: u64,
}

/// A promise about a lease that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseViolation {
    /// It ended before its time.
    Early {
        /// When it ended.
        ended: u64,
        /// Until when its client could be sure of it.
        sure_until: u64,
    },
    /// It went on for too long.
    Late {
        /// When it ended; `None` if it has not.
        ended: Option<u64>,
        /// When it had to have ended.
        due: u64,
    },
}

impl fmt::Display for LeaseViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Early { ended, sure_until } => {
                write!(f, "it ended at {ended} µs, and its client was sure of it until {sure_until} µs")
            }
            Self::Late { ended: Some(ended), due } => {
                write!(f, "it ended at {ended} µs, and had to by {due} µs")
            }
            Self::Late { ended: None, due } => write!(f, "it has not ended, and had to by {due} µs"),
        }
    }
}

/// Judges one lease.
///
/// # Errors
/// The promise that was not kept.
pub fn judge_lease(history: &LeaseHistory, bounds: LeaseBounds) -> Result<(), LeaseViolation> {
    let drift = u64::from(bounds.drift_ppm);
    let at_least = history.ttl_micros - history.ttl_micros * drift / 1_000_000;
    let at_most = |micros: u64| micros + micros * drift / 1_000_000;
    let told = history.renewals.iter().filter(|renewal| renewal.promised_at().is_some());
    if let Some(ended) = history.ended.filter(|_| !history.is_revoked)
        && let Some(sure_until) = told.map(|renewal| renewal.asked + at_least).max()
        && ended < sure_until
    {
        return Err(LeaseViolation::Early { ended, sure_until });
    }
    let is_certain = history.renewals.iter().all(|renewal| renewal.told != Told::Nothing);
    let (Some(counted), true) = (history.counted, is_certain) else {
        return Ok(());
    };
    let renewed = history.renewals.iter().filter_map(Renewal::promised_at).filter(|at| *at > counted.from);
    let due = renewed.map(|at| at + at_most(history.ttl_micros)).max().unwrap_or(0);
    let due = due.max(counted.from + at_most(counted.remaining_micros)) + bounds.commit_micros;
    if history.ended.unwrap_or(bounds.now) > due {
        return Err(LeaseViolation::Late { ended: history.ended, due });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    /// A lease of ten seconds, granted at 1 s and renewed at 5 s.
    fn renewed() -> LeaseHistory {
        let told = |asked| Renewal { asked, told: Told::Lasts(asked + 10_000) };
        LeaseHistory {
            lease: LeaseId(7),
            ttl_micros: 10 * SECOND,
            renewals: vec![told(SECOND), told(5 * SECOND)],
            ended: Some(15 * SECOND + 20_000),
            is_revoked: false,
            counted: Some(Counted { from: SECOND / 2, remaining_micros: 0 }),
        }
    }

    fn judge(history: &LeaseHistory) -> Result<(), LeaseViolation> {
        let bounds = LeaseBounds { drift_ppm: 0, commit_micros: SECOND / 2, now: 60 * SECOND };
        judge_lease(history, bounds)
    }

    #[test]
    fn a_lease_that_ends_in_time_is_kept() {
        assert_eq!(judge(&renewed()), Ok(()));
    }

    #[test]
    fn one_that_ends_before_its_renewal_is_over_is_early() {
        let early = LeaseHistory { ended: Some(15 * SECOND - 1), ..renewed() };
        let violation = LeaseViolation::Early { ended: 15 * SECOND - 1, sure_until: 15 * SECOND };
        assert_eq!(judge(&early), Err(violation));
        let revoked = LeaseHistory { is_revoked: true, ..early.clone() };
        assert_eq!(judge(&revoked), Ok(()), "its client asked for that");
        let bounds = LeaseBounds { drift_ppm: 100, commit_micros: 0, now: 60 * SECOND };
        let by_a_fast_clock = LeaseHistory { counted: None, ..early };
        assert_eq!(
            judge_lease(&by_a_fast_clock, bounds),
            Ok(()),
            "the clock of the leader may have been fast"
        );
    }

    #[test]
    fn a_renewal_that_was_never_answered_promises_nothing_and_excuses_lateness() {
        let mut unsure = renewed();
        unsure.renewals.push(Renewal { asked: 9 * SECOND, told: Told::Nothing });
        assert_eq!(judge(&unsure), Ok(()));
        unsure.ended = Some(18 * SECOND);
        assert_eq!(judge(&unsure), Ok(()));
        unsure.renewals[2].told = Told::NotDone;
        assert!(judge(&unsure).is_err(), "one that was refused for certain excuses nothing");
    }

    #[test]
    fn one_that_goes_on_is_late_and_so_is_one_that_ends_too_late() {
        let due = 15 * SECOND + 10_000 + SECOND / 2;
        let late = LeaseHistory { ended: Some(due + 1), ..renewed() };
        assert_eq!(judge(&late), Err(LeaseViolation::Late { ended: Some(due + 1), due }));
        let for_ever = LeaseHistory { ended: None, ..renewed() };
        assert_eq!(judge(&for_ever), Err(LeaseViolation::Late { ended: None, due }));
    }

    #[test]
    fn a_failover_that_resets_the_time_is_late() {
        // At 12 s a leader takes over, and the log says that 4 s remain.
        let counted = Some(Counted { from: 12 * SECOND, remaining_micros: 4 * SECOND });
        let kept = LeaseHistory { ended: Some(16 * SECOND + 10_000), counted, ..renewed() };
        assert_eq!(judge(&kept), Ok(()));
        let reset = LeaseHistory { ended: Some(22 * SECOND), ..kept };
        let due = 16 * SECOND + SECOND / 2;
        assert_eq!(judge(&reset), Err(LeaseViolation::Late { ended: Some(22 * SECOND), due }));
    }
}
