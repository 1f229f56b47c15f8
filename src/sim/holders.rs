//! Holders of leases: clients that are granted a lease, renew it for a while, and then leave it to its end.
//!
//! Each asks one member at a time, any of them, and does not ask again for the same: what it was not told it does not
//! count on. Some leases are not left to their end, but revoked. Now and then somebody asks how long a lease lasts, its own or
//! another's. While a lease lasts its holder attaches keys to it, or takes one away from whichever lease has it, so that keys
//! go from lease to lease. Always: what each lease was promised and when it ended are written down on the true line of time,
//! for `check::judge_lease`; no other client reads or writes these keys, but there are watches on them, and all
//! revisions count. In half of the runs permissions count, and keys are attached by a user who gains and loses the permission
//! for it all the time, often while a key is on its way. Left out: what holders read.

use super::clock::TrueMicros;
use super::events::{Event, Queue};
use super::fault_plan::FaultPlan;
use super::random::Random;
use crate::api::{Certainty, EncodedCommand, Request, Response, UsersRequest};
use crate::auth::{Access, AuthCommand, Secret, Who};
use crate::check::{Counted, LeaseHistory, Renewal, Told};
use crate::ids::{AuthRevision, KeyspaceId, LeaseId, Principal, Ticket};
use crate::kv::{Applied, Command, Grant, KeyRange, LeaseCommand, LeaseOutcome, Outcome, Put, Revoke};
use crate::limits::AUTH_TOKEN_KEY_BYTES;
use crate::replica::Input;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Holders of one run.
const HOLDERS_COUNT: usize = 4;

/// The TTLs of their leases, at the least and at the most.
const TTL_MILLIS: (u64, u64) = (300, 8_000);

/// Mean time between the end of interest in one lease and the next.
const THINK_MICROS: u64 = 500_000;

/// How long an answer is waited for at the most.
const PATIENCE_MICROS: u64 = 1_000_000;

/// Keys that holders attach to their leases, all of them together: few, so that they go from one lease to another.
const KEYS_COUNT: u64 = 5;

/// What their names begin with: before those of all keys that other clients know.
const KEY_PREFIX: &str = "held/";

/// Tickets of holders are this and above; those of other clients are below.
const TICKETS_FROM: u64 = 1 << 40;

/// What happens to leases in the committed log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseNews {
    /// The first entry of a leader's term: from here on it counts.
    CountingBegan,
    /// A lease is made.
    Granted(LeaseId, u64),
    /// Something is written down of what remains of it, in milliseconds.
    Remains(LeaseId, u64),
    /// It has run out.
    Ended(LeaseId),
    /// It has ended because somebody asked for that.
    Revoked(LeaseId),
}

/// All holders, and what became of their leases.
#[derive(Debug)]
pub(super) struct Holders {
    loops: Vec<Holder>,
    attempts: Vec<Attempt>,
    leases: BTreeMap<LeaseId, LeaseHistory>,
    /// What the log says remains of each lease that lives, in milliseconds.
    remaining: BTreeMap<LeaseId, u64>,
    /// Leases that their holders want to end, unless they were told that this was not done.
    to_be_revoked: BTreeSet<LeaseId>,
    members_count: usize,
    think_micros: u64,
    /// By how much clocks are fast or slow at the most, over the whole run.
    drift_ppm: u32,
    leases_count: u64,
    /// Keys attached so far, each with a value of its own.
    puts_count: u64,
    /// Whether nothing hinders clocks and members any more.
    is_calm: bool,
    is_open: bool,
    /// Whether there are users, and the revision of what they may do, as the log says.
    has_users: bool,
    auth_revision: AuthRevision,
    random: Random,
}

#[derive(Debug, Default)]
struct Holder {
    /// The lease it renews, and how often it still will.
    lease: Option<(LeaseId, u64)>,
    /// The attempt whose answer it waits for.
    waits_for: Option<usize>,
    /// Counts its wakings, so that an outdated one is told.
    step: u64,
}

