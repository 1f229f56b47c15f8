//! Where each watch stands, and what it is told next.
//!
//! A watch is in one of four stages: it *keeps up* (it was told everything up to `upto`, and is told of what comes with
//! all others of its interest), is *behind* (it was told everything before a moment, and has room to be told more), has
//! *no room* (the same, and it has not), or is *early* (it begins at a revision that is yet to come).
//!
//! Always: `advance` comes before `catch_up` in a turn, and before a compaction is applied, so that who keeps up is
//! told of what came since the last turn although the compaction puts it out of reach. Work and bytes of one
//! `catch_up` are bounded; what is left is done in the next turn, others first.

use super::batch::{Gathered, gather};
use super::interests::{CrowdId, Interests};
use super::words::{Batch, Ending, Notice, Place, WatchRefusal, WatchSpec};
use crate::ids::{BootMicros, Revision, StreamId, Ticket, WatchId};
use crate::kv::{Changed, CompactedTo, Moment, Store};
use crate::limits::{
    STREAM_WATCHES_MAX, WATCH_BATCH_BYTES_MAX, WATCH_CHANGES_PER_TURN_MAX, WATCH_CONCERNS_PER_TURN_MAX,
    WATCH_PROGRESS_MICROS, WATCH_STREAM_BYTES_MAX, WATCH_TOTAL_BYTES_MAX, WATCHES_MAX,
};
use crate::{planted, sometimes};
use core::ops::Bound;
use std::collections::{BTreeMap, BTreeSet};

/// What a hub may hold and do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of one batch; one event is told however long it is.
    pub batch_bytes_max: usize,
    /// Bytes given out to one stream that have not left, before it is given nothing more.
    pub stream_bytes_max: usize,
    /// The same over all streams; beyond it a stream is given more only when everything given to it has left.
    pub total_bytes_max: usize,
    /// Changes looked at in one turn for watches that are behind.
    pub changes_per_turn_max: usize,
    /// Changes looked at in one turn for watches that keep up, each counted for every interest that it concerns; beyond
    /// that everybody is behind.
    pub concerns_per_turn_max: usize,
    /// Watches of one stream.
    pub stream_watches_max: usize,
    /// Watches of all streams.
    pub watches_max: usize,
    /// How often watches that want it are told how far they are.
    pub progress_micros: u64,
}

impl Bounds {
    /// Those of a server.
    pub const SERVER: Self = Self {
        batch_bytes_max: WATCH_BATCH_BYTES_MAX,
        stream_bytes_max: WATCH_STREAM_BYTES_MAX,
        total_bytes_max: WATCH_TOTAL_BYTES_MAX,
        changes_per_turn_max: WATCH_CHANGES_PER_TURN_MAX,
        concerns_per_turn_max: WATCH_CONCERNS_PER_TURN_MAX,
        stream_watches_max: STREAM_WATCHES_MAX,
        watches_max: WATCHES_MAX,
        progress_micros: WATCH_PROGRESS_MICROS,
    };
}

/// Bytes that a batch costs for each watch that is told it, besides its own.
const NOTICE_BYTES: usize = 64;

/// All watches of one replica.
#[derive(Debug)]
pub struct Hub {
    bounds: Bounds,
    /// Whoever keeps up was told everything up to and with this revision.
    upto: Revision,
    watches: BTreeMap<Place, Watch>,
    streams: BTreeMap<StreamId, Stream>,
    /// Which watches share an interest, and of those the ones that keep up.
    interests: Interests<BTreeSet<Place>>,
    keeping_up_count: usize,
    /// Watches that are behind, by what they want and from where on.
    behind: BTreeMap<(CrowdId, Moment), BTreeSet<Place>>,
    /// Whoever was last told of something it was behind with; the next turn begins after it.
    served_last: Option<(CrowdId, Moment)>,
    /// Watches that begin at a revision yet to come.
    early: BTreeMap<Revision, BTreeSet<Place>>,
    /// Bytes given out that have not left.
    in_flight_bytes: usize,
    progress_wanted_count: usize,
    next_progress: BootMicros,
}

