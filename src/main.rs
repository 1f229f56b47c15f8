//! The one binary: arguments in, one call out.

use std::process::ExitCode;

fn main() -> ExitCode {
    mainstay::cli::run()
}
