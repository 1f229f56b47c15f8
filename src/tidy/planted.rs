//! Planted bugs and those who look for them: a bug that nobody switches on shows nothing.

use super::source::Source;
use super::{assert_caught, assert_none};
use std::collections::BTreeMap;

/// Where the simulator lists the bugs it must find: a file of its room with this in its name.
const CATALOGUE: &str = "planted";

/// Planted numbers that neither the simulator's catalogue nor a test of the bug's room that switches bugs on names.
fn bugs_nobody_looks_for(sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for source in sources.iter().filter(|source| source.path != "src/planted.rs") {
        for (offset, marker) in source.code.match_indices("planted!(") {
            let rest = &source.code[offset + marker.len()..];
            let number = rest.split(')').next().unwrap_or("").trim();
            let is_looked_for = sources.iter().any(|seeker| {
                let is_catalogue = seeker.room() == "sim" && seeker.path.contains(CATALOGUE);
                let is_own_test =
                    seeker.room() == source.room() && seeker.words("switch_on").next().is_some();
                (is_catalogue || is_own_test) && seeker.words(number).next().is_some()
            });
            if !is_looked_for {
                breaches.push(format!("{}: nobody looks for planted bug {number}", source.place(offset)));
            }
        }
    }
    breaches
}

/// Rows of the simulator's catalogue, `bug(N, …)`, that no line of the source plants.
fn rows_nobody_planted(sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    let catalogues =
        sources.iter().filter(|source| source.room() == "sim" && source.path.contains(CATALOGUE));
    for catalogue in catalogues {
        for (offset, marker) in catalogue.code.match_indices("bug(") {
            let rest = &catalogue.code[offset + marker.len()..];
            let number = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or("");
            let line = format!("planted!({number})");
            if !number.is_empty() && !sources.iter().any(|source| source.code.contains(&line)) {
                breaches.push(format!("{}: bug {number} is planted nowhere", catalogue.place(offset)));
            }
        }
    }
    breaches
}

/// Numbers under which two rooms plant a bug: switched on are both, and what is found proves neither.
fn numbers_of_two_bugs(sources: &[Source]) -> Vec<String> {
    let mut planted = BTreeMap::new();
    let mut breaches = Vec::new();
    for source in sources.iter().filter(|source| source.path != "src/planted.rs") {
        for (offset, marker) in source.code.match_indices("planted!(") {
            let number = source.code[offset + marker.len()..].split(')').next().unwrap_or("").trim();
            let room = *planted.entry(number).or_insert_with(|| source.room());
            if room != source.room() {
                breaches.push(format!("{}: {room} plants another bug {number}", source.place(offset)));
            }
        }
    }
    breaches
}

/// The beginnings of the rows that the catalogue asks of the table for people: `| N | what is wrong | `.
fn rows_of(catalogue: &Source) -> Vec<String> {
    let marker = "bug(";
    let bugs = catalogue.code.match_indices(marker).filter_map(|(offset, _)| {
        let (number, rest) = catalogue.text[offset + marker.len()..].split_once(", \"")?;
        let (name, _) = rest.split_once('"')?;
        Some(format!("| {} | {name} | ", number.parse::<u32>().ok()?))
    });
    bugs.collect()
}

/// Where the table of planted bugs is not the catalogue's, or names what nothing in the simulator is called.
fn untrue_rows(table: &str, sources: &[Source]) -> Vec<String> {
    let in_sim = || sources.iter().filter(|source| source.room() == "sim");
    let mut expected = in_sim().filter(|source| source.path.contains(CATALOGUE)).flat_map(rows_of);
    let mut breaches = Vec::new();
    for row in table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| bug ")) {
        let begin = expected.next().unwrap_or_default();
        if begin.is_empty() || !row.starts_with(&begin) {
            breaches.push(format!("expected a row that begins with {begin:?}, found {row}"));
        }
        for name in row.split('`').skip(1).step_by(2) {
            if !in_sim().any(|source| source.text.contains(name)) {
                breaches.push(format!("nothing in the simulator is called {name}"));
            }
        }
    }
    breaches.extend(expected.map(|begin| format!("there is no row that begins with {begin:?}")));
    breaches
}

