//! From what the store said to messages.
//!
//! Always: every answer has a header with the revision that it is of; the parts of a transaction's answer have headers
//! with a revision and nothing else, as etcd has them.

use super::Fault;
use super::proto::{etcdserverpb as pb, mvccpb};
use crate::api::{MemberView, Status};
use crate::ids::{ClusterId, LeaseId, MemberId, Revision, Term};
use crate::kv::{
    Applied, DeleteRangeResult, Event, KeyValue, LeaseOutcome, OperationResult, Outcome, PutResult,
    RangeResult, TimeToLive, TxnResult,
};
use std::collections::BTreeSet;

/// The version of etcd whose contract is kept, for clients that look before they ask.
pub const ETCD_VERSION: &str = "3.6.0";

/// What a member puts into every header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Itself.
    pub member: MemberId,
    /// Its term.
    pub term: Term,
}

impl Standing {
    /// The header of an answer at `revision`.
    pub const fn header(self, revision: Revision) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.cluster.0,
            member_id: self.member.0,
            revision: number(revision),
            raft_term: self.term.0,
        }
    }
}

/// The outcome, unless the store refused.
fn outcome(applied: Applied) -> Result<(Revision, Outcome), Fault> {
    match applied.outcome {
        Outcome::Refused(refusal) => Err(refusal.into()),
        outcome => Ok((applied.revision, outcome)),
    }
}

/// The answer to a `Range`.
///
/// # Errors
/// What the store refused; so for all of these.
pub fn range_answer(standing: Standing, applied: Applied) -> Result<pb::RangeResponse, Fault> {
    let (revision, Outcome::Range(result)) = outcome(applied)? else { return Err(Fault::Unexpected) };
    Ok(range_response(standing.header(revision), result))
}

/// The answer to a `Put`.
#[allow(clippy::missing_errors_doc)]
pub fn put_answer(standing: Standing, applied: Applied) -> Result<pb::PutResponse, Fault> {
    let (revision, Outcome::Put(result)) = outcome(applied)? else { return Err(Fault::Unexpected) };
    Ok(put_response(standing.header(revision), result))
}

/// The answer to a `DeleteRange`.
#[allow(clippy::missing_errors_doc)]
pub fn delete_answer(standing: Standing, applied: Applied) -> Result<pb::DeleteRangeResponse, Fault> {
    let (revision, Outcome::DeleteRange(result)) = outcome(applied)? else { return Err(Fault::Unexpected) };
    Ok(delete_response(standing.header(revision), result))
}

/// The answer to a `Txn`.
#[allow(clippy::missing_errors_doc)]
pub fn txn_answer(standing: Standing, applied: Applied) -> Result<pb::TxnResponse, Fault> {
    let (revision, Outcome::Txn(result)) = outcome(applied)? else { return Err(Fault::Unexpected) };
    let before = if has_changed(&result) { Revision(revision.0.saturating_sub(1)) } else { revision };
    Ok(txn_response(standing.header(revision), result, before, &mut false))
}

/// The answer to a `Compact`.
#[allow(clippy::missing_errors_doc)]
pub fn compact_answer(standing: Standing, applied: Applied) -> Result<pb::CompactionResponse, Fault> {
    let (revision, Outcome::Compacted) = outcome(applied)? else { return Err(Fault::Unexpected) };
    Ok(pb::CompactionResponse { header: Some(standing.header(revision)) })
}

/// The answer to a `LeaseGrant`.
#[allow(clippy::missing_errors_doc)]
pub fn grant_answer(standing: Standing, applied: Applied) -> Result<pb::LeaseGrantResponse, Fault> {
    let (revision, Outcome::Lease(LeaseOutcome::Granted(grant))) = outcome(applied)? else {
        return Err(Fault::Unexpected);
    };
    Ok(pb::LeaseGrantResponse {
        header: Some(standing.header(revision)),
        id: lease_number(grant.lease),
        ttl: whole_seconds(grant.ttl_ms),
        error: String::new(),
    })
}

/// The answer to a `LeaseRevoke`.
#[allow(clippy::missing_errors_doc)]
pub fn revoke_answer(standing: Standing, applied: Applied) -> Result<pb::LeaseRevokeResponse, Fault> {
    let (revision, Outcome::Lease(LeaseOutcome::Revoked)) = outcome(applied)? else {
        return Err(Fault::Unexpected);
    };
    Ok(pb::LeaseRevokeResponse { header: Some(standing.header(revision)) })
}

