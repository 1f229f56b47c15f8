//! How an answer of the store looks: `simple`, `json`, `table` and `fields`; and how a failure does.
//!
//! Always: an answer is made whole before a byte of it is printed; with JSON, stdout is one object, failures
//! included; keys and values are bytes, so JSON has them in base64, as etcdctl does, and `simple` prints them as they
//! are. Left out: `status`, whose answer is not the store's.

mod lease;

use self::lease::LeaseJson;
use crate::api::Certainty;
use crate::client::{Aged, Client, Failure};
use crate::kv::{
    Applied, DeleteRangeResult, Event, KeyValue, OperationResult, Outcome, PutResult, RangeResult,
    StoreRefusal, TxnResult,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use serde::Serialize;
use std::io::Write;
use std::process::ExitCode;

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Lines for people and shell scripts
    Simple,
    /// One JSON object; keys and values in base64
    Json,
    /// A table
    Table,
    /// One line a field
    Fields,
}

/// What `simple` leaves out of a read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shown {
    pub(super) values_only: bool,
    pub(super) count_only: bool,
}

/// Who says something, and at which revision.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Header {
    pub(super) cluster_id: u64,
    pub(super) member_id: u64,
    pub(super) revision: u64,
    /// How old what follows may be, if that was asked for and is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) age_ms: Option<f64>,
}

/// Prints what came of a request.
pub(super) fn finish(
    format: Format,
    shown: Shown,
    client: &Client,
    result: Result<Applied, Failure>,
) -> ExitCode {
    finish_aged(format, shown, client, result.map(|applied| Aged { applied, age: None }))
}

/// The same, of what may be old.
pub(super) fn finish_aged(
    format: Format,
    shown: Shown,
    client: &Client,
    result: Result<Aged, Failure>,
) -> ExitCode {
    let Aged { applied, age } = match result {
        Ok(aged) => aged,
        Err(failure) => return Problem::of_failure(&failure).tell(format),
    };
    if let Outcome::Refused(refusal) = applied.outcome {
        return Problem::of_store(refusal).tell(format);
    }
    let header = Header {
        cluster_id: client.cluster().unwrap_or_default().0,
        member_id: client.member().0,
        revision: applied.revision.0,
        age_ms: age.map(|age| age.as_secs_f64() * 1_000.0),
    };
    print(&rendered(format, shown, header, &applied.outcome))
}

/// A command line that was understood by the parser and yet makes no sense.
pub(super) fn usage(problem: &str) -> ExitCode {
    eprintln!("error: {problem}\n\nFor more information, try '--help'.");
    ExitCode::from(2)
}

/// Writes to stdout; a reader that went away is no success.
pub(super) fn print(bytes: &[u8]) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// One line of JSON.
pub(super) fn json_line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("numbers, texts and lists are JSON");
    line.push(b'\n');
    line
}

/// What went wrong, what is known, and what to do.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    code: &'static str,
    /// `not done` or `outcome unknown`.
    certainty: &'static str,
    message: String,
    advice: &'static str,
}

#[derive(Serialize)]
struct ProblemJson<'a> {
    error: &'a Problem,
}

impl Problem {
    fn of_failure(failure: &Failure) -> Self {
        let certainty = match failure.certainty() {
            Certainty::NotDone => "not done",
            Certainty::OutcomeUnknown => "outcome unknown",
        };
        Self { code: failure.code(), certainty, message: failure.to_string(), advice: failure.advice() }
    }

