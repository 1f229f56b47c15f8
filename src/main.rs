//! The one binary: arguments in, one call out.

use std::process::ExitCode;

/// Faster than the system's where many small buffers come and go, and kinder to a process that lives for months.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mainstay::cli::run()
}
