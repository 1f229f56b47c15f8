//! Where the time of a write goes on this member, stage by stage, cheaply enough to be measured always.
//!
//! ```text
//!  request     log write begins,      write       a peer          a majority      answer      the kernel
//!  arrives     appends are sent       durable     acknowledges    has it          queued      has it
//!     ├─ queue ────┼─ log ──────────────┤            │               │               ├─ reply ────┤
//!                  ├─ network ───────────────────────┤               │
//!                  ├─ quorum ────────────────────────────────────────┤
//!                                                                    ├─ apply: the turn's computing
//! ```
//!
//! Instants are those of turns, so a stage costs no clock reading of its own (`apply` costs one a turn). Queue,
//! network and quorum are a leader's. Reads have no stages: they are timed as a whole, by how they were answered. Times are of the last one to two minutes; counters are since the start. Left
//! out: what single requests met with.

use crate::api::{Counter, Stage};
use crate::ids::{BootMicros, LogIndex};
use crate::limits::STAGE_WRITES_MAX;
use crate::replica::{ReadPath, ReadTime};
use hdrhistogram::Histogram;
use std::collections::VecDeque;

/// How long times are gathered before the oldest are let go.
const WINDOW_MICROS: u64 = 60_000_000;

/// The longest time that is told apart from longer ones.
const MICROS_MAX: u64 = 60_000_000;

/// Times of the current window and of the one before it.
#[derive(Debug)]
struct Recent {
    current: Histogram<u64>,
    previous: Histogram<u64>,
}

impl Recent {
    fn new() -> Self {
        let empty =
            || Histogram::new_with_max(MICROS_MAX, 2).expect("two digits up to a minute are possible");
        Self { current: empty(), previous: empty() }
    }

    fn record(&mut self, micros: u64, count: u64) {
        self.current.saturating_record_n(micros, count);
    }

    fn turn_over(&mut self) {
        std::mem::swap(&mut self.current, &mut self.previous);
        self.current.reset();
    }

    fn both(&self) -> Histogram<u64> {
        let mut both = self.current.clone();
        both.add(&self.previous).expect("both have the same bounds");
        both
    }

    fn stage(&self, name: &str) -> Stage {
        let both = self.both();
        Stage {
            name: name.to_owned(),
            count: both.len(),
            p50_micros: both.value_at_quantile(0.5),
            p99_micros: both.value_at_quantile(0.99),
            max_micros: both.max(),
        }
    }
}

/// How far the group has come, as a turn left it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) is_leader: bool,
    pub(super) last: LogIndex,
    /// What at least one other member has acknowledged.
    pub(super) acknowledged: LogIndex,
    pub(super) commit: LogIndex,
    pub(super) applied: LogIndex,
}

/// A log write and the appends that left with it.
#[derive(Clone, Copy, Debug)]
struct Batch {
    began: BootMicros,
    last: LogIndex,
}

/// The stages of one shard.
#[derive(Debug)]
pub(super) struct Stages {
    queue: Recent,
    log: Recent,
    network: Recent,
    quorum: Recent,
    apply: Recent,
    reply: Recent,
    /// How long reads took, and how many there were, by how they were answered.
    reads: [(ReadPath, Recent, u64); ReadPath::ALL.len()],
    turns_over_at: BootMicros,
    /// Writes that came in turns since the last log write began.
    arrived: Vec<(BootMicros, u64)>,
    unacknowledged: VecDeque<Batch>,
    uncommitted: VecDeque<Batch>,
    before: Reached,
    pub(super) counts: Counts,
}

/// What is only counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) turns: u64,
    pub(super) system_calls: u64,
    pub(super) requests: u64,
    pub(super) log_writes: u64,
    pub(super) log_bytes: u64,
    pub(super) peer_frames: u64,
    pub(super) receives: u64,
    pub(super) sends: u64,
    pub(super) watch_events: u64,
}

impl Stages {
    pub(super) fn new(now: BootMicros) -> Self {
        Self {
            queue: Recent::new(),
            log: Recent::new(),
            network: Recent::new(),
            quorum: Recent::new(),
            apply: Recent::new(),
            reply: Recent::new(),
            reads: ReadPath::ALL.map(|path| (path, Recent::new(), 0)),
            turns_over_at: now.after(WINDOW_MICROS),
            arrived: Vec::new(),
            unacknowledged: VecDeque::new(),
            uncommitted: VecDeque::new(),
            before: Reached::default(),
            counts: Counts::default(),
        }
    }

