//! Requests as frames (PROTOCOL §5).

use super::command::{put_query, query};
use super::cursor::{Cursor, Fault, Malformed};
use super::frame::{Frame, begin_frame, finish_frame};
use super::{kind, watch};
use crate::api::{EncodedCommand, Otherwise, ReadMode, Request, SnapshotRequest, Stamp};
use crate::ids::{KeyspaceId, LeaseId, LogIndex, Revision, SessionId, Term};
use crate::limits::{SNAPSHOT_PIECE_BYTES, WRITE_HEAD_BYTES_MAX};
use bytes::{BufMut, Bytes, BytesMut};

/// The whole frame of a request. `id` is not 0 and not one that is still unanswered.
pub fn encode_request_frame(id: u64, request: &Request) -> Bytes {
    assert!(id != 0, "request id 0 is for what answers no request");
    match request {
        Request::OpenSession { keyspace } => {
            let mut out = begin_frame(4);
            out.put_u32_le(keyspace.0);
            finish_frame(out, kind::OPEN_SESSION, id)
        }
        Request::CloseSession { keyspace, session } => {
            let mut out = begin_frame(12);
            out.put_u32_le(keyspace.0);
            out.put_u64_le(session.0);
            finish_frame(out, kind::CLOSE_SESSION, id)
        }
        Request::Write { keyspace, stamp, command } => {
            let mut out = begin_frame(WRITE_HEAD_BYTES_MAX + command.bytes().len());
            out.put_u32_le(keyspace.0);
            out.put_u8(u8::from(stamp.is_some()));
            if let Some(stamp) = stamp {
                out.put_u64_le(stamp.session.0);
                out.put_u64_le(stamp.sequence);
                out.put_u64_le(stamp.low_water);
            }
            out.put_slice(command.bytes());
            finish_frame(out, kind::WRITE, id)
        }
        Request::Read { keyspace, query, mode } => {
            let mut out = begin_frame(128);
            out.put_u32_le(keyspace.0);
            put_read_mode(&mut out, *mode);
            put_query(&mut out, query);
            finish_frame(out, kind::READ, id)
        }
        Request::KeepAlive { keyspace, lease } => {
            let mut out = begin_frame(12);
            out.put_u32_le(keyspace.0);
            out.put_u64_le(lease.0);
            finish_frame(out, kind::LEASE_KEEP_ALIVE, id)
        }
        Request::TimeToLive { keyspace, lease, wants_keys } => {
            let mut out = begin_frame(13);
            out.put_u32_le(keyspace.0);
            out.put_u64_le(lease.0);
            out.put_u8(u8::from(*wants_keys));
            finish_frame(out, kind::LEASE_TIME_TO_LIVE, id)
        }
        Request::Status => finish_frame(begin_frame(0), kind::STATUS, id),
        Request::Snapshot { keyspace, request } => {
            let mut out = begin_frame(32);
            out.put_u32_le(keyspace.0);
            let SnapshotRequest::Read { index, term, offset, bytes_count } = request else {
                return finish_frame(out, kind::CUT_SNAPSHOT, id);
            };
            out.put_u64_le(index.0);
            out.put_u64_le(term.0);
            out.put_u64_le(*offset);
            out.put_u32_le(*bytes_count);
            finish_frame(out, kind::READ_SNAPSHOT, id)
        }
        Request::Watch(asked) => {
            let mut out = begin_frame(64);
            let kind = watch::put_request(&mut out, asked);
            finish_frame(out, kind, id)
        }
    }
}

