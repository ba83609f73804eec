//! Capabilities, core dumps, no_new_privs: what main gives up first.
//!
//! It does not change its user: state and configuration belong to the user it was started as.

use caps::{CapSet, Capability};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

use super::ConfineError;

/// Makes the memory of this process unreadable to others of the same user, its environment included, and undumpable: the
/// kernel writes no core of it, to a file or to a program, and refuses `ptrace`, `/proc/PID/mem` and `environ`
/// (prctl(2), ptrace(2)). What it starts is not concerned: execve(2) resets it.
pub(super) fn hide() -> Result<(), ConfineError> {
    prctl::set_dumpable(false).map_err(ConfineError::step("make the memory unreadable"))
}

/// Empties every capability set and makes the memory unreadable to others.
pub(super) fn drop_all() -> Result<(), ConfineError> {
    // A core file would hold the keys, and another process of this user could read them from our memory.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(ConfineError::step("forbid core dumps"))?;
    hide()?;
    // The bounding set first: dropping from it needs a capability that the next lines take away.
    let may_drop = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)
        .map_err(ConfineError::step("read the capabilities"))?;
    if may_drop {
        caps::clear(None, CapSet::Bounding).map_err(ConfineError::step("empty the bounding set"))?;
    }
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        // Where there is nothing to give up nothing is asked for: a service's unit refuses capset(2) to who needs it not.
        let held = caps::read(None, set).map_err(ConfineError::step("read the capabilities"))?;
        if !held.is_empty() {
            caps::clear(None, set).map_err(ConfineError::step("empty the capability sets"))?;
        }
    }
    prctl::set_no_new_privs().map_err(ConfineError::step("forbid new privileges"))
}
