//! Answers to clients as they leave their members, and what must be true of each.
//!
//! Always: an answer is checked when it leaves, whether or not it arrives. Where disks lost more than the promise covers,
//! only what is served is looked at. Left out: what clients make of it (`client`), watches (`watched`) and leases (`leases`).

use super::client::Attempt;
use super::clock::TrueMicros;
use super::events::Event;
use super::holders::Holders;
use super::invariants::{Broken, a_read_sees_the_commit_floor, holds};
use super::member::Member;
use super::run::{Mishap, Run};
use super::trace::Trace;
use crate::api::{ReadMode, Refusal, Response};
use crate::check::Call;
use crate::ids::{BootMicros, Revision, Ticket};
use crate::sometimes;

/// The newest revision that any member had applied, over time.
#[derive(Debug, Default)]
pub(super) struct Floors {
    /// In the order of time.
    since: Vec<(TrueMicros, Revision)>,
}

impl Floors {
    /// The newest one is `newest` from `now` on.
    pub(super) fn note(&mut self, now: TrueMicros, newest: Revision) {
        if self.since.last().is_none_or(|(_, known)| *known < newest) {
            self.since.push((now, newest));
        }
    }

    /// What it was just before `at`.
    fn before(&self, at: TrueMicros) -> Revision {
        let count = self.since.partition_point(|(since, _)| *since < at);
        count.checked_sub(1).and_then(|last| self.since.get(last)).map_or(Revision(0), |(_, newest)| *newest)
    }
}

impl Run {
    pub(super) fn reply(
        &mut self,
        member: usize,
        ticket: Ticket,
        response: Response,
        trace: &mut Trace,
    ) -> Result<(), Broken> {
        if self.is_watch_reply(member, ticket, &response, trace) {
            return Ok(());
        }
        let facts = [8, ticket.0, member as u64, 0];
        trace.record(self.now, facts, format_args!("m{} answers {ticket}: {response:?}", member + 1));
        self.check_reply(member, ticket, &response)?;
        let at = match self.mishap(!self.network.is_heard_by_clients(member), ticket.0) {
            None => self.now.after(self.random.waiting_time(300)),
            Some(Mishap::Late(at)) => at,
            Some(Mishap::Lost) => return Ok(()),
        };
        let response = Box::new(response);
        self.queue.plan(at, Event::Response { attempt: ticket.0, response });
        Ok(())
    }

    fn check_reply(&mut self, member: usize, ticket: Ticket, response: &Response) -> Result<(), Broken> {
        if Holders::is_theirs(ticket.0) {
            return self.check_holder_reply(ticket.0, response);
        }
        let id = self.members[member].id;
        let attempt = self.clients.attempt(ticket.0).filter(|attempt| attempt.member == member);
        holds(attempt.is_some(), "replies_answer_requests", || format!("{id} answers {ticket} unasked"))?;
        if let Response::Applied(applied) | Response::Aged { applied, .. } = response {
            self.served.take_in(self.clients.history());
            self.served.holds_only_what_was_written(id, applied)?;
        }
        if self.plan.exceeds {
            return Ok(());
        }
        if let Response::SessionOpened { session } = response {
            holds(self.truth.witness.has_opened(*session), "a_session_is_told_after_its_commit", || {
                format!("{id} told of session {session}, whose opening is not committed")
            })?;
        }
        let Some(attempt) = attempt else {
            return Ok(());
        };
        if let Some(session) = attempt.closes().filter(|_| *response == Response::SessionClosed) {
            holds(
                self.truth.witness.has_closed(session),
                "a_session_is_told_closed_after_its_commit",
                || format!("{id} told that session {session} is closed, which is not committed"),
            )?;
        }
        if let Response::Aged { age_micros, applied } = response {
            return self.an_answer_is_no_older_than_it_says(member, attempt, *age_micros, applied.revision);
        }
        let Some(operation) = attempt.operation.and_then(|at| self.clients.operation(at)) else {
            return Ok(());
        };
        let Response::Applied(applied) = response else {
            if let Call::Write { write, .. } = &operation.call
                && self.truth.witness.has_closed(write.session)
                && *response == Response::Refused(Refusal::SessionUnknown)
            {
                sometimes!(WriteAfterClosing);
            }
            return match (&operation.call, response) {
                (Call::Write { write, .. }, Response::Refused(refusal)) => {
                    self.truth.witness.a_bare_write_told_not_done_is_not_done(*write, *refusal)
                }
                _ => Ok(()),
            };
        };
        match &operation.call {
            Call::Write { write, .. } => {
                let is_committed = self.truth.witness.has_committed(*write);
                holds(is_committed, "a_write_is_answered_after_its_commit", || {
                    format!("{id} answered write {write}, which is not committed")
                })
            }
            Call::Read { is_linearizable: true, .. } => {
                a_read_sees_the_commit_floor(id, attempt.floor, applied.revision)
            }
            Call::Read { is_linearizable: false, .. } => Ok(()),
        }
    }

    /// A read with a bound is answered within it, and lacks nothing that any member had applied so long before it came,
    /// as the clock of whoever answers has it.
    fn an_answer_is_no_older_than_it_says(
        &self,
        member: usize,
        attempt: &Attempt,
        age_micros: Option<u64>,
        answered: Revision,
    ) -> Result<(), Broken> {
        let Member { id, clock, .. } = &self.members[member];
        let is_within = match attempt.read_mode() {
            Some(ReadMode::MaxAge { max_age_ms, .. }) => {
                age_micros.is_some_and(|age| age <= u64::from(max_age_ms) * 1_000)
            }
            Some(ReadMode::MinRevision { revision, .. }) => answered >= revision,
            Some(ReadMode::Linearizable | ReadMode::Serializable) | None => false,
        };
        holds(is_within, "an_answer_is_as_young_as_asked", || {
            format!("{id} answered {:?} at revision {answered}, {age_micros:?} µs old", attempt.read_mode())
        })?;
        // A member cannot know how long its clock stood still: such clocks are outside the promise.
        let Some(age_micros) = age_micros.filter(|_| !clock.has_stood_still()) else {
            return Ok(());
        };
        let shown = clock.read(attempt.arrived);
        let as_of = clock.when(BootMicros(shown.0.saturating_sub(age_micros)));
        let floor = self.floors.before(as_of);
        holds(answered >= floor, "an_answer_is_no_older_than_it_says", || {
            format!(
                "{id} answered at revision {answered}, {age_micros} µs old, so as of {as_of}, when {floor} had been applied"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_is_what_was_applied_before() {
        let mut floors = Floors::default();
        assert_eq!(floors.before(TrueMicros(9)), Revision(0));
        for (at, newest) in [(5, 2), (7, 2), (9, 4)] {
            floors.note(TrueMicros(at), Revision(newest));
        }
        assert_eq!(floors.before(TrueMicros(5)), Revision(0));
        assert_eq!(floors.before(TrueMicros(9)), Revision(2));
        assert_eq!(floors.before(TrueMicros(10)), Revision(4));
    }
}
