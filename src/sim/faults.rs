//! What strikes a run: crashes and restarts, pauses, partitions, disks that stall, err or are full, a lost disk.
//!
//! Always: whatever a fault does stays within what the promise covers (RELIABILITY §1), unless the plan exceeds it:
//! one member at most is wiped, never with another rotten; everything else as often and as much together as the plan
//! says. What disks do to what they had taken is in `storage_faults`.

use super::clock::TrueMicros;
use super::disk::Disk;
use super::events::{Event, Fault};
use super::invariants::{Broken, holds};
use super::member::CrashPoint;
use super::run::Run;
use super::trace::Trace;
use crate::ids::MemberId;
use crate::raft::RoleName;
use crate::replica::Input;

impl Run {
    /// Plans the next fault of a kind, if the plan has it at all.
    pub(super) fn plan_fault(&mut self, fault: Fault) {
        let interval = self.plan.interval(fault);
        if interval > 0 {
            let at = self.now.after(self.random.waiting_time(interval) + 1);
            self.queue.plan(at, Event::Fault(fault));
        }
    }

    pub(super) fn fault_strikes(&mut self, fault: Fault, trace: &mut Trace) -> Result<(), Broken> {
        if self.plan.is_calm {
            return Ok(());
        }
        let member = self.victim();
        trace.record(self.now, [10, member as u64, 0, 0], format_args!("{fault:?} strikes m{}", member + 1));
        self.faults.count(fault.name());
        let until = self.now.after(self.random.waiting_time(self.plan.trouble_micros));
        match fault {
            Fault::Crash => self.crash(member, trace)?,
            Fault::PowerCut => {
                for member in 0..self.members.len() {
                    self.crash(member, trace)?;
                }
            }
            Fault::Pause => {
                let length = self.random.waiting_time(self.plan.pause_micros);
                self.members[member].paused_until = self.now.after(length);
            }
            Fault::SlowProcessor => self.members[member].slow_until = until,
            Fault::Partition => self.separate(member, trace),
            Fault::ClientPartition => {
                self.network.cut_clients(member);
                self.queue.plan(until, Event::HealClients);
            }
            Fault::Clog => {
                let length = self.random.waiting_time(self.plan.clog_micros);
                self.network.clog(member, self.now.after(length));
            }
            Fault::Reset | Fault::HalfOpen => {
                let other = self.random.position(self.members.len());
                if other != member && fault == Fault::Reset {
                    self.network.reset(member, other);
                } else if other != member {
                    self.network.half_open(member, other, until);
                }
            }
            Fault::Stall => {
                let length = self.random.waiting_time(self.plan.stall_micros);
                let this = &mut self.members[member];
                this.stalled_until = this.stalled_until.max(self.now.after(length));
            }
            Fault::SlowDisk => self.members[member].disk_slow_until = until,
            Fault::DiskErrors => self.members[member].disk_sick_until = until,
            Fault::DiskFull => self.members[member].disk_full_until = until,
            Fault::Freeze => self.freeze(member, until),
            Fault::HandOver => self.hand_over(member, trace)?,
            Fault::Wipe => {
                self.wipe(member, trace)?;
                return Ok(());
            }
        }
        self.plan_fault(fault);
        Ok(())
    }

    /// The first member is founded: its disk, or another's, may be lost before the others are.
    pub(super) fn disturb_founding(&mut self) {
        if std::mem::take(&mut self.plan.wipes_while_founding) {
            let at = self.now.after(self.random.below(self.plan.election_micros / 2));
            self.queue.plan(at, Event::Fault(Fault::Wipe));
        }
    }

    pub(super) fn separate(&mut self, member: usize, trace: &mut Trace) {
        self.counts.partitions += 1;
        let (shape, generation) = self.network.partition(member);
        self.faults.count(shape.name());
        trace.record(self.now, [11, 0, 0, 0], format_args!("{shape:?} around m{}", member + 1));
        let at = self.now.after(self.random.waiting_time(self.plan.partition_micros));
        self.queue.plan(at, Event::Heal { generation });
        if self.random.chance(self.plan.flapping_chance) {
            self.faults.count("partition_flapping");
            self.plan_flap(generation);
        }
    }

