//! What a command must be to be let in: everything that can be told without a store.
//!
//! The leader runs this before it proposes, and apply runs it again, because what reaches apply came off a disk
//! or a wire. It holds for every command that passed: keys are not empty and within their limit, a put that keeps
//! something does not bring it, and no two operations that may both run put the same key, or put and delete it.
//!
//! It leaves out what depends on the state (leases, revisions): `txn.rs` looks for that.

use super::command::{Command, KeyRange, LeaseCommand, Operation, Put, Query, StoreRefusal, Txn};
use crate::ids::LeaseId;
use crate::limits::{
    KEY_BYTES_MAX, LEASE_TTL_MILLIS_MAX, TXN_OPERATIONS_MAX, TXN_WALKS_MAX, VALUE_BYTES_MAX,
};
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
        Command::Lease(LeaseCommand::Grant(grant)) => {
            let is_within = (1..=LEASE_TTL_MILLIS_MAX).contains(&grant.ttl_ms);
            refuse_if(!is_within, StoreRefusal::TtlOutOfBounds)
        }
        Command::Lease(_) | Command::Compact(_) | Command::SpaceAlarm(_) => Ok(()),
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
            refuse_if(has_write(txn), StoreRefusal::WriteInQuery)
        }
        Query::Leases => Ok(()),
    }
}

/// The order of these checks is etcd's, so that a request with several faults gets the same answer.
fn check_txn(txn: &Txn) -> Result<(), StoreRefusal> {
    check_parts(txn, TXN_OPERATIONS_MAX)?;
    writes_of(&txn.success)?;
    writes_of(&txn.failure)?;
    refuse_if(walks_of(txn) > TXN_WALKS_MAX, StoreRefusal::CostsTooMuch)
}

/// How many ranges of several keys a transaction walks through, whichever way its compares go.
fn walks_of(txn: &Txn) -> usize {
    let is_walk = |range: &KeyRange| usize::from(!matches!(range, KeyRange::Key(_)));
    let compares: usize = txn.compares.iter().map(|compare| is_walk(&compare.range)).sum();
    let operations = txn.success.iter().chain(&txn.failure).map(|operation| match operation {
        Operation::Put(_) => 0,
        Operation::DeleteRange(delete) => is_walk(&delete.range),
        Operation::Range(range) => is_walk(&range.range),
        Operation::Txn(nested) => walks_of(nested),
    });
    compares + operations.sum::<usize>()
}

/// The parts of a transaction, each on its own. `operations_max`: what its longest list may hold; what is left of
/// that is what a transaction nested in it may have.
fn check_parts(txn: &Txn, operations_max: usize) -> Result<(), StoreRefusal> {
    let count = txn.compares.len().max(txn.success.len()).max(txn.failure.len());
    let left = operations_max.checked_sub(count).ok_or(StoreRefusal::TooManyOperations)?;
    txn.compares.iter().try_for_each(|compare| check_range(&compare.range))?;
    txn.success.iter().chain(&txn.failure).try_for_each(|operation| match operation {
        Operation::Put(put) => check_put(put),
        Operation::DeleteRange(delete) => check_range(&delete.range),
        Operation::Range(range) => check_range(&range.range),
        Operation::Txn(nested) => check_parts(nested, left),
    })
}

fn check_put(put: &Put) -> Result<(), StoreRefusal> {
    check_key(&put.key)?;
    refuse_if(put.keeps_value && !put.value.is_empty(), StoreRefusal::ValueProvided)?;
    refuse_if(put.keeps_lease && put.lease != LeaseId(0), StoreRefusal::LeaseProvided)?;
    refuse_if(put.value.len() > VALUE_BYTES_MAX, StoreRefusal::OutOfBounds)
}

fn check_key(key: &Bytes) -> Result<(), StoreRefusal> {
    refuse_if(key.is_empty(), StoreRefusal::KeyMissing)?;
    refuse_if(key.len() > KEY_BYTES_MAX, StoreRefusal::OutOfBounds)
}

/// An empty start is legal in a range, and comes before every key. A range that ends before it starts holds none.
fn check_range(range: &KeyRange) -> Result<(), StoreRefusal> {
    let is_within = match range {
        KeyRange::Key(key) => return check_key(key),
        KeyRange::Span { start, end } => start.len() <= KEY_BYTES_MAX && end.len() <= KEY_BYTES_MAX,
        KeyRange::From(start) => start.len() <= KEY_BYTES_MAX,
    };
    refuse_if(!is_within, StoreRefusal::OutOfBounds)
}

