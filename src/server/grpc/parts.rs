//! Reading a range part after part, all of one revision, so that no answer and no turn of the shard holds all of it.
//!
//! Always: the first part is read as its client asked, and the others locally, at the revision that the first one saw, which
//! this member has applied; if that is compacted meanwhile the reading ends with an error. Left out: what becomes of parts.

use super::refused;
use crate::api::ReadMode;
use crate::api::etcd::{Fault, Standing, Wish};
use crate::ids::Revision;
use crate::kv::{Applied, KeyRange, KeyValue, Outcome, Query, Range};
use crate::limits::RANGE_PART_BYTES;
use crate::server::gateway::Gate;
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;
use tonic::Status;

/// A range that is being read.
#[derive(Debug)]
pub(super) struct Parts {
    gate: Arc<Gate>,
    /// What is left to be read.
    range: Range,
    mode: ReadMode,
    is_over: bool,
}

/// One part.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) standing: Standing,
    /// The store's newest revision when it was read.
    pub(super) newest: Revision,
    /// The revision that all parts are of.
    pub(super) of: Revision,
    pub(super) pairs: Vec<KeyValue>,
    pub(super) is_last: bool,
    /// Whether there are pairs behind the last one of all.
    pub(super) more: bool,
}

impl Parts {
    /// Reads `range`, which is neither sorted nor filtered.
    pub(super) fn new(gate: &Arc<Gate>, range: Range, mode: ReadMode) -> Self {
        let range = Range { part_bytes_max: Some(RANGE_PART_BYTES), ..range };
        Self { gate: Arc::clone(gate), range, mode, is_over: false }
    }

    /// The next part; None after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Part>, Status> {
        if self.is_over {
            return Ok(None);
        }
        let wish = Wish::Read(Query::Range(self.range.clone()), self.mode);
        let (standing, newest, found) = match self.gate.wish(wish).await.map_err(refused)? {
            (standing, Applied { revision, outcome: Outcome::Range(found) }) => (standing, revision, found),
            (_, Applied { outcome: Outcome::Refused(refusal), .. }) => return Err(refused(refusal.into())),
            _ => return Err(refused(Fault::Unexpected)),
        };
        if self.range.revision == Revision(0) {
            self.range.revision = newest;
        }
        let is_cut = self.range.limit != 0 && found.count >= self.range.limit;
        self.is_over = !found.more || is_cut;
        let part = Part {
            standing,
            newest,
            of: self.range.revision,
            is_last: self.is_over,
            more: found.more,
            pairs: found.pairs,
        };
        if let Some(last) = part.pairs.last() {
            self.go_on_behind(&last.key, found.count);
        }
        Ok(Some(part))
    }

    fn go_on_behind(&mut self, key: &Bytes, count: u64) {
        self.mode = ReadMode::Serializable;
        self.range.limit = self.range.limit.saturating_sub(count);
        let mut next = BytesMut::with_capacity(key.len() + 1);
        next.extend_from_slice(key);
        next.put_u8(0);
        match &mut self.range.range {
            KeyRange::Key(_) => {}
            KeyRange::Span { start, .. } | KeyRange::From(start) => *start = next.freeze(),
        }
    }

    /// How many pairs there are behind those that were read.
    pub(super) async fn count_rest(&self) -> Result<u64, Status> {
        let rest = Range { count_only: true, limit: 0, part_bytes_max: None, ..self.range.clone() };
        match self.gate.wish(Wish::Read(Query::Range(rest), ReadMode::Serializable)).await.map_err(refused)? {
            (_, Applied { outcome: Outcome::Range(found), .. }) => Ok(found.count),
            (_, Applied { outcome: Outcome::Refused(refusal), .. }) => Err(refused(refusal.into())),
            _ => Err(refused(Fault::Unexpected)),
        }
    }
}
