//! What can go wrong in one run: each seed switches on a random subset of the faults, at random rates.
//!
//! Always: the plan follows from the seed alone. A run in which everything goes wrong at once makes no progress and
//! tests little, so every fault is off in most runs and, where on, mild more often than wild (RELIABILITY §3).
//! The liveness phase runs under `FaultPlan::without_faults`.

use super::events::Fault;
use super::random::Random;
use super::storage_faults::Harm;
use crate::limits::STATE_CHECK_ENTRIES;
use crate::replica::{LeaseTerms, SnapshotPolicy};

/// The rates of everything that can go wrong. Chances are parts per million, intervals are means in microseconds and
/// zero for never.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is a fault that is on or off, independent of the others
pub(super) struct FaultPlan {
    /// How many members: 3 mostly, sometimes 1 or 5.
    pub(super) members_count: usize,
    /// The members' election timeout E.
    pub(super) election_micros: u64,
    /// Two thirds of the longest lease that a member may have, in microseconds; 0 for no leases.
    pub(super) lease_micros: u64,
    /// The drift that leases are reckoned with.
    pub(super) lease_drift_ppm: u32,
    /// Whether orders to campaign are sent often, are late, and meet an old leader that hears nothing of what follows.
    pub(super) hands_over_badly: bool,
    /// New leaders that are cut off from the others, though not from clients, before these know what is committed.
    pub(super) cut_leader_chance: u32,
    /// The size of their segments.
    pub(super) segment_bytes: u64,
    /// Mean delay of a message between members.
    pub(super) delay_micros: u64,
    /// Messages whose delay is drawn from the tail, up to seconds.
    pub(super) tail_chance: u32,
    /// Messages lost.
    pub(super) loss_chance: u32,
    /// Messages that arrive twice.
    pub(super) duplication_chance: u32,
    /// Messages that arrive cut short or with a wrong bit, and are the last of their connection.
    pub(super) mangling_chance: u32,
    /// Partitions that come and go.
    pub(super) flapping_chance: u32,
    /// Whether messages may overtake each other.
    pub(super) is_reordering: bool,
    /// Messages between clients and members that are lost, either way.
    pub(super) client_loss_chance: u32,
    /// Whether new segments still hold what an old one held, as recycled files do.
    pub(super) is_recycling: bool,
    /// Whether the faults have ended.
    pub(super) is_calm: bool,
    /// Whether, once it is calm, every wait is exactly its mean: ties that no chance breaks.
    pub(super) is_lockstep: bool,
    /// Whether, once it is calm, a minority of the members stays down.
    pub(super) keeps_minority_down: bool,
    /// Mean duration of one write.
    pub(super) write_micros: u64,
    /// Mean length of a stall of one disk.
    pub(super) stall_micros: u64,
    /// Mean delay between an input and the turn that takes it.
    pub(super) turn_micros: u64,
    /// Mean length of a pause of one process.
    pub(super) pause_micros: u64,
    /// Mean length of a time in which a processor or a disk is slow, a disk full or failing, or a clock stands still.
    pub(super) trouble_micros: u64,
    /// By how much the slow ones are slower.
    pub(super) slowness: u64,
    /// Mean time for which a crashed member stays down.
    pub(super) down_micros: u64,
    /// Mean length of a clog.
    pub(super) clog_micros: u64,
    /// Mean length of a partition.
    pub(super) partition_micros: u64,
    /// The bound on clock drift.
    pub(super) drift_ppm: u32,
    /// Crashes of a member as any event reaches it, before or after the turn, or half-way through its outputs.
    pub(super) event_crash_chance: u32,
    /// Crashes in which old frames turn out damaged, as far as the promise allows.
    pub(super) rot_chance: u32,
    /// How they are damaged: one bit for each kind of `Harm`.
    pub(super) harms: u32,
    /// Restarts in which the member dies again at once, or after a few completions of its disk.
    pub(super) nested_crash_chance: u32,
    /// Whether a disk is lost when some members are founded and others perhaps not.
    pub(super) wipes_while_founding: bool,
    /// Whether somebody compacts now and then.
    pub(super) compacts: bool,
    /// How many bytes the keyspace may take; 0 for any number.
    pub(super) quota_bytes: u64,
    /// Whether disks suffer more than the promise covers. Then only what is served is checked.
    pub(super) exceeds: bool,
    /// How many requests may wait at a member for one thing.
    pub(super) waiting_max: usize,
    /// After how many entries members compare their states.
    pub(super) state_check_entries: u64,
    /// When members cut snapshots, and what they keep of their logs.
    pub(super) snapshots: SnapshotPolicy,
    /// Whether it is steady work for a long time, in which nothing may grow.
    pub(super) is_steady: bool,
    /// How many times as long as usual everyone waits before asking for more.
    pub(super) pace: u64,
    /// Mean interval of each kind of planned fault.
    pub(super) intervals: [u64; Fault::ALL.len()],
}

