//! Every bound, each *chosen* (why), *derived* (how) or *fixed by a format* (which).

/// Bytes of the largest key.
///
/// Chosen: as long as any path or name people build keys from; short enough that an index of them stays small.
pub const KEY_BYTES_MAX: usize = 16 * 1_024;

/// Bytes of the largest client request, its command included.
///
/// Chosen: etcd's limit, 1.5 MiB, which clients are built around.
pub const REQUEST_BYTES_MAX: usize = 1_536 * 1_024;

/// Bytes of a write request before its command: keyspace, and a stamp with its presence byte.
///
/// Fixed by a format: the native protocol (PROTOCOL §5).
pub const WRITE_HEAD_BYTES_MAX: usize = 4 + 1 + 3 * 8;

/// Bytes of the largest encoded command, and so of the body of the largest command entry.
///
/// Derived: whatever the log holds could have come in one request, stamped or not.
pub const COMMAND_BYTES_MAX: usize = REQUEST_BYTES_MAX - WRITE_HEAD_BYTES_MAX;

/// Bytes of the largest value.
///
/// Derived: a value travels in one request.
pub const VALUE_BYTES_MAX: usize = REQUEST_BYTES_MAX;

/// Operations in one list of a transaction, and compares in one transaction.
///
/// Chosen: etcd's default.
pub const TXN_OPERATIONS_MAX: usize = 128;

/// Walks over more than one key in one transaction, those of all levels and of lists that do not run included.
///
/// Derived: a transaction without others in it may do nothing else in all of its three lists.
pub const TXN_WALKS_MAX: usize = 3 * TXN_OPERATIONS_MAX;

/// Keys that one transaction looks at.
///
/// Chosen: a quarter of a million takes well under the shortest election timeout.
pub const TXN_KEYS_MAX: u64 = 256 * 1_024;

/// Bytes that one transaction answers with; each operation and each pair counts with 64 bytes more than its key and value.
///
/// Derived: with 64 bytes for what takes fewer, such an answer fits in the longest, and some room is left for what is
/// around it.
pub const TXN_ANSWER_BYTES_MAX: u64 = RESPONSE_BYTES_MAX as u64 / 16 * 15;

/// Keys that a turn walks over before what is left of its commands and reads waits for the next one.
///
/// Chosen: like what one transaction may look at, well under the shortest election timeout; one more command or read may
/// come on top.
pub const TURN_WALK_KEYS_MAX: u64 = 256 * 1_024;

/// Bytes that a turn answers with before what is left of its commands and reads waits for the next one.
///
/// Chosen: two of the longest answers take some ten milliseconds to encode; one more may come on top.
pub const TURN_ANSWER_BYTES_MAX: usize = 2 * RESPONSE_BYTES_MAX;

/// Transactions within one another, the outermost included.
///
/// Derived: a transaction takes its longest list, which holds at least the next one, from what that one may have
/// (etcd's rule), so the deepest of this many may have no operations at all.
pub const TXN_DEPTH_MAX: usize = TXN_OPERATIONS_MAX + 1;

/// Milliseconds that a lease may last without a renewal.
///
/// Chosen: etcd's limit, 9,000,000,000 seconds, which its clients know as the largest.
pub const LEASE_TTL_MILLIS_MAX: u64 = 9_000_000_000_000;

/// Leases of one keyspace.
///
/// Chosen: ten times those of a very large installation; a million of them without keys take some hundred megabytes, and
/// a list of their ids fits in one answer.
pub const LEASES_MAX: usize = 1_000_000;

/// Space alarms of one keyspace that are raised by hand at once.
///
/// Chosen: more than a cluster has members, and a status has room for all of them.
pub const ALARMS_BY_HAND_MAX: usize = 16;

/// Leases of which one entry writes down what remains.
///
/// Chosen: 24 bytes each, so such an entry is as long as those of large values; more leases take more entries,
/// one after another is applied.
pub const LEASES_PER_CHECKPOINT_MAX: usize = 4_096;

/// Microseconds for which what remains of a lease may go without being written down, at the least and at the most.
///
/// Chosen: half of what it was granted for, so that one which is renewed in time never is; a lease so short that this
/// is less than the least ends within two elections anyhow, and is not written down. After the most, a failover would
/// lengthen a long lease by more than anyone should wait (etcd's figure).
pub const LEASE_CHECKPOINT_MICROS: (u64, u64) = (1_000_000, 300_000_000);

/// Microseconds to whose next multiple the writing down of what remains is put off, so that one entry holds many.
///
/// Chosen: ten entries a second at the most, but for those that are full.
pub const LEASE_CHECKPOINTS_APART_MICROS: u64 = 100_000;

