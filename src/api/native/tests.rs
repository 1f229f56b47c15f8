//! The codec against itself, against damage and against garbage.

use super::samples::{self, REFUSALS, Random};
use super::{
    ClientHello, EncodedBatch, FRAME_HEADER_BYTES, Fault, Features, Frame, FrameDamage, Malformed, Receiver,
    ServerHello, decode_command, decode_frame, decode_request, decode_response, decode_response_frame,
    encode_refusal_frame, encode_request_frame, encode_response, encode_response_frame, kind,
};
use crate::api::{Certainty, EncodedCommand, ReadMode, Refusal, Request, Response, Stamp, WatchAnswer};
use crate::ids::{ClusterId, KeyspaceId, LeaseId, MemberId, Revision, SessionId, WatchId};
use crate::kv::{
    Applied, Command, KeyRange, KeyValue, Operation, Outcome, Put, Query, Range, RangeResult, Txn,
};
use crate::limits::{
    KEY_BYTES_MAX, REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX, TXN_DEPTH_MAX, TXN_OPERATIONS_MAX,
};
use crate::property;
use bytes::{Bytes, BytesMut};

fn whole(frame: &Bytes, receiver: Receiver) -> Frame {
    let mut buffer = BytesMut::from(frame.as_ref());
    let decoded = decode_frame(&mut buffer, receiver).unwrap().unwrap();
    assert!(buffer.is_empty(), "one frame takes all of its bytes");
    decoded
}

fn put(key: &'static [u8], value: &'static [u8]) -> Put {
    Put::new(key.into(), value.into())
}

/// If these bytes are a request or an answer at all, they are its only encoding.
pub(super) fn assert_canonical(frame: &Frame) {
    if let Ok(request) = decode_request(frame) {
        let again = whole(&encode_request_frame(frame.request, &request), Receiver::Server);
        assert_eq!(&again, frame, "a request has one encoding");
    }
    match decode_response_frame(frame) {
        Ok(Response::Refused(_)) | Err(_) => {} // the words of a refusal are free
        Ok(response) => {
            let again = whole(&encode_response_frame(frame.request, &response), Receiver::Client);
            assert_eq!(&again, frame, "an answer has one encoding");
        }
    }
}

#[test]
fn every_request_survives_the_way_there_and_back() {
    property::hold(3_000, |seed| {
        let request = samples::request(&mut Random(seed));
        let frame = whole(&encode_request_frame(seed + 1, &request), Receiver::Server);
        assert_eq!(frame.request, seed + 1);
        assert_eq!(decode_request(&frame), Ok(request), "seed {seed}");
    });
}

#[test]
fn every_answer_survives_the_way_there_and_back() {
    property::hold(3_000, |seed| {
        let response = samples::response(&mut Random(seed));
        let frame = whole(&encode_response_frame(seed, &response), Receiver::Client);
        assert_eq!(decode_response_frame(&frame), Ok(response.clone()), "seed {seed}");
        assert_eq!(decode_response(&encode_response(&response)), Ok(response), "seed {seed}");
    });
}

#[test]
fn every_command_survives_the_log() {
    property::hold(3_000, |seed| {
        let command = samples::command(&mut Random(seed));
        let encoded = EncodedCommand::encode(&command).unwrap();
        assert_eq!(encoded.command(), command, "seed {seed}");
        assert_eq!(decode_command(encoded.bytes()), Ok(command), "seed {seed}");
        assert_eq!(EncodedCommand::decode_from(encoded.bytes().clone()), Ok(encoded), "seed {seed}");
    });
}

#[test]
fn a_frame_cut_anywhere_waits_for_the_rest() {
    property::hold(50, |seed| {
        let frame = encode_response_frame(7, &samples::response(&mut Random(seed)));
        for end in 0..frame.len() {
            let mut buffer = BytesMut::from(&frame[..end]);
            assert_eq!(decode_frame(&mut buffer, Receiver::Client), Ok(None));
            assert_eq!(buffer, &frame[..end], "an incomplete frame is left as it was");
        }
    });
}

#[test]
fn a_flipped_bit_is_never_taken_for_a_frame() {
    property::hold(30, |seed| {
        let frame = encode_request_frame(7, &samples::request(&mut Random(seed)));
        for bit in 0..frame.len() * 8 {
            let mut buffer = BytesMut::from(frame.as_ref());
            buffer[bit / 8] ^= 1 << (bit % 8);
            let decoded = decode_frame(&mut buffer, Receiver::Server);
            assert!(!matches!(decoded, Ok(Some(_))), "seed {seed} bit {bit}");
        }
    });
}

