//! System calls without a safe wrapper. The only file of the workspace that may say unsafe.
//!
//! Each function is one call, checks its result and owns what it returns. Policy lives elsewhere: nothing here knows
//! what a workspace, a level or a tool is. Everything that nix, landlock, seccompiler or caps offer is used from there.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::unistd::Pid;

/// Most descriptors one message may carry. Prevents a peer from filling our descriptor table with one send.
pub const MAX_DESCRIPTORS: usize = 4;

/// Which side of [`clone_process`] this is.
#[derive(Debug)]
pub enum Cloned {
    /// The new process.
    Child,
    /// The process that called.
    Parent {
        /// Process id in the caller's namespace.
        pid: Pid,
        /// Handle of the child; readable once it ended.
        pidfd: OwnedFd,
    },
}

/// Forks, with namespaces of its own for the child where `flags` (`CLONE_NEW*`) asks for them.
///
/// The plain `clone` call is used, not `clone3`: it exists everywhere, also below filters that answer `clone3` with
/// ENOSYS. Callers are single-threaded (each role is its own program), so the child may allocate.
///
/// # Errors
/// What the kernel answers; EPERM when namespaces are refused.
pub fn clone_process(flags: libc::c_int) -> nix::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let flags = libc::c_long::from(flags | libc::CLONE_PIDFD | libc::SIGCHLD);
    // SAFETY: no CLONE_VM, so the child has its own copy of all memory and a null stack means "go on with mine";
    // `pidfd` is a valid place for one descriptor, which is what CLONE_PIDFD stores in the parent's memory. Argument
    // order (flags, stack, parent_tid, ...) is the same on x86_64, aarch64 and riscv64 for the first three.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, &raw mut pidfd, 0_usize, 0_usize) };
    match Errno::result(pid)? {
        0 => Ok(Cloned::Child),
        pid => {
            Ok(Cloned::Parent { pid: Pid::from_raw(i32::try_from(pid).unwrap_or(-1)), pidfd: adopt(pidfd)? })
        }
    }
}

/// Takes ownership of a descriptor the kernel has just made for us.
fn adopt(raw: RawFd) -> nix::Result<OwnedFd> {
    if raw < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: `raw` was returned by the kernel a moment ago, is open, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Sends a signal to the process behind a pidfd. Never hits another process, even if the pid was reused.
///
/// # Errors
/// ESRCH when it has ended, EPERM when we may not.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> nix::Result<()> {
    // SAFETY: the descriptor is borrowed for the call; a null siginfo and zero flags are the documented defaults.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal as libc::c_int, 0_usize, 0_u32)
    };
    Errno::result(result).map(drop)
}

/// A handle of a process. Race-free only for an own child that was not yet waited for.
///
/// # Errors
/// ESRCH when there is none.
pub fn pidfd_open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: integer arguments only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0_u32) };
    adopt(RawFd::try_from(Errno::result(fd)?).unwrap_or(-1))
}

fn set_disposition(signal: Signal, handler: SigHandler) -> nix::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: only SIG_DFL and SIG_IGN are passed, so no code of ours runs in a signal handler.
    unsafe { sigaction(signal, &action) }.map(drop)
}

/// Lets the kernel reap ended children. Whoever wants to know of their end holds a pidfd.
///
/// # Errors
/// None known.
pub fn ignore_ended_children() -> nix::Result<()> {
    set_disposition(Signal::SIGCHLD, SigHandler::SigIgn)
}

/// Undoes what a parent may have left to us: where ended children are ignored, nobody can be waited for.
///
/// # Errors
/// None known.
pub fn keep_ended_children() -> nix::Result<()> {
    set_disposition(Signal::SIGCHLD, SigHandler::SigDfl)
}

/// Every signal as a new program expects it: default action, nothing blocked. The Rust runtime ignores SIGPIPE, and
/// ignored signals survive exec.
///
/// # Errors
/// None known.
pub fn default_signals() -> nix::Result<()> {
    for signal in Signal::iterator() {
        if !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            set_disposition(signal, SigHandler::SigDfl)?;
        }
    }
    SigSet::empty().thread_set_mask()
}

/// Marks every descriptor from `first` on close-on-exec.
///
/// # Errors
/// ENOSYS before Linux 5.11.
pub fn close_on_exec_from(first: u32) -> nix::Result<()> {
    // SAFETY: close_range with CLOEXEC closes nothing now, so no owned descriptor becomes invalid.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(result).map(drop)
}

