//! A cluster of real processes on this machine's loopback: what `demo`, the tests and bench-harness stand on.
//!
//! Each member is a process of the same binary, started with the command line a person would type; its log lines go to a file
//! beside its data directory. What always holds: a restart uses the same command line as the first start; whatever
//! was started is ended, and a temporary directory removed, when the cluster is dropped. What it leaves out: clients,
//! and what ends without dropping anything (SIGKILL of this process leaves the members running).

use crate::api::{Request, Response, Role, Status};
use crate::client::Connection;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Ports of one member lie this far from those of the next.
const PORTS_PER_MEMBER: u16 = 10;

/// Free ports are looked for from here,
const FREE_PORT_MIN: u16 = 11_000;

/// up to here: below what Linux gives to outgoing connections (32768 and up), because a port of a member that is
/// down for a moment must not be taken by somebody's connection before it is back.
const FREE_PORT_MAX: u16 = 32_000;

/// How long a member may take to say how it sees itself.
const STATUS_PATIENCE: Duration = Duration::from_secs(1);

/// Between two looks at who leads.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Bytes of a member's log that are shown when it ends without having been asked to.
const LOG_SHOWN_BYTES: u64 = 2_048;

/// How a local cluster is made.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The binary of mainstay.
    pub program: PathBuf,
    /// How many members.
    pub members_count: u16,
    /// Where their directories go; `None`: a temporary directory that is removed at the end.
    pub directory: Option<PathBuf>,
    /// Native ports are this, this + 10, …, with the client and peer ports behind each; `None`: free ones.
    pub base_port: Option<u16>,
    /// Their election timeout.
    pub election_ms: u64,
    /// Their heartbeat.
    pub heartbeat_ms: u64,
    /// Further arguments for each.
    pub arguments: Vec<String>,
    /// Further variables for each.
    pub variables: Vec<(String, String)>,
}

/// Why a cluster, or one of its members, is not there.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Something the machine refused.
    #[error("{what}: {source}")]
    Machine {
        /// What was tried.
        what: String,
        /// What it said.
        source: io::Error,
    },
    /// A member ended by itself.
    #[error("member {name} ended ({status}); the end of its log:\n{log}")]
    Ended {
        /// Which.
        name: String,
        /// How.
        status: ExitStatus,
        /// The end of what it wrote to stderr.
        log: String,
    },
    /// A member did not do in time what it was waited for.
    #[error("member {name} was not {what} after {after_ms} ms; the end of its log:\n{log}")]
    Late {
        /// Which.
        name: String,
        /// What was waited for.
        what: &'static str,
        /// For how long.
        after_ms: u128,
        /// The end of what it wrote to stderr.
        log: String,
    },
}

/// A member on this machine, running or not.
#[derive(Debug)]
pub struct LocalMember {
    /// Its name.
    pub name: String,
    /// Its data directory.
    pub data: PathBuf,
    /// Where its stderr goes.
    pub log: PathBuf,
    /// Where native clients reach it.
    pub native: SocketAddr,
    /// Where etcd clients will reach it.
    pub client: SocketAddr,
    /// Where its peers reach it.
    pub peer: SocketAddr,
    process: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// What it says on stdout; closed when it has ended.
    lines: Receiver<String>,
}

/// A cluster on this machine.
#[derive(Debug)]
pub struct LocalCluster {
    /// Its members; those that run are ended when this is dropped.
    pub members: Vec<LocalMember>,
    options: ClusterOptions,
    /// Where a member finds another instead of where that listens, by both positions.
    routes: BTreeMap<(usize, usize), SocketAddr>,
    token: String,
    directory: PathBuf,
}

