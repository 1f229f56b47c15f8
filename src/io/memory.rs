//! How this process takes memory from the kernel.
//!
//! Always: this changes when system calls are made, and never what is allocated. Left out: how much is allocated.

/// Bytes by which the heap of a thread grows.
///
/// Chosen: what glibc lays out for one at a time. It would open it page by page, with a system call for each, which was 14 % of
/// the time of a follower that receives a snapshot. What is opened and not used takes no memory; what was used and is free
/// again stays for that thread to use.
#[cfg(target_env = "gnu")]
const GROWTH_BYTES: libc::c_int = 64 << 20;

/// Bytes from which an allocation is a mapping of its own.
///
/// Chosen: above chunks of snapshots and what a turn reads and writes, which would be mapped, cleared and unmapped each time;
/// below tables that double, which the kernel moves without copying them.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES_MIN: libc::c_int = 4 << 20;

/// What the allocator is told.
#[cfg(target_env = "gnu")]
const PARAMETERS: [(libc::c_int, libc::c_int); 2] =
    [(libc::M_TOP_PAD, GROWTH_BYTES), (libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)];

/// Has the allocator ask for memory rarely, and much of it. Where the allocator is not glibc's, it stays as it is.
pub fn take_memory_in_large_steps() {
    #[cfg(target_env = "gnu")]
    for (parameter, bytes) in PARAMETERS {
        // SAFETY: this sets one number of the allocator's, before the threads of shards start; whoever allocates at
        // the same time goes by the old one or the new. A refusal leaves what there was.
        unsafe { libc::mallopt(parameter, bytes) };
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    #[test]
    fn the_allocator_takes_what_it_is_told() {
        for (parameter, bytes) in PARAMETERS {
            // SAFETY: as above.
            assert_eq!(unsafe { libc::mallopt(parameter, bytes) }, 1);
        }
    }
}
