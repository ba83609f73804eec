//! The one process that stays able to mount: it starts zygotes and does nothing else.
//!
//! Landlock forbids mounts for ever, and the supervisor puts itself under Landlock; so it starts this first. The
//! nursery reads only [`Order`]s, which the supervisor computed from configuration.

use std::ffi::{CStr, OsStr};
use std::fs::{DirBuilder, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::cgroup::{Place, Remains};
use super::channel::{Channel, Received, pair, send_message};
use super::fault::{Step, fault};
use super::handle::Zygote;
use super::orders::{FromNursery, Order, Plan, ToNursery};
use super::outlet::Outlet;
use super::{family, session, zygote};
use crate::idle::Idle;
use crate::sys::{self, Cloned};
use crate::wire::{EgressOrder, Profile, WallFault, Wanted};

/// Longest a zygote may take to be ready, in milliseconds. Prevents a hung mount from hanging the supervisor.
const READY_TIMEOUT_MS: u16 = 10_000;

/// How often orphans are looked for once there are calls without namespaces, in milliseconds.
const ORPHANS_EVERY_MS: u16 = 2_000;
/// Longest the last look for orphans may take.
const ORPHAN_TIME: Duration = Duration::from_secs(1);
/// Longest one look for orphans may take meanwhile. Short, because somebody may wait for a zygote.
const LOOK_TIME: Duration = Duration::from_millis(150);
/// Longest zygotes may take to tidy up at the end.
const TIDY_TIME: Duration = Duration::from_secs(4);
/// Longest the nursery may take at the end, in milliseconds: the two above, and some. Its keeper waits as long.
pub(super) const NURSERY_TIME_MS: u16 = 6_000;
/// Longest the supervisor waits for all that when it ends in peace, before it wakes a keeper that somebody stopped.
const END_TIMEOUT_MS: u16 = 10_000;
/// And longest after that. A keeper that goes on for so long still finds processes, on a machine that is very busy: killing
/// it would leave them behind.
const LAST_TIMEOUT_MS: u16 = 60_000;
/// How often what an ended zygote left is looked after while it cannot be removed, in milliseconds.
const REMAINS_EVERY_MS: u16 = 250;

/// The supervisor's handle of the nursery. Dropping it ends the nursery and with it every zygote and call.
#[derive(Debug)]
pub struct Nursery {
    /// `None` only while dropping.
    channel: Option<Channel<FromNursery>>,
    /// Of its keeper, which ends after it.
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
            .arg("keeper")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .step("start the nursery")?;
        let pid = i32::try_from(child.id()).unwrap_or(-1);
        let pidfd = pidfd_open(pid)?;
        Ok(Nursery { channel: Some(Channel::new(ours)), pidfd, started: 0 })
    }

    /// Starts a zygote for a profile: the strongest wall that holds, proven in a real child, or an error. Blocks
    /// until it is ready, at most 10 s for each wall tried.
    ///
    /// # Errors
    /// When no wall of the wanted kind can be had. The fault names the weakest wall's missing step; the profile's
    /// `restrict_to_workspace: false` is only possible with namespaces or without any wall.
    pub fn zygote(&mut self, profile: &Profile) -> Result<Zygote, WallFault> {
        self.strongest(profile, false)
    }

    /// As [`Nursery::zygote`]; a workspace that is not there is made first, private.
    ///
    /// # Errors
    /// As [`Nursery::zygote`], and when the directory cannot be made.
    pub fn zygote_and_workspace(&mut self, profile: &Profile) -> Result<Zygote, WallFault> {
        self.strongest(profile, true)
    }

    fn strongest(&mut self, profile: &Profile, make: bool) -> Result<Zygote, WallFault> {
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
                make,
                number: self.started,
                lowered: lowered.clone(),
                session: String::new(),
                place: Place::unknown(),
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
        let gone = || fault("start a zygote", "the nursery is gone");
        let channel = self.channel.as_mut().ok_or_else(gone)?;
        channel.send(&ToNursery::Zygote(Box::new(order.clone())), &[])?;
        match channel.wait(Some(READY_TIMEOUT_MS))? {
            Received::Message(FromNursery::Reader) => {
                Err(fault("start a zygote", "the nursery answers something else"))
            }
            Received::Message(FromNursery::Zygote) => {
                let pidfd = channel.take_descriptor()?;
                let socket = channel.take_descriptor()?;
                Zygote::when_ready(pidfd, socket, READY_TIMEOUT_MS)
            }
            Received::Message(FromNursery::CouldNot(fault)) => Err(fault),
            Received::Message(FromNursery::Egress) => Err(fault("start a zygote", "an egress was started")),
            Received::Nothing => Err(fault("start a zygote", "the nursery does not answer")),
            Received::Closed => Err(gone()),
        }
    }

    /// Starts a process of the role `shell`. It confines itself; whether it did it says on its socket.
    ///
    /// # Errors
    /// When the nursery cannot start it.
    pub fn reader(&mut self) -> Result<ShellReader, WallFault> {
        let step = "start the shell reader";
        let channel = self.channel.as_mut().ok_or_else(|| fault(step, "the nursery is gone"))?;
        channel.send(&ToNursery::Reader, &[])?;
        match channel.wait(Some(READY_TIMEOUT_MS))? {
            Received::Message(FromNursery::Reader) => {
                let pidfd = channel.take_descriptor()?;
                let socket = channel.take_descriptor()?;
                Ok(ShellReader { pidfd, socket })
            }
            Received::Message(FromNursery::CouldNot(fault)) => Err(fault),
            Received::Message(FromNursery::Zygote | FromNursery::Egress) => {
                Err(fault(step, "the nursery answers something else"))
            }
            Received::Nothing => Err(fault(step, "the nursery does not answer")),
            Received::Closed => Err(fault(step, "the nursery is gone")),
        }
    }

    /// Starts an egress for one call and gives it its terms with the listening socket. Blocks for a fork. Whether it is
    /// confined and serves is the first word of the [`Outlet`].
    ///
    /// # Errors
    /// When the nursery or the egress is gone.
    pub(crate) fn egress(&mut self, order: &EgressOrder, listener: OwnedFd) -> Result<Outlet, WallFault> {
        let step = "start an egress";
        let gone = || fault(step, "the nursery is gone");
        let channel = self.channel.as_mut().ok_or_else(gone)?;
        channel.send(&ToNursery::Egress, &[])?;
        match channel.wait(Some(READY_TIMEOUT_MS))? {
            Received::Message(FromNursery::Egress) => {
                let pidfd = channel.take_descriptor()?;
                let socket = channel.take_descriptor()?;
                Outlet::begin(pidfd, socket, order, &listener)
            }
            Received::Message(FromNursery::CouldNot(fault)) => Err(fault),
            Received::Message(FromNursery::Zygote | FromNursery::Reader) => {
                Err(fault(step, "something else was started"))
            }
            Received::Nothing => Err(fault(step, "the nursery does not answer")),
            Received::Closed => Err(gone()),
        }
    }

    /// Readable once the nursery has ended, which is fatal: no zygote can be started any more.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// A shell reader that was started.
#[derive(Debug)]
pub struct ShellReader {
    /// To end it.
    pub pidfd: OwnedFd,
    /// The supervisor's end of its socket.
    pub socket: OwnedFd,
}

impl Drop for Nursery {
    fn drop(&mut self) {
        // The end of its socket tells it to end its zygotes and what calls without namespaces left.
        drop(self.channel.take());
        let mut watched = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        if poll(&mut watched, PollTimeout::from(END_TIMEOUT_MS)) == Ok(0) {
            let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), Signal::SIGCONT);
            let _ = poll(&mut watched, PollTimeout::from(LAST_TIMEOUT_MS));
        }
        // ESRCH if it did.
        let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), Signal::SIGKILL);
        let _ = waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED);
    }
}

