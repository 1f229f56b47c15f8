//! The ordered index of keys, the record of each with its history, and what of the histories can be forgotten.
//!
//! ```text
//!   order (by key)    records (by slot)
//!   "a" -> slot 1     1: "a" | rev 2: "1", created 2, version 1 | rev 5: "2", created 2, version 2 |
//!   "b" -> slot 0     0: "b" | rev 3: "x", created 3, version 1 | rev 4: deleted | rev 7: "y", created 7, version 1 |
//!
//!   changes (by revision, `changes.rs`)     | 2: slot 1 | 3: slot 0 | 4: slot 0* | 5: slot 1* | 7: slot 0 |
//! ```
//!
//! What always holds: a key that was deleted stays in the index as long as a revision that can be read saw it.
//! Keys and values are copies of their own: what came in a frame of a megabyte does not keep the frame alive. The order and
//! the record share the letters of a key through an `Arc<[u8]>`, half the size of `Bytes`; whoever asks gets a copy.
//!
//! **Forgetting.** `changes` says of each change whether it ended an older one (`*`): from its revision on nobody sees
//! the older one. Compacting up to a revision means to go through the changes up to that revision, one by one, and to
//! drop the oldest change of each key whose change ended one. So the work is that of the changes and not of the keys, it
//! can stop after any step, and no read that is still allowed can see how far it has come: what is dropped was seen only
//! by revisions before the compacted one, which the store refuses.
//!
//! The changes of the compacted revision itself stay, its deletions among them, until the next compaction: a watch may
//! begin there, and one that is told of a compaction will (etcd #18089, #19179). What they ended does not stay.
//!
//! It leaves out what a transaction is: the caller says at which revision, and in which order within it, a
//! change happens.

use super::blocks::Blocks;
use super::changes::{Change, Changes};
use super::command::{KeyRange, KeyValue};
use super::event::Changed;
use super::history::{History, Moment, Pair, Version};
use super::points::{Place, Points};
use crate::ids::{LeaseId, Revision};
use crate::limits::LOOK_AHEAD_MAX;
use crate::planted;
use bytes::Bytes;
use core::cell::Cell;
use core::ops::{Bound, ControlFlow};
use std::collections::{BTreeMap, btree_map};
use std::sync::Arc;

/// Where a key's record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(pub(super) u32);

/// A key and its history.
#[derive(Clone, Debug)]
pub(super) struct Record {
    key: Arc<[u8]>,
    history: History,
}

/// A key as one revision sees it, borrowed from its record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'index> {
    key: &'index [u8],
    pub(super) pair: &'index Pair,
    made: Moment,
}

/// All keys of a store with their histories.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// For ranges.
    order: BTreeMap<Arc<[u8]>, Slot>,
    /// For counts of ranges.
    blocks: Blocks,
    /// For single keys.
    points: Points,
    records: Records,
    /// What each revision changed.
    changes: Changes,
    /// Keys that hold a pair now.
    live_count: usize,
    /// Changes in all histories.
    version_count: u64,
    /// About how much memory all of it takes.
    bytes: u64,
    /// Keys that walks came by so far.
    walked: Cell<u64>,
}

/// About how many bytes of memory a key takes beside its letters: two indexes and its record.
const KEY_BYTES: u64 = 128;

/// About how many bytes of memory a change takes beside its value.
const VERSION_BYTES: u64 = 112;

/// About how many bytes a change takes that leaves this value.
const fn version_bytes(value: &Bytes) -> u64 {
    VERSION_BYTES + value.len() as u64
}

/// About how many bytes a key takes; the order and the record share its letters.
const fn key_bytes(key: &[u8]) -> u64 {
    KEY_BYTES + key.len() as u64
}

impl Keys {
    /// No keys. `seed`: secret, and each boot's own. `keys_count`: about how many are to come, if that is known.
    pub(super) fn new(seed: u64, keys_count: usize) -> Self {
        Self {
            order: BTreeMap::new(),
            blocks: Blocks::default(),
            points: Points::new(seed, keys_count),
            records: Records::default(),
            changes: Changes::default(),
            live_count: 0,
            version_count: 0,
            bytes: 0,
            walked: Cell::new(0),
        }
    }

    /// How many keys walks came by so far, those included of which a deletion is all that is left.
    pub(super) const fn walked(&self) -> u64 {
        self.walked.get()
    }

