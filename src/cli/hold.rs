//! `mainstay lock` and `mainstay elect`: to hold something alone, for as long as a command or this process runs.
//!
//! Always: the command runs only while the lock is surely held. Another thread renews the lease, so that whatever a
//! renewal waits for, this one watches the clock: if none has succeeded a while before the lease may have ended, the command
//! is told to end (SIGTERM), and when the lease may have ended it is killed, with what it started. It is told the
//! fencing token, which what it writes to must compare, because no clock can tell a process that is paused that its time
//! is over. Left out: how the lock works (`client/lock.rs`).

use super::client_args::ClientArgs;
use super::lease::parse_ttl;
use super::output::{Format, json_line, print, usage};
use super::put::bytes_of;
use crate::client::{Client, Held, NotHeld};
use crate::ids::{LeaseId, Revision};
use bytes::Bytes;
use clap::Args;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// The variables in which a command finds the fencing token, and the key that stands for the lock.
const FENCE_VARIABLE: &str = "MAINSTAY_FENCE";
const KEY_VARIABLE: &str = "MAINSTAY_LOCK_KEY";

/// Between two looks at the command, at Ctrl-C and at the clock.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Between two looks at nothing while who leads is awaited.
const LISTEN_PATIENCE: Duration = Duration::from_mins(1);

/// The exit code if the lock was lost while the command ran.
const LOST: u8 = 3;

pub(super) const LOCK_EXAMPLES: &str = "\
Examples:
  mainstay lock backup -- ./backup.sh          runs it while nobody else holds `backup`; MAINSTAY_FENCE is the token
  mainstay lock backup --wait 10s -- ./backup.sh
  mainstay lock backup --ttl 5s                prints its key, and holds it until Ctrl-C

The fencing token is a number that is larger for every new holder. Give it to whatever the command writes to, and let
that refuse a smaller one than it has seen: a command that is paused for longer than the TTL has lost the lock and does not
know it. If the lock cannot be renewed, the command gets SIGTERM a fifth of the TTL (10s at most) before the lock may be
lost, and SIGKILL then, with all processes of its group; the group is its own unless it runs at a terminal. Exit codes: the command's; without one, 0; 1 it was not held; 2 the arguments were not understood; 3 it was lost.";

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
            let value = Some(value).filter(|value| !value.is_empty());
            let told = announce(format, &held.key, held.fence, held.lease, value);
            if told != ExitCode::SUCCESS {
                return told;
            }
            keep(client, held, None, &is_interrupted)
        }
        Some((program, words)) => {
            match Running::start(program, words, &held) {
                Ok(running) => keep(client, held, Some(running), &is_interrupted),
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

/// Prints who holds it.
fn announce(format: Format, key: &Bytes, fence: Revision, lease: LeaseId, value: Option<&Bytes>) -> ExitCode {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let (key, value) = (text(key), value.map(text));
    if format == Format::Json {
        return print(&json_line(&HeldJson { key, fence: fence.0, lease: lease.0, value }));
    }
    let value = value.map_or_else(String::new, |value| format!("{value}\n"));
    print(format!("{key}\n{value}fence {fence}\n").as_bytes())
}

/// Watches over the command until it ends, or without one until Ctrl-C. If the lease is lost, so is the command.
fn keep(
    client: Client,
    mut held: Held,
    mut running: Option<Running>,
    is_interrupted: &AtomicBool,
) -> ExitCode {
    let (renewing, news) = Renewing::start(client, held.clone());
    let mut why = None;
    let mut is_in_doubt = false;
    loop {
        if let Some(code) = running.as_mut().and_then(|running| running.ended(is_in_doubt)) {
            // If that fails, the lease ends by itself.
            let _ = renewing.stop(held);
            return if is_in_doubt { ExitCode::from(LOST) } else { code };
        }
        if is_interrupted.swap(false, Ordering::Relaxed) {
            match &running {
                // Its end is waited for.
                Some(running) => running.signal(Signal::TERM),
                None => {
                    return renewing.stop(held).map_or_else(|failed| tell(&failed), |()| ExitCode::SUCCESS);
                }
            }
        }
        match news.recv_timeout(LOOK_EVERY) {
            Ok(Ok(renewed)) => held = renewed,
            Ok(Err(NotHeld::Failure(failure))) => why = Some(NotHeld::Failure(failure)),
            Ok(Err(lost)) => return lose(Some(lost), running),
            Err(RecvTimeoutError::Timeout) => {}
            // Nobody renews it any more, so it is about to end.
            Err(RecvTimeoutError::Disconnected) => std::thread::park_timeout(LOOK_EVERY),
        }
        if !held.is_surely_held() {
            return lose(why, running);
        }
        if !is_in_doubt && held.end_in().is_zero() {
            is_in_doubt = true;
            if let Some(running) = &running {
                eprintln!("error: it cannot be renewed in time, so the command is told to end");
                running.signal(Signal::TERM);
            }
        }
    }
}

/// The lease has ended, or may have: the command does not outlive it.
fn lose(why: Option<NotHeld>, running: Option<Running>) -> ExitCode {
    match why {
        Some(why) => eprintln!("error: it is held no more: {why}"),
        None => eprintln!("error: it is held no more: it was not renewed in time"),
    }
    if let Some(running) = running {
        running.kill();
    }
    ExitCode::from(LOST)
}

/// The thread that renews the lease, and has the client.
struct Renewing {
    thread: JoinHandle<Client>,
    is_over: Arc<AtomicBool>,
}

impl Renewing {
    /// Starts it. It tells of each attempt what came of it, and ends by itself when the lease may have.
    fn start(client: Client, held: Held) -> (Self, Receiver<Result<Held, NotHeld>>) {
        let (told, news) = channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || renew(client, held, &told, &asked));
        (Self { thread, is_over }, news)
    }

    /// Ends it, and gives the lock up.
    fn stop(self, held: Held) -> Result<(), NotHeld> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        match self.thread.join() {
            Ok(mut client) => held.release(&mut client),
            Err(_) => Err(NotHeld::Lost),
        }
    }
}

