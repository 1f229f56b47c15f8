//! Every cut and every flipped bit: a clean prefix or a named damage, never a panic, never other content.

use crate::samples::{ENTRY_KINDS, SALT, content, entry, segment};
use wal_format::{
    Configuration, Damage, DamageKind, Frame, FrameKind, FrameWriter, Place, Run, RunKind, Section, Sections,
    decode_entry,
};

/// The frames of a segment up to the first damage, as text, and that damage.
fn read(bytes: &[u8]) -> (Vec<String>, Option<Damage>) {
    let mut frames = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let frame = match Frame::decode(rest, SALT) {
            Ok(frame) => frame,
            Err(damage) => return (frames, Some(damage)),
        };
        match content(&frame) {
            Ok(text) => frames.push(text),
            Err(damage) => return (frames, Some(damage)),
        }
        rest = &rest[frame.header.bytes_count..];
    }
    (frames, None)
}

fn sample_bytes() -> Vec<u8> {
    segment().into_iter().flat_map(|sample| sample.bytes).collect()
}

#[test]
fn a_segment_cut_anywhere_is_a_clean_prefix() {
    let bytes = sample_bytes();
    let (whole, damage) = read(&bytes);
    assert_eq!((whole.len(), damage), (4, None));
    for cut in 0..bytes.len() {
        let (frames, damage) = read(&bytes[..cut]);
        assert_eq!(frames, whole[..cut / 4_096]);
        let is_between_frames = cut.is_multiple_of(4_096);
        let expected = if is_between_frames { None } else { Some(DamageKind::CutShort) };
        assert_eq!(damage.map(|damage| damage.kind), expected);
    }
}

#[test]
fn a_segment_with_any_bit_flipped_is_a_clean_prefix_and_a_named_damage() {
    let mut bytes = sample_bytes();
    let (whole, _) = read(&bytes);
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let frame = bit / 8 / 4_096;
        let damaged = Frame::decode(&bytes[frame * 4_096..], SALT);
        assert!(damaged.is_err(), "bit {bit} is noticed");
        if bit % 61 == 0 {
            let (frames, damage) = read(&bytes);
            assert_eq!(frames, whole[..frame]);
            assert!(damage.is_some());
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn an_entry_cut_or_flipped_anywhere_is_a_named_damage() {
    for (kind, _, body) in ENTRY_KINDS {
        let mut bytes = entry(kind, 1, 2, 3, body);
        for cut in 0..bytes.len() {
            assert_eq!(decode_entry(&bytes[..cut]).unwrap_err().kind, DamageKind::CutShort);
        }
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_entry(&bytes).is_err(), "bit {bit} is noticed");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn another_salt_is_another_segment() {
    let bytes = sample_bytes();
    let damage = Frame::decode(&bytes, SALT + 1).unwrap_err();
    assert_eq!(damage.kind, DamageKind::OtherSalt);
    let mut resalted = bytes;
    resalted[32..40].copy_from_slice(&(SALT + 1).to_le_bytes());
    let damage = Frame::decode(&resalted, SALT + 1).unwrap_err();
    assert_eq!(damage.kind, DamageKind::WrongChecksum, "the checksum knows the salt as well");
}

/// One group's batch whose records are not the ones it announces.
fn broken_batch(records: &[Vec<u8>], first: u64, last: u64) -> DamageKind {
    let place = Place { segment: 1, salt: SALT, sequence: 0, previous_hash: 0 };
    let mut frame = FrameWriter::new(FrameKind::Batch, place, 0);
    let run =
        Run { kind: RunKind::Append, previous: wal_format::Position { index: 4, term: 2 }, first, last };
    let tail = crate::samples::tail(7, 2, last);
    frame.batch(&tail, Some(&run), records.iter().map(Vec::as_slice));
    let (bytes, _) = frame.finish();
    let frame = Frame::decode(&bytes, SALT).expect("the envelope is sound");
    content(&frame).expect_err("the content is not").kind
}

#[test]
fn a_run_holds_exactly_what_it_announces() {
    let kind = wal_format::EntryKind::NoOp;
    let one = |index, term| entry(kind, 7, index, term, b"");
    assert_eq!(broken_batch(&[one(5, 2)], 5, 6), DamageKind::CutShort);
    assert_eq!(broken_batch(&[one(5, 2), one(6, 2)], 5, 5), DamageKind::ImpossibleLength);
    assert_eq!(broken_batch(&[one(6, 2)], 5, 5), DamageKind::Contradiction);
    assert_eq!(broken_batch(&[one(5, 1)], 5, 5), DamageKind::Contradiction);
    assert_eq!(broken_batch(&[one(6, 2)], 6, 6), DamageKind::Contradiction);
    assert_eq!(broken_batch(&[], 5, 4), DamageKind::Contradiction);
    assert_eq!(broken_batch(&[entry(kind, 8, 5, 2, b"")], 5, 5), DamageKind::Contradiction);
    let mut rotted = one(5, 2);
    rotted[40] ^= 1;
    assert_eq!(broken_batch(&[rotted], 5, 5), DamageKind::WrongChecksum);
}

#[test]
fn a_claimed_count_allocates_nothing() {
    let mut bytes = Vec::new();
    Configuration::default().encode(&mut bytes);
    bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let damage = Configuration::decode(&bytes).unwrap_err();
    assert_eq!(damage.kind, DamageKind::ImpossibleLength);
}

#[test]
fn no_section_bytes_make_the_decoder_panic() {
    let mut state = 1_u64;
    for sample in segment() {
        for _ in 0..3_000 {
            let mut body = sample.bytes[48..].to_vec();
            for _ in 0..4 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = usize::try_from(state >> 33).unwrap() % 700;
                body[at] = u8::try_from(state >> 24 & 0xff).unwrap();
            }
            walk(&body);
        }
    }
}

/// Walks the bytes as each thing that can be decoded on its own.
fn walk(bytes: &[u8]) {
    let _ = Configuration::decode(bytes);
    let _ = decode_entry(bytes);
    let _ = Frame::decode(bytes, SALT);
    for section in Sections::of_body(bytes) {
        if let Ok(Section::Batch(batch)) = section {
            assert!(batch.records.count() <= bytes.len(), "records end");
        }
    }
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let mut bytes = sample_bytes();
    bytes.truncate(4_096);
    bytes[8] += 1;
    assert_eq!(Frame::decode(&bytes, SALT).unwrap_err().kind, DamageKind::WrongChecksum);
    let salted = crc32c::crc32c(&SALT.to_le_bytes());
    let checksum = crc32c::crc32c_append(salted, &bytes[8..]).to_le_bytes();
    bytes[4..8].copy_from_slice(&checksum);
    assert_eq!(Frame::decode(&bytes, SALT).unwrap_err().kind, DamageKind::UnknownVersion(2));
}
