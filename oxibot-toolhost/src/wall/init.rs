//! The first process of a call: prepares its namespaces, waits for exactly one job, starts, reaps and reports.
//!
//! It reads what a model wrote (the job) only to pass it on, after it gave up every capability but mounting within its
//! own namespace. When it ends, the kernel ends everything in its PID namespace.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use caps::Capability;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use oxibot_proto::message::Usage;

use super::cgroup::{Counted, Leaf};
use super::channel::{Channel, Received, pair};
use super::fault::{Step, fault};
use super::grants::Use;
use super::identity::Namespaces;
use super::orders::{Become, FromPayload, Plan};
use super::payload::{self, Parts};
use super::refusals::Refusals;
use super::running::{self, Payload};
use super::seccomp::{Above, PayloadFilter};
use super::sockets::{self, Hidden};
use super::{family, grants, limits, private, privileges, proxy, ruleset};
use crate::idle;
use crate::sys::{self, Cloned};
use crate::wire::{Ending, FromInit, Job, Profile, Sockets, WallFault};

/// What a call is offered to the OOM killer with: before its init, which has to say what happened, and that keeps the
/// score of its zygote.
const OOM_SCORE: &str = "800";
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
    /// What a payload installs last.
    pub(super) filter: PayloadFilter,
    /// What is counted for each call as a whole.
    pub(super) counted: Counted,
    /// Score of the zygote and its inits for the OOM killer.
    pub(super) oom_score: &'static str,
}

/// What one init is given.
pub(super) struct Tools {
    /// To the supervisor.
    pub(super) socket: OwnedFd,
    /// One byte comes here once this process is in its cgroup: what it starts will be there too.
    pub(super) placed: std::io::PipeReader,
    /// One byte goes here when it can take a job, or a fault's text.
    pub(super) ready: std::io::PipeWriter,
    pub(super) private: Option<PathBuf>,
    pub(super) leaf: Option<Leaf>,
}

/// Role of a fresh child of the zygote.
pub(super) fn run(ground: &Ground, tools: Tools) -> ! {
    let status = match serve(ground, tools) {
        Ok(()) => 0,
        Err(_) => 1,
    };
    sys::exit_now(status)
}

fn serve(ground: &Ground, tools: Tools) -> Result<(), WallFault> {
    let Tools { socket, placed, mut ready, private, mut leaf } = tools;
    let mut channel = Channel::<Job>::new(socket);
    let prepared = prepare(ground, placed).and_then(|prepared| {
        let waiting = make_payload(ground, private.as_deref(), Program::Any, &|| {
            // The zygote waits for the end of this pipe, the supervisor for that of this socket.
            sys::close_in_child(ready.as_fd());
            channel.close_in_child();
            if let Some(listener) = &prepared.listener {
                sys::close_in_child(listener.as_fd());
            }
        })?;
        Ok((prepared, waiting))
    });
    let (Prepared { mut oom_score, listener }, waiting) = match prepared {
        Ok(prepared) => prepared,
        Err(fault) => {
            ready.write_all(fault.to_string().as_bytes()).step("report to the zygote")?;
            return Err(fault);
        }
    };
    ready.write_all(&[READY]).step("report to the zygote")?;
    drop(ready);
    let mut received = channel.wait(Some(idle::AFTER_MS))?;
    if matches!(received, Received::Nothing) {
        sys::unmap_own_code();
        received = channel.wait(None)?;
    }
    let mut job = match received {
        Received::Message(job) => job,
        // The supervisor changed its mind or died.
        Received::Nothing | Received::Closed => return Ok(()),
    };
    if let Some(private) = &private {
        point_to(&mut job, private);
    }
    if let Some(listener) = listener {
        channel.send(&FromInit::Listening, &[listener.as_fd()])?;
    }
    let narrowed = leaf.as_mut().map_or(Ok(()), |leaf| leaf.narrow(&job.limits));
    let started = narrowed.and_then(|()| start(ground, &mut channel, job, waiting, private.as_deref()));
    let told = match started {
        Ok(Started::Running(mut payload)) => {
            // Whatever the call does next, this process is not the first to go.
            oom_score.write_all(ground.oom_score.as_bytes()).step("keep an init from the OOM killer")?;
            channel.send(&FromInit::Running, &[])?;
            FromInit::Ended(until_end(ground, &mut payload, channel.socket(), leaf.as_ref())?)
        }
        Ok(Started::Refused(told)) => told,
        Err(fault) => FromInit::NotStarted { fault, exec: false },
    };
    channel.send(&told, &[])
}

/// The byte a ready init writes, and the one it is told with that it is in its cgroup.
pub(super) const READY: u8 = 0;

