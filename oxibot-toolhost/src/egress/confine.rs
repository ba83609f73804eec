//! The egress shuts itself in: no file, no program, no listening, no Unix socket, TCP to the listed ports only. Each is
//! tried afterwards.
//!
//! UDP has no rule in Landlock; the filter leaves datagrams of the internet families, for name servers. Capabilities are
//! given up as root too.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

use caps::{CapSet, Capability};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, socket};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::serve::MAX_CONNECTIONS;
use crate::sys;
use crate::wall::Step;
use crate::wire::WallFault;

/// First ABI with rules for TCP.
const TCP_ABI: u32 = 4;
/// First ABI with scopes.
const SCOPE_ABI: u32 = 6;
/// Memory, in bytes: each connection may hold 64 KiB in each direction and a head.
const MAX_MEMORY: u64 = 256 << 20;
/// CPU time, in seconds: as much as the longest call may take. It is not in the cgroup of its call.
const MAX_CPU_SECONDS: u64 = 600;
/// Two descriptors a connection, and those that are there always.
const MAX_DESCRIPTORS: u64 = 2 * MAX_CONNECTIONS as u64 + 32;

const STEP: &str = "confine the egress";

fn not_in_force(what: &str) -> WallFault {
    WallFault { step: STEP.to_owned(), cause: format!("{what} is still possible") }
}

/// Confines this process for good and verifies it. While there is one thread, before anything hostile is read.
pub(super) fn confine(ports: &[u16]) -> Result<(), WallFault> {
    lower(Resource::RLIMIT_CORE, 0).step(STEP)?;
    lower(Resource::RLIMIT_FSIZE, 0).step(STEP)?;
    lower(Resource::RLIMIT_CPU, MAX_CPU_SECONDS).step(STEP)?;
    lower(Resource::RLIMIT_AS, MAX_MEMORY).step(STEP)?;
    lower(Resource::RLIMIT_NOFILE, MAX_DESCRIPTORS).step(STEP)?;
    prctl::set_dumpable(false).step(STEP)?;
    let filter = filter().step(STEP)?;
    drop_capabilities()?;
    prctl::set_no_new_privs().step(STEP)?;
    let abi = sys::landlock_abi();
    if abi > 0 {
        restrict(abi, ports)?;
    }
    sys::install_filter(&filter).step(STEP)?;
    verify(abi, ports)
}

fn lower(resource: Resource, wanted: u64) -> Result<(), Errno> {
    let (_, hard) = getrlimit(resource)?;
    let limit = wanted.min(hard);
    setrlimit(resource, limit, limit)
}

fn drop_capabilities() -> Result<(), WallFault> {
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).step(STEP)? {
        for capability in caps::all() {
            // One that the kernel does not know cannot be read, and need not be dropped.
            if matches!(caps::has_cap(None, CapSet::Bounding, capability), Ok(true)) {
                caps::drop(None, CapSet::Bounding, capability).step(STEP)?;
            }
        }
    }
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set).step(STEP)?;
    }
    Ok(())
}

fn restrict(abi: u32, ports: &[u16]) -> Result<(), WallFault> {
    let known = ABI::from(i32::try_from(abi).unwrap_or(i32::MAX));
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(known))
        .step(STEP)?;
    if abi >= TCP_ABI {
        rules = rules.handle_access(AccessNet::from_all(known)).step(STEP)?;
    }
    if abi >= SCOPE_ABI {
        rules = rules.scope(Scope::from_all(known)).step(STEP)?;
    }
    let mut rules = rules.create().step(STEP)?;
    if abi >= TCP_ABI {
        for port in ports {
            rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp)).step(STEP)?;
        }
    }
    match rules.restrict_self().step(STEP)?.ruleset {
        RulesetStatus::FullyEnforced => Ok(()),
        RulesetStatus::PartiallyEnforced | RulesetStatus::NotEnforced => {
            Err(not_in_force("part of what Landlock was asked to forbid"))
        }
    }
}

/// System calls it needs, each with its reason. Everything else is EPERM.
const ALLOWED: &[(libc::c_long, &str)] = &[
    (libc::SYS_read, "both sides of a connection"),
    (libc::SYS_write, "both sides of a connection"),
    (libc::SYS_recvfrom, "both sides of a connection, name servers"),
    (libc::SYS_sendto, "both sides of a connection, name servers"),
    (libc::SYS_sendmsg, "the supervisor"),
    (libc::SYS_accept4, "connections of the call"),
    (libc::SYS_connect, "judged addresses, name servers"),
    (libc::SYS_getsockopt, "whether a connection was made"),
    (libc::SYS_setsockopt, "no delay"),
    (libc::SYS_shutdown, "the end of one direction"),
    (libc::SYS_close, "ended connections"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, "the loop"),
    (libc::SYS_ppoll, "the loop, where libc has no poll"),
    (libc::SYS_brk, "memory"),
    (libc::SYS_munmap, "memory"),
    (libc::SYS_mremap, "memory"),
    (libc::SYS_madvise, "memory"),
    (libc::SYS_futex, "locks of std"),
    (libc::SYS_getrandom, "hash seeds of std"),
    (libc::SYS_clock_gettime, "time, where the vDSO has none"),
    (libc::SYS_rt_sigreturn, "std"),
    (libc::SYS_rt_sigprocmask, "std"),
    (libc::SYS_rt_sigaction, "std"),
    (libc::SYS_sigaltstack, "the end of a thread"),
    (libc::SYS_restart_syscall, "after a stop"),
    (libc::SYS_capget, "verification"),
    (libc::SYS_exit, "the end"),
    (libc::SYS_exit_group, "the end"),
];