/// Unmaps the pages of our own program that hold code and constants. The kernel keeps them in its cache and maps those
/// that are used again, some tens of microseconds for all that a call needs; what only a start needed is not mapped any
/// more. For processes that are about to wait.
pub fn unmap_own_code() {
    // SAFETY: the callback matches the declared type, keeps no pointer, and the data argument is unused.
    unsafe { libc::dl_iterate_phdr(Some(unmap_segments), std::ptr::null_mut()) };
    // SAFETY: gives the kernel back only pages that the allocator has free.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Called for each loaded object, our own program first; ends the iteration after that.
extern "C" fn unmap_segments(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    /// The smallest there is. Where pages are larger the kernel refuses a range that begins inside of one, and rounds the
    /// end up to where the mapping's own last page ends: nothing else is ever reached.
    const PAGE: u64 = 4096;
    // SAFETY: the loader passes a valid description that lives as long as this call.
    let object = unsafe { &*object };
    // SAFETY: it describes this many program headers, mapped for as long as the program runs.
    let headers = unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD) {
        // What was ever written to, relocated pointers included, lies in writable segments.
        if header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let begin = (object.dlpi_addr + header.p_vaddr).next_multiple_of(PAGE);
        let end = (object.dlpi_addr + header.p_vaddr + header.p_memsz) / PAGE * PAGE;
        let Ok(length) = usize::try_from(end.saturating_sub(begin)) else { continue };
        // SAFETY: a private mapping of a file that nothing ever wrote to: its pages are read from the file again. Should
        // the kernel refuse, nothing was lost.
        unsafe { libc::madvise(begin as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
    1
}

/// A close-on-exec copy of a descriptor with a number of at least 10, out of the way of fixed numbers.
///
/// # Errors
/// EMFILE.
pub fn out_of_the_way(fd: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    // SAFETY: duplicates a descriptor that is borrowed, hence open; nothing is closed.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 10) };
    adopt(Errno::result(copy)?)
}

/// Makes descriptor 3 a copy of `from` that survives exec. For the last lines before an exec: whatever was at 3 is closed.
///
/// # Errors
/// EBADF, EMFILE.
pub fn place_at_three(from: BorrowedFd<'_>) -> nix::Result<()> {
    if from.as_raw_fd() == 3 {
        // SAFETY: clears the close-on-exec flag of a descriptor that is borrowed, hence open.
        let result = unsafe { libc::fcntl(3, libc::F_SETFD, 0) };
        return Errno::result(result).map(drop);
    }
    // SAFETY: `from` is open; 3 is not used by any owner after this, because exec or exit follows.
    let result = unsafe { libc::dup2(from.as_raw_fd(), 3) };
    Errno::result(result).map(drop)
}

/// Closes a descriptor whose owner stays behind in another process. Only between a fork and an end of process or
/// exec, where no destructor of the owner will run.
pub fn close_in_child(fd: BorrowedFd<'_>) {
    // SAFETY: the caller is a forked child that never drops or uses the owner again.
    let _ = unsafe { libc::close(fd.as_raw_fd()) };
}

/// Makes a detached copy of the mount at `from` with everything mounted below it.
///
/// # Errors
/// What the kernel answers.
pub fn open_tree_clone(from: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | (libc::AT_EMPTY_PATH | libc::AT_RECURSIVE).cast_unsigned();
    // SAFETY: the path is a valid empty string and the descriptor is borrowed for the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, from.as_raw_fd(), c"".as_ptr(), flags) };
    adopt(RawFd::try_from(Errno::result(fd)?).unwrap_or(-1))
}

/// Attaches a detached mount on top of what `onto` refers to. By descriptor only: a path could be swapped.
///
/// # Errors
/// What the kernel answers.
pub fn move_mount(tree: BorrowedFd<'_>, onto: BorrowedFd<'_>) -> nix::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x04;
    const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
    // SAFETY: both paths are valid empty strings and both descriptors are borrowed for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            onto.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    Errno::result(result).map(drop)
}

/// Whether [`set_mount`] reaches mounts below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Only this mount.
    This,
    /// This mount and all below it.
    Below,
}

/// Sets mount attributes (`MOUNT_ATTR_*`); with a user namespace, maps owners through it (id-mapped mount).
///
/// # Errors
/// EINVAL for a file system that cannot be id-mapped.
pub fn set_mount(
    tree: BorrowedFd<'_>,
    attributes: u64,
    mapping: Option<BorrowedFd<'_>>,
    reach: Reach,
) -> nix::Result<()> {
    let set = attributes | mapping.map_or(0, |_| libc::MOUNT_ATTR_IDMAP);
    let userns = mapping.map_or(0, |fd| u64::try_from(fd.as_raw_fd()).unwrap_or(0));
    let attr = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: userns };
    let flags = libc::AT_EMPTY_PATH
        | match reach {
            Reach::This => 0,
            Reach::Below => libc::AT_RECURSIVE,
        };
    // SAFETY: the path is a valid empty string, `attr` outlives the call and its size is passed with it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop)
}

/// Landlock ABI of the running kernel, 0 for none. The crate keeps its own probe private.
#[must_use]
pub fn landlock_abi() -> u32 {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: with a null attribute of size 0 and the version flag the kernel only returns a number.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, 0_usize, 0_usize, LANDLOCK_CREATE_RULESET_VERSION)
    };
    u32::try_from(version).unwrap_or(0)
}

