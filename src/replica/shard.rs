//! `Shard`: all that a shard thread owns and that is pure: one write-ahead log and the replicas that share it.
//!
//! A turn goes: every input, then the end of the turn of every replica, then at most one write, because the log
//! is self-clocked: what gathers while a write is in flight is the next batch (DESIGN §1). A replica's sends and
//! the shard's write leave in the same turn.
//!
//! Always: at most one write is in flight; frames from another cluster, another member or another life of a
//! member's directory change nothing; a member votes and acknowledges only when it is founded (`bootstrap`) and
//! its log names its vote. Left out: everything about one group (`group`), and where bytes go (`wal`).

use super::bootstrap::{self, Bootstrap, Heard, Progress, Record, first_configuration, mix};
use super::entries::carries_its_entries;
use super::forward::Forwarded;
use super::group::{Replica, Setup};
use super::lease_terms::LeaseTerms;
use super::leases::{ForwardedQuestion, LeaseQuestion};
use super::read_times::ReadTime;
use super::restore::{CannotStart, FoundSnapshot};
use super::{Input, Observation, Output, SnapshotPolicy};
use crate::auth::Who;
use crate::ids::{
    BootMicros, ClusterId, DirectoryId, GroupId, KeyspaceId, LogIndex, MemberId, SegmentNumber,
};
use crate::limits::{RAFT_VOTERS_MAX, TURN_APPEND_BYTES_MAX};
use crate::peer::{Body, Frame};
use crate::raft::{HardState, Mark, Position};
use crate::wal::{FoundSegment, GroupOpening, GroupWrite, Note, RecoveredGroup, Wal, WalOptions, WalWrite};
use crate::watch::{Bounds, Place};
use crate::{planted, sometimes};
use bytes::Bytes;
use std::collections::BTreeMap;
use wal_format::Identity;

/// How a shard behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who this member is.
    pub member: MemberId,
    /// The members the cluster starts with, this one included.
    pub initial_members: Vec<MemberId>,
    /// E: election timeouts are drawn from [E, 2E).
    pub election_micros: u64,
    /// How often a leader is heard from.
    pub heartbeat_micros: u64,
    /// How long it answers reads alone while it leads, after it appended an entry.
    pub lease: LeaseTerms,
    /// A session that nothing names for this long is ended.
    pub session_idle_micros: u64,
    /// How many requests may wait here for one thing, if that is fewer than `limits` says; more are refused.
    pub waiting_max: usize,
    /// After how many entries members compare their states: the same number at all of them, and not 0.
    pub state_check_entries: u64,
    /// Bytes of memory that the keys of one keyspace may take, with their histories; 0 for any number.
    pub quota_bytes: u64,
    /// What its watches may hold and do.
    pub watches: Bounds,
    /// When snapshots are cut, and what is kept of the log.
    pub snapshots: SnapshotPolicy,
    /// Size of a segment of the write-ahead log, in bytes.
    pub segment_bytes: u64,
    /// All randomness of this boot; another number at each.
    pub seed: u64,
}

/// A segment as found on disk.
#[derive(Clone, Debug)]
pub struct SegmentFile {
    /// Its number, from its name.
    pub number: SegmentNumber,
    /// Its salt, from its name.
    pub salt: u64,
    /// Its content.
    pub bytes: Bytes,
}

/// What a shard is doing with its life.
#[derive(Debug)]
enum Stage {
    /// A new directory: its id is being made durable.
    Naming,
    /// It waits for the other initial members.
    Founding(Bootstrap),
    /// All ids are known and are being made durable.
    Recording(Record),
    /// Its replicas run.
    Serving,
    /// Damage left nothing that names its vote, or somebody else has its place: it counts for nothing.
    Mute(String),
}

/// What the replicas want written next, and what is durable once it is.
#[derive(Debug, Default)]
struct Gathered {
    writes: Vec<GroupWrite>,
    marks: Vec<(GroupId, Mark)>,
}

/// One shard: a write-ahead log and the replicas that share it.
pub struct Shard {
    pub(super) options: Options,
    pub(super) identity: Identity,
    pub(super) wal: Wal,
    stage: Stage,
    pub(super) replicas: BTreeMap<GroupId, Replica>,
    /// The highest version of the peer protocol that each peer said it speaks.
    peer_versions: BTreeMap<MemberId, u8>,
    /// Gathered for a write that the log had no room for yet.
    gathered: Option<Gathered>,
    /// What the write in flight makes durable.
    in_flight: Vec<(GroupId, Mark)>,
    /// Whether the write in flight is the one that the stage waits for.
    is_stage_in_flight: bool,
}

