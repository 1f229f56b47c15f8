//! The disk of one member: what is on it, what is on its way, and what a crash leaves of both.
//!
//! ```text
//!   Write ──> in flight ──completed──> on disk, durable                    (is_synced)
//!                 │       └──────────> on disk until the next crash, which may take any sector back  (not synced)
//!                 └──crash: any subset of its 512-byte sectors has landed
//! ```
//!
//! Always: a completed, synced write stays as it was written until another write covers it or a bit rots. At most
//! one write is in flight. What else a disk may do to what it took is decided in `storage_faults`.

use super::random::Random;
use super::snapshot_files::SnapshotFiles;
use crate::ids::SegmentNumber;
use crate::replica::SegmentFile;
use bytes::Bytes;
use std::ops::Range;

/// The unit that lands whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;

/// A disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    /// In the order of their numbers.
    segments: Vec<Segment>,
    /// The files of snapshots.
    pub(super) snapshots: SnapshotFiles,
    in_flight: Option<DiskWrite>,
    unsynced: Vec<DiskWrite>,
}

/// A segment on it.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) number: SegmentNumber,
    pub(super) salt: u64,
    pub(super) bytes: Vec<u8>,
}

/// Some bytes and their place.
#[derive(Clone, Debug)]
pub(super) struct DiskWrite {
    /// The segment.
    pub(super) segment: SegmentNumber,
    /// Bytes from its start.
    pub(super) offset: usize,
    /// What to write; for a write that was not synced, what stood there before.
    pub(super) bytes: Bytes,
    /// Whether its completion promises durability.
    pub(super) is_synced: bool,
}

/// Why a write cannot be what a sound member asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(super) enum BadWrite {
    AnotherIsInFlight,
    NoSuchSegment,
    BeyondTheSegment,
    NotInWholeSectors,
}

impl Disk {
    /// A disk with nothing on it.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Makes a segment, durably: zero-filled, or one that `recycles` the oldest and still holds its bytes. Making one
    /// that exists changes nothing.
    pub(super) fn make_segment(
        &mut self,
        number: SegmentNumber,
        salt: u64,
        bytes_count: u64,
        recycles: bool,
    ) {
        let at = self.segments.partition_point(|segment| segment.number < number);
        if self.segments.get(at).is_some_and(|segment| segment.number == number) {
            return;
        }
        let bytes = match self.segments.first() {
            Some(oldest) if recycles => oldest.bytes.clone(),
            Some(_) | None => vec![0; usize::try_from(bytes_count).unwrap_or(0)],
        };
        self.segments.insert(at, Segment { number, salt, bytes });
    }

    /// Makes a segment of one that is needed no more, which is gone then.
    pub(super) fn recycle_segment(&mut self, old: SegmentNumber, number: SegmentNumber, salt: u64) {
        if let Some(at) = self.segments.iter().position(|segment| segment.number == old) {
            let Segment { bytes, .. } = self.segments.remove(at);
            self.segments.push(Segment { number, salt, bytes });
            self.segments.sort_by_key(|segment| segment.number);
        }
    }

    /// Removes a segment that is needed no more.
    pub(super) fn remove_segment(&mut self, number: SegmentNumber) {
        self.segments.retain(|segment| segment.number != number);
    }

    /// Puts a write in flight.
    ///
    /// # Errors
    /// If no sound member would ask for it.
    pub(super) fn start_write(&mut self, write: DiskWrite) -> Result<(), BadWrite> {
        if self.in_flight.is_some() {
            return Err(BadWrite::AnotherIsInFlight);
        }
        if !write.offset.is_multiple_of(SECTOR_BYTES) || !write.bytes.len().is_multiple_of(SECTOR_BYTES) {
            return Err(BadWrite::NotInWholeSectors);
        }
        let Some(segment) = self.segment(write.segment) else {
            return Err(BadWrite::NoSuchSegment);
        };
        if write.offset + write.bytes.len() > segment.bytes.len() {
            return Err(BadWrite::BeyondTheSegment);
        }
        self.in_flight = Some(write);
        Ok(())
    }

