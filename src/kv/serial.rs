//! A store as bytes, and a store from bytes: what a snapshot holds of it.
//!
//! [`Store::cut`] fixes what is told: the store as it is at that moment. Then [`Cut::slice`] tells it piece by piece, and
//! the store goes on to change in between. What changes later is of later revisions and is left out; what is forgotten
//! later would be missing, so an open cut holds forgetting back until [`Store::release`].
//!
//! What always holds: two stores that applied the same commands give the same bytes, however far either has come in
//! forgetting, because what is told is what can be read: of every key the change that the compacted revision saw, and
//! all later ones; of deletions those of the compacted revision and later, which a watch may still be told of. From
//! these bytes comes a store that answers like the first one, has its hash, and gives the same bytes again.
//! Any other bytes are refused with what is wrong.
//!
//! A member that is behind has most of what it is sent already. So whoever restores may name a store that is to be replaced:
//! keys and values that are the same in both, byte for byte, are shared with it instead of copied. Records and indexes are
//! each store's own.
//!
//! ```text
//!   1 head     version u8 (1, or 2 with such alarms), revision u64, is compacted u8, compacted u64, hash u64, is full by its bytes u8, grants u64,
//!              alarms raised by hand: how many u8, number u64 each                      numbers ascend; only in version 2
//!   2 lease    id u64, grant u64, ttl u64, remaining u64                               ids ascend
//!   3 key      length u32, the key                                                     keys ascend
//!   4 written  revision u64, order u64, created u64, version u64, lease u64, length u32, the value
//!   5 deleted  revision u64, order u64                              of the last key; revisions ascend
//!   6 end      keys u64, changes u64
//! ```
//!
//! Each record begins with the byte of its kind; all numbers are little-endian. A slice holds whole records. It leaves
//! out checksums, and how the slices lie in a file (`snapshot`).

use super::alarms::Alarms;
use super::changes::{Change, Changes};
use super::hash::RollingHash;
use super::history::{History, Moment, Pair, Version};
use super::keys::{Keys, Record, Slot};
use super::leases::Leases;
use super::store::Store;
use crate::ids::{LeaseId, Revision};
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::planted;
use bytes::{BufMut, Bytes, BytesMut};
use core::ops::Bound;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Without alarms that were raised by hand. What has none is told so, for members of the build before, and to be able to go back.
const VERSION: u8 = 1;
/// With them.
const VERSION_WITH_ALARMS: u8 = 2;
const HEAD: u8 = 1;
const LEASE: u8 = 2;
const KEY: u8 = 3;
const WRITTEN: u8 = 4;
const DELETED: u8 = 5;
const END: u8 = 6;

/// Bytes of a lease's record.
const LEASE_BYTES: usize = 33;

/// Bytes that are no store: what is wrong with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// A newer build wrote these bytes.
const NEWER: Malformed = Malformed("a newer build wrote this");

impl Malformed {
    /// Whether it is no damage that these bytes cannot be read, but that a newer build wrote them.
    pub fn is_newer(self) -> bool {
        self == NEWER
    }
}

/// A store at one moment, being told.
#[derive(Debug)]
pub struct Cut {
    revision: Revision,
    compacted: Revision,
    /// Head and leases, copied when the cut was made, how long the head is, and how much of them was told.
    head: Vec<u8>,
    head_bytes: usize,
    head_told: usize,
    /// The last key of which something was told, and the last change of it, if it has more.
    last: Option<(Arc<[u8]>, Option<Moment>)>,
    keys_count: u64,
    versions_count: u64,
    is_told: bool,
}

