//! `mainstay alarm`: shows the alarm that a keyspace is full, and calls it off.
//!
//! Always: called off by hand, it comes back if there is still no room. Left out: making room (`del`, `compact`).

use super::client_args::ClientArgs;
use super::output::{Format, Shown, finish, json_line, print, usage};
use crate::client::{Client, Failure};
use crate::kv::{Applied, Command, Outcome, SpaceAlarm};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::process::ExitCode;

pub(super) const EXAMPLES: &str = "\
Examples:
  mainstay alarm list                          nothing, or NOSPACE: puts and grants are refused
  mainstay alarm disarm                        takes them again; comes back if there is still no room

The alarm is raised when the keyspace takes more than --quota-bytes, and called off when an eighth of that is free: delete
keys and compact. One that was raised by hand, by etcdctl alarm say, stays until it is disarmed. Exit codes: 0 it is so; 1 the cluster did not serve; 2 the arguments were not understood.";

/// The arguments of `mainstay alarm`.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES, after_help = EXAMPLES)]
pub(super) struct AlarmArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show the alarm, if it is raised, as the member asked sees it
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Call the alarm off
    Disarm {
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Serialize)]
struct AlarmsJson {
    alarms: Vec<&'static str>,
}

/// Runs what was asked for.
pub(super) fn run(arguments: &AlarmArgs) -> ExitCode {
    let (What::List { client: flags } | What::Disarm { client: flags }) = &arguments.what;
    let mut client = match flags.client() {
        Ok(client) => client,
        Err(problem) => return usage(&problem),
    };
    let format = flags.format_or(Format::Simple);
    match &arguments.what {
        What::List { .. } => list(format, &mut client),
        What::Disarm { .. } => {
            let result = disarm(&mut client);
            tell_disarmed(format, &result, &client)
        }
    }
}

fn list(format: Format, client: &mut Client) -> ExitCode {
    let status = match client.status() {
        Ok(status) => status,
        Err(failure) => return finish(format, Shown::default(), client, Err(failure)),
    };
    let is_raised = status.counters.iter().any(|counter| counter.name == "space_alarm" && counter.value > 0);
    let alarms = if is_raised { vec!["NOSPACE"] } else { Vec::new() };
    if format == Format::Json {
        return print(&json_line(&AlarmsJson { alarms }));
    }
    print(alarms.iter().map(|alarm| format!("{alarm}\n")).collect::<Vec<_>>().concat().as_bytes())
}

/// Calls off what was raised by hand, and then the alarm that goes by the bytes that are used.
fn disarm(client: &mut Client) -> Result<Applied, Failure> {
    // What the member that is asked next has not heard of yet would stay.
    client.get("\0")?;
    let status = client.status()?;
    for counter in status.counters.iter().filter(|counter| counter.name == "space_alarm_by_hand") {
        let alarm = SpaceAlarm { by_hand: Some(counter.value), is_raised: false };
        client.write(&Command::SpaceAlarm(alarm))?;
    }
    client.write(&Command::SpaceAlarm(SpaceAlarm::by_bytes(false)))
}

fn tell_disarmed(format: Format, result: &Result<Applied, Failure>, client: &Client) -> ExitCode {
    match result {
        Ok(Applied { outcome: Outcome::SpaceAlarm(_), .. }) if format == Format::Simple => {
            print(b"the space alarm is off\n")
        }
        result => finish(format, Shown::default(), client, result.clone()),
    }
}
