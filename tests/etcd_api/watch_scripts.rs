//! Streams of watches from a seed, on ours and on a real etcd: every watch is told the same, in the same order.
//!
//! A script writes, opens watches of every kind, writes more, and ends some of them. What is told is compared where both
//! servers must have told all: behind a put that a last watch has heard of. Not compared: how events are spread over
//! messages, the order of answers to different watches, and bookmarks of single watches (ours come more often). Left out:
//! starts at the very revision that was compacted,
//! where etcd may or may not remember what was deleted (etcd #19179), and at none (below 0), which 3.6 answers otherwise.

use crate::client::{Client, PATIENCE, block_on};
use crate::differential::{compared, from_environment};
use crate::generator::{Ask, Generator};
use crate::servers::{Etcd, mainstay};
use crate::watches::Stream;
use mainstay::api::etcd::proto::etcdserverpb as pb;
use mainstay::api::etcd::proto::mvccpb::Event;
use pb::watch_request::RequestUnion;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const SCRIPTS_COUNT: u64 = 6;
const ROUNDS_COUNT: u64 = 3;

/// The watch that hears of the last put of a round.
const LAST: i64 = 1_000;
const LAST_KEY: &str = "last";

/// What the watches of a stream were told.
#[derive(Debug, Default, PartialEq)]
struct Told {
    events: BTreeMap<i64, Vec<Event>>,
    /// How each began or ended, in the order of their numbers: those of different watches come in any order.
    controls: BTreeMap<i64, Vec<Control>>,
    /// Answers to requests for progress: up to which revision.
    progress: Vec<i64>,
}

#[derive(Debug, PartialEq)]
struct Control {
    created: bool,
    canceled: bool,
    compact_revision: i64,
    reason: String,
}

/// One server, as a script sees it.
struct Side {
    client: Client,
    stream: Stream,
    told: Told,
}

impl Side {
    fn new(client: &Client) -> Self {
        Self { client: client.clone(), stream: Stream::open(client), told: Told::default() }
    }

    fn heard(&mut self, answer: pb::WatchResponse) {
        let id = answer.watch_id;
        if answer.created || answer.canceled {
            self.told.controls.entry(id).or_default().push(Control {
                created: answer.created,
                canceled: answer.canceled,
                compact_revision: answer.compact_revision,
                reason: answer.cancel_reason,
            });
        } else if answer.events.is_empty() && id == -1 {
            self.told.progress.push(answer.header.expect("a header").revision);
        }
        self.told.events.entry(id).or_default().extend(answer.events);
    }

    /// Listens until `is_there`.
    async fn until(&mut self, is_there: impl Fn(&Told) -> bool) {
        while !is_there(&self.told) {
            let answer = self.stream.next().await;
            self.heard(answer);
        }
    }

    /// Listens for a moment.
    async fn listen(&mut self) {
        while let Ok(answer) = tokio::time::timeout(Duration::from_millis(20), self.stream.next()).await {
            self.heard(answer);
        }
    }
}

impl Told {
    fn created_count(&self) -> usize {
        self.controls.values().flatten().filter(|control| control.created).count()
    }

    /// Whether there is a watch of this id, or was until a compaction ended it.
    fn may_be_ended(&self, id: i64) -> bool {
        let last = self.controls.get(&id).and_then(|controls| controls.last());
        last.is_some_and(|last| !last.canceled || last.compact_revision != 0)
    }

    fn has_heard(&self, revision: i64) -> bool {
        let of_last = self.events.get(&LAST).and_then(|events| events.last());
        of_last.is_some_and(|event| event.kv.as_ref().is_some_and(|pair| pair.mod_revision == revision))
    }
}

/// Both servers, and what they are asked.
struct Pair {
    theirs: Side,
    ours: Side,
}

impl Pair {
    fn ask(&self, request: &RequestUnion) {
        self.theirs.stream.ask(request.clone());
        self.ours.stream.ask(request.clone());
    }

    /// Opens a watch and waits until both say so.
    async fn create(&mut self, request: pb::WatchCreateRequest) {
        let count = self.theirs.told.created_count();
        self.ask(&RequestUnion::CreateRequest(request));
        for side in [&mut self.theirs, &mut self.ours] {
            side.until(|told| told.created_count() > count).await;
        }
    }

