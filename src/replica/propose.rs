//! Proposals: from a client's request, or a peer's forward, to an entry of the log.
//!
//! Always: everything that could make an entry unusable is checked here, before it is proposed, because apply cannot
//! refuse and must not fail; an entry is encoded and checksummed once, here. Left out: whether a stamped write ran
//! before: only apply can know (`sessions`).

use super::apply::{Asker, Waiting};
use super::group::Replica;
use super::input::Asked;
use super::leases::LeaseQuestion;
use super::read::Question;
use super::{Output, group};
use crate::api::{EncodedCommand, ReadMode, Refusal, Request, Response, Stamp};
use crate::auth::Who;
use crate::ids::{BootMicros, KeyspaceId, LogIndex, SessionId, Term, Ticket};
use crate::kv::Command;
use crate::limits::PROPOSALS_WAITING_BYTES_MAX;
use crate::peer::{PEER_VERSION_USERS, PEER_VERSION_WAITING};
use crate::raft::{Position, RoleName};
use crate::{planted, sometimes};
use bytes::Bytes;
use wal_format::{EntryHeader, EntryKind};

/// What an entry is to hold, before it has a place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    pub(super) kind: EntryKind,
    pub(super) keyspace: KeyspaceId,
    /// The session it belongs to, if any.
    pub(super) stamp: Option<Stamp>,
    /// Who asked for it.
    pub(super) who: Who,
    pub(super) body: Bytes,
}

impl Proposal {
    /// An entry without a body.
    fn bare(kind: EntryKind, keyspace: KeyspaceId, stamp: Option<Stamp>, who: Who) -> Self {
        Self { kind, keyspace, stamp, who, body: Bytes::new() }
    }
}

impl Replica {
    /// A client's request.
    pub(super) fn request(
        &mut self,
        now: BootMicros,
        (ticket, who): Asked,
        request: Request,
        outputs: &mut Vec<Output>,
    ) {
        let (keyspace, proposal) = match request {
            Request::Status => {
                outputs.push(group::reply(ticket, Response::Status(Box::new(self.status()))));
                return;
            }
            Request::Read { keyspace, query, mode } => {
                if keyspace != self.setup.keyspace {
                    outputs.push(group::reply(ticket, Response::Refused(Refusal::NoSuchKeyspace)));
                    return;
                }
                match mode {
                    ReadMode::Linearizable => self.gather_read((ticket, who), query, outputs),
                    ReadMode::Serializable => {
                        self.gather_here(now, (ticket, who), Question::Store(query), outputs);
                    }
                    ReadMode::MaxAge { max_age_ms, otherwise } => {
                        self.gather_max_age(now, (ticket, who), (query, max_age_ms, otherwise), outputs);
                    }
                    ReadMode::MinRevision { revision, otherwise } => {
                        self.gather_min_revision(now, (ticket, who), (query, revision, otherwise), outputs);
                    }
                }
                return;
            }
            Request::KeepAlive { lease, .. } => {
                let question = LeaseQuestion { lease, is_renewal: true, wants_keys: false, who };
                self.ask_lease(now, ticket, question, outputs);
                return;
            }
            Request::TimeToLive { lease, wants_keys, .. } => {
                let question = LeaseQuestion { lease, is_renewal: false, wants_keys, who };
                self.ask_lease(now, ticket, question, outputs);
                return;
            }
            Request::Snapshot { request, .. } => {
                self.snapshot_request((ticket, who), request, outputs);
                return;
            }
            Request::Watch(_) => {
                // It comes as an input of its own, with the connection that it is about.
                outputs.push(group::reply(ticket, Response::Refused(Refusal::Malformed)));
                return;
            }
            Request::OpenSession { keyspace } => {
                (keyspace, Proposal::bare(EntryKind::OpenSession, keyspace, None, who))
            }
            Request::CloseSession { keyspace, session } => (
                keyspace,
                Proposal::bare(
                    EntryKind::CloseSession,
                    keyspace,
                    Some(Stamp { session, sequence: 0, low_water: 0 }),
                    who,
                ),
            ),
            Request::Write { keyspace, stamp, command } => {
                (keyspace, write_proposal(keyspace, stamp, who, &command))
            }
        };
        let admitted =
            if keyspace == self.setup.keyspace { check(&proposal) } else { Err(Refusal::NoSuchKeyspace) };
        match admitted {
            Ok(()) => self.propose_or_forward(now, ticket, proposal, outputs),
            Err(refusal) => outputs.push(group::reply(ticket, Response::Refused(refusal))),
        }
    }