const SECOND: u64 = 1_000_000;

/// Of so many seeds, one does more to the disks than the promise covers.
const EXCEEDING_SEEDS: u64 = 8;

/// Of so many seeds, one dwells on snapshots.
const SNAPSHOT_SEEDS: u64 = 5;

impl FaultPlan {
    /// The plan of one seed; `random` is a fork of that seed's generator.
    pub(super) fn draw(random: &mut Random) -> Self {
        let mut plan = Self::without_faults(match random.below(20) {
            0 => 1,
            1 | 2 => 5,
            _ => 3,
        });
        plan.election_micros = random.between(100_000, 300_000);
        plan.segment_bytes = (128 * 1_024) << random.below(5);
        plan.draw_network(random);
        plan.draw_disk(random);
        plan.draw_process(random);
        plan.is_recycling = random.below(4) == 0;
        plan.is_lockstep = random.below(5) == 0;
        plan.keeps_minority_down = random.below(2) == 0;
        plan.wipes_while_founding = random.below(10) == 0;
        plan.exceeds = random.below(EXCEEDING_SEEDS) == 0;
        plan.compacts = random.below(3) == 0;
        if random.below(4) == 0 {
            plan.quota_bytes = random.magnitude(30_000, 1_000_000);
            plan.compacts |= random.below(2) == 0;
        }
        if plan.exceeds {
            plan.rot_chance = plan.rot_chance.max(400_000);
            plan.keeps_minority_down = false;
        }
        if random.below(2) == 0 {
            plan.snapshots = often(random);
        }
        if random.below(SNAPSHOT_SEEDS) == 0 {
            plan.dwell_on_snapshots(random);
        }
        if random.below(2) == 0 {
            plan.draw_leases(random);
        }
        if random.below(4) == 0 {
            plan.waiting_max = usize::try_from(random.magnitude(3, 30)).unwrap_or(usize::MAX);
        }
        // A snapshot waits for the next comparison, once there was one; in half of the seeds that is late in the run.
        if random.below(2) == 0 {
            plan.state_check_entries = random.magnitude(8, STATE_CHECK_ENTRIES);
        }
        plan
    }

    /// Members that are cut off or down again and again, behind logs so short that whoever comes back needs a snapshot,
    /// of which another is cut before it has it all; and that die while they write or take one.
    fn dwell_on_snapshots(&mut self, random: &mut Random) {
        self.members_count = self.members_count.max(3);
        self.snapshots = SnapshotPolicy {
            entries: random.magnitude(3, 60),
            patience_bytes: 0,
            micros: random.magnitude(SECOND / 10, 3 * SECOND),
            hot_entries: random.magnitude(1, 10),
            hot_bytes: random.magnitude(500, 10_000),
            bytes_per_second: random.magnitude(20_000, 2_000_000),
            piece_bytes: 4_096,
            retry_micros: random.magnitude(10_000, SECOND / 5),
            ..often(random)
        };
        self.down_micros = random.magnitude(50_000, SECOND);
        self.partition_micros = random.magnitude(100_000, SECOND);
        self.delay_micros = self.delay_micros.min(5_000);
        self.write_micros = self.write_micros.min(5_000);
        self.duplication_chance = self.duplication_chance.max(rate(random, 5_000, 300_000));
        if random.below(2) == 0 {
            // Its log goes on, against that of the others, who cut snapshots.
            self.cut_leader_chance = rate(random, 100_000, 600_000);
        }
        for (kind, interval) in Fault::ALL.iter().zip(&mut self.intervals) {
            match kind {
                Fault::Crash | Fault::Partition => *interval = random.magnitude(SECOND / 3, 3 * SECOND),
                Fault::HandOver => *interval = random.magnitude(SECOND, 10 * SECOND),
                Fault::PowerCut
                | Fault::Pause
                | Fault::SlowProcessor
                | Fault::ClientPartition
                | Fault::Clog
                | Fault::Reset
                | Fault::HalfOpen
                | Fault::Stall
                | Fault::SlowDisk
                | Fault::DiskErrors
                | Fault::DiskFull
                | Fault::Freeze
                | Fault::Wipe => {}
            }
        }
    }

