//! Trimming the log, and snapshots in place of what was trimmed (thesis 5).
//!
//! ```text
//!  leader                      follower
//!  ReadChunk, chunk_read  ──►  WriteChunk, chunk_held
//!          next chunk     ◄──  SnapshotReply, once it is held; the last once all is durable
//!             …                    …
//!         goes on with    ◄──  all chunks there and verified: install; AppendReply, once the reset is durable
//!          appends
//! ```
//!
//! Snapshots are names here; their bytes are in files of the caller's. One chunk at a time is on its way to a follower,
//! and what was acknowledged is not sent again, also by another leader, if its snapshot is the same; but a follower that
//! starts anew holds nothing of it, and says so. So what is held in part need not be durable.
//!
//! Always holds: base ≤ snapshot ≤ commit; the last chunk is acknowledged only when all are durable, and the snapshot's last
//! entry only when the snapshot *and* the write that starts the log anew behind it are. Installing takes nothing away that
//! the log holds beyond the snapshot, and nothing that is committed. When to send is in `progress`.

use super::follower::Follower;
use super::interface::{Installed, Output, Reset, RunKind};
use super::message::{Message, Position, SnapshotChunk, SnapshotName, SnapshotReply};
use super::node::{Node, Role};
use super::progress::Progress;
use crate::ids::{BootMicros, LogIndex, MemberId};
use crate::{planted, sometimes};

/// A member's own newest snapshot, and the one it is being sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Snapshots {
    newest: Option<SnapshotName>,
    receiving: Option<Receiving>,
}

/// A snapshot that is coming in, piece by piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Receiving {
    snapshot: SnapshotName,
    /// In which session it was heard of last.
    session: u64,
    /// So many bytes from its start are here.
    held_bytes: u64,
    /// The chunk that is not held yet: its offset and its end.
    writing: Option<(u64, u64)>,
}

impl Snapshots {
    /// The newest verified snapshot.
    pub(super) const fn newest(&self) -> Option<SnapshotName> {
        self.newest
    }
}

/// A member's own snapshots.
impl Node {
    /// This member has a snapshot that is durable and *verified*: taken, found at the start, or installed. The newest
    /// is what followers get.
    ///
    /// Its last entry must be committed.
    pub fn snapshot_taken(&mut self, snapshot: SnapshotName) {
        assert!(snapshot.position.index <= self.commit(), "only what is committed is in a snapshot");
        let is_newer = |newest: SnapshotName| snapshot.position.index >= newest.position.index;
        if self.snapshots.newest.is_none_or(is_newer) {
            self.snapshots.newest = Some(snapshot);
        }
    }

    /// The snapshot that followers get.
    pub fn snapshot_offered(&self) -> Option<SnapshotName> {
        self.snapshots.newest()
    }

    /// Forgets the entries at and below `upto`, as far as the newest snapshot has them and they are durable here.
    /// Returns the position just below the first entry left, whose term is still known.
    pub fn trim(&mut self, upto: LogIndex) -> Position {
        let snapshot = self.snapshots.newest.map_or(LogIndex(0), |newest| newest.position.index);
        let upto = upto.min(snapshot).min(self.durable()).min(self.commit());
        if upto > self.log.base().index {
            self.log.trim(upto);
        }
        super::invariants::assert_cheap(self);
        self.log.base()
    }

    /// The position just below the first entry of the log.
    pub fn base(&self) -> Position {
        self.log.base()
    }

    /// The snapshots that this leader is sending, some perhaps to several followers: their files are still read.
    pub fn snapshots_sent(&self) -> impl Iterator<Item = SnapshotName> + '_ {
        let followers = match &self.role {
            Role::Leader(leader) => leader.followers.as_slice(),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => &[],
        };
        followers.iter().filter_map(Progress::sending)
    }
}

/// The leader's side.
impl Node {
    /// Some bytes of a snapshot were read, as `Output::ReadChunk` asked. Returns the message to send with them, unless
    /// nobody wants them any more.
    pub fn chunk_read(
        &mut self,
        to: MemberId,
        session: u64,
        snapshot: SnapshotName,
        offset: u64,
        bytes_count: u32,
    ) -> Option<Message> {
        let term = self.hard_state.term;
        let follower = self.follower_in(to, session)?;
        let chunk = follower.chunk_read(term, snapshot, offset, bytes_count)?;
        let message = Message::SnapshotChunk(chunk);
        assert!(
            message.is_well_formed(),
            "a chunk that was read lies in its file, is not empty and not too large"
        );
        Some(message)
    }

