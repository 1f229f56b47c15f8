//! Which binary of mainstay is broken and measured.
//!
//! What always holds: without `--program` it is built from this very tree first, so that nothing old is looked at.
//! What it leaves out: other versions, which `--program` names.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The binary to run: the one that was named, or the one built now, in the profile this program was built in.
pub(crate) fn find(named: Option<&Path>) -> io::Result<PathBuf> {
    if let Some(named) = named {
        return std::fs::canonicalize(named);
    }
    let own = std::env::current_exe()?;
    let folder = own.parent().ok_or_else(|| io::Error::other("this program is in no directory"))?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if !root.is_dir() {
        let why = "the tree this program was built from is gone; name a binary of mainstay with --program";
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(root).args(["build", "--quiet", "--bin", "mainstay"]);
    // Both packages, so that dependencies have the features with which this program was built, and are not built twice.
    build.args(["--package", "mainstay", "--package", "bench-harness"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    // What stands in this folder is also what tests with planted bugs run; they would look for bugs that are not there.
    if mainstay::planted::IS_COMPILED {
        build.args(["--features", "mainstay/planted"]);
    }
    if !build.status()?.success() {
        return Err(io::Error::other("mainstay does not build; mend that, or name a binary with --program"));
    }
    Ok(folder.join("mainstay"))
}
