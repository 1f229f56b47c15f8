//! Clients: closed loops that use the store as native clients do, and remember what they were told.
//!
//! A client has a session and a few slots, each with one operation at a time. When to send what where, when to stop
//! and what is certain then is decided by `client::retry`, which is the very core of the real client; here is what
//! stands around it there (`client/blocking.rs`), over made-up connections: a connection is made before anything is
//! sent on it, belongs to one boot of its member and is given up with whatever did not come in time. So the client
//! pays no heed to an answer that comes later; the request that it was for still arrives, however late.
//!
//! How often they send a write without a stamp, close their session, or go on using one that is closed, is the seed's
//! (`Habits`). Only a write that holds a value of its own goes without a stamp, so that the log tells which it was.
//!
//! Always: a stamp is the same on every attempt; a client's low-water mark passes exactly the writes that it will not
//! ask for again; every answer that arrives is held against the others to the same write, heeded or not. About 100
//! operations a simulated second over all clients, over so few keys that they meet.
//! Left out: what is right (`check` and `invariants` say that), and requests that arrive twice on one connection,
//! which a stream rules out.

use super::clock::{BootClock, TrueMicros};
use super::events::{Event, Queue};
use super::fault_plan::FaultPlan;
use super::random::{Random, fingerprint};
use super::workload::{Habits, Workload, holds_a_value};
use crate::api::{Certainty, EncodedCommand, Otherwise, ReadMode, Refusal, Request, Response, Stamp};
use crate::check::{Answer, Call, Operation, WriteId};
use crate::client::retry::{GivenUp, Nature, Retry, Setback, Step};
use crate::ids::{KeyspaceId, MemberId, Revision, SessionId};
use crate::kv::{Applied, Command, Outcome};

/// Clients of one run.
const CLIENTS_COUNT: usize = 10;

/// Operations one client has under way at a time.
const SLOTS_COUNT: usize = 2;

/// Mean time between an answer and the next operation: with twenty slots, 100 operations a second at an ordinary delay.
const THINK_MICROS: u64 = 180_000;

/// Mean delay between a client and a member, one way.
const CLIENT_DELAY_MICROS: u64 = 300;

/// How long an operation may take, as the real client has it.
pub(super) const TIMEOUT_MICROS: u64 = 5_000_000;

/// How often a slot without a session looks whether there is one.
const SESSION_POLL_MICROS: u64 = 20_000;

/// The one keyspace there is.
const KEYSPACE: KeyspaceId = KeyspaceId::FIRST;

/// A client and one of its slots.
type Place = (usize, usize);

/// All clients, everything they tried and everything they were told.
#[derive(Debug)]
pub(super) struct Clients {
    loops: Vec<Client>,
    /// Every attempt of the run; its position is its ticket.
    attempts: Vec<Attempt>,
    history: Vec<Operation>,
    /// For each operation the first answer of the store that arrived, even if it came too late to be heeded.
    first_answers: Vec<Option<Applied>>,
    members_count: usize,
    think_micros: u64,
    answered_count: u64,
    /// Whether operations still begin.
    is_open: bool,
    habits: Habits,
    workload: Workload,
    random: Random,
}

#[derive(Debug)]
struct Client {
    clock: BootClock,
    session: Option<Session>,
    /// A session that it has closed and uses all the same, for so many writes.
    closed: Option<(Session, u32)>,
    /// The members it knows of, in an order of its own.
    endpoints: Vec<Endpoint>,
    /// The endpoint that served last; most operations begin there.
    served_last: usize,
    slots: [Slot; SLOTS_COUNT],
}

/// A session as its client knows it.
#[derive(Clone, Copy, Debug)]
struct Session {
    id: SessionId,
    last_sequence: u64,
}

#[derive(Clone, Copy, Debug)]
struct Endpoint {
    member: usize,
    /// Whether the client knows who that is: an address says nothing before it has answered.
    is_named: bool,
}

#[derive(Debug)]
struct Slot {
    pending: Option<Pending>,
    /// For each member, the boot to which a connection stands, as far as this end knows.
    connections: Vec<Option<u32>>,
}

