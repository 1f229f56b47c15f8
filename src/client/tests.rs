//! The client against members made up for the purpose: threads that speak the protocol and follow a script.

use super::clock::now;
use super::{Client, ClientOptions, Connection, Trouble};
use crate::api::native::{
    ClientHello, Features, Frame, Receiver, ServerHello, VERSION, decode_frame, decode_request,
    encode_refusal_frame, encode_response_frame,
};
use crate::api::{Certainty, MemberView, Refusal, Request, Response, Stamp, Status};
use crate::ids::{ClusterId, LeaseId, MemberId, Revision, SessionId};
use crate::kv::{
    Applied, Command, Grant, KeyValue, LeaseCommand, LeaseOutcome, Outcome, PutResult, RangeResult, Renewed,
    Revoke, TxnResult,
};
use bytes::BytesMut;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What a made-up member does with the next request.
#[derive(Clone, Debug)]
enum Act {
    Answer(Response),
    /// The same, after a while.
    Late(Duration, Box<Act>),
    /// Answers nothing and hangs up.
    HangUp,
    /// Bytes that are no frame.
    Babble,
}

#[derive(Debug, Default)]
struct Script {
    acts: VecDeque<Act>,
    heard: Vec<Request>,
}

/// A member that follows a script, on a free port. When the script is over it answers nothing.
struct Fake {
    address: String,
    script: Arc<Mutex<Script>>,
}

impl Fake {
    fn new(member: u64, acts: &[Act]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        let script = Script { acts: acts.iter().cloned().collect(), heard: Vec::new() };
        let script = Arc::new(Mutex::new(script));
        let shared = Arc::clone(&script);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream, member, &shared));
            }
        });
        Self { address, script }
    }

    fn heard(&self) -> Vec<Request> {
        self.script.lock().expect("no thread panicked").heard.clone()
    }

    fn stamps(&self) -> Vec<Stamp> {
        let stamp = |request: &Request| match request {
            Request::Write { stamp, .. } => *stamp,
            Request::OpenSession { .. }
            | Request::CloseSession { .. }
            | Request::Read { .. }
            | Request::KeepAlive { .. }
            | Request::TimeToLive { .. }
            | Request::Snapshot { .. }
            | Request::Watch(_)
            | Request::Status => None,
        };
        self.heard().iter().filter_map(stamp).collect()
    }
}

fn next_frame(stream: &mut TcpStream, received: &mut BytesMut) -> Option<Frame> {
    let mut chunk = [0; 4_096];
    loop {
        if let Some(frame) = decode_frame(received, Receiver::Server).expect("a client sends good frames") {
            return Some(frame);
        }
        let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
        received.extend_from_slice(&chunk[..count]);
    }
}

fn serve(mut stream: TcpStream, member: u64, script: &Mutex<Script>) -> Option<()> {
    let mut received = BytesMut::new();
    let hello = ClientHello::decode(&next_frame(&mut stream, &mut received)?).expect("a hello comes first");
    if hello.cluster.is_some_and(|cluster| cluster != ClusterId(7)) {
        stream.write_all(&encode_refusal_frame(0, Refusal::WrongCluster, "")).ok()?;
        return None;
    }
    stream.write_all(&server_hello(member).encode_frame()).ok()?;
    loop {
        let frame = next_frame(&mut stream, &mut received)?;
        let request = decode_request(&frame).expect("a client sends good requests");
        let act = {
            let mut script = script.lock().expect("no thread panicked");
            script.heard.push(request.clone());
            match request {
                Request::CloseSession { .. } => Some(Act::Answer(Response::SessionClosed)),
                Request::OpenSession { .. }
                | Request::Write { .. }
                | Request::Read { .. }
                | Request::KeepAlive { .. }
                | Request::TimeToLive { .. }
                | Request::Snapshot { .. }
                | Request::Watch(_)
                | Request::Status => script.acts.pop_front(),
            }
        };
        let act = match act {
            Some(Act::Late(pause, act)) => {
                thread::park_timeout(pause);
                Some(*act)
            }
            Some(Act::Answer(_) | Act::HangUp | Act::Babble) | None => act,
        };
        match act {
            Some(Act::Answer(response)) => {
                stream.write_all(&encode_response_frame(frame.request, &response)).ok()?;
            }
            Some(Act::HangUp) => return None,
            Some(Act::Babble) => stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").ok()?,
            Some(Act::Late(..)) | None => {}
        }
    }
}

