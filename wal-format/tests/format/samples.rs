//! One frame of each kind and one entry of each kind, small enough to read in a dump.

use wal_format::{
    Configuration, EntryHeader, EntryKind, Frame, FrameKind, FrameWriter, GroupOpening, GroupTail, HardState,
    Identity, Member, MemberKind, Place, Position, Reset, Run, RunKind, Section, encode_entry,
};

pub(crate) const SALT: u64 = 0x9f0c_2a51_d07b_e344;

pub(crate) const ENTRY_KINDS: [(EntryKind, &str, &[u8]); 8] = [
    (EntryKind::NoOp, "no-op", b""),
    (EntryKind::Command, "command", b"put a=1"),
    (EntryKind::Configuration, "configuration", b"members"),
    (EntryKind::OpenSession, "open-session", b"client"),
    (EntryKind::CloseSession, "close-session", b""),
    (EntryKind::ExpireSession, "expire-session", b""),
    (EntryKind::StateCheck, "state-check", b"\x01"),
    (EntryKind::Users, "users", b"\x02"),
];

/// A frame of the sample log.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn entry(kind: EntryKind, group: u32, index: u64, term: u64, body: &[u8]) -> Vec<u8> {
    let header = EntryHeader {
        group,
        term,
        index,
        kind,
        keyspace: 0x11,
        session: 0x22,
        sequence: 0x33,
        low_water: 0x32,
        principal: 0x44,
        auth_revision: 0x55,
    };
    let mut bytes = Vec::new();
    encode_entry(&header, body, &mut bytes);
    bytes
}

pub(crate) fn tail(group: u32, term: u64, index: u64) -> GroupTail {
    GroupTail {
        group,
        hard_state: HardState { term, vote: 2, commit: index.saturating_sub(1) },
        last: Position { index, term },
    }
}

pub(crate) fn configuration() -> Configuration {
    let member = |id, kind, name: &str| Member {
        id,
        directory: 0xd0 + id,
        kind,
        name: name.into(),
        address: format!("{name}:2380"),
    };
    Configuration {
        index: 9,
        members: vec![
            member(1, MemberKind::Voter, "one"),
            member(2, MemberKind::Outgoing, "two"),
            member(3, MemberKind::Learner, "three"),
            member(4, MemberKind::Incoming, "four"),
        ],
    }
}

/// An opening, a batch of two groups with a fill, a seal and a reset, chained as in a segment.
pub(crate) fn segment() -> Vec<Sample> {
    let mut place = Place { segment: 1, salt: SALT, sequence: 0, previous_hash: 0 };
    let mut samples = Vec::new();
    let mut finish = |name, place: &mut Place, frame: FrameWriter| {
        let (bytes, hash) = frame.finish();
        place.sequence += 1;
        place.previous_hash = hash;
        samples.push(Sample { name, bytes });
    };
    let identity = Identity { directory: 0xd1, cluster: 0xc1, member: 1, shard: 0 };
    let opening = GroupOpening {
        tail: tail(7, 3, 9),
        snapshot: Position { index: 5, term: 2 },
        counts_for_nothing: false,
        configuration: configuration(),
    };
    let mut frame = FrameWriter::new(FrameKind::Opening, place, 0);
    frame.identity(&identity);
    frame.group_opening(&opening);
    finish("opening", &mut place, frame);

    let mut frame = FrameWriter::new(FrameKind::Batch, place, 0);
    frame.repeat(&[tail(7, 3, 9)]);
    let run = Run { kind: RunKind::Append, previous: Position { index: 9, term: 3 }, first: 10, last: 11 };
    let records = [entry(EntryKind::NoOp, 7, 10, 4, b""), entry(EntryKind::Command, 7, 11, 4, b"put a=1")];
    frame.batch(&tail(7, 4, 11), Some(&run), records.iter().map(Vec::as_slice));
    let run = Run { kind: RunKind::Fill, previous: Position { index: 2, term: 1 }, first: 3, last: 3 };
    let records = [entry(EntryKind::CloseSession, 8, 3, 1, b"")];
    frame.batch(&tail(8, 4, 6), Some(&run), records.iter().map(Vec::as_slice));
    finish("batch", &mut place, frame);

    let mut frame = FrameWriter::new(FrameKind::Seal, place, 0);
    frame.repeat(&[tail(7, 4, 11), tail(8, 4, 6)]);
    finish("seal", &mut place, frame);

    let mut frame = FrameWriter::new(FrameKind::Reset, place, 0);
    frame.repeat(&[tail(7, 4, 11), tail(8, 4, 6)]);
    let snapshot = Position { index: 20, term: 4 };
    frame.reset(&Reset { tail: tail(8, 4, 20), kind: RunKind::Append, snapshot });
    finish("reset", &mut place, frame);
    samples
}

/// All that a frame says, as text, walked to the end.
pub(crate) fn content(frame: &Frame<'_>) -> Result<String, wal_format::Damage> {
    let mut lines = vec![format!("{:?}", frame.header)];
    for section in frame.sections() {
        match section? {
            Section::Identity(identity) => lines.push(format!("{identity:?}")),
            Section::GroupOpening(opening) => lines.push(format!("{opening:?}")),
            Section::Repeat(tails) => lines.push(format!("repeat {:?}", tails.collect::<Vec<_>>())),
            Section::Batch(batch) => {
                lines.push(format!("{:?} {:?}", batch.tail, batch.run));
                for record in batch.records {
                    lines.push(format!("{:x?}", record?));
                }
            }
            Section::Reset(reset) => lines.push(format!("{reset:?}")),
        }
    }
    Ok(lines.join("\n"))
}