/// What a slot waits for.
#[derive(Debug)]
struct Pending {
    /// The operation's place in the history; `None` while a session is being opened or closed.
    operation: Option<usize>,
    request: Request,
    retry: Retry,
    stage: Stage,
    /// Which endpoint is asked, or will be after the pause.
    endpoint: usize,
    /// When what is under way is given up.
    until: TrueMicros,
    /// The newest attempt; whatever is heard of older ones comes too late.
    attempt: u64,
}

/// How far one step of the retry has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has not begun.
    Pausing,
    /// A connection is being made; the request has not left.
    Connecting,
    /// The request has left.
    Asking,
    /// The member refused and named a leader that this client does not know, and is asked who that is.
    Learning(Refusal),
}

/// One message to one member, and the connection that must be made for it.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    place: Place,
    /// The operation's place in the history; `None` for the opening or the closing of a session.
    pub(super) operation: Option<usize>,
    /// To whom.
    pub(super) member: usize,
    /// The newest revision that any member had applied when this arrived: a linearizable read must see it.
    pub(super) floor: Revision,
    /// When this arrived.
    pub(super) arrived: TrueMicros,
    /// The boot of the member to which it is connected; `None` while the connection is being made.
    connection: Option<u32>,
    request: Request,
}

/// Two answers to one write that differ.
#[derive(Clone, Debug)]
pub(super) struct Contradiction(pub String);

impl Client {
    /// A client that knows a majority of the members, so that one of them can serve it.
    fn new(plan: &FaultPlan, random: &mut Random) -> Self {
        let members_count = plan.members_count;
        let first = random.position(members_count);
        let known_count = members_count / 2 + 1 + random.position(members_count.div_ceil(2));
        let endpoints = (first..first + known_count)
            .map(|at| Endpoint { member: at % members_count, is_named: false })
            .collect();
        let slot = || Slot { pending: None, connections: vec![None; members_count] };
        Self {
            clock: BootClock::new(TrueMicros(0), plan.drift_ppm, random),
            session: None,
            closed: None,
            endpoints,
            served_last: 0,
            slots: [slot(), slot()],
        }
    }

    fn position_of(&self, member: MemberId) -> Option<usize> {
        let is_it = |endpoint: &Endpoint| endpoint.is_named && endpoint.member as u64 + 1 == member.0;
        self.endpoints.iter().position(is_it)
    }

    /// A member has said who all the others are.
    fn learn_members(&mut self, members_count: usize) {
        for member in 0..members_count {
            match self.endpoints.iter_mut().find(|endpoint| endpoint.member == member) {
                Some(endpoint) => endpoint.is_named = true,
                None => self.endpoints.push(Endpoint { member, is_named: true }),
            }
        }
    }

    /// The stamp of the next write in `session`. Its low-water mark is the highest sequence up to which this client
    /// will never ask for any again: whatever came to an end, were it by being given up.
    fn stamp(&self, session: &mut Session) -> Stamp {
        let pending = self.slots.iter().filter_map(|slot| slot.pending.as_ref());
        let waiting = pending.filter_map(Pending::stamp).filter(|stamp| stamp.session == session.id);
        let low_water = waiting.map(|stamp| stamp.sequence - 1).min().unwrap_or(session.last_sequence);
        session.last_sequence += 1;
        Stamp { session: session.id, sequence: session.last_sequence, low_water }
    }

    /// The session, if it is this one, is not used for any new write but those of a client that clings to it.
    fn leave(&mut self, id: SessionId, clings_for: u32) {
        if let Some(session) = self.session.filter(|session| session.id == id) {
            self.session = None;
            self.closed = (clings_for > 0).then_some((session, clings_for));
        }
    }
}

impl Pending {
    fn stamp(&self) -> Option<Stamp> {
        if let Request::Write { stamp, .. } = &self.request { *stamp } else { None }
    }
}

impl Attempt {
    /// How it wants to read, if it does.
    pub(super) const fn read_mode(&self) -> Option<ReadMode> {
        if let Request::Read { mode, .. } = &self.request { Some(*mode) } else { None }
    }

