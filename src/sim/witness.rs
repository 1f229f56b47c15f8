//! The committed log as a witness: which writes took effect, in which order.
//!
//! Always: only what a member called committed gets in, once, in the order of the log. A copy of a write that the
//! rules of sessions keep from running (its session is over, its sequence is at or below the low-water mark) is left
//! out; second copies stay in, because telling them apart is the checker's business. A write without a stamp is known by
//! the bytes of its command, which no other write has, and has no second copy. What holders of leases write, and what a
//! leader says of leases and of space, is in the order as what others did.

use super::holders::{LeaseNews, is_held_key};
use super::invariants::{Broken, holds};
use super::random::fingerprint;
use crate::api::{Certainty, Refusal, decode_command};
use crate::auth::{Auth, Who};
use crate::check::{CommittedWrite, WriteId};
use crate::ids::{AuthRevision, LeaseId, LogIndex, Principal, Revision, SessionId, Term};
use crate::kv::{Command, LeaseCommand, LeaseLife, Store};
use crate::sometimes;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use wal_format::{EntryHeader, EntryKind};

/// What the committed log says.
#[derive(Debug, Default)]
pub(super) struct Witness {
    order: Vec<CommittedWrite>,
    committed: BTreeSet<WriteId>,
    sessions: BTreeMap<SessionId, Session>,
    /// Every session that ever was opened.
    opened: BTreeSet<SessionId>,
    /// Every session that was closed on its client's word.
    closed: BTreeSet<SessionId>,
    /// How many entries of the order were second copies.
    copies_count: u64,
    /// The newest term of an entry.
    newest_term: Term,
    /// Whether the alarm is raised that there is no space.
    alarms: BTreeSet<Option<u64>>,
    /// The leases that live: the number of the grant of each, and its TTL.
    leases: BTreeMap<LeaseId, (u64, u64)>,
    /// Leases granted so far.
    grants: u64,
    /// What happened to leases since somebody asked.
    lease_news: Vec<LeaseNews>,
    /// The highest revision that anybody asked to compact to.
    compacted: Revision,
    /// Who may do what.
    auth: Auth,
}

fn who_asked(header: &EntryHeader) -> Who {
    Who::of_entry(Principal(header.principal), AuthRevision(header.auth_revision))
}

#[derive(Clone, Copy, Debug)]
struct Session {
    low_water: u64,
    last_named: LogIndex,
}

impl Witness {
    /// The writes that took effect, in order.
    pub(super) fn order(&self) -> &[CommittedWrite] {
        &self.order
    }

    /// How many committed entries were retries of committed writes.
    pub(super) const fn copies_count(&self) -> u64 {
        self.copies_count
    }

    /// How far the history was compacted, at the most.
    pub(super) const fn compacted(&self) -> Revision {
        self.compacted
    }

    /// The revision of who may do what.
    pub(super) const fn auth_revision(&self) -> AuthRevision {
        self.auth.revision()
    }

    /// Whether a copy of the write is committed.
    pub(super) fn has_committed(&self, write: WriteId) -> bool {
        self.committed.contains(&write)
    }

    /// Whether the opening of this session is committed.
    pub(super) fn has_opened(&self, session: SessionId) -> bool {
        self.opened.contains(&session)
    }

    /// Whether the session was open, and its closing is committed.
    pub(super) fn has_closed(&self, session: SessionId) -> bool {
        self.closed.contains(&session)
    }

    /// Checks that a write without a stamp, which is sent once, is not in the log if its client is told that it is not done.
    ///
    /// # Errors
    /// If it is.
    pub(super) fn a_bare_write_told_not_done_is_not_done(
        &self,
        write: WriteId,
        refusal: Refusal,
    ) -> Result<(), Broken> {
        let is_told = write.session == SessionId(0) && refusal.certainty() == Certainty::NotDone;
        holds(!is_told || !self.has_committed(write), "a_bare_write_told_not_done_is_not_done", || {
            format!("write {write} is committed, and its client is told {refusal:?}")
        })
    }

    /// What happened to leases since the last time.
    pub(super) fn take_lease_news(&mut self) -> Vec<LeaseNews> {
        core::mem::take(&mut self.lease_news)
    }

    /// Something about leases is committed. Nobody in a run asks for it under a session, so it is not written twice.
    fn commit_lease(&mut self, command: &LeaseCommand) {
        let lives =
            |life: &LeaseLife| self.leases.get(&life.lease).is_some_and(|(grant, _)| *grant == life.grant);
        match command {
            LeaseCommand::Grant(grant)
                if self.alarms.is_empty() && !self.leases.contains_key(&grant.lease) =>
            {
                self.grants += 1;
                self.leases.insert(grant.lease, (self.grants, grant.ttl_ms));
                self.lease_news.push(LeaseNews::Granted(grant.lease, grant.ttl_ms));
            }
            LeaseCommand::Expire(life) if lives(life) => {
                self.leases.remove(&life.lease);
                self.lease_news.push(LeaseNews::Ended(life.lease));
            }
            LeaseCommand::Revoke(revoke) => {
                if self.leases.remove(&revoke.lease).is_some() {
                    self.lease_news.push(LeaseNews::Revoked(revoke.lease));
                }
            }
            LeaseCommand::Checkpoint(all) => {
                for remaining in all.iter().filter(|remaining| lives(&remaining.life)) {
                    let news = LeaseNews::Remains(remaining.life.lease, remaining.remaining_ms);
                    self.lease_news.push(news);
                }
            }
            LeaseCommand::Renew(life) if lives(life) => {
                let ttl_ms = self.leases.get(&life.lease).map_or(0, |(_, ttl_ms)| *ttl_ms);
                self.lease_news.push(LeaseNews::Remains(life.lease, ttl_ms));
            }
            LeaseCommand::Grant(_) | LeaseCommand::Expire(_) | LeaseCommand::Renew(_) => {}
        }
    }