    fn plan_flap(&mut self, generation: u32) {
        let at = self.now.after(self.random.waiting_time(self.plan.election_micros) + 1);
        self.queue.plan(at, Event::Flap { generation });
    }

    /// A partition is lifted or back; and so on until it is mended.
    pub(super) fn flap(&mut self, generation: u32) {
        if self.network.flap(generation) {
            self.plan_flap(generation);
        }
    }

    /// A clock stands still, and what is measured by true time waits with it.
    fn freeze(&mut self, member: usize, until: TrueMicros) {
        let this = &mut self.members[member];
        if this.clock.freeze(self.now, until) {
            this.waits_longer(until.0.saturating_sub(self.now.0));
        }
        if this.is_up() {
            self.plan_turn(member, self.now.after(1));
        }
    }

    /// Whom a fault strikes: the leader as often as anyone.
    pub(super) fn victim(&mut self) -> usize {
        let leads = |role: Option<RoleName>| role == Some(RoleName::Leader);
        let leader = self.members.iter().position(|member| {
            member.is_up() && leads(member.observed.as_ref().map(|observed| observed.role))
        });
        match leader {
            Some(leader) if self.random.below(2) == 0 => leader,
            Some(_) | None => self.random.position(self.members.len()),
        }
    }

    fn hand_over(&mut self, member: usize, trace: &mut Trace) -> Result<(), Broken> {
        let to = match self.random.below(3) {
            0 => None,
            _ => Some(MemberId(self.random.between(1, self.members.len() as u64))),
        };
        self.give(member, Input::HandOver { to }, trace)
    }

    /// When a frame reaches a process that stands still: some wait in its own buffers, the others in the network, and
    /// come one by one after it goes on. In the order in which they arrived.
    pub(super) fn waits_for_resumption(&mut self, member: usize) -> Option<TrueMicros> {
        let this = &mut self.members[member];
        let is_behind = this.drained_at > self.now;
        if this.paused_until <= self.now && !is_behind {
            return None;
        }
        if !is_behind && self.random.below(2) == 0 {
            return None;
        }
        let gap = self.random.below(2 * self.plan.delay_micros + 1);
        this.drained_at = this.drained_at.max(this.paused_until).max(self.now).after(gap + 1);
        Some(this.drained_at)
    }

    /// A process dies, with its machine: what was in flight lands in part, what was not synced may go, a bit may rot.
    pub(super) fn crash(&mut self, member: usize, trace: &mut Trace) -> Result<(), Broken> {
        let this = &mut self.members[member];
        if !this.is_up() {
            return Ok(());
        }
        self.counts.crashes += 1;
        self.faults.count("process_died");
        trace.record(self.now, [12, member as u64, 0, 0], format_args!("{} dies", this.id));
        this.shard = None;
        this.inbox.clear();
        this.owed_since = None;
        this.boot += 1;
        this.observed = None;
        this.paused_until = TrueMicros(0);
        this.drained_at = TrueMicros(0);
        this.stalled_until = TrueMicros(0);
        this.dies_after = None;
        if let Some(making) = this.making.take()
            && self.random.below(2) == 0
        {
            this.make(making, &self.plan)?;
        }
        if let Some(write) = this.disk.crash(&mut self.random) {
            if let Some(found) = this.frame_left_by(&write).filter(|found| found.is_synced) {
                self.land(member, &found)?;
            } else {
                self.counts.torn_writes += 1;
                self.faults.count("write_torn");
            }
        }
        self.network.reset_all_of(member);
        self.clients.miss(self.now, member, &mut self.queue);
        self.watchers.lose_all_of(self.now, member, &mut self.queue);
        self.refresh_coverage(member);
        if self.random.chance(self.plan.rot_chance) {
            self.harm(member, trace);
        }
        let boot = self.members[member].boot;
        let at = self.now.after(self.plan.wait(self.plan.down_micros, &mut self.random));
        self.queue.plan(at, Event::Restart { member, boot });
        Ok(())
    }

