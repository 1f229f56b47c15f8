//! Whatever comes to a port that is not what the port is for: it is refused or the connection closed, one line of the
//! log says so, and nothing has changed.

use crate::support::{Load, PATIENCE, assert_nothing_lost, cluster, pause, revision};
use mainstay::api::native::{ClientHello, Features, Receiver, decode_frame, decode_response_frame};
use mainstay::api::{Refusal, Response};
use mainstay::cli::cluster::LocalMember;
use mainstay::ids::{ClusterId, MemberId};
use mainstay::peer::{Greeting, PEER_VERSIONS};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Longer than a handshake may take.
const CLOSE_PATIENCE: Duration = Duration::from_secs(20);

fn random_bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        state.to_le_bytes()[7]
    };
    (0..count).map(|_| next()).collect()
}

fn hello(version: u8, cluster: Option<ClusterId>) -> Vec<u8> {
    let hello = ClientHello { version_min: version, version_max: version, features: Features(0), cluster };
    hello.encode_frame().to_vec()
}

fn greeting(cluster: ClusterId, versions: (u8, u8), to: MemberId) -> Vec<u8> {
    let stranger = MemberId(4_711);
    let greeting = Greeting { versions, cluster, from: stranger, to, incarnation: 1, ..Greeting::default() };
    greeting.encode().to_vec()
}

/// Sends `bytes`, keeps the connection open, and returns what came back until the member closed it.
#[track_caller]
fn answer_to(name: &str, address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the port is open");
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    // The member may close before everything is sent, which is its right.
    let _ = stream.write_all(bytes);
    let began = Instant::now();
    let mut answer = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return answer,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return answer,
        }
        assert!(began.elapsed() < CLOSE_PATIENCE, "{name}: the connection is closed; so far came {answer:?}");
    }
}

/// The refusal in an answer, if it is one.
fn refusal_in(answer: &[u8]) -> Option<Refusal> {
    let mut buffer = answer.into();
    let frame = decode_frame(&mut buffer, Receiver::Client).ok().flatten()?;
    match decode_response_frame(&frame).ok()? {
        Response::Refused(refusal) => Some(refusal),
        _ => None,
    }
}

fn log_lines(member: &LocalMember) -> Vec<String> {
    std::fs::read_to_string(&member.log).expect("a log").lines().map(str::to_owned).collect()
}

#[test]
fn garbage_on_any_port_changes_nothing_and_leaves_one_line() {
    let cluster = cluster(1);
    let load = Load::start(&cluster, "garbage");
    load.wait_for(10);
    let ledgers = load.stop();
    let member = &cluster.members[0];
    let before = (revision(&cluster), member.status().expect("it answers").term, member.pid());
    let id = member.status().expect("it answers").member;

    let mut oversized = hello(1, None);
    oversized[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut flipped = hello(1, None);
    flipped[20] ^= 1;
    let other = ClusterId(1);
    let cases: Vec<(&str, SocketAddr, Vec<u8>)> = vec![
        ("random bytes to the native port", member.native, random_bytes(1, 4_096)),
        ("half a hello", member.native, hello(1, None)[..10].to_vec()),
        ("a hello that claims four gigabytes", member.native, oversized),
        ("a hello with a flipped bit", member.native, flipped),
        ("a hello of another version", member.native, hello(99, None)),
        ("a hello for another cluster", member.native, hello(1, Some(other))),
        ("HTTP to the native port", member.native, b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a peer's greeting to the native port", member.native, greeting(other, PEER_VERSIONS, id)),
        ("random bytes to the peer port", member.peer, random_bytes(2, 4_096)),
        ("half a greeting", member.peer, greeting(other, PEER_VERSIONS, id)[..20].to_vec()),
        ("a client's hello to the peer port", member.peer, hello(1, None)),
        ("a greeting of another cluster", member.peer, greeting(other, PEER_VERSIONS, id)),
        ("a greeting of another version", member.peer, greeting(other, (98, 99), id)),
        ("a greeting for somebody else", member.peer, greeting(other, PEER_VERSIONS, MemberId(5))),
    ];
    for (name, address, bytes) in cases {
        let lines_before = log_lines(member).len();
        let answer = answer_to(name, address, &bytes);
        if address == member.native && !answer.is_empty() {
            assert!(refusal_in(&answer).is_some(), "{name}: the answer is a refusal");
        }
        let began = Instant::now();
        while log_lines(member).len() == lines_before {
            assert!(began.elapsed() < PATIENCE, "{name}: a line in the log");
            pause();
        }
        let lines = log_lines(member).split_off(lines_before);
        assert_eq!(lines.len(), 1, "{name}: one line in the log: {lines:#?}");
    }
    assert_eq!(
        refusal_in(&answer_to("another cluster", member.native, &hello(1, Some(other)))),
        Some(Refusal::WrongCluster)
    );
    assert_eq!(
        refusal_in(&answer_to("another version", member.native, &hello(99, None))),
        Some(Refusal::NoCommonVersion)
    );
    let after = (revision(&cluster), member.status().expect("it answers").term, member.pid());
    assert_eq!(after, before, "nothing has changed");
    assert_nothing_lost(&cluster, &ledgers);
}

/// The members of a founded cluster trust that nothing from an earlier life of a peer comes after a later one's word.
#[test]
fn a_member_that_greets_again_is_no_longer_heard_on_its_older_connection() {
    let mut cluster = cluster(3);
    let impersonated = cluster.members[1].status().expect("it answers").member;
    cluster.members[1].kill();
    let status = cluster.members[0].status().expect("it answers");
    let greet = || {
        let greeting = Greeting {
            versions: PEER_VERSIONS,
            cluster: status.cluster,
            from: impersonated,
            to: status.member,
            ..Greeting::default()
        };
        let mut stream = TcpStream::connect(cluster.members[0].peer).expect("the port is open");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(&greeting.encode()).expect("sent");
        stream
    };
    let mut answer = [0; 1];
    let mut older = greet();
    assert_eq!(older.read(&mut answer).expect("a greeting comes back"), 1);
    let mut newer = greet();
    assert_eq!(newer.read(&mut answer).expect("a greeting comes back"), 1);
    let mut rest = Vec::new();
    older.read_to_end(&mut rest).expect("the older one is closed within the patience");
    newer.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let end = newer.read_to_end(&mut rest).expect_err("the newer one stays open");
    assert!(matches!(end.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{end}");
}

#[test]
fn a_running_cluster_serves_while_garbage_rains_on_it() {
    let cluster = cluster(3);
    let load = Load::start(&cluster, "rain");
    load.wait_for(50);
    for seed in 0..30 {
        for member in &cluster.members {
            for address in [member.native, member.peer] {
                let mut stream = TcpStream::connect(address).expect("the port is open");
                let mut bytes = if seed % 2 == 0 {
                    hello(1, None)
                } else {
                    greeting(ClusterId(3), PEER_VERSIONS, MemberId(1))
                };
                bytes.extend(random_bytes(seed, 300));
                let flipped = usize::try_from(seed).expect("small");
                bytes[flipped] ^= 0x10;
                let _ = stream.write_all(&bytes);
            }
        }
    }
    load.wait_for(50);
    for member in &cluster.members {
        assert!(member.status().is_some(), "{} answers", member.name);
    }
    assert_nothing_lost(&cluster, &load.stop());
}
