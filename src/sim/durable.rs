//! What a member's disk certainly holds: the *durable image*, built from the writes as they land.
//!
//! "Committed" in this simulator means: in the durable images of a majority. Memory does not count, nor does what a
//! member believes of itself (RELIABILITY §2). So the image is made from the bytes of each landed frame, decoded here
//! again, and never from anything the member says.
//!
//! Which frames may come to harm is in `storage_faults`; what is left in the image then, here.
//!
//! Always: durable terms grow, a durable vote is not changed within its term, entries are replaced only by an
//! append at or below them. Left out: what recovery makes of the image (the run compares the two).

use super::invariants::{Broken, holds};
use super::random::Random;
use crate::ids::{LogIndex, MemberId, SegmentNumber, Term};
use crate::raft::Position;
use std::collections::BTreeMap;
use std::ops::Range;

/// An entry as an image holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DurableEntry {
    /// Its term.
    pub(super) term: Term,
    /// The fingerprint of its record.
    pub(super) print: u64,
    /// Which landed frame holds it.
    frame: u64,
}

/// What one frame says about the one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FrameFacts {
    /// Term, vote and commit hint, if the frame names them.
    pub(super) hard_state: Option<(Term, Option<MemberId>, LogIndex)>,
    /// Runs of entries.
    pub(super) runs: Vec<RunFacts>,
    /// The log begins anew above a snapshot.
    pub(super) reset: Option<ResetFacts>,
}

/// A reset in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ResetFacts {
    /// Whether what lies above stays.
    pub(super) is_fill: bool,
    /// The snapshot.
    pub(super) snapshot: Position,
}

/// Consecutive entries in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunFacts {
    /// Whether it fills a hole, and so supersedes nothing above it.
    pub(super) is_fill: bool,
    /// The entry just before.
    pub(super) previous: Position,
    /// Term and fingerprint of each.
    pub(super) entries: Vec<(Term, u64)>,
}

/// Where a frame lies.
#[derive(Clone, Debug)]
struct Landed {
    frame: u64,
    segment: SegmentNumber,
    range: Range<usize>,
}

/// A reset that has landed.
#[derive(Clone, Debug)]
struct Reset {
    frame: u64,
    /// The last entry of its snapshot.
    snapshot: Position,
    /// What the log held below, by its place in `entries`: found again if this frame is lost.
    hidden: BTreeMap<usize, DurableEntry>,
}

/// The durable image of one member.
#[derive(Clone, Debug, Default)]
pub(super) struct DurableImage {
    term: Term,
    vote: Option<MemberId>,
    /// The newest durable commit hint.
    commit: LogIndex,
    /// Every vote that ever was durable, in the order of terms.
    votes: Vec<(Term, MemberId)>,
    /// From index 1 on; `None` where rot took what stood there.
    entries: Vec<Option<DurableEntry>>,
    /// Everything up to here is there, or in a snapshot.
    contiguous: usize,
    /// The newest sound snapshot.
    covered: Position,
    /// Where the log began anew above a snapshot, the newest last.
    resets: Vec<Reset>,
    landed: Vec<Landed>,
    frames_count: u64,
    /// Frames that have rotted. What stands in them is gone for ever.
    rotten: Vec<u64>,
    /// Whether any frame names the group.
    is_founded: bool,
    /// The entries, with their fingerprints, that resets took away since somebody asked: none of them was hidden by a snapshot.
    taken: Vec<(LogIndex, u64)>,
}

impl DurableImage {
    /// Whether the group has been founded on this disk.
    pub(super) const fn is_founded(&self) -> bool {
        self.is_founded
    }

    /// The newest durable term.
    pub(super) const fn term(&self) -> Term {
        self.term
    }

    /// The durable vote in that term.
    pub(super) const fn vote(&self) -> Option<MemberId> {
        self.vote
    }

    /// Whether this vote is, or was, durable.
    pub(super) fn holds_vote(&self, term: Term, vote: MemberId) -> bool {
        self.votes.iter().rev().any(|durable| *durable == (term, vote))
    }

    /// The end of the part without holes.
    pub(super) const fn contiguous(&self) -> LogIndex {
        LogIndex(self.contiguous as u64)
    }

