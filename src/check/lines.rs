//! Histories as files: one JSON object a line, one line an event, written as it happens.
//!
//! ```text
//!   {"at":17,"op":3,"invoke":{"client":1,"call":{"write":{"session":9,"sequence":2,"command":{"put":{…}}}}}}
//!   {"at":940,"op":3,"complete":{"revision":5,"outcome":{"put":{"previous":null}}}}
//!   {"at":940,"op":3,"not_done":null}             refused with certainty
//!   {"at":5000940,"op":3,"indeterminate":null}    given up; so is an operation whose invocation is its last line
//! ```
//!
//! `at` is in microseconds on one line of time for all clients, `op` the number of the operation in the file, from 0 in
//! the order of invocations. Names and structure are those of `api` and `kv`, one to one. Keys and values are strings;
//! one that is not UTF-8 is `{"hex":"00ff"}`.
//!
//! Always: what is read back is what was written; a line that is not understood is refused with its number, never
//! skipped. A file that ends in the middle of a line, because its writer died, is read up to there.

use super::history::{Answer, Call, Operation, WriteId};
use crate::ids::{LeaseId, Revision, SessionId};
use crate::kv::{
    Applied, Command, Compact, Compare, CompareOperator, CompareTarget, DeleteRange, DeleteRangeResult,
    Filter, Grant, KeyRange, KeyValue, LeaseCommand, LeaseLife, LeaseOutcome, Operation as Part,
    OperationResult, Outcome, Put, PutResult, Query, Range, RangeResult, Remaining, Renewed, Revoke, Sort,
    SortBy, SortOrder, SpaceAlarm, StoreRefusal, TimeToLive, Txn, TxnResult,
};
use bytes::Bytes;
use core::fmt::Write;
use serde_json::{Map, Value, json};

/// A line that is not part of a history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct BadLine {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

/// The line, without its end, for the invocation of operation `op`.
pub fn invoke_line(op: usize, operation: &Operation) -> String {
    let invoke = json!({ "client": operation.client, "call": operation.call.to_json() });
    json!({ "at": operation.invoked, "op": op, "invoke": invoke }).to_string()
}

/// The line for the answer of operation `op`, which came, or was given up, `at` this time.
pub fn answer_line(op: usize, at: u64, answer: &Answer) -> String {
    let (event, what) = match answer {
        Answer::Applied(applied) => ("complete", applied.to_json()),
        Answer::NotDone => ("not_done", Value::Null),
        Answer::Unknown => ("indeterminate", Value::Null),
    };
    json!({ "at": at, "op": op, event: what }).to_string()
}

/// A whole history as a file, in time's order.
pub fn to_lines(history: &[Operation]) -> String {
    let mut numbered: Vec<&Operation> = history.iter().collect();
    numbered.sort_by_key(|operation| operation.invoked);
    let mut lines = Vec::new();
    for (op, operation) in numbered.into_iter().enumerate() {
        // An invocation at the instant of an answer stands before it: the two are concurrent.
        lines.push((operation.invoked, false, op, invoke_line(op, operation)));
        if let Some(completed) = operation.completed {
            lines.push((completed, true, op, answer_line(op, completed, &operation.answer)));
        }
    }
    lines.sort();
    let mut text = String::new();
    for (_, _, _, line) in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    }
    text
}

/// Reads a history.
///
/// # Errors
/// The first line that is not understood.
pub fn from_lines(text: &str) -> Result<Vec<Operation>, BadLine> {
    let mut history: Vec<Operation> = Vec::new();
    // What comes after the last line's end was not written to its end.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for (at, line) in whole.lines().enumerate() {
        read_line(&mut history, line).map_err(|what| BadLine { line: at + 1, what })?;
    }
    Ok(history)
}

