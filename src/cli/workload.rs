//! Writers that remember what was acknowledged, and the check that all of it is still there.
//!
//! Each writer is a thread with a client of its own that writes one new key after the other, every value unique. A key
//! is written once, so afterwards it must be there with version 1 if the write was acknowledged; it may be there if
//! the outcome is unknown. What always holds: the ledger is the writers' own memory and knows nothing of the
//! members. What it leaves out: histories and their order (`crate::check`), and load for measurements.

use crate::api::ReadMode;
use crate::client::{Client, ClientOptions, Failure};
use crate::kv::{KeyRange, Outcome, Query, Range, RangeResult};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes of a value.
const VALUE_BYTES: usize = 128;

/// Keys read back with one request.
const PAGE_KEYS: u64 = 1_000;

/// One write, as its writer saw it.
#[derive(Clone, Debug)]
pub struct Written {
    /// When it was begun.
    pub began: Instant,
    /// When its outcome, or the lack of one, was known.
    pub ended: Instant,
    /// Why it was not acknowledged, if it was not.
    pub failure: Option<String>,
}

/// Writers at work.
#[derive(Debug)]
pub struct Workload {
    prefix: String,
    is_over: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Ledger>>,
}

/// What one writer remembers: it tried the numbers 1 to `tried_count`, and these were not acknowledged.
#[derive(Clone, Debug, Default)]
struct Ledger {
    tried_count: u64,
    unacknowledged: BTreeSet<u64>,
}

/// What all writers remember.
#[derive(Clone, Debug)]
pub struct Ledgers {
    prefix: String,
    writers: Vec<Ledger>,
}

/// What reading everything back showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Writes acknowledged.
    pub acked: u64,
    /// Of those, the ones that are not there, or not as they were written.
    pub lost: u64,
    /// Writes that were applied more than once.
    pub twice: u64,
    /// Writes whose outcome was unknown.
    pub unknown: u64,
    /// Of those, the ones that are there.
    pub unknown_there: u64,
    /// Keys that nobody tried to write.
    pub foreign: u64,
}

impl Workload {
    /// Starts `writers_count` writers; each sends what it sees into the channel. `prefix` must be new to the cluster.
    pub fn start(endpoints: &[SocketAddr], writers_count: usize, prefix: &str) -> (Self, Receiver<Written>) {
        let (sender, written) = channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let writers = (0..writers_count).map(|number| {
            let mut endpoints = endpoints.to_vec();
            // Writers begin at different members, so that all members are asked.
            let first = number % endpoints.len().max(1);
            endpoints.rotate_left(first);
            let writer = Writer {
                prefix: writer_prefix(prefix, number),
                client: client(&endpoints, Duration::from_secs(5)),
                sender: sender.clone(),
                is_over: Arc::clone(&is_over),
            };
            std::thread::spawn(move || writer.run())
        });
        let writers = writers.collect();
        (Self { prefix: prefix.to_owned(), is_over, writers }, written)
    }

    /// Stops the writers, each after the write it is at.
    pub fn stop(self) -> Ledgers {
        self.is_over.store(true, Ordering::Relaxed);
        let ledgers = self.writers.into_iter().map(|writer| writer.join().unwrap_or_default());
        Ledgers { prefix: self.prefix, writers: ledgers.collect() }
    }
}

/// A client of the members at `endpoints`.
pub fn client(endpoints: &[SocketAddr], timeout: Duration) -> Client {
    let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
    Client::new(ClientOptions { timeout, ..ClientOptions::of(&endpoints) })
}

struct Writer {
    prefix: String,
    client: Client,
    sender: Sender<Written>,
    is_over: Arc<AtomicBool>,
}

impl Writer {
    fn run(mut self) -> Ledger {
        let mut ledger = Ledger::default();
        while !self.is_over.load(Ordering::Relaxed) {
            ledger.tried_count += 1;
            let number = ledger.tried_count;
            let began = now();
            let result = self.client.put(key(&self.prefix, number), value(&self.prefix, number));
            let failure = match result {
                Ok(applied) if matches!(applied.outcome, Outcome::Put(_)) => None,
                Ok(applied) => Some(format!("the store says {:?}", applied.outcome)),
                Err(failure) => Some(failure.to_string()),
            };
            if failure.is_some() {
                ledger.unacknowledged.insert(number);
            }
            // Whoever started us may not want to hear any more; the ledger counts.
            let _ = self.sender.send(Written { began, ended: now(), failure });
        }
        self.client.close();
        ledger
    }
}

