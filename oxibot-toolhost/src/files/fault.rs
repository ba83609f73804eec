//! Why a file operation was not done, as the model will read it.
//!
//! The kernel's error numbers become words here and nowhere else. No variant is the broker's own failure: whatever a
//! hostile workspace does ends as `Denied` or `Failed`.

use nix::errno::Errno;
use oxibot_proto::message::Denial;

use super::text;
use crate::wire::FilesResult;

/// Most bytes of a path that a message repeats.
const MAX_SHOWN: usize = 300;

fn short(shown: &str) -> String {
    if shown.len() <= MAX_SHOWN {
        return shown.to_owned();
    }
    format!("{}...", text::cut(shown, MAX_SHOWN))
}

/// Not done, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// A rule forbids it.
    Denied(Denial),
    /// It cannot be done.
    Failed(String),
}

impl From<Fault> for FilesResult {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Denied(denial) => Self::Denied(denial),
            Fault::Failed(message) => Self::Failed(message),
        }
    }
}

impl Fault {
    /// The path leaves the workspace.
    pub(super) fn outside(shown: &str) -> Self {
        Self::Denied(Denial {
            rule: "path.outside".into(),
            reason: format!(
                "{shown} leads out of the workspace, by its start, by `..` or by a symbolic link"
            ),
            hint: "use a path below the workspace, relative to its top; copy what you need into it".into(),
        })
    }

    /// The path is one of the guarded names.
    pub(super) fn protected(shown: &str) -> Self {
        Self::Denied(Denial {
            rule: "path.protected".into(),
            reason: format!(
                "{shown} is read-only here, because programs outside the sandbox run what it says"
            ),
            hint: "leave it as it is, and tell the user what to put there".into(),
        })
    }

    /// `cannot <verb> <object>: <cause>`.
    pub(super) fn failed(verb: &str, shown: &str, cause: &str) -> Self {
        Self::Failed(format!("cannot {verb} {}: {cause}", short(shown)))
    }

    /// What the kernel answered.
    pub(super) fn errno(verb: &str, shown: &str, errno: Errno) -> Self {
        // Only the numbers that need other words than the kernel's.
        let cause = if errno == Errno::EXDEV {
            return Self::outside(shown);
        } else if errno == Errno::EROFS || errno == Errno::EBUSY {
            return Self::protected(shown);
        } else if errno == Errno::ENOENT {
            "no such file or directory; list_dir and find_files show what is there".into()
        } else if errno == Errno::ENOTDIR {
            "a part of the path is a file, not a directory".into()
        } else if errno == Errno::ELOOP {
            "too many symbolic links, or one that may not be followed".into()
        } else if errno == Errno::EACCES || errno == Errno::EPERM {
            "permission denied".into()
        } else if errno == Errno::ENAMETOOLONG {
            "the name is too long".into()
        } else if errno == Errno::ENXIO {
            "it is a socket, a device or a pipe, not a file".into()
        } else if errno == Errno::EAGAIN {
            "the directories on its path are being renamed all the time; try again".into()
        } else if errno == Errno::ENOSPC || errno == Errno::EDQUOT {
            "no space left".into()
        } else {
            errno.desc().to_lowercase()
        };
        Self::failed(verb, shown, &cause)
    }

    /// What the standard library answered.
    pub(super) fn io(verb: &str, shown: &str, error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => Self::errno(verb, shown, Errno::from_raw(number)),
            None => Self::failed(verb, shown, &error.to_string()),
        }
    }
}
