//! The supervisor's handles of zygotes, inits and files workers.
//!
//! Dropping a handle of an init kills its call: nothing runs that nobody watches.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::Signal;

use super::channel::{Channel, Received};
use super::fault::fault;
use crate::sys;
use crate::wire::{FromInit, FromZygote, Job, Obtained, ToZygote, WallFault};

/// A zygote that is ready. Dropping it closes its socket, upon which it and all its calls end.
#[derive(Debug)]
pub struct Zygote {
    channel: Channel<FromZygote>,
    pidfd: OwnedFd,
    obtained: Obtained,
}

/// What a zygote said.
#[derive(Debug)]
pub enum ZygoteEvent {
    /// An init waits for its job.
    Init(ReadyInit),
    /// A files worker is up.
    Files(FilesWorker),
    /// So many orphans were ended.
    Swept(u32),
    /// A request failed; the zygote goes on.
    CouldNot(WallFault),
    /// The zygote ended.
    Gone,
}

/// A files worker: frames of `FilesRequest` in, `FilesAnswer` out.
#[derive(Debug)]
pub struct FilesWorker {
    /// Readable once it ended.
    pub pidfd: OwnedFd,
    /// Its control socket, blocking.
    pub socket: OwnedFd,
}

impl Zygote {
    /// Waits for the first word of a zygote.
    pub(super) fn when_ready(pidfd: OwnedFd, socket: OwnedFd, timeout_ms: u16) -> Result<Zygote, WallFault> {
        let mut channel = Channel::new(socket);
        let said = channel.wait(Some(timeout_ms));
        let failed = match said {
            Ok(Received::Message(FromZygote::Ready(obtained))) => {
                return Ok(Zygote { channel, pidfd, obtained });
            }
            Ok(Received::Message(FromZygote::CouldNot(fault))) => fault,
            Ok(Received::Message(FromZygote::Init | FromZygote::Files | FromZygote::Swept(_))) => {
                fault("start a zygote", "it spoke before it was ready")
            }
            Ok(Received::Nothing) => fault("start a zygote", "it did not become ready in time"),
            Ok(Received::Closed) => fault("start a zygote", "it ended before it was ready"),
            Err(fault) => fault,
        };
        // It may hang in a mount: closing the socket alone would not end it. ESRCH if it is gone already.
        let _ = sys::pidfd_send_signal(pidfd.as_fd(), Signal::SIGKILL);
        Err(failed)
    }

    /// The wall that holds for every call of this zygote.
    #[must_use]
    pub fn obtained(&self) -> &Obtained {
        &self.obtained
    }

    /// To poll for POLLIN before [`Zygote::receive`].
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.channel.socket()
    }

    /// Readable once the zygote has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Asks; the answer comes by [`Zygote::receive`], in order.
    ///
    /// # Errors
    /// When the zygote is gone.
    pub fn ask(&mut self, request: ToZygote) -> Result<(), WallFault> {
        self.channel.send(&request, &[])
    }

    /// Takes one event if there is one. Does not block.
    ///
    /// # Errors
    /// When the zygote broke the protocol; it must then be killed.
    pub fn receive(&mut self) -> Result<Option<ZygoteEvent>, WallFault> {
        let event = match self.channel.next()? {
            Received::Nothing => return Ok(None),
            Received::Closed => ZygoteEvent::Gone,
            Received::Message(FromZygote::Init) => {
                let pidfd = self.channel.take_descriptor()?;
                let socket = self.channel.take_descriptor()?;
                ZygoteEvent::Init(ReadyInit::new(pidfd, socket))
            }
            Received::Message(FromZygote::Files) => {
                let pidfd = self.channel.take_descriptor()?;
                let socket = self.channel.take_descriptor()?;
                ZygoteEvent::Files(FilesWorker { pidfd, socket })
            }
            Received::Message(FromZygote::Swept(count)) => ZygoteEvent::Swept(count),
            Received::Message(FromZygote::CouldNot(fault)) => ZygoteEvent::CouldNot(fault),
            Received::Message(FromZygote::Ready(_)) => {
                return Err(fault("hear a zygote", "it became ready twice"));
            }
        };
        Ok(Some(event))
    }

    /// Kills it and, with the namespaces or by parent-death signals, every call it made.
    pub fn kill(&self) {
        // ESRCH when it has ended.
        let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), Signal::SIGKILL);
    }
}

#[derive(Debug)]
struct Init {
    channel: Channel<FromInit>,
    pidfd: OwnedFd,
}

impl Init {
    fn kill(&self) {
        // ESRCH when it has ended.
        let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), Signal::SIGKILL);
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An init whose namespaces are made, waiting for exactly one job.
#[derive(Debug)]
pub struct ReadyInit(Init);

impl ReadyInit {
    pub(super) fn new(pidfd: OwnedFd, socket: OwnedFd) -> Self {
        Self(Init { channel: Channel::new(socket), pidfd })
    }

    /// Sends the job with its stdin, stdout and stderr. Whether it started is the first word of the
    /// [`RunningInit`].
    ///
    /// # Errors
    /// When the init is gone or the job exceeds a frame.
    pub fn start(self, job: &Job, stdio: [OwnedFd; 3]) -> Result<RunningInit, WallFault> {
        let [stdin, stdout, stderr] = &stdio;
        self.0.channel.send(job, &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])?;
        Ok(RunningInit(self.0))
    }

    /// Readable once it has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.0.pidfd.as_fd()
    }
}

/// An init with its job. Says one of `Listening`, if the call has a proxy, then one of `Running`, `NotStarted`, `BadDirectory`, and after `Running` once `Ended`.
/// Dropping it kills the call.
#[derive(Debug)]
pub struct RunningInit(Init);

impl RunningInit {
    /// To poll for POLLIN before [`RunningInit::receive`].
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.0.channel.socket()
    }

    /// Readable once init, and with namespaces the whole call, has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.0.pidfd.as_fd()
    }

    /// Takes one message if there is one. Does not block.
    ///
    /// # Errors
    /// When the init is gone and nothing it said is left: it was killed, or it broke.
    pub fn receive(&mut self) -> Result<Option<FromInit>, WallFault> {
        match self.0.channel.next()? {
            Received::Message(message) => Ok(Some(message)),
            Received::Nothing => Ok(None),
            Received::Closed => Err(fault("hear the init of a call", "it has ended")),
        }
    }

    /// The descriptor that came with [`FromInit::Listening`].
    ///
    /// # Errors
    /// When there is none.
    pub fn take_descriptor(&mut self) -> Result<OwnedFd, WallFault> {
        self.0.channel.take_descriptor()
    }

    /// Waits for one message; for the zygote's own probe.
    pub(super) fn wait(&mut self, timeout_ms: u16) -> Result<FromInit, WallFault> {
        match self.0.channel.wait(Some(timeout_ms))? {
            Received::Message(message) => Ok(message),
            Received::Nothing => Err(fault("hear the init of a call", "it did not answer in time")),
            Received::Closed => Err(fault("hear the init of a call", "it has ended")),
        }
    }

    /// Kills the call: the init and with its PID namespace everything in it. Without namespaces (levels `kernel`
    /// and below) follow with [`ToZygote::Sweep`].
    pub fn kill(&self) {
        self.0.kill();
    }
}
