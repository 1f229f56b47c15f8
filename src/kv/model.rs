//! The store as one would write it with no regard for speed: a list of changes, replayed for every question.
//!
//! It shares the vocabulary of `command.rs` with the store and nothing else, so that a mistake would have to be
//! made twice to go unseen.

use super::command::{
    Applied, Command, Compact, Compare, CompareOperator, CompareTarget, DeleteRange, DeleteRangeResult,
    Grant, KeyRange, KeyValue, LeaseCommand, LeaseLife, LeaseOutcome, Operation, OperationResult, Outcome,
    Put, PutResult, Query, Range, RangeResult, Renewed, Revoke, SortBy, SortOrder, StoreRefusal, Txn,
    TxnResult,
};
use super::{CompactedTo, Event};
use crate::ids::{LeaseId, Revision};
use crate::limits::{
    KEY_BYTES_MAX, LEASE_TTL_MILLIS_MAX, TXN_OPERATIONS_MAX, TXN_WALKS_MAX, VALUE_BYTES_MAX,
};
use bytes::Bytes;
use std::collections::BTreeSet;

/// Changes, oldest first: revision, key, and the new value with its lease, or None for a deletion.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    changes: Vec<(u64, Bytes, Option<Held>)>,
    /// Every lease ever granted, oldest first. Its number is its place, counted from 1.
    leases: Vec<Lease>,
    /// The revisions of the compactions, oldest first. Nothing is forgotten here; it is only refused.
    compactions: Vec<u64>,
    alarms: BTreeSet<Option<u64>>,
}

/// A value and the lease that goes with it.
type Held = (Bytes, LeaseId);

#[derive(Clone, Debug)]
struct Lease {
    id: LeaseId,
    ttl_ms: u64,
    remaining_ms: u64,
    has_ended: bool,
}

type Answer<T> = Result<T, StoreRefusal>;

impl Model {
    pub(super) fn apply(&mut self, command: &Command) -> Applied {
        let before = self.changes.len();
        let outcome = self.run(command).unwrap_or_else(|refusal| {
            self.changes.truncate(before);
            Outcome::Refused(refusal)
        });
        Applied { revision: Revision(self.revision()), outcome }
    }

    pub(super) fn query(&self, query: &Query) -> Applied {
        let txn = match query {
            Query::Range(range) => Txn { success: vec![Operation::Range(range.clone())], ..Txn::default() },
            Query::Txn(txn) => txn.clone(),
            Query::Leases => {
                let mut leases: Vec<_> =
                    self.leases.iter().filter(|lease| !lease.has_ended).map(|lease| lease.id).collect();
                leases.sort_unstable();
                let outcome = Outcome::Lease(LeaseOutcome::Listed(leases));
                return Applied { revision: Revision(self.revision()), outcome };
            }
        };
        let outcome = check(&txn).and_then(|()| {
            if has_write(&txn) {
                Err(StoreRefusal::WriteInQuery)
            } else {
                self.clone().run(&Command::Txn(txn))
            }
        });
        let outcome = outcome.map(|outcome| match (query, outcome) {
            (Query::Range(_), Outcome::Txn(mut result)) => match result.results.pop() {
                Some(OperationResult::Range(result)) => Outcome::Range(result),
                other => panic!("a range answered {other:?}"),
            },
            (_, outcome) => outcome,
        });
        Applied { revision: Revision(self.revision()), outcome: outcome.unwrap_or_else(Outcome::Refused) }
    }

    /// Every change from a revision on, as watches tell it; or the compacted revision, if that one is older.
    pub(super) fn events(&self, from: u64) -> Result<Vec<Event>, CompactedTo> {
        let compacted = self.compactions.iter().copied().max().unwrap_or(0);
        if from < compacted {
            return Err(CompactedTo(Revision(compacted)));
        }
        let changes = self.changes.iter().filter(|(revision, ..)| *revision >= from);
        let event = |(revision, key, value): &(u64, Bytes, Option<(Bytes, LeaseId)>)| {
            let only = KeyRange::Key(key.clone());
            let nothing = KeyValue {
                key: key.clone(),
                value: Bytes::new(),
                create_revision: Revision(0),
                mod_revision: Revision(*revision),
                version: 0,
                lease: LeaseId(0),
            };
            let previous = self.pairs(&only, revision - 1).pop().filter(|_| *revision > compacted);
            let pair = self.pairs(&only, *revision).pop().unwrap_or(nothing);
            Event { pair, is_deletion: value.is_none(), previous }
        };
        Ok(changes.map(event).collect())
    }