#[test]
fn a_body_cut_anywhere_is_malformed() {
    property::hold(200, |seed| {
        let request = whole(&encode_request_frame(7, &samples::request(&mut Random(seed))), Receiver::Server);
        for end in 0..request.body.len() {
            let cut = Frame { body: request.body.slice(..end), ..request.clone() };
            assert!(decode_request(&cut).is_err(), "seed {seed} cut at {end}");
        }
        let response = encode_response(&samples::response(&mut Random(seed)));
        for end in 0..response.len() {
            assert!(decode_response(&response.slice(..end)).is_err(), "seed {seed} cut at {end}");
        }
    });
}

#[test]
fn a_body_with_a_flipped_bit_is_malformed_or_another_value_in_its_only_encoding() {
    property::hold(200, |seed| {
        let mut random = Random(seed);
        let request = whole(&encode_request_frame(7, &samples::request(&mut random)), Receiver::Server);
        let response = whole(&encode_response_frame(7, &samples::response(&mut random)), Receiver::Client);
        for frame in [request, response] {
            for bit in 0..frame.body.len() * 8 {
                let mut body = BytesMut::from(frame.body.as_ref());
                body[bit / 8] ^= 1 << (bit % 8);
                assert_canonical(&Frame { body: body.freeze(), ..frame.clone() });
            }
        }
    });
}

#[test]
fn bytes_after_the_end_are_malformed() {
    property::hold(500, |seed| {
        let mut random = Random(seed);
        let command = EncodedCommand::encode(&samples::command(&mut random)).unwrap();
        let longer: Bytes = [command.bytes(), [0_u8].as_slice()].concat().into();
        let trailing = Malformed { offset: command.bytes().len(), fault: Fault::Trailing { left: 1 } };
        assert_eq!(decode_command(&longer), Err(trailing));

        let request = whole(&encode_request_frame(7, &samples::request(&mut random)), Receiver::Server);
        let body = [request.body.as_ref(), &[0]].concat().into();
        let longer = Frame { body, ..request.clone() };
        let trailing = Malformed { offset: request.body.len(), fault: Fault::Trailing { left: 1 } };
        assert_eq!(decode_request(&longer), Err(trailing));

        let response = encode_response(&samples::response(&mut random));
        assert!(decode_response(&[response.as_ref(), &[0]].concat().into()).is_err());
    });
}

#[test]
fn garbage_is_refused_or_canonical() {
    let kinds = [0x00, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x82, 0x83, 0x84, 0x86, 0xFF];
    let mut random = Random(1);
    for _ in 0..60_000 {
        // Small numbers make plausible tags, counts and lengths; pure noise would fail at the first byte.
        let mut body = BytesMut::from(random.bytes(60).as_ref());
        for byte in body.iter_mut() {
            *byte = if *byte < 200 { *byte % 6 } else { *byte };
        }
        let kind = kinds[random.below(kinds.len())];
        let frame = Frame { kind, request: 1, body: body.freeze() };
        assert_canonical(&frame);
        if let Ok(command) = decode_command(&frame.body) {
            assert_eq!(EncodedCommand::encode(&command).unwrap().bytes(), &frame.body);
        }
        let mut stream = BytesMut::from(frame.body.as_ref());
        let damaged = decode_frame(&mut stream, Receiver::Server);
        assert!(!matches!(damaged, Ok(Some(_))), "noise is no frame");
    }
}

#[test]
fn frames_come_out_in_order_however_the_stream_is_cut() {
    property::hold(100, |seed| {
        let mut random = Random(seed);
        let requests: Vec<Request> = (0..10).map(|_| samples::request(&mut random)).collect();
        let frames = (1..).zip(&requests).map(|(id, request)| encode_request_frame(id, request));
        let mut stream = Bytes::from(frames.flatten().collect::<Vec<u8>>());
        let mut buffer = BytesMut::new();
        let mut heard = Vec::new();
        while !stream.is_empty() {
            let length = (1 + random.below(90)).min(stream.len());
            buffer.extend_from_slice(&stream.split_to(length));
            while let Some(frame) = decode_frame(&mut buffer, Receiver::Server).unwrap() {
                heard.push(decode_request(&frame).unwrap());
            }
        }
        assert_eq!(heard, requests, "seed {seed}");
    });
}

