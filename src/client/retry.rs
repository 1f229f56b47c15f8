//! Which attempt follows which, and what is known when there is no further one. Pure: time comes in as a value.
//!
//! One [`Retry`] is the life of one request. Its caller does what the last [`Step`] says, and reports what came of
//! it; it never reports twice for one step.
//!
//! What always holds:
//!
//! - What may change something twice is sent at most once: an attempt that may have reached a server is followed
//!   by another only if the request is a read or carries a stamp.
//! - *Not done* is said only if every attempt was answered so, or never left (DESIGN §10). An attempt that met no session
//!   was not done: a session that is gone never comes back, so of this write only earlier attempts can be in doubt.
//! - No step begins at or after the deadline.
//!
//! What it leaves out: sockets, clocks, who is behind an endpoint's number.

use crate::api::{Certainty, Refusal};
use crate::ids::BootMicros;

/// How long the first attempt may take; each further one may take twice as long, up to the deadline.
///
/// Chosen: several election timeouts, so that a member that is merely electing answers in time, and a member that
/// stands still costs its client a second.
pub const FIRST_ATTEMPT_MICROS: u64 = 1_000_000;

/// The pause before an endpoint is asked again, once all have been asked.
///
/// Chosen: a tenth of an election, so that a new leader is found soon after it is there.
pub const PAUSE_MICROS_MIN: u64 = 20_000;

/// The longest pause; each is twice the one before.
///
/// Chosen: as long as an election takes.
pub const PAUSE_MICROS_MAX: u64 = 320_000;

/// What happens if a request arrives twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// It changes nothing that matters: a read, a status, the opening of a session.
    Read,
    /// A write with a stamp: the store applies it once.
    StampedWrite,
    /// A write without one: it may be applied twice, so it is sent once.
    BareWrite,
}

/// What came of an attempt that was not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setback {
    /// No connection: the request did not leave.
    Unreachable,
    /// It may have left, and the connection broke before an answer.
    Lost,
    /// It may have left, and no answer came in time.
    TimedOut,
    /// A member refused it.
    Refused {
        /// Why.
        refusal: Refusal,
        /// The number of the endpoint that leads, if the refusal named one that is known.
        leader_at: Option<usize>,
    },
}

impl Setback {
    /// Whether it tells a person more than, or as much as, `earlier`: that somebody could not be reached tells less
    /// than what a member that could be reached said.
    pub fn tells_more_than(&self, earlier: Option<&Self>) -> bool {
        *self != Self::Unreachable || earlier.is_none_or(|earlier| *earlier == Self::Unreachable)
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send the same request, stamp included.
    Send {
        /// To which endpoint.
        endpoint: usize,
        /// Not before this.
        not_before: BootMicros,
        /// Give the attempt up, as `TimedOut`, at this instant.
        until: BootMicros,
    },
    /// There is no further attempt.
    GiveUp(GivenUp),
}

/// The end of a request that was not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// What is known of its effect. A read has none, so it is always *not done*.
    pub certainty: Certainty,
    /// What came of the last attempt that got anywhere, or of the last.
    pub last: Setback,
    /// How many attempts there were.
    pub attempts: u32,
}

/// The life of one request.
#[derive(Clone, Debug)]
pub struct Retry {
    nature: Nature,
    endpoints_count: usize,
    endpoint: usize,
    deadline: BootMicros,
    attempts: u32,
    /// Attempts since the last pause; a pause comes once every endpoint had its chance.
    attempts_without_pause: usize,
    pause_micros: u64,
    /// Whether an earlier attempt may have had, or may yet have, an effect.
    may_be_done: bool,
    /// What tells most of what went wrong.
    told: Option<Setback>,
}

impl Retry {
    /// A request, and its first step: to `endpoint`, one of `endpoints_count`.
    pub fn begin(
        nature: Nature,
        endpoints_count: usize,
        endpoint: usize,
        now: BootMicros,
        deadline: BootMicros,
    ) -> (Self, Step) {
        assert!(endpoint < endpoints_count, "the first endpoint is one of those there are");
        let mut retry = Self {
            nature,
            endpoints_count,
            endpoint,
            deadline,
            attempts: 0,
            attempts_without_pause: 0,
            pause_micros: PAUSE_MICROS_MIN,
            may_be_done: false,
            told: None,
        };
        let step = retry.send(now);
        (retry, step)
    }

