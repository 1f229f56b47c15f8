//! Random commands and queries, good and bad, against the store and its model side by side.

use super::command::{
    Command, Compact, Compare, CompareOperator, CompareTarget, DeleteRange, Filter, Grant, KeyRange,
    LeaseCommand, LeaseLife, Operation, Outcome, Put, Query, Range, Remaining, Revoke, Sort, SortBy,
    SortOrder, SpaceAlarm, Txn,
};
use super::model::Model;
use super::{CompactedTo, Event, Moment, Store, StoreRefusal, check};
use crate::ids::{LeaseId, Revision};
use crate::limits::{
    KEY_BYTES_MAX, LEASE_TTL_MILLIS_MAX, TXN_DEPTH_MAX, TXN_OPERATIONS_MAX, VALUE_BYTES_MAX,
};
use crate::property;
use bytes::Bytes;

/// Numbers under which alarms are raised by hand, from 0.
pub(crate) const ALARM_NUMBERS: u64 = 2;

const SEEDS: u64 = 1_000;
const STEPS: u64 = 60;

/// What a seed makes: numbers, and from them commands over a handful of keys, so that they meet often.
pub(crate) struct Random {
    state: u64,
    /// The revision around which reads ask.
    pub(crate) revision: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed, revision: 1 }
    }

    /// A number below `bound` (the generator `SplitMix64`).
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    pub(crate) fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        let place = self.below(choices.len() as u64);
        choices[usize::try_from(place).expect("a place in a slice fits")]
    }

    fn key(&mut self) -> Bytes {
        match self.below(100) {
            0 => Bytes::new(),
            1 => Bytes::from(vec![b'k'; KEY_BYTES_MAX]),
            2 => Bytes::from(vec![b'k'; KEY_BYTES_MAX + 1]),
            3 => Bytes::from_static(&[0]),
            4 => Bytes::from_static(&[0xff, 0xff]),
            5 => (0..self.below(40)).map(|_| self.below(256).to_le_bytes()[0]).collect(),
            _ => {
                let length = 1 + self.below(2);
                (0..length).map(|_| self.one_of(b"abc")).collect()
            }
        }
    }

    fn value(&mut self) -> Bytes {
        if self.one_in(3_000) {
            return Bytes::from(vec![b'v'; VALUE_BYTES_MAX + 1]);
        }
        Bytes::from_static(self.one_of(&[&b""[..], b"x", b"y", b"a longer value"]))
    }

    fn range(&mut self) -> KeyRange {
        match self.below(5) {
            0 => KeyRange::From(if self.one_in(2) { Bytes::new() } else { self.key() }),
            1 | 2 => KeyRange::Key(self.key()),
            _ => {
                let (one, other) = (self.key(), self.key());
                let is_ordered = one <= other || self.one_in(20);
                let (start, end) = if is_ordered { (one, other) } else { (other, one) };
                KeyRange::Span { start, end }
            }
        }
    }

    fn put(&mut self) -> Put {
        let lease = LeaseId(if self.one_in(4) { 1 + self.below(3) } else { 0 });
        let (keeps_value, keeps_lease) = (self.one_in(10), self.one_in(20));
        let value = if keeps_value && !self.one_in(10) { Bytes::new() } else { self.value() };
        Put { key: self.key(), value, lease, wants_previous: self.one_in(2), keeps_value, keeps_lease }
    }

    fn delete_range(&mut self) -> DeleteRange {
        DeleteRange { range: self.range(), wants_previous: self.one_in(2) }
    }

    fn read(&mut self) -> Range {
        let revision = match self.below(10) {
            0..5 => 0,
            5 => self.revision,
            6 if self.one_in(4) => self.revision + 1 + self.below(2),
            7 if self.one_in(20) => u64::MAX,
            _ => self.below(self.revision + 1),
        };
        Range {
            range: self.range(),
            limit: self.one_of(&[0, 0, 0, 1, 2, 3, u64::MAX]),
            revision: Revision(revision),
            sort: self.one_in(3).then(|| self.sort()),
            filter: if self.one_in(4) { self.filter() } else { Filter::default() },
            keys_only: self.one_in(4),
            count_only: self.one_in(4),
            part_bytes_max: None,
        }
    }

    fn sort(&mut self) -> Sort {
        let by = [SortBy::Key, SortBy::Version, SortBy::Create, SortBy::Mod, SortBy::Value];
        Sort { by: self.one_of(&by), order: self.one_of(&[SortOrder::Ascending, SortOrder::Descending]) }
    }

    fn filter(&mut self) -> Filter {
        let mut bound = || Revision(if self.one_in(2) { 0 } else { self.below(self.revision + 2) });
        Filter { mod_min: bound(), mod_max: bound(), create_min: bound(), create_max: bound() }
    }

    /// Mostly a little behind, so that history is left to be read.
    fn compact(&mut self) -> Compact {
        let revision = match self.below(8) {
            0 => self.revision + self.below(2),
            1 => self.below(self.revision + 1),
            _ => self.revision.saturating_sub(self.below(30)),
        };
        Compact { revision: Revision(revision) }
    }

    fn compare(&mut self) -> Compare {
        let operator = self.one_of(&[
            CompareOperator::Equal,
            CompareOperator::NotEqual,
            CompareOperator::Greater,
            CompareOperator::Less,
        ]);
        let target = match self.below(5) {
            0 => CompareTarget::Version(self.one_of(&[0, 1, 1, 2, 3, u64::MAX])),
            1 => CompareTarget::Create(Revision(self.below(self.revision + 1))),
            2 => CompareTarget::Mod(Revision(self.below(self.revision + 1))),
            3 => CompareTarget::Value(self.value()),
            _ => CompareTarget::Lease(LeaseId(self.below(4))),
        };
        Compare { range: self.range(), operator, target }
    }

    /// `levels`: how deep transactions may be nested in it.
    fn operation(&mut self, levels: u64) -> Operation {
        match self.below(7) {
            0..3 => Operation::Put(self.put()),
            3 => Operation::DeleteRange(self.delete_range()),
            4 if levels > 0 => Operation::Txn(self.txn(levels - 1)),
            _ => Operation::Range(self.read()),
        }
    }

    fn count(&mut self, usual: u64) -> u64 {
        if self.one_in(300) { TXN_OPERATIONS_MAX as u64 + self.below(2) } else { self.below(usual) }
    }

    fn txn(&mut self, levels: u64) -> Txn {
        Txn {
            compares: (0..self.count(3)).map(|_| self.compare()).collect(),
            success: (0..self.count(4)).map(|_| self.operation(levels)).collect(),
            failure: (0..self.count(4)).map(|_| self.operation(levels)).collect(),
        }
    }

    /// A transaction in a transaction in a transaction, about as deep as they may be.
    fn chain(&mut self) -> Txn {
        let levels = TXN_DEPTH_MAX as u64 - 3 + self.below(5);
        let innermost =
            Txn { success: (0..self.below(3)).map(|_| self.operation(0)).collect(), ..Txn::default() };
        (1..levels).fold(innermost, |nested, _| Txn {
            success: vec![Operation::Txn(nested)],
            failure: vec![Operation::Put(self.put())],
            ..Txn::default()
        })
    }

    /// Over three ids, so that they are granted, ended and granted again.
    fn lease(&mut self) -> LeaseCommand {
        let lease = LeaseId(1 + self.below(3));
        match self.below(12) {
            0..5 => {
                let ttl_ms = match self.below(20) {
                    0 => 0,
                    1 => LEASE_TTL_MILLIS_MAX + self.below(2),
                    _ => 1 + self.below(1_000),
                };
                LeaseCommand::Grant(Grant { lease, ttl_ms })
            }
            5 => LeaseCommand::Revoke(Revoke { lease }),
            6 => LeaseCommand::Expire(self.life()),
            7..10 => {
                let remaining =
                    |random: &mut Self| Remaining { life: random.life(), remaining_ms: random.below(1_100) };
                LeaseCommand::Checkpoint((0..self.below(3)).map(|_| remaining(self)).collect())
            }
            _ => LeaseCommand::Renew(self.life()),
        }
    }

    fn life(&mut self) -> LeaseLife {
        LeaseLife { lease: LeaseId(1 + self.below(3)), grant: self.below(8) }
    }

    /// Few are raised by hand, and soon called off.
    fn alarm(&mut self) -> SpaceAlarm {
        let by_hand = self.one_in(3).then(|| self.below(ALARM_NUMBERS));
        SpaceAlarm { by_hand, is_raised: self.one_in(if by_hand.is_some() { 8 } else { 4 }) }
    }

    pub(crate) fn command(&mut self) -> Command {
        match self.below(68) {
            // Mostly called off, so that there is life between the alarms.
            66..68 => Command::SpaceAlarm(self.alarm()),
            60..66 => Command::Lease(self.lease()),
            0..20 => Command::Put(self.put()),
            20..30 => Command::DeleteRange(self.delete_range()),
            30 => Command::Compact(self.compact()),
            31 if self.one_in(10) => Command::Txn(self.chain()),
            _ => Command::Txn(self.txn(3)),
        }
    }

    pub(crate) fn query(&mut self) -> Query {
        if self.one_in(4) {
            let mut txn = self.txn(3);
            if !self.one_in(4) {
                retain_reads(&mut txn);
            }
            return Query::Txn(txn);
        }
        if self.one_in(10) {
            return Query::Leases;
        }
        Query::Range(self.read())
    }
}

