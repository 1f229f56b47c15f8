//! What goes wrong, as etcd's clients know it: one text and one gRPC code each (etcd's `rpctypes/error.go`).

use crate::api::{Certainty, Refusal};
use crate::auth::AuthRefusal;
use crate::kv::StoreRefusal;

/// The codes of gRPC that are used here, by their published numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Code {
    InvalidArgument = 3,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    OutOfRange = 11,
    Unimplemented = 12,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// Why a request of the etcd API was not served, or what its client did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Fault {
    EmptyKey,
    KeyNotFound,
    ValueProvided,
    LeaseProvided,
    TooManyOperations,
    DuplicateKey,
    InvalidSortOption,
    /// A number that the enumeration of its field does not have.
    UnknownEnumeration,
    TooLarge,
    Compacted,
    FutureRevision,
    NoSpace,
    /// A transaction that would look at more keys than one may.
    CostsTooMuch,
    LeaseNotFound,
    LeaseExists,
    LeaseTtlTooLarge,
    MemberNotFound,
    NoLeader,
    NotLeader,
    LeaderChanged,
    BadTransferee,
    TransferTimedOut,
    TimedOut,
    ConnectionLost,
    Stopped,
    TooManyRequests,
    AnswerTooLong,
    /// What users and roles do not allow.
    Auth(AuthRefusal),
    PermissionNotGiven,
    /// A token that this cluster never gave, or that has run out.
    InvalidToken,
    /// Such a user and such a password are not known.
    AuthFailed,
    /// A client brings a hash of a password.
    HashedPassword,
    /// Something of the API that this version does not do, in words.
    NotBuilt(&'static str),
    /// Something that some member may be too old for.
    NotCapable,
    /// Our own mistake: an answer that does not fit the question.
    Unexpected,
}

impl Fault {
    /// The text that clients match on, and the code.
    pub const fn text_and_code(self) -> (&'static str, Code) {
        use Code::{
            FailedPrecondition, InvalidArgument, NotFound, OutOfRange, ResourceExhausted, Unavailable,
        };
        match self {
            Self::EmptyKey => ("etcdserver: key is not provided", InvalidArgument),
            Self::KeyNotFound => ("etcdserver: key not found", InvalidArgument),
            Self::ValueProvided => ("etcdserver: value is provided", InvalidArgument),
            Self::LeaseProvided => ("etcdserver: lease is provided", InvalidArgument),
            Self::TooManyOperations => ("etcdserver: too many operations in txn request", InvalidArgument),
            Self::DuplicateKey => ("etcdserver: duplicate key given in txn request", InvalidArgument),
            Self::InvalidSortOption => ("etcdserver: invalid sort option", InvalidArgument),
            Self::UnknownEnumeration => {
                ("mainstay: a field holds a number that its enumeration does not have", InvalidArgument)
            }
            Self::TooLarge => ("etcdserver: request is too large", InvalidArgument),
            Self::Compacted => ("etcdserver: mvcc: required revision has been compacted", OutOfRange),
            Self::FutureRevision => ("etcdserver: mvcc: required revision is a future revision", OutOfRange),
            Self::NoSpace => ("etcdserver: mvcc: database space exceeded", ResourceExhausted),
            Self::CostsTooMuch => {
                ("mainstay: the transaction looks at more than one may; ask in parts", ResourceExhausted)
            }
            Self::LeaseNotFound => ("etcdserver: requested lease not found", NotFound),
            Self::LeaseExists => ("etcdserver: lease already exists", FailedPrecondition),
            Self::LeaseTtlTooLarge => ("etcdserver: too large lease TTL", OutOfRange),
            Self::MemberNotFound => ("etcdserver: member not found", NotFound),
            Self::NoLeader => ("etcdserver: no leader", Unavailable),
            Self::NotLeader => ("etcdserver: not leader", FailedPrecondition),
            Self::LeaderChanged => ("etcdserver: leader changed", Unavailable),
            Self::BadTransferee => ("etcdserver: bad leader transferee", FailedPrecondition),
            Self::TransferTimedOut => {
                ("etcdserver: request timed out, leader transfer took too long", Unavailable)
            }
            Self::TimedOut => ("etcdserver: request timed out", Unavailable),
            Self::ConnectionLost => {
                ("etcdserver: request timed out, possibly due to connection lost", Unavailable)
            }
            Self::Stopped => ("etcdserver: server stopped", Unavailable),
            Self::TooManyRequests => ("etcdserver: too many requests", ResourceExhausted),
            Self::AnswerTooLong => {
                ("mainstay: it was done, and the answer is too long; ask for less", ResourceExhausted)
            }
            Self::Auth(refusal) => super::users::text_and_code(refusal),
            Self::InvalidToken => ("etcdserver: invalid auth token", Code::Unauthenticated),
            Self::AuthFailed => {
                ("etcdserver: authentication failed, invalid user ID or password", InvalidArgument)
            }
            Self::PermissionNotGiven => ("etcdserver: permission not given", InvalidArgument),
            Self::HashedPassword => (
                "mainstay: a hash made elsewhere cannot be compared with; give the password",
                InvalidArgument,
            ),
            Self::NotBuilt(words) => (words, Code::Unimplemented),
            Self::NotCapable => ("etcdserver: not capable", FailedPrecondition),
            Self::Unexpected => ("mainstay: an answer that does not fit the question", Unavailable),
        }
    }
}

