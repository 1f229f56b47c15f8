//! Watching clients: they read slowly or not at all for a while, lose their connections and go on elsewhere.
//!
//! Where a watch goes on is decided by `client::resume`, the very core of the real client; here is what stands around it
//! there, over made-up connections. A connection is a stream: what is told on it arrives in order, or it is lost with
//! all that was not read. Each carries the watches of its client, one or several; those that end on it begin anew on it, under
//! another name. Now and then a client asks for one more, which there may be no room for, and does not come back to it.
//!
//! Always: everything that was read is remembered, leg by leg, for `check::watches` to judge; that nothing is told of a watch
//! that the stream does not have, is noted here. Left out: what is right.

use super::clock::TrueMicros;
use super::events::{Event, Queue};
use super::fault_plan::FaultPlan;
use super::random::Random;
use crate::api::{Response, WatchAnswer, WatchRequest};
use crate::check::{Heard, Leg, Way};
use crate::client::resume::Resume;
use crate::ids::{KeyspaceId, Revision, StreamId, WatchId};
use crate::kv::KeyRange;
use crate::watch::{Batch, Bounds, Ending, Interest, Place, WatchSpec};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// Watching clients of one run.
const WATCHERS_COUNT: usize = 4;

/// Watches that one of them has at the most; there is room for so many on one connection.
const WATCHES_MAX: usize = 4;

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
    stream_watches_max: WATCHES_MAX,
    watches_max: 1_000,
    progress_micros: 300_000,
};

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
    requests: Vec<Asked>,
    ways: Vec<Way>,
    /// What was told of a watch that its stream does not have.
    stray: Option<String>,
    members_count: usize,
    decision_micros: u64,
    /// Whether clients still make trouble.
    is_open: bool,
    random: Random,
}

/// A request, the stream it is made on and the watch it is about.
#[derive(Clone, Debug)]
struct Asked {
    stream: usize,
    name: WatchId,
    request: WatchRequest,
}

#[derive(Debug)]
struct Watcher {
    watches: Vec<Watch>,
    stream: Option<usize>,
    /// When it decides what to do next.
    decides_at: TrueMicros,
    /// It reads nothing before this.
    deaf_until: TrueMicros,
    /// How long it takes to read a frame.
    pace_micros: u64,
}

/// A watch that its client goes on with wherever it can.
#[derive(Debug)]
struct Watch {
    resume: Resume,
    /// Of `ways`.
    way: usize,
    /// Its name on the client's stream, if it was asked for there.
    name: Option<WatchId>,
}

/// What a name on a stream stands for.
#[derive(Clone, Copy, Debug)]
struct Named {
    /// Which of its client's watches it is; none that the client goes on with.
    watch: Option<usize>,
    way: usize,
    leg: usize,
    asked: TrueMicros,
}

/// One connection.
#[derive(Debug)]
struct Stream {
    watcher: usize,
    member: usize,
    /// The life of the member it leads to, once something has arrived there.
    boot: Option<u32>,
    is_open: bool,
    /// The watches asked for that have not ended.
    named: BTreeMap<WatchId, Named>,
    names_count: u64,
    /// On its way to the client, or waiting for it to read.
    arriving: VecDeque<(TrueMicros, WatchId, Frame)>,
    is_reading: bool,
    last_at: TrueMicros,
}

