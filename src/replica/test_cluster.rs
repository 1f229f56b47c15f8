//! A small cluster for tests: whole shards on a perfect disk and a perfect network.
//!
//! Always: everything that a shard wants is done at once, in order, and time passes only when a test says so. Left
//! out: everything that can go wrong; that is the simulator's business.

use super::{FileDone, FileOrder, Input, LeaseTerms, Options, Output, Shard, SnapshotPolicy};
use crate::api::{EncodedCommand, ReadMode, Request, Response, Stamp};
use crate::auth::Who;
use crate::ids::{BootMicros, KeyspaceId, MemberId, Revision, SegmentNumber, Ticket};
use crate::kv::{Command, KeyRange, Outcome, Put, Query, Range};
use crate::limits::STATE_CHECK_ENTRIES;
use crate::peer::PEER_VERSIONS;
use crate::raft::RoleName;
use crate::snapshot::{FileKind, FileName};
use crate::watch::{Batch, Bounds, Ending, Place};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// How many of the frames sent are kept.
const SENT_MAX: usize = 256;

/// E of every member.
pub(super) const ELECTION_MICROS: u64 = 300_000;

/// Shards that deliver to each other at once, and whose disks are done at once.
pub(super) struct Cluster {
    pub(super) now: BootMicros,
    pub(super) shards: BTreeMap<MemberId, Shard>,
    pub(super) inputs: BTreeMap<MemberId, Vec<Input>>,
    pub(super) replies: BTreeMap<Ticket, Response>,
    next_ticket: u64,
    /// Segments that a full disk has no room for; `None` while there is room.
    pub(super) no_room_for: Option<Vec<(MemberId, SegmentNumber)>>,
    /// The newest frames that members sent.
    pub(super) sent: VecDeque<Bytes>,
    /// What watches were told, in order.
    pub(super) told: Vec<(MemberId, Place, Batch)>,
    /// The files of snapshots.
    pub(super) files: BTreeMap<MemberId, BTreeMap<String, Vec<u8>>>,
    /// So many of the next chunks of snapshots that are written lie on the disk with a bit flipped.
    pub(super) harms: usize,
    /// What disks do not say of the file of a snapshot that is received; `None` while they say everything.
    pub(super) unsaid: Option<Vec<(MemberId, Input)>>,
    /// Watches that ended, and why.
    pub(super) ended: Vec<(MemberId, Place, Ending)>,
}

/// Turns without time going on, more than anything takes here.
const TURNS_MAX: usize = 100_000;

impl Cluster {
    pub(super) fn of(count: u64) -> Self {
        Self::with_quota(count, 0)
    }

    /// A cluster whose keyspace may take so many bytes.
    pub(super) fn with_quota(count: u64, quota_bytes: u64) -> Self {
        Self::with(count, quota_bytes, SnapshotPolicy::SERVER, LeaseTerms::NONE)
    }

    /// A cluster that cuts snapshots so.
    pub(super) fn with_snapshots(count: u64, snapshots: SnapshotPolicy) -> Self {
        Self::with(count, 0, snapshots, LeaseTerms::NONE)
    }

    /// A cluster whose leaders lease so, once they know that others wait.
    pub(super) fn with_leases(count: u64, lease: LeaseTerms) -> Self {
        Self::with(count, 0, SnapshotPolicy::SERVER, lease)
    }

    fn with(count: u64, quota_bytes: u64, snapshots: SnapshotPolicy, lease: LeaseTerms) -> Self {
        let members: Vec<MemberId> = (1..=count).map(MemberId).collect();
        let shards = members.iter().map(|member| {
            let options = Options {
                member: *member,
                initial_members: members.clone(),
                election_micros: ELECTION_MICROS,
                heartbeat_micros: 50_000,
                lease,
                session_idle_micros: 60_000_000,
                waiting_max: usize::MAX,
                state_check_entries: STATE_CHECK_ENTRIES,
                quota_bytes,
                watches: Bounds::SERVER,
                snapshots,
                segment_bytes: 1_024 * 1_024,
                seed: member.0,
            };
            (
                *member,
                Shard::start(options, &[], Vec::new(), BootMicros(0)).expect("an empty directory is fine"),
            )
        });
        Self {
            now: BootMicros(0),
            shards: shards.collect(),
            inputs: members.iter().map(|member| (*member, Vec::new())).collect(),
            replies: BTreeMap::new(),
            next_ticket: 1,
            no_room_for: None,
            sent: VecDeque::new(),
            told: Vec::new(),
            files: BTreeMap::new(),
            harms: 0,
            unsaid: None,
            ended: Vec::new(),
        }
    }

