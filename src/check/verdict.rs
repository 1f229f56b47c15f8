//! Both judges together.
//!
//! Always: a history passes only if the judge along revisions accepts it and the search has not found it impossible.
//! That the search came to no end is told, and is for the caller to count.

use super::along_revisions::{Summary, check_along_revisions};
use super::history::{CommittedWrite, Operation};
use super::search::{Searched, Verdict, check_by_search};
use super::violation::Violation;

/// Steps that the search may take for each set of joined keys.
///
/// Chosen: a minute of simulated history needs about one step an operation, which is 5,000, as long as the advice of
/// the other judge is good; forty times that are a fraction of a second.
const STEPS_MAX: u64 = 200_000;

/// What both judges say of a possible history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The judge along revisions.
    pub along_revisions: Summary,
    /// The search.
    pub search: Searched,
}

/// Has both judges look at `history`, of which `order` is the committed log.
///
/// # Errors
/// What either judge found. If both did, the search's window, which is cut to the least, and both explanations.
pub fn judge(history: &[Operation], order: &[CommittedWrite]) -> Result<Judged, Box<Violation>> {
    let along_revisions = check_along_revisions(history, order);
    let places: &[_] = along_revisions.as_ref().map_or(&[], |summary| &summary.places);
    let search = check_by_search(history, places, STEPS_MAX);
    match (along_revisions, search) {
        (Ok(along_revisions), Verdict::Linearizable(search) | Verdict::Undecided(search)) => {
            Ok(Judged { along_revisions, search })
        }
        (Ok(_), Verdict::Impossible(_, violation))
        | (Err(violation), Verdict::Linearizable(_) | Verdict::Undecided(_)) => Err(violation),
        (Err(first), Verdict::Impossible(_, mut second)) => {
            second.explanation = format!("{:?}: {}; {}", first.wrong, first.explanation, second.explanation);
            Err(second)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{Answer, Wrong};
    use super::*;

    #[test]
    fn a_sound_history_passes_both_judges() {
        let history = [write((0, 10), 1, put("a"), Answer::Unknown), read((20, 30), 2, Some(("a", 2, 1)))];
        let judged = judge(&history, &order(&[(1, put("a"))])).expect("a sound history");
        assert_eq!((judged.along_revisions.reads, judged.search.operations), (1, 2));
        assert_eq!(judged.search.undecided, 0);
    }

    #[test]
    fn what_only_one_judge_finds_is_a_violation() {
        // There is an order, but not the one that the log witnesses.
        let history = [write((0, 10), 1, put("a"), was_put(9))];
        let violation = judge(&history, &order(&[(1, put("a"))])).expect_err("the revision is wrong");
        assert_eq!(violation.wrong, Wrong::Answer);
    }

    #[test]
    fn what_both_judges_find_is_told_once_with_the_least_window() {
        let history = [
            write((0, 10), 1, put("a"), was_put(2)),
            write((20, 30), 2, put("b"), was_put(3)),
            read((31, 40), 2, Some(("a", 2, 1))),
        ];
        let order = order(&[(1, put("a")), (2, put("b"))]);
        let violation = judge(&history, &order).expect_err("a stale read");
        assert_eq!((violation.wrong, violation.offending_count), (Wrong::NoOrder, 2));
        assert!(violation.explanation.starts_with("RealTime: "), "{}", violation.explanation);
    }
}
