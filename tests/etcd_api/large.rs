//! Many pairs, read whole by several clients at once: the member's memory hardly grows by it.
//!
//! `MAINSTAY_LARGE=1000000 cargo test --release --test etcd_api four_clients` has a million of them, of a KiB each.

use crate::client::{Client, block_on};
use crate::differential::from_environment;
use crate::servers::{forget_peak, mainstay, memory, peak_memory};
use mainstay::api::etcd::proto::etcdserverpb as pb;
use std::net::SocketAddr;
use std::time::Instant;

/// As many as take four times the memory that may be used, if four clients read them.
const PAIRS_COUNT: u64 = 60_000;
const VALUE_BYTES: usize = 1_024;
const CLIENTS_COUNT: usize = 4;
const GROWTH_BYTES_MAX: u64 = 64 * 1_024 * 1_024;
const PAGE_PAIRS: i64 = 1_000;

async fn fill(address: SocketAddr, count: u64) {
    let client = Client::connect(address).await;
    let numbers: Vec<u64> = (0..count).collect();
    for numbers in numbers.chunks(128) {
        let put = |number: &u64| {
            let (key, value) = (format!("large/{number:09}"), vec![b'x'; VALUE_BYTES]);
            let put = pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
            pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
        };
        let txn = pb::TxnRequest { success: numbers.iter().map(put).collect(), ..Default::default() };
        let _: pb::TxnResponse = client.call("/etcdserverpb.KV/Txn", txn).await.expect("it is written");
    }
}

fn all() -> pb::RangeRequest {
    pb::RangeRequest { key: "large/".into(), range_end: "large0".into(), ..Default::default() }
}

/// How many pairs a stream of them has.
async fn stream(address: SocketAddr) -> u64 {
    let client = Client::connect(address).await;
    let mut parts: tonic::Streaming<pb::RangeStreamResponse> = client
        .stream("/etcdserverpb.KV/RangeStream", tokio_stream::once(all()))
        .await
        .expect("a stream is served");
    let mut count = 0;
    while let Some(part) = parts.message().await.expect("it goes on") {
        count += part.range_response.expect("a part").kvs.len() as u64;
    }
    count
}

/// How many pairs all pages have, all of one revision, as Kubernetes reads lists.
async fn pages(address: SocketAddr) -> u64 {
    let client = Client::connect(address).await;
    let mut page = pb::RangeRequest { limit: PAGE_PAIRS, ..all() };
    let mut count = 0;
    loop {
        let found: pb::RangeResponse =
            client.call("/etcdserverpb.KV/Range", page.clone()).await.expect("a page is served");
        count += found.kvs.len() as u64;
        let left = u64::try_from(found.count).expect("a number") - found.kvs.len() as u64;
        assert_eq!(found.more, left > 0);
        let Some(last) = found.kvs.last().filter(|_| found.more) else { return count };
        page.key = [last.key.as_ref(), b"\0"].concat().into();
        page.revision = found.header.expect("a header").revision;
    }
}

/// Saves a snapshot, and keeps none of it; says that these pairs are in it if there is room for them.
async fn snapshot(address: SocketAddr, count: u64) -> u64 {
    let client = Client::connect(address).await;
    let mut pieces: tonic::Streaming<pb::SnapshotResponse> = client
        .stream("/etcdserverpb.Maintenance/Snapshot", tokio_stream::once(pb::SnapshotRequest {}))
        .await
        .expect("a stream is served");
    let (mut bytes, mut last) = (0, 0);
    while let Some(piece) = pieces.message().await.expect("it goes on") {
        bytes += piece.blob.len();
        last = piece.blob.len();
    }
    assert_eq!(last, 32, "the sum is the last of it");
    assert!(bytes as u64 > count * VALUE_BYTES as u64);
    count
}

async fn read(address: SocketAddr, what: &'static str, count: u64) -> u64 {
    match what {
        "pages" => pages(address).await,
        "a snapshot" => snapshot(address, count).await,
        _ => stream(address).await,
    }
}

#[test]
fn four_clients_at_once_read_everything_and_memory_hardly_grows() {
    let cluster = mainstay(1);
    let address = cluster.members[0].client;
    let count = from_environment("MAINSTAY_LARGE", PAIRS_COUNT);
    block_on(fill(address, count));
    let before = memory(&cluster);
    // A snapshot is read twice and summed, which takes long without optimisation.
    for (what, clients) in [("a stream", CLIENTS_COUNT), ("pages", CLIENTS_COUNT), ("a snapshot", 1)] {
        forget_peak(&cluster);
        let since = Instant::now();
        block_on(async {
            let reading: Vec<_> = (0..clients).map(|_| tokio::spawn(read(address, what, count))).collect();
            for reader in reading {
                assert_eq!(reader.await.expect("it ends"), count);
            }
        });
        let grown = peak_memory(&cluster).saturating_sub(before);
        println!("{count} pairs, {what}: {:?}, at the most {} KiB more", since.elapsed(), grown / 1_024);
        assert!(grown <= GROWTH_BYTES_MAX, "{what}: the member grew by {grown} bytes");
    }
}