    /// The session that it asks to be closed.
    pub(super) fn closes(&self) -> Option<SessionId> {
        if let Request::CloseSession { session, .. } = &self.request { Some(*session) } else { None }
    }
}

impl Clients {
    /// Clients of the cluster of `plan`, about to begin.
    pub(super) fn new(plan: &FaultPlan, mut random: Random, queue: &mut Queue) -> Self {
        let loops = (0..CLIENTS_COUNT).map(|_| Client::new(plan, &mut random)).collect();
        for client in 0..CLIENTS_COUNT {
            for slot in 0..SLOTS_COUNT {
                queue.plan(TrueMicros(random.below(THINK_MICROS)), Event::Client { client, slot });
            }
        }
        Self {
            loops,
            attempts: Vec::new(),
            history: Vec::new(),
            first_answers: Vec::new(),
            members_count: plan.members_count,
            think_micros: THINK_MICROS * plan.pace,
            answered_count: 0,
            is_open: true,
            habits: Habits::draw(&mut random),
            workload: Workload::new(random.fork(), !plan.compacts),
            random,
        }
    }

    /// What an attempt was.
    pub(super) fn attempt(&self, attempt: u64) -> Option<&Attempt> {
        self.attempts.get(usize::try_from(attempt).ok()?)
    }

    /// An operation of the history.
    pub(super) fn operation(&self, at: usize) -> Option<&Operation> {
        self.history.get(at)
    }

    /// Everything done and told so far.
    pub(super) fn history(&self) -> &[Operation] {
        &self.history
    }

    /// How many operations the store has answered.
    pub(super) const fn answered_count(&self) -> u64 {
        self.answered_count
    }

    /// Begins no further operation.
    pub(super) fn close(&mut self) {
        self.is_open = false;
    }

    /// How many operations, and openings of sessions, have not been resolved.
    pub(super) fn pending_count(&self) -> usize {
        let slots = self.loops.iter().flat_map(|client| &client.slots);
        slots.filter(|slot| slot.pending.is_some()).count()
    }

    /// A slot's time has come: it begins an operation, or its pause is over.
    pub(super) fn wake(&mut self, now: TrueMicros, (client, slot): Place, queue: &mut Queue) {
        if self.loops[client].slots[slot].pending.is_some() {
            self.send(now, (client, slot), queue);
        } else if self.is_open {
            self.begin(now, (client, slot), queue);
        }
    }

    /// A message arrives at its member, which is in its life `boot`, or down. Returns what the member is asked; `None` if
    /// that is nothing: it greets, or nobody is there who knows the connection.
    pub(super) fn arrive(
        &mut self,
        now: TrueMicros,
        attempt: u64,
        boot: Option<u32>,
        floor: Revision,
        queue: &mut Queue,
    ) -> Option<Request> {
        let is_current = self.is_current(attempt);
        let sent = self.attempts.get_mut(usize::try_from(attempt).ok()?)?;
        match (boot, sent.connection) {
            // The operation may be over: what has left arrives all the same.
            (Some(boot), Some(connection)) if boot == connection => {
                sent.floor = floor;
                sent.arrived = now;
                return Some(sent.request.clone());
            }
            (Some(boot), None) if is_current => {
                sent.connection = Some(boot);
                let (client, slot) = sent.place;
                let member = sent.member;
                self.connected((client, slot), member, boot);
                // The greeting goes back before the request comes.
                let delay = self.delay() + self.delay();
                queue.plan(now.after(delay), Event::Request { attempt });
            }
            // The client knows at once: a connection is refused, or was to a process that is gone.
            (Some(_) | None, _) => queue.plan(now.after(self.delay()), Event::Broken { attempt }),
        }
        None
    }

    /// A member is dead; most of those who wait for it notice.
    pub(super) fn miss(&mut self, now: TrueMicros, member: usize, queue: &mut Queue) {
        for client in &self.loops {
            for pending in client.slots.iter().filter_map(|slot| slot.pending.as_ref()) {
                let is_connected = matches!(pending.stage, Stage::Asking | Stage::Learning(_));
                let is_there = client.endpoints[pending.endpoint].member == member;
                if is_connected && is_there && self.random.below(4) > 0 {
                    let delay = self.random.waiting_time(CLIENT_DELAY_MICROS);
                    queue.plan(now.after(delay), Event::Broken { attempt: pending.attempt });
                }
            }
        }
    }

