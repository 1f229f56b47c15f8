//! Runs the scripts of `testdata/`: each says in a sentence what it shows, then commands and recorded answers.
//!
//! ```text
//! # Deleting nothing makes no revision.
//! put a 1
//! delete b
//! ---
//! rev 2: put
//! rev 2: deleted 0
//! ```
//!
//! Stanzas are divided by empty lines and share one store. `UPDATE=1 cargo test` records the answers anew.
//! Ranges are written `a` (one key), `a..c`, `a..` and `..` (every key); `""` is an empty string, `\0` a zero
//! byte, `x*5` is `xxxxx`. A `txn` (through the log) or `query` (not) is followed by indented lines:
//! `if version a = 0`, `then put a 1`, `else range a`, any of them with `*5` behind its first word to be
//! repeated five times.

use super::command::{
    Applied, Command, Compare, CompareOperator, CompareTarget, DeleteRange, KeyRange, KeyValue, Operation,
    OperationResult, Outcome, Put, Query, Range, Txn,
};
use super::store::Store;
use crate::ids::{LeaseId, Revision};
use bytes::Bytes;
use std::fmt::Write as _;
use std::path::Path;

#[test]
fn every_script_answers_as_recorded() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kv/testdata");
    let is_update = std::env::var_os("UPDATE").is_some();
    let mut differing = Vec::new();
    let mut script_count = 0;
    for entry in std::fs::read_dir(directory).expect("the scripts are there") {
        let path = entry.expect("the directory is readable").path();
        let recorded = std::fs::read_to_string(&path).expect("a script is text");
        assert!(recorded.starts_with("# "), "{} says what it shows", path.display());
        let actual = run(&recorded);
        script_count += 1;
        if actual != recorded && is_update {
            std::fs::write(&path, &actual).expect("the script is writable");
        } else if actual != recorded {
            differing.push(format!("{}\n{actual}", path.display()));
        }
    }
    assert!(script_count >= 12, "the scripts were found");
    assert!(differing.is_empty(), "these scripts answered otherwise:\n{}", differing.join("\n"));
}

/// The script with its answers made anew.
fn run(script: &str) -> String {
    let mut store = Store::new();
    let mut stanzas = Vec::new();
    for stanza in script.trim_end().split("\n\n") {
        let asked = stanza.split("\n---").next().unwrap_or_default();
        let lines: Vec<&str> = asked.lines().filter(|line| !line.starts_with('#')).collect();
        if lines.is_empty() {
            stanzas.push(asked.to_owned());
            continue;
        }
        let mut text = format!("{asked}\n---");
        let mut rest = lines.as_slice();
        while let Some((first, behind)) = rest.split_first() {
            let indented = behind.iter().take_while(|line| line.starts_with(' ')).count();
            let (body, next) = behind.split_at(indented);
            text.push('\n');
            text.push_str(&show(&ask(&mut store, first, body)));
            rest = next;
        }
        store.assert_all_invariants();
        stanzas.push(text);
    }
    stanzas.join("\n\n") + "\n"
}

fn ask(store: &mut Store, line: &str, body: &[&str]) -> Applied {
    match line.split(' ').next() {
        Some("txn") => store.apply(&Command::Txn(txn(body))),
        Some("query") => store.query(&Query::Txn(txn(body))),
        _ => match operation(line) {
            Operation::Put(put) => store.apply(&Command::Put(put)),
            Operation::DeleteRange(delete) => store.apply(&Command::DeleteRange(delete)),
            Operation::Range(range) => store.query(&Query::Range(range)),
        },
    }
}

fn txn(body: &[&str]) -> Txn {
    let mut txn = Txn { compares: vec![], success: vec![], failure: vec![] };
    for line in body {
        let (kind, rest) =
            line.trim().split_once(' ').expect("a line of a transaction says if, then or else");
        let (kind, times) = kind.split_once('*').unwrap_or((kind, "1"));
        for _ in 0..number(times) {
            match kind {
                "if" => txn.compares.push(compare(rest)),
                "then" => txn.success.push(operation(rest)),
                "else" => txn.failure.push(operation(rest)),
                other => panic!("no part of a transaction is called {other}"),
            }
        }
    }
    txn
}

