//! The rules a guess may name: when each is in force, and its words.
//!
//! The words are ours alone. Nothing a program printed gets into them; the path stands beside them.

use oxibot_proto::view::{Network, Rest, Temporary, View};

/// A rule of the wall, with what was tried where the advice depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Not among the paths of the call.
    View,
    /// As [`Rule::View`], and it was to be written.
    ViewWrite,
    /// As [`Rule::View`], and it is a socket of the machine.
    Service,
    /// As [`Rule::ViewWrite`], by a name inside.
    Link,
    /// There, and read-only.
    ReadOnly,
    /// A guarded name.
    Protect,
    /// The workspace itself can be neither moved nor removed.
    Workspace,
    /// Our own directories.
    Covered,
    /// `/tmp` of the call.
    PrivateTmp,
    /// `/tmp` and the workspace are two file systems.
    Apart,
    /// The private `/tmp` is full.
    TmpSize,
    /// Few devices, no terminal.
    Devices,
    /// No device nodes.
    DeviceNode,
    /// `/proc` of the call.
    Proc,
    /// No network.
    Network,
    /// The loopback of the call.
    Loopback,
    /// Families of sockets.
    Socket,
    /// No set-user-ID files.
    SetId,
    /// One user only.
    Identity,
    /// Signals to others.
    Signals,
    /// Mounts and roots.
    Mount,
    /// Namespaces.
    Namespaces,
    /// Looking into processes.
    Ptrace,
    /// Clock, host name, kernel log, priorities.
    Privileges,
    /// Limits cannot be raised.
    Limits,
    /// Memory.
    Memory,
    /// Processes.
    Processes,
    /// Open files.
    OpenFiles,
    /// Size of a file.
    FileSize,
    /// CPU time.
    Cpu,
    /// A foreign or unknown system call ended the program.
    SystemCalls,
}