fn read_line(history: &mut Vec<Operation>, line: &str) -> Result<(), String> {
    let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let at: u64 = field(&value, "at")?;
    let op = usize::try_from(field::<u64>(&value, "op")?).map_err(|error| error.to_string())?;
    if let Some(invoke) = value.get("invoke") {
        if op != history.len() {
            return Err(format!("operation {op} is invoked, but the next one is {}", history.len()));
        }
        let client = u32::try_from(field::<u64>(invoke, "client")?).map_err(|error| error.to_string())?;
        let call = field(invoke, "call")?;
        history.push(Operation { client, invoked: at, completed: None, call, answer: Answer::Unknown });
        return Ok(());
    }
    let operation = history.get_mut(op).ok_or_else(|| format!("operation {op} was not invoked"))?;
    if operation.completed.is_some() || operation.answer != Answer::Unknown {
        return Err(format!("operation {op} ends twice"));
    }
    if at < operation.invoked {
        return Err(format!("operation {op} ends before it begins"));
    }
    if let Some(applied) = value.get("complete") {
        operation.answer = Answer::Applied(Applied::from_json(applied)?);
        operation.completed = Some(at);
    } else if value.get("not_done").is_some() {
        operation.answer = Answer::NotDone;
        operation.completed = Some(at);
    } else if value.get("indeterminate").is_none() {
        return Err("an event is one of invoke, complete, not_done and indeterminate".to_owned());
    }
    Ok(())
}

/// A thing that has a form in a line.
trait Json: Sized {
    fn to_json(&self) -> Value;
    fn from_json(value: &Value) -> Result<Self, String>;
}

fn field<T: Json>(value: &Value, name: &str) -> Result<T, String> {
    let found = value.get(name).ok_or_else(|| format!("{name} is missing"))?;
    T::from_json(found).map_err(|what| format!("{name}: {what}"))
}

/// The one name and content of an object that says which of several things it is.
fn variant(value: &Value) -> Result<(&str, &Value), String> {
    let object = value.as_object().filter(|object| object.len() == 1);
    let one = object.and_then(|object| object.iter().next());
    one.map(|(name, content)| (name.as_str(), content))
        .ok_or_else(|| format!("expected an object with one name, found {value}"))
}

/// A struct is an object with its fields, but for one behind a semicolon, which no client can name.
macro_rules! fields {
    ($($type:ident { $($field:ident),+ $(; $absent:ident)? })+) => {$(
        impl Json for $type {
            fn to_json(&self) -> Value {
                let mut object = Map::new();
                $(object.insert(stringify!($field).to_owned(), self.$field.to_json());)+
                Value::Object(object)
            }
            fn from_json(value: &Value) -> Result<Self, String> {
                Ok(Self { $($field: field(value, stringify!($field))?,)+ $($absent: None)? })
            }
        }
    )+};
}

fields! {
    Put { key, value, lease, wants_previous, keeps_value, keeps_lease }
    DeleteRange { range, wants_previous }
    Range { range, limit, revision, sort, filter, keys_only, count_only; part_bytes_max }
    Sort { by, order }
    Filter { mod_min, mod_max, create_min, create_max }
    Compact { revision }
    Grant { lease, ttl_ms }
    Revoke { lease }
    SpaceAlarm { by_hand, is_raised }
    LeaseLife { lease, grant }
    Remaining { life, remaining_ms }
    Renewed { ttl_ms }
    TimeToLive { ttl_ms, remaining_ms, keys }
    Compare { range, operator, target }
    Txn { compares, success, failure }
    KeyValue { key, value, create_revision, mod_revision, version, lease }
    PutResult { previous }
    DeleteRangeResult { deleted, previous }
    RangeResult { pairs, more, count }
    TxnResult { succeeded, results }
    Applied { revision, outcome }
}

/// A choice between things is an object with one name; behind the semicolon, those that have no content.
macro_rules! choices {
    ($($type:ident { $($variant:ident = $name:literal),+ $(; $($empty:ident = $word:literal),+)? })+) => {$(
        impl Json for $type {
            fn to_json(&self) -> Value {
                match self {
                    $(Self::$variant(content) => json!({ $name: content.to_json() }),)+
                    $($(Self::$empty => json!({ $word: null }),)+)?
                }
            }
            fn from_json(value: &Value) -> Result<Self, String> {
                match variant(value)? {
                    $(($name, content) => Ok(Self::$variant(Json::from_json(content)?)),)+
                    $($(($word, _) => Ok(Self::$empty),)+)?
                    (other, _) => Err(format!("`{other}` is no {}", stringify!($type))),
                }
            }
        }
    )+};
}

