//! The durable image of one member, kept by applying every `Persist` when its write completes.
//!
//! It knows nothing of segments or frames: only what recovery would find. The checks compare what members claim
//! (votes, acknowledgements, commits) with these images and never with a member's memory.

use super::notation::{show_entries, show_log, show_member, show_position};
use crate::ids::{LogIndex, MemberId, Term};
use crate::raft::{Entry, HardState, Island, Persist, Position, RecoveredLog, RunKind, SnapshotName};

/// A write on its way to the disk: what was handed over, and the entries as they were at that instant.
pub(super) struct Write {
    pub(super) persist: Persist,
    pub(super) entries: Vec<Entry>,
}

impl Write {
    /// The write as results show it.
    pub(super) fn show(&self) -> String {
        let state = self.persist.hard_state;
        let mut text =
            format!("term={} vote={} commit={}", state.term, show_member(state.vote), state.commit);
        if let Some(reset) = self.persist.reset {
            let stays = if reset.kind == RunKind::Fill { " keeping what is above" } else { "" };
            text = format!("{text} reset={}{stays}", show_position(reset.snapshot));
        }
        if let Some(run) = self.persist.run {
            let kind = match run.kind {
                RunKind::Append => "append",
                RunKind::Fill => "fill",
            };
            text = format!("{text} {kind}={}", show_entries(&self.entries));
        }
        text
    }
}

/// What is durable at one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    /// Just below the first entry.
    pub(super) base: Position,
    /// The contiguous log.
    pub(super) entries: Vec<Entry>,
    /// What lies above holes.
    pub(super) islands: Vec<Island>,
    /// Every snapshot under its own name.
    pub(super) snapshots: Vec<SnapshotName>,
}

impl Disk {
    /// What recovery finds.
    pub(super) fn recover(&mut self) -> RecoveredLog {
        let mut settled = self.clone();
        let is_reset_owed = settled.settle();
        if !is_reset_owed {
            // What lies below the snapshot is of no use any more, holes or not.
            self.clone_from(&settled);
        }
        let snapshot = settled.snapshot();
        let Self { hard_state, base, entries, islands, .. } = settled;
        RecoveredLog { hard_state, base, entries, islands, snapshot, is_reset_owed }
    }

    /// The end of the newest snapshot.
    pub(super) fn snapshot(&self) -> Position {
        let newest = self.snapshots.iter().max_by_key(|snapshot| snapshot.position.index);
        newest.map_or(Position::START, |snapshot| snapshot.position)
    }

    /// The log forgets what is at and below `base`.
    pub(super) fn trim(&mut self, base: Position) {
        self.entries.retain(|entry| entry.index > base.index);
        self.base = base;
    }

    /// Starts the log at the newest snapshot, if it does not hold that already: what recovery does. Returns whether it is
    /// held nowhere, holes or not.
    fn settle(&mut self) -> bool {
        let snapshot = self.snapshot();
        if self.term_at(snapshot.index) == Some(snapshot.term) {
            return false;
        }
        self.entries.clear();
        self.base = snapshot;
        let mut is_held = false;
        for island in std::mem::take(&mut self.islands) {
            let below = island.predecessor;
            if below == snapshot || island.entries.iter().any(|entry| entry.position() == snapshot) {
                (self.base, self.entries, is_held) = (below, island.entries, true);
            } else if below.index > snapshot.index && below.term >= snapshot.term {
                self.islands.push(island);
            }
        }
        !is_held
    }

    /// The end of the contiguous log.
    pub(super) fn last(&self) -> Position {
        self.entries.last().map_or(self.base, Entry::position)
    }

    /// The end of the log for votes: that of the last island, if there is one.
    pub(super) fn vote_position(&self) -> Position {
        let island = self.islands.last();
        island.map_or_else(|| self.last(), island_end)
    }

