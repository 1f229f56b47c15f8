//! A client of the etcd API that knows paths and messages, and nothing else.

use bytes::{Buf, BufMut, Bytes};
use mainstay::api::etcd::proto::etcdserverpb as pb;
use std::net::SocketAddr;
use std::time::Duration;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Longer than anything here takes on a machine that is not broken.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// One connection.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    channel: Channel,
    /// Whether it wants a member that knows a leader.
    wants_leader: bool,
    /// What it shows to say who it is.
    token: Option<String>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address is a URI");
        let channel = endpoint.timeout(PATIENCE).connect().await.expect("the server listens");
        Self { channel, wants_leader: false, token: None }
    }

    /// The same, of a client that wants a member that knows a leader.
    pub(crate) fn led(&self) -> Self {
        Self { wants_leader: true, ..self.clone() }
    }

    /// The same, of somebody who shows this token.
    pub(crate) fn showing(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same, of a user who has logged in.
    pub(crate) async fn logged_in(&self, name: &str, password: &str) -> Result<Self, Status> {
        let (name, password) = (name.to_owned(), password.to_owned());
        let request = pb::AuthenticateRequest { name, password };
        let answer: pb::AuthenticateResponse = self.call("/etcdserverpb.Auth/Authenticate", request).await?;
        Ok(self.showing(&answer.token))
    }

    fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        if self.wants_leader {
            request.metadata_mut().insert("hasleader", "true".parse().expect("a word"));
        }
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.parse().expect("words"));
        }
        request
    }

    /// Calls `path` ("etcdserverpb.KV/Put").
    pub(crate) async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(path);
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        grpc.unary(self.request(request), path, codec).await.map(tonic::Response::into_inner)
    }

    /// Calls `path` with a message as bytes, and gives back the answer as bytes.
    pub(crate) async fn call_raw(&self, path: &'static str, request: Vec<u8>) -> Result<Bytes, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(path);
        grpc.unary(self.request(request), path, AsBytes).await.map(tonic::Response::into_inner)
    }

    /// Calls `path` with a stream of messages, and gives back the stream of answers.
    pub(crate) async fn stream<Q, A>(
        &self,
        path: &'static str,
        requests: impl tokio_stream::Stream<Item = Q> + Send + 'static,
    ) -> Result<tonic::Streaming<A>, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(path);
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        grpc.streaming(self.request(requests), path, codec).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn put(&self, key: &str, value: &str) -> Result<pb::PutResponse, Status> {
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        self.call("/etcdserverpb.KV/Put", pb::PutRequest { key, value, ..Default::default() }).await
    }

    pub(crate) async fn get(&self, key: &str) -> Result<pb::RangeResponse, Status> {
        let key = key.to_owned().into();
        self.call("/etcdserverpb.KV/Range", pb::RangeRequest { key, ..Default::default() }).await
    }
}

/// Messages as they come.
struct AsBytes;

impl Codec for AsBytes {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AsBytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&message);
        Ok(())
    }
}

impl Decoder for AsBytes {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Runs a test's conversation.
pub(crate) fn block_on<T>(conversation: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(conversation)
}