impl Shard {
    /// Recovers from the segments found, oldest first, and the snapshots found, read by `restore_newest` with this boot's
    /// seed; none in a new directory.
    ///
    /// # Errors
    /// The directory belongs to another member, or holds nothing that can be trusted.
    pub fn start(
        options: Options,
        segments: &[SegmentFile],
        snapshots: Vec<FoundSnapshot>,
        now: BootMicros,
    ) -> Result<Self, CannotStart> {
        super::restore::refuse_newer(&snapshots)?;
        let wal_options = WalOptions { segment_bytes: options.segment_bytes, shard: 0 };
        let found: Vec<FoundSegment<'_>> = segments
            .iter()
            .map(|file| FoundSegment {
                number: file.number,
                salt: file.salt,
                bytes: &file.bytes,
                shared: Some(&file.bytes),
            })
            .collect();
        let recovered =
            crate::wal::recover(wal_options, &found, &super::restore::restored_positions(&snapshots))
                .map_err(|failed| CannotStart(failed.to_string()))?;
        if options.initial_members.len() > RAFT_VOTERS_MAX {
            return Err(CannotStart(format!(
                "a cluster starts with at most {RAFT_VOTERS_MAX} voters, not with {}",
                options.initial_members.len()
            )));
        }
        let salts = mix(options.seed ^ 0x7361_6c74);
        let is_identity_lost = recovered.identity.is_none() && !recovered.groups.is_empty();
        if is_identity_lost || recovered.notes.contains(&Note::IdentityInDoubt) {
            // To found again, or to listen to founded members, would be to vote with a log that may have been lost.
            sometimes!(MemberMuted);
            let why = "to be replaced: damage to its log left no trace of who it was. Remove the member and add it \
                       again as a learner";
            let identity = recovered.identity.unwrap_or_default();
            let wal = Wal::resume(wal_options, &recovered, salts);
            return Ok(Self::staged(options, identity, wal, Stage::Mute(why.to_owned())));
        }
        let Some(identity) = recovered.identity else {
            super::restore::refuse_without_log(&snapshots)?;
            let directory = mix(options.seed ^ 0x6469_7265).max(1);
            let identity = Identity { directory, cluster: 0, member: options.member.0, shard: 0 };
            let mut wal = Wal::resume(wal_options, &recovered, salts);
            wal.set_opening(identity, Vec::new());
            return Ok(Self::staged(options, identity, wal, Stage::Naming));
        };
        if identity.member != options.member.0 {
            return Err(CannotStart(format!(
                "this data directory belongs to member {}, not {}: start it under its own name, or give \
                 this member a directory of its own",
                MemberId(identity.member),
                options.member
            )));
        }
        let wal = Wal::resume(wal_options, &recovered, salts);
        let stage = if recovered.groups.is_empty() {
            Self::founding(&options, identity, now)
        } else {
            Stage::Serving
        };
        let mut shard = Self::staged(options, identity, wal, stage);
        super::restore::refuse_of_another_cluster(&snapshots, ClusterId(identity.cluster))?;
        let mut snapshots = snapshots;
        for (group, found) in recovered.groups {
            let theirs = snapshots.extract_if(.., |snapshot| snapshot.name.group == group).collect();
            shard.serve(group, found, theirs, now);
        }
        Ok(shard)
    }

    fn staged(options: Options, identity: Identity, wal: Wal, stage: Stage) -> Self {
        Self {
            options,
            identity,
            wal,
            stage,
            replicas: BTreeMap::new(),
            peer_versions: BTreeMap::new(),
            gathered: None,
            in_flight: Vec::new(),
            is_stage_in_flight: false,
        }
    }

    fn founding(options: &Options, identity: Identity, now: BootMicros) -> Stage {
        Stage::Founding(Bootstrap::new(
            options.member,
            DirectoryId(identity.directory),
            &options.initial_members,
            now,
            2 * options.heartbeat_micros,
        ))
    }

