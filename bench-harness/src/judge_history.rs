//! Judges a history that was recorded in a file: is there any order that explains what the clients were told?
//!
//! What always holds: a history is called possible only if an order was found; one that the search came to no end with
//! is called undecided, and that is not a success. What it leaves out: recording; whatever drives real processes
//! writes the lines (`mainstay::check::invoke_line` and `answer_line`) as it goes.

use clap::Args;
use mainstay::check::{Verdict, check_by_search, from_lines, picture};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The arguments of `bench-harness judge-history`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The history, as JSON lines
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Draw what is wrong as a page in this file
    #[arg(long, value_name = "PAGE")]
    picture: Option<PathBuf>,
    /// Steps of the search for each set of joined keys
    #[arg(long, default_value_t = 20_000_000)]
    steps: u64,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, thiserror::Error)]
enum HistoryError {
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("{}, {error}", path.display())]
    Line { path: PathBuf, error: mainstay::check::BadLine },
}

/// Judges the file.
pub(crate) fn run(options: &Options) -> ExitCode {
    match judge(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn judge(options: &Options) -> Result<bool, HistoryError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| HistoryError::File { path, error }
    };
    let text = std::fs::read_to_string(&options.file).map_err(failed(&options.file))?;
    let history =
        from_lines(&text).map_err(|error| HistoryError::Line { path: options.file.clone(), error })?;
    let (word, searched) = match check_by_search(&history, &[], options.steps) {
        Verdict::Linearizable(searched) => ("linearizable", searched),
        Verdict::Undecided(searched) => ("undecided", searched),
        Verdict::Impossible(searched, violation) => {
            eprintln!("{violation}");
            if let Some(page) = &options.picture {
                let title = format!("{} is impossible", options.file.display());
                std::fs::write(page, picture(&title, &violation)).map_err(failed(page))?;
            }
            ("impossible", searched)
        }
    };
    let (operations, left_out, partitions) = (searched.operations, searched.left_out, searched.partitions);
    if options.json {
        let summary = serde_json::json!({
            "verdict": word, "operations": operations, "left_out": left_out, "partitions": partitions,
            "undecided_partitions": searched.undecided, "steps": searched.steps,
        });
        println!("{summary}");
    } else {
        println!("{word}: {operations} operations in {partitions} sets of keys, {left_out} left out");
    }
    Ok(word == "linearizable")
}
