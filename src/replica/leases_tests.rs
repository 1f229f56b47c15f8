//! Stories of leases on a perfect network: when they end, and what a failover leaves of them.

use crate::api::{EncodedCommand, Refusal, Request, Response};
use crate::ids::{KeyspaceId, LeaseId, MemberId, Revision};
use crate::kv::{
    Applied, Command, Grant, LeaseCommand, LeaseLife, LeaseOutcome, Outcome, Put, Renewed, StoreRefusal,
    TimeToLive,
};
use crate::limits::{LEASE_ENDS_WAITING_MAX, LEASES_PER_CHECKPOINT_MAX};
use crate::replica::test_cluster::{Cluster, ELECTION_MICROS, get, put, value_of};
use crate::replica::{Input, Shard};
use bytes::Bytes;

const LEASE: LeaseId = LeaseId(7);
const SECOND: u64 = 1_000_000;

fn write(command: &Command) -> Request {
    let command = EncodedCommand::encode(command).expect("a small command");
    Request::Write { keyspace: KeyspaceId::FIRST, stamp: None, command }
}

fn grant(lease: LeaseId, ttl_ms: u64) -> Request {
    write(&Command::Lease(LeaseCommand::Grant(Grant { lease, ttl_ms })))
}

fn outcome(response: Response) -> Outcome {
    let Response::Applied(Applied { outcome, .. }) = response else {
        panic!("expected an answer of the store, got {response:?}")
    };
    outcome
}

/// A cluster with a lease of `ttl_ms` and a key that goes with it.
fn with_lease(ttl_ms: u64) -> Cluster {
    let mut cluster = Cluster::of(3);
    cluster.advance(3 * ELECTION_MICROS);
    let leader = cluster.leader();
    let granted = outcome(cluster.ask(leader, grant(LEASE, ttl_ms)));
    assert_eq!(granted, Outcome::Lease(LeaseOutcome::Granted(Grant { lease: LEASE, ttl_ms })));
    let put = Put { lease: LEASE, ..Put::new(Bytes::from_static(b"key"), Bytes::from_static(b"here")) };
    assert!(matches!(outcome(cluster.ask(leader, write(&Command::Put(put)))), Outcome::Put(_)));
    cluster
}

fn is_there(cluster: &mut Cluster) -> bool {
    let follower = cluster.follower();
    value_of(&cluster.ask(follower, get("key"))).is_some()
}

fn keep_alive(cluster: &mut Cluster, member: MemberId) -> u64 {
    let request = Request::KeepAlive { keyspace: KeyspaceId::FIRST, lease: LEASE };
    match outcome(cluster.ask(member, request)) {
        Outcome::Lease(LeaseOutcome::Renewed(Renewed { ttl_ms })) => ttl_ms,
        other => panic!("a renewal was answered {other:?}"),
    }
}

fn time_to_live(cluster: &mut Cluster, member: MemberId) -> Option<TimeToLive> {
    let request = Request::TimeToLive { keyspace: KeyspaceId::FIRST, lease: LEASE, wants_keys: true };
    match outcome(cluster.ask(member, request)) {
        Outcome::Lease(LeaseOutcome::TimeToLive(known)) => known,
        other => panic!("a question about a lease was answered {other:?}"),
    }
}

fn remaining_ms(cluster: &mut Cluster) -> u64 {
    let leader = cluster.leader();
    time_to_live(cluster, leader).map_or(0, |known| known.remaining_ms)
}

/// Leadership goes to another member.
fn fail_over(cluster: &mut Cluster) {
    let (leader, follower) = (cluster.leader(), cluster.follower());
    cluster.inputs.entry(leader).or_default().push(Input::HandOver { to: Some(follower) });
    cluster.advance(200_000);
    assert_eq!(cluster.leader(), follower, "leadership was handed over");
}

#[test]
fn a_lease_that_nobody_renews_ends_in_time_and_takes_its_keys() {
    let mut cluster = with_lease(1_500);
    cluster.advance(SECOND);
    assert!(is_there(&mut cluster), "it has not run out yet");
    cluster.advance(SECOND);
    assert!(!is_there(&mut cluster), "it has run out");
    let leader = cluster.leader();
    assert_eq!(time_to_live(&mut cluster, leader), None);
    let observed: Vec<_> = cluster.shards.values().flat_map(Shard::observe).collect();
    assert!(observed.iter().all(|replica| replica.state_hash == observed[0].state_hash));
    assert!(observed.iter().all(|replica| replica.revision == Revision(3)), "a put, and the end");
}

#[test]
fn a_lease_that_is_renewed_at_any_member_goes_on() {
    let mut cluster = with_lease(1_500);
    for _ in 0..6 {
        cluster.advance(SECOND);
        let member = cluster.follower();
        assert_eq!(keep_alive(&mut cluster, member), 1_500);
    }
    assert!(is_there(&mut cluster));
    let (leader, follower) = (cluster.leader(), cluster.follower());
    for member in [leader, follower] {
        let known = time_to_live(&mut cluster, member).expect("it lives");
        assert!(known.ttl_ms == 1_500 && (1..1_500).contains(&known.remaining_ms), "{known:?}");
        assert_eq!(known.keys, [Bytes::from_static(b"key")]);
    }
}

#[test]
fn a_lease_that_is_not_there_is_not_renewed() {
    let mut cluster = with_lease(500);
    cluster.advance(SECOND);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    assert_eq!(keep_alive(&mut cluster, leader), 0);
    assert_eq!(keep_alive(&mut cluster, follower), 0);
}

