//! One group's log while it is being recovered: what each frame does to it.
//!
//! The log is a row of *stretches*, each a position that is in the log and the entries that follow on it:
//!
//! ```text
//!   base          contiguous          hole     island          hole      end
//!    ├──────────────────────────────┤        ├───────────┤              ┤
//!   (0,0)  1  2  3  4  5                (7,2)  8  9  10             (14,3)
//! ```
//!
//! What always holds: the first stretch starts at the base; something is missing between two stretches; only
//! the last may hold a position and no entry; the end of the last is the end of the log for votes.

use super::recovery::RecoveredGroup;
use super::words::{hard_state, position};
use crate::ids::LogIndex;
use crate::raft::{Entry, HardState, Island, Position, RecoveredLog};
use bytes::Bytes;
use std::collections::BTreeMap;
use wal_format::{Configuration, RunKind};

/// One entry of a frame.
#[derive(Clone, Debug)]
pub(super) struct FoundEntry {
    pub(super) position: Position,
    pub(super) record: Bytes,
    /// Of its segment among those found.
    pub(super) place: usize,
}

/// Consecutive entries behind a position that is known to be in the log.
#[derive(Clone, Debug)]
struct Stretch {
    previous: Position,
    entries: Vec<FoundEntry>,
}

/// What is known of one group so far.
#[derive(Clone, Debug)]
pub(super) struct GroupLog {
    hard_state: HardState,
    stretches: Vec<Stretch>,
    snapshot: Position,
    configuration: Configuration,
    counts_for_nothing: bool,
    /// Frames were lost since the group was last named, and it may have been in them.
    is_in_doubt: bool,
}

impl GroupLog {
    /// A group of which nothing is known.
    pub(super) fn new() -> Self {
        Self {
            hard_state: HardState::default(),
            stretches: vec![Stretch::at(Position::START)],
            snapshot: Position::START,
            configuration: Configuration::default(),
            counts_for_nothing: false,
            is_in_doubt: false,
        }
    }

    /// Frames were lost that the group may have been in.
    pub(super) fn doubt(&mut self) {
        self.is_in_doubt = true;
    }

    /// A frame names the group's hard state and the end of its log.
    pub(super) fn name(&mut self, tail: &wal_format::GroupTail) {
        self.is_in_doubt = false;
        self.hard_state = hard_state(tail.hard_state);
        let last = position(tail.last);
        self.settle(last);
        self.reach(last);
        self.assert_invariants();
    }

    /// An opening says everything about the group.
    pub(super) fn open(&mut self, opening: &wal_format::GroupOpening) {
        self.name(&opening.tail);
        self.snapshot = position(opening.snapshot);
        self.counts_for_nothing = opening.counts_for_nothing;
        self.configuration.clone_from(&opening.configuration);
    }

    /// A run of entries was written.
    pub(super) fn write(&mut self, run: &wal_format::Run, entries: Vec<FoundEntry>) {
        let previous = position(run.previous);
        match run.kind {
            RunKind::Append => self.append(previous, entries),
            RunKind::Fill => self.fill(previous, entries),
        }
        self.assert_invariants();
    }

    /// A snapshot was installed.
    pub(super) fn reset(&mut self, reset: &wal_format::Reset) {
        self.snapshot = position(reset.snapshot);
        match reset.kind {
            RunKind::Append => self.stretches = vec![Stretch::at(self.snapshot)],
            RunKind::Fill => self.rebase(self.snapshot),
        }
        self.assert_invariants();
    }

