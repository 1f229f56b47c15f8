//! Sets of keys: ranges that are put together, and whether a range lies within several of them.

use crate::kv::KeyRange;
use bytes::{BufMut, Bytes, BytesMut};

/// Where a run of keys ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// Just before this key.
    Before(Bytes),
    /// Nowhere.
    Never,
}

/// Keys, as runs in order that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<(Bytes, End)>);

/// The least key above `key`.
fn above(key: &Bytes) -> Bytes {
    let mut above = BytesMut::with_capacity(key.len() + 1);
    above.put_slice(key);
    above.put_u8(0);
    above.freeze()
}

/// The run of keys of a range; None if it holds none.
fn run_of(range: &KeyRange) -> Option<(Bytes, End)> {
    match range {
        KeyRange::Key(key) => Some((key.clone(), End::Before(above(key)))),
        KeyRange::Span { start, end } => (start < end).then(|| (start.clone(), End::Before(end.clone()))),
        KeyRange::From(start) => Some((start.clone(), End::Never)),
    }
}

impl Ranges {
    /// All keys of all of `ranges`.
    pub(super) fn of<'range>(ranges: impl Iterator<Item = &'range KeyRange>) -> Self {
        let mut runs: Vec<(Bytes, End)> = ranges.filter_map(run_of).collect();
        runs.sort();
        let mut joined: Vec<(Bytes, End)> = Vec::with_capacity(runs.len());
        for (start, end) in runs {
            match joined.last_mut() {
                Some((_, last)) if *last == End::Never || *last >= End::Before(start.clone()) => {
                    *last = end.max(last.clone());
                }
                Some(_) | None => joined.push((start, end)),
            }
        }
        Self(joined)
    }

    /// The end of the run that holds `key`.
    fn end_of_run(&self, key: &[u8]) -> Option<&End> {
        let later = self.0.partition_point(|(start, _)| start.as_ref() <= key);
        let (_, end) = self.0.get(later.checked_sub(1)?)?;
        match end {
            End::Before(end) if end.as_ref() <= key => None,
            End::Before(_) | End::Never => Some(end),
        }
    }
}

/// Whether every key of `range` is in one of `sets`.
///
/// A range that ends before it starts holds no key; it counts as its first one, so that nothing is allowed for its being
/// written in an odd way.
pub(super) fn cover<'sets>(sets: &(impl Iterator<Item = &'sets Ranges> + Clone), range: &KeyRange) -> bool {
    let (start, end) = match range {
        KeyRange::Span { start, .. } => {
            run_of(range).unwrap_or_else(|| (start.clone(), End::Before(above(start))))
        }
        KeyRange::Key(key) => (key.clone(), End::Before(above(key))),
        KeyRange::From(start) => (start.clone(), End::Never),
    };
    let mut key = start;
    // Each step leaves a run of one of the sets behind for good, so there are as many as there are runs at the most.
    loop {
        let Some(reached) = sets.clone().filter_map(|set| set.end_of_run(&key)).max() else {
            return false;
        };
        match reached {
            End::Before(next) if *reached < end => key = next.clone(),
            End::Before(_) | End::Never => return true,
        }
    }
}

