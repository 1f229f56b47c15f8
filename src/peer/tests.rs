//! Peer frames against themselves, against damage and against garbage.

use super::frame::Asker;
use super::{Body, ForwardStamp, Frame, Greeting, HEADER_BYTES, PeerDamage, decode, encode, frame_length};
use crate::ids::{AuthRevision, Principal};
use crate::ids::{ClusterId, DirectoryId, GroupId, KeyspaceId, LeaseId, LogIndex, MemberId, SessionId, Term};
use crate::limits::{
    LOG_INDEX_MAX, PEER_ENVELOPE_BYTES_MAX, PEER_PAYLOAD_BYTES_MAX, RAFT_VOTERS_MAX, TERM_MAX,
};
use crate::property;
use crate::raft::{
    AppendReply, AppendRequest, AppendResult, Entry, FillReply, FillRequest, Message, Position, PreVoteReply,
    PreVoteRequest, ReadIndexReply, ReadIndexRequest, TimeoutNow, VoteReply, VoteRequest,
};
use bytes::{Bytes, BytesMut};

/// A source of numbers that a seed determines (`SplitMix64`).
struct Random(u64);

impl Random {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() % u64::try_from(bound).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.number().to_le_bytes()[0]
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    fn bytes(&mut self, length_max: usize) -> Bytes {
        let length = self.below(length_max + 1);
        (0..length).map(|_| self.byte()).collect::<Vec<u8>>().into()
    }

    fn term(&mut self) -> Term {
        Term(self.number() / 8)
    }

    fn index(&mut self) -> LogIndex {
        LogIndex(self.number() / 8)
    }

    fn position(&mut self) -> Position {
        Position { index: self.index(), term: self.term() }
    }

    fn entries(&mut self, previous: Position) -> (Vec<Entry>, Vec<Bytes>) {
        let records: Vec<Bytes> = (0..self.below(6)).map(|_| self.bytes(40)).collect();
        let mut index = previous.index;
        let mut entries = Vec::new();
        for record in &records {
            index = index.next();
            entries.push(Entry {
                index,
                term: self.term(),
                bytes_count: u32::try_from(record.len()).unwrap(),
            });
        }
        (entries, records)
    }
}

/// How many kinds of bodies `body` can make.
const KINDS: usize = 16;

/// How a frame says that nobody said who they are.
const NOBODY: Asker = (Principal(0), AuthRevision(0));

fn body(kind: usize, random: &mut Random) -> Body {
    match kind {
        0 => Body::Forward {
            request: random.number(),
            term: Term(random.number()),
            kind: random.byte() & 0x7F,
            keyspace: KeyspaceId(u32::from(random.byte())),
            stamp: random.flag().then(|| ForwardStamp {
                session: SessionId(random.number()),
                sequence: random.number(),
                low_water: random.number(),
            }),
            asker: asker(random),
            body: random.bytes(60),
        },
        1 => Body::ForwardReply { request: random.number(), response: random.bytes(60) },
        2 => Body::Hello {
            incarnation: random.number(),
            is_started: random.flag(),
            recorded: (0..random.below(5))
                .map(|_| (MemberId(random.number()), DirectoryId(random.number())))
                .collect(),
            your_directory: DirectoryId(random.number()),
        },
        3 => append_request(random),
        4 => fill_reply(random),
        14 | 15 => Body::AskLease {
            request: random.number(),
            term: Term(random.number()),
            keyspace: KeyspaceId(u32::from(random.byte())),
            lease: LeaseId(random.number()),
            is_renewal: random.flag(),
            wants_keys: random.flag(),
            asker: if kind == 14 { NOBODY } else { (Principal(1), AuthRevision(random.number())) },
        },
        other => Body::Raft { message: message_without_entries(other, random), records: Vec::new() },
    }
}

fn asker(random: &mut Random) -> Asker {
    if random.flag() {
        (Principal(1 + u32::from(random.byte())), AuthRevision(random.number()))
    } else {
        NOBODY
    }
}

fn append_request(random: &mut Random) -> Body {
    let previous = random.position();
    let (entries, records) = random.entries(previous);
    let message = Message::AppendRequest(AppendRequest {
        term: random.term(),
        session: random.number(),
        previous,
        entries,
        commit: random.index(),
        round: random.number(),
    });
    Body::Raft { message, records }
}