/// Ends of leases that are in the log of a leader and not applied.
///
/// Chosen: what one write to the log carries on the side of a full load; 100,000 leases that run out at once are gone
/// after some 400 of them, and clients' writes go with each.
pub const LEASE_ENDS_WAITING_MAX: usize = 256;

/// Puts whose keys are looked up before the first of them is applied.
///
/// Chosen: as many misses of the cache as a processor has under way at once, and a little more.
pub const LOOK_AHEAD_MAX: usize = 16;

/// Changes that the store forgets with each command it applies, of those that a compaction made unreadable.
///
/// Chosen: some microseconds, and many times what an ordinary command leaves to be forgotten one day.
pub const FORGET_STEPS_PER_APPLY: usize = 16;

/// Changes that the store forgets with each turn, whether it applied something or not.
///
/// Chosen: a fraction of a millisecond, and a million changes in the turns of a minute without any requests.
pub const FORGET_STEPS_PER_TURN: usize = 1_024;

/// Bytes one turn may append to the write-ahead log for one group.
///
/// Chosen: 4 MiB is 4 ms at 1 GiB/s, well inside one heartbeat, so a full turn cannot starve it.
pub const TURN_APPEND_BYTES_MAX: usize = 4 * 1_024 * 1_024;

const _: () = assert!(REQUEST_BYTES_MAX <= TURN_APPEND_BYTES_MAX, "the largest request fits in one turn");

/// Bytes of the longest answer to a client.
///
/// Chosen: more than ten of the largest values, and few enough that a hundred such answers in flight fit in memory;
/// whoever needs more asks in parts, with a limit.
pub const RESPONSE_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// Bytes of the words in a refusal; longer ones are cut.
///
/// Chosen: a few sentences.
pub const REFUSAL_WORDS_BYTES_MAX: usize = 1_024;

/// Bytes of a leader's address in a refusal.
///
/// Fixed by a format: a DNS name of 253 bytes, a colon and a port fit.
pub const REFUSAL_ADDRESS_BYTES_MAX: usize = 260;

/// Bytes of the words in a status that say what keeps a member from serving; longer ones are cut.
///
/// Chosen: room to name every member of a large cluster.
pub const STATUS_WORDS_BYTES_MAX: usize = 4 * 1_024;

/// Bytes of a name or an address in a status; longer ones are cut.
///
/// Chosen: a DNS name and a port fit.
pub const STATUS_NAME_BYTES_MAX: usize = 260;

/// Stages of a write, and counters, that a status lists.
///
/// Chosen: several times those there are.
pub const STATUS_MEASURES_MAX: usize = 64;

/// Log writes, and turns with new requests, that are timed at once.
///
/// Chosen: more are under way only on a member that stands still; then the newest go untimed.
pub const STAGE_WRITES_MAX: usize = 1_024;

/// Members that a status lists.
///
/// Chosen: more voters and learners than a group can have.
pub const STATUS_MEMBERS_MAX: usize = 64;

const _: () = assert!(8 * LEASES_MAX <= RESPONSE_BYTES_MAX / 2, "a list of all leases fits in one answer");

const _: () =
    assert!(REQUEST_BYTES_MAX <= RESPONSE_BYTES_MAX, "a value that could be written can be read back");

/// Bytes of what follows a peer frame's envelope: encoded entries, a forwarded request, or its answer.
///
/// Derived: twice the longest answer, which leaves room for several turns' entries in one message, their headers
/// included.
pub const PEER_PAYLOAD_BYTES_MAX: usize = 2 * RESPONSE_BYTES_MAX;

/// Bytes of a peer frame's envelope.
///
/// Derived: 64 bytes are the smallest record worth the name, so a full payload of them names at most 2^19 entries,
/// each in less than 16 bytes.
pub const PEER_ENVELOPE_BYTES_MAX: usize = 8 * 1_024 * 1_024;

const _: () = assert!(
    2 * TURN_APPEND_BYTES_MAX <= PEER_PAYLOAD_BYTES_MAX,
    "what a turn appends fits in one peer frame, headers of entries included"
);
const _: () = assert!(
    RESPONSE_BYTES_MAX < PEER_PAYLOAD_BYTES_MAX,
    "every answer to a forwarded request fits in one peer frame"
);
const _: () = assert!(
    PEER_PAYLOAD_BYTES_MAX / 64 * 16 <= PEER_ENVELOPE_BYTES_MAX,
    "an envelope can name every entry its payload holds"
);
/// Sequences above its low-water mark that a session may use, and so responses it remembers.
///
/// Chosen: twice the requests any sensible client has outstanding; bounds a session's memory.
pub const SESSION_WINDOW: u64 = 1_024;

/// Size of an answer, as sessions count it, up to which it is always remembered, and counted by number alone.
///
/// Chosen: whatever the store refuses, every write of a key or a lease that asks for nothing back, and transactions of up to
/// seven such; so a client that retries one of these is never left without its answer.
pub const SMALL_ANSWER_BYTES_MAX: usize = 128;

