//! Stories of users and roles: each rule of etcd's once, and each way around permissions that systems had.

use super::*;
use crate::ids::{LeaseId, Principal, Revision};
use crate::kv::{
    Command, Compact, Compare, CompareOperator, CompareTarget, DeleteRange, KeyRange, LeaseCommand,
    Operation, Put, Query, Range, Revoke, SpaceAlarm, Store, Txn,
};
use crate::limits::AUTH_TOKEN_KEY_BYTES;
use ::bytes::Bytes;

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn key(name: &str) -> KeyRange {
    KeyRange::Key(text(name))
}

fn span(start: &str, end: &str) -> KeyRange {
    KeyRange::Span { start: text(start), end: text(end) }
}

fn secret() -> Secret {
    Secret(Bytes::from_static(b"a hash"))
}

fn enable() -> AuthCommand {
    AuthCommand::Enable { token_key: Secret(Bytes::from_static(&[7; AUTH_TOKEN_KEY_BYTES])) }
}

fn add_user(name: &str) -> AuthCommand {
    AuthCommand::AddUser { name: name.to_owned(), secret: Some(secret()) }
}

fn add_role(name: &str) -> AuthCommand {
    AuthCommand::AddRole { name: name.to_owned() }
}

fn grant_role(user: &str, role: &str) -> AuthCommand {
    AuthCommand::GrantRole { user: user.to_owned(), role: role.to_owned() }
}

fn revoke_role(user: &str, role: &str) -> AuthCommand {
    AuthCommand::RevokeRole { user: user.to_owned(), role: role.to_owned() }
}

fn grant(role: &str, range: KeyRange, access: Access) -> AuthCommand {
    AuthCommand::GrantPermission { role: role.to_owned(), range, access }
}

fn after(commands: &[AuthCommand]) -> Auth {
    let mut auth = Auth::new();
    for command in commands {
        assert_eq!(auth.apply(command), Ok(()), "{command:?}");
        auth.assert_all_invariants();
    }
    auth
}

/// `ali` reads `r…`, writes `w…` and does both with `b…`; `root` is root; permissions count.
fn guarded() -> Auth {
    after(&[
        add_user("root"),
        grant_role("root", "root"),
        add_user("ali"),
        add_role("app"),
        grant_role("ali", "app"),
        grant("app", span("r", "s"), Access::Read),
        grant("app", span("w", "x"), Access::Write),
        grant("app", span("b", "c"), Access::ReadWrite),
        enable(),
    ])
}

/// A user as a member finds it now.
fn found(auth: &Auth, name: &str) -> Who {
    let (principal, _) = auth.credentials(name).expect("there is such a user");
    Who::User { principal, revision: auth.revision() }
}

fn put(name: &str) -> Put {
    Put::new(text(name), text("v"))
}

fn may_run(command: &Command) -> Result<(), AuthRefusal> {
    let auth = guarded();
    auth.may_run(found(&auth, "ali"), command, &Store::new())
}

const DENIED: Result<(), AuthRefusal> = Err(AuthRefusal::Denied);

#[test]
fn permissions_count_only_once_there_is_a_root_who_can_mend_them() {
    let mut auth = Auth::new();
    assert_eq!(auth.apply(&enable()), Err(AuthRefusal::RootUserMissing));
    auth = after(&[add_user("root")]);
    assert_eq!(auth.apply(&enable()), Err(AuthRefusal::RootRoleMissing));
    let mut auth = after(&[add_user("root"), grant_role("root", "root"), add_role("root"), enable()]);
    for command in [
        AuthCommand::DeleteUser { name: "root".to_owned() },
        AuthCommand::DeleteRole { name: "root".to_owned() },
        revoke_role("root", "root"),
    ] {
        assert_eq!(auth.apply(&command), Err(AuthRefusal::RootMustStay));
    }
    assert_eq!(auth.apply(&AuthCommand::Disable), Ok(()));
    assert_eq!(auth.token_key(), None, "no token of before counts again");
    let short = AuthCommand::Enable { token_key: secret() };
    assert_eq!(auth.apply(&short), Err(AuthRefusal::OutOfBounds));
    assert_eq!(auth.apply(&revoke_role("root", "root")), Ok(()));
}

#[test]
fn each_change_has_a_revision_and_what_changes_nothing_has_none() {
    let mut auth = Auth::new();
    let mut revision_after = |command: &AuthCommand| {
        let _ = auth.apply(command);
        auth.revision().0
    };
    assert_eq!(revision_after(&add_user("root")), 2);
    assert_eq!(revision_after(&add_user("root")), 2, "refused");
    assert_eq!(revision_after(&grant_role("root", "root")), 3);
    assert_eq!(revision_after(&grant_role("root", "root")), 3, "it has it");
    assert_eq!(revision_after(&enable()), 3, "nobody's rights are others than were found");
    assert_eq!(revision_after(&AuthCommand::Disable), 4);
    assert_eq!(revision_after(&AuthCommand::Disable), 4);
}

