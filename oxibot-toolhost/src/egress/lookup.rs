//! One look-up of a name: both kinds of address are asked for at once, one server after the other.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, connect, recv, send, socket,
};
use oxibot_proto::reach::HostName;

use super::dns::{self, Answer, Kind};
use super::local::Local;
use crate::wire::NetFailure;

/// How long one server may take before the next is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often each is asked.
const ROUNDS: usize = 2;
/// Answers read at once that are none to us. Prevents a flood of forged ones from keeping the loop.
const READS: usize = 32;

/// Where a look-up stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    Going,
    Found(Vec<IpAddr>),
    Failed(NetFailure),
}

/// A look-up on its way.
#[derive(Debug)]
pub(super) struct Lookup {
    name: HostName,
    /// A random number for each kind, so that who does not see the question cannot answer it.
    ids: [u16; 2],
    answers: [Option<Answer>; 2],
    servers: Vec<SocketAddr>,
    /// Servers asked so far.
    asked: usize,
    socket: Option<OwnedFd>,
    next_at: Instant,
}

const KINDS: [Kind; 2] = [Kind::V4, Kind::V6];

impl Lookup {
    /// Begins; what the machine knows itself is found at once.
    pub(super) fn begin(name: HostName, local: &Local, now: Instant) -> (Self, State) {
        let known = local.addresses(&name);
        let mut lookup = Self {
            name,
            ids: [random(), random()],
            answers: [None, None],
            servers: local.servers.clone(),
            asked: 0,
            socket: None,
            next_at: now,
        };
        let state = if known.is_empty() { lookup.ask_next(now) } else { State::Found(known) };
        (lookup, state)
    }

    /// To poll for answers.
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// When the next server is asked.
    pub(super) fn due(&self) -> Instant {
        self.next_at
    }

    fn ask_next(&mut self, now: Instant) -> State {
        self.socket = None;
        while self.asked < self.servers.len().saturating_mul(ROUNDS) {
            let server = self.servers.get(self.asked % self.servers.len().max(1)).copied();
            self.asked += 1;
            self.next_at = now + PATIENCE;
            self.socket = server.and_then(|server| self.ask(server).ok());
            if self.socket.is_some() {
                return State::Going;
            }
        }
        self.settled().unwrap_or(State::Failed(NetFailure::Lookup))
    }

    /// Asks what is not answered yet, from a port of its own.
    fn ask(&self, server: SocketAddr) -> nix::Result<OwnedFd> {
        let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Datagram, flags, None)?;
        connect(socket.as_raw_fd(), &SockaddrStorage::from(server))?;
        for ((kind, id), answer) in KINDS.into_iter().zip(self.ids).zip(&self.answers) {
            if answer.is_none() {
                send(socket.as_raw_fd(), &dns::question(id, &self.name, kind), MsgFlags::MSG_NOSIGNAL)?;
            }
        }
        Ok(socket)
    }

    /// Answers may be there.
    pub(super) fn ready(&mut self, now: Instant) -> State {
        for _ in 0..READS {
            let Some(socket) = &self.socket else { return self.ask_next(now) };
            let mut buffer = [0; dns::MAX_ANSWER];
            let count = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(count) => count,
                Err(nix::errno::Errno::EAGAIN) => return State::Going,
                Err(nix::errno::Errno::EINTR) => continue,
                // Nobody listens there.
                Err(_) => return self.ask_next(now),
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            let places = KINDS.into_iter().zip(self.ids).zip(&mut self.answers);
            for ((kind, id), place) in places {
                if place.is_none() {
                    *place = dns::answer(bytes, id, &self.name, kind);
                }
            }
            if self.answers.contains(&Some(Answer::Failed)) {
                // What the others answered stays.
                for answer in &mut self.answers {
                    answer.take_if(|answer| *answer == Answer::Failed);
                }
                return self.ask_next(now);
            }
            if self.answers.iter().all(Option::is_some) {
                return self.settled().unwrap_or(State::Failed(NetFailure::Lookup));
            }
        }
        State::Going
    }

    /// Time passed.
    pub(super) fn tick(&mut self, now: Instant) -> State {
        if now < self.next_at {
            return State::Going;
        }
        // One kind of address is enough.
        match self.settled() {
            Some(State::Found(found)) => State::Found(found),
            Some(State::Going | State::Failed(_)) | None => self.ask_next(now),
        }
    }

    /// What is known by now, if anything is.
    fn settled(&self) -> Option<State> {
        let mut found = Vec::new();
        let mut failure = None;
        for answer in self.answers.iter().flatten() {
            match answer {
                Answer::Addresses(addresses) => {
                    found.extend(addresses);
                    failure = failure.or(Some(NetFailure::NoAddress));
                }
                Answer::NoSuchName => failure = Some(NetFailure::NoSuchName),
                Answer::Failed => {}
            }
        }
        if found.is_empty() { failure.map(State::Failed) } else { Some(State::Found(found)) }
    }
}

/// A number nobody can foretell: a hash under keys that std took from the kernel.
fn random() -> u16 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() as u16
}
