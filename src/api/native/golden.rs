//! The frames in `golden/`, which people check their own codecs against. `UPDATE=1 cargo test golden` rewrites them.

use super::{
    ClientHello, Features, Frame, Receiver, ServerHello, decode_frame, encode_refusal_frame,
    encode_request_frame, encode_response_frame, kind,
};
use crate::api::{
    Counter, EncodedCommand, MemberView, Otherwise, ReadMode, Refusal, Request, Response, Role,
    SnapshotAnswer, SnapshotRequest, Stage, Stamp, Status, WatchAnswer, WatchRequest,
};
use crate::ids::{ClusterId, KeyspaceId, LeaseId, LogIndex, MemberId, Revision, SessionId, Term, WatchId};
use crate::kv::{
    Applied, Command, Compact, Compare, CompareOperator, CompareTarget, DeleteRange, DeleteRangeResult,
    Event, Filter, Grant, KeyRange, KeyValue, LeaseCommand, LeaseLife, LeaseOutcome, Operation,
    OperationResult, Outcome, Put, PutResult, Query, Range, RangeResult, Remaining, Renewed, Revoke, Sort,
    SortBy, SortOrder, SpaceAlarm, StoreRefusal, TimeToLive, Txn, TxnResult,
};
use crate::limits::{KEY_BYTES_MAX, REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX, TXN_OPERATIONS_MAX};
use crate::watch::{Batch, Ending, Interest, WatchSpec};
use bytes::{Bytes, BytesMut};
use std::path::{Path, PathBuf};
use std::{env, fs, process};

struct Golden {
    name: &'static str,
    says: &'static str,
    bytes: Bytes,
}

const KEYSPACE: KeyspaceId = KeyspaceId(0);

fn golden(name: &'static str, says: &'static str, bytes: Bytes) -> Golden {
    Golden { name, says, bytes }
}

fn all() -> Vec<Golden> {
    let mut all = hellos();
    all.extend(sessions_and_status());
    all.extend(writes_and_reads());
    all.extend(options_and_nesting());
    all.extend(answers_of_the_store());
    all.extend(leases());
    all.extend(space_alarm());
    all.extend(refusals());
    all.extend(watches());
    all.extend(snapshots());
    all
}

fn hellos() -> Vec<Golden> {
    let client = ClientHello {
        version_min: 1,
        version_max: 1,
        features: Features::STORE,
        cluster: Some(ClusterId(77)),
    };
    let limit = |limit: usize| u32::try_from(limit).unwrap();
    let server = ServerHello {
        version: 1,
        cluster: ClusterId(77),
        member: MemberId(2),
        features: Features::STORE,
        request_bytes_max: limit(REQUEST_BYTES_MAX),
        response_bytes_max: limit(RESPONSE_BYTES_MAX),
        key_bytes_max: limit(KEY_BYTES_MAX),
        txn_operations_max: limit(TXN_OPERATIONS_MAX),
        requests_in_flight_max: 256,
        sequence_window: 1_024,
    };
    vec![
        golden("client-hello", "A client speaks version 1 and insists on cluster 77.", client.encode_frame()),
        golden("server-hello", "Member 2 of cluster 77 chooses version 1.", server.encode_frame()),
    ]
}

