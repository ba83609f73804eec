//! As whom calls run, and the user namespace that says so.
//!
//! A call never runs as the kernel's uid 0: root's own workspace is reached through an id-mapped mount, so that inside
//! the call uid 0 is an id nobody else has. This file does not mount anything.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, getegid, geteuid, setgroups, setresgid, setresuid};

use super::fault::{Step, fault};
use crate::sys::{self, Cloned};
use crate::wire::WallFault;

/// First of the ids given to calls of root's workspaces. Above what distributions and `subuid` hand out
/// (below 0x7000_0000), below the sign bit that some programs stumble over.
const FIRST_ID: u32 = 0x7800_0000;
/// How many such ids there are: 2^22 process ids times 32.
const IDS: u32 = 0x0800_0000;

/// As whom the calls of a zygote run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    /// Inside the call.
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// What the kernel sees.
    pub(super) outside_uid: u32,
    pub(super) outside_gid: u32,
}

impl Identity {
    /// Chooses for a zygote running as `euid`/`egid` and a workspace of that owner.
    pub(super) fn choose(euid: Uid, egid: Gid, owner: (u32, u32), number: u32, pid: u32) -> Self {
        let same = |uid, gid| Self { uid, gid, outside_uid: uid, outside_gid: gid };
        match (euid.is_root(), owner) {
            (true, (0, _)) => {
                let id = FIRST_ID.saturating_add((pid.wrapping_mul(32)).wrapping_add(number % 32) % IDS);
                Self { uid: 0, gid: 0, outside_uid: id, outside_gid: id }
            }
            (true, (uid, gid)) => same(uid, gid),
            (false, _) => same(euid.as_raw(), egid.as_raw()),
        }
    }

    /// Whether the workspace must be id-mapped for its files to stay their owner's.
    pub(super) fn mapped(&self) -> bool {
        self.uid != self.outside_uid
    }

    /// Without namespaces: becomes the workspace's owner for good if we are root and that is somebody else.
    pub(super) fn assume(&self) -> Result<(), WallFault> {
        if !geteuid().is_root() || self.outside_uid == 0 || self.mapped() {
            return Ok(());
        }
        self.switch()
    }

    fn switch(&self) -> Result<(), WallFault> {
        setgroups(&[]).step("drop supplementary groups")?;
        let gid = Gid::from_raw(self.gid);
        setresgid(gid, gid, gid).step("set the group of calls")?;
        let uid = Uid::from_raw(self.uid);
        setresuid(uid, uid, uid).step("set the user of calls")
    }

    /// Root: makes the user namespace of the calls. A short-lived child holds it while we write its maps.
    pub(super) fn user_namespace(&self) -> Result<OwnedFd, WallFault> {
        let (mut told, tell) = std::io::pipe().step("make a pipe")?;
        match sys::clone_process(libc::CLONE_NEWUSER).step("make a user namespace")? {
            Cloned::Child => {
                drop(tell);
                let _ = told.read(&mut [0]);
                sys::exit_now(0)
            }
            Cloned::Parent { pid, pidfd } => {
                drop(told);
                let made = self.map(&format!("/proc/{pid}"));
                let _ = sys::pidfd_send_signal(pidfd.as_fd(), Signal::SIGKILL);
                let _ = nix::sys::wait::waitpid(pid, None);
                drop(tell);
                made
            }
        }
    }

    fn map(&self, process: &str) -> Result<OwnedFd, WallFault> {
        write(&format!("{process}/uid_map"), &format!("{} {} 1", self.uid, self.outside_uid))?;
        write(&format!("{process}/gid_map"), &format!("{} {} 1", self.gid, self.outside_gid))?;
        Ok(fs::File::open(format!("{process}/ns/user")).step("open the user namespace")?.into())
    }

    /// Root: enters that namespace and becomes its user. Every right over the host is gone afterwards.
    pub(super) fn enter(&self, namespace: &OwnedFd) -> Result<(), WallFault> {
        setns(namespace, CloneFlags::CLONE_NEWUSER).step("enter the user namespace")?;
        self.switch()
    }

    /// Ordinary user: maps oneself to oneself in the namespace just unshared.
    pub(super) fn map_self(&self) -> Result<(), WallFault> {
        write("/proc/self/setgroups", "deny")?;
        write("/proc/self/uid_map", &format!("{} {} 1", self.uid, self.uid))?;
        write("/proc/self/gid_map", &format!("{} {} 1", self.gid, self.gid))
    }
}

/// User and group of this process.
pub(super) fn effective() -> (Uid, Gid) {
    (geteuid(), getegid())
}

fn write(path: &str, line: &str) -> Result<(), WallFault> {
    let mut file = fs::File::options().write(true).open(path).step_on("open", path)?;
    file.write_all(line.as_bytes()).step_on("write", path)
}

/// Inode numbers of the namespaces a call must not share with the host, in the order of [`KINDS`].
pub(super) type Namespaces = [u64; KINDS.len()];

/// The namespaces that make level `full`.
pub(super) const KINDS: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// Reads which namespaces this process is in. Needs a `/proc` of its PID namespace.
pub(super) fn namespaces() -> Result<Namespaces, WallFault> {
    let mut found = [0; KINDS.len()];
    for (place, kind) in found.iter_mut().zip(KINDS) {
        *place = nix::sys::stat::stat(format!("/proc/self/ns/{kind}").as_str())
            .step_on("look up the namespace", kind)?
            .st_ino;
        if *place == 0 {
            return Err(fault(format!("look up the namespace {kind}"), "it has no number"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(euid: u32, owner: u32) -> Identity {
        Identity::choose(Uid::from_raw(euid), Gid::from_raw(euid), (owner, owner), 3, 4_194_304)
    }

    #[test]
    fn root_workspace_of_root_runs_as_an_id_nobody_has() {
        let identity = choose(0, 0);
        assert!(identity.mapped());
        assert_eq!(identity.uid, 0);
        assert!((FIRST_ID..FIRST_ID + IDS).contains(&identity.outside_uid));
    }

    #[test]
    fn root_workspace_of_a_user_runs_as_that_user() {
        assert_eq!(choose(0, 1000), Identity { uid: 1000, gid: 1000, outside_uid: 1000, outside_gid: 1000 });
    }

    #[test]
    fn user_runs_as_itself_whoever_owns_the_workspace() {
        assert_eq!(choose(1000, 0).outside_uid, 1000);
    }
}
