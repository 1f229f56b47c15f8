//! Who may do what: changed by entries of the log, and asked wherever something is done or told.
//!
//! Always: a write is judged in apply, by users and roles as they are at its place in the log, so every member judges alike
//! and nothing that happens between a request and its place can be missed (etcd #14571, catalogue 36); a read is judged in
//! the very moment, by the very state, that answers it; a watch is judged when it begins and whenever users or roles change.
//! While permissions do not count, none of that takes more than one look. Left out: what the rules are (`auth`), and how a
//! member finds out who asks (`server`).

use super::Output;
use super::group::Replica;
use super::input::Asked;
use super::leases::LeaseQuestion;
use super::propose::{self, Proposal};
use super::read::Question;
use crate::api::{ReadMode, Refusal, Response, UsersAnswer, UsersRequest};
use crate::auth::{AuthCommand, AuthQuery, AuthRefusal, Who};
use crate::ids::{AuthRevision, BootMicros, Principal};
use crate::kv::{Command, Query};
use crate::planted;
use bytes::Bytes;
use wal_format::{EntryHeader, EntryKind};

/// Who asked for an entry.
pub(super) fn who_asked(header: &EntryHeader) -> Who {
    Who::of_entry(Principal(header.principal), AuthRevision(header.auth_revision))
}

impl Replica {
    /// A client's request about users and roles.
    pub(super) fn users(
        &mut self,
        now: BootMicros,
        (ticket, who): Asked,
        request: UsersRequest,
        outputs: &mut Vec<Output>,
    ) {
        let (stamp, command) = match request {
            UsersRequest::Ask { query, mode: ReadMode::Serializable } => {
                self.gather_here(now, (ticket, who), Question::Users(query), outputs);
                return;
            }
            // Nobody asks of users with a bound; to ask the leader keeps every bound.
            UsersRequest::Ask {
                query,
                mode: ReadMode::Linearizable | ReadMode::MaxAge { .. } | ReadMode::MinRevision { .. },
            } => {
                self.gather_for((ticket, who), Question::Users(query), outputs);
                return;
            }
            UsersRequest::Change { stamp, command } => (stamp, command),
        };
        let (kind, keyspace) = (EntryKind::Users, self.setup.keyspace);
        let body = Bytes::from(crate::auth::encode_command(&command));
        let proposal = Proposal { kind, keyspace, stamp, who, body };
        match propose::check(&proposal) {
            Ok(()) => self.propose_or_forward(now, ticket, proposal, outputs),
            Err(refusal) => outputs.push(super::group::reply(ticket, Response::Refused(refusal))),
        }
    }

    /// Runs an entry that changes users or roles.
    pub(super) fn run_users(&mut self, who: Who, body: &Bytes) -> Response {
        let changed = crate::auth::decode_command(body)
            .map_err(|_| Refusal::Malformed)
            .and_then(|command| self.change_users(who, &command).map_err(Refusal::Users));
        match changed {
            Ok(()) => Response::Users { revision: self.store.revision(), answer: UsersAnswer::Changed },
            Err(refusal) => Response::Refused(refusal),
        }
    }

    fn change_users(&mut self, who: Who, command: &AuthCommand) -> Result<(), AuthRefusal> {
        self.auth.may_administer(who)?;
        self.auth.apply(command)?;
        // Whoever keeps up is told first of what came before that.
        self.watch_advance();
        self.withdraw_watches();
        Ok(())
    }

    /// Who asks, as a peer is told. Where there were never users nobody is named, because a leader of the version before would
    /// refuse what names somebody.
    pub(super) fn asker_for_peers(&self, who: Who) -> (Principal, AuthRevision) {
        if self.auth.has_history() { who.to_entry() } else { Who::Nobody.to_entry() }
    }

    /// Whether an entry may be run that asks for `command`.
    pub(super) fn may_run(&self, who: Who, command: &Command) -> Result<(), AuthRefusal> {
        let is_asked = self.auth.is_enabled() && !planted!(36);
        if is_asked { self.auth.may_run(who, command, &self.store) } else { Ok(()) }
    }

    /// Whether anything that `who` asks for may be found in the memory of sessions.
    pub(super) fn may_use_sessions(&self, who: Who) -> Result<(), AuthRefusal> {
        // Whoever was known when the first copy of an entry was applied is told what became of it, whatever came since.
        if who == Who::Nobody { self.auth.may_ask_anything(who) } else { Ok(()) }
    }

    /// Whether a question may be answered now.
    pub(super) fn may_read(&self, who: Who, query: &Query) -> Result<(), AuthRefusal> {
        if self.auth.is_enabled() { self.auth.may_read(who, query, &self.store) } else { Ok(()) }
    }

    /// Whether a question about the time of a lease may be answered now. To renew one, it is enough to be a user still:
    /// whoever keeps leases alive need not be found anew with each change of somebody else's permissions.
    pub(super) fn may_use_lease(&self, question: &LeaseQuestion) -> Result<(), AuthRefusal> {
        let who = if question.is_renewal { self.auth.found_now(question.who) } else { question.who };
        self.auth.may_use_lease(who, question.lease, question.wants_keys, &self.store)
    }

    /// The answer to a question about users and roles.
    pub(super) fn answer_about_users(&self, who: Who, query: &AuthQuery) -> Response {
        let told = self.auth.may_ask(who, query).and_then(|()| self.auth.query(query));
        match told {
            Ok(told) => Response::Users { revision: self.store.revision(), answer: UsersAnswer::Told(told) },
            Err(refusal) => Response::Refused(refusal.into()),
        }
    }
}