/// Bytes of the longer answers that one session remembers; of those beyond it is remembered that there was one.
///
/// Chosen: a thousand ordinary answers; a client that wants long answers to writes again after a failover can read.
pub const SESSION_BYTES_MAX: usize = 1_024 * 1_024;

/// Bytes of the longer answers that all sessions of one group remember.
///
/// Chosen: 256 MiB is what a machine that runs a member can spare; a thousand clients with a thousand writes in flight
/// each need half of it.
pub const SESSIONS_BYTES_MAX: usize = 256 * 1_024 * 1_024;

/// Answers that each session may remember whatever the others remember.
///
/// Chosen: what an ordinary client has in flight, so that nobody can have its writes refused by leaving answers lie.
pub const SESSION_ANSWERS_RESERVED: usize = 16;

/// Answers that all sessions of one group remember beyond those that are reserved for each.
///
/// Chosen: a million writes whose answers are not acknowledged yet, some hundred megabytes; four times that at the most, where each
/// session has room left of three times as many.
pub const SESSIONS_ANSWERS_SHARED_MAX: usize = 1_024 * 1_024;

/// Open sessions in one group.
///
/// Chosen: ten times the connections a large installation holds to one cluster.
pub const SESSIONS_MAX: usize = 65_536;

const _: () = assert!(
    SESSIONS_MAX * SESSION_ANSWERS_RESERVED <= SESSIONS_ANSWERS_SHARED_MAX,
    "what is reserved at the most doubles what may be remembered"
);

/// Entries after which members compare their states.
///
/// Chosen: an entry of a hundred bytes from each member per thousand; and a minute of a quiet cluster's writes, or a hundredth
/// of a second of a busy one's, is as much as a member may serve from a state that differs.
pub const STATE_CHECK_ENTRIES: u64 = 1_024;

/// States that a member keeps the hashes of, to compare.
///
/// Chosen: so many that what a member says of one is heard before it is forgotten, though all that may wait for commit comes
/// in between.
pub const STATES_NOTED_MAX: usize = 64;

/// Proposals of one group that wait for commit at their leader, and forwards that wait for an answer.
///
/// Chosen: a hundred milliseconds of work at the rate we aim for; beyond it a client is told to come back.
pub const PROPOSALS_WAITING_MAX: usize = 32_768;

const _: () = assert!(
    2 * PROPOSALS_WAITING_MAX as u64 <= STATES_NOTED_MAX as u64 * STATE_CHECK_ENTRIES,
    "what a member says of its state is heard while it is remembered"
);

/// Bytes of the proposals that wait for commit.
///
/// Chosen: sixteen full turns; more would only age in memory.
pub const PROPOSALS_WAITING_BYTES_MAX: usize = 16 * TURN_APPEND_BYTES_MAX;

/// Linearizable reads of one group that wait for their round or for apply.
///
/// Chosen: as the proposals; a read holds little.
pub const READS_WAITING_MAX: usize = 32_768;

/// Forwarding numbers remembered per peer boot, so that a frame delivered twice is proposed once.
///
/// Chosen: a peer that restarted more often than this within one of our boots has long lost its old connections.
pub const FORWARD_BOOTS_MAX: usize = 16;

/// The largest log index that is believed of anyone.
///
/// Chosen: at a thousand million entries a second a log is there in 146 years; and whoever counts on from it, or adds
/// a window to it, stays far from the end of 64 bits.
pub const LOG_INDEX_MAX: u64 = 1 << 62;

/// The largest term that is believed of anyone.
///
/// Chosen: as `LOG_INDEX_MAX`.
pub const TERM_MAX: u64 = 1 << 62;

/// Voters of one group.
///
/// Chosen: a commit waits for a majority, so more than nine voters only add delay; etcd advises seven at most.
pub const RAFT_VOTERS_MAX: usize = 9;

/// The largest term or log index the core takes from a message.
///
/// Chosen: a billion entries a second for a century stay below 2^62, and everything computed from a number below
/// it (a successor, a sum of two) still fits in 64 bits.
pub const RAFT_NUMBER_MAX: u64 = 1 << 62;

/// Encoded bytes of entries in one append or fill message; one larger entry still travels, alone.
///
/// Chosen: 1 MiB is under 1 ms on a 10 Gbit/s link, so a heartbeat never waits long behind it, and large enough
/// that the cost of a message vanishes.
pub const APPEND_BYTES_MAX: usize = 1_024 * 1_024;

/// Entries in one append or fill message.
///
/// Chosen: 1 MiB of the smallest records (some 100 bytes) is about 10,000; half of that already amortises the
/// message, and 4,096 entries of 24 bytes are a vector of 96 KiB.
pub const APPEND_ENTRIES_MAX: usize = 4_096;

