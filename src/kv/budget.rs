//! What a transaction may cost: keys that it looks at, and bytes that it answers with.
//!
//! A hundred kilobytes of nested reads of everything would otherwise ask every member for gigabytes, and again at every
//! restart, because they stand in the log. So a transaction that costs more than one may is refused whole, before its first
//! write.
//!
//! What always holds: the cost comes from the transaction and replicated state alone, so every member decides alike; and it
//! is at least what running costs, because where an operation meets what an earlier one of the same transaction wrote, both
//! what was there and what was written count.
//!
//! It leaves out keys that were deleted and are remembered: how many a walk comes by is each member's own affair. Walks over
//! more than one key are therefore counted, too ([`TXN_WALKS_MAX`], `check.rs`).

use super::command::{DeleteRange, KeyRange, Operation, Put, Range, StoreRefusal, Txn};
use super::keys::Seen;
use super::range::{self, View};
use crate::ids::Revision;
use crate::limits::{TXN_ANSWER_BYTES_MAX, TXN_KEYS_MAX};
use bytes::Bytes;
use core::ops::ControlFlow;
use std::collections::BTreeMap;

/// Bytes that an answer takes for each operation, and for each pair, beside keys and values.
const FIXED_BYTES: u64 = 64;

/// What is left of what one transaction may cost.
#[derive(Debug)]
pub(super) struct Budget {
    keys: u64,
    bytes: u64,
}

/// What the transaction has written so far.
#[derive(Debug, Default)]
struct Written<'txn> {
    /// Keys that it has put, with the bytes that an answer takes for the pair without its value, and for the value.
    puts: BTreeMap<&'txn Bytes, (u64, u64)>,
    /// Whether it has written at all.
    is_any: bool,
}

impl Budget {
    /// That of a transaction of which nothing ran yet.
    pub(super) const fn whole() -> Self {
        Self { keys: TXN_KEYS_MAX, bytes: TXN_ANSWER_BYTES_MAX }
    }

    /// Takes one key to look at.
    pub(super) fn look(&mut self) -> Result<(), StoreRefusal> {
        take(&mut self.keys, 1)
    }

    fn answer(&mut self, bytes: u64) -> Result<(), StoreRefusal> {
        take(&mut self.bytes, bytes)
    }

    /// Looks at the keys of a range, and calls `visit` with each.
    fn walk<'store>(
        &mut self,
        view: View<'store>,
        range: &Range,
        mut visit: impl FnMut(Seen<'store>),
    ) -> Result<(), StoreRefusal> {
        let mut refusal = self.look();
        let at = range::revision_of(range, view.current);
        view.keys.visit_while(&range.range, at, |seen| {
            refusal = refusal.and_then(|()| self.look());
            if refusal.is_err() {
                return ControlFlow::Break(());
            }
            visit(seen);
            ControlFlow::Continue(())
        });
        refusal
    }
}

fn take(left: &mut u64, cost: u64) -> Result<(), StoreRefusal> {
    *left = left.checked_sub(cost).ok_or(StoreRefusal::CostsTooMuch)?;
    Ok(())
}

/// Takes from `budget` what the lists cost that run: `path` tells which do, as in `txn.rs`.
///
/// # Errors
/// There is not that much left.
pub(super) fn charge(
    budget: &mut Budget,
    view: View<'_>,
    txn: &Txn,
    path: &mut dyn Iterator<Item = bool>,
) -> Result<(), StoreRefusal> {
    charge_chosen(budget, view, txn, path, &mut Written::default())
}

fn charge_chosen<'txn>(
    budget: &mut Budget,
    view: View<'_>,
    txn: &'txn Txn,
    path: &mut dyn Iterator<Item = bool>,
    written: &mut Written<'txn>,
) -> Result<(), StoreRefusal> {
    for operation in super::txn::chosen(txn, super::txn::next(path)) {
        budget.answer(FIXED_BYTES)?;
        match operation {
            Operation::Put(put) => charge_put(budget, view, put, written)?,
            Operation::DeleteRange(delete) => charge_delete(budget, view, delete, written)?,
            Operation::Range(range) => {
                charge_range(budget, view, range, written.is_any)?;
                charge_range_of_written(budget, range, written)?;
            }
            Operation::Txn(nested) => charge_chosen(budget, view, nested, path, written)?,
        }
    }
    Ok(())
}

