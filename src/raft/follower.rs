//! Following: taking the leader's entries in, and telling it how far the own log equals its and is durable.
//!
//! Always holds: what is matched with the leader of this term, and what is committed, is never cut. An
//! acknowledgement names the lesser of what is matched and what is durable.

use super::interface::Output;
use super::message::{AppendReply, AppendRequest, AppendResult, Message, Position};
use super::node::{Node, Role};
use crate::ids::{BootMicros, LogIndex, MemberId};
use crate::sometimes;

/// What a follower knows of its leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Follower {
    pub(super) leader: Option<MemberId>,
    /// When the leader was last heard; means nothing without a leader.
    pub(super) heard_at: BootMicros,
    /// Up to where the log is known to equal the leader's.
    pub(super) matched: LogIndex,
    /// Up to where the leader was told.
    told: LogIndex,
    pub(super) session: u64,
    /// The newest read round heard in this session.
    round: u64,
    /// The newest one that was answered; `None` if nothing of this session was.
    round_told: Option<u64>,
}

impl Follower {
    pub(super) const fn without_leader() -> Self {
        Self::of(None, BootMicros(0))
    }

    pub(super) const fn of(leader: Option<MemberId>, heard_at: BootMicros) -> Self {
        Self {
            leader,
            heard_at,
            matched: LogIndex(0),
            told: LogIndex(0),
            session: 0,
            round: 0,
            round_told: None,
        }
    }

    fn heard(&mut self, now: BootMicros, session: u64, round: u64) {
        self.heard_at = now;
        if session != self.session {
            (self.session, self.round, self.round_told, self.told) = (session, 0, None, LogIndex(0));
        }
        self.round = self.round.max(round);
    }
}

impl Node {
    /// Entries or a heartbeat from a leader.
    pub(super) fn receive_append_request(
        &mut self,
        now: BootMicros,
        from: MemberId,
        request: &AppendRequest,
        out: &mut Vec<Output>,
    ) {
        if request.term < self.hard_state.term {
            self.tell_term(from, request, out);
            return;
        }
        if !self.hear_leader(now, from, (request.session, request.round), out) {
            return;
        }
        let Some(result) = self.match_append(now, request, out) else {
            return;
        };
        if !self.is_answered_when_durable(request, result) {
            self.reply_to_leader(result, out);
        }
        let matched = self.matched();
        self.commit_upto(request.commit.min(matched), out);
    }

