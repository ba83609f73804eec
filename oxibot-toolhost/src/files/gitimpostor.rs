//! Something else where the directory `.git` was: git would read it and run what it says.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::renameat;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::gitfiles::{Repository, look_at_name};
use super::gitguard::is_inner;
use super::reinstate::find_sibling;

/// Removes a file or link that took the place of the directory, and gives the directory its name again when it lies beside.
/// What it holds is compared afterwards like that of any other. `root` holds it; `prefix` is `root` as a person would say it.
pub(super) fn replace(root: &OwnedFd, before: &Repository, prefix: &str, notes: &mut Vec<String>) {
    let Repository::Here { identity: Some(identity), .. } = before else { return };
    let name = Path::new(".git");
    let now = look_at_name(root.as_fd(), name);
    match &now {
        Repository::Absent | Repository::Here { .. } => return,
        // A submodule whose repository moved into that of the workspace, where it is looked at.
        Repository::File(bytes) if !prefix.is_empty() && is_inner(bytes) => return,
        // Also a directory that cannot be opened, which is not removed: the caller tells it.
        Repository::File(_) | Repository::Link(_) | Repository::Odd => {}
    }
    if unlinkat(root, name, UnlinkatFlags::NoRemoveDir).is_err() {
        return;
    }
    let found = find_sibling(root, *identity);
    let renamed = found.is_some_and(|from| renameat(root, Path::new(&from), root, name).is_ok());
    let (verb, rest) = if renamed {
        ("put back", "")
    } else {
        ("removed", ". The directory is not beside it: look for it before you run git here")
    };
    notes.push(format!(
        "{verb} {prefix}.git: it was a directory and {} had taken its place; git would use another repository on the \
         host{rest}",
        now.what()
    ));
}
