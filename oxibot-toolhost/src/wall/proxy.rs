//! The inner end of a call's proxy: a port on the loopback of its own network namespace.
//!
//! Init makes the socket, hands it out and keeps no copy. A socket stays in the namespace it was made in, so who accepts
//! on it from outside reaches the programs of this call and no other; and nothing else of the namespace leads out.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket, sockopt,
};

use super::fault::Step;
use crate::wire::WallFault;

/// Where a call finds its proxy, on 127.0.0.1. Below the ports the kernel gives out, and the one Squid made known.
pub(crate) const PROXY_PORT: u16 = 3128;
/// Connections that may wait to be accepted.
const WAITING: i32 = 128;

/// Listens, in the namespace of this process.
pub(super) fn listen_inside() -> Result<OwnedFd, WallFault> {
    let step = "listen for a call's proxy";
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Inet, SockType::Stream, flags, None).step(step)?;
    setsockopt(&listener, sockopt::ReuseAddr, &true).step(step)?;
    bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, PROXY_PORT)).step(step)?;
    listen(&listener, Backlog::new(WAITING).step(step)?).step(step)?;
    Ok(listener)
}
