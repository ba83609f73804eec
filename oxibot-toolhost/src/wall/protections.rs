//! What a zygote reports: each protection by its stable name, whether it holds, and what would give it.
//!
//! Written only after a real call was verified under the plan in question; nothing here is read from configuration.

use oxibot_proto::message::{Level, Protection, ProtectionState};

use super::cgroup::{Counted, Counter};
use super::identity::Identity;
use super::orders::Plan;
use super::remedy::Switches;
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
const ALWAYS: [&str; 4] = ["landlock", "seccomp", "no-new-privs", "capabilities"];

/// What keeps the promise where a kernel's Landlock does not, without namespaces.
enum Instead {
    /// The same is refused by this.
    Same(&'static str),
    /// Nothing: this is possible.
    Gap(&'static str),
}

/// A kind of access that not every Landlock knows.
struct Right {
    name: &'static str,
    what: &'static str,
    abi: u32,
    linux: &'static str,
    /// What gives the same at level `full`. `None` where Landlock is not asked for it there, whatever the kernel knows.
    at_full: Option<&'static str>,
    below: Instead,
}

/// ABI 2 (moving between directories) is not here: an older Landlock refuses that altogether. TCP at level `full` is left
/// to the network namespace whatever the kernel knows.
const RIGHTS: [Right; 4] = [
    Right {
        name: "landlock-truncate",
        what: "emptying files",
        abi: 3,
        linux: "6.2",
        at_full: Some("the read-only mounts give the same"),
        below: Instead::Same("the system call filter refuses truncate and O_TRUNC without writing"),
    },
    Right {
        name: "landlock-tcp",
        what: "TCP",
        abi: 4,
        linux: "6.7",
        at_full: None,
        below: Instead::Same("the system call filter refuses every socket"),
    },
    Right {
        name: "landlock-ioctl",
        what: "controlling devices",
        abi: 5,
        linux: "6.10",
        at_full: Some("there are only null, zero, full, random and urandom"),
        below: Instead::Same("only null, zero, full, random and urandom can be opened"),
    },
    Right {
        name: "landlock-scopes",
        what: "signals and abstract sockets",
        abi: SCOPES_ABI,
        linux: "6.12",
        at_full: Some("the PID and network namespaces give the same"),
        below: Instead::Gap(
            "the system call filter refuses every socket, and signals to what is above a call, but a call can signal other \
             processes of its user",
        ),
    },
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
    switches: &Switches,
) -> Obtained {
    // Where a call runs as the kernel's uid 0, a cgroup is the only one to count its tasks.
    let counted = plan == Plan::Full || identity.outside_uid != 0 || cgroup.has(Counter::Processes);
    let mut list = Vec::new();
    let mut put = |name: &str, state, detail: &str| {
        list.push(Protection { name: name.into(), state, detail: detail.into() });
    };
    use ProtectionState::{Active, Degraded, Unavailable};
    let remedy = match (plan, lowered) {
        (_, Some(fault)) => switches.remedy(fault),
        (Plan::Bare, None) => "start it without --without-namespaces".to_owned(),
        (Plan::Full | Plan::Off, None) => String::new(),
    };
    let why = match (plan, lowered) {
        (Plan::Full, _) => String::new(),
        (Plan::Bare, None) => "namespaces were not asked for".into(),
        (Plan::Bare, Some(fault)) => format!("{fault}; {remedy}"),
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
    for right in &RIGHTS {
        let lacks = || {
            let (name, linux) = (right.what, right.linux);
            format!("Landlock ABI {abi} has no rule for {name}; Linux {linux} (ABI {}) has; ", right.abi)
        };
        match plan {
            Plan::Full if right.at_full.is_none() => {}
            // What every current kernel has is part of `landlock`; the scopes are what level `kernel` stands on.
            Plan::Full | Plan::Bare if abi >= right.abi => {
                if right.abi == SCOPES_ABI {
                    put(right.name, Active, "");
                }
            }
            Plan::Full => put(right.name, Degraded, &(lacks() + right.at_full.unwrap_or_default())),
            Plan::Bare => match right.below {
                Instead::Same(what) => put(right.name, Degraded, &(lacks() + what)),
                Instead::Gap(what) => put(right.name, Unavailable, &(lacks() + what)),
            },
            Plan::Off => put(right.name, Unavailable, &why),
        }
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
    Obtained { level, landlock_abi: abi, protections: list, remedy }
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
        let obtained = describe(Plan::Full, 7, &USER, &nothing(), Telling::Init, None, &Switches::default());
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
        assert_eq!(
            describe(Plan::Bare, 5, &USER, &nothing(), Telling::Init, None, &Switches::default()).level,
            Level::Reduced
        );
        assert_eq!(
            describe(Plan::Bare, 6, &USER, &nothing(), Telling::Init, None, &Switches::default()).level,
            Level::Kernel
        );
        assert_eq!(
            describe(Plan::Bare, 6, &ROOT, &nothing(), Telling::Init, None, &Switches::default()).level,
            Level::Reduced,
            "nobody counts its processes"
        );
    }

    #[test]
    fn older_landlock_is_named_right_by_right() {
        let states = |plan, abi| -> Vec<(String, ProtectionState)> {
            let obtained = describe(plan, abi, &USER, &nothing(), Telling::Init, None, &Switches::default());
            let named = obtained.protections.into_iter().filter(|p| p.name.starts_with("landlock-"));
            named.map(|p| (p.name, p.state)).filter(|(_, state)| *state != ProtectionState::Active).collect()
        };
        let names = |states: Vec<(String, ProtectionState)>| -> Vec<String> {
            states.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(states(Plan::Bare, 6), []);
        assert_eq!(states(Plan::Bare, 5), [("landlock-scopes".into(), ProtectionState::Unavailable)]);
        assert_eq!(names(states(Plan::Full, 4)), ["landlock-ioctl", "landlock-scopes"]);
        let all = ["landlock-truncate", "landlock-tcp", "landlock-ioctl", "landlock-scopes"];
        assert_eq!(names(states(Plan::Bare, 2)), all);
        assert_eq!(
            names(states(Plan::Full, 2)),
            [all[0], all[2], all[3]],
            "TCP is the network namespace's there"
        );
        assert!(states(Plan::Full, 2).iter().all(|(_, state)| *state == ProtectionState::Degraded));
    }

    #[test]
    fn reason_of_the_lower_level_is_named_with_its_remedy() {
        let fault = super::super::fault::fault("id-map /w", "EINVAL");
        let obtained =
            describe(Plan::Bare, 7, &USER, &nothing(), Telling::Init, Some(&fault), &Switches::default());
        let detail = &obtained.protections.iter().find(|p| p.name == "mount-namespace").unwrap().detail;
        assert!(detail.contains("cannot id-map /w: EINVAL") && detail.contains("ext4"), "{detail}");
    }
}
