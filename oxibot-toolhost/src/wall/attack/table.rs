//! What is attacked: one line an attack, by class. How each is tried is in the files beside this one.
//!
//! `.first()` marks the battery that runs at every start: quick, without a trace in the workspace, and with at least one
//! of each protection. `.gap_…` names what a level without namespaces does not promise.

use nix::errno::Errno;

use super::{
    Attack, Bound, Gap, Op, Place, Target, Targets, Tried, answer::Answer, network, privilege, processes,
    resources,
};
use crate::sys::Attempt;

const REFUSED: &[Errno] = &[Errno::EPERM];
const UNKNOWN: &[Errno] = &[Errno::ENOSYS];
const SIGNALLED: &[Errno] = &[Errno::ESRCH, Errno::EPERM];
const OTHER_USER: &[Errno] = &[Errno::EPERM, Errno::EINVAL];

const SECCOMP: &str = "CONFIG_SECCOMP_FILTER";
const LANDLOCK: &str = "CONFIG_SECURITY_LANDLOCK";
const NAMESPACES: &str = "CONFIG_NAMESPACES, CONFIG_USER_NS";
const SCOPES: &str = "CONFIG_NAMESPACES, CONFIG_USER_NS or Landlock ABI 6";
const CAPABILITIES: &str = "capabilities(7), no_new_privs";
const LIMITS: &str = "setrlimit(2)";

const FILES_OF_OTHERS: &str = "attributes of the same user's files can be changed by path";
const METADATA: &str = "names and attributes of all paths can be seen";
const PROCESS_LIST: &str = "the list of processes can be seen";
const BOUNDING: &str = "an ordinary user cannot empty the bounding set; no_new_privs makes it meaningless";
const TRUNCATION: &str = "Landlock before ABI 3 does not know truncation by path";

const fn attack(
    id: &'static str,
    protection: &'static str,
    mechanism: &'static str,
    feature: &'static str,
    tried: Tried,
) -> Attack {
    Attack { id, protection, mechanism, feature, tried, gap: Gap::None, fixed: false }
}

impl Attack {
    /// Part of the battery of every start.
    const fn first(self) -> Self {
        Self { fixed: true, ..self }
    }

    const fn gap_without_namespaces(self, name: &'static str) -> Self {
        Self { gap: Gap::WithoutNamespaces(name), ..self }
    }

    const fn gap_before_abi(self, abi: u32, name: &'static str) -> Self {
        Self { gap: Gap::BeforeAbi(abi, name), ..self }
    }
}

const fn file(id: &'static str, op: Op, place: Place) -> Attack {
    attack(id, "landlock", "file view, Landlock", LANDLOCK, Tried::Path(op, place))
}

const fn at(id: &'static str, op: Op, path: &'static str) -> Attack {
    file(id, op, Place::At(path))
}

const fn planted(id: &'static str, op: Op, target: Target) -> Attack {
    file(id, op, Place::Of(target))
}

const fn process(id: &'static str, attack_it: fn(&Targets) -> Answer) -> Attack {
    attack(
        id,
        "pid-namespace",
        "PID namespace, Landlock scope",
        SCOPES,
        Tried::By(Target::Process.alone(), attack_it),
    )
}

const fn aimed(id: &'static str, call: fn(i32) -> Attempt) -> Attack {
    attack(id, "pid-namespace", "PID namespace, system call filter", NAMESPACES, Tried::Process(call))
}

const fn call(id: &'static str, attempt: Attempt) -> Attack {
    attack(id, "seccomp", "system call filter", SECCOMP, Tried::Call(attempt, REFUSED))
}

const fn socket(id: &'static str, family: i32, kind: i32, protocol: i32) -> Attack {
    call(id, Attempt::Socket(family, kind, protocol))
}

const fn net(id: &'static str, needs: &'static [Target], attack_it: fn(&Targets) -> Answer) -> Attack {
    attack(id, "network-namespace", "no way out, or no sockets", NAMESPACES, Tried::By(needs, attack_it))
}

