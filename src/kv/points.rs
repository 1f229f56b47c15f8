//! The index for reads and writes of single keys: a hash table beside the order, because most requests name one key
//! and a hash finds it with two cache misses where a tree of a million keys takes twenty.
//!
//! What always holds: nothing ever depends on the order of this table. It answers "where is this key" and cannot be
//! walked, so members may hash differently, and they do: each boot has a secret seed, so that no client can choose
//! keys that all fall into one place.
//!
//! It is many small tables instead of a large one, so that growing never stops a turn: one of 256 doubles at a time,
//! from hashes it remembers, and no key is looked at.

use super::keys::{Records, Slot};
use hashbrown::HashTable;
use std::hash::{DefaultHasher, Hasher};

/// Tables, by the uppermost byte of the hash.
const TABLES_COUNT: usize = 256;

/// Where a key lies, and what its table hashes by.
#[derive(Clone, Copy, Debug)]
struct Point {
    hash: u32,
    slot: Slot,
}

/// Where to look for a key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    table: usize,
    hash: u32,
}

/// For every key, the slot of its record.
#[derive(Clone, Debug)]
pub(super) struct Points {
    tables: Box<[HashTable<Point>]>,
    seed: u64,
}

impl Points {
    /// Nothing is in it, and there is room for about so many keys.
    pub(super) fn new(seed: u64, keys_count: usize) -> Self {
        let table = |_| HashTable::with_capacity(keys_count / TABLES_COUNT);
        Self { tables: (0..TABLES_COUNT).map(table).collect(), seed }
    }

    /// Where a key of this place probably lies: no key is compared.
    pub(super) fn likely(&self, Place { table, hash }: Place) -> Option<Slot> {
        self.tables[table].find(spread(hash), |point| point.hash == hash).map(|point| point.slot)
    }

    /// Where the key lies, if it is known.
    pub(super) fn find(&self, key: &[u8], records: &Records) -> Option<Slot> {
        let Place { table, hash } = self.place_of(key);
        let is_it = |point: &Point| point.hash == hash && records.at(point.slot).key() == key;
        self.tables[table].find(spread(hash), is_it).map(|point| point.slot)
    }

    /// Writes down a key that is not known.
    pub(super) fn insert(&mut self, key: &[u8], slot: Slot) {
        let Place { table, hash } = self.place_of(key);
        self.tables[table].insert_unique(spread(hash), Point { hash, slot }, |point| spread(point.hash));
    }

    /// Strikes out the key that lies at `slot`.
    pub(super) fn remove(&mut self, key: &[u8], slot: Slot) {
        let Place { table, hash } = self.place_of(key);
        let found = self.tables[table].find_entry(spread(hash), |point| point.slot == slot);
        found.expect("what is removed was inserted").remove();
    }

    pub(super) fn count(&self) -> usize {
        self.tables.iter().map(HashTable::len).sum()
    }

    /// Which table a key belongs in, and its hash there.
    pub(super) fn place_of(&self, key: &[u8]) -> Place {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.seed);
        hasher.write(key);
        let [table, low @ .., _, _, _] = hasher.finish().to_be_bytes();
        Place { table: usize::from(table), hash: u32::from_be_bytes(low) }
    }
}

/// A table looks at the upper and the lower bits of 64.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}
