//! `mainstay status`: the whole cluster in one table, and in words what is wrong with it.
//!
//! Every endpoint named is asked at once; their answers name the other members, and those are asked too. Nothing
//! here needs a quorum. Always: a member that does not answer is in the table nevertheless; exit code 0 means that
//! there is nothing to warn of. Left out: what only a person can judge, such as how much lag is too much.

use super::client_args::ClientArgs;
use super::output::{Format, json_line, print, table, usage};
use crate::api::{MemberView, Request, Response, Role, Stage, Status};
use crate::client::{Connection, Trouble};
use crate::ids::{ClusterId, MemberId};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

pub(super) const EXAMPLES: &str = "\
Examples:
  mainstay status
  mainstay status --endpoints 10.0.0.1:2378 --timeout 2s
  mainstay status --json

One endpoint is enough: it names the others, and each is asked. It works without a quorum, too.
Exit codes: 0 healthy; 1 there are warnings, or no member answered; 2 the arguments were not understood.";

/// The arguments of `mainstay status`.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES, after_help = EXAMPLES)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs what was asked for.
pub(super) fn run(arguments: &StatusArgs) -> ExitCode {
    let endpoints = match arguments.client.endpoints() {
        Ok(endpoints) => endpoints,
        Err(problem) => return usage(&problem),
    };
    let cluster = look(&endpoints, arguments.client.timeout() / 2);
    let report = Report::of(&cluster);
    let text = match arguments.client.format_or(Format::Table) {
        Format::Json => json_line(&report),
        Format::Table => report.table().into_bytes(),
        Format::Simple => report.simple().into_bytes(),
        Format::Fields => report.fields().into_bytes(),
    };
    let printed = print(&text);
    if report.warnings.is_empty() { printed } else { ExitCode::FAILURE }
}

/// What was seen of a cluster.
#[derive(Debug, Default)]
struct Cluster {
    /// What each member that answered says.
    statuses: BTreeMap<MemberId, Status>,
    /// Every member that anybody named, as it was named best.
    members: BTreeMap<MemberId, MemberView>,
    /// What the members that did not answer were met with, by address.
    troubles: BTreeMap<String, String>,
}

impl Cluster {
    fn hear(&mut self, address: String, answer: Result<Status, String>) {
        let status = match answer {
            Ok(status) => status,
            Err(trouble) => {
                self.troubles.insert(address, trouble);
                return;
            }
        };
        for view in &status.members {
            let known = self
                .members
                .entry(view.id)
                .or_insert_with(|| MemberView { id: view.id, ..MemberView::default() });
            for (kept, heard) in [
                (&mut known.name, &view.name),
                (&mut known.native, &view.native),
                (&mut known.client, &view.client),
                (&mut known.peer, &view.peer),
            ] {
                if kept.is_empty() || view.id == status.member {
                    kept.clone_from(heard);
                }
            }
        }
        let view = MemberView { id: status.member, native: address, ..MemberView::default() };
        self.members.entry(status.member).or_insert(view);
        self.statuses.insert(status.member, status);
    }

