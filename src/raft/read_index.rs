//! Linearizable reads without the log (thesis 6.4): the leader notes its commit index, then makes sure, by one round
//! of answers, that it still led after the read had come.
//!
//! Always holds: a round confirms only reads that came before it began; its index is at least the no-op of the
//! term (catalogue 33); a number is never used for a second request (catalogue 31), across boots neither, because a
//! follower's first number is drawn at random. A read that cannot be confirmed fails; it is never asked again here.

use super::interface::{NotLeader, Output, ReadRefused};
use super::message::{Message, ReadIndexReply, ReadIndexRequest};
use super::node::{Node, Role};
use super::quorum;
use crate::ids::{BootMicros, LogIndex, MemberId, Term};
use crate::limits::RAFT_READS_WAITING_MAX;
use crate::{planted, sometimes};
use std::collections::VecDeque;

/// Who waits for a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reader {
    /// A read of this member.
    Own(u64),
    /// All reads of one turn of a follower.
    Follower { member: MemberId, request: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Round {
    number: u64,
    index: LogIndex,
    readers: Vec<Reader>,
}

/// The rounds of one leader in one term.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct LeaderReads {
    newest_round: u64,
    /// Readers since the newest round began.
    gathered: Vec<Reader>,
    /// Rounds not yet confirmed, oldest first.
    rounds: VecDeque<Round>,
    readers_count: usize,
}

impl LeaderReads {
    pub(super) const fn newest_round(&self) -> u64 {
        self.newest_round
    }

    /// Adds a reader, unless too many wait.
    fn gather(&mut self, reader: Reader) -> bool {
        let has_room = self.readers_count < RAFT_READS_WAITING_MAX;
        if has_room {
            self.readers_count += 1;
            self.gathered.push(reader);
        }
        has_room
    }

    /// Begins a round for all gathered readers, if there are any and the term's no-op is committed.
    pub(super) fn start_round(&mut self, commit: LogIndex, noop: LogIndex) -> bool {
        if self.gathered.is_empty() || (commit < noop && !planted!(33)) {
            return false;
        }
        self.newest_round += 1;
        let readers = core::mem::take(&mut self.gathered);
        self.rounds.push_back(Round { number: self.newest_round, index: commit, readers });
        true
    }

    /// Takes the oldest round that is at or below `confirmed`.
    fn take_confirmed(&mut self, confirmed: u64) -> Option<Round> {
        let round = self.rounds.pop_front_if(|round| round.number <= confirmed)?;
        self.readers_count -= round.readers.len();
        Some(round)
    }

    /// Fails all own reads that wait. Followers find out by themselves.
    pub(super) fn fail_all(&mut self, out: &mut Vec<Output>) {
        let started = self.rounds.drain(..).flat_map(|round| round.readers);
        for reader in started.chain(self.gathered.drain(..)) {
            if let Reader::Own(request) = reader {
                out.push(Output::ReadFailed { request });
            }
        }
        self.readers_count = 0;
    }
}

/// One request to the leader, for all reads of a turn.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    request: u64,
    pub(super) at: BootMicros,
    reads: Vec<u64>,
}

/// The reads of a member that does not lead.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FollowerReads {
    pub(super) next_request: u64,
    gathered: Vec<u64>,
    /// Unanswered requests, oldest first.
    pub(super) asked: VecDeque<Asked>,
    reads_count: usize,
}

impl FollowerReads {
    pub(super) const fn new(first_request: u64) -> Self {
        Self { next_request: first_request, gathered: Vec::new(), asked: VecDeque::new(), reads_count: 0 }
    }

    /// When the oldest request is given up.
    pub(super) fn deadline(&self, patience_micros: u64) -> Option<BootMicros> {
        self.asked.front().map(|asked| asked.at.after(patience_micros))
    }
}

/// The readers may be answered once `index` is applied.
fn answer_readers(readers: Vec<Reader>, term: Term, index: LogIndex, out: &mut Vec<Output>) {
    for reader in readers {
        out.push(match reader {
            Reader::Own(request) => Output::ReadReady { request, index },
            Reader::Follower { member, request } => {
                let reply = ReadIndexReply { term, request, index: Some(index) };
                Output::Send { to: member, message: Message::ReadIndexReply(reply) }
            }
        });
    }
}

impl Node {
    /// Registers a read of this member, to be confirmed by the next round.
    pub(super) fn register_read(&mut self) -> Result<u64, ReadRefused> {
        let leader = self.leader().ok_or(ReadRefused::NotLeader(NotLeader { leader: None }))?;
        let request = self.last_read + 1;
        if let Role::Leader(own) = &mut self.role {
            if !own.reads.gather(Reader::Own(request)) {
                return Err(ReadRefused::TooMany);
            }
        } else {
            assert!(leader != self.id, "only a leader names itself");
            if self.reads.reads_count >= RAFT_READS_WAITING_MAX {
                return Err(ReadRefused::TooMany);
            }
            self.reads.reads_count += 1;
            self.reads.gathered.push(request);
        }
        self.last_read = request;
        Ok(request)
    }

