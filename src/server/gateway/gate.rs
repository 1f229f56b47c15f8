//! The gateway's end of the lanes: questions are asked here, and answers find who waits for them.
//!
//! Always: a read is tried again only for lack of a leader or a quorum; whoever gives up waiting costs a place until the
//! answer comes, and no more. Left out: the shard's end, and how a write is made sure of (`writing`).

use super::asking::asker;
use super::stamps::Stamps;
use super::tokens::TokenKey;
use super::writing::Writing;
use super::{Answer, Bell, Delivery, GATEWAY_BIT, Lane, Question, Watches, batch_bytes};
use crate::api::etcd::{Fault, Standing, Wish};
use crate::api::{
    Certainty, EncodedCommand, ReadMode, Refusal, Request, Response, UsersAnswer, UsersRequest, WatchRequest,
};
use crate::auth::{AuthAnswer, AuthCommand, AuthQuery, Who};
use crate::ids::{KeyspaceId, MemberId, Revision, StreamId, Ticket, WatchId};
use crate::kv::Applied;
use crate::limits::{GATEWAY_PATIENCE_MILLIS, GATEWAY_REQUESTS_MAX, GATEWAY_RETRY_MILLIS};
use crate::replica::Input;
use crate::watch::{Batch, Ending, Place};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

/// How long what found no room on the lane waits before it is tried again.
const OWED_PAUSE: Duration = Duration::from_millis(5);

/// Passwords that are hashed at once; others wait.
///
/// Chosen: each takes 19 MiB and some tens of milliseconds of one core, and the shard needs cores, too.
pub(super) const HASHES_AT_ONCE: usize = 2;

/// How often it is looked whether leadership was handed over.
const HAND_OVER_PAUSE: Duration = Duration::from_millis(10);

/// Who waits for the answer of a ticket.
#[derive(Debug)]
enum Waiter {
    One(oneshot::Sender<(Standing, Response)>),
    Stream(StreamId),
}

/// What is told on a stream of watches.
#[derive(Debug)]
pub(in super::super) enum Told {
    /// The answer to one of its requests.
    Answer { ticket: Ticket, standing: Standing, response: Response },
    /// Changes, to these watches.
    Batch { watches: Watches, standing: Standing, batch: Arc<Batch> },
    /// A watch has ended.
    Ended { watch: WatchId, standing: Standing, why: Ending },
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    waiting: BTreeMap<u64, Waiter>,
    /// How many of them are requests, and how many are asked about watches, which may wait for long.
    ones_waiting: usize,
    streams_waiting: usize,
    streams: BTreeMap<StreamId, mpsc::UnboundedSender<Told>>,
    /// What must reach the shard and found no room.
    owed: VecDeque<Question>,
    standing: Standing,
    /// The store's revision at the last delivery.
    revision: Revision,
    is_closed: bool,
}

/// Where everything in a gateway asks.
#[derive(Debug)]
pub(in super::super) struct Gate {
    questions: Arc<Lane<Question>>,
    deliveries: Arc<Lane<Delivery>>,
    state: Mutex<State>,
    stamps: Mutex<Stamps>,
    /// The key of tokens, as this member last told it.
    pub(super) token_key: Mutex<Option<TokenKey>>,
    /// Passwords that may be hashed at once.
    pub(super) hashing: Arc<Semaphore>,
    /// Rung when a session was opened, or could not be.
    pub(super) stamps_changed: Notify,
    /// Whether this member knows a leader.
    led: watch::Receiver<bool>,
    /// How long a stream that wants a leader goes on without.
    leaderless_max: Duration,
}

impl Gate {
    pub(super) fn new(
        member: MemberId,
        questions: Arc<Lane<Question>>,
        deliveries: Arc<Lane<Delivery>>,
        led: watch::Receiver<bool>,
        leaderless_max: Duration,
    ) -> Self {
        let standing = Standing { member, ..Standing::default() };
        let state = Mutex::new(State { standing, ..State::default() });
        let (stamps, stamps_changed) = (Mutex::default(), Notify::new());
        let (token_key, hashing) = (Mutex::default(), Arc::new(Semaphore::new(HASHES_AT_ONCE)));
        Self { questions, deliveries, state, stamps, token_key, hashing, stamps_changed, led, leaderless_max }
    }

