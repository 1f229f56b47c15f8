//! Leases count down here, on the leader alone and by its own clock.
//!
//! The log knows how long each lease was granted for and what was left of it at its last checkpoint. When each runs
//! out is known only to the leader, from the instant at which the first entry of its own term was applied, so that
//! everything acknowledged before is known to it (catalogue 56).
//!
//! What always holds:
//!
//! - A lease ends through the log: running out makes the leader propose that, and nothing else happens.
//! - Only a leader that a majority confirmed after the question came answers it, so one that was deposed and does not
//!   know it renews nothing (catalogue 34).
//! - No failover shortens a lease: what the log says remains was true when that was appended, counted from then, and
//!   a lease that was renewed since has that in the log before the renewal is acknowledged.
//! - Nor does one reset it: what remains is written down every now and then, so that a lease gains at most
//!   `checkpoint_micros` of its time with each.
//! - A renewal that comes when the end of the lease is in the log already goes through the log behind it, and so learns
//!   what became of it.
//!
//! A renewal counts from when its client sent it, or later. Left out: what a lease is and what ends with it (`kv`).

use super::apply::Asker;
use super::group::Replica;
use super::propose::Proposal;
use super::{Output, group};
use crate::api::{EncodedCommand, Refusal, Response};
use crate::auth::Who;
use crate::ids::{BootMicros, KeyspaceId, LeaseId, LogIndex, MemberId, Term, Ticket};
use crate::kv::{
    Applied, Command, LeaseCommand, LeaseLife, LeaseOutcome, Outcome, Remaining, Renewed, Store, TimeToLive,
};
use crate::limits::{
    LEASE_CHECKPOINT_MICROS, LEASE_CHECKPOINTS_APART_MICROS, LEASE_ENDS_WAITING_MAX,
    LEASES_PER_CHECKPOINT_MAX,
};
use crate::peer::Body;
use crate::raft::RoleName;
use crate::{planted, sometimes};
use std::collections::{BTreeMap, BTreeSet};
use wal_format::EntryKind;

/// What is asked about the time of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeaseQuestion {
    pub(super) lease: LeaseId,
    /// Renew it; otherwise say how it stands.
    pub(super) is_renewal: bool,
    /// Say its keys, too.
    pub(super) wants_keys: bool,
    /// Who asks.
    pub(super) who: Who,
}

/// A peer's client asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct ForwardedQuestion {
    pub(super) request: u64,
    pub(super) term: Term,
    pub(super) keyspace: KeyspaceId,
    pub(super) question: LeaseQuestion,
}

/// What the leader knows of one lease's time.
#[derive(Debug)]
struct Clock {
    grant: u64,
    ttl_micros: u64,
    /// When it runs out.
    ends: BootMicros,
    /// When what remains is written down next; only if it is worth that.
    checkpoint: Option<BootMicros>,
    /// The newest entry that says that less than all remains, though it may not be committed. A renewal is acknowledged
    /// only when one behind it says that all does.
    checkpointed: Option<LogIndex>,
    /// Its end is in the log.
    is_ending: bool,
}

/// The leases of a leader, counting down.
#[derive(Debug, Default)]
pub(super) struct Countdown {
    clocks: BTreeMap<LeaseId, Clock>,
    /// The leases whose end is not in the log yet, by when they run out.
    ends: BTreeSet<(BootMicros, LeaseId)>,
    /// The leases of which something is to be written down, by when.
    checkpoints: BTreeSet<(BootMicros, LeaseId)>,
    /// Ends in the log that are not applied.
    ends_waiting: usize,
    /// What was written down last, while that is not applied.
    checkpoint_waiting: Option<LogIndex>,
    /// The log took no more: nothing is proposed before this.
    rests_until: BootMicros,
}

/// For how long a lease may go on without what remains of it being written down, in microseconds; `None` if it is too
/// short for that to matter.
fn checkpoint_micros(ttl_micros: u64) -> Option<u64> {
    let (least, most) = LEASE_CHECKPOINT_MICROS;
    (ttl_micros / 2 >= least).then_some((ttl_micros / 2).min(most))
}

