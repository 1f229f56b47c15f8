//! A double-ended queue that grows by a chunk at a time: nothing in it is moved by a push.
//!
//! ```text
//!   chunks   [ · · c d ]  [ e f g h ]  [ i j · · ]         every chunk but the first and the last is full
//!   at           0 1        2 3 4 5      6 7
//! ```
//!
//! The standard library's queue doubles: every so often a push copies all that is in it into memory that was never touched.
//! With a log of 131,072 entries that was 4 MiB in one turn, at all members at once (the figures: ARCHITECTURE, Decisions). Here a
//! push takes a chunk at the most, and what is dropped from the front gives its memory back.
//!
//! Always: two queues that hold the same are equal and hash alike, whatever their chunks. Left out: insertion and removal in
//! the middle.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::ops::Range;

/// Elements of a chunk. Tests have small ones, so that few elements have many.
///
/// Chosen: 32 KiB of the largest elements there are, which is cleared in some microseconds.
const CHUNK_LEN: usize = if cfg!(test) { 4 } else { 1_024 };

/// A queue of any length whose pushes take about as long as each other. An element is found in constant time.
#[derive(Clone, Debug)]
pub struct ChunkedDeque<T> {
    /// Never an empty one; each but the first and the last has [`CHUNK_LEN`] elements.
    chunks: VecDeque<VecDeque<T>>,
}

impl<T> Default for ChunkedDeque<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> ChunkedDeque<T> {
    /// Nothing is in it.
    #[must_use]
    pub const fn new() -> Self {
        Self { chunks: VecDeque::new() }
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        let Some((first, rest)) = self.chunks.front().zip(self.chunks.len().checked_sub(2)) else {
            return self.chunks.front().map_or(0, VecDeque::len);
        };
        first.len() + rest * CHUNK_LEN + self.chunks.back().map_or(0, VecDeque::len)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The chunk in which an element lies, and its place there.
    fn place_of(&self, at: usize) -> (usize, usize) {
        let first_len = self.chunks.front().map_or(0, VecDeque::len);
        match at.checked_sub(first_len) {
            None => (0, at),
            Some(behind) => (1 + behind / CHUNK_LEN, behind % CHUNK_LEN),
        }
    }

    /// The element at this place, counted from the front.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<&T> {
        let (chunk, at) = self.place_of(at);
        self.chunks.get(chunk)?.get(at)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        let (chunk, at) = self.place_of(at);
        self.chunks.get_mut(chunk)?.get_mut(at)
    }

    /// The last element.
    #[must_use]
    pub fn back(&self) -> Option<&T> {
        self.chunks.back()?.back()
    }

    /// A further element, behind all others.
    pub fn push_back(&mut self, element: T) {
        if let Some(last) = self.chunks.back_mut().filter(|last| last.len() < CHUNK_LEN) {
            last.push_back(element);
            return;
        }
        // The first chunk of all grows with what is in it, so that a short queue takes little memory.
        let room = if self.chunks.is_empty() { 1 } else { CHUNK_LEN };
        let mut chunk = VecDeque::with_capacity(room);
        chunk.push_back(element);
        self.chunks.push_back(chunk);
    }

    /// Takes the first element off.
    pub fn pop_front(&mut self) -> Option<T> {
        let first = self.chunks.front_mut()?;
        let element = first.pop_front();
        if first.is_empty() {
            self.chunks.pop_front();
        }
        element
    }

    /// Drops the first `count` elements, or all if there are fewer.
    pub fn drop_front(&mut self, mut count: usize) {
        while count > 0
            && let Some(first) = self.chunks.front_mut()
        {
            let dropped = count.min(first.len());
            count -= dropped;
            first.drain(..dropped);
            if first.is_empty() {
                self.chunks.pop_front();
            }
        }
    }

    /// Keeps the first `len` elements, or all if there are fewer.
    pub fn truncate(&mut self, len: usize) {
        let (chunk, kept) = self.place_of(len);
        self.chunks.truncate(chunk + usize::from(kept > 0));
        if kept > 0
            && let Some(last) = self.chunks.get_mut(chunk)
        {
            last.truncate(kept);
        }
    }

