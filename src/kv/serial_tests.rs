//! A store, told in slices while it goes on to change, comes back as it was.

use super::history::Moment;
use super::properties::Random;
use super::*;
use crate::ids::Revision;
use crate::property;
use bytes::{Bytes, BytesMut};
use core::ops::Bound;
use std::sync::Arc;

const SEEDS: u64 = 150;

/// All slices of a cut, and between any two of them `meanwhile`.
fn told(store: &mut Store, bytes_max: usize, mut meanwhile: impl FnMut(&mut Store)) -> Vec<Vec<u8>> {
    let mut cut = store.cut();
    let mut slices = Vec::new();
    loop {
        let mut slice = BytesMut::new();
        if !cut.slice(store, bytes_max, 7, &mut slice) {
            break;
        }
        slices.push(slice.to_vec());
        meanwhile(store);
    }
    store.release();
    slices
}

fn restored(slices: &[Vec<u8>]) -> Result<Store, Malformed> {
    restored_over(slices, None)
}

fn restored_over(slices: &[Vec<u8>], before: Option<&Store>) -> Result<Store, Malformed> {
    let mut restorer = Restorer::new(9);
    for slice in slices {
        restorer.slice(slice, before)?;
    }
    restorer.finish()
}

/// Everything anybody can ask of a store.
fn answers(store: &Store) -> impl PartialEq + core::fmt::Debug + use<> {
    let everything = |revision| {
        let range = Range { revision: Revision(revision), ..Range::new(KeyRange::From(Bytes::new())) };
        store.query(&Query::Range(range))
    };
    let reads: Vec<_> = (0..=store.revision().0 + 1).map(everything).collect();
    let told = |from| {
        let changes = store.changes_from(Moment { revision: Revision(from), order: 0 })?;
        Ok::<_, CompactedTo>(changes.map(|(made, it)| (made, it.to_event(true))).collect::<Vec<_>>())
    };
    let events: Vec<_> = (0..=store.revision().0 + 1).map(told).collect();
    let lease = |(id, lease): (_, &Lease)| {
        (id, lease.grant, lease.ttl_ms, lease.remaining_ms, lease.keys().cloned().collect::<Vec<_>>())
    };
    let leases: Vec<_> = store.leases().map(lease).collect();
    let numbers =
        (store.state_hash(), store.revision(), store.compacted(), store.alarms.clone(), store.key_count());
    (reads, events, leases, numbers)
}

fn step(random: &mut Random, stores: &mut [&mut Store]) {
    let command = random.command();
    for store in stores {
        store.apply(&command);
        random.revision = store.revision().0;
    }
}

#[test]
fn a_store_told_while_it_changes_comes_back_as_it_was_when_it_was_cut() {
    property::hold(SEEDS, |seed| {
        let mut random = Random::new(seed);
        let (mut store, mut twin) = (Store::new(), Store::new());
        for _ in 0..random.below(300) {
            step(&mut random, &mut [&mut store, &mut twin]);
        }
        // The other one has come further in forgetting, which must not show.
        while twin.forget_some() {}
        let then = store.clone();
        let bytes_max = [1, 40, 300, 5_000][usize::try_from(seed % 4).expect("it is below 4")];
        let slices = told(&mut store, bytes_max, |store| {
            for _ in 0..random.below(4) {
                step(&mut random, &mut [&mut *store]);
            }
            store.forget_some();
            store.assert_all_invariants();
        });
        while store.forget_some() {}
        store.assert_all_invariants();
        let mut again = restored(&slices).expect("what was told is a store");
        again.assert_all_invariants();
        assert_eq!(answers(&again), answers(&then), "it answers as the one that was cut");
        let once_more = told(&mut again, usize::MAX, |_| {});
        assert_eq!(once_more.concat(), slices.concat(), "it is told in the same bytes");
        assert_eq!(told(&mut twin, usize::MAX, |_| {}).concat(), slices.concat(), "and so is its twin");
        // It goes on as its twin does.
        random.revision = again.revision().0;
        for _ in 0..100 {
            let command = random.command();
            assert_eq!(again.apply(&command), twin.apply(&command), "it goes on as its twin does");
            random.revision = again.revision().0;
            again.forget_some();
        }
        again.assert_all_invariants();
        assert_eq!(answers(&again), answers(&twin));
    });
}

