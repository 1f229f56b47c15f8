//! What can be asked of a store, and what it answers. The model is etcd's (ETCD-CONTRACT §3–4).

use crate::ids::{LeaseId, Revision};
use bytes::Bytes;

/// Which keys an operation touches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyRange {
    /// One key.
    Key(Bytes),
    /// `start <= key < end`.
    Span {
        /// First key of the range.
        start: Bytes,
        /// First key beyond it.
        end: Bytes,
    },
    /// `start <= key`, to the end of the keyspace. An empty `start` means every key.
    From(Bytes),
}

impl KeyRange {
    /// Whether `key` is in it. A range that ends before it starts holds no key.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(only) => only == key,
            Self::Span { start, end } => start.as_ref() <= key && key < end.as_ref(),
            Self::From(start) => start.as_ref() <= key,
        }
    }

    /// What is left of it from `key` on, which is in it.
    pub(super) fn starting_at(&self, key: &[u8]) -> Self {
        let key = Bytes::copy_from_slice(key);
        match self {
            Self::Key(_) => Self::Key(key),
            Self::Span { end, .. } => Self::Span { start: key, end: end.clone() },
            Self::From(_) => Self::From(key),
        }
    }
}

/// One key as a read sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key; never empty.
    pub key: Bytes,
    /// The value; an empty value and no value are the same.
    pub value: Bytes,
    /// The revision that created this life of the key.
    pub create_revision: Revision,
    /// The revision of the last write.
    pub mod_revision: Revision,
    /// 1 at creation, one more with each write since.
    pub version: u64,
    /// The attached lease, 0 for none.
    pub lease: LeaseId,
}

/// Writes one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The key; not empty.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The lease to attach; 0 detaches any.
    pub lease: LeaseId,
    /// Answer with the pair as it was before.
    pub wants_previous: bool,
    /// Keep the value of the key, which must exist (etcd's `ignore_value`). `value` is empty then.
    pub keeps_value: bool,
    /// Keep the lease of the key, which must exist (etcd's `ignore_lease`). `lease` is 0 then.
    pub keeps_lease: bool,
}

impl Put {
    /// Writes `value`, without a lease and without options.
    pub const fn new(key: Bytes, value: Bytes) -> Self {
        Self { key, value, lease: LeaseId(0), wants_previous: false, keeps_value: false, keeps_lease: false }
    }
}

/// Removes keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRange {
    /// Which keys.
    pub range: KeyRange,
    /// Answer with the pairs as they were before.
    pub wants_previous: bool,
}

/// Reads keys: those of the range that a filter lets through, sorted, then cut to a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_field_names)] // the field has the same name in every operation
pub struct Range {
    /// Which keys.
    pub range: KeyRange,
    /// At most this many pairs; 0 for no limit.
    pub limit: u64,
    /// At this revision; 0 for the current one.
    pub revision: Revision,
    /// In this order; None for ascending keys.
    pub sort: Option<Sort>,
    /// Only pairs between these revisions. The count is of all.
    pub filter: Filter,
    /// Answer without values.
    pub keys_only: bool,
    /// Answer with the count alone.
    pub count_only: bool,
    /// Answer with the first part alone, which ends when its pairs take so many bytes, and do not look further: `count` is
    /// of the pairs answered with. Only for a read by itself, without a sort; it is not spoken of in the native protocol.
    pub part_bytes_max: Option<usize>,
}

impl Range {
    /// Everything about every key of the range, now.
    pub fn new(range: KeyRange) -> Self {
        Self {
            range,
            limit: 0,
            revision: Revision(0),
            sort: None,
            filter: Filter::default(),
            keys_only: false,
            count_only: false,
            part_bytes_max: None,
        }
    }
}

/// An order of pairs. Pairs that it does not tell apart come in ascending key order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Sort {
    pub by: SortBy,
    pub order: SortOrder,
}

/// What is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SortBy {
    Key,
    Version,
    Create,
    Mod,
    Value,
}

/// Smallest or largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SortOrder {
    Ascending,
    Descending,
}

