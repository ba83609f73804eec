//! What is done with every child: that its end is kept for us, and a descriptor that tells of it.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Child;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::LaunchError;

/// SIGCHLD as a bit of a mask in `/proc`.
const CHILD: u64 = 1 << (libc::SIGCHLD - 1);

/// Sees to it that the kernel keeps how our children end. Before the first is started.
///
/// Whoever started us may ignore SIGCHLD (`trap '' CHLD`, some service managers), and an ignored signal stays ignored by
/// exec: ended children would vanish with their status, and a crash could not be told from an orderly end. A handler
/// undoes that here, and is the default action again in what we exec.
///
/// # Errors
/// When `/proc` cannot be read, or the kernel refuses.
pub fn keep_statuses() -> Result<(), LaunchError> {
    let step = "see to it that the end of a child is noticed";
    let status = std::fs::read_to_string("/proc/self/status").map_err(LaunchError::system(step))?;
    if !ignores_children(&status) {
        return Ok(());
    }
    // Setting a signal's action is unsafe in std, nix and rustix; tokio does it safely, and what it sets outlives the
    // runtime, which starts no thread.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(LaunchError::system(step))?;
    let _inside = runtime.enter();
    let heard = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child());
    heard.map(drop).map_err(LaunchError::system(step))
}

fn ignores_children(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).map(str::trim);
    mask.and_then(|mask| u64::from_str_radix(mask, 16).ok()).is_some_and(|mask| mask & CHILD != 0)
}

/// A descriptor that becomes readable when the child ends. `step` is what it is started for.
pub(super) fn watch(child: &Child, step: &'static str) -> Result<OwnedFd, LaunchError> {
    let number = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(rustix::io::Errno::SRCH);
    number
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
        .map_err(|errno| LaunchError::System { step, cause: io::Error::from(errno) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_children_are_found_among_other_ignored_signals() {
        assert!(ignores_children("Name:\toxibot\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000011000\n"));
        assert!(!ignores_children("SigIgn:\t0000000000001000\nSigCgt:\t0000000000010000\n"));
        assert!(!ignores_children(""));
    }
}
