//! Watching clients: they read slowly or not at all for a while, lose their connections and go on elsewhere.
//!
//! Where a watch goes on is decided by `client::resume`, the very core of the real client; here is what stands around it
//! there, over made-up connections. A connection is a stream: what is told on it arrives in order, or it is lost with
//! all that was not read. Each has one watch.
//!
//! Always: everything that was read is remembered, leg by leg, for `check::watches` to judge. Left out: what is right.

use super::clock::TrueMicros;
use super::events::{Event, Queue};
use super::fault_plan::FaultPlan;
use super::random::Random;
use crate::api::{Response, WatchAnswer, WatchRequest};
use crate::check::{Heard, Leg, Way};
use crate::client::resume::Resume;
use crate::ids::{KeyspaceId, Revision, StreamId, WatchId};
use crate::kv::KeyRange;
use crate::watch::{Batch, Bounds, Ending, Interest, WatchSpec};
use bytes::Bytes;
use std::collections::VecDeque;

/// Watching clients of one run.
const WATCHERS_COUNT: usize = 6;

/// Mean delay between a client and a member, one way.
const DELAY_MICROS: u64 = 300;

/// Mean time between two decisions of a client.
const DECISION_MICROS: u64 = 700_000;

/// How long a watch may take to be created before it is tried elsewhere.
const PATIENCE_MICROS: u64 = 2_000_000;

/// Bytes of a frame without its events.
const FRAME_BYTES: usize = 64;

/// Bounds so tight that everything they lead to happens often.
pub(super) const BOUNDS: Bounds = Bounds {
    batch_bytes_max: 600,
    stream_bytes_max: 4_000,
    total_bytes_max: 12_000,
    changes_per_turn_max: 40,
    concerns_per_turn_max: 60,
    stream_watches_max: 4,
    watches_max: 1_000,
    progress_micros: 300_000,
};

/// The one name that a watch has on its stream.
const NAME: WatchId = WatchId(1);

/// Something that happens to a watching client.
#[derive(Clone, Copy, Debug)]
pub(super) enum WatchEvent {
    /// It decides what to do next.
    Decides {
        /// Which.
        watcher: usize,
    },
    /// A request arrives at the member.
    Arrives {
        /// Which request.
        request: usize,
    },
    /// It reads the next frame of a stream.
    Reads {
        /// Which.
        stream: usize,
    },
    /// A member learns that a stream is no more.
    IsOver {
        /// Which.
        stream: usize,
    },
}

/// All watching clients and their streams.
#[derive(Debug)]
pub(super) struct Watchers {
    clients: Vec<Watcher>,
    /// Every stream of the run; its position is its name.
    streams: Vec<Stream>,
    /// Every request of the run; its position gives its ticket.
    requests: Vec<(usize, WatchRequest)>,
    ways: Vec<Way>,
    members_count: usize,
    decision_micros: u64,
    /// Whether clients still make trouble.
    is_open: bool,
    random: Random,
}

#[derive(Debug)]
struct Watcher {
    resume: Resume,
    stream: Option<usize>,
    /// Of `ways`.
    way: usize,
    /// When it decides what to do next.
    decides_at: TrueMicros,
    /// It reads nothing before this.
    deaf_until: TrueMicros,
    /// How long it takes to read a frame.
    pace_micros: u64,
}

/// One connection with one watch.
#[derive(Debug)]
struct Stream {
    watcher: usize,
    member: usize,
    /// The life of the member it leads to, once something has arrived there.
    boot: Option<u32>,
    is_open: bool,
    began: TrueMicros,
    way: usize,
    leg: usize,
    /// On its way to the client, or waiting for it to read.
    arriving: VecDeque<(TrueMicros, Frame)>,
    is_reading: bool,
    last_at: TrueMicros,
}

/// Something that a member says on a stream.
#[derive(Clone, Debug)]
enum Frame {
    Answer(WatchAnswer),
    /// The watch cannot be here.
    Refused,
}

impl Frame {
    fn bytes_count(&self) -> usize {
        let Self::Answer(WatchAnswer::Told(batch)) = self else { return FRAME_BYTES };
        let events = batch.events.iter().map(|event| event.pair.key.len() + event.pair.value.len());
        FRAME_BYTES + events.sum::<usize>()
    }
}