fn retain_reads(txn: &mut Txn) {
    for list in [&mut txn.success, &mut txn.failure] {
        list.retain_mut(|operation| match operation {
            Operation::Range(_) => true,
            Operation::Put(_) | Operation::DeleteRange(_) => false,
            Operation::Txn(nested) => {
                retain_reads(nested);
                true
            }
        });
    }
}

/// Every change from a revision on, and a check that each is at the moment it says.
fn events(store: &Store, from: u64) -> Result<Vec<Event>, CompactedTo> {
    let mut next = Moment { revision: Revision(from), order: 0 };
    let mut events = Vec::new();
    for (made, changed) in store.changes_from(next)? {
        assert!(made >= next, "changes come in the order in which they were made");
        let is_last = made.order + 1 == store.changes_count(made.revision);
        next = if is_last {
            Moment { revision: made.revision.next(), order: 0 }
        } else {
            Moment { order: made.order + 1, ..made }
        };
        events.push(changed.to_event(true));
    }
    Ok(events)
}

/// Runs a seed against the store and the model; the text of the first difference, if any.
fn difference(seed: u64) -> Option<String> {
    let mut random = Random::new(seed);
    let mut store = Store::new();
    let mut model = Model::default();
    for step in 0..STEPS {
        let command = random.command();
        let (answer, expected) = (store.apply(&command), model.apply(&command));
        if answer != expected {
            return Some(format!(
                "seed {seed} step {step}: {command:?}\nstore {answer:?}\nmodel {expected:?}"
            ));
        }
        random.revision = store.revision().0;
        let remaining: Vec<_> =
            store.leases().map(|(id, lease)| (id, lease.ttl_ms, lease.remaining_ms)).collect();
        if remaining != model.remaining() {
            return Some(format!(
                "seed {seed} step {step}: {command:?}\nstore {remaining:?}\nmodel {model:?}"
            ));
        }
        if random.one_in(30) {
            store.assert_all_invariants();
            store.forget_some();
        }
        let query = random.query();
        let (answer, expected) = (store.query(&query), model.query(&query));
        if answer != expected {
            return Some(format!("seed {seed} step {step}: {query:?}\nstore {answer:?}\nmodel {expected:?}"));
        }
        let from = random.below(random.revision + 3);
        let (told, expected) = (events(&store, from), model.events(from));
        if told != expected {
            return Some(format!("seed {seed} step {step}: from {from}\nstore {told:?}\nmodel {expected:?}"));
        }
    }
    store.assert_all_invariants();
    None
}