    /// The end of the last entry.
    pub(super) fn last(&self) -> Position {
        let index = LogIndex(self.entries.len() as u64);
        let known = [self.covered, self.reset()].into_iter().find(|known| known.index == index);
        let without = known.map_or(Term(0), |known| known.term);
        let term = self.entries.last().copied().flatten().map_or(without, |entry| entry.term);
        Position { index, term }
    }

    /// The end of the log that a member finds here: a snapshot above it, or against it, is its new beginning.
    pub(super) fn recovered_last(&self) -> Position {
        let last = self.last();
        let is_against = self.entry(self.covered.index).is_some_and(|entry| entry.term != self.covered.term);
        if self.covered.index > last.index || is_against { self.covered } else { last }
    }

    /// What the sound snapshots on this disk cover.
    pub(super) fn set_covered(&mut self, covered: Position) {
        self.covered = covered;
        self.contiguous = 0;
        self.extend_contiguous();
    }

    /// Up to where an installed snapshot stands for the entries, whatever the log held there before.
    pub(super) fn reset_upto(&self) -> LogIndex {
        self.reset().index
    }

    /// The last entry of the snapshot above which the log began anew last.
    fn reset(&self) -> Position {
        self.resets.last().map_or_else(Position::default, |reset| reset.snapshot)
    }

    /// A segment is gone, and the entries in it.
    ///
    /// # Errors
    /// If no snapshot holds one of them.
    pub(super) fn forget_segment(&mut self, segment: SegmentNumber) -> Result<(), Broken> {
        let is_gone = |frame: u64| self.landed.iter().any(|it| it.segment == segment && it.frame == frame);
        let covered = self.covered.index;
        for (index, entry) in (1..).map(LogIndex).zip(&mut self.entries) {
            if entry.is_some_and(|entry| is_gone(entry.frame)) {
                holds(index <= covered, "what_is_freed_is_in_a_snapshot", || {
                    format!("entry {index} goes with {segment}, and snapshots hold all up to {covered}")
                })?;
                *entry = None;
            }
        }
        self.landed.retain(|landed| landed.segment != segment);
        Ok(())
    }

    /// A snapshot has rotted, and something that only it held is missing: the commit hint begins anew, as with a frame.
    pub(super) fn lose_snapshot(&mut self) {
        self.rotten.push(0);
    }

    /// Whether the entry is there, or in a snapshot.
    pub(super) fn is_held(&self, index: LogIndex) -> bool {
        index <= self.covered.index || self.entry(index).is_some()
    }

    fn land_reset(&mut self, reset: ResetFacts) {
        let upto = usize::try_from(reset.snapshot.index.0).unwrap_or(usize::MAX);
        if !reset.is_fill && self.entries.len() > upto {
            let above = self.entries.split_off(upto);
            let places = (reset.snapshot.index.0 + 1..).map(LogIndex).zip(above);
            self.taken.extend(places.filter_map(|(index, entry)| Some((index, entry?.print))));
        }
        self.entries.resize(self.entries.len().max(upto), None);
        // The log begins there: what it held below is not found any more, even where its frames still lie on the disk.
        let below = self.entries[..upto].iter_mut().enumerate();
        let hidden = below.filter_map(|(place, entry)| Some((place, entry.take()?))).collect();
        self.resets.push(Reset { frame: self.frames_count, snapshot: reset.snapshot, hidden });
        self.contiguous = 0;
        self.extend_contiguous();
    }

