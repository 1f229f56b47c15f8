//! Commands and queries of the store as bytes (PROTOCOL §6). A command's bytes are also the body of a log entry.
//!
//! What always holds: one command, one byte string, for ever: entries outlive the version that wrote them.
//! What it leaves out: whether a command makes sense to the store (an empty key, a lease); the store decides that.

use super::cursor::{Cursor, Fault, Malformed, put_bytes, put_count};
use crate::api::EncodedCommand;
use crate::ids::{LeaseId, Revision};
use crate::kv::{
    Command, Compact, Compare, CompareOperator, CompareTarget, DeleteRange, Filter, Grant, KeyRange,
    LeaseCommand, LeaseLife, Operation, Put, Query, Range, Remaining, Revoke, Sort, SortBy, SortOrder,
    SpaceAlarm, Txn,
};
use crate::limits::{
    COMMAND_BYTES_MAX, KEY_BYTES_MAX, LEASES_PER_CHECKPOINT_MAX, TXN_DEPTH_MAX, TXN_OPERATIONS_MAX,
    VALUE_BYTES_MAX,
};
use bytes::{BufMut, Bytes, BytesMut};

/// Tags shared by commands, queries, operations and outcomes.
pub(super) mod tag {
    pub(in super::super) const PUT: u8 = 1;
    pub(in super::super) const DELETE_RANGE: u8 = 2;
    pub(in super::super) const TXN: u8 = 3;
    pub(in super::super) const RANGE: u8 = 4;
    pub(in super::super) const COMPACT: u8 = 5;
    pub(in super::super) const LEASE_GRANT: u8 = 8;
    pub(in super::super) const LEASE_REVOKE: u8 = 9;
    pub(in super::super) const LEASE_EXPIRE: u8 = 10;
    pub(in super::super) const LEASE_CHECKPOINT: u8 = 11;
    pub(in super::super) const LEASE_RENEW: u8 = 12;
    pub(in super::super) const LEASES: u8 = 13;
    pub(in super::super) const LEASE_TIME_TO_LIVE: u8 = 14;
    pub(in super::super) const PUT_WITH_OPTIONS: u8 = 16;
    pub(in super::super) const RANGE_WITH_OPTIONS: u8 = 17;
    pub(in super::super) const SPACE_ALARM: u8 = 18;
    pub(in super::super) const SPACE_ALARM_BY_HAND: u8 = 19;
    pub(in super::super) const REFUSED: u8 = 255;
}

/// Bytes of the shortest compare: an empty range from a key, an operator, a number or an empty value.
const COMPARE_BYTES_MIN: usize = 5 + 1 + 5;
/// Bytes of the shortest operation: a delete of one empty key.
const OPERATION_BYTES_MIN: usize = 1 + 5 + 1;
/// Bytes of what remains of one lease.
const REMAINING_BYTES: usize = 3 * 8;

impl EncodedCommand {
    /// Encodes a command of our own. It is refused if it breaks a limit that `decode_from` holds it to.
    ///
    /// # Errors
    /// Names the first limit that is broken, and where in the encoding.
    pub fn encode(command: &Command) -> Result<Self, Malformed> {
        let mut out = BytesMut::with_capacity(command_bytes_expected(command));
        put_command(&mut out, command);
        Self::decode_from(out.freeze())
    }

    /// Checks bytes from outside: they are one command, in its one encoding, within every limit.
    ///
    /// # Errors
    /// Says what was expected, what was found, and at which byte.
    pub fn decode_from(bytes: Bytes) -> Result<Self, Malformed> {
        decode_command(&bytes)?;
        Ok(Self(bytes))
    }

    /// The command. Its keys and values are slices of `bytes()`.
    pub fn command(&self) -> Command {
        decode_command(&self.0).expect("an EncodedCommand was checked when it was made")
    }

    /// The encoding: the body of a log entry.
    pub const fn bytes(&self) -> &Bytes {
        &self.0
    }
}