#[test]
fn a_body_beyond_the_limit_is_refused_before_it_arrives() {
    let mut header = encode_request_frame(1, &Request::Status)[..FRAME_HEADER_BYTES].to_vec();
    for (receiver, limit) in [(Receiver::Server, REQUEST_BYTES_MAX), (Receiver::Client, RESPONSE_BYTES_MAX)] {
        let found = u32::try_from(limit).unwrap() + 1;
        header[12..16].copy_from_slice(&found.to_le_bytes());
        let decoded = decode_frame(&mut BytesMut::from(header.as_slice()), receiver);
        assert_eq!(decoded, Err(FrameDamage::TooLong { limit, found }));
        header[12..16].copy_from_slice(&(found - 1).to_le_bytes());
        assert_eq!(decode_frame(&mut BytesMut::from(header.as_slice()), receiver), Ok(None));
    }
}

#[test]
fn damage_says_what_was_expected_and_what_was_found() {
    let good = encode_request_frame(1, &Request::Status);
    let damaged = |at: usize, byte: u8| {
        let mut buffer = BytesMut::from(good.as_ref());
        buffer[at] = byte;
        decode_frame(&mut buffer, Receiver::Server).unwrap_err()
    };
    assert_eq!(damaged(0, b'G'), FrameDamage::Magic { found: *b"GSTY" });
    assert_eq!(damaged(8, 2), FrameDamage::Version { found: 2 });
    assert_eq!(damaged(11, 1), FrameDamage::Flags { found: 256 });
    assert!(matches!(damaged(16, 9), FrameDamage::Checksum { .. }));
    let foreign = decode_frame(&mut BytesMut::from("GET /"), Receiver::Server).unwrap_err();
    assert_eq!(
        foreign.to_string(),
        "expected a frame to begin with 4d535459 (MSTY), found 47455420",
        "a foreign protocol is known by its first four bytes"
    );
}

#[test]
fn keys_and_values_are_slices_of_the_frame() {
    let command = EncodedCommand::encode(&Command::Put(put(b"key", b"value"))).unwrap();
    let request = Request::Write { keyspace: KeyspaceId(0), stamp: None, command };
    let frame = whole(&encode_request_frame(1, &request), Receiver::Server);
    let Ok(Request::Write { command, .. }) = decode_request(&frame) else { panic!("a write is a write") };
    let Command::Put(put) = command.command() else { panic!("a put is a put") };
    let body = frame.body.as_ptr_range();
    for part in [command.bytes(), &put.key, &put.value] {
        assert!(body.contains(&part.as_ptr()), "nothing is copied");
    }
}

#[test]
fn a_count_alone_makes_no_room() {
    let mut txn = vec![3];
    txn.extend_from_slice(&100_u32.to_le_bytes());
    let Malformed { offset, fault } = decode_command(&txn.clone().into()).unwrap_err();
    assert_eq!((offset, fault), (5, Fault::Truncated { what: "compares", wanted: 1_100, left: 0 }));
    txn[1..].copy_from_slice(&u32::MAX.to_le_bytes());
    let Malformed { offset, fault } = decode_command(&txn.into()).unwrap_err();
    let found = usize::try_from(u32::MAX).unwrap();
    assert_eq!((offset, fault), (1, Fault::TooMany { what: "compares", limit: TXN_OPERATIONS_MAX, found }));
}

#[test]
fn a_command_beyond_a_limit_cannot_be_made() {
    let long_key = Put { key: vec![0; KEY_BYTES_MAX + 1].into(), ..put(b"", b"") };
    assert!(EncodedCommand::encode(&Command::Put(long_key)).is_err());
    let long_value = Put { value: vec![0; REQUEST_BYTES_MAX].into(), ..put(b"k", b"") };
    assert!(EncodedCommand::encode(&Command::Put(long_value)).is_err());
    let operations = vec![Operation::Put(put(b"k", b"")); TXN_OPERATIONS_MAX + 1];
    let txn = Txn { compares: Vec::new(), success: operations, failure: Vec::new() };
    assert!(EncodedCommand::encode(&Command::Txn(txn)).is_err());
}

