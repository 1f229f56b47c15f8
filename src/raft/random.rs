//! The core's own random numbers: election timeouts, replication sessions, the first read-request number.
//!
//! `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014): eight bytes of state, every seed good, the same sequence on every
//! machine, so a run is repeatable. It is not for secrets.

/// A repeatable sequence of numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    /// The sequence that belongs to `seed`.
    pub(super) const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Any number.
    pub(super) fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.number().checked_rem(bound).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence() {
        let (mut first, mut second) = (Random::new(7), Random::new(7));
        for _ in 0..100 {
            assert_eq!(first.number(), second.number());
        }
        assert_ne!(Random::new(7).number(), Random::new(8).number());
    }

    #[test]
    fn a_bound_is_kept_and_every_value_below_it_met() {
        let mut random = Random::new(1);
        let mut seen = [false; 10];
        for _ in 0..1_000 {
            seen[usize::try_from(random.below(10)).unwrap()] = true;
        }
        assert_eq!(seen, [true; 10]);
        assert_eq!(random.below(0), 0);
    }
}