    /// Gives every shard turns until nobody has anything left to take in.
    pub(super) fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            let mut outputs = Vec::new();
            for (member, shard) in &mut self.shards {
                let mut wanted = Vec::new();
                shard.turn(self.now, self.inputs.entry(*member).or_default(), &mut wanted);
                outputs.extend(wanted.into_iter().map(|output| (*member, output)));
            }
            for (member, output) in outputs {
                self.carry_out(member, output);
            }
            let next = self.shards.values().map(Shard::next_deadline).min();
            let is_due = next.is_some_and(|deadline| deadline <= self.now);
            if self.inputs.values().all(Vec::is_empty) && !is_due {
                return;
            }
        }
        panic!("members that always have something left to do never sleep");
    }

    /// Gives one member a turn; answers with how many replies came of it.
    pub(super) fn turn(&mut self, member: MemberId) -> usize {
        let before = self.replies.len();
        let mut wanted = Vec::new();
        let shard = self.shards.get_mut(&member).expect("the member is there");
        shard.turn(self.now, self.inputs.entry(member).or_default(), &mut wanted);
        for output in wanted {
            self.carry_out(member, output);
        }
        self.replies.len() - before
    }

    fn carry_out(&mut self, member: MemberId, output: Output) {
        let (to, input) = match output {
            Output::MakeSegment { segment, .. } => {
                if let Some(waiting) = &mut self.no_room_for {
                    waiting.push((member, segment));
                    return;
                }
                (member, Input::SegmentReady { segment })
            }
            Output::SnapshotFile { ticket, file, order } => {
                let files = self.files.entry(member).or_default();
                let is_chunk = matches!(order, FileOrder::Write { .. }) && file.kind == FileKind::Incoming;
                let Some(done) = perform(files, file, order) else { return };
                if is_chunk && self.harms > 0 {
                    self.harms -= 1;
                    *files.get_mut(&file.text()).and_then(|bytes| bytes.last_mut()).expect("written") ^= 1;
                }
                let input = Input::SnapshotFile { group: file.group, ticket, done };
                if let Some(unsaid) = self.unsaid.as_mut().filter(|_| file.kind == FileKind::Incoming) {
                    unsaid.push((member, input));
                    return;
                }
                (member, input)
            }
            Output::RemoveSegment { .. } => return,
            Output::Write { .. } => (member, Input::Written),
            Output::Send { to, frame } => {
                if self.sent.len() == SENT_MAX {
                    self.sent.pop_front();
                }
                self.sent.push_back(frame.clone());
                (to, Input::Peer { from: member, frame })
            }
            Output::Reply { ticket, response } => {
                assert!(self.replies.insert(ticket, response).is_none(), "one reply a request");
                return;
            }
            Output::Tell { to, batch } => {
                self.told.extend(to.into_iter().map(|place| (member, place, batch.clone())));
                return;
            }
            Output::EndWatch { to, why } => {
                self.ended.push((member, to, why));
                return;
            }
        };
        // Who is away hears nothing.
        if self.shards.contains_key(&to) {
            self.inputs.entry(to).or_default().push(input);
        }
    }

    /// There is room on the disks again.
    pub(super) fn make_room(&mut self) {
        for (member, segment) in self.no_room_for.take().unwrap_or_default() {
            self.inputs.entry(member).or_default().push(Input::SegmentReady { segment });
        }
    }

    /// Disks say what they did not.
    pub(super) fn go_on_receiving(&mut self) {
        for (member, input) in self.unsaid.take().unwrap_or_default() {
            self.inputs.entry(member).or_default().push(input);
        }
    }

    pub(super) fn advance(&mut self, micros: u64) {
        let end = self.now.after(micros);
        loop {
            self.settle();
            let next = self.shards.values().map(Shard::next_deadline).min().expect("a cluster has members");
            if next > end {
                break;
            }
            assert!(next > self.now, "a deadline that is past is a loop that never sleeps");
            self.now = next;
        }
        self.now = end;
        self.settle();
    }

    pub(super) fn leader(&self) -> MemberId {
        let leads = |shard: &Shard| shard.observe().any(|replica| replica.role == RoleName::Leader);
        *self.shards.iter().find(|(_, shard)| leads(shard)).expect("somebody leads").0
    }

    pub(super) fn follower(&self) -> MemberId {
        let leader = self.leader();
        *self.shards.keys().find(|member| **member != leader).expect("there are others")
    }

    /// Everybody hears that everybody is of this build.
    pub(super) fn greet_all(&mut self) {
        let members: Vec<MemberId> = self.shards.keys().copied().collect();
        for member in members {
            self.greet(member, PEER_VERSIONS.1);
        }
    }

    /// Everybody hears that `peer` speaks `version`.
    pub(super) fn greet(&mut self, peer: MemberId, version: u8) {
        for (member, inputs) in &mut self.inputs {
            if *member != peer {
                inputs.push(Input::PeerSpeaks { peer, version });
            }
        }
    }

    /// Hands a request in; whoever gives the members turns sees to the answer.
    pub(super) fn submit(&mut self, member: MemberId, request: Request) -> Ticket {
        self.submit_as(Who::Nobody, member, request)
    }

    /// The same, of somebody.
    pub(super) fn submit_as(&mut self, who: Who, member: MemberId, request: Request) -> Ticket {
        let ticket = self.ticket();
        self.inputs.entry(member).or_default().push(Input::Client { ticket, who, request });
        ticket
    }

    /// A ticket for one request.
    pub(super) fn ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }

    pub(super) fn ask(&mut self, member: MemberId, request: Request) -> Response {
        self.ask_as(Who::Nobody, member, request)
    }

    /// The same, of somebody.
    pub(super) fn ask_as(&mut self, who: Who, member: MemberId, request: Request) -> Response {
        let ticket = self.submit_as(who, member, request);
        self.answer_to(ticket)
    }

    /// What a request is answered.
    pub(super) fn answer_to(&mut self, ticket: Ticket) -> Response {
        self.advance(100_000);
        self.replies.remove(&ticket).expect("the request was answered")
    }
}