impl Rule {
    /// Stable id, as in `why` and in the documentation.
    pub(super) fn id(self) -> &'static str {
        match self {
            Self::View | Self::ViewWrite | Self::Service | Self::Link => "view",
            Self::ReadOnly => "read-only",
            Self::Protect => "protect",
            Self::Workspace => "workspace",
            Self::Covered => "covered",
            Self::PrivateTmp | Self::Apart => "private-tmp",
            Self::TmpSize => "limits.tmpMb",
            Self::Devices => "devices",
            Self::DeviceNode => "files.device",
            Self::Proc => "proc",
            Self::Network | Self::Loopback => "network",
            Self::Socket => "sockets",
            Self::SetId => "files.set-id",
            Self::Identity => "identity",
            Self::Signals => "signals",
            Self::Mount => "mounts",
            Self::Namespaces => "mounts.namespace",
            Self::Ptrace => "processes.trace",
            Self::Privileges => "kernel",
            Self::Limits => "limits",
            Self::Memory => "limits.memoryMb",
            Self::Processes => "limits.processes",
            Self::OpenFiles => "limits.openFiles",
            Self::FileSize => "limits.fileSizeMb",
            Self::Cpu => "limits.cpuSeconds",
            Self::SystemCalls => "system-calls",
        }
    }

    /// Beginnings of the ids of rules whose refusal the kernel tells, where one of them would have caused the same.
    pub(super) fn told_as(self) -> &'static [&'static str] {
        match self {
            Self::Socket => &["sockets."],
            Self::Network => &["sockets."],
            Self::SetId => &["files.set-id"],
            Self::Mount => &["mounts."],
            Self::Namespaces => &["mounts.namespace"],
            Self::Ptrace => &["processes."],
            Self::Privileges => &["kernel.", "bare."],
            Self::Signals => &["bare.signal"],
            Self::DeviceNode => &["files.device"],
            Self::Limits => &["bare.others"],
            Self::View
            | Self::ViewWrite
            | Self::Service
            | Self::Link
            | Self::ReadOnly
            | Self::Protect
            | Self::Workspace
            | Self::Covered
            | Self::PrivateTmp
            | Self::Apart
            | Self::TmpSize
            | Self::Devices
            | Self::Proc
            | Self::Loopback
            | Self::Identity
            | Self::Memory
            | Self::Processes
            | Self::OpenFiles
            | Self::FileSize
            | Self::Cpu
            | Self::SystemCalls => &[],
        }
    }

    /// Whether the rule holds for a call with this view. A view exists behind a wall only, so what every wall has
    /// is always in force.
    pub(super) fn in_force(self, view: &View) -> bool {
        let mounts = view.temporary == Temporary::Own;
        match self {
            // With the whole file system in view only kernel directories are kept out.
            Self::View | Self::ViewWrite | Self::Service | Self::ReadOnly | Self::PrivateTmp => true,
            Self::Protect => !view.guarded.is_empty() || !view.pinned.is_empty(),
            Self::Covered => !view.covered.is_empty(),
            Self::Workspace | Self::Apart | Self::TmpSize => mounts,
            Self::Loopback => matches!(view.network, Network::Own | Network::Proxy),
            Self::Link => mounts,
            Self::Devices
            | Self::DeviceNode
            | Self::Proc
            | Self::Network
            | Self::Socket
            | Self::SetId
            | Self::Identity
            | Self::Signals
            | Self::Mount
            | Self::Namespaces
            | Self::Ptrace
            | Self::Privileges
            | Self::Limits
            | Self::Memory
            | Self::Processes
            | Self::OpenFiles
            | Self::FileSize
            | Self::Cpu
            | Self::SystemCalls => true,
        }
    }

    /// Reason, rule and what to do instead.
    pub(super) fn why(self, view: &View) -> String {
        let workspace = super::section::quoted(&view.workspace);
        let limits = &view.limits;
        let (reason, instead) = match self {
            Self::View => (
                match view.rest {
                    Rest::Absent => "it is not among the paths this call can see".to_owned(),
                    Rest::Refused => "it is outside the workspace".to_owned(),
                    Rest::ReadOnly => "it is kept out of every call".to_owned(),
                },
                format!("use files below {workspace}, or ask the user to add the path to sandbox.read"),
            ),
            Self::ViewWrite => {
                ("outside the workspace".to_owned(), format!("write below {workspace} instead"))
            }
            Self::Link => (
                "it leads out of the workspace".to_owned(),
                format!("write to a file below {workspace} itself"),
            ),
            Self::Service => (
                "services of the machine are out of reach".to_owned(),
                "do without it, or ask the user to do it".to_owned(),
            ),
            Self::ReadOnly => {
                ("outside the workspace, read-only".to_owned(), format!("write below {workspace} instead"))
            }
            Self::Protect => (
                "guarded, because programs outside the sandbox act on it".to_owned(),
                "leave it as it is, and tell the user what to change there".to_owned(),
            ),
            Self::Workspace => (
                "the workspace itself cannot be moved or removed".to_owned(),
                "work on what is in it".to_owned(),
            ),
            Self::Covered => {
                ("a directory of OxiBot's own is hidden from calls".to_owned(), "use another path".to_owned())
            }
            Self::PrivateTmp => match view.temporary {
                Temporary::Own => (
                    "temporary files belong to one call, and this one began with none".to_owned(),
                    format!("keep what later calls need below {workspace}"),
                ),
                Temporary::Directory => (
                    "the machine's own temporary directory is out of reach".to_owned(),
                    format!("use $TMPDIR, or {workspace} for what later calls need"),
                ),
            },
            Self::Apart => (
                "/tmp and the workspace are separate file systems here".to_owned(),
                "copy the file instead of linking or renaming it".to_owned(),
            ),
            Self::TmpSize => (
                format!("/tmp of a call holds {} MiB", limits.tmp_mb),
                format!("write below {workspace} instead"),
            ),
            Self::Devices => (
                "a call has no terminal, no disk and few devices".to_owned(),
                "read from and write to files instead".to_owned(),
            ),
            Self::DeviceNode => (
                "no device can be made".to_owned(),
                "use the devices that are there (/dev/null, /dev/zero, /dev/urandom)".to_owned(),
            ),
            Self::Proc => (
                "a call sees its own processes only and cannot change kernel settings".to_owned(),
                "do without it".to_owned(),
            ),
            Self::Network => match view.network {
                Network::Own | Network::None => (
                    "a call has no network".to_owned(),
                    format!("work with what is in {workspace}, or ask the user to fetch it"),
                ),
                Network::Proxy => (
                    "a call reaches hosts only by name, through its proxy, as tools.bash.network lists them"
                        .to_owned(),
                    "give the host's name and leave the variables http_proxy and https_proxy as they are"
                        .to_owned(),
                ),
            },
            Self::Loopback => (
                "127.0.0.1 is the call's own, and nothing listens there that it did not start".to_owned(),
                "start the server in the same call".to_owned(),
            ),
            Self::Socket => (
                match view.network {
                    Network::Own | Network::Proxy => "sockets of this kind are refused".to_owned(),
                    Network::None => "no socket can be made at this level".to_owned(),
                },
                "use files or pipes instead".to_owned(),
            ),
            Self::SetId => (
                "no file may be made set-user-ID or set-group-ID".to_owned(),
                "leave these bits out".to_owned(),
            ),
            Self::Identity => (
                "a call is one user and can give files to no other".to_owned(),
                "leave the owner as it is".to_owned(),
            ),
            Self::Signals => (
                "a call can signal its own processes only".to_owned(),
                "end processes in the call that started them".to_owned(),
            ),
            Self::Mount => ("a call cannot mount or change its root".to_owned(), "do without it".to_owned()),
            Self::Namespaces => (
                "a call cannot make or enter namespaces".to_owned(),
                "run the program directly; it is confined already".to_owned(),
            ),
            Self::Ptrace => (
                "a call cannot look into processes, not even its own".to_owned(),
                "print what you need to know instead of tracing".to_owned(),
            ),
            Self::Privileges => (
                "a call has no privileges over the machine".to_owned(),
                "do without it, or ask the user to do it".to_owned(),
            ),
            Self::Limits => ("limits of a call cannot be raised".to_owned(), "work within them".to_owned()),
            Self::Memory => (
                format!("the call may use {} MiB of memory", limits.memory_mb),
                "work on smaller pieces, or read files in parts".to_owned(),
            ),
            Self::Processes => (
                format!("the call may have {} processes and threads", limits.processes),
                "start fewer at once".to_owned(),
            ),
            Self::OpenFiles => (
                format!("a process may have {} files open", limits.open_files),
                "close files, or open fewer at once".to_owned(),
            ),
            Self::FileSize => (
                format!("a file may grow to {} MiB", limits.file_size_mb),
                "write several smaller files".to_owned(),
            ),
            Self::Cpu => (
                format!("a process may use {} s of CPU time", limits.cpu_seconds),
                "do the work in smaller steps".to_owned(),
            ),
            Self::SystemCalls => (
                "programs of another architecture are not run".to_owned(),
                "use a program built for this machine".to_owned(),
            ),
        };
        format!("{reason} (rule {}); {instead}", self.id())
    }
}
