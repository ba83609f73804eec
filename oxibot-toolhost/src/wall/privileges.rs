//! Capabilities and no_new_privs.

use caps::{CapSet, Capability, CapsHashSet};

use super::fault::{Step, fault};
use crate::sys;
use crate::wire::WallFault;

/// Capability numbers asked for. The kernel has 41 today and 64 at most: a set is 64 bits wide.
const CAPABILITIES: u32 = 64;

/// Root gets no capabilities back by exec or setuid, and nobody may change that: NOROOT, NO_SETUID_FIXUP and
/// NO_CAP_AMBIENT_RAISE, each with its lock, and the lock of KEEP_CAPS.
const LOCKED: libc::c_ulong = 0b1110_1111;

/// Keeps only these capabilities, in the effective and permitted sets.
pub(super) fn keep(kept: &[Capability]) -> Result<(), WallFault> {
    let kept: CapsHashSet = kept.iter().copied().collect();
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).step("drop inheritable capabilities")?;
    caps::set(None, CapSet::Effective, &kept).step("drop effective capabilities")?;
    caps::set(None, CapSet::Permitted, &kept).step("drop permitted capabilities")
}

/// Empties the bounding set and locks the securebits where that is allowed, so that a later change of user cannot
/// bring anything back. Permitted capabilities stay for that change.
pub(super) fn drop_bounding_first() -> Result<(), WallFault> {
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).step("read capabilities")? {
        empty_bounding()?;
    }
    Ok(())
}

fn empty_bounding() -> Result<(), WallFault> {
    // To ask costs a tenth of giving up, and an init has given all up before its payload does.
    for capability in (0..CAPABILITIES).filter(|capability| sys::has_bounding(*capability)) {
        sys::drop_bounding(capability).step("empty the capability bounding set")?;
    }
    Ok(())
}

/// Gives up every capability, for this process and whatever it executes.
pub(super) fn drop_all() -> Result<(), WallFault> {
    // Without CAP_SETPCAP (an ordinary user, no user namespace) the bounding set cannot be emptied. There it bounds
    // nothing: no_new_privs already keeps exec from granting any of it.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).step("read capabilities")? {
        empty_bounding()?;
        caps::clear(None, CapSet::Ambient).step("drop ambient capabilities")?;
        sys::set_securebits(LOCKED).step("lock the securebits")?;
    }
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).step("drop capabilities")?;
    }
    Ok(())
}

/// Fails unless this process has no capability in any set. `bounding`: whether the bounding set must be empty too.
pub(super) fn verify_none(bounding: Bounding) -> Result<(), WallFault> {
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted, CapSet::Ambient] {
        let left = caps::read(None, set).step("read capabilities")?;
        if !left.is_empty() {
            return Err(fault("drop capabilities", format!("{set:?} still holds {}", left.len())));
        }
    }
    match bounding {
        Bounding::Empty if (0..CAPABILITIES).any(sys::has_bounding) => {
            Err(fault("drop capabilities", "the bounding set is not empty"))
        }
        Bounding::Empty | Bounding::Harmless => Ok(()),
    }
}

/// What is expected of the bounding set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bounding {
    /// Empty.
    Empty,
    /// Could not be emptied; no_new_privs makes it meaningless.
    Harmless,
}

/// Whether this process could empty its bounding set.
pub(super) fn expected_bounding() -> Result<Bounding, WallFault> {
    let able = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).step("read capabilities")?;
    Ok(if able || !(0..CAPABILITIES).any(sys::has_bounding) { Bounding::Empty } else { Bounding::Harmless })
}
