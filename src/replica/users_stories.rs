//! Users in a whole cluster: what they may do is decided where things are done, and changes reach every member.

use super::snapshot_stories::{POLICY, found, write_some};
use super::test_cluster::{Cluster, ELECTION_MICROS, get, put, revision_of, value_of};
use super::{FoundContent, Input, Shard};
use crate::api::{
    EncodedCommand, ReadMode, Refusal, Request, Response, Stamp, UsersAnswer, UsersRequest, WatchAnswer,
    WatchRequest,
};
use crate::auth::{Access, AuthAnswer, AuthCommand, AuthQuery, AuthRefusal, Secret, Who};
use crate::ids::{
    AuthRevision, KeyspaceId, LeaseId, MemberId, Principal, Revision, SessionId, StreamId, WatchId,
};
use crate::kv::{
    Command, Compact, DeleteRange, Grant, KeyRange, LeaseCommand, Operation, Put, Query, Range, Revoke, Txn,
};
use crate::limits::AUTH_TOKEN_KEY_BYTES;
use crate::peer::{Body, PEER_VERSION_USERS};
use crate::watch::{Ending, Interest, WatchSpec};
use bytes::Bytes;

const DENIED: Response = Response::Refused(Refusal::Users(AuthRefusal::Denied));

fn change_as(cluster: &mut Cluster, who: Who, member: MemberId, command: AuthCommand) -> Response {
    let ticket = cluster.ticket();
    let request = UsersRequest::Change { stamp: None, command };
    cluster.inputs.entry(member).or_default().push(Input::Users { ticket, who, request });
    cluster.answer_to(ticket)
}

fn ask_users(cluster: &mut Cluster, who: Who, member: MemberId, query: AuthQuery) -> Response {
    let ticket = cluster.ticket();
    let request = UsersRequest::Ask { query, mode: ReadMode::Linearizable };
    cluster.inputs.entry(member).or_default().push(Input::Users { ticket, who, request });
    cluster.answer_to(ticket)
}

fn span(start: &'static str, end: &'static str) -> KeyRange {
    KeyRange::Span { start: start.into(), end: end.into() }
}

fn grant(range: KeyRange, access: Access) -> AuthCommand {
    AuthCommand::GrantPermission { role: "app".to_owned(), range, access }
}

fn found_at(cluster: &mut Cluster, name: &str) -> Who {
    let leader = cluster.leader();
    let query = AuthQuery::Login { name: name.to_owned() };
    let answer = ask_users(cluster, Who::Cluster, leader, query);
    let Response::Users { answer: UsersAnswer::Told(AuthAnswer::Login { user, revision, .. }), .. } = answer
    else {
        panic!("{answer:?}")
    };
    Who::User { principal: user.expect("there is one").0, revision }
}

/// Three members, and ali, who may read and write from `a` up to `c`. Also how root is known there.
fn with_ali() -> (Cluster, Who, Who) {
    let mut cluster = Cluster::with_snapshots(3, POLICY);
    cluster.greet_all();
    cluster.advance(6 * ELECTION_MICROS);
    let secret = || Some(Secret(Bytes::from_static(b"hash")));
    let text = str::to_owned;
    for (at, command) in [
        AuthCommand::AddUser { name: text("root"), secret: secret() },
        AuthCommand::GrantRole { user: text("root"), role: text("root") },
        AuthCommand::AddUser { name: text("ali"), secret: secret() },
        AuthCommand::AddRole { name: text("app") },
        grant(span("a", "c"), Access::ReadWrite),
        AuthCommand::GrantRole { user: text("ali"), role: text("app") },
        AuthCommand::Enable { token_key: Secret(Bytes::from_static(&[7; AUTH_TOKEN_KEY_BYTES])) },
    ]
    .into_iter()
    .enumerate()
    {
        // By way of a follower now and then.
        let member = if at % 2 == 0 { cluster.leader() } else { cluster.follower() };
        let answer = change_as(&mut cluster, Who::Nobody, member, command);
        assert!(matches!(answer, Response::Users { answer: UsersAnswer::Changed, .. }), "{answer:?}");
    }
    let (ali, root) = (found_at(&mut cluster, "ali"), found_at(&mut cluster, "root"));
    (cluster, ali, root)
}

fn write(command: &Command) -> Request {
    let command = EncodedCommand::encode(command).expect("a small command");
    Request::Write { keyspace: KeyspaceId::FIRST, stamp: None, command }
}

fn is_done(response: &Response) -> bool {
    matches!(response, Response::Applied(_))
}

