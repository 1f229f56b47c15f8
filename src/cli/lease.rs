//! `mainstay lease`: grants, revokes, renews and shows leases.
//!
//! Always: ids are hexadecimal, as etcdctl's are; a lease that is not there makes the exit code 1. Left out: attaching
//! keys, which `put --lease` does.

use super::client_args::ClientArgs;
use super::output::{Format, Shown, finish, print, usage};
use crate::client::{Client, Failure};
use crate::ids::LeaseId;
use crate::kv::{Applied, LeaseOutcome, Outcome};
use clap::{Args, Subcommand};
use std::process::ExitCode;
use std::time::Duration;

pub(super) const EXAMPLES: &str = "\
Examples:
  mainstay lease grant 60                      a lease of a minute; prints its id
  mainstay lease grant 1500ms --id 7b
  mainstay put --lease 7b here yes             the key goes when the lease ends
  mainstay lease keep-alive 7b                 renews it until Ctrl-C
  mainstay lease keep-alive 7b --once
  mainstay lease timetolive 7b --keys
  mainstay lease list --json
  mainstay lease revoke 7b                     ends it, and deletes its keys

A lease never ends early, whatever members fail. Exit codes: 0 it is so; 1 it is not (there is no such lease, or the
cluster did not serve; the message says which); 2 the arguments were not understood.";

