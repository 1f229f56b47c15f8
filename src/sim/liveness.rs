//! The phase after the faults: a cluster whose members are all up and can talk must come to rest, whole.
//!
//! Always checked: a leader within ten election timeouts; then every operation of every client resolves; then
//! all members hold and have applied the same, and no hole is left. A member whose disk was wiped is not waited for:
//! it counts for nothing, for ever.

use super::client::TIMEOUT_MICROS;
use super::clock::TrueMicros;
use super::events::Event;
use super::invariants::{Broken, holds};
use super::member::Member;
use super::run::Run;
use super::trace::Trace;
use crate::check::judge;
use crate::ids::LogIndex;
use crate::raft::RoleName;
use crate::replica::{Input, Observation};

/// How long clients go on after the faults have ended.
const SERVICE_MICROS: u64 = 2_000_000;

/// Operations answered in that time at the least: half of what the clients would do if every answer came at once.
const SERVICE_ANSWERS_MIN: u64 = 100;

/// How long the last operations may take to resolve.
const RESOLVE_MICROS_MAX: u64 = 20_000_000;

/// How long members may take to become equal once nothing new is asked for.
const SETTLE_MICROS_MAX: u64 = 10_000_000;

const STEP_MICROS: u64 = 100_000;

impl Run {
    /// Ends every fault and brings the members up: all of them, or all but a minority.
    pub(super) fn become_calm(&mut self, trace: &mut Trace) -> Result<(), Broken> {
        trace.record(self.now, [20, 0, 0, 0], format_args!("the faults end"));
        self.plan = self.plan.calmed();
        self.holders.calm_down();
        self.network.mend_links();
        self.network.mend_clients();
        self.network.unclog_links();
        for member in 0..self.members.len() {
            let this = &mut self.members[member];
            this.paused_until = TrueMicros(0);
            this.drained_at = TrueMicros(0);
            this.stalled_until = TrueMicros(0);
            this.slow_until = TrueMicros(0);
            this.disk_slow_until = TrueMicros(0);
            this.disk_sick_until = TrueMicros(0);
            this.disk_full_until = TrueMicros(0);
            this.dies_after = None;
            this.clock.thaw(self.now);
            let boot = this.boot;
            self.queue.plan(self.now, Event::WriteDone { member, boot });
            self.queue.plan(self.now, Event::SegmentMade { member, boot });
            self.queue.plan(self.now, Event::FileDone { member, boot });
        }
        self.watchers.become_calm(self.now, &mut self.queue);
        self.keep_minority_down(trace)?;
        for member in 0..self.members.len() {
            // Those that start again at one instant, in lockstep, are as alike as members can be.
            if self.plan.is_lockstep {
                self.crash(member, trace)?;
            }
            let boot = self.members[member].boot;
            self.restart(member, boot, trace)?;
            self.plan_turn(member, self.now);
        }
        self.hand_over_in_vain(trace)
    }

    /// Now and then a leader is asked to hand over to a member that stays down: then it has to go on leading.
    fn hand_over_in_vain(&mut self, trace: &mut Trace) -> Result<(), Broken> {
        let down = self.members.iter().find(|member| member.is_kept_down).map(|member| member.id);
        let leads = |member: &Member| {
            member.is_up()
                && member.observed.as_ref().is_some_and(|observed| observed.role == RoleName::Leader)
        };
        let Some((to, leader)) = down.zip(self.members.iter().position(leads)) else {
            return Ok(());
        };
        if self.random.below(2) == 0 {
            return Ok(());
        }
        self.give(leader, Input::HandOver { to: Some(to) }, trace)
    }

    /// A majority that can talk serves, whoever else is down; but then its own disks must be sound, so the others are
    /// the first to stay away.
    fn keep_minority_down(&mut self, trace: &mut Trace) -> Result<(), Broken> {
        let members_count = self.members.len();
        let is_unsound = |at: &usize| self.members[*at].is_rotten || self.members[*at].is_wiped;
        let mut unsound: Vec<usize> = (0..members_count).filter(is_unsound).collect();
        let minority = (members_count - 1) / 2;
        // The very first start needs all members once.
        let are_founded = self.members.iter().all(|member| member.image.term().0 > 0);
        if !self.plan.keeps_minority_down || unsound.len() > minority || !are_founded {
            return Ok(());
        }
        for _ in 0..minority {
            let member = match unsound.pop() {
                Some(member) => member,
                None if self.random.below(2) == 0 => self.bystander(),
                None => self.victim(),
            };
            self.crash(member, trace)?;
            self.members[member].is_kept_down = true;
        }
        Ok(())
    }

    /// The member with the shortest log of those that do not campaign: without it the others have most to settle.
    fn bystander(&self) -> usize {
        let log_end = |member: &Member| {
            let observed = member.observed.as_ref().filter(|observed| observed.role != RoleName::Candidate);
            observed.map_or(LogIndex(u64::MAX), |observed| observed.last.index)
        };
        let standing = (0..self.members.len()).filter(|at| !self.members[*at].is_kept_down);
        standing.min_by_key(|at| log_end(&self.members[*at])).unwrap_or(0)
    }

