//! Checks a history of the whole store against the committed order of its writes.
//!
//! ```text
//!   the witness     w1 ─ w2 ─ w2' ─ w3 ─ …      first copies only, replayed through the model
//!   revisions       2    3          4            what each write must have answered
//!   reads           each must be what the model held at the revision it names
//!   real time       completed before invoked  =>  not later in this order
//! ```
//!
//! Always: an answer is right only if it is, in every byte, what the model says for its place. A write without an
//! answer has the place the witness gives it, or none.

use super::history::{Answer, Call, CommittedWrite, Operation, WriteId};
use super::model::Model;
use crate::ids::Revision;
use crate::kv::Applied;
use core::fmt;
use std::collections::BTreeMap;

/// What a sound history amounted to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Writes in the committed order, retries not counted.
    pub writes: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Writes that were refused for certain, and are indeed not in the committed order.
    pub not_done: u64,
    /// Operations without an answer.
    pub unknown: u64,
}

/// How a history is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The answer is not the store's at that place: a lost update, a double apply, a resurrected value, …
    Answer,
    /// An answered write is not in the committed order.
    LostWrite,
    /// A write that was refused for certain is in the committed order.
    DoneThoughRefused,
    /// The committed order holds a write that nobody asked for, or asks for something else.
    UnknownWrite,
    /// A read names a revision that was never made.
    FutureRead,
    /// It began after another had completed, yet takes effect before it.
    RealTime,
}

/// An impossible history, with the shortest part of it that shows so.
#[derive(Clone, Debug)]
pub struct Violation {
    /// How.
    pub wrong: Wrong,
    /// In words, with what was expected.
    pub explanation: String,
    /// The operations that contradict each other, then those concurrent with them.
    pub window: Vec<Operation>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.wrong, brief(&self.explanation))?;
        for operation in &self.window {
            write!(f, "\n    {}", brief(&operation.to_string()))?;
        }
        Ok(())
    }
}

/// Values can be long, and what matters stands in front.
fn brief(line: &str) -> String {
    if line.len() <= LINE_BYTES_MAX {
        return line.to_owned();
    }
    let mut short: String = line.chars().take(LINE_BYTES_MAX).collect();
    short.push('…');
    short
}

/// Characters of one line of an explanation.
const LINE_BYTES_MAX: usize = 600;

/// Operations shown around a violation.
const WINDOW_OPERATIONS_MAX: usize = 12;

/// Checks `history` against `order`, the writes of the committed log in its order, retries included.
///
/// # Errors
/// The first contradiction found.
pub fn check_strict_serializability(
    history: &[Operation],
    order: &[CommittedWrite],
) -> Result<Summary, Box<Violation>> {
    let mut model = Model::default();
    let writes = writes_by_id(history)?;
    let mut places: Vec<Option<Place>> = vec![None; history.len()];
    let mut summary =
        Summary { writes: replay(history, &writes, order, &mut model, &mut places)?, ..Summary::default() };
    for (at, operation) in history.iter().enumerate() {
        match (&operation.call, &operation.answer) {
            (Call::Read { query, is_linearizable }, Answer::Applied(applied)) => {
                summary.reads += 1;
                if applied.revision > model.revision() {
                    let explanation = format!("the last revision made is {}", model.revision());
                    return Err(violation(history, Wrong::FutureRead, explanation, &[at]));
                }
                let outcome = model.read(applied.revision, query);
                if outcome != applied.outcome {
                    return Err(violation(history, Wrong::Answer, format!("expected {outcome:?}"), &[at]));
                }
                places[at] =
                    is_linearizable.then_some(Place { revision: applied.revision, is_change: false });
            }
            (Call::Write { write, .. }, Answer::Applied(_)) if places[at].is_none() => {
                let explanation = format!("write {write} was answered but is not in the committed order");
                return Err(violation(history, Wrong::LostWrite, explanation, &[at]));
            }
            (Call::Write { write, .. }, Answer::NotDone) if places[at].is_some() => {
                let explanation = format!("write {write} was refused for certain, yet it was done");
                return Err(violation(history, Wrong::DoneThoughRefused, explanation, &[at]));
            }
            (Call::Write { .. }, Answer::NotDone) => summary.not_done += 1,
            (_, Answer::Unknown) => summary.unknown += 1,
            (Call::Write { .. }, Answer::Applied(_)) | (Call::Read { .. }, Answer::NotDone) => {}
        }
    }
    check_real_time(history, &places)?;
    Ok(summary)
}

/// Where an operation takes effect.
#[derive(Clone, Copy, Debug)]
struct Place {
    revision: Revision,
    /// Whether it made that revision, rather than happening while it was current.
    is_change: bool,
}

