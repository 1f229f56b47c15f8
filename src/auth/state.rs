//! Users, roles and what they may do, and how a command changes them. The rules are etcd's 3.5, where nothing else is said.

use super::ranges::Ranges;
use super::words::{Access, AuthAnswer, AuthCommand, AuthQuery, AuthRefusal, Grant, ROOT, Secret, Who};
use crate::ids::{AuthRevision, Principal};
use crate::kv::KeyRange;
use crate::limits::{
    AUTH_BYTES_MAX, AUTH_NAME_BYTES_MAX, AUTH_ROLE_GRANTS_MAX, AUTH_SECRET_BYTES_MAX, AUTH_TOKEN_KEY_BYTES,
    AUTH_USER_ROLES_MAX, KEY_BYTES_MAX,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// What anything that is kept counts beside its names and keys.
const ITEM_BYTES: usize = 64;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) principal: Principal,
    /// What its password is compared with, if it has one.
    pub(super) secret: Option<Secret>,
    /// Roles by name. All but `root` exist.
    pub(super) roles: BTreeSet<String>,
}

/// A role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Role {
    /// In order of their first keys.
    pub(super) grants: BTreeMap<(Bytes, KeyRange), Access>,
    /// All that may be read, and all that may be written; always of `grants`.
    pub(super) readable: Ranges,
    pub(super) writable: Ranges,
}

impl Role {
    fn put_together(&mut self) {
        let of = |lets: fn(Access) -> bool| {
            let granted = self.grants.iter().filter(move |(_, access)| lets(**access));
            Ranges::of(granted.map(|((_, range), _)| range))
        };
        (self.readable, self.writable) = (of(Access::reads), of(Access::writes));
    }
}

/// All users and roles of one keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// The key of tokens; there is one as long as only users may do anything.
    pub(super) token_key: Option<Secret>,
    pub(super) revision: AuthRevision,
    /// The number that the last new user got.
    pub(super) principals: u32,
    pub(super) users: BTreeMap<String, User>,
    /// The names of the same users.
    pub(super) names: BTreeMap<Principal, String>,
    pub(super) roles: BTreeMap<String, Role>,
    /// What `AUTH_BYTES_MAX` bounds.
    pub(super) bytes: usize,
    /// Rolling hash of every change there was.
    pub(super) hash: u64,
}

impl Default for Auth {
    fn default() -> Self {
        Self::new()
    }
}

/// The first key of a range.
fn first(range: &KeyRange) -> &Bytes {
    match range {
        KeyRange::Key(key) | KeyRange::From(key) | KeyRange::Span { start: key, .. } => key,
    }
}

/// What a permission for `range` counts.
fn range_bytes(range: &KeyRange) -> usize {
    ITEM_BYTES
        + match range {
            KeyRange::Key(key) | KeyRange::From(key) => key.len(),
            KeyRange::Span { start, end } => start.len() + end.len(),
        }
}

/// What a user counts, its roles included.
fn user_bytes(name: &str, user: &User) -> usize {
    let secret = user.secret.as_ref().map_or(0, |secret| secret.0.len());
    let roles: usize = user.roles.iter().map(|role| ITEM_BYTES + role.len()).sum();
    ITEM_BYTES + name.len() + secret + roles
}

/// What a role counts, its permissions included.
fn role_bytes(name: &str, role: &Role) -> usize {
    let grants: usize = role.grants.keys().map(|(_, range)| range_bytes(range)).sum();
    ITEM_BYTES + name.len() + grants
}

/// Whether a range is one that a permission can be for.
fn is_within_bounds(range: &KeyRange) -> bool {
    match range {
        KeyRange::Key(key) | KeyRange::From(key) => key.len() <= KEY_BYTES_MAX,
        KeyRange::Span { start, end } => start.len() <= KEY_BYTES_MAX && end.len() <= KEY_BYTES_MAX,
    }
}

/// Whether something happened.
type Changed = Result<bool, AuthRefusal>;

impl Auth {
    /// Nobody, and nothing is forbidden.
    pub const fn new() -> Self {
        Self {
            token_key: None,
            revision: AuthRevision(1),
            principals: 0,
            users: BTreeMap::new(),
            names: BTreeMap::new(),
            roles: BTreeMap::new(),
            bytes: 0,
            hash: 0,
        }
    }

    /// Whether only users may do anything.
    pub const fn is_enabled(&self) -> bool {
        self.token_key.is_some()
    }

    /// The key of tokens, while there are any. Each time that permissions begin to count there is another.
    pub const fn token_key(&self) -> Option<&Secret> {
        self.token_key.as_ref()
    }

