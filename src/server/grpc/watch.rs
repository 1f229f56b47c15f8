//! The service `Watch`: one conversation for each stream, with any number of watches in it.
//!
//! Always: a watch is created before anything is told to it, and requests to create are answered in their order; what
//! is told of one revision is told in one message, unless the client takes fragments; a request for progress is
//! answered when every watch of the stream was told everything up to the revision that is named. A client that takes
//! nothing is told nothing more: then the hub falls back to history. Left out: who is told what (`watch`).

use super::leader::{Answers, while_led};
use super::{refused, stubs};
use crate::api::etcd::proto::etcdserverpb as pb;
use crate::api::etcd::{self, Fault, NotWatched, Standing};
use crate::api::{Certainty, Refusal, Response as Answer, WatchAnswer, WatchRequest};
use crate::ids::{KeyspaceId, Revision, Ticket, WatchId};
use crate::limits::{GATEWAY_PATIENCE_MILLIS, GATEWAY_RETRY_MILLIS};
use crate::server::gateway::{Gate, Told, WatchStream, spawn};
use crate::watch::{Batch, Ending, WatchSpec};
use pb::watch_request::RequestUnion;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// Answers of one stream that are made and not taken yet.
///
/// Chosen: one is being sent and one is ready; what waits beyond that waits where it is counted, at the hub.
const ANSWERS_WAITING_MAX: usize = 2;

/// How long a watch may be on its way to be created on a member that serves nothing.
const PATIENCE: Duration = Duration::from_millis(GATEWAY_PATIENCE_MILLIS);

/// Watches of one stream that are asked at once how far they are.
///
/// Chosen: few streams have more; one with thousands of watches must not take the places of others' requests.
const PROGRESS_ASKED_MAX: usize = 8;

/// Ids of one stream that stay taken after a compaction ended their watches.
///
/// Chosen: more than any client that reuses ids has watches; a stream that lasts must not grow by every watch it ever had.
const ENDED_IDS_MAX: usize = 1_024;

/// The service.
#[derive(Debug)]
pub(super) struct WatchService(pub(super) Arc<Gate>);

#[tonic::async_trait]
impl stubs::watch_server::Watch for WatchService {
    type WatchStream = Answers<pb::WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (metadata, _, requests) = request.into_parts();
        // Whoever breaks its stream off is heard of when answers are not taken any more.
        let requests = requests.map_while(Result::ok);
        Ok(Response::new(while_led(&self.0, &metadata, converse(&self.0, requests))))
    }
}

/// The answers to a stream of requests.
pub(in super::super) fn converse(
    gate: &Arc<Gate>,
    requests: impl Stream<Item = pb::WatchRequest> + Send + 'static,
) -> Answers<pb::WatchResponse> {
    let (sender, receiver) = tokio::sync::mpsc::channel(ANSWERS_WAITING_MAX);
    let conversation = Conversation {
        stream: gate.open_stream(),
        sender,
        watches: BTreeMap::new(),
        ids: BTreeMap::new(),
        ended: BTreeSet::new(),
        next_name: 1,
        next_id: 0,
        creating: None,
        progress: None,
    };
    spawn(conversation.run(Box::pin(requests)));
    Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))
}

/// The client is gone, or the conversation was ended with a word why.
#[derive(Debug)]
struct Ended;

/// One watch.
#[derive(Debug)]
struct Watch {
    id: i64,
    takes_fragments: bool,
    /// Changes of a revision of which more follows. They are shared by all watches that are told them.
    held: Vec<Arc<Batch>>,
    /// The client wants it to end, by this request.
    cancelling: Option<Ticket>,
}

/// A watch that is to be created, and is not yet.
#[derive(Debug)]
struct Creating {
    ticket: Ticket,
    name: WatchId,
    spec: WatchSpec,
    /// Since when.
    since: Instant,
}

/// A request for progress that is not answered yet. Watches are asked one after the other: what the least of them had
/// reached when it was asked, all have reached.
#[derive(Debug)]
struct Progress {
    /// Watches that are yet to be asked.
    left: Vec<WatchId>,
    awaited: Vec<Ticket>,
    reached: Option<Revision>,
}

/// One stream.
#[derive(Debug)]
struct Conversation {
    stream: WatchStream,
    sender: Sender<Result<pb::WatchResponse, Status>>,
    /// By the names that the hub knows them by, which are never used twice.
    watches: BTreeMap<WatchId, Watch>,
    /// The names, by the ids that the client knows.
    ids: BTreeMap<i64, WatchId>,
    /// The ids of watches that a compaction ended, until the client ends them, too (etcd's rule).
    ended: BTreeSet<i64>,
    next_name: u64,
    next_id: i64,
    /// While there is one no further request is heard, so that answers come in order.
    creating: Option<Creating>,
    progress: Option<Progress>,
}

