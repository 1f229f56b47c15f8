//! What leaves a member, and what its disk had done by then: evidence for a test that nothing leaves too early.
//!
//! With `MAINSTAY_RING_RECORD=DIR` a member writes `DIR/NAME.record`, one line an event, in the order of the ring:
//!
//! ```text
//! write N synced=0|1 term=T vote=V last=I    handed to the ring; vote 0 is nobody
//! durable N                                  its completion was seen
//! vote term=T for=M                          a granted vote leaves
//! matched upto=I                             an acknowledgement of entries leaves
//! answer applied=I                           an answer of the store leaves for a client
//! ```
//!
//! `kill -9` keeps what the kernel holds, so it says nothing about syncing (RELIABILITY §7); this does. Left out:
//! judging it. That is the reader's part, so that no code of ours vouches for itself.

use super::ServerError;
use crate::ids::LogIndex;
use crate::peer::Body;
use crate::raft::{AppendResult, Message};
use bytes::Bytes;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use wal_format::{Frame, Section};

/// The variable that names the directory.
const VARIABLE: &str = "MAINSTAY_RING_RECORD";

/// A record being written, or none.
#[derive(Debug, Default)]
pub(super) struct Record {
    file: Option<BufWriter<File>>,
    writes_count: u64,
}

impl Record {
    /// Starts a record if the environment asks for one. A restarted member goes on in the same file.
    ///
    /// # Errors
    /// `ServerError::Kernel`: the file cannot be opened.
    pub(super) fn start(name: &str) -> Result<Self, ServerError> {
        let Some(directory) = std::env::var_os(VARIABLE) else { return Ok(Self::default()) };
        let path = Path::new(&directory).join(format!("{name}.record"));
        let file = File::options().create(true).append(true).open(path).map_err(ServerError::Kernel)?;
        Ok(Self { file: Some(BufWriter::new(file)), writes_count: 0 })
    }

    /// A frame is handed to the ring.
    pub(super) fn write(&mut self, frame: &[u8], salt: Option<u64>, is_synced: bool) {
        self.writes_count += 1;
        if self.file.is_none() {
            return;
        }
        let decoded = salt.and_then(|salt| Frame::decode(frame, salt).ok());
        let tails = decoded.iter().flat_map(Frame::sections).filter_map(|section| match section {
            Ok(Section::Batch(batch)) => Some(batch.tail),
            Ok(Section::Identity(_) | Section::GroupOpening(_) | Section::Repeat(_) | Section::Reset(_))
            | Err(_) => None,
        });
        let number = self.writes_count;
        let synced = u8::from(is_synced);
        match tails.last() {
            Some(tail) => self.line(&format!(
                "write {number} synced={synced} term={} vote={} last={}",
                tail.hard_state.term, tail.hard_state.vote, tail.last.index
            )),
            None => self.line(&format!("write {number} synced={synced} term=0 vote=0 last=0")),
        }
    }

    /// The write in flight has completed.
    pub(super) fn durable(&mut self) {
        self.line(&format!("durable {}", self.writes_count));
    }

    /// A frame leaves for a peer.
    pub(super) fn sent(&mut self, frame: &Bytes) {
        if self.file.is_none() {
            return;
        }
        let Ok(frame) = crate::peer::decode(frame) else { return };
        let Body::Raft { message, .. } = frame.body else { return };
        if let Message::VoteReply(reply) = &message
            && reply.is_granted
        {
            self.line(&format!("vote term={} for={}", reply.term, frame.to.0));
        }
        if let Message::AppendReply(reply) = &message
            && let AppendResult::Matched { upto } = reply.result
        {
            self.line(&format!("matched upto={upto}"));
        }
    }

    /// An answer of the store leaves for a client.
    pub(super) fn answered(&mut self, applied: LogIndex) {
        if self.file.is_some() {
            self.line(&format!("answer applied={applied}"));
        }
    }

    fn line(&mut self, line: &str) {
        if let Some(file) = &mut self.file
            && writeln!(file, "{line}").is_err()
        {
            // Evidence with a gap would be none.
            self.file = None;
        }
    }
}