#[derive(Debug)]
struct Attempt {
    holder: usize,
    member: usize,
    lease: LeaseId,
    purpose: Purpose,
    who: Who,
    asking: Asking,
}

/// What for somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To have the lease, or to keep it; the place among the renewals of its lease.
    Renewal(usize),
    /// To end it.
    Revocation,
    /// To know how long it lasts.
    Question {
        /// When this was asked.
        asked: TrueMicros,
        /// Whether the lease lived then, as the log says.
        was_living: bool,
    },
    /// Something else.
    Other,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) enum Asking {
    Client(Request),
    Users(AuthCommand),
}

impl Holders {
    /// Holders that are about to begin.
    pub(super) fn new(plan: &FaultPlan, mut random: Random, queue: &mut Queue) -> Self {
        for holder in 0..HOLDERS_COUNT {
            let at = TrueMicros(random.below(4 * THINK_MICROS));
            queue.plan(at, Event::Holder { holder, step: 0 });
        }
        Self {
            loops: (0..HOLDERS_COUNT).map(|_| Holder::default()).collect(),
            attempts: Vec::new(),
            leases: BTreeMap::new(),
            remaining: BTreeMap::new(),
            to_be_revoked: BTreeSet::new(),
            members_count: plan.members_count,
            think_micros: THINK_MICROS * plan.pace,
            drift_ppm: plan.drift_ppm,
            leases_count: 0,
            puts_count: 0,
            is_calm: false,
            is_open: true,
            has_users: random.below(2) == 0,
            auth_revision: AuthRevision(1),
            random,
        }
    }

    /// Whether a ticket is that of a holder.
    pub(super) const fn is_theirs(ticket: u64) -> bool {
        ticket >= TICKETS_FROM
    }

    /// Where an attempt goes, and what it asks.
    pub(super) fn asked(&self, ticket: u64) -> Option<(usize, Input)> {
        let Attempt { member, who, asking, .. } = self.attempt(ticket)?;
        let (ticket, who) = (Ticket(ticket), *who);
        let input = match asking.clone() {
            Asking::Client(request) => Input::Client { ticket, who, request },
            Asking::Users(command) => {
                let request = UsersRequest::Change { stamp: None, command };
                Input::Users { ticket, who, request }
            }
        };
        Some((*member, input))
    }

    /// The log says that users and roles are at this revision.
    pub(super) fn users_are_at(&mut self, revision: AuthRevision) {
        self.auth_revision = revision;
    }

    /// What happened to every lease that was asked for.
    pub(super) fn histories(&self) -> impl Iterator<Item = &LeaseHistory> {
        self.leases.values()
    }

    /// What happened to the lease of an attempt.
    pub(super) fn history_of(&self, ticket: u64) -> Option<&LeaseHistory> {
        self.leases.get(&self.attempt(ticket)?.lease)
    }

    /// What for an attempt asks.
    pub(super) fn purpose(&self, ticket: u64) -> Option<Purpose> {
        self.attempt(ticket).map(|attempt| attempt.purpose)
    }

    /// Whether the holder of this lease wants it to end.
    pub(super) fn may_be_revoked(&self, lease: LeaseId) -> bool {
        self.to_be_revoked.contains(&lease)
    }

    /// The holder that asked for the end of its lease was told that this was not done.
    pub(super) fn revocation_refused(&mut self, ticket: u64) {
        if let Some(Attempt { lease, .. }) = self.attempts.get(place_of(ticket).unwrap_or(usize::MAX)) {
            self.to_be_revoked.remove(lease);
        }
    }

    /// By how much clocks are fast or slow at the most, over the whole run: when all is calm they may agree.
    pub(super) const fn drift_ppm(&self) -> u32 {
        self.drift_ppm
    }

    /// How many leases have not ended, as far as the log says.
    pub(super) fn living_count(&self) -> usize {
        self.remaining.len()
    }

