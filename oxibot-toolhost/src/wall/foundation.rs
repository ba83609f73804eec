//! What a zygote does once, before its first call: namespaces, view, identity, the big filter.
//!
//! Each function builds exactly what its plan says or fails. Choosing a weaker plan is the asker's act.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use caps::Capability;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use super::cgroup::Zone;
use super::fault::{Step, fault};
use super::identity::{Identity, effective};
use super::orders::{Order, Plan};
use super::{grants, privileges, seccomp, verify, view};
use crate::sys;
use crate::wire::WallFault;

/// What was laid.
#[derive(Debug)]
pub(super) struct Foundation {
    pub(super) identity: Identity,
    /// A file only Landlock keeps shut. Without a wall there is none.
    pub(super) canary: Option<OwnedFd>,
}

/// Lays the foundation of a plan. Afterwards this process has the rights its inits need and no others.
/// `zone`: the cgroups its calls will be in, handed over to whom they run as.
pub(super) fn lay(order: &Order, abi: u32, zone: Option<&Zone>) -> Result<Foundation, WallFault> {
    let (euid, egid) = effective();
    let choose = |owner| Identity::choose(euid, egid, owner, order.number, std::process::id());
    match order.plan {
        Plan::Full | Plan::Bare if abi == 0 => {
            Err(fault("use Landlock", "this kernel has none or it is not enabled (lsm=landlock)"))
        }
        Plan::Full => {
            let identity = choose(owner(order)?);
            Ok(Foundation { identity, canary: Some(full(order, &identity, zone)?) })
        }
        Plan::Bare => {
            let identity = without_namespaces(choose(owner(order)?));
            Ok(Foundation { identity, canary: Some(bare(order, &identity, zone)?) })
        }
        Plan::Off => {
            let identity = without_namespaces(choose((euid.as_raw(), egid.as_raw())));
            divide(zone, None)?;
            Ok(Foundation { identity, canary: None })
        }
    }
}

/// Everything of level `full` that is done once: namespaces, view, identity, the big filter.
fn full(order: &Order, identity: &Identity, zone: Option<&Zone>) -> Result<OwnedFd, WallFault> {
    let shared = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWCGROUP;
    let canary = if nix::unistd::geteuid().is_root() {
        let namespace = identity.user_namespace()?;
        unshare(shared).step("unshare mount, UTS and cgroup namespaces")?;
        name_host()?;
        let mapping = identity.mapped().then_some(namespace.as_fd());
        let canary = view::build(&order.profile, identity, mapping)?;
        divide(zone, Some(identity))?;
        identity.enter(&namespace)?;
        canary
    } else {
        unshare(CloneFlags::CLONE_NEWUSER | shared).step("unshare user, mount, UTS and cgroup namespaces")?;
        identity.map_self()?;
        name_host()?;
        divide(zone, None)?;
        view::build(&order.profile, identity, None)?
    };
    // What inits need: mounting, the loopback, emptying the bounding set. In our own user namespace only.
    privileges::keep(&[Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN, Capability::CAP_SETPCAP])?;
    shut()?;
    Ok(canary)
}

/// The host's name is the host's business. This one is in `/etc/hosts` everywhere, so that looking oneself up works.
fn name_host() -> Result<(), WallFault> {
    let step = "name the host of calls";
    nix::unistd::sethostname("localhost").step(step)?;
    sys::clear_domain_name().step(step)
}

/// Makes cgroups ready for calls that run as `owner`, where that is somebody else than this process so far.
fn divide(zone: Option<&Zone>, owner: Option<&Identity>) -> Result<(), WallFault> {
    let Some(zone) = zone else { return Ok(()) };
    zone.divide()?;
    match owner {
        Some(owner) => zone.hand_over(owner.outside_uid, owner.outside_gid),
        None => Ok(()),
    }
}

/// What every zygote with a wall ends its preparation with.
fn shut() -> Result<(), WallFault> {
    // Changing user cleared it.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).step("tie the zygote to the nursery")?;
    nix::sys::prctl::set_dumpable(false).step("make the zygote undumpable")?;
    nix::sys::prctl::set_no_new_privs().step("set no_new_privs")?;
    sys::install_filter(&seccomp::zygote_filter()?).step("install the seccomp filter")
}

fn owner(order: &Order) -> Result<(u32, u32), WallFault> {
    let path = grants::path_of(&order.profile.workspace);
    let status = nix::sys::stat::stat(path).step_on("look at", path.display())?;
    Ok((status.st_uid, status.st_gid))
}

/// There is no other id for root's own workspace where nothing maps ids.
fn without_namespaces(identity: Identity) -> Identity {
    Identity { outside_uid: identity.uid, outside_gid: identity.gid, ..identity }
}

fn bare(order: &Order, identity: &Identity, zone: Option<&Zone>) -> Result<OwnedFd, WallFault> {
    let profile = &order.profile;
    // Landlock grants whole trees: it cannot leave out a directory below a granted one.
    for covered in &profile.covered {
        let covered = grants::path_of(covered);
        let granted = [&profile.workspace].into_iter().chain(&profile.read).chain(&profile.write);
        for path in granted.map(|path| grants::path_of(path)) {
            if covered.starts_with(path) {
                return Err(fault(
                    format!("cover {}", covered.display()),
                    format!("it lies in {}, and that needs mount namespaces", path.display()),
                ));
            }
        }
    }
    divide(zone, nix::unistd::geteuid().is_root().then_some(identity))?;
    privileges::drop_bounding_first()?;
    identity.assume()?;
    privileges::drop_all()?;
    let writable: Vec<PathBuf> = grants::of_call(profile, Plan::Bare, None)
        .into_iter()
        .filter(|grant| grant.allowed == grants::Use::Write)
        .map(|grant| grant.path)
        .collect();
    let canary = verify::canary_file(&writable)?;
    shut()?;
    Ok(canary)
}
