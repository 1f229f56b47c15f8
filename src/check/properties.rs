//! Any history that a store really gave, against both judges and as a file (test-only).
//!
//! A store serves random writes and reads in one order, each at some instant between its call and its return; some answers
//! are lost, some writes never arrive, some arrive twice. What it says is possible, so both judges must say so; with one
//! answer changed, or one answered write missing in the log, the judge along revisions must refuse it.
//!
//! Left out: compactions, because the judge along revisions does not know which of the reads of a revision came after
//! one; and transactions nested so deeply that readers of JSON refuse them.

use super::testing::write_id;
use super::{Answer, Call, CommittedWrite, Operation, check_along_revisions, from_lines, judge, to_lines};
use crate::kv::properties::Random;
use crate::kv::{Applied, Command, Outcome, Store, StoreRefusal, Txn};
use crate::property;
use bytes::Bytes;

const STEPS: u64 = 40;

/// Transactions one in another that a line holds.
const DEPTH_MAX: usize = 8;

/// What clients saw, and the log in its order.
struct Served {
    history: Vec<Operation>,
    order: Vec<CommittedWrite>,
}

fn served(random: &mut Random) -> Served {
    let mut store = Store::new();
    let mut served = Served { history: Vec::new(), order: Vec::new() };
    for number in 0..STEPS {
        let (call, answer) =
            if random.one_in(3) { read(random, &store) } else { write(random, &mut store, number) };
        if matches!(&answer, Answer::Applied(applied) if is_about_the_request(&applied.outcome)) {
            continue;
        }
        if let Call::Write { write, command } = &call
            && answer != Answer::NotDone
        {
            served.order.push(CommittedWrite { write: *write, command: command.clone() });
        }
        if random.one_in(8) && !served.order.is_empty() {
            let again = random.below(served.order.len() as u64);
            served.order.push(served.order[usize::try_from(again).unwrap()].clone());
        }
        random.revision = store.revision().0;
        let instant = 100 + 10 * number;
        let answer = if random.one_in(8) { Answer::Unknown } else { answer };
        served.history.push(Operation {
            client: u32::try_from(random.below(4)).unwrap(),
            invoked: instant - random.below(40),
            completed: (answer != Answer::Unknown).then(|| instant + 1 + random.below(40)),
            call,
            answer,
        });
    }
    served
}

fn write(random: &mut Random, store: &mut Store, number: u64) -> (Call, Answer) {
    let command = loop {
        let command = random.command();
        let is_flat = !matches!(&command, Command::Txn(txn) if depth(txn) > DEPTH_MAX);
        if is_flat && !matches!(command, Command::Compact(_) | Command::Lease(_) | Command::SpaceAlarm(_)) {
            break command;
        }
    };
    let answer = if random.one_in(15) { Answer::NotDone } else { Answer::Applied(store.apply(&command)) };
    (Call::Write { write: write_id(number), command }, answer)
}

/// A read, which any member may serve that is up to date.
fn read(random: &mut Random, store: &Store) -> (Call, Answer) {
    let query = random.query();
    let answer = Answer::Applied(store.query(&query));
    (Call::Read { query, is_linearizable: random.one_in(2) }, answer)
}

fn depth(txn: &Txn) -> usize {
    let mut nested = 0;
    txn.visit(&mut |_| nested += 1);
    nested
}

/// Refusals that the request alone deserves. They change nothing, and judges are not asked about them.
fn is_about_the_request(outcome: &Outcome) -> bool {
    let Outcome::Refused(refusal) = outcome else { return false };
    !matches!(refusal, StoreRefusal::KeyNotFound | StoreRefusal::FutureRevision | StoreRefusal::Compacted)
}

/// The same answer, a little wrong.
fn falsified(applied: &Applied) -> Applied {
    let mut wrong = applied.clone();
    match &mut wrong.outcome {
        Outcome::Put(result) if result.previous.is_some() => result.previous = None,
        Outcome::DeleteRange(result) => result.deleted += 1,
        Outcome::Txn(result) => result.succeeded = !result.succeeded,
        Outcome::Range(result) => match result.pairs.last_mut() {
            Some(pair) => pair.version += 1,
            None => result.count += 1,
        },
        Outcome::Put(_)
        | Outcome::Compacted
        | Outcome::Lease(_)
        | Outcome::SpaceAlarm(_)
        | Outcome::Refused(_) => {
            wrong.outcome = Outcome::Compacted;
        }
    }
    wrong
}

#[test]
fn what_a_store_said_passes_both_judges_and_a_changed_answer_does_not() {
    let (mut searched, mut undecided) = (0, 0);
    let tried = property::hold(1_000, |seed| {
        let mut random = Random::new(seed);
        let Served { mut history, order } = served(&mut random);
        let judged = judge(&history, &order);
        let judged = judged.unwrap_or_else(|violation| panic!("the store did say so, yet {violation}"));
        searched += judged.search.operations;
        undecided += judged.search.undecided;

        let at = usize::try_from(random.below(history.len() as u64)).unwrap();
        let Answer::Applied(applied) = &history[at].answer else { return };
        if let Call::Write { write, .. } = history[at].call {
            let without: Vec<_> =
                order.iter().filter(|committed| committed.write != write).cloned().collect();
            assert!(
                check_along_revisions(&history, &without).is_err(),
                "write {write} is missing in the log"
            );
        }
        history[at].answer = Answer::Applied(falsified(applied));
        assert!(check_along_revisions(&history, &order).is_err(), "this was not said: {}", history[at]);
    });
    assert!(tried < 1_000 || searched > 15_000, "the search judged {searched} operations");
    assert!(undecided * 100 <= tried, "{undecided} searches of {tried} histories came to no end");
}

#[test]
fn a_file_says_what_was_written_and_any_other_is_refused_or_can_be_said_again() {
    let mut understood = 0;
    let tried = property::hold(400, |seed| {
        let mut random = Random::new(seed);
        let mut history = served(&mut random).history;
        history.sort_by_key(|operation| operation.invoked);
        let text = to_lines(&history);
        assert_eq!(from_lines(&text).as_ref(), Ok(&history), "what is read back is what was written");

        let mut bytes = text.into_bytes();
        property::mutate(&mut bytes, || random.below(u64::MAX));
        let forged = String::from_utf8_lossy(&Bytes::from(bytes)).into_owned();
        match from_lines(&forged) {
            Ok(mut history) => {
                history.sort_by_key(|operation| operation.invoked);
                assert_eq!(
                    from_lines(&to_lines(&history)),
                    Ok(history),
                    "what was understood can be said again"
                );
                understood += 1;
            }
            Err(bad) => assert!((1..=forged.lines().count()).contains(&bad.line), "{bad}"),
        }
    });
    assert!(tried < 400 || understood > 20, "some forgeries are understood, {understood}");
}
