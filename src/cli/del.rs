//! `mainstay del`: removes one key or a range of keys.
//!
//! Always: applied at most once; removing nothing is a success that prints 0. Left out: nothing.

use super::client_args::ClientArgs;
use super::get::RangeWords;
use super::output::{Format, Shown, finish, usage};
use crate::kv::{Command, DeleteRange};
use clap::Args;
use std::process::ExitCode;

pub(super) const EXAMPLES: &str = "\
Examples:
  mainstay del config/limit                    prints how many keys were removed
  mainstay del config/ --prefix --prev-kv      prints what they were, too
  mainstay del a m                             keys from a up to, and without, m
  mainstay del a --from-key --json

With JSON, keys and values are in base64, as etcdctl's are. Exit codes: 0 done; 1 not done, or the outcome is unknown
(the message says which); 2 the arguments were not understood.";

/// The words of a delete, on a command line and in a transaction.
#[derive(Args, Clone, Debug)]
pub(super) struct DelWords {
    #[command(flatten)]
    range: RangeWords,

    /// Print the pairs as they were before
    #[arg(long)]
    prev_kv: bool,
}

impl DelWords {
    pub(super) fn delete_range(self) -> DeleteRange {
        DeleteRange { range: self.range.range(), wants_previous: self.prev_kv }
    }
}

/// The arguments of `mainstay del`.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES, after_help = EXAMPLES)]
pub(super) struct DelArgs {
    #[command(flatten)]
    words: DelWords,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs what was asked for.
pub(super) fn run(arguments: DelArgs) -> ExitCode {
    let mut client = match arguments.client.client() {
        Ok(client) => client,
        Err(problem) => return usage(&problem),
    };
    let result = client.write(&Command::DeleteRange(arguments.words.delete_range()));
    finish(arguments.client.format_or(Format::Simple), Shown::default(), &client, result)
}