#[derive(Debug)]
struct Watch {
    crowd: CrowdId,
    stage: Stage,
    wants_progress: bool,
    /// Requests for progress, to be answered when it keeps up.
    asked: Vec<Ticket>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    KeepsUp,
    Behind(Moment),
    NoRoom(Moment),
    Early(Revision),
}

#[derive(Debug, Default)]
struct Stream {
    in_flight_bytes: usize,
    watches_count: usize,
    /// Its watches that wait for room.
    waiting: BTreeSet<WatchId>,
}

impl Hub {
    /// A hub without watches, of a store at revision `upto`.
    pub fn new(bounds: Bounds, upto: Revision, now: BootMicros) -> Self {
        Self {
            bounds,
            upto,
            watches: BTreeMap::new(),
            streams: BTreeMap::new(),
            interests: Interests::new(),
            keeping_up_count: 0,
            behind: BTreeMap::new(),
            served_last: None,
            early: BTreeMap::new(),
            in_flight_bytes: 0,
            progress_wanted_count: 0,
            next_progress: now.after(bounds.progress_micros),
        }
    }

    /// How many watches there are.
    pub fn watches_count(&self) -> usize {
        self.watches.len()
    }

    /// Bytes given out that have not left, over all streams.
    pub const fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    /// A new watch, of a store that the hub has just been advanced to. Returns the revision at which the store is: a
    /// watch from now on is told everything after it.
    ///
    /// # Errors
    /// The name is taken, or there are too many watches.
    pub fn create(&mut self, place: Place, spec: &WatchSpec) -> Result<Revision, WatchRefusal> {
        if self.watches.contains_key(&place) {
            return Err(WatchRefusal::NameTaken);
        }
        let on_stream = self.streams.get(&place.stream).map_or(0, |stream| stream.watches_count);
        if self.watches.len() >= self.bounds.watches_max || on_stream >= self.bounds.stream_watches_max {
            return Err(WatchRefusal::TooMany);
        }
        let crowd = self.interests.join(&spec.interest);
        let mut first = Moment { revision: self.upto.next(), order: 0 };
        if spec.start != Revision(0) && !(planted!(376) && spec.start > self.upto) {
            first.revision = spec.start;
        }
        self.streams.entry(place.stream).or_default().watches_count += 1;
        self.progress_wanted_count += usize::from(spec.wants_progress);
        let stage = Stage::Early(first.revision);
        let watch = Watch { crowd, stage, wants_progress: spec.wants_progress, asked: Vec::new() };
        self.watches.insert(place, watch);
        self.enter(place, first, &mut Vec::new());
        if planted!(371) && first.revision <= self.upto {
            self.interests.crowd_mut(crowd).insert(place);
            self.keeping_up_count += 1;
        }
        Ok(self.upto)
    }

    /// A watch is to end. Whether there is one of that name or not, nothing more is told to it.
    pub fn cancel(&mut self, place: Place, notices: &mut Vec<Notice>) {
        let Some(watch) = self.watches.remove(&place) else { return };
        self.leave_stage(place, watch.crowd, watch.stage);
        if planted!(371) {
            self.keeping_up_count -= usize::from(self.interests.crowd_mut(watch.crowd).remove(&place));
        }
        self.interests.leave(watch.crowd);
        self.progress_wanted_count -= usize::from(watch.wants_progress);
        notices.extend(watch.asked.into_iter().map(|ticket| Notice::Gone { ticket }));
        let Some(stream) = self.streams.get_mut(&place.stream) else { return };
        stream.watches_count -= 1;
        if stream.watches_count == 0 && stream.in_flight_bytes == 0 {
            self.streams.remove(&place.stream);
        }
    }

    /// A stream is no more, and no watch of it.
    pub fn close(&mut self, stream: StreamId, notices: &mut Vec<Notice>) {
        let first = Place { stream, watch: WatchId(0) };
        let last = Place { stream, watch: WatchId(u64::MAX) };
        let places: Vec<Place> = self.watches.range(first..=last).map(|(place, _)| *place).collect();
        for place in places {
            self.cancel(place, notices);
        }
        if let Some(stream) = self.streams.remove(&stream) {
            self.in_flight_bytes -= stream.in_flight_bytes;
        }
    }

