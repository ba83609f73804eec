//! What a call left behind, found by scanning the machine.
//!
//! Processes are attributed exactly: the test makes itself the reaper of all its descendants, so whatever escapes a
//! call, however often it forked and called `setsid`, is still below the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::processes::{self, Process};

/// Places everybody may write to, and a few nobody should.
const SHARED: [&str; 21] = [
    "/tmp",
    "/var/tmp",
    "/dev/shm",
    "/dev/mqueue",
    "/run",
    "/run/lock",
    "/var/lock",
    "/",
    "/etc",
    "/root",
    "/home",
    "/usr/bin",
    "/usr/local/bin",
    "/usr/lib",
    "/usr/sbin",
    "/usr/share",
    "/boot",
    "/var/spool/cron/crontabs",
    "/etc/cron.d",
    "/etc/profile.d",
    "/etc/init.d",
];

/// How often in a row nothing must be found.
const LOOKS: u32 = 4;

/// Makes this process the one orphans below it are given to.
///
/// # Panics
/// When the kernel cannot.
pub fn adopt_orphans() {
    nix::sys::prctl::set_child_subreaper(true).expect("subreaper");
}

/// Processes below this one, without `spared` and, if `toolhost` is true, without the programs of a toolhost that is
/// still serving.
#[must_use]
pub fn processes(spared: u32, toolhost: bool) -> Vec<Process> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    // Orphans that ended wait for us.
    for process in processes::tree(own).iter().skip(1).filter(|process| process.state == 'Z') {
        if process.parent == own && u32::try_from(process.pid).is_ok_and(|pid| pid != spared) {
            let _ = waitpid(Pid::from_raw(process.pid), Some(WaitPidFlag::WNOHANG));
        }
    }
    processes::tree(own)
        .into_iter()
        .skip(1)
        .filter(|process| process.state != 'Z' && u32::try_from(process.pid).is_ok_and(|pid| pid != spared))
        .filter(|process| !(toolhost && process.command.contains("oxibot-toolhost")))
        .collect()
}

/// As [`processes()`], after giving them `patience` to end.
#[must_use]
pub fn lasting(spared: u32, toolhost: bool, patience: Duration) -> Vec<Process> {
    let start = Instant::now();
    let mut calm = 0;
    loop {
        let left = processes(spared, toolhost);
        if !left.is_empty() && start.elapsed() > patience {
            return left;
        }
        // One look can miss what forks and ends all the time.
        calm = if left.is_empty() { calm + 1 } else { 0 };
        if calm == LOOKS {
            return Vec::new();
        }
        std::thread::sleep(Duration::from_millis(if left.is_empty() { 4 } else { 20 }));
    }
}

/// Ends what a control left behind.
pub fn clear(spared: u32) {
    for _ in 0..200 {
        let left = processes(spared, false);
        if left.is_empty() {
            return;
        }
        for process in left {
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Names with `mark` in them in shared places, two levels deep in the first few.
#[must_use]
pub fn names(mark: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (n, place) in SHARED.iter().enumerate() {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(mark) {
                found.push(entry.path());
            } else if n < 4 && entry.file_name().to_string_lossy().starts_with("oxibot-call-") {
                let below = fs::read_dir(entry.path()).into_iter().flatten().flatten();
                found.extend(below.map(|e| e.path()).filter(|path| path.to_string_lossy().contains(mark)));
            }
        }
    }
    found
}

/// Mounts of this namespace whose line contains `text`.
#[must_use]
pub fn mounts(text: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

/// System V objects with that key.
#[must_use]
pub fn system_v(key: u32) -> Vec<String> {
    let mut found = Vec::new();
    for kind in ["shm", "sem", "msg"] {
        let table = fs::read_to_string(Path::new("/proc/sysvipc").join(kind)).unwrap_or_default();
        let of_key = table.lines().filter(|line| line.split_whitespace().next() == Some(&key.to_string()));
        found.extend(of_key.map(|line| format!("System V {kind} {line}")));
    }
    found
}

/// Cgroups of this test's own, in every hierarchy where one can be made: what is made below them is the wall's.
pub struct Cgroups {
    own: Vec<(PathBuf, PathBuf)>,
}

impl Cgroups {
    /// Makes them and moves this process in.
    #[must_use]
    pub fn enter() -> Self {
        let pid = std::process::id().to_string();
        let mut own = Vec::new();
        for line in fs::read_to_string("/proc/self/cgroup").unwrap_or_default().lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            let names = match controllers.strip_prefix("name=").unwrap_or(controllers) {
                // The unified hierarchy: alone, or beside version 1.
                "" => vec!["", "unified"],
                controllers => vec![controllers],
            };
            for name in names {
                let parent = Path::new("/sys/fs/cgroup").join(name).join(path.trim_start_matches('/'));
                let directory = parent.join(format!("attacks-{pid}"));
                if !parent.join("cgroup.procs").exists() || fs::create_dir(&directory).is_err() {
                    continue;
                }
                if fs::write(directory.join("cgroup.procs"), &pid).is_ok() {
                    own.push((parent, directory));
                } else {
                    let _ = fs::remove_dir(&directory);
                }
            }
        }
        Self { own }
    }

    /// What others made below them.
    #[must_use]
    pub fn left(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for (_, directory) in &self.own {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            found.extend(entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
        }
        found
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for (parent, directory) in &self.own {
            let _ = fs::write(parent.join("cgroup.procs"), std::process::id().to_string());
            for left in fs::read_dir(directory).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(left.path());
            }
            let _ = fs::remove_dir(directory);
        }
    }
}