fn sessions_and_status() -> Vec<Golden> {
    let session = SessionId(42);
    let open = Request::OpenSession { keyspace: KEYSPACE };
    let close = Request::CloseSession { keyspace: KEYSPACE, session };
    let opened = Response::SessionOpened { session };
    let status = Status {
        member: MemberId(2),
        role: Role::Follower,
        term: Term(5),
        leader: Some(MemberId(1)),
        last_index: LogIndex(120),
        commit_index: LogIndex(119),
        applied_index: LogIndex(118),
        revision: Revision(90),
        waiting_for: "entries 7 to 9 from any peer".to_owned(),
        cluster: ClusterId(77),
        version: "0.1.0".to_owned(),
        sync_p50_micros: 130,
        sync_p99_micros: 270,
        members: vec![MemberView {
            id: MemberId(1),
            name: "n1".to_owned(),
            native: "127.0.0.1:2378".to_owned(),
            client: "127.0.0.1:2379".to_owned(),
            peer: "127.0.0.1:2380".to_owned(),
            is_reachable: true,
        }],
        stages: vec![Stage {
            name: "log".to_owned(),
            count: 1_000,
            p50_micros: 130,
            p99_micros: 270,
            max_micros: 900,
        }],
        counters: vec![Counter { name: "log_writes".to_owned(), value: 1_001 }],
    };
    vec![
        golden("open-session", "Request 1 opens a session in keyspace 0.", encode_request_frame(1, &open)),
        golden("session-opened", "Its answer: session 42.", encode_response_frame(1, &opened)),
        golden("close-session", "Request 2 closes session 42.", encode_request_frame(2, &close)),
        golden("session-closed", "Its answer.", encode_response_frame(2, &Response::SessionClosed)),
        golden("status-request", "Request 3 asks for status.", encode_request_frame(3, &Request::Status)),
        golden(
            "status",
            "Its answer, from a follower.",
            encode_response_frame(3, &Response::Status(Box::new(status))),
        ),
    ]
}

fn watches() -> Vec<Golden> {
    let pair = |value: &'static str, mod_revision, version| KeyValue {
        key: "a".into(),
        value: value.into(),
        create_revision: Revision(7),
        mod_revision: Revision(mod_revision),
        version,
        lease: LeaseId(0),
    };
    let deleted =
        KeyValue { create_revision: Revision(0), version: 0, value: Bytes::new(), ..pair("", 9, 0) };
    let events = vec![
        Event { pair: pair("1", 7, 1), is_deletion: false, previous: None },
        Event { pair: pair("2", 8, 2), is_deletion: false, previous: Some(pair("1", 7, 1)) },
        Event { pair: deleted, is_deletion: true, previous: Some(pair("2", 8, 2)) },
    ];
    let interest = Interest { wants_previous: true, ..Interest::all(span_a_to_c()) };
    let create = WatchRequest::Create {
        keyspace: KEYSPACE,
        spec: WatchSpec { interest, start: Revision(7), wants_progress: true },
    };
    let watch = WatchId(16);
    let told = Batch { revision: Revision(9), is_partial: false, events };
    let bookmark = Batch { revision: Revision(12), is_partial: false, events: Vec::new() };
    let request = |id, request| encode_request_frame(id, &Request::Watch(request));
    let answer = |id, answer| encode_response_frame(id, &Response::Watch(answer));
    vec![
        golden("watch-create", "Request 16 watches a up to c from revision 7.", request(16, create)),
        golden("watch-created", "Its answer.", answer(16, WatchAnswer::Created { revision: Revision(8) })),
        golden(
            "watch-told",
            "Watch 16 is told of two puts and a deletion.",
            answer(16, WatchAnswer::Told(told)),
        ),
        golden("watch-bookmark", "It is told how far it is.", answer(16, WatchAnswer::Told(bookmark))),
        golden("watch-progress", "Request 17 asks that.", request(17, WatchRequest::Progress { watch })),
        golden("watch-reached", "Its answer.", answer(17, WatchAnswer::Reached { revision: Revision(12) })),
        golden(
            "watch-ended",
            "Watch 16 ends: what it would be told is compacted.",
            answer(16, WatchAnswer::Ended { why: Ending::Compacted(Revision(20)) }),
        ),
        golden("watch-cancel", "Request 18 ends watch 16.", request(18, WatchRequest::Cancel { watch })),
        golden("watch-cancelled", "Its answer.", answer(18, WatchAnswer::Cancelled)),
    ]
}

fn put_of_a() -> Put {
    Put { wants_previous: true, ..Put::new("a".into(), "1".into()) }
}

fn span_a_to_c() -> KeyRange {
    KeyRange::Span { start: "a".into(), end: "c".into() }
}

fn range(range: KeyRange) -> Range {
    Range { limit: 10, revision: Revision(7), ..Range::new(range) }
}

fn compare(operator: CompareOperator, target: CompareTarget) -> Compare {
    Compare { range: KeyRange::Key("a".into()), operator, target }
}