    /// From now on clocks go and members count without hindrance.
    pub(super) fn calm_down(&mut self) {
        self.is_calm = true;
    }

    /// Asks for nothing any more.
    pub(super) fn close(&mut self) {
        self.is_open = false;
    }

    /// A holder's time has come: for its next lease or renewal, or to wait no longer.
    pub(super) fn wake(&mut self, now: TrueMicros, (holder, step): (usize, u64), queue: &mut Queue) {
        let this = &mut self.loops[holder];
        if this.step != step || !self.is_open {
            return;
        }
        let was_waiting = this.waits_for.take();
        // A grant that was not answered in time is given up: whether there is such a lease nobody knows.
        if was_waiting.is_some_and(|at| self.attempts[at].purpose == Purpose::Renewal(0)) {
            this.lease = None;
        }
        let (lease, request) = match this.lease {
            Some((lease, 0)) => {
                this.lease = None;
                if self.random.below(3) == 0 {
                    self.revoke(now, holder, lease, queue);
                }
                let rest = self.random.waiting_time(self.think_micros);
                self.wake_after(now, holder, rest, queue);
                return;
            }
            Some((lease, left)) => {
                this.lease = Some((lease, left - 1));
                (lease, Request::KeepAlive { keyspace: KeyspaceId::FIRST, lease })
            }
            None => self.next_lease(holder),
        };
        self.ask(now, holder, lease, request, queue);
    }

    /// An answer arrives, perhaps late: what it promises counts all the same.
    pub(super) fn hear(&mut self, now: TrueMicros, ticket: u64, response: &Response, queue: &mut Queue) {
        let Some(at) = place_of(ticket) else {
            return;
        };
        let Some(Attempt { holder, lease, purpose: Purpose::Renewal(renewal), .. }) = self.attempts.get(at)
        else {
            return;
        };
        let (holder, renewal, lease) = (*holder, *renewal, *lease);
        let Some(history) = self.leases.get_mut(&lease) else {
            return;
        };
        let is_awaited = self.loops[holder].waits_for == Some(at);
        let lasts = match response {
            Response::Applied(Applied { outcome: Outcome::Lease(LeaseOutcome::Granted(_)), .. }) => true,
            Response::Applied(Applied {
                outcome: Outcome::Lease(LeaseOutcome::Renewed(renewed)), ..
            }) => renewed.ttl_ms > 0,
            _ => false,
        };
        let ttl_micros = history.ttl_micros;
        if lasts {
            history.renewals[renewal].told = Told::Lasts(now.0);
        } else if let Response::Refused(refusal) = response
            && refusal.certainty() == Certainty::NotDone
        {
            history.renewals[renewal].told = Told::NotDone;
        }
        if !is_awaited {
            return;
        }
        self.loops[holder].waits_for = None;
        if lasts && self.random.below(2) == 0 {
            self.attach(now, holder, lease, queue);
        }
        if self.random.below(4) == 0 {
            self.inquire(now, holder, lease, queue);
        }
        let rest = if lasts {
            ttl_micros / 3
        } else {
            if renewal == 0 || matches!(response, Response::Applied(_)) {
                self.loops[holder].lease = None;
            }
            self.random.waiting_time(ttl_micros / 20)
        };
        self.wake_after(now, holder, rest, queue);
    }

