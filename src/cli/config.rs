//! What a member is told at its start: flags, environment and a file become one checked `ServerConfig`.
//!
//! The three are equal in what they can say and in how it is read: a variable `MAINSTAY_ELECTION_MS` and a key
//! `election-ms` in the file are turned into the flag `--election-ms` and go through the same parser (`layers`).
//! Flags win over the environment, and the environment wins over the file.
//!
//! What always holds: whatever was understood wrongly, or cannot be honoured by this version, is an error that says
//! what to write instead; nothing is ignored but variables of the environment that have nothing to do with us. What
//! it leaves out: whether addresses are free and directories writable, which only the start itself can know.

pub(super) mod check;
mod layers;

use crate::limits::{RAFT_VOTERS_MAX, STATUS_NAME_BYTES_MAX};
use crate::server::{InitialMember, LogFormat, ServerConfig};
use clap::{Args, ValueEnum};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use thiserror::Error;

const DEFAULT_LISTEN_CLIENT: &str = "127.0.0.1:2379";
const DEFAULT_LISTEN_NATIVE: &str = "127.0.0.1:2378";
const DEFAULT_LISTEN_PEER: &str = "127.0.0.1:2380";
const DEFAULT_TOKEN: &str = "mainstay";
const DEFAULT_ELECTION_MS: u64 = 300;
const DEFAULT_HEARTBEAT_MS: u64 = 50;

/// Chosen: the most that etcd advises.
pub(super) const DEFAULT_SNAPSHOT_ENTRIES: u64 = crate::limits::SNAPSHOT_ENTRIES;
pub(super) const DEFAULT_QUOTA_BYTES: u64 = 8 * 1_024 * 1_024 * 1_024;

/// Elections slower than this would leave a cluster without a leader for minutes.
const ELECTION_MS_MAX: u64 = 60_000;

/// A leader must be able to miss two heartbeats in a row and still be followed.
const HEARTBEATS_PER_ELECTION_MIN: u64 = 3;

/// No machine has more CPUs than the kernel can be built for.
const CPU_MAX: u32 = 8_192;

/// The arguments of `mainstay start`, and of `mainstay config check`.
///
/// All are optional here, because each may come from the environment or from the file instead.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct StartArgs {
    /// This member's name, one of those in --initial-cluster
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Its data directory; made if it does not exist
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Where etcd clients are served, over gRPC [default: 127.0.0.1:2379]
    #[arg(long, value_name = "IP:PORT")]
    pub listen_client: Option<SocketAddr>,

    /// Where native clients are served; port 0 takes a free one [default: 127.0.0.1:2378]
    #[arg(long, value_name = "IP:PORT")]
    pub listen_native: Option<SocketAddr>,

    /// Where the other members reach this one [default: 127.0.0.1:2380]
    #[arg(long, value_name = "IP:PORT")]
    pub listen_peer: Option<SocketAddr>,

    /// All members the cluster is founded with, the same on each: n1=IP:PORT,n2=IP:PORT,…
    #[arg(long, value_name = "NAME=IP:PORT,…")]
    pub initial_cluster: Option<String>,

    /// Whether the cluster is founded (new) or joined (existing, not in this version) [default: new]
    #[arg(long, value_name = "STATE")]
    pub initial_cluster_state: Option<InitialClusterState>,

    /// Keeps clusters with the same addresses apart until they are founded [default: mainstay]
    #[arg(long, value_name = "TOKEN")]
    pub initial_cluster_token: Option<String>,

    /// The address etcd clients are told [default: --listen-client]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise_client: Option<String>,

    /// The address native clients are told [default: --listen-native]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise_native: Option<String>,

    /// The address other members are told [default: --listen-peer]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise_peer: Option<String>,

    /// E: without a leader for a time drawn from [E, 2E), a member campaigns [default: 300]
    #[arg(long, value_name = "MS")]
    pub election_ms: Option<u64>,

    /// How often a leader is heard from [default: 50]
    #[arg(long, value_name = "MS")]
    pub heartbeat_ms: Option<u64>,

    /// Bytes of memory that keys, values and their history may take before puts are refused; 0: no limit [default: 8 GiB]
    #[arg(long, value_name = "BYTES")]
    pub quota_bytes: Option<u64>,

    /// Log entries after which a snapshot is cut, and the log before the one before it forgotten; a large one waits until
    /// they have twice the bytes that the last one had [default: 100000]
    #[arg(long, value_name = "N")]
    pub snapshot_entries: Option<u64>,

    /// How linearizable reads are confirmed: the leader answers alone while its lease lasts, or asks a quorum about each batch,
    /// for machines whose clocks may stand still [default: lease]
    #[arg(long, value_name = "MODE")]
    pub read_mode: Option<ReadMode>,

    /// Threads that host groups; this version runs one [default: 1]
    #[arg(long, value_name = "N")]
    pub shards: Option<u32>,

    /// Threads that only serve connections; this version runs none [default: 0]
    #[arg(long, value_name = "N")]
    pub front_threads: Option<u32>,

    /// Pin the threads to these CPUs [default: pinned only where there are more CPUs than threads]
    #[arg(long, value_name = "0,1,…")]
    pub cpus: Option<String>,

    /// Listen beyond loopback although nothing is encrypted and nobody has to prove who they are
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub insecure: Option<bool>,

    /// Read further settings from this TOML file; its keys are these flags without the dashes in front
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How log lines look [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormatArg>,
}