const fn power(id: &'static str, mechanism: &'static str, tried: Tried) -> Attack {
    attack(id, "capabilities", mechanism, CAPABILITIES, tried)
}

const fn beyond(id: &'static str, bound: Bound) -> Attack {
    attack(id, "rlimits", "limits of the call", LIMITS, Tried::Beyond(bound))
}

/// All classes, in the order they are tried.
pub(super) const CLASSES: [&[Attack]; 7] =
    [FILES, PROCESSES, NETWORK, KERNEL, PRIVILEGE, RESOURCES, TOOLHOST];

const FILES: &[Attack] = &[
    at("read-shadow", Op::Read, "/etc/shadow").first(),
    at("list-root-home", Op::List, "/root").first(),
    at("list-var", Op::List, "/var/lib"),
    at("list-log", Op::List, "/var/log"),
    at("list-sys", Op::List, "/sys/kernel").first(),
    at("write-usr", Op::Write, "/usr/oxibot-attack").first(),
    at("write-etc", Op::Write, "/etc/oxibot-attack").first(),
    at("make-file-in-root", Op::Write, "/oxibot-attack"),
    at("write-core-pattern", Op::OpenToWrite, "/proc/sys/kernel/core_pattern").first(),
    at("write-sysrq", Op::OpenToWrite, "/proc/sysrq-trigger").first(),
    at("lower-own-oom-score", Op::OpenToWrite, "/proc/self/oom_score_adj"),
    at("read-kernel-memory", Op::Read, "/proc/kcore"),
    at("open-kernel-log", Op::Read, "/dev/kmsg").first(),
    at("open-memory", Op::OpenToWrite, "/dev/mem"),
    at("open-terminal-multiplexer", Op::OpenToWrite, "/dev/ptmx").first(),
    at("open-fuse", Op::OpenToWrite, "/dev/fuse"),
    at("make-cgroup", Op::MakeDirectory, "/sys/fs/cgroup/oxibot-attack"),
    at("read-init-root", Op::Read, "/proc/1/root/etc/shadow"),
    at("read-init-environment", Op::Read, "/proc/1/environ"),
    planted("read-planted-secret", Op::Read, Target::Secret).first(),
    planted("list-outside", Op::List, Target::Outside).first(),
    planted("write-outside", Op::OpenToWrite, Target::Secret).first(),
    planted("make-file-outside", Op::Write, Target::Unused).first(),
    planted("make-directory-outside", Op::MakeDirectory, Target::Unused),
    planted("make-pipe-outside", Op::MakePipe, Target::Unused),
    planted("make-link-outside", Op::MakeLink, Target::Unused),
    planted("make-socket-outside", Op::MakeSocket, Target::Unused),
    planted("truncate-outside", Op::Truncate, Target::Secret).gap_before_abi(3, TRUNCATION),
    planted("execute-outside", Op::Execute, Target::Program),
    planted("read-through-link", Op::ReadByLink, Target::Secret).first(),
    planted("write-through-link", Op::WriteByLink, Target::Unused),
    planted("read-through-proc-root", Op::ReadByRoot, Target::Secret).first(),
    planted("read-through-proc-cwd", Op::ReadByWorkingDirectory, Target::Secret).first(),
    planted("read-from-removed-directory", Op::ReadFromRemoved, Target::Secret).first(),
    planted("reopen-through-proc-fd", Op::ReadByHandle, Target::Secret).first(),
    planted("list-above-the-root", Op::ListAboveRoot, Target::Outside).first(),
    planted("stat-above-the-root", Op::StatAboveRoot, Target::Secret)
        .first()
        .gap_without_namespaces(METADATA),
    planted("hard-link-in", Op::HardLink, Target::Secret),
    planted("move-in", Op::MoveIn, Target::Secret),
    planted("move-out", Op::MoveOut, Target::Unused),
    planted("chmod-outside", Op::Chmod, Target::Program).gap_without_namespaces(FILES_OF_OTHERS),
    planted("chown-outside", Op::Chown, Target::Secret).gap_without_namespaces(FILES_OF_OTHERS),
    planted("touch-outside", Op::Touch, Target::Secret).gap_without_namespaces(FILES_OF_OTHERS),
    planted("mark-outside", Op::Mark, Target::Secret).gap_without_namespaces(FILES_OF_OTHERS),
    planted("stat-outside", Op::Stat, Target::Secret).gap_without_namespaces(METADATA),
    planted("watch-outside", Op::Watch, Target::Secret).gap_without_namespaces(METADATA),
    planted("read-other-workspace", Op::Read, Target::OtherWorkspace).first(),
    planted("remove-outside", Op::Remove, Target::Program),
];

