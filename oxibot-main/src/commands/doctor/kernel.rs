//! The kernel: version, Landlock, seccomp, Yama. What each missing piece costs.

use oxibot_proto::message::Level;

use super::facts::{number_of, trimmed};
use super::report::Check;

/// What the kernel shows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KernelFacts {
    /// `/proc/sys/kernel/osrelease`.
    pub(super) release: Option<String>,
    /// Architecture as Rust names it.
    pub(super) machine: &'static str,
    /// Landlock ABI as asked; none when it could not be asked.
    pub(super) landlock: Option<u32>,
    /// `/sys/kernel/security/lsm`, where it can be read.
    pub(super) lsms: Option<String>,
    /// `/proc/sys/kernel/seccomp/actions_avail`.
    pub(super) seccomp: Option<String>,
    /// `/proc/sys/kernel/yama/ptrace_scope`.
    pub(super) ptrace_scope: Option<u64>,
}

impl KernelFacts {
    /// Looks. `landlock` is what the toolhost's program was told.
    pub(super) fn gather(landlock: Option<u32>) -> Self {
        Self {
            release: trimmed("/proc/sys/kernel/osrelease"),
            machine: std::env::consts::ARCH,
            landlock,
            lsms: trimmed("/sys/kernel/security/lsm"),
            seccomp: trimmed("/proc/sys/kernel/seccomp/actions_avail"),
            ptrace_scope: number_of("/proc/sys/kernel/yama/ptrace_scope"),
        }
    }
}

/// The newest ABI whose rights OxiBot uses.
const USED_ABI: u32 = 6;

/// What each ABI added that matters here: the ABI, the Linux that brought it, and what is not stopped without it.
const ADDED: [(u32, &str, &str); 5] = [
    (2, "5.19", "moving files between directories is refused, also inside the workspace"),
    (3, "6.2", "truncating files is not covered"),
    (4, "6.7", "TCP is not covered"),
    (5, "6.10", "ioctl on devices is not covered"),
    (6, "6.12", "signals and abstract sockets to other programs of this user are not covered"),
];

/// Version and machine.
pub(super) fn version(facts: &KernelFacts) -> Vec<Check> {
    let id = "kernel.version";
    let Some(release) = &facts.release else {
        return vec![Check::warn(
            id,
            "/proc/sys/kernel/osrelease cannot be read",
            "which kernel this is cannot be seen",
            "as root: mount -t proc proc /proc",
        )];
    };
    let found = format!("Linux {release} on {}", facts.machine);
    vec![match major_minor(release) {
        Some(version) if version < (5, 13) => Check::fail(
            id,
            found,
            "older than 5.13: it has no Landlock, and no tool runs without",
            newer_kernel(facts.machine),
        ),
        Some(_) => Check::ok(id, found),
        None => Check::info(id, found, "not a version number that can be understood", ""),
    }]
}

/// Landlock, by ABI.
pub(super) fn landlock(facts: &KernelFacts, level: Option<Level>) -> Vec<Check> {
    let id = "kernel.landlock";
    let Some(abi) = facts.landlock else {
        return vec![Check::warn(
            id,
            "the ABI could not be asked for",
            "what Landlock covers here is not known",
            "see sandbox.programs",
        )];
    };
    if abi == 0 {
        let remedy = match &facts.lsms {
            Some(lsms) if !lsms.split(',').any(|lsm| lsm == "landlock") => format!(
                "as root: add lsm=landlock,{lsms} to GRUB_CMDLINE_LINUX in /etc/default/grub, run update-grub, reboot"
            ),
            Some(_) | None => newer_kernel(facts.machine),
        };
        return vec![Check::fail(id, "none, or it is not enabled", "no tool runs without Landlock", remedy)];
    }
    if abi >= USED_ABI {
        return vec![Check::ok(id, format!("ABI {abi}, all that OxiBot uses"))];
    }
    let missing: Vec<String> = ADDED
        .iter()
        .filter(|(added, ..)| *added > abi)
        .map(|(added, linux, cost)| format!("ABI {added} (Linux {linux}): {cost}"))
        .collect();
    let found = format!("ABI {abi} of {USED_ABI}");
    let cost = missing.join("; ");
    // ABI 2 is missed at every level: a mount cannot give what Landlock refuses.
    vec![if level == Some(Level::Full) && abi >= 2 {
        let consequence = format!("missing is {cost}; the namespaces of level full give the same");
        Check::info(id, found, consequence, newer_kernel(facts.machine))
    } else {
        Check::warn(id, found, format!("missing is {cost}"), newer_kernel(facts.machine))
    }]
}

