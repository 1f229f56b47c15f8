//! Transactions: compares first, then one of two lists of operations, which may be transactions again.
//!
//! What always holds: every compare, those of nested transactions included, is evaluated against the state
//! before the outermost one; whatever could refuse an operation that is going to run is looked for before the
//! first of them runs. A list that is not chosen is not looked at: what it would have been refused for did not
//! happen (etcd's rule).
//!
//! So a transaction takes three walks over the lists that run, in the same order. The first decides which those
//! are and writes it down as a [`Path`]; the second looks for refusals; the third runs.

use super::command::{
    Compare, CompareOperator, CompareTarget, Operation, OperationResult, Put, StoreRefusal, Txn, TxnResult,
};
use super::keys::Seen;
use super::range::{self, View};
use super::write::Writer;
use crate::ids::{LeaseId, Revision};
use crate::planted;
use core::cmp::Ordering;

/// Whether the compares held: of the transaction, then of each one nested in the lists that run, as they come.
type Path = Vec<bool>;

/// Runs a transaction, or refuses it whole.
pub(super) fn run(writer: &mut Writer<'_>, txn: &Txn) -> Result<TxnResult, StoreRefusal> {
    let path = prepare(writer.view(), txn)?;
    Ok(run_chosen(writer, txn, &mut path.into_iter()))
}

/// Runs a transaction that only reads.
pub(super) fn read(view: View<'_>, txn: &Txn) -> Result<TxnResult, StoreRefusal> {
    let path = prepare(view, txn)?;
    read_chosen(view, txn, &mut path.into_iter())
}

/// Why a put is refused for what depends on the state, if so.
pub(super) fn put_refusal(view: View<'_>, put: &Put) -> Option<StoreRefusal> {
    let is_missing = || view.keys.get(&put.key, view.current).is_none();
    if (put.keeps_value || put.keeps_lease) && is_missing() {
        return Some(StoreRefusal::KeyNotFound);
    }
    lease_refusal(view, put.lease)
}

/// Why a put that names this lease is refused, if so. 0 is none, and always there.
pub(super) fn lease_refusal(view: View<'_>, lease: LeaseId) -> Option<StoreRefusal> {
    let is_known = lease == LeaseId(0) || view.leases.get(lease).is_some();
    (!is_known).then_some(StoreRefusal::LeaseNotFound)
}

/// The first two walks.
fn prepare(view: View<'_>, txn: &Txn) -> Result<Path, StoreRefusal> {
    let mut path = Path::new();
    choose(view, txn, &mut path);
    pre_check(view, txn, &mut path.iter().copied())?;
    Ok(path)
}

/// Decides which lists run, and appends it to `path`.
fn choose(view: View<'_>, txn: &Txn, path: &mut Path) {
    let succeeded = are_held(view, txn);
    path.push(succeeded);
    for operation in chosen(txn, succeeded) {
        if let Operation::Txn(nested) = operation {
            choose(view, nested, path);
        }
    }
}

const fn chosen(txn: &Txn, succeeded: bool) -> &[Operation] {
    if succeeded { txn.success.as_slice() } else { txn.failure.as_slice() }
}

/// Looks for every refusal that depends on the state, in the order of the operations (etcd's).
fn pre_check(view: View<'_>, txn: &Txn, path: &mut impl Iterator<Item = bool>) -> Result<(), StoreRefusal> {
    for operation in chosen(txn, next(path)) {
        let refusal = match operation {
            Operation::Put(put) => put_refusal(view, put),
            Operation::DeleteRange(_) => None,
            Operation::Range(range) => view.refusal_of(range.revision),
            Operation::Txn(nested) => pre_check(view, nested, path).err(),
        };
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
    }
    Ok(())
}

fn run_chosen(writer: &mut Writer<'_>, txn: &Txn, path: &mut dyn Iterator<Item = bool>) -> TxnResult {
    let mut succeeded = next(path);
    if planted!(110) {
        succeeded = are_held(writer.view(), txn);
    }
    let operations = chosen(txn, succeeded);
    let mut results = Vec::with_capacity(operations.len());
    for operation in operations {
        if planted!(102) && are_held(writer.view(), txn) != succeeded {
            break;
        }
        results.push(match operation {
            Operation::Put(put) => OperationResult::Put(writer.put(put)),
            Operation::DeleteRange(delete) => OperationResult::DeleteRange(writer.delete_range(delete)),
            Operation::Range(range) => OperationResult::Range(writer.range(range)),
            Operation::Txn(nested) => OperationResult::Txn(run_chosen(writer, nested, path)),
        });
    }
    TxnResult { succeeded, results }
}

fn read_chosen(
    view: View<'_>,
    txn: &Txn,
    path: &mut dyn Iterator<Item = bool>,
) -> Result<TxnResult, StoreRefusal> {
    let succeeded = next(path);
    let results = chosen(txn, succeeded).iter().map(|operation| match operation {
        Operation::Range(range) => Ok(OperationResult::Range(range::read(view.keys, range, view.current))),
        Operation::Txn(nested) => read_chosen(view, nested, path).map(OperationResult::Txn),
        Operation::Put(_) | Operation::DeleteRange(_) => Err(StoreRefusal::WriteInQuery),
    });
    Ok(TxnResult { succeeded, results: results.collect::<Result<_, _>>()? })
}

fn next(path: &mut (impl Iterator<Item = bool> + ?Sized)) -> bool {
    path.next().expect("the path has a step for every transaction that runs")
}

fn are_held(view: View<'_>, txn: &Txn) -> bool {
    txn.compares.iter().all(|compare| holds(view, compare))
}

/// Whether every key of the range satisfies the compare. Where there is no key, a missing one stands in.
fn holds(view: View<'_>, compare: &Compare) -> bool {
    let mut is_empty = true;
    let mut all = true;
    view.keys.visit(&compare.range, view.current, |seen| {
        is_empty = false;
        all = all && holds_for(Some(seen), compare);
    });
    if is_empty { holds_for(None, compare) } else { all }
}

fn holds_for(seen: Option<Seen<'_>>, compare: &Compare) -> bool {
    let ordering = match &compare.target {
        CompareTarget::Version(given) => seen.map_or(0, |seen| seen.pair.version).cmp(given),
        CompareTarget::Create(given) => seen.map_or(Revision(0), |seen| seen.pair.create_revision).cmp(given),
        CompareTarget::Mod(given) => seen.map_or(Revision(0), Seen::mod_revision).cmp(given),
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
