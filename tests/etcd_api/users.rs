//! Users, roles and what they may do: beside a real etcd, by `etcdctl`, and what etcd does not keep.

use crate::client::{Client, PATIENCE, block_on};
use crate::json::{get, post, post_as};
use crate::servers::{Etcd, etcdctl, mainstay};
use mainstay::api::etcd::proto::etcdserverpb as pb;
use prost::Message;
use std::net::SocketAddr;
use std::process::Command;
use tonic::{Code, Status};

/// One step of a script: who asks what.
struct Step {
    /// A name and a password; none for whoever says neither.
    who: Option<(&'static str, &'static str)>,
    path: &'static str,
    request: Vec<u8>,
}

fn step(who: Option<(&'static str, &'static str)>, path: &'static str, request: &impl Message) -> Step {
    Step { who, path, request: request.encode_to_vec() }
}

/// What a server says to a step: its fault, or that there is none.
async fn told(client: &Client, step: &Step) -> Result<(), (Code, String)> {
    let told = |status: Status| (status.code(), status.message().to_owned());
    let client = match step.who {
        None => client.clone(),
        Some((name, password)) => client.logged_in(name, password).await.map_err(told)?,
    };
    client.call_raw(step.path, step.request.clone()).await.map(|_| ()).map_err(told)
}

const ROOT: Option<(&str, &str)> = Some(("root", "pw"));
const ALI: Option<(&str, &str)> = Some(("ali", "secret"));

fn text(text: &str) -> String {
    text.to_owned()
}

fn add_user(name: &str, password: &str) -> pb::AuthUserAddRequest {
    pb::AuthUserAddRequest { name: text(name), password: text(password), ..Default::default() }
}

fn grant_role(user: &str, role: &str) -> pb::AuthUserGrantRoleRequest {
    pb::AuthUserGrantRoleRequest { user: text(user), role: text(role) }
}

fn grant(perm_type: i32, key: &'static str, range_end: &'static str) -> pb::AuthRoleGrantPermissionRequest {
    let perm = Some(pb::Permission { perm_type, key: key.into(), range_end: range_end.into() });
    pb::AuthRoleGrantPermissionRequest { name: text("app"), perm }
}

fn put(key: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: "1".into(), ..Default::default() }
}

fn range(key: &'static str, range_end: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() }
}

/// What is done before users count, and what is refused then.
fn setting_up() -> Vec<Step> {
    let role = |name| pb::AuthRoleAddRequest { name: text(name) };
    vec![
        step(ROOT, "/etcdserverpb.KV/Range", &range("a", "")),
        step(None, "/etcdserverpb.Auth/AuthEnable", &pb::AuthEnableRequest {}),
        step(None, "/etcdserverpb.Auth/RoleAdd", &role("root")),
        step(None, "/etcdserverpb.Auth/RoleGet", &pb::AuthRoleGetRequest { role: text("root") }),
        step(None, "/etcdserverpb.Auth/RoleDelete", &pb::AuthRoleDeleteRequest { role: text("root") }),
        step(None, "/etcdserverpb.Auth/UserAdd", &add_user("", "pw")),
        step(None, "/etcdserverpb.Auth/UserAdd", &add_user("root", "pw")),
        step(None, "/etcdserverpb.Auth/UserAdd", &add_user("root", "pw")),
        step(None, "/etcdserverpb.Auth/AuthEnable", &pb::AuthEnableRequest {}),
        step(None, "/etcdserverpb.Auth/UserGrantRole", &grant_role("root", "root")),
        step(None, "/etcdserverpb.Auth/UserGrantRole", &grant_role("nobody", "root")),
        step(None, "/etcdserverpb.Auth/UserAdd", &add_user("ali", "secret")),
        step(None, "/etcdserverpb.Auth/UserGrantRole", &grant_role("ali", "app")),
        step(None, "/etcdserverpb.Auth/RoleAdd", &role("")),
        step(None, "/etcdserverpb.Auth/RoleAdd", &role("app")),
        step(None, "/etcdserverpb.Auth/RoleAdd", &role("app")),
        step(None, "/etcdserverpb.Auth/RoleGrantPermission", &grant(2, "a", "c")),
        step(None, "/etcdserverpb.Auth/RoleGrantPermission", &grant(0, "r", "")),
        step(None, "/etcdserverpb.Auth/RoleGrantPermission", &grant(1, "w", "")),
        step(None, "/etcdserverpb.Auth/UserGrantRole", &grant_role("ali", "app")),
        step(None, "/etcdserverpb.Auth/RoleDelete", &pb::AuthRoleDeleteRequest { role: text("other") }),
        step(None, "/etcdserverpb.Auth/UserGet", &pb::AuthUserGetRequest { name: text("other") }),
        step(None, "/etcdserverpb.Auth/RoleGet", &pb::AuthRoleGetRequest { role: text("other") }),
        step(None, "/etcdserverpb.Auth/AuthDisable", &pb::AuthDisableRequest {}),
        step(None, "/etcdserverpb.Auth/AuthEnable", &pb::AuthEnableRequest {}),
    ]
}

