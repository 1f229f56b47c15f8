#![doc = include_str!("ARCHITECTURE.md")]

pub mod api;
pub mod auth;
pub mod check;
pub mod cli;
pub mod client;
pub mod deque;
pub mod ids;
pub mod io;
pub mod kv;
pub mod limits;
pub mod peer;
pub mod planted;
#[cfg(test)]
mod property;
pub mod raft;
pub mod replica;
pub mod server;
pub mod sim;
pub mod snapshot;
pub mod sometimes;
#[cfg(test)]
mod tidy;
pub mod wal;
pub mod watch;