    pub(super) fn stamps(&self) -> MutexGuard<'_, Stamps> {
        self.stamps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this member knows a leader.
    pub(in super::super) fn is_led(&self) -> bool {
        *self.led.borrow()
    }

    /// Ends when this member has known no leader for three election timeouts (etcd's rule).
    pub(in super::super) async fn leader_lost(self: Arc<Self>) {
        let mut led = self.led.clone();
        loop {
            if led.wait_for(|is_led| !is_led).await.is_err() {
                // The shard has ended, and with it everything that asks.
                std::future::pending::<()>().await;
            }
            let found = tokio::time::timeout(self.leaderless_max, led.wait_for(|is_led| *is_led)).await;
            if found.is_err() {
                return;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the store says to a request of the etcd API.
    pub(in super::super) async fn wish(&self, wish: Wish) -> Result<(Standing, Applied), Fault> {
        let keyspace = KeyspaceId::FIRST;
        match wish {
            Wish::Write(command) => {
                let command = EncodedCommand::encode(&command).map_err(|_| Fault::TooLarge)?;
                match self.write(keyspace, Writing::Command(command)).await? {
                    (standing, Response::Applied(applied)) => Ok((standing, applied)),
                    _ => Err(Fault::Unexpected),
                }
            }
            Wish::Read(query, mode) => self.applied(Request::Read { keyspace, query, mode }).await,
        }
    }

    /// What the store says to a request.
    pub(in super::super) async fn applied(&self, request: Request) -> Result<(Standing, Applied), Fault> {
        match self.ask(request).await? {
            (standing, Response::Applied(applied)) => Ok((standing, applied)),
            _ => Err(Fault::Unexpected),
        }
    }

    /// Changes something about users or roles. Whoever leads has made the change then, and this member, too: whoever was told
    /// here that a permission is withdrawn finds it withdrawn here, in local reads too (etcd's rule).
    pub(in super::super) async fn change_users(
        &self,
        command: AuthCommand,
    ) -> Result<(Standing, Revision), Fault> {
        match self.write(KeyspaceId::FIRST, Writing::Users(command)).await? {
            (standing, Response::Users { revision, answer: UsersAnswer::Changed }) => {
                // The answer names no revision of users that could be waited for, and such changes are few.
                let caught_up =
                    self.ask_about_users(Who::Cluster, AuthQuery::Status, ReadMode::Linearizable).await;
                caught_up.map(|_| (standing, revision)).map_err(|_| Fault::TimedOut)
            }
            _ => Err(Fault::Unexpected),
        }
    }

    /// The answer to a question about users and roles that `who` asks.
    pub(in super::super) async fn ask_about_users(
        &self,
        who: Who,
        query: AuthQuery,
        mode: ReadMode,
    ) -> Result<(Standing, Revision, AuthAnswer), Fault> {
        let send = || {
            let request = UsersRequest::Ask { query: query.clone(), mode };
            self.send_input(|ticket| Input::Users { ticket, who, request })
        };
        match self.ask_by(send).await? {
            (standing, Response::Users { revision, answer: UsersAnswer::Told(told) }) => {
                Ok((standing, revision, told))
            }
            _ => Err(Fault::Unexpected),
        }
    }

    /// Refuses whoever asks unless they may do everything, as this member knows it.
    pub(in super::super) async fn only_root(&self) -> Result<(), Fault> {
        self.ask_about_users(asker(), AuthQuery::Root, ReadMode::Serializable).await.map(|_| ())
    }

    /// Refuses whoever asks unless they are a user, or permissions do not count.
    pub(in super::super) async fn only_users(&self) -> Result<(), Fault> {
        self.ask_about_users(asker(), AuthQuery::Anybody, ReadMode::Serializable).await.map(|_| ())
    }

    /// How this member sees itself.
    pub(in super::super) async fn status(&self) -> Result<(Standing, crate::api::Status), Fault> {
        match self.ask(Request::Status).await? {
            (standing, Response::Status(status)) => Ok((standing, *status)),
            _ => Err(Fault::Unexpected),
        }
    }

    /// Hands leadership over, and waits until this member knows that it was.
    pub(in super::super) async fn hand_over(&self, to: MemberId) -> Result<(), Fault> {
        let order = Question::Input(Input::HandOver { to: Some(to) });
        self.questions.put(order).map_err(|_| Fault::TooManyRequests)?;
        let watching = async {
            loop {
                tokio::time::sleep(HAND_OVER_PAUSE).await;
                let (_, status) = self.status().await?;
                if status.leader == Some(to) {
                    return Ok(());
                }
            }
        };
        let patience = Duration::from_millis(GATEWAY_PATIENCE_MILLIS);
        tokio::time::timeout(patience, watching).await.unwrap_or(Err(Fault::TransferTimedOut))
    }

    /// Asks until there is an answer other than that nobody leads just now, or patience ends.
    async fn ask(&self, request: Request) -> Result<(Standing, Response), Fault> {
        self.ask_by(|| self.send(request.clone())).await
    }

    /// The same, of what `send` sends.
    async fn ask_by(
        &self,
        send: impl Fn() -> Result<oneshot::Receiver<(Standing, Response)>, Fault>,
    ) -> Result<(Standing, Response), Fault> {
        let patience = Duration::from_millis(GATEWAY_PATIENCE_MILLIS);
        let pause = Duration::from_millis(GATEWAY_RETRY_MILLIS);
        let mut last = Fault::TimedOut;
        let asking = async {
            loop {
                let answer = send()?;
                // Until it is answered nobody knows what became of this attempt.
                last = Fault::TimedOut;
                match answer.await {
                    Err(_) => return Err(Fault::Stopped),
                    Ok((_, Response::Refused(refusal))) if is_worth_a_retry(refusal) => last = refusal.into(),
                    Ok((_, Response::Refused(refusal))) => return Err(refusal.into()),
                    Ok(answered) => return Ok(answered),
                }
                tokio::time::sleep(pause).await;
            }
        };
        let ended = tokio::time::timeout(patience, asking).await;
        ended.unwrap_or(Err(last))
    }

    /// Asks once, for whoever asks here.
    pub(super) fn send(&self, request: Request) -> Result<oneshot::Receiver<(Standing, Response)>, Fault> {
        let who = asker();
        self.send_input(|ticket| Input::Client { ticket, who, request })
    }

    /// Gives the shard what is made with a ticket.
    pub(super) fn send_input(
        &self,
        make: impl FnOnce(Ticket) -> Input,
    ) -> Result<oneshot::Receiver<(Standing, Response)>, Fault> {
        let (sender, receiver) = oneshot::channel();
        let ticket = self.admit(Waiter::One(sender))?;
        self.put(ticket, make(ticket))?;
        Ok(receiver)
    }

    /// A ticket for a new question.
    fn admit(&self, waiter: Waiter) -> Result<Ticket, Fault> {
        let mut state = self.state();
        if state.is_closed {
            return Err(Fault::Stopped);
        }
        let count = match waiter {
            Waiter::One(_) => &mut state.ones_waiting,
            Waiter::Stream(_) => &mut state.streams_waiting,
        };
        if *count >= GATEWAY_REQUESTS_MAX {
            return Err(Fault::TooManyRequests);
        }
        *count += 1;
        state.next += 1;
        let number = state.next;
        state.waiting.insert(number, waiter);
        Ok(Ticket(number | GATEWAY_BIT))
    }

    fn put(&self, ticket: Ticket, input: Input) -> Result<(), Fault> {
        self.questions.put(Question::Input(input)).map_err(|_| {
            self.state().take_waiter(ticket);
            Fault::TooManyRequests
        })
    }

    /// Puts what must not be lost.
    fn owe(&self, question: Question) {
        let mut state = self.state();
        if state.owed.is_empty() {
            if let Err(question) = self.questions.put(question) {
                state.owed.push_back(question);
            }
        } else {
            state.owed.push_back(question);
        }
    }

    /// Puts what found no room before; whether all of it did now.
    fn pay_owed(&self) -> bool {
        let mut state = self.state();
        while let Some(question) = state.owed.pop_front() {
            if let Err(question) = self.questions.put(question) {
                state.owed.push_front(question);
                return false;
            }
        }
        true
    }

    /// A new stream of watches.
    pub(in super::super) fn open_stream(self: &Arc<Self>) -> WatchStream {
        let (sender, told) = mpsc::unbounded_channel();
        let mut state = self.state();
        state.next += 1;
        let stream = StreamId(state.next | GATEWAY_BIT);
        state.streams.insert(stream, sender);
        drop(state);
        WatchStream { gate: Arc::clone(self), stream, told, taken_bytes: 0, was_told: false }
    }

    /// Hands answers to whoever waits for them, until the shard has ended.
    pub(in super::super) async fn run(&self) {
        let Bell::Task(bell) = &self.deliveries.bell else { return };
        loop {
            self.deliveries.listen();
            while let Some(delivery) = self.deliveries.queue.pop() {
                self.deliver(delivery);
            }
            let is_paid = self.pay_owed();
            if self.deliveries.is_closed.load(Ordering::Acquire) && self.deliveries.queue.is_empty() {
                let mut state = self.state();
                state.is_closed = true;
                state.waiting.clear();
                (state.ones_waiting, state.streams_waiting) = (0, 0);
                state.streams.clear();
                return;
            }
            tokio::select! {
                () = bell.notified() => {}
                () = tokio::time::sleep(OWED_PAUSE), if !is_paid => {}
            }
        }
    }

    fn deliver(&self, delivery: Delivery) {
        let mut state = self.state();
        state.standing.cluster = delivery.cluster;
        state.standing.term = delivery.term;
        state.revision = delivery.revision;
        let standing = state.standing;
        for answer in delivery.answers {
            match answer {
                Answer::Reply { ticket, response } => state.answer(ticket, response),
                Answer::Told { to, batch } => state.tell_all(&to, &batch),
                // Whoever listens on one finds that it has ended, and its client finds another member.
                Answer::StreamsEnded => state.streams.clear(),
                Answer::Ended { to, why } => {
                    state.tell(to.stream, Told::Ended { watch: to.watch, standing, why });
                }
            }
        }
    }
}

impl State {
    fn take_waiter(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.waiting.remove(&(ticket.0 & !GATEWAY_BIT))?;
        match waiter {
            Waiter::One(_) => self.ones_waiting -= 1,
            Waiter::Stream(_) => self.streams_waiting -= 1,
        }
        Some(waiter)
    }

    fn answer(&mut self, ticket: Ticket, response: Response) {
        let standing = self.standing;
        match self.take_waiter(ticket) {
            Some(Waiter::One(sender)) => {
                // Whoever asked may have given up.
                let _ = sender.send((standing, response));
            }
            Some(Waiter::Stream(stream)) => self.tell(stream, Told::Answer { ticket, standing, response }),
            None => {}
        }
    }

    fn tell_all(&mut self, to: &[Place], batch: &Arc<Batch>) {
        for on_stream in to.chunk_by(|one, other| one.stream == other.stream) {
            let Some(first) = on_stream.first() else { continue };
            let watches = on_stream.iter().map(|place| place.watch).collect();
            let told = Told::Batch { watches, standing: self.standing, batch: Arc::clone(batch) };
            self.tell(first.stream, told);
        }
    }

    fn tell(&mut self, stream: StreamId, told: Told) {
        if let Some(sender) = self.streams.get(&stream) {
            // Whoever listened may be gone; the word that it is is on its way.
            let _ = sender.send(told);
        }
    }
}

/// Whether a refusal says that nothing was done and nobody could, for the moment.
pub(super) fn is_worth_a_retry(refusal: Refusal) -> bool {
    let is_for_lack_of_others = matches!(
        refusal,
        Refusal::NotLeader { .. } | Refusal::NoQuorum | Refusal::NotReady | Refusal::NotUpgraded
    );
    is_for_lack_of_others && refusal.certainty() == Certainty::NotDone
}

/// The watches of one etcd stream, and what is told to them. Dropping it ends them.
#[derive(Debug)]
pub(in super::super) struct WatchStream {
    gate: Arc<Gate>,
    stream: StreamId,
    told: mpsc::UnboundedReceiver<Told>,
    taken_bytes: u64,
    was_told: bool,
}

impl WatchStream {
    /// Asks something about the watches here; the answer is told, with the ticket.
    pub(in super::super) fn ask(&mut self, name: WatchId, request: WatchRequest) -> Result<Ticket, Fault> {
        let ticket = self.gate.admit(Waiter::Stream(self.stream))?;
        let stream = self.stream;
        self.gate.put(ticket, Input::Watch { ticket, who: asker(), stream, name, request })?;
        Ok(ticket)
    }

    /// What is told next; `None` once the shard has ended.
    pub(in super::super) async fn next(&mut self) -> Option<Told> {
        // What was told last has left by the time that more is asked for.
        if self.was_told && self.told.is_empty() {
            self.was_told = false;
            self.gate.owe(Question::Taken { stream: self.stream, bytes: self.taken_bytes });
        }
        let told = self.told.recv().await?;
        if let Told::Batch { watches, batch, .. } = &told {
            self.taken_bytes += batch_bytes(batch) * watches.len() as u64;
            self.was_told = true;
        }
        Some(told)
    }

    /// How the member stood when it last said something, and its store's revision then.
    pub(in super::super) fn standing(&self) -> (Standing, Revision) {
        let state = self.gate.state();
        (state.standing, state.revision)
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.gate.state().streams.remove(&self.stream);
        self.gate.owe(Question::Input(Input::StreamClosed { stream: self.stream }));
    }
}

#[cfg(test)]
mod tests {
    use super::super::GatewayPort;
    use super::*;
    use crate::io::Wake;

    #[test]
    fn a_gateway_that_has_asked_as_much_as_it_may_refuses_until_something_is_answered() {
        let (mut port, gate) = GatewayPort::new(MemberId(1), Wake::new().expect("a bell"), 100);
        let mut asked = Vec::new();
        for _ in 0..GATEWAY_REQUESTS_MAX {
            asked.push(gate.send(Request::Status).expect("there is room"));
        }
        assert_eq!(gate.send(Request::Status).err(), Some(Fault::TooManyRequests));
        let mut inputs = Vec::new();
        port.take(&mut inputs);
        let Some(Input::Client { ticket, .. }) = inputs.first() else { panic!("a request was asked") };
        gate.state().answer(*ticket, Response::Refused(Refusal::Overloaded));
        assert!(gate.send(Request::Status).is_ok(), "one was answered");
    }

    #[test]
    fn what_is_asked_about_watches_takes_no_place_of_requests() {
        let (_port, gate) = GatewayPort::new(MemberId(1), Wake::new().expect("a bell"), 100);
        let mut stream = gate.open_stream();
        let progress = || WatchRequest::Progress { watch: WatchId(1) };
        for _ in 0..GATEWAY_REQUESTS_MAX {
            stream.ask(WatchId(1), progress()).expect("there is room");
        }
        assert_eq!(stream.ask(WatchId(1), progress()).err(), Some(Fault::TooManyRequests));
        assert!(gate.send(Request::Status).is_ok(), "others are served");
    }

    #[test]
    fn only_what_was_certainly_not_done_for_lack_of_others_is_tried_again() {
        assert!(is_worth_a_retry(Refusal::NotLeader { leader: None }));
        assert!(is_worth_a_retry(Refusal::NoQuorum));
        for refusal in [Refusal::LeaderChanged, Refusal::ForwardLost, Refusal::Overloaded, Refusal::Malformed]
        {
            assert!(!is_worth_a_retry(refusal), "{refusal}");
        }
    }
}