fn renew(
    mut client: Client,
    mut held: Held,
    told: &Sender<Result<Held, NotHeld>>,
    is_over: &AtomicBool,
) -> Client {
    while held.is_surely_held() && !is_over.load(Ordering::Relaxed) {
        let pause = held.renew_in();
        if !pause.is_zero() {
            std::thread::park_timeout(pause.min(LOOK_EVERY));
            continue;
        }
        let news = held.keep_alive(&mut client).map(|()| held.clone());
        let is_over = matches!(&news, Err(not_held) if !matches!(not_held, NotHeld::Failure(_)));
        let is_renewed = news.is_ok();
        if told.send(news).is_err() || is_over {
            break;
        }
        if !is_renewed {
            std::thread::park_timeout(LOOK_EVERY);
        }
    }
    client
}

/// The command, and whether it and what it starts are a process group of their own.
///
/// At a terminal they are not: only one group at a time may read from a terminal, and Ctrl-C and Ctrl-Z are to reach the
/// command as if it ran alone.
struct Running {
    child: Child,
    is_group: bool,
}

impl Running {
    fn start(program: &OsString, words: &[OsString], held: &Held) -> std::io::Result<Self> {
        let is_at_terminal = std::io::stdin().is_terminal()
            || std::io::stdout().is_terminal()
            || std::io::stderr().is_terminal();
        let mut command = Command::new(program);
        command
            .args(words)
            .env(FENCE_VARIABLE, held.fence.0.to_string())
            .env(KEY_VARIABLE, String::from_utf8_lossy(&held.key).as_ref());
        if !is_at_terminal {
            command.process_group(0);
        }
        Ok(Self { child: command.spawn()?, is_group: !is_at_terminal })
    }

    /// Its exit code, if it has ended. `ends_all`: what it started is to end with it.
    fn ended(&mut self, ends_all: bool) -> Option<ExitCode> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let is_over = waitid(WaitId::Pid(Pid::from_child(&self.child)), options).ok()?.is_some();
        if is_over && ends_all {
            // Before its end is taken note of: until then nobody else can have its number.
            self.signal(Signal::KILL);
        }
        let status = self.child.try_wait().ok()??;
        Some(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        // What has ended already needs no signal.
        let _ = if self.is_group { kill_process_group(pid, signal) } else { kill_process(pid, signal) };
    }

    fn kill(mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Prints who leads, one after the other.
fn listen(arguments: &ClientArgs, name: &Bytes) -> ExitCode {
    let mut client = match arguments.client() {
        Ok(client) => client,
        Err(problem) => return usage(&problem),
    };
    let mut observer = match client.observe(name) {
        Ok(observer) => observer,
        Err(failed) => return tell(&failed),
    };
    let format = arguments.format_or(Format::Simple);
    loop {
        match observer.next(&mut client, LISTEN_PATIENCE) {
            Ok(Some(leader)) => {
                let told =
                    announce(format, &leader.key, leader.create_revision, leader.lease, Some(&leader.value));
                if told != ExitCode::SUCCESS {
                    return told;
                }
            }
            Ok(None) => {}
            Err(failed) => return tell(&failed),
        }
    }
}

fn tell(not_held: &NotHeld) -> ExitCode {
    eprintln!("error: {not_held}");
    ExitCode::FAILURE
}
