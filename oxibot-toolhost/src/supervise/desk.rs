//! The line to one files worker: a queue, one request with the worker at a time, and what happens when it dies.
//!
//! A worker handles what a model wrote, so it is believed only as far as its answer has the number it was asked
//! under. What was with a worker that died is lost and says so; what waited goes to the next worker.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::Signal;
use oxibot_proto::codec::{self, Decoder};

use super::link::{self, Outbox};
use crate::sys;
use crate::wall::FilesWorker;
use crate::wire::{FilesAnswer, FilesRequest, FilesResult, FilesWork};

/// Workers that may die one after the other without an answer before the queue is failed.
const MAX_DEATHS: u8 = 3;

/// Who is waiting for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A file tool.
    Call(u64),
    /// The output file of a call.
    Spill(u64),
    /// The guard of git's configuration, before (`GitCheckpoint`) or after a call.
    Git(u64),
    /// A transfer.
    Transfer(u64),
    /// Nobody: clean-up.
    Nobody,
}

#[derive(Debug)]
struct Task {
    number: u64,
    work: FilesWork,
    owner: Owner,
}

#[derive(Debug)]
struct Line {
    pidfd: OwnedFd,
    socket: OwnedFd,
    decoder: Decoder<FilesAnswer>,
    outbox: Outbox,
}

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Withdrawn {
    /// It had not reached a worker.
    Queued,
    /// The worker was at it.
    InFlight,
    /// There was none.
    Absent,
}

/// An answer, `None` when the worker died over it.
pub(crate) type Answer = (Owner, Option<FilesResult>);

/// One files worker and its queue.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    queue: VecDeque<Task>,
    busy: Option<(u64, Owner)>,
    line: Option<Line>,
    /// A worker was asked for and is not there yet.
    pub(crate) asked: bool,
    deaths: u8,
}

impl Desk {
    /// Queues work under a number that is unique in this process.
    pub(crate) fn put(&mut self, number: u64, work: FilesWork, owner: Owner) {
        self.queue.push_back(Task { number, work, owner });
    }

    /// Whether a worker should be asked for.
    pub(crate) fn wants_worker(&self) -> bool {
        self.line.is_none() && !self.asked && !self.queue.is_empty()
    }

    /// Whether nothing waits and nothing is with the worker.
    pub(crate) fn idle(&self) -> bool {
        self.queue.is_empty() && self.busy.is_none()
    }

    /// A worker is there.
    pub(crate) fn attach(&mut self, worker: FilesWorker) {
        self.asked = false;
        let FilesWorker { pidfd, socket } = worker;
        self.line = Some(Line { pidfd, socket, decoder: Decoder::new(), outbox: Outbox::default() });
    }

    /// Hands the next request over if the worker is free, and sends what its socket takes.
    pub(crate) fn pump(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        let Some(line) = &mut self.line else { return answers };
        while self.busy.is_none() {
            let Some(Task { number, work, owner }) = self.queue.pop_front() else { break };
            let frame = codec::frame(&FilesRequest { number, work }).ok();
            match frame.map(|frame| line.outbox.push(frame)) {
                Some(Ok(())) => self.busy = Some((number, owner)),
                Some(Err(_)) | None => {
                    let message = "the request is too large; use smaller pieces".to_owned();
                    answers.push((owner, Some(FilesResult::Failed(message))));
                }
            }
        }
        if line.outbox.flush(line.socket.as_fd()).is_err() {
            answers.extend(self.lost());
        }
        answers
    }

