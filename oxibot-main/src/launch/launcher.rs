//! The launcher of long-lived commands: starts toolhost and main, restarts them, and ends everything when main ends.
//!
//! Single-threaded and synchronous: it waits in one `poll` for both children and for signals. It reads no secret and
//! opens no socket but the pairs its children talk over. Main is this same program, started with `--launched`.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::control::{send_handover, send_toolhost, wants_restart};
use super::fetcher::SearchDoor;
use super::toolhost::{LaunchOptions, Started, Toolhost, ended_within, start_toolhost};
use super::{LaunchError, children, held};
use crate::exit::Exit;

/// Restarts within [`RESTART_WINDOW`] after which the launcher gives up. Prevents a loop that never gets anywhere.
const MAX_RESTARTS: usize = 5;
/// See [`MAX_RESTARTS`].
const RESTART_WINDOW: Duration = Duration::from_secs(60);
/// How long main may take to end after it was asked to. It drains; then it is killed.
const DRAINING: Duration = Duration::from_secs(30);
/// How long main may still be ending when its toolhost has ended in good order.
const CLOSING: Duration = Duration::from_secs(2);

/// What SIGHUP does to what was launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnHangUp {
    /// It ends.
    End,
    /// Main is told and decides, where no terminal can have hung up; else as above.
    Reload,
}

/// Whether SIGHUP can only be somebody's wish that the configuration be read again.
#[must_use]
pub fn reloads_on_hang_up() -> bool {
    !rustix::termios::isatty(io::stdin())
}

/// Starts everything and stays until main ended. The toolhost is started first, before anything else is done.
///
/// # Errors
/// When one of the two cannot be started. Nothing is left running then.
pub fn launch(
    options: &LaunchOptions,
    arguments: Vec<OsString>,
    hang_up: OnHangUp,
) -> Result<Exit, LaunchError> {
    // A main that is killed while a person types leaves the terminal in raw mode.
    let terminal = rustix::termios::tcgetattr(io::stdin()).ok();
    let mut launcher = Launcher::start(options, arguments, hang_up)?;
    let ended = launcher.watch();
    launcher.end();
    if let Some(terminal) = terminal {
        // It may be gone: a hang-up ends us too.
        let _gone = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, &terminal);
    }
    ended
}

struct Launcher<'a> {
    options: &'a LaunchOptions,
    arguments: Vec<OsString>,
    signals: SignalFd,
    toolhost: Option<Toolhost>,
    main: Main,
    hang_up: OnHangUp,
    restarts: Vec<Instant>,
}

struct Main {
    child: Child,
    pidfd: OwnedFd,
    control: UnixStream,
}

