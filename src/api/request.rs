//! Requests and responses of clients, independent of the protocol they came by.

use super::Refusal;
use crate::auth::{AuthAnswer, AuthCommand, AuthQuery};
use crate::ids::{ClusterId, KeyspaceId, LeaseId, LogIndex, MemberId, Revision, SessionId, Term, WatchId};
use crate::kv::{Applied, Query};
use crate::watch::{Batch, Ending, WatchSpec};
use bytes::Bytes;

/// What makes a write apply exactly once, however often it is sent (DESIGN §10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The session.
    pub session: SessionId,
    /// The write's number in the session, from 1; a retry repeats it.
    pub sequence: u64,
    /// The client has the answers of every sequence up to and including this one.
    pub low_water: u64,
}

/// A `kv::Command` in its encoded form (PROTOCOL.md), checked: it decodes and is within every limit.
///
/// The bytes of the client's frame become the body of the log entry without being written again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedCommand(pub(super) Bytes);

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// The latest committed value at some instant between request and response.
    Linearizable,
    /// Whatever this member has applied.
    Serializable,
    /// Whatever this member has applied, if that lacks nothing that was committed so long before the request came, by its clock.
    MaxAge {
        /// How long, in milliseconds.
        max_age_ms: u32,
        /// What it is to do if it does not know so.
        otherwise: Otherwise,
    },
    /// Whatever this member has applied, if that is this revision or a later one.
    MinRevision {
        /// The revision.
        revision: Revision,
        /// What it is to do if it has not come so far.
        otherwise: Otherwise,
    },
}

/// What a member is to do that cannot promise what a read asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// Refuse, as `TooOld`.
    Refuse,
    /// Answer as a linearizable read.
    AskLeader,
}

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Open a session.
    OpenSession {
        /// Where.
        keyspace: KeyspaceId,
    },
    /// Close a session; its memory of results goes.
    CloseSession {
        /// Where.
        keyspace: KeyspaceId,
        /// Which.
        session: SessionId,
    },
    /// Change the store.
    Write {
        /// Where.
        keyspace: KeyspaceId,
        /// For exactly-once; without it a lost answer leaves the outcome unknown.
        stamp: Option<Stamp>,
        /// What.
        command: EncodedCommand,
    },
    /// Read the store.
    Read {
        /// Where.
        keyspace: KeyspaceId,
        /// What.
        query: Query,
        /// How fresh.
        mode: ReadMode,
    },
    /// Make a lease last for all of its time again. Needs no entry of the log, as a rule.
    KeepAlive {
        /// Where.
        keyspace: KeyspaceId,
        /// Which.
        lease: LeaseId,
    },
    /// How a lease stands.
    TimeToLive {
        /// Where.
        keyspace: KeyspaceId,
        /// Which.
        lease: LeaseId,
        /// Say its keys, too.
        wants_keys: bool,
    },
    /// How this member sees itself and its cluster. Needs no quorum.
    Status,
    /// Something about the watches of the connection it comes on.
    Watch(WatchRequest),
    /// Something about the snapshots of the member asked.
    Snapshot {
        /// Of which keyspace.
        keyspace: KeyspaceId,
        /// What.
        request: SnapshotRequest,
    },
}

/// Something about users and roles. The native protocol has no words for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsersRequest {
    /// Change something.
    Change {
        /// For exactly-once.
        stamp: Option<Stamp>,
        /// What.
        command: AuthCommand,
    },
    /// Ask something.
    Ask {
        /// What.
        query: AuthQuery,
        /// How fresh.
        mode: ReadMode,
    },
}

/// The answer to a `UsersRequest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsersAnswer {
    /// It is changed.
    Changed,
    /// The answer to a question.
    Told(AuthAnswer),
}

/// What a client asks of a member's snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotRequest {
    /// One that holds everything that was committed when this was asked. Answered when it is whole, durable and read back.
    Cut,
    /// Some of the bytes of one.
    Read {
        /// The last entry that is in it.
        index: LogIndex,
        /// The term of that entry.
        term: Term,
        /// From where; whole blocks.
        offset: u64,
        /// How many, at most `SNAPSHOT_PIECE_BYTES`; whole blocks. Fewer come only at the end of the file.
        bytes_count: u32,
    },
}

