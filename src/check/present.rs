//! The keys as they are at one point of an order that the search tries: what each holds, and how to go back.
//!
//! ```text
//!   take(operation)   is its answer what the store would have said here?  Then it is now as the operation leaves it.
//!   undo_to(mark)     … and back again
//! ```
//!
//! A revision is a *name* here, never a place in an order: a write is named by the revision it was told, and a read must
//! see that name. A write without an answer has no name, and whatever a reader calls it is believed. So nothing in
//! this file would notice if revisions ran backwards; `along_revisions` does.
//!
//! Nested transactions are believed, as what they wrote is not known; so is what a sort or a filter chose.
//!
//! Always: what cannot be known (a name, or anything of a key before the window of a cut history) contradicts no
//! answer. A compare that hangs on it is decided by the answer or, if there is none, both ways, the likelier first.

use super::history::{Call, Operation};
use crate::ids::{LeaseId, Revision};
use crate::kv::{
    Applied, Command, Compare, CompareOperator, CompareTarget, DeleteRange, DeleteRangeResult, Filter,
    KeyRange, KeyValue, Operation as Part, OperationResult, Outcome, Put, PutResult, Query, Range,
    RangeResult, Txn, TxnResult,
};
use bytes::Bytes;
use core::cmp::Ordering;
use core::ops::Range as Positions;

/// Every key that a history may put, in their order, so that a span of keys is a range of positions.
#[derive(Debug)]
pub(super) struct Keys<'h>(Vec<&'h Bytes>);

impl<'h> Keys<'h> {
    /// The keys of a history.
    pub(super) fn of(history: &'h [Operation]) -> Self {
        let mut keys = Vec::new();
        for operation in history {
            match &operation.call {
                Call::Write { command: Command::Put(put), .. } => keys.push(&put.key),
                Call::Write { command: Command::Txn(txn), .. } => {
                    txn.visit(&mut |txn| {
                        keys.extend(txn.success.iter().chain(&txn.failure).filter_map(|part| match part {
                            Part::Put(put) => Some(&put.key),
                            Part::DeleteRange(_) | Part::Range(_) | Part::Txn(_) => None,
                        }));
                    });
                }
                Call::Write {
                    command:
                        Command::DeleteRange(_) | Command::Compact(_) | Command::Lease(_) | Command::SpaceAlarm(_),
                    ..
                }
                | Call::Read { .. } => {}
            }
        }
        keys.sort_unstable();
        keys.dedup();
        Self(keys)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The positions of the keys in a range.
    pub(super) fn positions(&self, range: &KeyRange) -> Positions<usize> {
        match range {
            KeyRange::Key(key) => self.position(key),
            KeyRange::Span { start, end } => {
                let first = self.below(start);
                first..self.below(end).max(first)
            }
            KeyRange::From(start) => self.below(start)..self.0.len(),
        }
    }

    /// The position of one key; empty if it is never put.
    pub(super) fn position(&self, key: &Bytes) -> Positions<usize> {
        let at = self.below(key);
        at..at + usize::from(self.0.get(at) == Some(&key))
    }

    fn below(&self, bound: &Bytes) -> usize {
        self.0.partition_point(|key| *key < bound)
    }
}

/// What a key holds.
#[derive(Clone, Copy, Debug)]
enum Held<'h> {
    /// Nobody knows: it is as the part of the history left it that was cut off.
    Anything,
    Nothing,
    Pair(Pair<'h>),
}

#[derive(Clone, Copy, Debug)]
struct Pair<'h> {
    value: &'h Bytes,
    lease: LeaseId,
    /// Unknown if it hangs on what was cut off.
    version: Option<u64>,
    created: Name,
    changed: Name,
    /// Which write it was, and which way it went.
    token: u64,
}

/// What a write is called.
#[derive(Clone, Copy, Debug)]
struct Name {
    revision: Revision,
    /// Whether its client was told so; otherwise this is a guess, which contradicts nothing.
    is_certain: bool,
}

const NAMELESS: Name = Name { revision: Revision(0), is_certain: false };

/// Whether something holds. Of several things together, what the least of them does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holds {
    No,
    LikelyNot,
    Likely,
    Yes,
}

/// An operation that is to be taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taking<'h> {
    /// What was asked.
    pub(super) call: &'h Call,
    /// What was answered, if that counts.
    pub(super) told: Option<&'h Applied>,
    /// Tells this write from all others.
    pub(super) number: u64,
    /// What a write without an answer is likely to be called.
    pub(super) likely: Revision,
    /// Whether a transaction, if neither its answer nor the keys tell, went the less likely way.
    pub(super) is_second_guess: bool,
}