    fn of_store(refusal: StoreRefusal) -> Self {
        let (code, message, advice) = match refusal {
            StoreRefusal::KeyMissing => ("key-missing", "the key is empty", "name a key"),
            StoreRefusal::Compacted => {
                ("compacted", "that revision was compacted away", "name a newer revision")
            }
            StoreRefusal::FutureRevision => {
                ("future-revision", "that revision is not there yet", "name the current one or an older one")
            }
            StoreRefusal::TooManyOperations => {
                ("too-many-operations", "the transaction is too long", "split it: 128 a list at most")
            }
            StoreRefusal::DuplicateKey => (
                "duplicate-key",
                "two operations that may both run write the same key",
                "leave one of them out",
            ),
            StoreRefusal::LeaseNotFound => ("lease-not-found", "there is no such lease", "grant one first"),
            StoreRefusal::LeaseExists => ("lease-exists", "a lease of that id exists", "choose another id"),
            StoreRefusal::TtlOutOfBounds => (
                "ttl-out-of-bounds",
                "the TTL is 0 or longer than any may be",
                "choose one from 1 ms to 9000000000 s",
            ),
            StoreRefusal::TooManyLeases => {
                ("too-many-leases", "no more leases fit", "revoke some, or use one for several keys")
            }
            StoreRefusal::NoSpace => (
                "no-space",
                "the keyspace has used up its quota",
                "delete keys and compact; the alarm goes by itself then, or with `mainstay alarm disarm`",
            ),
            StoreRefusal::CostsTooMuch => (
                "costs-too-much",
                "the transaction reads more keys or more bytes than one may",
                "split it, or give its reads a limit",
            ),
            StoreRefusal::OutOfBounds => ("out-of-bounds", "a key or value is too long", "shorten it"),
            StoreRefusal::KeyNotFound => (
                "key-not-found",
                "the key to keep the value or lease of does not exist",
                "put it with a value",
            ),
            StoreRefusal::ValueProvided => {
                ("value-provided", "a put that keeps the value brings one", "leave it out")
            }
            StoreRefusal::LeaseProvided => {
                ("lease-provided", "a put that keeps the lease brings one", "leave it out")
            }
            StoreRefusal::WriteInQuery => {
                ("write-in-query", "a transaction sent as a read holds a write", "send it as a write")
            }
        };
        let message = format!("the store refused it: {message}");
        Self { code, certainty: "not done", message, advice }
    }

    /// Tells it on stderr, and with JSON on stdout too.
    fn tell(&self, format: Format) -> ExitCode {
        eprintln!("error[{}]: {}\n  what to do: {}", self.code, self.message, self.advice);
        if format == Format::Json {
            print(&json_line(&ProblemJson { error: self }));
        }
        ExitCode::FAILURE
    }
}

fn rendered(format: Format, shown: Shown, header: Header, outcome: &Outcome) -> Vec<u8> {
    let mut out = Vec::new();
    match format {
        Format::Json => out = json_line(&AnswerJson { header, body: outcome_json(outcome) }),
        Format::Simple => simple_outcome(&mut out, shown, outcome),
        Format::Table => out.extend_from_slice(tables(outcome).as_bytes()),
        Format::Fields => {
            let Header { cluster_id, member_id, revision, age_ms } = header;
            let head = format!(
                "\"ClusterID\" : {cluster_id}\n\"MemberID\" : {member_id}\n\"Revision\" : {revision}\n"
            );
            out.extend_from_slice(head.as_bytes());
            if let Some(age_ms) = age_ms {
                out.extend_from_slice(format!("\"AgeMs\" : {age_ms}\n").as_bytes());
            }
            out.extend_from_slice(fields_outcome(outcome).as_bytes());
        }
    }
    out
}

fn simple_outcome(out: &mut Vec<u8>, shown: Shown, outcome: &Outcome) {
    match outcome {
        Outcome::Put(put) => simple_put(out, put),
        Outcome::DeleteRange(deleted) => simple_deleted(out, deleted),
        Outcome::Range(range) => simple_range(out, shown, range),
        Outcome::Txn(txn) => simple_txn(out, shown, txn),
        Outcome::Compacted | Outcome::Lease(_) | Outcome::SpaceAlarm(_) | Outcome::Refused(_) => {}
    }
}

fn simple_txn(out: &mut Vec<u8>, shown: Shown, txn: &TxnResult) {
    out.extend_from_slice(if txn.succeeded { b"SUCCESS\n" } else { b"FAILURE\n" });
    for result in &txn.results {
        out.push(b'\n');
        match result {
            OperationResult::Put(put) => simple_put(out, put),
            OperationResult::DeleteRange(deleted) => simple_deleted(out, deleted),
            OperationResult::Range(range) => simple_range(out, shown, range),
            OperationResult::Txn(nested) => simple_txn(out, shown, nested),
        }
    }
}

fn simple_put(out: &mut Vec<u8>, put: &PutResult) {
    out.extend_from_slice(b"OK\n");
    simple_pairs(out, Shown::default(), put.previous.as_slice());
}

fn simple_deleted(out: &mut Vec<u8>, deleted: &DeleteRangeResult) {
    out.extend_from_slice(format!("{}\n", deleted.deleted).as_bytes());
    simple_pairs(out, Shown::default(), &deleted.previous);
}

