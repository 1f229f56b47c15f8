//! Watches in a run: how what clients ask and members tell gets from one to the other, and what must be true of it.

use super::clock::TrueMicros;
use super::events::Event;
use super::invariants::{Broken, holds};
use super::run::Run;
use super::trace::Trace;
use super::watchers::{Arrival, WatchEvent};
use crate::api::{EncodedCommand, Request, Response};
use crate::auth::Who;
use crate::check::Replay;
use crate::ids::{KeyspaceId, Revision, StreamId, Ticket};
use crate::kv::{Command, Compact};
use crate::replica::Input;
use crate::watch::{Batch, Ending, Place};

/// Tickets of requests about watches are these and above; those of all other clients stay below.
const TICKETS_OF_WATCHES: u64 = 1 << 41;

/// The ticket of whoever compacts, who heeds no answer.
const TICKET_OF_COMPACTION: u64 = TICKETS_OF_WATCHES - 1;

/// Mean time between two compactions, in runs that have any.
const COMPACTION_MICROS: u64 = 2_500_000;

/// How long watches may take to be told everything once the cluster is at rest.
const TELL_MICROS_MAX: u64 = 10_000_000;

impl Run {
    /// Something happens to a watching client.
    pub(super) fn watch_happens(&mut self, event: WatchEvent, trace: &mut Trace) -> Result<(), Broken> {
        trace.record(self.now, [10, 0, 0, 0], format_args!("{event:?}"));
        match event {
            WatchEvent::Decides { watcher } => {
                let newest = self.truth.newest_revision();
                self.watchers.decide(self.now, watcher, newest, &mut self.queue);
                Ok(())
            }
            WatchEvent::Arrives { request } => self.watch_request_arrives(request, trace),
            WatchEvent::Reads { stream } => {
                let waiting = self.watchers.read(self.now, stream, &mut self.queue);
                match (waiting, self.watchers.end_of(stream)) {
                    (Some(waiting_bytes), Some((member, boot, _))) if self.members[member].boot == boot => {
                        let stream = StreamId(stream as u64);
                        self.give(member, Input::StreamTaken { stream, waiting_bytes }, trace)
                    }
                    _ => Ok(()),
                }
            }
            WatchEvent::IsOver { stream } => match self.watchers.end_of(stream) {
                Some((member, boot, false)) if self.members[member].boot == boot => {
                    self.give(member, Input::StreamClosed { stream: StreamId(stream as u64) }, trace)
                }
                _ => Ok(()),
            },
        }
    }

    fn watch_request_arrives(&mut self, request: usize, trace: &mut Trace) -> Result<(), Broken> {
        let floor = self.truth.newest_revision();
        let Some(Arrival { stream, member, boot, name, request: asked }) =
            self.watchers.arrive(request, floor)
        else {
            return Ok(());
        };
        let this = &self.members[member];
        let is_there = this.is_up() && boot.is_none_or(|boot| boot == this.boot);
        if !is_there
            || !self.network.hears_clients(member)
            || self.random.chance(self.plan.client_loss_chance)
        {
            self.watchers.lose(self.now, stream, &mut self.queue);
            return Ok(());
        }
        self.watchers.reached(stream, this.boot);
        let input = Input::Watch {
            ticket: Ticket(TICKETS_OF_WATCHES + request as u64),
            who: Who::Cluster,
            stream: StreamId(stream as u64),
            name,
            request: asked,
        };
        self.give(member, input, trace)
    }

    /// A member answers; if that is to a request about watches, or to whoever compacts, it is seen to here.
    pub(super) fn is_watch_reply(
        &mut self,
        member: usize,
        ticket: Ticket,
        response: &Response,
        trace: &mut Trace,
    ) -> bool {
        if ticket.0 >= TICKETS_OF_WATCHES {
            self.watch_reply(member, ticket, response, trace);
        }
        ticket.0 >= TICKET_OF_COMPACTION
    }

    fn watch_reply(&mut self, member: usize, ticket: Ticket, response: &Response, trace: &mut Trace) {
        trace.record(self.now, [11, ticket.0, 0, 0], format_args!("m{} answers {response:?}", member + 1));
        let request = usize::try_from(ticket.0 - TICKETS_OF_WATCHES).unwrap_or(usize::MAX);
        let Some((stream, name)) = self.watchers.place_of(request) else { return };
        if self.stream_carries(member, StreamId(stream as u64)) {
            self.watchers.answer(self.now, (stream, name), response.clone(), &mut self.queue);
        }
    }

