//! Transactions: compares first, then one of two lists of operations, which may be transactions again.
//!
//! What always holds: every compare, those of nested transactions included, is evaluated against the state
//! before the outermost one; whatever could refuse an operation that is going to run is looked for before the
//! first of them runs. A list that is not chosen is not looked at: what it would have been refused for did not
//! happen (etcd's rule).
//!
//! So a transaction takes walks over the lists that run, in the same order. The first decides which those are and
//! writes it down as a [`Path`]; two look for refusals, of the puts and then of the ranges; one adds up what running
//! will cost (`budget.rs`); the last runs.

use super::budget::{Budget, charge};
use super::command::{
    Compare, CompareOperator, CompareTarget, Operation, OperationResult, Put, StoreRefusal, Txn, TxnResult,
};
use super::keys::Seen;
use super::range::{self, View};
use super::write::Writer;
use crate::ids::{LeaseId, Revision};
use crate::planted;
use core::cmp::Ordering;
use core::ops::ControlFlow;

/// Whether the compares held: of the transaction, then of each one nested in the lists that run, as they come.
pub(super) type Path = Vec<bool>;

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

fn prepare(view: View<'_>, txn: &Txn) -> Result<Path, StoreRefusal> {
    prepare_within(&mut Budget::whole(), view, txn)
}

/// All walks but the last.
pub(super) fn prepare_within(budget: &mut Budget, view: View<'_>, txn: &Txn) -> Result<Path, StoreRefusal> {
    let mut path = Path::new();
    choose(budget, view, txn, &mut path)?;
    // What is wrong with a put is told before what is wrong with any range (etcd's order).
    pre_check(&|operation| refusal_of_put(view, operation), txn, &mut path.iter().copied())?;
    pre_check(&|operation| refusal_of_range(view, operation), txn, &mut path.iter().copied())?;
    charge(budget, view, txn, &mut path.iter().copied())?;
    Ok(path)
}

/// Decides which lists run, and appends it to `path`.
fn choose(budget: &mut Budget, view: View<'_>, txn: &Txn, path: &mut Path) -> Result<(), StoreRefusal> {
    let succeeded = are_held(budget, view, txn)?;
    path.push(succeeded);
    for operation in chosen(txn, succeeded) {
        if let Operation::Txn(nested) = operation {
            choose(budget, view, nested, path)?;
        }
    }
    Ok(())
}

/// The list that runs.
pub(super) const fn chosen(txn: &Txn, succeeded: bool) -> &[Operation] {
    if succeeded { txn.success.as_slice() } else { txn.failure.as_slice() }
}

/// Looks for the first operation that `refusal_of` refuses, in their order.
fn pre_check(
    refusal_of: &impl Fn(&Operation) -> Option<StoreRefusal>,
    txn: &Txn,
    path: &mut dyn Iterator<Item = bool>,
) -> Result<(), StoreRefusal> {
    for operation in chosen(txn, next(path)) {
        match operation {
            Operation::Txn(nested) => pre_check(refusal_of, nested, path)?,
            Operation::Put(_) | Operation::DeleteRange(_) | Operation::Range(_) => {
                refusal_of(operation).map_or(Ok(()), Err)?;
            }
        }
    }
    Ok(())
}

fn refusal_of_put(view: View<'_>, operation: &Operation) -> Option<StoreRefusal> {
    if let Operation::Put(put) = operation { put_refusal(view, put) } else { None }
}

fn refusal_of_range(view: View<'_>, operation: &Operation) -> Option<StoreRefusal> {
    if let Operation::Range(range) = operation { view.refusal_of(range.revision) } else { None }
}

fn run_chosen(writer: &mut Writer<'_>, txn: &Txn, path: &mut dyn Iterator<Item = bool>) -> TxnResult {
    let mut succeeded = next(path);
    if planted!(110) {
        succeeded = are_held_now(writer.view(), txn);
    }
    let operations = chosen(txn, succeeded);
    let mut results = Vec::with_capacity(operations.len());
    for operation in operations {
        if planted!(102) && are_held_now(writer.view(), txn) != succeeded {
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

/// Whether the compares of the next transaction on the path held.
pub(super) fn next(path: &mut (impl Iterator<Item = bool> + ?Sized)) -> bool {
    path.next().expect("the path has a step for every transaction that runs")
}

fn are_held(budget: &mut Budget, view: View<'_>, txn: &Txn) -> Result<bool, StoreRefusal> {
    for compare in &txn.compares {
        if !holds(budget, view, compare)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether every key of the range satisfies the compare. Where there is no key, a missing one stands in.
fn holds(budget: &mut Budget, view: View<'_>, compare: &Compare) -> Result<bool, StoreRefusal> {
    let mut is_empty = true;
    let mut all = true;
    let mut refusal = budget.look();
    view.keys.visit_while(&compare.range, view.current, |seen| {
        is_empty = false;
        refusal = refusal.and_then(|()| budget.look());
        all = all && holds_for(Some(seen), compare);
        if all && refusal.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    refusal?;
    Ok(if is_empty { holds_for(None, compare) } else { all })
}

/// For bugs that are planted: whether the compares hold by now.
fn are_held_now(view: View<'_>, txn: &Txn) -> bool {
    are_held(&mut Budget::whole(), view, txn) == Ok(true)
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
