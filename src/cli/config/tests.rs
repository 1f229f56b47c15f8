//! What is accepted, what is refused, and who wins.

use super::{ConfigError, StartArgs, layers, resolve_with};
use crate::property;
use crate::server::{LogFormat, ServerConfig};
use clap::{Args, Command, FromArgMatches};
use std::ffi::OsString;

const THREE: &str =
    "--name n1 --data /d --initial-cluster n1=127.0.0.1:2380,n2=127.0.0.1:3380,n3=127.0.0.1:4380";

fn flags(words: &str) -> StartArgs {
    let command = StartArgs::augment_args(Command::new("start"));
    let matches = command.try_get_matches_from(std::iter::once("start").chain(words.split_whitespace()));
    StartArgs::from_arg_matches(&matches.expect("clap understands it")).expect("it is complete")
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

pub(super) fn resolved(words: &str) -> Result<ServerConfig, ConfigError> {
    resolve_with(flags(words), std::iter::empty())
}

#[track_caller]
fn assert_refused(words: &str, code: &str, hint: &str) {
    let error = resolved(words).expect_err(words);
    assert_eq!(error.code, code, "{error}");
    assert!(error.words.contains(hint), "{error}");
}

#[test]
fn the_shortest_line_gets_the_documented_defaults() {
    let config = resolved(THREE).expect("it is sound");
    assert_eq!(config.listen_client.to_string(), "127.0.0.1:2379");
    assert_eq!(config.listen_native.to_string(), "127.0.0.1:2378");
    assert_eq!(config.listen_peer.to_string(), "127.0.0.1:2380");
    assert_eq!((config.election_ms, config.heartbeat_ms, config.shards), (300, 50, 1));
    assert_eq!(config.log_format, LogFormat::Text);
    assert_eq!(config.initial_cluster.len(), 3);
}

#[test]
fn flags_win_over_the_environment_and_the_environment_over_the_file() {
    let path = std::env::temp_dir().join(format!("mainstay-config-{}.toml", std::process::id()));
    std::fs::write(&path, "election-ms = 1000\nheartbeat_ms = 100\nlog-format = \"json\"\ninsecure = true\n")
        .expect("written");
    let environment = variables(&[
        ("MAINSTAY_ELECTION_MS", "900"),
        ("MAINSTAY_HEARTBEAT_MS", "90"),
        ("MAINSTAY_CONFIG", path.to_str().expect("UTF-8")),
        ("MAINSTAY_NOBODY_KNOWS", "1"),
    ]);
    let config = resolve_with(flags(&format!("{THREE} --election-ms 800")), environment.into_iter());
    std::fs::remove_file(&path).expect("removed");
    let config = config.expect("it is sound");
    assert_eq!((config.election_ms, config.heartbeat_ms), (800, 90));
    assert_eq!(config.log_format, LogFormat::Json);
}

#[test]
fn a_file_may_name_members_as_a_text_a_list_or_a_table() {
    let texts = [
        "initial-cluster = \"a=1.1.1.1:1,b=1.1.1.1:2\"",
        "initial-cluster = [\"a=1.1.1.1:1\", \"b=1.1.1.1:2\"]",
        "[initial-cluster]\na = \"1.1.1.1:1\"\nb = \"1.1.1.1:2\"",
    ];
    for text in texts {
        let settings = layers::from_text("f", text).expect(text);
        assert_eq!(settings.initial_cluster.as_deref(), Some("a=1.1.1.1:1,b=1.1.1.1:2"));
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    let error = layers::from_text("m.toml", "electoin-ms = 3").expect_err("there is no such key");
    assert_eq!(error.code, "config-unknown-key");
    assert!(error.words.contains("election-ms") && error.words.contains("m.toml"), "{error}");
    let error = layers::from_text("m.toml", "zzz = 3").expect_err("there is no such key");
    assert!(error.words.contains("listen-native"), "{error}");
}

#[test]
fn a_value_of_the_wrong_kind_names_where_it_stands() {
    let error = layers::from_text("m.toml", "election-ms = \"soon\"").expect_err("no number");
    assert!(error.words.starts_with("m.toml: 'election-ms'"), "{error}");
    let error = layers::from_text("m.toml", "election-ms = 3.5").expect_err("no whole number");
    assert_eq!(error.code, "config-value");
    let error = layers::from_environment(variables(&[("MAINSTAY_LISTEN_PEER", "here")]).into_iter());
    assert!(error.expect_err("no address").words.starts_with("MAINSTAY_LISTEN_PEER: "));
    assert_eq!(layers::from_text("m.toml", "= =").expect_err("no TOML").code, "config-file");
}

#[test]
fn an_unreadable_file_says_what_to_do() {
    let error = resolved(&format!("{THREE} --config /nowhere/m.toml")).expect_err("it is not there");
    assert_eq!(error.code, "config-file");
    assert!(error.words.contains("--config"), "{error}");
}

#[test]
fn what_is_missing_is_named_with_an_example() {
    assert_refused("--data /d", "config-missing", "--name n1");
    assert_refused("--name n1", "config-missing", "MAINSTAY_DATA");
    assert_refused("--name n1 --data /d", "config-missing", "--initial-cluster n1=");
}

#[test]
fn what_this_version_cannot_honour_is_refused() {
    let flags = ["--shards 2", "--front-threads 1", "--initial-cluster-state existing"];
    for flag in flags {
        assert_refused(&format!("{THREE} {flag}"), "config-not-in-this-version", "this version");
    }
    let honoured =
        "--snapshot-entries 10 --shards 1 --front-threads 0 --read-mode quorum --initial-cluster-state new";
    let config = resolved(&format!("{THREE} {honoured}")).expect("these are what there is");
    assert!(config.reads_by_quorum);
    for leased in ["", "--read-mode lease"] {
        assert!(!resolved(&format!("{THREE} {leased}")).expect("there are leases").reads_by_quorum);
    }
}

#[test]
fn beyond_loopback_one_must_say_that_it_is_insecure() {
    let open = "--name n1 --data /d --initial-cluster n1=10.0.0.1:2380 --listen-peer 10.0.0.1:2380";
    assert_refused(open, "config-insecure", "--insecure");
    resolved(&format!("{open} --insecure")).expect("said");
    resolved(&format!("{open} --insecure=true")).expect("said");
    assert_refused(&format!("{open} --insecure=false"), "config-insecure", "--listen-peer 10.0.0.1:2380");
    let all = format!("{THREE} --insecure --listen-native 0.0.0.0:2378");
    assert_refused(&all, "config-address", "--advertise-native");
    resolved(&format!("{all} --advertise-native db1.example:2378")).expect("it can be reached");
}

#[test]
fn a_cluster_that_contradicts_itself_is_refused() {
    let code = "config-initial-cluster";
    let with = |cluster: &str| format!("--name n1 --data /d --initial-cluster {cluster}");
    assert_refused(&with("n2=127.0.0.1:2380"), code, "names n2");
    assert_refused(&with("n1=127.0.0.1:2380,n1=127.0.0.1:3"), code, "twice");
    assert_refused(&with("n1=127.0.0.1:2380,n2=127.0.0.1:2380"), code, "to n1 and to n2");
    assert_refused(&with("n1"), code, "no '='");
    assert_refused(&with("n1=localhost:1"), code, "IP:PORT");
    assert_refused(&with("n/1=127.0.0.1:1"), code, "letters");
    assert_refused(&with("n1=127.0.0.1:0,n2=127.0.0.1:1"), code, "no port");
    assert_refused(&with("n1=127.0.0.1:9,n2=127.0.0.1:1"), code, "--advertise-peer");
    assert_refused(&with(","), code, "nobody");
    let ten: Vec<String> = (1..=10).map(|number| format!("n{number}=127.0.0.1:{number}")).collect();
    assert_refused(&with(&ten.join(",")), code, "at most 9");
    resolved("--name a --data /d --initial-cluster a=127.0.0.1:0 --listen-peer 127.0.0.1:0").expect("alone");
}

#[test]
fn addresses_times_and_cpus_are_checked() {
    let with = |words: &str| format!("{THREE} {words}");
    assert_refused(&with("--listen-native 127.0.0.1:2380"), "config-address", "both 127.0.0.1:2380");
    assert_refused(&with("--heartbeat-ms 200"), "config-times", "heartbeats");
    assert_refused(&with("--heartbeat-ms 0"), "config-times", "50");
    assert_refused(&with("--election-ms 99999999"), "config-times", "at most");
    assert_refused(&with("--cpus 0,x"), "config-value", "'x'");
    assert_refused(&with("--cpus 1,1"), "config-value", "twice");
    assert_refused(&with("--advertise-client here"), "config-value", "HOST:PORT");
    assert_eq!(resolved(&with("--cpus 0,3")).expect("sound").cpus, [0, 3]);
}

/// A configuration file that says everything, and what the environment could say instead.
const EVERYTHING: &str = "name = \"n1\"\ndata = \"/d\"\nlisten-native = \"127.0.0.1:2378\"\nelection_ms = 1000\n\
    heartbeat-ms = 100\nlog-format = \"json\"\ninsecure = true\n[initial-cluster]\nn1 = \"127.0.0.1:2380\"\n";
const VARIABLES: [(&str, &str); 8] = [
    ("MAINSTAY_NAME", "n1"),
    ("MAINSTAY_DATA", "/d"),
    ("MAINSTAY_LISTEN_PEER", "127.0.0.1:2380"),
    ("MAINSTAY_INITIAL_CLUSTER", "n1=127.0.0.1:2380,n2=127.0.0.1:3380,n3=127.0.0.1:4380"),
    ("MAINSTAY_ELECTION_MS", "1000"),
    ("MAINSTAY_HEARTBEAT_MS", "100"),
    ("MAINSTAY_LOG_FORMAT", "json"),
    ("MAINSTAY_INSECURE", "true"),
];

/// Values that TOML can say and a setting cannot mean, and a few that it can.
const ODD_VALUES: [&str; 12] = [
    "1.5",
    "nan",
    "1979-05-27",
    "[1, 2]",
    "[[1], []]",
    "{ a = {} }",
    "\"\\u0000\"",
    "-1",
    "18446744073709551616",
    "9223372036854775807",
    "\"\"",
    "false",
];

/// The file that says everything, with other values here and there.
fn odd_values(mut number: impl FnMut() -> u64) -> String {
    let first = if number().is_multiple_of(20) { "config = \"other\"\n" } else { "" };
    let lines = EVERYTHING.lines().map(|line| {
        let odd = ODD_VALUES[usize::try_from(number() % ODD_VALUES.len() as u64).expect("a place in a list")];
        match line.split_once(" = ") {
            Some((key, _)) if number().is_multiple_of(5) => format!("{key} = {odd}\n"),
            Some(_) | None => format!("{line}\n"),
        }
    });
    lines.fold(first.to_owned(), |text, line| text + &line)
}

#[test]
fn any_file_and_any_environment_are_understood_or_refused_in_words() {
    let mut understood = 0;
    let tried = property::hold(400, |seed| {
        let mut state = seed;
        let mut number = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed ^ (mixed >> 27)
        };
        let mut text = odd_values(&mut number).into_bytes();
        if number().is_multiple_of(2) {
            property::mutate(&mut text, &mut number);
        }
        let text = String::from_utf8_lossy(&text);
        let said = layers::from_text("it", &text);
        let variables = VARIABLES.map(|(name, value)| {
            let mut value = value.as_bytes().to_vec();
            if number().is_multiple_of(4) {
                property::mutate(&mut value, &mut number);
            }
            (OsString::from(name), OsString::from(String::from_utf8_lossy(&value).into_owned()))
        });
        let resolved = resolve_with(StartArgs::default(), variables.into_iter());
        understood += u64::from(said.is_ok()) + u64::from(resolved.is_ok());
        for error in [said.err(), resolved.err()].into_iter().flatten() {
            assert!(!error.words.is_empty() && !error.code.is_empty(), "a refusal says why");
        }
    });
    assert!(tried < 400 || understood > 50, "some are understood, {understood}");
}