    /// A follower asks for its reads' index. The leader's own reads join the same rounds.
    pub(super) fn receive_read_index_request(
        &mut self,
        from: MemberId,
        request: ReadIndexRequest,
        out: &mut Vec<Output>,
    ) {
        let reader = Reader::Follower { member: from, request: request.request };
        let is_current = request.term == self.hard_state.term;
        if let Role::Leader(leader) = &mut self.role
            && is_current
            && leader.reads.gather(reader)
        {
            return;
        }
        let reply = ReadIndexReply { term: self.hard_state.term, request: request.request, index: None };
        self.send(from, Message::ReadIndexReply(reply), out);
    }

    /// Answers the readers gathered in this turn if this leader holds its lease, which is looked at here: after they came.
    /// Returns whether it did; then no round is needed for them.
    pub(super) fn answer_reads_alone(&mut self, now: BootMicros, out: &mut Vec<Output>) -> bool {
        let is_leased = self.holds_lease(now);
        let (term, index) = (self.hard_state.term, self.hard_state.commit);
        let Role::Leader(leader) = &mut self.role else {
            return false;
        };
        let are_waiting = !leader.reads.gathered.is_empty();
        if is_leased {
            let readers = core::mem::take(&mut leader.reads.gathered);
            leader.reads.readers_count -= readers.len();
            if are_waiting {
                sometimes!(ReadUnderLease);
            }
            answer_readers(readers, term, index, out);
        }
        if are_waiting && let Role::Leader(leader) = &self.role {
            self.refresh_lease(leader, now, out);
        }
        is_leased
    }

    /// Answers the readers of every round that a majority, this member included, has echoed in this term.
    pub(super) fn confirm_reads(&mut self, out: &mut Vec<Output>) {
        let term = self.hard_state.term;
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let newest = leader.reads.newest_round();
        let echoed = leader.followers.iter().map(super::progress::Progress::round);
        let confirmed =
            if planted!(31) { newest } else { quorum::reached_by_majority(echoed.chain([newest])) };
        while let Some(round) = leader.reads.take_confirmed(confirmed) {
            answer_readers(round.readers, term, round.index, out);
        }
    }

    /// Asks the leader once for all reads of this turn.
    pub(super) fn flush_reads(&mut self, now: BootMicros, out: &mut Vec<Output>) {
        if self.reads.gathered.is_empty() {
            return;
        }
        let Some(leader) = self.leader() else {
            self.fail_reads(out);
            return;
        };
        let request = self.reads.next_request;
        self.reads.next_request = request.wrapping_add(1);
        let reads = core::mem::take(&mut self.reads.gathered);
        self.reads.asked.push_back(Asked { request, at: now, reads });
        let request = ReadIndexRequest { term: self.hard_state.term, request };
        self.send(leader, Message::ReadIndexRequest(request), out);
    }

    /// The leader's answer: the reads are ready, or cannot be confirmed there.
    pub(super) fn receive_read_index_reply(
        &mut self,
        from: MemberId,
        reply: ReadIndexReply,
        out: &mut Vec<Output>,
    ) {
        if reply.term != self.hard_state.term || self.leader() != Some(from) {
            return;
        }
        let Some(at) = self.reads.asked.iter().position(|asked| asked.request == reply.request) else {
            return;
        };
        let Some(asked) = self.reads.asked.remove(at) else {
            return;
        };
        self.reads.reads_count -= asked.reads.len();
        for request in asked.reads {
            out.push(match reply.index {
                Some(index) => Output::ReadReady { request, index },
                None => Output::ReadFailed { request },
            });
        }
    }

    /// Fails the reads whose request is unanswered for E.
    pub(super) fn fail_late_reads(&mut self, now: BootMicros, out: &mut Vec<Output>) {
        let patience = self.election_micros;
        while let Some(asked) = self.reads.asked.pop_front_if(|asked| now >= asked.at.after(patience)) {
            self.reads.reads_count -= asked.reads.len();
            out.extend(asked.reads.into_iter().map(|request| Output::ReadFailed { request }));
        }
    }