    fn quorum(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// Who leads, as the members of the newest term say.
    fn leader(&self) -> Option<MemberId> {
        let newest = self.statuses.values().map(|status| status.term).max()?;
        let says = |status: &Status| match status.role {
            Role::Leader => Some(status.member),
            Role::Follower | Role::Candidate => status.leader,
        };
        let mut of_newest = self.statuses.values().filter(|status| status.term == newest);
        let named = of_newest.find_map(says)?;
        // A member that was asked itself knows better than who names it.
        self.statuses
            .get(&named)
            .is_none_or(|status| status.term == newest && status.role == Role::Leader)
            .then_some(named)
    }

    fn name(&self, id: MemberId) -> String {
        let view = self.members.get(&id);
        let named = view.filter(|view| !view.name.is_empty());
        named.map_or_else(|| format!("member {}", id.0), |view| view.name.clone())
    }

    fn warnings(&self) -> Vec<String> {
        if self.statuses.is_empty() {
            let told = self.troubles.iter();
            return told.map(|(address, trouble)| format!("no answer from {address}: {trouble}")).collect();
        }
        let mut warnings = self.warnings_of_members();
        let (answering, all, quorum) = (self.statuses.len(), self.members.len(), self.quorum());
        if self.leader().is_none() {
            warnings.push(format!(
                "there is no leader: writes and linearizable reads wait for one; {answering} of {all} members \
                 answer, and {quorum} are needed to elect one"
            ));
        }
        if answering < quorum {
            warnings.push(format!(
                "no quorum answers: {answering} of {all} members do, and {quorum} are needed; start the others"
            ));
        } else if answering == quorum && answering < all {
            warnings.push(format!(
                "one more loss stops the cluster: {answering} of {all} members answer, and {quorum} are needed"
            ));
        }
        if self.is_full() {
            warnings.push(
                "the keyspace has used up its quota, and takes no puts: delete keys and compact, or start the members \
                 with a larger --quota-bytes"
                    .to_owned(),
            );
        }
        warnings
    }

    /// Whether the member that has applied most sees the alarm raised.
    fn is_full(&self) -> bool {
        let newest = self.statuses.values().max_by_key(|status| status.applied_index);
        let mut counters = newest.iter().flat_map(|status| &status.counters);
        counters.any(|counter| counter.name == "space_alarm" && counter.value > 0)
    }

    fn warnings_of_members(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let clusters = self.statuses.values().map(|status| status.cluster);
        let cluster = clusters.max().unwrap_or_default();
        let mut members: Vec<&MemberView> = self.members.values().collect();
        members.sort_by_key(|view| &view.name);
        for view in members {
            let name = self.name(view.id);
            match self.statuses.get(&view.id) {
                None if view.native.is_empty() => {
                    warnings
                        .push(format!("{name} has not been heard of yet: nobody knows its native address"));
                }
                None => {
                    let trouble = self.troubles.get(&view.native).map_or("no answer", String::as_str);
                    warnings.push(format!("{name} does not answer at {}: {trouble}", view.native));
                }
                Some(status) => {
                    if !status.waiting_for.is_empty() {
                        warnings.push(format!("{name} waits: {}", status.waiting_for));
                    }
                    if status.cluster != cluster && status.cluster != ClusterId(0) {
                        warnings.push(format!("{name} belongs to another cluster, {}", status.cluster.0));
                    }
                    warnings.extend(self.missing_links(status, &name));
                }
            }
        }
        warnings
    }

    /// Connections that a member lacks to members that do answer us.
    fn missing_links(&self, status: &Status, name: &str) -> Vec<String> {
        let is_missing = |view: &&MemberView| {
            !view.is_reachable && view.id != status.member && self.statuses.contains_key(&view.id)
        };
        let missing = status.members.iter().filter(is_missing);
        missing
            .map(|view| format!("{name} has no connection to {}, which does answer here", self.name(view.id)))
            .collect()
    }
}

/// Asks the endpoints, then the members they name.
fn look(endpoints: &[String], patience: Duration) -> Cluster {
    let mut cluster = Cluster::default();
    for (address, answer) in ask_all(endpoints.to_vec(), patience) {
        cluster.hear(address, answer);
    }
    let unheard = cluster.members.values().filter(|view| {
        let is_known = cluster.statuses.contains_key(&view.id) || cluster.troubles.contains_key(&view.native);
        !is_known && !view.native.is_empty()
    });
    let unheard = unheard.map(|view| view.native.clone()).collect();
    for (address, answer) in ask_all(unheard, patience) {
        cluster.hear(address, answer);
    }
    cluster
}

fn ask_all(addresses: Vec<String>, patience: Duration) -> Vec<(String, Result<Status, String>)> {
    let asked: Vec<_> = addresses
        .into_iter()
        .map(|address| {
            let whom = address.clone();
            (address, thread::spawn(move || ask(&whom, patience)))
        })
        .collect();
    let joined = asked.into_iter().map(|(address, asking)| {
        let answer = asking.join().unwrap_or_else(|_| Err("asking it failed".to_owned()));
        (address, answer)
    });
    joined.collect()
}

fn ask(address: &str, patience: Duration) -> Result<Status, String> {
    let asked = Connection::open(address, None, patience / 2)
        .and_then(|mut connection| connection.call(&Request::Status, patience / 2));
    match asked {
        Ok(Response::Status(status)) => Ok(*status),
        Ok(Response::Refused(refusal)) => Err(refusal.to_string()),
        Ok(other) => Err(format!("it answers another question: {other:?}")),
        // The address stands beside it already.
        Err(Trouble::Unreachable { source, .. }) => Err(source.to_string()),
        Err(trouble) => Err(trouble.to_string()),
    }
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    cluster_id: Option<u64>,
    leader: Option<u64>,
    term: Option<u64>,
    members: Vec<MemberReport>,
    warnings: Vec<String>,
}

/// One member; what only itself can tell is missing if it does not answer.
#[derive(Debug, Default, Serialize)]
struct MemberReport {
    name: String,
    id: u64,
    role: Option<&'static str>,
    reachable: bool,
    native: String,
    client: String,
    peer: String,
    last_index: Option<u64>,
    commit_index: Option<u64>,
    applied_index: Option<u64>,
    revision: Option<u64>,
    sync_p50_ms: Option<f64>,
    sync_p99_ms: Option<f64>,
    version: Option<String>,
    stages: Option<Vec<StageReport>>,
    counters: Option<BTreeMap<String, u64>>,
}

/// One stage of the writes of the last one to two minutes.
#[derive(Debug, Serialize)]
struct StageReport {
    name: String,
    count: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl StageReport {
    fn of(stage: &Stage) -> Self {
        Self {
            name: stage.name.clone(),
            count: stage.count,
            p50_ms: millis(stage.p50_micros),
            p99_ms: millis(stage.p99_micros),
            max_ms: millis(stage.max_micros),
        }
    }
}

impl Report {
    fn of(cluster: &Cluster) -> Self {
        let of_member = |view: &MemberView| {
            let seen = MemberReport {
                name: view.name.clone(),
                id: view.id.0,
                native: view.native.clone(),
                client: view.client.clone(),
                peer: view.peer.clone(),
                ..MemberReport::default()
            };
            match cluster.statuses.get(&view.id) {
                Some(status) => seen.told_by(status),
                None => seen,
            }
        };
        let mut members: Vec<MemberReport> = cluster.members.values().map(of_member).collect();
        members.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        let ids = cluster.statuses.values().map(|status| status.cluster.0).filter(|id| *id != 0);
        Self {
            cluster_id: ids.max(),
            leader: cluster.leader().map(|leader| leader.0),
            term: cluster.statuses.values().map(|status| status.term.0).max(),
            members,
            warnings: cluster.warnings(),
        }
    }

