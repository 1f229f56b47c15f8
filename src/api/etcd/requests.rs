//! From messages to commands and queries of the store.
//!
//! Always: what a message alone shows to be wrong is told in etcd's order (its `v3rpc/key.go`): the count of operations,
//! then compares, then operations one by one; only then, by the store, what their combination shows.

use super::Fault;
use super::proto::etcdserverpb as pb;
use crate::api::ReadMode;
use crate::ids::{LeaseId, Revision};
use crate::kv::{
    Command, Compact, Compare, CompareOperator, CompareTarget, DeleteRange, Filter, Grant, KeyRange,
    LeaseCommand, Operation, Put, Query, Range, Revoke, Sort, SortBy, SortOrder, Txn,
};
use crate::limits::TXN_OPERATIONS_MAX;
use bytes::Bytes;

/// The end of a range that means "to the end of the keyspace".
const FROM_KEY: &[u8] = b"\0";

/// What to do for a request: change the store, or read it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Wish {
    Write(Command),
    Read(Query, ReadMode),
}

/// What to do for a `Range`.
///
/// # Errors
/// What the message alone shows to be wrong; so for all of these.
pub fn range(request: pb::RangeRequest) -> Result<Wish, Fault> {
    let mode = if request.serializable { ReadMode::Serializable } else { ReadMode::Linearizable };
    Ok(Wish::Read(Query::Range(range_of(request)?), mode))
}

/// What to read for a `RangeStream`: what for a `Range`, in the order of keys and all of it.
#[allow(clippy::missing_errors_doc)]
pub fn range_stream(request: pb::RangeRequest) -> Result<(Range, ReadMode), Fault> {
    match range(request)? {
        Wish::Read(Query::Range(range), mode)
            if range.sort.is_none() && range.filter == Filter::default() =>
        {
            Ok((range, mode))
        }
        Wish::Read(..) | Wish::Write(_) => {
            Err(Fault::NotBuilt("etcdserver: a range that is sorted or filtered is not streamed; use Range"))
        }
    }
}

/// What to do for a `Put`.
#[allow(missing_docs, clippy::missing_errors_doc)]
pub fn put(request: pb::PutRequest) -> Result<Wish, Fault> {
    Ok(Wish::Write(Command::Put(put_of(request)?)))
}

/// What to do for a `DeleteRange`.
#[allow(clippy::missing_errors_doc)]
pub fn delete_range(request: pb::DeleteRangeRequest) -> Result<Wish, Fault> {
    Ok(Wish::Write(Command::DeleteRange(delete_of(request)?)))
}

/// What to do for a `Txn`. One without writes does not go through the log.
#[allow(clippy::missing_errors_doc)]
pub fn txn(request: pb::TxnRequest) -> Result<Wish, Fault> {
    let mut kinds = Kinds { ranges_count: 0, serializable_count: 0, has_write: false };
    let txn = txn_of(request, TXN_OPERATIONS_MAX, &mut kinds)?;
    if kinds.has_write {
        return Ok(Wish::Write(Command::Txn(txn)));
    }
    let is_local = kinds.ranges_count > 0 && kinds.ranges_count == kinds.serializable_count;
    let mode = if is_local { ReadMode::Serializable } else { ReadMode::Linearizable };
    Ok(Wish::Read(Query::Txn(txn), mode))
}

/// What to do for a `Compact`.
#[allow(clippy::missing_errors_doc)]
pub fn compact(request: pb::CompactionRequest) -> Result<Wish, Fault> {
    // No revision is below 0, so whatever is was compacted (etcd's answer).
    let revision = u64::try_from(request.revision).map_err(|_| Fault::Compacted)?;
    Ok(Wish::Write(Command::Compact(Compact { revision: Revision(revision) })))
}

/// What to do for a `LeaseGrant`. A lease lasts for a second at least.
#[allow(clippy::missing_errors_doc)]
pub fn lease_grant(request: pb::LeaseGrantRequest) -> Result<Wish, Fault> {
    let ttl_s = u64::try_from(request.ttl).unwrap_or(0).max(1);
    let ttl_ms = ttl_s.checked_mul(1_000).ok_or(Fault::LeaseTtlTooLarge)?;
    let grant = Grant { lease: lease_id(request.id), ttl_ms };
    Ok(Wish::Write(Command::Lease(LeaseCommand::Grant(grant))))
}

/// What to do for a `LeaseRevoke`.
pub fn lease_revoke(request: pb::LeaseRevokeRequest) -> Wish {
    Wish::Write(Command::Lease(LeaseCommand::Revoke(Revoke { lease: lease_id(request.id) })))
}

/// A lease by etcd's number.
pub const fn lease_id(id: i64) -> LeaseId {
    LeaseId(id.cast_unsigned())
}

/// The keys that `key` and `range_end` mean.
#[allow(clippy::missing_errors_doc)]
pub fn key_range(key: Bytes, range_end: Bytes) -> Result<KeyRange, Fault> {
    if key.is_empty() {
        return Err(Fault::EmptyKey);
    }
    Ok(if range_end.is_empty() {
        KeyRange::Key(key)
    } else if range_end == FROM_KEY {
        KeyRange::From(key)
    } else {
        KeyRange::Span { start: key, end: range_end }
    })
}

