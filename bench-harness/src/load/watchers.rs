//! Watchers under load: what they are told is counted, and held against what was written.
//!
//! One thread has all of them, some on each connection; the puts of the load are what happens. What always holds: for
//! each watch by itself the revisions grow by one from event to event, because every put makes one and nothing else
//! writes; what is left out or comes twice is counted. What it leaves out: values, and how long a delivery takes.

use bytes::BytesMut;
use mainstay::api::native::{Receiver, decode_frame, decode_response_frame, encode_request_frame};
use mainstay::api::{Request, Response, WatchAnswer, WatchRequest};
use mainstay::client::Trouble;
use mainstay::ids::{KeyspaceId, Revision};
use mainstay::kv::KeyRange;
use mainstay::watch::{Interest, WatchSpec};
use rustix::event::{Timespec, epoll};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes read from a socket at once.
const READ_BYTES: usize = 256 * 1_024;

/// How long a connection, and all its watches, may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the last deliveries may take.
const DRAIN_PATIENCE: Duration = Duration::from_secs(20);

/// What watchers were told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deliveries {
    /// Events, over all watches, while it was counted.
    pub(crate) counted: u64,
    /// Events over all watches, from the first to the last.
    pub(crate) total: u64,
    /// Watches.
    pub(crate) watches: u64,
    /// Events that a watch should have been told and was not.
    pub(crate) lost: u64,
    /// Events that came twice, or after a later one.
    pub(crate) repeated: u64,
    /// CPU of the thread that has the watchers.
    pub(crate) own_cpu: Duration,
}

/// The thread that has all watchers.
pub(crate) struct Watchers {
    thread: JoinHandle<Deliveries>,
    delivered: Arc<AtomicU64>,
    /// The last revision that every watch must be told; 0 until it is known.
    last: Arc<AtomicU64>,
    /// What was delivered when it was begun and ended to be counted.
    edges: [u64; 2],
}

struct Lane {
    stream: TcpStream,
    received: BytesMut,
    /// For each watch, by its request, the last revision it was told of.
    told: Vec<Revision>,
}

impl Watchers {
    /// Creates `count` watches of every key, on so many connections to these members.
    ///
    /// # Errors
    /// A member does not serve them.
    pub(crate) fn start(
        addresses: &[SocketAddr],
        count: usize,
        connections: usize,
    ) -> Result<Self, std::io::Error> {
        let mut lanes = Vec::new();
        for lane in 0..connections.min(count) {
            let watches = (count - lane).div_ceil(connections);
            let address = addresses[lane % addresses.len()];
            lanes.push(Lane::open(address, watches).map_err(std::io::Error::other)?);
        }
        let (delivered, last) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let reader = Reader::new(lanes, Arc::clone(&delivered), Arc::clone(&last))?;
        let thread = std::thread::spawn(move || reader.run());
        Ok(Self { thread, delivered, last, edges: [0; 2] })
    }

    /// What is counted begins (0) or ends (1) now.
    pub(crate) fn note(&mut self, edge: usize) {
        self.edges[edge] = self.delivered.load(Ordering::Relaxed);
    }

    /// Waits until every watch was told everything up to `last`, and says what came of it.
    pub(crate) fn stop(self, last: Revision) -> Deliveries {
        self.last.store(last.0, Ordering::Relaxed);
        let deliveries = self.thread.join().unwrap_or_default();
        Deliveries { counted: self.edges[1].saturating_sub(self.edges[0]), ..deliveries }
    }
}

impl Lane {
    fn open(address: SocketAddr, watches: usize) -> Result<Self, Trouble> {
        let mut lane = Self::greet(address).map_err(Trouble::Broken)?;
        for watch in 1..=watches as u64 {
            let spec = WatchSpec {
                interest: Interest::all(KeyRange::From(bytes::Bytes::new())),
                start: Revision(0),
                wants_progress: false,
            };
            let create = WatchRequest::Create { keyspace: KeyspaceId::FIRST, spec };
            let frame = encode_request_frame(watch, &Request::Watch(create));
            lane.stream.write_all(&frame).map_err(Trouble::Broken)?;
            // One at a time, so that no more are in flight than are allowed.
            let Response::Watch(WatchAnswer::Created { revision }) = lane.next()? else {
                return Err(Trouble::Unasked(watch));
            };
            lane.told.push(revision);
        }
        lane.stream.set_nonblocking(true).map_err(Trouble::Broken)?;
        Ok(lane)
    }

