//! What the toolhost's own processes say to each other, framed like the outer wire.
//!
//! These never cross to main. Descriptors travel beside the first byte of a message (`SCM_RIGHTS`).

use std::net::IpAddr;

use bincode::{Decode, Encode};
use oxibot_proto::message::{Denial, Level, Protection, Usage};
use oxibot_proto::settings::Limits;

/// What a zygote makes possible for one workspace. Computed by the supervisor from configuration alone.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Profile {
    /// Absolute, canonical path of the workspace.
    pub workspace: Vec<u8>,
    /// More paths calls may read.
    pub read: Vec<Vec<u8>>,
    /// More paths calls may write.
    pub write: Vec<Vec<u8>>,
    /// Our own directories (configuration, state, audit): never visible, wherever they lie.
    pub covered: Vec<Vec<u8>>,
    /// `false` shows the rest of the file system read-only (levels full and off only).
    pub restrict_to_workspace: bool,
    /// Names guarded inside the workspace.
    pub protect: Vec<String>,
    /// Whether a kernel wall is built.
    pub wanted: Wanted,
    /// Size of the private `/tmp` in MiB.
    pub tmp_mb: u32,
    /// What a call may use as a whole, where it has a cgroup. A job may ask for less.
    pub limits: Limits,
    /// Whether a call has a proxy on its own loopback (`tools.bash.network`). Level full only.
    pub proxy: bool,
}

/// Which wall to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Wanted {
    /// The strongest to be had; what was obtained is reported.
    Strongest,
    /// As if namespaces were refused. For tests of level `kernel` and for file systems without id-mapping.
    WithoutNamespaces,
    /// No kernel wall (`--no-sandbox`).
    Off,
}

/// What a zygote obtained, found by trying in a real child.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Obtained {
    /// Level that holds for every call of this zygote.
    pub level: Level,
    /// Landlock ABI of the kernel, 0 for none.
    pub landlock_abi: u32,
    /// Each protection by name.
    pub protections: Vec<Protection>,
    /// What to do for level `full`. Empty at `full`, or where a lower level was asked for.
    pub remedy: String,
}

/// Supervisor to zygote.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToZygote {
    /// Make one more init that is ready to run a call.
    MakeInit,
    /// Start a files worker.
    MakeFiles,
    /// Level without a PID namespace only: end every process that outlived its init.
    Sweep,
}

/// Zygote to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromZygote {
    /// First message: the wall that holds.
    Ready(Obtained),
    /// An init is ready. Descriptors: its pidfd, its control socket.
    Init,
    /// A files worker is ready. Descriptors: its pidfd, its control socket.
    Files,
    /// [`ToZygote::Sweep`] is done; so many processes were ended.
    Swept(u32),
    /// Something could not be made. The zygote goes on.
    CouldNot(WallFault),
}

/// Why confinement could not be made. Written by our own processes before any tool code ran.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[error("cannot {step}: {cause}")]
pub struct WallFault {
    /// What was being done, for example `mount private /proc`.
    pub step: String,
    /// The kernel's answer.
    pub cause: String,
}

/// Supervisor to init: run this. Descriptors: stdin, stdout, stderr.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Job {
    /// Program and arguments.
    pub argv: Vec<Vec<u8>>,
    /// Whole environment, `NAME=value`.
    pub environment: Vec<Vec<u8>>,
    /// Directory below the workspace to start in; empty for the workspace itself.
    pub directory: Vec<u8>,
    /// Limits of the call.
    pub limits: Limits,
    /// Its file mode creation mask.
    pub umask: u32,
    /// What to do about sockets of others among its files. Level `full` only; below it there are no sockets.
    pub sockets: Sockets,
}

/// Sockets of others that a call must not reach. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Sockets {
    /// Found by the last search. If one is there no more, the init searches again.
    pub known: Vec<Vec<u8>>,
    /// Names under which the kernel knows sockets of the host. They may be gone.
    pub named: Vec<Vec<u8>>,
    /// Look through all that is granted.
    pub search: bool,
    /// Which sockets may be there, as the kernel lists them: low halves of inode numbers. `None`: that is not known.
    pub expected: Option<Vec<u32>>,
    /// Who may move sockets about meanwhile.
    pub movers: Movers,
}

impl Sockets {
    /// Nothing is known: look.
    #[must_use]
    pub fn search() -> Self {
        Self { known: Vec::new(), named: Vec::new(), search: true, expected: None, movers: Movers::Nobody }
    }

    /// Nothing is to be covered.
    #[must_use]
    pub fn none() -> Self {
        Self { search: false, ..Self::search() }
    }
}