    /// A frame is lost. If it was a reset, what that hid is found again, unless a later one hides it as well; and what was
    /// written since below an earlier one is not found any more.
    fn lose_reset(&mut self, frame: u64) {
        let Some(at) = self.resets.iter().position(|reset| reset.frame == frame) else { return };
        let lost = self.resets.remove(at);
        let is_there = |entry: &DurableEntry| self.landed.iter().any(|landed| landed.frame == entry.frame);
        let found = lost.hidden.into_iter().filter(|(_, entry)| is_there(entry));
        for (place, entry) in found {
            if let Some(later) = self.resets.get_mut(at) {
                later.hidden.entry(place).or_insert(entry);
            } else if let Some(place) = self.entries.get_mut(place) {
                place.get_or_insert(entry);
            }
        }
        let (earlier, later) = self.resets.split_at_mut(at);
        let Some(earlier) = earlier.last_mut() else { return };
        let upto = usize::try_from(earlier.snapshot.index.0).unwrap_or(usize::MAX);
        let below: Vec<(usize, DurableEntry)> = if let Some(later) = later.first_mut() {
            later.hidden.extract_if(..upto, |_, _| true).collect()
        } else {
            let below = self.entries.iter_mut().take(upto).enumerate();
            below.filter_map(|(place, entry)| Some((place, entry.take()?))).collect()
        };
        for (place, entry) in below {
            earlier.hidden.insert(place, entry);
        }
        self.contiguous = 0;
    }

    /// What a log that began anew no longer holds above its new beginning, since the last time.
    pub(super) fn take_taken(&mut self) -> Vec<(LogIndex, u64)> {
        core::mem::take(&mut self.taken)
    }

    /// Whether no entry is missing.
    pub(super) fn is_whole(&self) -> bool {
        self.contiguous == self.entries.len()
    }

    /// The entry at `index`.
    pub(super) fn entry(&self, index: LogIndex) -> Option<DurableEntry> {
        let at = usize::try_from(index.0.checked_sub(1)?).ok()?;
        self.entries.get(at).copied().flatten()
    }

    /// A frame has landed for good at this place.
    ///
    /// # Errors
    /// If what is durable went back.
    pub(super) fn land(
        &mut self,
        segment: SegmentNumber,
        range: Range<usize>,
        facts: &FrameFacts,
    ) -> Result<(), Broken> {
        self.frames_count += 1;
        let overlaps = |other: &Landed| {
            other.segment == segment && other.range.start < range.end && range.start < other.range.end
        };
        // Only the last few can be written over: recovery begins where the write in flight was dropped.
        while self.landed.last().is_some_and(overlaps) {
            self.landed.pop();
        }
        self.landed.push(Landed { frame: self.frames_count, segment, range });
        if let Some((term, vote, commit)) = facts.hard_state {
            self.is_founded = true;
            self.land_hard_state(term, vote)?;
            self.durable_commits_only_grow(commit)?;
        }
        if let Some(reset) = facts.reset {
            self.land_reset(reset);
        }
        for run in &facts.runs {
            self.land_run(run)?;
        }
        Ok(())
    }

    fn land_hard_state(&mut self, term: Term, vote: Option<MemberId>) -> Result<(), Broken> {
        const NAME: &str = "durable_terms_and_votes_only_grow";
        holds(term >= self.term, NAME, || format!("durable term {} went back to {term}", self.term))?;
        if term > self.term {
            self.vote = None;
        }
        holds(self.vote.is_none() || vote == self.vote, NAME, || {
            format!("the durable vote of term {term} changed from {:?} to {vote:?}", self.vote)
        })?;
        if let (None, Some(vote)) = (self.vote, vote) {
            self.votes.push((term, vote));
        }
        (self.term, self.vote) = (term, vote);
        Ok(())
    }

    /// With a hole, the hint begins anew: what is left below it may have been replaced.
    fn durable_commits_only_grow(&mut self, commit: LogIndex) -> Result<(), Broken> {
        holds(commit >= self.commit || !self.rotten.is_empty(), "durable_commits_only_grow", || {
            format!("the durable commit index {} went back to {commit}", self.commit)
        })?;
        self.commit = commit;
        Ok(())
    }

    fn land_run(&mut self, run: &RunFacts) -> Result<(), Broken> {
        const NAME: &str = "runs_join_the_durable_log";
        let first = usize::try_from(run.previous.index.0).unwrap_or(usize::MAX);
        holds(first <= self.entries.len(), NAME, || {
            format!("a run after {} begins beyond the end {}", run.previous.index, self.entries.len())
        })?;
        if !run.is_fill {
            self.entries.truncate(first);
            self.contiguous = self.contiguous.min(first);
        }
        for (offset, (term, print)) in run.entries.iter().enumerate() {
            let entry = Some(DurableEntry { term: *term, print: *print, frame: self.frames_count });
            match self.entries.get_mut(first + offset) {
                Some(place) => *place = entry,
                None => self.entries.push(entry),
            }
        }
        self.extend_contiguous();
        Ok(())
    }

