//! What is read part after part, `RangeStream`; and what a server says of itself.

use crate::client::{Client, PATIENCE, block_on};
use crate::servers::mainstay;
use mainstay::api::etcd::proto::etcdserverpb as pb;
use prost::Message;

/// All answers in one, as they are put together by whoever reads them: fields are overwritten, lists grow.
async fn merged(
    client: &Client,
    range: pb::RangeRequest,
) -> Result<(pb::RangeResponse, usize), tonic::Status> {
    let mut parts: tonic::Streaming<pb::RangeStreamResponse> =
        client.stream("/etcdserverpb.KV/RangeStream", tokio_stream::once(range)).await?;
    let (mut merged, mut count) = (pb::RangeStreamResponse::default(), 0);
    while let Some(part) = parts.message().await? {
        merged.merge(part.encode_to_vec().as_slice()).expect("it is a message");
        count += 1;
    }
    Ok((merged.range_response.expect("an answer"), count))
}

#[test]
fn a_range_that_is_streamed_says_what_the_same_range_says() {
    let cluster = mainstay(1);
    block_on(async {
        let client = Client::connect(cluster.members[0].client).await;
        let large = "x".repeat(100_000);
        for number in 0..20 {
            client.put(&format!("a{number:02}"), &large).await.expect("a put is served");
        }
        let all = pb::RangeRequest { key: "a".into(), range_end: "b".into(), ..Default::default() };
        let ranges = [
            all.clone(),
            pb::RangeRequest { limit: 7, ..all.clone() },
            pb::RangeRequest { limit: 20, ..all.clone() },
            pb::RangeRequest { limit: 100, serializable: true, ..all.clone() },
            pb::RangeRequest { keys_only: true, ..all.clone() },
            pb::RangeRequest { count_only: true, ..all.clone() },
            pb::RangeRequest { revision: 5, ..all.clone() },
            pb::RangeRequest { key: "a07".into(), range_end: "\0".into(), ..Default::default() },
            pb::RangeRequest { key: "a03".into(), ..Default::default() },
            pb::RangeRequest { key: "none".into(), ..Default::default() },
        ];
        for range in ranges {
            let whole: pb::RangeResponse =
                client.call("/etcdserverpb.KV/Range", range.clone()).await.expect("a range is served");
            let (merged, parts) = merged(&client, range.clone()).await.expect("a stream is served");
            assert_eq!(merged, whole, "{range:?}");
            assert!(parts >= whole.kvs.iter().map(|pair| pair.value.len()).sum::<usize>() / 400_000);
        }
        let sorted = pb::RangeRequest { sort_order: 2, ..all.clone() };
        let refused = merged(&client, sorted).await.expect_err("a sort is not streamed");
        assert_eq!(refused.code(), tonic::Code::Unimplemented);
        let future =
            merged(&client, pb::RangeRequest { revision: 99, ..all }).await.expect_err("it is to come");
        assert_eq!(future.message(), "etcdserver: mvcc: required revision is a future revision");
        let empty = merged(&client, pb::RangeRequest::default()).await.expect_err("there is no key");
        assert_eq!(empty.message(), "etcdserver: key is not provided");
    });
}

#[test]
fn leadership_is_moved_by_whoever_leads_and_to_a_member() {
    let cluster = mainstay(3);
    let (leader, status) = cluster.leader(PATIENCE).expect("somebody leads");
    let other = status.members.iter().find(|member| member.id != status.member).expect("others").id.0;
    block_on(async {
        let mover = async |position: usize, target_id| {
            let client = Client::connect(cluster.members[position].client).await;
            let request = pb::MoveLeaderRequest { target_id };
            client.call::<_, pb::MoveLeaderResponse>("/etcdserverpb.Maintenance/MoveLeader", request).await
        };
        let refused = mover((leader + 1) % 3, other).await.expect_err("it does not lead");
        assert_eq!(refused.message(), "etcdserver: not leader");
        let refused = mover(leader, 4711).await.expect_err("there is no such member");
        assert_eq!(refused.message(), "etcdserver: bad leader transferee");
        let moved = mover(leader, other).await.expect("it is moved");
        assert_eq!(moved.header, None);
    });
    let (_, status) = cluster.leader(PATIENCE).expect("somebody leads");
    assert_eq!(status.member.0, other);
}

#[test]
fn a_server_tells_what_can_be_called() {
    // `list_services = ""` of the published request: field 7, a string.
    #[derive(Clone, PartialEq, Message)]
    struct Asked {
        #[prost(string, optional, tag = "7")]
        list_services: Option<String>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Told {
        #[prost(message, optional, tag = "6")]
        services: Option<Services>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Services {
        #[prost(message, repeated, tag = "1")]
        service: Vec<Service>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Service {
        #[prost(string, tag = "1")]
        name: String,
    }
    let cluster = mainstay(1);
    block_on(async {
        let client = Client::connect(cluster.members[0].client).await;
        let asked = tokio_stream::once(Asked { list_services: Some(String::new()) });
        let mut told: tonic::Streaming<Told> = client
            .stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", asked)
            .await
            .expect("a stream opens");
        let services =
            told.message().await.expect("it goes on").expect("an answer").services.expect("a list");
        let names: Vec<&str> = services.service.iter().map(|service| service.name.as_str()).collect();
        for name in ["etcdserverpb.KV", "etcdserverpb.Watch", "etcdserverpb.Maintenance", "v3lockpb.Lock"] {
            assert!(names.contains(&name), "{names:?}");
        }
    });
}
