//! The supervisor shuts itself in, after everything it needs is open and before it reads a byte from main.
//!
//! What remains: sending and receiving on descriptors it holds, new pipes, signals to its own calls, names in `run/`.
//! No file system, no network, no new program, no way back. Each is tried afterwards; a supervisor that could still do
//! one of them does not serve.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::geteuid;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use crate::sys;

/// First ABI with rules for TCP.
const TCP_ABI: u32 = 4;
/// First ABI with a scope for abstract sockets.
const SCOPE_ABI: u32 = 6;

/// The supervisor cannot be confined, or is not although it should be.
#[derive(Debug, thiserror::Error)]
#[error("cannot confine the supervisor: {step}: {cause}")]
pub(crate) struct Unconfined {
    step: &'static str,
    cause: String,
}

fn failed<E: std::fmt::Display>(step: &'static str) -> impl FnOnce(E) -> Unconfined {
    move |cause| Unconfined { step, cause: cause.to_string() }
}

/// Directories in which the supervisor may still do something, each for one purpose.
#[derive(Debug)]
pub(crate) struct Kept<'a> {
    /// Names may be made and removed: the stop file, the control socket.
    pub(crate) run: Option<&'a File>,
    /// Files may be made: what a chain of the audit log goes on in.
    pub(crate) rotated: Option<&'a File>,
    /// Files may be made and read: the count of each day's calls.
    pub(crate) counts: Option<&'a File>,
}

/// Confines this process and verifies it. Nothing of the file system is left but what `kept` says.
pub(crate) fn confine(kept: &Kept<'_>) -> Result<(), Unconfined> {
    drop_capabilities()?;
    prctl::set_dumpable(false).map_err(failed("make it undumpable"))?;
    prctl::set_no_new_privs().map_err(failed("set no_new_privs"))?;
    let landlock = restrict_paths(kept)?;
    let program = filter()?;
    sys::install_filter(&program).map_err(failed("install the seccomp filter"))?;
    verify(landlock)
}

fn drop_capabilities() -> Result<(), Unconfined> {
    // As root its calls run under other user ids; ending them takes CAP_KILL. A user's own need nothing.
    let kept: CapsHashSet =
        if geteuid().is_root() { [Capability::CAP_KILL].into_iter().collect() } else { CapsHashSet::new() };
    let step = "drop capabilities";
    let held = caps::read(None, CapSet::Permitted).map_err(failed(step))?;
    let kept = kept.intersection(&held).copied().collect();
    for set in [CapSet::Inheritable, CapSet::Ambient] {
        caps::clear(None, set).map_err(failed(step))?;
    }
    caps::set(None, CapSet::Effective, &kept).map_err(failed(step))?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed(step))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Landlock {
    InForce,
    /// The kernel has none. `sandbox.require` has already decided whether that will do.
    Absent,
}

fn restrict_paths(kept: &Kept<'_>) -> Result<Landlock, Unconfined> {
    let abi = sys::landlock_abi();
    if abi == 0 {
        return Ok(Landlock::Absent);
    }
    let known = ABI::from(i32::try_from(abi).unwrap_or(i32::MAX));
    let step = "restrict the file system";
    let handled = AccessFs::from_all(known);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(handled)
        .map_err(failed(step))?;
    if abi >= TCP_ABI {
        rules = rules.handle_access(AccessNet::from_all(known)).map_err(failed(step))?;
    }
    if abi >= SCOPE_ABI {
        // Not the scope for signals: its calls live outside its domain, and it must be able to end them.
        rules = rules.scope(Scope::AbstractUnixSocket).map_err(failed(step))?;
    }
    let mut rules = rules.create().map_err(failed(step))?;
    let make = AccessFs::MakeReg | AccessFs::WriteFile;
    let rights = [
        (kept.run, make | AccessFs::RemoveFile),
        // Not where the key and the other chains are: what it wrote before is out of its reach.
        (kept.rotated, make),
        (kept.counts, make | AccessFs::ReadFile),
    ];
    for (directory, names) in rights {
        let Some(directory) = directory else { continue };
        rules = rules.add_rule(PathBeneath::new(directory.as_fd(), names & handled)).map_err(failed(step))?;
    }
    match rules.restrict_self().map_err(failed(step))?.ruleset {
        RulesetStatus::FullyEnforced => Ok(Landlock::InForce),
        RulesetStatus::PartiallyEnforced | RulesetStatus::NotEnforced => {
            Err(Unconfined { step, cause: "Landlock was not fully enforced".to_owned() })
        }
    }
}

