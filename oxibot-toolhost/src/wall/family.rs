//! Processes of calls that have no PID namespace: finding, counting and ending them.
//!
//! Whoever uses this is a subreaper, so that everything a call starts stays below it, whatever it double-forks. A family
//! is ended group by group: the kernel kills a process group at once and no fork of a member slips through, which is
//! what stops a fork bomb; killing one process after the other does not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgrp, getpid};

/// Most processes above a call that are looked at: launcher, main, supervisor, nursery, zygote, init and some shells.
const MOST_ABOVE: usize = 16;

/// One process, from `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    group: i32,
}

/// This process and those above it, up to a bound nobody's tree exceeds, with their process groups: what a call that this
/// one starts must not signal.
pub(super) fn above() -> super::seccomp::Above {
    let mut found = super::seccomp::Above::default();
    let mut next = getpid().as_raw();
    while next > 0 && found.processes.len() < MOST_ABOVE {
        found.processes.push(next);
        let process = fs::read_to_string(format!("/proc/{next}/stat")).ok().and_then(|stat| parse(&stat));
        let Some(process) = process else { break };
        if process.group > 1 && !found.groups.contains(&process.group) {
            found.groups.push(process.group);
        }
        next = process.parent;
    }
    found
}

/// This process, those above it that are OxiBot, and everything below those.
pub(super) fn ourselves() -> BTreeSet<i32> {
    let mut top = getpid().as_raw();
    for above in above().processes {
        let name = fs::read_to_string(format!("/proc/{above}/comm")).unwrap_or_default();
        if !name.starts_with("oxibot") {
            break;
        }
        top = above;
    }
    below(top, &all(), &[]).into_iter().map(|process| process.pid).chain([top]).collect()
}

/// Own descendants, without the spared children and what is below those.
fn descendants(spared: &[Pid]) -> Vec<Process> {
    below(getpid().as_raw(), &all(), spared)
}

fn all() -> Vec<Process> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
        .collect()
}

/// `pid (name) state parent group ...`; the name may hold anything, parentheses too.
fn parse(stat: &str) -> Option<Process> {
    let (pid, rest) = stat.split_once(' ')?;
    let (_, rest) = rest.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(1);
    let mut number = || fields.next()?.parse().ok();
    Some(Process { pid: pid.parse().ok()?, parent: number()?, group: number()? })
}

fn below(root: i32, all: &[Process], spared: &[Pid]) -> Vec<Process> {
    let mut children: BTreeMap<i32, Vec<Process>> = BTreeMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(*process);
    }
    let mut found = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            if !spared.contains(&Pid::from_raw(child.pid)) {
                parents.push(child.pid);
                found.push(child);
            }
        }
    }
    found
}

/// Own children, where the kernel lists them (`CONFIG_PROC_CHILDREN`): without any but the spared there is no family to
/// look for all over `/proc`. This process has one thread.
fn children() -> Option<Vec<Pid>> {
    let text = fs::read_to_string(format!("/proc/self/task/{}/children", getpid())).ok()?;
    text.split_whitespace().map(|pid| pid.parse().ok().map(Pid::from_raw)).collect()
}

/// How many there are.
pub(super) fn count() -> usize {
    descendants(&[]).len()
}

/// Kills every descendant once, without reaping: who waits for them learns how they ended.
pub(super) fn kill_all() {
    kill_family(&descendants(&[]));
}

/// A payload starts its own session, so its groups hold nobody else; ours may hold the supervisor.
fn foreign_groups(family: &[Process]) -> BTreeSet<i32> {
    let own = getpgrp().as_raw();
    family.iter().map(|process| process.group).filter(|group| *group != own && *group > 1).collect()
}

fn kill_family(family: &[Process]) {
    let own = getpgrp().as_raw();
    for group in foreign_groups(family) {
        // ESRCH: it ended by itself. EPERM: another user's, which no call can have made.
        let _ = kill(Pid::from_raw(group.saturating_neg()), Signal::SIGKILL);
    }
    for process in family.iter().filter(|process| process.group == own) {
        let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
    }
}

/// Looks in a row that must find nobody. One is not enough: processes are read one after the other, and one whose parent
/// ends meanwhile, so that it moves up, belongs to nobody in what was read.
const EMPTY_LOOKS: u32 = 2;

/// What a hunt came to.
#[derive(Debug)]
#[must_use]
pub(super) struct Hunt {
    /// Processes seen.
    pub(super) seen: BTreeSet<i32>,
    /// Nobody is left. Otherwise time ran out, and who was seen was killed all the same.
    pub(super) nobody: bool,
}

