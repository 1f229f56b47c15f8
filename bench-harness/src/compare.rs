//! The same load on two systems in turn, pair after pair, and the ratio within each pair.
//!
//! Absolute figures wander from minute to minute on a shared machine; two runs side by side wander together. So each
//! pair is a ratio of its own, and the median of those ratios is what counts. What always holds: both get the same
//! arguments, the same disk and a new cluster for every run; each pair runs in the other order than the one before.
//! What it leaves out: more than two systems.

use crate::load::options::LoadArgs;
use crate::load::report::Measured;
use crate::load::{self, LoadError};
use crate::plots;
use crate::target::System;
use clap::Args;
use serde_json::{Value, json};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const EXAMPLES: &str = "\
Examples:
  bench-harness compare --connections 256 --seconds 10 --repeat 5 --etcd-bin $(scripts/get-etcd.sh)
  bench-harness compare --rate 5000 --connections 64 --depth 16 --json
  bench-harness compare --op get --protocol grpc --html compare.html
  bench-harness compare --target mainstay,mainstay --other-program old/mainstay    this tree against another build

Ratios are the first system's figure by the second's. Exit code 1 when a run acknowledged nothing.";

/// The arguments of `bench-harness compare`.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Options {
    /// The two systems
    #[arg(long, value_enum, value_delimiter = ',', num_args = 1..=2, default_values = ["mainstay", "etcd"])]
    target: Vec<System>,
    /// How many pairs of runs
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// The binary of the second system, if that is mainstay too
    #[arg(long, value_name = "FILE")]
    other_program: Option<PathBuf>,
    /// Write a page with plots here
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Debug, thiserror::Error)]
enum CompareError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("two systems are compared: --target mainstay,etcd")]
    NotTwo,
    #[error("{0} acknowledged nothing")]
    Nothing(&'static str),
    #[error(transparent)]
    Machine(#[from] io::Error),
}

/// Two runs side by side.
#[derive(Debug)]
pub(crate) struct Pair {
    /// The first system's.
    pub(crate) first: Measured,
    /// The second's.
    pub(crate) second: Measured,
}

/// The first's figures by the second's.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ratios {
    ops_per_s: f64,
    p50: f64,
    p99: f64,
    server_cpu_us_per_op: f64,
}

/// Runs `bench-harness compare`.
pub(crate) fn run(options: &Options) -> ExitCode {
    match compare(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-harness compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> Result<(), CompareError> {
    let [first, second] = options.target[..] else { return Err(CompareError::NotTwo) };
    // Before anything runs: the second would refuse only after the first has been measured.
    for system in [first, second] {
        load::protocol_of(&options.load, system)?;
    }
    let is_interrupted = load::watch_for_interrupts()?;
    let mut pairs = Vec::new();
    for number in 1..=options.repeat {
        eprintln!("compare: pair {number} of {}", options.repeat);
        let pair = run_pair(options, first, second, number % 2 == 0, &is_interrupted)?;
        if !options.load.json {
            println!("{}{}  ratios     {}\n", pair.first, pair.second, in_words(Ratios::of(&pair)));
        }
        pairs.push(pair);
    }
    let median = Ratios::median(&pairs.iter().map(Ratios::of).collect::<Vec<_>>());
    if options.load.json {
        println!("{}", to_json(options.target.as_slice(), &pairs, median));
    } else {
        println!(
            "median of {} pairs, {} by {}: {}",
            pairs.len(),
            first.name(),
            second.name(),
            in_words(median)
        );
    }
    if let Some(file) = &options.html {
        let runs: Vec<&Measured> = pairs.iter().flat_map(|pair| [&pair.first, &pair.second]).collect();
        std::fs::write(file, plots::page(&runs, Some(&in_words(median))))?;
        eprintln!("compare: {}", file.display());
    }
    Ok(())
}

fn run_pair(
    options: &Options,
    first: System,
    second: System,
    is_turned: bool,
    is_interrupted: &Arc<AtomicBool>,
) -> Result<Pair, CompareError> {
    let mut second_args = options.load.clone();
    if options.other_program.is_some() {
        second_args.program.clone_from(&options.other_program);
    }
    let measure = |args: &LoadArgs, system: System| {
        let measured = load::measure(args, system, &[], is_interrupted)?;
        let is_something = measured.tally.acknowledged > 0;
        if is_something { Ok(measured) } else { Err(CompareError::Nothing(system.name())) }
    };
    if is_turned {
        let second = measure(&second_args, second)?;
        return Ok(Pair { first: measure(&options.load, first)?, second });
    }
    let first = measure(&options.load, first)?;
    Ok(Pair { first, second: measure(&second_args, second)? })
}

impl Ratios {
    fn of(pair: &Pair) -> Self {
        let Pair { first, second } = pair;
        let cpu = |run: &Measured| run.server_cpu_us_per_op().unwrap_or(f64::NAN);
        Self {
            ops_per_s: first.ops_per_s() / second.ops_per_s(),
            p50: first.latency_ms(0.5) / second.latency_ms(0.5),
            p99: first.latency_ms(0.99) / second.latency_ms(0.99),
            server_cpu_us_per_op: cpu(first) / cpu(second),
        }
    }

    /// The median of each ratio by itself.
    fn median(all: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(all.iter().map(figure).collect());
        Self {
            ops_per_s: of(|it| it.ops_per_s),
            p50: of(|it| it.p50),
            p99: of(|it| it.p99),
            server_cpu_us_per_op: of(|it| it.server_cpu_us_per_op),
        }
    }

    fn to_json(self) -> Value {
        json!({
            "ops_per_s": self.ops_per_s,
            "p50": self.p50,
            "p99": self.p99,
            "server_cpu_us_per_op": self.server_cpu_us_per_op,
        })
    }
}

/// The middle one; of two middle ones, their mean.
fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    if all.len() % 2 == 1 { all[middle] } else { f64::midpoint(all[middle - 1], all[middle]) }
}

fn in_words(ratios: Ratios) -> String {
    format!(
        "ops/s x{:.2}, p50 x{:.3}, p99 x{:.3}, server CPU an operation x{:.3}",
        ratios.ops_per_s, ratios.p50, ratios.p99, ratios.server_cpu_us_per_op
    )
}

fn to_json(systems: &[System], pairs: &[Pair], median: Ratios) -> Value {
    let pairs = pairs.iter().map(|pair| {
        json!({
            "first": pair.first.to_json(),
            "second": pair.second.to_json(),
            "ratio": Ratios::of(pair).to_json(),
        })
    });
    json!({
        "targets": systems.iter().map(|system| system.name()).collect::<Vec<_>>(),
        "pairs": pairs.collect::<Vec<_>>(),
        "median_ratio": median.to_json(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Ratios, median};

    #[test]
    fn a_median_is_in_the_middle_whatever_the_order() {
        for (all, expected) in
            [(vec![3.0], 3.0), (vec![9.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 2.0, 100.0], 3.0)]
        {
            assert!((median(all.clone()) - expected).abs() < 1e-9, "{all:?}");
        }
    }

    #[test]
    fn each_ratio_has_a_median_of_its_own() {
        let pair = |ops_per_s, p99| Ratios { ops_per_s, p50: 1.0, p99, server_cpu_us_per_op: 0.1 };
        let median = Ratios::median(&[pair(5.0, 0.9), pair(7.0, 0.1), pair(6.0, 0.5)]);
        assert_eq!(median, pair(6.0, 0.5));
    }
}