impl Countdown {
    /// Starts to count, from what the log says of each lease.
    fn start(now: BootMicros, store: &Store) -> Self {
        let mut countdown = Self::default();
        for (id, lease) in store.leases() {
            let is_checkpointed = lease.remaining_ms < lease.ttl_ms;
            if is_checkpointed {
                sometimes!(LeaseStartedFromCheckpoint);
            }
            // Catalogue 34: every failover gives every lease all of its time again.
            let remaining_ms = if planted!(134) { lease.ttl_ms } else { lease.remaining_ms };
            let clock = Clock {
                grant: lease.grant,
                ttl_micros: lease.ttl_ms * 1_000,
                ends: now,
                checkpoint: None,
                checkpointed: is_checkpointed.then_some(LogIndex(0)),
                is_ending: false,
            };
            countdown.clocks.insert(id, clock);
            countdown.set(now, id, remaining_ms * 1_000);
        }
        countdown
    }

    /// The lease runs out after `micros`, and is written down when that is due.
    fn set(&mut self, now: BootMicros, lease: LeaseId, micros: u64) {
        self.unlist(lease);
        let Some(clock) = self.clocks.get_mut(&lease) else {
            return;
        };
        clock.ends = now.after(micros);
        if !clock.is_ending {
            self.ends.insert((clock.ends, lease));
        }
        // Those that are due at about the same time go into one entry.
        let apart = LEASE_CHECKPOINTS_APART_MICROS;
        clock.checkpoint = checkpoint_micros(clock.ttl_micros)
            .map(|micros| BootMicros(now.after(micros).0.div_ceil(apart).saturating_mul(apart)))
            .filter(|due| *due < clock.ends && !clock.is_ending);
        self.checkpoints.extend(clock.checkpoint.map(|due| (due, lease)));
    }

    fn unlist(&mut self, lease: LeaseId) {
        if let Some(clock) = self.clocks.get(&lease) {
            self.ends.remove(&(clock.ends, lease));
            if let Some(due) = clock.checkpoint {
                self.checkpoints.remove(&(due, lease));
            }
        }
    }

    fn remove(&mut self, lease: LeaseId) {
        self.unlist(lease);
        self.clocks.remove(&lease);
    }

    /// The next lease that has run out.
    fn next_end(&self, now: BootMicros) -> Option<LeaseLife> {
        let (ends, lease) = *self.ends.first()?;
        let clock = self.clocks.get(&lease).expect("what is listed is counted");
        (ends <= now && self.ends_waiting < LEASE_ENDS_WAITING_MAX)
            .then_some(LeaseLife { lease, grant: clock.grant })
    }

    /// The end of the lease is in the log.
    fn end_appended(&mut self, lease: LeaseId) {
        self.unlist(lease);
        let clock = self.clocks.get_mut(&lease).expect("what runs out is counted");
        (clock.is_ending, clock.checkpoint) = (true, None);
        self.ends_waiting += 1;
    }

    /// What is to be written down now, as it will be true when it is appended. One such entry at a time, so that many leases
    /// that are due at once leave room for clients' writes.
    fn next_checkpoint(&self, now: BootMicros) -> Vec<Remaining> {
        if self.checkpoint_waiting.is_some() {
            return Vec::new();
        }
        let due = self.checkpoints.iter().take_while(|(due, _)| *due <= now);
        let remaining = |(_, lease): &(BootMicros, LeaseId)| {
            let clock = self.clocks.get(lease).expect("what is listed is counted");
            // Rounded up, so that nothing is shortened; 0 would say that it has ended.
            let remaining_ms = clock.ends.since(now).div_ceil(1_000).max(1);
            Remaining { life: LeaseLife { lease: *lease, grant: clock.grant }, remaining_ms }
        };
        due.take(LEASES_PER_CHECKPOINT_MAX).map(remaining).collect()
    }

