//! Random but repeatable values of everything a client can say or hear, for the tests of this room.

use crate::api::{
    Counter, EncodedCommand, MemberView, Otherwise, ReadMode, Refusal, Request, Response, Role,
    SnapshotAnswer, SnapshotRequest, Stage, Stamp, Status, WatchAnswer, WatchRequest,
};
use crate::auth::AuthRefusal;
use crate::ids::{ClusterId, KeyspaceId, LeaseId, LogIndex, MemberId, Revision, SessionId, Term, WatchId};
use crate::kv::{
    Applied, Command, Compact, Compare, CompareOperator, CompareTarget, DeleteRange, DeleteRangeResult,
    Event, Filter, Grant, KeyRange, KeyValue, LeaseCommand, LeaseLife, LeaseOutcome, Operation,
    OperationResult, Outcome, Put, PutResult, Query, Range, RangeResult, Remaining, Renewed, Revoke, Sort,
    SortBy, SortOrder, SpaceAlarm, StoreRefusal, TimeToLive, Txn, TxnResult,
};
use crate::limits::SNAPSHOT_PIECE_BYTES;
use crate::watch::{Batch, Ending, Interest, WatchSpec};
use bytes::Bytes;

/// A source of numbers that a seed determines (`SplitMix64`).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() % u64::try_from(bound).unwrap()).unwrap()
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.number().to_le_bytes()[0]
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    pub(super) fn bytes(&mut self, length_max: usize) -> Bytes {
        let length = self.below(length_max + 1);
        (0..length).map(|_| self.byte()).collect::<Vec<u8>>().into()
    }

    fn list<T>(&mut self, item: fn(&mut Self) -> T) -> Vec<T> {
        (0..self.below(4)).map(|_| item(self)).collect()
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// Every refusal there is.
pub(super) const REFUSALS: [Refusal; 36] = [
    Refusal::NotLeader { leader: None },
    Refusal::NotLeader { leader: Some(MemberId(3)) },
    Refusal::NoQuorum,
    Refusal::NotReady,
    Refusal::Overloaded,
    Refusal::Malformed,
    Refusal::NoSuchKeyspace,
    Refusal::TooManySessions,
    Refusal::SessionUnknown,
    Refusal::SequenceForgotten,
    Refusal::SequenceBeyondWindow,
    Refusal::LeaderChanged,
    Refusal::ForwardLost,
    Refusal::AnswerTooLong,
    Refusal::WrongCluster,
    Refusal::NoCommonVersion,
    Refusal::NoSuchWatch,
    Refusal::NoSuchSnapshot,
    Refusal::TooOld,
    Refusal::NotUpgraded,
    Refusal::Users(AuthRefusal::RootUserMissing),
    Refusal::Users(AuthRefusal::RootRoleMissing),
    Refusal::Users(AuthRefusal::UserNameEmpty),
    Refusal::Users(AuthRefusal::UserExists),
    Refusal::Users(AuthRefusal::UserNotFound),
    Refusal::Users(AuthRefusal::RoleNameEmpty),
    Refusal::Users(AuthRefusal::RoleExists),
    Refusal::Users(AuthRefusal::RoleNotFound),
    Refusal::Users(AuthRefusal::RoleNotGranted),
    Refusal::Users(AuthRefusal::PermissionNotGranted),
    Refusal::Users(AuthRefusal::RootMustStay),
    Refusal::Users(AuthRefusal::NotEnabled),
    Refusal::Users(AuthRefusal::OldRevision),
    Refusal::Users(AuthRefusal::Denied),
    Refusal::Users(AuthRefusal::OutOfBounds),
    Refusal::Users(AuthRefusal::TooMany),
];

const STORE_REFUSALS: [StoreRefusal; 16] = [
    StoreRefusal::KeyMissing,
    StoreRefusal::Compacted,
    StoreRefusal::FutureRevision,
    StoreRefusal::TooManyOperations,
    StoreRefusal::DuplicateKey,
    StoreRefusal::LeaseNotFound,
    StoreRefusal::OutOfBounds,
    StoreRefusal::WriteInQuery,
    StoreRefusal::KeyNotFound,
    StoreRefusal::ValueProvided,
    StoreRefusal::LeaseProvided,
    StoreRefusal::LeaseExists,
    StoreRefusal::TtlOutOfBounds,
    StoreRefusal::TooManyLeases,
    StoreRefusal::NoSpace,
    StoreRefusal::CostsTooMuch,
];

pub(super) fn request(random: &mut Random) -> Request {
    let keyspace = KeyspaceId(u32::from(random.byte()));
    match random.below(12) {
        11 => Request::Snapshot { keyspace, request: snapshot_request(random) },
        7 => Request::Watch(watch_request(random)),
        9 => Request::KeepAlive { keyspace, lease: LeaseId(random.number()) },
        10 => Request::TimeToLive { keyspace, lease: LeaseId(random.number()), wants_keys: random.flag() },
        0 => Request::OpenSession { keyspace },
        1 => Request::CloseSession { keyspace, session: SessionId(random.number()) },
        2..=4 => Request::Write {
            keyspace,
            stamp: random.flag().then(|| Stamp {
                session: SessionId(random.number()),
                sequence: random.number(),
                low_water: random.number(),
            }),
            command: EncodedCommand::encode(&command(random)).unwrap(),
        },
        5 | 6 => Request::Read { keyspace, query: query(random), mode: read_mode(random) },
        _ => Request::Status,
    }
}

fn snapshot_request(random: &mut Random) -> SnapshotRequest {
    if random.flag() {
        return SnapshotRequest::Cut;
    }
    SnapshotRequest::Read {
        index: LogIndex(random.number()),
        term: Term(random.number()),
        offset: random.number(),
        bytes_count: u32::try_from(random.below(SNAPSHOT_PIECE_BYTES + 1)).unwrap(),
    }
}

fn snapshot_answer(random: &mut Random) -> SnapshotAnswer {
    if random.flag() {
        return SnapshotAnswer::Piece(random.bytes(40));
    }
    SnapshotAnswer::Cut {
        index: LogIndex(random.number()),
        term: Term(random.number()),
        bytes_count: random.number(),
        hash: random.number(),
    }
}

fn watch_request(random: &mut Random) -> WatchRequest {
    let watch = WatchId(random.number());
    match random.below(4) {
        0 => WatchRequest::Cancel { watch },
        1 => WatchRequest::Progress { watch },
        _ => WatchRequest::Create {
            keyspace: KeyspaceId(u32::from(random.byte())),
            spec: WatchSpec {
                interest: Interest {
                    range: key_range(random),
                    skips_puts: random.flag(),
                    skips_deletions: random.flag(),
                    wants_previous: random.flag(),
                },
                start: Revision(random.number()),
                wants_progress: random.flag(),
            },
        },
    }
}

fn watch_answer(random: &mut Random) -> WatchAnswer {
    let revision = Revision(random.number());
    match random.below(7) {
        0 => WatchAnswer::Created { revision },
        1 => WatchAnswer::Cancelled,
        2 => WatchAnswer::Reached { revision },
        3 if revision == Revision(0) => WatchAnswer::Ended { why: Ending::NotPermitted },
        3 => WatchAnswer::Ended { why: Ending::Compacted(revision) },
        _ => WatchAnswer::Told(batch(random)),
    }
}

pub(super) fn batch(random: &mut Random) -> Batch {
    Batch { revision: Revision(random.number()), is_partial: random.flag(), events: random.list(event) }
}

fn event(random: &mut Random) -> Event {
    let is_deletion = random.flag();
    let mut pair = pair(random);
    if is_deletion {
        let (key, mod_revision) = (pair.key, pair.mod_revision);
        let (value, create_revision) = (Bytes::new(), Revision(0));
        pair = KeyValue { key, value, create_revision, mod_revision, version: 0, lease: LeaseId(0) };
    }
    let previous = random.flag().then(|| self::pair(random));
    Event { pair, is_deletion, previous }
}

fn space_alarm(random: &mut Random) -> SpaceAlarm {
    SpaceAlarm { by_hand: random.flag().then(|| random.number()), is_raised: random.flag() }
}

pub(super) fn command(random: &mut Random) -> Command {
    match random.below(10) {
        9 => Command::SpaceAlarm(space_alarm(random)),
        7 | 8 => Command::Lease(lease_command(random)),
        0 | 1 => Command::Put(put(random)),
        2 | 3 => Command::DeleteRange(delete_range(random)),
        4 => Command::Compact(Compact { revision: Revision(random.number()) }),
        _ => Command::Txn(txn_of(random, operation)),
    }
}

fn lease_command(random: &mut Random) -> LeaseCommand {
    match random.below(5) {
        0 => LeaseCommand::Grant(grant(random)),
        1 => LeaseCommand::Revoke(Revoke { lease: LeaseId(random.number()) }),
        2 => LeaseCommand::Expire(lease_life(random)),
        3 => LeaseCommand::Checkpoint(
            random.list(|random| Remaining { life: lease_life(random), remaining_ms: random.number() }),
        ),
        _ => LeaseCommand::Renew(lease_life(random)),
    }
}

fn grant(random: &mut Random) -> Grant {
    Grant { lease: LeaseId(random.number()), ttl_ms: random.number() }
}

fn lease_life(random: &mut Random) -> LeaseLife {
    LeaseLife { lease: LeaseId(random.number()), grant: random.number() }
}

fn read_mode(random: &mut Random) -> ReadMode {
    let otherwise = random.one_of(&[Otherwise::Refuse, Otherwise::AskLeader]);
    random.one_of(&[
        ReadMode::Linearizable,
        ReadMode::Serializable,
        ReadMode::MaxAge { max_age_ms: 1_500, otherwise },
        ReadMode::MinRevision { revision: Revision(8), otherwise },
    ])
}

fn query(random: &mut Random) -> Query {
    match random.below(5) {
        0 => Query::Leases,
        1 | 2 => Query::Range(range(random)),
        _ => Query::Txn(txn_of(random, reading)),
    }
}

fn txn_of(random: &mut Random, operation: fn(&mut Random) -> Operation) -> Txn {
    Txn { compares: random.list(compare), success: random.list(operation), failure: random.list(operation) }
}

fn reading(random: &mut Random) -> Operation {
    match random.below(8) {
        0 => Operation::Txn(txn_of(random, reading)),
        _ => Operation::Range(range(random)),
    }
}

fn put(random: &mut Random) -> Put {
    Put {
        key: random.bytes(12),
        value: random.bytes(40),
        lease: LeaseId(random.number()),
        wants_previous: random.flag(),
        keeps_value: random.below(4) == 0,
        keeps_lease: random.below(4) == 0,
    }
}

fn delete_range(random: &mut Random) -> DeleteRange {
    DeleteRange { range: key_range(random), wants_previous: random.flag() }
}

fn range(random: &mut Random) -> Range {
    Range {
        range: key_range(random),
        limit: random.number(),
        revision: Revision(random.number()),
        sort: random.flag().then(|| sort(random)),
        filter: Filter {
            mod_min: bound(random),
            mod_max: bound(random),
            create_min: bound(random),
            create_max: bound(random),
        },
        keys_only: random.flag(),
        count_only: random.flag(),
        part_bytes_max: None,
    }
}

fn sort(random: &mut Random) -> Sort {
    let by = [SortBy::Key, SortBy::Version, SortBy::Create, SortBy::Mod, SortBy::Value];
    Sort { by: random.one_of(&by), order: random.one_of(&[SortOrder::Ascending, SortOrder::Descending]) }
}

/// Mostly none, so that many a range is without any option.
fn bound(random: &mut Random) -> Revision {
    Revision(if random.below(6) == 0 { random.number() } else { 0 })
}

fn key_range(random: &mut Random) -> KeyRange {
    match random.below(3) {
        0 => KeyRange::Key(random.bytes(12)),
        1 => KeyRange::Span { start: random.bytes(12), end: random.bytes(12) },
        _ => KeyRange::From(random.bytes(12)),
    }
}

fn operation(random: &mut Random) -> Operation {
    match random.below(7) {
        0 | 1 => Operation::Put(put(random)),
        2 | 3 => Operation::DeleteRange(delete_range(random)),
        4 => Operation::Txn(txn_of(random, operation)),
        _ => Operation::Range(range(random)),
    }
}

fn compare(random: &mut Random) -> Compare {
    Compare {
        range: key_range(random),
        operator: random.one_of(&[
            CompareOperator::Equal,
            CompareOperator::NotEqual,
            CompareOperator::Greater,
            CompareOperator::Less,
        ]),
        target: match random.below(5) {
            0 => CompareTarget::Version(random.number()),
            1 => CompareTarget::Create(Revision(random.number())),
            2 => CompareTarget::Mod(Revision(random.number())),
            3 => CompareTarget::Value(random.bytes(20)),
            _ => CompareTarget::Lease(LeaseId(random.number())),
        },
    }
}

pub(super) fn response(random: &mut Random) -> Response {
    match random.below(12) {
        11 => Response::Aged {
            age_micros: random.flag().then(|| random.number() / 2),
            applied: Applied { revision: Revision(random.number()), outcome: outcome(random) },
        },
        10 => Response::Snapshot(snapshot_answer(random)),
        0 => Response::SessionOpened { session: SessionId(random.number()) },
        1 => Response::SessionClosed,
        2..=5 => Response::Applied(Applied { revision: Revision(random.number()), outcome: outcome(random) }),
        6 => Response::Status(Box::new(status(random))),
        7 | 8 => Response::Watch(watch_answer(random)),
        _ => Response::Refused(random.one_of(&REFUSALS)),
    }
}

fn status(random: &mut Random) -> Status {
    Status {
        member: MemberId(random.number()),
        role: random.one_of(&[Role::Follower, Role::Candidate, Role::Leader]),
        term: Term(random.number()),
        leader: random.flag().then(|| MemberId(random.number() | 1)),
        last_index: LogIndex(random.number()),
        commit_index: LogIndex(random.number()),
        applied_index: LogIndex(random.number()),
        revision: Revision(random.number()),
        waiting_for: random.one_of(&["", "member 3 to answer", "größere Mehrheit"]).to_owned(),
        cluster: ClusterId(random.number()),
        version: random.one_of(&["", "0.1.0"]).to_owned(),
        sync_p50_micros: random.number(),
        sync_p99_micros: random.number(),
        members: (0..random.below(4)).map(|_| member_view(random)).collect(),
        stages: (0..random.below(3)).map(|_| stage(random)).collect(),
        counters: (0..random.below(3)).map(|_| counter(random)).collect(),
    }
}

fn stage(random: &mut Random) -> Stage {
    Stage {
        name: random.one_of(&["", "queue", "log"]).to_owned(),
        count: random.number(),
        p50_micros: random.number(),
        p99_micros: random.number(),
        max_micros: random.number(),
    }
}

fn counter(random: &mut Random) -> Counter {
    Counter { name: random.one_of(&["", "turns"]).to_owned(), value: random.number() }
}

fn member_view(random: &mut Random) -> MemberView {
    MemberView {
        id: MemberId(random.number()),
        name: random.one_of(&["", "n1", "größer"]).to_owned(),
        native: random.one_of(&["", "127.0.0.1:2378"]).to_owned(),
        client: random.one_of(&["", "127.0.0.1:2379"]).to_owned(),
        peer: random.one_of(&["", "[::1]:2380"]).to_owned(),
        is_reachable: random.flag(),
    }
}

fn outcome(random: &mut Random) -> Outcome {
    match random.below(9) {
        8 => Outcome::SpaceAlarm(space_alarm(random)),
        6 | 7 => Outcome::Lease(lease_outcome(random)),
        0 => Outcome::Put(put_result(random)),
        1 => Outcome::DeleteRange(delete_range_result(random)),
        2 => Outcome::Range(range_result(random)),
        3 => Outcome::Refused(random.one_of(&STORE_REFUSALS)),
        4 => Outcome::Compacted,
        _ => Outcome::Txn(txn_result(random)),
    }
}

fn lease_outcome(random: &mut Random) -> LeaseOutcome {
    match random.below(6) {
        0 => LeaseOutcome::Granted(grant(random)),
        1 => LeaseOutcome::Revoked,
        2 => LeaseOutcome::Checkpointed,
        3 => LeaseOutcome::Renewed(Renewed { ttl_ms: random.number() }),
        4 => LeaseOutcome::Listed(random.list(|random| LeaseId(random.number()))),
        _ => LeaseOutcome::TimeToLive(random.flag().then(|| TimeToLive {
            ttl_ms: random.number(),
            remaining_ms: random.number(),
            keys: random.list(|random| random.bytes(12)),
        })),
    }
}

fn txn_result(random: &mut Random) -> TxnResult {
    TxnResult {
        succeeded: random.flag(),
        results: random.list(|random| match random.below(7) {
            0 | 1 => OperationResult::Put(put_result(random)),
            2 | 3 => OperationResult::DeleteRange(delete_range_result(random)),
            4 => OperationResult::Txn(txn_result(random)),
            _ => OperationResult::Range(range_result(random)),
        }),
    }
}

fn put_result(random: &mut Random) -> PutResult {
    PutResult { previous: random.flag().then(|| pair(random)) }
}

fn delete_range_result(random: &mut Random) -> DeleteRangeResult {
    DeleteRangeResult { deleted: random.number(), previous: random.list(pair) }
}

fn range_result(random: &mut Random) -> RangeResult {
    RangeResult { pairs: random.list(pair), more: random.flag(), count: random.number() }
}

fn pair(random: &mut Random) -> KeyValue {
    KeyValue {
        key: random.bytes(12),
        value: random.bytes(40),
        create_revision: Revision(random.number()),
        mod_revision: Revision(random.number()),
        version: random.number(),
        lease: LeaseId(random.number()),
    }
}
