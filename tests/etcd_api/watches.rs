//! Watches: what a stream is told, by us and, where there is one, by a real etcd.
//!
//! The same story is told to each; what is compared is what clients rely on, told in words.

use crate::client::{Client, PATIENCE, block_on};
use crate::servers::{Etcd, mainstay};
use mainstay::api::etcd::proto::etcdserverpb as pb;
use pb::watch_request::RequestUnion;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

/// One stream of watches.
pub(crate) struct Stream {
    requests: UnboundedSender<pb::WatchRequest>,
    /// etcd opens a stream with its first answer, so the first request must not wait for that.
    opening: Option<JoinHandle<Result<Answers, tonic::Status>>>,
    answers: Option<Answers>,
}

type Answers = tonic::Streaming<pb::WatchResponse>;

impl Stream {
    pub(crate) fn open(client: &Client) -> Self {
        let (requests, receiver) = tokio::sync::mpsc::unbounded_channel();
        let receiver = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
        let client = client.clone();
        let opening = tokio::spawn(async move { client.stream("/etcdserverpb.Watch/Watch", receiver).await });
        Self { requests, opening: Some(opening), answers: None }
    }

    pub(crate) fn ask(&self, request: RequestUnion) {
        let request = pb::WatchRequest { request_union: Some(request) };
        self.requests.send(request).expect("the stream is open");
    }

    fn create(&self, key: &str, range_end: &str, start_revision: i64, watch_id: i64) {
        self.ask(RequestUnion::CreateRequest(pb::WatchCreateRequest {
            key: key.to_owned().into(),
            range_end: range_end.to_owned().into(),
            start_revision,
            watch_id,
            prev_kv: true,
            ..Default::default()
        }));
    }

    fn cancel(&self, watch_id: i64) {
        self.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id }));
    }

    pub(crate) async fn next(&mut self) -> pb::WatchResponse {
        if let Some(opening) = self.opening.take() {
            self.answers = Some(opening.await.expect("a task ends").expect("a stream opens"));
        }
        let answers = self.answers.as_mut().expect("the stream is open");
        let next = tokio::time::timeout(PATIENCE, answers.message());
        next.await.expect("something is told in time").expect("the stream goes on").expect("an answer")
    }

    /// What is told next, in words.
    async fn words(&mut self) -> String {
        let told = self.next().await;
        let mut words = vec![format!("{}:", told.watch_id)];
        if told.created {
            words.push("created".to_owned());
        }
        if told.canceled {
            words.push(format!("canceled compacted={} {:?}", told.compact_revision, told.cancel_reason));
        }
        for event in told.events {
            let kind = if event.r#type == 0 { "put" } else { "delete" };
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let pair = event.kv.unwrap_or_default();
            let (key, value) = (text(&pair.key), text(&pair.value));
            let [created, modified] = [pair.create_revision, pair.mod_revision];
            words.push(format!("{kind} {key}={value} at {created}/{modified}/{}", pair.version));
            if let Some(before) = event.prev_kv {
                words.push(format!("was {} at {}", text(&before.value), before.mod_revision));
            }
        }
        words.join(" ")
    }
}

async fn delete(client: &Client, key: &str) {
    let request = pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
    let deleted = client.call::<_, pb::DeleteRangeResponse>("/etcdserverpb.KV/DeleteRange", request).await;
    assert_eq!(deleted.expect("a delete is served").deleted, 1);
}