    /// One pass: inputs in, outputs out. `now` was read after every input had happened.
    pub fn turn(&mut self, now: BootMicros, inputs: &mut Vec<Input>, outputs: &mut Vec<Output>) {
        for replica in self.replicas.values_mut() {
            replica.reads.times.begin();
        }
        for input in inputs.drain(..) {
            match input {
                Input::SegmentReady { segment } => self.wal.segment_ready(segment),
                Input::Written => self.written(now, outputs),
                Input::SnapshotFile { group, ticket, done } => {
                    if let Some(replica) = self.replicas.get_mut(&group) {
                        replica.file_done(now, ticket, done, outputs);
                    }
                }
                Input::Peer { from, frame } => self.peer(now, from, &frame, outputs),
                Input::PeerSpeaks { peer, version } => {
                    self.peer_versions.insert(peer, version);
                    for replica in self.replicas.values_mut() {
                        replica.note_peer(peer, version);
                    }
                }
                Input::Client { ticket, who, request } => self.client(now, (ticket, who), request, outputs),
                Input::Users { ticket, who, request } => {
                    self.users(now, (ticket, who), request, outputs);
                }
                Input::Watch { ticket, who, stream, name, request } => {
                    self.watch((ticket, who), Place { stream, watch: name }, request, outputs);
                }
                Input::StreamTaken { stream, waiting_bytes } => {
                    for replica in self.replicas.values_mut() {
                        replica.stream_taken(stream, waiting_bytes);
                    }
                }
                Input::StreamClosed { stream } => {
                    for replica in self.replicas.values_mut() {
                        replica.stream_closed(stream, outputs);
                    }
                }
                Input::HandOver { to } => {
                    for replica in self.replicas.values_mut() {
                        replica.hand_over(now, to, outputs);
                    }
                }
            }
        }
        self.found(now, outputs);
        for replica in self.replicas.values_mut() {
            replica.finish_turn(now, outputs);
        }
        self.mute_the_divergent(outputs);
        self.name_snapshots_and_trim();
        self.write(now, outputs);
        self.order_segments(outputs);
    }

    /// When the next turn must be at the latest, inputs or not.
    pub fn next_deadline(&self) -> BootMicros {
        let mut deadline = BootMicros(u64::MAX);
        if let Stage::Founding(bootstrap) = &self.stage {
            deadline = deadline.min(bootstrap.deadline());
        }
        if let Some(seal) = self.wal.seal_deadline() {
            deadline = deadline.min(seal);
        }
        for replica in self.replicas.values() {
            deadline = deadline.min(replica.next_deadline());
        }
        deadline
    }