fn simple_range(out: &mut Vec<u8>, shown: Shown, range: &RangeResult) {
    if shown.count_only {
        out.extend_from_slice(format!("{}\n", range.count).as_bytes());
    }
    simple_pairs(out, shown, &range.pairs);
}

fn simple_pairs(out: &mut Vec<u8>, shown: Shown, pairs: &[KeyValue]) {
    for pair in pairs {
        if !shown.values_only {
            out.extend_from_slice(&pair.key);
            out.push(b'\n');
        }
        out.extend_from_slice(&pair.value);
        out.push(b'\n');
    }
}

#[derive(Serialize)]
struct AnswerJson {
    header: Header,
    #[serde(flatten)]
    body: BodyJson,
}

#[derive(Serialize)]
#[serde(untagged)]
enum BodyJson {
    Put {
        #[serde(skip_serializing_if = "Option::is_none")]
        prev_kv: Option<PairJson>,
    },
    DeleteRange {
        deleted: u64,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        prev_kvs: Vec<PairJson>,
    },
    Range {
        kvs: Vec<PairJson>,
        more: bool,
        count: u64,
    },
    Txn {
        succeeded: bool,
        responses: Vec<OperationJson>,
    },
    Lease(LeaseJson),
    Nothing {},
}

#[derive(Serialize)]
enum OperationJson {
    #[serde(rename = "response_put")]
    Put(BodyJson),
    #[serde(rename = "response_delete_range")]
    DeleteRange(BodyJson),
    #[serde(rename = "response_range")]
    Range(BodyJson),
    #[serde(rename = "response_txn")]
    Txn(BodyJson),
}

#[derive(Serialize)]
struct PairJson {
    key: String,
    create_revision: u64,
    mod_revision: u64,
    version: u64,
    value: String,
    lease: u64,
}

/// What happened to a key.
#[derive(Serialize)]
pub(super) struct EventJson {
    #[serde(rename = "type")]
    kind: &'static str,
    kv: PairJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_kv: Option<PairJson>,
}

impl EventJson {
    pub(super) fn of(event: &Event) -> Self {
        let kind = if event.is_deletion { "DELETE" } else { "PUT" };
        Self { kind, kv: pair_json(&event.pair), prev_kv: event.previous.as_ref().map(pair_json) }
    }
}

fn outcome_json(outcome: &Outcome) -> BodyJson {
    match outcome {
        Outcome::Put(put) => put_json(put),
        Outcome::DeleteRange(deleted) => deleted_json(deleted),
        Outcome::Range(range) => range_json(range),
        Outcome::Txn(txn) => txn_json(txn),
        Outcome::Lease(outcome) => BodyJson::Lease(lease::json(outcome)),
        Outcome::Compacted | Outcome::SpaceAlarm(_) | Outcome::Refused(_) => BodyJson::Nothing {},
    }
}

fn operation_json(result: &OperationResult) -> OperationJson {
    match result {
        OperationResult::Put(put) => OperationJson::Put(put_json(put)),
        OperationResult::DeleteRange(deleted) => OperationJson::DeleteRange(deleted_json(deleted)),
        OperationResult::Range(range) => OperationJson::Range(range_json(range)),
        OperationResult::Txn(nested) => OperationJson::Txn(txn_json(nested)),
    }
}

fn txn_json(txn: &TxnResult) -> BodyJson {
    let responses = txn.results.iter().map(operation_json).collect();
    BodyJson::Txn { succeeded: txn.succeeded, responses }
}

fn put_json(put: &PutResult) -> BodyJson {
    BodyJson::Put { prev_kv: put.previous.as_ref().map(pair_json) }
}

fn deleted_json(deleted: &DeleteRangeResult) -> BodyJson {
    let prev_kvs = deleted.previous.iter().map(pair_json).collect();
    BodyJson::DeleteRange { deleted: deleted.deleted, prev_kvs }
}

fn range_json(range: &RangeResult) -> BodyJson {
    let kvs = range.pairs.iter().map(pair_json).collect();
    BodyJson::Range { kvs, more: range.more, count: range.count }
}

fn pair_json(pair: &KeyValue) -> PairJson {
    PairJson {
        key: base64(&pair.key),
        create_revision: pair.create_revision.0,
        mod_revision: pair.mod_revision.0,
        version: pair.version,
        value: base64(&pair.value),
        lease: pair.lease.0,
    }
}