    /// What `Output::ReadChunk` asked for cannot be read. The follower gets the newest snapshot, from its start.
    pub fn chunk_unreadable(
        &mut self,
        now: BootMicros,
        (to, session): (MemberId, u64),
        snapshot: SnapshotName,
        out: &mut Vec<Output>,
    ) {
        let newest = self.snapshots.newest;
        if let Some(follower) = self.follower_in(to, session) {
            follower.chunk_unreadable(snapshot, newest);
        }
        self.settle(now, out);
    }

    fn follower_in(&mut self, peer: MemberId, session: u64) -> Option<&mut Progress> {
        let Role::Leader(leader) = &mut self.role else {
            return None;
        };
        leader.follower(peer).filter(|follower| follower.session() == session)
    }

    /// A follower says how much of a snapshot it has. The next chunk is asked for in `flush`.
    pub(super) fn receive_snapshot_reply(&mut self, now: BootMicros, from: MemberId, reply: SnapshotReply) {
        if reply.term != self.hard_state.term {
            return;
        }
        if let Some(follower) = self.follower_in(from, reply.session) {
            follower.heard(now, 0);
            follower.snapshot_replied(reply);
        }
    }
}

/// The follower's side.
impl Node {
    /// A piece of the leader's snapshot. It is a sign of life like any append.
    pub(super) fn receive_snapshot_chunk(
        &mut self,
        now: BootMicros,
        from: MemberId,
        chunk: SnapshotChunk,
        out: &mut Vec<Output>,
    ) {
        if chunk.term < self.hard_state.term {
            let SnapshotChunk { session, snapshot, offset, .. } = chunk;
            let reply = SnapshotReply { term: self.hard_state.term, session, snapshot, offset, upto: 0 };
            self.send(from, Message::SnapshotReply(reply), out);
            return;
        }
        if !self.hear_leader(now, from, (chunk.session, 0), out)
            || self.is_needless(chunk.snapshot.position, out)
        {
            return;
        }
        let Some(receiving) = self.receiving(&chunk) else {
            sometimes!(StaleSnapshotChunk);
            return;
        };
        if receiving.writing.is_some() {
            return;
        }
        let SnapshotChunk { snapshot, offset, bytes_count, .. } = chunk;
        if offset == receiving.held_bytes || planted!(26) {
            receiving.writing = Some((offset, chunk.end()));
            out.push(Output::WriteChunk { snapshot, offset, bytes_count });
        } else {
            self.tell_chunk(offset, out);
        }
    }

    /// Whether a snapshot that ends at `position` has nothing for this member: its log is the leader's up to there, and
    /// beyond. Then the leader learns so.
    fn is_needless(&mut self, position: Position, out: &mut Vec<Output>) -> bool {
        if self.log.holds(position) && !planted!(24) {
            if let Role::Follower(follower) = &mut self.role {
                follower.matched = follower.matched.max(position.index);
            }
            self.commit_upto(position.index, out);
        }
        if position.index > self.commit() {
            return false;
        }
        sometimes!(SnapshotNeedless);
        let upto = self.settled().min(self.durable());
        self.reply_to_leader(super::message::AppendResult::Matched { upto }, out);
        true
    }

    /// The state of the transfer that `chunk` belongs to; a newer one takes the place of an older. None if it is of one
    /// that was given up (catalogue 25, 26).
    fn receiving(&mut self, chunk: &SnapshotChunk) -> Option<&mut Receiving> {
        let SnapshotChunk { snapshot, session, .. } = *chunk;
        let known = self.snapshots.receiving.filter(|receiving| receiving.snapshot == snapshot);
        let is_stale = self.snapshots.receiving.is_some_and(|other| {
            other.session == session && other.snapshot.position.index > snapshot.position.index
        });
        if is_stale && !planted!(26) {
            return None;
        }
        let mut fresh = Receiving { snapshot, session, held_bytes: 0, writing: None };
        if planted!(25) {
            fresh.held_bytes = self.snapshots.receiving.map_or(0, |other| other.held_bytes);
        }
        let receiving = known.map_or(fresh, |known| Receiving { session, ..known });
        Some(self.snapshots.receiving.insert(receiving))
    }

