//! Proof, in every call, that the wall is in force: what must fail is tried, just before the program starts.
//!
//! Five products were found to report a Landlock that was not there. Nothing here trusts a return value of the setup.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::Mode;

use super::fault::{Step, fault};
use super::identity::{KINDS, Namespaces, namespaces};
use super::orders::Plan;
use super::privileges::{Bounding, verify_none};
use crate::sys::{Probe, probe, seccomp_mode};
use crate::wire::WallFault;

/// TEST-NET-1 (RFC 5737): belongs to nobody, so an attempt to reach it bothers nobody.
const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn open_canary(canary: &OwnedFd) -> nix::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", canary.as_raw_fd());
    open(path.as_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())
}

/// The positive control, before confinement: the canary can be opened, so that a refusal later means something.
pub(super) fn control(canary: &OwnedFd) -> Result<(), WallFault> {
    open_canary(canary).step("open the canary before confinement").map(drop)
}

/// Fails unless every part of the wall of this plan is in force in this process.
pub(super) fn verify(
    plan: Plan,
    canary: &OwnedFd,
    host: &Namespaces,
    bounding: Bounding,
) -> Result<(), WallFault> {
    if !nix::sys::prctl::get_no_new_privs().step("read no_new_privs")? {
        return Err(broken("no_new_privs is not set"));
    }
    if seccomp_mode() != libc::SECCOMP_MODE_FILTER.cast_signed() {
        return Err(broken("no seccomp filter is in force"));
    }
    verify_none(bounding)?;
    match open_canary(canary) {
        Err(Errno::EACCES) => {}
        Err(errno) => return Err(broken(format!("Landlock answered {errno} for the canary"))),
        Ok(_) => return Err(broken("Landlock let the canary be opened")),
    }
    expect(Probe::Clone3, &[Errno::ENOSYS])?;
    // Of the zygote's filter and of the payload's: nobody but us refuses these.
    expect(Probe::SetId, &[Errno::EPERM])?;
    expect(Probe::SecondListener, &[Errno::EPERM])?;
    // These a container's filter may refuse before ours, with its own errno.
    expect(Probe::Keyctl, &[Errno::EPERM, Errno::ENOSYS])?;
    expect(Probe::MountSetattr, &[Errno::EPERM, Errno::ENOSYS])?;
    match plan {
        Plan::Full => {
            unreachable_network()?;
            own_namespaces(host)?;
            not_the_kernels_root()
        }
        Plan::Bare | Plan::Off => match stream_socket() {
            Err(Errno::EPERM) => Ok(()),
            Err(errno) => Err(broken(format!("socket answered {errno}"))),
            Ok(_) => Err(broken("a socket could be made")),
        },
    }
}

fn broken(cause: impl std::fmt::Display) -> WallFault {
    fault("verify the confinement", cause)
}

fn expect(tried: Probe, expected: &[Errno]) -> Result<(), WallFault> {
    let got = probe(tried);
    if expected.contains(&got) { Ok(()) } else { Err(broken(format!("{tried:?} answered {got}"))) }
}

fn stream_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Inet, SockType::Stream, flags, None)
}

/// Without a route the kernel answers at once; the time only bounds a wall that is broken.
fn unreachable_network() -> Result<(), WallFault> {
    match TcpStream::connect_timeout(&SocketAddr::from((NOBODY, 9)), Duration::from_millis(200)) {
        Err(error) if error.raw_os_error() == Some(libc::ENETUNREACH) => Ok(()),
        Err(error) => Err(broken(format!("connect answered {error}"))),
        Ok(_) => Err(broken("an outside address was reached")),
    }
}

fn own_namespaces(host: &Namespaces) -> Result<(), WallFault> {
    for ((own, host), kind) in namespaces()?.iter().zip(host).zip(KINDS) {
        if own == host {
            return Err(broken(format!("the {kind} namespace is the host's")));
        }
    }
    Ok(())
}

fn not_the_kernels_root() -> Result<(), WallFault> {
    let map = std::io::read_to_string(File::open("/proc/self/uid_map").step("read the user map")?)
        .step("read the user map")?;
    match map.split_whitespace().nth(1) {
        Some("0") | None => Err(broken("the call would run as the kernel's root")),
        Some(_) => Ok(()),
    }
}

/// The canary below full: a file this user owns in a directory no rule grants.
pub(super) fn canary_file(granted: &[std::path::PathBuf]) -> Result<OwnedFd, WallFault> {
    let mut last = fault("make the canary file", "every place for it is granted to calls");
    for directory in ["/tmp", "/var/tmp", "/dev/shm", "/run"] {
        let directory = std::path::Path::new(directory);
        if granted.iter().any(|path| directory.starts_with(path)) {
            continue;
        }
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        match open(directory, flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(file) => return Ok(file),
            Err(errno) => last = fault("make the canary file", errno),
        }
    }
    Err(last)
}
