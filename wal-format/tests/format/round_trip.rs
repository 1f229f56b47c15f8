//! Whatever is encoded decodes to itself; each seed is another log.

use crate::samples::SALT;
use wal_format::{
    Configuration, EntryHeader, EntryKind, Frame, FrameKind, FrameWriter, GroupTail, HardState, Member,
    MemberKind, Place, Position, Run, RunKind, Section, decode_entry, encode_entry, entry_bytes_count,
};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn small(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).unwrap()
    }

    fn bytes(&mut self, bound: u64) -> Vec<u8> {
        let count = self.below(bound);
        (0..count).map(|_| u8::try_from(self.next() >> 56).unwrap()).collect()
    }
}

fn kind(random: &mut Random) -> EntryKind {
    [
        EntryKind::NoOp,
        EntryKind::Command,
        EntryKind::Configuration,
        EntryKind::OpenSession,
        EntryKind::CloseSession,
        EntryKind::ExpireSession,
        EntryKind::StateCheck,
        EntryKind::Users,
    ][usize::try_from(random.below(8)).unwrap()]
}

fn header(random: &mut Random, group: u32, index: u64, term: u64) -> EntryHeader {
    EntryHeader {
        group,
        term,
        index,
        kind: kind(random),
        keyspace: random.small(),
        session: random.next(),
        sequence: random.next(),
        low_water: random.next(),
        principal: random.small(),
        auth_revision: random.next(),
    }
}

#[test]
fn entries_decode_to_themselves() {
    for seed in 0..2_000 {
        let mut random = Random(seed);
        let (group, index, term) = (random.small(), random.next(), random.next());
        let header = header(&mut random, group, index, term);
        let body = random.bytes(300);
        let mut bytes = Vec::new();
        encode_entry(&header, &body, &mut bytes);
        assert_eq!(bytes.len(), entry_bytes_count(body.len()));
        bytes.extend_from_slice(b"whatever follows");
        assert_eq!(decode_entry(&bytes), Ok((header, body.as_slice())), "seed {seed}");
    }
}

#[test]
fn configurations_decode_to_themselves() {
    for seed in 0..500 {
        let mut random = Random(seed);
        let kinds = [MemberKind::Voter, MemberKind::Outgoing, MemberKind::Learner, MemberKind::Incoming];
        let count = random.below(9);
        let members = (0..count).map(|_| Member {
            id: random.next(),
            directory: random.next(),
            kind: kinds[usize::try_from(random.below(4)).unwrap()],
            name: "n".repeat(usize::try_from(random.below(40)).unwrap()),
            address: "ä".repeat(usize::try_from(random.below(500)).unwrap()),
        });
        let configuration = Configuration { index: 3, members: members.collect() };
        let mut bytes = Vec::new();
        configuration.encode(&mut bytes);
        assert_eq!(Configuration::decode(&bytes), Ok(configuration), "seed {seed}");
    }
}

#[test]
fn frames_decode_to_themselves() {
    for seed in 0..500 {
        let mut random = Random(seed);
        let place = Place {
            segment: random.next(),
            salt: SALT,
            sequence: random.small(),
            previous_hash: random.next(),
        };
        let (group, first, term) = (random.small(), 1 + random.below(1_000_000), random.next() >> 1);
        let count = 1 + random.below(5);
        let run = Run {
            kind: if seed % 2 == 0 { RunKind::Append } else { RunKind::Fill },
            previous: Position { index: first - 1, term: term.saturating_sub(1) },
            first,
            last: first + count - 1,
        };
        let tail = GroupTail {
            group,
            hard_state: HardState { term, vote: random.next(), commit: random.next() },
            last: Position { index: run.last, term },
        };
        let mut entries = Vec::new();
        for index in run.first..=run.last {
            let header = header(&mut random, group, index, term);
            entries.push((header, random.bytes(4_000)));
        }
        let encoded = entries.iter().map(|(header, body)| {
            let mut bytes = Vec::new();
            encode_entry(header, body, &mut bytes);
            bytes
        });
        let records: Vec<Vec<u8>> = encoded.collect();
        let mut frame = FrameWriter::new(FrameKind::Batch, place, 0);
        frame.repeat(&[tail, tail]);
        frame.batch(&tail, Some(&run), records.iter().map(Vec::as_slice));
        let (bytes, hash) = frame.finish();
        let frame = Frame::decode(&bytes, SALT).unwrap();
        assert_eq!((frame.header.place, frame.header.hash), (place, hash));
        let mut sections = frame.sections();
        let Some(Ok(Section::Repeat(tails))) = sections.next() else {
            panic!("seed {seed}: the repeat comes first");
        };
        assert_eq!(tails.collect::<Vec<_>>(), [tail, tail]);
        let Some(Ok(Section::Batch(batch))) = sections.next() else {
            panic!("seed {seed}: then the batch");
        };
        assert_eq!((batch.tail, batch.run), (tail, Some(run)));
        let found = batch.records.map(|record| {
            let record = record.unwrap();
            (record.header, record.body.to_vec())
        });
        assert_eq!(found.collect::<Vec<_>>(), entries, "seed {seed}");
        assert!(sections.next().is_none());
    }
}
