//! The log as numbers: what precedes it, the contiguous entries, and the islands above holes.
//!
//! ```text
//!  base | 5 6 7 8 |  hole  | 12 13 14 |  hole  | 19 20
//!         entries            island 0            island 1
//! ```
//!
//! Terms never decrease along the log, holes included. Consistency checks and acknowledgements use the contiguous
//! part only; votes use the end of the last island, since later frames prove that this member once held a log up
//! to there (DESIGN §8). When the entry that an island names as its predecessor is in place, the island joins.
//! What of this is durable is kept elsewhere (`durability`).

use super::interface::Island;
use super::message::{Entry, Position};
use crate::deque::ChunkedDeque;
use crate::ids::{LogIndex, Term};
use crate::limits::{APPEND_BYTES_MAX, APPEND_ENTRIES_MAX};
use crate::{planted, sometimes};

/// One member's log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Log {
    base: Position,
    entries: ChunkedDeque<Entry>,
    islands: Vec<Island>,
}

/// What accepting entries did to the log, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The contiguous entries at and above this index gave way.
    Cut {
        from: LogIndex,
        /// Whether islands above stay.
        is_below_island: bool,
    },
    /// The last island, which named the end of the log, was contradicted by the entry at this index, and left.
    EndDropped {
        at: LogIndex,
        /// Whether lower islands stay.
        is_below_island: bool,
    },
    /// These entries are new.
    Added { first: LogIndex, last: LogIndex },
}

impl Log {
    /// The log that recovery found. Of two things that claim one index, the later one in the list is right.
    pub(super) fn recovered(base: Position, entries: Vec<Entry>, islands: Vec<Island>) -> Self {
        let mut log = Self { base, entries: entries.into_iter().collect(), islands: Vec::new() };
        for island in islands {
            log.recover_island(island);
        }
        log.join_islands();
        log.assert_every_invariant();
        log
    }

    fn recover_island(&mut self, island: Island) {
        let below = island.predecessor;
        assert!(below.index >= self.base.index, "an island lies above the start of the log");
        self.islands.retain(|other| other.predecessor.index < below.index);
        // Their indices ascend, so what is below comes first.
        let kept = self.entries.iter().take_while(|entry| is_below(**entry, below)).count();
        self.entries.truncate(kept);
        if let Some(other) = self.islands.last_mut() {
            other.entries.retain(|entry| is_below(*entry, below));
            if other.end() == below {
                other.entries.extend(island.entries);
                return;
            }
        }
        self.islands.push(island);
    }

    /// Forgets the entries at and below `upto`, which is held; its term is kept.
    pub(super) fn trim(&mut self, upto: LogIndex) {
        if let Some(base) = self.position_at(upto) {
            self.entries.drop_front(self.count_upto(upto));
            self.base = base;
        }
        self.assert_invariants();
    }

    /// Starts the log anew just above `base`, which is committed and which the contiguous part does not hold: that part
    /// is shorter, or of another log (catalogue 11). Of the islands those stay that can be of the same log, and what an
    /// island that holds `base` has above it is contiguous from now on (catalogue 24).
    pub(super) fn rebase(&mut self, base: Position) {
        assert!(base.index > self.base.index, "a log starts anew only further up");
        if planted!(11) {
            self.entries.drop_front(self.count_upto(base.index));
        } else {
            self.entries.truncate(0);
        }
        self.base = base;
        let islands = core::mem::take(&mut self.islands);
        for island in islands.into_iter().filter(|_| !planted!(24)) {
            if island.holds(base) {
                let above = island.entries.into_iter().filter(|entry| entry.index > base.index);
                self.entries = above.collect();
            } else if island.predecessor == base
                || (island.predecessor.index > base.index && island.predecessor.term >= base.term)
            {
                self.islands.push(island);
            }
        }
        self.join_islands();
        self.assert_every_invariant();
    }

