//! What disks do to frames that had landed, found out when a member starts again.
//!
//! A running member never reads its log back, so all of this happens at a crash: what a disk did wrong months ago and
//! what it does wrong now look the same to the next boot.
//!
//! **The atlas.** A frame may be harmed only where the promise covers it (DESIGN §8):
//! - not again in a member until its image is whole;
//! - never in the neighbour of a harmed frame: what a frame says of term, vote and tail stands again in the next one;
//! - never in the newest frame on the disk: what came after a frame is what tells rot from a torn write;
//! - only in a frame whose entries all stand in the images of a majority of the *other* members;
//! - not while a wiped member is being missed: a majority of disks must survive.
//!
//! Headers, padding, seals and openings are harmed like anything else. A plan that `exceeds` the promise knows no
//! atlas: the newest frames, all members, neighbours, and whole disks set back to what they once were.
//!
//! Always: a harm that changes no byte is none, and is not counted.

use super::disk::{Disk, SECTOR_BYTES};
use super::durable::{DurableImage, RotCandidate};
use super::member::Member;
use super::random::Random;
use super::run::Run;
use super::trace::Trace;
use crate::ids::SegmentNumber;
use std::ops::Range;
use wal_format::BLOCK_BYTES;

/// Draws of a frame and a harm before a crash goes without.
const TRIES: u32 = 8;

/// Most frames that one crash may find harmed, within the promise.
const FRAMES_MAX: u64 = 3;

/// A way in which a frame comes to harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Harm {
    /// One bit flips, anywhere.
    Bit,
    /// Some sectors hold random bytes.
    Garbage,
    /// Some sectors are zero, or never were written.
    Zeros,
    /// Some sectors hold what belongs elsewhere in the segment.
    Misread,
    /// The whole write was reported done and never was.
    LostWrite,
    /// The write went elsewhere: to where nothing stands yet.
    MisdirectedBeyond,
    /// The write went elsewhere: over another frame.
    MisdirectedOver,
}

impl Harm {
    /// Every kind.
    pub(super) const ALL: [Self; 7] = [
        Self::Bit,
        Self::Garbage,
        Self::Zeros,
        Self::Misread,
        Self::LostWrite,
        Self::MisdirectedBeyond,
        Self::MisdirectedOver,
    ];

    /// Whether a plan with these harms has this one.
    pub(super) const fn is_in(self, harms: u32) -> bool {
        harms & (1 << self as u32) != 0
    }

    /// Its name in a report.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bit => "frame_bit_flipped",
            Self::Garbage => "frame_garbage",
            Self::Zeros => "frame_zeroed_sectors",
            Self::Misread => "frame_misread",
            Self::LostWrite => "frame_lost_write",
            Self::MisdirectedBeyond => "frame_misdirected_beyond",
            Self::MisdirectedOver => "frame_misdirected_over",
        }
    }
}

impl Run {
    /// A member has died: perhaps its disk will not give back what it took.
    pub(super) fn harm(&mut self, member: usize, trace: &mut Trace) {
        if self.plan.exceeds {
            self.harm_beyond_the_promise(member, trace);
            return;
        }
        let is_bearable = self.members.len() >= 3 && self.members.iter().all(|other| !other.is_wiped);
        if !is_bearable || self.members[member].is_rotten {
            return;
        }
        if self.random.below(4) == 0 {
            self.harm_snapshot(member, trace);
            return;
        }
        let frames_count = self.random.between(1, FRAMES_MAX);
        for _ in 0..frames_count {
            for _ in 0..TRIES {
                let image = &self.members[member].image;
                let Some(candidate) = image.draw_frame(&mut self.random) else { continue };
                if self.others_hold(member, &candidate) && self.harm_frame(member, &candidate, trace) {
                    break;
                }
            }
        }
    }

    fn others_hold(&self, member: usize, candidate: &RotCandidate) -> bool {
        candidate.entries.iter().chain(&candidate.hidden).all(|(index, print)| {
            let holds_it = |image: &DurableImage| {
                image.entry(*index).map_or(image.is_held(*index), |entry| entry.print == *print)
            };
            let others = self.members.iter().enumerate().filter(|(other, _)| *other != member);
            others.filter(|(_, other)| holds_it(&other.image)).count() * 2 > self.members.len()
        })
    }

    /// Harms one frame; whether any byte of it changed.
    fn harm_frame(&mut self, member: usize, candidate: &RotCandidate, trace: &mut Trace) -> bool {
        let harm = Harm::ALL[self.random.position(Harm::ALL.len())];
        if !harm.is_in(self.plan.harms) {
            return false;
        }
        let victim = match harm {
            Harm::MisdirectedOver => match self.draw_victim(member, candidate) {
                Some(victim) => Some(victim),
                None => return false,
            },
            Harm::Bit
            | Harm::Garbage
            | Harm::Zeros
            | Harm::Misread
            | Harm::LostWrite
            | Harm::MisdirectedBeyond => None,
        };
        if !self.change_bytes(member, candidate, victim.as_ref(), harm) {
            return false;
        }
        trace.record(
            self.now,
            [14, member as u64, candidate.segment.0, candidate.range.start as u64],
            format_args!("{harm:?} harms the frame at {}+{}", candidate.segment, candidate.range.start),
        );
        let this = &mut self.members[member];
        this.image.lose(candidate);
        if let Some(victim) = &victim {
            this.image.lose(victim);
        }
        this.is_rotten = true;
        self.counts.rotten_frames += 1;
        self.faults.count(harm.name());
        true
    }

