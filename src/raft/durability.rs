//! What of the hard state and of the log is durable, what is in the one write in flight, and what waits.
//!
//! The write-ahead log completes writes in the order in which they were handed over, so a `Mark` stands for
//! everything before it. Entries that are cut from the log while their write is in flight leave the books at once;
//! what takes their place waits for a write of its own, so a late completion can never count for it
//! (the ABA of catalogue 19). A commit index is a hint only and never a reason to write. While the log on disk has not
//! started anew behind an installed snapshot, nothing of the log counts as durable.

use super::interface::{Mark, Reset};
use super::message::HardState;
use crate::ids::{BootMicros, LogIndex, MemberId, Term};

/// A range of entries, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Span {
    pub(super) first: LogIndex,
    pub(super) last: LogIndex,
}

/// Term and vote: the part of the hard state that promises something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Ballot {
    pub(super) term: Term,
    pub(super) vote: Option<MemberId>,
}

impl From<HardState> for Ballot {
    fn from(hard_state: HardState) -> Self {
        Self { term: hard_state.term, vote: hard_state.vote }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct InFlight {
    pub(super) mark: Mark,
    ballot: Ballot,
    /// What of its run is still in the log.
    run: Option<Span>,
    has_reset: bool,
}

/// Since when the disk owes an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Waiting {
    pub(super) since: BootMicros,
    /// The end of the log when the wait began.
    pub(super) log_end: LogIndex,
}

/// The books of one member's disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Durability {
    pub(super) last_mark: Mark,
    durable: Ballot,
    handed: Ballot,
    pub(super) in_flight: Option<InFlight>,
    /// Ranges not yet handed over, in the order of the log. More than one only while holes are being filled.
    waiting: Vec<Span>,
    /// That the log starts anew; not yet handed over.
    reset: Option<Reset>,
    pub(super) waiting_since: Option<Waiting>,
}

impl Durability {
    /// Everything recovered is durable.
    pub(super) fn recovered(hard_state: HardState) -> Self {
        let ballot = hard_state.into();
        Self {
            last_mark: Mark(0),
            durable: ballot,
            handed: ballot,
            in_flight: None,
            waiting: Vec::new(),
            reset: None,
            waiting_since: None,
        }
    }

    /// Term and vote as they are on disk.
    pub(super) const fn ballot(&self) -> Ballot {
        self.durable
    }

    /// Notes that the log starts anew: what waited has left it, and what is above the snapshot is on disk.
    pub(super) fn reset(&mut self, reset: Reset) {
        self.waiting.clear();
        if let Some(write) = &mut self.in_flight {
            write.run = None;
        }
        self.reset = Some(reset);
    }

    /// That the log starts anew, if that must be written next.
    pub(super) const fn reset_due(&self) -> Option<Reset> {
        self.reset
    }

    /// Whether the log in memory has started anew and the one on disk has not yet.
    pub(super) fn is_reset_owed(&self) -> bool {
        self.reset.is_some() || self.in_flight.is_some_and(|write| write.has_reset)
    }

    /// The end of the durable part of a contiguous log that ends at `last`.
    pub(super) fn durable_upto(&self, last: LogIndex) -> LogIndex {
        if self.is_reset_owed() {
            return LogIndex(0);
        }
        let in_flight = self.in_flight.and_then(|write| write.run);
        let firsts = in_flight.iter().chain(self.waiting.first()).map(|span| span.first);
        firsts.min().map_or(last, LogIndex::previous)
    }

    /// Notes new entries of the log.
    pub(super) fn added(&mut self, first: LogIndex, last: LogIndex) {
        match self.waiting.last_mut() {
            Some(span) if span.last.next() == first => span.last = last,
            Some(_) | None => self.waiting.push(Span { first, last }),
        }
        self.assert_invariants();
    }

    /// Notes that the entries at and above `from` left the log.
    pub(super) fn cut(&mut self, from: LogIndex) {
        let below = |span: Span| {
            let last = span.last.min(from.previous());
            (span.first <= last).then_some(Span { first: span.first, last })
        };
        if let Some(write) = &mut self.in_flight {
            write.run = write.run.and_then(below);
        }
        self.waiting = self.waiting.drain(..).filter_map(below).collect();
        self.assert_invariants();
    }

    /// The lowest range that waits, if nothing is in flight.
    pub(super) fn next_run(&self) -> Option<Span> {
        self.waiting.first().copied()
    }

    /// The last range that waits.
    pub(super) fn last_run(&self) -> Option<Span> {
        self.waiting.last().copied()
    }