/// What a list may write, whichever way its compares go.
#[derive(Default)]
struct Writes<'txn> {
    /// Keys it may put, sorted, each once.
    puts: Vec<&'txn Bytes>,
    /// Ranges it may delete.
    deletes: Vec<&'txn KeyRange>,
}

/// Refuses a list in which two operations may write one key. Two deletes may: the second finds nothing.
///
/// etcd overlooks a put under a delete that reaches to the end of the keyspace (seen on 3.5.1) or that is in a
/// later nested transaction, and then makes two changes of one key at one revision. We refuse those like every
/// other overlap.
fn writes_of(operations: &[Operation]) -> Result<Writes<'_>, StoreRefusal> {
    let mut puts: Vec<(&Bytes, usize)> = Vec::new();
    let mut deletes: Vec<(&KeyRange, usize)> = Vec::new();
    for (place, operation) in operations.iter().enumerate() {
        match operation {
            Operation::Put(put) => puts.push((&put.key, place)),
            Operation::DeleteRange(delete) => deletes.push((&delete.range, place)),
            Operation::Range(_) => {}
            Operation::Txn(nested) => {
                // Only one of the two lists runs, so they do not stand in each other's way.
                for writes in [writes_of(&nested.success)?, writes_of(&nested.failure)?] {
                    puts.extend(writes.puts.into_iter().map(|key| (key, place)));
                    deletes.extend(writes.deletes.into_iter().map(|range| (range, place)));
                }
            }
        }
    }
    puts.sort_unstable();
    puts.dedup();
    let is_put_twice = puts.windows(2).any(|pair| pair[0].0 == pair[1].0);
    refuse_if(is_put_twice || is_any_deleted(&puts, &deletes), StoreRefusal::DuplicateKey)?;
    Ok(Writes {
        puts: puts.into_iter().map(|(key, _)| key).collect(),
        deletes: deletes.into_iter().map(|(range, _)| range).collect(),
    })
}

/// Whether a key is put at one place of a list and deleted at another. The puts are sorted by key.
fn is_any_deleted(puts: &[(&Bytes, usize)], deletes: &[(&KeyRange, usize)]) -> bool {
    // For each put the next one at another place, so that no delete has to walk over those of its own place.
    let mut next_elsewhere = vec![puts.len(); puts.len()];
    for at in (1..puts.len()).rev() {
        let is_same = puts[at].1 == puts[at - 1].1;
        next_elsewhere[at - 1] = if is_same { next_elsewhere[at] } else { at };
    }
    deletes.iter().any(|(range, place)| {
        let start = match range {
            KeyRange::Key(start) | KeyRange::Span { start, .. } | KeyRange::From(start) => start,
        };
        let first = puts.partition_point(|(key, _)| *key < start);
        let elsewhere = match puts.get(first) {
            Some((_, owner)) if owner == place => next_elsewhere[first],
            Some(_) | None => first,
        };
        puts.get(elsewhere).is_some_and(|(key, _)| match range {
            KeyRange::Key(only) => *key == only,
            KeyRange::Span { end, .. } => *key < end,
            KeyRange::From(_) => true,
        })
    })
}

/// Whether a command may need space, whichever way its compares go (etcd's rule).
pub(super) fn needs_space(command: &Command) -> bool {
    match command {
        Command::Put(_) | Command::Lease(LeaseCommand::Grant(_)) => true,
        Command::Txn(txn) => has_put(txn),
        Command::DeleteRange(_) | Command::Compact(_) | Command::Lease(_) | Command::SpaceAlarm(_) => false,
    }
}

fn has_put(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|operation| match operation {
        Operation::Put(_) => true,
        Operation::DeleteRange(_) | Operation::Range(_) => false,
        Operation::Txn(nested) => has_put(nested),
    })
}

fn has_write(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|operation| match operation {
        Operation::Put(_) | Operation::DeleteRange(_) => true,
        Operation::Range(_) => false,
        Operation::Txn(nested) => has_write(nested),
    })
}

fn refuse_if(is_refused: bool, refusal: StoreRefusal) -> Result<(), StoreRefusal> {
    if is_refused { Err(refusal) } else { Ok(()) }
}
