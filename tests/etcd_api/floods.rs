//! Clients that mean ill, over HTTP/2: whatever they send without end, or never take, the member's memory stays within
//! bounds, it refuses them or hangs up, and it serves others.
//!
//! They write frames by hand, since no client library would (RFC 9113). Left out: bounds that need no connection to be
//! tried (`server/http/flow.rs`).

use crate::client::{Client, PATIENCE, block_on};
use crate::servers::{mainstay, memory};
use mainstay::cli::cluster::LocalCluster;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// How an answer's headers begin if its status is 200 (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;

/// What a stream beyond the allowed number is told.
const REFUSED_STREAM: u32 = 7;
/// What a connection is told that asks too much.
const ENHANCE_YOUR_CALM: u32 = 11;

/// One connection.
struct Raw(TcpStream);

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A list of headers for a call of gRPC, in the plainest encoding (RFC 7541, 6.2.2).
fn headers(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut list = Vec::new();
    let call = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "m"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    for (name, value) in call.iter().chain(more) {
        list.push(0);
        for word in [name, value] {
            assert!(word.len() < 127, "its length has one byte");
            list.push(u8::try_from(word.len()).expect("short"));
            list.extend(word.as_bytes());
        }
    }
    list
}

/// A message as gRPC frames it.
fn message(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("short").to_be_bytes();
    [&[0], length.as_slice(), bytes].concat()
}

impl Raw {
    fn connect(address: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(address).expect("the member listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("it is heard");
        // Windows as large as they can be: 2^31 - 1 bytes, for each stream and for the connection.
        let window = [&[0, 4], 0x7FFF_FFFF_u32.to_be_bytes().as_slice()].concat();
        socket.write_all(&frame(SETTINGS, 0, 0, &window)).expect("it is heard");
        let more = (0x7FFF_FFFF_u32 - 65_535).to_be_bytes();
        socket.write_all(&frame(WINDOW_UPDATE, 0, 0, &more)).expect("it is heard");
        socket.write_all(&frame(SETTINGS, ACK, 0, &[])).expect("it is heard");
        Self(socket)
    }

    /// Sends, unless the other end has hung up.
    fn send(&mut self, bytes: &[u8]) -> bool {
        match self.0.write_all(bytes) {
            Ok(()) => true,
            Err(error) => {
                let is_closed = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset].contains(&error.kind());
                assert!(is_closed, "{error}");
                false
            }
        }
    }

    /// Sends `bytes` over and over, up to `bytes_max` in all, without reading; until they are not taken any more or the other
    /// end has hung up.
    fn pour(&mut self, bytes: &[u8], bytes_max: usize) {
        self.0.set_write_timeout(Some(Duration::from_secs(2))).expect("a timeout can be set");
        for _ in 0..bytes_max / bytes.len() {
            if self.0.write_all(bytes).is_err() {
                return;
            }
        }
    }

    /// The next frame; none at the end of the connection.
    fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.read(&mut head)?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.read(&mut payload)?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    fn read(&mut self, into: &mut [u8]) -> Option<()> {
        match self.0.read_exact(into) {
            Ok(()) => Some(()),
            Err(error) if [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&error.kind()) => {
                None
            }
            Err(error) => panic!("nothing comes: {error}"),
        }
    }

    /// Reads on until the connection ends, and returns the code with which the other end said farewell, if it did.
    fn farewell(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next() {
            if frame.kind == GOAWAY {
                code = frame.payload.get(4..8).map(|code| u32::from_be_bytes(code.try_into().expect("four")));
            }
        }
        code
    }
}

/// Lets `flood` go on against a member, and then asserts that its memory grew by `mebibytes_max` at the most and that it
/// serves others, while what `flood` returned is still open.
fn weather<T>(mebibytes_max: u64, flood: impl FnOnce(&LocalCluster) -> T) {
    let cluster = mainstay(1);
    block_on(async { Client::connect(cluster.members[0].client).await.put("a", "1").await.expect("a put") });
    let before = memory(&cluster);
    let held = flood(&cluster);
    let grown = memory(&cluster).saturating_sub(before);
    block_on(async {
        let client = Client::connect(cluster.members[0].client).await;
        client.put("b", "2").await.expect("others are served");
        assert_eq!(client.get("b").await.expect("others are served").count, 1);
    });
    println!("grew by {} KiB", grown / 1_024);
    assert!(grown <= mebibytes_max * 1_024 * 1_024, "it grew by {grown} bytes");
    drop(held);
}

#[test]
fn streams_beyond_those_allowed_are_refused() {
    const ALLOWED: u32 = 1_024;
    weather(32, |cluster| {
        let mut raw = Raw::connect(cluster.members[0].client);
        let list = headers("/etcdserverpb.Watch/Watch", &[]);
        for number in 0..ALLOWED + 100 {
            assert!(raw.send(&frame(HEADERS, END_HEADERS, 2 * number + 1, &list)), "it hung up");
        }
        let mut refused = 0;
        while refused < 100 {
            let frame = raw.next().expect("it goes on");
            if frame.kind == RST_STREAM {
                assert_eq!(frame.payload, REFUSED_STREAM.to_be_bytes());
                assert!(frame.stream > 2 * (ALLOWED - 1), "one that is allowed was refused: {frame:?}");
                refused += 1;
            }
        }
        raw
    });
}