    /// A dead member starts; perhaps to die again before it has done anything.
    pub(super) fn restart(&mut self, member: usize, boot: u32, trace: &mut Trace) -> Result<(), Broken> {
        let this = &self.members[member];
        if this.boot != boot || this.is_up() || this.is_kept_down {
            return Ok(());
        }
        if self.fails_to_read(member) {
            trace.record(
                self.now,
                [16, member as u64, 0, 0],
                format_args!("m{} cannot read its log", member + 1),
            );
            let at = self.now.after(self.plan.wait(self.plan.down_micros, &mut self.random) + 1);
            self.queue.plan(at, Event::Restart { member, boot });
            return Ok(());
        }
        let this = &mut self.members[member];
        trace.record(self.now, [13, member as u64, 0, 0], format_args!("{} starts", this.id));
        if let Err(refused) = this.start(self.now, &self.plan, &mut self.random) {
            // On a disk that lost more than the promise covers, to refuse is right.
            return if self.plan.exceeds { Ok(()) } else { Err(refused) };
        }
        self.check_recovery(member)?;
        self.observe(member, trace)?;
        let this = &mut self.members[member];
        this.dies_after = this.deaths.pop_front();
        let has_hole = self.members[member].observed.as_ref().is_some_and(|observed| observed.has_hole);
        self.counts.holes += u64::from(has_hole);
        if self.random.chance(self.plan.nested_crash_chance) {
            self.faults.count("process_died_in_recovery");
            if self.random.below(2) == 0 {
                return self.crash(member, trace);
            }
            let completions_left = self.random.between(1, 4);
            let is_torn = self.random.below(2) == 0;
            self.members[member].dies_after = Some(CrashPoint { completions_left, is_torn });
        }
        self.plan_turn(member, self.now);
        Ok(())
    }

    /// Whether a starting member gets an error from its disk instead of its log. It does not start then; whoever runs
    /// it tries again (`io/disk.rs`: a read that fails is not damage).
    fn fails_to_read(&mut self, member: usize) -> bool {
        let fails = self.members[member].disk_sick_until > self.now && self.random.below(2) == 0;
        if fails {
            self.faults.count("read_error");
        }
        fails
    }

    /// What a member recovers is what its disk held for certain: no less, and no other.
    fn check_recovery(&self, member: usize) -> Result<(), Broken> {
        const NAME: &str = "recovery_finds_what_is_durable";
        if self.plan.exceeds {
            return Ok(());
        }
        let this = &self.members[member];
        let image = &this.image;
        let Some(found) = this.shard.as_ref().and_then(|shard| shard.observe().next()) else {
            let is_new = image.contiguous().0 == 0 && image.term().0 == 0;
            return holds(is_new, NAME, || format!("{} recovered nothing, though it was founded", this.id));
        };
        let (term, vote) = (found.hard_state.term, found.hard_state.vote);
        holds((term, vote) == (image.term(), image.vote()), NAME, || {
            format!(
                "{} recovered term {term} and vote {vote:?}; durable are {} and {:?}",
                this.id,
                image.term(),
                image.vote()
            )
        })?;
        let is_same_end = found.last == image.recovered_last();
        holds(this.is_rotten || is_same_end, NAME, || {
            format!(
                "{} recovered a log to {:?}{}; durable is {:?}",
                this.id,
                found.last,
                if found.has_hole { " with a hole" } else { "" },
                image.recovered_last()
            )
        })?;
        holds(found.has_hole || image.is_whole(), NAME, || {
            format!("{} did not notice that its log rotted after {}", this.id, image.contiguous())
        })
    }

    /// A disk is lost, and the member comes back on an empty one, under its old name.
    fn wipe(&mut self, member: usize, trace: &mut Trace) -> Result<(), Broken> {
        let is_bearable =
            self.members.len() >= 3 && self.members.iter().all(|other| !other.is_rotten && !other.is_wiped);
        if !is_bearable && !self.plan.exceeds {
            return Ok(());
        }
        let are_founded = self.members.iter().all(|member| member.image.is_founded());
        self.crash(member, trace)?;
        let this = &mut self.members[member];
        // Rot in that very crash would make two damaged disks.
        this.is_rotten = false;
        this.is_wiped = true;
        this.disk = Disk::new();
        let image = std::mem::take(&mut this.image);
        // Before the founding is complete, a new disk is as good as the old one was.
        this.lost_image = are_founded.then_some(image);
        if !are_founded {
            // Back before the others have gone on.
            let (boot, at) = (this.boot, self.now.after(self.random.below(self.plan.election_micros / 4)));
            self.queue.plan(at, Event::Restart { member, boot });
        }
        Ok(())
    }
}
