//! Which system calls no call may make.
//!
//! Deny-lists, compiled by seccompiler and prefixed by hand with what it cannot say: a foreign architecture ends the
//! process, numbers newer than this list (x32's among them) answer ENOSYS, and so does `clone3`, whose flags lie in memory
//! where no filter can look. The big filter is installed once by the zygote and inherited for free; the small one holds
//! what an init still needs. A number absent from these tables is allowed: Landlock, namespaces and empty capability
//! sets are behind them.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use super::fault::{Step, fault};
use super::orders::Plan;
use crate::wire::WallFault;

/// Newest system call this list was made for: `file_setattr` of Linux 6.17. Later ones answer ENOSYS, as on a kernel
/// that does not have them, and programs fall back.
const LAST_KNOWN: u32 = 469;

/// Refused whatever their arguments, from the zygote on.
const REFUSED: &[c_long] = &[
    // Kernel code and kernel images.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_bpf,
    // Rings do input and output that no filter sees.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Keyrings belong to no namespace; CVE-2024-42318 undid Landlock through one.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Looking into other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_kcmp,
    libc::SYS_perf_event_open,
    // Stopping the kernel in the middle of a copy: the usual tool of exploits.
    libc::SYS_userfaultfd,
    // Files by handle instead of by path walk around every view.
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    // Namespaces and roots. Inits use clone and mount only, see `INIT_ONLY`.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_umount2,
    // The machine.
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
    // Placement of memory of others, and memory the kernel cannot look into.
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_memfd_secret,
    // statmount, listmount, open_tree_attr: by number, libc does not have them everywhere.
    457,
    458,
    467,
];

/// As [`REFUSED`], where the architecture has them.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[c_long] = &[
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    // 16-bit segments: a playground of exploits, needed by Wine at most.
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
    libc::SYS_lookup_dcookie,
];
/// As [`REFUSED`], where the architecture has them.
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[c_long] = &[libc::SYS_kexec_file_load];

/// What an init still needs and a payload must not have: mounting.
const INIT_ONLY: &[c_long] =
    &[libc::SYS_mount, libc::SYS_open_tree, libc::SYS_move_mount, libc::SYS_mount_setattr];

/// `CLONE_NEW*` as `clone` takes them.
const NAMESPACE_FLAGS: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Socket families a call with a network namespace of its own may use. AF_VSOCK is not namespaced and reaches the
/// hypervisor; AF_ALG, AF_PACKET and the rest are attack surface no tool needs.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Transports on which Landlock's TCP rules do not look.
const PROTOCOLS: [libc::c_int; 4] =
    [libc::IPPROTO_MPTCP, libc::IPPROTO_SCTP, libc::IPPROTO_DCCP, libc::IPPROTO_UDPLITE];

/// `PER_LINUX` and `ADDR_NO_RANDOMIZE`: what `setarch -R` and debuggers ask for; all ones asks which is set.
const PERSONALITIES: [u32; 3] = [0, 0x0004_0000, 0xffff_ffff];

/// The old way to a packet socket, deprecated in libc and still in the kernel.
const SOCK_PACKET: libc::c_int = 10;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn condition(argument: u8, operator: SeccompCmpOp, value: u32) -> Result<SeccompCondition, WallFault> {
    // Always the low 32 bits: the kernel ignores the rest of these arguments (CVE-2019-10063).
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, u64::from(value))
        .step("make a seccomp rule")
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, WallFault> {
    SeccompRule::new(conditions).step("make a seccomp rule")
}

fn equals(argument: u8, value: libc::c_int) -> Result<SeccompRule, WallFault> {
    rule(vec![condition(argument, SeccompCmpOp::Eq, value.cast_unsigned())?])
}

fn has_bits(argument: u8, bits: u32) -> Result<SeccompRule, WallFault> {
    rule(vec![condition(argument, SeccompCmpOp::MaskedEq(u64::from(bits)), bits)?])
}

fn none_of(argument: u8, values: &[u32]) -> Result<SeccompRule, WallFault> {
    rule(
        values
            .iter()
            .map(|value| condition(argument, SeccompCmpOp::Ne, *value))
            .collect::<Result<Vec<_>, _>>()?,
    )
}

