//! The native client library: blocking, over the standard library's sockets, with a timeout on everything.
//!
//! Three doors. [`Client`] is for most: it is given a few members, finds one that serves, repeats what is safe to
//! repeat until a deadline, and says of whatever failed whether it is *not done* or its *outcome is unknown*.
//! [`Connection`] is one connection with requests in flight side by side, for who wants the protocol itself: load
//! generators, and tests.
//!
//! What always holds: a write is sent a second time only with the stamp of the first, so the store applies it
//! once; nothing waits without a bound; bytes from a server are decoded or refused, never trusted. Which attempt
//! follows which is decided by [`retry`], a pure state machine without a clock or a socket, which the simulator drives
//! too.
//!
//! [`Client::hold`] waits for a lock or an election, and gives a fencing token with it; [`Client::observe`] tells who
//! leads, one after the other. [`Watcher`] is a watch that outlives its connections: when its member is lost it goes on at
//! another one, where it stood ([`resume`], pure as well).
//!
//! [`SnapshotDownload`] has a member cut a snapshot and reads it.
//!
//! What it leaves out: TLS, threads of its own.
#![forbid(unsafe_code)]

mod blocking;
mod clock;
mod connection;
mod download;
mod failure;
mod leases;
mod lock;
mod observe;
pub mod resume;
pub mod retry;
#[cfg(test)]
mod tests;
mod watcher;

pub use blocking::{Aged, Client, ClientOptions};
pub use connection::{Connection, Trouble};
pub use download::{NoSnapshot, SnapshotDownload};
pub use failure::Failure;
pub use lock::{Held, NotHeld};
pub use observe::Observer;
pub use watcher::{WatchEvent, Watcher};
