//! Readers that stay with one member, whatever it does, and wait for its answers as long as it takes.
//!
//! ```text
//!   read, read, read ──► [ socket of a leader that stands still ] … it goes on ──► what does it answer?
//! ```
//!
//! What always holds: one connection to one member at a time; reads go on being sent while nothing is answered, so some of them
//! wait in a member's socket when it stands still, and are answered, by a leader that may lead no more, when it goes on. A client
//! that tries elsewhere after a while never hears those answers. What it leaves out: writes. A leader that is not
//! cut off from its peers hears of its successor in the same turn as of the reads that waited, and so shows no fault of leases; one
//! that is shows bug 149, if it is planted, now and then (`pause-leader-cut-off`), and not 150, which the simulator finds.

use super::clients::shared_key;
use super::now;
use super::recorder::Recorder;
use mainstay::api::{ReadMode, Request, Response};
use mainstay::check::{Answer, Call};
use mainstay::client::{Connection, Trouble};
use mainstay::ids::KeyspaceId;
use mainstay::kv::{KeyRange, Query, Range};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Between two reads, and between two attempts to connect.
///
/// Chosen: the judge has to look at every one of them, and many more than a pause needs would say nothing more.
const PACE: Duration = Duration::from_millis(5);

/// Reads that wait for one member at the most.
const WAITING_MAX: usize = 32;

/// How long a connection may take, and how long the last answers are waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// One reader of one member.
pub(super) struct Steadfast {
    pub(super) member: SocketAddr,
    pub(super) number: u32,
    pub(super) prefix: String,
    pub(super) recorder: Arc<Recorder>,
    pub(super) is_over: Arc<AtomicBool>,
}

impl Steadfast {
    /// Reads until it is over.
    pub(super) fn run(self) {
        while !self.is_over.load(Ordering::Relaxed) {
            if let Ok(connection) = Connection::open(&self.member.to_string(), None, PATIENCE) {
                self.read_on(connection);
            }
            // Nobody unparks this thread: it only lets some time pass.
            std::thread::park_timeout(PACE);
        }
    }

    /// Reads until the connection breaks, or it is over.
    fn read_on(&self, mut connection: Connection) {
        let mut waiting = BTreeMap::new();
        let mut asked_count = 0;
        while !self.is_over.load(Ordering::Relaxed) {
            if waiting.len() < WAITING_MAX {
                asked_count += 1;
                let Some((id, op)) = self.ask(&mut connection, asked_count) else { break };
                waiting.insert(id, op);
            }
            if self.hear(&mut connection, &mut waiting, PACE).is_err() {
                break;
            }
        }
        let end = now() + PATIENCE;
        while !waiting.is_empty() && now() < end {
            if self.hear(&mut connection, &mut waiting, PACE).is_err() {
                break;
            }
        }
        for op in waiting.into_values() {
            self.recorder.end(op, Answer::Unknown);
        }
    }

    /// Sends the next read; the number of the request and that of the operation.
    fn ask(&self, connection: &mut Connection, asked_count: u64) -> Option<(u64, usize)> {
        let query = Query::Range(Range::new(KeyRange::Key(shared_key(&self.prefix, asked_count))));
        let call = Call::Read { query: query.clone(), is_linearizable: true };
        let op = self.recorder.invoke(self.number, call);
        let request = Request::Read { keyspace: KeyspaceId::FIRST, query, mode: ReadMode::Linearizable };
        let sent = connection.send(&request);
        if sent.is_err() {
            self.recorder.end(op, Answer::Unknown);
        }
        sent.ok().map(|id| (id, op))
    }

    /// Takes what comes in this time.
    fn hear(
        &self,
        connection: &mut Connection,
        waiting: &mut BTreeMap<u64, usize>,
        patience: Duration,
    ) -> Result<(), Trouble> {
        let deadline = now() + patience;
        loop {
            let remaining = deadline.saturating_duration_since(now());
            let (id, response) = match connection.receive_within(remaining) {
                Ok(answered) => answered,
                Err(Trouble::TimedOut) => return Ok(()),
                Err(trouble) => return Err(trouble),
            };
            if let Some(op) = waiting.remove(&id) {
                let answer = match response {
                    Response::Applied(applied) => Answer::Applied(applied),
                    // Whatever else is said of a read, it did nothing.
                    _ => Answer::NotDone,
                };
                self.recorder.end(op, answer);
            }
        }
    }
}
