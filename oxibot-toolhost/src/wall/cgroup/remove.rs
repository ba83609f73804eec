//! Removing cgroups by name: of a zygote that ended, of a run that ended, of runs that died.
//!
//! Only names of runs of ours are touched (see `session`). What still lives in a cgroup that is removed is ended: only a
//! zygote puts processes there, and only its own calls. Nothing here blocks for long: a process the kernel cannot end
//! keeps its cgroup, and the next try or the next start removes it.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::files;
use super::find;
use crate::wall::session;

/// Behind the prefix: where our own processes wait in version 2.
const ROOM: &str = "self";
/// Cgroups in cgroups that are descended into: a zygote's, a call's, and one more. Calls cannot make any.
const DEPTH: u32 = 3;

/// Name of the cgroup for our own processes.
pub(super) fn room(prefix: &str) -> String {
    format!("{prefix}{ROOM}")
}

/// What a run may leave, wherever it found a place for it.
#[derive(Debug)]
pub(in crate::wall) struct Remains {
    directories: Vec<PathBuf>,
    prefix: String,
}

impl Remains {
    /// Of the run whose names begin with `prefix`, in the cgroups this process is in now.
    pub(in crate::wall) fn of(prefix: &str) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let first =
            super::Counter::ALL.map(|counter| find::of_controller(&own, &mounts, counter.controller()));
        let all = first.into_iter().chain([find::unified(&own, &mounts)]).flatten();
        let mut directories: Vec<PathBuf> = all.map(|own| own.directory).collect();
        directories.dedup();
        Self { directories, prefix: prefix.to_owned() }
    }

    /// Removes what zygote `number` had. `false` while something of it is still there.
    pub(in crate::wall) fn remove_zone(&self, number: u32) -> bool {
        let name = format!("{}{number}", self.prefix);
        self.directories.iter().map(|directory| remove_tree(&directory.join(&name), DEPTH)).fold(true, and)
    }

    /// Removes everything of this run, our own processes put back where they were. `false` as above.
    pub(in crate::wall) fn remove_all(&self) -> bool {
        let room = room(&self.prefix);
        let ours = |name: &str| name.starts_with(&self.prefix) && name != room;
        let removed = self.remove_named(ours);
        self.directories.iter().map(|directory| give_back(directory, &self.prefix)).fold(removed, and)
    }

    /// Removes what runs left whose keeper is dead.
    pub(in crate::wall) fn remove_stale(&self) {
        let room = format!("-{ROOM}");
        self.remove_named(|name| !name.ends_with(&room) && session::is_stale(name));
        for directory in &self.directories {
            for name in names(directory) {
                if name.ends_with(&room) && session::is_stale(&name) {
                    // Empty, or one of ours still lives in it: then it is not ours to end.
                    let _ = fs::remove_dir(directory.join(name));
                }
            }
        }
    }

    fn remove_named(&self, wanted: impl Fn(&str) -> bool) -> bool {
        let mut removed = true;
        for directory in &self.directories {
            for name in names(directory).filter(|name| wanted(name)) {
                removed &= remove_tree(&directory.join(name), DEPTH);
            }
        }
        removed
    }
}

fn and(one: bool, other: bool) -> bool {
    one && other
}

fn names(directory: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
}

/// Ends what is in a cgroup and below it, and removes it. `false` while something is still there.
fn remove_tree(directory: &Path, depth: u32) -> bool {
    let Ok(handle) = files::open_directory(directory) else { return !directory.exists() };
    if depth > 0 {
        for name in names(directory) {
            remove_tree(&directory.join(name), depth - 1);
        }
    }
    // EPERM: another user's, who is then the one to do it.
    for member in files::members(&handle).unwrap_or_default() {
        let _ = kill(Pid::from_raw(member), Signal::SIGKILL);
    }
    fs::remove_dir(directory).is_ok() || !directory.exists()
}

/// Version 2: nothing is divided any more and our own processes are where they were. `false` if that was not possible.
pub(super) fn give_back(directory: &Path, prefix: &str) -> bool {
    let room = directory.join(room(prefix));
    let Ok(from) = files::open_directory(&room) else { return !room.exists() };
    let Ok(to) = files::open_directory(directory) else { return false };
    for controller in super::Counter::ALL {
        // EBUSY: something is left below; the members cannot go back then.
        let _ = files::write(&to, "cgroup.subtree_control", &format!("-{}", controller.controller()));
    }
    for member in files::members(&from).unwrap_or_default() {
        let _ = files::write(&to, "cgroup.procs", &member.to_string());
    }
    fs::remove_dir(&room).is_ok()
}