/// Removes one capability, by number, from the bounding set. `Ok(false)`: the kernel does not know that number.
///
/// # Errors
/// EPERM without CAP_SETPCAP.
pub fn drop_bounding(capability: u32) -> nix::Result<bool> {
    // SAFETY: prctl with integer arguments only.
    let result = unsafe {
        libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0_usize, 0_usize, 0_usize)
    };
    match Errno::result(result) {
        Ok(_) => Ok(true),
        Err(Errno::EINVAL) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether a capability, by number, is in the bounding set. Numbers the kernel does not know are not.
#[must_use]
pub fn has_bounding(capability: u32) -> bool {
    // SAFETY: prctl with integer arguments only.
    let result = unsafe {
        libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(capability), 0_usize, 0_usize, 0_usize)
    };
    result == 1
}

/// Sets the securebits of this process.
///
/// # Errors
/// EPERM without CAP_SETPCAP.
pub fn set_securebits(bits: libc::c_ulong) -> nix::Result<()> {
    // SAFETY: prctl with integer arguments only.
    let result = unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits, 0_usize, 0_usize, 0_usize) };
    Errno::result(result).map(drop)
}

/// Seccomp mode of this process: 2 when a filter is in force.
#[must_use]
pub fn seccomp_mode() -> i32 {
    // SAFETY: prctl with integer arguments only. In strict mode it would kill us; nothing here uses strict mode.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0_usize, 0_usize, 0_usize, 0_usize) }
}

/// Installs a seccomp filter on this thread. Returns the errno of the kernel unchanged.
///
/// # Errors
/// EINVAL without filter support or for a bad program, EACCES without no_new_privs.
pub fn install_filter(program: &[seccompiler::sock_filter]) -> nix::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    if length == 0 {
        return Err(Errno::EINVAL);
    }
    // The kernel's sock_fprog; seccompiler's own installer sets no_new_privs as a side effect and hides the errno.
    let program =
        libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast::<libc::sock_filter>() };
    // SAFETY: `program` points to `length` filters of the kernel's layout (both types are repr(C) with the same
    // four fields), which the kernel copies before it returns.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0_u32, &raw const program) };
    Errno::result(result).map(drop)
}

/// Installs a seccomp filter on this thread and returns the listener for the calls it notifies of. Signals that do not
/// kill cannot interrupt a call that is being answered, where the kernel knows that (Linux 5.19).
///
/// # Errors
/// EBUSY where a filter of this thread has a listener already; else as [`install_filter`].
pub fn install_filter_with_listener(program: &[seccompiler::sock_filter]) -> nix::Result<OwnedFd> {
    const NEW_LISTENER: u32 = 1 << 3;
    const WAIT_KILLABLE_RECV: u32 = 1 << 5;
    let length = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    if length == 0 {
        return Err(Errno::EINVAL);
    }
    let program =
        libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast::<libc::sock_filter>() };
    let install = |flags: u32| {
        // SAFETY: `program` points to `length` filters of the kernel's layout (both types are repr(C) with the same
        // four fields), which the kernel copies before it returns.
        let result = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
        };
        Errno::result(result)
    };
    let listener = match install(NEW_LISTENER | WAIT_KILLABLE_RECV) {
        Err(Errno::EINVAL) => install(NEW_LISTENER)?,
        other => other?,
    };
    // A filter above us may answer 0 without doing anything; standard input is not ours to own.
    match RawFd::try_from(listener) {
        Ok(listener) if listener > 2 => adopt(listener),
        Ok(_) | Err(_) => Err(Errno::EBADF),
    }
}

/// A system call that a filter notified of. It waits for [`answer_refused`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Names it in the answer.
    pub id: u64,
    /// `AUDIT_ARCH_*`.
    pub architecture: u32,
    /// Its number.
    pub number: u32,
    /// Its arguments, as they were in registers. What pointers among them point to can change at any time.
    pub arguments: [u64; 6],
}

// SECCOMP_IOCTL_NOTIF_*: direction, size, '!' and number, as _IOC packs them.
const NOTIF_RECV: libc::c_ulong =
    3 << 30 | (size_of::<libc::seccomp_notif>() as libc::c_ulong) << 16 | 0x21 << 8;
const NOTIF_SEND: libc::c_ulong =
    3 << 30 | (size_of::<libc::seccomp_notif_resp>() as libc::c_ulong) << 16 | 0x21 << 8 | 1;
const NOTIF_SET_FLAGS: libc::c_ulong = 1 << 30 | (size_of::<u64>() as libc::c_ulong) << 16 | 0x21 << 8 | 4;

