//! What members of one group say to each other, one type per kind, and the small values those messages carry.
//!
//! Messages number entries and never hold their bytes: the peer room puts the bytes of `AppendRequest::entries`
//! and `FillReply::entries` behind the envelope. Every request carries the sender's term; every reply carries the
//! replier's, so that a stale sender learns of a newer term from any answer.

use crate::ids::{LogIndex, MemberId, Term};
use crate::limits::{APPEND_ENTRIES_MAX, RAFT_NUMBER_MAX, SNAPSHOT_CHUNK_BYTES_MAX};
use crate::planted;

/// A place in a log: the entry with this index *and* this term. Equal positions mean equal logs up to there
/// (log matching, Raft §5.3).
///
/// The order is the one elections use, term before index (Raft §5.4.1). It is not the order of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// The entry's index; 0 is the start of every log.
    pub index: LogIndex,
    /// The entry's term; 0 only at index 0.
    pub term: Term,
}

impl Position {
    /// The position before the first entry of every log.
    pub const START: Self = Self { index: LogIndex(0), term: Term(0) };

    /// Whether a log that ends here is at least as up to date as one that ends at `other` (Raft §5.4.1).
    pub fn is_up_to_date_with(self, other: Self) -> bool {
        if planted!(30) {
            return self.index >= other.index;
        }
        (self.term, self.index) >= (other.term, other.index)
    }
}

/// One entry as consensus sees it: a number, a term and a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Its place in the log.
    pub index: LogIndex,
    /// The term of the leader that made it.
    pub term: Term,
    /// The size of its encoded record in bytes; windows are bounded by it.
    pub bytes_count: u32,
}

impl Entry {
    /// This entry's position.
    pub const fn position(&self) -> Position {
        Position { index: self.index, term: self.term }
    }
}

/// What must be durable before anything that depends on it leaves (Raft figure 2, "persistent state").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HardState {
    /// The latest term this member has seen.
    pub term: Term,
    /// Whom it voted for in `term`.
    pub vote: Option<MemberId>,
    /// A commit index known when this was written: a hint that shortens recovery, never ahead of the truth.
    pub commit: LogIndex,
}

/// "Would you vote for me in `term`?" Changes nothing at the receiver (thesis 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PreVoteRequest {
    /// The term the sender would campaign in: its own plus one.
    pub term: Term,
    /// The end of the sender's log.
    pub last: Position,
}

/// The answer to a `PreVoteRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PreVoteReply {
    /// The replier's own term.
    pub term: Term,
    /// The term that was asked for.
    pub asked: Term,
    /// Whether a vote would be given.
    pub is_granted: bool,
}

/// "Vote for me in `term`."
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VoteRequest {
    /// The candidate's term.
    pub term: Term,
    /// The end of the candidate's log.
    pub last: Position,
    /// Whether the leader itself asked for this campaign (`TimeoutNow`), so stickiness does not apply.
    pub is_transfer: bool,
}

/// The answer to a `VoteRequest`; leaves only when the vote is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VoteReply {
    /// The replier's own term.
    pub term: Term,
    /// Whether the vote was given.
    pub is_granted: bool,
}

/// Entries, or none as a heartbeat; always a consistency check at `previous`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppendRequest {
    /// The leader's term.
    pub term: Term,
    /// The replication session: drawn by the leader per peer and term, echoed in replies, so that a reply from
    /// before a removal cannot count (catalogue 8).
    pub session: u64,
    /// The entry just before `entries`.
    pub previous: Position,
    /// Consecutive entries from `previous.index + 1` on.
    pub entries: Vec<Entry>,
    /// The leader's commit index. The receiver uses at most what it has matched.
    pub commit: LogIndex,
    /// The newest read round at the time of sending (`ReadIndex`); echoed in the reply.
    pub round: u64,
}

/// The answer to an `AppendRequest`. A follower may also send it unasked when more of its log became durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AppendReply {
    /// The replier's own term.
    pub term: Term,
    /// Echo of the request's session.
    pub session: u64,
    /// Echo of the newest round heard in this session.
    pub round: u64,
    /// What became of the request.
    pub result: AppendResult,
}