/// Whether each of some keys is in one of `sets`; `key_from` gives the least of them from a bound on.
///
/// What lies in one run is passed over at once, so there are as many steps as runs at the most, however many keys there are.
pub(super) fn cover_keys<'sets, 'keys>(
    sets: &(impl Iterator<Item = &'sets Ranges> + Clone),
    mut key_from: impl FnMut(&[u8]) -> Option<&'keys Bytes>,
) -> bool {
    let mut next = key_from(b"");
    while let Some(key) = next {
        match sets.clone().filter_map(|set| set.end_of_run(key)).max() {
            Some(End::Before(end)) => next = key_from(end),
            Some(End::Never) => return true,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::properties::Random;
    use crate::property;
    use core::ops::Bound;
    use std::collections::BTreeSet;

    fn span(start: &'static str, end: &'static str) -> KeyRange {
        KeyRange::Span {
            start: Bytes::from_static(start.as_bytes()),
            end: Bytes::from_static(end.as_bytes()),
        }
    }

    fn key(key: &'static str) -> KeyRange {
        KeyRange::Key(Bytes::from_static(key.as_bytes()))
    }

    fn from(start: &'static str) -> KeyRange {
        KeyRange::From(Bytes::from_static(start.as_bytes()))
    }

    fn is_covered(sets: &[&[KeyRange]], range: &KeyRange) -> bool {
        let sets: Vec<Ranges> = sets.iter().map(|ranges| Ranges::of(ranges.iter())).collect();
        cover(&sets.iter(), range)
    }

    #[test]
    fn ranges_that_touch_are_one_and_ranges_of_two_sets_are_put_together() {
        assert!(is_covered(&[&[span("a", "c"), span("c", "e")]], &span("b", "d")));
        assert!(is_covered(&[&[span("a", "c")], &[span("b", "e")]], &span("a", "e")));
        assert!(!is_covered(&[&[span("a", "c")], &[span("d", "e")]], &span("a", "e")));
        assert!(is_covered(&[&[key("c"), span("c\0", "d")]], &span("c", "d")));
        assert!(!is_covered(&[&[key("c"), span("c\0\0", "d")]], &span("c", "d")));
    }

    #[test]
    fn keys_of_one_run_are_passed_over_at_once_and_none_outside_is_missed() {
        let keys: BTreeSet<Bytes> = (0..10_000).map(|n| Bytes::from(format!("a{n:05}"))).collect();
        let looked = |ranges: &[KeyRange]| {
            let sets = [Ranges::of(ranges.iter())];
            let mut steps = 0;
            let key_from = |from: &[u8]| {
                steps += 1;
                keys.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)).next()
            };
            (cover_keys(&sets.iter(), key_from), steps)
        };
        assert_eq!(looked(&[span("a", "b")]), (true, 2));
        assert_eq!(looked(&[from("a")]), (true, 1));
        assert_eq!(looked(&[span("a", "a05"), span("a05", "a06"), span("a07", "b")]), (false, 2));
        assert_eq!(
            looked(&[span("a", "a04999"), span("a05", "b")]),
            (false, 2),
            "the key between is missed by none"
        );
        assert_eq!(looked(&[span("a", "a05"), span("a050", "b")]), (true, 3));
        assert_eq!(looked(&[]), (false, 1));
    }

    #[test]
    fn only_what_has_no_end_covers_what_has_none() {
        assert!(is_covered(&[&[from("b")]], &from("b")));
        assert!(is_covered(&[&[span("a", "m")], &[from("k")]], &from("a")));
        assert!(!is_covered(&[&[span("a", "\u{7f}")]], &from("a")));
        assert!(!is_covered(&[&[from("b")]], &from("a")));
        assert!(is_covered(&[&[from("")]], &from("\0")));
    }

    #[test]
    fn a_range_without_keys_counts_as_its_first_one_and_allows_nothing() {
        assert!(is_covered(&[&[key("b")]], &span("b", "a")));
        assert!(!is_covered(&[&[key("a")]], &span("b", "a")));
        assert!(!is_covered(&[&[span("b", "a")]], &key("b")));
    }

    /// All strings of up to three of `\0`, `a` and `b`: every bound that `any_range` makes is one of them.
    fn universe() -> Vec<Bytes> {
        let mut strings = vec![Vec::new()];
        let mut at = 0;
        while at < strings.len() {
            if strings[at].len() < 3 {
                for byte in *b"\0ab" {
                    let mut longer = strings[at].clone();
                    longer.push(byte);
                    strings.push(longer);
                }
            }
            at += 1;
        }
        strings.sort();
        strings.into_iter().map(Bytes::from).collect()
    }

    fn any_range(random: &mut Random, universe: &[Bytes]) -> KeyRange {
        let mut bound = || loop {
            let place = random.below(universe.len() as u64);
            let bound = &universe[usize::try_from(place).expect("a place")];
            if bound.len() < 3 {
                break bound.clone();
            }
        };
        let (start, end) = (bound(), bound());
        match random.below(5) {
            0 => KeyRange::From(start),
            1 | 2 => KeyRange::Key(start),
            _ => KeyRange::Span { start: start.clone().min(end.clone()), end: start.max(end) },
        }
    }

    #[test]
    fn a_range_is_covered_exactly_if_each_of_its_keys_is() {
        let universe = universe();
        property::hold(3_000, |seed| {
            let mut random = Random::new(seed);
            let sets: Vec<Vec<KeyRange>> = (0..=random.below(3))
                .map(|_| (0..random.below(7)).map(|_| any_range(&mut random, &universe)).collect())
                .collect();
            let asked = any_range(&mut random, &universe);
            // Between two neighbours of the universe no range begins or ends, so they speak for all keys.
            let mut keys = universe.iter().filter(|key| asked.contains(key)).peekable();
            if keys.peek().is_none() {
                return;
            }
            let expected = keys.all(|key| sets.iter().flatten().any(|range| range.contains(key)));
            let sets: Vec<Ranges> = sets.iter().map(|ranges| Ranges::of(ranges.iter())).collect();
            assert_eq!(cover(&sets.iter(), &asked), expected, "{sets:?} {asked:?}");
        });
    }
}
