//! Frames of HTTP/2 (RFC 9113), as far as one side of gRPC needs them.
//!
//! What always holds: a length is judged before its bytes are waited for; no input panics. What it leaves out: what
//! frames mean to a conversation (`grpc`), padding on the way out, and priorities.

use bytes::{Buf, Bytes, BytesMut};

/// What a client says before its first frame.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes before a frame's payload.
pub(crate) const FRAME_HEADER_BYTES: usize = 9;

/// The longest payload either side takes unless it says otherwise, which we never do.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 16_384;

/// Kinds of frames.
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Flags; ACK and `END_STREAM` share a bit.
pub(crate) mod flag {
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Settings by their numbers.
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Bytes,
}

/// Why bytes are no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameDamage {
    #[error("a frame of {0} bytes is longer than the {PAYLOAD_BYTES_MAX} we allow")]
    TooLong(usize),
    #[error("a frame is filled up with more bytes than it has")]
    Padding,
    #[error("a frame of kind {0} is too short for what it must hold")]
    TooShort(u8),
}

/// Takes the first frame off `received`, once all of it is there.
pub(crate) fn decode(received: &mut BytesMut) -> Result<Option<Frame>, FrameDamage> {
    let Some(header) = received.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
    let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *header;
    let length = usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2);
    if length > PAYLOAD_BYTES_MAX {
        return Err(FrameDamage::TooLong(length));
    }
    if received.len() < FRAME_HEADER_BYTES + length {
        return Ok(None);
    }
    received.advance(FRAME_HEADER_BYTES);
    let payload = received.split_to(length).freeze();
    // The highest bit of a stream's number is reserved.
    let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
    Ok(Some(Frame { kind, flags, stream, payload }))
}

/// Writes the header of a frame whose payload of `length` bytes follows.
pub(crate) fn put_header(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    assert!(length <= PAYLOAD_BYTES_MAX, "longer payloads are cut before");
    let length = u32::try_from(length).expect("it is at most 16 KiB").to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

/// Writes a whole frame.
pub(crate) fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    put_header(out, payload.len(), kind, flags, stream);
    out.extend_from_slice(payload);
}

impl Frame {
    /// The fragment of a `HEADERS` frame, without padding and priority.
    pub(crate) fn header_fragment(&self) -> Result<Bytes, FrameDamage> {
        let mut fragment = self.payload.clone();
        if self.flags & flag::PADDED != 0 {
            let padding = fragment.try_get_u8().map_err(|_| FrameDamage::Padding)?;
            let kept = fragment.len().checked_sub(usize::from(padding)).ok_or(FrameDamage::Padding)?;
            fragment.truncate(kept);
        }
        if self.flags & flag::PRIORITY != 0 {
            if fragment.len() < 5 {
                return Err(FrameDamage::TooShort(self.kind));
            }
            fragment.advance(5);
        }
        Ok(fragment)
    }

    /// The number that a `WINDOW_UPDATE` or `RST_STREAM` holds.
    pub(crate) fn number(&self) -> Result<u32, FrameDamage> {
        let number = self.payload.first_chunk::<4>().ok_or(FrameDamage::TooShort(self.kind))?;
        Ok(u32::from_be_bytes(*number))
    }

    /// The pairs that a `SETTINGS` frame holds.
    pub(crate) fn settings(&self) -> impl Iterator<Item = (u16, u32)> + '_ {
        let (pairs, _) = self.payload.as_chunks::<6>();
        pairs.iter().map(|[n0, n1, v0, v1, v2, v3]| {
            (u16::from_be_bytes([*n0, *n1]), u32::from_be_bytes([*v0, *v1, *v2, *v3]))
        })
    }
}

/// The payload of a `SETTINGS` frame.
pub(crate) fn settings_payload(pairs: &[(u16, u32)]) -> Vec<u8> {
    let pairs = pairs.iter().flat_map(|(name, value)| {
        let (name, value) = (name.to_be_bytes(), value.to_be_bytes());
        [name[0], name[1], value[0], value[1], value[2], value[3]]
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::{Frame, FrameDamage, decode, flag, kind, put_frame, settings_payload};
    use bytes::{Bytes, BytesMut};

    #[test]
    fn frames_come_back_as_they_were_put_however_they_are_cut() {
        let frames = [
            (kind::SETTINGS, 0, 0, settings_payload(&[(1, 0), (4, 1 << 20)])),
            (kind::DATA, flag::END_STREAM, 7, vec![1; 300]),
            (kind::PING, flag::ACK, 0, vec![9; 8]),
            (kind::DATA, 0, 0x7fff_ffff, Vec::new()),
        ];
        let mut bytes = Vec::new();
        for (kind, flags, stream, payload) in &frames {
            put_frame(&mut bytes, *kind, *flags, *stream, payload);
        }
        for cut in 0..bytes.len() {
            let mut received = BytesMut::from(&bytes[..cut]);
            let mut found = Vec::new();
            while let Some(frame) = decode(&mut received).expect("whole frames") {
                found.push(frame);
            }
            received.extend_from_slice(&bytes[cut..]);
            while let Some(frame) = decode(&mut received).expect("whole frames") {
                found.push(frame);
            }
            let expected = frames.iter().map(|(kind, flags, stream, payload)| Frame {
                kind: *kind,
                flags: *flags,
                stream: *stream,
                payload: payload.clone().into(),
            });
            assert_eq!(found, expected.collect::<Vec<_>>(), "cut at {cut}");
            assert_eq!(found[0].settings().collect::<Vec<_>>(), [(1, 0), (4, 1 << 20)]);
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_its_bytes_come() {
        let mut received = BytesMut::from(&[0, 0x40, 1, 0, 0, 0, 0, 0, 0][..]);
        assert_eq!(decode(&mut received), Err(FrameDamage::TooLong(16_385)));
    }

    #[test]
    fn padding_and_priority_are_taken_off_headers() {
        let headers = |flags, payload: &'static [u8]| {
            let payload = Bytes::from_static(payload);
            Frame { kind: kind::HEADERS, flags, stream: 1, payload }.header_fragment()
        };
        assert_eq!(headers(0, b"abc"), Ok(Bytes::from_static(b"abc")));
        assert_eq!(headers(flag::PADDED, b"\x02abc\0\0"), Ok(Bytes::from_static(b"abc")));
        let both = flag::PADDED | flag::PRIORITY;
        assert_eq!(headers(both, b"\x01\0\0\0\0\x05abc\0"), Ok(Bytes::from_static(b"abc")));
        assert_eq!(headers(flag::PADDED, b"\x09abc"), Err(FrameDamage::Padding));
        assert_eq!(headers(flag::PADDED, b""), Err(FrameDamage::Padding));
        assert_eq!(headers(flag::PRIORITY, b"abc"), Err(FrameDamage::TooShort(kind::HEADERS)));
    }
}
