//! The history of one key: every change of it that is still remembered, oldest first.
//!
//! What always holds: a history is never empty, never has two deletions in a row, and has at most one change of
//! each revision (`check.rs` refuses the transactions that would make two), so that a watch never has to tell two
//! events of one key and revision apart. Only its oldest changes are ever forgotten.
//!
//! Most keys have one change only, so the newest lies in the key's own record, and the older ones elsewhere.

use crate::ids::{LeaseId, Revision};
use crate::planted;
use bytes::Bytes;
use std::collections::VecDeque;

/// When a change happened: the revision of its transaction, and its place among that transaction's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// The revision.
    pub revision: Revision,
    /// The place within it, from 0.
    pub order: u64,
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
pub(super) struct Version {
    pub(super) made: Moment,
    /// None if this change deleted the key.
    pub(super) pair: Option<Pair>,
}

/// The changes of one key.
#[derive(Clone, Debug)]
pub(super) struct History {
    newest: Version,
    older: Option<Box<Older>>,
}

/// The changes before the newest, oldest first; never empty.
#[derive(Clone, Debug)]
struct Older(VecDeque<Version>);

impl History {
    pub(super) const fn new(first: Version) -> Self {
        Self { newest: first, older: None }
    }

    pub(super) const fn newest(&self) -> &Version {
        &self.newest
    }

    pub(super) fn oldest(&self) -> &Version {
        self.older.as_ref().and_then(|older| older.0.front()).unwrap_or(&self.newest)
    }

    pub(super) fn is_single(&self) -> bool {
        self.older.is_none()
    }

    /// The last change that revision `at` had seen; None if the key did not exist yet.
    pub(super) fn at(&self, at: Revision) -> Option<&Version> {
        if self.newest.made.revision <= at {
            return Some(&self.newest);
        }
        let older = &self.older.as_ref()?.0;
        let after = older.partition_point(|version| version.made.revision <= at);
        if planted!(104) {
            return older.iter().take(after).rfind(|version| version.pair.is_some());
        }
        older.get(after.checked_sub(1)?)
    }

    /// The change made at this moment, if it is there.
    pub(super) fn find(&self, made: Moment) -> Option<&Version> {
        if self.newest.made == made {
            return Some(&self.newest);
        }
        let older = &self.older.as_ref()?.0;
        let at = older.binary_search_by_key(&made, |version| version.made).ok()?;
        older.get(at)
    }

    /// The change made at this moment, and the one before it, if that is still known.
    pub(super) fn made_at(&self, made: Moment) -> (&Version, Option<&Version>) {
        let older = self.older.as_ref().map(|older| &older.0);
        if self.newest.made == made {
            return (&self.newest, older.and_then(VecDeque::back));
        }
        let older = older.expect("a change that is not forgotten is in the history of its key");
        let at = older.partition_point(|version| version.made < made);
        let version = older.get(at).filter(|version| version.made == made);
        let before = at.checked_sub(1).and_then(|before| older.get(before));
        (version.expect("a change that is not forgotten is in the history of its key"), before)
    }

    /// Reads what a further change touches, and says something that depends on all of it.
    pub(super) fn touch(&self) -> u64 {
        let last = self.older.as_ref().and_then(|older| older.0.back());
        self.newest.made.revision.0 ^ last.map_or(0, |version| version.made.order)
    }

    pub(super) fn push(&mut self, version: Version) {
        assert!(self.newest.made < version.made, "a change is later than every change before it");
        let before = core::mem::replace(&mut self.newest, version);
        self.older.get_or_insert_with(|| Box::new(Older(VecDeque::with_capacity(1)))).0.push_back(before);
    }

    /// Forgets the oldest change. The newest cannot be forgotten so.
    pub(super) fn forget_oldest(&mut self) {
        let older = self.older.as_mut().expect("only what has been superseded is forgotten");
        older.0.pop_front().expect("the older changes are never none");
        if older.0.is_empty() {
            self.older = None;
        } else if older.0.len() * 4 < older.0.capacity() {
            older.0.shrink_to(older.0.len() * 2);
        }
    }

    /// The changes from `made` on, oldest first.
    pub(super) fn since(&self, made: Moment) -> impl Iterator<Item = &Version> {
        let older = self.older.iter().flat_map(move |older| {
            let first = older.0.partition_point(|version| version.made < made);
            older.0.range(first..)
        });
        older.chain(core::iter::once(&self.newest).filter(move |newest| newest.made >= made))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Version> {
        self.older.iter().flat_map(|older| older.0.iter()).chain(core::iter::once(&self.newest))
    }

    /// What takes a walk: for tests and the simulator. `compacted`: up to where changes may be forgotten.
    pub(super) fn assert_invariants(&self, compacted: Revision) {
        assert!(self.older.as_ref().is_none_or(|older| !older.0.is_empty()), "older changes are never none");
        let mut before: Option<&Version> = None;
        for version in self.iter() {
            let living = before.and_then(|before| before.pair.as_ref());
            assert!(before.is_none_or(|before| before.made < version.made), "changes are in ascending order");
            let is_first_known = before.is_none() && self.may_have_forgotten(compacted);
            match &version.pair {
                // Also a deletion, of the compacted revision: what it ended is forgotten, and it is still to be told.
                _ if is_first_known => {}
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

    /// Whether a change before the oldest known one may have been forgotten.
    fn may_have_forgotten(&self, compacted: Revision) -> bool {
        self.oldest().made.revision <= compacted
    }
}
