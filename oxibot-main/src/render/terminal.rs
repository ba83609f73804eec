//! What the terminal can do, and writing to it without ending the process.
//!
//! Human output goes to standard output, everything else to standard error. A reader that went away (`oxibot ... |
//! head`) is no error: the rest is not written. Secrets are taken out of all of it. No meaning is carried by colour or symbol alone.

use std::io::{self, IsTerminal, Write};

use crate::redaction;

/// What may be written where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Standard output is a terminal: what is shown there must be neutralised.
    pub stdout: bool,
    /// Standard error is a terminal.
    pub stderr: bool,
    /// Colour, spinner and cursor movement are welcome on standard output.
    pub fancy: bool,
}

impl Terminal {
    /// Looks at the streams and at `NO_COLOR`, `TERM` and `--plain`.
    #[must_use]
    pub fn detect(plain: bool) -> Self {
        let stdout = io::stdout().is_terminal();
        let colour_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        Self {
            stdout,
            stderr: io::stderr().is_terminal(),
            fancy: stdout && !plain && !colour_refused && !dumb,
        }
    }
}

/// Writes text to standard output.
///
/// # Errors
/// Whatever the write failed with, except that the reader went away.
pub fn out(text: &str) -> io::Result<()> {
    out_bytes(text.as_bytes())
}

/// Writes bytes to standard output.
///
/// # Errors
/// As [`out`].
pub fn out_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    forgive_closed(stdout.write_all(&redaction::bytes(bytes)).and_then(|()| stdout.flush()))
}

/// Writes a line to standard error. That it cannot be written is nothing anyone could be told.
pub fn note(text: &str) {
    drop(writeln!(io::stderr().lock(), "{}", redaction::text(text)));
}

/// Writes `oxibot: ` and the text to standard error.
pub fn complain(text: &str) {
    note(&format!("oxibot: {text}"));
}

fn forgive_closed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_went_away_is_forgiven_and_a_full_disk_is_not() {
        assert!(forgive_closed(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        assert!(forgive_closed(Err(io::ErrorKind::StorageFull.into())).is_err());
    }
}
