//! The worker's own wall, and the narrower one of its converters: limits, capabilities, Landlock, seccomp, and the proof
//! that they took.
//!
//! The worker keeps sockets of the internet families; converters keep nothing but the descriptors they hold. Neither
//! can open a file even without Landlock, because their filters know no call that opens one.

use std::collections::BTreeMap;

use caps::{CapSet, Capability};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope,
};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket, socketpair};
use oxibot_toolhost::sys;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Whether there is a kernel wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wall {
    /// Everything, verified; it does not start otherwise.
    Kernel,
    /// `--no-sandbox`.
    None,
}

/// Proof that confinement was made and verified. Serving takes one.
#[derive(Debug)]
#[must_use]
pub(crate) struct Confined(());

/// Why the worker will not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfineError {
    #[error("cannot {step}: {cause}")]
    Step { step: &'static str, cause: String },
    #[error("cannot confine the fetch worker: {0} is still possible")]
    NotInForce(&'static str),
    #[error("cannot confine the fetch worker: {0} is not possible any more")]
    TooStrict(&'static str),
}

fn step<T, E: std::fmt::Display>(step: &'static str, result: Result<T, E>) -> Result<T, ConfineError> {
    result.map_err(|error| ConfineError::Step { step, cause: error.to_string() })
}

/// Memory of the worker. 32 bodies of 2 MiB and what TLS takes, several times over: only a bug meets it.
const MAX_MEMORY: u64 = 1 << 30;
/// Descriptors: a connection, its name servers and its converter, for each of the requests at once.
const MAX_DESCRIPTORS: u64 = 1024;

/// Limits that hold for the worker and everything made by it.
pub(crate) fn limits() -> Result<(), ConfineError> {
    step("forbid core files", lower(Resource::RLIMIT_CORE, 0))?;
    step("limit descriptors", lower(Resource::RLIMIT_NOFILE, MAX_DESCRIPTORS))?;
    step("limit memory", lower(Resource::RLIMIT_AS, MAX_MEMORY))?;
    step("forbid writing files", lower(Resource::RLIMIT_FSIZE, 0))?;
    step("forbid core dumps and tracing", prctl::set_dumpable(false))?;
    // What was set is not read back but tried: whoever lies about the one lies about the other.
    let any = step("open a directory", std::fs::File::open("/"))?;
    let highest = i32::try_from(MAX_DESCRIPTORS).unwrap_or(i32::MAX);
    if fcntl(&any, FcntlArg::F_DUPFD_CLOEXEC(highest)) != Err(Errno::EINVAL) {
        return Err(ConfineError::NotInForce("using more descriptors than the limit"));
    }
    let whole = usize::try_from(MAX_MEMORY).unwrap_or(usize::MAX);
    if Vec::<u8>::new().try_reserve_exact(whole).is_ok() {
        return Err(ConfineError::NotInForce("using more memory than the limit"));
    }
    Ok(())
}

/// Lowers a limit; one that is lower already stays.
pub(crate) fn lower(resource: Resource, wanted: u64) -> Result<(), Errno> {
    let (_, hard) = getrlimit(resource)?;
    let limit = wanted.min(hard);
    setrlimit(resource, limit, limit)
}

/// Confines the worker for good and verifies it.
pub(crate) fn confine(wall: Wall) -> Result<Confined, ConfineError> {
    if wall == Wall::None {
        return Ok(Confined(()));
    }
    shut_in(Reach::Internet)?;
    let fresh = |family| socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map(drop);
    if fresh(AddressFamily::Unix) != Err(Errno::EPERM) || fresh(AddressFamily::Netlink) != Err(Errno::EPERM) {
        return Err(ConfineError::NotInForce("making a socket that is not of the internet"));
    }
    // An unconnected datagram socket reaches whatever listens at a path or an abstract name.
    let pair = |kind| socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).map(drop);
    for kind in [SockType::Datagram, SockType::SeqPacket] {
        if pair(kind) != Err(Errno::EPERM) {
            return Err(ConfineError::NotInForce("making a pair of sockets that is no stream"));
        }
    }
    if pair(SockType::Stream).is_err() {
        return Err(ConfineError::TooStrict("making a pair of sockets for a converter"));
    }
    // The positive control: what it lives on. A kernel without IPv6 says so, which is not the filter's answer.
    if fresh(AddressFamily::Inet).is_err() || fresh(AddressFamily::Inet6) == Err(Errno::EPERM) {
        return Err(ConfineError::TooStrict("making a socket of the internet"));
    }
    if !matches!(sys::clone_process(0), Err(Errno::EPERM)) {
        return Err(ConfineError::NotInForce("starting a process"));
    }
    Ok(Confined(()))
}

/// Confines the process that makes converters. It may fork and nothing else.
pub(crate) fn confine_maker(wall: Wall) -> Result<(), ConfineError> {
    if wall == Wall::None {
        return Ok(());
    }
    shut_in(Reach::Children)?;
    no_sockets()
}

/// Confines a converter: it can compute, and read and write what it holds.
pub(crate) fn confine_converter(wall: Wall) -> Result<(), ConfineError> {
    if wall == Wall::None {
        return Ok(());
    }
    let filter = step("compile the system call filter", filter(Reach::Nothing))?;
    step("install the system call filter", sys::install_filter(&filter))?;
    if !matches!(sys::clone_process(0), Err(Errno::EPERM)) {
        return Err(ConfineError::NotInForce("starting a process"));
    }
    no_sockets()
}

fn no_sockets() -> Result<(), ConfineError> {
    for family in [AddressFamily::Inet, AddressFamily::Inet6, AddressFamily::Unix, AddressFamily::Netlink] {
        if socket(family, SockType::Stream, SockFlag::empty(), None).err() != Some(Errno::EPERM) {
            return Err(ConfineError::NotInForce("making a socket"));
        }
    }
    Ok(())
}

fn shut_in(reach: Reach) -> Result<(), ConfineError> {
    // Compiled first: compiling allocates, and nothing below should have to.
    let filter = step("compile the system call filter", filter(reach))?;
    drop_capabilities()?;
    step("set no_new_privs", prctl::set_no_new_privs())?;
    let landlock = restrict(reach)?;
    // Tried now: once the filter is in force it answers first.
    let listing = std::fs::File::open("/").err().and_then(|error| error.raw_os_error());
    if landlock == Landlock::InForce && listing != Some(libc::EACCES) {
        return Err(ConfineError::NotInForce("opening a directory"));
    }
    step("install the system call filter", sys::install_filter(&filter))?;
    verify()
}

fn drop_capabilities() -> Result<(), ConfineError> {
    // Dropping from the bounding set takes a capability itself. Without it there is nothing to gain from the set
    // either: no_new_privs and the filter forbid every exec.
    if step("read capabilities", caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP))? {
        for capability in caps::all() {
            if matches!(caps::has_cap(None, CapSet::Bounding, capability), Ok(true)) {
                step("drop a capability", caps::drop(None, CapSet::Bounding, capability))?;
            }
        }
    }
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        step("empty the capability sets", caps::clear(None, set))?;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Landlock {
    InForce,
    /// The kernel has none; the filter alone keeps files away.
    Absent,
}

/// No file at all. Connecting by TCP stays, where there are rules for it, for the worker only; offering a port does not.
fn restrict(reach: Reach) -> Result<Landlock, ConfineError> {
    let number = sys::landlock_abi();
    if number == 0 {
        return Ok(Landlock::Absent);
    }
    let abi = ABI::from(i32::try_from(number).unwrap_or(i32::MAX));
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let mut ruleset = step("restrict files", ruleset.handle_access(AccessFs::from_all(abi)))?;
    let mut net = AccessNet::from_all(abi);
    if reach == Reach::Internet {
        net.remove(AccessNet::ConnectTcp);
    }
    if !net.is_empty() {
        ruleset = step("restrict the network", ruleset.handle_access(net))?;
    }
    let scopes = Scope::from_all(abi);
    if !scopes.is_empty() {
        ruleset = step("restrict signals and sockets", ruleset.scope(scopes))?;
    }
    let created = step("make the Landlock ruleset", ruleset.create())?;
    let status = step("apply the Landlock ruleset", created.restrict_self())?;
    if status.ruleset == RulesetStatus::FullyEnforced && status.no_new_privs {
        Ok(Landlock::InForce)
    } else {
        Err(ConfineError::NotInForce("part of what Landlock was asked to forbid"))
    }
}

/// What a process may reach beside its descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Sockets of IPv4 and IPv6.
    Internet,
    /// Children of its own kind.
    Children,
    /// Nothing.
    Nothing,
}

