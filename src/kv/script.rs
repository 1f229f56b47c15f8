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
//! byte, `x*5` is `xxxxx`. `grant`, `revoke`, `expire`, `renew` and `checkpoint` are about leases, `leases` shows all; `alarm on` and
//! `alarm off` say whether the keyspace is full;
//! `7#2` is the life of lease 7 that was granted second. A `txn` (through the log) or `query` (not) is followed by indented lines:
//! `if version a = 0`, `then put a 1`, `else range a`, any of them with `*5` behind its first word to be
//! repeated five times. Lines below `then txn` or `else txn` that are indented deeper belong to that transaction.

use super::command::{
    Applied, Command, Compact, Compare, CompareOperator, CompareTarget, DeleteRange, Filter, Grant, KeyRange,
    KeyValue, LeaseCommand, LeaseLife, LeaseOutcome, Operation, OperationResult, Outcome, Put, Query, Range,
    Remaining, Renewed, Revoke, Sort, SortBy, SortOrder, SpaceAlarm, Txn, TxnResult,
};
use super::leases::Lease;
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
            if *first == "leases" {
                text.push_str(&show_leases(&store));
            }
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
        Some("compact") => {
            let revision = Revision(number(line.split(' ').nth(1).expect("a compaction has a revision")));
            store.apply(&Command::Compact(Compact { revision }))
        }
        Some("alarm") => {
            let by_hand = line.split(' ').nth(1).and_then(|number| number.parse().ok());
            store.apply(&Command::SpaceAlarm(SpaceAlarm { by_hand, is_raised: line.ends_with(" on") }))
        }
        Some("leases") => store.query(&Query::Leases),
        Some("grant" | "revoke" | "expire" | "renew" | "checkpoint") => {
            store.apply(&Command::Lease(lease_command(line)))
        }
        _ => match operation(line) {
            Operation::Put(put) => store.apply(&Command::Put(put)),
            Operation::DeleteRange(delete) => store.apply(&Command::DeleteRange(delete)),
            Operation::Range(range) => store.query(&Query::Range(range)),
            Operation::Txn(txn) => store.apply(&Command::Txn(txn)),
        },
    }
}

fn lease_command(line: &str) -> LeaseCommand {
    let words: Vec<&str> = line.split(' ').collect();
    let remaining = |word: &&str| {
        let (life, remaining_ms) = word.split_once('=').expect("what remains is written 7#1=500");
        Remaining { life: self::life(life), remaining_ms: number(remaining_ms) }
    };
    match words[0] {
        "grant" => LeaseCommand::Grant(Grant { lease: LeaseId(number(words[1])), ttl_ms: number(words[2]) }),
        "revoke" => LeaseCommand::Revoke(Revoke { lease: LeaseId(number(words[1])) }),
        "expire" => LeaseCommand::Expire(life(words[1])),
        "renew" => LeaseCommand::Renew(life(words[1])),
        "checkpoint" => LeaseCommand::Checkpoint(words[1..].iter().map(remaining).collect()),
        other => panic!("nothing about leases is called {other}"),
    }
}

fn life(word: &str) -> LeaseLife {
    let (lease, grant) = word.split_once('#').expect("a life is written 7#1");
    LeaseLife { lease: LeaseId(number(lease)), grant: number(grant) }
}

fn txn(body: &[&str]) -> Txn {
    let mut txn = Txn::default();
    let mut rest = body;
    while let Some((line, behind)) = rest.split_first() {
        let depth = |line: &str| line.len() - line.trim_start().len();
        let deeper = behind.iter().take_while(|below| depth(below) > depth(line)).count();
        let (nested, next) = behind.split_at(deeper);
        rest = next;
        let (kind, words) =
            line.trim().split_once(' ').expect("a line of a transaction says if, then or else");
        let (kind, times) = kind.split_once('*').unwrap_or((kind, "1"));
        let step = || if words == "txn" { Operation::Txn(self::txn(nested)) } else { operation(words) };
        for _ in 0..number(times) {
            match kind {
                "if" => txn.compares.push(compare(words)),
                "then" => txn.success.push(step()),
                "else" => txn.failure.push(step()),
                other => panic!("no part of a transaction is called {other}"),
            }
        }
    }
    txn
}