/// Who may move sockets and their directories about while a call's init looks for them, so that it misses one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Movers {
    /// No call: what the host moves is its own affair.
    Nobody,
    /// Calls that began earlier. This one must not run before each socket that is expected was covered, or nothing moved
    /// during one whole search.
    Calls,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct FoundSockets {
    /// Sockets that somebody holds.
    pub paths: Vec<Vec<u8>>,
    /// Whether all was looked at; the time of one search is bounded.
    pub whole: bool,
    /// What was expected and is not there: all was looked at, and nothing moved meanwhile.
    pub elsewhere: Vec<u32>,
}

/// Init to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromInit {
    /// The payload is confined, verified and about to exec.
    Running,
    /// It could not be started; no tool code ran. `exec` tells a missing program from a broken wall.
    NotStarted {
        /// What failed.
        fault: WallFault,
        /// The program itself could not be executed (not found, not executable, too long).
        exec: bool,
    },
    /// The directory is not inside the workspace.
    BadDirectory(Denial),
    /// Something among its files would let the call out.
    Unsafe(Denial),
    /// What a search for sockets found. Before `Running`.
    Sockets(FoundSockets),
    /// The proxy of the call listens. Descriptor: the listening socket, of which init keeps no copy. Before `Running`.
    Listening,
    /// A system call of the call was refused by the filter, while it runs. Each kind is told once a call.
    Refused(Refusal),
    /// The payload ended.
    Ended(Ending),
}

/// Supervisor to egress, once: the terms of one call. Descriptor: the listening socket of its proxy.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct EgressOrder {
    /// Patterns of `tools.bash.network`, as text.
    pub hosts: Vec<String>,
    /// Addresses that may be reached although they are not public, as text.
    pub private: Vec<String>,
}

/// Egress to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromEgress {
    /// It is confined and serves.
    Ready,
    /// It could not be confined; nothing was accepted.
    CouldNot(WallFault),
    /// It decided on a connection. Forgeable by whoever takes an egress over, as what a program prints is.
    Decided(Decision),
}

/// What an egress decided on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Decision {
    /// Host, or what stood in its place; empty when there was none.
    pub host: String,
    /// Port, 0 when there was none.
    pub port: u16,
    /// What was decided.
    pub verdict: NetVerdict,
}

/// See [`Decision`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum NetVerdict {
    /// It is connected to, first at this address.
    Allowed(IpAddr),
    /// It is not.
    Refused(NetRule),
    /// It would have been, but could not be reached.
    Failed(NetFailure),
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum NetRule {
    /// It is no name of a host.
    Name,
    /// The host is not listed.
    Host,
    /// The host is listed, for other ports.
    Port,
    /// Its name leads to an address that is not public.
    Address,
    /// The request is malformed, or could be understood in two ways.
    Request,
    /// The call has reached or transferred as much as it may.
    Limit,
}

/// Why a host that may be reached was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum NetFailure {
    /// There is no such name.
    NoSuchName,
    /// The name has no address.
    NoAddress,
    /// No name server answered.
    Lookup,
    /// The host refused.
    Connect,
    /// The host did not answer.
    Silent,
}

/// A system call that the filter refused. Numbers only: nothing a pointer pointed to was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Refusal {
    /// Id of the rule that refused it, see `wall::seccomp`.
    pub rule: String,
    /// Its first three arguments, as passed in registers.
    pub arguments: [u64; 3],
}

/// Limits of its cgroup that a call ran into. Zero where it had none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct LimitEvents {
    /// Processes ended because memory ran out.
    pub out_of_memory: u32,
    /// Processes or threads that could not be started.
    pub processes: u32,
}

/// How a payload ended, from its wait status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Ending {
    /// Exit status, if it exited.
    pub exit_code: Option<i32>,
    /// Signal, if one ended it.
    pub signal: Option<i32>,
    /// Time and memory of it and its waited-for children.
    pub usage: Usage,
    /// Processes that were still there and end with the call.
    pub left_behind: u32,
    /// Limits it ran into.
    pub limits: LimitEvents,
}

/// Supervisor to files worker.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct FilesRequest {
    /// Echoed in the answer.
    pub number: u64,
    /// What to do. Paths are as the model wrote them.
    pub work: FilesWork,
}

