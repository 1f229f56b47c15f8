//! What `Snapshot` carries: a dump of all pairs at one revision, in lines of JSON. A file of etcd's database it is not.
//!
//! ```text
//!   {"mainstay_dump":1,"cluster_id":"…","revision":"…"}
//!   {"key":"…","create_revision":"…","mod_revision":"…","version":"…","value":"…","lease":"…"}     as in /v3/kv/range
//!   …
//!   {"pairs":"…"}
//!   empty lines, up to a multiple of 512 bytes
//!   32 bytes: the SHA-256 of everything before
//! ```
//!
//! Always: pieces have 32 KiB but for the last two, and the very last is the sum, as etcd's clients expect; a dump without
//! its sum is not whole. Left out: history, the time of leases, and how to read one in again.

use super::leader::Answers;
use super::parts::{Part, Parts};
use crate::api::ReadMode;
use crate::api::etcd::proto::etcdserverpb as pb;
use crate::api::etcd::{ETCD_VERSION, key_value, number};
use crate::kv::{KeyRange, Range};
use crate::server::gateway::{Gate, spawn};
use bytes::{Bytes, BytesMut};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tokio::sync::mpsc::Sender;
use tonic::Status;

/// Bytes of a piece (etcd's figure).
const PIECE_BYTES: usize = 32 * 1_024;

/// What comes before the sum has a multiple of so many bytes: by that etcd's clients know that there is a sum.
const BLOCK_BYTES: usize = 512;

/// The dump as a stream of pieces.
pub(super) fn stream(gate: &Arc<Gate>) -> Answers<pb::SnapshotResponse> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let parts = Parts::new(gate, Range::new(KeyRange::From(Bytes::new())), ReadMode::Linearizable);
    spawn(async move {
        let mut dump = Dump { sender, gathered: BytesMut::new(), sum: Sha256::new(), length: 0 };
        if let Err(status) = dump.run(parts).await {
            // The client may be gone.
            let _ = dump.sender.send(Err(status)).await;
        }
    });
    Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))
}

#[derive(Serialize)]
struct Head {
    mainstay_dump: u32,
    cluster_id: String,
    revision: String,
}

#[derive(Serialize)]
struct Tail {
    pairs: String,
}

struct Dump {
    sender: Sender<Result<pb::SnapshotResponse, Status>>,
    gathered: BytesMut,
    sum: Sha256,
    /// Bytes of all lines so far.
    length: usize,
}

impl Dump {
    async fn run(&mut self, mut parts: Parts) -> Result<(), Status> {
        let mut count = 0_u64;
        let mut is_first = true;
        while let Some(Part { standing, of, pairs, .. }) = parts.next().await? {
            if std::mem::take(&mut is_first) {
                let (cluster_id, revision) = (standing.cluster.0.to_string(), number(of).to_string());
                self.line(&Head { mainstay_dump: 1, cluster_id, revision })?;
            }
            count += pairs.len() as u64;
            for pair in pairs {
                self.line(&key_value(pair))?;
                self.send_full_pieces().await?;
            }
        }
        self.line(&Tail { pairs: count.to_string() })?;
        let missing = self.length.next_multiple_of(BLOCK_BYTES) - self.length;
        self.add(&vec![b'\n'; missing]);
        self.send_full_pieces().await?;
        let rest = self.gathered.split().freeze();
        self.send(rest).await?;
        let sum = Bytes::copy_from_slice(&self.sum.finalize_reset());
        self.send(sum).await
    }

    fn line(&mut self, line: &impl Serialize) -> Result<(), Status> {
        let mut line = serde_json::to_vec(line).map_err(|error| Status::internal(error.to_string()))?;
        line.push(b'\n');
        self.add(&line);
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) {
        self.sum.update(bytes);
        self.length += bytes.len();
        self.gathered.extend_from_slice(bytes);
    }

    async fn send_full_pieces(&mut self) -> Result<(), Status> {
        while self.gathered.len() >= PIECE_BYTES {
            let piece = self.gathered.split_to(PIECE_BYTES).freeze();
            self.send(piece).await?;
        }
        Ok(())
    }

    async fn send(&mut self, blob: Bytes) -> Result<(), Status> {
        // How much remains is not known before it is read.
        let version = ETCD_VERSION.to_owned();
        let piece = pb::SnapshotResponse { header: None, remaining_bytes: 0, blob, version };
        self.sender.send(Ok(piece)).await.map_err(|_| Status::cancelled("the client is gone"))
    }
}
