//! Which CPUs a thread may run on.
//!
//! Always: a thread is pinned only to CPUs that this process may use; a CPU that is chosen without being named is
//! claimed, so that members which share a machine do not all choose the same one. Left out: who is pinned where.

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, socket};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io;
use std::os::fd::OwnedFd;

/// The CPUs that this thread may run on, in ascending order.
///
/// # Errors
/// The kernel's; in practice only that it has more CPUs than the set can name.
pub fn allowed_cpus() -> io::Result<Vec<u32>> {
    let set = sched_getaffinity(None)?;
    let numbers = 0..u32::try_from(CpuSet::MAX_CPU).unwrap_or(u32::MAX);
    Ok(numbers.filter(|&cpu| set.is_set(cpu as usize)).collect())
}

/// Lets this thread, and those it starts from now on, run on `cpus` only.
///
/// # Errors
/// The kernel's, among them that none of these CPUs is this process's to use.
pub fn run_on(cpus: &[u32]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu as usize);
    }
    sched_setaffinity(None, &set)?;
    Ok(())
}

/// A CPU that is ours among all processes that ask in this way; it is free again when the last holder is gone, also
/// after a kill.
#[derive(Debug)]
pub struct CpuClaim {
    /// The CPU.
    pub cpu: u32,
    /// A name in the abstract namespace, which the kernel gives to one socket at a time.
    _name: OwnedFd,
}

/// Claims the first of `cpus` that nobody has claimed.
pub fn claim_cpu(cpus: impl IntoIterator<Item = u32>) -> Option<CpuClaim> {
    cpus.into_iter().find_map(|cpu| {
        let name = SocketAddrUnix::new_abstract_name(format!("mainstay-cpu-{cpu}").as_bytes()).ok()?;
        let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None).ok()?;
        bind(&socket, &name).ok()?;
        Some(CpuClaim { cpu, _name: socket })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_runs_on_its_cpu_and_a_claimed_cpu_is_not_claimed_again() {
        let cpus = allowed_cpus().expect("the kernel tells");
        let far = 1_000_000;
        let claim = claim_cpu([far, far + 1]).expect("nobody else claims CPUs that do not exist");
        let second = claim_cpu([far, far + 1]).expect("the next one is free");
        assert_eq!((claim.cpu, second.cpu), (far, far + 1));
        drop(claim);
        assert_eq!(claim_cpu([far]).map(|claim| claim.cpu), Some(far));
        let chosen = cpus.last().copied().expect("this thread runs somewhere");
        std::thread::spawn(move || {
            run_on(&[chosen]).expect("it is allowed");
            assert_eq!(allowed_cpus().expect("the kernel tells"), [chosen]);
        })
        .join()
        .expect("the pinned thread ends well");
        assert!(run_on(&[]).is_err(), "a thread must run somewhere");
    }
}