    pub(super) const fn live_count(&self) -> usize {
        self.live_count
    }

    /// How many keys there are, of which some may be deleted.
    pub(super) fn keys_count(&self) -> usize {
        self.order.len()
    }

    pub(super) const fn version_count(&self) -> u64 {
        self.version_count
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Touches what a write of each of these keys touches. First all places in the table of points and then all records, because
    /// a processor waits for many misses of its cache as long as for one, if none depends on another.
    pub(super) fn look_ahead<'keys>(&self, keys: impl Iterator<Item = &'keys [u8]>) {
        let mut places = [Place::default(); LOOK_AHEAD_MAX];
        let mut count = 0;
        for (place, key) in places.iter_mut().zip(keys) {
            *place = self.points.place_of(key);
            count += 1;
        }
        let mut slots = [None; LOOK_AHEAD_MAX];
        for (slot, place) in slots.iter_mut().zip(places).take(count) {
            *slot = self.points.likely(place);
        }
        let seen = slots.iter().flatten().map(|slot| self.records.at(*slot)).fold(0, |seen, record| {
            seen ^ u64::from(record.key.first().copied().unwrap_or_default()) ^ record.history.touch()
        });
        core::hint::black_box(seen);
    }

    /// The record of a key, if it has one.
    pub(super) fn record(&self, key: &[u8]) -> Option<&Record> {
        Some(self.records.at(self.points.find(key, &self.records)?))
    }

