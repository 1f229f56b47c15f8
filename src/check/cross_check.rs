//! The search held against somebody else's: the checker of the crate `todc-utils`, on random short histories.
//!
//! One key is written, deleted, compared and read by a few clients, some of whose answers are lost and some of whose
//! answers are false. That crate knows nothing of mainstay's store, so what one key does is said a third time here, as
//! a specification of its kind. A write without an answer is a call there that returns last of all: what takes effect
//! after everything else might as well never have happened.
//!
//! Always: both verdicts are equal, history by history, and there are enough of each.

use super::testing::*;
use super::{Answer, Call, Operation, Verdict, check_by_search};
use crate::ids::{LeaseId, Revision};
use crate::kv::{
    Applied, Command, Compare, CompareOperator, CompareTarget, DeleteRangeResult, KeyRange, KeyValue,
    Operation as Part, OperationResult, Outcome, PutResult, RangeResult, Txn, TxnResult,
};
use crate::property;
use bytes::Bytes;
use todc_utils::{Action, History, Specification, WGLChecker};

const HISTORIES: u64 = 4_000;
const VALUES: [&str; 3] = ["a", "b", "c"];

/// What the one key holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pair {
    value: Bytes,
    version: u64,
    /// What its first and its last write are called, where their clients were told.
    created: Option<Revision>,
    changed: Option<Revision>,
}

/// What one key does, in that crate's words.
struct OneKey;

impl Specification for OneKey {
    type State = Option<Pair>;
    type Operation = Operation;

    fn init() -> Self::State {
        None
    }

    fn apply(operation: &Operation, state: &Self::State) -> (bool, Self::State) {
        let before = state.as_ref();
        let told = match &operation.answer {
            Answer::Applied(applied) => Some(applied),
            Answer::NotDone | Answer::Unknown => None,
        };
        let (outcome, next) = match &operation.call {
            Call::Write { command: Command::Put(put), .. } => {
                (Outcome::Put(PutResult::default()), Some(written(&put.value, told, before)))
            }
            Call::Write { command: Command::DeleteRange(_), .. } => (deleted(before), None),
            Call::Write { command: Command::Txn(txn), .. } => swapped_if(txn, told, before),
            Call::Write {
                command: Command::Compact(_) | Command::Lease(_) | Command::SpaceAlarm(_), ..
            } => {
                panic!("no history compacts, and none has leases or alarms")
            }
            Call::Read { .. } => {
                let is_seen = told.is_some_and(|applied| is_seen(&applied.outcome, before));
                return (is_seen, state.clone());
            }
        };
        let is_explained = told.is_none_or(|applied| applied.outcome == outcome);
        (is_explained, if is_explained { next } else { state.clone() })
    }
}

fn written(value: &Bytes, told: Option<&Applied>, before: Option<&Pair>) -> Pair {
    let name = told.map(|applied| applied.revision);
    Pair {
        value: value.clone(),
        version: before.map_or(0, |pair| pair.version) + 1,
        created: before.map_or(name, |pair| pair.created),
        changed: name,
    }
}

fn deleted(before: Option<&Pair>) -> Outcome {
    Outcome::DeleteRange(DeleteRangeResult { deleted: u64::from(before.is_some()), previous: vec![] })
}

/// The compare is of the value or of the version, which are known whether or not answers were lost.
fn swapped_if(txn: &Txn, told: Option<&Applied>, before: Option<&Pair>) -> (Outcome, Option<Pair>) {
    let succeeded = match &txn.compares[0].target {
        CompareTarget::Value(given) => before.is_some_and(|pair| pair.value == given),
        CompareTarget::Version(given) => before.map_or(0, |pair| pair.version) == *given,
        CompareTarget::Create(_) | CompareTarget::Mod(_) | CompareTarget::Lease(_) => {
            panic!("no history compares these")
        }
    };
    let (results, next) = match &txn.success[0] {
        Part::Put(put) if succeeded => {
            (vec![OperationResult::Put(PutResult::default())], Some(written(&put.value, told, before)))
        }
        Part::Put(_) | Part::DeleteRange(_) | Part::Range(_) | Part::Txn(_) => (vec![], before.cloned()),
    };
    (Outcome::Txn(TxnResult { succeeded, results }), next)
}

