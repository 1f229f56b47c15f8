//! One run: a cluster, its clients and everything that happens to them, from one seed.
//!
//! ```text
//!   queue ──next event──> member ──turn──> outputs ──> disk, network, clients ──> queue
//!                            │
//!                            └─ after every event: the invariants of what it touched
//! ```
//!
//! A run has a phase of faults and a phase of liveness (`liveness`); then the clients' history is checked.
//! Always: the seed decides everything; nothing here reads a clock, a file or a global source of randomness.

use super::answered::Floors;
use super::client::{Clients, Contradiction};
use super::clock::TrueMicros;
use super::disk::DiskWrite;
use super::durable::DurableImage;
use super::events::{Event, Fault, Queue};
use super::fault_plan::FaultPlan;
use super::holders::Holders;
use super::invariants::{
    Broken, Seen, Truth, a_leader_with_a_dead_disk_steps_down, a_leader_without_a_majority_steps_down,
    an_ack_names_what_the_leader_holds, holds,
};
use super::member::{Making, Member};
use super::network::{Network, Shape, mangled};
use super::random::{Random, mix};
use super::served::Served;
use super::soak::Heights;
use super::storage_faults::Harm;
use super::tally::Tally;
use super::trace::Trace;
use super::watchers::Watchers;
use crate::api::Response;
use crate::auth::Who;
use crate::check::{Violation, picture};
use crate::client::retry::Setback;
use crate::ids::{MemberId, Term, Ticket};
use crate::peer::{self, Body};
use crate::raft::{AppendResult, Message, RoleName};
use crate::replica::{Input, Observation, Output};
use crate::sometimes;
use crate::sometimes::Marker;
use bytes::Bytes;

/// Before a segment that could not be made is tried again, as in a server.
const SEGMENT_RETRY_MICROS: u64 = 2_000_000;

/// How long a run goes on after its faults if its disks lost more than the promise covers.
const EXCEEDING_CALM_MICROS: u64 = 5_000_000;

/// More turns one after the other than any work takes that is done in slices.
const VAIN_TURNS_MAX: u32 = 20_000;

/// What a run is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// Everything follows from it.
    pub seed: u64,
    /// Simulated time with faults, before the liveness phase.
    pub faults_micros: u64,
}

impl RunOptions {
    /// A run of about `minutes` simulated minutes, the liveness phase included.
    pub const fn of_minutes(seed: u64, minutes: u64) -> Self {
        Self { seed, faults_micros: minutes * 60_000_000 - 6_000_000 }
    }
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The invariant that was broken.
    pub invariant: &'static str,
    /// The seed that does it again.
    pub seed: u64,
    /// When, in true time.
    pub at: TrueMicros,
    /// What was found.
    pub explanation: String,
    /// The part of the clients' history that shows it, if it is the history that is wrong.
    pub violation: Option<Box<Violation>>,
}

impl Failure {
    /// The impossible history as a page to look at, if it is the history that is wrong.
    pub fn picture(&self) -> Option<String> {
        let title = format!("seed {} broke {}", self.seed, self.invariant);
        self.violation.as_ref().map(|violation| picture(&title, violation))
    }
}

/// What happened in a run; to see whether a campaign tests anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Turns taken.
    pub turns: u64,
    /// Deaths of processes.
    pub crashes: u64,
    /// Crashes that left a part of a write.
    pub torn_writes: u64,
    /// Landed frames that came to harm.
    pub rotten_frames: u64,
    /// Members that recovered with a hole.
    pub holes: u64,
    /// Partitions.
    pub partitions: u64,
    /// Terms with a leader.
    pub leaders: u64,
    /// Entries committed.
    pub committed: u64,
    /// Committed retries of committed writes.
    pub copies: u64,
    /// Operations of clients that were answered.
    pub answered: u64,
    /// Writes that were given up as *not done*.
    pub not_done: u64,
    /// Operations that nobody knows the outcome of.
    pub unknown: u64,
    /// Histories of which the search for an order came to no end within its bound.
    pub undecided: u64,
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The simulated time it took.
    pub simulated: TrueMicros,
    /// What happened.
    pub counts: Counts,
    /// The faults that struck, by kind.
    pub faults: Tally,
    /// The rare events that were met, by name.
    pub markers: Tally,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

