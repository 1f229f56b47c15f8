//! Where a watch goes on after its connection was lost: what its client must remember, and nothing else.
//!
//! Always: a revision is handed out when it is whole, once; a watch created anew begins after the last one handed out,
//! or known to hold nothing. Pure, so that the simulator's watching clients are this one too. Left out: connections,
//! and where to create it anew.

use crate::ids::Revision;
use crate::kv::Event;
use crate::watch::{Batch, WatchSpec};

/// A watch over all its connections.
#[derive(Clone, Debug)]
pub struct Resume {
    spec: WatchSpec,
    /// The first revision not told yet; unknown of a watch from now on that was never created.
    next: Option<Revision>,
    /// Events of a revision of which more follows.
    part: Vec<Event>,
}

/// Whole revisions of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Everything up to and with this revision was told.
    pub revision: Revision,
    /// What happened; nothing, if this only says how far the watch is.
    pub events: Vec<Event>,
}

impl Resume {
    /// A watch that was never created.
    pub fn new(spec: WatchSpec) -> Self {
        let next = (spec.start != Revision(0)).then_some(spec.start);
        Self { spec, next, part: Vec::new() }
    }

    /// What to ask for: the watch as it is to go on.
    pub fn spec(&self) -> WatchSpec {
        WatchSpec { start: self.next.unwrap_or(Revision(0)), ..self.spec.clone() }
    }

    /// The first revision not told yet, if it is known.
    pub const fn next(&self) -> Option<Revision> {
        self.next
    }

    /// The watch is created, at a member at this revision.
    pub fn created(&mut self, revision: Revision) {
        self.part.clear();
        self.next.get_or_insert(revision.next());
    }

    /// Something was told. What is whole is handed out.
    pub fn told(&mut self, batch: Batch) -> Option<Told> {
        self.part.extend(batch.events);
        if batch.is_partial {
            return None;
        }
        self.reached(batch.revision);
        Some(Told { revision: batch.revision, events: std::mem::take(&mut self.part) })
    }

    /// Everything up to this revision was told.
    pub fn reached(&mut self, revision: Revision) {
        self.next = self.next.max(Some(revision.next()));
    }

    /// What it would go on with is compacted: it can go on at this revision only, and what lies between is lost.
    pub fn skip_to(&mut self, compacted: Revision) {
        self.part.clear();
        self.next = Some(compacted);
    }
}

#[cfg(test)]
mod tests {
    use super::{Resume, Told};
    use crate::ids::{LeaseId, Revision};
    use crate::kv::{Event, KeyRange, KeyValue};
    use crate::watch::{Batch, Interest, WatchSpec};
    use bytes::Bytes;

    fn watch(start: u64) -> Resume {
        let interest = Interest::all(KeyRange::From(Bytes::new()));
        Resume::new(WatchSpec { interest, start: Revision(start), wants_progress: false })
    }

    fn event(revision: u64) -> Event {
        let (key, value) = (Bytes::from_static(b"key"), Bytes::new());
        let (created, revision) = (Revision(revision), Revision(revision));
        let pair = KeyValue {
            key,
            value,
            create_revision: created,
            mod_revision: revision,
            version: 1,
            lease: LeaseId(0),
        };
        Event { pair, is_deletion: false, previous: None }
    }

    fn batch(revision: u64, is_partial: bool, events: &[u64]) -> Batch {
        let events = events.iter().copied().map(event).collect();
        Batch { revision: Revision(revision), is_partial, events }
    }

    #[test]
    fn a_watch_from_now_on_goes_on_after_the_revision_at_which_it_was_created() {
        let mut resume = watch(0);
        assert_eq!(resume.spec().start, Revision(0));
        resume.created(Revision(7));
        assert_eq!(
            resume.spec().start,
            Revision(8),
            "also if nothing was told before the connection was lost"
        );
        resume.created(Revision(9));
        assert_eq!(resume.spec().start, Revision(8), "what came between is still to be told");
    }

    #[test]
    fn a_revision_is_handed_out_when_it_is_whole_and_parts_do_not_survive_their_connection() {
        let mut resume = watch(5);
        assert_eq!(resume.told(batch(4, true, &[5, 5])), None);
        assert_eq!(resume.spec().start, Revision(5));
        resume.created(Revision(6));
        assert_eq!(resume.told(batch(4, true, &[5])), None);
        let events = vec![event(5), event(5), event(6)];
        assert_eq!(resume.told(batch(6, false, &[5, 6])), Some(Told { revision: Revision(6), events }));
        assert_eq!(resume.spec().start, Revision(7));
        assert_eq!(
            resume.told(batch(9, false, &[])),
            Some(Told { revision: Revision(9), events: Vec::new() })
        );
        assert_eq!(resume.spec().start, Revision(10));
        resume.reached(Revision(3));
        assert_eq!(resume.next(), Some(Revision(10)), "nothing moves it back");
    }
}
