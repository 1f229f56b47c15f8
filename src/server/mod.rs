//! Threads, and everything a process does around the pure core (DESIGN §5).
//!
//! One shard thread owns the disk, the peers and the native clients through one ring; a bulk thread makes segments;
//! a signal thread tells the shard to stop. They meet only in bounded mailboxes. Always: the first thing that makes
//! the disk doubtful ends the process, with an explanation. Left out: what a shard decides (`replica`).
//!
//! | file | holds |
//! |---|---|
//! | `config` | what a member is told at its start |
//! | `shard_thread` | the loop |
//! | `connection`, `connections` | one connection, without its socket's operations; all of them |
//! | `native`, `peers` | what clients and peers say on connections |
//! | `placement` | which thread runs on which CPU |
//! | `record` | evidence of what left when |
//! | `stages` | where the time of a write goes |
//! | `gateway` | where etcd clients' requests and a shard meet; the gateway's thread |
//! | `grpc`, `http` | the services of the etcd API, over gRPC and as JSON; what monitoring asks |
//! | `bulk_thread`, `mailbox` | segments made ahead; how other threads reach the shard |
#![forbid(unsafe_code)]

mod bulk_thread;
mod config;
mod connection;
mod connections;
mod gateway;
mod grpc;
mod http;
mod mailbox;
mod native;
mod peers;
mod placement;
mod record;
mod removal_thread;
mod shard_thread;
mod snapshot_thread;
mod stages;
mod watching;

pub use config::{InitialMember, LogFormat, ServerConfig, member_id};

use crate::io::{DiskError, RingError};
use crate::replica::CannotStart;
use mailbox::{Mailbox, Note};
use placement::Placement;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Why a member ends. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No io_uring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The data directory.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What is in the data directory.
    #[error("the data directory cannot be used: {0}")]
    Start(#[from] CannotStart),
    /// An address.
    #[error(
        "cannot listen on {address} ({source}): is another process there, or is the address not this machine's?"
    )]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The log could not be written.
    #[error(
        "a write to the log failed ({source}). This member stops, because what it would acknowledge might be lost. \
         Look after the disk (dmesg), then start it again; nothing acknowledged is lost while a majority is sound"
    )]
    LogWrite {
        /// What the kernel said.
        source: io::Error,
    },
    /// The log could not be written whole.
    #[error(
        "a write to the log took {count} bytes of {wanted}: the disk is full or failing. This member stops"
    )]
    ShortWrite {
        /// Bytes handed over.
        wanted: usize,
        /// Bytes taken.
        count: usize,
    },
    /// No segment for the log.
    #[error("no segment for the log could be made ({why}): free some space, then start the member again")]
    NoSegment {
        /// What the disk said.
        why: String,
    },
    /// No thread for snapshots.
    #[error("the thread for snapshots has ended: this is a bug; start the member again")]
    NoSnapshots,
    /// A CPU that this process may not use.
    #[error(
        "--cpus names CPU {missing}, and this process may run on {allowed:?} only: name some of those, or none"
    )]
    Cpus {
        /// The one asked for.
        missing: u32,
        /// Those to be had.
        allowed: Vec<u32>,
    },
    /// The kernel refused something small.
    #[error("the kernel refused a descriptor, a thread or an address: {0}")]
    Kernel(io::Error),
}

/// How a running member is told to stop.
#[derive(Debug, Default)]
pub struct Stop {
    state: Mutex<StopState>,
}

#[derive(Debug, Default)]
struct StopState {
    is_stopping: bool,
    shards: Vec<Mailbox>,
}

impl Stop {
    /// Tells the member to hand over, drain and end; also one that has not started yet.
    pub fn stop(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_stopping = true;
        for shard in &state.shards {
            shard.put(Note::Stop);
        }
    }

    fn notify(&self, shard: Mailbox) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_stopping {
            shard.put(Note::Stop);
        }
        state.shards.push(shard);
    }
}

/// Runs a member until it is stopped: a thread for each of its shards.
///
/// # Errors
/// Whatever keeps it from starting or from going on; the text says what to do.
pub fn run(config: &ServerConfig, stop: &Stop) -> Result<(), ServerError> {
    crate::io::take_memory_in_large_steps();
    let placements = placement::place(config)?;
    thread::scope(|scope| {
        let mut shards = Vec::new();
        for (shard, placement) in placements.iter().enumerate() {
            let thread = thread::Builder::new().name(format!("shard-{shard}"));
            let run = move || run_shard(config, placement, stop);
            let spawned = thread.spawn_scoped(scope, run).inspect_err(|_| stop.stop());
            shards.push(spawned.map_err(ServerError::Kernel)?);
        }
        let ends =
            shards.into_iter().map(|shard| shard.join().expect("a shard that panics ends the process"));
        ends.fold(Ok(()), Result::and)
    })
}

fn run_shard(config: &ServerConfig, placement: &Placement, stop: &Stop) -> Result<(), ServerError> {
    #[cfg(feature = "planted")]
    plant();
    let ended = shard_thread::ShardThread::start(config.clone(), placement, stop)
        .and_then(shard_thread::ShardThread::run);
    // A member is all of its shards: when one has ended, so do the others.
    stop.stop();
    ended
}

/// Switches on the bug that `MAINSTAY_PLANTED` names, for tests that must see a check fail.
#[cfg(feature = "planted")]
fn plant() {
    let bug = std::env::var("MAINSTAY_PLANTED").ok().and_then(|number| number.parse().ok());
    if let Some(bug) = bug {
        tracing::warn!(bug, "a bug is planted in this member: it holds nothing that matters");
        crate::planted::switch_on(bug);
    }
}
