//! The commands that stand on clusters, and the client that was written from the document.

use crate::support::{Load, PATIENCE, cluster, leader, run, text};
use std::process::Command;

#[test]
fn the_demo_kills_the_leader_loses_nothing_and_says_so_in_json() {
    let output = run(&["demo", "--members", "3", "--seconds", "8", "--kill-leader", "--json"]);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    let summary: serde_json::Value = serde_json::from_str(&stdout).expect("one JSON object and nothing else");
    let mut keys: Vec<&str> = summary.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    let documented =
        ["acked_lost", "failover_ms", "members", "seconds", "write_p50_ms", "write_p99_ms", "writes"];
    assert_eq!(keys, documented);
    assert_eq!(summary["acked_lost"], 0, "{summary}");
    assert!(summary["writes"].as_u64() > Some(0), "{summary}");
    assert!(summary["failover_ms"].is_u64(), "{summary}");
}

#[test]
fn the_log_of_an_ended_member_can_be_inspected() {
    let mut cluster = cluster(1);
    let load = Load::start(&cluster, "inspect");
    load.wait_for(20);
    let ledgers = load.stop();
    assert_eq!(cluster.end(PATIENCE), Vec::<String>::new());
    let data = cluster.members[0].data.display().to_string();
    let output = run(&["inspect", "wal", &data, "--json"]);
    assert!(output.status.success(), "{}", text(&output.stdout));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert!(report["entries"].as_u64() >= Some(ledgers.acked_count()), "{}", report["entries"]);
    assert_eq!(report["is_sound"], true);
    let output = run(&["inspect", "wal", &data]);
    assert!(text(&output.stdout).contains("put \"inspect/000/000000000001\""));
}

#[test]
fn the_client_written_from_the_document_writes_and_reads() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/golden/client.py");
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: there is no python3 on this machine");
        return;
    }
    let cluster = cluster(3);
    for endpoint in cluster.endpoints() {
        let output = Command::new("python3").arg(script).arg(endpoint.to_string()).output();
        let output = output.expect("python starts");
        assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    }
}

#[test]
fn a_follower_says_how_old_its_answer_may_be() {
    let cluster = cluster(3);
    let follower = cluster.members[(leader(&cluster) + 1) % 3].native.to_string();
    let get = |bound: &[&str]| {
        let words = ["get", "color", "--endpoints", &follower, "--json", "--timeout", "2s"];
        run(&[&words, bound].concat())
    };
    let put = run(&["put", "color", "blue", "--endpoints", &follower, "--json"]);
    let put: serde_json::Value = serde_json::from_slice(&put.stdout).expect("one JSON object");
    let revision = put["header"]["revision"].to_string();
    for bound in [
        ["--max-age", "1s"].as_slice(),
        &["--max-age", "1ms", "--or-ask-leader"],
        &["--min-revision", &revision],
        &["--min-revision", &revision, "--or-ask-leader"],
    ] {
        let output = get(bound);
        assert!(output.status.success(), "{bound:?}: {}{}", text(&output.stdout), text(&output.stderr));
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        assert_eq!(answer["count"], 1, "{bound:?}: {answer}");
        // The first read that the member refused made it ask, so it knows; or the leader was asked.
        let age = answer["header"]["age_ms"].as_f64().expect("it is known");
        assert!(age <= 1_000.0 || bound[0] != "--max-age", "{bound:?}: {answer}");
    }
    let output = get(&["--min-revision", "1000000"]);
    let problem: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((output.status.code(), &problem["error"]["code"]), (Some(1), &"too-old".into()), "{problem}");
}