impl Store {
    /// Begins to tell the store as it is now. Until `release`, what that needs is not forgotten.
    pub fn cut(&mut self) -> Cut {
        assert!(self.held.is_none(), "one cut is open at a time");
        self.held = Some(self.forgettable());
        let by_hand = self.alarms.by_hand();
        let mut head = vec![HEAD, if by_hand.is_empty() { VERSION } else { VERSION_WITH_ALARMS }];
        put(&mut head, &[self.revision.0]);
        head.push(u8::from(self.compacted.is_some()));
        put(&mut head, &[self.forgettable().0, self.hash.value()]);
        head.push(u8::from(self.alarms.is_by_bytes()));
        put(&mut head, &[self.leases.grants()]);
        if !by_hand.is_empty() {
            head.push(u8::try_from(by_hand.len()).expect("they are few"));
        }
        for number in by_hand {
            put(&mut head, &[*number]);
        }
        let head_bytes = head.len();
        head.reserve(self.leases.count() * LEASE_BYTES);
        for (id, lease) in self.leases.iter() {
            head.push(LEASE);
            put(&mut head, &[id.0, lease.grant, lease.ttl_ms, lease.remaining_ms]);
        }
        Cut {
            revision: self.revision,
            compacted: self.forgettable(),
            head,
            head_bytes,
            head_told: 0,
            last: None,
            keys_count: 0,
            versions_count: 0,
            is_told: false,
        }
    }

    /// The cut is told, or given up.
    pub fn release(&mut self) {
        self.held = None;
    }
}

impl Cut {
    /// The revision at which the store was cut.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The oldest revision that could be read then; 0 if every one could.
    pub const fn compacted(&self) -> Revision {
        self.compacted
    }

    /// Appends the next slice to `told`: at least one record, and then no more than until `told`, with what it held before, has `bytes_max` bytes, of at
    /// most `steps_max` keys and changes looked at. It may be empty; false once all is told. `store` is the one that was cut,
    /// and was not released.
    pub fn slice(&mut self, store: &Store, bytes_max: usize, steps_max: usize, told: &mut BytesMut) -> bool {
        if self.is_told {
            return false;
        }
        if self.head_told < self.head.len() {
            self.head_slice(bytes_max.saturating_sub(told.len()), told);
            return true;
        }
        let mut steps = 0;
        let last = self.last.take();
        let start = match &last {
            None => Bound::Unbounded,
            Some((key, None)) => Bound::Excluded(key.as_ref()),
            Some((key, Some(_))) => Bound::Included(key.as_ref()),
        };
        let mut upto = last.as_ref().and_then(|(_, made)| *made);
        for record in store.keys.records_from(start) {
            let stopped = self.tell(record, upto.take(), told, (bytes_max, steps_max), &mut steps);
            self.last = Some((record.name().clone(), stopped));
            if stopped.is_some() || told.len() >= bytes_max || steps >= steps_max {
                return true;
            }
        }
        self.is_told = true;
        told.put_u8(END);
        put(told, &[self.keys_count, self.versions_count]);
        true
    }

    fn head_slice(&mut self, bytes_max: usize, told: &mut BytesMut) {
        let leases = self.head_told.saturating_add(bytes_max).saturating_sub(self.head_bytes) / LEASE_BYTES;
        let upto = self.head_bytes.saturating_add(leases.saturating_mul(LEASE_BYTES));
        let least = if self.head_told == 0 { self.head_bytes } else { self.head_told + LEASE_BYTES };
        let upto = upto.max(least).min(self.head.len());
        told.extend_from_slice(self.head.get(self.head_told..upto).unwrap_or_default());
        self.head_told = upto;
    }

    /// Tells of a key what follows `upto`. The last change told, if it has more.
    fn tell(
        &mut self,
        record: &Record,
        upto: Option<Moment>,
        told: &mut BytesMut,
        (bytes_max, steps_max): (usize, usize),
        steps: &mut usize,
    ) -> Option<Moment> {
        *steps += 1;
        let mut before = upto;
        for version in self.seen(record.history(), upto) {
            if before.is_some() && (told.len() >= bytes_max || *steps >= steps_max) {
                return before;
            }
            if before.is_none() {
                self.keys_count += 1;
                told.put_u8(KEY);
                put_bytes(told, record.key());
            }
            self.versions_count += 1;
            put_version(told, version);
            before = Some(version.made);
            *steps += 1;
        }
        None
    }

