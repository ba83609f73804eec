//! Where cgroups may be made, so that nobody else is disturbed.
//!
//! Version 2 is used where the cgroup we were started in is ours to divide:
//! - it carries the mark of delegation (`user.delegate` or `trusted.delegate`, systemd's `Delegate=yes`), or it is owned
//!   by us and the one above it is not, or it is the root of a cgroup namespace; and nobody but our own processes (this
//!   one, those above it that are OxiBot, and what is below them) is in it; or
//! - we are root in the root of the whole tree, where cgroups and processes may be side by side.
//!
//! A process of version 2 may not stay beside cgroups that are divided, so ours are moved to one of their own, and back
//! at the end. Owning a directory is no delegation: the parts of a user's systemd session are owned by the user, and
//! divided by systemd.
//!
//! Version 1 has no such rule, a new cgroup changes nothing for others: it is used where we may make one. What a cgroup
//! namespace hides is not looked for.

use std::ffi::CStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bincode::{Decode, Encode};
use nix::fcntl::AtFlags;
use nix::unistd::{AccessFlags, Pid, faccessat, geteuid};

use super::find::{self, Own};
use super::{Counter, Version, files};
use crate::sys;
use crate::wall::family;

/// Tries to move our own processes out of the way: one may start another meanwhile.
const MOVES: usize = 8;

/// Who may be in the cgroup we were started in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Members {
    /// A unit of its own, delegated: systemd puts nobody else there. Where its `/proc` hides processes it is not to be
    /// found out either.
    OnlyUs,
    /// It is looked.
    Unknown,
}

/// One directory in which zygotes get cgroups.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    pub(super) directory: String,
    pub(super) counters: Vec<Counter>,
}

/// Where a zygote may make cgroups.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(in crate::wall) struct Place {
    pub(super) hierarchies: Vec<Hierarchy>,
    /// Begins all names.
    pub(super) prefix: String,
    /// What cannot be counted and why.
    pub(super) missing: String,
}

impl Place {
    /// Nothing yet: an order on its way to the nursery.
    pub(in crate::wall) fn unknown() -> Self {
        Self { hierarchies: Vec::new(), prefix: String::new(), missing: String::new() }
    }

    /// Finds where, and makes it ready. Names will begin with `prefix`.
    pub(in crate::wall) fn prepare(prefix: &str, members: Members) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut place = Self { hierarchies: Vec::new(), prefix: prefix.to_owned(), missing: String::new() };
        let unified =
            find::unified(&own, &mounts).ok_or_else(|| "cgroup version 2 is not mounted".to_owned());
        let unified = unified.and_then(|own| unified_hierarchy(&own, prefix, members));
        let mut why_not = String::new();
        match unified {
            Ok(hierarchy) => place.hierarchies.push(hierarchy),
            Err(reason) => why_not = reason,
        }
        let mut missing = Vec::new();
        for counter in Counter::ALL {
            if place.hierarchies.iter().any(|hierarchy| hierarchy.counters.contains(&counter)) {
                continue;
            }
            match first_version(&own, &mounts, counter) {
                Ok(directory) => place.first_version(directory, counter),
                Err(reason) => missing.push(format!("no {} cgroup: {reason}", counter.controller())),
            }
        }
        if !missing.is_empty() {
            if !why_not.is_empty() {
                missing.push(why_not);
            }
            place.missing = missing.join("; ");
        }
        place
    }

    fn first_version(&mut self, directory: String, counter: Counter) {
        // Controllers may share a hierarchy.
        match self.hierarchies.iter_mut().find(|known| known.directory == directory) {
            Some(known) => known.counters.push(counter),
            None => {
                self.hierarchies.push(Hierarchy { version: Version::One, directory, counters: vec![counter] })
            }
        }
    }
}

fn first_version(own: &str, mounts: &str, counter: Counter) -> Result<String, String> {
    let own = find::of_controller(own, mounts, counter.controller())
        .ok_or_else(|| "version 1 has none here".to_owned())?;
    writable(&own.directory)?;
    name(&own.directory)
}

fn name(directory: &Path) -> Result<String, String> {
    directory.to_str().map(str::to_owned).ok_or_else(|| "its name is no text".to_owned())
}

