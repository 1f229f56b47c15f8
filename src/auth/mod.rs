//! Who may do what: users, roles, and which keys a role may read and write. The model is etcd's (ETCD-CONTRACT §8).
//!
//! [`Auth`] is replicated state, like the store: the same commands in the same order make the same state everywhere
//! ([`Auth::apply`]). Whoever asks for something comes as a [`Who`]: which user the member that took the request found
//! behind it, and by which revision of this state. What they may do is decided by [`Auth::may_run`] and its sisters, which
//! look at nothing but this state, the store and the request, so that a decision at one place of the log is the same on
//! every member (catalogue 36).
//!
//! ```text
//!   user ──has──> roles ──grant──> ranges of keys, to read, to write, or both
//!    ali           app              [app/, app0) read and write
//!                  ops              ops/log      read               ali may read [app/, app0) and ops/log
//!    root          root             everything, and to change all of this
//! ```
//!
//! What always holds:
//!
//! - a request is allowed only if *every* key that it may touch is: of all branches of a transaction at every depth, of
//!   all compares, of pairs that are told because they were there before, of what is attached to a lease it uses or ends;
//! - each change of who may do what has a revision of its own, and whoever was found by an older one is sent back;
//! - a user's number is never given twice, so nobody inherits what was found out about a user of the same name;
//! - all of it takes a bounded number of bytes, and one decision a bounded time.
//!
//! The way through the room: `words.rs` is what is asked and said; `state.rs` what is kept; `rights.rs` what may be done;
//! `ranges.rs` which keys are covered; `bytes.rs` all of it as bytes. What it leaves out: hashing and comparing passwords,
//! and telling from a token who asks (both need time or secrets of the machine); that the state is asked at the right
//! place of the log.
#![forbid(unsafe_code)]

mod bytes;
#[cfg(test)]
pub(crate) mod properties;
mod ranges;
mod rights;
mod state;
#[cfg(test)]
mod tests;
mod words;

pub use bytes::{Malformed, decode_command, encode_command};
pub use state::Auth;
pub use words::*;
