//! The last resort: the log of every member is cut before one entry.

use crate::support::{PATIENCE, cluster, run, text};
use mainstay::cli::workload::client;
use mainstay::kv::Outcome;
use rustix::process::Signal;

/// What a key holds, as one character.
fn value(endpoints: &[std::net::SocketAddr], key: &'static str) -> Option<bytes::Bytes> {
    let applied = client(endpoints, PATIENCE).get(key).expect("the cluster serves");
    let Outcome::Range(range) = applied.outcome else { panic!("{applied:?}") };
    range.pairs.first().map(|pair| pair.value.clone())
}

#[test]
fn a_cluster_goes_on_without_the_entries_that_were_cut_off_every_log() {
    let mut cluster = cluster(3);
    let endpoints = cluster.endpoints();
    let mut writer = client(&endpoints, PATIENCE);
    writer.put("kept", "1").expect("written");
    let member = &cluster.members[0];
    let (data, kept) = (member.data.display().to_string(), {
        let leader = cluster.leader(PATIENCE).expect("somebody leads");
        leader.1.commit_index.0
    });
    writer.put("dropped", "2").expect("written");
    let line = |data: &str, more: &[&str]| {
        let index = (kept + 1).to_string();
        run(&[&["recover", "--data", data, "--stop-before", &index], more].concat())
    };
    let running = line(&data, &[]);
    assert_eq!(running.status.code(), Some(1), "{running:?}");
    assert!(text(&running.stderr).contains("in use"), "{running:?}");

    for member in &mut cluster.members {
        member.signal(Signal::TERM);
    }
    for member in &mut cluster.members {
        member.wait_end(PATIENCE).expect("it ends");
    }
    let shown = line(&data, &[]);
    assert!(shown.status.success() && text(&shown.stdout).contains("dropped"), "{shown:?}");
    assert!(text(&shown.stdout).contains("Nothing was changed"), "{shown:?}");
    let all: Vec<String> = cluster.members.iter().map(|member| member.data.display().to_string()).collect();
    for data in &all {
        let done = line(data, &["--force", "--drop-committed"]);
        assert!(done.status.success(), "{done:?}");
        let again = line(data, &["--force", "--drop-committed"]);
        assert_eq!(again.status.code(), Some(1), "there is nothing left to cut: {again:?}");
        let whole = run(&["inspect", "wal", data, "--summary"]);
        assert!(whole.status.success(), "{}", text(&whole.stdout));
    }
    for position in 0..3 {
        cluster.launch(position).expect("it starts");
    }
    for position in 0..3 {
        cluster.wait_ready(position, PATIENCE).expect("it serves");
    }
    assert_eq!(value(&endpoints, "kept").as_deref(), Some(&b"1"[..]));
    assert_eq!(value(&endpoints, "dropped"), None);
    client(&endpoints, PATIENCE).put("dropped", "3").expect("it goes on");
    assert_eq!(value(&endpoints, "dropped").as_deref(), Some(&b"3"[..]));
}
