//! The attacker: what a hostile program would try from inside a call, by our own binary under the real rules.
//!
//! Each attack is tried in a call of its own and answers by its exit status, so that nobody has to parse what a confined
//! program printed. An attack that reaches the kernel proper counts as broken even if the kernel then refuses it for
//! another reason: the tests run every one of them at level `off` too, where it must break.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixStream};
use std::process::ExitCode;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::orders::OURSELVES;
use crate::sys::{self, Attempt, Cloned};

/// Exit status of an attack the wall held.
pub const HELD: i32 = 0;
/// Exit status of an attack that got through.
pub const BROKEN: i32 = 10;
/// Exit status where this machine or this call has nothing to attack, or the attack needs a target it was not given.
pub const SKIPPED: i32 = 20;

/// One attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attack {
    /// Stable name.
    pub id: &'static str,
    /// Which protection (see [`crate::wire::Obtained::protections`]) it is aimed at.
    pub protection: &'static str,
    /// What refuses it.
    pub mechanism: &'static str,
    /// The kernel feature behind that.
    pub feature: &'static str,
    tried: Tried,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tried {
    /// A system call; held if it is answered with one of these.
    Call(Attempt, &'static [Errno]),
    /// Reading a file.
    Read(&'static str),
    /// Listing a directory.
    List(&'static str),
    /// Creating or opening a file for writing.
    Write(&'static str),
    /// Writing through a link made in the workspace.
    ThroughLink(&'static str),
    /// Other processes' environments.
    Environments,
    /// TCP to nobody's address.
    Outside,
    /// The 32-bit entry of the kernel, in a child.
    Entry32,
    /// Capabilities in any set.
    Capabilities,
    /// Descriptors above stderr.
    Descriptors,
    /// Needs a target: reading that file.
    ReadTarget,
    /// Needs a target: the file system as that process sees it.
    RootTarget,
    /// Needs a target: creating that file.
    WriteTarget,
    /// Needs a target: connecting to that port of 127.0.0.1.
    PortTarget,
    /// Needs a target: connecting to that abstract socket.
    AbstractTarget,
    /// Needs a target: signalling that process.
    SignalTarget,
}

const REFUSED: &[Errno] = &[Errno::EPERM];
const UNKNOWN: &[Errno] = &[Errno::ENOSYS];

const fn attack(id: &'static str, protection: &'static str, mechanism: &'static str, tried: Tried) -> Attack {
    Attack { id, protection, mechanism, feature: feature(protection), tried }
}

const fn feature(protection: &str) -> &'static str {
    match protection.as_bytes() {
        b"seccomp" => "CONFIG_SECCOMP_FILTER",
        b"landlock" | b"landlock-scopes" => "CONFIG_SECURITY_LANDLOCK",
        b"capabilities" | b"no-new-privs" => "capabilities(7), no_new_privs",
        _ => "CONFIG_NAMESPACES, CONFIG_USER_NS",
    }
}

const fn call(id: &'static str, attempt: Attempt) -> Attack {
    attack(id, "seccomp", "system call filter", Tried::Call(attempt, REFUSED))
}

const fn socket(id: &'static str, family: i32, kind: i32, protocol: i32) -> Attack {
    call(id, Attempt::Socket(family, kind, protocol))
}

const fn file(id: &'static str, tried: Tried) -> Attack {
    attack(id, "landlock", "view and rules of the file system", tried)
}

const ALL: &[Attack] = &[
    file("read-shadow", Tried::Read("/etc/shadow")),
    file("list-root-home", Tried::List("/root")),
    file("list-var", Tried::List("/var/lib")),
    file("walk-supervisor-root", Tried::RootTarget),
    file("write-usr", Tried::Write("/usr/oxibot-attack")),
    file("write-etc", Tried::Write("/etc/oxibot-attack")),
    file("write-through-link", Tried::ThroughLink("/etc/oxibot-attack-link")),
    file("write-core-pattern", Tried::Write("/proc/sys/kernel/core_pattern")),
    file("open-kernel-log", Tried::Read("/dev/kmsg")),
    file("open-memory", Tried::Write("/dev/mem")),
    file("read-other-environments", Tried::Environments),
    file("read-planted-secret", Tried::ReadTarget),
    file("write-outside-workspace", Tried::WriteTarget),
    attack("keep-capabilities", "capabilities", "emptied sets", Tried::Capabilities),
    attack("inherit-descriptors", "capabilities", "close-on-exec", Tried::Descriptors),
    attack("connect-outside", "network-namespace", "no route or no sockets", Tried::Outside),
    attack("connect-host-loopback", "network-namespace", "no route or no sockets", Tried::PortTarget),
    attack(
        "connect-abstract-socket",
        "landlock-scopes",
        "network namespace and scope",
        Tried::AbstractTarget,
    ),
    attack("signal-supervisor", "landlock-scopes", "PID namespace and scope", Tried::SignalTarget),
    call("mount", Attempt::Mount),
    call("umount", Attempt::Umount),
    call("pivot-root", Attempt::PivotRoot),
    call("chroot", Attempt::Chroot),
    call("fsopen", Attempt::Fsopen),
    call("open-tree", Attempt::OpenTree),
    call("move-mount", Attempt::MoveMount),
    call("mount-setattr", Attempt::MountSetattr),
    call("setns", Attempt::Setns),
    call("unshare-user", Attempt::UnshareUser),
    call("clone-user", Attempt::CloneUser),
    attack("clone3", "seccomp", "system call filter", Tried::Call(Attempt::Clone3, UNKNOWN)),
    call("ptrace", Attempt::Ptrace),
    call("process-vm-readv", Attempt::ProcessVmReadv),
    call("pidfd-getfd", Attempt::PidfdGetfd),
    call("kcmp", Attempt::Kcmp),
    call("keyctl", Attempt::Keyctl),
    call("add-key", Attempt::AddKey),
    call("io-uring-setup", Attempt::IoUringSetup),
    call("bpf", Attempt::Bpf),
    call("perf-event-open", Attempt::PerfEventOpen),
    call("userfaultfd", Attempt::Userfaultfd),
    call("open-by-handle", Attempt::OpenByHandleAt),
    call("fanotify-init", Attempt::FanotifyInit),
    call("load-module", Attempt::FinitModule),
    call("kexec-load", Attempt::KexecLoad),
    call("reboot", Attempt::Reboot),
    call("swapon", Attempt::Swapon),
    call("kernel-log", Attempt::Syslog),
    call("seccomp-listener", Attempt::SeccompListener),
    call("read-implies-exec", Attempt::ReadImpliesExec),
    call("type-into-terminal", Attempt::TypeIntoTerminal),
    call("device-node", Attempt::DeviceNode),
    socket("socket-vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
    socket("socket-packet", libc::AF_PACKET, libc::SOCK_RAW, 0),
    socket("socket-alg", libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
    socket("socket-raw", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
    socket("socket-mptcp", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
    socket("socket-netfilter", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER),
    attack("entry-32-bit", "seccomp", "architecture check", Tried::Entry32),
    attack("entry-x32", "seccomp", "number check", Tried::Call(Attempt::X32, UNKNOWN)),
];

/// Every attack, in the order they are tried.
#[must_use]
pub fn all() -> &'static [Attack] {
    ALL
}

impl Attack {
    /// The `argv` of the job that runs it, with a target outside the call where it is aimed at one (a path, a port,
    /// an abstract name or a pid, see the attack's name).
    #[must_use]
    pub fn argv(&self, target: Option<&str>) -> Vec<Vec<u8>> {
        let mut argv = vec![OURSELVES.to_vec(), b"attack".to_vec(), self.id.as_bytes().to_vec()];
        argv.extend(target.map(|target| target.as_bytes().to_vec()));
        argv
    }

    /// Whether it needs a target.
    #[must_use]
    pub fn needs_target(&self) -> bool {
        match self.tried {
            Tried::ReadTarget
            | Tried::RootTarget
            | Tried::WriteTarget
            | Tried::PortTarget
            | Tried::AbstractTarget
            | Tried::SignalTarget => true,
            Tried::Call(..)
            | Tried::Read(_)
            | Tried::List(_)
            | Tried::Write(_)
            | Tried::ThroughLink(_)
            | Tried::Environments
            | Tried::Outside
            | Tried::Entry32
            | Tried::Capabilities
            | Tried::Descriptors => false,
        }
    }
}

/// Entry point of the role `attack ID [TARGET]`.
#[must_use]
pub fn attack_role(arguments: &[String]) -> ExitCode {
    let target = arguments.get(1).map(String::as_str);
    let found = arguments.first().and_then(|id| ALL.iter().find(|attack| attack.id == id));
    let status = match found {
        None => SKIPPED,
        Some(attack) => attempt(attack.tried, target),
    };
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}

fn attempt(tried: Tried, target: Option<&str>) -> i32 {
    let with_target = |attack: fn(&str) -> i32| target.map_or(SKIPPED, attack);
    match tried {
        Tried::Call(call, held) => match sys::attempt(call) {
            Err(errno) if held.contains(&errno) => HELD,
            Err(_) | Ok(()) => BROKEN,
        },
        Tried::Read(path) => outcome(fs::File::open(path)),
        Tried::List(path) => outcome(fs::read_dir(path)),
        Tried::Write(path) => write(path),
        Tried::ThroughLink(path) => {
            let link = ".oxibot-attack-link";
            let _ = fs::remove_file(link);
            if std::os::unix::fs::symlink(path, link).is_err() {
                return SKIPPED;
            }
            let result = write(link);
            let _ = fs::remove_file(link);
            let _ = fs::remove_file(path);
            result
        }
        Tried::Environments => environments(),
        Tried::Outside => outside(),
        Tried::Entry32 => entry_32(),
        Tried::Capabilities => {
            let sets = [
                caps::CapSet::Effective,
                caps::CapSet::Permitted,
                caps::CapSet::Inheritable,
                caps::CapSet::Ambient,
            ];
            let empty = sets.into_iter().all(|set| caps::read(None, set).is_ok_and(|held| held.is_empty()));
            if empty { HELD } else { BROKEN }
        }
        Tried::Descriptors => descriptors(),
        Tried::ReadTarget => with_target(|path| outcome(fs::File::open(path))),
        Tried::RootTarget => with_target(|pid| outcome(fs::read_dir(format!("/proc/{pid}/root/")))),
        Tried::WriteTarget => with_target(write),
        Tried::PortTarget => with_target(|port| {
            let Ok(port) = port.parse::<u16>() else { return SKIPPED };
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            held_unless(TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok())
        }),
        Tried::AbstractTarget => with_target(|name| {
            let connected =
                UnixAddress::from_abstract_name(name).and_then(|address| UnixStream::connect_addr(&address));
            held_unless(connected.is_ok())
        }),
        Tried::SignalTarget => with_target(|pid| {
            let Ok(pid) = pid.parse::<i32>() else { return SKIPPED };
            held_unless(kill(Pid::from_raw(pid), None::<Signal>).is_ok())
        }),
    }
}

fn held_unless(reached: bool) -> i32 {
    if reached { BROKEN } else { HELD }
}

/// Not there and not allowed are both what a wall looks like; anything else is the thing itself.
fn outcome<T>(tried: std::io::Result<T>) -> i32 {
    match tried {
        Ok(_) => BROKEN,
        Err(error) => held_unless(!matches!(
            error.kind(),
            ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
        )),
    }
}

fn write(path: &str) -> i32 {
    let existed = fs::symlink_metadata(path).is_ok();
    let result = outcome(
        fs::OpenOptions::new().write(true).create(!path.starts_with("/proc")).truncate(false).open(path),
    );
    if result == BROKEN && !existed {
        let _ = fs::remove_file(path);
    }
    result
}

fn environments() -> i32 {
    let Ok(processes) = fs::read_dir("/proc") else { return HELD };
    let own = std::process::id().to_string();
    for process in processes.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|name| name.parse::<u32>().is_ok() && **name != own) else {
            continue;
        };
        if fs::read(format!("/proc/{pid}/environ")).is_ok_and(|bytes| !bytes.is_empty()) {
            return BROKEN;
        }
    }
    HELD
}

/// Reaching nobody's address takes a route: time running out means that packets left.
fn outside() -> i32 {
    let address = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
    match TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENETUNREACH | Errno::EPERM | Errno::EACCES) => HELD,
            Some(_) | None => BROKEN,
        },
        Ok(_) => BROKEN,
    }
}

fn entry_32() -> i32 {
    match sys::clone_process(0) {
        Ok(Cloned::Child) => {
            let answered = sys::attempt_32_bit();
            sys::exit_now(if answered > 0 { BROKEN } else { SKIPPED })
        }
        Ok(Cloned::Parent { pid, pidfd: _ }) => match waitpid(pid, None) {
            // SIGSYS from the filter; SIGSEGV where the kernel has no 32-bit entry.
            Ok(WaitStatus::Signaled(_, Signal::SIGSYS | Signal::SIGSEGV, _)) => HELD,
            Ok(WaitStatus::Exited(_, SKIPPED)) => SKIPPED,
            Ok(_) | Err(_) => BROKEN,
        },
        Err(_) => SKIPPED,
    }
}

/// What is open beyond stdin, stdout and stderr, without the descriptor of the listing itself.
fn descriptors() -> i32 {
    let Ok(listing) = fs::read_dir("/proc/self/fd") else { return SKIPPED };
    let open = listing
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|fd| *fd > 2)
        .count();
    held_unless(open > 1)
}