    fn checkpoint_appended(&mut self, now: BootMicros, index: LogIndex, all: &[Remaining]) {
        self.checkpoint_waiting = Some(index);
        for Remaining { life, .. } in all {
            let clock = self.clocks.get_mut(&life.lease).expect("what is written down is counted");
            clock.checkpointed = Some(index);
            let micros = clock.ends.since(now);
            self.set(now, life.lease, micros);
        }
    }

    /// An entry about leases was applied.
    fn applied(&mut self, now: BootMicros, index: LogIndex, command: &LeaseCommand, store: &Store) {
        match command {
            LeaseCommand::Grant(_) => {}
            // One of an earlier leader may be applied before that which waits.
            LeaseCommand::Checkpoint(_) => {
                self.checkpoint_waiting = self.checkpoint_waiting.filter(|waiting| *waiting > index);
            }
            LeaseCommand::Revoke(revoke) => self.remove(revoke.lease),
            LeaseCommand::Expire(life) => {
                self.ends_waiting = self.ends_waiting.saturating_sub(1);
                if store.lease(life.lease).is_none() {
                    self.remove(life.lease);
                }
            }
            LeaseCommand::Renew(life) => {
                if let Some(clock) = self.clocks.get_mut(&life.lease)
                    && clock.grant == life.grant
                {
                    // A checkpoint behind it in the log says again that less remains.
                    clock.checkpointed = clock.checkpointed.filter(|checkpointed| *checkpointed > index);
                    let micros = clock.ttl_micros;
                    self.set(now, life.lease, micros);
                }
            }
        }
    }

    fn granted(&mut self, now: BootMicros, lease: LeaseId, store: &Store) {
        let granted = store.lease(lease).expect("what was granted just now is there");
        let ttl_micros = granted.ttl_ms * 1_000;
        let clock = Clock {
            grant: granted.grant,
            ttl_micros,
            ends: now,
            checkpoint: None,
            checkpointed: None,
            is_ending: false,
        };
        self.clocks.insert(lease, clock);
        self.set(now, lease, ttl_micros);
    }

    /// When something is to be proposed.
    fn deadline(&self) -> Option<BootMicros> {
        let has_room = self.ends_waiting < LEASE_ENDS_WAITING_MAX;
        let ends = self.ends.first().filter(|_| has_room).map(|(ends, _)| *ends);
        let is_written = self.checkpoint_waiting.is_none();
        let checkpoints = self.checkpoints.first().filter(|_| is_written).map(|(due, _)| *due);
        let due = [ends, checkpoints].into_iter().flatten().min()?;
        Some(due.max(self.rests_until))
    }

    /// Ends in the log that are not applied.
    pub(super) const fn ends_waiting(&self) -> usize {
        self.ends_waiting
    }

    /// What can be said without a walk.
    fn assert_invariants(&self, store: &Store) {
        assert_eq!(self.clocks.len(), store.lease_count(), "every lease counts down");
        assert!(
            self.ends.len() <= self.clocks.len(),
            "every lease whose end is not in the log is listed once"
        );
        assert!(self.checkpoints.len() <= self.ends.len(), "only what can be renewed is written down");
    }
}

impl Replica {
    /// A client asks about the time of a lease.
    pub(super) fn ask_lease(
        &mut self,
        now: BootMicros,
        ticket: Ticket,
        question: LeaseQuestion,
        outputs: &mut Vec<Output>,
    ) {
        if self.node.role() == RoleName::Leader {
            self.gather_question(now, Asker::Client(ticket), question, outputs);
            return;
        }
        let refusal = match self.node.leader() {
            None => Refusal::NotLeader { leader: None },
            Some(leader) => match self.await_answer(now, ticket) {
                Ok(request) => {
                    self.forward_question(leader, request, question, outputs);
                    return;
                }
                Err(refusal) => refusal,
            },
        };
        outputs.push(group::reply(ticket, Response::Refused(refusal)));
    }