#[test]
fn headers_without_end_are_refused() {
    weather(16, |cluster| {
        // A list that ends, and is too long.
        let mut raw = Raw::connect(cluster.members[0].client);
        let long = "x".repeat(126);
        let more: Vec<(&str, &str)> = (0..120).map(|_| ("more", long.as_str())).collect();
        let list = headers("/etcdserverpb.KV/Range", &more);
        let (first, rest) = list.split_at(16_000);
        assert!(raw.send(&frame(HEADERS, END_STREAM, 1, first)));
        assert!(raw.send(&frame(CONTINUATION, END_HEADERS, 1, rest)));
        let answer = loop {
            let frame = raw.next().expect("an answer");
            if frame.stream == 1 {
                break frame;
            }
        };
        // A status that is not 200, which every answer of gRPC has (431 here), or the end of the stream.
        assert!(answer.kind == RST_STREAM || answer.payload.first() != Some(&STATUS_200), "{answer:?}");
        // And one that never ends.
        let mut raw = Raw::connect(cluster.members[0].client);
        assert!(raw.send(&frame(HEADERS, END_STREAM, 1, first)));
        raw.pour(&frame(CONTINUATION, 0, 1, rest), 64 * 1_024 * 1_024);
        raw.farewell();
    });
}

#[test]
fn streams_opened_and_reset_at_once_end_the_connection() {
    weather(32, |cluster| {
        let mut raw = Raw::connect(cluster.members[0].client);
        let list = headers("/etcdserverpb.KV/Range", &[]);
        let mut flood = Vec::new();
        for number in 0..100_000_u32 {
            flood.extend(frame(HEADERS, END_HEADERS, 2 * number + 1, &list));
            flood.extend(frame(RST_STREAM, 0, 2 * number + 1, &8_u32.to_be_bytes()));
        }
        raw.pour(&flood, flood.len());
        let code = raw.farewell();
        assert!(code.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{code:?}");
    });
}

#[test]
fn pings_and_settings_whose_answers_are_not_taken_are_not_heard_for_ever() {
    weather(16, |cluster| {
        [frame(PING, 0, 0, b"are you?"), frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9])].map(|one| {
            let mut raw = Raw::connect(cluster.members[0].client);
            raw.pour(&one.repeat(1_000), 64 * 1_024 * 1_024);
            raw
        })
    });
}

#[test]
fn a_message_that_claims_too_much_is_refused_before_it_comes() {
    weather(32, |cluster| {
        let mut raw = Raw::connect(cluster.members[0].client);
        let list = headers("/etcdserverpb.KV/Put", &[]);
        // Four gibibytes each, and of that only the claim.
        for number in 0..200_u32 {
            assert!(raw.send(&frame(HEADERS, END_HEADERS, 2 * number + 1, &list)));
            assert!(raw.send(&frame(DATA, 0, 2 * number + 1, &[0, 0xFF, 0xFF, 0xFF, 0xFF])));
        }
        let mut answered = 0;
        while answered < 200 {
            let frame = raw.next().expect("it goes on");
            let is_end = frame.kind == HEADERS && frame.flags & END_STREAM != 0;
            answered += u32::from(is_end);
        }
        raw
    });
}

#[test]
fn answers_that_are_never_taken_are_bounded() {
    // 64 MiB beside the bound of all long answers in all, which these exceed twice over.
    weather(256 + 64, |cluster| {
        let large = "x".repeat(1_024 * 1_024);
        block_on(async {
            let client = Client::connect(cluster.members[0].client).await;
            client.put("large", &large).await.expect("a put is served");
        });
        // `key = "large"`: field 1, five bytes.
        let ask = message(b"\x0a\x05large");
        let list = headers("/etcdserverpb.KV/Range", &[]);
        let mut raw = Raw::connect(cluster.members[0].client);
        for number in 0..600_u32 {
            assert!(raw.send(&frame(HEADERS, END_HEADERS, 2 * number + 1, &list)));
            assert!(raw.send(&frame(DATA, END_STREAM, 2 * number + 1, &ask)));
        }
        // All were looked at when the last is: a ping is answered, but behind what is not taken. So: when memory stands still.
        let until = Instant::now() + PATIENCE;
        let mut before = 0;
        while Instant::now() < until {
            std::thread::park_timeout(Duration::from_millis(500));
            let now = memory(cluster);
            if now == before {
                break;
            }
            before = now;
        }
        raw
    });
}

#[test]
fn watches_that_are_never_read_are_bounded() {
    // All that is written is 15 MiB, and all that would wait for 20 clients 300 MiB.
    weather(128, |cluster| {
        // `create_request { key = "a" }`.
        let ask = message(b"\x0a\x03\x0a\x01a");
        let list = headers("/etcdserverpb.Watch/Watch", &[]);
        let mut watchers: Vec<Raw> = (0..20).map(|_| Raw::connect(cluster.members[0].client)).collect();
        for raw in &mut watchers {
            assert!(raw.send(&frame(HEADERS, END_HEADERS, 1, &list)));
            assert!(raw.send(&frame(DATA, 0, 1, &ask)));
        }
        block_on(async {
            let client = Client::connect(cluster.members[0].client).await;
            for number in 0..50 {
                let large = format!("{number:03}").repeat(100_000);
                client.put("a", &large).await.expect("a put is served");
            }
        });
        watchers
    });
}
