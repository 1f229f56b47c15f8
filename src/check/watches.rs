//! Whether what watches were told is what they were owed: nine properties, each a function of its own (RELIABILITY §2).
//!
//! The committed log says what happened. It is replayed on the model, which gives every event that there ever was; what
//! each watch was told is held against that. A client that loses its connection goes on elsewhere, so its watches are
//! *legs* of one way, and the properties are those of the way, not of a leg.
//!
//! | property | |
//! |---|---|
//! | ordered | events come in the order of the log |
//! | unique | no event comes twice |
//! | atomic | what one revision changed is told together |
//! | reliable | no event is left out between two that were told, or before a revision that was named |
//! | resumable | a watch begins exactly at the revision asked for, and one from now on no earlier than now |
//! | bookmarkable | after a revision was named as told, nothing of it or before it is told |
//! | previous | the pair before is told if wanted, and is the right one |
//! | filter | only what was asked for is told |
//! | create | what is told is what the log says, a creation where the key did not exist, and only there |
//!
//! It leaves out whether anything is told at all in time; that is for whoever knows what time it is.

use super::history::CommittedWrite;
use super::model::Model;
use crate::ids::Revision;
use crate::kv::{Event, Outcome};
use crate::watch::{Batch, WatchSpec};
use core::fmt;
use std::collections::BTreeSet;

/// One watch as one connection saw it.
#[derive(Clone, Debug)]
pub struct Leg {
    /// What was asked for.
    pub spec: WatchSpec,
    /// The newest revision that anyone can have known when it was asked for.
    pub floor: Revision,
    /// The revision at which it was created; `None` if it never was.
    pub created: Option<Revision>,
    /// What came, in order.
    pub heard: Vec<Heard>,
}

/// Something that came for a watch.
#[derive(Clone, Debug)]
pub enum Heard {
    /// Events, perhaps none.
    Told(Batch),
    /// The answer to a request for progress.
    Reached(Revision),
    /// It has ended: this is the oldest revision that can still be told.
    Ended(Revision),
}

/// Everything one client was told of one watch: the first leg, and those on which it went on.
pub type Way = Vec<Leg>;

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchViolation {
    /// Its name.
    pub property: &'static str,
    /// What shows it.
    pub explanation: String,
}

impl fmt::Display for WatchViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "watches are not {}: {}", self.property, self.explanation)
    }
}

/// What really happened: every event there ever was, in order, and how far compactions went.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    events: Vec<Event>,
    newest: Revision,
    compacted: Revision,
}

type Checked = Result<(), WatchViolation>;

impl Replay {
    /// Replays the committed log, retries included: a second copy of a write changes nothing.
    pub fn of(order: &[CommittedWrite]) -> Self {
        let mut model = Model::default();
        let mut done = BTreeSet::new();
        let mut replay = Self { newest: model.revision(), ..Self::default() };
        for write in order.iter().filter(|write| done.insert(write.write)) {
            let applied = model.apply(&write.command);
            if let (crate::kv::Command::Compact(compact), Outcome::Compacted) =
                (&write.command, &applied.outcome)
            {
                replay.compact(compact.revision);
            }
            replay.events.extend(model.last_events());
            replay.newest = applied.revision;
        }
        replay
    }

    /// A compaction took place, up to this revision.
    pub fn compact(&mut self, revision: Revision) {
        self.compacted = self.compacted.max(revision);
    }

    /// The newest revision.
    pub const fn newest(&self) -> Revision {
        self.newest
    }

    /// What concerns a watch of all revisions from `first` to `last`.
    pub fn owed<'replay>(
        &'replay self,
        spec: &'replay WatchSpec,
        (first, last): (Revision, Revision),
    ) -> impl Iterator<Item = &'replay Event> {
        let start = self.events.partition_point(|event| event.pair.mod_revision < first);
        let after = self.events.iter().skip(start).take_while(move |event| event.pair.mod_revision <= last);
        after.filter(|event| is_wanted(spec, event))
    }

    /// Holds what a client was told of a watch against what it was owed.
    ///
    /// # Errors
    /// The first property found not to hold.
    pub fn check(&self, way: &[Leg]) -> Checked {
        filter(way)?;
        ordered(way, self)?;
        unique(way)?;
        atomic(way, self)?;
        resumable(way, self)?;
        bookmarkable(way, self)?;
        reliable(way, self)?;
        create(way, self)?;
        previous(way, self)
    }

    /// The event of this key and revision.
    fn find(&self, told: &Event) -> Option<&Event> {
        let revision = told.pair.mod_revision;
        let start = self.events.partition_point(|event| event.pair.mod_revision < revision);
        let mut same = self.events.iter().skip(start).take_while(|event| event.pair.mod_revision == revision);
        same.find(|event| event.pair.key == told.pair.key)
    }

    /// Where in the log the event of this key and revision stands.
    fn place(&self, told: &Event) -> Option<usize> {
        let revision = told.pair.mod_revision;
        let start = self.events.partition_point(|event| event.pair.mod_revision < revision);
        let mut same = self.events.iter().skip(start).take_while(|event| event.pair.mod_revision == revision);
        same.position(|event| event.pair.key == told.pair.key).map(|place| start + place)
    }
}