/// Microseconds for which a leader at the most gathers what it has for its peers, while its own disk writes or while its next
/// batch waits for them.
///
/// Chosen: longer than the sync of a good disk, so that peers get a batch when the disk does; far shorter than any
/// time that somebody waits for, so that a slow disk of the leader holds up nobody.
pub const GATHER_MICROS_MAX: u64 = 2_000;

/// A leader's next batch waits for its peers for at most so many times what its own disk took for the last one,
/// counted from when that was handed over.
///
/// Chosen: peers that share this machine's CPUs take two to three times as long as its own disk. Peers that are far away take
/// longer, and to wait for as long as that would only delay what comes in meanwhile.
pub const LEADER_WAIT_FACTOR: u64 = 5;

/// Entries of a batch from which on the next one waits for all peers in step, and not for a majority alone.
///
/// Chosen: more than a few clients that wait for one write each; those go on as soon as they have been answered.
pub const LEADER_WAIT_ENTRIES_MIN: u64 = 8;

/// Unacknowledged append messages to one peer.
///
/// Chosen: at one message a turn and a disk of 4 ms this is 60 µs a turn, faster than any turn is; beyond it
/// the byte window is what binds.
pub const RAFT_INFLIGHT_MESSAGES_MAX: usize = 256;

/// Unacknowledged bytes of entries to one peer.
///
/// Chosen: 4 MiB covers 1 GiB/s over a 4 ms round trip; a follower that is slower than that is not helped by
/// a longer queue.
pub const RAFT_INFLIGHT_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// Bytes of a snapshot's file in one message.
///
/// Chosen: as large as an append, so a heartbeat waits no longer behind it.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = 1_024 * 1_024;

const _: () =
    assert!(SNAPSHOT_CHUNK_BYTES_MAX <= PEER_PAYLOAD_BYTES_MAX, "the largest chunk fits in one peer frame");

/// Heartbeats without news of a chunk after which it is taken for lost and sent again.
///
/// Chosen: a disk that needs five heartbeats for 1 MiB is no faster for being told twice; on a link that loses
/// messages, a chunk in ten costs half an election timeout.
pub const SNAPSHOT_RESEND_HEARTBEATS: u32 = 5;

/// Linearizable reads that wait for a confirmation round, on one member.
///
/// Chosen: a round lasts about a network round trip; 1 ms of it at 16 million reads a second. More means that the
/// rounds do not come back, and a read that is refused at once can be sent elsewhere.
pub const RAFT_READS_WAITING_MAX: usize = 16 * 1_024;

/// The longest lease of a leader, in microseconds.
///
/// Chosen: a new leader commits nothing for so long in the worst case, and whoever waits longer than 10 s takes the
/// cluster for dead.
pub const LEADER_LEASE_MICROS_MAX: u64 = 10_000_000;

/// The largest drift of clocks that leases can be reckoned with, in parts per million.
///
/// Chosen: the crystals of computers are wrong by 100 ppm at the most; a clock that is wrong by a fifth is no clock.
pub const LEADER_DRIFT_PPM_MAX: u32 = 200_000;

/// The drift of clocks that servers reckon with, in parts per million.
///
/// Chosen: a crystal is wrong by 100 ppm and ntpd slews by 500, but chrony slews by as much as a twelfth (83,333) unless it is
/// told otherwise, and that moves the boot clock, too. It costs a lease a fifth of its length.
pub const LEADER_DRIFT_PPM: u32 = 100_000;

const _: () =
    assert!(LEADER_DRIFT_PPM <= LEADER_DRIFT_PPM_MAX, "what servers reckon with can be said in the log");

const _: () = assert!(APPEND_BYTES_MAX <= RAFT_INFLIGHT_BYTES_MAX, "the largest append fits in the window");

const _: () =
    assert!(APPEND_BYTES_MAX <= TURN_APPEND_BYTES_MAX, "a received append can be written in one turn");

/// Microseconds without anything to write after which the write-ahead log seals its last frame.
///
/// Chosen: well above the time between writes of a busy shard, so that seals cost nothing under load; short, since
/// rot together with a crash within this time is outside the promise (DESIGN §8).
pub const WAL_SEAL_MICROS: u64 = 20_000;

/// Segments kept ready ahead of need.
///
/// Chosen: making one takes far less time than filling one.
pub const WAL_SPARE_SEGMENTS_MAX: usize = 1;

/// Segments that are needed no more and kept, to make the next ones of.
///
/// Chosen: as many as are made ahead; a renamed one saves the zeros.
pub const WAL_FREE_SEGMENTS_MAX: usize = 1;

/// Bytes of the smallest segment that may be configured. Servers use 64 MiB; small ones are for simulation.
///
/// Chosen: room for an opening and some batches.
pub const WAL_SEGMENT_BYTES_MIN: u64 = 64 * 1_024;