/// A pidfd of an own, not yet waited-for child: its pid cannot have been reused.
fn pidfd_open(pid: i32) -> Result<OwnedFd, WallFault> {
    sys::pidfd_open(pid).step("open the nursery's pidfd")
}

/// First lines of every role: nothing inherited but fd 0 to 2.
pub(super) fn sanitise() -> Result<OwnedFd, WallFault> {
    sys::close_from(3).step("close inherited descriptors")?;
    nix::sys::stat::umask(Mode::from_bits_truncate(0o077));
    let socket = std::io::stdin().as_fd().try_clone_to_owned().step("take the control socket")?;
    let null = File::options().read(true).write(true).open("/dev/null").step("open /dev/null")?;
    nix::unistd::dup2_stdin(&null).step("replace standard input")?;
    nix::unistd::dup2_stdout(&null).step("replace standard output")?;
    Ok(socket)
}

/// Between two tries to remove a cgroup: a killed process leaves its own a moment after it is reaped.
const AGAIN: Duration = Duration::from_millis(2);
/// Longest that is tried at the end. The keeper goes on after that.
const REMOVE_TIME: Duration = Duration::from_millis(400);

/// Entry point of the role `nursery`: fd 0 is the supervisor's socket.
#[must_use]
pub fn nursery_role() -> ExitCode {
    match nurse() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// A zygote that was started.
struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    plan: Plan,
    /// Its part of the names of this run.
    number: u32,
}

