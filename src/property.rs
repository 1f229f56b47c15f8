//! How long properties are tested: seconds in every run of the tests, hours by hand with one command (test-only).
//!
//! A property is a function of a seed that panics where it does not hold. In every run of the tests the same first
//! seeds are tried, as many as its author found affordable, so that a run repeats. Otherwise the environment decides:
//!
//! ```text
//! MAINSTAY_PROPERTY_SECONDS=3600    each property for so long, with as many seeds as fit (scripts/properties.sh)
//! MAINSTAY_PROPERTY_FIRST=1000000   beginning with this seed
//! MAINSTAY_PROPERTY_SEED=4711       this seed alone
//! ```
//!
//! Always: a failure prints the line that repeats it, and nothing but the seed decides what a property does. Left out:
//! generators; each room makes its own values, because it knows which ones are near the edge.

use std::str::FromStr;
use std::thread::panicking;
use std::time::{Duration, Instant};

/// Tries a property with its first seeds, or as the environment says; returns how many were tried.
#[allow(clippy::disallowed_methods)] // how long to try is a matter of the clock; no property sees it
pub(crate) fn hold(seeds_count: u64, mut property: impl FnMut(u64)) -> u64 {
    // The test harness names its threads after the tests; if it has but one, the first, all of them are named.
    let thread = std::thread::current();
    let name = thread.name().filter(|name| *name != "main").unwrap_or("");
    if let Some(seed) = variable("MAINSTAY_PROPERTY_SEED") {
        try_one(name, seed, &mut property);
        return 1;
    }
    let first: u64 = variable("MAINSTAY_PROPERTY_FIRST").unwrap_or(0);
    let seconds: Option<u64> = variable("MAINSTAY_PROPERTY_SECONDS");
    let deadline = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut tried = 0;
    while deadline.map_or(tried < seeds_count, |deadline| Instant::now() < deadline) {
        try_one(name, first.wrapping_add(tried), &mut property);
        tried += 1;
    }
    if seconds.is_some() {
        println!("{name}: {tried} seeds from {first}");
    }
    tried
}

/// Changes a few bytes in ways that reach deep into a format: a bit, a run of zeros or ones as a length, a small number as
/// a tag or count, or what stands elsewhere in it.
pub(crate) fn mutate(bytes: &mut [u8], mut number: impl FnMut() -> u64) {
    let mut below = |bound: usize| usize::try_from(number() % bound as u64).expect("below a length");
    if bytes.is_empty() {
        return;
    }
    for _ in 0..=below(4) {
        let at = below(bytes.len());
        let length = [1, 2, 4, 8][below(4)].min(bytes.len() - at);
        let from = below(bytes.len() - length + 1);
        match below(4) {
            0 => bytes[at] ^= 1 << below(8),
            1 => bytes[at..at + length].fill(0xff),
            2 => {
                bytes[at..at + length].fill(0);
                bytes[at] = u8::try_from(below(8)).expect("a small number");
            }
            _ => bytes.copy_within(from..from + length, at),
        }
    }
}

fn try_one(name: &str, seed: u64, property: &mut impl FnMut(u64)) {
    let told = Told { name, seed };
    property(seed);
    drop(told);
}

/// Says, if the property panics, how to make it panic again.
struct Told<'a> {
    name: &'a str,
    seed: u64,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if panicking() {
            println!("repeat it with: MAINSTAY_PROPERTY_SEED={} cargo test --lib {}", self.seed, self.name);
        }
    }
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    let value = text.parse().ok();
    assert!(value.is_some(), "{name} is a number, and not `{text}`");
    value
}

#[test]
fn a_property_is_tried_with_its_first_seeds_or_as_the_environment_says() {
    let (mut calls_count, mut seeds_sum) = (0, 0_u64);
    let tried = hold(4, |seed| {
        calls_count += 1;
        seeds_sum = seeds_sum.wrapping_add(seed);
    });
    assert_eq!(tried, calls_count);
    let variables = ["SECONDS", "FIRST", "SEED"].map(|end| format!("MAINSTAY_PROPERTY_{end}"));
    if variables.iter().all(|variable| std::env::var_os(variable).is_none()) {
        assert_eq!((tried, seeds_sum), (4, 6));
    }
}
