//! How old what this member has applied may be, and reads that are content with that.
//!
//! ```text
//!   this member   asks who leads (a) ──► is told: index i ──► has applied i … a read comes (r): at most r − a old
//! ```
//!
//! Always: whatever was committed before a linearizable read was asked for is at or below the index that the read is told, so
//! a member that has applied that index lacks nothing that is older than its own asking. Counted on its own clock, from before
//! anything was sent, so no other clock counts and no delay on the way does (DESIGN §9). Every linearizable read that goes
//! through this member tells so for nothing; if none does, the first read that finds nothing young enough asks.
//! After a start nothing is known, and every age is too old. Reads of a revision or later need no age; they are here because they are
//! answered or refused the same way. Left out: how a read is confirmed (`read`).

use super::Output;
use super::apply::Asker;
use super::group::Replica;
use super::input::Asked;
use super::read::Question;
#[cfg(test)]
use crate::api::ReadMode;
use crate::api::{Otherwise, Refusal, Response};
use crate::ids::{BootMicros, LogIndex, Revision};
use crate::kv::Query;
use crate::{planted, sometimes};

/// What was confirmed: everything committed before `asked_at` is at or below `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Confirmed {
    asked_at: BootMicros,
    index: LogIndex,
}

/// What this member knows of how old its state is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Freshness {
    /// The newest that is applied here.
    applied: Option<Confirmed>,
    /// A newer one that is not.
    coming: Option<Confirmed>,
    /// Somebody found everything too old: ask, though no read waits for it.
    wants_probe: bool,
    /// How many reads with a bound were refused.
    pub(super) refused_count: u64,
}

impl Freshness {
    /// A read that was asked for at `asked_at` was told `index`.
    pub(super) fn confirmed(&mut self, asked_at: BootMicros, index: LogIndex, applied: LogIndex) {
        self.settle(applied);
        // If what comes has to wait for long, an older one that waits less is of more use; it is kept until it is applied.
        let confirmed = Confirmed { asked_at, index };
        // Planted 152: as if what is confirmed were applied.
        if index <= applied || planted!(152) {
            self.applied = younger(self.applied, confirmed);
        } else if self.coming.is_none() {
            self.coming = Some(confirmed);
        }
    }

    /// The latest known instant before which nothing was committed that is not applied here; none if nothing is known.
    pub(super) fn as_of(&mut self, applied: LogIndex) -> Option<BootMicros> {
        self.settle(applied);
        self.applied.map(|confirmed| confirmed.asked_at)
    }

    /// Whether a read was refused since the last call, so that the leader is to be asked.
    pub(super) fn take_probe(&mut self) -> bool {
        std::mem::take(&mut self.wants_probe)
    }

    fn settle(&mut self, applied: LogIndex) {
        if let Some(coming) = self.coming.take_if(|coming| coming.index <= applied) {
            self.applied = younger(self.applied, coming);
        }
    }
}

/// The younger of what is known and another.
fn younger(known: Option<Confirmed>, other: Confirmed) -> Option<Confirmed> {
    known.filter(|known| known.asked_at >= other.asked_at).or(Some(other))
}

impl Replica {
    /// Takes in a read that may be answered from what is applied here, if that lacks nothing older than `max_age_ms`.
    pub(super) fn gather_max_age(
        &mut self,
        now: BootMicros,
        asked: Asked,
        (query, max_age_ms, otherwise): (Query, u32, Otherwise),
        outputs: &mut Vec<Output>,
    ) {
        let age = self.age_micros(now).filter(|age| *age <= u64::from(max_age_ms) * 1_000);
        if age.is_some() {
            sometimes!(BoundedReadHere);
        }
        let question = Question::Aged { query, revision: Revision(0), age_micros: age };
        self.gather_if(age.is_some(), (now, asked), (question, otherwise), outputs);
    }

    /// Takes in a read of the store as of `revision` or later.
    pub(super) fn gather_min_revision(
        &mut self,
        now: BootMicros,
        asked: Asked,
        (query, revision, otherwise): (Query, Revision, Otherwise),
        outputs: &mut Vec<Output>,
    ) {
        let question = Question::Aged { query, revision, age_micros: self.age_micros(now) };
        self.gather_if(revision <= self.store.revision(), (now, asked), (question, otherwise), outputs);
    }

    /// How long ago that instant was, in microseconds; none if nothing is known.
    fn age_micros(&mut self, now: BootMicros) -> Option<u64> {
        self.reads.freshness.as_of(self.applied).map(|since| now.since(since))
    }

    /// The question is answered here if that will do, or as the client has it otherwise.
    fn gather_if(
        &mut self,
        is_here: bool,
        (now, asked): (BootMicros, Asked),
        (question, otherwise): (Question, Otherwise),
        outputs: &mut Vec<Output>,
    ) {
        match (is_here, otherwise) {
            (true, _) => self.gather_here(now, asked, question, outputs),
            (false, Otherwise::AskLeader) => self.gather_for(asked, question.asked_of_the_leader(), outputs),
            (false, Otherwise::Refuse) => {
                self.reads.freshness.wants_probe = true;
                self.refuse_as_too_old(Asker::Client(asked.0), outputs);
            }
        }
    }

    /// What is applied here will not do, and nobody else is to be asked.
    pub(super) fn refuse_as_too_old(&mut self, asker: Asker, outputs: &mut Vec<Output>) {
        sometimes!(BoundedReadRefused);
        self.reads.freshness.refused_count += 1;
        self.answer(asker, Response::Refused(Refusal::TooOld), outputs);
    }

    /// Whether this turn asks who leads though no read waits for it.
    pub(super) fn is_probe_due(&mut self) -> bool {
        // What is asked already will do.
        self.reads.freshness.take_probe() && self.reads.is_none_confirming()
    }
}

/// One of each mode.
#[cfg(test)]
pub(super) const ANY_MODES: [ReadMode; 4] = [
    ReadMode::Linearizable,
    ReadMode::Serializable,
    ReadMode::MaxAge { max_age_ms: 20, otherwise: Otherwise::Refuse },
    ReadMode::MinRevision { revision: Revision(3), otherwise: Otherwise::AskLeader },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_as_old_as_the_asking_for_what_it_has_applied() {
        let mut freshness = Freshness::default();
        assert_eq!(freshness.as_of(LogIndex(9)), None, "nothing is known after a start");
        freshness.confirmed(BootMicros(100), LogIndex(10), LogIndex(9));
        assert_eq!(freshness.as_of(LogIndex(9)), None, "what was confirmed is not applied");
        assert_eq!(freshness.as_of(LogIndex(10)), Some(BootMicros(100)));
        freshness.confirmed(BootMicros(300), LogIndex(12), LogIndex(12));
        freshness.confirmed(BootMicros(200), LogIndex(12), LogIndex(12));
        assert_eq!(freshness.as_of(LogIndex(12)), Some(BootMicros(300)), "answers come in any order");
    }
}
