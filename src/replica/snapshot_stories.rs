//! Snapshots in a whole cluster: cut, trimmed up to, sent, installed, found again.

use super::test_cluster::{Cluster, ELECTION_MICROS, get, put, value_of};
use super::{FoundContent, FoundSnapshot, Observation, SnapshotPolicy, restore_newest};
use crate::api::{Refusal, Request, Response, SnapshotAnswer, SnapshotRequest};
use crate::auth::Who;
use crate::ids::{KeyspaceId, LogIndex, MemberId, Term};
use crate::limits::{SNAPSHOT_HOLD_MICROS, STATE_CHECK_ENTRIES};
use crate::snapshot::{FileKind, FileName};

/// So often, and so little of the log kept, that a few writes suffice.
pub(super) const POLICY: SnapshotPolicy = SnapshotPolicy {
    entries: 10,
    patience_bytes: 0,
    trim_entries: 3,
    hot_entries: 2,
    piece_bytes: 4_096,
    chunk_bytes: 4_096,
    ..SnapshotPolicy::SERVER
};

fn served() -> Cluster {
    let mut cluster = Cluster::with_snapshots(3, POLICY);
    cluster.advance(2_000_000);
    cluster
}

pub(super) fn write_some(cluster: &mut Cluster, who: Who, value: &'static str) {
    for key in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"] {
        let leader = cluster.leader();
        cluster.ask_as(who, leader, put(key, value, None));
    }
}

fn observed(cluster: &Cluster, member: MemberId) -> Observation {
    cluster.shards[&member].observe().next().expect("it serves")
}

/// What a start would find on the disk of a member.
pub(super) fn found(cluster: &Cluster, member: MemberId) -> Vec<FoundSnapshot> {
    let files = &cluster.files[&member];
    let names: Vec<FileName> = files.keys().filter_map(|name| FileName::parse(name)).collect();
    restore_newest(1, &names, |file, offset, bytes_count| {
        let content = &files[&file.text()];
        let from = usize::try_from(offset).expect("it is small").min(content.len());
        Some(bytes::Bytes::copy_from_slice(&content[from..content.len().min(from + bytes_count)]))
    })
}

#[test]
fn every_member_cuts_equal_snapshots_keeps_three_and_trims_up_to_the_second_newest() {
    let mut cluster = served();
    for value in ["1", "2", "3", "4", "5", "6"] {
        write_some(&mut cluster, Who::Nobody, value);
    }
    cluster.advance(1_000_000);
    let of_each: Vec<_> = (1..=3)
        .map(|member| {
            let member = MemberId(member);
            let found = found(&cluster, member);
            assert_eq!(found.len(), 3, "three are kept");
            assert!(
                found.iter().all(|found| found.name.kind == FileKind::Whole),
                "nothing is left lying about"
            );
            let observed = observed(&cluster, member);
            assert_eq!(observed.snapshot, found[0].name.position);
            assert_eq!(observed.base, found[1].name.position, "the log reaches back to the second-newest");
            cluster.files[&member].clone()
        })
        .collect();
    assert_eq!(of_each[0], of_each[1]);
    assert_eq!(of_each[0], of_each[2]);
}

#[test]
fn a_large_snapshot_waits_until_twice_as_much_was_written_again() {
    let patient = SnapshotPolicy { patience_bytes: 1_000_000, ..POLICY };
    let mut cluster = Cluster::with_snapshots(3, patient);
    cluster.advance(2_000_000);
    let large: &str = Box::leak("x".repeat(10_000).into_boxed_str());
    let newest = |cluster: &Cluster| observed(cluster, cluster.leader()).snapshot.index;
    write_some(&mut cluster, Who::Nobody, large);
    cluster.advance(1_000_000);
    let first = newest(&cluster);
    assert!(first.0 > 0, "the first has nothing to wait for");
    for _ in 0..5 {
        write_some(&mut cluster, Who::Nobody, "small");
    }
    cluster.advance(1_000_000);
    assert_eq!(newest(&cluster), first, "it would cost far more than what was written since");
    write_some(&mut cluster, Who::Nobody, large);
    cluster.advance(1_000_000);
    assert_eq!(newest(&cluster), first, "the log is only as large as the snapshot");
    write_some(&mut cluster, Who::Nobody, large);
    cluster.advance(1_000_000);
    assert!(newest(&cluster) > first, "now the log is twice as large");
}

#[test]
fn a_member_that_missed_what_was_trimmed_becomes_equal_by_a_snapshot() {
    misses_what_was_trimmed(0);
}

#[test]
fn what_a_disk_made_of_a_received_snapshot_is_noticed_and_received_again() {
    misses_what_was_trimmed(1);
    misses_what_was_trimmed(3);
}