    /// What the group still has, once every frame was seen. `snapshot` is what its state can be restored from; `shared`, how
    /// many bytes each segment has, if its records share them.
    pub(super) fn finish(mut self, snapshot: Position, shared: &[usize]) -> RecoveredGroup {
        // Also where no snapshot is left: the log on disk begins behind one that was lost, and what fills its place would be below.
        let is_reset_owed = !self.begin_at_or_below(snapshot);
        self.assert_invariants();
        self.part_from_sparse_segments(shared);
        let mut records = BTreeMap::new();
        let mut stretches = self.stretches.into_iter().map(|stretch| {
            let entries = stretch.entries.into_iter().map(|found| {
                let entry = Entry {
                    index: found.position.index,
                    term: found.position.term,
                    bytes_count: u32::try_from(found.record.len()).expect("a record fits in a frame"),
                };
                records.insert(entry.index, found.record);
                entry
            });
            (stretch.previous, entries.collect())
        });
        let (base, entries) = stretches.next().unwrap_or_default();
        let islands = stretches.map(|(predecessor, entries)| Island { predecessor, entries }).collect();
        RecoveredGroup {
            log: RecoveredLog {
                hard_state: self.hard_state,
                base,
                entries,
                islands,
                snapshot,
                is_reset_owed,
            },
            records,
            snapshot,
            named: self.snapshot,
            configuration: self.configuration,
            counts_for_nothing: self.counts_for_nothing || self.is_in_doubt,
        }
    }

    /// Gives records bytes of their own where they share those of a segment that holds little else of what is left.
    fn part_from_sparse_segments(&mut self, shared: &[usize]) {
        let mut held = vec![0; shared.len()];
        for entry in self.stretches.iter().flat_map(|stretch| &stretch.entries) {
            if let Some(held) = held.get_mut(entry.place) {
                *held += entry.record.len();
            }
        }
        let is_sparse =
            |place: usize| held.get(place).zip(shared.get(place)).is_some_and(|(held, all)| held * 2 < *all);
        for entry in self.stretches.iter_mut().flat_map(|stretch| &mut stretch.entries) {
            if is_sparse(entry.place) {
                entry.record = Bytes::copy_from_slice(&entry.record);
            }
        }
    }

    /// Makes a log of what follows on the snapshot: what lies below it is of no use any more, holes or not. Whether its
    /// last entry is held, or named, anywhere; if not, the log begins just above it, and keeps what can follow.
    fn begin_at_or_below(&mut self, snapshot: Position) -> bool {
        let holds = |stretch: &Stretch| stretch.at_index(snapshot.index) == Some(snapshot);
        if let Some(place) = self.stretches.iter().position(holds) {
            self.stretches.drain(..place);
            return true;
        }
        self.rebase(snapshot);
        false
    }

    /// Drops whatever cannot be in a log that ends at `end`.
    fn settle(&mut self, end: Position) {
        while let [_, .., top] = self.stretches.as_slice()
            && contradicts(top.previous, end)
        {
            self.stretches.pop();
        }
        self.top().settle(end);
    }

    /// Makes `position`, which nothing held contradicts, the end of the log: known to be there, though not
    /// held.
    fn reach(&mut self, position: Position) {
        if self.top().end() == position || position.index <= self.base().index {
            return;
        }
        if self.stretches.len() > 1 && self.top().entries.is_empty() {
            // What it said is implied by the later position.
            self.stretches.pop();
        }
        self.stretches.push(Stretch::at(position));
    }

    /// Entries at and above the first given supersede all that were there (Raft §5.3).
    fn append(&mut self, previous: Position, entries: Vec<FoundEntry>) {
        self.settle(previous);
        self.reach(previous);
        let top = self.top();
        for entry in entries {
            if entry.position.index <= top.previous.index {
                continue;
            }
            // Terms never fall (Raft §5.3), whatever a disk says.
            if entry.position.term < top.previous.term {
                break;
            }
            top.entries.push(entry);
        }
    }

    /// Entries supplied into a hole: they supersede nothing above them, but where they differ from what was
    /// held, what follows up to the next island is in doubt and becomes part of the hole.
    fn fill(&mut self, previous: Position, entries: Vec<FoundEntry>) {
        let below = |stretch: &Stretch| stretch.previous.index <= previous.index;
        let place = self.stretches.iter().rposition(below);
        let mut upper = self.stretches.split_off(place.unwrap_or(0) + 1);
        if place.is_some() && self.top().at_index(previous.index) != Some(previous) {
            // Not held, or held with another term: `previous` is known to be in the log from now on.
            self.settle(previous);
            self.reach(previous);
        }
        for entry in entries {
            // An island that this entry contradicts is of a log that was replaced; those above it may still stand.
            upper.retain(|island| can_follow(entry.position, island.previous));
            let top = self.top();
            top.put(entry);
            if upper.first().is_some_and(|island| island.previous == top.end()) {
                top.entries.extend(upper.remove(0).entries);
            }
        }
        self.stretches.extend(upper);
        self.join();
    }

