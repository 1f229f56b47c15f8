//! The store as one would write it with no regard for speed: a list of changes, replayed for every question.
//!
//! It shares the vocabulary of `command.rs` with the store and nothing else, so that a mistake would have to be
//! made twice to go unseen.

use super::command::{
    Applied, Command, Compare, CompareOperator, CompareTarget, DeleteRangeResult, KeyRange, KeyValue,
    Operation, OperationResult, Outcome, PutResult, Query, Range, RangeResult, StoreRefusal, Txn, TxnResult,
};
use crate::ids::{LeaseId, Revision};
use crate::limits::{KEY_BYTES_MAX, TXN_OPERATIONS_MAX, VALUE_BYTES_MAX};
use bytes::Bytes;

/// Changes, oldest first: revision, key, and the new value or None for a deletion.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    changes: Vec<(u64, Bytes, Option<Bytes>)>,
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
        let outcome = match query {
            Query::Range(range) => self
                .clone()
                .operation(&Operation::Range(range.clone()), self.revision())
                .map(|result| match result {
                    OperationResult::Range(result) => Outcome::Range(result),
                    other => panic!("a range answered {other:?}"),
                }),
            Query::Txn(txn) => check(txn).and_then(|()| {
                let is_write = |operation: &Operation| !matches!(operation, Operation::Range(_));
                if txn.success.iter().chain(&txn.failure).any(is_write) {
                    Err(StoreRefusal::WriteInQuery)
                } else {
                    self.clone().run(&Command::Txn(txn.clone()))
                }
            }),
        };
        Applied { revision: Revision(self.revision()), outcome: outcome.unwrap_or_else(Outcome::Refused) }
    }

    fn revision(&self) -> u64 {
        self.changes.last().map_or(1, |change| change.0)
    }

    /// The pairs that revision `at` saw, in key order.
    fn pairs(&self, range: &KeyRange, at: u64) -> Vec<KeyValue> {
        let mut pairs: Vec<KeyValue> = Vec::new();
        for (revision, key, value) in self.changes.iter().filter(|(revision, ..)| *revision <= at) {
            let old = pairs.iter().position(|pair| pair.key == key).map(|place| pairs.remove(place));
            pairs.extend(value.clone().map(|value| KeyValue {
                key: key.clone(),
                value,
                create_revision: old.as_ref().map_or(Revision(*revision), |old| old.create_revision),
                mod_revision: Revision(*revision),
                version: old.map_or(1, |old| old.version + 1),
                lease: LeaseId(0),
            }));
        }
        pairs.retain(|pair| contains(range, &pair.key));
        pairs.sort_by(|one, other| one.key.cmp(&other.key));
        pairs
    }

    fn run(&mut self, command: &Command) -> Answer<Outcome> {
        let begin = self.revision();
        let single = |operation| (Txn { compares: vec![], success: vec![operation], failure: vec![] }, true);
        let (txn, is_single) = match command {
            Command::Put(put) => single(Operation::Put(put.clone())),
            Command::DeleteRange(delete) => single(Operation::DeleteRange(delete.clone())),
            Command::Txn(txn) => (txn.clone(), false),
        };
        check(&txn)?;
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare, begin));
        let chosen = if succeeded { txn.success } else { txn.failure };
        // Puts are looked at before reads, and all of them before anything is done.
        for wants_puts in [true, false] {
            let mut trial = self.clone();
            for operation in chosen.iter().filter(|one| matches!(one, Operation::Put(_)) == wants_puts) {
                trial.operation(operation, begin)?;
            }
        }
        let results = chosen.iter().map(|one| self.operation(one, begin)).collect::<Answer<Vec<_>>>()?;
        Ok(match (is_single, results.first()) {
            (true, Some(OperationResult::Put(result))) => Outcome::Put(result.clone()),
            (true, Some(OperationResult::DeleteRange(result))) => Outcome::DeleteRange(result.clone()),
            _ => Outcome::Txn(TxnResult { succeeded, results }),
        })
    }

    fn operation(&mut self, operation: &Operation, begin: u64) -> Answer<OperationResult> {
        check_operation(operation)?;
        match operation {
            Operation::Put(put) if put.lease != LeaseId(0) => Err(StoreRefusal::LeaseNotFound),
            Operation::Put(put) => {
                let previous = self.pairs(&KeyRange::Key(put.key.clone()), u64::MAX).pop();
                self.changes.push((begin + 1, put.key.clone(), Some(put.value.clone())));
                Ok(OperationResult::Put(PutResult { previous: previous.filter(|_| put.wants_previous) }))
            }
            Operation::DeleteRange(delete) => {
                let mut previous = self.pairs(&delete.range, u64::MAX);
                self.changes.extend(previous.iter().map(|pair| (begin + 1, pair.key.clone(), None)));
                let deleted = previous.len() as u64;
                previous.retain(|_| delete.wants_previous);
                Ok(OperationResult::DeleteRange(DeleteRangeResult { deleted, previous }))
            }
            Operation::Range(range) if range.revision.0 > begin => Err(StoreRefusal::FutureRevision),
            Operation::Range(range) => Ok(OperationResult::Range(self.range(range))),
        }
    }

    fn range(&self, range: &Range) -> RangeResult {
        let at = if range.revision.0 == 0 { u64::MAX } else { range.revision.0 };
        let mut pairs = self.pairs(&range.range, at);
        let count = pairs.len() as u64;
        if range.count_only {
            return RangeResult { pairs: vec![], more: false, count };
        }
        if range.limit > 0 {
            pairs.truncate(usize::try_from(range.limit).unwrap_or(usize::MAX));
        }
        let more = (pairs.len() as u64) < count;
        if range.keys_only {
            for pair in &mut pairs {
                pair.value = Bytes::new();
            }
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

fn check(txn: &Txn) -> Answer<()> {
    let lists = [&txn.success, &txn.failure];
    if txn.compares.len() > TXN_OPERATIONS_MAX || lists.iter().any(|list| list.len() > TXN_OPERATIONS_MAX) {
        return Err(StoreRefusal::TooManyOperations);
    }
    txn.compares.iter().try_for_each(|compare| check_range(&compare.range))?;
    lists.iter().try_for_each(|list| list.iter().try_for_each(check_operation))?;
    for list in lists {
        for (place, one) in list.iter().enumerate() {
            let Operation::Put(put) = one else { continue };
            let is_doubled = list.iter().enumerate().any(|(other_place, other)| match other {
                Operation::Put(other) => other_place != place && other.key == put.key,
                Operation::DeleteRange(delete) => contains(&delete.range, &put.key),
                Operation::Range(_) => false,
            });
            if is_doubled {
                return Err(StoreRefusal::DuplicateKey);
            }
        }
    }
    Ok(())
}

fn check_operation(operation: &Operation) -> Answer<()> {
    match operation {
        Operation::Put(put) => {
            check_range(&KeyRange::Key(put.key.clone()))?;
            if put.value.len() > VALUE_BYTES_MAX { Err(StoreRefusal::OutOfBounds) } else { Ok(()) }
        }
        Operation::DeleteRange(delete) => check_range(&delete.range),
        Operation::Range(range) => check_range(&range.range),
    }
}

fn check_range(range: &KeyRange) -> Answer<()> {
    let (longest, is_backwards) = match range {
        KeyRange::Key(key) if key.is_empty() => return Err(StoreRefusal::KeyMissing),
        KeyRange::Key(key) | KeyRange::From(key) => (key.len(), false),
        KeyRange::Span { start, end } => (start.len().max(end.len()), end < start),
    };
    if longest > KEY_BYTES_MAX || is_backwards { Err(StoreRefusal::OutOfBounds) } else { Ok(()) }
}
