//! Short stories of watches on whole shards: who is told what, on a leader and on a follower.

use super::Input;
use super::test_cluster::{Cluster, ELECTION_MICROS, get, put, revision_of};
use crate::api::{EncodedCommand, Refusal, Request, Response, WatchAnswer, WatchRequest};
use crate::auth::Who;
use crate::ids::{KeyspaceId, MemberId, Revision, StreamId, Ticket, WatchId};
use crate::kv::{Command, Compact, KeyRange};
use crate::watch::{Ending, Interest, WatchSpec};
use bytes::Bytes;

const STREAM: StreamId = StreamId(9);

/// Asks something about watches; `name` is what a new one is to be called.
fn ask(cluster: &mut Cluster, member: MemberId, name: u64, request: WatchRequest) -> Option<Response> {
    let ticket = Ticket(1_000 + name);
    let input = Input::Watch { ticket, who: Who::Nobody, stream: STREAM, name: WatchId(name), request };
    cluster.inputs.entry(member).or_default().push(input);
    cluster.advance(100_000);
    cluster.replies.remove(&ticket)
}

fn create(start: u64) -> WatchRequest {
    let interest = Interest { wants_previous: true, ..Interest::all(KeyRange::From(Bytes::new())) };
    let spec = WatchSpec { interest, start: Revision(start), wants_progress: false };
    WatchRequest::Create { keyspace: KeyspaceId::FIRST, spec }
}

fn created(revision: u64) -> Response {
    Response::Watch(WatchAnswer::Created { revision: Revision(revision) })
}

/// The revisions of the events that a watch was told, and the last one it was told it was told.
fn told(cluster: &Cluster, name: u64) -> (Vec<u64>, u64) {
    let told: Vec<_> = cluster.told.iter().filter(|(_, place, _)| place.watch == WatchId(name)).collect();
    let events = told.iter().flat_map(|(_, _, batch)| &batch.events);
    let upto = told.last().map_or(0, |(_, _, batch)| batch.revision.0);
    (events.map(|event| event.pair.mod_revision.0).collect(), upto)
}

fn compact(cluster: &mut Cluster, member: MemberId, revision: u64) {
    let command = Command::Compact(Compact { revision: Revision(revision) });
    let command = EncodedCommand::encode(&command).expect("a small command");
    cluster.ask(member, Request::Write { keyspace: KeyspaceId::FIRST, stamp: None, command });
}

fn founded(members: u64) -> Cluster {
    let mut cluster = Cluster::of(members);
    cluster.advance(3 * ELECTION_MICROS);
    cluster
}

#[test]
fn every_member_tells_what_happens_and_what_happened() {
    let mut cluster = founded(3);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    assert_eq!(revision_of(&cluster.ask(leader, put("a", "one", None))), Revision(2));
    assert_eq!(ask(&mut cluster, follower, 1, create(0)), Some(created(2)));
    cluster.ask(leader, put("a", "two", None));
    assert_eq!(ask(&mut cluster, follower, 2, create(2)), Some(created(3)));
    cluster.ask(follower, put("a", "three", None));
    assert_eq!(told(&cluster, 1), (vec![3, 4], 4), "from now on");
    assert_eq!(told(&cluster, 2), (vec![2, 3, 4], 4), "from the beginning");
    let previous = cluster.told.last().and_then(|(_, _, batch)| batch.events[0].previous.clone());
    assert_eq!(previous.map(|pair| pair.value), Some(Bytes::from_static(b"two")));
}

