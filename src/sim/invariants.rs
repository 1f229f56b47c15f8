//! What must be true after every event, one named function each (RELIABILITY §2).
//!
//! `Truth` is what the simulator knows and no member does: who led which term, the committed log, the state after each
//! index. Each check looks only at what the event touched, so a run costs what its events cost.
//!
//! | | |
//! |---|---|
//! | election safety | `one_leader_a_term` |
//! | leader append-only | `a_leader_only_appends` |
//! | log matching | `equal_positions_mean_equal_logs` |
//! | leader completeness | `a_leader_holds_what_is_committed` |
//! | state machine safety | `equal_logs_make_equal_states` |
//! | commitment | `committed_means_durable_on_a_majority`, `what_is_committed_never_changes`, `a_leader_commits_only_in_its_own_term` |
//! | snapshots | `what_is_trimmed_is_in_a_snapshot`, `equal_states_make_equal_snapshots`, `an_installed_snapshot_takes_nothing_committed_away`, `a_snapshot_comes_in_order`; `what_is_freed_is_in_a_snapshot` is in `durable` |
//! | growth | `terms_commits_and_applies_only_grow`, `applied_is_committed_is_in_the_log` |
//! | durability | `nothing_leaves_before_it_is_durable`, `an_ack_names_what_the_leader_holds`, `one_vote_a_term`, `a_vote_answers_a_request` |
//! | frames | `what_is_carried_is_the_log`; `replication_sessions_never_mix` is in `carried` |
//! | bounds | `every_queue_is_within_its_bound` |
//! | service | `a_leader_with_a_dead_disk_steps_down`, `a_leader_without_a_majority_steps_down`; the rest is in `liveness` |
//! | clients | `a_write_is_answered_after_its_commit`, `a_bare_write_told_not_done_is_not_done`, `a_session_is_told_after_its_commit`, `a_read_sees_the_commit_floor`; `what_is_served_was_written` is in `served`; `an_answer_is_as_young_as_asked`, `an_answer_is_no_older_than_it_says`, `a_session_is_told_closed_after_its_commit`, `replies_answer_requests` are in `answered` |
//! | the disk | `durable_terms_and_votes_only_grow`, `durable_commits_only_grow`, `runs_join_the_durable_log` are in `durable`; `recovery_finds_what_is_durable` in `faults` |
//!
//! Always: a broken invariant is returned as a value, with its name; nothing here panics.

use super::carried::Sessions;
use super::durable::{DurableEntry, DurableImage};
use super::random::fingerprint;
use super::witness::Witness;
use crate::ids::{LogIndex, MemberId, Revision, Term};
use crate::raft::{AppendResult, Message, Position, RoleName};
use crate::replica::Observation;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// A truth that turned out not to be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// The invariant's name.
    pub(super) invariant: &'static str,
    /// What was found instead.
    pub(super) explanation: String,
}

/// Says that `fact` holds, or which invariant it breaks and how.
///
/// # Errors
/// If it does not hold.
pub(super) fn holds(
    fact: bool,
    invariant: &'static str,
    explain: impl FnOnce() -> String,
) -> Result<(), Broken> {
    if fact {
        return Ok(());
    }
    Err(Broken { invariant, explanation: explain() })
}

/// What the simulator knows of the whole cluster.
#[derive(Debug, Default)]
pub(super) struct Truth {
    leaders: BTreeMap<Term, MemberId>,
    /// Whom each member voted for in each term, as far as the votes left it.
    votes: BTreeMap<(Term, MemberId), MemberId>,
    /// Who asked for votes, in which term.
    campaigns: BTreeSet<(Term, MemberId)>,
    /// For every position that ever was durable anywhere: the record's fingerprint and the term before it.
    positions: BTreeMap<(LogIndex, Term), (u64, Term)>,
    /// The committed log, from index 1: each entry's term and fingerprint, and the term in which it was committed.
    committed: Vec<(Term, u64, Term)>,
    /// The state's hash after each index, from index 1; 0 where nobody stopped yet.
    states: Vec<u64>,
    /// The fingerprint of each snapshot that ever counted.
    snapshots: BTreeMap<(LogIndex, Term), u64>,
    newest_revision: Revision,
    /// The sessions in which leaders replicate.
    pub(super) sessions: Sessions,
    /// The committed writes, as the checker needs them.
    pub(super) witness: Witness,
}

/// A member as an invariant sees it after a turn.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    /// Who.
    pub(super) member: MemberId,
    /// As it was after its turn before, in the same boot.
    pub(super) before: Option<&'a Observation>,
    /// As it is.
    pub(super) after: &'a Observation,
    /// The encoded record at an index of its log.
    pub(super) record: &'a dyn Fn(LogIndex) -> Option<Bytes>,
}

