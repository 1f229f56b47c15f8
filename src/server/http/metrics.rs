//! Metrics for Prometheus: what a member says of itself, under etcd's names where the thing is the same.

mod process;

use super::respond;
use crate::api::etcd::{ETCD_VERSION, counter};
use crate::api::{Stage, Status};
use crate::server::gateway::Gate;
use axum::http::StatusCode;
use axum::response::Response;
use std::fmt::Write;

/// The answer to `/metrics`.
pub(super) async fn answer(gate: &Gate) -> Response {
    match gate.status().await {
        Ok((_, status)) => respond(StatusCode::OK, "text/plain; version=0.0.4", text(&status)),
        Err(fault) => respond(StatusCode::SERVICE_UNAVAILABLE, "text/plain", fault.text_and_code().0),
    }
}

fn text(status: &Status) -> String {
    let mut text = String::new();
    let mut metric = |kind: &str, name: &str, help: &str, value: u64| {
        // Writing to a string does not fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    let is_leader = status.leader == Some(status.member);
    let bytes = counter(status, "keyspace_bytes");
    for (name, help, value) in [
        ("etcd_server_has_leader", "Whether a leader is known.", u64::from(status.leader.is_some())),
        ("etcd_server_is_leader", "Whether this member leads.", u64::from(is_leader)),
        ("etcd_server_is_learner", "Whether this member is a learner.", 0),
        (
            "etcd_server_quota_backend_bytes",
            "Bytes that the keyspace may take.",
            counter(status, "quota_bytes"),
        ),
        ("etcd_mvcc_db_total_size_in_bytes", "Bytes that the keyspace takes in memory.", bytes),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", "The same: there is no free space in it.", bytes),
        ("etcd_debugging_mvcc_current_revision", "The revision of the store.", status.revision.0),
        (
            "etcd_debugging_mvcc_compact_revision",
            "The revision that was compacted last, or 0.",
            counter(status, "compacted_revision"),
        ),
        ("etcd_debugging_mvcc_watcher_total", "Watches served here.", counter(status, "watches")),
        ("etcd_debugging_lease_total", "Leases.", counter(status, "leases")),
        ("mainstay_raft_term", "The term.", status.term.0),
        ("mainstay_log_last_index", "The end of the log.", status.last_index.0),
        (
            "mainstay_leader_lease_micros",
            "How long this member, as the leader, answers reads alone on one entry; 0 if it does not.",
            counter(status, "leader_lease_micros"),
        ),
        ("mainstay_space_alarm", "Whether the keyspace is full.", counter(status, "space_alarm")),
    ] {
        metric("gauge", name, help, value);
    }
    let (committed, applied) = (status.commit_index.0, status.applied_index.0);
    metric("counter", "etcd_server_proposals_committed_total", "Entries known to be committed.", committed);
    metric("counter", "etcd_server_proposals_applied_total", "Entries applied.", applied);
    let known =
        ["keyspace_bytes", "compacted_revision", "quota_bytes", "leader_lease_micros", "leases", "watches"];
    let is_known = |name: &str| known.contains(&name) || name.starts_with("space_alarm");
    for counter in status.counters.iter().filter(|counter| !is_known(&counter.name)) {
        let name = format!("mainstay_{}_total", counter.name);
        metric("counter", &name, "Counted since the member's start.", counter.value);
    }
    for (kind, name, help, value) in process::told() {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
    times(status, &mut text);
    let _ = write!(
        text,
        "# HELP etcd_server_version The version whose contract is kept.\n# TYPE etcd_server_version gauge\n\
         etcd_server_version{{server_version=\"{ETCD_VERSION}\"}} 1\n\
         # HELP etcd_server_id This member.\n# TYPE etcd_server_id gauge\n\
         etcd_server_id{{server_id=\"{:x}\"}} 1\n",
        status.member.0
    );
    text
}

/// Names of times of reads begin so; how they were answered follows.
const READS: &str = "read_";

/// Where the time of writes went, and how long reads took, in the last one to two minutes.
fn times(status: &Status, text: &mut String) {
    let (reads, writes): (Vec<&Stage>, Vec<&Stage>) =
        status.stages.iter().partition(|stage| stage.name.starts_with(READS));
    let help = "How long the stages of a write took in the last one to two minutes.";
    summary(("mainstay_stage_seconds", help), "stage", &writes, text);
    let help = "How long reads took here in the last one to two minutes, by how they were answered.";
    summary(("mainstay_read_seconds", help), "mode", &reads, text);
}

fn summary((name, help): (&str, &str), label: &str, stages: &[&Stage], text: &mut String) {
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} summary\n");
    for stage in stages {
        let what = stage.name.strip_prefix(READS).unwrap_or(&stage.name);
        for (quantile, micros) in
            [("0.5", stage.p50_micros), ("0.99", stage.p99_micros), ("1", stage.max_micros)]
        {
            let (whole, part) = (micros / 1_000_000, micros % 1_000_000);
            let _ = writeln!(text, "{name}{{{label}=\"{what}\",quantile=\"{quantile}\"}} {whole}.{part:06}");
        }
        let _ = writeln!(text, "{name}_count{{{label}=\"{what}\"}} {}", stage.count);
    }
}
