//! The order in which the store took the writes, put together from what clients were told and what the store still knows.
//!
//! ```text
//!   revision       2    3    4    5    6
//!   was told       w1   w2   ?    w3   ?       every answered write that changed something names its revision
//!   the past says            w7        w9      what was put there: a value names its write; nothing put: a delete
//! ```
//!
//! What always holds: a write stands at one place at the most, and an answered one at the revision it was told, whether that
//! can be or not; the judges find out. What it leaves out: revisions that nobody accounts for, which stay empty, so that
//! every later answer contradicts the order.

use mainstay::api::ReadMode;
use mainstay::check::{Answer, Call, CommittedWrite, Operation};
use mainstay::client::{Client, Failure};
use mainstay::ids::Revision;
use mainstay::kv::{
    Command, DeleteRange, Filter, KeyRange, KeyValue, Operation as Part, OperationResult, Outcome, Put,
    Query, Range, TxnResult,
};
use std::collections::{BTreeMap, BTreeSet};

/// The writes of `history` in the order of the store, which is at revision `end` and can be asked for its past.
///
/// # Errors
/// The past cannot be read.
pub(super) fn order(
    history: &[Operation],
    end: Revision,
    past: &mut impl Past,
) -> Result<Vec<CommittedWrite>, Failure> {
    let mut changes: BTreeMap<Revision, usize> = BTreeMap::new();
    // Writes that changed nothing, by the revision that was current.
    let mut idle: BTreeMap<Revision, Vec<usize>> = BTreeMap::new();
    let mut open: BTreeSet<(u64, usize)> = BTreeSet::new();
    for (at, operation) in history.iter().enumerate() {
        match (&operation.call, &operation.answer) {
            (Call::Read { .. }, _) => {}
            (Call::Write { .. }, Answer::Applied(applied)) if is_change(&applied.outcome) => {
                let first = *changes.entry(applied.revision).or_insert(at);
                // Two at one revision cannot be; the second is then out of its place, and is found to be.
                if first != at {
                    idle.entry(applied.revision).or_default().push(at);
                }
            }
            (Call::Write { .. }, Answer::Applied(applied)) => {
                idle.entry(applied.revision).or_default().push(at);
            }
            (Call::Write { .. }, Answer::NotDone | Answer::Unknown) => {
                open.insert((operation.invoked, at));
            }
        }
    }
    let empty: Vec<Revision> = (2..=end.0).map(Revision).filter(|it| !changes.contains_key(it)).collect();
    for revision in empty.into_iter().take(open.len()) {
        if let Some(found) = find(history, &open, revision, past)? {
            open.remove(&found);
            changes.insert(revision, found.1);
        }
    }
    let mut order: Vec<(Revision, usize)> = Vec::new();
    order.extend(idle.remove(&Revision(1)).into_iter().flatten().map(|at| (Revision(1), at)));
    for (revision, at) in changes {
        order.push((revision, at));
        order.extend(idle.remove(&revision).into_iter().flatten().map(|at| (revision, at)));
    }
    // What is left was told a revision that nobody made.
    order.extend(idle.into_iter().flat_map(|(revision, all)| all.into_iter().map(move |at| (revision, at))));
    Ok(order.into_iter().filter_map(|(_, at)| committed(&history[at])).collect())
}

/// What the store says of its past.
pub(super) trait Past {
    /// What was put at exactly this revision.
    fn put_at(&mut self, revision: Revision) -> Result<Vec<KeyValue>, Failure>;

    /// Whether a key was there at this revision.
    fn was_there(&mut self, range: &KeyRange, revision: Revision) -> Result<bool, Failure>;
}

impl Past for Client {
    fn put_at(&mut self, revision: Revision) -> Result<Vec<KeyValue>, Failure> {
        let filter = Filter { mod_min: revision, mod_max: revision, ..Filter::default() };
        let everything = Range::new(KeyRange::From(bytes::Bytes::new()));
        let query = Query::Range(Range { revision, filter, ..everything });
        match self.read(query, ReadMode::Linearizable)?.outcome {
            Outcome::Range(result) => Ok(result.pairs),
            // A store that has forgotten cannot tell.
            _ => Ok(Vec::new()),
        }
    }

    fn was_there(&mut self, range: &KeyRange, revision: Revision) -> Result<bool, Failure> {
        let query = Query::Range(Range { revision, count_only: true, ..Range::new(range.clone()) });
        let outcome = self.read(query, ReadMode::Linearizable)?.outcome;
        Ok(matches!(outcome, Outcome::Range(result) if result.count > 0))
    }
}

/// Which of the `open` writes made `revision`; the one begun first if it may have been several.
fn find(
    history: &[Operation],
    open: &BTreeSet<(u64, usize)>,
    revision: Revision,
    past: &mut impl Past,
) -> Result<Option<(u64, usize)>, Failure> {
    let pairs = past.put_at(revision)?;
    for &(invoked, at) in open {
        let Call::Write { command, .. } = &history[at].call else { continue };
        let is_it = match command {
            Command::DeleteRange(DeleteRange { range, .. }) if pairs.is_empty() => {
                past.was_there(range, Revision(revision.0 - 1))? && !past.was_there(range, revision)?
            }
            Command::Put(put) => is_put(put, &pairs),
            Command::Txn(txn) => {
                let mut parts = txn.success.iter().chain(&txn.failure);
                parts.any(|part| matches!(part, Part::Put(put) if is_put(put, &pairs)))
            }
            Command::DeleteRange(_) | Command::Compact(_) | Command::Lease(_) | Command::SpaceAlarm(_) => {
                false
            }
        };
        if is_it {
            return Ok(Some((invoked, at)));
        }
    }
    Ok(None)
}

