//! What a server is told at its start: checked values, wherever they came from.

use crate::ids::MemberId;
use std::net::SocketAddr;
use std::path::PathBuf;

/// How one member runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Its name, one of `initial_cluster`'s.
    pub name: String,
    /// Its data directory.
    pub data: PathBuf,
    /// Where etcd clients are served. Port 0: any free one.
    pub listen_client: SocketAddr,
    /// Where native clients are served. Port 0: any free one.
    pub listen_native: SocketAddr,
    /// Where peers are served. Port 0 only for a member alone.
    pub listen_peer: SocketAddr,
    /// The addresses told to others; those listened on unless said otherwise.
    pub advertise_client: Option<String>,
    /// See `advertise_client`.
    pub advertise_native: Option<String>,
    /// See `advertise_client`.
    pub advertise_peer: Option<String>,
    /// Every initial member's name and peer address, this one included.
    pub initial_cluster: Vec<InitialMember>,
    /// Keeps clusters with the same addresses apart until they are founded.
    pub initial_cluster_token: String,
    /// E: election timeouts are drawn from [E, 2E).
    pub election_ms: u64,
    /// How often a leader is heard from.
    pub heartbeat_ms: u64,
    /// Whether every linearizable read is confirmed by a quorum, so that no clock counts; otherwise leaders lease.
    pub reads_by_quorum: bool,
    /// Bytes that a keyspace may take in memory; 0 for any number.
    pub quota_bytes: u64,
    /// A snapshot is cut when so many entries were applied since the last.
    pub snapshot_entries: u64,
    /// How many shards run; 1.
    pub shards: u32,
    /// The CPUs to pin threads to; empty: pinned only if the machine has more CPUs than the server has threads.
    pub cpus: Vec<u32>,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// One of the members that the cluster starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMember {
    /// Its name.
    pub name: String,
    /// Where its peers reach it.
    pub peer: SocketAddr,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The id of the member `name` in the cluster of `token`: the same on every machine, never 0.
pub fn member_id(token: &str, name: &str) -> MemberId {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in token.bytes().chain([0]).chain(name.bytes()) {
        // FNV-1a, 64 bits: stable for ever, and names are few.
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    MemberId(hash.max(1))
}
