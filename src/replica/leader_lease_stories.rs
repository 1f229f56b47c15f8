//! Stories of leaders that answer reads alone: who may, and what the log says of it.
//!
//! What goes wrong with leases is the simulator's business, and that of the scripts of the core.

use super::LeaseTerms;
use super::test_cluster::{Cluster, ELECTION_MICROS, get, put, value_of};
use crate::api::{Request, Response};
use crate::ids::MemberId;
use crate::peer::{PEER_VERSION_WAITING, PEER_VERSIONS};
use bytes::Bytes;

/// How long the leader says that it answers alone, after a read.
fn lease_of(cluster: &mut Cluster, leader: MemberId) -> u64 {
    assert_eq!(value_of(&cluster.ask(leader, get("key"))), Some(Bytes::from_static(b"one")));
    let Response::Status(status) = cluster.ask(leader, Request::Status) else { panic!("a status is told") };
    let counter = status.counters.iter().find(|counter| counter.name == "leader_lease_micros");
    counter.expect("it is counted").value
}

#[test]
fn a_leader_leases_only_while_every_other_voter_is_known_to_wait() {
    let terms = LeaseTerms::derived(ELECTION_MICROS, 500);
    let mut cluster = Cluster::with_leases(3, terms);
    cluster.advance(3 * ELECTION_MICROS);
    let leader = cluster.leader();
    cluster.ask(leader, put("key", "one", None));
    assert_eq!(lease_of(&mut cluster, leader), 0, "nobody has greeted");
    let others: Vec<MemberId> = cluster.shards.keys().copied().filter(|member| *member != leader).collect();
    cluster.greet(others[0], PEER_VERSIONS.1);
    cluster.greet(others[1], PEER_VERSION_WAITING - 1);
    assert_eq!(lease_of(&mut cluster, leader), 0, "one is of an older version");
    cluster.greet(others[1], PEER_VERSION_WAITING);
    cluster.ask(leader, get("key"));
    assert_eq!(lease_of(&mut cluster, leader), terms.micros, "a no-op said so, and was committed");
    cluster.greet(others[0], PEER_VERSION_WAITING - 1);
    assert_eq!(lease_of(&mut cluster, leader), 0, "it went back to an older version");
}

#[test]
fn under_a_lease_reads_send_nothing() {
    let mut cluster = Cluster::with_leases(3, LeaseTerms::derived(ELECTION_MICROS, 500));
    for member in 1..=3 {
        cluster.greet(MemberId(member), PEER_VERSIONS.1);
    }
    cluster.advance(3 * ELECTION_MICROS);
    let leader = cluster.leader();
    cluster.ask(leader, put("key", "one", None));
    cluster.ask(leader, put("key", "two", None));
    cluster.sent.clear();
    let ticket = cluster.submit(leader, get("key"));
    assert_eq!((cluster.turn(leader), cluster.sent.len()), (1, 0), "answered in the same turn");
    assert_eq!(value_of(&cluster.replies[&ticket]), Some(Bytes::from_static(b"two")));
}
