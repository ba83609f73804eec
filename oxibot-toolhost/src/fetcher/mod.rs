//! The process that starts the fetch worker when it is first needed, and again when it ended: `oxibot-toolhost fetcher`.
//!
//! Started by the launcher or by main beside the toolhost, before any secret is read. Until somebody asks for something
//! of the web it is all there is of the web: a process that waits. It reads neither requests nor the search key: of its
//! two sockets it takes one descriptor, the program to start, and hands them on. A packet that nobody could answer is
//! thrown away unread.
//!
//! Where the worker is a unit of its own, [`mod@unit`] has it started by that unit's socket.
//!
//! Descriptors: 0 requests from the supervisor, 1 from main, 2 standard error. Arguments are passed on to the worker.

pub mod unit;

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::socket::MsgFlags;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use oxibot_proto::codec;

use crate::idle::Idle;
use crate::sys::{self, Cloned};
use crate::wire::{FetchAnswer, FetchResult};

/// Starts within [`WINDOW`] after workers that failed, above which none is started: a worker that dies of every request
/// would otherwise be started for ever.
const MAX_FAILURES: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// What the worker may be told by the environment: where the certificate authorities are.
const ENVIRONMENT: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
/// Exit status when the program could not be started.
const NOT_STARTED: i32 = 71;

/// Runs until the supervisor's socket is closed. For the start of a process.
#[must_use]
pub fn role(arguments: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let arguments: Vec<CString> =
        arguments.filter_map(|argument| CString::new(argument.into_vec()).ok()).collect();
    let done = match arguments.as_slice() {
        [option, socket] if option.as_c_str() == c"--unit" => {
            unit::run(Path::new(OsStr::from_bytes(socket.as_bytes())))
        }
        _ => run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // The supervisor notices by its socket.
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(arguments: &[CString]) -> Result<(), Errno> {
    sys::close_from(3)?;
    let (Some(requests), Some(key)) = (sys::take_inherited(0), sys::take_inherited(1)) else {
        return Err(Errno::EBADF);
    };
    prctl::set_name(c"oxibot-fetcher")?;
    prctl::set_dumpable(false)?;
    prctl::set_no_new_privs()?;
    // A Ctrl-C at the terminal is for main. EPERM: already a session of its own.
    let _ = nix::unistd::setsid();
    let (_, descriptors) = sys::receive(key.as_fd(), &mut [0], MsgFlags::empty())?;
    let program = descriptors.into_iter().next().ok_or(Errno::EBADF)?;
    let environment: Vec<CString> = ENVIRONMENT
        .iter()
        .filter_map(|name| {
            let value = std::env::var_os(name)?;
            let mut entry = format!("{name}=").into_bytes();
            entry.extend(value.into_vec());
            CString::new(entry).ok()
        })
        .collect();
    serve(&requests, &key, &Worker { program, arguments, environment })
}

struct Worker<'a> {
    program: OwnedFd,
    arguments: &'a [CString],
    environment: Vec<CString>,
}

fn serve(requests: &OwnedFd, key: &OwnedFd, worker: &Worker<'_>) -> Result<(), Errno> {
    let mut failures: Vec<Instant> = Vec::new();
    loop {
        if !wanted(requests.as_fd())? {
            return Ok(());
        }
        let now = Instant::now();
        failures.retain(|at| now.saturating_duration_since(*at) < WINDOW);
        if failures.len() >= MAX_FAILURES {
            discard(requests.as_fd())?;
            lost(requests.as_fd(), "it ended too often; try again in a minute");
            continue;
        }
        let ended = match sys::clone_process(0)? {
            Cloned::Child => become_worker(requests, key, worker),
            Cloned::Parent { pid, pidfd: _ } => wait(pid)?,
        };
        let why = match ended {
            WaitStatus::Exited(_, 0) => continue,
            WaitStatus::Exited(_, status) => {
                // What it could not start with it cannot answer: the request that woke it would only wake the next.
                discard(requests.as_fd())?;
                format!("it ended with status {status}")
            }
            WaitStatus::Signaled(_, signal, _) => format!("it was ended by {signal}"),
            WaitStatus::Stopped(..)
            | WaitStatus::PtraceEvent(..)
            | WaitStatus::PtraceSyscall(_)
            | WaitStatus::Continued(_)
            | WaitStatus::StillAlive => "it ended".to_owned(),
        };
        failures.push(Instant::now());
        lost(requests.as_fd(), &why);
    }
}

/// Waits until a request is there. `false`: there will be none any more.
fn wanted(requests: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut idle = Idle::new();
    loop {
        let mut watched = [PollFd::new(requests, PollFlags::POLLIN)];
        let began = Instant::now();
        match poll(&mut watched, idle.due().map_or(PollTimeout::NONE, PollTimeout::from)) {
            Ok(0) => {
                idle.waited(began.elapsed());
                continue;
            }
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
        }
        let [watched] = &watched;
        let flags = watched.revents().unwrap_or(PollFlags::POLLHUP);
        return Ok(flags.contains(PollFlags::POLLIN) && !flags.contains(PollFlags::POLLHUP));
    }
}

fn become_worker(requests: &OwnedFd, key: &OwnedFd, worker: &Worker<'_>) -> ! {
    let ready = prctl::set_pdeathsig(Signal::SIGKILL)
        .and_then(|()| nix::unistd::dup2_stdin(requests))
        .and_then(|()| nix::unistd::dup2_stdout(key));
    if ready.is_ok() {
        let mut arguments = vec![c"oxibot-fetch", c"--socket-fd", c"0", c"--key-fd", c"1"];
        arguments.extend(worker.arguments.iter().map(CString::as_c_str));
        let environment: Vec<_> = worker.environment.iter().map(CString::as_c_str).collect();
        let _errno = sys::exec_descriptor(worker.program.as_fd(), &arguments, &environment);
    }
    sys::exit_now(NOT_STARTED)
}

fn wait(pid: Pid) -> Result<WaitStatus, Errno> {
    loop {
        match waitpid(pid, None) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Throws away what waits, unread: with no room for it, the kernel drops the rest of a packet.
fn discard(requests: BorrowedFd<'_>) -> Result<(), Errno> {
    loop {
        match sys::receive(requests, &mut [0], MsgFlags::MSG_DONTWAIT) {
            Ok((0, _)) | Err(Errno::EAGAIN) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn lost(requests: BorrowedFd<'_>, why: &str) {
    let answer = FetchAnswer { number: 0, result: FetchResult::Lost(why.to_owned()) };
    if let Ok(frame) = codec::frame(&answer) {
        // A supervisor that is gone is noticed in the next turn.
        let _ = sys::send(requests, &frame, &[]);
    }
}
