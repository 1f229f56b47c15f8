//! What flows between HTTP and the services, bounded in both directions.
//!
//! Always: room for a message is there before the message is let in, by the length that it claims; a message that was begun
//! ends in time; a long answer is handed on in pieces, each when the client has taken those before, and counts until the
//! last one. Whatever is beyond the bounds is refused as *resource exhausted*, or in the case of time ended. Left out:
//! connections, headers and windows (`thread`).

use crate::limits::{
    GATEWAY_INBOUND_BYTES_MAX, GATEWAY_MESSAGE_MILLIS_MAX, GATEWAY_OUTBOUND_BYTES_MAX, GATEWAY_PIECE_BYTES,
    GRPC_MESSAGE_BYTES_MAX,
};
use axum::BoxError;
use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, Request, Response, header};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;
use tonic::Status;

/// Bytes of the head of a message of gRPC: whether it is compressed, and its length.
const MESSAGE_HEAD_BYTES: usize = 5;

/// The calls whose clients send any number of messages, for as long as they like.
const CONVERSATIONS: [&str; 4] = [
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Bytes of which there are so many for all.
#[derive(Debug)]
struct Budget {
    taken: AtomicUsize,
    max: usize,
}

/// Bytes taken from a budget, until dropped.
#[derive(Debug)]
struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), max })
    }

    /// So many bytes, if they are there or nobody else has any.
    fn take(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        let before = self.taken.fetch_add(bytes, Ordering::Relaxed);
        let share = Share { budget: Arc::clone(self), bytes };
        (before == 0 || before.saturating_add(bytes) <= self.max).then_some(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A body of either direction.
pub(super) trait Part: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin {}

impl<B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin> Part for B {}

/// The budgets of one gateway.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    inbound: Arc<Budget>,
    outbound: Arc<Budget>,
}

impl Flow {
    pub(super) fn new() -> Self {
        Self {
            inbound: Budget::new(GATEWAY_INBOUND_BYTES_MAX),
            outbound: Budget::new(GATEWAY_OUTBOUND_BYTES_MAX),
        }
    }

    /// A request whose body is bounded.
    pub(super) fn let_in<B: Part>(&self, request: Request<B>, is_grpc: bool) -> Request<Inbound<B>> {
        let is_conversation = CONVERSATIONS.contains(&request.uri().path());
        request.map(|body| Inbound::new(body, Arc::clone(&self.inbound), is_grpc, is_conversation))
    }

    /// An answer whose body is bounded.
    pub(super) fn let_out<B: Part + Send + 'static>(&self, response: Response<B>) -> Response<Body> {
        let is_grpc = is_grpc(response.headers());
        response.map(|body| Body::new(Outbound::new(body, Arc::clone(&self.outbound), is_grpc)))
    }
}

pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/grpc"))
}

fn exhausted(words: &'static str) -> Status {
    Status::resource_exhausted(words)
}

/// What a client sends.
#[derive(Debug)]
pub(super) struct Inbound<B> {
    body: B,
    budget: Arc<Budget>,
    is_grpc: bool,
    is_conversation: bool,
    /// Bytes of a message's head that have come.
    head: Vec<u8>,
    /// Bytes of the message that have not come.
    left: usize,
    shares: Vec<Share>,
    /// When the message, or the body, must have ended.
    until: Option<Pin<Box<Sleep>>>,
}

impl<B: Part> Inbound<B> {
    fn new(body: B, budget: Arc<Budget>, is_grpc: bool, is_conversation: bool) -> Self {
        let (head, shares) = (Vec::new(), Vec::new());
        let mut this = Self { body, budget, is_grpc, is_conversation, head, left: 0, shares, until: None };
        if !is_conversation && !this.body.is_end_stream() {
            this.begin();
        }
        this
    }

    fn begin(&mut self) {
        let patience = Duration::from_millis(GATEWAY_MESSAGE_MILLIS_MAX);
        self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
    }

