//! Bounded exhaustive exploration: every schedule of a small cluster of the core itself, breadth first, every truth
//! checked in every state (RELIABILITY §8). The core is the one that runs in a member, call for call.
//!
//! **What is explored.** Three members in a `World`: what their disks hold and what happened at the beginning, and how
//! many terms, entries, timers that run out, crashes and reads there may be. From each state every step is taken that a
//! member can take: one of its timers runs out, any message arrives, its write becomes durable, it is given something to
//! propose or read, it crashes and comes back from its disk, with or without the write that was in flight.
//!
//! **What is abstracted, and why nothing is lost by it.**
//!
//! | of the real thing | here |
//! |---|---|
//! | messages that are lost, doubled, late, out of order | the network is the set of all messages ever sent: each may arrive at any moment, again and again, or never |
//! | time | timers run out whenever they like, but only so often (`clock`) |
//! | random numbers | sessions are a function of leader and term; jitter is nothing without time |
//! | several inputs in one turn | one input a turn; more is gathered while a write is in flight |
//! | sizes, windows, read numbers | too small to fill anything; never repeated |
//! | members' names | where all begin alike, members act for the first time in the order of their names: every other run is one of these under other names |
//!
//! A message that its receiver has to drop for ever, because its disk holds a later term, is taken out of the set. Left
//! out: snapshots, damaged disks and the holes they leave (the random walks and the simulator have them), five members, and
//! whatever lies beyond the bounds.
//!
//! **How it is affordable.** A step depends on one member and one message alone. So members and messages are kept once
//! and have numbers (`table`), a step is taken once by the core and from then on looked up, and a state of the cluster
//! is 36 bytes. States are compared whole, not by fingerprints: none is overlooked because of a collision.

mod clock;
mod member;
mod table;
mod terms;
#[cfg(test)]
mod tests;
mod trace;
mod truths;
mod world;

pub use world::{DIVIDED, EMPTY, HANDED, LED, Prelude, READING, WHOLE, WORLDS, World};

use super::interface::{Output, RoleName};
use super::message::Message;
use crate::ids::MemberId;
use member::{Disk, Event, Letter, Member, Timers};
use std::panic::{AssertUnwindSafe, catch_unwind};
use table::Numbered;
use truths::{Broken, Face, Past};
use world::MEMBERS_COUNT;

/// A state of the cluster: numbers of members and of a set of letters, and what must be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    members: [u32; MEMBERS_COUNT],
    network: u32,
    past: Past,
}

/// What comes of a step of one member.
#[derive(Clone, Debug)]
struct Step {
    next: u32,
    /// Numbers of the letters that left.
    sent: Box<[u32]>,
    /// What else others must know of it.
    news: Box<[Output]>,
    broken: Option<Broken>,
}

/// How far an exploration has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Distinct states found.
    pub states: usize,
    /// Of those, how many had all their steps taken.
    pub expanded: usize,
    /// Steps that led somewhere.
    pub steps: u64,
    /// All states up to this many steps from the beginning had all their steps taken.
    pub depth: u32,
    /// Distinct members (their state, disk and write in flight).
    pub members: usize,
    /// Distinct messages.
    pub letters: usize,
}

/// A broken truth, and the shortest way to it.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The truth.
    pub truth: String,
    /// Steps to it.
    pub depth: u32,
    /// The steps, a line each.
    pub trace: Vec<String>,
}

/// What came of an exploration.
#[derive(Clone, Debug)]
pub struct Explored {
    /// How far it came.
    pub progress: Progress,
    /// Whether there is no state beyond those found: the world is explored to its end.
    pub is_complete: bool,
    /// The first truth found broken.
    pub violation: Option<Violation>,
}

/// Explores `world`, breadth first, until it ends, `states_max` states are known, a truth is broken, or `go_on` says no.
/// It is asked before each state is expanded.
pub fn explore(world: World, states_max: usize, mut go_on: impl FnMut(Progress) -> bool) -> Explored {
    let mut exploration = Exploration::new(world);
    let begun = exploration.begin();
    let violation = begun.and_then(|()| exploration.run(states_max, &mut go_on)).err();
    let progress = exploration.progress();
    let is_complete = violation.is_none() && progress.expanded == progress.states;
    Explored { progress, is_complete, violation }
}

/// No step: the member stays as it is and says nothing.
const NOTHING: u32 = u32::MAX;

