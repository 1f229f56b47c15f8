//! The judge that searches: is there any order at all that explains the answers and agrees with real time?
//!
//! Wing and Gong's search with Lowe's improvements (Wing and Gong 1993; Lowe 2017; the list that operations are lifted
//! out of is Horn and Kroening's, 2015):
//!
//! ```text
//!   calls and returns in time's order, as a linked list       c1 ─ c2 ─ r1 ─ c3 ─ r2 ─ r3
//!   may come next: whatever was called before the first return     ^    ^
//!   its answer is explained?  lift it out of the list, go on from the new front
//!   nothing may come next?    put the last one back and try another in its place
//! ```
//!
//! - Positions already seen (the same operations lifted, the same present of all keys) are not searched twice.
//! - An answered operation that changes nothing is taken as soon as it is explained, and never taken back on its own:
//!   in any order that explains it later, it can be moved to here.
//! - A write without an answer has no return, so it may come at any time after its call, or never.
//! - Operations on keys that nothing joins are searched apart (`partition`).
//! - Which of several is tried first follows the revisions they were told. That is advice, not trust: it decides how
//!   long the search takes and never what it finds.
//!
//! Always: the search ends within its bound of steps, and if it has not found an answer by then it says so. Left
//! out, and counted: reads that may be old, reads of past revisions, and refusals; they are `along_revisions`'s.

use super::along_revisions::Place;
use super::history::{Answer, Call, Operation};
use super::partition::partitions;
use super::present::{Keys, Present, Taking, mixed};
use super::violation::Violation;
use super::window::narrow;
use crate::ids::Revision;
use crate::kv::{Applied, Command, Operation as Part, Outcome, Query};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// How a search went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    /// Operations that were put in order, or could not be.
    pub operations: u64,
    /// Operations that this judge does not look at.
    pub left_out: u64,
    /// Sets of keys that were searched apart from each other.
    pub partitions: u64,
    /// Of those, the ones whose search ended at its bound.
    pub undecided: u64,
    /// Operations tried at some place of some order.
    pub steps: u64,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Linearizable(Searched),
    /// There is none.
    Impossible(Searched, Box<Violation>),
    /// The bound was reached first; of a part of the history nobody knows.
    Undecided(Searched),
}

/// Searches for an order of `history`, in at most `steps_max` steps for each set of joined keys.
///
/// `places` may advise where each operation is likely to be; if it is empty, the answers alone do.
pub fn check_by_search(history: &[Operation], places: &[Option<Place>], steps_max: u64) -> Verdict {
    let judged: Vec<usize> = (0..history.len()).filter(|at| is_judged(&history[*at])).collect();
    let keys = Keys::of(history);
    let advice = if places.is_empty() {
        advised(history)
    } else {
        places.iter().map(|place| advice_at(*place)).collect()
    };
    let mut searched = Searched { operations: judged.len() as u64, ..Searched::default() };
    searched.left_out = history.len() as u64 - searched.operations;
    let mut present = Present::empty(&keys);
    for members in partitions(history, &judged, &keys) {
        searched.partitions += 1;
        let steps: Vec<Step<'_>> = members.iter().map(|at| Step::of(history, *at, &advice)).collect();
        let mut steps_left = steps_max;
        let found = search(&steps, &mut present, &mut steps_left);
        searched.steps += steps_max - steps_left;
        match found {
            Found::Order => {}
            Found::Undecided => searched.undecided += 1,
            Found::NoOrder { stuck } => {
                let violation = narrow(history, &steps, &keys, stuck);
                return Verdict::Impossible(searched, Box::new(violation));
            }
        }
    }
    if searched.undecided == 0 { Verdict::Linearizable(searched) } else { Verdict::Undecided(searched) }
}

/// Whether an operation can have had an effect or an answer that this judge understands.
fn is_judged(operation: &Operation) -> bool {
    match (&operation.call, &operation.answer) {
        (_, Answer::NotDone | Answer::Applied(Applied { outcome: Outcome::Refused(_), .. }))
        | (Call::Read { .. }, Answer::Unknown)
        | (Call::Read { is_linearizable: false, .. } | Call::Read { query: Query::Leases, .. }, _) => false,
        (Call::Read { query: Query::Range(range), .. }, Answer::Applied(_)) => range.revision.0 == 0,
        (Call::Read { query: Query::Txn(_), .. }, Answer::Applied(_))
        | (Call::Write { .. }, Answer::Applied(_) | Answer::Unknown) => true,
    }
}

/// Advice for an operation of which nothing is known: after all others.
const LAST: u64 = u64::MAX;

/// What makes a revision is tried before what may see it.
fn advice_at(place: Option<Place>) -> u64 {
    place.map_or(LAST, |place| 2 * place.revision.0 + u64::from(!place.is_change))
}

