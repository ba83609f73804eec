//! The cgroups of one zygote and of its calls, by descriptor.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Gid, Pid, Uid, UnlinkatFlags, fchown, fchownat, unlinkat};
use oxibot_proto::settings::Limits;

use super::place::{Hierarchy, Place, enable_at};
use super::{Counted, Counter, Version, files};
use crate::wall::fault::{Step, fault};
use crate::wire::{LimitEvents, WallFault};

const MIB: u64 = 1 << 20;
/// Most tasks the kernel lets one ask for.
const MOST_TASKS: u64 = 4_194_304;
/// The init of a call is in its cgroup too.
const INIT: u64 = 1;
/// Where a zygote of version 2 itself is.
const ITSELF: &str = "zygote";
/// Files of version 2 whose owner divides a cgroup, see cgroups(7) on delegation.
const DIVIDING: [&str; 3] = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];

/// A cgroup in one hierarchy.
#[derive(Debug)]
struct Part {
    version: Version,
    counters: Vec<Counter>,
    directory: OwnedFd,
}

/// The cgroups of one zygote.
#[derive(Debug)]
pub(in crate::wall) struct Zone {
    parts: Vec<Part>,
    made: u64,
}

/// The cgroups of one call.
#[derive(Debug)]
pub(in crate::wall) struct Leaf {
    parts: Vec<Part>,
    name: String,
    limits: Limits,
}

impl Zone {
    /// Makes them, and for version 2 enters them: who unshares the cgroup namespace next is at its root. What is
    /// missing is said, not an error: process limits are there without it.
    pub(in crate::wall) fn make(place: &Place, number: u32) -> (Option<Self>, Counted) {
        if place.hierarchies.is_empty() {
            return (None, Counted::nothing(place.missing.clone()));
        }
        let name = format!("{}{number}", place.prefix);
        let mut zone = Self { parts: Vec::new(), made: 0 };
        for hierarchy in &place.hierarchies {
            match part(hierarchy, &name) {
                Ok(part) => zone.parts.push(part),
                // What was made is removed by the nursery, which knows the name.
                Err(fault) => return (None, Counted::nothing(fault.to_string())),
            }
        }
        let counted = zone.counted(&place.missing);
        (Some(zone), counted)
    }

    fn counted(&self, missing: &str) -> Counted {
        let by = |part: &Part| {
            let version = match part.version {
                Version::One => "v1",
                Version::Two => "v2",
            };
            let names: Vec<&str> = part.counters.iter().map(|counter| counter.controller()).collect();
            format!("{version}: {}", names.join(", "))
        };
        Counted {
            counters: self.parts.iter().flat_map(|part| part.counters.iter().copied()).collect(),
            by: self.parts.iter().map(by).collect::<Vec<_>>().join("; "),
            missing: missing.to_owned(),
        }
    }

    /// Version 2: gets out of the way of its calls.
    pub(in crate::wall) fn divide(&self) -> Result<(), WallFault> {
        let step = "divide the cgroup of a zygote";
        for part in self.parts.iter().filter(|part| part.version == Version::Two) {
            mkdirat(&part.directory, ITSELF, directory_mode()).step(step)?;
            let itself = open_below(&part.directory, ITSELF).step(step)?;
            files::write(&itself, "cgroup.procs", "0").step(step)?;
            enable_at(&part.directory, &part.counters).step(step)?;
        }
        Ok(())
    }

    /// Makes whom the calls run as the owner, before this process becomes that user.
    pub(in crate::wall) fn hand_over(&self, uid: u32, gid: u32) -> Result<(), WallFault> {
        let step = "hand the cgroup of a zygote over";
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        for part in &self.parts {
            fchown(&part.directory, owner.0, owner.1).step(step)?;
            if part.version == Version::Two {
                for file in DIVIDING {
                    let at = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
                    fchownat(&part.directory, file, owner.0, owner.1, at).step(step)?;
                }
            }
        }
        Ok(())
    }

    /// A cgroup for one call, its limits in force.
    pub(in crate::wall) fn leaf(&mut self, limits: &Limits) -> Result<Leaf, WallFault> {
        self.made = self.made.wrapping_add(1);
        let name = format!("call-{}", self.made);
        let mut leaf = Leaf { parts: Vec::new(), name, limits: *limits };
        match self.fill(&mut leaf, limits) {
            Ok(()) => Ok(leaf),
            Err(fault) => {
                self.remove(&leaf);
                Err(fault)
            }
        }
    }

    fn fill(&self, leaf: &mut Leaf, limits: &Limits) -> Result<(), WallFault> {
        for part in &self.parts {
            mkdirat(&part.directory, leaf.name.as_str(), directory_mode())
                .step("make a cgroup for a call")?;
            let directory = open_below(&part.directory, &leaf.name).step("open the cgroup of a call")?;
            let counters = part.counters.clone();
            leaf.parts.push(Part { version: part.version, counters, directory });
        }
        leaf.limit(limits)
    }

    /// Removes the cgroups of a call. `false` while something is still in one of them.
    pub(in crate::wall) fn remove(&self, leaf: &Leaf) -> bool {
        let mut gone = true;
        for part in &self.parts {
            match unlinkat(&part.directory, leaf.name.as_str(), UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(_) => gone = false,
            }
        }
        gone
    }
}

fn directory_mode() -> Mode {
    Mode::S_IRWXU | Mode::S_IRGRP | Mode::S_IXGRP | Mode::S_IROTH | Mode::S_IXOTH
}

fn open_below(directory: impl AsFd, name: &str) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}

