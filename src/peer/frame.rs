//! One frame between members: the header around an envelope and raw bytes.
//!
//! What always holds and what the layout is: see `mod.rs`.

use super::envelope::{self, ArchivedContent, ArchivedEnvelope, Content, Envelope, WireRecorded, WireStamp};
use crate::ids::{
    AuthRevision, ClusterId, DirectoryId, GroupId, KeyspaceId, LeaseId, MemberId, Principal, SessionId, Term,
};
use crate::limits::{
    LOG_INDEX_MAX, PEER_ENVELOPE_BYTES_MAX, PEER_PAYLOAD_BYTES_MAX, RAFT_VOTERS_MAX, TERM_MAX,
};
use crate::raft::Message;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use rkyv::rancor;
use rkyv::ser::{Positional, Writer};

/// Bytes before the envelope.
pub const HEADER_BYTES: usize = 20;

const MAGIC: [u8; 4] = *b"MSTP";
const VERSION: u8 = 2;
/// The checksum covers everything from here on.
const CHECKED_FROM: usize = 8;
/// Room for an envelope without its lists; the largest kind takes less.
const ENVELOPE_BYTES_EXPECTED: usize = 192;
/// Set in the kind of a forward whose payload begins with who asks.
const ASKER_BIT: u8 = 0x80;
/// What that takes.
const ASKER_BYTES: usize = 12;
/// Nobody said who they are: that is not sent.
const NOBODY: Asker = (Principal(0), AuthRevision(0));
/// What one entry, or one recorded member, adds to an envelope, at most.
const LISTED_BYTES: usize = 16;

/// Who asks for something, as an entry of the log says it.
pub type Asker = (Principal, AuthRevision);

/// Something one member says to another about one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The sender's cluster.
    pub cluster: ClusterId,
    /// The group it is about.
    pub group: GroupId,
    /// Who says it.
    pub from: MemberId,
    /// To whom.
    pub to: MemberId,
    /// The life of the sender's data directory.
    pub from_directory: DirectoryId,
    /// The life of the receiver's data directory that the sender means.
    pub to_directory: DirectoryId,
    /// What.
    pub body: Body,
}

/// What makes a forwarded write apply exactly once (DESIGN §10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardStamp {
    /// The session.
    pub session: SessionId,
    /// The write's number in it.
    pub sequence: u64,
    /// The client has all answers up to this sequence.
    pub low_water: u64,
}

/// The kinds of frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A consensus message.
    Raft {
        /// The message.
        message: Message,
        /// The encoded entries it names, in order; each as long as its entry says. Of a chunk of a snapshot: its bytes.
        records: Vec<Bytes>,
    },
    /// A proposal handed to the leader.
    Forward {
        /// Pairs the answer with it.
        request: u64,
        /// The term in which the sender takes the receiver for the leader. In another it is not to be proposed: a
        /// copy that comes late must not be carried out again by a member that has forgotten the first.
        term: Term,
        /// The kind its log entry will have.
        kind: u8,
        /// Which store.
        keyspace: KeyspaceId,
        /// For exactly-once.
        stamp: Option<ForwardStamp>,
        /// Who asks, as its log entry will say.
        asker: Asker,
        /// The body its log entry will have.
        body: Bytes,
    },
    /// A question about the time of a lease, handed to the leader, which counts it.
    AskLease {
        /// Pairs the answer with it.
        request: u64,
        /// As in a `Forward`.
        term: Term,
        /// Which store.
        keyspace: KeyspaceId,
        /// Which lease.
        lease: LeaseId,
        /// Whether it is to be renewed.
        is_renewal: bool,
        /// Whether its keys are asked for.
        wants_keys: bool,
        /// Who asks.
        asker: Asker,
    },
    /// What became of a `Forward`, or the answer to an `AskLease`.
    ForwardReply {
        /// Echo of its number.
        request: u64,
        /// An encoded answer for the client.
        response: Bytes,
    },
    /// "This is what I am, and whom I have recorded": question and answer of the bootstrap alike (DESIGN §8).
    Hello {
        /// Which boot of the sender this is.
        incarnation: u64,
        /// Whether it takes part already.
        is_started: bool,
        /// The directories it has durably recorded, if it takes part; the ones it knows if it does not. One a member.
        recorded: Vec<(MemberId, DirectoryId)>,
        /// The receiver's directory as the sender recorded it; 0 if it has not.
        your_directory: DirectoryId,
    },
}

