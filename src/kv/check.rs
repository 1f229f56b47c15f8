//! What a command must be to be let in: everything that can be told without a store.
//!
//! The leader runs this before it proposes, and apply runs it again, because what reaches apply came off a disk
//! or a wire. It holds for every command that passed: keys are not empty and within their limit, no range ends
//! before it starts, and no list of operations puts a key twice or both puts and deletes it.
//!
//! It leaves out what depends on the state (leases, revisions): `txn.rs` looks for that.

use super::command::{Command, KeyRange, Operation, Put, Query, StoreRefusal, Txn};
use crate::limits::{KEY_BYTES_MAX, TXN_OPERATIONS_MAX, VALUE_BYTES_MAX};
use bytes::Bytes;

/// Whether a store would look at this command at all.
///
/// # Errors
/// The refusal that `Store::apply` would answer with, whatever its state.
pub fn check(command: &Command) -> Result<(), StoreRefusal> {
    match command {
        Command::Put(put) => check_put(put),
        Command::DeleteRange(delete) => check_range(&delete.range),
        Command::Txn(txn) => check_txn(txn),
    }
}

/// Whether a store would look at this query at all.
///
/// # Errors
/// The refusal that `Store::query` would answer with, whatever its state.
pub fn check_query(query: &Query) -> Result<(), StoreRefusal> {
    match query {
        Query::Range(range) => check_range(&range.range),
        Query::Txn(txn) => {
            check_txn(txn)?;
            let mut operations = txn.success.iter().chain(&txn.failure);
            refuse_if(operations.any(is_write), StoreRefusal::WriteInQuery)
        }
    }
}

/// The order of these checks is etcd's, so that a request with several faults gets the same answer.
fn check_txn(txn: &Txn) -> Result<(), StoreRefusal> {
    let count = txn.compares.len().max(txn.success.len()).max(txn.failure.len());
    refuse_if(count > TXN_OPERATIONS_MAX, StoreRefusal::TooManyOperations)?;
    txn.compares.iter().try_for_each(|compare| check_range(&compare.range))?;
    txn.success.iter().chain(&txn.failure).try_for_each(check_operation)?;
    check_overlaps(&txn.success)?;
    check_overlaps(&txn.failure)
}

fn check_operation(operation: &Operation) -> Result<(), StoreRefusal> {
    match operation {
        Operation::Put(put) => check_put(put),
        Operation::DeleteRange(delete) => check_range(&delete.range),
        Operation::Range(range) => check_range(&range.range),
    }
}

fn check_put(put: &Put) -> Result<(), StoreRefusal> {
    check_key(&put.key)?;
    refuse_if(put.value.len() > VALUE_BYTES_MAX, StoreRefusal::OutOfBounds)
}

fn check_key(key: &Bytes) -> Result<(), StoreRefusal> {
    refuse_if(key.is_empty(), StoreRefusal::KeyMissing)?;
    refuse_if(key.len() > KEY_BYTES_MAX, StoreRefusal::OutOfBounds)
}

/// An empty start is legal in a range, and comes before every key.
fn check_range(range: &KeyRange) -> Result<(), StoreRefusal> {
    let is_within = match range {
        KeyRange::Key(key) => return check_key(key),
        KeyRange::Span { start, end } => {
            start <= end && start.len() <= KEY_BYTES_MAX && end.len() <= KEY_BYTES_MAX
        }
        KeyRange::From(start) => start.len() <= KEY_BYTES_MAX,
    };
    refuse_if(!is_within, StoreRefusal::OutOfBounds)
}

/// Refuses a list that would write one key twice. Two deletes may overlap: the second finds nothing.
///
/// etcd overlooks a put under a delete that reaches to the end of the keyspace (seen on 3.5.1), and then makes
/// two changes of one key at one revision. We refuse that like every other overlap.
fn check_overlaps(operations: &[Operation]) -> Result<(), StoreRefusal> {
    let mut puts: Vec<&Bytes> = operations.iter().filter_map(put_key).collect();
    puts.sort_unstable();
    let is_put_twice = puts.windows(2).any(|pair| pair[0] == pair[1]);
    let is_put_and_deleted = operations.iter().any(|operation| match operation {
        Operation::DeleteRange(delete) => holds_any(&delete.range, &puts),
        Operation::Put(_) | Operation::Range(_) => false,
    });
    refuse_if(is_put_twice || is_put_and_deleted, StoreRefusal::DuplicateKey)
}

/// Whether any of `sorted_keys` is in the range: whether the first that is not before it is.
fn holds_any(range: &KeyRange, sorted_keys: &[&Bytes]) -> bool {
    let start = match range {
        KeyRange::Key(start) | KeyRange::Span { start, .. } | KeyRange::From(start) => start,
    };
    let candidate = sorted_keys.get(sorted_keys.partition_point(|key| *key < start));
    candidate.is_some_and(|key| match range {
        KeyRange::Key(only) => *key == only,
        KeyRange::Span { end, .. } => *key < end,
        KeyRange::From(_) => true,
    })
}

fn put_key(operation: &Operation) -> Option<&Bytes> {
    match operation {
        Operation::Put(put) => Some(&put.key),
        Operation::DeleteRange(_) | Operation::Range(_) => None,
    }
}

fn is_write(operation: &Operation) -> bool {
    match operation {
        Operation::Put(_) | Operation::DeleteRange(_) => true,
        Operation::Range(_) => false,
    }
}

fn refuse_if(is_refused: bool, refusal: StoreRefusal) -> Result<(), StoreRefusal> {
    if is_refused { Err(refusal) } else { Ok(()) }
}
