//! The judge along revisions: a history of the whole store against the committed order of its writes.
//!
//! ```text
//!   the witness     w1 ─ w2 ─ w2' ─ w3 ─ …      first copies only, replayed through the model
//!   revisions       2    3          4            what each write must have answered
//!   reads           each must be what the model held at the revision it names
//!   real time       completed before invoked  =>  not later in this order
//! ```
//!
//! Nothing is searched for: every answer names its revision, and a write without an answer has the place that the
//! witness (the committed log) gives it, or none. So this is one replay, one look-up for each read and one sweep over
//! sorted instants, O(n log n) for answers of bounded length. The judge that trusts no revision is `search`.
//!
//! What somebody else wrote, or the cluster itself, has its place in the order and changes the model; nobody asks what was
//! answered.
//!
//! Always: an answer is right only if it is, in every byte, what the model says for its place. The whole store is one
//! object here, so what this accepts is strictly serializable, transactions over several keys included.

use super::history::{Answer, Call, CommittedWrite, Operation, WriteId};
use super::model::Model;
use super::partition::touched;
use super::present::Keys;
use super::violation::{Violation, Wrong};
use super::words;
use crate::ids::Revision;
use crate::kv::{Applied, Outcome};
use core::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What a sound history amounted to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Writes in the committed order, retries not counted.
    pub writes: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Writes that were refused for certain, and are indeed not in the committed order.
    pub not_done: u64,
    /// Operations without an answer.
    pub unknown: u64,
    /// Where each operation of the history takes effect, if it does.
    pub places: Vec<Option<Place>>,
}

/// Where an operation takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The revision that was current right after it.
    pub revision: Revision,
    /// Whether it made that revision, rather than happening while it was current.
    pub is_change: bool,
}

/// Operations shown around a violation.
const WINDOW_OPERATIONS_MAX: usize = 12;

/// Checks `history` against `order`, the writes of the committed log in its order, retries included.
///
/// # Errors
/// The first contradiction found.
pub fn check_along_revisions(
    history: &[Operation],
    order: &[CommittedWrite],
) -> Result<Summary, Box<Violation>> {
    let mut model = Model::default();
    let writes = writes_by_id(history)?;
    let mut places: Vec<Option<Place>> = vec![None; history.len()];
    let replayed = replay(history, &writes, order, &mut model, &mut places)?;
    let mut summary = Summary { writes: replayed.writes_count, ..Summary::default() };
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
                    return Err(violation(
                        history,
                        Wrong::Answer,
                        format!("expected {}", words::told(&outcome)),
                        &[at],
                    ));
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
    // Whoever looks for an order must not believe that these took effect there.
    for at in replayed.refused {
        places[at] = None;
    }
    summary.places = places;
    Ok(summary)
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

/// What a replay came upon.
#[derive(Default)]
struct Replayed {
    writes_count: u64,
    /// The writes that the store refused.
    refused: Vec<usize>,
}

/// Replays the first copy of each write.
fn replay(
    history: &[Operation],
    writes: &BTreeMap<WriteId, usize>,
    order: &[CommittedWrite],
    model: &mut Model,
    places: &mut [Option<Place>],
) -> Result<Replayed, Box<Violation>> {
    let mut replayed = Replayed::default();
    for committed in order {
        if committed.write.is_of_others() {
            model.apply(&committed.command);
            continue;
        }
        let found = writes.get(&committed.write).map(|at| (*at, &history[*at]));
        let Some((at, operation)) = found else {
            let explanation = format!("nobody asked for the committed write {}", committed.write);
            return Err(violation(history, Wrong::UnknownWrite, explanation, &[]));
        };
        if !matches!(&operation.call, Call::Write { command, .. } if *command == committed.command) {
            let explanation = format!("what was committed is {:?}", committed.command);
            return Err(violation(history, Wrong::UnknownWrite, explanation, &[at]));
        }
        if places[at].is_some() && committed.write.has_stamp() {
            continue;
        }
        if places[at].is_some() {
            let explanation = format!("write {} was done twice", committed.write);
            return Err(violation(history, Wrong::UnknownWrite, explanation, &[at]));
        }
        let before = model.revision();
        let expected = model.apply(&committed.command);
        replayed.writes_count += 1;
        if matches!(expected.outcome, Outcome::Refused(_)) {
            replayed.refused.push(at);
        }
        places[at] = Some(Place { revision: expected.revision, is_change: expected.revision > before });
        check_answer(history, at, &expected)?;
    }
    Ok(replayed)
}

fn check_answer(history: &[Operation], at: usize, expected: &Applied) -> Result<(), Box<Violation>> {
    match &history[at].answer {
        Answer::Applied(applied) if applied != expected => {
            let expected = words::answered(&Answer::Applied(expected.clone()));
            Err(violation(history, Wrong::Answer, format!("expected {expected}"), &[at]))
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
    let keys = Keys::of(history);
    let touches = |at: usize| touched(&history[at], &keys).into_iter().flatten();
    let keys_wrong: BTreeSet<usize> = about.iter().flat_map(|at| touches(*at)).collect();
    let end =
        about.iter().map(|at| history[*at].completed.unwrap_or(history[*at].invoked)).max().unwrap_or(0);
    let is_near = |at: &usize| {
        let is_related = keys_wrong.is_empty() || touches(*at).any(|key| keys_wrong.contains(&key));
        !about.contains(at) && history[*at].invoked <= end && is_related
    };
    let mut context: Vec<usize> = (0..history.len()).filter(is_near).collect();
    // The nearest in time come first.
    context.sort_by_key(|at| Reverse(history[*at].invoked));
    context.truncate(WINDOW_OPERATIONS_MAX.saturating_sub(about.len()));
    context.reverse();
    let window = about.iter().chain(&context).map(|at| history[*at].clone()).collect();
    Box::new(Violation { wrong, explanation, window, offending_count: about.len() })
}

#[cfg(test)]
#[path = "along_revisions_tests.rs"]
mod tests;