impl<'a> Launcher<'a> {
    fn start(
        options: &'a LaunchOptions,
        arguments: Vec<OsString>,
        hang_up: OnHangUp,
    ) -> Result<Self, LaunchError> {
        let Started { socket, toolhost, search } = start_toolhost(options)?;
        let main = start_main(&arguments, &socket, search.as_ref())?;
        // After the children were made: they do not inherit the mask. Ctrl-C is main's to understand; the others end
        // main first, so that nothing is lost.
        let waited = waited_signals();
        set_mask(SigmaskHow::SIG_BLOCK, &waited)?;
        let signals = SignalFd::with_flags(&waited, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(|errno| system("wait for signals", errno))?;
        Ok(Self {
            options,
            arguments,
            signals,
            toolhost: Some(toolhost),
            main,
            hang_up,
            restarts: Vec::new(),
        })
    }

    fn watch(&mut self) -> Result<Exit, LaunchError> {
        let mut asked_to_end: Option<Instant> = None;
        loop {
            let timeout = asked_to_end.map_or(PollTimeout::NONE, |at| {
                PollTimeout::try_from(DRAINING.saturating_sub(at.elapsed())).unwrap_or(PollTimeout::MAX)
            });
            let [main_ended, signalled, toolhost_ended] = self.wait(timeout)?;
            if asked_to_end.is_some_and(|at| at.elapsed() >= DRAINING) {
                tracing::error!("main does not end and is killed");
                self.main.child.kill().map_err(LaunchError::system("kill main"))?;
            }
            if signalled {
                while let Ok(Some(signal)) = self.signals.read_signal() {
                    self.forward(signal.ssi_signo, &mut asked_to_end);
                }
            }
            if main_ended {
                let status = self.main.child.wait().map_err(LaunchError::system("wait for main"))?;
                let again = status.code() == Some(i32::from(Exit::TryAgain.code()))
                    && asked_to_end.is_none()
                    && wants_restart(self.main.control.as_fd());
                if !(again && self.may_restart()) {
                    return Ok(exit_of(status));
                }
                self.restart_both()?;
            } else if toolhost_ended {
                let orderly = self.reap_toolhost();
                // It ends so when main closed its socket: then main is ending too, and only the order differs.
                if asked_to_end.is_some()
                    || (orderly && ended_within(self.main.pidfd.as_fd(), CLOSING).unwrap_or(false))
                {
                    continue;
                }
                if !self.may_restart() {
                    tracing::error!("the toolhost ended too often and is not started again");
                    continue;
                }
                let Started { socket, toolhost, search } =
                    self.unmasked(|launcher| start_toolhost(launcher.options))?;
                self.toolhost = Some(toolhost);
                // A main that is just ending does not take it, and is waited for all the same.
                let _gone = send_toolhost(self.main.control.as_fd(), socket.as_fd(), search.as_ref());
            }
        }
    }

    fn wait(&self, timeout: PollTimeout) -> Result<[bool; 3], LaunchError> {
        let mut watched = vec![
            PollFd::new(self.main.pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(toolhost) = &self.toolhost {
            watched.push(PollFd::new(toolhost.pidfd(), PollFlags::POLLIN));
        }
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(system("wait for the children", errno)),
        }
        let ready = |at: usize| watched.get(at).and_then(PollFd::any).unwrap_or(false);
        Ok([ready(0), ready(1), ready(2)])
    }

    fn forward(&self, signal: u32, asked_to_end: &mut Option<Instant>) {
        let signal = i32::try_from(signal).ok().and_then(|number| Signal::try_from(number).ok());
        match signal {
            // The terminal sent it to main as well.
            Some(Signal::SIGINT | Signal::SIGQUIT) | None => {}
            Some(signal) => {
                let reload = self.hang_up == OnHangUp::Reload && reloads_on_hang_up();
                if signal != Signal::SIGHUP || !reload {
                    asked_to_end.get_or_insert_with(Instant::now);
                }
                if let Ok(pid) = i32::try_from(self.main.child.id()) {
                    // It was not waited for yet, so the number is still its own.
                    let _ended_meanwhile = kill(Pid::from_raw(pid), signal);
                }
            }
        }
    }

    fn may_restart(&mut self) -> bool {
        let now = Instant::now();
        self.restarts.retain(|at| now.saturating_duration_since(*at) < RESTART_WINDOW);
        if self.restarts.len() >= MAX_RESTARTS {
            return false;
        }
        self.restarts.push(now);
        true
    }

    fn restart_both(&mut self) -> Result<(), LaunchError> {
        // The old toolhost ends because main's end of its socket is gone.
        self.reap_toolhost();
        let (main, toolhost) = self.unmasked(|launcher| {
            let Started { socket, toolhost, search } = start_toolhost(launcher.options)?;
            Ok((start_main(&launcher.arguments, &socket, search.as_ref())?, toolhost))
        })?;
        self.main = main;
        self.toolhost = Some(toolhost);
        Ok(())
    }

    /// Whether it ended in good order, because its connection was closed.
    fn reap_toolhost(&mut self) -> bool {
        match self.toolhost.take().map(Toolhost::finish) {
            Some(Ok(status)) => status.success(),
            Some(Err(error)) => {
                tracing::error!(%error, "cannot see the toolhost end");
                false
            }
            None => false,
        }
    }

    /// Starts children with nothing blocked but Ctrl-C: a child inherits the mask, and what is blocked there would not
    /// end it. A signal that arrives in between stays pending, or ends the launcher and with it, by their sockets, all.
    fn unmasked<T>(
        &mut self,
        start: impl FnOnce(&mut Self) -> Result<T, LaunchError>,
    ) -> Result<T, LaunchError> {
        let mut interrupts = SigSet::empty();
        interrupts.add(Signal::SIGINT);
        interrupts.add(Signal::SIGQUIT);
        set_mask(SigmaskHow::SIG_SETMASK, &interrupts)?;
        let started = start(self);
        set_mask(SigmaskHow::SIG_SETMASK, &waited_signals())?;
        started
    }

    /// Main is gone: so is its socket to the toolhost, which ends by itself.
    fn end(&mut self) {
        self.reap_toolhost();
        // Only on an error path does main still run here; it ends with the control socket, or is killed.
        if matches!(self.main.child.try_wait(), Ok(None)) {
            let _shut = self.main.control.shutdown(std::net::Shutdown::Both);
            if !ended_within(self.main.pidfd.as_fd(), Duration::from_secs(5)).unwrap_or(false) {
                let _gone = self.main.child.kill();
            }
            let _status = self.main.child.wait();
        }
    }
}

/// First thing main does under the launcher: it undoes the mask it may have inherited (see [`Launcher::unmasked`]), and
/// ties its life to the launcher's. The control socket says so as well, but a main that was stopped by the terminal
/// reads no socket.
///
/// # Errors
/// When the kernel refuses, which it does not.
pub fn join_launcher() -> Result<(), LaunchError> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|errno| system("tie main to the launcher", errno))?;
    set_mask(SigmaskHow::SIG_UNBLOCK, &waited_signals())
}

fn start_main(
    arguments: &[OsString],
    toolhost: &UnixStream,
    search: Option<&SearchDoor>,
) -> Result<Main, LaunchError> {
    let step = "start main";
    let (control, theirs) = UnixStream::pair().map_err(LaunchError::system(step))?;
    let mut main = Command::new("/proc/self/exe");
    let held = held::pass_on(&mut main).map_err(LaunchError::system(step))?;
    let child = main
        .arg0("oxibot")
        .arg("--launched")
        .args(arguments)
        // One heap for its few threads: each of their own keeps what it once had.
        .env("MALLOC_ARENA_MAX", "1")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .map_err(LaunchError::system(step))?;
    // No other child inherits it.
    drop(held);
    let pidfd = children::watch(&child, step)?;
    send_handover(control.as_fd(), io::stdin().as_fd(), toolhost.as_fd(), search)
        .map_err(LaunchError::system(step))?;
    Ok(Main { child, pidfd, control })
}

fn waited_signals() -> SigSet {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP] {
        set.add(signal);
    }
    set
}

fn set_mask(how: SigmaskHow, set: &SigSet) -> Result<(), LaunchError> {
    sigprocmask(how, Some(set), None).map_err(|errno| system("set the signal mask", errno))
}

fn exit_of(status: std::process::ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Program(u8::try_from(code).unwrap_or(70)),
        (None, Some(signal)) => {
            tracing::error!(signal, "main was ended by a signal");
            Exit::Internal
        }
        (None, None) => Exit::Internal,
    }
}

fn system(step: &'static str, errno: Errno) -> LaunchError {
    LaunchError::System { step, cause: errno.into() }
}
