//! Leases, locks and elections: across a leader that is killed, a hundred thousand at once, and when their holder goes.

use crate::support::{PATIENCE, Scratch, binary, cluster, leader, pause, run, text};
use mainstay::api::{EncodedCommand, Request, Response};
use mainstay::cli::cluster::LocalCluster;
use mainstay::cli::workload::client;
use mainstay::client::{Client, Connection};
use mainstay::ids::{KeyspaceId, LeaseId};
use mainstay::kv::{Applied, Command as Write, Grant, LeaseCommand, LeaseOutcome, Outcome, Put};
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const LEASE: LeaseId = LeaseId(7);

fn endpoints(cluster: &LocalCluster) -> String {
    cluster.endpoints().iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn is_there(client: &mut Client) -> bool {
    match client.get("key").expect("the cluster serves").outcome {
        Outcome::Range(range) => range.count > 0,
        other => panic!("a read was answered {other:?}"),
    }
}

fn keep_alive(client: &mut Client) -> u64 {
    match client.keep_lease_alive(LEASE).expect("the cluster serves").outcome {
        Outcome::Lease(LeaseOutcome::Renewed(renewed)) => renewed.ttl_ms,
        other => panic!("a renewal was answered {other:?}"),
    }
}

#[test]
fn a_lease_lives_on_when_its_leader_is_killed_and_ends_when_nobody_renews_it() {
    let ttl = Duration::from_secs(4);
    let mut cluster = cluster(3);
    let mut client = client(&cluster.endpoints(), PATIENCE);
    let granted = client.grant_lease(LEASE, ttl).expect("granted");
    assert!(matches!(granted, Applied { outcome: Outcome::Lease(LeaseOutcome::Granted(_)), .. }));
    let put = Put { lease: LEASE, ..Put::new("key".into(), "here".into()) };
    client.write(&Write::Put(put)).expect("written");

    // Past half of its time, so that what remains is in the log, and the renewal after that is, too.
    let began = Instant::now();
    while began.elapsed() < ttl * 3 / 4 {
        pause();
    }
    assert_eq!(keep_alive(&mut client), 4_000);
    let renewed = Instant::now();
    let killed = leader(&cluster);
    cluster.members[killed].kill();
    while renewed.elapsed() < ttl / 2 {
        assert!(is_there(&mut client), "it lasts from the renewal on, whoever counts");
        pause();
    }
    assert_eq!(keep_alive(&mut client), 4_000);
    cluster.restart(killed, PATIENCE).expect("the leader of before comes back");

    let sent = Instant::now();
    assert_eq!(keep_alive(&mut client), 4_000);
    while is_there(&mut client) {
        assert!(sent.elapsed() < PATIENCE, "a lease ends when nobody renews it");
        pause();
    }
    assert!(sent.elapsed() >= ttl, "not before its time: after {:?}", sent.elapsed());
    assert_eq!(keep_alive(&mut client), 0);
}

#[test]
fn the_command_line_grants_shows_and_revokes() {
    let cluster = cluster(1);
    let at = endpoints(&cluster);
    let ask = |arguments: &[&str]| {
        let output = run(&[arguments, &["--endpoints", &at]].concat());
        (output.status.code(), text(&output.stdout))
    };
    let said = |code, text: &str| (Some(code), text.to_owned());
    assert_eq!(ask(&["lease", "grant", "600", "--id", "7b"]), said(0, "lease 7b granted with TTL(600s)\n"));
    assert_eq!(ask(&["put", "a", "1", "--lease", "7b"]), said(0, "OK\n"));
    assert_eq!(ask(&["lease", "list"]), said(0, "found 1 leases\n7b\n"));
    assert_eq!(
        ask(&["lease", "keep-alive", "7b", "--once"]),
        said(0, "lease 7b keepalived with TTL(600s)\n")
    );
    let (code, shown) = ask(&["lease", "timetolive", "7b", "--keys", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("one JSON object");
    assert_eq!((code, &shown["ttl_ms"], &shown["keys"][0]), (Some(0), &600_000.into(), &"YQ==".into()));
    assert_eq!(ask(&["lease", "revoke", "7b"]), said(0, "lease 7b revoked\n"));
    assert_eq!(ask(&["get", "a"]), said(0, ""));
    let gone = "lease 7b does not exist, or has expired\n";
    assert_eq!(ask(&["lease", "timetolive", "7b"]), said(1, gone));
    assert_eq!(ask(&["lease", "keep-alive", "7b"]), said(1, gone));
    assert_eq!(ask(&["lease", "revoke", "7b"]).0, Some(1));
}

/// Grants so many leases, side by side.
fn grant_many(address: &str, count: u64, ttl: Duration) {
    let mut connection = Connection::open(address, None, PATIENCE).expect("a connection");
    let ttl_ms = u64::try_from(ttl.as_millis()).expect("a short time");
    let grant = Write::Lease(LeaseCommand::Grant(Grant { lease: LeaseId(0), ttl_ms }));
    let command = EncodedCommand::encode(&grant).expect("a small command");
    let request = Request::Write { keyspace: KeyspaceId::FIRST, stamp: None, command };
    let mut granted = 0;
    let mut asked = 0;
    while granted < count {
        while asked < count && asked - granted < 512 {
            connection.queue(&request).expect("room for it");
            asked += 1;
        }
        connection.flush().expect("sent");
        let (_, response) = connection.receive().expect("an answer");
        let is_granted = matches!(
            &response,
            Response::Applied(Applied { outcome: Outcome::Lease(LeaseOutcome::Granted(_)), .. })
        );
        assert!(is_granted, "{response:?}");
        granted += 1;
    }
}

fn leases_count(client: &mut Client) -> usize {
    match client.leases().expect("the cluster serves").outcome {
        Outcome::Lease(LeaseOutcome::Listed(leases)) => leases.len(),
        other => panic!("a list of leases was answered {other:?}"),
    }
}

#[test]
fn a_hundred_thousand_leases_end_and_no_write_waits_for_them() {
    let count = 100_000;
    let ttl = Duration::from_secs(20);
    let cluster = cluster(3);
    let leader_at = cluster.members[leader(&cluster)].native.to_string();
    let began = Instant::now();
    grant_many(&leader_at, count, ttl);
    let granted = began.elapsed();
    assert!(granted < ttl, "all of them were there before the first could end: {granted:?}");
    let mut client = client(&cluster.endpoints(), PATIENCE);
    assert_eq!(leases_count(&mut client) as u64, count);
    let (mut longest, mut writes) = (Duration::ZERO, 0);
    let mut left = usize::try_from(count).expect("it is small");
    while left > 0 {
        let write = Instant::now();
        client.put("key", "value").expect("written");
        if left < 100_000 {
            longest = longest.max(write.elapsed());
            writes += 1;
        }
        assert!(began.elapsed() < ttl + PATIENCE, "all of them end: {left} are left");
        left = leases_count(&mut client);
    }
    eprintln!(
        "{count} leases granted in {granted:?}; gone {:?} after the last had to end; {writes} writes on the way, the \
         longest {longest:?}",
        began.elapsed().saturating_sub(granted + ttl)
    );
    assert!(longest < Duration::from_secs(1), "a write waited for {longest:?}");
}

/// Starts `mainstay lock`, running `script` while it is held.
fn lock(at: &str, ttl: &str, script: &str) -> Child {
    let words =
        ["lock", "door", "--ttl", ttl, "--timeout", "30s", "--endpoints", at, "--", "sh", "-c", script];
    let mut command = Command::new(binary());
    let child =
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    child.expect("the binary starts")
}

fn end_of(child: Child) -> Output {
    child.wait_with_output().expect("it ends")
}

#[test]
fn a_lock_is_held_by_one_at_a_time_with_growing_tokens_while_the_leader_is_killed() {
    let mut cluster = cluster(3);
    let at = endpoints(&cluster);
    let room = Scratch::new("lock");
    let room = room.path().display();
    // Whoever is inside makes a directory that nobody else may find, and writes down its token.
    let script = format!(
        "mkdir {room}/inside || exit 9; echo $MAINSTAY_FENCE >> {room}/fences; sleep 0.3; rmdir {room}/inside"
    );
    let holders: Vec<Child> = (0..6).map(|_| lock(&at, "20s", &script)).collect();
    let killed = leader(&cluster);
    cluster.members[killed].kill();
    for holder in holders {
        let output = end_of(holder);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    cluster.restart(killed, PATIENCE).expect("it comes back");
    let fences = std::fs::read_to_string(format!("{room}/fences")).expect("they wrote");
    let fences: Vec<u64> = fences.lines().map(|line| line.parse().expect("a token is a number")).collect();
    assert_eq!(fences.len(), 6);
    assert!(
        fences.windows(2).all(|pair| pair[0] < pair[1]),
        "tokens grow in the order of holding: {fences:?}"
    );
}

#[test]
fn a_lock_whose_holder_is_killed_is_free_after_its_time() {
    let cluster = cluster(1);
    let at = endpoints(&cluster);
    let room = Scratch::new("killed");
    let sign = room.path().join("held");
    let mut first =
        lock(&at, "2s", &format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 60", sign.display()));
    let began = Instant::now();
    while !sign.exists() {
        assert!(began.elapsed() < PATIENCE, "the first holds it");
        pause();
    }
    first.kill().expect("killed");
    // Its command is not, and knows nothing of it: that is what the token is for.
    let orphan = std::fs::read_to_string(&sign).expect("it wrote its id").trim().parse().expect("an id");
    kill_process(Pid::from_raw(orphan).expect("not 0"), Signal::KILL).expect("it runs");
    let killed = Instant::now();
    let second = end_of(lock(&at, "2s", "exit 5"));
    assert_eq!(second.status.code(), Some(5), "the exit code is the command's: {}", text(&second.stderr));
    assert!(killed.elapsed() > Duration::from_secs(1), "the lease of the first had to end");
    let _ = first.wait();
    let busy = lock(&at, "30s", "sleep 3");
    while run(&["elect", "door", "--endpoints", &at, "--wait", "100ms", "x", "--", "true"]).status.success() {
        pause();
    }
    assert_eq!(end_of(busy).status.code(), Some(0));
}

/// Whether a process of this id runs: one that was killed and that nobody has asked about yet does not.
fn runs(id: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

#[test]
fn a_command_that_will_not_end_does_not_outlive_its_lock() {
    let mut cluster = cluster(1);
    let at = endpoints(&cluster);
    let room = Scratch::new("outlives");
    let sign = room.path().join("ids");
    // It and what it started ignore that they are told to end.
    let script = format!(
        "trap '' TERM; sleep 120 & echo $$ $! > {0}.new; mv {0}.new {0}; while :; do sleep 0.1; done",
        sign.display()
    );
    let holder = lock(&at, "3s", &script);
    let began = Instant::now();
    while !sign.exists() {
        assert!(began.elapsed() < PATIENCE, "it holds it");
        pause();
    }
    let ids = std::fs::read_to_string(&sign).expect("it wrote them");
    let ids: Vec<i32> = ids.split_whitespace().map(|id| id.parse().expect("an id")).collect();
    assert!(ids.len() == 2 && ids.iter().all(|id| runs(*id)), "{ids:?}");
    // Nobody answers a renewal, which may wait for 30 seconds.
    cluster.members[0].kill();
    let killed = Instant::now();
    while ids.iter().any(|id| runs(*id)) && killed.elapsed() < PATIENCE {
        pause();
    }
    let lived = killed.elapsed();
    for id in ids.iter().filter(|id| runs(**id)) {
        kill_process(Pid::from_raw(*id).expect("not 0"), Signal::KILL).expect("it runs");
    }
    let output = end_of(holder);
    assert!(lived < Duration::from_secs(15), "it outlived its lock of 3 s by far: {lived:?}");
    assert_eq!(output.status.code(), Some(3), "the lock was lost: {}", text(&output.stderr));
}

#[test]
fn an_election_is_won_once_and_the_next_candidate_follows() {
    let cluster = cluster(1);
    let mut first = client(&cluster.endpoints(), PATIENCE);
    let mut second = client(&cluster.endpoints(), PATIENCE);
    let (name, ttl) = ("post".into(), Duration::from_secs(30));
    let leads = first.hold(&name, "one".into(), ttl, Some(PATIENCE)).expect("elected");
    assert!(second.hold(&name, "two".into(), ttl, Some(Duration::from_millis(300))).is_err(), "there is one");
    let holder = second.holder(&name).expect("served").expect("somebody leads");
    assert_eq!((holder.value.as_ref(), holder.create_revision), (&b"one"[..], leads.fence));
    leads.proclaim(&mut first, "still one".into()).expect("it leads");
    let fence = leads.fence;
    leads.clone().release(&mut first).expect("given up");
    let next = second.hold(&name, "two".into(), ttl, Some(PATIENCE)).expect("elected");
    assert!(next.fence > fence, "the fencing token grows");
    assert!(leads.proclaim(&mut first, "late".into()).is_err(), "who was deposed changes nothing");
    assert_eq!(second.holder(&name).expect("served").expect("somebody leads").value, "two");
}
