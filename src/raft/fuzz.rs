//! Any message at all (test-only): whatever a peer says, a member does not panic, keeps its invariants, and changes
//! nothing for what is old. Repeatable: seeds only.

use super::random::Random;
use super::testing::{config, is_old, position};
use super::{
    AppendReply, AppendRequest, AppendResult, Entry, FillReply, FillRequest, HardState, Installed, Island,
    Message, Node, Output, Position, PreVoteReply, PreVoteRequest, ReadIndexReply, ReadIndexRequest,
    RecoveredLog, RoleName, SnapshotChunk, SnapshotName, SnapshotReply, TimeoutNow, VoteReply, VoteRequest,
};
use crate::ids::{BootMicros, LogIndex, MemberId, Term};
use crate::property;

/// Mostly small numbers, which collide; sometimes the largest.
fn any_number(random: &mut Random) -> u64 {
    match random.below(40) {
        0 => u64::MAX,
        1 => crate::limits::RAFT_NUMBER_MAX - 1,
        2 => random.number(),
        _ => random.below(8),
    }
}

fn any_position(random: &mut Random) -> Position {
    position(any_number(random), any_number(random))
}

fn any_entries(random: &mut Random, previous: Position) -> Vec<Entry> {
    let (mut index, mut term) = (previous.index.0, previous.term.0);
    let count = random.below(5);
    let entries = (0..count).map(|_| {
        index = if random.below(30) == 0 { any_number(random) } else { index.wrapping_add(1) };
        term = term.wrapping_add(u64::from(random.below(3) == 0));
        Entry {
            index: LogIndex(index),
            term: Term(term),
            bytes_count: u32::try_from(random.below(1 << 32)).unwrap(),
        }
    });
    entries.collect()
}

/// A position near what `node` holds, or any.
fn near(random: &mut Random, node: &Node) -> Position {
    match random.below(3) {
        0 => any_position(random),
        1 => node.last(),
        _ => {
            let index = LogIndex(random.below(node.last().index.0.min(1 << 20) + 2));
            Position { index, term: node.term_at(index).unwrap_or(Term(1)) }
        }
    }
}

/// The answer a campaigning member hopes for, so that some runs see leaders.
fn wanted_vote(node: &Node) -> Option<Message> {
    let (term, is_granted) = (node.hard_state().term, true);
    match node.role() {
        RoleName::Follower | RoleName::Leader => None,
        RoleName::PreCandidate => {
            Some(Message::PreVoteReply(PreVoteReply { term, asked: term.next(), is_granted }))
        }
        RoleName::Candidate => Some(Message::VoteReply(VoteReply { term, is_granted })),
    }
}

fn any_message(random: &mut Random, node: &Node, sessions: &[u64]) -> Message {
    let own = node.hard_state().term.0;
    if random.below(3) == 0
        && let Some(vote) = wanted_vote(node)
    {
        return vote;
    }
    let term = Term(match random.below(300) {
        0 => any_number(random),
        1..20 => own.saturating_sub(1),
        20..30 => own + 1,
        _ => own,
    });
    let is_granted = random.below(2) == 0;
    match random.below(13) {
        11 => Message::SnapshotChunk(SnapshotChunk {
            term,
            session: any_session(random, sessions),
            snapshot: any_snapshot(random, node),
            offset: any_number(random),
            bytes_count: u32::try_from(random.below(4)).unwrap(),
        }),
        12 => Message::SnapshotReply(SnapshotReply {
            term,
            session: any_session(random, sessions),
            snapshot: any_snapshot(random, node),
            offset: any_number(random),
            upto: any_number(random),
        }),
        0 => Message::PreVoteRequest(PreVoteRequest { term, last: near(random, node) }),
        1 => {
            let asked = Term(term.0.wrapping_add(random.below(2)));
            Message::PreVoteReply(PreVoteReply { term, asked, is_granted })
        }
        2 => Message::VoteRequest(VoteRequest { term, last: near(random, node), is_transfer: is_granted }),
        3 => Message::VoteReply(VoteReply { term, is_granted }),
        4 | 5 => any_append(random, node, term, sessions),
        6 => Message::TimeoutNow(TimeoutNow { term, last: near(random, node).index }),
        7 => Message::ReadIndexRequest(ReadIndexRequest { term, request: any_number(random) }),
        8 => {
            let index = is_granted.then(|| LogIndex(any_number(random)));
            Message::ReadIndexReply(ReadIndexReply { term, request: any_number(random), index })
        }
        9 => {
            Message::FillRequest(FillRequest { term, previous: near(random, node), last: near(random, node) })
        }
        _ => {
            let previous = near(random, node);
            let entries = any_entries(random, previous);
            let hole = node.log.hole_ends().next().filter(|_| random.below(5) > 0);
            let last = hole.unwrap_or_else(|| near(random, node));
            Message::FillReply(FillReply { term, last, previous, entries })
        }
    }
}