/// Bytes from the start of the first segment that the very first write of a log may reach.
///
/// Chosen: it is an opening without entries, so this is generous; what lies beyond cannot come from that write.
pub const WAL_FIRST_WRITE_BYTES_MAX: usize = 256 * 1_024;

/// Remarks that one recovery keeps.
///
/// Chosen: enough to see what happened; a disk full of damage must not fill memory with remarks about it.
pub const WAL_NOTES_MAX: usize = 1_024;

/// Bytes of a peer's greeting.
///
/// Derived: four texts of at most 255 bytes, and the fixed part.
pub const GREETING_BYTES_MAX: usize = 2_048;

/// Bytes that wait to be sent on one connection before it is given up.
///
/// Chosen: a few of the longest answers; whoever reads slower than that is better off asking again.
pub const SEND_QUEUE_BYTES_MAX: usize = 4 * RESPONSE_BYTES_MAX;

/// Bytes that wait to be sent on a client's connection before no further request is taken off it.
///
/// Chosen: one longest answer is under way and the next is ready; more would only wait in our memory instead of the
/// client's.
pub const SEND_QUEUE_BYTES_ENOUGH: usize = RESPONSE_BYTES_MAX;

/// Bytes that wait to be sent on all connections of a shard; beyond them reads are refused.
///
/// Chosen: eight connections at their bound; a machine that runs a member has that to spare.
pub const SEND_QUEUES_BYTES_MAX: usize = 8 * SEND_QUEUE_BYTES_MAX;

/// Bytes of one batch of events; one longer event still travels, alone.
///
/// Chosen: long enough that the cost of a frame vanishes, short enough that whoever reads slowly has something whole
/// soon.
pub const WATCH_BATCH_BYTES_MAX: usize = 256 * 1_024;

/// Bytes told to the watches of one connection that may wait to be sent; beyond them they are told nothing more, and
/// later go on where they stood.
///
/// Chosen: some batches, so that a reader that keeps up never waits; a thousand that read nothing cost one gigabyte if
/// they share nothing, and far less if they watch the same.
pub const WATCH_STREAM_BYTES_MAX: usize = 1_024 * 1_024;

/// The same over all connections of a shard; beyond them a connection is told something only when nothing waits on it.
///
/// Chosen: half of what may wait on all connections, so that reads are answered whatever watches do.
pub const WATCH_TOTAL_BYTES_MAX: usize = SEND_QUEUES_BYTES_MAX / 2;

const _: () = assert!(
    WATCH_STREAM_BYTES_MAX + WATCH_BATCH_BYTES_MAX + 4 * REQUEST_BYTES_MAX <= SEND_QUEUE_BYTES_ENOUGH,
    "a connection that is told as much as it may be can still be asked something"
);

/// Changes of the history that one turn looks at for watches that are behind.
///
/// Chosen: a millisecond or two of work, well inside one heartbeat.
pub const WATCH_CHANGES_PER_TURN_MAX: usize = 8_192;

/// Changes that one turn tells watches of that keep up, each counted for every interest that it concerns.
///
/// Chosen: a quarter of a million take some ten megabytes while they are told; more is told from the history.
pub const WATCH_CONCERNS_PER_TURN_MAX: usize = 256 * 1_024;

/// Watches of one connection.
///
/// Chosen: several times what one process of a large control plane holds.
pub const STREAM_WATCHES_MAX: usize = 16_384;

/// Watches of one group on one member.
///
/// Chosen: some hundred bytes each, so a quarter of a gigabyte.
pub const WATCHES_MAX: usize = 1_048_576;

/// Microseconds between two bookmarks for watches that want them.
///
/// Chosen: often enough that a client which resumes after a pause has little to be told again, and a thousand idle
/// watches cost a hundred frames a second.
pub const WATCH_PROGRESS_MICROS: u64 = 10_000_000;

/// Microseconds of a CPU for which a thread that answers clients wants to run at a stretch.
///
/// Chosen: the shortest that the kernel gives, and about as long as a turn.
pub const SCHEDULER_SLICE_MICROS: u64 = 100;

/// Bytes at which a part of a snapshot ends; the record that reaches them still goes into it.
///
/// Chosen: long enough that the cost of a part vanishes, short enough that making one fits into a turn.
pub const SNAPSHOT_PART_BYTES: usize = 256 * 1_024;

/// Bytes of a snapshot's file that are written or read back at once, or told to a client.
///
/// Chosen: some hundred microseconds of a disk, so that a write to the log never waits long behind them.
pub const SNAPSHOT_PIECE_BYTES: usize = 256 * 1_024;

/// Bytes of a snapshot's file that a leader sends at once.
///
/// Chosen: a fraction of a millisecond of a thread that reads, checks and sends it, so that a write waits less for it than with
/// a mebibyte. Each is a round between two members and their threads, however short it is, so it is not smaller either.
pub const SNAPSHOT_CHUNK_BYTES: usize = 512 * 1_024;