#[test]
fn the_store_answers_any_command_and_any_query_as_its_model_does() {
    let seeds = property::hold(SEEDS, |seed| {
        let difference = difference(seed);
        assert!(difference.is_none(), "{}", difference.unwrap_or_default());
    });
    // Each step is a command, a query and a history told.
    println!(
        "{} operations: {} commands and as many queries and histories",
        3 * seeds * STEPS,
        seeds * STEPS
    );
}

#[test]
fn every_revision_of_a_long_life_stays_readable_until_it_is_compacted() {
    let mut random = Random::new(7);
    let mut store = Store::new();
    let everything = |revision| Query::Range(Range { revision, ..Range::new(KeyRange::From(Bytes::new())) });
    let mut seen = vec![(store.revision(), store.query(&everything(Revision(0))).outcome)];
    for step in 0..1_000 {
        let command = random.command();
        // Compactions come in the second half only, so that in the first a long history grows.
        if step < 500 && matches!(command, Command::Compact(_)) {
            continue;
        }
        let applied = store.apply(&command);
        random.revision = applied.revision.0;
        if seen.last().is_some_and(|(revision, _)| *revision != applied.revision) {
            seen.push((applied.revision, store.query(&everything(Revision(0))).outcome));
        }
        for (revision, then) in seen.iter().filter(|_| step % 20 == 0) {
            let is_gone = store.compacted().is_some_and(|compacted| *revision < compacted);
            let now = store.query(&everything(*revision)).outcome;
            let expected = if is_gone { &Outcome::Refused(StoreRefusal::Compacted) } else { then };
            assert_eq!(now, *expected, "revision {revision} reads as it did, or not at all");
        }
    }
    assert!(store.compacted().is_some_and(|compacted| compacted > Revision(100)), "much was compacted");
}