/// Takes the next call that a listener was notified of. Blocks when none waits: poll first.
///
/// # Errors
/// ENOENT when the caller was killed meanwhile.
pub fn next_refused(listener: BorrowedFd<'_>) -> nix::Result<Refused> {
    // The kernel wants it zeroed.
    let mut notice = libc::seccomp_notif {
        id: 0,
        pid: 0,
        flags: 0,
        data: libc::seccomp_data { nr: 0, arch: 0, instruction_pointer: 0, args: [0; 6] },
    };
    // SAFETY: the request's number carries the size of `notice`, which outlives the call and which the kernel fills.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_RECV as _, &raw mut notice) };
    Errno::result(result)?;
    Ok(Refused {
        id: notice.id,
        architecture: notice.data.arch,
        number: notice.data.nr.cast_unsigned(),
        arguments: notice.data.args,
    })
}

/// Answers a call with an errno. There is no way to let one through: `SECCOMP_USER_NOTIF_FLAG_CONTINUE` is not offered.
///
/// # Errors
/// ENOENT when the caller was killed meanwhile.
pub fn answer_refused(listener: BorrowedFd<'_>, id: u64, errno: i32) -> nix::Result<()> {
    let answer = libc::seccomp_notif_resp { id, val: 0, error: errno.max(1).saturating_neg(), flags: 0 };
    // SAFETY: the request's number carries the size of `answer`, which outlives the call and which the kernel reads.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SEND as _, &raw const answer) };
    Errno::result(result).map(drop)
}

/// Has the kernel wake listener and caller on the same processor, each waiting for the other.
///
/// # Errors
/// EINVAL before Linux 6.6.
pub fn wake_at_once(listener: BorrowedFd<'_>) -> nix::Result<()> {
    const SYNC_WAKE_UP: u64 = 1;
    // SAFETY: the argument of this request is the flags themselves, not a pointer.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SET_FLAGS as _, SYNC_WAKE_UP) };
    Errno::result(result).map(drop)
}

/// System calls tried on purpose, with arguments that do nothing, to see which errno comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// `clone3(NULL, 0)`: EINVAL from the kernel, ENOSYS from our filter.
    Clone3,
    /// `keyctl(-1)`: EOPNOTSUPP from the kernel, EPERM from our filter.
    Keyctl,
    /// `move_mount` with impossible flags: EINVAL from the kernel, EPERM from our filter.
    MoveMount,
    /// `fchmod(-1, 04000)`: EBADF from the kernel, EPERM from our filter, by its argument.
    SetId,
    /// `seccomp` with a listener and no program: EFAULT from the kernel, EPERM from a payload's filter.
    SecondListener,
}

/// Runs a [`Probe`] and returns its errno; `Errno::UnknownErrno` if it succeeded.
#[must_use]
pub fn probe(probe: Probe) -> Errno {
    let result = match probe {
        // SAFETY: a null clone_args of size 0 is refused before it is read.
        Probe::Clone3 => unsafe { libc::syscall(libc::SYS_clone3, 0_usize, 0_usize) },
        // SAFETY: -1 is no keyctl operation; no pointer is passed.
        Probe::Keyctl => unsafe {
            libc::syscall(libc::SYS_keyctl, -1_i64, 0_usize, 0_usize, 0_usize, 0_usize)
        },
        // SAFETY: the flags are refused before the null pointers are read.
        Probe::MoveMount => unsafe {
            libc::syscall(libc::SYS_move_mount, -1_i64, 0_usize, -1_i64, 0_usize, u32::MAX)
        },
        // SAFETY: integer arguments only.
        Probe::SetId => unsafe { libc::syscall(libc::SYS_fchmod, -1_i64, libc::S_ISUID) },
        // SAFETY: the kernel refuses the null program before it does anything.
        Probe::SecondListener => unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 8_u32, 0_usize)
        },
    };
    Errno::result(result).err().unwrap_or(Errno::UnknownErrno)
}

/// A system call that an attacker would make, with arguments that harm nothing should it be let through: null pointers,
/// descriptor -1, impossible flags. What matters is whether the wall answers or the kernel proper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the calls are")]
pub enum Attempt {
    Mount,
    Umount,
    PivotRoot,
    Chroot,
    Fsopen,
    OpenTree,
    MoveMount,
    MountSetattr,
    Setns,
    UnshareUser,
    CloneUser,
    Clone3,
    Ptrace,
    ProcessVmReadv,
    PidfdGetfd,
    Kcmp,
    Keyctl,
    AddKey,
    IoUringSetup,
    Bpf,
    PerfEventOpen,
    Userfaultfd,
    OpenByHandleAt,
    FanotifyInit,
    FinitModule,
    KexecLoad,
    Reboot,
    Swapon,
    Syslog,
    SeccompListener,
    ReadImpliesExec,
    TypeIntoTerminal,
    PasteIntoTerminal,
    DeviceNode,
    DiskNode,
    Fsconfig,
    Fsmount,
    Fspick,
    Statmount,
    OpenTreeAttr,
    ProcessVmWritev,
    ProcessMadvise,
    ProcessMrelease,
    RequestKey,
    IoUringEnter,
    IoUringRegister,
    FanotifyMark,
    InitModule,
    DeleteModule,
    Swapoff,
    Acct,
    Quotactl,
    Settimeofday,
    ClockSettime,
    ClockAdjtime,
    Sethostname,
    Setdomainname,
    MovePages,
    MigratePages,
    MemfdSecret,
    RemapOwnMemory,
    /// x86_64 only, elsewhere ENOSYS.
    KexecFileLoad,
    /// x86_64 only, elsewhere ENOSYS.
    Iopl,
    /// x86_64 only, elsewhere ENOSYS.
    Ioperm,
    /// x86_64 only, elsewhere ENOSYS.
    ModifyLdt,
    /// Its limits, read and written with nothing.
    LimitsOf(i32),
    /// Its processors, with an empty set.
    ProcessorsOf(i32),
    /// Its priority, set to what it is.
    PriorityOf(i32),
    /// Its place in the queue of the disk, set to the default.
    DiskPriorityOf(i32),
    /// Signal 0 to its main thread.
    ThreadOf(i32),
    /// Signal 0 to whoever may be signalled.
    Everybody,
    /// A System V segment, attached for reading.
    Segment(i32),
    /// Locked securebits, opened again.
    UnlockSecurebits,
    /// An empty list of groups.
    Setgroups,
    /// Another user.
    Setresuid,
    /// Family, type, protocol.
    Socket(i32, i32, i32),
    /// `getpid` by its x32 number.
    X32,
}

