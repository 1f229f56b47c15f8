//! Leases: which there are, what remains of each as far as the log knows, and which keys go with it.
//!
//! A store knows no time. A lease ends when a command says so: its client revokes it, or the leader, whose clock
//! counts, expires it. What is kept here is what must survive that leader: how long each lease was granted for, and
//! how much of it was left at its last checkpoint.
//!
//! What always holds: a key is attached to at most one lease, the one that its newest pair names; what remains of a
//! lease is never 0 and never more than it was granted. An id that a client chooses may be granted again once its lease has
//! ended, so what a leader says of a lease names its *life*, the number of the grant, and does nothing to a later one. An
//! id that is chosen here is never chosen again.
//!
//! It leaves out deleting the keys of a lease that ends: the transaction that ends it does that (`store.rs`).

use super::command::{Grant, LeaseLife, Remaining, Renewed, StoreRefusal};
use super::hash::RollingHash;
use crate::ids::LeaseId;
use crate::limits::{LEASE_TTL_MILLIS_MAX, LEASES_MAX};
use crate::planted;
use bytes::Bytes;
use core::ops::Bound;
use std::collections::{BTreeMap, BTreeSet};

/// An odd multiplier with its bits well spread: multiplying by it visits every number once.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// The word with which the hash of a change of leases begins: no revision is this number.
const HASH_MARK: u64 = u64::MAX;

/// One lease.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The number of the grant that made it.
    pub grant: u64,
    /// For how long it was granted, and is again with each renewal, in milliseconds.
    pub ttl_ms: u64,
    /// What was left of that at the last checkpoint; all of it if there was none since the last renewal.
    pub remaining_ms: u64,
    keys: BTreeSet<Bytes>,
}

impl Lease {
    /// The least key attached to it that is not below `from`.
    pub fn key_from(&self, from: &[u8]) -> Option<&Bytes> {
        self.keys.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)).next()
    }

    /// The keys attached to it, in order.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.keys.iter()
    }
}

/// All leases of a store.
#[derive(Clone, Debug, Default)]
pub(super) struct Leases {
    table: BTreeMap<LeaseId, Lease>,
    /// The number of the newest grant. Some below it may have been passed over.
    grants: u64,
    /// Keys attached to any.
    attached_count: usize,
}

impl Leases {
    pub(super) fn get(&self, lease: LeaseId) -> Option<&Lease> {
        self.table.get(&lease)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.table.iter().map(|(lease, found)| (*lease, found))
    }

    pub(super) fn count(&self) -> usize {
        self.table.len()
    }

    /// No leases, of `grants` that there were.
    pub(super) fn restored(grants: u64) -> Self {
        Self { grants, ..Self::default() }
    }

    /// How many were granted so far.
    pub(super) const fn grants(&self) -> u64 {
        self.grants
    }

    /// A lease as it was written down: more than any other of those that there are in id, and one that was granted.
    pub(super) fn restore(&mut self, id: LeaseId, grant: u64, ttl_ms: u64, remaining_ms: u64) -> bool {
        let is_possible = id != LeaseId(0)
            && self.table.last_key_value().is_none_or(|(last, _)| *last < id)
            && self.table.len() < LEASES_MAX
            && (1..=self.grants).contains(&grant)
            && (1..=LEASE_TTL_MILLIS_MAX).contains(&ttl_ms)
            && (1..=ttl_ms).contains(&remaining_ms);
        if is_possible {
            self.table.insert(id, Lease { grant, ttl_ms, remaining_ms, keys: BTreeSet::new() });
        }
        is_possible
    }

    /// A key's newest pair names this lease; whether there is such a lease.
    pub(super) fn restore_key(&mut self, key: &[u8], id: LeaseId) -> bool {
        let lease = self.table.get_mut(&id);
        self.attached_count += usize::from(lease.is_some());
        lease.is_some_and(|lease| lease.keys.insert(Bytes::copy_from_slice(key)))
    }

    /// Makes a lease, under an id of our choice if none is asked for.
    pub(super) fn grant(&mut self, asked: Grant, hash: &mut RollingHash) -> Result<Grant, StoreRefusal> {
        let Grant { lease: asked, ttl_ms } = asked;
        if self.table.contains_key(&asked) {
            return Err(StoreRefusal::LeaseExists);
        }
        if self.table.len() >= LEASES_MAX {
            return Err(StoreRefusal::TooManyLeases);
        }
        self.grants += 1;
        let lease = if asked == LeaseId(0) { self.choose_id() } else { asked };
        let granted = Lease { grant: self.grants, ttl_ms, remaining_ms: ttl_ms, keys: BTreeSet::new() };
        self.table.insert(lease, granted);
        absorb(hash, [1, lease.0, ttl_ms]);
        Ok(Grant { lease, ttl_ms })
    }

    /// The lease is no more. Its keys are the caller's to delete, in order.
    pub(super) fn end(&mut self, lease: LeaseId, hash: &mut RollingHash) -> Option<BTreeSet<Bytes>> {
        let ended = self.table.remove(&lease)?;
        self.attached_count -= ended.keys.len();
        absorb(hash, [2, lease.0, ended.grant]);
        Some(ended.keys)
    }

    /// Whether this very life of a lease goes on.
    pub(super) fn lives(&self, life: LeaseLife) -> bool {
        self.get(life.lease).is_some_and(|found| found.grant == life.grant)
    }

