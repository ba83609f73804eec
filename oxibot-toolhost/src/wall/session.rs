//! How one run of the toolhost names what it makes outside its own processes: cgroups, and directories in `/tmp`.
//!
//! The name holds the process that answers for it, its start time (a process id comes back) and its PID namespace (a
//! neighbour's ids mean nothing here). So a later start can tell what a dead one left from what a living one uses.

use std::fs;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::fault::{Step, fault};
use crate::wire::WallFault;

/// Begins every such name.
const MARK: &str = "oxibot";

/// The start of the names of the run that `process`, its keeper, answers for. Ends with a separator.
pub(super) fn prefix(process: Pid) -> Result<String, WallFault> {
    let step = "find out when the keeper started";
    let start = start_time(process.as_raw()).step(step)?.ok_or_else(|| fault(step, "it is gone"))?;
    Ok(format!("{MARK}-{}-{process}-{start}-", pid_namespace().step(step)?))
}

/// Whether this is a name of a run of ours that is over. `false` when in doubt.
pub(super) fn is_stale(name: &str) -> bool {
    let mut fields = name.split('-');
    if fields.next() != Some(MARK) {
        return false;
    }
    let mut number = || fields.next()?.parse::<u64>().ok();
    let (Some(namespace), Some(pid), Some(start)) = (number(), number(), number()) else { return false };
    let Ok(pid) = i32::try_from(pid) else { return false };
    if fields.next().is_none() || pid <= 0 || pid_namespace().ok() != Some(namespace) {
        return false;
    }
    match start_time(pid) {
        Ok(Some(found)) => found != start,
        // With `hidepid` a living process may look absent; a signal tells.
        Ok(None) => kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH),
        Err(_) => false,
    }
}

/// Where calls without a `/tmp` of their own get a directory.
pub(super) const TMP: &str = "/tmp";

/// Start of the names of the directories a zygote gives to calls without a `/tmp` of their own.
pub(super) fn private_prefix(session: &str, number: u32) -> String {
    format!("{session}{number}-")
}

/// Removes the directories whose names begin so. Links are removed, never followed. `false` while some are left.
pub(super) fn remove_private(prefix: &str) -> bool {
    remove_named(|name| name.starts_with(prefix))
}

/// Removes those of runs that died.
pub(super) fn remove_stale_private() {
    remove_named(is_stale);
}

fn remove_named(wanted: impl Fn(&str) -> bool) -> bool {
    let mut gone = true;
    for entry in fs::read_dir(TMP).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(&wanted) {
            // Fails for what another user planted under such a name: that is theirs.
            gone &= fs::remove_dir_all(entry.path()).is_ok();
        }
    }
    gone
}

fn pid_namespace() -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata("/proc/self/ns/pid")?.ino())
}

/// Clock ticks from boot to the start of a process, `None` where there is no such process.
fn start_time(pid: i32) -> std::io::Result<Option<u64>> {
    match fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")) {
        Ok(stat) => Ok(parse_start_time(&stat)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        // It ended while it was read.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Field 22 of `/proc/PID/stat`; the name before it may hold anything.
fn parse_start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names_are_not_stale_and_those_of_the_dead_are() {
        let own = prefix(nix::unistd::getpid()).unwrap();
        assert!(!is_stale(&format!("{own}1")), "{own}");
        let fields: Vec<&str> = own.split('-').collect();
        let [mark, namespace, pid, start, _] = fields.as_slice() else { panic!("{own}") };
        // The id came back for another process.
        assert!(is_stale(&format!("{mark}-{namespace}-{pid}-1{start}-1")));
        // No process has an id above the kernel's limit of 2^22.
        assert!(is_stale(&format!("{mark}-{namespace}-5000000-{start}-1")));
    }

    #[test]
    fn names_of_others_are_nobodys_to_remove() {
        let own = prefix(nix::unistd::getpid()).unwrap();
        let namespace = own.split('-').nth(1).unwrap().to_owned();
        for name in [
            "oxibot".to_owned(),
            "oxitest".to_owned(),
            format!("oxibot-{namespace}-5000000"),
            format!("oxibot-{namespace}-5000000-1"),
            // Another PID namespace: its ids mean nothing here.
            "oxibot-1-5000000-1-1".to_owned(),
            format!("oxibot-{namespace}-0-1-1"),
            format!("oxibot-{namespace}-x-1-1"),
        ] {
            assert!(!is_stale(&name), "{name}");
        }
    }
}