#[test]
fn a_watch_that_is_cancelled_is_told_nothing_more_and_progress_says_how_far_one_is() {
    let mut cluster = founded(1);
    let member = cluster.leader();
    assert_eq!(ask(&mut cluster, member, 1, create(0)), Some(created(1)));
    let taken = ask(&mut cluster, member, 1, create(0));
    assert_eq!(taken, Some(Response::Refused(Refusal::Malformed)), "a name names one watch");
    cluster.ask(member, put("a", "one", None));
    let progress = |cluster: &mut Cluster, name| {
        ask(cluster, member, name, WatchRequest::Progress { watch: WatchId(1) })
    };
    let reached = Response::Watch(WatchAnswer::Reached { revision: Revision(2) });
    assert_eq!(progress(&mut cluster, 2), Some(reached));
    let cancel = WatchRequest::Cancel { watch: WatchId(1) };
    assert_eq!(ask(&mut cluster, member, 3, cancel), Some(Response::Watch(WatchAnswer::Cancelled)));
    cluster.ask(member, put("a", "two", None));
    assert_eq!(told(&cluster, 1), (vec![2], 2));
    assert_eq!(progress(&mut cluster, 4), Some(Response::Refused(Refusal::NoSuchWatch)));
}

#[test]
fn a_watch_of_what_is_compacted_ends_and_says_where_it_can_begin() {
    let mut cluster = founded(1);
    let member = cluster.leader();
    for value in ["one", "two", "three"] {
        cluster.ask(member, put("a", value, None));
    }
    compact(&mut cluster, member, 3);
    assert_eq!(ask(&mut cluster, member, 1, create(2)), Some(created(4)));
    assert!(
        matches!(cluster.ended.as_slice(), [(_, place, Ending::Compacted(Revision(3)))] if place.watch == WatchId(1))
    );
    assert_eq!(ask(&mut cluster, member, 2, create(3)), Some(created(4)));
    assert_eq!(told(&cluster, 2), (vec![3, 4], 4));
}

#[test]
fn whoever_keeps_up_is_told_of_what_is_compacted_in_the_same_turn() {
    let mut cluster = founded(1);
    let member = cluster.leader();
    assert_eq!(ask(&mut cluster, member, 1, create(0)), Some(created(1)));
    for _ in 0..5 {
        cluster.submit(member, put("a", "x", None));
    }
    compact(&mut cluster, member, 6);
    assert_eq!(told(&cluster, 1), (vec![2, 3, 4, 5, 6], 6));
    assert_eq!(cluster.ended, []);
}

#[test]
fn a_stream_that_closes_takes_its_watches_along_also_those_that_wait_to_be_created() {
    let mut cluster = founded(3);
    let follower = cluster.follower();
    assert_eq!(ask(&mut cluster, follower, 1, create(0)), Some(created(1)));
    let waiting = Input::Watch {
        ticket: Ticket(1),
        who: Who::Nobody,
        stream: STREAM,
        name: WatchId(2),
        request: create(0),
    };
    cluster.inputs.entry(follower).or_default().extend([waiting, Input::StreamClosed { stream: STREAM }]);
    cluster.advance(100_000);
    assert_eq!(cluster.replies.remove(&Ticket(1)), Some(Response::Refused(Refusal::NoQuorum)));
    let watches = cluster.shards[&follower].observe().map(|replica| replica.watches_count).sum::<usize>();
    assert_eq!(watches, 0);
    cluster.ask(follower, get("a"));
    assert_eq!(cluster.told, []);
}

#[test]
fn a_watch_that_is_cancelled_before_it_is_created_is_not_created() {
    let mut cluster = founded(3);
    let member = cluster.follower();
    let input = |ticket, request| Input::Watch {
        ticket: Ticket(ticket),
        who: Who::Nobody,
        stream: STREAM,
        name: WatchId(1),
        request,
    };
    let cancel = WatchRequest::Cancel { watch: WatchId(1) };
    let inputs = [input(2_001, create(0)), input(2_002, cancel)];
    cluster.inputs.entry(member).or_default().extend(inputs);
    cluster.advance(100_000);
    let refused = Response::Refused(Refusal::NoQuorum);
    assert_eq!(cluster.replies.get(&Ticket(2_001)), Some(&refused), "it never was");
    let cancelled = Response::Watch(WatchAnswer::Cancelled);
    assert_eq!(cluster.replies.get(&Ticket(2_002)), Some(&cancelled));
    cluster.ask(member, put("a", "one", None));
    assert!(cluster.told.is_empty(), "nobody watches");
}