fn charge_put<'txn>(
    budget: &mut Budget,
    view: View<'_>,
    put: &'txn Put,
    written: &mut Written<'txn>,
) -> Result<(), StoreRefusal> {
    budget.look()?;
    let value_bytes = put.value.len() as u64;
    written.puts.insert(&put.key, (FIXED_BYTES + put.key.len() as u64, value_bytes));
    written.is_any = true;
    let previous = view.keys.get(&put.key, view.current).filter(|_| put.wants_previous);
    previous.map_or(Ok(()), |seen| budget.answer(pair_bytes(seen, true)))
}

/// A second delete of the same keys finds none, and costs as if it did.
fn charge_delete(
    budget: &mut Budget,
    view: View<'_>,
    delete: &DeleteRange,
    written: &mut Written<'_>,
) -> Result<(), StoreRefusal> {
    written.is_any = true;
    let all = Range { count_only: !delete.wants_previous, ..Range::new(delete.range.clone()) };
    charge_range(budget, view, &all, false)
}

/// What a read costs, but for what was put before it. After a write its limit says nothing: which pairs come first may have
/// changed.
fn charge_range(
    budget: &mut Budget,
    view: View<'_>,
    range: &Range,
    is_after_write: bool,
) -> Result<(), StoreRefusal> {
    let unlimited = Range { limit: 0, ..range.clone() };
    let mut selection = range::Selection::of(if is_after_write { &unlimited } else { range });
    budget.walk(view, range, |seen| selection.offer(seen))?;
    let with_values = !range.keys_only;
    let (kept, _) = selection.into_kept();
    kept.into_iter().try_for_each(|seen| budget.answer(pair_bytes(seen, with_values)))
}

/// What it costs more because of earlier puts of the transaction.
fn charge_range_of_written(
    budget: &mut Budget,
    range: &Range,
    written: &Written<'_>,
) -> Result<(), StoreRefusal> {
    if range.revision != Revision(0) {
        return Ok(());
    }
    let (KeyRange::Key(start) | KeyRange::Span { start, .. } | KeyRange::From(start)) = &range.range;
    let from = written.puts.range::<&Bytes, _>(start..);
    for (_, (pair_bytes, value_bytes)) in from.take_while(|(key, _)| range.range.contains(key)) {
        budget.look()?;
        if !range.count_only {
            budget.answer(pair_bytes + if range.keys_only { 0 } else { *value_bytes })?;
        }
    }
    Ok(())
}

fn pair_bytes(seen: Seen<'_>, with_value: bool) -> u64 {
    let value_bytes = if with_value { seen.pair.value.len() as u64 } else { 0 };
    FIXED_BYTES + seen.key().len() as u64 + value_bytes
}

#[cfg(test)]
mod tests {
    use super::super::command::{
        Command, Compare, CompareOperator, CompareTarget, OperationResult, Outcome, Query, TxnResult,
    };
    use super::super::{Store, properties};
    use super::*;
    use crate::limits::{TXN_WALKS_MAX, VALUE_BYTES_MAX};
    use crate::property;

    fn everything() -> KeyRange {
        KeyRange::From(Bytes::new())
    }

    fn read(range: KeyRange) -> Operation {
        Operation::Range(Range::new(range))
    }

    fn put(key: &'static str, value: Vec<u8>) -> Put {
        Put::new(Bytes::from(key), Bytes::from(value))
    }

    /// Transactions of one level, each with `each` operations, in one.
    fn nested(count: usize, each: usize, operation: &Operation) -> Txn {
        let inner = Txn { success: vec![operation.clone(); each], ..Txn::default() };
        Txn { success: vec![Operation::Txn(inner); count], ..Txn::default() }
    }