struct Exploration {
    world: World,
    members: Numbered<Member>,
    /// Of each member, by number.
    faces: Vec<Face>,
    letters: Numbered<Letter>,
    networks: Numbered<Box<[u32]>>,
    /// Steps already taken; of each, by number, what came of it.
    taken: Numbered<(u32, Event)>,
    results: Vec<u32>,
    steps: Vec<Step>,
    /// A network and a step, and the network after it.
    sendings: Numbered<(u32, u32)>,
    sent: Vec<u32>,
    states: Numbered<State>,
    /// From which state each was first reached.
    parents: Vec<u32>,
    expanded: usize,
    depth: u32,
    steps_count: u64,
}

impl Exploration {
    fn new(world: World) -> Self {
        world.assert_is_small();
        Self {
            world,
            members: Numbered::new(),
            faces: Vec::new(),
            letters: Numbered::new(),
            networks: Numbered::new(),
            taken: Numbered::new(),
            results: Vec::new(),
            steps: Vec::new(),
            sendings: Numbered::new(),
            sent: Vec::new(),
            states: Numbered::new(),
            parents: Vec::new(),
            expanded: 0,
            depth: 0,
            steps_count: 0,
        }
    }

    /// Makes the first state: the world's disks, then its prelude.
    fn begin(&mut self) -> Result<(), Violation> {
        let members = [0, 1, 2].map(|at| {
            let (hard_state, entries) = self.world.disk(at);
            self.keep(Member::start(u64::from(id(at)), Disk { hard_state, entries }))
        });
        let (network, _) = self.networks.number(Box::default());
        let mut state = State { members, network, past: Past::default() };
        for prelude in self.world.prelude {
            let (at, event) = match *prelude {
                Prelude::Tick(at) => (at, Event::Tick(Timers::Due)),
                Prelude::Propose(at) => (at, Event::Propose),
            };
            let settled =
                self.successor(&state, at, event).and_then(|next| self.settle(next.unwrap_or(state)));
            state = settled.map_err(|truth| Violation { truth, depth: 0, trace: Vec::new() })?;
        }
        (state.network, state.past.ticks_count) = (network, 0);
        self.states.number(state);
        self.parents.push(0);
        Ok(())
    }

    /// Lets every message arrive and every write become durable, until that changes nothing any more.
    fn settle(&mut self, mut state: State) -> Result<State, Broken> {
        let mut events = Vec::new();
        loop {
            let before = state;
            self.events(&state, &mut events);
            for (at, event) in events.drain(..) {
                if let Event::Sync | Event::Deliver { is_late: false, .. } = event {
                    state = self.successor(&state, at, event)?.unwrap_or(state);
                }
            }
            if state == before {
                return Ok(state);
            }
        }
    }

    fn progress(&self) -> Progress {
        Progress {
            states: self.states.count(),
            expanded: self.expanded,
            steps: self.steps_count,
            depth: self.depth,
            members: self.members.count(),
            letters: self.letters.count(),
        }
    }

    fn run(&mut self, states_max: usize, go_on: &mut impl FnMut(Progress) -> bool) -> Result<(), Violation> {
        let mut events = Vec::new();
        let mut level_end = self.states.count();
        while self.expanded < self.states.count() {
            if self.states.count() >= states_max || !go_on(self.progress()) {
                return Ok(());
            }
            self.expand(u32::try_from(self.expanded).expect("states are numbered"), &mut events)?;
            self.expanded += 1;
            if self.expanded == level_end {
                level_end = self.states.count();
                self.depth += 1;
            }
        }
        Ok(())
    }

    /// Takes every step from a state.
    fn expand(&mut self, number: u32, events: &mut Vec<(usize, Event)>) -> Result<(), Violation> {
        let state = *self.states.get(number);
        self.events(&state, events);
        for (at, event) in events.drain(..) {
            let next = self.successor(&state, at, event);
            let Some(next) = next.map_err(|truth| self.violation(truth, number, (at, event)))? else {
                continue;
            };
            self.steps_count += 1;
            if self.states.number(next).1 {
                self.parents.push(number);
            }
        }
        Ok(())
    }

    /// Everything that can happen next, as far as the bounds allow it.
    fn events(&self, state: &State, events: &mut Vec<(usize, Event)>) {
        let may_act = self.may_act(state);
        for at in (0..MEMBERS_COUNT).filter(|at| may_act[*at]) {
            self.own_events(state, at, |event| events.push((at, event)));
        }
        for letter in self.networks.get(state.network) {
            let Letter { to, message, .. } = self.letters.get(*letter);
            let at = place(*to);
            if may_act[at] {
                events.push((at, Event::Deliver { letter: *letter, is_late: false }));
                // Only voters ask when they last heard a leader.
                if let Message::PreVoteRequest(_) | Message::VoteRequest(_) = message {
                    events.push((at, Event::Deliver { letter: *letter, is_late: true }));
                }
            }
        }
    }

