//! The other members: where they are, our connections to them, and what they say of themselves.
//!
//! Two members have two connections, one each way: frames flow from the one who connected. Always: a frame goes
//! out only on a connection on which the peer has greeted back as the member we meant, and comes in only from one
//! that greeted as a member of our configuration; who greets again is no longer heard on an older connection, so that
//! nothing from an earlier life of a peer comes after what it says in this one (the founding counts on that); what
//! cannot be sent is dropped, because consensus repeats itself. Left out: directories and clusters, which the shard
//! checks in every frame.

use super::connection::Purpose;
use super::shard_thread::ShardThread;
use super::{ServerConfig, ServerError, member_id};
use crate::api::MemberView;
use crate::ids::{BootMicros, MemberId};
use crate::io::Tag;
use crate::limits::RECONNECT_MICROS;
use crate::peer::{Greeting, PEER_VERSIONS, frame_length};
use crate::replica::{Input, Shard};
use bytes::{Buf, Bytes};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use tracing::info;

/// Our side of one peer.
#[derive(Debug)]
struct Peer {
    address: SocketAddr,
    state: State,
    /// The connection on which it greeted last.
    speaks_on: Option<Tag>,
    /// How long to wait after the next failure.
    backoff_micros: u64,
    view: MemberView,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be tried at this instant.
    Waiting(BootMicros),
    /// Being opened, or greeted.
    Opening(Tag),
    /// Frames go out here.
    Open(Tag),
}

/// All other members, and what we say of ourselves.
#[derive(Debug)]
pub(super) struct Peers {
    peers: BTreeMap<MemberId, Peer>,
    own: Greeting,
}

impl Peers {
    pub(super) fn new(
        config: &ServerConfig,
        member: MemberId,
        incarnation: u64,
        listeners: &[OwnedFd; 2],
    ) -> Result<Self, ServerError> {
        let [native, peer] = listeners;
        let address = |socket| crate::io::local_address(socket).map_err(ServerError::Kernel);
        let advertised = |said: &Option<String>, real: SocketAddr| said.clone().unwrap_or(real.to_string());
        let own = Greeting {
            versions: PEER_VERSIONS,
            from: member,
            incarnation,
            name: config.name.clone(),
            native: advertised(&config.advertise_native, address(native)?),
            client: advertised(&config.advertise_client, config.listen_client),
            peer: advertised(&config.advertise_peer, address(peer)?),
            ..Greeting::default()
        };
        let mut peers = BTreeMap::new();
        for initial in &config.initial_cluster {
            let id = member_id(&config.initial_cluster_token, &initial.name);
            let view = MemberView {
                id,
                name: initial.name.clone(),
                peer: initial.peer.to_string(),
                ..MemberView::default()
            };
            let state = State::Waiting(BootMicros(0));
            let backoff_micros = RECONNECT_MICROS.0;
            let peer = Peer { address: initial.peer, state, speaks_on: None, backoff_micros, view };
            if id != member {
                peers.insert(id, peer);
            }
        }
        Ok(Self { peers, own })
    }

    /// What to greet `to` with.
    pub(super) fn greeting(&self, to: MemberId, shard: &Shard) -> Greeting {
        Greeting { to, cluster: shard.cluster(), ..self.own.clone() }
    }

    /// When the next lost peer is to be tried.
    pub(super) fn deadline(&self) -> BootMicros {
        let waiting = self.peers.values().filter_map(|peer| match peer.state {
            State::Waiting(at) => Some(at),
            State::Opening(_) | State::Open(_) => None,
        });
        waiting.min().unwrap_or(BootMicros(u64::MAX))
    }

    pub(super) fn opening(&mut self, peer: MemberId, tag: Tag) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.state = State::Opening(tag);
        }
    }

    pub(super) fn lost(&mut self, peer: MemberId, now: BootMicros) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.state = State::Waiting(now.after(peer.backoff_micros));
            peer.backoff_micros = (2 * peer.backoff_micros).min(RECONNECT_MICROS.1);
        }
    }

    /// Every member, this one first.
    pub(super) fn views(&self) -> Vec<MemberView> {
        let own = MemberView {
            id: self.own.from,
            name: self.own.name.clone(),
            native: self.own.native.clone(),
            client: self.own.client.clone(),
            peer: self.own.peer.clone(),
            is_reachable: true,
        };
        let others = self.peers.values().map(|peer| MemberView {
            is_reachable: matches!(peer.state, State::Open(_)),
            ..peer.view.clone()
        });
        std::iter::once(own).chain(others).collect()
    }

    /// Takes in what a member says of itself.
    fn heard(&mut self, greeting: &Greeting) {
        if let Some(peer) = self.peers.get_mut(&greeting.from) {
            peer.view.native.clone_from(&greeting.native);
            peer.view.client.clone_from(&greeting.client);
            peer.view.peer.clone_from(&greeting.peer);
        }
    }
}