fn is_seen(outcome: &Outcome, state: Option<&Pair>) -> bool {
    let Outcome::Range(RangeResult { pairs, .. }) = outcome else {
        return false;
    };
    match (pairs.first(), state) {
        (None, None) => true,
        (Some(told), Some(pair)) => {
            told.value == pair.value
                && told.version == pair.version
                && pair.created.is_none_or(|created| told.create_revision == created)
                && pair.changed.is_none_or(|changed| told.mod_revision == changed)
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// Chance, for tests (`SplitMix64`).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn value(&mut self) -> &'static str {
        VALUES[usize::try_from(self.below(3)).unwrap_or(0)]
    }
}

/// A key that is really there, so that most answers are true.
#[derive(Default)]
struct Truth {
    pair: Option<Pair>,
    revision: u64,
}

impl Truth {
    /// Carries an operation out and says what its client is to be told.
    fn answer(&mut self, operation: &Operation) -> Answer {
        let pair = self.pair.take();
        let before = pair.as_ref();
        // The specification takes the name of a write from its answer, so this asks as if it had been told one.
        let named = Applied { revision: Revision(self.revision + 1), outcome: deleted(before) };
        let outcome = match &operation.call {
            Call::Write { command: Command::Put(put), .. } => {
                self.pair = Some(written(&put.value, Some(&named), before));
                Outcome::Put(PutResult::default())
            }
            Call::Write { command: Command::DeleteRange(_), .. } => deleted(before),
            Call::Write { command: Command::Txn(txn), .. } => {
                let (outcome, next) = swapped_if(txn, Some(&named), before);
                self.pair = next;
                outcome
            }
            Call::Write {
                command: Command::Compact(_) | Command::Lease(_) | Command::SpaceAlarm(_), ..
            } => {
                panic!("no history compacts, and none has leases or alarms")
            }
            Call::Read { .. } => {
                self.pair = before.cloned();
                Outcome::Range(seen(before))
            }
        };
        self.revision += u64::from(self.pair.as_ref() != before);
        Answer::Applied(Applied { revision: Revision(self.revision), outcome })
    }
}

fn seen(pair: Option<&Pair>) -> RangeResult {
    let pairs: Vec<KeyValue> = pair
        .map(|pair| KeyValue {
            key: Bytes::from("k"),
            value: pair.value.clone(),
            create_revision: pair.created.unwrap_or_default(),
            mod_revision: pair.changed.unwrap_or_default(),
            version: pair.version,
            lease: LeaseId(0),
        })
        .into_iter()
        .collect();
    RangeResult { count: pairs.len() as u64, pairs, more: false }
}

fn asked(chance: &mut Chance, sequence: u64) -> Operation {
    let swap = |target: CompareTarget, value: &'static str| {
        Command::Txn(Txn {
            compares: vec![Compare {
                range: KeyRange::Key(Bytes::from("k")),
                operator: CompareOperator::Equal,
                target,
            }],
            success: vec![Part::Put(put_of(value))],
            failure: vec![],
        })
    };
    let command = match chance.below(10) {
        0..3 => put(chance.value()),
        3 => delete(),
        4 => swap(CompareTarget::Version(chance.below(3)), chance.value()),
        5..7 => swap(CompareTarget::Value(Bytes::from(chance.value())), chance.value()),
        _ => return Operation { completed: None, answer: Answer::Unknown, ..read((0, 0), 1, None) },
    };
    write((0, 0), sequence, command, Answer::Unknown)
}

/// A history of up to fourteen operations by up to four clients, each of which waits for its answer or gives up.
///
/// Every operation takes effect at a random moment between its call and its return, or later if nobody waits for
/// it any more, or never; and in half of the histories one answer is replaced by another one's or by a made-up one.
fn random_history(chance: &mut Chance) -> Vec<Operation> {
    let clients = 1 + chance.below(4);
    let mut free_at = vec![0_u64; usize::try_from(clients).unwrap_or(1)];
    let mut history = Vec::new();
    // When each takes effect, if ever. Instants are multiples of the number of operations, so that no two are equal.
    let mut effects: Vec<(u64, usize)> = Vec::new();
    let count = 2 + chance.below(13);
    for number in 0..count {
        let client = usize::try_from(chance.below(clients)).unwrap_or(0);
        let mut operation = asked(chance, number);
        let invoked = free_at[client] + 1 + chance.below(20);
        let effect = invoked + chance.below(20);
        let completed = effect + 1 + chance.below(20);
        free_at[client] = completed;
        operation.client = u32::try_from(client).unwrap_or(0);
        operation.invoked = invoked * 64 + number;
        let is_lost = chance.below(5) == 0;
        operation.completed = (!is_lost).then_some(completed * 64 + 32 + number);
        let is_never = is_lost && chance.below(3) == 0;
        if !is_never {
            let late = if is_lost { chance.below(100) } else { 0 };
            effects.push(((effect + late) * 64 + number, history.len()));
        }
        history.push(operation);
    }
    effects.sort_unstable();
    let mut truth = Truth { pair: None, revision: 1 };
    for (_, at) in effects {
        let answer = truth.answer(&history[at]);
        if history[at].completed.is_some() {
            history[at].answer = answer;
        }
    }
    if chance.below(2) == 0 {
        falsify(chance, &mut history);
    }
    history
}