/// Refused for particular arguments.
fn by_argument(rules: &mut Rules) -> Result<(), WallFault> {
    // Typing into a terminal one does not own.
    let ioctls = [libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCSETD];
    let ioctls = ioctls.map(|request| request as u32);
    rules.insert(
        libc::SYS_ioctl,
        ioctls
            .iter()
            .map(|request| rule(vec![condition(1, SeccompCmpOp::Eq, *request)?]))
            .collect::<Result<_, _>>()?,
    );
    // A listener would answer for the system calls of others.
    let listener = u32::try_from(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER).unwrap_or(8);
    rules.insert(libc::SYS_seccomp, vec![has_bits(1, listener)?]);
    rules.insert(libc::SYS_personality, vec![none_of(0, &PERSONALITIES)?]);
    rules.insert(libc::SYS_prctl, vec![equals(0, libc::PR_SET_MM)?]);
    // Device nodes; files, pipes and sockets stay possible.
    for (call, argument) in MAKE_NODE {
        let kinds = [libc::S_IFCHR, libc::S_IFBLK];
        rules.insert(
            *call,
            kinds
                .iter()
                .map(|kind| {
                    rule(vec![condition(*argument, SeccompCmpOp::MaskedEq(u64::from(libc::S_IFMT)), *kind)?])
                })
                .collect::<Result<_, _>>()?,
        );
    }
    Ok(())
}

#[cfg(target_arch = "x86_64")]
const MAKE_NODE: &[(c_long, u8)] = &[(libc::SYS_mknod, 1), (libc::SYS_mknodat, 2)];
#[cfg(not(target_arch = "x86_64"))]
const MAKE_NODE: &[(c_long, u8)] = &[(libc::SYS_mknodat, 2)];

/// Sockets with a network namespace: local families only, nothing raw.
fn namespaced_sockets(rules: &mut Rules) -> Result<(), WallFault> {
    let families = FAMILIES.map(libc::c_int::cast_unsigned);
    let mut sockets = vec![none_of(0, &families)?];
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = family.cast_unsigned();
        for kind in [libc::SOCK_RAW, SOCK_PACKET] {
            sockets.push(rule(vec![
                condition(0, SeccompCmpOp::Eq, family)?,
                condition(1, SeccompCmpOp::MaskedEq(0xf), kind.cast_unsigned())?,
            ])?);
        }
        for protocol in PROTOCOLS {
            sockets.push(rule(vec![
                condition(0, SeccompCmpOp::Eq, family)?,
                condition(2, SeccompCmpOp::Eq, protocol.cast_unsigned())?,
            ])?);
        }
    }
    // NETLINK_ROUTE (0) lists interfaces; the other protocols configure or observe the kernel.
    sockets.push(rule(vec![
        condition(0, SeccompCmpOp::Eq, libc::AF_NETLINK.cast_unsigned())?,
        condition(2, SeccompCmpOp::Ne, 0)?,
    ])?);
    rules.insert(libc::SYS_socket, sockets);
    rules.insert(libc::SYS_socketpair, vec![none_of(0, &[libc::AF_UNIX.cast_unsigned()])?]);
    Ok(())
}

/// The big filter, installed by the zygote and inherited by everything below it.
pub(super) fn zygote_filter() -> Result<BpfProgram, WallFault> {
    let mut rules: Rules = REFUSED.iter().chain(REFUSED_HERE).map(|call| (*call, vec![])).collect();
    by_argument(&mut rules)?;
    set_id_files(&mut rules)?;
    namespaced_sockets(&mut rules)?;
    compile(rules, &[libc::SYS_clone3])
}

/// Ways to signal a process by number, and to get the handle to signal it by. The number is always the first argument.
const SIGNALLING: [c_long; 6] = [
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
];

/// Making files with an owner's rights: `(call, flags argument, mode argument)`. With id-mapped mounts a call's files
/// are root's on disk, so a set-user-ID program it leaves there would be anybody's way to root. `openat2` has its mode
/// in memory and answers ENOSYS in a payload, see [`prefix`].
const MAKING: &[(c_long, Option<u8>, u8)] = &[
    (libc::SYS_fchmod, None, 1),
    (libc::SYS_fchmodat, None, 2),
    // fchmodat2: by number, libc does not have it everywhere.
    (452, None, 2),
    (libc::SYS_mkdirat, None, 2),
    (libc::SYS_mknodat, None, 2),
    (libc::SYS_openat, Some(2), 3),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, None, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, None, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, None, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, None, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, Some(1), 2),
];

