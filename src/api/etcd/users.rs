//! From messages about users and roles to commands and questions of `auth`, and back.
//!
//! Always: a password is handed to the caller and kept nowhere; a hash of it takes time and salt. Left out: who may ask for any of this (`auth`), and tokens.

use super::proto::etcdserverpb as pb;
use super::proto::etcdserverpb::permission::Type;
use super::{Code, Fault};
use crate::auth::{Access, AuthCommand, AuthRefusal, Grant};
use crate::kv::KeyRange;
use bytes::Bytes;

/// The end of a range that means "to the end of the keyspace".
const FROM_KEY: &[u8] = b"\0";

/// The name of the user that a `UserAdd` asks for, and its password; None for one without.
///
/// # Errors
/// The message alone shows that it cannot be done.
pub fn user_add(request: pb::AuthUserAddRequest) -> Result<(String, Option<String>), Fault> {
    if request.name.is_empty() {
        return Err(Fault::Auth(AuthRefusal::UserNameEmpty));
    }
    let has_none = request.options.is_some_and(|options| options.no_password);
    let password =
        if has_none { None } else { Some(password_of(request.password, &request.hashed_password)?) };
    Ok((request.name, password))
}

/// The name of the user that a `UserChangePassword` is about, and the password.
#[allow(clippy::missing_errors_doc)]
pub fn user_change_password(request: pb::AuthUserChangePasswordRequest) -> Result<(String, String), Fault> {
    Ok((request.name, password_of(request.password, &request.hashed_password)?))
}

/// Hashes that clients bring are of another kind than ours; nothing could be compared with them.
fn password_of(password: String, hashed: &str) -> Result<String, Fault> {
    if hashed.is_empty() { Ok(password) } else { Err(Fault::HashedPassword) }
}

/// What to do for a `RoleGrantPermission`.
#[allow(clippy::missing_errors_doc)]
pub fn role_grant_permission(request: pb::AuthRoleGrantPermissionRequest) -> Result<AuthCommand, Fault> {
    let permission = request.perm.ok_or(Fault::PermissionNotGiven)?;
    let access = match permission.perm_type() {
        _ if Type::try_from(permission.perm_type).is_err() => return Err(Fault::UnknownEnumeration),
        Type::Read => Access::Read,
        Type::Write => Access::Write,
        Type::Readwrite => Access::ReadWrite,
    };
    let range = permitted_range(permission.key, permission.range_end);
    Ok(AuthCommand::GrantPermission { role: request.name, range, access })
}

/// What to do for a `RoleRevokePermission`.
pub fn role_revoke_permission(request: pb::AuthRoleRevokePermissionRequest) -> AuthCommand {
    let range = permitted_range(request.key, request.range_end);
    AuthCommand::RevokePermission { role: request.role, range }
}

/// The keys that a permission is for. Its first key may be empty: `etcdctl` says so of every key.
fn permitted_range(key: Bytes, range_end: Bytes) -> KeyRange {
    if range_end.is_empty() {
        KeyRange::Key(key)
    } else if range_end == FROM_KEY {
        KeyRange::From(key)
    } else {
        KeyRange::Span { start: key, end: range_end }
    }
}

/// A permission as a message.
pub fn permission(grant: Grant) -> pb::Permission {
    let perm_type = match grant.access {
        Access::Read => Type::Read,
        Access::Write => Type::Write,
        Access::ReadWrite => Type::Readwrite,
    };
    let (key, range_end) = match grant.range {
        KeyRange::Key(key) => (key, Bytes::new()),
        KeyRange::Span { start, end } => (start, end),
        KeyRange::From(start) => (start, Bytes::from_static(FROM_KEY)),
    };
    pb::Permission { perm_type: perm_type.into(), key, range_end }
}