/// How an allowed system call is narrowed.
#[derive(Debug, Clone, Copy)]
enum Narrow {
    /// Any arguments.
    Not,
    /// This argument has none of these bits.
    Without(u8, u64),
    /// This argument is one of these.
    OneOf(u8, &'static [u64]),
    /// These arguments are these, all of them.
    Exactly(&'static [(u8, u64)]),
}

/// What each of them needs. Everything else is answered EPERM: exec, every way to open a file, signals to others, mounts,
/// namespaces, and what is not invented yet.
const ALWAYS: &[(libc::c_long, Narrow)] = &[
    // Descriptors they hold.
    (libc::SYS_read, Narrow::Not),
    (libc::SYS_write, Narrow::Not),
    (libc::SYS_readv, Narrow::Not),
    (libc::SYS_writev, Narrow::Not),
    (libc::SYS_close, Narrow::Not),
    (libc::SYS_recvfrom, Narrow::Not),
    (libc::SYS_recvmsg, Narrow::Not),
    (libc::SYS_sendto, Narrow::Not),
    (libc::SYS_sendmsg, Narrow::Not),
    (libc::SYS_shutdown, Narrow::Not),
    (libc::SYS_ppoll, Narrow::Not),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, Narrow::Not),
    // The allocator. Never executable memory.
    (libc::SYS_brk, Narrow::Not),
    (libc::SYS_mmap, Narrow::Without(2, libc::PROT_EXEC as u64)),
    (libc::SYS_mprotect, Narrow::Without(2, libc::PROT_EXEC as u64)),
    (libc::SYS_mremap, Narrow::Not),
    (libc::SYS_munmap, Narrow::Not),
    (libc::SYS_madvise, Narrow::Not),
    // Time, randomness, locks, the end of the process.
    (libc::SYS_clock_gettime, Narrow::Not),
    (libc::SYS_clock_nanosleep, Narrow::Not),
    (libc::SYS_getrandom, Narrow::Not),
    (libc::SYS_futex, Narrow::Not),
    (libc::SYS_restart_syscall, Narrow::Not),
    (libc::SYS_rt_sigreturn, Narrow::Not),
    (libc::SYS_rt_sigprocmask, Narrow::Not),
    (libc::SYS_rt_sigaction, Narrow::Not),
    (libc::SYS_sigaltstack, Narrow::Not),
    (libc::SYS_sched_yield, Narrow::Not),
    (libc::SYS_sched_getaffinity, Narrow::Not),
    (libc::SYS_getpid, Narrow::Not),
    (libc::SYS_gettid, Narrow::Not),
    (libc::SYS_exit, Narrow::Not),
    (libc::SYS_exit_group, Narrow::Not),
    // Verification.
    (libc::SYS_capget, Narrow::Not),
    (libc::SYS_prctl, Narrow::OneOf(0, &[libc::PR_GET_NO_NEW_PRIVS as u64, libc::PR_CAP_AMBIENT as u64])),
];

/// What only the worker needs.
const INTERNET: &[(libc::c_long, Narrow)] = &[
    (libc::SYS_socket, Narrow::OneOf(0, &[libc::AF_INET as u64, libc::AF_INET6 as u64])),
    // Connected pairs, to converters. One for datagrams could send to any socket of the machine by its path.
    (
        libc::SYS_socketpair,
        Narrow::Exactly(&[(0, libc::AF_UNIX as u64), (1, (libc::SOCK_STREAM | libc::SOCK_CLOEXEC) as u64)]),
    ),
    (libc::SYS_connect, Narrow::Not),
    // The own end of a question to a name server: any free port.
    (libc::SYS_bind, Narrow::Not),
    (libc::SYS_accept4, Narrow::Not),
    (libc::SYS_getsockopt, Narrow::Not),
    (libc::SYS_setsockopt, Narrow::Not),
    (libc::SYS_getsockname, Narrow::Not),
    (libc::SYS_getpeername, Narrow::Not),
    (libc::SYS_sendmmsg, Narrow::Not),
    (libc::SYS_fcntl, Narrow::Not),
    (libc::SYS_ioctl, Narrow::OneOf(1, &[libc::FIONBIO])),
    (libc::SYS_epoll_ctl, Narrow::Not),
    (libc::SYS_epoll_pwait, Narrow::Not),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, Narrow::Not),
];