/// How a follower's log compared with the leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AppendResult {
    /// The logs are equal, and the follower's is *durable*, up to and including this index.
    Matched {
        /// The index.
        upto: LogIndex,
    },
    /// `previous` is not in the follower's log.
    Conflict {
        /// The rejected request's `previous.index`, so that a stale rejection can be told (catalogue 29).
        rejected: LogIndex,
        /// The follower's best guess where the logs may still agree: an index below `rejected`, and its term there.
        hint: Position,
    },
}

/// "Campaign at once" (thesis 3.10). Ignored unless its term is the receiver's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeoutNow {
    /// The leader's term.
    pub term: Term,
    /// The end of the leader's log when it sent this; the target must hold it.
    pub last: LogIndex,
}

/// A follower asks the leader at which index its reads may be answered (thesis 6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadIndexRequest {
    /// The follower's term.
    pub term: Term,
    /// Fresh for each request, never reused across retries (etcd #20418).
    pub request: u64,
}

/// The answer to a `ReadIndexRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadIndexReply {
    /// The replier's term.
    pub term: Term,
    /// Echo of the request.
    pub request: u64,
    /// Where the reads may be answered once applied; `None` if the replier does not lead.
    pub index: Option<LogIndex>,
}

/// A member whose log has a hole asks any peer for the entries that fill it (DESIGN §8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FillRequest {
    /// The asker's term.
    pub term: Term,
    /// The end of the asker's contiguous log, just below the hole.
    pub previous: Position,
    /// The last missing entry as the next valid frame names it; a peer that holds it has the same log below.
    pub last: Position,
}

/// Entries for a hole, from a peer that holds the hole's `last`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FillReply {
    /// The replier's term.
    pub term: Term,
    /// Echo of the request's last missing entry.
    pub last: Position,
    /// The entry of the replier's log just before `entries`. It differs from the request's `previous` when the
    /// damaged frame had replaced the end of what the asker still holds; then the asker steps down to it.
    pub previous: Position,
    /// Consecutive entries from `previous.index + 1` on, perhaps none and perhaps not all up to `last`.
    pub entries: Vec<Entry>,
}

/// What identifies the bytes of a snapshot: equal names, equal bytes, whoever wrote them. So a transfer can be resumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SnapshotName {
    /// The last entry whose effect it holds; it was committed when the snapshot was taken.
    pub position: Position,
    /// Bytes of the whole file.
    pub bytes_count: u64,
    /// A hash of the whole file.
    pub hash: u64,
}

/// A piece of a snapshot's file, for a follower whose next entry the leader has trimmed. Its bytes travel behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotChunk {
    /// The leader's term.
    pub term: Term,
    /// The replication session, as in an `AppendRequest`.
    pub session: u64,
    /// Of which snapshot.
    pub snapshot: SnapshotName,
    /// Where in the file, in bytes from its start.
    pub offset: u64,
    /// How many bytes; never none.
    pub bytes_count: u32,
}

impl SnapshotChunk {
    /// The byte just behind it.
    pub const fn end(&self) -> u64 {
        self.offset + self.bytes_count as u64
    }

    /// Whether the file ends with it.
    pub const fn is_last(&self) -> bool {
        self.end() == self.snapshot.bytes_count
    }
}

/// The answer to a `SnapshotChunk`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotReply {
    /// The replier's own term.
    pub term: Term,
    /// Echo of the chunk's session.
    pub session: u64,
    /// Echo of its snapshot.
    pub snapshot: SnapshotName,
    /// Echo of its offset, so that a stale answer can be told; the end of the file if the whole was refused.
    pub offset: u64,
    /// So many bytes from the start of the file are held by the replier, and if that is the whole durable there: where to go on.
    pub upto: u64,
}

/// Everything members of a group say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Message {
    PreVoteRequest(PreVoteRequest),
    PreVoteReply(PreVoteReply),
    VoteRequest(VoteRequest),
    VoteReply(VoteReply),
    AppendRequest(AppendRequest),
    AppendReply(AppendReply),
    TimeoutNow(TimeoutNow),
    ReadIndexRequest(ReadIndexRequest),
    ReadIndexReply(ReadIndexReply),
    FillRequest(FillRequest),
    FillReply(FillReply),
    SnapshotChunk(SnapshotChunk),
    SnapshotReply(SnapshotReply),
}

