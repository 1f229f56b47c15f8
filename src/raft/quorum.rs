//! Majorities: how many make one, and what one holds.

use crate::limits::RAFT_VOTERS_MAX;

/// The smallest number of voters of which any two sets share a member.
pub(super) const fn majority(voters_count: usize) -> usize {
    voters_count / 2 + 1
}

/// The largest value that a majority has reached, given one value for each voter.
///
/// For match indices that is what a majority holds; for instants of hearing, since when a majority was heard.
pub(super) fn reached_by_majority(values: impl Iterator<Item = u64>) -> u64 {
    let mut sorted = [0; RAFT_VOTERS_MAX];
    let mut count = 0;
    for (slot, value) in sorted.iter_mut().zip(values) {
        *slot = value;
        count += 1;
    }
    let sorted = &mut sorted[..count];
    sorted.sort_unstable_by(|one, other| other.cmp(one));
    sorted.get(majority(count) - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_majorities_always_share_a_voter() {
        for count in 1..=RAFT_VOTERS_MAX {
            assert!(2 * majority(count) > count);
            assert!(2 * (majority(count) - 1) <= count);
        }
    }

    #[test]
    fn a_majority_reaches_the_median_or_the_lower_middle() {
        assert_eq!(reached_by_majority([5].into_iter()), 5);
        assert_eq!(reached_by_majority([5, 9].into_iter()), 5);
        assert_eq!(reached_by_majority([9, 1, 5].into_iter()), 5);
        assert_eq!(reached_by_majority([4, 3, 2, 1].into_iter()), 2);
        assert_eq!(reached_by_majority([5, 5, 1, 0, 7].into_iter()), 5);
    }
}
