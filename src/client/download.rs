//! A snapshot from one member: asked for, awaited, and read piece by piece.
//!
//! Always: a few pieces are under way at once, and they are given out in order; a member that says nothing for as long as a
//! call may take is given up, however long the cutting takes. Left out: whether the bytes are sound (whoever keeps them
//! verifies them), and another member in the place of one that fails: pieces are of one member's file.

use super::clock::{BootInstant, now};
use super::connection::{Connection, Trouble};
use crate::api::native::Features;
use crate::api::{Refusal, Request, Response, SnapshotAnswer, SnapshotRequest};
use crate::ids::{ClusterId, KeyspaceId, LogIndex, MemberId, Term};
use crate::limits::SNAPSHOT_PIECE_BYTES;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Pieces under way at once.
///
/// Chosen: the member reads one while another travels; more would only wait there.
const PIECES_MAX: usize = 4;

/// How often a member that cuts a snapshot is asked whether it still is there.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Why no snapshot came.
#[derive(Debug, thiserror::Error)]
pub enum NoSnapshot {
    /// The connection.
    #[error(transparent)]
    Connection(#[from] Trouble),
    /// The member is of a version that knows nothing of this.
    #[error("this member is of a version that gives out no snapshots")]
    TooOld,
    /// The member does not serve it.
    #[error("{0}")]
    Refused(Refusal),
    /// The member said something else, or fewer bytes than it promised.
    #[error("the member answers what was not asked")]
    Unfitting,
}

/// A snapshot on its way here.
#[derive(Debug)]
pub struct SnapshotDownload {
    connection: Connection,
    timeout: Duration,
    keyspace: KeyspaceId,
    /// The last log entry that is in it.
    pub index: LogIndex,
    /// The term of that entry.
    pub term: Term,
    /// Bytes of the whole.
    pub bytes_count: u64,
    /// The hash that its closing holds.
    pub hash: u64,
    /// From where the next piece is to be asked for.
    offset: u64,
    /// Asked for and not given out, in order.
    asked: VecDeque<u64>,
    /// Came out of order.
    arrived: BTreeMap<u64, Bytes>,
}

impl SnapshotDownload {
    /// Has the member at `address` cut a snapshot that holds everything committed so far. `timeout` is how long the member
    /// may say nothing; `waiting` is called now and then meanwhile.
    ///
    /// # Errors
    /// No snapshot, and why.
    pub fn begin(
        address: &str,
        cluster: Option<ClusterId>,
        timeout: Duration,
        mut waiting: impl FnMut(),
    ) -> Result<Self, NoSnapshot> {
        let keyspace = KeyspaceId::FIRST;
        let mut connection = Connection::open(address, cluster, timeout)?;
        if !connection.hello().features.have(Features::SNAPSHOTS) {
            return Err(NoSnapshot::TooOld);
        }
        let cut = connection.send(&Request::Snapshot { keyspace, request: SnapshotRequest::Cut })?;
        let mut heard: BootInstant = now();
        loop {
            match connection.receive_within(ASK_EVERY.min(timeout)) {
                Ok((id, Response::Snapshot(SnapshotAnswer::Cut { index, term, bytes_count, hash })))
                    if id == cut =>
                {
                    return Ok(Self {
                        connection,
                        timeout,
                        keyspace,
                        index,
                        term,
                        bytes_count,
                        hash,
                        offset: 0,
                        asked: VecDeque::new(),
                        arrived: BTreeMap::new(),
                    });
                }
                Ok((id, Response::Refused(refusal))) if id == cut => {
                    return Err(NoSnapshot::Refused(refusal));
                }
                Ok((id, _)) if id == cut => return Err(NoSnapshot::Unfitting),
                Ok(_) => heard = now(),
                Err(Trouble::TimedOut) if now().saturating_duration_since(heard) < timeout => {
                    waiting();
                    connection.send(&Request::Status)?;
                }
                Err(trouble) => return Err(trouble.into()),
            }
        }
    }

    /// Who gives it.
    pub const fn member(&self) -> MemberId {
        self.connection.hello().member
    }

    /// Of which cluster.
    pub const fn cluster(&self) -> ClusterId {
        self.connection.hello().cluster
    }

    /// The next bytes of it, in order; `None` at its end.
    ///
    /// # Errors
    /// As `begin`. It is of no more use then.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>, NoSnapshot> {
        while self.asked.len() < PIECES_MAX && self.offset < self.bytes_count {
            let left = self.bytes_count - self.offset;
            let bytes_count = u32::try_from(left.min(SNAPSHOT_PIECE_BYTES as u64)).unwrap_or(u32::MAX);
            let (index, term, offset) = (self.index, self.term, self.offset);
            let request = SnapshotRequest::Read { index, term, offset, bytes_count };
            let id = self.connection.send(&Request::Snapshot { keyspace: self.keyspace, request })?;
            self.asked.push_back(id);
            self.offset += u64::from(bytes_count);
        }
        let Some(next) = self.asked.front().copied() else { return Ok(None) };
        loop {
            if let Some(piece) = self.arrived.remove(&next) {
                self.asked.pop_front();
                return Ok(Some(piece));
            }
            match self.connection.receive_within(self.timeout)? {
                (id, Response::Snapshot(SnapshotAnswer::Piece(bytes))) if !bytes.is_empty() => {
                    self.arrived.insert(id, bytes);
                }
                (_, Response::Refused(refusal)) => return Err(NoSnapshot::Refused(refusal)),
                // Late answers to what was asked while it was cut.
                (_, Response::Status(_)) => {}
                _ => return Err(NoSnapshot::Unfitting),
            }
        }
    }
}