#[test]
fn the_table_of_planted_bugs_is_the_catalogue_and_names_only_what_there_is() {
    assert_none(&untrue_rows(include_str!("../sim/PLANTED.md"), &Source::all()));
}

#[test]
fn a_missing_row_another_name_and_an_unknown_invariant_are_caught() {
    let source = |text| Source::new("src/sim/planted_bugs.rs", text);
    let one = || {
        source("fn bug(number: u32) {} const ALL: [PlantedBug; 1] = [bug(1, \"wrong\")]; const HELD: u8 = 0;")
    };
    let two =
        || source("const HELD: u8 = 0; const ALL: [PlantedBug; 2] = [bug(1, \"wrong\"), bug(2, \"bad\")];");
    let table = "| bug | what is wrong | broken first |\n|---|---|---|\n| 1 | wrong | `HELD` |\n";
    assert_none(&untrue_rows(table, &[one()]));
    assert_caught(&untrue_rows(table, &[two()]), 1, "bug 2 has no row");
    assert_caught(&untrue_rows(&format!("{table}| 2 | bad | |\n"), &[one()]), 1, "no bug 2 is planted");
    assert_caught(&untrue_rows(&table.replace("wrong |", "right |"), &[one()]), 1, "another name");
    assert_caught(&untrue_rows(&table.replace("HELD", "KEPT"), &[one()]), 1, "nothing is called so");
}

#[test]
fn every_row_of_the_catalogue_is_planted() {
    assert_none(&rows_nobody_planted(&Source::all()));
}

#[test]
fn a_row_of_the_catalogue_that_nobody_planted_is_caught() {
    let catalogue =
        || Source::new("src/sim/planted_bugs.rs", "const fn bug(number: u32) {} [bug(1, x), bug(23, y)]");
    let bug = Source::new("src/raft/log.rs", "if planted!(23) {} // planted!(1)");
    assert_caught(&rows_nobody_planted(&[catalogue(), bug]), 1, "bug 1 is a comment");
    let bugs = Source::new("src/raft/log.rs", "if planted!(23) || planted!(1) {}");
    assert_none(&rows_nobody_planted(&[catalogue(), bugs]));
}

#[test]
fn a_number_is_one_bug() {
    assert_none(&numbers_of_two_bugs(&Source::all()));
}

#[test]
fn a_number_of_two_bugs_is_caught() {
    let source = |path| Source::new(path, "if planted!(23) {} if planted!(23) {}");
    assert_none(&numbers_of_two_bugs(&[source("src/raft/log.rs")]));
    assert_caught(&numbers_of_two_bugs(&[source("src/raft/log.rs"), source("src/kv/store.rs")]), 2, "raft's");
}

#[test]
fn every_planted_bug_is_looked_for() {
    assert_none(&bugs_nobody_looks_for(&Source::all()));
}

#[test]
fn a_planted_bug_nobody_looks_for_is_caught() {
    let bug = || Source::new("src/raft/log.rs", "if planted!(23) {}");
    let catalogue = |text| Source::new("src/sim/planted.rs", text);
    assert_caught(&bugs_nobody_looks_for(&[bug(), catalogue("Bug { number: 230 }")]), 1, "no row for 23");
    assert_caught(&bugs_nobody_looks_for(&[bug(), catalogue("// 23")]), 1, "a comment is no row");
    assert_none(&bugs_nobody_looks_for(&[bug(), catalogue("Bug { number: 23 }")]));
    let test = Source::new("src/raft/properties.rs", "for bug in [22, 23] { planted::switch_on(bug); }");
    assert_none(&bugs_nobody_looks_for(&[bug(), test]));
}
