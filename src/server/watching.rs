//! Watches on native connections: a connection is a stream, and the request that creates a watch is its name.
//!
//! Always: what many watches are told is encoded once; what is told is sent in the order in which the shard said it,
//! among the answers; the shard hears how much of what it told has not left, whenever some of it has, and when a
//! connection that had a watch is no more. Left out: who is told what (`watch`).

use super::gateway::GatewayPort;
use super::shard_thread::{Asked, ShardThread};
use crate::api::native::{EncodedBatch, encode_response_frame};
use crate::api::{Response, WatchAnswer, WatchRequest};
use crate::auth::Who;
use crate::ids::{StreamId, WatchId};
use crate::io::Tag;
use crate::replica::Input;
use crate::watch::{Batch, Ending, Place};
use bytes::BytesMut;
use std::sync::Arc;

/// Bytes of a batch up to which it is copied behind the head of each frame. A longer one is shared, as a piece of its
/// own to be sent.
///
/// Chosen: copying this much costs less than another piece does.
const COPIED_BYTES_MAX: usize = 2 * 1_024;

impl ShardThread {
    /// A client asks something of the watches on its connection.
    pub(super) fn watch_request(&mut self, asked: Asked, request: WatchRequest) {
        if let Some(connection) = self.connections.get_mut(asked.connection) {
            connection.is_watching = true;
        }
        let (stream, name) = (StreamId(asked.connection), WatchId(asked.request));
        let ticket = self.ticket(Some(asked));
        self.inputs.push(Input::Watch { ticket, who: Who::Nobody, stream, name, request });
    }

    /// Tells watches the same. Small frames to one connection become one piece.
    pub(super) fn tell(&mut self, to: Vec<Place>, batch: Batch) {
        self.stages.counts.watch_events += (to.len() * batch.events.len()) as u64;
        let (gateways, to): (Vec<_>, Vec<_>) =
            to.into_iter().partition(|place| GatewayPort::is_stream(place.stream));
        let batch = Arc::new(batch);
        if !gateways.is_empty() {
            self.gateway.tell(gateways, &batch);
        }
        if to.is_empty() {
            return;
        }
        let encoded = EncodedBatch::new(&batch);
        for on_stream in to.chunk_by(|one, other| one.stream == other.stream) {
            let Some(first) = on_stream.first() else { continue };
            let tag: Tag = first.stream.0;
            if self.connections.get(tag).is_none() {
                continue;
            }
            if encoded.body().len() > COPIED_BYTES_MAX {
                for place in on_stream {
                    self.queue(tag, encoded.head(place.watch));
                    self.queue(tag, encoded.body().clone());
                }
                continue;
            }
            let mut frames = BytesMut::new();
            for place in on_stream {
                encoded.append_frame(place.watch, &mut frames);
            }
            self.queue(tag, frames.freeze());
        }
    }

    /// Tells a watch that it has ended.
    pub(super) fn end_watch(&mut self, to: Place, why: Ending) {
        if GatewayPort::is_stream(to.stream) {
            self.gateway.end_watch(to, why);
            return;
        }
        let ended = WatchAnswer::Ended { why };
        self.queue(to.stream.0, encode_response_frame(to.watch.0, &Response::Watch(ended)));
    }

    /// This member serves no more: whoever watches here finds another member.
    pub(super) fn end_watching(&mut self) {
        self.gateway.end_streams();
        for tag in self.connections.tags_of(|connection| connection.is_watching) {
            self.close(tag, Some("its watches are not served here any more"));
        }
    }

    /// Some of what waited on a connection has left.
    pub(super) fn stream_sent(&mut self, tag: Tag) {
        if let Some(connection) = self.connections.get(tag).filter(|connection| connection.is_watching) {
            let waiting_bytes = connection.waiting_bytes();
            self.inputs.push(Input::StreamTaken { stream: StreamId(tag), waiting_bytes });
        }
    }
}
