//! What a watch asks for, and what it is told.

use crate::ids::{Revision, StreamId, Ticket, WatchId};
use crate::kv::{Changed, Event, KeyRange};

/// What a watch is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchSpec {
    /// Of which keys, and which kinds of changes.
    pub interest: Interest,
    /// From which revision on; 0 for all that come after now. One that is yet to come is waited for.
    pub start: Revision,
    /// Whether it is told now and then how far it is, when nothing happens that concerns it.
    pub wants_progress: bool,
}

/// Which changes concern a watch, and how they are told. Watches of one interest are told by the same batches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interest {
    /// Which keys.
    pub range: KeyRange,
    /// Nothing of puts (etcd's NOPUT).
    pub skips_puts: bool,
    /// Nothing of deletions (etcd's NODELETE).
    pub skips_deletions: bool,
    /// With the pair as it was before.
    pub wants_previous: bool,
}

impl Interest {
    /// Every change of the keys of `range`.
    pub const fn all(range: KeyRange) -> Self {
        Self { range, skips_puts: false, skips_deletions: false, wants_previous: false }
    }

    /// Whether it is concerned by a change.
    pub fn wants(&self, changed: &Changed<'_>) -> bool {
        let is_skipped = if changed.is_deletion() { self.skips_deletions } else { self.skips_puts };
        !is_skipped && self.range.contains(changed.key())
    }
}

/// One watch of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// On which connection.
    pub stream: StreamId,
    /// Which of that connection's watches.
    pub watch: WatchId,
}

/// Changes that are told together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Everything that concerns the watch, up to and with this revision, was told with this batch and before it.
    pub revision: Revision,
    /// Whether the last of the events are of the revision after that one, and more of it follows.
    pub is_partial: bool,
    /// In the order in which they were made.
    pub events: Vec<Event>,
}

/// Why a watch has ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// What it would be told next is not known any more. This is the oldest revision at which it can begin anew.
    Compacted(Revision),
    /// Whoever watches may not any more.
    NotPermitted,
}

/// Something to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// These watches are told the same; places on one stream follow each other.
    Told {
        /// Who.
        to: Vec<Place>,
        /// What.
        batch: Batch,
    },
    /// A watch has ended by itself.
    Ended {
        /// Which.
        to: Place,
        /// Why.
        why: Ending,
    },
    /// The answer to a request for progress: the watch was told everything up to this revision.
    Reached {
        /// The request.
        ticket: Ticket,
        /// The revision.
        revision: Revision,
    },
    /// The answer to a request for progress of a watch that has ended.
    Gone {
        /// The request.
        ticket: Ticket,
    },
}

/// Why a watch cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchRefusal {
    /// The stream has a watch of that name.
    NameTaken,
    /// The stream, or the hub, has as many as it may.
    TooMany,
}
