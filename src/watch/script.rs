//! Runs the scripts of `testdata/`: each says in a sentence what it shows, then commands and what they lead to.
//!
//! ```text
//! # A watch from an old revision is told history, then what comes.
//! put a 1
//! watch 1.1 a from 2
//! ---
//! created at 2
//! 1.1 up to 2: a=1
//! ```
//!
//! Stanzas are divided by empty lines and share one store and one hub; each is one turn. `UPDATE=1 cargo test` records
//! the results anew. Commands: `put KEY VALUE`, `txn KEY VALUE …` (one revision), `delete KEY`, `compact REVISION`,
//! `watch STREAM.NAME RANGE [from REVISION] [prev] [noput] [nodelete] [progress]`, `cancel STREAM.NAME`, `ask
//! STREAM.NAME`, `take STREAM` (everything told has left), `close STREAM`, `wait MICROS`. A range is `a` (one key), `a..c`
//! or `a..`; `x*5` is `xxxxx`.

use super::{Bounds, Hub, Interest, Notice, Place, WatchSpec};
use crate::ids::{BootMicros, Revision, StreamId, Ticket, WatchId};
use crate::kv::{Command, Compact, DeleteRange, Event, KeyRange, Operation, Put, Store, Txn};
use crate::watch::Ending;
use bytes::Bytes;
use std::path::Path;

const BOUNDS: Bounds = Bounds {
    batch_bytes_max: 200,
    stream_bytes_max: 400,
    total_bytes_max: 10_000,
    changes_per_turn_max: 100,
    concerns_per_turn_max: 1_000,
    stream_watches_max: 3,
    watches_max: 10,
    progress_micros: 1_000,
};

struct World {
    store: Store,
    hub: Hub,
    now: u64,
    notices: Vec<Notice>,
    said: Vec<String>,
}

#[test]
fn every_script_leads_to_what_is_recorded() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/watch/testdata");
    let is_update = std::env::var_os("UPDATE").is_some();
    let mut differing = Vec::new();
    let mut script_count = 0;
    for entry in std::fs::read_dir(directory).expect("the scripts are there") {
        let path = entry.expect("the directory is readable").path();
        let recorded = std::fs::read_to_string(&path).expect("a script is text");
        assert!(recorded.starts_with("# "), "{} says what it shows", path.display());
        let actual = run(&recorded);
        script_count += 1;
        if actual != recorded && is_update {
            std::fs::write(&path, &actual).expect("the script is writable");
        } else if actual != recorded {
            differing.push(format!("{}\n{actual}", path.display()));
        }
    }
    assert!(script_count >= 6, "the scripts were found");
    assert!(differing.is_empty(), "these scripts led elsewhere:\n{}", differing.join("\n"));
}

fn run(script: &str) -> String {
    let store = Store::new();
    let hub = Hub::new(BOUNDS, store.revision(), BootMicros(0));
    let mut world = World { store, hub, now: 0, notices: Vec::new(), said: Vec::new() };
    let mut stanzas = Vec::new();
    for stanza in script.trim_end().split("\n\n") {
        let asked = stanza.split("\n---").next().unwrap_or_default();
        for line in asked.lines().filter(|line| !line.starts_with('#')) {
            world.obey(&line.split_whitespace().collect::<Vec<_>>());
        }
        world.end_turn();
        let said = std::mem::take(&mut world.said);
        stanzas.push(format!("{asked}\n---\n{}", said.join("\n")).trim_end().to_owned());
    }
    stanzas.join("\n\n") + "\n"
}

