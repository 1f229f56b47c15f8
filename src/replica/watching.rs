//! Watches: what clients ask of them here, and what they are told of what this member has applied.
//!
//! Always: every member serves watches from its own state, and none tells of what it has not applied, which is
//! committed; a watch from now on begins only when this member has applied everything that was committed when it was
//! asked for, because otherwise its client, which may have seen that already, would be told of it as news. Left out:
//! where each watch stands (`watch`), and how that confirmation is got (`read`).

use super::apply::Asker;
use super::group::Replica;
use super::input::Asked;
use super::{Output, group};
use crate::api::{Refusal, Response, WatchAnswer, WatchRequest};
use crate::auth::Who;
use crate::ids::{BootMicros, Revision, StreamId, WatchId};
use crate::planted;
use crate::watch::{Notice, Place, WatchRefusal, WatchSpec};

impl Replica {
    /// A client's request about the watches of one of its connections; `place` is what a new one is to be called.
    pub(super) fn watch(
        &mut self,
        (ticket, who): Asked,
        place: Place,
        request: WatchRequest,
        outputs: &mut Vec<Output>,
    ) {
        match request {
            WatchRequest::Create { spec, .. } if spec.start == Revision(0) && !planted!(37) => {
                self.gather_watch((ticket, who), place, spec, outputs);
            }
            WatchRequest::Create { spec, .. } => {
                self.create_watch(Asker::Client(ticket), who, (place, &spec), outputs);
            }
            WatchRequest::Cancel { watch } => {
                let called_off = Place { watch, ..place };
                self.forget_watches(|place| *place == called_off, outputs);
                self.watchers.remove(&called_off);
                self.watches.cancel(called_off, &mut self.notices);
                self.pass_on_notices(outputs);
                outputs.push(group::reply(ticket, Response::Watch(WatchAnswer::Cancelled)));
            }
            WatchRequest::Progress { watch } => {
                self.watch_advance();
                self.watches.ask(Place { watch, ..place }, ticket, &mut self.notices);
                self.pass_on_notices(outputs);
            }
        }
    }

    /// Creates a watch; whatever it is to be told of the past comes after the answer.
    pub(super) fn create_watch(
        &mut self,
        asker: Asker,
        who: Who,
        (place, spec): (Place, &WatchSpec),
        outputs: &mut Vec<Output>,
    ) {
        if let Err(refusal) = self.auth.may_watch(who, &spec.interest.range) {
            self.answer(asker, Response::Refused(refusal.into()), outputs);
            return;
        }
        self.watch_advance();
        self.pass_on_notices(outputs);
        let response = match self.watches.create(place, spec) {
            Ok(revision) => {
                if who != Who::Nobody {
                    self.watchers.insert(place, (who, spec.interest.range.clone()));
                }
                Response::Watch(WatchAnswer::Created { revision })
            }
            Err(WatchRefusal::NameTaken) => Response::Refused(Refusal::Malformed),
            Err(WatchRefusal::TooMany) => Response::Refused(Refusal::Overloaded),
        };
        self.answer(asker, response, outputs);
    }

    /// Some of what was told on a connection has left.
    pub(super) fn stream_taken(&mut self, stream: StreamId, waiting_bytes: usize) {
        self.watches.taken(stream, waiting_bytes, &mut self.notices);
    }

    /// A connection is no more.
    pub(super) fn stream_closed(&mut self, stream: StreamId, outputs: &mut Vec<Output>) {
        self.forget_reads_for(stream, outputs);
        let last = Place { stream, watch: WatchId(u64::MAX) };
        self.watchers.extract_if(Place { stream, watch: WatchId(0) }..=last, |_, _| true).for_each(drop);
        self.watches.close(stream, &mut self.notices);
        self.pass_on_notices(outputs);
    }

    /// Nothing is told here any more, and whoever asked how far a watch is learns that there is none. Whoever owns the
    /// connections ends them.
    pub(super) fn end_all_watches(&mut self, outputs: &mut Vec<Output>) {
        self.watchers.clear();
        self.watches.close_all(&mut self.notices);
        self.pass_on_notices(outputs);
    }

    /// Who may do what has changed: the watches end of those who may not watch any more. What they may still be told, they have
    /// been told: what the store has since then may be what they may not see.
    pub(super) fn withdraw_watches(&mut self) {
        if !self.auth.is_enabled() {
            return;
        }
        let Self { auth, watches, watchers, notices, .. } = self;
        watchers.retain(|_, (who, range)| auth.may_watch(auth.found_now(*who), range).is_ok());
        watches.withdraw(|place| watchers.contains_key(place), notices);
    }

    /// Tells the hub how far the store is. Whoever keeps up is told of it at the end of the turn.
    pub(super) fn watch_advance(&mut self) {
        self.watches.advance(&self.store, &mut self.notices);
    }

    /// The end of a turn: everyone is told what there is to be told.
    pub(super) fn serve_watches(&mut self, now: BootMicros, outputs: &mut Vec<Output>) {
        self.watch_advance();
        self.watches.catch_up(&self.store, &mut self.notices);
        self.watches.tell_progress(now, &mut self.notices);
        self.watches.assert_invariants();
        self.pass_on_notices(outputs);
    }

    /// When a watch wants to be told something at the latest.
    pub(super) fn watches_deadline(&self) -> BootMicros {
        if self.watches.has_work() { BootMicros(0) } else { self.watches.deadline() }
    }

    fn pass_on_notices(&mut self, outputs: &mut Vec<Output>) {
        for notice in self.notices.drain(..) {
            outputs.push(match notice {
                Notice::Told { to, batch } => Output::Tell { to, batch },
                Notice::Ended { to, why } => {
                    self.watchers.remove(&to);
                    Output::EndWatch { to, why }
                }
                Notice::Reached { ticket, revision } => {
                    group::reply(ticket, Response::Watch(WatchAnswer::Reached { revision }))
                }
                Notice::Gone { ticket } => group::reply(ticket, Response::Refused(Refusal::NoSuchWatch)),
            });
        }
    }
}