/// Reads the body of a command entry, or the command of a write.
///
/// Keys and values are slices of `bytes` and keep all of it alive.
///
/// # Errors
/// Says what was expected, what was found, and at which byte.
pub fn decode_command(bytes: &Bytes) -> Result<Command, Malformed> {
    let mut cursor = Cursor::new(bytes);
    if bytes.len() > COMMAND_BYTES_MAX {
        let fault = Fault::TooMany { what: "bytes of command", limit: COMMAND_BYTES_MAX, found: bytes.len() };
        return Err(cursor.fault(fault));
    }
    let command = match cursor.u8("command tag")? {
        tag::PUT => Command::Put(put(&mut cursor)?),
        tag::PUT_WITH_OPTIONS => Command::Put(put_with_options(&mut cursor)?),
        tag::DELETE_RANGE => Command::DeleteRange(delete_range(&mut cursor)?),
        tag::TXN => Command::Txn(txn(&mut cursor, operation, TXN_DEPTH_MAX)?),
        tag::COMPACT => Command::Compact(Compact { revision: Revision(cursor.u64("revision")?) }),
        tag::LEASE_GRANT => Command::Lease(LeaseCommand::Grant(grant(&mut cursor)?)),
        tag::LEASE_REVOKE => {
            Command::Lease(LeaseCommand::Revoke(Revoke { lease: LeaseId(cursor.u64("lease")?) }))
        }
        tag::LEASE_EXPIRE => Command::Lease(LeaseCommand::Expire(lease_life(&mut cursor)?)),
        tag::LEASE_CHECKPOINT => Command::Lease(LeaseCommand::Checkpoint(cursor.list(
            "remaining",
            LEASES_PER_CHECKPOINT_MAX,
            REMAINING_BYTES,
            remaining,
        )?)),
        tag::SPACE_ALARM => Command::SpaceAlarm(SpaceAlarm::by_bytes(cursor.bool("is_raised")?)),
        tag::SPACE_ALARM_BY_HAND => Command::SpaceAlarm(space_alarm_by_hand(&mut cursor)?),
        tag::LEASE_RENEW => Command::Lease(LeaseCommand::Renew(lease_life(&mut cursor)?)),
        found => return Err(cursor.unknown("command tag", 1, found)),
    };
    cursor.finish()?;
    Ok(command)
}

/// The key that an encoded command puts, if it looks like a put. Nothing is checked: what this says is a hint.
pub fn key_put(bytes: &[u8]) -> Option<&[u8]> {
    let ([tag::PUT | tag::PUT_WITH_OPTIONS], rest) = bytes.split_first_chunk()? else {
        return None;
    };
    let (count, rest) = rest.split_first_chunk()?;
    rest.get(..usize::try_from(u32::from_le_bytes(*count)).ok()?)
}

/// Reads a query, to the end.
pub(super) fn query(cursor: &mut Cursor<'_>) -> Result<Query, Malformed> {
    let query = match cursor.u8("query tag")? {
        tag::RANGE => Query::Range(range(cursor)?),
        tag::RANGE_WITH_OPTIONS => Query::Range(range_with_options(cursor)?),
        tag::TXN => Query::Txn(txn(cursor, reading_operation, TXN_DEPTH_MAX)?),
        tag::LEASES => Query::Leases,
        found => return Err(cursor.unknown("query tag", 1, found)),
    };
    cursor.finish()?;
    Ok(query)
}

fn put(cursor: &mut Cursor<'_>) -> Result<Put, Malformed> {
    Ok(Put {
        key: cursor.bytes("key", KEY_BYTES_MAX)?,
        value: cursor.bytes("value", VALUE_BYTES_MAX)?,
        lease: LeaseId(cursor.u64("lease")?),
        wants_previous: cursor.bool("wants_previous")?,
        keeps_value: false,
        keeps_lease: false,
    })
}

