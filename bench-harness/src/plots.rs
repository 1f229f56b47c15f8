//! A page with plots: one file, nothing loaded from elsewhere.
//!
//! Two plots: the latency that each share of operations did not exceed, on a scale that gives the last thousandth as much
//! room as the first nine tenths, and operations a second. What always holds: text from outside is escaped; runs of
//! the same system have the same colour. What it leaves out: anything that moves.

use crate::load::report::Measured;
use std::fmt::Write;

/// Colours of the first and the second kind of run.
const COLOURS: [&str; 2] = ["#0b6e4f", "#c1440e"];

/// The drawing's size, and the room around the plot in it.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 380.0;
const MARGIN: f64 = 60.0;

/// The horizontal scale counts nines: 90 % is 1, 99 % is 2.
const NINES_MAX: f64 = 4.0;

/// Points of one curve.
const POINTS_COUNT: u32 = 160;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:920px;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;width:100%}td,th{padding:.25em .6em;border-bottom:1px solid #ddd;text-align:right}\
td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto}text{font:12px system-ui,sans-serif;fill:#555}";

/// The whole page for these runs; `verdict` is what they came to, in words.
pub(crate) fn page(runs: &[&Measured], verdict: Option<&str>) -> String {
    let mut rows = String::new();
    for run in runs {
        let cpu = run.server_cpu_us_per_op().map_or("?".to_owned(), |cpu| format!("{cpu:.1}"));
        let cells = [
            format!("<span style=\"color:{}\">&#9632;</span> {}", colour(runs, run), escaped(&name(run))),
            format!("{:.0}", run.ops_per_s()),
            format!("{:.2}", run.latency_ms(0.5)),
            format!("{:.2}", run.latency_ms(0.99)),
            format!("{:.2}", run.latency_ms(0.999)),
            cpu,
            run.tally.errors_count().to_string(),
        ];
        push(&mut rows, format_args!("<tr><td>{}</td></tr>\n", cells.join("</td><td>")));
    }
    let asked = runs.first().map(|run| run.asked()).unwrap_or_default();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Load</title><style>{STYLE}</style>\n\
         <h1>Load</h1><p>{}</p><p><b>{}</b></p>\n\
         <table><tr><th>run</th><th>ops/s</th><th>p50 ms</th><th>p99 ms</th><th>p99.9 ms</th>\
         <th>server CPU &micro;s/op</th><th>errors</th></tr>\n{rows}</table>\n\
         <h2>Latency</h2>\n{}<h2>Operations a second</h2>\n{}\
         <h2>Machine</h2><pre>{}</pre></html>\n",
        escaped(&asked),
        escaped(verdict.unwrap_or_default()),
        latency_plot(runs),
        rate_plot(runs),
        escaped(&runs.first().map(|run| run.machine_in_words()).unwrap_or_default()),
    )
}

fn name(run: &Measured) -> String {
    format!("{} ({})", run.setting.system.name(), run.setting.protocol.name())
}

/// Runs of what was run first have the first colour.
fn colour(runs: &[&Measured], run: &Measured) -> &'static str {
    let is_first = runs.first().is_some_and(|first| name(first) == name(run));
    COLOURS[usize::from(!is_first)]
}

fn latency_plot(runs: &[&Measured]) -> String {
    let most = runs.iter().map(|run| run.latency_ms(0.9999)).fold(0.1_f64, f64::max);
    let least = runs.iter().map(|run| run.latency_ms(0.01)).fold(most, f64::min).max(0.01);
    let (bottom, top) = (least.log10().floor(), most.log10().ceil());
    let x = |nines: f64| MARGIN + nines / NINES_MAX * (WIDTH - 2.0 * MARGIN);
    let y = |millis: f64| {
        let share = (millis.max(0.001).log10() - bottom) / (top - bottom).max(1.0);
        HEIGHT - MARGIN - share.clamp(0.0, 1.0) * (HEIGHT - 2.0 * MARGIN)
    };
    let mut svg = begin();
    for (nines, label) in
        [(0.0, "0"), (0.301, "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %")]
    {
        rule(&mut svg, (x(nines), MARGIN), (x(nines), HEIGHT - MARGIN));
        text(&mut svg, (x(nines), HEIGHT - MARGIN + 18.0), "middle", label);
    }
    let mut power = bottom;
    while power <= top {
        let millis = 10_f64.powf(power);
        rule(&mut svg, (MARGIN, y(millis)), (WIDTH - MARGIN, y(millis)));
        text(&mut svg, (MARGIN - 8.0, y(millis) + 4.0), "end", &format!("{millis} ms"));
        power += 1.0;
    }
    for run in runs {
        let mut points = String::new();
        for point in 0..=POINTS_COUNT {
            let nines = f64::from(point) / f64::from(POINTS_COUNT) * NINES_MAX;
            let millis = run.latency_ms(1.0 - 10_f64.powf(-nines));
            push(&mut points, format_args!("{:.1},{:.1} ", x(nines), y(millis)));
        }
        let colour = colour(runs, run);
        push(
            &mut svg,
            format_args!(
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{points}\"/>\n"
            ),
        );
    }
    svg + "</svg>\n"
}

fn rate_plot(runs: &[&Measured]) -> String {
    let most = runs.iter().map(|run| run.ops_per_s()).fold(1.0_f64, f64::max);
    let count = u32::try_from(runs.len()).unwrap_or(u32::MAX);
    let width = (WIDTH - 2.0 * MARGIN) / f64::from(count.max(1));
    let mut svg = begin();
    rule(&mut svg, (MARGIN, HEIGHT - MARGIN), (WIDTH - MARGIN, HEIGHT - MARGIN));
    for (number, run) in (0_u32..).zip(runs) {
        let height = run.ops_per_s() / most * (HEIGHT - 2.0 * MARGIN);
        let (left, top) = (MARGIN + f64::from(number) * width, HEIGHT - MARGIN - height);
        push(
            &mut svg,
            format_args!(
                "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{}\"/>\n",
                left + width * 0.15,
                width * 0.7,
                colour(runs, run)
            ),
        );
        text(&mut svg, (left + width / 2.0, top - 6.0), "middle", &format!("{:.0}", run.ops_per_s()));
        text(&mut svg, (left + width / 2.0, HEIGHT - MARGIN + 18.0), "middle", &name(run));
    }
    svg + "</svg>\n"
}

fn begin() -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" xmlns=\"http://www.w3.org/2000/svg\">\n")
}

fn rule(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    push(
        svg,
        format_args!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/>\n"),
    );
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, words: &str) {
    let ((x, y), words) = (at, escaped(words));
    push(svg, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>\n"));
}

fn push(to: &mut String, what: std::fmt::Arguments<'_>) {
    to.write_fmt(what).expect("a string takes everything");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{escaped, page};
    use crate::load::report::Measured;

    #[test]
    fn a_page_draws_every_run_once_in_each_plot_and_loads_nothing() {
        let runs = [Measured::made_up(1_000), Measured::made_up(3_000)];
        let page = page(&runs.iter().collect::<Vec<_>>(), Some("a < b"));
        assert_eq!(page.matches("<polyline").count(), 2);
        assert_eq!(page.matches("<rect").count(), 2);
        assert!(page.contains("a &lt; b"));
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
        let links = page.matches("http").count();
        assert_eq!(links, page.matches("http://www.w3.org/2000/svg").count(), "names are not loaded");
        assert!(!page.contains("src=") && !page.contains("href="));
    }

    #[test]
    fn text_from_outside_stays_text() {
        assert_eq!(escaped("<b a=\"&\">"), "&lt;b a=&quot;&amp;&quot;&gt;");
    }
}