/// What an attempt to make a device node makes in the working directory, should it succeed.
pub const NODE: &str = ".oxibot-attack-node";
const NODE_NAME: &CStr = c".oxibot-attack-node";

/// Numbers of system calls that only x86_64 has; `-1` answers ENOSYS.
#[cfg(target_arch = "x86_64")]
const OF_X86: [libc::c_long; 4] =
    [libc::SYS_kexec_file_load, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const OF_X86: [libc::c_long; 4] = [-1; 4];

/// Makes an [`Attempt`]. `Ok` means the call went through.
///
/// # Errors
/// The errno, from the wall or from the kernel proper.
pub fn attempt(attempt: Attempt) -> nix::Result<()> {
    const X32_BIT: libc::c_long = 0x4000_0000;
    const READ_IMPLIES_EXEC: libc::c_long = 0x0040_0000;
    /// CMD_SIZE_BUFFER of syslog(2): reads nothing.
    const SIZE_OF_LOG: libc::c_long = 10;
    /// By number: libc does not have them everywhere.
    const STATMOUNT: libc::c_long = 457;
    const OPEN_TREE_ATTR: libc::c_long = 467;
    const SOMEBODY: libc::c_long = 12_345;
    let null_device = libc::c_long::try_from(libc::makedev(1, 3)).unwrap_or(0x103);
    let node = libc::c_long::from(libc::S_IFCHR | 0o600);
    let here = libc::c_long::from(libc::AT_FDCWD);
    let user = libc::c_long::from(libc::CLONE_NEWUSER);
    let child = libc::c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
    let disk = libc::c_long::from(libc::S_IFBLK | 0o600);
    let ram = libc::c_long::try_from(libc::makedev(1, 0)).unwrap_or(0x100);
    let name = NODE_NAME.as_ptr() as libc::c_long;
    let [kexec_file_load, iopl, ioperm, modify_ldt] = OF_X86;
    let (number, a, b, c, d): (libc::c_long, libc::c_long, libc::c_long, libc::c_long, libc::c_long) =
        match attempt {
            Attempt::Mount => (libc::SYS_mount, 0, 0, 0, 0),
            Attempt::Umount => (libc::SYS_umount2, 0, 0, 0, 0),
            Attempt::PivotRoot => (libc::SYS_pivot_root, 0, 0, 0, 0),
            Attempt::Chroot => (libc::SYS_chroot, 0, 0, 0, 0),
            Attempt::Fsopen => (libc::SYS_fsopen, 0, 0, 0, 0),
            Attempt::OpenTree => (libc::SYS_open_tree, -1, 0, -1, 0),
            Attempt::MoveMount => (libc::SYS_move_mount, -1, 0, -1, 0),
            Attempt::MountSetattr => (libc::SYS_mount_setattr, -1, 0, 0, 0),
            Attempt::Setns => (libc::SYS_setns, -1, 0, 0, 0),
            Attempt::UnshareUser => (libc::SYS_unshare, user, 0, 0, 0),
            Attempt::CloneUser => (libc::SYS_clone, child, 0, 0, 0),
            Attempt::Clone3 => (libc::SYS_clone3, 0, 0, 0, 0),
            Attempt::Ptrace => (libc::SYS_ptrace, 0, 0, 0, 0),
            Attempt::ProcessVmReadv => (libc::SYS_process_vm_readv, 1, 0, 0, 0),
            Attempt::PidfdGetfd => (libc::SYS_pidfd_getfd, -1, -1, 0, 0),
            Attempt::Kcmp => (libc::SYS_kcmp, 0, 0, -1, 0),
            Attempt::Keyctl => (libc::SYS_keyctl, -1, 0, 0, 0),
            Attempt::AddKey => (libc::SYS_add_key, 0, 0, 0, 0),
            Attempt::IoUringSetup => (libc::SYS_io_uring_setup, 1, 0, 0, 0),
            Attempt::Bpf => (libc::SYS_bpf, -1, 0, 0, 0),
            Attempt::PerfEventOpen => (libc::SYS_perf_event_open, 0, 0, -1, -1),
            Attempt::Userfaultfd => (libc::SYS_userfaultfd, -1, 0, 0, 0),
            Attempt::OpenByHandleAt => (libc::SYS_open_by_handle_at, -1, 0, 0, 0),
            Attempt::FanotifyInit => (libc::SYS_fanotify_init, -1, 0, 0, 0),
            Attempt::FinitModule => (libc::SYS_finit_module, -1, 0, 0, 0),
            Attempt::KexecLoad => (libc::SYS_kexec_load, 0, 0, 0, 0xffff),
            Attempt::Reboot => (libc::SYS_reboot, 0, 0, 0, 0),
            Attempt::Swapon => (libc::SYS_swapon, 0, 0, 0, 0),
            Attempt::Syslog => (libc::SYS_syslog, SIZE_OF_LOG, 0, 0, 0),
            Attempt::SeccompListener => (libc::SYS_seccomp, 1, 8, 0, 0),
            Attempt::ReadImpliesExec => (libc::SYS_personality, READ_IMPLIES_EXEC, 0, 0, 0),
            Attempt::TypeIntoTerminal => (libc::SYS_ioctl, 0, libc::TIOCSTI as libc::c_long, 0, 0),
            Attempt::PasteIntoTerminal => (libc::SYS_ioctl, 0, libc::TIOCLINUX as libc::c_long, 0, 0),
            Attempt::DeviceNode => (libc::SYS_mknodat, here, name, node, null_device),
            Attempt::DiskNode => (libc::SYS_mknodat, here, name, disk, ram),
            Attempt::Fsconfig => (libc::SYS_fsconfig, -1, -1, 0, 0),
            Attempt::Fsmount => (libc::SYS_fsmount, -1, -1, 0, 0),
            Attempt::Fspick => (libc::SYS_fspick, -1, 0, -1, 0),
            Attempt::Statmount => (STATMOUNT, 0, 0, 0, -1),
            Attempt::OpenTreeAttr => (OPEN_TREE_ATTR, -1, 0, -1, 0),
            Attempt::ProcessVmWritev => (libc::SYS_process_vm_writev, 1, 0, 0, 0),
            Attempt::ProcessMadvise => (libc::SYS_process_madvise, -1, 0, 0, 0),
            Attempt::ProcessMrelease => (libc::SYS_process_mrelease, -1, 0, 0, 0),
            Attempt::RequestKey => (libc::SYS_request_key, 0, 0, 0, 0),
            Attempt::IoUringEnter => (libc::SYS_io_uring_enter, -1, 0, 0, 0),
            Attempt::IoUringRegister => (libc::SYS_io_uring_register, -1, 0, 0, 0),
            Attempt::FanotifyMark => (libc::SYS_fanotify_mark, -1, 0, 0, 0),
            Attempt::InitModule => (libc::SYS_init_module, 0, 0, 0, 0),
            Attempt::DeleteModule => (libc::SYS_delete_module, 0, 0, 0, 0),
            Attempt::Swapoff => (libc::SYS_swapoff, 0, 0, 0, 0),
            // Not null, which would switch accounting off.
            Attempt::Acct => (libc::SYS_acct, -1, 0, 0, 0),
            Attempt::Quotactl => (libc::SYS_quotactl, -1, 0, 0, 0),
            Attempt::Settimeofday => (libc::SYS_settimeofday, 0, 0, 0, 0),
            Attempt::ClockSettime => (libc::SYS_clock_settime, 0, 0, 0, 0),
            Attempt::ClockAdjtime => (libc::SYS_clock_adjtime, 0, 0, 0, 0),
            Attempt::Sethostname => (libc::SYS_sethostname, 0, -1, 0, 0),
            Attempt::Setdomainname => (libc::SYS_setdomainname, 0, -1, 0, 0),
            Attempt::MovePages => (libc::SYS_move_pages, 0, 0, 0, 0),
            Attempt::MigratePages => (libc::SYS_migrate_pages, 0, 0, 0, 0),
            Attempt::MemfdSecret => (libc::SYS_memfd_secret, -1, 0, 0, 0),
            Attempt::RemapOwnMemory => (libc::SYS_prctl, libc::PR_SET_MM.into(), -1, 0, 1),
            Attempt::KexecFileLoad => (kexec_file_load, -1, -1, 0, 0),
            Attempt::Iopl => (iopl, 0, 0, 0, 0),
            Attempt::Ioperm => (ioperm, 0, 0, 0, 0),
            Attempt::ModifyLdt => (modify_ldt, -1, 0, 0, 0),
            Attempt::LimitsOf(pid) => (libc::SYS_prlimit64, pid.into(), 0, 0, 0),
            Attempt::ProcessorsOf(pid) => (libc::SYS_sched_setaffinity, pid.into(), 0, 0, 0),
            Attempt::PriorityOf(pid) => (libc::SYS_setpriority, 0, pid.into(), priority_of(pid)?, 0),
            Attempt::DiskPriorityOf(pid) => (libc::SYS_ioprio_set, 1, pid.into(), 0, 0),
            Attempt::ThreadOf(pid) => (libc::SYS_tgkill, pid.into(), pid.into(), 0, 0),
            Attempt::Everybody => (libc::SYS_kill, -1, 0, 0, 0),
            Attempt::Segment(id) => (libc::SYS_shmat, id.into(), 0, libc::SHM_RDONLY.into(), 0),
            Attempt::UnlockSecurebits => (libc::SYS_prctl, libc::PR_SET_SECUREBITS.into(), 0, 0, 0),
            Attempt::Setgroups => (libc::SYS_setgroups, 0, 0, 0, 0),
            Attempt::Setresuid => (libc::SYS_setresuid, SOMEBODY, SOMEBODY, SOMEBODY, 0),
            Attempt::Socket(family, kind, protocol) => {
                (libc::SYS_socket, family.into(), kind.into(), protocol.into(), 0)
            }
            Attempt::X32 => (libc::SYS_getpid | X32_BIT, 0, 0, 0, 0),
        };
    // SAFETY: no row of the table passes a pointer the kernel could write through: they are null, or the static name
    // that mknodat only reads. A clone without CLONE_VM copies this single-threaded process.
    let result = unsafe { libc::syscall(number, a, b, c, d, 0_usize) };
    if attempt == Attempt::CloneUser && result == 0 {
        exit_now(0);
    }
    Errno::result(result).map(drop)
}

/// What `setpriority` takes to change nothing.
fn priority_of(pid: i32) -> nix::Result<libc::c_long> {
    // SAFETY: integer arguments only.
    let raw = unsafe { libc::syscall(libc::SYS_getpriority, 0, pid) };
    // The kernel answers 20 minus the priority, so that an error can be told from one.
    Ok(libc::c_long::from(20).saturating_sub(Errno::result(raw)?))
}

/// A System V segment that anybody may attach, as a target. It is gone with the process, or when dropped.
#[derive(Debug)]
pub struct Segment {
    id: libc::c_int,
    mapped: std::ptr::NonNull<libc::c_void>,
}

impl Segment {
    /// Makes one, attaches it and marks it for removal: Linux lets others attach it as long as we do.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn new() -> nix::Result<Self> {
        // SAFETY: integer arguments only.
        let id = unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, libc::IPC_CREAT | 0o666) };
        let id = Errno::result(id)?;
        // SAFETY: a null address lets the kernel choose a free one; nothing ever reads or writes there.
        let mapped = unsafe { libc::shmat(id, std::ptr::null(), libc::SHM_RDONLY) };
        // SAFETY: IPC_RMID takes no pointer.
        let marked = unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
        // The kernel answers -1 for an error, which is no address.
        let mapped = if mapped.addr() == usize::MAX { None } else { std::ptr::NonNull::new(mapped) };
        let segment = Self { id, mapped: mapped.ok_or(Errno::ENOMEM)? };
        Errno::result(marked).map(|_| segment)
    }

    /// Its number in this IPC namespace.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.id
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: `mapped` is what shmat answered, and nothing refers into it.
        let _ = unsafe { libc::shmdt(self.mapped.as_ptr()) };
    }
}