/// What can befall a message between a client and a member.
pub(super) enum Mishap {
    /// It does not arrive.
    Lost,
    /// It arrives as late as this.
    Late(TrueMicros),
}

/// The longest that such a message is late: as long as a client waits.
const CLIENT_LATE_MICROS_MAX: u64 = 5_000_000;

/// A run under way.
pub(super) struct Run {
    pub(super) options: RunOptions,
    pub(super) plan: FaultPlan,
    pub(super) now: TrueMicros,
    pub(super) queue: Queue,
    pub(super) network: Network,
    pub(super) members: Vec<Member>,
    pub(super) clients: Clients,
    pub(super) holders: Holders,
    pub(super) watchers: Watchers,
    pub(super) truth: Truth,
    pub(super) random: Random,
    pub(super) counts: Counts,
    pub(super) faults: Tally,
    pub(super) heights: [Heights; 2],
    /// The newest term whose leader was beset as it began, or spared.
    pub(super) leaders_considered: Term,
    pub(super) served: Served,
    pub(super) floors: Floors,
    outputs: Vec<Output>,
    pub(super) violation: Option<Box<Violation>>,
}

/// Runs one seed to its end, or to the first broken invariant.
pub fn run(options: RunOptions, trace: &mut Trace) -> Outcome {
    Run::new(options).finish(trace)
}

impl Run {
    fn new(options: RunOptions) -> Self {
        let plan = FaultPlan::draw(&mut random_of(options).fork());
        Self::with_plan(options, plan)
    }

    /// A run whose faults do not follow from its seed.
    pub(super) fn with_plan(options: RunOptions, plan: FaultPlan) -> Self {
        let mut random = random_of(options);
        // The fork from which a plan is drawn.
        let _ = random.fork();
        let mut queue = Queue::default();
        let network = Network::new(plan.members_count, random.fork());
        let session_idle_micros = if random.below(4) == 0 { 4_000_000 } else { 60_000_000 };
        let members = (1..=plan.members_count as u64)
            .map(|id| Member::new(MemberId(id), session_idle_micros, &mut random))
            .collect();
        let clients = Clients::new(&plan, random.fork(), &mut queue);
        let holders = Holders::new(&plan, random.fork(), &mut queue);
        let watchers = Watchers::new(&plan, random.fork(), &mut queue);
        Self {
            options,
            plan,
            now: TrueMicros(0),
            queue,
            network,
            members,
            clients,
            holders,
            watchers,
            truth: Truth::default(),
            random,
            counts: Counts::default(),
            faults: Tally::of(fault_names()),
            heights: <[Heights; 2]>::default(),
            leaders_considered: Term(0),
            served: Served::default(),
            floors: Floors::default(),
            outputs: Vec::new(),
            violation: None,
        }
    }

    /// Lives through all of it, and sums it up.
    pub(super) fn finish(mut self, trace: &mut Trace) -> Outcome {
        // What this thread passed before is another run's.
        sometimes::take().for_each(drop);
        let result = self.live_through(trace);
        self.sum_up(result)
    }

    pub(super) fn sum_up(mut self, result: Result<(), Broken>) -> Outcome {
        self.counts.leaders = self.truth.leaders_count() as u64;
        self.counts.committed = self.truth.committed_count();
        self.counts.copies = self.truth.witness.copies_count();
        let failure = result.err().map(|broken| Failure {
            invariant: broken.invariant,
            seed: self.options.seed,
            at: self.now,
            explanation: broken.explanation,
            violation: self.violation.take(),
        });
        let markers = markers_passed();
        Outcome { simulated: self.now, counts: self.counts, faults: self.faults, markers, failure }
    }

    /// How many completions each member's disk had before the faults ended.
    pub(super) fn completions_of_script(&self) -> Vec<u64> {
        self.members.iter().map(|member| member.completions_count).collect()
    }

