//! System calls without a safe wrapper. The only file of the workspace that may say unsafe.
#![allow(unsafe_code)]

// --- files

use std::os::fd::{FromRawFd, OwnedFd};

/// Takes over a descriptor this process was started with. `None` when it is not open.
///
/// Call it once for each number, before anything else could own it: nothing here can tell whether it was taken before.
#[must_use]
pub fn take_inherited(number: i32) -> Option<OwnedFd> {
    // SAFETY: F_GETFD takes no argument and changes nothing; any number is allowed.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 {
        return None;
    }
    // SAFETY: it is open, as was just found, and by the contract above nobody else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes every descriptor from `first` on. For the start of a process, before it owns any of them.
///
/// # Errors
/// The kernel's answer.
pub fn close_from(first: u32) -> Result<(), nix::errno::Errno> {
    // SAFETY: the call takes three integers; by contract no `OwnedFd` of this process names a descriptor in the range.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    nix::errno::Errno::result(result).map(drop)
}
