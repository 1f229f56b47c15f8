//! The shard thread: one plain loop over one ring, which owns the disk, the peers and the native clients.
//!
//! A turn: submit what was gathered and wait, in one system call; drain completions and mailbox; *then* read the
//! clock, so that `now` is later than everything the turn answers; let the pure shard turn; gather what it wants
//! (DESIGN §5). Always: one write to the log at a time; the first that fails or comes up short stops the process,
//! because a member that cannot trust its disk must not vote (catalogue 41). Left out: what connections say
//! (`native`, `peers`), and everything the shard decides.

use super::bulk_thread::{self, Order};
use super::connection::{Connection, Purpose};
use super::connections::Connections;
use super::gateway::GatewayPort;
use super::mailbox::{Mailbox, Note};
use super::peers::Peers;
use super::placement::Placement;
use super::record::Record;
use super::removal_thread;
use super::snapshot_thread::{self, Task};
use super::stages::{Reached, Stages};
use super::{ServerConfig, ServerError, member_id};
use crate::api::{Counter, Request, Response, Status};
use crate::ids::{BootMicros, MemberId, SegmentNumber, StreamId, Ticket};
use crate::io::{AlignedBuffer, DataDirectory, Event, Ring, Tag, Wake};
use crate::limits::{
    CLIENT_VANISHED_MILLIS, CONNECTIONS_MAX, LEADER_DRIFT_PPM, PEER_VANISHED_MILLIS, RECEIVE_BYTES,
    STATE_CHECK_ENTRIES, WAL_SEGMENT_BYTES,
};
use crate::replica::{
    FoundContent, FoundSnapshot, Input, LeaseTerms, Options, Output, SegmentFile, Shard, SnapshotPolicy,
    restore_newest,
};
use crate::snapshot::FileName;
use crate::watch::Bounds;
use bytes::Bytes;
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use tracing::{error, info, warn};

/// Tags of everything that is not a connection; those have theirs from `Connections`.
const TAG_NATIVE: Tag = 1;
const TAG_PEER: Tag = 2;
const TAG_WAKE: Tag = 3;
const TAG_LOG: Tag = 4;

/// Microseconds before a segment that could not be made is tried again.
///
/// Chosen: soon after somebody has freed space; seldom enough to leave a full disk alone.
const SEGMENT_RETRY_MICROS: u64 = 2_000_000;

/// Microseconds after which a session that nothing names is ended.
///
/// Chosen: longer than any client is cut off before its user gives up.
const SESSION_IDLE_MICROS: u64 = 600 * 1_000_000;

/// Microseconds after which answers that the gateway had no room for are handed over again.
const GATEWAY_RETRY_MICROS: u64 = 1_000;

/// Microseconds before a listener on which accepting ended is tried again.
///
/// Chosen: when the descriptors are used up, trying again at once would be a loop that never sleeps.
const ACCEPT_RETRY_MICROS: u64 = 100_000;

/// Where the answer of a request goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) connection: Tag,
    pub(super) request: u64,
    /// Whether it changes nothing, so that it may be refused when it has been answered already.
    pub(super) is_read: bool,
}

/// Everything one shard thread owns.
pub(super) struct ShardThread {
    pub(super) config: ServerConfig,
    pub(super) member: MemberId,
    ring: Ring,
    shard: Shard,
    segments: BTreeMap<SegmentNumber, OwnedFd>,
    /// The salts of the segments, for the record.
    salts: BTreeMap<SegmentNumber, u64>,
    record: Record,
    orders: Sender<Order>,
    /// Bytes of the log's last segment that are used. Told to whoever makes the next.
    last_used: Arc<AtomicU64>,
    snapshot_tasks: Sender<Task>,
    /// A segment that could not be made, and when to try again.
    failed_order: Option<(Order, BootMicros)>,
    /// Listeners on which accepting has ended, and when to begin anew.
    deaf: Vec<Tag>,
    listen_at: Option<BootMicros>,
    mailbox: Mailbox,
    /// Where etcd clients' requests come from.
    pub(super) gateway: GatewayPort,
    gateway_thread: Option<JoinHandle<()>>,
    wake: Wake,
    listeners: [OwnedFd; 2],
    pub(super) connections: Connections,
    /// Reused from turn to turn.
    restless: Vec<Tag>,
    pub(super) peers: Peers,
    pub(super) asked: HashMap<Ticket, Asked>,
    next_ticket: u64,
    pub(super) inputs: Vec<Input>,
    /// Buffers and instants of the write in flight, and buffers to be used again.
    write_began: BootMicros,
    write_bytes: usize,
    spare_buffer: Option<AlignedBuffer>,
    pub(super) stages: Stages,
    pub(super) ready: Ready,
    stop_by: Option<BootMicros>,
    pub(super) now: BootMicros,
}

