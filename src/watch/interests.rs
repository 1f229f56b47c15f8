//! Which watches a key concerns: interests, by the keys they are in.
//!
//! Watches of one interest are one *crowd*. A crowd of one key is found by that key, and one of a range in a tree of
//! ranges: sorted by where they begin, each knowing how far the furthest of its part of the tree reaches.
//!
//! ```text
//!   ranges by start    [a,c)  [a,z)  [c,d)  [m,n)  [p,∞)         what reaches not beyond the key
//!   reach              of the part of the tree below each        is not looked at
//! ```
//!
//! What always holds: a crowd has at least one watch, and an interest has at most one crowd. What it leaves out: kinds
//! of changes; who asks looks at those.

use super::words::Interest;
use crate::kv::KeyRange;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Names a crowd, until it is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CrowdId(u32);

/// All interests of a hub, and for each what the hub keeps of its crowd.
#[derive(Debug)]
pub(super) struct Interests<Crowd> {
    crowds: BTreeMap<CrowdId, Entry<Crowd>>,
    by_interest: BTreeMap<Interest, CrowdId>,
    points: BTreeMap<Bytes, Vec<CrowdId>>,
    spans: Spans,
    last_id: u32,
}

#[derive(Debug)]
struct Entry<Crowd> {
    interest: Interest,
    watches_count: usize,
    crowd: Crowd,
}

impl<Crowd: Default> Interests<Crowd> {
    pub(super) fn new() -> Self {
        Self {
            crowds: BTreeMap::new(),
            by_interest: BTreeMap::new(),
            points: BTreeMap::new(),
            spans: Spans::default(),
            last_id: 0,
        }
    }

    /// One more watch of this interest.
    pub(super) fn join(&mut self, interest: &Interest) -> CrowdId {
        if let Some(id) = self.by_interest.get(interest) {
            if let Some(entry) = self.crowds.get_mut(id) {
                entry.watches_count += 1;
            }
            return *id;
        }
        let id = self.fresh_id();
        let entry = Entry { interest: interest.clone(), watches_count: 1, crowd: Crowd::default() };
        self.crowds.insert(id, entry);
        self.by_interest.insert(interest.clone(), id);
        match &interest.range {
            KeyRange::Key(key) => self.points.entry(key.clone()).or_default().push(id),
            KeyRange::Span { start, end } => self.spans.add(start.clone(), End::Before(end.clone()), id),
            KeyRange::From(start) => self.spans.add(start.clone(), End::Never, id),
        }
        id
    }

    /// One watch less.
    pub(super) fn leave(&mut self, id: CrowdId) {
        let Some(entry) = self.crowds.get_mut(&id) else { return };
        entry.watches_count -= 1;
        if entry.watches_count > 0 {
            return;
        }
        let Some(Entry { interest, .. }) = self.crowds.remove(&id) else { return };
        self.by_interest.remove(&interest);
        match &interest.range {
            KeyRange::Key(key) => {
                if let Some(ids) = self.points.get_mut(key) {
                    ids.retain(|other| *other != id);
                    if ids.is_empty() {
                        self.points.remove(key);
                    }
                }
            }
            KeyRange::Span { start, .. } | KeyRange::From(start) => self.spans.remove(start.clone(), id),
        }
    }

    pub(super) fn interest(&self, id: CrowdId) -> &Interest {
        &self.entry(id).interest
    }

    pub(super) fn crowd(&self, id: CrowdId) -> &Crowd {
        &self.entry(id).crowd
    }

    pub(super) fn crowd_mut(&mut self, id: CrowdId) -> &mut Crowd {
        &mut self.crowds.get_mut(&id).expect("a crowd is named while it has a watch").crowd
    }

    /// Calls `visit` with every crowd whose range holds `key`.
    pub(super) fn concerned(&mut self, key: &[u8], mut visit: impl FnMut(CrowdId, &Crowd)) {
        let crowds = &self.crowds;
        let mut visit_one = |id: CrowdId| {
            if let Some(entry) = crowds.get(&id) {
                visit(id, &entry.crowd);
            }
        };
        self.points.get(key).into_iter().flatten().copied().for_each(&mut visit_one);
        self.spans.visit(key, &mut visit_one);
    }

    fn entry(&self, id: CrowdId) -> &Entry<Crowd> {
        self.crowds.get(&id).expect("a crowd is named while it has a watch")
    }

