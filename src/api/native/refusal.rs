//! Refusals as bytes: the one table of native codes (PROTOCOL §7, §8).

use super::cursor::{Cursor, Fault, Malformed, put_bytes};
use super::frame::{begin_frame_behind, finish_frame_at};
use super::kind;
use crate::api::{Certainty, Refusal};
use crate::auth::AuthRefusal;
use crate::ids::MemberId;
use crate::kv::StoreRefusal;
use crate::limits::{REFUSAL_ADDRESS_BYTES_MAX, REFUSAL_WORDS_BYTES_MAX};
use bytes::{BufMut, Bytes, BytesMut};

/// The frame of a refusal with words of the caller's choice, such as what exactly is malformed.
///
/// `id` is 0 if it answers no request. Words beyond the limit are cut.
pub fn encode_refusal_frame(id: u64, refusal: Refusal, words: &str) -> Bytes {
    let mut out = BytesMut::new();
    append_refusal_frame(&mut out, id, refusal, words);
    out.freeze()
}

/// The same, behind what `out` holds already.
pub fn append_refusal_frame(out: &mut BytesMut, id: u64, refusal: Refusal, words: &str) {
    let start = begin_frame_behind(out, 64 + words.len());
    put_refusal(out, refusal, words);
    finish_frame_at(out, start, kind::REFUSED, id);
}

pub(super) fn put_refusal(out: &mut BytesMut, refusal: Refusal, words: &str) {
    out.put_u16_le(code(refusal));
    out.put_u8(certainty_code(refusal.certainty()));
    out.put_u64_le(hint(refusal).map_or(0, |leader| leader.0));
    put_bytes(out, b"");
    let cut = words.floor_char_boundary(REFUSAL_WORDS_BYTES_MAX);
    put_bytes(out, words.get(..cut).unwrap_or_default().as_bytes());
}

pub(super) fn refusal(cursor: &mut Cursor<'_>) -> Result<Refusal, Malformed> {
    let code = cursor.u16("refusal code")?;
    let unknown = cursor.unknown("refusal code", 2, code);
    let certainty = cursor.u8("certainty")?;
    let leader = match cursor.u64("leader")? {
        0 => None,
        leader => Some(MemberId(leader)),
    };
    let refusal = refusal_of(code, leader).ok_or(unknown)?;
    require("certainty", certainty_code(refusal.certainty()).into(), certainty.into(), cursor)?;
    let hinted = hint(refusal).map_or(0, |leader| leader.0);
    require("leader", hinted, leader.map_or(0, |leader| leader.0), cursor)?;
    cursor.text("leader_address", REFUSAL_ADDRESS_BYTES_MAX)?;
    cursor.text("words", REFUSAL_WORDS_BYTES_MAX)?;
    Ok(refusal)
}

fn require(what: &'static str, expected: u64, found: u64, cursor: &Cursor<'_>) -> Result<(), Malformed> {
    if found == expected {
        return Ok(());
    }
    Err(cursor.fault(Fault::Mismatch { what, expected, found }))
}

const fn hint(refusal: Refusal) -> Option<MemberId> {
    if let Refusal::NotLeader { leader } = refusal { leader } else { None }
}

const fn certainty_code(certainty: Certainty) -> u8 {
    match certainty {
        Certainty::NotDone => 1,
        Certainty::OutcomeUnknown => 2,
    }
}

const fn code(refusal: Refusal) -> u16 {
    match refusal {
        Refusal::NotLeader { .. } => 1,
        Refusal::NoQuorum => 2,
        Refusal::NotReady => 3,
        Refusal::Overloaded => 4,
        Refusal::Malformed => 5,
        Refusal::NoSuchKeyspace => 6,
        Refusal::TooManySessions => 7,
        Refusal::SessionUnknown => 8,
        Refusal::SequenceForgotten => 9,
        Refusal::SequenceBeyondWindow => 10,
        Refusal::LeaderChanged => 11,
        Refusal::ForwardLost => 12,
        Refusal::AnswerTooLong => 13,
        Refusal::WrongCluster => 14,
        Refusal::NoCommonVersion => 15,
        Refusal::NoSuchWatch => 16,
        Refusal::NoSuchSnapshot => 17,
        Refusal::TooOld => 18,
        Refusal::NotUpgraded => 19,
        Refusal::Users(refusal) => users_code(refusal),
    }
}

const fn users_code(refusal: AuthRefusal) -> u16 {
    match refusal {
        AuthRefusal::RootUserMissing => 2001,
        AuthRefusal::RootRoleMissing => 2002,
        AuthRefusal::UserNameEmpty => 2003,
        AuthRefusal::UserExists => 2004,
        AuthRefusal::UserNotFound => 2005,
        AuthRefusal::RoleNameEmpty => 2006,
        AuthRefusal::RoleExists => 2007,
        AuthRefusal::RoleNotFound => 2008,
        AuthRefusal::RoleNotGranted => 2009,
        AuthRefusal::PermissionNotGranted => 2010,
        AuthRefusal::RootMustStay => 2011,
        AuthRefusal::NotEnabled => 2012,
        AuthRefusal::OldRevision => 2013,
        AuthRefusal::Denied => 2014,
        AuthRefusal::OutOfBounds => 2015,
        AuthRefusal::TooMany => 2016,
    }
}