/// The answer to a `LeaseKeepAlive`: 0 seconds if there is no such lease (etcd's rule).
#[allow(clippy::missing_errors_doc)]
pub fn keep_alive_answer(
    standing: Standing,
    id: i64,
    applied: Applied,
) -> Result<pb::LeaseKeepAliveResponse, Fault> {
    let (revision, Outcome::Lease(LeaseOutcome::Renewed(renewed))) = outcome(applied)? else {
        return Err(Fault::Unexpected);
    };
    let header = Some(standing.header(revision));
    Ok(pb::LeaseKeepAliveResponse { header, id, ttl: whole_seconds(renewed.ttl_ms) })
}

/// The answer to a `LeaseTimeToLive`: -1 seconds if there is no such lease (etcd's rule).
#[allow(clippy::missing_errors_doc)]
pub fn time_to_live_answer(
    standing: Standing,
    id: i64,
    applied: Applied,
) -> Result<pb::LeaseTimeToLiveResponse, Fault> {
    let (revision, Outcome::Lease(LeaseOutcome::TimeToLive(found))) = outcome(applied)? else {
        return Err(Fault::Unexpected);
    };
    let header = Some(standing.header(revision));
    Ok(match found {
        None => pb::LeaseTimeToLiveResponse { header, id, ttl: -1, granted_ttl: 0, keys: Vec::new() },
        Some(TimeToLive { ttl_ms, remaining_ms, keys }) => pb::LeaseTimeToLiveResponse {
            header,
            id,
            ttl: i64::try_from(remaining_ms / 1_000).unwrap_or(i64::MAX),
            granted_ttl: whole_seconds(ttl_ms),
            keys,
        },
    })
}

/// The answer to a `LeaseLeases`.
#[allow(clippy::missing_errors_doc)]
pub fn leases_answer(standing: Standing, applied: Applied) -> Result<pb::LeaseLeasesResponse, Fault> {
    let (revision, Outcome::Lease(LeaseOutcome::Listed(leases))) = outcome(applied)? else {
        return Err(Fault::Unexpected);
    };
    let leases = leases.into_iter().map(|lease| pb::LeaseStatus { id: lease_number(lease) });
    Ok(pb::LeaseLeasesResponse { header: Some(standing.header(revision)), leases: leases.collect() })
}

/// The members as a member knows them.
pub fn members(status: &Status) -> Vec<pb::Member> {
    let member = |view: &MemberView| pb::Member {
        id: view.id.0,
        name: view.name.clone(),
        peer_ur_ls: urls(&view.peer),
        client_ur_ls: urls(&view.client),
        is_learner: false,
    };
    status.members.iter().map(member).collect()
}

fn urls(address: &str) -> Vec<String> {
    if address.is_empty() { Vec::new() } else { vec![format!("http://{address}")] }
}

/// The alarms that a member knows to be raised, in the order of their members. The one that goes by the bytes that are used is
/// told as the member's own.
pub fn alarms(status: &Status) -> Vec<pb::AlarmMember> {
    let by_hand = status.counters.iter().filter(|counter| counter.name == "space_alarm_by_hand");
    let mut members: BTreeSet<u64> = by_hand.map(|counter| counter.value).collect();
    if counter(status, "space_alarm_by_bytes") > 0 {
        members.insert(status.member.0);
    }
    let alarm = |member_id| pb::AlarmMember { member_id, alarm: pb::AlarmType::Nospace.into() };
    members.into_iter().map(alarm).collect()
}

/// The answer to a `Status`.
pub fn status_answer(standing: Standing, status: &Status) -> pb::StatusResponse {
    let mut errors = Vec::new();
    if status.leader.is_none() {
        errors.push("etcdserver: no leader".to_owned());
    }
    errors.extend(alarms(status).iter().map(|alarm| format!("memberID:{} alarm:NOSPACE ", alarm.member_id)));
    let bytes = i64::try_from(counter(status, "keyspace_bytes")).unwrap_or(i64::MAX);
    pb::StatusResponse {
        header: Some(standing.header(status.revision)),
        version: ETCD_VERSION.to_owned(),
        db_size: bytes,
        leader: status.leader.map_or(0, |leader| leader.0),
        raft_index: status.commit_index.0,
        raft_term: status.term.0,
        raft_applied_index: status.applied_index.0,
        errors,
        db_size_in_use: bytes,
        is_learner: false,
        storage_version: ETCD_VERSION.to_owned(),
        db_size_quota: i64::try_from(counter(status, "quota_bytes")).unwrap_or(i64::MAX),
    }
}