    pub(super) fn propose_or_forward(
        &mut self,
        now: BootMicros,
        ticket: Ticket,
        proposal: Proposal,
        outputs: &mut Vec<Output>,
    ) {
        // Catalogue 36: the member that takes the request decides, and nobody after it.
        if planted!(36)
            && let Ok(command) = crate::api::decode_command(&proposal.body)
            && let Err(refusal) = self.auth.may_run(proposal.who, &command, &self.store)
        {
            outputs.push(group::reply(ticket, Response::Refused(refusal.into())));
            return;
        }
        let refusal = match self.propose(now, Asker::Client(ticket), &proposal) {
            Ok(()) => return,
            Err(Refusal::NotLeader { leader: Some(leader) }) if leader != self.setup.me => {
                match self.forward(now, ticket, leader, proposal, outputs) {
                    Ok(()) => return,
                    Err(refusal) => refusal,
                }
            }
            Err(refusal) => refusal,
        };
        outputs.push(group::reply(ticket, Response::Refused(refusal)));
    }

    /// Appends `proposal` to the log, for `asker` to be answered when it is applied.
    ///
    /// # Errors
    /// A refusal that is *not done*: nothing was appended.
    pub(super) fn propose(
        &mut self,
        now: BootMicros,
        asker: Asker,
        proposal: &Proposal,
    ) -> Result<(), Refusal> {
        // Apply would refuse it, too; but whoever says nothing of who they are is to fill no log where permissions count.
        self.may_use_sessions(proposal.who)?;
        // Whoever does not lead hands it on: what the leader knows of others counts.
        if self.node.role() == RoleName::Leader && !self.do_all_understand(proposal) {
            return Err(Refusal::NotUpgraded);
        }
        let bytes_count = record_bytes_count(proposal.body.len());
        let bytes = usize::try_from(bytes_count).unwrap_or(usize::MAX);
        if self.proposals.len() >= self.setup.proposals_max()
            || self.proposals_bytes.saturating_add(bytes) > PROPOSALS_WAITING_BYTES_MAX
        {
            sometimes!(TooManyProposalsWait);
            return Err(Refusal::Overloaded);
        }
        let position = self
            .node
            .propose(now, &[bytes_count])
            .map_err(|refused| Refusal::NotLeader { leader: refused.leader })?;
        let record = self.encode(position, proposal);
        self.entries.put(position.index, record);
        self.proposals.insert(position.index.0, Waiting { term: position.term, asker, bytes });
        self.proposals_bytes += bytes;
        Ok(())
    }

    /// Whether every other voter is known to understand such an entry. A member of an older build would ignore it, so that its
    /// state differed from ours, or take it for damage. Once there were users every voter knew them, and nobody goes back.
    fn do_all_understand(&self, proposal: &Proposal) -> bool {
        match proposal.kind {
            EntryKind::Users => self.auth.has_history() || self.do_all_others_speak(PEER_VERSION_USERS),
            EntryKind::Command if crate::api::raises_alarm_by_hand(&proposal.body) => {
                self.do_all_others_speak(PEER_VERSION_WAITING)
            }
            EntryKind::Command
            | EntryKind::NoOp
            | EntryKind::OpenSession
            | EntryKind::CloseSession
            | EntryKind::ExpireSession
            | EntryKind::StateCheck
            | EntryKind::Configuration => true,
        }
    }

    /// The record of the no-op that begins a term (Raft §8), and says how long its leader answers reads alone.
    pub(super) fn encode_noop(&mut self, position: Position) -> Bytes {
        let noop = self.noop(Who::Nobody);
        self.encode(position, &noop)
    }

    fn encode(&mut self, position: Position, proposal: &Proposal) -> Bytes {
        let stamp = proposal.stamp.unwrap_or(Stamp { session: SessionId(0), sequence: 0, low_water: 0 });
        let (principal, auth_revision) = proposal.who.to_entry();
        let header = EntryHeader {
            group: self.setup.group.0,
            term: position.term.0,
            index: position.index.0,
            kind: proposal.kind,
            keyspace: proposal.keyspace.0,
            session: stamp.session.0,
            sequence: stamp.sequence,
            low_water: stamp.low_water,
            principal: principal.0,
            auth_revision: auth_revision.0,
        };
        self.entries.encode(&header, &proposal.body)
    }