/// One file operation.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FilesWork {
    /// `read_file`. Answered by `Text`.
    Read {
        /// As the model wrote it.
        path: String,
        /// First line, from 1.
        offset: u64,
        /// Most lines.
        limit: Option<u64>,
        /// Put line numbers in front.
        numbers: bool,
    },
    /// `write_file`. Answered by `Text`.
    Write {
        /// As the model wrote it.
        path: String,
        /// The whole new content.
        content: String,
    },
    /// `edit_file`. Answered by `Text`.
    Edit {
        /// As the model wrote it.
        path: String,
        /// What is there.
        old_text: String,
        /// What is to be there.
        new_text: String,
        /// Every occurrence instead of the only one.
        replace_all: bool,
    },
    /// `list_dir`. Answered by `Text`.
    List {
        /// As the model wrote it.
        path: String,
        /// Levels to show, from 1.
        depth: u32,
        /// First entry to show, from 1.
        offset: u64,
    },
    /// `grep`. Answered by `Text`.
    Grep {
        /// Regular expression.
        pattern: String,
        /// File or directory, as the model wrote it.
        path: String,
        /// Only files that match.
        glob: Option<String>,
        /// First matching line to show, from 1.
        offset: u64,
    },
    /// `find_files`. Answered by `Text`.
    Find {
        /// Glob or part of a path.
        pattern: String,
        /// Directory, as the model wrote it.
        path: String,
        /// Only files that match.
        glob: Option<String>,
        /// First match to show, from 1.
        offset: u64,
    },
    /// Open `.oxibot-output/<name>.txt` for a call's whole output, after removing what exceeds the kept total.
    /// Answered by `Done`.
    SpillOpen {
        /// ASCII letters, digits, `-` and `_`; at most 64.
        name: String,
    },
    /// Append to the file opened last under that name. Answered by `Done`, also when the cap of one file is reached
    /// and the rest is dropped.
    SpillWrite {
        /// As in `SpillOpen`.
        name: String,
        /// Next bytes.
        data: Vec<u8>,
    },
    /// Close it. Answered by `Done`.
    SpillClose {
        /// As in `SpillOpen`.
        name: String,
    },
    /// Begin a transfer into the workspace: a temporary file beside `path`. Answered by `Done`; the number of this
    /// request names the transfer from now on.
    PutOpen {
        /// As main sent it.
        path: String,
        /// Exact size in bytes.
        size: u64,
    },
    /// Next bytes of the transfer `number` began. Answered by `Done`.
    PutWrite {
        /// Number of the `PutOpen`.
        transfer: u64,
        /// Next bytes.
        data: Vec<u8>,
    },
    /// Whole: rename into place. Answered by `Done`.
    PutClose {
        /// Number of the `PutOpen`.
        transfer: u64,
    },
    /// Given up: remove the temporary file. Answered by `Done`.
    PutAbort {
        /// Number of the `PutOpen`.
        transfer: u64,
    },
    /// Open a regular file for a transfer out. Answered by `Size`; the number of this request names the transfer.
    GetOpen {
        /// As main sent it.
        path: String,
        /// Refuse larger files.
        max_size: u64,
    },
    /// Bytes at an offset of the file `GetOpen` opened as `transfer`. Answered by `Bytes`; none mean the end.
    GetRead {
        /// Number of the `GetOpen`.
        transfer: u64,
        /// Position of the first byte.
        offset: u64,
        /// At most `MAX_CHUNK`.
        length: u32,
    },
    /// Close it. Answered by `Done`.
    GetClose {
        /// Number of the `GetOpen`.
        transfer: u64,
    },
    /// Record the dangerous keys of the git configuration before a call. Calls may overlap: each checkpoint wants one
    /// `GitRestore`, and the first recording of an overlapping group counts. Answered by `Done`.
    GitCheckpoint,
    /// Compare with what was recorded and put dangerous keys back. Answered by `Notes`, empty when nothing changed.
    GitRestore,
}

/// Files worker to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct FilesAnswer {
    /// As in the request.
    pub number: u64,
    /// What came of it.
    pub result: FilesResult,
}

/// What came of a file operation.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FilesResult {
    /// Text for the model.
    Text {
        /// At most `MAX_OUTPUT` bytes of UTF-8, already cut with its `next offset` line.
        text: String,
        /// Length of `text` when nothing was left out. Otherwise more: the size of the file for `Read`, what is
        /// known of the whole listing for the others.
        total_bytes: u64,
    },
    /// Done, nothing to say.
    Done,
    /// Raw bytes of a transfer.
    Bytes(Vec<u8>),
    /// Size of an opened file.
    Size(u64),
    /// Lines for the result's notes, for example which git keys were put back.
    Notes(Vec<String>),
    /// The path leaves the workspace or is guarded.
    Denied(Denial),
    /// No such file, not a file, ambiguous match and so on.
    Failed(String),
}
