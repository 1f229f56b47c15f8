//! What people get wrong: each gives an error, or a state, that says what to do.

use crate::support::{Load, PATIENCE, Scratch, assert_nothing_lost, cluster, leader, pause, run, text};
use mainstay::cli::cluster::{LocalCluster, LocalMember};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// The command line of a member, with some flags given another value.
fn line_with(cluster: &LocalCluster, changes: &[(&str, &str)]) -> Vec<String> {
    let mut line = cluster.command_line(0);
    for (flag, value) in changes {
        let position = line.iter().position(|word| word == flag).expect("the flag is there");
        (*value).clone_into(&mut line[position + 1]);
    }
    line
}

/// Runs it to its end, which must be this exit code; returns what it wrote to stderr.
#[track_caller]
fn refusal_of(line: &[String], code: i32) -> String {
    let output = run(&line.iter().map(String::as_str).collect::<Vec<_>>());
    let words = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{line:?}: {words}");
    words
}

#[test]
fn a_wrong_command_line_is_refused_with_what_to_write_instead() {
    let cluster = LocalCluster::prepare(crate::support::options(1)).expect("laid out");
    let mut line = cluster.command_line(0);
    line.extend(["--electoin-ms".to_owned(), "500".to_owned()]);
    let words = refusal_of(&line, 2);
    assert!(words.contains("--election-ms"), "{words}");
    let words = refusal_of(&line_with(&cluster, &[("--listen-native", "0.0.0.0:0")]), 2);
    assert!(words.contains("--insecure"), "{words}");
    let words = refusal_of(&line_with(&cluster, &[("--name", "n7")]), 2);
    assert!(words.contains("--initial-cluster"), "{words}");
}

#[test]
fn an_unknown_key_in_the_file_is_refused_by_start_and_by_config_check() {
    let scratch = Scratch::new("file");
    let file = scratch.path().join("m.toml");
    std::fs::write(&file, "name = \"n1\"\nelecton-ms = 300\n").expect("written");
    let file = file.to_str().expect("UTF-8");
    for line in [vec!["start", "--config", file], vec!["config", "check", "--config", file]] {
        let words = refusal_of(&line.iter().map(ToString::to_string).collect::<Vec<_>>(), 2);
        assert!(words.contains("electon-ms") && words.contains("election-ms"), "{words}");
    }
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let scratch = Scratch::new("directory");
    let file = scratch.path().join("file");
    std::fs::write(&file, "").expect("written");
    let below = file.join("data");
    let cluster = LocalCluster::prepare(crate::support::options(1)).expect("laid out");
    let words = refusal_of(&line_with(&cluster, &[("--data", below.to_str().expect("UTF-8"))]), 1);
    assert!(words.contains(below.to_str().expect("UTF-8")) && words.contains("check"), "{words}");
}

#[test]
fn a_second_process_on_a_directory_is_refused() {
    let cluster = cluster(1);
    let other = LocalCluster::prepare(crate::support::options(1)).expect("laid out");
    let data = cluster.members[0].data.display().to_string();
    let words = refusal_of(&line_with(&other, &[("--data", &data)]), 1);
    assert!(words.contains("in use") && words.contains(&data), "{words}");
    assert!(cluster.members[0].status().is_some(), "the first goes on");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let cluster = LocalCluster::prepare(crate::support::options(1)).expect("laid out");
    let words = refusal_of(&line_with(&cluster, &[("--listen-native", &address)]), 1);
    assert!(words.contains(&address), "{words}");
}

#[test]
fn a_member_does_not_take_over_another_members_directory() {
    let mut cluster = cluster(3);
    cluster.members[1].kill();
    cluster.members[0].kill();
    let data = cluster.members[1].data.display().to_string();
    let words = refusal_of(&line_with(&cluster, &[("--data", &data)]), 1);
    assert!(words.contains("belongs to") && words.contains("own name"), "{words}");
}

#[test]
fn a_member_whose_directory_was_emptied_says_so_and_counts_for_nothing() {
    let mut cluster = cluster(3);
    let load = Load::start(&cluster, "emptied");
    load.wait_for(100);
    let emptied = (leader(&cluster) + 1) % 3;
    cluster.members[emptied].kill();
    std::fs::remove_dir_all(&cluster.members[emptied].data).expect("emptied");
    cluster.launch(emptied).expect("it starts");
    let began = Instant::now();
    let words = loop {
        assert!(
            began.elapsed() < PATIENCE,
            "it says what it waits for: {}",
            cluster.members[emptied].log_end()
        );
        match cluster.members[emptied].status() {
            Some(status) if status.waiting_for.contains("add it again") => break status.waiting_for,
            Some(_) | None => pause(),
        }
    };
    load.wait_for(100);
    assert!(cluster.wait_ready(emptied, Duration::from_secs(2)).is_err(), "it is not ready: {words}");
    assert_nothing_lost(&cluster, &load.stop());
    // It must not help to elect anybody either: with another member down there is no majority.
    let other =
        (0..3).find(|&position| position != emptied && position != leader(&cluster)).expect("a third");
    cluster.members[other].kill();
    let began = Instant::now();
    while cluster.members.iter().filter_map(LocalMember::status).any(|status| status.leader.is_some()) {
        assert!(began.elapsed() < PATIENCE, "nobody leads with one sound voter of three");
        pause();
    }
    cluster.restart(other, PATIENCE).expect("it comes back");
    leader(&cluster);
}

#[test]
fn a_cpu_that_this_process_may_not_use_is_named() {
    let cluster = LocalCluster::prepare(crate::support::options(1)).expect("laid out");
    let mut line = cluster.command_line(0);
    line.extend(["--cpus".to_owned(), "1000".to_owned()]);
    let words = refusal_of(&line, 1);
    assert!(words.contains("1000") && words.contains("may run on"), "{words}");
}
