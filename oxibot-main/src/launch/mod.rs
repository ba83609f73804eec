//! Starting the processes of an embedded OxiBot: the toolhost, and for long-lived commands main itself.
//!
//! The order is the security argument: descriptors are closed, the toolhost is started, and only then is a secret read,
//! a thread started or a connection opened. What is started is a file that was opened and checked, run by descriptor.
//! The launcher never reads a secret and never opens the network; it is synchronous and single-threaded.

mod audit;
mod binary;
mod children;
mod control;
mod facts;
mod fetcher;
mod held;
mod launcher;
mod toolhost;

use std::io;
use std::path::PathBuf;

pub use audit::audit_reader;
pub use binary::{Program, find_fetch, find_toolhost};
pub use children::keep_statuses;
pub use control::{Control, ControlEvent, Handover, receive_handover};
pub use facts::machine_facts;
pub use fetcher::{SearchDoor, search_service};
pub use held::hold_secrets;
pub use launcher::{OnHangUp, join_launcher, launch, reloads_on_hang_up};
pub use toolhost::{LaunchOptions, Purpose, Started, Toolhost, start_toolhost};

/// Something could not be started. Each variant says who could have caused it and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// An incomplete installation.
    #[error("cannot find {name}: it is in none of {}", places(.looked))]
    NotFound {
        /// File name.
        name: String,
        /// Directories that were looked at.
        looked: Vec<PathBuf>,
    },
    /// Someone else could have replaced the program.
    #[error("cannot trust {}: {reason}", path.display())]
    Untrusted {
        /// The file, or a directory above it.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The kernel refused.
    #[error("cannot {step}: {cause}")]
    System {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
}

impl LaunchError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => {
                "build or install both programs: `cargo build` makes oxibot and oxibot-toolhost side by side"
            }
            Self::Untrusted { .. } => {
                "give it to root or to yourself (chown) and take write permission from others (chmod go-w)"
            }
            Self::System { .. } => "see `oxibot doctor`",
        }
    }

    pub(crate) fn system(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::System { step, cause }
    }
}

fn places(looked: &[PathBuf]) -> String {
    looked.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Closes every descriptor above standard error. What a careless parent left open must reach neither the toolhost nor
/// anything below it. Only for the very start of a process: whatever owns one of them would find it gone.
///
/// # Errors
/// When `/proc` cannot be read: then nobody can say what is open.
pub fn close_inherited() -> Result<(), LaunchError> {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .map_err(LaunchError::system("list open descriptors"))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in open {
        // The directory handle of the listing is in the list, and closed by now: that is the only failure there is.
        let _already_closed = nix::unistd::close(number);
    }
    Ok(())
}