    /// The revision of the last change.
    pub const fn revision(&self) -> AuthRevision {
        self.revision
    }

    /// Whether anything ever changed here.
    pub const fn has_history(&self) -> bool {
        self.hash != 0
    }

    /// A hash of all that ever changed here; equal on all members after the same commands.
    pub const fn state_hash(&self) -> u64 {
        self.hash
    }

    /// Changes something. Whether whoever asks may is decided by `may_change`, at the same place of the log.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub fn apply(&mut self, command: &AuthCommand) -> Result<(), AuthRefusal> {
        let is_changed = match command {
            AuthCommand::Enable { token_key } => self.enable(token_key),
            AuthCommand::Disable => Ok(self.disable()),
            AuthCommand::AddUser { name, secret } => self.add_user(name, secret.as_ref()),
            AuthCommand::DeleteUser { name } => self.delete_user(name),
            AuthCommand::ChangePassword { name, secret } => self.change_password(name, secret),
            AuthCommand::GrantRole { user, role } => self.grant_role(user, role),
            AuthCommand::RevokeRole { user, role } => self.revoke_role(user, role),
            AuthCommand::AddRole { name } => self.add_role(name),
            AuthCommand::DeleteRole { name } => self.delete_role(name),
            AuthCommand::GrantPermission { role, range, access } => {
                self.grant_permission(role, range, *access)
            }
            AuthCommand::RevokePermission { role, range } => self.revoke_permission(role, range),
        }?;
        if is_changed {
            self.hash = super::bytes::absorb(self.hash, &super::encode_command(command));
            // Who turns it on makes no one's rights differ from what they were found to be (etcd's rule).
            if !matches!(command, AuthCommand::Enable { .. }) {
                self.revision = AuthRevision(self.revision.0 + 1);
            }
        }
        self.assert_invariants();
        Ok(())
    }

    /// Answers a question. Whether whoever asks may is decided by `may_ask`.
    ///
    /// # Errors
    /// There is no such user or role.
    pub fn query(&self, query: &AuthQuery) -> Result<AuthAnswer, AuthRefusal> {
        match query {
            AuthQuery::Status => {
                Ok(AuthAnswer::Status { is_enabled: self.is_enabled(), revision: self.revision })
            }
            AuthQuery::Users => Ok(AuthAnswer::Names(self.users.keys().cloned().collect())),
            AuthQuery::Roles => Ok(AuthAnswer::Names(self.roles.keys().cloned().collect())),
            AuthQuery::User { name } => {
                let user = self.users.get(name).ok_or(AuthRefusal::UserNotFound)?;
                Ok(AuthAnswer::Names(user.roles.iter().cloned().collect()))
            }
            AuthQuery::Role { name } => {
                let role = self.roles.get(name).ok_or(AuthRefusal::RoleNotFound)?;
                let grants = role.grants.iter();
                let grants =
                    grants.map(|((_, range), access)| Grant { range: range.clone(), access: *access });
                Ok(AuthAnswer::Grants(grants.collect()))
            }
            AuthQuery::Anybody | AuthQuery::Root => Ok(AuthAnswer::Allowed),
            AuthQuery::Login { name } => {
                let token_key = self.token_key.clone().ok_or(AuthRefusal::NotEnabled)?;
                let user = self.credentials(name).map(|(principal, secret)| (principal, secret.clone()));
                Ok(AuthAnswer::Login { user, token_key, revision: self.revision })
            }
            AuthQuery::TokenKey => Ok(AuthAnswer::TokenKey(self.token_key.clone())),
        }
    }

    /// The number of a user, and what its password is compared with; None if there is no such user, or it has no password.
    pub fn credentials(&self, name: &str) -> Option<(Principal, &Secret)> {
        let user = self.users.get(name)?;
        Some((user.principal, user.secret.as_ref()?))
    }

    /// Whoever was found before, found by this state.
    pub const fn found_now(&self, who: Who) -> Who {
        match who {
            Who::User { principal, revision: _ } => Who::User { principal, revision: self.revision },
            Who::Nobody | Who::Cluster => who,
        }
    }

    /// The name of a user.
    pub fn name_of(&self, principal: Principal) -> Option<&str> {
        self.names.get(&principal).map(String::as_str)
    }

    fn enable(&mut self, token_key: &Secret) -> Changed {
        if self.is_enabled() {
            return Ok(false);
        }
        let root = self.users.get(ROOT).ok_or(AuthRefusal::RootUserMissing)?;
        if !root.roles.contains(ROOT) {
            return Err(AuthRefusal::RootRoleMissing);
        }
        if token_key.0.len() != AUTH_TOKEN_KEY_BYTES {
            return Err(AuthRefusal::OutOfBounds);
        }
        self.token_key = Some(token_key.clone());
        Ok(true)
    }

    fn disable(&mut self) -> bool {
        self.token_key.take().is_some()
    }

    fn add_user(&mut self, name: &str, secret: Option<&Secret>) -> Changed {
        if name.is_empty() {
            return Err(AuthRefusal::UserNameEmpty);
        }
        check_lengths(name, secret)?;
        if self.users.contains_key(name) {
            return Err(AuthRefusal::UserExists);
        }
        // The greatest number stands for the cluster.
        let principal = self.principals.checked_add(1).filter(|number| *number < u32::MAX);
        let principal = Principal(principal.ok_or(AuthRefusal::TooMany)?);
        let user = User { principal, secret: secret.cloned(), roles: BTreeSet::new() };
        self.take_room(user_bytes(name, &user))?;
        self.principals = principal.0;
        self.names.insert(principal, name.to_owned());
        self.users.insert(name.to_owned(), user);
        Ok(true)
    }

    fn delete_user(&mut self, name: &str) -> Changed {
        if self.is_enabled() && name == ROOT {
            return Err(AuthRefusal::RootMustStay);
        }
        let user = self.users.remove(name).ok_or(AuthRefusal::UserNotFound)?;
        self.names.remove(&user.principal);
        self.bytes -= user_bytes(name, &user);
        Ok(true)
    }

    fn change_password(&mut self, name: &str, secret: &Secret) -> Changed {
        let user = self.users.get_mut(name).ok_or(AuthRefusal::UserNotFound)?;
        check_lengths(name, Some(secret))?;
        if let Some(old) = &user.secret {
            let bytes = self.bytes - old.0.len() + secret.0.len();
            if bytes > AUTH_BYTES_MAX {
                return Err(AuthRefusal::TooMany);
            }
            self.bytes = bytes;
            user.secret = Some(secret.clone());
        }
        Ok(true)
    }

    fn grant_role(&mut self, user: &str, role: &str) -> Changed {
        let holder = self.users.get(user).ok_or(AuthRefusal::UserNotFound)?;
        if role != ROOT && !self.roles.contains_key(role) {
            return Err(AuthRefusal::RoleNotFound);
        }
        if holder.roles.contains(role) {
            return Ok(false);
        }
        if holder.roles.len() >= AUTH_USER_ROLES_MAX {
            return Err(AuthRefusal::TooMany);
        }
        self.take_room(ITEM_BYTES + role.len())?;
        let holder = self.users.get_mut(user).ok_or(AuthRefusal::UserNotFound)?;
        holder.roles.insert(role.to_owned());
        Ok(true)
    }

    fn revoke_role(&mut self, user: &str, role: &str) -> Changed {
        if self.is_enabled() && user == ROOT && role == ROOT {
            return Err(AuthRefusal::RootMustStay);
        }
        let holder = self.users.get_mut(user).ok_or(AuthRefusal::UserNotFound)?;
        if !holder.roles.remove(role) {
            return Err(AuthRefusal::RoleNotGranted);
        }
        self.bytes -= ITEM_BYTES + role.len();
        Ok(true)
    }

    fn add_role(&mut self, name: &str) -> Changed {
        if name.is_empty() {
            return Err(AuthRefusal::RoleNameEmpty);
        }
        check_lengths(name, None)?;
        if self.roles.contains_key(name) {
            return Err(AuthRefusal::RoleExists);
        }
        let role = Role::default();
        self.take_room(role_bytes(name, &role))?;
        self.roles.insert(name.to_owned(), role);
        Ok(true)
    }

    fn delete_role(&mut self, name: &str) -> Changed {
        if self.is_enabled() && name == ROOT {
            return Err(AuthRefusal::RootMustStay);
        }
        let role = self.roles.remove(name).ok_or(AuthRefusal::RoleNotFound)?;
        self.bytes -= role_bytes(name, &role);
        for user in self.users.values_mut() {
            if user.roles.remove(name) {
                self.bytes -= ITEM_BYTES + name.len();
            }
        }
        Ok(true)
    }

    fn grant_permission(&mut self, role: &str, range: &KeyRange, access: Access) -> Changed {
        let place = (first(range).clone(), range.clone());
        let granted = &self.roles.get(role).ok_or(AuthRefusal::RoleNotFound)?.grants;
        if !is_within_bounds(range) {
            return Err(AuthRefusal::OutOfBounds);
        }
        if !granted.contains_key(&place) {
            if granted.len() >= AUTH_ROLE_GRANTS_MAX {
                return Err(AuthRefusal::TooMany);
            }
            self.take_room(range_bytes(range))?;
        }
        let role = self.roles.get_mut(role).ok_or(AuthRefusal::RoleNotFound)?;
        role.grants.insert(place, access);
        role.put_together();
        Ok(true)
    }

    fn revoke_permission(&mut self, role: &str, range: &KeyRange) -> Changed {
        let role = self.roles.get_mut(role).ok_or(AuthRefusal::RoleNotFound)?;
        let place = (first(range).clone(), range.clone());
        role.grants.remove(&place).ok_or(AuthRefusal::PermissionNotGranted)?;
        role.put_together();
        self.bytes -= range_bytes(range);
        Ok(true)
    }

    /// Counts what is about to be kept.
    fn take_room(&mut self, bytes: usize) -> Result<(), AuthRefusal> {
        if self.bytes + bytes > AUTH_BYTES_MAX {
            return Err(AuthRefusal::TooMany);
        }
        self.bytes += bytes;
        Ok(())
    }

    fn assert_invariants(&self) {
        assert!(self.bytes <= AUTH_BYTES_MAX, "what is kept is bounded");
        assert!(self.names.len() == self.users.len(), "every user has a number of its own");
        if self.is_enabled() {
            let root = self.users.get(ROOT);
            assert!(
                root.is_some_and(|user| user.roles.contains(ROOT)),
                "somebody can always mend what is forbidden"
            );
        }
    }

    /// What costs as much to look at as everything that is kept: in tests, and after it was read from bytes.
    pub fn assert_all_invariants(&self) {
        self.assert_invariants();
        let users = self.users.iter().map(|(name, user)| user_bytes(name, user));
        let roles = self.roles.iter().map(|(name, role)| role_bytes(name, role));
        assert!(self.bytes == users.chain(roles).sum::<usize>(), "all that is kept is counted");
        for (name, user) in &self.users {
            let is_named = self.names.get(&user.principal) == Some(name);
            assert!(is_named && user.principal.0 <= self.principals, "a user's number was given to it");
            let exist = user.roles.iter().all(|role| role == ROOT || self.roles.contains_key(role));
            assert!(exist, "who has a role has one that exists");
        }
        for role in self.roles.values() {
            let mut anew = role.clone();
            anew.put_together();
            assert!(anew == *role, "what may be read and written is what was granted");
        }
    }

    /// A user that was kept; false if it cannot be there.
    pub(super) fn restore_user(&mut self, name: String, user: User) -> bool {
        let exist = user.roles.iter().all(|role| role == ROOT || self.roles.contains_key(role));
        let is_number = user.principal.0 > 0 && user.principal.0 <= self.principals;
        let is_last = self.users.last_key_value().is_none_or(|(last, _)| *last < name);
        let is_within = user.roles.len() <= AUTH_USER_ROLES_MAX && !name.is_empty();
        if !(exist && is_number && is_last && is_within)
            || check_lengths(&name, user.secret.as_ref()).is_err()
            || self.take_room(user_bytes(&name, &user)).is_err()
            || self.names.insert(user.principal, name.clone()).is_some()
        {
            return false;
        }
        self.users.insert(name, user).is_none()
    }

    /// A role that was kept; false if it cannot be there.
    pub(super) fn restore_role(&mut self, name: String, grants: Vec<Grant>) -> bool {
        let is_last = self.roles.last_key_value().is_none_or(|(last, _)| *last < name);
        if !is_last || name.is_empty() || check_lengths(&name, None).is_err() {
            return false;
        }
        let mut role = Role::default();
        for Grant { range, access } in grants {
            let place = (first(&range).clone(), range);
            let is_after = role.grants.last_key_value().is_none_or(|(last, _)| *last < place);
            if !is_after || !is_within_bounds(&place.1) || role.grants.len() >= AUTH_ROLE_GRANTS_MAX {
                return false;
            }
            role.grants.insert(place, access);
        }
        role.put_together();
        self.take_room(role_bytes(&name, &role)).is_ok() && self.roles.insert(name, role).is_none()
    }

    /// Whether what is forbidden can be mended by somebody.
    pub(super) fn has_root(&self) -> bool {
        self.users.get(ROOT).is_some_and(|user| user.roles.contains(ROOT))
    }
}

fn check_lengths(name: &str, secret: Option<&Secret>) -> Result<(), AuthRefusal> {
    let is_within = name.len() <= AUTH_NAME_BYTES_MAX
        && secret.is_none_or(|secret| secret.0.len() <= AUTH_SECRET_BYTES_MAX);
    if is_within { Ok(()) } else { Err(AuthRefusal::OutOfBounds) }
}
