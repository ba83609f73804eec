//! The search service and its key, as main left them on a socket of their own.
//!
//! Read with MSG_PEEK: the message stays in the kernel, so that the next worker finds it as well and nobody else has to
//! keep it. Address and key come together, from the one process that knows the key: no request can send it elsewhere.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recvmsg};
use oxibot_proto::codec::Decoder;
use oxibot_proto::web::SearchService;

/// Longest message of main: an address, a key, numbers.
const MAX_MESSAGE: usize = 32 * 1024;

/// What main said of `web_search`. Its `Debug` shows no key.
#[derive(Clone)]
pub(crate) struct Search(pub(crate) SearchService);

impl std::fmt::Debug for Search {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Search").field("base_url", &self.0.base_url).finish_non_exhaustive()
    }
}

impl Search {
    /// What main left, `None` when it left nothing.
    pub(crate) fn peek(socket: &OwnedFd) -> Result<Option<Self>, String> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let received = loop {
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
            match recvmsg::<()>(socket.as_raw_fd(), &mut slices, None, flags) {
                Ok(message) => break message.bytes,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break 0,
                Err(errno) => return Err(format!("cannot read what main left: {errno}")),
            }
        };
        if received == 0 {
            return Ok(None);
        }
        let mut decoder = Decoder::<SearchService>::new();
        decoder.push(buffer.get(..received).ok_or("cannot read what main left: it is too long")?);
        match decoder.next_message() {
            Ok(Some(service)) => Ok(Some(Self(service))),
            Ok(None) | Err(_) => Err("cannot read what main left: it is no message".to_owned()),
        }
    }
}