/// Revisions only grow, and within one the order is that of the log.
fn ordered(way: &[Leg], replay: &Replay) -> Checked {
    let mut before: Option<(usize, &Event)> = None;
    for event in events(way) {
        let Some(place) = replay.place(event) else {
            return violation("ordered", || format!("{} is nowhere in the log", name(event)));
        };
        if let Some((last, earlier)) = before.filter(|(last, _)| *last > place) {
            return violation("ordered", || {
                format!("{} after {} (place {last})", name(event), name(earlier))
            });
        }
        before = Some((place, event));
    }
    Ok(())
}

fn unique(way: &[Leg]) -> Checked {
    let mut seen = BTreeSet::new();
    for event in events(way) {
        if !seen.insert((event.pair.mod_revision, &event.pair.key)) {
            return violation("unique", || format!("{} comes twice", name(event)));
        }
    }
    Ok(())
}

/// A whole batch holds all of each revision of which it holds something; a partial one goes on with the next.
fn atomic(way: &[Leg], replay: &Replay) -> Checked {
    for (leg, whole) in
        way.iter().flat_map(|leg| whole_batches(leg).into_iter().map(move |whole| (leg, whole)))
    {
        let revisions: BTreeSet<Revision> = whole.iter().map(|event| event.pair.mod_revision).collect();
        for revision in revisions {
            let told = whole.iter().filter(|event| event.pair.mod_revision == revision).count();
            let owed = replay.owed(&leg.spec, (revision, revision)).count();
            if told != owed {
                let explain = || format!("{told} of {owed} events of revision {revision} come together");
                return violation("atomic", explain);
            }
        }
    }
    Ok(())
}

/// Between where it began and what it was told it was told, nothing is left out.
fn reliable(way: &[Leg], replay: &Replay) -> Checked {
    for leg in way {
        let Some(first) = begins_at(leg) else { continue };
        let upto = leg.heard.iter().filter_map(named).max();
        let told: BTreeSet<_> = leg_events(leg).map(place_of).collect();
        let Some(last) = upto.max(told.last().map(|(revision, _)| *revision)) else { continue };
        for owed in replay.owed(&leg.spec, (first, last)) {
            if !told.contains(&place_of(owed)) {
                return violation("reliable", || {
                    format!("{} is left out, though all from {first} to {last} was told", name(owed))
                });
            }
        }
    }
    Ok(())
}

/// A leg begins where it was asked to, one from now on not before now, and one that goes on where the last one ended; and
/// it ends by itself only if what it would be told next is compacted.
fn resumable(way: &[Leg], replay: &Replay) -> Checked {
    let mut next: Option<Revision> = None;
    for leg in way {
        let Some(first) = begins_at(leg) else { continue };
        if leg.spec.start == Revision(0) && first <= leg.floor {
            return violation("resumable", || {
                format!("a watch from now on begins at {first}, though {} had been seen", leg.floor)
            });
        }
        if let Some(next) = next.filter(|next| *next != first) {
            return violation("resumable", || format!("it goes on at {first}, and not at {next}"));
        }
        if let Some(event) = leg_events(leg).find(|event| event.pair.mod_revision < first) {
            return violation("resumable", || {
                format!("{} comes before {first}, where it begins", name(event))
            });
        }
        let goes_on = leg.heard.iter().filter_map(named).max().map_or(first, |upto| first.max(upto.next()));
        for heard in &leg.heard {
            if let Heard::Ended(compacted) = heard
                && (*compacted > replay.compacted || goes_on >= *compacted)
            {
                return violation("resumable", || {
                    format!("at {goes_on} it ends for a compaction to {compacted} ({})", replay.compacted)
                });
            }
        }
        next = Some(goes_on);
    }
    Ok(())
}

