//! gRPC as etcd speaks it, written by hand: HEADERS and DATA out, a status in.
//!
//! It exists to be cheap: a general client costs several times the CPU, on the cores of the servers that are measured.
//! Every request's headers are the same bytes; answers are not decoded beyond their status. What always holds: the
//! windows of flow control are kept; an answer without `grpc-status` 0 is an error. What it leaves out: streams of
//! messages, compression, TLS.

use super::conversation::{Act, Answer, Broken, Conversation, Material, Operation, key};
use super::etcd_messages as messages;
use super::hpack;
use super::http2::{
    Frame, FrameDamage, PAYLOAD_BYTES_MAX, PREFACE, decode, flag, kind, put_frame, put_header, setting,
    settings_payload,
};
use bytes::BytesMut;
use std::borrow::Cow;
use std::rc::Rc;

/// What a side may send before it hears otherwise (RFC 9113 §6.9.2).
const WINDOW_BYTES_DEFAULT: i64 = 65_535;

/// What the server may send on a stream: more than any answer here.
const STREAM_WINDOW_BYTES: u32 = 16 * 1_024 * 1_024;

/// What it may send on the connection before we say more.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 30;

/// Streams a client may open on one connection: odd numbers below 2^31.
const STREAMS_MAX: u64 = 1 << 30;

/// The status codes of gRPC by their numbers.
const STATUS_WORDS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A connection of HTTP/2 without its socket.
pub(crate) struct GrpcConversation {
    material: Rc<Material>,
    put_headers: Vec<u8>,
    range_headers: Vec<u8>,
    txn_headers: Vec<u8>,
    /// The message being made.
    message: Vec<u8>,
    message_bytes_max: i64,
    is_ready: bool,
    in_flight: u64,
    streams_max: u64,
    /// What we may send on the connection, and on a new stream.
    window: i64,
    stream_window: i64,
    /// What the server has sent since we last gave it room.
    unreturned: u32,
    /// A block of headers that is not complete: its stream, whether it ends the stream, and its beginning.
    unfinished: Option<(u32, bool, Vec<u8>)>,
    /// The last block of trailers that said OK: most of them are the same bytes.
    last_ok: Vec<u8>,
}

impl GrpcConversation {
    /// A conversation with the server of etcd's API at `authority`.
    pub(crate) fn new(material: Rc<Material>, authority: &str) -> Self {
        let message_bytes_max = messages::bytes_max(material.value_bytes());
        Self {
            material,
            put_headers: hpack::request_headers(authority, "/etcdserverpb.KV/Put"),
            range_headers: hpack::request_headers(authority, "/etcdserverpb.KV/Range"),
            txn_headers: hpack::request_headers(authority, "/etcdserverpb.KV/Txn"),
            message: Vec::new(),
            message_bytes_max: i64::try_from(message_bytes_max).unwrap_or(i64::MAX),
            is_ready: false,
            in_flight: 0,
            streams_max: u64::MAX,
            window: WINDOW_BYTES_DEFAULT,
            stream_window: WINDOW_BYTES_DEFAULT,
            unreturned: 0,
            unfinished: None,
            last_ok: Vec::new(),
        }
    }

    fn frame(&mut self, frame: &Frame, out: &mut Vec<u8>, answers: &mut Vec<Answer>) -> Result<(), Broken> {
        match frame.kind {
            kind::DATA => self.data(frame, out)?,
            kind::HEADERS => {
                let fragment = frame.header_fragment().map_err(damaged)?;
                let ends_stream = frame.flags & flag::END_STREAM != 0;
                if frame.flags & flag::END_HEADERS == 0 {
                    self.unfinished = Some((frame.stream, ends_stream, fragment.to_vec()));
                } else if ends_stream {
                    answers.push(self.ended(frame.stream, &fragment)?);
                }
            }
            kind::CONTINUATION => self.continuation(frame, answers)?,
            kind::RST_STREAM => answers.push(self.reset(frame)?),
            kind::SETTINGS if frame.flags & flag::ACK == 0 => self.settings(frame, out),
            kind::PING if frame.flags & flag::ACK == 0 => {
                put_frame(out, kind::PING, flag::ACK, 0, &frame.payload);
            }
            kind::GOAWAY => return Err(goaway(frame)),
            kind::WINDOW_UPDATE if frame.stream == 0 => {
                self.window += i64::from(frame.number().map_err(damaged)?);
            }
            kind::PUSH_PROMISE => return Err(Broken("the server pushes, which we forbade".to_owned())),
            // Acknowledgements, room on single streams, and kinds that are not known, which are to be ignored.
            _ => {}
        }
        Ok(())
    }

