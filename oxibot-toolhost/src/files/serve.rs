//! Requests in, answers out, one at a time.
//!
//! Reads frames from the control socket, does the work, writes the answer. A supervisor that breaks the protocol or
//! goes away ends the worker; nothing a workspace holds can.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oxibot_proto::codec::{self, DecodeError, Decoder, EncodeError};

use super::confine::Confined;
use super::edit::{Change, edit};
use super::fault::Fault;
use super::gitguard::{GitGuard, Repositories};
use super::nameguard::NameGuard;
use super::read::{Wanted, read};
use super::search;
use super::spill::Spills;
use super::transfer::Transfers;
use super::workspace::Workspace;
use super::write::write;
use crate::idle::Idle;
use crate::wire::{FilesAnswer, FilesRequest, FilesResult, FilesWork};

/// Bytes taken from the socket at once.
const BLOCK: usize = 64 * 1024;

/// Why serving ended before its time.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    /// The socket failed.
    #[error("cannot use the control socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The supervisor sent something that is not a request.
    #[error("cannot read a request: {0}")]
    Request(#[from] DecodeError),
    /// An answer does not fit a frame.
    #[error("cannot send an answer: {0}")]
    Answer(#[from] EncodeError),
}

/// Serves until the supervisor closes the socket. Blocks. `guarded` are the names that are put back after a call.
pub(super) fn serve(
    _confined: Confined,
    socket: OwnedFd,
    workspace: Workspace,
    guarded: &[PathBuf],
) -> Result<(), ServeError> {
    let mut worker = Worker::new(workspace);
    worker.names = NameGuard::new(guarded);
    let served = answer_all(&mut worker, File::from(socket));
    // Calls whose end nobody will tell us of any more are over: the supervisor ends them first.
    worker.end();
    served
}

fn answer_all(worker: &mut Worker, mut socket: File) -> Result<(), ServeError> {
    let mut requests = Decoder::<FilesRequest>::new();
    let mut block = vec![0; BLOCK];
    let mut frame = Vec::new();
    let mut idle = Idle::new();
    loop {
        while let Some(request) = requests.next_message()? {
            let answer = worker.answer(request);
            frame.clear();
            codec::encode(&answer, &mut frame)?;
            write_all(&mut socket, &frame)?;
        }
        let began = Instant::now();
        let readable = ready(&socket, PollFlags::POLLIN, idle.due())?;
        idle.waited(began.elapsed());
        if !readable {
            continue;
        }
        match socket.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(count) => requests.push(block.get(..count).unwrap_or_default()),
            Err(error) => wait(&socket, PollFlags::POLLIN, error)?,
        }
    }
}

fn write_all(socket: &mut File, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) => wait(socket, PollFlags::POLLOUT, error)?,
        }
    }
    Ok(())
}

/// The socket may have been made non-blocking by whoever made it.
fn wait(socket: &File, events: PollFlags, error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == ErrorKind::Interrupted {
        return Ok(());
    }
    if error.kind() != ErrorKind::WouldBlock {
        return Err(error);
    }
    ready(socket, events, None).map(drop)
}