fn server_hello(member: u64) -> ServerHello {
    ServerHello {
        version: VERSION,
        cluster: ClusterId(7),
        member: MemberId(member),
        features: Features(0),
        request_bytes_max: 1 << 20,
        response_bytes_max: 1 << 24,
        key_bytes_max: 1 << 14,
        txn_operations_max: 128,
        requests_in_flight_max: 2,
        sequence_window: 1_024,
    }
}

fn applied(revision: u64) -> Act {
    let outcome = Outcome::Put(PutResult::default());
    Act::Answer(Response::Applied(Applied { revision: Revision(revision), outcome }))
}

fn applied_as(revision: u64, outcome: Outcome) -> Act {
    Act::Answer(Response::Applied(Applied { revision: Revision(revision), outcome }))
}

/// What a member answers to a client that takes a lock which is free: lease 31, key `door/1f`, token 12.
fn held_at_once(ttl: Duration) -> Vec<Act> {
    let ttl_ms = u64::try_from(ttl.as_millis()).expect("a short time");
    let granted = LeaseOutcome::Granted(Grant { lease: LeaseId(0x1f), ttl_ms });
    let txn = TxnResult { succeeded: true, results: Vec::new() };
    vec![
        opened(5),
        applied_as(11, Outcome::Lease(granted)),
        applied_as(12, Outcome::Txn(txn)),
        queue(&[(0x1f, 12)]),
    ]
}

/// The candidates for `door`: the lease of each and its token.
fn queue(candidates: &[(u64, u64)]) -> Act {
    let pair = |&(lease, fence): &(u64, u64)| pair_of(format!("door/{lease:x}"), lease, fence);
    let pairs: Vec<KeyValue> = candidates.iter().map(pair).collect();
    applied_as(12, Outcome::Range(RangeResult { count: pairs.len() as u64, pairs, ..RangeResult::default() }))
}

fn pair_of(key: String, lease: u64, created: u64) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: "".into(),
        create_revision: Revision(created),
        mod_revision: Revision(created),
        version: 1,
        lease: LeaseId(lease),
    }
}

fn renewed(ttl: Duration) -> Act {
    let ttl_ms = u64::try_from(ttl.as_millis()).expect("a short time");
    applied_as(12, Outcome::Lease(LeaseOutcome::Renewed(Renewed { ttl_ms })))
}

fn opened(session: u64) -> Act {
    Act::Answer(Response::SessionOpened { session: SessionId(session) })
}

fn refused(refusal: Refusal) -> Act {
    Act::Answer(Response::Refused(refusal))
}

fn client_of(fakes: &[&Fake], timeout: Duration) -> Client {
    let endpoints: Vec<String> = fakes.iter().map(|fake| fake.address.clone()).collect();
    Client::new(ClientOptions { timeout, ..ClientOptions::of(&endpoints) })
}

/// Longer than any of these exchanges takes, however busy the machine.
const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);

#[test]
fn writes_share_one_session_and_number_themselves() {
    let fake = Fake::new(1, &[opened(5), applied(2), applied(3)]);
    let mut client = client_of(&[&fake], LONG);
    assert_eq!(client.put("a", "1").expect("served").revision, Revision(2));
    assert_eq!(client.put("a", "2").expect("served").revision, Revision(3));
    let stamp = |sequence| Stamp { session: SessionId(5), sequence, low_water: sequence - 1 };
    assert_eq!(fake.stamps(), [stamp(1), stamp(2)]);
    assert_eq!((client.cluster(), client.member()), (Some(ClusterId(7)), MemberId(1)));
    client.close();
    assert!(matches!(fake.heard().last(), Some(Request::CloseSession { session: SessionId(5), .. })));
}

#[test]
fn a_write_whose_answer_was_lost_is_sent_again_with_the_same_stamp_elsewhere() {
    let first = Fake::new(1, &[opened(5), Act::HangUp]);
    let second = Fake::new(2, &[applied(2)]);
    let mut client = client_of(&[&first, &second], LONG);
    client.put("a", "1").expect("the second member serves it");
    assert_eq!(first.stamps(), second.stamps());
    assert_eq!(first.stamps().len(), 1);
}

#[test]
fn a_member_that_babbles_is_left_for_another() {
    let first = Fake::new(1, &[opened(5), Act::Babble]);
    let second = Fake::new(2, &[applied(2)]);
    client_of(&[&first, &second], LONG).put("a", "1").expect("the second member serves it");
}