    pub(super) fn live_through(&mut self, trace: &mut Trace) -> Result<(), Broken> {
        trace.record(self.now, [0; 4], format_args!("plan {:?}", self.plan));
        if self.plan.exceeds {
            self.faults.count("seed_exceeding_the_promise");
        }
        for member in 0..self.members.len() {
            let boot = self.members[member].boot;
            let delay = self.random.below(50_000);
            self.queue.plan(TrueMicros(delay), Event::Restart { member, boot });
        }
        for fault in Fault::ALL {
            self.plan_fault(fault);
        }
        self.plan_compaction();
        self.live_until(TrueMicros(self.options.faults_micros), trace)?;
        if self.plan.keeps_minority_down {
            if self.random.below(2) == 0 {
                let member = self.victim();
                self.separate(member, trace);
            }
            self.run_until_someone_campaigns(trace)?;
        }
        self.become_calm(trace)?;
        if self.plan.exceeds {
            // Nobody promises that it serves; but what it does serve is checked, calm or not.
            return self.run_until(self.now.after(EXCEEDING_CALM_MICROS), trace);
        }
        self.check_liveness(trace)?;
        self.check_watches()?;
        self.check_history()
    }

    /// Lets everything happen that is planned before `end`.
    pub(super) fn run_until(&mut self, end: TrueMicros, trace: &mut Trace) -> Result<(), Broken> {
        while let Some((at, event)) = self.queue.next_before(end) {
            self.now = at;
            self.happen(event, trace)?;
        }
        self.now = end;
        Ok(())
    }

    /// Lets the faults end in the middle of an election, if there is one soon: what it leaves is the hardest to mend.
    fn run_until_someone_campaigns(&mut self, trace: &mut Trace) -> Result<(), Broken> {
        let end = self.now.after(3_000_000);
        let campaigns = |member: &Member| {
            member.observed.as_ref().is_some_and(|observed| observed.role == RoleName::Candidate)
        };
        while !self.members.iter().any(campaigns) {
            let Some((at, event)) = self.queue.next_before(end) else {
                break;
            };
            self.now = at;
            self.happen(event, trace)?;
        }
        Ok(())
    }

    fn happen(&mut self, event: Event, trace: &mut Trace) -> Result<(), Broken> {
        match event {
            Event::Turn { member, boot } => self.turn_is_due(member, boot, trace),
            Event::Frame { from, to, connection, frame, has_waited } => {
                if !has_waited && let Some(at) = self.waits_for_resumption(to) {
                    self.queue.plan(at, Event::Frame { from, to, connection, frame, has_waited: true });
                    return Ok(());
                }
                self.frame_arrives((from, to), connection, frame, trace)
            }
            Event::WriteDone { member, boot } => self.write_is_done(member, boot, trace),
            Event::SegmentMade { member, boot } => self.segment_is_made(member, boot, trace),
            Event::FileDone { member, boot } => self.file_is_done(member, boot, trace),
            Event::Request { attempt } => self.request_arrives(attempt, trace),
            Event::Response { attempt, response } => self.response_arrives(attempt, *response, trace),
            Event::Impatience { attempt } => {
                self.clients.fail(self.now, attempt, Setback::TimedOut, &mut self.queue);
                Ok(())
            }
            Event::Broken { attempt } => {
                self.clients.fail(self.now, attempt, Setback::Lost, &mut self.queue);
                Ok(())
            }
            Event::Client { client, slot } => {
                self.clients.wake(self.now, (client, slot), &mut self.queue);
                Ok(())
            }
            Event::Holder { holder, step } => {
                self.holders.wake(self.now, (holder, step), &mut self.queue);
                Ok(())
            }
            Event::HolderRequest { ticket } => self.holder_request_arrives(ticket, trace),
            Event::Watch(event) => self.watch_happens(event, trace),
            Event::Compaction => self.compact(trace),
            Event::Fault(fault) => self.fault_strikes(fault, trace),
            Event::Heal { generation } => {
                self.network.heal(generation);
                Ok(())
            }
            Event::Flap { generation } => {
                self.flap(generation);
                Ok(())
            }
            Event::CutOff { member, term } => {
                self.cut_off(member, term, trace);
                Ok(())
            }
            Event::HealClients => {
                self.network.mend_clients();
                Ok(())
            }
            Event::Restart { member, boot } => self.restart(member, boot, trace),
        }
    }

