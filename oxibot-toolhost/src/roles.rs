//! Which process this is: `serve`, `nursery`, `zygote`, `files`, `settings`, `attack`.

use std::process::ExitCode;

/// Runs the role named by the first argument.
#[must_use]
pub fn run() -> ExitCode {
    ExitCode::from(2)
}
