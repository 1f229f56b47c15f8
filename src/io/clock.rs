//! This boot's own clock: monotonic, and going on while the machine is suspended.

use crate::ids::BootMicros;
use rustix::time::{ClockId, clock_gettime};

/// Now, in microseconds of `CLOCK_BOOTTIME` (DESIGN §9: a lease must not survive a suspended machine).
pub fn now() -> BootMicros {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).expect("the boot clock counts up from zero");
    let nanos = u64::try_from(time.tv_nsec).expect("a fraction of a second is not negative");
    BootMicros(seconds * 1_000_000 + nanos / 1_000)
}

/// A number nobody can foresee, for everything that is random in one boot.
///
/// # Errors
/// The kernel's; in practice none.
pub fn random_seed() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_le_bytes(bytes))
}