/// What only the maker of converters needs: a plain fork, and to take note of its children's end.
const CHILDREN: &[(libc::c_long, Narrow)] = &[
    (
        libc::SYS_clone,
        Narrow::Without(
            0,
            (libc::CLONE_VM
                | libc::CLONE_NEWUSER
                | libc::CLONE_NEWNS
                | libc::CLONE_NEWNET
                | libc::CLONE_NEWPID
                | libc::CLONE_NEWIPC
                | libc::CLONE_NEWUTS
                | libc::CLONE_NEWCGROUP) as u64,
        ),
    ),
    (libc::SYS_prlimit64, Narrow::Not),
    // A child's narrower filter.
    (libc::SYS_seccomp, Narrow::Not),
    (libc::SYS_dup3, Narrow::Not),
    (libc::SYS_fcntl, Narrow::Not),
    // Besides verification: a child ties itself to its maker.
    (
        libc::SYS_prctl,
        Narrow::OneOf(
            0,
            &[libc::PR_GET_NO_NEW_PRIVS as u64, libc::PR_CAP_AMBIENT as u64, libc::PR_SET_PDEATHSIG as u64],
        ),
    ),
];

fn filter(reach: Reach) -> Result<BpfProgram, seccompiler::BackendError> {
    let own: &[(libc::c_long, Narrow)] = match reach {
        Reach::Internet => INTERNET,
        Reach::Children => CHILDREN,
        Reach::Nothing => &[],
    };
    let mut rules = BTreeMap::new();
    for (number, narrow) in ALWAYS.iter().chain(own) {
        // Dword, because these are 32-bit arguments to the kernel: what stands above them is not looked at.
        let condition = |argument, operator, value| {
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
        };
        let alone = |condition| SeccompRule::new(vec![condition]);
        let chain = match narrow {
            Narrow::Not => Vec::new(),
            Narrow::Without(argument, bits) => {
                vec![alone(condition(*argument, SeccompCmpOp::MaskedEq(*bits), 0)?)?]
            }
            Narrow::OneOf(argument, values) => values
                .iter()
                .map(|value| alone(condition(*argument, SeccompCmpOp::Eq, *value)?))
                .collect::<Result<_, _>>()?,
            Narrow::Exactly(pairs) => vec![SeccompRule::new(
                pairs
                    .iter()
                    .map(|(argument, value)| condition(*argument, SeccompCmpOp::Eq, *value))
                    .collect::<Result<_, _>>()?,
            )?],
        };
        rules.insert(*number, chain);
    }
    // x32 numbers are not in the list and get EPERM like the rest; a call of another architecture kills.
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?.try_into()
}