    /// More endpoints have become known; the old ones keep their numbers.
    pub fn endpoints_are(&mut self, count: usize) {
        assert!(count >= self.endpoints_count, "endpoints are only added");
        self.endpoints_count = count;
    }

    /// What to do after the last step ended in `setback`.
    pub fn next(&mut self, setback: Setback, now: BootMicros) -> Step {
        // Catalogue 58: what the last attempt was told is taken for the whole request.
        if crate::planted!(58) {
            self.may_be_done = false;
        }
        self.may_be_done |= self.leaves_doubt(&setback);
        let may_repeat = self.may_repeat(&setback);
        let not_before = self.turn_to_another(&setback, now);
        if setback.tells_more_than(self.told.as_ref()) {
            self.told = Some(setback.clone());
        }
        if may_repeat && not_before < self.deadline {
            return self.send(not_before);
        }
        self.give_up(self.told.clone().unwrap_or(setback))
    }

    /// Whether an attempt that ended so may have had an effect.
    fn leaves_doubt(&self, setback: &Setback) -> bool {
        let is_write = match self.nature {
            Nature::Read => false,
            Nature::StampedWrite | Nature::BareWrite => true,
        };
        is_write
            && match setback {
                Setback::Lost | Setback::TimedOut => true,
                // What the write did in the session while there was one is what nobody knows any more. This attempt found
                // none, and was proposed once at the most.
                Setback::Unreachable | Setback::Refused { refusal: Refusal::SessionUnknown, .. } => false,
                Setback::Refused { refusal, .. } => refusal.certainty() == Certainty::OutcomeUnknown,
            }
    }

    /// Whether sending it again can help, and cannot harm.
    fn may_repeat(&self, setback: &Setback) -> bool {
        let can_harm = self.nature == Nature::BareWrite && self.may_be_done;
        let can_help = match setback {
            Setback::Unreachable | Setback::Lost | Setback::TimedOut => true,
            Setback::Refused { refusal, .. } => is_passing(*refusal),
        };
        can_help && !can_harm
    }

    /// Chooses the next endpoint, and from when on it may be asked.
    fn turn_to_another(&mut self, setback: &Setback, now: BootMicros) -> BootMicros {
        let leader_at = match setback {
            Setback::Refused { leader_at, .. } => *leader_at,
            Setback::Unreachable | Setback::Lost | Setback::TimedOut => None,
        };
        let known = leader_at.filter(|&at| at < self.endpoints_count && at != self.endpoint);
        self.endpoint = known.unwrap_or((self.endpoint + 1) % self.endpoints_count);
        if self.attempts_without_pause < self.endpoints_count {
            return now;
        }
        let not_before = now.after(self.pause_micros);
        self.attempts_without_pause = 0;
        self.pause_micros = (2 * self.pause_micros).min(PAUSE_MICROS_MAX);
        not_before
    }

    fn send(&mut self, not_before: BootMicros) -> Step {
        // A bare write has one chance, so it gets all the time there is.
        let patience = match self.nature {
            Nature::BareWrite => u64::MAX,
            Nature::Read | Nature::StampedWrite => FIRST_ATTEMPT_MICROS << self.attempts.min(16),
        };
        self.attempts += 1;
        self.attempts_without_pause += 1;
        let until = not_before.after(patience).min(self.deadline);
        self.assert_invariants();
        Step::Send { endpoint: self.endpoint, not_before, until }
    }

    fn give_up(&self, last: Setback) -> Step {
        if self.may_be_done && self.nature == Nature::BareWrite {
            crate::sometimes!(BareWriteInDoubt);
        }
        let certainty = if self.may_be_done { Certainty::OutcomeUnknown } else { Certainty::NotDone };
        Step::GiveUp(GivenUp { certainty, last, attempts: self.attempts })
    }

    fn assert_invariants(&self) {
        assert!(self.endpoint < self.endpoints_count, "the endpoint asked is one of those there are");
        assert!(
            self.nature != Nature::BareWrite || !self.may_be_done,
            "a write without a stamp is not sent again once it may have been done"
        );
        assert!(
            self.attempts_without_pause <= self.endpoints_count,
            "every endpoint is asked once before the first is asked again without a pause"
        );
    }
}

