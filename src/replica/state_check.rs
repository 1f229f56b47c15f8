//! Whether all members made the same of the log: each says through the log what it has, and most of them are right.
//!
//! ```text
//!   index      … 1024 ……………………………………… 1100 ……… 1103 ……… 1105 …
//!   noted here   hash h                     member 2   member 1   member 3
//!                                           says h     says h     says x
//!                                                      ▲ two of three: h is the state; member 3 knows by now that it
//!                                                        noted another, and stops
//! ```
//!
//! At every index that is a multiple of the interval, which is the same for all members, a member notes the hash of what it has applied, and has that
//! said in an entry, the leader at once and a follower by handing it to the leader; what is lost on the way is not said again.
//! Always: a verdict takes a majority of the voters, so no single member, were it the leader, can stop the others; a
//! member is judged by what it noted itself, never by what others hold of it. What was said is no part of the state: no
//! answer depends on it; a snapshot that a member cut since it last had what most have is offered to nobody and, once it
//! is found to differ, is what no start begins with; and a member that has not noted an index passes that verdict over. What was said before this
//! process began is not listened to, because an earlier build may have said it.
//!
//! Left out: why states differ. A member that is alone in its cluster has nobody to ask.

use super::Output;
use super::apply::Asker;
use super::group::Replica;
use super::propose::Proposal;
use crate::api::{Refusal, Stamp};
use crate::auth::Who;
use crate::ids::{BootMicros, LogIndex, MemberId, SessionId};
use crate::limits::STATES_NOTED_MAX;
use crate::raft::RoleName;
use crate::sometimes;
use bytes::Bytes;
use std::collections::BTreeMap;
use wal_format::{EntryHeader, EntryKind};

/// The version of the hash: it is raised with whatever changes what is absorbed into it, or how. Members say nothing to each
/// other about hashes of different versions.
const HASH_VERSION: u8 = 1;

/// This member's state is not what most members have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Divergence {
    /// After which entry.
    pub(super) index: LogIndex,
    /// The hash of its state then.
    pub(super) ours: u64,
    /// The hash that a majority has.
    pub(super) theirs: u64,
}

impl Divergence {
    /// What keeps this member from serving.
    pub(super) fn words(self) -> String {
        let Self { index, ours, theirs } = self;
        format!(
            "a person: what this member made of the log up to entry {index} is not what most members made of it (the \
             hash of its state is {ours:016x}, theirs {theirs:016x}), so it serves nothing. Start it again: it then \
             makes its state anew, of what it had when it was last like theirs, or of theirs. If it says this again, keep its data directory and replace the member"
        )
    }
}

/// What this member noted, and what all said.
#[derive(Debug, Default)]
pub(super) struct StateCheck {
    noted: BTreeMap<LogIndex, u64>,
    said: BTreeMap<LogIndex, BTreeMap<MemberId, u64>>,
    /// The newest index of which this member has had its hash said.
    spoken: LogIndex,
    /// The end of the log with which this process began.
    since: LogIndex,
    /// States are compared after so many entries.
    interval: u64,
    /// The newest index at which most members had what this one noted.
    agreed: Option<LogIndex>,
    /// Once it is there, nothing is applied any more.
    divergence: Option<Divergence>,
}

impl StateCheck {
    /// Nothing noted yet, by a process that begins with a log up to `since`; states are compared after every `interval` entries.
    pub(super) fn new(since: LogIndex, interval: u64) -> Self {
        assert!(interval > 0, "states are compared now and then");
        Self { since, interval, ..Self::default() }
    }

    /// The newest index at which this member's state was found to be most members', in this boot.
    pub(super) const fn agreed(&self) -> Option<LogIndex> {
        self.agreed
    }

    /// The entry at `index` is applied, and this is the hash after it.
    fn note(&mut self, index: LogIndex, hash: u64) {
        if index.0.is_multiple_of(self.interval) {
            self.noted.insert(index, hash);
            if self.noted.len() > STATES_NOTED_MAX {
                self.noted.pop_first();
            }
        }
    }

    /// In the entry at `said_at` a member says what it has at an index that this one noted, too.
    fn hear(
        &mut self,
        said_at: LogIndex,
        from: MemberId,
        (index, hash): (LogIndex, u64),
        voters_count: usize,
    ) {
        if said_at <= self.since {
            return;
        }
        let Some(ours) = self.noted.get(&index).copied() else {
            return;
        };
        let said = self.said.entry(index).or_default();
        said.insert(from, hash);
        let agreeing = said.values().filter(|said| **said == hash).count();
        if agreeing > voters_count / 2 {
            // What was said of older states can tell nothing more.
            self.said = self.said.split_off(&index);
            sometimes!(StatesCompared);
            if ours == hash {
                self.agreed = self.agreed.max(Some(index));
            } else {
                self.divergence = Some(Divergence { index, ours, theirs: hash });
            }
        }
        while self.said.len() > STATES_NOTED_MAX {
            self.said.pop_first();
        }
    }
}

impl Replica {
    /// Whether this member's state is known to be another than that of most members.
    pub(super) const fn divergence(&self) -> Option<Divergence> {
        self.state_check.divergence
    }

    /// The entry at `index` is applied.
    pub(super) fn note_state(&mut self, index: LogIndex) {
        self.state_check.note(index, self.state_hash);
    }

