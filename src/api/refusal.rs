//! Why a request was not served, and how sure that is.

use crate::auth::AuthRefusal;
use crate::ids::MemberId;

/// How sure a refusal is (DESIGN §10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// Nothing was done by this attempt, and nothing will be.
    NotDone,
    /// It may have been done, or may be done yet.
    OutcomeUnknown,
}

/// Why a request was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This member cannot serve it; the leader, if named, can.
    #[error("this member does not lead; ask the leader")]
    NotLeader {
        /// Whom to ask.
        leader: Option<MemberId>,
    },
    /// No quorum could be reached for a read.
    #[error("no quorum could be reached; try again")]
    NoQuorum,
    /// The member is starting, or its cluster is not complete yet.
    #[error("the member is starting, or its cluster is not complete yet; try again later")]
    NotReady,
    /// Too much is queued; try again later.
    #[error("too much is queued; try again later")]
    Overloaded,
    /// The request breaks a rule of the protocol or a limit.
    #[error("the request breaks a rule of the protocol or a limit")]
    Malformed,
    /// There is no such keyspace.
    #[error("there is no such keyspace")]
    NoSuchKeyspace,
    /// No more sessions fit.
    #[error("no more sessions fit; close some or try again later")]
    TooManySessions,
    /// The session never was, was closed, or expired: what it did is no longer remembered.
    #[error("the session never was, was closed, or expired; open a new one and read before writing again")]
    SessionUnknown,
    /// The sequence is at or below the low-water mark: its result is no longer remembered.
    #[error("the sequence is at or below the low-water mark: its result is no longer remembered")]
    SequenceForgotten,
    /// The sequence is too far above the low-water mark.
    #[error("the sequence is too far above the low-water mark; wait for answers first")]
    SequenceBeyondWindow,
    /// It was appended to a log whose leader was then deposed.
    #[error("the leader changed after the write was appended; with a stamp, send it again")]
    LeaderChanged,
    /// It was handed to another member whose answer did not come.
    #[error(
        "the request was handed to another member whose answer did not come; with a stamp, send it again"
    )]
    ForwardLost,
    /// The answer is too long: for a frame, or to be remembered for a retry. A write ran, once, and was not refused by the
    /// store, whose refusals are short; which way a transaction took is not known.
    #[error(
        "the answer is too long for one frame, or to be kept for a retry; ask for less (a limit, keys only, no previous pairs)"
    )]
    AnswerTooLong,
    /// The client insists on another cluster.
    #[error("this is another cluster than the one asked for")]
    WrongCluster,
    /// The client and this server speak no version in common.
    #[error("no version of the protocol in common")]
    NoCommonVersion,
    /// The connection has no watch of that name.
    #[error("there is no such watch on this connection")]
    NoSuchWatch,
    /// The snapshot is not there any more, or could not be made.
    #[error("that snapshot is not there any more, or could not be made; ask for a new one")]
    NoSuchSnapshot,
    /// What this member has applied is older than the read allows, or may be, or has not come to the revision it wants.
    #[error(
        "this member cannot promise what the read asks for; try again, ask another, or let it ask the leader"
    )]
    TooOld,
    /// Some member is not known to run a build that understands such an entry.
    #[error("not every member is known to understand this; try again when all of them are up, and upgraded")]
    NotUpgraded,
    /// Users and roles do not allow it, or a change of them was not made.
    #[error("{0}")]
    Users(#[from] AuthRefusal),
}

impl Refusal {
    /// Whether the attempt that got this refusal can have had an effect.
    pub const fn certainty(self) -> Certainty {
        match self {
            Self::NotLeader { .. }
            | Self::NoQuorum
            | Self::NotReady
            | Self::Overloaded
            | Self::Malformed
            | Self::NoSuchKeyspace
            | Self::TooManySessions
            | Self::SequenceBeyondWindow
            | Self::WrongCluster
            | Self::NoCommonVersion
            | Self::NoSuchWatch
            | Self::NoSuchSnapshot
            | Self::TooOld
            | Self::NotUpgraded
            | Self::Users(_) => Certainty::NotDone,
            Self::SessionUnknown
            | Self::SequenceForgotten
            | Self::LeaderChanged
            | Self::ForwardLost
            | Self::AnswerTooLong => Certainty::OutcomeUnknown,
        }
    }
}