/// Gives a file an extended attribute of the user's, as an attacker would mark it.
///
/// # Errors
/// What the kernel answers; ENOTSUP where the file system has none.
pub fn set_attribute(path: &CStr) -> nix::Result<()> {
    let (name, value) = (c"user.oxibot", b"x");
    // SAFETY: path and name are valid strings, and `value` is as long as is said.
    let result =
        unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result).map(drop)
}

/// `getpid` by the 32-bit entry of the kernel, with its own numbers that a 64-bit filter does not know.
#[cfg(target_arch = "x86_64")]
pub fn attempt_32_bit() -> i64 {
    let mut number: i64 = 20;
    // SAFETY: int 0x80 with getpid's 32-bit number takes no pointer; the kernel keeps all registers but rax and,
    // for a 64-bit caller, r8 to r11.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") number, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    number
}

/// Other architectures have no such second entry that is on by default.
#[cfg(not(target_arch = "x86_64"))]
pub fn attempt_32_bit() -> i64 {
    exit_now(128)
}

/// Empties the NIS domain name of the current UTS namespace.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN over the namespace.
pub fn clear_domain_name() -> nix::Result<()> {
    // SAFETY: no byte is read: the length is 0.
    Errno::result(unsafe { libc::setdomainname(c"".as_ptr(), 0) }).map(drop)
}