const PROCESSES: &[Attack] = &[
    process("signal-supervisor", processes::signal).first(),
    aimed("signal-supervisor-thread", Attempt::ThreadOf).first(),
    attack(
        "signal-everybody",
        "pid-namespace",
        "PID namespace, system call filter",
        SCOPES,
        Tried::Call(Attempt::Everybody, SIGNALLED),
    )
    .first(),
    process("open-supervisor-handle", processes::handle).first(),
    aimed("limit-supervisor", Attempt::LimitsOf).first(),
    aimed("bind-supervisor-to-processors", Attempt::ProcessorsOf).first(),
    aimed("change-supervisor-priority", Attempt::PriorityOf),
    aimed("change-supervisor-disk-priority", Attempt::DiskPriorityOf),
    process("read-supervisor-environment", processes::environment).first(),
    process("walk-supervisor-root", processes::root).first(),
    process("walk-supervisor-cwd", processes::working_directory),
    process("name-supervisor-descriptors", processes::descriptors),
    process("read-supervisor-maps", processes::maps),
    process("write-supervisor-memory", processes::memory),
    process("change-supervisor-oom-score", processes::oom_score),
    process("read-supervisor-command-line", processes::command_line).gap_without_namespaces(PROCESS_LIST),
    attack(
        "read-other-environments",
        "pid-namespace",
        "PID namespace, Landlock",
        SCOPES,
        Tried::By(&[], processes::environments),
    ),
    call("ptrace", Attempt::Ptrace).first(),
    call("process-vm-readv", Attempt::ProcessVmReadv).first(),
    call("process-vm-writev", Attempt::ProcessVmWritev),
    call("pidfd-getfd", Attempt::PidfdGetfd).first(),
    call("process-madvise", Attempt::ProcessMadvise),
    call("process-mrelease", Attempt::ProcessMrelease),
    call("kcmp", Attempt::Kcmp),
    call("move-pages", Attempt::MovePages),
    call("migrate-pages", Attempt::MigratePages),
    attack(
        "attach-shared-memory",
        "ipc-namespace",
        "IPC namespace, system call filter",
        NAMESPACES,
        Tried::By(Target::Segment.alone(), processes::segment),
    )
    .first(),
];