#[test]
fn the_longest_command_still_fits_in_a_request_with_its_stamp() {
    let mut value_bytes = REQUEST_BYTES_MAX;
    let command = loop {
        let value = vec![7; value_bytes].into();
        match EncodedCommand::encode(&Command::Put(Put { value, ..put(b"k", b"") })) {
            Ok(command) => break command,
            Err(_) => value_bytes -= 1,
        }
    };
    let stamp = Some(Stamp { session: SessionId(1), sequence: 1, low_water: 0 });
    let request = Request::Write { keyspace: KeyspaceId(0), stamp, command };
    let frame = whole(&encode_request_frame(1, &request), Receiver::Server);
    assert_eq!(decode_request(&frame), Ok(request));
}

#[test]
fn a_query_that_writes_is_malformed() {
    let success = vec![Operation::Put(put(b"k", b"v"))];
    let query = Query::Txn(Txn { compares: Vec::new(), success, failure: Vec::new() });
    let request = Request::Read { keyspace: KeyspaceId(0), query, mode: ReadMode::Linearizable };
    let frame = whole(&encode_request_frame(1, &request), Receiver::Server);
    let fault = Fault::Unknown { what: "operation tag of a query", found: 1 };
    assert_eq!(decode_request(&frame), Err(Malformed { offset: 14, fault }));
}

#[test]
fn a_request_without_a_number_is_malformed() {
    let frame = Frame { kind: kind::STATUS, request: 0, body: Bytes::new() };
    let fault = Fault::Unknown { what: "request id", found: 0 };
    assert_eq!(decode_request(&frame), Err(Malformed { offset: 0, fault }));
}

#[test]
fn an_answer_too_long_for_a_frame_becomes_a_refusal_that_settles_nothing() {
    let pair = KeyValue {
        key: "k".into(),
        value: vec![0; 1_024 * 1_024].into(),
        create_revision: Revision(2),
        mod_revision: Revision(2),
        version: 1,
        lease: LeaseId(0),
    };
    for (count, fits) in [(15, true), (16, false)] {
        let range = RangeResult { pairs: vec![pair.clone(); count], more: false, count: 16 };
        let response = Response::Applied(Applied { revision: Revision(2), outcome: Outcome::Range(range) });
        let expected = if fits { response.clone() } else { Response::Refused(Refusal::AnswerTooLong) };
        let frame = whole(&encode_response_frame(1, &response), Receiver::Client);
        assert_eq!(decode_response_frame(&frame), Ok(expected.clone()));
        assert_eq!(decode_response(&encode_response(&response)), Ok(expected));
    }
    assert_eq!(Refusal::AnswerTooLong.certainty(), Certainty::OutcomeUnknown);
}

#[test]
fn every_refusal_survives_with_its_certainty_and_words() {
    for refusal in REFUSALS {
        let words = "größer ".repeat(400);
        let frame = whole(&encode_refusal_frame(3, refusal, &words), Receiver::Client);
        assert_eq!(decode_response_frame(&frame), Ok(Response::Refused(refusal)), "long words are cut");
        let certainty = if refusal.certainty() == Certainty::NotDone { 1 } else { 2 };
        assert_eq!(frame.body[2], certainty);
        let mut lying = BytesMut::from(frame.body.as_ref());
        lying[2] = 3 - certainty;
        let lying = Frame { body: lying.freeze(), ..frame };
        assert!(decode_response_frame(&lying).is_err(), "a code and its certainty agree");
    }
}

#[test]
fn what_many_watches_are_told_is_encoded_once_and_framed_as_if_for_each() {
    let mut random = Random(5);
    for watch in 1..200 {
        let batch = samples::batch(&mut random);
        let encoded = EncodedBatch::new(&batch);
        let frame = encode_response_frame(watch, &Response::Watch(WatchAnswer::Told(batch)));
        let mut appended = BytesMut::new();
        encoded.append_frame(WatchId(watch), &mut appended);
        assert_eq!(appended, frame);
        assert_eq!([encoded.head(WatchId(watch)), encoded.body().clone()].concat(), frame);
    }
}

