//! The service `Cluster`: who the members are. They cannot be changed yet.

use super::{refused, stubs};
use crate::api::etcd::proto::etcdserverpb as pb;
use crate::api::etcd::{self, Fault};
use crate::server::gateway::Gate;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub(in super::super) struct ClusterService(pub(super) Arc<Gate>);

fn fixed<M>() -> Result<Response<M>, Status> {
    Err(refused(Fault::NotBuilt("mainstay: the members of a cluster are fixed when it is founded")))
}

#[tonic::async_trait]
impl stubs::cluster_server::Cluster for ClusterService {
    async fn member_list(
        &self,
        _: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        self.0.only_users().await.map_err(refused)?;
        let (standing, status) = self.0.status().await.map_err(refused)?;
        let header = Some(standing.header(status.revision));
        Ok(Response::new(pb::MemberListResponse { header, members: etcd::members(&status) }))
    }

    async fn member_add(
        &self,
        _: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        fixed()
    }

    async fn member_remove(
        &self,
        _: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        fixed()
    }

    async fn member_update(
        &self,
        _: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        fixed()
    }

    async fn member_promote(
        &self,
        _: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        fixed()
    }
}
