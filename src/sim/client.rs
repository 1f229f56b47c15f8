//! Clients: closed loops that use the store as native clients do, and remember what they were told.
//!
//! A client has a session and a few slots, each with one operation at a time. An operation is tried at one member,
//! then at others, under the same (session, sequence), until it is answered, or given up. Its retries may be on
//! their way together, and late answers count.
//!
//! Always: a write is *not done* only if every attempt was answered so; a client's low-water mark never passes a
//! write that may still be asked for again. About 100 operations a simulated second over all clients, over so few
//! keys that they meet. Left out: what is right; `check` and `invariants` say that.

use super::clock::TrueMicros;
use super::events::{Event, Queue};
use super::random::Random;
use super::workload::Workload;
use crate::api::{Certainty, EncodedCommand, ReadMode, Refusal, Request, Response, Stamp};
use crate::check::{Answer, Call, Operation, WriteId};
use crate::ids::{KeyspaceId, Revision, SessionId};
use crate::kv::{Applied, Command, Outcome};

/// Clients of one run.
const CLIENTS_COUNT: usize = 5;

/// Operations one client has under way at a time.
const SLOTS_COUNT: usize = 2;

/// Mean time between an answer and the next operation: with ten slots, 100 operations a second at an ordinary delay.
const THINK_MICROS: u64 = 85_000;

/// Attempts after which a client may give an operation up.
const ATTEMPTS_PATIENT: u32 = 4;

/// Mean delay between a client and a member, one way.
const CLIENT_DELAY_MICROS: u64 = 300;

/// The one keyspace there is.
const KEYSPACE: KeyspaceId = KeyspaceId::FIRST;

/// All clients, everything they tried and everything they were told.
#[derive(Debug)]
pub(super) struct Clients {
    loops: Vec<Client>,
    /// Every attempt of the run; its position is its ticket.
    attempts: Vec<Attempt>,
    history: Vec<Operation>,
    members_count: usize,
    answered_count: u64,
    /// Whether operations still begin.
    is_open: bool,
    workload: Workload,
    random: Random,
}

#[derive(Debug)]
struct Client {
    session: Option<SessionId>,
    last_sequence: u64,
    slots: [Option<Pending>; SLOTS_COUNT],
    /// The member that is asked first.
    favourite: usize,
}

/// What a slot waits for.
#[derive(Clone, Debug)]
struct Pending {
    /// The operation's place in the history; `None` while a session is being opened.
    operation: Option<usize>,
    request: Request,
    attempts_count: u32,
    /// Attempts that were not answered *not done*.
    open_count: u32,
    /// The newest attempt.
    attempt: u64,
}

/// One request sent to one member.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// The client.
    pub(super) client: usize,
    /// Its slot.
    pub(super) slot: usize,
    /// The operation's place in the history; `None` for the opening of a session.
    pub(super) operation: Option<usize>,
    /// To whom.
    pub(super) member: usize,
    /// The newest revision that any member had applied when this arrived: a linearizable read must see it.
    pub(super) floor: Revision,
}

/// Two answers to one write that differ.
#[derive(Clone, Debug)]
pub(super) struct Contradiction(pub String);