    /// Notes that `from` leads the current term, and was heard: in this session, with this read round. Returns whether
    /// that is so.
    pub(super) fn hear_leader(
        &mut self,
        now: BootMicros,
        from: MemberId,
        (session, round): (u64, u64),
        out: &mut Vec<Output>,
    ) -> bool {
        match &self.role {
            // Two leaders in one term cannot be; somebody's bytes are wrong.
            Role::Leader(_) => return false,
            Role::Follower(follower) if follower.leader.is_some_and(|leader| leader != from) => return false,
            Role::Follower(follower) if follower.leader.is_some() => {}
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                self.become_follower(now, self.hard_state.term, Some(from), out);
            }
        }
        self.election_at = now.after(self.election_timeout);
        if let Role::Follower(follower) = &mut self.role {
            follower.heard(now, session, round);
        }
        true
    }

    /// Compares logs at `previous` and takes the entries in; nothing if the request contradicts what its sender
    /// or an earlier majority has said.
    fn match_append(
        &mut self,
        now: BootMicros,
        request: &AppendRequest,
        out: &mut Vec<Output>,
    ) -> Option<AppendResult> {
        let previous = request.previous;
        if previous.index < self.log.base().index {
            // All up to the base is committed, so every leader's log holds it.
            return Some(AppendResult::Matched { upto: self.hard_state.commit.min(self.durable()) });
        }
        if !self.log.holds(previous) {
            sometimes!(AppendInConflict);
            let hint = self.log.last_upto(previous.index.previous(), previous.term);
            self.step_fill_down(previous, hint);
            return Some(AppendResult::Conflict { rejected: previous.index, hint });
        }
        if self.log.first_conflict(&request.entries).is_some_and(|at| at <= self.settled()) {
            return None;
        }
        let had_hole = self.log.has_hole();
        self.accept(now, &request.entries, out);
        if !request.entries.is_empty() {
            self.filling.stepped_down = None;
        }
        if had_hole && !self.log.has_hole() {
            sometimes!(HoleFilledByLeader);
        }
        let last = request.entries.last().map_or(previous.index, |entry| entry.index);
        if let Role::Follower(follower) = &mut self.role {
            follower.matched = follower.matched.max(last);
        }
        let upto = self.matched().min(self.durable());
        Some(AppendResult::Matched { upto })
    }

    /// Whether an answer now would say nothing new, and one that does follows once the disk has what has come.
    ///
    /// Only for entries: a heartbeat is always answered at once, so the leader's quorum check waits for no disk.
    fn is_answered_when_durable(&self, request: &AppendRequest, result: AppendResult) -> bool {
        let (Role::Follower(follower), AppendResult::Matched { upto }) = (&self.role, result) else {
            return false;
        };
        let is_news = upto > follower.told || Some(follower.round) > follower.round_told;
        !request.entries.is_empty() && !is_news && upto < follower.matched
    }

    pub(super) fn matched(&self) -> LogIndex {
        match &self.role {
            Role::Follower(follower) => follower.matched,
            Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => LogIndex(0),
        }
    }

    /// Up to here the log can no longer change: it is committed, or the leader of this term has it.
    pub(super) fn settled(&self) -> LogIndex {
        self.hard_state.commit.max(self.matched())
    }

    /// An answer for a leader of an older term, so that it learns of this one.
    fn tell_term(&mut self, to: MemberId, request: &AppendRequest, out: &mut Vec<Output>) {
        let reply = AppendReply {
            term: self.hard_state.term,
            session: request.session,
            round: 0,
            result: AppendResult::Conflict { rejected: request.previous.index, hint: Position::START },
        };
        self.send(to, Message::AppendReply(reply), out);
    }

    pub(super) fn reply_to_leader(&mut self, result: AppendResult, out: &mut Vec<Output>) {
        let term = self.hard_state.term;
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        let Some(leader) = follower.leader else {
            return;
        };
        if let AppendResult::Matched { upto } = result {
            follower.told = follower.told.max(upto);
        }
        follower.round_told = Some(follower.round);
        let reply = AppendReply { term, session: follower.session, round: follower.round, result };
        self.send(leader, Message::AppendReply(reply), out);
    }

    /// More of the log became durable: tells the leader if it waits for that.
    pub(super) fn tell_durable(&mut self, out: &mut Vec<Output>) {
        let durable = self.durable();
        let Role::Follower(follower) = &self.role else {
            return;
        };
        let upto = follower.matched.min(durable);
        if upto > follower.told {
            self.reply_to_leader(AppendResult::Matched { upto }, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Entry;
    use super::super::testing::{append, entries, member, position, receive, recovered, sent, sync};
    use super::*;
    use crate::ids::Term;

    fn results(out: &[Output]) -> Vec<AppendResult> {
        let result = |message: &&Message| {
            if let Message::AppendReply(reply) = message { Some(reply.result) } else { None }
        };
        sent(out).iter().filter_map(result).collect()
    }

    fn matched(upto: u64) -> AppendResult {
        AppendResult::Matched { upto: LogIndex(upto) }
    }

    #[test]
    fn an_acknowledgement_names_what_is_matched_and_durable() {
        let mut node = member(recovered(&[1]));
        let out = receive(&mut node, 0, 2, append(1, position(1, 1), entries(2, &[1, 1]), 0));
        assert_eq!(results(&out), [matched(1)]);
        assert_eq!(
            results(&sync(&mut node, BootMicros(0))),
            [matched(3)],
            "and tells unasked when more is durable"
        );
    }

    #[test]
    fn what_is_durable_but_not_matched_is_not_acknowledged() {
        let mut node = member(recovered(&[1, 1, 1]));
        let out = receive(&mut node, 0, 2, append(2, position(1, 1), Vec::new(), 3));
        assert_eq!(results(&out), [], "the term is not durable yet");
        assert_eq!(results(&sync(&mut node, BootMicros(0))), [matched(1)]);
        assert_eq!(node.commit(), LogIndex(1), "nor committed");
    }

    #[test]
    fn a_conflict_hints_at_a_position_below() {
        let mut node = member(recovered(&[1, 1, 3, 3]));
        let out = receive(&mut node, 0, 2, append(3, position(9, 2), Vec::new(), 9));
        let hint = position(2, 1);
        assert_eq!(results(&out), [AppendResult::Conflict { rejected: LogIndex(9), hint }]);
        assert_eq!(node.commit(), LogIndex(0));
    }

    #[test]
    fn what_is_committed_is_never_cut() {
        let mut node = member(recovered(&[1, 1]));
        receive(&mut node, 0, 2, append(2, position(2, 1), Vec::new(), 2));
        let wrong: Vec<Entry> = entries(2, &[3]);
        let out = receive(&mut node, 0, 3, append(3, position(1, 1), wrong, 0));
        assert_eq!(results(&out), []);
        assert_eq!(node.last(), position(2, 1));
    }

    #[test]
    fn a_conflicting_tail_gives_way_before_new_entries_are_announced() {
        let mut node = member(recovered(&[1, 1, 1]));
        let out = receive(&mut node, 0, 2, append(2, position(1, 1), entries(2, &[2]), 0));
        let first_two = [
            Output::Superseded { from: LogIndex(2) },
            Output::Accepted { first: LogIndex(2), last: LogIndex(2) },
        ];
        assert_eq!(out[..2], first_two);
        assert_eq!((node.last(), node.durable()), (position(2, 2), LogIndex(1)));
    }

    #[test]
    fn a_leader_of_an_older_term_learns_of_the_newer() {
        let mut node = member(recovered(&[4]));
        let out = receive(&mut node, 0, 2, append(3, position(1, 3), Vec::new(), 0));
        let told = sent(&out)[0].term();
        assert_eq!((told, node.leader()), (Term(4), None));
    }

    #[test]
    fn a_second_leader_in_one_term_is_not_believed() {
        let mut node = member(recovered(&[1]));
        receive(&mut node, 0, 2, append(1, position(1, 1), Vec::new(), 0));
        assert_eq!(receive(&mut node, 0, 3, append(1, position(1, 1), entries(2, &[1]), 0)), []);
        assert_eq!(node.leader(), Some(MemberId(2)));
    }
}
