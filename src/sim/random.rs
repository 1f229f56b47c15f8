//! Random numbers for the simulator: small, seeded, the same on every machine.
//!
//! Always: the same seed gives the same numbers, in debug and in release, for ever (a seed that found a bug is
//! written down in commits). So: integers only, and an algorithm that is not a dependency's to change.
//! Left out: any cryptographic use.

/// A generator (xoshiro256**, Blackman and Vigna 2018) seeded by splitmix64.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: [u64; 4],
}

impl Random {
    /// A generator whose numbers follow from `seed` alone.
    pub(super) fn new(seed: u64) -> Self {
        let mut mixer = seed;
        let mut state = [0; 4];
        for word in &mut state {
            mixer = mixer.wrapping_add(0x9E37_79B9_7F4A_7C15);
            *word = mix(mixer);
        }
        Self { state }
    }

    /// An independent generator, so that drawing more in one part of a run moves nothing in another.
    #[must_use]
    pub(super) fn fork(&mut self) -> Self {
        Self::new(self.next_u64())
    }

    /// 64 random bits.
    pub(super) fn next_u64(&mut self) -> u64 {
        let result = self.state[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = self.state[1] << 17;
        self.state[2] ^= self.state[0];
        self.state[3] ^= self.state[1];
        self.state[1] ^= self.state[2];
        self.state[0] ^= self.state[3];
        self.state[2] ^= shifted;
        self.state[3] = self.state[3].rotate_left(45);
        result
    }

    /// A number in `0..bound`; `bound` is not zero.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a range to draw from is not empty");
        // The high half of a 128-bit product; its bias is below bound / 2^64, which no test could notice.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `low..=high`.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "a range to draw from runs upwards");
        low + self.below(high - low + 1)
    }

    /// A position in a list of `count` things; `count` is not zero.
    pub(super) fn position(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).unwrap_or(0)
    }

    /// True `parts` times in a million.
    pub(super) fn chance(&mut self, parts: u32) -> bool {
        parts > 0 && self.below(1_000_000) < u64::from(parts)
    }

    /// A number whose mean is `mean`, with a tail as of waiting times: each doubling of the distance from zero is
    /// about as likely to be the last as not. Never above 20 times the mean.
    pub(super) fn waiting_time(&mut self, mean: u64) -> u64 {
        let doublings = u64::from(self.next_u64().trailing_zeros().min(4));
        let base = mean * (1 + doublings * doublings) / 2;
        self.below((base * 4 / 3).max(1)) + mean / 16
    }

    /// A number in `low..=high` that is as likely to lie between 1 and 10 as between 10 and 100.
    pub(super) fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        assert!(low > 0, "magnitudes start above zero");
        let steps = u64::from((high / low).max(1).ilog2());
        let top = low << self.between(0, steps);
        self.between(low.max(top / 2), top.min(high).max(low))
    }
}

/// Spreads every bit of `value` over all 64 (splitmix64's finaliser); also the rolling hash of traces.
pub(super) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// A 64-bit fingerprint of `bytes`. Not keyed: for comparing what our own run produced.
pub(super) fn fingerprint(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut hash = bytes.len() as u64;
    for word in words {
        hash = (hash.rotate_left(23) ^ u64::from_le_bytes(*word)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    for byte in rest {
        hash = (hash.rotate_left(9) ^ u64::from(*byte)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    }
    mix(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence_and_two_give_two() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            (0..8).map(|_| random.next_u64()).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
    }

    #[test]
    fn draws_stay_within_their_ranges() {
        let mut random = Random::new(1);
        for _ in 0..10_000 {
            assert!(random.below(3) < 3);
            assert!((5..=9).contains(&random.between(5, 9)));
            assert!((10..=5_000).contains(&random.magnitude(10, 5_000)));
            assert!(random.waiting_time(1_000) < 20_000);
        }
    }

    #[test]
    fn waiting_times_have_about_the_mean_asked_for() {
        let mut random = Random::new(2);
        let sum: u64 = (0..100_000).map(|_| random.waiting_time(1_000)).sum();
        let mean = sum / 100_000;
        assert!((700..1_600).contains(&mean), "{mean}");
    }

    #[test]
    fn a_flipped_bit_changes_the_fingerprint() {
        let mut bytes = *b"some bytes that are not a multiple of eight long";
        let before = fingerprint(&bytes[..47]);
        bytes[46] ^= 1;
        assert_ne!(before, fingerprint(&bytes[..47]));
    }
}
