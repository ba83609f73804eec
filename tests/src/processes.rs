//! What runs on this machine, read from `/proc`: to find our processes, to count them, to see them gone.

use std::path::Path;

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its parent's id.
    pub parent: i32,
    /// Its arguments, joined by spaces.
    pub command: String,
    /// `R`, `S`, `Z` and so on.
    pub state: char,
}

/// All processes that can be read.
#[must_use]
pub fn all() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(one).collect()
}

/// One process, if it is there.
#[must_use]
pub fn one(pid: i32) -> Option<Process> {
    let directory = Path::new("/proc").join(pid.to_string());
    let stat = std::fs::read_to_string(directory.join("stat")).ok()?;
    let after = stat.rsplit_once(')')?.1;
    let mut fields = after.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let command = std::fs::read(directory.join("cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned();
    Some(Process { pid, parent, command, state })
}

/// `root` and everything below it, `root` first.
#[must_use]
pub fn tree(root: i32) -> Vec<Process> {
    let all = all();
    let mut found: Vec<Process> = all.iter().filter(|process| process.pid == root).cloned().collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|process| process.pid) {
        found.extend(all.iter().filter(|process| process.parent == parent).cloned());
        next += 1;
    }
    found
}

/// Processes below `root` whose command contains `text`.
#[must_use]
pub fn below(root: i32, text: &str) -> Vec<Process> {
    tree(root).into_iter().skip(1).filter(|process| process.command.contains(text)).collect()
}

/// Processes anywhere whose command contains `text` and that are not zombies.
#[must_use]
pub fn anywhere(text: &str) -> Vec<Process> {
    all().into_iter().filter(|process| process.state != 'Z' && process.command.contains(text)).collect()
}

/// Open descriptors of a process.
#[must_use]
pub fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map(|entries| entries.count()).unwrap_or(0)
}

/// A value in KiB of `/proc/PID/smaps_rollup` or `status`, for example `Pss`.
#[must_use]
pub fn memory(pid: i32, key: &str) -> u64 {
    ["smaps_rollup", "status"]
        .iter()
        .filter_map(|file| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok())
        .find_map(|text| {
            text.lines().find_map(|line| {
                line.strip_prefix(key)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok()
            })
        })
        .unwrap_or(0)
}
