//! gRPC's own service for health: a member serves when it knows a leader.

use super::refused;
use super::services::health::health_server::{Health, HealthServer};
use crate::api::etcd::proto::grpc::health::v1 as pb;
use crate::server::gateway::Gate;
use pb::health_check_response::ServingStatus;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

/// How often a stream of health looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct HealthService(Arc<Gate>);

/// The service.
pub(super) fn service(gate: &Arc<Gate>) -> HealthServer<HealthService> {
    HealthServer::new(HealthService(Arc::clone(gate)))
}

async fn look(gate: &Gate) -> Result<pb::HealthCheckResponse, Status> {
    let (_, status) = gate.status().await.map_err(refused)?;
    let serving = if status.leader.is_some() { ServingStatus::Serving } else { ServingStatus::NotServing };
    Ok(pb::HealthCheckResponse { status: serving.into() })
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<pb::HealthCheckResponse>, Status> {
        if !request.into_inner().service.is_empty() {
            return Err(Status::not_found("unknown service"));
        }
        look(&self.0).await.map(Response::new)
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<pb::HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let gate = Arc::clone(&self.0);
        tokio::spawn(async move {
            let mut last = None;
            while !sender.is_closed() {
                let health = look(&gate).await;
                let is_over = health.is_err();
                let is_news = health.as_ref().ok().map(|health| health.status) != last;
                last = health.as_ref().ok().map(|health| health.status);
                if is_news && sender.send(health).await.is_err() || is_over {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))))
    }
}