/// Bounds of a pair's revisions, both ends included; 0 is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Filter {
    pub mod_min: Revision,
    pub mod_max: Revision,
    pub create_min: Revision,
    pub create_max: Revision,
}

/// What a compare looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// The key's version.
    Version(u64),
    /// Its create revision.
    Create(Revision),
    /// Its mod revision.
    Mod(Revision),
    /// Its value. On a missing key this compare is false whatever the operator.
    Value(Bytes),
    /// Its lease.
    Lease(LeaseId),
}

/// How the stored side stands to the given side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum CompareOperator {
    Equal,
    NotEqual,
    Greater,
    Less,
}

/// A condition of a transaction. A missing key compares as zeros. Over a range, every key in it must satisfy it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Which keys.
    pub range: KeyRange,
    /// Stored value `operator` target value, e.g. stored version Greater 3.
    pub operator: CompareOperator,
    /// The given side.
    pub target: CompareTarget,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operation {
    Put(Put),
    DeleteRange(DeleteRange),
    Range(Range),
    Txn(Txn),
}

/// Compares, then one of two lists of operations, as one step.
///
/// A list may hold further transactions. They are parts of the same step: their compares, too, are evaluated
/// against the state before the outermost one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold for `success` to run. Evaluated against the state before the outermost transaction.
    pub compares: Vec<Compare>,
    /// Runs, in order, if they do. Later operations see earlier ones.
    pub success: Vec<Operation>,
    /// Runs if they do not.
    pub failure: Vec<Operation>,
}

impl Txn {
    /// Calls `visit` with every transaction of every level, this one first.
    pub fn visit<'txn>(&'txn self, visit: &mut impl FnMut(&'txn Self)) {
        visit(self);
        for operation in self.success.iter().chain(&self.failure) {
            if let Operation::Txn(nested) = operation {
                nested.visit(visit);
            }
        }
    }
}

/// A write: what a log entry asks of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Command {
    Put(Put),
    DeleteRange(DeleteRange),
    Txn(Txn),
    Compact(Compact),
    Lease(LeaseCommand),
    SpaceAlarm(SpaceAlarm),
}

/// Raises an alarm that the keyspace is full, or calls it off. While one is raised nothing is taken that needs space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceAlarm {
    /// The number under which it is raised by hand; None: the one that goes by the bytes that are used.
    pub by_hand: Option<u64>,
    /// Whether it is raised from now on.
    pub is_raised: bool,
}

impl SpaceAlarm {
    /// The alarm that goes by the bytes that are used.
    pub const fn by_bytes(is_raised: bool) -> Self {
        Self { by_hand: None, is_raised }
    }
}

/// What is asked about leases. None of it makes a revision, but for the keys that go with a lease when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseCommand {
    /// Makes a lease.
    Grant(Grant),
    /// Ends a lease, and deletes the keys attached to it.
    Revoke(Revoke),
    /// Ends a lease that has run out. Like the rest of these, only the leader that counts asks for it.
    Expire(LeaseLife),
    /// Writes down what remains of leases.
    Checkpoint(Vec<Remaining>),
    /// Everything remains again.
    Renew(LeaseLife),
}

impl LeaseCommand {
    /// Whether only a leader may ask for it, which counts the time.
    pub const fn is_for_leaders(&self) -> bool {
        match self {
            Self::Grant(_) | Self::Revoke(_) => false,
            Self::Expire(_) | Self::Checkpoint(_) | Self::Renew(_) => true,
        }
    }
}

/// A lease to be made, or that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its id; 0 leaves the choice to the store.
    pub lease: LeaseId,
    /// How long it lasts without a renewal, in milliseconds; not 0.
    pub ttl_ms: u64,
}

/// A lease to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoke {
    /// Its id.
    pub lease: LeaseId,
}

/// One life of a lease: its id may be granted again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseLife {
    /// Its id.
    pub lease: LeaseId,
    /// The number of its grant among all grants of the store.
    pub grant: u64,
}

/// What is left of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// Of which.
    pub life: LeaseLife,
    /// Milliseconds, when its checkpoint was proposed.
    pub remaining_ms: u64,
}

