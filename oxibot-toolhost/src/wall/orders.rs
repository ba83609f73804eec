//! What nursery, zygote, init and payload say to each other. Not seen by the supervisor's other modules.

use bincode::{Decode, Encode};

use super::cgroup::Place;
use crate::wire::{Job, Profile, WallFault};

/// As the program of a [`crate::wire::Job`]: our own binary, by descriptor. Holds a NUL, which no path can.
pub const OURSELVES: &[u8] = b"\0oxibot-toolhost";

/// Which wall a zygote builds. It builds exactly this one or fails; choosing a weaker one is the asker's act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) enum Plan {
    /// All namespaces, Landlock, seccomp.
    Full,
    /// Landlock and seccomp on the real file system.
    Bare,
    /// Nothing but limits.
    Off,
}

/// Supervisor to nursery.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) enum ToNursery {
    /// Start a zygote. Answered by `Zygote`.
    Zygote(Box<Order>),
    /// Start a shell reader, which confines itself and needs nothing. Answered by `Reader`.
    Reader,
    /// Start an egress. Answered by `Egress`.
    Egress,
}

/// What the nursery hands on to the zygote it starts.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct Order {
    pub(super) profile: Profile,
    pub(super) plan: Plan,
    /// Whether the nursery makes the workspace, private, where it is not there.
    pub(super) make: bool,
    /// Number of this zygote among those of the nursery; part of the user id calls run as.
    pub(super) number: u32,
    /// Why a stronger plan did not hold.
    pub(super) lowered: Option<WallFault>,
    /// Begins the names of what this run makes outside its processes. Known to the nursery, which sets it.
    pub(super) session: String,
    /// Where it may make cgroups. As above.
    pub(super) place: Place,
}

/// Nursery to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum FromNursery {
    /// A zygote was started. Descriptors: its pidfd, its control socket.
    Zygote,
    /// A shell reader was started. Descriptors: its pidfd, its socket.
    Reader,
    /// An egress was started. Descriptors: its pidfd, its control socket.
    Egress,
    /// It was not.
    CouldNot(WallFault),
}

/// Payload to init, over a socket that exec closes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum FromPayload {
    /// Its filter is in force. Descriptor: the listener for what it refuses, which init answers from now on.
    Filtered,
    /// Confined and verified; it waits for its program.
    Verified,
    /// A step failed. `exec` as in [`crate::wire::FromInit::NotStarted`].
    Fault { fault: WallFault, exec: bool },
}

/// Init to the payload that waits: become this program. Descriptors: stdin, stdout, stderr, and the directory to start
/// in. The end of the socket is the answer that it did.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct Become {
    pub(super) job: Job,
    /// Processes of others that are counted together with the call's.
    pub(super) others: u64,
}
