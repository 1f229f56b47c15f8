//! The ordered index of keys, and the history of each key.
//!
//! ```text
//!   index (ordered by key)       history (ordered by revision, oldest first)
//!   "a"  ->  | rev 2: "1", created 2, version 1 | rev 5: "2", created 2, version 2 |
//!   "b"  ->  | rev 3: "x", created 3, version 1 | rev 4: deleted | rev 7: "y", created 7, version 1 |
//! ```
//!
//! What always holds: a history is never empty, begins with a pair, never has two deletions in a row, and has at
//! most one change of each revision (`check.rs` refuses the transactions that would make two), so that a watch
//! never has to tell two events of one key and revision apart. A key that was deleted stays in the index, because older revisions still see it.
//!
//! It leaves out what a transaction is: the caller says at which revision, and in which order within it, a
//! change happens.

use super::command::{KeyRange, KeyValue};
use crate::ids::{LeaseId, Revision};
use crate::planted;
use bytes::Bytes;
use core::ops::Bound;
use std::collections::BTreeMap;

/// When a change happened: the revision of its transaction, and its place among that transaction's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    pub(super) revision: Revision,
    pub(super) order: u64,
}

/// What a key holds from one change until the next.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) value: Bytes,
    pub(super) create_revision: Revision,
    pub(super) version: u64,
    pub(super) lease: LeaseId,
}

/// One change of a key: written, or deleted.
#[derive(Clone, Debug)]
struct Version {
    made: Moment,
    /// None if this change deleted the key.
    pair: Option<Pair>,
}

/// Every change of one key, oldest first.
#[derive(Clone, Debug)]
struct History(Vec<Version>);

/// A key as one revision sees it, borrowed from the index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'index> {
    key: &'index Bytes,
    pub(super) pair: &'index Pair,
    pub(super) mod_revision: Revision,
}

/// All keys of a store with their histories.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    histories: BTreeMap<Bytes, History>,
    /// Keys that hold a pair now.
    live_count: usize,
    /// Changes in all histories.
    version_count: u64,
}

impl Keys {
    pub(super) fn live_count(&self) -> usize {
        self.live_count
    }

    /// The key as revision `at` saw it.
    pub(super) fn get(&self, key: &[u8], at: Revision) -> Option<Seen<'_>> {
        let (key, history) = self.histories.get_key_value(key)?;
        history.at(at).and_then(|version| version.seen(key))
    }

    /// Calls `visit` with each key of the range that revision `at` saw, in ascending order.
    pub(super) fn visit<'index>(
        &'index self,
        range: &KeyRange,
        at: Revision,
        mut visit: impl FnMut(Seen<'index>),
    ) {
        // A point needs no walk, and is by far the most frequent.
        if let KeyRange::Key(key) = range {
            self.get(key, at).into_iter().for_each(visit);
            return;
        }
        for (key, history) in self.histories.range::<[u8], _>(bounds(range)) {
            if let Some(seen) = history.at(at).and_then(|version| version.seen(key)) {
                visit(seen);
            }
        }
    }

    /// Writes a key; answers with the pair before, if `wants_previous` and there was one.
    pub(super) fn put(
        &mut self,
        change: NewPair<'_>,
        made: Moment,
        wants_previous: bool,
    ) -> Option<KeyValue> {
        self.version_count += 1;
        let NewPair { key, value, lease } = change;
        let mut pair = Pair { value: value.clone(), create_revision: made.revision, version: 1, lease };
        let Some(history) = self.histories.get_mut(key.as_ref()) else {
            self.live_count += 1;
            self.histories.insert(key.clone(), History::new(made, pair));
            return None;
        };
        let mut previous = None;
        if let Some(before) = history.latest().seen(key) {
            pair.create_revision = before.pair.create_revision;
            pair.version = before.pair.version + 1;
            previous = wants_previous.then(|| before.to_key_value());
        } else {
            self.live_count += 1;
        }
        history.push(Version { made, pair: Some(pair) });
        previous
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
        let mut delete_one = |key: &Bytes, history: &mut History| {
            let Some(seen) = history.latest().seen(key) else {
                return;
            };
            visit(seen, made);
            history.push(Version { made, pair: None });
            made.order += 1;
        };
        if let KeyRange::Key(key) = range {
            if let Some(history) = self.histories.get_mut(key.as_ref()) {
                delete_one(key, history);
            }
        } else {
            for (key, history) in self.histories.range_mut::<[u8], _>(bounds(range)) {
                delete_one(key, history);
            }
        }
        let deleted = made.order - first.order;
        self.version_count += deleted;
        self.live_count -= usize::try_from(deleted).expect("no more keys are deleted than memory holds");
        deleted
    }

    /// What can be said without a walk. `current` is the store's revision.
    pub(super) fn assert_invariants(&self, current: Revision) {
        assert!(self.live_count <= self.histories.len(), "every live key is in the index");
        assert!(self.version_count >= self.histories.len() as u64, "no key is without history");
        assert!(self.version_count >= current.0 - 1, "every revision after the first changed something");
    }

    /// What takes a walk over every change ever made: for tests and the simulator.
    pub(super) fn assert_all_invariants(&self, current: Revision) {
        let mut moments = Vec::new();
        let mut live_count = 0;
        for (key, history) in &self.histories {
            assert!(!key.is_empty(), "no key is empty");
            history.assert_invariants();
            live_count += usize::from(history.latest().pair.is_some());
            moments.extend(history.0.iter().map(|version| version.made));
        }
        assert_eq!(live_count, self.live_count, "the count of live keys is right");
        assert_eq!(moments.len() as u64, self.version_count, "the count of changes is right");

        moments.sort_unstable();
        let mut next = Moment { revision: Revision(2), order: 0 };
        for made in moments {
            if made.revision == next.revision.next() && next.order > 0 {
                next = Moment { revision: made.revision, order: 0 };
            }
            assert_eq!(made, next, "revisions, and the orders within one, have no gaps and no doubles");
            next.order += 1;
        }
        let last = if next.order == 0 { Revision(1) } else { next.revision };
        assert_eq!(last, current, "the newest change is of the current revision");
    }
}