fn falsify(chance: &mut Chance, history: &mut [Operation]) {
    let answered: Vec<usize> = (0..history.len()).filter(|at| history[*at].completed.is_some()).collect();
    if answered.is_empty() {
        return;
    }
    let pick =
        |chance: &mut Chance| answered[usize::try_from(chance.below(answered.len() as u64)).unwrap_or(0)];
    let (at, other) = (pick(chance), pick(chance));
    if matches!(history[at].call, Call::Read { .. }) && matches!(history[other].call, Call::Read { .. }) {
        history[at].answer = history[other].answer.clone();
        return;
    }
    let Answer::Applied(applied) = &mut history[at].answer else {
        return;
    };
    match &mut applied.outcome {
        Outcome::Put(_) => applied.revision = Revision(2 + chance.below(6)),
        Outcome::DeleteRange(result) => result.deleted = 1 - result.deleted,
        Outcome::Txn(result) => {
            result.succeeded = !result.succeeded;
            result.results =
                if result.succeeded { vec![OperationResult::Put(PutResult::default())] } else { vec![] };
        }
        Outcome::Range(result) => match result.pairs.first_mut() {
            Some(pair) if chance.below(2) == 0 => pair.version += 1,
            Some(pair) => pair.value = Bytes::from(chance.value()),
            None => {}
        },
        Outcome::Compacted | Outcome::Lease(_) | Outcome::SpaceAlarm(_) | Outcome::Refused(_) => {}
    }
}

/// What that crate says.
fn todc_says(history: &[Operation]) -> bool {
    let mut actions = Vec::new();
    for (at, operation) in history.iter().enumerate() {
        let is_read = matches!(operation.call, Call::Read { .. });
        if is_read && operation.completed.is_none() {
            continue;
        }
        // Each operation is a process of its own: one that never returns would otherwise block its client's others.
        actions.push((operation.invoked, at, Action::Call(operation.clone())));
        let returned = operation.completed.unwrap_or(u64::MAX);
        actions.push((returned, at, Action::Response(operation.clone())));
    }
    if actions.is_empty() {
        return true;
    }
    actions.sort_by_key(|(instant, at, _)| (*instant, *at));
    let actions = actions.into_iter().map(|(_, at, action)| (at, action)).collect();
    WGLChecker::<OneKey>::is_linearizable(History::from_actions(actions))
}

#[test]
fn both_checkers_say_the_same_of_every_history() {
    let (mut possible, mut open) = (0, 0);
    let histories = property::hold(HISTORIES, |seed| {
        let history = random_history(&mut Chance(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)));
        let verdict = check_by_search(&history, &[], 1_000_000);
        let ours = match &verdict {
            Verdict::Linearizable(_) => true,
            Verdict::Impossible(..) => false,
            Verdict::Undecided(searched) => panic!("seed {seed} is undecided: {searched:?}"),
        };
        if ours != todc_says(&history) {
            let told: Vec<String> = history.iter().map(ToString::to_string).collect();
            panic!("seed {seed}, and ours is {verdict:#?} of\n{}", told.join("\n"));
        }
        possible += u64::from(ours);
        open += u64::from(history.iter().any(|operation| operation.completed.is_none()));
    });
    println!(
        "{histories} histories, {possible} of them linearizable, {open} with lost answers: all verdicts equal"
    );
    let is_mixed = |count: u64| (histories / 4..histories * 9 / 10).contains(&count);
    assert!(
        histories < HISTORIES || is_mixed(possible) && is_mixed(open),
        "of {histories}, {possible} and {open}"
    );
}

/// A checker that ignores real time, or that lets a write happen twice, would not agree with the other.
#[test]
fn the_comparison_can_fail() {
    let stale = [
        write((0, 10), 1, put("a"), was_put(2)),
        write((20, 30), 2, put("b"), was_put(3)),
        read((31, 40), 2, Some(("a", 2, 1))),
    ];
    assert!(!todc_says(&stale));
    let concurrent = [stale[0].clone(), stale[1].clone(), read((30, 40), 2, Some(("a", 2, 1)))];
    assert!(todc_says(&[concurrent[0].clone(), concurrent[1].clone(), read((29, 40), 2, Some(("a", 2, 1)))]));
    let lost = [write((0, 10), 1, put("a"), Answer::Unknown), read((20, 30), 1, None)];
    assert!(todc_says(&lost), "a write without an answer may never happen");
}