/// How far the announcement has come that this member serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    /// A read is to be tried at this instant.
    TryAt(BootMicros),
    /// A read with this ticket is on its way.
    Trying(Ticket),
    /// It was announced.
    Announced,
}

impl ShardThread {
    /// Takes its place, takes the directory, recovers, and listens.
    ///
    /// # Errors
    /// Whatever keeps the member from starting, with what to do about it.
    pub(super) fn start(
        mut config: ServerConfig,
        placement: &Placement,
        stop: &super::Stop,
    ) -> Result<Self, ServerError> {
        crate::io::raise_descriptor_limit();
        take_place(placement);
        let mut ring = Ring::new()?;
        let directory = Arc::new(DataDirectory::open(&config.data)?);
        ring.hold(directory.lock().as_raw_fd())?;
        if !directory.is_direct() {
            warn!(data = %config.data.display(), "the file system has no O_DIRECT: writes are buffered, and synced");
        }
        let member = member_id(&config.initial_cluster_token, &config.name);
        let options = shard_options(&config, member)?;
        let incarnation = options.seed;
        let (files, snapshots) = read_all(&directory, incarnation, &placement.other_cpus)?;
        // Reading may have taken seconds, and no timeout is to have passed meanwhile.
        let now = crate::io::now();
        let shard = Shard::start(options, &files, snapshots, now)?;
        let record = Record::start(&config.name)?;
        let salts = files.iter().map(|file| (file.number, file.salt)).collect();
        let segments = open_segments(&directory, &files)?;
        let wake = Wake::new().map_err(ServerError::Kernel)?;
        let mailbox = Mailbox::new(wake.clone());
        let others = placement.other_cpus.clone();
        // Until the first write says more: it may be what waits for a segment.
        let last_used = Arc::new(AtomicU64::new(WAL_SEGMENT_BYTES));
        let (snapshot_tasks, orders) =
            start_file_threads(directory, &mailbox, &others, &last_used).map_err(ServerError::Kernel)?;
        stop.notify(mailbox.clone());
        let listeners = listeners(&config)?;
        let clients = listen_for_clients(&mut config)?;
        let (gateway, gate) = GatewayPort::new(member, wake.clone(), config.election_ms);
        let others = placement.other_cpus.clone();
        let gateway_thread =
            super::gateway::thread::start(clients, gate, others).map_err(ServerError::Kernel)?;
        let peers = Peers::new(&config, member, incarnation, &listeners)?;
        let mut this = Self {
            config,
            member,
            ring,
            shard,
            segments,
            salts,
            record,
            orders,
            last_used,
            snapshot_tasks,
            failed_order: None,
            deaf: Vec::new(),
            listen_at: None,
            mailbox,
            gateway,
            gateway_thread: Some(gateway_thread),
            wake,
            listeners,
            connections: Connections::new(),
            restless: Vec::new(),
            peers,
            asked: HashMap::new(),
            next_ticket: 1,
            inputs: Vec::new(),
            write_began: now,
            write_bytes: 0,
            spare_buffer: None,
            stages: Stages::new(now),
            ready: Ready::TryAt(now),
            stop_by: None,
            now,
        };
        this.ring.accept(TAG_NATIVE, this.listeners[0].as_raw_fd());
        this.ring.accept(TAG_PEER, this.listeners[1].as_raw_fd());
        this.ring.listen_for_wake(TAG_WAKE, this.wake.descriptor());
        Ok(this)
    }