impl Message {
    /// The sizes of what travels behind this message, in order: its entries, or the bytes of a chunk.
    pub fn carried_sizes(&self) -> Vec<u32> {
        if let Self::SnapshotChunk(chunk) = self {
            return vec![chunk.bytes_count];
        }
        self.carried().1.iter().map(|entry| entry.bytes_count).collect()
    }

    /// The entries whose bytes travel with this message, and the position just before them; none for most kinds.
    pub fn carried(&self) -> (Position, &[Entry]) {
        match self {
            Self::AppendRequest(append) => (append.previous, &append.entries),
            Self::FillReply(fill) => (fill.previous, &fill.entries),
            Self::PreVoteRequest(_)
            | Self::PreVoteReply(_)
            | Self::VoteRequest(_)
            | Self::VoteReply(_)
            | Self::AppendReply(_)
            | Self::TimeoutNow(_)
            | Self::ReadIndexRequest(_)
            | Self::ReadIndexReply(_)
            | Self::FillRequest(_)
            | Self::SnapshotChunk(_)
            | Self::SnapshotReply(_) => (Position::START, &[]),
        }
    }

    /// The term the message carries; for a `PreVoteRequest` one that nobody is in yet.
    pub const fn term(&self) -> Term {
        match self {
            Self::PreVoteRequest(message) => message.term,
            Self::PreVoteReply(message) => message.term,
            Self::VoteRequest(message) => message.term,
            Self::VoteReply(message) => message.term,
            Self::AppendRequest(message) => message.term,
            Self::AppendReply(message) => message.term,
            Self::TimeoutNow(message) => message.term,
            Self::ReadIndexRequest(message) => message.term,
            Self::ReadIndexReply(message) => message.term,
            Self::FillRequest(message) => message.term,
            Self::FillReply(message) => message.term,
            Self::SnapshotChunk(message) => message.term,
            Self::SnapshotReply(message) => message.term,
        }
    }

    /// Whether the message could have been said by a correct peer, as far as it alone tells.
    ///
    /// Its bytes come from outside: what is not well formed is dropped, and what is well formed may still be
    /// untrue, so nothing is asserted on it.
    pub(super) fn is_well_formed(&self) -> bool {
        // A member that has heard of no term yet answers in term 0; nobody campaigns or leads in it.
        let is_led = matches!(
            self,
            Self::PreVoteRequest(_)
                | Self::VoteRequest(_)
                | Self::AppendRequest(_)
                | Self::TimeoutNow(_)
                | Self::SnapshotChunk(_)
        );
        self.term().0 < RAFT_NUMBER_MAX
            && (self.term().0 > 0 || !is_led)
            && match self {
                Self::PreVoteRequest(message) => message.last.is_possible_in(message.term),
                Self::VoteRequest(message) => message.last.is_possible_in(message.term),
                Self::AppendRequest(message) => {
                    is_chain(message.previous, &message.entries, message.term)
                        && message.commit.0 < RAFT_NUMBER_MAX
                }
                Self::AppendReply(message) => message.result.is_possible(),
                Self::TimeoutNow(message) => message.last.0 < RAFT_NUMBER_MAX,
                Self::FillRequest(message) => {
                    message.previous.is_possible_in(message.last.term)
                        && message.last.is_possible_in(Term(RAFT_NUMBER_MAX))
                        && message.previous.index < message.last.index
                }
                Self::FillReply(message) => message.is_possible(),
                Self::SnapshotChunk(message) => message.is_possible(),
                Self::SnapshotReply(message) => message.is_possible(),
                Self::ReadIndexReply(message) => message.index.is_none_or(|index| index.0 < RAFT_NUMBER_MAX),
                Self::PreVoteReply(_) | Self::VoteReply(_) | Self::ReadIndexRequest(_) => true,
            }
    }
}

