//! Orders to campaign as they would have to come to do harm: late, and to the deaf.
//!
//! A transfer of leadership goes with a release of the leader's lease (`raft/leader_lease`). What is wrong about that shows
//! only if the old leader goes on answering while the new one writes. So in some seeds an order is late by up to some
//! election timeouts, and when it arrives whoever gave it stops hearing other members for a while; its clients it hears.
//! Always: nothing of this happens in other seeds.

use super::run::Run;
use crate::peer::{self, Body};
use crate::raft::Message;
use bytes::Bytes;

impl Run {
    /// By how much longer than any other this frame is on its way, in microseconds.
    pub(super) fn lateness(&mut self, frame: &Bytes) -> u64 {
        if !self.plan.hands_over_badly || !is_order(frame) || self.random.below(2) == 0 {
            return 0;
        }
        self.faults.count("order_to_campaign_late");
        let election_micros = self.plan.election_micros;
        self.random.between(election_micros, 2 * election_micros)
    }

    /// A frame has arrived.
    pub(super) fn deafen_who_ordered(&mut self, from: usize, frame: &Bytes) {
        if self.plan.hands_over_badly && is_order(frame) {
            let micros = self.plan.election_micros;
            self.network.deafen(from, self.now.after(micros));
        }
    }
}

fn is_order(frame: &Bytes) -> bool {
    peer::decode(frame)
        .is_ok_and(|frame| matches!(frame.body, Body::Raft { message: Message::TimeoutNow(_), .. }))
}
