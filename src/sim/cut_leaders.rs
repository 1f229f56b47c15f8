//! New leaders that are cut off from the others once these hold what the leader begins with.
//!
//! ```text
//!   leader   elected: its no-op leaves ───── is cut off ──── hears that the others hold it: commits, answers alone …
//!   others          hold it, and say so (late) … hear nothing more; one of them leads, and has not applied it
//! ```
//!
//! So the lease of the one is told of in a part of the log that the next has not applied (catalogue 59); and as the leader has
//! heard of the others not long ago, it steps down no sooner than these elect another. Meanwhile its log goes on, against that
//! of the others (catalogue 11). Always: nothing of this happens in seeds whose plan has none of it; clients see both sides.

use super::events::Event;
use super::run::Run;
use super::trace::Trace;
use crate::ids::Term;
use crate::raft::RoleName;
use crate::replica::Observation;

impl Run {
    /// Perhaps what is said to a leader that leads since this turn is late from now on, and soon it is cut off.
    pub(super) fn beset_new_leader(&mut self, member: usize, after: &Observation) {
        let term = after.hard_state.term;
        if after.role != RoleName::Leader
            || term <= self.leaders_considered
            || self.plan.cut_leader_chance == 0
        {
            return;
        }
        self.leaders_considered = term;
        if self.plan.is_calm || !self.random.chance(self.plan.cut_leader_chance) {
            return;
        }
        let election_micros = self.plan.election_micros;
        let late = self.random.between(election_micros * 2 / 3, election_micros * 19 / 20);
        self.network.deafen(member, self.now.after(late));
        let soon = self.random.between(election_micros / 20, election_micros / 8);
        self.queue.plan(self.now.after(soon), Event::CutOff { member, term });
    }

    /// The leader of `term` is cut off, if it still leads.
    pub(super) fn cut_off(&mut self, member: usize, term: Term, trace: &mut Trace) {
        let leads = |seen: &Observation| seen.role == RoleName::Leader && seen.hard_state.term == term;
        if self.plan.is_calm || !self.members[member].observed.as_ref().is_some_and(leads) {
            return;
        }
        self.faults.count("new_leader_cut_off");
        trace.record(self.now, [11, 1, member as u64, 0], format_args!("m{} is cut off", member + 1));
        let generation = self.network.isolate(member);
        let micros = self.random.between(2 * self.plan.election_micros, 5 * self.plan.election_micros);
        self.queue.plan(self.now.after(micros), Event::Heal { generation });
    }
}