#[test]
fn what_is_not_there_or_is_already_there_is_refused_by_its_name() {
    let mut auth = guarded();
    let name = || "nobody".to_owned();
    for (command, refusal) in [
        (add_user(""), AuthRefusal::UserNameEmpty),
        (add_user("ali"), AuthRefusal::UserExists),
        (add_role(""), AuthRefusal::RoleNameEmpty),
        (add_role("app"), AuthRefusal::RoleExists),
        (AuthCommand::DeleteUser { name: name() }, AuthRefusal::UserNotFound),
        (AuthCommand::ChangePassword { name: name(), secret: secret() }, AuthRefusal::UserNotFound),
        (grant_role("nobody", "app"), AuthRefusal::UserNotFound),
        (grant_role("ali", "none"), AuthRefusal::RoleNotFound),
        (revoke_role("nobody", "app"), AuthRefusal::UserNotFound),
        (revoke_role("ali", "none"), AuthRefusal::RoleNotGranted),
        (AuthCommand::DeleteRole { name: name() }, AuthRefusal::RoleNotFound),
        (grant("none", key("a"), Access::Read), AuthRefusal::RoleNotFound),
        (
            AuthCommand::RevokePermission { role: "app".to_owned(), range: key("r") },
            AuthRefusal::PermissionNotGranted,
        ),
        (add_user(&"u".repeat(1_000)), AuthRefusal::OutOfBounds),
    ] {
        let before = auth.clone();
        assert_eq!(auth.apply(&command), Err(refusal), "{command:?}");
        assert_eq!(auth, before, "a refusal changes nothing");
    }
}

#[test]
fn a_role_that_is_deleted_is_taken_from_whoever_has_it() {
    let mut auth = guarded();
    assert_eq!(auth.apply(&AuthCommand::DeleteRole { name: "app".to_owned() }), Ok(()));
    auth.assert_all_invariants();
    let names = auth.query(&AuthQuery::User { name: "ali".to_owned() });
    assert_eq!(names, Ok(AuthAnswer::Names(Vec::new())));
    assert_eq!(auth.apply(&add_role("app")), Ok(()));
    assert_eq!(auth.may_watch(found(&auth, "ali"), &key("r")), DENIED);
}

#[test]
fn a_permission_for_the_same_range_is_replaced_and_told_in_order_of_keys() {
    let mut auth = after(&[
        add_role("app"),
        grant("app", key("m"), Access::Read),
        grant("app", KeyRange::From(text("c")), Access::Write),
        grant("app", key("m"), Access::ReadWrite),
    ]);
    let role = || AuthQuery::Role { name: "app".to_owned() };
    let from = Grant { range: KeyRange::From(text("c")), access: Access::Write };
    let one = Grant { range: key("m"), access: Access::ReadWrite };
    assert_eq!(auth.query(&role()), Ok(AuthAnswer::Grants(vec![from.clone(), one])));
    let revoke = AuthCommand::RevokePermission { role: "app".to_owned(), range: key("m") };
    assert_eq!(auth.apply(&revoke), Ok(()));
    assert_eq!(auth.query(&role()), Ok(AuthAnswer::Grants(vec![from])));
    // The role that may do everything says so nowhere (etcd tells what was granted to it, too).
    assert_eq!(auth.apply(&add_role(ROOT)), Ok(()));
    assert_eq!(auth.query(&AuthQuery::Role { name: ROOT.to_owned() }), Ok(AuthAnswer::Grants(Vec::new())));
}

#[test]
fn while_nothing_is_forbidden_everybody_may_do_everything() {
    let mut auth = guarded();
    assert_eq!(auth.apply(&AuthCommand::Disable), Ok(()));
    let store = Store::new();
    assert_eq!(auth.may_run(Who::Nobody, &Command::Put(put("x")), &store), Ok(()));
    assert_eq!(auth.may_administer(Who::Nobody), Ok(()));
}

#[test]
fn whoever_says_not_who_they_are_may_do_nothing() {
    let (auth, store) = (guarded(), Store::new());
    let refused = Err(AuthRefusal::UserNameEmpty);
    assert_eq!(auth.may_run(Who::Nobody, &Command::Put(put("r")), &store), refused);
    assert_eq!(auth.may_read(Who::Nobody, &Query::Leases, &store), refused);
    assert_eq!(auth.may_use_lease(Who::Nobody, LeaseId(1), false, &store), refused);
    assert_eq!(auth.may_administer(Who::Nobody), refused);
    assert_eq!(auth.may_ask(Who::Nobody, &AuthQuery::Status), refused);
}

