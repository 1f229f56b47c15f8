//! Reads of a range of keys at one revision.
//!
//! The revision is looked at first, on its own ([`View::refusal_of`]), because a transaction has to know before
//! its first write that none of its reads will be refused. Reading itself cannot fail.

use super::command::{Filter, Range, RangeResult, Sort, SortBy, SortOrder, StoreRefusal};
use super::keys::{Keys, Seen};
use super::leases::Leases;
use crate::ids::Revision;
use bytes::Bytes;
use core::cmp::Ordering;
use core::ops::ControlFlow;

/// What can be read: the keys, and between which revisions.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'store> {
    pub(super) keys: &'store Keys,
    pub(super) leases: &'store Leases,
    /// The newest revision.
    pub(super) current: Revision,
    /// The oldest revision that can be read, if any was forgotten.
    pub(super) compacted: Option<Revision>,
}

impl View<'_> {
    /// Why a read that names this revision is refused, if so. 0 is the current one.
    pub(super) fn refusal_of(&self, asked: Revision) -> Option<StoreRefusal> {
        if asked > self.current {
            return Some(StoreRefusal::FutureRevision);
        }
        let is_gone = asked != Revision(0) && self.compacted.is_some_and(|compacted| asked < compacted);
        is_gone.then_some(StoreRefusal::Compacted)
    }
}

/// The revision at which `range` reads; `newest` is what a read sees that names none.
pub(super) fn revision_of(range: &Range, newest: Revision) -> Revision {
    if range.revision == Revision(0) { newest } else { range.revision }
}

/// What a read answers with of the keys that it comes by.
#[derive(Debug)]
pub(super) struct Selection<'range, 'index> {
    range: &'range Range,
    limit: usize,
    kept_max: usize,
    kept: Vec<Seen<'index>>,
}

impl<'range, 'index> Selection<'range, 'index> {
    /// Nothing yet.
    pub(super) fn of(range: &'range Range) -> Self {
        let limit = match range.limit {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        // Whoever sorts has to see every pair before the limit cuts; otherwise one beyond the limit shows that it cut.
        let kept_max = match range.sort {
            _ if range.count_only => 0,
            Some(_) => usize::MAX,
            None => limit.saturating_add(1),
        };
        Self { range, limit, kept_max, kept: Vec::new() }
    }

    /// Whether no further key makes a difference.
    fn is_full(&self) -> bool {
        self.kept.len() >= self.kept_max
    }

    /// The walk came by this key, the next in order.
    pub(super) fn offer(&mut self, seen: Seen<'index>) {
        if !self.is_full() && passes(&self.range.filter, seen) {
            self.kept.push(seen);
        }
    }

    /// What is answered, in its order, and whether the limit cut it short.
    pub(super) fn into_kept(mut self) -> (Vec<Seen<'index>>, bool) {
        if let Some(sort) = self.range.sort {
            self.kept.sort_by(|one, other| compare(sort, *one, *other));
        }
        let more = self.kept.len() > self.limit;
        self.kept.truncate(self.limit);
        (self.kept, more)
    }
}

/// Bytes that a pair counts in a part, beside its key and value.
const PAIR_BYTES: usize = 64;

/// Reads. `newest` is the revision that a read which names none sees.
pub(super) fn read(keys: &Keys, range: &Range, newest: Revision) -> RangeResult {
    if let Some(bytes_max) = range.part_bytes_max {
        return read_part(keys, range, newest, bytes_max);
    }
    let at = revision_of(range, newest);
    let (mut count, mut behind) = (0, None);
    let mut selection = Selection::of(range);
    keys.visit_while(&range.range, at, |seen| {
        if selection.is_full() {
            behind = Some(seen.key());
            return ControlFlow::Break(());
        }
        count += 1;
        selection.offer(seen);
        ControlFlow::Continue(())
    });
    // The count is of the whole range whatever the limit and the filter (etcd's rule).
    if let Some(key) = behind {
        count += keys.count(&range.range.starting_at(key), at);
    }
    let (kept, more) = selection.into_kept();
    let pairs = kept.into_iter().map(|seen| {
        let mut pair = seen.to_key_value();
        if range.keys_only {
            pair.value = Bytes::new();
        }
        pair
    });
    RangeResult { pairs: pairs.collect(), more, count }
}

/// Reads the first pairs until they take `bytes_max`, one at least.
fn read_part(keys: &Keys, range: &Range, newest: Revision, bytes_max: usize) -> RangeResult {
    let limit = if range.limit == 0 { u64::MAX } else { range.limit };
    let (mut pairs, mut bytes, mut more) = (Vec::new(), 0, false);
    keys.visit_while(&range.range, revision_of(range, newest), |seen| {
        more = bytes >= bytes_max || pairs.len() as u64 >= limit;
        if more {
            return ControlFlow::Break(());
        }
        if passes(&range.filter, seen) {
            let mut pair = seen.to_key_value();
            if range.keys_only {
                pair.value = Bytes::new();
            }
            bytes += pair.key.len() + pair.value.len() + PAIR_BYTES;
            pairs.push(pair);
        }
        ControlFlow::Continue(())
    });
    let count = pairs.len() as u64;
    RangeResult { pairs, more, count }
}

fn passes(filter: &Filter, seen: Seen<'_>) -> bool {
    let within = |revision: Revision, min: Revision, max: Revision| {
        revision >= min && (max == Revision(0) || revision <= max)
    };
    within(seen.mod_revision(), filter.mod_min, filter.mod_max)
        && within(seen.pair.create_revision, filter.create_min, filter.create_max)
}

/// The order of two pairs. The sort is stable, and what it sorts comes in ascending key order.
fn compare(sort: Sort, one: Seen<'_>, other: Seen<'_>) -> Ordering {
    let ascending = match sort.by {
        SortBy::Key => one.key().cmp(other.key()),
        SortBy::Version => one.pair.version.cmp(&other.pair.version),
        SortBy::Create => one.pair.create_revision.cmp(&other.pair.create_revision),
        SortBy::Mod => one.mod_revision().cmp(&other.mod_revision()),
        SortBy::Value => one.pair.value.cmp(&other.pair.value),
    };
    match sort.order {
        SortOrder::Ascending => ascending,
        SortOrder::Descending => ascending.reverse(),
    }
}
