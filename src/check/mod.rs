//! Was what the clients saw possible? Checkers of recorded histories, independent of the code that produced them.
//!
//! `history` is what clients did and were told; `model` is the store in as few lines as it can be written;
//! `strict_serializability` replays the committed order through the model and compares every answer with it, then
//! checks that the order agrees with real time. The whole store is checked at once, as one object: histories of
//! single keys could each be linearizable while transactions over two of them are not.
//!
//! The order of writes is not searched for. The store numbers them itself (revisions), and a write whose answer was
//! lost has its place in the order told by a *witness*: the log that the simulator saw being committed. So the
//! check is one replay and one sort, O(n log n), and an hour of history is checked in a blink.
//!
//! Always: nothing here uses `kv`'s store or `replica`; only the words of commands and answers are shared.
//! Left out: histories without a witness, which need a search; they come with the tests of real processes.
#![forbid(unsafe_code)]

mod history;
mod model;
mod strict_serializability;

pub use history::*;
pub use model::Model;
pub use strict_serializability::*;
