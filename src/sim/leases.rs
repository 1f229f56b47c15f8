//! Leases in a run: what holders ask and are told, when leases end in the committed log, and whether that is as promised.
//!
//! Always checked: no lease ends before its time, at the very end; a member says that a lease is gone only when it is;
//! what it says of how long a lease lasts its holder can count on; a lease is revoked only if its holder wants that;
//! after the faults every lease ends, and where nothing hindered the counting, in time. Left out: how the time is
//! counted, but for one thing that no history shows: who counts (`invariants`).

use super::clock::TrueMicros;
use super::events::Event;
use super::holders::{LeaseNews, Purpose, is_held_key};
use super::invariants::{Broken, holds};
use super::run::{Mishap, Run};
use super::trace::Trace;
use crate::api::{Certainty, Response};
use crate::check::{LeaseBounds, LeaseHistory, Told, judge_lease};
use crate::kv::{Applied, LeaseOutcome, Outcome, StoreRefusal, TimeToLive};

/// How long it may take a calm cluster from a lease's running out to the commit of its end.
const COMMIT_MICROS: u64 = 500_000;

/// How long leases may take to end once nobody renews them: longer than any of them lasts.
const END_MICROS_MAX: u64 = 12_000_000;

const SAID_GONE: &str = "a_lease_is_said_gone_after_its_end";
const REVOKED: &str = "a_lease_is_revoked_at_its_holders_word";

/// Whether an answer says that the lease has ended that was asked about.
fn says_gone(response: &Response) -> bool {
    let Response::Applied(Applied { outcome, .. }) = response else { return false };
    match outcome {
        Outcome::Lease(LeaseOutcome::Renewed(renewed)) => renewed.ttl_ms == 0,
        Outcome::Lease(LeaseOutcome::Revoked) | Outcome::Refused(StoreRefusal::LeaseNotFound) => true,
        _ => false,
    }
}

/// Whether what was asked and said of a lease that lasts is what its holder may count on.
fn judge_time_to_live(
    history: &LeaseHistory,
    known: &TimeToLive,
    (asked, now): (TrueMicros, TrueMicros),
    drift_ppm: u32,
) -> Result<(), String> {
    let has_ended = history.ended.is_some_and(|ended| ended <= asked.0);
    if has_ended || history.ttl_micros != known.ttl_ms * 1_000 || known.remaining_ms > known.ttl_ms {
        return Err("it has ended, or is another".to_owned());
    }
    if !known.keys.iter().all(is_held_key) || !known.keys.is_sorted() {
        return Err("its keys are no holder's".to_owned());
    }
    // Whatever was promised before the question counts, by a clock that may be fast.
    let promised = history.renewals.iter().filter(|it| matches!(it.told, Told::Lasts(at) if at <= asked.0));
    let passed = promised.map(|it| now.0 - it.asked).min();
    let due = passed.map_or(0, |micros| {
        let counted = micros + micros * u64::from(drift_ppm) / 1_000_000;
        history.ttl_micros.saturating_sub(counted)
    });
    if (known.remaining_ms + 1) * 1_000 < due {
        return Err(format!("{due} µs remain at the least"));
    }
    Ok(())
}

impl Run {
    /// A holder's request arrives at its member.
    pub(super) fn holder_request_arrives(&mut self, ticket: u64, trace: &mut Trace) -> Result<(), Broken> {
        let Some((member, input)) = self.holders.asked(ticket) else {
            return Ok(());
        };
        trace.record(
            self.now,
            [10, ticket, member as u64, 0],
            format_args!("m{} is asked {input:?}", member + 1),
        );
        match self.mishap(!self.network.hears_clients(member), ticket) {
            Some(Mishap::Late(at)) => {
                self.queue.plan(at, Event::HolderRequest { ticket });
                Ok(())
            }
            Some(Mishap::Lost) => Ok(()),
            None => self.give(member, input, trace),
        }
    }

