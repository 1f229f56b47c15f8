//! One connection to one member: the handshake, then requests and answers side by side.
//!
//! What always holds: no more requests are in flight than the member allows; an answer is handed out only if its
//! request awaits one; after the first damaged byte nothing more is read. What it leaves out: which member to ask,
//! and what to do when this one fails; that is `Client`.

use super::clock::{BootInstant, now};
use crate::api::native::{
    ClientHello, Features, Frame, FrameDamage, Receiver, ServerHello, VERSION, decode_frame,
    decode_response_frame, encode_request_frame, kind,
};
use crate::api::{Malformed, Refusal, Request, Response, WatchAnswer, WatchRequest};
use crate::ids::ClusterId;
use bytes::BytesMut;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Bytes read from the socket at once.
const READ_BYTES: usize = 16 * 1_024;

/// The shortest time a socket is waited for: the system takes zero for "for ever".
const WAIT_MIN: Duration = Duration::from_millis(1);

/// Why a connection did not serve.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// No connection could be made.
    #[error("no connection to {address}: {source}")]
    Unreachable {
        /// To whom.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke, or was closed by the member.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// No answer in time. The connection stands, and the answer may still come.
    #[error("no answer in time")]
    TimedOut,
    /// What came is not a frame.
    #[error("the member sent a damaged frame: {0}")]
    Damaged(#[from] FrameDamage),
    /// What came is not an answer of this protocol.
    #[error("the member sent a malformed answer: {0}")]
    Malformed(#[from] Malformed),
    /// An answer came to a request that awaits none.
    #[error("the member answered request {0}, which awaits no answer")]
    Unasked(u64),
    /// The member refused the connection, or ended it with a refusal that answers no request.
    #[error("the member refuses the connection: {0}")]
    Refused(Refusal),
    /// As many requests as the member allows already await their answers.
    #[error("{0} requests are in flight, and the member allows no more; take an answer first")]
    TooManyInFlight(usize),
}

/// One connection to one member.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    hello: ServerHello,
    received: BytesMut,
    queued: Vec<u8>,
    awaited: BTreeSet<u64>,
    /// Watches created and not ended, by the requests that created them: more may come for these.
    watches: BTreeSet<u64>,
    /// Requests to cancel a watch, and which.
    cancelling: BTreeMap<u64, u64>,
    last_id: u64,
    timeout: Duration,
}

impl Connection {
    /// Connects to `address` (`host:port`) and shakes hands, all within `timeout`.
    ///
    /// With `cluster`, a member of any other cluster refuses. The timeout also bounds every later write.
    ///
    /// # Errors
    /// No connection, or the member refuses it.
    pub fn open(address: &str, cluster: Option<ClusterId>, timeout: Duration) -> Result<Self, Trouble> {
        let deadline = now() + timeout;
        let unreachable = |source| Trouble::Unreachable { address: address.to_owned(), source };
        let mut stream = connect(address, deadline).map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        stream.set_write_timeout(Some(timeout.max(WAIT_MIN))).map_err(unreachable)?;
        let hello =
            ClientHello { version_min: VERSION, version_max: VERSION, features: Features::KNOWN, cluster };
        stream.write_all(&hello.encode_frame()).map_err(Trouble::Broken)?;
        let mut received = BytesMut::new();
        let frame = receive_frame(&mut stream, &mut received, deadline)?;
        if frame.kind == kind::REFUSED {
            return Err(refusal_of(&frame));
        }
        let hello = ServerHello::decode(&frame)?;
        Ok(Self {
            stream,
            hello,
            received,
            queued: Vec::new(),
            awaited: BTreeSet::new(),
            watches: BTreeSet::new(),
            cancelling: BTreeMap::new(),
            last_id: 0,
            timeout,
        })
    }

    /// What the member said of itself.
    pub const fn hello(&self) -> &ServerHello {
        &self.hello
    }

    /// Requests that await their answers.
    pub fn in_flight(&self) -> usize {
        self.awaited.len()
    }

    /// Sends a request and returns the id that its answer will carry.
    ///
    /// # Errors
    /// As `queue` and `flush`.
    pub fn send(&mut self, request: &Request) -> Result<u64, Trouble> {
        let id = self.queue(request)?;
        self.flush()?;
        Ok(id)
    }

    /// Makes a request ready to be sent with the next `flush`, together with others.
    ///
    /// # Errors
    /// `TooManyInFlight`, and nothing else.
    pub fn queue(&mut self, request: &Request) -> Result<u64, Trouble> {
        let allowed = usize::try_from(self.hello.requests_in_flight_max).unwrap_or(usize::MAX);
        if self.awaited.len() >= allowed {
            return Err(Trouble::TooManyInFlight(self.awaited.len()));
        }
        self.last_id += 1;
        self.queued.extend_from_slice(&encode_request_frame(self.last_id, request));
        self.awaited.insert(self.last_id);
        if let Request::Watch(WatchRequest::Cancel { watch }) = request {
            self.cancelling.insert(self.last_id, watch.0);
        }
        Ok(self.last_id)
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// The connection broke or does not take bytes any more; how much left is not known, so it is of no more use.
    pub fn flush(&mut self) -> Result<(), Trouble> {
        let written = self.stream.write_all(&self.queued);
        self.queued.clear();
        written.map_err(Trouble::Broken)
    }

    /// The next answer, whichever request it belongs to, or the next thing that a watch is told, whichever it is;
    /// awaited as long as the connection's timeout.
    ///
    /// # Errors
    /// After `TimedOut` the connection may be used further; after anything else it may not.
    pub fn receive(&mut self) -> Result<(u64, Response), Trouble> {
        self.receive_within(self.timeout)
    }

    /// As `receive`, awaited at most `patience`.
    ///
    /// # Errors
    /// As `receive`.
    pub fn receive_within(&mut self, patience: Duration) -> Result<(u64, Response), Trouble> {
        let frame = receive_frame(&mut self.stream, &mut self.received, now() + patience)?;
        if frame.request == 0 && frame.kind == kind::REFUSED {
            return Err(refusal_of(&frame));
        }
        let id = frame.request;
        let is_for_watch = matches!(frame.kind, kind::WATCH_TOLD | kind::WATCH_ENDED);
        let is_due = if is_for_watch { self.watches.contains(&id) } else { self.awaited.remove(&id) };
        if !is_due {
            return Err(Trouble::Unasked(id));
        }
        let response = decode_response_frame(&frame)?;
        if let Response::Watch(answer) = &response {
            self.note_watch(id, answer);
        }
        Ok((id, response))
    }

    /// Keeps count of the watches for which something may come.
    fn note_watch(&mut self, id: u64, answer: &WatchAnswer) {
        match answer {
            WatchAnswer::Created { .. } => {
                self.watches.insert(id);
            }
            WatchAnswer::Ended { .. } => {
                self.watches.remove(&id);
            }
            WatchAnswer::Cancelled => {
                if let Some(watch) = self.cancelling.remove(&id) {
                    self.watches.remove(&watch);
                }
            }
            WatchAnswer::Told(_) | WatchAnswer::Reached { .. } => {}
        }
    }

    /// Sends one request and returns its answer. Whatever else comes meanwhile is dropped.
    ///
    /// # Errors
    /// As `send` and `receive`.
    pub fn call(&mut self, request: &Request, patience: Duration) -> Result<Response, Trouble> {
        let deadline = now() + patience;
        let id = self.send(request)?;
        loop {
            let remaining = deadline.saturating_duration_since(now());
            let (answered, response) = self.receive_within(remaining)?;
            if answered == id {
                return Ok(response);
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // It may be closed already, and then there is nothing left to do.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn connect(address: &str, deadline: BootInstant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name stands for no address");
    for resolved in address.to_socket_addrs()? {
        let remaining = deadline.saturating_duration_since(now());
        match TcpStream::connect_timeout(&resolved, remaining.max(WAIT_MIN)) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn receive_frame(
    stream: &mut TcpStream,
    received: &mut BytesMut,
    deadline: BootInstant,
) -> Result<Frame, Trouble> {
    loop {
        if let Some(frame) = decode_frame(received, Receiver::Client)? {
            return Ok(frame);
        }
        let remaining = deadline.saturating_duration_since(now());
        if remaining.is_zero() {
            return Err(Trouble::TimedOut);
        }
        stream.set_read_timeout(Some(remaining.max(WAIT_MIN))).map_err(Trouble::Broken)?;
        let mut chunk = [0; READ_BYTES];
        match stream.read(&mut chunk) {
            Ok(0) => return Err(Trouble::Broken(ErrorKind::UnexpectedEof.into())),
            Ok(count) => received.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(Trouble::TimedOut);
            }
            Err(error) => return Err(Trouble::Broken(error)),
        }
    }
}

/// The refusal that a frame holds, as the end of the connection.
fn refusal_of(frame: &Frame) -> Trouble {
    match decode_response_frame(frame) {
        Ok(Response::Refused(refusal)) => Trouble::Refused(refusal),
        Ok(_) => Trouble::Unasked(frame.request),
        Err(malformed) => Trouble::Malformed(malformed),
    }
}
