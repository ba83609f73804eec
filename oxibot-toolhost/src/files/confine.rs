//! The worker's own wall: descriptors, limits, capabilities, Landlock, seccomp, and the proof that they took.
//!
//! Everything needs nothing but the workspace handle: no `/proc`, no path. Each step fails closed; only
//! [`Wall::None`], which the zygote chooses at level `off`, leaves the kernel's part out. Mounts and namespaces are
//! not made here: the zygote starts this process inside its view.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::Path;

use caps::{CapSet, Capability};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, openat2};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// What the zygote says can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wall {
    /// Everything, with Landlock of this ABI; 0 where the kernel has none, which the level reported must say.
    Kernel {
        /// Less than this is an error.
        landlock_abi: i32,
    },
    /// Level `off`.
    None,
}

/// Proof that confinement was made and verified as the zygote asked. [`super::serve`] takes one.
#[derive(Debug)]
#[must_use]
pub(super) struct Confined(());

/// Why the worker will not serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConfineError {
    /// A step was refused by the kernel.
    #[error("cannot {step}: {cause}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// The answer.
        cause: String,
    },
    /// Something that must fail was possible.
    #[error("cannot confine the files worker: {0} is still possible")]
    NotInForce(&'static str),
    /// Something that must work was refused.
    #[error("cannot confine the files worker: {0} is not possible any more")]
    TooStrict(&'static str),
}

fn step<T, E: std::fmt::Display>(step: &'static str, result: Result<T, E>) -> Result<T, ConfineError> {
    result.map_err(|error| ConfineError::Step { step, cause: error.to_string() })
}

/// Memory of the worker, in bytes. An edit holds a file of 8 MiB a few times over; a search 16 MiB and its automaton.
const MAX_MEMORY: u64 = 1 << 30;
/// Descriptors: a walk holds 64, outputs being written 128, transfers 96.
const MAX_DESCRIPTORS: u64 = 512;
/// Largest file it may write. Above every limit of its own, so that only a bug meets it.
const MAX_WRITTEN: u64 = 64 << 20;

/// What the worker may do below the workspace. No execute, no devices, pipes or sockets made, nothing moved between
/// directories; symbolic links only by a worker that puts guarded names back.
fn rights(put_back: bool) -> BitFlags<AccessFs> {
    let always = AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        // Also to give a directory that was moved aside its name again.
        | AccessFs::RemoveDir;
    if put_back { always | AccessFs::MakeSym } else { always }
}

/// Confines this process for good and verifies it. Call it before the first byte of a request is read and while there
/// is one thread. `put_back`: whether the worker puts guarded names back, of which some may be symbolic links.
pub(super) fn confine(
    workspace: BorrowedFd<'_>,
    wall: Wall,
    put_back: bool,
) -> Result<Confined, ConfineError> {
    step("forbid core files", lower(Resource::RLIMIT_CORE, 0))?;
    step("limit descriptors", lower(Resource::RLIMIT_NOFILE, MAX_DESCRIPTORS))?;
    step("limit memory", lower(Resource::RLIMIT_AS, MAX_MEMORY))?;
    step("limit file size", lower(Resource::RLIMIT_FSIZE, MAX_WRITTEN))?;
    let landlock_abi = match wall {
        Wall::None => return Ok(Confined(())),
        Wall::Kernel { landlock_abi } => landlock_abi,
    };
    step("forbid core dumps and tracing", prctl::set_dumpable(false))?;
    // Compiled first: compiling allocates, and nothing below should have to.
    let filter = step("compile the system call filter", filter(put_back))?;
    drop_capabilities()?;
    step("set no_new_privs", prctl::set_no_new_privs())?;
    if landlock_abi > 0 {
        restrict_files(workspace, landlock_abi, rights(put_back))?;
    }
    step("install the system call filter", seccompiler::apply_filter(&filter))?;
    verify(workspace, landlock_abi)?;
    Ok(Confined(()))
}

fn lower(resource: Resource, wanted: u64) -> Result<(), Errno> {
    let (_, hard) = getrlimit(resource)?;
    let limit = wanted.min(hard);
    setrlimit(resource, limit, limit)
}

fn drop_capabilities() -> Result<(), ConfineError> {
    // Dropping from the bounding set takes a capability itself. Without it there is nothing to gain from the set
    // either: no_new_privs and the filter forbid every exec.
    if step("read capabilities", caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP))? {
        for capability in caps::all() {
            // One that the kernel does not know cannot be read, and need not be dropped.
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

fn restrict_files(
    workspace: BorrowedFd<'_>,
    landlock_abi: i32,
    rights: BitFlags<AccessFs>,
) -> Result<(), ConfineError> {
    let abi = ABI::from(landlock_abi);
    let all = AccessFs::from_all(abi);
    // HardRequirement: a right the kernel does not know is an error and not, as by default, left out in silence.
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let mut ruleset = step("restrict files", ruleset.handle_access(all))?;
    let net = AccessNet::from_all(abi);
    if !net.is_empty() {
        ruleset = step("restrict the network", ruleset.handle_access(net))?;
    }
    let scopes = Scope::from_all(abi);
    if !scopes.is_empty() {
        ruleset = step("restrict signals and sockets", ruleset.scope(scopes))?;
    }
    let created = step("make the Landlock ruleset", ruleset.create())?;
    let rule = PathBeneath::new(workspace, rights & all);
    let created = step("allow the workspace", created.add_rule(rule))?;
    let status = step("apply the Landlock ruleset", created.restrict_self())?;
    // ABI 8 adds no right, so an older kernel gives all that was asked for: it is still not what was expected.
    let expected = ABI::from(status.landlock) >= abi;
    if expected && status.ruleset == RulesetStatus::FullyEnforced && status.no_new_privs {
        Ok(())
    } else {
        Err(ConfineError::NotInForce("part of what Landlock was asked to forbid"))
    }
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
    /// The first argument is this process.
    Itself,
}

/// System calls the worker needs. Everything else is answered EPERM: exec, sockets, processes, signals to others,
/// `openat` and `open` (which could not be told to stay beneath), links, devices, mounts, and what is not invented yet.
const ALLOWED: &[(libc::c_long, Narrow)] = &[
    // Requests and answers; the files themselves.
    (libc::SYS_read, Narrow::Not),
    (libc::SYS_write, Narrow::Not),
    (libc::SYS_writev, Narrow::Not),
    (libc::SYS_pread64, Narrow::Not),
    (libc::SYS_lseek, Narrow::Not),
    (libc::SYS_close, Narrow::Not),
    (libc::SYS_fsync, Narrow::Not),
    (libc::SYS_ppoll, Narrow::Not),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, Narrow::Not),
    // Paths, each below a directory descriptor.
    (libc::SYS_openat2, Narrow::Not),
    (libc::SYS_mkdirat, Narrow::Not),
    (libc::SYS_unlinkat, Narrow::Not),
    (libc::SYS_renameat, Narrow::Not),
    (libc::SYS_renameat2, Narrow::Not),
    (libc::SYS_readlinkat, Narrow::Not),
    (libc::SYS_newfstatat, Narrow::Not),
    (libc::SYS_fstat, Narrow::Not),
    (libc::SYS_statx, Narrow::Not),
    (libc::SYS_getdents64, Narrow::Not),
    (libc::SYS_fchmod, Narrow::Not),
    // Copies of descriptors for walks; fdopendir asks for the flags.
    (
        libc::SYS_fcntl,
        Narrow::OneOf(
            1,
            &[libc::F_DUPFD_CLOEXEC as u64, libc::F_GETFL as u64, libc::F_GETFD as u64, libc::F_SETFD as u64],
        ),
    ),
    // The allocator. Never executable memory.
    (libc::SYS_brk, Narrow::Not),
    (libc::SYS_mmap, Narrow::Without(2, libc::PROT_EXEC as u64)),
    (libc::SYS_mprotect, Narrow::Without(2, libc::PROT_EXEC as u64)),
    (libc::SYS_mremap, Narrow::Not),
    (libc::SYS_munmap, Narrow::Not),
    (libc::SYS_madvise, Narrow::Not),
    // Time, randomness for hash tables, locks, the end of the process.
    (libc::SYS_clock_gettime, Narrow::Not),
    (libc::SYS_getrandom, Narrow::Not),
    (libc::SYS_futex, Narrow::Not),
    (libc::SYS_restart_syscall, Narrow::Not),
    (libc::SYS_rt_sigreturn, Narrow::Not),
    (libc::SYS_rt_sigprocmask, Narrow::Not),
    (libc::SYS_rt_sigaction, Narrow::Not),
    (libc::SYS_sigaltstack, Narrow::Not),
    (libc::SYS_getpid, Narrow::Not),
    (libc::SYS_gettid, Narrow::Not),
    (libc::SYS_tgkill, Narrow::Itself),
    (libc::SYS_exit, Narrow::Not),
    (libc::SYS_exit_group, Narrow::Not),
    // Verification.
    (libc::SYS_capget, Narrow::Not),
    (libc::SYS_prctl, Narrow::OneOf(0, &[libc::PR_GET_NO_NEW_PRIVS as u64, libc::PR_CAP_AMBIENT as u64])),
];

fn filter(put_back: bool) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules = BTreeMap::new();
    for (number, narrow) in ALLOWED {
        let condition = |argument, operator, value| {
            // Dword, because these are 32-bit arguments to the kernel: what stands above them is not looked at.
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
                .and_then(|condition| SeccompRule::new(vec![condition]))
        };
        let chain = match narrow {
            Narrow::Not => Vec::new(),
            Narrow::Without(argument, bits) => vec![condition(*argument, SeccompCmpOp::MaskedEq(*bits), 0)?],
            Narrow::OneOf(argument, values) => values
                .iter()
                .map(|value| condition(*argument, SeccompCmpOp::Eq, *value))
                .collect::<Result<_, _>>()?,
            Narrow::Itself => vec![condition(0, SeccompCmpOp::Eq, u64::from(std::process::id()))?],
        };
        rules.insert(*number, chain);
    }
    if put_back {
        rules.insert(libc::SYS_symlinkat, Vec::new());
    }
    // A refused call of another architecture kills; x32 numbers are not in the list and get EPERM like the rest.
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?.try_into()
}

/// Tries what must fail, and what must not.
fn verify(workspace: BorrowedFd<'_>, landlock_abi: i32) -> Result<(), ConfineError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let open = |directory: BorrowedFd<'_>, path: &str| {
        openat2(directory, Path::new(path), OpenHow::new().flags(flags)).map(drop)
    };
    step("open the workspace once confined", open(workspace, "."))
        .map_err(|_| ConfineError::TooStrict("reading the workspace"))?;
    if landlock_abi > 0 {
        if open(AT_FDCWD, "/") != Err(Errno::EACCES) {
            return Err(ConfineError::NotInForce("reading the root directory"));
        }
        if open(workspace, "..") != Err(Errno::EACCES) {
            return Err(ConfineError::NotInForce("reading the directory above the workspace"));
        }
    }
    let family = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map(drop);
    if family != Err(Errno::EPERM) {
        return Err(ConfineError::NotInForce("making a socket"));
    }
    // An empty path cannot be executed either way: without the filter the answer is ENOENT.
    if nix::unistd::execve(c"", &[c""], &[c""]) != Err(Errno::EPERM) {
        return Err(ConfineError::NotInForce("executing a program"));
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
    fn filter_compiles_and_stays_small() {
        let program = filter(true).unwrap();
        assert!(program.len() > ALLOWED.len() && program.len() < 1000, "{}", program.len());
    }

    #[test]
    fn nothing_that_starts_or_reaches_others_is_allowed() {
        for number in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_ptrace,
            libc::SYS_openat,
            libc::SYS_kill,
            libc::SYS_linkat,
            libc::SYS_symlinkat,
            libc::SYS_mknodat,
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_io_uring_setup,
            libc::SYS_bpf,
        ] {
            assert!(!ALLOWED.iter().any(|(allowed, _)| *allowed == number), "{number}");
        }
    }

    #[test]
    fn verification_notices_what_is_not_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let workspace: std::os::fd::OwnedFd = std::fs::File::open(dir.path()).unwrap().into();
        use std::os::fd::AsFd;
        let verify = |landlock_abi| verify(workspace.as_fd(), landlock_abi);
        assert_eq!(verify(1), Err(ConfineError::NotInForce("reading the root directory")));
        assert_eq!(verify(0), Err(ConfineError::NotInForce("making a socket")));
    }

    #[test]
    fn rights_are_handled_from_the_first_abi_on() {
        let handled = AccessFs::from_all(ABI::V3);
        assert!(handled.contains(rights(true)) && !rights(true).contains(AccessFs::Execute));
        assert!(!rights(false).contains(AccessFs::MakeSym));
    }
}