    /// The key as revision `at` saw it.
    pub(super) fn get(&self, key: &[u8], at: Revision) -> Option<Seen<'_>> {
        self.record(key)?.seen(at)
    }

    /// Calls `visit` with each key of the range that revision `at` saw, in ascending order.
    pub(super) fn visit<'index>(
        &'index self,
        range: &KeyRange,
        at: Revision,
        mut visit: impl FnMut(Seen<'index>),
    ) {
        self.visit_while(range, at, |seen| {
            visit(seen);
            ControlFlow::Continue(())
        });
    }

    /// The same, until `visit` says that it has seen enough.
    pub(super) fn visit_while<'index>(
        &'index self,
        range: &KeyRange,
        at: Revision,
        mut visit: impl FnMut(Seen<'index>) -> ControlFlow<()>,
    ) {
        // A point needs no walk, and is by far the most frequent.
        if let KeyRange::Key(key) = range {
            let _ = self.get(key, at).map(visit);
            return;
        }
        let mut walked = 0;
        for slot in slots(&self.order, range) {
            walked += 1;
            if let Some(seen) = self.records.at(slot).seen(at)
                && visit(seen).is_break()
            {
                break;
            }
        }
        self.walked.set(self.walked.get() + walked);
    }

    /// How many keys of the range revision `at` saw; `at` can be read.
    ///
    /// How many there are now is added up; of those that changed since `at`, what they were then is looked at. Where more
    /// changed than there are keys in the range, these are walked over.
    pub(super) fn count(&self, range: &KeyRange, at: Revision) -> u64 {
        let (start, end) = match range {
            KeyRange::Key(key) => return u64::from(self.get(key, at).is_some()),
            KeyRange::Span { start, end } => (start, Some(end.as_ref())),
            KeyRange::From(start) => (start, None),
        };
        let is_live = |slot| self.records.at(slot).newest().is_some();
        let counted = self.blocks.count(start, end, &self.order, is_live);
        self.walked.set(self.walked.get() + counted.walked);
        let since = self.changes.count_after(at);
        if since > counted.keys {
            let mut count = 0;
            self.visit(range, at, |_| count += 1);
            return count;
        }
        self.walked.set(self.walked.get() + since);
        let (mut came, mut went) = (0, 0);
        for (made, slot) in self.changes.from(Moment { revision: at.next(), order: 0 }) {
            let record = self.records.at(slot);
            let (_, before) = record.history.made_at(made);
            let is_first = before.is_none_or(|before| before.made.revision <= at);
            if is_first && range.contains(&record.key) {
                let lived = before.is_some_and(|before| before.pair.is_some());
                let lives = record.newest().is_some();
                came += u64::from(lives && !lived);
                went += u64::from(lived && !lives);
            }
        }
        counted.live + went - came
    }

    /// Writes a key; answers with what was there before, the pair only if `wants_previous`.
    pub(super) fn put(&mut self, change: NewPair<'_>, made: Moment, wants_previous: bool) -> Replaced {
        self.version_count += 1;
        let NewPair { key, value, lease } = change;
        self.bytes += version_bytes(&value);
        let mut pair = Pair { value, create_revision: made.revision, version: 1, lease };
        let Some(slot) = self.points.find(key, &self.records) else {
            self.live_count += 1;
            self.bytes += key_bytes(key);
            let key: Arc<[u8]> = Arc::from(key.as_ref());
            let history = History::new(Version { made, pair: Some(pair) });
            let slot = self.records.insert(Record { key: key.clone(), history });
            self.points.insert(&key, slot);
            self.enter(key, slot, true);
            self.changes.push(made.revision, Change { slot, ends_older: false });
            return Replaced::default();
        };
        let mut replaced = Replaced::default();
        let record = self.records.at_mut(slot);
        if let Some(before) = record.newest() {
            pair.create_revision = before.pair.create_revision;
            pair.version = before.pair.version + 1;
            replaced.lease = before.pair.lease;
            replaced.pair = wants_previous.then(|| before.to_key_value());
            self.changes.push(made.revision, Change { slot, ends_older: true });
        } else {
            self.live_count += 1;
            self.blocks.key_came_to_life(key);
            self.changes.push(made.revision, Change { slot, ends_older: false });
        }
        record.history.push(Version { made, pair: Some(pair) });
        replaced
    }

    /// Puts a key that is not there yet into the index.
    fn enter(&mut self, key: Arc<[u8]>, slot: Slot, lives: bool) {
        let entered = key.clone();
        self.order.insert(key, slot);
        let is_live = |slot| self.records.at(slot).newest().is_some();
        self.blocks.key_was_added(&entered, lives, &self.order, is_live);
    }

    /// Deletes the keys of the range that hold a pair, each at the next order of `first`'s revision, and calls
    /// `visit` with each as it was.
    pub(super) fn delete(
        &mut self,
        range: &KeyRange,
        first: Moment,
        mut visit: impl FnMut(Seen<'_>, Moment),
    ) -> u64 {
        let mut made = first;
        let point = match range {
            KeyRange::Key(key) => self.points.find(key, &self.records),
            KeyRange::Span { .. } | KeyRange::From(_) => None,
        };
        let (records, changes, blocks) = (&mut self.records, &mut self.changes, &mut self.blocks);
        let mut delete_one = |slot: Slot| {
            let record = records.at_mut(slot);
            if let Some(seen) = record.newest() {
                visit(seen, made);
                blocks.key_was_deleted(&record.key);
                record.history.push(Version { made, pair: None });
                changes.push(made.revision, Change { slot, ends_older: true });
                made.order += 1;
            }
        };
        if let KeyRange::Key(_) = range {
            point.into_iter().for_each(delete_one);
        } else {
            let mut walked = 0;
            for slot in slots(&self.order, range) {
                walked += 1;
                delete_one(slot);
            }
            self.walked.set(self.walked.get() + walked);
        }
        let deleted = made.order - first.order;
        self.version_count += deleted;
        self.bytes += deleted * VERSION_BYTES;
        self.live_count -= usize::try_from(deleted).expect("no more keys are deleted than memory holds");
        deleted
    }

    /// The records of all keys from `start` on, in order of the keys.
    pub(super) fn records_from(&self, start: Bound<&[u8]>) -> impl Iterator<Item = &Record> {
        let slots = self.order.range::<[u8], _>((start, Bound::Unbounded));
        slots.map(|(_, slot)| self.records.at(*slot))
    }

    /// Finds records of keys that are asked for in ascending order.
    pub(super) fn finder(&self) -> Finder<'_> {
        Finder { keys: self, later: btree_map::Range::default(), next: None }
    }

    /// A key that is not there yet, with the first change of it that is known.
    pub(super) fn restore(&mut self, key: Arc<[u8]>, first: Version) -> Slot {
        self.bytes +=
            key_bytes(&key) + first.pair.as_ref().map_or(VERSION_BYTES, |it| version_bytes(&it.value));
        self.version_count += 1;
        let lives = first.pair.is_some();
        self.live_count += usize::from(lives);
        let slot = self.records.insert(Record { key: key.clone(), history: History::new(first) });
        self.points.insert(&key, slot);
        self.enter(key, slot, lives);
        slot
    }

    /// A later change of a key that was restored.
    pub(super) fn restore_more(&mut self, slot: Slot, version: Version) {
        self.bytes += version.pair.as_ref().map_or(VERSION_BYTES, |it| version_bytes(&it.value));
        self.version_count += 1;
        let record = self.records.at_mut(slot);
        let (before, now) = (record.history.newest().pair.is_some(), version.pair.is_some());
        self.live_count = self.live_count + usize::from(now) - usize::from(before);
        match (before, now) {
            (false, true) => self.blocks.key_came_to_life(&record.key),
            (true, false) => self.blocks.key_was_deleted(&record.key),
            (true, true) | (false, false) => {}
        }
        record.history.push(version);
    }

    /// What each revision changed, once all keys are restored.
    pub(super) fn restore_changes(&mut self, changes: Changes) {
        self.changes = changes;
    }

    /// Every change from `from` on, in order.
    pub(super) fn changes_from(&self, from: Moment) -> impl Iterator<Item = (Moment, Changed<'_>)> {
        self.changes.from(from).map(|(made, slot)| {
            let record = self.records.at(slot);
            let (version, before) = record.history.made_at(made);
            let before = before.and_then(|before| record.seen_in(before));
            (made, Changed::new(&record.key, version, before))
        })
    }

    /// How many changes a revision made.
    pub(super) fn changes_count(&self, revision: Revision) -> u64 {
        self.changes.count_of(revision)
    }

    /// Forgets changes that only revisions before `compacted` saw, in `steps_max` steps at most.
    pub(super) fn forget(&mut self, compacted: Revision, steps_max: usize) {
        for _ in 0..steps_max {
            // What is past goes first, so that what a change ended is the oldest that is left of its key.
            if let Some((made, change)) = self.changes.pop_if(|revision| is_past(revision, compacted)) {
                self.forget_deletion(made, change);
            } else if let Some((superseded, change)) = self.changes.next_ended(compacted) {
                if change.ends_older {
                    self.forget_ended(superseded, change.slot);
                }
            } else {
                break;
            }
        }
    }

    /// Whether there is something that `forget` would do.
    pub(super) fn has_forgettable(&self, compacted: Revision) -> bool {
        self.changes.has_ended(compacted) || self.changes.has(|revision| is_past(revision, compacted))
    }

    /// Forgets the oldest change of a key, which the one at `superseded` ended.
    fn forget_ended(&mut self, superseded: Revision, slot: Slot) {
        let record = self.records.at_mut(slot);
        self.bytes -= record.history.oldest().pair.as_ref().map_or(0, |pair| version_bytes(&pair.value));
        record.history.forget_oldest();
        self.version_count -= 1;
        let oldest = record.history.oldest();
        assert_eq!(oldest.made.revision, superseded, "what was forgotten was the one before");
    }

    /// Forgets a change if it is a deletion, because it leaves nothing to see. A key of which nothing is left goes.
    fn forget_deletion(&mut self, made: Revision, change: Change) {
        let record = self.records.at_mut(change.slot);
        let oldest = record.history.oldest();
        let leaves_nothing = oldest.made.revision == made && oldest.pair.is_none();
        if !leaves_nothing && (!planted!(111) || !change.ends_older) {
            return;
        }
        self.version_count -= 1;
        self.bytes -= VERSION_BYTES;
        if record.history.is_single() {
            let record = self.records.remove(change.slot);
            self.bytes -= key_bytes(&record.key);
            self.points.remove(&record.key, change.slot);
            self.order.remove(&record.key);
            self.blocks.key_was_removed(&record.key);
        } else {
            record.history.forget_oldest();
        }
    }

    /// Every key that holds a pair now, in order.
    pub(super) fn newest(&self) -> impl Iterator<Item = Seen<'_>> {
        self.order.values().filter_map(|slot| self.records.at(*slot).newest())
    }

    /// What can be said without a walk. `current` is the store's revision.
    pub(super) fn assert_invariants(&self, current: Revision, compacted: Revision) {
        assert!(self.live_count <= self.order.len(), "every live key is in the index");
        assert!(self.version_count >= self.order.len() as u64, "no key is without history");
        let kept_min = current.0 - compacted.0.max(1);
        assert!(self.version_count >= kept_min, "every revision after the compacted one changed something");
    }

    /// What takes a walk over every change that is remembered: for tests and the simulator.
    pub(super) fn assert_all_invariants(&self, current: Revision, compacted: Revision) {
        let mut moments = Vec::new();
        let mut live_count = 0;
        let mut superseded = Vec::new();
        let mut bytes = 0;
        let mut changed = Vec::new();
        for (key, slot) in &self.order {
            let record = self.records.at(*slot);
            assert!(!key.is_empty(), "no key is empty");
            assert_eq!(*key, record.key, "the index leads to the key's own record");
            let found = self.points.find(key, &self.records);
            assert_eq!(found, Some(*slot), "both indexes lead to the same record");
            record.history.assert_invariants(compacted);
            live_count += usize::from(record.newest().is_some());
            bytes += key_bytes(key);
            for version in record.history.iter() {
                bytes += version.pair.as_ref().map_or(VERSION_BYTES, |pair| version_bytes(&pair.value));
            }
            moments.extend(record.history.iter().map(|version| version.made));
            changed.extend(record.history.iter().map(|version| (version.made, *slot)));
            let pairs = record.history.iter().zip(record.history.iter().skip(1));
            let ends = pairs.filter(|(before, _)| before.pair.is_some());
            superseded.extend(ends.map(|(_, after)| (after.made, *slot)));
        }
        self.blocks.assert_all_invariants(&self.order, |slot| self.records.at(slot).newest().is_some());
        assert_eq!(self.records.count(), self.order.len(), "every record is in the index");
        assert_eq!(self.points.count(), self.order.len(), "both indexes hold the same keys");
        assert_eq!(live_count, self.live_count, "the count of live keys is right");
        assert_eq!(moments.len() as u64, self.version_count, "the count of changes is right");
        assert_eq!(bytes, self.bytes, "the count of bytes is right");
        superseded.sort_unstable();
        let superseded = superseded.into_iter().map(|(made, slot)| (made.revision, slot));
        assert!(self.changes.ends().eq(superseded), "what ends an older change is written down");
        changed.sort_unstable();
        changed.retain(|(made, _)| made.revision >= compacted);
        let first = Moment { revision: compacted, order: 0 };
        assert!(
            self.changes.from(first).eq(changed),
            "the changes of every revision that can be read lead to keys"
        );
        if !self.has_forgettable(compacted) {
            let forgettable = |record: &Record| {
                let old = record.history.iter().filter(|version| version.made.revision <= compacted);
                let deletion = record.newest().is_none() && record.history.newest().made.revision < compacted;
                old.count() > 1 || deletion
            };
            let mut records = self.order.values().map(|slot| self.records.at(*slot));
            assert!(
                !records.any(forgettable),
                "each key keeps one change of the compacted revision or before"
            );
        }

        moments.sort_unstable();
        moments.retain(|made| made.revision > compacted);
        let mut next = Moment { revision: Revision(compacted.0.max(1) + 1), order: 0 };
        for made in moments {
            if made.revision == next.revision.next() && next.order > 0 {
                next = Moment { revision: made.revision, order: 0 };
            }
            assert_eq!(made, next, "revisions, and the orders within one, have no gaps and no doubles");
            next.order += 1;
        }
        let last = if next.order == 0 { Revision(compacted.0.max(1)) } else { next.revision };
        assert_eq!(last, current, "the newest change is of the current revision");
    }
}