/// A member comes back when the log does not suffice. `harms`: so many chunks are not on its disk as they were written.
fn misses_what_was_trimmed(harms: usize) {
    let mut cluster = served();
    let away = cluster.follower();
    let shard = cluster.shards.remove(&away).expect("it is there");
    let had = shard.observe().next().expect("it serves").last.index;
    let values = ["1", "2", "3", "4", "5"].map(|digit| &*Box::leak(digit.repeat(2_000).into_boxed_str()));
    for value in values {
        write_some(&mut cluster, Who::Nobody, value);
    }
    let leader = cluster.leader();
    assert!(observed(&cluster, leader).base.index > had, "what it needs next is trimmed");
    let newest = found(&cluster, leader)[0].name.text();
    assert!(cluster.files[&leader][&newest].len() > 5 * POLICY.chunk_bytes, "it comes in several chunks");
    cluster.inputs.insert(away, Vec::new());
    cluster.shards.insert(away, shard);
    cluster.harms = harms;
    cluster.advance(5_000_000);
    assert_eq!(cluster.harms, 0, "so many were written");
    let (there, here) = (observed(&cluster, cluster.leader()), observed(&cluster, away));
    assert!(here.base.index > had, "its log begins behind a snapshot");
    let on_disk = found(&cluster, away);
    assert!(
        matches!(on_disk[0].content, FoundContent::Restored(_)),
        "its disk holds it: {:?}",
        on_disk[0].name
    );
    assert_eq!((here.applied, here.state_hash), (there.applied, there.state_hash));
    assert_eq!(value_of(&cluster.ask(away, get("l"))).as_deref(), Some(values[4].as_bytes()));
}

fn write_small(cluster: &mut Cluster, count: usize) {
    for _ in 0..count {
        let leader = cluster.leader();
        cluster.ask(leader, put("small", "value", None));
    }
}

/// ```text
///   follower   away ──── back: is sent a snapshot ── its disk is stuck ──────────────────────────────
///   leader     writes    newest is sent              writes less than it is long    writes more
///   its log              begins below it             still begins below it          is trimmed above it
/// ```
/// Were the log trimmed above it sooner, a large store that is written to would be sent again and again.
#[test]
fn the_log_above_a_snapshot_that_is_sent_is_kept_until_it_is_longer_than_that() {
    let (mut cluster, large, sent) = sends_a_large_snapshot();
    write_small(&mut cluster, 100);
    let observation = observed(&cluster, cluster.leader());
    assert!(observation.log_bytes > 4 * 1_000, "it is long: {}", observation.log_bytes);
    assert!(
        observation.base.index <= sent,
        "{sent} is sent, the log begins above {}",
        observation.base.index
    );
    write_some(&mut cluster, Who::Nobody, large);
    write_small(&mut cluster, 30);
    let observation = observed(&cluster, cluster.leader());
    assert!(observation.base.index > sent, "whoever takes that long begins anew");
}

/// A leader that sends a snapshot of which some has arrived, and that goes no further; what fills it; where it ends.
fn sends_a_large_snapshot() -> (Cluster, &'static str, LogIndex) {
    let mut cluster = Cluster::with_snapshots(3, SnapshotPolicy { log_bytes: 1_000, ..POLICY });
    cluster.advance(2_000_000);
    let away = cluster.follower();
    let shard = cluster.shards.remove(&away).expect("it is there");
    let large = &*Box::leak("x".repeat(20_000).into_boxed_str());
    write_some(&mut cluster, Who::Nobody, large);
    write_small(&mut cluster, 30);
    let sent = observed(&cluster, cluster.leader()).snapshot.index;
    cluster.unsaid = Some(Vec::new());
    cluster.inputs.insert(away, Vec::new());
    cluster.shards.insert(away, shard);
    cluster.advance(1_000_000);
    assert!(cluster.files[&away].keys().any(|name| name.ends_with(".incoming")), "some of it is there");
    (cluster, large, sent)
}

/// Nothing else would have it trimmed before the next snapshot counts, which an idle keyspace never cuts.
#[test]
fn the_log_that_was_kept_for_a_snapshot_is_trimmed_when_it_has_arrived() {
    let (mut cluster, _, sent) = sends_a_large_snapshot();
    write_small(&mut cluster, 100);
    cluster.advance(1_000_000);
    let leader = cluster.leader();
    assert!(observed(&cluster, leader).base.index <= sent, "the log is kept");
    cluster.go_on_receiving();
    cluster.advance(5_000_000);
    assert_eq!(cluster.leader(), leader);
    let applied = observed(&cluster, leader).applied;
    assert!(cluster.shards.keys().all(|member| observed(&cluster, *member).applied == applied));
    let second = found(&cluster, leader)[1].name.position;
    assert_eq!(observed(&cluster, leader).base, second, "three entries a turn, and nobody writes");
}

