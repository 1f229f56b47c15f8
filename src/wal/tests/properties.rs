//! Any bytes at all as a log: forged frames, entries, sections and names, under checksums that hold (test-only).
//!
//! A sound log is taken, some of its bytes are changed, and the checksums of frames and entries are made right again, so
//! that what looks at bytes behind a checksum is reached too. Whatever stands there, recovery ends, says the same
//! again, and what it says is a log that the core can start from.

use super::*;
use crate::property;
use crate::raft::{Config, Node};
use wal_format::{Configuration, Frame, Sections, decode_entry, parse_segment_file_name, segment_file_name};

/// Where a frame keeps its checksum, and from where on it counts (FORMAT.md).
const CHECKSUM: core::ops::Range<usize> = 4..8;

/// Makes the checksum of the frame at `offset` right, if there is one.
fn seal_frame(bytes: &mut [u8], offset: usize, salt: u64) {
    let Some(blocks) = bytes.get(offset + 12..offset + 16).and_then(|four| four.try_into().ok()) else {
        return;
    };
    let length = BLOCK_BYTES.saturating_mul(u32::from_le_bytes(blocks) as usize);
    let Some(frame) = bytes.get_mut(offset..offset.saturating_add(length)) else { return };
    if frame.len() > CHECKSUM.end {
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &frame[CHECKSUM.end..]);
        frame[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// Starts the core from everything that was found: as one of three, and alone, where it leads and writes on.
fn start_the_core(found: &Recovered) {
    for group in found.groups.values() {
        for voters_count in [3, 1] {
            let config = Config {
                id: MemberId(1),
                voters: (1..=voters_count).map(MemberId).collect(),
                election_micros: 1_000,
                heartbeat_micros: 100,
                seed: 1,
                noop_bytes: 64,
                lease_micros: 0,
                persist_bytes_max: 1_000_000,
            };
            let mut node = Node::new(config, group.log.clone(), BootMicros(0));
            let mut out = Vec::new();
            for micros in (0..20_000).step_by(1_000).map(BootMicros) {
                node.tick(micros, &mut out);
                if let Some(persist) = node.persist(micros) {
                    node.persisted(micros, persist.mark, &mut out);
                }
                node.assert_invariants();
            }
        }
    }
}

#[test]
fn a_log_with_forged_frames_is_recovered_to_something_the_core_can_start_from() {
    let sound = eventful();
    property::hold(1_500, |seed| {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        let mut disk = sound.disk.clone();
        for _ in 0..=seeded(&mut state) % 3 {
            // What stands last has the last word on votes and ends.
            let last = sound.frames.len() - 1;
            let place = usize::try_from(seeded(&mut state)).unwrap() % (2 * sound.frames.len());
            let (segment, offset, length) = sound.frames[place.min(last)];
            let Some((salt, bytes)) = disk.get_mut(&segment) else { continue };
            let offset = usize::try_from(offset).unwrap();
            // Most of a frame is padding; what says something stands at its beginning.
            let said = length.min([120, 400][usize::from(seeded(&mut state).is_multiple_of(2))]);
            property::mutate(&mut bytes[offset..offset + said], || seeded(&mut state));
            seal_frame(bytes, offset, *salt);
        }
        let recovered = || {
            let segments: Vec<FoundSegment<'_>> = disk
                .iter()
                .map(|(number, (salt, bytes))| FoundSegment {
                    number: SegmentNumber(*number),
                    salt: *salt,
                    bytes,
                    shared: None,
                })
                .collect();
            recover(OPTIONS, &segments, &BTreeMap::new())
        };
        let found = recovered();
        assert_eq!(found, recovered(), "the answer depends on the bytes alone");
        if let Ok(found) = found {
            start_the_core(&found);
            Wal::resume(OPTIONS, &found, 1);
        }
    });
}

#[test]
fn any_bytes_as_frame_entry_section_or_configuration_are_refused_or_sound() {
    let sound = eventful();
    property::hold(3_000, |seed| {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        let place = usize::try_from(seeded(&mut state)).unwrap() % sound.frames.len();
        let (segment, offset, length) = sound.frames[place];
        let (salt, bytes) = &sound.disk[&segment];
        let offset = usize::try_from(offset).unwrap();
        let mut frame = bytes[offset..offset + length].to_vec();
        property::mutate(&mut frame[..length.min(400)], || seeded(&mut state));
        seal_frame(&mut frame, 0, *salt);
        if let Ok(decoded) = Frame::decode(&frame, *salt) {
            assert!(decoded.header.bytes_count <= frame.len(), "a frame claims no more than there is");
            assert!(decoded.sections().count() <= frame.len(), "sections end");
        }
        let body = &frame[wal_format::FRAME_HEADER_BYTES..];
        assert!(Sections::of_body(body).count() <= body.len(), "sections end");
        let _ = decode_entry(body);
        let _ = Configuration::decode(body);
    });
}

#[test]
fn an_entry_forged_under_a_good_checksum_is_refused_or_encoded_the_same_again() {
    let mut accepted = 0;
    let tried = property::hold(20_000, |seed| {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        let size = usize::try_from(seeded(&mut state) % 40).unwrap();
        let mut bytes = record(ONE, 1 + seed % 9, 1, size).to_vec();
        property::mutate(&mut bytes, || seeded(&mut state));
        // An entry begins with its checksum, which covers all that follows.
        let checksum = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        if let Ok((header, body)) = decode_entry(&bytes) {
            let mut again = Vec::new();
            encode_entry(&header, body, &mut again);
            assert_eq!(again, bytes, "an entry has one encoding");
            accepted += 1;
        }
    });
    assert!(tried < 20_000 || accepted > 1_000, "forgeries reach past the checksum");
}

#[test]
fn a_name_is_refused_or_is_the_only_name_of_its_segment() {
    property::hold(20_000, |seed| {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        let sound =
            wal_format::SegmentName { shard: 3, number: seeded(&mut state), salt: seeded(&mut state) };
        let mut bytes = segment_file_name(&sound).into_bytes();
        property::mutate(&mut bytes, || seeded(&mut state));
        let name = String::from_utf8_lossy(&bytes);
        if let Some(parsed) = parse_segment_file_name(&name) {
            assert_eq!(segment_file_name(&parsed), name, "a segment has one name");
        }
    });
}
