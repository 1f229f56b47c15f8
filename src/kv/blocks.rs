//! How many keys of a range hold a pair now, without a walk over all of them.
//!
//! ```text
//!   order (keys.rs)    a  b* c  d  e  f* g  h  i           * deleted, and remembered
//!   blocks             "" -> 4 keys, 3 live   "e" -> 5 keys, 4 live
//!                      |____________________| |______________________
//! ```
//!
//! Keys that are next to each other share a block, which knows how many they are and how many of them live. So a count
//! adds up the blocks inside the range, and walks only where the range begins and where it ends.
//!
//! What always holds: every key of the index lies in the block whose first key is the last one not behind it; there is a
//! block that begins before all keys; no block has more than [`BLOCK_KEYS_MAX`] keys. Few keys in a block cost time and no
//! truth: one that has become small joins the one before it if both fit in half a block.
//!
//! It leaves out the past: what a count at an older revision needs, the caller takes from the changes since.

use super::keys::Slot;
use core::ops::Bound;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Keys of a block; one that has more is cut in two. Tests have small ones, so that few keys have many.
///
/// Chosen: a million keys are some thousand blocks, and to add those up takes as long as to walk over two blocks.
const BLOCK_KEYS_MAX: u32 = if cfg!(test) { 4 } else { 1_024 };

/// The index whose keys are counted.
type Order = BTreeMap<Arc<[u8]>, Slot>;

/// How many keys a stretch of the index has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Block {
    keys: u32,
    live: u32,
}

/// What a count found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Keys that are in the index.
    pub(super) keys: u64,
    /// Those of them that hold a pair now.
    pub(super) live: u64,
    /// Keys and blocks that the count came by.
    pub(super) walked: u64,
}

/// Blocks by the first key that may lie in them.
#[derive(Clone, Debug)]
pub(super) struct Blocks(BTreeMap<Arc<[u8]>, Block>);

impl Default for Blocks {
    fn default() -> Self {
        Self(BTreeMap::from([(Arc::default(), Block::default())]))
    }
}

impl Blocks {
    /// `order` has a further key, which holds a pair or does not.
    pub(super) fn key_was_added(
        &mut self,
        key: &[u8],
        lives: bool,
        order: &Order,
        is_live: impl Fn(Slot) -> bool,
    ) {
        let (first, block) = self.block_of(key);
        block.keys += 1;
        block.live += u32::from(lives);
        if block.keys <= BLOCK_KEYS_MAX {
            return;
        }
        let first = first.clone();
        let half = block.keys / 2;
        let mut left = Block { keys: half, live: 0 };
        let mut keys = order.range::<[u8], _>((Bound::Included(first.as_ref()), Bound::Unbounded));
        if block.live == block.keys {
            left.live = half;
            keys.nth(half as usize - 1);
        } else {
            let lives = keys.by_ref().take(half as usize).filter(|(_, slot)| is_live(**slot));
            left.live = u32::try_from(lives.count()).expect("no more than keys");
        }
        let right = Block { keys: block.keys - left.keys, live: block.live - left.live };
        *block = left;
        let (middle, _) = keys.next().expect("half of the keys are behind the other half");
        self.0.insert(middle.clone(), right);
    }

    /// A key of the index holds a pair now, and did not before.
    pub(super) fn key_came_to_life(&mut self, key: &[u8]) {
        self.block_of(key).1.live += 1;
    }

    /// The other way round.
    pub(super) fn key_was_deleted(&mut self, key: &[u8]) {
        self.block_of(key).1.live -= 1;
    }

    /// A key that held no pair is no longer in the index.
    pub(super) fn key_was_removed(&mut self, key: &[u8]) {
        let (first, block) = self.block_of(key);
        block.keys -= 1;
        let block = *block;
        if block.keys > BLOCK_KEYS_MAX / 8 || first.is_empty() {
            return;
        }
        let first = first.clone();
        let mut before = self.0.range_mut::<[u8], _>((Bound::Unbounded, Bound::Excluded(first.as_ref())));
        let (_, before) = before.next_back().expect("a block begins before all keys");
        // An empty one is of no use, whatever is before it.
        if block.keys == 0 || before.keys + block.keys <= BLOCK_KEYS_MAX / 2 {
            before.keys += block.keys;
            before.live += block.live;
            self.0.remove(&first);
        }
    }

