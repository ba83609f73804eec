//! What one call has for itself: `/proc`, `/tmp`, `/dev/shm`, a loopback, and guards over names in the workspace.
//!
//! Mounted by the call's init in its own mount namespace; all of it is gone when the call is.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::{Mode, SFlag, fstatat};

use super::fault::{Step, fault};
use super::grants::path_of;
use super::view::{place_directory, tmpfs};
use crate::sys::{self, Reach};
use crate::wire::{Profile, WallFault};

/// Inodes of the private `/tmp` for each MiB. Prevents millions of empty files from eating kernel memory.
const INODES_PER_MB: u64 = 256;
/// Tries of a path that changed during resolution. Prevents a rename storm from looping us for ever.
const RACES: usize = 64;
/// Size of `/dev/shm`: for semaphores and small segments. Counted apart from `/tmp`.
const SHM_OPTIONS: &str = "size=64m,nr_inodes=4096,mode=1777";

/// Of `/proc`, what shows a user's own things and no namespace divides: keys, by their names, and who has how many.
const EMPTY: [&str; 2] = ["/proc/keys", "/proc/key-users"];

/// Mounts what a call has for itself.
pub(super) fn mount_all(profile: &Profile) -> Result<(), WallFault> {
    let beneath = beneath_private(profile);
    // Copies are taken before /tmp is covered, and put on top of the empty one.
    let mut trees = Vec::new();
    for path in &beneath {
        let place = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
            .step_on("open in the view", path.display())?;
        trees.push((path, sys::open_tree_clone(place.as_fd()).step_on("copy the mount of", path.display())?));
    }
    private_proc()?;
    let mb = u64::from(profile.tmp_mb.max(1));
    tmpfs(Path::new("/tmp"), &format!("size={mb}m,nr_inodes={},mode=1777", mb.saturating_mul(INODES_PER_MB)))
        .step("mount a private /tmp")?;
    tmpfs(Path::new("/dev/shm"), SHM_OPTIONS).step("mount a private /dev/shm")?;
    if !trees.is_empty() {
        let root =
            open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).step("open the root of the view")?;
        for (path, tree) in trees {
            let onto = place_directory(root.as_fd(), path)?;
            sys::move_mount(tree.as_fd(), onto.as_fd()).step_on("mount", path.display())?;
        }
    }
    loopback()
}

/// Granted paths that a private `/tmp` or `/dev/shm` would hide, without those inside another of them.
fn beneath_private(profile: &Profile) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = [&profile.workspace]
        .into_iter()
        .chain(&profile.write)
        .chain(&profile.read)
        .map(|path| path_of(path).to_owned())
        .filter(|path| ["/tmp", "/dev/shm"].iter().any(|private| path.starts_with(private)))
        .collect();
    paths.sort();
    paths.dedup_by(|later, earlier| later.starts_with(earlier));
    paths
}

/// A `/proc` of this PID namespace: read-only, other users' processes invisible.
///
/// The whole of it rather than `subset=pid`, because `free`, `ps`, `top` and language runtimes read meminfo, stat and
/// uptime. What is dangerous in it (kcore, sysrq-trigger, sys) belongs to the kernel's uid 0, which no call runs as, is
/// read-only here, and writing has no Landlock rule.
fn private_proc() -> Result<(), WallFault> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    mount(Some("proc"), "/proc", Some("proc"), flags, Some("hidepid=2")).step("mount a private /proc")?;
    for name in EMPTY {
        match mount::<_, _, str, str>(Some("/dev/null"), name, None, MsFlags::MS_BIND, None) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(fault(format!("empty {name}"), errno)),
        }
    }
    Ok(())
}

/// Brings the loopback of this network namespace up, so that a call can talk to its own servers.
fn loopback() -> Result<(), WallFault> {
    let step = "bring the private loopback up";
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).step(step)?;
    sys::loopback_up(any.as_fd()).step(step)
}

/// Makes the guarded names that exist read-only, their parents immovable. Absent names stay absent: a placeholder
/// would change what `git status` and the user see.
pub(super) fn guard(workspace: BorrowedFd<'_>, names: &[String]) -> Result<(), WallFault> {
    pin_repository(workspace)?;
    for name in names {
        let name = Path::new(name.trim_matches('/'));
        if name.as_os_str().is_empty()
            || beneath(workspace, name).step_on("look for", name.display())?.is_none()
        {
            continue;
        }
        let parents: Vec<&Path> =
            name.ancestors().skip(1).filter(|part| !part.as_os_str().is_empty()).collect();
        for parent in parents.iter().rev() {
            // Renaming the parent away and making a new one would undo the guard.
            bind_on_itself(workspace, parent, 0)?;
        }
        bind_on_itself(workspace, name, libc::MOUNT_ATTR_RDONLY)?;
    }
    Ok(())
}

/// Makes `.git` immovable whatever is in it: who could rename it away and make another one would choose the repository
/// that git uses on the host. Its content stays writable. A file that names the repository is read-only; a symbolic
/// link cannot be mounted over, and is compared after the call.
fn pin_repository(workspace: BorrowedFd<'_>) -> Result<(), WallFault> {
    let name = Path::new(".git");
    let format = match fstatat(workspace, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT,
        Err(Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(errno).step_on("look for", name.display()),
    };
    if format == SFlag::S_IFDIR {
        bind_on_itself(workspace, name, 0)
    } else if format == SFlag::S_IFREG {
        bind_on_itself(workspace, name, libc::MOUNT_ATTR_RDONLY)
    } else {
        Ok(())
    }
}

fn bind_on_itself(workspace: BorrowedFd<'_>, name: &Path, attributes: u64) -> Result<(), WallFault> {
    let place = beneath(workspace, name)
        .step_on("open", name.display())?
        .ok_or_else(|| fault(format!("guard {}", name.display()), "it vanished"))?;
    let tree = sys::open_tree_clone(place.as_fd()).step_on("guard", name.display())?;
    if attributes != 0 {
        sys::set_mount(tree.as_fd(), attributes, None, Reach::Below).step_on("guard", name.display())?;
    }
    sys::move_mount(tree.as_fd(), place.as_fd()).step_on("guard", name.display())
}

/// A path below the workspace, links inside it followed. A link that leads out is not ours to guard.
fn beneath(workspace: BorrowedFd<'_>, name: &Path) -> nix::Result<Option<OwnedFd>> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let mut opened = Err(Errno::EAGAIN);
    for _ in 0..RACES {
        // A rename anywhere on the system could have confused a `..` in a link.
        opened = openat2(workspace, name, how);
        if !matches!(opened, Err(Errno::EAGAIN)) {
            break;
        }
    }
    match opened {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EXDEV | Errno::ELOOP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Wanted;

    #[test]
    fn paths_below_tmp_are_mounted_again_outermost_only() {
        let profile = Profile {
            workspace: b"/tmp/a/b".to_vec(),
            read: vec![b"/opt/x".to_vec(), b"/dev/shm/y".to_vec()],
            write: vec![b"/tmp/a".to_vec()],
            covered: vec![],
            restrict_to_workspace: true,
            protect: vec![],
            wanted: Wanted::Strongest,
            tmp_mb: 1,
            limits: oxibot_proto::settings::Limits::default(),
            proxy: false,
        };
        assert_eq!(beneath_private(&profile), [Path::new("/dev/shm/y"), Path::new("/tmp/a")]);
    }
}
