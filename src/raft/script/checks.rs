//! What must hold in every script after every step, whatever the script is about (RELIABILITY §2).
//!
//! The checks look at what members say and at durable images, and remember the history of the whole run, so a
//! violation that heals itself is still seen. Each returns the truth that was broken.

use std::collections::BTreeMap;

use super::cluster::Member;
use super::disk::Disk;
use super::notation::show_position;
use crate::ids::{LogIndex, MemberId, Term};
use crate::raft::{AppendResult, Message, Node, Position, RoleName, SnapshotName};

/// What the run has shown so far.
#[derive(Default)]
pub(super) struct History {
    leaders: BTreeMap<Term, MemberId>,
    votes: BTreeMap<(MemberId, Term), MemberId>,
    /// Whether a disk lost entries it had acknowledged, so that copies can no longer be counted.
    has_rot: bool,
    /// How long each leader's log was in its term.
    ends: BTreeMap<(MemberId, Term), LogIndex>,
    /// What was committed when each read began.
    reads: BTreeMap<(MemberId, u64), LogIndex>,
    /// Terms of the committed entries, from index 1 on.
    committed: Vec<Term>,
    /// Highest term and commit index each member has shown, in this boot.
    shown: BTreeMap<MemberId, (Term, LogIndex)>,
}

impl History {
    /// The highest committed index of the run.
    pub(super) fn commit(&self) -> LogIndex {
        LogIndex(self.committed.len() as u64)
    }

    /// A read begins: whatever is committed by now, it must see.
    pub(super) fn read_began(&mut self, id: MemberId, read: u64, committed: LogIndex) {
        self.reads.insert((id, read), committed);
    }

    /// A read may be answered at `index`. One that nobody announced began in this very step.
    pub(super) fn check_read(&self, id: MemberId, read: u64, index: LogIndex) -> Result<(), String> {
        let floor = self.reads.get(&(id, read)).copied().unwrap_or_else(|| self.commit());
        if index < floor {
            return Err(format!("a read that began after {floor} was committed is answered at {index}"));
        }
        Ok(())
    }

    /// A disk has lost what its member had acknowledged.
    pub(super) fn rotted(&mut self) {
        self.has_rot = true;
    }

    /// A crashed member may come back with an older commit index, and numbers reads anew; its term may not go back.
    pub(super) fn crashed(&mut self, id: MemberId, disk: &Disk) {
        self.shown.insert(id, (disk.hard_state.term, LogIndex(0)));
        self.reads.retain(|(member, _), _| *member != id);
    }

    /// Checks the whole cluster after a step.
    pub(super) fn check(&mut self, members: &BTreeMap<MemberId, Member>) -> Result<(), String> {
        let running = || members.iter().filter_map(|(id, member)| Some((*id, member.node.as_ref()?)));
        for (id, node) in running() {
            node.assert_invariants();
            self.one_leader_a_term(id, node)?;
            self.term_and_commit_only_grow(id, node)?;
            self.committed_entries_never_change(id, node, members)?;
        }
        for (left, node) in running() {
            for (right, other) in running().filter(|(right, _)| left < *right) {
                logs_match(node, other).map_err(|index| {
                    format!("logs of {} and {} agree at {index} but differ below", left.0, right.0)
                })?;
            }
        }
        self.committed_means_durable_on_a_majority(members)
    }

    fn one_leader_a_term(&mut self, id: MemberId, node: &Node) -> Result<(), String> {
        if node.role() != RoleName::Leader {
            return Ok(());
        }
        let term = node.hard_state().term;
        let is_new = !self.leaders.contains_key(&term);
        let leader = *self.leaders.entry(term).or_insert(id);
        if leader != id {
            return Err(format!("term {term} has two leaders, {} and {}", leader.0, id.0));
        }
        let end = self.ends.entry((id, term)).or_default();
        if node.last().index < *end {
            return Err(format!("the leader of term {term} shortens its log"));
        }
        *end = node.last().index;
        let commit = self.commit();
        if is_new && commit > LogIndex(0) {
            let above = |(index, _): &(u64, &Term)| *index >= node.base().index.0;
            for (index, committed) in (1..).zip(&self.committed).filter(above) {
                if node.term_at(LogIndex(index)) != Some(*committed) {
                    return Err(format!("the leader of term {term} lacks the committed {index}@{committed}"));
                }
            }
        }
        Ok(())
    }

    fn term_and_commit_only_grow(&mut self, id: MemberId, node: &Node) -> Result<(), String> {
        let now = (node.hard_state().term, node.commit());
        let before = self.shown.insert(id, now).unwrap_or_default();
        if now.0 < before.0 {
            return Err(format!("the term of {} goes back from {} to {}", id.0, before.0, now.0));
        }
        if now.1 < before.1 {
            return Err(format!("the commit index of {} goes back from {} to {}", id.0, before.1, now.1));
        }
        if now.1 > node.last().index {
            return Err(format!("the commit index of {} passes the end of its log", id.0));
        }
        Ok(())
    }

