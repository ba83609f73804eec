//! A cgroup for each call: memory and tasks counted for the call as a whole, its end without a race.
//!
//! Version 2 where a cgroup is delegated to us, version 1 where that is what the machine has, else nothing: process
//! limits then bound each process. See [`place`] for the rule. Whose is what:
//!
//! ```text
//! place                                  own cgroup of the toolhost when it started (one directory a hierarchy)
//!   oxibot-4026531836-812-99102-self     version 2 only: our own processes, which may not be in a cgroup with children
//!   oxibot-4026531836-812-99102-1        one zygote, owned by whom its calls run as
//!     call-7                             one init and its call; limits are set before anything is in it
//! ```
//!
//! A call's cgroup is made with its ready-made init and removed after its answer: neither is on a call's way. It is
//! worked on by descriptor, because the view of a call has no `/sys`. `CLONE_INTO_CGROUP` is not used: the zygote's own
//! filter answers `clone3` with ENOSYS, for everything below it.

mod files;
mod find;
mod place;
mod remove;
mod zone;

use bincode::{Decode, Encode};

pub use place::Members;
pub(super) use place::Place;
pub(super) use remove::Remains;
pub(super) use zone::{Leaf, Zone};

/// Which interface a hierarchy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
enum Version {
    One,
    Two,
}

/// What a hierarchy counts for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) enum Counter {
    Memory,
    Processes,
}

impl Counter {
    const ALL: [Self; 2] = [Self::Memory, Self::Processes];

    /// The kernel's name of the controller.
    fn controller(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Processes => "pids",
        }
    }
}

/// What is counted for each call of a zygote, and why not more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    counters: Vec<Counter>,
    /// For people: version and controllers.
    pub(super) by: String,
    /// What is missing and what would give it.
    pub(super) missing: String,
}

impl Counted {
    /// Nothing is, for this reason.
    pub(super) fn nothing(missing: impl Into<String>) -> Self {
        Self { counters: Vec::new(), by: String::new(), missing: missing.into() }
    }

    /// Whether this is.
    pub(super) fn has(&self, counter: Counter) -> bool {
        self.counters.contains(&counter)
    }

    /// Whether everything is.
    pub(super) fn all(&self) -> bool {
        Counter::ALL.iter().all(|counter| self.has(*counter))
    }
}
