//! Which operations can be judged apart from which others.
//!
//! A history is linearizable if the history of each object is (Herlihy and Wing 1990, locality), and an object here is
//! a set of keys that no operation reaches out of. So keys that one operation touches together are joined, by
//! union-find, and every set of joined keys is a partition.
//!
//! Always: each operation is in exactly one partition; those that touch no key that was ever put share one.

use super::history::{Answer, Call, Operation};
use super::present::Keys;
use crate::kv::{Command, Operation as Part, Outcome, Query, Txn};
use core::ops::Range;
use std::collections::BTreeMap;

/// The operations of each partition, as positions in the history, in ascending order.
pub(super) fn partitions(history: &[Operation], judged: &[usize], keys: &Keys<'_>) -> Vec<Vec<usize>> {
    let mut roots = Roots((0..keys.count()).collect());
    let mut first_keys = Vec::with_capacity(judged.len());
    for &at in judged {
        let mut first = None;
        for key in touched(&history[at], keys).into_iter().flatten() {
            roots.join(*first.get_or_insert(key), key);
        }
        first_keys.push(first);
    }
    let mut partitions: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
    for (&at, first) in judged.iter().zip(first_keys) {
        partitions.entry(first.map(|key| roots.of(key))).or_default().push(at);
    }
    partitions.into_values().collect()
}

/// The keys that an operation touches: of a transaction whose answer says which way it went, only those of that way.
pub(super) fn touched(operation: &Operation, keys: &Keys<'_>) -> Vec<Range<usize>> {
    match &operation.call {
        Call::Write { command: Command::Put(put), .. } => vec![keys.position(&put.key)],
        Call::Write { command: Command::DeleteRange(delete), .. } => vec![keys.positions(&delete.range)],
        Call::Read { query: Query::Range(range), .. } => vec![keys.positions(&range.range)],
        Call::Write { command: Command::Txn(txn), .. } | Call::Read { query: Query::Txn(txn), .. } => {
            let mut touched: Vec<_> =
                txn.compares.iter().map(|compare| keys.positions(&compare.range)).collect();
            for part in parts_run(txn, &operation.answer) {
                touch(part, keys, &mut touched);
            }
            touched
        }
        Call::Write { command: Command::Compact(_) | Command::Lease(_) | Command::SpaceAlarm(_), .. }
        | Call::Read { query: Query::Leases, .. } => Vec::new(),
    }
}

/// Whichever way a nested transaction went, all of it is touched.
fn touch(part: &Part, keys: &Keys<'_>, touched: &mut Vec<Range<usize>>) {
    match part {
        Part::Put(put) => touched.push(keys.position(&put.key)),
        Part::DeleteRange(delete) => touched.push(keys.positions(&delete.range)),
        Part::Range(range) => touched.push(keys.positions(&range.range)),
        Part::Txn(nested) => {
            touched.extend(nested.compares.iter().map(|compare| keys.positions(&compare.range)));
            for part in nested.success.iter().chain(&nested.failure) {
                touch(part, keys, touched);
            }
        }
    }
}

fn parts_run<'t>(txn: &'t Txn, answer: &Answer) -> impl Iterator<Item = &'t Part> {
    let (success, failure): (&[Part], &[Part]) = match answer {
        Answer::Applied(applied) => match &applied.outcome {
            Outcome::Txn(result) if result.succeeded => (&txn.success, &[]),
            Outcome::Txn(_) => (&[], &txn.failure),
            Outcome::Put(_)
            | Outcome::DeleteRange(_)
            | Outcome::Range(_)
            | Outcome::Compacted
            | Outcome::Lease(_)
            | Outcome::SpaceAlarm(_)
            | Outcome::Refused(_) => (&[], &[]),
        },
        Answer::NotDone | Answer::Unknown => (&txn.success, &txn.failure),
    };
    success.iter().chain(failure)
}

/// Sets of keys, each a tree that points to its root.
struct Roots(Vec<usize>);

impl Roots {
    fn of(&mut self, key: usize) -> usize {
        let mut root = key;
        while self.0[root] != root {
            // Halves the path, so that the next look is shorter.
            self.0[root] = self.0[self.0[root]];
            root = self.0[root];
        }
        root
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.of(one), self.of(other));
        self.0[one.max(other)] = one.min(other);
    }
}
