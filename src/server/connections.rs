//! All connections of a shard thread, by tag, and which of them want attention.
//!
//! Always: a tag names one connection for ever, so what completes late for a closed one finds nothing; a turn looks
//! only at connections that have something to send or to end, and at all of them only when one may have been silent
//! for too long. Left out: what is said on them, and the sockets' operations.

use super::connection::Connection;
use crate::ids::BootMicros;
use crate::io::Tag;
use bytes::{Bytes, BytesMut};

/// Tags below this are not connections.
pub(super) const TAG_CONNECTIONS: Tag = 16;

/// Bits of a tag that say which place a connection has; the rest count the connections that had it.
const PLACE_BITS: u32 = 32;

#[derive(Debug, Default)]
struct Place {
    generation: u64,
    /// Whether its tag is on the list of restless ones.
    is_restless: bool,
    connection: Option<Connection>,
}

/// The connections.
#[derive(Debug)]
pub(super) struct Connections {
    places: Vec<Place>,
    free: Vec<usize>,
    count: usize,
    /// Those with something to send, or to end; each once.
    restless: Vec<Tag>,
    /// No connection has been silent for too long before this.
    look_at: BootMicros,
    /// Bytes that wait to be sent on all connections.
    outbound_bytes: usize,
}

impl Connections {
    pub(super) const fn new() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            count: 0,
            restless: Vec::new(),
            look_at: BootMicros(u64::MAX),
            outbound_bytes: 0,
        }
    }

    /// Adds a connection and returns its tag.
    pub(super) fn add(&mut self, connection: Connection) -> Tag {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            self.places.len() - 1
        });
        self.count += 1;
        self.places[place].connection = Some(connection);
        let tag = (self.places[place].generation << PLACE_BITS) + place as u64 + TAG_CONNECTIONS;
        self.watch(tag);
        tag
    }

    /// Takes a connection out; its tag names nothing from then on.
    pub(super) fn remove(&mut self, tag: Tag) -> Option<Connection> {
        let place = self.place(tag)?;
        let connection = self.places[place].connection.take()?;
        self.places[place].generation += 1;
        self.places[place].is_restless = false;
        self.free.push(place);
        self.count -= 1;
        self.outbound_bytes -= connection.waiting_bytes();
        Some(connection)
    }

    pub(super) fn get(&self, tag: Tag) -> Option<&Connection> {
        self.places[self.place(tag)?].connection.as_ref()
    }

    pub(super) fn get_mut(&mut self, tag: Tag) -> Option<&mut Connection> {
        let place = self.place(tag)?;
        self.places[place].connection.as_mut()
    }

    /// Where the connection of `tag` is, if that still is the one there.
    fn place(&self, tag: Tag) -> Option<usize> {
        let number = tag.checked_sub(TAG_CONNECTIONS)?;
        let place = usize::try_from(number & ((1 << PLACE_BITS) - 1)).ok()?;
        (self.places.get(place)?.generation == number >> PLACE_BITS).then_some(place)
    }

    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// Bytes that wait to be sent on all connections.
    pub(super) const fn outbound_bytes(&self) -> usize {
        self.outbound_bytes
    }

    /// Queues a piece. False if the connection lets more wait than it may.
    pub(super) fn queue(&mut self, tag: Tag, piece: Bytes) -> bool {
        self.add_to(tag, |connection| connection.queue(piece))
    }

    /// Has `append` put an answer behind those that leave as one piece. False if the connection lets more wait than it may.
    pub(super) fn gather(&mut self, tag: Tag, append: impl FnOnce(&mut BytesMut)) -> bool {
        self.add_to(tag, |connection| connection.gather(append))
    }

    fn add_to(&mut self, tag: Tag, add: impl FnOnce(&mut Connection) -> bool) -> bool {
        let Some(connection) = self.get_mut(tag) else { return true };
        let before = connection.waiting_bytes();
        let is_within = add(connection);
        let added = connection.waiting_bytes() - before;
        self.outbound_bytes += added;
        self.stir(tag);
        is_within
    }

    /// The kernel took `count` bytes of `pieces`.
    pub(super) fn sent(&mut self, tag: Tag, pieces: Vec<Bytes>, count: usize) {
        let Some(connection) = self.get_mut(tag) else { return };
        connection.sent(pieces, count);
        self.outbound_bytes -= count;
        self.stir(tag);
    }

    /// This connection has something to send or to end.
    pub(super) fn stir(&mut self, tag: Tag) {
        if let Some(place) = self.place(tag)
            && !std::mem::replace(&mut self.places[place].is_restless, true)
        {
            self.restless.push(tag);
        }
    }

    /// Those that have something to send or to end, each once.
    pub(super) fn take_restless(&mut self, into: &mut Vec<Tag>) {
        std::mem::swap(&mut self.restless, into);
        for tag in into {
            if let Some(place) = self.place(*tag) {
                self.places[place].is_restless = false;
            }
        }
    }

    /// This connection may have begun to be waited for.
    pub(super) fn watch(&mut self, tag: Tag) {
        if let Some(deadline) = self.get(tag).and_then(Connection::deadline) {
            self.look_at = self.look_at.min(deadline);
        }
    }

    /// When it is time to look for silent connections.
    pub(super) const fn deadline(&self) -> BootMicros {
        self.look_at
    }

    /// Those that have been silent for too long.
    pub(super) fn late(&mut self, now: BootMicros) -> Vec<Tag> {
        if now < self.look_at {
            return Vec::new();
        }
        self.look_at = BootMicros(u64::MAX);
        let mut late = Vec::new();
        for (place, Place { generation, connection, .. }) in self.places.iter().enumerate() {
            match connection.as_ref().and_then(Connection::deadline) {
                Some(deadline) if deadline <= now => {
                    late.push((generation << PLACE_BITS) + place as u64 + TAG_CONNECTIONS);
                }
                Some(deadline) => self.look_at = self.look_at.min(deadline),
                None => {}
            }
        }
        late
    }

    /// Those of which something holds.
    pub(super) fn tags_of(&self, is_meant: impl Fn(&Connection) -> bool) -> Vec<Tag> {
        let meant =
            self.places.iter().enumerate().filter_map(|(place, Place { generation, connection, .. })| {
                let is_meant = connection.as_ref().is_some_and(&is_meant);
                is_meant.then_some((generation << PLACE_BITS) + place as u64 + TAG_CONNECTIONS)
            });
        meant.collect()
    }

    /// Whether nothing waits to be sent on any.
    pub(super) fn are_drained(&self) -> bool {
        self.places.iter().flat_map(|place| &place.connection).all(Connection::is_drained)
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::Purpose;
    use super::*;
    use crate::limits::CONNECTION_PATIENCE_MICROS;

    fn connection(now: u64) -> Connection {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let socket = crate::io::connect_socket(address, 1_000).expect("a socket");
        Connection::new(socket, Purpose::NewClient, BootMicros(now))
    }

    #[test]
    fn a_tag_names_one_connection_for_ever() {
        let mut connections = Connections::new();
        let first = connections.add(connection(0));
        assert!(connections.queue(first, Bytes::from_static(b"abc")));
        assert_eq!(connections.outbound_bytes(), 3);
        assert!(connections.remove(first).is_some());
        assert_eq!(connections.outbound_bytes(), 0);
        let second = connections.add(connection(0));
        assert_ne!(first, second);
        assert!(connections.get(first).is_none(), "what comes late for the first finds nothing");
        assert!(connections.get(second).is_some());
        assert_eq!(connections.len(), 1);
    }

    #[test]
    fn answers_leave_as_one_piece_and_in_order_with_pieces_between_them() {
        let mut connections = Connections::new();
        let tag = connections.add(connection(0));
        let add = |connections: &mut Connections, answer: &[u8]| {
            assert!(connections.gather(tag, |out| out.extend_from_slice(answer)));
        };
        add(&mut connections, b"ab");
        add(&mut connections, b"c");
        assert!(connections.queue(tag, Bytes::from_static(b"piece")));
        add(&mut connections, b"d");
        assert_eq!(connections.outbound_bytes(), 9);
        let pieces = |connections: &mut Connections| {
            connections.get_mut(tag).expect("added").pieces_to_send(8).unwrap_or_default()
        };
        let sent = pieces(&mut connections);
        assert_eq!(sent, [&b"abc"[..], b"piece", b"d"]);
        add(&mut connections, b"e");
        assert!(pieces(&mut connections).is_empty(), "one send is under way at a time");
        // What the kernel did not take goes first.
        connections.sent(tag, sent, 7);
        assert_eq!((connections.outbound_bytes(), connections.are_drained()), (3, false));
        let sent = pieces(&mut connections);
        assert_eq!(sent, [&b"e"[..], b"d", b"e"]);
        connections.sent(tag, sent, 3);
        assert_eq!((connections.outbound_bytes(), connections.are_drained()), (0, true));
        // Many answers are not one piece without end, and large memory is not kept.
        let long = vec![0; 20_000];
        add(&mut connections, &long);
        add(&mut connections, &long);
        assert_eq!(pieces(&mut connections), [long.clone(), long]);
    }

    #[test]
    fn a_connection_is_restless_once_however_often_it_is_stirred() {
        let mut connections = Connections::new();
        let tag = connections.add(connection(0));
        connections.queue(tag, Bytes::from_static(b"a"));
        connections.queue(tag, Bytes::from_static(b"b"));
        let mut restless = Vec::new();
        connections.take_restless(&mut restless);
        assert_eq!(restless, [tag]);
        restless.clear();
        connections.take_restless(&mut restless);
        assert!(restless.is_empty());
    }

    #[test]
    fn whoever_is_silent_for_too_long_is_found_and_nobody_else() {
        let mut connections = Connections::new();
        let early = connections.add(connection(0));
        let late = connections.add(connection(10));
        connections.get_mut(late).expect("added").greeted(Purpose::Client);
        assert_eq!(connections.deadline(), BootMicros(CONNECTION_PATIENCE_MICROS));
        assert_eq!(connections.late(BootMicros(CONNECTION_PATIENCE_MICROS - 1)), Vec::<Tag>::new());
        assert_eq!(connections.late(BootMicros(CONNECTION_PATIENCE_MICROS + 50)), [early]);
        assert_eq!(connections.deadline(), BootMicros(u64::MAX));
    }
}