    /// The entry at `index` is committed; returns its term.
    ///
    /// # Errors
    /// If nobody could apply it.
    pub(super) fn commit(&mut self, index: LogIndex, record: &Bytes) -> Result<Term, Broken> {
        const NAME: &str = "what_is_committed_can_be_applied";
        let Ok((header, body)) = wal_format::decode_entry(record) else {
            return Err(Broken {
                invariant: NAME,
                explanation: format!("the record of entry {index} does not decode"),
            });
        };
        holds(header.index == index.0, NAME, || format!("entry {index} names itself {}", header.index))?;
        if Term(header.term) > self.newest_term {
            self.newest_term = Term(header.term);
            self.lease_news.push(LeaseNews::CountingBegan);
        }
        let session = SessionId(header.session);
        match header.kind {
            // Where users count, nobody in particular opens or closes anything: a member that did not know of users yet handed on
            // who asks as nobody.
            EntryKind::OpenSession | EntryKind::CloseSession
                if who_asked(&header) == Who::Nobody && self.auth.may_ask_anything(Who::Nobody).is_err() => {}
            EntryKind::OpenSession => {
                let fresh = Session { low_water: 0, last_named: index };
                self.sessions.insert(SessionId(index.0), fresh);
                self.opened.insert(SessionId(index.0));
            }
            EntryKind::CloseSession => {
                if self.sessions.remove(&session).is_some() {
                    self.closed.insert(session);
                }
            }
            EntryKind::ExpireSession => {
                let is_idle = |found: &Session| found.last_named.0 <= header.low_water;
                if self.sessions.get(&session).is_some_and(is_idle) {
                    self.sessions.remove(&session);
                }
            }
            EntryKind::Command => self.commit_write(index, &header, &record.slice_ref(body))?,
            EntryKind::Users => {
                let may = self.auth.may_administer(who_asked(&header));
                if let (Ok(()), Ok(command)) = (may, crate::auth::decode_command(&record.slice_ref(body))) {
                    // What is refused changes nothing.
                    let _ = self.auth.apply(&command);
                }
            }
            EntryKind::NoOp | EntryKind::Configuration | EntryKind::StateCheck => {}
        }
        Ok(Term(header.term))
    }

    fn commit_write(&mut self, index: LogIndex, header: &EntryHeader, body: &Bytes) -> Result<(), Broken> {
        let Ok(command) = decode_command(body) else {
            return Err(Broken {
                invariant: "what_is_committed_can_be_applied",
                explanation: format!("the command of entry {index} does not decode"),
            });
        };
        // What the store holds does not matter to a run's users: they may write all keys of leases, or none.
        if self.auth.may_run(who_asked(header), &command, &Store::new()).is_err() {
            sometimes!(WriteNotPermitted);
            return Ok(());
        }
        let is_of_others = match &command {
            Command::Lease(command) => {
                self.commit_lease(command);
                true
            }
            Command::SpaceAlarm(alarm) => {
                if alarm.is_raised {
                    self.alarms.insert(alarm.by_hand);
                } else {
                    self.alarms.remove(&alarm.by_hand);
                }
                true
            }
            Command::Put(put) => is_held_key(&put.key),
            Command::DeleteRange(_) | Command::Txn(_) | Command::Compact(_) => false,
        };
        if is_of_others {
            self.order.push(CommittedWrite { write: WriteId::of_others(index.0), command });
            return Ok(());
        }
        if let Command::Compact(compact) = &command {
            // No client's, and nothing that a client could be told but that what it asks for is gone.
            self.compacted = self.compacted.max(compact.revision);
            return Ok(());
        }
        if header.session == 0 {
            return self.commit_bare_write(body, command);
        }
        let write = WriteId { session: SessionId(header.session), sequence: header.sequence };
        let Some(session) = self.sessions.get_mut(&write.session) else {
            return Ok(());
        };
        session.last_named = index;
        session.low_water = session.low_water.max(header.low_water);
        if write.sequence > session.low_water {
            self.copies_count += u64::from(!self.committed.insert(write));
            self.order.push(CommittedWrite { write, command });
        }
        Ok(())
    }

    /// A write without a stamp runs as often as it is in the log.
    fn commit_bare_write(&mut self, body: &Bytes, command: Command) -> Result<(), Broken> {
        let write = WriteId { session: SessionId(0), sequence: fingerprint(body) };
        self.order.push(CommittedWrite { write, command });
        holds(self.committed.insert(write), "a_write_without_a_stamp_is_done_once", || {
            format!("write {write} is in the log a second time")
        })
    }
}
