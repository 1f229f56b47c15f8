//! Forwarding: a member that does not lead hands a client's proposal to the leader and passes the answer back.
//!
//! Always: one hop, once: a member that receives a forward and does not lead refuses it, and a frame that the network
//! delivers twice is proposed once, because each forward of one boot has a number higher than all before it, and
//! because it is proposed only in the term in which it was sent: a leader that restarts has forgotten the numbers,
//! but never leads that term again.
//! When the answer does not come, the outcome is unknown, and is called so. An answer is passed on when this member has
//! applied what it is of, so that whoever got it finds it in a local read here (etcd's rule). Left out: reads, which ask
//! the leader for an index only and are answered here (`read`).

use super::apply::Asker;
use super::bootstrap::mix;
use super::group::Replica;
use super::propose::{self, Proposal};
use super::{Output, group};
use crate::api::{Refusal, Response, Stamp};
use crate::auth::Who;
use crate::ids::{BootMicros, KeyspaceId, MemberId, Revision, Term, Ticket};
use crate::kv::{LeaseOutcome, Outcome};
use crate::limits::FORWARD_BOOTS_MAX;
use crate::peer::{Body, ForwardStamp};
use crate::sometimes;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use wal_format::EntryKind;

/// What this member has forwarded and not heard of since.
#[derive(Debug)]
pub(super) struct Forwards {
    /// Random high half of the request numbers of this boot.
    boot: u32,
    /// Low half: how many were forwarded.
    count: u32,
    /// By request number, hence in the order of their deadlines.
    waiting: BTreeMap<u64, (Ticket, BootMicros)>,
    /// Answers of a revision that this member has not reached, by that and by request number. Those stay in `waiting`.
    early: BTreeMap<(Revision, u64), Response>,
}

impl Forwards {
    pub(super) fn new(seed: u64) -> Self {
        let boot = u32::try_from(mix(seed ^ 0x666f_7277) >> 32).expect("32 bits are left");
        Self { boot, count: 0, waiting: BTreeMap::new(), early: BTreeMap::new() }
    }

    /// How many were not heard of yet.
    pub(super) fn count(&self) -> usize {
        self.waiting.len()
    }

    /// When the oldest forward is given up.
    pub(super) fn deadline(&self) -> Option<BootMicros> {
        self.waiting.first_key_value().map(|(_, (_, deadline))| *deadline)
    }

    fn next_request(&mut self) -> u64 {
        self.count = self.count.wrapping_add(1);
        if self.count == 0 {
            // Peers take it for another boot, which is all that they need to know.
            self.boot = self.boot.wrapping_add(1);
            self.count = 1;
        }
        u64::from(self.boot) << 32 | u64::from(self.count)
    }
}

/// Which forwards of peers were seen: the highest number of each peer's boots.
#[derive(Debug, Default)]
pub(super) struct SeenForwards {
    highest: BTreeMap<MemberId, Vec<(u32, u32)>>,
}

impl SeenForwards {
    /// How many boots are remembered, over all peers.
    pub(super) fn count(&self) -> usize {
        self.highest.values().map(Vec::len).sum()
    }

    /// Whether this number is news; if so, it never is again.
    fn is_new(&mut self, from: MemberId, request: u64) -> bool {
        let boot = u32::try_from(request >> 32).expect("32 bits are left");
        let count = u32::try_from(request & u64::from(u32::MAX)).expect("32 bits are kept");
        let boots = self.highest.entry(from).or_default();
        if let Some((_, highest)) = boots.iter_mut().find(|(known, _)| *known == boot) {
            let is_new = count > *highest;
            *highest = count.max(*highest);
            return is_new;
        }
        if boots.len() == FORWARD_BOOTS_MAX {
            boots.remove(0);
        }
        boots.push((boot, count));
        true
    }
}

/// A proposal that a peer handed to us, as it came.
#[derive(Debug)]
pub(super) struct Forwarded {
    pub(super) request: u64,
    pub(super) term: Term,
    pub(super) kind: u8,
    pub(super) keyspace: KeyspaceId,
    pub(super) stamp: Option<ForwardStamp>,
    pub(super) who: Who,
    pub(super) body: Bytes,
}

