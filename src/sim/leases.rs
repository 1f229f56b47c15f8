//! Leases in a run: what holders ask and are told, when leases end in the committed log, and whether that is as promised.
//!
//! Always checked: no lease ends before its time, at the very end; a member says that a lease is gone only when it is;
//! after the faults every lease ends, and where nothing hindered the counting, in time. Left out: how the time is
//! counted, but for one thing that no history shows: who counts (`invariants`).

use super::clock::TrueMicros;
use super::events::Event;
use super::invariants::{Broken, holds};
use super::run::{Mishap, Run};
use super::trace::Trace;
use crate::api::Response;
use crate::check::{LeaseBounds, LeaseHistory, judge_lease};
use crate::kv::{Applied, LeaseOutcome, Outcome, StoreRefusal};

/// How long it may take a calm cluster from a lease's running out to the commit of its end.
const COMMIT_MICROS: u64 = 500_000;

/// How long leases may take to end once nobody renews them: longer than any of them lasts.
const END_MICROS_MAX: u64 = 12_000_000;

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
    pub(super) fn check_holder_reply(&self, ticket: u64, response: &Response) -> Result<(), Broken> {
        let history = self.holders.history_of(ticket);
        let is_said_gone = matches!(
            response,
            Response::Applied(Applied { outcome: Outcome::Lease(LeaseOutcome::Renewed(renewed)), .. })
                if renewed.ttl_ms == 0
        );
        let is_refused = matches!(
            response,
            Response::Applied(Applied { outcome: Outcome::Refused(StoreRefusal::LeaseNotFound), .. })
        );
        let is_gone = history.is_some_and(|history| history.ended.is_some());
        let is_said_gone = is_said_gone || is_refused;
        holds(self.plan.exceeds || !is_said_gone || is_gone, "a_lease_is_said_gone_after_its_end", || {
            format!("{history:?} has not ended")
        })
    }

    /// Takes in what was committed about leases in this event.
    pub(super) fn note_leases(&mut self) -> Result<(), Broken> {
        self.holders.users_are_at(self.truth.witness.auth_revision());
        for news in self.truth.witness.take_lease_news() {
            let bounds = self.lease_bounds();
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
