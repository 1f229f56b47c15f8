//! A violation as a page to look at: one HTML file, with an SVG of who did what when and a table of it in full.
//!
//! ```text
//!   client 1   ├── put k = a ──┤
//!   client 2          ├── put k = b ···········>   nobody answered
//!   client 3                      ├─ get k → a ─┤
//!              0 ms        1 ms         …          the distance of two instants grows with the logarithm of the time
//! ```
//!
//! Always: the page needs nothing but itself, says everything that it shows by colour also in words, and is well-formed
//! XML as well as HTML, whatever bytes keys and values hold.

use super::history::{Answer, Operation};
use super::violation::Violation;
use super::words;
use core::fmt::Write;
use std::collections::BTreeMap;

/// Pixels: of the names of lanes, of a row, of a bar, of a character of a label, around everything.
const NAMES_WIDTH: u64 = 90;
const ROW_HEIGHT: u64 = 42;
const BAR_HEIGHT: u64 = 14;
const CHARACTER_WIDTH: u64 = 7;
const AXIS_HEIGHT: u64 = 46;
const MARGIN: u64 = 16;

/// How far a bar without an answer runs on behind the last instant.
const OPEN_WIDTH: u64 = 120;

/// Characters of a label's halves; the rest stands in the tooltip and the table.
const ASKED_CHARACTERS_MAX: usize = 40;
const ANSWERED_CHARACTERS_MAX: usize = 30;

/// The page for a violation. `title` says where it comes from, for example which seed.
pub fn picture(title: &str, violation: &Violation) -> String {
    let time = TimeAxis::of(&violation.window);
    let bars = place_bars(violation, &time);
    let mut page = String::new();
    // Writing to a string cannot fail.
    let _ = write!(page, "{HEAD}<title>{0}</title></head><body><h1>{0}</h1>", escaped(title));
    let _ = write!(
        page,
        "<p class=\"wrong\"><b>{:?}</b>: {}.</p>",
        violation.wrong,
        escaped(&violation.explanation)
    );
    page.push_str(LEGEND);
    draw(&mut page, &time, &bars);
    list(&mut page, violation, time.begin);
    page.push_str("</body></html>\n");
    page
}

/// Where instants are.
struct TimeAxis {
    begin: u64,
    positions: BTreeMap<u64, u64>,
    end: u64,
}

impl TimeAxis {
    fn of(window: &[Operation]) -> Self {
        let mut instants: Vec<u64> = window.iter().map(|operation| operation.invoked).collect();
        instants.extend(window.iter().filter_map(|operation| operation.completed));
        instants.sort_unstable();
        instants.dedup();
        let mut positions = BTreeMap::new();
        let mut x = NAMES_WIDTH + MARGIN;
        let mut last = None;
        for instant in instants {
            if let Some(last) = last {
                let gap_micros: u64 = instant - last;
                x += 28 + 8 * u64::from(gap_micros.max(1).ilog2());
            }
            positions.insert(instant, x);
            last = Some(instant);
        }
        let begin = positions.keys().next().copied().unwrap_or(0);
        Self { begin, positions, end: x + OPEN_WIDTH }
    }

    fn x(&self, instant: u64) -> u64 {
        self.positions.get(&instant).copied().unwrap_or(self.end)
    }
}

struct Bar<'w> {
    operation: &'w Operation,
    is_offending: bool,
    row: u64,
    left: u64,
    right: u64,
    label: String,
}

/// Bars of one client stand in one row if neither they nor their labels overlap.
fn place_bars<'w>(violation: &'w Violation, time: &TimeAxis) -> Vec<Bar<'w>> {
    let mut numbered: Vec<(usize, &Operation)> = violation.window.iter().enumerate().collect();
    numbered.sort_by_key(|(_, operation)| (operation.client, operation.invoked));
    let mut bars: Vec<Bar<'_>> = Vec::new();
    // The row that the current client's first row is, and where each of its rows is taken up to.
    let (mut first_row, mut taken): (u64, Vec<u64>) = (0, Vec::new());
    for (at, operation) in numbered {
        if bars.last().is_some_and(|bar| bar.operation.client != operation.client) {
            first_row += taken.len() as u64;
            taken.clear();
        }
        let number = at + 1;
        let asked = cut(&words::asked(&operation.call), ASKED_CHARACTERS_MAX);
        let answered = cut(&words::answered(&operation.answer), ANSWERED_CHARACTERS_MAX);
        let label = format!("{number}. {asked} → {answered}");
        let left = time.x(operation.invoked);
        let right = operation.completed.map_or(time.end, |completed| time.x(completed));
        let label_end = left + CHARACTER_WIDTH * label.chars().count() as u64 + MARGIN;
        let free = taken.iter().position(|end| *end < left).unwrap_or(taken.len());
        if free == taken.len() {
            taken.push(0);
        }
        taken[free] = label_end.max(right);
        let is_offending = at < violation.offending_count;
        bars.push(Bar { operation, is_offending, row: first_row + free as u64, left, right, label });
    }
    bars
}

