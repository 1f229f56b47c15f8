//! Locks and elections, on nothing but leases, transactions and reads.
//!
//! ```text
//!   NAME/1f3a   created at revision 12   <- holds the lock; its fencing token is 12
//!   NAME/07c2   created at revision 15   <- waits for the key before it
//! ```
//!
//! Each candidate has one key under the name, attached to its lease and called after it (etcd's way, so that both
//! protocols' clients queue in one line). The one that was created first holds the lock, or leads. When its lease ends,
//! the key goes, and the next one's turn has come. A key that is not called after its own lease is no candidate, so a lock
//! `a` and a lock `a/b` do not wait for each other.
//!
//! What always holds: of all keys under a name at most one is the oldest, so at most one candidate holds the lock at any
//! revision; each new holder's **fencing token**, the create revision of its key, is larger than all before it. A holder
//! that is paused for longer than its lease does not know that it lost the lock: whatever it writes to must be given the
//! token and refuse a smaller one than it has seen. In the store itself, compare the create revision of the key.
//!
//! What a holder counts by is one moment, the one until which its lease lasts at the least: a third of the time into the
//! lease it is to be renewed, no attempt to renew it outlives the lease, and a fifth of the time before the end whatever
//! rests on the lock is to be ended.
//!
//! ```text
//!   renewal sent        renew_in = 0                    end_in = 0     sure_for = 0
//!   |-------------------|-------------------------------|--------------|
//!   0                   ttl/3                           4 ttl/5        ttl
//! ```
//!
//! Who waits watches the key right before its own, so that the end of one key wakes one candidate, and asks again then: whose
//! turn it is only a linearizable read tells.
//!
//! Left out: threads. Who waits renews its own lease; who holds has to renew it ([`Held::keep_alive`]).

use super::blocking::Client;
use super::clock::{BootInstant, now};
use super::failure::Failure;
use super::watcher::{WatchEvent, Watcher};
use crate::api::ReadMode;
use crate::ids::{LeaseId, Revision};
use crate::kv::{
    Applied, Command, Compare, CompareOperator, CompareTarget, Filter, KeyRange, KeyValue, LeaseOutcome,
    Operation, Outcome, Put, Query, Range, RangeResult, Sort, SortBy, SortOrder, StoreRefusal, Txn,
};
use crate::watch::{Interest, WatchSpec};
use bytes::Bytes;
use std::time::Duration;

/// Between two looks at whether one's turn has come, where nobody serves a watch.
///
/// Chosen: a person does not notice it, and a thousand who wait cost a member little.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How many keys under a name are looked at first.
///
/// Chosen: one or two would do where nothing but candidates is under the name; a few more cost nothing.
const LOOKED_AT: u64 = 8;

/// How long giving up a place in a queue may take.
///
/// Chosen: a commit takes far less; after it the lease's time does the same.
const GIVE_UP_PATIENCE: Duration = Duration::from_millis(500);

/// How long before the end of a lease at the most that which rests on it is told to end.
///
/// Chosen: as long as service managers let a process take to end.
const END_PATIENCE_MAX: Duration = Duration::from_secs(10);

/// A lock that is held, or an election that is won.
#[derive(Clone, Debug)]
pub struct Held {
    /// The key that stands for it; it goes with the lease.
    pub key: Bytes,
    /// The lease.
    pub lease: LeaseId,
    /// The fencing token: larger than that of every earlier holder of the same name.
    pub fence: Revision,
    ttl: Duration,
    /// Until when the lease lasts at the least.
    sure_until: BootInstant,
}

/// Why a lock is not held.
#[derive(Debug, thiserror::Error)]
pub enum NotHeld {
    /// The cluster did not serve.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// The store refused the lease or the key.
    #[error("the store refused it: {0:?}")]
    Refused(StoreRefusal),
    /// The lease ran out, or was revoked.
    #[error("the lease has ended")]
    Lost,
    /// The key that would stand for it is there already, and is somebody else's.
    #[error("its key is there already, under a lease that was just made")]
    KeyExists,
    /// It was not free within the time.
    #[error("it was not free in time")]
    TimedOut,
    /// The cluster refuses to tell, in words.
    #[error("{0}")]
    Unserved(String),
    /// An answer of another kind than the question.
    #[error("the answer does not fit the request: {0}")]
    Unfitting(String),
}