    fn greet(address: SocketAddr) -> std::io::Result<Self> {
        use mainstay::api::native::{ClientHello, Features, VERSION};
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let features = Features::KNOWN;
        let hello = ClientHello { version_min: VERSION, version_max: VERSION, features, cluster: None };
        stream.write_all(&hello.encode_frame())?;
        let mut lane = Self { stream, received: BytesMut::new(), told: Vec::new() };
        while decode_frame(&mut lane.received, Receiver::Client).map_err(std::io::Error::other)?.is_none() {
            lane.read(&mut [0; 4_096])?;
        }
        Ok(lane)
    }

    fn next(&mut self) -> Result<Response, Trouble> {
        loop {
            if let Some(frame) = decode_frame(&mut self.received, Receiver::Client)? {
                return Ok(decode_response_frame(&frame)?);
            }
            self.read(&mut [0; 4_096]).map_err(Trouble::Broken)?;
        }
    }

    fn read(&mut self, scratch: &mut [u8]) -> std::io::Result<()> {
        match self.stream.read(scratch)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => {
                self.received.extend_from_slice(scratch.get(..count).unwrap_or_default());
                Ok(())
            }
        }
    }
}

/// What the thread does.
struct Reader {
    lanes: Vec<Lane>,
    epoll: OwnedFd,
    delivered: Arc<AtomicU64>,
    last: Arc<AtomicU64>,
    sum: Deliveries,
}

impl Reader {
    fn new(lanes: Vec<Lane>, delivered: Arc<AtomicU64>, last: Arc<AtomicU64>) -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (at, lane) in lanes.iter().enumerate() {
            epoll::add(&epoll, &lane.stream, epoll::EventData::new_u64(at as u64), epoll::EventFlags::IN)?;
        }
        let watches = lanes.iter().map(|lane| lane.told.len() as u64).sum();
        Ok(Self { lanes, epoll, delivered, last, sum: Deliveries { watches, ..Deliveries::default() } })
    }

    fn run(mut self) -> Deliveries {
        let mut events = Vec::with_capacity(1_024);
        let mut scratch = vec![0; READ_BYTES];
        let mut deadline = None;
        loop {
            events.clear();
            let nap = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            let buffer = rustix::buffer::spare_capacity(&mut events);
            // An interruption is as good as nothing to read.
            let _ = epoll::wait(&self.epoll, buffer, Some(&nap));
            for event in &events {
                let at = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
                if self.read(at, &mut scratch).is_err() {
                    eprintln!("load: a connection with watches is lost");
                    self.lanes[at].told.clear();
                    let _ = epoll::delete(&self.epoll, &self.lanes[at].stream);
                }
            }
            let last = Revision(self.last.load(Ordering::Relaxed));
            if last == Revision(0) {
                continue;
            }
            let until = *deadline.get_or_insert_with(|| now() + DRAIN_PATIENCE);
            let is_told = self.lanes.iter().flat_map(|lane| &lane.told).all(|told| *told >= last);
            if is_told || now() > until {
                return self.finish(last);
            }
        }
    }

    fn read(&mut self, at: usize, scratch: &mut [u8]) -> Result<(), Trouble> {
        let lane = &mut self.lanes[at];
        match lane.read(scratch) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(Trouble::Broken(error)),
        }
        let mut told_count = 0;
        while let Some(frame) = decode_frame(&mut lane.received, Receiver::Client)? {
            let watch = usize::try_from(frame.request - 1).unwrap_or(usize::MAX);
            let (Response::Watch(WatchAnswer::Told(batch)), Some(told)) =
                (decode_response_frame(&frame)?, lane.told.get_mut(watch))
            else {
                return Err(Trouble::Unasked(frame.request));
            };
            for event in &batch.events {
                let revision = event.pair.mod_revision;
                if revision <= *told {
                    self.sum.repeated += 1;
                    continue;
                }
                self.sum.lost += revision.0 - told.0 - 1;
                *told = revision;
                told_count += 1;
            }
        }
        self.sum.total += told_count;
        self.delivered.fetch_add(told_count, Ordering::Relaxed);
        Ok(())
    }

    fn finish(mut self, last: Revision) -> Deliveries {
        let expected = self.sum.watches;
        let there: u64 = self.lanes.iter().map(|lane| lane.told.len() as u64).sum();
        // A watch whose connection was lost has lost all that it was not told; one is enough to say so.
        self.sum.lost += expected - there;
        for told in self.lanes.iter().flat_map(|lane| &lane.told) {
            self.sum.lost += last.0.saturating_sub(told.0);
        }
        self.sum.own_cpu = super::own_cpu();
        self.sum
    }
}

#[allow(clippy::disallowed_methods)] // a load is a clock by trade
fn now() -> Instant {
    Instant::now()
}
