//! The changes of one transaction: all at one revision, in order, visible to the operations that follow.
//!
//! What always holds: the first change makes the new revision, and a transaction without changes makes none.
//! It leaves out every refusal: by the time a [`Writer`] exists, nothing can refuse any more.

use super::command::{
    DeleteRange, DeleteRangeResult, Operation, OperationResult, Put, PutResult, Range, RangeResult,
};
use super::hash::RollingHash;
use super::keys::{Keys, Moment, NewPair};
use super::range;
use crate::ids::{LeaseId, Revision};
use crate::planted;
use bytes::Bytes;

/// One transaction being run.
pub(super) struct Writer<'store> {
    keys: &'store mut Keys,
    hash: &'store mut RollingHash,
    /// The store's revision before the transaction.
    begin: Revision,
    /// Changes made so far.
    change_count: u64,
}

impl<'store> Writer<'store> {
    pub(super) fn new(keys: &'store mut Keys, hash: &'store mut RollingHash, begin: Revision) -> Self {
        Self { keys, hash, begin, change_count: 0 }
    }

    /// The store's revision as the next operation sees it, and as it stays if no other follows.
    pub(super) fn revision(&self) -> Revision {
        if self.change_count > 0 { self.begin.next() } else { self.begin }
    }

    pub(super) fn keys(&self) -> &Keys {
        self.keys
    }

    pub(super) fn run(&mut self, operation: &Operation) -> OperationResult {
        match operation {
            Operation::Put(put) => OperationResult::Put(self.put(put)),
            Operation::DeleteRange(delete) => OperationResult::DeleteRange(self.delete_range(delete)),
            Operation::Range(range) => OperationResult::Range(self.range(range)),
        }
    }

    pub(super) fn put(&mut self, put: &Put) -> PutResult {
        let made = self.next_moment();
        absorb(self.hash, made, &put.key, Some((&put.value, put.lease)));
        self.change_count += 1;
        let change = NewPair { key: &put.key, value: &put.value, lease: put.lease };
        PutResult { previous: self.keys.put(change, made, put.wants_previous) }
    }

    pub(super) fn delete_range(&mut self, delete: &DeleteRange) -> DeleteRangeResult {
        let first = self.next_moment();
        let mut previous = Vec::new();
        let deleted = self.keys.delete(&delete.range, first, |seen, made| {
            absorb(self.hash, made, seen.key(), None);
            if delete.wants_previous {
                previous.push(seen.to_key_value());
            }
        });
        self.change_count += deleted;
        if planted!(101) && deleted == 0 {
            self.change_count += 1;
        }
        DeleteRangeResult { deleted, previous }
    }

    fn range(&self, range: &Range) -> RangeResult {
        range::read(self.keys, range, self.revision())
    }

    fn next_moment(&self) -> Moment {
        let revision = self.begin.next();
        if planted!(103) && self.change_count > 0 {
            return Moment { revision: revision.next(), order: self.change_count };
        }
        Moment { revision, order: self.change_count }
    }
}

/// Absorbs one change: when, which key, and what it holds now (nothing if deleted).
fn absorb(hash: &mut RollingHash, made: Moment, key: &Bytes, pair: Option<(&Bytes, LeaseId)>) {
    hash.absorb_word(made.revision.0);
    hash.absorb_word(made.order);
    hash.absorb_bytes(key);
    hash.absorb_word(u64::from(pair.is_some()));
    if let Some((value, lease)) = pair {
        hash.absorb_bytes(value);
        hash.absorb_word(lease.0);
    }
}