/// The newest replication session, or any.
fn any_session(random: &mut Random, sessions: &[u64]) -> u64 {
    let known = sessions.last().copied().filter(|_| random.below(4) > 0);
    known.unwrap_or_else(|| random.below(3))
}

/// The snapshot being sent, or one of a few bytes that ends near what `node` holds.
fn any_snapshot(random: &mut Random, node: &Node) -> SnapshotName {
    let sent = node.snapshots_sent().next().filter(|_| random.below(3) > 0);
    sent.unwrap_or_else(|| {
        let position = near(random, node);
        let position = if random.below(2) == 0 { position } else { above(random, position) };
        SnapshotName { position, bytes_count: any_number(random), hash: random.below(2) }
    })
}

fn above(random: &mut Random, position: Position) -> Position {
    Position { index: LogIndex(position.index.0.wrapping_add(random.below(6))), ..position }
}

fn any_append(random: &mut Random, node: &Node, term: Term, sessions: &[u64]) -> Message {
    let session = any_session(random, sessions);
    let round = any_number(random);
    let result = match random.below(4) {
        0 => AppendResult::Matched { upto: near(random, node).index },
        1 => AppendResult::Conflict { rejected: near(random, node).index, hint: near(random, node) },
        _ => {
            let previous = near(random, node);
            let entries = any_entries(random, previous);
            let commit = LogIndex(any_number(random));
            return Message::AppendRequest(AppendRequest { term, session, previous, entries, commit, round });
        }
    };
    Message::AppendReply(AppendReply { term, session, round, result })
}

/// A log of some terms, perhaps with holes.
fn any_recovered(random: &mut Random) -> RecoveredLog {
    let entry = |index, term| Entry { index: LogIndex(index), term: Term(term), bytes_count: 10 };
    let mut recovered = RecoveredLog::default();
    if random.below(2) == 0 {
        return recovered;
    }
    recovered.entries = (1..=4).map(|index| entry(index, 1 + index / 3)).collect();
    recovered.hard_state = HardState { term: Term(3), vote: None, commit: LogIndex(random.below(20)) };
    if random.below(2) == 0 {
        let entries = (8..=9).map(|index| entry(index, 3)).collect();
        recovered.islands.push(Island { predecessor: position(7, 2), entries });
        recovered
            .islands
            .push(Island { predecessor: position(12 - random.below(6), 3), entries: Vec::new() });
    }
    recovered
}

/// The member ticks, `late` microseconds after it has to.
fn tick(node: &mut Node, now: &mut BootMicros, late: u64, out: &mut Vec<Output>) {
    let deadline = node.next_deadline();
    if *now < deadline {
        node.tick(*now, out);
        assert_eq!(*out, [], "nothing is due before the deadline");
    }
    *now = (*now).max(deadline.after(late));
    node.tick(*now, out);
    assert!(node.next_deadline() > *now, "after a tick nothing is overdue");
}

/// The member takes a snapshot, and may trim its log.
fn take_snapshot(random: &mut Random, node: &mut Node) {
    let (base, commit) = (node.base().index.0, node.commit().0);
    let index = LogIndex(base + random.below(commit.min(1 << 20).saturating_sub(base) + 1));
    if let Some(term) = node.term_at(index).filter(|_| index.0 > 0) {
        let position = Position { index, term };
        node.snapshot_taken(SnapshotName { position, bytes_count: 3, hash: 0 });
    }
    if random.below(2) == 0 {
        node.trim(LogIndex(any_number(random)));
    }
}

