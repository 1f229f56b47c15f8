//! What can be asked of a store, and what it answers. The model is etcd's (ETCD-CONTRACT §3–4).

use crate::ids::{LeaseId, Revision};
use bytes::Bytes;

/// Which keys an operation touches.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The lease to attach; 0 detaches any. Only 0 is accepted until leases exist.
    pub lease: LeaseId,
    /// Answer with the pair as it was before.
    pub wants_previous: bool,
}

/// Removes keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRange {
    /// Which keys.
    pub range: KeyRange,
    /// Answer with the pairs as they were before.
    pub wants_previous: bool,
}

/// Reads keys, in ascending key order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_field_names)] // the field has the same name in every operation
pub struct Range {
    /// Which keys.
    pub range: KeyRange,
    /// At most this many pairs; 0 for no limit.
    pub limit: u64,
    /// At this revision; 0 for the current one.
    pub revision: Revision,
    /// Answer without values.
    pub keys_only: bool,
    /// Answer with the count alone.
    pub count_only: bool,
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
}

/// Compares, then one of two lists of operations, as one step. (Nested transactions come with the whole store.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// All must hold for `success` to run. Evaluated against the state before the transaction.
    pub compares: Vec<Compare>,
    /// Runs, in order, if they do. Later operations see earlier ones.
    pub success: Vec<Operation>,
    /// Runs if they do not.
    pub failure: Vec<Operation>,
}

/// A write: what a log entry asks of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Command {
    Put(Put),
    DeleteRange(DeleteRange),
    Txn(Txn),
}

/// A read of the store at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Query {
    Range(Range),
    /// A transaction without writes; it does not go through the log.
    Txn(Txn),
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
    /// The pairs, in ascending key order.
    pub pairs: Vec<KeyValue>,
    /// Whether the limit cut the answer short.
    pub more: bool,
    /// Keys in the range, whatever the limit.
    pub count: u64,
}

/// The answer to one operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum OperationResult {
    Put(PutResult),
    DeleteRange(DeleteRangeResult),
    Range(RangeResult),
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
    /// A normal, replicated outcome: nothing changed.
    Refused(StoreRefusal),
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
    /// Two operations of one list write the same key.
    DuplicateKey,
    /// The lease does not exist.
    LeaseNotFound,
    /// A value, key or range is longer than its limit, or a range ends before it starts.
    OutOfBounds,
    /// A transaction asked as a query holds a write.
    WriteInQuery,
}

/// An outcome and the store's revision right after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The keyspace's current revision.
    pub revision: Revision,
    /// What happened.
    pub outcome: Outcome,
}
