//! Where a gateway and a shard meet: a lane of questions one way, a lane of answers the other (DESIGN §5).
//!
//! Always: a lane is bounded and never waited for. A question that finds no room is refused to its client; answers that
//! find none are kept by the shard until there is, and they are bounded by the questions in flight, which the gateway
//! counts, and by what watches may have waiting, which the shard's hub counts. What is told on one stream arrives in
//! the order in which the shard said it, answers included. Left out: HTTP, and what questions mean.

mod asking;
mod gate;
mod passwords;
mod socket;
mod stamps;
pub(super) mod thread;
mod tokens;
mod writing;

pub(super) use asking::{as_member, asker, found, spawn, token};
pub(super) use gate::{Gate, Told, WatchStream};
pub(super) use passwords::new_token_key;

use crate::api::Response;
use crate::ids::{ClusterId, MemberId, Revision, StreamId, Term, Ticket, WatchId};
use crate::io::Wake;
use crate::limits::{GATEWAY_DELIVERIES_MAX, GATEWAY_REQUESTS_MAX};
use crate::replica::Input;
use crate::watch::{Batch, Ending, Place};
use crossbeam::queue::ArrayQueue;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// The bit that tells a gateway's tickets and streams from the shard's own.
const GATEWAY_BIT: u64 = 1 << 63;

/// How whoever takes from a lane is woken.
#[derive(Debug)]
enum Bell {
    /// A shard, by its ring.
    Ring(Wake),
    /// A gateway, by its runtime.
    Task(Notify),
}

impl Bell {
    fn ring(&self) {
        match self {
            Self::Ring(wake) => wake.ring(),
            Self::Task(notify) => notify.notify_one(),
        }
    }
}

/// A bounded queue with a bell that is rung once for all that is put before somebody listens.
#[derive(Debug)]
struct Lane<T> {
    queue: ArrayQueue<T>,
    is_rung: AtomicBool,
    is_closed: AtomicBool,
    bell: Bell,
}

impl<T> Lane<T> {
    fn new(capacity: usize, bell: Bell) -> Self {
        let (is_rung, is_closed) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { queue: ArrayQueue::new(capacity), is_rung, is_closed, bell }
    }

    /// Puts something in, or gives it back if there is no room.
    fn put(&self, thing: T) -> Result<(), T> {
        self.queue.push(thing)?;
        self.ring();
        Ok(())
    }

    fn ring(&self) {
        if !self.is_rung.swap(true, Ordering::AcqRel) {
            self.bell.ring();
        }
    }

    /// Whether something was put since the last call. Whoever takes calls this first: what is put later rings again.
    fn listen(&self) -> bool {
        self.is_rung.swap(false, Ordering::AcqRel)
    }

    /// Nothing will be put, or nothing taken, any more.
    fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.bell.ring();
    }
}

/// What a gateway puts before its shard.
#[derive(Debug)]
enum Question {
    /// Something for the shard's next turn.
    Input(Input),
    /// Of what was told on this stream, so many bytes have left since it was opened.
    Taken { stream: StreamId, bytes: u64 },
}

/// What a shard has for a gateway.
#[derive(Debug)]
enum Answer {
    Reply {
        ticket: Ticket,
        response: Response,
    },
    Told {
        to: Vec<Place>,
        batch: Arc<Batch>,
    },
    Ended {
        to: Place,
        why: Ending,
    },
    /// Nothing is told to any watch any more.
    StreamsEnded,
}

/// All answers of one turn, or of several if there was no room.
#[derive(Debug)]
struct Delivery {
    cluster: ClusterId,
    term: Term,
    revision: Revision,
    answers: Vec<Answer>,
}

/// The shard's end.
#[derive(Debug)]
pub(super) struct GatewayPort {
    questions: Arc<Lane<Question>>,
    deliveries: Arc<Lane<Delivery>>,
    gathered: Vec<Answer>,
    /// Questions taken and not answered.
    owed_count: usize,
    /// Bytes told on each stream since it was opened.
    told_bytes: BTreeMap<StreamId, u64>,
    /// Whether this member knows a leader.
    led: watch::Sender<bool>,
    is_led: bool,
}

impl GatewayPort {
    /// Two ends; `wake` rings the shard. A stream that wants a leader goes on without for three times `election_millis`.
    pub(super) fn new(member: MemberId, wake: Wake, election_millis: u64) -> (Self, Arc<Gate>) {
        // Requests, what is asked about watches, and a word about the stream of each of those.
        let questions = Arc::new(Lane::new(3 * GATEWAY_REQUESTS_MAX, Bell::Ring(wake)));
        let deliveries = Arc::new(Lane::new(GATEWAY_DELIVERIES_MAX, Bell::Task(Notify::new())));
        let (led, is_led) = watch::channel(false);
        let leaderless_max = Duration::from_millis(3 * election_millis);
        let (asked, told) = (Arc::clone(&questions), Arc::clone(&deliveries));
        let gate = Arc::new(Gate::new(member, asked, told, is_led, leaderless_max));
        let (gathered, told_bytes) = (Vec::new(), BTreeMap::new());
        (Self { questions, deliveries, gathered, owed_count: 0, told_bytes, led, is_led: false }, gate)
    }

    /// Whether this member knows a leader as of this turn.
    pub(super) fn lead(&mut self, is_led: bool) {
        if std::mem::replace(&mut self.is_led, is_led) != is_led {
            self.led.send_replace(is_led);
        }
    }

