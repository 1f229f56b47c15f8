//! What Kubernetes asks of etcd, in its very shapes: lists that go on, changes of what was seen, compaction, watches.

use crate::client::{Client, PATIENCE, block_on};
use crate::servers::mainstay;
use mainstay::api::etcd::proto::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use pb::response_op::Response;
use pb::watch_request::RequestUnion;

const PREFIX: &str = "/registry/pods/";
/// The first key that does not begin with it.
const PREFIX_END: &str = "/registry/pods0";

/// "If the key was last written at `revision` (0: if there is none), then do this, otherwise say what is there."
fn if_unchanged(key: &str, revision: i64, then: Request) -> pb::TxnRequest {
    let compare = pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.to_owned().into(),
        range_end: bytes::Bytes::new(),
        target_union: Some(TargetUnion::ModRevision(revision)),
    };
    let get = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
    let operation = |request| vec![pb::RequestOp { request: Some(request) }];
    pb::TxnRequest {
        compare: vec![compare],
        success: operation(then),
        failure: operation(Request::RequestRange(get)),
    }
}

fn put(key: &str, value: &str, lease: i64) -> Request {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    Request::RequestPut(pb::PutRequest { key, value, lease, ..Default::default() })
}

async fn txn(client: &Client, request: pb::TxnRequest) -> pb::TxnResponse {
    client.call("/etcdserverpb.KV/Txn", request).await.expect("a transaction is served")
}

async fn range(client: &Client, request: pb::RangeRequest) -> pb::RangeResponse {
    client.call("/etcdserverpb.KV/Range", request).await.expect("a range is served")
}

fn revision(header: Option<&pb::ResponseHeader>) -> i64 {
    header.expect("a header").revision
}

#[test]
fn objects_are_created_updated_and_deleted_only_as_they_were_seen() {
    let cluster = mainstay(3);
    block_on(async {
        let client = Client::connect(cluster.members[0].client).await;
        let other = Client::connect(cluster.members[1].client).await;
        let key = "/registry/pods/default/a";
        let grant = pb::LeaseGrantRequest { ttl: 3_600, id: 0 };
        let lease: pb::LeaseGrantResponse =
            client.call("/etcdserverpb.Lease/LeaseGrant", grant).await.expect("a lease is granted");
        let created = txn(&client, if_unchanged(key, 0, put(key, "1", lease.id))).await;
        assert!(created.succeeded);
        let first = revision(created.header.as_ref());
        // Whoever creates it again is told what is there.
        let again = txn(&other, if_unchanged(key, 0, put(key, "x", 0))).await;
        let Some(Response::ResponseRange(found)) = &again.responses[0].response else { panic!("{again:?}") };
        assert_eq!(
            (again.succeeded, found.kvs[0].mod_revision, found.kvs[0].lease),
            (false, first, lease.id)
        );
        let updated = txn(&other, if_unchanged(key, first, put(key, "2", 0))).await;
        assert!(updated.succeeded);
        let delete = |at| {
            let delete = pb::DeleteRangeRequest { key: key.into(), ..Default::default() };
            if_unchanged(key, at, Request::RequestDeleteRange(delete))
        };
        assert!(!txn(&client, delete(first)).await.succeeded, "it was written since");
        let deleted = txn(&client, delete(revision(updated.header.as_ref()))).await;
        let Some(Response::ResponseDeleteRange(gone)) = &deleted.responses[0].response else {
            panic!("{deleted:?}")
        };
        assert_eq!((deleted.succeeded, gone.deleted), (true, 1));
        let get = pb::RangeRequest { key: key.into(), limit: 1, ..Default::default() };
        let none = range(&client, get).await;
        assert!(none.kvs.is_empty() && revision(none.header.as_ref()) > first);
    });
}