fn range_of(request: pb::RangeRequest) -> Result<Range, Fault> {
    let sort = sort_of(&request);
    Ok(Range {
        range: key_range(request.key, request.range_end)?,
        limit: at_least_zero(request.limit),
        revision: Revision(at_least_zero(request.revision)),
        sort: sort?,
        filter: Filter {
            mod_min: Revision(at_least_zero(request.min_mod_revision)),
            mod_max: upper_bound(request.max_mod_revision),
            create_min: Revision(at_least_zero(request.min_create_revision)),
            create_max: upper_bound(request.max_create_revision),
        },
        keys_only: request.keys_only,
        count_only: request.count_only,
        part_bytes_max: None,
    })
}

fn sort_of(request: &pb::RangeRequest) -> Result<Option<Sort>, Fault> {
    use pb::range_request as words;
    let order = words::SortOrder::try_from(request.sort_order).map_err(|_| Fault::InvalidSortOption)?;
    let target = words::SortTarget::try_from(request.sort_target).map_err(|_| Fault::InvalidSortOption)?;
    let by = match target {
        words::SortTarget::Key => SortBy::Key,
        words::SortTarget::Version => SortBy::Version,
        words::SortTarget::Create => SortBy::Create,
        words::SortTarget::Mod => SortBy::Mod,
        words::SortTarget::Value => SortBy::Value,
    };
    Ok(match (order, by) {
        (words::SortOrder::Descend, by) => Some(Sort { by, order: SortOrder::Descending }),
        // Pairs come in the order of their keys anyhow.
        (words::SortOrder::None | words::SortOrder::Ascend, SortBy::Key) => None,
        // Without an order, anything but keys is sorted upwards (etcd's rule).
        (words::SortOrder::None | words::SortOrder::Ascend, by) => {
            Some(Sort { by, order: SortOrder::Ascending })
        }
    })
}

/// A number below 0 means what 0 means: the current revision, no limit, no bound.
fn at_least_zero(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// 0 is no bound; below a number under 0 there is nothing, and nothing was ever written at revision 1.
fn upper_bound(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(1))
}

fn put_of(request: pb::PutRequest) -> Result<Put, Fault> {
    if request.key.is_empty() {
        return Err(Fault::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Fault::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Fault::LeaseProvided);
    }
    Ok(Put {
        key: request.key,
        value: request.value,
        lease: lease_id(request.lease),
        wants_previous: request.prev_kv,
        keeps_value: request.ignore_value,
        keeps_lease: request.ignore_lease,
    })
}

fn delete_of(request: pb::DeleteRangeRequest) -> Result<DeleteRange, Fault> {
    let range = key_range(request.key, request.range_end)?;
    Ok(DeleteRange { range, wants_previous: request.prev_kv })
}

/// What was found in a transaction.
struct Kinds {
    ranges_count: usize,
    serializable_count: usize,
    has_write: bool,
}

/// `operations_max`: what its longest list may hold; what is left of that is what a nested one may have (etcd's rule).
fn txn_of(request: pb::TxnRequest, operations_max: usize, kinds: &mut Kinds) -> Result<Txn, Fault> {
    let count = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = operations_max.checked_sub(count).ok_or(Fault::TooManyOperations)?;
    let compares = request.compare.into_iter().map(compare_of).collect::<Result<_, _>>()?;
    let mut list = |operations: Vec<pb::RequestOp>| {
        let operations = operations.into_iter().map(|operation| operation_of(operation, left, kinds));
        operations.collect::<Result<Vec<_>, _>>()
    };
    Ok(Txn { compares, success: list(request.success)?, failure: list(request.failure)? })
}

fn operation_of(request: pb::RequestOp, left: usize, kinds: &mut Kinds) -> Result<Operation, Fault> {
    use pb::request_op::Request;
    Ok(match request.request {
        // etcd's word for an operation that is not there.
        None => return Err(Fault::KeyNotFound),
        Some(Request::RequestRange(range)) => {
            kinds.ranges_count += 1;
            kinds.serializable_count += usize::from(range.serializable);
            Operation::Range(range_of(range)?)
        }
        Some(Request::RequestPut(put)) => {
            kinds.has_write = true;
            Operation::Put(put_of(put)?)
        }
        Some(Request::RequestDeleteRange(delete)) => {
            kinds.has_write = true;
            Operation::DeleteRange(delete_of(delete)?)
        }
        Some(Request::RequestTxn(txn)) => Operation::Txn(txn_of(txn, left, kinds)?),
    })
}