fn fill_reply(random: &mut Random) -> Body {
    let previous = random.position();
    let (entries, records) = random.entries(previous);
    let message =
        Message::FillReply(FillReply { term: random.term(), last: random.position(), previous, entries });
    Body::Raft { message, records }
}

fn message_without_entries(kind: usize, random: &mut Random) -> Message {
    let term = random.term();
    match kind {
        5 => Message::PreVoteRequest(PreVoteRequest { term, last: random.position() }),
        6 => Message::PreVoteReply(PreVoteReply { term, asked: random.term(), is_granted: random.flag() }),
        7 => Message::VoteRequest(VoteRequest { term, last: random.position(), is_transfer: random.flag() }),
        8 => Message::VoteReply(VoteReply { term, is_granted: random.flag() }),
        9 => {
            let result = if random.flag() {
                AppendResult::Matched { upto: random.index() }
            } else {
                AppendResult::Conflict { rejected: random.index(), hint: random.position() }
            };
            Message::AppendReply(AppendReply {
                term,
                session: random.number(),
                round: random.number(),
                result,
            })
        }
        10 => Message::TimeoutNow(TimeoutNow { term, last: random.index() }),
        11 => Message::ReadIndexRequest(ReadIndexRequest { term, request: random.number() }),
        12 => {
            let index = random.flag().then(|| random.index());
            Message::ReadIndexReply(ReadIndexReply { term, request: random.number(), index })
        }
        _ => Message::FillRequest(FillRequest { term, previous: random.position(), last: random.position() }),
    }
}

fn frame(kind: usize, random: &mut Random) -> Frame {
    Frame {
        cluster: ClusterId(random.number()),
        group: GroupId(u32::from(random.byte())),
        from: MemberId(random.number()),
        to: MemberId(random.number()),
        from_directory: DirectoryId(random.number()),
        to_directory: DirectoryId(random.number()),
        body: body(kind, random),
    }
}

/// The bytes with a checksum that holds, whatever they are: what a peer with a bug or a grudge could send.
fn with_checksum(mut bytes: BytesMut) -> Bytes {
    let checksum = crc32c::crc32c(&bytes[8..]);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    bytes.freeze()
}

#[test]
fn every_kind_of_frame_survives_the_way_there_and_back() {
    property::hold(3_000, |seed| {
        let mut random = Random(seed);
        for kind in 0..KINDS {
            let frame = frame(kind, &mut random);
            let bytes = encode(&frame);
            assert_eq!(frame_length(&bytes), Ok(Some(bytes.len())));
            assert_eq!(decode(&bytes), Ok(frame), "seed {seed} kind {kind}");
        }
    });
}

#[test]
fn a_frame_cut_anywhere_is_incomplete_and_never_decoded() {
    let mut random = Random(1);
    for kind in 0..KINDS {
        let bytes = encode(&frame(kind, &mut random));
        for end in 0..bytes.len() {
            let expected = if end < HEADER_BYTES { None } else { Some(bytes.len()) };
            assert_eq!(frame_length(&bytes[..end]), Ok(expected));
            assert!(matches!(decode(&bytes.slice(..end)), Err(PeerDamage::Length { .. })), "cut at {end}");
        }
        let longer = [bytes.as_ref(), &[0]].concat().into();
        assert!(matches!(decode(&longer), Err(PeerDamage::Length { .. })));
    }
}

#[test]
fn a_flipped_bit_is_never_taken_for_a_frame() {
    let mut random = Random(2);
    for kind in 0..KINDS {
        let bytes = encode(&frame(kind, &mut random));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = BytesMut::from(bytes.as_ref());
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped.freeze()).is_err(), "kind {kind} bit {bit}");
        }
    }
}

