//! A pids cgroup around one zygote, for root without user namespaces.
//!
//! The kernel's process limit does not count its uid 0, and an init that counts is slower than a bomb on a busy machine.
//! Where root may make a cgroup, one bounds everything the zygote starts. Where it may not (a container's read-only
//! tree), counting is what is left. This is no per-call cgroup: memory and CPU are not bounded here.

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

/// Most tasks of all calls of one workspace together: far more than calls need, far less than a machine has.
const MOST_TASKS: u32 = 2048;

/// Moves this process into a new cgroup. `false` where there is none to be had.
pub(super) fn enter(zygote: u32) -> bool {
    let Some(directory) = place(zygote) else { return false };
    let entered = fs::create_dir(&directory)
        .and_then(|()| fs::write(directory.join("pids.max"), MOST_TASKS.to_string()))
        .and_then(|()| fs::write(directory.join("cgroup.procs"), zygote.to_string()));
    if entered.is_err() {
        // Empty: nobody was moved.
        let _ = fs::remove_dir(&directory);
    }
    entered.is_ok()
}

/// Removes the cgroup of a zygote that ended. `false` while somebody is still in it.
pub(super) fn remove(zygote: Pid) -> bool {
    let Some(directory) = place(zygote.as_raw().cast_unsigned()) else { return true };
    match fs::remove_dir(directory) {
        // Not there: this zygote had none.
        Ok(()) => true,
        Err(error) => error.kind() != std::io::ErrorKind::ResourceBusy,
    }
}

fn place(zygote: u32) -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    below(&own, Path::new("/sys/fs/cgroup"), zygote)
}

/// Below our own cgroup, by the first hierarchy that counts tasks: a v1 `pids` one, else v2 if its tree is delegated
/// (then `pids.max` appears in a new directory; where it does not, entering fails).
fn below(own: &str, mounted: &Path, zygote: u32) -> Option<PathBuf> {
    let name = format!("oxibot-zygote-{zygote}");
    let path = |controller: &str| {
        own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers = fields.next()?;
            let path = fields.next()?;
            controllers
                .split(',')
                .any(|one| one == controller)
                .then(|| path.trim_start_matches('/').to_owned())
        })
    };
    // Own path first without leaving our part of the tree: `..` appears where a cgroup namespace hides the rest.
    let inside = |path: String| (!path.split('/').any(|part| part == "..")).then_some(path);
    if let Some(path) = path("pids").and_then(inside) {
        return Some(mounted.join("pids").join(path).join(name));
    }
    path("").and_then(inside).map(|path| mounted.join(path).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_place_is_found_in_both_versions() {
        let root = Path::new("/c");
        assert_eq!(below("8:pids:/a\n0::/b\n", root, 7), Some("/c/pids/a/oxibot-zygote-7".into()));
        assert_eq!(below("3:cpu,pids:/\n", root, 7), Some("/c/pids/oxibot-zygote-7".into()));
        assert_eq!(below("0::/user.slice\n", root, 7), Some("/c/user.slice/oxibot-zygote-7".into()));
        assert_eq!(below("0::/../x\n", root, 7), None);
        assert_eq!(below("", root, 7), None);
    }
}
