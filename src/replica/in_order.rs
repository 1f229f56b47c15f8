//! A map by number, for what comes and goes in about the order of its numbers.
//!
//! Entries lie side by side, in ascending order: what has the highest number is added, and what has the lowest is taken, without a
//! search and without memory of its own. Anything else takes as many steps as there are entries between it and the nearer
//! end, so it is for bounded maps only. Always: numbers ascend, and each is there once; of the memory at least a quarter is
//! used, but for room for twice `KEPT` entries. Left out: what the numbers mean.

use std::collections::VecDeque;

/// Entries by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InOrder<V, const KEPT: usize> {
    entries: VecDeque<(u64, V)>,
}

impl<V, const KEPT: usize> Default for InOrder<V, KEPT> {
    fn default() -> Self {
        Self { entries: VecDeque::new() }
    }
}

impl<V, const KEPT: usize> InOrder<V, KEPT> {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The lowest number.
    pub(super) fn first(&self) -> Option<u64> {
        self.entries.front().map(|(number, _)| *number)
    }

    /// The highest number.
    pub(super) fn last(&self) -> Option<u64> {
        self.entries.back().map(|(number, _)| *number)
    }

    pub(super) fn get(&self, number: u64) -> Option<&V> {
        let at = self.place_of(number).ok()?;
        self.entries.get(at).map(|(_, value)| value)
    }

    /// Adds an entry; answers with what had this number.
    pub(super) fn insert(&mut self, number: u64, value: V) -> Option<V> {
        match self.place_of(number) {
            Ok(at) => self.entries.get_mut(at).map(|(_, there)| core::mem::replace(there, value)),
            Err(at) => {
                self.entries.insert(at, (number, value));
                None
            }
        }
    }

    /// Takes the entry of this number.
    pub(super) fn remove(&mut self, number: u64) -> Option<V> {
        let at = self.place_of(number).ok()?;
        let (_, value) = self.entries.remove(at)?;
        self.give_back();
        Some(value)
    }

    /// Takes the entry of the lowest number.
    pub(super) fn pop_first(&mut self) -> Option<(u64, V)> {
        let first = self.entries.pop_front();
        self.give_back();
        first
    }

    /// All entries, in order.
    pub(super) fn into_values(self) -> impl Iterator<Item = V> {
        self.entries.into_iter().map(|(_, value)| value)
    }

    /// Where this number is, or would be. Both ends are looked at first.
    fn place_of(&self, number: u64) -> Result<usize, usize> {
        if self.last().is_none_or(|last| last < number) {
            return Err(self.entries.len());
        }
        if self.first() == Some(number) {
            return Ok(0);
        }
        self.entries.binary_search_by_key(&number, |(number, _)| *number)
    }

    fn give_back(&mut self) {
        let wanted = self.entries.len().max(KEPT / 2) * 2;
        if self.entries.capacity() > wanted * 2 {
            self.entries.shrink_to(wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::properties::Random;
    use crate::property;
    use std::collections::BTreeMap;

    #[test]
    fn it_is_a_map() {
        property::hold(300, |seed| {
            let mut random = Random::new(seed);
            let (mut map, mut model) = (InOrder::<u64, 4>::default(), BTreeMap::new());
            for at in 0..200 {
                let number = random.below(60);
                match random.below(5) {
                    0 => assert_eq!(map.remove(number), model.remove(&number)),
                    1 => assert_eq!(map.pop_first(), model.pop_first()),
                    _ => assert_eq!(map.insert(number, at), model.insert(number, at)),
                }
                assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
                assert_eq!(map.first(), model.keys().next().copied());
                assert_eq!(map.last(), model.keys().next_back().copied());
                for number in 0..60 {
                    assert_eq!(map.get(number), model.get(&number));
                }
            }
            assert!(map.into_values().eq(model.into_values()));
        });
    }

    #[test]
    fn memory_that_is_not_used_any_more_is_given_back() {
        let mut map = InOrder::<u64, 4>::default();
        for number in 0..1_000 {
            map.insert(number, number);
        }
        assert!(map.entries.capacity() >= 1_000);
        while map.pop_first().is_some() {}
        assert!(map.entries.capacity() <= 8, "{} entries of memory are kept", map.entries.capacity());
    }
}