const _: () =
    assert!(SNAPSHOT_CHUNK_BYTES <= SNAPSHOT_CHUNK_BYTES_MAX, "every member takes what a leader sends");

/// Chunks of a snapshot that a follower is writing and reading back at a time; the last of them is not acknowledged.
///
/// Chosen: two are at the disk and one is on its way to it while the next is on its way here, so that neither waits for the
/// other's thread to be woken.
pub const CHUNKS_WRITTEN_MAX: usize = 4;

const _: () = assert!(CHUNKS_WRITTEN_MAX >= 2, "one is acknowledged while the next is on its way");

/// Pieces of a snapshot after which what was written is made durable; the last write makes all of it so.
///
/// Chosen: 4 MiB in the kernel's or the disk's hands, some ten milliseconds of a disk, so that a write to the log never waits
/// long behind them; and a sync of a file that grew, which is a commit of the file system's journal, only for each of them.
pub const SNAPSHOT_SYNC_PIECES: u64 = 16;

/// Keys and changes that one turn looks at for a snapshot that is being cut.
///
/// Chosen: some tenths of a millisecond of work, so that a write does not wait much longer for it than for a sync.
pub const SNAPSHOT_STEPS_PER_TURN: usize = 1_024;

/// Entries applied, bytes of them, and microseconds with any, after which a snapshot is cut.
///
/// Chosen: a start reads no more of the log than in a second or two; a quiet member's disk is left alone.
pub const SNAPSHOT_ENTRIES: u64 = 100_000;
/// See `SNAPSHOT_ENTRIES`.
pub const SNAPSHOT_LOG_BYTES: u64 = 256 * 1_024 * 1_024;
/// Bytes of entries at which a large snapshot waits no longer for twice as many as the last one had.
///
/// Chosen: what makes one due by itself. A change in a snapshot costs about as much as in the log, and a cut competes with
/// writes for caches: with every change kept, cutting every 100,000 entries took a fifth of all throughput.
pub const SNAPSHOT_PATIENCE_BYTES: u64 = SNAPSHOT_LOG_BYTES;
/// See `SNAPSHOT_ENTRIES`.
pub const SNAPSHOT_MICROS: u64 = 600 * 1_000_000;

/// Entries of the log that one turn forgets.
///
/// Chosen: some tenths of a millisecond, which is what it takes to give back their memory.
pub const TRIM_ENTRIES_PER_TURN: u64 = 4_096;

/// Entries at the end of the log that are kept for followers, unless they take more bytes than the second.
///
/// Chosen: a follower that restarts, or is cut off for some seconds, goes on from the log.
pub const HOT_LOG_ENTRIES_MIN: u64 = 10_000;
/// See `HOT_LOG_ENTRIES_MIN`.
pub const HOT_LOG_BYTES_MIN: u64 = 100 * 1_024 * 1_024;

/// Bytes of a snapshot that are written, and sent to each follower, in a second.
///
/// Chosen: a gigabyte in eight seconds, and most of a good disk and network, and of the threads that check it, left for the log.
pub const SNAPSHOT_BYTES_PER_SECOND: u64 = 128 * 1_024 * 1_024;

/// How much slower than that a snapshot is cut at the most, where there is time.
///
/// Chosen: 16 MiB/s, little beside what a disk does, and a gigabyte in a minute.
pub const SNAPSHOT_GENTLENESS: u64 = 8;

/// Seconds in which a snapshot is sent, unless that would be faster than snapshots are sent, or slower than
/// [`SNAPSHOT_SEND_GENTLENESS`] allows.
///
/// Chosen: a follower that also has to start is back in ten.
pub const SNAPSHOT_SEND_SECONDS: u64 = 5;
/// How much slower than snapshots are sent a short one is sent at the most.
///
/// Chosen: 32 MiB/s, so that the log that grows meanwhile stays within what is kept for it.
pub const SNAPSHOT_SEND_GENTLENESS: u64 = 4;

/// Microseconds for which the file of a snapshot stays for a client that was told of it or read a piece of it.
///
/// Chosen: longer than a client that still is there pauses; a file that nobody reads takes space for no longer.
pub const SNAPSHOT_HOLD_MICROS: u64 = 30 * 1_000_000;

/// Files of snapshots that are kept because clients read them.
///
/// Chosen: two people may save at once; more files than this would only fill the disk.
pub const SNAPSHOTS_HELD_MAX: usize = 2;

/// Clients' requests about snapshots that wait at a member.
///
/// Chosen: some for each of a few clients; a piece is 256 KiB once it is read, and one is read at a time.
pub const SNAPSHOT_SAVES_WAITING_MAX: usize = 64;

