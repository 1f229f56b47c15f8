//! Rare events, counted where they happen, so that a campaign can say which it never met.
//!
//! A test that never reaches a branch says nothing about it. So the interesting branches are marked with
//! `sometimes!(Name)`, each by a name in the table below, and `mainstay sim` reports how often each was passed.
//! Nothing ever reads a count but that report: no code may depend on one.
//!
//! Always: a mark costs one addition to a number of this thread's own, about a nanosecond, and changes nothing else.

use std::cell::Cell;

/// Marks a place that a simulation should pass sometimes.
#[macro_export]
macro_rules! sometimes {
    ($marker:ident) => {
        $crate::sometimes::pass($crate::sometimes::Marker::$marker)
    };
}

macro_rules! markers {
    ($($marker:ident $name:literal),* $(,)?) => {
        /// The places marked.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Marker {
            $($marker),*
        }

        impl Marker {
            /// Every place marked.
            pub const ALL: &[Self] = &[$(Self::$marker),*];

            /// Its name in a report.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$marker => $name),*
                }
            }
        }
    };
}

markers! {
    // Elections.
    PreVoteWon "pre_vote_won",
    PreVoteRefusedByStickiness "pre_vote_refused_by_stickiness",
    PreVoteRefusedForLog "pre_vote_refused_for_log",
    VoteIgnoredByStickiness "vote_ignored_by_stickiness",
    VoteRefused "vote_refused",
    CampaignWithoutAResult "campaign_without_a_result",
    CampaignDeferredForHole "campaign_deferred_for_hole",
    CampaignDeferredForDisk "campaign_deferred_for_disk",
    LeaderWithoutMajority "leader_without_majority",
    LeaderOutrunByOthersDisks "leader_outrun_by_others_disks",
    TurnHadNoTimeForAll "turn_had_no_time_for_all",
    WatchesFellBehindTogether "watches_fell_behind_together",
    TransferOrdered "transfer_ordered",
    TransferObeyed "transfer_obeyed",
    TransferTimedOut "transfer_timed_out",
    // Replication.
    BatchHeldForPeers "batch_held_for_peers",
    UncommittedEntriesOverwritten "uncommitted_entries_overwritten",
    AppendInConflict "append_in_conflict",
    AckOfAnotherSession "ack_of_another_session",
    HeldMessageOutdated "held_message_outdated",
    PriorTermEntriesCommitted "prior_term_entries_committed",
    // Holes.
    HoleFilledByLeader "hole_filled_by_leader",
    HoleFilledByAnyPeer "hole_filled_by_any_peer",
    HoleOfAReplacedLog "hole_of_a_replaced_log",
    FillSteppedDown "fill_stepped_down",
    IslandContradicted "island_contradicted",
    FollowerRepaired "follower_repaired",
    // Snapshots.
    SnapshotOffered "snapshot_offered",
    SnapshotOfferedAnew "snapshot_offered_anew",
    SnapshotStateLeft "snapshot_state_left",
    SnapshotChunkSentAgain "snapshot_chunk_sent_again",
    SnapshotNeedless "snapshot_needless",
    StaleSnapshotChunk "stale_snapshot_chunk",
    SnapshotRefused "snapshot_refused",
    SnapshotInstalled "snapshot_installed",
    SnapshotInstalledInVain "snapshot_installed_in_vain",
    SnapshotInstalledOverHole "snapshot_installed_over_hole",
    SnapshotInstalledOverConflict "snapshot_installed_over_conflict",
    // Reads.
    ReadUnderLease "read_under_lease",
    BoundedReadHere "bounded_read_here",
    BoundedReadRefused "bounded_read_refused",
    CommitDeferredForLease "commit_deferred_for_lease",
    LeaseReleasedToUs "lease_released_to_us",
    LeaseRenewedByNoOp "lease_renewed_by_no_op",
    LeaseBegunLate "lease_begun_late",
    ReadRoundFailed "read_round_failed",
    ReadWaitedForApply "read_waited_for_apply",
    // Clients.
    RetryAnsweredFromMemory "retry_answered_from_memory",
    SequenceForgotten "sequence_forgotten",
    SessionExpired "session_expired",
    SessionUnknown "session_unknown",
    SessionClosed "session_closed",
    ClosingOfUnknownSession "closing_of_unknown_session",
    WriteAfterClosing "write_after_closing",
    BareWriteApplied "bare_write_applied",
    BareWriteInDoubt "bare_write_in_doubt",
    ResponseTooLongToRemember "response_too_long_to_remember",
    ProposalAbandoned "proposal_abandoned",
    ForwardAnswered "forward_answered",
    ForwardAnsweredEarly "forward_answered_early",
    ForwardLostWithLeader "forward_lost_with_leader",
    ForwardTimedOut "forward_timed_out",
    ForwardDoubled "forward_doubled",
    ForwardOfAnotherTerm "forward_of_another_term",
    // Leases.
    LeaseRanOut "lease_ran_out",
    LeaseCheckpointed "lease_checkpointed",
    LeaseStartedFromCheckpoint "lease_started_from_checkpoint",
    LeaseRenewedThroughTheLog "lease_renewed_through_the_log",
    // Users.
    WriteNotPermitted "write_not_permitted",
    // Space.
    SpaceAlarmProposed "space_alarm_proposed",
    // Watches.
    WatchCaughtUpFromHistory "watch_caught_up_from_history",
    WatchWithoutRoom "watch_without_room",
    WatchBatchCut "watch_batch_cut",
    WatchFutureReached "watch_future_reached",
    WatchEndedByCompaction "watch_ended_by_compaction",
    WatchToldProgress "watch_told_progress",
    // The log on disk.
    SegmentSwitched "segment_switched",
    SegmentFreed "segment_freed",
    SegmentRecycled "segment_recycled",
    WriteWaitedForSegment "write_waited_for_segment",
    Sealed "sealed",
    TornTailDropped "torn_tail_dropped",
    OldTearPassed "old_tear_passed",
    FrameAstray "frame_astray",
    FrameLostInTheMiddle "frame_lost_in_the_middle",
    FirstWriteOfSegmentDropped "first_write_of_segment_dropped",
    RecoveredWithHole "recovered_with_hole",
    // Snapshots.
    SnapshotCut "snapshot_cut",
    SnapshotGivenUp "snapshot_given_up",
    SnapshotFoundDamaged "snapshot_found_damaged",
    SnapshotUnreadable "snapshot_unreadable",
    SnapshotDistrusted "snapshot_distrusted",
    LogTrimmed "log_trimmed",
    StartedFromSnapshot "started_from_snapshot",
    StartedFromOlderSnapshot "started_from_older_snapshot",
    InstallBegunAnew "install_begun_anew",
    InstallRefused "install_refused",
    InstallFinished "install_finished",
    InstallOfWhatWasKnown "install_of_what_was_known",
    // Members.
    StatesCompared "states_compared",
    FounderAdoptedRecord "founder_adopted_record",
    WipedMemberRefused "wiped_member_refused",
    MemberMuted "member_muted",
    TooManyProposalsWait "too_many_proposals_wait",
    TooManyReadsWait "too_many_reads_wait",
}

thread_local! {
    static PASSED: [Cell<u64>; Marker::ALL.len()] = const { [const { Cell::new(0) }; Marker::ALL.len()] };
}

/// A place was passed, by this thread.
pub fn pass(marker: Marker) {
    PASSED.with(|passed| {
        if let Some(count) = passed.get(marker as usize) {
            count.set(count.get().wrapping_add(1));
        }
    });
}

/// How often this thread passed each place since it was asked last.
pub fn take() -> impl Iterator<Item = (Marker, u64)> {
    Marker::ALL.iter().map(|marker| {
        let count = PASSED.with(|passed| passed.get(*marker as usize).map_or(0, Cell::take));
        (*marker, count)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_counted_once_each_time_it_is_passed() {
        take().for_each(drop);
        sometimes!(Sealed);
        sometimes!(Sealed);
        let counts: Vec<_> = take().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counts, [(Marker::Sealed, 2)]);
        assert_eq!(take().map(|(_, count)| count).sum::<u64>(), 0);
    }
}
