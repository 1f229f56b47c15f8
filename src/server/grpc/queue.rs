//! Standing in line under a name: what locks and elections have in common.

use super::refused;
use crate::api::etcd::proto::etcdserverpb as pb;
use crate::api::etcd::{self, Fault, Wish, lease_id};
use crate::api::{ReadMode, Response as Answer, WatchAnswer, WatchRequest};
use crate::ids::{KeyspaceId, LeaseId, Revision, WatchId};
use crate::kv::{
    Applied, Command, Compare, CompareOperator, CompareTarget, DeleteRange, Filter, Grant, KeyRange,
    KeyValue, LeaseCommand, LeaseOutcome, Operation, OperationResult, Outcome, Put, Query, Range, Sort,
    SortBy, SortOrder, Txn,
};
use crate::server::gateway::{Gate, Told, spawn};
use crate::watch::{Interest, WatchSpec};
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;
use tonic::Status;

/// Milliseconds of the lease that is made for who brings none (etcd's figure).
const LEASE_MILLIS: u64 = 60_000;

/// The first place in line.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) header: pb::ResponseHeader,
    pub(super) key: Bytes,
    /// The revision at which the key was created.
    pub(super) revision: Revision,
}

/// The keys under a name.
pub(super) fn under(name: &Bytes) -> KeyRange {
    let mut start = BytesMut::from(name.as_ref());
    start.put_u8(b'/');
    let mut end = BytesMut::from(name.as_ref());
    // The byte after '/', so that every key that goes on behind the slash is within.
    end.put_u8(b'/' + 1);
    KeyRange::Span { start: start.freeze(), end: end.freeze() }
}

fn key_of(name: &Bytes, lease: LeaseId) -> Bytes {
    let mut key = BytesMut::from(name.as_ref());
    key.extend_from_slice(format!("/{:x}", lease.0).as_bytes());
    key.freeze()
}

/// The lease that a client names, or a new one.
pub(super) async fn session_lease(gate: &Gate, lease: i64) -> Result<LeaseId, Status> {
    if lease != 0 {
        return Ok(lease_id(lease));
    }
    let grant = LeaseCommand::Grant(Grant { lease: LeaseId(0), ttl_ms: LEASE_MILLIS });
    match gate.wish(Wish::Write(Command::Lease(grant))).await.map_err(refused)? {
        (_, Applied { outcome: Outcome::Lease(LeaseOutcome::Granted(grant)), .. }) => Ok(grant.lease),
        (_, Applied { outcome: Outcome::Refused(refusal), .. }) => Err(refused(refusal.into())),
        _ => Err(refused(Fault::Unexpected)),
    }
}

/// Takes the key that a call made away again if it is not said that it is to be kept. What an earlier call of the same
/// lease made is that call's, which may hold it by now.
struct Leaving {
    gate: Arc<Gate>,
    key: Bytes,
    /// The revision at which this call created the key; None if it found it there.
    made_at: Option<Revision>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let Some(made_at) = self.made_at else { return };
        let (gate, key) = (Arc::clone(&self.gate), self.key.clone());
        spawn(async move {
            let delete = DeleteRange { range: KeyRange::Key(key.clone()), wants_previous: false };
            // If it is not done, the lease does it.
            let _ = if_created_at(&gate, &key, made_at, Operation::DeleteRange(delete)).await;
        });
    }
}

/// Where a call stands in line.
struct Entered {
    /// The revision that created the key.
    revision: Revision,
    /// Whether the key was there, with another value.
    is_other: bool,
    leaving: Leaving,
}

/// Gets in line. A client that goes away meanwhile leaves nothing behind, so the call is finished without it.
async fn enter_line(gate: &Arc<Gate>, key: &Bytes, lease: LeaseId, value: &Bytes) -> Result<Entered, Status> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let (gate, key, value) = (Arc::clone(gate), key.clone(), value.clone());
    spawn(async move {
        let entered = enter(&gate, &key, lease, &value).await.map(|(revision, is_made, is_other)| {
            let leaving = Leaving { gate: Arc::clone(&gate), key, made_at: is_made.then_some(revision) };
            Entered { revision, is_other, leaving }
        });
        // Nobody may be there any more: then it leaves.
        let _ = sender.send(entered);
    });
    receiver.await.map_err(|_| refused(Fault::Stopped))?
}

/// Gets in line under `name` with a key that holds `value` and goes with `lease`, and waits until it is the first.
pub(super) async fn in_line(
    gate: &Arc<Gate>,
    name: &Bytes,
    lease: LeaseId,
    value: Bytes,
) -> Result<Place, Status> {
    let key = key_of(name, lease);
    let Entered { revision, is_other, mut leaving } = enter_line(gate, &key, lease, &value).await?;
    if is_other {
        put_if_created_at(gate, &key, revision, lease, value).await?;
    }
    while let Some((before, seen_at)) = last_before(gate, name, revision).await? {
        wait_for_end(gate, before.key, seen_at).await?;
    }
    let (standing, applied) = read(gate, Range::new(KeyRange::Key(key.clone()))).await?;
    let Outcome::Range(found) = applied.outcome else { return Err(refused(Fault::Unexpected)) };
    let is_there = found.pairs.first().is_some_and(|pair| pair.create_revision == revision);
    leaving.made_at = None;
    if !is_there {
        return Err(Status::unknown("mutex: session is expired"));
    }
    Ok(Place { header: standing.header(applied.revision), key, revision })
}

