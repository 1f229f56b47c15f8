//! The client most people want: a few endpoints in, answers out, until a deadline.
//!
//! What always holds: every write carries the stamp of the client's one session, so that however often it is sent
//! it is applied once; a sequence is never used for two different writes; once it knows its cluster it speaks to no
//! other. The low-water mark follows the last sequence that came to an end, so a write that was given up can no
//! longer take effect after a later one of the same client.
//!
//! What it leaves out: the decisions (`retry`), the bytes (`connection`), and requests side by side: it has one at
//! a time.

use super::clock::{BootInstant, now};
use super::connection::{Connection, Trouble};
use super::failure::Failure;
use super::retry::{GivenUp, Nature, Retry, Setback, Step};
use super::watcher::Watcher;
use crate::api::native::Features;
use crate::api::{Certainty, EncodedCommand, Malformed, ReadMode, Refusal, Request, Response, Stamp, Status};
use crate::ids::{BootMicros, ClusterId, KeyspaceId, MemberId, SessionId};
use crate::kv::{Applied, Command, DeleteRange, KeyRange, Put, Query, Range};
use crate::limits::STATUS_MEMBERS_MAX;
use crate::watch::WatchSpec;
use bytes::Bytes;
use std::time::Duration;

/// How long the goodbye of a client may take.
///
/// Chosen: a commit takes far less; a session that is not closed costs the cluster only a little memory.
const CLOSE_PATIENCE: Duration = Duration::from_millis(500);

/// What a client is told at its start.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Native addresses, `host:port`, of some members; the others are learned when they are needed.
    pub endpoints: Vec<String>,
    /// How long a call may take, all attempts together.
    pub timeout: Duration,
    /// The cluster to insist on; without it, that of the first member that answers.
    pub cluster: Option<ClusterId>,
    /// Where reads and writes go.
    pub keyspace: KeyspaceId,
}

impl ClientOptions {
    /// The first keyspace of whatever cluster is behind `endpoints`, five seconds a call.
    pub fn of(endpoints: &[String]) -> Self {
        Self {
            endpoints: endpoints.to_vec(),
            timeout: Duration::from_secs(5),
            cluster: None,
            keyspace: KeyspaceId::FIRST,
        }
    }
}

/// A blocking client of one cluster.
#[derive(Debug)]
pub struct Client {
    options: ClientOptions,
    endpoints: Vec<Endpoint>,
    /// The endpoint that served last; the next request begins there.
    served_last: usize,
    member: MemberId,
    epoch: BootInstant,
    session: Option<SessionId>,
    /// The last sequence given out in the session.
    sequence: u64,
}

#[derive(Debug)]
struct Endpoint {
    address: String,
    /// Who answered there last; 0 before the first answer.
    member: MemberId,
    connection: Option<Connection>,
}

impl Endpoint {
    const fn new(address: String, member: MemberId) -> Self {
        Self { address, member, connection: None }
    }
}

/// What an attempt met, for `retry` and for a person.
struct Met {
    setback: Setback,
    detail: String,
}

/// An answer, and how old it may be.
#[derive(Clone, Debug)]
pub struct Aged {
    /// The answer.
    pub applied: Applied,
    /// It lacks nothing that was committed so long before the member had the request, by the member's clock; none if
    /// the member does not know, or was not asked.
    pub age: Option<Duration>,
}

impl Client {
    /// A client. It connects with its first request.
    ///
    /// # Panics
    /// If there is no endpoint.
    pub fn new(options: ClientOptions) -> Self {
        assert!(!options.endpoints.is_empty(), "a client is given at least one endpoint");
        let named = options.endpoints.iter().cloned();
        let endpoints = named.map(|address| Endpoint::new(address, MemberId(0))).collect();
        Self {
            options,
            endpoints,
            served_last: 0,
            member: MemberId(0),
            epoch: now(),
            session: None,
            sequence: 0,
        }
    }

    /// Writes, exactly once. What the store itself refused is an outcome, not a failure.
    ///
    /// # Errors
    /// Says whether the write is not done or its outcome is unknown.
    pub fn write(&mut self, command: &Command) -> Result<Applied, Failure> {
        self.write_within(command, self.options.timeout)
    }

    /// The same, within `patience` if that is less than a call may take.
    ///
    /// The cluster ends a session that was idle for long. A write that meets no session and cannot have been done in it is
    /// sent once more, in a new one.
    pub(super) fn write_within(&mut self, command: &Command, patience: Duration) -> Result<Applied, Failure> {
        let deadline = self.micros().after(micros_of(patience.min(self.options.timeout)));
        let command = EncodedCommand::encode(command).map_err(|malformed| too_large(&malformed))?;
        match self.write_once(command.clone(), deadline) {
            Err(failure) if has_no_session(&failure) && failure.certainty() == Certainty::NotDone => {
                self.write_once(command, deadline)
            }
            answered => answered,
        }
    }

