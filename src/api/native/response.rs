//! Answers as frames, and as the bytes a leader hands back to the member that forwarded a request (PROTOCOL §7).

use super::command::{grant, put_grant, put_space_alarm, space_alarm_by_hand, tag};
use super::cursor::{Cursor, Fault, Malformed, put_bytes, put_count};
use super::frame::{Frame, begin_frame_behind, finish_frame_at};
use super::kind;
use super::refusal::{put_refusal, refusal, store_code, store_refusal};
use super::watch;
use crate::api::{
    Counter, MemberView, Refusal, Response, Role, SnapshotAnswer, Stage, Status, UsersAnswer, WatchAnswer,
};
use crate::ids::{ClusterId, LeaseId, LogIndex, MemberId, Revision, SessionId, Term};
use crate::kv::{
    Applied, DeleteRangeResult, KeyValue, LeaseOutcome, OperationResult, Outcome, PutResult, RangeResult,
    Renewed, SpaceAlarm, TimeToLive, TxnResult,
};
use crate::limits::{
    KEY_BYTES_MAX, LEASES_MAX, RESPONSE_BYTES_MAX, SNAPSHOT_PIECE_BYTES, STATUS_MEASURES_MAX,
    STATUS_MEMBERS_MAX, STATUS_NAME_BYTES_MAX, STATUS_WORDS_BYTES_MAX, TXN_DEPTH_MAX, TXN_OPERATIONS_MAX,
    VALUE_BYTES_MAX,
};
use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of a pair with an empty key and value.
pub(super) const PAIR_BYTES_MIN: usize = 4 + 4 + 4 * 8;
/// Bytes of a member of a status with empty texts.
const MEMBER_VIEW_BYTES_MIN: usize = 8 + 4 * 4 + 1;
/// Bytes of a stage of a status with an empty name.
const STAGE_BYTES_MIN: usize = 4 + 4 * 8;
/// Bytes of a counter of a status with an empty name.
const COUNTER_BYTES_MIN: usize = 4 + 8;
/// What stands for an age that is not known.
const AGE_UNKNOWN: u64 = u64::MAX;
/// Bytes of the shortest operation result: a put without a previous pair.
const OPERATION_RESULT_BYTES_MIN: usize = 1 + 1;
/// Bytes of an operation result without its pairs, at most: a range's.
const OPERATION_RESULT_BYTES_EXPECTED: usize = 1 + 1 + 8 + 4;
/// Bytes of a body without its pairs: most kinds take less.
const BODY_BYTES_EXPECTED: usize = 128;

/// The whole frame of an answer.
///
/// An answer that is too long for a frame becomes the refusal `AnswerTooLong`.
pub fn encode_response_frame(id: u64, response: &Response) -> Bytes {
    let mut out = BytesMut::new();
    append_response_frame(&mut out, id, response);
    out.freeze()
}

/// The same, behind what `out` holds already.
pub fn append_response_frame(out: &mut BytesMut, id: u64, response: &Response) {
    let Some(bytes_expected) = bytes_expected_within_limit(response) else {
        return append_response_frame(out, id, &Response::Refused(Refusal::AnswerTooLong));
    };
    let start = begin_frame_behind(out, bytes_expected);
    let kind = put_response(out, response);
    finish_frame_at(out, start, kind, id);
}

/// Reads an answer.
///
/// # Errors
/// Says what was expected, what was found, and at which byte of the body.
pub fn decode_response_frame(frame: &Frame) -> Result<Response, Malformed> {
    let mut cursor = Cursor::new(&frame.body);
    response(frame.kind, &mut cursor)
}

/// An answer without a frame: the kind, then the body. A forwarded request's answer travels between members so.
pub fn encode_response(response: &Response) -> Bytes {
    let Some(bytes_expected) = bytes_expected_within_limit(response) else {
        return encode_response(&Response::Refused(Refusal::AnswerTooLong));
    };
    let mut out = BytesMut::with_capacity(1 + bytes_expected);
    out.put_u8(0);
    let kind = put_response(&mut out, response);
    out[0] = kind;
    out.freeze()
}