#[test]
fn whoever_was_found_before_a_change_is_sent_back() {
    let mut auth = guarded();
    let (ali, root) = (found(&auth, "ali"), found(&auth, "root"));
    assert_eq!(auth.may_watch(ali, &key("r")), Ok(()));
    assert_eq!(auth.apply(&add_user("other")), Ok(()));
    assert_eq!(auth.may_watch(ali, &key("r")), Err(AuthRefusal::OldRevision));
    assert_eq!(auth.may_administer(root), Err(AuthRefusal::OldRevision));
    assert_eq!(auth.may_watch(found(&auth, "ali"), &key("r")), Ok(()));
}

#[test]
fn a_user_made_anew_is_another_one() {
    let mut auth = guarded();
    let Who::User { principal, .. } = found(&auth, "ali") else { panic!("a user") };
    assert_eq!(auth.apply(&AuthCommand::DeleteUser { name: "ali".to_owned() }), Ok(()));
    assert_eq!(auth.apply(&add_user("ali")), Ok(()));
    let old = Who::User { principal, revision: auth.revision() };
    assert_eq!(auth.may_run(old, &Command::Put(put("w")), &Store::new()), DENIED);
    assert_eq!(auth.name_of(principal), None);
    assert_ne!(found(&auth, "ali"), old);
}

#[test]
fn a_user_without_a_password_gets_none() {
    let add = AuthCommand::AddUser { name: "ali".to_owned(), secret: None };
    let mut auth = after(&[add]);
    let change = AuthCommand::ChangePassword { name: "ali".to_owned(), secret: secret() };
    assert_eq!(auth.apply(&change), Ok(()));
    assert_eq!(auth.credentials("ali"), None);
    assert_eq!(auth.name_of(Principal(1)), Some("ali"));
}

#[test]
fn a_key_is_written_and_read_each_by_its_permission() {
    for (name, may_write, may_read) in
        [("r", false, true), ("w", true, false), ("b", true, true), ("x", false, false)]
    {
        let expected = |may| if may { Ok(()) } else { DENIED };
        assert_eq!(may_run(&Command::Put(put(name))), expected(may_write), "put {name}");
        let delete = DeleteRange { range: key(name), wants_previous: false };
        assert_eq!(may_run(&Command::DeleteRange(delete)), expected(may_write), "delete {name}");
        let auth = guarded();
        let query = Query::Range(Range::new(key(name)));
        assert_eq!(
            auth.may_read(found(&auth, "ali"), &query, &Store::new()),
            expected(may_read),
            "read {name}"
        );
    }
}

#[test]
fn what_an_operation_answers_with_is_read() {
    for (name, expected) in [("w", DENIED), ("b", Ok(()))] {
        let told = Put { wants_previous: true, ..put(name) };
        assert_eq!(may_run(&Command::Put(told.clone())), expected, "put {name}");
        let delete = DeleteRange { range: key(name), wants_previous: true };
        assert_eq!(may_run(&Command::DeleteRange(delete)), expected, "delete {name}");
        let txn = Txn { success: vec![Operation::Put(told)], ..Txn::default() };
        assert_eq!(may_run(&Command::Txn(txn)), expected, "put {name} in a transaction");
    }
}

#[test]
fn all_ways_of_a_transaction_count_at_every_depth() {
    let compare = |name: &str| Compare {
        range: key(name),
        operator: CompareOperator::Equal,
        target: CompareTarget::Version(0),
    };
    let nested = |txn: Txn| Txn { failure: vec![Operation::Txn(txn)], ..Txn::default() };
    for (txn, expected) in [
        (Txn { compares: vec![compare("r")], ..Txn::default() }, Ok(())),
        (Txn { compares: vec![compare("w")], ..Txn::default() }, DENIED),
        (Txn { failure: vec![Operation::Put(put("w"))], ..Txn::default() }, Ok(())),
        (Txn { failure: vec![Operation::Put(put("r"))], ..Txn::default() }, DENIED),
        (Txn { success: vec![Operation::Range(Range::new(span("r", "s")))], ..Txn::default() }, Ok(())),
        (
            Txn { success: vec![Operation::Range(Range::new(KeyRange::From(text("r"))))], ..Txn::default() },
            DENIED,
        ),
    ] {
        assert_eq!(may_run(&Command::Txn(txn.clone())), expected, "{txn:?}");
        let deep = nested(nested(txn));
        assert_eq!(may_run(&Command::Txn(deep.clone())), expected, "{deep:?}");
        let auth = guarded();
        let query = Query::Txn(deep);
        assert_eq!(auth.may_read(found(&auth, "ali"), &query, &Store::new()), expected, "{query:?}");
    }
}

