//! The supervisor's loop: wait for descriptors, hand each event to its owner, settle what follows.
//!
//! One thread, one poll. Requests are admitted in `admit`, calls are driven in `calls`; this file only knows which
//! descriptor belongs to whom. It parses nothing a program printed and opens no path.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use oxibot_proto::message::{CloseReason, Level, Stream, ToMain, ToolhostHello, Wall};
use oxibot_proto::redact::Redactor;
use oxibot_proto::settings::ToolhostSettings;
use oxibot_proto::state::Stage;

use super::approvals::Approvals;
use super::attacks::Range;
use super::audit::Audit;
use super::battery::Battery;
use super::calls::Call;
use super::control::{ControlSocket, StopSwitch};
use super::environment::Machine;
use super::link::{Link, Lost, Rights};
use super::log;
use super::people::People;
use super::place::{Place, Role};
use super::reader::Reader;
use super::senders::Senders;
use super::sockets::Listing;
use super::transfer::Transfer;
use super::web::Web;
use crate::idle::Idle;
use crate::wall::Nursery;

/// Connections at once, main's included.
const MAX_LINKS: usize = 16;
/// A control connection lives this long at most: it asks one thing.
const CONTROL_LIFE: Duration = Duration::from_secs(60);
/// Time for the last frames of a connection that is closing.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Bytes read from a descriptor at once.
const BUFFER: usize = 64 * 1024;

/// Key of main's own connection.
pub(crate) const MAIN: u64 = 0;

/// What is fixed once the supervisor is ready.
#[derive(Debug)]
pub(crate) struct Fixed {
    pub(crate) settings: ToolhostSettings,
    pub(crate) wall: Wall,
    pub(crate) require: Level,
    pub(crate) machine: Machine,
    pub(crate) null: File,
    /// Takes what has the shape of a key out of all that tools say.
    pub(crate) redactor: Redactor,
    /// Attacks profiles that are first used later. `None` without a wall.
    pub(crate) battery: Option<Battery>,
    /// Workspaces of people, where they may have their own.
    pub(crate) people: Option<People>,
    /// Started to judge calls: it runs none.
    pub(crate) only_judges: bool,
    /// Begins every call id: start time and process id, in hex.
    pub(crate) id_prefix: String,
}

/// Everything the supervisor holds.
pub(crate) struct Broker {
    pub(crate) fixed: Fixed,
    pub(crate) places: Vec<Place>,
    pub(crate) links: BTreeMap<u64, Link>,
    pub(crate) calls: BTreeMap<u64, Call>,
    /// Calls that wait for a slot, oldest first.
    pub(crate) queue: VecDeque<u64>,
    pub(crate) transfers: BTreeMap<u64, (u64, usize, Transfer)>,
    pub(crate) audit: Audit,
    pub(crate) stop: StopSwitch,
    /// When a stop was last looked for while something ran.
    pub(crate) stop_looked: Instant,
    /// Calls that wait for a person.
    pub(crate) approvals: Approvals,
    pub(crate) senders: Senders,
    /// The kernel's random numbers, opened before we shut ourselves in.
    pub(crate) random: File,
    pub(crate) log: log::Limited,
    pub(crate) listing: Listing,
    pub(crate) web: Web,
    pub(crate) buffer: Vec<u8>,
    pub(crate) control: Option<ControlSocket>,
    /// Targets of a toolhost that was started to be attacked.
    pub(crate) range: Option<Range>,
    signals: SignalFd,
    /// When links other than main's end, and when closing links are cut.
    link_ends: BTreeMap<u64, Instant>,
    next_key: u64,
    ending: bool,
    idle: Idle,
    /// Judges commands.
    pub(crate) reader: Reader,
    /// Last, so that it is dropped last: it waits for its zygotes, and they for the ends of their sockets above.
    pub(crate) nursery: Nursery,
}

/// The loop cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fatal {
    #[error("cannot wait for events: {0}")]
    Poll(Errno),
    #[error("cannot go on: the nursery ended")]
    Nursery,
}