/// Something that a member says on a stream.
#[derive(Clone, Debug)]
enum Frame {
    Answer(WatchAnswer),
    /// The watch cannot be here, or is here no more.
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
    pub(super) name: WatchId,
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
            stray: None,
            members_count: plan.members_count,
            decision_micros: DECISION_MICROS * plan.pace,
            is_open: true,
            random: random.fork(),
        };
        for watcher in 0..WATCHERS_COUNT {
            let pace_micros = if random.below(3) == 0 { random.magnitude(1_000, 100_000) } else { 0 };
            let watches =
                (0..random.between(1, WATCHES_MAX as u64)).map(|_| this.new_watch(Revision(1))).collect();
            let (decides_at, deaf_until) = (TrueMicros(random.below(DECISION_MICROS)), TrueMicros(0));
            this.clients.push(Watcher { watches, stream: None, decides_at, deaf_until, pace_micros });
            queue.plan(decides_at, Event::Watch(WatchEvent::Decides { watcher }));
        }
        this
    }

    /// Everything that was told, way by way.
    pub(super) fn ways(&self) -> &[Way] {
        &self.ways
    }

    /// Something that was told of a watch that had ended, or never was.
    pub(super) fn stray(&self) -> Option<&String> {
        self.stray.as_ref()
    }

    /// What each client watches now, and the first revision that it was not told yet.
    pub(super) fn standing(&self) -> impl Iterator<Item = (WatchSpec, Revision)> + '_ {
        let watches = self.clients.iter().flat_map(|watcher| &watcher.watches);
        watches.filter_map(|watch| Some((watch.resume.spec(), watch.resume.next()?)))
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
        let is_late = |named: &Named| !self.is_created(named) && now.0 > named.asked.0 + PATIENCE_MICROS;
        if self.streams[at].named.values().any(is_late) {
            return self.lose(now, at, queue);
        }
        self.create_all(now, at, queue);
        let created = self.streams[at].named.iter().filter(|(_, named)| self.is_created(named));
        let created: Vec<WatchId> = created.map(|(name, _)| *name).collect();
        if !self.is_open || created.is_empty() {
            return;
        }
        let watch = created[self.random.position(created.len())];
        match self.random.below(12) {
            0 | 1 => self.lose(now, at, queue),
            2 => {
                self.lose(now, at, queue);
                let changing = self.random.position(self.clients[watcher].watches.len());
                self.clients[watcher].watches[changing] = self.new_watch(newest);
            }
            3 | 4 => self.ask(now, at, watch, WatchRequest::Cancel { watch }, queue),
            5 | 6 => self.ask(now, at, watch, WatchRequest::Progress { watch }, queue),
            7 | 8 => {
                let micros = self.random.magnitude(20_000, 3_000_000);
                self.clients[watcher].deaf_until = now.after(micros);
            }
            9 => {
                let Watch { resume, way, .. } = self.new_watch(newest);
                self.create(now, at, (None, way, resume.spec()), queue);
            }
            _ => {}
        }
    }

    /// What a request that arrives now is; `None` if its stream is no more.
    pub(super) fn arrive(&mut self, request: usize, floor: Revision) -> Option<Arrival> {
        let Asked { stream: at, name, request } = self.requests.get(request)?.clone();
        let stream = self.streams.get(at).filter(|stream| stream.is_open)?;
        if let (WatchRequest::Create { .. }, Some(named)) = (&request, stream.named.get(&name)) {
            self.ways[named.way][named.leg].floor = floor;
        }
        Some(Arrival { stream: at, member: stream.member, boot: stream.boot, name, request })
    }

    /// A stream leads to this life of its member.
    pub(super) fn reached(&mut self, stream: usize, boot: u32) {
        self.streams[stream].boot = Some(boot);
    }

    /// The stream on which a request was made, and the watch that it is about.
    pub(super) fn place_of(&self, request: usize) -> Option<(usize, WatchId)> {
        self.requests.get(request).map(|asked| (asked.stream, asked.name))
    }

    /// Where a stream leads, and whether it still is one.
    pub(super) fn end_of(&self, stream: usize) -> Option<(usize, u32, bool)> {
        let stream = self.streams.get(stream)?;
        Some((stream.member, stream.boot?, stream.is_open))
    }

    /// A member answers a request about this watch.
    pub(super) fn answer(
        &mut self,
        now: TrueMicros,
        (stream, name): (usize, WatchId),
        response: Response,
        queue: &mut Queue,
    ) {
        let frame = match response {
            Response::Watch(answer) => Frame::Answer(answer),
            Response::Refused(_)
            | Response::SessionOpened { .. }
            | Response::SessionClosed
            | Response::Applied(_)
            | Response::Aged { .. }
            | Response::Snapshot(_)
            | Response::Users { .. }
            | Response::Status(_) => Frame::Refused,
        };
        self.send(now, (stream, name), frame, queue);
    }

    /// A member tells a watch something.
    pub(super) fn tell(&mut self, now: TrueMicros, to: &Place, batch: Batch, queue: &mut Queue) {
        self.send(now, (position(to.stream), to.watch), Frame::Answer(WatchAnswer::Told(batch)), queue);
    }

    /// A member tells a watch that it has ended.
    pub(super) fn end(&mut self, now: TrueMicros, to: Place, why: Ending, queue: &mut Queue) {
        self.send(now, (position(to.stream), to.watch), Frame::Answer(WatchAnswer::Ended { why }), queue);
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
        let (_, name, frame) = stream.arriving.pop_front()?;
        let waiting = stream.arriving.iter().map(|(_, _, frame)| frame.bytes_count()).sum();
        self.plan_reading(now, at, queue);
        self.heard(now, (at, name), frame, queue);
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
        for watch in &mut self.clients[watcher].watches {
            watch.name = None;
        }
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
        let at = self.streams.len();
        self.streams.push(Stream {
            watcher,
            member: self.random.position(self.members_count),
            boot: None,
            is_open: true,
            named: BTreeMap::new(),
            names_count: 0,
            arriving: VecDeque::new(),
            is_reading: false,
            last_at: now,
        });
        self.clients[watcher].stream = Some(at);
        self.create_all(now, at, queue);
    }

    /// Asks for every watch of the client that is not on its stream.
    fn create_all(&mut self, now: TrueMicros, at: usize, queue: &mut Queue) {
        let watcher = self.streams[at].watcher;
        for watch in 0..self.clients[watcher].watches.len() {
            let Watch { resume, way, name } = &self.clients[watcher].watches[watch];
            if name.is_none() {
                let (way, spec) = (*way, resume.spec());
                let name = self.create(now, at, (Some(watch), way, spec), queue);
                self.clients[watcher].watches[watch].name = Some(name);
            }
        }
    }

    /// Asks for a watch on a stream, under a name that nothing had there.
    fn create(
        &mut self,
        now: TrueMicros,
        at: usize,
        (watch, way, spec): (Option<usize>, usize, WatchSpec),
        queue: &mut Queue,
    ) -> WatchId {
        let legs = &mut self.ways[way];
        legs.push(Leg { spec: spec.clone(), floor: Revision(0), created: None, heard: Vec::new() });
        let named = Named { watch, way, leg: legs.len() - 1, asked: now };
        let stream = &mut self.streams[at];
        stream.names_count += 1;
        let name = WatchId(stream.names_count);
        stream.named.insert(name, named);
        self.ask(now, at, name, WatchRequest::Create { keyspace: KeyspaceId::FIRST, spec }, queue);
        name
    }

    fn is_created(&self, named: &Named) -> bool {
        self.ways[named.way][named.leg].created.is_some()
    }

    fn ask(
        &mut self,
        now: TrueMicros,
        stream: usize,
        name: WatchId,
        request: WatchRequest,
        queue: &mut Queue,
    ) {
        let at = now.after(self.random.waiting_time(DELAY_MICROS));
        queue.plan(at, Event::Watch(WatchEvent::Arrives { request: self.requests.len() }));
        self.requests.push(Asked { stream, name, request });
    }

    fn send(&mut self, now: TrueMicros, (at, name): (usize, WatchId), frame: Frame, queue: &mut Queue) {
        let delay = self.random.waiting_time(DELAY_MICROS);
        let Some(stream) = self.streams.get_mut(at).filter(|stream| stream.is_open) else { return };
        stream.last_at = stream.last_at.max(now.after(delay));
        stream.arriving.push_back((stream.last_at, name, frame));
        if !stream.is_reading {
            self.plan_reading(now, at, queue);
        }
    }

    fn plan_reading(&mut self, now: TrueMicros, at: usize, queue: &mut Queue) {
        let stream = &mut self.streams[at];
        if let Some((arrives, _, _)) = stream.arriving.front() {
            let ready = now.after(self.clients[stream.watcher].pace_micros);
            stream.is_reading = true;
            queue.plan(ready.max(*arrives), Event::Watch(WatchEvent::Reads { stream: at }));
        }
    }

    fn heard(&mut self, now: TrueMicros, (at, name): (usize, WatchId), frame: Frame, queue: &mut Queue) {
        let stream = &mut self.streams[at];
        let watcher = stream.watcher;
        let Some(named) = stream.named.get(&name).copied() else {
            // Whoever asked how far a watch is, or for its end, learns that it is no more.
            if !matches!(frame, Frame::Refused | Frame::Answer(WatchAnswer::Cancelled)) {
                self.stray
                    .get_or_insert(format!("stream {at} has no watch {name}, of which it says {frame:?}"));
            }
            return;
        };
        let leg = &mut self.ways[named.way][named.leg];
        let is_created = leg.created.is_some();
        let watch = named.watch.and_then(|watch| self.clients[watcher].watches.get_mut(watch));
        let resume = watch.map(|watch| &mut watch.resume);
        match frame {
            Frame::Answer(WatchAnswer::Created { revision }) => {
                leg.created = Some(revision);
                if let Some(resume) = resume {
                    resume.created(revision);
                }
            }
            Frame::Answer(WatchAnswer::Told(batch)) => {
                leg.heard.push(Heard::Told(batch.clone()));
                let _ = resume.and_then(|resume| resume.told(batch));
            }
            Frame::Answer(WatchAnswer::Reached { revision }) => {
                leg.heard.push(Heard::Reached(revision));
                if let Some(resume) = resume {
                    resume.reached(revision);
                }
            }
            Frame::Answer(WatchAnswer::Ended { why: Ending::Compacted(compacted) }) => {
                leg.heard.push(Heard::Ended(compacted));
                if let Some(resume) = resume {
                    resume.skip_to(compacted);
                    self.ways.push(Vec::new());
                }
                let way = self.ways.len() - 1;
                self.ended(now, (at, name), Some(way), queue);
            }
            // It is told nothing more; the client goes on where it stood.
            Frame::Answer(WatchAnswer::Cancelled) => self.ended(now, (at, name), None, queue),
            // There is no room for it, or nobody who could say from where on it is.
            Frame::Refused if !is_created && self.random.below(2) == 0 => {
                self.ended(now, (at, name), None, queue);
            }
            // It was there when this was asked.
            Frame::Refused if is_created => {}
            Frame::Refused | Frame::Answer(WatchAnswer::Ended { why: Ending::NotPermitted }) => {
                self.lose(now, at, queue);
            }
        }
    }

    /// A watch is not on this stream any more; its client, if it goes on with it, soon asks for it again, on this way or
    /// another.
    fn ended(
        &mut self,
        now: TrueMicros,
        (at, name): (usize, WatchId),
        way: Option<usize>,
        queue: &mut Queue,
    ) {
        let stream = &mut self.streams[at];
        let watcher = stream.watcher;
        let ended = stream.named.remove(&name).and_then(|named| named.watch);
        if let Some(watch) = ended.and_then(|watch| self.clients[watcher].watches.get_mut(watch)) {
            watch.name = None;
            watch.way = way.unwrap_or(watch.way);
            let soon = now.after(self.random.waiting_time(30_000) + 1);
            self.plan_decision(watcher, soon, queue);
        }
    }

    /// A watch that nobody has asked for yet.
    fn new_watch(&mut self, newest: Revision) -> Watch {
        let resume = Resume::new(self.spec(newest));
        self.ways.push(Vec::new());
        Watch { resume, way: self.ways.len() - 1, name: None }
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
