//! One process a workspace profile: builds what all calls share, then makes inits and files workers on request.
//!
//! Single-threaded. It reads the supervisor's requests, which carry nothing a model wrote. It builds exactly the wall
//! it was ordered to build, proves it by a call of its own, and otherwise says what failed and ends.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use nix::fcntl::{OFlag, open};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use oxibot_proto::settings::Limits;

use super::cgroup::{Counter, Zone};
use super::channel::{Channel, Received, pair};
use super::children::{Children, Init};
use super::fault::{Step, fault};
use super::foundation::{self, Foundation};
use super::handle::ReadyInit;
use super::identity::{self, Identity};
use super::init::{self, Ground, READY, Tools};
use super::nursery::sanitise;
use super::orders::{OURSELVES, Order, Plan};
use super::remedy::Switches;
use super::seccomp::{PayloadFilter, Telling};
use super::{grants, privileges, protections, session};
use crate::idle::Idle;
use crate::sys::{self, Cloned};
use crate::wire::{FromInit, FromZygote, Job, Obtained, Sockets, ToZygote, WallFault};

/// Longest the probe call may take, in milliseconds.
const PROBE_TIMEOUT_MS: u16 = 8_000;
/// Half way to "kill this first".
const OOM_SCORE: &str = "500";
/// What each init of level `full` gets of its own.
const CALL_NAMESPACES: libc::c_int =
    libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC;

/// Starts another role of our binary in a forked child: socket as fd 0, nothing else but fd 1 and 2.
pub(super) fn become_role(program: BorrowedFd<'_>, socket: BorrowedFd<'_>, role: &CStr, more: &[&CStr]) -> ! {
    if sys::default_signals().is_ok() && nix::unistd::dup2_stdin(socket).is_ok() {
        let mut arguments = vec![c"oxibot-toolhost", role];
        arguments.extend(more);
        sys::exec_descriptor(program, &arguments, &[]);
    }
    sys::exit_now(1)
}

