//! What happened, as lines for a person and as one number for a machine.
//!
//! Always: the hash covers every event in order, whether or not lines are kept, so two runs of one seed can be
//! compared without writing anything down; lines are only formatted when someone wants them.

use super::clock::TrueMicros;
use super::random::mix;
use core::fmt;

/// Takes the lines of a trace, one by one, as things happen.
pub type LineSink = Box<dyn FnMut(String)>;

/// The record of one run.
#[derive(Default)]
pub struct Trace {
    hash: u64,
    events_count: u64,
    lines: Option<LineSink>,
}

impl Trace {
    /// A trace that keeps only the hash.
    pub fn hashed() -> Self {
        Self::default()
    }

    /// A trace that also hands out every line.
    pub fn with_lines(sink: LineSink) -> Self {
        Self { lines: Some(sink), ..Self::default() }
    }

    /// Records that `what`, described by `facts`, happened at `now`; `line` is formatted only if lines are kept.
    pub fn record(&mut self, now: TrueMicros, facts: [u64; 4], line: fmt::Arguments<'_>) {
        self.events_count += 1;
        for fact in [now.0, facts[0], facts[1], facts[2], facts[3]] {
            self.hash = mix(self.hash.rotate_left(17) ^ fact);
        }
        if let Some(lines) = &mut self.lines {
            lines(format!("{now} {line}"));
        }
    }

    /// The rolling hash of everything recorded.
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events were recorded.
    pub const fn events_count(&self) -> u64 {
        self.events_count
    }

    /// Whether lines are kept, so that costly descriptions are worth making.
    pub const fn keeps_lines(&self) -> bool {
        self.lines.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[test]
    fn the_hash_is_the_same_with_and_without_lines_and_tells_orders_apart() {
        let record = |mut trace: Trace, facts: [[u64; 4]; 2]| {
            for (at, fact) in facts.into_iter().enumerate() {
                trace.record(TrueMicros(at as u64), fact, format_args!("{fact:?}"));
            }
            trace
        };
        let one = [1, 0, 0, 0];
        let two = [2, 0, 0, 0];
        let lines = Rc::new(RefCell::new(Vec::new()));
        let sink = Rc::clone(&lines);
        let kept = record(Trace::with_lines(Box::new(move |line| sink.borrow_mut().push(line))), [one, two]);
        assert_eq!(kept.hash(), record(Trace::hashed(), [one, two]).hash());
        assert_ne!(kept.hash(), record(Trace::hashed(), [two, one]).hash());
        assert_eq!(lines.borrow()[1], "0.000001s [2, 0, 0, 0]");
    }
}