    fn revision(&self) -> u64 {
        self.changes.last().map_or(1, |change| change.0)
    }

    /// The pairs that revision `at` saw, in key order.
    fn pairs(&self, range: &KeyRange, at: u64) -> Vec<KeyValue> {
        let mut pairs: Vec<KeyValue> = Vec::new();
        for (revision, key, value) in self.changes.iter().filter(|(revision, ..)| *revision <= at) {
            let old = pairs.iter().position(|pair| pair.key == key).map(|place| pairs.remove(place));
            pairs.extend(value.clone().map(|(value, lease)| KeyValue {
                key: key.clone(),
                value,
                create_revision: old.as_ref().map_or(Revision(*revision), |old| old.create_revision),
                mod_revision: Revision(*revision),
                version: old.map_or(1, |old| old.version + 1),
                lease,
            }));
        }
        pairs.retain(|pair| contains(range, &pair.key));
        pairs.sort_by(|one, other| one.key.cmp(&other.key));
        pairs
    }

    fn run(&mut self, command: &Command) -> Answer<Outcome> {
        let single = |operation| Txn { success: vec![operation], ..Txn::default() };
        let txn = match command {
            // A put on its own is asked for its lease first.
            Command::Put(put) => {
                check(&single(Operation::Put(put.clone())))?;
                refuse(!self.alarms.is_empty(), StoreRefusal::NoSpace)?;
                refuse(self.lacks_lease(put.lease), StoreRefusal::LeaseNotFound)?;
                single(Operation::Put(put.clone()))
            }
            Command::DeleteRange(delete) => single(Operation::DeleteRange(delete.clone())),
            Command::Txn(txn) => txn.clone(),
            Command::Compact(Compact { revision: Revision(revision) }) => {
                refuse(self.compactions.iter().any(|past| past >= revision), StoreRefusal::Compacted)?;
                refuse(*revision > self.revision(), StoreRefusal::FutureRevision)?;
                self.compactions.push(*revision);
                return Ok(Outcome::Compacted);
            }
            Command::Lease(command) => return self.run_lease(command).map(Outcome::Lease),
            Command::SpaceAlarm(alarm) => {
                if alarm.is_raised {
                    self.alarms.insert(alarm.by_hand);
                } else {
                    self.alarms.remove(&alarm.by_hand);
                }
                return Ok(Outcome::SpaceAlarm(*alarm));
            }
        };
        check(&txn)?;
        let mut all = Vec::new();
        writes(&txn.success, &[], &mut all);
        writes(&txn.failure, &[], &mut all);
        let has_put = all.iter().any(|(_, write)| matches!(write, Operation::Put(_)));
        refuse(!self.alarms.is_empty() && has_put, StoreRefusal::NoSpace)?;
        let before = self.clone();
        before.refusals(&txn)?;
        let mut result = self.transact(&before, &txn);
        Ok(match (command, result.results.pop()) {
            (Command::Put(_), Some(OperationResult::Put(result))) => Outcome::Put(result),
            (Command::DeleteRange(_), Some(OperationResult::DeleteRange(result))) => {
                Outcome::DeleteRange(result)
            }
            (_, last) => {
                result.results.extend(last);
                Outcome::Txn(result)
            }
        })
    }

    fn run_lease(&mut self, command: &LeaseCommand) -> Answer<LeaseOutcome> {
        match command {
            LeaseCommand::Grant(Grant { lease, ttl_ms }) => {
                refuse(*ttl_ms == 0 || *ttl_ms > LEASE_TTL_MILLIS_MAX, StoreRefusal::TtlOutOfBounds)?;
                refuse(!self.alarms.is_empty(), StoreRefusal::NoSpace)?;
                refuse(self.living(*lease).is_some(), StoreRefusal::LeaseExists)?;
                let ttl_ms = *ttl_ms;
                self.leases.push(Lease { id: *lease, ttl_ms, remaining_ms: ttl_ms, has_ended: false });
                Ok(LeaseOutcome::Granted(Grant { lease: *lease, ttl_ms }))
            }
            LeaseCommand::Revoke(Revoke { lease }) => {
                let place = self.living(*lease).ok_or(StoreRefusal::LeaseNotFound)?;
                Ok(self.end(place))
            }
            LeaseCommand::Expire(life) => {
                let place = self.place(life).ok_or(StoreRefusal::LeaseNotFound)?;
                Ok(self.end(place))
            }
            LeaseCommand::Checkpoint(all) => {
                for remaining in all {
                    if let Some(place) = self.place(&remaining.life) {
                        let lease = &mut self.leases[place];
                        lease.remaining_ms = remaining.remaining_ms.min(lease.ttl_ms).max(1);
                    }
                }
                Ok(LeaseOutcome::Checkpointed)
            }
            LeaseCommand::Renew(life) => {
                let ttl_ms = self.place(life).map_or(0, |place| {
                    self.leases[place].remaining_ms = self.leases[place].ttl_ms;
                    self.leases[place].ttl_ms
                });
                Ok(LeaseOutcome::Renewed(Renewed { ttl_ms }))
            }
        }
    }

