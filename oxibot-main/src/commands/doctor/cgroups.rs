//! Control groups: which version, what this process could make below its own, and what a call gets from that.
//!
//! What a call really gets is found by the toolhost; this says why, and what would give more. Nothing is made here.

use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use oxibot_proto::message::{Protection, ProtectionState};

use crate::render::neutral;

use super::facts::{text, trimmed};
use super::report::Check;

/// Controllers that bound a call.
const WANTED: [&str; 3] = ["memory", "pids", "cpu"];

/// What was found of control groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CgroupFacts {
    /// Hierarchies that are mounted and show our place.
    pub(super) hierarchies: Vec<Hierarchy>,
    /// What the toolhost says of a call's own group; none when it does not run.
    pub(super) call: Option<Protection>,
}

/// One hierarchy, as seen from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// 1 or 2.
    pub(super) version: u8,
    /// Controllers it offers at our place.
    pub(super) controllers: Vec<String>,
    /// Directory of our own group.
    pub(super) place: PathBuf,
    /// Whether this user may make groups there.
    pub(super) writable: bool,
    /// Version 1: the program the kernel starts as root when a group becomes empty, if one is set.
    pub(super) release_agent: Option<String>,
    /// Version 1: whether new groups below ours would start it.
    pub(super) notifies: bool,
}

impl CgroupFacts {
    /// Looks at `/proc` and at our own groups.
    pub(super) fn gather(call: Option<Protection>) -> Self {
        let own = text("/proc/self/cgroup").unwrap_or_default();
        let mounts = text("/proc/self/mountinfo").unwrap_or_default();
        let hierarchies = places(&own, &mounts).into_iter().filter_map(look).collect();
        Self { hierarchies, call }
    }

    fn obtainable(&self) -> Vec<&'static str> {
        WANTED
            .into_iter()
            .filter(|wanted| {
                self.hierarchies
                    .iter()
                    .any(|one| one.writable && one.controllers.iter().any(|known| known == wanted))
            })
            .collect()
    }
}

/// A hierarchy before it is looked at.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    version: u8,
    controllers: Vec<String>,
    mount: PathBuf,
    own: PathBuf,
}

/// Where our groups are, from `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn places(own: &str, mounts: &str) -> Vec<Place> {
    mounts
        .lines()
        .filter_map(|line| {
            let (front, back) = line.split_once(" - ")?;
            let mut fields = front.split(' ').skip(3);
            let (root, mount) = (fields.next()?, PathBuf::from(fields.next()?));
            let mut fields = back.split(' ');
            let (kind, options) = (fields.next()?, fields.nth(1)?);
            let version = match kind {
                "cgroup2" => 2,
                "cgroup" => 1,
                _ => return None,
            };
            let (controllers, path) = own.lines().find_map(|line| {
                let (names, path) = line.split_once(':')?.1.split_once(':')?;
                let named: Vec<&str> = names.split(',').filter(|name| !name.is_empty()).collect();
                let same = if version == 2 {
                    named.is_empty()
                } else {
                    !named.is_empty()
                        && named.iter().all(|name| options.split(',').any(|option| option == *name))
                };
                same.then(|| (named.into_iter().map(str::to_owned).collect(), path))
            })?;
            // A container sees part of the tree: what is above its root is cut off.
            let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
            if below.components().any(|part| part == std::path::Component::ParentDir) {
                return None;
            }
            let own = mount.join(below.strip_prefix("/").unwrap_or(below));
            Some(Place { version, controllers, mount, own })
        })
        .collect()
}

