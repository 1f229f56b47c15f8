//! One thread, one epoll instance, all connections: it sends what is due and takes answers, in as few calls as it can.
//!
//! The load shares its cores with what it measures, so everything due on a connection leaves in one write, and
//! everything received is decoded at once. What always holds: every operation sent ends as served or as an error
//! of a kind; a connection that breaks fails its operations and is made again. What it leaves out: what the bytes
//! mean (`Conversation`), and when an operation is due (`Pacer`).

use super::conversation::{Act, Answer, Conversation, Operation, Random};
use super::pacing::{Nanos, Pace, Pacer};
use super::tally::Tally;
use bytes::BytesMut;
use rustix::event::{Timespec, epoll};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bytes read from a socket at once.
const READ_BYTES: usize = 256 * 1_024;

/// Events taken from epoll at once.
const EVENTS_MAX: usize = 1_024;

/// In an open loop the thread wakes at most this often for what has become due.
///
/// Chosen: a wake for every single operation would cost the servers more than it adds in truth; this adds at most a
/// tenth of a millisecond to a latency, and to none less.
const GRAIN: Nanos = 100_000;

/// Between two tries to connect again.
const RECONNECT_AFTER: Nanos = 100_000_000;

/// How long one try to connect may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// How long all connections together may take to be ready.
const READY_PATIENCE: Nanos = 20_000_000_000;

/// How long answers are awaited at the end.
const DRAIN_PATIENCE: Nanos = 10_000_000_000;

const SECOND: Nanos = 1_000_000_000;

/// Why there is no load.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// The system refused something.
    #[error(transparent)]
    Machine(#[from] std::io::Error),
    /// A connection did not come about.
    #[error("no connection to {address}: {why}")]
    NotReady {
        /// To whom.
        address: SocketAddr,
        /// Why.
        why: String,
    },
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// How connections are made.
pub(crate) struct Dialer {
    /// Whom there is to connect to.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Whether connections are spread over all addresses; otherwise all go to the first.
    pub(crate) is_spread: bool,
    /// Makes one side of a new connection to this address.
    pub(crate) conversation: Box<dyn Fn(SocketAddr) -> Box<dyn Conversation>>,
}

impl Dialer {
    /// Where connection `lane` goes after so many failures, each of which leads to the next address.
    fn address(&self, lane: usize, failures: usize) -> SocketAddr {
        let first = if self.is_spread { lane } else { 0 };
        self.addresses[(first + failures) % self.addresses.len()]
    }
}

/// What is to be sent, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// When operations are due.
    pub(crate) pace: Pace,
    /// Operations unanswered at most on a connection.
    pub(crate) depth: u64,
    /// What they do: one of these, drawn evenly.
    pub(crate) acts: Vec<Act>,
    /// How many keys there are.
    pub(crate) keys: u64,
    /// Every key once, in order, instead of drawn keys for a time.
    pub(crate) is_fill: bool,
    /// Before anything is counted.
    pub(crate) warm_up: Nanos,
    /// For which everything is counted.
    pub(crate) measured: Nanos,
}

/// An instant of a run that others may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edge {
    /// The warm-up is over.
    Begins,
    /// What is measured is over; answers may still come.
    Ends,
}

/// All connections of a load.
pub(crate) struct Engine {
    epoch: Instant,
    epoll: OwnedFd,
    dialer: Dialer,
    connections: Vec<Connection>,
    /// Lanes whose connection broke and is not made again yet.
    closed: Vec<usize>,
    events: Vec<epoll::Event>,
    scratch: Vec<u8>,
    answers: Vec<Answer>,
    is_interrupted: Arc<AtomicBool>,
}

struct Connection {
    /// `None` between a failure and the next try.
    stream: Option<TcpStream>,
    address: SocketAddr,
    conversation: Box<dyn Conversation>,
    received: BytesMut,
    out: Vec<u8>,
    /// Whether the kernel took less than there was.
    is_blocked: bool,
    /// When each operation since `answered_up_to` was due; `None` once it has ended.
    window: VecDeque<Option<Nanos>>,
    answered_up_to: u64,
    failures: usize,
    reopen_at: Nanos,
}

/// One plan being carried out.
struct Run<'a> {
    engine: &'a mut Engine,
    plan: &'a Plan,
    pacer: Pacer,
    tally: Tally,
    random: Random,
    filled: u64,
    next_edge: Option<Edge>,
    window_begins: Nanos,
    window_ends: Nanos,
    told_at: Nanos,
}