impl World {
    fn obey(&mut self, words: &[&str]) {
        match words {
            ["put", key, value] => self.apply(&Command::Put(put(key, value))),
            ["txn", pairs @ ..] => {
                let puts = pairs.chunks(2).map(|pair| Operation::Put(put(pair[0], pair[1])));
                self.apply(&Command::Txn(Txn { success: puts.collect(), ..Txn::default() }));
            }
            ["delete", key] => {
                let range = KeyRange::Key(bytes_of(key));
                self.apply(&Command::DeleteRange(DeleteRange { range, wants_previous: false }));
            }
            ["compact", revision] => {
                self.hub.advance(&self.store, &mut self.notices);
                self.apply(&Command::Compact(Compact { revision: Revision(number(revision)) }));
            }
            ["watch", name, range, options @ ..] => self.watch(place(name), range, options),
            ["cancel", name] => self.hub.cancel(place(name), &mut self.notices),
            ["ask", name] => {
                self.hub.advance(&self.store, &mut self.notices);
                self.hub.ask(place(name), Ticket(0), &mut self.notices);
            }
            ["take", stream] => self.hub.taken(StreamId(number(stream)), 0, &mut self.notices),
            ["close", stream] => self.hub.close(StreamId(number(stream)), &mut self.notices),
            ["wait", micros] => self.now += number(micros),
            other => panic!("{other:?} is no command"),
        }
        self.say();
    }

    fn apply(&mut self, command: &Command) {
        self.store.apply(command);
    }

    fn watch(&mut self, place: Place, range: &str, options: &[&str]) {
        let range = match range.split_once("..") {
            Some((start, "")) => KeyRange::From(bytes_of(start)),
            Some((start, end)) => KeyRange::Span { start: bytes_of(start), end: bytes_of(end) },
            None => KeyRange::Key(bytes_of(range)),
        };
        let has = |option| options.contains(&option);
        let start = options.iter().position(|option| *option == "from").map(|at| number(options[at + 1]));
        let spec = WatchSpec {
            interest: Interest {
                range,
                skips_puts: has("noput"),
                skips_deletions: has("nodelete"),
                wants_previous: has("prev"),
            },
            start: Revision(start.unwrap_or(0)),
            wants_progress: has("progress"),
        };
        self.hub.advance(&self.store, &mut self.notices);
        self.say();
        match self.hub.create(place, &spec) {
            Ok(revision) => self.said.push(format!("created at {revision}")),
            Err(refusal) => self.said.push(format!("refused: {refusal:?}")),
        }
    }

    fn end_turn(&mut self) {
        self.hub.advance(&self.store, &mut self.notices);
        self.hub.catch_up(&self.store, &mut self.notices);
        self.hub.tell_progress(BootMicros(self.now), &mut self.notices);
        self.hub.assert_all_invariants();
        self.say();
    }

    fn say(&mut self) {
        for notice in self.notices.drain(..) {
            self.said.push(match notice {
                Notice::Told { to, batch } => {
                    let to: Vec<String> = to.into_iter().map(name).collect();
                    let events: Vec<String> = batch.events.iter().map(event).collect();
                    let more = if batch.is_partial { ", and a part of the next" } else { "" };
                    format!("{} up to {}{more}: {}", to.join(" "), batch.revision, events.join(" "))
                }
                Notice::Ended { to, why: Ending::Compacted(compacted) } => {
                    format!("{} ends: compacted to {compacted}", name(to))
                }
                Notice::Ended { to, why: Ending::NotPermitted } => format!("{} ends: withdrawn", name(to)),
                Notice::Reached { revision, .. } => format!("reached {revision}"),
                Notice::Gone { .. } => "no such watch".to_owned(),
            });
        }
    }
}

fn put(key: &str, value: &str) -> Put {
    Put::new(bytes_of(key), bytes_of(value))
}

/// `x*5` is `xxxxx`.
fn bytes_of(word: &str) -> Bytes {
    let word = match word.split_once('*') {
        Some((part, times)) => part.repeat(times.parse().expect("a number of times")),
        None => word.to_owned(),
    };
    Bytes::from(word)
}

fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}

fn place(word: &str) -> Place {
    let (stream, watch) = word.split_once('.').expect("STREAM.NAME");
    Place { stream: StreamId(number(stream)), watch: WatchId(number(watch)) }
}

fn name(place: Place) -> String {
    format!("{}.{}", place.stream.0, place.watch.0)
}

fn event(event: &Event) -> String {
    let text = |bytes: &Bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        if text.len() > 8 { format!("{}*{}", &text[..1], text.len()) } else { text }
    };
    let previous = event.previous.as_ref().map(|pair| format!("(was {})", text(&pair.value)));
    let now = if event.is_deletion { "deleted".to_owned() } else { text(&event.pair.value) };
    format!("{}={now}{}", text(&event.pair.key), previous.unwrap_or_default())
}