/// Reads of a snapshot's file are answered at once; what is to be stored is given back.
fn serve_files(
    random: &mut Random,
    node: &mut Node,
    now: BootMicros,
    output: &Output,
) -> Option<(SnapshotName, u64, u32)> {
    match *output {
        Output::WriteChunk { snapshot, offset, bytes_count } => return Some((snapshot, offset, bytes_count)),
        Output::ReadChunk { to, session, snapshot, offset: _ } if random.below(4) == 0 => {
            node.chunk_unreadable(now, (to, session), snapshot, &mut Vec::new());
        }
        Output::ReadChunk { to, session, snapshot, offset } => {
            assert!(offset < snapshot.bytes_count, "a chunk is read from within its file");
            node.chunk_read(to, session, snapshot, offset, 1);
        }
        _ => {}
    }
    None
}

/// A chunk is held, or not; what is whole is installed, or refused.
fn act_on_chunk(
    random: &mut Random,
    node: &mut Node,
    now: BootMicros,
    (snapshot, offset, bytes_count): (SnapshotName, u64, u32),
    out: &mut Vec<Output>,
) {
    let end = offset + u64::from(bytes_count);
    node.chunk_held(now, snapshot, offset, end, out);
    if end < snapshot.bytes_count {
        return;
    }
    if random.below(4) == 0 {
        node.snapshot_refused(now, snapshot, out);
        return;
    }
    let before = node.commit();
    let installed = node.install(now, snapshot, out);
    let is_newer = before < snapshot.position.index;
    assert!(installed == Installed::Kept || is_newer, "a snapshot replaces no newer state");
    let base = node.base();
    assert!(
        installed == Installed::Kept || base == snapshot.position,
        "the log starts behind what was installed"
    );
}

/// Returns whether the member ever led others and whether it ever followed with a hole.
fn run_any_messages(seed: u64, steps_count: usize) -> (bool, bool) {
    let mut random = Random::new(seed);
    let mut now = BootMicros(0);
    let recovered = any_recovered(&mut random);
    let members_count = random.below(4) + 1;
    let mut node = Node::new(config(1, members_count, seed), recovered, now);
    let mut out = Vec::new();
    let mut in_flight = None;
    let mut sessions = Vec::new();
    let mut chunk = None;
    let (mut has_led, mut had_hole) = (false, false);
    for _ in 0..steps_count {
        has_led |= node.role() == RoleName::Leader && members_count > 1;
        had_hole |= node.has_hole() && node.leader().is_some();
        now = now.after(random.below(50));
        match random.below(12) {
            10 => take_snapshot(&mut random, &mut node),
            11 => {
                if let Some((snapshot, offset, bytes)) = chunk.take() {
                    act_on_chunk(&mut random, &mut node, now, (snapshot, offset, bytes), &mut out);
                }
            }
            0 => {
                let late = random.below(3);
                tick(&mut node, &mut now, late, &mut out);
            }
            1 => in_flight = node.persist(now).map(|persist| persist.mark).or(in_flight),
            2 => {
                if let Some(mark) = in_flight.take() {
                    node.persisted(now, mark, &mut out);
                }
            }
            3 => {
                // Refusals are ordinary.
                let _ = node.propose(now, &[1, u32::MAX]);
                let _ = node.read(now);
                node.flush(now, &mut out);
            }
            4 if random.below(5) == 0 => {
                let _ = node.transfer(now, MemberId(random.below(6)), &mut out);
            }
            _ => {
                let message = any_message(&mut random, &node, &sessions);
                let before = node.hard_state();
                let is_old = is_old(&message, before.term);
                let from = MemberId(random.below(5));
                node.receive(now, from, message, &mut out);
                let after = node.hard_state();
                assert!(!is_old || before == after, "a message of a lower term changes nothing durable");
                assert!(
                    after.term >= before.term && after.commit >= before.commit,
                    "term and commit only grow"
                );
            }
        }
        for output in out.drain(..) {
            if let Output::Send { message: Message::AppendRequest(request), .. } = &output {
                sessions.push(request.session);
            }
            chunk = serve_files(&mut random, &mut node, now, &output).or(chunk);
        }
        node.assert_invariants();
    }
    (has_led, had_hole)
}

#[test]
fn no_message_whatever_makes_a_member_panic() {
    let (mut led_count, mut hole_count) = (0, 0);
    let tried = property::hold(400, |seed| {
        let (has_led, had_hole) = run_any_messages(seed, 1_000);
        led_count += u32::from(has_led);
        hole_count += u32::from(had_hole);
    });
    assert!(tried < 400 || led_count > 100, "many runs see a leader");
    assert!(tried < 400 || hole_count > 40, "many runs see a hole");
}