#[test]
fn everybody_may_do_everything_until_users_count_and_then_only_who_may() {
    let (mut cluster, ali, root) = with_ali();
    for member in [cluster.leader(), cluster.follower()] {
        let nobody = Response::Refused(Refusal::Users(AuthRefusal::UserNameEmpty));
        assert_eq!(cluster.ask(member, put("a", "1", None)), nobody);
        assert_eq!(cluster.ask(member, get("a")), nobody);
        assert_eq!(cluster.ask(member, Request::OpenSession { keyspace: KeyspaceId::FIRST }), nobody);
        let alive = Request::KeepAlive { keyspace: KeyspaceId::FIRST, lease: LeaseId(1) };
        assert_eq!(cluster.ask(member, alive), nobody);
        assert!(is_done(&cluster.ask_as(ali, member, put("a", "1", None))));
        assert_eq!(value_of(&cluster.ask_as(ali, member, get("a"))), Some(Bytes::from_static(b"1")));
        assert_eq!(cluster.ask_as(ali, member, put("c", "1", None)), DENIED);
        assert_eq!(cluster.ask_as(ali, member, get("c")), DENIED);
        assert!(is_done(&cluster.ask_as(root, member, put("c", "1", None))));
        let compact = write(&Command::Compact(Compact { revision: Revision(2) }));
        assert_eq!(cluster.ask_as(ali, member, compact), DENIED);
        assert!(
            matches!(cluster.ask(member, Request::Status), Response::Status(_)),
            "how it is may be asked"
        );
    }
    let states: Vec<_> = cluster.shards.values().flat_map(Shard::observe).map(|it| it.state_hash).collect();
    assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "{states:?}");
}

/// Operations in branches of branches (GHSA-rfx7-8w68-q57q).
#[test]
fn a_transaction_in_a_transaction_is_looked_at_in_all_its_branches() {
    let (mut cluster, ali, _) = with_ali();
    let leader = cluster.leader();
    for inner in [
        Operation::Put(Put::new(Bytes::from_static(b"x"), Bytes::from_static(b"1"))),
        Operation::Range(Range::new(KeyRange::Key(Bytes::from_static(b"x")))),
        Operation::DeleteRange(DeleteRange { range: span("a", "z"), wants_previous: false }),
    ] {
        let mut txn = Txn { compares: Vec::new(), success: Vec::new(), failure: vec![inner] };
        for _ in 0..2 {
            txn = Txn { compares: Vec::new(), success: Vec::new(), failure: vec![Operation::Txn(txn)] };
        }
        assert_eq!(cluster.ask_as(ali, leader, write(&Command::Txn(txn))), DENIED);
    }
}

/// Previous pairs, and leases that others' keys are attached to (GHSA-x35m-3gp4-4fh5).
#[test]
fn who_may_only_write_is_told_no_previous_pair_and_ends_nobody_elses_keys() {
    let (mut cluster, _, root) = with_ali();
    let leader = cluster.leader();
    change_as(&mut cluster, root, leader, grant(span("w", "x"), Access::Write));
    let (ali, root) = (found_at(&mut cluster, "ali"), found_at(&mut cluster, "root"));
    let written = |lease, wants_previous| {
        let value = Bytes::from_static(b"1");
        Put { lease: LeaseId(lease), wants_previous, ..Put::new(Bytes::from_static(b"w"), value) }
    };
    assert!(is_done(&cluster.ask_as(ali, leader, write(&Command::Put(written(0, false))))));
    assert_eq!(cluster.ask_as(ali, leader, write(&Command::Put(written(0, true)))), DENIED);
    let delete = |wants_previous| {
        let delete = DeleteRange { range: KeyRange::Key(Bytes::from_static(b"w")), wants_previous };
        let success = vec![Operation::DeleteRange(delete)];
        write(&Command::Txn(Txn { compares: Vec::new(), success, failure: Vec::new() }))
    };
    assert_eq!(cluster.ask_as(ali, leader, delete(true)), DENIED);
    assert!(is_done(&cluster.ask_as(ali, leader, delete(false))));
    // A lease of a key that ali may not write.
    let lease = Command::Lease(LeaseCommand::Grant(Grant { lease: LeaseId(9), ttl_ms: 60_000 }));
    assert!(is_done(&cluster.ask_as(root, leader, write(&lease))));
    let value = Bytes::from_static(b"1");
    let secret = Put { lease: LeaseId(9), ..Put::new(Bytes::from_static(b"secret"), value) };
    assert!(is_done(&cluster.ask_as(root, leader, write(&Command::Put(secret)))));
    let attach =
        Txn { compares: Vec::new(), success: vec![Operation::Put(written(9, false))], failure: Vec::new() };
    assert_eq!(cluster.ask_as(ali, leader, write(&Command::Txn(attach))), DENIED);
    let revoke = Command::Lease(LeaseCommand::Revoke(Revoke { lease: LeaseId(9) }));
    assert_eq!(cluster.ask_as(ali, leader, write(&revoke)), DENIED);
    let asked = Request::TimeToLive { keyspace: KeyspaceId::FIRST, lease: LeaseId(9), wants_keys: true };
    let follower = cluster.follower();
    assert_eq!(cluster.ask_as(ali, follower, asked.clone()), DENIED);
    assert!(is_done(&cluster.ask_as(root, follower, asked)));
}

