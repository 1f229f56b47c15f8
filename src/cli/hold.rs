//! `mainstay lock` and `mainstay elect`: to hold something alone, for as long as a command or this process runs.
//!
//! Always: the command runs only while the lock is held, as far as this process can know, and is ended when it is not;
//! it is told the fencing token, which what it writes to must compare, because no clock can tell a process that is
//! paused that its time is over. Left out: how the lock works (`client/lock.rs`).

use super::client_args::ClientArgs;
use super::lease::parse_ttl;
use super::output::{Format, json_line, print, usage};
use super::put::bytes_of;
use crate::client::{Client, Held, NotHeld};
use bytes::Bytes;
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::ffi::OsString;
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The variables in which a command finds the fencing token, and the key that stands for the lock.
const FENCE_VARIABLE: &str = "MAINSTAY_FENCE";
const KEY_VARIABLE: &str = "MAINSTAY_LOCK_KEY";

/// Between two looks at the command, at Ctrl-C and at the clock.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The exit code if the lock was lost while the command ran.
const LOST: u8 = 3;

pub(super) const LOCK_EXAMPLES: &str = "\
Examples:
  mainstay lock backup -- ./backup.sh          runs it while nobody else holds `backup`; MAINSTAY_FENCE is the token
  mainstay lock backup --wait 10s -- ./backup.sh
  mainstay lock backup --ttl 5s                prints its key, and holds it until Ctrl-C

The fencing token is a number that is larger for every new holder. Give it to whatever the command writes to, and let
that refuse a smaller one than it has seen: a command that is paused for longer than the TTL has lost the lock and does not
know it. Exit codes: the command's; without one, 0; 1 it was not held; 2 the arguments were not understood; 3 it was lost.";

pub(super) const ELECT_EXAMPLES: &str = "\
Examples:
  mainstay elect scheduler host-a              waits until it leads, proclaims host-a, and leads until Ctrl-C
  mainstay elect scheduler host-a -- ./run.sh  leads while it runs; MAINSTAY_FENCE is the fencing token
  mainstay elect scheduler --listen            prints who leads, and each one after

Exit codes: as those of lock.";

#[derive(Args, Debug)]
struct Terms {
    /// How long it stays held if this process can no longer renew it
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_ttl)]
    ttl: Duration,

    /// Give up if it is not free after this time [default: wait for ever]
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    wait: Option<Duration>,
}