    /// Turns until the member has been stopped and has handed over.
    ///
    /// # Errors
    /// `ServerError`: the disk or the ring cannot be trusted any more.
    pub(super) fn run(mut self) -> Result<(), ServerError> {
        super::placement::take_short_slices();
        let mut events = Vec::new();
        let mut outputs = Vec::new();
        let mut has_turned = false;
        loop {
            self.ring.turn(crate::io::now(), self.next_deadline(), &mut events)?;
            // What comes in is stamped with this one.
            self.now = crate::io::now();
            for event in events.drain(..) {
                self.event(event)?;
            }
            while let Some(note) = self.mailbox.take() {
                self.note(note);
            }
            self.take_from_gateway();
            self.order_again()?;
            self.listen_again();
            self.connect_peers();
            self.try_to_be_ready();
            let was_serving = self.shard.waiting_for().is_none();
            let mut serves_no_more = false;
            // Read after everything has been drained, mailboxes included, so that it is later than all that this turn answers:
            // a pause up to here lets no read pass under a lease that has ended (DESIGN §5, §9).
            self.now = crate::io::now();
            // Whatever the shard waits for is an input or its deadline; a send that was completed, say, is neither.
            if !has_turned || !self.inputs.is_empty() || self.now >= self.shard.next_deadline() {
                has_turned = true;
                self.shard.turn(self.now, &mut self.inputs, &mut outputs);
                for time in self.shard.read_times() {
                    self.stages.reads_answered(time);
                }
            }
            if was_serving && let Some(waiting_for) = self.shard.waiting_for() {
                error!(waiting_for, "this member serves no more");
                serves_no_more = true;
            }
            let took_micros = crate::io::now().since(self.now);
            for output in outputs.drain(..) {
                self.obey(output)?;
            }
            if serves_no_more {
                self.end_watching();
            }
            self.hand_to_gateway();
            self.send_and_expire();
            self.stages.turned(self.now, took_micros, self.reached());
            if self.is_done() {
                self.end_gateway();
                return Ok(());
            }
        }
    }

    fn next_deadline(&self) -> BootMicros {
        if !self.inputs.is_empty() {
            return self.now;
        }
        let mut deadline = self.shard.next_deadline().min(self.peers.deadline());
        deadline = deadline.min(self.connections.deadline());
        if let Ready::TryAt(at) = self.ready {
            deadline = deadline.min(at);
        }
        if let Some((_, at)) = self.failed_order {
            deadline = deadline.min(at);
        }
        if let Some(at) = self.listen_at {
            deadline = deadline.min(at);
        }
        if self.gateway.is_waiting() {
            deadline = deadline.min(self.now.after(GATEWAY_RETRY_MICROS));
        }
        self.stop_by.map_or(deadline, |stop_by| deadline.min(stop_by))
    }

    fn event(&mut self, event: Event) -> Result<(), ServerError> {
        match event {
            Event::Accepted { tag, socket, has_ended } => {
                self.accepted(socket, tag);
                if has_ended {
                    self.deaf.push(tag);
                    self.listen_at.get_or_insert(self.now.after(ACCEPT_RETRY_MICROS));
                }
            }
            Event::Connected { tag, result } => self.connected(tag, &result),
            Event::Received { tag, buffer, result } => self.received(tag, buffer, result),
            Event::Sent { tag, pieces, result } => self.sent(tag, pieces, result),
            Event::Written { tag: _, buffer, result } => return self.written(buffer, result),
            Event::Woken { tag: _ } => self.ring.listen_for_wake(TAG_WAKE, self.wake.descriptor()),
        }
        Ok(())
    }

    fn accepted(&mut self, socket: std::io::Result<OwnedFd>, listener: Tag) {
        let purpose = if listener == TAG_NATIVE { Purpose::NewClient } else { Purpose::NewPeer };
        match socket {
            Ok(socket) if self.connections.len() < CONNECTIONS_MAX => {
                let tag = self.connections.add(Connection::new(socket, purpose, self.now));
                self.receive(tag, Vec::with_capacity(RECEIVE_BYTES));
            }
            Ok(socket) => {
                warn!(connections = self.connections.len(), "too many connections: one more is refused");
                drop(socket);
            }
            Err(error) => {
                warn!(%error, "a connection could not be accepted; listening again in a moment");
            }
        }
    }

