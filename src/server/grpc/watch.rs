//! The service `Watch`: one conversation for each stream, with any number of watches in it.
//!
//! Always: a watch is created before anything is told to it, and requests to create are answered in their order; what
//! is told of one revision is told in one message, unless the client takes fragments; a request for progress is
//! answered when every watch of the stream was told everything up to the revision that is named. A client that takes
//! nothing is told nothing more: then the hub falls back to history. Left out: who is told what (`watch`).

use super::{refused, stubs};
use crate::api::etcd::proto::{etcdserverpb as pb, mvccpb};
use crate::api::etcd::{self, Fault, NotWatched, Standing};
use crate::api::{Certainty, Refusal, Response as Answer, WatchAnswer, WatchRequest};
use crate::ids::{KeyspaceId, Revision, Ticket, WatchId};
use crate::limits::GATEWAY_RETRY_MILLIS;
use crate::server::gateway::{Gate, Told, WatchStream};
use crate::watch::{Batch, WatchSpec};
use pb::watch_request::RequestUnion;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// Answers of one stream that are made and not taken yet.
///
/// Chosen: one is being sent and one is ready; what waits beyond that waits where it is counted, at the hub.
const ANSWERS_WAITING_MAX: usize = 2;

/// The service.
#[derive(Debug)]
pub(super) struct WatchService(pub(super) Arc<Gate>);

type Answers = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl stubs::watch_server::Watch for WatchService {
    type WatchStream = Answers;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        // Whoever breaks its stream off is heard of when answers are not taken any more.
        let requests = request.into_inner().map_while(Result::ok);
        Ok(Response::new(converse(&self.0, requests)))
    }
}

/// The answers to a stream of requests.
pub(in super::super) fn converse(
    gate: &Arc<Gate>,
    requests: impl Stream<Item = pb::WatchRequest> + Send + 'static,
) -> Answers {
    let (sender, receiver) = tokio::sync::mpsc::channel(ANSWERS_WAITING_MAX);
    let conversation = Conversation {
        stream: gate.open_stream(),
        sender,
        watches: BTreeMap::new(),
        ids: BTreeMap::new(),
        next_name: 1,
        next_id: 0,
        creating: None,
        progress: None,
    };
    tokio::spawn(conversation.run(Box::pin(requests)));
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
    /// Changes of a revision of which more follows.
    held: Vec<mvccpb::Event>,
    /// The client wants it to end, by this request.
    cancelling: Option<Ticket>,
}

/// A watch that is to be created, and is not yet.
#[derive(Debug)]
struct Creating {
    ticket: Ticket,
    name: WatchId,
    spec: WatchSpec,
}

/// A request for progress that is not answered yet.
#[derive(Debug)]
struct Progress {
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
        let is_taken = request.watch_id != 0 && self.ids.contains_key(&request.watch_id);
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
        self.ask_to_create(name, spec).await
    }

    fn unused_id(&mut self) -> i64 {
        while self.ids.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    async fn ask_to_create(&mut self, name: WatchId, spec: WatchSpec) -> Result<(), Ended> {
        let request = WatchRequest::Create { keyspace: KeyspaceId::FIRST, spec: spec.clone() };
        let ticket = self.insist(name, request).await?;
        self.creating = Some(Creating { ticket, name, spec });
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
        let names: Vec<WatchId> = self.watches.keys().copied().collect();
        let mut awaited = Vec::with_capacity(names.len());
        for name in names {
            awaited.push(self.insist(name, WatchRequest::Progress { watch: name }).await?);
        }
        self.progress = Some(Progress { awaited, reached: None });
        self.tell_progress_if_known().await
    }

    async fn tell_progress_if_known(&mut self) -> Result<(), Ended> {
        let Some(progress) = self.progress.take_if(|progress| progress.awaited.is_empty()) else {
            return Ok(());
        };
        // Where all have ended meanwhile there is nothing to be told.
        let Some(reached) = progress.reached else { return Ok(()) };
        let (standing, _) = self.stream.standing();
        self.say(etcd::of_watch(standing, reached, -1)).await
    }

    async fn told(&mut self, told: Told) -> Result<(), Ended> {
        match told {
            Told::Answer { ticket, standing, response } => self.answered(ticket, standing, response).await,
            Told::Batch { watches, standing, batch } => self.batch(&watches, standing, &batch).await,
            Told::Ended { watch: name, standing, compacted } => {
                let Some(watch) = self.forget(name) else { return Ok(()) };
                let (_, revision) = self.stream.standing();
                self.say(etcd::watch_compacted(standing, revision, watch.id, compacted)).await
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
            return self.tell_progress_if_known().await;
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
        let Creating { name, spec, .. } = creating;
        match response {
            Answer::Watch(WatchAnswer::Created { revision }) => {
                let Some(watch) = self.watches.get(&name) else { return Ok(()) };
                self.say(etcd::watch_created(standing, *revision, watch.id)).await?;
                // What is told of the whole stream is told of this one, too (etcd #15220).
                if self.progress.is_some() {
                    let ticket = self.insist(name, WatchRequest::Progress { watch: name }).await?;
                    if let Some(progress) = &mut self.progress {
                        progress.awaited.push(ticket);
                    }
                }
                Ok(())
            }
            Answer::Refused(Refusal::Overloaded) => {
                self.forget(name);
                let (_, revision) = self.stream.standing();
                self.say(etcd::watch_not_created(standing, revision, NotWatched::TooMany)).await
            }
            // Nobody leads just now. The other watches of the stream go on, so this one waits (etcd's clients give a whole
            // stream up over it).
            Answer::Refused(refusal) if refusal.certainty() == Certainty::NotDone => {
                tokio::time::sleep(Duration::from_millis(GATEWAY_RETRY_MILLIS)).await;
                self.ask_to_create(name, spec).await
            }
            Answer::Refused(refusal) => self.end(refused((*refusal).into())).await,
            _ => self.end(refused(Fault::Unexpected)).await,
        }
    }

    async fn batch(&mut self, names: &[WatchId], standing: Standing, batch: &Batch) -> Result<(), Ended> {
        let events = etcd::events(&batch.events);
        for name in names {
            let Some(watch) = self.watches.get_mut(name) else { continue };
            let is_cut = batch.is_partial && watch.takes_fragments;
            if batch.is_partial && !is_cut {
                watch.held.extend(events.iter().cloned());
                continue;
            }
            let mut told = std::mem::take(&mut watch.held);
            told.extend(events.iter().cloned());
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
