//! Short stories of whole shards on a perfect disk and a perfect network: what should happen when nothing goes wrong.
//!
//! What goes wrong is the simulator's business; this is for a reader, and for finding out quickly what broke.

use super::test_cluster::{Cluster, ELECTION_MICROS, get, put, revision_of, value_of};
use super::{Input, Shard};
use crate::api::{EncodedCommand, ReadMode, Refusal, Request, Response, Stamp};
use crate::ids::{BootMicros, GroupId, KeyspaceId, LogIndex, MemberId, Revision, SessionId};
use crate::kv::{
    Command, Compact, DeleteRange, Filter, KeyRange, Operation, Outcome, Put, Query, Range, SpaceAlarm,
    StoreRefusal, Txn,
};
use crate::limits::{STATE_CHECK_ENTRIES, TURN_ANSWER_BYTES_MAX, TURN_WALK_KEYS_MAX};
use bytes::Bytes;
use std::sync::OnceLock;

/// A value that takes a good part of a small segment.
static LARGE: OnceLock<String> = OnceLock::new();

#[test]
fn three_empty_members_found_a_cluster_and_serve() {
    let mut cluster = Cluster::of(3);
    cluster.advance(3 * ELECTION_MICROS);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    assert_eq!(revision_of(&cluster.ask(leader, put("key", "one", None))), Revision(2));
    assert_eq!(revision_of(&cluster.ask(follower, put("key", "two", None))), Revision(3));
    for member in [leader, follower] {
        assert_eq!(value_of(&cluster.ask(member, get("key"))), Some(Bytes::from_static(b"two")));
    }
    let observed: Vec<_> = cluster.shards.values().flat_map(Shard::observe).collect();
    assert!(observed.iter().all(|replica| replica.state_hash == observed[0].state_hash));
    let records = cluster.shards.values().map(|shard| shard.record(GroupId::FIRST, LogIndex(2)));
    assert!(
        records.collect::<Vec<_>>().windows(2).all(|pair| pair[0] == pair[1]),
        "the same bytes everywhere"
    );
}

#[test]
fn a_member_alone_founds_and_serves_alone() {
    let mut cluster = Cluster::of(1);
    cluster.advance(3 * ELECTION_MICROS);
    assert_eq!(revision_of(&cluster.ask(MemberId(1), put("key", "one", None))), Revision(2));
    assert_eq!(value_of(&cluster.ask(MemberId(1), get("key"))), Some(Bytes::from_static(b"one")));
}

/// Writes until every member has said what its state is, more than once.
fn write_past_two_state_checks(cluster: &mut Cluster) {
    for _ in 0..2 * STATE_CHECK_ENTRIES / 64 + 8 {
        let leader = cluster.leader();
        for _ in 0..64 {
            cluster.submit(leader, put("key", "value", None));
        }
        cluster.advance(100_000);
    }
    cluster.advance(3 * ELECTION_MICROS);
}

#[test]
fn members_that_made_the_same_of_the_log_find_nothing_to_say() {
    let mut cluster = Cluster::of(3);
    cluster.advance(3 * ELECTION_MICROS);
    write_past_two_state_checks(&mut cluster);
    assert!(cluster.shards.values().all(|shard| shard.waiting_for().is_none()));
}

#[test]
fn a_member_whose_state_differs_stops_serving_and_says_so_whether_it_leads_or_not() {
    for leads in [false, true] {
        let mut cluster = Cluster::of(3);
        cluster.advance(3 * ELECTION_MICROS);
        let divergent = if leads { cluster.leader() } else { cluster.follower() };
        cluster.shards.get_mut(&divergent).expect("it is there").corrupt();
        let mut rest: Vec<MemberId> = cluster.shards.keys().copied().collect();
        rest.retain(|member| *member != divergent);
        // Whoever leads in the end: who was deposed is not asked.
        while cluster.shards[&divergent].waiting_for().is_none() {
            let leader = cluster.leader();
            let before = cluster.now;
            for _ in 0..64 {
                cluster.submit(leader, put("key", "value", None));
            }
            cluster.advance(100_000);
            assert!(before < BootMicros(60_000_000), "it is found");
        }
        let why = cluster.shards[&divergent].waiting_for().unwrap_or_default();
        assert!(why.contains("is not what most members made of it"), "{why}");
        assert_eq!(cluster.ask(divergent, get("key")), Response::Refused(Refusal::NotReady));
        cluster.advance(10 * ELECTION_MICROS);
        assert!(rest.contains(&cluster.leader()));
        write_past_two_state_checks(&mut cluster);
        for member in rest {
            assert_eq!(cluster.shards[&member].waiting_for(), None);
            assert_eq!(value_of(&cluster.ask(member, get("key"))), Some(Bytes::from_static(b"value")));
        }
    }
}