    /// A plan in which nothing goes wrong.
    pub(super) fn without_faults(members_count: usize) -> Self {
        Self {
            members_count,
            election_micros: 200_000,
            lease_micros: 0,
            lease_drift_ppm: 0,
            hands_over_badly: false,
            cut_leader_chance: 0,
            segment_bytes: 1_024 * 1_024,
            delay_micros: 200,
            tail_chance: 0,
            loss_chance: 0,
            duplication_chance: 0,
            mangling_chance: 0,
            flapping_chance: 0,
            is_reordering: false,
            client_loss_chance: 0,
            is_recycling: false,
            is_calm: false,
            is_lockstep: false,
            keeps_minority_down: false,
            write_micros: 300,
            stall_micros: 0,
            turn_micros: 30,
            pause_micros: 0,
            trouble_micros: 0,
            slowness: 1,
            down_micros: SECOND,
            clog_micros: 0,
            partition_micros: 0,
            drift_ppm: 100,
            event_crash_chance: 0,
            rot_chance: 0,
            harms: 0,
            nested_crash_chance: 0,
            wipes_while_founding: false,
            compacts: false,
            quota_bytes: 0,
            exceeds: false,
            waiting_max: usize::MAX,
            state_check_entries: STATE_CHECK_ENTRIES,
            snapshots: SnapshotPolicy::SERVER,
            is_steady: false,
            pace: 1,
            intervals: [0; Fault::ALL.len()],
        }
    }

    /// The same members on the same clocks, with every fault off, for the liveness phase.
    #[must_use]
    pub(super) fn calmed(&self) -> Self {
        Self {
            election_micros: self.election_micros,
            lease_micros: self.lease_micros,
            lease_drift_ppm: self.lease_drift_ppm,
            segment_bytes: self.segment_bytes,
            drift_ppm: if self.is_lockstep { 0 } else { self.drift_ppm },
            is_recycling: self.is_recycling,
            is_calm: true,
            is_lockstep: self.is_lockstep,
            keeps_minority_down: self.keeps_minority_down,
            quota_bytes: self.quota_bytes,
            exceeds: self.exceeds,
            waiting_max: self.waiting_max,
            state_check_entries: self.state_check_entries,
            snapshots: self.snapshots,
            pace: self.pace,
            ..Self::without_faults(self.members_count)
        }
    }

    /// How long a member leases while it leads in one boot: members differ, and boots, as if each had an option of its own.
    pub(super) fn lease(&self, random: &mut Random) -> LeaseTerms {
        if self.lease_micros == 0 {
            return LeaseTerms::NONE;
        }
        let micros = self.lease_micros * random.between(1, 6) / 4;
        LeaseTerms { micros, drift_ppm: self.lease_drift_ppm }
    }

    /// Leaders lease, and no clock stands still: that is beyond what leases promise.
    fn draw_leases(&mut self, random: &mut Random) {
        self.lease_micros = random.between(self.election_micros / 2, 2 * self.election_micros);
        self.lease_drift_ppm = self.drift_ppm;
        self.set_interval(Fault::Freeze, 0);
        self.hands_over_badly = random.below(5) == 0;
        if self.hands_over_badly {
            self.set_interval(Fault::HandOver, random.magnitude(SECOND / 4, 2 * SECOND));
        } else if random.below(3) == 0 {
            // Elections among whoever holds what the leader begins with, and does not know that it is committed; so soon
            // that its lease may still last.
            self.election_micros = 300_000;
            self.lease_micros = 2 * self.election_micros;
            self.cut_leader_chance = rate(random, 400_000, 800_000);
            self.delay_micros = self.delay_micros.min(2_000);
            self.write_micros = self.write_micros.min(2_000);
            self.turn_micros = self.turn_micros.min(200);
        }
    }

