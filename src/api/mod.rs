//! What a client can say, whatever the protocol.
#![forbid(unsafe_code)]

pub mod etcd;
pub mod native;
mod refusal;
mod request;

pub use native::{
    Malformed, decode_command, decode_response, encode_response, key_put, raises_alarm_by_hand,
    response_bytes_expected,
};
pub use refusal::*;
pub use request::*;