fn draw(page: &mut String, time: &TimeAxis, bars: &[Bar<'_>]) {
    let rows = bars.iter().map(|bar| bar.row + 1).max().unwrap_or(0);
    let height = rows * ROW_HEIGHT + AXIS_HEIGHT + MARGIN;
    let label_end = |bar: &Bar<'_>| bar.left + CHARACTER_WIDTH * bar.label.chars().count() as u64 + MARGIN;
    let width = bars.iter().map(label_end).max().unwrap_or(0).max(time.end) + MARGIN;
    let _ = write!(
        page,
        "<div class=\"scroll\"><svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\">{DEFINITIONS}"
    );
    draw_axis(page, time, rows * ROW_HEIGHT + MARGIN / 2);
    let mut client = None;
    for bar in bars {
        let y = bar.row * ROW_HEIGHT + MARGIN;
        if client != Some(bar.operation.client) {
            client = Some(bar.operation.client);
            let line = y - MARGIN / 2;
            let _ = write!(
                page,
                "<line class=\"lane\" x1=\"0\" x2=\"{width}\" y1=\"{line}\" y2=\"{line}\"/>\
                 <text class=\"name\" x=\"4\" y=\"{}\">client {}</text>",
                y + 26,
                bar.operation.client
            );
        }
        draw_bar(page, bar, y);
    }
    page.push_str("</svg></div>");
}

fn draw_axis(page: &mut String, time: &TimeAxis, bottom: u64) {
    for (instant, x) in &time.positions {
        let _ = write!(page, "<line class=\"tick\" x1=\"{x}\" x2=\"{x}\" y1=\"0\" y2=\"{bottom}\"/>");
        let _ = write!(
            page,
            "<text class=\"time\" transform=\"translate({},{}) rotate(-35)\" text-anchor=\"end\">{}</text>",
            x + 4,
            bottom + 14,
            milliseconds(instant - time.begin)
        );
    }
}

fn draw_bar(page: &mut String, bar: &Bar<'_>, y: u64) {
    let kind = kind(&bar.operation.answer);
    let weight = if bar.is_offending { " offending" } else { "" };
    let width = (bar.right - bar.left).max(4);
    let _ = write!(
        page,
        "<g class=\"{kind}{weight}\"><title>{}</title>\
         <text class=\"label\" x=\"{}\" y=\"{}\">{}</text>\
         <rect x=\"{}\" y=\"{}\" width=\"{width}\" height=\"{BAR_HEIGHT}\" rx=\"3\"/></g>",
        escaped(&bar.operation.to_string()),
        bar.left,
        y + 10,
        escaped(&bar.label),
        bar.left,
        y + 15
    );
}

fn list(page: &mut String, violation: &Violation, begin: u64) {
    page.push_str(
        "<table><thead><tr><th>#</th><th>client</th><th>from</th><th>to</th><th>asked</th><th>answered</th>\
         </tr></thead><tbody>",
    );
    for (at, operation) in violation.window.iter().enumerate() {
        let is_offending = at < violation.offending_count;
        let completed = operation
            .completed
            .map_or_else(|| "never".to_owned(), |completed| milliseconds(completed - begin));
        let _ = write!(
            page,
            "<tr class=\"{}{}\"><td>{}</td><td>{}</td><td>{}</td><td>{completed}</td><td>{}</td><td>{}</td></tr>",
            kind(&operation.answer),
            if is_offending { " offending" } else { "" },
            at + 1,
            operation.client,
            milliseconds(operation.invoked - begin),
            escaped(&words::asked(&operation.call)),
            escaped(&words::answered(&operation.answer)),
        );
    }
    page.push_str("</tbody></table>");
    let _ = write!(page, "<p class=\"note\">0 ms is {begin} µs into the history.</p>");
}

const fn kind(answer: &Answer) -> &'static str {
    match answer {
        Answer::Applied(_) => "ok",
        Answer::NotDone => "refused",
        Answer::Unknown => "unknown",
    }
}

fn milliseconds(micros: u64) -> String {
    format!("{}.{:03} ms", micros / 1_000, micros % 1_000)
}

fn cut(words: &str, characters_max: usize) -> String {
    match words.char_indices().nth(characters_max) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words.to_owned(),
    }
}

/// Text between tags. Control characters, which no page may hold, cannot come: words are escaped already.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            letter if letter.is_control() => safe.push(' '),
            letter => safe.push(letter),
        }
    }
    safe
}

const HEAD: &str = r#"<!DOCTYPE html>
<html lang="en" xmlns="http://www.w3.org/1999/xhtml"><head><meta charset="utf-8"/><style>
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --faint: #d8dde3; --soft: #5d6772;
  --ok: #2b8a6b; --open: #8d97a3; --refused: #c98a8a; --wrong: #d9480f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --paper: #16191d; --faint: #343b44; --soft: #9aa5b1; } }