    fn forward_question(
        &self,
        leader: MemberId,
        request: u64,
        question: LeaseQuestion,
        outputs: &mut Vec<Output>,
    ) {
        let LeaseQuestion { lease, is_renewal, wants_keys, who } = question;
        let (term, keyspace) = (self.node.hard_state().term, self.setup.keyspace);
        let asker = self.asker_for_peers(who);
        let body = Body::AskLease { request, term, keyspace, lease, is_renewal, wants_keys, asker };
        self.send(leader, body, outputs);
    }

    /// A peer's client asks.
    pub(super) fn forwarded_question(
        &mut self,
        now: BootMicros,
        from: MemberId,
        forwarded: ForwardedQuestion,
        outputs: &mut Vec<Output>,
    ) {
        if !self.is_new_forward(from, forwarded.request) {
            return;
        }
        let asker = Asker::Peer { member: from, request: forwarded.request };
        let leads = self.node.role() == RoleName::Leader && forwarded.term == self.node.hard_state().term;
        let refusal = if !leads {
            Refusal::NotLeader { leader: self.node.leader() }
        } else if forwarded.keyspace != self.setup.keyspace {
            Refusal::NoSuchKeyspace
        } else {
            self.gather_question(now, asker, forwarded.question, outputs);
            return;
        };
        self.answer(asker, Response::Refused(refusal), outputs);
    }

    /// Answers a question. A majority has confirmed, after it came, that this member led; it may lead no more.
    pub(super) fn answer_question(
        &mut self,
        now: BootMicros,
        asker: Asker,
        question: LeaseQuestion,
        outputs: &mut Vec<Output>,
    ) {
        let refusal = Refusal::NotLeader { leader: self.node.leader() };
        let response = match &self.countdown {
            Some(_) if let Err(refusal) = self.may_use_lease(&question) => {
                Some(Response::Refused(refusal.into()))
            }
            None => Some(Response::Refused(refusal)),
            Some(countdown) if question.is_renewal => match countdown.clocks.get(&question.lease) {
                None => Some(self.renewed(0)),
                Some(clock) => {
                    let life = LeaseLife { lease: question.lease, grant: clock.grant };
                    let needs_log = clock.checkpointed.is_some() || clock.is_ending;
                    let micros = clock.ttl_micros;
                    if needs_log {
                        self.renew_by_log(now, asker, life, micros)
                    } else {
                        self.count_again(now, life.lease, micros);
                        Some(self.renewed(micros / 1_000))
                    }
                }
            },
            Some(countdown) => Some(self.time_to_live(now, countdown, question)),
        };
        if let Some(response) = response {
            self.answer(asker, response, outputs);
        }
    }

    fn count_again(&mut self, now: BootMicros, lease: LeaseId, micros: u64) {
        if let Some(countdown) = &mut self.countdown {
            countdown.set(now, lease, micros);
        }
    }

    /// Proposes a renewal; whoever asks is answered when it is applied. The answer, if that is not possible.
    fn renew_by_log(
        &mut self,
        now: BootMicros,
        asker: Asker,
        life: LeaseLife,
        micros: u64,
    ) -> Option<Response> {
        sometimes!(LeaseRenewedThroughTheLog);
        let proposed = self.propose_for_lease(now, asker, LeaseCommand::Renew(life));
        match proposed {
            Ok(_) => {
                // So that it does not run out while the log is at work.
                self.count_again(now, life.lease, micros);
                None
            }
            Err(refusal) => Some(Response::Refused(refusal)),
        }
    }

    fn renewed(&self, ttl_ms: u64) -> Response {
        let outcome = Outcome::Lease(LeaseOutcome::Renewed(Renewed { ttl_ms }));
        Response::Applied(Applied { revision: self.store.revision(), outcome })
    }

    fn time_to_live(&self, now: BootMicros, countdown: &Countdown, question: LeaseQuestion) -> Response {
        let clock = countdown.clocks.get(&question.lease);
        let known = clock.zip(self.store.lease(question.lease)).map(|(clock, lease)| TimeToLive {
            ttl_ms: lease.ttl_ms,
            remaining_ms: clock.ends.since(now) / 1_000,
            keys: lease.keys().filter(|_| question.wants_keys).cloned().collect(),
        });
        let outcome = Outcome::Lease(LeaseOutcome::TimeToLive(known));
        Response::Applied(Applied { revision: self.store.revision(), outcome })
    }

