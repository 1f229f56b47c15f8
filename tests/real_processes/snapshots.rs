//! Members whose log is trimmed, and members that need what was trimmed.

use crate::support::{Load, PATIENCE, assert_nothing_lost, leader, options, run, text};
use mainstay::cli::cluster::{LocalCluster, LocalMember};

/// More entries than any member keeps for another (`HOT_LOG_ENTRIES_MIN`).
const MISSED: usize = 13_000;

fn counter(member: &LocalMember, name: &str) -> u64 {
    let status = member.status().expect("it answers");
    let found = status.counters.iter().find(|counter| counter.name == name);
    found.unwrap_or_else(|| panic!("there is a counter {name}")).value
}

#[test]
fn a_member_that_missed_more_than_is_kept_comes_back_by_a_snapshot() {
    let mut options = options(3);
    options.arguments = vec!["--snapshot-entries".to_owned(), "1000".to_owned()];
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
