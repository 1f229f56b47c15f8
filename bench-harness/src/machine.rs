//! On what machine, and of what commit, something was measured.
//!
//! What always holds: what cannot be found out is `null`, never a guess.

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Kernel, cores, processor, memory, and the file system that holds `directory`.
pub(crate) fn describe(directory: &Path) -> Value {
    json!({
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|release| release.trim().to_owned()),
        "cores": std::thread::available_parallelism().ok().map(usize::from),
        "cpu": field_of("/proc/cpuinfo", "model name"),
        "memory_bytes": field_of("/proc/meminfo", "MemTotal").and_then(|total| {
            Some(total.split_whitespace().next()?.parse::<u64>().ok()? * 1_024)
        }),
        "file_system": file_system_of(directory),
    })
}

/// The commit of this tree, `+` behind it if the tree has been changed since; `null` without git.
pub(crate) fn commit() -> Value {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "HEAD"]) else { return Value::Null };
    let is_changed = git(&["status", "--porcelain"]).is_none_or(|changes| !changes.is_empty());
    Value::from(format!("{commit}{}", if is_changed { "+" } else { "" }))
}

fn field_of(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The type of the mount that lies deepest above `directory`.
fn file_system_of(directory: &Path) -> Option<String> {
    let directory = fs::canonicalize(directory).ok()?;
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (place, kind) = (fields.next()?, fields.next()?);
        directory.starts_with(place).then(|| (place.len(), kind.to_owned()))
    });
    // Of two at the same place the later one hides the earlier, and `max_by_key` takes the last of equals.
    mounts.max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::describe;

    #[test]
    fn this_machine_can_be_described() {
        let machine = describe(&std::env::temp_dir());
        assert!(machine["cores"].as_u64().is_some_and(|cores| cores > 0), "{machine}");
        assert!(machine["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{machine}");
        assert!(machine["kernel"].is_string() && machine["file_system"].is_string(), "{machine}");
    }
}
