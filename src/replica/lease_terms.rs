//! How long leaders answer reads alone, as the log says it: in the no-op that begins a term, and in snapshots.
//!
//! ```text
//!   body of a no-op:  Δ in microseconds, u64 │ ρ in parts per million, u32      (little-endian)
//!                     nothing, or a Δ of 0: the leader of this term does not answer alone on what comes next
//! ```
//!
//! Always: the leader of a term answers alone only on entries from a no-op of its own on that says for how long, and for no
//! longer; so whoever could lead after it holds that no-op, and a new leader waits for the longest of those that may still
//! count: the newest one applied (its leader had itself waited for all before) and all that are not applied yet. What a newer
//! build may have written counts as the longest there is. A no-op says so only while every other voter is known to wait for
//! leases when it comes to lead: members of peer versions before 4 do not (`PEER_VERSION_WAITING`). Whoever starts such a
//! version again, where there are leases, first starts all members with `--read-mode quorum`.
//! Left out: when a lease is valid, and what is waited for (`raft`).

use super::Output;
use super::group::Replica;
use super::propose::Proposal;
use crate::auth::Who;
use crate::ids::{BootMicros, LogIndex, MemberId};
use crate::limits::{LEADER_DRIFT_PPM_MAX, LEADER_LEASE_MICROS_MAX};
use crate::peer::PEER_VERSION_WAITING;
use crate::raft::{Position, RoleName};
use crate::{planted, sometimes};
use bytes::Bytes;
use wal_format::EntryKind;

/// How long a leader answers reads alone after it appended an entry, and how wrong clocks may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseTerms {
    /// Δ, in microseconds on the leader's clock; 0 for never.
    pub micros: u64,
    /// ρ: a clock runs fast or slow by no more than so many parts in a million.
    pub drift_ppm: u32,
}

impl LeaseTerms {
    /// No leader answers alone.
    pub const NONE: Self = Self { micros: 0, drift_ppm: 0 };

    /// What is assumed of what this build does not understand.
    const UNKNOWN: Self = Self { micros: LEADER_LEASE_MICROS_MAX, drift_ppm: LEADER_DRIFT_PPM_MAX };

    /// The longest lease that a new leader waits for no longer than an election takes at the least, but for a microsecond.
    #[must_use]
    pub fn derived(election_micros: u64, drift_ppm: u32) -> Self {
        let drift = u64::from(drift_ppm.min(LEADER_DRIFT_PPM_MAX));
        let micros = election_micros.saturating_mul(1_000_000 - drift) / (1_000_000 + drift);
        Self { micros: micros.min(LEADER_LEASE_MICROS_MAX), drift_ppm: drift_ppm.min(LEADER_DRIFT_PPM_MAX) }
    }

    /// How long a new leader waits for such a lease on its own clock: Δ(1+ρ)/(1−ρ), in microseconds, rounded up; and one more,
    /// because the instant that it waits from may be cut by almost one. Nothing if there is no lease.
    #[must_use]
    pub fn wait_micros(self) -> u64 {
        if self.micros == 0 {
            return 0;
        }
        let drift = u64::from(self.drift_ppm.min(LEADER_DRIFT_PPM_MAX));
        1 + self
            .micros
            .min(LEADER_LEASE_MICROS_MAX)
            .saturating_mul(1_000_000 + drift)
            .div_ceil(1_000_000 - drift)
    }

    /// Such a lease, if clocks may be as wrong as `drift_ppm` says as well.
    const fn with_drift(self, drift_ppm: u32) -> Self {
        let drift_ppm = if self.drift_ppm > drift_ppm { self.drift_ppm } else { drift_ppm };
        Self { drift_ppm, ..self }
    }

    /// The body of a no-op that says so; or, of the same length, that there is no lease yet.
    pub(super) fn encode(self, is_offered: bool) -> Bytes {
        if self.micros == 0 {
            return Bytes::new();
        }
        let micros = if is_offered { self.micros } else { 0 };
        let mut body = micros.to_le_bytes().to_vec();
        body.extend_from_slice(&self.drift_ppm.to_le_bytes());
        Bytes::from(body)
    }

    /// What a no-op says.
    pub(super) fn decode(body: &[u8]) -> Self {
        if body.is_empty() {
            return Self::NONE;
        }
        let Some((micros, Ok(drift))) =
            body.split_first_chunk::<8>().map(|(micros, rest)| (micros, <[u8; 4]>::try_from(rest)))
        else {
            return Self::UNKNOWN;
        };
        let terms = Self { micros: u64::from_le_bytes(*micros), drift_ppm: u32::from_le_bytes(drift) };
        let is_possible = terms.micros <= LEADER_LEASE_MICROS_MAX && terms.drift_ppm <= LEADER_DRIFT_PPM_MAX;
        match terms.micros {
            0 => Self::NONE,
            _ if is_possible => terms,
            _ => Self::UNKNOWN,
        }
    }
}

impl Replica {
    /// This member leads, and appended a no-op: it says in it for how long it answers alone, and waits until others do not.
    pub(super) fn begin_term(&mut self, now: BootMicros, noop: Position) {
        let record = self.encode_noop(noop);
        self.entries.put(noop.index, record);
        self.await_others_leases(now, noop.index);
        if self.may_lease() {
            self.node.lease_from(now, noop.index);
        }
    }