/// Waits at most so many milliseconds. A signal ends the wait, too.
fn ready(socket: &File, events: PollFlags, milliseconds: Option<u16>) -> std::io::Result<bool> {
    let timeout = milliseconds.map_or(PollTimeout::NONE, PollTimeout::from);
    match poll(&mut [PollFd::new(socket.as_fd(), events)], timeout) {
        Ok(count) => Ok(count > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Everything a worker holds between requests.
pub(super) struct Worker {
    workspace: Workspace,
    spills: Spills,
    transfers: Transfers,
    git: GitGuard,
    repositories: Repositories,
    names: NameGuard,
}

impl Worker {
    /// A worker without anything open.
    pub(super) fn new(workspace: Workspace) -> Self {
        Self {
            workspace,
            spills: Spills::default(),
            transfers: Transfers::default(),
            git: GitGuard::default(),
            repositories: Repositories::default(),
            names: NameGuard::default(),
        }
    }

    /// Puts back what a call changed that is still open. Nobody is left to be told.
    fn end(&mut self) {
        if self.names.is_open() {
            self.names.restore(&self.workspace);
        }
        if self.git.is_open() {
            self.git.restore(&self.workspace, &mut self.repositories);
        }
    }

    /// Does one request.
    pub(super) fn answer(&mut self, request: FilesRequest) -> FilesAnswer {
        let number = request.number;
        let result = self.work(number, request.work).unwrap_or_else(FilesResult::from);
        FilesAnswer { number, result }
    }

    fn work(&mut self, number: u64, work: FilesWork) -> Result<FilesResult, Fault> {
        let workspace = &self.workspace;
        match work {
            FilesWork::Read { path, offset, limit, numbers } => {
                read(workspace, &path, Wanted { offset, limit, numbers })
            }
            FilesWork::Write { path, content } => self.written(|workspace| write(workspace, &path, &content)),
            FilesWork::Edit { path, old_text, new_text, replace_all } => {
                let change = Change { old: &old_text, new: &new_text, all: replace_all };
                self.written(|workspace| edit(workspace, &path, change))
            }
            FilesWork::List { path, depth, offset } => search::list(workspace, &path, depth, offset),
            FilesWork::Grep { pattern, path, glob, offset } => {
                search::grep(workspace, &pattern, &path, glob.as_deref(), offset)
            }
            FilesWork::Find { pattern, path, glob, offset } => {
                search::find(workspace, &pattern, &path, glob.as_deref(), offset)
            }
            FilesWork::SpillOpen { name } => self.spills.open(workspace, &name).map(|()| FilesResult::Done),
            FilesWork::SpillWrite { name, data } => {
                self.spills.write(&name, &data).map(|()| FilesResult::Done)
            }
            FilesWork::SpillClose { name } => {
                self.spills.close(&name);
                Ok(FilesResult::Done)
            }
            FilesWork::PutOpen { path, size } => {
                self.transfers.put_open(workspace, number, &path, size).map(|()| FilesResult::Done)
            }
            FilesWork::PutWrite { transfer, data } => {
                self.transfers.put_write(transfer, &data).map(|()| FilesResult::Done)
            }
            FilesWork::PutClose { transfer } => {
                let mut git = GitGuard::default();
                git.checkpoint(workspace, &mut self.repositories);
                let closed = self.transfers.put_close(transfer);
                git.restore(workspace, &mut self.repositories);
                closed.map(|()| FilesResult::Done)
            }
            FilesWork::PutAbort { transfer } => {
                self.transfers.put_abort(transfer);
                Ok(FilesResult::Done)
            }
            FilesWork::GetOpen { path, max_size } => {
                self.transfers.get_open(workspace, number, &path, max_size).map(FilesResult::Size)
            }
            FilesWork::GetRead { transfer, offset, length } => {
                self.transfers.get_read(transfer, offset, length).map(FilesResult::Bytes)
            }
            FilesWork::GetClose { transfer } => {
                self.transfers.get_close(transfer);
                Ok(FilesResult::Done)
            }
            FilesWork::GitCheckpoint => {
                self.names.checkpoint(workspace);
                self.git.checkpoint(workspace, &mut self.repositories);
                Ok(FilesResult::Done)
            }
            FilesWork::GitRestore => {
                let mut notes = self.names.restore(workspace);
                notes.extend(self.git.restore(workspace, &mut self.repositories));
                Ok(FilesResult::Notes(notes))
            }
        }
    }

    /// A file tool can write `.git/config` as well as a command can: the same keys are put back.
    fn written(
        &mut self,
        act: impl FnOnce(&Workspace) -> Result<String, Fault>,
    ) -> Result<FilesResult, Fault> {
        let mut git = GitGuard::default();
        git.checkpoint(&self.workspace, &mut self.repositories);
        let done = act(&self.workspace);
        let notes = git.restore(&self.workspace, &mut self.repositories);
        let mut text = done?;
        for note in notes {
            text.push_str(&note);
            text.push('\n');
        }
        let text = super::text::cut(&text, oxibot_proto::message::MAX_OUTPUT).to_owned();
        Ok(FilesResult::Text { total_bytes: text.len() as u64, text })
    }
}
