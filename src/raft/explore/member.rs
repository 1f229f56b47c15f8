//! One member and its disk, and the steps they take: the core itself, called as a replica calls it.
//!
//! A step is one turn with one input: the call, `flush`, and `persist` if no write is in flight. A write becomes durable
//! whole, in a later step. A crash loses the member and keeps the disk, with or without the write in flight.
//!
//! Always holds: the same step from the same member gives the same result, so each needs to be taken only once.

use super::super::node::Role;
use super::clock::{self, DUE, LATE, MARK, NOW, STALLED};
use super::terms::Terms;
use super::world::{ENTRY_BYTES, MEMBERS_COUNT};
use crate::ids::{BootMicros, LogIndex, MemberId};
use crate::limits::TURN_APPEND_BYTES_MAX;
use crate::raft::{Config, Entry, HardState, Message, Node, Output, Persist, RecoveredLog};

/// What is durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    pub(super) entries: Vec<Entry>,
}

/// A write on its way to the disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Frame {
    persist: Persist,
    entries: Vec<Entry>,
}

/// A member, its disk, and what is between them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Member {
    pub(super) node: Node,
    pub(super) disk: Disk,
    pub(super) writing: Option<Frame>,
}

/// A message with its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Letter {
    pub(super) from: MemberId,
    pub(super) to: MemberId,
    pub(super) message: Message,
}

/// Which timers of a member have run out when it looks at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Timers {
    /// Those that make it act.
    Due,
    /// And its disk has owed an answer for half an election timeout.
    Stalled,
    /// All of them.
    Late,
    /// The heartbeat's, and one follower (the first or the second other) was not heard for long.
    Silent(u8),
}

/// What a member may meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Event {
    /// The letter with this number arrives; late, if the leader was not heard for E before.
    Deliver {
        letter: u32,
        is_late: bool,
    },
    Tick(Timers),
    Propose,
    /// A linearizable read, the how manieth in this run.
    Read(u8),
    /// Leadership is to be handed to this member.
    Transfer(u8),
    /// The write in flight is durable.
    Sync,
    /// The member is lost and comes back; `has_landed`: the write in flight made it to the disk before.
    Crash {
        has_landed: bool,
    },
}

impl Disk {
    /// A write lands. There are no holes here, so a run always supersedes what is at and above its first entry.
    fn write(&mut self, frame: &Frame) {
        self.hard_state = frame.persist.hard_state;
        if let Some(run) = frame.persist.run {
            self.entries.retain(|entry| entry.index < run.first);
            self.entries.extend(&frame.entries);
        }
    }
}

impl Member {
    /// A member as it starts from its disk.
    pub(super) fn start(id: u64, disk: Disk) -> Self {
        let config = Config {
            id: MemberId(id),
            voters: (1..=MEMBERS_COUNT as u64).map(MemberId).collect(),
            election_micros: clock::ELECTION_MICROS,
            heartbeat_micros: clock::HEARTBEAT_MICROS,
            seed: clock::seed(id, disk.hard_state.term.0),
            noop_bytes: ENTRY_BYTES,
            lease_micros: 0,
            persist_bytes_max: TURN_APPEND_BYTES_MAX,
        };
        let recovered = RecoveredLog {
            hard_state: disk.hard_state,
            entries: disk.entries.clone(),
            ..RecoveredLog::default()
        };
        let mut node = Node::new(config, recovered, NOW);
        clock::settle(&mut node);
        Self { node, disk, writing: None }
    }

    /// Takes one step; `letter` is what a `Deliver` brings.
    pub(super) fn step(&mut self, event: Event, letter: Option<&Letter>, out: &mut Vec<Output>) {
        let now = instant(event);
        match event {
            Event::Deliver { .. } => {
                if let Some(letter) = letter {
                    self.node.receive(now, letter.from, letter.message.clone(), out);
                }
            }
            Event::Tick(timers) => {
                if let Timers::Silent(follower) = timers {
                    clock::silence(&mut self.node, usize::from(follower));
                }
                self.node.tick(now, out);
            }
            // A refusal is no step: nothing changes, and the exploration sees that.
            Event::Propose => {
                let _ = self.node.propose(now, &[ENTRY_BYTES]);
            }
            Event::Read(number) => {
                // Numbers of requests never repeat, also across boots: the core draws where it begins.
                self.node.last_read = u64::from(number);
                self.node.reads.next_request = u64::from(number) + 1;
                let _ = self.node.read(now);
            }
            Event::Transfer(to) => {
                let _ = self.node.transfer(now, MemberId(u64::from(to)), out);
            }
            Event::Sync => {
                if let Some(frame) = self.writing.take() {
                    self.disk.write(&frame);
                    self.node.persisted(now, MARK, out);
                }
            }
            Event::Crash { has_landed } => {
                if let Some(frame) = self.writing.take().filter(|_| has_landed) {
                    self.disk.write(&frame);
                }
                *self = Self::start(self.node.id.0, self.disk.clone());
            }
        }
        self.end_turn(now, out);
        self.node.assert_invariants();
        clock::settle(&mut self.node);
    }

    fn end_turn(&mut self, now: BootMicros, out: &mut Vec<Output>) {
        self.node.flush(now, out);
        if self.writing.is_some() {
            return;
        }
        if let Some(persist) = self.node.persist(now) {
            let entries = persist.run.map(|run| self.node.log.range(run.first, run.last).copied().collect());
            let persist = Persist { mark: MARK, ..persist };
            self.writing = Some(Frame { persist, entries: entries.unwrap_or_default() });
        }
    }

    /// The terms of the log in memory.
    pub(super) fn log(&self) -> Terms {
        Terms::of(self.node.log.range(LogIndex(1), self.node.last().index))
    }

    pub(super) fn durable_log(&self) -> Terms {
        Terms::of(&self.disk.entries)
    }

    pub(super) fn is_handing_over(&self) -> bool {
        matches!(&self.node.role, Role::Leader(leader) if leader.transfer.is_some())
    }
}

/// When an event happens, as its member sees it.
const fn instant(event: Event) -> BootMicros {
    match event {
        Event::Tick(Timers::Due | Timers::Silent(_)) => DUE,
        Event::Tick(Timers::Stalled) => STALLED,
        Event::Tick(Timers::Late) | Event::Deliver { is_late: true, .. } => LATE,
        Event::Deliver { is_late: false, .. }
        | Event::Propose
        | Event::Read(_)
        | Event::Transfer(_)
        | Event::Sync
        | Event::Crash { .. } => NOW,
    }
}