/// What a request that arrives is.
pub(super) struct Arrival {
    pub(super) stream: usize,
    pub(super) member: usize,
    pub(super) boot: Option<u32>,
    pub(super) request: WatchRequest,
}

impl Watchers {
    /// Clients of the cluster of `plan`, about to begin.
    pub(super) fn new(plan: &FaultPlan, mut random: Random, queue: &mut Queue) -> Self {
        let mut this = Self {
            clients: Vec::new(),
            streams: Vec::new(),
            requests: Vec::new(),
            ways: Vec::new(),
            members_count: plan.members_count,
            decision_micros: DECISION_MICROS * plan.pace,
            is_open: true,
            random: random.fork(),
        };
        for watcher in 0..WATCHERS_COUNT {
            let resume = Resume::new(this.spec(Revision(1)));
            let pace_micros = if random.below(3) == 0 { random.magnitude(1_000, 100_000) } else { 0 };
            this.ways.push(Vec::new());
            let (decides_at, deaf_until) = (TrueMicros(random.below(DECISION_MICROS)), TrueMicros(0));
            this.clients.push(Watcher {
                resume,
                stream: None,
                way: watcher,
                decides_at,
                deaf_until,
                pace_micros,
            });
            queue.plan(decides_at, Event::Watch(WatchEvent::Decides { watcher }));
        }
        this
    }

    /// Everything that was told, way by way.
    pub(super) fn ways(&self) -> &[Way] {
        &self.ways
    }

