//! Reads the files of a git repository that can make git run a program: what is there, without a judgement of it.
//!
//! Bounded: a call decides what is in `.git`. What was recorded before a call is looked at again by its name after it,
//! so nothing that the call adds can push it out of the bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{Mode, fstat};

use super::gitconfig::{self, Entry};
use super::githooks::{self, Hooks};
use super::read::read_at;
use super::workspace::{Identity, Kind, identity, kind, look, open_name};

/// Files of a repository that hold configuration. The second counts when `extensions.worktreeConfig` is set.
const CONFIGS: [&str; 2] = ["config", "config.worktree"];
/// The file that makes git take configuration and hooks from another directory.
pub(super) const COMMON: &str = "commondir";
/// Directories of files that name remotes, as git had them before it had sections for them. It still reads them.
pub(super) const OLD_REMOTES: [&str; 2] = ["remotes", "branches"];
/// The directory of a repository, and of a submodule's, whose programs git runs by itself.
const HOOKS: &str = "hooks";
/// Submodules and worktrees looked at, together.
const MAX_INNER: usize = 128;
/// Directories below `modules` looked into.
const MAX_WALK: usize = 512;
/// Names of one directory looked at.
const MAX_NAMES: usize = 512;
/// How deep submodules, and slashes in their names, may go.
const MAX_DEPTH: usize = 8;
/// Largest configuration of a submodule, and largest file with a path: they are all held in memory.
const MAX_INNER_FILE: usize = 32 * 1024;

/// A configuration file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Config {
    Absent,
    /// Not a plain file, too large, or not what git reads.
    Odd,
    Read {
        bytes: Vec<u8>,
        dangerous: Vec<Entry>,
    },
}

/// A file that holds a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plain {
    Absent,
    /// Not a plain file, or too large.
    Odd,
    Read(Vec<u8>),
}

/// What `.git` is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Repository {
    Absent,
    /// A file that names the repository: a linked worktree or a submodule.
    File(Vec<u8>),
    /// A symbolic link, and where it leads.
    Link(Vec<u8>),
    /// Neither a directory, nor a file that git would read, nor a link.
    Odd,
    /// The keys are paths below `.git`.
    Here {
        /// Which directory: it may be moved and something else put in its place.
        identity: Option<Identity>,
        files: BTreeMap<String, Config>,
        plain: BTreeMap<String, Plain>,
        hooks: BTreeMap<String, Hooks>,
        /// Commands that `git rebase --continue` would run.
        waiting: Vec<String>,
    },
}

impl Repository {
    /// For a note.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Absent => "gone",
            Self::File(_) => "a file",
            Self::Link(_) => "a symbolic link",
            Self::Odd => "something git does not know",
            Self::Here { .. } => "a directory",
        }
    }
}

/// What is there now, and `.git` itself when it is a directory. All that `before` holds is looked at again.
/// `root` is the directory that holds it; `room` is how many bytes of hooks may be kept.
pub(super) fn look_at(
    root: BorrowedFd<'_>,
    before: Option<&Repository>,
    room: &mut u64,
) -> (Repository, Option<OwnedFd>) {
    let path = Path::new(".git");
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let directory = match open_name(root, path, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(_) => return (look_at_name(root, path), None),
    };
    let mut names: BTreeSet<String> = CONFIGS.iter().map(|file| (*file).to_owned()).collect();
    let mut commons = BTreeSet::from([COMMON.to_owned()]);
    let mut hooked = BTreeSet::from([HOOKS.to_owned()]);
    let mut hooks_before = None;
    if let Some(Repository::Here { identity: _, files, plain, hooks, waiting: _ }) = before {
        names.extend(files.keys().cloned());
        commons.extend(plain.keys().cloned());
        hooked.extend(hooks.keys().cloned());
        hooks_before = Some(hooks);
    }
    for old in OLD_REMOTES {
        commons.extend(
            names_in(&directory, old).into_iter().take(MAX_INNER).map(|name| format!("{old}/{name}")),
        );
    }
    let mut left = MAX_INNER;
    for name in names_in(&directory, "worktrees").into_iter().take(left) {
        names.insert(format!("worktrees/{name}/config.worktree"));
        commons.insert(format!("worktrees/{name}/{COMMON}"));
        left = left.saturating_sub(1);
    }
    for module in modules(&directory, left) {
        names.extend(CONFIGS.iter().map(|file| format!("{module}/{file}")));
        commons.insert(format!("{module}/{COMMON}"));
        hooked.insert(format!("{module}/{HOOKS}"));
    }
    let files = names.into_iter().map(|file| {
        let config = read_config(&directory, &file);
        (file, config)
    });
    let files = files.collect();
    let plain = commons.into_iter().map(|file| {
        let content = read_plain(&directory, &file);
        (file, content)
    });
    let plain = plain.collect();
    let hooks = hooked.into_iter().map(|at| {
        let hooks = githooks::record(&directory, &at, hooks_before.and_then(|hooks| hooks.get(&at)), room);
        (at, hooks)
    });
    let hooks = hooks.collect();
    let waiting = waiting(&directory);
    let identity = fstat(&directory).ok().as_ref().map(identity);
    (Repository::Here { identity, files, plain, hooks, waiting }, Some(directory))
}