    /// Writes in the session there is, or a new one.
    fn write_once(&mut self, command: EncodedCommand, deadline: BootMicros) -> Result<Applied, Failure> {
        let session =
            self.session(deadline).map_err(|failure| Failure { nature: Nature::StampedWrite, ..failure })?;
        self.sequence += 1;
        let stamp = Stamp { session, sequence: self.sequence, low_water: self.sequence - 1 };
        let request = Request::Write { keyspace: self.options.keyspace, stamp: Some(stamp), command };
        match self.perform_until(&request, Nature::StampedWrite, deadline) {
            Ok(Response::Applied(applied)) => Ok(applied),
            Ok(other) => Err(unfitting(Nature::StampedWrite, &other)),
            Err(failure) => {
                if has_no_session(&failure) {
                    self.session = None;
                }
                Err(failure)
            }
        }
    }

    /// Reads.
    ///
    /// # Errors
    /// The read was not served.
    pub fn read(&mut self, query: Query, mode: ReadMode) -> Result<Applied, Failure> {
        self.read_aged(query, mode).map(|aged| aged.applied)
    }

    /// Reads, and says how old the answer may be, if it was asked for with a bound.
    ///
    /// # Errors
    /// The read was not served.
    pub fn read_aged(&mut self, query: Query, mode: ReadMode) -> Result<Aged, Failure> {
        let request = Request::Read { keyspace: self.options.keyspace, query, mode };
        match self.perform(&request, Nature::Read)? {
            Response::Applied(applied) => Ok(Aged { applied, age: None }),
            Response::Aged { age_micros, applied } => {
                Ok(Aged { applied, age: age_micros.map(Duration::from_micros) })
            }
            other => Err(unfitting(Nature::Read, &other)),
        }
    }

    /// How one of the members sees itself and its cluster.
    ///
    /// # Errors
    /// No member answered.
    pub fn status(&mut self) -> Result<Status, Failure> {
        match self.perform(&Request::Status, Nature::Read)? {
            Response::Status(status) => Ok(*status),
            other => Err(unfitting(Nature::Read, &other)),
        }
    }