fn set_id_files(rules: &mut Rules) -> Result<(), WallFault> {
    // O_TMPFILE makes a file too; the bit that is its own, without O_DIRECTORY.
    let making = [libc::O_CREAT, libc::O_TMPFILE & !libc::O_DIRECTORY].map(libc::c_int::cast_unsigned);
    for (call, flags, mode) in MAKING {
        for bit in [libc::S_ISUID, libc::S_ISGID] {
            let bit = condition(*mode, SeccompCmpOp::MaskedEq(u64::from(bit)), bit)?;
            let list = rules.entry(*call).or_default();
            match flags {
                None => list.push(rule(vec![bit])?),
                // Without a flag that makes a file the mode is not looked at, and may be anything.
                Some(flags) => {
                    for flag in making {
                        let flag = condition(*flags, SeccompCmpOp::MaskedEq(u64::from(flag)), flag)?;
                        list.push(rule(vec![flag, bit.clone()])?);
                    }
                }
            }
        }
    }
    Ok(())
}

/// Calls whose first argument names another process, if it is not 0, or a whole class of them: at `kernel` nothing else
/// keeps a call from limiting, slowing or ending what belongs to the same user. Landlock's scope is for signals only.
const OTHERS: [c_long; 5] = [
    libc::SYS_prlimit64,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
];

/// System V objects belong to the user, not to the call, where there is no IPC namespace.
const SYSTEM_V: [c_long; 11] = [
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
];

fn without_namespaces(rules: &mut Rules) -> Result<(), WallFault> {
    for call in OTHERS {
        rules.insert(call, vec![none_of(0, &[0])?]);
    }
    // `which` 0 (a process) and `who` 0 (ourselves); 1 and 0 for ioprio_set.
    for (call, which) in [(libc::SYS_setpriority, 0), (libc::SYS_ioprio_set, 1)] {
        rules.insert(call, vec![none_of(0, &[which])?, none_of(1, &[0])?]);
    }
    rules.extend(SYSTEM_V.map(|call| (call, vec![])));
    // No socket at all: Landlock below ABI 9 stops neither UDP nor the connection to a path, and TCP Fast Open goes
    // around its rule for connect. Of pairs only connected kinds: one end of a datagram pair could be sent anywhere.
    rules.insert(libc::SYS_socket, vec![]);
    let connected = [libc::SOCK_STREAM, libc::SOCK_SEQPACKET].map(libc::c_int::cast_unsigned);
    let other = (0..=0xf_u32).filter(|kind| !connected.contains(kind));
    rules.insert(
        libc::SYS_socketpair,
        other
            .map(|kind| rule(vec![condition(1, SeccompCmpOp::MaskedEq(0xf), kind)?]))
            .collect::<Result<_, _>>()?,
    );
    Ok(())
}

/// Init is of the same user: a call that limits its memory would have it die, and that is reported as a fault of ours.
fn nothing_aimed_at_init(rules: &mut Rules) -> Result<(), WallFault> {
    const INIT: i32 = 1;
    for call in OTHERS {
        rules.insert(call, vec![equals(0, INIT)?]);
    }
    // `which` is a process, or everybody of this user, where `who` may be 0 for ourselves; other numbers for ioprio_set.
    for (call, process, user) in [(libc::SYS_setpriority, 0, 2), (libc::SYS_ioprio_set, 1, 3)] {
        let init = vec![condition(0, SeccompCmpOp::Eq, process)?, condition(1, SeccompCmpOp::Eq, 1)?];
        rules.insert(call, vec![rule(init)?, equals(0, user)?]);
    }
    Ok(())
}

/// The small filter, installed by each payload after its last mount. `above`: processes and process groups a call
/// without a PID namespace must not signal. From Landlock ABI 6 on its scope covers them and everybody else; before it,
/// this keeps a call from ending whoever ends it.
pub(super) fn payload_filter(plan: Plan, above: &Above) -> Result<BpfProgram, WallFault> {
    let mut rules: Rules = INIT_ONLY.iter().map(|call| (*call, vec![])).collect();
    rules.insert(
        libc::SYS_clone,
        NAMESPACE_FLAGS.iter().map(|flag| has_bits(0, flag.cast_unsigned())).collect::<Result<_, _>>()?,
    );
    match plan {
        Plan::Full => nothing_aimed_at_init(&mut rules)?,
        Plan::Bare | Plan::Off => {
            without_namespaces(&mut rules)?;
            for call in SIGNALLING {
                rules.insert(call, above.rules(call)?);
            }
        }
    }
    compile(rules, &[libc::SYS_clone3, libc::SYS_openat2])
}