/// Why bytes from a peer are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerDamage {
    /// A greeting that cannot be read.
    #[error("expected a peer's greeting, found one whose {what} is wrong")]
    Greeting {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The first bytes are not a peer frame's.
    #[error("expected a peer frame to begin with 4d535450 (MSTP), found {found:02x?}")]
    Magic {
        /// What stands there.
        found: [u8; 4],
    },
    /// A version this member does not speak.
    #[error("expected version {VERSION} at byte 8, found {found}")]
    Version {
        /// The version named.
        found: u8,
    },
    /// Bytes kept for later are in use.
    #[error("expected zeros at bytes 9 to 11, found {found:02x?}")]
    Reserved {
        /// What stands there.
        found: [u8; 3],
    },
    /// A part is longer than it may be.
    #[error("expected at most {limit} bytes of {part}, found a length of {found}")]
    TooLong {
        /// The part.
        part: &'static str,
        /// The limit.
        limit: usize,
        /// The length announced.
        found: u32,
    },
    /// The bytes given are not exactly one frame.
    #[error("expected a frame of {expected} bytes, found {found}")]
    Length {
        /// What the header announces, or the header's own length.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// The bytes changed on the way.
    #[error("expected checksum {expected:08x} at byte 4, found {found:08x}")]
    Checksum {
        /// Computed from the bytes.
        expected: u32,
        /// Written in the header.
        found: u32,
    },
    /// The envelope is no archive of ours, though the checksum held.
    #[error("expected an envelope of version {VERSION} at byte {HEADER_BYTES}: {reason}")]
    Envelope {
        /// The validator's words.
        reason: String,
    },
    /// An index or a term that no log can have reached; counting on from it could overflow.
    #[error("expected indices up to {LOG_INDEX_MAX} and terms up to {TERM_MAX}, found a larger one")]
    Unreachable,
    /// A hello that lists more members than a group can have.
    #[error("expected a hello that lists at most {RAFT_VOTERS_MAX} members, found {found}")]
    Members {
        /// How many it lists.
        found: usize,
    },
    /// The payload is not as long as the envelope's content says.
    #[error("expected a payload of {expected} bytes, as the envelope says, found {found}")]
    Payload {
        /// The sum of the entries' lengths, or 0 for kinds without payload.
        expected: u64,
        /// How many bytes there are.
        found: usize,
    },
}

struct Header {
    checksum: u32,
    envelope_bytes: usize,
    payload_bytes: usize,
}

impl Header {
    const fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.envelope_bytes + self.payload_bytes
    }
}

/// How long the frame is that begins with these bytes; `None` while its header is not complete.
///
/// For whoever collects a stream: a length that comes back is within the limits.
///
/// # Errors
/// The bytes are no peer frame's, or announce more than a limit. The connection cannot be trusted from here on.
pub fn frame_length(header: &[u8]) -> Result<Option<usize>, PeerDamage> {
    Ok(decode_header(header)?.map(|header| header.frame_bytes()))
}

fn decode_header(bytes: &[u8]) -> Result<Option<Header>, PeerDamage> {
    if let Some(found) = bytes.first_chunk::<4>()
        && *found != MAGIC
    {
        return Err(PeerDamage::Magic { found: *found });
    }
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let [_, _, _, _, c0, c1, c2, c3, version, reserved @ .., e0, e1, e2, e3, p0, p1, p2, p3] = *header;
    if version != VERSION {
        return Err(PeerDamage::Version { found: version });
    }
    if reserved != [0; 3] {
        return Err(PeerDamage::Reserved { found: reserved });
    }
    let envelope_bytes = bounded("envelope", [e0, e1, e2, e3], PEER_ENVELOPE_BYTES_MAX)?;
    let payload_bytes = bounded("payload", [p0, p1, p2, p3], PEER_PAYLOAD_BYTES_MAX)?;
    Ok(Some(Header { checksum: u32::from_le_bytes([c0, c1, c2, c3]), envelope_bytes, payload_bytes }))
}