fn operation(line: &str) -> Operation {
    let words: Vec<&str> = line.split(' ').collect();
    let word = |name: &str| words.iter().find_map(|word| word.strip_prefix(name));
    let option = |name: &str| word(name).map_or(0, number);
    let has = |name: &str| words.contains(&name);
    let wants_previous = has("prev");
    match words[0] {
        "put" => Operation::Put(Put {
            lease: LeaseId(option("lease=")),
            wants_previous,
            keeps_value: has("keep-value"),
            keeps_lease: has("keep-lease"),
            ..Put::new(bytes(words[1]), bytes(words[2]))
        }),
        "delete" => Operation::DeleteRange(DeleteRange { range: range(words[1]), wants_previous }),
        "range" => Operation::Range(Range {
            range: range(words[1]),
            limit: option("limit="),
            revision: Revision(option("rev=")),
            sort: word("up=")
                .map(|by| sort(by, SortOrder::Ascending))
                .or_else(|| word("down=").map(|by| sort(by, SortOrder::Descending))),
            filter: Filter {
                mod_min: Revision(option("mod>=")),
                mod_max: Revision(option("mod<=")),
                create_min: Revision(option("create>=")),
                create_max: Revision(option("create<=")),
            },
            keys_only: has("keys"),
            count_only: has("count"),
            part_bytes_max: None,
        }),
        other => panic!("no operation is called {other}"),
    }
}

fn sort(by: &str, order: SortOrder) -> Sort {
    let by = match by {
        "key" => SortBy::Key,
        "version" => SortBy::Version,
        "create" => SortBy::Create,
        "mod" => SortBy::Mod,
        "value" => SortBy::Value,
        other => panic!("nothing is sorted by {other}"),
    };
    Sort { by, order }
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
        Outcome::Compacted => text.push_str("compacted"),
        Outcome::SpaceAlarm(alarm) => text.push_str(if alarm.is_raised { "raised" } else { "called off" }),
        Outcome::Lease(LeaseOutcome::Listed(leases)) => {
            write!(text, "{} leases", leases.len()).expect("a string takes all");
        }
        Outcome::Lease(LeaseOutcome::Granted(Grant { lease, ttl_ms })) => {
            write!(text, "granted {lease} for {ttl_ms} ms").expect("a string takes all");
        }
        Outcome::Lease(LeaseOutcome::Renewed(Renewed { ttl_ms })) => {
            write!(text, "renewed for {ttl_ms} ms").expect("a string takes all");
        }
        Outcome::Lease(outcome) => write!(text, "{outcome:?}").expect("a string takes all"),
        Outcome::Txn(result) => text.push_str(&show_txn(result, "")),
    }
    text
}

fn show_leases(store: &Store) -> String {
    let one = |(id, lease): (LeaseId, &Lease)| {
        let keys: Vec<String> = lease.keys().map(|key| key.escape_ascii().to_string()).collect();
        let keys = keys.join(" ");
        format!("\n  {id}#{}: {} of {} ms [{keys}]", lease.grant, lease.remaining_ms, lease.ttl_ms)
    };
    store.leases().map(one).collect()
}

fn show_txn(result: &TxnResult, indent: &str) -> String {
    let mut text = if result.succeeded { "succeeded".to_owned() } else { "failed".to_owned() };
    let indent = format!("{indent}  ");
    for result in &result.results {
        write!(text, "\n{indent}{}", show_result(result, &indent)).expect("a string takes all");
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
        OperationResult::Txn(result) => (show_txn(result, indent), &[][..]),
    };
    for pair in pairs {
        write!(text, "\n{indent}  {}", show_pair(pair)).expect("a string takes all");
    }
    text
}

fn show_pair(pair: &KeyValue) -> String {
    let KeyValue { key, value, create_revision, mod_revision, version, lease } = pair;
    let (key, value) = (key.escape_ascii(), value.escape_ascii());
    let lease = if *lease == LeaseId(0) { String::new() } else { format!(" {lease}") };
    format!("{key}={value} create={create_revision} mod={mod_revision} version={version}{lease}")
}
