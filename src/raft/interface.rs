//! What the core is given and what it gives back: configuration, recovered state, writes to make durable, outputs.
//!
//! Plain values without behaviour. Entries appear here as numbers only; their bytes live with the caller.

use super::message::{Entry, HardState, Message, Position, SnapshotName};
use crate::ids::{LogIndex, MemberId, Term};

/// How one member of one group behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub id: MemberId,
    /// All voters, this member included.
    pub voters: Vec<MemberId>,
    /// E, in microseconds: election timeouts are drawn from [E, 2E).
    pub election_micros: u64,
    /// Microseconds between two heartbeats of a leader; well below E.
    pub heartbeat_micros: u64,
    /// Seed of this member's own random numbers. It must differ between boots: replication sessions and the
    /// numbers of read requests are drawn from it, and neither may ever be met again.
    pub seed: u64,
    /// Encoded size of a no-op entry.
    pub noop_bytes: u32,
    /// How long it would answer reads alone while it leads, in microseconds; 0 for never. `Node::lease_from` begins that.
    pub lease_micros: u64,
    /// Bytes of entries that one write to the log takes at the most; a single larger entry goes alone.
    pub persist_bytes_max: usize,
}

/// Entries above a hole: what later frames hold although earlier ones are damaged (DESIGN §8).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Island {
    /// The entry just below the island's first, named by the valid frame after the damage. Not held.
    pub predecessor: Position,
    /// The intact entries from `predecessor.index + 1` on; may be none.
    pub entries: Vec<Entry>,
}

/// What recovery found on disk for one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredLog {
    /// The newest hard state.
    pub hard_state: HardState,
    /// The position just before `entries`: `Position::START`, or a snapshot's.
    pub base: Position,
    /// The contiguous log.
    pub entries: Vec<Entry>,
    /// What lies above holes, in order, each written later than what it overlaps; empty in a sound log.
    pub islands: Vec<Island>,
    /// The last entry of the snapshot that the state is restored from; `Position::START` if there is none. At the
    /// base, or in the contiguous log.
    pub snapshot: Position,
    /// Whether the log on disk does not hold that entry: the member died between keeping the snapshot and starting its
    /// log anew behind it (catalogue 22), or the snapshot behind which it began was lost. Then this is written first, and nothing
    /// counts as durable before.
    pub is_reset_owed: bool,
}

/// Numbers what was handed to the write-ahead log, in order, within one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(pub u64);

/// How a run of entries is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunKind {
    /// Supersedes every earlier entry at or above its first index.
    Append,
    /// Supplied into a hole (DESIGN §8): replaces what the contiguous log held at or above its first index, and
    /// supersedes nothing above the hole. An island joins when the run ends with its predecessor; one whose
    /// predecessor the run covers with another entry, or runs past, is gone, and islands above that stay.
    Fill,
}

/// Consecutive entries of the log that must become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// How to write it.
    pub kind: RunKind,
    /// The entry just before `first`.
    pub previous: Position,
    /// The first entry of the run.
    pub first: LogIndex,
    /// Its last.
    pub last: LogIndex,
}

/// The log starts anew behind a snapshot that was installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reset {
    /// `Append`: nothing that was held above the snapshot stays. `Fill`: what lies above holes stays where it is.
    pub kind: RunKind,
    /// The snapshot's last entry.
    pub snapshot: Position,
}

/// What came of a verified snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// Nothing of the log or the state gives way: the log holds the snapshot's last entry, or more is committed.
    Kept,
    /// The log starts anew behind the snapshot, and the state must be replaced by the snapshot's.
    Replaced,
}

/// What the next write to the log must hold so that everything up to `mark` is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Persist {
    /// Give this back with `Node::persisted`.
    pub mark: Mark,
    /// Term and vote, and as a hint a commit index that the log on disk covers once this is durable.
    pub hard_state: HardState,
    /// That the log starts anew, if it does; then no entries are in this write.
    pub reset: Option<Reset>,
    /// Entries to write, if any.
    pub run: Option<Run>,
    /// The end of the log for votes once this is durable (the end of the last island while there is a hole).
    pub last: Position,
}

