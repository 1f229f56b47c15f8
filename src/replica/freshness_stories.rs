//! Stories of reads with a bound: what a member knows of its own age, and what it does when that will not do.
//!
//! Whether an age that is told is true is the simulator's business.

use super::test_cluster::{Cluster, ELECTION_MICROS, get, put, revision_of};
use crate::api::{Otherwise, ReadMode, Refusal, Request, Response};
use crate::ids::{KeyspaceId, MemberId, Revision};
use crate::kv::{KeyRange, Query, Range};
use bytes::Bytes;

/// Each question takes this cluster a tenth of a second.
const MAX_AGE_MS: u32 = 2_000;

fn read(mode: ReadMode) -> Request {
    let query = Query::Range(Range::new(KeyRange::Key(Bytes::from_static(b"key"))));
    Request::Read { keyspace: KeyspaceId::FIRST, query, mode }
}

fn bounded(otherwise: Otherwise) -> Request {
    read(ReadMode::MaxAge { max_age_ms: MAX_AGE_MS, otherwise })
}

fn at_least(revision: Revision, otherwise: Otherwise) -> Request {
    read(ReadMode::MinRevision { revision, otherwise })
}

/// Three members, a key, and one that follows.
fn cluster() -> (Cluster, MemberId, MemberId) {
    let mut cluster = Cluster::of(3);
    cluster.advance(3 * ELECTION_MICROS);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    cluster.ask(leader, put("key", "one", None));
    cluster.advance(ELECTION_MICROS);
    (cluster, leader, follower)
}

#[track_caller]
fn age_of(response: &Response) -> Option<u64> {
    let Response::Aged { age_micros, .. } = response else { panic!("it says how old it is: {response:?}") };
    *age_micros
}

#[test]
fn a_member_that_knows_of_no_age_refuses_and_asks_for_the_next() {
    let (mut cluster, _, follower) = cluster();
    let refused = cluster.ask(follower, bounded(Otherwise::Refuse));
    assert_eq!(refused, Response::Refused(Refusal::TooOld));
    cluster.settle();
    let age = age_of(&cluster.ask(follower, bounded(Otherwise::Refuse))).expect("it has asked");
    assert!(age <= u64::from(MAX_AGE_MS) * 1_000, "{age}");
}

#[test]
fn a_state_ages_until_somebody_asks_again() {
    let (mut cluster, _, follower) = cluster();
    cluster.ask(follower, get("key"));
    let young = age_of(&cluster.ask(follower, bounded(Otherwise::Refuse))).expect("the read before it tells");
    cluster.advance(u64::from(MAX_AGE_MS) * 500);
    let older = age_of(&cluster.ask(follower, bounded(Otherwise::Refuse))).expect("it still is young enough");
    assert!(older >= young + u64::from(MAX_AGE_MS) * 500, "{young}, then {older}");
    cluster.advance(u64::from(MAX_AGE_MS) * 1_000);
    let refused = cluster.ask(follower, bounded(Otherwise::Refuse));
    assert_eq!(refused, Response::Refused(Refusal::TooOld));
}

#[test]
fn whoever_asks_the_leader_is_told_the_latest() {
    let (mut cluster, leader, follower) = cluster();
    let answer = cluster.ask(follower, bounded(Otherwise::AskLeader));
    assert_eq!(age_of(&answer), Some(0));
    assert_eq!(age_of(&cluster.ask(leader, bounded(Otherwise::AskLeader))), Some(0));
}

#[test]
fn a_revision_that_has_not_come_is_refused() {
    let (mut cluster, leader, follower) = cluster();
    let newest = revision_of(&cluster.ask(leader, get("key")));
    let answer = cluster.ask(follower, at_least(newest, Otherwise::Refuse));
    assert_eq!(age_of(&answer), None, "nobody has asked, so it does not know");
    let next = Revision(newest.0 + 1);
    for otherwise in [Otherwise::Refuse, Otherwise::AskLeader] {
        let refused = cluster.ask(follower, at_least(next, otherwise));
        assert_eq!(refused, Response::Refused(Refusal::TooOld), "{otherwise:?}: nobody has it");
    }
    cluster.ask(leader, put("key", "two", None));
    assert_eq!(age_of(&cluster.ask(follower, at_least(next, Otherwise::AskLeader))).map(|_| ()), Some(()));
}
