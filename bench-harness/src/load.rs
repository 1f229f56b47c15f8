//! Load: operations at a rate or as fast as they are answered, and what they took, honestly counted.
//!
//! What always holds: latencies count from when an operation was due (`pacing`); what failed is counted by kind; the raw
//! cost of the disk, the noise of the machine and the CPU of servers and load are measured in the same run, because no
//! figure means anything without them. What it leaves out: checking what the store answers, which `nemesis` and the
//! simulator do.

mod conversation;
mod engine;
mod etcd_messages;
mod grpc;
mod hpack;
mod http2;
mod native;
pub(crate) mod options;
mod pacing;
pub(crate) mod report;
pub(crate) mod tally;
mod watchers;

use crate::observer::{Hiccups, Usage, Watched, busy_micros};
use crate::target::{System, Target, TargetError, TargetOptions};
use crate::{plots, raw_dsync};
use clap::Args;
use conversation::{Act, Conversation, Material};
use engine::{Dialer, Edge, Engine, EngineError, Plan};
use grpc::GrpcConversation;
use hdrhistogram::Histogram;
use mainstay::client::{Client, ClientOptions};
use mainstay::ids::Revision;
use native::NativeConversation;
use options::{Kind, LoadArgs, Protocol};
use pacing::Pace;
use report::{Costs, Measured, MemberCost, Setting};
use rustix::time::{ClockId, clock_gettime};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use watchers::Watchers;

/// How long filling the store may take before the load begins.
const FILL_NANOS_MAX: u64 = 300_000_000_000;

const SECOND: u64 = 1_000_000_000;

/// Operations unanswered on a connection while the store is being filled.
const FILL_DEPTH: u64 = 64;

const EXAMPLES: &str = "\
Examples:
  bench-harness load --connections 16 --depth 64 --seconds 10          as many writes as three members take
  bench-harness load --connections 256 --depth 1                       256 clients, each waiting for its answer
  bench-harness load --rate 20000 --connections 64 --depth 64          20,000 writes a second, whatever happens
  bench-harness load --op get --rate 50000 --json                      linearizable reads, one line of JSON
  bench-harness load --op watch --rate 300 --connections 4 --depth 64   1,000 watches of 300 writes a second
  bench-harness load --endpoints 10.0.0.1:2378,10.0.0.2:2378           a cluster that runs already
  bench-harness load --target etcd --etcd-bin $(scripts/get-etcd.sh)   the same load on etcd

Latencies count from when an operation was due, not from when it could be sent: an open loop (--rate) does not spare
a server that stands still. Exit code 1 when nothing was acknowledged.";