impl ShardThread {
    /// Opens connections to peers whose time has come.
    pub(super) fn connect_peers(&mut self) {
        let now = self.now;
        let due = |peer: &Peer| matches!(peer.state, State::Waiting(at) if at <= now);
        let peers = self.peers.peers.iter().filter(|(_, peer)| due(peer));
        let due: Vec<_> = peers.map(|(id, peer)| (*id, peer.address)).collect();
        for (peer, address) in due {
            self.open(peer, address);
        }
    }

    pub(super) fn send_to_peer(&mut self, to: MemberId, frame: Bytes) {
        let state = self.peers.peers.get(&to).map(|peer| peer.state);
        if let Some(State::Open(tag)) = state {
            self.queue(tag, frame);
        }
    }

    /// A peer that connected to us greets.
    pub(super) fn peer_greets(&mut self, tag: Tag) -> Result<bool, String> {
        let Some(greeting) = self.take_greeting(tag)? else { return Ok(false) };
        let from = greeting.from;
        let Some(peer) = self.peers.peers.get_mut(&from) else {
            return Err(format!(
                "{} ({from}) is no member of this cluster: check --initial-cluster and the token on both sides",
                greeting.name
            ));
        };
        let older = peer.speaks_on.replace(tag);
        self.heard(&greeting);
        if let Some(older) = older {
            self.close(older, None);
        }
        let answer = self.peers.greeting(from, self.shard());
        self.queue(tag, answer.encode());
        if let Some(connection) = self.connections.get_mut(tag) {
            connection.greeted(Purpose::PeerIn(from));
        }
        Ok(true)
    }

    /// A peer that we connected to greets back: our frames may go out.
    pub(super) fn peer_greets_back(&mut self, tag: Tag, peer: MemberId) -> Result<bool, String> {
        let Some(greeting) = self.take_greeting(tag)? else { return Ok(false) };
        if greeting.from != peer {
            return Err(format!("{} ({}) answers where {peer} should be", greeting.name, greeting.from));
        }
        self.heard(&greeting);
        if let Some(known) = self.peers.peers.get_mut(&peer) {
            known.state = State::Open(tag);
            known.backoff_micros = RECONNECT_MICROS.0;
        }
        if let Some(connection) = self.connections.get_mut(tag) {
            connection.greeted(Purpose::PeerOut(peer));
        }
        info!(peer = greeting.name, "connected to a peer");
        Ok(true)
    }

    /// Takes in what a member says of itself.
    fn heard(&mut self, greeting: &Greeting) {
        self.peers.heard(greeting);
        self.inputs.push(Input::PeerSpeaks { peer: greeting.from, version: greeting.versions.1 });
    }

    fn take_greeting(&mut self, tag: Tag) -> Result<Option<Greeting>, String> {
        let Some(connection) = self.connections.get_mut(tag) else { return Ok(None) };
        let greeting = Greeting::decode(&mut connection.inbound).map_err(|damage| damage.to_string())?;
        let Some(greeting) = greeting else { return Ok(None) };
        let (lowest, highest) = greeting.versions;
        if lowest > PEER_VERSIONS.1 || highest < PEER_VERSIONS.0 {
            return Err(format!("{} speaks versions {lowest} to {highest}, not ours", greeting.name));
        }
        if greeting.to != self.member {
            return Err(format!("{} means to speak to {}, which this is not", greeting.name, greeting.to));
        }
        let ours = self.shard().cluster();
        if greeting.cluster.0 != 0 && ours.0 != 0 && greeting.cluster != ours {
            return Err(format!("{} is of cluster {}, not of {ours}", greeting.name, greeting.cluster));
        }
        Ok(Some(greeting))
    }

    /// The next frame of a peer.
    pub(super) fn peer_frame(&mut self, tag: Tag, from: MemberId) -> Result<bool, String> {
        let Some(connection) = self.connections.get_mut(tag) else { return Ok(false) };
        match frame_length(&connection.inbound) {
            Ok(Some(length)) if connection.inbound.len() >= length => {
                // What is in it may stay for as long as the log does, and so takes no more memory than it has bytes: what was
                // received into has doubled until the frame fit, and is used again.
                let frame = Bytes::copy_from_slice(&connection.inbound[..length]);
                connection.inbound.advance(length);
                self.inputs.push(Input::Peer { from, frame });
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(damage) => Err(damage.to_string()),
        }
    }
}
