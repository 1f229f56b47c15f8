//! Reads: at this member, at an index that a quorum confirmed (thesis 6.4).
//!
//! Always: the linearizable reads of a turn share one confirmation round that begins after they arrived, and a round
//! serves no read that came later; a read is answered only from state that has applied the confirmed index. The
//! same code serves on leader and follower: raft knows whom to ask. Left out: serializable reads, which need none of
//! this.

use super::group::Replica;
use super::{Output, group};
use crate::api::{Refusal, Response};
use crate::ids::{BootMicros, LogIndex, Ticket};
use crate::kv::Query;
use crate::limits::READS_WAITING_MAX;
use crate::raft::{NotLeader, ReadRefused};
use crate::sometimes;
use std::collections::BTreeMap;

/// One read that waits.
#[derive(Debug)]
struct Read {
    ticket: Ticket,
    query: Query,
}

/// All reads of one replica that wait for something.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Came in this turn.
    turn: Vec<Read>,
    /// Wait for raft to confirm their request.
    confirming: BTreeMap<u64, Vec<Read>>,
    /// Confirmed, and wait for this index to be applied.
    ready: BTreeMap<LogIndex, Vec<Read>>,
    /// All of the above.
    count: usize,
}

impl Reads {
    /// How many reads wait for anything.
    pub(super) const fn count(&self) -> usize {
        self.count
    }
}

impl Replica {
    /// Takes in a linearizable read; it joins the round that this turn begins.
    pub(super) fn gather_read(&mut self, ticket: Ticket, query: Query, outputs: &mut Vec<Output>) {
        if self.reads.count >= READS_WAITING_MAX {
            outputs.push(group::reply(ticket, Response::Refused(Refusal::Overloaded)));
            return;
        }
        self.reads.count += 1;
        self.reads.turn.push(Read { ticket, query });
    }

    /// Asks raft for one confirmation for all reads of the turn.
    pub(super) fn begin_reads(&mut self, now: BootMicros, outputs: &mut Vec<Output>) {
        if self.reads.turn.is_empty() {
            return;
        }
        let reads = std::mem::take(&mut self.reads.turn);
        match self.node.read(now) {
            Ok(request) => {
                let none = self.reads.confirming.insert(request, reads);
                assert!(none.is_none(), "a read request's number is never used twice");
            }
            Err(ReadRefused::NotLeader(NotLeader { leader })) => {
                self.refuse_reads(reads, Refusal::NotLeader { leader }, outputs);
            }
            Err(ReadRefused::TooMany) => self.refuse_reads(reads, Refusal::Overloaded, outputs),
        }
    }

    /// Raft has confirmed: these reads may be answered once `index` is applied.
    pub(super) fn read_ready(&mut self, request: u64, index: LogIndex, outputs: &mut Vec<Output>) {
        if let Some(reads) = self.reads.confirming.remove(&request) {
            if index > self.applied {
                sometimes!(ReadWaitedForApply);
            }
            self.reads.ready.entry(index).or_default().extend(reads);
            self.serve_ready_reads(outputs);
        }
    }

    /// Nobody can confirm: nothing was done.
    pub(super) fn read_failed(&mut self, request: u64, outputs: &mut Vec<Output>) {
        if let Some(reads) = self.reads.confirming.remove(&request) {
            sometimes!(ReadRoundFailed);
            self.refuse_reads(reads, Refusal::NoQuorum, outputs);
        }
    }

    /// Answers every confirmed read whose index is applied.
    pub(super) fn serve_ready_reads(&mut self, outputs: &mut Vec<Output>) {
        while let Some(entry) = self.reads.ready.first_entry() {
            if *entry.key() > self.applied {
                break;
            }
            for read in entry.remove() {
                self.reads.count -= 1;
                let applied = self.store.query(&read.query);
                outputs.push(group::reply(read.ticket, Response::Applied(applied)));
            }
        }
    }

    fn refuse_reads(&mut self, reads: Vec<Read>, refusal: Refusal, outputs: &mut Vec<Output>) {
        for read in reads {
            self.reads.count -= 1;
            outputs.push(group::reply(read.ticket, Response::Refused(refusal)));
        }
    }
}
