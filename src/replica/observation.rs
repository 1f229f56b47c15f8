//! A view of one replica's inner state, for the simulator's invariants and for `status`.

use crate::ids::{GroupId, LogIndex, MemberId, Revision};
use crate::raft::{HardState, Position, RoleName};

/// A queue's name, how much is in it and how much may be.
pub type Queue = (&'static str, usize, usize);

/// One replica as it is between two turns.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Which group.
    pub group: GroupId,
    /// Its role.
    pub role: RoleName,
    /// Its term and vote, durable or not yet.
    pub hard_state: HardState,
    /// Who leads, as far as it knows.
    pub leader: Option<MemberId>,
    /// The end of its contiguous log.
    pub last: Position,
    /// The entry just before the first of its log: it and all before are in a snapshot.
    pub base: Position,
    /// The newest snapshot that counts.
    pub snapshot: Position,
    /// The end of what is durable here.
    pub durable: LogIndex,
    /// What it knows to be committed.
    pub commit: LogIndex,
    /// The furthest that another voter has acknowledged, to its own sync; 0 unless this member leads.
    pub acknowledged: LogIndex,
    /// What it has applied.
    pub applied: LogIndex,
    /// The store's revision.
    pub revision: Revision,
    /// Whether its log has a hole.
    pub has_hole: bool,
    /// Whether it counts the time of leases.
    pub counts_leases: bool,
    /// How many watches it serves.
    pub watches_count: usize,
    /// Everything that could grow, and its bound.
    pub queues: [Queue; 13],
    /// Bytes of the records of its log that it keeps in memory.
    pub log_bytes: u64,
    /// About how many bytes its keys take, with their histories.
    pub keyspace_bytes: u64,
    /// Rolling hash of everything applied, in order: equal on all members at equal `applied`.
    pub state_hash: u64,
}