    /// An entry in which a member says what it has.
    pub(super) fn hear_state(&mut self, header: &EntryHeader, body: &[u8]) {
        let from = MemberId(header.session);
        // Each voter has one voice, and nobody else has any.
        if body == [HASH_VERSION] && self.setup.directories.contains_key(&from) {
            let said = (LogIndex(header.sequence), header.low_water);
            self.state_check.hear(LogIndex(header.index), from, said, self.setup.directories.len());
        }
    }

    /// Has the newest hash said that was noted, if it was not yet.
    pub(super) fn say_state(&mut self, now: BootMicros, outputs: &mut Vec<Output>) {
        let Some((&index, &hash)) = self.state_check.noted.last_key_value() else {
            return;
        };
        if index <= self.state_check.spoken || self.setup.directories.len() == 1 {
            return;
        }
        let stamp = Stamp { session: SessionId(self.setup.me.0), sequence: index.0, low_water: hash };
        let (kind, keyspace) = (EntryKind::StateCheck, self.setup.keyspace);
        let proposal = Proposal {
            kind,
            keyspace,
            stamp: Some(stamp),
            who: Who::Cluster,
            body: Bytes::from_static(&[HASH_VERSION]),
        };
        if self.node.role() == RoleName::Leader {
            // If it is refused, the next turn tries again.
            if self.propose(now, Asker::Nobody, &proposal).is_err() {
                return;
            }
        } else if let Some(leader) = self.node.leader() {
            self.hand_on(leader, proposal, outputs);
        } else {
            return;
        }
        self.state_check.spoken = index;
    }

    /// Whoever waits for something here learns that it will not come.
    pub(super) fn retire(&mut self, outputs: &mut Vec<Output>) {
        sometimes!(MemberMuted);
        self.abandon_proposals(self.node.hard_state().term, outputs);
        self.abandon_forwards(outputs);
        self.refuse_all_reads(Refusal::NotReady, outputs);
        self.refuse_savers(Refusal::NotReady, outputs);
        self.end_all_watches(outputs);
        self.distrust_snapshots(outputs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::STATE_CHECK_ENTRIES;

    const INDEX: LogIndex = LogIndex(STATE_CHECK_ENTRIES);

    /// Where it is said.
    const LATER: LogIndex = LogIndex(2 * STATE_CHECK_ENTRIES);

    /// A member that began with a log up to `since`, and has noted 7.
    fn noted(since: LogIndex) -> StateCheck {
        let mut check = StateCheck::new(since, STATE_CHECK_ENTRIES);
        for index in 1..=STATE_CHECK_ENTRIES {
            check.note(LogIndex(index), 7);
        }
        assert_eq!(check.noted.len(), 1);
        check
    }

    #[test]
    fn a_majority_that_has_another_state_is_right() {
        let mut check = noted(LogIndex(0));
        check.hear(LATER, MemberId(1), (INDEX, 8), 3);
        check.hear(LATER, MemberId(1), (INDEX, 8), 3);
        check.hear(LATER, MemberId(2), (INDEX, 7), 3);
        assert_eq!(check.divergence, None, "a member that says it twice is one");
        check.hear(LATER, MemberId(3), (INDEX, 8), 3);
        assert_eq!(check.divergence, Some(Divergence { index: INDEX, ours: 7, theirs: 8 }));
    }

    #[test]
    fn nobody_diverges_from_a_majority_that_agrees_or_where_all_differ_or_from_what_was_not_noted() {
        let mut check = noted(LogIndex(0));
        for (from, hash) in [(1, 7), (2, 9), (3, 7)] {
            check.hear(LATER, MemberId(from), (INDEX, hash), 3);
        }
        let mut of_five = noted(LogIndex(0));
        for (from, hash) in [(1, 7), (2, 8), (3, 9), (4, 9)] {
            of_five.hear(LATER, MemberId(from), (INDEX, hash), 5);
        }
        for from in 1..=3 {
            check.hear(LATER, MemberId(from), (LATER, 9), 3);
        }
        assert_eq!((check.divergence, of_five.divergence), (None, None));
    }

    #[test]
    fn states_are_compared_as_often_as_the_interval_says() {
        let mut check = StateCheck::new(LogIndex(0), 8);
        for index in 1..=20 {
            check.note(LogIndex(index), index);
        }
        assert_eq!(check.noted.keys().copied().collect::<Vec<_>>(), [LogIndex(8), LogIndex(16)]);
    }

    #[test]
    fn what_was_said_before_this_process_began_is_not_listened_to() {
        let mut check = noted(LATER);
        for from in 1..=3 {
            check.hear(LATER, MemberId(from), (INDEX, 8), 3);
        }
        assert_eq!(check.divergence, None);
        for from in 1..=2 {
            check.hear(LATER.next(), MemberId(from), (INDEX, 8), 3);
        }
        assert!(check.divergence.is_some());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut check = StateCheck::new(LogIndex(0), STATE_CHECK_ENTRIES);
        for index in 1..=4 * STATES_NOTED_MAX as u64 * STATE_CHECK_ENTRIES {
            check.note(LogIndex(index), index);
            check.hear(LogIndex(index), MemberId(1), (LogIndex(index), index), 5);
        }
        assert_eq!(check.noted.len(), STATES_NOTED_MAX);
        assert!(check.said.len() <= STATES_NOTED_MAX);
    }
}
