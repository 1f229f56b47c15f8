//! What somebody may do, decided from users and roles, the store and the request alone.
//!
//! While nothing is forbidden, everything is allowed. Then whoever asks must be a user, found by the newest revision of who
//! may do what; a user with the role `root` may do everything. For the others, every key that the request *may* touch
//! is looked at, whichever way it goes, so that what is allowed does not tell what is stored. A pair that an operation
//! answers with is read, and a lease that a put uses has other keys, which end with it: whoever may not write them may not
//! tie a key to it. (etcd's rules; where its 3.5 looks away, at nested transactions, at earlier pairs, at leases without
//! keys, at compaction, this does not.)

use super::ranges::{Ranges, cover, cover_keys};
use super::state::{Auth, Role, User};
use super::words::{AuthQuery, AuthRefusal, ROOT, Who};
use crate::ids::LeaseId;
use crate::kv::{Command, DeleteRange, KeyRange, LeaseCommand, Operation, Put, Query, Store, Txn};

/// Whether something is allowed.
type Allowed = Result<(), AuthRefusal>;

/// What one who asks may do.
#[derive(Clone, Copy)]
enum Rights<'auth> {
    All,
    Of(&'auth Auth, &'auth User),
}

impl Rights<'_> {
    /// The roles that exist.
    fn covers(self, kind: fn(&Role) -> &Ranges, range: &KeyRange) -> Allowed {
        match self {
            Self::All => Ok(()),
            Self::Of(auth, user) => {
                let roles = user.roles.iter().filter_map(|role| auth.roles.get(role));
                if cover(&roles.map(kind), range) { Ok(()) } else { Err(AuthRefusal::Denied) }
            }
        }
    }

    fn read(self, range: &KeyRange) -> Allowed {
        self.covers(|role| &role.readable, range)
    }

    fn write(self, range: &KeyRange) -> Allowed {
        self.covers(|role| &role.writable, range)
    }

    /// All keys that are attached to a lease.
    fn write_lease(self, lease: LeaseId, store: &Store) -> Allowed {
        self.each_key_of(lease, store, |role| &role.writable)
    }

    fn each_key_of(self, lease: LeaseId, store: &Store, kind: fn(&Role) -> &Ranges) -> Allowed {
        match (self, store.lease(lease)) {
            (Self::All, _) | (_, None) => Ok(()),
            (Self::Of(auth, user), Some(lease)) => {
                let roles = user.roles.iter().filter_map(|role| auth.roles.get(role));
                let is_covered = cover_keys(&roles.map(kind), |from| lease.key_from(from));
                if is_covered { Ok(()) } else { Err(AuthRefusal::Denied) }
            }
        }
    }

    fn put(self, put: &Put, store: &Store) -> Allowed {
        let key = KeyRange::Key(put.key.clone());
        self.write(&key)?;
        if put.wants_previous {
            self.read(&key)?;
        }
        self.write_lease(put.lease, store)
    }

    fn delete(self, delete: &DeleteRange) -> Allowed {
        self.write(&delete.range)?;
        if delete.wants_previous { self.read(&delete.range) } else { Ok(()) }
    }

    /// All compares and both lists, of every level.
    fn txn(self, txn: &Txn, store: &Store) -> Allowed {
        let mut found = Ok(());
        txn.visit(&mut |txn| {
            if found.is_ok() {
                found = self.one_level(txn, store);
            }
        });
        found
    }

    fn one_level(self, txn: &Txn, store: &Store) -> Allowed {
        txn.compares.iter().try_for_each(|compare| self.read(&compare.range))?;
        txn.success.iter().chain(&txn.failure).try_for_each(|operation| match operation {
            Operation::Put(put) => self.put(put, store),
            Operation::DeleteRange(delete) => self.delete(delete),
            Operation::Range(range) => self.read(&range.range),
            // It is a level of its own.
            Operation::Txn(_) => Ok(()),
        })
    }

    fn root(self) -> Allowed {
        match self {
            Self::All => Ok(()),
            Self::Of(..) => Err(AuthRefusal::Denied),
        }
    }
}

