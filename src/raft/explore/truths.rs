//! What must be true: of every step of a member, and of every state of the cluster. One named function each.
//!
//! The core is judged by what it did and by what is on its disk, and is never asked. Of the past, a state keeps what
//! cannot be read from the members any more: what was committed, and who led.

use super::member::{Event, Letter, Member};
use super::terms::Terms;
use super::world::MEMBERS_COUNT;
use crate::ids::MemberId;
use crate::raft::{AppendReply, AppendResult, Message, Output, Position, RoleName, VoteReply};

/// What is broken, in a sentence.
pub(super) type Broken = String;

fn hold(truth: bool, sentence: &str) -> Result<(), Broken> {
    if truth { Ok(()) } else { Err(sentence.to_owned()) }
}

/// Judges one step of one member.
pub(super) fn of_step(
    before: &Member,
    after: &Member,
    event: Event,
    letter: Option<&Letter>,
    out: &[Output],
) -> Result<(), Broken> {
    for output in out {
        if let Output::Send { to, message } = output {
            nothing_leaves_before_it_is_durable(after, *to, message)?;
        }
    }
    what_is_durable_stays(before, after)?;
    if let Event::Crash { .. } = event {
        return Ok(());
    }
    term_and_commit_only_grow(before, after)?;
    a_vote_is_given_once_in_a_term(before, after)?;
    a_leader_only_appends(before, after)?;
    what_is_committed_is_never_cut(before, after)?;
    if let Some(letter) = letter {
        a_vote_goes_to_a_log_at_least_as_long(before, after, letter)?;
        what_is_old_changes_nothing(before, after, &letter.message)?;
    }
    Ok(())
}

fn nothing_leaves_before_it_is_durable(
    after: &Member,
    to: MemberId,
    message: &Message,
) -> Result<(), Broken> {
    let disk = after.disk.hard_state;
    let is_term_durable = disk.term >= message.term() || matches!(message, Message::PreVoteRequest(_));
    hold(is_term_durable, "a term is durable before it is told")?;
    match message {
        Message::VoteRequest(request) => hold(
            disk.term == request.term && disk.vote == Some(after.node.id),
            "a candidate's vote for itself is durable before it asks for others",
        ),
        Message::VoteReply(VoteReply { is_granted: true, term }) => {
            hold(disk.term == *term && disk.vote == Some(to), "a vote is durable before it is told")
        }
        Message::AppendReply(AppendReply { result: AppendResult::Matched { upto }, .. }) => hold(
            after.log().upto(upto.0).is_prefix_of(after.durable_log())
                && upto.0 <= after.durable_log().last_index(),
            "an entry is durable before it is acknowledged",
        ),
        _ => Ok(()),
    }
}

fn what_is_durable_stays(before: &Member, after: &Member) -> Result<(), Broken> {
    let (old, new) = (before.disk.hard_state, after.disk.hard_state);
    hold(new.term >= old.term, "a durable term only grows")?;
    hold(new.commit >= old.commit, "a durable commit index only grows")?;
    let is_kept = new.term > old.term || old.vote.is_none() || new.vote == old.vote;
    hold(is_kept, "a durable vote stays for its term")
}

fn term_and_commit_only_grow(before: &Member, after: &Member) -> Result<(), Broken> {
    let (old, new) = (before.node.hard_state(), after.node.hard_state());
    hold(new.term >= old.term && new.commit >= old.commit, "term and commit only grow")
}

fn a_vote_is_given_once_in_a_term(before: &Member, after: &Member) -> Result<(), Broken> {
    let (old, new) = (before.node.hard_state(), after.node.hard_state());
    let is_kept = new.term > old.term || old.vote.is_none() || new.vote == old.vote;
    hold(is_kept, "a vote is given once in a term")
}

fn a_leader_only_appends(before: &Member, after: &Member) -> Result<(), Broken> {
    let is_leader = before.node.role() == RoleName::Leader
        && before.node.hard_state().term == after.node.hard_state().term;
    hold(!is_leader || before.log().is_prefix_of(after.log()), "a leader only appends to its log")
}

fn what_is_committed_is_never_cut(before: &Member, after: &Member) -> Result<(), Broken> {
    let committed = before.log().upto(before.node.commit().0);
    hold(committed.is_prefix_of(after.log()), "what a member knows to be committed stays in its log")
}

fn a_vote_goes_to_a_log_at_least_as_long(
    before: &Member,
    after: &Member,
    letter: &Letter,
) -> Result<(), Broken> {
    let Message::VoteRequest(request) = &letter.message else {
        return Ok(());
    };
    let (old, new) = (before.node.hard_state(), after.node.hard_state());
    let is_new = new.vote == Some(letter.from) && (old.vote, old.term) != (new.vote, new.term);
    let own = before.log().last();
    let is_long = (request.last.term, request.last.index) >= (own.term, own.index);
    hold(!is_new || is_long, "a vote goes to a log at least as long as the voter's")
}

fn what_is_old_changes_nothing(before: &Member, after: &Member, message: &Message) -> Result<(), Broken> {
    let own = before.node.hard_state();
    let is_old = match message {
        Message::PreVoteRequest(_) => true,
        Message::PreVoteReply(reply) if reply.is_granted => reply.asked <= own.term,
        message => message.term() < own.term,
    };
    hold(!is_old || after.node.hard_state() == own, "an old message and a pre-vote change nothing durable")
}

