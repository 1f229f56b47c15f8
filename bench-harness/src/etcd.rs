//! A cluster of real etcd on loopback, to be measured beside ours.
//!
//! What always holds: it runs with etcd's own defaults (timeouts, snapshots, sync on), and is killed when dropped.
//! What it leaves out: speaking gRPC; who is well and who leads is asked over plain HTTP, as monitoring does.

use crate::observer::Watched;
use mainstay::cli::cluster::{ClusterError, free_ports};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a member may take to answer one question.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why there is no etcd.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EtcdError {
    /// It is not installed.
    #[error(
        "no etcd to be found at {}: {source}; `scripts/get-etcd.sh DIR` installs one and prints its path for \
         --etcd-bin", program.display()
    )]
    NotInstalled {
        /// What was tried.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The machine refused something.
    #[error(transparent)]
    Machine(#[from] io::Error),
    /// There is no port.
    #[error(transparent)]
    Ports(#[from] ClusterError),
    /// A member is not well in time.
    #[error("etcd {name} was not healthy after {after_s} s; the end of its log:\n{log}")]
    Late {
        /// Which.
        name: String,
        /// How long it was waited for.
        after_s: u64,
        /// What it said last.
        log: String,
    },
}

/// The members, running.
#[derive(Debug)]
pub(crate) struct EtcdCluster {
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    name: String,
    client: SocketAddr,
    peer: SocketAddr,
    log: PathBuf,
    process: Option<Child>,
}

impl EtcdCluster {
    /// Starts members with their data below `directory` and waits until all are healthy.
    pub(crate) fn start(
        program: Option<&Path>,
        members_count: u16,
        directory: &Path,
        arguments: &[String],
        patience: Duration,
    ) -> Result<Self, EtcdError> {
        let program = program.unwrap_or(Path::new("etcd"));
        let mut members = Vec::new();
        for number in 1..=members_count {
            let port = free_ports()?;
            let name = format!("e{number}");
            members.push(Member {
                client: (Ipv4Addr::LOCALHOST, port).into(),
                peer: (Ipv4Addr::LOCALHOST, port + 1).into(),
                log: directory.join(format!("{name}.log")),
                name,
                process: None,
            });
        }
        let pairs: Vec<String> = members.iter().map(|it| format!("{}=http://{}", it.name, it.peer)).collect();
        let mut cluster = Self { members };
        for member in &mut cluster.members {
            member.launch(program, directory, &pairs.join(","), arguments)?;
        }
        let until = now() + patience;
        for member in &cluster.members {
            while !member.is_healthy() {
                if now() > until {
                    let log = std::fs::read_to_string(&member.log).unwrap_or_default();
                    let log = log.lines().rev().take(10).collect::<Vec<_>>().join("\n");
                    return Err(EtcdError::Late {
                        name: member.name.clone(),
                        after_s: patience.as_secs(),
                        log,
                    });
                }
                // Nobody unparks this thread: it only lets some time pass.
                std::thread::park_timeout(LOOK_EVERY);
            }
        }
        Ok(cluster)
    }

    /// Where the members take gRPC.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.client).collect()
    }

    /// The position of the member that says it leads, waited for at most `patience`.
    pub(crate) fn leader(&self, patience: Duration) -> Option<usize> {
        let until = now() + patience;
        loop {
            let leader = self.members.iter().position(Member::is_leader);
            if leader.is_some() || now() >= until {
                return leader;
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    /// The processes of the members.
    pub(crate) fn processes(&self) -> Vec<Watched> {
        let members = self.members.iter();
        members
            .filter_map(|member| {
                Some(Watched { name: member.name.clone(), pid: member.process.as_ref()?.id() })
            })
            .collect()
    }

    /// Kills everybody.
    pub(crate) fn kill(&mut self) {
        for member in &mut self.members {
            if let Some(mut process) = member.process.take() {
                // It may have ended by itself; either way it is gone afterwards.
                let _ = process.kill();
                let _ = process.wait();
            }
        }
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Member {
    fn launch(
        &mut self,
        program: &Path,
        directory: &Path,
        initial_cluster: &str,
        arguments: &[String],
    ) -> Result<(), EtcdError> {
        let (client, peer) = (format!("http://{}", self.client), format!("http://{}", self.peer));
        let data = directory.join(&self.name).display().to_string();
        let log = File::create(&self.log)?;
        let mut command = Command::new(program);
        for (variable, _) in std::env::vars_os() {
            // What configures an etcd of this machine does not configure ours.
            if variable.to_string_lossy().starts_with("ETCD_") {
                command.env_remove(variable);
            }
        }
        command.args(["--name", &self.name, "--data-dir", &data, "--initial-cluster", initial_cluster]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(arguments);
        // A process group of its own: Ctrl-C in the terminal is for us, and we end the members.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(log));
        let spawned = command.spawn();
        self.process =
            Some(spawned.map_err(|source| EtcdError::NotInstalled { program: program.to_owned(), source })?);
        Ok(())
    }

    fn is_healthy(&self) -> bool {
        self.ask("/health").is_ok_and(|answer| answer.contains("\"health\":\"true\""))
    }

    fn is_leader(&self) -> bool {
        let metrics = self.ask("/metrics").unwrap_or_default();
        metrics.lines().any(|line| line == "etcd_server_is_leader 1")
    }

    /// One question over plain HTTP.
    fn ask(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.client, ANSWER_PATIENCE)?;
        stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.client).as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

#[allow(clippy::disallowed_methods)] // real processes take real time
fn now() -> Instant {
    Instant::now()
}
