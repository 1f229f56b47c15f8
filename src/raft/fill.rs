//! Repairing a hole (DESIGN §8): a member whose log lost entries to damage asks every peer for them.
//!
//! Any peer that holds the last missing entry, as the frame after the damage names it, has the same log below it
//! (log matching), whatever its role or term. If its log disagrees with what the asker still holds below the hole,
//! the damaged frame had replaced that, and the asker steps down to where they agree. Entries that are committed,
//! or matched with the leader of the term, are never replaced so: then the leader will supply the rest.
//!
//! A leader that does not hold the last missing entry knows that the log above the hole was replaced. It sends the
//! asker what it does hold, as an append: its own record may say that the asker once acknowledged more than it now
//! has, and never goes back, so ordinary replication would start above the hole for the rest of the term.
//!
//! With several holes each is asked for in turn: a lower island may be of a log that nobody holds any more, since
//! the damaged frame above it had replaced it, and then only the entries for a higher hole lead past it.

use super::interface::Output;
use super::message::{FillReply, FillRequest, Message, Position};
use super::node::Node;
use crate::ids::{BootMicros, MemberId};
use crate::{planted, sometimes};

/// The asker's state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Filling {
    /// When to ask all peers again.
    pub(super) request_at: BootMicros,
    /// How often all peers were asked; says which hole is next.
    asked_count: usize,
    /// Where peers' logs may agree with ours, after one disagreed: for the hole below this position, from there.
    pub(super) stepped_down: Option<(Position, Position)>,
}

impl Filling {
    pub(super) const fn new(now: BootMicros) -> Self {
        Self { request_at: now, asked_count: 0, stepped_down: None }
    }
}

impl Node {
    /// Asks all peers, every heartbeat interval while there is a hole.
    pub(super) fn request_fill(&mut self, now: BootMicros, out: &mut Vec<Output>) {
        if now < self.filling.request_at {
            return;
        }
        let holes_count = self.log.hole_ends().len();
        let Some(turn) = self.filling.asked_count.checked_rem(holes_count) else {
            return;
        };
        let Some(last) = self.log.hole_ends().nth(turn) else {
            return;
        };
        let request = self.fill_request(last);
        self.filling.asked_count = self.filling.asked_count.wrapping_add(1);
        self.filling.request_at = now.after(self.heartbeat_micros);
        for at in 0..self.peers.len() {
            self.send(self.peers[at], Message::FillRequest(request), out);
        }
    }

    fn fill_request(&self, last: Position) -> FillRequest {
        let stepped = self.filling.stepped_down.filter(|(hole, at)| *hole == last && self.log.holds(*at));
        let previous = stepped.map_or_else(|| self.log.last(), |(_, at)| at);
        FillRequest { term: self.hard_state.term, previous, last }
    }

    /// The leader's repair began at `previous`, which is not held here: the next question is asked from `hint`. The leader
    /// itself takes no notice, because its record of this member says that it once had more.
    pub(super) fn step_fill_down(&mut self, previous: Position, hint: Position) {
        if let Some(last) = self.log.hole_ends().next()
            && previous.index <= self.fill_request(last).previous.index
        {
            sometimes!(FillSteppedDown);
            self.filling.stepped_down = Some((last, hint));
        }
    }

    /// Answers if this log holds what the asker's hole ends with.
    pub(super) fn receive_fill_request(
        &mut self,
        from: MemberId,
        request: FillRequest,
        out: &mut Vec<Output>,
    ) {
        if planted!(57) && self.leader() != Some(self.id) {
            return;
        }
        // An answer is never held for the disk: by the time it left, the log might have lost what it names. Whoever
        // has a hole asks again.
        if self.durability.ballot().term != self.hard_state.term {
            return;
        }
        if let Some((previous, entries)) = self.log.supply(request.previous, request.last) {
            let term = self.hard_state.term;
            let reply = FillReply { term, last: request.last, previous, entries };
            self.send(from, Message::FillReply(reply), out);
        } else if request.term == self.hard_state.term {
            sometimes!(FollowerRepaired);
            self.repair_follower(from, request.previous, out);
        }
    }

