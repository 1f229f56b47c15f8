//! Pure consensus (Raft): who leads, what is in the log, what is committed.
//!
//! One `Node` is one member of one group. It is called with what happened (a message, the time, a durable write, a
//! proposal) and answers in `Output` values; it has no clock, no disk and no network, so the same calls always give
//! the same answers. It numbers entries and never sees their bytes.
//!
//! **A term, from its start.** A follower that hears no leader for a random time in [E, 2E) asks whether it could win
//! (`candidate`); others say yes only if they hear no leader either and its log is not behind theirs (`voter`). Then
//! it enters the next term, votes for itself, and once that is durable asks for votes. The winner appends a no-op
//! (`leader`). Proposals get indices at once; `flush`, at the end of a turn, sends each follower what it lacks
//! (`progress`, `inflight`). A follower takes entries in where its log agrees (`follower`, `log`) and acknowledges
//! what is both equal and durable (`durability`). What a majority holds is committed (`leader`, `quorum`).
//!
//! **Where each rule lives:**
//!
//! | rule | place |
//! |---|---|
//! | what is committed (Raft §5.4.2) | `Node::advance_commit` in `leader` |
//! | what a follower commits: the lesser of the leader's commit and what is matched | `receive_append_request` in `follower` |
//! | one vote a term, for a log at least as long (§5.4.1); none while a leader is heard | `voter` |
//! | pre-vote (thesis 9.6); who may campaign | `candidate` |
//! | a leader that hears no majority, or whose disk stands still, steps down | `tick_leader` in `leader` |
//! | nothing leaves before its term or vote is durable | `outbox` |
//! | own copies count only when durable; a late write counts for nothing else | `durability` |
//! | entries held already are never cut by a late append; what islands are | `Log::accept` in `log` |
//! | how long a leader's next batch waits for its peers to have the last | `batch` |
//! | late, doubled or wrong replies move nothing back | `progress` |
//! | linearizable reads (thesis 6.4) | `read_index` |
//! | answering reads alone, and not committing while others may | `leader_lease` |
//! | handing leadership over (thesis 3.10) | `transfer` |
//! | repairing a log that lost entries to damage (DESIGN §8) | `fill` |
//! | trimming the log; sending, receiving and installing a snapshot (thesis 5) | `snapshot` |
//! | a higher term makes a follower, except in pre-votes | `Node::receive` in `node` |
//!
//! **A turn of the caller.** Any number of `receive`, `tick`, `propose`, `read`, `persisted`; then `flush` once; then,
//! if no write is in flight, `persist`, whose result is written and answered with `persisted` (there is none while a leader holds
//! its next batch back). Writes and sends leave
//! side by side: a leader's appends do not wait for its own disk (thesis 10.2.1).
//!
//! **What peers say is not trusted.** A message that no correct member could send is dropped; one that could be sent
//! but is untrue may stop progress, but panics nobody (`fuzz` sends anything at all; `cluster` runs small clusters under faults; `explore` takes every schedule of three
//! members up to a bound).
//!
//! Left out, so far: learners and changes of membership.
#![forbid(unsafe_code)]

mod batch;
mod candidate;
#[cfg(test)]
mod cluster;
mod durability;
pub mod explore;
mod fill;
mod follower;
#[cfg(test)]
mod fuzz;
mod inflight;
mod interface;
mod invariants;
mod leader;
mod leader_lease;
mod log;
mod message;
mod node;
mod outbox;
mod progress;
mod quorum;
mod random;
mod read_index;
mod snapshot;
#[cfg(test)]
mod testing;
mod transfer;
mod voter;

pub use interface::*;
pub use message::*;
pub use node::*;

#[cfg(test)]
mod script;
