//! Measurements and faults on real machines: real disks, and clusters of real processes.
//!
//! What always holds: a command that is listed works, and what it prints is measured, not assumed; it leaves nothing
//! behind in the directory it was given. What it leaves out: everything that can be simulated, which belongs to
//! `mainstay sim`.

mod compare;
mod etcd;
mod failover_reads;
mod full_disk;
mod judge_history;
mod load;
mod machine;
mod nemesis;
mod observer;
mod plots;
mod program;
mod raw_dsync;
mod snapshots;
mod target;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

const LONG_ABOUT: &str = "\
Measurements and faults on real machines, for mainstay.

It puts clusters of real processes under load, ours and etcd, and says what that took; it measures the one thing that
bounds a durable write from below, the disk; and it breaks clusters of ours under load and judges whether
what their clients saw is possible.";

#[derive(Debug, Parser)]
#[command(name = "bench-harness", version, about = "Measurements on real machines, for mainstay")]
#[command(long_about = LONG_ABOUT, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put the same load on two systems in turn, pair after pair, and say the ratios
    Compare(Box<compare::Options>),
    /// Kill the leader while linearizable reads come, and say how soon they are answered again
    FailoverReads(failover_reads::Options),
    /// Fill the disk under a member: it refuses writes, says why, reads on, and recovers by itself (needs root)
    FullDisk(full_disk::Options),
    /// Judge a recorded history: is there any order that explains what the clients were told?
    JudgeHistory(judge_history::Options),
    /// Put a cluster under load, of mainstay or etcd, and measure it
    Load(Box<load::Options>),
    /// Kill, pause and end members of a cluster under load, round after round, and judge what its clients saw
    Nemesis(nemesis::Options),
    /// Fill a store, and measure memory, restarts and snapshots while clients write
    Snapshots(snapshots::Options),
    /// Time durable writes as a write-ahead log makes them: `O_DIRECT`, `RWF_DSYNC`, into zero-filled files
    RawDsync(raw_dsync::Options),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Compare(options) => compare::run(&options),
        Command::FailoverReads(options) => failover_reads::run(&options),
        Command::FullDisk(options) => full_disk::run(&options),
        Command::JudgeHistory(options) => judge_history::run(&options),
        Command::Load(options) => load::run(&options),
        Command::Nemesis(options) => nemesis::run(&options),
        Command::Snapshots(options) => snapshots::run(&options),
        Command::RawDsync(options) => raw_dsync::run(&options),
    }
}

#[cfg(test)]
mod tests {
    use super::Arguments;
    use clap::CommandFactory;

    #[test]
    fn the_frame_of_commands_is_sound() {
        Arguments::command().debug_assert();
    }
}
