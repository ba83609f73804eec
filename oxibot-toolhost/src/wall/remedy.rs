//! What to do about a level lower than `full`: one command where one is known.
//!
//! Looks at the kernel's own switches, because the errno of a refused namespace does not say who refused it. Changes
//! nothing.

use std::fs;

use crate::wire::WallFault;

/// What decides on this machine whether namespaces are to be had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Switches {
    /// Settings that refuse them, each with the value that would not.
    refusing: Vec<&'static str>,
    /// A container engine or service manager filters system calls: there are more filters than our own.
    filtered: bool,
    root: bool,
}

/// Filters of ours in a zygote.
const OURS: u32 = 1;

/// A setting below `/proc/sys`, the value that refuses namespaces, whether it binds root, and what to set.
const SETTINGS: [(&str, &str, bool, &str); 3] = [
    ("user/max_user_namespaces", "0", true, "user.max_user_namespaces=15000"),
    ("kernel/unprivileged_userns_clone", "0", false, "kernel.unprivileged_userns_clone=1"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        false,
        "kernel.apparmor_restrict_unprivileged_userns=0",
    ),
];

impl Switches {
    /// Reads them. To be called by a zygote: `root` says whether it was started as root.
    pub(super) fn read(root: bool) -> Self {
        let refusing = SETTINGS
            .into_iter()
            .filter(|(_, _, binds_root, _)| *binds_root || !root)
            .filter(|(path, refusal, _, _)| {
                fs::read_to_string(format!("/proc/sys/{path}")).is_ok_and(|value| value.trim() == *refusal)
            })
            .map(|(_, _, _, setting)| setting)
            .collect();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let filters = status
            .lines()
            .find_map(|line| line.strip_prefix("Seccomp_filters:"))
            .and_then(|count| count.trim().parse::<u32>().ok());
        Self { refusing, filtered: filters.is_some_and(|count| count > OURS), root }
    }

    /// What to do about a fault of level `full`.
    pub(super) fn remedy(&self, fault: &WallFault) -> String {
        let says = |what: &str| fault.step.contains(what) || fault.cause.contains(what);
        if fault.step.contains("id-map") {
            return "put the workspace on ext4, xfs, btrfs or another file system with id-mapped mounts, or run as its owner"
                .into();
        }
        if says("private /proc") {
            return "show an unmasked /proc: in Docker --security-opt systempaths=unconfined".into();
        }
        if !self.refusing.is_empty() {
            return format!("sudo sysctl -w {}", self.refusing.join(" "));
        }
        if self.filtered {
            let root = if self.root { ", and a user other than root" } else { "" };
            return format!(
                "in Docker --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
                 --security-opt systempaths=unconfined{root}; in a systemd unit RestrictNamespaces=no and no \
                 SystemCallFilter against @mount"
            );
        }
        if says("ENOSPC") {
            return "sudo sysctl -w user.max_user_namespaces=15000 user.max_mnt_namespaces=15000 \
                    user.max_pid_namespaces=15000 user.max_net_namespaces=15000"
                .into();
        }
        "run `oxibot doctor` where namespaces and mounts are allowed".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wall::fault::fault;

    #[test]
    fn setting_that_refuses_is_named_before_a_filter() {
        let refused = fault("unshare user, mount, UTS and cgroup namespaces", "EPERM");
        let mut switches = Switches { filtered: true, ..Switches::default() };
        assert!(switches.remedy(&refused).contains("seccomp=unconfined"));
        assert!(!switches.remedy(&refused).contains("other than root"));
        switches.refusing = vec!["user.max_user_namespaces=15000"];
        assert_eq!(switches.remedy(&refused), "sudo sysctl -w user.max_user_namespaces=15000");
        assert!(switches.remedy(&fault("id-map /w", "EINVAL")).contains("ext4"));
        assert!(switches.remedy(&fault("mount a private /proc", "EPERM")).contains("systempaths"));
    }

    #[test]
    fn nothing_known_is_not_made_up() {
        let switches = Switches::default();
        assert!(switches.remedy(&fault("build the view", "EIO")).contains("doctor"));
    }
}