    /// This member leads no more: whoever waits for an entry of `term` learns that its outcome is unknown.
    pub(super) fn abandon_proposals(&mut self, term: Term, outputs: &mut Vec<Output>) {
        self.proposals_bytes = 0;
        for waiting in std::mem::take(&mut self.proposals).into_values() {
            sometimes!(ProposalAbandoned);
            assert!(waiting.term <= term, "a proposal is of a term in which this member led");
            self.answer(waiting.asker, Response::Refused(Refusal::LeaderChanged), outputs);
        }
    }

    /// A new leader knows nothing of when sessions were last used: each starts its idle time anew.
    pub(super) fn restart_session_clocks(&mut self, now: BootMicros) {
        self.session_seen.clear();
        self.next_session_sweep = now;
    }

    /// Proposes the end of sessions that nothing has named for long, by this leader's own clock.
    pub(super) fn expire_sessions(&mut self, now: BootMicros) {
        if self.node.role() != RoleName::Leader || now < self.next_session_sweep {
            return;
        }
        self.next_session_sweep = now.after(self.setup.session_idle_micros / 4);
        let mut idle: Vec<(SessionId, LogIndex)> = Vec::new();
        let mut seen_now = std::collections::BTreeMap::new();
        for session in self.sessions.open_sessions() {
            let named = self.sessions.last_named(session).expect("an open session has been named");
            let since = match self.session_seen.get(&session) {
                Some((seen, since)) if *seen == named => *since,
                Some(_) | None => now,
            };
            seen_now.insert(session, (named, since));
            if now.since(since) >= self.setup.session_idle_micros {
                idle.push((session, named));
            }
        }
        self.session_seen = seen_now;
        for (session, named) in idle {
            let keyspace = self.setup.keyspace;
            let stamp = Stamp { session, sequence: 0, low_water: named.0 };
            let proposal = Proposal::bare(EntryKind::ExpireSession, keyspace, Some(stamp), Who::Cluster);
            // A refusal is harmless: the next sweep proposes it again.
            let _ = self.propose(now, Asker::Nobody, &proposal);
        }
    }
}

/// Bytes of the encoded record of an entry with a body of `body_bytes`.
pub(super) fn record_bytes_count(body_bytes: usize) -> u32 {
    u32::try_from(wal_format::entry_bytes_count(body_bytes)).expect("bodies are bounded far below 4 GiB")
}

fn write_proposal(
    keyspace: KeyspaceId,
    stamp: Option<Stamp>,
    who: Who,
    command: &EncodedCommand,
) -> Proposal {
    Proposal { kind: EntryKind::Command, keyspace, stamp, who, body: command.bytes().clone() }
}

/// The leader's full check before proposing: an entry that apply cannot run must never be made.
///
/// What the store would refuse is proposed all the same: that refusal has a revision, and so a place in the order.
pub(super) fn check(proposal: &Proposal) -> Result<(), Refusal> {
    match proposal.kind {
        EntryKind::Command => {
            let command = crate::api::decode_command(&proposal.body).map_err(|_| Refusal::Malformed)?;
            // What a leader says of leases it says itself.
            let is_for_leaders = matches!(&command, Command::Lease(command) if command.is_for_leaders());
            if is_for_leaders {
                return Err(Refusal::Malformed);
            }
            if proposal.stamp.is_some_and(|stamp| stamp.session == SessionId(0)) {
                return Err(Refusal::Malformed);
            }
            Ok(())
        }
        EntryKind::Users => {
            crate::auth::decode_command(&proposal.body).map_err(|_| Refusal::Malformed)?;
            if proposal.stamp.is_some_and(|stamp| stamp.session == SessionId(0)) {
                return Err(Refusal::Malformed);
            }
            Ok(())
        }
        EntryKind::OpenSession | EntryKind::CloseSession if proposal.body.is_empty() => Ok(()),
        // The version of a hash: what it is worth is for whoever hears it.
        EntryKind::StateCheck if proposal.body.len() == 1 => Ok(()),
        EntryKind::NoOp
        | EntryKind::OpenSession
        | EntryKind::CloseSession
        | EntryKind::ExpireSession
        | EntryKind::StateCheck
        | EntryKind::Configuration => Err(Refusal::Malformed),
    }
}
