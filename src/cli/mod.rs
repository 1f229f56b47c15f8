//! The subcommands of the one binary.
//!
//! A subcommand is a file of this room with its arguments as a struct and `run(arguments) -> ExitCode`. This file
//! only says which there are. What always holds: a command that is listed works; an unknown word or flag is an
//! error that names the nearest known one; exit code 0 means that what was asked for is so, 1 that it is not, and 2
//! that the question was not understood. What it leaves out: everything a command does.
#![forbid(unsafe_code)]

pub mod sim;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

const ABOUT: &str = "A strongly consistent coordination service";

const LONG_ABOUT: &str = "\
mainstay: a strongly consistent coordination service, for configuration, service discovery, locks, leader election
and metadata.

This version holds the core (consensus, write-ahead log, store) and the simulator that proves it. It does not have a
server yet: nothing listens, and nothing is stored outside the memory of a simulated cluster.";

const EXAMPLES: &str = "\
Examples:
  mainstay sim --seeds 100 --minutes 1     a hundred simulated clusters, one minute each, faults and all
  mainstay sim --seed 4711 --trace         one of them again, told event by event
  mainstay sim --budget 5m --json          as many as fit into five minutes, summed up in one line of JSON

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
    /// Run simulated clusters under faults and check every promise, or replay one of them
    Sim(sim::SimArgs),
}

/// Runs the subcommand this process was started with.
#[must_use]
pub fn run() -> ExitCode {
    match Arguments::parse().command {
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

    /// The arguments of every command line of ours in a text for people.
    fn commands_in(text: &str) -> Vec<Vec<&str>> {
        let commands = text.lines().filter_map(|line| {
            let line = line.trim().split("  ").next().unwrap_or("");
            let is_planted = line.contains("--features planted");
            if is_planted && !cfg!(feature = "planted") {
                return None;
            }
            let arguments = match line.strip_prefix("cargo run --release") {
                Some(_) if line.contains(" -p ") => None,
                Some(rest) => rest.split_once("-- ").map(|(_, arguments)| arguments),
                None => line.strip_prefix("mainstay "),
            };
            arguments.filter(|arguments| arguments.starts_with("sim"))
        });
        commands.map(|arguments| arguments.split_whitespace().collect()).collect()
    }

    #[test]
    fn every_example_of_the_help_and_the_readme_is_understood() {
        for (text, count_min) in [(EXAMPLES, 3), (include_str!("../../README.md"), 2)] {
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
