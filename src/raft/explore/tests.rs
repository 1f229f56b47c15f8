//! Explorations small enough for every run of the tests, and the planted bugs that they find (test-only).

use super::*;

/// States that every run of the tests finds in each world.
const STATES: usize = 40_000;

fn assert_unbroken(world: &World, explored: &Explored) {
    if let Some(violation) = &explored.violation {
        panic!("{}: {}\n{}", world.name, violation.truth, violation.trace.join("\n"));
    }
}

#[test]
fn small_explorations_of_every_world_break_no_truth() {
    for world in WORLDS {
        let explored = explore(world, STATES, |_| true);
        assert_unbroken(&world, &explored);
        assert!(explored.progress.states >= STATES, "there is more in {}", world.name);
    }
}

/// One election, the no-op that follows it, and a crash: all that can come of them.
#[test]
fn a_small_world_is_explored_to_its_end() {
    let world = World { name: "small", entries_max: 1, crashes_max: 1, ..WHOLE };
    let explored = explore(world, 1_000_000, |_| true);
    assert_unbroken(&world, &explored);
    assert!(explored.is_complete, "{:?}", explored.progress);
    let again = explore(world, 1_000_000, |_| true);
    assert_eq!(again.progress, explored.progress, "one exploration is like the next");
}

#[test]
fn what_is_taken_out_of_the_network_is_dropped_by_whoever_it_is_for() {
    let mut exploration = Exploration::new(DIVIDED);
    exploration.begin().expect("it begins");
    exploration.run(5 * STATES, &mut |_| true).expect("nothing breaks");
    let mut void_count = 0;
    for member in 0..u32::try_from(exploration.members.count()).unwrap() {
        let (id, term) = (exploration.members.get(member).node.id, exploration.face(member).durable_term);
        for letter in 0..u32::try_from(exploration.letters.count()).unwrap() {
            let Letter { to, message, .. } = exploration.letters.get(letter);
            if *to == id && is_void(message, term) {
                void_count += 1;
                let step = exploration.step(member, Event::Deliver { letter, is_late: false });
                assert_eq!(step, NOTHING, "a void message changes nothing");
            }
        }
    }
    assert!(void_count > 1_000, "many messages become void, not {void_count}");
}

#[test]
fn an_exploration_ends_when_it_is_told_to() {
    let explored = explore(EMPTY, usize::MAX, |progress| progress.expanded < 10);
    assert_eq!((explored.progress.expanded, explored.is_complete), (10, false));
}

/// Each planted bug that shows within the bounds, the world that shows it soonest, and a number of states that suffices.
/// The others need holes (51, 57), or break no truth but progress (15, 16, 45).
#[cfg(feature = "planted")]
#[test]
fn planted_bugs_are_found_with_the_shortest_way_to_them() {
    let bugs = [
        (1, DIVIDED, 12),
        (10, HANDED, 15),
        (17, HANDED, 11),
        (18, EMPTY, 5),
        (19, HANDED, 4),
        (23, LED, 6),
        (29, HANDED, 7),
        (30, DIVIDED, 5),
        (31, READING, 12),
        (33, READING, 11),
    ];
    for (bug, world, depth) in bugs {
        crate::planted::switch_on(bug);
        let explored = explore(world, 1_500_000, |_| true);
        crate::planted::switch_on(0);
        let found = explored.violation.unwrap_or_else(|| panic!("bug {bug} is found in {}", world.name));
        println!("bug {bug} in {}, after {} states: {}", world.name, explored.progress.states, found.truth);
        println!("{}\n", found.trace.join("\n"));
        assert_eq!(found.depth, depth, "bug {bug}: the way to it is the shortest");
        assert!(found.trace.len() > found.depth as usize, "and it is told");
    }
}