fn look(place: Place) -> Option<Hierarchy> {
    if !place.own.is_dir() {
        return None;
    }
    let words = |path: PathBuf| -> Vec<String> {
        trimmed(path).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let (controllers, guarded) = match place.version {
        2 => (words(place.own.join("cgroup.controllers")), "cgroup.subtree_control"),
        _ => (place.controllers, "cgroup.procs"),
    };
    let may = |path: &Path| access(path, AccessFlags::W_OK).is_ok();
    let release_agent = trimmed(place.mount.join("release_agent")).filter(|agent| !agent.is_empty());
    let notifies = trimmed(place.own.join("notify_on_release")).is_some_and(|value| value == "1");
    Some(Hierarchy {
        version: place.version,
        writable: may(&place.own) && may(&place.own.join(guarded)),
        controllers,
        place: place.own,
        release_agent,
        notifies,
    })
}

/// Which versions there are.
pub(super) fn version(facts: &CgroupFacts) -> Vec<Check> {
    let id = "cgroup.version";
    let of = |version: u8| -> Vec<&str> {
        facts
            .hierarchies
            .iter()
            .filter(|one| one.version == version)
            .flat_map(|one| one.controllers.iter().map(String::as_str))
            .filter(|name| !name.starts_with("name="))
            .collect()
    };
    let two = facts.hierarchies.iter().any(|one| one.version == 2);
    let (first, second) = (of(1), of(2));
    vec![match (first.is_empty(), two) {
        (true, true) => Check::ok(id, format!("version 2, with {}", list(&second))),
        (false, true) => {
            Check::ok(id, format!("version 1 with {}; version 2 with {}", list(&first), list(&second)))
        }
        (false, false) => Check::ok(id, format!("version 1, with {}", list(&first))),
        (true, false) => Check::warn(
            id,
            "none is mounted",
            "limits are counted for each process, not for a call as a whole",
            "as root: mount -t cgroup2 none /sys/fs/cgroup",
        ),
    }]
}

/// What we may hand on, and what a call gets.
pub(super) fn delegation(facts: &CgroupFacts) -> Vec<Check> {
    let id = "cgroup.delegation";
    let obtainable = facts.obtainable();
    let got = match &facts.call {
        Some(call) if call.state == ProtectionState::Active => "each call has a group of its own",
        Some(call) if call.state == ProtectionState::Degraded => {
            "each call has a group of its own, not for every limit"
        }
        Some(_) => "a call has no group of its own: limits are counted for each process",
        None => "what a call gets is not known: no toolhost runs",
    };
    let found = format!("{} can be delegated; {got}", list(&obtainable));
    let active = facts.call.as_ref().is_some_and(|call| call.state == ProtectionState::Active);
    if active || (obtainable.len() == WANTED.len() && facts.call.is_none()) {
        return vec![Check::ok(id, found)];
    }
    if obtainable.len() == WANTED.len() {
        // Nothing of the machine is in the way: the toolhost says why it does without.
        let why = facts.call.as_ref().map(|call| neutral::line(&call.detail, 1024)).unwrap_or_default();
        return vec![Check::info(id, found, why, "")];
    }
    let remedy = if facts.hierarchies.iter().any(|one| one.version == 1 && !one.controllers.is_empty()) {
        "as root: add systemd.unified_cgroup_hierarchy=1 to GRUB_CMDLINE_LINUX in /etc/default/grub, run \
         update-grub, reboot; then systemd-run --user --scope -p Delegate=yes oxibot agent"
    } else {
        "start it as: systemd-run --user --scope -p Delegate=yes oxibot agent"
    };
    let consequence = "memory and processes of one call are bounded one by one, not in sum: many small processes \
                       together can use more than a limit says";
    vec![Check::warn(id, found, consequence, remedy)]
}

/// Version 1 only: a program the kernel starts as root, outside of everything, when a group becomes empty.
pub(super) fn release(facts: &CgroupFacts) -> Vec<Check> {
    let id = "cgroup.release";
    let set: Vec<(&Hierarchy, &str)> =
        facts.hierarchies.iter().filter_map(|one| Some((one, one.release_agent.as_deref()?))).collect();
    let names = |all: &[(&Hierarchy, &str)]| -> String {
        all.iter()
            .map(|(one, agent)| format!("{} for {}", agent, list(&one.controllers)))
            .collect::<Vec<_>>()
            .join("; ")
    };
    let notified: Vec<(&Hierarchy, &str)> = set.iter().filter(|(one, _)| one.notifies).copied().collect();
    if let Some((first, _)) = notified.first() {
        let remedy = format!("as root: echo 0 > {}/notify_on_release", first.place.display());
        return vec![Check::warn(
            id,
            format!("release agent {}", names(&notified)),
            "the kernel starts that program as root each time the group of a call ends",
            remedy,
        )];
    }
    vec![if set.is_empty() {
        Check::ok(id, "no release agent is set")
    } else {
        Check::ok(id, format!("release agent {}; groups made here do not start it", names(&set)))
    }]
}

fn list<S: AsRef<str>>(names: &[S]) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    names.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    fn hierarchy(version: u8, controllers: &[&str], writable: bool) -> Hierarchy {
        Hierarchy {
            version,
            controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
            place: "/sys/fs/cgroup/own".into(),
            writable,
            release_agent: None,
            notifies: false,
        }
    }

    fn facts(hierarchies: Vec<Hierarchy>, call: Option<ProtectionState>) -> CgroupFacts {
        let call = call.map(|state| Protection { name: "call-cgroup".into(), state, detail: String::new() });
        CgroupFacts { hierarchies, call }
    }

    fn one(checks: Vec<Check>) -> Check {
        assert_eq!(checks.len(), 1);
        checks.into_iter().next().unwrap()
    }

    #[test]
    fn places_are_found_in_both_versions_and_in_a_container() {
        let mounts = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let found = places("0::/user.slice/a.scope\n", mounts);
        assert_eq!(found[0].own, Path::new("/sys/fs/cgroup/user.slice/a.scope"));
        let mounts = "33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      35 31 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = places("4:memory:/x/y\n1:cpu,cpuacct:/\n0::/\n", mounts);
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].version, &found[0].own), (1, &PathBuf::from("/sys/fs/cgroup/memory/x/y")));
        assert_eq!(found[1].controllers, ["cpu", "cpuacct"]);
        assert_eq!(found[2].own, Path::new("/sys/fs/cgroup/unified"));
        let mounts = "33 31 0:30 /docker/abc /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n";
        assert_eq!(places("4:pids:/docker/abc/x\n", mounts)[0].own, Path::new("/sys/fs/cgroup/pids/x"));
        assert!(places("4:pids:/../up\n", "33 31 0:30 / /c ro - cgroup cgroup rw,pids\n").is_empty());
        assert!(places("", "nonsense\n1 2 3 - x\n").is_empty());
    }

    #[test]
    fn version_is_named_and_none_is_doubtful() {
        let two = one(version(&facts(vec![hierarchy(2, &["memory", "pids"], true)], None)));
        assert_eq!((two.state, two.found.as_str()), (State::Ok, "version 2, with memory, pids"));
        assert_eq!(one(version(&facts(Vec::new(), None))).state, State::Warn);
        let first = facts(vec![hierarchy(1, &["pids"], true), hierarchy(1, &["name=systemd"], true)], None);
        assert_eq!(one(version(&first)).found, "version 1, with pids");
    }

    #[test]
    fn delegation_says_what_a_call_gets_and_how_to_get_more() {
        let all = || vec![hierarchy(2, &["memory", "pids", "cpu"], true)];
        assert_eq!(one(delegation(&facts(all(), Some(ProtectionState::Active)))).state, State::Ok);
        assert_eq!(one(delegation(&facts(all(), Some(ProtectionState::Unavailable)))).state, State::Info);
        let mine = vec![hierarchy(2, &["memory", "pids", "cpu"], false)];
        let refused = one(delegation(&facts(mine, Some(ProtectionState::Unavailable))));
        assert_eq!(refused.state, State::Warn);
        assert!(refused.found.starts_with("nothing can be delegated"), "{refused:?}");
        assert!(refused.remedy.starts_with("start it as: systemd-run --user"), "{refused:?}");
        let old = vec![hierarchy(1, &["memory"], false)];
        let old = one(delegation(&facts(old, Some(ProtectionState::Unavailable))));
        assert!(old.remedy.contains("unified_cgroup_hierarchy=1"), "{old:?}");
    }

    #[test]
    fn a_release_agent_that_calls_would_start_is_doubtful() {
        let with = |agent: Option<&str>, notifies| {
            let mut one = hierarchy(1, &["pids"], true);
            one.release_agent = agent.map(str::to_owned);
            one.notifies = notifies;
            facts(vec![one], None)
        };
        assert_eq!(one(release(&with(None, true))).state, State::Ok);
        assert_eq!(one(release(&with(Some("/sbin/agent"), false))).state, State::Ok);
        let bad = one(release(&with(Some("/sbin/agent"), true)));
        assert_eq!(bad.state, State::Warn);
        assert_eq!(bad.remedy, "as root: echo 0 > /sys/fs/cgroup/own/notify_on_release");
    }
}