    /// Another frame that may be lost together with `candidate`, and is long enough to be written over by it.
    fn draw_victim(&mut self, member: usize, candidate: &RotCandidate) -> Option<RotCandidate> {
        let victim = self.members[member].image.draw_frame(&mut self.random)?;
        let is_possible = victim.segment == candidate.segment
            && victim.range.len() >= candidate.range.len()
            && !victim.is_near(candidate)
            && self.others_hold(member, &victim);
        is_possible.then_some(victim)
    }

    fn change_bytes(
        &mut self,
        member: usize,
        candidate: &RotCandidate,
        victim: Option<&RotCandidate>,
        harm: Harm,
    ) -> bool {
        let random = &mut self.random;
        let Member { image, disk, .. } = &mut self.members[member];
        let (segment, place) = (candidate.segment, candidate.range.clone());
        let Some(frame) = disk.read(segment, place.clone()).map(<[u8]>::to_vec) else {
            return false;
        };
        match harm {
            Harm::Bit => {
                let bits = place.len() as u64 * 8;
                // As often in the first bytes, where the header is, as anywhere.
                let reach = if random.below(2) == 0 { bits.min(64 * 8) } else { bits };
                disk.flip_bit(segment, place.clone(), usize::try_from(random.below(reach)).unwrap_or(0));
            }
            Harm::Garbage | Harm::Zeros | Harm::Misread => {
                disk.spoil_sectors(segment, place.clone(), harm, random);
            }
            Harm::LostWrite => disk.overwrite(segment, place.start, &vec![0; place.len()]),
            Harm::MisdirectedBeyond => {
                let end = image.end_in(segment);
                let room = disk.segment(segment).map_or(0, |file| file.bytes.len().saturating_sub(end));
                let blocks = (room / BLOCK_BYTES).saturating_sub(frame.len() / BLOCK_BYTES);
                // The last frame of a segment would still stand behind all before it, and be found.
                if blocks == 0 || !image.is_followed(candidate) {
                    return false;
                }
                disk.overwrite(segment, end + random.position(blocks.min(64)) * BLOCK_BYTES, &frame);
                disk.overwrite(segment, place.start, &vec![0; place.len()]);
            }
            Harm::MisdirectedOver => {
                let start = victim.map_or(place.start, |victim| victim.range.start);
                disk.overwrite(segment, start, &frame);
                disk.overwrite(segment, place.start, &vec![0; place.len()]);
            }
        }
        disk.read(segment, place) != Some(&frame[..])
    }

    /// Anything goes: the newest frames, several members, a disk set back.
    fn harm_beyond_the_promise(&mut self, member: usize, trace: &mut Trace) {
        trace.record(self.now, [15, member as u64, 0, 0], format_args!("m{}'s disk fails", member + 1));
        let random = &mut self.random;
        let this = &mut self.members[member];
        match random.below(8) {
            0 if random.below(2) == 0 => this.disk.snapshots.flip_any_bit(random),
            0 => this.old_disk = Some(this.disk.clone()),
            1 => {
                if let Some(old) = this.old_disk.take() {
                    this.disk = old;
                    self.faults.count("disk_set_back");
                }
            }
            2 => {
                this.disk = Disk::new();
                self.faults.count("disk_wiped_beyond_the_promise");
            }
            _ => {
                for _ in 0..random.between(1, 4) {
                    let Some((segment, place)) = this.image.draw_any_frame(random) else { return };
                    match random.below(3) {
                        0 => {
                            let bit = usize::try_from(random.below(place.len() as u64 * 8)).unwrap_or(0);
                            this.disk.flip_bit(segment, place, bit);
                        }
                        1 => this.disk.spoil_sectors(segment, place, Harm::Garbage, random),
                        _ => this.disk.spoil_sectors(segment, place, Harm::Misread, random),
                    }
                    self.faults.count("frame_harmed_beyond_the_promise");
                }
            }
        }
    }
}

impl Disk {
    /// Makes some sectors of a place hold something else.
    fn spoil_sectors(
        &mut self,
        segment: SegmentNumber,
        place: Range<usize>,
        harm: Harm,
        random: &mut Random,
    ) {
        if self.segment(segment).is_none() {
            return;
        }
        let count = place.len() / SECTOR_BYTES;
        let first = random.position(count);
        let last = first + random.position(count - first);
        let elsewhere = self.segment(segment).map_or(0, |file| file.bytes.len() / SECTOR_BYTES);
        for sector in first..=last {
            let bytes = match harm {
                Harm::Misread => {
                    let from = random.position(elsewhere) * SECTOR_BYTES;
                    self.read(segment, from..from + SECTOR_BYTES).map(<[u8]>::to_vec).unwrap_or_default()
                }
                Harm::Garbage => {
                    (0..SECTOR_BYTES / 8).flat_map(|_| random.next_u64().to_le_bytes()).collect()
                }
                Harm::Bit
                | Harm::Zeros
                | Harm::LostWrite
                | Harm::MisdirectedBeyond
                | Harm::MisdirectedOver => {
                    vec![0; SECTOR_BYTES]
                }
            };
            self.overwrite(segment, place.start + sector * SECTOR_BYTES, &bytes);
        }
    }
}
