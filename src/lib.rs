#![doc = include_str!("ARCHITECTURE.md")]

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
#[cfg(test)]
mod tidy;
pub mod wal;