/// A counter of a status; 0 if there is none of this name.
pub fn counter(status: &Status, name: &str) -> u64 {
    status.counters.iter().find(|counter| counter.name == name).map_or(0, |counter| counter.value)
}

/// A pair as a message.
pub fn key_value(pair: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: pair.key,
        create_revision: number(pair.create_revision),
        mod_revision: number(pair.mod_revision),
        version: i64::try_from(pair.version).unwrap_or(i64::MAX),
        value: pair.value,
        lease: lease_number(pair.lease),
    }
}

/// A change as a message.
pub fn event(event: Event) -> mvccpb::Event {
    use mvccpb::event::EventType;
    let kind = if event.is_deletion { EventType::Delete } else { EventType::Put };
    mvccpb::Event {
        r#type: kind.into(),
        kv: Some(key_value(event.pair)),
        prev_kv: event.previous.map(key_value),
    }
}

/// A hash of pairs, equal wherever the same pairs are; `hash` is that of the pairs before them, 0 for none.
pub fn pairs_hash(hash: u32, pairs: &[KeyValue]) -> u32 {
    pairs.iter().fold(hash, |hash, pair| {
        let hash = crc32c::crc32c_append(hash, &pair.key);
        let hash = crc32c::crc32c_append(hash, &[0]);
        let hash = crc32c::crc32c_append(hash, &pair.value);
        let numbers = [pair.create_revision.0, pair.mod_revision.0, pair.version, pair.lease.0];
        numbers.iter().fold(hash, |hash, number| crc32c::crc32c_append(hash, &number.to_le_bytes()))
    })
}

/// A revision as etcd's signed number.
pub const fn number(revision: Revision) -> i64 {
    revision.0.cast_signed()
}

const fn lease_number(lease: LeaseId) -> i64 {
    lease.0.cast_signed()
}

/// A part of a second counts as a whole one.
fn whole_seconds(millis: u64) -> i64 {
    i64::try_from(millis.div_ceil(1_000)).unwrap_or(i64::MAX)
}

fn range_response(header: pb::ResponseHeader, result: RangeResult) -> pb::RangeResponse {
    pb::RangeResponse {
        header: Some(header),
        kvs: result.pairs.into_iter().map(key_value).collect(),
        more: result.more,
        count: i64::try_from(result.count).unwrap_or(i64::MAX),
    }
}

fn put_response(header: pb::ResponseHeader, result: PutResult) -> pb::PutResponse {
    pb::PutResponse { header: Some(header), prev_kv: result.previous.map(key_value) }
}

fn delete_response(header: pb::ResponseHeader, result: DeleteRangeResult) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header: Some(header),
        deleted: i64::try_from(result.deleted).unwrap_or(i64::MAX),
        prev_kvs: result.previous.into_iter().map(key_value).collect(),
    }
}

/// Whether anything was changed, which makes one revision.
fn has_changed(result: &TxnResult) -> bool {
    result.results.iter().any(|result| match result {
        OperationResult::Put(_) => true,
        OperationResult::DeleteRange(result) => result.deleted > 0,
        OperationResult::Range(_) => false,
        OperationResult::Txn(nested) => has_changed(nested),
    })
}

/// `before`: the revision before the transaction; `is_changed`: whether an operation so far has made the next one.
fn txn_response(
    header: pb::ResponseHeader,
    result: TxnResult,
    before: Revision,
    is_changed: &mut bool,
) -> pb::TxnResponse {
    use pb::response_op::Response;
    let mut responses = Vec::with_capacity(result.results.len());
    for result in result.results {
        *is_changed = *is_changed
            || match &result {
                OperationResult::Put(_) => true,
                OperationResult::DeleteRange(result) => result.deleted > 0,
                OperationResult::Range(_) | OperationResult::Txn(_) => false,
            };
        let revision = if *is_changed { before.next() } else { before };
        let header = pb::ResponseHeader { revision: number(revision), ..Default::default() };
        let response = match result {
            OperationResult::Put(result) => Response::ResponsePut(put_response(header, result)),
            OperationResult::DeleteRange(result) => {
                Response::ResponseDeleteRange(delete_response(header, result))
            }
            OperationResult::Range(result) => Response::ResponseRange(range_response(header, result)),
            OperationResult::Txn(nested) => {
                let header = pb::ResponseHeader::default();
                Response::ResponseTxn(txn_response(header, nested, before, is_changed))
            }
        };
        responses.push(pb::ResponseOp { response: Some(response) });
    }
    pb::TxnResponse { header: Some(header), succeeded: result.succeeded, responses }
}
