//! Scenario scripts of the consensus core: text files in `testdata` that say what they show, then show it.
//!
//! A file begins with `#` sentences: the point of the scenario and where it comes from. Then blocks: command lines,
//! `---`, and what the commands did, as recorded; a blank line ends a block. `UPDATE=1 cargo test raft::script`
//! rewrites what is recorded, and the change is reviewed like code. A block that does not end as recorded, an `assert` that
//! fails, and a broken truth of `checks.rs` (examined after every step of every script) each fail the test.
//!
//! Nothing happens by itself. Messages wait in the queue of their link until delivered, writes wait until synced, and
//! each member's clock stands still until moved.
//!
//! ```text
//! cluster voters=1,2,3 [term= vote= commit= log=1..3@1,4@2] [election=300ms heartbeat=50ms lease=0ms seed=1 chunk=40]
//!                       a cluster whose disks all hold this; members start at the first command that needs them
//! member 2 [term= vote= commit= log= island=3@1:4@1,5@2]…
//!                       a member whose disk differs; an island is what survived above a hole, behind its predecessor
//! tick 1 +200ms         one clock moves; the member ticks at each of its deadlines on the way
//! advance 500ms         all clocks move together; nothing is delivered or synced
//! run 500ms             the same, with everything delivered and synced after each tick
//! settle                delivers and syncs until nothing is left to do; time stands still
//! campaign 1            moves one clock from deadline to deadline until that member asks for votes
//! deliver 1->2 [kind] [all]      the first message of a link (of a kind), or all that wait; `*` is everybody
//! drop, duplicate, hold, release, reorder     likewise; what is released joins the end of the queue
//! partition 1,2 | 3     members hear each other only inside a group they share (a bridge is in two)
//! cut 1->2, heal        one direction of a link; everything whole again
//! sync [1] [all]        the write in flight completes; with `all` also those that follow
//! stall 1, unstall 1    `settle` and `run` leave this member's writes in flight
//! crash 1 [landed]      loses what is not durable; `landed`: the write in flight made it to the disk
//! rot 1 3..4            the disk of a member that is down loses these entries; what lies above becomes an island
//! restart 1             the member comes back with what its disk holds, on a clock with another epoch
//! snapshot 1 [5] [size=100]      the member takes a snapshot of what it committed, or up to 5, of so many bytes
//! trim 1 [5]            it forgets its log up to 5, or as far as it may
//! store 2 [refused|switched]     the chunk on its way to a temporary file is durable; a whole snapshot is then verified,
//!                       gets its own name (`switched`: and no more) and is installed, or is refused
//! propose 1 [n=2] [size=100]     entries proposed in one turn
//! read 1 [n=2]          linearizable reads asked in one turn
//! transfer 1->2         leadership is to be handed over
//! inject 3->1 append_reply term=2 session=s1 round=0 matched=5     a forged or very late message arrives
//! show [1] [disk]       what members are; what their disks hold
//! show messages         what waits
//! assert leader 1|none; committed 3; committed-everywhere [upto=3]; log 2 1..3@1; same-logs; role 2 follower;
//!        term 2 3; vote 2 none; commit 2 3; hole 2 yes; last-on-disk 2 3@1; messages 1->2 [kind] count=0
//! ```
//!
//! Results name the member (`1: elected …`), the link (`1->2 append …`), or the write handed over (`1 writes …`). `settle`
//! and `run` leave out messages, writes and changes of the known leader, unless they are `loud`; any other command does
//! if it is `quiet`.

mod checks;
mod cluster;
mod commands;
mod disk;
mod notation;
mod walk;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use commands::Interpreter;

/// One test for each script, and the list of them.
macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        const SCRIPTS: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { play_as_recorded(stringify!($name)); })*
    };
}