    fn fresh_id(&mut self) -> CrowdId {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if !self.crowds.contains_key(&CrowdId(self.last_id)) {
                return CrowdId(self.last_id);
            }
        }
    }
}

/// Where a range ends. What never ends is beyond everything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Before(Bytes),
    Never,
}

impl End {
    fn is_beyond(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < end.as_ref(),
            Self::Never => true,
        }
    }
}

/// Ranges. They come and go one by one, and the tree to look keys up in is made of them when it is needed next.
#[derive(Debug, Default)]
struct Spans {
    ranges: BTreeMap<(Bytes, CrowdId), End>,
    /// The tree: the ranges by their starts. The middle one of any part is the root of that part.
    sorted: Vec<(Bytes, End, CrowdId)>,
    /// For the root of each part, where the furthest range of that part ends.
    reach: Vec<End>,
    /// Whether the tree is of other ranges than these.
    is_stale: bool,
}

impl Spans {
    fn add(&mut self, start: Bytes, end: End, id: CrowdId) {
        self.ranges.insert((start, id), end);
        self.is_stale = true;
    }

    fn remove(&mut self, start: Bytes, id: CrowdId) {
        self.ranges.remove(&(start, id));
        self.is_stale = true;
    }

    fn visit(&mut self, key: &[u8], visit: &mut impl FnMut(CrowdId)) {
        if self.is_stale {
            self.is_stale = false;
            let ranges = self.ranges.iter();
            self.sorted = ranges.map(|((start, id), end)| (start.clone(), end.clone(), *id)).collect();
            self.reach = self.sorted.iter().map(|(_, end, _)| end.clone()).collect();
            self.measure(0, self.sorted.len());
        }
        self.visit_part(0, self.sorted.len(), key, visit);
    }

    /// Sets the reach of every root in a part; the part's own.
    fn measure(&mut self, from: usize, to: usize) -> Option<End> {
        if from == to {
            return None;
        }
        let root = usize::midpoint(from, to);
        let below = self.measure(from, root).max(self.measure(root + 1, to));
        if let Some(end) = below
            && end > self.reach[root]
        {
            self.reach[root] = end;
        }
        Some(self.reach[root].clone())
    }

    fn visit_part(&self, from: usize, to: usize, key: &[u8], visit: &mut impl FnMut(CrowdId)) {
        if from == to {
            return;
        }
        let root = usize::midpoint(from, to);
        if !self.reach[root].is_beyond(key) {
            return;
        }
        self.visit_part(from, root, key, visit);
        let (start, end, id) = &self.sorted[root];
        if start.as_ref() > key {
            return;
        }
        if end.is_beyond(key) {
            visit(*id);
        }
        self.visit_part(root + 1, to, key, visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Bytes {
        Bytes::from(format!("{number:03}"))
    }

    fn random(state: &mut u64, bound: u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % bound
    }

    fn random_range(state: &mut u64) -> KeyRange {
        let start = random(state, 50);
        match random(state, 8) {
            0 => KeyRange::From(key(start)),
            1 | 2 => KeyRange::Key(key(start)),
            _ => {
                // Some end before they begin, and so hold nothing.
                let end = (start + random(state, 20)).saturating_sub(2);
                KeyRange::Span { start: key(start), end: key(end) }
            }
        }
    }

    #[test]
    fn whom_a_key_concerns_is_found_as_by_looking_at_everyone() {
        for seed in 0..200 {
            let mut state = seed;
            let mut interests: Interests<()> = Interests::new();
            let mut all: Vec<(CrowdId, KeyRange)> = Vec::new();
            for _ in 0..100 {
                if random(&mut state, 3) == 0 && !all.is_empty() {
                    let at = usize::try_from(random(&mut state, all.len() as u64)).unwrap();
                    interests.leave(all.remove(at).0);
                } else {
                    let range = random_range(&mut state);
                    all.push((interests.join(&Interest::all(range.clone())), range));
                }
                let asked = key(random(&mut state, 70));
                let mut found = Vec::new();
                interests.concerned(&asked, |id, ()| found.push(id));
                let holders = all.iter().filter(|(_, range)| range.contains(&asked));
                let mut expected: Vec<CrowdId> = holders.map(|(id, _)| *id).collect();
                expected.sort_unstable();
                expected.dedup();
                found.sort_unstable();
                assert_eq!(found, expected, "seed {seed}, key {asked:?} of {all:?}");
            }
            assert!(all.iter().all(|(id, range)| interests.interest(*id).range == *range));
        }
    }
}
