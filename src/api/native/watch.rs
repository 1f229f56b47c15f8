//! Watches as bytes (PROTOCOL §5, §7): what is asked of them, and what they are told.
//!
//! What always holds: what many watches are told is encoded once, whatever their number; only the head of each frame,
//! which names the watch, is its own.

use super::command::{key_range, put_key_range};
use super::cursor::{Cursor, Malformed, put_bytes, put_count};
use super::frame::frame_head;
use super::kind;
use super::response::{PAIR_BYTES_MIN, pair, put_pair};
use crate::api::{WatchAnswer, WatchRequest};
use crate::ids::{KeyspaceId, LeaseId, Revision, WatchId};
use crate::kv::{Event, KeyValue};
use crate::limits::{KEY_BYTES_MAX, RESPONSE_BYTES_MAX};
use crate::watch::{Batch, Ending, Interest, WatchSpec};
use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of the shortest event: a deletion of an empty key, without what it was.
const EVENT_BYTES_MIN: usize = 1 + 4 + 8 + 1;

const TAG_PUT: u8 = 1;
const TAG_DELETION: u8 = 2;

/// Writes the body of a request and returns its kind.
pub(super) fn put_request(out: &mut BytesMut, request: &WatchRequest) -> u8 {
    match request {
        WatchRequest::Create { keyspace, spec } => {
            out.put_u32_le(keyspace.0);
            put_key_range(out, &spec.interest.range);
            out.put_u64_le(spec.start.0);
            out.put_u8(u8::from(spec.interest.skips_puts));
            out.put_u8(u8::from(spec.interest.skips_deletions));
            out.put_u8(u8::from(spec.interest.wants_previous));
            out.put_u8(u8::from(spec.wants_progress));
            kind::CREATE_WATCH
        }
        WatchRequest::Cancel { watch } => {
            out.put_u64_le(watch.0);
            kind::CANCEL_WATCH
        }
        WatchRequest::Progress { watch } => {
            out.put_u64_le(watch.0);
            kind::WATCH_PROGRESS
        }
    }
}

/// Reads the body of the request of this kind, if it is one about watches.
pub(super) fn request(kind: u8, cursor: &mut Cursor<'_>) -> Result<WatchRequest, Malformed> {
    Ok(match kind {
        kind::CREATE_WATCH => {
            let keyspace = KeyspaceId(cursor.u32("keyspace")?);
            let range = key_range(cursor)?;
            let start = Revision(cursor.u64("start")?);
            let interest = Interest {
                range,
                skips_puts: cursor.bool("skips_puts")?,
                skips_deletions: cursor.bool("skips_deletions")?,
                wants_previous: cursor.bool("wants_previous")?,
            };
            let spec = WatchSpec { interest, start, wants_progress: cursor.bool("wants_progress")? };
            WatchRequest::Create { keyspace, spec }
        }
        kind::CANCEL_WATCH => WatchRequest::Cancel { watch: WatchId(cursor.u64("watch")?) },
        kind::WATCH_PROGRESS => WatchRequest::Progress { watch: WatchId(cursor.u64("watch")?) },
        found => return Err(cursor.unknown("request kind", 0, found)),
    })
}

/// Writes the body of an answer and returns its kind.
pub(super) fn put_answer(out: &mut BytesMut, answer: &WatchAnswer) -> u8 {
    match answer {
        WatchAnswer::Created { revision } => {
            out.put_u64_le(revision.0);
            kind::WATCH_CREATED
        }
        WatchAnswer::Cancelled => kind::WATCH_CANCELLED,
        WatchAnswer::Reached { revision } => {
            out.put_u64_le(revision.0);
            kind::WATCH_REACHED
        }
        WatchAnswer::Told(batch) => {
            put_batch(out, batch);
            kind::WATCH_TOLD
        }
        WatchAnswer::Ended { why } => {
            out.put_u64_le(match why {
                Ending::Compacted(compacted) => compacted.0,
                Ending::NotPermitted => 0,
            });
            kind::WATCH_ENDED
        }
    }
}