/// Whether the same request may be served by another member, or later.
const fn is_passing(refusal: Refusal) -> bool {
    match refusal {
        Refusal::NotLeader { .. }
        | Refusal::NoQuorum
        | Refusal::NotReady
        | Refusal::NotUpgraded
        | Refusal::Overloaded
        | Refusal::TooManySessions
        | Refusal::SequenceBeyondWindow
        | Refusal::LeaderChanged
        | Refusal::ForwardLost
        // Another member may be younger, and so may this one be soon.
        | Refusal::TooOld => true,
        Refusal::Malformed
        | Refusal::NoSuchKeyspace
        | Refusal::SessionUnknown
        | Refusal::SequenceForgotten
        | Refusal::AnswerTooLong
        | Refusal::WrongCluster
        | Refusal::NoCommonVersion
        | Refusal::NoSuchWatch
        | Refusal::NoSuchSnapshot
        | Refusal::Users(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{FIRST_ATTEMPT_MICROS, GivenUp, Nature, PAUSE_MICROS_MIN, Retry, Setback, Step};
    use crate::api::{Certainty, Refusal};
    use crate::ids::{BootMicros, MemberId};

    const DEADLINE: BootMicros = BootMicros(5_000_000);

    fn begin(nature: Nature) -> Retry {
        Retry::begin(nature, 3, 0, BootMicros(0), DEADLINE).0
    }

    fn refused(refusal: Refusal) -> Setback {
        Setback::Refused { refusal, leader_at: None }
    }

    fn given_up(step: Step) -> GivenUp {
        match step {
            Step::GiveUp(given_up) => given_up,
            Step::Send { .. } => panic!("no further attempt was expected: {step:?}"),
        }
    }

    fn endpoint(step: &Step) -> usize {
        match step {
            Step::Send { endpoint, .. } => *endpoint,
            Step::GiveUp(_) => panic!("an attempt was expected: {step:?}"),
        }
    }

    #[test]
    fn a_read_and_a_stamped_write_are_sent_again_whatever_was_lost() {
        for nature in [Nature::Read, Nature::StampedWrite] {
            for setback in [Setback::Lost, Setback::TimedOut, refused(Refusal::LeaderChanged)] {
                assert_eq!(endpoint(&begin(nature).next(setback, BootMicros(1))), 1);
            }
        }
    }

    #[test]
    fn a_write_without_a_stamp_is_not_sent_again_once_it_may_have_been_done() {
        for setback in [Setback::Lost, Setback::TimedOut, refused(Refusal::ForwardLost)] {
            let end = given_up(begin(Nature::BareWrite).next(setback.clone(), BootMicros(1)));
            assert_eq!(end, GivenUp { certainty: Certainty::OutcomeUnknown, last: setback, attempts: 1 });
        }
    }

    #[test]
    fn a_write_without_a_stamp_is_sent_again_if_it_never_left_or_was_not_done() {
        for setback in [Setback::Unreachable, refused(Refusal::NotReady)] {
            assert_eq!(endpoint(&begin(Nature::BareWrite).next(setback, BootMicros(1))), 1);
        }
    }

    #[test]
    fn not_done_is_final_only_if_every_attempt_was_answered_so() {
        let mut clean = begin(Nature::StampedWrite);
        clean.next(refused(Refusal::NotReady), BootMicros(1));
        clean.next(Setback::Unreachable, BootMicros(2));
        assert_eq!(
            given_up(clean.next(refused(Refusal::Malformed), BootMicros(3))).certainty,
            Certainty::NotDone
        );

        let mut doubtful = begin(Nature::StampedWrite);
        doubtful.next(Setback::Lost, BootMicros(1));
        let end = given_up(doubtful.next(refused(Refusal::Malformed), BootMicros(2)));
        assert_eq!(end.certainty, Certainty::OutcomeUnknown);
    }

    #[test]
    fn a_read_that_failed_is_not_done_however_it_failed() {
        let mut read = begin(Nature::Read);
        read.next(Setback::Lost, BootMicros(1));
        assert_eq!(given_up(read.next(Setback::TimedOut, DEADLINE)).certainty, Certainty::NotDone);
        let end = given_up(begin(Nature::Read).next(refused(Refusal::AnswerTooLong), BootMicros(1)));
        assert_eq!(end.certainty, Certainty::NotDone);
    }

    #[test]
    fn a_session_that_is_gone_leaves_in_doubt_what_earlier_attempts_did_and_nothing_else() {
        let gone = refused(Refusal::SessionUnknown);
        let first = given_up(begin(Nature::StampedWrite).next(gone.clone(), BootMicros(1)));
        assert_eq!(first, GivenUp { certainty: Certainty::NotDone, last: gone.clone(), attempts: 1 });
        for (earlier, certainty) in [
            (Setback::Unreachable, Certainty::NotDone),
            (refused(Refusal::NotReady), Certainty::NotDone),
            (refused(Refusal::LeaderChanged), Certainty::OutcomeUnknown),
            (Setback::TimedOut, Certainty::OutcomeUnknown),
        ] {
            let mut retry = begin(Nature::StampedWrite);
            retry.next(earlier.clone(), BootMicros(1));
            let end = given_up(retry.next(gone.clone(), BootMicros(2)));
            assert_eq!((end.certainty, &end.last), (certainty, &gone), "after {earlier:?}");
        }
    }

    #[test]
    fn a_result_that_is_not_remembered_ends_a_write_with_its_outcome_unknown() {
        for refusal in [Refusal::SequenceForgotten, Refusal::AnswerTooLong] {
            let end = given_up(begin(Nature::StampedWrite).next(refused(refusal), BootMicros(1)));
            assert_eq!(end.certainty, Certainty::OutcomeUnknown, "{refusal:?}");
        }
    }

    #[test]
    fn a_leader_that_is_named_is_asked_next() {
        let refusal = Refusal::NotLeader { leader: Some(MemberId(9)) };
        let step = begin(Nature::Read).next(Setback::Refused { refusal, leader_at: Some(2) }, BootMicros(1));
        assert_eq!(endpoint(&step), 2);
        let nowhere = Setback::Refused { refusal, leader_at: Some(7) };
        assert_eq!(endpoint(&begin(Nature::Read).next(nowhere, BootMicros(1))), 1);
    }

    #[test]
    fn every_endpoint_is_asked_before_the_first_pause_and_pauses_grow() {
        let mut retry = begin(Nature::Read);
        let mut starts = Vec::new();
        for _ in 0..6 {
            match retry.next(Setback::Unreachable, BootMicros(10)) {
                Step::Send { not_before, .. } => starts.push(not_before.0 - 10),
                Step::GiveUp(end) => panic!("{end:?}"),
            }
        }
        assert_eq!(starts, [0, 0, PAUSE_MICROS_MIN, 0, 0, 2 * PAUSE_MICROS_MIN]);
    }

    #[test]
    fn attempts_grow_longer_and_none_outlives_the_deadline() {
        let (mut retry, first) = Retry::begin(Nature::Read, 3, 0, BootMicros(0), DEADLINE);
        let second = retry.next(Setback::TimedOut, BootMicros(FIRST_ATTEMPT_MICROS));
        let third = retry.next(Setback::TimedOut, BootMicros(3 * FIRST_ATTEMPT_MICROS));
        let ends = [first, second, third].map(|step| match step {
            Step::Send { until, .. } => until.0 / FIRST_ATTEMPT_MICROS,
            Step::GiveUp(end) => panic!("{end:?}"),
        });
        assert_eq!(ends, [1, 3, 5]);
        assert_eq!(given_up(retry.next(Setback::TimedOut, DEADLINE)).attempts, 3);
    }

    #[test]
    fn what_a_member_said_is_not_hidden_by_another_that_is_down() {
        let mut retry = begin(Nature::Read);
        retry.next(refused(Refusal::NoQuorum), BootMicros(1));
        let end = given_up(retry.next(Setback::Unreachable, DEADLINE));
        assert_eq!(end.last, refused(Refusal::NoQuorum));
    }

    #[test]
    fn endpoints_learned_on_the_way_are_asked_too() {
        let (mut retry, _) = Retry::begin(Nature::Read, 1, 0, BootMicros(0), DEADLINE);
        retry.endpoints_are(2);
        assert_eq!(endpoint(&retry.next(Setback::Unreachable, BootMicros(1))), 1);
    }
}
