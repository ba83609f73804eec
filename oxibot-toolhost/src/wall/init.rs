//! The first process of a call: prepares its namespaces, waits for exactly one job, starts, reaps and reports.
//!
//! It reads what a model wrote (the job) only to pass it on, after it gave up every capability but mounting within its
//! own namespace. When it ends, the kernel ends everything in its PID namespace.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use caps::Capability;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use oxibot_proto::codec::Decoder;
use oxibot_proto::message::Usage;

use super::channel::{Channel, Received};
use super::fault::{Step, fault};
use super::identity::Namespaces;
use super::orders::{FromPayload, Plan};
use super::payload::{self, Parts};
use super::sockets::{self, Hidden};
use super::{family, grants, private, privileges, ruleset};
use crate::sys::{self, Cloned};
use crate::wire::{Ending, FromInit, Job, LimitEvents, Profile, WallFault};

/// How often a call the kernel does not count is counted, in milliseconds. A bomb makes some hundreds in that time.
const WATCH_EVERY_MS: u8 = 25;
/// Longest a call's leftovers without a PID namespace are hunted by its init; the zygote goes on after that.
const END_TIME: Duration = Duration::from_secs(2);
/// Longest init waits for killed leftovers to be reaped. A process stuck in the kernel ends with the namespace.
const REAP_TIME: Duration = Duration::from_millis(500);

/// What a zygote prepared once and each of its inits and payloads inherits by fork.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) profile: Profile,
    pub(super) plan: Plan,
    /// Our own binary.
    pub(super) program: File,
    pub(super) abi: u32,
    /// The host's namespaces, none of which a call of level `full` may be in.
    pub(super) host: Namespaces,
    /// Without a wall there is none.
    pub(super) canary: Option<OwnedFd>,
}

/// Role of a fresh child of the zygote. Writes one byte to `ready` when it can take a job, or a fault's text.
pub(super) fn run(
    ground: &Ground,
    socket: OwnedFd,
    ready: std::io::PipeWriter,
    private: Option<PathBuf>,
) -> ! {
    let status = match serve(ground, socket, ready, private) {
        Ok(()) => 0,
        Err(_) => 1,
    };
    sys::exit_now(status)
}

fn serve(
    ground: &Ground,
    socket: OwnedFd,
    mut ready: std::io::PipeWriter,
    private: Option<PathBuf>,
) -> Result<(), WallFault> {
    let rules = match prepare(ground, private.as_deref()) {
        Ok(rules) => rules,
        Err(fault) => {
            ready.write_all(fault.to_string().as_bytes()).step("report to the zygote")?;
            return Err(fault);
        }
    };
    ready.write_all(&[READY]).step("report to the zygote")?;
    drop(ready);
    let mut channel = Channel::<Job>::new(socket);
    let mut job = match channel.wait(None)? {
        Received::Message(job) => job,
        // The supervisor changed its mind or died.
        Received::Nothing | Received::Closed => return Ok(()),
    };
    if let Some(private) = &private {
        point_to(&mut job, private);
    }
    let told = match start(ground, &mut channel, job, rules) {
        Ok(Started::Running(payload)) => {
            channel.send(&FromInit::Running, &[])?;
            FromInit::Ended(until_end(ground, &payload)?)
        }
        Ok(Started::Refused(told)) => told,
        Err(fault) => FromInit::NotStarted { fault, exec: false },
    };
    channel.send(&told, &[])
}

/// The byte a ready init writes.
pub(super) const READY: u8 = 0;

fn prepare(ground: &Ground, private: Option<&std::path::Path>) -> Result<Option<ruleset::Rules>, WallFault> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).step("tie an init to its zygote")?;
    nix::sys::prctl::set_name(c"oxibot-init").step("name an init")?;
    // The zygote may ignore ended children; an init must not.
    sys::default_signals().step("reset signals")?;
    match ground.plan {
        Plan::Full => {
            private::mount_all(&ground.profile)?;
            // Guards are mounted when the job comes; the payload needs SETPCAP to empty its bounding set.
            privileges::keep(&[Capability::CAP_SYS_ADMIN, Capability::CAP_SETPCAP])?;
        }
        Plan::Bare => nix::sys::prctl::set_child_subreaper(true).step("adopt orphans")?,
        Plan::Off => {
            nix::sys::prctl::set_child_subreaper(true).step("adopt orphans")?;
            return Ok(None);
        }
    }
    let granted = grants::of_call(&ground.profile, ground.plan, private);
    ruleset::build(&granted, ground.abi, ground.plan).map(Some)
}

/// Without a `/tmp` of its own a call gets a directory, and the variables that must name it.
fn point_to(job: &mut Job, private: &std::path::Path) {
    use std::os::unix::ffi::OsStrExt;
    for name in [&b"TMPDIR="[..], b"XDG_CACHE_HOME="] {
        job.environment.retain(|pair| !pair.starts_with(name));
        job.environment.push([name, private.as_os_str().as_bytes()].concat());
    }
}

struct Payload {
    pid: Pid,
    pidfd: OwnedFd,
    /// Most processes of the call.
    processes: usize,
}

enum Started {
    Running(Payload),
    Refused(FromInit),
}