/// Reads what `encode_response` made.
///
/// # Errors
/// Says what was expected, what was found, and at which byte.
pub fn decode_response(bytes: &Bytes) -> Result<Response, Malformed> {
    let mut cursor = Cursor::new(bytes);
    let kind = cursor.u8("response kind")?;
    response(kind, &mut cursor)
}

fn response(kind: u8, cursor: &mut Cursor<'_>) -> Result<Response, Malformed> {
    let response = match kind {
        kind::SESSION_OPENED => Response::SessionOpened { session: SessionId(cursor.u64("session")?) },
        kind::SESSION_CLOSED => Response::SessionClosed,
        kind::APPLIED => Response::Applied(Applied {
            revision: Revision(cursor.u64("revision")?),
            outcome: outcome(cursor)?,
        }),
        kind::AGED => Response::Aged {
            age_micros: Some(cursor.u64("age_micros")?).filter(|age| *age != AGE_UNKNOWN),
            applied: Applied { revision: Revision(cursor.u64("revision")?), outcome: outcome(cursor)? },
        },
        kind::STATUS_ANSWER => Response::Status(Box::new(status(cursor)?)),
        kind::USERS_CHANGED => {
            Response::Users { revision: Revision(cursor.u64("revision")?), answer: UsersAnswer::Changed }
        }
        kind::REFUSED => Response::Refused(refusal(cursor)?),
        kind::SNAPSHOT_CUT => Response::Snapshot(SnapshotAnswer::Cut {
            index: LogIndex(cursor.u64("index")?),
            term: Term(cursor.u64("term")?),
            bytes_count: cursor.u64("bytes")?,
            hash: cursor.u64("hash")?,
        }),
        kind::SNAPSHOT_PIECE => {
            Response::Snapshot(SnapshotAnswer::Piece(cursor.bytes("piece", SNAPSHOT_PIECE_BYTES)?))
        }
        other => Response::Watch(watch::answer(other, cursor)?),
    };
    cursor.finish()?;
    Ok(response)
}

fn status(cursor: &mut Cursor<'_>) -> Result<Status, Malformed> {
    Ok(Status {
        member: MemberId(cursor.u64("member")?),
        role: match cursor.u8("role")? {
            1 => Role::Follower,
            2 => Role::Candidate,
            3 => Role::Leader,
            found => return Err(cursor.unknown("role", 1, found)),
        },
        term: Term(cursor.u64("term")?),
        leader: match cursor.u64("leader")? {
            0 => None,
            leader => Some(MemberId(leader)),
        },
        last_index: LogIndex(cursor.u64("last_index")?),
        commit_index: LogIndex(cursor.u64("commit_index")?),
        applied_index: LogIndex(cursor.u64("applied_index")?),
        revision: Revision(cursor.u64("revision")?),
        waiting_for: cursor.text("waiting_for", STATUS_WORDS_BYTES_MAX)?,
        cluster: ClusterId(cursor.u64("cluster")?),
        version: cursor.text("version", STATUS_NAME_BYTES_MAX)?,
        sync_p50_micros: cursor.u64("sync_p50_micros")?,
        sync_p99_micros: cursor.u64("sync_p99_micros")?,
        members: cursor.list("members", STATUS_MEMBERS_MAX, MEMBER_VIEW_BYTES_MIN, member_view)?,
        stages: cursor.list("stages", STATUS_MEASURES_MAX, STAGE_BYTES_MIN, stage)?,
        counters: cursor.list("counters", STATUS_MEASURES_MAX, COUNTER_BYTES_MIN, counter)?,
    })
}

fn stage(cursor: &mut Cursor<'_>) -> Result<Stage, Malformed> {
    Ok(Stage {
        name: cursor.text("stage name", STATUS_NAME_BYTES_MAX)?,
        count: cursor.u64("stage count")?,
        p50_micros: cursor.u64("p50_micros")?,
        p99_micros: cursor.u64("p99_micros")?,
        max_micros: cursor.u64("max_micros")?,
    })
}

fn counter(cursor: &mut Cursor<'_>) -> Result<Counter, Malformed> {
    Ok(Counter {
        name: cursor.text("counter name", STATUS_NAME_BYTES_MAX)?,
        value: cursor.u64("counter value")?,
    })
}