/// The arguments of `mainstay lease`.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES, after_help = EXAMPLES)]
pub(super) struct LeaseArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a lease
    Grant {
        /// How long it lasts without a renewal: seconds, or a time such as 1500ms, 60s or 10m
        #[arg(value_parser = parse_ttl)]
        ttl: Duration,
        /// Its id, in hexadecimal; the cluster chooses one if not said
        #[arg(long, value_parser = parse_lease, default_value = "0", hide_default_value = true)]
        id: LeaseId,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// End a lease, and delete its keys
    Revoke {
        #[command(flatten)]
        lease: LeaseWord,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Renew a lease, again and again until Ctrl-C
    KeepAlive {
        #[command(flatten)]
        lease: LeaseWord,
        /// Renew it once, and end
        #[arg(long)]
        once: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show what is left of a lease
    #[command(name = "timetolive")]
    TimeToLive {
        #[command(flatten)]
        lease: LeaseWord,
        /// Show its keys, too
        #[arg(long)]
        keys: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List the ids of all leases
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Args, Clone, Copy, Debug)]
struct LeaseWord {
    /// The id of the lease, in hexadecimal
    #[arg(value_name = "LEASE", value_parser = parse_lease)]
    id: LeaseId,
}

/// Runs what was asked for.
pub(super) fn run(arguments: &LeaseArgs) -> ExitCode {
    match &arguments.what {
        What::Grant { ttl, id, client } => ask(client, *id, |client| client.grant_lease(*id, *ttl)),
        What::Revoke { lease, client } => ask(client, lease.id, |client| client.revoke_lease(lease.id)),
        What::KeepAlive { lease, once, client } => keep_alive(client, lease.id, *once),
        What::TimeToLive { lease, keys, client } => {
            ask(client, lease.id, |client| client.lease_time_to_live(lease.id, *keys))
        }
        What::List { client } => ask(client, LeaseId(0), Client::leases),
    }
}

fn ask(
    arguments: &ClientArgs,
    lease: LeaseId,
    ask: impl FnOnce(&mut Client) -> Result<Applied, Failure>,
) -> ExitCode {
    let mut client = match arguments.client() {
        Ok(client) => client,
        Err(problem) => return usage(&problem),
    };
    let result = ask(&mut client);
    tell(arguments.format_or(Format::Simple), &client, lease, result)
}

fn keep_alive(arguments: &ClientArgs, lease: LeaseId, is_once: bool) -> ExitCode {
    let mut client = match arguments.client() {
        Ok(client) => client,
        Err(problem) => return usage(&problem),
    };
    loop {
        let result = client.keep_lease_alive(lease);
        let ttl_ms = match &result {
            Ok(Applied { outcome: Outcome::Lease(LeaseOutcome::Renewed(renewed)), .. }) => renewed.ttl_ms,
            Ok(_) | Err(_) => 0,
        };
        let told = tell(arguments.format_or(Format::Simple), &client, lease, result);
        if is_once || ttl_ms == 0 {
            return told;
        }
        std::thread::park_timeout(Duration::from_millis(ttl_ms / 3));
    }
}

/// Prints an answer. That there is no such lease is an answer, and no success.
fn tell(format: Format, client: &Client, lease: LeaseId, result: Result<Applied, Failure>) -> ExitCode {
    let outcome = match &result {
        Ok(Applied { outcome: Outcome::Lease(outcome), .. }) => outcome.clone(),
        Ok(_) | Err(_) => return finish(format, Shown::default(), client, result),
    };
    let printed = if format == Format::Simple {
        print(simple(lease, &outcome).as_bytes())
    } else {
        finish(format, Shown::default(), client, result)
    };
    if is_there(&outcome) { printed } else { ExitCode::FAILURE }
}

fn is_there(outcome: &LeaseOutcome) -> bool {
    match outcome {
        LeaseOutcome::Renewed(renewed) => renewed.ttl_ms > 0,
        LeaseOutcome::TimeToLive(known) => known.is_some(),
        LeaseOutcome::Granted(_)
        | LeaseOutcome::Revoked
        | LeaseOutcome::Checkpointed
        | LeaseOutcome::Listed(_) => true,
    }
}

fn simple(lease: LeaseId, outcome: &LeaseOutcome) -> String {
    let id = format!("{:x}", lease.0);
    match outcome {
        LeaseOutcome::Granted(grant) => {
            format!("lease {:x} granted with TTL({})\n", grant.lease.0, time(grant.ttl_ms))
        }
        LeaseOutcome::Revoked => format!("lease {id} revoked\n"),
        LeaseOutcome::Renewed(renewed) if renewed.ttl_ms > 0 => {
            format!("lease {id} keepalived with TTL({})\n", time(renewed.ttl_ms))
        }
        LeaseOutcome::Renewed(_) | LeaseOutcome::TimeToLive(None) => {
            format!("lease {id} does not exist, or has expired\n")
        }
        LeaseOutcome::TimeToLive(Some(known)) => {
            let (ttl, remaining) = (time(known.ttl_ms), time(known.remaining_ms));
            let keys: Vec<_> = known.keys.iter().map(|key| key.escape_ascii().to_string()).collect();
            let keys =
                if keys.is_empty() { String::new() } else { format!(", attached keys({})", keys.join(" ")) };
            format!("lease {id} granted with TTL({ttl}), remaining({remaining}){keys}\n")
        }
        LeaseOutcome::Listed(leases) => {
            let ids: Vec<_> = leases.iter().map(|lease| format!("{:x}\n", lease.0)).collect();
            format!("found {} leases\n{}", leases.len(), ids.concat())
        }
        LeaseOutcome::Checkpointed => String::new(),
    }
}

fn time(millis: u64) -> String {
    if millis.is_multiple_of(1_000) { format!("{}s", millis / 1_000) } else { format!("{millis}ms") }
}

/// An id of a lease, in hexadecimal.
pub(super) fn parse_lease(text: &str) -> Result<LeaseId, String> {
    u64::from_str_radix(text, 16)
        .map(LeaseId)
        .map_err(|_| format!("{text:?} is not the id of a lease: up to 16 hexadecimal digits"))
}

/// A time to live: seconds, as etcdctl has it, or a number with a unit.
pub(super) fn parse_ttl(text: &str) -> Result<Duration, String> {
    let fault = || format!("{text:?} is not a time above zero, such as 60, 1500ms, 60s or 10m");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let millis_each: u64 = match text.get(digits.len()..) {
        Some("ms") => 1,
        Some("" | "s") => 1_000,
        Some("m") => 60_000,
        Some("h") => 3_600_000,
        _ => return Err(fault()),
    };
    let count: u64 = digits.parse().map_err(|_| fault())?;
    let millis = count.checked_mul(millis_each).filter(|millis| *millis > 0);
    millis.map(Duration::from_millis).ok_or_else(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_in_seconds_unless_it_has_a_unit() {
        for (text, millis) in
            [("60", 60_000), ("1500ms", 1_500), ("2s", 2_000), ("10m", 600_000), ("1h", 3_600_000)]
        {
            assert_eq!(parse_ttl(text), Ok(Duration::from_millis(millis)));
        }
        for bad in ["", "0", "-1", "s", "1d", "99999999999999999999"] {
            assert!(parse_ttl(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_id_of_a_lease_is_hexadecimal() {
        assert_eq!(parse_lease("7b"), Ok(LeaseId(123)));
        assert!(parse_lease("lease7").is_err());
    }
}