    /// Puts an input before a member and plans the turn that takes it; or the member dies of it.
    pub(super) fn give(&mut self, member: usize, input: Input, trace: &mut Trace) -> Result<(), Broken> {
        if !self.members[member].is_up() {
            return Ok(());
        }
        if self.random.chance(self.plan.event_crash_chance) {
            return self.crash(member, trace);
        }
        let this = &mut self.members[member];
        this.inbox.push(input);
        let is_slow = this.slow_until > self.now;
        let turn_micros = self.plan.turn_micros * if is_slow { self.plan.slowness } else { 1 };
        let at = self.now.after(self.plan.wait(turn_micros, &mut self.random));
        self.plan_turn(member, at);
        Ok(())
    }

    pub(super) fn plan_turn(&mut self, member: usize, at: TrueMicros) {
        let this = &mut self.members[member];
        let at = at.max(this.paused_until).max(self.now);
        if at < this.turn_at {
            this.turn_at = at;
            let boot = this.boot;
            self.queue.plan(at, Event::Turn { member, boot });
        }
    }

    fn turn_is_due(&mut self, member: usize, boot: u32, trace: &mut Trace) -> Result<(), Broken> {
        let this = &mut self.members[member];
        if this.boot != boot || this.turn_at != self.now || !this.is_up() {
            return Ok(());
        }
        this.turn_at = TrueMicros(u64::MAX);
        if this.paused_until > self.now {
            self.plan_turn(member, self.now);
            return Ok(());
        }
        self.turn(member, trace)
    }

    fn turn(&mut self, member: usize, trace: &mut Trace) -> Result<(), Broken> {
        self.counts.turns += 1;
        let mut outputs = std::mem::take(&mut self.outputs);
        let this = &mut self.members[member];
        let boot_now = this.clock.read(self.now);
        this.hear_inbox(self.now);
        let Some(shard) = this.shard.as_mut() else {
            return Ok(());
        };
        let inputs_count = this.inbox.len() as u64;
        shard.turn(boot_now, &mut this.inbox, &mut outputs);
        let deadline = this.clock.when(shard.next_deadline());
        let is_vain = inputs_count == 0 && outputs.is_empty() && deadline <= self.now;
        this.vain_turns = if is_vain { this.vain_turns + 1 } else { 0 };
        holds(this.vain_turns < VAIN_TURNS_MAX, "a_member_comes_to_rest", || {
            format!(
                "{} took {VAIN_TURNS_MAX} turns in which nothing came in or out, and wants another",
                this.id
            )
        })?;
        let facts = [1 + 256 * member as u64, inputs_count, outputs.len() as u64, deadline.0];
        trace.record(
            self.now,
            facts,
            format_args!("{} turn: {inputs_count} in, {} out", this.id, outputs.len()),
        );
        self.observe(member, trace)?;
        // A process can die between any two of the things it wants done.
        let dies = self.random.chance(self.plan.event_crash_chance);
        for output in outputs.drain(..) {
            if !dies || self.random.below(2) == 0 {
                self.perform(member, output, trace)?;
            }
        }
        self.outputs = outputs;
        if dies {
            return self.crash(member, trace);
        }
        // A deadline in the past means now, and now must move.
        self.plan_turn(member, deadline.max(self.now.after(1)));
        Ok(())
    }

    /// Looks at a member after its turn and checks what must hold.
    pub(super) fn observe(&mut self, member: usize, trace: &mut Trace) -> Result<(), Broken> {
        let this = &self.members[member];
        let Some(after) = this.shard.as_ref().and_then(|shard| shard.observe().next()) else {
            return Ok(());
        };
        if !self.plan.exceeds {
            self.check_observed(member, &after)?;
            self.note_leases()?;
        }
        self.beset_new_leader(member, &after);
        let this = &self.members[member];
        let facts = [2, after.hard_state.term.0, after.commit.0, after.state_hash];
        trace.record(
            self.now,
            facts,
            format_args!(
                "{} {:?} term {} last {}/{} durable {} commit {} applied {} revision {}{}",
                this.id,
                after.role,
                after.hard_state.term,
                after.last.index,
                after.last.term,
                after.durable,
                after.commit,
                after.applied,
                after.revision,
                if after.has_hole { " with a hole" } else { "" }
            ),
        );
        let this = &mut self.members[member];
        let is_owed = after.durable < after.last.index;
        let counted_from = this.clock.counts_from(self.now);
        this.owed_since = is_owed.then(|| this.owed_since.unwrap_or((counted_from, after.last.index)));
        let led = |observed: &Observation| {
            observed.role == RoleName::Leader && observed.hard_state.term == after.hard_state.term
        };
        if !this.observed.as_ref().is_some_and(led) {
            this.led_since = counted_from;
        }
        this.is_rotten &= after.has_hole || !this.image.is_whole();
        this.observed = Some(after);
        Ok(())
    }

