//! The etcd v3 API: its messages, and what they mean to our store.
//!
//! Pure: a message from a client becomes the same `api::Request` that a native client makes, or a [`Fault`]; an answer
//! becomes a message. What always holds: the checks of a message come in etcd's order, so that a request with several
//! faults is told the same one; every fault has one text and one code, in one table, because clients match on the
//! text; protobuf types are known here and in the services around them, and nowhere else.
//!
//! What it leaves out: HTTP and streams (`server/grpc`, `server/http`), and everything that decides something. Where an
//! answer differs from etcd's on purpose is listed in `DIFFERENCES.md`.

mod answers;
mod bolt;
mod database;
mod fault;
mod requests;
mod users;
mod watches;

pub use answers::*;
pub use database::{DatabaseBody, DatabaseLayout};
pub use fault::{Code, Fault};
pub use requests::*;
pub use users::*;
pub use watches::*;

/// The messages, as `build.rs` makes them from the files in `proto/`.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
pub mod proto {
    pub mod etcdserverpb {
        include!(concat!(env!("OUT_DIR"), "/messages/etcdserverpb.rs"));
        include!(concat!(env!("OUT_DIR"), "/messages/etcdserverpb.serde.rs"));
    }
    pub mod mvccpb {
        include!(concat!(env!("OUT_DIR"), "/messages/mvccpb.rs"));
        include!(concat!(env!("OUT_DIR"), "/messages/mvccpb.serde.rs"));
    }
    pub mod v3lockpb {
        include!(concat!(env!("OUT_DIR"), "/messages/v3lockpb.rs"));
        include!(concat!(env!("OUT_DIR"), "/messages/v3lockpb.serde.rs"));
    }
    pub mod v3electionpb {
        include!(concat!(env!("OUT_DIR"), "/messages/v3electionpb.rs"));
        include!(concat!(env!("OUT_DIR"), "/messages/v3electionpb.serde.rs"));
    }
    pub mod grpc {
        pub mod health {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/messages/grpc.health.v1.rs"));
            }
        }
    }
}
