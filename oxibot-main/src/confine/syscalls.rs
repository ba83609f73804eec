//! Which system calls main keeps: a list of refused ones, each with who would want it.
//!
//! A deny-list, because main links a runtime, TLS, SQLite and whatever the C library needs next year; what must not
//! happen is written down and tried in tests. Unknown numbers and foreign architectures are refused before the list is
//! looked at, because a deny-list would let them pass.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use super::{ConfineError, Network, Plan};

/// First number no kernel had when this list was written (6.18: 469 is `file_setattr`). Also refuses the whole x32
/// range, whose numbers start at 2^30 and would walk past a list of plain ones.
const UNKNOWN: u32 = 470;

/// Refused whatever the arguments.
const REFUSED: &[(i64, &str)] = &[
    // Starting programs: main starts none, so neither does whoever takes it over.
    (libc::SYS_execve, "execve"),
    (libc::SYS_execveat, "execveat"),
    // Reading or steering other processes of this user: browsers, ssh-agent, editors.
    (libc::SYS_ptrace, "ptrace"),
    (libc::SYS_process_vm_readv, "process_vm_readv"),
    (libc::SYS_process_vm_writev, "process_vm_writev"),
    (libc::SYS_process_madvise, "process_madvise"),
    (libc::SYS_kcmp, "kcmp"),
    (libc::SYS_pidfd_open, "pidfd_open"),
    (libc::SYS_pidfd_getfd, "pidfd_getfd"),
    (libc::SYS_pidfd_send_signal, "pidfd_send_signal"),
    (libc::SYS_tkill, "tkill"),
    (libc::SYS_rt_sigqueueinfo, "rt_sigqueueinfo"),
    (libc::SYS_rt_tgsigqueueinfo, "rt_tgsigqueueinfo"),
    // Another view of the file system, in which the rules might not hold.
    (libc::SYS_mount, "mount"),
    (libc::SYS_umount2, "umount2"),
    (libc::SYS_pivot_root, "pivot_root"),
    (libc::SYS_chroot, "chroot"),
    (libc::SYS_open_tree, "open_tree"),
    (libc::SYS_move_mount, "move_mount"),
    (libc::SYS_fsopen, "fsopen"),
    (libc::SYS_fsconfig, "fsconfig"),
    (libc::SYS_fsmount, "fsmount"),
    (libc::SYS_fspick, "fspick"),
    (libc::SYS_mount_setattr, "mount_setattr"),
    (libc::SYS_open_by_handle_at, "open_by_handle_at"),
    (libc::SYS_name_to_handle_at, "name_to_handle_at"),
    (libc::SYS_quotactl, "quotactl"),
    (libc::SYS_quotactl_fd, "quotactl_fd"),
    (libc::SYS_swapon, "swapon"),
    (libc::SYS_swapoff, "swapoff"),
    // Namespaces: root inside one reaches kernel code nobody else does.
    (libc::SYS_unshare, "unshare"),
    (libc::SYS_setns, "setns"),
    // Kernel surface nothing of ours uses and exploits like.
    (libc::SYS_bpf, "bpf"),
    (libc::SYS_userfaultfd, "userfaultfd"),
    (libc::SYS_perf_event_open, "perf_event_open"),
    // Submits opens and connects that no filter sees.
    (libc::SYS_io_uring_setup, "io_uring_setup"),
    (libc::SYS_io_uring_enter, "io_uring_enter"),
    (libc::SYS_io_uring_register, "io_uring_register"),
    // The session keyring is shared with every process of the login.
    (libc::SYS_add_key, "add_key"),
    (libc::SYS_request_key, "request_key"),
    (libc::SYS_keyctl, "keyctl"),
    // The machine itself; refused to root as well, which main may be.
    (libc::SYS_kexec_load, "kexec_load"),
    (libc::SYS_kexec_file_load, "kexec_file_load"),
    (libc::SYS_init_module, "init_module"),
    (libc::SYS_finit_module, "finit_module"),
    (libc::SYS_delete_module, "delete_module"),
    (libc::SYS_reboot, "reboot"),
    (libc::SYS_settimeofday, "settimeofday"),
    (libc::SYS_clock_settime, "clock_settime"),
    (libc::SYS_adjtimex, "adjtimex"),
    (libc::SYS_clock_adjtime, "clock_adjtime"),
    (libc::SYS_sethostname, "sethostname"),
    (libc::SYS_setdomainname, "setdomainname"),
    (libc::SYS_syslog, "syslog"),
    (libc::SYS_acct, "acct"),
    (libc::SYS_personality, "personality"),
    // What was given up stays given up.
    (libc::SYS_setuid, "setuid"),
    (libc::SYS_setgid, "setgid"),
    (libc::SYS_setreuid, "setreuid"),
    (libc::SYS_setregid, "setregid"),
    (libc::SYS_setresuid, "setresuid"),
    (libc::SYS_setresgid, "setresgid"),
    (libc::SYS_setfsuid, "setfsuid"),
    (libc::SYS_setfsgid, "setfsgid"),
    (libc::SYS_setgroups, "setgroups"),
];

/// Old ways to make a process; they exist on this architecture only.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[(i64, &str)] = &[
    (libc::SYS_fork, "fork"),
    (libc::SYS_vfork, "vfork"),
    (libc::SYS_iopl, "iopl"),
    (libc::SYS_ioperm, "ioperm"),
    (libc::SYS_modify_ldt, "modify_ldt"),
    (libc::SYS_uselib, "uselib"),
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[(i64, &str)] = &[];

