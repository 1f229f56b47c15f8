//! Hand-made histories, good and bad. Each bad one is a thing that real systems have done.

use super::*;
use crate::ids::{LeaseId, SessionId};
use crate::kv::{
    Command, Compare, CompareOperator, CompareTarget, DeleteRange, DeleteRangeResult, KeyRange, KeyValue,
    Operation as Step, OperationResult, Outcome, Put, PutResult, Query, Range, RangeResult, Txn, TxnResult,
};
use bytes::Bytes;

fn write_id(sequence: u64) -> WriteId {
    WriteId { session: SessionId(7), sequence }
}

fn put_of(value: &'static str) -> Put {
    Put { key: Bytes::from("k"), value: Bytes::from(value), lease: LeaseId(0), wants_previous: false }
}

fn put(value: &'static str) -> Command {
    Command::Put(put_of(value))
}

fn delete() -> Command {
    Command::DeleteRange(DeleteRange { range: KeyRange::Key(Bytes::from("k")), wants_previous: false })
}

/// Writes `value` if the key was last changed at `revision`.
fn swap(revision: u64, value: &'static str) -> Command {
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

fn swapped(revision: u64, succeeded: bool) -> Answer {
    let results = if succeeded { vec![OperationResult::Put(PutResult::default())] } else { vec![] };
    applied(revision, Outcome::Txn(TxnResult { succeeded, results }))
}

fn applied(revision: u64, outcome: Outcome) -> Answer {
    Answer::Applied(Applied { revision: Revision(revision), outcome })
}

fn was_put(revision: u64) -> Answer {
    applied(revision, Outcome::Put(PutResult::default()))
}

fn write(times: (u64, u64), sequence: u64, command: Command, answer: Answer) -> Operation {
    Operation {
        client: 1,
        invoked: times.0,
        completed: (answer != Answer::Unknown).then_some(times.1),
        call: Call::Write { write: write_id(sequence), command },
        answer,
    }
}

/// A read of the key that saw `value`, written at `written` for the `version`th time, at `revision`.
fn read(times: (u64, u64), revision: u64, pair: Option<(&'static str, u64, u64)>) -> Operation {
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
            query: Query::Range(Range {
                range: KeyRange::Key(Bytes::from("k")),
                limit: 0,
                revision: Revision(0),
                keys_only: false,
                count_only: false,
            }),
            is_linearizable: true,
        },
        answer: applied(revision, Outcome::Range(RangeResult { pairs, more: false, count })),
    }
}

fn order(writes: &[(u64, Command)]) -> Vec<CommittedWrite> {
    let committed = |(sequence, command): &(u64, Command)| CommittedWrite {
        write: write_id(*sequence),
        command: command.clone(),
    };
    writes.iter().map(committed).collect()
}

fn wrong(history: &[Operation], order: &[CommittedWrite]) -> Wrong {
    check_strict_serializability(history, order).expect_err("the history is impossible").wrong
}

#[test]
fn a_sound_history_passes_retries_and_lost_answers_included() {
    let history = [
        write((0, 10), 1, put("a"), was_put(2)),
        write((5, 20), 2, put("b"), Answer::Unknown),
        read((15, 30), 3, Some(("b", 3, 2))),
        write((31, 40), 3, swap(3, "c"), swapped(4, true)),
        write((32, 50), 4, swap(3, "d"), swapped(4, false)),
        write((33, 60), 5, put("never arrived"), Answer::NotDone),
        write((34, 60), 6, put("never arrived"), Answer::Unknown),
    ];
    let order = order(&[
        (1, put("a")),
        (2, put("b")),
        (1, put("a")),
        (3, swap(3, "c")),
        (2, put("b")),
        (4, swap(3, "d")),
    ]);
    let summary = check_strict_serializability(&history, &order).unwrap();
    assert_eq!((summary.writes, summary.reads, summary.unknown), (4, 1, 2));
}

#[test]
fn a_stale_read_is_found() {
    let history = [
        write((0, 10), 1, put("a"), was_put(2)),
        write((20, 30), 2, put("b"), was_put(3)),
        read((31, 40), 2, Some(("a", 2, 1))),
    ];
    let order = order(&[(1, put("a")), (2, put("b"))]);
    let violation = check_strict_serializability(&history, &order).unwrap_err();
    assert_eq!(violation.wrong, Wrong::RealTime);
    assert_eq!(violation.window.len(), 2, "the read and the write it should have seen");
}

