//! The services of the etcd v3 API over gRPC.
//!
//! Always: a service turns messages into what a native client would ask, by `api::etcd`, asks the shard through the gate,
//! and turns the answer into messages; it decides nothing about the store. Left out: the connection (`gateway/thread`).

mod auth;
mod cluster;
mod dump;
mod election;
mod health;
mod kv;
mod leader;
mod lease;
mod lock;
mod maintenance;
mod parts;
mod queue;
mod services;
mod watch;

pub(super) use leader::only_if_led;
pub(super) use lease::renew;
pub(super) use services::election::election_server::Election;
pub(super) use services::etcdserverpb as stubs;
pub(super) use services::lock::lock_server::Lock;
pub(super) use watch::converse;

use super::gateway::Gate;
use crate::api::etcd::Fault;
use crate::limits::GRPC_MESSAGE_BYTES_MAX;
use std::sync::Arc;
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_reflection::server::Builder;

/// The services, for who asks them without gRPC.
#[derive(Debug)]
#[allow(missing_docs)]
pub(super) struct Services {
    pub(super) kv: kv::KvService,
    pub(super) lease: lease::LeaseService,
    pub(super) cluster: cluster::ClusterService,
    pub(super) maintenance: maintenance::MaintenanceService,
    pub(super) auth: auth::AuthService,
    pub(super) lock: lock::LockService,
    pub(super) election: election::ElectionService,
}

impl Services {
    pub(super) fn new(gate: &Arc<Gate>) -> Self {
        Self {
            kv: kv::KvService(Arc::clone(gate)),
            lease: lease::LeaseService(Arc::clone(gate)),
            cluster: cluster::ClusterService(Arc::clone(gate)),
            maintenance: maintenance::MaintenanceService(Arc::clone(gate)),
            auth: auth::AuthService(Arc::clone(gate)),
            lock: lock::LockService(Arc::clone(gate)),
            election: election::ElectionService(Arc::clone(gate)),
        }
    }
}

/// A service on the gate. Messages in are bounded; what is sent is as long as the answer is.
macro_rules! service {
    ($gate:ident, $server:ident :: $Server:ident, $Service:path) => {
        stubs::$server::$Server::new($Service(Arc::clone($gate)))
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(usize::MAX)
    };
}

/// What serves calls of the store.
pub(super) type Store = stubs::kv_server::KvServer<kv::KvService>;

/// The store's calls, without the table of paths.
pub(super) fn store(gate: &Arc<Gate>) -> Store {
    service!(gate, kv_server::KvServer, kv::KvService)
}

/// What serves requests, by their paths.
pub(super) fn router(gate: &Arc<Gate>) -> axum::Router {
    let mut routes = Routes::new(store(gate))
        .add_service(service!(gate, watch_server::WatchServer, watch::WatchService))
        .add_service(service!(gate, lease_server::LeaseServer, lease::LeaseService))
        .add_service(service!(gate, cluster_server::ClusterServer, cluster::ClusterService))
        .add_service(service!(gate, maintenance_server::MaintenanceServer, maintenance::MaintenanceService))
        .add_service(service!(gate, auth_server::AuthServer, auth::AuthService))
        .add_service(lock::service(gate))
        .add_service(election::service(gate))
        .add_service(health::service(gate));
    // What tells clients which services there are, in the two versions that clients ask for.
    let told = || Builder::configure().register_encoded_file_descriptor_set(services::DESCRIPTORS);
    let valid = "the descriptors are those that build.rs compiled";
    routes = routes.add_service(told().build_v1().expect(valid));
    routes = routes.add_service(told().build_v1alpha().expect(valid));
    routes.prepare().into_axum_router()
}

/// A fault as gRPC tells it.
pub(super) fn refused(fault: Fault) -> Status {
    let (text, code) = fault.text_and_code();
    Status::new(Code::from_i32(code as i32), text)
}
