//! The etcd API of real members, over gRPC: beside a real etcd where there is one, and by itself.
//!
//! What always holds: both servers are fresh and each has a port of its own; what a test started is ended with it. A test
//! that needs etcd says that it was skipped where none is found (`scripts/get-etcd.sh` installs one). What these leave
//! out: other people's clients, which `scripts/conformance.sh` runs.
#![allow(missing_docs, clippy::disallowed_methods)] // these are clocks by trade

mod client;
mod differential;
mod floods;
mod generator;
mod json;
mod kubernetes;
mod large;
mod leaders;
mod locks;
mod servers;
mod services;
mod snapshots;
mod streams;
mod user_scripts;
mod users;
mod watch_scripts;
mod watches;