/// Brings up the loopback interface of the current network namespace.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN over the namespace.
pub fn loopback_up(socket: BorrowedFd<'_>) -> nix::Result<()> {
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(c"lo".to_bytes()) {
        *to = libc::c_char::try_from(*from).unwrap_or_default();
    }
    let request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: libc::c_short::try_from(libc::IFF_UP).unwrap_or(1),
        },
    };
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    Errno::result(result).map(drop)
}

/// Sends bytes, with descriptors beside the first of them. Returns how many bytes were taken.
///
/// # Errors
/// EPIPE when the peer is gone, EAGAIN when a send timeout ran out.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> nix::Result<usize> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)
}

/// Receives bytes and the descriptors beside them, which are close-on-exec and owned. 0 bytes: the peer is gone.
///
/// # Errors
/// EAGAIN when nothing is there and `flags` has MSG_DONTWAIT; EMSGSIZE when the peer sent more than
/// [`MAX_DESCRIPTORS`] at once.
pub fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: MsgFlags,
) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        flags | MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut descriptors = Vec::new();
    if let Ok(items) = message.cmsgs() {
        for item in items {
            if let ControlMessageOwned::ScmRights(received) = item {
                for raw in received {
                    descriptors.push(adopt(raw)?);
                }
            }
        }
    }
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    Ok((message.bytes, descriptors))
}

