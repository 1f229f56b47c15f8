//! Hand-made histories, good and bad. Each bad one is a thing that real systems have done.

use super::*;
use crate::check::testing::*;
use crate::ids::SessionId;

fn wrong(history: &[Operation], order: &[CommittedWrite]) -> Wrong {
    check_along_revisions(history, order).expect_err("the history is impossible").wrong
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
    let summary = check_along_revisions(&history, &order).unwrap();
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
    let violation = check_along_revisions(&history, &order).unwrap_err();
    assert_eq!(violation.wrong, Wrong::RealTime);
    let offending = &violation.window[..violation.offending_count];
    assert_eq!(
        offending,
        [history[2].clone(), history[1].clone()],
        "the read and the write it should have seen"
    );
}

#[test]
fn a_read_that_is_concurrent_with_the_write_may_miss_it() {
    let history = [
        write((0, 10), 1, put("a"), was_put(2)),
        write((20, 30), 2, put("b"), was_put(3)),
        read((30, 40), 2, Some(("a", 2, 1))),
    ];
    let order = order(&[(1, put("a")), (2, put("b"))]);
    assert!(check_along_revisions(&history, &order).is_ok());
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
        write((11, 20), 2, delete(), was_deleted(3)),
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
    assert!(check_along_revisions(&history, &order).is_ok());
    history.push(serializable(read((31, 40), 2, Some(("b", 2, 1)))));
    assert_eq!(wrong(&history, &order), Wrong::Answer);
}

#[test]
fn a_write_without_a_stamp_that_is_done_twice_is_found() {
    let bare = WriteId { session: SessionId(0), sequence: 77 };
    let mut history =
        [write((0, 10), 1, put("a"), was_put(2)), write((20, 30), 2, put("b"), Answer::Unknown)];
    let mut order = order(&[(1, put("a")), (2, put("b")), (2, put("b"))]);
    assert!(check_along_revisions(&history, &order).is_ok(), "a retry");
    history[1].call = Call::Write { write: bare, command: put("b") };
    order[1].write = bare;
    order[2].write = bare;
    assert!(check_along_revisions(&history, &order[..2]).is_ok(), "once");
    assert_eq!(wrong(&history, &order), Wrong::UnknownWrite);
}