/// Whether a cluster is founded or joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InitialClusterState {
    /// It is founded by the members of `--initial-cluster`.
    New,
    /// It is there already.
    Existing,
}

/// How linearizable reads are confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReadMode {
    /// By a leader lease.
    Lease,
    /// By a round of a quorum.
    Quorum,
}

/// How log lines look, as a flag says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormatArg {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why a configuration cannot be used: what was found, why that does not do, and what to write instead.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{words} [{code}]")]
pub struct ConfigError {
    /// For programs; never reused for something else.
    pub code: &'static str,
    /// For people.
    pub words: String,
}

impl ConfigError {
    fn new(code: &'static str, words: impl Into<String>) -> Self {
        Self { code, words: words.into() }
    }
}

/// The configuration that `flags`, the environment and the file they name come to.
///
/// # Errors
/// What was said is contradictory, incomplete, not understood or not to be honoured by this version.
pub fn resolve(flags: StartArgs) -> Result<ServerConfig, ConfigError> {
    resolve_with(flags, std::env::vars_os())
}

fn resolve_with(
    flags: StartArgs,
    environment: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> Result<ServerConfig, ConfigError> {
    let upper = flags.over(layers::from_environment(environment)?);
    let settings = match upper.config.clone() {
        Some(file) => upper.over(layers::from_file(&file)?),
        None => upper,
    };
    refuse_what_is_not_built(&settings)?;
    let config = assemble(&settings)?;
    check_cluster(&config)?;
    check_addresses(&config, settings.insecure.unwrap_or(false))?;
    check_times(&config)?;
    Ok(config)
}

/// Flags that PRODUCT promises and this version cannot keep are refused, because ignoring them would be a lie.
fn refuse_what_is_not_built(settings: &StartArgs) -> Result<(), ConfigError> {
    let refuse = |words: &str| Err(ConfigError::new("config-not-in-this-version", words));
    if settings.shards.is_some_and(|shards| shards != 1) {
        return refuse("--shards: this version runs one shard; leave the flag out, or give 1");
    }
    if settings.front_threads.is_some_and(|count| count != 0) {
        return refuse("--front-threads: this version has none; leave the flag out, or give 0");
    }
    if settings.initial_cluster_state == Some(InitialClusterState::Existing) {
        return refuse(
            "--initial-cluster-state existing: this version cannot add members to a running cluster; \
             found it with all its members, and restart each with the same command line (state new)",
        );
    }
    Ok(())
}

/// Puts the defaults in and reads what is a list.
fn assemble(settings: &StartArgs) -> Result<ServerConfig, ConfigError> {
    let missing = |flag: &str, example: &str| {
        let variable = layers::variable_of(flag);
        ConfigError::new(
            "config-missing",
            format!(
                "--{flag} is missing; say for example {example} (or set {variable}, or {flag} in the file)"
            ),
        )
    };
    let address = |given: Option<SocketAddr>, default: &str| {
        given.unwrap_or_else(|| default.parse().expect("our own defaults are addresses"))
    };
    let name = settings.name.clone().ok_or_else(|| missing("name", "--name n1"))?;
    let data = settings.data.clone().ok_or_else(|| missing("data", "--data /var/lib/mainstay"))?;
    let cluster = settings.initial_cluster.as_deref().ok_or_else(|| {
        missing("initial-cluster", "--initial-cluster n1=10.0.0.1:2380,n2=10.0.0.2:2380,n3=10.0.0.3:2380")
    })?;
    if data.as_os_str().is_empty() {
        return Err(ConfigError::new("config-value", "--data is empty; name a directory"));
    }
    Ok(ServerConfig {
        name,
        data,
        listen_client: address(settings.listen_client, DEFAULT_LISTEN_CLIENT),
        listen_native: address(settings.listen_native, DEFAULT_LISTEN_NATIVE),
        listen_peer: address(settings.listen_peer, DEFAULT_LISTEN_PEER),
        advertise_client: advertised("advertise-client", settings.advertise_client.as_deref())?,
        advertise_native: advertised("advertise-native", settings.advertise_native.as_deref())?,
        advertise_peer: advertised("advertise-peer", settings.advertise_peer.as_deref())?,
        initial_cluster: initial_members(cluster)?,
        initial_cluster_token: settings.initial_cluster_token.clone().unwrap_or_else(|| DEFAULT_TOKEN.into()),
        election_ms: settings.election_ms.unwrap_or(DEFAULT_ELECTION_MS),
        heartbeat_ms: settings.heartbeat_ms.unwrap_or(DEFAULT_HEARTBEAT_MS),
        reads_by_quorum: settings.read_mode == Some(ReadMode::Quorum),
        quota_bytes: settings.quota_bytes.unwrap_or(DEFAULT_QUOTA_BYTES),
        snapshot_entries: settings.snapshot_entries.unwrap_or(DEFAULT_SNAPSHOT_ENTRIES).max(1),
        shards: settings.shards.unwrap_or(1),
        cpus: cpus(settings.cpus.as_deref().unwrap_or(""))?,
        log_format: match settings.log_format {
            Some(LogFormatArg::Json) => LogFormat::Json,
            Some(LogFormatArg::Text) | None => LogFormat::Text,
        },
    })
}

fn initial_members(list: &str) -> Result<Vec<InitialMember>, ConfigError> {
    let parts = list.split(',').map(str::trim).filter(|part| !part.is_empty());
    let members = parts.map(|part| {
        let wrong = |what: &str| {
            let words =
                format!("--initial-cluster: {what} in '{part}'; a member is written n1=10.0.0.1:2380");
            ConfigError::new("config-initial-cluster", words)
        };
        let (name, peer) = part.split_once('=').ok_or_else(|| wrong("there is no '='"))?;
        if !is_name(name) {
            return Err(wrong("the name is not made of letters, digits, '.', '_' and '-'"));
        }
        let peer = peer.parse().map_err(|_| wrong("what follows '=' is not IP:PORT"))?;
        Ok(InitialMember { name: name.to_owned(), peer })
    });
    members.collect()
}

fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && name.len() <= STATUS_NAME_BYTES_MAX && name.bytes().all(is_plain)
}

