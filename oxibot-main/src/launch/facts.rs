//! Asking the toolhost's program what only it can try: one line of JSON from a process that then ends.
//!
//! For `doctor`. It works where no supervisor would start, and learns nothing from us: no argument, no environment, no
//! descriptor but its output.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oxibot_proto::facts::{MAX_FACTS, MachineFacts};

use super::LaunchError;
use super::binary::find_toolhost;

/// How long it may take. It makes a few system calls; a machine this slow has other troubles.
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts the process, reads its line, sees it end. Blocks, at most about 20 seconds.
///
/// # Errors
/// As [`find_toolhost`], and [`LaunchError::System`] when it cannot be started, says nothing, or something else.
pub fn machine_facts() -> Result<MachineFacts, LaunchError> {
    let step = "ask the toolhost about this machine";
    let program = find_toolhost()?;
    let mut child = Command::new(program.by_descriptor())
        .arg("facts")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(LaunchError::system(step))?;
    let mut line = String::new();
    let read = match child.stdout.take() {
        Some(stdout) => said(stdout.as_fd()).and_then(|()| {
            stdout.take(u64::try_from(MAX_FACTS).unwrap_or(u64::MAX)).read_to_string(&mut line)
        }),
        None => Err(io::Error::other("it has no output")),
    };
    // It has said what it has to say, or never will.
    let _ended = child.kill();
    let _status = child.wait();
    read.map_err(LaunchError::system(step))?;
    serde_json::from_str(&line)
        .map_err(|error| LaunchError::System { step, cause: io::Error::other(error.to_string()) })
}

fn said(output: std::os::fd::BorrowedFd<'_>) -> io::Result<()> {
    let timeout = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(output, PollFlags::POLLIN)], timeout)? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}