/// All keys at one point of an order.
#[derive(Debug)]
pub(super) struct Present<'k, 'h> {
    keys: &'k Keys<'h>,
    held: Vec<Held<'h>>,
    /// What was held before, change by change.
    changes: Vec<(usize, Held<'h>)>,
    hash: u128,
}

impl<'k, 'h> Present<'k, 'h> {
    /// A store that nobody has written to yet.
    pub(super) fn empty(keys: &'k Keys<'h>) -> Self {
        Self { keys, held: vec![Held::Nothing; keys.count()], changes: Vec::new(), hash: 0 }
    }

    /// A store of which nothing is known.
    pub(super) fn unknown(keys: &'k Keys<'h>) -> Self {
        let mut present = Self::empty(keys);
        for at in 0..keys.count() {
            present.hold(at, Held::Anything);
        }
        present.changes.clear();
        present
    }

    /// Equal for equal presents, and different for different ones with all the certainty of 128 bits.
    pub(super) const fn hash(&self) -> u128 {
        self.hash
    }

    /// A point to go back to. Two are equal if nothing changed between them.
    pub(super) fn mark(&self) -> usize {
        self.changes.len()
    }

    /// Goes back.
    pub(super) fn undo_to(&mut self, mark: usize) {
        while self.changes.len() > mark {
            if let Some((at, before)) = self.changes.pop() {
                self.hash ^= hash_of(at, &self.held[at]) ^ hash_of(at, &before);
                self.held[at] = before;
            }
        }
    }

    /// Takes an operation; whether its answer is explained. If it is not, what it changed must be undone.
    pub(super) fn take(&mut self, taking: Taking<'h>) -> bool {
        let outcome = taking.told.map(|applied| &applied.outcome);
        match (taking.call, outcome) {
            (Call::Write { command: Command::Put(put), .. }, None) => self.put(taking, put, None),
            (Call::Write { command: Command::Put(put), .. }, Some(Outcome::Put(told))) => {
                self.put(taking, put, Some(told))
            }
            (Call::Write { command: Command::DeleteRange(delete), .. }, None) => self.delete(delete, None),
            (Call::Write { command: Command::DeleteRange(delete), .. }, Some(Outcome::DeleteRange(told))) => {
                self.delete(delete, Some(told))
            }
            (
                Call::Write { command: Command::Txn(txn), .. } | Call::Read { query: Query::Txn(txn), .. },
                None,
            ) => self.transact(taking, txn, None),
            (
                Call::Write { command: Command::Txn(txn), .. } | Call::Read { query: Query::Txn(txn), .. },
                Some(Outcome::Txn(told)),
            ) => self.transact(taking, txn, Some(told)),
            (Call::Read { query: Query::Range(range), .. }, Some(Outcome::Range(told))) => {
                self.explains(range, told)
            }
            // What the past can be asked for is not judged here, and neither are leases.
            (
                Call::Write {
                    command: Command::Compact(_) | Command::Lease(_) | Command::SpaceAlarm(_), ..
                }
                | Call::Read { query: Query::Leases, .. },
                _,
            )
            | (Call::Read { query: Query::Range(_), .. }, None) => true,
            // An answer to something else than what was asked.
            (Call::Write { .. } | Call::Read { .. }, Some(_)) => false,
        }
    }

    fn put(&mut self, taking: Taking<'h>, put: &'h Put, told: Option<&PutResult>) -> bool {
        let at = self.keys.position(&put.key).start;
        let before = self.held[at];
        let name = Name {
            revision: taking.told.map_or(taking.likely, |applied| applied.revision),
            is_certain: taking.told.is_some(),
        };
        let (version, created) = match before {
            Held::Anything => (None, NAMELESS),
            Held::Nothing => (Some(1), name),
            Held::Pair(pair) => (pair.version.map(|version| version + 1), pair.created),
        };
        let token = 2 * taking.number + u64::from(taking.is_second_guess);
        let pair = Pair { value: &put.value, lease: put.lease, version, created, changed: name, token };
        self.hold(at, before.overwritten(put, pair));
        told.is_none_or(|told| match &told.previous {
            Some(previous) => put.wants_previous && before.is_told(Some(previous), false),
            None => !put.wants_previous || before.is_told(None, false),
        })
    }

    fn delete(&mut self, delete: &DeleteRange, told: Option<&DeleteRangeResult>) -> bool {
        let positions = self.keys.positions(&delete.range);
        let is_explained = told.is_none_or(|told| {
            let is_listed = if delete.wants_previous {
                told.previous.len() as u64 == told.deleted
                    && self.lists(positions.clone(), &told.previous, false, false)
            } else {
                told.previous.is_empty()
            };
            is_listed && self.may_count(positions.clone(), told.deleted)
        });
        for at in positions {
            if !matches!(self.held[at], Held::Nothing) {
                self.hold(at, Held::Nothing);
            }
        }
        is_explained
    }

