//! What is going to happen, in the order in which it will.
//!
//! Always: events leave in the order of their true time, and those of one instant in the order in which they were
//! put in, so ties are settled the same way in every run of a seed.

use super::clock::TrueMicros;
use super::watchers::WatchEvent;
use crate::api::Response;
use crate::ids::Term;
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// One thing that will happen. Members and clients are named by their position, boots by their count, so that what
/// was meant for a process that died meanwhile can be told and dropped.
#[derive(Debug)]
pub(super) enum Event {
    /// A member should take a turn: inputs wait, or its deadline has come.
    Turn {
        /// Which member.
        member: usize,
        /// In which of its lives.
        boot: u32,
    },
    /// A peer's frame arrives.
    Frame {
        /// The sender.
        from: usize,
        /// The receiver.
        to: usize,
        /// The connection it was sent on; a reset since then has lost it.
        connection: u32,
        /// The bytes.
        frame: Bytes,
        /// Whether it has waited in the network for its receiver to go on after a pause.
        has_waited: bool,
    },
    /// The write in flight has landed.
    WriteDone {
        /// Which member's disk.
        member: usize,
        /// In which of its lives.
        boot: u32,
    },
    /// A segment has been made.
    SegmentMade {
        /// Which member's disk.
        member: usize,
        /// In which of its lives.
        boot: u32,
    },
    /// What was ordered of a snapshot's file is done.
    FileDone {
        /// Which member's disk.
        member: usize,
        /// In which of its lives.
        boot: u32,
    },
    /// A client's message arrives at the member it was sent to: a request, or what makes a connection for it.
    Request {
        /// Which attempt; it says the rest.
        attempt: u64,
    },
    /// A member's answer arrives at the client.
    Response {
        /// The attempt it answers.
        attempt: u64,
        /// What was said.
        response: Box<Response>,
    },
    /// A client has waited long enough for this attempt.
    Impatience {
        /// Which attempt.
        attempt: u64,
    },
    /// A client sees that the connection of this attempt is refused or broken.
    Broken {
        /// Which attempt.
        attempt: u64,
    },
    /// A client's slot starts its next operation, or its pause before the next attempt is over.
    Client {
        /// Which client.
        client: usize,
        /// Which of its slots.
        slot: usize,
    },
    /// A holder of leases asks for the next, or for its renewal, or waits no longer.
    Holder {
        /// Which holder.
        holder: usize,
        /// Which of its wakings; an outdated one is left alone.
        step: u64,
    },
    /// A holder's request arrives at its member.
    HolderRequest {
        /// Which; it says the rest.
        ticket: u64,
    },
    /// Something happens to a client that watches.
    Watch(WatchEvent),
    /// Somebody compacts.
    Compaction,
    /// Something goes wrong.
    Fault(Fault),
    /// Whatever cut links at this generation of partitions is mended.
    Heal {
        /// A later partition has a later generation and is left alone.
        generation: u32,
    },
    /// A leader is cut off from the others, if it still leads this term.
    CutOff {
        /// Which member.
        member: usize,
        /// Its term.
        term: Term,
    },
    /// A partition that comes and goes is lifted, or back.
    Flap {
        /// Which one.
        generation: u32,
    },
    /// Clients and members hear each other again.
    HealClients,
    /// A dead member starts again.
    Restart {
        /// Which member.
        member: usize,
        /// The life that ended.
        boot: u32,
    },
}

/// A kind of fault; when it strikes, the next one of its kind is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A process dies, with its machine.
    Crash,
    /// All of them at once.
    PowerCut,
    /// A process stands still, and wakes with stale timers.
    Pause,
    /// A process gets little of its processor.
    SlowProcessor,
    /// Members are separated.
    Partition,
    /// Clients are separated from members.
    ClientPartition,
    /// Links delay what they carry, then let all of it go.
    Clog,
    /// A connection is lost, with what is on its way.
    Reset,
    /// A connection is lost, and one end does not notice.
    HalfOpen,
    /// A disk completes nothing for a while.
    Stall,
    /// A disk is slow for a while.
    SlowDisk,
    /// A disk answers with errors for a while.
    DiskErrors,
    /// No segment can be made for a while.
    DiskFull,
    /// A clock stands still.
    Freeze,
    /// A leader is told to hand over.
    HandOver,
    /// A disk is lost.
    Wipe,
}

impl Fault {
    /// Every kind.
    pub(super) const ALL: [Self; 16] = [
        Self::Crash,
        Self::PowerCut,
        Self::Pause,
        Self::SlowProcessor,
        Self::Partition,
        Self::ClientPartition,
        Self::Clog,
        Self::Reset,
        Self::HalfOpen,
        Self::Stall,
        Self::SlowDisk,
        Self::DiskErrors,
        Self::DiskFull,
        Self::Freeze,
        Self::HandOver,
        Self::Wipe,
    ];
}

impl Fault {
    /// Its name in a report.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::PowerCut => "power_cut",
            Self::Pause => "pause",
            Self::SlowProcessor => "slow_processor",
            Self::Partition => "partition",
            Self::ClientPartition => "client_partition",
            Self::Clog => "clog",
            Self::Reset => "reset",
            Self::HalfOpen => "half_open",
            Self::Stall => "disk_stalled",
            Self::SlowDisk => "disk_slow",
            Self::DiskErrors => "disk_errors",
            Self::DiskFull => "disk_full",
            Self::Freeze => "clock_frozen",
            Self::HandOver => "hand_over",
            Self::Wipe => "disk_wiped",
        }
    }
}

/// The queue of events.
#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Planned>,
    planned_count: u64,
}

#[derive(Debug)]
struct Planned {
    at: TrueMicros,
    order: u64,
    event: Event,
}

impl Queue {
    /// Plans `event` for `at`.
    pub(super) fn plan(&mut self, at: TrueMicros, event: Event) {
        self.planned_count += 1;
        self.heap.push(Planned { at, order: self.planned_count, event });
    }

    /// Takes out the next event, if it comes before `end`.
    pub(super) fn next_before(&mut self, end: TrueMicros) -> Option<(TrueMicros, Event)> {
        if self.heap.peek()?.at >= end {
            return None;
        }
        self.heap.pop().map(|planned| (planned.at, planned.event))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        // Reversed: the heap gives its greatest first.
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Planned {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_instant_leave_in_the_order_they_came() {
        let mut queue = Queue::default();
        for (at, member) in [(5, 0), (3, 1), (5, 2), (3, 3)] {
            queue.plan(TrueMicros(at), Event::Turn { member, boot: 0 });
        }
        let mut order = Vec::new();
        while let Some((_, Event::Turn { member, .. })) = queue.next_before(TrueMicros(9)) {
            order.push(member);
        }
        assert_eq!(order, [1, 3, 0, 2]);
    }
}