/// Asks for the rights in force, which for root are more than the mode says.
fn writable(directory: &Path) -> Result<(), String> {
    let wanted = AccessFlags::W_OK | AccessFlags::X_OK;
    faccessat(nix::fcntl::AT_FDCWD, directory, wanted, AtFlags::AT_EACCESS)
        .map_err(|errno| format!("cannot write {}: {errno}", directory.display()))
}

fn unified_hierarchy(own: &Own, prefix: &str, members: Members) -> Result<Hierarchy, String> {
    let directory = &own.directory;
    let text = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
    let offered = text("cgroup.controllers");
    let counters: Vec<Counter> = Counter::ALL
        .into_iter()
        .filter(|counter| offered.split_whitespace().any(|one| one == counter.controller()))
        .collect();
    if counters.is_empty() {
        return Err(format!("version 2 has no controllers in {}", directory.display()));
    }
    writable(directory)?;
    let root_of_all = !directory.join("cgroup.type").exists();
    if !root_of_all {
        delegated(own, members)?;
        make_room(directory, prefix)?;
    }
    enable(directory, &counters).map_err(|errno| {
        if !root_of_all {
            super::remove::give_back(directory, prefix);
        }
        format!("cannot divide {}: {errno}", directory.display())
    })?;
    Ok(Hierarchy { version: Version::Two, directory: name(directory)?, counters })
}

/// Enables controllers for the cgroups below a directory.
pub(super) fn enable(directory: &Path, counters: &[Counter]) -> nix::Result<()> {
    let handle = files::open_directory(directory)?;
    enable_at(handle.as_fd(), counters)
}

pub(super) fn enable_at(directory: impl AsFd, counters: &[Counter]) -> nix::Result<()> {
    let enabled = files::read(&directory, "cgroup.subtree_control")?;
    for counter in counters {
        if !enabled.split_whitespace().any(|one| one == counter.controller()) {
            files::write(&directory, "cgroup.subtree_control", &format!("+{}", counter.controller()))?;
        }
    }
    Ok(())
}

fn delegated(own: &Own, members: Members) -> Result<(), String> {
    const MARKS: [&CStr; 2] = [c"user.delegate", c"trusted.delegate"];
    let directory = &own.directory;
    let user = geteuid().as_raw();
    let owner = |path: &Path| fs::metadata(path).map(|found| found.uid()).ok();
    let above = directory.parent().and_then(owner);
    let border = user != 0 && owner(directory) == Some(user) && above != Some(user);
    let handle = files::open_directory(directory)
        .map_err(|errno| format!("cannot open {}: {errno}", directory.display()))?;
    let marked = MARKS.iter().any(|mark| sys::attribute_is(handle.as_fd(), mark, b"1"));
    if !(border || marked || own.top) {
        return Err(format!("{} is not delegated to us; {}", directory.display(), remedy()));
    }
    match members {
        Members::OnlyUs => return Ok(()),
        Members::Unknown => {}
    }
    let ours = family::ourselves();
    let members = files::members(&handle)
        .map_err(|errno| format!("cannot read the members of {}: {errno}", directory.display()))?;
    if members.iter().all(|member| ours.contains(member)) {
        Ok(())
    } else {
        Err(format!("processes that are not ours are in {}; {}", directory.display(), remedy()))
    }
}

fn remedy() -> &'static str {
    if geteuid().is_root() {
        "start OxiBot in a cgroup of its own: systemd-run --scope -p Delegate=yes oxibot ..."
    } else {
        "start OxiBot in a cgroup of its own: systemd-run --user --scope -p Delegate=yes oxibot ..."
    }
}

/// Moves our own processes to a cgroup of their own.
fn make_room(directory: &Path, prefix: &str) -> Result<(), String> {
    let room = directory.join(super::remove::room(prefix));
    let moved = || -> nix::Result<()> {
        fs::create_dir(&room)
            .map_err(|error| nix::Error::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        let (from, to) = (files::open_directory(directory)?, files::open_directory(&room)?);
        for _ in 0..MOVES {
            let members = files::members(&from)?;
            if members.is_empty() {
                return Ok(());
            }
            for member in members {
                match files::write(&to, "cgroup.procs", &Pid::from_raw(member).to_string()) {
                    // It ended.
                    Ok(()) | Err(nix::Error::ESRCH) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        Err(nix::Error::EBUSY)
    };
    moved().map_err(|errno| {
        super::remove::give_back(directory, prefix);
        format!("cannot move our processes below {}: {errno}", directory.display())
    })
}
