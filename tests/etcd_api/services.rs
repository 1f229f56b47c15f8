//! What the services do that needs no etcd to compare with.

use crate::client::{Client, block_on};
use crate::json::get;
use crate::servers::{mainstay, mainstay_with};
use mainstay::api::etcd::proto::etcdserverpb as pb;
use mainstay::api::etcd::proto::grpc::health::v1 as health;

#[test]
fn any_member_serves_any_request_and_knows_all_members() {
    let cluster = mainstay(3);
    block_on(async {
        for (position, member) in cluster.members.iter().enumerate() {
            let client = Client::connect(member.client).await;
            let key = format!("through {position}");
            let put = client.put(&key, "x").await.expect("a put is served").header.expect("a header");
            assert!(put.cluster_id != 0 && put.member_id != 0 && put.raft_term != 0, "{put:?}");
            let got = client.get(&key).await.expect("a get is served");
            assert_eq!((got.count, got.kvs[0].mod_revision), (1, put.revision));
            let members: pb::MemberListResponse = client
                .call("/etcdserverpb.Cluster/MemberList", pb::MemberListRequest::default())
                .await
                .expect("members are listed");
            let mut urls: Vec<String> =
                members.members.into_iter().flat_map(|member| member.client_ur_ls).collect();
            urls.sort();
            let mut all: Vec<String> =
                cluster.members.iter().map(|member| format!("http://{}", member.client)).collect();
            all.sort();
            assert_eq!(urls, all);
        }
    });
}

#[test]
fn a_member_says_how_it_is() {
    let cluster = mainstay(1);
    block_on(async {
        let client = Client::connect(cluster.members[0].client).await;
        client.put("a", "1").await.expect("a put is served");
        let status: pb::StatusResponse = client
            .call("/etcdserverpb.Maintenance/Status", pb::StatusRequest {})
            .await
            .expect("the status is told");
        assert!(status.version.starts_with("3.6."), "{status:?}");
        assert!(status.db_size > 0 && status.leader != 0 && status.errors.is_empty(), "{status:?}");
        let defragmented: pb::DefragmentResponse = client
            .call("/etcdserverpb.Maintenance/Defragment", pb::DefragmentRequest {})
            .await
            .expect("there is nothing to be done, and that is a success");
        assert_eq!(defragmented.header, None);
        let hash = || client.call("/etcdserverpb.Maintenance/HashKV", pb::HashKvRequest { revision: 2 });
        let before: pb::HashKvResponse = hash().await.expect("a hash is told");
        client.put("a", "2").await.expect("a put is served");
        let after: pb::HashKvResponse = hash().await.expect("a hash is told");
        assert_eq!((before.hash, before.hash_revision), (after.hash, 2), "a hash is of a revision");
        assert_eq!(after.compact_revision, -1, "nothing was compacted");
        let compact = pb::CompactionRequest { revision: 2, physical: true };
        let _: pb::CompactionResponse =
            client.call("/etcdserverpb.KV/Compact", compact).await.expect("a compaction is served");
        assert_eq!(hash().await.expect("a hash is told").compact_revision, 2);
        let answer: health::HealthCheckResponse = client
            .call("/grpc.health.v1.Health/Check", health::HealthCheckRequest::default())
            .await
            .expect("health is told");
        assert_eq!(answer.status, 1);
    });
}