    /// The term of the entry at `index`, if the contiguous log holds it.
    pub(super) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.entries.iter().find(|entry| entry.index == index).map(|entry| entry.term)
    }

    /// Whether the entry at this position, which is committed, is intact here: in a snapshot, below a hole or above it.
    pub(super) fn holds(&self, position: Position) -> bool {
        if position.index <= self.snapshot().index {
            return true;
        }
        let above = self.islands.iter().flat_map(|island| &island.entries);
        self.entries.iter().chain(above).any(|entry| entry.position() == position)
    }

    /// A write has completed. Fails if what was handed over cannot stand on what is here.
    pub(super) fn apply(&mut self, write: &Write) -> Result<(), String> {
        let persist = &write.persist;
        if persist.hard_state.term < self.hard_state.term {
            return Err("a write takes the durable term back".to_owned());
        }
        if persist.hard_state.term == self.hard_state.term
            && self.hard_state.vote.is_some()
            && persist.hard_state.vote != self.hard_state.vote
        {
            return Err("a write changes a durable vote within its term".to_owned());
        }
        self.hard_state = persist.hard_state;
        if let Some(reset) = persist.reset {
            if !self.snapshots.iter().any(|snapshot| snapshot.position == reset.snapshot) {
                return Err("a log starts anew behind a snapshot that is not durable".to_owned());
            }
            if reset.kind == RunKind::Append {
                (self.entries, self.islands, self.base) = (Vec::new(), Vec::new(), reset.snapshot);
            }
            self.settle();
        }
        if let Some(run) = persist.run {
            if self.term_at(run.previous.index) != Some(run.previous.term) {
                return Err(format!("a run stands on {}, which is not here", show_position(run.previous)));
            }
            self.entries.retain(|entry| entry.index < run.first);
            match run.kind {
                RunKind::Append => {
                    self.supersede_islands(run.first);
                    self.entries.extend(&write.entries);
                }
                RunKind::Fill => write.entries.iter().for_each(|entry| self.fill(*entry)),
            }
        }
        if self.vote_position() != persist.last {
            return Err(format!(
                "a write names {} as the end of the log for votes, but it is {}",
                show_position(persist.last),
                show_position(self.vote_position())
            ));
        }
        if persist.hard_state.commit > self.last().index {
            return Err("a write holds a commit index beyond the log on its disk".to_owned());
        }
        Ok(())
    }

    /// The entries `first..=last` of the contiguous log can no longer be read. The frame behind them still names the
    /// last of them.
    pub(super) fn rot(&mut self, first: LogIndex, last: LogIndex) -> Result<(), String> {
        let term = self.term_at(last).ok_or_else(|| format!("entry {last} is not on this disk"))?;
        let above = self.entries.iter().filter(|entry| entry.index > last).copied().collect();
        let predecessor = Position { index: last, term };
        self.islands.insert(0, Island { predecessor, entries: above });
        self.entries.retain(|entry| entry.index < first);
        self.hard_state.commit = self.hard_state.commit.min(self.last().index);
        Ok(())
    }

    /// An ordinary append discards what lies at or above its first entry, intact or not.
    fn supersede_islands(&mut self, first: LogIndex) {
        self.islands.retain(|island| island.predecessor.index < first);
        if let Some(island) = self.islands.last_mut() {
            island.entries.retain(|entry| entry.index < first);
        }
    }

    /// One entry supplied into a hole: islands it contradicts go, one whose predecessor it is joins. The fill may reach
    /// into an island, or through it if that is short; it is the same log there.
    fn fill(&mut self, entry: Entry) {
        self.islands.retain(|island| {
            let below = island.predecessor;
            entry.term <= below.term && (entry.index < below.index || entry.position() == below)
        });
        if entry.index > self.last().index {
            self.entries.push(entry);
        }
        while self.islands.first().is_some_and(|island| island.predecessor == self.last()) {
            let island = self.islands.remove(0);
            self.entries.extend(island.entries);
        }
    }

    /// The image as `show` prints it.
    pub(super) fn show(&self) -> String {
        let log: Vec<Position> = self.entries.iter().map(Entry::position).collect();
        let mut text = format!(
            "term={} vote={} log={}",
            self.hard_state.term,
            show_member(self.hard_state.vote),
            show_log(&log)
        );
        if self.base.index > LogIndex(0) || !self.snapshots.is_empty() {
            let (base, snapshot) = (show_position(self.base), show_position(self.snapshot()));
            text = format!("{text} base={base} snapshot={snapshot}");
        }
        for island in &self.islands {
            let predecessor = show_position(island.predecessor);
            text = format!("{text} island={predecessor}:{}", show_entries(&island.entries));
        }
        text
    }

    /// Whether the vote for `candidate` in `term` would survive a crash.
    pub(super) fn has_voted(&self, term: Term, candidate: MemberId) -> bool {
        self.hard_state.term > term
            || (self.hard_state.term == term && self.hard_state.vote == Some(candidate))
    }
}

fn island_end(island: &Island) -> Position {
    island.entries.last().map_or(island.predecessor, Entry::position)
}
