//! The bugs that can be switched on with the feature `planted`, by their catalogue numbers (RELIABILITY §6).
//!
//! Always: this table and the `planted!(N)` lines in the source name the same bugs; a test of the source says so.

/// A bug that the simulator must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlantedBug {
    /// Its number in the catalogue.
    pub number: u32,
    /// What is wrong, in a few words.
    pub name: &'static str,
}

const fn bug(number: u32, name: &'static str) -> PlantedBug {
    PlantedBug { number, name }
}

/// Every bug that is planted somewhere.
pub const PLANTED_BUGS: &[PlantedBug] = &[
    bug(1, "an entry of an earlier term committed by counting"),
    bug(10, "a heartbeat path that changes the term outside the core"),
    bug(11, "a snapshot that keeps a conflicting suffix"),
    bug(12, "a leadership transfer that is never given up"),
    bug(13, "a leader that goes on answering reads alone after it ordered another to campaign"),
    bug(14, "a leader that hears no majority goes on leading"),
    bug(15, "a pre-vote refused without a word, so that a pre-candidate stays behind its term"),
    bug(16, "election timeouts without jitter"),
    bug(17, "an observed vote counted as granted"),
    bug(18, "a vote answered before it is durable"),
    bug(19, "a leader that counts itself before its own sync"),
    bug(20, "a single member that answers before its log is written"),
    bug(21, "a snapshot that names another entry than its state ends with"),
    bug(22, "a commit index that forgets what the snapshot holds"),
    bug(23, "a late append that truncates matching entries"),
    bug(24, "a snapshot that takes away what matches above it"),
    bug(25, "a snapshot that goes on where the one before it had come to"),
    bug(26, "a stale, doubled or empty chunk taken for the next"),
    bug(27, "an opening that forgets the membership once there is a snapshot"),
    bug(28, "a follower that caught up left in snapshot state"),
    bug(29, "a stale rejection that moves next back"),
    bug(30, "positions compared index before term"),
    bug(31, "a read index confirmed by rounds that began before the read"),
    bug(32, "a leader's lease looked at before the reads came"),
    bug(33, "a read before the term's no-op is committed"),
    bug(34, "client leases renewed by a leader that was deposed and does not know it"),
    bug(35, "a retry applied twice"),
    bug(36, "a permission decided by the member that takes the request, outside apply"),
    bug(37, "a watch from now on that begins at whatever its member has"),
    bug(38, "a revision that goes back when what it deleted was compacted"),
    bug(39, "a bad frame taken for a torn tail although valid ones follow"),
    bug(42, "writes that are not synced"),
    bug(43, "a recycled segment's old frames taken for its own"),
    bug(44, "padding outside the checksum"),
    bug(45, "a leader whose own disk stands still goes on leading"),
    bug(46, "a commit that waits for the slowest member"),
    bug(47, "a new leader that waits for a lease as long as its own"),
    bug(48, "a wiped disk that takes up its old place"),
    bug(50, "an instant of another clock: of another member, or another boot"),
    bug(51, "a fill written as an append, which supersedes the entries above the hole"),
    bug(52, "a lease released by a flag, then a late order to campaign"),
    bug(54, "a frame that does not repeat the tails of the frame before it"),
    bug(56, "a new leader counting TTLs down before its first own-term commit"),
    bug(57, "holes that only the leader may fill"),
    bug(58, "a retry told *not done* while its first copy is still on the way"),
    bug(59, "a new leader that waits only for the leases that it has applied the length of"),
    bug(101, "a deletion of nothing that makes a revision"),
    bug(102, "compares evaluated after the writes"),
    bug(103, "changes of one transaction at two revisions"),
    bug(104, "a read of the past that overlooks deletions"),
    bug(105, "a frame believed where a disk wrote it by mistake"),
    bug(106, "a founding of members that do not all know the same directories"),
    bug(107, "a forward proposed twice when its frame comes twice"),
    bug(108, "a closed session that still takes writes"),
    bug(134, "a failover that resets the TTLs of client leases"),
    bug(135, "client leases counted down by a leader that was deposed"),
    bug(136, "a key that goes to another lease stays with the first as well"),
    bug(147, "the length of leases lost with a snapshot"),
    bug(149, "a lease checked against ticks instead of time"),
    bug(150, "the clock read before the inputs are drained"),
    bug(151, "an age counted from the answer, not from the asking"),
    bug(152, "a confirmed index taken for applied when the age is told"),
    bug(371, "a watch with a history to be told is told what is new before it"),
    bug(372, "a watch without room is not told what it missed"),
    bug(373, "a watch without room is told its last revision again"),
    bug(374, "a compaction drops the changes of the compacted revision, deletions among them"),
    bug(375, "progress named to a watch that was not told everything"),
    bug(376, "a watch from a revision yet to come is told what comes before it"),
    bug(377, "a part of a revision told as all of it"),
    bug(421, "a snapshot whose last bytes are not synced before it counts"),
];
