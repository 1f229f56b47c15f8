//! Time as a choice: members have no clocks here, only timers that may have run out or not.
//!
//! After every step the instants in a member are set to fixed places around one instant, `NOW`, and what is drawn at
//! random or only counts up is set back. What comes next happens at one of a few instants, and which one decides what has run
//! out:
//!
//! ```text
//!  NOW                    DUE                           STALLED                  LATE
//!  nothing has run out    heartbeat, election timeout   and the patience with    and the leader was not heard for E,
//!                                                       the own disk (E/2)       nor a majority, nor an answer to a read
//! ```
//!
//! So every member's timers run out at any moment, whatever the others do, and more is allowed than any real clocks do.
//! No promise of the core rests on time, so none may break. How often timers run out in all is a bound of the world.

use super::super::leader::Leader;
use super::super::node::{Node, Role};
use super::super::random::Random;
use crate::ids::BootMicros;
use crate::raft::Mark;

/// E.
pub(super) const ELECTION_MICROS: u64 = 1_000;
pub(super) const HEARTBEAT_MICROS: u64 = 100;

/// Nothing has run out.
pub(super) const NOW: BootMicros = BootMicros(1_000_000);
/// The timers that make a member act have run out.
pub(super) const DUE: BootMicros = NOW.after(1);
/// The disk has owed an answer for too long as well.
pub(super) const STALLED: BootMicros = NOW.after(ELECTION_MICROS / 2);
/// Everything has run out.
pub(super) const LATE: BootMicros = NOW.after(2 * ELECTION_MICROS);

/// The mark of the write in flight; each is the first of its kind.
pub(super) const MARK: Mark = Mark(1);

/// Puts every instant, random number and counter of a member at its place.
pub(super) fn settle(node: &mut Node) {
    node.random = Random::new(seed(node.id.0, node.hard_state.term.0));
    node.election_timeout = ELECTION_MICROS;
    node.election_at = DUE;
    node.filling.request_at = NOW;
    node.received_at = NOW;
    node.released_to_us = None;
    node.last_read = 0;
    node.reads.next_request = 0;
    for asked in &mut node.reads.asked {
        asked.at = NOW;
    }
    if let Some(waiting) = &mut node.durability.waiting_since {
        waiting.since = NOW;
    }
    node.durability.last_mark = Mark(0);
    if let Some(write) = &mut node.durability.in_flight {
        write.mark = MARK;
        node.durability.last_mark = MARK;
    }
    match &mut node.role {
        Role::Follower(follower) => follower.heard_at = NOW,
        Role::PreCandidate(_) | Role::Candidate(_) => {}
        Role::Leader(leader) => settle_leader(leader),
    }
}

fn settle_leader(leader: &mut Leader) {
    leader.heartbeat_at = DUE;
    leader.lease.forget();
    // It only says when to look again; every flush settles it anew.
    leader.gathers_until = None;
    // A disk that is asked later, and frames that are sent later, are schedules of the world anyway.
    leader.batch = None;
    if let Some(transfer) = &mut leader.transfer {
        transfer.deadline = LATE;
    }
    for follower in &mut leader.followers {
        follower.heard_at = NOW;
        // Bounds far above what fits into a world here; a window never fills.
        follower.inflight.clear();
    }
}

/// Makes one follower one that was not heard for longer than E, while the others were.
pub(super) fn silence(node: &mut Node, follower: usize) {
    if let Role::Leader(leader) = &mut node.role
        && let Some(follower) = leader.followers.get_mut(follower)
    {
        follower.heard_at = BootMicros(0);
    }
}

/// What a member draws its sessions from. One member leads a term once, in whatever boot, so no session is drawn twice.
pub(super) const fn seed(id: u64, term: u64) -> u64 {
    id << 32 | term
}
