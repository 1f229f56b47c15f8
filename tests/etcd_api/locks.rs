//! Locks and elections as services.

use crate::client::{Client, block_on};
use crate::servers::mainstay;
use mainstay::api::etcd::proto::etcdserverpb as pb;
use mainstay::api::etcd::proto::{v3electionpb, v3lockpb};

async fn grant(client: &Client, id: i64) -> i64 {
    let grant = pb::LeaseGrantRequest { ttl: 600, id };
    let granted = client.call::<_, pb::LeaseGrantResponse>("/etcdserverpb.Lease/LeaseGrant", grant).await;
    granted.expect("a lease is granted").id
}

#[test]
fn a_lock_goes_to_one_at_a_time_in_the_order_of_asking() {
    let cluster = mainstay(3);
    block_on(async {
        let mut clients = Vec::new();
        for member in &cluster.members {
            clients.push(Client::connect(member.client).await);
        }
        let lock = async |client: &Client, lease| {
            let lock = v3lockpb::LockRequest { name: "l".into(), lease };
            client.call::<_, v3lockpb::LockResponse>("/v3lockpb.Lock/Lock", lock).await
        };
        let unlock = async |client: &Client, key: bytes::Bytes| {
            let unlock = v3lockpb::UnlockRequest { key };
            client.call::<_, v3lockpb::UnlockResponse>("/v3lockpb.Lock/Unlock", unlock).await
        };
        for (number, client) in (1..).zip(&clients) {
            grant(client, number).await;
        }
        let first = lock(&clients[0], 1).await.expect("it is free").key;
        assert_eq!(first, "l/1");
        let second = lock(&clients[1], 2);
        tokio::pin!(second);
        let early = tokio::time::timeout(std::time::Duration::from_millis(200), &mut second).await;
        assert!(early.is_err(), "it is held");
        unlock(&clients[2], first).await.expect("it is let go");
        assert_eq!(second.await.expect("it is free again").key, "l/2");
        // Whoever holds it and dies lets it go with the lease.
        let revoke = pb::LeaseRevokeRequest { id: 2 };
        let revoking =
            clients[0].call::<_, pb::LeaseRevokeResponse>("/etcdserverpb.Lease/LeaseRevoke", revoke);
        let (third, revoked) = tokio::join!(lock(&clients[2], 3), revoking);
        revoked.expect("it is revoked");
        assert_eq!(third.expect("it is free again").key, "l/3");
        let refused = lock(&clients[0], 4711).await.expect_err("there is no such lease");
        assert_eq!(refused.message(), "etcdserver: requested lease not found");
    });
}

#[test]
fn who_waits_twice_with_one_lease_and_gives_up_once_still_waits() {
    let cluster = mainstay(1);
    block_on(async {
        let client = Client::connect(cluster.members[0].client).await;
        for lease in 1..=2 {
            grant(&client, lease).await;
        }
        let lock = async |lease| {
            let lock = v3lockpb::LockRequest { name: "l".into(), lease };
            client.call::<_, v3lockpb::LockResponse>("/v3lockpb.Lock/Lock", lock).await
        };
        let held = lock(1).await.expect("it is free").key;
        assert_eq!(lock(1).await.expect("it is its own").key, held, "the same lease has the same key");
        let waits = lock(2);
        tokio::pin!(waits);
        let short = std::time::Duration::from_millis(300);
        assert!(tokio::time::timeout(short, &mut waits).await.is_err(), "it is held");
        assert!(tokio::time::timeout(short, lock(2)).await.is_err(), "it is held, and this one gives up");
        // What was given up has been heard of by the time that the next call is answered, or soon after.
        for _ in 0..20 {
            assert_eq!(client.get("l/2").await.expect("a get is served").count, 1, "the first still waits");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let unlock = v3lockpb::UnlockRequest { key: held };
        client.call::<_, v3lockpb::UnlockResponse>("/v3lockpb.Lock/Unlock", unlock).await.expect("let go");
        assert_eq!(waits.await.expect("it is free again").key, "l/2");
    });
}

#[test]
fn an_election_has_one_leader_and_who_observes_it_is_told() {
    let cluster = mainstay(1);
    block_on(async {
        let client = Client::connect(cluster.members[0].client).await;
        let campaign = async |lease, value: &'static str| {
            let campaign = v3electionpb::CampaignRequest { name: "e".into(), lease, value: value.into() };
            let won: Result<v3electionpb::CampaignResponse, _> =
                client.call("/v3electionpb.Election/Campaign", campaign).await;
            won.expect("it is won").leader.expect("a key")
        };
        grant(&client, 1).await;
        grant(&client, 2).await;
        let nobody = v3electionpb::LeaderRequest { name: "e".into() };
        let none = client
            .call::<_, v3electionpb::LeaderResponse>("/v3electionpb.Election/Leader", nobody.clone())
            .await
            .expect_err("nobody leads");
        assert_eq!(none.message(), "election: no leader");
        let first = campaign(1, "one").await;
        let mut observed: tonic::Streaming<v3electionpb::LeaderResponse> = client
            .stream("/v3electionpb.Election/Observe", tokio_stream::once(nobody))
            .await
            .expect("a stream opens");
        let mut next = async || {
            let told = observed.message().await.expect("it goes on").expect("a leader");
            told.kv.expect("a pair").value
        };
        assert_eq!(next().await, "one");
        let proclaim = v3electionpb::ProclaimRequest { leader: Some(first.clone()), value: "uno".into() };
        client
            .call::<_, v3electionpb::ProclaimResponse>("/v3electionpb.Election/Proclaim", proclaim.clone())
            .await
            .expect("the leader proclaims");
        assert_eq!(next().await, "uno");
        let resign = v3electionpb::ResignRequest { leader: Some(first) };
        let resigning =
            client.call::<_, v3electionpb::ResignResponse>("/v3electionpb.Election/Resign", resign);
        let (_, resigned) = tokio::join!(campaign(2, "two"), resigning);
        resigned.expect("it resigns");
        assert_eq!(next().await, "two");
        let refused = client
            .call::<_, v3electionpb::ProclaimResponse>("/v3electionpb.Election/Proclaim", proclaim)
            .await
            .expect_err("it leads no more");
        assert_eq!(refused.message(), "election: not leader");
    });
}
