//! The kernel's and the resolver's reasons as programs spell them: text to [`Cause`], and nothing about paths.

/// Why a program says it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// ENOENT.
    Missing,
    /// EROFS.
    ReadOnly,
    /// EACCES.
    Denied,
    /// EPERM, and programs that look at their rights themselves.
    NotPermitted,
    /// EXDEV.
    CrossDevice,
    /// EBUSY.
    Busy,
    /// ENOSPC.
    NoSpace,
    /// EINVAL.
    Invalid,
    /// ENOMEM, and run-times that gave up.
    NoMemory,
    /// EAGAIN of fork and clone.
    NoProcess,
    /// EMFILE.
    TooManyFiles,
    /// EFBIG, SIGXFSZ.
    TooLarge,
    /// SIGXCPU.
    CpuTime,
    /// SIGSYS.
    BadCall,
    /// A name that could not be looked up.
    Unresolved,
    /// ENETUNREACH, EHOSTUNREACH.
    Unreachable,
    /// ECONNREFUSED, or a client that does not say which.
    Refused,
}

/// Lower-case phrases. Longer ones before those they contain.
const PHRASES: [(&str, Cause); 30] = [
    ("no such file or directory", Cause::Missing),
    ("unable to open database file", Cause::Denied),
    ("read-only file system", Cause::ReadOnly),
    ("permission denied", Cause::Denied),
    ("operation not permitted", Cause::NotPermitted),
    ("must be superuser to unmount", Cause::NotPermitted),
    ("must be superuser to use mount", Cause::NotPermitted),
    ("you must be root to change the host name", Cause::NotPermitted),
    ("invalid cross-device link", Cause::CrossDevice),
    ("cross-device link", Cause::CrossDevice),
    ("device or resource busy", Cause::Busy),
    ("resource busy or locked", Cause::Busy),
    ("no space left on device", Cause::NoSpace),
    ("invalid argument", Cause::Invalid),
    ("cannot allocate memory", Cause::NoMemory),
    ("out of memory", Cause::NoMemory),
    ("memory exhausted", Cause::NoMemory),
    ("resource temporarily unavailable", Cause::NoProcess),
    ("can't start new thread", Cause::NoProcess),
    ("too many open files", Cause::TooManyFiles),
    ("file size limit exceeded", Cause::TooLarge),
    ("file too large", Cause::TooLarge),
    ("cpu time limit exceeded", Cause::CpuTime),
    ("bad system call", Cause::BadCall),
    ("temporary failure in name resolution", Cause::Unresolved),
    ("name or service not known", Cause::Unresolved),
    ("network is unreachable", Cause::Unreachable),
    ("no route to host", Cause::Unreachable),
    ("connection refused", Cause::Refused),
    ("couldn't connect to server", Cause::Refused),
];

/// Where in a line a reason stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) cause: Cause,
    pub(super) phrase: &'static str,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The last reason in a line. `lower` is the line with ASCII letters made lower-case, so positions agree.
pub(super) fn find(lower: &str) -> Option<Found> {
    PHRASES
        .iter()
        .filter_map(|(phrase, cause)| {
            let start = lower.rfind(phrase)?;
            Some(Found { cause: *cause, phrase, start, end: start.saturating_add(phrase.len()) })
        })
        // Of two at the same place the longer one.
        .max_by_key(|found| (found.end, found.end.saturating_sub(found.start)))
}

/// The name of an error as Node prints it.
pub(super) fn of_code(code: &str) -> Option<Cause> {
    Some(match code {
        "ENOENT" => Cause::Missing,
        "EROFS" => Cause::ReadOnly,
        "EACCES" => Cause::Denied,
        "EPERM" => Cause::NotPermitted,
        "EXDEV" => Cause::CrossDevice,
        "EBUSY" => Cause::Busy,
        "ENOSPC" => Cause::NoSpace,
        "ENOMEM" => Cause::NoMemory,
        "EAGAIN" => Cause::NoProcess,
        "EMFILE" => Cause::TooManyFiles,
        "EFBIG" => Cause::TooLarge,
        "EAI_AGAIN" | "ENOTFOUND" => Cause::Unresolved,
        "ENETUNREACH" | "EHOSTUNREACH" => Cause::Unreachable,
        "ECONNREFUSED" => Cause::Refused,
        _ => return None,
    })
}
