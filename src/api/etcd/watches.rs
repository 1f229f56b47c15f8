//! From and to the messages of watches.

use super::proto::etcdserverpb as pb;
use super::{Standing, event, key_range};
use crate::auth::AuthRefusal;
use crate::ids::Revision;
use crate::kv::KeyRange;
use crate::limits::KEY_BYTES_MAX;
use crate::watch::{Ending, Interest, WatchSpec};
use bytes::Bytes;

/// Why a watch is not created, in etcd's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum NotWatched {
    EmptyRange,
    DuplicateId,
    Compacted,
    TooLong,
    TooMany,
    NotPermitted(AuthRefusal),
}

impl NotWatched {
    /// The reason that the client is told.
    pub const fn words(self) -> &'static str {
        match self {
            Self::EmptyRange => "mvcc: watcher range is empty",
            Self::DuplicateId => "mvcc: duplicate watch ID provided on the WatchStream",
            Self::Compacted => "mvcc: required revision has been compacted",
            Self::TooLong => "etcdserver: request is too large",
            Self::TooMany => "mainstay: too many watches",
            Self::NotPermitted(refusal) => super::users::text_and_code(refusal).0,
        }
    }
}

/// What a new watch is to be told.
///
/// # Errors
/// Why there can be no such watch.
pub fn watch_spec(request: &pb::WatchCreateRequest) -> Result<WatchSpec, NotWatched> {
    use pb::watch_create_request::FilterType;
    // No key is before this one, so an empty key means it (etcd's rule).
    let key = if request.key.is_empty() { &b"\0"[..] } else { &request.key };
    if key.len().max(request.range_end.len()) > KEY_BYTES_MAX {
        return Err(NotWatched::TooLong);
    }
    // Copies of their own: a watch lives long, and the message that it came in may be large.
    let (key, range_end) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(&request.range_end));
    let range = key_range(key, range_end).map_err(|_| NotWatched::EmptyRange)?;
    if matches!(&range, KeyRange::Span { start, end } if start >= end) {
        return Err(NotWatched::EmptyRange);
    }
    let start = u64::try_from(request.start_revision).map_err(|_| NotWatched::Compacted)?;
    let has = |filter: FilterType| request.filters.contains(&i32::from(filter));
    let interest = Interest {
        range,
        skips_puts: has(FilterType::Noput),
        skips_deletions: has(FilterType::Nodelete),
        wants_previous: request.prev_kv,
    };
    Ok(WatchSpec { interest, start: Revision(start), wants_progress: request.progress_notify })
}

/// The answer that creates a watch.
pub fn watch_created(standing: Standing, revision: Revision, id: i64) -> pb::WatchResponse {
    pb::WatchResponse { created: true, ..of_watch(standing, revision, id) }
}

/// The answer that says that a watch is not created.
pub fn watch_not_created(standing: Standing, revision: Revision, why: NotWatched) -> pb::WatchResponse {
    pb::WatchResponse {
        created: true,
        canceled: true,
        cancel_reason: why.words().to_owned(),
        ..of_watch(standing, revision, -1)
    }
}

/// The answer that ends a watch, because its client wants it.
pub fn watch_cancelled(standing: Standing, revision: Revision, id: i64) -> pb::WatchResponse {
    pb::WatchResponse { canceled: true, ..of_watch(standing, revision, id) }
}

/// The answer that ends a watch by itself.
pub fn watch_ended(standing: Standing, revision: Revision, id: i64, why: Ending) -> pb::WatchResponse {
    let cancelled = watch_cancelled(standing, revision, id);
    match why {
        Ending::Compacted(compacted) => {
            pb::WatchResponse { compact_revision: super::number(compacted), ..cancelled }
        }
        Ending::NotPermitted => {
            let cancel_reason = NotWatched::NotPermitted(AuthRefusal::Denied).words().to_owned();
            pb::WatchResponse { cancel_reason, ..cancelled }
        }
    }
}

/// How far a watch is, or with the id -1 all of a stream.
pub fn of_watch(standing: Standing, revision: Revision, id: i64) -> pb::WatchResponse {
    let header = Some(standing.header(revision));
    pb::WatchResponse { header, watch_id: id, ..Default::default() }
}

/// Changes as messages.
pub fn events(changes: &[crate::kv::Event]) -> Vec<super::proto::mvccpb::Event> {
    changes.iter().cloned().map(event).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_of_nothing_or_of_before_the_beginning_is_not_created() {
        let request = |key: &'static str, range_end: &'static str, start_revision| pb::WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            start_revision,
            ..Default::default()
        };
        assert_eq!(watch_spec(&request("b", "a", 0)), Err(NotWatched::EmptyRange));
        assert_eq!(watch_spec(&request("a", "a", 0)), Err(NotWatched::EmptyRange));
        assert_eq!(watch_spec(&request("a", "", -1)), Err(NotWatched::Compacted));
        let all = watch_spec(&request("", "\0", 7)).expect("everything can be watched");
        assert_eq!((all.interest.range, all.start), (KeyRange::From("\0".into()), Revision(7)));
    }
}
