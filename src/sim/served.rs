//! What clients wrote, so that no answer can hold anything else.
//!
//! When disks lost more than the promise covers, writes may be gone and revisions come twice; but whatever is served
//! must still be something that a client once asked to be written, under that very key: damage is never served.
//!
//! Always: an operation is taken in before any member can have heard of it. Left out: whether what is served is the
//! newest; the other invariants say that, where the promise holds.

use super::invariants::{Broken, holds};
use super::random::{fingerprint, mix};
use crate::check::{Call, Operation};
use crate::ids::MemberId;
use crate::kv::{self, Applied, Command, OperationResult, Outcome};
use std::collections::BTreeSet;

/// Every pair of key and value that clients asked to be written, as fingerprints.
#[derive(Debug, Default)]
pub(super) struct Served {
    taken_in: usize,
    written: BTreeSet<u64>,
}

impl Served {
    /// Takes in what was asked since the last time.
    pub(super) fn take_in(&mut self, history: &[Operation]) {
        for operation in history.iter().skip(self.taken_in) {
            if let Call::Write { command, .. } = &operation.call {
                self.take_in_command(command);
            }
        }
        self.taken_in = history.len();
    }

    fn take_in_command(&mut self, command: &Command) {
        match command {
            Command::Put(put) => self.take_in_put(put),
            Command::DeleteRange(_) | Command::Compact(_) | Command::Lease(_) | Command::SpaceAlarm(_) => {}
            Command::Txn(txn) => txn.visit(&mut |txn| {
                for operation in txn.success.iter().chain(&txn.failure) {
                    if let kv::Operation::Put(put) = operation {
                        self.take_in_put(put);
                    }
                }
            }),
        }
    }

    fn take_in_put(&mut self, put: &kv::Put) {
        self.written.insert(pair(&put.key, &put.value));
    }

    /// Checks an answer: every value in it was written under its key.
    ///
    /// # Errors
    /// If one was not.
    pub(super) fn holds_only_what_was_written(&self, by: MemberId, answer: &Applied) -> Result<(), Broken> {
        let mut found = Vec::new();
        note_outcome(&answer.outcome, &mut found);
        for shown in found {
            let is_written = shown.value.is_empty() || self.written.contains(&pair(&shown.key, &shown.value));
            holds(is_written, "what_is_served_was_written", || {
                format!("{by} served a value of {:?} that nobody wrote", shown.key)
            })?;
        }
        Ok(())
    }
}

fn note_outcome<'a>(outcome: &'a Outcome, found: &mut Vec<&'a kv::KeyValue>) {
    match outcome {
        Outcome::Range(result) => found.extend(&result.pairs),
        Outcome::Put(result) => found.extend(&result.previous),
        Outcome::DeleteRange(result) => found.extend(&result.previous),
        Outcome::Txn(result) => note_results(&result.results, found),
        Outcome::Compacted | Outcome::Lease(_) | Outcome::SpaceAlarm(_) | Outcome::Refused(_) => {}
    }
}

fn note_results<'a>(results: &'a [OperationResult], found: &mut Vec<&'a kv::KeyValue>) {
    for result in results {
        match result {
            OperationResult::Range(result) => found.extend(&result.pairs),
            OperationResult::Put(result) => found.extend(&result.previous),
            OperationResult::DeleteRange(result) => found.extend(&result.previous),
            OperationResult::Txn(result) => note_results(&result.results, found),
        }
    }
}

fn pair(key: &[u8], value: &[u8]) -> u64 {
    mix(fingerprint(key) ^ fingerprint(value).rotate_left(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Answer, WriteId};
    use crate::ids::{LeaseId, Revision, SessionId};
    use crate::kv::{KeyValue, Put, RangeResult};
    use bytes::Bytes;

    fn put(key: &'static str, value: &'static str) -> Operation {
        let put = Put::new(Bytes::from(key), Bytes::from(value));
        Operation {
            client: 0,
            invoked: 0,
            completed: None,
            call: Call::Write {
                write: WriteId { session: SessionId(1), sequence: 1 },
                command: Command::Put(put),
            },
            answer: Answer::Unknown,
        }
    }

    fn shown(key: &'static str, value: &'static str) -> Applied {
        let pair = KeyValue {
            key: Bytes::from(key),
            value: Bytes::from(value),
            create_revision: Revision(1),
            mod_revision: Revision(1),
            version: 1,
            lease: LeaseId(0),
        };
        let result = RangeResult { pairs: vec![pair], more: false, count: 1 };
        Applied { revision: Revision(2), outcome: Outcome::Range(result) }
    }

    #[test]
    fn a_value_that_nobody_wrote_under_its_key_is_found() {
        let mut served = Served::default();
        served.take_in(&[put("a", "one"), put("b", "two")]);
        let check = |key, value| served.holds_only_what_was_written(MemberId(1), &shown(key, value));
        assert!(check("a", "one").is_ok());
        assert!(check("a", "two").is_err());
        assert!(check("b", "twp").is_err());
    }
}