/// What is done and refused while they do.
fn counting() -> Vec<Step> {
    let delete = |key: &'static str, prev_kv| pb::DeleteRangeRequest {
        key: key.into(),
        prev_kv,
        ..Default::default()
    };
    let txn = |request| pb::TxnRequest {
        success: vec![pb::RequestOp { request: Some(request) }],
        ..Default::default()
    };
    let user = |name: &str| pb::AuthUserGetRequest { name: text(name) };
    let nothing = pb::AuthRoleGrantPermissionRequest { name: text("app"), perm: None };
    let revoke =
        pb::AuthRoleRevokePermissionRequest { role: text("app"), key: "x".into(), ..Default::default() };
    vec![
        step(None, "/etcdserverpb.KV/Put", &put("a")),
        step(None, "/etcdserverpb.KV/Range", &range("a", "")),
        step(None, "/etcdserverpb.Auth/UserList", &pb::AuthUserListRequest {}),
        step(ALI, "/etcdserverpb.Auth/UserAdd", &add_user("", "pw")),
        step(ROOT, "/etcdserverpb.Auth/UserAdd", &add_user("", "pw")),
        step(ALI, "/etcdserverpb.Auth/RoleGrantPermission", &nothing),
        step(ROOT, "/etcdserverpb.Auth/RoleGrantPermission", &nothing),
        step(Some(("ali", "wrong")), "/etcdserverpb.KV/Put", &put("a")),
        step(Some(("eve", "secret")), "/etcdserverpb.KV/Put", &put("a")),
        step(ALI, "/etcdserverpb.KV/Put", &put("a")),
        step(ALI, "/etcdserverpb.KV/Put", &put("c")),
        step(ALI, "/etcdserverpb.KV/Put", &put("w")),
        step(ALI, "/etcdserverpb.KV/Put", &pb::PutRequest { prev_kv: true, ..put("w") }),
        step(ALI, "/etcdserverpb.KV/Put", &put("r")),
        step(ALI, "/etcdserverpb.KV/Range", &range("r", "")),
        step(ALI, "/etcdserverpb.KV/Range", &range("w", "")),
        step(ALI, "/etcdserverpb.KV/Range", &range("a", "c")),
        step(ALI, "/etcdserverpb.KV/Range", &range("a", "d")),
        step(ALI, "/etcdserverpb.KV/Range", &range("a", "\0")),
        step(ALI, "/etcdserverpb.KV/DeleteRange", &delete("w", false)),
        step(ALI, "/etcdserverpb.KV/DeleteRange", &delete("w", true)),
        step(ALI, "/etcdserverpb.KV/DeleteRange", &delete("r", false)),
        step(ALI, "/etcdserverpb.KV/Txn", &txn(pb::request_op::Request::RequestPut(put("b")))),
        step(ALI, "/etcdserverpb.KV/Txn", &txn(pb::request_op::Request::RequestPut(put("c")))),
        step(ALI, "/etcdserverpb.Auth/UserGet", &user("ali")),
        step(ALI, "/etcdserverpb.Auth/UserGet", &user("root")),
        step(ALI, "/etcdserverpb.Auth/UserList", &pb::AuthUserListRequest {}),
        step(ALI, "/etcdserverpb.Auth/RoleGet", &pb::AuthRoleGetRequest { role: text("app") }),
        step(ALI, "/etcdserverpb.Auth/AuthDisable", &pb::AuthDisableRequest {}),
        step(ROOT, "/etcdserverpb.KV/Range", &range("\0", "\0")),
        step(ROOT, "/etcdserverpb.Auth/RoleGet", &pb::AuthRoleGetRequest { role: text("root") }),
        step(ROOT, "/etcdserverpb.Auth/RoleRevokePermission", &revoke),
        step(ROOT, "/etcdserverpb.Auth/UserDelete", &pb::AuthUserDeleteRequest { name: text("root") }),
        step(ROOT, "/etcdserverpb.Auth/RoleDelete", &pb::AuthRoleDeleteRequest { role: text("root") }),
        step(
            ROOT,
            "/etcdserverpb.Auth/UserRevokeRole",
            &pb::AuthUserRevokeRoleRequest { name: text("ali"), role: text("other") },
        ),
        step(ROOT, "/etcdserverpb.Auth/UserDelete", &pb::AuthUserDeleteRequest { name: text("ali") }),
        step(ALI, "/etcdserverpb.KV/Put", &put("a")),
        step(ROOT, "/etcdserverpb.Auth/AuthDisable", &pb::AuthDisableRequest {}),
        step(None, "/etcdserverpb.KV/Put", &put("a")),
    ]
}

