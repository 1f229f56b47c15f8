//! The same requests to ours and to a real etcd: the answers are the same, field by field, faults included.
//!
//! `MAINSTAY_DIFFERENTIAL=100000 MAINSTAY_SEED=7` asks more, of another seed. Not compared: ids of clusters and members,
//! terms, and the order of pairs that a sort does not tell apart.

use crate::client::{Client, block_on};
use crate::generator::{Ask, Generator};
use crate::servers::{Etcd, mainstay};
use bytes::Bytes;
use mainstay::api::etcd::proto::etcdserverpb as pb;
use mainstay::api::etcd::proto::mvccpb::KeyValue;
use pb::response_op::Response;

const REQUESTS_COUNT: u64 = 2_000;

/// What a server says.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // there are two of them at any time
pub(crate) enum Said {
    Range(pb::RangeResponse),
    Put(pb::PutResponse),
    DeleteRange(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compact(pb::CompactionResponse),
    Grant(pb::LeaseGrantResponse),
    Revoke(pb::LeaseRevokeResponse),
    TimeToLive(pb::LeaseTimeToLiveResponse),
    Leases(pb::LeaseLeasesResponse),
    Fault(tonic::Code, String),
}

pub(crate) async fn tell(client: &Client, ask: &Ask) -> Said {
    let said = match ask.clone() {
        Ask::Range(it) => client.call("/etcdserverpb.KV/Range", it).await.map(Said::Range),
        Ask::Put(it) => client.call("/etcdserverpb.KV/Put", it).await.map(Said::Put),
        Ask::DeleteRange(it) => client.call("/etcdserverpb.KV/DeleteRange", it).await.map(Said::DeleteRange),
        Ask::Txn(it) => client.call("/etcdserverpb.KV/Txn", it).await.map(Said::Txn),
        Ask::Compact(it) => client.call("/etcdserverpb.KV/Compact", it).await.map(Said::Compact),
        Ask::Grant(it) => client.call("/etcdserverpb.Lease/LeaseGrant", it).await.map(Said::Grant),
        Ask::Revoke(it) => client.call("/etcdserverpb.Lease/LeaseRevoke", it).await.map(Said::Revoke),
        Ask::TimeToLive(it) => {
            client.call("/etcdserverpb.Lease/LeaseTimeToLive", it).await.map(Said::TimeToLive)
        }
        Ask::Leases(it) => client.call("/etcdserverpb.Lease/LeaseLeases", it).await.map(Said::Leases),
    };
    said.unwrap_or_else(|status| Said::Fault(status.code(), status.message().to_owned()))
}

/// Takes out what is not compared, and returns the revision.
pub(crate) fn normalise(ask: &Ask, said: &mut Said) -> i64 {
    let header = match said {
        Said::Range(it) => &mut it.header,
        Said::Put(it) => &mut it.header,
        Said::DeleteRange(it) => &mut it.header,
        Said::Txn(it) => &mut it.header,
        Said::Compact(it) => &mut it.header,
        Said::Grant(it) => &mut it.header,
        Said::Revoke(it) => &mut it.header,
        Said::TimeToLive(it) => &mut it.header,
        Said::Leases(it) => &mut it.header,
        Said::Fault(..) => return 0,
    };
    let mut revision = 0;
    if let Some(header) = header {
        revision = header.revision;
        (header.cluster_id, header.member_id, header.raft_term) = (0, 0, 0);
    }
    match (ask, said) {
        (Ask::Range(ask), Said::Range(said)) => untie(ask, said),
        (Ask::Txn(ask), Said::Txn(said)) => untie_all(ask, said),
        // What remains of ten thousand seconds is a second more or less on a slow machine.
        (_, Said::TimeToLive(said)) => {
            said.ttl = if said.ttl < 0 { -1 } else { said.granted_ttl - said.ttl } / 600;
            said.keys.sort();
            // etcd 3.5.1 takes this header from the lessor, without a revision.
            said.header = None;
        }
        (_, Said::Leases(said)) => {
            said.leases.sort_by_key(|lease| lease.id);
            said.header = None;
        }
        (_, Said::Grant(said)) => said.header = None,
        _ => {}
    }
    revision
}

fn untie_all(ask: &pb::TxnRequest, said: &mut pb::TxnResponse) {
    let list = if said.succeeded { &ask.success } else { &ask.failure };
    for (operation, response) in list.iter().zip(&mut said.responses) {
        match (&operation.request, &mut response.response) {
            (Some(pb::request_op::Request::RequestRange(ask)), Some(Response::ResponseRange(said))) => {
                untie(ask, said);
            }
            (Some(pb::request_op::Request::RequestTxn(ask)), Some(Response::ResponseTxn(said))) => {
                untie_all(ask, said);
            }
            _ => {}
        }
    }
}

/// Pairs that a sort does not tell apart may come in any order, and any of them may be cut off.
fn untie(ask: &pb::RangeRequest, said: &mut pb::RangeResponse) {
    if ask.sort_target == 0 {
        return;
    }
    let target = ask.sort_target;
    let rank = move |pair: &KeyValue| match target {
        1 => (pair.version, Bytes::default()),
        2 => (pair.create_revision, Bytes::default()),
        3 => (pair.mod_revision, Bytes::default()),
        _ => (0, pair.value.clone()),
    };
    if said.more && !ask.keys_only {
        for pair in &mut said.kvs {
            let (number, value) = rank(pair);
            *pair = KeyValue { version: number, value, ..Default::default() };
        }
    } else if said.more {
        said.kvs.iter_mut().for_each(|pair| *pair = KeyValue::default());
    } else if target == 4 && ask.keys_only {
        said.kvs.sort_by_key(|pair| pair.key.clone());
    } else {
        let is_descending = ask.sort_order == 2;
        let before: Vec<_> = said.kvs.iter().map(rank).collect();
        said.kvs.sort_by_key(|pair| (rank(pair), pair.key.clone()));
        if is_descending {
            said.kvs.sort_by_key(|pair| std::cmp::Reverse(rank(pair)));
        }
        let after: Vec<_> = said.kvs.iter().map(rank).collect();
        assert_eq!(before, after, "an answer is sorted as was asked");
    }
}

/// Asks both, asserts that they say the same, and returns the revision that etcd told, or 0.
pub(crate) async fn compared(theirs: &Client, ours: &Client, ask: &Ask, what: &str) -> i64 {
    let (mut expected, mut found) = (tell(theirs, ask).await, tell(ours, ask).await);
    let revision = normalise(ask, &mut expected);
    normalise(ask, &mut found);
    assert!(expected == found, "{what}:\n{ask:#?}\netcd says\n{expected:#?}\nwe say\n{found:#?}");
    revision
}

pub(crate) fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

#[test]
fn etcd_and_we_give_the_same_answers() {
    let Some(etcd) = Etcd::start("etcd_and_we_give_the_same_answers") else { return };
    let cluster = mainstay(1);
    let count = from_environment("MAINSTAY_DIFFERENTIAL", REQUESTS_COUNT);
    let seed = from_environment("MAINSTAY_SEED", u64::from(std::process::id()));
    println!("{count} requests, MAINSTAY_SEED={seed}");
    block_on(async {
        let theirs = Client::connect(etcd.client).await;
        let ours = Client::connect(cluster.members[0].client).await;
        let mut generator = Generator::new(seed);
        for number in 0..count {
            let ask = generator.next();
            let what = format!("request {number} of MAINSTAY_SEED={seed}");
            let revision = compared(&theirs, &ours, &ask, &what).await;
            generator.revision = generator.revision.max(revision);
        }
    });
}
