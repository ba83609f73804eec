//! The order of things: the order is taken, the machine's resolver files are read, the process shuts itself in, and only
//! then is the first connection accepted. Then the loop, until the supervisor's socket ends.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::confine;
use super::connection::{Connection, Next, Shared};
use super::local::Local;
use super::rules::Rules;
use super::told::Told;
use crate::sys;
use crate::wall::{Step, take_order, tell};
use crate::wire::{EgressOrder, FromEgress, WallFault};

/// Connections at once. More wait in the kernel until one ends; the rest is the program's own trouble.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// Bytes a call may transfer, in both directions together.
const MAX_BYTES: u64 = 4 << 30;
/// Connections accepted before others get their turn.
const ACCEPTED_AT_ONCE: usize = 32;
/// Bytes read at once.
const SCRATCH: usize = 64 * 1024;

/// Everything from the first instruction to the end of the call.
pub(super) fn run() -> Result<(), WallFault> {
    let (socket, order, listener) = take_order()?;
    let served = prepare(&order).and_then(|(rules, local)| {
        confine::confine(&rules.ports())?;
        Ok((rules, local))
    });
    match served {
        Ok((rules, local)) => {
            tell(socket.as_fd(), &FromEgress::Ready)?;
            let shared =
                Shared { rules, local, told: Told::new(socket), left: MAX_BYTES, scratch: vec![0; SCRATCH] };
            serve(shared, &listener)
        }
        Err(fault) => {
            tell(socket.as_fd(), &FromEgress::CouldNot(fault.clone()))?;
            Err(fault)
        }
    }
}

fn prepare(order: &EgressOrder) -> Result<(Rules, Local), WallFault> {
    Ok((Rules::new(order)?, Local::look()))
}

fn serve(mut shared: Shared, listener: &OwnedFd) -> Result<(), WallFault> {
    let mut connections: Vec<Connection> = Vec::new();
    loop {
        let now = Instant::now();
        let due = connections.iter().map(Connection::due).min();
        let timeout = due.map_or(PollTimeout::NONE, |due| {
            // Rounded up: waking a moment early would only spin.
            let left = due.saturating_duration_since(now).as_millis().saturating_add(1).min(60_000);
            PollTimeout::from(u16::try_from(left).unwrap_or(60_000))
        });
        let room = connections.len() < MAX_CONNECTIONS;
        let accepting = if room { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut watched = vec![
            PollFd::new(shared.told.socket().as_fd(), PollFlags::POLLIN),
            PollFd::new(listener.as_fd(), accepting),
        ];
        for connection in &connections {
            let (client, flags) = connection.client();
            watched.push(PollFd::new(client, flags));
            // A connection without another descriptor watches its first one twice.
            let (other, flags) = connection.other().unwrap_or((client, PollFlags::empty()));
            watched.push(PollFd::new(other, flags));
        }
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).step("wait for connections"),
        }
        let flags: Vec<PollFlags> =
            watched.iter().map(|one| one.revents().unwrap_or(PollFlags::empty())).collect();
        // The supervisor says nothing after its order: it is gone, and with it the call.
        if flags.first().is_some_and(|flags| !flags.is_empty()) {
            return Ok(());
        }
        let now = Instant::now();
        let ready = flags.get(2..).unwrap_or_default().chunks(2);
        let mut gone = Vec::new();
        for (place, (connection, ready)) in connections.iter_mut().zip(ready).enumerate() {
            let [client, other] = ready else { continue };
            let other = if connection.other().is_some() { *other } else { PollFlags::empty() };
            if client.is_empty() && other.is_empty() && now < connection.due() {
                continue;
            }
            match connection.go_on(&mut shared, *client, other, now)? {
                Next::Stays => {}
                Next::Ends => gone.push(place),
            }
        }
        for place in gone.into_iter().rev() {
            connections.swap_remove(place);
        }
        if flags.get(1).is_some_and(|flags| flags.contains(PollFlags::POLLIN)) {
            accept_some(listener, &mut connections, now);
        }
    }
}

fn accept_some(listener: &OwnedFd, connections: &mut Vec<Connection>, now: Instant) {
    for _ in 0..ACCEPTED_AT_ONCE {
        if connections.len() >= MAX_CONNECTIONS {
            return;
        }
        match sys::accept(listener.as_fd()) {
            Ok(client) => connections.push(Connection::new(client, now)),
            Err(Errno::EINTR) => {}
            // Nobody more is there, or whoever was has hung up already.
            Err(_) => return,
        }
    }
}
