//! What the leader knows about one follower's log, and what it sends next.
//!
//! ```text
//!  1 ........ matched | in flight ........ | next ........ end of our log
//!  equal and durable    sent, not answered   not sent
//! ```
//!
//! `Probe`: where the logs agree is not known; one message at a time asks. `Replicate`: it is known, and appends
//! are pipelined as far as the window allows. `Snapshot`: they agree only below what our log still has, so the
//! follower is given a snapshot, in chunks. Replies may be late, doubled or wrong: nothing ever moves `matched`
//! back, or beyond what was sent.
//!
//! `Snapshot` is entered only on the follower's own word that its log ends below ours, and left for any
//! acknowledgement from which ours can go on: it may have caught up in another way (catalogue 28).

use super::inflight::Inflight;
use super::log::Log;
use super::message::{AppendRequest, Entry, Position, SnapshotChunk, SnapshotName, SnapshotReply};
use crate::ids::{BootMicros, LogIndex, MemberId, Term};
use crate::limits::SNAPSHOT_RESEND_HEARTBEATS;
use crate::{planted, sometimes};

/// One follower as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Progress {
    pub(super) peer: MemberId,
    session: u64,
    /// Highest index at which the follower's log is known to equal ours and to be durable there.
    matched: LogIndex,
    /// First index not yet sent.
    next: LogIndex,
    /// The end of everything ever sent in this session; an acknowledgement beyond it is wrong.
    sent_upto: LogIndex,
    state: State,
    pub(super) inflight: Inflight,
    /// When it last answered in this term.
    pub(super) heard_at: BootMicros,
    /// The newest read round it has echoed.
    round: u64,
    /// The commit index it was last told.
    told_commit: LogIndex,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Probe {
        /// Whether a message is out whose answer is awaited.
        is_asked: bool,
        /// The end of the entries that went with the newest probe.
        probed_upto: LogIndex,
    },
    Replicate,
    Snapshot(Sending),
}

/// A snapshot on its way to the follower, one chunk at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sending {
    snapshot: SnapshotName,
    /// So many bytes from its start are there.
    held_bytes: u64,
    /// The chunk from there on.
    chunk: Chunk,
    /// Heartbeats since there was news.
    waited: u32,
}

/// What becomes of the next chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Chunk {
    /// It is to be read.
    Due,
    /// It is being read.
    Read,
    /// It was sent; or the follower has all, and is to install it.
    Sent,
}

/// What every append of this moment carries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) term: Term,
    pub(super) commit: LogIndex,
    pub(super) round: u64,
}

impl Progress {
    /// A follower of a new leader whose log ended just before `next`.
    pub(super) fn new(peer: MemberId, session: u64, next: LogIndex, now: BootMicros) -> Self {
        let last = next.previous();
        Self {
            peer,
            session,
            matched: LogIndex(0),
            next,
            sent_upto: last,
            state: State::Probe { is_asked: false, probed_upto: last },
            inflight: Inflight::default(),
            heard_at: now,
            round: 0,
            told_commit: LogIndex(0),
        }
    }

    pub(super) const fn session(&self) -> u64 {
        self.session
    }

    pub(super) const fn matched(&self) -> LogIndex {
        self.matched
    }

    pub(super) const fn next(&self) -> LogIndex {
        self.next
    }

    pub(super) const fn heard_at(&self) -> BootMicros {
        self.heard_at
    }

    pub(super) const fn round(&self) -> u64 {
        self.round
    }

    /// Whether it waits for word that the commit index has moved.
    pub(super) fn is_behind_commit(&self, commit: LogIndex) -> bool {
        self.state == State::Replicate && self.told_commit < commit
    }

    /// Whether it was sent everything below `index`, in a pipeline that flows.
    pub(super) fn has_all_before(&self, index: LogIndex) -> bool {
        self.state == State::Replicate && self.next >= index
    }

    /// Whether the entry at `index` is in flight to it, in a pipeline that flows: sent, and not acknowledged.
    pub(super) fn has_in_flight(&self, index: LogIndex) -> bool {
        self.has_all_before(index.next()) && self.matched < index
    }