    /// A peer has said which version it speaks, and by that whether it waits for others' leases when it comes to lead.
    pub(super) fn note_peer(&mut self, peer: MemberId, version: u8) {
        let before = self.peer_versions.insert(peer, version);
        let has_waited = before.is_some_and(|before| before >= PEER_VERSION_WAITING);
        if has_waited && version < PEER_VERSION_WAITING {
            self.node.lease_no_more();
        }
    }

    /// Whether this member would lease, and whoever could lead next is known to wait for it.
    fn may_lease(&self) -> bool {
        self.setup.lease.micros > 0 && self.do_all_others_speak(PEER_VERSION_WAITING)
    }

    /// Whether every other voter is known to speak this version or a later one.
    pub(super) fn do_all_others_speak(&self, version: u8) -> bool {
        let mut others = self.setup.directories.keys().filter(|member| **member != self.setup.me);
        others.all(|member| self.peer_versions.get(member).is_some_and(|spoken| *spoken >= version))
    }

    /// It commits nothing while others may answer reads alone.
    fn await_others_leases(&mut self, now: BootMicros, noop: LogIndex) {
        let own_drift = self.setup.lease.drift_ppm;
        let mut wait_micros = self.lease_terms.with_drift(own_drift).wait_micros();
        let mut index = self.applied.next();
        // Catalogue 59: as if what the log says counted only once it is applied.
        while index < noop && !planted!(59) {
            let terms = self.entries.get(index).map_or(LeaseTerms::UNKNOWN, |record| terms_of(record));
            wait_micros = wait_micros.max(terms.with_drift(own_drift).wait_micros());
            index = index.next();
        }
        // Catalogue 47: as if all members were configured alike.
        if planted!(47) {
            wait_micros = self.setup.lease.wait_micros();
        }
        self.node.set_others_lease(now, wait_micros);
    }

    /// Reads come, and there is no lease, or it ends soon: a no-op begins one. Returns whether one was appended.
    fn renew_lease_if_due(&mut self, now: BootMicros) -> bool {
        let is_ageing = std::mem::take(&mut self.is_lease_ageing) && self.node.role() == RoleName::Leader;
        if !is_ageing || !self.may_lease() {
            return false;
        }
        let noop = self.noop(Who::Cluster);
        // A refusal only means that reads need rounds.
        let is_appended = self.propose(now, super::apply::Asker::Nobody, &noop).is_ok();
        if is_appended && self.node.leases_micros() == 0 {
            sometimes!(LeaseBegunLate);
            self.node.lease_from(now, self.node.last().index);
        } else if is_appended {
            sometimes!(LeaseRenewedByNoOp);
        }
        is_appended
    }

    /// What this member appends when its term begins, and to renew its lease.
    pub(super) fn noop(&self, who: Who) -> Proposal {
        let body = self.setup.lease.encode(self.may_lease());
        Proposal { kind: EntryKind::NoOp, keyspace: self.setup.keyspace, stamp: None, who, body }
    }

    /// Sends what this turn has gathered, and a no-op if the lease wants one.
    pub(super) fn flush(&mut self, now: BootMicros, outputs: &mut Vec<Output>) {
        self.consensus_alone(now, outputs, |node, out| node.flush(now, out));
        if self.renew_lease_if_due(now) {
            self.consensus_alone(now, outputs, |node, out| node.flush(now, out));
        }
    }
}

/// What an entry says of leases.
fn terms_of(record: &[u8]) -> LeaseTerms {
    match wal_format::decode_entry_again(record) {
        Ok((header, body)) if header.kind == EntryKind::NoOp => LeaseTerms::decode(body),
        Ok(_) => LeaseTerms::NONE,
        Err(_) => LeaseTerms::UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_no_op_says_is_read_back_and_what_is_not_understood_is_long() {
        let terms = LeaseTerms { micros: 299_700, drift_ppm: 500 };
        assert_eq!(LeaseTerms::decode(&terms.encode(true)), terms);
        assert_eq!(LeaseTerms::decode(&terms.encode(false)), LeaseTerms::NONE);
        assert_eq!(terms.encode(false).len(), terms.encode(true).len(), "the core knows one size");
        assert_eq!(LeaseTerms::decode(&LeaseTerms::NONE.encode(true)), LeaseTerms::NONE);
        for length in (1..20).filter(|length| *length != 12) {
            assert_eq!(LeaseTerms::decode(&vec![0; length]), LeaseTerms::UNKNOWN);
        }
        let too_long = LeaseTerms { micros: LEADER_LEASE_MICROS_MAX + 1, drift_ppm: 0 };
        assert_eq!(LeaseTerms::decode(&too_long.encode(true)), LeaseTerms::UNKNOWN);
    }

    #[test]
    fn the_wait_covers_the_lease_of_a_slow_clock_on_a_fast_one() {
        for drift_ppm in [0, 1, 500, 50_000, LEADER_DRIFT_PPM_MAX] {
            for micros in [1, 999, 300_000, LEADER_LEASE_MICROS_MAX] {
                let wait = u128::from(LeaseTerms { micros, drift_ppm }.wait_micros());
                let drift = u128::from(drift_ppm);
                assert!(wait * (1_000_000 - drift) >= u128::from(micros) * (1_000_000 + drift));
            }
        }
    }

    #[test]
    fn the_derived_lease_is_waited_for_no_longer_than_an_election_takes() {
        for (election_micros, drift_ppm) in [(300_000, 500), (150_000, 0), (1_000, 200_000)] {
            let terms = LeaseTerms::derived(election_micros, drift_ppm);
            assert!(terms.wait_micros() <= election_micros + 1 && terms.micros > 0);
        }
    }
}
