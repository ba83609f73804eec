//! Where this process is in which hierarchy, from `/proc/self/cgroup` and `/proc/self/mountinfo`. Pure.

use std::path::{Path, PathBuf};

use super::Version;

/// The cgroup of this process in one mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) version: Version,
    /// Its directory.
    pub(super) directory: PathBuf,
    /// It is the root of what this process can see.
    pub(super) top: bool,
}

/// The cgroup in which `controller` counts this process by version 1.
pub(super) fn of_controller(own: &str, mounts: &str, controller: &str) -> Option<Own> {
    let path = path_in(own, |controllers| controllers.split(',').any(|one| one == controller))?;
    let directory = mounts
        .lines()
        .filter_map(parse_mount)
        .find(|mount| mount.kind == "cgroup" && mount.options.split(',').any(|one| one == controller))
        .and_then(|mount| mount.below(path))?;
    Some(Own { version: Version::One, directory, top: path == "/" })
}

/// The cgroup of this process in the version 2 hierarchy.
pub(super) fn unified(own: &str, mounts: &str) -> Option<Own> {
    let path = path_in(own, str::is_empty)?;
    let directory = mounts
        .lines()
        .filter_map(parse_mount)
        .find(|mount| mount.kind == "cgroup2")
        .and_then(|mount| mount.below(path))?;
    Some(Own { version: Version::Two, directory, top: path == "/" })
}

/// `number:controllers:path`
fn path_in(own: &str, wanted: impl Fn(&str) -> bool) -> Option<&str> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        let path = fields.next()?;
        wanted(controllers).then_some(path)
    })
}

struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

/// See proc_pid_mountinfo(5): six fields, optional ones, a dash, three more.
fn parse_mount(line: &str) -> Option<Mount<'_>> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, point) = (left.next()?, left.next()?);
    let mut right = right.split(' ');
    let kind = right.next()?;
    // Spaces and the like are escaped; nobody mounts cgroups at such a place.
    (!point.contains('\\')).then_some(Mount { root, point, kind, options: right.nth(1)? })
}

impl Mount<'_> {
    /// The directory of a cgroup, if it is below what is mounted here.
    fn below(&self, path: &str) -> Option<PathBuf> {
        let path = Path::new(path);
        // `..` appears where a cgroup namespace hides where we are.
        if path.components().any(|part| part == std::path::Component::ParentDir) {
            return None;
        }
        let rest = path.strip_prefix(self.root).ok()?;
        Some(if rest.as_os_str().is_empty() { self.point.into() } else { Path::new(self.point).join(rest) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
25 30 0:23 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 25 0:27 / /sys/fs/cgroup/memory rw,relatime shared:8 - cgroup cgroup rw,memory
32 25 0:28 /docker/x /c/cpu,pids rw,relatime - cgroup cgroup rw,cpu,pids
33 25 0:29 / /sys/fs/cgroup/unified rw,relatime shared:9 master:1 - cgroup2 cgroup2 rw,nsdelegate
34 25 0:30 / /odd\\040place rw - cgroup cgroup rw,hugetlb
";

    fn one(directory: &str, top: bool) -> Option<Own> {
        Some(Own { version: Version::One, directory: directory.into(), top })
    }

    #[test]
    fn own_cgroup_is_found_below_what_is_mounted() {
        let own = "9:memory:/a/b\n8:cpu,pids:/docker/x/y\n4:hugetlb:/\n0::/user.slice\n";
        assert_eq!(of_controller(own, MOUNTS, "memory"), one("/sys/fs/cgroup/memory/a/b", false));
        assert_eq!(of_controller(own, MOUNTS, "pids"), one("/c/cpu,pids/y", false));
        let unified = unified(own, MOUNTS).unwrap();
        assert_eq!(unified.directory, Path::new("/sys/fs/cgroup/unified/user.slice"));
        assert!(!unified.top);
        assert_eq!(of_controller("2:memory:/\n", MOUNTS, "memory"), one("/sys/fs/cgroup/memory", true));
    }

    #[test]
    fn what_cannot_be_seen_is_not_guessed() {
        // Not mounted, outside of what is mounted, hidden by a namespace, no such line.
        assert_eq!(of_controller("3:cpu,pids:/elsewhere\n", MOUNTS, "pids"), None);
        assert_eq!(of_controller("3:memory:/../x\n", MOUNTS, "memory"), None);
        assert_eq!(of_controller("4:hugetlb:/\n", MOUNTS, "hugetlb"), None);
        assert_eq!(of_controller("", MOUNTS, "memory"), None);
        assert_eq!(unified("0::/\n", ""), None);
    }
}