    fn table(&self) -> String {
        let heads = [
            "NAME", "ID", "ROLE", "NATIVE", "LAST", "COMMIT", "APPLIED", "LAG", "REVISION", "WATCHES",
            "SYNC P50", "SYNC P99", "VERSION",
        ];
        let rows: Vec<Vec<String>> = self.members.iter().map(|member| member.cells(self)).collect();
        let head = match (self.cluster_id, self.term) {
            (Some(cluster), Some(term)) => format!("cluster {cluster:x}, term {term}\n"),
            (_, _) => String::new(),
        };
        let table = if rows.is_empty() { String::new() } else { table(&heads, &rows) };
        head + &table + &self.stage_table() + &self.warning_lines()
    }

    /// Where the time of the leader's writes went, if there were any.
    fn stage_table(&self) -> String {
        let leader = self.members.iter().find(|member| Some(member.id) == self.leader);
        let stages = leader.and_then(|leader| leader.stages.as_ref());
        let measured: Vec<&StageReport> =
            stages.into_iter().flatten().filter(|stage| stage.count > 0).collect();
        if measured.is_empty() {
            return String::new();
        }
        let time = |millis: f64| format!("{millis} ms");
        let row = |stage: &&StageReport| {
            vec![
                stage.name.clone(),
                stage.count.to_string(),
                time(stage.p50_ms),
                time(stage.p99_ms),
                time(stage.max_ms),
            ]
        };
        let rows: Vec<Vec<String>> = measured.iter().map(row).collect();
        "stages of writes, and reads, at the leader, in the last one to two minutes\n".to_owned()
            + &table(&["STAGE", "COUNT", "P50", "P99", "MAX"], &rows)
    }