    /// The next append that carries entries, if the state and the window allow one.
    pub(super) fn next_append(&mut self, log: &Log, header: Header) -> Option<AppendRequest> {
        let is_allowed = match self.state {
            State::Probe { is_asked, .. } => !is_asked,
            State::Replicate => self.next <= log.last().index && !self.inflight.is_full(),
            State::Snapshot(_) => false,
        };
        if !is_allowed {
            return None;
        }
        // What was trimmed before it was sent is not sent; if the follower lacks it, it will say so.
        self.next = self.next.max(log.base().index.next());
        let entries = log.slice(self.next, log.last().index);
        let last = LogIndex(self.next.0 - 1 + entries.len() as u64);
        let bytes_count: usize = entries.iter().map(|entry| entry.bytes_count as usize).sum();
        let request = self.request(log, header, entries);
        self.sent_upto = self.sent_upto.max(last);
        match &mut self.state {
            State::Probe { is_asked, probed_upto } => (*is_asked, *probed_upto) = (true, last),
            State::Replicate => {
                self.inflight.sent(last, bytes_count);
                self.next = last.next();
            }
            State::Snapshot(_) => {}
        }
        self.assert_invariants();
        Some(request)
    }

    /// An append without entries, whose consistency check finds out whether anything was lost.
    pub(super) fn empty_append(&mut self, log: &Log, header: Header) -> AppendRequest {
        self.request(log, header, Vec::new())
    }

    /// An append beside the pipeline, from where a damaged log and ours may agree: at or below `asked`.
    pub(super) fn repair_append(&mut self, log: &Log, header: Header, asked: Position) -> AppendRequest {
        let previous = log.last_upto(asked.index, asked.term);
        let entries = log.slice(previous.index.next(), log.last().index);
        let last = entries.last().map_or(previous.index, |entry| entry.index);
        self.sent_upto = self.sent_upto.max(last);
        AppendRequest { previous, ..self.request(log, header, entries) }
    }

    fn request(&mut self, log: &Log, header: Header, entries: Vec<Entry>) -> AppendRequest {
        self.told_commit = header.commit;
        let before = match &self.state {
            // Asks whether it is installed, or has become needless.
            State::Snapshot(sending) => sending.snapshot.position.index,
            State::Probe { .. } | State::Replicate => self.next.previous(),
        };
        let before = before.max(log.base().index);
        AppendRequest {
            term: header.term,
            session: self.session,
            previous: log.position_at(before).unwrap_or_else(|| log.base()),
            entries,
            commit: header.commit,
            round: header.round,
        }
    }

    /// Before a heartbeat: a follower silent for `silence_micros` is probed again, and a probe unanswered since
    /// the last heartbeat is taken for lost, so the heartbeat takes its place.
    /// A chunk without news for some heartbeats is taken for lost.
    pub(super) fn before_heartbeat(&mut self, now: BootMicros, silence_micros: u64, base: LogIndex) {
        if now.since(self.heard_at) > silence_micros && !matches!(self.state, State::Probe { .. }) {
            self.probe_from(self.matched.max(base).next(), true);
        }
        match &mut self.state {
            State::Probe { is_asked, probed_upto } => {
                *is_asked = true;
                self.next = self.next.max(base.next());
                *probed_upto = self.next.previous();
            }
            State::Replicate => {}
            State::Snapshot(sending) => sending.before_heartbeat(),
        }
    }

    fn probe_from(&mut self, next: LogIndex, is_asked: bool) {
        self.next = next;
        self.inflight.clear();
        self.state = State::Probe { is_asked, probed_upto: next.previous() };
    }

    /// It answered, and has heard of `round`.
    pub(super) fn heard(&mut self, now: BootMicros, round: u64) {
        self.heard_at = now;
        self.round = self.round.max(round);
    }

    /// Records that the follower holds our log, durably, up to `upto`; returns whether that was news.
    ///
    /// Replies may arrive late or twice, so an old `upto` is ordinary. One beyond what was sent is wrong and
    /// changes nothing.
    pub(super) fn acknowledged(&mut self, upto: LogIndex, base: LogIndex) -> bool {
        if upto > self.sent_upto {
            return false;
        }
        let is_news = upto > self.matched;
        self.matched = self.matched.max(upto);
        self.inflight.acknowledged(upto);
        match self.state {
            State::Probe { probed_upto, .. } => {
                self.next = self.next.max(probed_upto.next());
                self.state = State::Replicate;
            }
            State::Replicate => {}
            State::Snapshot(_) if upto < base || planted!(28) => {}
            State::Snapshot(_) => {
                sometimes!(SnapshotStateLeft);
                self.next = upto.next();
                self.state = State::Replicate;
            }
        }
        self.next = self.next.max(self.matched.next());
        self.assert_invariants();
        is_news
    }