impl Truth {
    /// The newest revision that any member has applied.
    pub(super) const fn newest_revision(&self) -> Revision {
        self.newest_revision
    }

    /// How far the log is committed, as far as any member has said.
    pub(super) const fn committed_count(&self) -> u64 {
        self.committed.len() as u64
    }

    /// How many terms had a leader.
    pub(super) fn leaders_count(&self) -> usize {
        self.leaders.len()
    }

    /// Checks a member after its turn, against itself before, and against everybody.
    ///
    /// # Errors
    /// The first invariant found broken.
    pub(super) fn check_turn(&mut self, seen: Seen<'_>, images: &[&DurableImage]) -> Result<(), Broken> {
        terms_commits_and_applies_only_grow(seen)?;
        applied_is_committed_is_in_the_log(seen)?;
        self.what_is_trimmed_is_in_a_snapshot(seen)?;
        every_queue_is_within_its_bound(seen)?;
        a_leader_only_appends(seen)?;
        if seen.after.role == RoleName::Leader {
            self.one_leader_a_term(seen)?;
        }
        self.advance_commit(seen, images)?;
        self.equal_logs_make_equal_states(seen)?;
        self.only_a_leader_with_a_commit_counts_leases(seen)?;
        self.newest_revision = self.newest_revision.max(seen.after.revision);
        Ok(())
    }

    /// A log that begins anew above a snapshot goes on to hold what it held above, if that is the committed log's.
    ///
    /// # Errors
    /// If a committed entry was taken away.
    pub(super) fn an_installed_snapshot_takes_nothing_committed_away(
        &self,
        member: MemberId,
        taken: &[(LogIndex, u64)],
    ) -> Result<(), Broken> {
        let is_committed = |(index, print): &&(LogIndex, u64)| {
            let at = usize::try_from(index.0 - 1).unwrap_or(usize::MAX);
            self.committed.get(at).is_some_and(|(_, committed, _)| committed == print)
        };
        let lost = taken.iter().find(is_committed);
        holds(lost.is_none(), "an_installed_snapshot_takes_nothing_committed_away", || {
            format!("{member} held the committed entry {lost:?}, and no longer does")
        })
    }

    fn one_leader_a_term(&mut self, seen: Seen<'_>) -> Result<(), Broken> {
        let term = seen.after.hard_state.term;
        let leader = *self.leaders.entry(term).or_insert(seen.member);
        holds(leader == seen.member, "one_leader_a_term", || {
            format!("{} leads term {term}, which {leader} led", seen.member)
        })?;
        let is_new = seen
            .before
            .is_none_or(|before| before.role != RoleName::Leader || before.hard_state.term != term);
        if is_new { self.a_leader_holds_what_is_committed(seen) } else { Ok(()) }
    }

    /// Of what was committed in earlier terms; in a later term much may be committed before a leader of this one
    /// hears of it. By log matching it is enough to look at the last such entry.
    fn a_leader_holds_what_is_committed(&self, seen: Seen<'_>) -> Result<(), Broken> {
        let own = seen.after.hard_state.term;
        let count = self.committed.partition_point(|(_, _, committed_in)| *committed_in < own);
        let Some((term, print, _)) = count.checked_sub(1).and_then(|at| self.committed.get(at)) else {
            return Ok(());
        };
        let index = LogIndex(count as u64);
        if index <= seen.after.base.index {
            return Ok(());
        }
        let found = (seen.record)(index).map(|record| fingerprint(&record));
        holds(found == Some(*print), "a_leader_holds_what_is_committed", || {
            format!(
                "{} leads term {own} with a log to {}, without the committed entry {index} of term {term}",
                seen.member, seen.after.last.index
            )
        })
    }

    fn advance_commit(&mut self, seen: Seen<'_>, images: &[&DurableImage]) -> Result<(), Broken> {
        let from = seen.before.map_or(LogIndex(0), |before| before.commit);
        let mut index = from;
        while index < seen.after.commit {
            index = index.next();
            if index <= seen.after.base.index && index.0 <= self.committed_count() {
                continue;
            }
            let Some(record) = (seen.record)(index) else {
                return holds(false, "what_is_committed_is_held", || {
                    format!("{} does not hold entry {index}, which it calls committed", seen.member)
                });
            };
            let print = fingerprint(&record);
            match usize::try_from(index.0 - 1).ok().and_then(|at| self.committed.get(at)) {
                Some(known) => what_is_committed_never_changes(seen.member, index, *known, print)?,
                None => self.commit(seen, index, &record, print, images)?,
            }
        }
        Ok(())
    }

