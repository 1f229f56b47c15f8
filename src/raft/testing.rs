//! Small helpers for the tests of this room (test-only).

use super::{
    AppendReply, AppendRequest, AppendResult, Config, Entry, Message, Node, Output, Position, RecoveredLog,
    RoleName, VoteReply,
};
use super::{HardState, PreVoteReply};
use crate::ids::{BootMicros, LogIndex, MemberId, Term};

/// E.
pub(super) const ELECTION_MICROS: u64 = 1_000;
/// Time between heartbeats.
pub(super) const HEARTBEAT_MICROS: u64 = 100;

/// Member `id` of `1..=members_count`.
pub(super) fn config(id: u64, members_count: u64, seed: u64) -> Config {
    Config {
        id: MemberId(id),
        voters: (1..=members_count).map(MemberId).collect(),
        election_micros: ELECTION_MICROS,
        heartbeat_micros: HEARTBEAT_MICROS,
        seed,
        noop_bytes: 64,
        lease_micros: 0,
        persist_bytes_max: crate::limits::TURN_APPEND_BYTES_MAX,
    }
}

pub(super) const fn position(index: u64, term: u64) -> Position {
    Position { index: LogIndex(index), term: Term(term) }
}

/// Entries of these terms, the first at `first`.
pub(super) fn entries(first: u64, terms: &[u64]) -> Vec<Entry> {
    let at = |(offset, term): (u64, &u64)| Entry {
        index: LogIndex(first + offset),
        term: Term(*term),
        bytes_count: 10,
    };
    (0..).zip(terms).map(at).collect()
}

/// A sound log of these terms, from index 1.
pub(super) fn recovered(terms: &[u64]) -> RecoveredLog {
    let term = Term(terms.last().copied().unwrap_or(0));
    let hard_state = HardState { term, ..HardState::default() };
    RecoveredLog { hard_state, entries: entries(1, terms), ..RecoveredLog::default() }
}

/// Member 1 of three, at time 0.
pub(super) fn member(recovered: RecoveredLog) -> Node {
    Node::new(config(1, 3, 1), recovered, BootMicros(0))
}

/// An append of the leader of `term`.
pub(super) fn append(term: u64, previous: Position, entries: Vec<Entry>, commit: u64) -> Message {
    let commit = LogIndex(commit);
    Message::AppendRequest(AppendRequest {
        term: Term(term),
        session: 7,
        previous,
        entries,
        commit,
        round: 0,
    })
}

/// Hands everything owed to the disk and completes it.
pub(super) fn sync(node: &mut Node, now: BootMicros) -> Vec<Output> {
    let mut out = Vec::new();
    while let Some(persist) = node.persist(now) {
        node.persisted(now, persist.mark, &mut out);
    }
    out
}

/// Calls `receive` and returns what came of it.
pub(super) fn receive(node: &mut Node, now: u64, from: u64, message: Message) -> Vec<Output> {
    let mut out = Vec::new();
    node.receive(BootMicros(now), MemberId(from), message, &mut out);
    out
}

/// Makes member 1 of three the leader of its next term; its no-op is durable, and flushed to the others.
pub(super) fn elect(node: &mut Node) -> BootMicros {
    let now = node.next_deadline();
    let mut out = Vec::new();
    node.tick(now, &mut out);
    let term = node.hard_state().term;
    let granted = PreVoteReply { term, asked: term.next(), is_granted: true };
    node.receive(now, MemberId(2), Message::PreVoteReply(granted), &mut out);
    sync(node, now);
    let granted = VoteReply { term: term.next(), is_granted: true };
    node.receive(now, MemberId(2), Message::VoteReply(granted), &mut out);
    assert_eq!(node.role(), RoleName::Leader);
    sync(node, now);
    node.flush(now, &mut out);
    now
}

/// Member `from`'s answer to the newest append in `out` that went to it.
pub(super) fn reply(out: &[Output], from: u64, result: AppendResult) -> Option<Message> {
    out.iter().rev().find_map(|output| {
        let Output::Send { to, message: Message::AppendRequest(request) } = output else {
            return None;
        };
        let (term, session, round) = (request.term, request.session, request.round);
        (to.0 == from).then_some(Message::AppendReply(AppendReply { term, session, round, result }))
    })
}

/// The messages in `out`.
pub(super) fn sent(out: &[Output]) -> Vec<&Message> {
    let mut messages = Vec::new();
    for output in out {
        if let Output::Send { message, .. } = output {
            messages.push(message);
        }
    }
    messages
}

/// Whether nothing may come of a message in `term`. A granted pre-vote is old or not by what was asked.
pub(super) fn is_old(message: &Message, term: Term) -> bool {
    if let Message::PreVoteReply(PreVoteReply { is_granted: true, asked, .. }) = message {
        return *asked <= term;
    }
    message.term() < term
}
