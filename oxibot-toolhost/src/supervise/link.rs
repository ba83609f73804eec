//! One connection to main: bytes in, messages out, and a bounded queue back. Holds no call.
//!
//! Writing never blocks. A peer that does not read loses first its progress, then the connection, never our memory.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, sendmsg};
use oxibot_proto::codec::{self, Decoder};
use oxibot_proto::message::{CloseReason, ToMain, ToToolhost};
use oxibot_proto::state::Stage;

use super::seen::Seen;

/// How long what nobody waits for may stay unsent. Longer than a short call takes, shorter than anybody notices.
const PATIENCE: Duration = Duration::from_millis(5);
/// Frames that may wait for a peer before producers pause.
const SOFT_FRAMES: usize = 64;
/// Bytes that may wait for a peer before producers pause.
const SOFT_BYTES: usize = 2 * 1024 * 1024;
/// Frames that may wait before the peer is taken for dead: every result that can be due, and some.
const HARD_FRAMES: usize = 512;

/// What a connection may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    /// Everything: main itself.
    All,
    /// `Status`, `Stop` and approvals only: a person at another terminal, whom main cannot be.
    Control,
}

/// The connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The peer closed it, or it broke.
    Closed,
    /// The peer does not read.
    NotReading,
}

/// Frames on their way to a peer.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    frames: VecDeque<Vec<u8>>,
    /// Bytes of the first frame that were already sent.
    sent: usize,
    bytes: usize,
}

impl Outbox {
    /// Whether something that can wait or be dropped may be queued.
    pub(crate) fn has_room(&self) -> bool {
        self.frames.len() < SOFT_FRAMES && self.bytes < SOFT_BYTES
    }

    /// Queues a frame, whatever waits already.
    pub(crate) fn push(&mut self, frame: Vec<u8>) -> Result<(), Lost> {
        if self.frames.len() >= HARD_FRAMES {
            return Err(Lost::NotReading);
        }
        self.bytes += frame.len();
        self.frames.push_back(frame);
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    fn front(&self) -> Option<&[u8]> {
        self.frames.front().and_then(|frame| frame.get(self.sent..))
    }

    fn advance(&mut self, count: usize) {
        self.sent += count;
        self.bytes = self.bytes.saturating_sub(count);
        if self.frames.front().is_some_and(|frame| self.sent >= frame.len()) {
            self.frames.pop_front();
            self.sent = 0;
        }
    }

    /// Sends what the socket takes now.
    pub(crate) fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<(), Lost> {
        while let Some(bytes) = self.front() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &[], flags, None) {
                Ok(count) => self.advance(count),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(_) => return Err(Lost::Closed),
            }
        }
        Ok(())
    }
}

/// Reads what is there, without blocking: `Ok(0)` when nothing is.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Lost> {
    loop {
        match recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Err(Lost::Closed),
            Ok(count) => return Ok(count),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(0),
            Err(_) => return Err(Lost::Closed),
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    socket: OwnedFd,
    decoder: Decoder<ToToolhost>,
    pub(crate) outbox: Outbox,
    pub(crate) stage: Stage,
    pub(crate) rights: Rights,
    pub(crate) seen: Seen,
    /// Nothing more is read; it closes once the outbox is empty.
    pub(crate) closing: bool,
    /// All that waits to be sent may wait until then, or until something is sent that may not.
    patient: Option<Instant>,
}

impl Link {
    /// A connection in its greeting.
    pub(crate) fn new(socket: OwnedFd, rights: Rights) -> Self {
        Self {
            socket,
            decoder: Decoder::new(),
            outbox: Outbox::default(),
            stage: Stage::Greeting,
            rights,
            seen: Seen::default(),
            closing: false,
            patient: None,
        }
    }

    /// The socket, for poll.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether more should be read now. A peer that does not take its answers may not ask more.
    pub(crate) fn wants_to_read(&self) -> bool {
        !self.closing && self.outbox.has_room()
    }