/// The story, and what was told in it.
async fn story(client: &Client) -> Vec<String> {
    let mut told = Vec::new();
    let mut stream = Stream::open(client);
    // From now on: created, then what comes, with what was before.
    stream.create("a", "", 0, 0);
    told.push(stream.words().await);
    client.put("a", "1").await.expect("a put is served");
    told.push(stream.words().await);
    client.put("a", "2").await.expect("a put is served");
    told.push(stream.words().await);
    client.put("b", "no concern of a").await.expect("a put is served");
    delete(client, "a").await;
    told.push(stream.words().await);
    // From the past, under a name of the client's; all of it.
    stream.create("a", "c", 2, 7);
    told.push(stream.words().await);
    let mut events = 0;
    while events < 4 {
        let answer = stream.next().await;
        assert_eq!(answer.watch_id, 7);
        events += answer.events.len();
    }
    // A name that is taken, a range without keys, and one that begins before there was anything.
    stream.create("x", "", 0, 7);
    told.push(stream.words().await);
    stream.create("b", "a", 0, 0);
    told.push(stream.words().await);
    // Cancelled: nothing more is told of it; one that is not there is not spoken of.
    stream.cancel(4711);
    stream.cancel(7);
    told.push(stream.words().await);
    // One that begins in the future is silent until then.
    let now = client.get("a").await.expect("a get is served").header.expect("a header").revision;
    stream.create("f", "", now + 2, 9);
    told.push(stream.words().await);
    client.put("f", "too early").await.expect("a put is served");
    client.put("f", "in time").await.expect("a put is served");
    told.push(stream.words().await);
    // What is compacted cannot be told: it says from where on it can.
    let compact = pb::CompactionRequest { revision: now, physical: false };
    client
        .call::<_, pb::CompactionResponse>("/etcdserverpb.KV/Compact", compact)
        .await
        .expect("it is compacted");
    // A watch is served from what its member has applied: a read through it sees to it that this is everything so far.
    client.get("a").await.expect("a get is served");
    stream.create("a", "", 2, 11);
    told.push(stream.words().await);
    told.push(stream.words().await);
    // Its id is taken until the client ends it, too.
    stream.create("a", "", 0, 11);
    stream.cancel(11);
    told.push(stream.words().await);
    told.push(stream.words().await);
    stream.cancel(11);
    stream.create("a", "", 0, 11);
    told.push(stream.words().await);
    told
}

#[test]
fn a_story_of_watches_is_told_as_etcd_tells_it() {
    let cluster = mainstay(3);
    let ours = block_on(async { story(&Client::connect(cluster.members[1].client).await).await });
    let expected = [
        "0: created",
        "0: put a=1 at 2/2/1",
        "0: put a=2 at 2/3/2 was 1 at 2",
        "0: delete a= at 0/5/0 was 2 at 3",
        "7: created",
        "-1: created canceled compacted=0 \"mvcc: duplicate watch ID provided on the WatchStream\"",
        "-1: created canceled compacted=0 \"mvcc: watcher range is empty\"",
        "7: canceled compacted=0 \"\"",
        "9: created",
        "9: put f=in time at 6/7/2 was too early at 6",
        "11: created",
        "11: canceled compacted=5 \"\"",
        "-1: created canceled compacted=0 \"mvcc: duplicate watch ID provided on the WatchStream\"",
        "11: canceled compacted=0 \"\"",
        "11: created",
    ];
    assert_eq!(ours, expected);
    let Some(etcd) = Etcd::start("a_story_of_watches_is_told_as_etcd_tells_it") else { return };
    let theirs = block_on(async { story(&Client::connect(etcd.client).await).await });
    assert_eq!(theirs, expected);
}

#[test]
fn progress_is_told_when_everything_before_it_was() {
    let cluster = mainstay(1);
    block_on(async {
        let client = Client::connect(cluster.members[0].client).await;
        let mut stream = Stream::open(&client);
        stream.create("a", "b", 0, 0);
        stream.create("x", "y", 0, 0);
        assert_eq!([stream.words().await, stream.words().await], ["0: created", "1: created"]);
        for number in 0..100 {
            client.put(&format!("a{number}"), "x").await.expect("a put is served");
        }
        let now = client.get("a").await.expect("a get is served").header.expect("a header").revision;
        stream.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
        let mut events = 0;
        loop {
            let answer = stream.next().await;
            if answer.watch_id == -1 {
                assert!(answer.header.expect("a header").revision >= now, "progress is of now");
                break;
            }
            events += answer.events.len();
        }
        assert_eq!(events, 100, "what was told before progress is everything");
    });
}

#[test]
fn a_slow_reader_misses_nothing_and_what_waits_for_it_is_bounded() {
    const ROUNDS: usize = 40;
    let cluster = mainstay(1);
    block_on(async {
        let client = Client::connect(cluster.members[0].client).await;
        let slow = Client::connect(cluster.members[0].client).await;
        let mut stream = Stream::open(&slow);
        stream.create("a", "", 0, 0);
        assert_eq!(stream.words().await, "0: created");
        let large = "x".repeat(500_000);
        for _ in 0..ROUNDS {
            client.put("a", &large).await.expect("a put is served");
        }
        let mut revisions = Vec::new();
        while revisions.len() < ROUNDS {
            let answer = stream.next().await;
            revisions.extend(answer.events.into_iter().filter_map(|event| Some(event.kv?.mod_revision)));
        }
        let all: Vec<i64> = (2..).take(ROUNDS).collect();
        assert_eq!(revisions, all, "every change once, in order");
    });
}
