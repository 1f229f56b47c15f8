//! Commands and the whole state as bytes: what the log and snapshots hold of them.
//!
//! ```text
//!   command    kind u8, then    1 enable            secret           2 disable
//!                               3 add user          name, has a secret u8, secret if so
//!                               4 delete user       name
//!                               5 change password   name, secret
//!                               6 grant role        user, role          7 revoke role         user, role
//!                               8 add role          name                9 delete role         name
//!                              10 grant permission  role, range, access 11 revoke permission  role, range
//!   name       length u16, UTF-8                 secret     length u16, bytes
//!   range      1 u8, key      2 u8, start, end      3 u8, start          each key: length u16, bytes
//!   access     1 read, 2 write, 3 both
//!
//!   state      version u8 (1), is enabled u8, the key of tokens (a secret) if so, revision u64, last number u32, hash u64,
//!              roles u32, each: name, permissions u32, each: range, access       names and ranges ascend
//!              users u32, each: name, number u32, has a secret u8, secret if so, roles u16, each: name
//! ```
//!
//! All numbers are little-endian. What always holds: whatever is written is read back the same; any other bytes are refused
//! with what is wrong; nothing is set aside for a count that is only claimed.

use super::state::{Auth, User};
use super::words::{Access, AuthCommand, Grant, Secret};
use crate::ids::{AuthRevision, Principal};
use crate::kv::KeyRange;
use crate::limits::AUTH_TOKEN_KEY_BYTES;
use bytes::Bytes;
use std::collections::BTreeSet;

const VERSION: u8 = 1;

/// Bytes that are no command, or no state: what is wrong with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// A newer build wrote these bytes.
const NEWER: Malformed = Malformed("a newer build wrote this");

impl Malformed {
    /// Whether it is no damage that these bytes cannot be read, but that a newer build wrote them.
    pub fn is_newer(self) -> bool {
        self == NEWER
    }
}

/// The hash of a history to which `bytes` are added.
pub(super) fn absorb(hash: u64, bytes: &[u8]) -> u64 {
    // An odd multiplier with its bits well spread (the golden ratio in 64 bits).
    let mix = |hash: u64, word: u64| {
        let mixed = (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed ^ (mixed >> 32)
    };
    bytes.iter().fold(mix(hash, bytes.len() as u64 + 1), |hash, byte| mix(hash, u64::from(*byte)))
}

/// A command as the log holds it.
pub fn encode_command(command: &AuthCommand) -> Vec<u8> {
    let mut to = Writer(Vec::new());
    match command {
        AuthCommand::Enable { token_key } => {
            to.byte(1);
            to.bytes(&token_key.0);
        }
        AuthCommand::Disable => to.byte(2),
        AuthCommand::AddUser { name, secret } => {
            to.byte(3);
            to.text(name);
            to.secret(secret.as_ref());
        }
        AuthCommand::DeleteUser { name } => to.texts(4, &[name]),
        AuthCommand::ChangePassword { name, secret } => {
            to.texts(5, &[name]);
            to.bytes(&secret.0);
        }
        AuthCommand::GrantRole { user, role } => to.texts(6, &[user, role]),
        AuthCommand::RevokeRole { user, role } => to.texts(7, &[user, role]),
        AuthCommand::AddRole { name } => to.texts(8, &[name]),
        AuthCommand::DeleteRole { name } => to.texts(9, &[name]),
        AuthCommand::GrantPermission { role, range, access } => {
            to.texts(10, &[role]);
            to.range(range);
            to.access(*access);
        }
        AuthCommand::RevokePermission { role, range } => {
            to.texts(11, &[role]);
            to.range(range);
        }
    }
    to.0
}

/// A command from bytes.
///
/// # Errors
/// They are not exactly one.
pub fn decode_command(bytes: &Bytes) -> Result<AuthCommand, Malformed> {
    let mut from = Reader { bytes, offset: 0 };
    let command = match from.byte()? {
        1 => AuthCommand::Enable { token_key: Secret(from.bytes()?) },
        2 => AuthCommand::Disable,
        3 => AuthCommand::AddUser { name: from.text()?, secret: from.secret()? },
        4 => AuthCommand::DeleteUser { name: from.text()? },
        5 => AuthCommand::ChangePassword { name: from.text()?, secret: Secret(from.bytes()?) },
        6 => AuthCommand::GrantRole { user: from.text()?, role: from.text()? },
        7 => AuthCommand::RevokeRole { user: from.text()?, role: from.text()? },
        8 => AuthCommand::AddRole { name: from.text()? },
        9 => AuthCommand::DeleteRole { name: from.text()? },
        10 => {
            AuthCommand::GrantPermission { role: from.text()?, range: from.range()?, access: from.access()? }
        }
        11 => AuthCommand::RevokePermission { role: from.text()?, range: from.range()? },
        _ => return Err(Malformed("a kind of command that is not known")),
    };
    from.end()?;
    Ok(command)
}

impl Auth {
    /// All of it as bytes; equal states give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut to = Writer(vec![VERSION]);
        to.secret(self.token_key.as_ref());
        to.long(self.revision.0);
        to.number(self.principals);
        to.long(self.hash);
        to.count(self.roles.len());
        for (name, role) in &self.roles {
            to.text(name);
            to.count(role.grants.len());
            for ((_, range), access) in &role.grants {
                to.range(range);
                to.access(*access);
            }
        }
        to.count(self.users.len());
        for (name, user) in &self.users {
            to.text(name);
            to.number(user.principal.0);
            to.secret(user.secret.as_ref());
            to.length(user.roles.len());
            for role in &user.roles {
                to.text(role);
            }
        }
        to.0
    }

    /// The state of which these are the bytes.
    ///
    /// # Errors
    /// They are no state's, or a newer build's.
    pub fn from_bytes(bytes: &Bytes) -> Result<Self, Malformed> {
        let mut from = Reader { bytes, offset: 0 };
        if from.byte()? != VERSION {
            return Err(NEWER);
        }
        let mut auth = Self::new();
        auth.token_key = from.secret()?;
        auth.revision = AuthRevision(from.long()?);
        auth.principals = from.number()?;
        auth.hash = from.long()?;
        if auth.token_key.as_ref().is_some_and(|key| key.0.len() != AUTH_TOKEN_KEY_BYTES) {
            return Err(Malformed("a key of tokens that is too short or too long"));
        }
        if auth.revision.0 == 0 || auth.principals == u32::MAX {
            return Err(Malformed("a revision or a number that is never reached"));
        }
        for _ in 0..from.number()? {
            let name = from.text()?;
            let mut grants = Vec::new();
            for _ in 0..from.number()? {
                grants.push(Grant { range: from.range()?, access: from.access()? });
            }
            if !auth.restore_role(name, grants) {
                return Err(Malformed("a role that cannot be"));
            }
        }
        for _ in 0..from.number()? {
            let (name, principal, secret) = (from.text()?, Principal(from.number()?), from.secret()?);
            let mut roles = BTreeSet::new();
            for _ in 0..from.length()? {
                let role = from.text()?;
                if roles.last().is_some_and(|last| *last >= role) {
                    return Err(Malformed("roles out of order"));
                }
                roles.insert(role);
            }
            if !auth.restore_user(name, User { principal, secret, roles }) {
                return Err(Malformed("a user that cannot be"));
            }
        }
        from.end()?;
        if auth.is_enabled() && !auth.has_root() {
            return Err(Malformed("nobody is root"));
        }
        Ok(auth)
    }
}