/// The arguments of `bench-harness load`.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Options {
    /// Which system
    #[arg(long, value_enum, default_value_t = System::Mainstay)]
    target: System,
    /// Members that run already (`host:port` of their native or gRPC ports), instead of starting any
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', conflicts_with = "members")]
    endpoints: Vec<String>,
    /// Write a page with plots here
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    load: LoadArgs,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Machine(#[from] std::io::Error),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("{0}")]
    NotThere(&'static str),
    #[error("no address in --endpoints")]
    NoAddress,
}

/// Runs `bench-harness load`.
pub(crate) fn run(options: &Options) -> ExitCode {
    let outcome = watch_for_interrupts()
        .map_err(LoadError::from)
        .and_then(|interrupted| measure(&options.load, options.target, &options.endpoints, &interrupted));
    let measured = match outcome {
        Ok(measured) => measured,
        Err(error) => {
            eprintln!("bench-harness load: {error}");
            return ExitCode::FAILURE;
        }
    };
    if options.load.json {
        println!("{}", measured.to_json());
    } else {
        println!("{measured}");
    }
    if let Some(file) = &options.html
        && let Err(error) = std::fs::write(file, plots::page(&[&measured], None))
    {
        eprintln!("bench-harness load: {}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    if measured.tally.acknowledged == 0 {
        eprintln!("bench-harness load: nothing was acknowledged");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// A flag that Ctrl-C and its like raise, so that clusters are ended in order.
pub(crate) fn watch_for_interrupts() -> std::io::Result<Arc<AtomicBool>> {
    let is_interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&is_interrupted))?;
    }
    Ok(is_interrupted)
}

/// Starts what is to be measured if it does not run yet, puts it under load and says what came of it.
pub(crate) fn measure(
    args: &LoadArgs,
    system: System,
    endpoints: &[String],
    is_interrupted: &Arc<AtomicBool>,
) -> Result<Measured, LoadError> {
    let protocol = protocol_of(args, system)?;
    let given = resolve(endpoints)?;
    let target = if given.is_empty() { Some(start(args, system)?) } else { None };
    let leader = target.as_ref().and_then(Target::leader);
    let dialer = dialer(args, protocol, target.as_ref(), leader, given);
    let addresses = dialer.addresses.clone();
    let disk = target.as_ref().map(Target::directory);
    let raw_dsync = disk.map(raw_dsync::noise_floor_latencies).transpose()?;
    let connections_count = usize::try_from(args.connections).unwrap_or(usize::MAX);
    let mut engine = Engine::connect(dialer, connections_count, Arc::clone(is_interrupted))?;
    if !matches!(args.op, Kind::Put | Kind::Watch) {
        eprintln!("load: writing {} keys first", args.keys);
        let is_filled = engine.run(&fill_plan(args), &mut |_| ())?;
        if is_filled.errors_count() > 0 {
            eprintln!("load: not all of them could be written: {:?}", is_filled.errors);
        }
    }
    let mut watchers = (args.op == Kind::Watch).then(|| start_watchers(args, &addresses)).transpose()?;
    let mut meter = Meter::new(target.as_ref().map(Target::processes).unwrap_or_default());
    let tally = engine.run(&plan(args), &mut |edge| {
        if let Some(watchers) = &mut watchers {
            watchers.note(usize::from(edge == Edge::Ends));
        }
        meter.note(edge);
    })?;
    let deliveries = watchers.map(|watchers| newest_revision(&addresses).map(|last| watchers.stop(last)));
    let leader_after = target.as_ref().and_then(Target::leader);
    Ok(Measured {
        setting: Setting::of(args, system, protocol, disk),
        tally,
        costs: meter.costs(leader),
        raw_dsync,
        deliveries: deliveries.transpose()?,
        is_leader_changed: leader != leader_after,
    })
}

/// How a system is spoken to under this load.
///
/// # Errors
/// `LoadError::NotThere`: it has no such load.
pub(crate) fn protocol_of(args: &LoadArgs, system: System) -> Result<Protocol, LoadError> {
    let protocol = args.protocol.unwrap_or(match system {
        System::Mainstay => Protocol::Native,
        System::Etcd => Protocol::Grpc,
    });
    refuse_what_is_not_there(args.op, system, protocol).map(|()| protocol)
}

fn refuse_what_is_not_there(op: Kind, system: System, protocol: Protocol) -> Result<(), LoadError> {
    match (op, system, protocol) {
        (Kind::Watch, System::Mainstay, Protocol::Grpc) | (Kind::Watch, System::Etcd, _) => {
            Err(LoadError::NotThere("watches are measured over mainstay's native protocol only"))
        }
        (_, System::Etcd, Protocol::Native) => {
            Err(LoadError::NotThere("etcd does not speak mainstay's native protocol; use --protocol grpc"))
        }
        (op, _, Protocol::Grpc) if !op.is_of_etcd() => {
            Err(LoadError::NotThere("reads with a bound are of mainstay's native protocol only"))
        }
        (_, System::Mainstay | System::Etcd, _) => Ok(()),
    }
}

/// Watches on the leader, or with `--spread` on all members.
fn start_watchers(args: &LoadArgs, addresses: &[SocketAddr]) -> Result<Watchers, LoadError> {
    let served_by = if args.spread { addresses } else { addresses.get(..1).unwrap_or_default() };
    let [count, connections] =
        [args.watchers, args.watch_connections].map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    eprintln!("load: {count} watches on {connections} connections");
    Ok(Watchers::start(served_by, count, connections)?)
}

/// The newest revision there is.
fn newest_revision(addresses: &[SocketAddr]) -> Result<Revision, LoadError> {
    let endpoints: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let mut client = Client::new(ClientOptions::of(&endpoints));
    let applied = client.get("k").map_err(|failure| std::io::Error::other(failure.to_string()))?;
    Ok(applied.revision)
}

fn resolve(endpoints: &[String]) -> Result<Vec<SocketAddr>, LoadError> {
    let mut addresses = Vec::new();
    for endpoint in endpoints {
        addresses.push(endpoint.to_socket_addrs()?.next().ok_or(LoadError::NoAddress)?);
    }
    Ok(addresses)
}

fn start(args: &LoadArgs, system: System) -> Result<Target, TargetError> {
    eprintln!("load: starting {} members of {}", args.members, system.name());
    Target::start(&TargetOptions {
        system,
        members_count: args.members,
        directory: args.data.clone(),
        program: args.program.clone(),
        etcd: args.etcd_bin.clone(),
        arguments: match system {
            System::Mainstay => args.member_arg.clone(),
            System::Etcd => Vec::new(),
        },
    })
}

fn dialer(
    args: &LoadArgs,
    protocol: Protocol,
    target: Option<&Target>,
    leader: Option<usize>,
    given: Vec<SocketAddr>,
) -> Dialer {
    let mut addresses = match (target, protocol) {
        (Some(target), Protocol::Native) => target.native_addresses(),
        (Some(target), Protocol::Grpc) => target.grpc_addresses(),
        (None, Protocol::Native | Protocol::Grpc) => given,
    };
    // Those that are not spread go to the first.
    addresses.rotate_left(leader.unwrap_or(0));
    let material = Material::new(usize::try_from(args.value_bytes).unwrap_or(usize::MAX));
    let has_session = !args.no_session;
    let conversation = Box::new(move |address: SocketAddr| -> Box<dyn Conversation> {
        let material = Rc::clone(&material);
        match protocol {
            Protocol::Native => Box::new(NativeConversation::new(material, has_session)),
            Protocol::Grpc => Box::new(GrpcConversation::new(material, &address.to_string())),
        }
    });
    Dialer { addresses, is_spread: args.spread || protocol == Protocol::Grpc, conversation }
}

fn plan(args: &LoadArgs) -> Plan {
    Plan {
        pace: args.pace(),
        depth: args.depth.into(),
        acts: args.op.acts(args.max_age_ms),
        keys: args.keys,
        is_fill: false,
        warm_up: args.warmup * SECOND,
        measured: args.seconds * SECOND,
    }
}

/// Every key once, as fast as it goes.
fn fill_plan(args: &LoadArgs) -> Plan {
    Plan {
        pace: Pace::Closed,
        depth: FILL_DEPTH,
        acts: vec![Act::Put],
        keys: args.keys,
        is_fill: true,
        warm_up: 0,
        measured: FILL_NANOS_MAX,
    }
}

/// What everybody has cost at the two edges of what is measured.
struct Meter {
    watched: Vec<Watched>,
    before: Vec<Usage>,
    after: Vec<Usage>,
    /// CPU of the thread that makes the load.
    own_before: Duration,
    own_after: Duration,
    /// CPU that anybody has used, the kernel's own threads and interrupts included, in microseconds.
    busy_before: u64,
    busy_after: u64,
    hiccups: Option<Hiccups>,
    lateness: Option<Histogram<u64>>,
}

impl Meter {
    const fn new(watched: Vec<Watched>) -> Self {
        Self {
            watched,
            before: Vec::new(),
            after: Vec::new(),
            own_before: Duration::ZERO,
            own_after: Duration::ZERO,
            busy_before: 0,
            busy_after: 0,
            hiccups: None,
            lateness: None,
        }
    }

    fn note(&mut self, edge: Edge) {
        // One that has ended has cost nothing since.
        let usages = self.watched.iter().map(|watched| Usage::of(watched.pid).unwrap_or_default()).collect();
        match edge {
            Edge::Begins => {
                self.before = usages;
                self.own_before = own_cpu();
                self.busy_before = busy_micros().unwrap_or(0);
                self.hiccups = Some(Hiccups::start());
            }
            Edge::Ends => {
                self.after = usages;
                self.own_after = own_cpu();
                self.busy_after = busy_micros().unwrap_or(0);
                self.lateness = self.hiccups.take().map(Hiccups::stop);
            }
        }
    }

    fn costs(self, leader: Option<usize>) -> Costs {
        let pairs = self.before.iter().zip(&self.after).map(|(before, after)| after.since(*before));
        let members = self.watched.iter().zip(pairs).enumerate();
        let members = members.map(|(position, (watched, usage))| MemberCost {
            name: watched.name.clone(),
            is_leader: leader == Some(position),
            usage,
        });
        Costs {
            members: members.collect(),
            own_cpu: self.own_after.saturating_sub(self.own_before),
            machine_cpu_micros: self.busy_after.saturating_sub(self.busy_before),
            hiccups: self.lateness,
        }
    }
}

/// CPU that this thread has used.
fn own_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
