//! What `Snapshot` carries: a file of etcd's database with all pairs of one revision, and its SHA-256 behind it.
//!
//! The pairs are read twice, part after part: what comes first in the file has to name what comes later, so the first walk
//! finds out what goes where and the second one sends it.
//!
//! Always: both walks read the revision that the first one saw, so they see the same; if that is compacted meanwhile the
//! stream ends with an error. Pieces have 32 KiB but for the last two, and the very last is the sum, as etcd's clients
//! expect; a file without its sum is not whole. Memory holds one part, one piece and the leases. Left out: the bytes
//! themselves (`api/etcd/database.rs`).

use super::leader::Answers;
use super::parts::{Part, Parts};
use super::refused;
use crate::api::etcd::proto::etcdserverpb as pb;
use crate::api::etcd::{DatabaseBody, DatabaseLayout, ETCD_VERSION, Fault, Wish};
use crate::api::{ReadMode, Request};
use crate::ids::{KeyspaceId, LeaseId, Revision};
use crate::kv::{Applied, KeyRange, LeaseOutcome, Outcome, Query, Range};
use crate::server::gateway::{Gate, spawn};
use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;
use tokio::sync::mpsc::Sender;
use tonic::Status;

/// Bytes of a piece (etcd's figure).
const PIECE_BYTES: usize = 32 * 1_024;

/// Seconds of a lease that has ended since, and that pairs of the revision still go with.
const ENDED_LEASE_SECONDS: i64 = 1;

/// Where pieces go.
type Pieces = Sender<Result<pb::SnapshotResponse, Status>>;

/// The file as a stream of pieces.
pub(super) fn stream(gate: &Arc<Gate>) -> Answers<pb::SnapshotResponse> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let gate = Arc::clone(gate);
    spawn(async move {
        if let Err(status) = dump(&gate, &sender).await {
            // The client may be gone.
            let _ = sender.send(Err(status)).await;
        }
    });
    Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))
}

async fn dump(gate: &Arc<Gate>, sender: &Pieces) -> Result<(), Status> {
    let Measured { revision, layout, leases } = measured(gate, sender).await?;
    let mut file = File { sender, gathered: BytesMut::new(), sum: Sha256::new(), remaining: layout.bytes() };
    file.add(&layout.front()).await?;
    let range = Range { revision, ..Range::new(KeyRange::From(Bytes::new())) };
    let mut parts = Parts::new(gate, range, ReadMode::Serializable);
    let (mut body, mut out) = (DatabaseBody::new(revision), Vec::new());
    while let Some(Part { pairs, .. }) = parts.next().await? {
        for pair in pairs {
            body.pair(pair, &mut out);
            file.add(&out).await?;
            out.clear();
        }
    }
    if body.finish(leases, &mut out) != layout {
        return Err(Status::data_loss("mainstay: what one revision holds has changed between two walks"));
    }
    file.add(&out).await?;
    file.finish().await
}

/// What the first walk finds out.
struct Measured {
    revision: Revision,
    layout: DatabaseLayout,
    leases: Vec<(LeaseId, i64)>,
}

async fn measured(gate: &Arc<Gate>, sender: &Pieces) -> Result<Measured, Status> {
    // Before the pairs: these are many questions, and from the first pair on a compaction is the end.
    let mut leases = listed(gate, sender).await?;
    let mut parts = Parts::new(gate, Range::new(KeyRange::From(Bytes::new())), ReadMode::Linearizable);
    let mut measuring: Option<(Revision, DatabaseBody)> = None;
    let (mut carried, mut out) = (BTreeSet::new(), Vec::new());
    while let Some(Part { of, pairs, .. }) = parts.next().await? {
        is_wanted(sender)?;
        let (_, body) = measuring.get_or_insert_with(|| (of, DatabaseBody::new(of)));
        carried.extend(pairs.iter().map(|pair| pair.lease).filter(|lease| *lease != LeaseId(0)));
        for pair in pairs {
            body.pair(pair, &mut out);
            out.clear();
        }
    }
    let (revision, body) = measuring.ok_or_else(|| refused(Fault::Unexpected))?;
    for lease in carried {
        if let Entry::Vacant(unlisted) = leases.entry(lease) {
            is_wanted(sender)?;
            unlisted.insert(seconds_of(gate, lease).await?.unwrap_or(ENDED_LEASE_SECONDS));
        }
    }
    let leases: Vec<(LeaseId, i64)> = leases.into_iter().collect();
    let layout = body.finish(leases.iter().copied(), &mut out);
    Ok(Measured { revision, layout, leases })
}

/// All leases there are, each with how many seconds a renewal makes it last.
async fn listed(gate: &Gate, sender: &Pieces) -> Result<BTreeMap<LeaseId, i64>, Status> {
    let listed = gate.wish(Wish::Read(Query::Leases, ReadMode::Linearizable)).await.map_err(refused)?;
    let (_, Applied { outcome: Outcome::Lease(LeaseOutcome::Listed(listed)), .. }) = listed else {
        return Err(refused(Fault::Unexpected));
    };
    let mut leases = BTreeMap::new();
    for lease in listed {
        is_wanted(sender)?;
        leases.extend(seconds_of(gate, lease).await?.map(|seconds| (lease, seconds)));
    }
    Ok(leases)
}

/// How many seconds a renewal makes a lease last; none if it has ended.
async fn seconds_of(gate: &Gate, lease: LeaseId) -> Result<Option<i64>, Status> {
    let asked = Request::TimeToLive { keyspace: KeyspaceId::FIRST, lease, wants_keys: false };
    let (_, applied) = gate.applied(asked).await.map_err(refused)?;
    let Outcome::Lease(LeaseOutcome::TimeToLive(known)) = applied.outcome else {
        return Err(refused(Fault::Unexpected));
    };
    Ok(known.map(|known| i64::try_from(known.ttl_ms.div_ceil(1_000)).unwrap_or(i64::MAX)))
}

/// Nothing is read for a client that is gone.
fn is_wanted(sender: &Pieces) -> Result<(), Status> {
    if sender.is_closed() { Err(gone()) } else { Ok(()) }
}

/// A file on its way.
struct File<'sender> {
    sender: &'sender Pieces,
    gathered: BytesMut,
    sum: Sha256,
    /// Bytes that are not sent yet, the sum aside.
    remaining: u64,
}

impl File<'_> {
    async fn add(&mut self, bytes: &[u8]) -> Result<(), Status> {
        self.sum.update(bytes);
        self.gathered.extend_from_slice(bytes);
        while self.gathered.len() >= PIECE_BYTES {
            let piece = self.gathered.split_to(PIECE_BYTES).freeze();
            self.send(piece).await?;
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<(), Status> {
        let rest = self.gathered.split().freeze();
        if !rest.is_empty() {
            self.send(rest).await?;
        }
        let sum = Bytes::copy_from_slice(&self.sum.finalize_reset());
        let piece =
            pb::SnapshotResponse { blob: sum, version: ETCD_VERSION.to_owned(), ..Default::default() };
        self.sender.send(Ok(piece)).await.map_err(|_| gone())
    }

    async fn send(&mut self, blob: Bytes) -> Result<(), Status> {
        self.remaining -= blob.len() as u64;
        let (remaining_bytes, version) = (self.remaining, ETCD_VERSION.to_owned());
        let piece = pb::SnapshotResponse { header: None, remaining_bytes, blob, version };
        self.sender.send(Ok(piece)).await.map_err(|_| gone())
    }
}

fn gone() -> Status {
    Status::cancelled("the client is gone")
}
