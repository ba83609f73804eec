//! Role `facts`: tries what `doctor` wants to know and main cannot try, prints one line, ends.
//!
//! It reads nothing, opens nothing and confines nothing; what it makes (namespaces) ends with it. Its own process,
//! because a namespace that was entered cannot be left.

use std::io::Write as _;
use std::process::ExitCode;

use nix::sched::{CloneFlags, unshare};
use oxibot_proto::facts::{ClockFacts, MachineFacts, NamespaceTried};

use crate::sys;

/// In the order tried. The user namespace comes first, as for a zygote: in it an ordinary user may make the others, and
/// where a policy grants it without its rights (AppArmor's restriction) those fail.
const NAMESPACES: [(&str, CloneFlags); 7] = [
    ("user", CloneFlags::CLONE_NEWUSER),
    ("mount", CloneFlags::CLONE_NEWNS),
    ("pid", CloneFlags::CLONE_NEWPID),
    ("network", CloneFlags::CLONE_NEWNET),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
];

/// Tries everything and prints it.
pub(crate) fn role() -> ExitCode {
    let facts = look();
    let printed = serde_json::to_string(&facts)
        .map_err(std::io::Error::other)
        .and_then(|line| writeln!(std::io::stdout(), "{line}"));
    if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(70) }
}

fn look() -> MachineFacts {
    // Before the namespaces: in a user namespace of our own the kernel answers as it would answer a stranger.
    let landlock_abi = sys::landlock_abi();
    let clock = sys::kernel_clock()
        .ok()
        .map(|clock| ClockFacts { synchronised: clock.synchronised, max_error_us: clock.max_error_us });
    let namespaces = NAMESPACES
        .into_iter()
        .map(|(name, flag)| NamespaceTried {
            name: name.to_owned(),
            // The error's Debug form is its name: EPERM, ENOSPC.
            refused: unshare(flag).err().map(|errno| format!("{errno:?}")),
        })
        .collect();
    MachineFacts { landlock_abi, namespaces, clock }
}
