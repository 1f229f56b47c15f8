//! Between raft's words and the format's, which are plain integers.

use crate::ids::{GroupId, LogIndex, MemberId, Term};
use crate::raft::{HardState, Position, Reset, Run, RunKind};

/// A position as the format has it.
pub(super) const fn encoded_position(position: Position) -> wal_format::Position {
    wal_format::Position { index: position.index.0, term: position.term.0 }
}

/// A position as raft has it.
pub(super) const fn position(encoded: wal_format::Position) -> Position {
    Position { index: LogIndex(encoded.index), term: Term(encoded.term) }
}

/// A group's tail as the format has it.
pub(super) fn encoded_tail(group: GroupId, hard_state: HardState, last: Position) -> wal_format::GroupTail {
    let hard_state = wal_format::HardState {
        term: hard_state.term.0,
        vote: hard_state.vote.map_or(0, |member| member.0),
        commit: hard_state.commit.0,
    };
    wal_format::GroupTail { group: group.0, hard_state, last: encoded_position(last) }
}

/// A hard state as raft has it. Member 0 is nobody: no real member has that id.
pub(super) const fn hard_state(encoded: wal_format::HardState) -> HardState {
    HardState {
        term: Term(encoded.term),
        vote: if encoded.vote == 0 { None } else { Some(MemberId(encoded.vote)) },
        commit: LogIndex(encoded.commit),
    }
}

/// A run as the format has it.
pub(super) const fn encoded_run(run: &Run) -> wal_format::Run {
    wal_format::Run {
        kind: encoded_kind(run.kind),
        previous: encoded_position(run.previous),
        first: run.first.0,
        last: run.last.0,
    }
}

const fn encoded_kind(kind: RunKind) -> wal_format::RunKind {
    match kind {
        RunKind::Append => wal_format::RunKind::Append,
        RunKind::Fill => wal_format::RunKind::Fill,
    }
}

/// A reset as the format has it; `tail` is what its write makes durable.
pub(super) const fn encoded_reset(tail: wal_format::GroupTail, reset: Reset) -> wal_format::Reset {
    wal_format::Reset { tail, kind: encoded_kind(reset.kind), snapshot: encoded_position(reset.snapshot) }
}