/// What a disk does about the file of a snapshot.
fn perform(files: &mut BTreeMap<String, Vec<u8>>, file: FileName, order: FileOrder) -> Option<FileDone> {
    let name = file.text();
    Some(match order {
        FileOrder::Write { offset, bytes, .. } => {
            let content = files.entry(name).or_default();
            content.truncate(usize::try_from(offset).expect("it is small"));
            content.extend_from_slice(&bytes);
            FileDone::Written
        }
        FileOrder::Read { offset, bytes_count } => match files.get(&name) {
            Some(content) => {
                let from = content.len().min(usize::try_from(offset).expect("it is small"));
                let upto = content.len().min(from + bytes_count);
                FileDone::Read(Bytes::copy_from_slice(&content[from..upto]))
            }
            None => FileDone::Failed,
        },
        FileOrder::Keep => match files.remove(&name) {
            Some(content) => {
                files.insert(FileName { kind: FileKind::Whole, ..file }.text(), content);
                FileDone::Kept
            }
            None => FileDone::Failed,
        },
        FileOrder::Distrust => {
            if let Some(content) = files.remove(&name) {
                files.insert(FileName { kind: FileKind::Distrusted, ..file }.text(), content);
            }
            return None;
        }
        FileOrder::Remove => {
            files.remove(&name);
            return None;
        }
    })
}

pub(super) fn put(key: &'static str, value: &'static str, stamp: Option<Stamp>) -> Request {
    let put = Put::new(Bytes::from_static(key.as_bytes()), Bytes::from_static(value.as_bytes()));
    let command = EncodedCommand::encode(&Command::Put(put)).expect("a small command");
    Request::Write { keyspace: KeyspaceId::FIRST, stamp, command }
}

pub(super) fn get(key: &'static str) -> Request {
    let range = Range::new(KeyRange::Key(Bytes::from_static(key.as_bytes())));
    Request::Read { keyspace: KeyspaceId::FIRST, query: Query::Range(range), mode: ReadMode::Linearizable }
}

pub(super) fn value_of(response: &Response) -> Option<Bytes> {
    let Response::Applied(applied) = response else {
        panic!("expected an answer of the store, got {response:?}")
    };
    let Outcome::Range(range) = &applied.outcome else { panic!("expected a range, got {applied:?}") };
    range.pairs.first().map(|pair| pair.value.clone())
}

pub(super) fn revision_of(response: &Response) -> Revision {
    let Response::Applied(applied) = response else {
        panic!("expected an answer of the store, got {response:?}")
    };
    applied.revision
}