fn operation(line: &str) -> Operation {
    let words: Vec<&str> = line.split(' ').collect();
    let option = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)).map_or(0, number);
    let has = |name: &str| words.contains(&name);
    let wants_previous = has("prev");
    match words[0] {
        "put" => {
            let (key, value, lease) = (bytes(words[1]), bytes(words[2]), LeaseId(option("lease=")));
            Operation::Put(Put { key, value, lease, wants_previous })
        }
        "delete" => Operation::DeleteRange(DeleteRange { range: range(words[1]), wants_previous }),
        "range" => Operation::Range(Range {
            range: range(words[1]),
            limit: option("limit="),
            revision: Revision(option("rev=")),
            keys_only: has("keys"),
            count_only: has("count"),
        }),
        other => panic!("no operation is called {other}"),
    }
}

fn compare(line: &str) -> Compare {
    let words: Vec<&str> = line.split(' ').collect();
    let operator = match words[2] {
        "=" => CompareOperator::Equal,
        "!=" => CompareOperator::NotEqual,
        ">" => CompareOperator::Greater,
        "<" => CompareOperator::Less,
        other => panic!("no operator is written {other}"),
    };
    let target = match words[0] {
        "version" => CompareTarget::Version(number(words[3])),
        "create" => CompareTarget::Create(Revision(number(words[3]))),
        "mod" => CompareTarget::Mod(Revision(number(words[3]))),
        "value" => CompareTarget::Value(bytes(words[3])),
        "lease" => CompareTarget::Lease(LeaseId(number(words[3]))),
        other => panic!("no target is called {other}"),
    };
    Compare { range: range(words[1]), operator, target }
}

fn range(word: &str) -> KeyRange {
    match word.split_once("..") {
        None => KeyRange::Key(bytes(word)),
        Some((start, "")) => KeyRange::From(bytes(start)),
        Some((start, end)) => KeyRange::Span { start: bytes(start), end: bytes(end) },
    }
}

fn bytes(word: &str) -> Bytes {
    let word = word.trim_matches('"').replace("\\0", "\0");
    match word.split_once('*') {
        Some((unit, times)) => Bytes::from(unit.repeat(usize::try_from(number(times)).expect("it fits"))),
        None => Bytes::from(word),
    }
}

fn number(word: &str) -> u64 {
    word.parse().expect("a number is written in digits")
}

fn show(applied: &Applied) -> String {
    let mut text = format!("rev {}: ", applied.revision);
    match &applied.outcome {
        Outcome::Put(result) => text.push_str(&show_result(&OperationResult::Put(result.clone()), "")),
        Outcome::DeleteRange(result) => {
            text.push_str(&show_result(&OperationResult::DeleteRange(result.clone()), ""));
        }
        Outcome::Range(result) => text.push_str(&show_result(&OperationResult::Range(result.clone()), "")),
        Outcome::Refused(refusal) => write!(text, "refused: {refusal:?}").expect("a string takes all"),
        Outcome::Txn(result) => {
            text.push_str(if result.succeeded { "succeeded" } else { "failed" });
            for result in &result.results {
                text.push_str("\n  ");
                text.push_str(&show_result(result, "  "));
            }
        }
    }
    text
}

fn show_result(result: &OperationResult, indent: &str) -> String {
    let (mut text, pairs) = match result {
        OperationResult::Put(result) => ("put".to_owned(), result.previous.as_slice()),
        OperationResult::DeleteRange(result) => (format!("deleted {}", result.deleted), &result.previous[..]),
        OperationResult::Range(result) => {
            let more = if result.more { ", more" } else { "" };
            (format!("count {}{more}", result.count), &result.pairs[..])
        }
    };
    for pair in pairs {
        write!(text, "\n{indent}  {}", show_pair(pair)).expect("a string takes all");
    }
    text
}

fn show_pair(pair: &KeyValue) -> String {
    let KeyValue { key, value, create_revision, mod_revision, version, lease } = pair;
    assert_eq!(*lease, LeaseId(0), "no lease exists yet");
    let (key, value) = (key.escape_ascii(), value.escape_ascii());
    format!("{key}={value} create={create_revision} mod={mod_revision} version={version}")
}