    fn extend_contiguous(&mut self) {
        let covered = usize::try_from(self.covered.index.0).unwrap_or(usize::MAX);
        self.contiguous = self.contiguous.max(covered.min(self.entries.len()));
        while self.entries.get(self.contiguous).is_some_and(Option::is_some) {
            self.contiguous += 1;
        }
    }

    /// Where the last landed frame of a segment ends.
    pub(super) fn end_in(&self, segment: SegmentNumber) -> usize {
        let ends = self.landed.iter().filter(|landed| landed.segment == segment);
        ends.map(|landed| landed.range.end).max().unwrap_or(0)
    }

    /// Whether a later frame stands behind this one in the same segment.
    pub(super) fn is_followed(&self, candidate: &RotCandidate) -> bool {
        let is_behind = |landed: &Landed| {
            landed.segment == candidate.segment && landed.range.start >= candidate.range.end
        };
        self.landed.iter().any(is_behind)
    }

    /// Draws any frame, recent ones more often: with no regard for what the promise covers.
    pub(super) fn draw_any_frame(&self, random: &mut Random) -> Option<(SegmentNumber, Range<usize>)> {
        let reach = if random.below(2) == 0 { self.landed.len() } else { self.landed.len().min(4) };
        let at = self.landed.len().checked_sub(1 + random.position(reach.max(1)))?;
        self.landed.get(at).map(|landed| (landed.segment, landed.range.clone()))
    }

    /// Draws a frame that may be harmed as far as this member is concerned: any but the newest, recent ones more
    /// often.
    pub(super) fn draw_frame(&self, random: &mut Random) -> Option<RotCandidate> {
        let older = self.landed.len().checked_sub(1).filter(|older| *older > 0)?;
        let reach = if random.below(2) == 0 { older } else { older.min(8) };
        let at = older - 1 - random.position(reach);
        let landed = self.landed.get(at)?;
        // A frame's tails stand again in the next one, and only there.
        if self.rotten.iter().any(|rotten| rotten.abs_diff(landed.frame) <= 1) {
            return None;
        }
        let holds_entry =
            |entry: &Option<DurableEntry>| entry.is_some_and(|entry| entry.frame == landed.frame);
        let entries = (1_u64..)
            .zip(&self.entries)
            .filter(|(_, entry)| holds_entry(entry))
            .filter_map(|(index, entry)| entry.map(|entry| (LogIndex(index), entry.print)))
            .collect();
        Some(RotCandidate {
            frame: landed.frame,
            segment: landed.segment,
            range: landed.range.clone(),
            entries,
            hidden: self.hidden_without(landed.frame),
        })
    }

    /// What an earlier reset would hide if the frame of the newest were lost.
    fn hidden_without(&self, frame: u64) -> Vec<(LogIndex, u64)> {
        let [.., earlier, newest] = self.resets.as_slice() else { return Vec::new() };
        let upto = if newest.frame == frame { earlier.snapshot.index } else { LogIndex(0) };
        let below = (1_u64..).map(LogIndex).zip(&self.entries).take_while(|(index, _)| *index <= upto);
        below.filter_map(|(index, entry)| Some((index, entry.as_ref()?.print))).collect()
    }

    /// The frame has rotted: its entries are gone.
    pub(super) fn lose(&mut self, candidate: &RotCandidate) {
        for (index, _) in &candidate.entries {
            let at = usize::try_from(index.0 - 1).unwrap_or(usize::MAX);
            if let Some(place) = self.entries.get_mut(at) {
                *place = None;
            }
            self.contiguous = self.contiguous.min(at);
        }
        self.landed.retain(|landed| landed.frame != candidate.frame);
        self.lose_reset(candidate.frame);
        self.extend_contiguous();
        self.rotten.push(candidate.frame);
    }
}

