//! The hooks of one repository, before and after a call: programs that git runs by itself.
//!
//! Where a directory of hooks was there when the call began, what is in it afterwards is what was in it before. What a
//! call makes with a repository of its own is only told. Bounded: what is too large to be kept is only compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::fault::Fault;
use super::gitfiles::names_in;
use super::read::read_at;
use super::text;
use super::workspace::{Kind, kind, look, open_name, size};
use super::write::{replace, target_in};

/// Hooks of one directory. Git knows less than thirty.
const MAX_HOOKS: usize = 100;
/// Largest hook that is kept.
const MAX_HOOK: u64 = 64 * 1024;
/// Hooks that git runs during everyday commands: asked for by name where a directory holds more than is listed.
const EVERYDAY: [&str; 14] = [
    "applypatch-msg",
    "commit-msg",
    "fsmonitor-watchman",
    "post-checkout",
    "post-commit",
    "post-index-change",
    "post-merge",
    "post-rewrite",
    "pre-auto-gc",
    "pre-commit",
    "pre-merge-commit",
    "pre-push",
    "prepare-commit-msg",
    "reference-transaction",
];

/// Stands for the directory itself where that is a symbolic link: no hook is called so.
const LINK: &str = "";

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hook {
    File {
        bytes: Vec<u8>,
        /// Permission bits: one that may not be executed is not run.
        mode: u32,
    },
    /// A symbolic link, and where it leads.
    Link(Vec<u8>),
    /// Too large to be kept, or nothing git would run: inode, size, time of change.
    Other(u64, i64, i64, i64),
}

/// A directory of hooks; `None` when there is none.
pub(super) type Hooks = Option<BTreeMap<String, Hook>>;

/// What is there now, and again all that was there before. `room` is how many bytes may still be kept.
pub(super) fn record(directory: &OwnedFd, at: &str, before: Option<&Hooks>, room: &mut u64) -> Hooks {
    let path = Path::new(at);
    if let Ok(stat) = look(directory.as_fd(), path)
        && kind(&stat) == Kind::Link
    {
        // What it leads to is the workspace's own, and guarded where it can be; that it still leads there is looked at.
        let link = readlinkat(directory, path).map_or_else(|_| other(&stat), |to| Hook::Link(to.into_vec()));
        return Some(BTreeMap::from([(LINK.to_owned(), link)]));
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let hooks = open_name(directory.as_fd(), path, flags, Mode::empty()).ok()?;
    let listed = names_in(directory, at);
    let everyday = EVERYDAY.iter().filter(|_| listed.len() > MAX_HOOKS).map(|name| (*name).to_owned());
    let known = before.and_then(Option::as_ref).into_iter().flat_map(BTreeMap::keys).cloned();
    let names: BTreeSet<String> = everyday
        .chain(known)
        .chain(listed.iter().filter(|name| !name.ends_with(".sample")).take(MAX_HOOKS).cloned())
        .collect();
    Some(names.into_iter().filter_map(|name| Some((name.clone(), read(&hooks, &name, room)?))).collect())
}

fn read(hooks: &OwnedFd, name: &str, room: &mut u64) -> Option<Hook> {
    let path = Path::new(name);
    let stat = look(hooks.as_fd(), path).ok()?;
    match kind(&stat) {
        Kind::Directory => None,
        Kind::Link => {
            Some(readlinkat(hooks, path).map_or_else(|_| other(&stat), |to| Hook::Link(to.into_vec())))
        }
        Kind::File => Some(read_plain(hooks, path, room).unwrap_or_else(|| other(&stat))),
        Kind::Pipe | Kind::Socket | Kind::Device => Some(other(&stat)),
    }
}

fn other(stat: &FileStat) -> Hook {
    Hook::Other(stat.st_ino, stat.st_size, stat.st_ctime, stat.st_ctime_nsec)
}

fn read_plain(hooks: &OwnedFd, path: &Path, room: &mut u64) -> Option<Hook> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = open_name(hooks.as_fd(), path, flags, Mode::empty()).ok()?;
    let stat = fstat(&file).ok()?;
    let most = MAX_HOOK.min(*room);
    if kind(&stat) != Kind::File || size(&stat) > most {
        return None;
    }
    let limit = usize::try_from(most).unwrap_or(0);
    let bytes = read_at(&File::from(file), 0, limit.saturating_add(1)).ok().filter(|b| b.len() <= limit)?;
    *room = room.saturating_sub(bytes.len() as u64);
    Some(Hook::File { bytes, mode: stat.st_mode & 0o777 })
}