impl ClusterOptions {
    /// Members of `program` in a temporary directory, on free ports, with the timeouts a server has by default.
    pub fn new(program: PathBuf, members_count: u16) -> Self {
        Self {
            program,
            members_count,
            directory: None,
            base_port: None,
            election_ms: 300,
            heartbeat_ms: 50,
            arguments: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// With timeouts that two starved cores do not turn into elections.
    #[must_use]
    pub fn with_generous_timeouts(self) -> Self {
        Self { election_ms: 700, heartbeat_ms: 70, ..self }
    }
}

impl LocalCluster {
    /// Lays the cluster out, without starting anybody.
    ///
    /// # Errors
    /// The directory cannot be made, or there are no free ports.
    pub fn prepare(options: ClusterOptions) -> Result<Self, ClusterError> {
        let unique = format!("{}-{}", std::process::id(), next_number());
        let directory = match &options.directory {
            Some(directory) => directory.clone(),
            None => std::env::temp_dir().join(format!("mainstay-{unique}")),
        };
        std::fs::create_dir_all(&directory)
            .map_err(|source| machine("making the directory", &directory, source))?;
        let mut members = Vec::new();
        let mut base = options.base_port;
        for number in 1..=options.members_count {
            let port = match base {
                Some(port) => port,
                None => free_ports()?,
            };
            base = base.map(|port| port.saturating_add(PORTS_PER_MEMBER));
            let name = format!("n{number}");
            let address = |offset: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port.saturating_add(offset)));
            members.push(LocalMember {
                data: directory.join(&name),
                log: directory.join(format!("{name}.log")),
                native: address(0),
                client: address(1),
                peer: address(2),
                process: None,
                name,
            });
        }
        // A directory that is given is come back to; then the token must be the same again.
        let token = if options.directory.is_some() { "local".to_owned() } else { format!("local-{unique}") };
        Ok(Self { members, routes: BTreeMap::new(), token, directory, options })
    }

    /// Lays the cluster out, starts everybody and waits until all say that they are ready.
    ///
    /// # Errors
    /// As `prepare`, or a member ended or was not ready within `patience`.
    pub fn start(options: ClusterOptions, patience: Duration) -> Result<Self, ClusterError> {
        let mut cluster = Self::prepare(options)?;
        for position in 0..cluster.members.len() {
            cluster.launch(position)?;
        }
        for position in 0..cluster.members.len() {
            cluster.wait_ready(position, patience)?;
        }
        Ok(cluster)
    }