/// One member with 384 keys.
fn filled() -> (Cluster, MemberId) {
    let mut cluster = Cluster::of(1);
    cluster.advance(3 * ELECTION_MICROS);
    let member = MemberId(1);
    for first in [0, 128, 256] {
        let put = |key: u64| {
            let key = Bytes::from(format!("{:03}", first + key));
            Operation::Put(Put::new(key, Bytes::from_static(b"value")))
        };
        let txn = Command::Txn(Txn { success: (0..128).map(put).collect(), ..Txn::default() });
        assert_eq!(revision_of(&cluster.ask(member, write(&txn))), Revision(2 + first / 128));
    }
    (cluster, member)
}

/// No pair passes, so every key is looked at; a count alone would be added up.
fn everything() -> Range {
    let filter = Filter { mod_min: Revision(1_000), ..Filter::default() };
    Range { filter, ..Range::new(KeyRange::From(Bytes::new())) }
}

/// Whoever reads much, and goes on reading, keeps nobody's write from being applied.
#[test]
fn reads_leave_time_for_what_is_committed() {
    let (mut cluster, member) = filled();
    let per_turn = usize::try_from(TURN_WALK_KEYS_MAX / 384).expect("a small number") + 1;
    let query = Query::Range(everything());
    let put = cluster.submit(member, put("key", "one", None));
    for _ in 0..5 {
        for mode in [ReadMode::Linearizable, ReadMode::Serializable] {
            for _ in 0..per_turn {
                let query = query.clone();
                cluster.submit(member, Request::Read { keyspace: KeyspaceId::FIRST, query, mode });
            }
        }
        cluster.turn(member);
    }
    assert!(cluster.replies.contains_key(&put), "it is durable, and nobody else is there");
}

/// Requests that walk over many keys are answered over many turns, so that nobody else waits for all of them.
#[test]
fn a_turn_takes_on_a_bounded_number_of_keys() {
    let (mut cluster, member) = filled();
    let everything = everything();
    let count = 1_500;
    for mode in [ReadMode::Linearizable, ReadMode::Serializable] {
        let query = Query::Range(everything.clone());
        let read = Request::Read { keyspace: KeyspaceId::FIRST, query, mode };
        for _ in 0..count {
            cluster.submit(member, read.clone());
        }
        let per_turn = usize::try_from(TURN_WALK_KEYS_MAX / 384).expect("a small number") + 1;
        assert_eq!(cluster.turn(member), per_turn, "{mode:?}");
        cluster.advance(1);
    }
    let reading = Command::Txn(Txn { success: vec![Operation::Range(everything); 128], ..Txn::default() });
    for _ in 0..40 {
        cluster.submit(member, write(&reading));
    }
    let mut answered = 0;
    let mut turns = 0;
    while answered < 40 {
        let now = cluster.turn(member);
        assert!(now <= 4, "two walks of 128 times 384 keys, each of 40 transactions: {now} in one turn");
        answered += now;
        turns += 1;
    }
    assert!(turns >= 10);
    assert_eq!(cluster.replies.len(), 2 * count + 40);
}

#[test]
fn a_turn_answers_with_a_bounded_number_of_bytes() {
    let mut cluster = Cluster::of(1);
    cluster.advance(3 * ELECTION_MICROS);
    let member = MemberId(1);
    let large = LARGE.get_or_init(|| "x".repeat(300_000));
    cluster.ask(member, put("key", large, None));
    for _ in 0..1_000 {
        cluster.submit(member, get("key"));
    }
    assert_eq!(cluster.turn(member), TURN_ANSWER_BYTES_MAX / 300_000 + 1);
    cluster.advance(1);
    assert_eq!(cluster.replies.len(), 1_000);
}

#[test]
fn a_retry_of_a_stamped_write_gets_the_first_answer() {
    let mut cluster = Cluster::of(3);
    cluster.advance(3 * ELECTION_MICROS);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let opened = cluster.ask(follower, Request::OpenSession { keyspace: KeyspaceId::FIRST });
    let Response::SessionOpened { session } = opened else { panic!("a session opens, got {opened:?}") };
    let stamp = Some(Stamp { session, sequence: 1, low_water: 0 });
    let first = cluster.ask(leader, put("key", "one", stamp));
    let _ = cluster.ask(leader, put("key", "two", None));
    assert_eq!(cluster.ask(follower, put("key", "one", stamp)), first);
    assert_eq!(value_of(&cluster.ask(leader, get("key"))), Some(Bytes::from_static(b"two")));
}

