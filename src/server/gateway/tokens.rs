//! Tokens: what a user who has logged in shows with each request.
//!
//! ```text
//!   principal u32 | revision of users and roles u64 | runs out, seconds since 1970 u64 | HMAC-SHA-256 of these
//!   all as hexadecimal digits; numbers are little-endian
//! ```
//!
//! The key is replicated state, made anew each time that permissions begin to count, so every member makes and checks the
//! same tokens, and none from before. Always: a token says only who somebody was found to be, and by which revision of
//! users and roles; what they may do is decided by the shard, which sends back whoever was found by an older one. Left
//! out: passwords.

use super::Gate;
use crate::api::ReadMode;
use crate::api::etcd::{Fault, Standing};
use crate::auth::{AuthAnswer, AuthQuery, Secret, Who};
use crate::ids::{AuthRevision, Principal, Revision};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a token counts.
///
/// Chosen: etcd's simple tokens count for as long. Its clients get another by themselves.
const TOKEN_SECONDS: u64 = 300;

/// What is signed.
const BODY_BYTES: usize = 20;

/// A key that makes and checks tokens.
#[derive(Debug)]
pub(super) struct TokenKey(Hmac<Sha256>);

impl TokenKey {
    fn new(secret: &Secret) -> Option<Self> {
        Hmac::new_from_slice(&secret.0).ok().map(Self)
    }

    /// The token of a user who was found by a revision, until an instant.
    fn token(&self, principal: Principal, revision: AuthRevision, until: u64) -> String {
        let mut bytes = Vec::with_capacity(BODY_BYTES + 32);
        bytes.extend(principal.0.to_le_bytes());
        bytes.extend(revision.0.to_le_bytes());
        bytes.extend(until.to_le_bytes());
        let mut signing = self.0.clone();
        signing.update(&bytes);
        bytes.extend(signing.finalize().into_bytes());
        to_digits(&bytes)
    }

    /// Whose token that is, if it is one and has not run out.
    fn whose(&self, token: &[u8], now: u64) -> Option<Who> {
        let bytes = from_digits(token)?;
        let (body, signature) = bytes.split_first_chunk::<BODY_BYTES>()?;
        let mut signing = self.0.clone();
        signing.update(body);
        // The comparison takes the same time wherever they differ.
        signing.verify_slice(signature).ok()?;
        let (principal, rest) = body.split_first_chunk::<4>()?;
        let (revision, rest) = rest.split_first_chunk::<8>()?;
        let until = u64::from_le_bytes(*rest.first_chunk::<8>()?);
        (now < until).then_some(Who::User {
            principal: Principal(u32::from_le_bytes(*principal)),
            revision: AuthRevision(u64::from_le_bytes(*revision)),
        })
    }
}

/// Bytes as hexadecimal digits.
fn to_digits(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The bytes that hexadecimal digits stand for. None if these are none, or too many.
fn from_digits(digits: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() != BODY_BYTES + 32 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// Members of one cluster have no other clock in common. One that jumps makes tokens last shorter or longer, and decides nothing else:
/// a token counts no longer than who may do what stays as it is.
#[allow(clippy::disallowed_methods)]
fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

impl Gate {
    fn token_key(&self) -> MutexGuard<'_, Option<TokenKey>> {
        self.token_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who shows this token; nobody where permissions do not count.
    ///
    /// # Errors
    /// It is none of this cluster, or has run out.
    pub(super) async fn whose_token(&self, token: &[u8]) -> Result<Who, Fault> {
        let now = seconds_now();
        if let Some(who) = self.token_key().as_ref().and_then(|key| key.whose(token, now)) {
            return Ok(who);
        }
        // Perhaps there is another key by now.
        let asked = self.ask_about_users(Who::Cluster, AuthQuery::TokenKey, ReadMode::Serializable);
        let (_, _, AuthAnswer::TokenKey(secret)) = asked.await? else { return Err(Fault::Unexpected) };
        let Some(secret) = secret else { return Ok(Who::Nobody) };
        let key = TokenKey::new(&secret).ok_or(Fault::Unexpected)?;
        let who = key.whose(token, now).ok_or(Fault::InvalidToken);
        *self.token_key() = Some(key);
        who
    }

    /// A token for whoever knows the password of `name`.
    ///
    /// # Errors
    /// They do not, or permissions do not count.
    pub(in super::super) async fn log_in(
        &self,
        name: String,
        password: String,
    ) -> Result<(Standing, Revision, String), Fault> {
        let query = AuthQuery::Login { name };
        let asked = self.ask_about_users(Who::Cluster, query, ReadMode::Linearizable).await?;
        let (standing, at, AuthAnswer::Login { user, token_key, revision }) = asked else {
            return Err(Fault::Unexpected);
        };
        let (principal, secret) = user.unzip();
        if !self.is_password(password, secret).await? {
            return Err(Fault::AuthFailed);
        }
        let (principal, key) = principal.zip(TokenKey::new(&token_key)).ok_or(Fault::AuthFailed)?;
        Ok((standing, at, key.token(principal, revision, seconds_now() + TOKEN_SECONDS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn key(byte: u8) -> TokenKey {
        TokenKey::new(&Secret(Bytes::from(vec![byte; 32]))).expect("a key of the right length")
    }

    #[test]
    fn a_token_is_known_by_its_own_key_until_it_runs_out_and_no_other_digits_are() {
        let (principal, revision) = (Principal(7), AuthRevision(300));
        let token = key(1).token(principal, revision, 1_000);
        let who = Some(Who::User { principal, revision });
        assert_eq!(key(1).whose(token.as_bytes(), 999), who);
        assert_eq!(key(1).whose(token.as_bytes(), 1_000), None);
        assert_eq!(key(2).whose(token.as_bytes(), 0), None);
        for at in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(key(1).whose(&forged, 0), None, "digit {at}");
            assert_eq!(key(1).whose(&token.as_bytes()[..at], 0), None);
        }
        for garbage in ["", "token", "Bearer x", "\u{e9}"] {
            assert_eq!(key(1).whose(garbage.as_bytes(), 0), None);
        }
    }
}