    /// Something happened to leases in the committed log.
    pub(super) fn note(&mut self, now: TrueMicros, news: LeaseNews) -> Option<&LeaseHistory> {
        match news {
            LeaseNews::CountingBegan => {
                for (lease, remaining_ms) in &self.remaining {
                    let counted = Counted { from: now.0, remaining_micros: remaining_ms * 1_000 };
                    if let Some(history) = self.leases.get_mut(lease) {
                        history.counted = self.is_calm.then_some(counted);
                    }
                }
                None
            }
            LeaseNews::Granted(lease, ttl_ms) => {
                self.remaining.insert(lease, ttl_ms);
                let counted = Counted { from: now.0, remaining_micros: ttl_ms * 1_000 };
                self.leases.get_mut(&lease)?.counted = self.is_calm.then_some(counted);
                None
            }
            LeaseNews::Remains(lease, remaining_ms) => {
                self.remaining.insert(lease, remaining_ms);
                None
            }
            LeaseNews::Ended(lease) | LeaseNews::Revoked(lease) => {
                self.remaining.remove(&lease);
                let history = self.leases.get_mut(&lease)?;
                history.ended = Some(now.0);
                history.is_revoked = news == LeaseNews::Revoked(lease);
                Some(history)
            }
        }
    }

    fn attempt(&self, ticket: u64) -> Option<&Attempt> {
        self.attempts.get(place_of(ticket)?)
    }

    fn next_lease(&mut self, holder: usize) -> (LeaseId, Request) {
        self.leases_count += 1;
        let lease = LeaseId(self.leases_count);
        let ttl_ms = self.random.magnitude(TTL_MILLIS.0, TTL_MILLIS.1);
        let (ttl_micros, renewals) = (ttl_ms * 1_000, Vec::new());
        let history =
            LeaseHistory { lease, ttl_micros, renewals, ended: None, is_revoked: false, counted: None };
        self.leases.insert(lease, history);
        self.loops[holder].lease = Some((lease, self.random.below(8)));
        let grant = Command::Lease(LeaseCommand::Grant(Grant { lease, ttl_ms }));
        let command = EncodedCommand::encode(&grant).expect("a grant is within every limit");
        (lease, Request::Write { keyspace: KeyspaceId::FIRST, stamp: None, command })
    }

    /// Asks for the end of a lease, and does not wait for the answer.
    fn revoke(&mut self, now: TrueMicros, holder: usize, lease: LeaseId, queue: &mut Queue) {
        self.to_be_revoked.insert(lease);
        let command = Command::Lease(LeaseCommand::Revoke(Revoke { lease }));
        let command = EncodedCommand::encode(&command).expect("a revocation is within every limit");
        let request = Request::Write { keyspace: KeyspaceId::FIRST, stamp: None, command };
        let asking = Asking::Client(request);
        self.say(now, (holder, lease), Purpose::Revocation, (Who::Cluster, asking), queue);
    }

    /// Asks how long a lease lasts, this one or one that was granted not long ago.
    fn inquire(&mut self, now: TrueMicros, holder: usize, own: LeaseId, queue: &mut Queue) {
        let back = self.random.below(8).min(self.leases_count - 1);
        let lease = if self.random.below(2) == 0 { own } else { LeaseId(self.leases_count - back) };
        let was_living = self.remaining.contains_key(&lease);
        let wants_keys = self.random.below(2) == 0;
        let request = Request::TimeToLive { keyspace: KeyspaceId::FIRST, lease, wants_keys };
        let (purpose, asking) = (Purpose::Question { asked: now, was_living }, Asking::Client(request));
        self.say(now, (holder, lease), purpose, (Who::Cluster, asking), queue);
    }

    /// Puts a key under a lease that lasts, or now and then under none, and does not wait for the answer.
    fn attach(&mut self, now: TrueMicros, holder: usize, lease: LeaseId, queue: &mut Queue) {
        self.puts_count += 1;
        let key = Bytes::from(format!("{KEY_PREFIX}{}", self.random.below(KEYS_COUNT)));
        let value = Bytes::from(format!("held {}", self.puts_count));
        let named = if self.random.below(8) == 0 { LeaseId(0) } else { lease };
        let put = Command::Put(Put { lease: named, ..Put::new(key, value) });
        let command = EncodedCommand::encode(&put).expect("a small put is within every limit");
        let request = Request::Write { keyspace: KeyspaceId::FIRST, stamp: None, command };
        if !self.has_users {
            let asking = (Who::Cluster, Asking::Client(request));
            self.say(now, (holder, lease), Purpose::Other, asking, queue);
            return;
        }
        let principal = Principal(1 + u32::try_from(self.random.below(2)).unwrap_or(0));
        let who = Who::User { principal, revision: self.auth_revision };
        self.say(now, (holder, lease), Purpose::Other, (who, Asking::Client(request)), queue);
        for _ in 0..self.random.below(4) {
            let change = self.any_change();
            let asking = (Who::Cluster, Asking::Users(change));
            self.say(now, (holder, LeaseId(0)), Purpose::Other, asking, queue);
        }
    }

