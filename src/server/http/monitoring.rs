//! What monitoring asks: is it well, is it alive, is it ready, which version is it.

use super::{metrics, respond};
use crate::api::ReadMode;
use crate::api::etcd::{ETCD_VERSION, Fault, Wish, counter};
use crate::kv::{KeyRange, Query, Range};
use crate::server::gateway::{Gate, as_member};
use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use std::sync::Arc;

/// The routes.
pub(super) fn router(gate: &Arc<Gate>) -> Router {
    let [health, live, ready, told] = [(); 4].map(|()| Arc::clone(gate));
    let health = move |uri: Uri| {
        let gate = Arc::clone(&health);
        async move { answer_health(&gate, &uri).await }
    };
    let live = move || {
        let gate = Arc::clone(&live);
        async move { answer_check(&gate, ReadMode::Serializable).await }
    };
    let ready = move || {
        let gate = Arc::clone(&ready);
        async move { answer_check(&gate, ReadMode::Linearizable).await }
    };
    let told = move || {
        let gate = Arc::clone(&told);
        async move { metrics::answer(&gate).await }
    };
    Router::new()
        .route("/health", get(health))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/version", get(version))
        .route("/metrics", get(told))
}

async fn version() -> Response {
    let own = env!("CARGO_PKG_VERSION");
    let text = format!(
        "{{\"etcdserver\":\"{ETCD_VERSION}\",\"etcdcluster\":\"{ETCD_VERSION}\",\"storage\":\"{ETCD_VERSION}\",\
         \"mainstay\":\"{own}\"}}"
    );
    respond(StatusCode::OK, "application/json", text)
}

/// Whether a read is served: any read, so whoever asks need not be a user.
async fn look(gate: &Gate, mode: ReadMode) -> Result<(), Fault> {
    let key = KeyRange::Key(Bytes::from_static(b"health"));
    let range = Range { count_only: true, ..Range::new(key) };
    as_member(gate.wish(Wish::Read(Query::Range(range), mode))).await.map(|_| ())
}

/// etcd's `/health`: a read is served and there is no alarm, unless the query excludes it.
async fn answer_health(gate: &Gate, uri: &Uri) -> Response {
    let query = uri.query().unwrap_or_default();
    let has = |wanted: &str| query.split('&').any(|part| part == wanted);
    let mode = if has("serializable=true") { ReadMode::Serializable } else { ReadMode::Linearizable };
    let reason = match gate.status().await {
        Err(_) => "RAFT NO LEADER",
        Ok((_, status)) if counter(&status, "space_alarm") > 0 && !has("exclude=NOSPACE") => "ALARM NOSPACE",
        Ok(_) => match look(gate, mode).await {
            Ok(()) => "",
            Err(Fault::NoLeader) => "RAFT NO LEADER",
            Err(_) => "QGET ERROR",
        },
    };
    if reason.is_empty() {
        return respond(StatusCode::OK, "application/json", "{\"health\":\"true\",\"reason\":\"\"}");
    }
    let body = format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}");
    respond(StatusCode::SERVICE_UNAVAILABLE, "application/json", body)
}

async fn answer_check(gate: &Gate, mode: ReadMode) -> Response {
    match look(gate, mode).await {
        Ok(()) => respond(StatusCode::OK, "text/plain", "ok\n"),
        Err(fault) => {
            let words = format!("not ok: {}\n", fault.text_and_code().0);
            respond(StatusCode::SERVICE_UNAVAILABLE, "text/plain", words)
        }
    }
}
