//! Each of the nine properties, broken by hand.

use super::{Heard, Leg, Replay};
use crate::check::{CommittedWrite, WriteId};
use crate::ids::{Revision, SessionId};
use crate::kv::{Command, Compact, DeleteRange, Event, KeyRange, Operation, Put, Txn};
use crate::watch::{Batch, Interest, WatchSpec};
use bytes::Bytes;

/// Revisions: 2 a=1, 3 b=1, 4 a=2 and b=2, 5 a deleted, 6 a=3.
fn replay() -> Replay {
    let put = |key: &'static str, value: &'static str| Put::new(key.into(), value.into());
    let both = vec![Operation::Put(put("a", "2")), Operation::Put(put("b", "2"))];
    let commands = [
        Command::Put(put("a", "1")),
        Command::Put(put("b", "1")),
        Command::Txn(Txn { success: both, ..Txn::default() }),
        Command::DeleteRange(DeleteRange { range: KeyRange::Key("a".into()), wants_previous: false }),
        Command::Put(put("a", "3")),
    ];
    let order = (1..).zip(commands).map(|(sequence, command)| {
        let write = WriteId { session: SessionId(1), sequence };
        CommittedWrite { write, command }
    });
    Replay::of(&order.collect::<Vec<_>>())
}

fn spec(start: u64) -> WatchSpec {
    let interest = Interest { wants_previous: true, ..Interest::all(KeyRange::From(Bytes::new())) };
    WatchSpec { interest, start: Revision(start), wants_progress: false }
}

/// A batch of the events of some revisions, as the log has them.
fn batch(replay: &Replay, upto: u64, revisions: &[u64]) -> Batch {
    let all = replay.events.iter().filter(|event| revisions.contains(&event.pair.mod_revision.0));
    Batch { revision: Revision(upto), is_partial: false, events: all.cloned().collect() }
}

/// A leg from revision 2 on, told these batches.
fn leg(batches: Vec<Batch>) -> Leg {
    let heard = batches.into_iter().map(Heard::Told).collect();
    Leg { spec: spec(2), floor: Revision(1), created: Some(Revision(6)), heard }
}

fn broken(replay: &Replay, way: &[Leg]) -> &'static str {
    replay.check(way).expect_err("something is wrong").property
}

#[test]
fn what_the_log_says_is_what_is_owed() {
    let replay = replay();
    assert_eq!(replay.newest(), Revision(6));
    let way = [leg(vec![batch(&replay, 3, &[2, 3]), batch(&replay, 4, &[4]), batch(&replay, 6, &[5, 6])])];
    assert_eq!(replay.check(&way), Ok(()));
    let mut parts = batch(&replay, 3, &[4]);
    let last = parts.events.split_off(1);
    parts.is_partial = true;
    let rest = Batch { revision: Revision(4), is_partial: false, events: last };
    let way = [leg(vec![batch(&replay, 3, &[2, 3]), parts.clone(), rest])];
    assert_eq!(replay.check(&way), Ok(()), "a revision in two parts");
    let goes_on = Leg { spec: spec(4), ..leg(vec![batch(&replay, 6, &[4, 5, 6])]) };
    let way = [leg(vec![batch(&replay, 3, &[2, 3]), parts]), goes_on];
    assert_eq!(replay.check(&way), Ok(()), "a part that its connection did not survive");
}

#[test]
fn events_out_of_order_are_found() {
    let replay = replay();
    assert_eq!(broken(&replay, &[leg(vec![batch(&replay, 3, &[3]), batch(&replay, 3, &[2])])]), "ordered");
    let mut swapped = batch(&replay, 4, &[4]);
    swapped.events.reverse();
    assert_eq!(broken(&replay, &[leg(vec![batch(&replay, 3, &[2, 3]), swapped])]), "ordered");
}

#[test]
fn an_event_that_comes_twice_is_found_also_on_another_leg() {
    let replay = replay();
    let first = leg(vec![batch(&replay, 3, &[2, 3])]);
    let again = Leg { spec: spec(3), ..leg(vec![batch(&replay, 4, &[3, 4])]) };
    assert_eq!(broken(&replay, &[first, again]), "unique");
}

#[test]
fn half_of_a_revision_is_found() {
    let replay = replay();
    let mut half = batch(&replay, 4, &[2, 3, 4]);
    half.events.pop();
    assert_eq!(broken(&replay, &[leg(vec![half])]), "atomic");
}

