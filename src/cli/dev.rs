//! `mainstay dev`: one member, on loopback only, to try things with.

use crate::server::{InitialMember, LogFormat, ServerConfig};
use clap::Args;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;

/// One member, loopback only, ready in under a second
#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// Its data directory; made if it does not exist
    #[arg(long, value_name = "DIR", default_value = "mainstay-dev")]
    data: PathBuf,

    /// Where native clients are served, on 127.0.0.1; 0 is any free port
    #[arg(long, value_name = "PORT", default_value_t = 2378)]
    native_port: u16,

    /// Where etcd clients are served, on 127.0.0.1; 0 is any free one [default: 2379, or any free one if that is taken]
    #[arg(long, value_name = "PORT")]
    client_port: Option<u16>,
}

/// Where etcd clients look if nobody tells them.
const CLIENT_PORT: u16 = 2379;

/// Runs `dev`.
pub(super) fn run(arguments: DevArgs) -> ExitCode {
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let endpoint = loopback(arguments.native_port);
    let is_free = || TcpListener::bind(loopback(CLIENT_PORT)).is_ok();
    let client_port = arguments.client_port.unwrap_or_else(|| if is_free() { CLIENT_PORT } else { 0 });
    eprintln!("One member on {endpoint}, data in {}. Once it says ready:", arguments.data.display());
    eprintln!("  mainstay --help");
    eprintln!("  mainstay put --endpoints {endpoint} greeting hello");
    eprintln!("  mainstay get --endpoints {endpoint} greeting");
    if client_port == 0 {
        eprintln!(
            "  etcdctl --endpoints 127.0.0.1:PORT get greeting     PORT: behind client= in the line that says ready"
        );
    } else {
        eprintln!("  etcdctl --endpoints 127.0.0.1:{client_port} get greeting");
    }
    eprintln!("Ctrl-C ends it; the data stays.");
    super::start::serve(&ServerConfig {
        name: "dev".to_owned(),
        data: arguments.data,
        listen_client: loopback(client_port),
        listen_native: endpoint,
        listen_peer: loopback(0),
        advertise_client: None,
        advertise_native: None,
        advertise_peer: None,
        initial_cluster: vec![InitialMember { name: "dev".to_owned(), peer: loopback(0) }],
        initial_cluster_token: "dev".to_owned(),
        election_ms: 300,
        heartbeat_ms: 50,
        reads_by_quorum: false,
        quota_bytes: super::config::DEFAULT_QUOTA_BYTES,
        snapshot_entries: super::config::DEFAULT_SNAPSHOT_ENTRIES,
        shards: 1,
        cpus: Vec::new(),
        log_format: LogFormat::Text,
    })
}
