//! Lists of distinct things, found again by what they are: the memory of an exploration.
//!
//! Always holds: equal things have one number, and numbers are given in the order of first appearance, so one
//! exploration is like the next. What is found is compared whole, never by its hash alone: an exploration overlooks
//! nothing because two hashes collided. Left out: removal.

use core::hash::{Hash, Hasher};

/// A place of the table: part of a hash, and a number.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Slot {
    tag: u32,
    number: u32,
}

const EMPTY: Slot = Slot { tag: u32::MAX, number: u32::MAX };

/// Distinct things, each with a number.
pub(super) struct Numbered<T> {
    items: Vec<T>,
    /// Open addressing; always a power of two of them, a quarter of which is empty.
    slots: Vec<Slot>,
}

impl<T: Hash + Eq> Numbered<T> {
    pub(super) fn new() -> Self {
        Self { items: Vec::new(), slots: vec![EMPTY; 1 << 10] }
    }

    pub(super) fn count(&self) -> usize {
        self.items.len()
    }

    pub(super) fn get(&self, number: u32) -> &T {
        &self.items[number as usize]
    }

    /// The number of this thing, and whether it is new.
    pub(super) fn number(&mut self, item: T) -> (u32, bool) {
        let hash = hash_of(&item);
        match self.look_up(hash, &item) {
            Ok(number) => (number, false),
            Err(slot) => {
                let number = u32::try_from(self.items.len()).expect("an exploration ends before 2^32 things");
                self.slots[slot] = Slot { tag: tag(hash), number };
                self.items.push(item);
                if self.items.len() > self.slots.len() / 4 * 3 {
                    self.grow();
                }
                (number, true)
            }
        }
    }

    /// The number found, or else the slot for a new one.
    fn look_up(&self, hash: u64, item: &T) -> Result<u32, usize> {
        let mut slot = self.home(hash);
        loop {
            let held = self.slots[slot];
            if held == EMPTY {
                return Err(slot);
            }
            if held.tag == tag(hash) && self.items[held.number as usize] == *item {
                return Ok(held.number);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    fn home(&self, hash: u64) -> usize {
        usize::try_from(hash & (self.slots.len() as u64 - 1)).expect("a place in a table")
    }

    fn grow(&mut self) {
        let slots_count = 2 * self.slots.len();
        self.slots.clear();
        self.slots.shrink_to_fit();
        self.slots.resize(slots_count, EMPTY);
        for (number, item) in (0..).zip(&self.items) {
            let hash = hash_of(item);
            let mut slot = self.home(hash);
            while self.slots[slot] != EMPTY {
                slot = (slot + 1) & (slots_count - 1);
            }
            self.slots[slot] = Slot { tag: tag(hash), number };
        }
    }
}

/// The half of a hash that does not say where its place is.
const fn tag(hash: u64) -> u32 {
    let [_, _, _, _, upper @ ..] = hash.to_le_bytes();
    u32::from_le_bytes(upper)
}

/// The same on every machine and in every run, unlike that of the standard library.
fn hash_of<T: Hash>(item: &T) -> u64 {
    let mut mixer = Mixer(0x243f_6a88_85a3_08d3);
    item.hash(&mut mixer);
    mixer.finish()
}

/// Multiplies and folds, a word at a time.
struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, word: u64) {
        let mixed = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 29);
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.mix(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_things_have_one_number_and_others_have_others() {
        let mut numbered = Numbered::new();
        for round in 0..2 {
            for thing in 0..100_000_u64 {
                assert_eq!(numbered.number(thing * thing), (u32::try_from(thing).unwrap(), round == 0));
            }
        }
        assert_eq!(numbered.count(), 100_000);
        assert_eq!(numbered.get(7), &49);
    }
}