    /// Sets one key.
    ///
    /// # Errors
    /// As `write`.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<Applied, Failure> {
        let (key, value) = (key.into(), value.into());
        self.write(&Command::Put(Put::new(key, value)))
    }

    /// Reads one key, linearizably.
    ///
    /// # Errors
    /// As `read`.
    pub fn get(&mut self, key: impl Into<Bytes>) -> Result<Applied, Failure> {
        let range = KeyRange::Key(key.into());
        self.read(Query::Range(Range::new(range)), ReadMode::Linearizable)
    }

    /// Removes one key.
    ///
    /// # Errors
    /// As `write`.
    pub fn delete(&mut self, key: impl Into<Bytes>) -> Result<Applied, Failure> {
        let range = KeyRange::Key(key.into());
        self.write(&Command::DeleteRange(DeleteRange { range, wants_previous: false }))
    }

    /// How long a call may take.
    pub(super) const fn timeout(&self) -> Duration {
        self.options.timeout
    }

    /// A watch beside it: of the same cluster, and first at the member that served last.
    pub(super) fn watch(&self, spec: WatchSpec) -> Watcher {
        let (before, from) = self.endpoints.split_at(self.served_last);
        let endpoints = from.iter().chain(before).map(|endpoint| endpoint.address.clone()).collect();
        Watcher::new(ClientOptions { endpoints, ..self.options.clone() }, spec)
    }

    /// Where its reads and writes go.
    pub(super) const fn keyspace(&self) -> KeyspaceId {
        self.options.keyspace
    }

    /// The cluster, once a member has named it.
    pub const fn cluster(&self) -> Option<ClusterId> {
        self.options.cluster
    }

    /// The member that served last; 0 before the first.
    pub const fn member(&self) -> MemberId {
        self.member
    }

    /// Closes the session, so that the cluster need not remember it. Dropping the client does the same.
    pub fn close(self) {
        drop(self);
    }

    /// The session, opened if there is none.
    fn session(&mut self, deadline: BootMicros) -> Result<SessionId, Failure> {
        if let Some(session) = self.session {
            return Ok(session);
        }
        let request = Request::OpenSession { keyspace: self.options.keyspace };
        match self.perform_until(&request, Nature::Read, deadline)? {
            Response::SessionOpened { session } => {
                self.session = Some(session);
                self.sequence = 0;
                Ok(session)
            }
            other => Err(unfitting(Nature::Read, &other)),
        }
    }

    /// Performs a request, and returns the answer.
    fn perform(&mut self, request: &Request, nature: Nature) -> Result<Response, Failure> {
        self.perform_within(request, nature, self.options.timeout)
    }

    /// The same, within `patience` if that is less than a call may take.
    pub(super) fn perform_within(
        &mut self,
        request: &Request,
        nature: Nature,
        patience: Duration,
    ) -> Result<Response, Failure> {
        let deadline = self.micros().after(micros_of(patience.min(self.options.timeout)));
        self.perform_until(request, nature, deadline)
    }

    /// Does what `retry` says until an answer comes or there is no further attempt.
    fn perform_until(
        &mut self,
        request: &Request,
        nature: Nature,
        deadline: BootMicros,
    ) -> Result<Response, Failure> {
        let began = self.micros();
        let (mut retry, mut step) =
            Retry::begin(nature, self.endpoints.len(), self.served_last, began, deadline);
        let mut told: Option<Met> = None;
        loop {
            let (at, not_before, until) = match step {
                Step::Send { endpoint, not_before, until } => (endpoint, not_before, until),
                Step::GiveUp(end) => {
                    let detail = told.map(|met| met.detail).unwrap_or_default();
                    return Err(Failure { nature, end, detail });
                }
            };
            pause(Duration::from_micros(not_before.since(self.micros())));
            match self.attempt(at, request, until) {
                Ok(response) => {
                    self.served_last = at;
                    self.member = self.endpoints[at].member;
                    return Ok(response);
                }
                Err(met) => {
                    retry.endpoints_are(self.endpoints.len());
                    step = retry.next(met.setback.clone(), self.micros());
                    if met.setback.tells_more_than(told.as_ref().map(|earlier| &earlier.setback)) {
                        told = Some(met);
                    }
                }
            }
        }
    }

    fn attempt(&mut self, at: usize, request: &Request, until: BootMicros) -> Result<Response, Met> {
        self.connect(at, until)?;
        let patience = Duration::from_micros(until.since(self.micros()));
        let endpoint = &mut self.endpoints[at];
        let Some(connection) = endpoint.connection.as_mut() else {
            unreachable!("connect made a connection or returned an error");
        };
        if has_bound(request) && !connection.hello().features.have(Features::BOUNDED_READS) {
            let detail = format!("{} is of a version without reads that set a bound", endpoint.address);
            return Err(Met { setback: Setback::Unreachable, detail });
        }
        match connection.call(request, patience) {
            Ok(Response::Refused(refusal)) => {
                let detail = format!("{} says: {refusal}", endpoint.address);
                let leader_at = self.leader_at(at, refusal, until);
                Err(Met { setback: Setback::Refused { refusal, leader_at }, detail })
            }
            Ok(response) => Ok(response),
            Err(trouble) => {
                // Whatever it was, an answer that comes after this would be to a question nobody asks any more.
                endpoint.connection = None;
                Err(Met { setback: setback_once_sent(&trouble), detail: told(&endpoint.address, &trouble) })
            }
        }
    }

    /// Sees to a connection to the endpoint `at`.
    fn connect(&mut self, at: usize, until: BootMicros) -> Result<(), Met> {
        let patience = Duration::from_micros(until.since(self.micros()));
        let endpoint = &mut self.endpoints[at];
        if endpoint.connection.is_some() {
            return Ok(());
        }
        let connection =
            Connection::open(&endpoint.address, self.options.cluster, patience).map_err(|trouble| Met {
                setback: setback_before_sending(&trouble),
                detail: told(&endpoint.address, &trouble),
            })?;
        let hello = *connection.hello();
        endpoint.member = hello.member;
        endpoint.connection = Some(connection);
        if hello.cluster != ClusterId(0) {
            self.options.cluster = Some(hello.cluster);
        }
        Ok(())
    }

    /// The endpoint of the leader that `refusal` names. If it is not known, the member at `at` is asked for it.
    fn leader_at(&mut self, at: usize, refusal: Refusal, until: BootMicros) -> Option<usize> {
        let Refusal::NotLeader { leader: Some(leader) } = refusal else {
            return None;
        };
        if self.position_of(leader).is_none() {
            self.learn_members(at, until);
        }
        self.position_of(leader)
    }

    fn position_of(&self, member: MemberId) -> Option<usize> {
        self.endpoints.iter().position(|endpoint| endpoint.member == member)
    }

    fn learn_members(&mut self, at: usize, until: BootMicros) {
        let patience = Duration::from_micros(until.since(self.micros()));
        let asked = self.endpoints[at].connection.as_mut();
        let Some(Ok(Response::Status(status))) =
            asked.map(|connection| connection.call(&Request::Status, patience))
        else {
            self.endpoints[at].connection = None;
            return;
        };
        for view in status.members {
            let has_room = self.endpoints.len() < 2 * STATUS_MEMBERS_MAX;
            match self.endpoints.iter_mut().find(|endpoint| endpoint.address == view.native) {
                Some(endpoint) => endpoint.member = view.id,
                None if has_room && !view.native.is_empty() => {
                    self.endpoints.push(Endpoint::new(view.native, view.id));
                }
                None => {}
            }
        }
    }

    fn micros(&self) -> BootMicros {
        BootMicros(micros_of(now().saturating_duration_since(self.epoch)))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let Some(session) = self.session else {
            return;
        };
        let request = Request::CloseSession { keyspace: self.options.keyspace, session };
        if let Some(connection) = self.endpoints[self.served_last].connection.as_mut() {
            // If it does not arrive, the session stays until the cluster forgets it. Nothing hangs on it.
            let _ = connection.call(&request, CLOSE_PATIENCE);
        }
    }
}