const NETWORK: &[Attack] = &[
    net("connect-outside", &[], network::outside).first(),
    net("connect-outside-ipv6", &[], network::outside_6),
    net("send-datagram-outside", &[], network::datagram_outside).first(),
    net("connect-host-loopback", Target::Port.alone(), network::loopback).first(),
    net("fast-open-host-loopback", Target::Port.alone(), network::fast_open).first(),
    net("send-datagram-host-loopback", Target::DatagramPort.alone(), network::datagram_loopback).first(),
    attack(
        "connect-abstract-socket",
        "landlock-scopes",
        "network namespace, Landlock scope",
        SCOPES,
        Tried::By(Target::Abstract.alone(), network::abstract_stream),
    )
    .first(),
    attack(
        "send-abstract-datagram",
        "landlock-scopes",
        "network namespace, Landlock scope",
        SCOPES,
        Tried::By(Target::AbstractDatagram.alone(), network::abstract_datagram),
    ),
    attack(
        "connect-socket-outside",
        "mount-namespace",
        "file view, or no sockets",
        NAMESPACES,
        Tried::Path(Op::Connect, Place::Of(Target::Socket)),
    )
    .first(),
    attack(
        "send-datagram-to-socket-outside",
        "mount-namespace",
        "file view, or no sockets",
        NAMESPACES,
        Tried::Path(Op::SendDatagram, Place::Of(Target::DatagramSocket)),
    ),
    socket("socket-vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0).first(),
    socket("socket-packet", libc::AF_PACKET, libc::SOCK_RAW, 0).first(),
    socket("socket-alg", libc::AF_ALG, libc::SOCK_SEQPACKET, 0).first(),
    socket("socket-raw", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP).first(),
    socket("socket-raw-ipv6", libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6),
    socket("socket-mptcp", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP).first(),
    socket("socket-sctp", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
    socket("socket-udplite", libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
    socket("socket-netfilter", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER).first(),
    socket("socket-kernel-events", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT),
    socket("socket-audit", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT),
    socket("socket-bluetooth", libc::AF_BLUETOOTH, libc::SOCK_RAW, 1),
    socket("socket-can", libc::AF_CAN, libc::SOCK_RAW, 1),
    socket("socket-tipc", libc::AF_TIPC, libc::SOCK_STREAM, 0),
    socket("socket-rds", libc::AF_RDS, libc::SOCK_SEQPACKET, 0),
    socket("socket-key", libc::AF_KEY, libc::SOCK_RAW, 2),
    socket("socket-xdp", libc::AF_XDP, libc::SOCK_RAW, 0),
    // AF_SMC and AF_QIPCRTR, by number.
    socket("socket-smc", 43, libc::SOCK_STREAM, 0),
    socket("socket-qipcrtr", 42, libc::SOCK_DGRAM, 0),
];

const KERNEL: &[Attack] = &[
    call("mount", Attempt::Mount).first(),
    call("umount", Attempt::Umount),
    call("pivot-root", Attempt::PivotRoot),
    call("chroot", Attempt::Chroot).first(),
    call("fsopen", Attempt::Fsopen).first(),
    call("fsconfig", Attempt::Fsconfig),
    call("fsmount", Attempt::Fsmount),
    call("fspick", Attempt::Fspick),
    call("open-tree", Attempt::OpenTree).first(),
    call("open-tree-attr", Attempt::OpenTreeAttr),
    call("move-mount", Attempt::MoveMount),
    call("mount-setattr", Attempt::MountSetattr),
    call("statmount", Attempt::Statmount),
    call("setns", Attempt::Setns).first(),
    call("unshare-user", Attempt::UnshareUser).first(),
    call("clone-user", Attempt::CloneUser).first(),
    attack("clone3", "seccomp", "system call filter", SECCOMP, Tried::Call(Attempt::Clone3, UNKNOWN)).first(),
    call("keyctl", Attempt::Keyctl).first(),
    call("add-key", Attempt::AddKey),
    call("request-key", Attempt::RequestKey),
    call("io-uring-setup", Attempt::IoUringSetup).first(),
    call("io-uring-enter", Attempt::IoUringEnter),
    call("io-uring-register", Attempt::IoUringRegister),
    call("bpf", Attempt::Bpf).first(),
    call("perf-event-open", Attempt::PerfEventOpen),
    call("userfaultfd", Attempt::Userfaultfd).first(),
    call("open-by-handle", Attempt::OpenByHandleAt).first(),
    call("fanotify-init", Attempt::FanotifyInit),
    call("fanotify-mark", Attempt::FanotifyMark),
    call("load-module", Attempt::FinitModule).first(),
    call("load-module-from-memory", Attempt::InitModule),
    call("unload-module", Attempt::DeleteModule),
    call("kexec-load", Attempt::KexecLoad),
    call("kexec-file-load", Attempt::KexecFileLoad),
    call("reboot", Attempt::Reboot),
    call("swapon", Attempt::Swapon),
    call("swapoff", Attempt::Swapoff),
    call("accounting", Attempt::Acct),
    call("quota", Attempt::Quotactl),
    call("kernel-log", Attempt::Syslog).first(),
    call("set-time", Attempt::Settimeofday),
    call("set-clock", Attempt::ClockSettime),
    call("adjust-clock", Attempt::ClockAdjtime),
    call("set-host-name", Attempt::Sethostname),
    call("set-domain-name", Attempt::Setdomainname),
    call("secret-memory", Attempt::MemfdSecret),
    call("remap-own-memory", Attempt::RemapOwnMemory),
    call("port-access", Attempt::Iopl),
    call("port-permissions", Attempt::Ioperm),
    call("local-descriptor-table", Attempt::ModifyLdt),
    call("seccomp-listener", Attempt::SeccompListener),
    call("read-implies-exec", Attempt::ReadImpliesExec).first(),
    call("type-into-terminal", Attempt::TypeIntoTerminal).first(),
    call("paste-into-terminal", Attempt::PasteIntoTerminal),
    call("device-node", Attempt::DeviceNode).first(),
    call("disk-node", Attempt::DiskNode),
    attack("entry-32-bit", "seccomp", "architecture check", SECCOMP, Tried::By(&[], privilege::entry_32)),
    attack("entry-x32", "seccomp", "number check", SECCOMP, Tried::By(&[], privilege::entry_x32)).first(),
];

const PRIVILEGE: &[Attack] = &[
    power("keep-capabilities", "emptied sets", Tried::By(&[], privilege::capabilities)).first(),
    power("ask-for-capabilities", "emptied sets", Tried::By(&[], privilege::ask_for_capabilities)).first(),
    power("keep-bounding-set", "emptied bounding set", Tried::By(&[], privilege::bounding))
        .gap_without_namespaces(BOUNDING),
    power("unlock-securebits", "locked securebits", Tried::Call(Attempt::UnlockSecurebits, REFUSED)).first(),
    power("become-another-user", "emptied sets", Tried::Call(Attempt::Setresuid, OTHER_USER)),
    power("drop-groups", "emptied sets", Tried::Call(Attempt::Setgroups, REFUSED)),
    power("inherit-descriptors", "close-on-exec", Tried::By(&[], privilege::descriptors)).first(),
    attack(
        "gain-by-exec",
        "no-new-privs",
        "no_new_privs",
        CAPABILITIES,
        Tried::By(&[], privilege::new_privileges),
    )
    .first(),
    attack(
        "mark-set-user-id",
        "seccomp",
        "system call filter",
        SECCOMP,
        Tried::By(&[], privilege::set_user_id),
    )
    .first(),
    attack(
        "make-set-user-id",
        "seccomp",
        "system call filter",
        SECCOMP,
        Tried::By(&[], privilege::made_set_user_id),
    ),
];

const RESOURCES: &[Attack] = &[
    attack("raise-limits", "rlimits", "hard limits", LIMITS, Tried::By(&[], resources::raise_limits)).first(),
    attack("dump-core", "rlimits", "hard limits", LIMITS, Tried::By(&[], resources::dump_core)),
    beyond("too-many-processes", Bound::Processes),
    beyond("too-many-files", Bound::OpenFiles),
    beyond("too-large-file", Bound::FileSize),
    beyond("too-much-memory", Bound::Memory),
    attack(
        "fill-tmp",
        "private-tmp",
        "size of a file system",
        NAMESPACES,
        Tried::By(Target::TmpMb.alone(), resources::fill_tmp),
    )
    .gap_without_namespaces("there is no private /tmp whose size is bounded"),
];

const TOOLHOST: &[Attack] = &[
    planted("list-home", Op::List, Target::Home).first(),
    planted("read-config", Op::Read, Target::Config).first(),
    planted("list-state", Op::List, Target::State),
    planted("read-audit-log", Op::Read, Target::AuditLog).first(),
    planted("write-audit-log", Op::OpenToWrite, Target::AuditLog).first(),
    planted("read-audit-key", Op::Read, Target::AuditKey).first(),
    planted("list-run", Op::List, Target::RunDirectory),
    planted("write-stop-file", Op::Write, Target::StopFile).first(),
    attack(
        "connect-control-socket",
        "mount-namespace",
        "file view, or no sockets",
        NAMESPACES,
        Tried::Path(Op::Connect, Place::Of(Target::ControlSocket)),
    )
    .first(),
    planted("plant-beside-programs", Op::Write, Target::BesidePrograms),
];