/// Whose descriptor is ready.
#[derive(Debug, Clone, Copy)]
enum Owner {
    Signals,
    Nursery,
    Control,
    Link(u64),
    Zygote(usize),
    Init(usize, usize),
    Worker(usize, Role),
    InitTalk(u64),
    InitEnd(u64),
    Output(u64, Stream),
    Input(u64),
    Web,
    Way(u64),
}

/// Parts a broker is made of.
pub(crate) struct Parts {
    pub(crate) fixed: Fixed,
    pub(crate) nursery: Nursery,
    pub(crate) reader: Reader,
    pub(crate) places: Vec<Place>,
    pub(crate) main: OwnedFd,
    pub(crate) web: Web,
    pub(crate) audit: Audit,
    pub(crate) stop: StopSwitch,
    pub(crate) control: Option<ControlSocket>,
    pub(crate) range: Option<Range>,
    pub(crate) signals: SignalFd,
    pub(crate) listing: Listing,
    pub(crate) approvals: Approvals,
    pub(crate) senders: Senders,
    pub(crate) random: File,
}

impl Broker {
    /// Ready to serve main's connection.
    pub(crate) fn new(parts: Parts) -> Self {
        let mut broker = Self {
            fixed: parts.fixed,
            places: parts.places,
            links: BTreeMap::new(),
            calls: BTreeMap::new(),
            queue: VecDeque::new(),
            transfers: BTreeMap::new(),
            audit: parts.audit,
            stop: parts.stop,
            stop_looked: Instant::now(),
            approvals: parts.approvals,
            senders: parts.senders,
            random: parts.random,
            log: log::Limited::default(),
            listing: parts.listing,
            web: parts.web,
            buffer: vec![0; BUFFER],
            control: parts.control,
            range: parts.range,
            signals: parts.signals,
            link_ends: BTreeMap::new(),
            next_key: MAIN,
            ending: false,
            idle: Idle::new(),
            reader: parts.reader,
            nursery: parts.nursery,
        };
        broker.open_link(parts.main, Rights::All);
        broker
    }

    /// A number that is unique in this process.
    pub(crate) fn key(&mut self) -> u64 {
        let key = self.next_key;
        self.next_key += 1;
        key
    }

    /// Serves until main's connection ends or a signal asks to end. Every call is ended then.
    pub(crate) fn serve(mut self) -> Result<(), Fatal> {
        let result = loop {
            self.settle(Instant::now());
            if self.ending {
                break Ok(());
            }
            match self.wait() {
                Ok(ready) => {
                    for (owner, flags) in ready {
                        if let Err(fatal) = self.dispatch(owner, flags, Instant::now()) {
                            self.end_everything();
                            return Err(fatal);
                        }
                    }
                }
                Err(errno) => break Err(Fatal::Poll(errno)),
            }
            self.tick(Instant::now());
        };
        self.end_everything();
        result
    }

    fn wait(&mut self) -> Result<Vec<(Owner, PollFlags)>, Errno> {
        let began = Instant::now();
        let due = self.next_due().map(|due| {
            let left = due.saturating_duration_since(began);
            // Rounded up: waking a moment early would only spin.
            u16::try_from(left.as_millis().saturating_add(1)).unwrap_or(60_000).min(60_000)
        });
        let timeout =
            due.into_iter().chain(self.idle.due()).min().map_or(PollTimeout::NONE, PollTimeout::from);
        let (mut watched, owners) = self.watch();
        match poll(&mut watched, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        }
        let flags = watched.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        let ready = owners.into_iter().zip(flags).filter(|(_, flags)| !flags.is_empty()).collect();
        self.idle.waited(began.elapsed());
        Ok(ready)
    }

