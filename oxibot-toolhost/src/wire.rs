//! What the toolhost's own processes say to each other, framed like the outer wire.
//!
//! These never cross to main. Descriptors travel beside the first byte of a message (`SCM_RIGHTS`).

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
    /// The payload ended.
    Ended(Ending),
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
    /// `read_file`: lines from `offset` (1-based), at most `limit`.
    Read { path: String, offset: u64, limit: Option<u64>, numbers: bool },
    /// `write_file`.
    Write { path: String, content: String },
    /// `edit_file`.
    Edit { path: String, old_text: String, new_text: String, replace_all: bool },
    /// `list_dir`.
    List { path: String, depth: u32 },
    /// `grep`.
    Grep { pattern: String, path: String, glob: Option<String> },
    /// `find_files`.
    Find { pattern: String, path: String, glob: Option<String> },
    /// Open `.oxibot-output/<name>.txt` for a call's whole output, after removing what exceeds the kept total.
    SpillOpen { name: String },
    /// Append to the file opened last under that name.
    SpillWrite { name: String, data: Vec<u8> },
    /// Close it.
    SpillClose { name: String },
    /// Begin a transfer into the workspace: a temporary file beside `path`.
    PutOpen { path: String, size: u64 },
    /// Next bytes of the transfer `number` began.
    PutWrite { transfer: u64, data: Vec<u8> },
    /// Whole: rename into place.
    PutClose { transfer: u64 },
    /// Given up: remove the temporary file.
    PutAbort { transfer: u64 },
    /// Size of a regular file, for a transfer out.
    GetOpen { path: String, max_size: u64 },
    /// Bytes at an offset of the file `GetOpen` opened as `transfer`.
    GetRead { transfer: u64, offset: u64, length: u32 },
    /// Close it.
    GetClose { transfer: u64 },
    /// Compare guarded git configuration with what was recorded before the call, put dangerous keys back.
    GitCheckpoint,
    /// See `GitCheckpoint`; answers what was put back.
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
    /// Text for the model, at most `MAX_OUTPUT` bytes of UTF-8, already cut with its `next offset` line.
    Text { text: String, total_bytes: u64 },
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