fn watch_as(cluster: &mut Cluster, who: Who, member: MemberId, (name, range): (u64, KeyRange)) -> Response {
    let ticket = cluster.ticket();
    let spec = WatchSpec { interest: Interest::all(range), start: Revision(0), wants_progress: false };
    let request = WatchRequest::Create { keyspace: KeyspaceId::FIRST, spec };
    let input = Input::Watch { ticket, who, stream: StreamId(1), name: WatchId(name), request };
    cluster.inputs.entry(member).or_default().push(input);
    cluster.answer_to(ticket)
}

/// Watches without an end (GHSA-xg4h-6gfc-h4m8), and watches of what may no longer be read.
#[test]
fn a_watch_begins_where_all_of_it_may_be_read_and_ends_when_it_may_not_any_more() {
    let (mut cluster, ali, root) = with_ali();
    let follower = cluster.follower();
    let leader = cluster.leader();
    let from_key = KeyRange::From(Bytes::from_static(b"a"));
    assert_eq!(watch_as(&mut cluster, ali, follower, (1, from_key.clone())), DENIED);
    let is_created = |answer: &Response| matches!(answer, Response::Watch(WatchAnswer::Created { .. }));
    for (who, watch) in [(ali, (2, span("a", "b"))), (ali, (3, span("b", "c"))), (root, (4, from_key))] {
        let answer = watch_as(&mut cluster, who, follower, watch);
        assert!(is_created(&answer), "{answer:?}");
    }
    // One of the two ranges goes, and the other is put in its place again.
    for command in [
        grant(span("a", "b"), Access::Read),
        AuthCommand::RevokePermission { role: "app".to_owned(), range: span("a", "c") },
    ] {
        let root = found_at(&mut cluster, "root");
        let answer = change_as(&mut cluster, root, leader, command);
        assert!(matches!(answer, Response::Users { .. }), "{answer:?}");
    }
    let ended: Vec<_> = cluster.ended.iter().map(|(_, place, why)| (place.watch, *why)).collect();
    assert_eq!(ended, [(WatchId(3), Ending::NotPermitted)]);
    let root = found_at(&mut cluster, "root");
    cluster.ask_as(root, leader, put("a", "told", None));
    cluster.ask_as(root, leader, put("b", "told to root", None));
    let told: Vec<_> = cluster.told.iter().map(|(_, place, _)| place.watch).collect();
    assert_eq!(told, [WatchId(2), WatchId(4), WatchId(4)]);
}

#[test]
fn a_watch_of_nobody_ends_when_users_begin_to_count() {
    let (mut cluster, _, root) = with_ali();
    let (leader, all) = (cluster.leader(), KeyRange::From(Bytes::new()));
    change_as(&mut cluster, root, leader, AuthCommand::Disable);
    watch_as(&mut cluster, Who::Nobody, leader, (1, all));
    assert_eq!(cluster.ended, []);
    let token_key = Secret(Bytes::from_static(&[8; AUTH_TOKEN_KEY_BYTES]));
    change_as(&mut cluster, Who::Nobody, leader, AuthCommand::Enable { token_key });
    assert!(matches!(cluster.ended.as_slice(), [(_, _, Ending::NotPermitted)]));
}

