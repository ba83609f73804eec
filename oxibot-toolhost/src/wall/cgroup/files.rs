//! Reading and writing the small files of a cgroup, by the descriptor of its directory.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// Most bytes of an interface file that are read. Prevents a crowded `cgroup.procs` from filling our memory; who reads
/// it to end its members reads it again.
const MOST: u64 = 256 * 1024;

pub(super) fn write(directory: impl AsFd, name: &str, text: &str) -> nix::Result<()> {
    let file = openat(directory, name, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    // One write: the kernel takes each as a command of its own.
    let written = File::from(file).write(text.as_bytes()).map_err(errno)?;
    if written == text.len() { Ok(()) } else { Err(Errno::EIO) }
}

pub(super) fn read(directory: impl AsFd, name: &str) -> nix::Result<String> {
    let file = openat(directory, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    File::from(file).take(MOST).read_to_string(&mut text).map_err(errno)?;
    Ok(text)
}

pub(super) fn open_directory(path: &Path) -> nix::Result<std::os::fd::OwnedFd> {
    nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Members of a cgroup. Numbers of another PID namespace read as 0 and are left out: 0 means ourselves to `kill`.
pub(super) fn members(directory: impl AsFd) -> nix::Result<Vec<i32>> {
    let text = read(directory, "cgroup.procs")?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect())
}

/// The number behind `key` in a file of `key number` lines.
pub(super) fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_is_found_by_its_whole_name() {
        let events = "low 0\nhigh 1\noom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(field(events, "oom_kill"), Some(2));
        assert_eq!(field(events, "oom"), Some(3));
        assert_eq!(field("max 17\n", "max"), Some(17));
        assert_eq!(field(events, "under_oom"), None);
    }
}
