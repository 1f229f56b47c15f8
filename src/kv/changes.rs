//! What happened at each revision: which keys it changed, in order. The way from a revision to its changes.
//!
//! ```text
//!   begins (by revision)     2 -> 0    3 -> 1    4 -> 3          first = 2
//!   changed (by place)       | "a" | "b" "c" | "a"* |            * ends an older change
//! ```
//!
//! Revisions have no gaps, so a revision is a place in `begins`, and what it changed lies between its beginning and the
//! next one's: twelve bytes for a write of one key. What a key became is in its own history, and not here.
//!
//! What always holds: every change of the compacted revision and of all later ones is here, so that a watch can begin
//! at any of them. What of the changes before it is still here waits to be forgotten.

use super::history::Moment;
use super::keys::Slot;
use crate::deque::ChunkedDeque;
use crate::ids::Revision;

/// Changes by revision, oldest first.
#[derive(Clone, Debug)]
pub(super) struct Changes {
    /// The oldest revision that is here, or would be.
    first: Revision,
    /// For each revision, how many changes there ever were before it.
    begins: ChunkedDeque<u64>,
    changed: ChunkedDeque<Packed>,
    /// How many changes there ever were before the first one here.
    forgotten_count: u64,
    /// Of how many changes, from the first ever on, what they ended is forgotten.
    ended_count: u64,
    /// The revision of the last of those, or an earlier one.
    ended_revision: Revision,
}

/// One change: of which key, and whether it ended an older change of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) slot: Slot,
    pub(super) ends_older: bool,
}

/// A change in four bytes.
#[derive(Clone, Copy, Debug)]
struct Packed(u32);

/// Set in a packed change that ended an older one.
const ENDS_OLDER: u32 = 1 << 31;

impl Packed {
    fn new(change: Change) -> Self {
        assert!(change.slot.0 < ENDS_OLDER, "there are fewer keys than two thousand millions");
        Self(change.slot.0 | if change.ends_older { ENDS_OLDER } else { 0 })
    }

    const fn unpacked(self) -> Change {
        Change { slot: Slot(self.0 & !ENDS_OLDER), ends_older: self.0 & ENDS_OLDER != 0 }
    }
}

impl Default for Changes {
    fn default() -> Self {
        // A store is born at revision 1, and its first change makes 2.
        Self::beginning_at(Revision(2))
    }
}

impl Changes {
    /// No changes yet; the next one is at `first`.
    pub(super) const fn beginning_at(first: Revision) -> Self {
        Self {
            first,
            begins: ChunkedDeque::new(),
            changed: ChunkedDeque::new(),
            forgotten_count: 0,
            ended_count: 0,
            ended_revision: first,
        }
    }

    /// What the changes up to `upto` ended is forgotten already.
    pub(super) fn end_upto(&mut self, upto: Revision) {
        self.ended_count = self.begin_of(upto.next());
    }

    /// A further change: at the newest revision or at the one after it.
    pub(super) fn push(&mut self, revision: Revision, change: Change) {
        let next = self.first.0 + self.begins.len() as u64;
        assert!(revision.0 == next || revision.0 + 1 == next, "revisions are made one after the other");
        if revision.0 == next {
            self.begins.push_back(self.forgotten_count + self.changed.len() as u64);
        }
        self.changed.push_back(Packed::new(change));
    }