    /// Records that the follower's log does not hold `rejected`, and may agree with ours at `hint`.
    ///
    /// A rejection of what is matched, or of anything but the outstanding probe, is stale (catalogue 29). If the logs can
    /// agree only below the start of ours, the follower needs a snapshot: `newest`, if there is one.
    pub(super) fn rejected(
        &mut self,
        rejected: LogIndex,
        hint: Position,
        log: &Log,
        newest: Option<SnapshotName>,
    ) {
        let is_stale = match self.state {
            State::Probe { .. } => {
                let asked = self.next.max(log.base().index.next());
                rejected.next() != asked || rejected <= self.matched
            }
            // A heartbeat asks at the base if what it would have asked at was trimmed, sent or not.
            State::Replicate => rejected <= self.matched || rejected > self.sent_upto.max(log.base().index),
            State::Snapshot(_) => true,
        };
        let agreed = log.last_upto(hint.index, hint.term).index;
        if planted!(29) {
            self.probe_from(agreed.next(), false);
            return;
        }
        if is_stale || hint.index >= rejected {
            return;
        }
        let base = log.base().index;
        if hint.index < base {
            self.probe_from(self.matched.max(base).next(), true);
            self.offer(newest);
        } else {
            self.probe_from(agreed.max(self.matched).next(), false);
        }
        self.assert_invariants();
    }

    /// The follower's log ends below ours: it gets this snapshot, unless one is on its way. With none it is asked again
    /// at every heartbeat.
    pub(super) fn offer(&mut self, newest: Option<SnapshotName>) {
        let (Some(snapshot), false) = (newest, matches!(self.state, State::Snapshot(_))) else {
            return;
        };
        sometimes!(SnapshotOffered);
        self.inflight.clear();
        self.sent_upto = self.sent_upto.max(snapshot.position.index);
        self.state = State::Snapshot(Sending::new(snapshot));
    }

    /// The snapshot being sent.
    pub(super) const fn sending(&self) -> Option<SnapshotName> {
        match &self.state {
            State::Snapshot(sending) => Some(sending.snapshot),
            State::Probe { .. } | State::Replicate => None,
        }
    }

    /// The snapshot and the offset in it from which the next chunk is to be read now. One of which our log has not
    /// what follows any more gives way to the newest.
    pub(super) fn chunk_due(
        &mut self,
        base: LogIndex,
        newest: Option<SnapshotName>,
    ) -> Option<(SnapshotName, u64)> {
        let State::Snapshot(sending) = &mut self.state else {
            return None;
        };
        if sending.snapshot.position.index < base
            && let Some(newest) = newest
        {
            sometimes!(SnapshotOfferedAnew);
            self.sent_upto = self.sent_upto.max(newest.position.index);
            *sending = Sending::new(newest);
        }
        if sending.chunk != Chunk::Due {
            return None;
        }
        sending.chunk = Chunk::Read;
        Some((sending.snapshot, sending.held_bytes))
    }

    /// The chunk that was to be read, if it is still wanted; it counts as sent.
    pub(super) fn chunk_read(
        &mut self,
        term: Term,
        snapshot: SnapshotName,
        offset: u64,
        bytes_count: u32,
    ) -> Option<SnapshotChunk> {
        let session = self.session;
        let State::Snapshot(sending) = &mut self.state else {
            return None;
        };
        let is_wanted =
            (sending.chunk, sending.snapshot, sending.held_bytes) == (Chunk::Read, snapshot, offset);
        if !is_wanted {
            return None;
        }
        (sending.chunk, sending.waited) = (Chunk::Sent, 0);
        Some(SnapshotChunk { term, session, snapshot, offset, bytes_count })
    }

