//! Namespaces: whether a call can have its own, tried; and which setting refuses them where it cannot.
//!
//! Without them the level is `kernel` or `reduced`, which is accepted by default or refused by the toolhost: here that
//! is doubt, never failure.

use std::path::Path;

use oxibot_proto::facts::NamespaceTried;

use super::facts::number_of;
use super::report::Check;

/// Fewer user namespaces than this and workspaces in use at once begin to fail.
const FEW: u64 = 16;

/// What decides about namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamespaceFacts {
    /// What became of trying; none when nothing could be tried.
    pub(super) tried: Option<Vec<NamespaceTried>>,
    /// `user.max_user_namespaces`.
    pub(super) most: Option<u64>,
    /// `kernel.unprivileged_userns_clone`, which Debian's kernels have.
    pub(super) unprivileged: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, which Ubuntu's kernels and newer ones have.
    pub(super) apparmor: Option<u64>,
    /// Whether we are the kernel's root.
    pub(super) root: bool,
    /// Whether this is a container.
    pub(super) container: bool,
}

impl NamespaceFacts {
    /// Looks. `tried` comes from the toolhost's program.
    pub(super) fn gather(tried: Option<Vec<NamespaceTried>>) -> Self {
        Self {
            tried,
            most: number_of("/proc/sys/user/max_user_namespaces"),
            unprivileged: number_of("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor: number_of("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            root: nix::unistd::geteuid().is_root(),
            container: ["/.dockerenv", "/run/.containerenv", "/run/systemd/container"]
                .iter()
                .any(|mark| Path::new(mark).exists()),
        }
    }

    fn refused(&self) -> bool {
        self.tried.as_ref().is_some_and(|tried| tried.iter().any(|one| one.refused.is_some()))
    }
}

const LOWER: &str = "calls run at level kernel, or reduced on an older kernel: without a /tmp, /proc and network of \
                     their own";

/// Whether each kind is to be had.
pub(super) fn tried(facts: &NamespaceFacts) -> Vec<Check> {
    let id = "namespaces.tried";
    let Some(tried) = &facts.tried else {
        return vec![Check::warn(
            id,
            "could not be tried",
            "the level of calls is not known",
            "see sandbox.programs",
        )];
    };
    let names = |refused: bool| -> Vec<String> {
        tried
            .iter()
            .filter(|one| one.refused.is_some() == refused)
            .map(|one| match &one.refused {
                Some(errno) => format!("{} ({errno})", one.name),
                None => one.name.clone(),
            })
            .collect()
    };
    let refused = names(true);
    if refused.is_empty() {
        return vec![Check::ok(id, names(false).join(", "))];
    }
    let remedy = match (facts.container, facts.most == Some(0)) {
        (true, _) => {
            "for Docker: docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined"
        }
        (false, true) => "see namespaces.limit",
        (false, false) => "see namespaces.unprivileged and namespaces.apparmor",
    };
    vec![Check::warn(id, format!("refused: {}", refused.join(", ")), LOWER, remedy)]
}

/// How many there may be.
pub(super) fn limit(facts: &NamespaceFacts) -> Vec<Check> {
    let id = "namespaces.limit";
    let remedy =
        "as root: echo user.max_user_namespaces=15000 > /etc/sysctl.d/60-oxibot.conf && sysctl --system";
    vec![match facts.most {
        Some(0) => Check::warn(id, "user.max_user_namespaces is 0", LOWER, remedy),
        Some(most) if most < FEW => Check::warn(
            id,
            format!("user.max_user_namespaces is {most}"),
            "each workspace in use needs one; further ones are refused",
            remedy,
        ),
        Some(most) => Check::ok(id, format!("user.max_user_namespaces is {most}")),
        None => Check::warn(
            id,
            "this kernel has no user namespaces",
            LOWER,
            "a kernel built with CONFIG_USER_NS=y, as Debian's are",
        ),
    }]
}

/// Debian's switch.
pub(super) fn unprivileged(facts: &NamespaceFacts) -> Vec<Check> {
    let remedy =
        "as root: echo kernel.unprivileged_userns_clone=1 > /etc/sysctl.d/60-oxibot.conf && sysctl --system";
    let name = "kernel.unprivileged_userns_clone";
    vec![switch("namespaces.unprivileged", name, facts.unprivileged, 0, facts, remedy)]
}

/// AppArmor's restriction: it grants the namespace and takes its rights away.
pub(super) fn apparmor(facts: &NamespaceFacts) -> Vec<Check> {
    let remedy = "as root: echo kernel.apparmor_restrict_unprivileged_userns=0 > /etc/sysctl.d/60-oxibot.conf && \
                  sysctl --system";
    let name = "kernel.apparmor_restrict_unprivileged_userns";
    vec![switch("namespaces.apparmor", name, facts.apparmor, 1, facts, remedy)]
}

/// A setting that refuses ordinary users when it has the value `refuses`.
fn switch(
    id: &str,
    name: &str,
    value: Option<u64>,
    refuses: u64,
    facts: &NamespaceFacts,
    remedy: &str,
) -> Check {
    match value {
        None => Check::ok(id, format!("this kernel has no {name}")),
        Some(value) if value != refuses => Check::ok(id, format!("{name} is {value}")),
        Some(value) => {
            let found = format!("{name} is {value}");
            if facts.root {
                Check::info(
                    id,
                    found,
                    "root may make namespaces all the same; other users get level kernel",
                    remedy,
                )
            } else if facts.tried.is_some() && !facts.refused() {
                Check::info(id, found, "an exception for these programs is in force: they may", "")
            } else {
                Check::warn(id, found, LOWER, remedy)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    fn result(name: &str, refused: Option<&str>) -> NamespaceTried {
        NamespaceTried { name: name.into(), refused: refused.map(str::to_owned) }
    }

    fn good() -> NamespaceFacts {
        NamespaceFacts {
            tried: Some(vec![result("user", None), result("mount", None)]),
            most: Some(15_000),
            unprivileged: Some(1),
            apparmor: Some(0),
            root: false,
            container: false,
        }
    }

    fn bad(errno: &str) -> NamespaceFacts {
        NamespaceFacts { tried: Some(vec![result("user", None), result("mount", Some(errno))]), ..good() }
    }

    fn one(checks: Vec<Check>) -> Check {
        assert_eq!(checks.len(), 1);
        checks.into_iter().next().unwrap()
    }

    #[test]
    fn what_was_refused_is_named_with_the_kernels_answer() {
        assert_eq!(one(tried(&good())).found, "user, mount");
        let refused = one(tried(&bad("EPERM")));
        assert_eq!((refused.state, refused.found.as_str()), (State::Warn, "refused: mount (EPERM)"));
        let docker = one(tried(&NamespaceFacts { container: true, ..bad("EPERM") }));
        assert!(docker.remedy.contains("--security-opt"), "{docker:?}");
        assert_eq!(one(tried(&NamespaceFacts { tried: None, ..good() })).state, State::Warn);
    }

    #[test]
    fn limit_of_none_or_few_is_doubtful() {
        let at = |most| one(limit(&NamespaceFacts { most, ..good() })).state;
        assert_eq!(at(Some(15_000)), State::Ok);
        assert_eq!(at(Some(3)), State::Warn);
        assert_eq!(at(Some(0)), State::Warn);
        assert_eq!(at(None), State::Warn);
    }

    #[test]
    fn debians_switch_counts_for_ordinary_users_only() {
        let at = |unprivileged, facts: NamespaceFacts| {
            one(super::unprivileged(&NamespaceFacts { unprivileged, ..facts })).state
        };
        assert_eq!(at(Some(1), good()), State::Ok);
        assert_eq!(at(None, good()), State::Ok);
        assert_eq!(at(Some(0), bad("EPERM")), State::Warn);
        assert_eq!(at(Some(0), NamespaceFacts { root: true, ..good() }), State::Info);
    }

    #[test]
    fn apparmors_restriction_counts_unless_these_programs_are_excepted() {
        let at =
            |apparmor, facts: NamespaceFacts| one(super::apparmor(&NamespaceFacts { apparmor, ..facts }));
        assert_eq!(at(Some(0), good()).state, State::Ok);
        let refused = at(Some(1), bad("EPERM"));
        assert_eq!(refused.state, State::Warn);
        assert!(refused.remedy.contains("apparmor_restrict_unprivileged_userns=0"), "{refused:?}");
        assert_eq!(at(Some(1), good()).state, State::Info, "an AppArmor profile may allow it");
    }
}