/// Microseconds for which a snapshot that could not be cut is not tried again.
///
/// Chosen: soon after somebody has freed space.
pub const SNAPSHOT_RETRY_MICROS: u64 = 10_000_000;

/// Snapshots that are kept.
///
/// Chosen: the newest may rot, the log reaches back to the one before, and one is for a follower that is still sent it.
pub const SNAPSHOT_GENERATIONS: usize = 3;

/// Bytes of the longest part of a snapshot.
///
/// Fixed by a format: `snapshot/FORMAT.md`.
pub const SNAPSHOT_PART_BYTES_MAX: usize = 4 * 1_024 * 1_024;

const _: () = assert!(
    SNAPSHOT_PART_BYTES + KEY_BYTES_MAX + VALUE_BYTES_MAX + 1_024 <= SNAPSHOT_PART_BYTES_MAX
        && SNAPSHOT_PART_BYTES + 2 * SESSION_BYTES_MAX <= SNAPSHOT_PART_BYTES_MAX,
    "the longest record of a store, or of a session, fits in a part that is nearly full"
);

/// Milliseconds without an acknowledgement, of data or of a probe, after which a peer is taken to have vanished.
///
/// Chosen: several elections; and soon, because a connection that outlives a partition is slow to recover from it.
pub const PEER_VANISHED_MILLIS: u32 = 3_000;

/// Milliseconds after which a client is taken to have vanished, also one that takes nothing of what is sent to it.
///
/// Chosen: what a laggard may need; a client costs little while it is waited for.
pub const CLIENT_VANISHED_MILLIS: u32 = 21_000;

/// Connections of one shard, peers' included.
///
/// Chosen: ten times the clients of a large control plane; each costs a receive buffer.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Requests of one connection whose answers are awaited.
///
/// Chosen: as many as a session may have outstanding.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 1_024;

/// Bytes lent to the kernel for one receive.
///
/// Chosen: a batch of small requests; a large one is put together from several.
pub const RECEIVE_BYTES: usize = 64 * 1_024;

/// Bytes of a block of memory into which a leader encodes small records one after the other.
///
/// Chosen: hundreds of small records, so that a block's own cost does not count, and a record that outlives its neighbours keeps
/// little alive.
pub const RECORDS_BLOCK_BYTES: usize = 64 * 1_024;

/// Microseconds within which a connection must have greeted, or finished a frame it began.
///
/// Chosen: PRODUCT §4; the slowest honest network is faster.
pub const CONNECTION_PATIENCE_MICROS: u64 = 5_000_000;

/// Microseconds before a lost connection to a peer is tried again, at first and at the most.
///
/// Chosen: a restarted peer is found within a heartbeat or two; an absent one costs one attempt a second.
pub const RECONNECT_MICROS: (u64, u64) = (50_000, 1_000_000);

/// Bytes of a segment of a server's write-ahead log.
///
/// Chosen: 64 MiB is rolled over every few seconds at full speed, and zero-filled in well under one.
pub const WAL_SEGMENT_BYTES: u64 = 64 * 1_024 * 1_024;

const _: () = assert!(WAL_SEGMENT_BYTES >= WAL_SEGMENT_BYTES_MIN, "a server's segments are not the smallest");

/// Bytes of the name of a user or a role.
///
/// Chosen: longer than any address of mail or path of a service.
pub const AUTH_NAME_BYTES_MAX: usize = 512;

/// Bytes of what a password is compared with.
///
/// Chosen: the text of a hash with its parameters and salt takes about a hundred.
pub const AUTH_SECRET_BYTES_MAX: usize = 512;

/// Bytes of a password.
///
/// Chosen: more than anybody types or generates; passwords wait in memory to be hashed.
pub const AUTH_PASSWORD_BYTES_MAX: usize = 1_024;

/// Bytes of the key with which members make and check the tokens of users.
///
/// Fixed by a format: those of SHA-256, and as much chance as anybody can use.
pub const AUTH_TOKEN_KEY_BYTES: usize = 32;

/// Bytes of all users, roles and permissions; each counts with 64 bytes more than its names and keys.
///
/// Chosen: a hundred thousand of them; a snapshot copies them all in the turn in which it is cut, in some milliseconds.
pub const AUTH_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// Bytes of all users and roles as a snapshot holds them.
///
/// Derived: what is counted is more than what is written of each, but for the head of it all.
pub const AUTH_STATE_BYTES_MAX: usize = AUTH_BYTES_MAX + 1_024;

/// Roles of one user.
///
/// Chosen: every decision about a user looks at all of them.
pub const AUTH_USER_ROLES_MAX: usize = 64;

/// Permissions of one role.
///
/// Chosen: a change of one puts all of them together anew, in well under a millisecond.
pub const AUTH_ROLE_GRANTS_MAX: usize = 4_096;