    /// Proposes what is due.
    pub(super) fn count_leases_down(&mut self, now: BootMicros) {
        let ended = self.propose_ends(now);
        let written = ended.and_then(|()| self.propose_checkpoints(now));
        if let (Err(_), Some(countdown)) = (written, &mut self.countdown) {
            countdown.rests_until = now.after(LEASE_CHECKPOINTS_APART_MICROS);
        }
    }

    fn propose_ends(&mut self, now: BootMicros) -> Result<(), Refusal> {
        while let Some(life) = self.countdown.as_ref().and_then(|countdown| countdown.next_end(now)) {
            self.propose_for_lease(now, Asker::Nobody, LeaseCommand::Expire(life))?;
            sometimes!(LeaseRanOut);
            if let Some(countdown) = &mut self.countdown {
                countdown.end_appended(life.lease);
            }
        }
        Ok(())
    }

    fn propose_checkpoints(&mut self, now: BootMicros) -> Result<(), Refusal> {
        let all = self.countdown.as_ref().map_or_else(Vec::new, |countdown| countdown.next_checkpoint(now));
        if all.is_empty() {
            return Ok(());
        }
        let index = self.propose_for_lease(now, Asker::Nobody, LeaseCommand::Checkpoint(all.clone()))?;
        sometimes!(LeaseCheckpointed);
        if let Some(countdown) = &mut self.countdown {
            countdown.checkpoint_appended(now, index, &all);
        }
        Ok(())
    }

    fn propose_for_lease(
        &mut self,
        now: BootMicros,
        asker: Asker,
        command: LeaseCommand,
    ) -> Result<LogIndex, Refusal> {
        self.propose(now, asker, &self.lease_proposal(command))?;
        Ok(self.node.last().index)
    }

    fn lease_proposal(&self, command: LeaseCommand) -> Proposal {
        let command = EncodedCommand::encode(&Command::Lease(command)).expect("what is counted is bounded");
        let (kind, keyspace) = (EntryKind::Command, self.setup.keyspace);
        Proposal { kind, keyspace, stamp: None, who: Who::Cluster, body: command.bytes().clone() }
    }

    /// An entry of `term` was applied. The first of its own term makes a leader count.
    pub(super) fn start_counting_if_due(&mut self, now: BootMicros, term: Term) {
        let is_due = self.countdown.is_none()
            && self.node.role() == RoleName::Leader
            && term == self.node.hard_state().term;
        if is_due {
            self.countdown = Some(Countdown::start(now, &self.store));
        }
    }

    /// An entry about leases was applied: a leader counts what it did.
    pub(super) fn lease_applied(
        &mut self,
        now: BootMicros,
        index: LogIndex,
        command: &LeaseCommand,
        outcome: &Outcome,
    ) {
        let Some(countdown) = &mut self.countdown else {
            return;
        };
        countdown.applied(now, index, command, &self.store);
        if let Outcome::Lease(LeaseOutcome::Granted(granted)) = outcome {
            countdown.granted(now, granted.lease, &self.store);
        }
        countdown.assert_invariants(&self.store);
    }

    /// This member leads, and nothing of its term is committed: nobody counts.
    pub(super) fn await_counting(&mut self, now: BootMicros) {
        // Catalogue 56: it counts at once, without what is committed and not known here to be.
        self.countdown = planted!(56).then(|| Countdown::start(now, &self.store));
    }

    /// This member leads no more: what it counted is void.
    pub(super) fn stop_counting(&mut self) {
        // Catalogue 34: it goes on counting, and would end what others renewed.
        if !planted!(135) {
            self.countdown = None;
        }
    }

    /// When a lease is due.
    pub(super) fn lease_deadline(&self) -> Option<BootMicros> {
        self.countdown.as_ref().and_then(Countdown::deadline)
    }
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