/// Namespaces a `clone` may ask for (a time namespace it cannot).
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Puts the filter into force. `false` when this kernel has no seccomp.
pub(super) fn restrict(plan: &Plan) -> Result<bool, ConfineError> {
    let program = program(plan)?;
    match seccompiler::apply_filter(&program) {
        Ok(()) => Ok(true),
        Err(seccompiler::Error::Seccomp(error) | seccompiler::Error::Prctl(error))
            if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) =>
        {
            Ok(false)
        }
        Err(error) => Err(ConfineError::Step { step: "filter system calls", cause: error.to_string() }),
    }
}

pub(super) fn program(plan: &Plan) -> Result<BpfProgram, ConfineError> {
    let step = "make the filter of system calls";
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(ConfineError::step(step))?;
    let eperm = SeccompAction::Errno(u32::try_from(libc::EPERM).unwrap_or(1));
    let filter = SeccompFilter::new(rules(plan)?, SeccompAction::Allow, eperm, arch)
        .map_err(ConfineError::step(step))?;
    let mut program = prefix();
    let compiled: BpfProgram = filter.try_into().map_err(ConfineError::step(step))?;
    program.extend(compiled);
    Ok(program)
}

/// Comes first: unknown numbers, and `clone3`, whose flags lie behind a pointer that no filter can follow, do not exist
/// here. The C library then falls back to `clone`. What follows begins with the check of the architecture.
fn prefix() -> BpfProgram {
    let statement = |code: u32, k: u32| sock_filter { code: code16(code), jt: 0, jf: 0, k };
    let jump = |code: u32, k: u32, jt: u8, jf: u8| sock_filter { code: code16(code), jt, jf, k };
    let clone3 = u32::try_from(libc::SYS_clone3).unwrap_or(u32::MAX);
    let enosys = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::ENOSYS).unwrap_or(38);
    vec![
        // Offset 0 of the data is the number of the call.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        jump(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, UNKNOWN, 1, 0),
        jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, clone3, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, enosys),
    ]
}

fn code16(code: u32) -> u16 {
    u16::try_from(code).unwrap_or(u16::MAX)
}

fn rules(plan: &Plan) -> Result<BTreeMap<i64, Vec<SeccompRule>>, ConfineError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (number, _name) in REFUSED.iter().chain(REFUSED_HERE) {
        // An empty list of conditions refuses always.
        rules.insert(*number, Vec::new());
    }
    // A process that is no thread of ours, or a namespace.
    let mut clone = vec![rule(&[masked(0, libc::CLONE_THREAD, 0)?])?];
    for namespace in NAMESPACES {
        clone.push(rule(&[masked(0, namespace, namespace)?])?);
    }
    rules.insert(libc::SYS_clone, clone);
    // Signals: to ourselves, and to the toolhost if it does not end.
    let own = u64::from(std::process::id());
    let mut elsewhere = vec![differs(0, own)?];
    rules.insert(libc::SYS_tgkill, vec![rule(&elsewhere)?]);
    if let Some(toolhost) = plan.toolhost {
        elsewhere.push(differs(0, u64::from(toolhost))?);
    }
    rules.insert(libc::SYS_kill, vec![rule(&elsewhere)?]);
    rules.insert(libc::SYS_socket, sockets(plan.network)?);
    // Pairs are for the runtime's own wake-ups. A pair of datagram sockets could be connected anew, to a path.
    // The kernel takes a raw Unix socket for a datagram one.
    rules.insert(
        libc::SYS_socketpair,
        vec![rule(&[masked(1, 0xf, libc::SOCK_DGRAM)?])?, rule(&[masked(1, 0xf, libc::SOCK_RAW)?])?],
    );
    // Typing into the terminal on behalf of the person, and pasting there.
    rules.insert(
        libc::SYS_ioctl,
        vec![rule(&[equals(1, libc::TIOCSTI)?])?, rule(&[equals(1, libc::TIOCLINUX)?])?],
    );
    Ok(rules)
}

/// IPv4 and IPv6, and the routing questions the resolver asks. No Unix sockets: Landlock below ABI 9 does not stop a
/// connect to one, and behind one may be a container engine or a key agent.
fn sockets(network: Network) -> Result<Vec<SeccompRule>, ConfineError> {
    match network {
        Network::None => Ok(Vec::new()),
        Network::Connect => Ok(vec![
            rule(&[
                differs(0, flags(libc::AF_INET))?,
                differs(0, flags(libc::AF_INET6))?,
                differs(0, flags(libc::AF_NETLINK))?,
            ])?,
            rule(&[equals(0, flags(libc::AF_NETLINK))?, differs(2, flags(libc::NETLINK_ROUTE))?])?,
        ]),
    }
}

fn rule(conditions: &[SeccompCondition]) -> Result<SeccompRule, ConfineError> {
    SeccompRule::new(conditions.to_vec()).map_err(ConfineError::step("make a rule for system calls"))
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, ConfineError> {
    // 32 bits: the kernel takes these arguments as int, and the upper half is whatever a register held.
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
        .map_err(ConfineError::step("make a rule for system calls"))
}

fn differs(argument: u8, value: u64) -> Result<SeccompCondition, ConfineError> {
    condition(argument, SeccompCmpOp::Ne, value)
}

fn equals(argument: u8, value: u64) -> Result<SeccompCondition, ConfineError> {
    condition(argument, SeccompCmpOp::Eq, value)
}

fn masked(argument: u8, mask: i32, value: i32) -> Result<SeccompCondition, ConfineError> {
    condition(argument, SeccompCmpOp::MaskedEq(flags(mask)), flags(value))
}

fn flags(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

#[cfg(test)]
pub(super) fn refused_names() -> impl Iterator<Item = (i64, &'static str)> {
    REFUSED.iter().chain(REFUSED_HERE).copied()
}