    /// What can happen to one member without a message.
    fn own_events(&self, state: &State, at: usize, mut may: impl FnMut(Event)) {
        let (face, world, past) = (self.face(state.members[at]), &self.world, &state.past);
        if face.is_writing {
            may(Event::Sync);
        }
        if past.ticks_count < world.ticks_max {
            self.ticks(face, |timers| may(Event::Tick(timers)));
        }
        if face.role == RoleName::Leader {
            if face.log.last_index() < world.entries_max {
                may(Event::Propose);
            }
            if world.with_transfers && !face.is_handing_over {
                let others = (0..MEMBERS_COUNT).filter(|other| *other != at);
                others.for_each(|other| may(Event::Transfer(id(other))));
            }
        }
        if past.reads_count < world.reads_max && face.has_leader {
            may(Event::Read(past.reads_count));
        }
        if past.crashes_count < world.crashes_max {
            may(Event::Crash { has_landed: false });
            if face.is_writing {
                may(Event::Crash { has_landed: true });
            }
        }
    }

    /// Which timers of a member may run out. Who is in the last term does not campaign, but may give up.
    fn ticks(&self, face: &Face, mut may: impl FnMut(Timers)) {
        if face.role == RoleName::Leader {
            [Timers::Due, Timers::Late, Timers::Silent(0), Timers::Silent(1)].into_iter().for_each(&mut may);
        } else if face.term < self.world.terms_max {
            may(Timers::Due);
        }
        if face.is_writing {
            may(Timers::Stalled);
        }
    }

    /// Where members begin alike, the first step of each waits for that of the one before it.
    fn may_act(&self, state: &State) -> [bool; MEMBERS_COUNT] {
        let mut may_act = [true; MEMBERS_COUNT];
        if self.world.is_symmetric() {
            let beginning = self.states.get(0);
            for at in 1..MEMBERS_COUNT {
                let before = MemberId(at as u64);
                let has_changed = state.members[at - 1] != beginning.members[at - 1];
                may_act[at] = may_act[at - 1] && (has_changed || self.has_written(state.network, before));
            }
        }
        may_act
    }

    fn has_written(&self, network: u32, member: MemberId) -> bool {
        self.networks.get(network).iter().any(|letter| self.letters.get(*letter).from == member)
    }

    /// The state after a step; nothing if the step changes nothing or leads out of bounds.
    fn successor(&mut self, state: &State, at: usize, event: Event) -> Result<Option<State>, Broken> {
        let taken = self.step(state.members[at], event);
        if taken == NOTHING {
            return Ok(None);
        }
        let step = &self.steps[taken as usize];
        if let Some(truth) = &step.broken {
            return Err(truth.clone());
        }
        let mut next = *state;
        next.members[at] = step.next;
        let faces = next.members.map(|member| self.faces[member as usize]);
        let face = &faces[at];
        if face.term > self.world.terms_max {
            return Ok(None);
        }
        match event {
            Event::Read(_) => next.past.asked(),
            Event::Crash { .. } => next.past.crashes_count += 1,
            Event::Tick(_) => next.past.ticks_count += 1,
            Event::Deliver { .. } | Event::Propose | Event::Transfer(_) | Event::Sync => {}
        }
        for news in &step.news {
            match news {
                Output::Elected { noop } => next.past.elected(at, *noop, face)?,
                Output::ReadReady { request, index } => next.past.answered(*request, index.0)?,
                _ => {}
            }
        }
        next.past.committed_by(face, &faces)?;
        next.network = self.network_after(state.network, taken, face.durable_term);
        truths::of_state(&next.past, &faces)?;
        Ok(Some(next))
    }

    /// Takes a step, or remembers it.
    fn step(&mut self, member: u32, event: Event) -> u32 {
        let (number, is_new) = self.taken.number((member, event));
        if is_new {
            let step = self.take_step(member, event);
            let is_nothing = step.next == member && step.sent.is_empty() && step.broken.is_none();
            if is_nothing && step.news.is_empty() {
                self.results.push(NOTHING);
            } else {
                self.results.push(u32::try_from(self.steps.len()).expect("steps are numbered"));
                self.steps.push(step);
            }
        }
        self.results[number as usize]
    }

