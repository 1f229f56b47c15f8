//! Seeded histories from which frames are lost: whatever was not in them is still there, votes are cast as if
//! nothing were missing, and peers can make the log whole again.

use super::*;

/// A history of appends, votes, seals and restarts, ended by a seal.
pub(super) fn history(seed: u64) -> Rig {
    let mut state = seed;
    let mut rig = Rig::opened();
    let mut term = 1;
    for _ in 0..6 + seeded(&mut state) % 14 {
        let group = if seeded(&mut state).is_multiple_of(3) { TWO } else { ONE };
        match seeded(&mut state) % 12 {
            0 => rig.reopen(),
            1 => {
                term += 1;
                rig.vote(group, term, 1);
                rig.seal();
            }
            2 => {
                term += 1;
                rig.vote(group, term, 1 + term % 3);
            }
            choice => append_some(&mut rig, &mut state, group, &mut term, choice),
        }
        if rig.wal.seal_deadline().is_some() && seeded(&mut state).is_multiple_of(6) {
            rig.seal();
        }
    }
    if rig.wal.seal_deadline().is_some() {
        rig.seal();
    }
    rig
}

fn append_some(rig: &mut Rig, state: &mut u64, group: GroupId, term: &mut u64, choice: u64) {
    let held = rig.truth[&group].terms.len();
    let last_term = rig.truth[&group].terms.last().copied().unwrap_or(1);
    let count = 1 + usize::try_from(seeded(state)).unwrap() % 4;
    if choice > 5 && last_term >= rig.truth[&group].hard_state.term.0 {
        rig.append(group, held, &vec![last_term; count], 30);
        return;
    }
    *term += 1;
    let superseded = usize::try_from(seeded(state)).unwrap() % (held.min(5) + 1);
    rig.append(group, held - superseded, &vec![*term; count], 30);
}

/// Overwrites the frame with noise; returns the entries of the truth that it held.
fn lose(rig: &mut Rig, state: &mut u64, frame: usize) {
    let (segment, offset, count) = rig.frames[frame];
    let (_, bytes) = rig.disk.get_mut(&segment).unwrap();
    let at = usize::try_from(offset).unwrap();
    let is_zeroed = seeded(state).is_multiple_of(3);
    for byte in &mut bytes[at..at + count] {
        *byte = if is_zeroed { 0 } else { u8::try_from(seeded(state) & 0xff).unwrap() };
    }
}

/// Which true entries stand in valid frames that nothing superseded.
fn entries_in_sound_frames(rig: &Rig, group: GroupId) -> Vec<Position> {
    let mut newest: BTreeMap<u64, u64> = BTreeMap::new();
    for (segment, offset, count) in &rig.frames {
        let (salt, bytes) = &rig.disk[segment];
        let at = usize::try_from(*offset).unwrap();
        let Ok(frame) = wal_format::Frame::decode(&bytes[at..at + count], *salt) else {
            continue;
        };
        for section in frame.sections() {
            if let Ok(wal_format::Section::Batch(batch)) = section
                && batch.tail.group == group.0
            {
                newest.extend(batch.records.map(|record| {
                    let header = record.unwrap().header;
                    (header.index, header.term)
                }));
            }
        }
    }
    let truth = &rig.truth[&group];
    let truly = (1..=truth.terms.len() as u64).map(|index| truth.at(index));
    truly.filter(|entry| newest.get(&entry.index.0) == Some(&entry.term.0)).collect()
}

pub(super) fn assert_nothing_else_is_lost(rig: &Rig, found: &Recovered) {
    for (group, truth) in &rig.truth {
        let found = &found.groups[group];
        assert!(!found.counts_for_nothing, "later frames name {group}");
        assert_eq!(found.log.hard_state, truth.hard_state, "no vote is lost");
        assert_eq!(found.last(), truth.last(), "the member votes as if its log were whole");
        for entry in entries_in_sound_frames(rig, *group) {
            let record = found.records.get(&entry.index).expect("an intact entry is still there");
            let (header, _) = wal_format::decode_entry(record).unwrap();
            assert_eq!(header.term, entry.term.0);
        }
    }
}

/// Fills every hole as peers would, a few entries at a time, stepping down to where the logs agree.
fn repair(rig: &mut Rig, state: &mut u64) {
    for group in [ONE, TWO] {
        let mut rounds = 0;
        loop {
            let found = rig.recover();
            let found = &found.groups[&group];
            let Some(island) = found.log.islands.first() else {
                break;
            };
            let truth = &rig.truth[&group];
            let agrees = |entry: &&crate::raft::Entry| entry.position() == truth.at(entry.index.0);
            let held = found.log.entries.iter().take_while(agrees).count() as u64;
            let missing = island.predecessor.index.0;
            let upto = missing.min(held + 1 + seeded(state) % 3);
            rig.fill(group, held + 1, upto);
            rounds += 1;
            assert!(rounds < 100, "every fill makes a hole smaller");
        }
    }
}

#[test]
fn whatever_frame_is_lost_nothing_else_is_and_peers_can_fill_the_hole() {
    let mut holes_count = 0;
    let tried = property::hold(150, |seed| {
        let mut state = seed + 7;
        let mut rig = history(seed);
        let frames_count = rig.frames.len();
        let found = rig.recover();
        rig.assert_whole(&found);
        let frame = usize::try_from(seeded(&mut state)).unwrap() % (frames_count - 1);
        lose(&mut rig, &mut state, frame);
        let found = rig.recover();
        assert_nothing_else_is_lost(&rig, &found);
        holes_count += usize::from(found.groups.values().any(|group| !group.log.islands.is_empty()));
        if found.identity.is_none() {
            return;
        }
        rig.reopen();
        repair(&mut rig, &mut state);
        let found = rig.recover();
        rig.assert_whole(&found);
    });
    assert!(tried < 150 || holes_count > 40, "most lost frames leave a hole, not {holes_count}");
}

#[test]
fn whatever_frames_are_lost_a_group_is_sound_or_counts_for_nothing() {
    let mut counts_for_nothing = 0;
    let tried = property::hold(300, |seed| {
        let mut state = seed + 11;
        let mut rig = history(seed);
        let frames_count = rig.frames.len();
        for _ in 0..2 + seeded(&mut state) % 3 {
            let frame = usize::try_from(seeded(&mut state)).unwrap() % (frames_count - 1);
            lose(&mut rig, &mut state, frame);
        }
        let found = rig.recover();
        for (group, truth) in &rig.truth {
            let Some(found) = found.groups.get(group) else {
                // A member that does not know that it is in doubt would begin the group anew, and vote again.
                assert!(
                    found.notes.contains(&Note::IdentityInDoubt),
                    "seed {seed}: no group is forgotten in silence"
                );
                continue;
            };
            if found.counts_for_nothing {
                counts_for_nothing += 1;
                continue;
            }
            assert_eq!(found.log.hard_state, truth.hard_state, "seed {seed}: no vote is lost");
            assert_eq!(found.last(), truth.last(), "seed {seed}: the end is known");
        }
    });
    assert!(tried < 300 || counts_for_nothing > 5, "some damage hides a group");
}
