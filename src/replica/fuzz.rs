//! Garbage and chance into every input of running shards: whatever comes in, nothing panics and nothing is forgotten.
//!
//! Always: what is not from the cluster changes nothing; any command leaves all members equal; a stamped write runs
//! once, in whatever order and at whichever member its retries arrive. A message that a real member could have sent
//! may depose a leader: of a forged one is asked only that nobody panics. Left out: faults of disks and
//! networks (`sim`), and raft's own fuzzing (`raft`).

use super::freshness::ANY_MODES;
use super::test_cluster::{Cluster, ELECTION_MICROS, get, put, revision_of, value_of};
use super::{Input, Shard};
use crate::api::{EncodedCommand, ReadMode, Refusal, Request, Response, Stamp};
use crate::auth::Who;
use crate::auth::properties::any_command;
use crate::ids::{
    AuthRevision, ClusterId, DirectoryId, GroupId, KeyspaceId, LogIndex, MemberId, Principal, SessionId, Term,
};
use crate::kv::properties::{ALARM_NUMBERS, Random};
use crate::kv::{Command, KeyRange, Outcome, Put, Query, Range, SpaceAlarm};
use crate::limits::SESSION_WINDOW;
use crate::peer::{self, Body, ForwardStamp, Frame};
use crate::property;
use crate::raft::{
    AppendReply, AppendRequest, AppendResult, Entry, FillReply, FillRequest, Message, Position, PreVoteReply,
    PreVoteRequest, ReadIndexReply, ReadIndexRequest, TimeoutNow, VoteReply, VoteRequest,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use wal_format::{EntryHeader, EntryKind};

const MEMBERS: [MemberId; 3] = [MemberId(1), MemberId(2), MemberId(3)];
const EXTREMES: [u64; 8] = [0, 1, 2, 3, SESSION_WINDOW, SESSION_WINDOW + 1, u64::MAX - 1, u64::MAX];

/// A founded cluster with a leader and a few entries, and what is needed to speak as its members do.
struct Field {
    cluster: Cluster,
    random: Random,
    cluster_id: ClusterId,
    directories: BTreeMap<MemberId, DirectoryId>,
}

impl Field {
    fn new(seed: u64) -> Self {
        let mut cluster = Cluster::of(3);
        cluster.advance(3 * ELECTION_MICROS);
        for member in MEMBERS {
            let response = cluster.ask(member, put("before", "garbage", None));
            assert!(revision_of(&response).0 > 1, "a quiet cluster serves");
        }
        let frames: Vec<Frame> = cluster
            .sent
            .iter()
            .map(|bytes| peer::decode(bytes).expect("members send whole frames"))
            .collect();
        let directories = frames.iter().map(|frame| (frame.from, frame.from_directory)).collect();
        let cluster_id = frames.last().expect("members talk").cluster;
        Self { cluster, random: Random::new(seed), cluster_id, directories }
    }

    fn number(&mut self) -> u64 {
        self.random.below(1 << 32) << 32 | self.random.below(1 << 32)
    }

    fn extreme(&mut self) -> u64 {
        if self.random.one_in(4) { self.number() } else { self.random.one_of(&EXTREMES) }
    }

    fn garbage(&mut self, length_max: u64) -> Bytes {
        let length = self.random.below(length_max + 1);
        (0..length).map(|_| self.random.below(256).to_le_bytes()[0]).collect()
    }

    fn member(&mut self) -> MemberId {
        self.random.one_of(&MEMBERS)
    }

    /// A member, and another one.
    fn pair(&mut self) -> (MemberId, MemberId) {
        let from = self.member();
        let to = MemberId((from.0 + self.random.below(2)) % 3 + 1);
        (from, to)
    }

    /// A frame that only a member of the cluster could have sent.
    fn frame(&self, from: MemberId, to: MemberId, body: Body) -> Frame {
        Frame {
            cluster: self.cluster_id,
            group: GroupId::FIRST,
            from,
            to,
            from_directory: self.directories[&from],
            to_directory: self.directories[&to],
            body,
        }
    }

    fn push(&mut self, to: MemberId, input: Input) {
        self.cluster.inputs.entry(to).or_default().push(input);
    }

    fn deliver(&mut self, frame: &Frame) {
        self.push(frame.to, Input::Peer { from: frame.from, frame: peer::encode(frame) });
    }

    /// All that is known of all members, in words.
    fn observed(&self) -> Vec<String> {
        self.cluster.shards.values().flat_map(Shard::observe).map(|replica| format!("{replica:?}")).collect()
    }

    /// Whether this input has no effect on `member` whatever, while no time passes.
    fn is_ignored(&mut self, member: MemberId, input: Input) -> bool {
        let before = self.observed();
        let now = self.cluster.now;
        let mut outputs = Vec::new();
        let shard = self.cluster.shards.get_mut(&member).expect("a member of the cluster");
        shard.turn(now, &mut vec![input], &mut outputs);
        outputs.is_empty() && self.observed() == before
    }

    /// After whatever happened: a write at any member is read at any other, once nobody has an alarm raised.
    fn assert_serves(&mut self) {
        self.cluster.advance(10 * ELECTION_MICROS);
        for number in 0..ALARM_NUMBERS {
            let alarm = SpaceAlarm { by_hand: Some(number), is_raised: false };
            let command = EncodedCommand::encode(&Command::SpaceAlarm(alarm)).expect("an alarm is short");
            let write = Request::Write { keyspace: KeyspaceId::FIRST, stamp: None, command };
            self.cluster.ask_as(Who::Cluster, MemberId(1), write);
        }
        for (writer, reader, value) in [(1, 2, "one"), (2, 3, "two"), (3, 1, "three")] {
            let written = self.cluster.ask_as(Who::Cluster, MemberId(writer), put("after", value, None));
            assert!(revision_of(&written).0 > 1, "the cluster takes writes");
            let read = self.cluster.ask_as(Who::Cluster, MemberId(reader), get("after"));
            assert_eq!(value_of(&read), Some(Bytes::from_static(value.as_bytes())));
        }
        self.assert_equal_members();
    }

    fn assert_equal_members(&mut self) {
        self.cluster.advance(ELECTION_MICROS);
        let states: Vec<_> = self
            .cluster
            .shards
            .values()
            .flat_map(Shard::observe)
            .map(|replica| (replica.applied, replica.revision, replica.state_hash))
            .collect();
        assert!(states.iter().all(|state| *state == states[0]), "all members are equal: {states:?}");
    }

    fn stamp(&mut self) -> Option<Stamp> {
        let stamp =
            Stamp { session: SessionId(self.extreme()), sequence: self.extreme(), low_water: self.extreme() };
        (!self.random.one_in(4)).then_some(stamp)
    }

    fn command(&mut self) -> EncodedCommand {
        loop {
            if let Ok(command) = EncodedCommand::encode(&self.random.command()) {
                return command;
            }
        }
    }

    /// What an entry is for, and a body that may fit.
    fn kind_and_body(&mut self) -> (u8, Bytes) {
        let kind = self.random.below(128).to_le_bytes()[0];
        let kind = self.random.one_of(&[0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 14, 14, kind]);
        let body = if self.random.one_in(2) {
            self.garbage(40)
        } else if kind == EntryKind::Users.number() {
            Bytes::from(crate::auth::encode_command(&any_command(&mut self.random)))
        } else {
            self.command().bytes().clone()
        };
        (kind, body)
    }

    fn asker(&mut self) -> (Principal, AuthRevision) {
        let principal = self.random.one_of(&[0, 0, 1, 2, u32::MAX]);
        (Principal(principal), AuthRevision(if principal == 0 { 0 } else { self.extreme() }))
    }

    fn request(&mut self) -> Request {
        let keyspace = KeyspaceId(self.random.one_of(&[0, 1, 1, 1, 1, 2, u32::MAX]));
        match self.random.below(6) {
            0 => Request::OpenSession { keyspace },
            1 => Request::CloseSession { keyspace, session: SessionId(self.extreme()) },
            2 => Request::Read { keyspace, query: self.random.query(), mode: self.random.one_of(&ANY_MODES) },
            3 => Request::Status,
            _ => Request::Write { keyspace, stamp: self.stamp(), command: self.command() },
        }
    }

    fn forward(&mut self) -> Body {
        let (kind, body) = self.kind_and_body();
        let stamp = self.stamp().map(|stamp| ForwardStamp {
            session: stamp.session,
            sequence: stamp.sequence,
            low_water: stamp.low_water,
        });
        Body::Forward {
            // A number that a member will use itself would make its own forward look like an old one.
            request: self.number(),
            term: Term(self.random.below(4)),
            kind,
            keyspace: KeyspaceId(self.random.one_of(&[1, 0, 0, 0, u32::MAX])),
            stamp,
            asker: self.asker(),
            body,
        }
    }

    fn hello(&mut self) -> Body {
        let count = self.random.below(6);
        let recorded = (0..count).map(|_| (MemberId(self.extreme()), DirectoryId(self.extreme()))).collect();
        Body::Hello {
            incarnation: self.extreme(),
            is_started: self.random.one_in(2),
            recorded,
            your_directory: DirectoryId(self.extreme()),
        }
    }
}

/// Spoils one thing of a sound frame; `None` if chance left it sound.
fn spoil(field: &mut Field, sound: &Bytes) -> Option<(MemberId, Input)> {
    let mut frame = peer::decode(sound).expect("members send whole frames");
    let (from, to) = (frame.from, frame.to);
    if matches!(frame.body, Body::Hello { .. }) {
        return None;
    }
    let other = field.number();
    match field.random.below(8) {
        0 => {
            let mut bytes = sound.to_vec();
            let at = usize::try_from(field.random.below(bytes.len() as u64)).expect("a place in a frame");
            bytes[at] ^= 1 << field.random.below(8);
            return Some((to, Input::Peer { from, frame: Bytes::from(bytes) }));
        }
        1 => {
            let kept = usize::try_from(field.random.below(sound.len() as u64)).expect("a place in a frame");
            return Some((to, Input::Peer { from, frame: sound.slice(..kept) }));
        }
        2 => return Some((to, Input::Peer { from, frame: field.garbage(300) })),
        3 => frame.cluster = ClusterId(other),
        4 => frame.group = GroupId(field.random.one_of(&[0, 2, u32::MAX])),
        5 => frame.from = MemberId(other),
        6 => frame.from_directory = DirectoryId(other),
        _ => frame.to_directory = DirectoryId(other),
    }
    // A stranger may also come over a connection of its own.
    let connection = if field.random.one_in(2) { frame.from } else { from };
    Some((to, Input::Peer { from: connection, frame: peer::encode(&frame) }))
}

#[test]
fn a_record_is_all_of_its_entry_and_fits_in_a_write() {
    let header = EntryHeader {
        group: GroupId::FIRST.0,
        term: 3,
        index: 7,
        kind: EntryKind::NoOp,
        keyspace: 0,
        session: 0,
        sequence: 0,
        low_water: 0,
        principal: 0,
        auth_revision: 0,
    };
    let mut record = Vec::new();
    wal_format::encode_entry(&header, b"body", &mut record);
    let bytes_count = u32::try_from(record.len()).expect("a small record");
    let entry = Entry { index: LogIndex(7), term: Term(3), bytes_count };
    let previous = Position { index: LogIndex(6), term: Term(3) };
    let message = Message::AppendRequest(AppendRequest {
        term: Term(3),
        session: 1,
        previous,
        entries: vec![entry],
        commit: LogIndex(0),
        round: 0,
    });
    let carries = |record: &[u8], bytes_max| {
        let records = [Bytes::copy_from_slice(record)];
        super::entries::carries_its_entries(GroupId::FIRST, &message, &records, bytes_max)
    };
    assert!(carries(&record, record.len()));
    assert!(!carries(&record, record.len() - 1), "no write could hold it");
    assert!(!carries(&[&record[..], b"more"].concat(), 1_000), "what is behind it is no part of it");
    assert!(!carries(&record[..record.len() - 1], 1_000));
}

#[test]
fn what_is_not_from_the_cluster_changes_nothing() {
    property::hold(4, |seed| {
        let mut field = Field::new(seed);
        let sent: Vec<Bytes> = field.cluster.sent.iter().cloned().collect();
        for sound in sent.iter().cycle().take(1_500) {
            let Some((member, input)) = spoil(&mut field, sound) else { continue };
            assert!(field.is_ignored(member, input.clone()), "seed {seed}: {input:?} changed something");
        }
        field.assert_serves();
    });
}

#[test]
fn a_completion_nobody_asked_for_changes_nothing() {
    let mut field = Field::new(1);
    for _ in 0..100 {
        let member = field.member();
        assert!(field.is_ignored(member, Input::Written));
    }
    field.assert_serves();
}

#[test]
fn a_cluster_serves_on_after_any_forwards_hellos_and_requests() {
    property::hold(6, |seed| {
        let mut field = Field::new(seed);
        let mut asked = Vec::new();
        for _ in 0..400 {
            let (from, to) = field.pair();
            let body = match field.random.below(4) {
                0 => field.forward(),
                1 => Body::ForwardReply { request: field.extreme(), response: field.garbage(60) },
                2 => field.hello(),
                _ => {
                    let request = field.request();
                    asked.push(field.cluster.submit(to, request));
                    continue;
                }
            };
            let frame = field.frame(from, to, body);
            field.deliver(&frame);
            if field.random.one_in(20) {
                let stranger = Some(MemberId(field.extreme().saturating_add(4)));
                field.push(to, Input::HandOver { to: stranger });
            }
            if field.random.one_in(8) {
                field.cluster.settle();
            }
        }
        field.assert_serves();
        for ticket in asked {
            assert!(field.cluster.replies.contains_key(&ticket), "seed {seed}: every request is answered");
        }
    });
}

/// Numbers around those that the cluster is at, and some that it is not.
fn near(field: &mut Field) -> u64 {
    match field.random.below(20) {
        0 => 0,
        1 => field.random.below(1 << 40),
        2 => field.extreme(),
        _ => field.random.below(10),
    }
}

fn position(field: &mut Field) -> Position {
    Position { index: LogIndex(near(field)), term: Term(near(field)) }
}

/// Entries after `previous`, and records that mostly are theirs.
fn entries(field: &mut Field, previous: Position) -> (Vec<Entry>, Vec<Bytes>) {
    let count = field.random.below(4);
    let (mut entries, mut records) = (Vec::new(), Vec::new());
    let mut term = previous.term.0;
    for place in 1..=count {
        let index = previous.index.0.saturating_add(place);
        if index == u64::MAX {
            break;
        }
        term = term.saturating_add(field.random.below(2));
        let is_theirs = !field.random.one_in(10);
        let header = EntryHeader {
            group: GroupId::FIRST.0,
            term: if is_theirs { term } else { near(field) },
            index: if is_theirs { index } else { near(field) },
            kind: field.random.one_of(&[EntryKind::NoOp, EntryKind::Command, EntryKind::OpenSession]),
            keyspace: KeyspaceId::FIRST.0,
            session: near(field),
            sequence: field.extreme(),
            low_water: field.extreme(),
            principal: 0,
            auth_revision: 0,
        };
        let mut record = Vec::new();
        // Now and then one that is too long for any write to this log.
        let body = if field.random.one_in(500) { Bytes::from(vec![7; 1_100_000]) } else { field.garbage(20) };
        wal_format::encode_entry(&header, &body, &mut record);
        if field.random.one_in(20) {
            record.extend_from_slice(&field.garbage(20));
        }
        let bytes_count = u32::try_from(record.len()).expect("a small record");
        entries.push(Entry { index: LogIndex(index), term: Term(term), bytes_count });
        records.push(Bytes::from(record));
    }
    (entries, records)
}

fn message(field: &mut Field) -> (Message, Vec<Bytes>) {
    let (term, other) = (Term(near(field)), Term(near(field)));
    let (previous, last) = (position(field), position(field));
    let (request, is_granted) = (near(field), field.random.one_in(2));
    let index = LogIndex(near(field));
    let mut records = Vec::new();
    let message = match field.random.below(11) {
        0 => Message::PreVoteRequest(PreVoteRequest { term, last }),
        1 => Message::PreVoteReply(PreVoteReply { term, asked: other, is_granted }),
        2 => Message::VoteRequest(VoteRequest { term, last, is_transfer: field.random.one_in(2) }),
        3 => Message::VoteReply(VoteReply { term, is_granted }),
        4 => {
            let (entries, theirs) = entries(field, previous);
            records = theirs;
            let session = near(field);
            Message::AppendRequest(AppendRequest {
                term,
                session,
                previous,
                entries,
                commit: index,
                round: request,
            })
        }
        5 => {
            let result = if is_granted {
                AppendResult::Matched { upto: index }
            } else {
                AppendResult::Conflict { rejected: index, hint: last }
            };
            Message::AppendReply(AppendReply { term, session: near(field), round: request, result })
        }
        6 => Message::TimeoutNow(TimeoutNow { term, last: index }),
        7 => Message::ReadIndexRequest(ReadIndexRequest { term, request }),
        8 => Message::ReadIndexReply(ReadIndexReply { term, request, index: is_granted.then_some(index) }),
        9 => Message::FillRequest(FillRequest { term, previous, last }),
        _ => {
            let (entries, theirs) = entries(field, previous);
            records = theirs;
            Message::FillReply(FillReply { term, last, previous, entries })
        }
    };
    (message, records)
}

#[test]
fn a_forged_raft_message_makes_nobody_panic() {
    property::hold(60, |seed| {
        let mut field = Field::new(seed);
        for _ in 0..60 {
            let (from, to) = field.pair();
            let (message, records) = message(&mut field);
            let frame = field.frame(from, to, Body::Raft { message, records });
            field.deliver(&frame);
            if field.random.one_in(4) {
                let member = field.member();
                let request = field.request();
                field.cluster.submit(member, request);
            }
            if field.random.one_in(3) {
                let micros = field.random.below(ELECTION_MICROS);
                field.cluster.advance(micros);
            }
        }
        field.cluster.advance(5 * ELECTION_MICROS);
    });
}

#[test]
fn any_commands_leave_all_members_equal_and_each_is_answered_once() {
    property::hold(10, |seed| {
        let mut field = Field::new(seed);
        let opened = field.cluster.ask(MemberId(2), Request::OpenSession { keyspace: KeyspaceId::FIRST });
        let Response::SessionOpened { session } = opened else { panic!("a session opens, got {opened:?}") };
        let mut asked = Vec::new();
        for _ in 0..200 {
            let member = field.member();
            let mut stamp = field.stamp();
            if let Some(stamp) = &mut stamp
                && field.random.one_in(2)
            {
                stamp.session = session;
            }
            let command = field.command();
            let request = Request::Write { keyspace: KeyspaceId::FIRST, stamp, command };
            asked.push(field.cluster.submit(member, request));
            if field.random.one_in(6) {
                field.cluster.settle();
            }
        }
        field.assert_equal_members();
        for ticket in asked {
            assert!(field.cluster.replies.contains_key(&ticket), "seed {seed}: every request is answered");
        }
        field.assert_serves();
    });
}

/// What a session must answer: the first response of each sequence, for as long as it is remembered.
#[derive(Default)]
struct SessionModel {
    low_water: u64,
    responses: BTreeMap<u64, Response>,
    /// Every sequence that ever ran.
    ran: Vec<u64>,
}

impl SessionModel {
    /// Checks one answer, and takes it in if the write ran.
    fn check(&mut self, stamp: Stamp, response: &Response) {
        self.low_water = self.low_water.max(stamp.low_water);
        self.responses.retain(|sequence, _| *sequence > self.low_water);
        if stamp.sequence <= self.low_water {
            assert_eq!(*response, Response::Refused(Refusal::SequenceForgotten), "{stamp:?}");
        } else if let Some(first) = self.responses.get(&stamp.sequence) {
            assert_eq!(response, first, "a retry gets the first answer: {stamp:?}");
        } else if stamp.sequence - self.low_water > SESSION_WINDOW {
            assert_eq!(*response, Response::Refused(Refusal::SequenceBeyondWindow), "{stamp:?}");
        } else {
            let Response::Applied(applied) = response else { panic!("{stamp:?} runs, got {response:?}") };
            assert!(matches!(applied.outcome, Outcome::Put(_)), "a put is answered as one");
            self.responses.insert(stamp.sequence, response.clone());
            self.ran.push(stamp.sequence);
        }
    }
}

fn key_of(stamp: Stamp) -> Bytes {
    Bytes::from(format!("{}/{}", stamp.session, stamp.sequence))
}

/// A write of the key that belongs to the stamp, each attempt with a value of its own.
fn stamped_put(stamp: Stamp, attempt: u64) -> Request {
    let value = Bytes::from(attempt.to_string());
    let put = Put { wants_previous: true, ..Put::new(key_of(stamp), value) };
    let command = EncodedCommand::encode(&Command::Put(put)).expect("a small command");
    Request::Write { keyspace: KeyspaceId::FIRST, stamp: Some(stamp), command }
}

fn version_of(field: &mut Field, key: Bytes) -> Option<u64> {
    let range = KeyRange::Key(key);
    let range = Range { keys_only: true, ..Range::new(range) };
    let read = Request::Read {
        keyspace: KeyspaceId::FIRST,
        query: Query::Range(range),
        mode: ReadMode::Linearizable,
    };
    let member = field.member();
    let Response::Applied(applied) = field.cluster.ask(member, read) else { panic!("a read is served") };
    let Outcome::Range(range) = applied.outcome else { panic!("a range is answered as one") };
    range.pairs.first().map(|pair| pair.version)
}

#[test]
fn a_stamped_write_runs_once_however_its_retries_arrive() {
    property::hold(6, |seed| {
        let mut field = Field::new(seed);
        let mut models = BTreeMap::new();
        for member in MEMBERS {
            let opened = field.cluster.ask(member, Request::OpenSession { keyspace: KeyspaceId::FIRST });
            let Response::SessionOpened { session } = opened else { panic!("a session opens") };
            models.insert(session, SessionModel::default());
        }
        let sessions: Vec<SessionId> = models.keys().copied().collect();
        for attempt in 0..600 {
            let session = field.random.one_of(&sessions);
            let model = models.get_mut(&session).expect("a session of ours");
            let ahead = if field.random.one_in(30) { SESSION_WINDOW - 2 } else { 0 };
            let sequence = (model.low_water + ahead + field.random.below(12)).saturating_sub(2);
            let advance = if field.random.one_in(10) { field.random.below(4) } else { 0 };
            // A low-water mark at or above the write's own sequence forgets the write before it can run.
            let stamp = Stamp { session, sequence, low_water: (model.low_water + advance).saturating_sub(1) };
            // Copies at several members at once; they are equal, so whichever is first, one model answers all.
            let copies = 1 + field.random.below(3);
            let mut tickets = Vec::new();
            for copy in 0..copies {
                let member = field.member();
                tickets.push(field.cluster.submit(member, stamped_put(stamp, attempt * 4 + copy)));
            }
            field.cluster.settle();
            for ticket in tickets {
                let response = field.cluster.replies.remove(&ticket).expect("a settled cluster has answered");
                model.check(stamp, &response);
            }
        }
        for (session, model) in models {
            assert!(!model.ran.is_empty(), "seed {seed}: some writes ran");
            for sequence in model.ran {
                let stamp = Stamp { session, sequence, low_water: 0 };
                assert_eq!(version_of(&mut field, key_of(stamp)), Some(1), "{stamp:?} ran exactly once");
            }
        }
        field.assert_serves();
    });
}
