//! The supervisor's side of the fetch worker: requests out, answers in, by number. It connects to nothing itself.
//!
//! One packet is one message, so a worker that dies leaves no half of one. Whatever a worker says, an answer to a number
//! nobody waits for is dropped, and only a few kinds of answer exist.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use oxibot_proto::codec::{self, Decoder};
use oxibot_proto::message::CallNumber;

use crate::wire::{FetchAnswer, FetchRequest, FetchResult, FetchWork};

/// Calls of the web at once, of all connections. They cost no process, so they have places of their own.
pub(crate) const MAX_RUNNING: usize = 128;
/// Packets that may wait for a worker that does not read.
const MAX_WAITING: usize = 512;
/// Largest packet of an answer.
const MAX_PACKET: usize = 64 * 1024;

/// What is said when there is no worker.
pub(crate) const ABSENT: &str = "the web tools need the program oxibot-fetch beside oxibot-toolhost; it is not there, or \
    this command does not start it";

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A call.
    Call(u64),
    /// A dry run of a connection.
    DryRun(u64, CallNumber),
}

/// One answer and who it is for.
pub(crate) type Answered = (Asker, FetchResult);

/// The worker as it is seen from here.
#[derive(Debug, Default)]
pub(crate) struct Web {
    socket: Option<OwnedFd>,
    waiting: VecDeque<Vec<u8>>,
    asked: BTreeMap<u64, Asker>,
}

impl Web {
    /// With the socket to whoever starts the worker, if this toolhost was given one.
    pub(crate) fn new(socket: Option<OwnedFd>) -> Self {
        Self { socket, ..Self::default() }
    }

    /// Asks. The answer comes from [`Self::read`], or at once when there is nobody to ask.
    pub(crate) fn ask(&mut self, number: u64, work: FetchWork, asker: Asker) -> Option<Answered> {
        if self.socket.is_none() {
            return Some((asker, FetchResult::Failed(ABSENT.to_owned())));
        }
        let frame = codec::frame(&FetchRequest { number, work });
        match frame.ok().filter(|frame| frame.len() <= MAX_PACKET && self.waiting.len() < MAX_WAITING) {
            Some(frame) => {
                self.waiting.push_back(frame);
                self.asked.insert(number, asker);
                None
            }
            None => {
                Some((asker, FetchResult::Failed("the request is too large, or too many wait".to_owned())))
            }
        }
    }

    /// Nobody waits for the answer any more.
    pub(crate) fn withdraw(&mut self, asker: Asker) {
        let number = self.asked.iter().find(|(_, waits)| **waits == asker).map(|(number, _)| *number);
        let Some(number) = number else { return };
        self.asked.remove(&number);
        if let Ok(frame) = codec::frame(&FetchRequest { number, work: FetchWork::Cancel })
            && self.waiting.len() < MAX_WAITING
        {
            self.waiting.push_back(frame);
        }
    }

    /// Sends what can be sent without waiting.
    pub(crate) fn pump(&mut self) -> Vec<Answered> {
        while let (Some(socket), Some(frame)) = (&self.socket, self.waiting.front()) {
            match send(socket.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(_) => drop(self.waiting.pop_front()),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(_) => return self.gone(),
            }
        }
        Vec::new()
    }

