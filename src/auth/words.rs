//! What is asked of users and roles, and what is said.

use crate::ids::{AuthRevision, Principal};
use crate::kv::KeyRange;
use bytes::Bytes;
use core::fmt;

/// The user, and the role, that may do everything.
pub const ROOT: &str = "root";

/// Who asks for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Nobody said who they are.
    Nobody,
    /// The cluster itself, for instance when a lease has run out.
    Cluster,
    /// A user, whom the member that took the request found by its state at `revision`.
    User {
        /// Which.
        principal: Principal,
        /// By which state.
        revision: AuthRevision,
    },
}

impl Who {
    /// The principal that stands for the cluster in an entry of the log.
    const CLUSTER: Principal = Principal(u32::MAX);

    /// Who stands in an entry of the log, or in what one member hands to another.
    pub fn of_entry(principal: Principal, revision: AuthRevision) -> Self {
        match principal {
            Principal(0) => Self::Nobody,
            Self::CLUSTER => Self::Cluster,
            principal => Self::User { principal, revision },
        }
    }

    /// How that is written in an entry of the log.
    pub const fn to_entry(self) -> (Principal, AuthRevision) {
        match self {
            Self::Nobody => (Principal(0), AuthRevision(0)),
            Self::Cluster => (Self::CLUSTER, AuthRevision(0)),
            Self::User { principal, revision } => (principal, revision),
        }
    }
}

/// What a password is compared with (a hash, never the password), or the key of tokens. It is told to nobody, `Debug`
/// included.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Bytes);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a role may do with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Access {
    Read,
    Write,
    ReadWrite,
}

impl Access {
    /// Whether this lets read.
    pub const fn reads(self) -> bool {
        matches!(self, Self::Read | Self::ReadWrite)
    }

    /// Whether this lets write.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::ReadWrite)
    }
}

/// A change of who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthCommand {
    /// From now on only users may do anything. There must be a user `root` with the role `root`.
    Enable {
        /// With this every member makes and checks the tokens of users: `AUTH_TOKEN_KEY_BYTES` of chance.
        token_key: Secret,
    },
    /// From now on everybody may do everything.
    Disable,
    /// A new user.
    AddUser {
        /// Its name; not empty.
        name: String,
        /// What its password is compared with; None for a user without one, who cannot log in by password.
        secret: Option<Secret>,
    },
    /// A user is no more.
    DeleteUser {
        /// Which.
        name: String,
    },
    /// A user gets another password. One that has none keeps none.
    ChangePassword {
        /// Which.
        name: String,
        /// What it is compared with.
        secret: Secret,
    },
    /// A user gets a role. The role `root` can be given before it is made (etcd's rule).
    GrantRole {
        /// Who.
        user: String,
        /// Which.
        role: String,
    },
    /// A user loses a role.
    RevokeRole {
        /// Who.
        user: String,
        /// Which.
        role: String,
    },
    /// A new role, that may do nothing yet.
    AddRole {
        /// Its name; not empty.
        name: String,
    },
    /// A role is no more; whoever has it loses it.
    DeleteRole {
        /// Which.
        name: String,
    },
    /// A role may do something with keys. What it could do with the very same range is replaced.
    GrantPermission {
        /// Which role.
        role: String,
        /// Which keys.
        range: KeyRange,
        /// What.
        access: Access,
    },
    /// A role may no longer do what it was allowed with the very same range.
    RevokePermission {
        /// Which role.
        role: String,
        /// Which keys.
        range: KeyRange,
    },
}

/// A question about who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum AuthQuery {
    /// Is anything forbidden at all, and by which revision?
    Status,
    Users,
    User {
        name: String,
    },
    Roles,
    Role {
        name: String,
    },
    /// Is whoever asks somebody who may ask for anything?
    Anybody,
    /// Is whoever asks root?
    Root,
    /// What tells whether a user is who they say. For members only.
    Login {
        name: String,
    },
    /// What tells whether a token is the cluster's. For members only.
    TokenKey,
}

/// One thing that a role may do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Grant {
    pub range: KeyRange,
    pub access: Access,
}

/// The answer to an `AuthQuery`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum AuthAnswer {
    Status {
        is_enabled: bool,
        revision: AuthRevision,
    },
    /// The names of all users, or of all roles, or of the roles of one user; in order.
    Names(Vec<String>),
    /// What a role may do, in order of the first keys.
    Grants(Vec<Grant>),
    /// Yes.
    Allowed,
    /// The user, and what its password is compared with; None if there is no such user, or it has no password. The key of
    /// tokens, and the revision that a token is for.
    Login {
        user: Option<(Principal, Secret)>,
        token_key: Secret,
        revision: AuthRevision,
    },
    /// The key of tokens, if permissions count.
    TokenKey(Option<Secret>),
}

/// Why something about users and roles was not done, or why a request is not allowed. Decided from replicated state alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthRefusal {
    /// There is no user `root`.
    #[error("there is no user root")]
    RootUserMissing,
    /// The user `root` does not have the role `root`.
    #[error("the user root does not have the role root")]
    RootRoleMissing,
    /// A user without a name; or nobody has said who they are.
    #[error("permissions count here, and nobody has said who asks")]
    UserNameEmpty,
    /// There is a user of this name.
    #[error("there is a user of this name")]
    UserExists,
    /// There is no user of this name.
    #[error("there is no user of this name")]
    UserNotFound,
    /// A role without a name.
    #[error("a role needs a name")]
    RoleNameEmpty,
    /// There is a role of this name.
    #[error("there is a role of this name")]
    RoleExists,
    /// There is no role of this name.
    #[error("there is no role of this name")]
    RoleNotFound,
    /// The user does not have this role.
    #[error("the user does not have this role")]
    RoleNotGranted,
    /// The role has no permission for this very range.
    #[error("the role has no permission for this very range")]
    PermissionNotGranted,
    /// What `root` is must stay while anything is forbidden.
    #[error("what root is must stay while permissions count")]
    RootMustStay,
    /// Nobody can log in where permissions do not count.
    #[error("permissions do not count, so nobody can log in")]
    NotEnabled,
    /// Whoever asks was found by an older state: find them again.
    #[error("who may do what has changed since whoever asks was found")]
    OldRevision,
    /// They may not.
    #[error("whoever asks may not do this")]
    Denied,
    /// A name, a secret or a key is longer than its limit.
    #[error("a name, a secret or a key is longer than its limit")]
    OutOfBounds,
    /// No more users, roles or permissions fit.
    #[error("no more users, roles or permissions fit")]
    TooMany,
}