choices! {
    Command { Put = "put", DeleteRange = "delete_range", Txn = "txn", Compact = "compact", Lease = "lease",
        SpaceAlarm = "space_alarm"
    }
    LeaseCommand {
        Grant = "grant", Revoke = "revoke", Expire = "expire", Checkpoint = "checkpoint", Renew = "renew"
    }
    Query { Range = "range", Txn = "txn"; Leases = "leases" }
    Part { Put = "put", DeleteRange = "delete_range", Range = "range", Txn = "txn" }
    OperationResult { Put = "put", DeleteRange = "delete_range", Range = "range", Txn = "txn" }
    Outcome {
        Put = "put", DeleteRange = "delete_range", Txn = "txn", Range = "range", Lease = "lease",
        SpaceAlarm = "space_alarm", Refused = "refused"; Compacted = "compacted"
    }
    LeaseOutcome {
        Granted = "granted", Renewed = "renewed", Listed = "listed", TimeToLive = "time_to_live";
        Revoked = "revoked", Checkpointed = "checkpointed"
    }
    CompareTarget {
        Version = "version", Create = "create", Mod = "mod", Value = "value", Lease = "lease"
    }
}

/// A word is a string.
macro_rules! words {
    ($($type:ident { $($variant:ident = $name:literal),+ })+) => {$(
        impl Json for $type {
            fn to_json(&self) -> Value {
                match self { $(Self::$variant => json!($name)),+ }
            }
            fn from_json(value: &Value) -> Result<Self, String> {
                match value.as_str() {
                    $(Some($name) => Ok(Self::$variant),)+
                    _ => Err(format!("{value} is no {}", stringify!($type))),
                }
            }
        }
    )+};
}

words! {
    SortBy { Key = "key", Version = "version", Create = "create", Mod = "mod", Value = "value" }
    SortOrder { Ascending = "ascending", Descending = "descending" }
    CompareOperator { Equal = "=", NotEqual = "!=", Greater = ">", Less = "<" }
    StoreRefusal {
        KeyMissing = "key_missing", Compacted = "compacted", FutureRevision = "future_revision",
        TooManyOperations = "too_many_operations", DuplicateKey = "duplicate_key",
        LeaseNotFound = "lease_not_found", OutOfBounds = "out_of_bounds", WriteInQuery = "write_in_query",
        KeyNotFound = "key_not_found", ValueProvided = "value_provided", LeaseProvided = "lease_provided",
        LeaseExists = "lease_exists", TtlOutOfBounds = "ttl_out_of_bounds", TooManyLeases = "too_many_leases",
        NoSpace = "no_space", CostsTooMuch = "costs_too_much"
    }
}

/// An identity is its number.
macro_rules! numbers {
    ($($type:ident)+) => {$(
        impl Json for $type {
            fn to_json(&self) -> Value {
                json!(self.0)
            }
            fn from_json(value: &Value) -> Result<Self, String> {
                u64::from_json(value).map(Self)
            }
        }
    )+};
}

numbers! { Revision LeaseId SessionId }

impl Json for Call {
    fn to_json(&self) -> Value {
        match self {
            Self::Write { write, command } => json!({ "write": {
                "session": write.session.to_json(), "sequence": write.sequence, "command": command.to_json(),
            } }),
            Self::Read { query, is_linearizable } => {
                json!({ "read": { "query": query.to_json(), "is_linearizable": is_linearizable } })
            }
        }
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        match variant(value)? {
            ("write", content) => {
                let write =
                    WriteId { session: field(content, "session")?, sequence: field(content, "sequence")? };
                Ok(Self::Write { write, command: field(content, "command")? })
            }
            ("read", content) => Ok(Self::Read {
                query: field(content, "query")?,
                is_linearizable: field(content, "is_linearizable")?,
            }),
            (other, _) => Err(format!("`{other}` is neither write nor read")),
        }
    }
}

impl Json for KeyRange {
    fn to_json(&self) -> Value {
        match self {
            Self::Key(key) => json!({ "key": key.to_json() }),
            Self::Span { start, end } => json!({ "span": [start.to_json(), end.to_json()] }),
            Self::From(start) => json!({ "from": start.to_json() }),
        }
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        match variant(value)? {
            ("key", key) => Ok(Self::Key(Bytes::from_json(key)?)),
            ("from", start) => Ok(Self::From(Bytes::from_json(start)?)),
            ("span", span) => match Vec::from_json(span)?.as_slice() {
                [start, end] => Ok(Self::Span { start: Bytes::clone(start), end: end.clone() }),
                _ => Err(format!("a span is two keys, not {span}")),
            },
            (other, _) => Err(format!("`{other}` is no range of keys")),
        }
    }
}

