//! `mainstay put`: sets one key.
//!
//! Always: the write is applied at most once, however often it has to be sent. Left out: granting leases (`lease`).

use super::client_args::ClientArgs;
use super::lease::parse_lease;
use super::output::{Format, Shown, finish, usage};
use crate::ids::LeaseId;
use crate::kv::{Command, Put};
use bytes::Bytes;
use clap::Args;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

pub(super) const EXAMPLES: &str = "\
Examples:
  mainstay put config/limit 100
  mainstay put config/limit 200 --prev-kv      prints what was there before, too
  mainstay put config/limit --ignore-value     touches the key: a new revision, the same value
  mainstay put here yes --lease 7b             the key goes when that lease ends
  mainstay put a b --endpoints 10.0.0.1:2378,10.0.0.2:2378 --timeout 10s
  mainstay put -- -key -value                  after --, nothing is a flag

With JSON, keys and values are in base64, as etcdctl's are. Exit codes: 0 done; 1 not done, or the outcome is unknown
(the message says which); 2 the arguments were not understood.";

/// The words of a put, on a command line and in a transaction.
#[derive(Args, Clone, Debug)]
pub(super) struct PutWords {
    /// The key
    key: OsString,

    /// The value
    #[arg(required_unless_present = "ignore_value", conflicts_with = "ignore_value")]
    value: Option<OsString>,

    /// Print the pair as it was before
    #[arg(long)]
    prev_kv: bool,

    /// Attach the key to this lease: it goes when the lease ends
    #[arg(long, value_name = "LEASE", value_parser = parse_lease, conflicts_with = "ignore_lease")]
    lease: Option<LeaseId>,

    /// Keep the value the key has; it must exist
    #[arg(long)]
    ignore_value: bool,

    /// Keep the lease the key has; it must exist
    #[arg(long)]
    ignore_lease: bool,
}

impl PutWords {
    pub(super) fn put(self) -> Put {
        Put {
            wants_previous: self.prev_kv,
            keeps_value: self.ignore_value,
            keeps_lease: self.ignore_lease,
            lease: self.lease.unwrap_or_default(),
            ..Put::new(bytes_of(self.key), bytes_of(self.value.unwrap_or_default()))
        }
    }
}

/// The arguments of `mainstay put`.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES, after_help = EXAMPLES)]
pub(super) struct PutArgs {
    #[command(flatten)]
    words: PutWords,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs what was asked for.
pub(super) fn run(arguments: PutArgs) -> ExitCode {
    let mut client = match arguments.client.client() {
        Ok(client) => client,
        Err(problem) => return usage(&problem),
    };
    let result = client.write(&Command::Put(arguments.words.put()));
    finish(arguments.client.format_or(Format::Simple), Shown::default(), &client, result)
}

/// A word of the command line as the bytes it is.
pub(super) fn bytes_of(word: OsString) -> Bytes {
    word.into_vec().into()
}