    /// Messages are not looked at, but the room they took is given back.
    fn data(&mut self, frame: &Frame, out: &mut Vec<u8>) -> Result<(), Broken> {
        self.unreturned += u32::try_from(frame.payload.len()).expect("a payload is at most 16 KiB");
        if self.unreturned > CONNECTION_WINDOW_BYTES / 2 {
            put_frame(out, kind::WINDOW_UPDATE, 0, 0, &self.unreturned.to_be_bytes());
            self.unreturned = 0;
        }
        if frame.flags & flag::END_STREAM != 0 {
            return Err(Broken("a stream ended without trailers, which is not gRPC".to_owned()));
        }
        Ok(())
    }

    fn continuation(&mut self, frame: &Frame, answers: &mut Vec<Answer>) -> Result<(), Broken> {
        let Some((stream, ends_stream, mut block)) = self.unfinished.take() else {
            return Err(Broken("headers are continued that were not begun".to_owned()));
        };
        block.extend_from_slice(&frame.payload);
        if frame.flags & flag::END_HEADERS == 0 {
            self.unfinished = Some((stream, ends_stream, block));
        } else if ends_stream {
            answers.push(self.ended(stream, &block)?);
        }
        Ok(())
    }

    /// A stream has ended with these trailers.
    fn ended(&mut self, stream: u32, block: &[u8]) -> Result<Answer, Broken> {
        self.in_flight = self.in_flight.saturating_sub(1);
        let number = number_of(stream);
        if block == self.last_ok.as_slice() {
            return Ok(Answer { number, result: Ok(()) });
        }
        let result = match hpack::grpc_status(block).map_err(|damage| Broken(damage.to_string()))? {
            Some(0) => {
                self.last_ok = block.to_vec();
                Ok(())
            }
            Some(status) => Err(Cow::from(
                STATUS_WORDS.get(usize::from(status)).copied().unwrap_or("a status gRPC does not know"),
            )),
            None => Err(Cow::from("no grpc-status")),
        };
        Ok(Answer { number, result })
    }

    fn reset(&mut self, frame: &Frame) -> Result<Answer, Broken> {
        self.in_flight = self.in_flight.saturating_sub(1);
        let code = frame.number().map_err(damaged)?;
        Ok(Answer { number: number_of(frame.stream), result: Err(format!("stream reset ({code})").into()) })
    }

    fn settings(&mut self, frame: &Frame, out: &mut Vec<u8>) {
        for (name, value) in frame.settings() {
            match name {
                setting::MAX_CONCURRENT_STREAMS => self.streams_max = value.into(),
                setting::INITIAL_WINDOW_SIZE => self.stream_window = value.into(),
                _ => {}
            }
        }
        put_frame(out, kind::SETTINGS, flag::ACK, 0, &[]);
        self.is_ready = true;
    }
}

impl Conversation for GrpcConversation {
    fn begin(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(PREFACE);
        let settings = settings_payload(&[
            (setting::HEADER_TABLE_SIZE, 0),
            (setting::ENABLE_PUSH, 0),
            (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES),
        ]);
        put_frame(out, kind::SETTINGS, 0, 0, &settings);
        put_frame(out, kind::WINDOW_UPDATE, 0, 0, &CONNECTION_WINDOW_BYTES.to_be_bytes());
    }

    fn is_ready(&self) -> bool {
        self.is_ready
    }

    fn has_room(&self, number: u64, _: u64) -> bool {
        self.in_flight < self.streams_max && self.message_bytes_max <= self.window && number < STREAMS_MAX
    }

    fn send(&mut self, operation: &Operation, out: &mut Vec<u8>) {
        let key = key(operation.key);
        let value = self.material.value(operation);
        self.message.clear();
        let headers = match operation.act {
            Act::Put => {
                messages::put(&mut self.message, &key, value);
                &self.put_headers
            }
            Act::GetMaxAge(_) | Act::GetMinRevision => {
                unreachable!("such a load is refused before it begins")
            }
            Act::Get | Act::GetSerializable => {
                messages::range(&mut self.message, &key, operation.act == Act::GetSerializable);
                &self.range_headers
            }
            Act::TxnCas => {
                messages::compare_and_put(&mut self.message, &key, value);
                &self.txn_headers
            }
        };
        let stream = u32::try_from(2 * operation.number - 1).expect("`has_room` keeps numbers below 2^30");
        put_frame(out, kind::HEADERS, flag::END_HEADERS, stream, headers);
        let mut rest = self.message.as_slice();
        while let Some((piece, behind)) = rest.split_at_checked(PAYLOAD_BYTES_MAX) {
            put_frame(out, kind::DATA, 0, stream, piece);
            rest = behind;
        }
        put_header(out, rest.len(), kind::DATA, flag::END_STREAM, stream);
        out.extend_from_slice(rest);
        self.window -= i64::try_from(self.message.len()).unwrap_or(i64::MAX);
        self.in_flight += 1;
    }

