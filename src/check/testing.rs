//! Hand-made operations on one key, for the tests of both judges.

use super::{Answer, Call, CommittedWrite, Operation, WriteId};
use crate::ids::{LeaseId, Revision, SessionId};
use crate::kv::{
    Applied, Command, Compare, CompareOperator, CompareTarget, DeleteRange, DeleteRangeResult, KeyRange,
    KeyValue, Operation as Step, OperationResult, Outcome, Put, PutResult, Query, Range, RangeResult, Txn,
    TxnResult,
};
use bytes::Bytes;

pub(super) fn write_id(sequence: u64) -> WriteId {
    WriteId { session: SessionId(7), sequence }
}

pub(super) fn put_of(value: &'static str) -> Put {
    Put::new(Bytes::from("k"), Bytes::from(value))
}

pub(super) fn put(value: &'static str) -> Command {
    Command::Put(put_of(value))
}

pub(super) fn delete() -> Command {
    Command::DeleteRange(DeleteRange { range: KeyRange::Key(Bytes::from("k")), wants_previous: false })
}

/// Writes `value` if the key was last changed at `revision`.
pub(super) fn swap(revision: u64, value: &'static str) -> Command {
    Command::Txn(Txn {
        compares: vec![Compare {
            range: KeyRange::Key(Bytes::from("k")),
            operator: CompareOperator::Equal,
            target: CompareTarget::Mod(Revision(revision)),
        }],
        success: vec![Step::Put(put_of(value))],
        failure: vec![],
    })
}

pub(super) fn swapped(revision: u64, succeeded: bool) -> Answer {
    let results = if succeeded { vec![OperationResult::Put(PutResult::default())] } else { vec![] };
    applied(revision, Outcome::Txn(TxnResult { succeeded, results }))
}

pub(super) fn applied(revision: u64, outcome: Outcome) -> Answer {
    Answer::Applied(Applied { revision: Revision(revision), outcome })
}

pub(super) fn was_put(revision: u64) -> Answer {
    applied(revision, Outcome::Put(PutResult::default()))
}

pub(super) fn was_deleted(revision: u64) -> Answer {
    applied(revision, Outcome::DeleteRange(DeleteRangeResult { deleted: 1, previous: vec![] }))
}

pub(super) fn write(times: (u64, u64), sequence: u64, command: Command, answer: Answer) -> Operation {
    Operation {
        client: 1,
        invoked: times.0,
        completed: (answer != Answer::Unknown).then_some(times.1),
        call: Call::Write { write: write_id(sequence), command },
        answer,
    }
}

/// A read of the key that saw `value`, written at `written` for the `version`th time, at `revision`.
pub(super) fn read(times: (u64, u64), revision: u64, pair: Option<(&'static str, u64, u64)>) -> Operation {
    let pairs: Vec<_> = pair
        .map(|(value, written, version)| KeyValue {
            key: Bytes::from("k"),
            value: Bytes::from(value),
            create_revision: Revision(written + 1 - version),
            mod_revision: Revision(written),
            version,
            lease: LeaseId(0),
        })
        .into_iter()
        .collect();
    let count = pairs.len() as u64;
    Operation {
        client: 2,
        invoked: times.0,
        completed: Some(times.1),
        call: Call::Read {
            query: Query::Range(Range::new(KeyRange::Key(Bytes::from("k")))),
            is_linearizable: true,
        },
        answer: applied(revision, Outcome::Range(RangeResult { pairs, more: false, count })),
    }
}

pub(super) fn order(writes: &[(u64, Command)]) -> Vec<CommittedWrite> {
    let committed = |(sequence, command): &(u64, Command)| CommittedWrite {
        write: write_id(*sequence),
        command: command.clone(),
    };
    writes.iter().map(committed).collect()
}