    /// Fails every read that waits for a leader: it changed, or is unknown.
    pub(super) fn fail_reads(&mut self, out: &mut Vec<Output>) {
        let asked = self.reads.asked.drain(..).flat_map(|asked| asked.reads);
        let failed = asked.chain(self.reads.gathered.drain(..));
        out.extend(failed.map(|request| Output::ReadFailed { request }));
        self.reads.reads_count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{AppendResult, ReadIndexReply};
    use super::super::testing::{append, elect, member, position, receive, recovered, reply, sent};
    use super::*;
    fn matched(upto: u64) -> AppendResult {
        AppendResult::Matched { upto: LogIndex(upto) }
    }

    /// A leader whose no-op, at index 2, is committed.
    fn leader() -> (Node, BootMicros) {
        let (mut node, mut out) = (member(recovered(&[1])), Vec::new());
        let now = elect(&mut node).after(100);
        node.tick(now, &mut out);
        receive(&mut node, now.0, 2, reply(&out, 2, matched(2)).unwrap());
        assert_eq!(node.commit(), LogIndex(2));
        (node, now)
    }

    fn ready(request: u64, index: u64) -> Output {
        Output::ReadReady { request, index: LogIndex(index) }
    }

    #[test]
    fn a_read_waits_for_a_round_that_began_after_it() {
        let (mut node, now) = leader();
        let mut out = Vec::new();
        node.tick(now.after(100), &mut out);
        let old_answer = reply(&out, 2, matched(2)).unwrap();
        let read = node.read(now).unwrap();
        node.flush(now, &mut out);
        assert_eq!(receive(&mut node, now.0, 2, old_answer), [], "it was sent before the read came");
        let answer = reply(&out, 2, matched(2)).unwrap();
        assert_eq!(receive(&mut node, now.0, 2, answer.clone()), [ready(read, 2)]);
        let later = node.read(now).unwrap();
        assert_ne!(read, later);
        node.flush(now, &mut out);
        assert_eq!(
            receive(&mut node, now.0, 3, answer),
            [],
            "a round serves no read that came after it began"
        );
    }

    #[test]
    fn all_reads_of_a_turn_share_one_round() {
        let (mut node, now) = leader();
        let reads = [node.read(now).unwrap(), node.read(now).unwrap()];
        let mut out = Vec::new();
        node.flush(now, &mut out);
        assert_eq!(sent(&out).len(), 2);
        let answers = receive(&mut node, now.0, 3, reply(&out, 3, matched(0)).unwrap());
        assert_eq!(answers, reads.map(|read| ready(read, 2)));
    }

    #[test]
    fn a_read_waits_for_the_no_op_of_the_term() {
        let (mut node, mut out) = (member(recovered(&[1])), Vec::new());
        let now = elect(&mut node).after(100);
        let read = node.read(now).unwrap();
        node.tick(now, &mut out);
        node.flush(now, &mut out);
        assert_eq!(receive(&mut node, now.0, 2, reply(&out, 2, matched(1)).unwrap()), []);
        let news = receive(&mut node, now.0, 2, reply(&out, 2, matched(2)).unwrap());
        assert_eq!(news, [Output::Committed { upto: LogIndex(2) }]);
        out.clear();
        node.flush(now, &mut out);
        assert_eq!(receive(&mut node, now.0, 2, reply(&out, 2, matched(2)).unwrap()), [ready(read, 2)]);
    }

    #[test]
    fn a_deposed_leader_fails_its_reads() {
        let (mut node, now) = leader();
        let (asked, gathered) = (node.read(now).unwrap(), Vec::new());
        let mut out = gathered;
        node.flush(now, &mut out);
        let late = node.read(now).unwrap();
        let news = receive(&mut node, now.0, 3, append(9, position(0, 0), Vec::new(), 0));
        for request in [asked, late] {
            assert!(news.contains(&Output::ReadFailed { request }));
        }
    }

    #[test]
    fn a_follower_asks_once_for_all_reads_of_a_turn_and_never_with_an_old_number() {
        let mut node = member(recovered(&[1]));
        receive(&mut node, 0, 2, append(1, position(1, 1), Vec::new(), 1));
        let now = BootMicros(0);
        let mut numbers = Vec::new();
        for _ in 0..2 {
            let (first, second) = (node.read(now).unwrap(), node.read(now).unwrap());
            let mut out = Vec::new();
            node.flush(now, &mut out);
            let [Message::ReadIndexRequest(request)] = sent(&out)[..] else {
                panic!("one request for all reads");
            };
            numbers.push(request.request);
            let index = Some(LogIndex(1));
            let answer = ReadIndexReply { term: Term(1), request: numbers[0], index };
            let news = receive(&mut node, 0, 2, Message::ReadIndexReply(answer));
            let is_first = numbers.len() == 1;
            assert_eq!(news == [ready(first, 1), ready(second, 1)], is_first);
        }
        assert_ne!(numbers[0], numbers[1]);
        let deadline = node.next_deadline();
        assert_eq!(deadline, BootMicros(1_000), "an unanswered request is given up after E");
        let mut out = Vec::new();
        node.tick(deadline, &mut out);
        assert_eq!(out.len(), 2);
    }

    #[test]
    fn the_number_of_waiting_reads_is_bounded() {
        let (mut node, now) = leader();
        for _ in 0..RAFT_READS_WAITING_MAX {
            node.read(now).unwrap();
        }
        assert_eq!(node.read(now), Err(ReadRefused::TooMany));
    }

    #[test]
    fn nobody_can_confirm_a_read_without_a_leader() {
        let mut node = member(recovered(&[1]));
        let refused = ReadRefused::NotLeader(NotLeader { leader: None });
        assert_eq!(node.read(BootMicros(0)), Err(refused));
    }
}
