//! Attacks by the network: out of the machine, and to whoever listens on it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixStream};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, sendto, socket};

use super::answer::errno_of;
use super::{Answer, Target, Targets};

/// No route, no sockets, nobody there.
const HELD: &[Errno] =
    &[Errno::ENETUNREACH, Errno::EPERM, Errno::EACCES, Errno::ECONNREFUSED, Errno::EADDRNOTAVAIL];
/// As [`HELD`], where an answer of any kind means that packets left.
const NO_WAY: &[Errno] = &[Errno::ENETUNREACH, Errno::EPERM, Errno::EACCES, Errno::EADDRNOTAVAIL];
/// TEST-NET-1 (RFC 5737) and the documentation prefix (RFC 3849): belong to nobody, so that nobody is bothered.
const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NOBODY_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// Longest a way out is waited for. Without one the kernel answers at once.
const A_MOMENT: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(1);

/// Reaching nobody's address takes a route: time running out means that packets left.
pub(super) fn outside(_: &Targets) -> Answer {
    Answer::of(TcpStream::connect_timeout(&SocketAddr::from((NOBODY, 9)), A_MOMENT), NO_WAY)
}

/// The same by IPv6. A machine without it has nothing to lose.
pub(super) fn outside_6(_: &Targets) -> Answer {
    Answer::of(TcpStream::connect_timeout(&SocketAddr::from((NOBODY_6, 9)), A_MOMENT), NO_WAY)
}

pub(super) fn datagram_outside(_: &Targets) -> Answer {
    let sent =
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| socket.send_to(b"x", (NOBODY, 9)));
    Answer::of(sent, NO_WAY)
}

fn port(targets: &Targets, target: Target) -> Option<SocketAddrV4> {
    let port: u16 = targets.get(target)?.parse().ok()?;
    Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

pub(super) fn loopback(targets: &Targets) -> Answer {
    let Some(address) = port(targets, Target::Port) else { return Answer::Skipped };
    Answer::of(TcpStream::connect_timeout(&address.into(), PATIENCE), HELD)
}

/// Data with the first packet: no `connect`, which is where rules for TCP look.
pub(super) fn fast_open(targets: &Targets) -> Answer {
    let Some(address) = port(targets, Target::Port) else { return Answer::Skipped };
    let sent =
        socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).and_then(|socket| {
            let flags = MsgFlags::from_bits_retain(libc::MSG_FASTOPEN) | MsgFlags::MSG_NOSIGNAL;
            sendto(socket.as_raw_fd(), b"x", &SockaddrIn::from(address), flags)
        });
    match sent {
        // The machine does not do fast open.
        Err(Errno::EOPNOTSUPP | Errno::EPIPE) => Answer::Skipped,
        sent => Answer::of_call(sent.map(drop), HELD),
    }
}

/// Nobody there is answered to the second datagram.
pub(super) fn datagram_loopback(targets: &Targets) -> Answer {
    let Some(address) = port(targets, Target::DatagramPort) else { return Answer::Skipped };
    let sent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| {
        socket.connect(address)?;
        socket.send(b"x")?;
        socket.send(b"x")
    });
    Answer::of(sent, HELD)
}

fn abstract_name(targets: &Targets, target: Target) -> Option<UnixAddress> {
    UnixAddress::from_abstract_name(targets.get(target)?).ok()
}

pub(super) fn abstract_stream(targets: &Targets) -> Answer {
    let Some(address) = abstract_name(targets, Target::Abstract) else { return Answer::Skipped };
    Answer::of(UnixStream::connect_addr(&address), HELD)
}

pub(super) fn abstract_datagram(targets: &Targets) -> Answer {
    let Some(address) = abstract_name(targets, Target::AbstractDatagram) else { return Answer::Skipped };
    let sent = UnixDatagram::unbound().and_then(|socket| socket.send_to_addr(b"x", &address));
    match sent.map_err(|error| errno_of(&error)) {
        // Nobody reads what it is sent; a full queue was reached all the same.
        Err(Errno::EAGAIN) => Answer::Broken,
        sent => Answer::of_call(sent.map(drop), HELD),
    }
}