fn member_view(cursor: &mut Cursor<'_>) -> Result<MemberView, Malformed> {
    Ok(MemberView {
        id: MemberId(cursor.u64("member id")?),
        name: cursor.text("member name", STATUS_NAME_BYTES_MAX)?,
        native: cursor.text("native address", STATUS_NAME_BYTES_MAX)?,
        client: cursor.text("client address", STATUS_NAME_BYTES_MAX)?,
        peer: cursor.text("peer address", STATUS_NAME_BYTES_MAX)?,
        is_reachable: cursor.bool("is_reachable")?,
    })
}

fn outcome(cursor: &mut Cursor<'_>) -> Result<Outcome, Malformed> {
    match cursor.u8("outcome tag")? {
        tag::PUT => Ok(Outcome::Put(put_result(cursor)?)),
        tag::DELETE_RANGE => Ok(Outcome::DeleteRange(delete_range_result(cursor)?)),
        tag::TXN => Ok(Outcome::Txn(txn_result(cursor, TXN_DEPTH_MAX)?)),
        tag::RANGE => Ok(Outcome::Range(range_result(cursor)?)),
        tag::COMPACT => Ok(Outcome::Compacted),
        tag::LEASE_GRANT => Ok(Outcome::Lease(LeaseOutcome::Granted(grant(cursor)?))),
        tag::SPACE_ALARM => Ok(Outcome::SpaceAlarm(SpaceAlarm::by_bytes(cursor.bool("is_raised")?))),
        tag::SPACE_ALARM_BY_HAND => Ok(Outcome::SpaceAlarm(space_alarm_by_hand(cursor)?)),
        tag::LEASE_REVOKE => Ok(Outcome::Lease(LeaseOutcome::Revoked)),
        tag::LEASE_CHECKPOINT => Ok(Outcome::Lease(LeaseOutcome::Checkpointed)),
        tag::LEASE_RENEW => {
            Ok(Outcome::Lease(LeaseOutcome::Renewed(Renewed { ttl_ms: cursor.u64("ttl_ms")? })))
        }
        tag::LEASES => {
            let lease = |cursor: &mut Cursor<'_>| cursor.u64("lease").map(LeaseId);
            Ok(Outcome::Lease(LeaseOutcome::Listed(cursor.list("leases", LEASES_MAX, 8, lease)?)))
        }
        tag::LEASE_TIME_TO_LIVE => {
            let is_known = cursor.bool("lease presence")?;
            let known = if is_known { Some(time_to_live(cursor)?) } else { None };
            Ok(Outcome::Lease(LeaseOutcome::TimeToLive(known)))
        }
        tag::REFUSED => Ok(Outcome::Refused(store_refusal(cursor)?)),
        found => Err(cursor.unknown("outcome tag", 1, found)),
    }
}

fn time_to_live(cursor: &mut Cursor<'_>) -> Result<TimeToLive, Malformed> {
    Ok(TimeToLive {
        ttl_ms: cursor.u64("ttl_ms")?,
        remaining_ms: cursor.u64("remaining_ms")?,
        keys: cursor.list("keys", RESPONSE_BYTES_MAX / 4, 4, |cursor| cursor.bytes("key", KEY_BYTES_MAX))?,
    })
}

/// Reads the result of a transaction of at most `levels` levels, this one included.
fn txn_result(cursor: &mut Cursor<'_>, levels: usize) -> Result<TxnResult, Malformed> {
    let Some(nested_levels) = levels.checked_sub(1) else {
        let (limit, found) = (TXN_DEPTH_MAX, TXN_DEPTH_MAX + 1);
        return Err(cursor.fault(Fault::TooMany { what: "levels of transactions", limit, found }));
    };
    Ok(TxnResult {
        succeeded: cursor.bool("succeeded")?,
        results: cursor.list(
            "operation results",
            TXN_OPERATIONS_MAX,
            OPERATION_RESULT_BYTES_MIN,
            |cursor| operation_result(cursor, nested_levels),
        )?,
    })
}

