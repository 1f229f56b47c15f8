//! The store in as few lines as it can be written, to hold the real one against.
//!
//! Every version of every key is kept for ever, so any revision can be read at any time. Nothing is shared with
//! `kv` but the words of its commands; the rules are etcd's (ETCD-CONTRACT §3 and §4).

use crate::ids::{LeaseId, Revision};
use crate::kv::{
    Applied, Command, Compare, CompareOperator, CompareTarget, DeleteRange, DeleteRangeResult, Event, Filter,
    Grant, KeyRange, KeyValue, LeaseCommand, LeaseOutcome, Operation, OperationResult, Outcome, Put,
    PutResult, Query, Range, RangeResult, Renewed, Sort, SortBy, SortOrder, StoreRefusal, Txn, TxnResult,
};
use bytes::Bytes;
use core::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// A store that remembers everything.
#[derive(Clone, Debug)]
pub struct Model {
    revision: Revision,
    /// The keys that the last command changed, in order.
    changed: Vec<Bytes>,
    /// The oldest revision that may be read, once there was a compaction.
    compacted: Option<Revision>,
    /// While there is one, nothing is taken that needs space.
    alarms: BTreeSet<Option<u64>>,
    /// Every lease that has not ended, with the number of its grant.
    leases: BTreeMap<LeaseId, u64>,
    /// Leases granted so far.
    grants: u64,
    /// For each key what it became, and at which revision; `None` where it was deleted.
    versions: BTreeMap<Bytes, Vec<(Revision, Option<KeyValue>)>>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            revision: Revision(1),
            changed: Vec::new(),
            compacted: None,
            alarms: BTreeSet::new(),
            leases: BTreeMap::new(),
            grants: 0,
            versions: BTreeMap::new(),
        }
    }
}

impl Model {
    /// The revision of the last change.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// Changes the store; says what a client is to be told.
    pub fn apply(&mut self, command: &Command) -> Applied {
        let next = self.revision.next();
        self.changed.clear();
        let outcome = match command {
            _ if !self.alarms.is_empty() && needs_space(command) => Outcome::Refused(StoreRefusal::NoSpace),
            Command::Put(put) => match self.put_refusal(self.revision, put) {
                // Of a put alone, the lease is looked at first.
                Some(_) if self.lacks_lease(put) => Outcome::Refused(StoreRefusal::LeaseNotFound),
                Some(refusal) => Outcome::Refused(refusal),
                None => Outcome::Put(self.put(next, put)),
            },
            Command::DeleteRange(delete) => Outcome::DeleteRange(self.delete(next, delete)),
            Command::Txn(txn) => self.transact(next, self.revision, txn),
            Command::Compact(compact) => self.compact(compact.revision),
            Command::Lease(command) => self.lease(next, command),
            Command::SpaceAlarm(alarm) => {
                if alarm.is_raised {
                    self.alarms.insert(alarm.by_hand);
                } else {
                    self.alarms.remove(&alarm.by_hand);
                }
                Outcome::SpaceAlarm(*alarm)
            }
        };
        // A change of nothing makes no revision.
        if !self.changed.is_empty() {
            self.revision = next;
        }
        Applied { revision: self.revision, outcome }
    }

    /// What a query answers when the store's current revision is `current`, now or in the past.
    pub fn read(&mut self, current: Revision, query: &Query) -> Outcome {
        match query {
            Query::Range(range) => match self.refusal_of(current, range) {
                Some(refusal) => Outcome::Refused(refusal),
                None => Outcome::Range(self.range(current, range)),
            },
            // Without writes, nothing can stand at the revision after the current one.
            Query::Txn(txn) => self.transact(current, current, txn),
            Query::Leases => Outcome::Lease(LeaseOutcome::Listed(self.leases.keys().copied().collect())),
        }
    }

    /// What the last command changed, as watches tell it.
    pub(super) fn last_events(&self) -> impl Iterator<Item = Event> {
        let before = Revision(self.revision.0 - 1);
        self.changed.iter().map(move |key| {
            let now = self.get(self.revision, key);
            let nothing = KeyValue {
                key: key.clone(),
                value: Bytes::new(),
                create_revision: Revision(0),
                mod_revision: self.revision,
                version: 0,
                lease: LeaseId(0),
            };
            let is_deletion = now.is_none();
            Event { pair: now.unwrap_or(nothing), is_deletion, previous: self.get(before, key) }
        })
    }

