//! The pure MVCC store of one keyspace: etcd's data model, in memory.
//!
//! A [`Store`] is a value that changes only by [`Store::apply`]. Every member applies the same commands in the
//! same order, so everything here is decided from the command and the store alone: no clock, no randomness, no
//! memory address, no iteration order that could differ between two members.
//!
//! What always holds:
//!
//! - A new store is at revision 1. A transaction that changes anything makes exactly one new revision, whatever
//!   the number of keys it touches; one that changes nothing makes none. So revisions have no gaps.
//! - A transaction happens whole or not at all. What could refuse it is looked for before its first write
//!   (`check.rs` for what the command alone tells, `txn.rs` for what depends on the state), so running it
//!   cannot fail, and a refusal is an ordinary outcome which all members agree on.
//! - A read at an older revision sees exactly what was current then, unless a compaction has put that revision out
//!   of reach. A compaction is one step for everybody who reads; the memory it frees comes back in small slices,
//!   which no answer depends on (`keys.rs`).
//!
//! The way through the room, in reading order: `command.rs` is what can be asked and answered; `store.rs` the
//! two doors, `apply` and `query`; `check.rs` what a command must be to be let in; `txn.rs` compares and
//! branches, `budget.rs` what they may cost; `write.rs` the changes of one transaction; `range.rs` reads; `keys.rs` the index of keys, `blocks.rs` how many there are,
//! `history.rs` the history of each and `changes.rs` the history of all; `event.rs` a change as watches tell it;
//! `leases.rs` which keys go with which lease; `alarms.rs` whether it is full; `serial.rs` a store as bytes, cut in slices while it changes; `hash.rs` the running hash by which members notice that they differ.
//!
//! Where it differs from etcd, on purpose: a put and a delete of the same key that may both run are refused
//! wherever in a transaction they stand (etcd overlooks a delete that reaches to the end of the keyspace, and one
//! in a later nested transaction); a sort without an order is ascending over all pairs (etcd sorts only those that
//! the limit leaves); a key is at most 16 KiB long; what one transaction may look at and answer with is bounded.
//!
//! What it leaves out: the time of leases, which a leader counts (`replica/leases.rs`), and who hears of which change
//! (`watch`).
#![forbid(unsafe_code)]

mod alarms;
mod blocks;
mod budget;
mod changes;
mod check;
mod command;
mod event;
mod hash;
mod history;
mod keys;
mod leases;
#[cfg(test)]
mod model;
mod points;
#[cfg(test)]
pub(crate) mod properties;
mod range;
#[cfg(test)]
mod script;
mod serial;
#[cfg(test)]
mod serial_tests;
mod store;
mod txn;
mod write;

pub use check::{check, check_query};
pub use command::*;
pub use event::{Changed, Event};
pub use history::Moment;
pub use leases::Lease;
pub use serial::{Cut, Malformed, Restorer};
pub use store::{CompactedTo, Store};
