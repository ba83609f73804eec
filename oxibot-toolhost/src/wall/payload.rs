//! The security argument of one call, top to bottom: what happens between fork and exec.
//!
//! A payload is made before its call: it confines itself, proves that, and waits for a job. Only then does it read what a
//! model wrote, and becomes that program. The order matters and each line says why it is where it is. Any step that fails
//! ends the payload before a byte of tool code ran, and init reports which. There is no way to reach `exec` around
//! `verify`, except at level `off`.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use oxibot_proto::message::Denial;

use super::channel::{Channel, Received, send_message};
use super::fault::{Step, fault};
use super::grants::path_of;
use super::init::Ground;
use super::orders::{Become, FromPayload, OURSELVES, Plan};
use super::ruleset::Rules;
use super::seccomp::Above;
use super::{limits, privileges, seccomp, verify};
use crate::wire::{FromInit, Job, WallFault};
use crate::{idle, sys};

/// Status of a payload that never became its program; nobody sees it, because init reports the fault instead.
const NOT_STARTED: i32 = 127;
/// Retries of a path that changed during resolution. Prevents a rename storm from looping us for ever.
const RACES: usize = 64;

/// What a payload is given besides its [`Ground`].
pub(super) struct Parts {
    pub(super) rules: Option<Rules>,
    pub(super) status: OwnedFd,
    /// What a call without a PID namespace must not signal.
    pub(super) above: Above,
}

/// Becomes the program it is told, or says why not and ends.
pub(super) fn run(ground: &Ground, parts: Parts) -> ! {
    let mut init = Channel::<Become>::new(parts.status);
    let told = match get_ready(ground, parts.rules, &parts.above, init.socket()) {
        Err(fault) => fault.into(),
        Ok(()) => match wait(&mut init) {
            Err(fault) => fault.into(),
            Ok(None) => sys::exit_now(NOT_STARTED),
            Ok(Some(order)) => {
                let Err(told) = become_program(ground, &order, &mut init);
                told
            }
        },
    };
    // Should even this fail, init sees the socket end without `Verified` and reports that.
    let _ = init.send(&told, &[]);
    sys::exit_now(NOT_STARTED)
}

impl From<WallFault> for FromPayload {
    fn from(fault: WallFault) -> Self {
        Self::Fault { fault, exec: false }
    }
}

/// Everything that no job changes, done before there is one: a call does not wait for it, and nothing hostile was read yet.
fn get_ready(
    ground: &Ground,
    rules: Option<Rules>,
    above: &Above,
    status: BorrowedFd<'_>,
) -> Result<(), WallFault> {
    // Its own session: no controlling terminal to type into, no process group shared with us.
    nix::unistd::setsid().step("start a session")?;
    sys::default_signals().step("reset signals")?;
    // With a PID namespace the kernel ends us with init; without one this does.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).step("tie the payload to its init")?;
    // Everything of ours is close-on-exec already; this holds even if one was forgotten (CVE-2024-21626). What comes with
    // the job is received as close-on-exec.
    sys::close_on_exec_from(3).step("close our descriptors")?;
    match ground.plan {
        Plan::Full | Plan::Bare => confine(ground, rules, above, status)?,
        Plan::Off => {}
    }
    send_message(status, &FromPayload::Verified, &[])
}

/// `None`: init is gone.
fn wait(init: &mut Channel<Become>) -> Result<Option<Become>, WallFault> {
    let mut received = init.wait(Some(idle::AFTER_MS))?;
    if matches!(received, Received::Nothing) {
        sys::unmap_own_code();
        received = init.wait(None)?;
    }
    match received {
        Received::Message(order) => Ok(Some(order)),
        Received::Nothing | Received::Closed => Ok(None),
    }
}

/// What depends on the job. Init has mounted all it will, and resolved the directory.
fn become_program(
    ground: &Ground,
    order: &Become,
    init: &mut Channel<Become>,
) -> Result<Infallible, FromPayload> {
    nix::unistd::dup2_stdin(init.take_descriptor()?).step("connect stdin")?;
    nix::unistd::dup2_stdout(init.take_descriptor()?).step("connect stdout")?;
    nix::unistd::dup2_stderr(init.take_descriptor()?).step("connect stderr")?;
    limits::apply(&order.job.limits, order.others, &ground.counted)?;
    nix::unistd::fchdir(init.take_descriptor()?).step("enter the directory")?;
    nix::sys::stat::umask(Mode::from_bits_truncate(order.job.umask));
    Err(execute(ground, &order.job))
}

/// From here on the process has less with each line, and nothing is given back.
fn confine(
    ground: &Ground,
    rules: Option<Rules>,
    above: &Above,
    status: BorrowedFd<'_>,
) -> Result<(), WallFault> {
    let rules = rules.ok_or_else(|| fault("confine a call", "no Landlock rules were made"))?;
    let canary = ground.canary.as_ref().ok_or_else(|| fault("confine a call", "there is no canary"))?;
    verify::control(canary)?;
    let bounding = privileges::expected_bounding()?;
    privileges::drop_all()?;
    // Needed by the next two for processes without capabilities; makes setuid programs plain programs.
    nix::sys::prctl::set_no_new_privs().step("set no_new_privs")?;
    // After the last mount: Landlock forbids them all.
    rules.enforce()?;
    // Last, so that no step above needs an exception in it.
    if let Some(listener) = seccomp::install(&ground.filter, above)? {
        // From here on a refused call waits for init's answer. Ours is not the last copy: a payload that kept one could
        // answer for its own children.
        send_message(status, &FromPayload::Filtered, &[listener.as_fd()])?;
        drop(listener);
    }
    verify::verify(ground.plan, canary, &ground.host, bounding)
}