    /// An attempt has come to nothing: its time is over, or its connection broke. Nothing more is heard on that
    /// connection.
    pub(super) fn fail(&mut self, now: TrueMicros, attempt: u64, setback: Setback, queue: &mut Queue) {
        if !self.is_current(attempt) {
            return;
        }
        let Some((place, member)) = self.attempt(attempt).map(|sent| (sent.place, sent.member)) else {
            return;
        };
        let slot = &mut self.loops[place.0].slots[place.1];
        slot.connections[member] = None;
        let setback = match slot.pending.as_ref().map(|pending| pending.stage) {
            Some(Stage::Learning(refusal)) => Setback::Refused { refusal, leader_at: None },
            Some(Stage::Connecting) => Setback::Unreachable,
            Some(Stage::Pausing | Stage::Asking) | None => setback,
        };
        self.go_on(now, place, setback, queue);
    }

    /// An answer arrives.
    ///
    /// # Errors
    /// If it contradicts an earlier answer to the same write, or answers another question.
    pub(super) fn hear(
        &mut self,
        now: TrueMicros,
        attempt: u64,
        response: Response,
        queue: &mut Queue,
    ) -> Result<(), Contradiction> {
        let Some(sent) = self.attempt(attempt) else {
            return Ok(());
        };
        let (place, operation, closes) = (sent.place, sent.operation, sent.closes());
        self.check_against_others(operation, &response)?;
        let (client, slot) = place;
        let stage = self.loops[client].slots[slot].pending.as_ref().map(|pending| pending.stage);
        let Some(stage) = stage.filter(|_| self.is_current(attempt)) else {
            return Ok(());
        };
        match (stage, response) {
            (Stage::Asking, Response::SessionOpened { session }) => {
                self.loops[client].session = Some(Session { id: session, last_sequence: 0 });
                self.serve(now, place, None, queue);
            }
            (Stage::Asking, Response::SessionClosed) if closes.is_some() => {
                self.serve(now, place, None, queue);
            }
            (Stage::Asking, Response::Applied(applied) | Response::Aged { applied, .. }) => {
                self.serve(now, place, Some(applied), queue);
            }
            (Stage::Asking, Response::Refused(refusal)) => self.refuse(now, place, refusal, queue),
            (Stage::Learning(refusal), Response::Status(_)) => {
                self.loops[client].learn_members(self.members_count);
                self.refuse_for_good(now, place, refusal, queue);
            }
            (Stage::Learning(_), Response::Refused(_)) => self.fail(now, attempt, Setback::Lost, queue),
            (stage, response) => {
                return Err(Contradiction(format!("{response:?} answers another question ({stage:?})")));
            }
        }
        Ok(())
    }

    fn delay(&mut self) -> u64 {
        self.random.waiting_time(CLIENT_DELAY_MICROS)
    }

    /// Whether a slot waits for this attempt.
    fn is_current(&self, attempt: u64) -> bool {
        let Some(Attempt { place: (client, slot), .. }) = self.attempt(attempt) else {
            return false;
        };
        let pending = self.loops[*client].slots[*slot].pending.as_ref();
        pending.is_some_and(|pending| pending.attempt == attempt && pending.stage != Stage::Pausing)
    }

    fn connected(&mut self, (client, slot): Place, member: usize, boot: u32) {
        let client = &mut self.loops[client];
        client.slots[slot].connections[member] = Some(boot);
        if let Some(pending) = client.slots[slot].pending.as_mut() {
            pending.stage = Stage::Asking;
            client.endpoints[pending.endpoint].is_named = true;
        }
    }

