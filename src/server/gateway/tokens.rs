//! Tokens: what a user who has logged in shows with each request.
//!
//! ```text
//!   {"alg":"HS256","typ":"JWT"} . {"principal":7,"revision":300,"exp":1764000000} . HMAC-SHA-256 of what stands before
//! ```
//!
//! That is a JSON Web Token (RFC 7519): three times base64url, with points between. `revision` is of users and roles, `exp` in seconds
//! since 1970.
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
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a token counts.
///
/// Chosen: etcd's simple tokens count for as long. Its clients get another by themselves.
const TOKEN_SECONDS: u64 = 300;

/// The header of every token: `{"alg":"HS256","typ":"JWT"}`.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

/// The longest token that is looked at.
///
/// Derived: the three parts of one with the largest numbers have 192 bytes.
const TOKEN_BYTES_MAX: usize = 256;

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    principal: u32,
    revision: u64,
    exp: u64,
}

/// A key that makes and checks tokens.
#[derive(Debug)]
pub(super) struct TokenKey(Hmac<Sha256>);

impl TokenKey {
    fn new(secret: &Secret) -> Option<Self> {
        Hmac::new_from_slice(&secret.0).ok().map(Self)
    }

    /// The token of a user who was found by a revision, until an instant.
    fn token(&self, principal: Principal, revision: AuthRevision, until: u64) -> String {
        let claims = Claims { principal: principal.0, revision: revision.0, exp: until };
        let claims = serde_json::to_vec(&claims).expect("numbers are JSON");
        let signed = format!("{HEADER}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = self.signing(&signed).finalize().into_bytes();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Whose token that is, if it is one and has not run out.
    fn whose(&self, token: &[u8], now: u64) -> Option<Who> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (signed, signature) = core::str::from_utf8(token).ok()?.rsplit_once('.')?;
        // The comparison takes the same time wherever they differ.
        self.signing(signed).verify_slice(&URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        // What else a header could say of how to check a signature is never looked at (RFC 8725 §3.1).
        let (header, claims) = signed.split_once('.')?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        (header == HEADER && now < claims.exp).then_some(Who::User {
            principal: Principal(claims.principal),
            revision: AuthRevision(claims.revision),
        })
    }

    fn signing(&self, signed: &str) -> Hmac<Sha256> {
        let mut signing = self.0.clone();
        signing.update(signed.as_bytes());
        signing
    }
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

    /// The text was made with the libraries of another language.
    #[test]
    fn a_token_is_a_json_web_token() {
        let token = key(1).token(Principal(7), AuthRevision(300), 1_000);
        assert_eq!(
            token,
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJwcmluY2lwYWwiOjcsInJldmlzaW9uIjozMDAsImV4cCI6MTAwMH0.UaeyN0Fm3prxkUqOcA1fra1GwrIg42Ibg_2JSRlSaFI"
        );
    }

    #[test]
    fn a_header_that_names_no_signature_is_refused_even_if_signed() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"principal":7,"revision":300,"exp":1000}"#);
        let signed = format!("{}.{claims}", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
        let signature = URL_SAFE_NO_PAD.encode(key(1).signing(&signed).finalize().into_bytes());
        assert_eq!(key(1).whose(format!("{signed}.{signature}").as_bytes(), 0), None);
        assert_eq!(key(1).whose(format!("{signed}.").as_bytes(), 0), None);
    }

    #[test]
    fn a_token_is_known_by_its_own_key_until_it_runs_out_and_no_other_letters_are() {
        let (principal, revision) = (Principal(7), AuthRevision(300));
        let token = key(1).token(principal, revision, 1_000);
        let who = Some(Who::User { principal, revision });
        assert_eq!(key(1).whose(token.as_bytes(), 999), who);
        assert_eq!(key(1).whose(token.as_bytes(), 1_000), None);
        assert_eq!(key(2).whose(token.as_bytes(), 0), None);
        for at in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(key(1).whose(&forged, 0), None, "letter {at}");
            assert_eq!(key(1).whose(&token.as_bytes()[..at], 0), None);
        }
        let largest = key(1).token(Principal(u32::MAX), AuthRevision(u64::MAX), u64::MAX);
        assert!(largest.len() <= TOKEN_BYTES_MAX && key(1).whose(largest.as_bytes(), 0).is_some());
        for garbage in ["", "token", "Bearer x", "\u{e9}", "a.b.c", "..", HEADER] {
            assert_eq!(key(1).whose(garbage.as_bytes(), 0), None);
        }
    }
}