    fn received(&mut self, tag: Tag, buffer: Vec<u8>, result: std::io::Result<usize>) {
        let Some(connection) = self.connections.get_mut(tag) else { return };
        match result {
            Ok(0) => self.close(tag, None),
            Ok(_) => {
                self.stages.counts.receives += 1;
                connection.received(&buffer);
                self.take_and_receive(tag, buffer);
            }
            Err(error) => self.close(tag, Some(&error.to_string())),
        }
    }

    /// Takes off what has come, and receives more unless what waits to be sent is enough for now.
    fn take_and_receive(&mut self, tag: Tag, buffer: Vec<u8>) {
        if let Err(why) = self.take_frames(tag) {
            self.close(tag, Some(&why));
            return;
        }
        let Some(connection) = self.connections.get_mut(tag) else { return };
        connection.is_paused = connection.is_congested();
        if !connection.is_paused {
            self.receive(tag, buffer);
        }
    }

    /// Takes whole frames off a connection.
    fn take_frames(&mut self, tag: Tag) -> Result<(), String> {
        loop {
            let Some(connection) = self.connections.get_mut(tag) else { return Ok(()) };
            let is_more = match connection.purpose {
                Purpose::NewClient => self.client_hello(tag),
                Purpose::Client if connection.is_congested() => false,
                Purpose::Client => self.client_frame(tag),
                Purpose::NewPeer => self.peer_greets(tag)?,
                Purpose::PeerIn(peer) => self.peer_frame(tag, peer)?,
                Purpose::Opening(peer) => self.peer_greets_back(tag, peer)?,
                Purpose::PeerOut(_) if connection.inbound.is_empty() => false,
                Purpose::PeerOut(_) => return Err("a peer speaks where it should listen".to_owned()),
            };
            if !is_more {
                if let Some(connection) = self.connections.get_mut(tag) {
                    connection.mind(self.now);
                    self.connections.watch(tag);
                }
                return Ok(());
            }
            if let Some(connection) = self.connections.get_mut(tag) {
                connection.progressed();
            }
        }
    }

    fn receive(&mut self, tag: Tag, buffer: Vec<u8>) {
        if let Some(connection) = self.connections.get(tag).filter(|connection| !connection.is_ending) {
            self.ring.receive(tag, connection.socket.as_raw_fd(), buffer);
        }
    }

    fn sent(&mut self, tag: Tag, pieces: Vec<Bytes>, result: std::io::Result<usize>) {
        match result {
            Ok(count) => {
                self.connections.sent(tag, pieces, count);
                self.stages.counts.sends += 1;
                self.stream_sent(tag);
                let Some(connection) = self.connections.get_mut(tag) else { return };
                if let Some(queued) = connection.answers_left() {
                    self.stages.answer_left(queued, self.now);
                }
                if connection.is_paused && !connection.is_congested() {
                    connection.is_paused = false;
                    self.take_and_receive(tag, Vec::with_capacity(RECEIVE_BYTES));
                }
            }
            Err(error) => self.close(tag, Some(&error.to_string())),
        }
    }

    fn written(&mut self, buffer: AlignedBuffer, result: std::io::Result<usize>) -> Result<(), ServerError> {
        match result {
            Ok(count) if count == self.write_bytes => {
                self.spare_buffer = Some(buffer);
                self.stages.log_write_ended(self.write_began, self.now);
                self.record.durable();
                self.inputs.push(Input::Written);
                Ok(())
            }
            Ok(count) => Err(ServerError::ShortWrite { wanted: self.write_bytes, count }),
            Err(source) => Err(ServerError::LogWrite { source }),
        }
    }

