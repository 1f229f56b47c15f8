//! Each bug planted in this room does the harm it stands for, so that the simulator has something to find.

use super::*;
use crate::planted::switch_on;

#[test]
fn bug_39_cuts_the_log_off_at_corruption_in_silence() {
    let mut rig = eventful();
    rig.seal();
    rig.flip(2, 100);
    switch_on(39);
    let found = rig.recover();
    let group = &found.groups[&TWO];
    assert!(group.log.islands.is_empty() && !group.counts_for_nothing);
    assert_ne!(group.last(), rig.truth[&TWO].last());
}

#[test]
fn bug_43_believes_frames_of_an_earlier_life_of_a_segment() {
    let mut rig = Rig::opened();
    rig.append(ONE, 0, &[1], 50);
    let old = rig.disk[&1].1.clone();
    rig.append(ONE, 1, &[2, 2], 50);
    rig.make_segments();
    rig.disk.get_mut(&2).unwrap().1 = old;
    rig.assert_whole(&rig.recover());
    switch_on(43);
    let found = rig.recover();
    assert_ne!(found.groups[&ONE].log.hard_state, rig.truth[&ONE].hard_state);
}

#[test]
fn bug_44_does_not_see_damage_in_padding() {
    let mut rig = eventful();
    rig.seal();
    rig.flip(1, BLOCK_BYTES - 1);
    assert_ne!(rig.recover().notes, []);
    switch_on(44);
    assert_eq!(rig.recover().notes, []);
}

#[test]
fn bug_54_hides_a_tail() {
    let mut rig = Rig::opened();
    rig.seal();
    switch_on(54);
    rig.append(ONE, 0, &[1, 1], 50);
    rig.seal();
    rig.flip(2, 100);
    let found = rig.recover();
    let group = &found.groups[&ONE];
    assert!(group.log.islands.is_empty() && !group.counts_for_nothing);
    assert_ne!(group.last(), rig.truth[&ONE].last());
}
