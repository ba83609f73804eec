//! Reading small facts: one value of `/proc`, `/sys` or `/etc`, bounded, absent rather than an error.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Most bytes of one such file that are read. `/proc/net/unix` of a busy machine is the largest.
const MOST: u64 = 4 * 1024 * 1024;

/// The whole text; none when it is not there, cannot be read or is not text.
pub(super) fn text(path: impl AsRef<Path>) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MOST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// As [`text`], without white space around it.
pub(super) fn trimmed(path: impl AsRef<Path>) -> Option<String> {
    text(path).map(|text| text.trim().to_owned())
}

/// As [`text`], as a number.
pub(super) fn number_of(path: impl AsRef<Path>) -> Option<u64> {
    trimmed(path)?.parse().ok()
}