/// Whether a linearizable read finds `key`.
///
/// # Errors
/// The read was not served.
pub fn is_there(client: &mut Client, key: &str) -> Result<bool, Failure> {
    Ok(matches!(client.get(key.to_owned())?.outcome, Outcome::Range(RangeResult { count: 1, .. })))
}

impl Ledgers {
    /// How many writes were acknowledged.
    pub fn acked_count(&self) -> u64 {
        self.writers.iter().map(|ledger| ledger.tried_count - ledger.unacknowledged.len() as u64).sum()
    }

    /// Reads everything back, linearizably.
    ///
    /// # Errors
    /// The cluster does not serve reads.
    pub fn verify(&self, client: &mut Client) -> Result<Verdict, Failure> {
        let mut verdict = Verdict { acked: self.acked_count(), ..Verdict::default() };
        for (number, ledger) in self.writers.iter().enumerate() {
            let prefix = writer_prefix(&self.prefix, number);
            let mut missing: BTreeSet<u64> =
                (1..=ledger.tried_count).filter(|number| !ledger.unacknowledged.contains(number)).collect();
            verdict.unknown += ledger.unacknowledged.len() as u64;
            read_back(client, &prefix, |key_read, value_read, version| {
                let number =
                    number_in(&prefix, key_read).filter(|number| (1..=ledger.tried_count).contains(number));
                let Some(number) = number else {
                    verdict.foreign += 1;
                    return;
                };
                verdict.twice += u64::from(version > 1);
                verdict.unknown_there += u64::from(ledger.unacknowledged.contains(&number));
                if value_read == value(&prefix, number).as_bytes() {
                    missing.remove(&number);
                }
            })?;
            verdict.lost += missing.len() as u64;
        }
        Ok(verdict)
    }
}

impl Verdict {
    /// Whether every promise about these writes was kept.
    pub const fn is_kept(&self) -> bool {
        self.lost == 0 && self.twice == 0 && self.foreign == 0
    }
}

/// Calls `each` with key, value and version of everything under `prefix`.
fn read_back(
    client: &mut Client,
    prefix: &str,
    mut each: impl FnMut(&[u8], &[u8], u64),
) -> Result<(), Failure> {
    let mut start = Bytes::from(prefix.to_owned());
    // '0' is the byte after '/', which every prefix ends with.
    let end = Bytes::from(format!("{}0", prefix.trim_end_matches('/')));
    loop {
        let span = KeyRange::Span { start: start.clone(), end: end.clone() };
        let range = Range { limit: PAGE_KEYS, ..Range::new(span) };
        let applied = client.read(Query::Range(range), ReadMode::Linearizable)?;
        let Outcome::Range(page) = applied.outcome else { return Ok(()) };
        for pair in &page.pairs {
            each(&pair.key, &pair.value, pair.version);
        }
        match page.pairs.last() {
            Some(last) if page.more => {
                // The smallest key behind the last one.
                start = [last.key.as_ref(), &[0]].concat().into();
            }
            Some(_) | None => return Ok(()),
        }
    }
}

fn writer_prefix(prefix: &str, writer: usize) -> String {
    format!("{prefix}/{writer:03}/")
}

fn key(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:012}")
}

fn number_in(prefix: &str, key: &[u8]) -> Option<u64> {
    std::str::from_utf8(key.strip_prefix(prefix.as_bytes())?).ok()?.parse().ok()
}

fn value(prefix: &str, number: u64) -> String {
    format!("{:.<VALUE_BYTES$}", format!("{prefix}{number}"))
}

#[allow(clippy::disallowed_methods)] // what is measured is real time
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::{key, number_in, value, writer_prefix};

    #[test]
    fn every_write_has_a_key_and_a_value_of_its_own() {
        let prefix = writer_prefix("demo/7", 3);
        assert_eq!(key(&prefix, 12), "demo/7/003/000000000012");
        assert_eq!(number_in(&prefix, key(&prefix, 12).as_bytes()), Some(12));
        assert_eq!(number_in(&prefix, b"demo/7/004/000000000012"), None);
        assert_eq!(value(&prefix, 12).len(), 128);
        assert_ne!(value(&prefix, 12), value(&prefix, 120));
        assert_ne!(value(&prefix, 12), value(&writer_prefix("demo/7", 4), 12));
    }
}
