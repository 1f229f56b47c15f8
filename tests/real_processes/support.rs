//! What the tests share: clusters, writers, and runs of the binary.

use mainstay::api::ReadMode;
use mainstay::cli::cluster::{ClusterOptions, LocalCluster};
use mainstay::cli::workload::{Ledgers, Workload, Written, client};
use mainstay::kv::{KeyRange, Query, Range};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a machine that is not broken.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Threads that write.
pub(crate) const WRITERS: usize = 4;

pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_mainstay"))
}

pub(crate) fn options(members_count: u16) -> ClusterOptions {
    ClusterOptions::new(binary(), members_count).with_generous_timeouts()
}

/// A cluster that serves.
pub(crate) fn cluster(members_count: u16) -> LocalCluster {
    match LocalCluster::start(options(members_count), PATIENCE) {
        Ok(cluster) => cluster,
        Err(error) => panic!("{error}"),
    }
}

/// Lets a moment pass between two looks at something that is waited for: nobody unparks this thread.
pub(crate) fn pause() {
    std::thread::park_timeout(Duration::from_millis(20));
}

/// Runs the binary to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().expect("the binary starts")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The position of the member that leads.
pub(crate) fn leader(cluster: &LocalCluster) -> usize {
    cluster.leader(PATIENCE).expect("somebody leads").0
}

/// The revision that a linearizable read sees.
pub(crate) fn revision(cluster: &LocalCluster) -> u64 {
    revision_through(&cluster.endpoints(), PATIENCE)
}

/// The same, asked of anybody but the member at `position`.
pub(crate) fn revision_without(cluster: &LocalCluster, position: usize) -> u64 {
    let mut endpoints = cluster.endpoints();
    endpoints.remove(position);
    revision_through(&endpoints, PATIENCE)
}

/// The same, asked of the member at `position` first.
pub(crate) fn revision_of(cluster: &LocalCluster, position: usize, patience: Duration) -> u64 {
    revision_through(&[cluster.members[position].native], patience)
}

fn revision_through(endpoints: &[SocketAddr], patience: Duration) -> u64 {
    let range = Range { count_only: true, ..Range::new(KeyRange::Key("nothing".into())) };
    let mut client = client(endpoints, patience);
    client.read(Query::Range(range), ReadMode::Linearizable).expect("the cluster serves").revision.0
}

/// Writers, and what they have seen.
pub(crate) struct Load {
    workload: Workload,
    written: Receiver<Written>,
}

impl Load {
    pub(crate) fn start(cluster: &LocalCluster, prefix: &str) -> Self {
        let (workload, written) = Workload::start(&cluster.endpoints(), WRITERS, prefix);
        Self { workload, written }
    }

    /// Waits until `count` writes that were begun from now on are acknowledged.
    pub(crate) fn wait_for(&self, count: usize) {
        let began = Instant::now();
        let mut acked_count = 0;
        while acked_count < count {
            let written =
                self.written.recv_timeout(PATIENCE).expect("writes come to an end, one way or another");
            if written.began >= began && written.failure.is_none() {
                acked_count += 1;
            }
            assert!(began.elapsed() < PATIENCE, "writes go on; the last: {:?}", written.failure);
        }
    }

    pub(crate) fn stop(self) -> Ledgers {
        self.workload.stop()
    }
}

/// Everything acknowledged is there, once, and nothing else is.
#[track_caller]
pub(crate) fn assert_nothing_lost(cluster: &LocalCluster, ledgers: &Ledgers) {
    let mut client = client(&cluster.endpoints(), PATIENCE);
    let verdict = ledgers.verify(&mut client).expect("the cluster serves reads");
    assert!(verdict.acked > 0, "something was written");
    assert!(verdict.is_kept(), "{verdict:?}");
}

/// A directory that is removed again.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mainstay-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("made");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