scripts! {
    a_bridge_between_two_halves_lets_one_half_lead_undisturbed,
    a_caught_up_follower_leaves_the_snapshot_state,
    a_chain_of_members_keeps_a_stable_leader,
    a_cluster_that_loses_power_keeps_what_it_committed,
    a_conflict_hint_skips_a_whole_term,
    a_contradicted_end_is_named_until_the_contradiction_is_written,
    a_deposed_leader_answers_no_read,
    a_fill_still_names_an_end_that_is_not_refilled_yet,
    a_fill_supersedes_nothing_above_the_hole,
    a_follower_behind_the_kept_log_is_given_a_snapshot,
    a_follower_commits_no_further_than_it_matches_its_leader,
    a_follower_reads_through_the_leaders_read_index,
    a_forged_fill_changes_nothing,
    a_heartbeat_of_a_newer_term_changes_the_term_like_any_append,
    a_hole_is_filled_by_any_peer_that_holds_its_end,
    a_hole_is_filled_by_the_leader,
    a_hole_may_begin_below_what_the_damaged_frame_had_replaced,
    a_late_append_behind_a_snapshot_changes_nothing,
    a_late_append_does_not_cut_off_what_follows_it,
    a_late_sync_of_an_overwritten_entry_counts_for_nothing,
    a_late_timeout_now_is_ignored,
    a_leader_counts_itself_only_after_its_own_sync,
    a_leader_repairs_each_of_the_six_follower_logs_of_figure_7,
    a_leader_that_can_send_but_not_hear_steps_down,
    a_leader_that_hears_no_majority_for_an_election_timeout_steps_down,
    a_leader_whose_disk_stands_still_steps_down_once_another_goes_on,
    a_log_is_compared_by_its_last_term_before_its_length,
    a_lost_append_is_found_by_the_next_heartbeat,
    a_lost_read_round_is_repeated_by_the_next_heartbeat,
    a_member_comes_back_with_the_term_and_vote_of_its_disk,
    a_member_that_dies_between_snapshot_and_reset_comes_back_with_the_snapshot,
    a_member_that_hears_its_leader_ignores_who_wants_its_vote,
    a_member_whose_disk_stands_still_does_not_campaign,
    a_member_with_a_hole_acknowledges_only_the_contiguous_part,
    a_member_with_a_hole_is_never_made_leader,
    a_member_with_a_hole_votes_as_if_its_log_were_intact,
    a_new_leader_commits_nothing_while_another_may_answer_alone,
    a_pre_candidate_whose_term_is_behind_catches_up_and_campaigns_again,
    a_prior_term_entry_commits_only_with_one_of_the_own_term,
    a_probe_finds_where_logs_agree_then_appends_stream,
    a_read_before_the_no_op_of_the_term_is_committed_waits_for_it,
    a_read_round_serves_no_read_that_came_after_it_began,
    a_refused_or_late_vote_does_not_count,
    a_reply_that_cannot_be_true_counts_for_nothing,
    a_reply_that_waits_for_the_disk_is_dropped_when_the_term_moves_on,
    a_second_snapshot_takes_the_place_of_the_first,
    a_single_member_commits_only_what_its_disk_holds,
    a_snapshot_goes_on_with_the_next_leader_where_it_was,
    a_snapshot_takes_nothing_that_matches_above_its_end,
    a_snapshot_takes_the_place_of_a_conflicting_log,
    a_stale_doubled_or_empty_chunk_counts_for_nothing,
    a_stale_rejection_moves_nothing_back,
    a_stale_rejection_starts_no_second_snapshot,
    a_target_commits_at_once_what_its_leader_released,
    a_transfer_ends_with_the_term_of_its_leader,
    a_transfer_hands_leadership_over_at_once,
    a_transfer_that_does_not_end_in_time_is_given_up,
    a_vote_is_answered_only_when_it_is_durable,
    all_reads_of_a_turn_share_one_round,
    an_elected_leader_commits_its_no_op_and_every_member_follows,
    an_entry_of_a_higher_term_drops_an_island_before_it_is_reached,
    an_entry_that_contradicts_an_island_drops_it,
    an_order_that_comes_late_releases_only_what_it_names,
    appends_in_flight_are_bounded_by_a_window,
    appends_that_arrive_in_the_wrong_order_are_put_right,
    messages_that_arrive_twice_change_nothing,
    pre_vote_keeps_a_flapping_member_from_disturbing_the_leader,
    the_answer_to_one_read_request_never_serves_another,
    the_leader_fills_a_hole_below_what_was_replaced,
    the_own_term_entry_protects_the_prior_term_entry_below_it,
    the_reads_of_a_follower_fail_when_its_leader_changes,
    two_holes_in_one_log_are_filled_one_after_the_other,
    two_members_with_holes_at_different_places_repair_each_other,
    votes_split_between_candidates_are_decided_by_newly_drawn_timeouts,
}

