//! The same API as JSON over HTTP/1, and what monitoring asks, on the same port.

use crate::client::PATIENCE;
use crate::servers::mainstay;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

fn send(address: SocketAddr, method: &str, path: &str, body: &str) -> BufReader<TcpStream> {
    let mut socket = TcpStream::connect(address).expect("the member listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.0\r\nHost: m\r\nContent-Length: {length}\r\n\r\n");
    socket.write_all(head.as_bytes()).expect("a request can be sent");
    socket.write_all(body.as_bytes()).expect("a request can be sent");
    BufReader::new(socket)
}

/// The status and the body.
fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    read_answer(send(address, method, path, body))
}

fn read_answer(mut from: BufReader<TcpStream>) -> (u16, String) {
    let mut text = String::new();
    from.read_to_string(&mut text).expect("an answer");
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let (_, body) = text.split_once("\r\n\r\n").expect("a body");
    (status, body.to_owned())
}

pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    ask(address, "GET", path, "")
}

/// The same, with a head of its own.
pub(crate) fn post_as(address: SocketAddr, token: &str, path: &str, body: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).expect("the member listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: m\r\nAuthorization: {token}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    socket.write_all(head.as_bytes()).expect("a request can be sent");
    read_answer(BufReader::new(socket))
}

pub(crate) fn post(address: SocketAddr, path: &str, body: &str) -> (u16, String) {
    ask(address, "POST", path, body)
}

#[test]
fn keys_leases_and_locks_are_served_as_json() {
    let cluster = mainstay(1);
    let address = cluster.members[0].client;
    // "a" and "1" in base64.
    let (status, body) = post(address, "/v3/kv/put", r#"{"key":"YQ==","value":"MQ=="}"#);
    assert_eq!(status, 200);
    assert!(body.contains(r#""revision":"2""#), "64-bit numbers are strings: {body}");
    let (_, body) = post(address, "/v3/kv/range", r#"{"key":"YQ=="}"#);
    assert!(
        body.contains(r#""kvs":[{"key":"YQ==","create_revision":"2","mod_revision":"2","version":"1""#),
        "{body}"
    );
    assert!(body.contains(r#""count":"1""#) && !body.contains("more"), "what is empty is left out: {body}");
    let txn = r#"{"compare":[{"key":"YQ==","target":"VERSION","result":"EQUAL","version":"1"}],
                  "success":[{"request_delete_range":{"key":"YQ=="}}]}"#;
    let (_, body) = post(address, "/v3/kv/txn", txn);
    assert!(body.contains(r#""succeeded":true"#) && body.contains(r#""deleted":"1""#), "{body}");
    let (status, body) = post(address, "/v3/kv/range", r#"{"key":""}"#);
    assert_eq!(status, 400);
    assert!(body.contains(r#""message":"etcdserver: key is not provided","code":3"#), "{body}");
    let (_, body) = post(address, "/v3/lease/grant", r#"{"TTL":"600","ID":"123"}"#);
    assert!(body.contains(r#""ID":"123","TTL":"600""#), "{body}");
    let (_, body) = post(address, "/v3/lease/keepalive", r#"{"ID":"123"}"#);
    assert!(body.starts_with(r#"{"result":{"header""#) && body.contains(r#""TTL":"600""#), "{body}");
    // "lock" in base64; the key that comes back is "lock/7b".
    let (_, body) = post(address, "/v3/lock/lock", r#"{"name":"bG9jaw==","lease":"123"}"#);
    assert!(body.contains(r#""key":"bG9jay83Yg==""#), "{body}");
    let (status, _) = post(address, "/v3/nonsense", "{}");
    assert_eq!(status, 404);
}

#[test]
fn a_watch_as_json_is_a_line_for_each_answer() {
    let cluster = mainstay(1);
    let address = cluster.members[0].client;
    post(address, "/v3/kv/put", r#"{"key":"YQ==","value":"MQ=="}"#);
    let watch = r#"{"create_request":{"key":"YQ==","start_revision":"2"}}"#;
    let lines = send(address, "POST", "/v3/watch", watch).lines();
    let mut lines = lines.map(|line| line.expect("a line")).filter(|line| line.starts_with('{'));
    let created = lines.next().expect("it is created");
    assert!(created.contains(r#""created":true"#), "{created}");
    let told = lines.next().expect("it is told");
    assert!(told.contains(r#""events":[{"kv":{"key":"YQ==""#), "a put is the kind that is left out: {told}");
    let delete = r#"{"key":"YQ=="}"#;
    post(address, "/v3/kv/deleterange", delete);
    let told = lines.next().expect("it is told");
    assert!(told.contains(r#""type":"DELETE""#), "{told}");
}

#[test]
fn monitoring_is_told_how_a_member_is() {
    let cluster = mainstay(1);
    let address = cluster.members[0].client;
    let get = |path| get(address, path);
    assert_eq!(get("/health"), (200, r#"{"health":"true","reason":""}"#.to_owned()));
    assert_eq!(get("/livez"), (200, "ok\n".to_owned()));
    assert_eq!(get("/readyz"), (200, "ok\n".to_owned()));
    assert!(get("/version").1.starts_with(r#"{"etcdserver":"3.6.0""#));
    let (status, metrics) = get("/metrics");
    assert_eq!(status, 200);
    for line in
        ["etcd_server_has_leader 1", "etcd_server_is_leader 1", "etcd_debugging_mvcc_current_revision 1"]
    {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
    let resident = metrics.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    assert!(
        resident.is_some_and(|bytes| bytes.parse().is_ok_and(|bytes: u64| bytes > 1_000_000)),
        "{metrics}"
    );
}
