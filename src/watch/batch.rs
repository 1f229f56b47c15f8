//! How changes become a batch: as many as fit, up to the end of a revision if possible.
//!
//! What always holds: a batch of a run of changes leaves out none that concerns the interest; if it ends within a
//! revision of which it tells something, it says so; whoever goes on at `next` misses nothing and hears nothing twice.

use super::words::{Batch, Interest};
use crate::ids::Revision;
use crate::kv::{Changed, Event, Moment};
use crate::planted;

/// Bytes of an event without its keys and values, encoded, about.
const EVENT_BYTES: usize = 48;

/// What came of a run of changes.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) batch: Batch,
    /// About how long the batch is, encoded.
    pub(super) bytes: usize,
    /// The first change that was not looked at.
    pub(super) next: Moment,
    /// How many changes were looked at.
    pub(super) looked_at: usize,
}

/// Makes a batch of `changes`, which begin at `from`, where the last batch ended, and go on to the end of `newest`.
///
/// `bytes_max`: how long it may become; one event is always told. `changes_max`: how many may be looked at.
pub(super) fn gather<'store>(
    interest: &Interest,
    changes: impl Iterator<Item = (Moment, Changed<'store>)>,
    (from, newest): (Moment, Revision),
    bytes_max: usize,
    changes_max: usize,
) -> Gathered {
    let mut events: Vec<Event> = Vec::new();
    let (mut bytes, mut looked_at) = (0, 0);
    let mut stopped_at = None;
    for (made, changed) in changes {
        if looked_at == changes_max {
            stopped_at = Some(made);
            break;
        }
        looked_at += 1;
        if !interest.wants(&changed) {
            continue;
        }
        let event = changed.to_event(interest.wants_previous);
        let event_bytes = bytes_of(&event);
        if !events.is_empty() && bytes + event_bytes > bytes_max {
            stopped_at = Some(made);
            break;
        }
        bytes += event_bytes;
        events.push(event);
    }
    let Some(stopped_at) = stopped_at else {
        let batch = Batch { revision: newest, is_partial: false, events };
        return Gathered { batch, bytes, next: Moment { revision: newest.next(), order: 0 }, looked_at };
    };
    let mut next = stopped_at;
    let begun = stopped_at.revision;
    let whole_count = events.partition_point(|event| event.pair.mod_revision < begun);
    // A part of an earlier revision was told, and so where that one ends is told by itself if need be.
    let ends_earlier = from.order > 0 && from.revision < begun;
    if whole_count < events.len() && (whole_count > 0 || ends_earlier) {
        // Those of the revision that does not fit are told with the rest of it.
        events.truncate(whole_count);
        bytes = events.iter().map(bytes_of).sum();
        next = Moment { revision: begun, order: 0 };
    }
    let is_partial = events.last().is_some_and(|event| event.pair.mod_revision == begun);
    let mut batch = Batch { revision: Revision(begun.0 - 1), is_partial, events };
    if planted!(377) && is_partial {
        (batch.revision, batch.is_partial) = (begun, false);
    }
    Gathered { batch, bytes, next, looked_at }
}

fn bytes_of(event: &Event) -> usize {
    let previous = event.previous.as_ref().map_or(0, |pair| pair.key.len() + pair.value.len() + EVENT_BYTES);
    EVENT_BYTES + event.pair.key.len() + event.pair.value.len() + previous
}