const fn users_refusal_of(code: u16) -> Option<AuthRefusal> {
    Some(match code {
        2001 => AuthRefusal::RootUserMissing,
        2002 => AuthRefusal::RootRoleMissing,
        2003 => AuthRefusal::UserNameEmpty,
        2004 => AuthRefusal::UserExists,
        2005 => AuthRefusal::UserNotFound,
        2006 => AuthRefusal::RoleNameEmpty,
        2007 => AuthRefusal::RoleExists,
        2008 => AuthRefusal::RoleNotFound,
        2009 => AuthRefusal::RoleNotGranted,
        2010 => AuthRefusal::PermissionNotGranted,
        2011 => AuthRefusal::RootMustStay,
        2012 => AuthRefusal::NotEnabled,
        2013 => AuthRefusal::OldRevision,
        2014 => AuthRefusal::Denied,
        2015 => AuthRefusal::OutOfBounds,
        2016 => AuthRefusal::TooMany,
        _ => return None,
    })
}

const fn refusal_of(code: u16, leader: Option<MemberId>) -> Option<Refusal> {
    Some(match code {
        1 => Refusal::NotLeader { leader },
        2 => Refusal::NoQuorum,
        3 => Refusal::NotReady,
        4 => Refusal::Overloaded,
        5 => Refusal::Malformed,
        6 => Refusal::NoSuchKeyspace,
        7 => Refusal::TooManySessions,
        8 => Refusal::SessionUnknown,
        9 => Refusal::SequenceForgotten,
        10 => Refusal::SequenceBeyondWindow,
        11 => Refusal::LeaderChanged,
        12 => Refusal::ForwardLost,
        13 => Refusal::AnswerTooLong,
        14 => Refusal::WrongCluster,
        15 => Refusal::NoCommonVersion,
        16 => Refusal::NoSuchWatch,
        17 => Refusal::NoSuchSnapshot,
        18 => Refusal::TooOld,
        19 => Refusal::NotUpgraded,
        _ => match users_refusal_of(code) {
            Some(refusal) => Refusal::Users(refusal),
            None => return None,
        },
    })
}

pub(super) const fn store_code(refusal: StoreRefusal) -> u16 {
    match refusal {
        StoreRefusal::KeyMissing => 1001,
        StoreRefusal::Compacted => 1002,
        StoreRefusal::FutureRevision => 1003,
        StoreRefusal::TooManyOperations => 1004,
        StoreRefusal::DuplicateKey => 1005,
        StoreRefusal::LeaseNotFound => 1006,
        StoreRefusal::OutOfBounds => 1007,
        StoreRefusal::WriteInQuery => 1008,
        StoreRefusal::KeyNotFound => 1009,
        StoreRefusal::ValueProvided => 1010,
        StoreRefusal::LeaseProvided => 1011,
        StoreRefusal::LeaseExists => 1012,
        StoreRefusal::TtlOutOfBounds => 1013,
        StoreRefusal::TooManyLeases => 1014,
        StoreRefusal::NoSpace => 1015,
        StoreRefusal::CostsTooMuch => 1016,
    }
}

pub(super) fn store_refusal(cursor: &mut Cursor<'_>) -> Result<StoreRefusal, Malformed> {
    match cursor.u16("store refusal code")? {
        1001 => Ok(StoreRefusal::KeyMissing),
        1002 => Ok(StoreRefusal::Compacted),
        1003 => Ok(StoreRefusal::FutureRevision),
        1004 => Ok(StoreRefusal::TooManyOperations),
        1005 => Ok(StoreRefusal::DuplicateKey),
        1006 => Ok(StoreRefusal::LeaseNotFound),
        1007 => Ok(StoreRefusal::OutOfBounds),
        1008 => Ok(StoreRefusal::WriteInQuery),
        1009 => Ok(StoreRefusal::KeyNotFound),
        1010 => Ok(StoreRefusal::ValueProvided),
        1011 => Ok(StoreRefusal::LeaseProvided),
        1012 => Ok(StoreRefusal::LeaseExists),
        1013 => Ok(StoreRefusal::TtlOutOfBounds),
        1014 => Ok(StoreRefusal::TooManyLeases),
        1015 => Ok(StoreRefusal::NoSpace),
        1016 => Ok(StoreRefusal::CostsTooMuch),
        found => Err(cursor.unknown("store refusal code", 2, found)),
    }
}