    fn store_of(keys: u64) -> Store {
        let mut store = Store::new();
        for key in 0..keys {
            let key = Bytes::from(format!("{key:06}"));
            store.apply(&Command::Put(Put::new(key, Bytes::from_static(b"v"))));
        }
        store
    }

    /// The answer to a transaction, which is also asked as a query if it may be.
    fn answer(store: &mut Store, txn: Txn) -> Outcome {
        let as_query = store.query(&Query::Txn(txn.clone()));
        let (revision, hash) = (store.revision(), store.state_hash());
        let applied = store.apply(&Command::Txn(txn));
        if let Outcome::Refused(_) = applied.outcome {
            assert_eq!((store.revision(), store.state_hash()), (revision, hash), "a refusal changes nothing");
        }
        if as_query.outcome != Outcome::Refused(StoreRefusal::WriteInQuery) {
            assert_eq!(as_query, applied, "a query is bounded like a write");
        }
        applied.outcome
    }

    const REFUSED: Outcome = Outcome::Refused(StoreRefusal::CostsTooMuch);

    #[test]
    fn nested_reads_of_everything_are_refused_before_anything_is_written() {
        let mut store = store_of(2);
        let mut txn = nested(64, 63, &read(everything()));
        txn.success.insert(0, Operation::Put(put("first", vec![b'v'])));
        assert_eq!(answer(&mut store, txn), REFUSED);
    }

    #[test]
    fn a_transaction_without_others_may_do_nothing_but_walk() {
        let is_new = Compare {
            range: everything(),
            operator: CompareOperator::Greater,
            target: CompareTarget::Version(0),
        };
        let operations = vec![read(everything()); 128];
        let flat = Txn { compares: vec![is_new; 128], success: operations.clone(), failure: operations };
        assert!(matches!(answer(&mut store_of(2), flat), Outcome::Txn(_)));
        assert_eq!(
            answer(&mut store_of(2), nested(5, 77, &read(everything()))),
            REFUSED,
            "one walk too many"
        );
        assert_eq!(TXN_WALKS_MAX, 384);
    }

    #[test]
    fn the_keys_that_a_transaction_looks_at_are_counted() {
        let count = Operation::Range(Range { count_only: true, ..Range::new(everything()) });
        // Each walk costs one key more than it comes by.
        let mut store = store_of(1_023);
        assert!(matches!(answer(&mut store, nested(4, 64, &count)), Outcome::Txn(_)), "just so many");
        let mut beyond = nested(4, 64, &count);
        beyond.success.push(read(KeyRange::Key(Bytes::from_static(b"x"))));
        assert_eq!(answer(&mut store, beyond), REFUSED, "one too many");
        let delete = Operation::DeleteRange(DeleteRange { range: everything(), wants_previous: false });
        assert_eq!(answer(&mut store, nested(5, 64, &delete)), REFUSED, "what is to be deleted counts, too");
    }

    #[test]
    fn compares_count_up_to_the_first_that_does_not_hold() {
        let of_version = |version| Compare {
            range: everything(),
            operator: CompareOperator::Equal,
            target: CompareTarget::Version(version),
        };
        let mut store = store_of(4_096);
        let held = Txn { compares: vec![of_version(1); 128], ..Txn::default() };
        assert_eq!(answer(&mut store, held), REFUSED);
        let not_held = Txn { compares: vec![of_version(2); 128], ..Txn::default() };
        assert!(matches!(answer(&mut store, not_held), Outcome::Txn(_)));
    }

    #[test]
    fn the_bytes_of_an_answer_are_counted() {
        let mut store = store_of(0);
        store.apply(&Command::Put(put("a", vec![b'v'; 1_024 * 1_024])));
        let point = |keys_only| {
            let key = KeyRange::Key(Bytes::from_static(b"a"));
            Operation::Range(Range { keys_only, ..Range::new(key) })
        };
        assert!(matches!(answer(&mut store, nested(1, 14, &point(false))), Outcome::Txn(_)));
        assert_eq!(answer(&mut store, nested(1, 15, &point(false))), REFUSED);
        assert!(matches!(answer(&mut store, nested(64, 60, &point(true))), Outcome::Txn(_)));
        let limited = Operation::Range(Range { limit: 1, ..Range::new(everything()) });
        assert!(matches!(answer(&mut store, nested(1, 14, &limited)), Outcome::Txn(_)));
    }