#[test]
fn a_read_that_is_concurrent_with_the_write_may_miss_it() {
    let history = [
        write((0, 10), 1, put("a"), was_put(2)),
        write((20, 30), 2, put("b"), was_put(3)),
        read((30, 40), 2, Some(("a", 2, 1))),
    ];
    let order = order(&[(1, put("a")), (2, put("b"))]);
    assert!(check_strict_serializability(&history, &order).is_ok());
}

#[test]
fn reads_that_go_back_in_time_are_found_even_between_two_readers() {
    let history = [
        write((0, 10), 1, put("a"), was_put(2)),
        write((20, 90), 2, put("b"), was_put(3)),
        read((30, 40), 3, Some(("b", 3, 2))),
        read((50, 60), 2, Some(("a", 2, 1))),
    ];
    let order = order(&[(1, put("a")), (2, put("b"))]);
    assert_eq!(wrong(&history, &order), Wrong::RealTime);
}

#[test]
fn a_lost_update_is_found() {
    // Both swaps claim to have found revision 2.
    let history = [
        write((0, 10), 1, put("a"), was_put(2)),
        write((20, 40), 2, swap(2, "b"), swapped(3, true)),
        write((21, 41), 3, swap(2, "c"), swapped(4, true)),
    ];
    let order = order(&[(1, put("a")), (2, swap(2, "b")), (3, swap(2, "c"))]);
    assert_eq!(wrong(&history, &order), Wrong::Answer);
}

#[test]
fn an_answered_write_that_is_nowhere_is_found() {
    let history = [write((0, 10), 1, put("a"), was_put(2))];
    assert_eq!(wrong(&history, &[]), Wrong::LostWrite);
}

#[test]
fn a_retry_applied_twice_is_found_by_the_revisions_after_it() {
    // The second copy of write 1 made revision 3, so write 2 answered 4.
    let history = [write((0, 10), 1, put("a"), was_put(2)), write((20, 30), 2, put("b"), was_put(4))];
    let order = order(&[(1, put("a")), (1, put("a")), (2, put("b"))]);
    assert_eq!(wrong(&history, &order), Wrong::Answer);
}

#[test]
fn a_resurrected_value_is_found() {
    let history = [
        write((0, 10), 1, put("a"), was_put(2)),
        write(
            (11, 20),
            2,
            delete(),
            applied(3, Outcome::DeleteRange(DeleteRangeResult { deleted: 1, previous: vec![] })),
        ),
        read((30, 40), 3, Some(("a", 2, 1))),
    ];
    let order = order(&[(1, put("a")), (2, delete())]);
    assert_eq!(wrong(&history, &order), Wrong::Answer);
}

#[test]
fn a_write_done_though_refused_for_certain_is_found() {
    let history = [write((0, 10), 1, put("a"), Answer::NotDone)];
    assert_eq!(wrong(&history, &order(&[(1, put("a"))])), Wrong::DoneThoughRefused);
}

#[test]
fn a_committed_write_that_nobody_asked_for_is_found() {
    assert_eq!(wrong(&[], &order(&[(1, put("a"))])), Wrong::UnknownWrite);
    let history = [write((0, 10), 1, put("a"), was_put(2))];
    assert_eq!(wrong(&history, &order(&[(1, put("b"))])), Wrong::UnknownWrite);
}

#[test]
fn a_write_that_takes_effect_before_it_was_asked_for_is_found() {
    // Its answer was lost, but its place in the log is before a write that had completed.
    let history = [write((0, 10), 1, put("a"), was_put(3)), write((20, 30), 2, put("b"), Answer::Unknown)];
    let order = order(&[(2, put("b")), (1, put("a"))]);
    assert_eq!(wrong(&history, &order), Wrong::RealTime);
}

#[test]
fn a_read_of_a_revision_that_never_was_is_found() {
    assert_eq!(wrong(&[read((0, 1), 9, None)], &[]), Wrong::FutureRead);
}

#[test]
fn a_serializable_read_may_be_old_but_not_wrong() {
    let serializable = |mut operation: Operation| {
        if let Call::Read { is_linearizable, .. } = &mut operation.call {
            *is_linearizable = false;
        }
        operation
    };
    let mut history = vec![
        write((0, 10), 1, put("a"), was_put(2)),
        write((20, 30), 2, put("b"), was_put(3)),
        serializable(read((31, 40), 2, Some(("a", 2, 1)))),
    ];
    let order = order(&[(1, put("a")), (2, put("b"))]);
    assert!(check_strict_serializability(&history, &order).is_ok());
    history.push(serializable(read((31, 40), 2, Some(("b", 2, 1)))));
    assert_eq!(wrong(&history, &order), Wrong::Answer);
}
