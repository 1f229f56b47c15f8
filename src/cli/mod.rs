//! The subcommands of the one binary.
//!
//! A subcommand is a file of this room with its arguments as a struct and `run(arguments) -> ExitCode`. This file
//! only says which there are. What always holds: a command that is listed works; an unknown word or flag is an
//! error that names the nearest known one; exit code 0 means that what was asked for is so, 1 that it is not, and 2
//! that the question was not understood. What it leaves out: everything a command does.
#![forbid(unsafe_code)]

mod alarm;
mod client_args;
pub mod cluster;
mod compact;
pub mod config;
mod del;
mod demo;
mod dev;
mod get;
mod hold;
mod inspect;
mod lease;
mod output;
mod put;
mod recover;
pub mod sim;
mod snapshot;
mod snapshot_file;
mod start;
mod status;
mod txn;
mod watch;
pub mod workload;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

const ABOUT: &str = "A strongly consistent coordination service";

const LONG_ABOUT: &str = "\
mainstay: a strongly consistent coordination service, for configuration, service discovery, locks, leader election
and metadata.

This version runs clusters of members that are fixed when they are founded. Clients speak its native protocol, or
etcd's v3 API. There is no TLS yet.";

const EXAMPLES: &str = "\
Examples:
  mainstay demo                            three members as real processes, the leader killed, nothing lost
  mainstay dev                             one member on loopback, to try things with
  mainstay put greeting hello              in another terminal, while one runs
  mainstay get greeting
  mainstay watch greeting                  what happens to it from now on
  mainstay lock backup -- ./backup.sh      while nobody else does
  mainstay status                          the whole cluster, and what is wrong with it
  mainstay start --name n1 --data n1 --initial-cluster n1=127.0.0.1:2380
  mainstay sim --seeds 100 --minutes 1     a hundred simulated clusters, one minute each, faults and all
  mainstay sim --seed 4711 --trace         one of them again, told event by event

Exit codes: 0 it is so, 1 it is not, 2 the arguments were not understood.";

#[derive(Debug, Parser)]
#[command(name = "mainstay", version, about = ABOUT, long_about = LONG_ABOUT, after_long_help = EXAMPLES)]
#[command(arg_required_else_help = true, infer_subcommands = false)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Set a key
    Put(put::PutArgs),
    /// Read a key or a range of keys
    Get(get::GetArgs),
    /// Remove a key or a range of keys
    Del(del::DelArgs),
    /// Compare, then do one of two lists of operations, as one step
    Txn(txn::TxnArgs),
    /// Forget the history before a revision
    Compact(compact::CompactArgs),
    /// See what happens to a key or a range of keys, as it happens
    Watch(watch::WatchArgs),
    /// Grant, revoke, renew and show leases
    Lease(lease::LeaseArgs),
    /// Hold a lock, for as long as a command runs or until Ctrl-C
    Lock(hold::LockArgs),
    /// Be elected leader of something, or see who is
    Elect(hold::ElectArgs),
    /// Show and call off the alarm that a keyspace is full
    Alarm(alarm::AlarmArgs),
    /// Save a snapshot of a running cluster, or verify one
    Snapshot(snapshot::SnapshotArgs),
    /// Show the whole cluster, and what is wrong with it
    Status(status::StatusArgs),
    /// Look at the configuration of a member
    Config(config::check::ConfigArgs),
    /// Three members as real processes, a live workload, the leader killed and brought back, nothing lost
    Demo(demo::DemoArgs),
    /// Look into the files of a member that is not running
    Inspect(inspect::InspectArgs),
    /// The last resort: cut the end off the log of a member that is not running
    Recover(recover::RecoverArgs),
    /// One member, on loopback only, to try things with
    Dev(dev::DevArgs),
    /// One member of a cluster, until it is told to stop
    Start(Box<config::StartArgs>),
    /// Run simulated clusters under faults and check every promise, or replay one of them
    Sim(sim::SimArgs),
}

