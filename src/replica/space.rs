//! The quota of a keyspace: when it is used up, the leader has an alarm raised, and called off when there is room again.
//!
//! Whether a write is refused is decided in apply, from the alarm alone, which went through the log: so all members say
//! the same. How many bytes are used is each member's own affair, because forgetting what was compacted takes each its own
//! time; so only the leader looks, and what it makes of that is an entry. Always: between the alarms lies an eighth of
//! the quota, so that they do not follow each other; at most one is on its way; what was raised by hand is left alone. Left out:
//! what is refused (`kv`).

use super::apply::Asker;
use super::group::Replica;
use super::propose::Proposal;
use crate::api::EncodedCommand;
use crate::auth::Who;
use crate::ids::BootMicros;
use crate::kv::{Command, SpaceAlarm};
use crate::raft::RoleName;
use crate::sometimes;
use wal_format::EntryKind;

impl Replica {
    /// Proposes that the alarm be raised, or called off, if that is due.
    pub(super) fn watch_space(&mut self, now: BootMicros) {
        let (used, quota) = (self.store.bytes(), self.setup.quota_bytes);
        let is_asked = self.space_asked.is_some_and(|asked| asked > self.applied);
        if self.node.role() != RoleName::Leader || is_asked {
            return;
        }
        let is_raised = quota > 0 && used > quota;
        let has_room = quota == 0 || used <= quota - quota / 8;
        let is_due = if self.store.is_full_by_bytes() { has_room } else { is_raised };
        if !is_due {
            return;
        }
        sometimes!(SpaceAlarmProposed);
        let alarm = Command::SpaceAlarm(SpaceAlarm::by_bytes(is_raised));
        let command = EncodedCommand::encode(&alarm).expect("an alarm is short");
        let (kind, keyspace) = (EntryKind::Command, self.setup.keyspace);
        let proposal =
            Proposal { kind, keyspace, stamp: None, who: Who::Cluster, body: command.bytes().clone() };
        // If it is refused, the next turn proposes it again.
        if self.propose(now, Asker::Nobody, &proposal).is_ok() {
            self.space_asked = Some(self.node.last().index);
        }
    }
}