fn is_put(put: &Put, pairs: &[KeyValue]) -> bool {
    pairs.iter().any(|pair| pair.key == put.key && pair.value == put.value)
}

/// Whether whoever was told this has changed the store.
fn is_change(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Put(_) => true,
        Outcome::DeleteRange(result) => result.deleted > 0,
        Outcome::Txn(result) => is_changing(result),
        Outcome::Range(_)
        | Outcome::Compacted
        | Outcome::Lease(_)
        | Outcome::SpaceAlarm(_)
        | Outcome::Refused(_) => false,
    }
}

fn is_changing(result: &TxnResult) -> bool {
    result.results.iter().any(|result| match result {
        OperationResult::Put(_) => true,
        OperationResult::DeleteRange(result) => result.deleted > 0,
        OperationResult::Range(_) => false,
        OperationResult::Txn(nested) => is_changing(nested),
    })
}

fn committed(operation: &Operation) -> Option<CommittedWrite> {
    match &operation.call {
        Call::Write { write, command } => Some(CommittedWrite { write: *write, command: command.clone() }),
        Call::Read { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Past, order};
    use bytes::Bytes;
    use mainstay::check::{Answer, Call, Model, Operation, WriteId, judge};
    use mainstay::client::Failure;
    use mainstay::ids::{Revision, SessionId};
    use mainstay::kv::{Command, DeleteRange, Filter, KeyRange, KeyValue, Outcome, Put, Query, Range};

    /// A store of one key, and what its clients saw.
    #[derive(Default)]
    struct Story {
        store: Model,
        history: Vec<Operation>,
    }

    impl Past for Model {
        fn put_at(&mut self, revision: Revision) -> Result<Vec<KeyValue>, Failure> {
            let filter = Filter { mod_min: revision, mod_max: revision, ..Filter::default() };
            let query = Query::Range(Range { revision, filter, ..Range::new(KeyRange::From(Bytes::new())) });
            match self.read(self.revision(), &query) {
                Outcome::Range(result) => Ok(result.pairs),
                outcome => panic!("a range answers a range, not {outcome:?}"),
            }
        }

        fn was_there(&mut self, range: &KeyRange, revision: Revision) -> Result<bool, Failure> {
            let query = Query::Range(Range { revision, ..Range::new(range.clone()) });
            let outcome = self.read(self.revision(), &query);
            Ok(matches!(outcome, Outcome::Range(result) if result.count > 0))
        }
    }

    impl Story {
        /// A write that the store carried out; its client heard of it or not.
        fn write(&mut self, command: Command, is_heard: bool) {
            let applied = self.store.apply(&command);
            self.push(command, if is_heard { Answer::Applied(applied) } else { Answer::Unknown });
        }

        fn push(&mut self, command: Command, answer: Answer) {
            let number = self.history.len() as u64;
            let write = WriteId { session: SessionId(1), sequence: number };
            let completed = (answer != Answer::Unknown).then_some(10 * number + 5);
            let call = Call::Write { write, command };
            self.history.push(Operation { client: 1, invoked: 10 * number, completed, call, answer });
        }

        fn sequences(&mut self) -> Vec<u64> {
            let order = order(&self.history, self.store.revision(), &mut self.store).expect("readable");
            order.iter().map(|committed| committed.write.sequence).collect()
        }
    }

    fn put(value: &'static str) -> Command {
        Command::Put(Put::new(Bytes::from("k"), Bytes::from(value)))
    }

    fn delete() -> Command {
        Command::DeleteRange(DeleteRange { range: KeyRange::Key(Bytes::from("k")), wants_previous: false })
    }

    #[test]
    fn writes_that_nobody_heard_of_are_found_where_they_took_effect() {
        let mut story = Story::default();
        story.write(delete(), true);
        story.write(put("a"), false);
        story.write(put("b"), true);
        story.push(put("never arrived"), Answer::Unknown);
        story.push(delete(), Answer::NotDone);
        story.write(delete(), false);
        story.write(delete(), true);
        story.write(put("c"), true);
        // Of two deletes that may have made one revision, the one that was begun first is taken.
        assert_eq!(story.sequences(), [0, 1, 2, 4, 6, 7]);
        story.history[4].answer = Answer::Unknown;
        story.history[4].completed = None;
        let order = order(&story.history, story.store.revision(), &mut story.store).expect("readable");
        judge(&story.history, &order).expect("this is what happened");
    }

    #[test]
    fn a_write_that_was_lost_contradicts_the_order() {
        let mut story = Story::default();
        story.write(put("a"), true);
        let before = story.store.clone();
        story.write(put("b"), true);
        story.store = before;
        story.write(put("c"), true);
        let order = order(&story.history, story.store.revision(), &mut story.store).expect("readable");
        judge(&story.history, &order).expect_err("two writes were told the same revision");
    }

    #[test]
    fn a_change_that_nobody_asked_for_contradicts_the_order() {
        let mut story = Story::default();
        story.write(put("a"), true);
        story.store.apply(&put("from nowhere"));
        story.write(put("b"), true);
        let order = order(&story.history, story.store.revision(), &mut story.store).expect("readable");
        judge(&story.history, &order).expect_err("a revision is missing");
    }
}