    #[test]
    fn what_the_transaction_itself_puts_counts_where_it_is_read() {
        let big = put("a", vec![b'v'; VALUE_BYTES_MAX]);
        let with_reads = |count| {
            let mut operations = vec![Operation::Put(big.clone())];
            operations.extend(vec![read(everything()); count]);
            Txn { success: operations, ..Txn::default() }
        };
        assert!(matches!(answer(&mut store_of(0), with_reads(9)), Outcome::Txn(_)));
        assert_eq!(answer(&mut store_of(0), with_reads(10)), REFUSED);
    }

    #[test]
    fn a_limit_does_not_bound_a_read_after_a_delete() {
        let mut store = store_of(0);
        store.apply(&Command::Put(put("a", Vec::new())));
        store.apply(&Command::Put(put("b", vec![b'v'; VALUE_BYTES_MAX])));
        let first = Operation::Range(Range { limit: 1, ..Range::new(everything()) });
        let mut operations = vec![first; 11];
        let reads = Txn { success: operations.clone(), ..Txn::default() };
        assert!(matches!(answer(&mut store, reads), Outcome::Txn(_)));
        let range = KeyRange::Key(Bytes::from_static(b"a"));
        operations.insert(0, Operation::DeleteRange(DeleteRange { range, wants_previous: false }));
        assert_eq!(answer(&mut store, Txn { success: operations, ..Txn::default() }), REFUSED);
    }

    #[test]
    fn what_a_put_replaces_counts_if_it_is_asked_for() {
        let mut store = store_of(0);
        let keys = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"];
        let puts = |wants_previous| Txn {
            success: keys.map(|key| Operation::Put(Put { wants_previous, ..put(key, vec![b'w']) })).to_vec(),
            ..Txn::default()
        };
        for key in keys {
            store.apply(&Command::Put(put(key, vec![b'v'; VALUE_BYTES_MAX])));
        }
        assert_eq!(answer(&mut store, puts(true)), REFUSED);
        assert!(matches!(answer(&mut store, puts(false)), Outcome::Txn(_)));
    }

    /// What an answer takes at the least.
    fn answer_bytes(result: &TxnResult) -> u64 {
        let pairs_bytes = |pairs: &[super::super::KeyValue]| -> u64 {
            pairs.iter().map(|pair| FIXED_BYTES + (pair.key.len() + pair.value.len()) as u64).sum()
        };
        let of_one = |result: &OperationResult| match result {
            OperationResult::Put(put) => pairs_bytes(put.previous.as_slice()),
            OperationResult::DeleteRange(delete) => pairs_bytes(&delete.previous),
            OperationResult::Range(range) => pairs_bytes(&range.pairs),
            OperationResult::Txn(nested) => answer_bytes(nested),
        };
        result.results.iter().map(|result| FIXED_BYTES + of_one(result)).sum()
    }

    #[test]
    fn no_answer_is_longer_than_what_it_was_taken_to_cost() {
        property::hold(300, |seed| {
            let mut random = properties::Random::new(seed);
            let mut store = Store::new();
            for _ in 0..60 {
                let command = random.command();
                let before = store.clone();
                random.revision = store.revision().0;
                let Outcome::Txn(result) = store.apply(&command).outcome else { continue };
                let Command::Txn(txn) = &command else { continue };
                let mut budget = Budget::whole();
                let path = super::super::txn::prepare_within(&mut budget, before.view(), txn);
                assert!(path.is_ok(), "it was not refused");
                let cost = TXN_ANSWER_BYTES_MAX - budget.bytes;
                assert!(answer_bytes(&result) <= cost, "{cost} bytes for {result:?}");
            }
        });
    }
}