    fn committed_entries_never_change(
        &mut self,
        id: MemberId,
        node: &Node,
        members: &BTreeMap<MemberId, Member>,
    ) -> Result<(), String> {
        for index in node.base().index.0.max(1)..=node.commit().0 {
            let index = LogIndex(index);
            let Some(term) = node.term_at(index) else {
                return Err(format!("{} committed {index}, which its log does not hold", id.0));
            };
            match self.committed_term(index) {
                Some(committed) if committed != term => {
                    return Err(format!(
                        "{} committed {index}@{term}, but {index}@{committed} was committed before",
                        id.0
                    ));
                }
                Some(_) => {}
                None => {
                    let position = Position { index, term };
                    self.is_durable_on_a_majority(position, members).map_err(|count| {
                        format!("{} committed {}; {count}", id.0, show_position(position))
                    })?;
                    self.committed.push(term);
                }
            }
        }
        Ok(())
    }

    fn committed_term(&self, index: LogIndex) -> Option<Term> {
        let place = usize::try_from(index.0).ok()?.checked_sub(1)?;
        self.committed.get(place).copied()
    }

    fn committed_means_durable_on_a_majority(
        &self,
        members: &BTreeMap<MemberId, Member>,
    ) -> Result<(), String> {
        for (index, term) in (1..).zip(&self.committed) {
            let position = Position { index: LogIndex(index), term: *term };
            self.is_durable_on_a_majority(position, members)
                .map_err(|count| format!("{} was committed; {count}", show_position(position)))?;
        }
        Ok(())
    }

    fn is_durable_on_a_majority(
        &self,
        position: Position,
        members: &BTreeMap<MemberId, Member>,
    ) -> Result<(), String> {
        let count = members.values().filter(|member| member.disk.holds(position)).count();
        if self.has_rot || count > members.len() / 2 {
            Ok(())
        } else {
            Err(format!("durable on {count} of {} disks", members.len()))
        }
    }

    /// Nothing leaves before what it depends on is durable; nobody votes twice in a term.
    pub(super) fn check_send(
        &mut self,
        from: MemberId,
        to: MemberId,
        sender: (&Node, &Disk, Option<(SnapshotName, u64)>),
        message: &Message,
    ) -> Result<(), String> {
        let (node, disk, incoming) = sender;
        let durable_term = disk.hard_state.term;
        let (claim, is_durable) = match message {
            Message::VoteRequest(m) => ("a candidate's own vote", disk.has_voted(m.term, from)),
            Message::VoteReply(m) if m.is_granted => {
                let voted = *self.votes.entry((from, m.term)).or_insert(to);
                if voted != to {
                    return Err(format!("{} voted for {} and {} in term {}", from.0, voted.0, to.0, m.term));
                }
                ("a vote", disk.has_voted(m.term, to))
            }
            Message::AppendReply(m) => match m.result {
                AppendResult::Matched { upto } => {
                    let is_same = disk.term_at(upto).is_some() && disk.term_at(upto) == node.term_at(upto)
                        || upto < node.base().index && upto <= disk.base.index;
                    ("an acknowledgement", m.term <= durable_term && is_same)
                }
                AppendResult::Conflict { .. } => ("the term of a reply", m.term <= durable_term),
            },
            Message::AppendRequest(m) => ("a leader's term", m.term <= durable_term),
            Message::TimeoutNow(m) => ("a leader's term", m.term <= durable_term),
            Message::VoteReply(m) => ("the term of a reply", m.term <= durable_term),
            Message::PreVoteRequest(_)
            | Message::PreVoteReply(_)
            | Message::ReadIndexRequest(_)
            | Message::ReadIndexReply(_)
            | Message::FillRequest(_)
            | Message::FillReply(_)
            | Message::SnapshotChunk(_) => return Ok(()),
            Message::SnapshotReply(m) => {
                let has = |(snapshot, bytes)| snapshot == m.snapshot && bytes >= m.upto;
                let is_stored = incoming.is_some_and(has) || m.upto == 0;
                ("an acknowledged chunk", m.term <= durable_term && is_stored)
            }
        };
        if is_durable { Ok(()) } else { Err(format!("{claim} leaves {} before it is durable", from.0)) }
    }
}

/// Where both logs hold the same entry, they are equal below it (Raft §5.3). Gives the index if not.
fn logs_match(left: &Node, right: &Node) -> Result<(), LogIndex> {
    let end = left.last().index.min(right.last().index);
    let mut agree_at = None;
    let start = left.base().index.max(right.base().index).0;
    for index in (start..=end.0).rev().map(LogIndex) {
        let is_same = left.term_at(index) == right.term_at(index);
        match agree_at {
            Some(above) if !is_same => return Err(above),
            None if is_same => agree_at = Some(index),
            Some(_) | None => {}
        }
    }
    Ok(())
}
