//! A program behind the wall, from our side: its init, its pipes, what it printed. The decisions are [`Life`]'s.
//!
//! Pipes are read and written without blocking. What `bash` prints loses what has the shape of a key before anything else
//! sees it (`proto/src/redact/`): bytes compared with a fixed table, on which nothing here depends.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::pipe2;
use oxibot_proto::message::{CHUNK_WINDOW, Stream};
use oxibot_proto::redact;

use super::collect::Collector;
use super::life::{Do, Event, Life};
use super::network::Way;
use super::sockets::Asked;
use super::spill::Spill;
use crate::wall::{ReadyInit, RunningInit};
use crate::wire::{FoundSockets, FromInit, Job, Sockets};

/// Reads from one pipe before others get their turn.
const READS_A_TURN: usize = 4;
/// Most bytes taken from a pipe once nobody writes to it any more; a pipe holds at most 1 MiB.
const LAST_READS: usize = 64;
/// How long a reply may wait for the output file and the git guard after a call ended by itself.
const SETTLE: Duration = Duration::from_secs(3);
/// The same after we ended it: the reply is due.
const SETTLE_LATE: Duration = Duration::from_millis(100);
/// How long a run that ended keeps what its peer has not yet read.
const LINGER: Duration = Duration::from_secs(600);

/// Input of a run that waits to be written.
#[derive(Debug, Default)]
pub(crate) struct Input {
    pipe: Option<OwnedFd>,
    chunks: VecDeque<Vec<u8>>,
    written: usize,
}

/// More input came than may be unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMuch;

impl Input {
    /// Takes a chunk; an empty one is the end of input.
    pub(crate) fn push(&mut self, data: Vec<u8>) -> Result<(), TooMuch> {
        if self.chunks.len() >= CHUNK_WINDOW {
            return Err(TooMuch);
        }
        self.chunks.push_back(data);
        Ok(())
    }

    /// Writes what the pipe takes. Answers how many chunks are done with.
    pub(crate) fn pump(&mut self, started: bool) -> usize {
        let mut taken = 0;
        while started && let Some(chunk) = self.chunks.front() {
            let rest = chunk.get(self.written..).unwrap_or_default();
            match &self.pipe {
                Some(_) if chunk.is_empty() => self.pipe = None,
                Some(pipe) if !rest.is_empty() => match nix::unistd::write(pipe, rest) {
                    Ok(count) => {
                        self.written += count;
                        continue;
                    }
                    Err(Errno::EINTR) => continue,
                    Err(Errno::EAGAIN) => break,
                    // The program reads no more; what is left has nowhere to go.
                    Err(_) => self.pipe = None,
                },
                Some(_) | None => {}
            }
            self.chunks.pop_front();
            self.written = 0;
            taken += 1;
        }
        taken
    }

    fn waiting_pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().filter(|_| !self.chunks.is_empty()).map(AsFd::as_fd)
    }
}

/// Where output goes.
#[derive(Debug)]
pub(crate) enum Streams {
    /// `bash`: both streams through one pipe, in the order written, secrets taken out, kept in part.
    Together { pipe: Option<OwnedFd>, redaction: Box<redact::Stream>, collector: Collector, spill: Spill },
    /// `sandbox run`: separate and unchanged.
    Apart { out: Option<OwnedFd>, err: Option<OwnedFd>, input: Input, unanswered: usize, total: u64 },
}

/// The guard of git's configuration around a program, of `bash` or of `sandbox run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The worker is recording what is there.
    Recording,
    /// Recorded; to be compared after the call.
    Armed,
    /// The worker is comparing.
    Comparing,
    /// What was put back.
    Compared(Vec<String>),
}

/// One program.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) life: Life,
    pub(crate) streams: Streams,
    pub(crate) guard: Guard,
    /// Where it starts, as the model wrote it.
    pub(crate) directory: Vec<u8>,
    job: Option<Job>,
    /// The search for sockets its init was asked for.
    search: Option<Asked>,
    /// What that search found.
    found: Option<FoundSockets>,
    /// Its proxy's listening socket, not yet served.
    listener: Option<OwnedFd>,
    /// Its way out, if it has one.
    pub(crate) way: Way,
    init: Option<RunningInit>,
    init_talks: bool,
    finish_by: Option<Instant>,
}