/// Entry point of the role `zygote`: fd 0 is its control socket, on which its order comes first.
#[must_use]
pub fn zygote_role() -> ExitCode {
    match live() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn live() -> Result<(), WallFault> {
    let mut orders = Channel::<Order>::new(sanitise()?);
    // The nursery gives us time to tidy up; should it be killed, its socket's end does not reach us.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).step("tie the zygote to the nursery")?;
    let order = match orders.wait(None)? {
        Received::Message(order) => order,
        Received::Nothing | Received::Closed => return Ok(()),
    };
    let socket = orders.socket().try_clone_to_owned().step("keep the control socket")?;
    drop(orders);
    let mut zygote = match Zygote::build(&order) {
        Ok(zygote) => zygote,
        Err(fault) => {
            return super::channel::send_message(socket.as_fd(), &FromZygote::CouldNot(fault), &[]);
        }
    };
    let channel = Channel::<ToZygote>::new(socket);
    match zygote.probe(&channel) {
        Ok(()) => {
            let obtained = zygote.obtained(&order);
            channel.send(&FromZygote::Ready(obtained), &[])?;
        }
        Err(fault) => {
            zygote.children.end();
            return channel.send(&FromZygote::CouldNot(fault), &[]);
        }
    }
    let served = zygote.serve(channel);
    zygote.children.end();
    served
}

struct Zygote {
    ground: Ground,
    identity: Identity,
    /// Started as root, whoever calls run as.
    root: bool,
    /// Whether refused system calls can be told, found by the probe call.
    telling: Telling,
    /// Start of the names of what its calls get in `/tmp`.
    private: String,
    children: Children,
}

impl Zygote {
    fn build(order: &Order) -> Result<Self, WallFault> {
        nix::sys::prctl::set_name(c"oxibot-zygote").step("name the zygote")?;
        let program = File::from(
            open("/proc/self/exe", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
                .step("open our own binary")?,
        );
        // Should memory run out, calls go first, then this, and the supervisor last.
        std::fs::write("/proc/self/oom_score_adj", OOM_SCORE).step("offer calls to the OOM killer")?;
        let root = nix::unistd::getuid().is_root();
        let host = identity::namespaces()?;
        // Before capabilities go: the top of a cgroup tree is nobody's to write without one.
        let (zone, counted) = Zone::make(&order.place, order.number);
        let abi = sys::landlock_abi();
        let Foundation { identity, canary } = foundation::lay(order, abi, zone.as_ref())?;
        match order.plan {
            Plan::Full => sys::ignore_ended_children().step("ignore ended children")?,
            Plan::Bare | Plan::Off => nix::sys::prctl::set_child_subreaper(true).step("adopt orphans")?,
        }
        let profile = order.profile.clone();
        let filter = PayloadFilter::new(order.plan, abi)?;
        let ground = Ground {
            profile,
            plan: order.plan,
            program,
            abi,
            host,
            canary,
            filter,
            counted,
            oom_score: OOM_SCORE,
        };
        let private = session::private_prefix(&order.session, order.number);
        let children = Children::new(order.plan, zone, ground.counted.has(Counter::Processes));
        Ok(Self { ground, identity, root, telling: Telling::Nobody, private, children })
    }

    fn obtained(&self, order: &Order) -> Obtained {
        protections::describe(
            self.ground.plan,
            self.ground.abi,
            &self.identity,
            &self.ground.counted,
            self.telling,
            order.lowered.as_ref(),
            &Switches::read(self.root),
        )
    }

    /// Runs a call whose payload is our own binary doing nothing: its verification is the proof of the level.
    fn probe(&mut self, control: &Channel<ToZygote>) -> Result<(), WallFault> {
        let (pidfd, socket) = self.make_init(control)?;
        let null = || -> Result<OwnedFd, WallFault> {
            Ok(File::options().read(true).write(true).open("/dev/null").step("open /dev/null")?.into())
        };
        let job = Job {
            argv: vec![OURSELVES.to_vec(), b"probe".to_vec()],
            environment: vec![],
            directory: vec![],
            limits: Limits::default(),
            umask: 0o022,
            // It is our own binary and does nothing.
            sockets: Sockets::none(),
        };
        let mut call = ReadyInit::new(pidfd, socket).start(&job, [null()?, null()?, null()?])?;
        let mut word = call.wait(PROBE_TIMEOUT_MS)?;
        if word == FromInit::Listening {
            // Nobody serves it: the probe connects to nothing.
            drop(call.take_descriptor()?);
            word = call.wait(PROBE_TIMEOUT_MS)?;
        }
        match word {
            FromInit::Running => {}
            FromInit::NotStarted { fault, exec: _ } => return Err(fault),
            FromInit::BadDirectory(denial) | FromInit::Unsafe(denial) => {
                return Err(fault("enter the workspace", denial.reason));
            }
            FromInit::Ended(_) | FromInit::Refused(_) | FromInit::Sockets(_) | FromInit::Listening => {
                return Err(fault("probe the wall", "the call ended before it ran"));
            }
        }
        loop {
            match call.wait(PROBE_TIMEOUT_MS)? {
                // The probe makes a call that its filter refuses: that we hear of it is the proof that we can.
                FromInit::Refused(_) => self.telling = Telling::Init,
                FromInit::Ended(ending) if ending.exit_code == Some(0) => return Ok(()),
                FromInit::Ended(ending) => {
                    return Err(fault("probe the wall", format!("the call ended with {ending:?}")));
                }
                FromInit::Running
                | FromInit::Sockets(_)
                | FromInit::Listening
                | FromInit::NotStarted { .. }
                | FromInit::Unsafe(_)
                | FromInit::BadDirectory(_) => {
                    return Err(fault("probe the wall", "the call was reported twice"));
                }
            }
        }
    }

    fn serve(&mut self, mut channel: Channel<ToZygote>) -> Result<(), WallFault> {
        let mut idle = Idle::new();
        loop {
            // An init that ends takes its call with it at once, whoever killed it.
            let ends = self.children.ends();
            let again = self.children.again();
            let began = Instant::now();
            let received = channel.wait_beside(again.or(idle.due()), &ends)?;
            idle.waited(began.elapsed());
            self.children.reap();
            self.children.remove();
            let request = match received {
                Received::Message(request) => request,
                Received::Nothing => continue,
                Received::Closed => return Ok(()),
            };
            let answered = match request {
                ToZygote::MakeInit => self.make_init(&channel).map(|made| (FromZygote::Init, Some(made))),
                ToZygote::MakeFiles => self.make_files(&channel).map(|made| (FromZygote::Files, Some(made))),
                ToZygote::Sweep => Ok((FromZygote::Swept(self.children.sweep()), None)),
            };
            match answered {
                Ok((answer, Some((pidfd, socket)))) => {
                    channel.send(&answer, &[pidfd.as_fd(), socket.as_fd()])?;
                }
                Ok((answer, None)) => channel.send(&answer, &[])?,
                Err(fault) => channel.send(&FromZygote::CouldNot(fault), &[])?,
            }
        }
    }

    fn make_init(&mut self, control: &Channel<ToZygote>) -> Result<(OwnedFd, OwnedFd), WallFault> {
        let (ours, theirs) = pair()?;
        let (mut told, ready) = std::io::pipe().step("make a pipe")?;
        let (placed, mut place) = std::io::pipe().step("make a pipe")?;
        let (flags, private) = match self.ground.plan {
            Plan::Full => (CALL_NAMESPACES, None),
            Plan::Bare => (
                0,
                Some(
                    nix::unistd::mkdtemp(format!("{}/{}XXXXXX", session::TMP, self.private).as_str())
                        .step("make a directory for a call")?,
                ),
            ),
            Plan::Off => (0, None),
        };
        let limits = &self.ground.profile.limits;
        let leaf = self.children.leaf(limits)?;
        let (pid, pidfd) = match sys::clone_process(flags).step("make the namespaces of a call")? {
            Cloned::Child => {
                drop((ours, told, place));
                // An init must not hold the zygote's own socket: it could ask for more inits.
                control.close_in_child();
                init::run(&self.ground, Tools { socket: theirs, placed, ready, private, leaf })
            }
            Cloned::Parent { pid, pidfd } => (pid, pidfd),
        };
        drop((theirs, ready, placed));
        // It starts its payload after this only, and no job reaches it before the supervisor is told of it: nothing of a
        // call runs outside.
        let taken = leaf.as_ref().map_or(Ok(()), |leaf| leaf.take(pid));
        if taken.is_err() {
            let _ = sys::pidfd_send_signal(pidfd.as_fd(), Signal::SIGKILL);
        }
        let watched = pidfd.try_clone().step("watch an init")?;
        self.children.add_init(Init { pid, pidfd: watched, private, leaf });
        taken?;
        // Should it have failed meanwhile, it says so.
        let _ = place.write_all(&[READY]);
        drop(place);
        let mut word = Vec::new();
        told.read_to_end(&mut word).step("hear an init")?;
        match word.as_slice() {
            [READY] => Ok((pidfd, ours)),
            [] => Err(fault("prepare a call", "its init ended without a word")),
            other => {
                let text = String::from_utf8_lossy(other);
                Err(fault("prepare a call", text.strip_prefix("cannot ").unwrap_or(&text)))
            }
        }
    }

    fn make_files(&mut self, control: &Channel<ToZygote>) -> Result<(OwnedFd, OwnedFd), WallFault> {
        let (ours, theirs) = pair()?;
        let flags = match self.ground.plan {
            Plan::Full => libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC,
            Plan::Bare | Plan::Off => 0,
        };
        match sys::clone_process(flags).step("start a files worker")? {
            Cloned::Child => {
                drop(ours);
                control.close_in_child();
                let Err(_) = become_files(&self.ground, theirs);
                sys::exit_now(1)
            }
            Cloned::Parent { pid, pidfd } => {
                self.children.add_worker(pid);
                Ok((pidfd, ours))
            }
        }
    }
}

/// The files worker confines itself; before that it gives up what it would not need to.
fn become_files(ground: &Ground, socket: OwnedFd) -> Result<std::convert::Infallible, WallFault> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).step("tie a files worker to its zygote")?;
    sys::default_signals().step("reset signals")?;
    let path = grants::path_of(&ground.profile.workspace);
    let workspace = open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .step_on("open", Path::new(path).display())?;
    match ground.plan {
        Plan::Full | Plan::Bare => privileges::drop_all()?,
        Plan::Off => {}
    }
    let program = sys::out_of_the_way(ground.program.as_fd()).step("keep our own binary")?;
    nix::unistd::dup2_stdin(&socket).step("connect the control socket")?;
    sys::place_at_three(workspace.as_fd()).step("place the workspace handle")?;
    sys::close_on_exec_from(4).step("close our descriptors")?;
    let arguments = files_arguments(ground)?;
    let arguments: Vec<&CStr> = arguments.iter().map(CString::as_c_str).collect();
    let errno = sys::exec_descriptor(program.as_fd(), &arguments, &[]);
    Err(fault("execute the files worker", errno))
}

/// What the worker is told: where the workspace is, which wall to build and verify, which names are guarded.
fn files_arguments(ground: &Ground) -> Result<Vec<CString>, WallFault> {
    let mut arguments: Vec<Vec<u8>> = vec![
        b"oxibot-toolhost".to_vec(),
        b"files".to_vec(),
        b"--workspace".to_vec(),
        ground.profile.workspace.clone(),
    ];
    match ground.plan {
        Plan::Full | Plan::Bare => {
            arguments.extend([b"--landlock-abi".to_vec(), ground.abi.to_string().into_bytes()]);
        }
        Plan::Off => arguments.push(b"--unconfined".to_vec()),
    }
    if ground.plan == Plan::Bare {
        arguments.push(b"--put-back".to_vec());
    }
    for name in &ground.profile.protect {
        arguments.extend([b"--protect".to_vec(), name.clone().into_bytes()]);
    }
    arguments
        .into_iter()
        .map(CString::new)
        .collect::<Result<_, _>>()
        .step("name the files worker's arguments")
}