/// etcd #14571, catalogue 36.
#[test]
fn a_write_that_was_proposed_before_its_permission_went_is_not_done_after() {
    let (mut cluster, ali, root) = with_ali();
    let leader = cluster.leader();
    let ticket = cluster.ticket();
    let command = AuthCommand::RevokePermission { role: "app".to_owned(), range: span("a", "c") };
    let request = UsersRequest::Change { stamp: None, command };
    // Both are proposed in one turn, and so before either is applied.
    cluster.inputs.entry(leader).or_default().push(Input::Users { ticket, who: root, request });
    let written = cluster.submit_as(ali, leader, put("a", "late", None));
    assert!(matches!(cluster.answer_to(ticket), Response::Users { .. }));
    let old = Response::Refused(Refusal::Users(AuthRefusal::OldRevision));
    assert_eq!(cluster.replies.remove(&written), Some(old));
    let root = found_at(&mut cluster, "root");
    assert_eq!(value_of(&cluster.ask_as(root, leader, get("a"))), None);
}

#[test]
fn a_retry_is_told_what_became_of_it_though_permissions_have_changed_and_nobody_is_told_anything() {
    let (mut cluster, ali, root) = with_ali();
    let leader = cluster.leader();
    let opened = cluster.ask_as(ali, leader, Request::OpenSession { keyspace: KeyspaceId::FIRST });
    let Response::SessionOpened { session } = opened else { panic!("{opened:?}") };
    let stamp = Some(Stamp { session, sequence: 1, low_water: 0 });
    let first = cluster.ask_as(ali, leader, put("a", "once", stamp));
    change_as(&mut cluster, root, leader, AuthCommand::AddRole { name: "other".to_owned() });
    assert_eq!(cluster.ask_as(ali, leader, put("a", "once", stamp)), first);
    let nobody = Response::Refused(Refusal::Users(AuthRefusal::UserNameEmpty));
    assert_eq!(cluster.ask(leader, put("a", "once", stamp)), nobody);
    let next = Some(Stamp { session, sequence: 2, low_water: 0 });
    assert_eq!(cluster.ask(leader, put("a", "twice", next)), nobody);
    let ali = found_at(&mut cluster, "ali");
    assert!(is_done(&cluster.ask_as(ali, leader, put("a", "twice", next))), "nobody takes up a number");
    assert_ne!(session, SessionId(0));
}

#[test]
fn somebody_who_was_found_by_an_older_state_is_found_anew_but_keeps_leases_alive() {
    let (mut cluster, ali, root) = with_ali();
    let leader = cluster.leader();
    let lease = Command::Lease(LeaseCommand::Grant(Grant { lease: LeaseId(9), ttl_ms: 60_000 }));
    assert!(is_done(&cluster.ask_as(ali, leader, write(&lease))));
    change_as(&mut cluster, root, leader, AuthCommand::AddRole { name: "other".to_owned() });
    let old = Response::Refused(Refusal::Users(AuthRefusal::OldRevision));
    assert_eq!(cluster.ask_as(ali, leader, get("a")), old);
    let alive = Request::KeepAlive { keyspace: KeyspaceId::FIRST, lease: LeaseId(9) };
    let follower = cluster.follower();
    assert!(is_done(&cluster.ask_as(ali, follower, alive.clone())));
    let gone = Who::User { principal: Principal(99), revision: AuthRevision(99) };
    assert_eq!(cluster.ask_as(gone, follower, alive), DENIED);
}

#[test]
fn users_are_in_snapshots_and_whoever_comes_from_one_knows_them() {
    let (mut cluster, _, root) = with_ali();
    let away = cluster.follower();
    let shard = cluster.shards.remove(&away).expect("it is there");
    let leader = cluster.leader();
    change_as(&mut cluster, root, leader, AuthCommand::AddRole { name: "late".to_owned() });
    let root = found_at(&mut cluster, "root");
    for value in ["1", "2", "3"] {
        write_some(&mut cluster, root, value);
    }
    cluster.shards.insert(away, shard);
    cluster.inputs.insert(away, Vec::new());
    cluster.advance(4_000_000);
    let query = AuthQuery::Role { name: "late".to_owned() };
    let answer = ask_users(&mut cluster, root, away, query);
    assert!(matches!(answer, Response::Users { answer: UsersAnswer::Told(AuthAnswer::Grants(_)), .. }));
    assert_eq!(
        cluster.ask(away, put("a", "1", None)),
        Response::Refused(Refusal::Users(AuthRefusal::UserNameEmpty))
    );
    let leader = cluster.leader();
    let FoundContent::Restored(restored) = &found(&cluster, leader)[0].content else {
        panic!("there is a sound one")
    };
    assert!(restored.users().is_enabled() && restored.users().name_of(Principal(2)) == Some("ali"));
    assert!(revision_of(&cluster.ask_as(root, away, get("a"))) > Revision(20));
    let query =
        Request::Read { keyspace: KeyspaceId::FIRST, query: Query::Leases, mode: ReadMode::Serializable };
    assert!(is_done(&cluster.ask_as(root, away, query)));
}