impl Process {
    /// A program that waits for an init.
    pub(crate) fn new(job: Job, life: Life, streams: Streams, guard: Guard) -> Self {
        let directory = job.directory.clone();
        Self {
            life,
            streams,
            guard,
            directory,
            job: Some(job),
            search: None,
            found: None,
            listener: None,
            way: Way::default(),
            init: None,
            init_talks: false,
            finish_by: None,
        }
    }

    /// Whether it can be given an init now.
    pub(crate) fn waits_for_init(&self) -> bool {
        self.life.waits() && self.guard != Guard::Recording
    }

    /// What its init has to do about sockets of others, and the search that this asks for.
    pub(crate) fn beware(&mut self, sockets: Sockets, search: Option<Asked>) {
        if let Some(job) = &mut self.job {
            job.sockets = sockets;
        }
        self.search = search;
    }

    /// What its init found, once.
    pub(crate) fn take_found(&mut self) -> Option<(Option<Asked>, FoundSockets)> {
        let found = self.found.take()?;
        Some((self.search.take(), found))
    }

    /// Its proxy's listening socket, once.
    pub(crate) fn take_listener(&mut self) -> Option<OwnedFd> {
        self.listener.take()
    }

    /// Whether its program may be running.
    pub(crate) fn runs(&self) -> bool {
        !self.life.waits() && self.finish_by.is_none()
    }

    /// Hands the job to an init.
    pub(crate) fn launch(&mut self, init: ReadyInit, null: &File, now: Instant) -> Vec<Do> {
        let started = self.start(init, null);
        match started {
            Ok(init) => {
                self.init = Some(init);
                self.init_talks = true;
                self.life.on(Event::Launched, now)
            }
            Err(message) => self.life.on(Event::Broken(message), now),
        }
    }

    fn start(&mut self, init: ReadyInit, null: &File) -> Result<RunningInit, String> {
        let job = self.job.take().ok_or("cannot start a call twice")?;
        let broken = |errno: Errno| format!("cannot make a pipe: {errno}");
        let stdio = match &mut self.streams {
            Streams::Together { pipe, .. } => {
                let (read, write) = output_pipe().map_err(broken)?;
                let error = write.try_clone().map_err(|error| format!("cannot share a pipe: {error}"))?;
                let input = null.try_clone().map_err(|error| format!("cannot open /dev/null: {error}"))?;
                *pipe = Some(read);
                [OwnedFd::from(input), write, error]
            }
            Streams::Apart { out, err, input, .. } => {
                let (stdin, ours) = pipe2(OFlag::O_CLOEXEC).map_err(broken)?;
                open_up(&stdin);
                nonblocking(&ours).map_err(broken)?;
                let (out_read, out_write) = output_pipe().map_err(broken)?;
                let (err_read, err_write) = output_pipe().map_err(broken)?;
                input.pipe = Some(ours);
                *out = Some(out_read);
                *err = Some(err_read);
                [stdin, out_write, err_write]
            }
        };
        init.start(&job, stdio).map_err(|fault| fault.to_string())
    }

    /// The init's control socket is readable.
    pub(crate) fn listen(&mut self, now: Instant) -> Vec<Do> {
        let mut todo = Vec::new();
        while let Some(init) = &mut self.init {
            match init.receive() {
                Ok(Some(FromInit::Sockets(found))) => self.found = Some(found),
                // Should it carry none, the program finds nobody at its proxy's port.
                Ok(Some(FromInit::Listening)) => self.listener = init.take_descriptor().ok(),
                Ok(Some(said)) => todo.extend(self.life.on(Event::Said(said), now)),
                Ok(None) => break,
                Err(_) => {
                    self.init_talks = false;
                    break;
                }
            }
        }
        todo
    }

    /// The init hung up its control socket; its pidfd tells the rest.
    pub(crate) fn init_hung_up(&mut self) {
        self.init_talks = false;
    }

    /// The init's pidfd is readable: it is gone, and what it said last is still in its socket.
    pub(crate) fn init_gone(&mut self, now: Instant) -> Vec<Do> {
        let mut todo = self.listen(now);
        self.init = None;
        todo.extend(self.life.on(Event::Gone, now));
        todo
    }