    fn commit(
        &mut self,
        seen: Seen<'_>,
        index: LogIndex,
        record: &Bytes,
        print: u64,
        images: &[&DurableImage],
    ) -> Result<(), Broken> {
        let term = self.witness.commit(index, record)?;
        committed_means_durable_on_a_majority(index, print, images)?;
        let is_last = index == seen.after.commit;
        let leads = seen.after.role == RoleName::Leader;
        holds(
            !(is_last && leads) || term == seen.after.hard_state.term,
            "a_leader_commits_only_in_its_own_term",
            || {
                let own = seen.after.hard_state.term;
                format!("{} of term {own} committed entry {index} of term {term} by counting", seen.member)
            },
        )?;
        let newest = self.committed.last().map_or(Term(0), |(_, _, committed_in)| *committed_in);
        self.committed.push((term, print, newest.max(seen.after.hard_state.term)));
        Ok(())
    }

    /// A leader that counts knows of everything that was acknowledged, because an entry of its own term is committed
    /// (catalogue 34 and 56).
    fn only_a_leader_with_a_commit_counts_leases(&self, seen: Seen<'_>) -> Result<(), Broken> {
        let own = seen.after.hard_state.term;
        let at = seen.after.applied.0.checked_sub(1).and_then(|at| usize::try_from(at).ok());
        let applied = at.and_then(|at| self.committed.get(at)).map_or(Term(0), |(term, ..)| *term);
        let may_count = seen.after.role == RoleName::Leader && applied == own;
        holds(may_count || !seen.after.counts_leases, "only_a_leader_with_a_commit_counts_leases", || {
            format!(
                "{} counts leases as {:?} of term {own}, with {applied} applied",
                seen.member, seen.after.role
            )
        })
    }

    /// What is trimmed is in a snapshot, of what is committed; and the log begins with what is committed.
    fn what_is_trimmed_is_in_a_snapshot(&self, seen: Seen<'_>) -> Result<(), Broken> {
        const NAME: &str = "what_is_trimmed_is_in_a_snapshot";
        let (base, snapshot) = (seen.after.base, seen.after.snapshot);
        let is_ordered = base.index <= snapshot.index && snapshot.index <= seen.after.commit;
        holds(is_ordered, NAME, || {
            format!(
                "{} trimmed its log up to {}, its newest snapshot is of {}, and committed is {}",
                seen.member, base.index, snapshot.index, seen.after.commit
            )
        })?;
        let at = base.index.0.checked_sub(1).and_then(|at| usize::try_from(at).ok());
        let committed = at.map(|at| self.committed.get(at).map(|(term, ..)| *term));
        holds(committed.is_none_or(|term| term == Some(base.term)), NAME, || {
            format!("{} has a log above {base:?}, where {committed:?} is committed", seen.member)
        })
    }

    /// A snapshot counts at a member.
    ///
    /// # Errors
    /// If another of the same entry has other bytes.
    pub(super) fn equal_states_make_equal_snapshots(
        &mut self,
        member: MemberId,
        position: Position,
        print: u64,
    ) -> Result<(), Broken> {
        let known = *self.snapshots.entry((position.index, position.term)).or_insert(print);
        holds(known == print, "equal_states_make_equal_snapshots", || {
            format!("{member} has a snapshot of {position:?} with other bytes than an earlier one")
        })
    }

    fn equal_logs_make_equal_states(&mut self, seen: Seen<'_>) -> Result<(), Broken> {
        let applied = seen.after.applied;
        let Some(at) = applied.0.checked_sub(1).and_then(|at| usize::try_from(at).ok()) else {
            return Ok(());
        };
        if self.states.len() <= at {
            self.states.resize(at + 1, 0);
        }
        let known = &mut self.states[at];
        if *known == 0 {
            *known = seen.after.state_hash;
        }
        holds(*known == seen.after.state_hash, "equal_logs_make_equal_states", || {
            format!("{} has another state than an earlier member after entry {applied}", seen.member)
        })
    }

    /// A run of entries is durable on some disk.
    ///
    /// # Errors
    /// If the same position stood for another log before.
    pub(super) fn equal_positions_mean_equal_logs(
        &mut self,
        mut before: Term,
        first: LogIndex,
        entries: &[(Term, u64)],
    ) -> Result<(), Broken> {
        let mut index = first;
        for (term, print) in entries {
            let known = *self.positions.entry((index, *term)).or_insert((*print, before));
            holds(known == (*print, before), "equal_positions_mean_equal_logs", || {
                format!("entry {index} of term {term} stands for two different logs")
            })?;
            before = *term;
            index = index.next();
        }
        Ok(())
    }