fn bounded(part: &'static str, length: [u8; 4], limit: usize) -> Result<usize, PeerDamage> {
    let found = u32::from_le_bytes(length);
    match usize::try_from(found) {
        Ok(length) if length <= limit => Ok(length),
        Ok(_) | Err(_) => Err(PeerDamage::TooLong { part, limit, found }),
    }
}

/// Reads one whole frame. Records, bodies and answers are slices of `bytes`.
///
/// # Errors
/// Says what was expected, what was found, and where. Nothing of the frame may be used.
pub fn decode(bytes: &Bytes) -> Result<Frame, PeerDamage> {
    let header =
        decode_header(bytes)?.ok_or(PeerDamage::Length { expected: HEADER_BYTES, found: bytes.len() })?;
    let wrong_length = PeerDamage::Length { expected: header.frame_bytes(), found: bytes.len() };
    if bytes.len() != header.frame_bytes() {
        return Err(wrong_length);
    }
    let expected = crc32c::crc32c(bytes.get(CHECKED_FROM..).unwrap_or_default());
    if expected != header.checksum {
        return Err(PeerDamage::Checksum { expected, found: header.checksum });
    }
    let payload_at = HEADER_BYTES + header.envelope_bytes;
    let archived = bytes.get(HEADER_BYTES..payload_at).ok_or(wrong_length)?;
    let envelope = rkyv::access::<ArchivedEnvelope, rancor::Error>(archived)
        .map_err(|error| PeerDamage::Envelope { reason: error.to_string() })?;
    Ok(Frame {
        cluster: ClusterId(envelope.cluster.to_native()),
        group: GroupId(envelope.group.to_native()),
        from: MemberId(envelope.from.to_native()),
        to: MemberId(envelope.to.to_native()),
        from_directory: DirectoryId(envelope.from_directory.to_native()),
        to_directory: DirectoryId(envelope.to_directory.to_native()),
        body: body(&envelope.content, bytes.slice(payload_at..))?,
    })
}

fn body(content: &ArchivedContent, payload: Bytes) -> Result<Body, PeerDamage> {
    match content {
        ArchivedContent::Raft(wire) => {
            let message = envelope::message(wire).ok_or(PeerDamage::Unreachable)?;
            let records = records(&message.carried_sizes(), &payload)?;
            Ok(Body::Raft { message, records })
        }
        ArchivedContent::Forward { request, term, kind, keyspace, stamp } => {
            let (asker, body) = split_asker(*kind & ASKER_BIT != 0, payload)?;
            Ok(Body::Forward {
                request: request.to_native(),
                term: Term(term.to_native()),
                kind: *kind & !ASKER_BIT,
                keyspace: KeyspaceId(keyspace.to_native()),
                stamp: stamp.as_ref().map(|stamp| ForwardStamp {
                    session: SessionId(stamp.session.to_native()),
                    sequence: stamp.sequence.to_native(),
                    low_water: stamp.low_water.to_native(),
                }),
                asker,
                body,
            })
        }
        ArchivedContent::AskLease { request, term, keyspace, lease, is_renewal, wants_keys } => {
            let expected = if payload.len() < ASKER_BYTES { 0 } else { ASKER_BYTES };
            if payload.len() != expected {
                return Err(PeerDamage::Payload { expected: expected as u64, found: payload.len() });
            }
            let (asker, _) = split_asker(expected > 0, payload)?;
            Ok(Body::AskLease {
                request: request.to_native(),
                term: Term(term.to_native()),
                keyspace: KeyspaceId(keyspace.to_native()),
                lease: LeaseId(lease.to_native()),
                is_renewal: *is_renewal,
                wants_keys: *wants_keys,
                asker,
            })
        }
        ArchivedContent::ForwardReply { request } => {
            Ok(Body::ForwardReply { request: request.to_native(), response: payload })
        }
        ArchivedContent::Hello { incarnation, is_started, recorded, your_directory } => {
            records(&[], &payload)?;
            if recorded.len() > RAFT_VOTERS_MAX {
                return Err(PeerDamage::Members { found: recorded.len() });
            }
            Ok(Body::Hello {
                incarnation: incarnation.to_native(),
                is_started: *is_started,
                recorded: recorded.iter().map(envelope::recorded).collect(),
                your_directory: DirectoryId(your_directory.to_native()),
            })
        }
    }
}