    fn begin(&mut self, now: TrueMicros, place: Place, queue: &mut Queue) {
        let (client, slot) = place;
        let Some((operation, request, nature)) = self.next_operation(now, place) else {
            queue.plan(now.after(SESSION_POLL_MICROS), Event::Client { client, slot });
            return;
        };
        // Some are in a hurry, so that operations are given up at every stage.
        let timeout =
            if self.random.below(4) == 0 { self.random.magnitude(20_000, 2_000_000) } else { TIMEOUT_MICROS };
        let this = &mut self.loops[client];
        // Sometimes anywhere, as a client that has just begun: so followers forward and serve reads too.
        let first = match self.random.below(6) {
            0 => self.random.position(this.endpoints.len()),
            _ => this.served_last,
        };
        let began = this.clock.read(now);
        let (retry, step) = Retry::begin(nature, this.endpoints.len(), first, began, began.after(timeout));
        this.slots[slot].pending = Some(Pending {
            operation,
            request,
            retry,
            stage: Stage::Pausing,
            endpoint: first,
            until: now,
            attempt: 0,
        });
        self.follow(now, place, step, queue);
    }

    /// What a slot does next; `None` while another opens the session.
    fn next_operation(
        &mut self,
        now: TrueMicros,
        (client, slot): Place,
    ) -> Option<(Option<usize>, Request, Nature)> {
        let this = &mut self.loops[client];
        let Some(session) = this.session else {
            if let Some((mut session, writes_left)) = this.closed.take() {
                let command = self.workload.write();
                let written = self.stamped(client, &mut session, command);
                self.loops[client].closed = (writes_left > 1).then_some((session, writes_left - 1));
                return Some(self.remember(now, client, written));
            }
            let is_opening = slot == 0;
            let request = Request::OpenSession { keyspace: KEYSPACE };
            return is_opening.then_some((None, request, Nature::Read));
        };
        if self.random.chance(self.habits.closings) {
            let request = Request::CloseSession { keyspace: KEYSPACE, session: session.id };
            return Some((None, request, Nature::Read));
        }
        let is_greedy = self.habits.greedy_writes > 0 && self.random.chance(self.habits.greedy_writes);
        let next = if is_greedy { Some(self.workload.greedy_write()) } else { self.workload.next_write() };
        let begun = match next {
            Some(command) => self.write(client, session, command),
            None => self.read(),
        };
        Some(self.remember(now, client, begun))
    }

    /// An operation begins, and has its place in the history.
    fn remember(
        &mut self,
        now: TrueMicros,
        client: usize,
        (call, request, nature): (Call, Request, Nature),
    ) -> (Option<usize>, Request, Nature) {
        self.history.push(Operation {
            client: u32::try_from(client).unwrap_or(u32::MAX),
            invoked: now.0,
            completed: None,
            call,
            answer: Answer::Unknown,
        });
        self.first_answers.push(None);
        (Some(self.history.len() - 1), request, nature)
    }

    fn write(&mut self, client: usize, mut session: Session, command: Command) -> (Call, Request, Nature) {
        if holds_a_value(&command) && self.random.chance(self.habits.bare_writes) {
            return bare(command);
        }
        let written = self.stamped(client, &mut session, command);
        self.loops[client].session = Some(session);
        written
    }

    fn stamped(&self, client: usize, session: &mut Session, command: Command) -> (Call, Request, Nature) {
        let stamp = self.loops[client].stamp(session);
        let write = WriteId { session: stamp.session, sequence: stamp.sequence };
        let request = Request::Write { keyspace: KEYSPACE, stamp: Some(stamp), command: encoded(&command) };
        (Call::Write { write, command }, request, Nature::StampedWrite)
    }

    fn read(&mut self) -> (Call, Request, Nature) {
        let query = self.workload.next_read();
        let mode = self.read_mode();
        let is_linearizable = mode == ReadMode::Linearizable;
        let request = Request::Read { keyspace: KEYSPACE, query: query.clone(), mode };
        (Call::Read { query, is_linearizable }, request, Nature::Read)
    }

