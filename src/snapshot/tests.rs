//! What was written is read back whatever the pieces, and nothing else is believed.

use super::part::{Closing, HEADER_BYTES, PartsHash};
use super::*;
use crate::ids::{ClusterId, GroupId, LogIndex, Revision, Term};
use crate::raft::Position;
use bytes::BytesMut;
use std::fmt::Write as _;
use std::path::Path;
use wal_format::{Configuration, Member, MemberKind};

fn opening() -> Opening {
    let member = |id| Member {
        id,
        directory: 0x1000 + id,
        kind: MemberKind::Voter,
        name: String::new(),
        address: String::new(),
    };
    Opening {
        cluster: ClusterId(0xc1),
        group: GroupId::FIRST,
        position: Position { index: LogIndex(42), term: Term(3) },
        state_hash: 0x0123_4567_89ab_cdef,
        revision: Revision(30),
        compacted: Revision(20),
        lease_micros: 0,
        lease_drift_ppm: 0,
        configuration: Configuration { index: 0, members: vec![member(1), member(2)] },
    }
}

/// An opening that tells of a leader's lease.
fn opening_with_lease() -> Opening {
    Opening { lease_micros: 299_700, lease_drift_ppm: 500, ..opening() }
}

/// A snapshot of these parts.
fn snapshot(parts: &[(Kind, &[u8])]) -> (Vec<u8>, Verified) {
    snapshot_of(&opening(), parts)
}

fn snapshot_of(opening: &Opening, parts: &[(Kind, &[u8])]) -> (Vec<u8>, Verified) {
    let mut file = BytesMut::new();
    let mut writer = Writer::new(opening, &mut file);
    for (kind, payload) in parts {
        writer.part(*kind, payload, &mut file);
    }
    let whole = writer.finish(&mut file);
    (file.to_vec(), whole)
}

/// One part alone.
fn encoded(tag: u64, number: u32, kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    let start = part::begin(&mut bytes);
    bytes.extend_from_slice(payload);
    part::end(tag, number, kind, start, &mut bytes).to_vec()
}

const PARTS: &[(Kind, &[u8])] =
    &[(Kind::Sessions, b"who was answered what"), (Kind::Store, b"keys"), (Kind::Store, b"more keys")];

/// What a file is told to be made of, in order.
type Told = Vec<(Kind, Vec<u8>)>;

fn read(file: &[u8], piece_bytes: usize) -> Result<(Told, Verified), Damage> {
    let mut reader = Reader::new();
    let mut parts = Vec::new();
    for piece in file.chunks(piece_bytes) {
        reader.feed(piece, |part| {
            match part {
                Part::Opening(found) => parts.push((Kind::Opening, found.encode())),
                Part::Sessions(payload) => parts.push((Kind::Sessions, payload.to_vec())),
                Part::Users(payload) => parts.push((Kind::Users, payload.to_vec())),
                Part::Store(payload) => parts.push((Kind::Store, payload.to_vec())),
            }
            Ok::<_, Damage>(())
        })?;
    }
    Ok((parts, reader.finish()?))
}

#[test]
fn users_stand_between_sessions_and_the_store() {
    let all: &[(Kind, &[u8])] = &[PARTS[0], (Kind::Users, b"who"), (Kind::Users, b"may what"), PARTS[1]];
    let (parts, _) = read(&snapshot(all).0, usize::MAX).expect("it is whole");
    let kinds: Vec<Kind> = parts.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Kind::Opening, Kind::Sessions, Kind::Users, Kind::Users, Kind::Store]);
    let tag = PartsHash::tag(&opening().encode());
    let head = encoded(tag, 0, Kind::Opening, &opening().encode());
    let late = [head, encoded(tag, 1, Kind::Store, b"keys"), encoded(tag, 2, Kind::Users, b"who")].concat();
    assert_eq!(read(&late, usize::MAX).expect_err("it is late").fault, Fault::OutOfOrder);
}

#[test]
fn what_was_written_is_read_back_in_pieces_of_any_size() {
    let (file, whole) = snapshot(PARTS);
    assert_eq!(whole.bytes_count, file.len() as u64);
    assert!(file.len().is_multiple_of(BLOCK_BYTES));
    for piece_bytes in [1, 7, 32, 100, 4_096, usize::MAX] {
        let (parts, found) = read(&file, piece_bytes).expect("it is whole");
        assert_eq!(found, whole);
        let payloads = PARTS.iter().map(|(kind, payload)| (*kind, payload.to_vec()));
        let expected: Told = core::iter::once((Kind::Opening, opening().encode())).chain(payloads).collect();
        assert_eq!(parts, expected);
    }
}

#[test]
fn a_snapshot_cut_anywhere_is_refused() {
    let (file, _) = snapshot(PARTS);
    for length in 0..file.len() {
        let cut = read(&file[..length], 64).expect_err("it is not whole");
        assert_eq!(cut.fault, Fault::CutShort, "cut at {length}");
    }
    let longer: Vec<u8> = file.iter().copied().chain([0; BLOCK_BYTES]).collect();
    assert_eq!(read(&longer, 64).expect_err("a block too many").fault, Fault::Trailing);
}

