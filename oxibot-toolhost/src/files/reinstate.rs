//! Puts a guarded name back as it was recorded, and says so. See [`super::nameguard`], which records.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{readlinkat, renameat};
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::unistd::symlinkat;

use super::fault::Fault;
use super::nameguard::{MAX_FILE, Node, Version, content};
use super::text;
use super::tree::{names_of, open_directory, remove, unlock};
use super::workspace::{Identity, Kind, identity, kind, look};
use super::write::{replace_as, target_in};

/// Notes of one call.
const MAX_NOTES: usize = 20;
/// Names of a directory among which one that was moved aside is looked for.
const MAX_SIBLINGS: usize = 4096;
/// Entries removed for one guarded name.
const MAX_REMOVED: usize = 20_000;
/// Names tried for what has to make room and cannot be removed.
const MAX_TRIES: u32 = 64;
/// Why it is done.
const REASON: &str = "programs outside the sandbox do what it says";

/// How much may still be removed for one name.
pub(super) struct Budget {
    left: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { left: MAX_REMOVED }
    }
}

/// What was done, for the result of the call.
#[derive(Debug, Default)]
pub(super) struct Notes {
    lines: Vec<String>,
    more: usize,
}

impl Notes {
    /// Something was put back or removed.
    pub(super) fn did(&mut self, verb: &str, shown: &str) {
        self.push(format!("{verb} {}: {REASON}", text::cut(shown, 200)));
    }

    /// Something is not as it was.
    pub(super) fn failed(&mut self, shown: &str, cause: &str) {
        self.push(format!(
            "could not put back {}: {cause}; {REASON}. Look at it before you use it outside",
            text::cut(shown, 200)
        ));
    }