fn operation_result(cursor: &mut Cursor<'_>, nested_levels: usize) -> Result<OperationResult, Malformed> {
    match cursor.u8("operation result tag")? {
        tag::PUT => Ok(OperationResult::Put(put_result(cursor)?)),
        tag::DELETE_RANGE => Ok(OperationResult::DeleteRange(delete_range_result(cursor)?)),
        tag::RANGE => Ok(OperationResult::Range(range_result(cursor)?)),
        tag::TXN => Ok(OperationResult::Txn(txn_result(cursor, nested_levels)?)),
        found => Err(cursor.unknown("operation result tag", 1, found)),
    }
}

fn put_result(cursor: &mut Cursor<'_>) -> Result<PutResult, Malformed> {
    let previous = if cursor.bool("previous presence")? { Some(pair(cursor)?) } else { None };
    Ok(PutResult { previous })
}

fn delete_range_result(cursor: &mut Cursor<'_>) -> Result<DeleteRangeResult, Malformed> {
    Ok(DeleteRangeResult { deleted: cursor.u64("deleted")?, previous: pairs(cursor)? })
}

fn range_result(cursor: &mut Cursor<'_>) -> Result<RangeResult, Malformed> {
    let more = cursor.bool("more")?;
    let count = cursor.u64("count")?;
    Ok(RangeResult { pairs: pairs(cursor)?, more, count })
}

/// Pairs are bounded by the frame they came in, and their count by the bytes that are left of it.
fn pairs(cursor: &mut Cursor<'_>) -> Result<Vec<KeyValue>, Malformed> {
    cursor.list("pairs", RESPONSE_BYTES_MAX / PAIR_BYTES_MIN, PAIR_BYTES_MIN, pair)
}

pub(super) fn pair(cursor: &mut Cursor<'_>) -> Result<KeyValue, Malformed> {
    Ok(KeyValue {
        key: cursor.bytes("key", KEY_BYTES_MAX)?,
        value: cursor.bytes("value", VALUE_BYTES_MAX)?,
        create_revision: Revision(cursor.u64("create_revision")?),
        mod_revision: Revision(cursor.u64("mod_revision")?),
        version: cursor.u64("version")?,
        lease: LeaseId(cursor.u64("lease")?),
    })
}

/// A text, cut to its limit.
fn put_text(out: &mut BytesMut, text: &str, bytes_max: usize) {
    let cut = text.floor_char_boundary(bytes_max);
    put_bytes(out, text.get(..cut).unwrap_or_default().as_bytes());
}

/// Bytes of the body, its pairs exactly and the rest about, so that most answers are written without memory that grows
/// and one that is far too long is never written.
pub fn response_bytes_expected(response: &Response) -> usize {
    let pairs_bytes = match response {
        Response::Applied(applied) | Response::Aged { applied, .. } => match &applied.outcome {
            Outcome::Put(result) => pairs_bytes(result.previous.as_slice()),
            Outcome::DeleteRange(result) => pairs_bytes(&result.previous),
            Outcome::Range(result) => pairs_bytes(&result.pairs),
            Outcome::Txn(result) => result.results.iter().map(result_bytes_expected).sum(),
            Outcome::Lease(LeaseOutcome::Listed(leases)) => 8 * leases.len(),
            Outcome::Lease(LeaseOutcome::TimeToLive(Some(known))) => {
                known.keys.iter().map(|key| 4 + key.len()).sum()
            }
            Outcome::Compacted | Outcome::Lease(_) | Outcome::SpaceAlarm(_) | Outcome::Refused(_) => 0,
        },
        Response::Watch(WatchAnswer::Told(batch)) => watch::batch_bytes_expected(batch),
        Response::Snapshot(SnapshotAnswer::Piece(bytes)) => bytes.len(),
        Response::SessionOpened { .. }
        | Response::SessionClosed
        | Response::Status(_)
        | Response::Watch(_)
        | Response::Snapshot(_)
        | Response::Users { .. }
        | Response::Refused(_) => 0,
    };
    BODY_BYTES_EXPECTED + pairs_bytes
}

/// As `response_bytes_expected`; `None` if the body might be longer than a frame takes.
fn bytes_expected_within_limit(response: &Response) -> Option<usize> {
    let expected = response_bytes_expected(response);
    (expected <= RESPONSE_BYTES_MAX - STATUS_WORDS_BYTES_MAX).then_some(expected)
}