/// Reads the body of the answer of this kind, if it is one about watches.
pub(super) fn answer(kind: u8, cursor: &mut Cursor<'_>) -> Result<WatchAnswer, Malformed> {
    Ok(match kind {
        kind::WATCH_CREATED => WatchAnswer::Created { revision: Revision(cursor.u64("revision")?) },
        kind::WATCH_CANCELLED => WatchAnswer::Cancelled,
        kind::WATCH_REACHED => WatchAnswer::Reached { revision: Revision(cursor.u64("revision")?) },
        kind::WATCH_TOLD => WatchAnswer::Told(Batch {
            revision: Revision(cursor.u64("revision")?),
            is_partial: cursor.bool("is_partial")?,
            events: cursor.list("events", RESPONSE_BYTES_MAX / EVENT_BYTES_MIN, EVENT_BYTES_MIN, event)?,
        }),
        kind::WATCH_ENDED => WatchAnswer::Ended {
            why: match cursor.u64("compacted")? {
                0 => Ending::NotPermitted,
                compacted => Ending::Compacted(Revision(compacted)),
            },
        },
        found => return Err(cursor.unknown("response kind", 0, found)),
    })
}

/// A batch as the body of a frame, encoded once for all watches that are told it.
#[derive(Clone, Debug)]
pub struct EncodedBatch {
    body: Bytes,
}

impl EncodedBatch {
    /// Encodes a batch.
    pub fn new(batch: &Batch) -> Self {
        let mut body = BytesMut::with_capacity(batch_bytes_expected(batch));
        put_batch(&mut body, batch);
        Self { body: body.freeze() }
    }

    /// The body: what stands behind the head of every frame.
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// The head of the frame for one watch.
    pub fn head(&self, watch: WatchId) -> Bytes {
        Bytes::copy_from_slice(&frame_head(kind::WATCH_TOLD, watch.0, &self.body))
    }

    /// Appends the whole frame for one watch.
    pub fn append_frame(&self, watch: WatchId, out: &mut BytesMut) {
        out.put_slice(&frame_head(kind::WATCH_TOLD, watch.0, &self.body));
        out.put_slice(&self.body);
    }
}

/// About how long the body of a batch will be.
pub(super) fn batch_bytes_expected(batch: &Batch) -> usize {
    let pair_bytes = |pair: &KeyValue| PAIR_BYTES_MIN + pair.key.len() + pair.value.len();
    let event_bytes =
        |event: &Event| 2 + pair_bytes(&event.pair) + event.previous.as_ref().map_or(0, pair_bytes);
    8 + 1 + 4 + batch.events.iter().map(event_bytes).sum::<usize>()
}

fn put_batch(out: &mut BytesMut, batch: &Batch) {
    out.put_u64_le(batch.revision.0);
    out.put_u8(u8::from(batch.is_partial));
    put_count(out, batch.events.len());
    for event in &batch.events {
        if event.is_deletion {
            out.put_u8(TAG_DELETION);
            put_bytes(out, &event.pair.key);
            out.put_u64_le(event.pair.mod_revision.0);
        } else {
            out.put_u8(TAG_PUT);
            put_pair(out, &event.pair);
        }
        out.put_u8(u8::from(event.previous.is_some()));
        if let Some(previous) = &event.previous {
            put_pair(out, previous);
        }
    }
}

fn event(cursor: &mut Cursor<'_>) -> Result<Event, Malformed> {
    let (now, is_deletion) = match cursor.u8("event tag")? {
        TAG_PUT => (pair(cursor)?, false),
        TAG_DELETION => {
            let key = cursor.bytes("key", KEY_BYTES_MAX)?;
            let mod_revision = Revision(cursor.u64("mod_revision")?);
            let nothing = KeyValue {
                key,
                value: Bytes::new(),
                create_revision: Revision(0),
                mod_revision,
                version: 0,
                lease: LeaseId(0),
            };
            (nothing, true)
        }
        found => return Err(cursor.unknown("event tag", 1, found)),
    };
    let previous = if cursor.bool("previous presence")? { Some(pair(cursor)?) } else { None };
    Ok(Event { pair: now, is_deletion, previous })
}
