//! Attacks on processes outside the call.
//!
//! A number alone is no target: in a PID namespace of its own the same number may be the attacker's. The target comes
//! with its start time, and where `/proc` shows another process under that number nothing was reached.

use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::answer::errno_of;
use super::{Answer, Target, Targets};
use crate::sys::{self, Attempt};

const HELD: &[Errno] = &[Errno::ESRCH, Errno::EPERM, Errno::EACCES];

/// Start time of a process in clock ticks since boot: with its number, its identity.
pub(super) fn start_of(pid: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything; what follows its parenthesis is the state, field 3. The start is field 22.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

/// The target's number, if `/proc` does not show somebody else under it.
fn target(targets: &Targets) -> Option<(i32, bool)> {
    let (pid, start) = targets.get(Target::Process)?.split_once(':')?;
    let same = start_of(pid).is_none_or(|found| found == start);
    Some((pid.parse().ok()?, same))
}

fn at_process(targets: &Targets, attack: impl FnOnce(i32) -> nix::Result<()>) -> Answer {
    let Some((pid, same)) = target(targets) else { return Answer::Skipped };
    match attack(pid) {
        // Another process of the same number: its own family.
        Ok(()) if !same => Answer::Held(Some(Errno::ESRCH)),
        tried => Answer::of_call(tried, HELD),
    }
}

/// A system call with its number.
pub(super) fn aimed(targets: &Targets, call: fn(i32) -> Attempt) -> Answer {
    let Some((_, same)) = target(targets) else { return Answer::Skipped };
    at_process(targets, |pid| match sys::attempt(call(pid)) {
        // With arguments that do nothing, reaching the process may be answered with an error too.
        Err(Errno::EINVAL) if !same => Ok(()),
        tried => tried,
    })
}

pub(super) fn signal(targets: &Targets) -> Answer {
    at_process(targets, |pid| kill(Pid::from_raw(pid), None::<Signal>))
}

pub(super) fn handle(targets: &Targets) -> Answer {
    at_process(targets, |pid| sys::pidfd_open(pid).map(drop))
}

/// A file of the target's directory in `/proc`.
fn of_process(targets: &Targets, name: &str, write: bool) -> Answer {
    at_process(targets, |pid| {
        let path = format!("/proc/{pid}/{name}");
        let opened = if name.ends_with('/') {
            fs::read_dir(path).map(drop)
        } else if write {
            fs::OpenOptions::new().write(true).open(path).map(drop)
        } else {
            // What is protected by tracing rights answers when it is read.
            fs::read(path).map(drop)
        };
        match opened.map_err(|error| errno_of(&error)) {
            // Nobody of that number.
            Err(Errno::ENOENT) => Err(Errno::ESRCH),
            // Nothing to be read at address 0; it was opened.
            Err(Errno::EIO) => Ok(()),
            tried => tried,
        }
    })
}

pub(super) fn environment(targets: &Targets) -> Answer {
    of_process(targets, "environ", false)
}

pub(super) fn root(targets: &Targets) -> Answer {
    of_process(targets, "root/", false)
}

pub(super) fn working_directory(targets: &Targets) -> Answer {
    of_process(targets, "cwd/", false)
}

/// Where its standard input leads: naming a descriptor takes the right to trace, as opening one does. How many there
/// are can be seen without.
pub(super) fn descriptors(targets: &Targets) -> Answer {
    at_process(targets, |pid| {
        let named = fs::read_link(format!("/proc/{pid}/fd/0")).map_err(|error| errno_of(&error));
        // Nobody of that number.
        if named == Err(Errno::ENOENT) { Err(Errno::ESRCH) } else { named.map(drop) }
    })
}

pub(super) fn maps(targets: &Targets) -> Answer {
    of_process(targets, "maps", false)
}

pub(super) fn memory(targets: &Targets) -> Answer {
    of_process(targets, "mem", true)
}

pub(super) fn oom_score(targets: &Targets) -> Answer {
    of_process(targets, "oom_score_adj", true)
}

pub(super) fn command_line(targets: &Targets) -> Answer {
    of_process(targets, "cmdline", false)
}

/// Everybody's environment that can be read, but one's own.
pub(super) fn environments(_: &Targets) -> Answer {
    let Ok(processes) = fs::read_dir("/proc") else { return Answer::Held(Some(Errno::EACCES)) };
    let own = std::process::id().to_string();
    for process in processes.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|name| name.parse::<u32>().is_ok() && **name != own) else {
            continue;
        };
        if fs::read(format!("/proc/{pid}/environ")).is_ok_and(|bytes| !bytes.is_empty()) {
            return Answer::Broken;
        }
    }
    Answer::Held(None)
}

/// A System V segment of the host.
pub(super) fn segment(targets: &Targets) -> Answer {
    match targets.get(Target::Segment).and_then(|id| id.parse().ok()) {
        Some(id) => Answer::of_call(
            sys::attempt(Attempt::Segment(id)),
            &[Errno::EPERM, Errno::EACCES, Errno::EINVAL, Errno::EIDRM],
        ),
        None => Answer::Skipped,
    }
}
