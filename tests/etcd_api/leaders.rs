//! What clients see while the leader is lost, and where none is known.

use crate::client::{Client, PATIENCE, block_on};
use crate::servers::mainstay;
use mainstay::api::etcd::proto::etcdserverpb as pb;
use mainstay::cli::cluster::LocalCluster;
use std::time::{Duration, Instant};
use tonic::Code;

const WRITES_COUNT: i64 = 60;

/// The position of the leader, and that of another member.
fn leader_and_another(cluster: &LocalCluster) -> (usize, usize) {
    let (leader, _) = cluster.leader(PATIENCE).expect("somebody leads");
    (leader, (leader + 1) % cluster.members.len())
}

#[test]
fn writes_go_on_over_the_loss_of_the_leader_and_each_is_done_once() {
    let mut cluster = mainstay(3);
    let (leader, other) = leader_and_another(&cluster);
    let address = cluster.members[other].client;
    let killer = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cluster.members[leader].kill();
    };
    let writer = async {
        let client = Client::connect(address).await;
        for number in 0..WRITES_COUNT {
            client.put("a", &number.to_string()).await.expect("a put is served, whoever leads");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        client.get("a").await.expect("a get is served").kvs[0].version
    };
    let (version, ()) = block_on(async { tokio::join!(writer, killer) });
    assert_eq!(version, WRITES_COUNT, "each put was done once");
}

#[test]
fn a_member_that_answered_a_put_shows_it_to_local_reads() {
    let cluster = mainstay(3);
    let (_, other) = leader_and_another(&cluster);
    block_on(async {
        let client = Client::connect(cluster.members[other].client).await;
        for number in 0..50 {
            let value = number.to_string();
            let put = client.put("a", &value).await.expect("a put is served");
            let range = pb::RangeRequest { key: "a".into(), serializable: true, ..Default::default() };
            let got: pb::RangeResponse =
                client.call("/etcdserverpb.KV/Range", range).await.expect("a get is served");
            assert_eq!(got.header.expect("a header").revision, put.header.expect("a header").revision);
            assert_eq!(got.kvs[0].value, value);
        }
    });
}

#[test]
fn who_wants_a_leader_is_not_served_where_none_is_known() {
    let mut cluster = mainstay(3);
    let (leader, other) = leader_and_another(&cluster);
    block_on(async {
        let client = Client::connect(cluster.members[other].client).await;
        let create = pb::WatchCreateRequest { key: "a".into(), ..Default::default() };
        let create =
            pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
        let (sender, requests) = tokio::sync::mpsc::unbounded_channel();
        sender.send(create).expect("it is heard");
        let requests = tokio_stream::wrappers::UnboundedReceiverStream::new(requests);
        let mut watch: tonic::Streaming<pb::WatchResponse> =
            client.led().stream("/etcdserverpb.Watch/Watch", requests).await.expect("a stream opens");
        assert!(watch.message().await.expect("it goes on").expect("an answer").created);
        for position in (0..3).filter(|position| *position != other) {
            cluster.members[position].kill();
        }
        let ended = tokio::time::timeout(PATIENCE, watch.message()).await.expect("it ends");
        let ended = ended.expect_err("nobody leads");
        assert_eq!((ended.code(), ended.message()), (Code::Unavailable, "etcdserver: no leader"));
        let since = Instant::now();
        let local = || pb::RangeRequest { key: "a".into(), serializable: true, ..Default::default() };
        let refused = client.led().call::<_, pb::RangeResponse>("/etcdserverpb.KV/Range", local()).await;
        assert_eq!(refused.expect_err("nobody leads").message(), "etcdserver: no leader");
        assert!(since.elapsed() < Duration::from_secs(3), "it is told at once");
        let served = client.call::<_, pb::RangeResponse>("/etcdserverpb.KV/Range", local()).await;
        served.expect("whoever does not ask for one is served");
    });
    assert_ne!(leader, other);
}