    /// The snapshot cannot be read: the newest takes its place, from its start; the same one only after a while.
    pub(super) fn chunk_unreadable(&mut self, snapshot: SnapshotName, newest: Option<SnapshotName>) {
        if let State::Snapshot(sending) = &mut self.state
            && sending.snapshot == snapshot
        {
            let chunk = if newest == Some(snapshot) { Chunk::Sent } else { Chunk::Due };
            let newest = newest.unwrap_or(snapshot);
            self.sent_upto = self.sent_upto.max(newest.position.index);
            *sending = Sending { chunk, ..Sending::new(newest) };
        }
    }

    /// The follower says how much of the snapshot it holds. An answer to anything but the outstanding chunk is
    /// stale.
    pub(super) fn snapshot_replied(&mut self, reply: SnapshotReply) {
        if let State::Snapshot(sending) = &mut self.state
            && (sending.chunk, sending.snapshot, sending.held_bytes)
                == (Chunk::Sent, reply.snapshot, reply.offset)
        {
            sending.go_on(reply.upto);
        }
    }

    pub(super) fn assert_invariants(&self) {
        assert!(self.matched < self.next, "an index cannot be both matched and unsent");
        assert!(self.matched <= self.sent_upto, "what was never sent is not matched");
    }
}

impl Sending {
    const fn new(snapshot: SnapshotName) -> Self {
        Self { snapshot, held_bytes: 0, chunk: Chunk::Due, waited: 0 }
    }

    const fn go_on(&mut self, held_bytes: u64) {
        let is_whole = held_bytes >= self.snapshot.bytes_count;
        (self.held_bytes, self.waited) = (held_bytes, 0);
        self.chunk = if is_whole { Chunk::Sent } else { Chunk::Due };
    }

