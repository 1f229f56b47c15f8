//! What the clients do: puts, gets, ranges, deletes and compare-and-swaps over a handful of keys.
//!
//! Always: every command is within every limit and every value is written once, so that a value seen tells which
//! write it came from. Left out: leases and their keys (`holders`), and compaction, which is no client's (`watched`).

use super::random::Random;
use crate::check::Call;
use crate::ids::Revision;
use crate::kv::{
    Applied, Command, Compare, CompareOperator, CompareTarget, DeleteRange, KeyRange, Operation, Outcome,
    Put, Query, Range, Txn,
};
use crate::limits::SESSION_BYTES_MAX;
use bytes::Bytes;

/// Keys that clients meet on.
const KEYS_COUNT: usize = 7;

/// What the names of all of them begin with.
const KEY_PREFIX: &[u8] = b"key/";

/// How often the clients of a run do what they seldom do, in parts per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Habits {
    /// Writes without a stamp, of those that can go without: as a client sends them that has no session.
    pub(super) bare_writes: u32,
    /// Operations in place of which a client closes its session.
    pub(super) closings: u32,
    /// Closed sessions that their client goes on using for a while, as if it had not asked.
    pub(super) clingings: u32,
    /// Writes that ask for an answer which is too long to be remembered; few, because such answers are long.
    pub(super) greedy_writes: u32,
}

impl Habits {
    /// The habits of one seed's clients: each is off in half of the seeds.
    pub(super) fn draw(random: &mut Random) -> Self {
        let mut chance = |low, high| {
            let is_on = random.below(2) == 0;
            if is_on { u32::try_from(random.magnitude(low, high)).unwrap_or(0) } else { 0 }
        };
        Self {
            bare_writes: chance(10_000, 500_000),
            closings: chance(1_000, 30_000),
            clingings: chance(200_000, 1_000_000),
            greedy_writes: chance(100, 1_000),
        }
    }
}

/// What a greedy write puts, and how often it reads that.
const GREEDY_PUTS: usize = 4;
const GREEDY_VALUE_BYTES: usize = 16 * 1_024;
const GREEDY_READS: usize = 20;

const _: () = assert!(
    GREEDY_PUTS * GREEDY_VALUE_BYTES * GREEDY_READS > SESSION_BYTES_MAX,
    "its answer is too long to be remembered"
);

/// A stream of commands and queries.
#[derive(Debug)]
pub(super) struct Workload {
    random: Random,
    /// Whether it reads at past revisions; not where they may be compacted, which the judges of histories know nothing of.
    reads_past: bool,
    values_count: u64,
    /// The newest revision anyone was told.
    newest: Revision,
    /// When each key was last changed, as far as anyone was told.
    changed: [Revision; KEYS_COUNT],
}

impl Workload {
    /// A stream drawn from `random`.
    pub(super) fn new(random: Random, reads_past: bool) -> Self {
        Self { random, reads_past, values_count: 0, newest: Revision(1), changed: [Revision(0); KEYS_COUNT] }
    }

    /// The next operation, if it is a write; if not, `next_read` says which read.
    pub(super) fn next_write(&mut self) -> Option<Command> {
        (self.random.below(100) < 66).then(|| self.write())
    }

    /// A write.
    pub(super) fn write(&mut self) -> Command {
        match self.random.below(66) {
            0..38 => Command::Put(self.put()),
            38..46 => Command::DeleteRange(self.delete()),
            46..62 => Command::Txn(self.swap()),
            _ => Command::Txn(self.mixed()),
        }
    }

    /// A write that reads long values again and again, so that its answer is longer than a session may remember.
    pub(super) fn greedy_write(&mut self) -> Command {
        let mut success: Vec<Operation> = Vec::new();
        for at in 0..GREEDY_PUTS {
            let mut put = self.put_of(Bytes::from(format!("key/{at}")));
            let mut value = put.value.to_vec();
            value.resize(value.len().max(GREEDY_VALUE_BYTES), b'+');
            put.value = Bytes::from(value);
            success.push(Operation::Put(put));
        }
        let everything = Operation::Range(Range::new(KeyRange::From(Bytes::from_static(KEY_PREFIX))));
        success.resize(GREEDY_PUTS + GREEDY_READS, everything);
        Command::Txn(Txn { success, ..Txn::default() })
    }

    /// The next read.
    pub(super) fn next_read(&mut self) -> Query {
        match self.random.below(10) {
            0 => Query::Txn(Txn {
                compares: vec![self.compare()],
                success: vec![Operation::Range(self.range())],
                failure: vec![Operation::Range(self.range()), Operation::Range(self.range())],
            }),
            1 if self.reads_past => {
                let mut range = self.range();
                range.revision = Revision(self.random.between(1, self.newest.0));
                Query::Range(range)
            }
            _ => Query::Range(self.range()),
        }
    }

    /// The newest revision that an answer told.
    pub(super) const fn newest(&self) -> Revision {
        self.newest
    }

    /// Remembers what an answer says about keys, so that compare-and-swaps can succeed.
    pub(super) fn learn(&mut self, call: &Call, applied: &Applied) {
        self.newest = self.newest.max(applied.revision);
        match (call, &applied.outcome) {
            (Call::Write { command: Command::Put(put), .. }, Outcome::Put(_)) => {
                self.saw(&put.key, applied.revision);
            }
            (Call::Read { .. }, Outcome::Range(result)) => {
                for pair in &result.pairs {
                    self.saw(&pair.key, pair.mod_revision);
                }
            }
            (Call::Read { .. } | Call::Write { .. }, _) => {}
        }
    }