    /// Whether a ticket is of a gateway's request.
    pub(super) const fn is_ticket(ticket: Ticket) -> bool {
        ticket.0 & GATEWAY_BIT != 0
    }

    /// Whether a stream is a gateway's.
    pub(super) const fn is_stream(stream: StreamId) -> bool {
        stream.0 & GATEWAY_BIT != 0
    }

    /// Takes what the gateway has asked since the last turn.
    pub(super) fn take(&mut self, inputs: &mut Vec<Input>) {
        if !self.questions.listen() {
            return;
        }
        while let Some(question) = self.questions.queue.pop() {
            match question {
                Question::Input(input) => {
                    if matches!(&input, Input::Client { .. } | Input::Users { .. } | Input::Watch { .. }) {
                        self.owed_count += 1;
                    } else if let Input::StreamClosed { stream } = &input {
                        self.told_bytes.remove(stream);
                    }
                    inputs.push(input);
                }
                Question::Taken { stream, bytes } => {
                    let told = self.told_bytes.get(&stream).copied().unwrap_or(0);
                    let waiting_bytes = usize::try_from(told.saturating_sub(bytes)).unwrap_or(usize::MAX);
                    inputs.push(Input::StreamTaken { stream, waiting_bytes });
                }
            }
        }
    }

    pub(super) fn reply(&mut self, ticket: Ticket, response: Response) {
        self.owed_count -= 1;
        self.gathered.push(Answer::Reply { ticket, response });
    }

    /// Tells watches of the gateway's; `to` are places on its streams.
    pub(super) fn tell(&mut self, to: Vec<Place>, batch: &Arc<Batch>) {
        for place in &to {
            *self.told_bytes.entry(place.stream).or_default() += batch_bytes(batch);
        }
        self.gathered.push(Answer::Told { to, batch: Arc::clone(batch) });
    }

    pub(super) fn end_watch(&mut self, to: Place, why: Ending) {
        self.gathered.push(Answer::Ended { to, why });
    }

    /// This member tells nothing to watches any more.
    pub(super) fn end_streams(&mut self) {
        self.gathered.push(Answer::StreamsEnded);
    }

    /// Hands over what was gathered, at the end of a turn.
    pub(super) fn hand_over(&mut self, cluster: ClusterId, term: Term, revision: Revision) {
        if self.gathered.is_empty() {
            return;
        }
        let answers = std::mem::take(&mut self.gathered);
        let delivery = Delivery { cluster, term, revision, answers };
        if let Err(delivery) = self.deliveries.put(delivery) {
            self.gathered = delivery.answers;
        }
    }

    /// Whether nothing is owed.
    pub(super) fn is_drained(&self) -> bool {
        self.owed_count == 0 && self.gathered.is_empty()
    }

    /// Whether there is something that the gateway had no room for.
    pub(super) fn is_waiting(&self) -> bool {
        !self.gathered.is_empty()
    }
}

impl Drop for GatewayPort {
    fn drop(&mut self) {
        self.deliveries.close();
    }
}

/// Bytes that a batch counts for on one stream, about.
fn batch_bytes(batch: &Batch) -> u64 {
    let pair_bytes = |pair: &crate::kv::KeyValue| pair.key.len() + pair.value.len() + 48;
    let event_bytes =
        |event: &crate::kv::Event| pair_bytes(&event.pair) + event.previous.as_ref().map_or(0, pair_bytes);
    64 + batch.events.iter().map(event_bytes).sum::<usize>() as u64
}

/// A gateway's watch, as it is told of on a stream.
pub(super) type Watches = Vec<WatchId>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::WatchAnswer;

    #[test]
    fn a_full_lane_gives_back_what_it_has_no_room_for_and_rings_once() {
        let lane = Lane::new(2, Bell::Task(Notify::new()));
        assert!(!lane.listen());
        assert_eq!((lane.put(1), lane.put(2), lane.put(3)), (Ok(()), Ok(()), Err(3)));
        assert!(lane.listen(), "something was put");
        assert!(!lane.listen(), "and heard of");
    }

    #[test]
    fn answers_that_find_no_room_are_kept_and_handed_over_later() {
        let (mut port, gate) = GatewayPort::new(MemberId(1), Wake::new().expect("a bell"), 100);
        let mut stream = gate.open_stream();
        let mut inputs = Vec::new();
        for _ in 0..=GATEWAY_DELIVERIES_MAX {
            let ticket = stream.ask(WatchId(1), crate::api::WatchRequest::Cancel { watch: WatchId(1) });
            port.take(&mut inputs);
            port.reply(ticket.expect("there is room"), Response::Watch(WatchAnswer::Cancelled));
            port.hand_over(ClusterId(1), Term(1), Revision(1));
        }
        assert!(port.is_waiting() && !port.is_drained(), "one answer found no room");
        assert_eq!(inputs.len(), GATEWAY_DELIVERIES_MAX + 1);
        while port.deliveries.queue.pop().is_some() {}
        port.hand_over(ClusterId(1), Term(1), Revision(1));
        assert!(!port.is_waiting() && port.is_drained());
    }

    #[test]
    fn the_end_of_a_stream_is_heard_of() {
        let (mut port, gate) = GatewayPort::new(MemberId(1), Wake::new().expect("a bell"), 100);
        drop(gate.open_stream());
        let mut inputs = Vec::new();
        port.take(&mut inputs);
        assert!(
            matches!(inputs.as_slice(), [Input::StreamClosed { stream }] if GatewayPort::is_stream(*stream))
        );
    }
}