    /// A client's write came in.
    pub(super) fn write_arrived(&mut self, now: BootMicros) {
        let has_room = self.arrived.len() < STAGE_WRITES_MAX;
        match self.arrived.last_mut() {
            Some((at, count)) if *at == now => *count += 1,
            Some(_) | None if has_room => self.arrived.push((now, 1)),
            Some(_) | None => {}
        }
    }

    /// A log write begins, with everything up to the end of the log as of this turn.
    pub(super) fn log_write_began(&mut self, now: BootMicros, bytes: usize) {
        self.counts.log_writes += 1;
        self.counts.log_bytes += bytes as u64;
        for (at, count) in self.arrived.drain(..) {
            if self.before.is_leader {
                self.queue.record(now.since(at), count);
            }
        }
    }

    /// The log write that began then is durable now.
    pub(super) fn log_write_ended(&mut self, began: BootMicros, now: BootMicros) {
        self.log.record(now.since(began), 1);
    }

    /// An answer that was queued then is with the kernel now.
    pub(super) fn answer_left(&mut self, queued: BootMicros, now: BootMicros) {
        self.reply.record(now.since(queued), 1);
    }

    /// Reads were answered.
    pub(super) fn reads_answered(&mut self, time: ReadTime) {
        for (_, recent, total) in self.reads.iter_mut().filter(|(path, ..)| *path == time.path) {
            recent.record(time.micros, time.count);
            *total += time.count;
        }
    }

    /// A turn has ended: what it took to compute, and how far things have come.
    pub(super) fn turned(&mut self, now: BootMicros, took_micros: u64, reached: Reached) {
        self.counts.turns += 1;
        if reached.applied > self.before.applied {
            self.apply.record(took_micros, 1);
        }
        if !reached.is_leader {
            self.unacknowledged.clear();
            self.uncommitted.clear();
        } else if reached.last > self.before.last && self.uncommitted.len() < STAGE_WRITES_MAX {
            let batch = Batch { began: now, last: reached.last };
            self.unacknowledged.push_back(batch);
            self.uncommitted.push_back(batch);
        }
        settle(&mut self.unacknowledged, reached.acknowledged, now, &mut self.network);
        settle(&mut self.uncommitted, reached.commit, now, &mut self.quorum);
        self.before = reached;
        if now >= self.turns_over_at {
            self.turns_over_at = now.after(WINDOW_MICROS);
            for recent in self.all_mut() {
                recent.turn_over();
            }
            for (_, recent, _) in &mut self.reads {
                recent.turn_over();
            }
        }
    }

    fn all_mut(&mut self) -> [&mut Recent; 6] {
        [
            &mut self.queue,
            &mut self.log,
            &mut self.network,
            &mut self.quorum,
            &mut self.apply,
            &mut self.reply,
        ]
    }

    /// Half of the log's recent writes took no longer than the first, in microseconds, all but one in a hundred no
    /// longer than the second.
    pub(super) fn sync_micros(&self) -> (u64, u64) {
        let both = self.log.both();
        (both.value_at_quantile(0.5), both.value_at_quantile(0.99))
    }

    /// As `status` tells them.
    pub(super) fn stages(&self) -> Vec<Stage> {
        let writes = [
            self.queue.stage("queue"),
            self.log.stage("log"),
            self.network.stage("network"),
            self.quorum.stage("quorum"),
            self.apply.stage("apply"),
            self.reply.stage("reply"),
        ];
        let reads = self.reads.iter().map(|(path, recent, _)| recent.stage(&format!("read_{}", path.name())));
        writes.into_iter().chain(reads).collect()
    }

