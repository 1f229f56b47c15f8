//! Where every request of an etcd client comes in, and every answer leaves.
//!
//! Always: what flows is bounded, whoever asks is found by the token that came along, and a gRPC client that wants a leader
//! is refused where none is known, all of it before the request is looked at. Calls of the store, which are most, go straight
//! to their service, past the table of paths. Left out: that table (`super::beside`, `grpc::router`), and connections.

use super::flow::{Flow, is_grpc};
use super::{beside, failed};
use crate::server::gateway::{Gate, found, token};
use crate::server::grpc::{self, Store, only_if_led, refused};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use std::sync::Arc;
use tonic::codegen::Service as _;

/// Paths of those who are about to say who they are: what they said before does not matter (etcd's rule).
const LOGINS: [&str; 2] = ["/etcdserverpb.Auth/Authenticate", "/v3/auth/authenticate"];

/// What the paths of the store's calls begin with.
const STORE: &str = "/etcdserverpb.KV/";

/// All that is served on the client port.
#[derive(Debug)]
pub(in super::super) struct Front {
    gate: Arc<Gate>,
    flow: Flow,
    store: Store,
    rest: Router,
}

impl Front {
    pub(in super::super) fn new(gate: Arc<Gate>) -> Self {
        let rest = beside(grpc::router(&gate), &gate);
        Self { flow: Flow::new(), store: grpc::store(&gate), rest, gate }
    }

    /// Answers one request.
    pub(in super::super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let is_grpc = is_grpc(request.headers());
        if is_grpc && let Err(status) = only_if_led(&self.gate, request.headers()) {
            return status.into_http();
        }
        let is_login = LOGINS.contains(&request.uri().path());
        let token = if is_login { None } else { token(request.headers()) };
        match found(&self.gate, token, self.serve(request, is_grpc)).await {
            Ok(response) => response,
            Err(fault) if is_grpc => refused(fault).into_http(),
            Err(fault) => failed(&refused(fault)),
        }
    }

    async fn serve(&self, request: Request<Incoming>, is_grpc: bool) -> Response<Body> {
        let is_store = is_grpc && request.uri().path().starts_with(STORE);
        let request = self.flow.let_in(request, is_grpc);
        if is_store {
            let Ok(response) = self.store.clone().call(request).await;
            return self.flow.let_out(response);
        }
        let Ok(response) = self.rest.clone().call(request.map(Body::new)).await;
        self.flow.let_out(response)
    }
}