    /// Most reads are linearizable; the others have a bound, or none.
    fn read_mode(&mut self) -> ReadMode {
        let kind = self.random.below(20);
        if kind > 3 {
            return ReadMode::Linearizable;
        }
        let otherwise = if self.random.below(2) == 0 { Otherwise::Refuse } else { Otherwise::AskLeader };
        match kind {
            0 => ReadMode::Serializable,
            1 => ReadMode::MinRevision { revision: self.workload.newest(), otherwise },
            _ => {
                let max_age_ms = u32::try_from(self.random.magnitude(1, 5_000)).unwrap_or(u32::MAX);
                ReadMode::MaxAge { max_age_ms, otherwise }
            }
        }
    }

    /// Does what the retry says, from the pause on.
    fn follow(&mut self, now: TrueMicros, place: Place, step: Step, queue: &mut Queue) {
        let (client, slot) = place;
        let this = &mut self.loops[client];
        let (endpoint, not_before, until) = match step {
            Step::Send { endpoint, not_before, until } => (endpoint, not_before, until),
            Step::GiveUp(end) => return self.give_up(now, place, &end, queue),
        };
        let Some(pending) = this.slots[slot].pending.as_mut() else {
            return;
        };
        pending.stage = Stage::Pausing;
        pending.endpoint = endpoint;
        pending.until = this.clock.when(until);
        queue.plan(this.clock.when(not_before).max(now), Event::Client { client, slot });
    }

    /// The pause is over: the request leaves, or what makes a connection for it.
    fn send(&mut self, now: TrueMicros, (client, slot): Place, queue: &mut Queue) {
        let this = &mut self.loops[client];
        let Slot { pending: Some(pending), connections } = &mut this.slots[slot] else {
            return;
        };
        let member = this.endpoints[pending.endpoint].member;
        let connection = connections[member];
        pending.stage = if connection.is_some() { Stage::Asking } else { Stage::Connecting };
        let request = pending.request.clone();
        self.ask(now, (client, slot), request, queue);
    }

    /// Sends a request of the pending operation to the member whose turn it is.
    fn ask(&mut self, now: TrueMicros, place: Place, request: Request, queue: &mut Queue) {
        let (client, slot) = place;
        let attempt = self.attempts.len() as u64;
        let delay = self.delay();
        let this = &mut self.loops[client];
        let Slot { pending: Some(pending), connections } = &mut this.slots[slot] else {
            return;
        };
        let member = this.endpoints[pending.endpoint].member;
        pending.attempt = attempt;
        let (operation, connection) = (pending.operation, connections[member]);
        queue.plan(now.after(delay), Event::Request { attempt });
        queue.plan(pending.until.max(now), Event::Impatience { attempt });
        let (floor, arrived) = (Revision(0), now);
        self.attempts.push(Attempt { place, operation, member, floor, arrived, connection, request });
    }

    /// A member refuses. If it names a leader that the client does not know, it is first asked who that is.
    fn refuse(&mut self, now: TrueMicros, place: Place, refusal: Refusal, queue: &mut Queue) {
        let (client, slot) = place;
        let this = &mut self.loops[client];
        if let Refusal::NotLeader { leader: Some(leader) } = refusal
            && this.position_of(leader).is_none()
            && let Some(pending) = this.slots[slot].pending.as_mut()
        {
            pending.stage = Stage::Learning(refusal);
            self.ask(now, place, Request::Status, queue);
        } else {
            self.refuse_for_good(now, place, refusal, queue);
        }
    }

    fn refuse_for_good(&mut self, now: TrueMicros, place: Place, refusal: Refusal, queue: &mut Queue) {
        let leader_at = if let Refusal::NotLeader { leader: Some(leader) } = refusal {
            self.loops[place.0].position_of(leader)
        } else {
            None
        };
        self.go_on(now, place, Setback::Refused { refusal, leader_at }, queue);
    }

    /// Reports to the retry what came of its last step, and does what it says then.
    fn go_on(&mut self, now: TrueMicros, place: Place, setback: Setback, queue: &mut Queue) {
        let this = &mut self.loops[place.0];
        let time = this.clock.read(now);
        let Some(pending) = this.slots[place.1].pending.as_mut() else {
            return;
        };
        pending.retry.endpoints_are(this.endpoints.len());
        let step = pending.retry.next(setback, time);
        self.follow(now, place, step, queue);
    }