    /// SIGKILL to the init, and with it to everything in its PID namespace.
    pub(crate) fn kill(&self) {
        if let Some(init) = &self.init {
            init.kill();
        }
    }

    /// The init, while it lives.
    pub(crate) fn init(&self) -> Option<&RunningInit> {
        self.init.as_ref()
    }

    /// Whether the init's control socket is still to be watched.
    pub(crate) fn init_talks(&self) -> bool {
        self.init_talks && self.init.is_some()
    }

    /// Pipes to watch for reading; `room` says whether the peer takes more.
    pub(crate) fn readable(&self, room: bool) -> Vec<(Stream, BorrowedFd<'_>)> {
        match &self.streams {
            Streams::Together { pipe: Some(pipe), spill, .. } if !spill.full() => {
                vec![(Stream::Stdout, pipe.as_fd())]
            }
            Streams::Together { .. } => Vec::new(),
            Streams::Apart { out, err, unanswered, .. } if room && *unanswered < CHUNK_WINDOW => [
                out.as_ref().map(|pipe| (Stream::Stdout, pipe.as_fd())),
                err.as_ref().map(|pipe| (Stream::Stderr, pipe.as_fd())),
            ]
            .into_iter()
            .flatten()
            .collect(),
            Streams::Apart { .. } => Vec::new(),
        }
    }

    /// Pipe to watch for writing.
    pub(crate) fn writable(&self) -> Option<BorrowedFd<'_>> {
        match &self.streams {
            Streams::Together { .. } => None,
            Streams::Apart { input, .. } => input.waiting_pipe(),
        }
    }

    /// Reads a pipe that is readable. Answers a chunk for the peer of a run.
    pub(crate) fn read(&mut self, stream: Stream, buffer: &mut [u8], now: Instant) -> Option<Vec<u8>> {
        match &mut self.streams {
            Streams::Together { pipe, redaction, collector, spill } => {
                for _ in 0..READS_A_TURN {
                    if spill.full() || !collect(pipe, redaction, collector, spill, buffer, now) {
                        break;
                    }
                }
                None
            }
            Streams::Apart { out, err, unanswered, total, .. } => {
                // Both pipes may have been readable when there was room for one chunk.
                if *unanswered >= CHUNK_WINDOW {
                    return None;
                }
                let pipe = match stream {
                    Stream::Stdout => out,
                    Stream::Stderr => err,
                };
                match read_some(pipe, buffer) {
                    0 => None,
                    count => {
                        *unanswered += 1;
                        *total = total.saturating_add(count as u64);
                        buffer.get(..count).map(<[u8]>::to_vec)
                    }
                }
            }
        }
    }

    /// The peer took a chunk.
    pub(crate) fn taken(&mut self) {
        match &mut self.streams {
            Streams::Together { .. } => {}
            Streams::Apart { unanswered, .. } => *unanswered = unanswered.saturating_sub(1),
        }
    }

    /// Nothing of the call runs any more: take what is left in the pipes and set the time of the reply.
    pub(crate) fn finish(&mut self, buffer: &mut [u8], now: Instant) {
        let late = self.life.ended_by_us();
        let wait = match &mut self.streams {
            Streams::Together { pipe, redaction, collector, spill } => {
                for _ in 0..LAST_READS {
                    if !collect(pipe, redaction, collector, spill, buffer, now) {
                        break;
                    }
                }
                *pipe = None;
                let mut rest = Vec::new();
                redaction.finish(&mut rest);
                collector.push(&rest);
                spill.push(&rest, now);
                spill.end(now);
                SETTLE
            }
            Streams::Apart { input, .. } => {
                input.pipe = None;
                LINGER
            }
        };
        self.finish_by = Some(now + if late { SETTLE_LATE } else { wait });
    }

    /// When the reply is due although something is not settled.
    pub(crate) fn finish_by(&self) -> Option<Instant> {
        self.finish_by
    }

    /// Whether the reply can go out.
    pub(crate) fn settled(&self, now: Instant) -> bool {
        let Some(by) = self.finish_by else { return false };
        let streams = match &self.streams {
            Streams::Together { spill, .. } => spill.settled(),
            Streams::Apart { out, err, .. } => out.is_none() && err.is_none(),
        };
        let guard = match self.guard {
            Guard::Recording | Guard::Compared(_) => true,
            Guard::Armed | Guard::Comparing => false,
        };
        now >= by || (streams && guard)
    }

    /// Bytes the program printed so far.
    pub(crate) fn total(&self) -> u64 {
        match &self.streams {
            Streams::Together { collector, .. } => collector.total(),
            Streams::Apart { total, .. } => *total,
        }
    }
}

