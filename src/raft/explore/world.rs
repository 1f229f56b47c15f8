//! What is explored: how the members begin, and how much may happen to them.

use super::terms::{ENTRIES_MAX, TERM_MAX};
use crate::ids::{LogIndex, MemberId, Term};
use crate::raft::{Entry, HardState};

/// Members of every world.
pub(super) const MEMBERS_COUNT: usize = 3;

/// A beginning, and the bounds of what follows.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// What it is called.
    pub name: &'static str,
    /// What each disk holds at first: term, vote, and the terms of the log's entries.
    pub disks: [(u64, Option<u64>, &'static [u64]); MEMBERS_COUNT],
    /// What happens before anything is explored.
    pub prelude: &'static [Prelude],
    /// Nobody campaigns for a term beyond this one.
    pub terms_max: u64,
    /// Nothing is proposed to a leader whose log holds this many entries. The no-op that begins a term may come above.
    pub entries_max: u64,
    /// How often timers run out, of all members together: campaigns, heartbeats, and leaders that step down.
    pub ticks_max: u8,
    /// How often a member crashes and comes back, all members together.
    pub crashes_max: u8,
    /// How many linearizable reads are asked.
    pub reads_max: u8,
    /// Whether leaders hand their leadership over.
    pub with_transfers: bool,
}

/// Something that happens while all messages arrive and all writes become durable, until nothing is left to do. No message
/// of that time arrives again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prelude {
    /// The timers of this member (0, 1 or 2) run out.
    Tick(usize),
    /// This member is given an entry to propose.
    Propose(usize),
}

/// Two terms from nothing, with three entries.
pub const EMPTY: World = World {
    name: "empty",
    disks: [(0, None, &[]); MEMBERS_COUNT],
    prelude: &[],
    terms_max: 2,
    entries_max: 3,
    ticks_max: 3,
    crashes_max: 2,
    reads_max: 0,
    with_transfers: false,
};

/// One election and one entry, to the end of all that can come of them.
pub const WHOLE: World =
    World { name: "whole", terms_max: 1, entries_max: 2, ticks_max: 1, crashes_max: 0, ..EMPTY };

/// Two more terms after two leaders that reached nobody (the beginning of Raft's figure 8).
pub const DIVIDED: World = World {
    name: "divided",
    disks: [(2, None, &[1, 1]), (2, Some(2), &[2]), (2, Some(2), &[])],
    terms_max: 4,
    ticks_max: 2,
    crashes_max: 1,
    ..EMPTY
};

/// What becomes of a leader that all follow: three entries, and a second term.
pub const LED: World =
    World { name: "led", prelude: &[Prelude::Tick(0)], ticks_max: 2, crashes_max: 1, ..EMPTY };

/// A read while leadership moves on.
pub const READING: World = World {
    name: "reading",
    prelude: &[Prelude::Tick(0), Prelude::Propose(0)],
    entries_max: 2,
    ticks_max: 1,
    crashes_max: 1,
    reads_max: 1,
    ..EMPTY
};

/// Leadership handed over, with an entry on its way.
pub const HANDED: World = World {
    name: "handed",
    prelude: &[Prelude::Tick(0)],
    entries_max: 2,
    ticks_max: 1,
    crashes_max: 0,
    with_transfers: true,
    ..EMPTY
};

/// All worlds, in the order in which they are explored.
pub const WORLDS: [World; 6] = [WHOLE, EMPTY, DIVIDED, LED, READING, HANDED];

impl World {
    /// Whether no member differs from another at the beginning.
    pub(super) fn is_symmetric(&self) -> bool {
        self.prelude.is_empty() && self.disks.iter().all(|disk| *disk == self.disks[0])
    }

    /// What is on the disk of this member at the beginning.
    pub(super) fn disk(&self, at: usize) -> (HardState, Vec<Entry>) {
        let (term, vote, terms) = self.disks[at];
        let hard_state = HardState { term: Term(term), vote: vote.map(MemberId), commit: LogIndex(0) };
        let entry = |(index, term): (u64, &u64)| entry(index, *term);
        (hard_state, (1..).zip(terms).map(entry).collect())
    }

    pub(super) fn assert_is_small(&self) {
        assert!(self.terms_max <= TERM_MAX, "terms fit into four bits");
        assert!(self.entries_max + self.terms_max <= ENTRIES_MAX, "logs fit into a word");
        assert!(self.reads_max <= 2, "the floors of reads fit into their place");
    }
}

/// Encoded size of every entry here; sizes are no subject.
pub(super) const ENTRY_BYTES: u32 = 64;

pub(super) const fn entry(index: u64, term: u64) -> Entry {
    Entry { index: LogIndex(index), term: Term(term), bytes_count: ENTRY_BYTES }
}