#[test]
fn a_frame_forged_under_a_good_checksum_is_refused_or_is_a_frame() {
    let mut accepted = 0;
    let tried = property::hold(2_000, |seed| {
        let mut random = Random(seed);
        for kind in 0..KINDS {
            let mut forged = BytesMut::from(encode(&frame(kind, &mut random)).as_ref());
            let from = [8, HEADER_BYTES][random.below(2)];
            property::mutate(&mut forged[from..], || random.number());
            let bytes = with_checksum(forged);
            if let Ok(Some(length)) = frame_length(&bytes) {
                let length_max = HEADER_BYTES + PEER_ENVELOPE_BYTES_MAX + PEER_PAYLOAD_BYTES_MAX;
                assert!(length <= length_max, "nobody waits for more than the limits");
            }
            if let Ok(frame) = decode(&bytes) {
                assert_eq!(decode(&encode(&frame)), Ok(frame), "what was accepted can be said again");
                accepted += 1;
            }
        }
    });
    assert!(tried < 2_000 || accepted > 1_000, "forgeries reach past the checksum");
}

#[test]
fn a_greeting_forged_under_a_good_checksum_is_refused_or_can_be_said_again() {
    let mut accepted = 0;
    let tried = property::hold(10_000, |seed| {
        let mut random = Random(seed);
        let mut text = || "n".repeat(random.below(30));
        let (name, native, client, peer) = (text(), text(), text(), text());
        let (cluster, from, to) = (ClusterId(random.number()), MemberId(1), MemberId(2));
        let versions = super::PEER_VERSIONS;
        let greeting = Greeting {
            versions,
            cluster,
            from,
            to,
            incarnation: random.number(),
            name,
            native,
            client,
            peer,
        };
        let mut sound = BytesMut::from(greeting.encode().as_ref());
        assert_eq!(Greeting::decode(&mut sound), Ok(Some(greeting.clone())));
        let mut forged = BytesMut::from(greeting.encode().as_ref());
        property::mutate(&mut forged[8..], || random.number());
        let mut stream = BytesMut::from(with_checksum(forged).as_ref());
        if let Ok(Some(greeting)) = Greeting::decode(&mut stream) {
            let mut again = BytesMut::from(greeting.encode().as_ref());
            assert_eq!(
                Greeting::decode(&mut again),
                Ok(Some(greeting)),
                "what was accepted can be said again"
            );
            accepted += 1;
        }
    });
    assert!(tried < 10_000 || accepted > 1_000, "forgeries reach past the checksum");
}

#[test]
fn an_envelope_of_noise_under_a_good_checksum_is_refused_or_is_a_frame() {
    let mut random = Random(3);
    for _ in 0..30_000 {
        let envelope = random.bytes(200);
        let payload = random.bytes(20);
        let mut forged = BytesMut::from(b"MSTP\0\0\0\0\x01\0\0\0".as_slice());
        forged.extend_from_slice(&u32::try_from(envelope.len()).unwrap().to_le_bytes());
        forged.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        for byte in envelope {
            forged.extend_from_slice(&[if byte < 160 { byte % 4 } else { byte }]);
        }
        forged.extend_from_slice(&payload);
        if let Ok(frame) = decode(&with_checksum(forged)) {
            assert_eq!(decode(&encode(&frame)), Ok(frame));
        }
    }
}

#[test]
fn records_are_slices_of_the_frame() {
    let mut random = Random(4);
    let bytes = encode(&frame(3, &mut random));
    let Ok(Frame { body: Body::Raft { records, .. }, .. }) = decode(&bytes) else {
        panic!("an append is one")
    };
    assert!(!records.is_empty());
    for record in records.iter().filter(|record| !record.is_empty()) {
        assert!(bytes.as_ptr_range().contains(&record.as_ptr()), "nothing is copied");
    }
}

#[test]
fn a_payload_that_the_entries_do_not_account_for_is_refused() {
    let mut random = Random(5);
    for kind in 2..KINDS {
        let frame = frame(kind, &mut random);
        let bytes = encode(&frame);
        let mut longer = BytesMut::from(bytes.as_ref());
        longer.extend_from_slice(&[7]);
        let payload_bytes = u32::from_le_bytes(bytes[16..20].try_into().unwrap());
        longer[16..20].copy_from_slice(&(payload_bytes + 1).to_le_bytes());
        let refused = decode(&with_checksum(longer));
        let expected = u64::from(payload_bytes);
        let found = usize::try_from(payload_bytes).unwrap() + 1;
        assert_eq!(refused, Err(PeerDamage::Payload { expected, found }), "kind {kind}");
    }
}