/// The text that clients match on, and the code (etcd's `rpctypes/error.go`).
pub(super) const fn text_and_code(refusal: AuthRefusal) -> (&'static str, Code) {
    use Code::{FailedPrecondition, InvalidArgument, PermissionDenied, ResourceExhausted};
    match refusal {
        AuthRefusal::RootUserMissing => ("etcdserver: root user does not exist", FailedPrecondition),
        AuthRefusal::RootRoleMissing => ("etcdserver: root user does not have root role", FailedPrecondition),
        AuthRefusal::UserNameEmpty => ("etcdserver: user name is empty", InvalidArgument),
        AuthRefusal::UserExists => ("etcdserver: user name already exists", FailedPrecondition),
        AuthRefusal::UserNotFound => ("etcdserver: user name not found", FailedPrecondition),
        AuthRefusal::RoleNameEmpty => ("etcdserver: role name is empty", InvalidArgument),
        AuthRefusal::RoleExists => ("etcdserver: role name already exists", FailedPrecondition),
        AuthRefusal::RoleNotFound => ("etcdserver: role name not found", FailedPrecondition),
        AuthRefusal::RoleNotGranted => ("etcdserver: role is not granted to the user", FailedPrecondition),
        AuthRefusal::PermissionNotGranted => {
            ("etcdserver: permission is not granted to the role", FailedPrecondition)
        }
        AuthRefusal::RootMustStay => ("etcdserver: invalid auth management", InvalidArgument),
        AuthRefusal::NotEnabled => ("etcdserver: authentication is not enabled", FailedPrecondition),
        AuthRefusal::OldRevision => ("etcdserver: revision of auth store is old", InvalidArgument),
        AuthRefusal::Denied => ("etcdserver: permission denied", PermissionDenied),
        AuthRefusal::OutOfBounds => ("etcdserver: request is too large", InvalidArgument),
        AuthRefusal::TooMany => ("mainstay: no more users, roles or permissions fit", ResourceExhausted),
    }
}

impl From<AuthRefusal> for Fault {
    fn from(refusal: AuthRefusal) -> Self {
        Self::Auth(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGES: [(&[u8], &[u8]); 4] = [(b"a", b""), (b"a", b"b"), (b"a", b"\0"), (b"", b"\0")];

    fn grant_of(key: &'static [u8], range_end: &'static [u8], perm_type: i32) -> Result<AuthCommand, Fault> {
        let (key, range_end) = (Bytes::from_static(key), Bytes::from_static(range_end));
        let perm = Some(pb::Permission { perm_type, key, range_end });
        role_grant_permission(pb::AuthRoleGrantPermissionRequest { name: "app".to_owned(), perm })
    }

    #[test]
    fn a_permission_is_told_as_it_was_given() {
        for (key, range_end) in RANGES {
            for perm_type in 0..3 {
                let Ok(AuthCommand::GrantPermission { range, access, .. }) =
                    grant_of(key, range_end, perm_type)
                else {
                    panic!("{key:?} {range_end:?} can be granted");
                };
                let told = permission(Grant { range, access });
                let given = (key, range_end, perm_type);
                assert_eq!((told.key.as_ref(), told.range_end.as_ref(), told.perm_type), given);
            }
        }
    }

    #[test]
    fn a_permission_that_is_missing_or_unheard_of_is_refused() {
        assert_eq!(grant_of(b"a", b"", 3), Err(Fault::UnknownEnumeration));
        let none = pb::AuthRoleGrantPermissionRequest { name: "app".to_owned(), perm: None };
        assert_eq!(role_grant_permission(none), Err(Fault::PermissionNotGiven));
    }

    #[test]
    fn a_user_has_the_password_that_was_given_or_none_and_no_foreign_hash() {
        let request = |password: &str, no_password, hashed: &str| pb::AuthUserAddRequest {
            name: "ali".to_owned(),
            password: password.to_owned(),
            options: Some(pb::UserAddOptions { no_password }),
            hashed_password: hashed.to_owned(),
        };
        let named = |password: Option<&str>| Ok(("ali".to_owned(), password.map(str::to_owned)));
        assert_eq!(user_add(request("pw", false, "")), named(Some("pw")));
        assert_eq!(user_add(request("pw", true, "")), named(None));
        assert_eq!(user_add(request("", false, "hash")), Err(Fault::HashedPassword));
        let nameless = pb::AuthUserAddRequest { name: String::new(), ..request("pw", false, "") };
        assert_eq!(user_add(nameless), Err(Fault::Auth(AuthRefusal::UserNameEmpty)));
    }
}
