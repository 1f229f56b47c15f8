//! An impossible history, cut down to the part that shows so.

use super::history::Operation;
use core::fmt;

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
    /// No order of these operations agrees with their answers and with real time.
    NoOrder,
}

/// An impossible history, with the shortest part of it that shows so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// How.
    pub wrong: Wrong,
    /// In words, with what was expected.
    pub explanation: String,
    /// The operations that contradict each other, then those around them.
    pub window: Vec<Operation>,
    /// How many of the window contradict each other.
    pub offending_count: usize,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.wrong, shortened(&self.explanation))?;
        for (at, operation) in self.window.iter().enumerate() {
            let mark = if at < self.offending_count { '>' } else { ' ' };
            write!(f, "\n  {mark} {}", shortened(&operation.to_string()))?;
        }
        Ok(())
    }
}

/// Values can be long, and what matters stands in front.
fn shortened(line: &str) -> String {
    match line.char_indices().nth(LINE_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// Characters of one line of an explanation.
const LINE_CHARACTERS_MAX: usize = 600;