    fn saw(&mut self, key: &Bytes, revision: Revision) {
        let found = key.last().map(|digit| usize::from(digit.wrapping_sub(b'0')));
        if let Some(changed) = found.and_then(|at| self.changed.get_mut(at)) {
            *changed = revision.max(*changed);
        }
    }

    fn key(&mut self) -> (usize, Bytes) {
        let at = self.random.position(self.changed.len());
        (at, Bytes::from(format!("key/{at}")))
    }

    fn put(&mut self) -> Put {
        let (_, key) = self.key();
        self.put_of(key)
    }

    fn put_of(&mut self, key: Bytes) -> Put {
        self.values_count += 1;
        let mut value = format!("value {}", self.values_count).into_bytes();
        // Mostly small; now and then one that needs more than a block, or many.
        let padding = match self.random.below(100) {
            0 => self.random.between(4_096, 20_000),
            1..8 => self.random.between(500, 4_096),
            _ => self.random.between(0, 100),
        };
        value.resize(value.len() + usize::try_from(padding).unwrap_or(0), b'.');
        Put { wants_previous: self.random.below(2) == 0, ..Put::new(key, Bytes::from(value)) }
    }

    fn delete(&mut self) -> DeleteRange {
        let is_wide = self.random.below(8) == 0;
        DeleteRange {
            range: if is_wide { self.span() } else { KeyRange::Key(self.key().1) },
            wants_previous: self.random.below(2) == 0,
        }
    }

    fn span(&mut self) -> KeyRange {
        let low = self.random.position(KEYS_COUNT);
        let high = low + 1 + self.random.position(KEYS_COUNT - low);
        KeyRange::Span { start: Bytes::from(format!("key/{low}")), end: Bytes::from(format!("key/{high}")) }
    }

    fn range(&mut self) -> Range {
        let range = match self.random.below(4) {
            0 => KeyRange::From(Bytes::from_static(KEY_PREFIX)),
            1 => self.span(),
            _ => KeyRange::Key(self.key().1),
        };
        Range {
            limit: if self.random.below(4) == 0 { self.random.between(1, 4) } else { 0 },
            keys_only: self.random.below(10) == 0,
            count_only: self.random.below(10) == 0,
            ..Range::new(range)
        }
    }

    /// Changes a key only if nobody else has since it was last seen.
    fn swap(&mut self) -> Txn {
        let (at, key) = self.key();
        let compare = Compare {
            range: KeyRange::Key(key.clone()),
            operator: CompareOperator::Equal,
            target: CompareTarget::Mod(self.changed[at]),
        };
        let get = Operation::Range(Range::new(KeyRange::Key(key.clone())));
        Txn {
            compares: vec![compare],
            success: vec![Operation::Put(self.put_of(key)), get.clone()],
            failure: vec![get],
        }
    }

    /// Writes two keys, or deletes one, as one step.
    fn mixed(&mut self) -> Txn {
        let (first, key) = self.key();
        let other = (first + 1) % self.changed.len();
        Txn {
            compares: vec![self.compare()],
            success: vec![
                Operation::Put(self.put_of(key)),
                Operation::Put(self.put_of(Bytes::from(format!("key/{other}")))),
                Operation::Range(self.range()),
            ],
            failure: vec![Operation::DeleteRange(self.delete())],
        }
    }

    fn compare(&mut self) -> Compare {
        let (at, key) = self.key();
        let operator = match self.random.below(4) {
            0 => CompareOperator::Equal,
            1 => CompareOperator::NotEqual,
            2 => CompareOperator::Greater,
            _ => CompareOperator::Less,
        };
        let target = match self.random.below(4) {
            0 => CompareTarget::Version(self.random.below(4)),
            1 => CompareTarget::Create(self.changed[at]),
            2 => CompareTarget::Mod(self.changed[at]),
            _ => CompareTarget::Value(Bytes::from("value 5")),
        };
        let range = if self.random.below(5) == 0 { self.span() } else { KeyRange::Key(key) };
        Compare { range, operator, target }
    }
}

/// Whether no other write of the run has the bytes of this one, because it holds a value.
pub(super) fn holds_a_value(command: &Command) -> bool {
    match command {
        Command::Put(_) => true,
        Command::DeleteRange(_) | Command::Compact(_) | Command::Lease(_) | Command::SpaceAlarm(_) => false,
        Command::Txn(txn) => {
            txn.success.iter().chain(&txn.failure).any(|part| matches!(part, Operation::Put(_)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_habit_is_on_in_some_seeds_and_off_in_others() {
        let all: Vec<_> = (0..100).map(|seed| Habits::draw(&mut Random::new(seed))).collect();
        let chances: [fn(&Habits) -> u32; 4] = [
            |habits| habits.bare_writes,
            |habits| habits.closings,
            |habits| habits.clingings,
            |habits| habits.greedy_writes,
        ];
        for chance in chances {
            assert!(all.iter().any(|habits| chance(habits) == 0));
            assert!(all.iter().any(|habits| chance(habits) > 0));
        }
    }
}