/// The arguments of `mainstay lock`.
#[derive(Args, Debug)]
#[command(after_long_help = LOCK_EXAMPLES, after_help = LOCK_EXAMPLES)]
pub(super) struct LockArgs {
    /// The name of the lock
    name: OsString,
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    client: ClientArgs,
    /// What to run while it is held
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// The arguments of `mainstay elect`.
#[derive(Args, Debug)]
#[command(after_long_help = ELECT_EXAMPLES, after_help = ELECT_EXAMPLES)]
pub(super) struct ElectArgs {
    /// The name of the election
    name: OsString,
    /// What to proclaim when elected
    #[arg(required_unless_present = "listen", conflicts_with = "listen")]
    value: Option<OsString>,
    /// Print who leads instead of being a candidate
    #[arg(short, long)]
    listen: bool,
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    client: ClientArgs,
    /// What to run while leading
    #[arg(last = true)]
    command: Vec<OsString>,
}

#[derive(Serialize)]
struct HeldJson {
    key: String,
    fence: u64,
    lease: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

/// Runs `mainstay lock`.
pub(super) fn lock(arguments: LockArgs) -> ExitCode {
    let LockArgs { name, terms, client, command } = arguments;
    hold(&client, &bytes_of(name), &Bytes::new(), &terms, &command)
}

/// Runs `mainstay elect`.
pub(super) fn elect(arguments: ElectArgs) -> ExitCode {
    let ElectArgs { name, value, listen: _, terms, client, command } = arguments;
    match value {
        Some(value) => hold(&client, &bytes_of(name), &bytes_of(value), &terms, &command),
        None => listen(&client, &bytes_of(name)),
    }
}

fn hold(
    arguments: &ClientArgs,
    name: &Bytes,
    value: &Bytes,
    terms: &Terms,
    command: &[OsString],
) -> ExitCode {
    let mut client = match arguments.client() {
        Ok(client) => client,
        Err(problem) => return usage(&problem),
    };
    let is_interrupted = Arc::new(AtomicBool::new(false));
    let held = match client.hold(name, value.clone(), terms.ttl, terms.wait) {
        Ok(held) => held,
        Err(not_held) => return tell(&not_held),
    };
    // Only from here on: whoever still waits is ended by Ctrl-C at once, and its lease ends by itself.
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        if signal_hook::flag::register(signal, Arc::clone(&is_interrupted)).is_err() {
            return usage("signals cannot be caught");
        }
    }
    let format = arguments.format_or(Format::Simple);
    match command.split_first() {
        None => {
            let told = announce(format, &held, value);
            if told != ExitCode::SUCCESS {
                return told;
            }
            keep(&mut client, held, None, &is_interrupted)
        }
        Some((program, words)) => {
            let child = Command::new(program)
                .args(words)
                .env(FENCE_VARIABLE, held.fence.0.to_string())
                .env(KEY_VARIABLE, String::from_utf8_lossy(&held.key).as_ref())
                .spawn();
            match child {
                Ok(child) => keep(&mut client, held, Some(child), &is_interrupted),
                Err(error) => {
                    eprintln!("error: {} cannot be run: {error}", program.display());
                    // If that fails, the lease ends by itself.
                    let _ = held.release(&mut client);
                    ExitCode::FAILURE
                }
            }
        }
    }
}

fn announce(format: Format, held: &Held, value: &Bytes) -> ExitCode {
    let key = String::from_utf8_lossy(&held.key).into_owned();
    let value = (!value.is_empty()).then(|| String::from_utf8_lossy(value).into_owned());
    if format == Format::Json {
        let shown = HeldJson { key, fence: held.fence.0, lease: held.lease.0, value };
        return print(&json_line(&shown));
    }
    let value = value.map_or_else(String::new, |value| format!("{value}\n"));
    print(format!("{key}\n{value}fence {}\n", held.fence).as_bytes())
}

/// Renews the lease until the command ends, or without one until Ctrl-C. If the lease is lost, so is the command.
fn keep(
    client: &mut Client,
    mut held: Held,
    mut child: Option<Child>,
    is_interrupted: &AtomicBool,
) -> ExitCode {
    let mut renew_at = now() + held.renew_every();
    loop {
        if let Some(code) = child.as_mut().and_then(ended) {
            // If that fails, the lease ends by itself.
            let _ = held.release(client);
            return code;
        }
        if is_interrupted.swap(false, Ordering::Relaxed) {
            match &child {
                // Its end is waited for.
                Some(child) => end(child),
                None => {
                    return held.release(client).map_or_else(|failed| tell(&failed), |()| ExitCode::SUCCESS);
                }
            }
        }
        if now() >= renew_at {
            match held.keep_alive(client) {
                Ok(()) => renew_at = now() + held.renew_every(),
                Err(NotHeld::Failure(_)) if held.is_surely_held() => {}
                Err(lost) => return lose(&lost, child),
            }
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

fn lose(lost: &NotHeld, child: Option<Child>) -> ExitCode {
    eprintln!("error: it is held no more: {lost}");
    if let Some(mut child) = child {
        end(&child);
        let _ = child.wait();
    }
    ExitCode::from(LOST)
}

fn ended(child: &mut Child) -> Option<ExitCode> {
    let status = child.try_wait().ok()??;
    Some(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn end(child: &Child) {
    // One that has ended already needs no signal.
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
}

/// Prints who leads, whenever that changes.
fn listen(arguments: &ClientArgs, name: &Bytes) -> ExitCode {
    let mut client = match arguments.client() {
        Ok(client) => client,
        Err(problem) => return usage(&problem),
    };
    let mut shown = None;
    loop {
        match client.holder(name) {
            Ok(holder) => {
                let held = holder.map(|pair| (pair.key, pair.value, pair.create_revision, pair.lease));
                if held.is_some() && held != shown {
                    let (key, value, fence, lease) = held.clone().unwrap_or_default();
                    let (key, value) = (
                        String::from_utf8_lossy(&key).into_owned(),
                        String::from_utf8_lossy(&value).into_owned(),
                    );
                    let told = if arguments.format_or(Format::Simple) == Format::Json {
                        print(&json_line(&HeldJson {
                            key,
                            fence: fence.0,
                            lease: lease.0,
                            value: Some(value),
                        }))
                    } else {
                        print(format!("{key}\n{value}\nfence {fence}\n").as_bytes())
                    };
                    if told != ExitCode::SUCCESS {
                        return told;
                    }
                }
                shown = held;
            }
            Err(failed) => return tell(&failed),
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

fn tell(not_held: &NotHeld) -> ExitCode {
    eprintln!("error: {not_held}");
    ExitCode::FAILURE
}

#[allow(clippy::disallowed_methods)] // whoever holds a lease counts its time
fn now() -> Instant {
    Instant::now()
}
