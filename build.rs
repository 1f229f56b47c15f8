//! Compiles the messages and services of the etcd v3 API from `src/api/etcd/proto`, without `protoc`.
//!
//! Two outputs: the messages, with their form as JSON, which `api/etcd` includes, and the services around them, which
//! `server/grpc` includes. So no service and nothing asynchronous gets into `api`.

use prost::Message;
use std::error::Error;
use std::path::PathBuf;

const PROTO: &str = "src/api/etcd/proto";
const FILES: [&str; 5] = ["kv.proto", "rpc.proto", "lock.proto", "election.proto", "health.proto"];
const PACKAGES: [&str; 5] = ["etcdserverpb", "grpc.health.v1", "mvccpb", "v3electionpb", "v3lockpb"];
/// Those that are also spoken as JSON.
const JSON_PACKAGES: [&str; 4] = ["etcdserverpb", "mvccpb", "v3electionpb", "v3lockpb"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTO}");
    println!("cargo:rerun-if-changed=build.rs");
    let descriptors = protox::compile(FILES, [PROTO])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // For whoever asks a server what it can do.
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let messages = out.join("messages");
    std::fs::create_dir_all(&messages)?;
    prost_build::Config::new().bytes(["."]).out_dir(&messages).compile_fds(descriptors.clone())?;
    pbjson_build::Builder::new()
        .register_descriptors(&descriptors.encode_to_vec())?
        .preserve_proto_field_names()
        .out_dir(&messages)
        .build(&JSON_PACKAGES.map(|package| format!(".{package}")))?;
    let services = out.join("services");
    std::fs::create_dir_all(&services)?;
    let mut config = tonic_prost_build::configure().build_client(false).out_dir(&services);
    for package in PACKAGES {
        let home = format!("crate::api::etcd::proto::{}", package.replace('.', "::"));
        config = config.extern_path(format!(".{package}"), home);
    }
    config.compile_fds(descriptors)?;
    Ok(())
}