    fn end(&mut self, place: usize) -> LeaseOutcome {
        let next = self.revision() + 1;
        for pair in self.pairs(&KeyRange::From(Bytes::new()), u64::MAX) {
            if pair.lease == self.leases[place].id {
                self.changes.push((next, pair.key, None));
            }
        }
        self.leases[place].has_ended = true;
        LeaseOutcome::Revoked
    }

    fn living(&self, id: LeaseId) -> Option<usize> {
        self.leases.iter().position(|lease| lease.id == id && !lease.has_ended)
    }

    fn place(&self, life: &LeaseLife) -> Option<usize> {
        let place = usize::try_from(life.grant).ok()?.checked_sub(1)?;
        self.living(life.lease).filter(|living| *living == place)
    }

    fn lacks_lease(&self, lease: LeaseId) -> bool {
        lease != LeaseId(0) && self.living(lease).is_none()
    }

    /// The leases with what remains of each, to be held against the store's.
    pub(super) fn remaining(&self) -> Vec<(LeaseId, u64, u64)> {
        let living = self.leases.iter().filter(|lease| !lease.has_ended);
        let mut remaining: Vec<_> =
            living.map(|lease| (lease.id, lease.ttl_ms, lease.remaining_ms)).collect();
        remaining.sort_unstable();
        remaining
    }