    /// Whether anything is known to lie above the base.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.islands.is_empty()
    }

    /// The position just before the first entry.
    pub(super) const fn base(&self) -> Position {
        self.base
    }

    /// The end of the contiguous part.
    pub(super) fn last(&self) -> Position {
        self.entries.back().map_or(self.base, Entry::position)
    }

    /// The end that counts in elections (Raft §5.4.1).
    pub(super) fn vote_position(&self) -> Position {
        self.islands.last().map_or_else(|| self.last(), Island::end)
    }

    /// The highest term of any entry. Of islands, an upper one may be of a lower term than one that it replaced.
    pub(super) fn newest_term(&self) -> Term {
        let ends = self.islands.iter().map(|island| island.end().term);
        ends.fold(self.last().term, Term::max)
    }

    /// Whether anything is missing.
    pub(super) const fn has_hole(&self) -> bool {
        !self.islands.is_empty()
    }

    /// The last missing entry of each hole, lowest first.
    pub(super) fn hole_ends(&self) -> impl ExactSizeIterator<Item = Position> {
        self.islands.iter().map(|island| island.predecessor)
    }

    /// The term of the entry at `index`, if the contiguous part (or its base) holds it.
    pub(super) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// The position at `index`, if the contiguous part or its base holds it.
    pub(super) fn position_at(&self, index: LogIndex) -> Option<Position> {
        self.term_at(index).map(|term| Position { index, term })
    }

    /// Whether the log up to `position` equals any log that holds it (log matching).
    pub(super) fn holds(&self, position: Position) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    /// Whether this entry is in the contiguous log or in an island.
    #[cfg(test)]
    pub(super) fn has_somewhere(&self, position: Position) -> bool {
        self.holds(position) || self.islands.iter().any(|island| island.holds(position))
    }

    fn entry(&self, index: LogIndex) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.base.index.0)?.checked_sub(1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// How many entries lie at or below `index`.
    fn count_upto(&self, index: LogIndex) -> usize {
        let count = index.0.saturating_sub(self.base.index.0);
        usize::try_from(count).map_or(self.entries.len(), |count| count.min(self.entries.len()))
    }

    /// The highest position at or below `index` whose term is at most `term`; the base if there is none.
    ///
    /// Two logs that disagree at an index can still agree only at such a position, so whole terms are stepped over
    /// at once (Raft §5.3, the optimisation at its end).
    pub(super) fn last_upto(&self, index: LogIndex, term: Term) -> Position {
        let count = self.entries.partition_point(|entry| entry.term <= term).min(self.count_upto(index));
        let last = count.checked_sub(1).and_then(|at| self.entries.get(at));
        last.map_or(self.base, Entry::position)
    }

    /// Appends one entry of this member's own making.
    pub(super) fn append(&mut self, entry: Entry) {
        assert!(!self.has_hole(), "a member with a hole makes no entries");
        self.entries.push_back(entry);
        self.assert_invariants();
    }

    /// The first of `entries` that contradicts what the contiguous part holds.
    pub(super) fn first_conflict(&self, entries: &[Entry]) -> Option<LogIndex> {
        let conflicts = |entry: &&Entry| self.term_at(entry.index).is_some_and(|term| term != entry.term);
        entries.iter().find(conflicts).map(|entry| entry.index)
    }

    /// Takes consecutive entries that follow on a position held here; those held already change nothing
    /// (catalogue 23), the first that contradicts cuts the log there.
    pub(super) fn accept(&mut self, entries: &[Entry], changes: &mut Vec<Change>) {
        for entry in entries {
            if entry.index <= self.last().index {
                if self.holds(entry.position()) && !planted!(23) {
                    continue;
                }
                sometimes!(UncommittedEntriesOverwritten);
                self.cut(entry.index);
                changes.push(Change::Cut { from: entry.index, is_below_island: self.has_hole() });
            }
            let named = self.islands.last().map(Island::end);
            self.drop_contradicted(*entry);
            if self.islands.last().map(Island::end) != named {
                sometimes!(IslandContradicted);
                changes.push(Change::EndDropped { at: entry.index, is_below_island: self.has_hole() });
            }
            self.entries.push_back(*entry);
            add(changes, entry.index);
            self.join_islands();
        }
        self.assert_invariants();
    }

    fn cut(&mut self, from: LogIndex) {
        let count = self.count_upto(from.previous());
        self.entries.truncate(count);
    }

    /// Drops the islands that cannot be of a log which holds `entry` below them: it differs from the entry they
    /// name, or its term is higher although it comes before.
    ///
    /// Each is judged by itself. An island may be of a log that a damaged frame above it had replaced; that it is
    /// contradicted says nothing against a higher one, which may hold entries this member has acknowledged.
    fn drop_contradicted(&mut self, entry: Entry) {
        self.islands.retain(|island| {
            let below = island.predecessor;
            entry.term <= below.term && (entry.index < below.index || entry.position() == below)
        });
    }

    fn join_islands(&mut self) {
        while self.islands.first().is_some_and(|island| island.predecessor == self.last()) {
            let island = self.islands.remove(0);
            self.entries.extend(island.entries);
        }
    }

    /// The entries from `first` to at most `last`, as many as one message may carry; never none if one is there.
    pub(super) fn slice(&self, first: LogIndex, last: LogIndex) -> Vec<Entry> {
        message_full(self.range(first, last))
    }

    /// The entries of `first..=last`, which must be held.
    pub(super) fn range(&self, first: LogIndex, last: LogIndex) -> impl Iterator<Item = &Entry> {
        self.entries.range(self.count_upto(first.previous())..self.count_upto(last))
    }

    /// Entries for a peer whose log ends at `previous` and misses what follows up to `last`, and the position they
    /// follow on; `None` unless `last` is held here, the proof that this log is the one the peer once had.
    pub(super) fn supply(&self, previous: Position, last: Position) -> Option<(Position, Vec<Entry>)> {
        if self.holds(last) && previous.index >= self.base.index {
            let start =
                if self.holds(previous) { previous } else { self.last_upto(previous.index, previous.term) };
            return (start.index < last.index).then(|| (start, self.slice(start.index.next(), last.index)));
        }
        let island = self.islands.iter().find(|island| island.holds(last))?;
        if previous != island.predecessor && !island.holds(previous) {
            return None;
        }
        let is_wanted = |entry: &&Entry| previous.index < entry.index && entry.index <= last.index;
        Some((previous, message_full(island.entries.iter().filter(is_wanted))))
    }

    fn assert_invariants(&self) {
        let count = self.entries.len();
        let below = count.checked_sub(2).and_then(|at| self.entries.get(at));
        let below = below.map_or(self.base, Entry::position);
        if let Some(last) = self.entries.back() {
            assert!(last.index == below.index.next(), "entries are consecutive");
            assert!(last.term >= below.term, "terms never decrease along the log");
        }
        if let Some(island) = self.islands.first() {
            assert!(island.predecessor.index > self.last().index, "an island lies above a hole");
        }
    }

    /// Every pair of neighbours; for recovery and tests, since it walks the whole log.
    pub(super) fn assert_every_invariant(&self) {
        self.assert_invariants();
        let mut below = self.base;
        for entry in self.entries.iter() {
            assert!(entry.index == below.index.next(), "entries are consecutive");
            assert!(entry.term >= below.term, "terms never decrease along the log");
            below = entry.position();
        }
        for island in &self.islands {
            assert!(island.predecessor.index > below.index, "an island lies above a hole");
            below = island.predecessor;
            for entry in &island.entries {
                assert!(entry.index == below.index.next(), "an island's entries are consecutive");
                assert!(entry.term >= below.term, "terms never decrease within an island");
                below = entry.position();
            }
        }
    }
}