    /// As `status` tells them.
    pub(super) fn counters(&self) -> Vec<Counter> {
        let Counts {
            turns,
            system_calls,
            requests,
            log_writes,
            log_bytes,
            peer_frames,
            receives,
            sends,
            watch_events,
        } = self.counts;
        let named = [
            ("turns", turns),
            ("system_calls", system_calls),
            ("requests", requests),
            ("log_writes", log_writes),
            ("log_bytes", log_bytes),
            ("peer_frames", peer_frames),
            ("receives", receives),
            ("sends", sends),
            ("watch_events", watch_events),
        ];
        let named = named.into_iter().map(|(name, value)| Counter { name: name.to_owned(), value });
        let read = |(path, _, total): &(ReadPath, Recent, u64)| Counter {
            name: format!("reads_{}", path.name()),
            value: *total,
        };
        named.chain(self.reads.iter().map(read)).collect()
    }
}

/// Records every batch that `upto` covers, and lets it go.
fn settle(batches: &mut VecDeque<Batch>, upto: LogIndex, now: BootMicros, recent: &mut Recent) {
    while let Some(batch) = batches.pop_front_if(|batch| batch.last <= upto) {
        recent.record(now.since(batch.began), 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(last: u64, acknowledged: u64, commit: u64) -> Reached {
        Reached {
            is_leader: true,
            last: LogIndex(last),
            acknowledged: LogIndex(acknowledged),
            commit: LogIndex(commit),
            applied: LogIndex(commit),
        }
    }

    fn stage(stages: &Stages, name: &str) -> (u64, u64) {
        let stage = stages.stages().into_iter().find(|stage| stage.name == name).expect("it is there");
        (stage.count, stage.max_micros)
    }

    #[test]
    fn a_batch_is_timed_from_its_write_to_each_of_its_ends() {
        let mut stages = Stages::new(BootMicros(0));
        stages.turned(BootMicros(1), 5, reached(1, 1, 1));
        stages.write_arrived(BootMicros(10));
        stages.write_arrived(BootMicros(10));
        stages.write_arrived(BootMicros(20));
        stages.log_write_began(BootMicros(40), 4_096);
        stages.turned(BootMicros(40), 5, reached(4, 1, 1));
        assert_eq!(stage(&stages, "queue"), (3, 30));
        assert_eq!(stage(&stages, "network").0, 1, "the first batch only");
        stages.turned(BootMicros(90), 5, reached(4, 4, 1));
        stages.log_write_ended(BootMicros(40), BootMicros(100));
        stages.turned(BootMicros(100), 7, reached(4, 4, 4));
        assert_eq!(stage(&stages, "network"), (2, 50));
        assert_eq!(stage(&stages, "quorum"), (2, 60));
        assert_eq!(stage(&stages, "log"), (1, 60));
        assert_eq!(stage(&stages, "apply"), (2, 7));
    }

    #[test]
    fn a_member_that_leads_no_more_forgets_what_it_waited_for() {
        let mut stages = Stages::new(BootMicros(0));
        stages.turned(BootMicros(1), 5, reached(4, 0, 0));
        stages.turned(BootMicros(2), 5, Reached { is_leader: false, ..reached(4, 0, 0) });
        stages.turned(BootMicros(3), 5, reached(4, 4, 4));
        assert_eq!(stage(&stages, "quorum").0, 0);
    }

    #[test]
    fn reads_are_timed_and_counted_by_how_they_were_answered() {
        let mut stages = Stages::new(BootMicros(0));
        let time = |path, micros, count| ReadTime { path, micros, count };
        stages.reads_answered(time(ReadPath::Lease, 0, 5));
        stages.reads_answered(time(ReadPath::Follower, 700, 2));
        assert_eq!(stage(&stages, "read_lease"), (5, 0));
        assert_eq!(stage(&stages, "read_follower").0, 2);
        let counters = stages.counters();
        let counter = |name: &str| counters.iter().find(|counter| counter.name == name).map(|it| it.value);
        assert_eq!((counter("reads_lease"), counter("reads_quorum")), (Some(5), Some(0)));
    }

    #[test]
    fn times_older_than_two_windows_are_forgotten() {
        let mut stages = Stages::new(BootMicros(0));
        stages.log_write_ended(BootMicros(0), BootMicros(9));
        stages.turned(BootMicros(WINDOW_MICROS), 1, reached(0, 0, 0));
        assert_eq!(stage(&stages, "log"), (1, 9));
        stages.turned(BootMicros(2 * WINDOW_MICROS), 1, reached(0, 0, 0));
        assert_eq!(stage(&stages, "log").0, 0);
    }
}