    /// Takes entries for the current hole, or steps down to where the peer's log may agree, and asks on.
    pub(super) fn receive_fill_reply(
        &mut self,
        now: BootMicros,
        from: MemberId,
        reply: &FillReply,
        out: &mut Vec<Output>,
    ) {
        if !self.log.hole_ends().any(|last| last == reply.last) || reply.entries.is_empty() {
            return;
        }
        let before = self.fill_request(reply.last);
        if self.log.holds(reply.previous) {
            let settled = self.settled();
            let conflict = self.log.first_conflict(&reply.entries);
            if conflict.is_some_and(|at| at <= settled) {
                return;
            }
            sometimes!(HoleFilledByAnyPeer);
            if conflict.is_some() {
                sometimes!(HoleOfAReplacedLog);
            }
            self.accept(now, &reply.entries, out);
            self.filling.stepped_down = None;
        } else if reply.previous.index <= self.log.last().index && reply.previous.index.0 > 0 {
            let at = self.log.last_upto(reply.previous.index, reply.previous.term);
            sometimes!(FillSteppedDown);
            self.filling.stepped_down = Some((reply.last, at));
        } else {
            return;
        }
        // Peers answer side by side; only an answer that brought something is worth a next question.
        let is_open = self.log.hole_ends().any(|last| last == reply.last);
        let next = if is_open { Some(reply.last) } else { self.log.hole_ends().next() };
        let Some(request) = next.map(|last| self.fill_request(last)) else {
            return;
        };
        if request != before {
            self.send(from, Message::FillRequest(request), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{append, entries, member, position, receive, recovered, sent, sync};
    use super::super::{Entry, Island, RecoveredLog, Run, RunKind};
    use super::*;
    use crate::ids::LogIndex;

    /// A log of these terms, then the holes and islands (predecessor and terms above it).
    fn damaged(terms: &[u64], islands: &[(Position, &[u64])]) -> Node {
        let island = |(predecessor, terms): &(Position, &[u64])| Island {
            predecessor: *predecessor,
            entries: entries(predecessor.index.0 + 1, terms),
        };
        let mut found: RecoveredLog = recovered(terms);
        found.hard_state.term = crate::ids::Term(5);
        found.islands = islands.iter().map(island).collect();
        member(found)
    }

    fn reply(last: Position, previous: Position, entries: Vec<Entry>) -> Message {
        let term = crate::ids::Term(5);
        Message::FillReply(FillReply { term, last, previous, entries })
    }

    #[test]
    fn a_member_with_a_hole_asks_every_peer_until_it_is_filled() {
        let mut node = damaged(&[1, 1], &[(position(4, 1), &[1])]);
        let request = node.fill_request(position(4, 1));
        for round in 0..3 {
            let (mut out, now) = (Vec::new(), BootMicros(round * 100));
            assert_eq!(node.next_deadline(), now);
            node.tick(now, &mut out);
            assert_eq!(sent(&out), [&Message::FillRequest(request); 2]);
        }
    }

    #[test]
    fn a_filled_hole_is_written_as_a_fill_and_is_durable_with_the_island() {
        let mut node = damaged(&[1, 1], &[(position(4, 1), &[1])]);
        receive(&mut node, 0, 3, reply(position(4, 1), position(2, 1), entries(3, &[1, 1])));
        assert!(!node.has_hole());
        assert_eq!((node.last(), node.durable()), (position(5, 1), LogIndex(2)));
        let run = node.persist(BootMicros(0)).unwrap();
        let (previous, first, last) = (position(2, 1), LogIndex(3), LogIndex(4));
        assert_eq!(run.run, Some(Run { kind: RunKind::Fill, previous, first, last }));
        assert_eq!(run.last, position(5, 1));
        node.persisted(BootMicros(0), run.mark, &mut Vec::new());
        assert_eq!(node.durable(), LogIndex(5));
    }

    #[test]
    fn a_fill_and_an_append_are_two_runs() {
        let mut node = damaged(&[1, 1], &[(position(4, 1), &[1])]);
        receive(&mut node, 0, 3, append(5, position(2, 1), entries(3, &[1, 1, 1, 5]), 0));
        let mut kinds = Vec::new();
        while let Some(persist) = node.persist(BootMicros(0)) {
            kinds.push(persist.run.map(|run| (run.kind, run.first.0, run.last.0)));
            node.persisted(BootMicros(0), persist.mark, &mut Vec::new());
        }
        assert_eq!(kinds, [Some((RunKind::Fill, 3, 4)), Some((RunKind::Append, 6, 6))]);
    }

    #[test]
    fn an_answer_for_another_hole_is_ignored() {
        let mut node = damaged(&[1, 1], &[(position(4, 1), &[1])]);
        assert_eq!(receive(&mut node, 0, 3, reply(position(4, 2), position(2, 1), entries(3, &[2, 2]))), []);
        assert_eq!(node.last(), position(2, 1));
    }

    #[test]
    fn the_asker_steps_down_where_the_damaged_frame_had_replaced_its_log() {
        // Below the hole the asker holds what was replaced; the terms of the two logs interleave.
        for replaced in [[1, 2, 2], [1, 4, 4]] {
            let last = position(5, 5);
            let mut node = damaged(&replaced, &[(last, &[5])]);
            let peer = member(recovered(&[1, 3, 5, 5, 5]));
            let mut questions_count = 0;
            while node.has_hole() {
                questions_count += 1;
                assert!(questions_count < 4, "each step down reaches a lower term");
                let request = node.fill_request(last);
                let (previous, entries) = peer.log.supply(request.previous, last).unwrap();
                receive(&mut node, 0, 3, reply(last, previous, entries));
            }
            assert_eq!(questions_count == 1, replaced == [1, 2, 2]);
            assert_eq!(node.last(), position(6, 5));
            let run = node.persist(BootMicros(0)).unwrap().run.unwrap();
            assert_eq!((run.kind, run.previous, run.last), (RunKind::Fill, position(1, 1), LogIndex(5)));
        }
    }

    #[test]
    fn a_repair_that_begins_where_the_logs_disagree_makes_the_asker_step_down() {
        // The leader holds 1@1, 2@3, 3@3; the asker 1@1, 2@2, 3@4 below its hole, whose end the leader does not hold.
        let last = position(6, 5);
        let mut node = damaged(&[1, 2, 4], &[(last, &[5])]);
        receive(&mut node, 0, 2, append(6, position(3, 3), entries(4, &[6, 6]), 0));
        assert_eq!(node.fill_request(last).previous, position(2, 2));
        // An ordinary heartbeat asks far above; it does not undo the step.
        receive(&mut node, 0, 2, append(6, position(9, 6), Vec::new(), 0));
        assert_eq!(node.fill_request(last).previous, position(2, 2));
        receive(&mut node, 0, 2, append(6, position(1, 1), entries(2, &[3, 3, 6, 6]), 0));
        assert_eq!((node.last(), node.filling.stepped_down), (position(5, 6), None));
    }

    #[test]
    fn what_is_matched_with_the_leader_of_the_term_is_not_replaced_by_a_fill() {
        let mut node = damaged(&[1, 2, 2], &[(position(5, 3), &[3])]);
        receive(&mut node, 0, 2, append(5, position(3, 2), Vec::new(), 0));
        receive(&mut node, 0, 3, reply(position(5, 3), position(1, 1), entries(2, &[3, 3, 3, 3])));
        assert_eq!(node.last(), position(3, 2));
        receive(&mut node, 0, 2, append(5, position(3, 2), entries(4, &[5]), 0));
        assert_eq!((node.last(), node.has_hole()), (position(4, 5), false));
        let run = node.persist(BootMicros(0)).unwrap().run.unwrap();
        assert_eq!(run.kind, RunKind::Append, "the island was of a replaced log");
    }

    #[test]
    fn two_members_with_holes_at_different_places_fill_each_other() {
        let mut lower = damaged(&[1, 1], &[(position(4, 1), &[1, 1, 1, 1])]);
        let mut upper = damaged(&[1, 1, 1, 1, 1], &[(position(7, 1), &[1])]);
        for _ in 0..3 {
            for (asker, supplier) in [(true, false), (false, true)] {
                let (asker, supplier) = match (asker, supplier) {
                    (true, _) => (&mut lower, &mut upper),
                    (false, _) => (&mut upper, &mut lower),
                };
                let Some(last) = asker.log.hole_ends().next() else {
                    continue;
                };
                let request = Message::FillRequest(asker.fill_request(last));
                let out = receive(supplier, 0, 2, request);
                // Term 5 is durable on both, so the answer leaves at once.
                for message in sent(&out).into_iter().cloned() {
                    receive(asker, 0, 2, message);
                }
            }
        }
        assert!(!lower.has_hole() && !upper.has_hole());
        assert_eq!(lower.last(), upper.last());
        sync(&mut lower, BootMicros(0));
        assert_eq!(lower.durable(), LogIndex(8));
    }

    #[test]
    fn a_leader_that_does_not_hold_the_end_of_a_hole_sends_what_it_holds() {
        let mut leader = member(recovered(&[1, 1, 1]));
        let now = super::super::testing::elect(&mut leader);
        let term = leader.hard_state().term;
        let request = FillRequest { term, previous: position(2, 1), last: position(9, 1) };
        let out = receive(&mut leader, now.0, 3, Message::FillRequest(request));
        let [Message::AppendRequest(append)] = sent(&out)[..] else {
            panic!("an append is the answer");
        };
        assert_eq!((append.previous, append.entries.len()), (position(2, 1), 2));
    }

    #[test]
    fn every_hole_is_asked_for_in_turn() {
        let mut node = damaged(&[1], &[(position(3, 1), &[1]), (position(6, 2), &[2])]);
        let mut asked = Vec::new();
        for round in 0..2 {
            let mut out = Vec::new();
            node.tick(BootMicros(round * 100), &mut out);
            if let Message::FillRequest(request) = sent(&out)[0] {
                asked.push(request.last);
            }
        }
        assert_eq!(asked, [position(3, 1), position(6, 2)]);
        // The lower island is of a log that was replaced; the entries for the upper hole lead past it.
        receive(&mut node, 0, 3, reply(position(6, 2), position(1, 1), entries(2, &[2, 2, 2, 2, 2])));
        assert_eq!((node.last(), node.has_hole()), (position(7, 2), false));
    }

    #[test]
    fn entries_are_never_supplied_that_left_the_log_while_the_answer_waited_for_the_disk() {
        let mut node = member(recovered(&[1, 1, 1, 1]));
        let question =
            FillRequest { term: crate::ids::Term(2), previous: position(0, 0), last: position(4, 1) };
        let mut sent = receive(&mut node, 1, 2, Message::FillRequest(question));
        // The leader of term 2 has another entry at 2; 3 and 4 are gone.
        sent.extend(receive(&mut node, 2, 3, append(2, position(1, 1), entries(2, &[2]), 0)));
        sent.extend(sync(&mut node, BootMicros(3)));
        for output in sent {
            if let Output::Send { message: Message::FillReply(reply), .. } = output {
                let are_held =
                    reply.entries.iter().all(|entry| node.term_at(entry.index) == Some(entry.term));
                assert!(are_held, "what is supplied is in the log when it leaves");
            }
        }
    }
}
