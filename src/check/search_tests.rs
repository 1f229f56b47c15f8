//! Hand-made histories for the search. It is told no order, and revisions are names to it.

use super::*;
use crate::check::Wrong;
use crate::check::testing::*;
use crate::kv::{KeyRange, OperationResult, Put, PutResult, Range, RangeResult, Txn, TxnResult};

const STEPS_MAX: u64 = 100_000;

fn is_possible(history: &[Operation]) -> bool {
    match check_by_search(history, &[], STEPS_MAX) {
        Verdict::Linearizable(_) => true,
        Verdict::Impossible(..) => false,
        Verdict::Undecided(searched) => panic!("undecided: {searched:?}"),
    }
}

fn violation(history: &[Operation]) -> Violation {
    match check_by_search(history, &[], STEPS_MAX) {
        Verdict::Impossible(_, violation) => *violation,
        verdict => panic!("the history is impossible, yet {verdict:?}"),
    }
}

/// The operations that contradict each other, by when they began.
fn offending(history: &[Operation]) -> Vec<u64> {
    let violation = violation(history);
    assert_eq!(violation.wrong, Wrong::NoOrder);
    violation.window[..violation.offending_count].iter().map(|operation| operation.invoked).collect()
}

#[test]
fn a_sound_history_has_an_order_lost_answers_included() {
    let history = [
        write((0, 10), 1, put("a"), was_put(2)),
        write((5, 20), 2, put("b"), Answer::Unknown),
        read((15, 30), 3, Some(("b", 3, 2))),
        write((31, 40), 3, swap(3, "c"), swapped(4, true)),
        write((32, 50), 4, swap(3, "d"), swapped(4, false)),
        write((33, 60), 5, put("never arrived"), Answer::NotDone),
        write((34, 60), 6, put("never arrived"), Answer::Unknown),
    ];
    let Verdict::Linearizable(searched) = check_by_search(&history, &[], STEPS_MAX) else {
        panic!("there is an order")
    };
    assert_eq!((searched.operations, searched.left_out, searched.partitions), (6, 1, 1));
}

#[test]
fn a_stale_read_has_no_order_and_the_window_is_the_read_and_the_write_it_missed() {
    let history = [
        write((0, 10), 1, put("a"), was_put(2)),
        write((20, 30), 2, put("b"), was_put(3)),
        read((31, 40), 2, Some(("a", 2, 1))),
        read((50, 60), 3, Some(("b", 3, 2))),
    ];
    assert_eq!(offending(&history), [20, 31]);
}

#[test]
fn a_read_that_is_concurrent_with_the_write_may_miss_it() {
    let history = [
        write((0, 10), 1, put("a"), was_put(2)),
        write((20, 30), 2, put("b"), was_put(3)),
        read((30, 40), 2, Some(("a", 2, 1))),
    ];
    assert!(is_possible(&history));
}

#[test]
fn reads_that_go_back_in_time_have_no_order() {
    let history = [
        write((0, 10), 1, put("a"), was_put(2)),
        write((20, 90), 2, put("b"), was_put(3)),
        read((30, 40), 3, Some(("b", 3, 2))),
        read((50, 60), 2, Some(("a", 2, 1))),
    ];
    assert!(!is_possible(&history));
}

#[test]
fn two_swaps_that_both_found_the_same_write_have_no_order() {
    let history = [
        write((0, 10), 1, put("a"), was_put(2)),
        write((20, 40), 2, swap(2, "b"), swapped(3, true)),
        write((21, 41), 3, swap(2, "c"), swapped(4, true)),
    ];
    assert_eq!(offending(&history), [20, 21]);
}

