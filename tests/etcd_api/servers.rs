//! A real etcd, if there is one, and members of ours.

use mainstay::cli::cluster::{ClusterOptions, LocalCluster, free_ports};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::PATIENCE;

/// One etcd on fresh data; killed, and its data removed, when dropped.
#[derive(Debug)]
pub(crate) struct Etcd {
    pub(crate) client: SocketAddr,
    process: Child,
    directory: PathBuf,
}

impl Etcd {
    /// Starts the etcd that `MAINSTAY_ETCD` names, or that `scripts/get-etcd.sh` put into the target directory, or that
    /// is on the PATH. None, and a word about it, if there is none.
    pub(crate) fn start(test: &str) -> Option<Self> {
        Self::start_on(test, |_, _| {})
    }

    /// The same; `prepare` may fill the directory that its data will be in before it starts, for the cluster of this text.
    pub(crate) fn start_on(test: &str, prepare: impl FnOnce(&Path, &str)) -> Option<Self> {
        let Some(program) = program() else {
            println!("{test}: SKIPPED, there is no etcd: run scripts/get-etcd.sh, or set MAINSTAY_ETCD");
            return None;
        };
        let port = free_ports().expect("free ports");
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (client, peer) = (address(port), address(port + 1));
        let directory = std::env::temp_dir().join(format!("mainstay-etcd-{}-{port}", std::process::id()));
        let url = |address: SocketAddr| format!("http://{address}");
        let cluster = format!("default={}", url(peer));
        prepare(&directory, &cluster);
        let process = Command::new(program)
            .arg("--data-dir")
            .arg(&directory)
            .args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)])
            .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
            .args(["--initial-cluster", &cluster, "--log-level", "error"])
            // Its passwords cost as little as can be.
            .args(["--bcrypt-cost", "4"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts");
        let this = Self { client, process, directory };
        let until = Instant::now() + PATIENCE;
        while !is_healthy(client) {
            assert!(Instant::now() < until, "etcd does not serve");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        Some(this)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The `etcdctl` beside that etcd.
pub(crate) fn etcdctl() -> Option<PathBuf> {
    Some(program()?.with_file_name("etcdctl")).filter(|program| program.is_file())
}

fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("MAINSTAY_ETCD") {
        return Some(PathBuf::from(named));
    }
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/etcd/etcd");
    if installed.is_file() {
        return Some(installed);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("etcd")).find(|program| program.is_file())
}

fn is_healthy(address: SocketAddr) -> bool {
    use std::io::{Read, Write};
    let ask = || -> std::io::Result<String> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.write_all(b"GET /health HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains("\"health\":\"true\""))
}

/// Members of ours that serve.
pub(crate) fn mainstay(members_count: u16) -> LocalCluster {
    mainstay_with(members_count, &[])
}

/// The same, with further arguments for each.
pub(crate) fn mainstay_with(members_count: u16, arguments: &[&str]) -> LocalCluster {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_mainstay"));
    let mut options = ClusterOptions::new(program, members_count).with_generous_timeouts();
    options.arguments = arguments.iter().map(ToString::to_string).collect();
    match LocalCluster::start(options, PATIENCE) {
        Ok(cluster) => cluster,
        Err(error) => panic!("{error}"),
    }
}

/// Bytes of memory that the first member has.
pub(crate) fn memory(cluster: &LocalCluster) -> u64 {
    memory_by(cluster, "VmRSS:")
}

/// The most that it had since the last [`forget_peak`].
pub(crate) fn peak_memory(cluster: &LocalCluster) -> u64 {
    memory_by(cluster, "VmHWM:")
}

fn memory_by(cluster: &LocalCluster, line: &str) -> u64 {
    let pid = cluster.members[0].pid().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the kernel knows it");
    let found = status.lines().find_map(|found| found.strip_prefix(line)).expect("there is such a line");
    found.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1_024
}

/// From now on the most memory is counted anew.
pub(crate) fn forget_peak(cluster: &LocalCluster) {
    let pid = cluster.members[0].pid().expect("it runs");
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the kernel counts anew");
}