/// What an init made before its job came.
struct Prepared {
    /// Its own score for the OOM killer, already raised to that of the payload it will start.
    oom_score: File,
    /// Where the call finds its proxy, if it has one.
    listener: Option<OwnedFd>,
}

fn prepare(ground: &Ground, mut placed: std::io::PipeReader) -> Result<Prepared, WallFault> {
    let oom_score = offer_to_oom_killer()?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).step("tie an init to its zygote")?;
    nix::sys::prctl::set_name(c"oxibot-init").step("name an init")?;
    // The zygote may ignore ended children; an init must not.
    sys::default_signals().step("reset signals")?;
    let mut listener = None;
    match ground.plan {
        Plan::Full => {
            private::mount_all(&ground.profile)?;
            listener = ground.profile.proxy.then(proxy::listen_inside).transpose()?;
            // Guards are mounted when the job comes; a payload needs SETPCAP to lock its securebits.
            privileges::keep(&[Capability::CAP_SYS_ADMIN, Capability::CAP_SETPCAP])?;
            privileges::drop_bounding_first()?;
        }
        Plan::Bare | Plan::Off => nix::sys::prctl::set_child_subreaper(true).step("adopt orphans")?,
    }
    let mut word = [!READY];
    placed.read_exact(&mut word).step("wait for a cgroup")?;
    Ok(Prepared { oom_score, listener })
}

/// What a payload will become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    /// Something of the view.
    Any,
    /// Our own binary, which no rule but its own allows to execute.
    Ourselves,
}

/// A payload that is confined and verified, and waits for its program.
struct Waiting {
    pid: Pid,
    pidfd: OwnedFd,
    words: Channel<FromPayload>,
    refusals: Option<Refusals>,
}

impl Waiting {
    fn discard(self) -> Result<(), WallFault> {
        sys::pidfd_send_signal(self.pidfd.as_fd(), Signal::SIGKILL).step("end a payload")?;
        waitpid(self.pid, None).step("wait for a payload").map(drop)
    }
}

