//! Measurements and faults on real machines: real disks and, once there is a server, clusters of real processes.
//!
//! What always holds: a command that is listed works, and what it prints is measured, not assumed; it leaves nothing
//! behind in the directory it was given. What it leaves out: everything that can be simulated, which belongs to
//! `mainstay sim`. Spawning members, loading them, breaking them and comparing them with etcd come with the server.

mod raw_dsync;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

const LONG_ABOUT: &str = "\
Measurements on real machines, for mainstay.

Today it measures the one thing that bounds a durable write from below: the disk. Starting clusters of real mainstay
processes, loading them, killing them and comparing them with etcd will live here too, once there is a server to start.";

#[derive(Debug, Parser)]
#[command(name = "bench-harness", version, about = "Measurements on real machines, for mainstay")]
#[command(long_about = LONG_ABOUT, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Time durable writes as a write-ahead log makes them: `O_DIRECT`, `RWF_DSYNC`, into zero-filled files
    RawDsync(raw_dsync::Options),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
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