/// Kills all but the spared and reaps own children among them, until none is left or time runs out. Whoever is seen is
/// killed, however long it took to look: on a busy machine one look takes longer than all the time there is.
pub(super) fn end(spared: &[Pid], time: Duration) -> Hunt {
    let until = Instant::now().checked_add(time);
    let mut seen = BTreeSet::new();
    let mut empty = 0;
    let nobody = loop {
        let only_spared = children().is_some_and(|found| found.iter().all(|child| spared.contains(child)));
        let all = if only_spared { Vec::new() } else { all() };
        let family = below(getpid().as_raw(), &all, spared);
        empty = if family.is_empty() { empty + 1 } else { 0 };
        if empty >= EMPTY_LOOKS {
            break true;
        }
        kill_family(&family);
        seen.extend(family.iter().map(|process| process.pid));
        // A signal to a group reaches members whose parents could not be followed.
        let groups = foreign_groups(&family);
        seen.extend(all.iter().filter(|process| groups.contains(&process.group)).map(|process| process.pid));
        if until.is_none_or(|until| Instant::now() >= until) {
            break false;
        }
        if family.is_empty() {
            continue;
        }
        std::thread::sleep(Duration::from_millis(2));
        for process in &family {
            // ECHILD: not a child of ours yet.
            let _ = waitpid(Pid::from_raw(process.pid), Some(WaitPidFlag::WNOHANG));
        }
    };
    Hunt { seen, nobody }
}

impl Hunt {
    /// How many were seen.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.seen.len()).unwrap_or(u32::MAX)
    }
}

/// Reaps ended children that wait to be. Returns their ids.
pub(super) fn reap() -> Vec<Pid> {
    let mut ended = Vec::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(_) => return ended,
            Ok(status) => ended.extend(status.pid()),
        }
    }
}

/// Tasks the user of this process has already. A process limit of the kernel counts them too where a call has no user
/// namespace of its own.
pub(super) fn tasks_of_this_user() -> u64 {
    use std::os::unix::fs::MetadataExt;
    let own = nix::unistd::getuid().as_raw();
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()))
        .filter_map(|entry| fs::metadata(entry.path().join("task")).ok())
        .filter(|tasks| tasks.uid() == own)
        // One link a thread, and the two every directory has.
        .map(|tasks| tasks.nlink().saturating_sub(2))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{self, Cloned};

    #[test]
    fn name_with_parentheses_and_spaces_is_no_obstacle() {
        let expected = Process { pid: 7, parent: 3, group: 5 };
        assert_eq!(parse("7 (a) S 9 (b)) R 3 5 1 0"), Some(expected));
        assert_eq!(parse("7 (a"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn spared_children_keep_their_own_families() {
        let process = |pid, parent| Process { pid, parent, group: pid };
        let all = [process(2, 1), process(3, 1), process(4, 2), process(5, 3), process(6, 5), process(9, 8)];
        let found: BTreeSet<i32> = below(1, &all, &[Pid::from_raw(2)]).iter().map(|one| one.pid).collect();
        assert_eq!(found, BTreeSet::from([3, 5, 6]));
    }

    #[test]
    fn own_tasks_are_counted() {
        assert!(tasks_of_this_user() >= 1);
    }

    /// On a busy machine one look took longer than a hunt may: it counted whom it saw as nobody, killed nobody, and the
    /// keeper left them to the machine's init.
    #[test]
    fn whoever_is_seen_is_killed_and_counted_however_little_time_there_is() {
        // In a child, because a hunt ends all that is below whoever hunts: here that may be other tests' processes.
        let Cloned::Parent { pid, pidfd: _ } = sys::clone_process(0).unwrap() else {
            let families = [1, 2].map(|_| {
                let Cloned::Parent { pid, pidfd: _ } = sys::clone_process(0).unwrap() else {
                    let _ = nix::unistd::setsid();
                    std::thread::sleep(Duration::from_secs(300));
                    sys::exit_now(0)
                };
                pid
            });
            let hunt = end(&[], Duration::ZERO);
            let ended = families
                .iter()
                .all(|pid| matches!(waitpid(*pid, None), Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _))));
            let right =
                hunt.count() == 2 && !hunt.nobody && ended && end(&[], Duration::from_secs(60)).nobody;
            sys::exit_now(i32::from(!right))
        };
        assert!(matches!(waitpid(pid, None), Ok(WaitStatus::Exited(_, 0))));
    }
}
