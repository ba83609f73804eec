//! Directories of the workspace as lists of names, and their removal. Follows no symbolic link; bounded by its callers.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::workspace::{Kind, kind, look, open_name};

/// Levels of a directory that is removed.
const MAX_DEPTH: usize = 32;

/// Opens a directory for reading.
pub(super) fn open_directory(parent: &OwnedFd, name: &Path) -> Result<OwnedFd, Errno> {
    open_name(parent.as_fd(), name, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())
}

/// Lets its owner change what is in a directory: a call that forbids it would keep what it changed.
pub(super) fn unlock(directory: &OwnedFd) {
    let Ok(stat) = fstat(directory) else { return };
    let mode = Mode::from_bits_truncate(stat.st_mode);
    if !mode.contains(Mode::S_IRWXU) {
        // Should it fail, so does what is done next, which is told.
        let _ = fchmod(directory, mode | Mode::S_IRWXU);
    }
}

/// At most so many names of a directory, sorted, and whether these are all.
pub(super) fn names_of(directory: &OwnedFd, most: usize) -> (Vec<OsString>, bool) {
    let again = open_directory(directory, Path::new("."));
    let Some(mut entries) = again.ok().and_then(|fd| Dir::from_fd(fd).ok()) else {
        return (Vec::new(), false);
    };
    let (mut names, mut all) = (Vec::new(), true);
    for entry in entries.iter() {
        let Ok(entry) = entry else {
            all = false;
            break;
        };
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if names.len() >= most {
            all = false;
            break;
        }
        names.push(OsStr::from_bytes(name).to_owned());
    }
    names.sort();
    (names, all)
}

/// Removes a file, or a directory with all that is in it, as long as `left` entries suffice.
pub(super) fn remove(parent: &OwnedFd, name: &Path, left: &mut usize) -> Result<(), Errno> {
    remove_below(parent, name, left, MAX_DEPTH)
}

fn remove_below(parent: &OwnedFd, name: &Path, left: &mut usize, depth: usize) -> Result<(), Errno> {
    *left = left.checked_sub(1).ok_or(Errno::E2BIG)?;
    match look(parent.as_fd(), name) {
        Err(Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(errno),
        Ok(stat) if kind(&stat) != Kind::Directory => {
            return unlinkat(parent, name, UnlinkatFlags::NoRemoveDir);
        }
        Ok(_) => {}
    }
    // An empty directory needs not be readable.
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
        done => return done,
    }
    let below = depth.checked_sub(1).ok_or(Errno::E2BIG)?;
    let directory = open_directory(parent, name)?;
    unlock(&directory);
    loop {
        let (names, all) = names_of(&directory, 1024);
        if names.is_empty() {
            break;
        }
        for name in names {
            remove_below(&directory, Path::new(&name), left, below)?;
        }
        if all {
            break;
        }
    }
    unlinkat(parent, name, UnlinkatFlags::RemoveDir)
}
