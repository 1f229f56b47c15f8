//! Clients that write and read while members are broken, and write down what they were told.
//!
//! ```text
//!   four of ten   put a key that nobody else ever touches: what is lost stays lost
//!   six of ten    put, delete, compare-and-put and read a few keys that all clients share: what is stale shows
//! ```
//!
//! Beside them one reader stays with each member (`nemesis/steadfast.rs`).
//!
//! What always holds: every value is written once, so a value names its write; every operation is on the record before
//! it is sent. What it leaves out: whether the answers are possible.

use super::now;
use super::recorder::Recorder;
use super::steadfast::Steadfast;
use bytes::Bytes;
use mainstay::api::{Certainty, Otherwise, ReadMode};
use mainstay::check::{Answer, Call, WriteId};
use mainstay::cli::workload::client;
use mainstay::client::{Client, Failure};
use mainstay::ids::{Revision, SessionId};
use mainstay::kv::{
    Applied, Command, Compare, CompareOperator, CompareTarget, DeleteRange, KeyRange, Operation as Part,
    Outcome, Put, Query, Range, Txn,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a client tries one operation, and how long every other one does.
///
/// Chosen: the first outlives an election, so that writes go on; the second does not, so that there are writes that
/// nobody knows the end of.
const PATIENCE: Duration = Duration::from_secs(5);
const IMPATIENCE: Duration = Duration::from_millis(150);

/// Between two operations of a client.
///
/// Chosen: what is short against any silence that is measured, and keeps an hour's history in memory.
const PAUSE: Duration = Duration::from_millis(1);

/// How old what a read with a bound is told may be.
const MAX_AGE_MS: u32 = 100;

/// Keys that all clients share.
const SHARED_KEYS: u64 = 4;

/// Bytes of a value.
const VALUE_BYTES: usize = 64;

/// One write, as its client saw it.
#[derive(Clone, Debug)]
pub(super) struct Written {
    /// When it was begun.
    pub(super) began: Instant,
    /// When its outcome, or the lack of one, was known.
    pub(super) ended: Instant,
    /// Why it was not acknowledged, if it was not.
    pub(super) failure: Option<String>,
}

/// Clients at work.
#[derive(Debug)]
pub(super) struct Clients {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Starts `count` clients, which send into the channel what became of their writes, and a reader of each member. `prefix`
    /// must be new to the cluster, and so must be the numbers from `first_number` on, `count` and one for each member.
    pub(super) fn start(
        endpoints: &[SocketAddr],
        (first_number, count): (u32, u16),
        prefix: &str,
        recorder: &Arc<Recorder>,
    ) -> (Self, Receiver<Written>) {
        let (sender, written) = channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let threads = (0..count).map(|at| {
            let mut endpoints = endpoints.to_vec();
            // Clients begin at different members, so that all members are asked.
            let first = usize::from(at) % endpoints.len().max(1);
            endpoints.rotate_left(first);
            let number = first_number + u32::from(at);
            let chatter = Chatter {
                client: client(&endpoints, if at % 2 == 0 { PATIENCE } else { IMPATIENCE }),
                number,
                prefix: prefix.to_owned(),
                state: u64::from(number),
                written_count: 0,
                seen: Revision(0),
                recorder: Arc::clone(recorder),
                sender: sender.clone(),
                is_over: Arc::clone(&is_over),
            };
            std::thread::spawn(move || chatter.run())
        });
        let readers = (u32::from(count)..).zip(endpoints).map(|(at, &member)| {
            let reader = Steadfast {
                member,
                number: first_number + at,
                prefix: prefix.to_owned(),
                recorder: Arc::clone(recorder),
                is_over: Arc::clone(&is_over),
            };
            std::thread::spawn(move || reader.run())
        });
        let threads = threads.chain(readers).collect();
        (Self { is_over, threads }, written)
    }

    /// Stops the clients, each after the operation it is at.
    pub(super) fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // Whatever it was at when it panicked stays on the record without an answer.
            let _ = thread.join();
        }
    }
}

/// One of the keys that all clients share.
pub(super) fn shared_key(prefix: &str, number: u64) -> Bytes {
    Bytes::from(format!("{prefix}/shared/{}", number % SHARED_KEYS))
}

/// One client.
struct Chatter {
    client: Client,
    number: u32,
    prefix: String,
    state: u64,
    written_count: u64,
    /// The revision of the last answer, which compares ask for.
    seen: Revision,
    recorder: Arc<Recorder>,
    sender: Sender<Written>,
    is_over: Arc<AtomicBool>,
}

