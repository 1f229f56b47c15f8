//! Users, roles, permissions and requests under them, from a seed, to ours and to a real etcd: the answers are the same.
//!
//! Whoever asks is root, another user, nobody, or somebody unknown; what is asked is about users and roles, or for pairs.
//! Left out is what etcd 3.5 does not look at (`src/api/etcd/DIFFERENCES.md`): pairs told back by a put in a transaction,
//! transactions in transactions, leases, compaction, transactions of nothing; ranges that end before they begin; and what
//! there is to be known of a user without a name. Users log in anew after each change of users and roles, as clients do.

use crate::client::{Client, block_on};
use crate::differential::{Said, from_environment, normalise, tell};
use crate::generator::{Ask, Generator};
use crate::servers::{Etcd, mainstay};
use bytes::Bytes;
use mainstay::api::etcd::proto::etcdserverpb as pb;
use prost::Message;
use std::collections::BTreeMap;
use tonic::{Code, Status};

const REQUESTS_COUNT: u64 = 400;

const USERS: [&str; 3] = ["root", "ali", "bea"];
const ROLES: [&str; 4] = ["root", "app", "all", "none"];
const PASSWORDS: [&str; 2] = ["one", "two"];
/// Ends of permissions: one key, from the key on, up to others.
const ENDS: [&str; 6] = ["", "\0", "b", "bb", "d", "f"];

/// What is asked about users and roles.
struct Deed {
    path: &'static str,
    request: Vec<u8>,
    /// The password that a user has once it is done.
    password: Option<(String, String)>,
    /// Whether it changes anything.
    changes: bool,
}

/// What is said to it: lists, numbers, or a fault.
#[derive(Clone, Debug, PartialEq)]
enum Heard {
    Rows(Vec<Vec<u8>>),
    Status(bool, u64),
    Store(Said),
    Fault(Code, String),
}

/// All answers about users and roles, but for tokens and the status: lists of names or permissions.
#[derive(Clone, PartialEq, Message)]
struct Rows {
    #[prost(bytes = "vec", repeated, tag = "2")]
    rows: Vec<Vec<u8>>,
}

fn fault(status: &Status) -> Heard {
    Heard::Fault(status.code(), status.message().to_owned())
}

fn understood(path: &str, answer: &[u8]) -> Heard {
    match path {
        "/etcdserverpb.Auth/Authenticate" => Heard::Rows(Vec::new()),
        "/etcdserverpb.Auth/AuthStatus" => {
            let status = pb::AuthStatusResponse::decode(answer).expect("it is a message");
            Heard::Status(status.enabled, status.auth_revision)
        }
        _ => {
            let mut rows = Rows::decode(answer).expect("it is a message").rows;
            // etcd tells permissions of one key in the order in which they were granted, and root's twice.
            if path == "/etcdserverpb.Auth/RoleGet" {
                rows.sort_unstable();
                rows.dedup();
            }
            Heard::Rows(rows)
        }
    }
}

/// One server, and who is logged in there.
struct Side {
    nobody: Client,
    known: BTreeMap<String, Client>,
}

impl Side {
    async fn new(address: std::net::SocketAddr) -> Self {
        Self { nobody: Client::connect(address).await, known: BTreeMap::new() }
    }

    async fn who(&mut self, who: Option<&(String, String)>) -> Result<Client, Heard> {
        let Some((name, password)) = who else { return Ok(self.nobody.clone()) };
        let as_known = format!("{name}:{password}");
        if let Some(client) = self.known.get(&as_known) {
            return Ok(client.clone());
        }
        let client = self.nobody.logged_in(name, password).await.map_err(|status| fault(&status))?;
        self.known.insert(as_known, client.clone());
        Ok(client)
    }

    async fn deed(&mut self, who: Option<&(String, String)>, deed: &Deed) -> Heard {
        let client = match self.who(who).await {
            Ok(client) => client,
            Err(heard) => return heard,
        };
        match client.call_raw(deed.path, deed.request.clone()).await {
            Ok(answer) => understood(deed.path, &answer),
            Err(status) => fault(&status),
        }
    }

    async fn ask(&mut self, who: Option<&(String, String)>, ask: &Ask) -> Heard {
        match self.who(who).await {
            Ok(client) => {
                let mut said = tell(&client, ask).await;
                normalise(ask, &mut said);
                Heard::Store(said)
            }
            Err(heard) => heard,
        }
    }
}

/// What a script knows of the users that it made.
struct Script {
    generator: Generator,
    passwords: BTreeMap<String, String>,
    is_enabled: bool,
}