    /// Reads once into the decoder.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Lost> {
        let count = receive(self.socket.as_fd(), buffer)?;
        self.decoder.push(buffer.get(..count).unwrap_or_default());
        Ok(())
    }

    /// The next message that is legal now, or why the connection must close.
    pub(crate) fn next_message(&mut self) -> Result<Option<ToToolhost>, CloseReason> {
        if self.closing {
            return Ok(None);
        }
        let message = match self.decoder.next_message() {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(None),
            Err(error) => return Err(CloseReason::Malformed { detail: error.to_string() }),
        };
        let allowed = match self.rights {
            Rights::All => true,
            Rights::Control => matches!(
                message,
                ToToolhost::Hello(_)
                    | ToToolhost::Status
                    | ToToolhost::Stop(_)
                    | ToToolhost::ListApprovals
                    | ToToolhost::Approve(_)
            ),
        };
        if !allowed || message.check(self.stage).is_err() {
            return Err(CloseReason::Illegal { message: message.name().to_owned() });
        }
        Ok(Some(message))
    }

    /// Queues one message. A message too large for a frame is a fault of ours and costs the connection.
    pub(crate) fn send(&mut self, message: &ToMain) -> Result<(), Lost> {
        self.patient = None;
        let frame = codec::frame(message).map_err(|_| Lost::Closed)?;
        self.outbox.push(frame)
    }

    /// The same for what nobody waits for: sent with the next message, at the latest after [`PATIENCE`]. Who is woken for
    /// it would only take a processor from the call it is about.
    pub(crate) fn send_at_leisure(&mut self, message: &ToMain, now: Instant) -> Result<(), Lost> {
        let patient = if self.outbox.is_empty() { Some(now + PATIENCE) } else { self.patient };
        self.send(message)?;
        self.patient = patient;
        Ok(())
    }

    /// Whether something is to be sent now.
    pub(crate) fn wants_to_write(&self) -> bool {
        self.patient.is_none() && !self.outbox.is_empty()
    }

    /// When what may wait has to be sent.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.patient
    }

    /// Sends what the socket takes now.
    pub(crate) fn flush(&mut self, now: Instant) -> Result<(), Lost> {
        if self.patient.is_some_and(|until| now < until) {
            return Ok(());
        }
        self.patient = None;
        self.outbox.flush(self.socket.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_wait_goes_with_the_next_message_or_when_its_time_is_over() {
        let message =
            |call| ToMain::Progress(Progress { call: CallNumber(call), elapsed_ms: 1, output_bytes: 1 });
        let (ours, theirs) = pair();
        let mut link = Link::new(ours, Rights::All);
        let now = Instant::now();
        let mut buffer = [0; 256];
        link.send_at_leisure(&message(1), now).unwrap();
        link.flush(now).unwrap();
        assert!(!link.wants_to_write() && link.due().is_some());
        assert_eq!(receive(theirs.as_fd(), &mut buffer), Ok(0));
        link.flush(now + PATIENCE).unwrap();
        let one = receive(theirs.as_fd(), &mut buffer).unwrap();
        assert!(one > 0 && link.due().is_none());
        link.send_at_leisure(&message(2), now).unwrap();
        link.send(&message(3)).unwrap();
        assert!(link.wants_to_write());
        link.flush(now).unwrap();
        assert_eq!(receive(theirs.as_fd(), &mut buffer), Ok(2 * one), "in their order");
    }
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use oxibot_proto::message::{CallNumber, Progress};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    #[test]
    fn peer_that_does_not_read_is_lost_and_costs_bounded_memory() {
        let (ours, _theirs) = pair();
        let mut link = Link::new(ours, Rights::All);
        let message = ToMain::Progress(Progress { call: CallNumber(1), elapsed_ms: 1, output_bytes: 1 });
        let mut queued = 0;
        let lost = loop {
            match link.send(&message) {
                Ok(()) => queued += 1,
                Err(lost) => break lost,
            }
            assert!(queued <= HARD_FRAMES);
        };
        assert_eq!(lost, Lost::NotReading);
        assert!(!link.wants_to_read(), "it may not ask more either");
    }

    #[test]
    fn control_connection_may_not_call() {
        let (ours, theirs) = pair();
        let mut link = Link::new(ours, Rights::Control);
        link.stage = Stage::Open;
        nix::unistd::write(&theirs, &codec::frame(&ToToolhost::ListTools).unwrap()).unwrap();
        link.fill(&mut [0; 1024]).unwrap();
        assert_eq!(link.next_message(), Err(CloseReason::Illegal { message: "ListTools".into() }));
    }

    #[test]
    fn garbage_and_early_messages_close_with_their_reason() {
        for (bytes, stage) in
            [(vec![0xff; 64], Stage::Open), (codec::frame(&ToToolhost::Status).unwrap(), Stage::Greeting)]
        {
            let (ours, theirs) = pair();
            let mut link = Link::new(ours, Rights::All);
            link.stage = stage;
            nix::unistd::write(&theirs, &bytes).unwrap();
            link.fill(&mut [0; 1024]).unwrap();
            assert!(link.next_message().is_err());
        }
    }
}
