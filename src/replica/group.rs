//! `Replica`: our state machine of one group. It joins consensus, the records of the log, the store and the sessions.
//!
//! A turn goes: inputs (`receive`, `request`, `written`), each followed by what raft wants done because of it; then
//! `finish_turn`, once: time, one read round for all reads of the turn, sends, apply. What must become durable
//! is fetched by the shard (`next_write`) when the write-ahead log is idle.
//!
//! Always: applied ≤ commit ≤ last; a client's answer to a write leaves from apply, never earlier; a proposal whose
//! entry may still commit is answered *outcome unknown* at the worst, never *not done*. Left out: proposing
//! (`propose`), reading (`read`), watching (`watching`), forwarding (`forward`), apply (`apply`): the same struct, each in its own file.

use super::apply::Proposals;
use super::bootstrap::mix;
use super::entries::Entries;
use super::forward::{Forwards, SeenForwards};
use super::lease_terms::LeaseTerms;
use super::leases::Countdown;
use super::read::Reads;
use super::restore::{FoundContent, FoundSnapshot, Restored};
use super::sessions::Sessions;
use super::snapshots::{SnapshotPolicy, Snapshots, name_of};
use super::state_check::StateCheck;
use super::{Observation, Output, Queue};
use crate::api::{Counter, Response, Role, Status};
use crate::auth::{Auth, Who};
use crate::ids::{BootMicros, ClusterId, DirectoryId, GroupId, KeyspaceId, LogIndex, MemberId, Term, Ticket};
use crate::kv::{KeyRange, Store};
use crate::limits::{
    FORWARD_BOOTS_MAX, LEADER_LEASE_MICROS_MAX, LEASE_ENDS_WAITING_MAX, LEASES_MAX,
    PROPOSALS_WAITING_BYTES_MAX, PROPOSALS_WAITING_MAX, RAFT_VOTERS_MAX, READS_WAITING_MAX,
    SESSION_ANSWERS_RESERVED, SESSIONS_ANSWERS_SHARED_MAX, SESSIONS_BYTES_MAX, SESSIONS_MAX,
    SNAPSHOT_SAVES_WAITING_MAX, TURN_ANSWER_BYTES_MAX, TURN_WALK_KEYS_MAX,
};
use crate::peer::{Body, Frame};
use crate::raft::{self, Mark, Message, Node, RoleName};
use crate::wal::{Configuration, GroupWrite, RecoveredGroup};
use crate::watch::{Bounds, Hub, Notice, Place};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Who this replica is, and how it is to behave.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) group: GroupId,
    pub(super) keyspace: KeyspaceId,
    pub(super) cluster: ClusterId,
    pub(super) me: MemberId,
    /// Directory ids of all members of the configuration, ours included.
    pub(super) directories: BTreeMap<MemberId, DirectoryId>,
    /// The same, as the log and snapshots say it.
    pub(super) configuration: Configuration,
    pub(super) election_micros: u64,
    pub(super) heartbeat_micros: u64,
    /// How long it answers reads alone while it leads.
    pub(super) lease: LeaseTerms,
    pub(super) session_idle_micros: u64,
    pub(super) waiting_max: usize,
    pub(super) state_check_entries: u64,
    /// Bytes that the keyspace may take; 0 for any number.
    pub(super) quota_bytes: u64,
    pub(super) watches: Bounds,
    pub(super) snapshots: SnapshotPolicy,
    /// Most bytes of entries that one write to the log may carry.
    pub(super) write_bytes_max: usize,
    pub(super) seed: u64,
    /// That of the whole member.
    pub(super) boot_seed: u64,
}

impl Setup {
    /// How many proposals may wait for commit, and forwards for an answer.
    pub(super) fn proposals_max(&self) -> usize {
        PROPOSALS_WAITING_MAX.min(self.waiting_max)
    }

    /// How many reads may wait.
    pub(super) fn reads_max(&self) -> usize {
        READS_WAITING_MAX.min(self.waiting_max)
    }
}

