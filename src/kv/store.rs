//! The store: its two doors, [`Store::apply`] for writes and [`Store::query`] for reads.
//!
//! What always holds: two stores that applied the same commands in the same order are equal, and so are their
//! hashes; `query` changes nothing; a refused command changes nothing.
//!
//! It leaves out who may ask, and whether a command was seen before: sessions and permissions are settled
//! before a command gets here.

use super::alarms::Alarms;
use super::check::{check, check_query, needs_space};
use super::command::{
    Applied, Command, Compact, DeleteRange, KeyRange, LeaseCommand, LeaseOutcome, Outcome, Put, Query,
    StoreRefusal,
};
use super::event::Changed;
use super::hash::RollingHash;
use super::history::Moment;
use super::keys::Keys;
use super::leases::{Lease, Leases};
use super::range::{self, View};
use super::txn;
use super::write::Writer;
use crate::ids::{LeaseId, Revision};
use crate::limits::{FORGET_STEPS_PER_APPLY, FORGET_STEPS_PER_TURN};
use crate::planted;

/// The oldest revision that can still be read, where an older one was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactedTo(pub Revision);

/// Every key of one keyspace with its history.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) keys: Keys,
    pub(super) leases: Leases,
    /// While one is raised nothing is taken that needs space.
    pub(super) alarms: Alarms,
    /// The revision of the newest change; 1 before the first.
    pub(super) revision: Revision,
    /// The oldest revision that can be read, once something was forgotten.
    pub(super) compacted: Option<Revision>,
    pub(super) hash: RollingHash,
    /// While a cut is open, what it still has to tell stays: nothing is forgotten beyond this (`serial.rs`).
    pub(super) held: Option<Revision>,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty store, at revision 1: the first write makes 2 (etcd's rule).
    pub fn new() -> Self {
        Self::seeded(0)
    }

    /// An empty store whose index of keys is hashed with `seed`, which must be secret, so that no client can choose keys
    /// that meet in one place. Nothing that the store says depends on it.
    pub fn seeded(seed: u64) -> Self {
        Self {
            keys: Keys::new(seed, 0),
            leases: Leases::default(),
            alarms: Alarms::default(),
            revision: Revision(1),
            compacted: None,
            hash: RollingHash::new(),
            held: None,
        }
    }

    /// The revision of the newest change; 1 if there was none.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The oldest revision that can still be read; None if every one can.
    pub const fn compacted(&self) -> Option<Revision> {
        self.compacted
    }

    /// How many changes are held in memory: of every key that exists the newest, and history.
    pub const fn version_count(&self) -> u64 {
        self.keys.version_count()
    }

    /// How many keys hold a pair now.
    pub fn key_count(&self) -> usize {
        self.keys.live_count()
    }

    /// About how many bytes of memory the keys take, with their histories. Members that have come less far in forgetting
    /// what was compacted have more.
    pub const fn bytes(&self) -> u64 {
        self.keys.bytes()
    }

    /// How many keys reads and commands have walked over so far, single keys aside: what their work grows with. Each member
    /// counts for itself, and nothing that the store says depends on it.
    pub const fn walked(&self) -> u64 {
        self.keys.walked()
    }

    /// Whether an alarm is raised that the keyspace is full.
    pub fn is_full(&self) -> bool {
        self.alarms.is_any()
    }

    /// Whether the one is raised that goes by the bytes that are used.
    pub const fn is_full_by_bytes(&self) -> bool {
        self.alarms.is_by_bytes()
    }

    /// The numbers of those that are raised by hand, ascending.
    pub fn alarms_by_hand(&self) -> impl Iterator<Item = u64> {
        self.alarms.by_hand().iter().copied()
    }

    /// A lease, if there is one of this id.
    pub fn lease(&self, lease: LeaseId) -> Option<&Lease> {
        self.leases.get(lease)
    }

    /// All leases, in the order of their ids.
    pub fn leases(&self) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.leases.iter()
    }

    /// How many leases there are.
    pub fn lease_count(&self) -> usize {
        self.leases.count()
    }

    /// A hash of every change ever made to keys and leases and of every compaction, in order: equal on all members that
    /// applied the same commands.
    pub fn state_hash(&self) -> u64 {
        self.hash.value()
    }

    /// Goes where puts of these keys will go, and changes nothing: the memory of several keys is on its way at once
    /// where one put after the other would wait for each.
    pub fn look_ahead<'keys>(&self, keys: impl Iterator<Item = &'keys [u8]>) {
        self.keys.look_ahead(keys);
    }

    /// Applies a command whole, or refuses it and changes nothing.
    ///
    /// There is no `Result`: a refusal is an outcome like any other, the same on every member, and there is no
    /// third way for an entry that is already committed.
    pub fn apply(&mut self, command: &Command) -> Applied {
        let outcome = self.run(command).unwrap_or_else(Outcome::Refused);
        // More steps than most commands leave work behind, so that a stream of writes cannot outrun them.
        self.keys.forget(self.forgettable_now(), FORGET_STEPS_PER_APPLY);
        self.assert_invariants();
        Applied { revision: self.revision, outcome }
    }

    /// Does a slice of the work that compactions left behind; whether there is more.
    ///
    /// When this runs, and how often, is each member's own affair: no answer and no hash depends on it.
    pub fn forget_some(&mut self) -> bool {
        self.keys.forget(self.forgettable_now(), FORGET_STEPS_PER_TURN);
        self.keys.has_forgettable(self.forgettable_now())
    }

    /// Answers a read from the current state.
    pub fn query(&self, query: &Query) -> Applied {
        let outcome = self.read(query).unwrap_or_else(Outcome::Refused);
        Applied { revision: self.revision, outcome }
    }

    /// Every change from `from` on, in the order in which they were made: what watches tell.
    ///
    /// # Errors
    /// A compaction has put `from` out of reach; watches may begin at the revision that it names, or later.
    pub fn changes_from(
        &self,
        from: Moment,
    ) -> Result<impl Iterator<Item = (Moment, Changed<'_>)>, CompactedTo> {
        let compacted = self.forgettable();
        if from.revision < compacted {
            return Err(CompactedTo(compacted));
        }
        let changes = self.keys.changes_from(from);
        Ok(changes.map(move |(made, changed)| (made, changed.with_history_from(compacted))))
    }

    /// How many changes a revision made; 0 if a compaction has put it out of reach, or it is yet to come.
    pub fn changes_count(&self, revision: Revision) -> u64 {
        if revision < self.forgettable() { 0 } else { self.keys.changes_count(revision) }
    }

    /// What holds after every change and costs nothing to look at.
    pub fn assert_invariants(&self) {
        assert!(self.revision >= Revision(1), "a store is born at revision 1");
        assert!(self.forgettable() <= self.revision, "the current revision is never forgotten");
        self.keys.assert_invariants(self.revision, self.forgettable());
        self.leases.assert_invariants(self.keys.live_count());
    }

    /// What holds after every change and takes a walk over all history: for tests and the simulator.
    pub fn assert_all_invariants(&self) {
        self.assert_invariants();
        self.keys.assert_all_invariants(self.revision, self.forgettable());
        self.leases.assert_all_invariants(self.keys.newest().map(|seen| (seen.key(), seen.pair.lease)));
    }

    fn run(&mut self, command: &Command) -> Result<Outcome, StoreRefusal> {
        check(command)?;
        refuse((self.is_full() && needs_space(command)).then_some(StoreRefusal::NoSpace))?;
        match command {
            Command::Put(put) => {
                refuse(self.put_refusal(put))?;
                self.write(|writer| Ok(Outcome::Put(writer.put(put))))
            }
            Command::DeleteRange(delete) => {
                self.write(|writer| Ok(Outcome::DeleteRange(writer.delete_range(delete))))
            }
            Command::Txn(txn) => self.write(|writer| Ok(Outcome::Txn(txn::run(writer, txn)?))),
            Command::Compact(compact) => self.compact(*compact),
            Command::Lease(command) => Ok(Outcome::Lease(self.run_lease(command)?)),
            Command::SpaceAlarm(alarm) => {
                self.alarms.set(*alarm, &mut self.hash)?;
                Ok(Outcome::SpaceAlarm(*alarm))
            }
        }
    }

    /// Runs what changes keys, as one transaction.
    fn write<T>(
        &mut self,
        run: impl FnOnce(&mut Writer<'_>) -> Result<T, StoreRefusal>,
    ) -> Result<T, StoreRefusal> {
        let (keys, leases) = (&mut self.keys, &mut self.leases);
        let mut writer = Writer::new(keys, leases, &mut self.hash, self.revision, self.compacted);
        let result = run(&mut writer)?;
        self.revision = writer.revision();
        Ok(result)
    }

    fn run_lease(&mut self, command: &LeaseCommand) -> Result<LeaseOutcome, StoreRefusal> {
        Ok(match command {
            LeaseCommand::Grant(grant) => LeaseOutcome::Granted(self.leases.grant(*grant, &mut self.hash)?),
            LeaseCommand::Revoke(revoke) => self.end_lease(revoke.lease)?,
            LeaseCommand::Expire(life) if self.leases.lives(*life) => self.end_lease(life.lease)?,
            LeaseCommand::Expire(_) => return Err(StoreRefusal::LeaseNotFound),
            LeaseCommand::Checkpoint(all) => {
                for remaining in all {
                    self.leases.checkpoint(*remaining, &mut self.hash);
                }
                LeaseOutcome::Checkpointed
            }
            LeaseCommand::Renew(life) => LeaseOutcome::Renewed(self.leases.renew(*life, &mut self.hash)),
        })
    }

    /// Ends a lease and deletes its keys, in order, as one transaction (etcd's rule).
    fn end_lease(&mut self, lease: LeaseId) -> Result<LeaseOutcome, StoreRefusal> {
        let keys = self.leases.end(lease, &mut self.hash).ok_or(StoreRefusal::LeaseNotFound)?;
        self.write(|writer| {
            for key in keys {
                writer.delete_range(&DeleteRange { range: KeyRange::Key(key), wants_previous: false });
            }
            Ok(LeaseOutcome::Revoked)
        })
    }

    /// A put on its own is asked for its lease first, one in a transaction last (etcd's order).
    fn put_refusal(&self, put: &Put) -> Option<StoreRefusal> {
        txn::lease_refusal(self.view(), put.lease).or_else(|| txn::put_refusal(self.view(), put))
    }

    /// Moves the oldest readable revision. What that makes unreadable is forgotten later, slice by slice.
    fn compact(&mut self, compact: Compact) -> Result<Outcome, StoreRefusal> {
        let Compact { revision } = compact;
        let is_compacted = self.compacted.is_some_and(|compacted| revision <= compacted);
        refuse(is_compacted.then_some(StoreRefusal::Compacted))?;
        refuse((revision > self.revision).then_some(StoreRefusal::FutureRevision))?;
        self.compacted = Some(revision);
        // No change is of revision 0, so no change can be taken for this.
        self.hash.absorb_word(0);
        self.hash.absorb_word(revision.0);
        Ok(Outcome::Compacted)
    }

    fn read(&self, query: &Query) -> Result<Outcome, StoreRefusal> {
        check_query(query)?;
        let view = self.view();
        match query {
            Query::Range(range) => {
                refuse(view.refusal_of(range.revision))?;
                Ok(Outcome::Range(range::read(view.keys, range, view.current)))
            }
            Query::Txn(txn) => Ok(Outcome::Txn(txn::read(view, txn)?)),
            Query::Leases => {
                let leases = self.leases.iter().map(|(lease, _)| lease);
                Ok(Outcome::Lease(LeaseOutcome::Listed(leases.collect())))
            }
        }
    }

    pub(super) const fn view(&self) -> View<'_> {
        View { keys: &self.keys, leases: &self.leases, current: self.revision, compacted: self.compacted }
    }

    /// Changes that only earlier revisions saw can be forgotten.
    pub(super) fn forgettable(&self) -> Revision {
        self.compacted.unwrap_or(Revision(0))
    }

    /// Of those, the ones that no open cut has to tell.
    fn forgettable_now(&self) -> Revision {
        // What a cut still has to tell is forgotten.
        let held = self.held.filter(|_| !planted!(154));
        self.forgettable().min(held.unwrap_or(Revision(u64::MAX)))
    }
}

fn refuse(refusal: Option<StoreRefusal>) -> Result<(), StoreRefusal> {
    refusal.map_or(Ok(()), Err)
}