    /// A member tells watches the same.
    pub(super) fn tell(&mut self, member: usize, to: &[Place], batch: &Batch, trace: &mut Trace) {
        let facts = [13, batch.revision.0, batch.events.len() as u64, to.len() as u64];
        trace.record(self.now, facts, format_args!("m{} tells {to:?} {batch:?}", member + 1));
        for place in to {
            if self.stream_carries(member, place.stream) {
                self.watchers.tell(self.now, place, batch.clone(), &mut self.queue);
            }
        }
    }

    /// A member tells a watch that it has ended.
    pub(super) fn end_watch(&mut self, member: usize, to: Place, why: Ending, trace: &mut Trace) {
        let compacted = if let Ending::Compacted(compacted) = why { compacted } else { Revision(0) };
        let facts = [14, to.stream.0, compacted.0, 0];
        trace.record(self.now, facts, format_args!("m{} ends {to:?} for {why:?}", member + 1));
        if self.stream_carries(member, to.stream) {
            self.watchers.end(self.now, to, why, &mut self.queue);
        }
    }

    /// Whether a stream carries what a member says on it now. One that does not is lost.
    fn stream_carries(&mut self, member: usize, stream: StreamId) -> bool {
        let at = usize::try_from(stream.0).unwrap_or(usize::MAX);
        let is_open = self
            .watchers
            .end_of(at)
            .is_some_and(|(to, boot, is_open)| is_open && to == member && boot == self.members[member].boot);
        if !is_open {
            return false;
        }
        let is_cut = !self.network.is_heard_by_clients(member);
        if is_cut || self.random.chance(self.plan.client_loss_chance / 10) {
            self.watchers.lose(self.now, at, &mut self.queue);
            return false;
        }
        true
    }

    /// Somebody compacts, and will again while there are faults.
    pub(super) fn compact(&mut self, trace: &mut Trace) -> Result<(), Broken> {
        if self.plan.is_calm {
            return Ok(());
        }
        let wait = self.random.waiting_time(COMPACTION_MICROS * self.plan.pace);
        self.queue.plan(self.now.after(wait), Event::Compaction);
        let newest = self.truth.newest_revision().0;
        let behind = self.random.magnitude(1, 60) - 1;
        let revision = Revision(newest.saturating_sub(behind).max(1));
        let command = EncodedCommand::encode(&Command::Compact(Compact { revision }));
        let Ok(command) = command else { return Ok(()) };
        let member = self.random.position(self.members.len());
        let request = Request::Write { keyspace: KeyspaceId::FIRST, stamp: None, command };
        self.give(
            member,
            Input::Client { ticket: Ticket(TICKET_OF_COMPACTION), who: Who::Cluster, request },
            trace,
        )
    }

    /// Plans the first compaction, in runs that have any.
    pub(super) fn plan_compaction(&mut self) {
        if self.plan.compacts {
            self.queue.plan(TrueMicros(COMPACTION_MICROS), Event::Compaction);
        }
    }

    /// Checks that everyone who watches is told everything, once nothing new happens.
    pub(super) fn check_watches_are_told(&mut self, trace: &mut Trace) -> Result<(), Broken> {
        self.wait_until(TELL_MICROS_MAX, trace, |run| run.untold(&run.replay()).is_none())?;
        let untold = self.untold(&self.replay());
        holds(untold.is_none(), "every_watch_is_told_everything", || untold.unwrap_or_default())
    }

    /// Checks what all watches were told in this run.
    pub(super) fn check_watches(&self) -> Result<(), Broken> {
        let stray = self.watchers.stray();
        holds(stray.is_none(), "what_is_told_is_of_a_watch_there_is", || stray.cloned().unwrap_or_default())?;
        let replay = self.replay();
        for way in self.watchers.ways() {
            if let Err(violation) = replay.check(way) {
                let explanation = violation.to_string();
                return Err(Broken { invariant: "watches_are_told_what_they_are_owed", explanation });
            }
        }
        Ok(())
    }

    fn replay(&self) -> Replay {
        let mut replay = Replay::of(self.truth.witness.order());
        replay.compact(self.truth.witness.compacted());
        replay
    }

    /// An event that somebody who watches was not told of.
    fn untold(&self, replay: &Replay) -> Option<String> {
        self.watchers.standing().find_map(|(spec, next)| {
            let mut owed = replay.owed(&spec, (next, replay.newest()));
            owed.next().map(|event| format!("{spec:?} stands before {next}, and {event:?} has happened"))
        })
    }
}
