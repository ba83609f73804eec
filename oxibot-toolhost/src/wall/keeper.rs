//! Parent of the nursery: should the nursery be killed, this process ends and removes what it would have.
//!
//! It reads nothing at all. It waits for the end of its only child or of the supervisor, then ends every process below
//! it and removes cgroups and directories of this run. The nursery in turn ends when this process does, so that the
//! death of any one of them leaves nothing.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::Shutdown;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpid};

use super::cgroup::Remains;
use super::fault::Step;
use super::nursery::{NURSERY_TIME_MS, sanitise};
use super::{attack, family, session, zygote};
use crate::sys::{self, Cloned};
use crate::wire::WallFault;

/// Longest one look for processes may take.
const LOOK_TIME: Duration = Duration::from_millis(500);
/// Longest what was killed or is to be removed is waited for, once nobody new is found. What the kernel cannot end is left
/// to the next start.
const END_TIME: Duration = Duration::from_secs(3);
/// Longest everything may take, whoever is found.
const LAST_TIME: Duration = Duration::from_secs(60);
/// Between two tries to remove what is still in use: a killed process leaves its cgroup a moment after its end.
const AGAIN: Duration = Duration::from_millis(2);

/// Entry point of the role `keeper`: fd 0 is the supervisor's socket, which is the nursery's.
#[must_use]
pub fn keeper_role() -> ExitCode {
    match keep() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn keep() -> Result<(), WallFault> {
    let socket = sanitise()?;
    nix::sys::prctl::set_name(c"oxibot-keeper").step("name the keeper")?;
    nix::sys::prctl::set_dumpable(false).step("make the keeper undumpable")?;
    nix::sys::prctl::set_no_new_privs().step("set no_new_privs")?;
    // A Ctrl-C at the terminal is for main.
    nix::unistd::setsid().step("start a session")?;
    // What a killed nursery leaves comes here.
    nix::sys::prctl::set_child_subreaper(true).step("adopt orphans")?;
    let supervisor = nix::unistd::getppid();
    let prefix = session::prefix(getpid())?;
    // Before the nursery may move us: names are looked for where the run began.
    let remains = Remains::of(&prefix);
    let program = open("/proc/self/exe", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .step("open our own binary")?;
    let (nursery, pidfd) = match sys::clone_process(0).step("start the nursery")? {
        Cloned::Child => zygote::become_role(program.as_fd(), socket.as_fd(), c"nursery"),
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    keep_rights()?;
    sys::unmap_own_code();
    wait(&socket, &pidfd, nursery);
    // The supervisor must not wait for an answer of a nursery that is gone.
    let _ = nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(&socket), Shutdown::Both);
    // It may have shut itself in, or have been killed, before it could.
    attack::remove_planted(supervisor.as_raw().cast_unsigned());
    end_all(&remains, &prefix);
    Ok(())
}

/// Whoever is left when this returns becomes a child of the machine's init, so it returns only once nobody is, or nobody
/// new is found and the kernel does not end those that are.
fn end_all(remains: &Remains, prefix: &str) {
    let began = Instant::now();
    let mut latest = began;
    let mut known = BTreeSet::new();
    loop {
        // Whoever was ended may have left somebody who came here only then.
        let hunt = family::end(&[], LOOK_TIME);
        let gone = hunt.nobody & remains.remove_all() & session::remove_private(prefix);
        if !hunt.seen.is_subset(&known) {
            latest = Instant::now();
        }
        known.extend(hunt.seen);
        if gone || latest.elapsed() >= END_TIME || began.elapsed() >= LAST_TIME {
            return;
        }
        std::thread::sleep(AGAIN);
    }
}

/// As root: ending processes of the users calls run as, removing what they made. An ordinary user's need nothing.
fn keep_rights() -> Result<(), WallFault> {
    let held = caps::read(None, CapSet::Permitted).step("read capabilities")?;
    let wanted: CapsHashSet =
        [Capability::CAP_KILL, Capability::CAP_DAC_OVERRIDE, Capability::CAP_FOWNER].into();
    let kept: Vec<Capability> = wanted.intersection(&held).copied().collect();
    super::privileges::keep(&kept)
}

/// Returns once the nursery has ended, at the latest some time after the supervisor.
fn wait(socket: &OwnedFd, nursery: &OwnedFd, pid: Pid) {
    let mut timeout = PollTimeout::NONE;
    loop {
        // Of the socket only its end is asked for: it is reported whatever is asked.
        let mut watched = vec![PollFd::new(nursery.as_fd(), PollFlags::POLLIN)];
        if timeout.is_none() {
            watched.push(PollFd::new(socket.as_fd(), PollFlags::empty()));
        }
        match poll(&mut watched, timeout) {
            Err(Errno::EINTR) => continue,
            // Time is over: it hangs or is stopped.
            Ok(0) | Err(_) => drop(kill(pid, Signal::SIGKILL)),
            Ok(_) => {}
        }
        if watched.first().is_none_or(|one| one.any().unwrap_or(true)) || timeout.is_some() {
            return;
        }
        timeout = PollTimeout::from(NURSERY_TIME_MS);
    }
}
