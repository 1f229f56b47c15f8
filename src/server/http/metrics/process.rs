//! What the kernel says of this process, under the names that Prometheus' own clients use.
//!
//! `etcdctl check datascale` reads the first of them. What the kernel does not tell is left out; nothing is made up. Left
//! out, too: the instant of the start, which would need a wall clock.

use std::fs;

/// What one clock tick of `/proc/self/stat` is: the kernel tells programs hundredths of a second, whatever its own ticks are.
const TICKS_PER_SECOND: u64 = 100;

/// Kind, name, help and value of each.
pub(super) fn told() -> Vec<(&'static str, &'static str, &'static str, String)> {
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    let (status, limits) = (read("/proc/self/status"), read("/proc/self/limits"));
    let open = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64);
    let whole = |number: Option<u64>| number.map(|number| number.to_string());
    [
        (
            "gauge",
            "process_resident_memory_bytes",
            "Bytes of memory in use.",
            whole(bytes(&status, "VmRSS:")),
        ),
        (
            "gauge",
            "process_virtual_memory_bytes",
            "Bytes of address space.",
            whole(bytes(&status, "VmSize:")),
        ),
        ("gauge", "process_open_fds", "Open file descriptors.", whole(open)),
        ("gauge", "process_max_fds", "File descriptors that may be open.", whole(descriptors_max(&limits))),
        (
            "counter",
            "process_cpu_seconds_total",
            "Seconds of CPU used.",
            cpu_seconds(&read("/proc/self/stat")),
        ),
    ]
    .into_iter()
    .filter_map(|(kind, name, help, value)| Some((kind, name, help, value?)))
    .collect()
}

/// The line `name` of `/proc/self/status`, which is in kibibytes.
fn bytes(status: &str, name: &str) -> Option<u64> {
    let kibibytes = status.lines().find_map(|line| line.strip_prefix(name))?.strip_suffix(" kB")?;
    kibibytes.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

/// The soft limit; none if there is no limit.
fn descriptors_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Those of the user and those of the system, which are fields 14 and 15 of `/proc/self/stat`. The program's name, which
/// may hold anything, ends with the last bracket.
fn cpu_seconds(stat: &str) -> Option<String> {
    let mut after_name = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let ticks = after_name.next()?.parse::<u64>().ok()?.checked_add(after_name.next()?.parse().ok()?)?;
    Some(format!("{}.{:02}", ticks / TICKS_PER_SECOND, ticks % TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read() {
        let status = "Name:\tmainstay\nVmSize:\t  225400 kB\nVmRSS:\t    1234 kB\nThreads:\t1\n";
        assert_eq!(bytes(status, "VmRSS:"), Some(1_234 * 1_024));
        assert_eq!(bytes(status, "VmSwap:"), None);
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 4096                 files     \n";
        assert_eq!(descriptors_max(limits), Some(1_024));
        assert_eq!(descriptors_max(&limits.replace("1024", "unlimited")), None);
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 90 91 92 93 1205 302 0 0 20 0 3 0 400 1 2";
        assert_eq!(cpu_seconds(stat), Some("15.07".to_owned()));
        assert_eq!(cpu_seconds("cut off"), None);
    }

    #[test]
    fn this_process_has_all_of_them() {
        let told = told();
        assert!(told.len() >= 4, "{told:?}");
        assert!(told[0].3.parse::<u64>().expect("a number") > 100_000, "{told:?}");
    }
}