    /// Takes what the worker answered. A broken answer costs the worker.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Vec<Answer> {
        let Some(line) = &mut self.line else { return Vec::new() };
        let Ok(count) = link::receive(line.socket.as_fd(), buffer) else { return self.lost() };
        line.decoder.push(buffer.get(..count).unwrap_or_default());
        let mut answers = Vec::new();
        while let Some(line) = &mut self.line {
            let message = line.decoder.next_message();
            match (message, self.busy) {
                (Ok(None), _) => break,
                (Ok(Some(answer)), Some((number, owner))) if answer.number == number => {
                    self.busy = None;
                    self.deaths = 0;
                    answers.push((owner, Some(answer.result)));
                }
                (Ok(Some(_)) | Err(_), _) => {
                    answers.extend(self.lost());
                    break;
                }
            }
        }
        answers
    }

    /// The worker is gone, or has to go. After several deaths in a row the queue is given up too.
    pub(crate) fn lost(&mut self) -> Vec<Answer> {
        self.kill();
        self.deaths = self.deaths.saturating_add(1);
        let mut answers: Vec<Answer> = self.busy.take().map(|(_, owner)| (owner, None)).into_iter().collect();
        if self.deaths >= MAX_DEATHS {
            self.deaths = 0;
            answers.extend(self.fail_queue());
        }
        answers
    }

    /// Fails everything that waits: there will be no worker.
    pub(crate) fn fail_queue(&mut self) -> Vec<Answer> {
        self.asked = false;
        self.queue.drain(..).map(|task| (task.owner, None)).collect()
    }

    /// Lets the worker end by itself, and answers what to wait for: it puts back what calls that were ended changed of
    /// git's configuration.
    pub(crate) fn hang_up(&mut self) -> Option<OwnedFd> {
        self.line.take().map(|line| line.pidfd)
    }

    /// Ends the worker at once.
    pub(crate) fn kill(&mut self) {
        if let Some(line) = self.line.take() {
            // It may be dead already, which is what we want.
            let _ = sys::pidfd_send_signal(line.pidfd.as_fd(), Signal::SIGKILL);
        }
    }

    /// Takes a task back. What is with the worker can only be stopped by ending the worker.
    pub(crate) fn withdraw(&mut self, owner: Owner) -> Withdrawn {
        if self.busy.is_some_and(|(_, busy)| busy == owner) {
            self.busy = None;
            self.kill();
            return Withdrawn::InFlight;
        }
        let before = self.queue.len();
        self.queue.retain(|task| task.owner != owner);
        if self.queue.len() < before { Withdrawn::Queued } else { Withdrawn::Absent }
    }

    /// Descriptors to watch: socket, whether it has to be writable, and pidfd.
    pub(crate) fn watch(&self) -> Option<(BorrowedFd<'_>, bool, BorrowedFd<'_>)> {
        self.line.as_ref().map(|line| (line.socket.as_fd(), !line.outbox.is_empty(), line.pidfd.as_fd()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    fn worker() -> (FilesWorker, OwnedFd) {
        let (socket, theirs) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap();
        // Any descriptor will do as a pidfd here: signalling it fails, which is what a dead process does.
        let (pidfd, _) = nix::unistd::pipe().unwrap();
        (FilesWorker { pidfd, socket }, theirs)
    }

    fn answer(peer: &OwnedFd, number: u64) {
        let frame = codec::frame(&FilesAnswer { number, result: FilesResult::Done }).unwrap();
        nix::unistd::write(peer, &frame).unwrap();
    }

    #[test]
    fn one_request_at_a_time_and_answers_by_number() {
        let mut desk = Desk::default();
        desk.put(1, FilesWork::GitCheckpoint, Owner::Call(1));
        desk.put(2, FilesWork::GitRestore, Owner::Call(2));
        assert!(desk.wants_worker());
        let (worker, peer) = worker();
        desk.attach(worker);
        assert!(desk.pump().is_empty());
        assert_eq!(desk.busy, Some((1, Owner::Call(1))));
        answer(&peer, 1);
        assert_eq!(desk.read(&mut [0; 64]), [(Owner::Call(1), Some(FilesResult::Done))]);
        desk.pump();
        assert_eq!(desk.busy, Some((2, Owner::Call(2))));
    }

    #[test]
    fn answer_under_another_number_costs_the_worker_and_only_its_request() {
        let mut desk = Desk::default();
        desk.put(1, FilesWork::GitCheckpoint, Owner::Call(1));
        desk.put(2, FilesWork::GitRestore, Owner::Call(2));
        let (worker, peer) = worker();
        desk.attach(worker);
        desk.pump();
        answer(&peer, 2);
        assert_eq!(desk.read(&mut [0; 64]), [(Owner::Call(1), None)]);
        assert!(desk.wants_worker(), "the second goes to the next worker");
    }

    #[test]
    fn workers_that_keep_dying_fail_the_queue() {
        let mut desk = Desk::default();
        for number in 0..10 {
            desk.put(number, FilesWork::GitCheckpoint, Owner::Call(number));
        }
        let mut failed = 0;
        for _ in 0..MAX_DEATHS {
            let (worker, _peer) = worker();
            desk.attach(worker);
            desk.pump();
            failed += desk.lost().len();
        }
        assert_eq!(failed, 10);
        assert!(!desk.wants_worker());
    }

    #[test]
    fn withdrawn_task_is_taken_from_the_queue_or_ends_the_worker() {
        let mut desk = Desk::default();
        desk.put(1, FilesWork::GitCheckpoint, Owner::Call(1));
        desk.put(2, FilesWork::GitCheckpoint, Owner::Call(2));
        let (worker, _peer) = worker();
        desk.attach(worker);
        desk.pump();
        assert_eq!(desk.withdraw(Owner::Call(2)), Withdrawn::Queued);
        assert_eq!(desk.withdraw(Owner::Call(1)), Withdrawn::InFlight);
        assert_eq!(desk.withdraw(Owner::Call(1)), Withdrawn::Absent);
        assert!(desk.watch().is_none());
    }
}
