//! The service `KV`.

use super::leader::{Answers, while_led};
use super::parts::Parts;
use super::{refused, stubs};
use crate::api::etcd::proto::etcdserverpb as pb;
use crate::api::etcd::{self, Fault, Standing, Wish};
use crate::kv::{Applied, Query};
use crate::server::gateway::{Gate, spawn};
use std::sync::Arc;
use tokio::sync::mpsc::Sender;
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

/// Tells pairs part after part; what is of all of them comes with the last.
async fn tell_parts(
    mut parts: Parts,
    sender: &Sender<Result<pb::RangeStreamResponse, Status>>,
) -> Result<(), Status> {
    let mut count = 0;
    while let Some(part) = parts.next().await? {
        count += part.pairs.len() as u64;
        let mut response = pb::RangeResponse::default();
        if part.is_last {
            let rest = if part.more { parts.count_rest().await? } else { 0 };
            response.header = Some(part.standing.header(part.newest));
            response.more = part.more;
            response.count = i64::try_from(count + rest).unwrap_or(i64::MAX);
        }
        response.kvs = part.pairs.into_iter().map(etcd::key_value).collect();
        if sender.send(Ok(pb::RangeStreamResponse { range_response: Some(response) })).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
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

    type RangeStreamStream = Answers<pb::RangeStreamResponse>;

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (range, mode) = etcd::range_stream(request.clone()).map_err(refused)?;
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        if range.count_only {
            let (standing, applied) =
                self.0.wish(Wish::Read(Query::Range(range), mode)).await.map_err(refused)?;
            let counted = etcd::range_answer(standing, applied).map_err(refused)?;
            // There is room for one.
            let _ = sender.send(Ok(pb::RangeStreamResponse { range_response: Some(counted) })).await;
        } else {
            let parts = Parts::new(&self.0, range, mode);
            spawn(async move {
                if let Err(status) = tell_parts(parts, &sender).await {
                    // The client may be gone.
                    let _ = sender.send(Err(status)).await;
                }
            });
        }
        let answers = Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver));
        Ok(Response::new(while_led(&self.0, &metadata, answers)))
    }
}