#[test]
fn a_failover_neither_resets_nor_shortens_what_remains() {
    let mut cluster = with_lease(20_000);
    // What remains is written down half way, and again not before the end.
    cluster.advance(14 * SECOND);
    let before = remaining_ms(&mut cluster);
    fail_over(&mut cluster);
    let after = remaining_ms(&mut cluster);
    assert!(after + 1_000 >= before, "{before} ms became {after}: not shortened");
    assert!(after <= 10_100, "{before} ms became {after}: no more than at the checkpoint");
    cluster.advance(11 * SECOND);
    assert!(!is_there(&mut cluster), "it ends all the same");
}

#[test]
fn a_renewal_after_a_checkpoint_survives_a_failover() {
    let mut cluster = with_lease(20_000);
    cluster.advance(15 * SECOND);
    let leader = cluster.leader();
    assert_eq!(keep_alive(&mut cluster, leader), 20_000);
    fail_over(&mut cluster);
    assert!(remaining_ms(&mut cluster) > 19_000, "the log says that all of it remains");
    cluster.advance(15 * SECOND);
    assert!(is_there(&mut cluster));
}

#[test]
fn many_leases_end_at_once_a_few_at_a_time() {
    let mut cluster = Cluster::of(1);
    cluster.advance(3 * ELECTION_MICROS);
    let count = 4 * u64::try_from(LEASE_ENDS_WAITING_MAX).expect("it is small");
    for number in 1..=count {
        cluster.submit(MemberId(1), grant(LeaseId(number), 1_000));
    }
    cluster.advance(900_000);
    assert_eq!(leases_count(&cluster), count);
    cluster.advance(SECOND);
    assert_eq!(leases_count(&cluster), 0, "all have ended, and no queue was over its bound on the way");
}

fn leases_count(cluster: &Cluster) -> u64 {
    let observed = cluster.shards.values().flat_map(Shard::observe);
    let mut queues = observed.flat_map(|replica| replica.queues);
    queues.find(|(name, ..)| *name == "leases").map_or(0, |(_, now, _)| now as u64)
}

#[test]
fn what_remains_of_many_leases_is_written_down_one_entry_after_another() {
    let member = MemberId(1);
    let mut cluster = Cluster::of(1);
    cluster.advance(3 * ELECTION_MICROS);
    let count = 2 * LEASES_PER_CHECKPOINT_MAX as u64 + 1;
    for number in 1..=count {
        cluster.submit(member, grant(LeaseId(number), 60_000));
    }
    cluster.settle();
    assert_eq!(leases_count(&cluster), count);
    let granted = last_index(&cluster, member);
    cluster.now = cluster.now.after(31 * SECOND);
    for _ in 0..20 {
        let before = last_index(&cluster, member);
        cluster.turn(member);
        let appended = last_index(&cluster, member) - before;
        assert!(appended <= 1, "a turn appends {appended} entries");
    }
    assert_eq!(last_index(&cluster, member) - granted, 3, "all are written down, each once");
}

fn last_index(cluster: &Cluster, member: MemberId) -> u64 {
    cluster.shards[&member].observe().next().expect("it serves").last.index.0
}

#[test]
fn a_hundred_thousand_leases_end_without_stalling_writes() {
    const COUNT: u64 = 100_000;
    const TURNS_TO_AN_ANSWER_MAX: usize = 4;
    let member = MemberId(1);
    let mut cluster = Cluster::of(1);
    cluster.advance(3 * ELECTION_MICROS);
    for number in 1..=COUNT {
        cluster.submit(member, grant(LeaseId(number), 60_000));
        if number % 1_000 == 0 {
            cluster.settle();
        }
    }
    assert_eq!(leases_count(&cluster), COUNT);
    // All at one instant, and from then on turns without time between them.
    cluster.now = cluster.now.after(61 * SECOND);
    let (mut writes, mut waiting) = (0, None);
    while leases_count(&cluster) > 0 {
        let (ticket, turns) =
            waiting.take().unwrap_or_else(|| (cluster.submit(member, put("key", "x", None)), 0));
        let before = last_index(&cluster, member);
        cluster.turn(member);
        let appended = last_index(&cluster, member) - before;
        assert!(appended <= LEASE_ENDS_WAITING_MAX as u64 + 2, "a turn appends {appended} entries");
        if cluster.replies.remove(&ticket).is_some() {
            writes += 1;
        } else {
            assert!(turns < TURNS_TO_AN_ANSWER_MAX, "a write waits for no more than the ends before it");
            waiting = Some((ticket, turns + 1));
        }
    }
    let rounds = COUNT / LEASE_ENDS_WAITING_MAX as u64;
    assert!(writes >= rounds / 2, "{writes} writes were answered while leases ended");
}

#[test]
fn what_a_leader_says_of_leases_no_client_can_say() {
    let mut cluster = with_lease(60_000);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let life = LeaseLife { lease: LEASE, grant: 1 };
    for command in [LeaseCommand::Expire(life), LeaseCommand::Renew(life), LeaseCommand::Checkpoint(vec![])] {
        for member in [leader, follower] {
            let response = cluster.ask(member, write(&Command::Lease(command.clone())));
            assert_eq!(response, Response::Refused(Refusal::Malformed));
        }
    }
    assert!(is_there(&mut cluster));
}

#[test]
fn a_lease_granted_twice_and_a_key_of_no_lease_are_refused() {
    let mut cluster = with_lease(60_000);
    let leader = cluster.leader();
    let again = outcome(cluster.ask(leader, grant(LEASE, 1_000)));
    assert_eq!(again, Outcome::Refused(StoreRefusal::LeaseExists));
    let put = Put { lease: LeaseId(8), ..Put::new(Bytes::from_static(b"key"), Bytes::new()) };
    let refused = outcome(cluster.ask(leader, write(&Command::Put(put))));
    assert_eq!(refused, Outcome::Refused(StoreRefusal::LeaseNotFound));
}