    /// Where the members' directories are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where native clients reach the members.
    pub fn endpoints(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.native).collect()
    }

    /// Who leads, and how it sees itself, waited for at most `patience`. Members that are down are not asked.
    pub fn leader(&self, patience: Duration) -> Option<(usize, Status)> {
        let until = now() + patience;
        loop {
            let statuses = self.members.iter().map(LocalMember::status).enumerate();
            let mut leaders = statuses.filter_map(|(position, status)| {
                status.filter(|status| status.role == Role::Leader).map(|status| (position, status))
            });
            // One that has not heard of its successor yet may still believe that it leads: the newest term counts.
            let first = leaders.next();
            let newest = leaders.fold(first, |newest, other| match newest {
                Some(newest) if newest.1.term >= other.1.term => Some(newest),
                Some(_) | None => Some(other),
            });
            if newest.is_some() || now() >= until {
                return newest;
            }
            // Nobody unparks this thread: it only lets some time pass.
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    /// From its next start on, the member at `from` finds the one at `to` at `address`, whoever is between them.
    pub fn route(&mut self, from: usize, to: usize, address: SocketAddr) {
        self.routes.insert((from, to), address);
    }

    /// Who is where, as the member at `position` is told.
    fn initial_cluster(&self, position: usize) -> String {
        let pair = |(other, member): (usize, &LocalMember)| {
            let peer = self.routes.get(&(position, other)).unwrap_or(&member.peer);
            format!("{}={peer}", member.name)
        };
        self.members.iter().enumerate().map(pair).collect::<Vec<_>>().join(",")
    }

    /// The arguments that the member at `position` is started with, every time.
    pub fn command_line(&self, position: usize) -> Vec<String> {
        let member = &self.members[position];
        let pairs = [
            ("--name", member.name.clone()),
            ("--data", member.data.display().to_string()),
            ("--listen-client", member.client.to_string()),
            ("--listen-native", member.native.to_string()),
            ("--listen-peer", member.peer.to_string()),
            ("--initial-cluster", self.initial_cluster(position)),
            ("--initial-cluster-token", self.token.clone()),
            ("--election-ms", self.options.election_ms.to_string()),
            ("--heartbeat-ms", self.options.heartbeat_ms.to_string()),
        ];
        let mut line = vec!["start".to_owned()];
        line.extend(pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
        line.extend(self.options.arguments.iter().cloned());
        line
    }

    /// Starts the member at `position`, which must not be running, and does not wait for it.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn launch(&mut self, position: usize) -> Result<(), ClusterError> {
        let arguments = self.command_line(position);
        let program = self.options.program.clone();
        let variables = self.options.variables.clone();
        let member = &mut self.members[position];
        assert!(member.process.is_none(), "a member runs once");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&member.log)
            .map_err(|source| machine("opening", &member.log, source))?;
        let mut command = Command::new(&program);
        for (variable, _) in std::env::vars_os() {
            // What configures whoever starts the cluster does not configure its members.
            if variable.to_string_lossy().starts_with("MAINSTAY_") {
                command.env_remove(variable);
            }
        }
        command.args(arguments).envs(variables);
        // A process group of its own: Ctrl-C in the terminal is for us, and we end the members in order.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::from(log));
        let mut child = command.spawn().map_err(|source| machine("starting", &program, source))?;
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || pass_on(stdout, &sender));
        }
        member.process = Some(Running { child, lines });
        Ok(())
    }

    /// Waits until the member at `position` says that it is ready; returns what it said.
    ///
    /// # Errors
    /// It ended, or `patience` did.
    pub fn wait_ready(&mut self, position: usize, patience: Duration) -> Result<String, ClusterError> {
        let member = &mut self.members[position];
        let until = now() + patience;
        loop {
            match member.next_line(until)? {
                Some(line) if line.starts_with("ready ") => return Ok(line),
                Some(_) => {}
                None => return Err(member.late("ready", patience)),
            }
        }
    }

    /// Starts the member at `position` with the same command line as ever and waits until it is ready.
    ///
    /// # Errors
    /// As `launch` and `wait_ready`.
    pub fn restart(&mut self, position: usize, patience: Duration) -> Result<(), ClusterError> {
        self.launch(position)?;
        self.wait_ready(position, patience).map(drop)
    }

    /// Ends everybody in good order: SIGTERM, and after `patience` SIGKILL. Returns who had to be killed.
    pub fn end(&mut self, patience: Duration) -> Vec<String> {
        for member in &self.members {
            member.signal(Signal::TERM);
        }
        let until = now() + patience;
        let mut killed = Vec::new();
        for member in &mut self.members {
            if member.process.is_some() && member.wait_end(until.saturating_duration_since(now())).is_none() {
                member.kill();
                killed.push(member.name.clone());
            }
        }
        killed
    }
}