#[test]
fn a_session_that_nothing_names_is_ended_through_the_log() {
    let mut cluster = Cluster::of(3);
    cluster.advance(3 * ELECTION_MICROS);
    let leader = cluster.leader();
    let opened = cluster.ask(leader, Request::OpenSession { keyspace: KeyspaceId::FIRST });
    let Response::SessionOpened { session } = opened else { panic!("a session opens, got {opened:?}") };
    cluster.advance(100_000_000);
    let stamp = Some(Stamp { session, sequence: 1, low_water: 0 });
    let refused = cluster.ask(leader, put("key", "one", stamp));
    assert_eq!(refused, Response::Refused(Refusal::SessionUnknown));
    assert_ne!(session, SessionId(0));
}

#[test]
fn leadership_is_handed_over_on_request() {
    let mut cluster = Cluster::of(3);
    cluster.advance(3 * ELECTION_MICROS);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    cluster.inputs.entry(leader).or_default().push(Input::HandOver { to: Some(follower) });
    cluster.advance(50_000);
    assert_eq!(cluster.leader(), follower);
}

#[test]
fn a_full_disk_stops_writes_and_neither_reads_nor_the_clock() {
    let mut cluster = Cluster::of(1);
    cluster.advance(3 * ELECTION_MICROS);
    cluster.no_room_for = Some(Vec::new());
    let large = |_| put("key", LARGE.get_or_init(|| "x".repeat(300_000)), None);
    let tickets: Vec<_> = (0..20).map(large).map(|request| cluster.submit(MemberId(1), request)).collect();
    // Advancing fails if a deadline stays in the past: the loop that asks for it would never sleep.
    cluster.advance(2_000_000);
    assert!(cluster.replies.len() < 20, "the log has no room for all of them");
    assert!(value_of(&cluster.ask(MemberId(1), get("key"))).is_some(), "what was acknowledged can be read");
    cluster.make_room();
    cluster.advance(2_000_000);
    assert!(tickets.iter().all(|ticket| cluster.replies.contains_key(ticket)));
}

fn write(command: &Command) -> Request {
    let command = EncodedCommand::encode(command).expect("a small command");
    Request::Write { keyspace: KeyspaceId::FIRST, stamp: None, command }
}

fn is_full(cluster: &mut Cluster, member: MemberId) -> bool {
    let response = cluster.ask(member, put("key", "once more", None));
    let Response::Applied(applied) = response else { panic!("the store answers, not {response:?}") };
    applied.outcome == Outcome::Refused(StoreRefusal::NoSpace)
}

#[test]
fn a_full_keyspace_refuses_puts_until_there_is_room_again() {
    let mut cluster = Cluster::with_quota(3, 40_000);
    cluster.advance(3 * ELECTION_MICROS);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let large = LARGE.get_or_init(|| "x".repeat(300_000));
    assert!(!is_full(&mut cluster, leader));
    assert!(
        matches!(cluster.ask(leader, put("large", large, None)), Response::Applied(_)),
        "it was not full yet"
    );
    assert!(is_full(&mut cluster, leader) && is_full(&mut cluster, follower), "every member says the same");
    let by_hand = |is_raised| write(&Command::SpaceAlarm(SpaceAlarm { by_hand: Some(7), is_raised }));
    let refused = cluster.ask(follower, by_hand(true));
    assert_eq!(
        refused,
        Response::Refused(Refusal::NotUpgraded),
        "others may be of the build before, and not know it"
    );
    cluster.greet_all();
    assert!(matches!(cluster.ask(follower, by_hand(true)), Response::Applied(_)));
    // Called off by somebody it comes back, because there is no room.
    let _ = cluster.ask(follower, write(&Command::SpaceAlarm(SpaceAlarm::by_bytes(false))));
    cluster.advance(200_000);
    assert!(is_full(&mut cluster, leader));

    let range = KeyRange::Key(Bytes::from_static(b"large"));
    let deleted =
        cluster.ask(leader, write(&Command::DeleteRange(DeleteRange { range, wants_previous: false })));
    assert!(is_full(&mut cluster, leader), "the past of the key takes as much");
    let revision = revision_of(&deleted);
    let _ = cluster.ask(leader, write(&Command::Compact(Compact { revision })));
    cluster.advance(200_000);
    assert!(is_full(&mut cluster, follower), "there is room again, and what was raised by hand stays");
    let _ = cluster.ask(leader, by_hand(false));
    assert!(!is_full(&mut cluster, follower), "it was called off by hand");
}