/// One member's part in one group.
pub(super) struct Replica {
    pub(super) setup: Setup,
    pub(super) node: Node,
    pub(super) entries: Entries,
    pub(super) store: Store,
    pub(super) sessions: Sessions,
    pub(super) auth: Auth,
    /// Everything up to and including this entry has been applied.
    pub(super) applied: LogIndex,
    /// The term of that entry.
    pub(super) applied_term: Term,
    /// What the newest applied no-op says of leaders' leases.
    pub(super) lease_terms: LeaseTerms,
    /// The highest version of the peer protocol that each peer said it speaks.
    pub(super) peer_versions: BTreeMap<MemberId, u8>,
    /// Raft wants the lease to be renewed.
    pub(super) is_lease_ageing: bool,
    /// Bytes of everything applied in this boot.
    pub(super) applied_bytes: u64,
    /// Rolling hash of everything applied, in order; equal on all members at equal `applied`.
    pub(super) state_hash: u64,
    pub(super) state_check: StateCheck,
    /// Who waits for which entry to be applied. Only on a leader, only for entries of its own term.
    pub(super) proposals: Proposals,
    /// Encoded bytes of the entries in `proposals`.
    pub(super) proposals_bytes: usize,
    pub(super) reads: Reads,
    pub(super) watches: Hub,
    /// The watches of those who said who they are, with their keys: each ends when it may not be watched any more.
    pub(super) watchers: BTreeMap<Place, (Who, KeyRange)>,
    /// What the hub wants done; empty between turns.
    pub(super) notices: Vec<Notice>,
    pub(super) forwards: Forwards,
    pub(super) seen_forwards: SeenForwards,
    /// When each session was last named, by this leader's own clock.
    pub(super) session_seen: BTreeMap<crate::ids::SessionId, (LogIndex, BootMicros)>,
    pub(super) next_session_sweep: BootMicros,
    /// The time of leases; only on a leader, from the first committed entry of its term on.
    pub(super) countdown: Option<Countdown>,
    /// The entry of the alarm about space that was proposed last.
    pub(super) space_asked: Option<LogIndex>,
    /// What the store had walked over when the turn began.
    pub(super) turn_walked_from: u64,
    /// About how many bytes the answers of the turn take.
    pub(super) turn_answer_bytes: usize,
    pub(super) snapshots: Snapshots,
    /// What a snapshot is about to put in the place of the state, while raft is asked whether it should.
    pub(super) replacing: Option<Box<Restored>>,
    /// The log was trimmed up to this entry, and its own bytes were not yet.
    pub(super) trimmed: Option<LogIndex>,
    /// Openings of the log are to name another snapshot.
    pub(super) is_opening_due: bool,
    /// What raft wants done; empty between calls.
    scratch: Vec<raft::Output>,
}

impl Replica {
    /// Builds the replica from what recovery found.
    pub(super) fn new(
        setup: Setup,
        recovered: RecoveredGroup,
        snapshots: Vec<FoundSnapshot>,
        now: BootMicros,
    ) -> Self {
        let config = raft::Config {
            id: setup.me,
            voters: setup.directories.keys().copied().collect(),
            election_micros: setup.election_micros,
            heartbeat_micros: setup.heartbeat_micros,
            seed: setup.seed,
            noop_bytes: super::propose::record_bytes_count(setup.lease.encode(true).len()),
            // No longer than its no-op is believed.
            lease_micros: setup.lease.micros.min(LEADER_LEASE_MICROS_MAX),
            persist_bytes_max: setup.write_bytes_max,
        };
        let base = recovered.log.base.index;
        let snapshot = recovered.log.snapshot;
        let found = Snapshots::found(setup.snapshots, &snapshots, snapshot.index, now);
        let restored = snapshots.into_iter().find_map(|found| match found.content {
            FoundContent::Restored(restored) => Some(*restored),
            FoundContent::Damaged(_)
            | FoundContent::Newer(_)
            | FoundContent::Unread
            | FoundContent::Unfinished => None,
        });
        let restored = restored.filter(|restored| restored.verified.position == snapshot);
        let node = Node::new(config, recovered.log, now);
        let mut this = Self {
            state_check: StateCheck::new(node.last().index, setup.state_check_entries),
            node,
            entries: Entries::recovered(base, recovered.records),
            store: Store::seeded(mix(setup.boot_seed ^ 0x6b65_7973)),
            sessions: Sessions::default(),
            auth: Auth::new(),
            applied: LogIndex(0),
            applied_term: Term(0),
            lease_terms: LeaseTerms::NONE,
            peer_versions: BTreeMap::new(),
            is_lease_ageing: false,
            applied_bytes: 0,
            state_hash: 0,
            snapshots: found,
            replacing: None,
            trimmed: None,
            is_opening_due: false,
            proposals: Proposals::default(),
            proposals_bytes: 0,
            reads: Reads::default(),
            watchers: BTreeMap::new(),
            watches: Hub::new(setup.watches, Store::new().revision(), now),
            notices: Vec::new(),
            forwards: Forwards::new(setup.seed),
            seen_forwards: SeenForwards::default(),
            session_seen: BTreeMap::new(),
            next_session_sweep: now,
            countdown: None,
            space_asked: None,
            turn_walked_from: 0,
            turn_answer_bytes: 0,
            scratch: Vec::new(),
            setup,
        };
        if let Some(restored) = restored {
            let name = name_of(restored.verified);
            this.become_restored(restored, now);
            this.node.snapshot_taken(name);
            if crate::planted!(21) {
                this.applied = this.applied.previous();
            }
        }
        this
    }