    /// The changes of a key that can be seen in the cut, after `upto`, oldest first.
    fn seen<'history>(
        &self,
        history: &'history History,
        upto: Option<Moment>,
    ) -> impl Iterator<Item = &'history Version> + use<'history> {
        let (revision, compacted) = (self.revision, self.compacted);
        let is_seen = |first: &&Version| first.pair.is_some() || first.made.revision == compacted;
        let first = if upto.is_none() { history.at(compacted).filter(is_seen) } else { None };
        let after = Moment { revision: compacted.next(), order: 0 };
        let since = upto.map_or(after, |upto| Moment { order: upto.order + 1, ..upto }.max(after));
        let later = history.since(since).take_while(move |version| version.made.revision <= revision);
        first.into_iter().chain(later)
    }
}

fn put(to: &mut impl BufMut, numbers: &[u64]) {
    for number in numbers {
        to.put_u64_le(*number);
    }
}

fn put_bytes(to: &mut impl BufMut, bytes: &[u8]) {
    to.put_u32_le(u32::try_from(bytes.len()).expect("keys and values are bounded"));
    to.put_slice(bytes);
}

fn put_version(to: &mut impl BufMut, version: &Version) {
    let Moment { revision, order } = version.made;
    let Some(pair) = &version.pair else {
        to.put_u8(DELETED);
        put(to, &[revision.0, order]);
        return;
    };
    // All numbers at once: there is one of these for every change that is told.
    let mut numbers = [WRITTEN; 1 + 5 * 8];
    put(&mut &mut numbers[1..], &[revision.0, order, pair.create_revision.0, pair.version, pair.lease.0]);
    to.put_slice(&numbers);
    put_bytes(to, &pair.value);
}

/// A store on its way from bytes.
#[derive(Debug)]
pub struct Restorer {
    seed: u64,
    /// None before the head.
    store: Option<Store>,
    /// The key that is being read; a slot once it has a change.
    key: Option<(Arc<[u8]>, Option<Slot>)>,
    /// Its last change, as far as the next one must fit to it.
    newest: Option<Newest>,
    /// The changes that can be told of, and whether each ended an older one.
    changes: Vec<(Moment, Change)>,
    is_ended: bool,
}

/// The newest change of a key as read so far.
#[derive(Clone, Copy, Debug)]
struct Newest {
    made: Moment,
    /// Created and version and lease, unless it is a deletion.
    pair: Option<(Revision, u64, LeaseId)>,
}

impl Restorer {
    /// Nothing is read yet. `seed`: see [`Store::seeded`].
    pub const fn new(seed: u64) -> Self {
        Self { seed, store: None, key: None, newest: None, changes: Vec::new(), is_ended: false }
    }

    /// Reads a slice, in the order in which they were told. `before`: a store that this one is to replace; it changes nothing
    /// but where keys and values lie, and how much room there is from the start.
    ///
    /// # Errors
    /// It is not what a cut tells here. What was read is of no use then.
    pub fn slice(&mut self, slice: &[u8], before: Option<&Store>) -> Result<(), Malformed> {
        let mut reader = Reader(slice);
        let mut finder = before.map(|before| before.keys.finder());
        let mut twin = self.key.as_ref().and_then(|(key, _)| finder.as_mut()?.find(key));
        while !reader.0.is_empty() {
            if self.is_ended {
                return Err(Malformed("something follows the end of the store"));
            }
            match reader.u8()? {
                HEAD => self.head(&mut reader, before.map_or(0, Store::key_count))?,
                LEASE => self.lease(&mut reader)?,
                KEY => {
                    let key = reader.bytes(KEY_BYTES_MAX)?;
                    twin = finder.as_mut().and_then(|finder| finder.find(key));
                    self.next_key(twin.map_or_else(|| Arc::from(key), |twin| twin.name().clone()))?;
                }
                WRITTEN => self.version(&mut reader, true, twin)?,
                DELETED => self.version(&mut reader, false, twin)?,
                END => self.end(&mut reader)?,
                _ => return Err(Malformed("a record of no known kind")),
            }
        }
        Ok(())
    }

