//! The Landlock rules of one call.
//!
//! Every right the kernel knows is handled and required: nothing is dropped silently. Each path is opened here, so that
//! a typo or a vanished directory is an error and not an invisible gap. TCP is left to the network namespace at level
//! `full` (a call may test its own server on its own loopback) and to seccomp below it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::fault::{Step, fault};
use super::grants::{Grant, Presence, Use};
use super::orders::Plan;
use crate::wire::WallFault;

/// First ABI with scopes for signals and abstract sockets; what level `kernel` stands on.
pub(super) const SCOPES_ABI: u32 = 6;
/// First ABI with rules for TCP.
const TCP_ABI: u32 = 4;

/// A rule set that was created in the kernel with all its rules, not yet in force.
#[derive(Debug)]
pub(super) struct Rules {
    created: RulesetCreated,
    handled: BitFlags<AccessFs>,
}

fn rights(allowed: Use) -> BitFlags<AccessFs> {
    use AccessFs as A;
    let read = A::ReadFile | A::ReadDir;
    match allowed {
        Use::List => A::ReadDir.into(),
        Use::Read => read,
        Use::Run => read | A::Execute,
        Use::Device => A::ReadFile | A::WriteFile | A::Truncate | A::IoctlDev,
        // All but MakeChar, MakeBlock and IoctlDev: a workspace holds no devices. And no ResolveUnix: sockets of its own
        // domain, which is those it made itself, a call may connect to without a rule.
        Use::Write => {
            read | A::Execute
                | A::WriteFile
                | A::RemoveDir
                | A::RemoveFile
                | A::MakeDir
                | A::MakeReg
                | A::MakeSock
                | A::MakeFifo
                | A::MakeSym
                | A::Refer
                | A::Truncate
        }
    }
}

/// Builds the rules for these grants.
pub(super) fn build(grants: &[Grant], abi: u32, plan: Plan) -> Result<Rules, WallFault> {
    let known = ABI::from(i32::try_from(abi).unwrap_or(i32::MAX));
    let handled = AccessFs::from_all(known);
    if handled.is_empty() {
        return Err(fault(
            "use Landlock",
            "this kernel has none; boot with it in lsm= or use a newer kernel",
        ));
    }
    let step = "create the Landlock rules";
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(handled)
        .step(step)?;
    match plan {
        Plan::Full => {}
        Plan::Bare | Plan::Off => {
            if abi >= TCP_ABI {
                ruleset = ruleset.handle_access(AccessNet::from_all(known)).step(step)?;
            }
        }
    }
    if abi >= SCOPES_ABI {
        ruleset = ruleset.scope(Scope::from_all(known)).step(step)?;
    }
    let mut rules = Rules { created: ruleset.create().step(step)?, handled };
    for grant in grants {
        if let Some(path) = open_granted(grant)? {
            rules = rules.allow(path.as_fd(), grant.allowed)?;
        }
    }
    Ok(rules)
}

fn open_granted(grant: &Grant) -> Result<Option<OwnedFd>, WallFault> {
    match (open(&grant.path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()), grant.presence) {
        (Ok(path), _) => Ok(Some(path)),
        (Err(Errno::ENOENT), Presence::Optional) => Ok(None),
        (Err(errno), _) => Err(fault(format!("open {} for a Landlock rule", grant.path.display()), errno)),
    }
}

impl Rules {
    /// Adds one rule.
    pub(super) fn allow(self, path: BorrowedFd<'_>, allowed: Use) -> Result<Self, WallFault> {
        let mut access = rights(allowed) & self.handled;
        let kind = fstat(path).step("look at a granted path")?.st_mode & SFlag::S_IFMT.bits();
        if kind != SFlag::S_IFDIR.bits() {
            // Rights of directories on a file are refused by the kernel.
            access &= AccessFs::from_file(ABI::V9);
        }
        if access.is_empty() {
            return Ok(self);
        }
        let created = self
            .created
            .add_rule(PathBeneath::new(path, access).set_compatibility(CompatLevel::HardRequirement))
            .step("add a Landlock rule")?;
        Ok(Self { created, handled: self.handled })
    }

    /// Puts the rules in force for this process and all it starts. There is no way back.
    pub(super) fn enforce(self) -> Result<(), WallFault> {
        let status = self.created.restrict_self().step("enforce the Landlock rules")?;
        match status.ruleset {
            RulesetStatus::FullyEnforced => Ok(()),
            other @ (RulesetStatus::PartiallyEnforced | RulesetStatus::NotEnforced) => {
                Err(fault("enforce the Landlock rules", format!("only {other:?}")))
            }
        }
    }
}