#[test]
fn a_write_that_nobody_answers_has_an_unknown_outcome_and_a_refused_one_is_not_done() {
    let silent = Fake::new(1, &[opened(5)]);
    let failure = client_of(&[&silent], SHORT).put("a", "1").expect_err("nobody answers");
    assert_eq!((failure.certainty(), failure.code()), (Certainty::OutcomeUnknown, "timed-out"));

    let refusing = Fake::new(1, &[opened(5), refused(Refusal::NoSuchKeyspace)]);
    let failure = client_of(&[&refusing], LONG).put("a", "1").expect_err("it is refused");
    assert_eq!((failure.certainty(), failure.code()), (Certainty::NotDone, "no-such-keyspace"));
}

#[test]
fn a_write_is_not_done_if_no_session_could_be_opened() {
    let silent = Fake::new(1, &[]);
    let failure = client_of(&[&silent], SHORT).put("a", "1").expect_err("nobody answers");
    assert_eq!(failure.certainty(), Certainty::NotDone);
    assert!(failure.to_string().starts_with("the write was not done"), "{failure}");
}

#[test]
fn a_leader_that_is_not_among_the_endpoints_is_found_through_the_member_that_names_it() {
    let leader = Fake::new(2, &[applied(9)]);
    let view = |id, native: &str| MemberView {
        id: MemberId(id),
        native: native.to_owned(),
        ..MemberView::default()
    };
    let status = Status { members: vec![view(2, &leader.address)], ..Status::default() };
    let refusal = refused(Refusal::NotLeader { leader: Some(MemberId(2)) });
    let follower = Fake::new(1, &[refusal, Act::Answer(Response::Status(Box::new(status)))]);
    let mut client = client_of(&[&follower], LONG);
    assert_eq!(client.get("a").expect("the leader serves it").revision, Revision(9));
    assert_eq!(client.member(), MemberId(2));
}

#[test]
fn a_write_whose_session_has_ended_is_sent_in_a_new_one_if_no_attempt_is_in_doubt() {
    let acts = [opened(5), refused(Refusal::SessionUnknown), opened(6), applied(2)];
    let fake = Fake::new(1, &acts);
    client_of(&[&fake], LONG).put("a", "1").expect("nothing was done in the session that ended");
    let stamp = |session| Stamp { session: SessionId(session), sequence: 1, low_water: 0 };
    assert_eq!(fake.stamps(), [stamp(5), stamp(6)]);
}

#[test]
fn a_write_that_an_ended_session_may_have_done_is_not_sent_in_another() {
    let first = Fake::new(1, &[opened(5), Act::HangUp]);
    let second = Fake::new(2, &[refused(Refusal::SessionUnknown), opened(6), applied(2)]);
    let mut client = client_of(&[&first, &second], LONG);
    let failure = client.put("a", "1").expect_err("what it did is no longer remembered");
    assert_eq!((failure.certainty(), failure.code()), (Certainty::OutcomeUnknown, "session-unknown"));
    client.put("a", "2").expect("served in a new session");
    let last = second.stamps().pop().expect("it was stamped");
    assert_eq!(last, Stamp { session: SessionId(6), sequence: 1, low_water: 0 });
}

#[test]
fn a_session_that_ends_as_often_as_it_is_opened_is_not_opened_for_ever() {
    let ended = refused(Refusal::SessionUnknown);
    let fake = Fake::new(1, &[opened(5), ended.clone(), opened(6), ended, opened(7), applied(2)]);
    let failure = client_of(&[&fake], LONG).put("a", "1").expect_err("something is wrong there");
    assert_eq!((failure.certainty(), failure.code()), (Certainty::NotDone, "session-unknown"));
}

#[test]
fn a_member_of_another_cluster_is_refused() {
    let fake = Fake::new(1, &[]);
    let mut options = ClientOptions::of(std::slice::from_ref(&fake.address));
    options.cluster = Some(ClusterId(8));
    let failure = Client::new(options).get("a").expect_err("it is another cluster");
    assert_eq!(failure.code(), "wrong-cluster");
}

#[test]
fn a_key_beyond_its_limit_is_refused_before_anything_is_sent() {
    let fake = Fake::new(1, &[]);
    let failure = client_of(&[&fake], LONG).put(vec![b'k'; 1 << 20], "1").expect_err("it is too long");
    assert_eq!((failure.certainty(), failure.code()), (Certainty::NotDone, "malformed"));
    assert!(fake.heard().is_empty());
}

#[test]
fn nobody_at_the_address_is_told_with_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    drop(listener);
    let mut options = ClientOptions::of(std::slice::from_ref(&address));
    options.timeout = SHORT;
    let failure = Client::new(options).get("a").expect_err("nobody is there");
    assert_eq!(failure.code(), "unreachable");
    assert!(failure.detail.contains(&address), "{failure}");
}

