//! The store: its two doors, [`Store::apply`] for writes and [`Store::query`] for reads.
//!
//! What always holds: two stores that applied the same commands in the same order are equal, and so are their
//! hashes; `query` changes nothing; a refused command changes nothing.
//!
//! It leaves out who may ask, and whether a command was seen before: sessions and permissions are settled
//! before a command gets here.

use super::check::{check, check_query};
use super::command::{Applied, Command, Outcome, Query, StoreRefusal};
use super::hash::RollingHash;
use super::keys::Keys;
use super::range::{self, revision_refusal};
use super::txn::{self, lease_refusal};
use super::write::Writer;
use crate::ids::Revision;

/// Every key of one keyspace with its history.
#[derive(Clone, Debug)]
pub struct Store {
    keys: Keys,
    /// The revision of the newest change; 1 before the first.
    revision: Revision,
    hash: RollingHash,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty store, at revision 1: the first write makes 2 (etcd's rule).
    pub fn new() -> Self {
        Self { keys: Keys::default(), revision: Revision(1), hash: RollingHash::new() }
    }

    /// The revision of the newest change; 1 if there was none.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many keys hold a pair now.
    pub fn key_count(&self) -> usize {
        self.keys.live_count()
    }

    /// A hash of every change ever made, in order: equal on all members that applied the same commands.
    pub fn state_hash(&self) -> u64 {
        self.hash.value()
    }

    /// Applies a command whole, or refuses it and changes nothing.
    ///
    /// There is no `Result`: a refusal is an outcome like any other, the same on every member, and there is no
    /// third way for an entry that is already committed.
    pub fn apply(&mut self, command: &Command) -> Applied {
        let outcome = self.run(command).unwrap_or_else(Outcome::Refused);
        self.assert_invariants();
        Applied { revision: self.revision, outcome }
    }

    /// Answers a read from the current state.
    pub fn query(&self, query: &Query) -> Applied {
        let outcome = self.read(query).unwrap_or_else(Outcome::Refused);
        Applied { revision: self.revision, outcome }
    }

    /// What holds after every change and costs nothing to look at.
    pub fn assert_invariants(&self) {
        assert!(self.revision >= Revision(1), "a store is born at revision 1");
        self.keys.assert_invariants(self.revision);
    }

    /// What holds after every change and takes a walk over all history: for tests and the simulator.
    pub fn assert_all_invariants(&self) {
        self.assert_invariants();
        self.keys.assert_all_invariants(self.revision);
    }

    fn run(&mut self, command: &Command) -> Result<Outcome, StoreRefusal> {
        check(command)?;
        let mut writer = Writer::new(&mut self.keys, &mut self.hash, self.revision);
        let outcome = match command {
            Command::Put(put) => {
                refuse(lease_refusal(put.lease))?;
                Outcome::Put(writer.put(put))
            }
            Command::DeleteRange(delete) => Outcome::DeleteRange(writer.delete_range(delete)),
            Command::Txn(txn) => Outcome::Txn(txn::run(&mut writer, txn)?),
        };
        self.revision = writer.revision();
        Ok(outcome)
    }

    fn read(&self, query: &Query) -> Result<Outcome, StoreRefusal> {
        check_query(query)?;
        match query {
            Query::Range(range) => {
                refuse(revision_refusal(range.revision, self.revision))?;
                Ok(Outcome::Range(range::read(&self.keys, range, self.revision)))
            }
            Query::Txn(txn) => Ok(Outcome::Txn(txn::read(&self.keys, self.revision, txn)?)),
        }
    }
}

fn refuse(refusal: Option<StoreRefusal>) -> Result<(), StoreRefusal> {
    refusal.map_or(Ok(()), Err)
}
