//! The one process that stays able to mount: it starts zygotes and does nothing else.
//!
//! Landlock forbids mounts for ever, and the supervisor puts itself under Landlock; so it starts this first. The
//! nursery reads only [`Order`]s, which the supervisor computed from configuration.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use nix::fcntl::{OFlag, open};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use super::channel::{Channel, Received, pair, send_message};
use super::fault::{Step, fault};
use super::handle::Zygote;
use super::orders::{FromNursery, Order, Plan};
use super::zygote;
use crate::sys::{self, Cloned};
use crate::wire::{Profile, WallFault, Wanted};

/// Longest a zygote may take to be ready, in milliseconds. Prevents a hung mount from hanging the supervisor.
const READY_TIMEOUT_MS: u16 = 10_000;

/// The supervisor's handle of the nursery. Dropping it ends the nursery and with it every zygote and call.
#[derive(Debug)]
pub struct Nursery {
    channel: Channel<FromNursery>,
    pidfd: OwnedFd,
    started: u32,
}

impl Nursery {
    /// Starts the nursery from this very binary. Call it before the supervisor confines itself.
    ///
    /// # Errors
    /// When the binary cannot be opened or started.
    pub fn start() -> Result<Nursery, WallFault> {
        Self::start_with(Path::new("/proc/self/exe"))
    }

    /// As [`Nursery::start`], from another binary that has the `nursery` role. Tests use it.
    ///
    /// # Errors
    /// As [`Nursery::start`].
    pub fn start_with(binary: &Path) -> Result<Nursery, WallFault> {
        let program = open(binary, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
            .step_on("open our own binary", binary.display())?;
        let (ours, theirs) = pair()?;
        // Without pre_exec, uid or the like std uses posix_spawn: no copy of a possibly threaded process. The path is
        // resolved in the child before close-on-exec acts, so this executes the very file opened above.
        let child = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
            .arg0("oxibot-toolhost")
            .arg("nursery")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .step("start the nursery")?;
        let pid = i32::try_from(child.id()).unwrap_or(-1);
        let pidfd = pidfd_open(pid)?;
        Ok(Nursery { channel: Channel::new(ours), pidfd, started: 0 })
    }

    /// Starts a zygote for a profile: the strongest wall that holds, proven in a real child, or an error. Blocks
    /// until it is ready, at most 10 s for each wall tried.
    ///
    /// # Errors
    /// When no wall of the wanted kind can be had. The fault names the weakest wall's missing step; the profile's
    /// `restrict_to_workspace: false` is only possible with namespaces or without any wall.
    pub fn zygote(&mut self, profile: &Profile) -> Result<Zygote, WallFault> {
        let plans: &[Plan] = match (profile.wanted, profile.restrict_to_workspace) {
            (Wanted::Strongest, true) => &[Plan::Full, Plan::Bare],
            (Wanted::Strongest, false) => &[Plan::Full],
            (Wanted::WithoutNamespaces, true) => &[Plan::Bare],
            (Wanted::WithoutNamespaces, false) => {
                return Err(fault(
                    "show the file system read-only",
                    "tools.restrictToWorkspace false needs mount namespaces",
                ));
            }
            (Wanted::Off, _) => &[Plan::Off],
        };
        let mut lowered: Option<WallFault> = None;
        for plan in plans {
            self.started = self.started.wrapping_add(1);
            let order = Order {
                profile: profile.clone(),
                plan: *plan,
                number: self.started,
                lowered: lowered.clone(),
            };
            match self.try_zygote(&order) {
                Ok(zygote) => return Ok(zygote),
                Err(found) => {
                    lowered = Some(match lowered {
                        // Both reasons matter: why not full, and why not even less.
                        Some(first) => fault(found.step, format!("{}; before that: {first}", found.cause)),
                        None => found,
                    });
                }
            }
        }
        Err(lowered.unwrap_or_else(|| fault("start a zygote", "no wall was wanted")))
    }

    fn try_zygote(&mut self, order: &Order) -> Result<Zygote, WallFault> {
        self.channel.send(order, &[])?;
        match self.channel.wait(Some(READY_TIMEOUT_MS))? {
            Received::Message(FromNursery::Zygote) => {
                let pidfd = self.channel.take_descriptor()?;
                let socket = self.channel.take_descriptor()?;
                Zygote::when_ready(pidfd, socket, READY_TIMEOUT_MS)
            }
            Received::Message(FromNursery::CouldNot(fault)) => Err(fault),
            Received::Nothing => Err(fault("start a zygote", "the nursery does not answer")),
            Received::Closed => Err(fault("start a zygote", "the nursery is gone")),
        }
    }

    /// Readable once the nursery has ended, which is fatal: no zygote can be started any more.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        // Fails only if it is gone already.
        let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), Signal::SIGKILL);
        let _ = nix::sys::wait::waitid(
            nix::sys::wait::Id::PIDFd(self.pidfd.as_fd()),
            nix::sys::wait::WaitPidFlag::WEXITED,
        );
    }
}

/// A pidfd of an own, not yet waited-for child: its pid cannot have been reused.
fn pidfd_open(pid: i32) -> Result<OwnedFd, WallFault> {
    sys::pidfd_open(pid).step("open the nursery's pidfd")
}

/// First lines of every role: nothing inherited but fd 0 to 2, and no life without the parent.
pub(super) fn sanitise() -> Result<OwnedFd, WallFault> {
    sys::close_from(3).step("close inherited descriptors")?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).step("tie this process to its parent")?;
    nix::sys::stat::umask(Mode::from_bits_truncate(0o077));
    let socket = std::io::stdin().as_fd().try_clone_to_owned().step("take the control socket")?;
    let null = File::options().read(true).write(true).open("/dev/null").step("open /dev/null")?;
    nix::unistd::dup2_stdin(&null).step("replace standard input")?;
    nix::unistd::dup2_stdout(&null).step("replace standard output")?;
    Ok(socket)
}

/// Entry point of the role `nursery`: fd 0 is the supervisor's socket.
#[must_use]
pub fn nursery_role() -> ExitCode {
    match nurse() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn nurse() -> Result<(), WallFault> {
    let socket = sanitise()?;
    nix::sys::prctl::set_dumpable(false).step("make the nursery undumpable")?;
    // Zygotes are reaped by the kernel: whoever cares holds a pidfd.
    sys::ignore_ended_children().step("ignore ended children")?;
    let program = open("/proc/self/exe", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .step("open our own binary")?;
    let mut channel = Channel::<Order>::new(socket);
    loop {
        match channel.wait(None)? {
            Received::Message(order) => match start_zygote(program.as_fd(), &order) {
                Ok((pidfd, socket)) => {
                    channel.send(&FromNursery::Zygote, &[pidfd.as_fd(), socket.as_fd()])?;
                }
                Err(fault) => channel.send(&FromNursery::CouldNot(fault), &[])?,
            },
            Received::Nothing => {}
            Received::Closed => return Ok(()),
        }
    }
}

fn start_zygote(program: BorrowedFd<'_>, order: &Order) -> Result<(OwnedFd, OwnedFd), WallFault> {
    let (ours, theirs) = pair()?;
    let pidfd = match sys::clone_process(0).step("start a zygote")? {
        Cloned::Child => zygote::become_role(program, theirs.as_fd(), c"zygote"),
        Cloned::Parent { pid: _, pidfd } => pidfd,
    };
    drop(theirs);
    send_message(ours.as_fd(), order, &[])?;
    Ok((pidfd, ours))
}
