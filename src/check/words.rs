//! Operations and answers in few words, for failure messages and pictures.
//!
//! Always: revisions, versions and times are said in full; a long key or value is cut to its beginning, which in our
//! workloads is the part that tells it from others.

use super::history::{Answer, Call};
use crate::kv::{
    Command, Compare, CompareOperator, CompareTarget, Filter, KeyRange, KeyValue, LeaseCommand, LeaseOutcome,
    Operation, OperationResult, Outcome, Query, Range, RangeResult, SpaceAlarm, Txn, TxnResult,
};
use core::fmt::Write;

/// Characters of a value that are shown.
const VALUE_CHARACTERS_MAX: usize = 24;

/// What was asked.
pub(super) fn asked(call: &Call) -> String {
    match call {
        Call::Write { command: Command::Put(put), .. } => {
            format!("put {} = {}", bytes(&put.key), bytes(&put.value))
        }
        Call::Write { command: Command::DeleteRange(delete), .. } => {
            format!("delete {}", keys(&delete.range))
        }
        Call::Write { command: Command::Txn(txn), .. } => transaction(txn),
        Call::Write { command: Command::Compact(compact), .. } => format!("compact to {}", compact.revision),
        Call::Write { command: Command::Lease(command), .. } => lease(command),
        Call::Write { command: Command::SpaceAlarm(alarm), .. } => space_alarm(*alarm),
        Call::Read { query, is_linearizable } => {
            let read = match query {
                Query::Range(range) => get(range),
                Query::Txn(txn) => transaction(txn),
                Query::Leases => "list leases".to_owned(),
            };
            if *is_linearizable { read } else { format!("{read}, perhaps old") }
        }
    }
}

/// What was answered.
pub(super) fn answered(answer: &Answer) -> String {
    let applied = match answer {
        Answer::NotDone => return "not done".to_owned(),
        Answer::Unknown => return "no answer".to_owned(),
        Answer::Applied(applied) => applied,
    };
    format!("{} @{}", told(&applied.outcome), applied.revision)
}

/// What the store said.
pub(super) fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Put(put) => previous("done", put.previous.as_slice()),
        Outcome::DeleteRange(delete) => previous(&format!("{} deleted", delete.deleted), &delete.previous),
        Outcome::Range(result) => found(result),
        Outcome::Compacted => "compacted".to_owned(),
        Outcome::Lease(outcome) => lease_told(outcome),
        Outcome::SpaceAlarm(alarm) => space_alarm(*alarm),
        Outcome::Refused(refusal) => format!("refused: {refusal:?}"),
        Outcome::Txn(result) => transacted(result),
    }
}

fn space_alarm(alarm: SpaceAlarm) -> String {
    let word = if alarm.is_raised { "space alarm" } else { "no space alarm" };
    alarm.by_hand.map_or_else(|| word.to_owned(), |number| format!("{word} {number} by hand"))
}

fn lease(command: &LeaseCommand) -> String {
    match command {
        LeaseCommand::Grant(grant) => format!("grant {} for {} ms", grant.lease, grant.ttl_ms),
        LeaseCommand::Revoke(revoke) => format!("revoke {}", revoke.lease),
        LeaseCommand::Expire(life) => format!("expire {}", life.lease),
        LeaseCommand::Checkpoint(all) => format!("checkpoint {} leases", all.len()),
        LeaseCommand::Renew(life) => format!("renew {}", life.lease),
    }
}

fn lease_told(outcome: &LeaseOutcome) -> String {
    match outcome {
        LeaseOutcome::Granted(grant) => format!("granted {} for {} ms", grant.lease, grant.ttl_ms),
        LeaseOutcome::Revoked => "revoked".to_owned(),
        LeaseOutcome::Checkpointed => "checkpointed".to_owned(),
        LeaseOutcome::Renewed(renewed) => format!("renewed for {} ms", renewed.ttl_ms),
        LeaseOutcome::Listed(leases) => format!("{} leases", leases.len()),
        LeaseOutcome::TimeToLive(None) => "no such lease".to_owned(),
        LeaseOutcome::TimeToLive(Some(known)) => {
            format!("{} ms of {} left", known.remaining_ms, known.ttl_ms)
        }
    }
}

fn transacted(result: &TxnResult) -> String {
    let results: Vec<String> = result.results.iter().map(step_answered).collect();
    format!("{} [{}]", if result.succeeded { "yes" } else { "no" }, results.join("; "))
}

fn step_answered(result: &OperationResult) -> String {
    match result {
        OperationResult::Put(put) => previous("done", put.previous.as_slice()),
        OperationResult::DeleteRange(delete) => {
            previous(&format!("{} deleted", delete.deleted), &delete.previous)
        }
        OperationResult::Range(result) => found(result),
        OperationResult::Txn(result) => transacted(result),
    }
}