/// seccomp: the filter, and asking us about what it refuses.
pub(super) fn seccomp(facts: &KernelFacts) -> Vec<Check> {
    let id = "kernel.seccomp";
    let Some(actions) = &facts.seccomp else {
        return vec![Check::fail(
            id,
            "no filter: /proc/sys/kernel/seccomp/actions_avail is not there",
            "no tool runs without the system-call filter",
            "a kernel built with CONFIG_SECCOMP_FILTER=y, as Debian's are",
        )];
    };
    let has = |action: &str| actions.split_whitespace().any(|one| one == action);
    vec![match (has("errno"), has("user_notif")) {
        (true, true) => Check::ok(id, "filter and user notification"),
        (true, false) => Check::warn(
            id,
            "filter without user notification",
            "what the filter refuses is refused, but results cannot say what it was",
            newer_kernel(facts.machine),
        ),
        (false, _) => Check::fail(
            id,
            format!("the filter offers only: {actions}"),
            "no tool runs without the system-call filter",
            newer_kernel(facts.machine),
        ),
    }]
}

/// Yama: who may trace whom among the programs of one user.
pub(super) fn yama(facts: &KernelFacts) -> Vec<Check> {
    let id = "kernel.yama";
    let open = "programs of this user may trace each other; OxiBot's own processes refuse that themselves, and \
                a call is kept from it by the wall";
    let remedy = "as root: echo kernel.yama.ptrace_scope=1 > /etc/sysctl.d/60-ptrace.conf && sysctl --system";
    vec![match facts.ptrace_scope {
        Some(0) => Check::info(id, "ptrace_scope is 0", open, remedy),
        Some(scope) => Check::ok(id, format!("ptrace_scope is {scope}")),
        None => Check::info(id, "this kernel has no Yama", open, "a kernel with Yama, as Debian's are"),
    }]
}

fn major_minor(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Debian's way to a newer kernel.
fn newer_kernel(machine: &str) -> String {
    let package = match machine {
        "x86_64" => "linux-image-amd64",
        "aarch64" => "linux-image-arm64",
        _ => "linux-image of your architecture",
    };
    format!(
        "as root, with bookworm-backports in /etc/apt/sources.list: apt update && \
         apt install -t bookworm-backports {package}, then reboot"
    )
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    fn good() -> KernelFacts {
        KernelFacts {
            release: Some("6.12.9-amd64".into()),
            machine: "x86_64",
            landlock: Some(7),
            lsms: Some("lockdown,yama".into()),
            seccomp: Some("kill_process errno user_notif log allow".into()),
            ptrace_scope: Some(1),
        }
    }

    fn one(checks: Vec<Check>) -> Check {
        assert_eq!(checks.len(), 1);
        checks.into_iter().next().unwrap()
    }

    #[test]
    fn version_is_read_and_an_old_one_fails() {
        assert_eq!(one(version(&good())).state, State::Ok);
        let with = |release: Option<&str>| {
            one(version(&KernelFacts { release: release.map(str::to_owned), ..good() }))
        };
        let old = with(Some("5.10.0-28-amd64"));
        assert_eq!(old.state, State::Fail);
        assert!(old.remedy.contains("linux-image-amd64"), "{old:?}");
        assert_eq!(with(Some("5.13.0")).state, State::Ok);
        assert_eq!(with(Some("next")).state, State::Info);
        assert_eq!(with(None).state, State::Warn);
    }

    #[test]
    fn landlock_costs_are_named_by_abi() {
        let at = |abi, level| one(landlock(&KernelFacts { landlock: abi, ..good() }, level));
        assert_eq!(at(Some(6), None).state, State::Ok);
        let debian = at(Some(2), Some(Level::Reduced));
        assert_eq!(debian.state, State::Warn);
        for cost in ["ABI 3", "truncating", "ABI 4", "TCP", "ABI 5", "ioctl", "ABI 6", "signals"] {
            assert!(debian.consequence.contains(cost), "{cost} in {debian:?}");
        }
        assert!(!debian.consequence.contains("ABI 2 "), "{debian:?}");
        assert_eq!(at(Some(2), Some(Level::Full)).state, State::Info);
        assert_eq!(at(Some(1), Some(Level::Full)).state, State::Warn, "renaming is refused at every level");
        assert_eq!(at(None, None).state, State::Warn);
    }

    #[test]
    fn landlock_that_is_not_enabled_names_the_boot_parameter() {
        let none = one(landlock(&KernelFacts { landlock: Some(0), ..good() }, None));
        assert_eq!(none.state, State::Fail);
        assert!(none.remedy.contains("lsm=landlock,lockdown,yama"), "{none:?}");
    }

    #[test]
    fn seccomp_needs_errno_and_wants_notification() {
        let with = |actions: Option<&str>| {
            one(seccomp(&KernelFacts { seccomp: actions.map(str::to_owned), ..good() })).state
        };
        assert_eq!(with(Some("errno user_notif")), State::Ok);
        assert_eq!(with(Some("errno")), State::Warn);
        assert_eq!(with(Some("kill")), State::Fail);
        assert_eq!(with(None), State::Fail);
    }

    #[test]
    fn yama_switched_off_is_worth_knowing_and_no_more() {
        let at = |scope| one(yama(&KernelFacts { ptrace_scope: scope, ..good() }));
        assert_eq!(at(Some(1)).state, State::Ok);
        assert_eq!(at(Some(0)).state, State::Info);
        assert!(at(Some(0)).remedy.contains("kernel.yama.ptrace_scope=1"));
        assert_eq!(at(None).state, State::Info);
    }
}