    fn check_observed(&mut self, member: usize, after: &Observation) -> Result<(), Broken> {
        let this = &self.members[member];
        let images: Vec<&DurableImage> = self.members.iter().map(Member::counting_image).collect();
        let seen = Seen {
            member: this.id,
            before: this.observed.as_ref(),
            after,
            record: &|index| this.record(index),
        };
        self.truth.check_turn(seen, &images)?;
        self.floors.note(self.now, self.truth.newest_revision());
        let election_micros = self.plan.election_micros;
        if let Some((since, log_end)) = this.owed_since {
            let waited_micros = self.now.0.saturating_sub(since.0);
            a_leader_with_a_dead_disk_steps_down(this.id, after, log_end, waited_micros, election_micros)?;
        }
        if this.observed.as_ref().is_some_and(|before| before.role == RoleName::Leader) {
            let unheard_micros = self.now.0.saturating_sub(this.majority_heard_at(member).0);
            a_leader_without_a_majority_steps_down(this.id, after, unheard_micros, election_micros)?;
        }
        Ok(())
    }

    fn perform(&mut self, member: usize, output: Output, trace: &mut Trace) -> Result<(), Broken> {
        match output {
            Output::Send { to, frame } => self.send(member, to, &frame, trace),
            Output::Write { segment, offset, frame, is_synced } => {
                let write = DiskWrite {
                    segment,
                    offset: usize::try_from(offset).unwrap_or(usize::MAX),
                    bytes: frame,
                    is_synced,
                };
                self.start_write(member, write, trace)
            }
            Output::RemoveSegment { segment, .. } => self.members[member].remove_segment(segment, &self.plan),
            Output::MakeSegment { segment, salt, recycled } => {
                let at = self.now.after(2 * self.disk_wait(member));
                let this = &mut self.members[member];
                this.making = Some(Making { segment, salt, recycled: recycled.map(|(old, _)| old) });
                let boot = this.boot;
                self.queue.plan(at, Event::SegmentMade { member, boot });
                Ok(())
            }
            Output::SnapshotFile { ticket, file, order } => self.order_of_file(member, (ticket, file, order)),
            Output::Reply { ticket, response } => self.reply(member, ticket, response, trace),
            Output::Tell { to, batch } => {
                self.tell(member, &to, &batch, trace);
                Ok(())
            }
            Output::EndWatch { to, why } => {
                self.end_watch(member, to, why, trace);
                Ok(())
            }
        }
    }

    fn send(&mut self, member: usize, to: MemberId, frame: &Bytes, trace: &mut Trace) -> Result<(), Broken> {
        let receiver = usize::try_from(to.0.wrapping_sub(1)).unwrap_or(usize::MAX);
        let from = self.members[member].id;
        holds(receiver < self.members.len() && receiver != member, "sends_go_to_other_members", || {
            format!("{from} sends to {to}")
        })?;
        if !self.plan.exceeds {
            self.check_send(member, receiver, frame, trace)?;
        }
        let (arrivals, connection) = self.network.send(&self.plan, self.now, member, receiver);
        let late_micros = self.lateness(frame);
        for at in arrivals.into_iter().flatten() {
            let at = at.after(late_micros);
            let event = Event::Frame {
                from: member,
                to: receiver,
                connection,
                frame: frame.clone(),
                has_waited: false,
            };
            self.queue.plan(at, event);
        }
        Ok(())
    }