impl Chatter {
    fn run(mut self) {
        while !self.is_over.load(Ordering::Relaxed) {
            let shared = self.shared_key();
            match self.below(20) {
                0..8 => {
                    let key = Bytes::from(format!("{}/{}/{}", self.prefix, self.number, self.written_count));
                    let put = self.put_of(key);
                    self.write(&Command::Put(put));
                }
                8..11 => {
                    let put = self.put_of(shared);
                    self.write(&Command::Put(put));
                }
                11..14 => self.swap(shared),
                14 => {
                    self.write(&Command::DeleteRange(DeleteRange {
                        range: KeyRange::Key(shared),
                        wants_previous: true,
                    }));
                }
                15..18 => self.read(KeyRange::Key(shared), ReadMode::Linearizable),
                18 => self.read(self.all_shared(), ReadMode::Linearizable),
                // Both may be old; one says how old.
                _ if self.below(2) == 0 => self.read(self.all_shared(), ReadMode::Serializable),
                _ => self.read(
                    self.all_shared(),
                    ReadMode::MaxAge { max_age_ms: MAX_AGE_MS, otherwise: Otherwise::Refuse },
                ),
            }
            // Nobody unparks this thread: it only lets some time pass.
            std::thread::park_timeout(PAUSE);
        }
        self.client.close();
    }

    /// A number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.state >> 33) % bound
    }

    fn shared_key(&mut self) -> Bytes {
        let number = self.below(SHARED_KEYS);
        shared_key(&self.prefix, number)
    }

    fn all_shared(&self) -> KeyRange {
        let bound = |end: char| Bytes::from(format!("{}/shared{end}", self.prefix));
        // '0' is the character after '/'.
        KeyRange::Span { start: bound('/'), end: bound('0') }
    }

    /// A put of the next value.
    fn put_of(&mut self, key: Bytes) -> Put {
        self.written_count += 1;
        let value =
            format!("{:.<VALUE_BYTES$}", format!("client {} value {}", self.number, self.written_count));
        Put { wants_previous: self.below(2) == 0, ..Put::new(key, Bytes::from(value)) }
    }

    /// Puts a shared key, if it is as it was when this client last heard of anything, and reads it in any case.
    fn swap(&mut self, key: Bytes) {
        let range = KeyRange::Key(key.clone());
        let is_unchanged = Compare {
            range: range.clone(),
            operator: CompareOperator::Less,
            target: CompareTarget::Mod(self.seen.next()),
        };
        let (put, get) = (Part::Put(self.put_of(key)), Part::Range(Range::new(range)));
        self.write(&Command::Txn(Txn {
            compares: vec![is_unchanged],
            success: vec![put, get.clone()],
            failure: vec![get],
        }));
    }

    fn write(&mut self, command: &Command) {
        // The client's own session is its own affair, and may change; these names only tell writes apart.
        let write = WriteId { session: SessionId(self.number.into()), sequence: self.written_count };
        self.written_count += 1;
        let began = now();
        let op = self.recorder.invoke(self.number, Call::Write { write, command: command.clone() });
        let result = self.client.write(command);
        let ended = now();
        let failure = match &result {
            Ok(Applied { outcome: Outcome::Refused(refusal), .. }) => {
                Some(format!("the store says {refusal:?}"))
            }
            Ok(_) => None,
            Err(failure) => Some(failure.to_string()),
        };
        self.end(op, result);
        // Whoever started us may not want to hear any more; the record counts.
        let _ = self.sender.send(Written { began, ended, failure });
    }

    fn read(&mut self, range: KeyRange, mode: ReadMode) {
        let query = Query::Range(Range::new(range));
        let is_linearizable = mode == ReadMode::Linearizable;
        let call = Call::Read { query: query.clone(), is_linearizable };
        let op = self.recorder.invoke(self.number, call);
        let result = self.client.read(query, mode);
        self.end(op, result);
    }

    fn end(&mut self, op: usize, result: Result<Applied, Failure>) {
        let answer = match result {
            Ok(applied) => {
                self.seen = applied.revision;
                Answer::Applied(applied)
            }
            Err(failure) if failure.certainty() == Certainty::NotDone => Answer::NotDone,
            Err(_) => Answer::Unknown,
        };
        self.recorder.end(op, answer);
    }
}
