//! Frames: the header that finds, bounds and checks every body (PROTOCOL §2).
//!
//! What always holds: a length is compared with its limit before a byte of the body is waited for; a body is
//! looked at only after its checksum held; it is a slice of the receive buffer, not a copy.

use crate::limits::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};
use bytes::{BufMut, Bytes, BytesMut};

/// Bytes before the body.
pub const FRAME_HEADER_BYTES: usize = 24;

/// The version this codec speaks.
pub const VERSION: u8 = 1;

const MAGIC: [u8; 4] = *b"MSTY";
/// The checksum covers everything from here on.
const CHECKED_FROM: usize = 8;

/// One whole frame, its checksum held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the body is; see `kind`.
    pub kind: u8,
    /// Pairs an answer with its request; 0 in hellos and in refusals that answer no request.
    pub request: u64,
    /// The body, not yet decoded.
    pub body: Bytes,
}

/// Who reads; it sets the longest body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// Bodies are requests.
    Server,
    /// Bodies are answers.
    Client,
}

impl Receiver {
    const fn body_bytes_max(self) -> usize {
        match self {
            Self::Server => REQUEST_BYTES_MAX,
            Self::Client => RESPONSE_BYTES_MAX,
        }
    }
}

/// Why a stream of frames ends here: nothing after this can be trusted, so the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameDamage {
    /// The first bytes are not a frame's.
    #[error("expected a frame to begin with 4d535459 (MSTY), found {:02x}{:02x}{:02x}{:02x}", found[0], found[1], found[2], found[3])]
    Magic {
        /// What stands there.
        found: [u8; 4],
    },
    /// A version that was not agreed on.
    #[error("expected version {VERSION} at byte 8 of the frame, found {found}")]
    Version {
        /// The version named.
        found: u8,
    },
    /// Flags that no feature allows.
    #[error("expected no flags at byte 10 of the frame, found {found:#06x}")]
    Flags {
        /// The flags.
        found: u16,
    },
    /// The body is longer than this direction allows.
    #[error("expected a body of at most {limit} bytes at byte 12 of the frame, found a length of {found}")]
    TooLong {
        /// The limit.
        limit: usize,
        /// The length announced.
        found: u32,
    },
    /// The bytes changed on the way.
    #[error("expected checksum {expected:08x} at byte 4 of the frame, found {found:08x}")]
    Checksum {
        /// Computed from the bytes.
        expected: u32,
        /// Written in the header.
        found: u32,
    },
}

struct Header {
    checksum: u32,
    kind: u8,
    body_bytes: usize,
    request: u64,
}

/// Takes the first frame off `buffer`, once all of it is there.
///
/// `None`: more bytes are needed, and `buffer` is as it was. The header is judged as soon as it is complete.
///
/// # Errors
/// The connection cannot be trusted from here on; close it.
pub fn decode_frame(buffer: &mut BytesMut, receiver: Receiver) -> Result<Option<Frame>, FrameDamage> {
    let Some(header) = decode_header(buffer, receiver)? else {
        return Ok(None);
    };
    let frame_bytes = FRAME_HEADER_BYTES + header.body_bytes;
    let Some(checked) = buffer.get(CHECKED_FROM..frame_bytes) else {
        return Ok(None);
    };
    let expected = crc32c::crc32c(checked);
    if expected != header.checksum {
        return Err(FrameDamage::Checksum { expected, found: header.checksum });
    }
    let mut frame = buffer.split_to(frame_bytes).freeze();
    let body = frame.split_off(FRAME_HEADER_BYTES);
    Ok(Some(Frame { kind: header.kind, request: header.request, body }))
}

fn decode_header(buffer: &[u8], receiver: Receiver) -> Result<Option<Header>, FrameDamage> {
    if let Some(found) = buffer.first_chunk::<4>()
        && *found != MAGIC
    {
        return Err(FrameDamage::Magic { found: *found });
    }
    let Some(header) = buffer.first_chunk::<FRAME_HEADER_BYTES>() else {
        return Ok(None);
    };
    let [_, _, _, _, c0, c1, c2, c3, version, kind, f0, f1, l0, l1, l2, l3, request @ ..] = *header;
    if version != VERSION {
        return Err(FrameDamage::Version { found: version });
    }
    let flags = u16::from_le_bytes([f0, f1]);
    if flags != 0 {
        return Err(FrameDamage::Flags { found: flags });
    }
    let announced = u32::from_le_bytes([l0, l1, l2, l3]);
    let limit = receiver.body_bytes_max();
    let too_long = FrameDamage::TooLong { limit, found: announced };
    let body_bytes = usize::try_from(announced).map_err(|_| too_long)?;
    if body_bytes > limit {
        return Err(too_long);
    }
    let checksum = u32::from_le_bytes([c0, c1, c2, c3]);
    Ok(Some(Header { checksum, kind, body_bytes, request: u64::from_le_bytes(request) }))
}

/// Room for a header, and for a body of about this many bytes behind it.
pub(super) fn begin_frame(body_bytes_expected: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(FRAME_HEADER_BYTES + body_bytes_expected);
    begin_frame_behind(&mut out, body_bytes_expected);
    out
}

/// The same behind what `out` holds already. Returns where the frame begins.
pub(super) fn begin_frame_behind(out: &mut BytesMut, body_bytes_expected: usize) -> usize {
    let start = out.len();
    out.reserve(FRAME_HEADER_BYTES + body_bytes_expected);
    out.put_bytes(0, FRAME_HEADER_BYTES);
    start
}

/// Writes the header in front of the body that now stands behind it.
pub(super) fn finish_frame(mut out: BytesMut, kind: u8, request: u64) -> Bytes {
    finish_frame_at(&mut out, 0, kind, request);
    out.freeze()
}

/// The same for the frame that begins at `start` and ends with `out`.
pub(super) fn finish_frame_at(out: &mut BytesMut, start: usize, kind: u8, request: u64) {
    let (head, body) = out[start..].split_at_mut(FRAME_HEADER_BYTES);
    head.copy_from_slice(&frame_head(kind, request, body));
}

/// The header of the frame of a body that stands elsewhere.
pub(super) fn frame_head(kind: u8, request: u64, body: &[u8]) -> [u8; FRAME_HEADER_BYTES] {
    let body_bytes = u32::try_from(body.len()).expect("a body is below 4 GiB");
    let mut head = [0; FRAME_HEADER_BYTES];
    let mut fields = head.as_mut_slice();
    fields.put_slice(&MAGIC);
    fields.put_u32_le(0);
    fields.put_u8(VERSION);
    fields.put_u8(kind);
    fields.put_u16_le(0);
    fields.put_u32_le(body_bytes);
    fields.put_u64_le(request);
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&head[CHECKED_FROM..]), body);
    head[MAGIC.len()..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
    head
}