fn write(id: u64, stamp: Option<Stamp>, command: &Command) -> Bytes {
    let command = EncodedCommand::encode(command).unwrap();
    encode_request_frame(id, &Request::Write { keyspace: KEYSPACE, stamp, command })
}

fn read(id: u64, mode: ReadMode, query: Query) -> Bytes {
    encode_request_frame(id, &Request::Read { keyspace: KEYSPACE, query, mode })
}

fn writes_and_reads() -> Vec<Golden> {
    let put = Command::Put(put_of_a());
    let delete = DeleteRange { range: span_a_to_c(), wants_previous: true };
    let txn = Txn {
        compares: vec![
            compare(CompareOperator::Equal, CompareTarget::Version(3)),
            compare(CompareOperator::NotEqual, CompareTarget::Create(Revision(4))),
            compare(CompareOperator::Greater, CompareTarget::Mod(Revision(5))),
            compare(CompareOperator::Less, CompareTarget::Value("2".into())),
            compare(CompareOperator::Equal, CompareTarget::Lease(LeaseId(0))),
        ],
        success: vec![Operation::Put(put_of_a()), Operation::DeleteRange(delete.clone())],
        failure: vec![Operation::Range(range(KeyRange::From(Bytes::new())))],
    };
    let reading = Txn {
        compares: vec![compare(CompareOperator::Equal, CompareTarget::Version(0))],
        success: Vec::new(),
        failure: vec![Operation::Range(range(KeyRange::Key("a".into())))],
    };
    let bounded = ReadMode::MaxAge { max_age_ms: 1_500, otherwise: Otherwise::AskLeader };
    let at_least = ReadMode::MinRevision { revision: Revision(8), otherwise: Otherwise::Refuse };
    let stamp = Stamp { session: SessionId(42), sequence: 9, low_water: 6 };
    let log_body = EncodedCommand::encode(&put).unwrap().bytes().clone();
    vec![
        golden("write-put", "Request 4 puts a = 1, wants the pair before.", write(4, None, &put)),
        golden(
            "write-put-stamped",
            "The same in session 42, sequence 9, low water 6.",
            write(5, Some(stamp), &put),
        ),
        golden(
            "write-delete-range",
            "Request 6 deletes a up to c.",
            write(6, None, &Command::DeleteRange(delete)),
        ),
        golden(
            "write-txn",
            "Request 7: a compare of each kind, then a list each.",
            write(7, None, &Command::Txn(txn)),
        ),
        golden("command-put", "The put of request 4 alone, as the log holds it.", log_body),
        golden(
            "read-range",
            "Request 8 reads a up to c at revision 7, at most 10 pairs, linearizable.",
            read(8, ReadMode::Linearizable, Query::Range(range(span_a_to_c()))),
        ),
        golden(
            "read-max-age",
            "Request 25 reads a up to c, at most one and a half seconds old, or asks the leader.",
            read(25, bounded, Query::Range(Range::new(span_a_to_c()))),
        ),
        golden(
            "read-min-revision",
            "Request 26 reads a up to c at revision 8 or later, or is refused.",
            read(26, at_least, Query::Range(Range::new(span_a_to_c()))),
        ),
        golden(
            "read-txn",
            "Request 9 reads a if it exists, serializable.",
            read(9, ReadMode::Serializable, Query::Txn(reading)),
        ),
    ]
}