fn start(
    ground: &Ground,
    channel: &mut Channel<Job>,
    job: Job,
    rules: Option<ruleset::Rules>,
) -> Result<Started, WallFault> {
    let stdio = [channel.take_descriptor()?, channel.take_descriptor()?, channel.take_descriptor()?];
    let path = grants::path_of(&ground.profile.workspace);
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let workspace = open(path, flags, Mode::empty()).step_on("open", path.display())?;
    match ground.plan {
        Plan::Full => {
            private::guard(workspace.as_fd(), &ground.profile.protect)?;
            match sockets::hide(&ground.profile, ground.abi, &job.sockets)? {
                Hidden::Yes(None) => {}
                Hidden::Yes(Some(found)) => channel.send(&FromInit::Sockets(found), &[])?,
                Hidden::No(denial) => return Ok(Started::Refused(FromInit::Unsafe(denial))),
            }
        }
        Plan::Bare | Plan::Off => {}
    }
    let processes = usize::try_from(job.limits.processes).unwrap_or(usize::MAX);
    let rules = rules.map(|rules| payload::allow_ourselves(rules, &job, &ground.program)).transpose()?;
    let (mut told, status) = std::io::pipe().step("make a status pipe")?;
    let (payload, pidfd) = match sys::clone_process(0).step("start the payload")? {
        Cloned::Child => {
            drop(told);
            payload::run(ground, Parts { job, rules, workspace, stdio, status })
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((status, stdio, workspace, rules));
    match ground.plan {
        // Nothing is left to mount: what follows reads only the ends of processes.
        Plan::Full => privileges::drop_all()?,
        Plan::Bare | Plan::Off => {}
    }
    let mut bytes = Vec::new();
    told.read_to_end(&mut bytes).step("hear the payload")?;
    let mut words = Decoder::<FromPayload>::new();
    words.push(&bytes);
    let mut verified = false;
    while let Some(word) = words.next_message().step("hear the payload")? {
        let refused = match word {
            FromPayload::Verified => {
                verified = true;
                continue;
            }
            FromPayload::Fault { fault, exec } => FromInit::NotStarted { fault, exec },
            FromPayload::BadDirectory(denial) => FromInit::BadDirectory(denial),
        };
        // It is about to exit; nothing of it may outlive the answer.
        let _ = waitpid(payload, None);
        return Ok(Started::Refused(refused));
    }
    if verified {
        return Ok(Started::Running(Payload { pid: payload, pidfd, processes }));
    }
    let ended = waitpid(payload, None).step("wait for the payload")?;
    Err(fault("confine a call", format!("it ended before it was verified: {ended:?}")))
}

/// Reaps until the payload ends, then ends and counts what it left behind.
fn until_end(ground: &Ground, payload: &Payload) -> Result<Ending, WallFault> {
    let (exit_code, signal) = loop {
        let watching = match ground.plan {
            Plan::Full => None,
            Plan::Bare | Plan::Off => watch(payload)?,
        };
        match waitpid(None, watching) {
            Ok(WaitStatus::Exited(pid, code)) if pid == payload.pid => break (Some(code), None),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == payload.pid => {
                break (None, Some(signal as i32));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(fault("wait for the payload", errno)),
        }
    };
    // Zombies are no processes any more: reap them before counting.
    while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status.pid().is_some()) {}
    let left_behind = match ground.plan {
        Plan::Full => end_namespace(),
        Plan::Bare | Plan::Off => family::end(&[], END_TIME),
    };
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).step("read what the call used")?;
    let milliseconds = |time: nix::sys::time::TimeVal| {
        let total = time.tv_sec().saturating_mul(1000).saturating_add(time.tv_usec() / 1000);
        u64::try_from(total).unwrap_or(0)
    };
    let usage = Usage {
        cpu_ms: milliseconds(usage.user_time()).saturating_add(milliseconds(usage.system_time())),
        max_rss_kb: u64::try_from(usage.max_rss()).unwrap_or(0),
    };
    Ok(Ending { exit_code, signal, usage, left_behind, limits: LimitEvents::default() })
}

/// Kills all others of this PID namespace; orphans are children of init, so reaping counts them.
fn end_namespace() -> u32 {
    // ESRCH: nobody is left.
    if kill(Pid::from_raw(-1), Signal::SIGKILL).is_err() {
        return 0;
    }
    reap_all(REAP_TIME)
}

fn reap_all(time: Duration) -> u32 {
    let until = Instant::now().checked_add(time);
    let mut reaped: u32 = 0;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {
                if until.is_none_or(|until| Instant::now() >= until) {
                    return reaped;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(_) => reaped = reaped.saturating_add(1),
            Err(Errno::EINTR) => {}
            Err(_) => return reaped,
        }
    }
}

/// The kernel does not count processes of its uid 0, so without a namespace somebody else must: this init, many times
/// a second. A call that exceeds its limit is ended as a whole. Returns how to wait next.
fn watch(payload: &Payload) -> Result<Option<WaitPidFlag>, WallFault> {
    if !nix::unistd::getuid().is_root() {
        return Ok(None);
    }
    let mut watched = [PollFd::new(payload.pidfd.as_fd(), PollFlags::POLLIN)];
    match poll(&mut watched, PollTimeout::from(WATCH_EVERY_MS)) {
        Ok(0) if family::count() > payload.processes => family::kill_all(),
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(fault("watch the payload", errno)),
    }
    Ok(Some(WaitPidFlag::WNOHANG))
}