/// The next connection of a listening socket: close-on-exec, not blocking, owned.
///
/// # Errors
/// EAGAIN when there is none; others when it ended before it was taken.
pub fn accept(listener: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let flags = nix::sys::socket::SockFlag::SOCK_CLOEXEC | nix::sys::socket::SockFlag::SOCK_NONBLOCK;
    adopt(nix::sys::socket::accept4(listener.as_raw_fd(), flags)?)
}

/// Replaces this process by the program behind a descriptor.
///
/// # Errors
/// Returns only when it failed.
pub fn exec_descriptor(program: BorrowedFd<'_>, arguments: &[&CStr], environment: &[&CStr]) -> Errno {
    match nix::unistd::execveat(
        program.as_fd(),
        c"",
        arguments,
        environment,
        nix::fcntl::AtFlags::AT_EMPTY_PATH,
    ) {
        Err(errno) => errno,
    }
}

/// Ends this process at once: no destructors, no flushing of what was inherited from the parent at a fork.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit has no precondition and does not return.
    unsafe { libc::_exit(status) }
}

// --- files

/// Whether an extended attribute of an open file has exactly this value.
#[must_use]
pub fn attribute_is(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> bool {
    let mut found = [0_u8; 16];
    // SAFETY: `name` ends with NUL, and the kernel writes at most the given length into `found`.
    let length =
        unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), found.as_mut_ptr().cast(), found.len()) };
    usize::try_from(length).is_ok_and(|length| found.get(..length) == Some(value))
}

/// Takes over a descriptor this process was started with. `None` when it is not open.
///
/// Call it once for each number, before anything else could own it: nothing here can tell whether it was taken before.
#[must_use]
pub fn take_inherited(number: i32) -> Option<OwnedFd> {
    // SAFETY: F_GETFD takes no argument and changes nothing; any number is allowed.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 {
        return None;
    }
    // SAFETY: it is open, as was just found, and by the contract above nobody else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes every descriptor from `first` on. For the start of a process, before it owns any of them.
///
/// # Errors
/// The kernel's answer.
pub fn close_from(first: u32) -> nix::Result<()> {
    // SAFETY: the call takes three integers; by contract no `OwnedFd` of this process names a descriptor in the range.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    Errno::result(result).map(drop)
}

// --- facts

/// What the kernel knows of its own clock. Changes nothing and needs no privilege.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelClock {
    /// A time service keeps it right.
    pub synchronised: bool,
    /// Largest error, in microseconds.
    pub max_error_us: i64,
}

/// Asks the kernel about its clock.
///
/// # Errors
/// The kernel's answer; a seccomp filter of a container may refuse the call.
pub fn kernel_clock() -> nix::Result<KernelClock> {
    // SAFETY: the structure holds integers only, for which all bits zero is a value; `modes` zero means: read only.
    let mut clock: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live structure of the type the call fills, and is not kept.
    let state = unsafe { libc::adjtimex(&raw mut clock) };
    let state = Errno::result(state)?;
    let synchronised = state != libc::TIME_ERROR && clock.status & libc::STA_UNSYNC == 0;
    Ok(KernelClock { synchronised, max_error_us: clock.maxerror })
}

// --- tests

/// Any system call at all, for the test that executes every rule of the filter.
///
/// # Errors
/// What the filter or the kernel answers.
#[cfg(test)]
pub(crate) fn any_call(number: u32, arguments: [u64; 6]) -> nix::Result<i64> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: only in a child that the test made for this and that ends afterwards. The arguments are those of a reviewed
    // table: null and small numbers for pointers, so that the kernel reads and writes nothing of this process.
    let result = unsafe { libc::syscall(libc::c_long::from(number), a, b, c, d, e, f) };
    Errno::result(result)
}