    fn transact(&mut self, taking: Taking<'h>, txn: &'h Txn, told: Option<&TxnResult>) -> bool {
        let holds = txn.compares.iter().map(|compare| self.holds(compare)).min().unwrap_or(Holds::Yes);
        let succeeded = match (told, holds) {
            (Some(told), Holds::Yes) if !told.succeeded => return false,
            (Some(told), Holds::No) if told.succeeded => return false,
            (Some(told), _) => told.succeeded,
            // Where there is nothing to guess, the first guess is enough.
            (None, Holds::Yes | Holds::No) if taking.is_second_guess => return false,
            (None, holds) => (holds >= Holds::Likely) != taking.is_second_guess,
        };
        let parts = if succeeded { &txn.success } else { &txn.failure };
        let results = told.map(|told| told.results.as_slice());
        if results.is_some_and(|results| results.len() != parts.len()) {
            return false;
        }
        // All are run, whatever is found on the way, so that what was changed can be undone.
        let mut is_explained = true;
        for (at, part) in parts.iter().enumerate() {
            let result = results.and_then(|results| results.get(at));
            is_explained &= match (part, result) {
                (Part::Put(put), None) => self.put(taking, put, None),
                (Part::Put(put), Some(OperationResult::Put(told))) => self.put(taking, put, Some(told)),
                (Part::DeleteRange(delete), None) => self.delete(delete, None),
                (Part::DeleteRange(delete), Some(OperationResult::DeleteRange(told))) => {
                    self.delete(delete, Some(told))
                }
                (Part::Range(_), None) => true,
                (Part::Txn(nested), None | Some(OperationResult::Txn(_))) => {
                    self.lose_track_of(nested);
                    true
                }
                (Part::Range(range), Some(OperationResult::Range(told))) => self.explains(range, told),
                (Part::Put(_) | Part::DeleteRange(_) | Part::Range(_) | Part::Txn(_), Some(_)) => false,
            };
        }
        is_explained
    }

    /// What a nested transaction may have written is not known.
    fn lose_track_of(&mut self, nested: &Txn) {
        nested.visit(&mut |txn| {
            for part in txn.success.iter().chain(&txn.failure) {
                let written = match part {
                    Part::Put(put) => self.keys.position(&put.key),
                    Part::DeleteRange(delete) => self.keys.positions(&delete.range),
                    Part::Range(_) | Part::Txn(_) => continue,
                };
                for at in written {
                    self.hold(at, Held::Anything);
                }
            }
        });
    }

    fn hold(&mut self, at: usize, next: Held<'h>) {
        let before = core::mem::replace(&mut self.held[at], next);
        self.hash ^= hash_of(at, &before) ^ hash_of(at, &next);
        self.changes.push((at, before));
    }

    /// Whether a read may have been told this. Reads of the past are not judged here: without an order of revisions
    /// there is no past.
    fn explains(&self, range: &Range, told: &RangeResult) -> bool {
        if range.revision.0 > 0 {
            return true;
        }
        let positions = self.keys.positions(&range.range);
        if !self.may_count(positions.clone(), told.count) {
            return false;
        }
        if range.count_only {
            return told.pairs.is_empty() && !told.more;
        }
        if range.sort.is_some() || range.filter != Filter::default() {
            return true;
        }
        let limit = if range.limit == 0 { u64::MAX } else { range.limit };
        told.more == (told.count > limit)
            && told.pairs.len() as u64 == told.count.min(limit)
            && self.lists(positions, &told.pairs, range.keys_only, told.more)
    }

    fn may_count(&self, positions: Positions<usize>, count: u64) -> bool {
        let held = &self.held[positions];
        let least = held.iter().filter(|held| matches!(held, Held::Pair(_))).count();
        let most = held.iter().filter(|held| !matches!(held, Held::Nothing)).count();
        (least as u64..=most as u64).contains(&count)
    }

    /// Whether these pairs, and no others unless they were cut off, are what the keys hold.
    fn lists(&self, positions: Positions<usize>, told: &[KeyValue], keys_only: bool, is_cut: bool) -> bool {
        let mut told = told.iter().peekable();
        for at in positions {
            if told.peek().is_none() && is_cut {
                return true;
            }
            let pair = told.next_if(|pair| pair.key == *self.keys.0[at]);
            if !self.held[at].is_told(pair, keys_only) {
                return false;
            }
        }
        told.next().is_none()
    }

