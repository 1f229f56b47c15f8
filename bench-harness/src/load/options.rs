//! What a load is asked for on the command line.
//!
//! What always holds: `load` and `compare` take the same arguments, so what is compared is the same load. What it
//! leaves out: which system, and where it runs.

use super::conversation::Act;
use super::pacing::Pace;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Keys have eight digits.
const KEYS_MAX: u64 = 100_000_000;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Writes a key drawn from --keys
    Put,
    /// Reads one, linearizably
    Get,
    /// Reads one as the member that is asked has it
    GetSerializable,
    /// Reads one as the member that is asked has it, if that is at most --max-age-ms old, or as the leader has it
    GetMaxAge,
    /// Reads one at revision 1 or later, which any member has: what a bound that holds costs
    GetMinRevision,
    /// A transaction: one compare, which holds, and one put
    TxnCas,
    /// Nine linearizable reads to one write
    Mixed,
    /// Writes, as put does, while --watchers watch every key: what they are told is counted
    Watch,
}

impl Kind {
    /// Its name on the command line and in reports.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether etcd has it, too.
    pub(crate) const fn is_of_etcd(self) -> bool {
        !matches!(self, Self::GetMaxAge | Self::GetMinRevision)
    }

    /// What is drawn from, evenly.
    pub(crate) fn acts(self, max_age_ms: u32) -> Vec<Act> {
        match self {
            Self::Put | Self::Watch => vec![Act::Put],
            Self::Get => vec![Act::Get],
            Self::GetSerializable => vec![Act::GetSerializable],
            Self::GetMaxAge => vec![Act::GetMaxAge(max_age_ms)],
            Self::GetMinRevision => vec![Act::GetMinRevision],
            Self::TxnCas => vec![Act::TxnCas],
            Self::Mixed => [[Act::Get; 9].as_slice(), &[Act::Put]].concat(),
        }
    }
}

/// How servers are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// mainstay's own
    Native,
    /// etcd's
    Grpc,
}

impl Protocol {
    /// Its name in reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Grpc => "grpc",
        }
    }
}

/// What is asked for, whatever it is asked of.
#[derive(Args, Clone, Debug)]
pub(crate) struct LoadArgs {
    /// Members of the cluster to start
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(crate) members: u16,
    /// What an operation does
    #[arg(long, value_enum, default_value_t = Kind::Put)]
    pub(crate) op: Kind,
    /// How members are spoken to [default: native to mainstay, grpc to etcd]
    #[arg(long, value_enum)]
    pub(crate) protocol: Option<Protocol>,
    /// Connections
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) connections: u32,
    /// Operations unanswered at most on each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub(crate) depth: u32,
    /// Operations a second over all connections; 0: the next as soon as there is room (a closed loop)
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    pub(crate) rate: u64,
    /// How long to measure
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// Seconds before that of which nothing is counted
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    pub(crate) warmup: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub(crate) value_bytes: u32,
    /// Keys (k00000000, …), drawn evenly; before anything is read, all are written
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=KEYS_MAX))]
    pub(crate) keys: u64,
    /// Spread native connections over all members; otherwise they go to the leader, as the client library does
    /// (gRPC connections are always spread, as etcd's clients do)
    #[arg(long)]
    pub(crate) spread: bool,
    /// How old an answer may be, in milliseconds, with --op get-max-age
    #[arg(long, default_value_t = 100, value_name = "MS")]
    pub(crate) max_age_ms: u32,
    /// Watches, with --op watch
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) watchers: u32,
    /// Connections over which they are spread
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) watch_connections: u32,
    /// Write without sessions: no stamps, nothing remembered
    #[arg(long)]
    pub(crate) no_session: bool,
    /// Where the members' data goes [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// This binary of mainstay instead of the one built from this tree
    #[arg(long, value_name = "FILE")]
    pub(crate) program: Option<PathBuf>,
    /// This binary of etcd instead of the one in PATH
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_bin: Option<PathBuf>,
    /// A further argument for every member of mainstay (may be repeated)
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub(crate) member_arg: Vec<String>,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl LoadArgs {
    /// When operations are due.
    pub(crate) const fn pace(&self) -> Pace {
        match self.rate {
            0 => Pace::Closed,
            rate => Pace::Open { rate },
        }
    }
}