    /// No stream is served any more.
    pub fn close_all(&mut self, notices: &mut Vec<Notice>) {
        let streams: Vec<StreamId> = self.streams.keys().copied().collect();
        for stream in streams {
            self.close(stream, notices);
        }
    }

    /// All watches end but those that may stay: nothing more is told to them.
    pub fn withdraw(&mut self, may_stay: impl Fn(&Place) -> bool, notices: &mut Vec<Notice>) {
        let gone: Vec<Place> = self.watches.keys().filter(|place| !may_stay(place)).copied().collect();
        for place in gone {
            self.cancel(place, notices);
            notices.push(Notice::Ended { to: place, why: Ending::NotPermitted });
        }
    }

    /// A client asks how far one of its watches is; it is answered as soon as the watch keeps up.
    pub fn ask(&mut self, place: Place, ticket: Ticket, notices: &mut Vec<Notice>) {
        let upto = self.upto;
        match self.watches.get_mut(&place) {
            None => notices.push(Notice::Gone { ticket }),
            Some(watch) if watch.stage == Stage::KeepsUp || planted!(375) => {
                notices.push(Notice::Reached { ticket, revision: upto });
            }
            // It was told everything there is that concerns it: nothing.
            Some(Watch { stage: Stage::Early(_), .. }) => {
                notices.push(Notice::Reached { ticket, revision: upto });
            }
            Some(watch) => watch.asked.push(ticket),
        }
    }

    /// Of all that was given out to a stream, `waiting_bytes` have not left yet.
    pub fn taken(&mut self, stream: StreamId, waiting_bytes: usize, notices: &mut Vec<Notice>) {
        let Some(this) = self.streams.get_mut(&stream) else { return };
        self.in_flight_bytes = self.in_flight_bytes - this.in_flight_bytes + waiting_bytes;
        this.in_flight_bytes = waiting_bytes;
        if this.watches_count == 0 && waiting_bytes == 0 {
            self.streams.remove(&stream);
            return;
        }
        if !self.has_room(stream) {
            return;
        }
        let waiting = self.streams.get_mut(&stream).map(|this| std::mem::take(&mut this.waiting));
        for watch in waiting.unwrap_or_default() {
            let place = Place { stream, watch };
            let Some(&Watch { stage: Stage::NoRoom(mut from), .. }) = self.watches.get(&place) else {
                continue;
            };
            if planted!(372) {
                from.revision = self.upto.next();
            }
            if planted!(373) && from.order == 0 && from.revision > Revision(2) {
                from.revision.0 -= 1;
            }
            self.enter(place, from, notices);
        }
    }

    /// The store has changed: whoever keeps up is told, and goes on doing so if it has room.
    pub fn advance(&mut self, store: &Store, notices: &mut Vec<Notice>) {
        let newest = store.revision();
        if newest == self.upto {
            return;
        }
        let from = Moment { revision: self.upto.next(), order: 0 };
        let upto = std::mem::replace(&mut self.upto, newest);
        if self.keeping_up_count > 0 {
            match store.changes_from(from) {
                Ok(changes) => self.tell_concerned(changes, from, notices),
                // A whole store was put in the place of the one that was watched. Whoever kept up is behind now.
                Err(CompactedTo(_)) => self.fall_behind(upto.next()),
            }
        }
        while let Some(entry) = self.early.first_entry() {
            if *entry.key() > newest.next() {
                break;
            }
            let (revision, places) = entry.remove_entry();
            for place in places {
                sometimes!(WatchFutureReached);
                self.enter(place, Moment { revision, order: 0 }, notices);
            }
        }
    }