    /// Every change from `from` on, in order. What was forgotten is left out.
    pub(super) fn from(&self, from: Moment) -> impl Iterator<Item = (Moment, Slot)> + '_ {
        let start = from.max(Moment { revision: self.first, order: 0 });
        let mut revision = start.revision;
        let place = self.begin_of(revision).saturating_add(start.order);
        let mut place = place.clamp(self.forgotten_count, self.end());
        core::iter::from_fn(move || {
            let change = self.changed.get(self.offset_of(place))?.unpacked();
            while self.begin_of(revision.next()) <= place {
                revision = revision.next();
            }
            let order = place - self.begin_of(revision);
            place += 1;
            Some((Moment { revision, order }, change.slot))
        })
    }

    /// How many changes a revision made, if they are here.
    pub(super) fn count_of(&self, revision: Revision) -> u64 {
        self.begin_of(revision.next()) - self.begin_of(revision)
    }

    /// How many changes were made after a revision, of which all later changes are here.
    pub(super) fn count_after(&self, revision: Revision) -> u64 {
        self.end() - self.begin_of(revision.next())
    }

    /// The next change of a revision up to `upto`, oldest first, of which what it ended is to be forgotten now.
    pub(super) fn next_ended(&mut self, upto: Revision) -> Option<(Revision, Change)> {
        if !self.has_ended(upto) {
            return None;
        }
        let change = self.changed.get(self.offset_of(self.ended_count))?.unpacked();
        while self.begin_of(self.ended_revision.next()) <= self.ended_count {
            self.ended_revision = self.ended_revision.next();
        }
        self.ended_count += 1;
        Some((self.ended_revision, change))
    }

    /// Whether there is such a change.
    pub(super) fn has_ended(&self, upto: Revision) -> bool {
        self.ended_count < self.begin_of(upto.next())
    }

    /// Takes off the oldest change, if what it ended is forgotten and it is of a revision that `is_due`.
    pub(super) fn pop_if(&mut self, is_due: impl FnOnce(Revision) -> bool) -> Option<(Revision, Change)> {
        if self.ended_count == self.forgotten_count || !is_due(self.first) {
            return None;
        }
        let revision = self.first;
        let change = self.changed.pop_front()?.unpacked();
        self.forgotten_count += 1;
        if self.begin_of(revision.next()) <= self.forgotten_count {
            self.begins.pop_front();
            self.first = revision.next();
        }
        Some((revision, change))
    }

    /// Whether the oldest change is of a revision that `is_due`.
    pub(super) fn has(&self, is_due: impl FnOnce(Revision) -> bool) -> bool {
        !self.changed.is_empty() && is_due(self.first)
    }

    /// The changes that ended an older one which is not forgotten, oldest first.
    pub(super) fn ends(&self) -> impl Iterator<Item = (Revision, Slot)> + '_ {
        let moments = self.from(Moment { revision: self.first, order: 0 }).map(|(made, _)| made.revision);
        let changes = self.changed.iter().map(|change| change.unpacked());
        let ends = moments.zip(changes).skip(self.offset_of(self.ended_count));
        ends.filter(|(_, change)| change.ends_older).map(|(revision, change)| (revision, change.slot))
    }

    /// How many changes there were before a revision; of one that is not made yet, how many there are.
    fn begin_of(&self, revision: Revision) -> u64 {
        let at = usize::try_from(revision.0.saturating_sub(self.first.0)).unwrap_or(usize::MAX);
        self.begins.get(at).copied().unwrap_or(self.end())
    }

    /// How many changes there ever were.
    fn end(&self) -> u64 {
        self.forgotten_count + self.changed.len() as u64
    }

    fn offset_of(&self, place: u64) -> usize {
        usize::try_from(place - self.forgotten_count).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(slot: u32) -> Change {
        Change { slot: Slot(slot), ends_older: slot.is_multiple_of(2) }
    }

    fn changes(revisions: &[u64]) -> Changes {
        let mut changes = Changes::default();
        for (slot, revision) in (0..).zip(revisions) {
            changes.push(Revision(*revision), change(slot));
        }
        changes
    }

    fn seen_from(changes: &Changes, revision: u64, order: u64) -> Vec<(u64, u64, u32)> {
        let seen = changes.from(Moment { revision: Revision(revision), order });
        seen.map(|(made, slot)| (made.revision.0, made.order, slot.0)).collect()
    }

    #[test]
    fn a_revision_leads_to_its_changes_and_all_later_ones_in_order() {
        let changes = changes(&[2, 3, 3, 4]);
        assert_eq!(seen_from(&changes, 0, 0), [(2, 0, 0), (3, 0, 1), (3, 1, 2), (4, 0, 3)]);
        assert_eq!(seen_from(&changes, 3, 1), [(3, 1, 2), (4, 0, 3)]);
        assert_eq!(seen_from(&changes, 3, 2), [(4, 0, 3)], "after the last of a revision comes the next one");
        assert_eq!(seen_from(&changes, 5, 0), [], "nothing has happened yet");
        assert_eq!(seen_from(&changes, u64::MAX - 1, u64::MAX), []);
        assert_eq!([2, 3, 4, 5].map(|revision| changes.count_of(Revision(revision))), [1, 2, 1, 0]);
    }

    #[test]
    fn what_is_forgotten_goes_from_the_front_and_the_rest_stays_where_it_was() {
        let mut changes = changes(&[2, 3, 3, 4]);
        let pop = |changes: &mut Changes| changes.pop_if(|revision| revision < Revision(4));
        let ended = |changes: &mut Changes, upto| changes.next_ended(Revision(upto)).map(|(at, _)| at.0);
        assert_eq!([(); 4].map(|()| ended(&mut changes, 3)), [Some(2), Some(3), Some(3), None]);
        assert_eq!(pop(&mut changes), Some((Revision(2), change(0))));
        assert_eq!(pop(&mut changes), Some((Revision(3), change(1))));
        assert_eq!(seen_from(&changes, 0, 0), [(3, 1, 2), (4, 0, 3)]);
        assert_eq!(pop(&mut changes), Some((Revision(3), change(2))));
        assert_eq!(pop(&mut changes), None);
        changes.push(Revision(5), change(4));
        changes.push(Revision(5), change(5));
        assert_eq!(seen_from(&changes, 4, 0), [(4, 0, 3), (5, 0, 4), (5, 1, 5)]);
        assert_eq!(changes.ends().collect::<Vec<_>>(), [(Revision(5), Slot(4))]);
        assert_eq!(ended(&mut changes, 4), Some(4));
        assert!(!changes.has_ended(Revision(4)) && changes.has_ended(Revision(5)));
        assert_eq!(changes.pop_if(|_| true), Some((Revision(4), change(3))));
        assert!(changes.has(|revision| revision == Revision(5)));
    }
}