/// The nursery has no parent-death signal: on the end of its socket or of its keeper it lets its zygotes tidy up, then
/// ends what is left.
fn nurse() -> Result<(), WallFault> {
    let socket = sanitise()?;
    nix::sys::prctl::set_name(c"oxibot-nursery").step("name the nursery")?;
    nix::sys::prctl::set_dumpable(false).step("make the nursery undumpable")?;
    nix::sys::prctl::set_no_new_privs().step("set no_new_privs")?;
    let parent = nix::unistd::getppid();
    let keeper = sys::pidfd_open(parent.as_raw()).step("watch the keeper")?;
    // A Ctrl-C at the terminal is for main; and our process group must hold nobody but us.
    nix::unistd::setsid().step("start a session")?;
    // What a killed zygote without namespaces leaves comes here.
    nix::sys::prctl::set_child_subreaper(true).step("adopt orphans")?;
    let program = open("/proc/self/exe", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .step("open our own binary")?;
    let session = session::prefix(parent)?;
    let remains = Remains::of(&session);
    remains.remove_stale();
    session::remove_stale_private();
    let place = Place::prepare(&session);
    let mut channel = Channel::<ToNursery>::new(socket);
    // Each the way out of one call; it ends with the supervisor's socket to it.
    let mut egresses: Vec<(Pid, OwnedFd)> = Vec::new();
    let mut zygotes: Vec<Child> = Vec::new();
    let mut readers: Vec<Pid> = Vec::new();
    // Numbers of ended zygotes whose cgroups are still there.
    let mut ended: Vec<u32> = Vec::new();
    let mut orphans = None;
    let mut idle = Idle::new();
    loop {
        let again = (!ended.is_empty()).then_some(REMAINS_EVERY_MS);
        // A zygote that ends is tidied up after at once.
        let ends = zygotes.iter().map(|zygote| zygote.pidfd.as_fd()).chain([keeper.as_fd()]);
        let ends: Vec<BorrowedFd<'_>> = ends.chain(egresses.iter().map(|(_, pidfd)| pidfd.as_fd())).collect();
        let began = Instant::now();
        let received = channel.wait_beside(again.or(orphans).or(idle.due()), &ends)?;
        idle.waited(began.elapsed());
        egresses.retain(|(_, pidfd)| !has_ended(pidfd));
        reap(&session, &mut zygotes, &mut readers, &mut ended);
        ended.retain(|number| !remains.remove_zone(*number));
        match received {
            Received::Message(ToNursery::Reader) => match start_role(program.as_fd(), c"shell") {
                Ok((pid, pidfd, socket)) => {
                    channel.send(&FromNursery::Reader, &[pidfd.as_fd(), socket.as_fd()])?;
                    readers.push(pid);
                }
                Err(fault) => channel.send(&FromNursery::CouldNot(fault), &[])?,
            },
            Received::Message(ToNursery::Egress) => match start_role(program.as_fd(), c"egress") {
                Ok((pid, pidfd, socket)) => {
                    channel.send(&FromNursery::Egress, &[pidfd.as_fd(), socket.as_fd()])?;
                    egresses.push((pid, pidfd));
                }
                Err(fault) => channel.send(&FromNursery::CouldNot(fault), &[])?,
            },
            Received::Message(ToNursery::Zygote(mut order)) => {
                order.session.clone_from(&session);
                order.place = place.clone();
                match start_zygote(program.as_fd(), &order) {
                    Ok((pid, pidfd, socket)) => {
                        channel.send(&FromNursery::Zygote, &[pidfd.as_fd(), socket.as_fd()])?;
                        zygotes.push(Child { pid, pidfd, plan: order.plan, number: order.number });
                        match order.plan {
                            Plan::Full => {}
                            Plan::Bare | Plan::Off => orphans = Some(ORPHANS_EVERY_MS),
                        }
                    }
                    Err(fault) => channel.send(&FromNursery::CouldNot(fault), &[])?,
                }
            }
            Received::Nothing if has_ended(&keeper) => break,
            Received::Nothing => {
                let spared = zygotes.iter().map(|zygote| zygote.pid).chain(readers.iter().copied());
                let spared: Vec<Pid> = spared.chain(egresses.iter().map(|(pid, _)| *pid)).collect();
                let _ = family::end(&spared, LOOK_TIME);
            }
            Received::Closed => break,
        }
    }
    for zygote in &zygotes {
        match zygote.plan {
            // Its calls end with its namespaces; there is nothing to tidy up. ESRCH cannot be: it is unreaped.
            Plan::Full => drop(kill(zygote.pid, Signal::SIGKILL)),
            Plan::Bare | Plan::Off => {}
        }
    }
    let until = Instant::now().checked_add(TIDY_TIME);
    while !zygotes.is_empty() && until.is_some_and(|until| Instant::now() < until) {
        reap(&session, &mut zygotes, &mut readers, &mut ended);
        std::thread::sleep(AGAIN);
    }
    // Whoever is left now goes to the keeper, which goes on.
    let _ = family::end(&[], ORPHAN_TIME);
    let until = Instant::now().checked_add(REMOVE_TIME);
    while !(remains.remove_all() & session::remove_private(&session))
        && until.is_some_and(|until| Instant::now() < until)
    {
        std::thread::sleep(AGAIN);
    }
    Ok(())
}

fn has_ended(process: &OwnedFd) -> bool {
    let mut watched = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    poll(&mut watched, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

/// Takes note of ended children.
fn reap(session: &str, zygotes: &mut Vec<Child>, readers: &mut Vec<Pid>, ended: &mut Vec<u32>) {
    for pid in family::reap() {
        readers.retain(|reader| *reader != pid);
        let Some(place) = zygotes.iter().position(|zygote| zygote.pid == pid) else { continue };
        let zygote = zygotes.swap_remove(place);
        match zygote.plan {
            Plan::Bare => {
                session::remove_private(&session::private_prefix(session, zygote.number));
            }
            Plan::Full | Plan::Off => {}
        }
        ended.push(zygote.number);
    }
}

fn start_zygote(program: BorrowedFd<'_>, order: &Order) -> Result<(Pid, OwnedFd, OwnedFd), WallFault> {
    if order.make {
        let workspace = Path::new(OsStr::from_bytes(&order.profile.workspace));
        let made = DirBuilder::new().recursive(true).mode(0o700).create(workspace);
        made.step_on("make the workspace", workspace.display())?;
    }
    let started = start_role(program, c"zygote")?;
    send_message(started.2.as_fd(), order, &[])?;
    Ok(started)
}

/// Starts another role of our binary: its pid, its pidfd and our end of its socket.
fn start_role(program: BorrowedFd<'_>, role: &CStr) -> Result<(Pid, OwnedFd, OwnedFd), WallFault> {
    let (ours, theirs) = pair()?;
    match sys::clone_process(0).step("start a process")? {
        Cloned::Child => zygote::become_role(program, theirs.as_fd(), role),
        Cloned::Parent { pid, pidfd } => Ok((pid, pidfd, ours)),
    }
}