fn previous(done: &str, pairs: &[KeyValue]) -> String {
    if pairs.is_empty() { done.to_owned() } else { format!("{done}, was {}", listed(pairs)) }
}

fn found(result: &RangeResult) -> String {
    match result.pairs.as_slice() {
        [] if result.count == 0 => "nothing".to_owned(),
        [] => format!("{} keys", result.count),
        pairs if result.more => format!("{} and more, {} in all", listed(pairs), result.count),
        pairs => listed(pairs),
    }
}

fn listed(pairs: &[KeyValue]) -> String {
    let pair = |pair: &KeyValue| {
        let KeyValue { create_revision, mod_revision, version, .. } = pair;
        format!(
            "{} = {} (version {version}, made @{create_revision}, changed @{mod_revision})",
            bytes(&pair.key),
            bytes(&pair.value)
        )
    };
    pairs.iter().map(pair).collect::<Vec<_>>().join(", ")
}

fn get(range: &Range) -> String {
    let mut words = format!("get {}", keys(&range.range));
    // Writing to a string cannot fail.
    if range.limit > 0 {
        let _ = write!(words, ", at most {}", range.limit);
    }
    if range.revision.0 > 0 {
        let _ = write!(words, ", as of {}", range.revision);
    }
    if let Some(sort) = range.sort {
        let _ = write!(words, ", by {:?} {:?}", sort.by, sort.order);
    }
    if range.filter != Filter::default() {
        let _ = write!(words, ", {:?}", range.filter);
    }
    if range.keys_only {
        words.push_str(", keys only");
    }
    if range.count_only {
        words.push_str(", count only");
    }
    words
}

fn transaction(txn: &Txn) -> String {
    let compares: Vec<String> = txn.compares.iter().map(compare).collect();
    let compares = if compares.is_empty() { "always".to_owned() } else { compares.join(" and ") };
    format!("if {compares} then [{}] else [{}]", steps(&txn.success), steps(&txn.failure))
}

fn steps(operations: &[Operation]) -> String {
    let step = |operation: &Operation| match operation {
        Operation::Put(put) => format!("put {} = {}", bytes(&put.key), bytes(&put.value)),
        Operation::DeleteRange(delete) => format!("delete {}", keys(&delete.range)),
        Operation::Range(range) => get(range),
        Operation::Txn(nested) => transaction(nested),
    };
    operations.iter().map(step).collect::<Vec<_>>().join("; ")
}

fn compare(compare: &Compare) -> String {
    let operator = match compare.operator {
        CompareOperator::Equal => "=",
        CompareOperator::NotEqual => "≠",
        CompareOperator::Greater => ">",
        CompareOperator::Less => "<",
    };
    let (what, given) = match &compare.target {
        CompareTarget::Version(version) => ("version", version.to_string()),
        CompareTarget::Create(revision) => ("made", format!("@{revision}")),
        CompareTarget::Mod(revision) => ("changed", format!("@{revision}")),
        CompareTarget::Value(value) => ("value", bytes(value)),
        CompareTarget::Lease(lease) => ("lease", lease.to_string()),
    };
    format!("{what} of {} {operator} {given}", keys(&compare.range))
}

fn keys(range: &KeyRange) -> String {
    match range {
        KeyRange::Key(key) => bytes(key),
        KeyRange::Span { start, end } => format!("{} to {}", bytes(start), bytes(end)),
        KeyRange::From(start) if start.is_empty() => "every key".to_owned(),
        KeyRange::From(start) => format!("{} to the end", bytes(start)),
    }
}

fn bytes(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    // A long run of one letter at the end is padding.
    let padding = text.chars().next_back().unwrap_or_default();
    let told = text.trim_end_matches(padding);
    let told = if text.len() > told.len() + 3 { told } else { &text };
    let end = told.char_indices().nth(VALUE_CHARACTERS_MAX).map_or(told.len(), |(end, _)| end);
    let more = if end < text.len() { "…" } else { "" };
    format!("\"{}{more}\"", told[..end].escape_debug())
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn a_value_is_told_by_its_beginning() {
        assert_eq!(bytes(b"value 7"), "\"value 7\"");
        assert_eq!(bytes(b"value 7......."), "\"value 7…\"");
        assert_eq!(bytes(b"wait..."), "\"wait...\"");
        assert_eq!(bytes(b"abcdefghijklmnopqrstuvwxyz"), "\"abcdefghijklmnopqrstuvwx…\"");
        assert_eq!(bytes(b""), "\"\"");
    }
}
