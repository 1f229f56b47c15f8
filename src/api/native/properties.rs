//! Any bytes at all from a client or a server: refused, or the only encoding of what they say (test-only).
//!
//! A sound frame is taken, some of its bytes are changed, and its checksum is made right again, as only somebody with a
//! bug or a grudge would do it.

use super::samples::{self, REFUSALS, Random};
use super::tests::assert_canonical;
use super::{
    ClientHello, FRAME_HEADER_BYTES, Features, Receiver, ServerHello, decode_command, decode_frame,
    decode_response, encode_refusal_frame, encode_request_frame, encode_response, encode_response_frame,
    kind,
};
use crate::api::EncodedCommand;
use crate::ids::{ClusterId, MemberId};
use crate::limits::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};
use crate::property;
use bytes::{Bytes, BytesMut};

/// Changes some bytes behind the checksum, perhaps the length with them, and makes the checksum right.
fn forged(frame: &[u8], random: &mut Random) -> BytesMut {
    let mut bytes = BytesMut::from(frame);
    let from = [8, FRAME_HEADER_BYTES][random.below(2)];
    property::mutate(&mut bytes[from..], || random.number());
    if random.below(4) == 0 {
        let end = 8 + random.below(bytes.len() - 7);
        bytes.truncate(end);
        if let Some(length) = bytes.get_mut(12..16) {
            let body_bytes = u32::try_from(end.saturating_sub(FRAME_HEADER_BYTES)).unwrap();
            length.copy_from_slice(&body_bytes.to_le_bytes());
        }
    }
    let checksum = crc32c::crc32c(&bytes[8..]);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// A frame of any kind that anybody says.
fn any_frame(random: &mut Random) -> Bytes {
    let id = random.number();
    match random.below(5) {
        0 => {
            let (version_min, version_max, features) = (1, random.byte(), Features(random.number()));
            let cluster = Some(ClusterId(random.number()));
            ClientHello { version_min, version_max, features, cluster }.encode_frame()
        }
        1 => server_hello(random).encode_frame(),
        2 => encode_refusal_frame(id, REFUSALS[random.below(REFUSALS.len())], "because"),
        3 => encode_request_frame(id, &samples::request(random)),
        _ => encode_response_frame(id, &samples::response(random)),
    }
}

fn server_hello(random: &mut Random) -> ServerHello {
    let mut small = || u32::from(random.byte());
    ServerHello {
        version: 1,
        cluster: ClusterId(u64::from(small())),
        member: MemberId(u64::from(small())),
        features: Features(0),
        request_bytes_max: small(),
        response_bytes_max: small(),
        key_bytes_max: small(),
        txn_operations_max: small(),
        requests_in_flight_max: small(),
        sequence_window: small(),
    }
}

#[test]
fn a_frame_forged_under_a_good_checksum_is_refused_or_the_only_encoding_of_its_value() {
    property::hold(20_000, |seed| {
        let mut random = Random(seed);
        let (receiver, bytes_max) =
            [(Receiver::Server, REQUEST_BYTES_MAX), (Receiver::Client, RESPONSE_BYTES_MAX)][random.below(2)];
        let sound = any_frame(&mut random);
        let mut stream = forged(&sound, &mut random);
        let length = stream.len();
        match decode_frame(&mut stream, receiver) {
            Ok(Some(frame)) => {
                assert!(frame.body.len() <= bytes_max, "a body keeps its limit");
                assert_eq!(stream.len() + FRAME_HEADER_BYTES + frame.body.len(), length, "no byte is lost");
                assert_canonical(&frame);
                assert_hello_is_canonical(&frame);
            }
            Ok(None) => assert_eq!(stream.len(), length, "an incomplete frame is left as it was"),
            Err(_) => {}
        }
    });
}

/// A hello may be longer than this build knows, so that later ones can say more; what is known has one encoding.
fn assert_hello_is_canonical(frame: &super::Frame) {
    let again = match frame.kind {
        kind::CLIENT_HELLO => ClientHello::decode(frame).map(|hello| hello.encode_frame()),
        kind::SERVER_HELLO => ServerHello::decode(frame).map(|hello| hello.encode_frame()),
        _ => return,
    };
    if let Ok(again) = again {
        assert!(frame.body.starts_with(&again[FRAME_HEADER_BYTES..]), "a hello has one encoding");
    }
}

#[test]
fn a_forged_command_or_logged_answer_is_refused_or_the_only_encoding_of_its_value() {
    property::hold(20_000, |seed| {
        let mut random = Random(seed);
        let command = EncodedCommand::encode(&samples::command(&mut random)).unwrap();
        let mut bytes = BytesMut::from(command.bytes().as_ref());
        property::mutate(&mut bytes, || random.number());
        let bytes = bytes.freeze();
        if let Ok(command) = decode_command(&bytes) {
            assert_eq!(
                EncodedCommand::encode(&command).unwrap().bytes(),
                &bytes,
                "a command has one encoding"
            );
        }
        let mut bytes = BytesMut::from(encode_response(&samples::response(&mut random)).as_ref());
        property::mutate(&mut bytes, || random.number());
        if let Ok(response) = decode_response(&bytes.freeze()) {
            assert_eq!(decode_response(&encode_response(&response)), Ok(response), "it can be said again");
        }
    });
}
