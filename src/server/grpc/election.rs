//! Elections by name: who is first in line leads, and what its key holds is what it proclaims (etcd's `v3election`).

use super::leader::{Answers, while_led};
use super::queue::{Place, first, if_created_at, in_line, put_if_created_at, session_lease, under};
use super::refused;
use super::services::election::election_server::{Election, ElectionServer};
use crate::api::etcd::proto::v3electionpb as pb;
use crate::api::etcd::{Fault, key_value, lease_id, number};
use crate::api::{Response as Answer, WatchRequest};
use crate::ids::{KeyspaceId, LeaseId, Revision, WatchId};
use crate::kv::{DeleteRange, KeyRange, Operation};
use crate::server::gateway::{Gate, Told, spawn};
use crate::watch::{Interest, WatchSpec};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub(in super::super) struct ElectionService(pub(super) Arc<Gate>);

/// The service, as it is served over gRPC.
pub(super) fn service(gate: &Arc<Gate>) -> ElectionServer<ElectionService> {
    ElectionServer::new(ElectionService(Arc::clone(gate)))
}

/// The key that a leader was given, with its revision and its lease.
fn held(leader: Option<pb::LeaderKey>) -> Result<(bytes::Bytes, Revision, LeaseId), Status> {
    let leader = leader.ok_or_else(|| Status::unknown("\"leader\" field must be provided"))?;
    if leader.key.is_empty() {
        return Err(refused(Fault::EmptyKey));
    }
    Ok((leader.key, Revision(leader.rev.cast_unsigned()), lease_id(leader.lease)))
}

#[tonic::async_trait]
impl Election for ElectionService {
    async fn campaign(
        &self,
        request: Request<pb::CampaignRequest>,
    ) -> Result<Response<pb::CampaignResponse>, Status> {
        let pb::CampaignRequest { name, lease, value } = request.into_inner();
        let lease = session_lease(&self.0, lease).await?;
        let Place { header, key, revision } = in_line(&self.0, &name, lease, value).await?;
        let leader = pb::LeaderKey { name, key, rev: number(revision), lease: lease.0.cast_signed() };
        Ok(Response::new(pb::CampaignResponse { header: Some(header), leader: Some(leader) }))
    }

    async fn proclaim(
        &self,
        request: Request<pb::ProclaimRequest>,
    ) -> Result<Response<pb::ProclaimResponse>, Status> {
        let pb::ProclaimRequest { leader, value } = request.into_inner();
        let (key, revision, lease) = held(leader)?;
        match put_if_created_at(&self.0, &key, revision, lease, value).await? {
            Some(header) => Ok(Response::new(pb::ProclaimResponse { header: Some(header) })),
            None => Err(Status::unknown("election: not leader")),
        }
    }

    async fn leader(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<pb::LeaderResponse>, Status> {
        let (header, leader) = first(&self.0, &request.into_inner().name).await?;
        let leader = leader.ok_or_else(|| Status::unknown("election: no leader"))?;
        Ok(Response::new(pb::LeaderResponse { header: Some(header), kv: Some(key_value(leader)) }))
    }

    type ObserveStream = Answers<pb::LeaderResponse>;

    async fn observe(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let (metadata, _, request) = request.into_parts();
        let (gate, name) = (Arc::clone(&self.0), request.name);
        spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                ended = observe(&gate, &name, &sender) => {
                    if let Err(status) = ended {
                        // The client may be gone.
                        let _ = sender.send(Err(status)).await;
                    }
                }
            }
        });
        let answers = Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver));
        Ok(Response::new(while_led(&self.0, &metadata, answers)))
    }

    async fn resign(
        &self,
        request: Request<pb::ResignRequest>,
    ) -> Result<Response<pb::ResignResponse>, Status> {
        let (key, revision, _) = held(request.into_inner().leader)?;
        let delete = DeleteRange { range: KeyRange::Key(key.clone()), wants_previous: false };
        let header = if_created_at(&self.0, &key, revision, Operation::DeleteRange(delete)).await?;
        Ok(Response::new(pb::ResignResponse { header }))
    }
}

/// Tells of every leader, and of everything it proclaims that is the newest when it is looked at.
async fn observe(
    gate: &Arc<Gate>,
    name: &bytes::Bytes,
    sender: &tokio::sync::mpsc::Sender<Result<pb::LeaderResponse, Status>>,
) -> Result<(), Status> {
    let mut last_told = None;
    loop {
        let (header, leader) = first(gate, name).await?;
        let seen_at = Revision(header.revision.cast_unsigned());
        if let Some(leader) = leader
            && last_told != Some(leader.mod_revision)
        {
            last_told = Some(leader.mod_revision);
            let answer = pb::LeaderResponse { header: Some(header), kv: Some(key_value(leader)) };
            if sender.send(Ok(answer)).await.is_err() {
                return Ok(());
            }
        }
        wait_for_change(gate, name, seen_at).await?;
    }
}

/// Waits until something under the name is not as it was at `seen_at`.
async fn wait_for_change(gate: &Arc<Gate>, name: &bytes::Bytes, seen_at: Revision) -> Result<(), Status> {
    let interest = Interest::all(under(name));
    let spec = WatchSpec { interest, start: seen_at.next(), wants_progress: false };
    let mut stream = gate.open_stream();
    stream.ask(WatchId(1), WatchRequest::Create { keyspace: KeyspaceId::FIRST, spec }).map_err(refused)?;
    loop {
        match stream.next().await {
            None => return Err(refused(Fault::Stopped)),
            Some(Told::Answer { response: Answer::Refused(refusal), .. }) => {
                return Err(refused(refusal.into()));
            }
            Some(Told::Answer { .. }) => {}
            Some(Told::Batch { batch, .. }) if batch.events.is_empty() => {}
            Some(Told::Batch { .. } | Told::Ended { .. }) => return Ok(()),
        }
    }
}
