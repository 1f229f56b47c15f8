//! A small load on one real member: it ends by itself, counts what was acknowledged, and prints what it promises.

use serde_json::Value;
use std::process::{Command, Output};

/// Runs a command of bench-harness, which builds the binary of mainstay itself if that is not up to date.
fn harness(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench-harness"));
    command.args(arguments.split(' ')).output().expect("it runs")
}

fn json_of(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stdout);
    let heard = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "it failed: {said}\n{heard}");
    assert_eq!(said.lines().count(), 1, "one line of JSON and nothing else: {said}");
    serde_json::from_str(&said).expect("JSON")
}

#[test]
fn a_load_on_one_member_says_what_it_promises() {
    let arguments =
        "load --members 1 --op mixed --connections 4 --depth 4 --seconds 1 --warmup 0 --keys 100 --json";
    let report = json_of(&harness(arguments));
    for figure in [
        "/ops_per_s",
        "/latency_ms/p50",
        "/latency_ms/p90",
        "/latency_ms/p99",
        "/latency_ms/p999",
        "/latency_ms/max",
        "/server_cpu_us_per_op",
        "/client_cpu_us_per_op",
        "/server_context_switches_per_op",
        "/machine_cpu_us_per_op",
        "/raw_dsync_us/p50",
        "/raw_dsync_us/p99",
        "/scheduler_hiccup_us/p99",
        "/machine/cores",
        "/by_member/0/cpu_us_per_op",
    ] {
        let found = report.pointer(figure).and_then(Value::as_f64);
        assert!(found.is_some_and(|figure| figure > 0.0), "{figure} is {found:?} in {report}");
    }
    assert_eq!(report["errors"], 0, "{report}");
    assert_eq!(report["by_member"][0]["role"], "leader");
    assert!(report.get("commit").is_some());
    assert_eq!(report["target"], "mainstay");
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let arguments =
        "load --members 1 --rate 200 --connections 2 --depth 64 --seconds 1 --warmup 1 --keys 100 --json";
    let report = json_of(&harness(arguments));
    let rate = report["ops_per_s"].as_f64().expect("a number");
    // Two hundred are due; a starved machine answers some of them after the second is over.
    assert!((1.0..=400.0).contains(&rate), "{report}");
    assert_eq!(report["errors"], 0, "{report}");
}

#[test]
fn watchers_are_told_every_write_once() {
    let arguments = "load --op watch --watchers 5 --watch-connections 2 --members 1 --rate 100 --connections 2 --seconds 1 \
                     --warmup 0 --keys 10 --json";
    let report = json_of(&harness(arguments));
    let watch = &report["watch"];
    assert_eq!((&watch["lost"], &watch["repeated"]), (&0.into(), &0.into()), "{report}");
    assert!(watch["deliveries"].as_u64().is_some_and(|count| count > 0), "{report}");
}

#[test]
fn what_does_not_go_together_is_refused_in_so_many_words() {
    let output = harness("load --target etcd --protocol native");
    assert!(String::from_utf8_lossy(&output.stderr).contains("use --protocol grpc"));
}

#[test]
fn a_load_that_reaches_nobody_fails_and_says_whom() {
    // Port 1 of loopback is nobody's.
    let output = harness("load --endpoints 127.0.0.1:1 --seconds 1");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no connection to 127.0.0.1:1"));
}

#[test]
fn two_systems_are_compared_pair_by_pair() {
    let page = std::env::temp_dir().join(format!("mainstay-compare-{}.html", std::process::id()));
    let arguments =
        "compare --target mainstay,mainstay --repeat 1 --members 1 --connections 2 --seconds 1 --warmup 0";
    let report = json_of(&harness(&format!("{arguments} --json --html {}", page.display())));
    assert_eq!(report["targets"], serde_json::json!(["mainstay", "mainstay"]));
    let pair = &report["pairs"][0];
    let figure = |run: &str| pair[run]["ops_per_s"].as_f64().expect("a number");
    let ratio = pair["ratio"]["ops_per_s"].as_f64().expect("a number");
    assert!((figure("first") / figure("second") - ratio).abs() < 1e-9, "{pair}");
    assert_eq!(report["median_ratio"], pair["ratio"]);
    let text = std::fs::read_to_string(&page).expect("the page was written");
    std::fs::remove_file(&page).expect("it can be removed");
    assert!(text.starts_with("<!doctype html>") && text.contains("<polyline"));
}

#[test]
fn an_etcd_that_is_not_installed_is_missed_with_advice() {
    let output = harness("load --target etcd --etcd-bin /nowhere/etcd --members 1 --seconds 1");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("scripts/get-etcd.sh"));
}
