//! Snapshots for clients, who keep them elsewhere: one is cut that holds everything, and its file is read to them in pieces.
//!
//! ```text
//!   client: cut ──> read round, applied ──> the newest holds it? ── yes ──> answered
//!                                                └── no ──> one is cut from now on, counts ──> answered
//!   client: read ──> one piece at a time is ordered of the disk, so many bytes a second ──> answered
//! ```
//!
//! Always: what was committed when a client asked is in the snapshot that it is told of; a file that is being read stays,
//! for a while after each piece, and of so many files; what was removed all the same is refused by that name. Left out: who
//! may ask, and whether the bytes are sound: whoever keeps them verifies them, as every reader of a snapshot does.

use super::apply::Asker;
use super::group::Replica;
use super::input::Asked;
use super::snapshots::{OrderedBy, file_of};
use super::{FileDone, FileOrder, Output};
use crate::api::{Refusal, Response, SnapshotAnswer, SnapshotRequest};
use crate::ids::{BootMicros, LogIndex};
use crate::limits::{SNAPSHOT_HOLD_MICROS, SNAPSHOT_SAVES_WAITING_MAX, SNAPSHOTS_HELD_MAX};
use crate::raft::Position;
use crate::snapshot::{BLOCK_BYTES, FileKind, Verified};
use std::collections::VecDeque;

/// Some bytes that a client asks for.
#[derive(Clone, Copy, Debug)]
struct Piece {
    asker: Asker,
    position: Position,
    offset: u64,
    bytes_count: usize,
}

/// What clients want of this member's snapshots.
#[derive(Debug, Default)]
pub(super) struct Saves {
    /// Wait for a snapshot that reaches as far as this.
    wanted: Vec<(Asker, LogIndex)>,
    /// Waited for one of which nothing came.
    failed: Vec<Asker>,
    /// Pieces to be read, in this order.
    pieces: VecDeque<Piece>,
    /// The one being read, and its order.
    reading: Option<(u64, Piece)>,
    /// None is read before this.
    rests_until: BootMicros,
    /// Files that clients are reading, and until when they are kept for them.
    held: Vec<(Position, BootMicros)>,
}

impl Saves {
    /// Who waits for anything.
    pub(super) fn count(&self) -> usize {
        self.wanted.len() + self.failed.len() + self.pieces.len() + usize::from(self.reading.is_some())
    }

    /// Whether somebody waits for a snapshot.
    pub(super) const fn wants_cut(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Nothing came of the one that was being cut.
    pub(super) fn cut_failed(&mut self) {
        self.failed.extend(self.wanted.drain(..).map(|(asker, _)| asker));
    }

    /// Whether a client may be reading that file.
    pub(super) fn is_held(&self, position: Position) -> bool {
        self.held.iter().any(|(held, _)| *held == position)
    }

    /// A client reads that file, now and probably once more. Only so many are held: the ones read last.
    fn hold(&mut self, position: Position, now: BootMicros) {
        self.held.retain(|(held, _)| *held != position);
        if self.held.len() >= SNAPSHOTS_HELD_MAX {
            self.held.remove(0);
        }
        self.held.push((position, now.after(SNAPSHOT_HOLD_MICROS)));
    }

    /// When the next piece is to be read, or somebody is to be told something.
    pub(super) fn deadline(&self) -> BootMicros {
        if !self.failed.is_empty() {
            BootMicros(0)
        } else if self.reading.is_none() && !self.pieces.is_empty() {
            self.rests_until
        } else {
            BootMicros(u64::MAX)
        }
    }
}

/// What a client is told of a snapshot that it may read.
fn answer_of(verified: Verified) -> Response {
    let Verified { position: Position { index, term }, bytes_count, hash } = verified;
    Response::Snapshot(SnapshotAnswer::Cut { index, term, bytes_count, hash })
}

impl Replica {
    /// A client asks something of this member's snapshots.
    pub(super) fn snapshot_request(
        &mut self,
        (ticket, who): Asked,
        request: SnapshotRequest,
        outputs: &mut Vec<Output>,
    ) {
        let asker = Asker::Client(ticket);
        let SnapshotRequest::Read { index, term, offset, bytes_count } = request else {
            self.gather_save((ticket, who), outputs);
            return;
        };
        let bytes_count = usize::try_from(bytes_count).unwrap_or(usize::MAX);
        let position = Position { index, term };
        let is_aligned = offset.is_multiple_of(BLOCK_BYTES as u64) && bytes_count.is_multiple_of(BLOCK_BYTES);
        let refusal = if let Err(refusal) = self.auth.may_administer(who) {
            refusal.into()
        } else if bytes_count == 0 || !is_aligned {
            Refusal::Malformed
        } else if !self.snapshots.has(position) {
            Refusal::NoSuchSnapshot
        } else if self.snapshots.saves.count() >= SNAPSHOT_SAVES_WAITING_MAX {
            Refusal::Overloaded
        } else {
            self.snapshots.saves.pieces.push_back(Piece { asker, position, offset, bytes_count });
            return;
        };
        self.answer(asker, Response::Refused(refusal), outputs);
    }