fn writes_by_id(history: &[Operation]) -> Result<BTreeMap<WriteId, usize>, Box<Violation>> {
    let mut writes = BTreeMap::new();
    for (at, operation) in history.iter().enumerate() {
        if let Call::Write { write, .. } = &operation.call
            && let Some(other) = writes.insert(*write, at)
        {
            let explanation = format!("two operations claim to be write {write}");
            return Err(violation(history, Wrong::UnknownWrite, explanation, &[other, at]));
        }
    }
    Ok(writes)
}

/// Replays the first copy of each write; returns how many there were.
fn replay(
    history: &[Operation],
    writes: &BTreeMap<WriteId, usize>,
    order: &[CommittedWrite],
    model: &mut Model,
    places: &mut [Option<Place>],
) -> Result<u64, Box<Violation>> {
    let mut writes_count = 0;
    for committed in order {
        let found = writes.get(&committed.write).map(|at| (*at, &history[*at]));
        let Some((at, operation)) = found else {
            let explanation = format!("nobody asked for the committed write {}", committed.write);
            return Err(violation(history, Wrong::UnknownWrite, explanation, &[]));
        };
        if !matches!(&operation.call, Call::Write { command, .. } if *command == committed.command) {
            let explanation = format!("what was committed is {:?}", committed.command);
            return Err(violation(history, Wrong::UnknownWrite, explanation, &[at]));
        }
        if places[at].is_some() {
            continue;
        }
        let before = model.revision();
        let expected = model.apply(&committed.command);
        writes_count += 1;
        places[at] = Some(Place { revision: expected.revision, is_change: expected.revision > before });
        check_answer(history, at, &expected)?;
    }
    Ok(writes_count)
}

fn check_answer(history: &[Operation], at: usize, expected: &Applied) -> Result<(), Box<Violation>> {
    match &history[at].answer {
        Answer::Applied(applied) if applied != expected => {
            Err(violation(history, Wrong::Answer, format!("expected {expected:?}"), &[at]))
        }
        Answer::Applied(_) | Answer::NotDone | Answer::Unknown => Ok(()),
    }
}

/// What completed before another began comes before it: one sweep over both kinds of instants in time's order.
fn check_real_time(history: &[Operation], places: &[Option<Place>]) -> Result<(), Box<Violation>> {
    let placed = |at: &usize| places[*at].is_some();
    let mut invocations: Vec<usize> = (0..history.len()).filter(placed).collect();
    let mut completions: Vec<(u64, usize)> = invocations
        .iter()
        .filter(|at| matches!(history[**at].answer, Answer::Applied(_)))
        .filter_map(|at| history[*at].completed.map(|completed| (completed, *at)))
        .collect();
    invocations.sort_by_key(|at| history[*at].invoked);
    completions.sort_unstable();
    let mut completions = completions.into_iter().peekable();
    let mut newest: Option<(Revision, usize)> = None;
    for at in invocations {
        while let Some((_, done)) = completions.next_if(|(completed, _)| *completed < history[at].invoked) {
            if let Some(place) = places[done]
                && newest.is_none_or(|(revision, _)| place.revision > revision)
            {
                newest = Some((place.revision, done));
            }
        }
        let (Some(place), Some((revision, earlier))) = (places[at], newest) else {
            continue;
        };
        if place.revision < revision || (place.is_change && place.revision == revision) {
            let explanation = format!(
                "it takes effect at revision {}, though {revision} had been seen before it began",
                place.revision
            );
            return Err(violation(history, Wrong::RealTime, explanation, &[at, earlier]));
        }
    }
    Ok(())
}

// A violation is large and rare, and travels in results of small ones.
#[allow(clippy::unnecessary_box_returns)]
fn violation(history: &[Operation], wrong: Wrong, explanation: String, about: &[usize]) -> Box<Violation> {
    let mut window: Vec<Operation> = about.iter().map(|at| history[*at].clone()).collect();
    if let Some(operation) = about.first().map(|at| &history[*at]) {
        let end = operation.completed.unwrap_or(operation.invoked);
        let concurrent = history.iter().enumerate().filter(|(at, other)| {
            let other_end = other.completed.unwrap_or(u64::MAX);
            !about.contains(at) && other.invoked <= end && other_end >= operation.invoked
        });
        window.extend(concurrent.map(|(_, other)| other.clone()));
        window.truncate(WINDOW_OPERATIONS_MAX);
    }
    Box::new(Violation { wrong, explanation, window })
}

#[cfg(test)]
#[path = "strict_serializability_tests.rs"]
mod tests;
