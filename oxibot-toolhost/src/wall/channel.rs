//! A socket between two of our own processes: framed messages, descriptors beside them.
//!
//! Both ends run our code before any tool code exists, yet the codec's limits apply all the same. This file does not
//! know which messages exist.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bincode::{Decode, Encode};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, socketpair, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use oxibot_proto::codec::{Decoder, frame};

use super::fault::{Step, fault};
use crate::sys;
use crate::wire::WallFault;

/// Longest a send may block before the peer counts as dead. Prevents a stopped child from stopping its parent.
const SEND_TIMEOUT_SECONDS: i64 = 10;

/// One end of a control socket, receiving messages of type `M`.
#[derive(Debug)]
pub(super) struct Channel<M> {
    socket: OwnedFd,
    decoder: Decoder<M>,
    descriptors: VecDeque<OwnedFd>,
}

/// A connected pair of sockets, both close-on-exec.
pub(super) fn pair() -> Result<(OwnedFd, OwnedFd), WallFault> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
        .step("make a control socket")?;
    let timeout = TimeVal::seconds(SEND_TIMEOUT_SECONDS);
    for end in [&ours, &theirs] {
        nix::sys::socket::setsockopt(end, sockopt::SendTimeout, &timeout).step("set up a control socket")?;
    }
    Ok((ours, theirs))
}

/// Writes one message, its descriptors beside the first byte.
pub(super) fn send_message<S: Encode>(
    socket: BorrowedFd<'_>,
    message: &S,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), WallFault> {
    let bytes = frame(message).step("encode a control message")?;
    let mut left = bytes.as_slice();
    let mut beside = descriptors;
    while !left.is_empty() {
        match sys::send(socket, left, beside) {
            Ok(taken) => {
                left = left.get(taken..).unwrap_or_default();
                beside = &[];
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(fault("send a control message", errno)),
        }
    }
    Ok(())
}

/// As [`send_message`], for what may be lost: gives up where it would have to wait. Returns whether it was sent.
pub(super) fn send_if_room<S: Encode>(socket: BorrowedFd<'_>, message: &S) -> Result<bool, WallFault> {
    let bytes = frame(message).step("encode a control message")?;
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match nix::sys::socket::send(socket.as_raw_fd(), &bytes, flags) {
        Ok(sent) => {
            // The kernel takes a message this short whole; were it not to, half a frame would be worse than a wait.
            let mut left = bytes.get(sent..).unwrap_or_default();
            while !left.is_empty() {
                let sent = sys::send(socket, left, &[]).step("send a control message")?;
                left = left.get(sent..).unwrap_or_default();
            }
            Ok(true)
        }
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => Ok(false),
        Err(errno) => Err(fault("send a control message", errno)),
    }
}

/// What [`Channel::next`] found.
#[derive(Debug)]
pub(super) enum Received<M> {
    /// A message.
    Message(M),
    /// Nothing yet.
    Nothing,
    /// The peer is gone.
    Closed,
}

impl<M: Decode<()>> Channel<M> {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, decoder: Decoder::new(), descriptors: VecDeque::new() }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// In a forked child that will never use this channel: closes its copy of the socket.
    pub(super) fn close_in_child(&self) {
        sys::close_in_child(self.socket.as_fd());
    }

    pub(super) fn send<S: Encode>(
        &self,
        message: &S,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), WallFault> {
        send_message(self.socket.as_fd(), message, descriptors)
    }

    /// The next descriptor received. Messages and descriptors arrive in the same order, so after a message that
    /// carries n of them the next n belong to it.
    pub(super) fn take_descriptor(&mut self) -> Result<OwnedFd, WallFault> {
        self.descriptors.pop_front().ok_or_else(|| fault("take a descriptor", "the message carried none"))
    }

    /// Takes what is there without waiting.
    pub(super) fn next(&mut self) -> Result<Received<M>, WallFault> {
        loop {
            if let Some(message) = self.decoder.next_message().step("read a control message")? {
                return Ok(Received::Message(message));
            }
            let mut buffer = [0; 16 * 1024];
            match sys::receive(self.socket.as_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok((0, _)) => return Ok(Received::Closed),
                Ok((count, descriptors)) => {
                    self.decoder.push(buffer.get(..count).unwrap_or_default());
                    self.descriptors.extend(descriptors);
                }
                Err(Errno::EAGAIN) => return Ok(Received::Nothing),
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNRESET) => return Ok(Received::Closed),
                Err(errno) => return Err(fault("read a control message", errno)),
            }
        }
    }

    /// Waits for the next message, at most `milliseconds` (`None`: for ever). `Nothing` means time ran out.
    pub(super) fn wait(&mut self, milliseconds: Option<u16>) -> Result<Received<M>, WallFault> {
        self.wait_beside(milliseconds, &[])
    }

    /// As [`Channel::wait`]; also returns `Nothing` once one of `others` is readable.
    pub(super) fn wait_beside(
        &mut self,
        milliseconds: Option<u16>,
        others: &[BorrowedFd<'_>],
    ) -> Result<Received<M>, WallFault> {
        loop {
            match self.next()? {
                Received::Nothing => {}
                other @ (Received::Message(_) | Received::Closed) => return Ok(other),
            }
            let timeout = milliseconds.map_or(PollTimeout::NONE, PollTimeout::from);
            let mut watched: Vec<PollFd<'_>> = [self.socket.as_fd()]
                .into_iter()
                .chain(others.iter().copied())
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
            match poll(&mut watched, timeout) {
                Ok(0) => return Ok(Received::Nothing),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(fault("wait for a control message", errno)),
            }
            if watched.iter().skip(1).any(|one| one.any().unwrap_or(false)) {
                return self.next();
            }
        }
    }
}
