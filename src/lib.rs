//! mainstay: a strongly consistent coordination service.

pub mod api;
pub mod check;
pub mod cli;
pub mod ids;
pub mod kv;
pub mod limits;
pub mod peer;
pub mod planted;
pub mod raft;
pub mod replica;
pub mod sim;
pub mod wal;