#[test]
fn a_lost_update_has_no_order_even_if_the_one_that_overwrote_it_was_not_answered() {
    // Two clients read version 1 and each wrote what it computed from it; the second answer says what was there before.
    let Command::Put(overwriting) = put("c") else { panic!("a put") };
    let overwriting = Command::Put(Put { wants_previous: true, ..overwriting });
    let Answer::Applied(Applied { outcome: Outcome::Range(seen), .. }) =
        read((0, 0), 2, Some(("a", 2, 1))).answer
    else {
        panic!("a read")
    };
    let previous = seen.pairs.into_iter().next();
    let history = [
        write((0, 10), 1, put("a"), was_put(2)),
        write((20, 30), 2, put("b"), was_put(3)),
        write((31, 41), 3, overwriting, applied(4, Outcome::Put(PutResult { previous }))),
    ];
    assert_eq!(offending(&history), [20, 31]);
}

#[test]
fn a_deleted_value_that_comes_back_has_no_order() {
    let history = [
        write((0, 10), 1, put("a"), was_put(2)),
        write((11, 20), 2, delete(), was_deleted(3)),
        read((30, 40), 3, Some(("a", 2, 1))),
    ];
    assert_eq!(offending(&history), [11, 30]);
}

#[test]
fn a_write_that_was_refused_for_certain_and_shows_up_has_no_order() {
    let history = [
        write((0, 10), 1, put("a"), was_put(2)),
        write((11, 20), 2, put("b"), Answer::NotDone),
        read((30, 40), 3, Some(("b", 3, 2))),
    ];
    let violation = violation(&history);
    assert_eq!(violation.window[0].invoked, 30, "the read is what nothing explains");
    assert!(violation.window.contains(&history[1]), "and the refused write stands beside it");
}

#[test]
fn a_write_that_was_done_twice_has_no_order() {
    // One put, yet the reader sees the second version of the key.
    let history = [write((0, 10), 1, put("a"), was_put(2)), read((30, 40), 3, Some(("a", 3, 2)))];
    assert!(!is_possible(&history));
    // Nor is it explained if nobody heard of the first: one put is one version.
    let history = [write((0, 10), 1, put("a"), Answer::Unknown), read((30, 40), 3, Some(("a", 3, 2)))];
    assert!(!is_possible(&history));
}

#[test]
fn a_write_without_an_answer_may_take_effect_long_after_it_was_given_up() {
    let late = [
        write((0, 10), 1, put("a"), Answer::Unknown),
        read((20, 30), 1, None),
        read((40, 50), 2, Some(("a", 2, 1))),
    ];
    assert!(is_possible(&late));
    let back = [late[0].clone(), late[2].clone(), read((60, 70), 1, None)];
    assert_eq!(offending(&back), [40, 60], "but it takes effect once");
}

#[test]
fn a_swap_without_an_answer_may_have_gone_either_way() {
    // What it compares with is the revision of a write that nobody was told; either reader is right.
    for seen in [("a", 2, 1), ("b", 3, 2)] {
        let history = [
            write((0, 10), 1, put("a"), Answer::Unknown),
            write((20, 30), 2, swap(2, "b"), Answer::Unknown),
            read((40, 50), seen.1, Some(seen)),
        ];
        assert!(is_possible(&history), "{seen:?}");
    }
    let history = [
        write((0, 10), 1, put("a"), Answer::Unknown),
        write((20, 30), 2, swap(2, "b"), Answer::Unknown),
        read((40, 50), 3, Some(("b", 3, 2))),
        read((60, 70), 2, Some(("a", 2, 1))),
    ];
    assert!(!is_possible(&history));
}

fn key(name: &'static str) -> Bytes {
    Bytes::from(name)
}

fn put_at(name: &'static str, value: &'static str) -> Put {
    Put::new(key(name), Bytes::from(value))
}