    /// Something about users. All of it is said again and again, because any of it may be lost.
    fn any_change(&mut self) -> AuthCommand {
        let (root, user, role) = ("root".to_owned(), "holder".to_owned(), "attaching".to_owned());
        let range = KeyRange::Span { start: KEY_PREFIX.into(), end: "held0".into() };
        match self.random.below(12) {
            0 => AuthCommand::AddUser { name: root, secret: None },
            1 => AuthCommand::AddUser { name: user, secret: None },
            2 => AuthCommand::GrantRole { user: root.clone(), role: root },
            3 => AuthCommand::AddRole { name: role },
            4 => AuthCommand::GrantRole { user, role },
            5 => AuthCommand::Enable { token_key: Secret(Bytes::from_static(&[7; AUTH_TOKEN_KEY_BYTES])) },
            6 => AuthCommand::Disable,
            7 | 8 => AuthCommand::RevokePermission { role, range },
            _ => AuthCommand::GrantPermission { role, range, access: Access::Write },
        }
    }

    /// Asks any member for something, and does not wait for the answer.
    fn say(
        &mut self,
        now: TrueMicros,
        (holder, lease): (usize, LeaseId),
        purpose: Purpose,
        (who, asking): (Who, Asking),
        queue: &mut Queue,
    ) {
        let member = self.random.position(self.members_count);
        let ticket = TICKETS_FROM + self.attempts.len() as u64;
        self.attempts.push(Attempt { holder, member, lease, purpose, who, asking });
        let delay = self.random.waiting_time(300);
        queue.plan(now.after(delay), Event::HolderRequest { ticket });
    }

    fn ask(&mut self, now: TrueMicros, holder: usize, lease: LeaseId, request: Request, queue: &mut Queue) {
        let Some(history) = self.leases.get_mut(&lease) else {
            return;
        };
        let renewal = history.renewals.len();
        history.renewals.push(Renewal { asked: now.0, told: Told::Nothing });
        let patience = (history.ttl_micros / 2).min(PATIENCE_MICROS);
        let member = self.random.position(self.members_count);
        let ticket = TICKETS_FROM + self.attempts.len() as u64;
        self.loops[holder].waits_for = Some(self.attempts.len());
        let (who, asking) = (Who::Cluster, Asking::Client(request));
        self.attempts.push(Attempt {
            holder,
            member,
            lease,
            purpose: Purpose::Renewal(renewal),
            who,
            asking,
        });
        let delay = self.random.waiting_time(300);
        queue.plan(now.after(delay), Event::HolderRequest { ticket });
        self.wake_after(now, holder, patience, queue);
    }

    fn wake_after(&mut self, now: TrueMicros, holder: usize, micros: u64, queue: &mut Queue) {
        let this = &mut self.loops[holder];
        this.step += 1;
        queue.plan(now.after(micros + 1), Event::Holder { holder, step: this.step });
    }
}

/// Whether a key is one of those that holders attach to their leases.
pub(super) fn is_held_key(key: &Bytes) -> bool {
    key.starts_with(KEY_PREFIX.as_bytes())
}

/// The place of the attempt with this ticket.
fn place_of(ticket: u64) -> Option<usize> {
    ticket.checked_sub(TICKETS_FROM).and_then(|place| usize::try_from(place).ok())
}