    fn transact(&mut self, next: Revision, before: Revision, txn: &Txn) -> Outcome {
        match self.refusal_in(before, txn) {
            Some(refusal) => Outcome::Refused(refusal),
            None => Outcome::Txn(self.run(next, before, txn)),
        }
    }

    /// Nothing newer than `before` is looked at by a compare, of whatever level.
    fn run(&mut self, next: Revision, before: Revision, txn: &Txn) -> TxnResult {
        let (succeeded, operations) = self.chosen(before, txn);
        let results = operations
            .iter()
            .map(|operation| match operation {
                Operation::Put(put) => OperationResult::Put(self.put(next, put)),
                Operation::DeleteRange(delete) => OperationResult::DeleteRange(self.delete(next, delete)),
                Operation::Range(range) => OperationResult::Range(self.range(next, range)),
                Operation::Txn(nested) => OperationResult::Txn(self.run(next, before, nested)),
            })
            .collect();
        TxnResult { succeeded, results }
    }

    fn chosen<'txn>(&self, before: Revision, txn: &'txn Txn) -> (bool, &'txn [Operation]) {
        let succeeded = txn.compares.iter().all(|compare| self.holds(before, compare));
        (succeeded, if succeeded { &txn.success } else { &txn.failure })
    }

    /// Of the operations that run, the faults of puts come before those of ranges.
    fn refusal_in(&self, before: Revision, txn: &Txn) -> Option<StoreRefusal> {
        let of_puts = self.first_refusal(before, txn, &|operation| match operation {
            Operation::Put(put) => self.put_refusal(before, put),
            Operation::DeleteRange(_) | Operation::Range(_) | Operation::Txn(_) => None,
        });
        of_puts.or_else(|| {
            self.first_refusal(before, txn, &|operation| match operation {
                Operation::Range(range) => self.refusal_of(before, range),
                Operation::Put(_) | Operation::DeleteRange(_) | Operation::Txn(_) => None,
            })
        })
    }

    fn first_refusal(
        &self,
        before: Revision,
        txn: &Txn,
        refusal_of: &impl Fn(&Operation) -> Option<StoreRefusal>,
    ) -> Option<StoreRefusal> {
        self.chosen(before, txn).1.iter().find_map(|operation| match operation {
            Operation::Txn(nested) => self.first_refusal(before, nested, refusal_of),
            Operation::Put(_) | Operation::DeleteRange(_) | Operation::Range(_) => refusal_of(operation),
        })
    }

    fn refusal_of(&self, current: Revision, range: &Range) -> Option<StoreRefusal> {
        let is_gone = self.compacted.is_some_and(|compacted| range.revision < compacted);
        match range.revision {
            Revision(0) => None,
            asked if asked > current => Some(StoreRefusal::FutureRevision),
            _ => is_gone.then_some(StoreRefusal::Compacted),
        }
    }

    fn put_refusal(&self, before: Revision, put: &Put) -> Option<StoreRefusal> {
        if self.lacks(before, put) {
            return Some(StoreRefusal::KeyNotFound);
        }
        self.lacks_lease(put).then_some(StoreRefusal::LeaseNotFound)
    }

    /// Whether a put names a lease that is not there.
    fn lacks_lease(&self, put: &Put) -> bool {
        put.lease != LeaseId(0) && !self.leases.contains_key(&put.lease)
    }

    /// What is left of a lease is the replica's business; here it is there or it is not.
    fn lease(&mut self, next: Revision, command: &LeaseCommand) -> Outcome {
        match command {
            LeaseCommand::Grant(grant) => self.grant(*grant),
            LeaseCommand::Revoke(revoke) => self.end_lease(next, revoke.lease),
            LeaseCommand::Expire(life) if self.leases.get(&life.lease) == Some(&life.grant) => {
                self.end_lease(next, life.lease)
            }
            LeaseCommand::Expire(_) => Outcome::Refused(StoreRefusal::LeaseNotFound),
            LeaseCommand::Checkpoint(_) => Outcome::Lease(LeaseOutcome::Checkpointed),
            LeaseCommand::Renew(_) => Outcome::Lease(LeaseOutcome::Renewed(Renewed { ttl_ms: 0 })),
        }
    }

    fn grant(&mut self, grant: Grant) -> Outcome {
        if self.leases.contains_key(&grant.lease) {
            return Outcome::Refused(StoreRefusal::LeaseExists);
        }
        self.grants += 1;
        self.leases.insert(grant.lease, self.grants);
        Outcome::Lease(LeaseOutcome::Granted(grant))
    }

    fn end_lease(&mut self, next: Revision, lease: LeaseId) -> Outcome {
        if self.leases.remove(&lease).is_none() {
            return Outcome::Refused(StoreRefusal::LeaseNotFound);
        }
        let everything = self.pairs(self.revision, &KeyRange::From(Bytes::new()));
        for pair in everything.into_iter().filter(|pair| pair.lease == lease) {
            self.versions.entry(pair.key.clone()).or_default().push((next, None));
            self.changed.push(pair.key);
        }
        Outcome::Lease(LeaseOutcome::Revoked)
    }

    /// Whether a put is to keep something of a key that is not there.
    fn lacks(&self, before: Revision, put: &Put) -> bool {
        (put.keeps_value || put.keeps_lease) && self.get(before, &put.key).is_none()
    }

    fn compact(&mut self, revision: Revision) -> Outcome {
        if self.compacted.is_some_and(|compacted| revision <= compacted) {
            return Outcome::Refused(StoreRefusal::Compacted);
        }
        if revision > self.revision {
            return Outcome::Refused(StoreRefusal::FutureRevision);
        }
        self.compacted = Some(revision);
        Outcome::Compacted
    }

    fn put(&mut self, next: Revision, put: &Put) -> PutResult {
        let previous = self.get(next, &put.key);
        let pair = KeyValue {
            key: put.key.clone(),
            value: previous
                .as_ref()
                .filter(|_| put.keeps_value)
                .map_or(&put.value, |pair| &pair.value)
                .clone(),
            create_revision: previous.as_ref().map_or(next, |pair| pair.create_revision),
            mod_revision: next,
            version: previous.as_ref().map_or(0, |pair| pair.version) + 1,
            lease: previous.as_ref().filter(|_| put.keeps_lease).map_or(put.lease, |pair| pair.lease),
        };
        self.versions.entry(put.key.clone()).or_default().push((next, Some(pair)));
        self.changed.push(put.key.clone());
        PutResult { previous: previous.filter(|_| put.wants_previous) }
    }

    fn delete(&mut self, next: Revision, delete: &DeleteRange) -> DeleteRangeResult {
        let removed = self.pairs(next, &delete.range);
        for pair in &removed {
            self.versions.entry(pair.key.clone()).or_default().push((next, None));
            self.changed.push(pair.key.clone());
        }
        DeleteRangeResult {
            deleted: removed.len() as u64,
            previous: if delete.wants_previous { removed } else { Vec::new() },
        }
    }

    fn range(&self, current: Revision, range: &Range) -> RangeResult {
        let at = if range.revision.0 == 0 { current } else { range.revision };
        let mut pairs = self.pairs(at, &range.range);
        let count = pairs.len() as u64;
        let Filter { mod_min, mod_max, create_min, create_max } = range.filter;
        let within = |revision: Revision, min: Revision, max: Revision| {
            revision >= min && (max.0 == 0 || revision <= max)
        };
        pairs.retain(|pair| {
            within(pair.mod_revision, mod_min, mod_max)
                && within(pair.create_revision, create_min, create_max)
        });
        if let Some(sort) = range.sort {
            pairs.sort_by(|one, other| in_order(sort, one, other));
        }
        if range.count_only {
            pairs.clear();
        }
        let limit = if range.limit == 0 { u64::MAX } else { range.limit };
        let more = pairs.len() as u64 > limit;
        pairs.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        if range.keys_only {
            for pair in &mut pairs {
                pair.value = Bytes::new();
            }
        }
        RangeResult { pairs, more, count }
    }

    fn get(&self, at: Revision, key: &Bytes) -> Option<KeyValue> {
        let versions = self.versions.get(key)?;
        let newer = versions.partition_point(|(revision, _)| *revision <= at);
        versions.get(newer.checked_sub(1)?)?.1.clone()
    }

    fn pairs(&self, at: Revision, range: &KeyRange) -> Vec<KeyValue> {
        let (start, end) = match range {
            KeyRange::Key(key) => return self.get(at, key).into_iter().collect(),
            KeyRange::Span { start, end } => (start, Some(end)),
            KeyRange::From(start) => (start, None),
        };
        let within =
            self.versions.range(start.clone()..).take_while(|(key, _)| end.is_none_or(|end| *key < end));
        within.filter_map(|(key, _)| self.get(at, key)).collect()
    }

    fn holds(&self, at: Revision, compare: &Compare) -> bool {
        let never_written = KeyValue {
            key: Bytes::new(),
            value: Bytes::new(),
            create_revision: Revision(0),
            mod_revision: Revision(0),
            version: 0,
            lease: LeaseId(0),
        };
        let test = |pair: &KeyValue, is_missing: bool| {
            let ordering = match &compare.target {
                CompareTarget::Version(version) => pair.version.cmp(version),
                CompareTarget::Create(revision) => pair.create_revision.cmp(revision),
                CompareTarget::Mod(revision) => pair.mod_revision.cmp(revision),
                CompareTarget::Lease(lease) => pair.lease.cmp(lease),
                CompareTarget::Value(_) if is_missing => return false,
                CompareTarget::Value(value) => pair.value.cmp(value),
            };
            match compare.operator {
                CompareOperator::Equal => ordering == Ordering::Equal,
                CompareOperator::NotEqual => ordering != Ordering::Equal,
                CompareOperator::Greater => ordering == Ordering::Greater,
                CompareOperator::Less => ordering == Ordering::Less,
            }
        };
        // A key that is not there, or a range without keys, compares as one that was never written (etcd's rule).
        match self.pairs(at, &compare.range) {
            pairs if pairs.is_empty() => test(&never_written, true),
            pairs => pairs.iter().all(|pair| test(pair, false)),
        }
    }
}

