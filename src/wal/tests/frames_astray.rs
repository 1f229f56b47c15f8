//! Frames that a disk wrote to the wrong place: what was believed there must not turn the log back.

use super::lost_frames::{assert_nothing_else_is_lost, history};
use super::*;

/// Takes a frame from its place and puts it behind the last one of its segment; false if there is no room.
fn misdirect(rig: &mut Rig, state: &mut u64, frame: usize) -> bool {
    let (segment, offset, count) = rig.frames[frame];
    let of_segment = rig.frames.iter().filter(|(other, ..)| *other == segment);
    let end = of_segment.map(|(_, offset, count)| usize::try_from(*offset).unwrap() + count).max().unwrap();
    let at = usize::try_from(offset).unwrap();
    let (_, bytes) = rig.disk.get_mut(&segment).unwrap();
    let blocks = (bytes.len() - end) / BLOCK_BYTES;
    let Some(spare) = blocks.checked_sub(count / BLOCK_BYTES) else {
        return false;
    };
    let to = end + usize::try_from(seeded(state)).unwrap() % (spare.min(5) + 1) * BLOCK_BYTES;
    bytes.copy_within(at..at + count, to);
    bytes[at..at + count].fill(0);
    true
}

#[test]
fn a_frame_written_behind_the_end_takes_back_no_vote_and_no_entry() {
    let mut misdirected = 0;
    let tried = property::hold(300, |seed| {
        let mut state = seed + 3;
        let mut rig = history(seed);
        let frame = usize::try_from(seeded(&mut state)).unwrap() % (rig.frames.len() - 1);
        if !misdirect(&mut rig, &mut state, frame) {
            return;
        }
        misdirected += 1;
        let found = rig.recover();
        assert_nothing_else_is_lost(&rig, &found);
    });
    assert!(tried < 300 || misdirected > 100, "most histories leave room, not {misdirected}");
}

#[test]
fn a_later_frame_written_over_an_earlier_one_hides_nothing_between_them() {
    let mut rig = Rig::opened();
    for index in 0..8 {
        rig.append(ONE, index, &[1], 30);
    }
    rig.seal();
    // One block each: the frame of entry 6 stands where that of entry 3 belongs, and is missing at its own place.
    let of_entry = |index: usize| rig.frames[rig.frames.len() - 1 - 9 + index];
    let ((segment, third, count), (_, sixth, _)) = (of_entry(3), of_entry(6));
    let (_, bytes) = rig.disk.get_mut(&segment).unwrap();
    let (third, sixth) = (usize::try_from(third).unwrap(), usize::try_from(sixth).unwrap());
    bytes.copy_within(sixth..sixth + count, third);
    bytes[sixth..sixth + count].fill(0);
    let found = &rig.recover().groups[&ONE];
    let indices: Vec<u64> = found.records.keys().map(|index| index.0).collect();
    assert_eq!(indices, [1, 2, 4, 5, 7, 8]);
    assert!(!found.counts_for_nothing);
}