/// Forgets what only revisions before `revision` saw. Reads at `revision` and later answer as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compact {
    /// The oldest revision that stays readable.
    pub revision: Revision,
}

/// A read of the store at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Query {
    Range(Range),
    /// A transaction without writes; it does not go through the log.
    Txn(Txn),
    /// The ids of all leases.
    Leases,
}

/// The answer to a `Put`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PutResult {
    /// The pair before, if asked for and there was one.
    pub previous: Option<KeyValue>,
}

/// The answer to a `DeleteRange`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DeleteRangeResult {
    /// How many keys were removed.
    pub deleted: u64,
    /// The pairs before, if asked for.
    pub previous: Vec<KeyValue>,
}

/// The answer to a `Range`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RangeResult {
    /// The pairs, in the order asked for.
    pub pairs: Vec<KeyValue>,
    /// Whether the limit cut the answer short.
    pub more: bool,
    /// Keys in the range, whatever the limit and the filter.
    pub count: u64,
}

/// The answer to one operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum OperationResult {
    Put(PutResult),
    DeleteRange(DeleteRangeResult),
    Range(RangeResult),
    Txn(TxnResult),
}

/// The answer to a `Txn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnResult {
    /// Whether the compares held, so which list ran.
    pub succeeded: bool,
    /// One result for each operation that ran.
    pub results: Vec<OperationResult>,
}

/// What the store said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Outcome {
    Put(PutResult),
    DeleteRange(DeleteRangeResult),
    Txn(TxnResult),
    Range(RangeResult),
    Compacted,
    Lease(LeaseOutcome),
    /// The alarm is as asked for.
    SpaceAlarm(SpaceAlarm),
    /// A normal, replicated outcome: nothing changed.
    Refused(StoreRefusal),
}

/// The answer to what was asked about leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// The lease is made.
    Granted(Grant),
    /// The lease has ended, and its keys are deleted.
    Revoked,
    /// What remained is written down.
    Checkpointed,
    /// All of the lease's time remains again.
    Renewed(Renewed),
    /// The ids of all leases, in order.
    Listed(Vec<LeaseId>),
    /// What is known of one lease; None if there is none.
    TimeToLive(Option<TimeToLive>),
}

/// A lease that was to be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// How long it lasts from now on, in milliseconds; 0 if there is no such lease (etcd's rule).
    pub ttl_ms: u64,
}

/// How a lease stands. Only the leader that counts can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeToLive {
    /// How long a renewal makes it last, in milliseconds.
    pub ttl_ms: u64,
    /// How long it lasts without one, in milliseconds; 0 if it has run out and is about to end.
    pub remaining_ms: u64,
    /// The keys attached to it in order, if asked for.
    pub keys: Vec<Bytes>,
}

/// Why the store did nothing. Decided from replicated state alone, so every member says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreRefusal {
    /// The key is empty.
    KeyMissing,
    /// The revision is gone.
    Compacted,
    /// The revision is not there yet.
    FutureRevision,
    /// More operations or compares than a transaction may have.
    TooManyOperations,
    /// Two operations that may both run write the same key.
    DuplicateKey,
    /// The lease does not exist.
    LeaseNotFound,
    /// A value or key is longer than its limit.
    OutOfBounds,
    /// A transaction asked as a query holds a write.
    WriteInQuery,
    /// A put is to keep the value or lease of a key that does not exist.
    KeyNotFound,
    /// A put is to keep the value, and brings one.
    ValueProvided,
    /// A put is to keep the lease, and brings one.
    LeaseProvided,
    /// A lease of this id exists.
    LeaseExists,
    /// A lease is to last for no time, or for longer than any may.
    TtlOutOfBounds,
    /// No more leases fit.
    TooManyLeases,
    /// The keyspace has used up its quota; deleting and compacting make room.
    NoSpace,
    /// A transaction looks at more keys, or answers with more bytes, than one may.
    CostsTooMuch,
}

/// An outcome and the store's revision right after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The keyspace's current revision.
    pub revision: Revision,
    /// What happened.
    pub outcome: Outcome,
}