/// The store before is the same at an earlier time, or one with another past; what is alike in both lies in one place.
#[test]
fn whatever_store_one_is_restored_over_it_is_the_same_and_shares_what_is_alike() {
    let mut shared = 0;
    let tried = property::hold(SEEDS, |seed| {
        let mut random = Random::new(seed);
        let (mut store, mut before) = (Store::new(), Store::new());
        let is_kin = seed % 3 > 0;
        for _ in 0..random.below(200) {
            step(&mut random, &mut [&mut before]);
        }
        if is_kin {
            store = before.clone();
        }
        for _ in 0..random.below(200) {
            step(&mut random, &mut [&mut store]);
            store.forget_some();
        }
        let slices = told(&mut store, [40, 5_000][usize::try_from(seed % 2).expect("it is below 2")], |_| {});
        let over = restored_over(&slices, Some(&before)).expect("what was told is a store");
        over.assert_all_invariants();
        assert_eq!(answers(&over), answers(&store));
        for record in over.keys.records_from(Bound::Unbounded) {
            let Some(twin) = before.keys.record(record.key()) else { continue };
            assert!(Arc::ptr_eq(record.name(), twin.name()), "a key that both have lies in one place");
            for version in record.history().iter() {
                let pairs = (&version.pair, twin.history().find(version.made).map(|found| &found.pair));
                if let (Some(pair), Some(Some(there))) = pairs
                    && pair.value == there.value
                    && !pair.value.is_empty()
                {
                    assert_eq!(pair.value.as_ptr(), there.value.as_ptr(), "so does a value");
                    shared += 1;
                }
            }
        }
        drop(before);
        assert_eq!(answers(&over), answers(&store), "it stays when the one before goes");
    });
    assert!(shared > 0 || tried < SEEDS, "some are alike");
}

#[test]
fn bytes_that_are_cut_or_changed_are_refused_or_make_a_sound_store() {
    property::hold(3, |seed| {
        let mut random = Random::new(seed);
        let mut store = Store::new();
        for _ in 0..20 {
            step(&mut random, &mut [&mut store]);
        }
        let whole = told(&mut store, usize::MAX, |_| {}).concat();
        for length in 0..whole.len() {
            assert!(restored(&[whole[..length].to_vec()]).is_err(), "seed {seed}: cut at {length}");
        }
        let mut flipped = whole.clone();
        for bit in (0..whole.len()).map(|byte| 8 * byte + usize::try_from(random.below(8)).expect("below 8"))
        {
            flipped[bit / 8] ^= 1 << (bit % 8);
            // A value may have any bytes; the checksums around it are the file's.
            if let Ok(store) = restored(core::slice::from_ref(&flipped)) {
                store.assert_all_invariants();
            }
            flipped[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(restored(&[whole.clone(), whole]).is_err(), "there is one store in a snapshot");
    });
}

#[test]
fn the_bytes_of_a_store_are_these() {
    let mut store = Store::new();
    let put = |key: &'static str, value: &'static str| {
        Command::Put(Put::new(Bytes::from_static(key.as_bytes()), Bytes::from_static(value.as_bytes())))
    };
    store.apply(&put("a", "one"));
    store.apply(&put("b", "two"));
    store.apply(&Command::Compact(Compact { revision: Revision(3) }));
    store.apply(&put("a", "three"));
    store.apply(&Command::Lease(LeaseCommand::Grant(Grant { lease: crate::ids::LeaseId(7), ttl_ms: 900 })));
    store.apply(&Command::SpaceAlarm(SpaceAlarm { by_hand: Some(9), is_raised: true }));
    let hash = store.state_hash().to_le_bytes();
    let mut expected = vec![1, 2, 4, 0, 0, 0, 0, 0, 0, 0, 1, 3, 0, 0, 0, 0, 0, 0, 0];
    expected.extend(hash);
    expected.extend([0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 9, 0, 0, 0, 0, 0, 0, 0]);
    let number = |number: u64| number.to_le_bytes();
    expected.push(2);
    expected.extend([7, 1, 900, 900].map(number).as_flattened());
    expected.extend(*b"\x03\x01\0\0\0a\x04");
    expected.extend([2, 0, 2, 1, 0].map(number).as_flattened());
    expected.extend(*b"\x03\0\0\0one\x04");
    expected.extend([4, 0, 2, 2, 0].map(number).as_flattened());
    expected.extend(*b"\x05\0\0\0three\x03\x01\0\0\0b\x04");
    expected.extend([3, 0, 3, 1, 0].map(number).as_flattened());
    expected.extend(*b"\x03\0\0\0two\x06");
    expected.extend([2, 3].map(number).as_flattened());
    assert_eq!(told(&mut store, usize::MAX, |_| {}).concat(), expected);
}

/// A member of the build before, which knows version 1 only, has to be able to take it.
#[test]
fn a_store_without_alarms_raised_by_hand_is_told_as_version_1() {
    let mut store = Store::new();
    store.apply(&Command::SpaceAlarm(SpaceAlarm::by_bytes(true)));
    let bytes = told(&mut store, usize::MAX, |_| {}).concat();
    assert_eq!((bytes[1], bytes[36]), (1, 6), "the end follows the head, and not how many alarms there are");
    let back = restored(&[bytes]).expect("it is a store");
    assert_eq!(answers(&back), answers(&store));
}

#[cfg(feature = "planted")]
#[test]
fn a_planted_cut_that_does_not_hold_forgetting_back_is_found() {
    let told_with_compactions = || {
        let mut random = Random::new(1);
        let mut store = Store::new();
        for _ in 0..200 {
            step(&mut random, &mut [&mut store]);
        }
        let slices = told(&mut store, 40, |store| {
            store.apply(&Command::Compact(Compact { revision: store.revision() }));
            while store.forget_some() {}
        });
        slices.concat()
    };
    let sound = told_with_compactions();
    crate::planted::switch_on(154);
    let found = std::panic::catch_unwind(told_with_compactions).map_or(true, |planted| planted != sound);
    crate::planted::switch_on(0);
    assert!(found);
}
