//! What a zygote reports: each protection by its stable name, whether it holds, and what would give it.
//!
//! Written only after a real call was verified under the plan in question; nothing here is read from configuration.

use oxibot_proto::message::{Level, Protection, ProtectionState};

use super::cgroup::{Counted, Counter};
use super::identity::Identity;
use super::orders::Plan;
use super::ruleset::SCOPES_ABI;
use super::seccomp::Telling;
use crate::wire::{Obtained, WallFault};

/// Given by namespaces: all or none of them.
const NAMESPACES: [&str; 9] = [
    "user-namespace",
    "mount-namespace",
    "pid-namespace",
    "network-namespace",
    "ipc-namespace",
    "uts-namespace",
    "cgroup-namespace",
    "private-tmp",
    "private-proc",
];
/// Given by every wall.
const ALWAYS: [&str; 3] = ["seccomp", "no-new-privs", "capabilities"];
/// What later Landlock ABIs brought, other than the scopes, which are a protection of their own.
const LATER: [(u32, &str); 3] = [
    (3, "truncating files (ABI 3, Linux 6.2)"),
    (4, "TCP (ABI 4, Linux 6.7; the filter refuses sockets instead)"),
    (5, "ioctl on devices (ABI 5, Linux 6.10)"),
];

/// Refused all the same, but nobody can say which call it was.
const UNTOLD: &str = "refused system calls are not told: another program above listens to them already (a container engine), or the \
     kernel is older than 5.0";

/// Describes the wall of a plan whose probe call was verified. `cgroup`: what is counted for each call as a whole.
pub(super) fn describe(
    plan: Plan,
    abi: u32,
    identity: &Identity,
    cgroup: &Counted,
    telling: Telling,
    lowered: Option<&WallFault>,
) -> Obtained {
    // Where a call runs as the kernel's uid 0, a cgroup is the only one to count its tasks.
    let counted = plan == Plan::Full || identity.outside_uid != 0 || cgroup.has(Counter::Processes);
    let mut list = Vec::new();
    let mut put = |name: &str, state, detail: &str| {
        list.push(Protection { name: name.into(), state, detail: detail.into() });
    };
    use ProtectionState::{Active, Degraded, Unavailable};
    let why = match (plan, lowered) {
        (Plan::Full, _) => String::new(),
        (Plan::Bare, None) => "namespaces were not asked for".into(),
        (Plan::Bare, Some(fault)) => format!("{fault}; {}", remedy(fault)),
        (Plan::Off, _) => "switched off by --no-sandbox".into(),
    };
    let namespaces = if plan == Plan::Full { Active } else { Unavailable };
    for name in NAMESPACES {
        put(name, namespaces, &why);
    }
    let wall = if plan == Plan::Off { Unavailable } else { Active };
    for name in ALWAYS {
        put(name, wall, if plan == Plan::Off { &why } else { "" });
    }
    match plan {
        Plan::Off => put("landlock", Unavailable, &why),
        // Mounts and namespaces stop all of it there, but a move between directories, which ABI 1 refuses.
        Plan::Full => put("landlock", Active, ""),
        Plan::Bare if uncovered(abi).is_empty() => put("landlock", Active, ""),
        Plan::Bare => put("landlock", Degraded, &format!("ABI {abi} does not cover {}", uncovered(abi))),
    }
    let scopes = format!("needs Landlock ABI {SCOPES_ABI} (Linux 6.12), this kernel has ABI {abi}");
    match plan {
        Plan::Full if abi < SCOPES_ABI => {
            put(
                "landlock-scopes",
                Degraded,
                &format!("{scopes}; the PID and network namespaces give the same"),
            );
        }
        Plan::Bare if abi < SCOPES_ABI => put("landlock-scopes", Unavailable, &scopes),
        Plan::Full | Plan::Bare => put("landlock-scopes", Active, ""),
        Plan::Off => put("landlock-scopes", Unavailable, &why),
    }
    let uncounted = "the kernel does not count processes of its uid 0, and there is no pids cgroup to be had; run as another user, \
         or with namespaces";
    match plan {
        Plan::Full => put("rlimits", Active, ""),
        Plan::Bare | Plan::Off if !counted => put("rlimits", Degraded, uncounted),
        Plan::Bare | Plan::Off => put("rlimits", Active, ""),
    }
    match plan {
        Plan::Full => put("idmapped-workspace", Active, ""),
        Plan::Bare | Plan::Off if identity.outside_uid == 0 => put("idmapped-workspace", Unavailable, &why),
        Plan::Bare | Plan::Off => put("idmapped-workspace", Active, ""),
    }
    match plan {
        Plan::Full => put("guarded-names", Active, ""),
        Plan::Bare | Plan::Off => {
            put(
                "guarded-names",
                Unavailable,
                "needs a mount namespace; Landlock cannot leave out a part of the workspace",
            );
        }
    }
    match (plan, telling) {
        (Plan::Off, _) => put("explanations", Unavailable, &why),
        (Plan::Full | Plan::Bare, Telling::Init) => put("explanations", Active, ""),
        (Plan::Full | Plan::Bare, Telling::Nobody) => put("explanations", Degraded, UNTOLD),
    }
    if cgroup.all() {
        put("cgroup", Active, &cgroup.by);
    } else if cgroup.by.is_empty() {
        let each = "limits are counted for each process, not for a call as a whole";
        put("cgroup", Unavailable, &format!("{each}: {}", cgroup.missing));
    } else {
        put("cgroup", Degraded, &format!("{}; {}", cgroup.by, cgroup.missing));
    }
    let level = match plan {
        Plan::Full => Level::Full,
        Plan::Bare if abi >= SCOPES_ABI && counted => Level::Kernel,
        Plan::Bare => Level::Reduced,
        Plan::Off => Level::Off,
    };
    Obtained { level, landlock_abi: abi, protections: list }
}

