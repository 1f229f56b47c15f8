//! The one integration point: `Shard::turn(now, inputs, outputs)`.
//!
//! Here consensus (`raft`), the log's bytes (`wal`), the store (`kv`), what clients say (`api`) and what peers say
//! (`peer`) meet, and nowhere else. Time, randomness and the results of I/O come in as values; everything wanted
//! leaves as values; so one seed is one run, and the simulator can be the disk, the network and the clock.
//!
//! | file | holds |
//! |---|---|
//! | `shard` | the write-ahead log and the replicas that share it; the turn |
//! | `asked` | from what clients ask to the replica that serves it |
//! | `group` | one replica; what raft wants done |
//! | `propose`, `forward` | from a request to an entry, here or by way of the leader |
//! | `apply`, `sessions`, `answer_size` | from a committed entry to a response, exactly once |
//! | `read` | linearizable reads |
//! | `space` | the quota of a keyspace |
//! | `state_check` | whether all members made the same of the log |
//! | `leases` | the time of leases: counted by the leader, ended through the log |
//! | `users` | who may do what: changed in apply, asked before anything is done or told |
//! | `watching` | watches: what clients ask of them, and what they are told |
//! | `entries` | the encoded records of the log, by index |
//! | `in_order` | a map for what comes and goes in order: proposals, remembered answers |
//! | `snapshots` | when a snapshot is cut, which are kept, and what of the log goes |
//! | `cutting`, `sessions_bytes`, `restore` | from the state to a file, and back |
//! | `saving` | a snapshot for a client, who keeps it elsewhere |
//! | `install` | a snapshot from the leader in the place of the own state |
//! | `read_times` | how reads were answered, and how long that took |
//! | `freshness` | how old what is applied may be; reads that are content with an age or a revision |
//! | `lease_terms` | how long leaders answer reads alone, as the log says it |
//! | `bootstrap` | how a cluster is founded, and why a wiped disk does not vote |
#![forbid(unsafe_code)]

mod answer_size;
mod apply;
mod asked;
mod bootstrap;
mod cutting;
mod entries;
mod forward;
mod freshness;
#[cfg(test)]
mod freshness_stories;
#[cfg(test)]
mod fuzz;
mod group;
mod in_order;
mod input;
mod install;
#[cfg(test)]
mod leader_lease_stories;
mod lease_terms;
mod leases;
mod observation;
mod output;
mod propose;
mod read;
mod read_times;
mod restore;
mod saving;
mod sessions;
mod sessions_bytes;
mod shard;
#[cfg(test)]
mod snapshot_stories;
mod snapshots;
mod space;
mod state_check;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod test_cluster;
mod users;
#[cfg(test)]
mod users_stories;
#[cfg(test)]
mod watch_stories;
mod watching;

pub use input::*;
pub use lease_terms::*;
pub use observation::*;
pub use output::*;
pub use read_times::{ReadPath, ReadTime};
pub use restore::*;
pub use shard::*;
pub use snapshots::SnapshotPolicy;
