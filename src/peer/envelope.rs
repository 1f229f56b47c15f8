//! The rkyv envelope: mirrors of what a frame carries beside raw bytes, and the way there and back.
//!
//! Mirrors, because raft knows no formats. The way back is checked: a mirror that has been accessed is well formed.
//! What it leaves out: lengths and checksums (`frame.rs`).

use crate::ids::{DirectoryId, LogIndex, MemberId, Term};
use crate::limits::{LOG_INDEX_MAX, TERM_MAX};
use crate::raft::{
    AppendReply, AppendRequest, AppendResult, Entry, FillReply, FillRequest, Message, Position, PreVoteReply,
    PreVoteRequest, ReadIndexReply, ReadIndexRequest, SnapshotChunk, SnapshotName, SnapshotReply, TimeoutNow,
    VoteReply, VoteRequest,
};
use rkyv::primitive::ArchivedU64;
use rkyv::{Archive, Serialize};

#[derive(Archive, Serialize)]
pub(super) struct Envelope {
    pub(super) cluster: u64,
    pub(super) group: u32,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) from_directory: u64,
    pub(super) to_directory: u64,
    pub(super) content: Content,
}

#[derive(Archive, Serialize)]
pub(super) enum Content {
    Raft(WireMessage),
    Forward { request: u64, term: u64, kind: u8, keyspace: u32, stamp: Option<WireStamp> },
    ForwardReply { request: u64 },
    AskLease { request: u64, term: u64, keyspace: u32, lease: u64, is_renewal: bool, wants_keys: bool },
    Hello { incarnation: u64, is_started: bool, recorded: Vec<WireRecorded>, your_directory: u64 },
}

#[derive(Archive, Serialize)]
pub(super) struct WireStamp {
    pub(super) session: u64,
    pub(super) sequence: u64,
    pub(super) low_water: u64,
}

#[derive(Archive, Serialize)]
pub(super) struct WireRecorded {
    pub(super) member: u64,
    pub(super) directory: u64,
}

#[derive(Archive, Serialize)]
pub(super) struct WirePosition {
    index: u64,
    term: u64,
}

/// The entry's index is not sent: entries are consecutive from `previous` on.
#[derive(Archive, Serialize)]
pub(super) struct WireEntry {
    term: u64,
    bytes_count: u32,
}

#[derive(Archive, Serialize)]
pub(super) enum WireAppendResult {
    Matched { upto: u64 },
    Conflict { rejected: u64, hint: WirePosition },
}

#[derive(Archive, Serialize)]
pub(super) struct WireAppendRequest {
    term: u64,
    session: u64,
    previous: WirePosition,
    entries: Vec<WireEntry>,
    commit: u64,
    round: u64,
}

#[derive(Archive, Serialize)]
pub(super) struct WireAppendReply {
    term: u64,
    session: u64,
    round: u64,
    result: WireAppendResult,
}

#[derive(Archive, Serialize)]
pub(super) struct WireFillReply {
    term: u64,
    last: WirePosition,
    previous: WirePosition,
    entries: Vec<WireEntry>,
}

#[derive(Archive, Serialize)]
pub(super) struct WireSnapshot {
    position: WirePosition,
    bytes_count: u64,
    hash: u64,
}

#[derive(Archive, Serialize)]
pub(super) struct WireSnapshotChunk {
    term: u64,
    session: u64,
    snapshot: WireSnapshot,
    offset: u64,
    bytes_count: u32,
}

#[derive(Archive, Serialize)]
pub(super) struct WireSnapshotReply {
    term: u64,
    session: u64,
    snapshot: WireSnapshot,
    offset: u64,
    upto: u64,
}

#[derive(Archive, Serialize)]
pub(super) enum WireMessage {
    PreVoteRequest { term: u64, last: WirePosition },
    PreVoteReply { term: u64, asked: u64, is_granted: bool },
    VoteRequest { term: u64, last: WirePosition, is_transfer: bool },
    VoteReply { term: u64, is_granted: bool },
    AppendRequest(WireAppendRequest),
    AppendReply(WireAppendReply),
    TimeoutNow { term: u64, last: u64 },
    ReadIndexRequest { term: u64, request: u64 },
    ReadIndexReply { term: u64, request: u64, index: Option<u64> },
    FillRequest { term: u64, previous: WirePosition, last: WirePosition },
    FillReply(WireFillReply),
    SnapshotChunk(WireSnapshotChunk),
    SnapshotReply(WireSnapshotReply),
}