    /// Starts the log at a snapshot; what lies above it stays.
    fn rebase(&mut self, snapshot: Position) {
        let mut kept = vec![Stretch::at(snapshot)];
        for stretch in self.stretches.drain(..) {
            if stretch.at_index(snapshot.index) == Some(snapshot) {
                let above = stretch.entries.into_iter();
                let above = above.filter(|entry| entry.position.index > snapshot.index);
                kept = vec![Stretch { previous: snapshot, entries: above.collect() }];
            } else if stretch.previous.index > snapshot.index && stretch.previous.term >= snapshot.term {
                kept.push(stretch);
            }
        }
        self.stretches = kept;
        self.join();
    }

    /// Makes one of stretches that touch, and drops a position that the one above it implies.
    fn join(&mut self) {
        let mut joined: Vec<Stretch> = Vec::with_capacity(self.stretches.len());
        for stretch in self.stretches.drain(..) {
            let is_base = joined.len() <= 1;
            match joined.last_mut() {
                Some(below) if below.end() == stretch.previous => below.entries.extend(stretch.entries),
                Some(below) if below.entries.is_empty() && !is_base => *below = stretch,
                Some(_) | None => joined.push(stretch),
            }
        }
        self.stretches = joined;
    }

    fn base(&self) -> Position {
        self.stretches.first().map_or(Position::START, |first| first.previous)
    }

    fn top(&mut self) -> &mut Stretch {
        self.stretches.last_mut().expect("a log has at least the stretch at its base")
    }

    fn assert_invariants(&self) {
        assert!(!self.stretches.is_empty(), "a log has at least the stretch at its base");
        for pair in self.stretches.windows(2) {
            let [lower, upper] = pair else { continue };
            assert!(lower.end().index < upper.previous.index, "indices only grow from stretch to stretch");
        }
        for stretch in self.stretches.iter().skip(1).rev().skip(1) {
            assert!(!stretch.entries.is_empty(), "only the last stretch may hold a position and no entry");
        }
    }
}

impl Stretch {
    fn at(previous: Position) -> Self {
        let entries = Vec::new();
        Self { previous, entries }
    }

    fn end(&self) -> Position {
        self.entries.last().map_or(self.previous, |entry| entry.position)
    }

    /// The position held at this index.
    fn at_index(&self, index: LogIndex) -> Option<Position> {
        if index == self.previous.index {
            return Some(self.previous);
        }
        let offset = index.0.checked_sub(self.previous.index.0)?.checked_sub(1)?;
        let entry = self.entries.get(usize::try_from(offset).ok()?)?;
        Some(entry.position)
    }

    /// Drops entries that cannot be in a log that ends at `end`.
    fn settle(&mut self, end: Position) {
        while self.entries.last().is_some_and(|entry| contradicts(entry.position, end)) {
            self.entries.pop();
        }
    }

    /// Puts an entry in its place, over what was there if the terms differ; beyond the end only if it touches
    /// it.
    fn put(&mut self, entry: FoundEntry) {
        let index = entry.position.index;
        let is_below = index <= self.previous.index || entry.position.term < self.previous.term;
        if is_below || self.at_index(index) == Some(entry.position) {
            return;
        }
        while self.end().index >= index {
            self.entries.pop();
        }
        if self.end().index.next() == index {
            self.entries.push(entry);
        }
    }
}

/// Whether a log that holds `supplied` can also hold `later`, at or above it.
fn can_follow(supplied: Position, later: Position) -> bool {
    supplied.term <= later.term && (supplied.index < later.index || supplied == later)
}

/// Whether an entry at `held` cannot be in a log that ends at `end`: it lies beyond it, has another term at
/// its index, or a higher term below it, where terms never fall (Raft §5.3).
fn contradicts(held: Position, end: Position) -> bool {
    held.index > end.index || held.term > end.term || (held.index == end.index && held.term != end.term)
}