/// What came after the first commands, under tags of its own.
fn options_and_nesting() -> Vec<Golden> {
    let touch = Put { keeps_value: true, ..Put::new("a".into(), Bytes::new()) };
    let newest_first = Range {
        limit: 1,
        sort: Some(Sort { by: SortBy::Mod, order: SortOrder::Descending }),
        filter: Filter { mod_min: Revision(3), create_max: Revision(6), ..Filter::default() },
        ..Range::new(span_a_to_c())
    };
    let inner = Txn {
        compares: vec![compare(CompareOperator::Equal, CompareTarget::Version(0))],
        success: vec![Operation::Put(put_of_a())],
        failure: vec![Operation::Put(touch.clone())],
    };
    let nested = Txn {
        success: vec![Operation::Txn(inner), Operation::Range(newest_first.clone())],
        ..Txn::default()
    };
    let compact = Command::Compact(Compact { revision: Revision(7) });
    vec![
        golden(
            "write-put-options",
            "Request 12 puts a again, keeping its value.",
            write(12, None, &Command::Put(touch)),
        ),
        golden(
            "write-txn-nested",
            "Request 13: a transaction in a transaction, and a range with options.",
            write(13, None, &Command::Txn(nested)),
        ),
        golden("write-compact", "Request 14 compacts to revision 7.", write(14, None, &compact)),
        golden(
            "read-range-options",
            "Request 15 reads the one of a up to c that changed last, since revision 3 and created by 6.",
            read(15, ReadMode::Linearizable, Query::Range(newest_first)),
        ),
    ]
}

fn answers_of_the_store() -> Vec<Golden> {
    let pair = KeyValue {
        key: "a".into(),
        value: "0".into(),
        create_revision: Revision(4),
        mod_revision: Revision(6),
        version: 2,
        lease: LeaseId(0),
    };
    let applied = |id, outcome| {
        encode_response_frame(id, &Response::Applied(Applied { revision: Revision(8), outcome }))
    };
    let previous = PutResult { previous: Some(pair.clone()) };
    let delete = DeleteRangeResult { deleted: 1, previous: vec![pair.clone()] };
    let range = RangeResult { pairs: vec![pair], more: true, count: 3 };
    let results = vec![
        OperationResult::Put(PutResult { previous: None }),
        OperationResult::DeleteRange(delete.clone()),
        OperationResult::Range(range.clone()),
    ];
    let txn = TxnResult { succeeded: true, results };
    let nested = TxnResult { succeeded: true, results: vec![OperationResult::Txn(txn.clone())] };
    let aged = |id, age_micros| {
        let applied = Applied { revision: Revision(8), outcome: Outcome::Range(range.clone()) };
        encode_response_frame(id, &Response::Aged { age_micros, applied })
    };
    vec![
        golden(
            "applied-put",
            "A put, no pair before.",
            applied(4, Outcome::Put(PutResult { previous: None })),
        ),
        golden("applied-put-previous", "A put, with the pair before.", applied(5, Outcome::Put(previous))),
        golden("applied-delete-range", "One key deleted.", applied(6, Outcome::DeleteRange(delete))),
        golden("applied-txn", "Three results.", applied(7, Outcome::Txn(txn))),
        golden("applied-range", "One pair of three.", applied(8, Outcome::Range(range.clone()))),
        golden("aged-range", "The same, 900 microseconds old at the most.", aged(25, Some(900))),
        golden("aged-range-unknown", "The same; how old it may be is not known.", aged(26, None)),
        golden("applied-refused", "Compacted.", applied(9, Outcome::Refused(StoreRefusal::Compacted))),
        golden(
            "applied-txn-nested",
            "The same three, of a nested transaction.",
            applied(13, Outcome::Txn(nested)),
        ),
        golden("applied-compact", "A compaction.", applied(14, Outcome::Compacted)),
    ]
}

