//! Watches over real connections: the member that serves one is killed, and whoever does not read costs little.

use crate::support::{Load, PATIENCE, assert_nothing_lost, binary, cluster, leader, run, text};
use mainstay::api::{ReadMode, Request, Response, WatchAnswer, WatchRequest};
use mainstay::cli::cluster::LocalCluster;
use mainstay::cli::workload::client;
use mainstay::client::Connection;
use mainstay::ids::{KeyspaceId, Revision};
use mainstay::kv::{KeyRange, Outcome, Put, Query, Range};
use mainstay::watch::{Interest, WatchSpec};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Writes acknowledged before and after each fault.
const WRITES: usize = 200;

/// Bytes of a value that is told again and again.
const VALUE_BYTES: usize = 64 * 1_024;

/// The endpoints, that of the member at `first` before all others.
fn endpoints(cluster: &LocalCluster, first: usize) -> String {
    let mut endpoints: Vec<String> = cluster.endpoints().iter().map(ToString::to_string).collect();
    endpoints.rotate_left(first);
    endpoints.join(",")
}

/// Keys and their revisions in the order in which they were written.
fn written(cluster: &LocalCluster, prefix: &str) -> Vec<(u64, String)> {
    let end = format!("{prefix}0");
    let span = KeyRange::Span { start: format!("{prefix}/").into(), end: end.into() };
    let read = Query::Range(Range { keys_only: true, ..Range::new(span) });
    let applied = client(&cluster.endpoints(), PATIENCE).read(read, ReadMode::Linearizable);
    let Outcome::Range(range) = applied.expect("the cluster serves").outcome else {
        panic!("a range answers a range")
    };
    let pairs = range.pairs.iter().map(|pair| (pair.mod_revision.0, text(&pair.key)));
    let mut written: Vec<_> = pairs.collect();
    written.sort();
    written
}

#[test]
fn a_watch_on_a_leader_that_is_killed_goes_on_elsewhere_without_gap_or_repeat() {
    let mut cluster = cluster(3);
    let killed = leader(&cluster);
    let named = endpoints(&cluster, killed);
    let mut watching = Command::new(binary())
        .args(["watch", "watched/", "--prefix", "--rev", "1", "--endpoints", &named])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let stdout = BufReader::new(watching.stdout.take().expect("it is piped"));

    let load = Load::start(&cluster, "watched");
    load.wait_for(WRITES);
    cluster.members[killed].kill();
    load.wait_for(WRITES);
    cluster.restart(killed, PATIENCE).expect("it comes back");
    load.wait_for(WRITES);
    let ledgers = load.stop();
    let put = run(&["put", "watched/~", "the end", "--endpoints", &endpoints(&cluster, 0)]);
    assert!(put.status.success(), "{}", text(&put.stderr));

    // PUT, the key and the value, a line each.
    let lines = stdout.lines().map(|line| line.expect("it prints lines"));
    let keys = lines.skip(1).step_by(3);
    let mut told = Vec::new();
    for key in keys {
        let is_end = key == "watched/~";
        told.push(key);
        if is_end {
            break;
        }
    }
    watching.kill().expect("it runs");
    let output = watching.wait_with_output().expect("it ends");
    let owed: Vec<String> = written(&cluster, "watched").into_iter().map(|(_, key)| key).collect();
    assert!(owed.len() > 3 * WRITES && told == owed, "told {} of {}", told.len(), owed.len());
    let said = text(&output.stderr);
    assert!(said.contains("watch: lost") && said.contains("goes on from revision"), "{said}");
    assert_nothing_lost(&cluster, &ledgers);
}

#[test]
fn a_watch_tells_history_and_what_is_compacted_ends_it_with_a_reason() {
    let cluster = cluster(1);
    let named = endpoints(&cluster, 0);
    for value in ["one", "two", "three"] {
        assert!(run(&["put", "a", value, "--endpoints", &named]).status.success());
    }
    assert!(run(&["del", "a", "--endpoints", &named]).status.success());
    let watch = |arguments: &[&str]| run(&[&["watch", "a", "--endpoints", &named], arguments].concat());
    let output = watch(&["--rev", "3", "--count", "3", "--prev-kv"]);
    assert_eq!(text(&output.stdout), "PUT\na\none\na\ntwo\nPUT\na\ntwo\na\nthree\nDELETE\na\nthree\na\n\n");
    let output = watch(&["--rev", "2", "--count", "1", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one line of JSON");
    assert_eq!(
        (&told["events"][0]["type"], &told["events"][0]["kv"]["value"]),
        (&"PUT".into(), &"b25l".into())
    );
    assert!(run(&["compact", "4", "--endpoints", &named]).status.success());
    let output = watch(&["--rev", "3"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("error[compacted]"), "{}", text(&output.stderr));
    assert_eq!(text(&watch(&["--rev", "4", "--count", "2"]).stdout), "PUT\na\nthree\nDELETE\na\n\n");
}

#[test]
fn a_watcher_that_reads_nothing_costs_little_and_later_is_told_everything() {
    let cluster = cluster(1);
    let address = cluster.members[0].native.to_string();
    let mut watching = Connection::open(&address, None, PATIENCE).expect("the member serves");
    let spec = WatchSpec {
        interest: Interest::all(KeyRange::From(bytes::Bytes::new())),
        start: Revision(0),
        wants_progress: false,
    };
    let create = Request::Watch(WatchRequest::Create { keyspace: KeyspaceId::FIRST, spec });
    let created = watching.call(&create, PATIENCE).expect("it is answered");
    let Response::Watch(WatchAnswer::Created { revision }) = created else { panic!("{created:?}") };

    let mut writing = client(&cluster.endpoints(), PATIENCE);
    let writes = 1_500;
    for _ in 0..writes {
        let put = Put::new("key".into(), vec![b'x'; VALUE_BYTES].into());
        writing.write(&mainstay::kv::Command::Put(put)).expect("it is written");
    }
    let mut next = revision.next();
    while next.0 <= revision.0 + writes {
        let (_, told) = watching.receive_within(Duration::from_secs(20)).expect("it is told");
        let Response::Watch(WatchAnswer::Told(batch)) = told else { panic!("{told:?}") };
        for event in batch.events {
            assert_eq!(event.pair.mod_revision, next, "in order, nothing twice and nothing left out");
            next = next.next();
        }
    }
}