#[test]
fn a_list_goes_on_where_it_was_cut_at_the_revision_at_which_it_began() {
    let cluster = mainstay(1);
    block_on(async {
        let client = Client::connect(cluster.members[0].client).await;
        for number in 0..10 {
            client.put(&format!("{PREFIX}{number}"), "old").await.expect("a put is served");
        }
        client.put("/registry/pods", "no concern of the list").await.expect("a put is served");
        let list = |from: String, revision| pb::RangeRequest {
            key: from.into(),
            range_end: PREFIX_END.into(),
            limit: 4,
            revision,
            ..Default::default()
        };
        let (mut from, mut at, mut listed) = (PREFIX.to_owned(), 0, Vec::new());
        loop {
            let page = range(&client, list(from, at)).await;
            assert_eq!(
                page.count,
                10 - i64::try_from(listed.len()).expect("few"),
                "what is left, and this page"
            );
            if at == 0 {
                at = revision(page.header.as_ref());
            }
            let last = page.kvs.last().expect("a pair").key.clone();
            listed.extend(page.kvs.into_iter().map(|pair| pair.value));
            if !page.more {
                break;
            }
            from = String::from_utf8(last.to_vec()).expect("text") + "\0";
            client.put(&format!("{PREFIX}9"), "new").await.expect("a put is served");
            client.put(&format!("{PREFIX}x"), "new").await.expect("a put is served");
        }
        assert_eq!((listed.len(), listed.iter().all(|value| value == "old")), (10, true));
        let count = pb::RangeRequest { count_only: true, ..list(PREFIX.to_owned(), 0) };
        assert_eq!(range(&client, count).await.count, 11);
    });
}

#[test]
fn compaction_is_done_by_whoever_wins_its_key_and_old_lists_are_told_so() {
    let cluster = mainstay(1);
    block_on(async {
        let client = Client::connect(cluster.members[0].client).await;
        for _ in 0..5 {
            client.put("/registry/a", "x").await.expect("a put is served");
        }
        let win = |version, value: &str| {
            let mut txn = if_unchanged("compact_rev_key", 0, put("compact_rev_key", value, 0));
            txn.compare[0].target = CompareTarget::Version.into();
            txn.compare[0].target_union = Some(TargetUnion::Version(version));
            txn
        };
        assert!(txn(&client, win(0, "5")).await.succeeded);
        assert!(!txn(&client, win(0, "5")).await.succeeded, "another was faster");
        assert!(txn(&client, win(1, "6")).await.succeeded);
        let compact = pb::CompactionRequest { revision: 5, physical: false };
        let compacted: Result<pb::CompactionResponse, _> =
            client.call("/etcdserverpb.KV/Compact", compact).await;
        compacted.expect("it is compacted");
        let old = pb::RangeRequest { key: "/registry/a".into(), revision: 4, ..Default::default() };
        let gone = client.call::<_, pb::RangeResponse>("/etcdserverpb.KV/Range", old).await;
        let gone = gone.expect_err("it is compacted");
        assert_eq!(gone.message(), "etcdserver: mvcc: required revision has been compacted");
        assert_eq!(gone.code(), tonic::Code::OutOfRange);
    });
}

#[test]
fn a_watch_is_told_how_far_it_is_on_a_store_that_is_busy_elsewhere() {
    let cluster = mainstay(3);
    block_on(async {
        let client = Client::connect(cluster.members[2].client).await;
        let start = revision(client.get("a").await.expect("a get is served").header.as_ref()) + 1;
        let create = pb::WatchCreateRequest {
            key: PREFIX.into(),
            range_end: PREFIX_END.into(),
            start_revision: start,
            prev_kv: true,
            progress_notify: true,
            ..Default::default()
        };
        let (sender, requests) = tokio::sync::mpsc::unbounded_channel();
        let ask = |union| sender.send(pb::WatchRequest { request_union: Some(union) }).expect("it is heard");
        ask(RequestUnion::CreateRequest(create));
        let requests = tokio_stream::wrappers::UnboundedReceiverStream::new(requests);
        let mut watch: tonic::Streaming<pb::WatchResponse> =
            client.led().stream("/etcdserverpb.Watch/Watch", requests).await.expect("a stream opens");
        assert!(watch.message().await.expect("it goes on").expect("an answer").created);
        for round in 0..5 {
            for number in 0..20 {
                client.put(&format!("/registry/events/{number}"), "x").await.expect("a put is served");
            }
            let made = client.put(&format!("{PREFIX}a"), &round.to_string()).await.expect("a put is served");
            let made = revision(made.header.as_ref());
            client.put("/registry/events/last", "x").await.expect("a put is served");
            ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
            let mut is_told = false;
            loop {
                let next = tokio::time::timeout(PATIENCE, watch.message()).await.expect("it is told in time");
                let told = next.expect("it goes on").expect("an answer");
                assert!(!told.created && !told.canceled);
                if told.events.is_empty() {
                    assert!(is_told, "progress comes after what was before it");
                    assert!(revision(told.header.as_ref()) > made, "{told:?}");
                    break;
                }
                assert_eq!(told.events[0].kv.as_ref().expect("a pair").mod_revision, made);
                assert_eq!(told.events[0].prev_kv.is_some(), round > 0);
                is_told = true;
            }
        }
    });
}