/// Advice from the answers: what each was told, and for writes without an answer what readers of their value were.
fn advised(history: &[Operation]) -> Vec<u64> {
    let mut seen: BTreeMap<(&Bytes, &Bytes), Revision> = BTreeMap::new();
    for operation in history {
        let Some(Applied { outcome: Outcome::Range(result), .. }) = told(operation) else {
            continue;
        };
        seen.extend(result.pairs.iter().map(|pair| ((&pair.key, &pair.value), pair.mod_revision)));
    }
    let seen_of = |operation: &Operation| match &operation.call {
        Call::Write { command: Command::Put(put), .. } => seen.get(&(&put.key, &put.value)).copied(),
        Call::Write { command: Command::Txn(txn), .. } => txn.success.iter().find_map(|part| match part {
            Part::Put(put) => seen.get(&(&put.key, &put.value)).copied(),
            Part::DeleteRange(_) | Part::Range(_) | Part::Txn(_) => None,
        }),
        Call::Write {
            command:
                Command::DeleteRange(_) | Command::Compact(_) | Command::Lease(_) | Command::SpaceAlarm(_),
            ..
        }
        | Call::Read { .. } => None,
    };
    let advice = |operation: &Operation| {
        let is_change = matches!(operation.call, Call::Write { .. });
        let revision = told(operation).map(|told| told.revision).or_else(|| seen_of(operation));
        advice_at(revision.map(|revision| Place { revision, is_change }))
    };
    history.iter().map(advice).collect()
}

/// What an operation was answered, if it was.
pub(super) const fn told(operation: &Operation) -> Option<&Applied> {
    match &operation.answer {
        Answer::Applied(applied) => Some(applied),
        Answer::NotDone | Answer::Unknown => None,
    }
}

/// An operation as the search sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'h> {
    /// Its position in the history.
    pub(super) at: usize,
    pub(super) call: &'h Call,
    /// Its answer, which must be explained; without one it may have happened or not.
    pub(super) told: Option<&'h Applied>,
    pub(super) invoked: u64,
    /// When it was answered. Of no meaning without an answer.
    pub(super) completed: u64,
    /// When it is tried, compared with others.
    pub(super) advice: u64,
}

impl<'h> Step<'h> {
    fn of(history: &'h [Operation], at: usize, advice: &[u64]) -> Self {
        let operation = &history[at];
        Self {
            at,
            call: &operation.call,
            told: told(operation),
            invoked: operation.invoked,
            completed: operation.completed.unwrap_or(u64::MAX),
            advice: advice[at],
        }
    }
}

/// What a search of one partition found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Order,
    /// However the others are ordered, this step (or one before it) is left over.
    NoOrder {
        stuck: usize,
    },
    Undecided,
}

/// A step at one place of the order, and how its transaction is guessed to have gone; tried in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Choice {
    advice: u64,
    step: usize,
    is_second_guess: bool,
}

/// A choice that was made.
struct Made {
    choice: Choice,
    mark: usize,
    /// Whether nothing else need be tried in its place.
    is_final: bool,
    /// How far the advice has been followed with it.
    front: u64,
}

/// Searches for an order of `steps` that begins with `present`, in so many steps.
pub(super) fn search<'h>(steps: &[Step<'h>], present: &mut Present<'_, 'h>, steps_left: &mut u64) -> Found {
    let begin = present.mark();
    let found = Search::new(steps, present).run(steps_left);
    present.undo_to(begin);
    found
}

struct Search<'s, 'k, 'h> {
    steps: &'s [Step<'h>],
    present: &'s mut Present<'k, 'h>,
    line: Line,
    made: Vec<Made>,
    /// Answered steps that are not in the order yet.
    required_left: usize,
    /// Of the steps in the order.
    lifted_hash: u128,
    /// Positions that were searched, or are being searched: steps lifted, and what the keys hold then.
    seen: BTreeSet<u128>,
    /// The last return that any order stopped at: its place on the line, and its step.
    stuck: (usize, usize),
}