#[test]
fn what_was_compacted_is_freed_whatever_the_slices_and_no_answer_tells() {
    let mut store = Store::new();
    let key = |number: u64| Bytes::from(format!("key {}", number % 100));
    for number in 0..10_000 {
        store.apply(&Command::Put(Put::new(key(number), Bytes::from_static(b"value"))));
    }
    for number in 0..50 {
        store.apply(&Command::DeleteRange(DeleteRange {
            range: KeyRange::Key(key(number)),
            wants_previous: false,
        }));
    }
    assert_eq!(store.version_count(), 10_050, "nothing is forgotten without a compaction");
    let mut untouched = store.clone();
    store.apply(&Command::Compact(Compact { revision: store.revision() }));
    untouched.apply(&Command::Compact(Compact { revision: untouched.revision() }));
    let everything = Query::Range(Range::new(KeyRange::From(Bytes::new())));
    let answer = store.query(&everything);
    let mut slices = 0;
    while store.forget_some() {
        store.assert_all_invariants();
        assert_eq!(store.query(&everything), answer, "no answer depends on the slices");
        assert_eq!(store.state_hash(), untouched.state_hash(), "and no hash does");
        slices += 1;
    }
    store.assert_all_invariants();
    assert!(slices > 5, "it took several slices, not {slices}");
    // The last deletion is of the compacted revision itself, and so a watch may still be told of it.
    assert_eq!(store.version_count(), 50 + 1, "every live key keeps one version, and a deleted one none");
}

#[test]
fn equal_commands_from_equal_states_give_equal_hashes_and_a_refusal_gives_the_old_one() {
    property::hold(SEEDS, |seed| {
        let mut random = Random::new(seed);
        let (mut one, mut other) = (Store::new(), Store::new());
        for _ in 0..STEPS {
            let command = random.command();
            let leases = |store: &Store| -> Vec<_> {
                let all = store.leases().map(|(id, lease)| (id, lease.grant, lease.remaining_ms));
                all.collect()
            };
            let (before, leases_before) =
                ((one.revision(), one.compacted(), one.state_hash()), (leases(&one), one.alarms.clone()));
            let answer = one.apply(&command);
            assert_eq!(answer, other.apply(&command), "equal stores answer alike");
            assert_eq!(one.state_hash(), other.state_hash(), "equal stores have equal hashes");
            // One member has time for more than the other, which must not show.
            one.forget_some();
            let has_changed = (one.revision(), one.compacted()) != (before.0, before.1)
                || (leases(&one), one.alarms.clone()) != leases_before;
            // What is written down of a lease may be what was known: then the hash changes and nothing else.
            let may_repeat =
                matches!(&command, Command::Lease(LeaseCommand::Checkpoint(_) | LeaseCommand::Renew(_)));
            let is_hash_changed = one.state_hash() != before.2;
            assert!(
                has_changed == is_hash_changed || may_repeat && is_hash_changed,
                "the hash changes with revisions, compactions and leases"
            );
            assert!(
                !has_changed || !matches!(answer.outcome, Outcome::Refused(_)),
                "a refusal changes nothing"
            );
            random.revision = one.revision().0;
        }
    });
}

#[test]
fn what_the_static_check_refuses_apply_refuses_alike() {
    property::hold(50, |seed| {
        let mut random = Random::new(seed);
        let mut store = Store::new();
        for _ in 0..STEPS {
            let command = random.command();
            let checked = check(&command);
            let outcome = store.apply(&command).outcome;
            if let Err(refusal) = checked {
                assert_eq!(outcome, Outcome::Refused(refusal), "apply runs the same check");
            }
        }
    });
}

#[cfg(feature = "planted")]
#[test]
fn the_model_finds_every_planted_bug_of_the_store() {
    for bug in [101, 102, 103, 104, 110, 111, 120, 121, 374] {
        crate::planted::switch_on(bug);
        let found = (0..SEEDS).any(|seed| {
            // A planted bug may also trip an invariant, which is being found, too.
            std::panic::catch_unwind(|| difference(seed)).map_or(true, |difference| difference.is_some())
        });
        crate::planted::switch_on(0);
        assert!(found, "bug {bug} is found");
    }
}