    /// A member answers a holder.
    pub(super) fn check_holder_reply(&mut self, ticket: u64, response: &Response) -> Result<(), Broken> {
        if self.plan.exceeds {
            return Ok(());
        }
        let (history, purpose) = (self.holders.history_of(ticket), self.holders.purpose(ticket));
        let is_gone = history.is_some_and(|history| history.ended.is_some());
        if let (Some(Purpose::Question { asked, was_living }), Some(history)) = (purpose, history)
            && let Response::Applied(Applied {
                outcome: Outcome::Lease(LeaseOutcome::TimeToLive(known)), ..
            }) = response
        {
            let is_wrong = known.is_none() && was_living && !is_gone;
            holds(!is_wrong, SAID_GONE, || format!("{history:?} has not ended"))?;
            let judged = known.as_ref().map_or(Ok(()), |known| {
                judge_time_to_live(history, known, (asked, self.now), self.holders.drift_ppm())
            });
            return holds(judged.is_ok(), "a_time_to_live_is_as_promised", || {
                format!("{history:?}, of which {known:?} was said: {}", judged.err().unwrap_or_default())
            });
        }
        if let (Some(Purpose::Revocation), Response::Refused(refusal)) = (purpose, response)
            && refusal.certainty() == Certainty::NotDone
        {
            let is_revoked = history.is_some_and(|history| history.is_revoked);
            self.holders.revocation_refused(ticket);
            return holds(!is_revoked, REVOKED, || format!("ticket {ticket} was told that it is not done"));
        }
        holds(!says_gone(response) || is_gone, SAID_GONE, || format!("{history:?} has not ended"))
    }

    /// Takes in what was committed about leases in this event.
    pub(super) fn note_leases(&mut self) -> Result<(), Broken> {
        self.holders.users_are_at(self.truth.witness.auth_revision());
        for news in self.truth.witness.take_lease_news() {
            let bounds = self.lease_bounds();
            if let LeaseNews::Revoked(lease) = news {
                let is_wanted = self.holders.may_be_revoked(lease);
                holds(is_wanted, REVOKED, || {
                    format!("nobody asks for the end of {lease}, and it is revoked")
                })?;
            }
            if let Some(ended) = self.holders.note(self.now, news) {
                let early_only = LeaseHistory { counted: None, ..ended.clone() };
                let judged = judge_lease(&early_only, bounds);
                holds(judged.is_ok(), "no_lease_ends_early", || {
                    format!(
                        "{ended:?}: {}",
                        judged.map_or_else(|wrong| wrong.to_string(), |()| String::new())
                    )
                })?;
            }
        }
        Ok(())
    }

    /// After the faults: every lease that nobody renews ends, and in time.
    pub(super) fn check_leases(&mut self, trace: &mut Trace) -> Result<(), Broken> {
        self.wait_until(END_MICROS_MAX, trace, |run| run.holders.living_count() == 0)?;
        let living = self.holders.living_count();
        holds(living == 0, "every_lease_ends", || format!("{living} leases have not ended"))?;
        let bounds = self.lease_bounds();
        for history in self.holders.histories() {
            let judged = judge_lease(history, bounds);
            holds(judged.is_ok(), "leases_end_in_time", || {
                format!("{history:?}: {}", judged.map_or_else(|wrong| wrong.to_string(), |()| String::new()))
            })?;
        }
        Ok(())
    }

    fn lease_bounds(&self) -> LeaseBounds {
        let TrueMicros(now) = self.now;
        LeaseBounds { drift_ppm: self.holders.drift_ppm(), commit_micros: COMMIT_MICROS, now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Renewal;
    use crate::ids::LeaseId;

    #[test]
    fn what_is_said_of_a_lease_is_held_against_what_was_promised_before_the_question() {
        let renewals = vec![Renewal { asked: 1_000_000, told: Told::Lasts(1_010_000) }];
        let (ended, is_revoked, counted) = (None, false, None);
        let history =
            LeaseHistory { lease: LeaseId(1), ttl_micros: 3_000_000, renewals, ended, is_revoked, counted };
        let judge = |history: &LeaseHistory, asked, ttl_ms, remaining_ms, key: &'static str| {
            let known = TimeToLive { ttl_ms, remaining_ms, keys: vec![key.into()] };
            judge_time_to_live(history, &known, (TrueMicros(asked), TrueMicros(2_000_000)), 0).is_ok()
        };
        assert!(judge(&history, 1_900_000, 3_000, 2_000, "held/1"));
        assert!(!judge(&history, 1_900_000, 3_000, 1_998, "held/1"), "its holder was promised more");
        assert!(judge(&history, 1_005_000, 3_000, 1, "held/1"), "that was promised after the question");
        assert!(!judge(&history, 1_900_000, 3_000, 3_001, "held/1"), "more than it was granted for");
        assert!(!judge(&history, 1_900_000, 2_000, 2_000, "held/1"), "another lease");
        assert!(!judge(&history, 1_900_000, 3_000, 2_000, "key/1"), "a key that no holder has");
        let over = LeaseHistory { ended: Some(1_800_000), ..history };
        assert!(!judge(&over, 1_900_000, 3_000, 2_000, "held/1"), "it had ended when this was asked");
        assert!(judge(&over, 1_700_000, 3_000, 2_000, "held/1"));
    }
}
