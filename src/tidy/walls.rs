//! The walls: which room may name which, and what a pure room may not name at all.
//!
//! A change to a table here is an architecture decision and gets a paragraph under "Decisions" in ARCHITECTURE.md.

use super::source::{NamedPath, Source};
use super::{assert_caught, assert_none};

/// A room, and the rooms it may name, or of a room one pure file (`room::file`) or one type and nothing else. Tests of a room
/// stand behind the same wall.
const WALLS: &[(&str, &[&str])] = &[
    ("api", &["auth", "kv", "watch"]),
    ("auth", &["kv"]),
    ("bench-harness", &["api", "check", "cli", "client", "kv", "watch"]),
    ("check", &["api", "kv", "watch"]),
    (
        "cli",
        &[
            "api",
            "client",
            "io",
            "kv",
            "replica::Restorer",
            "server",
            "sim",
            "snapshot",
            "wal",
            "wal-format",
            "watch",
        ],
    ),
    ("client", &["api", "kv", "watch"]),
    ("deque", &[]),
    ("ids", &[]),
    ("io", &[]),
    ("kv", &[]),
    ("lib", &[]),
    ("limits", &[]),
    ("main", &["cli"]),
    ("peer", &["raft", "wal-format"]),
    ("planted", &[]),
    ("property", &[]),
    ("raft", &[]),
    ("replica", &["api", "auth", "kv", "peer", "raft", "snapshot", "wal", "wal-format", "watch"]),
    ("server", &["api", "auth", "io", "kv", "peer", "replica", "snapshot", "wal-format", "raft", "watch"]),
    (
        "sim",
        &[
            "api",
            "auth",
            "check",
            "client::resume",
            "client::retry",
            "kv",
            "peer",
            "raft",
            "replica",
            "snapshot",
            "wal-format",
            "watch",
        ],
    ),
    ("snapshot", &["raft", "wal-format"]),
    ("sometimes", &[]),
    ("tidy", &[]),
    ("wal", &["raft", "wal-format"]),
    ("wal-format", &[]),
    ("watch", &["kv"]),
];

/// Free to every room of the package: a queue, the words of identity, the bounds, the switch of planted bugs, the marks of rare
/// events, and in tests how long properties are tested.
const FREE: &[&str] = &["deque", "ids", "limits", "planted", "property", "sometimes"];

/// Rooms in which the same inputs give the same outputs, always.
const PURE: &[&str] = &[
    "api",
    "auth",
    "check",
    "deque",
    "ids",
    "kv",
    "limits",
    "peer",
    "raft",
    "replica",
    "sim",
    "snapshot",
    "wal",
    "wal-format",
    "watch",
];

/// Files that keep the same promise in a room that does not, and so name nothing else in it: what they decide, the
/// simulator drives.
const PURE_FILES: &[&str] = &["src/client/resume.rs", "src/client/retry.rs"];

/// Modules of `std` that are clocks, threads, files, sockets or the process.
const IMPURE_MODULES: &[&str] = &["time", "thread", "fs", "net", "env", "process", "os"];

/// Of those, the ones a pure room's tests need: to read and rewrite its own `testdata`, and to run a decoder that
/// somebody else wrote beside the own one.
const TESTS_MAY_NAME: &[&str] = &["fs", "env", "process"];

/// Of the words below, the ones its tests may use to tell a person what they did.
const TESTS_MAY_SAY: &[&str] = &["println!", "eprintln!"];

/// Words that no code of a pure room contains, tests included.
const IMPURE_WORDS: &[&str] = &[
    "Instant",
    "SystemTime",
    "UNIX_EPOCH",
    "HashMap",
    "HashSet",
    "RandomState",
    "rand",
    "fastrand",
    "getrandom",
    "async",
    "tokio",
    "rustix",
    "libc",
    "clap",
    "println!",
    "eprintln!",
    "print!",
    "eprint!",
];

fn wall_breaches(sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for source in sources {
        let room = source.room();
        let Some((_, may_name)) = WALLS.iter().find(|(name, _)| *name == room) else {
            breaches.push(format!("{}: room {room} has no row in the table of walls", source.path));
            continue;
        };
        for path in source.paths() {
            let place = source.place(path.offset);
            let climbs = path.segments.iter().take_while(|segment| *segment == "super").count();
            if climbs > 0 && source.path.starts_with("src/") && climbs >= source.depth(path.offset) {
                breaches.push(format!("{place}: climbs out of {room} by `super`; say `crate::`"));
            }
            if let Some(named) = room_named(&source.path, &path.segments)
                && named != room
                && !FREE.contains(&named)
                && !may_name.contains(&named)
                && !may_name.contains(&file_named(&path.segments).as_str())
            {
                breaches.push(format!("{place}: {room} may not name {named}"));
            }
            if PURE_FILES.contains(&source.path.as_str()) && leaves_its_file(source, &path, climbs) {
                breaches.push(format!("{place}: a pure file of {room} may not name the rest of it"));
            }
        }
    }
    breaches
}