    fn set_interval(&mut self, fault: Fault, micros: u64) {
        for (kind, interval) in Fault::ALL.iter().zip(&mut self.intervals) {
            if *kind == fault {
                *interval = micros;
            }
        }
    }

    /// A wait of about `mean`; of exactly that in lockstep.
    pub(super) fn wait(&self, mean: u64, random: &mut Random) -> u64 {
        let is_exact = self.is_lockstep && self.is_calm;
        if is_exact { mean } else { random.waiting_time(mean) }
    }

    /// The same plan with this fault at this mean interval.
    #[must_use]
    pub(super) fn with_interval(mut self, fault: Fault, micros: u64) -> Self {
        for (kind, interval) in Fault::ALL.iter().zip(&mut self.intervals) {
            if *kind == fault {
                *interval = micros;
            }
        }
        self
    }

    /// The mean interval of `fault`; zero for never.
    pub(super) fn interval(&self, fault: Fault) -> u64 {
        Fault::ALL
            .iter()
            .position(|kind| *kind == fault)
            .and_then(|at| self.intervals.get(at))
            .copied()
            .unwrap_or(0)
    }

    fn draw_network(&mut self, random: &mut Random) {
        self.delay_micros = random.magnitude(100, 50_000);
        if random.below(3) == 0 {
            self.tail_chance = rate(random, 100, 50_000);
        }
        if random.below(2) == 0 {
            self.loss_chance = rate(random, 500, 300_000);
        }
        if random.below(3) == 0 {
            self.duplication_chance = rate(random, 5_000, 500_000);
        }
        if random.below(4) == 0 {
            self.mangling_chance = rate(random, 100, 20_000);
        }
        if random.below(2) == 0 {
            self.flapping_chance = rate(random, 50_000, 600_000);
        }
        self.is_reordering = random.below(2) == 0;
        if random.below(2) == 0 {
            self.client_loss_chance = rate(random, 1_000, 100_000);
        }
    }

    fn draw_disk(&mut self, random: &mut Random) {
        self.write_micros = random.magnitude(100, 20_000);
        self.stall_micros = random.magnitude(20_000, 15 * SECOND);
        if random.below(2) == 0 {
            self.rot_chance = rate(random, 100_000, 800_000);
        }
        let harms_count = Harm::ALL.len() as u64;
        self.harms = u32::try_from(random.between(1, (1 << harms_count) - 1)).unwrap_or(1);
    }

    fn draw_process(&mut self, random: &mut Random) {
        self.turn_micros = random.magnitude(10, 2_000);
        self.pause_micros = random.magnitude(1_000, 15 * SECOND);
        self.trouble_micros = random.magnitude(50_000, 10 * SECOND);
        self.slowness = random.magnitude(3, 300);
        self.down_micros = random.magnitude(20_000, 5 * SECOND);
        self.partition_micros = random.magnitude(50_000, 8 * SECOND);
        self.clog_micros = random.magnitude(20_000, 3 * SECOND);
        self.drift_ppm = u32::try_from(random.magnitude(10, 50_000)).unwrap_or(0);
        if random.below(2) == 0 {
            self.event_crash_chance = rate(random, 20, 800);
        }
        if random.below(3) == 0 {
            self.nested_crash_chance = rate(random, 10_000, 400_000);
        }
        for (kind, interval) in Fault::ALL.iter().zip(&mut self.intervals) {
            *interval = match kind {
                Fault::Crash | Fault::Partition if random.below(2) == 0 => {
                    random.magnitude(SECOND, 15 * SECOND)
                }
                Fault::PowerCut if random.below(3) == 0 => random.magnitude(4 * SECOND, 40 * SECOND),
                Fault::Pause | Fault::Stall if random.below(3) == 0 => random.magnitude(SECOND, 20 * SECOND),
                Fault::ClientPartition | Fault::DiskErrors if random.below(4) == 0 => {
                    random.magnitude(2 * SECOND, 30 * SECOND)
                }
                Fault::SlowProcessor | Fault::SlowDisk | Fault::DiskFull | Fault::Freeze
                    if random.below(4) == 0 =>
                {
                    random.magnitude(SECOND, 30 * SECOND)
                }
                Fault::HalfOpen if random.below(3) == 0 => random.magnitude(SECOND, 10 * SECOND),
                Fault::Clog if random.below(3) == 0 => random.magnitude(SECOND / 2, 10 * SECOND),
                Fault::Reset if random.below(2) == 0 => random.magnitude(SECOND / 5, 10 * SECOND),
                Fault::HandOver if random.below(3) == 0 => random.magnitude(SECOND, 15 * SECOND),
                Fault::Wipe if random.below(12) == 0 => random.magnitude(SECOND, 60 * SECOND),
                Fault::Crash
                | Fault::PowerCut
                | Fault::Pause
                | Fault::SlowProcessor
                | Fault::Partition
                | Fault::ClientPartition
                | Fault::Clog
                | Fault::Reset
                | Fault::HalfOpen
                | Fault::Stall
                | Fault::SlowDisk
                | Fault::DiskErrors
                | Fault::DiskFull
                | Fault::Freeze
                | Fault::HandOver
                | Fault::Wipe => 0,
            };
        }
    }
}

