//! The shape of files: how long, how they begin, what they may not contain.

use super::source::{Source, files_below, relative, root};
use super::{assert_caught, assert_none};
use std::fs;
use std::path::Path;

const FILE_LINES_MAX: usize = 1_000;
const REPLICA_FILE_LINES_MAX: usize = 600;
const README_LINES_MAX: usize = 150;

/// The one room that talks to the kernel through pointers.
const ROOM_OF_UNSAFE: &str = "io";

/// Words of work left undone, cut in two here so that this file does not contain them.
const UNDONE: &[&str] = &[concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X")];
const UNDONE_CODE: &[&str] = &["todo!", "unimplemented!", "dbg!", "#[ignore"];

fn long_files(sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for source in sources {
        let lines = source.text.lines().count();
        let lines_max = if source.room() == "replica" { REPLICA_FILE_LINES_MAX } else { FILE_LINES_MAX };
        if lines >= lines_max {
            breaches.push(format!("{} has {lines} lines; stay under {lines_max}", source.path));
        }
    }
    breaches
}

fn files_without_an_essay(sources: &[Source]) -> Vec<String> {
    let without =
        sources.iter().filter(|source| !source.text.starts_with("//!") && source.path != "src/lib.rs");
    without.map(|source| format!("{} does not begin with `//!`", source.path)).collect()
}

fn undone_work(sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for source in sources {
        for word in UNDONE {
            let places = source.text.match_indices(word).map(|(offset, _)| source.place(offset));
            breaches.extend(places.map(|place| format!("{place}: `{word}`")));
        }
        for word in UNDONE_CODE {
            let places = source.code.match_indices(word).map(|(offset, _)| source.place(offset));
            breaches.extend(places.map(|place| format!("{place}: `{word}`")));
        }
    }
    breaches
}

fn fronts_that_allow_unsafe(sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for source in sources {
        let room = source.room();
        let is_front =
            source.path == format!("src/{room}/mod.rs") || source.path == format!("{room}/src/lib.rs");
        if is_front && room != ROOM_OF_UNSAFE && !source.code.contains("#![forbid(unsafe_code)]") {
            breaches.push(format!("{}: the front of a room says `#![forbid(unsafe_code)]`", source.path));
        }
    }
    breaches
}

/// `unsafe` where no front can forbid it: in files beside the rooms, and in programs.
fn unsafe_elsewhere(sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for source in sources.iter().filter(|source| source.room() != ROOM_OF_UNSAFE) {
        let places = source.words("unsafe").map(|offset| source.place(offset));
        breaches.extend(places.map(|place| format!("{place}: `unsafe` is for {ROOM_OF_UNSAFE} alone")));
    }
    breaches
}

/// Scripts that no test of their room names: not by file name, and not by reading the whole folder.
fn unread_scripts(sources: &[Source], scripts: &[String]) -> Vec<String> {
    let mut breaches = Vec::new();
    for script in scripts {
        let name = script.rsplit('/').next().unwrap_or(script);
        let home = script.split_once("/testdata/").map_or("", |(home, _)| home);
        let is_read = sources.iter().any(|source| {
            let is_home = source.path.starts_with(&format!("{home}/"));
            is_home && (source.text.contains(name) || source.words("read_dir").next().is_some())
        });
        if !is_read {
            breaches.push(format!("{script} is read by no test"));
        }
    }
    breaches
}

fn long_readme(text: &str) -> Vec<String> {
    let lines = text.lines().count();
    let is_long = lines > README_LINES_MAX;
    is_long.then(|| format!("README.md has {lines} lines; {README_LINES_MAX} at most")).into_iter().collect()
}

/// Files and folders that a page for readers names, in a span of code or a link, and that do not exist.
fn names_of_nothing(page: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut breaches = Vec::new();
    for word in text.split(|c: char| c.is_whitespace() || "`()[],;:".contains(c)) {
        let extension = Path::new(word).extension();
        let is_file = extension.is_some_and(|own| ["rs", "md", "sh"].iter().any(|known| own == *known));
        let is_name = is_file || word.ends_with('/');
        let is_path =
            is_name && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
        if is_path && !exists(word.trim_end_matches('/')) {
            breaches.push(format!("{page} names {word}, which does not exist"));
        }
    }
    breaches
}

#[test]
fn pages_for_readers_name_only_what_exists() {
    let root = root();
    let exists = |name: &str| {
        let folders = ["", "src", "src/tidy", "src/raft", "src/api", "scripts", "wal-format"];
        folders.iter().any(|folder| root.join(folder).join(name).exists())
    };
    let mut breaches = Vec::new();
    for page in ["README.md", "src/ARCHITECTURE.md"] {
        let text = fs::read_to_string(root.join(page)).expect("a readable page");
        breaches.extend(names_of_nothing(page, &text, exists));
    }
    assert_none(&breaches);
}

#[test]
fn a_page_that_names_nothing_is_caught() {
    let exists = |name: &str| name == "src/raft/log.rs" || name == "wal";
    for text in ["see `src/raft/lag.rs`", "[map](src/MAP.md)", "in `wals/`, too"] {
        assert_caught(&names_of_nothing("README.md", text, exists), 1, text);
    }
    assert_none(&names_of_nothing("README.md", "`src/raft/log.rs`: and/or `wal/`, <https://a.b/>", exists));
}

#[test]
fn files_fit_a_readers_patience() {
    assert_none(&long_files(&Source::all()));
}

#[test]
fn every_file_begins_by_saying_what_it_is_for() {
    assert_none(&files_without_an_essay(&Source::all()));
}

#[test]
fn nothing_is_left_undone() {
    assert_none(&undone_work(&Source::all()));
}

#[test]
fn only_the_room_of_the_kernel_holds_unsafe_code() {
    assert_none(&fronts_that_allow_unsafe(&Source::all()));
    assert_none(&unsafe_elsewhere(&Source::all()));
}

#[test]
fn every_script_is_read_by_a_test() {
    let mut scripts = Vec::new();
    for folder in ["src", "wal-format"] {
        files_below(&root().join(folder), "txt", &mut scripts);
    }
    let scripts: Vec<String> = scripts.iter().map(|path| relative(path)).collect();
    assert_none(&unread_scripts(&Source::all(), &scripts));
}

#[test]
fn the_readme_is_short() {
    assert_none(&long_readme(&fs::read_to_string(root().join("README.md")).expect("a README")));
}

#[test]
fn a_long_file_is_caught() {
    let lines = |count: usize| "//!\n".repeat(count);
    assert_caught(&long_files(&[Source::new("src/raft/node.rs", &lines(1_000))]), 1, "1,000 lines");
    assert_caught(&long_files(&[Source::new("src/replica/turn.rs", &lines(600))]), 1, "600 lines of replica");
    assert_none(&long_files(&[Source::new("src/raft/node.rs", &lines(999))]));
    assert_caught(&long_readme(&lines(151)), 1, "151 lines of README");
    assert_none(&long_readme(&lines(150)));
}

#[test]
fn a_file_without_an_essay_is_caught() {
    assert_caught(&files_without_an_essay(&[Source::new("src/raft/node.rs", "use a;")]), 1, "no `//!`");
}

#[test]
fn undone_work_is_caught() {
    for text in [format!("// {}", UNDONE[0]), "fn a() { todo!() }".into(), "#[ignore = \"slow\"]".into()] {
        assert_caught(&undone_work(&[Source::new("src/raft/node.rs", &text)]), 1, &text);
    }
    assert_none(&undone_work(&[Source::new("src/raft/node.rs", "// never todo!() here")]));
}

#[test]
fn a_front_that_does_not_forbid_unsafe_is_caught() {
    let fronts = ["src/raft/mod.rs", "src/server/mod.rs", "wal-format/src/lib.rs"];
    let fronts = fronts.map(|path| Source::new(path, "//! A room."));
    assert_caught(&fronts_that_allow_unsafe(&fronts), 3, "no forbid");
    assert_none(&fronts_that_allow_unsafe(&[Source::new("src/io/mod.rs", "//! A room.")]));
}

#[test]
fn unsafe_code_outside_its_room_is_caught() {
    let text = "fn a() { unsafe { b() } }";
    for path in ["src/main.rs", "src/server/native.rs", "bench-harness/src/main.rs"] {
        assert_caught(&unsafe_elsewhere(&[Source::new(path, text)]), 1, path);
    }
    assert_none(&unsafe_elsewhere(&[Source::new("src/io/ring.rs", text)]));
    assert_none(&unsafe_elsewhere(&[Source::new("src/main.rs", "#![forbid(unsafe_code)] // unsafe")]));
}

#[test]
fn a_script_nobody_reads_is_caught() {
    let script = ["src/raft/testdata/election.txt".to_owned()];
    let stranger = Source::new("src/kv/mod.rs", "const A: &str = \"election.txt\";");
    assert_caught(&unread_scripts(&[stranger], &script), 1, "named in another room only");
    let reader = Source::new("src/raft/script.rs", "run(\"testdata/election.txt\");");
    assert_none(&unread_scripts(&[reader], &script));
}
