//! One connection of the call, from its first byte to its last: what is asked, the name's addresses, the judged address,
//! then bytes in both directions until one side ends, time is over, or the call has used up what it may transfer.
//!
//! Nothing is sent anywhere before both name and address were judged, and what was allowed was told.

use std::collections::VecDeque;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockopt, setsockopt, socket, sockopt,
};

use super::body::Body;
use super::local::Local;
use super::lookup::{Lookup, State};
use super::pipe::{Broken, Pipe};
use super::request::{self, Asked, Language, Read, Target};
use super::rules::Rules;
use super::told::Told;
use super::{http, socks, words};
use crate::wire::{NetFailure, NetRule, WallFault};

/// How long a program may take to say what it wants. A slow one must not hold a place for ever.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// How long finding and reaching a host may take.
const REACH_TIME: Duration = Duration::from_secs(20);
/// How long one address may take before the next is tried.
const ADDRESS_TIME: Duration = Duration::from_secs(5);
/// How long both sides may be silent.
const IDLE_TIME: Duration = Duration::from_secs(300);
/// How long a program may take to read our last words.
const FAREWELL_TIME: Duration = Duration::from_secs(3);
/// Most addresses of a name that are tried.
const MAX_TRIED: usize = 6;

/// What all connections of the call share.
pub(super) struct Shared {
    pub(super) rules: Rules,
    pub(super) local: Local,
    pub(super) told: Told,
    /// Bytes the call may still transfer, in both directions together.
    pub(super) left: u64,
    pub(super) scratch: Vec<u8>,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Stays,
    Ends,
}

/// One connection.
pub(super) struct Connection {
    client: TcpStream,
    stage: Stage,
    due: Instant,
}

/// What is done once the host is reached.
struct Plan {
    language: Language,
    target: Target,
    /// What the host is sent first.
    first: Vec<u8>,
    /// What more of the program's bytes belongs to the request. `None`: all, it is a tunnel.
    body: Option<Body>,
}

enum Stage {
    Asking { bytes: Vec<u8>, greeted: bool, answer: Pipe },
    LookingUp { plan: Plan, lookup: Lookup },
    Reaching { plan: Plan, socket: OwnedFd, left: VecDeque<IpAddr>, next_at: Instant },
    Passing { up: Pipe, down: Pipe, server: TcpStream, body: Option<Body>, target: Target },
    Leaving { last: Pipe, said: bool },
}

impl Connection {
    pub(super) fn new(client: OwnedFd, now: Instant) -> Self {
        // Small questions and answers must not wait for each other.
        let _ = setsockopt(&client, sockopt::TcpNoDelay, &true);
        let stage = Stage::Asking { bytes: Vec::new(), greeted: false, answer: Pipe::default() };
        Self { client: TcpStream::from(client), stage, due: now + HEAD_TIME }
    }

    /// When something is due.
    pub(super) fn due(&self) -> Instant {
        match &self.stage {
            Stage::LookingUp { lookup, .. } => self.due.min(lookup.due()),
            Stage::Reaching { next_at, .. } => self.due.min(*next_at),
            Stage::Asking { .. } | Stage::Passing { .. } | Stage::Leaving { .. } => self.due,
        }
    }

    /// What to poll the program's side for.
    pub(super) fn client(&self) -> (BorrowedFd<'_>, PollFlags) {
        let mut flags = PollFlags::empty();
        match &self.stage {
            Stage::Asking { answer, .. } => {
                flags.set(PollFlags::POLLIN, true);
                flags.set(PollFlags::POLLOUT, answer.holds());
            }
            // Nothing is read: only that it hung up is of interest, and that is always told.
            Stage::LookingUp { .. } | Stage::Reaching { .. } => {}
            Stage::Passing { up, down, body, .. } => {
                let more = body.is_none_or(|body| !body.is_over());
                flags.set(PollFlags::POLLIN, up.wants() && more);
                flags.set(PollFlags::POLLOUT, down.holds());
            }
            Stage::Leaving { last, said } => {
                flags.set(PollFlags::POLLOUT, last.holds());
                flags.set(PollFlags::POLLIN, *said);
            }
        }
        (self.client.as_fd(), flags)
    }