impl Json for Bytes {
    fn to_json(&self) -> Value {
        core::str::from_utf8(self).map_or_else(
            |_| {
                let digits = self.iter().fold(String::new(), |mut digits, byte| {
                    let _ = write!(digits, "{byte:02x}");
                    digits
                });
                json!({ "hex": digits })
            },
            |text| json!(text),
        )
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        if let Some(text) = value.as_str() {
            return Ok(Self::from(text.to_owned()));
        }
        let refuse = || format!("expected a string or {{\"hex\": …}}, found {value}");
        let digits = value.get("hex").and_then(Value::as_str).ok_or_else(refuse)?;
        let digit = |letter: &u8| char::from(*letter).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let bytes = digits.as_bytes().chunks(2).map(|pair| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        });
        bytes.collect::<Option<Vec<u8>>>().map(Self::from).ok_or_else(refuse)
    }
}

impl Json for u64 {
    fn to_json(&self) -> Value {
        json!(self)
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        value.as_u64().ok_or_else(|| format!("expected a number, found {value}"))
    }
}

impl Json for bool {
    fn to_json(&self) -> Value {
        json!(self)
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| format!("expected true or false, found {value}"))
    }
}

impl<T: Json> Json for Vec<T> {
    fn to_json(&self) -> Value {
        self.iter().map(Json::to_json).collect()
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        let list = value.as_array().ok_or_else(|| format!("expected a list, found {value}"))?;
        list.iter().map(T::from_json).collect()
    }
}

impl<T: Json> Json for Option<T> {
    fn to_json(&self) -> Value {
        self.as_ref().map_or(Value::Null, Json::to_json)
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        if value.is_null() { Ok(None) } else { T::from_json(value).map(Some) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn history() -> Vec<Operation> {
        vec![
            write((0, 10), 1, put("a \"quoted\" \u{1} value"), was_put(2)),
            write((5, 20), 2, put("b"), Answer::Unknown),
            read((15, 30), 3, Some(("b", 3, 2))),
            write((31, 40), 3, swap(3, "c"), swapped(4, true)),
            write((33, 60), 5, put("never arrived"), Answer::NotDone),
            write((61, 70), 6, delete(), was_deleted(5)),
            write((71, 80), 7, delete(), applied(5, Outcome::Refused(StoreRefusal::OutOfBounds))),
        ]
    }

    #[test]
    fn what_is_read_back_is_what_was_written() {
        assert_eq!(from_lines(&to_lines(&history())).as_ref(), Ok(&history()));
    }

    #[test]
    fn every_form_of_key_and_range_comes_back() {
        let keys = [Bytes::new(), Bytes::from("k"), Bytes::from_static(&[0, 0xff, 0x10])];
        for key in keys {
            assert_eq!(Bytes::from_json(&key.to_json()).as_ref(), Ok(&key));
            let ranges = [
                KeyRange::Key(key.clone()),
                KeyRange::From(key.clone()),
                KeyRange::Span { start: key.clone(), end: key },
            ];
            for range in ranges {
                assert_eq!(KeyRange::from_json(&range.to_json()), Ok(range));
            }
        }
    }

    #[test]
    fn a_file_whose_writer_died_is_read_up_to_there() {
        let text = to_lines(&history());
        let cut = &text[..text.len() - 5];
        let read = from_lines(cut).expect("whole lines are sound");
        assert_eq!(read.last().map(|operation| &operation.answer), Some(&Answer::Unknown));
    }

    #[test]
    fn a_line_that_is_not_understood_is_refused_with_its_number() {
        let sound = to_lines(&history()[..1]);
        for (line, what) in [
            ("{", "EOF"),
            ("{\"at\":99,\"op\":7,\"complete\":{}}", "operation 7 was not invoked"),
            ("{\"at\":99,\"op\":0,\"not_done\":null}", "operation 0 ends twice"),
            ("{\"at\":99,\"op\":5,\"invoke\":{}}", "the next one is 1"),
            ("{\"at\":99,\"op\":1,\"invoke\":{\"client\":1}}", "call is missing"),
        ] {
            let bad = from_lines(&format!("{sound}{line}\n")).expect_err(line);
            assert_eq!(bad.line, 3, "{line}");
            assert!(bad.what.contains(what), "{bad}");
        }
    }
}
