//! The etcd v3 API as JSON over HTTP, beside gRPC on the same port, and what monitoring asks.
//!
//! Always: a request goes to the very service that serves it over gRPC, so the two cannot come to differ; names of fields
//! are those of the messages, 64-bit numbers are strings, bytes are base64, what is empty is left out, and an item of a
//! stream is one line (etcd's gateway). Left out: websockets.

mod flow;
mod front;
mod metrics;
mod monitoring;
mod streams;

pub(super) use front::Front;

use super::gateway::Gate;
use super::grpc::Services;
use crate::limits::GRPC_MESSAGE_BYTES_MAX;
use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tonic::{Code, Status};

/// Bytes of a request's body.
///
/// Derived: the largest message with all of its bytes in base64.
const BODY_BYTES_MAX: usize = GRPC_MESSAGE_BYTES_MAX / 3 * 4 + 4;

/// What serves gRPC, and JSON beside it.
fn beside(grpc: Router, gate: &Arc<Gate>) -> Router {
    let json = router(gate).layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    grpc.merge(json).fallback(nothing_here)
}

/// What serves JSON, by paths.
fn router(gate: &Arc<Gate>) -> Router {
    use super::grpc::stubs::kv_server::Kv as _;
    use super::grpc::stubs::lease_server::Lease as _;
    use super::grpc::stubs::maintenance_server::Maintenance as _;
    use super::grpc::stubs::{auth_server::Auth as _, cluster_server::Cluster as _};
    use super::grpc::{Election as _, Lock as _};
    let services = Arc::new(Services::new(gate));
    let mut router = Router::new();
    /// Paths, and the calls that serve them.
    macro_rules! serve {
        ($($path:literal => $service:ident.$call:ident;)*) => {$({
            let services = Arc::clone(&services);
            let serve = move |body: Bytes| {
                let services = Arc::clone(&services);
                async move {
                    match read(&body) {
                        Ok(message) => {
                            let answer = services.$service.$call(tonic::Request::new(message)).await;
                            answered(answer.map(tonic::Response::into_inner))
                        }
                        Err(status) => failed(&status),
                    }
                }
            };
            router = router.route($path, post(serve));
        })*};
    }
    serve! {
        "/v3/kv/range" => kv.range;
        "/v3/kv/put" => kv.put;
        "/v3/kv/deleterange" => kv.delete_range;
        "/v3/kv/txn" => kv.txn;
        "/v3/kv/compaction" => kv.compact;
        "/v3/lease/grant" => lease.lease_grant;
        "/v3/lease/revoke" => lease.lease_revoke;
        "/v3/kv/lease/revoke" => lease.lease_revoke;
        "/v3/lease/timetolive" => lease.lease_time_to_live;
        "/v3/kv/lease/timetolive" => lease.lease_time_to_live;
        "/v3/lease/leases" => lease.lease_leases;
        "/v3/kv/lease/leases" => lease.lease_leases;
        "/v3/cluster/member/list" => cluster.member_list;
        "/v3/maintenance/alarm" => maintenance.alarm;
        "/v3/maintenance/status" => maintenance.status;
        "/v3/maintenance/defragment" => maintenance.defragment;
        "/v3/maintenance/transfer-leadership" => maintenance.move_leader;
        "/v3/maintenance/hash" => maintenance.hash;
        "/v3/maintenance/hashkv" => maintenance.hash_kv;
        "/v3/auth/status" => auth.auth_status;
        "/v3/auth/enable" => auth.auth_enable;
        "/v3/auth/disable" => auth.auth_disable;
        "/v3/auth/authenticate" => auth.authenticate;
        "/v3/auth/user/add" => auth.user_add;
        "/v3/auth/user/get" => auth.user_get;
        "/v3/auth/user/list" => auth.user_list;
        "/v3/auth/user/delete" => auth.user_delete;
        "/v3/auth/user/changepw" => auth.user_change_password;
        "/v3/auth/user/grant" => auth.user_grant_role;
        "/v3/auth/user/revoke" => auth.user_revoke_role;
        "/v3/auth/role/add" => auth.role_add;
        "/v3/auth/role/get" => auth.role_get;
        "/v3/auth/role/list" => auth.role_list;
        "/v3/auth/role/delete" => auth.role_delete;
        "/v3/auth/role/grant" => auth.role_grant_permission;
        "/v3/auth/role/revoke" => auth.role_revoke_permission;
        "/v3/lock/lock" => lock.lock;
        "/v3/lock/unlock" => lock.unlock;
        "/v3/election/campaign" => election.campaign;
        "/v3/election/proclaim" => election.proclaim;
        "/v3/election/leader" => election.leader;
        "/v3/election/resign" => election.resign;
    }
    streams::routes(router, &services, gate).merge(monitoring::router(gate))
}

/// A path that nobody serves; over gRPC that is a status of its own.
async fn nothing_here(headers: HeaderMap) -> Response {
    if flow::is_grpc(&headers) {
        return Status::unimplemented("mainstay: no such call").into_http();
    }
    respond(StatusCode::NOT_FOUND, "text/plain", "404 page not found\n")
}

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, kind).body(body.into());
    response.expect("a status and one header make a response")
}

/// The message in a body; an empty body is an empty message.
fn read<M: DeserializeOwned>(body: &[u8]) -> Result<M, Status> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn answered<M: Serialize>(answer: Result<M, Status>) -> Response {
    match answer {
        Ok(message) => match serde_json::to_vec(&message) {
            Ok(json) => respond(StatusCode::OK, "application/json", json),
            Err(error) => failed(&Status::internal(error.to_string())),
        },
        Err(status) => failed(&status),
    }
}

#[derive(Serialize)]
struct Failure<'a> {
    error: &'a str,
    message: &'a str,
    code: i32,
}

/// A failure as etcd's gateway tells it.
fn failure(status: &Status) -> Vec<u8> {
    let words = status.message();
    let failure = Failure { error: words, message: words, code: status.code() as i32 };
    serde_json::to_vec(&failure).unwrap_or_default()
}

fn failed(status: &Status) -> Response {
    let code = match status.code() {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => StatusCode::BAD_REQUEST,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    respond(code, "application/json", failure(status))
}
