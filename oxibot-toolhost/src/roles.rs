//! Which process this is: `serve`, `nursery`, `zygote`, `files`, `settings`, `attack`.

use std::process::ExitCode;

/// Runs the role named by the first argument.
#[must_use]
pub fn run() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(role) if role == "files" => crate::files::role(),
        Some(_) | None => ExitCode::from(2),
    }
}