impl<'s, 'k, 'h> Search<'s, 'k, 'h> {
    fn new(steps: &'s [Step<'h>], present: &'s mut Present<'k, 'h>) -> Self {
        Self {
            steps,
            present,
            line: Line::of(steps),
            made: Vec::new(),
            required_left: steps.iter().filter(|step| step.told.is_some()).count(),
            lifted_hash: 0,
            seen: BTreeSet::new(),
            stuck: (0, 0),
        }
    }

    fn run(&mut self, steps_left: &mut u64) -> Found {
        let mut after = None;
        while self.required_left > 0 {
            let Some(choice) = self.next_choice(after) else {
                self.note_stuck();
                let Some(choice) = self.take_back() else {
                    return Found::NoOrder { stuck: self.stuck.1 };
                };
                after = Some(choice);
                continue;
            };
            if *steps_left == 0 {
                return Found::Undecided;
            }
            *steps_left -= 1;
            after = if self.make(choice) { None } else { Some(choice) };
        }
        Found::Order
    }

    /// The first choice after `after` among the steps that were called before the first return.
    fn next_choice(&self, after: Option<Choice>) -> Option<Choice> {
        let mut best: Option<Choice> = None;
        let mut consider = |choice: Choice| {
            if after.is_none_or(|after| choice > after) && best.is_none_or(|best| choice < best) {
                best = Some(choice);
            }
        };
        let front = self.made.last().map_or(0, |made| made.front);
        for step in self.line.called() {
            let Step { advice, call, told, .. } = &self.steps[step];
            // A write without an answer that did nothing in its place is not likely to have come later.
            let advice = if told.is_none() && *advice < front { LAST } else { *advice };
            consider(Choice { advice, step, is_second_guess: false });
            if told.is_none() && matches!(call, Call::Write { command: Command::Txn(_), .. }) {
                consider(Choice { advice: LAST, step, is_second_guess: true });
            }
        }
        best
    }

    /// Puts a step next into the order, if its answer is explained there and this leads somewhere new.
    fn make(&mut self, choice: Choice) -> bool {
        let step = &self.steps[choice.step];
        let mark = self.present.mark();
        let number = step.at as u64;
        let likely = if step.advice == LAST { Revision(0) } else { Revision(step.advice / 2) };
        let is_second_guess = choice.is_second_guess;
        let taking = Taking { call: step.call, told: step.told, number, likely, is_second_guess };
        let is_explained = self.present.take(taking);
        let changes_nothing = self.present.mark() == mark;
        // A write that was not answered and changes nothing might as well come later, or never.
        let is_pointless = changes_nothing && step.told.is_none();
        let lifted_hash = self.lifted_hash ^ mixed([u64::MAX, number, 0, 0]);
        if !is_explained || is_pointless || !self.seen.insert(lifted_hash ^ self.present.hash()) {
            self.present.undo_to(mark);
            return false;
        }
        self.lifted_hash = lifted_hash;
        self.required_left -= usize::from(step.told.is_some());
        self.line.lift(choice.step);
        let front = self.made.last().map_or(0, |made| made.front);
        let front = if choice.advice == LAST { front } else { front.max(choice.advice) };
        self.made.push(Made { choice, mark, is_final: changes_nothing, front });
        true
    }

    /// Takes the last choices back, up to and including one that has alternatives.
    fn take_back(&mut self) -> Option<Choice> {
        while let Some(Made { choice, mark, is_final, .. }) = self.made.pop() {
            let step = &self.steps[choice.step];
            self.line.put_back(choice.step);
            self.required_left += usize::from(step.told.is_some());
            self.lifted_hash ^= mixed([u64::MAX, step.at as u64, 0, 0]);
            self.present.undo_to(mark);
            if !is_final {
                return Some(choice);
            }
        }
        None
    }

    fn note_stuck(&mut self) {
        if let Some(stuck) = self.line.first_return() {
            self.stuck = self.stuck.max(stuck);
        }
    }
}

/// Calls and returns in time's order, as a doubly linked list that steps are lifted out of.
///
/// Place 0 is both ends of it; the call of step `n` is node `2n + 1`, its return `2n + 2`.
struct Line {
    next: Vec<usize>,
    previous: Vec<usize>,
    /// The places of the nodes in the whole list.
    places: Vec<usize>,
}

impl Line {
    fn of(steps: &[Step<'_>]) -> Self {
        let mut nodes = Vec::with_capacity(2 * steps.len());
        for (number, step) in steps.iter().enumerate() {
            // What returns at the very instant of a call is concurrent with it.
            nodes.push((step.invoked, false, 2 * number + 1));
            if step.told.is_some() {
                nodes.push((step.completed, true, 2 * number + 2));
            }
        }
        nodes.sort_unstable();
        let mut line = Self {
            next: vec![0; 2 * steps.len() + 1],
            previous: vec![0; 2 * steps.len() + 1],
            places: vec![0; 2 * steps.len() + 1],
        };
        let mut last = 0;
        for (place, (_, _, node)) in nodes.into_iter().enumerate() {
            line.places[node] = place;
            line.next[last] = node;
            line.previous[node] = last;
            last = node;
        }
        line.next[last] = 0;
        line.previous[0] = last;
        line
    }

    /// The steps called before the first return.
    fn called(&self) -> impl Iterator<Item = usize> {
        let nodes = core::iter::successors(Some(self.next[0]), |node| Some(self.next[*node]));
        nodes.take_while(|node| node % 2 == 1).map(|node| node / 2)
    }

    /// The place of the first return, and its step.
    fn first_return(&self) -> Option<(usize, usize)> {
        let mut node = self.next[0];
        while node % 2 == 1 {
            node = self.next[node];
        }
        (node > 0).then(|| (self.places[node], node / 2 - 1))
    }

    fn lift(&mut self, step: usize) {
        for node in [2 * step + 1, 2 * step + 2] {
            if self.is_on_line(node) {
                let (before, after) = (self.previous[node], self.next[node]);
                self.next[before] = after;
                self.previous[after] = before;
            }
        }
    }

    /// Undoes the last `lift` that is not undone yet, which must have been of this step.
    fn put_back(&mut self, step: usize) {
        for node in [2 * step + 2, 2 * step + 1] {
            if self.is_on_line(node) {
                let (before, after) = (self.previous[node], self.next[node]);
                self.next[before] = node;
                self.previous[after] = node;
            }
        }
    }

    /// Whether a node was ever on the line: the return of a step without an answer was not.
    fn is_on_line(&self, node: usize) -> bool {
        node % 2 == 1 || self.places[node] > 0
    }
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
