//! Reads: from what this member has applied, or at an index that a quorum or a lease confirmed (thesis 6.4).
//!
//! Always: the linearizable reads of a turn share one confirmation round that begins after they arrived, and a round
//! serves no read that came later; such a read is answered only from state that has applied the confirmed index. Reads that
//! are content with what is applied join the same queue, so that all share the time of a turn. The same code serves on
//! leader and follower: raft knows whom to ask. Left out: whether what is applied is young enough (`freshness`).

use super::Output;
use super::apply::Asker;
use super::freshness::Freshness;
use super::group::Replica;
use super::input::Asked;
use super::leases::LeaseQuestion;
use super::read_times::{ReadPath, ReadTimes};
use crate::api::{Refusal, Response, response_bytes_expected};
use crate::auth::{AuthQuery, Who};
use crate::ids::{BootMicros, LogIndex, Revision, StreamId};
use crate::kv::{Applied, Query};
use crate::raft::{NotLeader, ReadRefused, RoleName};
use crate::watch::{Place, WatchSpec};
use crate::{planted, sometimes};
use std::collections::{BTreeMap, VecDeque};

/// One read.
#[derive(Debug)]
struct Read {
    asker: Asker,
    who: Who,
    question: Question,
}

/// A read that may be answered once its index is applied.
#[derive(Debug)]
struct ReadyRead {
    read: Read,
    path: ReadPath,
    came: BootMicros,
}

/// What a read is about.
#[derive(Debug)]
pub(super) enum Question {
    /// The store, as any member has it that has applied the confirmed index.
    Store(Query),
    /// The store as of this revision or later, and how old it may be is told, too.
    Aged {
        /// What.
        query: Query,
        /// As of when.
        revision: Revision,
        /// How old, in microseconds, when the read came; none if that is not known.
        age_micros: Option<u64>,
    },
    /// The time of a lease, which only the confirmed leader knows.
    Lease(LeaseQuestion),
    /// A snapshot that holds whatever was committed when it was asked for.
    Save,
    /// Who may do what.
    Users(AuthQuery),
    /// A watch from now on: it must not begin before whatever was committed when it was asked for.
    Watch(Place, WatchSpec),
}

impl Question {
    /// The same, to be answered as a linearizable read: that lacks nothing that was committed when it came.
    pub(super) fn asked_of_the_leader(mut self) -> Self {
        if let Self::Aged { age_micros, .. } = &mut self {
            *age_micros = Some(0);
        }
        self
    }
}

/// All reads of one replica that wait for something.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Came in this turn.
    turn: Vec<Read>,
    /// Wait for raft to confirm their request, and when that began.
    confirming: BTreeMap<u64, (BootMicros, Vec<Read>)>,
    /// Wait for this index to be applied: a confirmed one, or what was applied when they came.
    ready: BTreeMap<LogIndex, VecDeque<ReadyRead>>,
    /// All of the above.
    count: usize,
    /// How old what is applied here may be.
    pub(super) freshness: Freshness,
    /// How long what the turn answers took.
    pub(super) times: ReadTimes,
    /// Watches among them, how many of each name.
    watches: BTreeMap<Place, usize>,
}

impl Read {
    /// How it is answered, if a read that sets no bound would be answered by `path`.
    const fn path(&self, path: ReadPath) -> ReadPath {
        match self.question {
            // Those by age have revision 0 for a bound, which any store has; so has a read of revision 0 or later.
            Question::Aged { revision: Revision(0), .. } => ReadPath::MaxAge,
            Question::Aged { .. } => ReadPath::MinRevision,
            Question::Store(_)
            | Question::Lease(_)
            | Question::Save
            | Question::Users(_)
            | Question::Watch(..) => path,
        }
    }
}

impl Reads {
    /// How many reads wait for anything.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// Whether nobody is being asked.
    pub(super) fn is_none_confirming(&self) -> bool {
        self.confirming.is_empty()
    }

    /// A watch waits no more.
    fn forget_watch(&mut self, place: Place) {
        if let Some(count) = self.watches.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.watches.remove(&place);
            }
        }
    }

    /// The read of the lowest index.
    fn take_ready(&mut self) -> Option<ReadyRead> {
        let mut entry = self.ready.first_entry()?;
        let read = entry.get_mut().pop_front();
        if entry.get().is_empty() {
            entry.remove();
        }
        self.count -= usize::from(read.is_some());
        read
    }
}

impl Replica {
    /// Takes in a linearizable read; it joins the round that this turn begins.
    pub(super) fn gather_read(&mut self, asked: Asked, query: Query, outputs: &mut Vec<Output>) {
        self.gather_for(asked, Question::Store(query), outputs);
    }

    /// Takes in a watch from now on; it begins when a read would be answered.
    pub(super) fn gather_watch(
        &mut self,
        asked: Asked,
        place: Place,
        spec: WatchSpec,
        outputs: &mut Vec<Output>,
    ) {
        self.gather_for(asked, Question::Watch(place, spec), outputs);
    }