    /// A message of consensus from a peer, with the records of the entries it carries.
    pub(super) fn receive(
        &mut self,
        now: BootMicros,
        from: MemberId,
        message: Message,
        records: &[Bytes],
        outputs: &mut Vec<Output>,
    ) {
        let first = message.carried().0.index.next();
        self.consensus(now, outputs, Received { first, records }, |node, out| {
            node.receive(now, from, message, out);
        });
    }

    /// The write that held `mark` is durable.
    pub(super) fn written(&mut self, now: BootMicros, mark: Mark, outputs: &mut Vec<Output>) {
        self.consensus(now, outputs, Received::NOTHING, |node, out| node.persisted(now, mark, out));
    }

    /// Hands leadership over if this member leads: to `to`, or to whoever is furthest along.
    pub(super) fn hand_over(&mut self, now: BootMicros, to: Option<MemberId>, outputs: &mut Vec<Output>) {
        let Some(target) = to.or_else(|| self.node.transfer_candidate()) else {
            return;
        };
        self.consensus(now, outputs, Received::NOTHING, |node, out| {
            // A refusal means that this member does not lead (any more), which is what was wanted.
            let _ = node.transfer(now, target, out);
        });
    }

    /// The end of a turn: time, the turn's reads, everything to be sent, apply.
    pub(super) fn finish_turn(&mut self, now: BootMicros, outputs: &mut Vec<Output>) {
        self.consensus(now, outputs, Received::NOTHING, |node, out| node.tick(now, out));
        self.expire_sessions(now);
        self.watch_space(now);
        self.say_state(now, outputs);
        self.begin_reads(now, outputs);
        self.flush(now, outputs);
        self.give_up_forwards(now, outputs);
        self.apply_committed(now, outputs);
        if self.lease_deadline().is_some_and(|due| due <= now) {
            // After apply, because an end that was applied makes room for the next; so it is sent on its own.
            self.count_leases_down(now);
            self.flush(now, outputs);
        }
        self.serve_watches(now, outputs);
        self.serve_snapshots(now, outputs);
        self.store.forget_some();
        self.turn_walked_from = self.store.walked();
        self.turn_answer_bytes = 0;
        self.assert_invariants();
    }

    /// What the next write must hold, and the mark that its completion makes durable.
    pub(super) fn next_write(&mut self, now: BootMicros) -> Option<(Mark, GroupWrite)> {
        let persist = self.node.persist(now)?;
        let records = persist.run.map_or_else(Vec::new, |run| self.entries.run(run.first, run.last));
        let write = GroupWrite {
            group: self.setup.group,
            hard_state: persist.hard_state,
            last: persist.last,
            run: persist.run,
            records,
            reset: persist.reset,
        };
        Some((persist.mark, write))
    }

    /// Whether the turn may take on more work that grows with keys and values. Others than those who want it wait for turns.
    pub(super) fn has_time_left(&self) -> bool {
        self.store.walked() - self.turn_walked_from < TURN_WALK_KEYS_MAX
            && self.turn_answer_bytes < TURN_ANSWER_BYTES_MAX
    }

    /// When the next turn must be at the latest.
    pub(super) fn next_deadline(&self) -> BootMicros {
        if self.applied < self.node.commit() || self.has_reads_to_serve() {
            return BootMicros(0);
        }
        let mut deadline =
            self.node.next_deadline().min(self.watches_deadline()).min(self.snapshots_deadline());
        if let Some(forward) = self.forwards.deadline() {
            deadline = deadline.min(forward);
        }
        if self.node.role() == RoleName::Leader {
            deadline = deadline.min(self.next_session_sweep);
        }
        if let Some(lease) = self.lease_deadline() {
            deadline = deadline.min(lease);
        }
        deadline
    }