#[test]
fn a_full_keyspace_says_so_until_there_is_room() {
    let cluster = mainstay_with(1, &["--quota-bytes", "1000000"]);
    let address = cluster.members[0].client;
    block_on(async {
        let client = Client::connect(address).await;
        let alarm = |action, alarm| {
            let request = pb::AlarmRequest { action, member_id: 0, alarm };
            client.call::<_, pb::AlarmResponse>("/etcdserverpb.Maintenance/Alarm", request)
        };
        assert_eq!(alarm(0, 0).await.expect("alarms are listed").alarms.len(), 0);
        let large = "x".repeat(200_000);
        let mut refused = None;
        for number in 0..100 {
            match client.put(&format!("large {number}"), &large).await {
                Ok(_) => {}
                Err(status) => {
                    refused = Some(status);
                    break;
                }
            }
        }
        let refused = refused.expect("the quota is used up");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert_eq!(refused.message(), "etcdserver: mvcc: database space exceeded");
        assert_eq!(alarm(0, 0).await.expect("alarms are listed").alarms.len(), 1);
        assert_eq!(
            get(address, "/health"),
            (503, r#"{"health":"false","reason":"ALARM NOSPACE"}"#.to_owned())
        );
        assert_eq!(get(address, "/health?exclude=NOSPACE").0, 200);
        let all = pb::DeleteRangeRequest { key: "l".into(), range_end: "m".into(), prev_kv: false };
        let deleted: pb::DeleteRangeResponse =
            client.call("/etcdserverpb.KV/DeleteRange", all).await.expect("a delete needs no space");
        let revision = deleted.header.expect("a header").revision;
        let compact = pb::CompactionRequest { revision, physical: false };
        client
            .call::<_, pb::CompactionResponse>("/etcdserverpb.KV/Compact", compact)
            .await
            .expect("nor does a compaction");
        let until = std::time::Instant::now() + crate::client::PATIENCE;
        while client.put("small", "x").await.is_err() {
            assert!(std::time::Instant::now() < until, "there is room and puts are refused");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(alarm(0, 0).await.expect("alarms are listed").alarms.len(), 0);
    });
}

#[test]
fn an_alarm_is_told_done_only_if_it_was() {
    let cluster = mainstay(3);
    block_on(async {
        let client = Client::connect(cluster.members[1].client).await;
        let alarm = |action, alarm| {
            let request = pb::AlarmRequest { action, member_id: 0, alarm };
            client.call::<_, pb::AlarmResponse>("/etcdserverpb.Maintenance/Alarm", request)
        };
        let corrupt = alarm(1, 2).await.expect_err("there is no such alarm here");
        assert_eq!(corrupt.code(), tonic::Code::Unimplemented);
        alarm(0, 7).await.expect_err("there is no such kind at all");
        assert_eq!(alarm(2, 1).await.expect("nothing is to be called off").alarms.len(), 0);
        let raised = alarm(1, 1).await.expect("it is raised");
        assert_eq!(raised.alarms.len(), 1, "{raised:?}");
    });
}

/// What etcd's clients do with alarms of single members: each is raised, told and called off for itself.
#[test]
fn alarms_raised_by_hand_are_each_members_and_stay() {
    let cluster = mainstay(3);
    block_on(async {
        let client = Client::connect(cluster.members[0].client).await;
        let other = Client::connect(cluster.members[2].client).await;
        let alarm = async |client: &Client, action, member_id| {
            let request = pb::AlarmRequest { action, member_id, alarm: 1 };
            let answer: pb::AlarmResponse =
                client.call("/etcdserverpb.Maintenance/Alarm", request).await.expect("it is done");
            answer.alarms.iter().map(|alarm| (alarm.member_id, alarm.alarm)).collect::<Vec<_>>()
        };
        assert_eq!(alarm(&client, 1, 9).await, [(9, 1)]);
        assert_eq!(alarm(&other, 1, 0).await, [(0, 1)]);
        assert_eq!(alarm(&other, 1, 9).await, [(9, 1)], "it is raised already");
        assert_eq!(alarm(&client, 0, 0).await, [(0, 1), (9, 1)]);
        // The leader has looked many times by now whether there is room.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        client.put("k", "v").await.expect_err("a keyspace under an alarm takes nothing");
        assert_eq!(alarm(&client, 2, 5).await, [], "there is none of member 5");
        assert_eq!(alarm(&client, 2, 0).await, [(0, 1)]);
        other.put("k", "v").await.expect_err("one of two is called off");
        assert_eq!(alarm(&other, 2, 9).await, [(9, 1)]);
        assert_eq!(alarm(&client, 0, 0).await, []);
        client.put("k", "v").await.expect("there is no alarm");
    });
}

#[test]
fn a_message_that_is_too_large_is_refused_and_a_large_one_is_not() {
    let cluster = mainstay(1);
    block_on(async {
        let client = Client::connect(cluster.members[0].client).await;
        client.put("large", &"x".repeat(1_500_000)).await.expect("it is within the limit");
        let got = client.get("large").await.expect("what was written can be read");
        assert_eq!(got.kvs[0].value.len(), 1_500_000);
        let refused = client.put("large", &"x".repeat(1_600_000)).await.expect_err("it is beyond it");
        assert_eq!(refused.message(), "etcdserver: request is too large");
        client.put("large", &"x".repeat(3_000_000)).await.expect_err("it is far beyond it");
        client.put("small", "x").await.expect("the connection goes on, or another does");
    });
}

#[test]
fn leases_are_granted_renewed_listed_and_revoked_through_any_member() {
    let cluster = mainstay(3);
    block_on(async {
        for member in &cluster.members {
            let client = Client::connect(member.client).await;
            let grant = pb::LeaseGrantRequest { ttl: 600, id: 0 };
            let granted: pb::LeaseGrantResponse =
                client.call("/etcdserverpb.Lease/LeaseGrant", grant).await.expect("a lease is granted");
            let id = granted.id;
            assert!(id > 0 && granted.ttl == 600, "{granted:?}");
            let put = pb::PutRequest { key: "leased".into(), lease: id, ..Default::default() };
            client.call::<_, pb::PutResponse>("/etcdserverpb.KV/Put", put).await.expect("a put is served");
            let alive = tokio_stream::iter([id, 4711].map(|id| pb::LeaseKeepAliveRequest { id }));
            let mut alive: tonic::Streaming<pb::LeaseKeepAliveResponse> =
                client.stream("/etcdserverpb.Lease/LeaseKeepAlive", alive).await.expect("a stream opens");
            let renewed = alive.message().await.expect("it is renewed").expect("an answer");
            assert_eq!((renewed.id, renewed.ttl), (id, 600));
            let unknown = alive.message().await.expect("it is told").expect("an answer");
            assert_eq!((unknown.id, unknown.ttl), (4711, 0), "there is no such lease");
            let asked = pb::LeaseTimeToLiveRequest { id, keys: true };
            let left: pb::LeaseTimeToLiveResponse =
                client.call("/etcdserverpb.Lease/LeaseTimeToLive", asked).await.expect("it is told");
            assert_eq!((left.granted_ttl, left.keys.len()), (600, 1), "{left:?}");
            let revoke = pb::LeaseRevokeRequest { id };
            client
                .call::<_, pb::LeaseRevokeResponse>("/etcdserverpb.Lease/LeaseRevoke", revoke)
                .await
                .expect("it is revoked");
            let gone: pb::LeaseTimeToLiveResponse =
                client.call("/etcdserverpb.Lease/LeaseTimeToLive", asked).await.expect("it is told");
            assert_eq!((gone.ttl, gone.granted_ttl), (-1, 0));
            assert_eq!(client.get("leased").await.expect("a get is served").count, 0);
            let again = client
                .call::<_, pb::LeaseRevokeResponse>("/etcdserverpb.Lease/LeaseRevoke", revoke)
                .await
                .expect_err("there is no such lease");
            assert_eq!(again.message(), "etcdserver: requested lease not found");
        }
    });
}