    /// Takes what was answered.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Vec<Answered> {
        let mut answers = Vec::new();
        while let Some(socket) = &self.socket {
            let length = match recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return [answers, self.gone()].concat(),
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => break,
                Err(_) => return [answers, self.gone()].concat(),
            };
            let mut decoder = Decoder::<FetchAnswer>::new();
            decoder.push(buffer.get(..length).unwrap_or_default());
            match decoder.next_message() {
                Ok(Some(FetchAnswer { result: FetchResult::Lost(why), .. })) => {
                    answers.extend(self.lost(&why))
                }
                Ok(Some(FetchAnswer { number, result })) => {
                    answers.extend(self.asked.remove(&number).map(|asker| (asker, result)));
                }
                // Not our protocol: nothing more is believed, and nothing more asked.
                Ok(None) | Err(_) => return [answers, self.gone()].concat(),
            }
        }
        answers
    }

    /// The worker ended: what was sent to it and what waits for it is lost, and everybody who asked is told. The next
    /// worker gets what is asked from now on.
    fn lost(&mut self, why: &str) -> Vec<Answered> {
        let message = format!("the fetch worker was lost: {why}");
        self.waiting.clear();
        std::mem::take(&mut self.asked)
            .into_values()
            .map(|asker| (asker, FetchResult::Failed(message.clone())))
            .collect()
    }

    fn gone(&mut self) -> Vec<Answered> {
        self.socket = None;
        self.lost("nobody starts it any more; start OxiBot again")
    }

    /// Descriptor to watch and whether it has to be writable.
    pub(crate) fn watch(&self) -> Option<(BorrowedFd<'_>, bool)> {
        self.socket.as_ref().map(|socket| (socket.as_fd(), !self.waiting.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    fn pair() -> (Web, OwnedFd) {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        (Web::new(Some(ours)), theirs)
    }

    fn search() -> FetchWork {
        FetchWork::Search { query: "q".into(), count: None }
    }

    fn answer(peer: &OwnedFd, number: u64, result: FetchResult) {
        let frame = codec::frame(&FetchAnswer { number, result }).unwrap();
        send(peer.as_raw_fd(), &frame, MsgFlags::empty()).unwrap();
    }

    #[test]
    fn answers_find_who_asked_in_any_order_and_strangers_find_nobody() {
        let (mut web, peer) = pair();
        assert!(web.ask(1, search(), Asker::Call(10)).is_none());
        assert!(web.ask(2, search(), Asker::Call(20)).is_none());
        assert!(web.pump().is_empty());
        for number in [2, 7, 1, 1] {
            answer(&peer, number, FetchResult::Allowed);
        }
        let answers = web.read(&mut vec![0; MAX_PACKET]);
        assert_eq!(
            answers,
            [(Asker::Call(20), FetchResult::Allowed), (Asker::Call(10), FetchResult::Allowed)]
        );
    }

    #[test]
    fn a_lost_worker_fails_what_was_asked_and_the_next_request_goes_out() {
        let (mut web, peer) = pair();
        web.ask(1, search(), Asker::Call(10));
        web.pump();
        answer(&peer, 0, FetchResult::Lost("it ended".into()));
        let answers = web.read(&mut vec![0; MAX_PACKET]);
        assert!(
            matches!(&answers[..], [(Asker::Call(10), FetchResult::Failed(why))] if why.contains("it ended"))
        );
        assert!(web.ask(2, search(), Asker::Call(20)).is_none());
        assert!(web.pump().is_empty() && web.watch().is_some());
    }

    #[test]
    fn garbage_and_the_end_close_the_web_and_later_calls_fail_at_once() {
        for garbage in [true, false] {
            let (mut web, peer) = pair();
            web.ask(1, search(), Asker::Call(10));
            web.pump();
            if garbage {
                send(peer.as_raw_fd(), &[0xff; 64], MsgFlags::empty()).unwrap();
            }
            let peer = if garbage {
                Some(peer)
            } else {
                drop(peer);
                None
            };
            assert_eq!(web.read(&mut vec![0; MAX_PACKET]).len(), 1);
            assert!(web.watch().is_none());
            assert!(web.ask(2, search(), Asker::Call(20)).is_some());
            drop(peer);
        }
    }

    #[test]
    fn a_withdrawn_request_is_cancelled_and_its_answer_dropped() {
        let (mut web, peer) = pair();
        web.ask(1, search(), Asker::Call(10));
        web.withdraw(Asker::Call(10));
        web.pump();
        answer(&peer, 1, FetchResult::Allowed);
        assert!(web.read(&mut vec![0; MAX_PACKET]).is_empty());
        let mut buffer = [0; 1024];
        recv(peer.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).unwrap();
        let length = recv(peer.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).unwrap();
        let mut decoder = Decoder::<FetchRequest>::new();
        decoder.push(&buffer[..length]);
        assert_eq!(
            decoder.next_message().unwrap().unwrap(),
            FetchRequest { number: 1, work: FetchWork::Cancel }
        );
    }

    #[test]
    fn a_worker_that_does_not_read_costs_bounded_memory() {
        let (mut web, _peer) = pair();
        let refused = (0..5000).filter(|number| {
            let refused = web.ask(*number, search(), Asker::Call(*number)).is_some();
            web.pump();
            refused
        });
        assert!(refused.count() > 0 && web.waiting.len() <= MAX_WAITING);
    }
}
