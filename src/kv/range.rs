//! Reads of a range of keys at one revision.
//!
//! The revision is looked at first, on its own ([`revision_refusal`]), because a transaction has to know before
//! its first write that none of its reads will be refused. Reading itself cannot fail.

use super::command::{Range, RangeResult, StoreRefusal};
use super::keys::Keys;
use crate::ids::Revision;
use bytes::Bytes;

/// Why a read asked at `asked` cannot be answered when the store is at `current`, if so.
pub(super) fn revision_refusal(asked: Revision, current: Revision) -> Option<StoreRefusal> {
    (asked > current).then_some(StoreRefusal::FutureRevision)
}

/// Reads. `newest` is the revision that a read which names none sees.
pub(super) fn read(keys: &Keys, range: &Range, newest: Revision) -> RangeResult {
    let at = if range.revision == Revision(0) { newest } else { range.revision };
    let limit = if range.limit == 0 { u64::MAX } else { range.limit };
    let mut result = RangeResult::default();
    // The count is of the whole range whatever the limit (etcd's rule), so the walk goes on to its end.
    keys.visit(&range.range, at, |seen| {
        if !range.count_only && result.count < limit {
            let mut pair = seen.to_key_value();
            if range.keys_only {
                pair.value = Bytes::new();
            }
            result.pairs.push(pair);
        }
        result.count += 1;
    });
    // An answer that was to have no pairs was not cut short.
    result.more = !range.count_only && result.count > limit;
    result
}
