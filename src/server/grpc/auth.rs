//! The service `Auth`: there are no users yet, and it says so.

use super::{refused, stubs};
use crate::api::etcd::Fault;
use crate::api::etcd::proto::etcdserverpb as pb;
use crate::server::gateway::Gate;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub(in super::super) struct AuthService(pub(super) Arc<Gate>);

#[tonic::async_trait]
impl stubs::auth_server::Auth for AuthService {
    async fn auth_enable(
        &self,
        _: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        Err(refused(Fault::NotBuilt("mainstay: there are no users and no permissions yet")))
    }

    async fn auth_disable(
        &self,
        _: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let (standing, status) = self.0.status().await.map_err(refused)?;
        let header = Some(standing.header(status.revision));
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        _: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let (standing, status) = self.0.status().await.map_err(refused)?;
        let header = Some(standing.header(status.revision));
        Ok(Response::new(pb::AuthStatusResponse { header, enabled: false, auth_revision: 1 }))
    }

    async fn authenticate(
        &self,
        _: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        Err(refused(Fault::Auth(crate::auth::AuthRefusal::NotEnabled)))
    }
}