/// Reads once into collector and spill; `false` when there is nothing more now.
fn collect(
    pipe: &mut Option<OwnedFd>,
    redaction: &mut redact::Stream,
    collector: &mut Collector,
    spill: &mut Spill,
    buffer: &mut [u8],
    now: Instant,
) -> bool {
    match read_some(pipe, buffer) {
        0 => false,
        count => {
            let mut shown = Vec::with_capacity(count);
            redaction.push(buffer.get(..count).unwrap_or_default(), &mut shown);
            collector.count(count);
            collector.push(&shown);
            spill.push(&shown, now);
            true
        }
    }
}

/// Reads what is there; at the end of the stream the pipe is closed. 0 means nothing now.
fn read_some(pipe: &mut Option<OwnedFd>, buffer: &mut [u8]) -> usize {
    loop {
        let Some(open) = pipe else { return 0 };
        match nix::unistd::read(&*open, buffer) {
            Ok(0) => *pipe = None,
            Ok(count) => return count,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return 0,
            Err(_) => *pipe = None,
        }
    }
}

/// A pipe for output: our end does not block, theirs may be opened again by name.
fn output_pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    nonblocking(&read)?;
    open_up(&write);
    Ok((read, write))
}

/// A call as root runs under another user id than the pipe's owner; without this `echo > /dev/stderr`, which opens
/// the pipe anew through /proc, is refused. The pipe has no name outside the call, so it gives nothing away.
fn open_up(end: &OwnedFd) {
    // Only convenience depends on it.
    let _ = fchmod(end, Mode::from_bits_truncate(0o666));
}

fn nonblocking(end: &OwnedFd) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(end, FcntlArg::F_GETFL)?);
    fcntl(end, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

/// `/dev/null`, opened before we shut ourselves in.
pub(crate) fn null() -> std::io::Result<File> {
    OpenOptions::new().read(true).open("/dev/null")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_beyond_the_window_is_refused() {
        let mut input = Input::default();
        for _ in 0..CHUNK_WINDOW {
            assert_eq!(input.push(vec![1]), Ok(()));
        }
        assert_eq!(input.push(vec![1]), Err(TooMuch));
        assert_eq!(input.pump(false), 0, "nothing is taken before the program runs");
    }

    #[test]
    fn input_is_answered_as_the_pipe_takes_it_and_dropped_when_nobody_reads() {
        let (read, write) = output_pipe().unwrap();
        nonblocking(&write).unwrap();
        let mut input = Input { pipe: Some(write), ..Input::default() };
        input.push(vec![7; 256 * 1024]).unwrap();
        input.push(vec![8]).unwrap();
        assert_eq!(input.pump(true), 0, "larger than the pipe");
        assert!(input.waiting_pipe().is_some());
        drop(read);
        assert_eq!(input.pump(true), 2);
        input.push(Vec::new()).unwrap();
        assert_eq!(input.pump(true), 1);
    }

    #[test]
    fn empty_chunk_closes_the_pipe_after_what_came_before() {
        let (read, write) = output_pipe().unwrap();
        let mut input = Input { pipe: Some(write), ..Input::default() };
        input.push(b"ab".to_vec()).unwrap();
        input.push(Vec::new()).unwrap();
        assert_eq!(input.pump(true), 2);
        let mut pipe = Some(read);
        let mut buffer = [0; 8];
        assert_eq!(read_some(&mut pipe, &mut buffer), 2);
        assert_eq!(read_some(&mut pipe, &mut buffer), 0);
        assert!(pipe.is_none(), "end of stream");
    }
}