/// Leases, which came after the first commands, too.
fn leases() -> Vec<Golden> {
    let (keyspace, lease) = (KeyspaceId::FIRST, LeaseId(7));
    let grant = Grant { lease, ttl_ms: 1_500 };
    let applied = |id, outcome| {
        let outcome = Outcome::Lease(outcome);
        encode_response_frame(id, &Response::Applied(Applied { revision: Revision(8), outcome }))
    };
    let command = |command| Command::Lease(command);
    let known = TimeToLive { ttl_ms: 1_500, remaining_ms: 900, keys: vec!["a".into(), "b".into()] };
    vec![
        golden(
            "write-lease-grant",
            "Request 16 asks for lease 7, of a second and a half.",
            write(16, None, &command(LeaseCommand::Grant(grant))),
        ),
        golden("applied-lease-granted", "It is granted.", applied(16, LeaseOutcome::Granted(grant))),
        golden(
            "lease-keep-alive",
            "Request 17 renews lease 7.",
            encode_request_frame(17, &Request::KeepAlive { keyspace, lease }),
        ),
        golden(
            "applied-lease-renewed",
            "It lasts for a second and a half again.",
            applied(17, LeaseOutcome::Renewed(Renewed { ttl_ms: 1_500 })),
        ),
        golden(
            "lease-time-to-live",
            "Request 18 asks how lease 7 stands, with its keys.",
            encode_request_frame(18, &Request::TimeToLive { keyspace, lease, wants_keys: true }),
        ),
        golden(
            "applied-lease-time-to-live",
            "900 ms are left of it, and a and b go with it.",
            applied(18, LeaseOutcome::TimeToLive(Some(known))),
        ),
        golden(
            "write-lease-revoke",
            "Request 19 ends lease 7.",
            write(19, None, &command(LeaseCommand::Revoke(Revoke { lease }))),
        ),
        golden("applied-lease-revoked", "It has ended.", applied(19, LeaseOutcome::Revoked)),
        golden(
            "read-leases",
            "Request 20 lists all leases.",
            read(20, ReadMode::Linearizable, Query::Leases),
        ),
        golden(
            "applied-leases",
            "There are two.",
            applied(20, LeaseOutcome::Listed(vec![LeaseId(7), LeaseId(9)])),
        ),
        golden(
            "command-lease-checkpoint",
            "What a leader writes down of lease 7, the third that was granted.",
            encoded(&command(LeaseCommand::Checkpoint(vec![Remaining {
                life: LeaseLife { lease, grant: 3 },
                remaining_ms: 900,
            }]))),
        ),
    ]
}

/// The space alarm.
fn space_alarm() -> Vec<Golden> {
    let alarm = SpaceAlarm::by_bytes(false);
    let by_hand = SpaceAlarm { by_hand: Some(7), is_raised: true };
    let outcome = Outcome::SpaceAlarm(alarm);
    vec![
        golden(
            "write-space-alarm",
            "Request 21 calls the space alarm off.",
            write(21, None, &Command::SpaceAlarm(alarm)),
        ),
        golden(
            "applied-space-alarm",
            "It is off.",
            encode_response_frame(21, &Response::Applied(Applied { revision: Revision(8), outcome })),
        ),
        golden(
            "write-space-alarm-by-hand",
            "Request 24 raises the space alarm 7 by hand.",
            write(24, None, &Command::SpaceAlarm(by_hand)),
        ),
        golden(
            "applied-space-alarm-by-hand",
            "It is raised.",
            encode_response_frame(
                24,
                &Response::Applied(Applied { revision: Revision(8), outcome: Outcome::SpaceAlarm(by_hand) }),
            ),
        ),
    ]
}

fn snapshots() -> Vec<Golden> {
    let (keyspace, index, term) = (KEYSPACE, LogIndex(118), Term(5));
    let read = SnapshotRequest::Read { index, term, offset: 262_144, bytes_count: 8_192 };
    let cut = SnapshotAnswer::Cut { index, term, bytes_count: 270_336, hash: 0x1234_5678_9abc_def0 };
    let piece = SnapshotAnswer::Piece(Bytes::from_static(b"some bytes"));
    vec![
        golden(
            "snapshot-cut",
            "Request 22 asks for a snapshot that holds everything.",
            encode_request_frame(22, &Request::Snapshot { keyspace, request: SnapshotRequest::Cut }),
        ),
        golden(
            "snapshot-is-cut",
            "It is there, up to entry 118 of term 5.",
            encode_response_frame(22, &Response::Snapshot(cut)),
        ),
        golden(
            "snapshot-read",
            "Request 23 asks for two blocks of it.",
            encode_request_frame(23, &Request::Snapshot { keyspace, request: read }),
        ),
        golden(
            "snapshot-piece",
            "Some bytes of it; a real piece is whole blocks.",
            encode_response_frame(23, &Response::Snapshot(piece)),
        ),
    ]
}

fn encoded(command: &Command) -> Bytes {
    EncodedCommand::encode(command).unwrap().bytes().clone()
}