    /// Lets raft act on something that carries no entries, and does what it wants done.
    pub(super) fn consensus_alone(
        &mut self,
        now: BootMicros,
        outputs: &mut Vec<Output>,
        act: impl FnOnce(&mut Node, &mut Vec<raft::Output>),
    ) {
        self.consensus(now, outputs, Received::NOTHING, act);
    }

    /// Lets raft act, and does what it wants done.
    fn consensus(
        &mut self,
        now: BootMicros,
        outputs: &mut Vec<Output>,
        received: Received<'_>,
        act: impl FnOnce(&mut Node, &mut Vec<raft::Output>),
    ) {
        let mut wanted = std::mem::take(&mut self.scratch);
        act(&mut self.node, &mut wanted);
        for output in wanted.drain(..) {
            self.obey(now, output, received, outputs);
        }
        self.scratch = wanted;
    }

    fn obey(
        &mut self,
        now: BootMicros,
        output: raft::Output,
        received: Received<'_>,
        outputs: &mut Vec<Output>,
    ) {
        match output {
            raft::Output::Send { to, message } => {
                let (previous, entries) = message.carried();
                let records = self.entries.after(previous, entries.len());
                self.send(to, Body::Raft { message, records }, outputs);
            }
            raft::Output::Superseded { from } => self.entries.supersede(from),
            raft::Output::Accepted { first, last } => {
                for index in first.0..=last.0 {
                    self.entries.put(LogIndex(index), received.record(LogIndex(index)));
                }
            }
            raft::Output::Elected { noop } => {
                self.begin_term(now, noop);
                self.restart_session_clocks(now);
                self.await_counting(now);
                self.space_asked = None;
            }
            raft::Output::LeaseAges => self.is_lease_ageing = true,
            raft::Output::Deposed { term } => {
                self.stop_counting();
                self.abandon_proposals(term, outputs);
            }
            raft::Output::ReadChunk { to, session, snapshot, offset } => {
                self.chunk_wanted(now, (to, session), (snapshot, offset));
            }
            raft::Output::WriteChunk { snapshot, offset, bytes_count: _ } => {
                let bytes = received.records.first().cloned().unwrap_or_default();
                self.chunk_came(now, (snapshot, offset), &bytes, outputs);
            }
            raft::Output::Rebased { base } => self.rebase(base, now),
            raft::Output::LeaderChanged { .. } => self.lose_forwards(outputs),
            raft::Output::Committed { upto } => {
                assert!(upto <= self.node.last().index, "what is committed is in the log");
            }
            raft::Output::ReadReady { request, index } => self.read_ready(now, request, index),
            raft::Output::ReadFailed { request } => self.read_failed(request, outputs),
        }
    }

    /// Sends `body` to `to`, if that member is in the configuration.
    pub(super) fn send(&self, to: MemberId, body: Body, outputs: &mut Vec<Output>) {
        let (Some(from_directory), Some(to_directory)) =
            (self.setup.directories.get(&self.setup.me), self.setup.directories.get(&to))
        else {
            return;
        };
        let frame = Frame {
            cluster: self.setup.cluster,
            group: self.setup.group,
            from: self.setup.me,
            to,
            from_directory: *from_directory,
            to_directory: *to_directory,
            body,
        };
        outputs.push(Output::Send { to, frame: crate::peer::encode(&frame) });
    }

    /// Answers the client's request for its status.
    pub(super) fn status(&self) -> Status {
        Status {
            member: self.setup.me,
            role: match self.node.role() {
                RoleName::Follower => Role::Follower,
                RoleName::PreCandidate | RoleName::Candidate => Role::Candidate,
                RoleName::Leader => Role::Leader,
            },
            term: self.node.hard_state().term,
            leader: self.node.leader(),
            last_index: self.node.last().index,
            commit_index: self.node.commit(),
            applied_index: self.applied,
            revision: self.store.revision(),
            waiting_for: if self.node.has_hole() {
                "a damaged part of the log to be supplied by a peer".to_owned()
            } else {
                String::new()
            },
            cluster: self.setup.cluster,
            counters: self.counters(),
            // Builds, disks, addresses and further counters are the server's to add.
            ..Status::default()
        }
    }