impl LocalMember {
    /// Whether it was started and not seen to end.
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// Its process, if it was started.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|running| running.child.id())
    }

    /// How it sees itself and its cluster, if it runs and answers.
    pub fn status(&self) -> Option<Status> {
        self.process.as_ref()?;
        let mut connection = Connection::open(&self.native.to_string(), None, STATUS_PATIENCE).ok()?;
        match connection.call(&Request::Status, STATUS_PATIENCE).ok()? {
            Response::Status(status) => Some(*status),
            Response::SessionOpened { .. }
            | Response::SessionClosed
            | Response::Applied(_)
            | Response::Aged { .. }
            | Response::Watch(_)
            | Response::Snapshot(_)
            | Response::Users { .. }
            | Response::Refused(_) => None,
        }
    }

    /// Kills it with SIGKILL, as a power cut would, and waits for its end.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.process.take() {
            // It may have ended by itself; either way it is gone afterwards.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }

    /// Sends it a signal, if it runs.
    pub fn signal(&self, signal: Signal) {
        if let Some(running) = &self.process {
            // Its end is seen elsewhere; a signal to one that has just ended is lost.
            let _ = kill_process(Pid::from_child(&running.child), signal);
        }
    }

    /// Waits for its end; `None` if it still runs after `patience`.
    pub fn wait_end(&mut self, patience: Duration) -> Option<ExitStatus> {
        let until = now() + patience;
        let running = self.process.as_mut()?;
        loop {
            match running.lines.recv_timeout(until.saturating_duration_since(now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = running.child.wait().ok()?;
        self.process = None;
        Some(status)
    }

    /// The end of what it wrote to stderr.
    pub fn log_end(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.log)?;
            let bytes_count = file.metadata()?.len();
            file.seek(SeekFrom::Start(bytes_count.saturating_sub(LOG_SHOWN_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_else(|error| format!("({} cannot be read: {error})", self.log.display()))
    }

    /// Its next line on stdout; `None` if there is none until `until`.
    fn next_line(&mut self, until: Instant) -> Result<Option<String>, ClusterError> {
        let Some(running) = &mut self.process else { return Ok(None) };
        match running.lines.recv_timeout(until.saturating_duration_since(now())) {
            Ok(line) => return Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => {}
        }
        let status = running.child.wait();
        self.process = None;
        let status = status.map_err(|source| machine("waiting for", Path::new(&self.name), source))?;
        Err(ClusterError::Ended { name: self.name.clone(), status, log: self.log_end() })
    }

    fn late(&self, what: &'static str, patience: Duration) -> ClusterError {
        let after_ms = patience.as_millis();
        ClusterError::Late { name: self.name.clone(), what, after_ms, log: self.log_end() }
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            member.kill();
        }
        if self.options.directory.is_none() {
            // Nothing is left that could do something about it; the system's own cleaning will.
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// Passes on what a member says until it ends, or nobody listens any more.
fn pass_on(stdout: ChildStdout, sender: &Sender<String>) {
    let lines = BufReader::new(stdout).lines().map_while(Result::ok);
    for line in lines {
        if sender.send(line).is_err() {
            return;
        }
    }
}

fn machine(what: &str, path: &Path, source: io::Error) -> ClusterError {
    ClusterError::Machine { what: format!("{what} {}", path.display()), source }
}

/// The first of `PORTS_PER_MEMBER` ports of which those a member needs are free now: three, one after the other.
///
/// # Errors
/// All are taken.
pub fn free_ports() -> Result<u16, ClusterError> {
    let slots_count = (FREE_PORT_MAX - FREE_PORT_MIN) / PORTS_PER_MEMBER;
    // Processes that do this at the same time begin at different places.
    let start = std::process::id().wrapping_mul(97) % u32::from(slots_count);
    let start = u16::try_from(start).unwrap_or(0);
    for _ in 0..slots_count {
        let slot = start.wrapping_add(next_number()) % slots_count;
        let port = FREE_PORT_MIN + slot * PORTS_PER_MEMBER;
        let is_free = |offset: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port + offset)).is_ok();
        if (0..3).all(is_free) {
            return Ok(port);
        }
    }
    let source = io::Error::from(io::ErrorKind::AddrInUse);
    Err(ClusterError::Machine { what: format!("looking for free ports from {FREE_PORT_MIN}"), source })
}

/// A number that this process has not used yet.
fn next_number() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[allow(clippy::disallowed_methods)] // real processes take real time
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::{ClusterOptions, LocalCluster};
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    #[test]
    fn members_are_laid_out_apart_and_started_by_one_line_each() {
        let options = ClusterOptions::new(PathBuf::from("mainstay"), 3);
        let cluster = LocalCluster::prepare(options.clone()).expect("laid out");
        let other = LocalCluster::prepare(options).expect("laid out");
        let ports = [&cluster, &other].into_iter().flat_map(|cluster| cluster.members.iter());
        let ports: BTreeSet<u16> = ports
            .flat_map(|member| [member.native, member.client, member.peer])
            .map(|at| at.port())
            .collect();
        assert_eq!(ports.len(), 18);
        let line = cluster.command_line(1).join(" ");
        assert!(line.starts_with("start --name n2 --data "), "{line}");
        assert!(line.contains(&format!("n3={}", cluster.members[2].peer)), "{line}");
        let directory = cluster.directory().to_owned();
        assert!(directory.exists());
        drop(cluster);
        assert!(!directory.exists());
    }
}
