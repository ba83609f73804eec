//! Which file is started, and whether it can be trusted: opened once, checked, run by that descriptor.
//!
//! Whoever can replace the toolhost, or rename a directory above it, has everything the toolhost has: `trust` says who
//! that may be. Checked after opening, on the opened file; the path is the canonical one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::LaunchError;
use crate::trust::Owners;

/// File name of the toolhost.
const TOOLHOST: &str = "oxibot-toolhost";
/// File name of the fetch worker.
const FETCH: &str = "oxibot-fetch";
/// Where packages put what is not for typing.
const LIBEXEC: &str = "/usr/libexec/oxibot";

const SET_ID: u32 = 0o6000;

/// A program that was opened and checked.
#[derive(Debug)]
pub struct Program {
    file: File,
    /// Where it was found, for messages.
    pub path: PathBuf,
}

impl Program {
    /// Path that runs exactly the opened file, in this process and in a child that has just been forked from it.
    #[must_use]
    pub fn by_descriptor(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

impl Program {
    /// The opened file, for who starts it.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Finds the fetch worker where the toolhost is looked for.
///
/// # Errors
/// As [`find_toolhost`].
pub fn find_fetch() -> Result<Program, LaunchError> {
    find_program(FETCH)
}

/// Finds the toolhost beside the running program or in `/usr/libexec/oxibot`, opens and checks it.
///
/// # Errors
/// [`LaunchError::NotFound`] and [`LaunchError::Untrusted`]; never falls through from an untrusted file to another.
pub fn find_toolhost() -> Result<Program, LaunchError> {
    find_program(TOOLHOST)
}

fn find_program(name: &str) -> Result<Program, LaunchError> {
    let own =
        std::fs::read_link("/proc/self/exe").map_err(LaunchError::system("find the running program"))?;
    let beside = own.parent().map(Path::to_path_buf);
    find(name, beside.into_iter().chain([PathBuf::from(LIBEXEC)]).collect(), &Owners::of_this_process())
}

fn find(name: &str, directories: Vec<PathBuf>, owners: &Owners) -> Result<Program, LaunchError> {
    for directory in &directories {
        match directory.join(name).canonicalize() {
            Ok(path) => return open(path, owners),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(LaunchError::System { step: "look for the toolhost", cause }),
        }
    }
    Err(LaunchError::NotFound { name: name.to_owned(), looked: directories })
}

fn open(path: PathBuf, owners: &Owners) -> Result<Program, LaunchError> {
    // O_PATH: running needs no right to read. O_NOFOLLOW: the path is canonical, a link now would be a swap.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(&path)
        .map_err(LaunchError::system("open the toolhost"))?;
    let metadata = file.metadata().map_err(LaunchError::system("look at the toolhost"))?;
    let untrusted = |path: &Path, reason: &str| LaunchError::Untrusted {
        path: path.to_path_buf(),
        reason: reason.to_owned(),
    };
    if !metadata.is_file() {
        return Err(untrusted(&path, "it is not a regular file"));
    }
    if metadata.mode() & SET_ID != 0 {
        return Err(untrusted(&path, "it changes its user or group when it is started"));
    }
    if let Some(reason) = owners.distrust(&metadata) {
        return Err(untrusted(&path, &reason));
    }
    let above = owners.distrust_above(&path).map_err(LaunchError::system("look at a directory"))?;
    if let Some((directory, reason)) = above {
        return Err(untrusted(&directory, &reason));
    }
    Ok(Program { file, path })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn program(directory: &Path, mode: u32) -> PathBuf {
        let path = directory.join("tool");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn check(directory: &Path) -> Result<Program, LaunchError> {
        find("tool", vec![directory.to_path_buf()], &Owners::of_this_process())
    }

    #[test]
    fn our_own_file_in_our_own_directory_is_accepted() {
        let directory = tempfile::tempdir().unwrap();
        program(directory.path(), 0o755);
        let found = check(directory.path()).unwrap();
        assert_eq!(found.by_descriptor(), PathBuf::from(format!("/proc/self/fd/{}", found.file.as_raw_fd())));
    }

    #[test]
    fn what_others_may_write_is_refused() {
        for mode in [0o757, 0o777, 0o4755, 0o2755] {
            let directory = tempfile::tempdir().unwrap();
            program(directory.path(), mode);
            assert!(matches!(check(directory.path()), Err(LaunchError::Untrusted { .. })), "{mode:o}");
        }
    }

    #[test]
    fn a_directory_others_may_write_is_refused_unless_it_is_sticky() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("bin");
        std::fs::create_dir(&inner).unwrap();
        program(&inner, 0o755);
        for (mode, accepted) in [(0o755, true), (0o777, false), (0o1777, true)] {
            std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(check(&inner).is_ok(), accepted, "{mode:o}");
        }
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = program(directory.path(), 0o755);
        let stranger = Owners::of(54_321);
        let owner = path.metadata().unwrap().uid();
        let verdict = find("tool", vec![directory.path().to_path_buf()], &stranger);
        // As root the file is root's, which is trusted by everybody: then it is given away.
        if owner == 0 {
            std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
            let verdict = find("tool", vec![directory.path().to_path_buf()], &stranger);
            assert!(matches!(verdict, Err(LaunchError::Untrusted { .. })));
        } else {
            assert!(matches!(verdict, Err(LaunchError::Untrusted { .. })));
        }
    }

    #[test]
    fn a_missing_file_names_the_places() {
        let directory = tempfile::tempdir().unwrap();
        let error = check(directory.path()).unwrap_err();
        assert!(error.to_string().contains(&directory.path().display().to_string()), "{error}");
    }

    #[test]
    fn a_link_leads_to_the_file_that_is_checked() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().join("real");
        std::fs::create_dir(&real).unwrap();
        program(&real, 0o755);
        std::os::unix::fs::symlink(real.join("tool"), directory.path().join("tool")).unwrap();
        assert_eq!(check(directory.path()).unwrap().path, real.canonicalize().unwrap().join("tool"));
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(check(directory.path()).is_err());
    }
}
