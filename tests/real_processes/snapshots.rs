//! Members whose log is trimmed, and members that need what was trimmed.

use crate::support::{Load, PATIENCE, Scratch, assert_nothing_lost, leader, options, run, text};
use mainstay::cli::cluster::{LocalCluster, LocalMember};

/// More entries than any member keeps for another (`HOT_LOG_ENTRIES_MIN`), and so many that a second snapshot, for which twice
/// the first one's bytes must be written, was cut when there were more.
const MISSED: usize = 20_000;

fn counter(member: &LocalMember, name: &str) -> u64 {
    let status = member.status().expect("it answers");
    let found = status.counters.iter().find(|counter| counter.name == name);
    found.unwrap_or_else(|| panic!("there is a counter {name}")).value
}

#[test]
fn a_member_that_missed_more_than_is_kept_comes_back_by_a_snapshot() {
    let mut options = options(3);
    options.arguments = vec!["--snapshot-entries".to_owned(), "4400".to_owned()];
    let mut cluster = LocalCluster::start(options, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    let load = Load::start(&cluster, "snapshot");
    load.wait_for(100);
    let killed = (leader(&cluster) + 1) % 3;
    let seen = cluster.members[killed].status().expect("it answers").last_index.0;
    cluster.members[killed].kill();
    load.wait_for(MISSED);
    let leads = leader(&cluster);
    let base = counter(&cluster.members[leads], "log_base_index");
    assert!(base > seen, "the log was trimmed up to {base}, beyond {seen}, which the killed member had");
    cluster.restart(killed, PATIENCE).expect("it comes back");
    let base = counter(&cluster.members[killed], "log_base_index");
    assert!(base > seen, "its log begins above {base}, so a snapshot was sent");
    load.wait_for(100);
    assert_nothing_lost(&cluster, &load.stop());

    cluster.members[killed].kill();
    let data = cluster.members[killed].data.display().to_string();
    let output = run(&["inspect", "snapshot", &data]);
    assert!(output.status.success() && text(&output.stdout).contains("sound"), "{output:?}");
    let output = run(&["inspect", "wal", &data, "--summary"]);
    assert!(output.status.success(), "{}", text(&output.stdout));
    cluster.restart(killed, PATIENCE).expect("it comes back from its snapshot and its log");
}

#[test]
fn a_snapshot_is_saved_from_a_running_cluster_and_verified() {
    let scratch = Scratch::new("saved");
    let mut options = options(3);
    options.arguments = vec!["--snapshot-entries".to_owned(), "1000".to_owned()];
    let cluster = LocalCluster::start(options, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    let load = Load::start(&cluster, "saved");
    load.wait_for(500);
    let follows = cluster.members[(leader(&cluster) + 1) % 3].native.to_string();
    let file = scratch.path().join("backup.snap");
    let path = file.to_str().expect("UTF-8");
    let written = run(&["put", "--endpoints", &follows, "marker", "in it", "--json"]);
    assert!(written.status.success(), "{written:?}");
    let saved = run(&["snapshot", "save", path, "--endpoints", &follows, "--json"]);
    assert!(saved.status.success(), "{saved:?}");
    load.wait_for(100);
    drop(load.stop());
    let revision = |output: &std::process::Output| {
        let object: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        let told = [&object["revision"], &object["header"]["revision"], &object["opening"]["revision"]];
        told.iter().find_map(|revision| revision.as_u64()).expect("it names the revision")
    };
    assert!(revision(&saved) >= revision(&written), "{saved:?} {written:?}");

    let verified = run(&["snapshot", "verify", path]);
    assert!(verified.status.success() && text(&verified.stdout).contains("sound"), "{verified:?}");
    let verified = run(&["snapshot", "verify", path, "--json"]);
    assert_eq!(revision(&verified), revision(&saved));
    let names: Vec<_> = std::fs::read_dir(scratch.path()).expect("listed").collect();
    assert_eq!(names.len(), 1, "nothing is left beside it: {names:?}");
    let again = run(&["snapshot", "save", path, "--endpoints", &follows]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert!(text(&again.stderr).contains("is there already"), "{again:?}");

    let mut bytes = std::fs::read(&file).expect("read");
    let place = bytes.len() / 2;
    bytes[place] ^= 1;
    std::fs::write(&file, bytes).expect("written");
    let damaged = run(&["snapshot", "verify", path]);
    assert_eq!(damaged.status.code(), Some(1), "{damaged:?}");
    assert!(text(&damaged.stdout).contains("damaged: at byte"), "{damaged:?}");
    assert_eq!(run(&["snapshot", "verify", "/nowhere"]).status.code(), Some(2));
}
