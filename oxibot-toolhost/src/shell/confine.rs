//! The reader's own wall. It needs memory and its socket, so it keeps nothing else: no file, no program, no socket that
//! it does not hold already, no signal to others. Each step fails closed and is tried afterwards.

use std::collections::BTreeMap;
use std::fs::File;

use caps::CapSet;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope,
};
use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::sys;

/// Proof that confinement was made and verified. [`super::serve`] takes one.
#[derive(Debug)]
#[must_use]
pub(super) struct Confined(());

/// The reader will not serve.
#[derive(Debug, thiserror::Error)]
#[error("cannot confine the shell reader: {step}: {cause}")]
pub(super) struct Unconfined {
    step: &'static str,
    cause: String,
}

fn failed<E: std::fmt::Display>(step: &'static str) -> impl FnOnce(E) -> Unconfined {
    move |cause| Unconfined { step, cause: cause.to_string() }
}

/// Memory in bytes. A script of 100 KiB and its tree take some ten MiB.
const MAX_MEMORY: u64 = 512 << 20;
/// CPU time of its whole life, in seconds: some million verdicts. Prevents one that does not end from going on after
/// the supervisor itself is gone.
const MAX_CPU: u64 = 600;

/// System calls it still needs, each with its reason. Everything else is EPERM.
const ALLOWED: [(libc::c_long, &str); 24] = [
    (libc::SYS_read, "requests"),
    (libc::SYS_write, "answers, standard error"),
    (libc::SYS_close, "the end"),
    (libc::SYS_brk, "memory"),
    (libc::SYS_mmap, "memory; never executable, see below"),
    (libc::SYS_mprotect, "memory; never executable, see below"),
    (libc::SYS_mremap, "memory"),
    (libc::SYS_munmap, "memory"),
    (libc::SYS_madvise, "memory"),
    (libc::SYS_futex, "locks of std"),
    (libc::SYS_getrandom, "hash seeds of std"),
    (libc::SYS_clock_gettime, "time, where the vDSO has none"),
    (libc::SYS_restart_syscall, "after a stop"),
    (libc::SYS_rt_sigreturn, "std"),
    (libc::SYS_rt_sigprocmask, "std"),
    (libc::SYS_rt_sigaction, "std"),
    (libc::SYS_sigaltstack, "std"),
    (libc::SYS_getpid, "std"),
    (libc::SYS_gettid, "std"),
    (libc::SYS_tgkill, "abort; only itself, see below"),
    (libc::SYS_sched_yield, "locks of std"),
    (libc::SYS_capget, "verification"),
    (libc::SYS_exit, "the end"),
    (libc::SYS_exit_group, "the end"),
];

/// Confines this process for good and verifies it. Before the first byte of a request, and with one thread.
pub(super) fn confine() -> Result<Confined, Unconfined> {
    for (resource, limit, step) in [
        (Resource::RLIMIT_CORE, 0, "forbid core files"),
        (Resource::RLIMIT_AS, MAX_MEMORY, "limit memory"),
        (Resource::RLIMIT_CPU, MAX_CPU, "limit CPU time"),
        (Resource::RLIMIT_FSIZE, 0, "limit file size"),
    ] {
        let (_, hard) = getrlimit(resource).map_err(failed(step))?;
        let limit = limit.min(hard);
        setrlimit(resource, limit, limit).map_err(failed(step))?;
    }
    prctl::set_dumpable(false).map_err(failed("make it undumpable"))?;
    let filter = filter()?;
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set).map_err(failed("drop capabilities"))?;
    }
    prctl::set_no_new_privs().map_err(failed("set no_new_privs"))?;
    let landlock = restrict()?;
    if landlock && !File::open("/").is_err_and(|error| error.raw_os_error() == Some(libc::EACCES)) {
        return Err(failed("verify")("the root directory can still be opened"));
    }
    sys::install_filter(&filter).map_err(failed("install the seccomp filter"))?;
    verify()?;
    Ok(Confined(()))
}

/// `false` where the kernel has no Landlock; the filter alone forbids the same, and each is tried.
fn restrict() -> Result<bool, Unconfined> {
    let abi = sys::landlock_abi();
    if abi == 0 {
        return Ok(false);
    }
    let step = "restrict the file system";
    let known = ABI::from(i32::try_from(abi).unwrap_or(i32::MAX));
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(known))
        .map_err(failed(step))?;
    let net = AccessNet::from_all(known);
    if !net.is_empty() {
        rules = rules.handle_access(net).map_err(failed(step))?;
    }
    let scopes = Scope::from_all(known);
    if !scopes.is_empty() {
        rules = rules.scope(scopes).map_err(failed(step))?;
    }
    let status = rules.create().and_then(|created| created.restrict_self()).map_err(failed(step))?;
    match status.ruleset {
        RulesetStatus::FullyEnforced => Ok(true),
        RulesetStatus::PartiallyEnforced | RulesetStatus::NotEnforced => {
            Err(failed(step)("Landlock was not fully enforced"))
        }
    }
}

fn filter() -> Result<BpfProgram, Unconfined> {
    let step = "build the seccomp filter";
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|(number, _reason)| (*number, Vec::new())).collect();
    let condition = |index, operator, value| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
            .and_then(|condition| SeccompRule::new(vec![condition]))
            .map_err(failed(step))
    };
    let prot_exec = u64::from(libc::PROT_EXEC.unsigned_abs());
    for number in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(number, vec![condition(2, SeccompCmpOp::MaskedEq(prot_exec), 0)?]);
    }
    rules.insert(libc::SYS_tgkill, vec![condition(0, SeccompCmpOp::Eq, u64::from(std::process::id()))?]);
    let get = u64::from(libc::PR_GET_NO_NEW_PRIVS.unsigned_abs());
    rules.insert(libc::SYS_prctl, vec![condition(0, SeccompCmpOp::Eq, get)?]);
    let target = std::env::consts::ARCH.try_into().map_err(failed(step))?;
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, target)
        .and_then(BpfProgram::try_from)
        .map_err(failed(step))
}

/// Tries what must fail.
fn verify() -> Result<(), Unconfined> {
    let wrong = |cause: &str| Err(failed("verify")(cause.to_owned()));
    if !File::open("/").is_err_and(|error| error.raw_os_error() == Some(libc::EPERM)) {
        return wrong("a file can still be opened");
    }
    if socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map(drop)
        != Err(Errno::EPERM)
    {
        return wrong("a socket can still be made");
    }
    // An empty path cannot be executed either way: without the filter the answer is ENOENT.
    if nix::unistd::execve(c"", &[c""], &[c""]) != Err(Errno::EPERM) {
        return wrong("a program can still be executed");
    }
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        if !caps::read(None, set).map_err(failed("verify"))?.is_empty() {
            return wrong("a capability is left");
        }
    }
    if prctl::get_no_new_privs() != Ok(true) {
        return wrong("privileges can still be gained");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_system_call_is_listed_that_opens_starts_or_reaches_anything() {
        for forbidden in [
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_sendmsg,
            libc::SYS_recvmsg,
            libc::SYS_kill,
            libc::SYS_ptrace,
            libc::SYS_ioctl,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
        ] {
            assert!(ALLOWED.iter().all(|(number, _)| *number != forbidden), "{forbidden}");
        }
        assert!(ALLOWED.iter().all(|(_, reason)| !reason.is_empty()));
        assert!(filter().unwrap().len() > ALLOWED.len());
    }

    #[test]
    fn verification_notices_what_is_not_in_force() {
        assert!(verify().unwrap_err().to_string().contains("a file can still be opened"));
    }
}