    /// Checks that the cluster comes to rest.
    pub(super) fn check_liveness(&mut self, trace: &mut Trace) -> Result<(), Broken> {
        // Timeouts are drawn from [E, 2E); a slow clock makes them a little longer.
        let patience = 10 * 2 * self.plan.election_micros;
        self.run_until(self.now.after(patience), trace)?;
        holds(self.has_leader(), "a_leader_within_ten_election_timeouts", || self.describe())?;
        self.check_service(trace)?;
        self.clients.close();
        self.holders.close();
        self.wait_until(RESOLVE_MICROS_MAX, trace, |run| run.clients.pending_count() == 0)?;
        let pending = self.clients.pending_count();
        holds(pending == 0, "every_operation_resolves", || format!("{pending} do not; {}", self.describe()))?;
        self.wait_until(SETTLE_MICROS_MAX, trace, Self::is_settled)?;
        holds(self.is_settled(), "all_members_become_equal", || self.describe())?;
        self.check_leases(trace)?;
        self.check_watches_are_told(trace)
    }

    /// Checks that clients are served as fast as they ask. What they asked while there were faults may wait for a
    /// member that says nothing until it is given up, so there must be such a time before long, not at once.
    fn check_service(&mut self, trace: &mut Trace) -> Result<(), Broken> {
        let last_begin = self.now.after(TIMEOUT_MICROS);
        loop {
            let is_last = self.now >= last_begin;
            let answered_before = self.clients.answered_count();
            self.run_until(self.now.after(SERVICE_MICROS), trace)?;
            let answered = self.clients.answered_count() - answered_before;
            let answers_min = SERVICE_ANSWERS_MIN / self.plan.pace;
            if answered < answers_min && !is_last {
                continue;
            }
            return holds(answered >= answers_min, "a_calm_cluster_serves", || {
                format!("{answered} operations answered in {SERVICE_MICROS} µs; {}", self.describe())
            });
        }
    }

    /// Checks what the clients saw.
    pub(super) fn check_history(&mut self) -> Result<(), Broken> {
        let order = self.truth.witness.order();
        match judge(self.clients.history(), order) {
            Ok(judged) => {
                let along = judged.along_revisions;
                self.counts.answered = along.writes + along.reads;
                self.counts.not_done = along.not_done;
                self.counts.unknown = along.unknown;
                self.counts.undecided = u64::from(judged.search.undecided > 0);
                Ok(())
            }
            Err(violation) => {
                let explanation = violation.to_string();
                self.violation = Some(violation);
                Err(Broken { invariant: "the_history_is_strictly_serializable", explanation })
            }
        }
    }

    pub(super) fn wait_until(
        &mut self,
        micros_max: u64,
        trace: &mut Trace,
        is_reached: impl Fn(&Self) -> bool,
    ) -> Result<(), Broken> {
        let end = self.now.after(micros_max);
        while self.now < end && !is_reached(self) {
            self.run_until(self.now.after(STEP_MICROS), trace)?;
        }
        Ok(())
    }

    fn counting(&self) -> impl Iterator<Item = Option<&Observation>> {
        self.members
            .iter()
            .filter(|member| !member.is_wiped && !member.is_kept_down)
            .map(|member| member.observed.as_ref())
    }

    /// A member whose disk was lost may lead if that was before the founding was complete.
    fn has_leader(&self) -> bool {
        self.members
            .iter()
            .filter(|member| member.lost_image.is_none())
            .filter_map(|member| member.observed.as_ref())
            .any(|observed| observed.role == RoleName::Leader)
    }

    fn is_settled(&self) -> bool {
        let Some(Some(first)) = self.counting().next() else {
            return false;
        };
        self.counting().all(|observed| {
            observed.is_some_and(|observed| {
                observed.applied == first.applied
                    && observed.last == first.last
                    && observed.applied == observed.last.index
                    && observed.durable == observed.last.index
                    && observed.state_hash == first.state_hash
                    && !observed.has_hole
            })
        })
    }

    fn describe(&self) -> String {
        let mut words = Vec::new();
        for member in &self.members {
            let state = match (&member.observed, &member.shard) {
                (Some(observed), _) => format!(
                    "{:?} of term {} log to {} (durable {}, applied {}){}",
                    observed.role,
                    observed.hard_state.term,
                    observed.last.index,
                    observed.durable,
                    observed.applied,
                    if observed.has_hole { " with a hole" } else { "" }
                ),
                (None, Some(shard)) => format!("waits for {}", shard.waiting_for().unwrap_or_default()),
                (None, None) => "down".to_owned(),
            };
            let wiped = if member.is_wiped { " (wiped)" } else { "" };
            words.push(format!("{}{wiped}: {state}", member.id));
        }
        words.join("; ")
    }
}
