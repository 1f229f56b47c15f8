//! Locks by name: a key per holder under the name, in the order of their creation (etcd's `v3lock`).
//!
//! Always: whoever waits, waits for the one key before its own to go; whoever gives up waiting leaves no key behind.
//! Everything is made of transactions and watches that any client could make; nothing here is a promise of its own.

use super::queue::{Place, in_line, session_lease};
use super::refused;
use super::services::lock::lock_server::{Lock, LockServer};
use crate::api::etcd::proto::v3lockpb as pb;
use crate::kv::{Command, DeleteRange, KeyRange};
use crate::server::gateway::Gate;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub(in super::super) struct LockService(pub(super) Arc<Gate>);

/// The service, as it is served over gRPC.
pub(super) fn service(gate: &Arc<Gate>) -> LockServer<LockService> {
    LockServer::new(LockService(Arc::clone(gate)))
}

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<pb::LockRequest>) -> Result<Response<pb::LockResponse>, Status> {
        let pb::LockRequest { name, lease } = request.into_inner();
        let lease = session_lease(&self.0, lease).await?;
        let Place { header, key, .. } = in_line(&self.0, &name, lease, bytes::Bytes::new()).await?;
        Ok(Response::new(pb::LockResponse { header: Some(header), key }))
    }

    async fn unlock(
        &self,
        request: Request<pb::UnlockRequest>,
    ) -> Result<Response<pb::UnlockResponse>, Status> {
        let range = crate::api::etcd::key_range(request.into_inner().key, bytes::Bytes::new());
        let KeyRange::Key(key) = range.map_err(refused)? else {
            return Err(refused(crate::api::etcd::Fault::Unexpected));
        };
        let delete = DeleteRange { range: KeyRange::Key(key), wants_previous: false };
        let wish = crate::api::etcd::Wish::Write(Command::DeleteRange(delete));
        let (standing, applied) = self.0.wish(wish).await.map_err(refused)?;
        Ok(Response::new(pb::UnlockResponse { header: Some(standing.header(applied.revision)) }))
    }
}