    /// Tells whoever is behind, as much as fits in a turn. Whoever can be told no more ends.
    pub fn catch_up(&mut self, store: &Store, notices: &mut Vec<Notice>) {
        let mut changes_left = self.bounds.changes_per_turn_max;
        while changes_left > 0 {
            let after = self.served_last.map_or(Bound::Unbounded, Bound::Excluded);
            let mut others = self.behind.range((after, Bound::Unbounded));
            let next = others.next().or_else(|| self.behind.first_key_value());
            let Some((&(crowd, from), _)) = next else { break };
            self.served_last = Some((crowd, from));
            let places = self.behind.remove(&(crowd, from)).unwrap_or_default();
            let gathered = match store.changes_from(from) {
                Ok(changes) => self.gather(crowd, changes, from, changes_left),
                Err(CompactedTo(compacted)) => {
                    self.end(crowd, places, compacted, notices);
                    continue;
                }
            };
            changes_left = changes_left.saturating_sub(gathered.looked_at.max(1));
            sometimes!(WatchCaughtUpFromHistory);
            self.tell(places, from, gathered, notices);
        }
    }

    /// Whether there is something that `catch_up` would do.
    pub fn has_work(&self) -> bool {
        !self.behind.is_empty()
    }

    /// Tells those who want it how far they are, when it is time to. Only who keeps up can be told.
    pub fn tell_progress(&mut self, now: BootMicros, notices: &mut Vec<Notice>) {
        if now < self.next_progress {
            return;
        }
        self.next_progress = now.after(self.bounds.progress_micros);
        if self.progress_wanted_count == 0 {
            return;
        }
        let is_due = |watch: &Watch| watch.wants_progress && (watch.stage == Stage::KeepsUp || planted!(375));
        let due = self.watches.iter().filter(|(_, watch)| is_due(watch));
        let to: Vec<Place> =
            due.map(|(place, _)| *place).filter(|place| self.has_room(place.stream)).collect();
        if !to.is_empty() {
            sometimes!(WatchToldProgress);
            for place in &to {
                self.give_out(place.stream, NOTICE_BYTES);
            }
            let batch = Batch { revision: self.upto, is_partial: false, events: Vec::new() };
            notices.push(Notice::Told { to, batch });
        }
    }

    /// When progress is to be told next; never, if nobody wants it.
    pub const fn deadline(&self) -> BootMicros {
        if self.progress_wanted_count == 0 { BootMicros(u64::MAX) } else { self.next_progress }
    }

    /// What holds between two calls.
    pub fn assert_invariants(&self) {
        assert!(self.keeping_up_count <= self.watches.len() || planted!(371), "only watches keep up");
        assert!(self.watches.len() <= self.bounds.watches_max, "watches are bounded");
    }

    /// What holds between two calls and takes a walk over all watches: for tests and the simulator.
    pub fn assert_all_invariants(&self) {
        self.assert_invariants();
        let listed = |lists: usize, stage: usize, fact: &str| assert_eq!(lists, stage, "{fact}");
        let in_stage =
            |is_it: fn(&Stage) -> bool| self.watches.values().filter(|it| is_it(&it.stage)).count();
        let keeping_up = in_stage(|stage| *stage == Stage::KeepsUp);
        listed(self.keeping_up_count, keeping_up, "the count of those who keep up is right");
        let behind = in_stage(|stage| matches!(stage, Stage::Behind(_)));
        listed(self.behind.values().map(BTreeSet::len).sum(), behind, "whoever is behind is on the list");
        let early = in_stage(|stage| matches!(stage, Stage::Early(_)));
        listed(self.early.values().map(BTreeSet::len).sum(), early, "whoever is early is on the list");
        let waiting = in_stage(|stage| matches!(stage, Stage::NoRoom(_)));
        let lists = self.streams.values().map(|stream| stream.waiting.len()).sum();
        listed(lists, waiting, "whoever waits for room is on the list");
        let bytes: usize = self.streams.values().map(|stream| stream.in_flight_bytes).sum();
        assert_eq!(bytes, self.in_flight_bytes, "the sum of what is in flight is right");
        for (place, watch) in &self.watches {
            match watch.stage {
                Stage::KeepsUp => {
                    assert!(
                        self.interests.crowd(watch.crowd).contains(place),
                        "who keeps up is in its crowd"
                    );
                    assert!(watch.asked.is_empty(), "who keeps up has been told so");
                }
                Stage::Behind(from) | Stage::NoRoom(from) => {
                    assert!(from.revision <= self.upto, "whoever is behind has something to be told");
                }
                Stage::Early(start) => assert!(start > self.upto.next(), "what has come is not early"),
            }
        }
    }

