//! Transactions: compares first, then one of two lists of operations.
//!
//! What always holds: every compare is evaluated against the state before the transaction; whatever could
//! refuse an operation of the chosen list is looked for before the first of them runs. The list not chosen is
//! not looked at: what it would have been refused for did not happen (etcd's rule).

use super::command::{
    Compare, CompareOperator, CompareTarget, Operation, OperationResult, StoreRefusal, Txn, TxnResult,
};
use super::keys::{Keys, Seen};
use super::range;
use super::write::Writer;
use crate::ids::{LeaseId, Revision};
use crate::planted;
use core::cmp::Ordering;

/// Runs a transaction, or refuses it whole.
pub(super) fn run(writer: &mut Writer<'_>, txn: &Txn) -> Result<TxnResult, StoreRefusal> {
    let begin = writer.revision();
    let (succeeded, operations) = choose(writer.keys(), begin, txn);
    pre_check(operations, begin)?;
    let mut results = Vec::with_capacity(operations.len());
    for operation in operations {
        if planted!(102) && choose(writer.keys(), writer.revision(), txn).0 != succeeded {
            break;
        }
        results.push(writer.run(operation));
    }
    Ok(TxnResult { succeeded, results })
}

/// Runs a transaction that only reads.
pub(super) fn read(keys: &Keys, current: Revision, txn: &Txn) -> Result<TxnResult, StoreRefusal> {
    let (succeeded, operations) = choose(keys, current, txn);
    pre_check(operations, current)?;
    let results = operations.iter().map(|operation| match operation {
        Operation::Range(range) => Ok(OperationResult::Range(range::read(keys, range, current))),
        Operation::Put(_) | Operation::DeleteRange(_) => Err(StoreRefusal::WriteInQuery),
    });
    Ok(TxnResult { succeeded, results: results.collect::<Result<_, _>>()? })
}

/// Why a put that names this lease is refused, if so. No lease exists yet, and 0 is none.
pub(super) fn lease_refusal(lease: LeaseId) -> Option<StoreRefusal> {
    (lease != LeaseId(0)).then_some(StoreRefusal::LeaseNotFound)
}

/// Whether the compares hold, and the list that runs therefore.
fn choose<'txn>(keys: &Keys, current: Revision, txn: &'txn Txn) -> (bool, &'txn [Operation]) {
    let succeeded = txn.compares.iter().all(|compare| holds(keys, current, compare));
    (succeeded, if succeeded { &txn.success } else { &txn.failure })
}

/// Looks for every refusal that depends on the state: first those of puts, then those of reads, the order in
/// which etcd answers when there are several.
fn pre_check(operations: &[Operation], current: Revision) -> Result<(), StoreRefusal> {
    let puts = operations.iter().filter_map(|operation| match operation {
        Operation::Put(put) => lease_refusal(put.lease),
        Operation::DeleteRange(_) | Operation::Range(_) => None,
    });
    let reads = operations.iter().filter_map(|operation| match operation {
        Operation::Range(range) => range::revision_refusal(range.revision, current),
        Operation::Put(_) | Operation::DeleteRange(_) => None,
    });
    puts.chain(reads).next().map_or(Ok(()), Err)
}

/// Whether every key of the range satisfies the compare. Where there is no key, a missing one stands in.
fn holds(keys: &Keys, current: Revision, compare: &Compare) -> bool {
    let mut is_empty = true;
    let mut all = true;
    keys.visit(&compare.range, current, |seen| {
        is_empty = false;
        all = all && holds_for(Some(seen), compare);
    });
    if is_empty { holds_for(None, compare) } else { all }
}

fn holds_for(seen: Option<Seen<'_>>, compare: &Compare) -> bool {
    let ordering = match &compare.target {
        CompareTarget::Version(given) => seen.map_or(0, |seen| seen.pair.version).cmp(given),
        CompareTarget::Create(given) => seen.map_or(Revision(0), |seen| seen.pair.create_revision).cmp(given),
        CompareTarget::Mod(given) => seen.map_or(Revision(0), |seen| seen.mod_revision).cmp(given),
        CompareTarget::Lease(given) => seen.map_or(LeaseId(0), |seen| seen.pair.lease).cmp(given),
        CompareTarget::Value(given) => match seen {
            Some(seen) => seen.pair.value.cmp(given),
            // An empty value and a missing one look alike to a client, so this is never true (etcd's rule).
            None => return false,
        },
    };
    match compare.operator {
        CompareOperator::Equal => ordering == Ordering::Equal,
        CompareOperator::NotEqual => ordering != Ordering::Equal,
        CompareOperator::Greater => ordering == Ordering::Greater,
        CompareOperator::Less => ordering == Ordering::Less,
    }
}