impl Clients {
    /// Clients of a cluster of `members_count`, about to begin.
    pub(super) fn new(members_count: usize, mut random: Random, queue: &mut Queue) -> Self {
        let loops = (0..CLIENTS_COUNT)
            .map(|client| Client {
                session: None,
                last_sequence: 0,
                slots: [const { None }; SLOTS_COUNT],
                favourite: client % members_count,
            })
            .collect();
        for client in 0..CLIENTS_COUNT {
            for slot in 0..SLOTS_COUNT {
                queue.plan(TrueMicros(random.below(THINK_MICROS)), Event::Client { client, slot });
            }
        }
        Self {
            loops,
            attempts: Vec::new(),
            history: Vec::new(),
            members_count,
            answered_count: 0,
            is_open: true,
            workload: Workload::new(random.fork()),
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
        self.loops.iter().map(|client| client.slots.iter().flatten().count()).sum()
    }

    /// A slot's time has come: it begins an operation, or tries the one it has again.
    pub(super) fn wake(&mut self, now: TrueMicros, client: usize, slot: usize, queue: &mut Queue) {
        if self.loops[client].slots[slot].is_none() {
            if !self.is_open {
                return;
            }
            let Some(pending) = self.begin(now, client, slot) else {
                queue.plan(now.after(20_000), Event::Client { client, slot });
                return;
            };
            self.loops[client].slots[slot] = Some(pending);
        }
        self.try_once(now, client, slot, queue);
    }

    /// A request arrives; what it asks, or `None` if it was for nothing (the operation is over).
    pub(super) fn arrive(&mut self, attempt: u64, floor: Revision) -> Option<Request> {
        let position = usize::try_from(attempt).ok()?;
        self.attempts[position].floor = floor;
        let Attempt { client, slot, operation, .. } = self.attempts[position].clone();
        let pending = self.loops[client].slots[slot].as_ref()?;
        // An older attempt of the same operation still arrives: that is what retries are.
        (pending.operation == operation).then(|| pending.request.clone())
    }

    /// Nothing was heard of an attempt for long, or its member could not be reached at all.
    pub(super) fn lose_patience(&mut self, now: TrueMicros, attempt: u64, queue: &mut Queue) {
        let Some(Attempt { client, slot, .. }) = self.attempt(attempt).cloned() else {
            return;
        };
        let is_current = |pending: &Pending| pending.attempt == attempt;
        if !self.loops[client].slots[slot].as_ref().is_some_and(is_current) {
            return;
        }
        self.loops[client].favourite = self.random.position(self.members_count);
        if self.gives_up(client, slot) {
            self.resolve(now, (client, slot), Answer::Unknown, queue);
        } else {
            self.try_once(now, client, slot, queue);
        }
    }

    /// An answer arrives.
    ///
    /// # Errors
    /// If it contradicts an earlier answer to the same write.
    pub(super) fn hear(
        &mut self,
        now: TrueMicros,
        attempt: u64,
        response: Response,
        queue: &mut Queue,
    ) -> Result<(), Contradiction> {
        let Some(Attempt { client, slot, operation, member, .. }) = self.attempt(attempt).cloned() else {
            return Ok(());
        };
        let is_same = |pending: &Pending| {
            pending.operation == operation && (operation.is_some() || pending.attempt == attempt)
        };
        if !self.loops[client].slots[slot].as_ref().is_some_and(is_same) {
            return self.check_second_answer(operation, &response);
        }
        match response {
            Response::SessionOpened { session } => {
                self.loops[client].session = Some(session);
                self.loops[client].last_sequence = 0;
                self.loops[client].favourite = member;
                self.resolve(now, (client, slot), Answer::Unknown, queue);
            }
            Response::Applied(applied) => {
                self.loops[client].favourite = member;
                if let Some(operation) = operation.and_then(|at| self.history.get(at)) {
                    self.workload.learn(&operation.call, &applied);
                }
                self.resolve(now, (client, slot), Answer::Applied(applied), queue);
            }
            Response::Refused(refusal) => self.hear_refusal(now, attempt, refusal, queue),
            Response::SessionClosed | Response::Status(_) => {}
        }
        Ok(())
    }

    fn hear_refusal(&mut self, now: TrueMicros, attempt: u64, refusal: Refusal, queue: &mut Queue) {
        let Some(Attempt { client, slot, member, .. }) = self.attempt(attempt).cloned() else {
            return;
        };
        let is_certain = refusal.certainty() == Certainty::NotDone;
        let Some(pending) = self.loops[client].slots[slot].as_mut() else {
            return;
        };
        if is_certain {
            pending.open_count = pending.open_count.saturating_sub(1);
        }
        let is_not_done = is_certain && pending.open_count == 0 && pending.operation.is_some();
        let is_current = pending.attempt == attempt;
        let leader = match refusal {
            Refusal::NotLeader { leader } => leader,
            Refusal::SessionUnknown => {
                self.loops[client].session = None;
                self.resolve(now, (client, slot), Answer::Unknown, queue);
                return;
            }
            Refusal::NoQuorum
            | Refusal::NotReady
            | Refusal::Overloaded
            | Refusal::Malformed
            | Refusal::NoSuchKeyspace
            | Refusal::TooManySessions
            | Refusal::SequenceForgotten
            | Refusal::SequenceBeyondWindow
            | Refusal::LeaderChanged
            | Refusal::ForwardLost
            | Refusal::AnswerTooLong
            | Refusal::WrongCluster
            | Refusal::NoCommonVersion => None,
        };
        if !is_current {
            return;
        }
        self.loops[client].favourite = match leader.and_then(|leader| usize::try_from(leader.0).ok()) {
            Some(leader) if leader >= 1 && leader <= self.members_count && leader - 1 != member => leader - 1,
            Some(_) | None => self.random.position(self.members_count),
        };
        if is_not_done && self.random.below(8) == 0 {
            self.resolve(now, (client, slot), Answer::NotDone, queue);
        } else if self.gives_up(client, slot) {
            self.resolve(now, (client, slot), Answer::Unknown, queue);
        } else {
            let wait = self.random.waiting_time(10_000);
            queue.plan(now.after(wait), Event::Client { client, slot });
        }
    }

    fn begin(&mut self, now: TrueMicros, client: usize, slot: usize) -> Option<Pending> {
        let Some(session) = self.loops[client].session else {
            // One slot opens the session, the others wait for it.
            let is_opening = slot == 0;
            return is_opening.then_some(Pending {
                operation: None,
                request: Request::OpenSession { keyspace: KEYSPACE },
                attempts_count: 0,
                open_count: 0,
                attempt: 0,
            });
        };
        let (call, request) = match self.workload.next_write() {
            Some(command) => self.write(client, session, command),
            None => self.read(),
        };
        self.history.push(Operation {
            client: u32::try_from(client).unwrap_or(u32::MAX),
            invoked: now.0,
            completed: None,
            call,
            answer: Answer::Unknown,
        });
        Some(Pending {
            operation: Some(self.history.len() - 1),
            request,
            attempts_count: 0,
            open_count: 0,
            attempt: 0,
        })
    }

    fn write(&mut self, client: usize, session: SessionId, command: Command) -> (Call, Request) {
        let client = &mut self.loops[client];
        client.last_sequence += 1;
        let write = WriteId { session, sequence: client.last_sequence };
        let request = Request::Write {
            keyspace: KEYSPACE,
            stamp: Some(Stamp { session, sequence: write.sequence, low_water: 0 }),
            command: EncodedCommand::encode(&command)
                .expect("the workload makes only commands within every limit"),
        };
        (Call::Write { write, command }, request)
    }

    fn read(&mut self) -> (Call, Request) {
        let query = self.workload.next_read();
        let is_linearizable = self.random.below(10) > 0;
        let request = Request::Read {
            keyspace: KEYSPACE,
            query: query.clone(),
            mode: if is_linearizable { ReadMode::Linearizable } else { ReadMode::Serializable },
        };
        (Call::Read { query, is_linearizable }, request)
    }

    fn try_once(&mut self, now: TrueMicros, client: usize, slot: usize, queue: &mut Queue) {
        let low_water = self.low_water(client);
        let session = self.loops[client].session;
        // Mostly the favourite; sometimes anyone, so that followers forward and serve reads too.
        let member = if self.random.below(6) == 0 {
            self.random.position(self.members_count)
        } else {
            self.loops[client].favourite
        };
        let attempt = self.attempts.len() as u64;
        let Some(pending) = self.loops[client].slots[slot].as_mut() else {
            return;
        };
        pending.attempt = attempt;
        pending.attempts_count += 1;
        pending.open_count += 1;
        if let Request::Write { stamp: Some(stamp), .. } = &mut pending.request
            && Some(stamp.session) == session
        {
            stamp.low_water = stamp.low_water.max(low_water.min(stamp.sequence - 1));
        }
        self.attempts.push(Attempt {
            client,
            slot,
            operation: pending.operation,
            member,
            floor: Revision(0),
        });
        let delay = self.random.waiting_time(CLIENT_DELAY_MICROS);
        queue.plan(now.after(delay), Event::Request { attempt });
        let patience = self.random.between(200_000, 1_500_000);
        queue.plan(now.after(patience), Event::Impatience { attempt });
    }

    /// The highest sequence up to which this client will never ask for any again.
    fn low_water(&self, client: usize) -> u64 {
        let client = &self.loops[client];
        let waiting = client.slots.iter().flatten().filter_map(|pending| match &pending.request {
            Request::Write { stamp: Some(stamp), .. } if Some(stamp.session) == client.session => {
                Some(stamp.sequence - 1)
            }
            Request::Write { .. }
            | Request::OpenSession { .. }
            | Request::CloseSession { .. }
            | Request::Read { .. }
            | Request::Status => None,
        });
        waiting.min().unwrap_or(client.last_sequence)
    }

    fn gives_up(&mut self, client: usize, slot: usize) -> bool {
        let attempts_count =
            self.loops[client].slots[slot].as_ref().map_or(0, |pending| pending.attempts_count);
        attempts_count >= ATTEMPTS_PATIENT && self.random.below(30) == 0
    }

    fn resolve(&mut self, now: TrueMicros, place: (usize, usize), answer: Answer, queue: &mut Queue) {
        let (client, slot) = place;
        let Some(pending) = self.loops[client].slots[slot].take() else {
            return;
        };
        if let Some(operation) = pending.operation.and_then(|at| self.history.get_mut(at)) {
            let is_given_up = answer == Answer::Unknown;
            self.answered_count += u64::from(matches!(answer, Answer::Applied(_)));
            operation.completed = (!is_given_up).then_some(now.0);
            if is_given_up && matches!(operation.call, Call::Write { .. }) {
                // What became of that write stays open, so its session's low-water mark could never move again.
                self.loops[client].session = None;
            }
            operation.answer = answer;
        }
        let think = self.random.waiting_time(THINK_MICROS);
        queue.plan(now.after(think), Event::Client { client, slot });
    }

    /// The answer of another attempt of an operation that has been resolved must be the same answer.
    fn check_second_answer(
        &self,
        operation: Option<usize>,
        response: &Response,
    ) -> Result<(), Contradiction> {
        let Some(operation) = operation.and_then(|at| self.history.get(at)) else {
            return Ok(());
        };
        let (Call::Write { write, .. }, Response::Applied(second)) = (&operation.call, response) else {
            return Ok(());
        };
        match &operation.answer {
            Answer::Applied(first) if first == second => Ok(()),
            Answer::Applied(first) => Err(Contradiction(format!(
                "write {write} was answered {} and later {}",
                brief(first),
                brief(second)
            ))),
            Answer::NotDone => {
                Err(Contradiction(format!("write {write} was done though refused for certain")))
            }
            Answer::Unknown => Ok(()),
        }
    }
}

fn brief(applied: &Applied) -> String {
    let kind = match &applied.outcome {
        Outcome::Put(_) => "put",
        Outcome::DeleteRange(_) => "delete",
        Outcome::Txn(_) => "transaction",
        Outcome::Range(_) => "range",
        Outcome::Refused(_) => "refused",
    };
    format!("{kind} at revision {}", applied.revision)
}
