//! Who asks, in all that is done for one request.
//!
//! Always: it is found before the request is looked at, from the token that comes with it, and nothing that is asked of the
//! shard for it says otherwise; a task that goes on with it takes it along. Whoever forgets that asks as nobody, and is
//! refused where permissions count. Left out: what anybody may do, which the shard decides; what is in a token.

use super::Gate;
use crate::api::etcd::Fault;
use crate::auth::Who;
use axum::http::{HeaderMap, HeaderValue};
use std::sync::Arc;
use tokio::task::JoinHandle;

tokio::task_local! {
    static ASKER: Who;
}

/// Where clients put a token: those of gRPC, and those of JSON (etcd's names).
const TOKENS: [&str; 2] = ["token", "authorization"];

/// Who asks here.
pub(in super::super) fn asker() -> Who {
    ASKER.try_with(|who| *who).unwrap_or(Who::Nobody)
}

/// Goes on, on its own, for whoever asks here.
pub(in super::super) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    tokio::spawn(ASKER.scope(asker(), future))
}

/// Asks for the member itself, of what tells nothing to whoever asks here.
pub(in super::super) async fn as_member<T>(asking: impl Future<Output = T>) -> T {
    ASKER.scope(Who::Cluster, asking).await
}

/// The token that is among `headers`.
pub(in super::super) fn token(headers: &HeaderMap) -> Option<HeaderValue> {
    TOKENS.iter().find_map(|name| headers.get(*name)).cloned()
}

/// Does what `serving` does for whoever brings `token`. Without one nothing is looked up.
///
/// # Errors
/// It is no token of this cluster, or has run out.
pub(in super::super) async fn found<T>(
    gate: &Arc<Gate>,
    token: Option<HeaderValue>,
    serving: impl Future<Output = T>,
) -> Result<T, Fault> {
    let Some(token) = token else {
        return Ok(serving.await);
    };
    let who = gate.whose_token(token.as_bytes()).await?;
    Ok(ASKER.scope(who, serving).await)
}