/// Whether it reads with a bound.
fn has_bound(request: &Request) -> bool {
    let Request::Read { mode, .. } = request else { return false };
    match mode {
        ReadMode::Linearizable | ReadMode::Serializable => false,
        ReadMode::MaxAge { .. } | ReadMode::MinRevision { .. } => true,
    }
}

fn setback_before_sending(trouble: &Trouble) -> Setback {
    match trouble {
        Trouble::Refused(refusal) => Setback::Refused { refusal: *refusal, leader_at: None },
        Trouble::Unreachable { .. }
        | Trouble::Broken(_)
        | Trouble::TimedOut
        | Trouble::Damaged(_)
        | Trouble::Malformed(_)
        | Trouble::Unasked(_)
        | Trouble::TooManyInFlight(_) => Setback::Unreachable,
    }
}

fn setback_once_sent(trouble: &Trouble) -> Setback {
    match trouble {
        Trouble::TimedOut => Setback::TimedOut,
        Trouble::TooManyInFlight(_) => Setback::Unreachable,
        // A refusal that answers no request ends the connection, and says nothing of the requests before it.
        Trouble::Unreachable { .. }
        | Trouble::Broken(_)
        | Trouble::Damaged(_)
        | Trouble::Malformed(_)
        | Trouble::Unasked(_)
        | Trouble::Refused(_) => Setback::Lost,
    }
}

fn told(address: &str, trouble: &Trouble) -> String {
    match trouble {
        Trouble::Unreachable { .. } => trouble.to_string(),
        Trouble::Broken(_)
        | Trouble::TimedOut
        | Trouble::Damaged(_)
        | Trouble::Malformed(_)
        | Trouble::Unasked(_)
        | Trouble::Refused(_)
        | Trouble::TooManyInFlight(_) => format!("{address}: {trouble}"),
    }
}

/// Whether the cluster knows the session no more.
const fn has_no_session(failure: &Failure) -> bool {
    matches!(failure.end.last, Setback::Refused { refusal: Refusal::SessionUnknown, .. })
}

/// A command that breaks a limit; nothing was sent.
fn too_large(malformed: &Malformed) -> Failure {
    let last = Setback::Refused { refusal: Refusal::Malformed, leader_at: None };
    let end = GivenUp { certainty: Certainty::NotDone, last, attempts: 0 };
    Failure { nature: Nature::StampedWrite, end, detail: malformed.to_string() }
}

/// A member that answers another question than the one asked cannot be believed.
pub(super) fn unfitting(nature: Nature, response: &Response) -> Failure {
    let certainty = match nature {
        Nature::Read => Certainty::NotDone,
        Nature::StampedWrite | Nature::BareWrite => Certainty::OutcomeUnknown,
    };
    let end = GivenUp { certainty, last: Setback::Lost, attempts: 1 };
    Failure { nature, end, detail: format!("the answer does not fit the request: {response:?}") }
}

fn micros_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[allow(clippy::disallowed_methods)] // the pause between attempts is what `retry` asked for
fn pause(duration: Duration) {
    if !duration.is_zero() {
        std::thread::sleep(duration);
    }
}