impl Held {
    /// Whether the lease cannot have ended yet. Only a fencing token is sure for whoever is about to write elsewhere.
    pub fn is_surely_held(&self) -> bool {
        !self.sure_for().is_zero()
    }

    /// For how long yet the lease cannot have ended; zero if it may have.
    pub fn sure_for(&self) -> Duration {
        self.sure_until.saturating_duration_since(now())
    }

    /// In what time to renew it, so that an attempt that fails leaves time for others.
    pub fn renew_in(&self) -> Duration {
        self.sure_for().saturating_sub(self.ttl.saturating_sub(self.ttl / 3))
    }

    /// In what time whatever rests on it is to be ended unless it is renewed first, so that it has time to end.
    pub fn end_in(&self) -> Duration {
        self.sure_for().saturating_sub((self.ttl / 5).min(END_PATIENCE_MAX))
    }

    /// Renews the lease. No attempt to do so outlives the time for which it is surely held.
    ///
    /// # Errors
    /// `Lost`: it has ended, and the lock with it. `Failure`: nobody answered; try again while `is_surely_held`.
    pub fn keep_alive(&mut self, client: &mut Client) -> Result<(), NotHeld> {
        self.renew(client, self.sure_for())
    }

    /// Renews the lease within `patience`, whether it is still sure or not.
    fn renew(&mut self, client: &mut Client, patience: Duration) -> Result<(), NotHeld> {
        let sent = now();
        match client.keep_lease_alive_within(self.lease, patience)?.outcome {
            Outcome::Lease(LeaseOutcome::Renewed(renewed)) if renewed.ttl_ms > 0 => {
                self.ttl = Duration::from_millis(renewed.ttl_ms);
                self.sure_until = sent + self.ttl;
                Ok(())
            }
            Outcome::Lease(LeaseOutcome::Renewed(_)) => Err(NotHeld::Lost),
            other => Err(unfitting(&other)),
        }
    }

    /// Changes what the key holds: what the leader of an election proclaims.
    ///
    /// # Errors
    /// `Lost`: it leads no more, and nothing was changed.
    pub fn proclaim(&self, client: &mut Client, value: Bytes) -> Result<(), NotHeld> {
        let txn = Txn {
            compares: vec![is_created_at(&self.key, self.fence)],
            success: vec![put(&self.key, value, self.lease)],
            failure: Vec::new(),
        };
        let succeeded = transact(client, txn)?.0;
        if succeeded { Ok(()) } else { Err(NotHeld::Lost) }
    }

    /// Gives it up: the next one's turn has come.
    ///
    /// # Errors
    /// The cluster did not serve; then it ends with the lease.
    pub fn release(self, client: &mut Client) -> Result<(), NotHeld> {
        match client.revoke_lease(self.lease)?.outcome {
            Outcome::Lease(LeaseOutcome::Revoked) | Outcome::Refused(StoreRefusal::LeaseNotFound) => Ok(()),
            other => Err(unfitting(&other)),
        }
    }
}

impl Client {
    /// Waits until the lock `name` is held, or the election won with `value` proclaimed; `patience` at the most. However
    /// long it waited, what it returns is held for two thirds of `ttl` at the least.
    ///
    /// # Errors
    /// It is not held, and its key and lease are given up.
    pub fn hold(
        &mut self,
        name: &Bytes,
        value: Bytes,
        ttl: Duration,
        patience: Option<Duration>,
    ) -> Result<Held, NotHeld> {
        let asked = now();
        let mut held = self.queue_up(name, value, ttl)?;
        match self.wait_for_turn(name, &mut held, patience.map(|patience| asked + patience)) {
            Ok(()) => Ok(held),
            Err(not_held) => {
                // If that fails, too, the lease ends by itself.
                let _ = held.release(self);
                Err(not_held)
            }
        }
    }