impl Island {
    fn end(&self) -> Position {
        self.entries.last().map_or(self.predecessor, Entry::position)
    }

    fn holds(&self, position: Position) -> bool {
        self.entries.iter().any(|entry| entry.position() == position)
    }
}

/// Whether `entry` may stand in a log that continues after `below`.
fn is_below(entry: Entry, below: Position) -> bool {
    entry.index < below.index || entry.position() == below
}

/// As many of these entries as one message may carry.
fn message_full<'log>(entries: impl Iterator<Item = &'log Entry>) -> Vec<Entry> {
    let mut bytes_count = 0;
    let fits = |(at, entry): &(usize, &Entry)| {
        bytes_count += entry.bytes_count as usize;
        *at == 0 || bytes_count <= APPEND_BYTES_MAX
    };
    let some = entries.take(APPEND_ENTRIES_MAX).enumerate().take_while(fits);
    some.map(|(_, entry)| *entry).collect()
}

fn add(changes: &mut Vec<Change>, index: LogIndex) {
    if let Some(Change::Added { last, .. }) = changes.last_mut()
        && last.next() == index
    {
        *last = index;
        return;
    }
    changes.push(Change::Added { first: index, last: index });
}

#[cfg(test)]
mod tests {
    use super::super::testing::{entries, position};
    use super::*;

    fn log(terms: &[u64]) -> Log {
        Log::recovered(Position::START, entries(1, terms), Vec::new())
    }

    fn accepted(log: &mut Log, new: &[Entry]) -> Vec<Change> {
        let mut changes = Vec::new();
        log.accept(new, &mut changes);
        log.assert_every_invariant();
        changes
    }

    fn added(first: u64, last: u64) -> Change {
        Change::Added { first: LogIndex(first), last: LogIndex(last) }
    }

    #[test]
    fn a_late_append_cuts_nothing_that_matches() {
        let mut log = log(&[1, 1, 2, 2]);
        assert_eq!(accepted(&mut log, &entries(2, &[1, 2])), []);
        assert_eq!(log.last(), position(4, 2));
    }

    #[test]
    fn the_first_conflict_cuts_and_the_rest_is_added() {
        let mut log = log(&[1, 1, 2, 2]);
        let changes = accepted(&mut log, &entries(2, &[1, 3, 3, 3]));
        let cut = Change::Cut { from: LogIndex(3), is_below_island: false };
        assert_eq!(changes, [cut, added(3, 5)]);
    }