impl Replica {
    /// Hands a client's proposal to the leader.
    ///
    /// # Errors
    /// `Overloaded`: too many wait already; nothing was sent.
    pub(super) fn forward(
        &mut self,
        now: BootMicros,
        ticket: Ticket,
        leader: MemberId,
        proposal: Proposal,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let request = self.await_answer(now, ticket)?;
        self.send_proposal(leader, request, proposal, outputs);
        Ok(())
    }

    /// Hands the leader something of this member's own, whose answer nobody awaits.
    pub(super) fn hand_on(&mut self, leader: MemberId, proposal: Proposal, outputs: &mut Vec<Output>) {
        let request = self.forwards.next_request();
        self.send_proposal(leader, request, proposal, outputs);
    }

    /// The number under which the leader's answer to `ticket` is awaited.
    ///
    /// # Errors
    /// `Overloaded`: too many wait already.
    pub(super) fn await_answer(&mut self, now: BootMicros, ticket: Ticket) -> Result<u64, Refusal> {
        if self.forwards.waiting.len() >= self.setup.proposals_max() {
            return Err(Refusal::Overloaded);
        }
        let request = self.forwards.next_request();
        let deadline = now.after(4 * self.setup.election_micros);
        self.forwards.waiting.insert(request, (ticket, deadline));
        Ok(request)
    }

    fn send_proposal(&self, leader: MemberId, request: u64, proposal: Proposal, outputs: &mut Vec<Output>) {
        let stamp = proposal.stamp.map(|stamp| ForwardStamp {
            session: stamp.session,
            sequence: stamp.sequence,
            low_water: stamp.low_water,
        });
        let body = Body::Forward {
            request,
            term: self.node.hard_state().term,
            kind: proposal.kind.number(),
            keyspace: proposal.keyspace,
            stamp,
            asker: self.asker_for_peers(proposal.who),
            body: proposal.body,
        };
        self.send(leader, body, outputs);
    }

    /// Whether what a peer handed to us was not seen before.
    pub(super) fn is_new_forward(&mut self, from: MemberId, request: u64) -> bool {
        let is_new = self.seen_forwards.is_new(from, request);
        if !is_new {
            sometimes!(ForwardDoubled);
        }
        is_new
    }

    /// A peer handed its client's proposal to us.
    pub(super) fn forwarded(
        &mut self,
        now: BootMicros,
        from: MemberId,
        forwarded: Forwarded,
        outputs: &mut Vec<Output>,
    ) {
        // A frame that came twice is proposed twice, as if sessions would tell the copies apart.
        if !self.is_new_forward(from, forwarded.request) && !crate::planted!(107) {
            return;
        }
        let asker = Asker::Peer { member: from, request: forwarded.request };
        let proposal = EntryKind::from_number(forwarded.kind).map(|kind| Proposal {
            kind,
            keyspace: forwarded.keyspace,
            stamp: forwarded.stamp.map(|stamp| Stamp {
                session: stamp.session,
                sequence: stamp.sequence,
                low_water: stamp.low_water,
            }),
            who: forwarded.who,
            body: forwarded.body,
        });
        let is_this_term = forwarded.term == self.node.hard_state().term;
        if !is_this_term {
            sometimes!(ForwardOfAnotherTerm);
        }
        let admitted = match proposal {
            _ if !is_this_term => Err(Refusal::NotLeader { leader: self.node.leader() }),
            Some(proposal) if proposal.keyspace == self.setup.keyspace => {
                propose::check(&proposal).and_then(|()| self.propose(now, asker, &proposal))
            }
            Some(_) => Err(Refusal::NoSuchKeyspace),
            None => Err(Refusal::Malformed),
        };
        if let Err(refusal) = admitted {
            self.answer(asker, Response::Refused(refusal), outputs);
        }
    }