    fn counters(&self) -> Vec<Counter> {
        let mut counters = vec![
            counter("keyspace_bytes", self.store.bytes()),
            counter("compacted_revision", self.store.compacted().map_or(0, |revision| revision.0)),
            counter("quota_bytes", self.setup.quota_bytes),
            counter("space_alarm", u64::from(self.store.is_full())),
            counter("space_alarm_by_bytes", u64::from(self.store.is_full_by_bytes())),
            counter("leader_lease_micros", self.node.leases_micros()),
            counter("leases", self.store.lease_count() as u64),
            counter("log_base_index", self.node.base().index.0),
            counter("log_bytes", self.entries.bytes()),
            counter("snapshot_index", self.snapshots.newest().index.0),
            counter("snapshots_failed", self.snapshots.failed_count),
            counter("reads_too_old", self.reads.freshness.refused_count),
        ];
        counters.extend(self.store.alarms_by_hand().map(|number| counter("space_alarm_by_hand", number)));
        counters
    }

    /// What invariants may look at.
    pub(super) fn observe(&self) -> Observation {
        Observation {
            group: self.setup.group,
            role: self.node.role(),
            hard_state: self.node.hard_state(),
            leader: self.node.leader(),
            last: self.node.last(),
            base: self.node.base(),
            snapshot: self.snapshots.newest(),
            durable: self.node.durable(),
            commit: self.node.commit(),
            acknowledged: self.node.acknowledged(),
            applied: self.applied,
            revision: self.store.revision(),
            has_hole: self.node.has_hole(),
            counts_leases: self.countdown.is_some(),
            watches_count: self.watches.watches_count(),
            queues: self.queues(),
            log_bytes: self.entries.bytes(),
            keyspace_bytes: self.store.bytes(),
            state_hash: self.state_hash,
        }
    }

    fn queues(&self) -> [Queue; 13] {
        let remembered_max = SESSIONS_ANSWERS_SHARED_MAX + SESSIONS_MAX * SESSION_ANSWERS_RESERVED;
        [
            ("proposals that wait", self.proposals.len(), self.setup.proposals_max()),
            ("bytes of proposals that wait", self.proposals_bytes, PROPOSALS_WAITING_BYTES_MAX),
            ("reads that wait", self.reads.count(), self.setup.reads_max()),
            ("forwards that wait", self.forwards.count(), self.setup.proposals_max()),
            (
                "boots of peers that forwarded",
                self.seen_forwards.count(),
                RAFT_VOTERS_MAX * FORWARD_BOOTS_MAX,
            ),
            ("sessions", self.sessions.count(), SESSIONS_MAX),
            ("responses remembered", self.sessions.remembered().0, remembered_max),
            ("bytes of responses remembered", self.sessions.remembered().1, SESSIONS_BYTES_MAX),
            ("leases", self.store.lease_count(), LEASES_MAX),
            (
                "ends of leases that wait",
                self.countdown.as_ref().map_or(0, Countdown::ends_waiting),
                LEASE_ENDS_WAITING_MAX,
            ),
            ("clients that save snapshots", self.snapshots.saves.count(), SNAPSHOT_SAVES_WAITING_MAX),
            ("watches", self.watches.watches_count(), self.setup.watches.watches_max),
            ("watches of users", self.watchers.len(), self.watches.watches_count()),
        ]
    }

    fn assert_invariants(&self) {
        assert!(self.applied <= self.node.commit(), "applied never passes commit");
        assert!(
            self.snapshots.newest().index <= self.node.commit(),
            "a snapshot holds only what is committed"
        );
        assert!(self.node.commit() <= self.node.last().index, "commit never passes the end of the log");
        assert!(
            self.proposals.first().is_none_or(|first| first > self.applied.0),
            "nobody waits for an entry that is applied"
        );
        assert!(
            self.proposals.is_empty() || self.node.role() == RoleName::Leader,
            "only a leader has proposals of its own"
        );
    }
}

/// The entries of the message being stepped.
#[derive(Clone, Copy)]
struct Received<'a> {
    /// Index of the first record.
    first: LogIndex,
    records: &'a [Bytes],
}

impl Received<'_> {
    const NOTHING: Self = Self { first: LogIndex(0), records: &[] };

    /// The record of `index`, which raft has just accepted from this message.
    fn record(&self, index: LogIndex) -> Bytes {
        let offset = index.0.checked_sub(self.first.0).and_then(|offset| usize::try_from(offset).ok());
        let record = offset.and_then(|offset| self.records.get(offset));
        record.expect("raft accepts only entries that the message carries").clone()
    }
}

fn counter(name: &str, value: u64) -> Counter {
    Counter { name: name.to_owned(), value }
}

/// A reply to a client, or to the peer that forwarded for it.
pub(super) fn reply(ticket: Ticket, response: Response) -> Output {
    Output::Reply { ticket, response }
}
