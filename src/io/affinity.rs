//! Which CPUs a thread may run on, and for how long at a stretch.
//!
//! Always: a thread is pinned only to CPUs that this process may use; a CPU that is chosen without being named is
//! claimed, so that members which share a machine do not all choose the same one; whoever started this process with a
//! priority or a policy of scheduling keeps it. Left out: who is pinned where.

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

/// Asks for slices of `micros` of a CPU for this thread, and for those it starts from now on. Where several wait for a CPU the
/// kernel runs first who wants it for the shortest time (EEVDF), so a thread that wakes up often and runs briefly waits less
/// for those that run long. Kernels before 6.12 take no notice.
///
/// # Errors
/// The kernel's.
pub fn take_slices_of(micros: u64) -> io::Result<()> {
    let mut wanted = scheduling()?;
    let is_fair = i32::try_from(wanted.sched_policy) == Ok(libc::SCHED_OTHER);
    if !is_fair {
        return Ok(());
    }
    wanted.sched_runtime = micros * 1_000;
    // SAFETY: the kernel reads as many bytes as `size` says, which is what is there.
    let code = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wanted, 0) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How this thread is scheduled.
fn scheduling() -> io::Result<libc::sched_attr> {
    let size = u32::try_from(size_of::<libc::sched_attr>()).unwrap_or(u32::MAX);
    let mut found = libc::sched_attr {
        size,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes at most `size` bytes, which is what is there.
    let code = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut found, size, 0) };
    if code == 0 { Ok(found) } else { Err(io::Error::last_os_error()) }
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

    #[test]
    fn a_thread_that_asks_for_short_slices_gets_them_and_keeps_its_priority() {
        std::thread::spawn(|| {
            let before = scheduling().expect("the kernel tells");
            take_slices_of(200).expect("anybody may");
            let after = scheduling().expect("the kernel tells");
            assert_eq!((after.sched_policy, after.sched_nice), (before.sched_policy, before.sched_nice));
            let is_known = before.sched_runtime > 0;
            assert_eq!(after.sched_runtime, if is_known { 200_000 } else { 0 });
        })
        .join()
        .expect("it ends well");
    }
}
