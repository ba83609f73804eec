//! What a short-lived process of the toolhost finds out about a machine by trying.
//!
//! Printed as one line of JSON by `oxibot-toolhost facts` and read by main's `doctor`, also where no supervisor would
//! start: it needs system calls that main cannot make safely. No configuration, no path and no secret is in it.

use serde::{Deserialize, Serialize};

/// Longest line, in bytes. A reader takes no more.
pub const MAX_FACTS: usize = 16 * 1024;

/// Everything tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineFacts {
    /// Landlock ABI, 0 when there is none.
    pub landlock_abi: u32,
    /// Each kind of namespace, in the order tried: the user namespace first, the others inside it.
    pub namespaces: Vec<NamespaceTried>,
    /// What the kernel says of its clock; none when it would not say.
    pub clock: Option<ClockFacts>,
}

/// One kind of namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamespaceTried {
    /// `user`, `mount`, `pid`, `network`, `ipc`, `uts` or `cgroup`.
    pub name: String,
    /// The kernel's answer where it refused, for example `EPERM`.
    pub refused: Option<String>,
}

/// The kernel's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockFacts {
    /// A time service keeps it right.
    pub synchronised: bool,
    /// Largest error the service admits, in microseconds; without meaning when nothing keeps it right.
    pub max_error_us: i64,
}
