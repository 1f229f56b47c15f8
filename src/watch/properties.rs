//! Random watches on a random store, held against a model that replays the log for every watch by itself.
//!
//! The model keeps every event that ever was and, for each watch, where it began. From what the hub gives out it takes
//! only what a client would: batches, in order, partial ones put together.

use super::{Batch, Bounds, Hub, Interest, Notice, Place, WatchSpec};
use crate::ids::{BootMicros, Revision, StreamId, Ticket, WatchId};
use crate::kv::{Command, Event, KeyRange, Moment, Put, Store, properties::Random};
use crate::property;
use crate::watch::Ending;
use bytes::Bytes;
use std::collections::BTreeMap;

const STEPS: u64 = 150;

/// Bounds so tight that everything they lead to happens soon.
const TIGHT: Bounds = Bounds {
    batch_bytes_max: 150,
    stream_bytes_max: 500,
    total_bytes_max: 1_500,
    changes_per_turn_max: 7,
    concerns_per_turn_max: 12,
    stream_watches_max: 6,
    watches_max: 20,
    progress_micros: 10,
};

/// What a client knows of one of its watches.
#[derive(Debug)]
struct Client {
    spec: WatchSpec,
    /// The first revision it is owed.
    from: u64,
    /// It was told everything up to this one.
    upto: u64,
    /// Events of a revision of which more follows.
    part: Vec<Event>,
    /// All that was told and is whole.
    told: Vec<Event>,
}

