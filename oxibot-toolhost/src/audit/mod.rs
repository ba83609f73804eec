//! The audit log as it lies on disk: a keyed chain of JSON lines, how it is told apart from a damaged one, and how it
//! is read.
//!
//! Reading order: `key` (the secret everything hangs on), `chain` (one record: sealed, checked), `place` (which files
//! there are), `heads` (what a new chain says of the earlier ones), `verify` (the whole), `read` (role `audit`, for
//! people). Writing is the supervisor's and in `supervise::audit`. Nothing here decides what is recorded, and nothing
//! here changes a record.

pub(crate) mod chain;
pub(crate) mod heads;
pub(crate) mod key;
pub(crate) mod place;
mod read;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

pub(crate) use read::rfc3339;

/// Version of the records. A log with a larger one was written by a newer program and is refused, not guessed at.
pub(crate) const SCHEMA: u32 = 1;

/// Role `audit`: prints or verifies the log of a home. Exit status 1 when a record is bad, 70 when it cannot be read.
#[must_use]
pub fn role(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    read::role(arguments)
}
