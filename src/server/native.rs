//! What native clients say on their connections (PROTOCOL.md), and how they are answered.
//!
//! Always: a frame that cannot be read ends the connection after a refusal; a body that cannot be read is refused and
//! the connection goes on; requests in flight are bounded. Left out: what requests do.

use super::connection::Purpose;
use super::shard_thread::{Asked, Ready, ShardThread};
use crate::api::native::{
    ClientHello, Features, Receiver, ServerHello, VERSION, append_refusal_frame, append_response_frame,
    decode_frame, decode_request, encode_refusal_frame,
};
use crate::api::{ReadMode, Refusal, Request, Response, response_bytes_expected};
use crate::auth::Who;
use crate::ids::{ClusterId, KeyspaceId, Ticket};
use crate::io::Tag;
use crate::kv::{KeyRange, Query, Range};
use crate::limits::{
    KEY_BYTES_MAX, REQUEST_BYTES_MAX, REQUESTS_IN_FLIGHT_MAX, RESPONSE_BYTES_MAX, SEND_QUEUE_BYTES_MAX,
    SEND_QUEUES_BYTES_MAX, SESSION_WINDOW, TXN_OPERATIONS_MAX,
};
use crate::replica::Input;
use bytes::{Bytes, BytesMut};
use std::io::Write;

/// Microseconds between two attempts to serve a first read.
const READY_RETRY_MICROS: u64 = 20_000;

impl ShardThread {
    /// The first frame of a client. Returns whether there may be more to take.
    pub(super) fn client_hello(&mut self, tag: Tag) -> bool {
        let Some(connection) = self.connections.get_mut(tag) else { return false };
        let frame = match decode_frame(&mut connection.inbound, Receiver::Server) {
            Ok(Some(frame)) => frame,
            Ok(None) => return false,
            Err(damage) => return self.refuse_and_end(tag, Refusal::Malformed, &damage.to_string()),
        };
        let hello = match ClientHello::decode(&frame) {
            Ok(hello) => hello,
            Err(malformed) => {
                return self.refuse_and_end(tag, Refusal::Malformed, &malformed.to_string());
            }
        };
        if hello.version_min > VERSION || hello.version_max < VERSION {
            let words = format!("this server speaks version {VERSION} only");
            return self.refuse_and_end(tag, Refusal::NoCommonVersion, &words);
        }
        let ours = self.shard().cluster();
        match hello.cluster {
            Some(wanted) if ours == ClusterId(0) => {
                let words = format!("there is no cluster yet, so not {wanted} either");
                return self.refuse_and_end(tag, Refusal::NotReady, &words);
            }
            Some(wanted) if wanted != ours => {
                let words = format!("this is cluster {ours}, not {wanted}");
                return self.refuse_and_end(tag, Refusal::WrongCluster, &words);
            }
            Some(_) | None => {}
        }
        let answer = ServerHello {
            version: VERSION,
            cluster: ours,
            member: self.member,
            features: hello.features.shared_with(Features::KNOWN),
            request_bytes_max: bound(REQUEST_BYTES_MAX),
            response_bytes_max: bound(RESPONSE_BYTES_MAX),
            key_bytes_max: bound(KEY_BYTES_MAX),
            txn_operations_max: bound(TXN_OPERATIONS_MAX),
            requests_in_flight_max: bound(REQUESTS_IN_FLIGHT_MAX),
            sequence_window: u32::try_from(SESSION_WINDOW).unwrap_or(u32::MAX),
        };
        self.queue(tag, answer.encode_frame());
        if let Some(connection) = self.connections.get_mut(tag) {
            connection.greeted(Purpose::Client);
        }
        true
    }

    /// The next request of a client. Returns whether there may be more to take.
    pub(super) fn client_frame(&mut self, tag: Tag) -> bool {
        let Some(connection) = self.connections.get_mut(tag) else { return false };
        let frame = match decode_frame(&mut connection.inbound, Receiver::Server) {
            Ok(Some(frame)) => frame,
            Ok(None) => return false,
            Err(damage) => return self.refuse_and_end(tag, Refusal::Malformed, &damage.to_string()),
        };
        let request = match decode_request(&frame) {
            Ok(request) => request,
            Err(malformed) => {
                let words = malformed.to_string();
                self.queue(tag, encode_refusal_frame(frame.request, Refusal::Malformed, &words));
                return true;
            }
        };
        if connection.in_flight_count >= REQUESTS_IN_FLIGHT_MAX {
            let words = "too many requests in flight on this connection";
            self.queue(tag, encode_refusal_frame(frame.request, Refusal::Overloaded, words));
            return true;
        }
        connection.in_flight_count += 1;
        self.stages.counts.requests += 1;
        if matches!(request, Request::Write { .. }) {
            self.stages.write_arrived(self.now);
        }
        let is_read = matches!(request, Request::Read { .. } | Request::Snapshot { .. });
        let asked = Asked { connection: tag, request: frame.request, is_read };
        match request {
            Request::Watch(request) => self.watch_request(asked, request),
            Request::OpenSession { .. }
            | Request::CloseSession { .. }
            | Request::Write { .. }
            | Request::Read { .. }
            | Request::KeepAlive { .. }
            | Request::TimeToLive { .. }
            | Request::Snapshot { .. }
            | Request::Status => {
                let ticket = self.ticket(Some(asked));
                self.inputs.push(Input::Client { ticket, who: Who::Nobody, request });
            }
        }
        true
    }