impl Conversation {
    async fn run(mut self, mut requests: Pin<Box<impl Stream<Item = pb::WatchRequest> + Send>>) {
        let mut is_heard_out = false;
        loop {
            let sender = self.sender.clone();
            let went_on = tokio::select! {
                () = sender.closed() => return,
                told = self.stream.next() => match told {
                    Some(told) => self.told(told).await,
                    None => self.end(refused(Fault::Stopped)).await,
                },
                request = requests.next(), if !is_heard_out && self.creating.is_none() => {
                    is_heard_out = request.is_none();
                    self.request(request.unwrap_or_default()).await
                }
            };
            if went_on.is_err() {
                return;
            }
        }
    }

    async fn say(&self, answer: pb::WatchResponse) -> Result<(), Ended> {
        self.sender.send(Ok(answer)).await.map_err(|_| Ended)
    }

    async fn end(&self, status: Status) -> Result<(), Ended> {
        // Whether anybody hears it or not, this is the end.
        let _ = self.sender.send(Err(status)).await;
        Err(Ended)
    }

    async fn request(&mut self, request: pb::WatchRequest) -> Result<(), Ended> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(&request).await,
            Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id).await,
            Some(RequestUnion::ProgressRequest(_)) => self.ask_progress().await,
            // etcd ignores it.
            None => Ok(()),
        }
    }

    async fn create(&mut self, request: &pb::WatchCreateRequest) -> Result<(), Ended> {
        let spec = etcd::watch_spec(request);
        let is_taken = request.watch_id != 0 && self.is_taken(request.watch_id);
        let spec = if is_taken { spec.and(Err(NotWatched::DuplicateId)) } else { spec };
        let spec = match spec {
            Ok(spec) => spec,
            Err(why) => {
                let (standing, revision) = self.stream.standing();
                return self.say(etcd::watch_not_created(standing, revision, why)).await;
            }
        };
        let id = if request.watch_id == 0 { self.unused_id() } else { request.watch_id };
        let name = WatchId(self.next_name);
        self.next_name += 1;
        let takes_fragments = request.fragment;
        self.watches.insert(name, Watch { id, takes_fragments, held: Vec::new(), cancelling: None });
        self.ids.insert(id, name);
        self.ask_to_create(name, spec, Instant::now()).await
    }

    fn is_taken(&self, id: i64) -> bool {
        self.ids.contains_key(&id) || self.ended.contains(&id)
    }

    fn unused_id(&mut self) -> i64 {
        while self.is_taken(self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    async fn ask_to_create(&mut self, name: WatchId, spec: WatchSpec, since: Instant) -> Result<(), Ended> {
        let request = WatchRequest::Create { keyspace: KeyspaceId::FIRST, spec: spec.clone() };
        let ticket = self.insist(name, request).await?;
        self.creating = Some(Creating { ticket, name, spec, since });
        Ok(())
    }

    /// Asks until there is room for the question: a client that loses its stream to that loses all its watches.
    async fn insist(&mut self, name: WatchId, request: WatchRequest) -> Result<Ticket, Ended> {
        loop {
            match self.stream.ask(name, request.clone()) {
                Ok(ticket) => return Ok(ticket),
                Err(Fault::TooManyRequests) if !self.sender.is_closed() => {
                    tokio::time::sleep(Duration::from_millis(GATEWAY_RETRY_MILLIS)).await;
                }
                Err(fault) => {
                    self.end(refused(fault)).await?;
                }
            }
        }
    }

    async fn cancel(&mut self, id: i64) -> Result<(), Ended> {
        if self.ended.remove(&id) {
            let (standing, revision) = self.stream.standing();
            return self.say(etcd::watch_cancelled(standing, revision, id)).await;
        }
        // There is none of this id: nothing is said (etcd's rule).
        let Some(name) = self.ids.get(&id).copied() else { return Ok(()) };
        let ticket = self.insist(name, WatchRequest::Cancel { watch: name }).await?;
        if let Some(watch) = self.watches.get_mut(&name) {
            watch.cancelling = Some(ticket);
        }
        Ok(())
    }

    async fn ask_progress(&mut self) -> Result<(), Ended> {
        if self.progress.is_some() {
            // The answer that is on its way is of now or later.
            return Ok(());
        }
        let left = self.watches.keys().copied().collect();
        self.progress = Some(Progress { left, awaited: Vec::new(), reached: None });
        self.go_on_with_progress().await
    }

    /// Asks further watches how far they are, and tells the client when all have answered.
    async fn go_on_with_progress(&mut self) -> Result<(), Ended> {
        while let Some(progress) = &mut self.progress
            && progress.awaited.len() < PROGRESS_ASKED_MAX
            && let Some(name) = progress.left.pop()
        {
            if !self.watches.contains_key(&name) {
                continue;
            }
            let ticket = self.insist(name, WatchRequest::Progress { watch: name }).await?;
            if let Some(progress) = &mut self.progress {
                progress.awaited.push(ticket);
            }
        }
        let is_answered = |progress: &mut Progress| progress.awaited.is_empty() && progress.left.is_empty();
        let Some(progress) = self.progress.take_if(is_answered) else { return Ok(()) };
        // Where all have ended meanwhile there is nothing to be told.
        let Some(reached) = progress.reached else { return Ok(()) };
        let (standing, _) = self.stream.standing();
        self.say(etcd::of_watch(standing, reached, -1)).await
    }

    async fn told(&mut self, told: Told) -> Result<(), Ended> {
        match told {
            Told::Answer { ticket, standing, response } => self.answered(ticket, standing, response).await,
            Told::Batch { watches, standing, batch } => self.batch(&watches, standing, &batch).await,
            Told::Ended { watch: name, standing, why } => {
                let Some(watch) = self.forget(name) else { return Ok(()) };
                // Its client has ended it already if the answer to that is on its way.
                if matches!(why, Ending::Compacted(_)) && watch.cancelling.is_none() {
                    self.ended.insert(watch.id);
                    if self.ended.len() > ENDED_IDS_MAX {
                        self.ended.pop_first();
                    }
                }
                let (_, revision) = self.stream.standing();
                self.say(etcd::watch_ended(standing, revision, watch.id, why)).await
            }
        }
    }

    fn forget(&mut self, name: WatchId) -> Option<Watch> {
        let watch = self.watches.remove(&name)?;
        self.ids.remove(&watch.id);
        Some(watch)
    }

    async fn answered(&mut self, ticket: Ticket, standing: Standing, response: Answer) -> Result<(), Ended> {
        if let Some(creating) = self.creating.take_if(|creating| creating.ticket == ticket) {
            return self.created(creating, standing, &response).await;
        }
        if let Some(progress) = &mut self.progress
            && let Some(place) = progress.awaited.iter().position(|awaited| *awaited == ticket)
        {
            progress.awaited.swap_remove(place);
            // Refused, it is of a watch that has ended meanwhile.
            if let Answer::Watch(WatchAnswer::Reached { revision }) = response {
                let least = progress.reached.map_or(revision, |reached| reached.min(revision));
                progress.reached = Some(least);
            }
            return self.go_on_with_progress().await;
        }
        let mut cancelled = self.watches.iter().filter(|(_, watch)| watch.cancelling == Some(ticket));
        if let Some((name, _)) = cancelled.next() {
            let name = *name;
            let Some(watch) = self.forget(name) else { return Ok(()) };
            let (_, revision) = self.stream.standing();
            return self.say(etcd::watch_cancelled(standing, revision, watch.id)).await;
        }
        Ok(())
    }

    async fn created(
        &mut self,
        creating: Creating,
        standing: Standing,
        response: &Answer,
    ) -> Result<(), Ended> {
        let Creating { name, spec, since, .. } = creating;
        match response {
            Answer::Watch(WatchAnswer::Created { revision }) => {
                let Some(watch) = self.watches.get(&name) else { return Ok(()) };
                self.say(etcd::watch_created(standing, *revision, watch.id)).await?;
                // What is told of the whole stream is told of this one, too (etcd #15220).
                if let Some(progress) = &mut self.progress {
                    progress.left.push(name);
                }
                self.go_on_with_progress().await
            }
            Answer::Refused(Refusal::Overloaded) => {
                self.forget(name);
                let (_, revision) = self.stream.standing();
                self.say(etcd::watch_not_created(standing, revision, NotWatched::TooMany)).await
            }
            Answer::Refused(Refusal::Users(refusal)) => {
                self.forget(name);
                let (_, revision) = self.stream.standing();
                let why = NotWatched::NotPermitted(*refusal);
                self.say(etcd::watch_not_created(standing, revision, why)).await
            }
            // This member serves nothing: its client finds another.
            Answer::Refused(Refusal::NotReady) if since.elapsed() > PATIENCE => {
                self.end(refused(Fault::Stopped)).await
            }
            // Nobody leads just now. The other watches of the stream go on, so this one waits (etcd's clients give a whole
            // stream up over it).
            Answer::Refused(refusal) if refusal.certainty() == Certainty::NotDone => {
                tokio::time::sleep(Duration::from_millis(GATEWAY_RETRY_MILLIS)).await;
                self.ask_to_create(name, spec, since).await
            }
            Answer::Refused(refusal) => self.end(refused((*refusal).into())).await,
            _ => self.end(refused(Fault::Unexpected)).await,
        }
    }

    async fn batch(
        &mut self,
        names: &[WatchId],
        standing: Standing,
        batch: &Arc<Batch>,
    ) -> Result<(), Ended> {
        for name in names {
            let Some(watch) = self.watches.get_mut(name) else { continue };
            let is_cut = batch.is_partial && watch.takes_fragments;
            if batch.is_partial && !is_cut {
                watch.held.push(Arc::clone(batch));
                continue;
            }
            let mut parts = std::mem::take(&mut watch.held);
            parts.push(Arc::clone(batch));
            let told = parts.iter().flat_map(|part| etcd::events(&part.events)).collect();
            let revision = if is_cut { batch.revision.next() } else { batch.revision };
            let answer = pb::WatchResponse {
                events: told,
                fragment: is_cut,
                ..etcd::of_watch(standing, revision, watch.id)
            };
            self.say(answer).await?;
        }
        Ok(())
    }
}