    #[test]
    fn stepping_back_passes_whole_terms() {
        let log = log(&[1, 1, 4, 4, 4, 6]);
        assert_eq!(log.last_upto(LogIndex(6), Term(5)), position(5, 4));
        assert_eq!(log.last_upto(LogIndex(4), Term(4)), position(4, 4));
        assert_eq!(log.last_upto(LogIndex(9), Term(3)), position(2, 1));
        assert_eq!(log.last_upto(LogIndex(9), Term(0)), Position::START);
    }

    #[test]
    fn an_island_joins_when_its_predecessor_is_in_place() {
        let island = Island { predecessor: position(4, 2), entries: entries(5, &[2, 3]) };
        let mut log = Log::recovered(Position::START, entries(1, &[1, 1]), vec![island]);
        assert_eq!(log.vote_position(), position(6, 3));
        assert_eq!(accepted(&mut log, &entries(3, &[1])), [added(3, 3)]);
        assert!(log.has_hole());
        assert_eq!(accepted(&mut log, &entries(4, &[2])), [added(4, 4)]);
        assert_eq!(log.last(), position(6, 3));
        assert!(!log.has_hole());
    }

    #[test]
    fn an_island_is_dropped_by_what_contradicts_it_and_by_nothing_else() {
        let lower = Island { predecessor: position(4, 1), entries: entries(5, &[1]) };
        let upper = Island { predecessor: position(7, 2), entries: entries(8, &[2]) };
        let mut log = Log::recovered(Position::START, entries(1, &[1, 1]), vec![lower, upper]);
        // Term 2 below an entry of term 1: the lower island is of a replaced log. The upper one stands.
        assert_eq!(accepted(&mut log, &entries(3, &[2, 2])), [added(3, 4)]);
        assert_eq!(log.hole_ends().collect::<Vec<_>>(), [position(7, 2)]);
        assert_eq!(log.vote_position(), position(8, 2));
        let dropped = Change::EndDropped { at: LogIndex(5), is_below_island: false };
        assert_eq!(accepted(&mut log, &entries(5, &[3])), [dropped, added(5, 5)]);
        assert_eq!(log.vote_position(), position(5, 3));
    }

    #[test]
    fn an_island_that_overlaps_the_log_is_the_later_truth() {
        let island = Island { predecessor: position(3, 2), entries: entries(4, &[2]) };
        let log = Log::recovered(Position::START, entries(1, &[1, 1, 1, 1]), vec![island]);
        assert_eq!(log.last(), position(2, 1));
        assert_eq!(log.vote_position(), position(4, 2));
        let island = Island { predecessor: position(3, 1), entries: entries(4, &[2]) };
        let log = Log::recovered(Position::START, entries(1, &[1, 1, 1, 1]), vec![island]);
        assert_eq!(log.last(), position(4, 2), "no entry was missing after all");
    }

    #[test]
    fn a_hole_is_supplied_only_by_a_log_that_holds_its_end() {
        let log = log(&[1, 1, 2, 2]);
        assert_eq!(log.supply(position(1, 1), position(3, 1)), None);
        assert_eq!(log.supply(position(1, 1), position(5, 2)), None);
        assert_eq!(log.supply(position(1, 1), position(3, 2)), Some((position(1, 1), entries(2, &[1, 2]))));
    }

    #[test]
    fn a_supplier_that_disagrees_steps_down() {
        let log = log(&[1, 1, 3, 3]);
        assert_eq!(log.supply(position(3, 2), position(4, 3)), Some((position(2, 1), entries(3, &[3, 3]))));
    }

    #[test]
    fn an_island_can_supply_too() {
        let island = Island { predecessor: position(4, 2), entries: entries(5, &[2, 3, 3]) };
        let log = Log::recovered(Position::START, entries(1, &[1]), vec![island]);
        assert_eq!(log.supply(position(4, 2), position(6, 3)), Some((position(4, 2), entries(5, &[2, 3]))));
        assert_eq!(log.supply(position(5, 2), position(6, 3)), Some((position(5, 2), entries(6, &[3]))));
        assert_eq!(log.supply(position(3, 2), position(6, 3)), None);
    }

    #[test]
    fn a_message_is_bounded_but_never_empty() {
        let mut log = log(&[]);
        let large = u32::try_from(APPEND_BYTES_MAX).unwrap();
        for (index, bytes_count) in [(1, large + 1), (2, 1), (3, large), (4, 1)] {
            log.append(Entry { index: LogIndex(index), term: Term(1), bytes_count });
        }
        assert_eq!(log.slice(LogIndex(1), LogIndex(4)).len(), 1);
        assert_eq!(log.slice(LogIndex(2), LogIndex(4)).len(), 1);
        assert_eq!(log.slice(LogIndex(4), LogIndex(4)).len(), 1);
        assert_eq!(log.slice(LogIndex(5), LogIndex(4)).len(), 0);
    }
}