#[test]
fn an_event_that_is_left_out_is_found() {
    let replay = replay();
    assert_eq!(broken(&replay, &[leg(vec![batch(&replay, 6, &[2, 3, 4, 6])])]), "reliable");
    assert_eq!(broken(&replay, &[leg(vec![batch(&replay, 6, &[2, 3, 4])])]), "reliable");
    let mut progress = leg(vec![batch(&replay, 4, &[2, 3, 4])]);
    progress.heard.push(Heard::Reached(Revision(5)));
    assert_eq!(broken(&replay, &[progress]), "reliable");
}

#[test]
fn a_leg_that_begins_elsewhere_than_asked_is_found() {
    let replay = replay();
    let early = Leg { spec: spec(4), ..leg(vec![batch(&replay, 6, &[3, 4, 5, 6])]) };
    assert_eq!(broken(&replay, &[early]), "resumable");
    let late = Leg { spec: spec(3), ..leg(vec![batch(&replay, 6, &[4, 5, 6])]) };
    assert_eq!(broken(&replay, &[late]), "reliable");
    let stale = Leg { floor: Revision(5), created: Some(Revision(4)), spec: spec(0), ..leg(Vec::new()) };
    assert_eq!(broken(&replay, &[stale]), "resumable");
}

#[test]
fn a_watch_that_ends_without_a_compaction_is_found() {
    let mut replay = replay();
    let mut way = leg(Vec::new());
    way.heard.push(Heard::Ended(Revision(4)));
    assert_eq!(broken(&replay, std::slice::from_ref(&way)), "resumable");
    replay.compact(Revision(4));
    assert_eq!(replay.check(std::slice::from_ref(&way)), Ok(()));
    way.spec.start = Revision(4);
    assert_eq!(broken(&replay, &[way]), "resumable");
}

#[test]
fn an_event_behind_its_bookmark_is_found() {
    let replay = replay();
    let way = leg(vec![batch(&replay, 4, &[2, 3]), batch(&replay, 4, &[4])]);
    assert_eq!(broken(&replay, &[way]), "bookmarkable");
    let way = leg(vec![batch(&replay, 6, &[2, 3, 4, 5, 6]), batch(&replay, 7, &[])]);
    assert_eq!(broken(&replay, &[way]), "bookmarkable");
}

#[test]
fn a_wrong_pair_before_is_found() {
    let mut replay = replay();
    let with = |previous| {
        let mut batch = batch(&replay, 5, &[2, 3, 4, 5]);
        let last: &mut Event = batch.events.last_mut().expect("there are events");
        last.previous = previous;
        leg(vec![batch])
    };
    let other = replay.events[0].pair.clone();
    let (wrong, none) = (with(Some(other)), with(None));
    assert_eq!(broken(&replay, &[wrong]), "told what was before");
    assert_eq!(broken(&replay, std::slice::from_ref(&none)), "told what was before");
    let mut unasked = leg(vec![batch(&replay, 5, &[2, 3, 4, 5])]);
    unasked.spec.interest.wants_previous = false;
    assert_eq!(broken(&replay, &[unasked]), "told what was before");
    replay.compact(Revision(5));
    assert_eq!(replay.check(&[none]), Ok(()), "what is compacted may be left out");
}

#[test]
fn an_event_that_nobody_asked_for_is_found() {
    let replay = replay();
    let mut way = leg(vec![batch(&replay, 3, &[2, 3])]);
    way.spec.interest.range = KeyRange::Key("a".into());
    assert_eq!(broken(&replay, std::slice::from_ref(&way)), "filtered");
    way.spec.interest = Interest { skips_puts: true, ..Interest::all(KeyRange::From(Bytes::new())) };
    assert_eq!(broken(&replay, &[way]), "filtered");
}

#[test]
fn a_creation_told_as_a_change_is_found() {
    let replay = replay();
    let mut told = batch(&replay, 6, &[2, 3, 4, 5, 6]);
    let last = told.events.last_mut().expect("there are events");
    last.pair.create_revision = Revision(2);
    assert_eq!(broken(&replay, &[leg(vec![told])]), "true");
}

#[test]
fn a_compaction_in_the_log_is_seen_and_second_copies_are_not() {
    let write = |sequence, command| {
        let write = WriteId { session: SessionId(1), sequence };
        CommittedWrite { write, command }
    };
    let put = Command::Put(Put::new("a".into(), "1".into()));
    let compact = Command::Compact(Compact { revision: Revision(2) });
    let replay = Replay::of(&[write(1, put.clone()), write(1, put), write(2, compact)]);
    assert_eq!((replay.newest(), replay.compacted, replay.events.len()), (Revision(2), Revision(2), 1));
}