/// What a member says of its snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotAnswer {
    /// There is one to be read. It stays for a while after this, and after each piece that is read of it.
    Cut {
        /// The last entry that is in it.
        index: LogIndex,
        /// The term of that entry.
        term: Term,
        /// Bytes of its file.
        bytes_count: u64,
        /// The hash that its closing holds.
        hash: u64,
    },
    /// Some of its bytes.
    Piece(Bytes),
}

/// What a client asks of the watches on one of its connections. The request that creates a watch gives it its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchRequest {
    /// A new watch.
    Create {
        /// Where.
        keyspace: KeyspaceId,
        /// What it is to be told.
        spec: WatchSpec,
    },
    /// A watch is to end.
    Cancel {
        /// Which.
        watch: WatchId,
    },
    /// How far is it? Answered once it was told everything there is.
    Progress {
        /// Which.
        watch: WatchId,
    },
}

/// The answer to a `Request`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// The session is open on a majority.
    SessionOpened {
        /// Its id.
        session: SessionId,
    },
    /// The session is closed.
    SessionClosed,
    /// The answer of the store, to a write or a read.
    Applied(Applied),
    /// The answer of the store to a read with a bound.
    Aged {
        /// It lacks nothing that was committed so long before the request came, in microseconds by the member's clock;
        /// none if the member does not know.
        age_micros: Option<u64>,
        /// The answer.
        applied: Applied,
    },
    /// The answer to `Request::Status`.
    Status(Box<Status>),
    /// The answer to `Request::Watch`, or something that a watch is told.
    Watch(WatchAnswer),
    /// The answer to `Request::Snapshot`.
    Snapshot(SnapshotAnswer),
    /// The answer to a `UsersRequest`.
    Users {
        /// The store's revision.
        revision: Revision,
        /// What.
        answer: UsersAnswer,
    },
    /// The request was not served.
    Refused(Refusal),
}

/// What a client hears of its watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchAnswer {
    /// The watch is created. If it is one from now on, it is told everything after this revision.
    Created {
        /// The store's revision then.
        revision: Revision,
    },
    /// The watch is no more: nothing is told to it after this.
    Cancelled,
    /// The answer to a request for progress: the watch was told everything up to this revision.
    Reached {
        /// The revision.
        revision: Revision,
    },
    /// Told to a watch, unasked.
    Told(Batch),
    /// A watch has ended by itself, unasked.
    Ended {
        /// Why.
        why: Ending,
    },
}

/// One member's view of itself and its group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Who answers.
    pub member: MemberId,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Who leads, as far as it knows.
    pub leader: Option<MemberId>,
    /// The end of its log.
    pub last_index: LogIndex,
    /// What it knows to be committed.
    pub commit_index: LogIndex,
    /// What it has applied.
    pub applied_index: LogIndex,
    /// The store's revision.
    pub revision: Revision,
    /// What keeps it from serving, in words; empty when nothing does.
    pub waiting_for: String,
    /// Its cluster; 0 before the founding.
    pub cluster: ClusterId,
    /// Its build's version.
    pub version: String,
    /// Half of its log's syncs took no longer than this, in microseconds; 0 before the first.
    pub sync_p50_micros: u64,
    /// All but one in a hundred of its log's syncs took no longer than this, in microseconds.
    pub sync_p99_micros: u64,
    /// All members of the configuration, itself included, as far as it knows them.
    pub members: Vec<MemberView>,
    /// Where the time of writes went on this member in the last one to two minutes.
    pub stages: Vec<Stage>,
    /// What this member has counted since its start.
    pub counters: Vec<Counter>,
}

/// The times that one stage of a write took, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// How many times were measured; the others are 0 if none.
    pub count: u64,
    /// Half took no longer.
    pub p50_micros: u64,
    /// All but one in a hundred took no longer.
    pub p99_micros: u64,
    /// The longest.
    pub max_micros: u64,
}

/// Something counted since a member's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// What.
    pub name: String,
    /// How many.
    pub value: u64,
}

/// A member as another sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberView {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty if not heard yet.
    pub name: String,
    /// Where native clients reach it; empty if not heard yet.
    pub native: String,
    /// Where etcd clients reach it; empty if not heard yet.
    pub client: String,
    /// Where its peers reach it.
    pub peer: String,
    /// Whether the speaker has a connection to it (to itself: always).
    pub is_reachable: bool,
}

/// A member's role, as a client sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Role {
    #[default]
    Follower,
    Candidate,
    Leader,
}