/// Where a job starts, relative to the workspace. An absolute path below the workspace and `~` mean what they say.
fn relative(workspace: &Path, directory: &Path) -> PathBuf {
    let relative =
        directory.strip_prefix(workspace).or_else(|_| directory.strip_prefix("~")).unwrap_or(directory);
    if relative.as_os_str().is_empty() { PathBuf::from(".") } else { relative.to_owned() }
}

/// Resolves where a job starts: by the workspace handle, because a path given by a model is never looked up from "/".
/// Init does it after its last mount; in a payload `openat2` is refused.
pub(super) fn directory(
    handle: BorrowedFd<'_>,
    workspace: &Path,
    directory: &[u8],
) -> Result<OwnedFd, FromInit> {
    let path = relative(workspace, path_of(directory));
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let mut opened = Err(Errno::EAGAIN);
    for _ in 0..RACES {
        opened = openat2(handle, &path, how);
        if !matches!(opened, Err(Errno::EAGAIN)) {
            break;
        }
    }
    match opened {
        Ok(directory) => Ok(directory),
        Err(Errno::EXDEV | Errno::ELOOP) => Err(FromInit::BadDirectory(Denial {
            rule: "path.outside".into(),
            reason: format!("{} leads out of the workspace", path_of(directory).display()),
            hint: format!("use a directory below {}, or none", workspace.display()),
        })),
        // Not the wall's fault: the directory of the job does not exist, is a file, or is unreadable.
        Err(errno) => Err(FromInit::NotStarted {
            fault: fault(format!("enter the directory {}", path_of(directory).display()), errno),
            exec: true,
        }),
    }
}

/// Only returns what went wrong.
fn execute(ground: &Ground, job: &Job) -> FromPayload {
    let refused = |name: &[u8], cause: &dyn std::fmt::Display| FromPayload::Fault {
        fault: fault(format!("execute {}", String::from_utf8_lossy(name)), cause),
        exec: true,
    };
    let Some((program, arguments)) = job.argv.split_first() else {
        return refused(b"", &"no program was named");
    };
    let ourselves = program == OURSELVES;
    let name: &[u8] = if ourselves { b"oxibot-toolhost" } else { program };
    let (argv, environment) = match (
        strings([name].into_iter().chain(arguments.iter().map(Vec::as_slice))),
        strings(job.environment.iter().map(Vec::as_slice)),
    ) {
        (Ok(argv), Ok(environment)) => (argv, environment),
        (Err(error), _) | (_, Err(error)) => return refused(name, &error),
    };
    let argv: Vec<&CStr> = argv.iter().map(CString::as_c_str).collect();
    let environment: Vec<&CStr> = environment.iter().map(CString::as_c_str).collect();
    if ourselves {
        return refused(name, &sys::exec_descriptor(ground.program.as_fd(), &argv, &environment));
    }
    let mut answer = Errno::ENOENT;
    for candidate in candidates(name, &job.environment) {
        let Ok(path) = CString::new(candidate) else { continue };
        match nix::unistd::execve(&path, &argv, &environment) {
            // As execvp: a directory without it, or one we may not enter, is passed over; EACCES is remembered.
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(Errno::EACCES) => answer = Errno::EACCES,
            Err(errno) => return refused(name, &errno),
        }
    }
    refused(name, &answer)
}

fn strings<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Result<Vec<CString>, std::ffi::NulError> {
    parts.map(CString::new).collect()
}

/// Paths to try for a program: itself if it has a slash, else along `PATH` of the job's environment.
fn candidates(name: &[u8], environment: &[Vec<u8>]) -> Vec<Vec<u8>> {
    if name.contains(&b'/') {
        return vec![name.to_vec()];
    }
    let path = environment.iter().find_map(|pair| pair.strip_prefix(b"PATH="));
    path.unwrap_or(b"/usr/local/bin:/usr/bin:/bin")
        .split(|byte| *byte == b':')
        .filter(|directory| !directory.is_empty())
        .map(|directory| [directory, b"/", name].concat())
        .collect()
}

/// Attack jobs: our own binary may be executed by them, by descriptor.
pub(super) fn is_ourselves(job: &Job) -> bool {
    job.argv.first().is_some_and(|name| name == OURSELVES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_directory_below_the_workspace_is_relative_to_it() {
        let workspace = Path::new("/srv/w");
        for (given, expected) in
            [("/srv/w/a", "a"), ("/srv/w", "."), ("", "."), ("~/a", "a"), ("/etc", "/etc"), ("../x", "../x")]
        {
            assert_eq!(relative(workspace, Path::new(given)), Path::new(expected), "{given}");
        }
    }

    #[test]
    fn program_is_searched_along_the_jobs_own_path() {
        let environment = [b"PATH=/a::/b".to_vec()];
        assert_eq!(candidates(b"ls", &environment), [b"/a/ls".to_vec(), b"/b/ls".to_vec()]);
        assert_eq!(candidates(b"./ls", &environment), [b"./ls".to_vec()]);
    }
}