/// Reads a request. The command of a write is a slice of the frame's body.
///
/// # Errors
/// Says what was expected, what was found, and at which byte of the body. The connection may go on.
pub fn decode_request(frame: &Frame) -> Result<Request, Malformed> {
    let mut cursor = Cursor::new(&frame.body);
    if frame.request == 0 {
        return Err(cursor.fault(Fault::Unknown { what: "request id", found: 0 }));
    }
    let request = match frame.kind {
        kind::OPEN_SESSION => Request::OpenSession { keyspace: keyspace(&mut cursor)? },
        kind::CLOSE_SESSION => Request::CloseSession {
            keyspace: keyspace(&mut cursor)?,
            session: SessionId(cursor.u64("session")?),
        },
        kind::WRITE => write(&mut cursor)?,
        kind::READ => read(&mut cursor)?,
        kind::STATUS => Request::Status,
        kind::LEASE_KEEP_ALIVE => {
            Request::KeepAlive { keyspace: keyspace(&mut cursor)?, lease: LeaseId(cursor.u64("lease")?) }
        }
        kind::LEASE_TIME_TO_LIVE => Request::TimeToLive {
            keyspace: keyspace(&mut cursor)?,
            lease: LeaseId(cursor.u64("lease")?),
            wants_keys: cursor.bool("wants_keys")?,
        },
        kind::CUT_SNAPSHOT => {
            Request::Snapshot { keyspace: keyspace(&mut cursor)?, request: SnapshotRequest::Cut }
        }
        kind::READ_SNAPSHOT => read_snapshot(&mut cursor)?,
        other => Request::Watch(watch::request(other, &mut cursor)?),
    };
    cursor.finish()?;
    Ok(request)
}

fn keyspace(cursor: &mut Cursor<'_>) -> Result<KeyspaceId, Malformed> {
    cursor.u32("keyspace").map(KeyspaceId)
}

fn write(cursor: &mut Cursor<'_>) -> Result<Request, Malformed> {
    let keyspace = keyspace(cursor)?;
    let stamp = if cursor.bool("stamp presence")? {
        Some(Stamp {
            session: SessionId(cursor.u64("session")?),
            sequence: cursor.u64("sequence")?,
            low_water: cursor.u64("low_water")?,
        })
    } else {
        None
    };
    let command_offset = cursor.offset();
    let command = EncodedCommand::decode_from(cursor.remainder())
        .map_err(|malformed| Malformed { offset: command_offset + malformed.offset, ..malformed })?;
    Ok(Request::Write { keyspace, stamp, command })
}

fn read_snapshot(cursor: &mut Cursor<'_>) -> Result<Request, Malformed> {
    let keyspace = keyspace(cursor)?;
    let (index, term) = (LogIndex(cursor.u64("index")?), Term(cursor.u64("term")?));
    let offset = cursor.u64("offset")?;
    let (limit, bytes_count) = (SNAPSHOT_PIECE_BYTES, cursor.u32("bytes")?);
    let found = usize::try_from(bytes_count).unwrap_or(usize::MAX);
    if found > limit {
        return Err(cursor.fault(Fault::TooMany { what: "bytes of a snapshot", limit, found }));
    }
    Ok(Request::Snapshot { keyspace, request: SnapshotRequest::Read { index, term, offset, bytes_count } })
}

fn put_read_mode(out: &mut BytesMut, mode: ReadMode) {
    let asks = |otherwise: Otherwise| u8::from(otherwise == Otherwise::AskLeader);
    match mode {
        ReadMode::Linearizable => out.put_u8(1),
        ReadMode::Serializable => out.put_u8(2),
        ReadMode::MaxAge { max_age_ms, otherwise } => {
            out.put_u8(4);
            out.put_u32_le(max_age_ms);
            out.put_u8(asks(otherwise));
        }
        ReadMode::MinRevision { revision, otherwise } => {
            out.put_u8(5);
            out.put_u64_le(revision.0);
            out.put_u8(asks(otherwise));
        }
    }
}

fn read_mode(cursor: &mut Cursor<'_>) -> Result<ReadMode, Malformed> {
    let otherwise = |cursor: &mut Cursor<'_>| {
        cursor.bool("asks_leader").map(|asks| if asks { Otherwise::AskLeader } else { Otherwise::Refuse })
    };
    Ok(match cursor.u8("read mode")? {
        1 => ReadMode::Linearizable,
        2 => ReadMode::Serializable,
        4 => ReadMode::MaxAge { max_age_ms: cursor.u32("max_age_ms")?, otherwise: otherwise(cursor)? },
        5 => ReadMode::MinRevision {
            revision: Revision(cursor.u64("revision")?),
            otherwise: otherwise(cursor)?,
        },
        found => return Err(cursor.unknown("read mode", 1, found)),
    })
}

fn read(cursor: &mut Cursor<'_>) -> Result<Request, Malformed> {
    let keyspace = keyspace(cursor)?;
    let mode = read_mode(cursor)?;
    Ok(Request::Read { keyspace, query: query(cursor)?, mode })
}
