//! The socket between launcher and main: descriptors one way, the wish for a restart the other.
//!
//! One byte says what a message is, its descriptors travel beside it (`SCM_RIGHTS`). Main gets the terminal and the
//! first toolhost with the first message, and another toolhost whenever the launcher had to start one.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;

use super::LaunchError;
use super::fetcher::SearchDoor;

/// First message: standard input and the toolhost's socket.
const HANDOVER: u8 = b'h';
/// Another toolhost was started: its socket.
const TOOLHOST: u8 = b't';
/// To who starts the fetch worker: its program.
const PROGRAM: u8 = b'p';
/// Main to launcher: when I end with status 75, start me again.
const RESTART: u8 = b'r';

/// What main starts with under the launcher.
#[derive(Debug)]
pub struct Handover {
    /// The control socket.
    pub control: UnixStream,
    /// Socket to the toolhost; no hello was said yet.
    pub toolhost: UnixStream,
    /// Where the search key is left for the fetch worker, if there is one.
    pub search: Option<SearchDoor>,
}

/// Takes over from the launcher: descriptor 0 is the control socket, and becomes the real standard input.
///
/// # Errors
/// When descriptor 0 is no such socket: `--launched` was typed by a person.
pub fn receive_handover() -> Result<Handover, LaunchError> {
    let step = "take over from the launcher";
    let control = io::stdin().as_fd().try_clone_to_owned().map_err(LaunchError::system(step))?;
    let control = UnixStream::from(control);
    let (kind, descriptors) =
        receive(control.as_fd(), RecvFlags::empty()).map_err(LaunchError::system(step))?;
    let mut descriptors = descriptors.into_iter();
    match (kind, descriptors.next(), descriptors.next()) {
        (Some(HANDOVER), Some(stdin), Some(toolhost)) => {
            rustix::stdio::dup2_stdin(&stdin)
                .map_err(|errno| LaunchError::System { step, cause: errno.into() })?;
            let search = descriptors.next().map(SearchDoor);
            Ok(Handover { control, toolhost: UnixStream::from(toolhost), search })
        }
        (_, _, _) => Err(LaunchError::System {
            step,
            cause: io::Error::new(io::ErrorKind::InvalidData, "that is for the launcher only"),
        }),
    }
}

/// The launcher's twin of [`receive_handover`].
pub(super) fn send_handover(
    control: BorrowedFd<'_>,
    stdin: BorrowedFd<'_>,
    toolhost: BorrowedFd<'_>,
    search: Option<&SearchDoor>,
) -> io::Result<()> {
    let mut descriptors = vec![stdin, toolhost];
    descriptors.extend(search.map(|door| door.0.as_fd()));
    send(control, HANDOVER, &descriptors)
}

/// Hands over the program of the fetch worker.
pub(super) fn send_program(search: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    send(search, PROGRAM, &[program])
}

/// The launcher says that another toolhost runs.
pub(super) fn send_toolhost(
    control: BorrowedFd<'_>,
    toolhost: BorrowedFd<'_>,
    search: Option<&SearchDoor>,
) -> io::Result<()> {
    let mut descriptors = vec![toolhost];
    descriptors.extend(search.map(|door| door.0.as_fd()));
    send(control, TOOLHOST, &descriptors)
}

/// Whether main asked to be started again. Does not block.
pub(super) fn wants_restart(control: BorrowedFd<'_>) -> bool {
    matches!(receive(control, RecvFlags::DONTWAIT), Ok((Some(RESTART), _)))
}

/// What the launcher tells main while it runs.
#[derive(Debug)]
pub enum ControlEvent {
    /// The toolhost ended and another one runs; no hello was said yet. Its fetch worker, if it has one, knows no search
    /// key yet.
    Toolhost(UnixStream, Option<SearchDoor>),
    /// The launcher is gone: nothing would be restarted or ended any more, so main ends too.
    LauncherGone,
}

/// Main's end of the control socket once its runtime runs.
#[derive(Debug)]
pub struct Control {
    socket: tokio::net::UnixStream,
}

impl Control {
    /// Registers the socket with the runtime.
    ///
    /// # Errors
    /// When the runtime refuses it.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: tokio::net::UnixStream::from_std(socket)? })
    }

    /// The next event. Cancel-safe: a message is received whole or not at all.
    pub async fn next(&self) -> ControlEvent {
        loop {
            let received = self
                .socket
                .async_io(Interest::READABLE, || receive(self.socket.as_fd(), RecvFlags::DONTWAIT))
                .await;
            match received {
                Ok((Some(TOOLHOST), descriptors)) => {
                    let mut descriptors = descriptors.into_iter();
                    if let Some(toolhost) = descriptors.next() {
                        let search = descriptors.next().map(SearchDoor);
                        return ControlEvent::Toolhost(UnixStream::from(toolhost), search);
                    }
                }
                Ok((Some(_), _)) => {}
                Ok((None, _)) | Err(_) => return ControlEvent::LauncherGone,
            }
        }
    }

    /// Asks to be started again after ending with status 75. Without it that status ends everything.
    ///
    /// # Errors
    /// When the launcher is gone.
    pub async fn ask_for_restart(&self) -> io::Result<()> {
        self.socket.async_io(Interest::WRITABLE, || send(self.socket.as_fd(), RESTART, &[])).await
    }
}

fn send(socket: BorrowedFd<'_>, kind: u8, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(socket, &[IoSlice::new(&[kind])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// One message: its kind, `None` when the other side closed, and its descriptors.
fn receive(socket: BorrowedFd<'_>, flags: RecvFlags) -> io::Result<(Option<u8>, Vec<OwnedFd>)> {
    let mut kind = [0_u8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(&mut kind)], &mut control, flags | RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            RecvAncillaryMessage::ScmCredentials(_) | _ => None,
        })
        .flatten()
        .collect();
    Ok(((received.bytes > 0).then_some(kind).map(|[kind]| kind), descriptors))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[tokio::test]
    async fn another_toolhost_arrives_and_the_end_is_noticed() {
        let (launcher, main) = UnixStream::pair().unwrap();
        let control = Control::new(main).unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        send_toolhost(launcher.as_fd(), theirs.as_fd(), None).unwrap();
        drop(theirs);
        let ControlEvent::Toolhost(mut toolhost, None) = control.next().await else { panic!("no toolhost") };
        ours.write_all(b"x").unwrap();
        let mut byte = [0];
        toolhost.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
        assert!(!wants_restart(launcher.as_fd()));
        control.ask_for_restart().await.unwrap();
        assert!(wants_restart(launcher.as_fd()));
        drop(launcher);
        assert!(matches!(control.next().await, ControlEvent::LauncherGone));
    }
}
