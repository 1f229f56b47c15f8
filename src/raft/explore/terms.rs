//! A short log as one word: the terms of its entries, four bits each, lowest index first.
//!
//! Two logs are compared by a few instructions, which is what makes it affordable to look at every log in every state.

use crate::ids::{LogIndex, Term};
use crate::raft::{Entry, Position};

/// Entries that a word holds.
pub(super) const ENTRIES_MAX: u64 = 8;

/// The largest term that four bits hold.
pub(super) const TERM_MAX: u64 = 15;

/// The terms of a log's entries from index 1 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Terms(u32);

impl Terms {
    pub(super) fn of<'log>(entries: impl IntoIterator<Item = &'log Entry>) -> Self {
        let mut terms = Self::default();
        for (index, entry) in (1..).zip(entries) {
            assert!(entry.index.0 == index, "a log here is whole");
            terms = terms.with(index, entry.term.0);
        }
        terms
    }

    /// The same with this term at this index.
    pub(super) fn with(self, index: u64, term: u64) -> Self {
        assert!(index <= ENTRIES_MAX && term <= TERM_MAX, "a small log of small terms");
        let shift = 4 * (index - 1);
        let term = u32::try_from(term).expect("four bits");
        Self(self.0 & !(15 << shift) | term << shift)
    }

    /// The term at this index; 0 if the log ends below it.
    pub(super) const fn at(self, index: u64) -> u64 {
        if index == 0 || index > ENTRIES_MAX { 0 } else { (self.0 >> (4 * (index - 1)) & 15) as u64 }
    }

    /// The index of the last entry.
    pub(super) const fn last_index(self) -> u64 {
        (32 - self.0.leading_zeros() as u64).div_ceil(4)
    }

    pub(super) const fn last(self) -> Position {
        let index = self.last_index();
        Position { index: LogIndex(index), term: Term(self.at(index)) }
    }

    /// The entries up to this index.
    pub(super) const fn upto(self, index: u64) -> Self {
        if index >= ENTRIES_MAX { self } else { Self(self.0 & ((1 << (4 * index)) - 1)) }
    }

    /// Whether this is what `other` begins with.
    pub(super) fn is_prefix_of(self, other: Self) -> bool {
        other.upto(self.last_index()) == self
    }

    /// Log matching (Raft figure 3): where two logs hold the same entry, they are equal up to it.
    pub(super) fn match_where_they_meet(self, other: Self) -> bool {
        let shared = self.last_index().min(other.last_index());
        let meeting = (1..=shared).rev().find(|index| self.at(*index) == other.at(*index));
        meeting.is_none_or(|index| self.upto(index) == other.upto(index))
    }

    /// Whether this log may get the vote of one who holds `other` (Raft §5.4.1). Written out here once more: the core
    /// is judged, and not asked.
    pub(super) fn may_succeed(self, other: Self) -> bool {
        let (own, others) = (self.last(), other.last());
        own.term > others.term || (own.term == others.term && own.index >= others.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(list: &[u64]) -> Terms {
        (1..).zip(list).fold(Terms::default(), |terms, (index, term)| terms.with(index, *term))
    }

    #[test]
    fn a_log_is_what_was_put_in() {
        let log = terms(&[1, 1, 3]);
        assert_eq!((log.last_index(), log.at(3), log.at(4), log.at(0)), (3, 3, 0, 0));
        assert_eq!(log.last(), Position { index: LogIndex(3), term: Term(3) });
        assert_eq!(log.upto(2), terms(&[1, 1]));
        assert_eq!(terms(&[]).last(), Position::START);
        assert_eq!(terms(&[1; 8]).last_index(), 8);
        assert!(terms(&[1, 1]).is_prefix_of(log) && !terms(&[1, 2]).is_prefix_of(log));
        assert!(!log.is_prefix_of(terms(&[1, 1])));
    }

    #[test]
    fn logs_match_unless_an_equal_entry_follows_on_unequal_ones() {
        assert!(terms(&[1, 2]).match_where_they_meet(terms(&[1, 3])));
        assert!(terms(&[1, 2]).match_where_they_meet(terms(&[3, 3])));
        assert!(!terms(&[1, 2]).match_where_they_meet(terms(&[2, 2])));
        assert!(!terms(&[1, 2, 4]).match_where_they_meet(terms(&[2, 2, 3])));
        assert!(terms(&[]).match_where_they_meet(terms(&[2])));
    }

    #[test]
    fn the_term_counts_before_the_length() {
        assert!(terms(&[2]).may_succeed(terms(&[1, 1, 1])));
        assert!(!terms(&[1, 1, 1]).may_succeed(terms(&[2])));
        assert!(terms(&[1]).may_succeed(terms(&[1])));
        assert!(!terms(&[]).may_succeed(terms(&[1])));
    }
}
