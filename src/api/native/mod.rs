//! The native protocol's codec: what PROTOCOL.md says, and nothing else. Bytes in, values out, and back.
//!
//! What always holds: a value has exactly one encoding, and decoding accepts no other; every length is checked
//! against a limit and against what is there before anything is allocated or sliced; keys and values are slices
//! of the input, never copies; no input panics.
//!
//! What it leaves out: sockets, the order of a connection (hello first, how many requests in flight), sessions.

mod command;
mod cursor;
mod frame;
#[cfg(test)]
mod golden;
mod hello;
#[cfg(test)]
mod properties;
mod refusal;
mod request;
mod response;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
mod watch;

pub use command::{decode_command, key_put, raises_alarm_by_hand};
pub use cursor::{Fault, Malformed};
pub use frame::{FRAME_HEADER_BYTES, Frame, FrameDamage, Receiver, VERSION, decode_frame};
pub use hello::{ClientHello, Features, ServerHello};
pub use refusal::{append_refusal_frame, encode_refusal_frame};
pub use request::{decode_request, encode_request_frame};
pub use response::{
    append_response_frame, decode_response, decode_response_frame, encode_response, encode_response_frame,
    response_bytes_expected,
};
pub use watch::EncodedBatch;

/// Frame kinds (PROTOCOL §3, §5, §7, §8).
pub mod kind {
    /// The client's first frame.
    pub const CLIENT_HELLO: u8 = 0x01;
    /// Opens a session.
    pub const OPEN_SESSION: u8 = 0x02;
    /// Closes a session.
    pub const CLOSE_SESSION: u8 = 0x03;
    /// Changes the store.
    pub const WRITE: u8 = 0x04;
    /// Reads the store.
    pub const READ: u8 = 0x05;
    /// Asks how the member sees itself.
    pub const STATUS: u8 = 0x06;
    /// Creates a watch.
    pub const CREATE_WATCH: u8 = 0x10;
    /// Ends a watch.
    pub const CANCEL_WATCH: u8 = 0x11;
    /// Asks how far a watch is.
    pub const WATCH_PROGRESS: u8 = 0x12;
    /// Makes a lease last again.
    pub const LEASE_KEEP_ALIVE: u8 = 0x20;
    /// Asks how a lease stands.
    pub const LEASE_TIME_TO_LIVE: u8 = 0x21;
    /// Asks for a snapshot that holds everything.
    pub const CUT_SNAPSHOT: u8 = 0x48;
    /// Asks for some bytes of a snapshot.
    pub const READ_SNAPSHOT: u8 = 0x49;
    /// The server's first frame.
    pub const SERVER_HELLO: u8 = 0x81;
    /// The session is open.
    pub const SESSION_OPENED: u8 = 0x82;
    /// The session is closed.
    pub const SESSION_CLOSED: u8 = 0x83;
    /// What the store said.
    pub const APPLIED: u8 = 0x84;
    /// What the store said, and how old that may be.
    pub const AGED: u8 = 0x85;
    /// How the member sees itself.
    pub const STATUS_ANSWER: u8 = 0x86;
    /// The watch is created.
    pub const WATCH_CREATED: u8 = 0x90;
    /// The watch is no more.
    pub const WATCH_CANCELLED: u8 = 0x91;
    /// How far the watch is.
    pub const WATCH_REACHED: u8 = 0x92;
    /// What a watch is told.
    pub const WATCH_TOLD: u8 = 0x93;
    /// A watch has ended by itself.
    pub const WATCH_ENDED: u8 = 0x94;
    /// A snapshot is there to be read.
    pub const SNAPSHOT_CUT: u8 = 0xC8;
    /// Some bytes of a snapshot.
    pub const SNAPSHOT_PIECE: u8 = 0xC9;
    /// Users and roles are changed; between members, and in snapshots.
    pub const USERS_CHANGED: u8 = 0xB0;
    /// The request was not served.
    pub const REFUSED: u8 = 0xFF;
}