#[test]
fn requests_are_pipelined_up_to_what_the_member_allows() {
    let fake = Fake::new(1, &[applied(2), applied(3)]);
    let mut connection = Connection::open(&fake.address, None, LONG).expect("it listens");
    let ids = [(); 2].map(|()| connection.queue(&Request::Status).expect("two are allowed"));
    assert!(matches!(connection.queue(&Request::Status), Err(Trouble::TooManyInFlight(2))));
    connection.flush().expect("it takes them");
    let answered = [(); 2].map(|()| connection.receive().expect("it answers").0);
    assert_eq!(ids, answered);
    assert_eq!(connection.in_flight(), 0);
    assert!(matches!(connection.receive_within(Duration::from_millis(10)), Err(Trouble::TimedOut)));
}

#[test]
fn a_renewal_that_nobody_answers_ends_with_the_time_for_which_the_lock_is_surely_held() {
    let ttl = Duration::from_secs(3);
    let fake = Fake::new(1, &held_at_once(ttl));
    let mut client = client_of(&[&fake], LONG);
    let mut held = client.hold(&"door".into(), "".into(), ttl, None).expect("it is free");
    assert_eq!((held.key.as_ref(), held.fence), (&b"door/1f"[..], Revision(12)));
    assert!(held.renew_in() < held.end_in() && held.end_in() < held.sure_for(), "{held:?}");
    let began = now();
    held.keep_alive(&mut client).expect_err("nobody answers");
    let waited = now().saturating_duration_since(began);
    assert!(waited < LONG / 2, "it was waited for {waited:?}, past the end of the lease");
    assert!(!held.is_surely_held());
}

#[test]
fn a_lock_that_was_long_in_coming_is_renewed_before_it_is_given() {
    let ttl = Duration::from_millis(100);
    let mut acts = held_at_once(ttl);
    let grant = acts[1].clone();
    acts[1] = Act::Late(ttl, Box::new(grant));
    acts.push(renewed(LONG));
    let fake = Fake::new(1, &acts);
    let mut client = client_of(&[&fake], LONG);
    let held = client.hold(&"door".into(), "".into(), ttl, None).expect("its turn comes");
    assert!(held.is_surely_held(), "what is given is held");
    assert!(matches!(fake.heard().last(), Some(Request::KeepAlive { lease: LeaseId(0x1f), .. })));
}

/// The leases that a member was asked to revoke.
fn revoked(fake: &Fake) -> Vec<LeaseId> {
    let revoke = |request: &Request| match request {
        Request::Write { command, .. } => match crate::api::decode_command(command.bytes()) {
            Ok(Command::Lease(LeaseCommand::Revoke(Revoke { lease }))) => Some(lease),
            Ok(_) | Err(_) => None,
        },
        Request::OpenSession { .. }
        | Request::CloseSession { .. }
        | Request::Read { .. }
        | Request::KeepAlive { .. }
        | Request::TimeToLive { .. }
        | Request::Snapshot { .. }
        | Request::Watch(_)
        | Request::Status => None,
    };
    fake.heard().iter().filter_map(revoke).collect()
}

#[test]
fn who_cannot_queue_up_leaves_no_lease_behind() {
    let key_is_there = TxnResult { succeeded: false, results: Vec::new() };
    for answer in [refused(Refusal::NoSuchKeyspace), applied_as(12, Outcome::Txn(key_is_there))] {
        let mut acts = held_at_once(LONG);
        acts.truncate(2);
        acts.extend([answer, applied_as(13, Outcome::Lease(LeaseOutcome::Revoked))]);
        let fake = Fake::new(1, &acts);
        let mut client = client_of(&[&fake], LONG);
        client.hold(&"door".into(), "".into(), LONG, None).expect_err("its key could not be made");
        assert_eq!(revoked(&fake), [LeaseId(0x1f)]);
    }
}

#[test]
fn only_a_key_that_is_called_after_its_lease_is_a_candidate() {
    let mut acts = held_at_once(LONG);
    acts.pop();
    let pair = |key: &str, lease, created| pair_of(key.to_owned(), lease, created);
    let pairs = vec![pair("door/1f", 0x1f, 12), pair("door/b", 0, 4), pair("door/left/a", 10, 3)];
    acts.push(applied_as(12, Outcome::Range(RangeResult { count: 3, pairs, ..RangeResult::default() })));
    let fake = Fake::new(1, &acts);
    let held = client_of(&[&fake], LONG).hold(&"door".into(), "".into(), LONG, Some(SHORT));
    assert_eq!(held.expect("nobody is before it").fence, Revision(12));
}
