//! What a program wanted of a path: by its words, by the redirections of the command, or by its name.

use super::asked::{Asked, Redirection};
use super::complaint::Complaint;

/// What a program wanted of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    Change,
    Execute,
    Connect,
    /// It does not say.
    Open,
}

impl Access {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Change => "change",
            Self::Execute => "execute",
            Self::Connect => "connect",
            Self::Open => "open",
        }
    }

    pub(super) fn changes(self) -> bool {
        match self {
            Self::Write | Self::Change => true,
            Self::Read | Self::Execute | Self::Connect | Self::Open => false,
        }
    }
}

/// Words of a program that changes owner, mode or times.
const CHANGE: [&str; 4] = ["changing permissions", "changing ownership", "setting times", "chmod"];
/// Words of a program that reads.
const READ: [&str; 5] = ["read", "cannot access", "cannot stat", "scandir", "change to"];
/// Words of a program that makes, changes or removes a file.
const WRITE: [&str; 18] = [
    "append",
    "copyfile",
    "creat",
    "delete",
    "install",
    "link",
    "lock",
    "mkdir",
    "move",
    "output",
    "overwrite",
    "remove",
    "rename",
    "rmdir",
    "temporary",
    "touch",
    "truncat",
    "writ",
];

/// What the program wanted, by its words, by the command's redirections, or by its name.
pub(super) fn wanted(complaint: &Complaint, path: &str, asked: &Asked<'_>) -> Access {
    let program = complaint.program.as_deref().unwrap_or_default();
    let shell = matches!(program, "bash" | "sh");
    if shell || program == "dd" {
        match asked.redirection(path) {
            Some(Redirection::Write) => return Access::Write,
            Some(Redirection::Read) => return Access::Read,
            None => {}
        }
    }
    if shell {
        return if complaint.words.contains("cd: ") {
            Access::Read
        } else if matches!(asked.exit_code, Some(126 | 127)) {
            Access::Execute
        } else {
            Access::Open
        };
    }
    match complaint.words.as_str() {
        "connect" => return Access::Connect,
        "spawn" => return Access::Execute,
        _ => {}
    }
    // A path's own words must not speak for the program: they end where it begins.
    let words = complaint.words.split(['\'', '‘', '"', '`', '/']).next().unwrap_or_default();
    let says = |list: &[&str]| list.iter().any(|word| words.contains(word));
    let ends = |list: &[&str]| list.iter().any(|word| complaint.words.ends_with(word));
    if says(&CHANGE) {
        Access::Change
    } else if says(&READ) || ends(&["for reading"]) {
        Access::Read
    } else if says(&WRITE) || ends(&["for writing", "for output"]) {
        Access::Write
    } else {
        by_name(program)
    }
}

fn by_name(program: &str) -> Access {
    match program {
        "cp" | "dd" | "install" | "ln" | "mkdir" | "mv" | "rm" | "rmdir" | "tee" | "touch" | "truncate" => {
            Access::Write
        }
        "cat" | "diff" | "find" | "grep" | "head" | "ls" | "stat" | "tail" | "wc" => Access::Read,
        _ => Access::Open,
    }
}
