//! How long an answer is, as sessions count it.
//!
//! What is remembered of an answer follows from its size, and members must remember alike: the size is part of the
//! replicated rule. So it is counted here, by a rule of its own that is **frozen**: it follows neither the codec nor the
//! memory that an answer takes, though it is about both, and a change of it is a change of the format of the log. The
//! golden sizes below hold it. Left out: what comes of it (`sessions.rs`).

use crate::api::Response;
use crate::kv::{KeyValue, LeaseOutcome, OperationResult, Outcome};

/// Any answer.
const ANSWER_BYTES: usize = 16;

/// Each operation of a transaction that ran.
const RESULT_BYTES: usize = 16;

/// Each pair, beside its key and value.
const PAIR_BYTES: usize = 64;

/// Each id of a list of leases; and each key of a lease, beside its bytes.
const LISTED_BYTES: usize = 8;

/// The size of an answer, in bytes.
pub(super) fn answer_bytes(response: &Response) -> usize {
    let more = match response {
        Response::Applied(applied) => match &applied.outcome {
            Outcome::Put(result) => pairs_bytes(result.previous.as_slice()),
            Outcome::DeleteRange(result) => pairs_bytes(&result.previous),
            Outcome::Range(result) => pairs_bytes(&result.pairs),
            Outcome::Txn(result) => results_bytes(&result.results),
            Outcome::Lease(LeaseOutcome::Listed(leases)) => LISTED_BYTES * leases.len(),
            Outcome::Lease(LeaseOutcome::TimeToLive(Some(known))) => {
                known.keys.iter().map(|key| LISTED_BYTES + key.len()).sum()
            }
            Outcome::Compacted | Outcome::Lease(_) | Outcome::SpaceAlarm(_) | Outcome::Refused(_) => 0,
        },
        // A read; no session remembers any.
        Response::Aged { .. }
        | Response::SessionOpened { .. }
        | Response::SessionClosed
        | Response::Status(_)
        | Response::Watch(_)
        | Response::Snapshot(_)
        | Response::Users { .. }
        | Response::Refused(_) => 0,
    };
    ANSWER_BYTES + more
}

fn results_bytes(results: &[OperationResult]) -> usize {
    let bytes = |result: &OperationResult| match result {
        OperationResult::Put(result) => pairs_bytes(result.previous.as_slice()),
        OperationResult::DeleteRange(result) => pairs_bytes(&result.previous),
        OperationResult::Range(result) => pairs_bytes(&result.pairs),
        OperationResult::Txn(result) => results_bytes(&result.results),
    };
    results.iter().map(|result| RESULT_BYTES + bytes(result)).sum()
}

fn pairs_bytes(pairs: &[KeyValue]) -> usize {
    pairs.iter().map(|pair| PAIR_BYTES + pair.key.len() + pair.value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Refusal;
    use crate::ids::{LeaseId, Revision, SessionId};
    use crate::kv::{
        Applied, DeleteRangeResult, Grant, PutResult, RangeResult, Renewed, SpaceAlarm, StoreRefusal,
        TimeToLive, TxnResult,
    };
    use crate::limits::SMALL_ANSWER_BYTES_MAX;

    fn size(outcome: Outcome) -> usize {
        answer_bytes(&Response::Applied(Applied { revision: Revision(u64::MAX), outcome }))
    }

    /// A pair of `key` bytes and `value` bytes.
    fn pair(key: usize, value: usize) -> KeyValue {
        KeyValue {
            key: vec![b'k'; key].into(),
            value: vec![b'v'; value].into(),
            create_revision: Revision(2),
            mod_revision: Revision(3),
            version: 4,
            lease: LeaseId(5),
        }
    }

    #[test]
    fn the_sizes_are_golden() {
        let put = |previous| Outcome::Put(PutResult { previous });
        assert_eq!(size(put(None)), 16);
        assert_eq!(size(put(Some(pair(3, 100)))), 183);
        let delete = |previous| Outcome::DeleteRange(DeleteRangeResult { deleted: 9, previous });
        assert_eq!(size(delete(Vec::new())), 16);
        assert_eq!(size(delete(vec![pair(1, 0), pair(2, 10)])), 157);
        let range = RangeResult { pairs: vec![pair(1, 1)], more: true, count: 7 };
        assert_eq!(size(Outcome::Range(range.clone())), 82);
        let inner = TxnResult { succeeded: false, results: vec![OperationResult::Range(range)] };
        let results = vec![
            OperationResult::Put(PutResult { previous: None }),
            OperationResult::DeleteRange(DeleteRangeResult { deleted: 1, previous: vec![pair(4, 5)] }),
            OperationResult::Txn(inner),
        ];
        assert_eq!(size(Outcome::Txn(TxnResult { succeeded: true, results })), 219);
        assert_eq!(size(Outcome::Txn(TxnResult { succeeded: true, results: Vec::new() })), 16);
        let known = TimeToLive { ttl_ms: 1, remaining_ms: 1, keys: vec!["key".into(), "".into()] };
        for (outcome, bytes) in [
            (LeaseOutcome::Granted(Grant { lease: LeaseId(1), ttl_ms: 1 }), 16),
            (LeaseOutcome::Revoked, 16),
            (LeaseOutcome::Checkpointed, 16),
            (LeaseOutcome::Renewed(Renewed { ttl_ms: 1 }), 16),
            (LeaseOutcome::Listed(vec![LeaseId(1); 3]), 40),
            (LeaseOutcome::TimeToLive(None), 16),
            (LeaseOutcome::TimeToLive(Some(known)), 35),
        ] {
            assert_eq!(size(Outcome::Lease(outcome)), bytes);
        }
        assert_eq!(size(Outcome::Compacted), 16);
        assert_eq!(size(Outcome::SpaceAlarm(SpaceAlarm::by_bytes(true))), 16);
        assert_eq!(answer_bytes(&Response::SessionOpened { session: SessionId(1) }), 16);
        assert_eq!(answer_bytes(&Response::SessionClosed), 16);
        assert_eq!(answer_bytes(&Response::Refused(Refusal::Malformed)), 16);
    }

    #[test]
    fn what_the_store_refuses_and_a_transaction_of_seven_plain_operations_are_small() {
        assert!(size(Outcome::Refused(StoreRefusal::NoSpace)) <= SMALL_ANSWER_BYTES_MAX);
        let results = vec![OperationResult::Put(PutResult { previous: None }); 7];
        assert_eq!(size(Outcome::Txn(TxnResult { succeeded: true, results })), SMALL_ANSWER_BYTES_MAX);
    }
}