/// A put without any option has the other tag, so that it is written in one way only.
fn put_with_options(cursor: &mut Cursor<'_>) -> Result<Put, Malformed> {
    let plain = put(cursor)?;
    let put =
        Put { keeps_value: cursor.bool("keeps_value")?, keeps_lease: cursor.bool("keeps_lease")?, ..plain };
    require_options(has_options(&put), cursor)?;
    Ok(put)
}

fn delete_range(cursor: &mut Cursor<'_>) -> Result<DeleteRange, Malformed> {
    Ok(DeleteRange { range: key_range(cursor)?, wants_previous: cursor.bool("wants_previous")? })
}

fn range(cursor: &mut Cursor<'_>) -> Result<Range, Malformed> {
    Ok(Range {
        range: key_range(cursor)?,
        limit: cursor.u64("limit")?,
        revision: Revision(cursor.u64("revision")?),
        sort: None,
        filter: Filter::default(),
        keys_only: cursor.bool("keys_only")?,
        count_only: cursor.bool("count_only")?,
        part_bytes_max: None,
    })
}

/// A range without any option has the other tag, so that it is written in one way only.
fn range_with_options(cursor: &mut Cursor<'_>) -> Result<Range, Malformed> {
    let plain = range(cursor)?;
    let sort = if cursor.bool("sort presence")? { Some(sort(cursor)?) } else { None };
    let filter = Filter {
        mod_min: Revision(cursor.u64("mod_min")?),
        mod_max: Revision(cursor.u64("mod_max")?),
        create_min: Revision(cursor.u64("create_min")?),
        create_max: Revision(cursor.u64("create_max")?),
    };
    let range = Range { sort, filter, ..plain };
    require_options(is_sorted_or_filtered(&range), cursor)?;
    Ok(range)
}

fn sort(cursor: &mut Cursor<'_>) -> Result<Sort, Malformed> {
    let by = match cursor.u8("sort target")? {
        1 => SortBy::Key,
        2 => SortBy::Version,
        3 => SortBy::Create,
        4 => SortBy::Mod,
        5 => SortBy::Value,
        found => return Err(cursor.unknown("sort target", 1, found)),
    };
    let order = match cursor.u8("sort order")? {
        1 => SortOrder::Ascending,
        2 => SortOrder::Descending,
        found => return Err(cursor.unknown("sort order", 1, found)),
    };
    Ok(Sort { by, order })
}

const fn has_options(put: &Put) -> bool {
    put.keeps_value || put.keeps_lease
}

fn is_sorted_or_filtered(range: &Range) -> bool {
    range.sort.is_some() || range.filter != Filter::default()
}

fn require_options(has_some: bool, cursor: &Cursor<'_>) -> Result<(), Malformed> {
    let fault = Fault::Mismatch { what: "the presence of an option", expected: 1, found: 0 };
    if has_some { Ok(()) } else { Err(cursor.fault(fault)) }
}

/// Reads a grant, asked for or made.
pub(super) fn grant(cursor: &mut Cursor<'_>) -> Result<Grant, Malformed> {
    Ok(Grant { lease: LeaseId(cursor.u64("lease")?), ttl_ms: cursor.u64("ttl_ms")? })
}

fn lease_life(cursor: &mut Cursor<'_>) -> Result<LeaseLife, Malformed> {
    Ok(LeaseLife { lease: LeaseId(cursor.u64("lease")?), grant: cursor.u64("grant")? })
}

fn remaining(cursor: &mut Cursor<'_>) -> Result<Remaining, Malformed> {
    Ok(Remaining { life: lease_life(cursor)?, remaining_ms: cursor.u64("remaining_ms")? })
}

pub(super) fn key_range(cursor: &mut Cursor<'_>) -> Result<KeyRange, Malformed> {
    match cursor.u8("key range tag")? {
        1 => Ok(KeyRange::Key(cursor.bytes("key", KEY_BYTES_MAX)?)),
        2 => Ok(KeyRange::Span {
            start: cursor.bytes("start", KEY_BYTES_MAX)?,
            end: cursor.bytes("end", KEY_BYTES_MAX)?,
        }),
        3 => Ok(KeyRange::From(cursor.bytes("start", KEY_BYTES_MAX)?)),
        found => Err(cursor.unknown("key range tag", 1, found)),
    }
}