/// What an ABI leaves to others to stop.
fn uncovered(abi: u32) -> String {
    LATER.iter().filter(|(since, _)| *since > abi).map(|(_, what)| *what).collect::<Vec<_>>().join(", ")
}

/// The one thing to do about a fault of level `full`.
fn remedy(fault: &WallFault) -> &'static str {
    let says = |what: &str| fault.step.contains(what) || fault.cause.contains(what);
    if fault.step.contains("id-map") {
        "put the workspace on ext4, xfs, btrfs or another file system with id-mapped mounts, or run as its owner"
    } else if says("private /proc") {
        "show an unmasked /proc: in Docker --security-opt systempaths=unconfined"
    } else if says("namespace") || says("uid_map") || says("EPERM") || says("EACCES") {
        "allow unprivileged user namespaces: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 where that \
         exists, in Docker --security-opt seccomp=unconfined"
    } else {
        "run `oxibot doctor` where namespaces and mounts are allowed"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Identity = Identity { uid: 7, gid: 7, outside_uid: 7, outside_gid: 7 };

    const ROOT: Identity = Identity { uid: 0, gid: 0, outside_uid: 0, outside_gid: 0 };

    fn nothing() -> Counted {
        Counted::nothing("read-only")
    }

    #[test]
    fn full_lists_nothing_but_the_cgroup_as_missing() {
        let obtained = describe(Plan::Full, 7, &USER, &nothing(), Telling::Init, None);
        assert_eq!(obtained.level, Level::Full);
        let missing: Vec<_> =
            obtained.protections.iter().filter(|p| p.state != ProtectionState::Active).collect();
        assert_eq!(missing.len(), 1, "{missing:?}");
        assert!(
            missing.iter().all(|p| p.name == "cgroup" && p.detail.ends_with(": read-only")),
            "{missing:?}"
        );
    }

    #[test]
    fn old_landlock_without_namespaces_is_reduced() {
        assert_eq!(describe(Plan::Bare, 5, &USER, &nothing(), Telling::Init, None).level, Level::Reduced);
        assert_eq!(describe(Plan::Bare, 6, &USER, &nothing(), Telling::Init, None).level, Level::Kernel);
        assert_eq!(
            describe(Plan::Bare, 6, &ROOT, &nothing(), Telling::Init, None).level,
            Level::Reduced,
            "nobody counts its processes"
        );
    }

    #[test]
    fn what_an_old_landlock_does_not_cover_is_listed() {
        let landlock = |plan, abi| {
            let obtained = describe(plan, abi, &USER, &nothing(), Telling::Init, None);
            obtained.protections.into_iter().find(|p| p.name == "landlock").unwrap()
        };
        let debian = landlock(Plan::Bare, 2);
        assert_eq!(debian.state, ProtectionState::Degraded);
        for missing in ["truncating", "TCP", "ioctl"] {
            assert!(debian.detail.contains(missing), "{}", debian.detail);
        }
        assert!(!landlock(Plan::Bare, 4).detail.contains("TCP"));
        assert_eq!(landlock(Plan::Bare, 5).state, ProtectionState::Active);
        assert_eq!(landlock(Plan::Full, 2).state, ProtectionState::Active, "mounts and namespaces stop it");
    }

    #[test]
    fn reason_of_the_lower_level_is_named_with_its_remedy() {
        let fault = super::super::fault::fault("id-map /w", "EINVAL");
        let obtained = describe(Plan::Bare, 7, &USER, &nothing(), Telling::Init, Some(&fault));
        let detail = &obtained.protections.iter().find(|p| p.name == "mount-namespace").unwrap().detail;
        assert!(detail.contains("cannot id-map /w: EINVAL") && detail.contains("ext4"), "{detail}");
    }
}
