//! Passwords: hashed with argon2id where a request comes in, so that neither the log nor the shard ever sees one.
//!
//! Always: a hash has salt of its own; comparing takes as long whether there is such a user or not. Left out: which users
//! there are.

use super::Gate;
use crate::api::etcd::Fault;
use crate::auth::Secret;
use crate::limits::{AUTH_PASSWORD_BYTES_MAX, AUTH_TOKEN_KEY_BYTES};
use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use bytes::Bytes;
use rustix::rand::{GetRandomFlags, getrandom};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Bytes of chance in a hash (RFC 9106).
const SALT_BYTES: usize = 16;

/// Bytes of chance. None if the machine has none to give.
fn chance<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let count = getrandom(&mut bytes, GetRandomFlags::empty()).ok()?;
    (count == N).then_some(bytes)
}

fn hash(password: &str) -> Option<Secret> {
    let salt = SaltString::encode_b64(&chance::<SALT_BYTES>()?).ok()?;
    let hashed = Argon2::default().hash_password(password.as_bytes(), &salt).ok()?;
    Some(Secret(Bytes::from(hashed.to_string())))
}

/// Whether a password is the one that `secret` was made of. Without a secret it takes as long, and is not.
fn is_right(password: &str, secret: Option<&Secret>) -> bool {
    let Some(secret) = secret else {
        let _ = hash(password);
        return false;
    };
    let known = core::str::from_utf8(&secret.0).ok().and_then(|text| PasswordHash::new(text).ok());
    known.is_some_and(|known| Argon2::default().verify_password(password.as_bytes(), &known).is_ok())
}

/// A key for tokens.
pub(in super::super) fn new_token_key() -> Result<Secret, Fault> {
    let key = chance::<AUTH_TOKEN_KEY_BYTES>().ok_or(Fault::Unexpected)?;
    Ok(Secret(Bytes::copy_from_slice(&key)))
}

impl Gate {
    /// What a password is compared with from now on. It takes some tens of milliseconds, on a thread of its own. Only for those who
    /// may set one.
    ///
    /// # Errors
    /// Whoever asks may not, the password is too long, or this member is ending.
    pub(in super::super) async fn hash_password(&self, password: String) -> Result<Secret, Fault> {
        self.only_root().await?;
        if password.len() > AUTH_PASSWORD_BYTES_MAX {
            return Err(Fault::TooLarge);
        }
        at_a_place(&self.hashing, move || hash(&password)).await?.ok_or(Fault::Unexpected)
    }

    /// Whether a password is the one that `secret` was made of. It takes as long.
    ///
    /// # Errors
    /// This member is ending.
    pub(super) async fn is_password(&self, password: String, secret: Option<Secret>) -> Result<bool, Fault> {
        if password.len() > AUTH_PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        at_a_place(&self.hashing, move || is_right(&password, secret.as_ref())).await
    }
}

/// Does something that takes memory and time, with few others. The place is its own until it is done, also when nobody waits
/// for it any more.
async fn at_a_place<T: Send + 'static>(
    places: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    let place = Arc::clone(places).acquire_owned().await.map_err(|_| Fault::Stopped)?;
    let done = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(place);
        done
    });
    done.await.map_err(|_| Fault::Unexpected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_right_for_its_own_hash_and_no_two_hashes_are_equal() {
        let (one, other) = (hash("pw").expect("it can be hashed"), hash("pw").expect("it can be hashed"));
        assert_ne!(one, other);
        assert!(is_right("pw", Some(&one)) && is_right("pw", Some(&other)));
        assert!(!is_right("PW", Some(&one)) && !is_right("pw", None));
        assert!(!is_right("pw", Some(&Secret(Bytes::from_static(b"no hash")))));
    }

    #[test]
    fn whoever_goes_away_leaves_its_place_to_the_work_that_goes_on() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let places = Arc::new(Semaphore::new(1));
            let (begun, begins) = tokio::sync::oneshot::channel();
            let (end, ends) = std::sync::mpsc::channel();
            let asked = at_a_place(&places, move || (begun.send(()), ends.recv()));
            tokio::select! {
                _ = asked => panic!("it goes on until it is told to end"),
                _ = begins => {}
            }
            assert_eq!(places.available_permits(), 0, "nobody waits any more, and the work goes on");
            end.send(()).expect("the work waits for that");
            assert!(at_a_place(&places, || ()).await.is_ok(), "there is a place again");
        });
    }
}