fn advertised(flag: &str, address: Option<&str>) -> Result<Option<String>, ConfigError> {
    let Some(address) = address else { return Ok(None) };
    let has_port = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0));
    if !has_port || address.len() > STATUS_NAME_BYTES_MAX {
        let words = format!("--{flag} '{address}' is not HOST:PORT; others must be able to connect to it");
        return Err(ConfigError::new("config-value", words));
    }
    Ok(Some(address.to_owned()))
}

fn cpus(list: &str) -> Result<Vec<u32>, ConfigError> {
    let mut cpus = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.parse::<u32>() {
            Ok(cpu) if cpu < CPU_MAX && !cpus.contains(&cpu) => cpus.push(cpu),
            Ok(_) | Err(_) => {
                let words =
                    format!("--cpus: '{part}' is not a CPU's number, or stands twice; write for example 0,1");
                return Err(ConfigError::new("config-value", words));
            }
        }
    }
    Ok(cpus)
}

/// The members are told apart, and this one is among them.
fn check_cluster(config: &ServerConfig) -> Result<(), ConfigError> {
    let wrong = |words: String| Err(ConfigError::new("config-initial-cluster", words));
    let members = &config.initial_cluster;
    if members.len() > RAFT_VOTERS_MAX {
        return wrong(format!(
            "--initial-cluster names {} members; at most {RAFT_VOTERS_MAX} can vote",
            members.len()
        ));
    }
    for (position, member) in members.iter().enumerate() {
        let mut earlier = members.iter().take(position);
        if earlier.clone().any(|other| other.name == member.name) {
            return wrong(format!(
                "--initial-cluster names {} twice; each member has a name of its own",
                member.name
            ));
        }
        if let Some(other) = earlier.find(|other| other.peer == member.peer && member.peer.port() != 0) {
            return wrong(format!(
                "--initial-cluster gives {} to {} and to {}",
                member.peer, other.name, member.name
            ));
        }
        if member.peer.port() == 0 && members.len() > 1 {
            return wrong(format!(
                "--initial-cluster gives {} no port; the others must know where it is",
                member.name
            ));
        }
    }
    let Some(own) = members.iter().find(|member| member.name == config.name) else {
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        return wrong(format!(
            "--name {} is not in --initial-cluster, which names {}; give one of them, or add this member",
            config.name,
            if names.is_empty() { "nobody".to_owned() } else { names.join(", ") },
        ));
    };
    let listen = config.listen_peer;
    if members.len() > 1 && listen.port() == 0 {
        return wrong(
            "--listen-peer has port 0, which only a member alone may have; give the port that \
             --initial-cluster names"
                .to_owned(),
        );
    }
    let is_elsewhere = own.peer != listen && !listen.ip().is_unspecified() && members.len() > 1;
    if is_elsewhere && config.advertise_peer.as_deref() != Some(own.peer.to_string().as_str()) {
        return wrong(format!(
            "--initial-cluster says that {} is reached at {}, but --listen-peer is {listen}; make them equal, or, \
             if something translates between them, add --advertise-peer {}",
            own.name, own.peer, own.peer
        ));
    }
    Ok(())
}