struct World {
    random: Random,
    store: Store,
    hub: Hub,
    now: u64,
    /// Every event there ever was.
    log: Vec<Event>,
    clients: BTreeMap<Place, Client>,
    waiting_bytes: BTreeMap<StreamId, usize>,
    ended_count: u64,
    partial_count: u64,
    told_count: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let store = Store::new();
        Self {
            random: Random::new(seed),
            hub: Hub::new(TIGHT, store.revision(), BootMicros(0)),
            store,
            now: 0,
            log: Vec::new(),
            clients: BTreeMap::new(),
            waiting_bytes: BTreeMap::new(),
            ended_count: 0,
            partial_count: 0,
            told_count: 0,
        }
    }

    fn place(&mut self) -> Place {
        Place { stream: StreamId(1 + self.random.below(5)), watch: WatchId(self.random.below(4)) }
    }

    fn interest(&mut self) -> Interest {
        let key = |random: &mut Random| Bytes::from(vec![b'a' + random.one_of(&[0, 1, 2, 3])]);
        let range = match self.random.below(4) {
            0 => KeyRange::From(Bytes::new()),
            1 => KeyRange::Key(key(&mut self.random)),
            _ => KeyRange::Span { start: key(&mut self.random), end: key(&mut self.random) },
        };
        Interest {
            range,
            skips_puts: self.random.one_in(5),
            skips_deletions: self.random.one_in(5),
            wants_previous: self.random.one_in(2),
        }
    }

    /// One thing happens, and the turn that takes it ends.
    fn step(&mut self) {
        let mut notices = Vec::new();
        match self.random.below(12) {
            0..6 => (0..=self.random.below(5)).for_each(|_| self.write(&mut notices)),
            6 | 7 => self.create(),
            8 => {
                let place = self.place();
                self.hub.cancel(place, &mut notices);
                self.clients.remove(&place);
            }
            9 => {
                let place = self.place();
                self.hub.advance(&self.store, &mut notices);
                self.hub.ask(place, Ticket(place.stream.0 * 10 + place.watch.0), &mut notices);
            }
            10 if self.random.one_in(3) => {
                let stream = self.place().stream;
                self.hub.close(stream, &mut notices);
                self.waiting_bytes.remove(&stream);
                self.clients.retain(|place, _| place.stream != stream);
            }
            _ => self.take(&mut notices),
        }
        self.hear(&mut notices);
        self.now += self.random.below(4);
        self.hub.advance(&self.store, &mut notices);
        self.hub.catch_up(&self.store, &mut notices);
        self.hub.tell_progress(BootMicros(self.now), &mut notices);
        self.hear(&mut notices);
        self.hub.assert_all_invariants();
    }

    fn write(&mut self, notices: &mut Vec<Notice>) {
        let command = self.random.command();
        if let Command::Compact(_) = command {
            self.hub.advance(&self.store, notices);
        }
        self.apply(&command);
    }

    fn apply(&mut self, command: &Command) {
        let before = self.store.revision();
        self.store.apply(command);
        self.random.revision = self.store.revision().0;
        let from = Moment { revision: before.next(), order: 0 };
        let changes = self.store.changes_from(from).expect("a compaction does not reach into the future");
        self.log.extend(changes.map(|(_, changed)| changed.to_event(true)));
    }

    fn create(&mut self) {
        let mut notices = Vec::new();
        self.hub.advance(&self.store, &mut notices);
        self.hear(&mut notices);
        let place = self.place();
        let revision = self.store.revision().0;
        let start = match self.random.below(4) {
            0 => 0,
            1 => revision + self.random.below(12),
            _ => 1 + self.random.below(revision),
        };
        let spec = WatchSpec {
            interest: self.interest(),
            start: Revision(start),
            wants_progress: self.random.one_in(2),
        };
        let made = self.hub.create(place, &spec);
        assert_eq!(made.is_ok(), !self.clients.contains_key(&place), "a name is taken, or it is not");
        let from = if start == 0 { revision + 1 } else { start };
        let client = Client { spec, from, upto: from - 1, part: Vec::new(), told: Vec::new() };
        self.clients.entry(place).or_insert(client);
    }

    fn take(&mut self, notices: &mut Vec<Notice>) {
        let stream = self.place().stream;
        let Some(waiting) = self.waiting_bytes.get_mut(&stream) else { return };
        *waiting = usize::try_from(self.random.below(*waiting as u64 + 1)).unwrap();
        if self.random.one_in(2) {
            *waiting = 0;
        }
        self.hub.taken(stream, *waiting, notices);
    }

    fn hear(&mut self, notices: &mut Vec<Notice>) {
        for notice in notices.drain(..) {
            match notice {
                Notice::Told { to, batch } => {
                    assert!(to.is_sorted(), "places on one stream follow each other");
                    for place in to {
                        self.told(place, &batch);
                    }
                }
                Notice::Ended { to, why } => {
                    let Ending::Compacted(compacted) = why else { panic!("nothing was withdrawn") };
                    self.ended_count += 1;
                    let client = self.clients.remove(&to).expect("only a watch ends");
                    assert_eq!(Some(compacted), self.store.compacted());
                    assert!(
                        client.upto + 1 < compacted.0,
                        "{client:?} ends though {compacted} is what it needs"
                    );
                }
                Notice::Reached { ticket, revision } => {
                    let place = Place { stream: StreamId(ticket.0 / 10), watch: WatchId(ticket.0 % 10) };
                    let client = self.clients.get_mut(&place).expect("a request of a watch that is");
                    assert!(client.part.is_empty(), "a bookmark in the middle of a revision");
                    client.upto = client.upto.max(revision.0);
                    self.check(place);
                }
                Notice::Gone { .. } => {}
            }
        }
    }

    fn told(&mut self, place: Place, batch: &Batch) {
        let bytes: usize =
            batch.events.iter().map(|event| event.pair.value.len() + event.pair.key.len()).sum();
        let waiting = self.waiting_bytes.entry(place.stream).or_default();
        *waiting += bytes + 1;
        self.told_count += 1;
        let client = self.clients.get_mut(&place).expect("only a watch is told anything");
        client.part.extend(batch.events.iter().cloned());
        self.partial_count += u64::from(batch.is_partial);
        if batch.is_partial {
            let is_next = |event: &Event| event.pair.mod_revision == batch.revision.next();
            assert!(!batch.events.is_empty() && client.part.iter().all(is_next), "{batch:?}");
            return;
        }
        client.told.append(&mut client.part);
        assert!(batch.revision.0 >= client.upto, "a bookmark goes back: {batch:?} after {}", client.upto);
        client.upto = batch.revision.0;
        self.check(place);
    }

    /// A client was told exactly what it wanted, up to what it was told it was told.
    fn check(&self, place: Place) {
        let client = &self.clients[&place];
        let Interest { range, skips_puts, skips_deletions, wants_previous } = &client.spec.interest;
        let owed = self.log.iter().filter(|event| {
            let revision = event.pair.mod_revision.0;
            let is_skipped = if event.is_deletion { *skips_deletions } else { *skips_puts };
            (client.from..=client.upto).contains(&revision) && range.contains(&event.pair.key) && !is_skipped
        });
        let owed: Vec<&Event> = owed.collect();
        assert_eq!(client.told.len(), owed.len(), "{client:?} is owed {owed:?}");
        for (told, owed) in client.told.iter().zip(owed) {
            assert_eq!((&told.pair, told.is_deletion), (&owed.pair, owed.is_deletion));
            // What was compacted when it was told is not told, and of the compacted revision itself neither.
            let compacted = self.store.compacted().unwrap_or_default();
            let is_due = *wants_previous && owed.pair.mod_revision > compacted;
            assert!(!is_due || told.previous == owed.previous, "{told:?} without what it was: {owed:?}");
            assert!(told.previous.is_none() || told.previous == owed.previous, "{told:?} was {owed:?}");
            assert!(*wants_previous || told.previous.is_none(), "nobody asked what it was");
        }
    }

    /// Everyone takes everything, and so is told everything.
    fn settle(&mut self) {
        let mut notices = Vec::new();
        loop {
            for stream in self.waiting_bytes.keys().copied().collect::<Vec<_>>() {
                self.hub.taken(stream, 0, &mut notices);
            }
            self.hub.advance(&self.store, &mut notices);
            self.hub.catch_up(&self.store, &mut notices);
            if notices.is_empty() && !self.hub.has_work() {
                break;
            }
            self.hear(&mut notices);
        }
        let revision = self.store.revision().0;
        for place in self.clients.keys().copied().collect::<Vec<_>>() {
            self.hub.ask(place, Ticket(place.stream.0 * 10 + place.watch.0), &mut notices);
        }
        assert_eq!(notices.len(), self.clients.len(), "everyone who was told everything is told so");
        self.hear(&mut notices);
        assert!(self.clients.values().all(|client| client.upto >= revision), "everyone was told everything");
    }
}

