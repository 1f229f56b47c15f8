//! Was what the clients saw possible? Two judges of recorded histories, independent of the code that produced them
//! and of each other.
//!
//! | file | holds |
//! |---|---|
//! | `history` | what clients did and were told; `words`: the same for people |
//! | `along_revisions` | the first judge: replays the committed order through `model`, and compares every answer |
//! | `search` | the second judge: looks for any order at all that explains the answers, by `present` |
//! | `partition` | which operations the search may look at apart from all others |
//! | `window` | the least part of a history that the search still cannot explain |
//! | `verdict` | both judges together |
//! | `watches` | was what watches were told what they were owed? |
//! | `violation`, `picture` | what is wrong, in words, and as a page to look at |
//! | `leases` | a judge of leases: never early, and in time |
//! | `lines` | histories as files of JSON lines |
//!
//! The first judge needs a *witness* of the order, the log that the simulator saw being committed, and is exact to
//! the byte. The second trusts neither the log nor the order of revisions, and works on histories of real processes,
//! where nobody saw the log. A bug of one judge would have to be made again in the other to stay unseen: they share
//! the words of commands and answers, and no code that judges.
//!
//! Always: nothing here uses `kv`'s store or `replica`; only the words of commands and answers are shared. A judge that
//! cannot decide says so.
#![forbid(unsafe_code)]

mod along_revisions;
#[cfg(test)]
mod cross_check;
mod history;
mod leases;
mod lines;
mod model;
mod partition;
mod picture;
mod present;
#[cfg(test)]
mod properties;
mod search;
#[cfg(test)]
mod testing;
mod verdict;
mod violation;
mod watches;
mod window;
mod words;

pub use along_revisions::*;
pub use history::*;
pub use leases::*;
pub use lines::*;

pub use model::Model;
pub use picture::picture;
pub use search::*;
pub use verdict::*;
pub use violation::*;
pub use watches::*;
