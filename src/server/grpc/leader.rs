//! Whoever asks with the metadata `hasleader` is served only where a leader is known (etcd's `WithRequireLeader`).
//!
//! Always: a call is refused when no leader is known as it comes; a stream of answers ends when none was known for three
//! election timeouts, so that its client goes to another member. Left out: what is answered.

use super::refused;
use crate::api::etcd::Fault;
use crate::server::gateway::Gate;
use axum::http::HeaderMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio_stream::Stream;
use tonic::Status;
use tonic::metadata::MetadataMap;

const WANTS_LEADER: &str = "hasleader";

/// A stream of answers.
pub(super) type Answers<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

/// Refuses a call with these headers if it wants a leader and none is known.
pub(in super::super) fn only_if_led(gate: &Gate, headers: &HeaderMap) -> Result<(), Status> {
    let wants_leader = headers.get(WANTS_LEADER).is_some_and(|value| value == "true");
    if wants_leader && !gate.is_led() { Err(refused(Fault::NoLeader)) } else { Ok(()) }
}

/// The answers, for as long as a leader is known if the client wants that.
pub(super) fn while_led<M: 'static>(
    gate: &Arc<Gate>,
    metadata: &MetadataMap,
    answers: Answers<M>,
) -> Answers<M> {
    if metadata.get(WANTS_LEADER).is_none_or(|value| value != "true") {
        return answers;
    }
    Box::pin(WhileLed { answers: Some(answers), leader_lost: Box::pin(Arc::clone(gate).leader_lost()) })
}

struct WhileLed<M> {
    /// None once they were ended.
    answers: Option<Answers<M>>,
    leader_lost: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<M> Stream for WhileLed<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(answers) = &mut self.answers else { return Poll::Ready(None) };
        if let Poll::Ready(answer) = answers.as_mut().poll_next(context) {
            return Poll::Ready(answer);
        }
        if self.leader_lost.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.answers = None;
        Poll::Ready(Some(Err(refused(Fault::NoLeader))))
    }
}