    /// The rules are etcd's: every key of the range must satisfy the compare, and where there is none, one that was
    /// never written stands in.
    fn holds(&self, compare: &Compare) -> Holds {
        let held = &self.held[self.keys.positions(&compare.range)];
        if held.iter().all(|held| matches!(held, Held::Nothing)) {
            return match &compare.target {
                CompareTarget::Value(_) => Holds::No,
                CompareTarget::Version(given) => satisfies(&0, given, compare.operator),
                CompareTarget::Create(given) | CompareTarget::Mod(given) => {
                    satisfies(&Revision(0), given, compare.operator)
                }
                CompareTarget::Lease(given) => satisfies(&LeaseId(0), given, compare.operator),
            };
        }
        let each = held.iter().map(|held| match held {
            Held::Anything => Holds::Likely,
            Held::Nothing => Holds::Yes,
            Held::Pair(pair) => pair.satisfies(compare),
        });
        each.min().unwrap_or(Holds::Yes)
    }
}

impl<'h> Held<'h> {
    /// As a put leaves it, which would write `pair` if it kept nothing.
    fn overwritten(self, put: &Put, pair: Pair<'h>) -> Self {
        match self {
            Self::Pair(before) => Self::Pair(Pair {
                value: if put.keeps_value { before.value } else { pair.value },
                lease: if put.keeps_lease { before.lease } else { pair.lease },
                ..pair
            }),
            Self::Anything if put.keeps_value || put.keeps_lease => Self::Anything,
            Self::Anything | Self::Nothing => Self::Pair(pair),
        }
    }

    fn is_told(&self, told: Option<&KeyValue>, keys_only: bool) -> bool {
        match (self, told) {
            (Self::Anything, _) | (Self::Nothing, None) => true,
            (Self::Nothing, Some(_)) | (Self::Pair(_), None) => false,
            (Self::Pair(pair), Some(told)) => {
                let value_told: &[u8] = if keys_only { &[] } else { pair.value };
                told.value == value_told
                    && told.lease == pair.lease
                    && pair.version.is_none_or(|version| told.version == version)
                    && pair.created.may_be(told.create_revision)
                    && pair.changed.may_be(told.mod_revision)
            }
        }
    }
}

impl Pair<'_> {
    fn satisfies(&self, compare: &Compare) -> Holds {
        match &compare.target {
            CompareTarget::Version(given) => {
                self.version.map_or(Holds::Likely, |version| satisfies(&version, given, compare.operator))
            }
            CompareTarget::Create(given) => self.created.satisfies(*given, compare.operator),
            CompareTarget::Mod(given) => self.changed.satisfies(*given, compare.operator),
            CompareTarget::Value(given) => satisfies(self.value, given, compare.operator),
            CompareTarget::Lease(given) => satisfies(&self.lease, given, compare.operator),
        }
    }
}

impl Name {
    fn may_be(self, revision: Revision) -> bool {
        !self.is_certain || self.revision == revision
    }

    fn satisfies(self, given: Revision, operator: CompareOperator) -> Holds {
        // A pair that is there was made by some write, and writes begin with revision 2.
        let stored = self.revision.max(Revision(2));
        match satisfies(&stored, &given, operator) {
            Holds::Yes if !self.is_certain && given.0 >= 2 => Holds::Likely,
            Holds::No if !self.is_certain && given.0 >= 2 => Holds::LikelyNot,
            holds => holds,
        }
    }
}

fn satisfies<T: Ord>(stored: &T, given: &T, operator: CompareOperator) -> Holds {
    let ordering = stored.cmp(given);
    let holds = match operator {
        CompareOperator::Equal => ordering == Ordering::Equal,
        CompareOperator::NotEqual => ordering != Ordering::Equal,
        CompareOperator::Greater => ordering == Ordering::Greater,
        CompareOperator::Less => ordering == Ordering::Less,
    };
    if holds { Holds::Yes } else { Holds::No }
}

fn hash_of(at: usize, held: &Held<'_>) -> u128 {
    match held {
        Held::Nothing => 0,
        Held::Anything => mixed([at as u64, 1, 0, 0]),
        Held::Pair(pair) => {
            let version = pair.version.map_or(0, |version| version + 1);
            let created = if pair.created.is_certain { pair.created.revision.0 } else { 0 };
            mixed([at as u64 + (2 << 32), pair.token, version, created])
        }
    }
}

/// Spreads words over 128 bits (the finaliser of `SplitMix64`, twice).
pub(super) fn mixed(words: [u64; 4]) -> u128 {
    let half = |seed: u64| {
        words.iter().fold(seed, |hash, word| {
            let mut z = (hash ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        })
    };
    u128::from(half(0x6a09_e667_f3bc_c908)) << 64 | u128::from(half(0xbb67_ae85_84ca_a73b))
}
