//! Who hears of which change: the pure hub of one replica's watches.
//!
//! A [`Hub`] is told what clients want ([`Hub::create`]), how far the store has come ([`Hub::advance`]) and how much of
//! what it gave out has left ([`Hub::taken`]); it says what is to be sent ([`Notice`]). It reads what happened from the
//! store's history and from nothing else, so a change cannot be lost between two sources, and a watch from an old
//! revision is an ordinary one that has far to go.
//!
//! ```text
//!   revisions   … 40 41 42 43 44 45 46 47          47 is the newest
//!                     │        │        └─ who keeps up is told of 48 in the turn that makes it, all of one
//!                     │        │           interest by one batch
//!                     │        └─ who is behind is told from here on, slice by slice
//!                     └─ who has no room is told nothing until what it was sent has left
//! ```
//!
//! What always holds, for each watch by itself (RELIABILITY §2):
//!
//! - *ordered, unique, reliable*: it has one position, the moment up to which it was told, which only grows; what is
//!   told next begins there and leaves out nothing that it wants;
//! - *atomic*: a batch ends with a whole revision, or says that more of the last one follows;
//! - *resumable*: a watch that begins at a revision is told that one and all later ones, or it ends and says which is
//!   the oldest that can still be told;
//! - *bookmarkable*: a batch names the revision up to which everything was told with it and before it; one without
//!   events is sent only to who is told everything.
//!
//! What is given out and has not left is bounded, for each stream and for all together; whoever does not take it costs
//! that much and a position.
//!
//! The way through the room: `words.rs` is what is asked and told; `hub.rs` where each watch stands; `batch.rs` how
//! changes become a batch; `interests.rs` which watches a key concerns. What it leaves out: bytes (`api`), sockets
//! (`server`), and whether a watch that begins *now* begins late enough (`replica`).
#![forbid(unsafe_code)]

mod batch;
mod hub;
mod interests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod script;
mod words;

pub use hub::{Bounds, Hub};
pub use words::*;