    /// Entries leave a member, with their records: what stands at a position is the same on every wire and every disk.
    ///
    /// # Errors
    /// If a position stood for another log before.
    pub(super) fn what_is_carried_is_the_log(
        &mut self,
        message: &Message,
        records: &[Bytes],
    ) -> Result<(), Broken> {
        let (previous, entries) = message.carried();
        let carried: Vec<(Term, u64)> =
            entries.iter().zip(records).map(|(entry, record)| (entry.term, fingerprint(record))).collect();
        self.equal_positions_mean_equal_logs(previous.term, previous.index.next(), &carried)
    }

    /// A vote is durable at `voter`.
    ///
    /// # Errors
    /// If it is for somebody else who never asked for it.
    pub(super) fn a_vote_answers_a_request(
        &self,
        voter: MemberId,
        term: Term,
        vote: Option<MemberId>,
    ) -> Result<(), Broken> {
        let was_asked = |vote| vote == voter || self.campaigns.contains(&(term, vote));
        holds(vote.is_none_or(was_asked), "a_vote_answers_a_request", || {
            format!(
                "{voter} has a durable vote for {vote:?} in term {term}, in which that member did not campaign"
            )
        })
    }

    /// Checks a consensus message as it leaves `from` for `to`, against what is durable at `from`.
    ///
    /// # Errors
    /// If it says more than is durable.
    pub(super) fn nothing_leaves_before_it_is_durable(
        &mut self,
        from: MemberId,
        to: MemberId,
        message: &Message,
        image: &DurableImage,
    ) -> Result<(), Broken> {
        const NAME: &str = "nothing_leaves_before_it_is_durable";
        let term_is_durable = |term: Term, what: &str| {
            holds(term <= image.term(), NAME, || {
                format!("{what} of term {term} left {from}, where term {} is durable", image.term())
            })
        };
        match message {
            Message::VoteRequest(request) => {
                term_is_durable(request.term, "a vote request")?;
                self.campaigns.insert((request.term, from));
                holds(image.holds_vote(request.term, from), NAME, || {
                    format!("{from} campaigns in term {} without a durable vote for itself", request.term)
                })
            }
            Message::VoteReply(reply) if reply.is_granted => {
                term_is_durable(reply.term, "a vote")?;
                holds(image.holds_vote(reply.term, to), NAME, || {
                    format!("{from} votes for {to} in term {} before that is durable", reply.term)
                })?;
                let vote = *self.votes.entry((reply.term, from)).or_insert(to);
                holds(vote == to, "one_vote_a_term", || {
                    format!("{from} votes for {vote} and for {to} in term {}", reply.term)
                })
            }
            Message::AppendRequest(request) => term_is_durable(request.term, "an append"),
            Message::SnapshotChunk(chunk) => term_is_durable(chunk.term, "a chunk"),
            Message::SnapshotReply(reply) => term_is_durable(reply.term, "a chunk's reply"),
            Message::AppendReply(reply) => {
                term_is_durable(reply.term, "an append reply")?;
                let AppendResult::Matched { upto } = reply.result else {
                    return Ok(());
                };
                holds(upto <= image.contiguous(), NAME, || {
                    format!("{from} acknowledges up to {upto}; durable is {}", image.contiguous())
                })
            }
            Message::VoteReply(_)
            | Message::PreVoteRequest(_)
            | Message::PreVoteReply(_)
            | Message::TimeoutNow(_)
            | Message::ReadIndexRequest(_)
            | Message::ReadIndexReply(_)
            | Message::FillRequest(_)
            | Message::FillReply(_) => Ok(()),
        }
    }
}

fn terms_commits_and_applies_only_grow(seen: Seen<'_>) -> Result<(), Broken> {
    let Some(before) = seen.before else {
        return Ok(());
    };
    let grew = before.hard_state.term <= seen.after.hard_state.term
        && before.commit <= seen.after.commit
        && before.applied <= seen.after.applied
        && before.revision <= seen.after.revision;
    holds(grew, "terms_commits_and_applies_only_grow", || {
        format!("{} went back from {before:?} to {:?}", seen.member, seen.after)
    })?;
    let vote = before.hard_state.vote;
    let is_kept = before.hard_state.term != seen.after.hard_state.term || vote.is_none();
    holds(is_kept || vote == seen.after.hard_state.vote, "one_vote_a_term", || {
        format!("{} changed its vote within term {}", seen.member, before.hard_state.term)
    })
}