/// `exec` lines of an interrupted rebase.
fn waiting(directory: &OwnedFd) -> Vec<String> {
    let Plain::Read(todo) = read_plain(directory, "rebase-merge/git-rebase-todo") else { return Vec::new() };
    String::from_utf8_lossy(&todo)
        .lines()
        .filter_map(|line| line.trim_start().split_once(char::is_whitespace))
        .filter(|(command, _)| matches!(*command, "exec" | "x"))
        .map(|(_, command)| command.trim().to_owned())
        .collect()
}

/// What `.git` is when it is no directory that can be read; a directory is odd.
pub(super) fn look_at_name(root: BorrowedFd<'_>, path: &Path) -> Repository {
    match look(root, path).as_ref().map(kind) {
        Err(_) => Repository::Absent,
        Ok(Kind::Link) => match readlinkat(root, path) {
            Ok(target) => Repository::Link(target.into_vec()),
            Err(_) => Repository::Odd,
        },
        Ok(Kind::File) => match read_file(root, path, MAX_INNER_FILE) {
            Ok(Some(bytes)) => Repository::File(bytes),
            Ok(None) | Err(_) => Repository::Odd,
        },
        Ok(Kind::Directory | Kind::Pipe | Kind::Socket | Kind::Device) => Repository::Odd,
    }
}

/// Paths of the submodules' repositories. A submodule may have slashes in its name, and submodules of its own.
fn modules(directory: &OwnedFd, most: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut queue = std::collections::VecDeque::from([("modules".to_owned(), 1_usize)]);
    let mut walked = 0_usize;
    while let Some((at, depth)) = queue.pop_front() {
        walked = walked.saturating_add(1);
        if walked > MAX_WALK || depth > MAX_DEPTH {
            continue;
        }
        for name in names_in(directory, &at) {
            let path = format!("{at}/{name}");
            let is = |file: &str| look_below(directory, &format!("{path}/{file}"));
            if is("HEAD") || is("config") {
                if found.len() >= most {
                    return found;
                }
                queue.push_back((format!("{path}/modules"), depth.saturating_add(1)));
                found.push(path);
            } else if queue.len() < MAX_WALK {
                queue.push_back((path, depth.saturating_add(1)));
            }
        }
    }
    found
}

/// Whether there is anything of this name.
fn look_below(directory: &OwnedFd, path: &str) -> bool {
    open_name(directory.as_fd(), Path::new(path), OFlag::O_PATH, Mode::empty()).is_ok()
}

fn read_config(directory: &OwnedFd, file: &str) -> Config {
    let most = if file.contains('/') { MAX_INNER_FILE } else { gitconfig::MAX_FILE };
    match read_file(directory.as_fd(), Path::new(file), most) {
        Err(Errno::ENOENT) => Config::Absent,
        Ok(Some(bytes)) => match gitconfig::dangerous(&bytes) {
            Ok(dangerous) => Config::Read { bytes, dangerous },
            Err(_) => Config::Odd,
        },
        Ok(None) | Err(_) => Config::Odd,
    }
}

fn read_plain(directory: &OwnedFd, file: &str) -> Plain {
    match read_file(directory.as_fd(), Path::new(file), MAX_INNER_FILE) {
        Err(Errno::ENOENT) => Plain::Absent,
        Ok(Some(bytes)) => Plain::Read(bytes),
        Ok(None) | Err(_) => Plain::Odd,
    }
}

/// The content of a plain file of at most so many bytes; `None` when it is something else.
fn read_file(directory: BorrowedFd<'_>, path: &Path, most: usize) -> Result<Option<Vec<u8>>, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let fd = open_name(directory, path, flags, Mode::empty())?;
    if fstat(&fd).map(|stat| kind(&stat)) != Ok(Kind::File) {
        return Ok(None);
    }
    let bytes = read_at(&File::from(fd), 0, most.saturating_add(1)).ok();
    Ok(bytes.filter(|bytes| bytes.len() <= most))
}

/// Names in a directory below `.git` that are UTF-8, sorted; none when there is no such directory.
pub(super) fn names_in(directory: &OwnedFd, path: &str) -> Vec<String> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let opened = open_name(directory.as_fd(), Path::new(path), flags, Mode::empty());
    let Some(mut entries) = opened.ok().and_then(|fd| Dir::from_fd(fd).ok()) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .iter()
        .take(MAX_NAMES)
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned))
        .filter(|name| name != "." && name != "..")
        .collect();
    names.sort();
    names
}