fn part(hierarchy: &Hierarchy, name: &str) -> Result<Part, WallFault> {
    let path = Path::new(&hierarchy.directory).join(name);
    fs::create_dir(&path).step_on("make the cgroup", path.display())?;
    let directory = files::open_directory(&path).step_on("open the cgroup", path.display())?;
    match hierarchy.version {
        Version::One => {}
        Version::Two => files::write(&directory, "cgroup.procs", "0").step_on("enter", path.display())?,
    }
    Ok(Part { version: hierarchy.version, counters: hierarchy.counters.clone(), directory })
}

impl Leaf {
    /// Puts a process there that has not started anything yet.
    pub(in crate::wall) fn take(&self, process: Pid) -> Result<(), WallFault> {
        for part in &self.parts {
            files::write(&part.directory, "cgroup.procs", &process.to_string())
                .step("put an init into its cgroup")?;
            // As with every limit: what only says yes is found out here.
            if !files::members(&part.directory).step("read the cgroup of a call")?.contains(&process.as_raw())
            {
                return Err(fault("put an init into its cgroup", "it is not in it"));
            }
        }
        Ok(())
    }

    /// Lowers what a job wants lower than its zygote was told; never raises.
    pub(in crate::wall) fn narrow(&mut self, wanted: &Limits) -> Result<(), WallFault> {
        let narrowed = Limits {
            memory_mb: self.limits.memory_mb.min(wanted.memory_mb),
            processes: self.limits.processes.min(wanted.processes),
            ..self.limits
        };
        if narrowed == self.limits {
            return Ok(());
        }
        self.limits = narrowed;
        self.limit(&narrowed)
    }

    fn limit(&self, limits: &Limits) -> Result<(), WallFault> {
        let memory = u64::from(limits.memory_mb).saturating_mul(MIB).to_string();
        let tasks = u64::from(limits.processes).saturating_add(INIT).min(MOST_TASKS).to_string();
        for part in &self.parts {
            for counter in &part.counters {
                match (counter, part.version) {
                    (Counter::Processes, _) => part.set("pids.max", &tasks)?,
                    (Counter::Memory, Version::Two) => {
                        part.set("memory.max", &memory)?;
                        part.set_if_there("memory.swap.max", "0")?;
                    }
                    (Counter::Memory, Version::One) => {
                        part.set("memory.limit_in_bytes", &memory)?;
                        // With swap, and never below the limit without it.
                        part.set_if_there("memory.memsw.limit_in_bytes", &memory)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// What the call ran into.
    pub(in crate::wall) fn events(&self) -> LimitEvents {
        let read = |part: &Part, name, key| {
            let count = files::read(&part.directory, name).ok().and_then(|text| files::field(&text, key));
            u32::try_from(count.unwrap_or(0)).unwrap_or(u32::MAX)
        };
        let mut events = LimitEvents::default();
        for part in &self.parts {
            for counter in &part.counters {
                match (counter, part.version) {
                    (Counter::Processes, _) => events.processes = read(part, "pids.events", "max"),
                    (Counter::Memory, Version::Two) => {
                        events.out_of_memory = read(part, "memory.events", "oom_kill");
                    }
                    (Counter::Memory, Version::One) => {
                        events.out_of_memory = read(part, "memory.oom_control", "oom_kill");
                    }
                }
            }
        }
        events
    }

    /// From now on nothing is born in this cgroup, so whoever ends its members one by one gets them all.
    pub(in crate::wall) fn seal(&self) {
        for part in self.parts.iter().filter(|part| part.counters.contains(&Counter::Processes)) {
            // Fails only for a cgroup that is gone.
            let _ = files::write(&part.directory, "pids.max", "0");
        }
    }

    /// Ends everything in it, until nothing is left or time runs out. Returns how many processes were seen.
    pub(in crate::wall) fn end(&self, time: Duration) -> u32 {
        let until = Instant::now().checked_add(time);
        let mut seen = BTreeSet::new();
        self.seal();
        loop {
            let members: Vec<i32> = self
                .parts
                .iter()
                .flat_map(|part| files::members(&part.directory).unwrap_or_default())
                .collect();
            if members.is_empty() {
                break;
            }
            for part in self.parts.iter().filter(|part| part.version == Version::Two) {
                // Linux 5.14. Without it the loop below does the same, a fork being impossible.
                let _ = files::write(&part.directory, "cgroup.kill", "1");
            }
            for member in &members {
                // ESRCH: it ended.
                let _ = kill(Pid::from_raw(*member), Signal::SIGKILL);
            }
            seen.extend(members);
            // Asked only now: whoever is seen is killed, however long it took to look.
            if until.is_none_or(|until| Instant::now() >= until) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        u32::try_from(seen.len()).unwrap_or(u32::MAX)
    }
}

impl Part {
    /// Sets a limit and reads it back.
    fn set(&self, name: &str, value: &str) -> Result<(), WallFault> {
        files::write(&self.directory, name, value).step_on("set", name)?;
        let found = files::read(&self.directory, name).step_on("read", name)?;
        if found.trim() == value {
            Ok(())
        } else {
            Err(fault(format!("rely on {name}"), format!("{} holds instead of {value}", found.trim())))
        }
    }

    /// As [`Part::set`] where the kernel counts swap; where it does not, there is nothing to set.
    fn set_if_there(&self, name: &str, value: &str) -> Result<(), WallFault> {
        match files::read(&self.directory, name) {
            Err(Errno::ENOENT) => Ok(()),
            Ok(_) | Err(_) => self.set(name, value),
        }
    }
}