/// Snapshots so often, and logs so short, that members fall behind them.
fn often(random: &mut Random) -> SnapshotPolicy {
    let policy = SnapshotPolicy {
        entries: random.magnitude(5, 500),
        log_bytes: random.magnitude(10_000, 10_000_000),
        patience_bytes: random.magnitude(1_000, 1_000_000),
        micros: random.magnitude(SECOND / 2, 30 * SECOND),
        hot_entries: random.magnitude(1, 100),
        hot_bytes: random.magnitude(1_000, 1_000_000),
        bytes_per_second: random.magnitude(50_000, 50_000_000),
        piece_bytes: 4_096 << random.below(5),
        retry_micros: random.magnitude(10_000, 2 * SECOND),
        ..SnapshotPolicy::SERVER
    };
    // Short, and few, so that there are several.
    SnapshotPolicy { chunk_bytes: policy.piece_bytes, trim_entries: 2 * policy.hot_entries, ..policy }
}

fn rate(random: &mut Random, low: u64, high: u64) -> u32 {
    u32::try_from(random.magnitude(low, high)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_on_in_some_seeds_and_off_in_others() {
        let plans: Vec<_> = (0..300).map(|seed| FaultPlan::draw(&mut Random::new(seed))).collect();
        for kind in Fault::ALL {
            assert!(plans.iter().any(|plan| plan.interval(kind) > 0), "{kind:?} is sometimes on");
            assert!(plans.iter().any(|plan| plan.interval(kind) == 0), "{kind:?} is sometimes off");
        }
        for count in [1, 3, 5] {
            assert!(plans.iter().any(|plan| plan.members_count == count));
        }
        assert!(plans.iter().any(|plan| plan.cut_leader_chance > 0 && plan.lease_micros > 0));
        assert!(
            plans.iter().any(|plan| plan.waiting_max < 8) && plans.iter().any(|plan| plan.waiting_max > 100)
        );
        assert!(plans.iter().any(|plan| plan.state_check_entries < 32));
        assert!(plans.iter().any(|plan| plan.loss_chance == 0));
        assert!(plans.iter().any(|plan| plan.loss_chance > 100_000));
        for harm in Harm::ALL {
            assert!(plans.iter().any(|plan| harm.is_in(plan.harms)));
            assert!(plans.iter().any(|plan| !harm.is_in(plan.harms)));
        }
        let exceeding = plans.iter().filter(|plan| plan.exceeds).count();
        assert!((10..80).contains(&exceeding), "{exceeding} of 300 plans exceed the promise");
    }

    #[test]
    fn a_calmed_plan_has_no_faults() {
        let plan = FaultPlan::draw(&mut Random::new(5));
        assert!(Fault::ALL.iter().all(|kind| plan.calmed().interval(*kind) == 0));
        assert_eq!(plan.calmed().loss_chance, 0);
    }
}