/// Reads one operation of a list in which transactions may be nested so many levels deep.
type ReadOperation = fn(&mut Cursor<'_>, usize) -> Result<Operation, Malformed>;

/// Reads a transaction of at most `levels` levels, this one included.
fn txn(cursor: &mut Cursor<'_>, operation: ReadOperation, levels: usize) -> Result<Txn, Malformed> {
    let Some(nested_levels) = levels.checked_sub(1) else {
        let (limit, found) = (TXN_DEPTH_MAX, TXN_DEPTH_MAX + 1);
        return Err(cursor.fault(Fault::TooMany { what: "levels of transactions", limit, found }));
    };
    let operation = |cursor: &mut Cursor<'_>| operation(cursor, nested_levels);
    Ok(Txn {
        compares: cursor.list("compares", TXN_OPERATIONS_MAX, COMPARE_BYTES_MIN, compare)?,
        success: cursor.list("operations", TXN_OPERATIONS_MAX, OPERATION_BYTES_MIN, operation)?,
        failure: cursor.list("operations", TXN_OPERATIONS_MAX, OPERATION_BYTES_MIN, operation)?,
    })
}

fn operation(cursor: &mut Cursor<'_>, nested_levels: usize) -> Result<Operation, Malformed> {
    match cursor.u8("operation tag")? {
        tag::PUT => Ok(Operation::Put(put(cursor)?)),
        tag::PUT_WITH_OPTIONS => Ok(Operation::Put(put_with_options(cursor)?)),
        tag::DELETE_RANGE => Ok(Operation::DeleteRange(delete_range(cursor)?)),
        tag::RANGE => Ok(Operation::Range(range(cursor)?)),
        tag::RANGE_WITH_OPTIONS => Ok(Operation::Range(range_with_options(cursor)?)),
        tag::TXN => Ok(Operation::Txn(txn(cursor, operation, nested_levels)?)),
        found => Err(cursor.unknown("operation tag", 1, found)),
    }
}

fn reading_operation(cursor: &mut Cursor<'_>, nested_levels: usize) -> Result<Operation, Malformed> {
    match cursor.u8("operation tag of a query")? {
        tag::RANGE => Ok(Operation::Range(range(cursor)?)),
        tag::RANGE_WITH_OPTIONS => Ok(Operation::Range(range_with_options(cursor)?)),
        tag::TXN => Ok(Operation::Txn(txn(cursor, reading_operation, nested_levels)?)),
        found => Err(cursor.unknown("operation tag of a query", 1, found)),
    }
}

fn compare(cursor: &mut Cursor<'_>) -> Result<Compare, Malformed> {
    let range = key_range(cursor)?;
    let operator = match cursor.u8("operator")? {
        1 => CompareOperator::Equal,
        2 => CompareOperator::NotEqual,
        3 => CompareOperator::Greater,
        4 => CompareOperator::Less,
        found => return Err(cursor.unknown("operator", 1, found)),
    };
    let target = match cursor.u8("compare target tag")? {
        1 => CompareTarget::Version(cursor.u64("version")?),
        2 => CompareTarget::Create(Revision(cursor.u64("create revision")?)),
        3 => CompareTarget::Mod(Revision(cursor.u64("mod revision")?)),
        4 => CompareTarget::Value(cursor.bytes("value", VALUE_BYTES_MAX)?),
        5 => CompareTarget::Lease(LeaseId(cursor.u64("lease")?)),
        found => return Err(cursor.unknown("compare target tag", 1, found)),
    };
    Ok(Compare { range, operator, target })
}

/// About how long the encoding will be: enough for a put, a start for a transaction.
fn command_bytes_expected(command: &Command) -> usize {
    match command {
        Command::Put(put) => 1 + 4 + put.key.len() + 4 + put.value.len() + 8 + 3,
        Command::DeleteRange(_) => 128,
        Command::Txn(_) => 1_024,
        Command::Compact(_) => 1 + 8,
        Command::Lease(LeaseCommand::Checkpoint(all)) => 1 + 4 + REMAINING_BYTES * all.len(),
        Command::Lease(_) => 1 + 2 * 8,
        Command::SpaceAlarm(_) => 1 + 8 + 1,
    }
}

fn put_command(out: &mut BytesMut, command: &Command) {
    match command {
        Command::Put(put) => put_put(out, put),
        Command::DeleteRange(delete) => put_delete_range(out, delete),
        Command::Txn(txn) => put_txn(out, txn),
        Command::Compact(compact) => {
            out.put_u8(tag::COMPACT);
            out.put_u64_le(compact.revision.0);
        }
        Command::Lease(command) => put_lease_command(out, command),
        Command::SpaceAlarm(alarm) => put_space_alarm(out, *alarm),
    }
}

fn put_lease_command(out: &mut BytesMut, command: &LeaseCommand) {
    match command {
        LeaseCommand::Grant(grant) => put_grant(out, *grant),
        LeaseCommand::Revoke(revoke) => {
            out.put_u8(tag::LEASE_REVOKE);
            out.put_u64_le(revoke.lease.0);
        }
        LeaseCommand::Expire(life) => {
            out.put_u8(tag::LEASE_EXPIRE);
            put_lease_life(out, *life);
        }
        LeaseCommand::Checkpoint(all) => {
            out.put_u8(tag::LEASE_CHECKPOINT);
            put_count(out, all.len());
            for remaining in all {
                put_lease_life(out, remaining.life);
                out.put_u64_le(remaining.remaining_ms);
            }
        }
        LeaseCommand::Renew(life) => {
            out.put_u8(tag::LEASE_RENEW);
            put_lease_life(out, *life);
        }
    }
}

/// Writes an alarm, asked for or raised.
pub(super) fn put_space_alarm(out: &mut BytesMut, alarm: SpaceAlarm) {
    match alarm.by_hand {
        None => out.put_u8(tag::SPACE_ALARM),
        Some(number) => {
            out.put_u8(tag::SPACE_ALARM_BY_HAND);
            out.put_u64_le(number);
        }
    }
    out.put_u8(u8::from(alarm.is_raised));
}

/// Whether a command, as bytes, raises a space alarm by hand: what members of the build before do not know.
pub fn raises_alarm_by_hand(command: &[u8]) -> bool {
    command.first() == Some(&tag::SPACE_ALARM_BY_HAND) && command.last() == Some(&1)
}

/// What follows the tag of an alarm that is raised, or called off, by hand.
pub(super) fn space_alarm_by_hand(cursor: &mut Cursor<'_>) -> Result<SpaceAlarm, Malformed> {
    Ok(SpaceAlarm { by_hand: Some(cursor.u64("number")?), is_raised: cursor.bool("is_raised")? })
}

/// Writes a grant, asked for or made.
pub(super) fn put_grant(out: &mut BytesMut, grant: Grant) {
    out.put_u8(tag::LEASE_GRANT);
    out.put_u64_le(grant.lease.0);
    out.put_u64_le(grant.ttl_ms);
}

fn put_lease_life(out: &mut BytesMut, life: LeaseLife) {
    out.put_u64_le(life.lease.0);
    out.put_u64_le(life.grant);
}

/// Writes a query.
pub(super) fn put_query(out: &mut BytesMut, query: &Query) {
    match query {
        Query::Range(range) => put_range(out, range),
        Query::Txn(txn) => put_txn(out, txn),
        Query::Leases => out.put_u8(tag::LEASES),
    }
}

fn put_put(out: &mut BytesMut, put: &Put) {
    let has_options = has_options(put);
    out.put_u8(if has_options { tag::PUT_WITH_OPTIONS } else { tag::PUT });
    put_bytes(out, &put.key);
    put_bytes(out, &put.value);
    out.put_u64_le(put.lease.0);
    out.put_u8(u8::from(put.wants_previous));
    if has_options {
        out.put_u8(u8::from(put.keeps_value));
        out.put_u8(u8::from(put.keeps_lease));
    }
}

fn put_delete_range(out: &mut BytesMut, delete: &DeleteRange) {
    out.put_u8(tag::DELETE_RANGE);
    put_key_range(out, &delete.range);
    out.put_u8(u8::from(delete.wants_previous));
}

fn put_range(out: &mut BytesMut, range: &Range) {
    let has_options = is_sorted_or_filtered(range);
    out.put_u8(if has_options { tag::RANGE_WITH_OPTIONS } else { tag::RANGE });
    put_key_range(out, &range.range);
    out.put_u64_le(range.limit);
    out.put_u64_le(range.revision.0);
    out.put_u8(u8::from(range.keys_only));
    out.put_u8(u8::from(range.count_only));
    if has_options {
        out.put_u8(u8::from(range.sort.is_some()));
        if let Some(sort) = range.sort {
            put_sort(out, sort);
        }
        let Filter { mod_min, mod_max, create_min, create_max } = range.filter;
        for bound in [mod_min, mod_max, create_min, create_max] {
            out.put_u64_le(bound.0);
        }
    }
}

fn put_sort(out: &mut BytesMut, sort: Sort) {
    out.put_u8(match sort.by {
        SortBy::Key => 1,
        SortBy::Version => 2,
        SortBy::Create => 3,
        SortBy::Mod => 4,
        SortBy::Value => 5,
    });
    out.put_u8(match sort.order {
        SortOrder::Ascending => 1,
        SortOrder::Descending => 2,
    });
}

fn put_txn(out: &mut BytesMut, txn: &Txn) {
    out.put_u8(tag::TXN);
    put_count(out, txn.compares.len());
    for compare in &txn.compares {
        put_compare(out, compare);
    }
    for list in [&txn.success, &txn.failure] {
        put_count(out, list.len());
        for operation in list {
            match operation {
                Operation::Put(put) => put_put(out, put),
                Operation::DeleteRange(delete) => put_delete_range(out, delete),
                Operation::Range(range) => put_range(out, range),
                Operation::Txn(nested) => put_txn(out, nested),
            }
        }
    }
}

pub(super) fn put_key_range(out: &mut BytesMut, range: &KeyRange) {
    match range {
        KeyRange::Key(key) => {
            out.put_u8(1);
            put_bytes(out, key);
        }
        KeyRange::Span { start, end } => {
            out.put_u8(2);
            put_bytes(out, start);
            put_bytes(out, end);
        }
        KeyRange::From(start) => {
            out.put_u8(3);
            put_bytes(out, start);
        }
    }
}

fn put_compare(out: &mut BytesMut, compare: &Compare) {
    put_key_range(out, &compare.range);
    out.put_u8(match compare.operator {
        CompareOperator::Equal => 1,
        CompareOperator::NotEqual => 2,
        CompareOperator::Greater => 3,
        CompareOperator::Less => 4,
    });
    match &compare.target {
        CompareTarget::Version(version) => {
            out.put_u8(1);
            out.put_u64_le(*version);
        }
        CompareTarget::Create(revision) => {
            out.put_u8(2);
            out.put_u64_le(revision.0);
        }
        CompareTarget::Mod(revision) => {
            out.put_u8(3);
            out.put_u64_le(revision.0);
        }
        CompareTarget::Value(value) => {
            out.put_u8(4);
            put_bytes(out, value);
        }
        CompareTarget::Lease(lease) => {
            out.put_u8(5);
            out.put_u64_le(lease.0);
        }
    }
}