impl Auth {
    /// What `who` may do.
    fn rights(&self, who: Who) -> Result<Rights<'_>, AuthRefusal> {
        if !self.is_enabled() {
            return Ok(Rights::All);
        }
        let (principal, revision) = match who {
            Who::Cluster => return Ok(Rights::All),
            Who::Nobody => return Err(AuthRefusal::UserNameEmpty),
            Who::User { principal, revision } => (principal, revision),
        };
        if revision < self.revision {
            return Err(AuthRefusal::OldRevision);
        }
        let name = self.names.get(&principal).ok_or(AuthRefusal::Denied)?;
        let user = self.users.get(name).ok_or(AuthRefusal::Denied)?;
        Ok(if user.roles.contains(ROOT) { Rights::All } else { Rights::Of(self, user) })
    }

    /// Whether `who` may have `command` carried out on `store`, as both are just before it.
    ///
    /// # Errors
    /// They may not, or have to be found anew.
    pub fn may_run(&self, who: Who, command: &Command, store: &Store) -> Allowed {
        let rights = self.rights(who)?;
        match command {
            Command::Put(put) => rights.put(put, store),
            Command::DeleteRange(delete) => rights.delete(delete),
            Command::Txn(txn) => rights.txn(txn, store),
            Command::Lease(LeaseCommand::Grant(_)) => Ok(()),
            Command::Lease(LeaseCommand::Revoke(revoke)) => rights.write_lease(revoke.lease, store),
            // What is said of the time of leases only a leader asks for, as the cluster.
            Command::Compact(_)
            | Command::SpaceAlarm(_)
            | Command::Lease(
                LeaseCommand::Expire(_) | LeaseCommand::Checkpoint(_) | LeaseCommand::Renew(_),
            ) => rights.root(),
        }
    }

    /// Whether `who` may have `query` answered from `store`.
    ///
    /// # Errors
    /// They may not, or have to be found anew.
    pub fn may_read(&self, who: Who, query: &Query, store: &Store) -> Allowed {
        let rights = self.rights(who)?;
        match query {
            Query::Range(range) => rights.read(&range.range),
            Query::Txn(txn) => rights.txn(txn, store),
            Query::Leases => Ok(()),
        }
    }

    /// Whether `who` may ask for anything at all, such as a session.
    ///
    /// # Errors
    /// They may not, or have to be found anew.
    pub fn may_ask_anything(&self, who: Who) -> Allowed {
        self.rights(who).map(|_| ())
    }

    /// Whether `who` may watch, or go on watching, all keys of `range`.
    ///
    /// # Errors
    /// They may not, or have to be found anew.
    pub fn may_watch(&self, who: Who, range: &KeyRange) -> Allowed {
        self.rights(who)?.read(range)
    }

    /// Whether `who` may renew a lease, or ask how it stands, and which keys are attached to it.
    ///
    /// # Errors
    /// They may not, or have to be found anew.
    pub fn may_use_lease(&self, who: Who, lease: LeaseId, wants_keys: bool, store: &Store) -> Allowed {
        let rights = self.rights(who)?;
        if wants_keys { rights.each_key_of(lease, store, |role| &role.readable) } else { Ok(()) }
    }

    /// Whether `who` may do what only `root` may: change users and roles, and whatever concerns members.
    ///
    /// # Errors
    /// They may not, or have to be found anew.
    pub fn may_administer(&self, who: Who) -> Allowed {
        self.rights(who)?.root()
    }

    /// Whether `who` may have `query` answered: `root` everything, others what they are and what their roles may do.
    ///
    /// # Errors
    /// They may not, or have to be found anew.
    pub fn may_ask(&self, who: Who, query: &AuthQuery) -> Allowed {
        let rights = self.rights(who)?;
        let Rights::Of(_, user) = rights else { return Ok(()) };
        let is_own = match query {
            AuthQuery::User { name } => self.users.get(name) == Some(user),
            AuthQuery::Role { name } => user.roles.contains(name),
            AuthQuery::Anybody => true,
            AuthQuery::Status
            | AuthQuery::Users
            | AuthQuery::Roles
            | AuthQuery::Root
            | AuthQuery::Login { .. }
            | AuthQuery::TokenKey => false,
        };
        if is_own { Ok(()) } else { Err(AuthRefusal::Denied) }
    }
}