/// Commands and what they did when last recorded.
struct Block {
    commands: Vec<String>,
    recorded: Vec<String>,
}

impl Block {
    /// Whether there is anything to run; a block of comments only is prose.
    fn has_commands(&self) -> bool {
        self.commands.iter().any(|line| !line.starts_with('#'))
    }
}

/// How a script went.
struct Played {
    blocks: Vec<Block>,
    /// Why it ended before its end.
    failure: Option<String>,
}

fn path(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/raft/testdata");
    if name.is_empty() { folder } else { folder.join(format!("{name}.txt")) }
}

fn parse(text: &str) -> Vec<Block> {
    let paragraphs = text.split("\n\n").map(str::trim_end).filter(|paragraph| !paragraph.is_empty());
    let parse_one = |paragraph: &str| {
        let mut lines = paragraph.trim_start_matches('\n').lines().map(str::to_owned);
        let commands = lines.by_ref().take_while(|line| line != "---").collect();
        Block { commands, recorded: lines.collect() }
    };
    paragraphs.map(parse_one).collect()
}

fn render(blocks: &[Block]) -> String {
    let mut text = String::new();
    for block in blocks {
        if !text.is_empty() {
            text.push('\n');
        }
        let separator = if block.recorded.is_empty() { None } else { Some("---") };
        let lines = block.commands.iter().map(String::as_str).chain(separator);
        for line in lines.chain(block.recorded.iter().map(String::as_str)) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Runs a script and gives it back with the results of this run.
fn play(text: &str) -> Played {
    let mut interpreter = Interpreter::default();
    let mut played = Played { blocks: Vec::new(), failure: None };
    for block in parse(text) {
        let mut results = Vec::new();
        for line in block.commands.iter().filter(|line| !line.starts_with('#')) {
            let ran = catch_unwind(AssertUnwindSafe(|| interpreter.run(line)));
            let (report, outcome) = ran.unwrap_or_else(|panic| (Vec::new(), Err(panic_text(panic.as_ref()))));
            results.extend(report);
            if let Err(reason) = outcome {
                results.push(format!("FAILED: {reason}"));
                played.failure = Some(format!("`{line}`: {reason}"));
                break;
            }
        }
        if results.is_empty() && block.has_commands() {
            results.push("ok".to_owned());
        }
        played.blocks.push(Block { commands: block.commands, recorded: results });
        if played.failure.is_some() {
            break;
        }
    }
    played
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    format!("panicked: {}", text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(no text)"))
}

/// Where two runs differ: the commands of each block, and the lines between its common start and end.
fn difference(recorded: &[Block], found: &[Block]) -> String {
    let mut text = String::new();
    for (before, now) in recorded.iter().zip(found).filter(|(before, now)| before.recorded != now.recorded) {
        let (old, new) = (&before.recorded, &now.recorded);
        let start = old.iter().zip(new).take_while(|(old, new)| old == new).count();
        let ends = old[start..].iter().rev().zip(new[start..].iter().rev());
        let end = ends.take_while(|(old, new)| old == new).count();
        let commands = before.commands.iter().map(|line| (' ', line));
        let old = old[start..old.len() - end].iter().map(|line| ('-', line));
        let new = new[start..new.len() - end].iter().map(|line| ('+', line));
        for (sign, line) in commands.chain(old).chain(new) {
            writeln!(text, "{sign} {line}").expect("writing to a string cannot fail");
        }
        text.push('\n');
    }
    text
}

fn play_as_recorded(name: &str) {
    let text = std::fs::read_to_string(path(name)).expect("every listed script has a file in testdata");
    assert!(text.starts_with("# "), "a script begins by saying what it shows");
    let played = play(&text);
    let recorded = parse(&text);
    let change = difference(&recorded, &played.blocks);
    if std::env::var_os("UPDATE").is_some() {
        let mut blocks = played.blocks;
        blocks.extend(recorded.into_iter().skip(blocks.len()));
        std::fs::write(path(name), render(&blocks)).expect("testdata can be written");
    } else {
        assert!(change.is_empty(), "{name} did not end as recorded (- recorded, + found):\n\n{change}");
    }
    if let Some(reason) = played.failure {
        panic!("{name} failed at {reason}\n\n{change}");
    }
}

#[test]
fn rewriting_a_script_keeps_what_was_written_by_hand() {
    for name in SCRIPTS {
        let text = std::fs::read_to_string(path(name)).expect("every listed script has a file in testdata");
        assert_eq!(render(&parse(&text)), text, "{name} is laid out as `UPDATE` lays it out");
    }
}

#[test]
fn every_file_in_testdata_is_a_listed_script() {
    let entries = std::fs::read_dir(path("")).expect("testdata exists");
    let names = entries.map(|entry| entry.expect("testdata can be listed").file_name());
    let mut found: Vec<String> =
        names.filter_map(|name| name.to_str()?.strip_suffix(".txt").map(str::to_owned)).collect();
    found.sort();
    let mut listed = SCRIPTS.to_vec();
    listed.sort_unstable();
    assert_eq!(listed, found, "the list `scripts!` and the files in testdata name the same scenarios");
}

/// Each planted bug of this room, the script that shows it, and what the script then fails at; empty if it only goes
/// otherwise than recorded.
#[cfg(feature = "planted")]
const PLANTED: &[(u32, &str, &str)] = &[
    (1, "a_prior_term_entry_commits_only_with_one_of_the_own_term", "asserted 0, found 2"),
    (10, "a_heartbeat_of_a_newer_term_changes_the_term_like_any_append", "asserted none, found 2"),
    (11, "a_snapshot_takes_the_place_of_a_conflicting_log", ""),
    (15, "a_pre_candidate_whose_term_is_behind_catches_up_and_campaigns_again", "asserted 7, found 2"),
    (16, "votes_split_between_candidates_are_decided_by_newly_drawn_timeouts", ""),
    (17, "a_refused_or_late_vote_does_not_count", "asserted candidate, found leader"),
    (18, "a_vote_is_answered_only_when_it_is_durable", "a vote leaves 2 before it is durable"),
    (19, "a_leader_counts_itself_only_after_its_own_sync", "1 committed 2@1; durable on 1 of 3 disks"),
    (
        22,
        "a_member_that_dies_between_snapshot_and_reset_comes_back_with_the_snapshot",
        "what the log starts from is committed",
    ),
    (23, "a_late_append_does_not_cut_off_what_follows_it", "commit never passes the end of the log"),
    (24, "a_snapshot_takes_nothing_that_matches_above_its_end", ""),
    (
        25,
        "a_second_snapshot_takes_the_place_of_the_first",
        "an acknowledged chunk leaves 2 before it is durable",
    ),
    (26, "a_stale_doubled_or_empty_chunk_counts_for_nothing", "does not go on with its file"),
    (28, "a_caught_up_follower_leaves_the_snapshot_state", "asserted yes, found no"),
    (29, "a_stale_rejection_moves_nothing_back", "an index cannot be both matched and unsent"),
    (31, "a_deposed_leader_answers_no_read", "a read that began after 3 was committed is answered at 1"),
    (
        33,
        "a_read_before_the_no_op_of_the_term_is_committed_waits_for_it",
        "a read that began after 3 was committed is answered at 0",
    ),
    (
        51,
        "a_fill_supersedes_nothing_above_the_hole",
        "names 6@2 as the end of the log for votes, but it is 2@1",
    ),
];

#[cfg(feature = "planted")]
#[test]
fn every_planted_bug_fails_its_script() {
    let mut unnoticed = String::new();
    for (bug, name, expected) in PLANTED {
        let text = std::fs::read_to_string(path(name)).expect("every listed script has a file in testdata");
        crate::planted::switch_on(*bug);
        let played = play(&text);
        crate::planted::switch_on(0);
        let change = difference(&parse(&text), &played.blocks);
        let failure = played.failure.unwrap_or_default();
        if change.is_empty() || !failure.contains(expected) {
            writeln!(unnoticed, "bug {bug} in {name}: failed at: {failure}\n{change}")
                .expect("writing to a string cannot fail");
        }
    }
    assert!(unnoticed.is_empty(), "planted bugs that their scripts do not show as expected:\n{unnoticed}");
}