/// Where the messages of the etcd API may be named: what they mean, and the services around them.
const HOMES_OF_MESSAGES: &[&str] = &["src/api/etcd/", "src/server/grpc/", "src/server/http/"];

/// Words of those messages, of their encoding and of the protocol that they travel by, and where else each may stand.
const WORDS_OF_MESSAGES: &[(&str, &[&str])] = &[
    ("prost", &[]),
    ("tonic", &[]),
    ("etcdserverpb", &[]),
    ("mvccpb", &[]),
    ("axum", &["src/server/gateway"]),
    ("hyper_util", &["src/server/gateway"]),
    ("tokio", &["src/server/gateway"]),
];

fn strayed_messages(sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with("src/") && source.room() != "tidy") {
        if HOMES_OF_MESSAGES.iter().any(|home| source.path.starts_with(home)) {
            continue;
        }
        for (word, also) in WORDS_OF_MESSAGES {
            if also.iter().any(|home| source.path.starts_with(home)) {
                continue;
            }
            for offset in source.words(word) {
                breaches
                    .push(format!("{}: `{word}` stops at api/etcd and its services", source.place(offset)));
            }
        }
    }
    breaches
}

/// The file a path leads into, as a row of the walls has it: `room::file`.
fn file_named(segments: &[String]) -> String {
    segments.iter().skip(1).take(2).map(String::as_str).collect::<Vec<_>>().join("::")
}

/// Whether a path leads out of its file, into the rest of the room.
fn leaves_its_file(source: &Source, path: &NamedPath, climbs: usize) -> bool {
    let file = source.path.trim_start_matches("src/").trim_end_matches(".rs").replace('/', "::");
    let is_by_climbing = climbs > 0 && source.depth(path.offset).saturating_sub(climbs) < source.depth(0);
    let is_by_name = room_named(&source.path, &path.segments) == Some(source.room());
    is_by_climbing || (is_by_name && file_named(&path.segments) != file)
}

/// The room a path leads into, if it leads into one. In another crate, `crate` is that crate and no room of ours.
fn room_named<'a>(file: &str, segments: &'a [String]) -> Option<&'a str> {
    match segments[0].as_str() {
        "crate" if !file.starts_with("src/") => None,
        "crate" | "mainstay" => Some(segments[1].as_str()),
        "wal_format" => Some("wal-format"),
        _ => None,
    }
}

fn impurities(sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    let is_pure =
        |source: &&Source| PURE.contains(&source.room()) || PURE_FILES.contains(&source.path.as_str());
    for source in sources.iter().filter(is_pure) {
        let room = source.room();
        for word in IMPURE_WORDS {
            let is_excused = |offset| TESTS_MAY_SAY.contains(word) && source.is_test_only(offset);
            for offset in source.words(word).filter(|&offset| !is_excused(offset)) {
                breaches.push(format!("{}: {room} is pure and may not say `{word}`", source.place(offset)));
            }
        }
        for path in source.paths() {
            let [base, module, ..] = path.segments.as_slice() else {
                continue;
            };
            let is_std = base == "std" || base == "core";
            let is_excused = TESTS_MAY_NAME.contains(&module.as_str()) && source.is_test_only(path.offset);
            if is_std && IMPURE_MODULES.contains(&module.as_str()) && !is_excused {
                let place = source.place(path.offset);
                breaches.push(format!("{place}: {room} is pure and may not name {base}::{module}"));
            }
        }
    }
    breaches
}

#[test]
fn rooms_name_only_the_rooms_they_may() {
    assert_none(&wall_breaches(&Source::all()));
}

#[test]
fn messages_of_the_etcd_api_stop_at_their_room() {
    assert_none(&strayed_messages(&Source::all()));
    let strayed = Source::new("src/replica/group.rs", "use crate::api::etcd::proto::etcdserverpb as pb;");
    assert_caught(&strayed_messages(&[strayed]), 1, "a message in the replica");
    assert_caught(
        &strayed_messages(&[Source::new("src/kv/store.rs", "use prost::Message;")]),
        1,
        "prost in kv",
    );
    assert_none(&strayed_messages(&[Source::new("src/server/grpc/kv.rs", "use tonic::Status;")]));
}