/// Puts back what was changed, removes what was added, and tells it. `shown` is the directory as a person would say it.
pub(super) fn put_back(
    directory: Option<&OwnedFd>,
    at: &str,
    shown: &str,
    old: &Hooks,
    new: &Hooks,
    notes: &mut Vec<String>,
) {
    let (Some(old), Some(new)) = (old, new) else {
        note_created(shown, new, notes);
        return;
    };
    if old == new {
        return;
    }
    if old.get(LINK) != new.get(LINK) {
        // A link that was there cannot be made again: then no hooks at all are what is safe.
        let done = if new.contains_key(LINK) { replace_link(directory, at, old, shown) } else { Ok(()) };
        let verb = if done.is_ok() && !old.contains_key(LINK) { "put back" } else { "could not put back" };
        notes.push(format!("{verb} {shown}: git would run other hooks on the host"));
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let hooks = directory.and_then(|fd| open_name(fd.as_fd(), Path::new(at), flags, Mode::empty()).ok());
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).filter(|name| *name != LINK).collect();
    for name in names {
        let (was, is) = (old.get(name), new.get(name));
        if was == is {
            continue;
        }
        let shown = format!("{shown}/{}", text::cut(&text::name(name.as_bytes()), 100));
        let done =
            hooks.as_ref().ok_or_else(|| Fault::errno("write", &shown, Errno::ENOENT)).and_then(|hooks| {
                match was {
                    Some(Hook::File { bytes, mode }) => write(hooks, name, bytes, *mode, &shown),
                    // What a link or a giant was cannot be made again. What is there instead is not to be run.
                    Some(Hook::Link(_) | Hook::Other(..)) => match is {
                        Some(_) => {
                            remove(hooks, name, &shown).and(Err(Fault::errno("write", &shown, Errno::EPERM)))
                        }
                        None => Err(Fault::errno("write", &shown, Errno::EPERM)),
                    },
                    None => remove(hooks, name, &shown),
                }
            });
        let verb = match (done.is_ok(), was) {
            (true, None) => "removed",
            (true, Some(_)) => "put back",
            (false, _) => "could not put back",
        };
        notes.push(format!("{verb} {shown}: git would run it on the host"));
    }
}

/// Takes a link away that a call put where the hooks are, and makes a directory where one was.
fn replace_link(
    directory: Option<&OwnedFd>,
    at: &str,
    old: &BTreeMap<String, Hook>,
    shown: &str,
) -> Result<(), Fault> {
    let fail = |errno| Fault::errno("write", shown, errno);
    let directory = directory.ok_or_else(|| fail(Errno::ENOENT))?;
    let (above, name) = at.rsplit_once('/').unwrap_or((".", at));
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let above = open_name(directory.as_fd(), Path::new(above), flags, Mode::empty()).map_err(fail)?;
    remove(&above, name, shown)?;
    if old.contains_key(LINK) {
        return Ok(());
    }
    mkdirat(&above, name, Mode::from_bits_truncate(0o755)).map_err(fail)
}

/// Tells the hooks of a repository that the call made.
pub(super) fn note_created(shown: &str, new: &Hooks, notes: &mut Vec<String>) {
    let names = new.iter().flat_map(BTreeMap::keys);
    notes.extend(names.map(|name| {
        format!("created_executable_config: {shown}/{}", text::cut(&text::name(name.as_bytes()), 100))
    }));
}

fn write(hooks: &OwnedFd, name: &str, bytes: &[u8], mode: u32, shown: &str) -> Result<(), Fault> {
    let fail = |errno| Fault::errno("write", shown, errno);
    let fd = hooks.try_clone().map_err(|error| Fault::io("write", shown, &error))?;
    replace(&target_in(fd, name, shown), bytes)?;
    let file = open_name(hooks.as_fd(), Path::new(name), OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty());
    fchmod(file.map_err(fail)?, Mode::from_bits_truncate(mode)).map_err(fail)
}

fn remove(hooks: &OwnedFd, name: &str, shown: &str) -> Result<(), Fault> {
    match unlinkat(hooks, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(Fault::errno("remove", shown, errno)),
    }
}
