//! What a member does under demands that are honest and large, and where its threads run.

use crate::support::{PATIENCE, cluster, options};
use mainstay::api::{EncodedCommand, ReadMode, Refusal, Request, Response};
use mainstay::cli::cluster::LocalCluster;
use mainstay::client::Connection;
use mainstay::ids::KeyspaceId;
use mainstay::kv::{Command, KeyRange, Put, Query, Range};

const KEYSPACE: KeyspaceId = KeyspaceId::FIRST;

fn put(key: &str, value_bytes: usize) -> Request {
    let (key, value) = (key.to_owned().into(), vec![b'v'; value_bytes].into());
    let put = Command::Put(Put::new(key, value));
    let command = EncodedCommand::encode(&put).expect("within the limits");
    Request::Write { keyspace: KEYSPACE, stamp: None, command }
}

fn all() -> Request {
    let range = Range::new(KeyRange::From("large/".into()));
    Request::Read { keyspace: KEYSPACE, query: Query::Range(range), mode: ReadMode::Linearizable }
}

#[test]
fn a_client_that_asks_for_more_than_it_takes_is_answered_and_not_cut_off() {
    let cluster = cluster(1);
    let address = cluster.members[0].native.to_string();
    let mut client = Connection::open(&address, None, PATIENCE).expect("it serves");
    for key in 0..12 {
        let answer = client.call(&put(&format!("large/{key}"), 1_000_000), PATIENCE).expect("it serves");
        assert!(matches!(answer, Response::Applied(_)), "{answer:?}");
    }
    // Twelve megabytes each: three gigabytes, of which nothing is taken before all have been asked for.
    let asked_count = 250;
    for _ in 0..asked_count {
        client.queue(&all()).expect("the member allows that many");
    }
    client.flush().expect("it takes them");
    let mut served_count = 0;
    for _ in 0..asked_count {
        match client.receive().expect("every request is answered, and the connection stands").1 {
            Response::Applied(_) => served_count += 1,
            Response::Refused(refusal) => assert_eq!(refusal, Refusal::Overloaded),
            other => panic!("a read is answered or refused: {other:?}"),
        }
    }
    assert!(served_count > 0, "what there is room for is served");
    let answer = client.call(&all(), PATIENCE).expect("and it goes on");
    assert!(matches!(answer, Response::Applied(_)));
}

#[test]
fn threads_run_on_the_cpus_that_were_named_and_on_no_others() {
    let mut pinned = options(1);
    pinned.arguments.extend(["--cpus".to_owned(), "0".to_owned()]);
    let cluster = LocalCluster::start(pinned, PATIENCE).expect("it starts");
    let pid = cluster.members[0].pid().expect("it runs");
    let mut places = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs") {
        let thread = thread.expect("listed").path();
        let name = std::fs::read_to_string(thread.join("comm")).expect("named");
        let status = std::fs::read_to_string(thread.join("status")).expect("told");
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        places.push((name.trim().to_owned(), allowed.expect("told").trim().to_owned()));
    }
    for name in ["shard-0", "bulk"] {
        assert!(places.contains(&(name.to_owned(), "0".to_owned())), "{name}: {places:?}");
    }
}