    /// The list that runs from this state on.
    fn chosen<'txn>(&self, txn: &'txn Txn) -> (bool, &'txn [Operation]) {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare, self.revision()));
        (succeeded, if succeeded { &txn.success } else { &txn.failure })
    }

    /// Whatever would go wrong with the operations that will run from this state on: the first of it, the puts' first.
    fn refusals(&self, txn: &Txn) -> Answer<()> {
        let mut running = Vec::new();
        self.running(txn, &mut running);
        let (puts, others): (Vec<_>, Vec<_>) =
            running.into_iter().partition(|operation| matches!(operation, Operation::Put(_)));
        puts.into_iter().chain(others).try_for_each(|operation| match operation {
            Operation::Put(Put { key, lease, keeps_value, keeps_lease, .. }) => {
                let is_missing = self.pairs(&KeyRange::Key(key.clone()), u64::MAX).is_empty();
                refuse(is_missing && (*keeps_value || *keeps_lease), StoreRefusal::KeyNotFound)?;
                refuse(self.lacks_lease(*lease), StoreRefusal::LeaseNotFound)
            }
            Operation::Range(range) => {
                let asked = range.revision.0;
                refuse(asked > self.revision(), StoreRefusal::FutureRevision)?;
                let is_gone = asked > 0 && self.compactions.iter().any(|compacted| asked < *compacted);
                refuse(is_gone, StoreRefusal::Compacted)
            }
            Operation::DeleteRange(_) | Operation::Txn(_) => Ok(()),
        })
    }

    /// All operations that will run from this state on, in order.
    fn running<'txn>(&self, txn: &'txn Txn, running: &mut Vec<&'txn Operation>) {
        for operation in self.chosen(txn).1 {
            running.push(operation);
            if let Operation::Txn(nested) = operation {
                self.running(nested, running);
            }
        }
    }

    fn transact(&mut self, before: &Self, txn: &Txn) -> TxnResult {
        let (succeeded, operations) = before.chosen(txn);
        let results = operations.iter().map(|operation| self.operation(before, operation)).collect();
        TxnResult { succeeded, results }
    }

    fn operation(&mut self, before: &Self, operation: &Operation) -> OperationResult {
        let next = before.revision() + 1;
        match operation {
            Operation::Put(put) => {
                let previous = self.pairs(&KeyRange::Key(put.key.clone()), u64::MAX).pop();
                let kept = previous.as_ref().filter(|_| put.keeps_value).map(|pair| pair.value.clone());
                let value = kept.unwrap_or_else(|| put.value.clone());
                let lease =
                    previous.as_ref().filter(|_| put.keeps_lease).map_or(put.lease, |pair| pair.lease);
                self.changes.push((next, put.key.clone(), Some((value, lease))));
                OperationResult::Put(PutResult { previous: previous.filter(|_| put.wants_previous) })
            }
            Operation::DeleteRange(delete) => {
                let mut previous = self.pairs(&delete.range, u64::MAX);
                self.changes.extend(previous.iter().map(|pair| (next, pair.key.clone(), None)));
                let deleted = previous.len() as u64;
                previous.retain(|_| delete.wants_previous);
                OperationResult::DeleteRange(DeleteRangeResult { deleted, previous })
            }
            Operation::Range(range) => OperationResult::Range(self.range(range)),
            Operation::Txn(nested) => OperationResult::Txn(self.transact(before, nested)),
        }
    }

    fn range(&self, range: &Range) -> RangeResult {
        let at = if range.revision.0 == 0 { u64::MAX } else { range.revision.0 };
        let mut pairs = self.pairs(&range.range, at);
        let count = pairs.len() as u64;
        let filter = range.filter;
        let within =
            |given: Revision, min: Revision, max: Revision| given >= min && (max.0 == 0 || given <= max);
        pairs.retain(|pair| within(pair.mod_revision, filter.mod_min, filter.mod_max));
        pairs.retain(|pair| within(pair.create_revision, filter.create_min, filter.create_max));
        if let Some(sort) = range.sort {
            // What is equal stays in the order of the keys, whichever way.
            let is_descending = sort.order == SortOrder::Descending;
            if is_descending {
                pairs.reverse();
            }
            match sort.by {
                SortBy::Key => {}
                SortBy::Version => pairs.sort_by_key(|pair| pair.version),
                SortBy::Create => pairs.sort_by_key(|pair| pair.create_revision),
                SortBy::Mod => pairs.sort_by_key(|pair| pair.mod_revision),
                SortBy::Value => pairs.sort_by_key(|pair| pair.value.clone()),
            }
            if is_descending && sort.by != SortBy::Key {
                pairs.reverse();
            }
        }
        pairs.retain(|_| !range.count_only);
        let limit =
            if range.limit == 0 { usize::MAX } else { usize::try_from(range.limit).unwrap_or(usize::MAX) };
        let more = pairs.len() > limit;
        pairs.truncate(limit);
        for pair in pairs.iter_mut().filter(|_| range.keys_only) {
            pair.value = Bytes::new();
        }
        RangeResult { pairs, more, count }
    }

    fn holds(&self, compare: &Compare, at: u64) -> bool {
        let mut pairs = self.pairs(&compare.range, at);
        let is_missing = pairs.is_empty();
        if is_missing {
            let (revision, lease) = (Revision(0), LeaseId(0));
            let (key, value) = (Bytes::new(), Bytes::new());
            pairs.push(KeyValue {
                key,
                value,
                create_revision: revision,
                mod_revision: revision,
                version: 0,
                lease,
            });
        }
        pairs.iter().all(|pair| {
            let (less, equal) = match &compare.target {
                CompareTarget::Version(given) => (pair.version < *given, pair.version == *given),
                CompareTarget::Create(given) => {
                    (pair.create_revision < *given, pair.create_revision == *given)
                }
                CompareTarget::Mod(given) => (pair.mod_revision < *given, pair.mod_revision == *given),
                CompareTarget::Lease(given) => (pair.lease < *given, pair.lease == *given),
                CompareTarget::Value(_) if is_missing => return false,
                CompareTarget::Value(given) => (pair.value < *given, pair.value == *given),
            };
            match compare.operator {
                CompareOperator::Equal => equal,
                CompareOperator::NotEqual => !equal,
                CompareOperator::Greater => !less && !equal,
                CompareOperator::Less => less,
            }
        })
    }
}

fn contains(range: &KeyRange, key: &Bytes) -> bool {
    match range {
        KeyRange::Key(only) => key == only,
        KeyRange::Span { start, end } => key >= start && key < end,
        KeyRange::From(start) => key >= start,
    }
}

fn refuse(is_refused: bool, refusal: StoreRefusal) -> Answer<()> {
    if is_refused { Err(refusal) } else { Ok(()) }
}