    fn watch(&self) -> (Vec<PollFd<'_>>, Vec<Owner>) {
        let (read, write) = (PollFlags::POLLIN, PollFlags::POLLOUT);
        let mut watched = Vec::new();
        let mut owners = Vec::new();
        let mut add = |fd, flags, owner| {
            watched.push(PollFd::new(fd, flags));
            owners.push(owner);
        };
        add(self.signals.as_fd(), read, Owner::Signals);
        add(self.nursery.pidfd(), read, Owner::Nursery);
        if let Some(control) = &self.control
            && self.links.len() < MAX_LINKS
        {
            add(control.fd(), read, Owner::Control);
        }
        for (key, link) in &self.links {
            let mut flags = PollFlags::empty();
            flags.set(read, link.wants_to_read());
            flags.set(write, link.wants_to_write());
            add(link.fd(), flags, Owner::Link(*key));
        }
        for (index, place) in self.places.iter().enumerate() {
            if let Some(zygote) = place.zygote() {
                add(zygote.socket(), read, Owner::Zygote(index));
            }
            for (position, init) in place.ready.iter().enumerate() {
                add(init.pidfd(), read, Owner::Init(index, position));
            }
            for (role, desk) in [(Role::Tools, &place.tools), (Role::Bulk, &place.bulk)] {
                if let Some((socket, writing, _)) = desk.watch() {
                    let mut flags = read;
                    flags.set(write, writing);
                    add(socket, flags, Owner::Worker(index, role));
                }
            }
        }
        if let Some((socket, writing)) = self.web.watch() {
            let mut flags = read;
            flags.set(write, writing);
            add(socket, flags, Owner::Web);
        }
        for (key, call) in &self.calls {
            let Some(process) = call.process() else { continue };
            if let Some(init) = process.init() {
                if process.init_talks() {
                    add(init.socket(), read, Owner::InitTalk(*key));
                }
                add(init.pidfd(), read, Owner::InitEnd(*key));
            }
            if let Some(socket) = process.way.socket() {
                add(socket, read, Owner::Way(*key));
            }
            let room = self.links.get(&call.link).is_none_or(|link| link.outbox.has_room());
            for (stream, pipe) in process.readable(room) {
                add(pipe, read, Owner::Output(*key, stream));
            }
            if let Some(pipe) = process.writable() {
                add(pipe, write, Owner::Input(*key));
            }
        }
        (watched, owners)
    }

    fn dispatch(&mut self, owner: Owner, flags: PollFlags, now: Instant) -> Result<(), Fatal> {
        match owner {
            Owner::Signals => {
                // Which signal does not matter: all that are blocked mean the same.
                while let Ok(Some(_)) = self.signals.read_signal() {
                    self.ending = true;
                }
            }
            Owner::Nursery => return Err(Fatal::Nursery),
            Owner::Control => {
                if let Some(socket) = self.control.as_ref().and_then(ControlSocket::accept) {
                    let key = self.open_link(socket, Rights::Control);
                    self.link_ends.insert(key, now + CONTROL_LIFE);
                }
            }
            Owner::Link(key) => self.link_ready(key, flags, now),
            Owner::Zygote(index) => {
                let happened = self.places.get_mut(index).map(|place| place.listen(now)).unwrap_or_default();
                self.happened(index, happened, now);
            }
            Owner::Init(index, position) => {
                // Positions shift when one is dropped; the others are seen in the next turn.
                if let Some(place) = self.places.get_mut(index) {
                    place.drop_ready(position);
                }
            }
            Owner::Worker(index, role) => {
                let Some(place) = self.places.get_mut(index) else { return Ok(()) };
                let desk = match role {
                    Role::Tools => &mut place.tools,
                    Role::Bulk => &mut place.bulk,
                };
                let answers = desk.read(&mut self.buffer);
                self.answers(index, answers, now);
            }
            Owner::InitTalk(key) => self.init_talks(key, flags, now),
            Owner::InitEnd(key) => self.init_ended(key, now),
            Owner::Output(key, stream) => self.output_ready(key, stream, now),
            Owner::Input(key) => self.input_ready(key),
            Owner::Web => {
                let answers = self.web.read(&mut self.buffer);
                self.web_answers(answers, now);
            }
            Owner::Way(key) => self.way_talks(key, now),
        }
        Ok(())
    }

    fn open_link(&mut self, socket: OwnedFd, rights: Rights) -> u64 {
        let key = self.key();
        let mut link = Link::new(socket, rights);
        let hello = ToMain::Hello(ToolhostHello {
            magic: oxibot_proto::MAGIC,
            version: oxibot_proto::PROTOCOL_VERSION,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            wall: self.fixed.wall.clone(),
            workspaces: self
                .places
                .iter()
                .map(|place: &Place| place.workspace.path.to_string_lossy().into_owned())
                .collect(),
        });
        // An empty outbox takes one frame; if the hello itself does not fit a frame the peer learns it by the close.
        if link.send(&hello).is_err() {
            link.closing = true;
        }
        self.links.insert(key, link);
        key
    }