    fn receive(
        &mut self,
        received: &mut BytesMut,
        out: &mut Vec<u8>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), Broken> {
        while let Some(frame) = decode(received).map_err(damaged)? {
            self.frame(&frame, out, answers)?;
        }
        if self.is_ready && self.message_bytes_max > self.stream_window {
            let (needed, room) = (self.message_bytes_max, self.stream_window);
            return Err(Broken(format!(
                "requests of up to {needed} bytes do not fit the {room} bytes that the server takes on a stream; use a smaller --value-bytes"
            )));
        }
        Ok(())
    }
}

/// Streams of a client are odd: operation 1 is stream 1, operation 2 is stream 3.
fn number_of(stream: u32) -> u64 {
    u64::from(stream).div_ceil(2)
}

#[allow(clippy::needless_pass_by_value)] // it is what `map_err` hands over
fn damaged(damage: FrameDamage) -> Broken {
    Broken(damage.to_string())
}

fn goaway(frame: &Frame) -> Broken {
    let (_, rest) = frame.payload.split_at(frame.payload.len().min(4));
    let (code, words) = rest.split_at(rest.len().min(4));
    Broken(format!("the server says goodbye: code {code:?}, {:?}", String::from_utf8_lossy(words)))
}

#[cfg(test)]
mod tests {
    use super::super::http2::FRAME_HEADER_BYTES;
    use super::{
        Act, Answer, Broken, BytesMut, CONNECTION_WINDOW_BYTES, Conversation, Frame, GrpcConversation,
        Material, Operation, PREFACE, decode, flag, kind, put_frame, setting, settings_payload,
    };

    /// The trailers of grpc-go that say OK after a table of size 0 was asked for.
    const OK: &[u8] = b"\x00\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x01\x30";

    fn ready() -> GrpcConversation {
        let mut conversation = GrpcConversation::new(Material::new(256), "127.0.0.1:2379");
        let mut out = Vec::new();
        conversation.begin(&mut out);
        assert!(out.starts_with(PREFACE) && !conversation.is_ready());
        let settings = settings_payload(&[(setting::MAX_CONCURRENT_STREAMS, 2)]);
        let said = heard(&mut conversation, &[(kind::SETTINGS, 0, 0, &settings)]).expect("it goes on");
        assert_eq!((said.0[0].kind, said.0[0].flags), (kind::SETTINGS, flag::ACK));
        assert!(conversation.is_ready());
        conversation
    }

    /// What is said and answered when these frames come.
    fn heard(
        conversation: &mut GrpcConversation,
        frames: &[(u8, u8, u32, &[u8])],
    ) -> Result<(Vec<Frame>, Vec<Answer>), Broken> {
        let mut bytes = Vec::new();
        for (kind, flags, stream, payload) in frames {
            put_frame(&mut bytes, *kind, *flags, *stream, payload);
        }
        let (mut received, mut out, mut answers) = (BytesMut::new(), Vec::new(), Vec::new());
        // One byte after the other: nothing may depend on how the network cuts.
        for byte in bytes {
            received.extend_from_slice(&[byte]);
            conversation.receive(&mut received, &mut out, &mut answers)?;
        }
        Ok((frames_in(&out), answers))
    }

    fn frames_in(bytes: &[u8]) -> Vec<Frame> {
        let mut bytes = BytesMut::from(bytes);
        std::iter::from_fn(|| decode(&mut bytes).expect("frames of ours")).collect()
    }

    fn put(conversation: &mut GrpcConversation, number: u64) -> Vec<Frame> {
        let mut out = Vec::new();
        let operation = Operation { number, act: Act::Put, key: 7, answered_up_to: 0 };
        conversation.send(&operation, &mut out);
        frames_in(&out)
    }

    fn served(number: u64) -> Answer {
        Answer { number, result: Ok(()) }
    }