    /// Takes in a client's wish for a snapshot; it is told to whoever cuts them when a read would be answered.
    pub(super) fn gather_save(&mut self, asked: Asked, outputs: &mut Vec<Output>) {
        self.gather_for(asked, Question::Save, outputs);
    }

    /// Takes in a client's question, to be answered as a linearizable read.
    pub(super) fn gather_for(&mut self, (ticket, who): Asked, question: Question, outputs: &mut Vec<Output>) {
        self.gather(Read { asker: Asker::Client(ticket), who, question }, outputs);
    }

    /// Takes in a question about the time of a lease; it joins the same round. Only for a leader.
    pub(super) fn gather_question(
        &mut self,
        now: BootMicros,
        asker: Asker,
        question: LeaseQuestion,
        outputs: &mut Vec<Output>,
    ) {
        // Catalogue 34: it is answered by whoever takes itself for the leader.
        if planted!(34) {
            self.answer_question(now, asker, question, outputs);
            return;
        }
        self.gather(Read { asker, who: question.who, question: Question::Lease(question) }, outputs);
    }

    fn gather(&mut self, read: Read, outputs: &mut Vec<Output>) {
        if !self.has_room_for(read.asker, outputs) {
            return;
        }
        if let Question::Watch(place, _) = &read.question {
            *self.reads.watches.entry(*place).or_default() += 1;
        }
        self.reads.turn.push(read);
    }

    /// Counts one more read, or refuses whoever asks: too many wait.
    fn has_room_for(&mut self, asker: Asker, outputs: &mut Vec<Output>) -> bool {
        let has_room = self.reads.count < self.setup.reads_max();
        if has_room {
            self.reads.count += 1;
        } else {
            sometimes!(TooManyReadsWait);
            self.answer(asker, Response::Refused(Refusal::Overloaded), outputs);
        }
        has_room
    }

    /// Asks raft for one confirmation for all reads of the turn.
    pub(super) fn begin_reads(&mut self, now: BootMicros, outputs: &mut Vec<Output>) {
        let is_probe_due = self.is_probe_due();
        if self.reads.turn.is_empty() && !is_probe_due {
            return;
        }
        let reads = std::mem::take(&mut self.reads.turn);
        match self.node.read(now) {
            Ok(request) => {
                let none = self.reads.confirming.insert(request, (now, reads));
                assert!(none.is_none(), "a read request's number is never used twice");
            }
            Err(ReadRefused::NotLeader(NotLeader { leader })) => {
                self.refuse_reads(reads, Refusal::NotLeader { leader }, outputs);
            }
            Err(ReadRefused::TooMany) => self.refuse_reads(reads, Refusal::Overloaded, outputs),
        }
    }

    /// Raft has confirmed: these reads may be answered once `index` is applied.
    pub(super) fn read_ready(&mut self, now: BootMicros, request: u64, index: LogIndex) {
        if let Some((asked_at, reads)) = self.reads.confirming.remove(&request) {
            // Planted 151: as if the state were as young as the answer.
            let as_of = if planted!(151) { now } else { asked_at };
            self.reads.freshness.confirmed(as_of, index, self.applied);
            if index > self.applied {
                sometimes!(ReadWaitedForApply);
            }
            let path = self.path_of_confirmed(asked_at == now);
            let ready =
                reads.into_iter().map(|read| ReadyRead { path: read.path(path), came: asked_at, read });
            // They are served after apply, later in this turn: what time the turn has is for what is committed first.
            self.reads.ready.entry(index).or_default().extend(ready);
        }
    }

    /// How reads of this member were confirmed: in the turn in which they came, or later.
    fn path_of_confirmed(&self, is_at_once: bool) -> ReadPath {
        match self.node.role() {
            RoleName::Leader if is_at_once && self.node.leases_micros() > 0 => ReadPath::Lease,
            RoleName::Leader => ReadPath::Quorum,
            RoleName::Follower | RoleName::Candidate | RoleName::PreCandidate => ReadPath::Follower,
        }
    }

    /// Nobody can confirm: nothing was done.
    pub(super) fn read_failed(&mut self, request: u64, outputs: &mut Vec<Output>) {
        if let Some((_, reads)) = self.reads.confirming.remove(&request) {
            sometimes!(ReadRoundFailed);
            self.refuse_reads(reads, Refusal::NoQuorum, outputs);
        }
    }

