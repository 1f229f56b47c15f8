//! How often each named thing happened, in one run or in many.
//!
//! Always: a tally has a row for everything that could happen, so that what never did can be seen.

use std::collections::BTreeMap;

/// Counts by name, in the order of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    counts: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// A tally in which none of these has happened.
    pub fn of(names: impl IntoIterator<Item = &'static str>) -> Self {
        Self { counts: names.into_iter().map(|name| (name, 0)).collect() }
    }

    /// It happened once more.
    pub fn count(&mut self, name: &'static str) {
        self.count_many(name, 1);
    }

    /// It happened so many times more.
    pub fn count_many(&mut self, name: &'static str, times: u64) {
        *self.counts.entry(name).or_default() += times;
    }

    /// Adds what another tally counted.
    pub fn add(&mut self, other: &Self) {
        for (name, times) in &other.counts {
            self.count_many(name, *times);
        }
    }

    /// Every row.
    pub const fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// Names of what never happened.
    pub fn never(&self) -> Vec<&'static str> {
        self.counts.iter().filter(|(_, times)| **times == 0).map(|(name, _)| *name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_happened_has_a_row_too() {
        let mut tally = Tally::of(["rain", "snow"]);
        let mut other = tally.clone();
        other.count("rain");
        tally.count("rain");
        tally.add(&other);
        assert_eq!(tally.counts().get("rain"), Some(&2));
        assert_eq!(tally.never(), ["snow"]);
    }
}