#[test]
fn a_start_takes_the_newest_snapshot_that_is_sound() {
    let mut cluster = served();
    for value in ["1", "2", "3", "4", "5"] {
        write_some(&mut cluster, Who::Nobody, value);
    }
    let member = MemberId(1);
    let before = found(&cluster, member);
    let is_restored = |found: &FoundSnapshot| matches!(found.content, FoundContent::Restored(_));
    assert!(is_restored(&before[0]) && matches!(before[1].content, FoundContent::Unread));
    let newest = cluster.files.get_mut(&member).and_then(|files| files.get_mut(&before[0].name.text()));
    newest.expect("it is there")[100] ^= 1;
    let after = found(&cluster, member);
    assert!(matches!(after[0].content, FoundContent::Damaged(_)) && is_restored(&after[1]));
}

fn snapshot(request: SnapshotRequest) -> Request {
    Request::Snapshot { keyspace: KeyspaceId::FIRST, request }
}

/// Has a member cut a snapshot: the last entry that is in it, and the length of its file.
fn cut(cluster: &mut Cluster, member: MemberId) -> (LogIndex, Term, u64) {
    let ticket = cluster.submit(member, snapshot(SnapshotRequest::Cut));
    cluster.advance(2_000_000);
    match cluster.replies.remove(&ticket) {
        Some(Response::Snapshot(SnapshotAnswer::Cut { index, term, bytes_count, .. })) => {
            (index, term, bytes_count)
        }
        other => panic!("a snapshot was asked for: {other:?}"),
    }
}

fn read(
    cluster: &mut Cluster,
    member: MemberId,
    (index, term): (LogIndex, Term),
    offset: u64,
) -> Result<Vec<u8>, Refusal> {
    let read = SnapshotRequest::Read { index, term, offset, bytes_count: 4_096 };
    match cluster.ask(member, snapshot(read)) {
        Response::Snapshot(SnapshotAnswer::Piece(bytes)) => Ok(bytes.to_vec()),
        Response::Refused(refusal) => Err(refusal),
        other => panic!("a piece was asked for: {other:?}"),
    }
}

#[test]
fn whoever_asks_any_member_for_a_snapshot_gets_one_with_everything_that_was_committed() {
    let mut cluster = served();
    write_some(&mut cluster, Who::Nobody, "1");
    let member = cluster.follower();
    let ticket = cluster.submit(member, snapshot(SnapshotRequest::Cut));
    let leader = cluster.leader();
    cluster.ask(leader, put("m", "later", None));
    let committed = observed(&cluster, leader).commit;
    cluster.advance(2_000_000);
    let told = cluster.replies.remove(&ticket);
    assert!(matches!(told, Some(Response::Snapshot(_))), "{told:?}");

    let (index, term, bytes_count) = cut(&mut cluster, member);
    assert!(index >= committed, "everything committed is in it");
    let again = cut(&mut cluster, member);
    assert_eq!(again, (index, term, bytes_count), "nothing changed, so it is the same one");
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < bytes_count {
        let offset = bytes.len() as u64;
        bytes.extend(read(&mut cluster, member, (index, term), offset).expect("it is there"));
    }
    let name = found(&cluster, member)[0].name;
    assert_eq!(bytes, cluster.files[&member][&name.text()], "they are the bytes of its file");
    assert_eq!(read(&mut cluster, member, (index, term), bytes_count), Ok(Vec::new()));
    assert_eq!(read(&mut cluster, member, (index, term), 7), Err(Refusal::Malformed));
    assert_eq!(read(&mut cluster, member, (LogIndex(1), term), 0), Err(Refusal::NoSuchSnapshot));
}

/// ```text
///   a member   is quiet ── cuts one, gently ───────────────────────── would be done here
///   a client                     asks for one, gets it
/// ```
/// It may have to wait for the one that is being cut, which is not what it asked for, and for its own.
#[test]
fn a_snapshot_is_cut_gently_and_no_longer_so_when_somebody_waits_for_it() {
    let second = 1_000_000;
    let policy = SnapshotPolicy { entries: 1_000, micros: 60 * second, bytes_per_second: 100_000, ..POLICY };
    let begin = || {
        let mut cluster = Cluster::with_snapshots(3, policy);
        let large = &*Box::leak("x".repeat(10_000).into_boxed_str());
        cluster.advance(2 * second);
        write_some(&mut cluster, Who::Nobody, large);
        let member = cluster.follower();
        let is_cutting = |cluster: &Cluster| cluster.files.contains_key(&member);
        while !is_cutting(&cluster) {
            cluster.advance(100_000);
        }
        (cluster, member)
    };
    // 120 KB are written in 1.2 s at the usual pace and in 9.6 s gently, and read back in half of that.
    let (mut cluster, member) = begin();
    cluster.advance(8 * second);
    assert_eq!(observed(&cluster, member).snapshot.index, LogIndex(0), "nobody waits for it");
    cluster.advance(8 * second);
    assert!(observed(&cluster, member).snapshot.index > LogIndex(0), "it counts");

    let (mut cluster, member) = begin();
    cluster.ask(cluster.leader(), put("m", "later", None));
    let ticket = cluster.submit(member, snapshot(SnapshotRequest::Cut));
    cluster.advance(5 * second);
    let told = cluster.replies.remove(&ticket);
    assert!(matches!(told, Some(Response::Snapshot(_))), "{told:?}");
}