    /// Answers the reads whose index is applied, as many as this turn has time for, and one in any case: so that
    /// neither what is to be applied nor reads wait for ever on the other.
    pub(super) fn serve_ready_reads(&mut self, now: BootMicros, outputs: &mut Vec<Output>) {
        let mut is_first = true;
        while self.has_reads_to_serve() {
            if !std::mem::take(&mut is_first) && !self.has_time_left() {
                sometimes!(TurnHadNoTimeForAll);
                break;
            }
            let Some(ReadyRead { read, path, came }) = self.reads.take_ready() else {
                break;
            };
            match read.question {
                Question::Store(query) => {
                    self.reads.times.answered(path, came, now);
                    let response = self.applied_or_refused(read.who, &query, Response::Applied);
                    self.answer_at_length(read.asker, response, outputs);
                }
                Question::Aged { query, revision, age_micros } if revision <= self.store.revision() => {
                    self.reads.times.answered(path, came, now);
                    let aged = |applied| Response::Aged { age_micros, applied };
                    let response = self.applied_or_refused(read.who, &query, aged);
                    self.answer_at_length(read.asker, response, outputs);
                }
                Question::Aged { .. } => self.refuse_as_too_old(read.asker, outputs),
                Question::Lease(question) => self.answer_question(now, read.asker, question, outputs),
                Question::Save => match self.auth.may_administer(read.who) {
                    Ok(()) => self.save(now, read.asker, outputs),
                    Err(refusal) => self.answer(read.asker, Response::Refused(refusal.into()), outputs),
                },
                Question::Users(query) => {
                    let response = self.answer_about_users(read.who, &query);
                    self.answer(read.asker, response, outputs);
                }
                Question::Watch(place, spec) => {
                    self.reads.forget_watch(place);
                    self.create_watch(read.asker, read.who, (place, &spec), outputs);
                }
            }
        }
    }

    fn applied_or_refused(
        &self,
        who: Who,
        query: &Query,
        answer: impl FnOnce(Applied) -> Response,
    ) -> Response {
        match self.may_read(who, query) {
            Ok(()) => answer(self.store.query(query)),
            Err(refusal) => Response::Refused(refusal.into()),
        }
    }

    fn answer_at_length(&mut self, asker: Asker, response: Response, outputs: &mut Vec<Output>) {
        self.turn_answer_bytes += response_bytes_expected(&response);
        self.answer(asker, response, outputs);
    }

    /// Whether reads that can be answered were left for the next turn.
    pub(super) fn has_reads_to_serve(&self) -> bool {
        self.reads.ready.first_key_value().is_some_and(|(index, _)| *index <= self.applied)
    }

    /// Takes in a read of whatever this member has applied.
    pub(super) fn gather_here(
        &mut self,
        now: BootMicros,
        (ticket, who): Asked,
        question: Question,
        outputs: &mut Vec<Output>,
    ) {
        if !self.has_room_for(Asker::Client(ticket), outputs) {
            return;
        }
        let read = Read { asker: Asker::Client(ticket), who, question };
        let ready = ReadyRead { path: read.path(ReadPath::Serializable), came: now, read };
        self.reads.ready.entry(self.applied).or_default().push_back(ready);
    }

    /// The watches of a connection that is no more are not created: nobody is there to be told of them.
    pub(super) fn forget_reads_for(&mut self, stream: StreamId, outputs: &mut Vec<Output>) {
        self.forget_watches(|place| place.stream == stream, outputs);
    }

    /// Watches that are called off before they are created are not created.
    pub(super) fn forget_watches(&mut self, is_meant: impl Fn(&Place) -> bool, outputs: &mut Vec<Output>) {
        // Looked for only where it is known to be: these may be many, and so may be those who call off nothing.
        if !self.reads.watches.keys().any(&is_meant) {
            return;
        }
        let is_for_it = |read: &Read| matches!(&read.question, Question::Watch(place, _) if is_meant(place));
        let Reads { turn, confirming, ready, .. } = &mut self.reads;
        let lists = confirming.values_mut().map(|(_, reads)| reads).chain(core::iter::once(turn));
        let mut forgotten: Vec<Read> =
            lists.flat_map(|reads| reads.extract_if(.., |read| is_for_it(read))).collect();
        for reads in ready.values_mut() {
            let (gone, kept) = reads.drain(..).partition(|ready| is_for_it(&ready.read));
            *reads = kept;
            let gone: VecDeque<ReadyRead> = gone;
            forgotten.extend(gone.into_iter().map(|ready| ready.read));
        }
        ready.retain(|_, reads| !reads.is_empty());
        self.refuse_reads(forgotten, Refusal::NoQuorum, outputs);
    }

    /// Nobody is answered here any more.
    pub(super) fn refuse_all_reads(&mut self, refusal: Refusal, outputs: &mut Vec<Output>) {
        let Reads { turn, confirming, ready, .. } = std::mem::take(&mut self.reads);
        let confirming = confirming.into_values().flat_map(|(_, reads)| reads);
        let ready = ready.into_values().flatten().map(|ready| ready.read);
        for read in confirming.chain(ready).chain(turn) {
            self.answer(read.asker, Response::Refused(refusal), outputs);
        }
    }

    fn refuse_reads(&mut self, reads: Vec<Read>, refusal: Refusal, outputs: &mut Vec<Output>) {
        for read in reads {
            self.reads.count -= 1;
            if let Question::Watch(place, _) = &read.question {
                self.reads.forget_watch(*place);
            }
            self.answer(read.asker, Response::Refused(refusal), outputs);
        }
    }
}