    /// Whether a write is in flight.
    pub(super) const fn is_writing(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Lands the write in flight and returns it.
    pub(super) fn complete_write(&mut self) -> Option<DiskWrite> {
        let write = self.in_flight.take()?;
        let place = self.place(&write)?;
        if !write.is_synced {
            let before = Bytes::copy_from_slice(place);
            place.copy_from_slice(&write.bytes);
            self.unsynced.push(DiskWrite { bytes: before, ..write.clone() });
            return Some(write);
        }
        place.copy_from_slice(&write.bytes);
        Some(write)
    }

    /// The power fails: any sectors of the write in flight have landed, any of those not synced are taken back.
    /// Returns the write that was in flight.
    pub(super) fn crash(&mut self, random: &mut Random) -> Option<DiskWrite> {
        self.snapshots.crash(random);
        while let Some(before) = self.unsynced.pop() {
            self.land_some_sectors(&before, random);
        }
        let write = self.in_flight.take()?;
        self.land_some_sectors(&write, random);
        Some(write)
    }

    fn land_some_sectors(&mut self, write: &DiskWrite, random: &mut Random) {
        let sectors_count = write.bytes.len() / SECTOR_BYTES;
        // All and none are what tests most, a prefix is likely, and any subset can happen.
        let prefix = random.position(sectors_count + 1);
        let manner = random.below(5);
        let Some(place) = self.place(write) else { return };
        let sources = write.bytes.chunks(SECTOR_BYTES);
        for (at, (sector, source)) in place.chunks_mut(SECTOR_BYTES).zip(sources).enumerate() {
            let lands = match manner {
                0 => true,
                1 => false,
                2 => at < prefix,
                3 => at >= prefix,
                _ => random.below(2) == 0,
            };
            if lands {
                sector.copy_from_slice(source);
            }
        }
    }

    /// Flips one bit, `bit` bits from the start of the byte range `range` of `segment`.
    pub(super) fn flip_bit(&mut self, segment: SegmentNumber, range: Range<usize>, bit: usize) {
        let at = range.start + bit / 8;
        if let Some(file) = self.segments.iter_mut().find(|file| file.number == segment)
            && let Some(byte) = file.bytes.get_mut(at)
            && range.contains(&at)
        {
            *byte ^= 1 << (bit % 8);
        }
    }

    /// Makes `bytes` stand at a place, if it exists.
    pub(super) fn overwrite(&mut self, segment: SegmentNumber, offset: usize, bytes: &[u8]) {
        let file = self.segments.iter_mut().find(|file| file.number == segment);
        if let Some(place) = file.and_then(|file| file.bytes.get_mut(offset..offset + bytes.len())) {
            place.copy_from_slice(bytes);
        }
    }

    /// What lies at a place, if it exists.
    pub(super) fn read(&self, segment: SegmentNumber, range: Range<usize>) -> Option<&[u8]> {
        self.segment(segment)?.bytes.get(range)
    }

    /// The segment with this number.
    pub(super) fn segment(&self, number: SegmentNumber) -> Option<&Segment> {
        self.segments.iter().rev().find(|segment| segment.number == number)
    }

    /// Every segment, oldest first.
    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Every segment as a starting member finds it, oldest first.
    pub(super) fn found(&self) -> Vec<SegmentFile> {
        let found = self.segments.iter().map(|Segment { number, salt, bytes }| SegmentFile {
            number: *number,
            salt: *salt,
            bytes: Bytes::copy_from_slice(bytes),
        });
        found.collect()
    }

    fn place(&mut self, write: &DiskWrite) -> Option<&mut [u8]> {
        let segment = self.segments.iter_mut().rev().find(|segment| segment.number == write.segment)?;
        segment.bytes.get_mut(write.offset..write.offset + write.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Disk {
        let mut disk = Disk::new();
        disk.make_segment(SegmentNumber(1), 9, 8_192, false);
        disk
    }

    fn write(offset: usize, fill: u8, is_synced: bool) -> DiskWrite {
        DiskWrite { segment: SegmentNumber(1), offset, bytes: Bytes::from(vec![fill; 4_096]), is_synced }
    }

    fn sectors(disk: &Disk) -> Vec<u8> {
        let bytes = disk.read(SegmentNumber(1), 0..4_096).unwrap();
        bytes.chunks(SECTOR_BYTES).map(|sector| sector[0]).collect()
    }

    #[test]
    fn a_completed_synced_write_survives_every_crash() {
        for seed in 0..50 {
            let mut disk = disk();
            disk.start_write(write(0, 1, true)).unwrap();
            disk.complete_write().unwrap();
            disk.start_write(write(4_096, 2, true)).unwrap();
            disk.crash(&mut Random::new(seed));
            assert_eq!(sectors(&disk), [1; 8]);
        }
    }

    #[test]
    fn a_write_in_flight_lands_whole_or_not_or_in_part() {
        let mut seen = [false; 3];
        for seed in 0..100 {
            let mut disk = disk();
            disk.start_write(write(0, 1, true)).unwrap();
            assert!(disk.crash(&mut Random::new(seed)).is_some());
            let landed = sectors(&disk).iter().map(|sector| usize::from(*sector)).sum::<usize>();
            seen[match landed {
                0 => 0,
                8 => 1,
                _ => 2,
            }] = true;
        }
        assert_eq!(seen, [true; 3]);
    }

    #[test]
    fn an_unsynced_write_can_be_taken_back_after_it_completed() {
        let taken_back = (0..50).any(|seed| {
            let mut disk = disk();
            disk.start_write(write(0, 1, false)).unwrap();
            disk.complete_write().unwrap();
            assert_eq!(sectors(&disk), [1; 8]);
            disk.crash(&mut Random::new(seed));
            sectors(&disk) == [0; 8]
        });
        assert!(taken_back);
    }

    #[test]
    fn writes_no_sound_member_asks_for_are_refused() {
        let mut disk = disk();
        assert_eq!(disk.start_write(write(100, 1, true)), Err(BadWrite::NotInWholeSectors));
        assert_eq!(disk.start_write(write(8_192, 1, true)), Err(BadWrite::BeyondTheSegment));
        disk.start_write(write(0, 1, true)).unwrap();
        assert_eq!(disk.start_write(write(0, 1, true)), Err(BadWrite::AnotherIsInFlight));
        let elsewhere = DiskWrite { segment: SegmentNumber(2), ..write(0, 1, true) };
        disk.complete_write();
        assert_eq!(disk.start_write(elsewhere), Err(BadWrite::NoSuchSegment));
    }

    #[test]
    fn one_flipped_bit_is_one_flipped_bit() {
        let mut disk = disk();
        disk.flip_bit(SegmentNumber(1), 512..1_024, 13);
        let bytes = disk.read(SegmentNumber(1), 0..8_192).unwrap();
        assert_eq!(bytes.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
        assert_eq!(bytes[513], 0b10_0000);
    }
}