impl Script {
    fn name(&mut self, names: &[&'static str]) -> String {
        if self.generator.once_in(30) { String::new() } else { self.generator.one_of(names).to_owned() }
    }

    /// Who asks; none is nobody.
    fn who(&mut self) -> Option<(String, String)> {
        if !self.is_enabled || self.generator.once_in(10) {
            return None;
        }
        let name = match self.generator.below(20) {
            0..8 => "root",
            8..14 => "ali",
            14..19 => "bea",
            _ => "eve",
        };
        let password = match self.passwords.get(name) {
            Some(password) if !self.generator.once_in(20) => password.clone(),
            _ => "wrong".to_owned(),
        };
        Some((name.to_owned(), password))
    }

    fn deed(&mut self) -> Deed {
        let (name, role) = (self.name(&USERS), self.name(&ROLES));
        let password = self.generator.one_of(&PASSWORDS).to_owned();
        let deed = |path, request: Vec<u8>| Deed { path, request, password: None, changes: true };
        match self.generator.below(24) {
            0..3 => {
                let request = pb::AuthUserAddRequest {
                    name: name.clone(),
                    password: password.clone(),
                    ..Default::default()
                };
                let deed = deed("/etcdserverpb.Auth/UserAdd", request.encode_to_vec());
                Deed { password: Some((name, password)), ..deed }
            }
            3 => {
                let request = pb::AuthUserChangePasswordRequest {
                    name: name.clone(),
                    password: password.clone(),
                    ..Default::default()
                };
                let deed = deed("/etcdserverpb.Auth/UserChangePassword", request.encode_to_vec());
                Deed { password: Some((name, password)), ..deed }
            }
            4 => deed("/etcdserverpb.Auth/UserDelete", pb::AuthUserDeleteRequest { name }.encode_to_vec()),
            5..8 => {
                let request = pb::AuthUserGrantRoleRequest { user: name, role };
                deed("/etcdserverpb.Auth/UserGrantRole", request.encode_to_vec())
            }
            8 => {
                let request = pb::AuthUserRevokeRoleRequest { name, role };
                deed("/etcdserverpb.Auth/UserRevokeRole", request.encode_to_vec())
            }
            9..11 => {
                deed("/etcdserverpb.Auth/RoleAdd", pb::AuthRoleAddRequest { name: role }.encode_to_vec())
            }
            11 => deed("/etcdserverpb.Auth/RoleDelete", pb::AuthRoleDeleteRequest { role }.encode_to_vec()),
            12..16 => {
                // A key has one end in each role: of several, etcd's search finds one and may write down another twice.
                let keys = ["a", "b", "ba", "c", "\0"];
                let place = usize::try_from(self.generator.below(keys.len() as u64)).expect("small");
                let perm = Some(pb::Permission {
                    perm_type: self.generator.one_of(&[0, 1, 2]),
                    key: keys[place].into(),
                    range_end: ENDS[(place + role.len()) % ENDS.len()].into(),
                });
                let request = pb::AuthRoleGrantPermissionRequest { name: role, perm };
                deed("/etcdserverpb.Auth/RoleGrantPermission", request.encode_to_vec())
            }
            16 => {
                let request = pb::AuthRoleRevokePermissionRequest {
                    role,
                    key: self.generator.one_of(&["a", "b", "ba", "c", "\0"]).into(),
                    range_end: self.generator.one_of(&ENDS).into(),
                };
                deed("/etcdserverpb.Auth/RoleRevokePermission", request.encode_to_vec())
            }
            kind => self.looking(kind, name, role),
        }
    }

    /// Deeds that change nothing, and those by which permissions begin and cease to count.
    fn looking(&mut self, kind: u64, name: String, role: String) -> Deed {
        let (path, request, changes) = match kind {
            17 => {
                let name = if name.is_empty() { "ali".to_owned() } else { name };
                ("/etcdserverpb.Auth/UserGet", pb::AuthUserGetRequest { name }.encode_to_vec(), false)
            }
            18 => ("/etcdserverpb.Auth/RoleGet", pb::AuthRoleGetRequest { role }.encode_to_vec(), false),
            19 => ("/etcdserverpb.Auth/UserList", Vec::new(), false),
            20 => ("/etcdserverpb.Auth/RoleList", Vec::new(), false),
            21 => {
                let password = self.generator.one_of(&PASSWORDS).to_owned();
                let request = pb::AuthenticateRequest { name, password };
                ("/etcdserverpb.Auth/Authenticate", request.encode_to_vec(), false)
            }
            22 => ("/etcdserverpb.Auth/AuthStatus", Vec::new(), false),
            _ if self.is_enabled && !self.generator.once_in(4) => {
                ("/etcdserverpb.Auth/UserList", Vec::new(), false)
            }
            _ if self.is_enabled => ("/etcdserverpb.Auth/AuthDisable", Vec::new(), true),
            _ => ("/etcdserverpb.Auth/AuthEnable", Vec::new(), true),
        };
        Deed { path, request, password: None, changes }
    }

    /// What is asked for pairs.
    fn ask(&mut self) -> Ask {
        match self.generator.below(4) {
            0 => {
                let mut range = self.generator.range(false);
                range.range_end = forward(&range.key, &range.range_end);
                Ask::Range(range)
            }
            _ => match self.generator.write() {
                Ask::Put(mut put) => {
                    put.lease = 0;
                    Ask::Put(put)
                }
                Ask::Txn(txn) => {
                    let mut txn = flat(txn);
                    if txn.compare.is_empty() && txn.success.is_empty() && txn.failure.is_empty() {
                        txn.success.push(read_of("a"));
                    }
                    Ask::Txn(txn)
                }
                Ask::DeleteRange(mut delete) => {
                    delete.range_end = forward(&delete.key, &delete.range_end);
                    Ask::DeleteRange(delete)
                }
                other => other,
            },
        }
    }
}

/// The same, without what etcd 3.5 does not look at.
fn flat(mut txn: pb::TxnRequest) -> pb::TxnRequest {
    use pb::request_op::Request;
    for list in [&mut txn.success, &mut txn.failure] {
        list.retain(|operation| !matches!(operation.request, Some(Request::RequestTxn(_))));
        for operation in list {
            if let Some(Request::RequestPut(put)) = &mut operation.request {
                (put.prev_kv, put.lease) = (false, 0);
            }
        }
    }
    for compare in &mut txn.compare {
        compare.range_end = forward(&compare.key, &compare.range_end);
    }
    for operation in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut operation.request {
            Some(Request::RequestRange(it)) => it.range_end = forward(&it.key, &it.range_end),
            Some(Request::RequestDeleteRange(it)) => it.range_end = forward(&it.key, &it.range_end),
            _ => {}
        }
    }
    txn
}

