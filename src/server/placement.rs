//! Which thread runs on which CPU (DESIGN §5).
//!
//! A shard thread is pinned where `--cpus` says, or by choice if the machine has more CPUs than this process has
//! threads; then the other threads keep off its CPU. On a small machine nobody is pinned: three members on a laptop
//! are better off where the scheduler puts them. Left out: the system calls (`io`).

use super::{ServerConfig, ServerError};
use crate::io::CpuClaim;
use crate::limits::SCHEDULER_SLICE_MICROS;
use tracing::debug;

/// Threads of a process beside its shards: bulk, gateway, signals, and the one that waits for all of them.
const OTHER_THREADS_COUNT: usize = 4;

/// Where one shard's threads run.
#[derive(Debug, Default)]
pub(super) struct Placement {
    /// The CPU of the shard thread; `None`: any.
    pub(super) shard_cpu: Option<u32>,
    /// The CPUs of the threads that work for it; empty: any.
    pub(super) other_cpus: Vec<u32>,
    /// Keeps a CPU that was chosen from being chosen by others.
    _claim: Option<CpuClaim>,
}

/// Where the shards run, one placement each.
///
/// # Errors
/// `ServerError::Cpus`: a CPU that was asked for is not to be had.
pub(super) fn place(config: &ServerConfig) -> Result<Vec<Placement>, ServerError> {
    let shards = 0..config.shards as usize;
    let allowed = match crate::io::allowed_cpus() {
        Ok(allowed) => allowed,
        // Nobody asked for a place, so any will do.
        Err(_) if config.cpus.is_empty() => return Ok(shards.map(|_| Placement::default()).collect()),
        Err(source) => return Err(ServerError::Kernel(source)),
    };
    if let Some(missing) = config.cpus.iter().find(|cpu| !allowed.contains(cpu)) {
        return Err(ServerError::Cpus { missing: *missing, allowed });
    }
    if !config.cpus.is_empty() {
        let named = |shard| Some(config.cpus[shard % config.cpus.len()]);
        return Ok(shards.map(|shard| beside(&config.cpus, config.shards as usize, named(shard))).collect());
    }
    if !is_roomy(allowed.len(), config.shards as usize) {
        return Ok(shards.map(|_| Placement::default()).collect());
    }
    let mut placements = Vec::new();
    for _ in shards {
        // From the far end: interrupts are mostly served on the first CPUs.
        let claim = crate::io::claim_cpu(allowed.iter().rev().copied());
        let others: Vec<u32> =
            allowed.iter().copied().filter(|cpu| claim.as_ref().is_none_or(|it| it.cpu != *cpu)).collect();
        let shard_cpu = claim.as_ref().map(|claim| claim.cpu);
        placements.push(Placement { shard_cpu, other_cpus: others, _claim: claim });
    }
    Ok(placements)
}

/// Whether a machine has so many CPUs that each thread may have one to itself.
const fn is_roomy(cpus_count: usize, shards_count: usize) -> bool {
    cpus_count > shards_count + OTHER_THREADS_COUNT
}

/// A shard on `shard_cpu`, and its other threads on what `cpus` holds beyond the shards' own; on all of them if that
/// is nothing.
fn beside(cpus: &[u32], shards_count: usize, shard_cpu: Option<u32>) -> Placement {
    let left = cpus.get(shards_count..).unwrap_or_default();
    let other_cpus = if left.is_empty() { cpus } else { left }.to_vec();
    Placement { shard_cpu, other_cpus, _claim: None }
}

/// Has this thread run soon after it wakes up, where it shares a CPU: with other members, with whoever uses them, or with the
/// threads of this member that read and write a lot.
pub(super) fn take_short_slices() {
    if let Err(error) = crate::io::take_slices_of(SCHEDULER_SLICE_MICROS) {
        debug!(%error, "this thread has the slices that the kernel gives to all");
    }
}

#[cfg(test)]
mod tests {
    use super::{beside, is_roomy};

    #[test]
    fn threads_are_pinned_by_themselves_only_where_each_can_have_a_cpu() {
        assert!(!is_roomy(2, 1));
        assert!(!is_roomy(5, 1));
        assert!(is_roomy(6, 1));
        assert!(!is_roomy(6, 2));
    }

    #[test]
    fn other_threads_keep_off_the_cpus_of_the_shards_if_there_are_more() {
        assert_eq!(beside(&[4], 1, Some(4)).other_cpus, [4]);
        assert_eq!(beside(&[4, 6, 7], 1, Some(4)).other_cpus, [6, 7]);
        assert_eq!(beside(&[4, 6], 2, Some(6)).other_cpus, [4, 6]);
    }
}
