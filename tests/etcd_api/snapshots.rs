//! `Snapshot`: a file that etcd's own programs look at, restore and serve.
//!
//! `MAINSTAY_SNAPSHOT=50000 cargo test --test etcd_api a_snapshot` has so many pairs in it.

use crate::client::{Client, block_on};
use crate::differential::from_environment;
use crate::servers::{Etcd, etcdctl, mainstay};
use crate::watches::Stream;
use mainstay::api::etcd::proto::etcdserverpb as pb;
use mainstay::api::etcd::proto::mvccpb::KeyValue;
use pb::watch_request::RequestUnion;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Enough for a tree of two levels of branches.
const PAIRS_COUNT: u64 = 10_000;

/// Keys in one transaction.
const TXN_KEYS: usize = 100;

const LEASE: i64 = 77;

/// Of what a file holds beside pairs and leases: which revision was compacted, twice.
const OTHERS_COUNT: u64 = 2;

fn put_operation(key: String, value: Vec<u8>, lease: i64) -> pb::RequestOp {
    let put = pb::PutRequest { key: key.into(), value: value.into(), lease, ..Default::default() };
    pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
}

async fn all(client: &Client) -> (i64, Vec<KeyValue>) {
    let range = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    let found: pb::RangeResponse =
        client.call("/etcdserverpb.KV/Range", range).await.expect("a range is served");
    (found.header.expect("a header").revision, found.kvs)
}

/// A file of its own that is removed in the end.
struct Saved(PathBuf);

impl Saved {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("mainstay-saved-{}-{name}", std::process::id())))
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        // It may never have come to be.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn run(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).env("ETCDCTL_API", "3").args(arguments).output().expect("it runs");
    let words = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{arguments:?}: {words}");
    words
}

/// A number in a line of JSON.
fn number(json: &str, name: &str) -> u64 {
    let rest = json.split(&format!("\"{name}\":")).nth(1).expect("the field is there");
    rest.split([',', '}']).next().expect("a number").parse().expect("a number")
}

/// Saves a snapshot of ours by etcd's program, and looks at it by the same; the revision and how many pairs of any kind.
fn saved(program: &Path, member: SocketAddr, file: &str) -> (u64, u64) {
    run(program, &["--endpoints", &member.to_string(), "snapshot", "save", file]);
    let status = run(program, &["snapshot", "status", file, "--write-out", "json"]);
    let status = status.lines().find(|line| line.contains("totalKey")).expect("a status");
    (number(status, "revision"), number(status, "totalKey"))
}

/// An etcd that was started on a snapshot of this member, which has `leases_count` leases.
async fn restored(name: &str, member: SocketAddr, leases_count: u64) -> Option<Etcd> {
    let program = etcdctl()?;
    let ours = Client::connect(member).await;
    let (revision, pairs) = all(&ours).await;
    let file = Saved::new(name);
    let path = file.0.to_str().expect("a path");
    let (saved_revision, count) = saved(&program, member, path);
    let revision = u64::try_from(revision).expect("a revision");
    let expected = match (revision, pairs.len() as u64) {
        // So does etcd, before anything was ever written.
        (1, 0) => (0, 0),
        // By a deletion of no key, which shows the revision.
        (_, 0) => (revision, 1 + OTHERS_COUNT),
        (_, pairs_count) => (revision, pairs_count + OTHERS_COUNT),
    };
    assert_eq!((saved_revision, count), (expected.0, expected.1 + leases_count), "{name}");
    let etcd = Etcd::start_on(name, |directory, cluster| {
        let directory = directory.to_str().expect("a path");
        let peer = cluster.trim_start_matches("default=");
        let restore = ["snapshot", "restore", path, "--data-dir", directory, "--name", "default"];
        run(
            &program,
            &[&restore[..], &["--initial-cluster", cluster, "--initial-advertise-peer-urls", peer]].concat(),
        );
    })?;
    let theirs = Client::connect(etcd.client).await;
    assert_eq!(all(&theirs).await, all(&ours).await, "{name}");
    Some(etcd)
}

