//! The service `Lease`.

use super::leader::{Answers, while_led};
use super::{refused, stubs};
use crate::api::etcd::proto::etcdserverpb as pb;
use crate::api::etcd::{self, Wish, lease_id};
use crate::api::{ReadMode, Request as Asked};
use crate::ids::KeyspaceId;
use crate::kv::Query;
use crate::server::gateway::{Gate, spawn};
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

/// The service.
#[derive(Debug)]
pub(in super::super) struct LeaseService(pub(super) Arc<Gate>);

/// Renewals of one stream that are answered and not sent yet.
///
/// Chosen: a client that takes nothing is not renewed for either.
const RENEWALS_WAITING_MAX: usize = 16;

#[tonic::async_trait]
impl stubs::lease_server::Lease for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let wish = etcd::lease_grant(request.into_inner()).map_err(refused)?;
        let (standing, applied) = self.0.wish(wish).await.map_err(refused)?;
        etcd::grant_answer(standing, applied).map(Response::new).map_err(refused)
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let wish = etcd::lease_revoke(request.into_inner());
        let (standing, applied) = self.0.wish(wish).await.map_err(refused)?;
        etcd::revoke_answer(standing, applied).map(Response::new).map_err(refused)
    }

    type LeaseKeepAliveStream = Answers<pb::LeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(RENEWALS_WAITING_MAX);
        let (metadata, _, mut requests) = request.into_parts();
        let gate = Arc::clone(&self.0);
        spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let answer = renew(&gate, request.id).await;
                let has_failed = answer.is_err();
                if sender.send(answer).await.is_err() || has_failed {
                    return;
                }
            }
        });
        let answers = Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver));
        Ok(Response::new(while_led(&self.0, &metadata, answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let pb::LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let asked = Asked::TimeToLive { keyspace: KeyspaceId::FIRST, lease: lease_id(id), wants_keys: keys };
        let (standing, applied) = self.0.applied(asked).await.map_err(refused)?;
        etcd::time_to_live_answer(standing, id, applied).map(Response::new).map_err(refused)
    }

    async fn lease_leases(
        &self,
        _: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let wish = Wish::Read(Query::Leases, ReadMode::Linearizable);
        let (standing, applied) = self.0.wish(wish).await.map_err(refused)?;
        etcd::leases_answer(standing, applied).map(Response::new).map_err(refused)
    }
}

/// Renews a lease once.
pub(in super::super) async fn renew(gate: &Gate, id: i64) -> Result<pb::LeaseKeepAliveResponse, Status> {
    let asked = Asked::KeepAlive { keyspace: KeyspaceId::FIRST, lease: lease_id(id) };
    let (standing, applied) = gate.applied(asked).await.map_err(refused)?;
    etcd::keep_alive_answer(standing, id, applied).map_err(refused)
}