/// Reads of prctl that verification needs.
const PRCTL_READS: [libc::c_int; 2] = [libc::PR_GET_NO_NEW_PRIVS, libc::PR_CAP_AMBIENT];
/// Families and kinds of sockets, flags aside.
const FAMILIES: [libc::c_int; 2] = [libc::AF_INET, libc::AF_INET6];
const KINDS: [libc::c_int; 2] = [libc::SOCK_STREAM, libc::SOCK_DGRAM];
const KIND_FLAGS: libc::c_int = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let condition = |index, operator, value: libc::c_int| {
        let value = u64::from(value.unsigned_abs());
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|(number, _reason)| (*number, Vec::new())).collect();
    let mut sockets = Vec::new();
    for family in FAMILIES {
        for kind in KINDS {
            sockets.push(SeccompRule::new(vec![
                condition(0, SeccompCmpOp::Eq, family)?,
                condition(1, SeccompCmpOp::Eq, kind | KIND_FLAGS)?,
                condition(2, SeccompCmpOp::Eq, 0)?,
            ])?);
        }
    }
    rules.insert(libc::SYS_socket, sockets);
    for number in [libc::SYS_mmap, libc::SYS_mprotect] {
        let prot_exec = SeccompCmpOp::MaskedEq(u64::from(libc::PROT_EXEC.unsigned_abs()));
        rules.insert(number, vec![SeccompRule::new(vec![condition(2, prot_exec, 0)?])?]);
    }
    let reads = PRCTL_READS
        .iter()
        .map(|option| condition(0, SeccompCmpOp::Eq, *option).and_then(|read| SeccompRule::new(vec![read])));
    rules.insert(libc::SYS_prctl, reads.collect::<Result<_, _>>()?);
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?.try_into()
}

/// Tries what must fail now, and what must not.
fn verify(abi: u32, ports: &[u16]) -> Result<(), WallFault> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let make = |family, kind| socket(family, kind, flags, None);
    for (family, kind) in [
        (AddressFamily::Unix, SockType::Stream),
        (AddressFamily::Netlink, SockType::Raw),
        (AddressFamily::Inet, SockType::Raw),
    ] {
        if make(family, kind).err() != Some(Errno::EPERM) {
            return Err(not_in_force("making a socket of another kind"));
        }
    }
    if std::fs::File::open("/").is_ok() || std::fs::File::open("/proc/self/maps").is_ok() {
        return Err(not_in_force("opening a file"));
    }
    // An empty path cannot be executed either way: without the filter the answer is ENOENT.
    if nix::unistd::execve(c"", &[c""], &[c""]) != Err(Errno::EPERM) {
        return Err(not_in_force("executing a program"));
    }
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Ambient] {
        if !caps::read(None, set).step(STEP)?.is_empty() {
            return Err(not_in_force("using a capability"));
        }
    }
    if prctl::get_no_new_privs() != Ok(true) {
        return Err(not_in_force("gaining privileges"));
    }
    // The positive control: what it is for still works.
    let tcp = make(AddressFamily::Inet, SockType::Stream).step("make a socket once confined")?;
    let unlisted = (1..u16::MAX).find(|port| !ports.contains(port));
    if let Some(unlisted) = unlisted.filter(|_| abi >= TCP_ABI) {
        let own = SockaddrIn::new(127, 0, 0, 1, unlisted);
        if connect(tcp.as_raw_fd(), &own) != Err(Errno::EACCES) {
            return Err(not_in_force("connecting to a port that is not listed"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_compiles_and_lists_nothing_that_starts_or_opens_or_listens() {
        assert!(filter().unwrap().len() > ALLOWED.len());
        for forbidden in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_socketpair,
            libc::SYS_recvmsg,
            libc::SYS_ptrace,
            libc::SYS_kill,
            libc::SYS_mount,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_io_uring_setup,
            libc::SYS_bpf,
        ] {
            assert!(ALLOWED.iter().all(|(number, _)| *number != forbidden), "{forbidden}");
        }
        assert!(ALLOWED.iter().all(|(_, reason)| !reason.is_empty()));
    }
}