    fn push(&mut self, line: String) {
        if self.lines.contains(&line) {
            return;
        }
        if self.lines.len() < MAX_NOTES {
            self.lines.push(line);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// The lines, what failed first.
    pub(super) fn finish(mut self) -> Vec<String> {
        self.lines.sort_by_key(|line| !line.starts_with("could not"));
        if self.more > 0 {
            self.lines.push(format!("{} more remarks about guarded names were left out", self.more));
        }
        self.lines
    }
}

/// A name in this directory for what has this identity: where it was moved to.
pub(super) fn find_sibling(parent: &OwnedFd, wanted: Identity) -> Option<OsString> {
    let (names, _) = names_of(parent, MAX_SIBLINGS);
    names
        .into_iter()
        .find(|name| look(parent.as_fd(), Path::new(name)).is_ok_and(|stat| identity(&stat) == wanted))
}

/// Gives it its name again; what has the name makes room.
pub(super) fn rename_back(parent: &OwnedFd, from: &OsString, name: &Path) -> Result<(), Errno> {
    make_room(parent, name, &mut Budget::new())?;
    renameat(parent, Path::new(from), parent, name)
}

/// Removes what has the name, or gives it another one: what cannot be read cannot be emptied.
fn make_room(parent: &OwnedFd, name: &Path, budget: &mut Budget) -> Result<(), Errno> {
    if remove(parent, name, &mut budget.left).is_ok() {
        return Ok(());
    }
    for number in 0..MAX_TRIES {
        let mut aside = name.as_os_str().to_owned();
        aside.push(format!(".displaced-{number}"));
        match look(parent.as_fd(), Path::new(&aside)) {
            Err(Errno::ENOENT) => return renameat(parent, name, parent, Path::new(&aside)),
            Ok(_) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EEXIST)
}

/// Makes a name again what it was, and tells what had to be done for it.
pub(super) fn put_back(
    parent: &OwnedFd,
    name: &Path,
    was: &Node,
    shown: &str,
    budget: &mut Budget,
    notes: &mut Notes,
) {
    match step(parent, name, was, shown, budget, notes) {
        Ok(false) => {}
        Ok(true) => notes.did("put back", shown),
        Err(errno) => notes.failed(shown, errno.desc()),
    }
}

/// Whether it had to be changed. What is below a directory is told on its own.
fn step(
    parent: &OwnedFd,
    name: &Path,
    was: &Node,
    shown: &str,
    budget: &mut Budget,
    notes: &mut Notes,
) -> Result<bool, Errno> {
    let now = look(parent.as_fd(), name).ok();
    let is = now.as_ref().map(kind);
    match was {
        Node::File { bytes, mode } => {
            let same_mode = now.as_ref().is_some_and(|stat| stat.st_mode & 0o777 == *mode);
            if is == Some(Kind::File)
                && same_mode
                && content(parent, name, MAX_FILE).as_deref() == Some(bytes.as_slice())
            {
                return Ok(false);
            }
            if is == Some(Kind::Directory) {
                make_room(parent, name, budget)?;
            }
            unlock(parent);
            let fd = parent.try_clone().map_err(|_| Errno::EMFILE)?;
            let target = target_in(fd, name.as_os_str(), shown);
            replace_as(&target, bytes, *mode).map(|()| true).map_err(|_: Fault| Errno::EIO)
        }
        Node::Link(to) => {
            if is == Some(Kind::Link) && readlinkat(parent, name).ok().as_ref() == Some(to) {
                return Ok(false);
            }
            unlock(parent);
            make_room(parent, name, budget)?;
            symlinkat(to.as_os_str(), parent, name).map(|()| true)
        }
        Node::Other(version) => match now {
            Some(stat) if Version::of(&stat) == *version => Ok(false),
            // It was not kept. What stands there now is left, because it may be nearly the same.
            Some(_) => Err(Errno::EFBIG),
            None => Err(Errno::ENOENT),
        },
        Node::Directory { mode, entries, incomplete } => {
            let opened = if is == Some(Kind::Directory) { open_directory(parent, name).ok() } else { None };
            let (directory, made) = match opened {
                Some(directory) => (directory, false),
                None => {
                    unlock(parent);
                    make_room(parent, name, budget)?;
                    mkdirat(parent, name, Mode::S_IRWXU)?;
                    (open_directory(parent, name)?, true)
                }
            };
            for (name, node) in entries {
                let shown = below(shown, name);
                put_back(&directory, Path::new(name), node, &shown, budget, notes);
            }
            match incomplete {
                None => remove_added(&directory, |name| entries.contains_key(name), shown, budget, notes),
                // Below what was not looked at, directories may be other ones without this one having changed.
                Some(version) if now.as_ref().map(Version::of).as_ref() != Some(version) => {
                    notes.failed(
                        shown,
                        "it holds more than is kept, and something in it was added, removed or renamed",
                    );
                }
                Some(_) => {}
            }
            let changed = fstat(&directory)?.st_mode & 0o7777 != *mode;
            if changed {
                fchmod(&directory, Mode::from_bits_truncate(*mode))?;
            }
            Ok(made || changed)
        }
    }
}

fn below(shown: &str, name: &OsString) -> String {
    format!("{shown}/{}", text::cut(&text::name(name.as_bytes()), 100))
}

/// Removes what a call put into a guarded directory.
fn remove_added(
    directory: &OwnedFd,
    known: impl Fn(&OsString) -> bool,
    shown: &str,
    budget: &mut Budget,
    notes: &mut Notes,
) {
    loop {
        // So many that among them is one more than were known, if there is one.
        let (names, all) = names_of(directory, MAX_SIBLINGS.saturating_mul(2));
        let added: Vec<OsString> = names.into_iter().filter(|name| !known(name)).collect();
        if added.is_empty() {
            return;
        }
        unlock(directory);
        for name in added {
            match remove(directory, Path::new(&name), &mut budget.left) {
                Ok(()) => notes.did("removed", &below(shown, &name)),
                Err(errno) => {
                    notes.failed(&below(shown, &name), errno.desc());
                    return;
                }
            }
        }
        if all {
            return;
        }
    }
}