/// Puts the key unless it is there: the revision that created it, whether that was this call, and whether it is there
/// with another value.
async fn enter(
    gate: &Gate,
    key: &Bytes,
    lease: LeaseId,
    value: &Bytes,
) -> Result<(Revision, bool, bool), Status> {
    let is_missing = Compare {
        range: KeyRange::Key(key.clone()),
        operator: CompareOperator::Equal,
        target: CompareTarget::Create(Revision(0)),
    };
    let put = Put { lease, ..Put::new(key.clone(), value.clone()) };
    let get = Range::new(KeyRange::Key(key.clone()));
    let txn = Txn {
        compares: vec![is_missing],
        success: vec![Operation::Put(put)],
        failure: vec![Operation::Range(get)],
    };
    match gate.wish(Wish::Write(Command::Txn(txn))).await.map_err(refused)? {
        (_, Applied { outcome: Outcome::Refused(refusal), .. }) => Err(refused(refusal.into())),
        (_, Applied { revision, outcome: Outcome::Txn(result) }) => match result.results.first() {
            Some(OperationResult::Put(_)) => Ok((revision, true, false)),
            Some(OperationResult::Range(found)) => {
                let pair = found.pairs.first().ok_or_else(|| refused(Fault::Unexpected))?;
                Ok((pair.create_revision, false, pair.value != value))
            }
            _ => Err(refused(Fault::Unexpected)),
        },
        _ => Err(refused(Fault::Unexpected)),
    }
}

/// Puts `value` if the key still is the one that was created at `revision`; whether it was.
pub(super) async fn put_if_created_at(
    gate: &Gate,
    key: &Bytes,
    revision: Revision,
    lease: LeaseId,
    value: Bytes,
) -> Result<Option<pb::ResponseHeader>, Status> {
    let put = Put { lease, ..Put::new(key.clone(), value) };
    if_created_at(gate, key, revision, Operation::Put(put)).await
}

/// Does `operation` if the key still is the one that was created at `revision`; a header if it was.
pub(super) async fn if_created_at(
    gate: &Gate,
    key: &Bytes,
    revision: Revision,
    operation: Operation,
) -> Result<Option<pb::ResponseHeader>, Status> {
    let is_ours = Compare {
        range: KeyRange::Key(key.clone()),
        operator: CompareOperator::Equal,
        target: CompareTarget::Create(revision),
    };
    let txn = Txn { compares: vec![is_ours], success: vec![operation], failure: Vec::new() };
    match gate.wish(Wish::Write(Command::Txn(txn))).await.map_err(refused)? {
        (_, Applied { outcome: Outcome::Refused(refusal), .. }) => Err(refused(refusal.into())),
        (standing, Applied { revision, outcome: Outcome::Txn(result) }) => {
            Ok(result.succeeded.then(|| standing.header(revision)))
        }
        _ => Err(refused(Fault::Unexpected)),
    }
}

async fn read(gate: &Gate, range: Range) -> Result<(etcd::Standing, Applied), Status> {
    gate.wish(Wish::Read(Query::Range(range), ReadMode::Linearizable)).await.map_err(refused)
}

/// The first in line, and the revision at which it was seen.
pub(super) async fn first(
    gate: &Gate,
    name: &Bytes,
) -> Result<(pb::ResponseHeader, Option<KeyValue>), Status> {
    let sort = Some(Sort { by: SortBy::Create, order: SortOrder::Ascending });
    let (standing, applied) = read(gate, Range { sort, limit: 1, ..Range::new(under(name)) }).await?;
    let Outcome::Range(found) = applied.outcome else { return Err(refused(Fault::Unexpected)) };
    Ok((standing.header(applied.revision), found.pairs.into_iter().next()))
}

/// The key that is next before the one created at `revision`, and the revision at which it was seen.
async fn last_before(
    gate: &Gate,
    name: &Bytes,
    revision: Revision,
) -> Result<Option<(KeyValue, Revision)>, Status> {
    let sort = Some(Sort { by: SortBy::Create, order: SortOrder::Descending });
    let filter = Filter { create_max: Revision(revision.0 - 1), ..Filter::default() };
    let (_, applied) = read(gate, Range { sort, filter, limit: 1, ..Range::new(under(name)) }).await?;
    let Outcome::Range(found) = applied.outcome else { return Err(refused(Fault::Unexpected)) };
    Ok(found.pairs.into_iter().next().map(|pair| (pair, applied.revision)))
}

/// Waits until a key that was there at `seen_at` is deleted, or until nobody can tell.
async fn wait_for_end(gate: &Arc<Gate>, key: Bytes, seen_at: Revision) -> Result<(), Status> {
    let interest = Interest { skips_puts: true, ..Interest::all(KeyRange::Key(key)) };
    let spec = WatchSpec { interest, start: seen_at.next(), wants_progress: false };
    let mut stream = gate.open_stream();
    stream.ask(WatchId(1), WatchRequest::Create { keyspace: KeyspaceId::FIRST, spec }).map_err(refused)?;
    loop {
        match stream.next().await {
            None => return Err(refused(Fault::Stopped)),
            Some(Told::Answer { response: Answer::Watch(WatchAnswer::Created { .. }), .. }) => {}
            Some(Told::Answer { response: Answer::Refused(refusal), .. }) => {
                return Err(refused(refusal.into()));
            }
            Some(Told::Answer { .. }) => return Err(refused(Fault::Unexpected)),
            Some(Told::Batch { batch, .. }) if batch.events.is_empty() => {}
            // What happened is looked at anew; if it is compacted, too.
            Some(Told::Batch { .. } | Told::Ended { .. }) => return Ok(()),
        }
    }
}