/// Runs the subcommand this process was started with.
#[must_use]
pub fn run() -> ExitCode {
    match Arguments::parse().command {
        Command::Put(arguments) => put::run(arguments),
        Command::Get(arguments) => get::run(arguments),
        Command::Del(arguments) => del::run(arguments),
        Command::Txn(arguments) => txn::run(&arguments),
        Command::Compact(arguments) => compact::run(&arguments),
        Command::Watch(arguments) => watch::run(arguments),
        Command::Lease(arguments) => lease::run(&arguments),
        Command::Lock(arguments) => hold::lock(arguments),
        Command::Elect(arguments) => hold::elect(arguments),
        Command::Alarm(arguments) => alarm::run(&arguments),
        Command::Snapshot(arguments) => snapshot::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Config(arguments) => config::check::run(arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Recover(arguments) => recover::run(&arguments),
        Command::Dev(arguments) => dev::run(arguments),
        Command::Start(arguments) => start::run(*arguments),
        Command::Sim(arguments) => sim::run(arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::{Arguments, EXAMPLES};
    use clap::error::{ContextKind, ErrorKind};
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_frame_of_commands_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_misspelt_command_is_refused_with_the_nearest_known_one() {
        let error = Arguments::try_parse_from(["mainstay", "simm"]).expect_err("there is no such command");
        assert_eq!(error.kind(), ErrorKind::InvalidSubcommand);
        assert!(error.get(ContextKind::SuggestedSubcommand).is_some(), "{error}");
        assert_eq!(error.exit_code(), 2);
    }

    /// The arguments of every command line of ours in a text for people, in which none is continued on a next line.
    fn commands_in(text: &str) -> Vec<Vec<&str>> {
        let commands = text.lines().filter_map(|line| {
            let line = line.trim().split("  ").next().unwrap_or("");
            let line = line.split(" < ").next().unwrap_or("");
            let is_planted = line.contains("--features planted");
            if is_planted && !cfg!(feature = "planted") {
                return None;
            }
            let arguments = match line.strip_prefix("cargo run --release") {
                Some(_) if line.contains(" -p ") => None,
                Some(rest) => rest.split_once("-- ").map(|(_, arguments)| arguments),
                None => line.strip_prefix("mainstay "),
            };
            // A sentence may begin with the name, too.
            let known = Arguments::command();
            arguments.map(|arguments| arguments.split_whitespace().collect::<Vec<_>>()).filter(|arguments| {
                arguments.first().is_some_and(|name| known.find_subcommand(name).is_some())
            })
        });
        commands.collect()
    }

    #[test]
    fn every_example_of_the_help_and_the_readme_is_understood() {
        for (text, count_min) in [
            (EXAMPLES, 8),
            (&include_str!("../../README.md").replace("\\\n  ", ""), 10),
            (super::put::EXAMPLES, 4),
            (super::get::EXAMPLES, 8),
            (super::del::EXAMPLES, 4),
            (super::txn::EXAMPLES, 2),
            (super::compact::EXAMPLES, 2),
            (super::watch::EXAMPLES, 6),
            (super::lease::EXAMPLES, 8),
            (super::alarm::EXAMPLES, 2),
            (super::hold::LOCK_EXAMPLES, 3),
            (super::hold::ELECT_EXAMPLES, 3),
            (super::snapshot::EXAMPLES, 4),
            (super::recover::EXAMPLES, 3),
            (super::status::EXAMPLES, 3),
        ] {
            let commands = commands_in(text);
            assert!(commands.len() >= count_min, "the examples are found: {commands:?}");
            for arguments in commands {
                let parsed = Arguments::try_parse_from(std::iter::once("mainstay").chain(arguments.clone()));
                if let Err(error) = parsed {
                    panic!("{arguments:?}: {error}");
                }
            }
        }
    }

    #[test]
    fn help_names_every_command_that_exists() {
        let mut command = Arguments::command();
        let help = command.render_long_help().to_string();
        for subcommand in command.get_subcommands() {
            assert!(help.contains(subcommand.get_name()), "{help}");
        }
    }
}