/// Bytes of the largest message that etcd clients may send over gRPC.
///
/// Chosen: etcd's limit, the largest request and 512 KiB for what is around it.
pub const GRPC_MESSAGE_BYTES_MAX: usize = REQUEST_BYTES_MAX + 512 * 1_024;

/// Connections of etcd clients to one member.
///
/// Chosen: half of what a shard takes; each costs some ten kilobytes and a task.
pub const GATEWAY_CONNECTIONS_MAX: usize = 8_192;

/// Requests and streams that one connection of an etcd client may have open.
///
/// Chosen: more than any client library opens; beyond it HTTP/2 makes the client wait.
pub const GATEWAY_STREAMS_PER_CONNECTION_MAX: u32 = 1_024;

/// Bytes of a list of headers of one request.
///
/// Chosen: gRPC's own is some hundred bytes; a token fits many times.
pub const GATEWAY_HEADER_LIST_BYTES_MAX: u32 = 16 * 1_024;

/// Bytes that an etcd client may send on one connection, and on one stream of it, before it hears that they were taken.
///
/// Chosen: the largest message fits in a stream's window, and a few in the connection's.
pub const GATEWAY_WINDOW_BYTES: (u32, u32) = (8 * 1_024 * 1_024, 2 * 1_024 * 1_024);

/// Milliseconds without a sign of an etcd client after which it is asked for one, and within which it must give it.
///
/// Chosen: `CLIENT_VANISHED_MILLIS` in all.
pub const GATEWAY_KEEPALIVE_MILLIS: (u64, u64) = (14_000, 7_000);

/// Requests of etcd clients that one gateway has given to its shard and that are not answered.
///
/// Chosen: half of the proposals that a group lets wait; beyond it a client is told to come back.
pub const GATEWAY_REQUESTS_MAX: usize = 16_384;

/// Turns of a shard whose answers wait for their gateway. When there are more, a shard gathers them itself, which is
/// bounded by the requests in flight and by what watches may have waiting.
///
/// Chosen: a hundred milliseconds of turns.
pub const GATEWAY_DELIVERIES_MAX: usize = 1_024;

/// Milliseconds for which a request of an etcd client may go on without an answer, beside two election timeouts.
///
/// Chosen: etcd's.
pub const GATEWAY_PATIENCE_MILLIS: u64 = 5_000;

/// Milliseconds after which a request that found no leader, and so was certainly not carried out, is tried again.
///
/// Chosen: a heartbeat; an election is noticed soon and not asked about more than ten times.
pub const GATEWAY_RETRY_MILLIS: u64 = 50;

/// Bytes of the pairs that are read at once where a range is read part after part.
///
/// Chosen: some hundred microseconds of a turn, and few enough that any number of clients may read so.
pub const RANGE_PART_BYTES: usize = 256 * 1_024;

/// Sessions under which one gateway writes.
///
/// Derived: all requests that it may have under way fit in their windows.
pub const GATEWAY_SESSIONS_MAX: usize = 16;

const _: () = assert!(
    GATEWAY_SESSIONS_MAX as u64 * SESSION_WINDOW >= GATEWAY_REQUESTS_MAX as u64,
    "whatever a gateway has under way can be stamped"
);
const _: () =
    assert!(9 * GATEWAY_SESSIONS_MAX < SESSIONS_MAX, "gateways leave room for native clients' sessions");

/// Bytes of messages of etcd clients that have begun and not ended, on all connections of a gateway.
///
/// Chosen: a hundred of the largest messages; whoever begins more is told to come back.
pub const GATEWAY_INBOUND_BYTES_MAX: usize = 256 * 1_024 * 1_024;

/// Milliseconds within which an etcd client must end a message that it has begun, and the body of a call of one message.
///
/// Chosen: the largest message in this time is a megabit a second.
pub const GATEWAY_MESSAGE_MILLIS_MAX: u64 = 20_000;

/// Bytes of long answers to etcd clients that are made and have not left, on all connections of a gateway.
///
/// Chosen: sixteen of the longest answers of the native protocol; whoever asks for more while others take nothing is told
/// to come back. One answer of any length is let through when nothing else waits.
pub const GATEWAY_OUTBOUND_BYTES_MAX: usize = 256 * 1_024 * 1_024;

/// Bytes of an answer that are handed to HTTP at once, and so much of one stream waits there for its client.
///
/// Chosen: one frame of HTTP/2 as clients take them unasked; four of them wait.
pub const GATEWAY_PIECE_BYTES: usize = 16 * 1_024;

/// Streams that an etcd client has opened and broken off again, or that were broken off for its mistakes, and that are not
/// put away yet. Beyond it its connection ends.
///
/// Chosen: nobody who means well breaks off more in the time of a turn.
pub const GATEWAY_STREAMS_RESET_MAX: usize = 256;