/// Takes who asks off the front of a payload, if it is said there.
fn split_asker(is_said: bool, mut payload: Bytes) -> Result<(Asker, Bytes), PeerDamage> {
    if !is_said {
        return Ok((NOBODY, payload));
    }
    let missing = PeerDamage::Payload { expected: ASKER_BYTES as u64, found: payload.len() };
    let (Ok(principal), Ok(revision)) = (payload.try_get_u32_le(), payload.try_get_u64_le()) else {
        return Err(missing);
    };
    Ok(((Principal(principal), AuthRevision(revision)), payload))
}

/// Cuts the payload where these sizes say, if they account for all of it.
fn records(sizes: &[u32], payload: &Bytes) -> Result<Vec<Bytes>, PeerDamage> {
    let expected = sizes.iter().copied().map(u64::from).sum();
    let unequal = PeerDamage::Payload { expected, found: payload.len() };
    if u64::try_from(payload.len()) != Ok(expected) {
        return Err(unequal);
    }
    let mut records = Vec::with_capacity(sizes.len());
    let mut offset = 0;
    for size in sizes {
        let length = usize::try_from(*size).map_err(|_| unequal.clone())?;
        records.push(payload.slice(offset..offset + length));
        offset += length;
    }
    Ok(records)
}

/// Writes one frame, into one allocation.
///
/// The records of a `Raft` body must be those its message names, and nothing may be beyond its limit: whoever
/// builds messages bounds them.
pub fn encode(frame: &Frame) -> Bytes {
    frame.body.assert_records_match();
    let (content, listed_count) = content(&frame.body);
    let (asker, payload) = (frame.body.asker(), frame.body.payload());
    let asker_bytes = if asker == NOBODY { 0 } else { ASKER_BYTES };
    let payload_bytes = asker_bytes + payload.iter().map(Bytes::len).sum::<usize>();
    let expected = HEADER_BYTES + ENVELOPE_BYTES_EXPECTED + listed_count * LISTED_BYTES + payload_bytes;
    let mut out = BytesMut::with_capacity(expected);
    out.put_bytes(0, HEADER_BYTES);
    let envelope = Envelope {
        cluster: frame.cluster.0,
        group: frame.group.0,
        from: frame.from.0,
        to: frame.to.0,
        from_directory: frame.from_directory.0,
        to_directory: frame.to_directory.0,
        content,
    };
    let EnvelopeWriter(mut out) =
        rkyv::api::high::to_bytes_in::<_, rancor::Error>(&envelope, EnvelopeWriter(out))
            .expect("memory takes every byte, and an envelope is far below 2 GiB");
    let envelope_bytes = out.len() - HEADER_BYTES;
    if asker != NOBODY {
        out.put_u32_le(asker.0.0);
        out.put_u64_le(asker.1.0);
    }
    for part in payload {
        out.put_slice(part);
    }
    finish(out, envelope_bytes, payload_bytes)
}

