//! Tests on the source itself: what a reviewer would otherwise have to look for in every change.
//!
//! - `walls`: which room may name which; no clocks, threads, files, sockets or chance in pure rooms;
//! - `shape`: file length, opening essays, `#![forbid(unsafe_code)]`, nothing left undone, no script unread;
//! - `planted`: every planted bug has its row in the simulator's catalogue.
//!
//! What always holds: each check is a function from sources to the list of breaches, and beside it stands a test
//! that shows it failing on a small made-up text. What it leaves out: whatever the compiler or clippy can say
//! (lengths of functions, unused code, disallowed types); those are in `Cargo.toml` and `.clippy.toml`.

mod planted;
mod shape;
mod sometimes;
mod source;
mod walls;

fn assert_none(breaches: &[String]) {
    assert!(breaches.is_empty(), "{} breaches:\n{}", breaches.len(), breaches.join("\n"));
}

fn assert_caught(breaches: &[String], count: usize, what: &str) {
    assert_eq!(breaches.len(), count, "{what:?} must be caught; found: {breaches:?}");
}
