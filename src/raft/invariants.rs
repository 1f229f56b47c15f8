//! What always holds of one member, one named function each. Cheap ones run at the end of every public method, in
//! release builds too; `Node::assert_invariants` runs all, for the simulator and tests.

use super::interface::RoleName;
use super::node::{Node, Role};

/// Those that cost a few comparisons.
pub(super) fn assert_cheap(node: &Node) {
    commit_stays_within_the_log(node);
    durable_stays_within_the_log(node);
    a_snapshot_lies_between_the_base_and_commit(node);
    no_entry_is_of_a_later_term(node);
    who_campaigns_or_leads_has_no_hole(node);
    who_campaigns_or_leads_voted_for_itself(node);
}

/// All of them.
pub(super) fn assert_all(node: &Node) {
    assert_cheap(node);
    node.log.assert_every_invariant();
    a_follower_matches_only_what_it_holds(node);
    a_leader_knows_its_followers_logs(node);
}

fn commit_stays_within_the_log(node: &Node) {
    assert!(node.commit() <= node.last().index, "commit never passes the end of the log");
    assert!(node.commit() >= node.log.base().index, "what the log starts from is committed");
}

fn durable_stays_within_the_log(node: &Node) {
    assert!(node.durable() <= node.last().index, "durable never passes the end of the log");
    let is_told = node.durable() >= node.log.base().index || node.durability.is_reset_owed();
    assert!(is_told, "what the log starts from is durable, or its reset is owed");
}

fn a_snapshot_lies_between_the_base_and_commit(node: &Node) {
    let base = node.log.base().index;
    let snapshot = node.snapshots.newest().map(|snapshot| snapshot.position.index);
    assert!(
        snapshot.is_none_or(|snapshot| base <= snapshot && snapshot <= node.commit()),
        "trimmed never passes the snapshot, and the snapshot never passes commit"
    );
}

fn no_entry_is_of_a_later_term(node: &Node) {
    assert!(
        node.log.newest_term() <= node.hard_state().term,
        "no entry is of a term this member has not seen"
    );
}

fn who_campaigns_or_leads_has_no_hole(node: &Node) {
    assert!(!node.has_hole() || node.role() == RoleName::Follower, "a member with a hole only follows");
}

fn who_campaigns_or_leads_voted_for_itself(node: &Node) {
    match &node.role {
        Role::Follower(_) | Role::PreCandidate(_) => {}
        Role::Candidate(_) | Role::Leader(_) => {
            assert!(node.hard_state().vote == Some(node.id), "a candidate and a leader voted for themselves");
        }
    }
}

fn a_follower_matches_only_what_it_holds(node: &Node) {
    if let Role::Follower(follower) = &node.role {
        assert!(follower.matched <= node.last().index, "a follower matches only what it holds");
    }
}

fn a_leader_knows_its_followers_logs(node: &Node) {
    if let Role::Leader(leader) = &node.role {
        for follower in &leader.followers {
            follower.assert_invariants();
            assert!(follower.matched() <= node.last().index, "a follower matches only what the leader holds");
            assert!(follower.next() <= node.last().index.next(), "nothing is sent before it exists");
        }
    }
}