/// No two listeners share an address, what others are told can be reached, and nothing is open to all by accident.
fn check_addresses(config: &ServerConfig, is_insecure: bool) -> Result<(), ConfigError> {
    let listeners = [
        ("client", config.listen_client, config.advertise_client.as_ref()),
        ("native", config.listen_native, config.advertise_native.as_ref()),
        ("peer", config.listen_peer, config.advertise_peer.as_ref()),
    ];
    for (position, (name, address, advertised)) in listeners.iter().enumerate() {
        let mut earlier = listeners.iter().take(position);
        if let Some((other, _, _)) = earlier.find(|(_, other, _)| other == address && address.port() != 0) {
            let words =
                format!("--listen-{other} and --listen-{name} are both {address}; give each its own port");
            return Err(ConfigError::new("config-address", words));
        }
        if !is_loopback(address.ip()) && !is_insecure {
            let words = format!(
                "--listen-{name} {address} is not loopback, and this version encrypts nothing: whoever reaches that \
                 port can read and write everything; listen on 127.0.0.1, or, on a network where nobody else can \
                 reach it, add --insecure"
            );
            return Err(ConfigError::new("config-insecure", words));
        }
        if address.ip().is_unspecified() && advertised.is_none() {
            let words = format!(
                "--listen-{name} {address} means every address of this machine, which is nothing others could \
                 connect to; add --advertise-{name} HOST:PORT"
            );
            return Err(ConfigError::new("config-address", words));
        }
    }
    Ok(())
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn check_times(config: &ServerConfig) -> Result<(), ConfigError> {
    let (election, heartbeat) = (config.election_ms, config.heartbeat_ms);
    if heartbeat == 0 {
        let words = "--heartbeat-ms is 0; a leader must be heard from now and then, for example every 50";
        return Err(ConfigError::new("config-times", words));
    }
    if election > ELECTION_MS_MAX || election / HEARTBEATS_PER_ELECTION_MIN < heartbeat {
        let words = format!(
            "--election-ms {election} with --heartbeat-ms {heartbeat}: an election timeout is at least \
             {HEARTBEATS_PER_ELECTION_MIN} heartbeats (ten are usual) and at most {ELECTION_MS_MAX} ms"
        );
        return Err(ConfigError::new("config-times", words));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