#[test]
fn a_snapshot_with_any_bit_flipped_is_refused() {
    let (mut file, _) = snapshot(PARTS);
    for bit in 0..8 * file.len() {
        file[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&file, 1_024).is_err(), "bit {bit}");
        file[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn every_damage_has_a_name_and_a_place() {
    let tag = PartsHash::tag(&opening().encode());
    let first = encoded(tag, 0, Kind::Opening, &opening().encode());
    let after = |part: &[u8]| {
        let file = [&first, part].concat();
        read(&file, 100).expect_err("it is damaged")
    };
    let offset = first.len() as u64;
    let store = |tag, number, kind| encoded(tag, number, kind, b"payload of some length");
    assert_eq!(after(&store(tag, 2, Kind::Store)), Damage { offset, fault: Fault::OutOfOrder });
    assert_eq!(after(&store(tag, 1, Kind::Opening)), Damage { offset, fault: Fault::OutOfOrder });
    assert_eq!(after(&store(tag ^ 1, 1, Kind::Store)), Damage { offset, fault: Fault::Foreign });
    assert_eq!(after(&store(tag, 1, Kind::Closing)), Damage { offset, fault: Fault::BadClosing });
    let mut changed = store(tag, 1, Kind::Store);
    changed[HEADER_BYTES] ^= 1;
    assert_eq!(after(&changed), Damage { offset, fault: Fault::WrongChecksum });
    assert_eq!(after(&[255; 100]), Damage { offset, fault: Fault::ImpossibleLength });
    let sessions_late = [store(tag, 1, Kind::Store), store(tag, 2, Kind::Sessions)].concat();
    assert_eq!(after(&sessions_late).fault, Fault::OutOfOrder);
    let closing = Closing { parts_count: 1, bytes_count: offset, hash: 7 }.encode();
    let wrong_hash = encoded(tag, 1, Kind::Closing, &closing);
    assert_eq!(after(&wrong_hash), Damage { offset, fault: Fault::BadClosing });
    let nothing = encoded(PartsHash::tag(b"nothing"), 0, Kind::Opening, b"nothing");
    assert_eq!(read(&nothing, 100).expect_err("no opening").fault, Fault::BadOpening);
}

#[test]
fn parts_of_two_snapshots_of_one_entry_make_none() {
    let other: &[(Kind, &[u8])] = &[PARTS[0], (Kind::Store, b"KEYS"), PARTS[2]];
    let ((one, _), (two, _)) = (snapshot(PARTS), snapshot(other));
    let differs = one.iter().zip(&two).position(|(one, two)| one != two).expect("they differ");
    let joined = [&one[..differs + 50], &two[differs + 50..]].concat();
    assert_eq!(read(&joined, 512).expect_err("mixed").fault, Fault::BadClosing);
}

#[test]
fn a_file_name_reads_back_as_itself_and_no_other_spelling_does() {
    let position = Position { index: LogIndex(0x2a), term: Term(3) };
    for kind in [FileKind::Part, FileKind::Incoming, FileKind::Whole, FileKind::Distrusted] {
        let name = FileName { group: GroupId(1), position, kind };
        assert_eq!(FileName::parse(&name.text()), Some(name));
    }
    let text = FileName { group: GroupId(1), position, kind: FileKind::Whole }.text();
    assert_eq!(text, "snap-00000001-000000000000002a-0000000000000003.snap");
    for wrong in
        [text.to_uppercase(), text.replace("2a", "2A"), text.replace(".snap", ".snap.part"), String::new()]
    {
        assert_eq!(FileName::parse(&wrong), None, "{wrong}");
    }
}

/// `UPDATE=1 cargo test snapshot` rewrites it; a changed line is a changed format.
#[test]
fn the_bytes_of_a_snapshot_are_those_in_golden() {
    compare_with_golden("snapshot.hex", &snapshot(PARTS).0);
    compare_with_golden("snapshot_with_lease.hex", &snapshot_of(&opening_with_lease(), PARTS).0);
}

#[test]
fn an_opening_tells_of_a_lease_only_if_there_is_one() {
    for (opening, version) in [(opening(), 1), (opening_with_lease(), 2)] {
        let bytes = opening.encode();
        assert_eq!(bytes.get(4..6), Some([version, 0].as_slice()));
        assert_eq!(Opening::decode(&bytes), Some(opening));
    }
}

fn compare_with_golden(name: &str, file: &[u8]) {
    let mut text =
        format!("# A snapshot with two sessions' worth of words: {} bytes, zeros left out\n", file.len());
    for (at, line) in file.chunks(16).enumerate().filter(|(_, line)| line.iter().any(|byte| *byte != 0)) {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{:04x}  {}", 16 * at, hex.join(" ")).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/snapshot/golden").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "a snapshot is no longer what golden/{name} shows; it is now:\n{text}");
}