    fn simple(&self) -> String {
        let lines = self.members.iter().map(|member| member.cells(self).join(", ") + "\n");
        lines.collect::<String>() + &self.warning_lines()
    }

    fn fields(&self) -> String {
        let json = serde_json::to_value(self).expect("numbers, texts and lists are JSON");
        let mut text = String::new();
        put_fields(&mut text, "", &json);
        text
    }

    fn warning_lines(&self) -> String {
        let lines: Vec<String> =
            self.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
        lines.concat()
    }

    /// The end of the longest log, as far as it is committed.
    fn commit_index(&self) -> u64 {
        self.members.iter().filter_map(|member| member.commit_index).max().unwrap_or(0)
    }
}

impl MemberReport {
    fn told_by(self, status: &Status) -> Self {
        Self {
            role: Some(match status.role {
                Role::Follower => "follower",
                Role::Candidate => "candidate",
                Role::Leader => "leader",
            }),
            reachable: true,
            last_index: Some(status.last_index.0),
            commit_index: Some(status.commit_index.0),
            applied_index: Some(status.applied_index.0),
            revision: Some(status.revision.0),
            sync_p50_ms: Some(millis(status.sync_p50_micros)),
            sync_p99_ms: Some(millis(status.sync_p99_micros)),
            version: Some(status.version.clone()),
            stages: Some(status.stages.iter().map(StageReport::of).collect()),
            counters: Some(
                status.counters.iter().map(|counter| (counter.name.clone(), counter.value)).collect(),
            ),
            ..self
        }
    }