#[test]
fn every_row_of_the_walls_is_a_room_and_names_rooms() {
    let sources = Source::all();
    for (room, may_name) in WALLS {
        assert!(sources.iter().any(|source| source.room() == *room), "{room} has a row and no file");
        for named in *may_name {
            let is_room = WALLS.iter().any(|(other, _)| other == named);
            let is_pure_file = PURE_FILES.contains(&format!("src/{}.rs", named.replace("::", "/")).as_str());
            let is_type = named.split_once("::").is_some_and(|(other, word)| {
                WALLS.iter().any(|(name, _)| *name == other) && word.starts_with(char::is_uppercase)
            });
            assert!(
                is_room || is_pure_file || is_type,
                "{room} may name {named}, which is no room, no pure file and no type of a room"
            );
        }
    }
}

#[test]
fn pure_rooms_have_no_clock_thread_file_socket_or_chance() {
    assert_none(&impurities(&Source::all()));
}

#[test]
fn a_breach_of_a_wall_is_caught_however_it_is_written() {
    for text in [
        "use crate::kv::Command;",
        "use crate::{ids::Term, kv::Command};",
        "fn a(command: &crate::kv::Command) {}",
        "use mainstay::kv;",
        "#[cfg(test)]\nmod tests { use crate::kv::Command; }",
        "use wal_format::Record;",
        "use super::super::kv;",
        "use crate::*;",
    ] {
        assert_caught(&wall_breaches(&[Source::new("src/raft/node.rs", text)]), 1, text);
    }
    assert_caught(&wall_breaches(&[Source::new("src/helpers/mod.rs", "")]), 1, "a room without a row");
    assert_caught(
        &wall_breaches(&[Source::new("src/raft/mod.rs", "use super::kv;")]),
        1,
        "climbing from the front",
    );
}

#[test]
fn what_the_walls_allow_is_no_breach() {
    let text = "//! crate::kv\nuse crate::ids::Term;\nuse crate::{limits, raft::Entry};\nuse super::Log;\n\
                // crate::kv\nfn a() { crate::planted!(1); \"crate::kv\"; }\nmod tests { use super::super::log; }";
    assert_none(&wall_breaches(&[Source::new("src/raft/node.rs", text)]));
    assert_none(&wall_breaches(&[Source::new("wal-format/src/entry.rs", "use crate::damage::Damage;")]));
    let stranger = Source::new("bench-harness/src/main.rs", "use mainstay::raft::Node;");
    assert_caught(&wall_breaches(&[stranger]), 1, "another crate is behind a wall too");
}

#[test]
fn of_a_room_with_sockets_the_simulator_reaches_the_pure_file_alone() {
    let sim = |text| wall_breaches(&[Source::new("src/sim/client.rs", text)]);
    assert_none(&sim("use crate::client::retry::{Retry, Step};"));
    for text in [
        "use crate::client::Client;",
        "use crate::client::{retry::Retry, Connection};",
        "use crate::client;",
        "use crate::client::*;",
    ] {
        assert_caught(&sim(text), 1, text);
    }
    let retry = |text| wall_breaches(&[Source::new("src/client/retry.rs", text)]);
    assert_none(&retry(
        "use crate::api::Refusal;\nmod tests { use super::Retry; use crate::client::retry::Step; }",
    ));
    for text in [
        "use super::connection::Connection;",
        "pub use crate::client::Connection;",
        "mod tests { use super::super::Client; }",
    ] {
        assert_caught(&retry(text), 1, text);
    }
}

#[test]
fn an_impurity_is_caught_however_it_is_written() {
    for text in [
        "use std::time::Duration;",
        "use std::{fmt, thread};",
        "fn a() { std::env::var(\"X\"); }",
        "use std::fs;",
        "#[cfg(test)]\nmod tests { use std::net::TcpStream; }",
        "use std::collections::HashSet;",
        "async fn a() {}",
        "fn a() -> u64 { rand::random() }",
        "fn a() { println!(); }",
    ] {
        assert_caught(&impurities(&[Source::new("src/kv/store.rs", text)]), 1, text);
    }
    assert_none(&impurities(&[Source::new("src/kv/store.rs", "#[cfg(test)]\nmod tests { use std::fs; }")]));
    assert_none(&impurities(&[Source::new("src/cli/sim.rs", "use std::time::Instant;")]));
}
