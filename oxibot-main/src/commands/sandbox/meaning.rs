//! What each protection means for a call, by its stable name: while it holds, while it does not, and what of the kernel
//! it needs. For people; whether it holds is the toolhost's to say.

/// What is said of one protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Meaning {
    /// Its stable name.
    pub(in super::super) name: &'static str,
    /// A call, while it holds. Fits the last column of the table.
    pub(in super::super) holds: &'static str,
    /// A call, while it does not. Fits as well.
    pub(in super::super) lost: &'static str,
    /// What of the kernel it needs.
    pub(in super::super) needs: &'static str,
}

const NAMESPACES: &str = "user namespaces";

const fn meaning(
    name: &'static str,
    holds: &'static str,
    lost: &'static str,
    needs: &'static str,
) -> Meaning {
    Meaning { name, holds, lost, needs }
}

/// In the order in which a reader asks: files, processes, network, kernel, limits.
const MEANINGS: [Meaning; 22] = [
    meaning(
        "mount-namespace",
        "sees the workspace and system files, no others",
        "sees names and sizes of all files",
        NAMESPACES,
    ),
    meaning(
        "landlock",
        "opens no file outside of what is granted",
        "opens every file this user may open",
        "Landlock (Linux 5.13) in the lsm= list",
    ),
    meaning(
        "guarded-names",
        "cannot change git hooks and editor settings",
        "can change git hooks and editor settings",
        NAMESPACES,
    ),
    meaning("private-tmp", "has a /tmp of its own, gone when it ends", "has no /tmp to itself", NAMESPACES),
    meaning("private-proc", "has a /proc of its own", "sees this machine's /proc", NAMESPACES),
    meaning(
        "idmapped-workspace",
        "is not root, though files stay root's on disk",
        "runs as this very user, root included",
        "user namespaces and id-mapped mounts (Linux 5.12)",
    ),
    meaning(
        "user-namespace",
        "has no user outside of its own",
        "is this user to every other program",
        NAMESPACES,
    ),
    meaning(
        "pid-namespace",
        "sees and reaches its own processes only",
        "sees the list of all processes",
        NAMESPACES,
    ),
    meaning("capabilities", "has no privilege", "has what this user has", "none: every Linux has them"),
    meaning(
        "no-new-privs",
        "gains nothing from sudo and the like",
        "may gain from sudo and the like",
        "Linux 3.5",
    ),
    meaning(
        "network-namespace",
        "has no network but a loopback of its own",
        "is not apart from this machine's network",
        NAMESPACES,
    ),
    meaning(
        "landlock-scopes",
        "signals and abstract sockets stay inside",
        "Landlock stops no signal and no abstract socket",
        "Landlock ABI 6 (Linux 6.12)",
    ),
    meaning(
        "landlock-truncate",
        "empties nothing it may not write",
        "Landlock stops no emptying of files",
        "Landlock ABI 3 (Linux 6.2)",
    ),
    meaning(
        "landlock-tcp",
        "TCP stays inside",
        "Landlock stops no TCP connection",
        "Landlock ABI 4 (Linux 6.7)",
    ),
    meaning(
        "landlock-ioctl",
        "controls no device",
        "Landlock stops no control of devices",
        "Landlock ABI 5 (Linux 6.10)",
    ),
    meaning(
        "ipc-namespace",
        "shares no memory and no queue",
        "is not apart from System V memory and queues",
        NAMESPACES,
    ),
    meaning("uts-namespace", "cannot change the host name", "sees this machine's host name", NAMESPACES),
    meaning(
        "cgroup-namespace",
        "does not see where it is counted",
        "sees the names of control groups",
        NAMESPACES,
    ),
    meaning(
        "seccomp",
        "dangerous system calls are refused",
        "may make every system call",
        "CONFIG_SECCOMP_FILTER",
    ),
    meaning(
        "rlimits",
        "memory, files and processes are bounded",
        "bounds do not hold in full",
        "none: every Linux has them",
    ),
    meaning(
        "explanations",
        "what the filter refuses is named in its result",
        "what the filter refuses is not named",
        "seccomp user notification (Linux 5.0)",
    ),
    meaning(
        "cgroup",
        "limits hold for all its processes together",
        "each limit holds for one process, not for all",
        "control groups that may be delegated",
    ),
];

/// What is said of a protection; none for a name of a newer toolhost.
pub(in super::super) fn of(name: &str) -> Option<&'static Meaning> {
    MEANINGS
        .iter()
        .find(|meaning| meaning.name == name || (name == "call-cgroup" && meaning.name == "cgroup"))
}

/// Place in the order of reading; strangers come last.
pub(super) fn rank(name: &str) -> usize {
    MEANINGS.iter().position(|meaning| Some(meaning) == of(name)).unwrap_or(MEANINGS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_meaning_fits_its_column() {
        for meaning in MEANINGS {
            assert!(meaning.holds.len() <= 47 && meaning.lost.len() <= 47, "{}", meaning.name);
            assert!(meaning.name.len() <= 18, "{}", meaning.name);
            assert!(!meaning.lost.is_empty() && !meaning.needs.is_empty());
        }
    }
}