/// Writes. Lengths are bounded before anything is kept or proposed; a command that breaks a bound is written as far as its
/// length says.
struct Writer(Vec<u8>);

impl Writer {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn number(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn long(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn count(&mut self, count: usize) {
        self.number(u32::try_from(count).unwrap_or(u32::MAX));
    }

    fn length(&mut self, length: usize) {
        self.0.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let kept = bytes.get(..usize::from(u16::MAX)).unwrap_or(bytes);
        self.length(kept.len());
        self.0.extend_from_slice(kept);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn texts(&mut self, kind: u8, texts: &[&String]) {
        self.byte(kind);
        for text in texts {
            self.text(text);
        }
    }

    fn secret(&mut self, secret: Option<&Secret>) {
        self.byte(u8::from(secret.is_some()));
        if let Some(secret) = secret {
            self.bytes(&secret.0);
        }
    }

    fn range(&mut self, range: &KeyRange) {
        match range {
            KeyRange::Key(key) => {
                self.byte(1);
                self.bytes(key);
            }
            KeyRange::Span { start, end } => {
                self.byte(2);
                self.bytes(start);
                self.bytes(end);
            }
            KeyRange::From(start) => {
                self.byte(3);
                self.bytes(start);
            }
        }
    }

    fn access(&mut self, access: Access) {
        self.byte(match access {
            Access::Read => 1,
            Access::Write => 2,
            Access::ReadWrite => 3,
        });
    }
}

/// Reads what a `Writer` wrote; what it gives out are slices of the input.
struct Reader<'bytes> {
    bytes: &'bytes Bytes,
    offset: usize,
}

impl Reader<'_> {
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        let found = rest.first_chunk::<N>().ok_or(Malformed("it ends in the middle"))?;
        self.offset += N;
        Ok(*found)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_le_bytes(self.fixed()?))
    }

    fn truth(&mut self) -> Result<bool, Malformed> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a truth value that is neither 0 nor 1")),
        }
    }

    fn length(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.fixed()?))
    }

    fn number(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.fixed()?))
    }

    fn long(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.fixed()?))
    }

    fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = usize::from(self.length()?);
        let end = self.offset + length;
        if end > self.bytes.len() {
            return Err(Malformed("it ends in the middle"));
        }
        let bytes = self.bytes.slice(self.offset..end);
        self.offset = end;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let bytes = self.bytes()?;
        core::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| Malformed("a name that is no text"))
    }

    fn secret(&mut self) -> Result<Option<Secret>, Malformed> {
        if self.truth()? { Ok(Some(Secret(self.bytes()?))) } else { Ok(None) }
    }

    fn range(&mut self) -> Result<KeyRange, Malformed> {
        match self.byte()? {
            1 => Ok(KeyRange::Key(self.bytes()?)),
            2 => Ok(KeyRange::Span { start: self.bytes()?, end: self.bytes()? }),
            3 => Ok(KeyRange::From(self.bytes()?)),
            _ => Err(Malformed("a kind of range that is not known")),
        }
    }

    fn access(&mut self) -> Result<Access, Malformed> {
        match self.byte()? {
            1 => Ok(Access::Read),
            2 => Ok(Access::Write),
            3 => Ok(Access::ReadWrite),
            _ => Err(Malformed("an access that is not known")),
        }
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.offset == self.bytes.len() { Ok(()) } else { Err(Malformed("something follows")) }
    }
}