#[test]
fn a_watch_that_a_snapshot_ends_is_told_nothing_of_what_it_brings() {
    let (mut cluster, ali, root) = with_ali();
    let (away, leader) = (cluster.follower(), cluster.leader());
    let answer = watch_as(&mut cluster, ali, away, (1, span("a", "b")));
    assert!(matches!(answer, Response::Watch(WatchAnswer::Created { .. })), "{answer:?}");
    let shard = cluster.shards.remove(&away).expect("it is there");
    let command = AuthCommand::RevokePermission { role: "app".to_owned(), range: span("a", "c") };
    change_as(&mut cluster, root, leader, command);
    let root = found_at(&mut cluster, "root");
    for value in ["not", "for", "ali"] {
        write_some(&mut cluster, root, value);
    }
    cluster.shards.insert(away, shard);
    cluster.inputs.insert(away, Vec::new());
    cluster.advance(4_000_000);
    let ended: Vec<_> = cluster.ended.iter().map(|(_, place, why)| (place.watch, *why)).collect();
    assert_eq!(ended, [(WatchId(1), Ending::NotPermitted)]);
    assert!(cluster.told.is_empty(), "ali was told of {} changes", cluster.told.len());
}

/// A leader of the version before would refuse what names somebody.
#[test]
fn a_peer_is_told_who_asks_only_once_there_were_users() {
    let mut cluster = Cluster::of(3);
    cluster.greet_all();
    cluster.advance(6 * ELECTION_MICROS);
    let askers = |cluster: &mut Cluster| -> Vec<_> {
        let (leader, follower) = (cluster.leader(), cluster.follower());
        cluster.submit_as(Who::Cluster, follower, Request::OpenSession { keyspace: KeyspaceId::FIRST });
        let alive = Request::KeepAlive { keyspace: KeyspaceId::FIRST, lease: LeaseId(9) };
        cluster.submit_as(Who::Cluster, follower, alive);
        cluster.turn(follower);
        let frames = cluster.inputs[&leader].iter().filter_map(|input| {
            let Input::Peer { frame, .. } = input else { return None };
            crate::peer::decode(frame).ok()
        });
        let askers = frames.filter_map(|frame| match frame.body {
            Body::Forward { asker, .. } | Body::AskLease { asker, .. } => Some(asker),
            Body::Raft { .. } | Body::ForwardReply { .. } | Body::Hello { .. } => None,
        });
        askers.collect()
    };
    assert_eq!(askers(&mut cluster), [Who::Nobody.to_entry(); 2]);
    let leader = cluster.leader();
    change_as(&mut cluster, Who::Nobody, leader, AuthCommand::AddRole { name: "first".to_owned() });
    assert_eq!(askers(&mut cluster), [Who::Cluster.to_entry(); 2]);
}

/// A member of the version before takes no entry that changes users, so none is made while somebody may be such a member.
#[test]
fn the_first_user_waits_until_every_voter_is_known_to_know_users() {
    let mut cluster = Cluster::of(3);
    cluster.advance(6 * ELECTION_MICROS);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let others: Vec<MemberId> = cluster.shards.keys().copied().filter(|member| *member != leader).collect();
    let add_role = |cluster: &mut Cluster, member, name: &str| {
        change_as(cluster, Who::Nobody, member, AuthCommand::AddRole { name: name.to_owned() })
    };
    let is_held_back = |cluster: &mut Cluster| {
        let answers = [leader, follower].map(|member| add_role(cluster, member, "app"));
        answers.iter().all(|answer| *answer == Response::Refused(Refusal::NotUpgraded))
    };
    assert!(is_held_back(&mut cluster), "nobody has greeted");
    cluster.greet(others[0], PEER_VERSION_USERS);
    assert!(is_held_back(&mut cluster), "one has not greeted");
    cluster.greet(others[1], PEER_VERSION_USERS - 1);
    assert!(is_held_back(&mut cluster), "one is of the version before");
    cluster.greet(others[1], PEER_VERSION_USERS);
    let changed = |answer: Response| {
        assert!(matches!(answer, Response::Users { answer: UsersAnswer::Changed, .. }), "{answer:?}");
    };
    changed(add_role(&mut cluster, follower, "app"));
    // From then on everybody has such entries, and whoever led since and has not heard of all of them goes on.
    cluster.greet(others[1], PEER_VERSION_USERS - 1);
    changed(add_role(&mut cluster, leader, "more"));
}