fn applied_is_committed_is_in_the_log(seen: Seen<'_>) -> Result<(), Broken> {
    let after = seen.after;
    let is_ordered = after.applied <= after.commit && after.commit <= after.last.index;
    holds(is_ordered, "applied_is_committed_is_in_the_log", || {
        format!(
            "{} applied {}, committed {}, and its log ends at {}",
            seen.member, after.applied, after.commit, after.last.index
        )
    })
}

fn every_queue_is_within_its_bound(seen: Seen<'_>) -> Result<(), Broken> {
    for (name, length, bound) in seen.after.queues {
        holds(length <= bound, "every_queue_is_within_its_bound", || {
            format!("{} has {length} {name}; {bound} are allowed", seen.member)
        })?;
    }
    Ok(())
}

fn a_leader_only_appends(seen: Seen<'_>) -> Result<(), Broken> {
    let Some(before) = seen.before else {
        return Ok(());
    };
    let still_leads = before.role == RoleName::Leader
        && seen.after.role == RoleName::Leader
        && before.hard_state.term == seen.after.hard_state.term;
    holds(!still_leads || before.last.index <= seen.after.last.index, "a_leader_only_appends", || {
        format!("{} cut its own log at {}", seen.member, seen.after.last.index)
    })
}

fn what_is_committed_never_changes(
    member: MemberId,
    index: LogIndex,
    known: (Term, u64, Term),
    print: u64,
) -> Result<(), Broken> {
    holds(known.1 == print, "what_is_committed_never_changes", || {
        format!("{member} calls another entry {index} committed than the one of term {}", known.0)
    })
}

fn committed_means_durable_on_a_majority(
    index: LogIndex,
    print: u64,
    images: &[&DurableImage],
) -> Result<(), Broken> {
    let holds_it = |image: &&&DurableImage| image.entry(index).is_some_and(|entry| entry.print == print);
    let count = images.iter().filter(holds_it).count();
    holds(count * 2 > images.len(), "committed_means_durable_on_a_majority", || {
        format!("entry {index} was called committed with {count} of {} disks holding it", images.len())
    })
}

/// An acknowledgement that reaches a leader's log: what the follower has there is what the leader has.
///
/// # Errors
/// If they differ.
pub(super) fn an_ack_names_what_the_leader_holds(
    from: MemberId,
    upto: LogIndex,
    durable: Option<DurableEntry>,
    leaders: Option<&Bytes>,
) -> Result<(), Broken> {
    let (Some(durable), Some(record)) = (durable, leaders) else {
        return Ok(());
    };
    holds(durable.print == fingerprint(record), "an_ack_names_what_the_leader_holds", || {
        format!("{from} acknowledges up to {upto}, but holds another entry there than the leader")
    })
}

/// A leader whose own disk does not answer, while a follower has gone on, gives up within half an election timeout;
/// here it has twice that.
///
/// # Errors
/// If it still leads.
pub(super) fn a_leader_with_a_dead_disk_steps_down(
    member: MemberId,
    after: &Observation,
    log_end: LogIndex,
    waited_micros: u64,
    election_micros: u64,
) -> Result<(), Broken> {
    let is_outrun = after.commit > log_end && waited_micros > election_micros;
    holds(after.role != RoleName::Leader || !is_outrun, "a_leader_with_a_dead_disk_steps_down", || {
        format!(
            "{member} leads though its disk has not answered for {waited_micros} µs and its followers' have"
        )
    })
}

/// A leader that has heard no majority for an election timeout gives up; here it has twice that (thesis 6.2).
///
/// # Errors
/// If it still leads.
pub(super) fn a_leader_without_a_majority_steps_down(
    member: MemberId,
    after: &Observation,
    unheard_micros: u64,
    election_micros: u64,
) -> Result<(), Broken> {
    let is_alone = unheard_micros > 2 * election_micros;
    holds(after.role != RoleName::Leader || !is_alone, "a_leader_without_a_majority_steps_down", || {
        format!("{member} leads though it has heard no majority for {unheard_micros} µs")
    })
}

/// A linearizable read sees whatever any member had applied when it arrived.
///
/// # Errors
/// If it is older.
pub(super) fn a_read_sees_the_commit_floor(
    member: MemberId,
    floor: Revision,
    answered: Revision,
) -> Result<(), Broken> {
    holds(answered >= floor, "a_read_sees_the_commit_floor", || {
        format!("{member} answered a read at revision {answered}; {floor} had been applied when it arrived")
    })
}