    /// All elements, first to last.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.chunks.iter().flatten()
    }

    /// The elements at these places; those of them that there are.
    pub fn range(&self, range: Range<usize>) -> impl DoubleEndedIterator<Item = &T> {
        let end = range.end.min(self.len());
        (range.start.min(end)..end).filter_map(|at| self.get(at))
    }

    /// How many elements at the front have a property that all elements behind the first without it do not have.
    pub fn partition_point(&self, has: impl Fn(&T) -> bool) -> usize {
        let before = self.chunks.partition_point(|chunk| chunk.front().is_some_and(&has));
        let Some(last) = before.checked_sub(1) else { return 0 };
        let within = self.chunks.get(last).map_or(0, |chunk| chunk.partition_point(&has));
        let first_len = self.chunks.front().map_or(0, VecDeque::len);
        if last == 0 { within } else { first_len + (last - 1) * CHUNK_LEN + within }
    }
}

impl<T> Extend<T> for ChunkedDeque<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, elements: I) {
        for element in elements {
            self.push_back(element);
        }
    }
}

impl<T> FromIterator<T> for ChunkedDeque<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        let mut this = Self::new();
        this.extend(elements);
        this
    }
}

impl<T: PartialEq> PartialEq for ChunkedDeque<T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<T: Eq> Eq for ChunkedDeque<T> {}

impl<T: Hash> Hash for ChunkedDeque<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.len().hash(state);
        for element in self.iter() {
            element.hash(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

    /// A number from a seed, and the next seed.
    fn below(seed: &mut u64, bound: usize) -> usize {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(*seed >> 33).expect("31 bits") % bound
    }

    /// Whatever is done to it, it holds what the standard library's queue does.
    #[test]
    fn it_is_a_queue() {
        crate::property::hold(300, |seed| {
            let mut seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let (mut ours, mut model) = (ChunkedDeque::new(), VecDeque::new());
            for next in 0..200 {
                match below(&mut seed, 12) {
                    0 => assert_eq!(ours.pop_front(), model.pop_front()),
                    1 => {
                        let count = below(&mut seed, 12);
                        ours.drop_front(count);
                        model.drain(..count.min(model.len()));
                    }
                    2 => {
                        let kept = below(&mut seed, model.len() + 3);
                        ours.truncate(kept);
                        model.truncate(kept);
                    }
                    3 => {
                        let both = [ours.get_mut(next / 3), model.get_mut(next / 3)];
                        both.into_iter().flatten().for_each(|element| *element += 1_000);
                    }
                    _ => {
                        ours.push_back(next);
                        model.push_back(next);
                    }
                }
                assert_same(&ours, &model, below(&mut seed, 30), below(&mut seed, 30));
            }
        });
    }

    fn assert_same(ours: &ChunkedDeque<usize>, model: &VecDeque<usize>, from: usize, to: usize) {
        assert_eq!((ours.len(), ours.is_empty()), (model.len(), model.is_empty()));
        assert_eq!((ours.back(), ours.get(from)), (model.back(), model.get(from)));
        assert!(ours.iter().eq(model) && ours.iter().rev().eq(model.iter().rev()));
        assert!(ours.range(from..to).eq(model.iter().skip(from).take(to.saturating_sub(from))));
        let full = ours.chunks.iter().skip(1).rev().skip(1).all(|chunk| chunk.len() == CHUNK_LEN);
        assert!(full && ours.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK_LEN));
        // The same elements in chunks of their own.
        let again: ChunkedDeque<usize> = model.iter().copied().collect();
        let hash = |deque| BuildHasherDefault::<DefaultHasher>::default().hash_one(deque);
        assert_eq!((&again, hash(&again)), (ours, hash(ours)));
    }

    #[test]
    fn what_is_in_order_is_cut_where_it_should_be() {
        for first in 0..3 {
            let mut deque: ChunkedDeque<usize> = (0..10).collect();
            deque.drop_front(first);
            for bound in 0..12 {
                let expected = bound.clamp(first, 10) - first;
                assert_eq!(deque.partition_point(|element| *element < bound), expected);
            }
        }
        assert_eq!(ChunkedDeque::<u8>::new().partition_point(|_| true), 0);
    }
}