fn compare_of(request: pb::Compare) -> Result<Compare, Fault> {
    use pb::compare as words;
    let range = key_range(request.key, request.range_end)?;
    let target = words::CompareTarget::try_from(request.target);
    let operator = words::CompareResult::try_from(request.result);
    let (Ok(target), Ok(operator)) = (target, operator) else { return Err(Fault::UnknownEnumeration) };
    let operator = match operator {
        words::CompareResult::Equal => CompareOperator::Equal,
        words::CompareResult::Greater => CompareOperator::Greater,
        words::CompareResult::Less => CompareOperator::Less,
        words::CompareResult::NotEqual => CompareOperator::NotEqual,
    };
    let given = request.target_union;
    // What is given for another target than the one named counts as nothing given: 0, or the empty value.
    let number = match (target, &given) {
        (words::CompareTarget::Version, Some(words::TargetUnion::Version(number)))
        | (words::CompareTarget::Create, Some(words::TargetUnion::CreateRevision(number)))
        | (words::CompareTarget::Mod, Some(words::TargetUnion::ModRevision(number)))
        | (words::CompareTarget::Lease, Some(words::TargetUnion::Lease(number))) => *number,
        _ => 0,
    };
    let value = match (target, given) {
        (words::CompareTarget::Value, Some(words::TargetUnion::Value(value))) => value,
        _ => Bytes::new(),
    };
    let (operator, number) = match (target, operator) {
        (words::CompareTarget::Lease, CompareOperator::Equal | CompareOperator::NotEqual) => {
            (operator, number.cast_unsigned())
        }
        (_, operator) => in_range(operator, number),
    };
    let target = match target {
        words::CompareTarget::Version => CompareTarget::Version(number),
        words::CompareTarget::Create => CompareTarget::Create(Revision(number)),
        words::CompareTarget::Mod => CompareTarget::Mod(Revision(number)),
        words::CompareTarget::Value => CompareTarget::Value(value),
        words::CompareTarget::Lease => CompareTarget::Lease(LeaseId(number)),
    };
    Ok(Compare { range, operator, target })
}

/// Nothing stored is below 0, so what a compare with such a number says is known: always, or never.
fn in_range(operator: CompareOperator, number: i64) -> (CompareOperator, u64) {
    match (u64::try_from(number), operator) {
        (Ok(number), operator) => (operator, number),
        (Err(_), CompareOperator::Greater | CompareOperator::NotEqual) => {
            (CompareOperator::NotEqual, u64::MAX)
        }
        (Err(_), CompareOperator::Less | CompareOperator::Equal) => (CompareOperator::Equal, u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: &'static str) -> Bytes {
        Bytes::from_static(key.as_bytes())
    }

    fn put_operation(name: &'static str) -> pb::RequestOp {
        let put = pb::PutRequest { key: key(name), ..Default::default() };
        pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
    }

    fn range_operation(is_serializable: bool) -> pb::RequestOp {
        let range = pb::RangeRequest { key: key("a"), serializable: is_serializable, ..Default::default() };
        pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(range)) }
    }

    #[test]
    fn the_ends_of_ranges_mean_what_etcd_means_by_them() {
        let range = |end| key_range(key("a"), key(end));
        assert_eq!(range(""), Ok(KeyRange::Key(key("a"))));
        assert_eq!(range("\0"), Ok(KeyRange::From(key("a"))));
        assert_eq!(range("b"), Ok(KeyRange::Span { start: key("a"), end: key("b") }));
        assert_eq!(key_range(Bytes::new(), key("\0")), Err(Fault::EmptyKey));
    }

    #[test]
    fn a_transaction_without_writes_is_a_read_and_local_only_if_all_of_it_may_be() {
        let with = |success| txn(pb::TxnRequest { success, ..Default::default() });
        let mode = |wish| match wish {
            Ok(Wish::Read(Query::Txn(_), mode)) => Some(mode),
            Ok(Wish::Read(..) | Wish::Write(_)) | Err(_) => None,
        };
        assert_eq!(mode(with(vec![])), Some(ReadMode::Linearizable));
        assert_eq!(mode(with(vec![range_operation(true)])), Some(ReadMode::Serializable));
        assert_eq!(
            mode(with(vec![range_operation(true), range_operation(false)])),
            Some(ReadMode::Linearizable)
        );
        assert_eq!(mode(with(vec![range_operation(true), put_operation("b")])), None);
    }

    #[test]
    fn of_several_faults_the_one_is_told_that_etcd_tells() {
        let nothing = pb::RequestOp { request: None };
        let list = |operations| txn(pb::TxnRequest { success: operations, ..Default::default() });
        assert_eq!(list(vec![put_operation(""), nothing.clone()]), Err(Fault::EmptyKey));
        assert_eq!(list(vec![nothing, put_operation("")]), Err(Fault::KeyNotFound));
        assert_eq!(list(vec![put_operation(""); 129]), Err(Fault::TooManyOperations));
    }

    #[test]
    fn a_compare_with_a_number_below_0_holds_always_or_never() {
        let operators = [
            (CompareOperator::Equal, CompareOperator::Equal),
            (CompareOperator::Less, CompareOperator::Equal),
            (CompareOperator::NotEqual, CompareOperator::NotEqual),
            (CompareOperator::Greater, CompareOperator::NotEqual),
        ];
        for (given, mapped) in operators {
            assert_eq!(in_range(given, -1), (mapped, u64::MAX));
            assert_eq!(in_range(given, 7), (given, 7));
        }
    }
}
