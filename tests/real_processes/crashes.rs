//! Members that are killed, stopped and ended while clients write.

use crate::support::{Load, PATIENCE, assert_nothing_lost, cluster, leader, revision_of, revision_without};
use rustix::process::Signal;
use std::time::Duration;

/// Writes acknowledged before and after each fault.
const WRITES: usize = 200;

#[test]
fn killed_members_come_back_and_no_acknowledged_write_is_lost() {
    let mut cluster = cluster(3);
    let load = Load::start(&cluster, "kill");
    load.wait_for(WRITES);

    let killed = leader(&cluster);
    cluster.members[killed].kill();
    load.wait_for(WRITES);
    cluster.restart(killed, PATIENCE).expect("the leader of before comes back");

    let killed = (leader(&cluster) + 1) % 3;
    cluster.members[killed].kill();
    load.wait_for(WRITES);
    cluster.restart(killed, PATIENCE).expect("the follower comes back");

    for member in &mut cluster.members {
        member.kill();
    }
    for position in 0..3 {
        cluster.launch(position).expect("it starts");
    }
    for position in 0..3 {
        cluster.wait_ready(position, PATIENCE).expect("it is ready");
    }
    load.wait_for(WRITES);
    assert_nothing_lost(&cluster, &load.stop());
}

#[test]
fn a_member_alone_keeps_what_it_acknowledged() {
    let mut cluster = cluster(1);
    let load = Load::start(&cluster, "alone");
    for _ in 0..3 {
        load.wait_for(WRITES);
        cluster.members[0].kill();
        cluster.restart(0, PATIENCE).expect("it comes back");
    }
    load.wait_for(WRITES);
    assert_nothing_lost(&cluster, &load.stop());
}

#[test]
fn a_member_asked_to_end_hands_over_and_ends_in_good_order() {
    let mut cluster = cluster(3);
    let load = Load::start(&cluster, "drain");
    load.wait_for(WRITES);
    for signal in [Signal::TERM, Signal::INT] {
        let ended = leader(&cluster);
        cluster.members[ended].signal(signal);
        let status = cluster.members[ended].wait_end(PATIENCE).expect("it ends");
        assert_eq!(status.code(), Some(0), "{}", cluster.members[ended].log_end());
        load.wait_for(WRITES);
        cluster.restart(ended, PATIENCE).expect("it comes back");
    }
    assert_nothing_lost(&cluster, &load.stop());
    assert_eq!(cluster.end(PATIENCE), Vec::<String>::new(), "nobody had to be killed");
}

#[test]
fn a_leader_that_is_stopped_and_goes_on_serves_nothing_old() {
    let cluster = cluster(3);
    let load = Load::start(&cluster, "pause");
    load.wait_for(WRITES);
    let paused = leader(&cluster);
    cluster.members[paused].signal(Signal::STOP);
    load.wait_for(1);
    let before = revision_without(&cluster, paused);
    cluster.members[paused].signal(Signal::CONT);
    let after = revision_of(&cluster, paused, Duration::from_secs(20));
    assert!(after >= before, "read {after} through the member that was paused, after {before} elsewhere");
    load.wait_for(WRITES);
    assert_nothing_lost(&cluster, &load.stop());
}