fn read_of(times: (u64, u64), range: KeyRange, names: &[&'static str]) -> Operation {
    let mut operation = read(times, 2, Some(("a", 2, 1)));
    let Answer::Applied(Applied { outcome: Outcome::Range(mut result), .. }) = operation.answer else {
        panic!("a read")
    };
    let pair = result.pairs.remove(0);
    result.pairs = names.iter().map(|name| crate::kv::KeyValue { key: key(name), ..pair.clone() }).collect();
    result.count = names.len() as u64;
    operation.answer = applied(2, Outcome::Range(result));
    operation.call = Call::Read { query: Query::Range(Range::new(range)), is_linearizable: true };
    operation
}

/// Writes "a" to both keys in one step.
fn both(times: (u64, u64), sequence: u64) -> Operation {
    let txn = Txn {
        compares: vec![],
        success: vec![Part::Put(put_at("x", "a")), Part::Put(put_at("y", "a"))],
        failure: vec![],
    };
    let results = vec![OperationResult::Put(PutResult::default()); 2];
    let answer = applied(2, Outcome::Txn(TxnResult { succeeded: true, results }));
    write(times, sequence, Command::Txn(txn), answer)
}

#[test]
fn keys_that_nothing_joins_are_searched_apart() {
    let put = |sequence, name| write((0, 10), sequence, Command::Put(put_at(name, "a")), was_put(2));
    let apart = [
        put(1, "x"),
        put(2, "y"),
        read_of((20, 30), KeyRange::Key(key("x")), &["x"]),
        read_of((20, 30), KeyRange::Key(key("z")), &[]),
    ];
    let partitions = |history: &[Operation]| match check_by_search(history, &[], STEPS_MAX) {
        Verdict::Linearizable(searched) => searched.partitions,
        verdict => panic!("{verdict:?}"),
    };
    assert_eq!(partitions(&apart), 3, "x, y, and what touches no key that was ever put");
    assert_eq!(partitions(&[both((0, 10), 1), read_of((20, 30), KeyRange::Key(key("x")), &["x"])]), 1);
}

#[test]
fn half_a_transaction_is_found_though_each_key_alone_is_sound() {
    // One reader sees x and not yet y, in one read.
    let half = read_of((5, 20), KeyRange::From(Bytes::new()), &["x"]);
    assert!(!is_possible(&[both((0, 10), 1), half]));
    // Two reads may: the transaction is between them.
    let apart = [
        both((0, 100), 1),
        read_of((5, 20), KeyRange::Key(key("y")), &[]),
        read_of((30, 40), KeyRange::Key(key("x")), &["x"]),
    ];
    assert!(is_possible(&apart));
    // But not in the opposite order: then y must be there, too.
    let crossed = [
        both((0, 100), 1),
        read_of((5, 20), KeyRange::Key(key("x")), &["x"]),
        read_of((30, 40), KeyRange::Key(key("y")), &[]),
    ];
    assert!(!is_possible(&crossed));
}

#[test]
fn revisions_are_names_and_an_order_that_they_contradict_is_still_an_order() {
    // The first judge refuses this: the later write was told the earlier revision. The search is independent of that.
    let history = [write((0, 10), 1, put("a"), was_put(9)), write((20, 30), 2, put("b"), was_put(4))];
    assert!(is_possible(&history));
    let misnamed = [history[0].clone(), read((11, 15), 9, Some(("a", 8, 1)))];
    assert!(!is_possible(&misnamed), "but a write has one name");
}

#[test]
fn a_search_that_reaches_its_bound_says_so() {
    let history: Vec<Operation> = (1..=9).map(|n| write((0, 100), n, put("a"), was_put(n + 1))).collect();
    let Verdict::Undecided(searched) = check_by_search(&history, &[], 5) else {
        panic!("five steps are not enough for nine writes")
    };
    assert_eq!((searched.undecided, searched.steps), (1, 5));
    assert!(is_possible(&history));
}

#[test]
fn a_long_history_is_cut_to_the_operations_that_contradict_each_other() {
    let mut history = Vec::new();
    for n in 1..=300 {
        history.push(write((n * 100, n * 100 + 50), n, put("a"), was_put(n + 1)));
        history.push(read((n * 100 + 60, n * 100 + 90), n + 1, Some(("a", n + 1, n))));
    }
    // One reader is two writes behind.
    history[401] = read((20_160, 20_190), 200, Some(("a", 200, 199)));
    assert_eq!(offending(&history), [20_100, 20_160]);
}

#[test]
fn what_is_answered_without_a_result_of_its_kind_has_no_order() {
    let history = [write((0, 10), 1, put("a"), applied(2, Outcome::Range(RangeResult::default())))];
    assert!(!is_possible(&history));
}