/// Base64 with padding (RFC 4648 §4).
fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn fields_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Put(put) => fields_pairs("Prev", put.previous.as_slice()),
        Outcome::DeleteRange(deleted) => fields_deleted(deleted),
        Outcome::Range(range) => fields_range(range),
        Outcome::Txn(txn) => fields_txn(txn),
        Outcome::Lease(outcome) => lease::fields(outcome),
        Outcome::Compacted | Outcome::SpaceAlarm(_) | Outcome::Refused(_) => String::new(),
    }
}

fn fields_txn(txn: &TxnResult) -> String {
    let mut text = format!("\"Succeeded\" : {}\n", txn.succeeded);
    for result in &txn.results {
        let (kind, fields) = match result {
            OperationResult::Put(put) => ("put", fields_pairs("Prev", put.previous.as_slice())),
            OperationResult::DeleteRange(deleted) => ("delete_range", fields_deleted(deleted)),
            OperationResult::Range(range) => ("range", fields_range(range)),
            OperationResult::Txn(nested) => ("txn", fields_txn(nested)),
        };
        text += &(format!("\"Response\" : \"{kind}\"\n") + &fields);
    }
    text
}

fn fields_deleted(deleted: &DeleteRangeResult) -> String {
    format!("\"Deleted\" : {}\n{}", deleted.deleted, fields_pairs("Prev", &deleted.previous))
}

fn fields_range(range: &RangeResult) -> String {
    let pairs = fields_pairs("", &range.pairs);
    format!("{pairs}\"More\" : {}\n\"Count\" : {}\n", range.more, range.count)
}

fn fields_pairs(prefix: &str, pairs: &[KeyValue]) -> String {
    let one = |pair: &KeyValue| {
        format!(
            "\"{prefix}Key\" : \"{}\"\n\"{prefix}CreateRevision\" : {}\n\"{prefix}ModRevision\" : {}\n\
             \"{prefix}Version\" : {}\n\"{prefix}Value\" : \"{}\"\n\"{prefix}Lease\" : {}\n",
            pair.key.escape_ascii(),
            pair.create_revision.0,
            pair.mod_revision.0,
            pair.version,
            pair.value.escape_ascii(),
            pair.lease.0
        )
    };
    pairs.iter().map(one).collect()
}

fn tables(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Put(put) => put_table(put),
        Outcome::DeleteRange(deleted) => deleted_table(deleted),
        Outcome::Range(range) => range_table(range),
        Outcome::Txn(txn) => txn_table(txn),
        Outcome::Compacted => table(&["COMPACT"], &[vec!["OK".to_owned()]]),
        Outcome::Lease(outcome) => lease::in_table(outcome),
        Outcome::SpaceAlarm(_) | Outcome::Refused(_) => String::new(),
    }
}

fn txn_table(txn: &TxnResult) -> String {
    let mut text = table(&["SUCCEEDED"], &[vec![txn.succeeded.to_string()]]);
    for result in &txn.results {
        text += &match result {
            OperationResult::Put(put) => put_table(put),
            OperationResult::DeleteRange(deleted) => deleted_table(deleted),
            OperationResult::Range(range) => range_table(range),
            OperationResult::Txn(nested) => txn_table(nested),
        };
    }
    text
}

fn put_table(put: &PutResult) -> String {
    table(&["PUT"], &[vec!["OK".to_owned()]]) + &previous_table(put.previous.as_slice())
}

fn deleted_table(deleted: &DeleteRangeResult) -> String {
    table(&["DELETED"], &[vec![deleted.deleted.to_string()]]) + &previous_table(&deleted.previous)
}

fn range_table(range: &RangeResult) -> String {
    pairs_table(&range.pairs)
        + &table(&["COUNT", "MORE"], &[vec![range.count.to_string(), range.more.to_string()]])
}

fn previous_table(pairs: &[KeyValue]) -> String {
    if pairs.is_empty() { String::new() } else { pairs_table(pairs) }
}