#[test]
fn hellos_may_grow_at_the_end_and_nowhere_else() {
    let client =
        ClientHello { version_min: 1, version_max: 3, features: Features(5), cluster: Some(ClusterId(9)) };
    let server = ServerHello {
        version: 1,
        cluster: ClusterId(9),
        member: MemberId(2),
        features: Features(1),
        request_bytes_max: 1,
        response_bytes_max: 2,
        key_bytes_max: 3,
        txn_operations_max: 4,
        requests_in_flight_max: 5,
        sequence_window: 6,
    };
    let longer =
        |frame: &Frame| Frame { body: [frame.body.as_ref(), &[1, 2]].concat().into(), ..frame.clone() };
    let frame = whole(&client.encode_frame(), Receiver::Server);
    assert_eq!(ClientHello::decode(&frame), Ok(client));
    assert_eq!(ClientHello::decode(&longer(&frame)), Ok(client));
    assert!(ServerHello::decode(&frame).is_err(), "the kinds differ");
    for end in 0..frame.body.len() {
        assert!(ClientHello::decode(&Frame { body: frame.body.slice(..end), ..frame.clone() }).is_err());
    }
    let frame = whole(&server.encode_frame(), Receiver::Client);
    assert_eq!(ServerHello::decode(&frame), Ok(server));
    assert_eq!(ServerHello::decode(&longer(&frame)), Ok(server));
    assert!(ClientHello::decode(&frame).is_err(), "the kinds differ");
    for end in 0..frame.body.len() {
        assert!(ServerHello::decode(&Frame { body: frame.body.slice(..end), ..frame.clone() }).is_err());
    }
}

#[test]
fn a_fault_in_a_write_names_its_place_in_the_body() {
    let range = Range::new(KeyRange::From(Bytes::new()));
    let success = vec![Operation::Range(range)];
    let txn = Command::Txn(Txn { compares: Vec::new(), success, failure: Vec::new() });
    let command = EncodedCommand::encode(&txn).unwrap();
    let request = Request::Write { keyspace: KeyspaceId(0), stamp: None, command };
    let frame = whole(&encode_request_frame(1, &request), Receiver::Server);
    let mut body = BytesMut::from(frame.body.as_ref());
    body[14] = 99;
    let damaged = Frame { body: body.freeze(), ..frame };
    let malformed = decode_request(&damaged).unwrap_err();
    assert_eq!(malformed.to_string(), "at byte 14: expected a known operation tag, found 99");
}

#[test]
fn transactions_may_be_as_deep_as_the_store_allows_and_not_deeper() {
    let deep = |levels: usize| {
        let innermost = Txn::default();
        (1..levels)
            .fold(innermost, |nested, _| Txn { success: vec![Operation::Txn(nested)], ..Txn::default() })
    };
    let deepest = Command::Txn(deep(TXN_DEPTH_MAX));
    assert_eq!(crate::kv::check(&deepest), Ok(()), "the store takes it");
    let encoded = EncodedCommand::encode(&deepest).expect("and so does the codec");
    assert_eq!(encoded.command(), deepest);
    let refused = EncodedCommand::encode(&Command::Txn(deep(TXN_DEPTH_MAX + 1))).unwrap_err();
    let fault =
        Fault::TooMany { what: "levels of transactions", limit: TXN_DEPTH_MAX, found: TXN_DEPTH_MAX + 1 };
    assert_eq!(refused.fault, fault);
    let endless = Bytes::from([3, 0, 0, 0, 0, 1, 0, 0, 0].repeat(1_000));
    assert_eq!(decode_command(&endless).unwrap_err().fault, fault, "no bytes make the decoder go deeper");
}

#[test]
fn what_has_no_options_is_not_encoded_as_if_it_had() {
    let put = [&[16, 1, 0, 0, 0, b'a', 0, 0, 0, 0][..], &[0; 8], &[0, 0, 0]].concat();
    let kept = [&put[..put.len() - 2], &[1, 0]].concat();
    assert!(decode_command(&Bytes::from(kept)).is_ok(), "the bytes are a put that keeps the value");
    let fault = Fault::Mismatch { what: "the presence of an option", expected: 1, found: 0 };
    assert_eq!(decode_command(&Bytes::from(put)).unwrap_err().fault, fault);
    let range = [&[17, 1, 1, 0, 0, 0, b'a'][..], &[0; 16], &[0, 0], &[0], &[0; 32]].concat();
    let txn = [&[3, 0, 0, 0, 0, 1, 0, 0, 0][..], &range, &[0; 4]].concat();
    assert_eq!(decode_command(&Bytes::from(txn)).unwrap_err().fault, fault);
}
