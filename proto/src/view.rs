//! What one call could see and do, as facts: enough for main to say why something did not work.
//!
//! The toolhost never reads what a program printed; main does, and compares it with these facts. They grant nothing
//! and take nothing away: the wall is elsewhere, and a wrong fact gives a wrong explanation at most.

use bincode::{Decode, Encode};

use crate::settings::Limits;

/// Most paths in one list of a [`View`]. A configuration with more is explained without guesses, not with wrong ones.
pub const MAX_VIEW_PATHS: usize = 128;
/// Longest path in a [`View`], in bytes (`PATH_MAX`).
pub const MAX_VIEW_PATH: usize = 4096;

/// What a call could see and do.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct View {
    /// Absolute path of the workspace: writable.
    pub workspace: String,
    /// Absolute path of the directory the call started in.
    pub directory: String,
    /// `sandbox.read`: readable.
    pub read: Vec<String>,
    /// `sandbox.write`: writable.
    pub write: Vec<String>,
    /// What every call may read of the system.
    pub system: Vec<String>,
    /// Devices that are there.
    pub devices: Vec<String>,
    /// Our own directories, empty to a call.
    pub covered: Vec<String>,
    /// Read-only names inside the workspace, relative to it. Guarded if they existed when the call started.
    pub guarded: Vec<String>,
    /// Names inside the workspace that cannot be renamed or removed.
    pub pinned: Vec<String>,
    /// What is not granted.
    pub rest: Rest,
    /// Where temporary files go.
    pub temporary: Temporary,
    /// What a socket reaches.
    pub network: Network,
    /// Limits of the call.
    pub limits: Limits,
}

/// What a call finds where nothing is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Rest {
    /// Nothing: the path does not exist (level `full`).
    Absent,
    /// Its name, and a refusal to open it (levels without namespaces).
    Refused,
    /// The files, read-only, except in [`Temporary`] and kernel directories (`tools.restrictToWorkspace: false`).
    ReadOnly,
}

/// Where temporary files go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Temporary {
    /// `/tmp` and `/dev/shm` of the call itself, empty at its start.
    Own,
    /// A directory of the call's own, named by `TMPDIR`; the machine's `/tmp` is out of reach.
    Directory,
}

/// What a socket reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Network {
    /// A loopback of the call's own and nothing else.
    Own,
    /// No socket can be made.
    None,
    /// A loopback of the call's own, with a proxy that leads to hosts that are listed (`tools.bash.network`).
    Proxy,
}