    /// Who holds a lock or leads an election, if anybody does: the pair of its key.
    ///
    /// # Errors
    /// The read was not served.
    pub fn holder(&mut self, name: &Bytes) -> Result<Option<KeyValue>, NotHeld> {
        let range = Range { sort: Some(by_age(SortOrder::Ascending)), ..Range::new(under(name)) };
        Ok(self.candidates(name, &range, 1)?.1.pop())
    }

    /// Makes a lease, and the key that waits for its turn.
    fn queue_up(&mut self, name: &Bytes, value: Bytes, ttl: Duration) -> Result<Held, NotHeld> {
        let sent = now();
        let lease = match self.grant_lease(LeaseId(0), ttl)?.outcome {
            Outcome::Lease(LeaseOutcome::Granted(granted)) => granted.lease,
            Outcome::Refused(refusal) => return Err(NotHeld::Refused(refusal)),
            other => return Err(unfitting(&other)),
        };
        let key = key_of(name, lease);
        let txn = Txn {
            compares: vec![is_created_at(&key, Revision(0))],
            success: vec![put(&key, value, lease)],
            failure: Vec::new(),
        };
        let queued = match transact(self, txn) {
            Ok((true, fence)) => return Ok(Held { key, lease, fence, ttl, sure_until: sent + ttl }),
            Ok((false, _)) => Err(NotHeld::KeyExists),
            Err(not_held) => Err(not_held),
        };
        // Nobody would wait for this key's turn, were it there or come yet, and others would wait behind it. If this fails,
        // too, both end with the lease's time.
        let _ = self.revoke_lease_within(lease, GIVE_UP_PATIENCE);
        queued
    }

    /// Waits until no key that was created earlier is left. Nobody but the next in line is woken by the end of a key.
    fn wait_for_turn(
        &mut self,
        name: &Bytes,
        held: &mut Held,
        deadline: Option<BootInstant>,
    ) -> Result<(), NotHeld> {
        let mut watched: Option<(Bytes, Watcher)> = None;
        loop {
            let (revision, before) = self.next_before(name, held)?;
            if held.renew_in().is_zero() {
                // All this may have taken as long as the lease, so whose turn has come renews it before it is said so.
                // Nothing rests on it yet, so it may be tried for longer than it is sure.
                held.renew(self, self.timeout())?;
            }
            let Some(before) = before else {
                if held.renew_in().is_zero() {
                    continue;
                }
                return Ok(());
            };
            let patience = deadline.map(|deadline| deadline.saturating_duration_since(now()));
            if patience.is_some_and(|patience| patience.is_zero()) {
                return Err(NotHeld::TimedOut);
            }
            if watched.as_ref().is_none_or(|(key, _)| *key != before) {
                let watcher = self.watch(end_of(before.clone(), revision));
                watched = Some((before, watcher));
            }
            if let Some((_, watcher)) = &mut watched {
                wait_for_end(watcher, held.renew_in().min(patience.unwrap_or(Duration::MAX)));
            }
        }
    }

    /// The candidate right before `held`, if there is one, and the revision at which that is so.
    fn next_before(&mut self, name: &Bytes, held: &Held) -> Result<(Revision, Option<Bytes>), NotHeld> {
        let range = Range {
            filter: Filter { create_max: held.fence, ..Filter::default() },
            sort: Some(by_age(SortOrder::Descending)),
            keys_only: true,
            ..Range::new(under(name))
        };
        let (revision, found) = self.candidates(name, &range, 2)?;
        let mut found = found.into_iter();
        match found.next() {
            Some(own) if own.key == held.key => Ok((revision, found.next().map(|pair| pair.key))),
            Some(_) | None => Err(NotHeld::Lost),
        }
    }