#[test]
fn etcd_and_we_say_the_same_of_users_and_to_them() {
    let Some(etcd) = Etcd::start("etcd_and_we_say_the_same_of_users_and_to_them") else { return };
    let cluster = mainstay(1);
    block_on(async {
        let theirs = Client::connect(etcd.client).await;
        let ours = Client::connect(cluster.members[0].client).await;
        for (number, step) in setting_up().into_iter().chain(counting()).enumerate() {
            let (expected, found) = (told(&theirs, &step).await, told(&ours, &step).await);
            assert_eq!(found, expected, "step {number}: {:?} asks {}", step.who, step.path);
        }
    });
}

async fn done(client: &Client, steps: Vec<Step>) {
    for step in steps {
        // What is refused there is refused there.
        let _ = told(client, &step).await;
    }
}

fn of_fault(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

/// What is asked of members and alarms by nobody (GHSA-q8m4-xhhv-38mg), and what only root may.
#[test]
fn members_alarms_leases_and_upkeep_are_not_for_everybody() {
    let cluster = mainstay(1);
    block_on(async {
        let nobody = Client::connect(cluster.members[0].client).await;
        done(&nobody, setting_up()).await;
        let ali = nobody.logged_in("ali", "secret").await.expect("ali logs in");
        let root = nobody.logged_in("root", "pw").await.expect("root logs in");
        let empty = (Code::InvalidArgument, "etcdserver: user name is empty");
        let denied = (Code::PermissionDenied, "etcdserver: permission denied");
        for path in [
            "/etcdserverpb.Cluster/MemberList",
            "/etcdserverpb.Lease/LeaseLeases",
            "/etcdserverpb.Lease/LeaseGrant",
        ] {
            let refused = nobody.call_raw(path, Vec::new()).await.expect_err("nobody may");
            assert_eq!(of_fault(&refused), empty, "{path}");
        }
        nobody.call_raw("/etcdserverpb.Cluster/MemberList", Vec::new()).await.expect_err("nobody may");
        ali.call_raw("/etcdserverpb.Cluster/MemberList", Vec::new()).await.expect("any user may");
        let upkeep = ["Alarm", "Defragment", "Hash", "HashKV", "MoveLeader"];
        for path in
            upkeep.map(|call| &*Box::leak(format!("/etcdserverpb.Maintenance/{call}").into_boxed_str()))
        {
            let refused = nobody.call_raw(path, Vec::new()).await.expect_err("nobody may");
            assert_eq!(of_fault(&refused), empty, "{path}");
            let refused = ali.call_raw(path, Vec::new()).await.expect_err("ali may not");
            assert_eq!(of_fault(&refused), denied, "{path}");
        }
        root.call_raw("/etcdserverpb.Maintenance/HashKV", Vec::new()).await.expect("root may");
        nobody.call_raw("/etcdserverpb.Maintenance/Status", Vec::new()).await.expect("anybody may");
    });
}

#[test]
fn a_token_counts_for_who_got_it_until_users_or_roles_change() {
    let cluster = mainstay(3);
    block_on(async {
        let nobody = Client::connect(cluster.members[0].client).await;
        done(&nobody, setting_up()).await;
        let elsewhere = Client::connect(cluster.members[2].client).await;
        let ali = elsewhere.logged_in("ali", "secret").await.expect("any member gives tokens");
        ali.put("a", "1").await.expect("and takes them");
        let forged = nobody.showing("00ff").put("a", "1").await.expect_err("it is none");
        assert_eq!(of_fault(&forged), (Code::Unauthenticated, "etcdserver: invalid auth token"));
        let root = nobody.logged_in("root", "pw").await.expect("root logs in");
        let role = pb::AuthRoleAddRequest { name: text("new") };
        root.call::<_, pb::AuthRoleAddResponse>("/etcdserverpb.Auth/RoleAdd", role).await.expect("it is new");
        let old = ali.put("a", "2").await.expect_err("who may what has changed");
        assert_eq!(of_fault(&old), (Code::InvalidArgument, "etcdserver: revision of auth store is old"));
        ali.logged_in("ali", "secret")
            .await
            .expect("ali logs in anew")
            .put("a", "2")
            .await
            .expect("and goes on");
    });
}

/// Whoever withdraws something by way of a member that does not lead finds it withdrawn there, in local reads too, as with
/// etcd, which answers when the member that was asked has done it.
#[test]
fn what_a_follower_says_is_withdrawn_is_withdrawn_in_its_local_reads() {
    let cluster = mainstay(3);
    let (leader, _) = cluster.leader(PATIENCE).expect("somebody leads");
    let follower = cluster.members[(leader + 1) % 3].client;
    block_on(async {
        let nobody = Client::connect(follower).await;
        done(&nobody, setting_up()).await;
        let local = pb::RangeRequest { serializable: true, ..range("a", "") };
        for _ in 0..5 {
            // A token counts for one revision of users and roles, so both log in anew after every change.
            let root = nobody.logged_in("root", "pw").await.expect("root logs in");
            let grant_role = grant_role("ali", "app");
            let _: pb::AuthUserGrantRoleResponse =
                root.call("/etcdserverpb.Auth/UserGrantRole", grant_role).await.expect("it is granted");
            let ali = nobody.logged_in("ali", "secret").await.expect("ali logs in");
            let root = nobody.logged_in("root", "pw").await.expect("root logs in");
            ali.call::<_, pb::RangeResponse>("/etcdserverpb.KV/Range", local.clone()).await.expect("ali may");
            let revoke = pb::AuthUserRevokeRoleRequest { name: text("ali"), role: text("app") };
            let _: pb::AuthUserRevokeRoleResponse =
                root.call("/etcdserverpb.Auth/UserRevokeRole", revoke).await.expect("it is withdrawn");
            let refused = ali.call::<_, pb::RangeResponse>("/etcdserverpb.KV/Range", local.clone()).await;
            refused.expect_err("ali may not any more");
        }
    });
}

#[test]
fn users_log_in_and_are_served_over_json() {
    let cluster = mainstay(1);
    let address = cluster.members[0].client;
    block_on(async { done(&Client::connect(address).await, setting_up()).await });
    assert_eq!(get(address, "/health").0, 200, "it is well, for whoever asks");
    let (status, body) = post(address, "/v3/kv/range", r#"{"key":"YQ=="}"#);
    assert_eq!(status, 400);
    assert!(body.contains("etcdserver: user name is empty"), "{body}");
    let (status, body) =
        post_as(address, "none", "/v3/auth/authenticate", r#"{"name":"ali","password":"secret"}"#);
    assert_eq!(status, 200, "{body}");
    let token = body.split("\"token\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a token");
    let (status, body) = post_as(address, token, "/v3/kv/range", r#"{"key":"YQ=="}"#);
    assert_eq!(status, 200, "{body}");
    let (status, body) = post_as(address, token, "/v3/kv/range", r#"{"key":"eg=="}"#);
    assert_eq!(status, 403, "{body}");
    assert!(body.contains("etcdserver: permission denied"), "{body}");
    let (status, body) = post_as(address, "none", "/v3/kv/range", r#"{"key":"YQ=="}"#);
    assert_eq!(status, 401, "{body}");
    let (status, body) = post_as(address, token, "/v3/auth/user/get", r#"{"name":"ali"}"#);
    assert!(status == 200 && body.contains(r#""roles":["app"]"#), "{body}");
}

/// What `etcdctl` prints, and whether it was pleased.
fn run_etcdctl(program: &std::path::Path, address: SocketAddr, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program)
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &address.to_string()])
        .args(arguments)
        .output()
        .expect("etcdctl runs");
    let words = [output.stdout, output.stderr].concat();
    let words = String::from_utf8_lossy(&words);
    // Times and addresses are in its logs, which are lines of JSON.
    let said = words.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join("\n");
    (output.status.success(), said)
}

#[test]
fn etcdctl_says_the_same_of_us_and_of_etcd() {
    let Some(etcd) = Etcd::start("etcdctl_says_the_same_of_us_and_of_etcd") else { return };
    let Some(program) = etcdctl() else {
        println!("etcdctl_says_the_same_of_us_and_of_etcd: SKIPPED, there is no etcdctl");
        return;
    };
    let cluster = mainstay(1);
    let (root, ali) = ("--user=root:pw", "--user=ali:secret");
    let script: &[&[&str]] = &[
        &["auth", "status"],
        &["user", "add", "root:pw"],
        &["user", "add", "ali:secret"],
        &["user", "add", "cert", "--no-password"],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "app"],
        &["role", "grant-permission", "app", "readwrite", "app/", "--prefix"],
        &["role", "grant-permission", "app", "read", "z", "--from-key"],
        &["role", "get", "app"],
        &["role", "list"],
        &["user", "grant-role", "ali", "app"],
        &["user", "get", "ali"],
        &["user", "list"],
        &["auth", "enable"],
        &["get", "app/x"],
        &[root, "auth", "status"],
        &[ali, "put", "app/x", "1"],
        &[ali, "get", "app/x"],
        &[ali, "get", "app/", "--prefix"],
        &[ali, "get", "b"],
        &[ali, "put", "b", "1"],
        &[ali, "user", "list"],
        &[ali, "user", "get", "ali"],
        &["--user=ali:wrong", "get", "app/x"],
        &[root, "user", "passwd", "nobody", "--interactive=false"],
        &[root, "role", "revoke-permission", "app", "app/", "--prefix"],
        &[ali, "get", "app/x"],
        &[root, "user", "revoke-role", "ali", "app"],
        &[root, "user", "delete", "ali"],
        &[root, "role", "delete", "app"],
        &[root, "user", "delete", "root"],
        &[root, "auth", "disable"],
        &["get", "app/x"],
    ];
    for arguments in script {
        let expected = run_etcdctl(&program, etcd.client, arguments);
        let found = run_etcdctl(&program, cluster.members[0].client, arguments);
        assert_eq!(found, expected, "etcdctl {}", arguments.join(" "));
    }
}