    fn cells(&self, report: &Report) -> Vec<String> {
        let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let time = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value} ms"));
        vec![
            self.name.clone(),
            format!("{:x}", self.id),
            self.role.unwrap_or("unreachable").to_owned(),
            self.native.clone(),
            number(self.last_index),
            number(self.commit_index),
            number(self.applied_index),
            number(self.applied_index.map(|applied| report.commit_index().saturating_sub(applied))),
            number(self.revision),
            number(self.counters.as_ref().and_then(|counters| counters.get("watches").copied())),
            time(self.sync_p50_ms),
            time(self.sync_p99_ms),
            self.version.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }
}

#[allow(clippy::cast_precision_loss)] // a sync of 285 years would be told a microsecond wrong
fn millis(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

/// One line a leaf, such as `"members[0].name" : "n1"`.
fn put_fields(text: &mut String, path: &str, value: &serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            let dot = if path.is_empty() { "" } else { "." };
            for (name, field) in fields {
                put_fields(text, &format!("{path}{dot}{name}"), field);
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                put_fields(text, &format!("{path}[{at}]"), item);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.extend(["\"", path, "\" : ", &value.to_string(), "\n"]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cluster, Report};
    use crate::api::{MemberView, Role, Stage, Status};
    use crate::ids::{ClusterId, LogIndex, MemberId, Term};

    fn view(id: u64) -> MemberView {
        let address = |kind: &str| format!("{kind}{id}");
        MemberView {
            id: MemberId(id),
            name: address("n"),
            native: address("native"),
            client: address("client"),
            peer: address("peer"),
            is_reachable: true,
        }
    }

    fn status(id: u64, role: Role) -> Status {
        Status {
            member: MemberId(id),
            role,
            term: Term(4),
            leader: Some(MemberId(1)),
            commit_index: LogIndex(10),
            applied_index: LogIndex(10),
            cluster: ClusterId(7),
            members: (1..=3).map(view).collect(),
            ..Status::default()
        }
    }

    fn cluster(statuses: Vec<Status>) -> Cluster {
        let mut cluster = Cluster::default();
        for status in statuses {
            cluster.hear(format!("native{}", status.member.0), Ok(status));
        }
        cluster
    }

    fn whole() -> Vec<Status> {
        vec![status(1, Role::Leader), status(2, Role::Follower), status(3, Role::Follower)]
    }

    #[test]
    fn a_whole_cluster_has_nothing_to_warn_of() {
        let report = Report::of(&cluster(whole()));
        assert_eq!(report.warnings, Vec::<String>::new());
        assert_eq!((report.cluster_id, report.leader, report.term), (Some(7), Some(1), Some(4)));
        let names: Vec<&str> = report.members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["n1", "n2", "n3"]);
    }

    #[test]
    fn a_missing_member_is_named_and_so_is_what_it_means() {
        let mut cluster = cluster(whole().into_iter().take(2).collect());
        cluster.hear("native3".to_owned(), Err("connection refused".to_owned()));
        let report = Report::of(&cluster);
        assert_eq!(report.warnings.len(), 2, "{:?}", report.warnings);
        assert_eq!(report.warnings[0], "n3 does not answer at native3: connection refused");
        assert!(report.warnings[1].starts_with("one more loss stops the cluster"), "{:?}", report.warnings);
        assert!(!report.members[2].reachable);
        assert_eq!(report.members[2].role, None);
        assert!(report.table().contains("unreachable"));
    }

    #[test]
    fn a_leader_that_is_gone_is_no_leader_once_nobody_names_it() {
        let orphan = |id| Status { leader: None, term: Term(5), ..status(id, Role::Candidate) };
        let report = Report::of(&cluster(vec![orphan(2), status(1, Role::Leader)]));
        assert_eq!(report.leader, None);
        assert!(report.warnings.iter().any(|warning| warning.starts_with("there is no leader")));
    }

    #[test]
    fn one_member_of_three_is_told_to_be_no_quorum() {
        let lone = Status {
            leader: None,
            waiting_for: "the entries 4 to 9 are damaged".to_owned(),
            ..status(2, Role::Follower)
        };
        let warnings = Report::of(&cluster(vec![lone])).warnings;
        for expected in ["no quorum", "there is no leader", "n2 waits: the entries 4 to 9"] {
            assert!(warnings.iter().any(|warning| warning.starts_with(expected)), "{expected}: {warnings:?}");
        }
    }

    #[test]
    fn a_link_that_is_down_between_two_that_answer_is_named() {
        let mut statuses = whole();
        statuses[1].members[2].is_reachable = false;
        let warnings = Report::of(&cluster(statuses)).warnings;
        assert_eq!(warnings, ["n2 has no connection to n3, which does answer here"]);
    }

    #[test]
    fn nobody_at_all_is_told_by_address() {
        let mut cluster = Cluster::default();
        cluster.hear("a:1".to_owned(), Err("connection refused".to_owned()));
        let report = Report::of(&cluster);
        assert_eq!(report.warnings, ["no answer from a:1: connection refused"]);
        assert_eq!(report.table(), "warning: no answer from a:1: connection refused\n");
    }

    #[test]
    fn the_leaders_stages_stand_below_the_members() {
        let mut statuses = whole();
        let stage = |name: &str, count| Stage { name: name.to_owned(), count, ..Stage::default() };
        statuses[0].stages = vec![Stage { p50_micros: 130, ..stage("log", 7) }, stage("queue", 0)];
        let report = Report::of(&cluster(statuses));
        assert!(report.table().contains("| log   | 7     | 0.13 ms |"), "{}", report.table());
        assert!(!report.table().contains("queue"), "what was not measured is not told");
        let json = serde_json::to_value(&report).expect("it is JSON");
        assert_eq!(json["members"][0]["stages"][0]["count"], 7);
    }

    #[test]
    fn json_has_the_fields_that_scripts_rely_on() {
        let json = serde_json::to_value(Report::of(&cluster(whole()))).expect("it is JSON");
        assert_eq!(json["members"][0]["role"], "leader");
        assert_eq!(json["members"][0]["commit_index"], 10);
        assert_eq!(json["warnings"], serde_json::json!([]));
    }
}
