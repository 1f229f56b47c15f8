//! The service `KV`.

use super::{refused, stubs};
use crate::api::etcd::proto::etcdserverpb as pb;
use crate::api::etcd::{self, Fault, Standing, Wish};
use crate::kv::Applied;
use crate::server::gateway::Gate;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub(in super::super) struct KvService(pub(super) Arc<Gate>);

impl KvService {
    async fn serve<M>(
        &self,
        wish: Result<Wish, Fault>,
        answer: impl FnOnce(Standing, Applied) -> Result<M, Fault> + Send,
    ) -> Result<Response<M>, Status> {
        let (standing, applied) = self.0.wish(wish.map_err(refused)?).await.map_err(refused)?;
        answer(standing, applied).map(Response::new).map_err(refused)
    }
}

#[tonic::async_trait]
impl stubs::kv_server::Kv for KvService {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        self.serve(etcd::range(request.into_inner()), etcd::range_answer).await
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        self.serve(etcd::put(request.into_inner()), etcd::put_answer).await
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        self.serve(etcd::delete_range(request.into_inner()), etcd::delete_answer).await
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        self.serve(etcd::txn(request.into_inner()), etcd::txn_answer).await
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        self.serve(etcd::compact(request.into_inner()), etcd::compact_answer).await
    }
}