    /// What invariants and `status` may look at, for each group that runs here.
    pub fn observe(&self) -> impl Iterator<Item = Observation> + '_ {
        self.replicas.values().map(Replica::observe)
    }

    /// How the reads were answered that the last turn answered.
    pub fn read_times(&self) -> impl Iterator<Item = ReadTime> + '_ {
        self.replicas.values().flat_map(|replica| replica.reads.times.all()).copied()
    }

    /// The encoded record of a log entry, if this member holds it.
    pub fn record(&self, group: GroupId, index: LogIndex) -> Option<Bytes> {
        self.replicas.get(&group)?.entries.get(index).cloned()
    }

    /// The cluster this member is of; 0 before its founding.
    pub fn cluster(&self) -> ClusterId {
        ClusterId(self.identity.cluster)
    }

    /// What keeps this member from serving, in words; `None` if nothing does.
    pub fn waiting_for(&self) -> Option<String> {
        match &self.stage {
            Stage::Naming => Some("its new data directory to be written".to_owned()),
            Stage::Founding(bootstrap) => Some(match bootstrap.progress() {
                Progress::WaitingFor(members) => {
                    let names: Vec<String> = members.iter().map(ToString::to_string).collect();
                    format!(
                        "the other initial members to answer ({}): the very first start needs all of them up once",
                        names.join(", ")
                    )
                }
                Progress::Foreign { by } => format!(
                    "a place in the cluster: {by} knows this member with another data directory. If its disk \
                     was lost, remove the member and add it again as a learner"
                ),
                Progress::Disagreement => {
                    "a person: the founded members disagree on who founded this cluster".to_owned()
                }
                Progress::Complete(_) => "its first configuration to be written".to_owned(),
            }),
            Stage::Recording(_) => Some("its first configuration to be written".to_owned()),
            Stage::Mute(why) => Some(why.clone()),
            Stage::Serving => None,
        }
    }

    /// For tests: the state of every group here is another from now on.
    #[cfg(test)]
    pub(super) fn corrupt(&mut self) {
        for replica in self.replicas.values_mut() {
            replica.state_hash ^= 1;
        }
    }

    /// A group runs from now on, from what recovery found of it.
    fn serve(
        &mut self,
        group: GroupId,
        found: RecoveredGroup,
        snapshots: Vec<FoundSnapshot>,
        now: BootMicros,
    ) {
        if found.counts_for_nothing {
            sometimes!(MemberMuted);
            self.stage = Stage::Mute(format!(
                "to be replaced: damage to its log left no trace of the last vote in group {group}. Remove the \
                 member and add it again as a learner"
            ));
            return;
        }
        let directories: Record = found
            .configuration
            .members
            .iter()
            .map(|member| (MemberId(member.id), DirectoryId(member.directory)))
            .collect();
        if directories.len() > RAFT_VOTERS_MAX || !directories.contains_key(&self.options.member) {
            self.stage = Stage::Mute(format!(
                "a version that knows its configuration of group {group}: it has {} voters, this member \
                 among them or not; at most {RAFT_VOTERS_MAX} are possible here",
                directories.len()
            ));
            return;
        }
        let setup = Setup {
            group,
            // The one group of today serves keyspace 0; group 0 does not exist, whatever a disk may say.
            keyspace: KeyspaceId(group.0.wrapping_sub(GroupId::FIRST.0)),
            cluster: ClusterId(self.identity.cluster),
            me: self.options.member,
            directories,
            configuration: found.configuration.clone(),
            election_micros: self.options.election_micros,
            heartbeat_micros: self.options.heartbeat_micros,
            lease: self.options.lease,
            session_idle_micros: self.options.session_idle_micros,
            waiting_max: self.options.waiting_max,
            state_check_entries: self.options.state_check_entries,
            quota_bytes: self.options.quota_bytes,
            watches: self.options.watches,
            snapshots: self.options.snapshots,
            write_bytes_max: TURN_APPEND_BYTES_MAX.min(self.wal.records_bytes_max()),
            seed: mix(self.options.seed ^ u64::from(group.0)),
            boot_seed: self.options.seed,
        };
        let mut replica = Replica::new(setup, found, snapshots, now);
        for (peer, version) in &self.peer_versions {
            replica.note_peer(*peer, *version);
        }
        self.replicas.insert(group, replica);
    }

    /// A group whose state is not what most members have is served here no more.
    fn mute_the_divergent(&mut self, outputs: &mut Vec<Output>) {
        let found = self.replicas.iter().find_map(|(group, replica)| Some((*group, replica.divergence()?)));
        let Some((group, divergence)) = found else {
            return;
        };
        if let Some(mut replica) = self.replicas.remove(&group) {
            replica.retire(outputs);
        }
        self.stage = Stage::Mute(divergence.words());
    }

    /// The write in flight is durable.
    fn written(&mut self, now: BootMicros, outputs: &mut Vec<Output>) {
        if self.wal.is_idle() {
            return;
        }
        self.wal.written(now);
        for (group, mark) in std::mem::take(&mut self.in_flight) {
            if let Some(replica) = self.replicas.get_mut(&group) {
                replica.written(now, mark, outputs);
            }
        }
        if !std::mem::take(&mut self.is_stage_in_flight) {
            return;
        }
        match std::mem::replace(&mut self.stage, Stage::Serving) {
            Stage::Naming => self.stage = Self::founding(&self.options, self.identity, now),
            Stage::Recording(record) => {
                let found = RecoveredGroup {
                    configuration: first_configuration(&record),
                    ..RecoveredGroup::default()
                };
                self.serve(GroupId::FIRST, found, Vec::new(), now);
            }
            stage @ (Stage::Founding(_) | Stage::Serving | Stage::Mute(_)) => self.stage = stage,
        }
    }

    /// Carries the founding of the cluster on.
    fn found(&mut self, now: BootMicros, outputs: &mut Vec<Output>) {
        let Stage::Founding(bootstrap) = &mut self.stage else {
            return;
        };
        let hellos = bootstrap.hellos_due(now);
        let progress = bootstrap.progress();
        let known = bootstrap.known();
        for (to, directory) in hellos {
            self.hello(to, directory, &known, false, outputs);
        }
        if let Progress::Complete(record) = progress {
            self.identity.cluster = bootstrap::cluster_id(&record).0;
            let opening = GroupOpening {
                group: GroupId::FIRST,
                hard_state: HardState::default(),
                last: Position::START,
                snapshot: Position::START,
                configuration: first_configuration(&record),
            };
            self.wal.set_opening(self.identity, vec![opening]);
            self.stage = Stage::Recording(record);
        }
    }

    /// Tells `to` the ids that this member has on record, if it is founded, or else the ids it knows.
    fn hello(
        &self,
        to: MemberId,
        to_directory: DirectoryId,
        ids: &Record,
        is_started: bool,
        outputs: &mut Vec<Output>,
    ) {
        let frame = Frame {
            cluster: ClusterId(self.identity.cluster),
            group: GroupId(0),
            from: self.options.member,
            to,
            from_directory: DirectoryId(self.identity.directory),
            to_directory,
            body: Body::Hello {
                incarnation: self.options.seed,
                is_started,
                recorded: ids.iter().map(|(member, directory)| (*member, *directory)).collect(),
                your_directory: to_directory,
            },
        };
        outputs.push(Output::Send { to, frame: crate::peer::encode(&frame) });
    }

    /// A frame from a peer. Whatever is wrong with it, it changes nothing.
    fn peer(&mut self, now: BootMicros, from: MemberId, frame: &Bytes, outputs: &mut Vec<Output>) {
        let Ok(frame) = crate::peer::decode(frame) else {
            return;
        };
        if frame.from != from || frame.to != self.options.member {
            return;
        }
        let body = match frame.body {
            Body::Hello { incarnation: _, is_started, recorded, your_directory } => {
                let recorded: Record = recorded.into_iter().collect();
                let (record, known) =
                    if is_started { (Some(recorded), Record::new()) } else { (None, recorded) };
                let heard = Heard { directory: frame.from_directory, your_directory, record, known };
                self.heard(from, heard, outputs);
                return;
            }
            body @ (Body::Raft { .. }
            | Body::Forward { .. }
            | Body::AskLease { .. }
            | Body::ForwardReply { .. }) => body,
        };
        let Some(replica) = self.replicas.get_mut(&frame.group) else {
            return;
        };
        let is_ours = frame.cluster == replica.setup.cluster
            && (frame.to_directory == DirectoryId(self.identity.directory) || planted!(48))
            && replica.setup.directories.get(&from) == Some(&frame.from_directory);
        if !is_ours {
            return;
        }
        match body {
            Body::Raft { message, records } => {
                if carries_its_entries(frame.group, &message, &records, replica.setup.write_bytes_max) {
                    replica.receive(now, from, message, &records, outputs);
                }
            }
            Body::Forward { request, term, kind, keyspace, stamp, asker, body } => {
                let who = Who::of_entry(asker.0, asker.1);
                let forwarded = Forwarded { request, term, kind, keyspace, stamp, who, body };
                replica.forwarded(now, from, forwarded, outputs);
            }
            Body::AskLease { request, term, keyspace, lease, is_renewal, wants_keys, asker } => {
                let who = Who::of_entry(asker.0, asker.1);
                let question = LeaseQuestion { lease, is_renewal, wants_keys, who };
                let forwarded = ForwardedQuestion { request, term, keyspace, question };
                replica.forwarded_question(now, from, forwarded, outputs);
            }
            Body::ForwardReply { request, response } => replica.forward_answered(request, &response, outputs),
            Body::Hello { .. } => {}
        }
    }

    /// A member said hello: a founding one listens, a founded one tells a newcomer what is on record.
    fn heard(&mut self, from: MemberId, heard: Heard, outputs: &mut Vec<Output>) {
        match &mut self.stage {
            Stage::Founding(bootstrap) => bootstrap.hear(from, heard),
            Stage::Serving => {
                if let (None, Some(replica)) = (&heard.record, self.replicas.values().next()) {
                    let record = replica.setup.directories.clone();
                    self.hello(from, heard.directory, &record, true, outputs);
                }
            }
            Stage::Naming | Stage::Recording(_) | Stage::Mute(_) => {}
        }
    }

    /// Starts the next write, if the log is idle and there is something to write.
    fn write(&mut self, now: BootMicros, outputs: &mut Vec<Output>) {
        if !self.wal.is_idle() {
            return;
        }
        if self.gathered.is_none() {
            self.gathered = self.gather(now);
        }
        let mut write = None;
        if let Some(gathered) = self.gathered.take() {
            write = self.wal.write(now, &gathered.writes);
            if write.is_some() {
                self.in_flight = gathered.marks;
            } else {
                sometimes!(WriteWaitedForSegment);
                self.gathered = Some(gathered);
            }
        } else if matches!(self.stage, Stage::Naming | Stage::Recording(_)) {
            write = self.wal.write(now, &[]);
            self.is_stage_in_flight = write.is_some();
        }
        // Also while a larger write waits for its segment: what is on disk is sealed when its time has come.
        if write.is_none() && self.wal.seal_deadline().is_some_and(|deadline| deadline <= now) {
            write = self.wal.seal(now);
        }
        if let Some(WalWrite { segment, offset, frame }) = write {
            // Catalogue 42: the write is not asked to be durable, and is believed to be.
            outputs.push(Output::Write { segment, offset, frame, is_synced: !crate::planted!(42) });
        }
    }

    fn gather(&mut self, now: BootMicros) -> Option<Gathered> {
        let mut gathered = Gathered::default();
        for (group, replica) in &mut self.replicas {
            if let Some((mark, write)) = replica.next_write(now) {
                gathered.writes.push(write);
                gathered.marks.push((*group, mark));
            }
        }
        (!gathered.writes.is_empty()).then_some(gathered)
    }
}