fn finish(mut out: BytesMut, envelope_bytes: usize, payload_bytes: usize) -> Bytes {
    assert!(envelope_bytes <= PEER_ENVELOPE_BYTES_MAX, "what lists are in a frame is bounded");
    assert!(payload_bytes <= PEER_PAYLOAD_BYTES_MAX, "what one frame carries is bounded");
    let mut header = &mut out[..HEADER_BYTES];
    header.put_slice(&MAGIC);
    header.put_u32_le(0);
    header.put_u8(VERSION);
    header.put_bytes(0, 3);
    header.put_u32_le(u32::try_from(envelope_bytes).expect("its limit is below 4 GiB"));
    header.put_u32_le(u32::try_from(payload_bytes).expect("its limit is below 4 GiB"));
    let checksum = crc32c::crc32c(&out[CHECKED_FROM..]);
    out[MAGIC.len()..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
    out.freeze()
}

/// The envelope's part of a body, and how many things are listed in it.
fn content(body: &Body) -> (Content, usize) {
    match body {
        Body::Raft { message, records } => (Content::Raft(envelope::mirror(message)), records.len()),
        Body::Forward { request, term, kind, keyspace, stamp, asker, body: _ } => {
            let stamp = stamp.map(|stamp| WireStamp {
                session: stamp.session.0,
                sequence: stamp.sequence,
                low_water: stamp.low_water,
            });
            assert!(*kind & ASKER_BIT == 0, "kinds of entries leave this bit free");
            let asker_bit = if *asker == NOBODY { 0 } else { ASKER_BIT };
            let (request, term, kind, keyspace) = (*request, term.0, *kind | asker_bit, keyspace.0);
            (Content::Forward { request, term, kind, keyspace, stamp }, 0)
        }
        Body::AskLease { request, term, keyspace, lease, is_renewal, wants_keys, asker: _ } => {
            let (request, term, keyspace, lease) = (*request, term.0, keyspace.0, lease.0);
            let (is_renewal, wants_keys) = (*is_renewal, *wants_keys);
            (Content::AskLease { request, term, keyspace, lease, is_renewal, wants_keys }, 0)
        }
        Body::ForwardReply { request, response: _ } => (Content::ForwardReply { request: *request }, 0),
        Body::Hello { incarnation, is_started, recorded, your_directory } => {
            let mirror = |(member, directory): &(MemberId, DirectoryId)| WireRecorded {
                member: member.0,
                directory: directory.0,
            };
            let content = Content::Hello {
                incarnation: *incarnation,
                is_started: *is_started,
                recorded: recorded.iter().map(mirror).collect(),
                your_directory: your_directory.0,
            };
            (content, recorded.len())
        }
    }
}

impl Body {
    /// Who asks, where that is said.
    const fn asker(&self) -> Asker {
        match self {
            Self::Forward { asker, .. } | Self::AskLease { asker, .. } => *asker,
            Self::Raft { .. } | Self::ForwardReply { .. } | Self::Hello { .. } => NOBODY,
        }
    }

    fn payload(&self) -> &[Bytes] {
        match self {
            Self::Raft { message: _, records } => records,
            Self::Forward { body, .. } => core::slice::from_ref(body),
            Self::ForwardReply { request: _, response } => core::slice::from_ref(response),
            Self::AskLease { .. } | Self::Hello { .. } => &[],
        }
    }

    fn assert_records_match(&self) {
        let Self::Raft { message, records } = self else {
            return;
        };
        let sizes = message.carried_sizes();
        assert!(sizes.len() == records.len(), "each entry of a message has its record, in order");
        for (size, record) in sizes.iter().zip(records) {
            assert!(u32::try_from(record.len()) == Ok(*size), "a record is as long as its entry says");
        }
    }
}

/// Lets rkyv write behind what is already there.
struct EnvelopeWriter(BytesMut);

impl Positional for EnvelopeWriter {
    fn pos(&self) -> usize {
        self.0.len() - HEADER_BYTES
    }
}

impl Writer<rancor::Error> for EnvelopeWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), rancor::Error> {
        self.0.put_slice(bytes);
        Ok(())
    }
}