    fn link_ready(&mut self, key: u64, flags: PollFlags, now: Instant) {
        let Some(link) = self.links.get_mut(&key) else { return };
        if flags.contains(PollFlags::POLLIN) && link.wants_to_read() {
            if link.fill(&mut self.buffer).is_err() {
                self.drop_link(key, now);
                return;
            }
            loop {
                let next = match self.links.get_mut(&key) {
                    Some(link) => link.next_message(),
                    None => return,
                };
                match next {
                    Ok(None) => break,
                    Ok(Some(message)) => self.message(key, message, now),
                    Err(reason) => {
                        self.close(key, reason, now);
                        break;
                    }
                }
            }
        } else if flags.intersects(PollFlags::POLLERR | PollFlags::POLLNVAL)
            || (flags.contains(PollFlags::POLLHUP) && !flags.contains(PollFlags::POLLIN))
        {
            self.drop_link(key, now);
        }
    }

    /// Queues a message. Whoever does not read loses the connection.
    pub(crate) fn send(&mut self, key: u64, message: &ToMain, now: Instant) {
        let Some(link) = self.links.get_mut(&key) else { return };
        match link.send(message) {
            Ok(()) => {}
            Err(lost) => {
                let why = match lost {
                    Lost::Closed => "a message that does not fit",
                    Lost::NotReading => "it does not read",
                };
                self.log.line(&format!("connection {key} is closed: {why}"), now);
                self.drop_link(key, now);
            }
        }
    }

    /// Says why and closes once that is sent. Its calls end at once.
    pub(crate) fn close(&mut self, key: u64, reason: CloseReason, now: Instant) {
        self.log.line(&format!("connection {key} is closed: {reason:?}"), now);
        self.send(key, &ToMain::Bye(reason), now);
        if let Some(link) = self.links.get_mut(&key) {
            link.closing = true;
            link.stage = Stage::Closed;
            self.link_ends.insert(key, now + LAST_WORDS);
        }
        self.abandon_calls(key, now);
    }

    fn drop_link(&mut self, key: u64, now: Instant) {
        self.links.remove(&key);
        self.approvals.forget(key);
        self.link_ends.remove(&key);
        self.abandon_calls(key, now);
        self.ending |= key == MAIN;
    }

    fn settle(&mut self, now: Instant) {
        self.conclude_finished(now);
        // Replies first: what follows prepares for calls to come.
        self.flush_links(now);
        self.start_queued(now);
        self.serve_places(now);
        let unsent = self.web.pump();
        self.web_answers(unsent, now);
        // Before each wait, not after it: nothing more may happen once the last call of a retired zygote is over.
        for (index, place) in self.places.iter_mut().enumerate() {
            let running = self.calls.values().filter(|call| call.place == index).count();
            place.rest(running, now);
        }
        self.flush_links(now);
    }

    fn flush_links(&mut self, now: Instant) {
        let mut lost = Vec::new();
        for (key, link) in &mut self.links {
            if link.flush(now).is_err() || (link.closing && link.outbox.is_empty()) {
                lost.push(*key);
            }
        }
        for key in lost {
            self.drop_link(key, now);
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let calls = self.calls.values().filter_map(Call::due);
        let transfers = self.transfers.values().map(|(_, _, transfer)| transfer.due());
        let idle = self.places.iter().filter_map(Place::idle_since);
        let patient = self.links.values().filter_map(Link::due);
        calls
            .chain(transfers)
            .chain(self.link_ends.values().copied())
            .chain(idle)
            .chain(patient)
            .chain(self.stop_due())
            .chain(self.audit.due())
            .min()
    }

    fn tick(&mut self, now: Instant) {
        let ended: Vec<u64> =
            self.link_ends.iter().filter(|(_, end)| now >= **end).map(|(key, _)| *key).collect();
        for key in ended {
            self.drop_link(key, now);
        }
        self.obey_stop(now);
        self.tick_calls(now);
        if let Err(error) = self.audit.tick(now) {
            self.log.line(&error.to_string(), now);
        }
    }
}