/// A revision that is named is told, and so nothing of it, or before it, comes later; and it was made.
fn bookmarkable(way: &[Leg], replay: &Replay) -> Checked {
    for leg in way {
        let mut bookmark = Revision(0);
        for heard in &leg.heard {
            if let Heard::Told(batch) = heard
                && let Some(event) = batch.events.iter().find(|event| event.pair.mod_revision <= bookmark)
            {
                return violation("bookmarkable", || {
                    format!("{} after the bookmark {bookmark}", name(event))
                });
            }
            let Some(revision) = named(heard) else { continue };
            if revision < bookmark || revision > replay.newest {
                return violation("bookmarkable", || {
                    format!("{revision} is named after {bookmark}; the newest is {}", replay.newest)
                });
            }
            bookmark = revision;
        }
    }
    Ok(())
}

/// The pair before is told to who wants it, unless there was none or it may be compacted.
fn previous(way: &[Leg], replay: &Replay) -> Checked {
    for leg in way {
        for event in leg_events(leg) {
            let before = replay.find(event).and_then(|found| found.previous.as_ref());
            let wants_it = leg.spec.interest.wants_previous;
            let may_be_compacted = event.pair.mod_revision <= replay.compacted;
            let is_right = if event.previous.is_some() {
                wants_it && event.previous.as_ref() == before
            } else {
                !wants_it || before.is_none() || may_be_compacted
            };
            if !is_right {
                return violation("told what was before", || {
                    format!("{} was told with {:?} and not {before:?}", name(event), event.previous)
                });
            }
        }
    }
    Ok(())
}

fn filter(way: &[Leg]) -> Checked {
    for leg in way {
        if let Some(event) = leg_events(leg).find(|event| !is_wanted(&leg.spec, event)) {
            return violation("filtered", || {
                format!("{} is not wanted: {:?}", name(event), leg.spec.interest)
            });
        }
    }
    Ok(())
}

/// What is told is what happened: above all, a creation where the key did not exist, and only there.
fn create(way: &[Leg], replay: &Replay) -> Checked {
    for event in events(way) {
        let Some(found) = replay.find(event) else { continue };
        if (&found.pair, found.is_deletion) != (&event.pair, event.is_deletion) {
            return violation("true", || format!("{:?} was told as {:?}", found.pair, event.pair));
        }
    }
    Ok(())
}

fn is_wanted(spec: &WatchSpec, event: &Event) -> bool {
    let interest = &spec.interest;
    let is_skipped = if event.is_deletion { interest.skips_deletions } else { interest.skips_puts };
    !is_skipped && interest.range.contains(&event.pair.key)
}

/// The first revision that a leg is owed.
fn begins_at(leg: &Leg) -> Option<Revision> {
    let created = leg.created?;
    Some(if leg.spec.start == Revision(0) { created.next() } else { leg.spec.start })
}

/// The revision up to which something says that everything was told.
fn named(heard: &Heard) -> Option<Revision> {
    match heard {
        Heard::Told(batch) => (!batch.is_partial).then_some(batch.revision),
        Heard::Reached(revision) => Some(*revision),
        Heard::Ended(_) => None,
    }
}

/// Batches with the parts before them, where they are whole.
fn whole_batches(leg: &Leg) -> Vec<Vec<&Event>> {
    let mut whole = Vec::new();
    let mut parts = Vec::new();
    for heard in &leg.heard {
        if let Heard::Told(batch) = heard {
            parts.extend(&batch.events);
            if !batch.is_partial {
                whole.push(core::mem::take(&mut parts));
            }
        }
    }
    whole
}

fn leg_events(leg: &Leg) -> impl Iterator<Item = &Event> {
    whole_batches(leg).into_iter().flatten()
}

/// What a client acted on: events of whole revisions, over all legs.
fn events(way: &[Leg]) -> impl Iterator<Item = &Event> {
    way.iter().flat_map(leg_events)
}

fn place_of(event: &Event) -> (Revision, &[u8]) {
    (event.pair.mod_revision, event.pair.key.as_ref())
}

fn name(event: &Event) -> String {
    let kind = if event.is_deletion { "deletion" } else { "put" };
    format!("the {kind} of {:?} at {}", event.pair.key, event.pair.mod_revision)
}

fn violation(property: &'static str, explain: impl FnOnce() -> String) -> Checked {
    Err(WatchViolation { property, explanation: explain() })
}

#[cfg(test)]
#[path = "watches_tests.rs"]
mod tests;
