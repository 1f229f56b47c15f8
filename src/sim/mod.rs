//! The simulator: a whole cluster in one thread, on virtual time, from one seed.
//!
//! It drives the same `replica::Shard` that a real member runs, and is everything a shard does not contain: the disk,
//! the network, the clock, the clients, and bad luck. The clients too are real where it counts: `client::retry` decides
//! what they do. A shard says what it wants done; here that happens late, twice, in part or not at all, and after every
//! event the invariants of what it touched are checked. A seed that fails once fails for ever:
//! `mainstay sim --seed N --trace` shows how.
//!
//! | file | holds |
//! |---|---|
//! | `run` | one run: the queue's events, one by one |
//! | `faults` | what strikes it; `fault_plan`: which faults a seed has, and how often |
//! | `handing_over` | orders to campaign that are late, and old leaders that hear of nothing |
//! | `cut_leaders` | new leaders that are cut off |
//! | `storage_faults` | what disks do to what they had taken, and the atlas of what the promise covers |
//! | `invariants`, `carried`, `served` | what must be true after every event, one named function each |
//! | `answered` | answers as they leave, and what must be true of them |
//! | `liveness` | what must be true once the faults have ended |
//! | `member`, `disk`, `durable`, `clock` | one member's world; what its disk holds for certain |
//! | `snapshot_files` | the files of snapshots on its disk |
//! | `network`, `events` | what is on its way |
//! | `client`, `workload`, `witness` | who uses the store; the committed log as the checker needs it |
//! | `holders`, `leases` | who holds leases, and whether they last and end as promised |
//! | `watchers`, `watched` | who watches; how it gets there, and what must be true of it |
//! | `campaign`, `tally` | many seeds summed up |
//! | `crash_points` | two scripts, a crash at every completion of them |
//! | `soak` | hours of steady work, in which nothing may grow |
//! | `planted_bugs` | the bugs that can be switched on, to see that the simulator finds them |
//! | `trace`, `random` | what happened; chance |
//!
//! Beside runs from seeds there is the exploration of every schedule of the core alone, which is `raft`'s own
//! (`raft/explore`) and only handed on here.
//!
//! Always: the seed decides everything. No clock, thread, file or order of a hash map gets in, so that one seed gives
//! byte-equal traces, in debug and in release. Only what the promise covers is done to disks, except in one seed of
//! eight, where it is exceeded and only what is served is checked.
#![forbid(unsafe_code)]

mod answered;
mod campaign;
mod carried;
mod client;
mod clock;
mod crash_points;
mod cut_leaders;
mod disk;
mod durable;
mod events;
mod fault_plan;
mod faults;
mod handing_over;
mod holders;
mod invariants;
mod leases;
mod liveness;
mod member;
mod network;
mod planted_bugs;
mod random;
mod run;
mod served;
mod snapshot_files;
mod soak;
mod storage_faults;
mod tally;
mod trace;
mod watched;
mod watchers;
mod witness;
mod workload;

pub use crate::raft::explore::{Explored, Progress, Violation, WORLDS, World, explore};
pub use campaign::*;
pub use clock::TrueMicros;
pub use crash_points::*;
pub use planted_bugs::*;
pub use run::{Counts, Failure, Outcome, RunOptions, run};
pub use soak::{Heights, soak};
pub use tally::Tally;
pub use trace::{LineSink, Trace};