    /// The chunk that `Output::WriteChunk` named, from `offset` to `end`, is held: nothing but the end of this process takes it
    /// away. If it is the last, all are durable. Only now the leader learns of it.
    pub fn chunk_held(
        &mut self,
        now: BootMicros,
        snapshot: SnapshotName,
        offset: u64,
        end: u64,
        out: &mut Vec<Output>,
    ) {
        if let Some(receiving) = &mut self.snapshots.receiving
            && receiving.snapshot == snapshot
            && receiving.writing == Some((offset, end))
        {
            (receiving.held_bytes, receiving.writing) = (end, None);
            self.tell_chunk(offset, out);
        }
        self.settle(now, out);
    }

    /// What came of a snapshot cannot be kept, or is not what its name says. It is forgotten, and begins anew.
    pub fn snapshot_refused(&mut self, now: BootMicros, snapshot: SnapshotName, out: &mut Vec<Output>) {
        if let Some(receiving) = &mut self.snapshots.receiving
            && receiving.snapshot == snapshot
        {
            sometimes!(SnapshotRefused);
            (receiving.held_bytes, receiving.writing) = (0, None);
            self.tell_chunk(snapshot.bytes_count, out);
            self.snapshots.receiving = None;
        }
        self.settle(now, out);
    }

    /// Tells the leader how much of the snapshot is held, in answer to the chunk at `offset`.
    fn tell_chunk(&mut self, offset: u64, out: &mut Vec<Output>) {
        let (Role::Follower(Follower { leader: Some(leader), session, .. }), Some(receiving)) =
            (&self.role, &self.snapshots.receiving)
        else {
            return;
        };
        if *session == receiving.session {
            let (to, snapshot, session) = (*leader, receiving.snapshot, *session);
            let upto = receiving.held_bytes;
            let reply = SnapshotReply { term: self.hard_state.term, session, snapshot, offset, upto };
            self.send(to, Message::SnapshotReply(reply), out);
        }
    }

    /// A snapshot that came in is whole, verified and durable under its own name.
    ///
    /// If the log lacks the snapshot's last entry, it starts anew behind it: what it held below is in the snapshot, what
    /// it held above was of another log, but for islands that can follow. Until that is written, nothing is
    /// acknowledged. Otherwise the log is kept whole, since it holds all of the snapshot and more (catalogue 24).
    pub fn install(&mut self, now: BootMicros, snapshot: SnapshotName, out: &mut Vec<Output>) -> Installed {
        let position = snapshot.position;
        assert!(
            position.term <= self.hard_state.term,
            "a snapshot comes from a leader of a term that was heard of"
        );
        if self.snapshots.receiving.is_some_and(|receiving| receiving.snapshot == snapshot) {
            self.snapshots.receiving = None;
        }
        let is_held = self.log.holds(position) && !planted!(24);
        // A leader's log holds all that is committed (Raft §5.4); a snapshot that it lacks is nobody's.
        let is_kept = position.index <= self.commit() || is_held || matches!(self.role, Role::Leader(_));
        if is_kept {
            sometimes!(SnapshotInstalledInVain);
            if is_held {
                self.commit_upto(position.index, out);
            }
        } else {
            self.received_entries(now);
            self.start_anew(position, out);
        }
        if position.index <= self.commit() {
            self.snapshot_taken(snapshot);
        }
        self.settle(now, out);
        if is_kept { Installed::Kept } else { Installed::Replaced }
    }

    /// The log on disk must start anew at the base of the one in memory before anything of it counts as durable.
    pub(super) fn owe_reset(&mut self) {
        let kind = if self.log.is_empty() { RunKind::Append } else { RunKind::Fill };
        self.durability.reset(Reset { kind, snapshot: self.log.base() });
    }

    /// The log begins just above `position`.
    fn start_anew(&mut self, position: Position, out: &mut Vec<Output>) {
        if self.log.has_hole() {
            sometimes!(SnapshotInstalledOverHole);
        }
        if self.log.last().index >= position.index {
            sometimes!(SnapshotInstalledOverConflict);
        }
        self.log.rebase(position);
        self.name_end();
        self.owe_reset();
        if let Role::Follower(follower) = &mut self.role {
            // What is committed is in the log of every later leader, the present one's included.
            follower.matched = follower.matched.max(position.index);
        }
        sometimes!(SnapshotInstalled);
        out.push(Output::Rebased { base: position });
        if !self.log.has_hole() {
            out.push(Output::Superseded { from: self.log.last().index.next() });
        }
        self.commit_upto(position.index, out);
    }
}