fn in_order(sort: Sort, one: &KeyValue, other: &KeyValue) -> Ordering {
    let ascending = match sort.by {
        SortBy::Key => one.key.cmp(&other.key),
        SortBy::Version => one.version.cmp(&other.version),
        SortBy::Create => one.create_revision.cmp(&other.create_revision),
        SortBy::Mod => one.mod_revision.cmp(&other.mod_revision),
        SortBy::Value => one.value.cmp(&other.value),
    };
    if sort.order == SortOrder::Descending { ascending.reverse() } else { ascending }
}

/// Whether a full store refuses it, whichever way it would go.
fn needs_space(command: &Command) -> bool {
    match command {
        Command::Put(_) | Command::Lease(LeaseCommand::Grant(_)) => true,
        Command::Txn(txn) => may_put(txn),
        Command::DeleteRange(_) | Command::Compact(_) | Command::Lease(_) | Command::SpaceAlarm(_) => false,
    }
}

fn may_put(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|operation| match operation {
        Operation::Put(_) => true,
        Operation::DeleteRange(_) | Operation::Range(_) => false,
        Operation::Txn(nested) => may_put(nested),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str, value: &'static str) -> Command {
        Command::Put(Put { wants_previous: true, ..Put::new(Bytes::from(key), Bytes::from(value)) })
    }

    fn everything(revision: u64) -> Query {
        let everything = KeyRange::From(Bytes::new());
        Query::Range(Range { revision: Revision(revision), ..Range::new(everything) })
    }

    #[test]
    fn the_first_write_makes_revision_two_and_a_deletion_of_nothing_makes_none() {
        let mut model = Model::default();
        assert_eq!(model.apply(&put("a", "1")).revision, Revision(2));
        let nothing = Command::DeleteRange(DeleteRange {
            range: KeyRange::Key(Bytes::from("b")),
            wants_previous: false,
        });
        assert_eq!(model.apply(&nothing).revision, Revision(2));
        assert_eq!(model.apply(&put("a", "2")).revision, Revision(3));
    }

    #[test]
    fn every_past_revision_can_be_read() {
        let mut model = Model::default();
        for value in ["1", "2", "3"] {
            model.apply(&put("a", value));
        }
        for (revision, value) in [(2, "1"), (3, "2"), (4, "3")] {
            let Outcome::Range(result) = model.read(Revision(4), &everything(revision)) else {
                panic!("a range answers a range")
            };
            assert_eq!(result.pairs[0].value, Bytes::from(value));
            assert_eq!(result.pairs[0].version, revision - 1);
        }
    }
}
