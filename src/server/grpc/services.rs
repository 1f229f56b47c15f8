//! The services, as `build.rs` makes them from the files in `api/etcd/proto`.

#![allow(missing_docs, unreachable_pub, unused_qualifications, dead_code, clippy::all, clippy::pedantic)]

/// The descriptions of all services and messages.
pub(in super::super) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub(in super::super) mod etcdserverpb {
    include!(concat!(env!("OUT_DIR"), "/services/etcdserverpb.rs"));
}
pub(in super::super) mod health {
    include!(concat!(env!("OUT_DIR"), "/services/grpc.health.v1.rs"));
}
pub(in super::super) mod lock {
    include!(concat!(env!("OUT_DIR"), "/services/v3lockpb.rs"));
}
pub(in super::super) mod election {
    include!(concat!(env!("OUT_DIR"), "/services/v3electionpb.rs"));
}