/// What the core wants done, or wants known, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send now; everything it depends on is durable.
    Send {
        /// To whom.
        to: MemberId,
        /// What.
        message: Message,
    },
    /// Entries at or above `from` left the log (a conflict with the leader's). Comes before the `Accepted` that
    /// takes their place. While islands remain above a hole, entries replaced below it are not announced: the
    /// `Accepted` that follows covers them, and the islands stay.
    Superseded {
        /// The lowest index that left.
        from: LogIndex,
    },
    /// Of the message just received, the entries `first..=last` are now in the log: keep their bytes. There may be
    /// several for one message: what the log held already is in none.
    Accepted {
        /// The first of them.
        first: LogIndex,
        /// The last of them.
        last: LogIndex,
    },
    /// Read some bytes of this snapshot's file, from `offset` on, and give them to `Node::chunk_read`; or say
    /// `Node::chunk_unreadable`. One of the two, and once.
    ReadChunk {
        /// For whom.
        to: MemberId,
        /// In which replication session.
        session: u64,
        /// Which snapshot.
        snapshot: SnapshotName,
        /// From which byte on.
        offset: u64,
    },
    /// Write the bytes that came with the chunk just received at `offset` of a temporary file for this snapshot, and say
    /// `Node::chunk_held`: of the last one when all are durable. At offset 0 the file begins anew.
    WriteChunk {
        /// Which snapshot.
        snapshot: SnapshotName,
        /// From which byte on.
        offset: u64,
        /// How many.
        bytes_count: u32,
    },
    /// The log starts anew just above `base`: the state is the snapshot's now, and of the entries only those above it
    /// that `Node::term_at` or a hole's end still names are wanted.
    Rebased {
        /// The last entry of the snapshot that was installed.
        base: Position,
    },
    /// This member leads `noop.term`; it appended a no-op at `noop` whose bytes the caller encodes. Where leaders lease,
    /// `Node::set_others_lease` must follow at once; if that no-op says that this one does, `Node::lease_from` too.
    Elected {
        /// Where the no-op stands.
        noop: Position,
    },
    /// Reads come, and there is no lease, or the newest entry is so old that it ends soon or has ended: a no-op that says how
    /// long it is would begin it, or renew it.
    LeaseAges,
    /// This member no longer leads `term`: its unanswered proposals have an unknown outcome.
    Deposed {
        /// The term it led.
        term: Term,
    },
    /// The known leader changed (perhaps to nobody).
    LeaderChanged {
        /// The current term.
        term: Term,
        /// Who leads it, if known.
        leader: Option<MemberId>,
    },
    /// Everything up to `upto` is committed.
    Committed {
        /// The new commit index.
        upto: LogIndex,
    },
    /// The read may be answered once `index` is applied.
    ReadReady {
        /// The number that `Node::read` returned.
        request: u64,
        /// Its read index.
        index: LogIndex,
    },
    /// The read cannot be confirmed by anyone now; nothing was done.
    ReadFailed {
        /// The number that `Node::read` returned.
        request: u64,
    },
}

/// A request that only a leader can take; names the leader if one is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLeader {
    /// Whom to ask instead.
    pub leader: Option<MemberId>,
}

/// Why a linearizable read is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadRefused {
    /// No leader is known that could confirm it.
    NotLeader(NotLeader),
    /// As many reads as the limit allows are waiting already.
    TooMany,
}

/// Why leadership cannot be handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferRefused {
    /// This member has no leadership to hand over.
    NotLeader(NotLeader),
    /// The target is not a voter, or is this member itself.
    NoSuchVoter,
}

/// What a member is in its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleName {
    /// It follows a leader, or waits for one.
    Follower,
    /// It asks whether an election could be won (thesis 9.6).
    PreCandidate,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
}