fn read_of(key: &'static str) -> pb::RequestOp {
    let range = pb::RangeRequest { key: key.into(), ..Default::default() };
    pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(range)) }
}

/// The end of a range, unless it is before its beginning.
fn forward(start: &Bytes, end: &Bytes) -> Bytes {
    if end.as_ref() == b"\0" || end > start { end.clone() } else { Bytes::new() }
}

/// Whether it is not looked at first who asks for it.
fn is_refused_to_anybody(expected: &Heard, found: &Heard) -> bool {
    let text = |heard: &Heard| match heard {
        Heard::Store(Said::Fault(_, text)) => text.clone(),
        _ => String::new(),
    };
    let denied = ["etcdserver: permission denied", "etcdserver: user name is empty"];
    text(expected) == "etcdserver: duplicate key given in txn request"
        && denied.contains(&text(found).as_str())
}

#[test]
fn etcd_and_we_let_users_do_the_same() {
    let Some(etcd) = Etcd::start("etcd_and_we_let_users_do_the_same") else { return };
    let cluster = mainstay(1);
    let count = from_environment("MAINSTAY_DIFFERENTIAL", REQUESTS_COUNT);
    let seed = from_environment("MAINSTAY_SEED", u64::from(std::process::id()));
    println!("{count} requests, MAINSTAY_SEED={seed}");
    block_on(async {
        let mut theirs = Side::new(etcd.client).await;
        let mut ours = Side::new(cluster.members[0].client).await;
        let mut script =
            Script { generator: Generator::new(seed), passwords: BTreeMap::new(), is_enabled: false };
        for number in 0..count {
            let who = script.who();
            let what = format!("request {number} of MAINSTAY_SEED={seed}, by {who:?}");
            if script.generator.below(5) < 3 {
                let ask = script.ask();
                let (expected, found) =
                    (theirs.ask(who.as_ref(), &ask).await, ours.ask(who.as_ref(), &ask).await);
                let is_explained = is_refused_to_anybody(&expected, &found);
                assert!(
                    found == expected || is_explained,
                    "{what}: {ask:#?}\nwe say\n{found:#?}\netcd says\n{expected:#?}"
                );
                continue;
            }
            let deed = script.deed();
            let (expected, found) =
                (theirs.deed(who.as_ref(), &deed).await, ours.deed(who.as_ref(), &deed).await);
            let request = String::from_utf8_lossy(&deed.request);
            assert_eq!(found, expected, "{what}, to {} {request:?}: we on the left", deed.path);
            if deed.changes && matches!(expected, Heard::Rows(_)) {
                (theirs.known, ours.known) = (BTreeMap::new(), BTreeMap::new());
                script.is_enabled = match deed.path {
                    "/etcdserverpb.Auth/AuthEnable" => true,
                    "/etcdserverpb.Auth/AuthDisable" => false,
                    _ => script.is_enabled,
                };
                script.passwords.extend(deed.password);
            }
        }
    });
}