impl Engine {
    /// Makes `connections_count` connections and waits until all may send.
    pub(crate) fn connect(
        dialer: Dialer,
        connections_count: usize,
        is_interrupted: Arc<AtomicBool>,
    ) -> Result<Self, EngineError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(std::io::Error::from)?;
        // The default of 50 microseconds would be added to every wait for what is due.
        rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))
            .map_err(std::io::Error::from)?;
        let mut engine = Self {
            epoch: now(),
            epoll,
            dialer,
            connections: Vec::with_capacity(connections_count),
            closed: Vec::new(),
            events: Vec::with_capacity(EVENTS_MAX),
            scratch: vec![0; READ_BYTES],
            answers: Vec::new(),
            is_interrupted,
        };
        for lane in 0..connections_count {
            let address = engine.dialer.address(lane, 0);
            let conversation = (engine.dialer.conversation)(address);
            engine.connections.push(Connection::new(address, conversation));
            engine.open(lane).map_err(|error| EngineError::NotReady { address, why: error.to_string() })?;
        }
        engine.wait_until_ready()?;
        Ok(engine)
    }

    /// Carries out one plan to its end, and tells when what is measured begins and ends.
    pub(crate) fn run(&mut self, plan: &Plan, at_edge: &mut dyn FnMut(Edge)) -> Result<Tally, EngineError> {
        let start = self.now();
        let window_begins = start + plan.warm_up;
        let window_ends = window_begins + plan.measured;
        let mut run = Run {
            pacer: Pacer::new(plan.pace, self.connections.len(), plan.depth, start),
            tally: Tally::new(window_begins..window_ends),
            random: Random::new(start),
            filled: 0,
            next_edge: Some(Edge::Begins),
            window_begins,
            window_ends,
            told_at: start,
            plan,
            engine: self,
        };
        run.send_and_receive(at_edge)?;
        run.drain()?;
        Ok(run.tally)
    }

    fn now(&self) -> Nanos {
        Nanos::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(Nanos::MAX)
    }

    fn check_interrupted(&self) -> Result<(), EngineError> {
        if self.is_interrupted.load(Ordering::Relaxed) { Err(EngineError::Interrupted) } else { Ok(()) }
    }

    fn wait_until_ready(&mut self) -> Result<(), EngineError> {
        let until = self.now() + READY_PATIENCE;
        while let Some(lane) = self.connections.iter().position(|it| !it.conversation.is_ready()) {
            self.check_interrupted()?;
            let address = self.connections[lane].address;
            if self.now() > until {
                let why = format!("it was not ready to be used after {} s", READY_PATIENCE / SECOND);
                return Err(EngineError::NotReady { address, why });
            }
            for lane in self.wait(10_000_000)? {
                let address = self.connections[lane].address;
                self.read(lane)
                    .and_then(|()| self.flush(lane))
                    .map_err(|why| EngineError::NotReady { address, why })?;
            }
        }
        Ok(())
    }

    /// Connects `lane` and says what is said first.
    fn open(&mut self, lane: usize) -> std::io::Result<()> {
        let connection = &mut self.connections[lane];
        let stream = TcpStream::connect_timeout(&connection.address, CONNECT_PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let event = epoll::EventData::new_u64(lane as u64);
        epoll::add(&self.epoll, &stream, event, epoll::EventFlags::IN)?;
        connection.stream = Some(stream);
        connection.conversation.begin(&mut connection.out);
        self.flush(lane).map_err(std::io::Error::other)
    }

    /// Waits for at most `patience`; returns the lanes on which something can be done.
    fn wait(&mut self, patience: Nanos) -> Result<Vec<usize>, EngineError> {
        let timeout = Timespec {
            tv_sec: i64::try_from(patience / SECOND).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(patience % SECOND).unwrap_or(0),
        };
        self.events.clear();
        let buffer = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, buffer, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(EngineError::Machine(error.into())),
        }
        let lanes = self.events.iter().map(|event| event.data.u64());
        Ok(lanes.map(|lane| usize::try_from(lane).unwrap_or(usize::MAX)).collect())
    }

    /// Reads what there is on `lane`; answers go to `self.answers`.
    fn read(&mut self, lane: usize) -> Result<(), String> {
        let connection = &mut self.connections[lane];
        let Some(stream) = &mut connection.stream else { return Ok(()) };
        loop {
            match stream.read(&mut self.scratch) {
                Ok(0) => return Err("the server closed the connection".to_owned()),
                Ok(count) => {
                    connection.received.extend_from_slice(&self.scratch[..count]);
                    if count < READ_BYTES {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        connection
            .conversation
            .receive(&mut connection.received, &mut connection.out, &mut self.answers)
            .map_err(|broken| broken.0)
    }

    /// Writes what waits on `lane`, and asks to be told when a full socket takes more.
    fn flush(&mut self, lane: usize) -> Result<(), String> {
        let connection = &mut self.connections[lane];
        let Some(stream) = &mut connection.stream else { return Ok(()) };
        let mut written = 0;
        while written < connection.out.len() {
            match stream.write(&connection.out[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        connection.out.drain(..written);
        let is_blocked = !connection.out.is_empty();
        if is_blocked != connection.is_blocked {
            connection.is_blocked = is_blocked;
            let mut flags = epoll::EventFlags::IN;
            flags.set(epoll::EventFlags::OUT, is_blocked);
            let event = epoll::EventData::new_u64(lane as u64);
            epoll::modify(&self.epoll, stream, event, flags).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Gives up the connection of `lane`; returns how many operations it had unanswered.
    fn give_up(&mut self, lane: usize) -> u64 {
        let reopen_at = self.now() + RECONNECT_AFTER;
        let connection = &mut self.connections[lane];
        let lost_count = connection.window.iter().flatten().count() as u64;
        let failures = connection.failures + 1;
        let address = self.dialer.address(lane, failures);
        *connection = Connection::new(address, (self.dialer.conversation)(address));
        connection.failures = failures;
        connection.reopen_at = reopen_at;
        self.closed.push(lane);
        lost_count
    }
}

impl Connection {
    fn new(address: SocketAddr, conversation: Box<dyn Conversation>) -> Self {
        Self {
            stream: None,
            address,
            conversation,
            received: BytesMut::new(),
            out: Vec::new(),
            is_blocked: false,
            window: VecDeque::new(),
            answered_up_to: 0,
            failures: 0,
            reopen_at: 0,
        }
    }

    fn next_number(&self) -> u64 {
        self.answered_up_to + self.window.len() as u64 + 1
    }

    /// The operation `number` has ended; returns when it was due, if it was awaited.
    fn end(&mut self, number: u64) -> Option<Nanos> {
        let at = number.checked_sub(self.answered_up_to + 1)?;
        let due = self.window.get_mut(usize::try_from(at).ok()?)?.take();
        while let Some(None) = self.window.front() {
            self.window.pop_front();
            self.answered_up_to += 1;
        }
        due
    }
}

impl Run<'_> {
    fn send_and_receive(&mut self, at_edge: &mut dyn FnMut(Edge)) -> Result<(), EngineError> {
        let mut now = self.engine.now();
        let mut touched: Vec<usize> = (0..self.engine.connections.len()).collect();
        loop {
            self.pacer.release(now, |lane| touched.push(lane));
            for lane in touched.drain(..) {
                self.advance(lane, now);
            }
            let patience = self.patience(now);
            self.serve_events(patience)?;
            now = self.engine.now();
            self.reopen(now, &mut touched);
            self.tell(now);
            self.pass_edges(now, at_edge);
            let is_filled = self.plan.is_fill && self.filled == self.plan.keys;
            if self.next_edge.is_none() || is_filled {
                return Ok(());
            }
        }
    }

    /// Until when epoll may wait.
    fn patience(&self, now: Nanos) -> Nanos {
        let due = self.pacer.next_due().map_or(SECOND / 10, |due| due.saturating_sub(now).max(GRAIN));
        let edge = match self.next_edge {
            Some(Edge::Begins) => self.window_begins,
            Some(Edge::Ends) | None => self.window_ends,
        };
        due.min(SECOND / 10).min(edge.saturating_sub(now))
    }

    fn pass_edges(&mut self, now: Nanos, at_edge: &mut dyn FnMut(Edge)) {
        if self.next_edge == Some(Edge::Begins) && now >= self.window_begins {
            at_edge(Edge::Begins);
            self.next_edge = Some(Edge::Ends);
        }
        if self.next_edge == Some(Edge::Ends) && now >= self.window_ends {
            at_edge(Edge::Ends);
            self.next_edge = None;
        }
    }

    /// Takes what has come, and answers it with what may be sent now.
    fn serve_events(&mut self, patience: Nanos) -> Result<(), EngineError> {
        self.engine.check_interrupted()?;
        for lane in self.engine.wait(patience)? {
            let is_read = self.engine.read(lane);
            let now = self.engine.now();
            self.take_answers(lane, now);
            match is_read {
                Ok(()) => self.advance(lane, now),
                Err(why) => self.lose(lane, &why),
            }
        }
        Ok(())
    }

    fn take_answers(&mut self, lane: usize, now: Nanos) {
        let mut answers = std::mem::take(&mut self.engine.answers);
        for answer in answers.drain(..) {
            let Some(due) = self.engine.connections[lane].end(answer.number) else {
                self.tally.failed("an answer to no question".into(), 1);
                continue;
            };
            self.pacer.ended(lane, 1);
            match answer.result {
                Ok(()) => self.tally.served(due, now),
                Err(why) => self.tally.failed(why, 1),
            }
        }
        self.engine.answers = answers;
    }

    /// Sends what is due on `lane` and has room.
    fn advance(&mut self, lane: usize, now: Nanos) {
        let connection = &mut self.engine.connections[lane];
        let is_usable = connection.stream.is_some() && connection.conversation.is_ready();
        while is_usable && now < self.window_ends {
            let (number, answered_up_to) = (connection.next_number(), connection.answered_up_to);
            let is_filled = self.plan.is_fill && self.filled == self.plan.keys;
            if is_filled || !connection.conversation.has_room(number, answered_up_to) {
                break;
            }
            let Some(due) = self.pacer.take(lane, now) else { break };
            let key = if self.plan.is_fill { self.filled } else { self.random.below(self.plan.keys) };
            self.filled += u64::from(self.plan.is_fill);
            let choice = match self.plan.acts.len() {
                1 => 0,
                count => self.random.below(count as u64),
            };
            let act = self.plan.acts[usize::try_from(choice).unwrap_or(0)];
            let operation = Operation { number, act, key, answered_up_to };
            connection.conversation.send(&operation, &mut connection.out);
            connection.window.push_back(Some(due));
            self.tally.sent(due, now);
        }
        if let Err(why) = self.engine.flush(lane) {
            self.lose(lane, &why);
        }
    }

    fn lose(&mut self, lane: usize, why: &str) {
        let address = self.engine.connections[lane].address;
        eprintln!("load: the connection to {address} broke: {why}");
        let lost_count = self.engine.give_up(lane);
        self.pacer.ended(lane, lost_count);
        self.tally.failed("connection lost".into(), lost_count);
    }

    fn reopen(&mut self, now: Nanos, touched: &mut Vec<usize>) {
        for lane in std::mem::take(&mut self.engine.closed) {
            if self.engine.connections[lane].reopen_at > now {
                self.engine.closed.push(lane);
            } else if self.engine.open(lane).is_ok() {
                touched.push(lane);
            } else {
                self.tally.failed("no connection".into(), 1);
                self.engine.give_up(lane);
            }
        }
    }

    /// One line a second.
    fn tell(&mut self, now: Nanos) {
        let since = now - self.told_at;
        if since < SECOND {
            return;
        }
        let recent = &self.tally.recent;
        eprintln!(
            "{:>4} s  {:>8} ops/s  p50 {} p99 {} ms  {} errors{}",
            (now + self.plan.warm_up).saturating_sub(self.window_begins) / SECOND,
            recent.len() * SECOND / since,
            millis(recent.value_at_quantile(0.5)),
            millis(recent.value_at_quantile(0.99)),
            self.tally.errors.values().sum::<u64>(),
            if now < self.window_begins { "  (warming up)" } else { "" },
        );
        let instant = |nanos| self.engine.epoch + Duration::from_nanos(nanos);
        self.tally.second_ended(instant(self.told_at), instant(now));
        self.told_at = now;
    }

    /// Awaits what is unanswered, and counts what was never sent.
    fn drain(&mut self) -> Result<(), EngineError> {
        let until = self.engine.now() + DRAIN_PATIENCE;
        let unanswered =
            |engine: &Engine| engine.connections.iter().flat_map(|it| it.window.iter().flatten()).count();
        // Nothing new is sent meanwhile: `advance` knows the end of the window.
        self.window_ends = 0;
        while unanswered(self.engine) > 0 && self.engine.now() < until {
            self.serve_events(SECOND / 10)?;
        }
        self.tally.failed("unanswered".into(), unanswered(self.engine) as u64);
        let waiting: Vec<Nanos> = self.pacer.waiting().collect();
        for due in waiting {
            self.tally.unsent(due);
        }
        Ok(())
    }
}

/// Milliseconds with two digits behind the point.
fn millis(nanos: u64) -> String {
    format!("{}.{:02}", nanos / 1_000_000, nanos / 10_000 % 100)
}

#[allow(clippy::disallowed_methods)] // what is measured is real time
pub(super) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::{Connection, millis};
    use crate::load::conversation::Material;
    use crate::load::native::NativeConversation;

    #[test]
    fn answers_in_any_order_are_matched_once_and_the_mark_follows_the_first_unanswered() {
        let conversation = Box::new(NativeConversation::new(Material::new(8), false));
        let mut connection = Connection::new(([127, 0, 0, 1], 1).into(), conversation);
        for due in [10, 20, 30] {
            assert_eq!(connection.next_number(), due / 10);
            connection.window.push_back(Some(due));
        }
        assert_eq!(connection.end(2), Some(20));
        assert_eq!(connection.answered_up_to, 0);
        assert_eq!(connection.end(2), None, "it has ended already");
        assert_eq!(connection.end(1), Some(10));
        assert_eq!(connection.answered_up_to, 2);
        assert_eq!((connection.end(1), connection.end(4), connection.end(u64::MAX)), (None, None, None));
        assert_eq!(connection.next_number(), 4);
    }

    #[test]
    fn milliseconds_have_two_digits_behind_the_point() {
        assert_eq!(millis(12_345_678), "12.34");
        assert_eq!(millis(99_999), "0.09");
    }
}