    /// Tries again to have a segment made that could not be.
    fn order_again(&mut self) -> Result<(), ServerError> {
        match self.failed_order {
            Some((order, at)) if at <= self.now => {
                self.failed_order = None;
                self.order(order)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn order(&mut self, order: Order) -> Result<(), ServerError> {
        self.orders.send(order).map_err(|_| ServerError::NoSegment { why: "its thread has ended".to_owned() })
    }

    /// Listens again where accepting has ended: after a pause, because what ended it may last.
    fn listen_again(&mut self) {
        if self.listen_at.is_some_and(|at| at <= self.now) {
            self.listen_at = None;
            for listener in std::mem::take(&mut self.deaf) {
                let which = usize::from(listener == TAG_PEER);
                self.ring.accept(listener, self.listeners[which].as_raw_fd());
            }
        }
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::SegmentMade { segment, file } => {
                self.segments.insert(segment, file);
                self.inputs.push(Input::SegmentReady { segment });
            }
            Note::SegmentFailed { order, why } => {
                warn!(
                    why,
                    "no segment for the log could be made: free some space. Once the current one is full this member \
                     takes no writes; it tries again by itself"
                );
                self.failed_order = Some((order, self.now.after(SEGMENT_RETRY_MICROS)));
            }
            Note::SnapshotFile { group, ticket, done } => {
                self.inputs.push(Input::SnapshotFile { group, ticket, done });
            }
            Note::Stop => {
                info!("stopping: leadership is handed over first");
                self.stop_by.get_or_insert(self.now.after(2_000 * self.config.election_ms));
                self.inputs.push(Input::HandOver { to: None });
            }
        }
    }

    fn obey(&mut self, output: Output) -> Result<(), ServerError> {
        match output {
            Output::MakeSegment { segment, salt, recycled } => {
                self.salts.insert(segment, salt);
                if let Some((old, _)) = recycled {
                    self.segments.remove(&old);
                    self.salts.remove(&old);
                }
                self.order(Order { segment, salt, recycled, is_removal: false })?;
            }
            Output::RemoveSegment { segment, salt } => {
                self.segments.remove(&segment);
                self.salts.remove(&segment);
                self.order(Order { segment, salt, recycled: None, is_removal: true })?;
            }
            Output::Write { segment, offset, frame, is_synced } => {
                let file = self.segments.get(&segment).ok_or(ServerError::NoSegment {
                    why: format!("{segment} is to be written and is not open"),
                })?;
                let is_last = self.segments.last_key_value().is_some_and(|(last, _)| *last == segment);
                self.last_used.store(if is_last { offset } else { 0 }, Ordering::Relaxed);
                self.record.write(&frame, self.salts.get(&segment).copied(), is_synced);
                let mut buffer = self.spare_buffer.take().filter(|buffer| buffer.len() >= frame.len());
                let mut buffer = buffer.take().unwrap_or_else(|| AlignedBuffer::zeroed(frame.len()));
                buffer[..frame.len()].copy_from_slice(&frame);
                self.write_began = self.now;
                self.stages.log_write_began(self.now, frame.len());
                self.write_bytes = frame.len();
                self.ring.write(TAG_LOG, file.as_raw_fd(), offset, (buffer, frame.len()), is_synced);
            }
            Output::SnapshotFile { ticket, file, order } => {
                let task = Task { ticket, file, order };
                self.snapshot_tasks.send(task).map_err(|_| ServerError::NoSnapshots)?;
            }
            Output::Send { to, frame } => {
                self.record.sent(&frame);
                self.stages.counts.peer_frames += 1;
                self.send_to_peer(to, frame);
            }
            Output::Reply { ticket, response } => self.reply(ticket, response),
            Output::Tell { to, batch } => self.tell(to, batch),
            Output::EndWatch { to, why } => self.end_watch(to, why),
        }
        Ok(())
    }

    /// A ticket for a request of `asked`.
    pub(super) fn ticket(&mut self, asked: Option<Asked>) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        if let Some(asked) = asked {
            self.asked.insert(ticket, asked);
        }
        ticket
    }

    fn reply(&mut self, ticket: Ticket, mut response: Response) {
        if self.ready == Ready::Trying(ticket) {
            self.tried_to_be_ready(&response);
            return;
        }
        let is_gateways = GatewayPort::is_ticket(ticket);
        let asked = self.asked.remove(&ticket);
        if asked.is_none() && !is_gateways {
            return;
        }
        if let Response::Applied(_) | Response::Aged { .. } = &response {
            let applied = self.shard.observe().map(|replica| replica.applied).max();
            self.record.answered(applied.unwrap_or_default());
        }
        if let Response::Status(status) = &mut response {
            self.complete_status(status);
        }
        match asked {
            Some(asked) => self.answer_client(asked, &response),
            None => self.gateway.reply(ticket, response),
        }
    }

    /// Adds what only the server knows.
    fn complete_status(&mut self, status: &mut Status) {
        self.stages.counts.system_calls = self.ring.enters;
        env!("CARGO_PKG_VERSION").clone_into(&mut status.version);
        (status.sync_p50_micros, status.sync_p99_micros) = self.stages.sync_micros();
        status.stages = self.stages.stages();
        status.counters.extend(self.stages.counters());
        let watches = self.shard.observe().map(|replica| replica.watches_count as u64).sum();
        status.counters.push(Counter { name: "watches".to_owned(), value: watches });
        status.members = self.peers.views();
        if self.failed_order.is_some() && status.waiting_for.is_empty() {
            "space on its disk: no further segment for the log could be made"
                .clone_into(&mut status.waiting_for);
        }
    }

    /// Starts to connect a new socket.
    pub(super) fn open(&mut self, peer: MemberId, address: std::net::SocketAddr) {
        match crate::io::connect_socket(address, PEER_VANISHED_MILLIS) {
            Ok(socket) => {
                let descriptor = socket.as_raw_fd();
                let tag = self.connections.add(Connection::new(socket, Purpose::Opening(peer), self.now));
                self.peers.opening(peer, tag);
                self.ring.connect(tag, descriptor, address);
            }
            Err(error) => {
                warn!(%peer, %error, "no socket for a peer");
                self.peers.lost(peer, self.now);
            }
        }
    }

    fn connected(&mut self, tag: Tag, result: &std::io::Result<()>) {
        let Some(connection) = self.connections.get(tag) else { return };
        let Purpose::Opening(peer) = connection.purpose else { return };
        if result.is_err() {
            self.close(tag, None);
            return;
        }
        let greeting = self.peers.greeting(peer, &self.shard);
        self.queue(tag, greeting.encode());
        self.receive(tag, Vec::with_capacity(RECEIVE_BYTES));
    }

    /// Drops a connection; `why` is logged once, here.
    pub(super) fn close(&mut self, tag: Tag, why: Option<&str>) {
        let Some(connection) = self.connections.remove(tag) else { return };
        if let Some(why) = why {
            warn!(purpose = ?connection.purpose, why, "a connection is closed");
        }
        match connection.purpose {
            Purpose::Opening(peer) | Purpose::PeerOut(peer) => self.peers.lost(peer, self.now),
            Purpose::NewClient | Purpose::Client | Purpose::NewPeer | Purpose::PeerIn(_) => {}
        }
        if connection.is_watching {
            self.inputs.push(Input::StreamClosed { stream: StreamId(tag) });
        }
        self.ring.close(connection.socket);
    }

    /// Hands what is queued to the kernel, and closes what has ended or was silent for too long.
    fn send_and_expire(&mut self) {
        let mut restless = std::mem::take(&mut self.restless);
        self.connections.take_restless(&mut restless);
        for tag in restless.drain(..) {
            let Some(connection) = self.connections.get_mut(tag) else { continue };
            if let Some(pieces) = connection.pieces_to_send(Ring::send_pieces_max()) {
                self.ring.send(tag, connection.socket.as_raw_fd(), pieces);
            } else if connection.is_ending && connection.is_drained() {
                self.close(tag, None);
            }
        }
        self.restless = restless;
        for tag in self.connections.late(self.now) {
            self.close(tag, Some("it was silent for too long in the middle of something"));
        }
    }

    fn is_done(&self) -> bool {
        let leads = self.shard.observe().any(|replica| replica.leader == Some(self.member));
        // What is owed is still paid: answers on their way, and what the kernel has not taken yet.
        let is_drained = self.asked.is_empty() && self.connections.are_drained() && self.gateway.is_drained();
        self.stop_by.is_some_and(|stop_by| (!leads && is_drained) || self.now >= stop_by)
    }

    /// Takes what etcd clients have asked.
    fn take_from_gateway(&mut self) {
        let first = self.inputs.len();
        self.gateway.take(&mut self.inputs);
        for input in self.inputs.iter().skip(first) {
            if let Input::Client { request, .. } = input {
                self.stages.counts.requests += 1;
                if matches!(request, Request::Write { .. }) {
                    self.stages.write_arrived(self.now);
                }
            }
        }
    }

    fn hand_to_gateway(&mut self) {
        self.gateway.lead(self.shard.observe().any(|replica| replica.leader.is_some()));
        if !self.gateway.is_waiting() {
            return;
        }
        let replica = self.shard.observe().next();
        let (term, revision) =
            replica.map(|replica| (replica.hard_state.term, replica.revision)).unwrap_or_default();
        self.gateway.hand_over(self.shard.cluster(), term, revision);
    }

    /// Everything was handed over: lets the gateway send it, and end.
    fn end_gateway(mut self) {
        let thread = self.gateway_thread.take();
        drop(self);
        if let Some(thread) = thread {
            // What it could not do it has said.
            let _ = thread.join();
        }
    }

    /// How far the group has come that has come furthest.
    fn reached(&self) -> Reached {
        let reached = self.shard.observe().map(|replica| Reached {
            is_leader: replica.leader == Some(self.member),
            last: replica.last.index,
            acknowledged: replica.acknowledged,
            commit: replica.commit,
            applied: replica.applied,
        });
        reached.max_by_key(|reached| reached.last).unwrap_or_default()
    }

    /// The shard, for those who ask about it.
    pub(super) fn shard(&self) -> &Shard {
        &self.shard
    }

    /// The addresses really listened on: native, then peer.
    pub(super) fn addresses(&self) -> [String; 2] {
        [0, 1].map(|which| {
            crate::io::local_address(&self.listeners[which])
                .map_or_else(|_| String::new(), |it| it.to_string())
        })
    }
}

/// Where native clients and peers are listened to.
fn listeners(config: &ServerConfig) -> Result<[OwnedFd; 2], ServerError> {
    let listen = |address, vanished_millis| {
        crate::io::listen(address, vanished_millis).map_err(|source| ServerError::Listen { address, source })
    };
    Ok([
        listen(config.listen_native, CLIENT_VANISHED_MILLIS)?,
        listen(config.listen_peer, PEER_VANISHED_MILLIS)?,
    ])
}

/// Where etcd clients are listened to. `config` is told the address, if it left the choice of a port to the machine.
fn listen_for_clients(config: &mut ServerConfig) -> Result<TcpListener, ServerError> {
    let address = config.listen_client;
    let listener = crate::io::listen(address, CLIENT_VANISHED_MILLIS)
        .map(TcpListener::from)
        .map_err(|source| ServerError::Listen { address, source })?;
    config.listen_client = listener.local_addr().map_err(ServerError::Kernel)?;
    Ok(listener)
}

/// Pins this thread where it is to run.
fn take_place(placement: &Placement) {
    let Some(cpu) = placement.shard_cpu else { return };
    match crate::io::run_on(&[cpu]) {
        Ok(()) => info!(cpu, "the shard thread has a CPU to itself"),
        Err(error) => warn!(cpu, %error, "the shard thread runs where the kernel puts it"),
    }
}

/// As long as a new leader that was elected for want of one has waited anyway.
fn lease_terms(config: &ServerConfig) -> LeaseTerms {
    if config.reads_by_quorum {
        return LeaseTerms::NONE;
    }
    LeaseTerms::derived(config.election_ms * 1_000, LEADER_DRIFT_PPM)
}

fn shard_options(config: &ServerConfig, member: MemberId) -> Result<Options, ServerError> {
    let initial = config.initial_cluster.iter();
    Ok(Options {
        member,
        initial_members: initial.map(|it| member_id(&config.initial_cluster_token, &it.name)).collect(),
        election_micros: config.election_ms * 1_000,
        heartbeat_micros: config.heartbeat_ms * 1_000,
        lease: lease_terms(config),
        session_idle_micros: SESSION_IDLE_MICROS,
        waiting_max: usize::MAX,
        state_check_entries: STATE_CHECK_ENTRIES,
        quota_bytes: config.quota_bytes,
        watches: Bounds::SERVER,
        snapshots: SnapshotPolicy { entries: config.snapshot_entries, ..SnapshotPolicy::SERVER },
        segment_bytes: WAL_SEGMENT_BYTES,
        seed: crate::io::random_seed().map_err(ServerError::Kernel)?,
    })
}

/// Reads the log on another thread while this one restores snapshots: the first mostly waits for the disk, the second for the
/// processor. The state is made on this thread, in whose memory it stays.
fn read_all(
    directory: &DataDirectory,
    seed: u64,
    other_cpus: &[u32],
) -> Result<(Vec<SegmentFile>, Vec<FoundSnapshot>), ServerError> {
    thread::scope(|scope| {
        let segments = scope.spawn(|| {
            if !other_cpus.is_empty()
                && let Err(error) = crate::io::run_on(other_cpus)
            {
                warn!(?other_cpus, %error, "the log is read where the kernel puts the thread");
            }
            read_segments(directory)
        });
        let snapshots = read_snapshots(directory, seed);
        Ok((segments.join().expect("reading does not panic")?, snapshots?))
    })
}

/// Starts the threads that write, make and remove files: who is told of snapshots, and who of segments.
fn start_file_threads(
    directory: Arc<DataDirectory>,
    mailbox: &Mailbox,
    cpus: &[u32],
    last_used: &Arc<AtomicU64>,
) -> std::io::Result<(Sender<Task>, Sender<Order>)> {
    let removed = removal_thread::start(cpus.to_vec())?;
    let directory_too = Arc::clone(&directory);
    let tasks = snapshot_thread::start(directory_too, mailbox.clone(), removed.clone(), cpus.to_vec())?;
    let segment_bytes = WAL_SEGMENT_BYTES;
    let orders =
        bulk_thread::start(directory, segment_bytes, mailbox.clone(), removed, cpus.to_vec(), last_used)?;
    Ok((tasks, orders))
}

fn read_segments(directory: &DataDirectory) -> Result<Vec<SegmentFile>, ServerError> {
    let mut files = Vec::new();
    for name in directory.file_names()? {
        if let Some(segment) = wal_format::parse_segment_file_name(&name) {
            let bytes = directory.read(&name)?;
            files.push(SegmentFile { number: SegmentNumber(segment.number), salt: segment.salt, bytes });
        }
    }
    files.sort_by_key(|file| file.number);
    Ok(files)
}

/// Opens every segment for writing.
fn open_segments(
    directory: &DataDirectory,
    files: &[SegmentFile],
) -> Result<BTreeMap<SegmentNumber, OwnedFd>, ServerError> {
    let mut segments = BTreeMap::new();
    for file in files {
        let name = wal_format::SegmentName { shard: 0, number: file.number.0, salt: file.salt };
        let name = wal_format::segment_file_name(&name);
        segments.insert(file.number, directory.open_for_writing(&name)?);
    }
    Ok(segments)
}

/// Reads the newest sound snapshot of each group.
fn read_snapshots(directory: &DataDirectory, seed: u64) -> Result<Vec<FoundSnapshot>, ServerError> {
    let names = directory.file_names()?;
    let files: Vec<FileName> = names.iter().filter_map(|name| FileName::parse(name)).collect();
    let mut failed = None;
    let found = restore_newest(seed, &files, |file, offset, bytes_count| {
        directory.read_at(&file.text(), offset, bytes_count).map_err(|error| failed = Some(error)).ok()
    });
    // A file that cannot be read is passed over like a damaged one, but not if nothing is left.
    let is_any_restored = found.iter().any(|found| matches!(found.content, FoundContent::Restored(_)));
    if let Some(error) = failed.filter(|_| !is_any_restored) {
        return Err(error.into());
    }
    for found in &found {
        match &found.content {
            FoundContent::Restored(restored) => {
                info!(file = found.name.text(), index = restored.index().0, "a snapshot is restored");
            }
            FoundContent::Damaged(bad) => {
                warn!(file = found.name.text(), %bad, "a snapshot is damaged: the one before it is used");
            }
            FoundContent::Newer(_) | FoundContent::Unread | FoundContent::Unfinished => {}
        }
    }
    Ok(found)
}