    /// The leader answered a forward.
    pub(super) fn forward_answered(&mut self, request: u64, response: &Bytes, outputs: &mut Vec<Output>) {
        if !self.forwards.waiting.contains_key(&request) {
            return;
        }
        sometimes!(ForwardAnswered);
        let response =
            crate::api::decode_response(response).unwrap_or(Response::Refused(Refusal::ForwardLost));
        match &response {
            Response::Applied(applied)
                if applied.revision > self.store.revision() && !is_of_time(&applied.outcome) =>
            {
                sometimes!(ForwardAnsweredEarly);
                self.forwards.early.entry((applied.revision, request)).or_insert(response);
            }
            Response::Applied(_)
            | Response::Aged { .. }
            | Response::SessionOpened { .. }
            | Response::SessionClosed
            | Response::Status(_)
            | Response::Watch(_)
            | Response::Snapshot(_)
            | Response::Users { .. }
            | Response::Refused(_) => self.pass_answer_on(request, response, outputs),
        }
    }

    fn pass_answer_on(&mut self, request: u64, response: Response, outputs: &mut Vec<Output>) {
        if let Some((ticket, _)) = self.forwards.waiting.remove(&request) {
            outputs.push(group::reply(ticket, response));
        }
    }

    /// The store may have come to revisions that answers wait for.
    pub(super) fn pass_early_answers_on(&mut self, outputs: &mut Vec<Output>) {
        let newest = self.store.revision();
        while let Some(entry) = self.forwards.early.first_entry()
            && entry.key().0 <= newest
        {
            let ((_, request), response) = entry.remove_entry();
            self.pass_answer_on(request, response, outputs);
        }
    }

    /// Forwards whose answer did not come in time have an unknown outcome.
    pub(super) fn give_up_forwards(&mut self, now: BootMicros, outputs: &mut Vec<Output>) {
        let mut given_up = BTreeSet::new();
        while self.forwards.deadline().is_some_and(|deadline| deadline <= now) {
            sometimes!(ForwardTimedOut);
            let (request, (ticket, _)) =
                self.forwards.waiting.pop_first().expect("a deadline belongs to a forward");
            given_up.insert(request);
            outputs.push(group::reply(ticket, Response::Refused(Refusal::ForwardLost)));
        }
        if !given_up.is_empty() {
            self.forwards.early.retain(|(_, request), _| !given_up.contains(request));
        }
    }

    /// Nothing is applied here any more.
    pub(super) fn abandon_forwards(&mut self, outputs: &mut Vec<Output>) {
        self.forwards.early.clear();
        self.lose_forwards(outputs);
    }

    /// The leader is another, or none: what was forwarded to the old one and not answered has an unknown outcome.
    pub(super) fn lose_forwards(&mut self, outputs: &mut Vec<Output>) {
        let answered: BTreeSet<u64> = self.forwards.early.keys().map(|(_, request)| *request).collect();
        let (kept, lost) = std::mem::take(&mut self.forwards.waiting)
            .into_iter()
            .partition(|(request, _)| answered.contains(request));
        self.forwards.waiting = kept;
        let lost: BTreeMap<u64, (Ticket, BootMicros)> = lost;
        for (_, (ticket, _)) in lost {
            sometimes!(ForwardLostWithLeader);
            outputs.push(group::reply(ticket, Response::Refused(Refusal::ForwardLost)));
        }
    }
}

/// Whether an answer is of a lease's time, which is the leader's alone: no local read shows it.
const fn is_of_time(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Lease(LeaseOutcome::Renewed(_) | LeaseOutcome::TimeToLive(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_delivered_twice_or_late_is_taken_once() {
        let mut seen = SeenForwards::default();
        let boot = 7_u64 << 32;
        assert!(seen.is_new(MemberId(2), boot | 1));
        assert!(!seen.is_new(MemberId(2), boot | 1));
        assert!(seen.is_new(MemberId(2), boot | 3));
        assert!(!seen.is_new(MemberId(2), boot | 2));
        assert!(seen.is_new(MemberId(3), boot | 1));
        assert!(seen.is_new(MemberId(2), 8_u64 << 32 | 1));
    }
}
