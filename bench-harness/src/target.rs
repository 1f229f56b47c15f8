//! What is put under load: a cluster of mainstay or etcd started here, or members that run already.
//!
//! What always holds: what was started is ended and its data removed when this is dropped; both kinds get their
//! defaults, sync on, and directories on the same disk. What it leaves out: how they are spoken to.

use crate::etcd::{EtcdCluster, EtcdError};
use crate::observer::Watched;
use crate::program;
use clap::ValueEnum;
use mainstay::cli::cluster::{ClusterError, ClusterOptions, LocalCluster};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longer than a start takes on a machine that is not broken.
const PATIENCE: Duration = Duration::from_mins(1);

/// Which system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum System {
    /// This one.
    Mainstay,
    /// etcd 3.5 or later.
    Etcd,
}

impl System {
    /// Its name in reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Mainstay => "mainstay",
            Self::Etcd => "etcd",
        }
    }
}

/// How a target is made.
#[derive(Clone, Debug)]
pub(crate) struct TargetOptions {
    /// Which system.
    pub(crate) system: System,
    /// How many members to start.
    pub(crate) members_count: u16,
    /// Where their data goes; `None`: the system's temporary directory.
    pub(crate) directory: Option<PathBuf>,
    /// The binary of mainstay, if not this tree's.
    pub(crate) program: Option<PathBuf>,
    /// The binary of etcd, if not the one in `PATH`.
    pub(crate) etcd: Option<PathBuf>,
    /// Further arguments for every member.
    pub(crate) arguments: Vec<String>,
}

/// Why there is no target.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    /// This tree does not build, or the directory cannot be made.
    #[error(transparent)]
    Machine(#[from] std::io::Error),
    /// A cluster of mainstay did not come up.
    #[error(transparent)]
    Mainstay(#[from] ClusterError),
    /// A cluster of etcd did not come up.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// A cluster came up without a leader.
    #[error("nobody leads {} s after the start", PATIENCE.as_secs())]
    NoLeader,
}

/// A running target. The members are ended first and their data is removed then, in the order of the fields.
pub(crate) struct Target {
    servers: Servers,
    directory: Removed,
}

enum Servers {
    Mainstay(LocalCluster),
    Etcd(EtcdCluster),
}

impl Target {
    /// Starts a cluster and waits until somebody leads it.
    pub(crate) fn start(options: &TargetOptions) -> Result<Self, TargetError> {
        let place = options.directory.clone().unwrap_or_else(std::env::temp_dir);
        // A directory of its own below the one given: what is put under load is thrown away afterwards.
        let directory = place.join(format!("bench-{}-{}", options.system.name(), std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let removed = Removed(directory.clone());
        let servers = match options.system {
            System::Mainstay => {
                let program = program::find(options.program.as_deref())?;
                let mut cluster_options = ClusterOptions::new(program, options.members_count);
                cluster_options.directory = Some(directory.clone());
                cluster_options.arguments.clone_from(&options.arguments);
                Servers::Mainstay(LocalCluster::start(cluster_options, PATIENCE)?)
            }
            System::Etcd => Servers::Etcd(EtcdCluster::start(
                options.etcd.as_deref(),
                options.members_count,
                &directory,
                &options.arguments,
                PATIENCE,
            )?),
        };
        let target = Self { servers, directory: removed };
        match target.leader() {
            Some(_) => Ok(target),
            None => Err(TargetError::NoLeader),
        }
    }

    /// Where its data is.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory.0
    }

    /// Where the members take the native protocol; etcd has none.
    pub(crate) fn native_addresses(&self) -> Vec<SocketAddr> {
        match &self.servers {
            Servers::Mainstay(cluster) => cluster.endpoints(),
            Servers::Etcd(_) => Vec::new(),
        }
    }

    /// Where the members take gRPC.
    pub(crate) fn grpc_addresses(&self) -> Vec<SocketAddr> {
        match &self.servers {
            Servers::Mainstay(cluster) => cluster.members.iter().map(|member| member.client).collect(),
            Servers::Etcd(cluster) => cluster.addresses(),
        }
    }

    /// The position of the member that leads.
    pub(crate) fn leader(&self) -> Option<usize> {
        match &self.servers {
            Servers::Mainstay(cluster) => cluster.leader(PATIENCE).map(|(position, _)| position),
            Servers::Etcd(cluster) => cluster.leader(PATIENCE),
        }
    }

    /// The processes of its members, in their order.
    pub(crate) fn processes(&self) -> Vec<Watched> {
        match &self.servers {
            Servers::Mainstay(cluster) => {
                let members = cluster.members.iter();
                members
                    .filter_map(|member| Some(Watched { name: member.name.clone(), pid: member.pid()? }))
                    .collect()
            }
            Servers::Etcd(cluster) => cluster.processes(),
        }
    }
}

/// Removes a directory when dropped.
pub(crate) struct Removed(pub(crate) PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} stays behind: {error}", self.0.display());
        }
    }
}