/// The processes above a call, and their process groups.
#[derive(Debug, Clone, Default)]
pub(super) struct Above {
    pub(super) processes: Vec<i32>,
    pub(super) groups: Vec<i32>,
}

impl Above {
    fn rules(&self, call: c_long) -> Result<Vec<SeccompRule>, WallFault> {
        // -1 is everybody this user may signal; only `kill` takes it, and groups.
        let everybody = (call == libc::SYS_kill).then_some(-1);
        let groups =
            self.groups.iter().filter(|_| call == libc::SYS_kill).map(|group| group.saturating_neg());
        self.processes
            .iter()
            .copied()
            .chain(groups)
            .chain(everybody)
            .map(|number| equals(0, number))
            .collect()
    }
}

fn compile(rules: Rules, absent: &[c_long]) -> Result<BpfProgram, WallFault> {
    let step = "compile the seccomp filter";
    let arch = TargetArch::try_from(std::env::consts::ARCH).step(step)?;
    let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, arch).step(step)?;
    let compiled: BpfProgram = filter.try_into().step(step)?;
    if compiled.is_empty() {
        return Err(fault(step, "it came out empty"));
    }
    let mut program = prefix(absent)?;
    program.extend(compiled);
    Ok(program)
}

/// Architecture, unknown numbers, and calls that answer ENOSYS so that programs fall back to ones a filter can look into:
/// what comes before the rules. Jumps are relative, so the compiled part needs no change.
fn prefix(absent: &[c_long]) -> Result<BpfProgram, WallFault> {
    const LOAD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_GREATER: u16 = 0x25;
    const RETURN: u16 = 0x06;
    // struct seccomp_data: the number at offset 0, the architecture at 4.
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    #[cfg(target_arch = "x86_64")]
    const NATIVE: u32 = 0xc000_003e;
    #[cfg(target_arch = "aarch64")]
    const NATIVE: u32 = 0xc000_00b7;
    let not_here = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let all = u8::try_from(absent.len()).step("compile the seccomp filter")?;
    let mut program = vec![
        step(LOAD, 0, 0, ARCHITECTURE),
        step(JUMP_EQUAL, 1, 0, NATIVE),
        step(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        step(LOAD, 0, 0, NUMBER),
        // Over the comparisons, onto their common answer.
        step(JUMP_GREATER, all, 0, LAST_KNOWN),
    ];
    for (left, number) in (0..all).rev().zip(absent) {
        let number = u32::try_from(*number).step("compile the seccomp filter")?;
        program.push(step(JUMP_EQUAL, left, u8::from(left == 0), number));
    }
    program.push(step(RETURN, 0, 0, not_here));
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    #[cfg(target_arch = "x86_64")]
    const HERE: u32 = 0xc000_003e;
    #[cfg(target_arch = "aarch64")]
    const HERE: u32 = 0xc000_00b7;

    /// Runs a program as the kernel would; only the instructions seccompiler and the prefix use.
    fn answer(program: &[sock_filter], architecture: u32, number: c_long, arguments: [u64; 6]) -> u32 {
        let mut data = vec![u32::try_from(number).unwrap(), architecture, 0, 0];
        for argument in arguments {
            data.push(u32::try_from(argument & 0xffff_ffff).unwrap());
            data.push(u32::try_from(argument >> 32).unwrap());
        }
        let (mut accumulator, mut at) = (0_u32, 0_usize);
        loop {
            let step = &program[at];
            at += 1;
            let mut branch = |taken: bool| at += usize::from(if taken { step.jt } else { step.jf });
            match step.code {
                0x20 => accumulator = data[usize::try_from(step.k).unwrap() / 4],
                0x54 => accumulator &= step.k,
                0x05 => at += usize::try_from(step.k).unwrap(),
                0x15 => branch(accumulator == step.k),
                0x25 => branch(accumulator > step.k),
                0x35 => branch(accumulator >= step.k),
                0x06 => return step.k,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    fn refused() -> u32 {
        libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned()
    }

    fn not_here() -> u32 {
        libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned()
    }

    #[test]
    fn every_number_is_answered_as_the_tables_say() {
        let zygote = zygote_filter().unwrap();
        let payload = payload_filter(Plan::Full, &Above::default()).unwrap();
        assert!(zygote.len() < 1000 && payload.len() < 200, "{} {}", zygote.len(), payload.len());
        for number in 0..600 {
            let never = REFUSED.contains(&number) || REFUSED_HERE.contains(&number);
            let expected = |by_table: bool| {
                if number > c_long::from(LAST_KNOWN) || number == libc::SYS_clone3 {
                    not_here()
                } else if by_table {
                    refused()
                } else {
                    ALLOW
                }
            };
            if !matches!(number, libc::SYS_socket | libc::SYS_socketpair) {
                assert_eq!(answer(&zygote, HERE, number, [0; 6]), expected(never), "{number}");
            }
            if number != libc::SYS_openat2 {
                assert_eq!(
                    answer(&payload, HERE, number, [0; 6]),
                    expected(INIT_ONLY.contains(&number)),
                    "{number}"
                );
            }
            assert_eq!(answer(&zygote, 0x4000_0003, number, [0; 6]), KILL, "{number} by the 32-bit entry");
            assert_eq!(answer(&zygote, HERE, number | 0x4000_0000, [0; 6]), not_here(), "{number} of x32");
        }
    }

    #[test]
    fn arguments_decide_where_they_should() {
        let zygote = zygote_filter().unwrap();
        let payload = payload_filter(Plan::Full, &Above::default()).unwrap();
        let family = |family: libc::c_int, kind: libc::c_int, protocol: libc::c_int| {
            let number = |value: libc::c_int| u64::from(value.cast_unsigned());
            answer(&zygote, HERE, libc::SYS_socket, [number(family), number(kind), number(protocol), 0, 0, 0])
        };
        for (allowed, kind) in [
            (libc::AF_UNIX, libc::SOCK_STREAM),
            (libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC),
            (libc::AF_INET6, libc::SOCK_DGRAM),
            (libc::AF_NETLINK, libc::SOCK_RAW),
        ] {
            assert_eq!(family(allowed, kind, 0), ALLOW, "{allowed}");
        }
        for other in (0..46).filter(|family| !FAMILIES.contains(family)) {
            assert_eq!(family(other, libc::SOCK_STREAM, 0), refused(), "{other}");
        }
        assert_eq!(family(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 1), refused());
        for protocol in PROTOCOLS {
            assert_eq!(family(libc::AF_INET6, libc::SOCK_STREAM, protocol), refused(), "{protocol}");
        }
        assert_eq!(family(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT), refused());
        // The high half of a 32-bit argument is ignored by the kernel, so it must be by the filter.
        let typing = [0, u64::from(0x5412_u32) | 1 << 32, 0, 0, 0, 0];
        assert_eq!(answer(&zygote, HERE, libc::SYS_ioctl, typing), refused());
        assert_eq!(answer(&zygote, HERE, libc::SYS_ioctl, [0, 0x5401, 0, 0, 0, 0]), ALLOW);
        for flag in NAMESPACE_FLAGS {
            let flags = u64::from(flag.cast_unsigned()) | 17;
            assert_eq!(answer(&payload, HERE, libc::SYS_clone, [flags, 0, 0, 0, 0, 0]), refused());
        }
        let thread =
            libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
        let thread = u64::from(thread.cast_unsigned());
        assert_eq!(answer(&payload, HERE, libc::SYS_clone, [thread, 0, 0, 0, 0, 0]), ALLOW);
        for kind in [libc::S_IFCHR, libc::S_IFBLK] {
            let mode = u64::from(kind | 0o666);
            assert_eq!(answer(&zygote, HERE, libc::SYS_mknodat, [0, 0, mode, 0, 0, 0]), refused());
        }
        let pipe = u64::from(libc::S_IFIFO | 0o666);
        assert_eq!(answer(&zygote, HERE, libc::SYS_mknodat, [0, 0, pipe, 0, 0, 0]), ALLOW);
    }

    #[test]
    fn without_a_network_namespace_only_socket_pairs_are_left() {
        let payload = payload_filter(Plan::Bare, &Above::default()).unwrap();
        for family in 0..46 {
            assert_eq!(answer(&payload, HERE, libc::SYS_socket, [family, 1, 0, 0, 0, 0]), refused());
        }
        let zygote = zygote_filter().unwrap();
        assert_eq!(answer(&zygote, HERE, libc::SYS_socketpair, [1, 1, 0, 0, 0, 0]), ALLOW);
        assert_eq!(answer(&zygote, HERE, libc::SYS_socketpair, [40, 1, 0, 0, 0, 0]), refused());
    }

    #[test]
    fn processes_above_a_call_without_a_pid_namespace_cannot_be_signalled() {
        let above = Above { processes: vec![4711], groups: vec![4700] };
        let bare = payload_filter(Plan::Bare, &above).unwrap();
        let number = |value: i32| u64::from(value.cast_unsigned());
        for call in SIGNALLING {
            let first = |value: i32| answer(&bare, HERE, call, [number(value), 9, 0, 0, 0, 0]);
            assert_ne!(first(4711), ALLOW, "{call}");
            assert_eq!(first(4712), ALLOW, "{call}");
        }
        let kill = |value: i32| answer(&bare, HERE, libc::SYS_kill, [number(value), 9, 0, 0, 0, 0]);
        assert_ne!(kill(-4700), ALLOW, "its group");
        assert_ne!(kill(-1), ALLOW, "everybody");
        assert_eq!(kill(0), ALLOW, "the call's own group");
        let full = payload_filter(Plan::Full, &above).unwrap();
        assert_eq!(
            answer(&full, HERE, libc::SYS_kill, [number(-1), 9, 0, 0, 0, 0]),
            ALLOW,
            "a namespace of its own"
        );
    }

    #[test]
    fn no_call_makes_a_set_id_file() {
        let zygote = zygote_filter().unwrap();
        let payload = payload_filter(Plan::Full, &Above::default()).unwrap();
        for (call, flags, mode) in MAKING {
            for bits in [0o4755, 0o2755, 0o6000] {
                let mut arguments = [0; 6];
                arguments[usize::from(*mode)] = bits;
                if let Some(flags) = flags {
                    assert_eq!(answer(&zygote, HERE, *call, arguments), ALLOW, "{call} makes nothing");
                    arguments[usize::from(*flags)] = u64::from(libc::O_CREAT.cast_unsigned());
                }
                assert_eq!(answer(&zygote, HERE, *call, arguments), refused(), "{call} {bits:o}");
                arguments[usize::from(*mode)] = 0o1755;
                assert_eq!(answer(&zygote, HERE, *call, arguments), ALLOW, "{call}");
            }
        }
        let absent = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
        assert_eq!(answer(&payload, HERE, libc::SYS_openat2, [0; 6]), absent);
        assert_eq!(answer(&payload, HERE, libc::SYS_clone3, [0; 6]), absent);
        assert_eq!(answer(&payload, HERE, 470, [0; 6]), absent);
        assert_eq!(answer(&zygote_filter().unwrap(), HERE, libc::SYS_openat2, [0; 6]), ALLOW);
    }

    #[test]
    fn without_namespaces_other_processes_and_shared_objects_are_out_of_reach() {
        let bare = payload_filter(Plan::Bare, &Above::default()).unwrap();
        for call in OTHERS {
            assert_eq!(answer(&bare, HERE, call, [0, 0, 0, 0, 0, 0]), ALLOW, "{call}: ourselves");
            assert_eq!(answer(&bare, HERE, call, [4711, 0, 0, 0, 0, 0]), refused(), "{call}");
        }
        assert_eq!(answer(&bare, HERE, libc::SYS_setpriority, [0, 0, 5, 0, 0, 0]), ALLOW);
        assert_eq!(answer(&bare, HERE, libc::SYS_setpriority, [0, 4711, 5, 0, 0, 0]), refused());
        assert_eq!(answer(&bare, HERE, libc::SYS_setpriority, [2, 0, 5, 0, 0, 0]), refused());
        assert_eq!(answer(&bare, HERE, libc::SYS_shmget, [0; 6]), refused());
        for (kind, verdict) in [(1, ALLOW), (5, ALLOW), (2, refused()), (3, refused()), (0x80002, refused())]
        {
            assert_eq!(answer(&bare, HERE, libc::SYS_socketpair, [1, kind, 0, 0, 0, 0]), verdict, "{kind}");
        }
    }
}