    /// These watches end: what they would be told next is not known any more.
    fn end(
        &mut self,
        crowd: CrowdId,
        places: BTreeSet<Place>,
        compacted: Revision,
        notices: &mut Vec<Notice>,
    ) {
        for place in places {
            sometimes!(WatchEndedByCompaction);
            assert_eq!(
                self.watches.get(&place).map(|watch| watch.crowd),
                Some(crowd),
                "a list holds its own"
            );
            self.cancel(place, notices);
            notices.push(Notice::Ended { to: place, why: Ending::Compacted(compacted) });
        }
    }

    /// Each change concerns some crowds, and each crowd is told of all its changes together.
    fn tell_concerned<'store>(
        &mut self,
        changes: impl Iterator<Item = (Moment, Changed<'store>)>,
        from: Moment,
        notices: &mut Vec<Notice>,
    ) {
        let mut concerned: BTreeMap<CrowdId, Vec<(Moment, Changed<'store>)>> = BTreeMap::new();
        let mut count = 0;
        for (made, changed) in changes {
            self.interests.concerned(changed.key(), |crowd, keeping_up| {
                if !keeping_up.is_empty() {
                    concerned.entry(crowd).or_default().push((made, changed));
                    count += 1;
                }
            });
            if count > self.bounds.concerns_per_turn_max {
                sometimes!(WatchesFellBehindTogether);
                self.fall_behind(from.revision);
                return;
            }
        }
        for (crowd, changes) in concerned {
            let gathered = self.gather(crowd, changes.into_iter(), from, usize::MAX);
            if gathered.batch.events.is_empty() {
                continue;
            }
            if gathered.next.revision > self.upto {
                self.tell_crowd(crowd, from, gathered, notices);
            } else {
                let places = std::mem::take(self.interests.crowd_mut(crowd));
                self.keeping_up_count -= places.len();
                self.tell(places, from, gathered, notices);
            }
        }
    }

    /// Gives a batch to those of a crowd that keep up, and they go on doing so. Whoever has no room was told everything
    /// before `from`, and waits.
    fn tell_crowd(&mut self, crowd: CrowdId, from: Moment, gathered: Gathered, notices: &mut Vec<Notice>) {
        let places = self.interests.crowd(crowd).iter().copied().collect::<Vec<_>>();
        let bytes = gathered.bytes + NOTICE_BYTES;
        let (to, without_room): (Vec<Place>, Vec<Place>) =
            places.into_iter().partition(|place| self.give_out_if_room(place.stream, bytes));
        for place in without_room {
            sometimes!(WatchWithoutRoom);
            self.leave_stage(place, crowd, Stage::KeepsUp);
            self.enter(place, from, notices);
        }
        if !to.is_empty() {
            notices.push(Notice::Told { to, batch: gathered.batch });
        }
    }

    fn gather<'store>(
        &self,
        crowd: CrowdId,
        changes: impl Iterator<Item = (Moment, Changed<'store>)>,
        from: Moment,
        changes_max: usize,
    ) -> Gathered {
        let interest = self.interests.interest(crowd);
        gather(interest, changes, (from, self.upto), self.bounds.batch_bytes_max, changes_max)
    }

    /// Gives a batch to those of `places` that have room. They were told everything before `from`, and go on where the
    /// batch ends; the others wait.
    fn tell(&mut self, places: BTreeSet<Place>, from: Moment, gathered: Gathered, notices: &mut Vec<Notice>) {
        let Gathered { batch, bytes, next, .. } = gathered;
        // Whoever was told a part of a revision is told where it ends, even if nothing more of it concerns him.
        let is_silent = batch.events.is_empty() && (from.order == 0 || next.revision == from.revision);
        let mut to = Vec::with_capacity(places.len());
        let mut told = Vec::new();
        for place in places {
            if is_silent || self.give_out_if_room(place.stream, bytes + NOTICE_BYTES) {
                if next.revision <= self.upto {
                    sometimes!(WatchBatchCut);
                }
                self.enter(place, next, &mut told);
                to.push(place);
            } else {
                sometimes!(WatchWithoutRoom);
                self.enter(place, from, &mut told);
            }
        }
        if !is_silent && !to.is_empty() {
            notices.push(Notice::Told { to, batch });
        }
        notices.append(&mut told);
    }

    /// Puts a watch where it belongs that was told everything before `from`.
    fn enter(&mut self, place: Place, from: Moment, notices: &mut Vec<Notice>) {
        let has_room = self.has_room(place.stream);
        let (upto, next) = (self.upto, self.upto.next());
        let Some(watch) = self.watches.get_mut(&place) else { return };
        let crowd = watch.crowd;
        watch.stage = if from.revision > next {
            self.early.entry(from.revision).or_default().insert(place);
            Stage::Early(from.revision)
        } else if from.revision == next {
            self.keeping_up_count += usize::from(self.interests.crowd_mut(crowd).insert(place));
            let asked = watch.asked.drain(..);
            notices.extend(asked.map(|ticket| Notice::Reached { ticket, revision: upto }));
            Stage::KeepsUp
        } else if has_room {
            self.behind.entry((crowd, from)).or_default().insert(place);
            Stage::Behind(from)
        } else {
            if let Some(stream) = self.streams.get_mut(&place.stream) {
                stream.waiting.insert(place.watch);
            }
            Stage::NoRoom(from)
        };
    }

    /// Takes a watch off whatever list it is on.
    fn leave_stage(&mut self, place: Place, crowd: CrowdId, stage: Stage) {
        match stage {
            Stage::KeepsUp => {
                self.keeping_up_count -= usize::from(self.interests.crowd_mut(crowd).remove(&place));
            }
            Stage::Behind(from) => remove_from(&mut self.behind, &(crowd, from), place),
            Stage::Early(start) => remove_from(&mut self.early, &start, place),
            Stage::NoRoom(_) => {
                if let Some(stream) = self.streams.get_mut(&place.stream) {
                    stream.waiting.remove(&place.watch);
                }
            }
        }
    }

    /// Nobody keeps up any more: everyone who did goes on at `from`.
    fn fall_behind(&mut self, from: Revision) {
        let keeping_up = self.watches.iter().filter(|(_, watch)| watch.stage == Stage::KeepsUp);
        let places: Vec<(Place, CrowdId)> = keeping_up.map(|(place, watch)| (*place, watch.crowd)).collect();
        for (place, crowd) in places {
            self.leave_stage(place, crowd, Stage::KeepsUp);
            self.enter(place, Moment { revision: from, order: 0 }, &mut Vec::new());
        }
    }

    fn has_room(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|stream| self.is_room_in(stream))
    }

    fn is_room_in(&self, stream: &Stream) -> bool {
        let is_within = stream.in_flight_bytes < self.bounds.stream_bytes_max
            && self.in_flight_bytes < self.bounds.total_bytes_max;
        is_within || stream.in_flight_bytes == 0
    }

    fn give_out_if_room(&mut self, stream: StreamId, bytes: usize) -> bool {
        let has_room = self.has_room(stream);
        if has_room {
            self.give_out(stream, bytes);
        }
        has_room
    }

    fn give_out(&mut self, stream: StreamId, bytes: usize) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.in_flight_bytes += bytes;
            self.in_flight_bytes += bytes;
        }
    }
}

fn remove_from<Key: Ord>(lists: &mut BTreeMap<Key, BTreeSet<Place>>, key: &Key, place: Place) {
    if let Some(places) = lists.get_mut(key) {
        places.remove(&place);
        if places.is_empty() {
            lists.remove(key);
        }
    }
}