    /// The store, if all of it was read.
    ///
    /// # Errors
    /// Something is missing, or does not fit together.
    pub fn finish(mut self) -> Result<Store, Malformed> {
        let mut store = self.store.take().filter(|_| self.is_ended).ok_or(Malformed("the end is missing"))?;
        // Catalogue 38: the newest revision is taken from the values that compaction left.
        if planted!(38) {
            let left = store.keys.newest().map(|seen| seen.to_key_value().mod_revision).max();
            store.revision = store.forgettable().max(left.unwrap_or_default()).max(Revision(1));
            self.changes.retain(|(made, _)| made.revision <= store.revision);
        }
        let compacted = store.forgettable();
        let first = compacted.max(Revision(2));
        self.changes.sort_unstable_by_key(|(made, _)| *made);
        let mut changes = Changes::beginning_at(first);
        let mut next = Moment { revision: first, order: 0 };
        for (made, change) in self.changes {
            if next.order > 0 && made.revision == next.revision.next() {
                next = Moment { revision: made.revision, order: 0 };
            }
            if made != next {
                return Err(Malformed("a revision has a gap or a change twice"));
            }
            next.order += 1;
            changes.push(made.revision, change);
        }
        let last = if next.order == 0 { Revision(first.0 - 1) } else { next.revision };
        if last != store.revision {
            return Err(Malformed("the last changes are missing"));
        }
        changes.end_upto(compacted);
        store.keys.restore_changes(changes);
        store.assert_invariants();
        Ok(store)
    }

    /// `keys_count`: about how many keys are to come.
    fn head(&mut self, reader: &mut Reader<'_>, keys_count: usize) -> Result<(), Malformed> {
        if self.store.is_some() {
            return Err(Malformed("a second head"));
        }
        let version = reader.u8()?;
        if version > VERSION_WITH_ALARMS {
            return Err(NEWER);
        }
        let revision = Revision(reader.u64()?);
        let is_compacted = reader.flag()?;
        let compacted = Revision(reader.u64()?);
        let hash = RollingHash::restored(reader.u64()?);
        let is_full_by_bytes = reader.flag()?;
        let grants = reader.u64()?;
        let by_hand = if version == VERSION { BTreeSet::new() } else { reader.ascending()? };
        let alarms = Alarms::restored(is_full_by_bytes, by_hand).ok_or(Malformed("too many alarms"))?;
        if revision < Revision(1) || revision.0 == u64::MAX || compacted > revision {
            return Err(Malformed("an impossible revision"));
        }
        if !is_compacted && compacted != Revision(0) {
            return Err(Malformed("a compacted revision of a store that was not compacted"));
        }
        self.store = Some(Store {
            keys: Keys::new(self.seed, keys_count),
            leases: Leases::restored(grants),
            alarms,
            revision,
            compacted: is_compacted.then_some(compacted),
            hash,
            held: None,
        });
        Ok(())
    }

    fn lease(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        let (id, grant) = (LeaseId(reader.u64()?), reader.u64()?);
        let (ttl_ms, remaining_ms) = (reader.u64()?, reader.u64()?);
        let store = self.store.as_mut().filter(|_| self.key.is_none());
        let leases = &mut store.ok_or(Malformed("a lease in the wrong place"))?.leases;
        if !leases.restore(id, grant, ttl_ms, remaining_ms) {
            return Err(Malformed("an impossible lease"));
        }
        Ok(())
    }

    fn next_key(&mut self, key: Arc<[u8]>) -> Result<(), Malformed> {
        let follows = self.key.as_ref().is_none_or(|(last, _)| *last < key);
        if self.store.is_none() || key.is_empty() || !follows {
            return Err(Malformed("a key in the wrong place"));
        }
        self.finish_key()?;
        self.key = Some((key, None));
        Ok(())
    }