    /// Everything that was committed when a client asked for a snapshot is applied now.
    pub(super) fn save(&mut self, now: BootMicros, asker: Asker, outputs: &mut Vec<Output>) {
        let newest = self.snapshots.newest_verified();
        if let Some(verified) = newest.filter(|verified| verified.position.index == self.applied) {
            self.snapshots.saves.hold(verified.position, now);
            self.answer(asker, answer_of(verified), outputs);
        } else if self.snapshots.saves.count() >= SNAPSHOT_SAVES_WAITING_MAX {
            self.answer(asker, Response::Refused(Refusal::Overloaded), outputs);
        } else {
            self.snapshots.saves.wanted.push((asker, self.applied));
        }
    }

    /// A snapshot that was cut counts: whoever waited for it may read it.
    pub(super) fn tell_savers(&mut self, now: BootMicros, verified: Verified, outputs: &mut Vec<Output>) {
        let reaches = |(_, wanted): &mut (Asker, LogIndex)| *wanted <= verified.position.index;
        let told: Vec<_> = self.snapshots.saves.wanted.extract_if(.., reaches).collect();
        for (asker, _) in told {
            self.snapshots.saves.hold(verified.position, now);
            self.answer(asker, answer_of(verified), outputs);
        }
    }

    /// Reads the next piece, when its time has come.
    pub(super) fn carry_on_saving(&mut self, now: BootMicros, outputs: &mut Vec<Output>) {
        self.snapshots.saves.held.retain(|(_, until)| *until > now);
        for asker in std::mem::take(&mut self.snapshots.saves.failed) {
            self.answer(asker, Response::Refused(Refusal::NoSuchSnapshot), outputs);
        }
        let saves = &mut self.snapshots.saves;
        if saves.reading.is_some() || saves.rests_until > now {
            return;
        }
        let Some(piece) = saves.pieces.pop_front() else { return };
        saves.rests_until = now.after(self.snapshots.policy.micros_for(piece.bytes_count));
        let file = file_of(self.setup.group, piece.position, FileKind::Whole);
        let order = FileOrder::Read { offset: piece.offset, bytes_count: piece.bytes_count };
        let ticket = self.snapshots.order(OrderedBy::Saving, file, order, outputs);
        self.snapshots.saves.reading = Some((ticket, piece));
    }

    /// A piece was read, or could not be.
    pub(super) fn piece_done(
        &mut self,
        now: BootMicros,
        ticket: u64,
        done: FileDone,
        outputs: &mut Vec<Output>,
    ) {
        let Some((_, piece)) = self.snapshots.saves.reading.take_if(|(ordered, _)| *ordered == ticket) else {
            return;
        };
        let response = match done {
            FileDone::Read(bytes) => {
                self.snapshots.saves.hold(piece.position, now);
                Response::Snapshot(SnapshotAnswer::Piece(bytes))
            }
            FileDone::Written | FileDone::Kept | FileDone::Failed => {
                Response::Refused(Refusal::NoSuchSnapshot)
            }
        };
        self.answer(piece.asker, response, outputs);
    }

    /// Nobody is answered here any more.
    pub(super) fn refuse_savers(&mut self, refusal: Refusal, outputs: &mut Vec<Output>) {
        let Saves { wanted, failed, pieces, reading, .. } = std::mem::take(&mut self.snapshots.saves);
        let readers = pieces.into_iter().chain(reading.map(|(_, piece)| piece));
        let savers = wanted.into_iter().map(|(asker, _)| asker).chain(failed);
        let all = savers.chain(readers.map(|piece| piece.asker));
        for asker in all {
            self.answer(asker, Response::Refused(refusal), outputs);
        }
    }
}
