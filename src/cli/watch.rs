//! `mainstay watch`: what happens to a key or a range of keys, as it happens.
//!
//! Always: in order, nothing twice and nothing left out, whatever becomes of the members: when the one that serves it is
//! lost, another goes on where it stood, and stderr says so. Left out: commands to be run at each event.

use super::client_args::ClientArgs;
use super::get::RangeWords;
use super::output::{EventJson, Format, Header, json_line, print, usage};
use crate::client::{WatchEvent, Watcher};
use crate::ids::{MemberId, Revision};
use crate::kv::Event;
use crate::watch::{Interest, WatchSpec};
use clap::Args;
use serde::Serialize;
use std::process::ExitCode;
use std::time::Duration;

pub(super) const EXAMPLES: &str = "\
Examples:
  mainstay watch config/limit
  mainstay watch config/ --prefix
  mainstay watch config/ --prefix --prev-kv    with the pairs as they were before
  mainstay watch config/ --prefix --rev 7      what happened from revision 7 on, then what comes
  mainstay watch a m --no-put                  keys from a up to, and without, m: only deletions
  mainstay watch jobs/ --prefix --count 1 --json   the next thing to happen

For each event it prints PUT or DELETE, the key and the value, a line each; with --prev-kv the pair before comes first.
With JSON it is one object for each run of whole revisions, keys and values in base64. It runs until it is
interrupted or --count events were told; --timeout is for the beginning only.
Exit codes: 0 --count events were told; 1 nobody serves it, or what it would begin with is compacted; 2 the arguments
were not understood.";

/// How long is waited for an event before it is looked again whether the watch still is served.
const PATIENCE: Duration = Duration::from_millis(500);

/// The arguments of `mainstay watch`.
#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a flag of its own
#[command(after_long_help = EXAMPLES, after_help = EXAMPLES)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    range: RangeWords,

    /// The first revision to tell of; 0 for what comes from now on
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    rev: u64,

    /// With the pairs as they were before
    #[arg(long)]
    prev_kv: bool,

    /// Nothing of puts
    #[arg(long, conflicts_with = "no_delete")]
    no_put: bool,

    /// Nothing of deletions
    #[arg(long)]
    no_delete: bool,

    /// Tell now and then how far it is, if nothing happens
    #[arg(long)]
    progress_notify: bool,

    /// End after this many events; 0 for never
    #[arg(long, value_name = "N", default_value_t = 0)]
    count: u64,

    #[command(flatten)]
    client: ClientArgs,
}

/// What is printed with JSON.
#[derive(Serialize)]
struct WatchJson {
    header: Header,
    events: Vec<EventJson>,
}

/// A watch that is being printed.
struct Printing {
    format: Format,
    shows_progress: bool,
    /// Events still to be told, if they are counted.
    left: Option<u64>,
    member: MemberId,
    cluster: u64,
}

/// Runs what was asked for.
pub(super) fn run(arguments: WatchArgs) -> ExitCode {
    let format = arguments.client.format_or(Format::Simple);
    if !matches!(format, Format::Simple | Format::Json) {
        return usage("a watch is printed as simple or json");
    }
    let options = match arguments.client.options() {
        Ok(options) => options,
        Err(problem) => return usage(&problem),
    };
    let spec = WatchSpec {
        interest: Interest {
            range: arguments.range.range(),
            skips_puts: arguments.no_put,
            skips_deletions: arguments.no_delete,
            wants_previous: arguments.prev_kv,
        },
        start: Revision(arguments.rev),
        wants_progress: arguments.progress_notify,
    };
    let mut printing = Printing {
        format,
        shows_progress: arguments.progress_notify,
        left: (arguments.count > 0).then_some(arguments.count),
        member: MemberId(0),
        cluster: 0,
    };
    printing.follow(Watcher::new(options, spec), arguments.client.timeout())
}

impl Printing {
    fn follow(&mut self, mut watcher: Watcher, timeout: Duration) -> ExitCode {
        let mut patience = timeout;
        loop {
            let is_begun = self.member != MemberId(0);
            match watcher.next(patience) {
                Ok(Some(WatchEvent::At { member, address })) => {
                    if is_begun {
                        let next = watcher.next_revision().unwrap_or_default();
                        eprintln!("watch: {address} goes on from revision {next}");
                    }
                    (self.member, self.cluster) = (member, watcher.cluster().unwrap_or_default().0);
                    patience = PATIENCE;
                }
                Ok(Some(WatchEvent::Told(told))) => {
                    if let Some(end) = self.tell(told.revision, &told.events) {
                        return end;
                    }
                }
                Ok(Some(WatchEvent::Compacted { revision })) => {
                    eprintln!(
                        "error[compacted]: what the watch would be told next was compacted away\n  what to do: read the \
                         keys, then watch from the revision of that answer on, or with --rev {revision}"
                    );
                    return ExitCode::FAILURE;
                }
                Ok(Some(WatchEvent::Lost { why })) if is_begun => eprintln!("watch: lost {why}"),
                Ok(None) => {}
                Ok(Some(WatchEvent::Lost { why })) => {
                    eprintln!(
                        "error[unreachable]: nobody serves the watch: {why}\n  what to do: check that the members run \
                         and that --endpoints names their native addresses"
                    );
                    return ExitCode::FAILURE;
                }
                Err(why) => {
                    eprintln!("error[refused]: {why}\n  what to do: check --endpoints");
                    return ExitCode::FAILURE;
                }
            }
        }
    }

    /// Prints what was told; how the watch ends, if it does.
    fn tell(&mut self, revision: Revision, events: &[Event]) -> Option<ExitCode> {
        let count = self.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let events = events.get(..count.min(events.len())).unwrap_or_default();
        if events.is_empty() && !self.shows_progress {
            return None;
        }
        let mut out = Vec::new();
        if self.format == Format::Json {
            let header = Header {
                cluster_id: self.cluster,
                member_id: self.member.0,
                revision: revision.0,
                age_ms: None,
            };
            out = json_line(&WatchJson { header, events: events.iter().map(EventJson::of).collect() });
        } else if events.is_empty() {
            out.extend_from_slice(format!("progress notify: {revision}\n").as_bytes());
        } else {
            for event in events {
                simple_event(&mut out, event);
            }
        }
        if let Some(left) = &mut self.left {
            *left -= events.len() as u64;
        }
        let printed = print(&out);
        // A reader that went away wants no more.
        (self.left == Some(0) || printed != ExitCode::SUCCESS).then_some(printed)
    }
}

fn simple_event(out: &mut Vec<u8>, event: &Event) {
    out.extend_from_slice(if event.is_deletion { b"DELETE\n" } else { b"PUT\n" });
    for pair in event.previous.iter().chain([&event.pair]) {
        for part in [&pair.key, &pair.value] {
            out.extend_from_slice(part);
            out.push(b'\n');
        }
    }
}