/// Tries what must fail for all of them.
fn verify() -> Result<(), ConfineError> {
    let opened = std::fs::File::open("/");
    // EPERM is the filter's answer, before Landlock is asked.
    if !opened.is_err_and(|error| error.raw_os_error() == Some(libc::EPERM)) {
        return Err(ConfineError::NotInForce("opening a file"));
    }
    // An empty path cannot be executed either way: without the filter the answer is ENOENT.
    if nix::unistd::execve(c"", &[c""], &[c""]) != Err(Errno::EPERM) {
        return Err(ConfineError::NotInForce("executing a program"));
    }
    if nix::sys::signal::kill(nix::unistd::Pid::this(), None) != Err(Errno::EPERM) {
        return Err(ConfineError::NotInForce("sending a signal"));
    }
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Ambient] {
        if !step("read capabilities once confined", caps::read(None, set))?.is_empty() {
            return Err(ConfineError::NotInForce("using a capability"));
        }
    }
    if prctl::get_no_new_privs() != Ok(true) {
        return Err(ConfineError::NotInForce("gaining privileges"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_compile_and_nothing_that_opens_or_starts_is_allowed() {
        for (reach, own) in
            [(Reach::Internet, INTERNET), (Reach::Children, CHILDREN), (Reach::Nothing, &[][..])]
        {
            assert!(filter(reach).unwrap().len() > ALWAYS.len() + own.len());
            for forbidden in [
                libc::SYS_execve,
                libc::SYS_execveat,
                libc::SYS_clone3,
                libc::SYS_openat,
                libc::SYS_openat2,
                libc::SYS_open_by_handle_at,
                libc::SYS_memfd_create,
                libc::SYS_ptrace,
                libc::SYS_process_vm_readv,
                libc::SYS_mount,
                libc::SYS_unshare,
                libc::SYS_setns,
                libc::SYS_bpf,
                libc::SYS_io_uring_setup,
                libc::SYS_kill,
                libc::SYS_tgkill,
                libc::SYS_listen,
            ] {
                assert!(ALWAYS.iter().chain(own).all(|(number, _)| *number != forbidden), "{forbidden}");
            }
        }
        for forbidden in [libc::SYS_socket, libc::SYS_connect, libc::SYS_bind, libc::SYS_socketpair] {
            assert!(ALWAYS.iter().chain(CHILDREN).all(|(number, _)| *number != forbidden), "{forbidden}");
        }
        assert!(INTERNET.iter().all(|(number, _)| *number != libc::SYS_clone));
    }
}
