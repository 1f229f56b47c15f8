//! Why a request was not served, in words a person can act on.
//!
//! What always holds: a failure says whether the request is *not done* or its *outcome is unknown*; its code word
//! is stable, so that scripts may compare it.

use super::retry::{GivenUp, Nature, Setback};
use crate::api::{Certainty, Refusal};
use std::fmt;

/// A request that was not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A read, or a write.
    pub nature: Nature,
    /// What is known of its effect, and what the last attempt met.
    pub end: GivenUp,
    /// What was met last, in detail: the address, and what the system or the member said.
    pub detail: String,
}

impl Failure {
    /// Whether it is *not done* or its *outcome is unknown*.
    pub const fn certainty(&self) -> Certainty {
        self.end.certainty
    }

    /// The stable code word.
    pub const fn code(&self) -> &'static str {
        match &self.end.last {
            Setback::Unreachable => "unreachable",
            Setback::Lost => "connection-lost",
            Setback::TimedOut => "timed-out",
            Setback::Refused { refusal, .. } => refusal_code(*refusal),
        }
    }

    /// What to do about it.
    pub const fn advice(&self) -> &'static str {
        match (&self.end.last, self.end.certainty) {
            (Setback::Refused { refusal, .. }, Certainty::NotDone) => refusal_advice(*refusal),
            (Setback::Refused { refusal: Refusal::AnswerTooLong, .. }, Certainty::OutcomeUnknown) => {
                "it ran once, and what it did stands, but the answer is lost, and with it which way a transaction took: \
                 read the keys; next time ask for less (no previous pairs, fewer reads in the transaction)"
            }
            (_, Certainty::OutcomeUnknown) => "read the keys before you write them again",
            (Setback::Unreachable, Certainty::NotDone) => {
                "check that the members run and that --endpoints names their native addresses"
            }
            (Setback::Lost | Setback::TimedOut, Certainty::NotDone) => {
                "look at `mainstay status`; try again, with a longer --timeout if the cluster is busy"
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = match (self.nature, self.end.certainty) {
            (Nature::Read, _) => "the read was not served",
            (_, Certainty::NotDone) => "the write was not done",
            (_, Certainty::OutcomeUnknown) => "the outcome of the write is unknown",
        };
        let plural = if self.end.attempts == 1 { "" } else { "s" };
        write!(f, "{known}: {} ({} attempt{plural})", self.detail, self.end.attempts)
    }
}

impl std::error::Error for Failure {}

const fn refusal_code(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NotLeader { .. } => "not-leader",
        Refusal::NoQuorum => "no-quorum",
        Refusal::NotReady => "not-ready",
        Refusal::Overloaded => "overloaded",
        Refusal::Malformed => "malformed",
        Refusal::NoSuchKeyspace => "no-such-keyspace",
        Refusal::TooManySessions => "too-many-sessions",
        Refusal::SessionUnknown => "session-unknown",
        Refusal::SequenceForgotten => "sequence-forgotten",
        Refusal::SequenceBeyondWindow => "sequence-beyond-window",
        Refusal::LeaderChanged => "leader-changed",
        Refusal::ForwardLost => "forward-lost",
        Refusal::AnswerTooLong => "answer-too-long",
        Refusal::WrongCluster => "wrong-cluster",
        Refusal::NoCommonVersion => "no-common-version",
        Refusal::NoSuchWatch => "no-such-watch",
        Refusal::NoSuchSnapshot => "no-such-snapshot",
        Refusal::TooOld => "too-old",
        Refusal::NotUpgraded => "not-upgraded",
        Refusal::Users(_) => "not-permitted",
    }
}

const fn refusal_advice(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NotLeader { .. } | Refusal::NoQuorum | Refusal::LeaderChanged | Refusal::ForwardLost => {
            "`mainstay status` tells which members are up; a majority of them is needed"
        }
        Refusal::NotReady => "`mainstay status` tells what the member waits for; try again then",
        Refusal::NotUpgraded => "start every member with a build as new as the leader's, then try again",
        Refusal::Overloaded | Refusal::TooManySessions | Refusal::SequenceBeyondWindow => {
            "try again later, more slowly"
        }
        Refusal::Malformed => "keep to the limits of keys, values and transactions (PROTOCOL.md)",
        Refusal::NoSuchKeyspace => "name a keyspace that exists",
        Refusal::SessionUnknown => "try again: it will be in a new session",
        Refusal::SequenceForgotten => "read the keys before you write them again",
        Refusal::AnswerTooLong => "ask for less: --limit, --keys-only, --count-only",
        Refusal::WrongCluster => "check --endpoints: the address belongs to another cluster",
        Refusal::NoSuchWatch => "create the watch anew, from the revision after the last one it was told",
        Refusal::NoSuchSnapshot => {
            "ask for a new snapshot; the log of the member says what went wrong with that one"
        }
        Refusal::TooOld => {
            "allow more with --max-age, ask for an earlier --min-revision, ask another member, or let it ask the leader \
             (--or-ask-leader)"
        }
        Refusal::Users(_) => {
            "permissions count in this cluster, and this protocol cannot say who asks: use a client of etcd"
        }
        Refusal::NoCommonVersion => "use a client and a server of versions that know each other",
    }
}