body { font: 14px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 24px; }
h1 { font-size: 20px; } .wrong b { color: var(--wrong); }
.scroll { overflow-x: auto; border: 1px solid var(--faint); border-radius: 6px; margin: 12px 0 20px; }
svg text { fill: var(--ink); font: 12px ui-monospace, monospace; }
svg .name { font: 600 13px system-ui, sans-serif; } svg .time { fill: var(--soft); font-size: 10px; }
.lane { stroke: var(--faint); } .tick { stroke: var(--faint); stroke-dasharray: 2 4; }
.ok rect { fill: var(--ok); } .unknown rect { fill: url(#open); stroke: var(--open); stroke-dasharray: 3 3; }
.refused rect { fill: none; stroke: var(--refused); stroke-width: 2; }
g.offending rect { stroke: var(--wrong); stroke-width: 3; stroke-dasharray: none; }
g.offending .label { font-weight: 700; fill: var(--wrong); }
table { border-collapse: collapse; } th, td { text-align: left; padding: 3px 12px 3px 0; vertical-align: top; }
td { font: 12px ui-monospace, monospace; border-top: 1px solid var(--faint); }
td:nth-child(3), td:nth-child(4) { white-space: nowrap; } td:nth-child(5), td:nth-child(6) { overflow-wrap: anywhere; }
tr.offending td { color: var(--wrong); } .note { color: var(--soft); }
.legend span { margin-right: 18px; } .legend i { display: inline-block; width: 22px; height: 10px; margin-right: 6px;
  border: 2px solid transparent; border-radius: 3px; }
.legend .k { background: var(--ok); } .legend .u { border: 1px dashed var(--open); } .legend .n { border-color: var(--refused); }
.legend .o { border-color: var(--wrong); background: var(--ok); }
</style>"#;

const LEGEND: &str = "<p class=\"legend\"><span><i class=\"o\"></i>contradict each other</span>\
    <span><i class=\"k\"></i>answered</span><span><i class=\"u\"></i>no answer: may have happened or not</span>\
    <span><i class=\"n\"></i>refused: not done</span></p>";

const DEFINITIONS: &str = "<defs><pattern id=\"open\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
    patternTransform=\"rotate(45)\"><rect width=\"2\" height=\"6\" style=\"fill:var(--open);stroke:none\"/></pattern></defs>";

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::violation::{Violation, Wrong};
    use super::*;

    fn page() -> String {
        let window = vec![
            write((20_000, 30_000), 2, put("<b> & \"c\" \u{1}"), was_put(3)),
            read((31_000, 40_000), 2, Some(("a", 2, 1))),
            write((25_000, 0), 3, put("lost"), Answer::Unknown),
            write((26_000, 27_000), 4, put("refused"), Answer::NotDone),
        ];
        let violation = Violation {
            wrong: Wrong::NoOrder,
            explanation: "no order explains <these>".to_owned(),
            window,
            offending_count: 2,
        };
        picture("seed 7 & co", &violation)
    }

    /// The names of the elements that are open at the end, if every end matches its begin.
    fn open_elements(page: &str) -> Result<Vec<String>, String> {
        let mut open: Vec<String> = Vec::new();
        for tag in page.split('<').skip(1) {
            let (inside, text) = tag.split_once('>').ok_or_else(|| format!("no end of <{tag}"))?;
            if text.contains('>') && !open.contains(&"style".to_owned()) {
                return Err(format!("a bare > in {text}"));
            }
            let name = inside.split([' ', '\n']).next().unwrap_or_default();
            match name.strip_prefix('/') {
                Some(name) if open.pop().as_deref() == Some(name) => {}
                Some(name) => return Err(format!("</{name}> ends nothing")),
                None if inside.ends_with('/') || name.starts_with('!') => {}
                None => open.push(name.to_owned()),
            }
        }
        Ok(open)
    }

    #[test]
    fn a_page_is_well_formed_whatever_keys_and_values_hold() {
        assert_eq!(open_elements(&page()), Ok(vec![]));
        assert!(!page().contains('\u{1}'));
        assert!(open_elements("<p><b></p>").is_err(), "the check can fail");
    }

    #[test]
    fn a_page_needs_nothing_but_itself_and_shows_every_operation() {
        let page = page();
        assert!(!page.contains("src=") && !page.contains("href=") && !page.contains("@import"));
        assert_eq!(page.matches("<rect x=").count(), 4, "a bar each");
        assert_eq!(page.matches("<g class=\"ok offending\">").count(), 2);
        assert_eq!(page.matches("<g class=\"unknown\">").count(), 1);
        assert_eq!(page.matches("<g class=\"refused\">").count(), 1);
    }

    #[test]
    fn bars_that_overlap_do_not_share_a_row() {
        let window = vec![
            write((0, 100), 1, put("a"), was_put(2)),
            write((50, 150), 2, put("b"), was_put(3)),
            read((0, 10), 2, None),
        ];
        let violation =
            Violation { wrong: Wrong::NoOrder, explanation: String::new(), window, offending_count: 3 };
        let bars = place_bars(&violation, &TimeAxis::of(&violation.window));
        let rows: Vec<u64> = bars.iter().map(|bar| bar.row).collect();
        assert_eq!(rows, [0, 1, 2], "two of client 1, then one of client 2");
    }
}