    /// What leaves a member must be covered by what its disk holds.
    fn check_send(
        &mut self,
        member: usize,
        receiver: usize,
        frame: &Bytes,
        trace: &mut Trace,
    ) -> Result<(), Broken> {
        let (sender, leader) = (&self.members[member], &self.members[receiver]);
        let decoded = match peer::decode(frame) {
            Ok(decoded) => decoded,
            Err(damage) => {
                return holds(false, "what_is_sent_decodes", || format!("{} sent {damage}", sender.id));
            }
        };
        if trace.keeps_lines() {
            trace.record(
                self.now,
                [0; 4],
                format_args!("{} -> {}: {:?}", sender.id, leader.id, decoded.body),
            );
        } else {
            trace.record(self.now, [0; 4], format_args!(""));
        }
        let Body::Raft { message, records } = &decoded.body else {
            return Ok(());
        };
        self.truth.sessions.replication_sessions_never_mix(sender.id, leader.id, message)?;
        self.truth.what_is_carried_is_the_log(message, records)?;
        self.truth.nothing_leaves_before_it_is_durable(sender.id, leader.id, message, &sender.image)?;
        if let Message::AppendReply(reply) = message
            && let AppendResult::Matched { upto } = reply.result
            && let Some(observed) = &leader.observed
            && observed.role == RoleName::Leader
            && observed.hard_state.term == reply.term
        {
            let record = leader.record(upto);
            // An installed snapshot stands for what the log held below its end, which may have been another one's.
            let durable = sender.image.entry(upto).filter(|_| upto > sender.image.reset_upto());
            an_ack_names_what_the_leader_holds(sender.id, upto, durable, record.as_ref())?;
        }
        Ok(())
    }

    fn start_write(&mut self, member: usize, write: DiskWrite, trace: &mut Trace) -> Result<(), Broken> {
        let this = &mut self.members[member];
        let facts = [4, member as u64, write.segment.0, write.offset as u64];
        trace.record(
            self.now,
            facts,
            format_args!(
                "{} writes {} bytes at {}+{}",
                this.id,
                write.bytes.len(),
                write.segment,
                write.offset
            ),
        );
        if let Err(bad) = this.disk.start_write(write) {
            return holds(false, "one_sound_write_is_in_flight_at_a_time", || {
                format!("{}: {bad:?}", this.id)
            });
        }
        let at = self.now.after(self.disk_wait(member)).max(self.members[member].stalled_until);
        let boot = self.members[member].boot;
        self.queue.plan(at, Event::WriteDone { member, boot });
        Ok(())
    }

    /// How long a disk takes for one request.
    pub(super) fn disk_wait(&mut self, member: usize) -> u64 {
        let is_slow = self.members[member].disk_slow_until > self.now;
        let mean = self.plan.write_micros * if is_slow { self.plan.slowness } else { 1 };
        self.plan.wait(mean, &mut self.random)
    }

    /// A segment has been made, unless the disk is full: then it is tried again later, as a server does.
    fn segment_is_made(&mut self, member: usize, boot: u32, trace: &mut Trace) -> Result<(), Broken> {
        let this = &mut self.members[member];
        let Some(making) = this.making.filter(|_| this.boot == boot) else {
            return Ok(());
        };
        if this.disk_full_until > self.now {
            self.faults.count("segment_refused");
            let retry = self.now.after(SEGMENT_RETRY_MICROS).min(this.disk_full_until.after(1));
            self.queue.plan(retry, Event::SegmentMade { member, boot });
            return Ok(());
        }
        if self.is_crash_point(member, true) {
            return self.crash(member, trace);
        }
        let this = &mut self.members[member];
        this.making = None;
        let segment = making.segment;
        trace.record(
            self.now,
            [3, member as u64, segment.0, 0],
            format_args!("{segment} made at {}", this.id),
        );
        this.make(making, &self.plan)?;
        if self.is_crash_point(member, false) {
            return self.crash(member, trace);
        }
        self.give(member, Input::SegmentReady { segment }, trace)
    }

    /// Whether a member dies at this completion of its disk: while it is under way, or when it is done and not told.
    pub(super) fn is_crash_point(&mut self, member: usize, is_under_way: bool) -> bool {
        let this = &mut self.members[member];
        this.completions_count += u64::from(is_under_way && !self.plan.is_calm);
        let Some(point) = &mut this.dies_after else {
            return false;
        };
        // Further orders may be under way before the one that was counted to is done.
        if is_under_way {
            point.completions_left = point.completions_left.saturating_sub(1);
        }
        point.completions_left == 0 && point.is_torn == is_under_way
    }

