//! `mainstay compact`: forgets the history before a revision.
//!
//! Always: reads at that revision and later answer as before; the memory comes back little by little. Left out:
//! choosing the revision, and doing it regularly.

use super::client_args::ClientArgs;
use super::output::{Format, Shown, finish, print, usage};
use crate::ids::Revision;
use crate::kv::{Applied, Command, Compact, Outcome};
use clap::Args;
use std::process::ExitCode;

pub(super) const EXAMPLES: &str = "\
Examples:
  mainstay compact 1000                        revisions before 1000 can no longer be read
  mainstay compact 1000 --json

Exit codes: 0 done; 1 not done (the revision is compacted already, or not there yet), or the outcome is unknown (the
message says which); 2 the arguments were not understood.";

/// The arguments of `mainstay compact`.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES, after_help = EXAMPLES)]
pub(super) struct CompactArgs {
    /// The oldest revision that stays readable
    revision: u64,

    #[command(flatten)]
    client: ClientArgs,
}

/// Runs what was asked for.
pub(super) fn run(arguments: &CompactArgs) -> ExitCode {
    let mut client = match arguments.client.client() {
        Ok(client) => client,
        Err(problem) => return usage(&problem),
    };
    let format = arguments.client.format_or(Format::Simple);
    let revision = Revision(arguments.revision);
    match client.write(&Command::Compact(Compact { revision })) {
        Ok(Applied { outcome: Outcome::Compacted, .. }) if format == Format::Simple => {
            print(format!("compacted revision {revision}\n").as_bytes())
        }
        result => finish(format, Shown::default(), &client, result),
    }
}