impl Position {
    /// Whether a log of a member in `term` could hold this.
    fn is_possible_in(self, term: Term) -> bool {
        self.index.0 < RAFT_NUMBER_MAX && self.term <= term && (self.index.0 == 0) == (self.term.0 == 0)
    }
}

impl AppendResult {
    fn is_possible(&self) -> bool {
        match self {
            Self::Matched { upto } => upto.0 < RAFT_NUMBER_MAX,
            Self::Conflict { rejected, hint } => {
                rejected.0 < RAFT_NUMBER_MAX && hint.is_possible_in(Term(RAFT_NUMBER_MAX))
            }
        }
    }
}

impl FillReply {
    /// Whether the entries lead towards `last`, in its log.
    fn is_possible(&self) -> bool {
        let end = self.entries.last().map_or(self.previous, Entry::position);
        self.last.is_possible_in(Term(RAFT_NUMBER_MAX))
            && is_chain(self.previous, &self.entries, self.last.term)
            && (end.index < self.last.index || end == self.last)
    }
}

impl SnapshotName {
    /// Whether a leader of `term` can have a snapshot of this name.
    fn is_possible_in(&self, term: Term) -> bool {
        self.position.index.0 > 0
            && self.position.is_possible_in(term)
            && (1..RAFT_NUMBER_MAX).contains(&self.bytes_count)
    }
}

impl SnapshotChunk {
    /// Whether it lies within its file. An empty one would be acknowledged for ever (catalogue 26).
    fn is_possible(&self) -> bool {
        let is_empty = self.bytes_count == 0 && !planted!(26);
        self.snapshot.is_possible_in(self.term)
            && !is_empty
            && self.bytes_count as usize <= SNAPSHOT_CHUNK_BYTES_MAX
            && self.offset < self.snapshot.bytes_count
            && self.end() <= self.snapshot.bytes_count
    }
}

impl SnapshotReply {
    fn is_possible(&self) -> bool {
        self.snapshot.is_possible_in(Term(RAFT_NUMBER_MAX))
            && self.offset <= self.snapshot.bytes_count
            && self.upto <= self.snapshot.bytes_count
    }
}

/// Whether `entries` can follow on `previous` in a log whose terms reach at most `term_max`.
fn is_chain(previous: Position, entries: &[Entry], term_max: Term) -> bool {
    let mut below = previous;
    entries.len() <= APPEND_ENTRIES_MAX
        && previous.is_possible_in(term_max)
        && entries.iter().all(|entry| {
            let follows = entry.index == below.index.next()
                && entry.term >= below.term
                && entry.position().is_possible_in(term_max);
            below = entry.position();
            follows
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(previous: (u64, u64), entries: &[(u64, u64)], term: u64) -> Message {
        let position = |(index, term)| Position { index: LogIndex(index), term: Term(term) };
        let entry = |at: &(u64, u64)| Entry { index: LogIndex(at.0), term: Term(at.1), bytes_count: 1 };
        Message::AppendRequest(AppendRequest {
            term: Term(term),
            session: 1,
            previous: position(previous),
            entries: entries.iter().map(entry).collect(),
            commit: LogIndex(0),
            round: 0,
        })
    }

    #[test]
    fn entries_must_be_consecutive_and_their_terms_must_not_fall() {
        assert!(append((0, 0), &[], 1).is_well_formed());
        assert!(append((3, 1), &[(4, 1), (5, 2)], 2).is_well_formed());
        assert!(!append((3, 1), &[(5, 1)], 2).is_well_formed(), "a gap");
        assert!(!append((3, 2), &[(4, 1)], 2).is_well_formed(), "a falling term");
        assert!(!append((3, 1), &[(4, 3)], 2).is_well_formed(), "a term beyond the leader's");
        assert!(!append((3, 0), &[], 2).is_well_formed(), "an entry without a term");
        assert!(!append((0, 1), &[], 2).is_well_formed(), "a term without an entry");
        assert!(!append((0, 0), &[], 0).is_well_formed(), "a leader without a term");
        assert!(!append((0, 0), &[], u64::MAX).is_well_formed(), "a term that has no successor");
        assert!(!append((u64::MAX, 1), &[], 1).is_well_formed(), "an index that has no successor");
    }
}