#[test]
fn a_file_that_is_being_read_stays_and_afterwards_goes() {
    let mut cluster = served();
    write_some(&mut cluster, Who::Nobody, "1");
    let member = cluster.follower();
    let (index, term, _) = cut(&mut cluster, member);
    for value in ["2", "3", "4", "5", "6"] {
        write_some(&mut cluster, Who::Nobody, value);
        assert!(read(&mut cluster, member, (index, term), 0).is_ok(), "it is kept for its reader");
    }
    cluster.advance(SNAPSHOT_HOLD_MICROS);
    for value in ["7", "8", "9", "10"] {
        write_some(&mut cluster, Who::Nobody, value);
    }
    assert_eq!(read(&mut cluster, member, (index, term), 0), Err(Refusal::NoSuchSnapshot));
    assert_eq!(found(&cluster, member).len(), 3, "three are kept");
}

/// Writes so many entries, a batch at a time.
fn write_entries(cluster: &mut Cluster, count: u64) {
    for _ in 0..count / 64 {
        let leader = cluster.leader();
        for _ in 0..64 {
            cluster.submit(leader, put("key", "value", None));
        }
        cluster.advance(10_000);
    }
}

/// ```text
///   entry   1024              1200        1300           1400       2048 …
///           all three agree   the leader's             it cuts a   all say what they have:
///                             state changes            snapshot    the leader stops
///                             follower away ─────────────── back: which snapshot is it sent?
/// ```
/// Were it the one of entry 1400, leader and follower would be most members, and the one that is right would stop. And the
/// leader itself would begin with it again.
#[test]
fn what_a_leader_cut_since_its_state_was_last_compared_is_sent_to_nobody_and_not_what_it_starts_from() {
    let policy = SnapshotPolicy { entries: 300, hot_entries: 2, ..SnapshotPolicy::SERVER };
    let mut cluster = Cluster::with_snapshots(3, policy);
    cluster.advance(2_000_000);
    write_entries(&mut cluster, STATE_CHECK_ENTRIES + 64);
    cluster.advance(1_000_000);
    let (leader, away) = (cluster.leader(), cluster.follower());
    let right = *cluster.shards.keys().find(|member| **member != leader && **member != away).expect("three");
    let shard = cluster.shards.remove(&away).expect("it is there");
    let had = shard.observe().next().expect("it serves").last.index;
    let wrong_from = observed(&cluster, leader).applied;
    cluster.shards.get_mut(&leader).expect("it is there").corrupt();
    write_entries(&mut cluster, 700);
    cluster.advance(200_000);
    assert_eq!(cluster.leader(), leader, "nobody has found out yet");
    let cut = observed(&cluster, leader).snapshot.index;
    assert!(cut > wrong_from, "the leader cut a snapshot of the wrong state");
    cluster.inputs.insert(away, Vec::new());
    cluster.shards.insert(away, shard);
    cluster.advance(1_000_000);
    assert!(observed(&cluster, away).applied > had, "it has caught up");
    let mut writes = 0;
    while cluster.shards[&leader].waiting_for().is_none() {
        write_entries(&mut cluster, 64);
        writes += 1;
        assert!(writes < 100, "the leader is found out");
    }
    cluster.advance(3 * ELECTION_MICROS);
    assert!(cluster.shards[&right].waiting_for().is_none(), "whoever is right goes on");
    let (one, other) = (observed(&cluster, right), observed(&cluster, away));
    assert_eq!((one.applied, one.state_hash), (other.applied, other.state_hash));

    let found = found(&cluster, leader);
    assert!(!found.is_empty(), "what it cut before is trusted");
    assert!(found.iter().all(|found| found.name.position.index <= wrong_from), "{found:?}");
    let names = cluster.files[&leader].keys();
    let set_aside = names.filter(|name| name.ends_with(".distrusted")).count();
    assert!(set_aside > 0, "the others are kept for whoever looks for the cause");
}
