//! Commands of the command line on a cluster whose leader was killed a moment ago: each comes to its end.

use crate::support::{PATIENCE, Scratch, binary, cluster, leader, pause, revision_without, run, text};
use mainstay::cli::cluster::LocalCluster;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

fn endpoints(cluster: &LocalCluster) -> String {
    cluster.endpoints().iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Runs a command of which everything is to be well.
fn ask(at: &str, arguments: &[&str]) -> Output {
    let end = arguments.iter().position(|word| *word == "--").unwrap_or(arguments.len());
    let (words, command) = arguments.split_at(end);
    let output = run(&[words, &["--timeout", "30s", "--endpoints", at], command].concat());
    assert!(output.status.success(), "{arguments:?}: {} {}", text(&output.stdout), text(&output.stderr));
    output
}

#[test]
fn every_command_works_across_a_leader_that_is_killed() {
    let scratch = Scratch::new("killed-leader");
    let file = scratch.path().join("saved.snap");
    let file = file.to_str().expect("UTF-8");
    let mut cluster = cluster(3);
    let at = endpoints(&cluster);
    for value in ["1", "2", "3", "4"] {
        ask(&at, &["put", "key", value]);
    }
    ask(&at, &["lease", "grant", "600", "--id", "7b"]);
    let commands: [&[&str]; 6] = [
        &["compact", "4"],
        &["snapshot", "save", file],
        &["lease", "keep-alive", "7b", "--once"],
        &["lease", "revoke", "7b"],
        &["lock", "door", "--", "true"],
        &["watch", "key", "--rev", "4", "--count", "1"],
    ];
    for command in commands {
        let killed = leader(&cluster);
        cluster.members[killed].kill();
        ask(&at, command);
        cluster.restart(killed, PATIENCE).expect("it comes back");
    }
    assert_eq!(text(&ask(&at, &["get", "key", "--rev", "4", "--print-value-only"]).stdout), "3\n");
    assert!(!run(&["get", "key", "--rev", "3", "--endpoints", &at]).status.success(), "it is compacted");
    let verified = run(&["snapshot", "verify", file]);
    assert!(verified.status.success(), "{}", text(&verified.stdout));
}

/// A command that runs on, and the file with what it printed.
struct Running {
    child: Child,
    printed: PathBuf,
}

impl Running {
    fn start(directory: &Path, name: &str, at: &str, arguments: &[&str]) -> Self {
        let printed = directory.join(name);
        let mut command = Command::new(binary());
        command.args(arguments).args(["--timeout", "30s", "--endpoints", at]).stdin(Stdio::null());
        command.stdout(File::create(&printed).expect("made")).stderr(Stdio::null());
        Self { child: command.spawn().expect("the binary starts"), printed }
    }

    fn lines(&self) -> Vec<String> {
        let printed = std::fs::read_to_string(&self.printed).expect("it is there");
        printed.lines().map(str::to_owned).collect()
    }

    /// Waits until it has printed this line.
    fn wait_for(&self, line: &str) {
        let began = Instant::now();
        while !self.lines().iter().any(|printed| printed == line) {
            assert!(began.elapsed() < PATIENCE, "{line:?} is printed; so far: {:?}", self.lines());
            pause();
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn whoever_is_elected_leads_on_when_the_members_leader_is_killed_and_every_successor_is_told() {
    let scratch = Scratch::new("elections");
    let mut cluster = cluster(3);
    let at = endpoints(&cluster);
    let candidate =
        |value: &str| Running::start(scratch.path(), value, &at, &["elect", "post", value, "--ttl", "60s"]);
    let first = candidate("one");
    first.wait_for("one");
    let listener = Running::start(scratch.path(), "listener", &at, &["elect", "post", "--listen"]);
    listener.wait_for("one");
    let second = candidate("two");

    let killed = leader(&cluster);
    cluster.members[killed].kill();
    let revision = revision_without(&cluster, killed);
    first.signal(Signal::INT);
    second.wait_for("two");
    listener.wait_for("two");
    cluster.restart(killed, PATIENCE).expect("it comes back");
    second.signal(Signal::INT);
    // Each of them leads for an instant only.
    for value in ["three", "four", "five"] {
        ask(&at, &["elect", "post", value, "--", "true"]);
    }
    listener.wait_for("five");
    let lines = listener.lines();
    let (mut names, mut fences) = (Vec::new(), Vec::new());
    for shown in lines.chunks(3) {
        names.push(shown[1].as_str());
        fences.push(shown[2].strip_prefix("fence ").expect("a token").parse::<u64>().expect("a number"));
    }
    assert_eq!(names, ["one", "two", "three", "four", "five"], "nobody is passed over");
    assert!(fences.is_sorted_by(|before, after| before < after), "tokens grow: {fences:?}");
    assert!(fences[0] <= revision, "the first one led before the kill");
}