    fn take_step(&mut self, member: u32, event: Event) -> Step {
        let before = self.members.get(member);
        let letter =
            if let Event::Deliver { letter, .. } = event { Some(self.letters.get(letter)) } else { None };
        let walked = catch_unwind(AssertUnwindSafe(|| {
            let (mut after, mut out) = (before.clone(), Vec::new());
            after.step(event, letter, &mut out);
            let broken = truths::of_step(before, &after, event, letter, &out).err();
            (after, out, broken)
        }));
        let (after, out, broken) = match walked {
            Ok(walked) => walked,
            Err(panic) => {
                let broken = Some(format!("the core panicked: {}", trace::panic_text(panic.as_ref())));
                return Step { next: member, sent: Box::default(), news: Box::default(), broken };
            }
        };
        let from = after.node.id;
        let mut sent = Vec::new();
        let mut news = Vec::new();
        for output in out {
            match output {
                Output::Send { to, message } => {
                    sent.push(self.letters.number(Letter { from, to, message }).0);
                }
                Output::Elected { .. } | Output::ReadReady { .. } => news.push(output),
                Output::Superseded { .. }
                | Output::Accepted { .. }
                | Output::Deposed { .. }
                | Output::LeaseAges
                | Output::LeaderChanged { .. }
                | Output::Committed { .. }
                | Output::ReadChunk { .. }
                | Output::WriteChunk { .. }
                | Output::Rebased { .. }
                | Output::ReadFailed { .. } => {}
            }
        }
        let next = if broken.is_some() { member } else { self.keep(after) };
        Step { next, sent: sent.into(), news: news.into(), broken }
    }

    /// The number of a member.
    fn keep(&mut self, member: Member) -> u32 {
        let face = Face::of(&member);
        let (number, is_new) = self.members.number(member);
        if is_new {
            self.faces.push(face);
        }
        number
    }

    /// The network with what a step sent, and without what its member has to drop for ever.
    fn network_after(&mut self, network: u32, step: u32, durable_term: u64) -> u32 {
        let taken = &self.steps[step as usize];
        let (number, is_new) = self.sendings.number((network, step));
        if is_new {
            let reader = self.members.get(taken.next).node.id;
            let mut letters: Vec<u32> = self.networks.get(network).to_vec();
            letters.extend(&taken.sent);
            letters.retain(|letter| {
                let letter = self.letters.get(*letter);
                letter.to != reader || !is_void(&letter.message, durable_term)
            });
            letters.sort_unstable();
            letters.dedup();
            self.sent.push(self.networks.number(letters.into()).0);
        }
        self.sent[number as usize]
    }

    fn face(&self, member: u32) -> &Face {
        &self.faces[member as usize]
    }

    /// What is broken, with the way to it.
    fn violation(&mut self, truth: Broken, state: u32, last: (usize, Event)) -> Violation {
        let mut way = vec![state];
        while let Some(earlier) = way.last().filter(|state| **state != 0) {
            way.push(self.parents[*earlier as usize]);
        }
        way.reverse();
        let mut trace = vec![trace::beginning(&self.world)];
        for pair in way.windows(2) {
            let (before, after) = (*self.states.get(pair[0]), *self.states.get(pair[1]));
            let mut events = Vec::new();
            self.events(&before, &mut events);
            let led = |(at, event): &(usize, Event)| self.successor(&before, *at, *event) == Ok(Some(after));
            let event = events.into_iter().find(led);
            trace.extend(event.map(|(at, event)| self.tell(at, event)));
            trace.extend(event.map(|(at, _)| self.show(after.members[at])));
        }
        trace.push(self.tell(last.0, last.1));
        Violation { truth, depth: u32::try_from(way.len()).unwrap_or(u32::MAX), trace }
    }

    fn tell(&self, at: usize, event: Event) -> String {
        let letter =
            if let Event::Deliver { letter, .. } = event { Some(self.letters.get(letter)) } else { None };
        trace::event(id(at), event, letter)
    }

    fn show(&self, member: u32) -> String {
        trace::member(self.members.get(member))
    }
}

/// The member's place in a list of all.
fn place(member: MemberId) -> usize {
    usize::try_from(member.0 - 1).expect("members are 1, 2 and 3")
}

fn id(at: usize) -> u8 {
    u8::try_from(at + 1).expect("members are 1, 2 and 3")
}

/// Whether a member whose disk holds this term drops the message, now and for ever. Requests are not void: who asks in an
/// old term is told of the new one.
fn is_void(message: &Message, durable_term: u64) -> bool {
    match message {
        Message::PreVoteReply(reply) if reply.is_granted => reply.asked.0 <= durable_term,
        Message::PreVoteReply(_)
        | Message::VoteReply(_)
        | Message::AppendReply(_)
        | Message::TimeoutNow(_)
        | Message::ReadIndexReply(_)
        | Message::SnapshotReply(_) => message.term().0 < durable_term,
        Message::PreVoteRequest(_)
        | Message::VoteRequest(_)
        | Message::AppendRequest(_)
        | Message::ReadIndexRequest(_)
        | Message::FillRequest(_)
        | Message::FillReply(_)
        | Message::SnapshotChunk(_) => false,
    }
}
