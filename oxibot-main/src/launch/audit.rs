//! Starting the toolhost's program to read its log, which only it may: key and records are its own.
//!
//! For `audit`. What comes back are the records as they lie, or a report; they hold what strangers wrote, and whoever
//! shows them makes them harmless.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::LaunchError;
use super::binary::find_toolhost;

/// Starts the reader of the log below `home`. Its standard error is ours; its input is closed unless it is wanted.
///
/// # Errors
/// As [`find_toolhost`], and [`LaunchError::System`] when it cannot be started.
pub fn audit_reader(home: &Path, wish: &[OsString], input: bool) -> Result<Child, LaunchError> {
    let program = find_toolhost()?;
    Command::new(program.by_descriptor())
        .arg("audit")
        .arg("--home")
        .arg(home)
        .args(wish)
        .env_clear()
        .current_dir("/")
        .stdin(if input { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(LaunchError::system("start the reader of the audit log"))
}