    /// Ends a watch, also one that a compaction ended, and waits until both say so.
    async fn cancel(&mut self, watch_id: i64) {
        let is_there = self.theirs.told.may_be_ended(watch_id);
        self.ask(&RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id }));
        for side in [&mut self.theirs, &mut self.ours] {
            side.until(|told| !is_there || !told.may_be_ended(watch_id)).await;
        }
    }

    /// Writes a last time, and compares what was told up to then.
    async fn settle(&mut self, what: &str, generator: &mut Generator) {
        let put = pb::PutRequest { key: LAST_KEY.into(), value: "x".into(), ..Default::default() };
        self.write(what, &Ask::Put(put), generator).await;
        let revision = generator.revision;
        for side in [&mut self.theirs, &mut self.ours] {
            side.until(|told| told.has_heard(revision)).await;
        }
        let until = Instant::now() + PATIENCE / 4;
        while self.theirs.told != self.ours.told && Instant::now() < until {
            self.theirs.listen().await;
            self.ours.listen().await;
        }
        assert_eq!(self.ours.told, self.theirs.told, "{what}: at revision {revision}, we on the left");
    }

    async fn write(&self, what: &str, ask: &Ask, generator: &mut Generator) {
        let revision = compared(&self.theirs.client, &self.ours.client, ask, what).await;
        generator.revision = generator.revision.max(revision);
    }
}

/// What to watch. `compacted` is the revision that was compacted last.
fn to_create(generator: &mut Generator, compacted: i64) -> pb::WatchCreateRequest {
    let range = generator.range(true);
    let back = i64::try_from(generator.below(30)).expect("small");
    let mut start_revision = match generator.below(7) {
        0..4 => 0,
        4..6 => (generator.revision - back).max(1),
        _ => generator.revision + 1 + back % 5,
    };
    if start_revision == compacted {
        start_revision += 1;
    }
    pb::WatchCreateRequest {
        key: range.key,
        range_end: range.range_end,
        start_revision,
        progress_notify: generator.once_in(4),
        filters: match generator.below(6) {
            0 => vec![0],
            1 => vec![1],
            2 => vec![0, 1],
            _ => Vec::new(),
        },
        prev_kv: generator.once_in(2),
        watch_id: i64::try_from(generator.below(8)).expect("small").saturating_sub(3).max(0),
        fragment: generator.once_in(4),
    }
}

async fn script(pair: &mut Pair, generator: &mut Generator, what: &str) {
    let mut compacted = 0;
    for _ in 0..20 {
        let ask = generator.write();
        pair.write(what, &ask, generator).await;
    }
    if generator.once_in(2) {
        compacted = generator.revision - 10;
        pair.write(
            what,
            &Ask::Compact(pb::CompactionRequest { revision: compacted, physical: true }),
            generator,
        )
        .await;
    }
    pair.create(pb::WatchCreateRequest { key: LAST_KEY.into(), watch_id: LAST, ..Default::default() }).await;
    for _ in 0..ROUNDS_COUNT {
        for _ in 0..generator.below(4) {
            let request = to_create(generator, compacted);
            pair.create(request).await;
        }
        for _ in 0..generator.below(12) {
            let ask = generator.write();
            pair.write(what, &ask, generator).await;
        }
        pair.settle(what, generator).await;
        pair.ask(&RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
        let count = pair.theirs.told.progress.len().min(pair.ours.told.progress.len());
        for side in [&mut pair.theirs, &mut pair.ours] {
            side.until(|told| told.progress.len() > count).await;
        }
        for _ in 0..generator.below(3) {
            let watch_id = i64::try_from(generator.below(7)).expect("small");
            pair.cancel(watch_id).await;
        }
    }
    pair.settle(what, generator).await;
}

#[test]
fn etcd_and_we_tell_watches_the_same() {
    let Some(etcd) = Etcd::start("etcd_and_we_tell_watches_the_same") else { return };
    let cluster = mainstay(1);
    let count = from_environment("MAINSTAY_DIFFERENTIAL", 100 * SCRIPTS_COUNT) / 100;
    let seed = from_environment("MAINSTAY_SEED", u64::from(std::process::id()));
    println!("{count} scripts, MAINSTAY_SEED={seed}");
    block_on(async {
        let theirs = Client::connect(etcd.client).await;
        let ours = Client::connect(cluster.members[0].client).await;
        let mut generator = Generator::new(seed);
        for number in 0..count {
            let mut pair = Pair { theirs: Side::new(&theirs), ours: Side::new(&ours) };
            script(&mut pair, &mut generator, &format!("script {number} of MAINSTAY_SEED={seed}")).await;
        }
    });
}
