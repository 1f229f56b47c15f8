//! What all came to: are all members equal in the end, and was everything that the clients saw possible?
//!
//! What always holds: every member is read by itself, whole, and what it says is judged like any other answer; both judges
//! of `mainstay::check` look at all of it. A cluster that held something before the run is judged by the search alone,
//! because the other judge begins with an empty store. What it leaves out: histories of other runs (`judge-history`).

use super::recorder::Recorder;
use super::{NemesisError, PATIENCE, now, witness};
use bytes::Bytes;
use mainstay::api::{ReadMode, Request, Response};
use mainstay::check::{Answer, Call, Operation, Verdict, Violation, check_by_search, judge};
use mainstay::cli::cluster::{LocalCluster, LocalMember};
use mainstay::cli::workload::client;
use mainstay::client::Connection;
use mainstay::ids::{KeyspaceId, Revision};
use mainstay::kv::{Applied, KeyRange, KeyValue, Outcome, Query, Range};
use std::time::Duration;

/// Pairs read with one request.
const PAGE_PAIRS: u64 = 1_000;

/// Between two looks at members that are not equal yet.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Steps of the search, where it has no advice from the other judge.
const STEPS_MAX: u64 = 20_000_000;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    /// Writes that were acknowledged, and reads that were answered.
    pub(super) acked: u64,
    pub(super) reads: u64,
    /// Operations without an answer, and writes refused with certainty.
    pub(super) unknown: u64,
    pub(super) not_done: u64,
    /// Sets of keys that the search came to no end with.
    pub(super) undecided: u64,
    /// What is impossible in it.
    pub(super) violation: Option<Box<Violation>>,
}

impl Judgement {
    /// Counts a history, and has the search alone judge it.
    pub(super) fn by_search(history: &[Operation]) -> Self {
        let mut judgement = Self::counted(history);
        match check_by_search(history, &[], STEPS_MAX) {
            Verdict::Linearizable(_) => {}
            Verdict::Undecided(searched) => judgement.undecided = searched.undecided,
            Verdict::Impossible(searched, violation) => {
                judgement.undecided = searched.undecided;
                judgement.violation = Some(violation);
            }
        }
        judgement
    }

    /// Whether an order was found that explains everything.
    pub(super) const fn is_possible(&self) -> bool {
        self.violation.is_none() && self.undecided == 0
    }

    /// The verdict in a word.
    pub(super) const fn word(&self) -> &'static str {
        match (&self.violation, self.undecided) {
            (Some(_), _) => "impossible",
            (None, 0) if self.acked + self.reads == 0 => "empty",
            (None, 0) => "linearizable",
            (None, _) => "undecided",
        }
    }

    fn counted(history: &[Operation]) -> Self {
        let mut judgement = Self::default();
        for operation in history {
            match (&operation.call, &operation.answer) {
                (Call::Write { .. }, Answer::Applied(_)) => judgement.acked += 1,
                (Call::Read { .. }, Answer::Applied(_)) => judgement.reads += 1,
                (_, Answer::NotDone) => judgement.not_done += 1,
                (_, Answer::Unknown) => judgement.unknown += 1,
            }
        }
        judgement
    }
}

/// Reads every member whole and judges everything on the record. `was_empty`: when the run began.
pub(super) fn pass(
    cluster: &LocalCluster,
    recorder: &Recorder,
    was_empty: bool,
) -> Result<Judgement, NemesisError> {
    let end = compare_members(cluster, recorder)?;
    let history = recorder.history();
    if !was_empty {
        return Ok(Judgement::by_search(&history));
    }
    let mut judgement = Judgement::counted(&history);
    let order = witness::order(&history, end, &mut client(&cluster.endpoints(), PATIENCE))?;
    match judge(&history, &order) {
        Ok(judged) => judgement.undecided = judged.search.undecided,
        Err(violation) => judgement.violation = Some(violation),
    }
    Ok(judgement)
}

/// Reads all members once they have come to one revision, which is returned.
fn compare_members(cluster: &LocalCluster, recorder: &Recorder) -> Result<Revision, NemesisError> {
    let revision = common_revision(cluster)?;
    let mut contents = Vec::new();
    for (member, number) in cluster.members.iter().zip(0..) {
        contents.push(contents_of(member, number, revision, recorder)?);
    }
    match contents.iter().position(|other| *other != contents[0]) {
        Some(other) => {
            let names = [0, other].map(|at| cluster.members[at].name.clone());
            Err(NemesisError::Unequal { names, revision })
        }
        None => Ok(revision),
    }
}

fn common_revision(cluster: &LocalCluster) -> Result<Revision, NemesisError> {
    let until = now() + PATIENCE;
    loop {
        let revisions: Vec<_> = cluster.members.iter().map(revision_of).collect();
        if let Some(Some(revision)) = revisions.first()
            && revisions.iter().all(|other| *other == Some(*revision))
        {
            return Ok(*revision);
        }
        if now() >= until {
            return Err(NemesisError::Apart { revisions });
        }
        // Nobody unparks this thread: it only lets some time pass.
        std::thread::park_timeout(LOOK_EVERY);
    }
}

fn revision_of(member: &LocalMember) -> Option<Revision> {
    member.status().filter(|status| status.applied_index == status.commit_index).map(|status| status.revision)
}

/// All that this member holds, as it says itself; `number` is its number among the clients on the record.
fn contents_of(
    member: &LocalMember,
    number: u32,
    revision: Revision,
    recorder: &Recorder,
) -> Result<Vec<KeyValue>, NemesisError> {
    let unread = |why: String| NemesisError::MemberUnread { name: member.name.clone(), why };
    let mut connection = Connection::open(&member.native.to_string(), None, PATIENCE)
        .map_err(|trouble| unread(trouble.to_string()))?;
    let mut contents: Vec<KeyValue> = Vec::new();
    let mut start = Bytes::new();
    loop {
        let range = Range { limit: PAGE_PAIRS, ..Range::new(KeyRange::From(start.clone())) };
        let query = Query::Range(range);
        let op = recorder.invoke(number, Call::Read { query: query.clone(), is_linearizable: false });
        let request = Request::Read { keyspace: KeyspaceId::FIRST, query, mode: ReadMode::Serializable };
        let response = connection.call(&request, PATIENCE).map_err(|trouble| unread(trouble.to_string()))?;
        let Response::Applied(Applied { revision: told, outcome: Outcome::Range(page) }) = &response else {
            return Err(unread(format!("it answered {response:?}")));
        };
        if *told != revision {
            return Err(unread(format!("it is at {told} now, though nobody writes")));
        }
        contents.extend(page.pairs.iter().cloned());
        let more = page.more;
        let Response::Applied(applied) = response else { continue };
        recorder.end(op, Answer::Applied(applied));
        match contents.last() {
            // The smallest key behind the last one.
            Some(last) if more => start = [last.key.as_ref(), &[0]].concat().into(),
            Some(_) | None => return Ok(contents),
        }
    }
}
