//! Marked places and the table of them: a row that no place has says of every campaign that something is missing.

use super::source::Source;
use super::{assert_caught, assert_none};

/// Rows of the table, `Name "name"`, that no line outside it marks.
fn rows_nobody_marked(sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for table in sources.iter().filter(|source| source.path == "src/sometimes.rs") {
        let rows = table.code.split_once("markers! {").map_or("", |(_, rows)| rows);
        let rows = rows.split_once('}').map_or(rows, |(rows, _)| rows);
        for name in rows.split(',').filter_map(|row| row.split_whitespace().next()) {
            let mark = format!("sometimes!({name})");
            let is_marked =
                |source: &Source| source.path != table.path && source.code.contains(mark.as_str());
            if !sources.iter().any(is_marked) {
                breaches.push(format!("{}: no place is marked {name}", table.path));
            }
        }
    }
    breaches
}

#[test]
fn every_row_of_the_table_has_its_place() {
    let sources = Source::all();
    assert!(sources.iter().any(|source| source.path == "src/sometimes.rs"));
    assert_none(&rows_nobody_marked(&sources));
}

#[test]
fn a_row_without_a_place_is_caught() {
    let table =
        || Source::new("src/sometimes.rs", "markers! { Sealed \"sealed\", Torn \"torn\", } sometimes!(Torn)");
    let place = Source::new("src/wal/writer.rs", "sometimes!(Sealed);");
    assert_caught(&rows_nobody_marked(&[table(), place]), 1, "no place is marked Torn");
    let places = Source::new("src/wal/writer.rs", "sometimes!(Sealed); sometimes!(Torn);");
    assert_none(&rows_nobody_marked(&[table(), places]));
}
