//! Where the fetch worker is a unit of its own: what starts it is a connection to that unit's socket.
//!
//! The supervisor has shut itself in and may connect to nothing, and a worker ends when it was idle or served enough. So
//! a process beside it waits for a request, connects, and hands over its end of the supervisor's socket. It reads no
//! request: those go from the supervisor to the worker, whichever that is. Whether a worker ended in good order the
//! worker says with its last byte.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, socket, socketpair};

use super::{MAX_FAILURES, WINDOW, discard, lost, wanted};
use crate::sys;

/// What a worker is sent with the socket it is to serve.
pub const SERVE: u8 = b's';
/// What it says before it ends in good order.
pub const ENDED: u8 = b'e';

/// Starts the process that reaches the unit behind `socket`. What comes back is the supervisor's end.
///
/// # Errors
/// When no socket pair can be made or our own program not be started.
pub fn start(socket: &Path) -> std::io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    // It ends when our end is closed, and with the unit. Nobody waits for it: nothing below us does.
    Command::new("/proc/self/exe")
        .arg0("oxibot-toolhost")
        .arg("fetcher")
        .arg("--unit")
        .arg(socket)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .spawn()?;
    Ok(ours)
}

/// Serves until the supervisor is gone.
pub(super) fn run(path: &Path) -> Result<(), Errno> {
    let requests = sys::take_inherited(0).ok_or(Errno::EBADF)?;
    prctl::set_name(c"oxibot-fetcher")?;
    prctl::set_dumpable(false)?;
    prctl::set_no_new_privs()?;
    let mut failures: Vec<Instant> = Vec::new();
    while wanted(requests.as_fd())? {
        let now = Instant::now();
        failures.retain(|at| now.saturating_duration_since(*at) < WINDOW);
        if failures.len() >= MAX_FAILURES {
            discard(requests.as_fd())?;
            lost(requests.as_fd(), "it ended too often; try again in a minute");
            continue;
        }
        match hand_over(path, requests.as_fd()).and_then(|worker| until_it_ends(&worker, requests.as_fd())) {
            Ok(End::Orderly) => {}
            Ok(End::Supervisor) => return Ok(()),
            Ok(End::Died) => {
                failures.push(now);
                lost(requests.as_fd(), "it ended");
            }
            Err(errno) => {
                failures.push(now);
                // Nobody will answer it: it would only wake us again.
                discard(requests.as_fd())?;
                lost(requests.as_fd(), &format!("its unit cannot be reached: {errno}"));
            }
        }
    }
    Ok(())
}

fn hand_over(path: &Path, requests: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let worker = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(worker.as_raw_fd(), &UnixAddr::new(path)?)?;
    sys::send(worker.as_fd(), &[SERVE], &[requests])?;
    Ok(worker)
}

/// How serving ended.
enum End {
    /// The worker made room for another.
    Orderly,
    /// The worker died.
    Died,
    /// Nobody is left to serve.
    Supervisor,
}

fn until_it_ends(worker: &OwnedFd, requests: BorrowedFd<'_>) -> Result<End, Errno> {
    loop {
        // What is to be read from `requests` is for the worker: of it only the end is asked.
        let mut watched =
            [PollFd::new(worker.as_fd(), PollFlags::POLLIN), PollFd::new(requests, PollFlags::empty())];
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let [said, end] = &watched;
        if end.any().unwrap_or(true) {
            return Ok(End::Supervisor);
        }
        if said.any().unwrap_or(true) {
            let mut byte = [0];
            return match sys::receive(worker.as_fd(), &mut byte, MsgFlags::MSG_DONTWAIT) {
                Ok((1, _)) if byte == [ENDED] => Ok(End::Orderly),
                Err(Errno::EAGAIN | Errno::EINTR) => continue,
                Ok(_) | Err(_) => Ok(End::Died),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{Backlog, bind, listen};

    fn unit(path: &Path) -> OwnedFd {
        let unit = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(unit.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
        listen(&unit, Backlog::new(4).unwrap()).unwrap();
        unit
    }

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    /// Takes over as a worker does.
    fn take(unit: &OwnedFd) -> (OwnedFd, OwnedFd) {
        let raw = nix::sys::socket::accept(unit.as_raw_fd()).unwrap();
        let connection = sys::take_inherited(raw).unwrap();
        let mut byte = [0];
        let (_, mut descriptors) = sys::receive(connection.as_fd(), &mut byte, MsgFlags::empty()).unwrap();
        assert_eq!(byte, [SERVE]);
        (connection, descriptors.remove(0))
    }

    #[test]
    fn worker_gets_the_very_socket_and_its_last_word_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fetch.sock");
        let unit = unit(&path);
        let (supervisor, requests) = pair();
        sys::send(supervisor.as_fd(), b"request", &[]).unwrap();
        let worker = hand_over(&path, requests.as_fd()).unwrap();
        let (connection, served) = take(&unit);
        let mut buffer = [0; 16];
        let (length, _) = sys::receive(served.as_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        assert_eq!(&buffer[..length], b"request");
        sys::send(connection.as_fd(), &[ENDED], &[]).unwrap();
        drop(connection);
        assert!(matches!(until_it_ends(&worker, requests.as_fd()), Ok(End::Orderly)));

        let worker = hand_over(&path, requests.as_fd()).unwrap();
        drop(take(&unit));
        assert!(matches!(until_it_ends(&worker, requests.as_fd()), Ok(End::Died)));

        let worker = hand_over(&path, requests.as_fd()).unwrap();
        drop(supervisor);
        assert!(matches!(until_it_ends(&worker, requests.as_fd()), Ok(End::Supervisor)));
    }

    #[test]
    fn unit_that_is_not_there_is_an_error() {
        let (_supervisor, requests) = pair();
        assert_eq!(hand_over(Path::new("/nonexistent/s"), requests.as_fd()).unwrap_err(), Errno::ENOENT);
    }
}
