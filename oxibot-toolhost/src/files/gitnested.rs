//! Finds the repositories below the top of the workspace: directories with a `.git` in them.
//!
//! Bounded, breadth first, so that what lies deep in a huge tree is missed and what lies near is not. A directory that
//! has not changed since it was last read is not read again. Nothing is opened but directories, and no link followed.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::dir::{Dir, Type};
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, fstat};

use super::workspace::{Identity, Kind, Workspace, identity, kind, look, open_name};

/// Directories looked at in one walk. Prevents a call from making the next one slow.
const MAX_DIRECTORIES: usize = 1500;
/// Levels below the workspace.
const MAX_DEPTH: usize = 8;
/// Entries of one directory.
const MAX_ENTRIES: usize = 4096;
/// Repositories looked at.
const MAX_REPOSITORIES: usize = 64;
/// Never entered: packages by the thousand, and our own files.
const SKIPPED: [&[u8]; 3] = [b".git", b"node_modules", b".oxibot-output"];
/// A directory that changed less than so many seconds ago may change again under the same time.
const SETTLED: i64 = 2;

/// What is known from earlier walks.
#[derive(Debug, Default)]
pub(super) struct Walk {
    known: HashMap<PathBuf, Listed>,
}

#[derive(Debug)]
struct Listed {
    version: (Identity, i64, i64),
    below: Vec<OsString>,
    repository: bool,
}

impl Walk {
    /// Directories with a `.git`, relative to the workspace; not the workspace itself.
    pub(super) fn repositories(&mut self, workspace: &Workspace) -> Vec<PathBuf> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let mut known = HashMap::new();
        let mut found = Vec::new();
        let mut queue = VecDeque::from([(PathBuf::from("."), 0_usize)]);
        while let Some((path, depth)) = queue.pop_front() {
            if known.len() >= MAX_DIRECTORIES || found.len() >= MAX_REPOSITORIES {
                break;
            }
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
            let Ok(directory) = open_name(workspace.handle(), &path, flags, Mode::empty()) else { continue };
            let Ok(stat) = fstat(&directory) else { continue };
            let listed = match self.known.remove(&path) {
                Some(listed)
                    if listed.version == version(&stat) && stat.st_ctime.saturating_add(SETTLED) < now =>
                {
                    listed
                }
                Some(_) | None => list(&directory, &stat),
            };
            if listed.repository && depth > 0 {
                found.push(path.clone());
            }
            if depth < MAX_DEPTH {
                let below = listed.below.iter().map(|name| (path.join(name), depth.saturating_add(1)));
                queue.extend(below.take(MAX_DIRECTORIES.saturating_sub(queue.len())));
            }
            known.insert(path, listed);
        }
        self.known = known;
        found
    }
}

fn version(stat: &FileStat) -> (Identity, i64, i64) {
    (identity(stat), stat.st_ctime, stat.st_ctime_nsec)
}

fn list(directory: &OwnedFd, stat: &FileStat) -> Listed {
    let mut listed = Listed { version: version(stat), below: Vec::new(), repository: false };
    listed.repository = look(directory.as_fd(), Path::new(".git")).is_ok();
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let opened = open_name(directory.as_fd(), Path::new("."), flags, Mode::empty());
    let Some(mut entries) = opened.ok().and_then(|fd| Dir::from_fd(fd).ok()) else { return listed };
    for entry in entries.iter().take(MAX_ENTRIES).filter_map(Result::ok) {
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." || SKIPPED.contains(&name) {
            continue;
        }
        let name = std::ffi::OsStr::from_bytes(name);
        let is_directory = match entry.file_type() {
            Some(Type::Directory) => true,
            Some(
                Type::Fifo
                | Type::CharacterDevice
                | Type::BlockDevice
                | Type::File
                | Type::Symlink
                | Type::Socket,
            ) => false,
            None => look(directory.as_fd(), Path::new(name)).is_ok_and(|s| kind(&s) == Kind::Directory),
        };
        if is_directory && listed.below.len() < MAX_DIRECTORIES {
            listed.below.push(name.to_owned());
        }
    }
    listed.below.sort();
    listed
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn repositories_are_found_and_found_again_as_they_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let workspace =
            Workspace::new(File::open(dir.path()).unwrap().into(), dir.path().to_path_buf(), Vec::new());
        let make = |path: &str| std::fs::create_dir_all(dir.path().join(path)).unwrap();
        for path in
            [".git", "a/.git", "b/c/d/.git", "node_modules/x/.git", "b/.git/modules/y/.git", "plain/deep"]
        {
            make(path);
        }
        std::fs::write(dir.path().join("plain/.git"), "gitdir: x").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        let mut walk = Walk::default();
        let mut found = || {
            let mut found: Vec<String> =
                walk.repositories(&workspace).iter().map(|path| path.display().to_string()).collect();
            found.sort();
            found
        };
        let all = ["./a", "./b", "./b/c/d", "./plain"];
        assert_eq!(found(), all);
        std::thread::sleep(std::time::Duration::from_secs(4));
        assert_eq!(found(), all, "read again, because they were fresh");
        assert_eq!(found(), all, "remembered");
        make("plain/deep/.git");
        std::fs::remove_dir(dir.path().join("a/.git")).unwrap();
        assert_eq!(found(), ["./b", "./b/c/d", "./plain", "./plain/deep"]);
    }

    #[test]
    fn a_walk_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let workspace =
            Workspace::new(File::open(dir.path()).unwrap().into(), dir.path().to_path_buf(), Vec::new());
        for number in 0..MAX_DIRECTORIES + 50 {
            std::fs::create_dir_all(dir.path().join(format!("{number}/.git"))).unwrap();
        }
        let mut walk = Walk::default();
        assert_eq!(walk.repositories(&workspace).len(), MAX_REPOSITORIES);
        assert!(walk.known.len() <= MAX_DIRECTORIES);
    }
}