    #[test]
    fn a_put_is_headers_and_one_message_and_its_trailers_are_its_answer() {
        let mut conversation = ready();
        let frames = put(&mut conversation, 2);
        assert_eq!(frames.iter().map(|it| (it.kind, it.stream)).collect::<Vec<_>>(), [(1, 3), (0, 3)]);
        assert_eq!(frames[1].flags, flag::END_STREAM);
        assert!(frames[1].payload.starts_with(b"\0\0\0\x01\x0e\x0a\x09k00000007\x12\x80\x02"));
        let end = flag::END_HEADERS | flag::END_STREAM;
        let answer = [
            (kind::HEADERS, flag::END_HEADERS, 3, b"\x88".as_slice()),
            (kind::DATA, 0, 3, b"\0\0\0\0\0"),
            (kind::HEADERS, end, 3, OK),
        ];
        assert_eq!(heard(&mut conversation, &answer).expect("it goes on").1, [served(2)]);
        // The same trailers again, and then in two pieces.
        put(&mut conversation, 3);
        put(&mut conversation, 4);
        let answers = [
            (kind::HEADERS, end, 5, OK),
            (kind::HEADERS, flag::END_STREAM, 7, &OK[..4]),
            (kind::CONTINUATION, flag::END_HEADERS, 7, &OK[4..]),
        ];
        assert_eq!(heard(&mut conversation, &answers).expect("it goes on").1, [served(3), served(4)]);
    }

    #[test]
    fn a_status_a_reset_and_missing_trailers_are_errors_of_their_kinds() {
        let mut conversation = ready();
        let end = flag::END_HEADERS | flag::END_STREAM;
        let frames = [
            (kind::HEADERS, end, 1, b"\x88\x00\x0bgrpc-status\x0214".as_slice()),
            (kind::RST_STREAM, 0, 3, &[0, 0, 0, 8]),
            (kind::HEADERS, end, 5, b"\x88"),
        ];
        let answers = heard(&mut conversation, &frames).expect("it goes on").1;
        let words: Vec<_> =
            answers.into_iter().map(|answer| answer.result.expect_err("none was served")).collect();
        assert_eq!(words, ["UNAVAILABLE", "stream reset (8)", "no grpc-status"]);
    }

    #[test]
    fn a_goodbye_a_dynamic_table_and_a_damaged_frame_end_the_connection() {
        let end = flag::END_HEADERS | flag::END_STREAM;
        for (frame, word) in [
            ((kind::GOAWAY, 0, 0, b"\0\0\0\x07\0\0\0\x02too many pings".as_slice()), "too many pings"),
            ((kind::GOAWAY, 0, 0, b""), "goodbye"),
            ((kind::HEADERS, end, 1, b"\xbe"), "table"),
            ((kind::DATA, flag::END_STREAM, 1, b""), "trailers"),
            ((kind::WINDOW_UPDATE, 0, 0, b"\0"), "too short"),
            ((kind::CONTINUATION, 0, 1, b""), "not begun"),
        ] {
            let broken = heard(&mut ready(), &[frame]).expect_err("it ends");
            assert!(broken.0.contains(word), "{broken}");
        }
    }

    #[test]
    fn pings_are_answered_and_room_is_given_back() {
        let mut conversation = ready();
        let said = heard(&mut conversation, &[(kind::PING, 0, 0, b"12345678")]).expect("it goes on").0;
        assert_eq!((said[0].flags, &said[0].payload[..]), (flag::ACK, &b"12345678"[..]));
        conversation.unreturned = CONNECTION_WINDOW_BYTES / 2;
        let said = heard(&mut conversation, &[(kind::DATA, 0, 1, b"x")]).expect("it goes on").0;
        assert_eq!(
            (said[0].kind, said[0].number()),
            (kind::WINDOW_UPDATE, Ok(CONNECTION_WINDOW_BYTES / 2 + 1))
        );
        assert_eq!(conversation.unreturned, 0);
    }

    #[test]
    fn no_more_is_sent_than_the_server_has_room_for() {
        let mut conversation = ready();
        put(&mut conversation, 1);
        assert!(conversation.has_room(2, 0));
        put(&mut conversation, 2);
        assert!(!conversation.has_room(3, 0), "two streams at a time were allowed");
        conversation.streams_max = u64::MAX;
        let mut number = 3;
        while conversation.has_room(number, 0) {
            put(&mut conversation, number);
            number += 1;
        }
        assert!((200..300).contains(&number), "64 KiB hold so many messages of 275 bytes: {number}");
        let more = [(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 4, 0][..])];
        heard(&mut conversation, &more).expect("it goes on");
        assert!(conversation.has_room(number, 0));
    }

    #[test]
    fn a_long_message_is_cut_into_frames() {
        let mut conversation = GrpcConversation::new(Material::new(40_000), "localhost");
        let frames = put(&mut conversation, 1);
        assert_eq!(frames.len(), 4);
        let flags: Vec<u8> = frames.iter().skip(1).map(|frame| frame.flags).collect();
        assert_eq!(flags, [0, 0, flag::END_STREAM]);
        let bytes: usize = frames.iter().skip(1).map(|frame| frame.payload.len() + FRAME_HEADER_BYTES).sum();
        assert!(bytes > 40_000);
    }
}
