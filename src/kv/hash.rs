//! The running hash of everything a store has ever changed, by which members notice that they differ.
//!
//! Two stores that made the same changes in the same order have the same hash. It finds accidents, not
//! attacks: it is unkeyed, and whoever can write keys could look for collisions. It depends on nothing of the
//! machine: words are read little-endian wherever it runs.

/// An odd multiplier with its bits well spread (the golden ratio in 64 bits).
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// A hash that grows by whole words.
///
/// A step is a bijection of the state for a given word and of the word for a given state, so two histories
/// that differ in one word differ at least until a second difference undoes the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RollingHash(u64);

impl RollingHash {
    pub(super) const fn new() -> Self {
        Self(MULTIPLIER)
    }

    /// The hash of a history that was absorbed elsewhere.
    pub(super) const fn restored(value: u64) -> Self {
        Self(value)
    }

    pub(super) const fn value(self) -> u64 {
        self.0
    }

    pub(super) const fn absorb_word(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(MULTIPLIER);
        self.0 = mixed ^ (mixed >> 32);
    }

    /// Absorbs the length and then the bytes, so that no two lists of byte strings run together alike.
    pub(super) fn absorb_bytes(&mut self, bytes: &[u8]) {
        self.absorb_word(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.absorb_word(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let last = rest.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte));
            self.absorb_word(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RollingHash;

    fn hash_of(strings: &[&[u8]]) -> u64 {
        let mut hash = RollingHash::new();
        for bytes in strings {
            hash.absorb_bytes(bytes);
        }
        hash.value()
    }

    #[test]
    fn moving_a_byte_from_one_string_to_the_next_changes_the_hash() {
        assert_ne!(hash_of(&[b"ab", b"c"]), hash_of(&[b"a", b"bc"]));
        assert_ne!(hash_of(&[b"", b"a"]), hash_of(&[b"a", b""]));
    }

    #[test]
    fn a_trailing_zero_byte_changes_the_hash() {
        assert_ne!(hash_of(&[b"a"]), hash_of(&[b"a\0"]));
        assert_ne!(hash_of(&[b"12345678"]), hash_of(&[b"12345678\0"]));
    }
}