/// Forks a payload and hears it prove itself. `close`: for the child, to close what is its parent's alone.
fn make_payload(
    ground: &Ground,
    private: Option<&std::path::Path>,
    program: Program,
    close: &dyn Fn(),
) -> Result<Waiting, WallFault> {
    let rules = match ground.plan {
        Plan::Full | Plan::Bare => {
            let granted = grants::of_call(&ground.profile, ground.plan, private);
            let rules = ruleset::build(&granted, ground.abi, ground.plan)?;
            Some(match program {
                Program::Any => rules,
                Program::Ourselves => rules.allow(ground.program.as_fd(), Use::Run)?,
            })
        }
        Plan::Off => None,
    };
    let above = match ground.plan {
        Plan::Full => Above::default(),
        Plan::Bare | Plan::Off => family::above(),
    };
    let (told, status) = pair()?;
    let (pid, pidfd) = match sys::clone_process(0).step("start the payload")? {
        Cloned::Child => {
            drop(told);
            close();
            payload::run(ground, Parts { rules, status, above })
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((status, rules));
    let mut words = Channel::<FromPayload>::new(told);
    let mut refusals: Option<Refusals> = None;
    loop {
        let trials = refusals.as_ref().and_then(Refusals::listener);
        match words.wait_beside(None, trials.as_slice())? {
            Received::Message(FromPayload::Filtered) => {
                refusals = Some(Refusals::new(words.take_descriptor()?, above.clone()));
            }
            Received::Message(FromPayload::Verified) => {
                // What was refused so far were our own trials.
                refusals.iter_mut().for_each(Refusals::forget);
                return Ok(Waiting { pid, pidfd, words, refusals });
            }
            Received::Message(FromPayload::Fault { fault, exec: _ }) => {
                // It is about to exit; nothing of it may outlive the answer.
                let _ = waitpid(pid, None);
                return Err(fault);
            }
            Received::Closed => {
                let ended = waitpid(pid, None).step("wait for the payload")?;
                return Err(fault("confine a call", format!("it ended before it was verified: {ended:?}")));
            }
            Received::Nothing => {
                if let Some(refusals) = &mut refusals {
                    refusals.answer_trial(&ground.filter)?;
                }
            }
        }
    }
}

/// A process that is not dumpable does not own its files in `/proc`; nothing of a call exists yet that could use the
/// moment. Before the private `/proc` is mounted, which is read-only.
fn offer_to_oom_killer() -> Result<File, WallFault> {
    let step = "offer a call to the OOM killer";
    let dumpable = nix::sys::prctl::get_dumpable().step(step)?;
    nix::sys::prctl::set_dumpable(true).step(step)?;
    let opened = File::options().write(true).open("/proc/self/oom_score_adj");
    nix::sys::prctl::set_dumpable(dumpable).step(step)?;
    let mut score = opened.step(step)?;
    score.write_all(OOM_SCORE.as_bytes()).step(step)?;
    Ok(score)
}

/// Without a `/tmp` of its own a call gets a directory, and the variables that must name it.
fn point_to(job: &mut Job, private: &std::path::Path) {
    use std::os::unix::ffi::OsStrExt;
    for name in [&b"TMPDIR="[..], b"XDG_CACHE_HOME="] {
        job.environment.retain(|pair| !pair.starts_with(name));
        job.environment.push([name, private.as_os_str().as_bytes()].concat());
    }
}

enum Started {
    Running(Payload),
    Refused(FromInit),
}

fn start(
    ground: &Ground,
    channel: &mut Channel<Job>,
    mut job: Job,
    waiting: Waiting,
    private: Option<&std::path::Path>,
) -> Result<Started, WallFault> {
    let stdio = [channel.take_descriptor()?, channel.take_descriptor()?, channel.take_descriptor()?];
    let path = grants::path_of(&ground.profile.workspace);
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let workspace = open(path, flags, Mode::empty()).step_on("open", path.display())?;
    let sockets = std::mem::replace(&mut job.sockets, Sockets::search());
    match ground.plan {
        Plan::Full => {
            private::guard(workspace.as_fd(), &ground.profile.protect)?;
            match sockets::hide(&ground.profile, ground.abi, &sockets)? {
                Hidden::Yes(None) => {}
                Hidden::Yes(Some(found)) => channel.send(&FromInit::Sockets(found), &[])?,
                Hidden::No(denial) => return Ok(Started::Refused(FromInit::Unsafe(denial))),
            }
        }
        Plan::Bare | Plan::Off => {}
    }
    // After every mount.
    let directory = match payload::directory(workspace.as_fd(), path, &job.directory) {
        Ok(directory) => directory,
        Err(told) => return Ok(Started::Refused(told)),
    };
    let processes = usize::try_from(job.limits.processes).unwrap_or(usize::MAX);
    let waiting = if payload::is_ourselves(&job) {
        waiting.discard()?;
        make_payload(ground, private, Program::Ourselves, &|| channel.close_in_child())?
    } else {
        waiting
    };
    let Waiting { pid, pidfd, mut words, refusals } = waiting;
    let order = Become { job, others: limits::others(ground.plan, &ground.counted) };
    let [stdin, stdout, stderr] = &stdio;
    let descriptors = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), directory.as_fd()];
    words.send(&order, &descriptors)?;
    drop((stdio, workspace, directory));
    match ground.plan {
        // Nothing is left to mount: what follows reads only the ends of processes.
        Plan::Full => privileges::drop_all()?,
        Plan::Bare | Plan::Off => {}
    }
    // Its program's first refusals are told after the supervisor knows that it runs.
    match words.wait(None)? {
        Received::Closed => Ok(Started::Running(Payload { pid, pidfd, processes, refusals })),
        Received::Message(FromPayload::Fault { fault, exec }) => {
            // It is about to exit; nothing of it may outlive the answer.
            let _ = waitpid(pid, None);
            Ok(Started::Refused(FromInit::NotStarted { fault, exec }))
        }
        Received::Message(FromPayload::Filtered | FromPayload::Verified) | Received::Nothing => {
            Err(fault("start a program", "the payload said something else"))
        }
    }
}

/// Waits until the payload ends, then ends and counts what it left behind.
fn until_end(
    ground: &Ground,
    payload: &mut Payload,
    supervisor: BorrowedFd<'_>,
    leaf: Option<&Leaf>,
) -> Result<Ending, WallFault> {
    let (exit_code, signal) = running::until_end(ground, payload, supervisor)?;
    // From here on the kernel answers what the filter refuses: nobody is left who could be told.
    payload.refusals = None;
    // Zombies are no processes any more: reap them before counting.
    while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status.pid().is_some()) {}
    let left_behind = match ground.plan {
        Plan::Full => end_namespace(),
        Plan::Bare | Plan::Off => {
            // First nothing more is born, then what is there is ended.
            if let Some(leaf) = leaf {
                leaf.seal();
            }
            family::end(&[], END_TIME).count()
        }
    };
    // In its own PID namespace whoever is left is its descendant, and orphans are its children.
    let alone = match ground.plan {
        Plan::Full => waitpid(None, Some(WaitPidFlag::WNOHANG)) == Err(Errno::ECHILD),
        Plan::Bare | Plan::Off => false,
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
    let limits = leaf.map(Leaf::events).unwrap_or_default();
    Ok(Ending { exit_code, signal, usage, left_behind, alone, limits })
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
