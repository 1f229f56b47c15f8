//! The changes of one transaction: all at one revision, in order, visible to the operations that follow.
//!
//! What always holds: the first change makes the new revision, and a transaction without changes makes none.
//! It leaves out every refusal: by the time a [`Writer`] exists, nothing can refuse any more.

use super::command::{DeleteRange, DeleteRangeResult, Put, PutResult, Range, RangeResult};
use super::hash::RollingHash;
use super::history::Moment;
use super::keys::{Keys, NewPair};
use super::leases::Leases;
use super::range::{self, View};
use crate::ids::{LeaseId, Revision};
use crate::planted;
use bytes::Bytes;

/// One transaction being run.
pub(super) struct Writer<'store> {
    keys: &'store mut Keys,
    leases: &'store mut Leases,
    hash: &'store mut RollingHash,
    /// The store's revision before the transaction.
    begin: Revision,
    compacted: Option<Revision>,
    /// Changes made so far.
    change_count: u64,
}

impl<'store> Writer<'store> {
    pub(super) const fn new(
        keys: &'store mut Keys,
        leases: &'store mut Leases,
        hash: &'store mut RollingHash,
        begin: Revision,
        compacted: Option<Revision>,
    ) -> Self {
        Self { keys, leases, hash, begin, compacted, change_count: 0 }
    }

    /// The store's revision as the next operation sees it, and as it stays if no other follows.
    pub(super) fn revision(&self) -> Revision {
        if self.change_count > 0 { self.begin.next() } else { self.begin }
    }

    /// The store as the next operation sees it.
    pub(super) fn view(&self) -> View<'_> {
        View { keys: self.keys, leases: self.leases, current: self.revision(), compacted: self.compacted }
    }

    pub(super) fn put(&mut self, put: &Put) -> PutResult {
        let made = self.next_moment();
        // A copy of its own, because the command's value is a slice of a whole frame.
        let (mut value, mut lease) = (Bytes::new(), put.lease);
        if !put.keeps_value {
            value = Bytes::copy_from_slice(&put.value);
        }
        if put.keeps_value || put.keeps_lease {
            let seen = self.keys.get(&put.key, self.revision()).expect("a put that keeps was checked first");
            if put.keeps_value {
                value = seen.pair.value.clone();
            }
            if put.keeps_lease {
                lease = seen.pair.lease;
            }
        }
        absorb(self.hash, made, &put.key, Some((&value, lease)));
        self.change_count += 1;
        let change = NewPair { key: &put.key, value, lease };
        let replaced = self.keys.put(change, made, put.wants_previous);
        self.leases.move_key(&put.key, replaced.lease, lease);
        PutResult { previous: replaced.pair }
    }

    pub(super) fn delete_range(&mut self, delete: &DeleteRange) -> DeleteRangeResult {
        let first = self.next_moment();
        let mut previous = Vec::new();
        let deleted = self.keys.delete(&delete.range, first, |seen, made| {
            absorb(self.hash, made, seen.key(), None);
            self.leases.move_key(seen.key(), seen.pair.lease, LeaseId(0));
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

    pub(super) fn range(&self, range: &Range) -> RangeResult {
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
fn absorb(hash: &mut RollingHash, made: Moment, key: &[u8], pair: Option<(&Bytes, LeaseId)>) {
    hash.absorb_word(made.revision.0);
    hash.absorb_word(made.order);
    hash.absorb_bytes(key);
    hash.absorb_word(u64::from(pair.is_some()));
    if let Some((value, lease)) = pair {
        hash.absorb_bytes(value);
        hash.absorb_word(lease.0);
    }
}