fn refusals() -> Vec<Golden> {
    let refusal = Refusal::NotLeader { leader: Some(MemberId(1)) };
    let words = "at byte 14: expected a known operation tag, found 99";
    vec![
        golden(
            "refused-not-leader",
            "Not the leader; member 1 is.",
            encode_response_frame(10, &Response::Refused(refusal)),
        ),
        golden(
            "refused-malformed",
            "Malformed, with words that say where.",
            encode_refusal_frame(11, Refusal::Malformed, words),
        ),
    ]
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/golden")
}

fn hexadecimal(golden: &Golden) -> String {
    let mut text = format!("# {}\n", golden.says);
    for line in golden.bytes.chunks(16) {
        let line: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        text += &line.join(" ");
        text.push('\n');
    }
    text
}

#[test]
fn the_golden_frames_are_what_the_codec_writes() {
    for golden in all() {
        let path = folder().join(golden.name).with_extension("hex");
        let text = hexadecimal(&golden);
        if env::var_os("UPDATE").is_some() {
            fs::write(&path, text).expect("a golden file can be written where the source is");
            continue;
        }
        let recorded = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(recorded, text, "{}: `UPDATE=1 cargo test golden` records a change", path.display());
    }
}

#[test]
fn the_document_lists_every_golden_frame_and_the_folder_holds_no_other() {
    let document = include_str!("../PROTOCOL.md");
    let names: Vec<&str> = all().iter().map(|golden| golden.name).collect();
    for name in &names {
        assert!(document.contains(&format!("`{name}`")), "PROTOCOL.md lists {name}");
    }
    for entry in fs::read_dir(folder()).expect("the golden files lie beside the source") {
        let path = entry.expect("a folder can be listed").path();
        if path.extension().is_some_and(|extension| extension == "hex") {
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            assert!(names.contains(&name), "{name} is made by this file");
        }
    }
}

#[test]
fn the_frame_that_the_document_explains_is_the_golden_one() {
    let (_, after) = include_str!("../PROTOCOL.md").split_once("byte by byte:\n\n```text\n").unwrap();
    let (block, _) = after.split_once("```").unwrap();
    let mut explained = Vec::new();
    for line in block.lines() {
        let offset: usize = line[..3].trim().parse().unwrap();
        assert_eq!(offset, explained.len(), "the offsets are right");
        explained.extend(line[5..30].split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()));
    }
    let golden = all().into_iter().find(|golden| golden.name == "write-put-stamped").unwrap();
    assert_eq!(explained, golden.bytes);
}

#[test]
fn every_kind_of_frame_has_a_golden_one() {
    let kinds: Vec<u8> = all()
        .iter()
        .filter(|golden| !golden.name.starts_with("command-"))
        .map(|golden| {
            let mut buffer = BytesMut::from(golden.bytes.as_ref());
            let frame: Frame = decode_frame(&mut buffer, Receiver::Client).unwrap().unwrap();
            frame.kind
        })
        .collect();
    for kind in [
        kind::CLIENT_HELLO,
        kind::OPEN_SESSION,
        kind::CLOSE_SESSION,
        kind::WRITE,
        kind::READ,
        kind::STATUS,
        kind::LEASE_KEEP_ALIVE,
        kind::LEASE_TIME_TO_LIVE,
        kind::CUT_SNAPSHOT,
        kind::READ_SNAPSHOT,
        kind::SNAPSHOT_CUT,
        kind::SNAPSHOT_PIECE,
        kind::SERVER_HELLO,
        kind::SESSION_OPENED,
        kind::SESSION_CLOSED,
        kind::APPLIED,
        kind::STATUS_ANSWER,
        kind::REFUSED,
    ] {
        assert!(kinds.contains(&kind), "kind {kind:#04x} has a golden frame");
    }
}

#[test]
fn a_decoder_written_from_the_document_alone_reads_every_golden_frame() {
    let script = folder().join("check.py");
    let Ok(output) = process::Command::new("python3").arg(&script).output() else {
        eprintln!("skipped: python3 is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "check.py: {complained}");
    for golden in all() {
        assert!(
            said.lines().any(|line| line.starts_with(&format!("{}: ", golden.name))),
            "{} was read",
            golden.name
        );
    }
}