/// Whether nobody is told of a revision any more, once `compacted` is the oldest to be told of.
fn is_past(revision: Revision, compacted: Revision) -> bool {
    revision < compacted || (planted!(374) && revision == compacted)
}

/// Walks beside somebody who names keys in ascending order, because the next key is found sooner than any.
#[derive(Debug)]
pub(super) struct Finder<'index> {
    keys: &'index Keys,
    /// What follows `next`.
    later: btree_map::Range<'index, Arc<[u8]>, Slot>,
    /// The first key that is not before the last one asked for, if the walk was begun and is not at its end.
    next: Option<(&'index Arc<[u8]>, &'index Slot)>,
}

/// Keys that a finder comes by before it looks where to go on instead.
const FINDER_STEPS: usize = 8;

impl<'index> Finder<'index> {
    /// The record of a key that is behind the last one asked for, if it has one.
    pub(super) fn find(&mut self, key: &[u8]) -> Option<&'index Record> {
        for _ in 0..FINDER_STEPS {
            match self.next {
                Some((there, _)) if there.as_ref() < key => self.next = self.later.next(),
                Some(_) => return self.record_of(key),
                None => break,
            }
        }
        self.later = self.keys.order.range::<[u8], _>((Bound::Included(key), Bound::Unbounded));
        self.next = self.later.next();
        self.record_of(key)
    }

    fn record_of(&self, key: &[u8]) -> Option<&'index Record> {
        let (_, slot) = self.next.filter(|(there, _)| there.as_ref() == key)?;
        Some(self.keys.records.at(*slot))
    }
}