fn live(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();
    world
}

#[test]
fn every_watch_is_told_what_the_log_says_once_and_in_order() {
    let (mut ended, mut partial, mut told) = (0, 0, 0);
    let tried = property::hold(400, |seed| {
        let world = live(seed);
        ended += world.ended_count;
        partial += world.partial_count;
        told += world.told_count;
    });
    if tried < 400 {
        return;
    }
    assert!(ended > 50 && partial > 50 && told > 10_000, "{ended} ended, {partial} partial, {told} told");
}

#[cfg(feature = "planted")]
#[test]
fn the_model_finds_every_planted_bug_of_watches() {
    for bug in [371, 372, 373, 374, 375, 376, 377] {
        crate::planted::switch_on(bug);
        let found = (0..400).any(|seed| std::panic::catch_unwind(|| live(seed)).is_err());
        crate::planted::switch_on(0);
        assert!(found, "bug {bug} is found");
    }
}

#[test]
fn a_watch_that_takes_nothing_costs_a_bounded_number_of_bytes_and_loses_nothing() {
    let mut world = World::new(1);
    let place = Place { stream: StreamId(1), watch: WatchId(1) };
    let spec = WatchSpec {
        interest: Interest::all(KeyRange::From(Bytes::new())),
        start: Revision(0),
        wants_progress: false,
    };
    world.hub.create(place, &spec).unwrap();
    world.clients.insert(place, Client { spec, from: 2, upto: 1, part: Vec::new(), told: Vec::new() });
    let mut notices = Vec::new();
    let mut in_flight_max = 0;
    for number in 0..2_000 {
        let key = Bytes::from(format!("key {}", number % 7));
        world.apply(&Command::Put(Put::new(key, Bytes::from_static(b"value"))));
        world.hub.advance(&world.store, &mut notices);
        world.hub.catch_up(&world.store, &mut notices);
        world.hear(&mut notices);
        in_flight_max = in_flight_max.max(world.hub.in_flight_bytes());
        assert!(!world.hub.has_work(), "it is not even looked at");
    }
    assert!(in_flight_max < TIGHT.stream_bytes_max + TIGHT.batch_bytes_max, "{in_flight_max}");
    world.settle();
    assert_eq!(world.clients[&place].told.len(), 2_000);
}