/// A frame that may rot.
#[derive(Clone, Debug, Default)]
pub(super) struct RotCandidate {
    frame: u64,
    /// Its segment.
    pub(super) segment: SegmentNumber,
    /// Its place there.
    pub(super) range: Range<usize>,
    /// The entries that only it holds on this disk, and their fingerprints.
    pub(super) entries: Vec<(LogIndex, u64)>,
    /// Those in other frames that are not found without it.
    pub(super) hidden: Vec<(LogIndex, u64)>,
}

impl RotCandidate {
    /// Whether the two are one frame, or neighbours.
    pub(super) const fn is_near(&self, other: &Self) -> bool {
        self.frame.abs_diff(other.frame) <= 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(previous: (u64, u64), entries: &[(u64, u64)], is_fill: bool) -> FrameFacts {
        FrameFacts {
            hard_state: None,
            reset: None,
            runs: vec![RunFacts {
                is_fill,
                previous: Position { index: LogIndex(previous.0), term: Term(previous.1) },
                entries: entries.iter().map(|(term, print)| (Term(*term), *print)).collect(),
            }],
        }
    }

    fn land(image: &mut DurableImage, facts: &FrameFacts) {
        let start = image.landed.len() * 4_096;
        image.land(SegmentNumber(1), start..start + 4_096, facts).unwrap();
    }

    #[test]
    fn an_append_supersedes_everything_above_it_and_a_fill_nothing() {
        let mut image = DurableImage::default();
        land(&mut image, &facts((0, 0), &[(1, 11), (1, 12), (1, 13)], false));
        land(&mut image, &facts((1, 1), &[(2, 22)], false));
        assert_eq!(image.contiguous(), LogIndex(2));
        land(&mut image, &facts((2, 2), &[(2, 23)], false));
        land(&mut image, &facts((0, 0), &[(1, 11)], true));
        assert_eq!(image.contiguous(), LogIndex(3));
        assert_eq!(image.entry(LogIndex(2)).map(|entry| entry.print), Some(22));
    }

    /// Seed 8190126080225: the member recovered what it had acknowledged, and was expected to have lost it.
    #[test]
    fn what_was_written_after_the_log_began_anew_is_found_whatever_stood_below() {
        let mut image = DurableImage::default();
        land(&mut image, &facts((0, 0), &[(1, 11), (1, 12), (1, 13)], false));
        let snapshot = Position { index: LogIndex(2), term: Term(2) };
        image.set_covered(snapshot);
        assert_eq!(image.recovered_last(), snapshot, "the log is against the snapshot");
        let reset = Some(ResetFacts { is_fill: false, snapshot });
        land(&mut image, &FrameFacts { hard_state: None, runs: Vec::new(), reset });
        assert_eq!(image.recovered_last().index, LogIndex(2));
        land(&mut image, &facts((2, 2), &[(2, 23)], false));
        assert_eq!(image.recovered_last(), Position { index: LogIndex(3), term: Term(2) });
    }

    #[test]
    fn what_a_log_that_begins_anew_holds_no_more_is_told_once() {
        let mut image = DurableImage::default();
        land(&mut image, &facts((0, 0), &[(1, 11), (1, 12), (1, 13)], false));
        let snapshot = Position { index: LogIndex(2), term: Term(1) };
        let reset = |is_fill| FrameFacts {
            hard_state: None,
            runs: Vec::new(),
            reset: Some(ResetFacts { is_fill, snapshot }),
        };
        land(&mut image, &reset(true));
        assert!(image.take_taken().is_empty(), "what lies above stays");
        land(&mut image, &reset(false));
        assert_eq!(image.take_taken(), [(LogIndex(3), 13)]);
        assert!(image.take_taken().is_empty());
    }

    /// Seed 357: the frame with which the log began anew rotted, and then the snapshot above which it did.
    #[test]
    fn what_a_reset_hid_is_found_again_when_the_frame_of_the_reset_is_lost() {
        let mut image = DurableImage::default();
        for index in 1..=3 {
            land(&mut image, &facts((index - 1, 1), &[(1, index)], false));
        }
        let snapshot = Position { index: LogIndex(2), term: Term(1) };
        image.set_covered(snapshot);
        let reset = Some(ResetFacts { is_fill: true, snapshot });
        land(&mut image, &FrameFacts { hard_state: None, runs: Vec::new(), reset });
        image.set_covered(Position::default());
        assert!(!image.is_whole() && image.entry(LogIndex(1)).is_none());
        let frame = image.frames_count;
        image.lose(&RotCandidate { frame, segment: SegmentNumber(1), ..RotCandidate::default() });
        assert_eq!(image.entry(LogIndex(2)).map(|entry| entry.print), Some(2));
        assert!(image.is_whole() && image.reset_upto() == LogIndex(0));
    }

    /// Seed 6334966132773: a snapshot rotted, the log began anew above the one before it and was filled, and the frame that said
    /// so rotted: what was filled was below where the log had begun before.
    #[test]
    fn what_was_filled_below_an_earlier_reset_is_lost_with_the_frame_of_the_later() {
        let reset = |index| FrameFacts {
            hard_state: None,
            runs: Vec::new(),
            reset: Some(ResetFacts {
                is_fill: true,
                snapshot: Position { index: LogIndex(index), term: Term(1) },
            }),
        };
        for is_newest in [true, false] {
            let mut image = DurableImage::default();
            land(&mut image, &facts((0, 0), &[(1, 1)], false));
            land(&mut image, &reset(3));
            land(&mut image, &reset(1));
            let frame = image.frames_count;
            image.set_covered(Position { index: LogIndex(1), term: Term(1) });
            land(&mut image, &facts((1, 1), &[(1, 2), (1, 3)], true));
            assert!(image.is_whole());
            let lost = |frame| RotCandidate { frame, segment: SegmentNumber(1), ..RotCandidate::default() };
            let hidden: Vec<u64> =
                image.hidden_without(frame).into_iter().map(|(index, _)| index.0).collect();
            assert_eq!(hidden, [2, 3]);
            if !is_newest {
                land(&mut image, &reset(3));
            }
            image.lose(&lost(frame));
            if !is_newest {
                image.lose(&lost(image.frames_count));
            }
            assert!(!image.is_whole() && image.entry(LogIndex(2)).is_none(), "is newest: {is_newest}");
        }
    }

    #[test]
    fn rot_makes_a_hole_that_a_fill_closes() {
        let mut image = DurableImage::default();
        for index in 1..=5 {
            land(&mut image, &facts((index - 1, 1), &[(1, index)], false));
        }
        let mut random = Random::new(1);
        let candidate = loop {
            let candidate = image.draw_frame(&mut random).unwrap();
            if candidate.entries == [(LogIndex(3), 3)] {
                break candidate;
            }
        };
        image.lose(&candidate);
        assert_eq!(image.contiguous(), LogIndex(2));
        assert!(!image.is_whole());
        land(&mut image, &facts((2, 1), &[(1, 3)], true));
        assert!(image.is_whole());
        assert_eq!(image.contiguous(), LogIndex(5));
    }

    #[test]
    fn the_newest_frame_never_rots() {
        let mut image = DurableImage::default();
        let mut random = Random::new(2);
        land(&mut image, &facts((0, 0), &[(1, 1)], false));
        assert!(image.draw_frame(&mut random).is_none());
        land(&mut image, &facts((1, 1), &[(1, 2)], false));
        for _ in 0..50 {
            assert_eq!(image.draw_frame(&mut random).unwrap().entries, [(LogIndex(1), 1)]);
        }
    }

    #[test]
    fn a_vote_that_changes_within_its_term_is_found() {
        let mut image = DurableImage::default();
        image.land_hard_state(Term(3), None).unwrap();
        image.land_hard_state(Term(3), Some(MemberId(1))).unwrap();
        assert!(image.land_hard_state(Term(3), Some(MemberId(2))).is_err());
        assert!(image.land_hard_state(Term(2), None).is_err());
        assert!(image.holds_vote(Term(3), MemberId(1)));
    }

    #[test]
    fn a_durable_commit_index_that_goes_back_is_found() {
        let mut image = DurableImage::default();
        assert!(image.durable_commits_only_grow(LogIndex(5)).is_ok());
        assert!(image.durable_commits_only_grow(LogIndex(4)).is_err());
    }
}