    /// How many keys there are from `start` on, to the end of all or to `end`, which is beyond them; and how many live.
    pub(super) fn count(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        order: &Order,
        is_live: impl Fn(Slot) -> bool,
    ) -> Counted {
        let mut counted = Counted::default();
        if end.is_some_and(|end| end <= start) {
            return counted;
        }
        let (first, _) = self
            .0
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(start)))
            .next_back()
            .expect("a block begins before all");
        let mut blocks =
            self.0.range::<[u8], _>((Bound::Included(first.as_ref()), Bound::Unbounded)).peekable();
        while let Some((first, block)) = blocks.next() {
            let first = first.as_ref();
            if end.is_some_and(|end| first >= end) {
                break;
            }
            counted.walked += 1;
            let next = blocks.peek().map(|(next, _)| next.as_ref());
            let is_inside = first >= start && end.is_none_or(|end| next.is_some_and(|next| next <= end));
            if is_inside {
                counted.keys += u64::from(block.keys);
                counted.live += u64::from(block.live);
                continue;
            }
            let from = start.max(first);
            let upto = match (next, end) {
                (Some(next), Some(end)) => Bound::Excluded(next.min(end)),
                (Some(only), None) | (None, Some(only)) => Bound::Excluded(only),
                (None, None) => Bound::Unbounded,
            };
            let lives_all = block.keys == block.live;
            for (_, slot) in order.range::<[u8], _>((Bound::Included(from), upto)) {
                counted.keys += 1;
                counted.live += u64::from(lives_all || is_live(*slot));
                counted.walked += 1;
            }
        }
        counted
    }

    /// What takes a walk: for tests and the simulator.
    pub(super) fn assert_all_invariants(&self, order: &Order, is_live: impl Fn(Slot) -> bool) {
        let mut found: BTreeMap<&Arc<[u8]>, Block> =
            self.0.keys().map(|first| (first, Block::default())).collect();
        for (key, slot) in order {
            let (_, block) =
                found.range_mut::<Arc<[u8]>, _>(..=key).next_back().expect("it begins before all");
            block.keys += 1;
            block.live += u32::from(is_live(*slot));
        }
        assert!(
            found.into_iter().eq(self.0.iter().map(|(first, block)| (first, *block))),
            "blocks count right"
        );
        assert!(self.0.values().all(|block| block.keys <= BLOCK_KEYS_MAX), "no block is too large");
    }

    fn block_of(&mut self, key: &[u8]) -> (&Arc<[u8]>, &mut Block) {
        let mut upto = self.0.range_mut::<[u8], _>((Bound::Unbounded, Bound::Included(key)));
        upto.next_back().expect("a block begins before all keys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Arc<[u8]> {
        Arc::from(format!("{number:04}").as_bytes())
    }

    /// Every key's slot is its number, and odd ones live.
    #[test]
    fn blocks_are_cut_and_joined_and_every_count_is_that_of_a_walk() {
        let is_live = |slot: Slot| slot.0 % 2 == 1;
        let (mut order, mut blocks) = (Order::new(), Blocks::default());
        let all: Vec<u32> = (0..97).map(|number| number * 38 % 97).collect();
        let agree = |order: &Order, blocks: &Blocks| {
            blocks.assert_all_invariants(order, is_live);
            for (start, end) in [(0, 97), (0, 0), (3, 4), (10, 60), (60, 10), (40, 200)] {
                let inside = || order.range(key(start)..key(end.max(start)));
                let counted = blocks.count(&key(start), Some(&key(end)), order, is_live);
                let live = inside().filter(|(_, slot)| is_live(**slot)).count() as u64;
                assert_eq!((counted.keys, counted.live), (inside().count() as u64, live), "{start}..{end}");
            }
            let counted = blocks.count(&key(50), None, order, is_live);
            assert_eq!(counted.keys, order.range(key(50)..).count() as u64);
        };
        for number in &all {
            order.insert(key(*number), Slot(*number));
            blocks.key_was_added(&key(*number), number % 2 == 1, &order, is_live);
            agree(&order, &blocks);
        }
        assert!(blocks.0.len() > 97 / BLOCK_KEYS_MAX as usize, "there are many blocks");
        for number in all.iter().filter(|number| *number % 2 == 0) {
            order.remove(&key(*number));
            blocks.key_was_removed(&key(*number));
            agree(&order, &blocks);
        }
    }

    #[test]
    fn a_count_does_not_come_by_every_key() {
        let (mut order, mut blocks) = (Order::new(), Blocks::default());
        for number in 0..1_000 {
            order.insert(key(number), Slot(number));
            blocks.key_was_added(&key(number), true, &order, |_| true);
        }
        let counted = blocks.count(&key(1), Some(&key(999)), &order, |_| true);
        assert_eq!((counted.keys, counted.live), (998, 998));
        assert!(counted.walked < 1_000 * 3 / 4, "{counted:?}");
    }
}