impl From<StoreRefusal> for Fault {
    fn from(refusal: StoreRefusal) -> Self {
        match refusal {
            StoreRefusal::KeyMissing => Self::EmptyKey,
            StoreRefusal::Compacted => Self::Compacted,
            StoreRefusal::FutureRevision => Self::FutureRevision,
            StoreRefusal::TooManyOperations => Self::TooManyOperations,
            StoreRefusal::DuplicateKey => Self::DuplicateKey,
            StoreRefusal::LeaseNotFound => Self::LeaseNotFound,
            StoreRefusal::OutOfBounds => Self::TooLarge,
            StoreRefusal::WriteInQuery => Self::Unexpected,
            StoreRefusal::KeyNotFound => Self::KeyNotFound,
            StoreRefusal::ValueProvided => Self::ValueProvided,
            StoreRefusal::LeaseProvided => Self::LeaseProvided,
            StoreRefusal::LeaseExists => Self::LeaseExists,
            StoreRefusal::TtlOutOfBounds => Self::LeaseTtlTooLarge,
            StoreRefusal::TooManyLeases => Self::TooManyRequests,
            StoreRefusal::NoSpace => Self::NoSpace,
            StoreRefusal::CostsTooMuch => Self::CostsTooMuch,
        }
    }
}

impl From<Refusal> for Fault {
    /// Only what is *not done* may be told by a code after which a client takes it for that: where the outcome is
    /// unknown the code is Unavailable, which clients never take for an answer.
    fn from(refusal: Refusal) -> Self {
        let fault = match refusal {
            Refusal::NotLeader { .. } | Refusal::NotReady => Self::NoLeader,
            Refusal::NoQuorum => Self::TimedOut,
            Refusal::Overloaded => Self::TooManyRequests,
            Refusal::Malformed => Self::TooLarge,
            Refusal::LeaderChanged => Self::LeaderChanged,
            Refusal::ForwardLost => Self::ConnectionLost,
            Refusal::AnswerTooLong => Self::AnswerTooLong,
            Refusal::NotUpgraded => Self::NotCapable,
            Refusal::Users(refusal) => Self::Auth(refusal),
            Refusal::NoSuchKeyspace
            | Refusal::TooManySessions
            | Refusal::SessionUnknown
            | Refusal::SequenceForgotten
            | Refusal::SequenceBeyondWindow
            | Refusal::WrongCluster
            | Refusal::NoCommonVersion
            | Refusal::NoSuchWatch
            | Refusal::NoSuchSnapshot
            | Refusal::TooOld => Self::Unexpected,
        };
        debug_assert!(
            refusal.certainty() == Certainty::NotDone
                || fault == Self::AnswerTooLong
                || fault.text_and_code().1 == Code::Unavailable,
            "an unknown outcome is told as Unavailable"
        );
        fault
    }
}
