//! The least part of a history that still has no order.
//!
//! Leaving operations out can make a history look impossible that is not: the write is gone, and its reader stays.
//! So nothing is left out here that could explain anything:
//!
//! ```text
//!            from                                to
//!   ─────────┊───────────────────────────────────┊──────────
//!   forgotten┊   answers that must be explained  ┊ not yet begun
//!        ════╪═══ may have happened or not ══════╪═══
//! ```
//!
//! - What begins after `to` explains nothing before it, and what is answered after it need not be explained.
//! - What ended before `from` is forgotten together with all it left: every key may hold anything at first.
//! - A write that was under way at `from`, or whose answer need not be explained, may have happened or not.
//! - A read whose answer need not be explained is left out.
//!
//! Always: each of these makes the history easier to explain, so what is left has no order for the same reason as the
//! whole. How far it is cut depends on a bound of steps; that it has no order does not.

use super::history::{Answer, Call, Operation};
use super::partition::touched;
use super::present::{Keys, Present};
use super::search::{Found, Step, search};
use super::violation::{Violation, Wrong};
use std::collections::BTreeSet;

/// Steps of all searches for a smaller part together.
const STEPS_MAX: u64 = 20_000_000;

/// Steps of one of them: a part that needs more is taken for one that has an order.
const STEPS_EACH_MAX: u64 = 1_000_000;

/// Operations shown beside those that contradict each other.
const CONTEXT_MAX: usize = 12;

/// Which part of a history is looked at.
#[derive(Clone, Debug)]
struct Part {
    /// What ended before this is forgotten; 0 for nothing.
    from: u64,
    to: u64,
    /// Steps whose answers need not be explained.
    excused: BTreeSet<usize>,
}

/// The least part found of a history whose `steps` have no order, `stuck` at best.
pub(super) fn narrow<'h>(
    history: &'h [Operation],
    steps: &[Step<'h>],
    keys: &Keys<'h>,
    stuck: usize,
) -> Violation {
    let part = Part { from: 0, to: steps[stuck].completed, excused: BTreeSet::new() };
    let mut narrowing = Narrowing { steps, keys, part, steps_left: STEPS_MAX };
    narrowing.raise_from();
    narrowing.excuse();
    narrowing.raise_from();
    narrowing.violation(history)
}

struct Narrowing<'s, 'k, 'h> {
    steps: &'s [Step<'h>],
    keys: &'k Keys<'h>,
    part: Part,
    steps_left: u64,
}

impl<'h> Narrowing<'_, '_, 'h> {
    /// Whether a part is known to have no order.
    fn is_impossible(&mut self, part: &Part) -> bool {
        let steps: Vec<Step<'h>> = self.steps.iter().filter_map(|step| part.of(step)).collect();
        let mut present =
            if part.from == 0 { Present::empty(self.keys) } else { Present::unknown(self.keys) };
        let granted = self.steps_left.min(STEPS_EACH_MAX);
        let mut left = granted;
        let found = search(&steps, &mut present, &mut left);
        self.steps_left -= granted - left;
        matches!(found, Found::NoOrder { .. })
    }

    /// The steps whose answers must be explained.
    fn required(&self) -> Vec<&Step<'h>> {
        self.steps.iter().filter(|step| self.part.requires(step)).collect()
    }

    /// Begins as late as possible. The later a part begins the more it forgets, so this is a search by halves.
    fn raise_from(&mut self) {
        let mut begins: Vec<u64> = self.required().iter().map(|step| step.invoked).collect();
        begins.sort_unstable();
        begins.dedup();
        let (mut good, mut bad) = (0, begins.len());
        // `good` of the begins are known to be early enough, and `bad` is too many.
        while good < bad {
            let middle = usize::midpoint(good, bad);
            let part = Part { from: begins[middle], ..self.part.clone() };
            if self.is_impossible(&part) {
                self.part = part;
                good = middle + 1;
            } else {
                bad = middle;
            }
        }
    }

    /// Excuses as many answers as possible: half of them at once, then quarters, then each alone.
    fn excuse(&mut self) {
        let mut size = self.required().len() / 2;
        while size > 0 {
            let required: Vec<usize> = self.required().iter().map(|step| step.at).collect();
            for chunk in required.chunks(size) {
                let mut part = self.part.clone();
                part.excused.extend(chunk);
                if self.is_impossible(&part) {
                    self.part = part;
                }
            }
            size /= 2;
        }
    }

    fn violation(&self, history: &[Operation]) -> Violation {
        let mut required: Vec<usize> = self.required().iter().map(|step| step.at).collect();
        required.sort_by_key(|at| history[*at].invoked);
        let keys: BTreeSet<usize> =
            required.iter().flat_map(|at| touched(&history[*at], self.keys)).flatten().collect();
        let begin = required.iter().map(|at| history[*at].invoked).min().unwrap_or(0);
        let mut context: Vec<usize> = (0..history.len())
            .filter(|at| !required.contains(at) && self.is_near(&history[*at], begin, &keys))
            .collect();
        // The nearest in time to the end come first.
        context.sort_by_key(|at| core::cmp::Reverse(history[*at].invoked));
        context.truncate(CONTEXT_MAX);
        context.sort_unstable();
        let before =
            if self.part.from == 0 { "in a store that began empty" } else { "whatever was there before" };
        Violation {
            wrong: Wrong::NoOrder,
            explanation: format!(
                "no order explains {}, {before}",
                match required.len() {
                    1 => "this answer".to_owned(),
                    count => format!("these {count} answers together"),
                }
            ),
            offending_count: required.len(),
            window: required.iter().chain(&context).map(|at| history[*at].clone()).collect(),
        }
    }

    /// Whether a write could have to do with what happened to `keys` since `begin`.
    fn is_near(&self, operation: &Operation, begin: u64, keys: &BTreeSet<usize>) -> bool {
        let is_write = matches!(operation.call, Call::Write { .. });
        let is_over = operation.completed.is_some_and(|completed| completed < begin)
            && !matches!(operation.answer, Answer::NotDone);
        is_write
            && (!is_over || self.part.from == 0)
            && operation.invoked <= self.part.to
            && touched(operation, self.keys).into_iter().flatten().any(|key| keys.contains(&key))
    }
}

impl Part {
    fn requires(&self, step: &Step<'_>) -> bool {
        step.told.is_some()
            && step.invoked >= self.from
            && step.completed <= self.to
            && !self.excused.contains(&step.at)
    }

    /// A step as this part knows it, if it does.
    fn of<'h>(&self, step: &Step<'h>) -> Option<Step<'h>> {
        let is_forgotten = step.told.is_some() && step.completed < self.from;
        let is_read = matches!(step.call, Call::Read { .. });
        if step.invoked > self.to || is_forgotten {
            None
        } else if self.requires(step) {
            Some(*step)
        } else {
            (!is_read).then_some(Step { told: None, ..*step })
        }
    }
}