    /// A key has no more changes.
    fn finish_key(&mut self) -> Result<(), Malformed> {
        let (Some((key, slot)), Some(store)) = (self.key.take(), &mut self.store) else {
            return Ok(());
        };
        let newest =
            self.newest.take().filter(|_| slot.is_some()).ok_or(Malformed("a key without changes"))?;
        match newest.pair {
            Some((_, _, lease)) if lease != LeaseId(0) && !store.leases.restore_key(&key, lease) => {
                Err(Malformed("a key names a lease that there is not"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The next change of the key. `twin`: what another store has of it.
    fn version(
        &mut self,
        reader: &mut Reader<'_>,
        is_written: bool,
        twin: Option<&Record>,
    ) -> Result<(), Malformed> {
        let made = Moment { revision: Revision(reader.u64()?), order: reader.u64()? };
        let pair = if is_written {
            let (create_revision, version) = (Revision(reader.u64()?), reader.u64()?);
            let lease = LeaseId(reader.u64()?);
            let value = value_of(reader.bytes(VALUE_BYTES_MAX)?, made, twin);
            Some(Pair { value, create_revision, version, lease })
        } else {
            None
        };
        let version = Version { made, pair };
        let (Some(store), Some((key, slot))) = (&mut self.store, &mut self.key) else {
            return Err(Malformed("a change of no key"));
        };
        let compacted = store.forgettable();
        if made.revision > store.revision
            || made.revision < Revision(2)
            || !fits(&version, self.newest, compacted)
        {
            return Err(Malformed("a change that cannot follow the one before"));
        }
        let ends_older = match &version.pair {
            None => true,
            Some(pair) => pair.version > 1,
        };
        self.newest = Some(Newest {
            made,
            pair: version.pair.as_ref().map(|pair| (pair.create_revision, pair.version, pair.lease)),
        });
        let slot = match *slot {
            None => *slot.insert(store.keys.restore(key.clone(), version)),
            Some(slot) => {
                store.keys.restore_more(slot, version);
                slot
            }
        };
        if made.revision >= compacted {
            self.changes.push((made, Change { slot, ends_older }));
        }
        Ok(())
    }

    fn end(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        let (keys_count, versions_count) = (reader.u64()?, reader.u64()?);
        self.finish_key()?;
        let store = self.store.as_ref().ok_or(Malformed("an end without a head"))?;
        let found = (store.keys.keys_count() as u64, store.keys.version_count());
        if found != (keys_count, versions_count) {
            return Err(Malformed("keys or changes are missing"));
        }
        self.is_ended = true;
        Ok(())
    }
}

/// A value that was written at this moment: shared with another store that has the same, or a copy.
fn value_of(bytes: &[u8], made: Moment, twin: Option<&Record>) -> Bytes {
    let there = twin.and_then(|twin| twin.history().find(made)?.pair.as_ref());
    match there {
        Some(pair) if pair.value == bytes => pair.value.clone(),
        Some(_) | None => Bytes::copy_from_slice(bytes),
    }
}

/// Whether a change can follow `newest`, the one of its key before it that is known.
fn fits(version: &Version, newest: Option<Newest>, compacted: Revision) -> bool {
    let revision = version.made.revision;
    let begins = |pair: &Pair| pair.create_revision == revision && pair.version == 1;
    match (newest, &version.pair) {
        // What was before it may be forgotten.
        (None, Some(pair)) if revision <= compacted => pair.create_revision <= revision && pair.version >= 1,
        (None, None) => revision == compacted,
        (Some(newest), _) if revision <= newest.made.revision.max(compacted) => false,
        (None | Some(Newest { pair: None, .. }), Some(pair)) => begins(pair),
        (Some(Newest { pair: Some((created, number, _)), .. }), Some(pair)) => {
            pair.create_revision == created && Some(pair.version) == number.checked_add(1)
        }
        (Some(Newest { pair: before, .. }), None) => before.is_some(),
    }
}

/// Takes numbers and bytes off a slice.
struct Reader<'a>(&'a [u8]);

const CUT_SHORT: Malformed = Malformed("the bytes end in the middle of a record");

impl<'a> Reader<'a> {
    fn u8(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(*first)
    }

    /// Numbers, each larger than the one before, behind how many they are.
    fn ascending(&mut self) -> Result<BTreeSet<u64>, Malformed> {
        let mut numbers = BTreeSet::new();
        for _ in 0..self.u8()? {
            let number = self.u64()?;
            if numbers.last().is_some_and(|last| *last >= number) {
                return Err(Malformed("alarms do not ascend"));
            }
            numbers.insert(number);
        }
        Ok(numbers)
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a flag that is neither 0 nor 1")),
        }
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        let (first, rest) = self.0.split_first_chunk().ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*first))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        let (first, rest) = self.0.split_first_chunk().ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*first))
    }

    fn bytes(&mut self, bytes_max: usize) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        if length > bytes_max {
            return Err(Malformed("longer than any may be"));
        }
        let (taken, rest) = self.0.split_at_checked(length).ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(taken)
    }
}