/// System calls the supervisor still needs, each with its reason. Everything else is EPERM.
const ALLOWED: [(libc::c_long, &str); 52] = [
    (libc::SYS_read, "pipes of calls, signalfd"),
    (libc::SYS_write, "standard error, audit, input of runs"),
    (libc::SYS_writev, "standard error"),
    (libc::SYS_close, "descriptors of calls that ended"),
    (libc::SYS_poll, "the loop"),
    (libc::SYS_ppoll, "the loop, where libc has no poll"),
    (libc::SYS_recvfrom, "main, files workers"),
    (libc::SYS_recvmsg, "zygotes and inits, with descriptors"),
    (libc::SYS_sendto, "main, files workers"),
    (libc::SYS_sendmsg, "inits, with descriptors"),
    (libc::SYS_accept4, "the control socket"),
    (libc::SYS_getsockopt, "who is at the control socket"),
    (libc::SYS_setsockopt, "timeouts of new control sockets"),
    (libc::SYS_shutdown, "closing a connection"),
    (libc::SYS_pipe2, "pipes of calls"),
    (libc::SYS_fcntl, "non-blocking pipes"),
    (libc::SYS_fchmod, "pipes that a call may open again"),
    (libc::SYS_dup, "standard error of a call is its standard output"),
    (libc::SYS_dup3, "the same"),
    (libc::SYS_pidfd_send_signal, "ending calls"),
    (libc::SYS_waitid, "the nursery's end"),
    (libc::SYS_wait4, "the nursery's end"),
    (
        libc::SYS_openat,
        "the stop file, a new file of the audit log or of a day's count; Landlock decides which",
    ),
    (libc::SYS_unlinkat, "the stop file and the control socket; Landlock decides which"),
    (libc::SYS_newfstatat, "is there a stop file?"),
    (libc::SYS_fstat, "std's File"),
    (libc::SYS_statx, "std's File"),
    (libc::SYS_lseek, "std's File"),
    (libc::SYS_fsync, "audit"),
    (libc::SYS_fdatasync, "audit"),
    (libc::SYS_mmap, "memory; never executable, see below"),
    (libc::SYS_munmap, "memory"),
    (libc::SYS_mremap, "memory"),
    (libc::SYS_madvise, "memory"),
    (libc::SYS_brk, "memory"),
    (libc::SYS_mprotect, "memory; never executable, see below"),
    (libc::SYS_futex, "locks of std"),
    (libc::SYS_getrandom, "hash seeds of std"),
    (libc::SYS_clock_gettime, "time, where the vDSO has none"),
    (libc::SYS_clock_nanosleep, "waiting"),
    (libc::SYS_gettid, "std"),
    (libc::SYS_getpid, "std"),
    (libc::SYS_geteuid, "who is at the control socket"),
    (libc::SYS_sigaltstack, "the end of a thread"),
    (libc::SYS_rt_sigaction, "std"),
    (libc::SYS_rt_sigprocmask, "std"),
    (libc::SYS_rt_sigreturn, "std"),
    (libc::SYS_restart_syscall, "after a stop"),
    (libc::SYS_sched_yield, "locks of std"),
    (libc::SYS_capget, "verification"),
    (libc::SYS_exit, "the end"),
    (libc::SYS_exit_group, "the end"),
];

/// Reads of prctl that verification needs.
const PRCTL_READS: [libc::c_int; 3] =
    [libc::PR_GET_NO_NEW_PRIVS, libc::PR_GET_SECCOMP, libc::PR_GET_DUMPABLE];

fn filter() -> Result<BpfProgram, Unconfined> {
    let step = "build the seccomp filter";
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|(number, _reason)| (*number, Vec::new())).collect();
    let condition = |index, operator, value| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value).map_err(failed(step))
    };
    let prot_exec = u64::from(libc::PROT_EXEC.unsigned_abs());
    for number in [libc::SYS_mmap, libc::SYS_mprotect] {
        let never = condition(2, SeccompCmpOp::MaskedEq(prot_exec), 0)?;
        rules.insert(number, vec![SeccompRule::new(vec![never]).map_err(failed(step))?]);
    }
    let mut reads = Vec::new();
    for option in PRCTL_READS {
        let read = condition(0, SeccompCmpOp::Eq, u64::from(option.unsigned_abs()))?;
        reads.push(SeccompRule::new(vec![read]).map_err(failed(step))?);
    }
    rules.insert(libc::SYS_prctl, reads);
    let target = TargetArch::try_from(std::env::consts::ARCH).map_err(failed(step))?;
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, target)
        .and_then(BpfProgram::try_from)
        .map_err(failed(step))
}

/// Tries what must fail now, and one thing that must not.
fn verify(landlock: Landlock) -> Result<(), Unconfined> {
    let wrong = |step: &'static str, cause: &str| Err(Unconfined { step, cause: cause.to_owned() });
    if prctl::get_no_new_privs() != Ok(true) || prctl::get_dumpable() != Ok(false) {
        return wrong("verify", "no_new_privs or dumpable did not take");
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6, AddressFamily::Netlink, AddressFamily::Unix] {
        if socket(family, SockType::Stream, SockFlag::empty(), None).err() != Some(Errno::EPERM) {
            return wrong("verify", "a socket can still be made");
        }
    }
    for path in ["/", "/etc/passwd", "/proc/self/maps"] {
        let opened = File::open(Path::new(path));
        let refused = opened.is_err_and(|error| error.raw_os_error() == Some(libc::EACCES));
        if landlock == Landlock::InForce && !refused {
            return wrong("verify", "a file can still be opened");
        }
    }
    let kept: CapsHashSet = caps::read(None, CapSet::Permitted).map_err(failed("verify"))?;
    if kept.iter().any(|capability| *capability != Capability::CAP_KILL) {
        return wrong("verify", "capabilities are left");
    }
    // The positive control: what the loop lives on still works.
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
        .map(drop)
        .map_err(failed("verify that pipes can be made"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_system_call_is_listed_that_starts_or_reaches_anything() {
        for forbidden in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_kill,
        ] {
            assert!(ALLOWED.iter().all(|(number, _)| *number != forbidden), "{forbidden}");
        }
        assert!(ALLOWED.iter().all(|(_, reason)| !reason.is_empty()));
    }

    #[test]
    fn filter_compiles() {
        assert!(filter().unwrap().len() > ALLOWED.len());
    }
}