    fn write_is_done(&mut self, member: usize, boot: u32, trace: &mut Trace) -> Result<(), Broken> {
        let this = &mut self.members[member];
        if this.boot != boot {
            return Ok(());
        }
        if this.stalled_until > self.now {
            self.queue.plan(this.stalled_until, Event::WriteDone { member, boot });
            return Ok(());
        }
        if !this.disk.is_writing() {
            return Ok(());
        }
        let is_sick = this.disk_sick_until > self.now && self.random.below(2) == 0;
        if is_sick {
            // The server stops at the first write that fails, and never tries it again (catalogue 41).
            self.faults.count("write_error");
        }
        if is_sick || self.is_crash_point(member, true) {
            return self.crash(member, trace);
        }
        let this = &mut self.members[member];
        let Some(write) = this.disk.complete_write() else {
            return Ok(());
        };
        this.owed_since = None;
        if write.is_synced {
            self.land(member, &write)?;
        }
        trace.record(self.now, [5, member as u64, 0, 0], format_args!("m{} write done", member + 1));
        if self.is_crash_point(member, false) {
            return self.crash(member, trace);
        }
        self.give(member, Input::Written, trace)
    }

    /// Takes a landed write into the member's durable image.
    pub(super) fn land(&mut self, member: usize, write: &DiskWrite) -> Result<(), Broken> {
        if self.plan.exceeds {
            // What a member makes of an impossible disk may contradict what was durable before.
            let _ = self.members[member].land(write);
            return Ok(());
        }
        let runs = self.members[member].land(write)?;
        if self.members[member].image.is_founded() {
            self.disturb_founding();
        }
        let taken = self.members[member].image.take_taken();
        let this = &self.members[member];
        self.truth.an_installed_snapshot_takes_nothing_committed_away(this.id, &taken)?;
        self.truth.a_vote_answers_a_request(this.id, this.image.term(), this.image.vote())?;
        for run in &runs {
            let first = run.previous.index.next();
            self.truth.equal_positions_mean_equal_logs(run.previous.term, first, &run.entries)?;
        }
        Ok(())
    }

    fn frame_arrives(
        &mut self,
        (from, to): (usize, usize),
        connection: u32,
        frame: Bytes,
        trace: &mut Trace,
    ) -> Result<(), Broken> {
        if !self.network.delivers(from, to, connection) {
            return Ok(());
        }
        trace.record(
            self.now,
            [6, from as u64, to as u64, frame.len() as u64],
            format_args!("m{} <- m{}", to + 1, from + 1),
        );
        self.deafen_who_ordered(from, &frame);
        let mut frame = frame;
        if self.random.chance(self.plan.mangling_chance) {
            // Its stream was cut in the middle, or carried a wrong bit: the receiver must notice, and hang up.
            self.faults.count("frame_mangled");
            frame = mangled(&frame, &mut self.random);
            self.network.reset(from, to);
        }
        self.members[to].greeted_by(from);
        let from = self.members[from].id;
        self.give(to, Input::Peer { from, frame }, trace)
    }

    fn request_arrives(&mut self, attempt: u64, trace: &mut Trace) -> Result<(), Broken> {
        let floor = self.truth.newest_revision();
        let Some(member) = self.clients.attempt(attempt).map(|attempt| attempt.member) else {
            return Ok(());
        };
        trace.record(
            self.now,
            [7, attempt, member as u64, 0],
            format_args!("request #{attempt} at m{}", member + 1),
        );
        if let Some(mishap) = self.mishap(!self.network.hears_clients(member), attempt) {
            if let Mishap::Late(at) = mishap {
                self.queue.plan(at, Event::Request { attempt });
            }
            return Ok(());
        }
        let this = &self.members[member];
        let boot = this.is_up().then_some(this.boot);
        let Some(request) = self.clients.arrive(self.now, attempt, boot, floor, &mut self.queue) else {
            return Ok(());
        };
        let input = Input::Client { ticket: Ticket(attempt), who: Who::Cluster, request };
        self.give(member, input, trace)
    }