    /// Sends an answer to whoever asked, if the connection still is there.
    pub(super) fn answer_client(&mut self, asked: Asked, response: &Response) {
        let shard_room = SEND_QUEUES_BYTES_MAX.saturating_sub(self.connections.outbound_bytes());
        let Some(connection) = self.connections.get_mut(asked.connection) else { return };
        connection.in_flight_count -= 1;
        let own_room = SEND_QUEUE_BYTES_MAX.saturating_sub(connection.waiting_bytes());
        let room = own_room.min(shard_room);
        connection.answering_since.get_or_insert(self.now);
        let is_within =
            self.connections.gather(asked.connection, |out| append_answer(out, asked, response, room));
        self.keep_within(asked.connection, is_within);
    }

    /// Queues a piece, or drops a connection that does not take what it asked for.
    pub(super) fn queue(&mut self, tag: Tag, piece: Bytes) {
        let is_within = self.connections.queue(tag, piece);
        self.keep_within(tag, is_within);
    }

    fn keep_within(&mut self, tag: Tag, is_within: bool) {
        if !is_within {
            self.close(tag, Some("it does not take what is sent to it"));
        }
    }

    /// Refuses what cannot be trusted, and ends the connection once the refusal is out. Nothing more is to be taken
    /// off it: false.
    fn refuse_and_end(&mut self, tag: Tag, refusal: Refusal, words: &str) -> bool {
        tracing::warn!(%refusal, words, "a client is refused");
        self.queue(tag, encode_refusal_frame(0, refusal, words));
        if let Some(connection) = self.connections.get_mut(tag) {
            connection.end(self.now);
            self.connections.watch(tag);
            self.connections.stir(tag);
        }
        false
    }

    /// Tries a linearizable read now and then, until one is served: then the member is ready.
    pub(super) fn try_to_be_ready(&mut self) {
        let Ready::TryAt(at) = self.ready else { return };
        if at > self.now {
            return;
        }
        let key = KeyRange::Key(Bytes::from_static(b"ready"));
        let range = Range { count_only: true, ..Range::new(key) };
        let request = Request::Read {
            keyspace: KeyspaceId::FIRST,
            query: Query::Range(range),
            mode: ReadMode::Linearizable,
        };
        let ticket: Ticket = self.ticket(None);
        self.ready = Ready::Trying(ticket);
        self.inputs.push(Input::Client { ticket, who: Who::Cluster, request });
    }

    /// The read was answered: announces that this member serves, or tries again.
    pub(super) fn tried_to_be_ready(&mut self, response: &Response) {
        if !matches!(response, Response::Applied(_)) {
            self.ready = Ready::TryAt(self.now.after(READY_RETRY_MICROS));
            return;
        }
        self.ready = Ready::Announced;
        let [native, peer] = self.addresses();
        // Nobody need listen: a member whose output was closed serves all the same.
        let _ = writeln!(
            std::io::stdout(),
            "ready name={} id={:x} native={native} peer={peer} client={}",
            self.config.name,
            self.member.0,
            self.config.listen_client
        );
    }
}

/// Appends the answer; if a read's is longer than there is room for, a refusal instead.
fn append_answer(out: &mut BytesMut, asked: Asked, response: &Response, room: usize) {
    let start = out.len();
    // It is looked at before it is encoded: what is not kept should cost nothing.
    if !asked.is_read || response_bytes_expected(response) <= room {
        match response {
            Response::Refused(refusal) => {
                append_refusal_frame(out, asked.request, *refusal, &refusal.to_string());
            }
            Response::SessionOpened { .. }
            | Response::SessionClosed
            | Response::Applied(_)
            | Response::Aged { .. }
            | Response::Watch(_)
            | Response::Snapshot(_)
            | Response::Users { .. }
            | Response::Status(_) => append_response_frame(out, asked.request, response),
        }
        if !asked.is_read || out.len() - start <= room {
            return;
        }
        out.truncate(start);
    }
    let words = "more answers wait to be sent than are kept; take those first";
    append_refusal_frame(out, asked.request, Refusal::Overloaded, words);
}

fn bound(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("the bounds of the protocol fit its fields")
}