    /// The operation was served; the store's answer to it, unless it opened a session.
    fn serve(&mut self, now: TrueMicros, place: Place, applied: Option<Applied>, queue: &mut Queue) {
        let client = &mut self.loops[place.0];
        if let Some(pending) = &client.slots[place.1].pending {
            client.served_last = pending.endpoint;
        }
        self.resolve(now, place, applied.map_or(Answer::Unknown, Answer::Applied), queue);
    }

    fn give_up(&mut self, now: TrueMicros, place: Place, end: &GivenUp, queue: &mut Queue) {
        let client = &mut self.loops[place.0];
        let Some(pending) = &client.slots[place.1].pending else {
            return;
        };
        let (is_write, stamp) = (matches!(pending.request, Request::Write { .. }), pending.stamp());
        if let Setback::Refused { refusal: Refusal::SessionUnknown, .. } = end.last
            && let Some(stamp) = stamp
        {
            client.leave(stamp.session, 0);
        }
        let is_not_done = is_write && end.certainty == Certainty::NotDone;
        self.resolve(now, place, if is_not_done { Answer::NotDone } else { Answer::Unknown }, queue);
    }

    fn resolve(&mut self, now: TrueMicros, (client, slot): Place, answer: Answer, queue: &mut Queue) {
        let Some(pending) = self.loops[client].slots[slot].pending.take() else {
            return;
        };
        if let Request::CloseSession { session, .. } = pending.request {
            // It has asked, so it counts the session as closed, however that ended.
            let clings = self.random.chance(self.habits.clingings);
            let clings_for = if clings { 1 + u32::from(self.random.below(2) == 0) } else { 0 };
            self.loops[client].leave(session, clings_for);
        }
        if let Some(operation) = pending.operation.and_then(|at| self.history.get_mut(at)) {
            if let Answer::Applied(applied) = &answer {
                self.answered_count += 1;
                self.workload.learn(&operation.call, applied);
            }
            operation.completed = (answer != Answer::Unknown).then_some(now.0);
            operation.answer = answer;
        }
        let think = self.random.waiting_time(self.think_micros);
        queue.plan(now.after(think), Event::Client { client, slot });
    }

    /// All answers to one write are the same answer, whether or not the client still heeds them.
    fn check_against_others(
        &mut self,
        operation: Option<usize>,
        response: &Response,
    ) -> Result<(), Contradiction> {
        let Some(at) = operation else {
            return Ok(());
        };
        let (Call::Write { write, .. }, Response::Applied(applied)) = (&self.history[at].call, response)
        else {
            return Ok(());
        };
        if self.history[at].answer == Answer::NotDone {
            return Err(Contradiction(format!("write {write} was done though refused for certain")));
        }
        let first = self.first_answers[at].get_or_insert_with(|| applied.clone());
        if first == applied {
            return Ok(());
        }
        let (first, second) = (brief(first), brief(applied));
        Err(Contradiction(format!("write {write} was answered {first} and later {second}")))
    }
}

/// A write without a stamp, known by the bytes of its command.
fn bare(command: Command) -> (Call, Request, Nature) {
    let encoded = encoded(&command);
    let write = WriteId { session: SessionId(0), sequence: fingerprint(encoded.bytes()) };
    let request = Request::Write { keyspace: KEYSPACE, stamp: None, command: encoded };
    (Call::Write { write, command }, request, Nature::BareWrite)
}

fn encoded(command: &Command) -> EncodedCommand {
    EncodedCommand::encode(command).expect("the workload makes only commands within every limit")
}

fn brief(applied: &Applied) -> String {
    let kind = match &applied.outcome {
        Outcome::Put(_) => "put",
        Outcome::DeleteRange(_) => "delete",
        Outcome::Txn(_) => "transaction",
        Outcome::Range(_) => "range",
        Outcome::Compacted => "compacted",
        Outcome::Lease(_) => "lease",
        Outcome::SpaceAlarm(_) => "space alarm",
        Outcome::Refused(_) => "refused",
    };
    format!("{kind} at revision {}", applied.revision)
}