    /// Finds room for what has come, and for what is to come with it.
    fn came(&mut self, mut bytes: &[u8]) -> Result<(), Status> {
        if !self.is_grpc {
            self.take(bytes.len())?;
            return Ok(());
        }
        while !bytes.is_empty() {
            if self.left > 0 {
                let (_, rest) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= bytes.len() - rest.len();
                bytes = rest;
            } else {
                let wanted = MESSAGE_HEAD_BYTES - self.head.len();
                let (head, rest) = bytes.split_at(wanted.min(bytes.len()));
                self.head.extend_from_slice(head);
                bytes = rest;
                self.begin();
                let [_, length @ ..] = self.head.as_slice() else { continue };
                let Ok(length) = <[u8; 4]>::try_from(length) else { continue };
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.head.clear();
                if self.left > GRPC_MESSAGE_BYTES_MAX {
                    return Err(exhausted("grpc: received message larger than max"));
                }
                self.take(self.left)?;
            }
            if self.left == 0 && self.head.is_empty() {
                self.shares.clear();
                if self.is_conversation {
                    self.until = None;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Result<(), Status> {
        let share = self.budget.take(bytes).ok_or_else(|| exhausted("etcdserver: too many requests"))?;
        self.shares.push(share);
        Ok(())
    }
}

impl<B: Part> HttpBody for Inbound<B> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let came = frame.data_ref().map_or(Ok(()), |bytes| this.came(bytes));
                Poll::Ready(Some(came.map(|()| frame).map_err(axum::Error::new)))
            }
            Poll::Ready(ended) => {
                this.until = None;
                Poll::Ready(ended.map(|ended| ended.map_err(axum::Error::new)))
            }
            Poll::Pending => {
                let Some(until) = &mut this.until else { return Poll::Pending };
                ready!(until.as_mut().poll(context));
                let late = Status::deadline_exceeded("mainstay: the request did not end in time");
                Poll::Ready(Some(Err(axum::Error::new(late))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What a client is sent.
#[derive(Debug)]
struct Outbound<B> {
    body: B,
    budget: Arc<Budget>,
    is_grpc: bool,
    /// What is left of a long part, and its bytes in the budget.
    rest: Option<(Bytes, Share)>,
    /// There was no room: nothing more is sent.
    is_refused: bool,
}

impl<B: Part> Outbound<B> {
    const fn new(body: B, budget: Arc<Budget>, is_grpc: bool) -> Self {
        Self { body, budget, is_grpc, rest: None, is_refused: false }
    }

    /// The next piece of what is left.
    fn piece(&mut self) -> Option<Bytes> {
        let (rest, share) = self.rest.take()?;
        let mut rest = rest;
        let piece = rest.split_to(rest.len().min(GATEWAY_PIECE_BYTES));
        if !rest.is_empty() {
            self.rest = Some((rest, share));
        }
        Some(piece)
    }

    /// The end, for want of room.
    fn refuse(&mut self) -> Result<Frame<Bytes>, axum::Error> {
        self.is_refused = true;
        let status =
            exhausted("mainstay: too many long answers wait for their clients; take them, or ask for less");
        let mut trailers = HeaderMap::new();
        if self.is_grpc && status.add_header(&mut trailers).is_ok() {
            return Ok(Frame::trailers(trailers));
        }
        Err(axum::Error::new(status))
    }
}

impl<B: Part> HttpBody for Outbound<B> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if let Some(piece) = this.piece() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if this.is_refused {
            return Poll::Ready(None);
        }
        let frame = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(axum::Error::new(error)))),
            None => return Poll::Ready(None),
        };
        Poll::Ready(Some(match frame.into_data() {
            Ok(bytes) if bytes.len() <= GATEWAY_PIECE_BYTES => Ok(Frame::data(bytes)),
            Ok(bytes) => match this.budget.take(bytes.len()) {
                Some(share) => {
                    this.rest = Some((bytes, share));
                    Ok(Frame::data(this.piece().unwrap_or_default()))
                }
                None => this.refuse(),
            },
            Err(trailers) => Ok(trailers),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && (self.is_refused || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if self.rest.is_some() || self.is_refused { SizeHint::default() } else { self.body.size_hint() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(
        body: &mut (impl HttpBody<Data = Bytes, Error = axum::Error> + Unpin),
    ) -> Option<Result<Bytes, String>> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        match Pin::new(body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => Some(frame.into_data().map_err(|_| "trailers".to_owned())),
            Poll::Ready(Some(Err(error))) => Some(Err(error.to_string())),
            Poll::Ready(None) | Poll::Pending => None,
        }
    }

    #[test]
    fn a_long_answer_leaves_in_pieces_and_counts_until_the_last() {
        let budget = Budget::new(10 * GATEWAY_PIECE_BYTES);
        let long = vec![7; 3 * GATEWAY_PIECE_BYTES - 1];
        let mut body = Outbound::new(Body::from(long.clone()), Arc::clone(&budget), true);
        let mut came = Vec::new();
        for left in [2, 1, 0] {
            let piece = poll(&mut body).expect("a piece").expect("a piece");
            assert!(piece.len() <= GATEWAY_PIECE_BYTES);
            came.extend_from_slice(&piece);
            assert_eq!(budget.taken.load(Ordering::Relaxed) > 0, left > 0);
        }
        assert_eq!((came == long, poll(&mut body)), (true, None));
    }

    #[test]
    fn an_answer_that_finds_no_room_is_refused_and_the_first_always_finds_some() {
        let budget = Budget::new(4 * GATEWAY_PIECE_BYTES);
        let body = |pieces: usize| {
            Outbound::new(Body::from(vec![7; pieces * GATEWAY_PIECE_BYTES]), Arc::clone(&budget), true)
        };
        let mut first = body(100);
        assert!(poll(&mut first).expect("a piece").is_ok());
        let mut second = body(2);
        assert_eq!(poll(&mut second), Some(Err("trailers".to_owned())));
        assert_eq!(poll(&mut second), None);
        assert!(poll(&mut body(1)).expect("a short answer").is_ok());
        drop(first);
        assert!(poll(&mut body(2)).expect("there is room again").is_ok());
    }

    /// A body that a test gives to bit by bit.
    fn fed() -> (tokio::sync::mpsc::UnboundedSender<Result<Bytes, std::convert::Infallible>>, Body) {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        (sender, Body::from_stream(tokio_stream::wrappers::UnboundedReceiverStream::new(receiver)))
    }

    #[test]
    fn a_message_is_refused_by_the_length_that_it_claims() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let _inside = runtime.enter();
        let budget = Budget::new(3 * GRPC_MESSAGE_BYTES_MAX / 2);
        let head = |length: usize| {
            let length = u32::try_from(length).expect("short").to_be_bytes();
            Ok(Bytes::from([&[0], length.as_slice()].concat()))
        };
        let (give, body) = fed();
        let mut first = Inbound::new(body, Arc::clone(&budget), true, true);
        give.send(head(GRPC_MESSAGE_BYTES_MAX)).expect("it is heard");
        assert!(poll(&mut first).expect("the head").is_ok());
        let (give_other, body) = fed();
        let mut second = Inbound::new(body, Arc::clone(&budget), true, true);
        give_other.send(head(GRPC_MESSAGE_BYTES_MAX)).expect("it is heard");
        let refused = poll(&mut second).expect("an answer").expect_err("there is no room for another");
        assert!(refused.contains("too many requests"), "{refused}");
        drop(second);
        // All of it comes: what it took is there again.
        give.send(Ok(Bytes::from(vec![1; GRPC_MESSAGE_BYTES_MAX]))).expect("it is heard");
        assert!(poll(&mut first).expect("the message").is_ok());
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
        assert!(first.until.is_none(), "nothing is awaited in a hurry");
        give.send(head(GRPC_MESSAGE_BYTES_MAX + 1)).expect("it is heard");
        let refused = poll(&mut first).expect("an answer").expect_err("it is too long");
        assert!(refused.contains("larger than max"), "{refused}");
    }

    #[test]
    fn a_message_that_was_begun_ends_in_time_or_is_ended() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let (_give, body) = fed();
            let mut never = Inbound::new(body, Budget::new(1), true, false);
            never.until = Some(Box::pin(tokio::time::sleep(Duration::from_millis(1))));
            let ended = std::future::poll_fn(|context| Pin::new(&mut never).poll_frame(context)).await;
            let error = ended.expect("an answer").expect_err("it is late").to_string();
            assert!(error.contains("did not end in time"), "{error}");
        });
    }
}