#[test]
fn a_length_beyond_its_limit_is_refused_from_the_header_alone() {
    let mut header = encode(&frame(8, &mut Random(6)))[..HEADER_BYTES].to_vec();
    for (at, part, limit) in
        [(12, "envelope", PEER_ENVELOPE_BYTES_MAX), (16, "payload", PEER_PAYLOAD_BYTES_MAX)]
    {
        let good = header.clone();
        let found = u32::try_from(limit).unwrap() + 1;
        header[at..at + 4].copy_from_slice(&found.to_le_bytes());
        assert_eq!(frame_length(&header), Err(PeerDamage::TooLong { part, limit, found }));
        header = good;
    }
}

#[test]
fn damage_in_the_header_is_named() {
    let good = encode(&frame(8, &mut Random(7)));
    let damaged = |at: usize, byte: u8| {
        let mut bytes = BytesMut::from(good.as_ref());
        bytes[at] = byte;
        decode(&bytes.freeze()).unwrap_err()
    };
    assert_eq!(damaged(3, b'Y'), PeerDamage::Magic { found: *b"MSTY" });
    assert_eq!(damaged(8, 9), PeerDamage::Version { found: 9 });
    assert_eq!(damaged(10, 1), PeerDamage::Reserved { found: [0, 1, 0] });
    assert!(matches!(damaged(4, good[4] ^ 1), PeerDamage::Checksum { .. }));
}

#[test]
fn an_index_or_term_that_no_log_can_have_reached_is_refused() {
    let at = |index, term| Position { index: LogIndex(index), term: Term(term) };
    let request = |term, last| Message::PreVoteRequest(PreVoteRequest { term: Term(term), last });
    for (message, is_believed) in [
        (request(TERM_MAX, at(LOG_INDEX_MAX, TERM_MAX)), true),
        (request(TERM_MAX + 1, at(1, 1)), false),
        (request(1, at(LOG_INDEX_MAX + 1, 1)), false),
        (request(1, at(1, TERM_MAX + 1)), false),
        (Message::TimeoutNow(TimeoutNow { term: Term(1), last: LogIndex(u64::MAX) }), false),
        (
            Message::ReadIndexReply(ReadIndexReply {
                term: Term(1),
                request: 1,
                index: Some(LogIndex(u64::MAX)),
            }),
            false,
        ),
    ] {
        let frame = Frame { body: Body::Raft { message, records: Vec::new() }, ..frame(8, &mut Random(8)) };
        let expected = if is_believed { Ok(frame.clone()) } else { Err(PeerDamage::Unreachable) };
        assert_eq!(decode(&encode(&frame)), expected);
    }
}

#[test]
fn a_hello_that_lists_more_members_than_a_group_can_have_is_refused() {
    for (count, is_believed) in [(RAFT_VOTERS_MAX, true), (RAFT_VOTERS_MAX + 1, false)] {
        let recorded: Vec<_> = (1..).map(|id| (MemberId(id), DirectoryId(id))).take(count).collect();
        let body =
            Body::Hello { incarnation: 1, is_started: false, recorded, your_directory: DirectoryId(7) };
        let frame = Frame { body, ..frame(2, &mut Random(10)) };
        let expected =
            if is_believed { Ok(frame.clone()) } else { Err(PeerDamage::Members { found: count }) };
        assert_eq!(decode(&encode(&frame)), expected);
    }
}

#[test]
fn a_frame_is_written_into_one_allocation() {
    let mut random = Random(9);
    for kind in 0..KINDS {
        let frame = frame(kind, &mut random);
        let listed = match &frame.body {
            Body::Raft { records, .. } => records.len(),
            Body::Hello { recorded, .. } => recorded.len(),
            Body::Forward { .. } | Body::AskLease { .. } | Body::ForwardReply { .. } => 0,
        };
        let bytes = encode(&frame);
        let envelope_bytes = usize::try_from(u32::from_le_bytes(bytes[12..16].try_into().unwrap())).unwrap();
        assert!(
            envelope_bytes <= 192 + 16 * listed,
            "kind {kind}: {envelope_bytes} bytes are more than foreseen"
        );
    }
}
