//! The window of appends sent to one peer and not yet acknowledged, bounded by count and by bytes.
//!
//! The messages in it are in order: each ends above the one before it. Heartbeats carry no entries and are not
//! counted.

use crate::ids::LogIndex;
use crate::limits::{RAFT_INFLIGHT_BYTES_MAX, RAFT_INFLIGHT_MESSAGES_MAX};
use std::collections::VecDeque;

/// What is under way to one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Inflight {
    messages: VecDeque<Sent>,
    bytes_count: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sent {
    last: LogIndex,
    bytes_count: usize,
}

impl Inflight {
    /// Whether nothing more may be sent before an acknowledgement.
    pub(super) fn is_full(&self) -> bool {
        self.messages.len() >= RAFT_INFLIGHT_MESSAGES_MAX || self.bytes_count >= RAFT_INFLIGHT_BYTES_MAX
    }

    /// Notes a message whose last entry is `last`.
    pub(super) fn sent(&mut self, last: LogIndex, bytes_count: usize) {
        self.messages.push_back(Sent { last, bytes_count });
        self.bytes_count += bytes_count;
        self.assert_invariants();
    }

    /// Frees what an acknowledgement up to `upto` covers.
    pub(super) fn acknowledged(&mut self, upto: LogIndex) {
        while let Some(first) = self.messages.front() {
            if first.last > upto {
                break;
            }
            self.bytes_count -= first.bytes_count;
            self.messages.pop_front();
        }
    }

    /// Forgets everything: it is taken for lost.
    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.bytes_count = 0;
    }

    fn assert_invariants(&self) {
        assert!(self.messages.len() <= RAFT_INFLIGHT_MESSAGES_MAX, "the window is bounded by count");
        let count = self.messages.len();
        assert!(
            count < 2 || self.messages[count - 2].last < self.messages[count - 1].last,
            "messages in the window are in the order of the log"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_closes_by_count_and_opens_with_an_acknowledgement() {
        let mut inflight = Inflight::default();
        for index in 1..=RAFT_INFLIGHT_MESSAGES_MAX as u64 {
            assert!(!inflight.is_full());
            inflight.sent(LogIndex(index), 1);
        }
        assert!(inflight.is_full());
        inflight.acknowledged(LogIndex(1));
        assert!(!inflight.is_full());
        assert_eq!(inflight.bytes_count, RAFT_INFLIGHT_MESSAGES_MAX - 1);
    }

    #[test]
    fn the_window_closes_by_bytes() {
        let mut inflight = Inflight::default();
        inflight.sent(LogIndex(3), RAFT_INFLIGHT_BYTES_MAX);
        assert!(inflight.is_full());
        inflight.acknowledged(LogIndex(2));
        assert!(inflight.is_full(), "a message is free only when all of it is acknowledged");
        inflight.acknowledged(LogIndex(3));
        assert!(!inflight.is_full());
        inflight.sent(LogIndex(9), RAFT_INFLIGHT_BYTES_MAX);
        inflight.clear();
        assert!(!inflight.is_full());
    }
}
