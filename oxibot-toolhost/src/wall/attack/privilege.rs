//! Attacks on what a call is: capabilities, users, set-ID files, inherited descriptors, the other doors of the kernel.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};

use super::{Answer, Targets};
use crate::sys::{self, Attempt, Cloned};

/// Status of a child that found no second door.
const NO_DOOR: i32 = 1;
/// Status of a child that went through it.
const THROUGH: i32 = 2;

fn held_unless(reached: bool) -> Answer {
    if reached { Answer::Broken } else { Answer::Held(None) }
}

pub(super) fn capabilities(_: &Targets) -> Answer {
    let sets =
        [caps::CapSet::Effective, caps::CapSet::Permitted, caps::CapSet::Inheritable, caps::CapSet::Ambient];
    let empty = sets.into_iter().all(|set| caps::read(None, set).is_ok_and(|held| held.is_empty()));
    held_unless(!empty)
}

pub(super) fn bounding(_: &Targets) -> Answer {
    held_unless((0..64).any(sys::has_bounding))
}

pub(super) fn new_privileges(_: &Targets) -> Answer {
    held_unless(nix::sys::prctl::get_no_new_privs() != Ok(true))
}

/// The two that open most doors, asked for.
pub(super) fn ask_for_capabilities(_: &Targets) -> Answer {
    let wanted = [caps::Capability::CAP_SYS_ADMIN, caps::Capability::CAP_DAC_OVERRIDE].into_iter().collect();
    held_unless(caps::set(None, caps::CapSet::Effective, &wanted).is_ok())
}

const REFUSED: &[Errno] = &[Errno::EPERM];

/// A program that would run with its owner's rights.
pub(super) fn set_user_id(_: &Targets) -> Answer {
    let path = own();
    if fs::write(&path, "").is_err() {
        return Answer::Skipped;
    }
    let answer = Answer::of(fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)), REFUSED);
    let _ = fs::remove_file(&path);
    answer
}

/// The same, from its first moment.
pub(super) fn made_set_user_id(_: &Targets) -> Answer {
    let path = own();
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o4755).open(&path);
    let _ = fs::remove_file(&path);
    Answer::of(made, REFUSED)
}

fn own() -> std::path::PathBuf {
    let directory = std::env::var_os("TMPDIR").map_or_else(|| "/tmp".into(), std::path::PathBuf::from);
    directory.join(format!(".oxibot-attack-id-{}", std::process::id()))
}

/// What is open beyond stdin, stdout and stderr, without the descriptor of the listing itself.
pub(super) fn descriptors(_: &Targets) -> Answer {
    let Ok(listing) = fs::read_dir("/proc/self/fd") else { return Answer::Skipped };
    let open = listing
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|fd| *fd > 2)
        .count();
    held_unless(open > 1)
}

/// The x32 numbers, in a child, because a unit's `SystemCallArchitectures=` ends whoever uses one. Our own filter answers
/// as a kernel does that has none.
pub(super) fn entry_x32(_: &Targets) -> Answer {
    match sys::clone_process(0) {
        Ok(Cloned::Child) => sys::exit_now(match sys::attempt(Attempt::X32) {
            Err(Errno::ENOSYS) => NO_DOOR,
            Ok(()) | Err(_) => THROUGH,
        }),
        Ok(Cloned::Parent { pid, pidfd: _ }) => match waitpid(pid, None) {
            Ok(WaitStatus::Signaled(_, Signal::SIGSYS, _)) => Answer::Signalled,
            Ok(WaitStatus::Exited(_, NO_DOOR)) => Answer::Held(Some(Errno::ENOSYS)),
            Ok(_) | Err(_) => Answer::Broken,
        },
        Err(_) => Answer::Skipped,
    }
}

/// The 32-bit entry of the kernel, in a child, because the filter ends whoever uses it.
pub(super) fn entry_32(_: &Targets) -> Answer {
    match sys::clone_process(0) {
        Ok(Cloned::Child) => {
            let answered = sys::attempt_32_bit();
            sys::exit_now(if answered > 0 { THROUGH } else { NO_DOOR })
        }
        Ok(Cloned::Parent { pid, pidfd: _ }) => match waitpid(pid, None) {
            // SIGSYS from the filter; SIGSEGV where the kernel has no 32-bit entry.
            Ok(WaitStatus::Signaled(_, Signal::SIGSYS | Signal::SIGSEGV, _)) => Answer::Signalled,
            Ok(WaitStatus::Exited(_, NO_DOOR)) => Answer::Held(None),
            Ok(_) | Err(_) => Answer::Broken,
        },
        Err(_) => Answer::Skipped,
    }
}