/// What a put gives a key. The value is kept as it is: the caller made it a copy of its own.
#[derive(Clone, Debug)]
pub(super) struct NewPair<'command> {
    pub(super) key: &'command Bytes,
    pub(super) value: Bytes,
    pub(super) lease: LeaseId,
}

/// What a put put an end to.
#[derive(Clone, Debug, Default)]
pub(super) struct Replaced {
    /// The lease that the key was attached to; 0 if none.
    pub(super) lease: LeaseId,
    /// The pair, if asked for and there was one.
    pub(super) pair: Option<KeyValue>,
}

impl<'index> Seen<'index> {
    /// The pair on its own. The value is shared, not copied.
    pub(super) fn to_key_value(self) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(self.key),
            value: self.pair.value.clone(),
            create_revision: self.pair.create_revision,
            mod_revision: self.mod_revision(),
            version: self.pair.version,
            lease: self.pair.lease,
        }
    }

    pub(super) const fn key(&self) -> &'index [u8] {
        self.key
    }

    pub(super) const fn mod_revision(self) -> Revision {
        self.made.revision
    }
}

impl Record {
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(super) const fn name(&self) -> &Arc<[u8]> {
        &self.key
    }

    pub(super) const fn history(&self) -> &History {
        &self.history
    }

    fn seen(&self, at: Revision) -> Option<Seen<'_>> {
        self.history.at(at).and_then(|version| self.seen_in(version))
    }

    fn newest(&self) -> Option<Seen<'_>> {
        self.seen_in(self.history.newest())
    }

    fn seen_in<'record>(&'record self, version: &'record Version) -> Option<Seen<'record>> {
        Some(Seen { key: &self.key, pair: version.pair.as_ref()?, made: version.made })
    }
}

