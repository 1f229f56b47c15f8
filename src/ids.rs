//! The newtypes of identity: values that are all integers and must never be swapped for one another.
//!
//! Each is a plain `Copy` wrapper whose field is public, because these carry meaning and no invariant.
//! What has an invariant lives in the room that keeps it.

use core::fmt;

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

newtype!(
    /// A position in one group's log. The first entry has index 1 (Raft §5.3); 0 means "before the log".
    LogIndex(u64), ""
);
newtype!(
    /// A Raft term. The first election is in term 1; 0 means "no term yet".
    Term(u64), ""
);
newtype!(
    /// An MVCC position of one keyspace. A new store is at revision 1 and the first write makes 2 (etcd's rule).
    Revision(u64), ""
);
newtype!(
    /// A member of a configuration: voter or learner. Never zero for a real member.
    MemberId(u64), "m"
);
newtype!(
    /// One Raft group: one log, one total order.
    GroupId(u32), "g"
);
newtype!(
    /// The store of one group as users see it.
    KeyspaceId(u32), "k"
);
newtype!(
    /// The client's TTL object. 0 means "no lease".
    LeaseId(u64), "lease"
);
newtype!(
    /// A client's session: the identity under which its retries are applied once.
    ///
    /// It is the log index of the entry that opened it, so it is unique for ever. 0 means "no session".
    SessionId(u64), "s"
);
newtype!(
    /// One client's connection to one boot of one member, as its watches know it.
    StreamId(u64), "stream"
);
newtype!(
    /// A watch, by the name that its client gave it. It is unique among the watches of its stream.
    WatchId(u64), "w"
);
newtype!(
    /// A user, as the log names it. A number is never given twice. 0 means "nobody".
    Principal(u32), "p"
);
newtype!(
    /// A position in the history of who may do what. It begins at 1.
    AuthRevision(u64), ""
);
newtype!(
    /// Pairs a reply with its request, within one boot of one member.
    Ticket(u64), "#"
);
newtype!(
    /// The random number that tells one life of a data directory from another (see `replica/bootstrap.rs`).
    /// 0 means "none yet".
    DirectoryId(u64), "d"
);
newtype!(
    /// One cluster, made at bootstrap from all directory ids. 0 means "not bootstrapped".
    ClusterId(u64), "c"
);
newtype!(
    /// A segment of a shard's write-ahead log; numbers only grow.
    SegmentNumber(u64), "seg"
);
newtype!(
    /// Microseconds on this boot's own monotonic clock (`CLOCK_BOOTTIME`) since an epoch of its own.
    ///
    /// Two of them may be compared only if one member took both in one boot: every member, and every boot,
    /// counts from a different instant (DESIGN §9).
    BootMicros(u64), "t"
);

impl GroupId {
    /// The group that bootstrap makes; the only one until keyspaces can be created.
    pub const FIRST: Self = Self(1);
}

impl KeyspaceId {
    /// The keyspace of `GroupId::FIRST`, which clients use unless they say otherwise.
    pub const FIRST: Self = Self(0);
}

impl LogIndex {
    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The index before this one. Must not be called on zero.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0 - 1)
    }
}

impl Term {
    /// The term after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Revision {
    /// The revision after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl BootMicros {
    /// The instant `micros` later.
    #[must_use]
    pub const fn after(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Microseconds from `earlier` until this instant; 0 if `earlier` is in fact later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