    /// Writes down what remains. Of a life that is over nothing does, and nothing can remain beyond the grant.
    pub(super) fn checkpoint(&mut self, remaining: Remaining, hash: &mut RollingHash) {
        if let Some(lease) = self.living(remaining.life) {
            lease.remaining_ms = remaining.remaining_ms.clamp(1, lease.ttl_ms);
            absorb(hash, [3, remaining.life.lease.0, lease.remaining_ms]);
        }
    }

    /// All of its time remains again, unless the life is over.
    pub(super) fn renew(&mut self, life: LeaseLife, hash: &mut RollingHash) -> Renewed {
        let Some(lease) = self.living(life) else {
            return Renewed { ttl_ms: 0 };
        };
        let ttl_ms = lease.ttl_ms;
        lease.remaining_ms = ttl_ms;
        absorb(hash, [3, life.lease.0, ttl_ms]);
        Renewed { ttl_ms }
    }

    /// A key's newest pair names the lease `now`; the one before named `before`. 0 is no lease.
    pub(super) fn move_key(&mut self, key: &[u8], before: LeaseId, now: LeaseId) {
        if before == now {
            return;
        }
        // A put without a lease leaves the key with the lease that it had.
        if planted!(120) && now == LeaseId(0) {
            return;
        }
        // A key that goes to another lease stays with the first as well.
        if let Some(lease) = self.table.get_mut(&before).filter(|_| !planted!(136)) {
            self.attached_count -= usize::from(lease.keys.remove(key));
        }
        if now != LeaseId(0) {
            let lease = self.table.get_mut(&now).expect("a put with a lease was checked first");
            // A copy of its own, because the command's key is a slice of a whole frame.
            self.attached_count += usize::from(lease.keys.insert(Bytes::copy_from_slice(key)));
        }
    }

    /// What can be said without a walk. `live_keys`: keys that hold a pair.
    pub(super) fn assert_invariants(&self, live_keys: usize) {
        assert!(self.attached_count <= live_keys, "only a key that exists is attached to a lease");
        assert!(self.table.len() <= LEASES_MAX, "there are no more leases than may be");
    }

    /// What takes a walk. `attached`: every key that exists with the lease it names, in the order of the keys.
    pub(super) fn assert_all_invariants<'key>(&self, attached: impl Iterator<Item = (&'key [u8], LeaseId)>) {
        let mut named: BTreeMap<LeaseId, Vec<&[u8]>> = BTreeMap::new();
        for (key, lease) in attached.filter(|(_, lease)| *lease != LeaseId(0)) {
            named.entry(lease).or_default().push(key);
        }
        let attached_count: usize = named.values().map(Vec::len).sum();
        assert_eq!(attached_count, self.attached_count, "the count of attached keys is right");
        assert!(named.keys().all(|lease| self.table.contains_key(lease)), "no key names a lease that ended");
        for (id, lease) in &self.table {
            let named = named.get(id).map_or(&[][..], Vec::as_slice);
            assert!(lease.keys.iter().eq(named), "a lease knows the keys that name it");
            assert!(
                (1..=lease.ttl_ms).contains(&lease.remaining_ms),
                "something remains, and no more than was granted"
            );
            assert!(lease.grant <= self.grants, "every lease was granted");
        }
    }

    fn living(&mut self, life: LeaseLife) -> Option<&mut Lease> {
        // What was said of a lease that ended is believed of the next of its id.
        self.table.get_mut(&life.lease).filter(|found| found.grant == life.grant || planted!(121))
    }

    /// The id of this grant: of 63 bits, because etcd's clients take it for a signed number.
    ///
    /// It follows from the number of the grant, and numbers whose id a client has chosen are passed over for ever: so no id is
    /// chosen here twice, however soon a lease ends. Who held the first one would renew, and so believe to hold, the next.
    fn choose_id(&mut self) -> LeaseId {
        loop {
            let lease = LeaseId(self.grants.wrapping_mul(SPREAD) & (u64::MAX >> 1));
            if lease != LeaseId(0) && !self.table.contains_key(&lease) {
                return lease;
            }
            self.grants += 1;
        }
    }
}

/// Absorbs one change of a lease: what happened, to which, and a number.
fn absorb(hash: &mut RollingHash, words: [u64; 3]) {
    hash.absorb_word(HASH_MARK);
    for word in words {
        hash.absorb_word(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(leases: &mut Leases, lease: LeaseId) -> LeaseId {
        let granted = leases.grant(Grant { lease, ttl_ms: 1_000 }, &mut RollingHash::new());
        granted.expect("there is room").lease
    }

    #[test]
    fn an_id_is_chosen_once_even_if_clients_choose_the_ones_that_would_come_next() {
        let mut hash = RollingHash::new();
        let (mut ours, mut next) = (Leases::default(), Leases::default());
        let to_come: Vec<LeaseId> = (0..6).map(|_| grant(&mut next, LeaseId(0))).collect();
        // Grants 1 and 2 are a client's, with the ids that grants 3 and 4 would have chosen.
        for lease in [to_come[2], to_come[3]] {
            assert_eq!(grant(&mut ours, lease), lease);
        }
        let mut chosen = BTreeSet::new();
        for _ in 0..6 {
            let lease = grant(&mut ours, LeaseId(0));
            assert!(chosen.insert(lease), "{lease} was chosen twice");
            assert!(ours.end(lease, &mut hash).is_some());
        }
        assert!(!chosen.contains(&to_come[2]) && !chosen.contains(&to_come[3]), "they are somebody's");
    }
}