/// The mirror of a message.
pub(super) fn mirror(message: &Message) -> WireMessage {
    assert_entries_are_consecutive(message);
    match message {
        Message::PreVoteRequest(m) => {
            WireMessage::PreVoteRequest { term: m.term.0, last: mirror_position(m.last) }
        }
        Message::PreVoteReply(m) => {
            WireMessage::PreVoteReply { term: m.term.0, asked: m.asked.0, is_granted: m.is_granted }
        }
        Message::VoteRequest(m) => WireMessage::VoteRequest {
            term: m.term.0,
            last: mirror_position(m.last),
            is_transfer: m.is_transfer,
        },
        Message::VoteReply(m) => WireMessage::VoteReply { term: m.term.0, is_granted: m.is_granted },
        Message::AppendRequest(m) => WireMessage::AppendRequest(WireAppendRequest {
            term: m.term.0,
            session: m.session,
            previous: mirror_position(m.previous),
            entries: mirror_entries(&m.entries),
            commit: m.commit.0,
            round: m.round,
        }),
        Message::AppendReply(m) => WireMessage::AppendReply(WireAppendReply {
            term: m.term.0,
            session: m.session,
            round: m.round,
            result: mirror_result(m.result),
        }),
        Message::TimeoutNow(m) => WireMessage::TimeoutNow { term: m.term.0, last: m.last.0 },
        Message::ReadIndexRequest(m) => WireMessage::ReadIndexRequest { term: m.term.0, request: m.request },
        Message::ReadIndexReply(m) => WireMessage::ReadIndexReply {
            term: m.term.0,
            request: m.request,
            index: m.index.map(|index| index.0),
        },
        Message::FillRequest(m) => WireMessage::FillRequest {
            term: m.term.0,
            previous: mirror_position(m.previous),
            last: mirror_position(m.last),
        },
        Message::FillReply(m) => WireMessage::FillReply(WireFillReply {
            term: m.term.0,
            last: mirror_position(m.last),
            previous: mirror_position(m.previous),
            entries: mirror_entries(&m.entries),
        }),
        Message::SnapshotChunk(m) => WireMessage::SnapshotChunk(WireSnapshotChunk {
            term: m.term.0,
            session: m.session,
            snapshot: mirror_snapshot(m.snapshot),
            offset: m.offset,
            bytes_count: m.bytes_count,
        }),
        Message::SnapshotReply(m) => WireMessage::SnapshotReply(WireSnapshotReply {
            term: m.term.0,
            session: m.session,
            snapshot: mirror_snapshot(m.snapshot),
            offset: m.offset,
            upto: m.upto,
        }),
    }
}

fn assert_entries_are_consecutive(message: &Message) {
    let (previous, entries) = message.carried();
    let mut before = previous.index;
    for entry in entries {
        assert!(entry.index == before.next(), "a message's entries are consecutive from its previous one");
        before = entry.index;
    }
}

fn mirror_position(position: Position) -> WirePosition {
    WirePosition { index: position.index.0, term: position.term.0 }
}

fn mirror_snapshot(name: SnapshotName) -> WireSnapshot {
    WireSnapshot { position: mirror_position(name.position), bytes_count: name.bytes_count, hash: name.hash }
}

fn mirror_entries(entries: &[Entry]) -> Vec<WireEntry> {
    let mirror = |entry: &Entry| WireEntry { term: entry.term.0, bytes_count: entry.bytes_count };
    entries.iter().map(mirror).collect()
}

fn mirror_result(result: AppendResult) -> WireAppendResult {
    match result {
        AppendResult::Matched { upto } => WireAppendResult::Matched { upto: upto.0 },
        AppendResult::Conflict { rejected, hint } => {
            WireAppendResult::Conflict { rejected: rejected.0, hint: mirror_position(hint) }
        }
    }
}