fn result_bytes_expected(result: &OperationResult) -> usize {
    let inner_bytes = match result {
        OperationResult::Put(result) => pairs_bytes(result.previous.as_slice()),
        OperationResult::DeleteRange(result) => pairs_bytes(&result.previous),
        OperationResult::Range(result) => pairs_bytes(&result.pairs),
        OperationResult::Txn(result) => result.results.iter().map(result_bytes_expected).sum(),
    };
    OPERATION_RESULT_BYTES_EXPECTED + inner_bytes
}

fn pairs_bytes(pairs: &[KeyValue]) -> usize {
    pairs.iter().map(|pair| PAIR_BYTES_MIN + pair.key.len() + pair.value.len()).sum()
}

/// Writes the body and returns its kind.
fn put_response(out: &mut BytesMut, response: &Response) -> u8 {
    match response {
        Response::SessionOpened { session } => {
            out.put_u64_le(session.0);
            kind::SESSION_OPENED
        }
        Response::SessionClosed => kind::SESSION_CLOSED,
        Response::Applied(applied) => {
            out.put_u64_le(applied.revision.0);
            put_outcome(out, &applied.outcome);
            kind::APPLIED
        }
        Response::Aged { age_micros, applied } => {
            out.put_u64_le(age_micros.unwrap_or(AGE_UNKNOWN));
            out.put_u64_le(applied.revision.0);
            put_outcome(out, &applied.outcome);
            kind::AGED
        }
        Response::Status(status) => {
            put_status(out, status);
            kind::STATUS_ANSWER
        }
        Response::Watch(answer) => watch::put_answer(out, answer),
        Response::Snapshot(SnapshotAnswer::Cut { index, term, bytes_count, hash }) => {
            for number in [index.0, term.0, *bytes_count, *hash] {
                out.put_u64_le(number);
            }
            kind::SNAPSHOT_CUT
        }
        Response::Snapshot(SnapshotAnswer::Piece(bytes)) => {
            put_bytes(out, bytes);
            kind::SNAPSHOT_PIECE
        }
        Response::Users { revision, answer: UsersAnswer::Changed } => {
            out.put_u64_le(revision.0);
            kind::USERS_CHANGED
        }
        // Nobody can ask for more by this protocol, and members answer it themselves.
        Response::Users { answer: UsersAnswer::Told(_), .. } => {
            put_refusal(out, Refusal::Malformed, "this protocol has no words for users");
            kind::REFUSED
        }
        Response::Refused(refused) => {
            put_refusal(out, *refused, &refused.to_string());
            kind::REFUSED
        }
    }
}

fn put_status(out: &mut BytesMut, status: &Status) {
    out.put_u64_le(status.member.0);
    out.put_u8(match status.role {
        Role::Follower => 1,
        Role::Candidate => 2,
        Role::Leader => 3,
    });
    out.put_u64_le(status.term.0);
    out.put_u64_le(status.leader.map_or(0, |leader| leader.0));
    out.put_u64_le(status.last_index.0);
    out.put_u64_le(status.commit_index.0);
    out.put_u64_le(status.applied_index.0);
    out.put_u64_le(status.revision.0);
    put_text(out, &status.waiting_for, STATUS_WORDS_BYTES_MAX);
    out.put_u64_le(status.cluster.0);
    put_text(out, &status.version, STATUS_NAME_BYTES_MAX);
    out.put_u64_le(status.sync_p50_micros);
    out.put_u64_le(status.sync_p99_micros);
    let members = status.members.get(..STATUS_MEMBERS_MAX).unwrap_or(&status.members);
    put_count(out, members.len());
    for member in members {
        out.put_u64_le(member.id.0);
        for text in [&member.name, &member.native, &member.client, &member.peer] {
            put_text(out, text, STATUS_NAME_BYTES_MAX);
        }
        out.put_u8(u8::from(member.is_reachable));
    }
    let stages = status.stages.get(..STATUS_MEASURES_MAX).unwrap_or(&status.stages);
    put_count(out, stages.len());
    for stage in stages {
        put_text(out, &stage.name, STATUS_NAME_BYTES_MAX);
        for number in [stage.count, stage.p50_micros, stage.p99_micros, stage.max_micros] {
            out.put_u64_le(number);
        }
    }
    let counters = status.counters.get(..STATUS_MEASURES_MAX).unwrap_or(&status.counters);
    put_count(out, counters.len());
    for counter in counters {
        put_text(out, &counter.name, STATUS_NAME_BYTES_MAX);
        out.put_u64_le(counter.value);
    }
}