/// What a put gives a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewPair<'command> {
    pub(super) key: &'command Bytes,
    pub(super) value: &'command Bytes,
    pub(super) lease: LeaseId,
}

impl Seen<'_> {
    /// The pair on its own. The key and the value are shared, not copied.
    pub(super) fn to_key_value(self) -> KeyValue {
        KeyValue {
            key: self.key.clone(),
            value: self.pair.value.clone(),
            create_revision: self.pair.create_revision,
            mod_revision: self.mod_revision,
            version: self.pair.version,
            lease: self.pair.lease,
        }
    }

    pub(super) fn key(&self) -> &Bytes {
        self.key
    }
}

impl Version {
    fn seen<'index>(&'index self, key: &'index Bytes) -> Option<Seen<'index>> {
        let pair = self.pair.as_ref()?;
        Some(Seen { key, pair, mod_revision: self.made.revision })
    }
}

impl History {
    fn new(made: Moment, pair: Pair) -> Self {
        Self(vec![Version { made, pair: Some(pair) }])
    }

    fn latest(&self) -> &Version {
        self.0.last().expect("a history begins with the change that made the key")
    }

    /// The last change that revision `at` had seen; None if the key did not exist yet.
    fn at(&self, at: Revision) -> Option<&Version> {
        let latest = self.latest();
        if latest.made.revision <= at {
            return Some(latest);
        }
        let after = self.0.partition_point(|version| version.made.revision <= at);
        if planted!(104) {
            return self.0[..after].iter().rfind(|version| version.pair.is_some());
        }
        self.0[..after].last()
    }

    fn push(&mut self, version: Version) {
        assert!(self.latest().made < version.made, "a change is later than every change before it");
        self.0.push(version);
    }

    fn assert_invariants(&self) {
        let mut before: Option<&Version> = None;
        for version in &self.0 {
            let living = before.and_then(|before| before.pair.as_ref());
            assert!(before.is_none_or(|before| before.made < version.made), "changes are in ascending order");
            match &version.pair {
                Some(pair) => {
                    let created = living.map_or(version.made.revision, |living| living.create_revision);
                    let number = living.map_or(1, |living| living.version + 1);
                    assert_eq!(pair.create_revision, created, "a life of a key keeps its create revision");
                    assert_eq!(pair.version, number, "versions count the writes of one life from 1");
                }
                None => assert!(living.is_some(), "only a key that exists is deleted"),
            }
            before = Some(version);
        }
    }
}

/// The range as the index wants it. `check` has refused ranges that end before they start.
fn bounds(range: &KeyRange) -> (Bound<&[u8]>, Bound<&[u8]>) {
    match range {
        KeyRange::Key(key) => (Bound::Included(key), Bound::Included(key)),
        KeyRange::Span { start, end } => (Bound::Included(start), Bound::Excluded(end)),
        KeyRange::From(start) => (Bound::Included(start), Bound::Unbounded),
    }
}