/// The message that a mirror stands for. `None`: an index or a term is one that no log can have reached.
pub(super) fn message(wire: &ArchivedWireMessage) -> Option<Message> {
    use ArchivedWireMessage as Wire;
    Some(match wire {
        Wire::PreVoteRequest { term, last } => {
            Message::PreVoteRequest(PreVoteRequest { term: to_term(*term)?, last: position(last)? })
        }
        Wire::PreVoteReply { term, asked, is_granted } => Message::PreVoteReply(PreVoteReply {
            term: to_term(*term)?,
            asked: to_term(*asked)?,
            is_granted: *is_granted,
        }),
        Wire::VoteRequest { term, last, is_transfer } => Message::VoteRequest(VoteRequest {
            term: to_term(*term)?,
            last: position(last)?,
            is_transfer: *is_transfer,
        }),
        Wire::VoteReply { term, is_granted } => {
            Message::VoteReply(VoteReply { term: to_term(*term)?, is_granted: *is_granted })
        }
        Wire::AppendRequest(append) => Message::AppendRequest(append_request(append)?),
        Wire::AppendReply(reply) => Message::AppendReply(append_reply(reply)?),
        Wire::TimeoutNow { term, last } => {
            Message::TimeoutNow(TimeoutNow { term: to_term(*term)?, last: to_index(*last)? })
        }
        Wire::ReadIndexRequest { term, request } => Message::ReadIndexRequest(ReadIndexRequest {
            term: to_term(*term)?,
            request: request.to_native(),
        }),
        Wire::ReadIndexReply { term, request, index } => Message::ReadIndexReply(ReadIndexReply {
            term: to_term(*term)?,
            request: request.to_native(),
            index: match index.as_ref() {
                Some(index) => Some(to_index(*index)?),
                None => None,
            },
        }),
        Wire::FillRequest { term, previous, last } => Message::FillRequest(FillRequest {
            term: to_term(*term)?,
            previous: position(previous)?,
            last: position(last)?,
        }),
        Wire::FillReply(reply) => Message::FillReply(fill_reply(reply)?),
        Wire::SnapshotChunk(chunk) => Message::SnapshotChunk(SnapshotChunk {
            term: to_term(chunk.term)?,
            session: chunk.session.to_native(),
            snapshot: snapshot(&chunk.snapshot)?,
            offset: to_offset(chunk.offset, chunk.snapshot.bytes_count)?,
            bytes_count: chunk.bytes_count.to_native(),
        }),
        Wire::SnapshotReply(reply) => Message::SnapshotReply(SnapshotReply {
            term: to_term(reply.term)?,
            session: reply.session.to_native(),
            snapshot: snapshot(&reply.snapshot)?,
            offset: to_offset(reply.offset, reply.snapshot.bytes_count)?,
            upto: to_offset(reply.upto, reply.snapshot.bytes_count)?,
        }),
    })
}

fn append_request(wire: &ArchivedWireAppendRequest) -> Option<AppendRequest> {
    Some(AppendRequest {
        term: to_term(wire.term)?,
        session: wire.session.to_native(),
        previous: position(&wire.previous)?,
        entries: entries(&wire.previous, &wire.entries)?,
        commit: to_index(wire.commit)?,
        round: wire.round.to_native(),
    })
}

fn append_reply(wire: &ArchivedWireAppendReply) -> Option<AppendReply> {
    Some(AppendReply {
        term: to_term(wire.term)?,
        session: wire.session.to_native(),
        round: wire.round.to_native(),
        result: result(&wire.result)?,
    })
}

fn fill_reply(wire: &ArchivedWireFillReply) -> Option<FillReply> {
    Some(FillReply {
        term: to_term(wire.term)?,
        last: position(&wire.last)?,
        previous: position(&wire.previous)?,
        entries: entries(&wire.previous, &wire.entries)?,
    })
}

/// The index, if a log can have reached it; so whoever counts on from it cannot overflow.
fn to_index(wire: ArchivedU64) -> Option<LogIndex> {
    let index = wire.to_native();
    (index <= LOG_INDEX_MAX).then_some(LogIndex(index))
}

/// The term, if elections can have reached it.
fn to_term(wire: ArchivedU64) -> Option<Term> {
    let term = wire.to_native();
    (term <= TERM_MAX).then_some(Term(term))
}

fn position(wire: &ArchivedWirePosition) -> Option<Position> {
    Some(Position { index: to_index(wire.index)?, term: to_term(wire.term)? })
}

fn snapshot(wire: &ArchivedWireSnapshot) -> Option<SnapshotName> {
    let bytes_count = wire.bytes_count.to_native();
    (bytes_count <= LOG_INDEX_MAX).then_some(SnapshotName {
        position: position(&wire.position)?,
        bytes_count,
        hash: wire.hash.to_native(),
    })
}

/// The offset, if it lies in a file of `bytes_count` bytes or at its end.
fn to_offset(wire: ArchivedU64, bytes_count: ArchivedU64) -> Option<u64> {
    let offset = wire.to_native();
    (offset <= bytes_count.to_native()).then_some(offset)
}

fn entries(previous: &ArchivedWirePosition, wire: &[ArchivedWireEntry]) -> Option<Vec<Entry>> {
    let mut before = to_index(previous.index)?;
    let mut entries = Vec::with_capacity(wire.len());
    for entry in wire {
        let index = before.next();
        before = index;
        entries.push(Entry { index, term: to_term(entry.term)?, bytes_count: entry.bytes_count.to_native() });
    }
    Some(entries)
}

fn result(wire: &ArchivedWireAppendResult) -> Option<AppendResult> {
    Some(match wire {
        ArchivedWireAppendResult::Matched { upto } => AppendResult::Matched { upto: to_index(*upto)? },
        ArchivedWireAppendResult::Conflict { rejected, hint } => {
            AppendResult::Conflict { rejected: to_index(*rejected)?, hint: position(hint)? }
        }
    })
}

/// Which member has which directory, as a hello tells it.
pub(super) fn recorded(wire: &ArchivedWireRecorded) -> (MemberId, DirectoryId) {
    (MemberId(wire.member.to_native()), DirectoryId(wire.directory.to_native()))
}
