//! Calls that are streams: the body is one message after the other, the answer is a line for each item.

use super::{Services, failed, failure, respond};
use crate::api::etcd::proto::etcdserverpb::{LeaseKeepAliveRequest, SnapshotRequest};
use crate::server::gateway::Gate;
use crate::server::grpc::{converse, renew};
use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::sync::Arc;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

/// Adds the routes.
pub(super) fn routes(router: Router, services: &Arc<Services>, gate: &Arc<Gate>) -> Router {
    use crate::server::grpc::Election as _;
    use crate::server::grpc::stubs::maintenance_server::Maintenance as _;
    let watching = Arc::clone(gate);
    let watch = move |body: Bytes| {
        let gate = Arc::clone(&watching);
        async move {
            match read_all(&body) {
                Ok(requests) => lines(converse(&gate, tokio_stream::iter(requests))),
                Err(status) => failed(&status),
            }
        }
    };
    let renewing = Arc::clone(gate);
    let keep_alive = move |body: Bytes| {
        let gate = Arc::clone(&renewing);
        async move {
            let requests = match read_all::<LeaseKeepAliveRequest>(&body) {
                Ok(requests) => requests,
                Err(status) => return failed(&status),
            };
            let mut answers = Vec::with_capacity(requests.len());
            for request in requests {
                answers.push(renew(&gate, request.id).await);
            }
            lines(tokio_stream::iter(answers))
        }
    };
    let observing = Arc::clone(services);
    let observe = move |body: Bytes| {
        let services = Arc::clone(&observing);
        async move {
            let request = match super::read(&body) {
                Ok(request) => request,
                Err(status) => return failed(&status),
            };
            match services.election.observe(tonic::Request::new(request)).await {
                Ok(answers) => lines(answers.into_inner()),
                Err(status) => failed(&status),
            }
        }
    };
    let dumping = Arc::clone(services);
    let snapshot = move || {
        let services = Arc::clone(&dumping);
        async move {
            match services.maintenance.snapshot(tonic::Request::new(SnapshotRequest {})).await {
                Ok(pieces) => lines(pieces.into_inner()),
                Err(status) => failed(&status),
            }
        }
    };
    router
        .route("/v3/watch", post(watch))
        .route("/v3/maintenance/snapshot", post(snapshot))
        .route("/v3/lease/keepalive", post(keep_alive))
        .route("/v3/election/observe", post(observe))
}

/// All messages of a body.
fn read_all<M: DeserializeOwned>(body: &[u8]) -> Result<Vec<M>, Status> {
    let messages = serde_json::Deserializer::from_slice(body).into_iter();
    messages.collect::<Result<_, _>>().map_err(|error| Status::invalid_argument(error.to_string()))
}

#[derive(Serialize)]
struct Item<M> {
    result: M,
}

fn lines<M: Serialize + 'static>(
    answers: impl Stream<Item = Result<M, Status>> + Send + 'static,
) -> Response {
    let lines = answers.map(|answer| {
        let mut line = match answer {
            Ok(result) => serde_json::to_vec(&Item { result }).unwrap_or_default(),
            Err(status) => {
                let mut line = b"{\"error\":".to_vec();
                line.extend(failure(&status));
                line.push(b'}');
                line
            }
        };
        line.push(b'\n');
        Ok::<_, Infallible>(line)
    });
    respond(StatusCode::OK, "application/json", Body::from_stream(lines))
}