    /// The first `count` of the candidates for `name` in a range of keys, and the revision at which they were read.
    pub(super) fn candidates(
        &mut self,
        name: &Bytes,
        range: &Range,
        count: usize,
    ) -> Result<(Revision, Vec<KeyValue>), NotHeld> {
        let look = |client: &mut Self, limit| {
            let (revision, result) = client.range(Range { limit, ..range.clone() })?;
            let found = result.pairs.into_iter().filter(|pair| is_candidate(name, pair)).take(count);
            Ok((revision, found.collect::<Vec<_>>(), result.more))
        };
        let (revision, found, has_more) = look(self, LOOKED_AT)?;
        if found.len() == count || !has_more {
            return Ok((revision, found));
        }
        // In most places nothing but candidates is under a name. Where there is more, all of it has to be looked at.
        look(self, 0).map(|(revision, found, _)| (revision, found))
    }

    fn range(&mut self, range: Range) -> Result<(Revision, RangeResult), NotHeld> {
        let Applied { revision, outcome } = self.read(Query::Range(range), ReadMode::Linearizable)?;
        match outcome {
            Outcome::Range(result) => Ok((revision, result)),
            other => Err(unfitting(&other)),
        }
    }
}

/// Whether a transaction's compares held, and the revision after it.
fn transact(client: &mut Client, txn: Txn) -> Result<(bool, Revision), NotHeld> {
    let applied = client.write(&Command::Txn(txn))?;
    match applied.outcome {
        Outcome::Txn(result) => Ok((result.succeeded, applied.revision)),
        Outcome::Refused(StoreRefusal::LeaseNotFound) => Err(NotHeld::Lost),
        Outcome::Refused(refusal) => Err(NotHeld::Refused(refusal)),
        other => Err(unfitting(&other)),
    }
}

/// All keys of the candidates for `name`.
pub(super) fn under(name: &Bytes) -> KeyRange {
    // '0' comes right after '/'.
    let start = Bytes::from([name.as_ref(), b"/"].concat());
    KeyRange::Span { start, end: Bytes::from([name.as_ref(), b"0"].concat()) }
}

pub(super) const fn by_age(order: SortOrder) -> Sort {
    Sort { by: SortBy::Create, order }
}

/// A watch for the end of a key that was there at `revision`.
fn end_of(key: Bytes, revision: Revision) -> WatchSpec {
    let interest = Interest { skips_puts: true, ..Interest::all(KeyRange::Key(key)) };
    WatchSpec { interest, start: revision.next(), wants_progress: false }
}

/// Waits until the watch tells of something, or may have missed it, or the time is over.
fn wait_for_end(watcher: &mut Watcher, patience: Duration) {
    let until = now() + patience;
    loop {
        match watcher.next(until.saturating_duration_since(now())) {
            Ok(Some(WatchEvent::At { .. } | WatchEvent::Lost { .. })) => {}
            Ok(Some(WatchEvent::Told(_) | WatchEvent::Compacted { .. }) | None) => return,
            Err(_) => {
                std::thread::park_timeout(LOOK_EVERY.min(until.saturating_duration_since(now())));
                return;
            }
        }
        if now() >= until {
            return;
        }
    }
}

/// The key of a candidate.
fn key_of(name: &Bytes, lease: LeaseId) -> Bytes {
    Bytes::from([name.as_ref(), format!("/{:x}", lease.0).as_bytes()].concat())
}

/// Whether a pair under `name` is a candidate for it: its key is called after its lease. One for `name/more` is not, and
/// neither is a key that somebody keeps there.
pub(super) fn is_candidate(name: &Bytes, pair: &KeyValue) -> bool {
    pair.lease != LeaseId(0) && pair.key == key_of(name, pair.lease)
}

fn is_created_at(key: &Bytes, revision: Revision) -> Compare {
    Compare {
        range: KeyRange::Key(key.clone()),
        operator: CompareOperator::Equal,
        target: CompareTarget::Create(revision),
    }
}

fn put(key: &Bytes, value: Bytes, lease: LeaseId) -> Operation {
    Operation::Put(Put { lease, ..Put::new(key.clone(), value) })
}

fn unfitting(outcome: &Outcome) -> NotHeld {
    NotHeld::Unfitting(format!("{outcome:?}"))
}