    /// Whether a write is under way.
    pub(super) const fn is_writing(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether what is to be handed over next are entries, and nothing that promises something.
    pub(super) fn owes_entries_alone(&self, hard_state: HardState) -> bool {
        let is_more = self.reset.is_some() || self.handed != hard_state.into();
        self.in_flight.is_none() && !self.waiting.is_empty() && !is_more
    }

    /// Whether there is something to hand over.
    pub(super) fn is_owed(&self, hard_state: HardState) -> bool {
        !self.waiting.is_empty() || self.reset.is_some() || self.handed != hard_state.into()
    }

    /// Hands over the hard state and the start of the lowest waiting range, up to `upto`; a reset goes alone.
    pub(super) fn hand_over(&mut self, hard_state: HardState, upto: Option<LogIndex>) -> Mark {
        assert!(self.in_flight.is_none(), "one write is in flight at a time");
        assert!(self.reset.is_none() || upto.is_none(), "entries follow on a reset in a later write");
        let run = upto.map(|last| {
            let span = self.waiting.remove(0);
            assert!(span.first <= last && last <= span.last, "a run is the start of what waits");
            if last < span.last {
                self.waiting.insert(0, Span { first: last.next(), last: span.last });
            }
            Span { first: span.first, last }
        });
        self.last_mark = Mark(self.last_mark.0 + 1);
        self.handed = hard_state.into();
        let has_reset = self.reset.take().is_some();
        self.in_flight = Some(InFlight { mark: self.last_mark, ballot: self.handed, run, has_reset });
        self.last_mark
    }

    /// Notes that the write of `mark` is durable; returns whether that was news.
    pub(super) fn completed(&mut self, mark: Mark) -> bool {
        let Some(write) = self.in_flight.filter(|write| write.mark == mark) else {
            return false;
        };
        self.durable = write.ballot;
        self.in_flight = None;
        self.waiting_since = None;
        true
    }

    /// Starts or ends the time for which the disk has owed an answer.
    pub(super) fn watch(&mut self, now: BootMicros, hard_state: HardState, log_end: LogIndex) {
        if !self.is_writing() && !self.is_owed(hard_state) {
            self.waiting_since = None;
        } else if self.waiting_since.is_none() {
            self.waiting_since = Some(Waiting { since: now, log_end });
        }
    }

    /// Since when the disk has owed an answer, if it does.
    pub(super) const fn waiting_since(&self) -> Option<Waiting> {
        self.waiting_since
    }

    fn assert_invariants(&self) {
        let spans = &self.waiting;
        assert!(spans.iter().all(|span| span.first <= span.last), "no waiting range is empty");
        assert!(
            spans.windows(2).all(|pair| pair[0].last.next() < pair[1].first),
            "waiting ranges are in order and apart"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(index: u64) -> LogIndex {
        LogIndex(index)
    }

    #[test]
    fn entries_are_durable_when_their_write_completes() {
        let mut books = Durability::recovered(HardState::default());
        books.added(index(1), index(3));
        assert_eq!(books.durable_upto(index(3)), index(0));
        let mark = books.hand_over(HardState::default(), Some(index(2)));
        books.added(index(4), index(4));
        assert_eq!(books.durable_upto(index(4)), index(0));
        assert!(!books.completed(Mark(mark.0 + 1)), "a mark that was never given completes nothing");
        assert!(books.completed(mark));
        assert!(!books.completed(mark), "a write completes once");
        assert_eq!(books.durable_upto(index(4)), index(2));
    }

    #[test]
    fn a_late_write_counts_for_nothing_that_took_its_place() {
        let mut books = Durability::recovered(HardState::default());
        books.added(index(1), index(3));
        let mark = books.hand_over(HardState::default(), Some(index(3)));
        books.cut(index(2));
        books.added(index(2), index(3));
        assert!(books.completed(mark));
        assert_eq!(books.durable_upto(index(3)), index(1));
    }

    #[test]
    fn a_filled_hole_makes_what_is_above_durable_with_it() {
        let mut books = Durability::recovered(HardState::default());
        books.added(index(3), index(4));
        books.added(index(8), index(8));
        assert_eq!(books.durable_upto(index(8)), index(2));
        let mark = books.hand_over(HardState::default(), Some(index(4)));
        assert!(books.completed(mark));
        assert_eq!(books.durable_upto(index(8)), index(7));
    }

    #[test]
    fn a_commit_index_alone_is_no_reason_to_write() {
        let mut books = Durability::recovered(HardState::default());
        assert!(!books.is_owed(HardState { commit: index(9), ..HardState::default() }));
        let voted = HardState { vote: Some(MemberId(2)), ..HardState::default() };
        assert!(books.is_owed(voted));
        books.hand_over(voted, None);
        assert!(!books.is_owed(voted));
        assert_eq!(books.ballot(), Ballot::default(), "handed over is not durable");
    }

    #[test]
    fn a_wait_begins_anew_when_a_write_completes() {
        let mut books = Durability::recovered(HardState::default());
        books.watch(BootMicros(1), HardState::default(), index(0));
        assert!(books.waiting_since().is_none());
        books.added(index(1), index(1));
        books.watch(BootMicros(2), HardState::default(), index(1));
        books.watch(BootMicros(9), HardState::default(), index(5));
        let waiting = books.waiting_since().unwrap();
        assert_eq!((waiting.since, waiting.log_end), (BootMicros(2), index(1)));
        let mark = books.hand_over(HardState::default(), Some(index(1)));
        books.completed(mark);
        books.watch(BootMicros(10), HardState::default(), index(1));
        assert!(books.waiting_since().is_none());
    }
}