    /// What each client watches now, and the first revision that it was not told yet.
    pub(super) fn standing(&self) -> impl Iterator<Item = (WatchSpec, Revision)> + '_ {
        self.clients.iter().filter_map(|watcher| Some((watcher.resume.spec(), watcher.resume.next()?)))
    }

    /// Makes no more trouble: reads what comes, and goes on where it is lost.
    pub(super) fn become_calm(&mut self, now: TrueMicros, queue: &mut Queue) {
        self.is_open = false;
        for watcher in 0..self.clients.len() {
            self.clients[watcher].deaf_until = now;
            self.clients[watcher].pace_micros = 0;
            self.plan_decision(watcher, now, queue);
        }
    }

    /// A client decides what to do next.
    pub(super) fn decide(&mut self, now: TrueMicros, watcher: usize, newest: Revision, queue: &mut Queue) {
        if self.clients[watcher].decides_at != now {
            // It has decided sooner.
            return;
        }
        let pause =
            if self.is_open { self.random.waiting_time(self.decision_micros) } else { DECISION_MICROS };
        self.plan_decision(watcher, now.after(pause + 1), queue);
        let Some(at) = self.clients[watcher].stream else {
            return self.connect(now, watcher, queue);
        };
        let stream = &self.streams[at];
        let is_created = self.ways[stream.way][stream.leg].created.is_some();
        if !is_created {
            if now.0 > stream.began.0 + PATIENCE_MICROS {
                self.lose(now, at, queue);
            }
            return;
        }
        if !self.is_open {
            return;
        }
        match self.random.below(10) {
            0 | 1 => self.lose(now, at, queue),
            2 => {
                self.lose(now, at, queue);
                self.begin_anew(watcher, newest);
            }
            3 => self.ask(now, at, WatchRequest::Cancel { watch: NAME }, queue),
            4 | 5 => self.ask(now, at, WatchRequest::Progress { watch: NAME }, queue),
            6 | 7 => {
                let micros = self.random.magnitude(20_000, 3_000_000);
                self.clients[watcher].deaf_until = now.after(micros);
            }
            _ => {}
        }
    }

    /// What a request that arrives now is; `None` if its stream is no more.
    pub(super) fn arrive(&mut self, request: usize, floor: Revision) -> Option<Arrival> {
        let (at, request) = self.requests.get(request)?.clone();
        let stream = self.streams.get(at).filter(|stream| stream.is_open)?;
        if let WatchRequest::Create { .. } = request {
            self.ways[stream.way][stream.leg].floor = floor;
        }
        Some(Arrival { stream: at, member: stream.member, boot: stream.boot, request })
    }

    /// A stream leads to this life of its member.
    pub(super) fn reached(&mut self, stream: usize, boot: u32) {
        self.streams[stream].boot = Some(boot);
    }

    /// The stream and the life of the member to which a request went.
    pub(super) fn stream_of(&self, request: usize) -> Option<usize> {
        self.requests.get(request).map(|(stream, _)| *stream)
    }

    /// Where a stream leads, and whether it still is one.
    pub(super) fn end_of(&self, stream: usize) -> Option<(usize, u32, bool)> {
        let stream = self.streams.get(stream)?;
        Some((stream.member, stream.boot?, stream.is_open))
    }

    /// A member answers a request.
    pub(super) fn answer(&mut self, now: TrueMicros, stream: usize, response: Response, queue: &mut Queue) {
        let frame = match response {
            Response::Watch(answer) => Frame::Answer(answer),
            Response::Refused(_)
            | Response::SessionOpened { .. }
            | Response::SessionClosed
            | Response::Applied(_)
            | Response::Snapshot(_)
            | Response::Users { .. }
            | Response::Status(_) => Frame::Refused,
        };
        self.send(now, stream, frame, queue);
    }

    /// A member tells a watch something.
    pub(super) fn tell(&mut self, now: TrueMicros, stream: StreamId, batch: Batch, queue: &mut Queue) {
        self.send(now, position(stream), Frame::Answer(WatchAnswer::Told(batch)), queue);
    }

    /// A member tells a watch that it has ended.
    pub(super) fn end(&mut self, now: TrueMicros, stream: StreamId, why: Ending, queue: &mut Queue) {
        self.send(now, position(stream), Frame::Answer(WatchAnswer::Ended { why }), queue);
    }

    /// The client of a stream reads the next frame; returns the bytes that still wait on it, if it read one.
    pub(super) fn read(&mut self, now: TrueMicros, at: usize, queue: &mut Queue) -> Option<usize> {
        let stream = &mut self.streams[at];
        stream.is_reading = false;
        if !stream.is_open {
            return None;
        }
        let deaf_until = self.clients[stream.watcher].deaf_until;
        if deaf_until > now {
            stream.is_reading = true;
            queue.plan(deaf_until, Event::Watch(WatchEvent::Reads { stream: at }));
            return None;
        }
        let (_, frame) = stream.arriving.pop_front()?;
        let waiting = stream.arriving.iter().map(|(_, frame)| frame.bytes_count()).sum();
        self.plan_reading(now, at, queue);
        self.heard(now, at, frame, queue);
        Some(waiting)
    }

    /// A connection breaks, with whatever was not read. Both ends notice, sooner or later.
    pub(super) fn lose(&mut self, now: TrueMicros, at: usize, queue: &mut Queue) {
        let stream = &mut self.streams[at];
        if !std::mem::replace(&mut stream.is_open, false) {
            return;
        }
        stream.arriving.clear();
        let watcher = stream.watcher;
        self.clients[watcher].stream = None;
        let (soon, later) = (self.random.waiting_time(30_000), self.random.waiting_time(300_000));
        self.plan_decision(watcher, now.after(soon), queue);
        queue.plan(now.after(later), Event::Watch(WatchEvent::IsOver { stream: at }));
    }

    /// A member is dead, and with it all its connections.
    pub(super) fn lose_all_of(&mut self, now: TrueMicros, member: usize, queue: &mut Queue) {
        for at in 0..self.streams.len() {
            if self.streams[at].member == member && self.streams[at].is_open {
                self.lose(now, at, queue);
            }
        }
    }

    fn plan_decision(&mut self, watcher: usize, at: TrueMicros, queue: &mut Queue) {
        self.clients[watcher].decides_at = at;
        queue.plan(at, Event::Watch(WatchEvent::Decides { watcher }));
    }

    fn connect(&mut self, now: TrueMicros, watcher: usize, queue: &mut Queue) {
        let this = &mut self.clients[watcher];
        let spec = this.resume.spec();
        let way = &mut self.ways[this.way];
        way.push(Leg { spec: spec.clone(), floor: Revision(0), created: None, heard: Vec::new() });
        let at = self.streams.len();
        self.streams.push(Stream {
            watcher,
            member: self.random.position(self.members_count),
            boot: None,
            is_open: true,
            began: now,
            way: this.way,
            leg: way.len() - 1,
            arriving: VecDeque::new(),
            is_reading: false,
            last_at: now,
        });
        this.stream = Some(at);
        self.ask(now, at, WatchRequest::Create { keyspace: KeyspaceId::FIRST, spec }, queue);
    }

    fn ask(&mut self, now: TrueMicros, stream: usize, request: WatchRequest, queue: &mut Queue) {
        let at = now.after(self.random.waiting_time(DELAY_MICROS));
        queue.plan(at, Event::Watch(WatchEvent::Arrives { request: self.requests.len() }));
        self.requests.push((stream, request));
    }

    fn send(&mut self, now: TrueMicros, at: usize, frame: Frame, queue: &mut Queue) {
        let delay = self.random.waiting_time(DELAY_MICROS);
        let Some(stream) = self.streams.get_mut(at).filter(|stream| stream.is_open) else { return };
        stream.last_at = stream.last_at.max(now.after(delay));
        stream.arriving.push_back((stream.last_at, frame));
        if !stream.is_reading {
            self.plan_reading(now, at, queue);
        }
    }

    fn plan_reading(&mut self, now: TrueMicros, at: usize, queue: &mut Queue) {
        let stream = &mut self.streams[at];
        if let Some((arrives, _)) = stream.arriving.front() {
            let ready = now.after(self.clients[stream.watcher].pace_micros);
            stream.is_reading = true;
            queue.plan(ready.max(*arrives), Event::Watch(WatchEvent::Reads { stream: at }));
        }
    }

    fn heard(&mut self, now: TrueMicros, at: usize, frame: Frame, queue: &mut Queue) {
        let stream = &self.streams[at];
        let (watcher, leg) = (stream.watcher, &mut self.ways[stream.way][stream.leg]);
        let this = &mut self.clients[watcher];
        match frame {
            Frame::Answer(WatchAnswer::Created { revision }) => {
                leg.created = Some(revision);
                this.resume.created(revision);
            }
            Frame::Answer(WatchAnswer::Told(batch)) => {
                leg.heard.push(Heard::Told(batch.clone()));
                this.resume.told(batch);
            }
            Frame::Answer(WatchAnswer::Reached { revision }) => {
                leg.heard.push(Heard::Reached(revision));
                this.resume.reached(revision);
            }
            Frame::Answer(WatchAnswer::Ended { why: Ending::Compacted(compacted) }) => {
                leg.heard.push(Heard::Ended(compacted));
                this.resume.skip_to(compacted);
                this.way = self.ways.len();
                self.ways.push(Vec::new());
                self.lose(now, at, queue);
            }
            // A cancelled watch is told nothing more; the client goes on where it stood.
            Frame::Answer(WatchAnswer::Cancelled | WatchAnswer::Ended { why: Ending::NotPermitted })
            | Frame::Refused => self.lose(now, at, queue),
        }
    }

    /// Another watch takes the place of this one.
    fn begin_anew(&mut self, watcher: usize, newest: Revision) {
        let spec = self.spec(newest);
        let this = &mut self.clients[watcher];
        this.resume = Resume::new(spec);
        this.way = self.ways.len();
        self.ways.push(Vec::new());
    }

    fn spec(&mut self, newest: Revision) -> WatchSpec {
        let random = &mut self.random;
        let key = |random: &mut Random| Bytes::from(format!("key/{}", random.below(8)));
        let range = match random.below(4) {
            0 => KeyRange::Key(key(random)),
            1 => KeyRange::Span { start: key(random), end: Bytes::from_static(b"key/6") },
            _ => KeyRange::From(Bytes::new()),
        };
        let start = match random.below(6) {
            0 | 1 => random.between(1, newest.0.max(1)),
            2 => newest.0 + random.between(1, 40),
            _ => 0,
        };
        let interest = Interest {
            range,
            skips_puts: random.below(6) == 0,
            skips_deletions: random.below(6) == 0,
            wants_previous: random.below(2) == 0,
        };
        WatchSpec { interest, start: Revision(start), wants_progress: random.below(2) == 0 }
    }
}

fn position(stream: StreamId) -> usize {
    usize::try_from(stream.0).unwrap_or(usize::MAX)
}