fn has_write(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|operation| match operation {
        Operation::Range(_) => false,
        Operation::Txn(nested) => has_write(nested),
        _ => true,
    })
}

fn check(txn: &Txn) -> Answer<()> {
    check_budget(txn, TXN_OPERATIONS_MAX)?;
    check_doubles(&txn.success)?;
    check_doubles(&txn.failure)?;
    // Of what a transaction may cost, the model knows this much only: the rest takes more keys than it is tried with.
    refuse(walks(txn) > TXN_WALKS_MAX, StoreRefusal::CostsTooMuch)
}

fn walks(txn: &Txn) -> usize {
    let ranges = txn.success.iter().chain(&txn.failure).map(|operation| match operation {
        Operation::Txn(nested) => walks(nested),
        Operation::Range(Range { range, .. }) | Operation::DeleteRange(DeleteRange { range, .. }) => {
            usize::from(!matches!(range, KeyRange::Key(_)))
        }
        Operation::Put(_) => 0,
    });
    ranges.sum::<usize>()
        + txn.compares.iter().filter(|compare| !matches!(compare.range, KeyRange::Key(_))).count()
}

fn check_budget(txn: &Txn, budget: usize) -> Answer<()> {
    let longest = [txn.compares.len(), txn.success.len(), txn.failure.len()].into_iter().max().unwrap_or(0);
    refuse(longest > budget, StoreRefusal::TooManyOperations)?;
    txn.compares.iter().try_for_each(|compare| check_range(&compare.range))?;
    txn.success.iter().chain(&txn.failure).try_for_each(|operation| match operation {
        Operation::Put(put) => {
            check_range(&KeyRange::Key(put.key.clone()))?;
            refuse(put.keeps_value && !put.value.is_empty(), StoreRefusal::ValueProvided)?;
            refuse(put.keeps_lease && put.lease != LeaseId(0), StoreRefusal::LeaseProvided)?;
            refuse(put.value.len() > VALUE_BYTES_MAX, StoreRefusal::OutOfBounds)
        }
        Operation::DeleteRange(delete) => check_range(&delete.range),
        Operation::Range(range) => check_range(&range.range),
        Operation::Txn(nested) => check_budget(nested, budget - longest),
    })
}

/// Every write of the list's tree, and by which branches one gets to it: (place, which of the two lists) each.
fn writes<'txn>(
    list: &'txn [Operation],
    way: &[(usize, bool)],
    writes: &mut Vec<(Vec<(usize, bool)>, &'txn Operation)>,
) {
    for (place, operation) in list.iter().enumerate() {
        let way_to = |side| [way, &[(place, side)]].concat();
        match operation {
            Operation::Put(_) | Operation::DeleteRange(_) => writes.push((way_to(true), operation)),
            Operation::Range(_) => {}
            Operation::Txn(nested) => {
                self::writes(&nested.success, &way_to(true), writes);
                self::writes(&nested.failure, &way_to(false), writes);
            }
        }
    }
}

/// Refuses two writes of one key that may both run: those whose ways do not part at a transaction's two lists.
fn check_doubles(list: &[Operation]) -> Answer<()> {
    let mut all = Vec::new();
    writes(list, &[], &mut all);
    for (at, (way, one)) in all.iter().enumerate() {
        for (other_way, other) in &all[at + 1..] {
            let parting = way.iter().zip(other_way).find(|(one, other)| one != other);
            let may_both_run = parting.is_none_or(|(one, other)| one.0 != other.0);
            let is_same_key = match (one, other) {
                (Operation::Put(put), Operation::Put(other)) => put.key == other.key,
                (Operation::Put(put), Operation::DeleteRange(delete))
                | (Operation::DeleteRange(delete), Operation::Put(put)) => contains(&delete.range, &put.key),
                _ => false,
            };
            refuse(may_both_run && is_same_key, StoreRefusal::DuplicateKey)?;
        }
    }
    Ok(())
}

fn check_range(range: &KeyRange) -> Answer<()> {
    let longest = match range {
        KeyRange::Key(key) if key.is_empty() => return Err(StoreRefusal::KeyMissing),
        KeyRange::Key(key) | KeyRange::From(key) => key.len(),
        KeyRange::Span { start, end } => start.len().max(end.len()),
    };
    refuse(longest > KEY_BYTES_MAX, StoreRefusal::OutOfBounds)
}
