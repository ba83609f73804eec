//! Main confines itself, before its runtime starts and before it reads a byte from the network or the toolhost's calls.
//!
//! What main could do if it were taken over is bounded by the kernel: it reaches its state directory and what reading
//! its configuration again needs, starts no program, makes no Unix socket and has no capability. `--no-sandbox` does not
//! switch this off. What the kernel lacks is said, never passed over; what it has is required and then tried.
//!
//! The order: capabilities and limits, Landlock, seccomp, verification. Single-threaded, because Landlock and seccomp
//! hold for the calling thread and those it starts later.

mod files;
mod memory;
mod privileges;
mod syscalls;
#[cfg(test)]
mod tests;
mod verify;

use std::io;
use std::net::ToSocketAddrs;
use std::path::PathBuf;

use tokio::runtime::{Builder, Runtime};

pub use memory::Locked;

/// What main still needs once it is confined. There is no default: each command says what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Directories of our own to read and write; they must exist.
    pub state: Vec<PathBuf>,
    /// Files that may be read again later, also after they were replaced: configuration and secrets.
    pub reread: Vec<PathBuf>,
    /// Whether it talks to the network.
    pub network: Network,
    /// Workspaces: never readable, not even where they lie inside a directory that is.
    pub workspaces: Vec<PathBuf>,
    /// A child that may be killed if it does not end: the toolhost of a one-shot command.
    pub toolhost: Option<u32>,
}

/// Whether main talks to the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// No socket at all.
    None,
    /// It connects to the outside and listens nowhere.
    Connect,
}

/// Main could not be confined, or is not although it should be. Nothing may run then.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// A step failed that this kernel should be able to do.
    #[error("cannot confine this process: {step}: {cause}")]
    Step {
        /// What was done.
        step: &'static str,
        /// What the kernel or the library said.
        cause: String,
    },
    /// It was done and does not hold.
    #[error("cannot rely on confinement: {what}")]
    Broken {
        /// What should have been refused.
        what: String,
    },
    /// A workspace lies in a directory main must write to.
    #[error("cannot keep this process out of the workspace {}: it lies inside {}", workspace.display(), state.display())]
    Overlap {
        /// The workspace.
        workspace: PathBuf,
        /// The directory of our own.
        state: PathBuf,
    },
}

impl ConfineError {
    fn step<E: std::fmt::Display>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |cause| Self::Step { step, cause: cause.to_string() }
    }
}

/// Proof that this process is confined. Only [`confine`] makes one, and the runtime is built from nothing else.
#[derive(Debug)]
#[must_use]
pub struct Confined {
    missing: Vec<String>,
    absent: Vec<String>,
    locked: Locked,
}

impl Confined {
    /// What this kernel lacks, each as a line for the operator. Empty where everything holds.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Of these, whole mechanisms that are not there. What an older kernel does less of is for `doctor` to say: repeated at
    /// every command it would stand among the words of the program that `sandbox run` runs.
    #[must_use]
    pub fn absent(&self) -> &[String] {
        &self.absent
    }

    /// What of this process is kept out of swap.
    #[must_use]
    pub fn locked(&self) -> &Locked {
        &self.locked
    }

    /// The runtime of a command that does one thing: one thread.
    ///
    /// # Errors
    /// When the kernel gives no epoll or event descriptor.
    pub fn small_runtime(&self) -> io::Result<Runtime> {
        Builder::new_current_thread().enable_all().build()
    }

    /// The runtime of a long-lived command: two threads, as more only cost memory.
    ///
    /// # Errors
    /// As [`Confined::small_runtime`].
    pub fn runtime(&self) -> io::Result<Runtime> {
        Builder::new_multi_thread().worker_threads(2).enable_all().build()
    }
}

/// The first thing this process does: from here on nobody else of the same user reads its memory or its environment, and
/// no core is written of it.
///
/// # Errors
/// When the kernel refuses, which it does not.
pub fn hide() -> Result<(), ConfineError> {
    privileges::hide()
}

/// Confines this process for good and verifies it. Must be called while it has one thread.
///
/// # Errors
/// [`ConfineError`]; the process must end then, because it may be half confined.
pub fn confine(plan: &Plan) -> Result<Confined, ConfineError> {
    let threads =
        std::fs::read_dir("/proc/self/task").map_err(ConfineError::step("count the threads"))?.count();
    if threads != 1 {
        return Err(ConfineError::Step {
            step: "count the threads",
            cause: format!("{threads} run already, and would stay free"),
        });
    }
    apply(plan)
}

/// As [`confine`], for the calling thread and those it starts.
fn apply(plan: &Plan) -> Result<Confined, ConfineError> {
    let probes = verify::Probes::prepare()?;
    if plan.network == Network::Connect {
        // The resolver loads its libraries and reads its files at the first look-up. It is allowed to later as well,
        // but what is wrong with it shows here, where nothing is confined yet. A look-up that fails is no matter.
        drop(("localhost", 0_u16).to_socket_addrs());
    }
    let locked = memory::lock();
    privileges::drop_all()?;
    let landlock = files::restrict(plan)?;
    let mut absent = Vec::new();
    if !landlock.in_force() {
        absent.extend(landlock.missing());
    }
    let filtered = syscalls::restrict(plan)?;
    if !filtered {
        absent.push(
            "this kernel has no seccomp: main could start programs if it were taken over; use a kernel with \
             CONFIG_SECCOMP_FILTER"
                .to_owned(),
        );
    }
    probes.verify(plan, landlock.in_force(), filtered)?;
    let weaker = if landlock.in_force() { landlock.missing() } else { None };
    let missing = absent.iter().cloned().chain(weaker).collect();
    Ok(Confined { missing, absent, locked })
}