/// What a watch of everything from `revision` on is told, up to the change of `last`.
async fn told(client: &Client, revision: i64, last: &str) -> Vec<(i32, KeyValue)> {
    let mut stream = Stream::open(client);
    stream.ask(RequestUnion::CreateRequest(pb::WatchCreateRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        start_revision: revision,
        ..Default::default()
    }));
    let mut events = Vec::new();
    loop {
        for event in stream.next().await.events {
            events.push((event.r#type, event.kv.expect("a pair")));
            if events.last().is_some_and(|(_, pair)| pair.key == last) {
                return events;
            }
        }
    }
}

#[test]
fn a_snapshot_is_looked_at_restored_and_served_by_etcd() {
    let test = "a_snapshot_is_looked_at_restored_and_served_by_etcd";
    if etcdctl().is_none() {
        println!("{test}: SKIPPED, there is no etcdctl beside an etcd: run scripts/get-etcd.sh");
        return;
    }
    let cluster = mainstay(1);
    let member = cluster.members[0].client;
    block_on(async {
        let ours = Client::connect(member).await;
        let call_txn = async |success: Vec<pb::RequestOp>| {
            let txn = pb::TxnRequest { success, ..Default::default() };
            let _: pb::TxnResponse = ours.call("/etcdserverpb.KV/Txn", txn).await.expect("a txn is served");
        };
        let _ = restored("nothing", member, 0).await;
        ours.put("one", "1").await.expect("a put is served");
        let _ = restored("one", member, 0).await;
        let gone = pb::DeleteRangeRequest { key: "one".into(), ..Default::default() };
        let _: pb::DeleteRangeResponse =
            ours.call("/etcdserverpb.KV/DeleteRange", gone).await.expect("a deletion is served");
        let _ = restored("none", member, 0).await;

        let grant = pb::LeaseGrantRequest { id: LEASE, ttl: 1_000 };
        let _: pb::LeaseGrantResponse =
            ours.call("/etcdserverpb.Lease/LeaseGrant", grant).await.expect("granted");
        let numbers: Vec<u64> = (0..from_environment("MAINSTAY_SNAPSHOT", PAIRS_COUNT)).collect();
        for numbers in numbers.chunks(TXN_KEYS) {
            let put = |number: &u64| put_operation(format!("many/{number:08}"), vec![b'x'; 30], 0);
            call_txn(numbers.iter().map(put).collect()).await;
        }
        for bytes in [0, 1, 4_000, 4_096, 10_000, 1_048_576] {
            call_txn(vec![put_operation(format!("long/{bytes}"), vec![b'y'; bytes], LEASE)]).await;
        }
        // In another order than that of the keys, and some for the second and third time.
        for key in ["many/00000007", "long/1", "long/0", "many/00000007", "a"] {
            ours.put(key, "again").await.expect("a put is served");
        }
        let etcd = restored("many", member, 1).await.expect("there is one");
        let theirs = Client::connect(etcd.client).await;
        let ttl = pb::LeaseTimeToLiveRequest { id: LEASE, keys: true };
        let found: pb::LeaseTimeToLiveResponse =
            theirs.call("/etcdserverpb.Lease/LeaseTimeToLive", ttl).await.expect("it is told");
        let keys = ["long/10000", "long/1048576", "long/4000", "long/4096"];
        let mut found_keys = found.keys.clone();
        found_keys.sort();
        assert_eq!((found.granted_ttl, found_keys), (1_000, keys.map(Into::into).to_vec()));
        life_goes_on(&ours, &theirs).await;
    });
}

/// Both do the same from here on, though one of them has no history.
async fn life_goes_on(ours: &Client, theirs: &Client) {
    let (revision, _) = all(ours).await;
    for client in [ours, theirs] {
        client.put("many/00000007", "more").await.expect("a put is served");
        let gone = pb::DeleteRangeRequest { key: "long/1".into(), ..Default::default() };
        let _: pb::DeleteRangeResponse =
            client.call("/etcdserverpb.KV/DeleteRange", gone).await.expect("a deletion is served");
        client.put("z", "last").await.expect("a put is served");
    }
    assert_eq!(all(theirs).await, all(ours).await);
    let expected = told(ours, revision, "z").await;
    assert_eq!(expected.len(), 4, "of the revision of the snapshot, and of the three after it");
    assert_eq!(told(theirs, revision, "z").await, expected);
    let before = pb::RangeRequest { key: "a".into(), revision: revision - 1, ..Default::default() };
    let refused = theirs.call::<_, pb::RangeResponse>("/etcdserverpb.KV/Range", before).await;
    let refused = refused.expect_err("there is no history");
    assert_eq!(refused.message(), "etcdserver: mvcc: required revision has been compacted");
}

/// A stream of a snapshot.
async fn opened(client: &Client) -> tonic::Streaming<pb::SnapshotResponse> {
    let request = tokio_stream::once(pb::SnapshotRequest {});
    client.stream("/etcdserverpb.Maintenance/Snapshot", request).await.expect("a stream opens")
}

#[test]
fn a_snapshot_says_how_much_remains_and_ends_with_its_sum() {
    let cluster = mainstay(3);
    block_on(async {
        let client = Client::connect(cluster.members[1].client).await;
        for number in 0..10 {
            client.put(&format!("a{number}"), &"x".repeat(30_000)).await.expect("a put is served");
        }
        let mut pieces = opened(&client).await;
        let mut blobs = Vec::new();
        while let Some(piece) = pieces.message().await.expect("it goes on") {
            blobs.push((piece.remaining_bytes, piece.blob));
        }
        let (0, sum) = blobs.pop().expect("a sum") else { panic!("something remains behind the sum") };
        let file: Vec<u8> = blobs.iter().flat_map(|(_, blob)| blob.to_vec()).collect();
        assert_eq!(sum, Sha256::digest(&file).as_slice());
        // Ten pairs of eight pages each, a branch, and the front.
        assert_eq!(file.len(), (10 * 8 + 1 + 4) * 4_096);
        let mut remaining = file.len() as u64;
        for (said, blob) in &blobs {
            remaining -= blob.len() as u64;
            assert_eq!(*said, remaining);
        }
    });
}

#[test]
fn a_snapshot_whose_revision_is_compacted_on_the_way_ends_without_its_sum() {
    let cluster = mainstay(1);
    block_on(async {
        let client = Client::connect(cluster.members[0].client).await;
        // More than what is on its way between a server and a client that takes nothing.
        for number in 0..24 {
            client.put(&format!("a{number:02}"), &"x".repeat(1_000_000)).await.expect("a put is served");
        }
        let mut pieces = opened(&client).await;
        let first = pieces.message().await.expect("it begins").expect("a piece");
        assert!(first.remaining_bytes > 24_000_000);
        let put = client.put("a", "b").await.expect("a put is served");
        let compact =
            pb::CompactionRequest { revision: put.header.expect("a header").revision, ..Default::default() };
        let _: pb::CompactionResponse = client.call("/etcdserverpb.KV/Compact", compact).await.expect("done");
        let failure = loop {
            match pieces.message().await {
                Ok(piece) => assert_ne!(piece.expect("it does not end well").remaining_bytes, 0),
                Err(failure) => break failure,
            }
        };
        assert_eq!(failure.message(), "etcdserver: mvcc: required revision has been compacted");
    });
}