fn pairs_table(pairs: &[KeyValue]) -> String {
    let row = |pair: &KeyValue| {
        vec![
            text_of(&pair.key),
            text_of(&pair.value),
            pair.create_revision.0.to_string(),
            pair.mod_revision.0.to_string(),
            pair.version.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = pairs.iter().map(row).collect();
    table(&["KEY", "VALUE", "CREATED AT", "MODIFIED AT", "VERSION"], &rows)
}

/// Bytes as a cell of a table: text as it is if it is text for people, escaped otherwise.
fn text_of(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// A table with a frame.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([heads[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let rule = widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("+");
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!(" {cell:width$} "));
        format!("|{}|\n", cells.collect::<Vec<_>>().join("|"))
    };
    let mut text = format!("+{rule}+\n{}+{rule}+\n", line(heads.to_vec()));
    for row in rows {
        text += &line(row.iter().map(String::as_str).collect());
    }
    text + &format!("+{rule}+\n")
}

#[cfg(test)]
mod tests {
    use super::{Format, Header, Shown, base64, rendered, table};
    use crate::ids::{LeaseId, Revision};
    use crate::kv::{
        DeleteRangeResult, KeyValue, OperationResult, Outcome, PutResult, RangeResult, TxnResult,
    };
    use bytes::Bytes;

    const HEADER: Header = Header { cluster_id: 7, member_id: 1, revision: 5, age_ms: None };

    fn pair() -> KeyValue {
        KeyValue {
            key: Bytes::from_static(b"a"),
            value: Bytes::from_static(b"\xff1"),
            create_revision: Revision(2),
            mod_revision: Revision(5),
            version: 3,
            lease: LeaseId(0),
        }
    }

    fn one_pair() -> RangeResult {
        RangeResult { pairs: vec![pair()], more: false, count: 1 }
    }

    fn text(format: Format, outcome: &Outcome) -> String {
        rendered(format, Shown::default(), HEADER, outcome).escape_ascii().to_string()
    }

    #[test]
    fn simple_prints_bytes_as_they_are() {
        let range = Outcome::Range(one_pair());
        assert_eq!(rendered(Format::Simple, Shown::default(), HEADER, &range), b"a\n\xff1\n");
        let values_only = Shown { values_only: true, count_only: false };
        assert_eq!(rendered(Format::Simple, values_only, HEADER, &range), b"\xff1\n");
        let count_only = Shown { values_only: false, count_only: true };
        let counted = Outcome::Range(RangeResult { pairs: Vec::new(), more: false, count: 4 });
        assert_eq!(rendered(Format::Simple, count_only, HEADER, &counted), b"4\n");
        assert_eq!(text(Format::Simple, &Outcome::Put(PutResult::default())), "OK\\n");
        let deleted = DeleteRangeResult { deleted: 2, previous: Vec::new() };
        assert_eq!(text(Format::Simple, &Outcome::DeleteRange(deleted)), "2\\n");
    }

    #[test]
    fn a_transaction_prints_its_branch_and_each_result() {
        let results = vec![OperationResult::Put(PutResult::default()), OperationResult::Range(one_pair())];
        let txn = Outcome::Txn(TxnResult { succeeded: true, results });
        assert_eq!(text(Format::Simple, &txn), "SUCCESS\\n\\nOK\\n\\na\\n\\xff1\\n");
        let json = rendered(Format::Json, Shown::default(), HEADER, &txn);
        let json: serde_json::Value = serde_json::from_slice(&json).expect("it is JSON");
        assert_eq!(json["succeeded"], true);
        assert_eq!(json["responses"][1]["response_range"]["kvs"][0]["key"], "YQ==");
    }

    #[test]
    fn json_is_one_line_with_keys_and_values_in_base64() {
        let line = rendered(Format::Json, Shown::default(), HEADER, &Outcome::Range(one_pair()));
        let expected = concat!(
            r#"{"header":{"cluster_id":7,"member_id":1,"revision":5},"kvs":[{"key":"YQ==","#,
            r#""create_revision":2,"mod_revision":5,"version":3,"value":"/zE=","lease":0}],"more":false,"count":1}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(line).expect("JSON is text"), expected);
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        let pairs = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (plain, encoded) in pairs {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn a_table_is_as_wide_as_its_widest_cell() {
        let text = table(&["A", "NAME"], &[vec!["one".to_owned(), "x".to_owned()]]);
        assert_eq!(text, "+-----+------+\n| A   | NAME |\n+-----+------+\n| one | x    |\n+-----+------+\n");
    }

    #[test]
    fn fields_are_one_a_line() {
        let text = text(Format::Fields, &Outcome::Range(one_pair()));
        assert!(text.contains("ModRevision\\\" : 5\\n"), "{text}");
    }
}