/// What of a member the truths of the cluster look at, gathered once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Face {
    pub(super) log: Terms,
    pub(super) durable_log: Terms,
    pub(super) commit: u64,
    pub(super) term: u64,
    pub(super) durable_term: u64,
    pub(super) role: RoleName,
    pub(super) has_leader: bool,
    pub(super) is_handing_over: bool,
    pub(super) is_writing: bool,
}

impl Face {
    pub(super) fn of(member: &Member) -> Self {
        Self {
            log: member.log(),
            durable_log: member.durable_log(),
            commit: member.node.commit().0,
            term: member.node.hard_state().term.0,
            durable_term: member.disk.hard_state.term.0,
            role: member.node.role(),
            has_leader: member.node.leader().is_some(),
            is_handing_over: member.is_handing_over(),
            is_writing: member.writing.is_some(),
        }
    }
}

/// What was, as far as the truths need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Past {
    /// All that was ever committed.
    pub(super) committed: Terms,
    /// For each such entry the term in which it first was.
    pub(super) committed_in: Terms,
    /// Who led each term; 0 for nobody.
    pub(super) leaders: Terms,
    /// The end of what was committed when each read was asked.
    pub(super) read_floors: [u8; 2],
    pub(super) reads_count: u8,
    pub(super) crashes_count: u8,
    pub(super) ticks_count: u8,
}

impl Past {
    /// Notes a new leader, of a term that had none.
    pub(super) fn elected(&mut self, at: usize, noop: Position, face: &Face) -> Result<(), Broken> {
        let term = noop.term.0;
        hold(self.leaders.at(term) == 0, "a term has one leader")?;
        self.leaders = self.leaders.with(term, at as u64 + 1);
        for index in 1..=self.committed.last_index() {
            // A leader of an older term that wakes up late need not hold it.
            let is_owed = self.committed_in.at(index) < term;
            let is_held = face.log.at(index) == self.committed.at(index);
            hold(!is_owed || is_held, "a leader holds all that was committed before its term")?;
        }
        Ok(())
    }

    /// Notes what a member takes for committed.
    pub(super) fn committed_by(&mut self, face: &Face, faces: &[Face]) -> Result<(), Broken> {
        for index in self.committed.last_index() + 1..=face.commit {
            let term = face.log.at(index);
            self.committed = self.committed.with(index, term);
            self.committed_in = self.committed_in.with(index, face.term);
            let holders = faces.iter().filter(|other| other.durable_log.at(index) == term);
            let is_held = 2 * holders.count() > MEMBERS_COUNT;
            hold(is_held, "what is committed is on the disks of a majority")?;
        }
        Ok(())
    }

    /// Notes a read that was asked.
    pub(super) fn asked(&mut self) {
        let floor = u8::try_from(self.committed.last_index()).expect("a small log");
        self.read_floors[usize::from(self.reads_count)] = floor;
        self.reads_count += 1;
    }

    /// Judges the answer to a read.
    pub(super) fn answered(&self, request: u64, index: u64) -> Result<(), Broken> {
        let floor = usize::try_from(request - 1).ok().and_then(|at| self.read_floors.get(at));
        let is_late_enough = floor.is_some_and(|floor| index >= u64::from(*floor));
        hold(is_late_enough, "a read sees all that was committed before it was asked")
    }
}

/// Judges one state of the cluster.
pub(super) fn of_state(past: &Past, faces: &[Face; MEMBERS_COUNT]) -> Result<(), Broken> {
    what_is_committed_never_changes(past, faces)?;
    what_is_committed_stays_on_a_majority_of_disks(past, faces)?;
    nobody_wins_after_a_power_cut_without_what_is_committed(past, faces)?;
    logs_match(faces)
}

fn what_is_committed_never_changes(past: &Past, faces: &[Face]) -> Result<(), Broken> {
    let agrees = |face: &Face| face.log.upto(face.commit) == past.committed.upto(face.commit);
    hold(faces.iter().all(agrees), "what is committed never changes, and is the same everywhere")
}

fn what_is_committed_stays_on_a_majority_of_disks(past: &Past, faces: &[Face]) -> Result<(), Broken> {
    let holders = faces.iter().filter(|face| past.committed.is_prefix_of(face.durable_log));
    let is_held = 2 * holders.count() > MEMBERS_COUNT;
    hold(is_held, "what is committed stays on the disks of a majority")
}

/// If all lost their power now, no election could make a leader that lacks a committed entry. It says the same as
/// leader completeness, and says it before the election.
fn nobody_wins_after_a_power_cut_without_what_is_committed(
    past: &Past,
    faces: &[Face],
) -> Result<(), Broken> {
    let is_safe = |candidate: &Face| {
        let votes = faces.iter().filter(|voter| candidate.durable_log.may_succeed(voter.durable_log));
        past.committed.is_prefix_of(candidate.durable_log) || 2 * votes.count() < MEMBERS_COUNT
    };
    hold(faces.iter().all(is_safe), "after a power cut nobody can be elected who lacks what is committed")
}

fn logs_match(faces: &[Face; MEMBERS_COUNT]) -> Result<(), Broken> {
    let [one, two, three] = faces;
    let logs = [one.log, two.log, three.log, one.durable_log, two.durable_log, three.durable_log];
    for (at, log) in logs.iter().enumerate() {
        let is_matching = logs[at + 1..].iter().all(|other| log.match_where_they_meet(*other));
        hold(is_matching, "logs that hold the same entry are equal up to it")?;
    }
    Ok(())
}
