//! What each command does. Parsing the command line is not here.

pub mod agent;
pub mod config;
pub mod onboard;
pub mod sessions;
pub mod status;
pub mod usage;

/// Until the command line is joined.
#[must_use]
pub fn run() -> std::process::ExitCode {
    std::process::ExitCode::from(2)
}