    /// Without news for some heartbeats the chunk is sent again. A follower that has all and does not install it may
    /// have lost it: its answer to the first chunk says so.
    fn before_heartbeat(&mut self) {
        self.waited += 1;
        if self.chunk == Chunk::Sent && self.waited >= SNAPSHOT_RESEND_HEARTBEATS {
            sometimes!(SnapshotChunkSentAgain);
            let is_whole = self.held_bytes >= self.snapshot.bytes_count;
            self.go_on(if is_whole { 0 } else { self.held_bytes });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{entries, position};
    use super::*;

    const HEADER: Header = Header { term: Term(3), commit: LogIndex(0), round: 0 };

    fn log() -> Log {
        Log::recovered(Position::START, entries(1, &[1, 1, 1, 2, 2, 3]), Vec::new())
    }

    fn progress() -> Progress {
        Progress::new(MemberId(2), 7, LogIndex(6), BootMicros(0))
    }

    #[test]
    fn a_probe_is_one_message_and_an_answer_opens_the_pipeline() {
        let (mut progress, log) = (progress(), log());
        let probe = progress.next_append(&log, HEADER).unwrap();
        assert_eq!((probe.previous, probe.entries.len()), (position(5, 2), 1));
        assert_eq!(progress.next_append(&log, HEADER), None);
        assert!(progress.acknowledged(LogIndex(5), LogIndex(0)));
        assert_eq!(progress.next(), LogIndex(7), "what went with the probe is not sent twice");
        assert!(progress.acknowledged(LogIndex(6), LogIndex(0)));
        assert!(!progress.acknowledged(LogIndex(6), LogIndex(0)), "a doubled answer is no news");
    }

    #[test]
    fn a_conflict_steps_back_over_whole_terms_and_a_stale_one_moves_nothing() {
        let (mut progress, log) = (progress(), log());
        progress.next_append(&log, HEADER);
        progress.rejected(LogIndex(4), position(1, 1), &log, None);
        assert_eq!(progress.next(), LogIndex(6), "not the outstanding probe");
        progress.rejected(LogIndex(5), position(4, 1), &log, None);
        assert_eq!(progress.next(), LogIndex(4), "terms above 1 are passed at once");
        let probe = progress.next_append(&log, HEADER).unwrap();
        assert_eq!((probe.previous, probe.entries.len()), (position(3, 1), 3));
        progress.acknowledged(LogIndex(6), LogIndex(0));
        progress.rejected(LogIndex(5), position(1, 1), &log, None);
        assert_eq!((progress.matched(), progress.next()), (LogIndex(6), LogIndex(7)));
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_is_refused() {
        let mut progress = progress();
        assert!(!progress.acknowledged(LogIndex(6), LogIndex(0)));
        assert_eq!(progress.matched(), LogIndex(0));
    }

    #[test]
    fn a_hint_at_or_above_the_rejection_is_refused() {
        let (mut progress, log) = (progress(), log());
        progress.next_append(&log, HEADER);
        progress.rejected(LogIndex(5), position(5, 9), &log, None);
        assert_eq!(progress.next(), LogIndex(6));
    }

    const SNAPSHOT: SnapshotName = SnapshotName { position: position(5, 2), bytes_count: 10, hash: 1 };

    #[test]
    fn a_follower_whose_window_was_lost_and_trimmed_gets_a_snapshot() {
        let (mut progress, mut log) = (Progress::new(MemberId(2), 7, LogIndex(2), BootMicros(0)), log());
        progress.next_append(&log, HEADER);
        progress.acknowledged(LogIndex(1), LogIndex(0));
        (progress.next, progress.sent_upto) = (LogIndex(3), LogIndex(2));
        progress.inflight.sent(LogIndex(2), crate::limits::RAFT_INFLIGHT_BYTES_MAX);
        log.trim(LogIndex(5));
        // The heartbeat asks at the base, which was never sent; the answer counts all the same.
        assert_eq!(progress.empty_append(&log, HEADER).previous, position(5, 2));
        progress.rejected(LogIndex(5), position(1, 1), &log, Some(SNAPSHOT));
        assert_eq!(progress.chunk_due(LogIndex(5), Some(SNAPSHOT)), Some((SNAPSHOT, 0)));
    }

    #[test]
    fn a_chunk_is_read_once_and_sent_once_until_it_is_taken_for_lost() {
        let (mut progress, mut log) = (progress(), log());
        progress.next_append(&log, HEADER);
        log.trim(LogIndex(5));
        progress.rejected(LogIndex(5), position(1, 1), &log, Some(SNAPSHOT));
        let reply =
            |offset, upto| SnapshotReply { term: Term(3), session: 7, snapshot: SNAPSHOT, offset, upto };
        assert_eq!(progress.chunk_due(LogIndex(5), None), Some((SNAPSHOT, 0)));
        assert_eq!(progress.chunk_due(LogIndex(5), None), None, "it is being read");
        assert_eq!(progress.chunk_read(Term(3), SNAPSHOT, 4, 4), None, "nobody asked for this one");
        assert!(progress.chunk_read(Term(3), SNAPSHOT, 0, 4).is_some());
        assert_eq!(progress.chunk_read(Term(3), SNAPSHOT, 0, 4), None, "it is on its way");
        progress.snapshot_replied(reply(0, 4));
        progress.snapshot_replied(reply(0, 4));
        assert_eq!(progress.chunk_due(LogIndex(5), None), Some((SNAPSHOT, 4)));
        progress.chunk_read(Term(3), SNAPSHOT, 4, 6);
        for _ in 0..SNAPSHOT_RESEND_HEARTBEATS {
            assert_eq!(progress.chunk_due(LogIndex(5), None), None);
            progress.before_heartbeat(BootMicros(1), 1_000, LogIndex(5));
        }
        assert_eq!(progress.chunk_due(LogIndex(5), None), Some((SNAPSHOT, 4)));
        assert!(progress.acknowledged(LogIndex(5), LogIndex(5)), "it was installed");
        assert_eq!(progress.next(), LogIndex(6));
    }

    #[test]
    fn a_silent_follower_is_probed_from_what_it_matched() {
        let (mut progress, log) = (progress(), log());
        progress.next_append(&log, HEADER);
        progress.acknowledged(LogIndex(5), LogIndex(0));
        progress.before_heartbeat(BootMicros(1_000), 1_000, LogIndex(0));
        assert_eq!(progress.next(), LogIndex(7));
        progress.before_heartbeat(BootMicros(1_001), 1_000, LogIndex(0));
        assert_eq!(progress.next(), LogIndex(6));
        assert_eq!(progress.next_append(&log, HEADER), None, "the heartbeat is the probe");
    }
}