    /// What befalls a message between the client of `attempt` and a member; nothing, mostly. The connection may break
    /// with it, and a message that had left may come through all the same, even when the two are cut apart meanwhile.
    pub(super) fn mishap(&mut self, is_cut: bool, attempt: u64) -> Option<Mishap> {
        if !is_cut && !self.random.chance(self.plan.client_loss_chance) {
            return None;
        }
        if !is_cut && self.random.below(2) == 0 {
            let at = self.now.after(self.random.waiting_time(1_000));
            self.queue.plan(at, Event::Broken { attempt });
        }
        let is_lost = self.random.below(2) == 0;
        let late_micros = self.random.magnitude(1_000, CLIENT_LATE_MICROS_MAX);
        Some(if is_lost { Mishap::Lost } else { Mishap::Late(self.now.after(late_micros)) })
    }

    fn response_arrives(
        &mut self,
        attempt: u64,
        response: Response,
        trace: &mut Trace,
    ) -> Result<(), Broken> {
        trace.record(self.now, [9, attempt, 0, 0], format_args!("answer to #{attempt} arrives"));
        if Holders::is_theirs(attempt) {
            self.holders.hear(self.now, attempt, &response, &mut self.queue);
            return Ok(());
        }
        match self.clients.hear(self.now, attempt, response, &mut self.queue) {
            Err(Contradiction(explanation)) if !self.plan.exceeds => {
                Err(Broken { invariant: "a_retry_gets_the_first_answer", explanation })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// All chance of a run.
fn random_of(options: RunOptions) -> Random {
    Random::new(mix(options.seed.wrapping_add(1)))
}

/// How often each marked place was passed in this thread since the run began.
fn markers_passed() -> Tally {
    let mut markers = Tally::of(Marker::ALL.iter().map(|marker| marker.name()));
    for (marker, count) in sometimes::take() {
        markers.count_many(marker.name(), count);
    }
    markers
}

/// Every kind of fault that a run counts.
fn fault_names() -> impl Iterator<Item = &'static str> {
    const OTHERS: [&str; 16] = [
        "order_to_campaign_late",
        "new_leader_cut_off",
        "process_died",
        "process_died_in_recovery",
        "write_torn",
        "write_error",
        "read_error",
        "segment_refused",
        "snapshot_order_failed",
        "snapshot_bit_flipped",
        "frame_mangled",
        "partition_flapping",
        "frame_harmed_beyond_the_promise",
        "disk_set_back",
        "disk_wiped_beyond_the_promise",
        "seed_exceeding_the_promise",
    ];
    let planned = Fault::ALL.iter().map(|fault| fault.name());
    let shapes = Shape::ALL.iter().map(|shape| shape.name());
    let harms = Harm::ALL.iter().map(|harm| harm.name());
    planned.chain(shapes).chain(harms).chain(OTHERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(seed: u64) -> RunOptions {
        RunOptions { seed, faults_micros: 4_000_000 }
    }

    #[test]
    fn one_seed_run_twice_leaves_one_trace() {
        let hash = |seed| {
            let mut trace = Trace::hashed();
            run(short(seed), &mut trace);
            (trace.hash(), trace.events_count())
        };
        assert_eq!(hash(3), hash(3));
        assert_ne!(hash(3), hash(4));
    }

    #[test]
    fn lines_change_nothing_and_are_equal_too() {
        let lines = || {
            let kept = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
            let sink = std::rc::Rc::clone(&kept);
            let mut trace = Trace::with_lines(Box::new(move |line| sink.borrow_mut().push(line)));
            run(short(5), &mut trace);
            drop(trace);
            kept.take()
        };
        assert_eq!(lines(), lines());
    }

    #[test]
    fn a_few_seeds_run_to_their_end_and_do_something() {
        let mut counts = Counts::default();
        for seed in 1..=6 {
            let outcome = run(short(seed), &mut Trace::hashed());
            assert_eq!(outcome.failure, None);
            counts = counts.plus(outcome.counts);
        }
        assert!(counts.crashes > 0 && counts.partitions > 0 && counts.answered > 500, "{counts}");
        assert!(counts.copies > 0 && counts.not_done > 0 && counts.unknown > 0, "{counts}");
    }
}