    /// What else to poll, and for what.
    pub(super) fn other(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.stage {
            Stage::Asking { .. } | Stage::Leaving { .. } => None,
            Stage::LookingUp { lookup, .. } => lookup.socket().map(|socket| (socket, PollFlags::POLLIN)),
            Stage::Reaching { socket, .. } => Some((socket.as_fd(), PollFlags::POLLOUT)),
            Stage::Passing { up, down, server, .. } => {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::POLLIN, down.wants());
                flags.set(PollFlags::POLLOUT, up.holds());
                // That it hung up is told whatever is asked: asking nothing would be told so without end.
                (!flags.is_empty()).then(|| (server.as_fd(), flags))
            }
        }
    }

    /// One of its descriptors is ready, or something is due.
    pub(super) fn go_on(
        &mut self,
        shared: &mut Shared,
        client: PollFlags,
        other: PollFlags,
        now: Instant,
    ) -> Result<Next, WallFault> {
        let broken = PollFlags::POLLERR | PollFlags::POLLNVAL;
        let hung_up = client.intersects(broken | PollFlags::POLLHUP);
        if now >= self.due {
            return self.late(shared, now);
        }
        match &mut self.stage {
            Stage::Asking { answer, .. } => {
                if client.intersects(broken) || answer.write(&self.client).is_err() {
                    return Ok(Next::Ends);
                }
                if client.intersects(PollFlags::POLLIN | PollFlags::POLLHUP) {
                    return self.asked(shared, now);
                }
                Ok(Next::Stays)
            }
            Stage::LookingUp { lookup, .. } => {
                if hung_up {
                    return Ok(Next::Ends);
                }
                let state = if other.is_empty() { lookup.tick(now) } else { lookup.ready(now) };
                self.looked_up(shared, state, now)
            }
            Stage::Reaching { next_at, .. } => {
                if hung_up {
                    return Ok(Next::Ends);
                }
                match other.is_empty() {
                    false => self.reached(shared, now),
                    true if now >= *next_at => self.reach_next(shared, NetFailure::Silent, now),
                    true => Ok(Next::Stays),
                }
            }
            Stage::Passing { .. } => self.pass(shared, client, other, now),
            Stage::Leaving { last, said } => {
                if client.intersects(broken) || last.write(&self.client).is_err() {
                    return Ok(Next::Ends);
                }
                if *said {
                    // Read on until the program hangs up: unread bytes would have the kernel throw our answer away.
                    let mut rest = Pipe::default();
                    let read = rest.read(&self.client, &mut shared.scratch);
                    let over = read.is_err() || !rest.wants();
                    return Ok(if over { Next::Ends } else { Next::Stays });
                }
                if !last.holds() {
                    *said = true;
                    let _ = self.client.shutdown(Shutdown::Write);
                }
                Ok(Next::Stays)
            }
        }
    }

    fn late(&mut self, shared: &mut Shared, now: Instant) -> Result<Next, WallFault> {
        match &mut self.stage {
            Stage::LookingUp { .. } => self.failed(shared, NetFailure::Lookup, now),
            Stage::Reaching { .. } => self.failed(shared, NetFailure::Silent, now),
            Stage::Asking { .. } | Stage::Passing { .. } | Stage::Leaving { .. } => Ok(Next::Ends),
        }
    }

    /// Reads what the program says.
    fn asked(&mut self, shared: &mut Shared, now: Instant) -> Result<Next, WallFault> {
        let Stage::Asking { bytes, greeted, answer } = &mut self.stage else { return Ok(Next::Stays) };
        let mut reader = Pipe::default();
        let Ok(Some(read)) = reader.read(&self.client, &mut shared.scratch) else {
            return Ok(if reader.wants() { Next::Stays } else { Next::Ends });
        };
        bytes.extend_from_slice(read);
        loop {
            match request::read(bytes, *greeted) {
                Read::More => return Ok(Next::Stays),
                Read::Say { used, answer: said } => {
                    bytes.drain(..used.min(bytes.len()));
                    *greeted = true;
                    answer.push(said);
                    if answer.write(&self.client).is_err() {
                        return Ok(Next::Ends);
                    }
                }
                Read::Whole { used, language, asked } => {
                    let rest = bytes.split_off(used.min(bytes.len()));
                    return self.judge(shared, language, asked, rest, now);
                }
                Read::Bad(language) => {
                    shared.told.refused("", 0, NetRule::Request)?;
                    return Ok(self.refuse(language, NetRule::Request, "", 0, now));
                }
            }
        }
    }

    /// The whole request is there. `rest` is what came behind its head.
    fn judge(
        &mut self,
        shared: &mut Shared,
        language: Language,
        asked: Asked,
        rest: Vec<u8>,
        now: Instant,
    ) -> Result<Next, WallFault> {
        let (target, first, body) = match asked {
            Asked::NoName(no_name) => {
                shared.told.no_name(&no_name)?;
                return Ok(self.refuse(language, NetRule::Name, &no_name.shown, no_name.port, now));
            }
            Asked::Tunnel(target) => (target, rest, None),
            Asked::Forward { target, mut head, mut body } => {
                let Ok(own) = body.take(&rest) else {
                    shared.told.refused(target.host.as_str(), target.port, NetRule::Request)?;
                    return Ok(self.refuse(language, NetRule::Request, "", 0, now));
                };
                head.extend_from_slice(rest.get(..own).unwrap_or_default());
                (target, head, Some(body))
            }
        };
        if let Err(rule) = shared.rules.judge_name(&target) {
            return self.refused(shared, language, &target, rule, now);
        }
        let (lookup, state) = Lookup::begin(target.host.clone(), &shared.local, now);
        self.due = now + REACH_TIME;
        self.stage = Stage::LookingUp { plan: Plan { language, target, first, body }, lookup };
        self.looked_up(shared, state, now)
    }

    fn looked_up(&mut self, shared: &mut Shared, state: State, now: Instant) -> Result<Next, WallFault> {
        let mut found = match state {
            State::Going => return Ok(Next::Stays),
            State::Failed(failure) => return self.failed(shared, failure, now),
            State::Found(found) => found,
        };
        let Stage::LookingUp { plan, .. } = self.leave(now) else { return Ok(Next::Ends) };
        if let Err(rule) = shared.rules.judge_addresses(&found, plan.target.port) {
            return self.refused(shared, plan.language, &plan.target, rule, now);
        }
        // Machines without IPv6 learn so at once; those with half of it would wait.
        found.sort_by_key(IpAddr::is_ipv6);
        let left = found.into_iter().take(MAX_TRIED).collect();
        self.due = now + REACH_TIME;
        self.try_next(shared, plan, left, NetFailure::NoAddress, now)
    }

    /// Begins to connect to the first address where that can be begun, each told before.
    fn try_next(
        &mut self,
        shared: &mut Shared,
        plan: Plan,
        mut left: VecDeque<IpAddr>,
        mut why: NetFailure,
        now: Instant,
    ) -> Result<Next, WallFault> {
        while let Some(address) = left.pop_front() {
            if let Err(rule) = shared.told.allowed(&plan.target, address)? {
                return self.refused(shared, plan.language, &plan.target, rule, now);
            }
            match begin(SocketAddr::new(address, plan.target.port)) {
                Ok(socket) => {
                    self.stage = Stage::Reaching { plan, socket, left, next_at: now + ADDRESS_TIME };
                    return Ok(Next::Stays);
                }
                Err(_) => why = NetFailure::Connect,
            }
        }
        self.failed_for(shared, plan, why, now)
    }

    /// A connection was made, or refused.
    fn reached(&mut self, shared: &mut Shared, now: Instant) -> Result<Next, WallFault> {
        let Stage::Reaching { socket, .. } = &self.stage else { return Ok(Next::Stays) };
        match getsockopt(socket, sockopt::SocketError) {
            Ok(0) => {}
            Ok(_) | Err(_) => return self.reach_next(shared, NetFailure::Connect, now),
        }
        let Stage::Reaching { plan, socket, .. } = self.leave(now) else { return Ok(Next::Ends) };
        let Plan { language, target, first, body } = plan;
        let answer = match (body, language) {
            (Some(_), _) => Vec::new(),
            (None, Language::Http) => http::TUNNEL.to_vec(),
            (None, Language::Socks5 | Language::Socks4) => socks::reply(socks::Reply::Succeeded),
        };
        let (up, down) = (Pipe::holding(first), Pipe::holding(answer));
        self.stage = Stage::Passing { up, down, server: TcpStream::from(socket), body, target };
        self.due = now + IDLE_TIME;
        self.pass(shared, PollFlags::empty(), PollFlags::empty(), now)
    }

    fn reach_next(&mut self, shared: &mut Shared, why: NetFailure, now: Instant) -> Result<Next, WallFault> {
        let due = self.due;
        let Stage::Reaching { plan, socket, left, .. } = self.leave(now) else { return Ok(Next::Ends) };
        drop(socket);
        let next = self.try_next(shared, plan, left, why, now)?;
        if matches!(self.stage, Stage::Reaching { .. }) {
            self.due = due;
        }
        Ok(next)
    }

    /// Passes bytes on, in both directions.
    fn pass(
        &mut self,
        shared: &mut Shared,
        from_client: PollFlags,
        from_server: PollFlags,
        now: Instant,
    ) -> Result<Next, WallFault> {
        let Stage::Passing { up, down, server, body, target } = &mut self.stage else {
            return Ok(Next::Stays);
        };
        let readable =
            |flags: PollFlags| flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR);
        let mut moved = 0;
        let more = body.is_none_or(|body| !body.is_over());
        if readable(from_client) && up.wants() && more {
            match up.read(&self.client, &mut shared.scratch) {
                Ok(Some(bytes)) => {
                    moved += bytes.len() as u64;
                    let own = match body {
                        None => bytes.len(),
                        Some(body) => match body.take(bytes) {
                            Ok(own) => own,
                            Err(request::Malformed) => {
                                let (host, port) = (target.host.as_str().to_owned(), target.port);
                                shared.told.refused(&host, port, NetRule::Request)?;
                                // In the middle of an answer there is no other way to say so.
                                if !down.is_unused() {
                                    return Ok(Next::Ends);
                                }
                                let (language, rule) = (Language::Http, NetRule::Request);
                                return Ok(self.refuse(language, rule, &host, port, now));
                            }
                        },
                    };
                    up.push(bytes.get(..own).unwrap_or_default());
                }
                Ok(None) => {}
                Err(Broken) => return Ok(Next::Ends),
            }
        } else if from_client.intersects(PollFlags::POLLERR | PollFlags::POLLHUP) {
            // Both directions of the program's side are closed: there is nobody left.
            return Ok(Next::Ends);
        }
        if readable(from_server) && down.wants() {
            match down.read(&*server, &mut shared.scratch) {
                Ok(Some(bytes)) => {
                    moved += bytes.len() as u64;
                    down.push(bytes);
                }
                Ok(None) => {}
                Err(Broken) => return Ok(Next::Ends),
            }
        }
        if up.write(&*server).is_err() || down.write(&self.client).is_err() {
            return Ok(Next::Ends);
        }
        if up.is_ending() && body.is_none() {
            let _ = server.shutdown(Shutdown::Write);
            up.closed();
        }
        if down.is_ending() {
            let _ = self.client.shutdown(Shutdown::Write);
            down.closed();
        }
        if down.is_over() && body.is_some() {
            // One request is one connection: its answer's end is the end of it. What the program sent behind its request
            // is read and thrown away, or the kernel would throw the answer away.
            let _ = self.client.shutdown(Shutdown::Write);
            self.leave(now);
            self.stage = Stage::Leaving { last: Pipe::default(), said: true };
            return Ok(Next::Stays);
        }
        if down.is_over() && up.is_over() {
            return Ok(Next::Ends);
        }
        if moved > 0 {
            self.due = now + IDLE_TIME;
        }
        match shared.left.checked_sub(moved) {
            Some(left) => shared.left = left,
            None => {
                shared.left = 0;
                shared.told.refused(target.host.as_str(), target.port, NetRule::Limit)?;
                return Ok(Next::Ends);
            }
        }
        Ok(Next::Stays)
    }

    /// Takes the stage out; what stands in its place ends.
    fn leave(&mut self, now: Instant) -> Stage {
        self.due = now + FAREWELL_TIME;
        std::mem::replace(&mut self.stage, Stage::Leaving { last: Pipe::default(), said: false })
    }

    fn refused(
        &mut self,
        shared: &mut Shared,
        language: Language,
        target: &Target,
        rule: NetRule,
        now: Instant,
    ) -> Result<Next, WallFault> {
        shared.told.refused(target.host.as_str(), target.port, rule)?;
        Ok(self.refuse(language, rule, target.host.as_str(), target.port, now))
    }

    /// Says no, in the program's language.
    fn refuse(&mut self, language: Language, rule: NetRule, host: &str, port: u16, now: Instant) -> Next {
        let status = match rule {
            NetRule::Request => "400 Bad Request",
            NetRule::Name | NetRule::Host | NetRule::Port | NetRule::Address | NetRule::Limit => {
                "403 Forbidden"
            }
        };
        let answer = match language {
            Language::Http => http::answer(status, words::id(rule), &words::refused(rule, host, port)),
            Language::Socks5 => socks::reply(match rule {
                NetRule::Request => socks::Reply::CommandUnknown,
                NetRule::Name | NetRule::Host | NetRule::Port | NetRule::Address | NetRule::Limit => {
                    socks::Reply::NotAllowed
                }
            }),
            Language::Socks4 => socks::reply_4(),
        };
        self.say_last(answer, now)
    }

    fn failed(&mut self, shared: &mut Shared, failure: NetFailure, now: Instant) -> Result<Next, WallFault> {
        match self.leave(now) {
            Stage::LookingUp { plan, .. } | Stage::Reaching { plan, .. } => {
                self.failed_for(shared, plan, failure, now)
            }
            Stage::Asking { .. } | Stage::Passing { .. } | Stage::Leaving { .. } => Ok(Next::Ends),
        }
    }

    fn failed_for(
        &mut self,
        shared: &mut Shared,
        plan: Plan,
        failure: NetFailure,
        now: Instant,
    ) -> Result<Next, WallFault> {
        let Plan { language, target, .. } = plan;
        shared.told.failed(&target, failure)?;
        let answer = match language {
            Language::Http => {
                let status = match failure {
                    NetFailure::Silent | NetFailure::Lookup => "504 Gateway Timeout",
                    NetFailure::NoSuchName | NetFailure::NoAddress | NetFailure::Connect => "502 Bad Gateway",
                };
                http::answer(status, "-", &words::failed(failure, target.host.as_str(), target.port))
            }
            Language::Socks5 | Language::Socks4 => socks::reply(socks::Reply::Unreachable),
        };
        Ok(self.say_last(answer, now))
    }

    fn say_last(&mut self, answer: Vec<u8>, now: Instant) -> Next {
        let mut last = Pipe::holding(answer);
        self.due = now + FAREWELL_TIME;
        if last.write(&self.client).is_err() {
            return Next::Ends;
        }
        let said = !last.holds();
        if said {
            let _ = self.client.shutdown(Shutdown::Write);
        }
        self.stage = Stage::Leaving { last, said };
        Next::Stays
    }
}

/// Begins to connect to an address that was judged.
fn begin(address: SocketAddr) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    let _ = setsockopt(&socket, sockopt::TcpNoDelay, &true);
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket),
        Err(errno) => Err(errno),
    }
}