#[test]
fn a_lease_is_ended_or_given_another_key_only_by_who_may_write_all_of_its_keys() {
    let auth = guarded();
    let ali = found(&auth, "ali");
    let mut store = Store::new();
    let lease = LeaseId(7);
    let granted = LeaseCommand::Grant(crate::kv::Grant { lease, ttl_ms: 1_000 });
    store.apply(&Command::Lease(granted.clone()));
    let revoke = Command::Lease(LeaseCommand::Revoke(Revoke { lease }));
    let attach = Command::Put(Put { lease, ..put("b") });
    for (attached, expected, told) in [("w", Ok(()), DENIED), ("r", DENIED, DENIED)] {
        store.apply(&Command::Put(Put { lease, ..put(attached) }));
        assert_eq!(auth.may_run(ali, &revoke, &store), expected, "end with {attached}");
        assert_eq!(auth.may_run(ali, &attach, &store), expected, "attach beside {attached}");
        assert_eq!(auth.may_use_lease(ali, lease, true, &store), told, "keys with {attached}");
        assert_eq!(auth.may_use_lease(ali, lease, false, &store), Ok(()));
    }
    assert_eq!(auth.may_run(found(&auth, "root"), &revoke, &store), Ok(()));
    assert_eq!(auth.may_run(ali, &Command::Lease(granted), &store), Ok(()));
}

#[test]
fn compaction_alarms_and_users_are_for_root_and_the_cluster_does_what_it_must() {
    let (auth, store) = (guarded(), Store::new());
    let (ali, root) = (found(&auth, "ali"), found(&auth, "root"));
    for command in [
        Command::Compact(Compact { revision: Revision(1) }),
        Command::SpaceAlarm(SpaceAlarm::by_bytes(true)),
        Command::Lease(LeaseCommand::Checkpoint(Vec::new())),
    ] {
        assert_eq!(auth.may_run(ali, &command, &store), DENIED, "{command:?}");
        assert_eq!(auth.may_run(root, &command, &store), Ok(()), "{command:?}");
        assert_eq!(auth.may_run(Who::Cluster, &command, &store), Ok(()), "{command:?}");
    }
    assert_eq!(auth.may_administer(ali), DENIED);
    assert_eq!(auth.may_administer(root), Ok(()));
}

#[test]
fn everybody_may_ask_what_they_are_and_root_what_all_are() {
    let auth = guarded();
    let (ali, root) = (found(&auth, "ali"), found(&auth, "root"));
    let user = |name: &str| AuthQuery::User { name: name.to_owned() };
    let role = |name: &str| AuthQuery::Role { name: name.to_owned() };
    for query in [user("ali"), role("app")] {
        assert_eq!(auth.may_ask(ali, &query), Ok(()), "{query:?}");
    }
    for query in
        [user("root"), user("none"), role("root"), AuthQuery::Users, AuthQuery::Roles, AuthQuery::Status]
    {
        assert_eq!(auth.may_ask(ali, &query), DENIED, "{query:?}");
        assert_eq!(auth.may_ask(root, &query), Ok(()), "{query:?}");
    }
}

#[test]
fn a_watch_of_everything_from_a_key_on_needs_all_of_it() {
    let auth = guarded();
    let ali = found(&auth, "ali");
    assert_eq!(auth.may_watch(ali, &span("r", "s")), Ok(()));
    assert_eq!(auth.may_watch(ali, &KeyRange::From(text("r"))), DENIED);
    assert_eq!(auth.may_watch(ali, &span("q", "s")), DENIED);
    assert_eq!(auth.may_watch(ali, &span("r", "a")), Ok(()), "no key, and its first one may be read");
    assert_eq!(auth.may_watch(ali, &span("x", "a")), DENIED);
}

#[test]
fn whoever_asks_is_written_in_entries_and_read_back() {
    let user = Who::User { principal: Principal(5), revision: crate::ids::AuthRevision(9) };
    for who in [Who::Nobody, Who::Cluster, user] {
        let (principal, revision) = who.to_entry();
        assert_eq!(Who::of_entry(principal, revision), who);
    }
}

#[test]
fn a_secret_is_told_to_nobody() {
    assert!(!format!("{:?} {:?}", guarded(), add_user("ali")).contains("a hash"));
    assert_eq!(format!("{:?}", secret()), "Secret(…)");
}