/// Records, each in a slot that stays its own until it is removed.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    slots: Vec<Option<Record>>,
    free: Vec<Slot>,
}

impl Records {
    pub(super) fn at(&self, slot: Slot) -> &Record {
        let record = self.slots.get(slot.0 as usize).and_then(Option::as_ref);
        record.expect("a slot that is known holds a record")
    }

    fn at_mut(&mut self, slot: Slot) -> &mut Record {
        let record = self.slots.get_mut(slot.0 as usize).and_then(Option::as_mut);
        record.expect("a slot that is known holds a record")
    }

    fn insert(&mut self, record: Record) -> Slot {
        if let Some(slot) = self.free.pop() {
            self.slots[slot.0 as usize] = Some(record);
            return slot;
        }
        let slot = Slot(u32::try_from(self.slots.len()).expect("memory holds fewer than 4 Gi keys"));
        self.slots.push(Some(record));
        slot
    }

    fn remove(&mut self, slot: Slot) -> Record {
        let record = self.slots[slot.0 as usize].take().expect("a slot that is known holds a record");
        self.free.push(slot);
        record
    }

    const fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// The slots of the keys in a range, in ascending order of the keys. A range that ends before it starts has none.
fn slots<'order>(
    order: &'order BTreeMap<Arc<[u8]>, Slot>,
    range: &'order KeyRange,
) -> impl Iterator<Item = Slot> + 'order {
    let bounds = match range {
        KeyRange::Key(key) => (Bound::Included(key.as_ref()), Bound::Included(key.as_ref())),
        KeyRange::Span { start, end } => {
            (Bound::Included(start.as_ref()), Bound::Excluded(start.max(end).as_ref()))
        }
        KeyRange::From(start) => (Bound::Included(start.as_ref()), Bound::Unbounded),
    };
    order.range::<[u8], _>(bounds).map(|(_, slot)| *slot)
}