fn put_outcome(out: &mut BytesMut, outcome: &Outcome) {
    match outcome {
        Outcome::Put(result) => put_put_result(out, result),
        Outcome::DeleteRange(result) => put_delete_range_result(out, result),
        Outcome::Txn(result) => put_txn_result(out, result),
        Outcome::Range(result) => put_range_result(out, result),
        Outcome::Compacted => out.put_u8(tag::COMPACT),
        Outcome::Lease(outcome) => put_lease_outcome(out, outcome),
        Outcome::SpaceAlarm(alarm) => put_space_alarm(out, *alarm),
        Outcome::Refused(refused) => {
            out.put_u8(tag::REFUSED);
            out.put_u16_le(store_code(*refused));
        }
    }
}

fn put_lease_outcome(out: &mut BytesMut, outcome: &LeaseOutcome) {
    match outcome {
        LeaseOutcome::Granted(grant) => put_grant(out, *grant),
        LeaseOutcome::Revoked => out.put_u8(tag::LEASE_REVOKE),
        LeaseOutcome::Checkpointed => out.put_u8(tag::LEASE_CHECKPOINT),
        LeaseOutcome::Renewed(renewed) => {
            out.put_u8(tag::LEASE_RENEW);
            out.put_u64_le(renewed.ttl_ms);
        }
        LeaseOutcome::Listed(leases) => {
            out.put_u8(tag::LEASES);
            put_count(out, leases.len());
            for lease in leases {
                out.put_u64_le(lease.0);
            }
        }
        LeaseOutcome::TimeToLive(known) => {
            out.put_u8(tag::LEASE_TIME_TO_LIVE);
            out.put_u8(u8::from(known.is_some()));
            if let Some(known) = known {
                out.put_u64_le(known.ttl_ms);
                out.put_u64_le(known.remaining_ms);
                put_count(out, known.keys.len());
                for key in &known.keys {
                    put_bytes(out, key);
                }
            }
        }
    }
}

fn put_txn_result(out: &mut BytesMut, result: &TxnResult) {
    out.put_u8(tag::TXN);
    out.put_u8(u8::from(result.succeeded));
    put_count(out, result.results.len());
    for result in &result.results {
        match result {
            OperationResult::Put(result) => put_put_result(out, result),
            OperationResult::DeleteRange(result) => put_delete_range_result(out, result),
            OperationResult::Range(result) => put_range_result(out, result),
            OperationResult::Txn(result) => put_txn_result(out, result),
        }
    }
}

fn put_put_result(out: &mut BytesMut, result: &PutResult) {
    out.put_u8(tag::PUT);
    out.put_u8(u8::from(result.previous.is_some()));
    if let Some(pair) = &result.previous {
        put_pair(out, pair);
    }
}

fn put_delete_range_result(out: &mut BytesMut, result: &DeleteRangeResult) {
    out.put_u8(tag::DELETE_RANGE);
    out.put_u64_le(result.deleted);
    put_pairs(out, &result.previous);
}

fn put_range_result(out: &mut BytesMut, result: &RangeResult) {
    out.put_u8(tag::RANGE);
    out.put_u8(u8::from(result.more));
    out.put_u64_le(result.count);
    put_pairs(out, &result.pairs);
}

fn put_pairs(out: &mut BytesMut, pairs: &[KeyValue]) {
    put_count(out, pairs.len());
    for pair in pairs {
        put_pair(out, pair);
    }
}

pub(super) fn put_pair(out: &mut BytesMut, pair: &KeyValue) {
    put_bytes(out, &pair.key);
    put_bytes(out, &pair.value);
    out.put_u64_le(pair.create_revision.0);
    out.put_u64_le(pair.mod_revision.0);
    out.put_u64_le(pair.version);
    out.put_u64_le(pair.lease.0);
}
