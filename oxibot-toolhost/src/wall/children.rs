//! The inits and files workers a zygote made: what is ended and removed after them.
//!
//! With PID namespaces the kernel ends what a call started; without, everything here that the call's cgroup cannot is
//! done by looking. It makes no process and reads no message.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use oxibot_proto::settings::Limits;

use super::cgroup::{Leaf, Zone};
use super::family;
use super::orders::Plan;
use crate::wire::WallFault;

/// Longest the end of one call may take before the next is looked at.
const CALL_END_TIME: Duration = Duration::from_secs(1);
/// How often the removal of a cgroup is tried again, in milliseconds: its last process leaves it a moment after its end.
const REMOVE_EVERY_MS: u16 = 5;
/// And how often once it took long, because something in it cannot be ended.
const REMOVE_SELDOM_MS: u16 = 500;
/// Tries before it took long.
const SOON: u32 = 100;
/// Looks after the end of a call, whatever is left of it.
const AFTERMATH: u32 = 4;
/// The same where orphans have to be looked for: on a busy machine a dying parent hands its children over late.
const AFTERMATH_OF_ORPHANS: u32 = 60;
/// Longest a sweep may take. A process stuck in the kernel is left to the next one.
const SWEEP_TIME: Duration = Duration::from_secs(3);
/// An init: somebody has to tidy up after it.
pub(super) struct Init {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    /// The directory its call was given.
    pub(super) private: Option<PathBuf>,
    pub(super) leaf: Option<Leaf>,
}

impl Drop for Init {
    fn drop(&mut self) {
        if let Some(private) = &self.private {
            // Fails only where something still writes there; the end of its zygote tries again.
            let _ = std::fs::remove_dir_all(private);
        }
    }
}

impl Init {
    fn has_ended(&self) -> bool {
        let mut watched = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut watched, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }
}

/// Of one zygote.
pub(super) struct Children {
    plan: Plan,
    /// Its cgroups, where there are any to be had.
    zone: Option<Zone>,
    /// They count tasks.
    counted: bool,
    /// Inits that have not ended.
    inits: Vec<Init>,
    /// Cgroups of ended calls, to be removed.
    leaving: Vec<Leaf>,
    /// Tries to remove them since a call ended.
    tries: u32,
    /// Files workers, never swept.
    workers: Vec<Pid>,
    /// Orphans ended since the last answer to a sweep.
    swept: u32,
}

impl Children {
    /// None yet. `counted`: whether the cgroups count tasks.
    pub(super) fn new(plan: Plan, zone: Option<Zone>, counted: bool) -> Self {
        let (inits, leaving, workers) = (Vec::new(), Vec::new(), Vec::new());
        Self { plan, zone, counted, inits, leaving, tries: SOON, workers, swept: 0 }
    }

    /// A cgroup for an init to be made.
    pub(super) fn leaf(&mut self, limits: &Limits) -> Result<Option<Leaf>, WallFault> {
        self.zone.as_mut().map(|zone| zone.leaf(limits)).transpose()
    }

    pub(super) fn add_init(&mut self, init: Init) {
        self.inits.push(init);
    }

    pub(super) fn add_worker(&mut self, worker: Pid) {
        match self.plan {
            Plan::Full => {}
            Plan::Bare | Plan::Off => self.workers.push(worker),
        }
    }

    /// Readable once something is to be done.
    pub(super) fn ends(&self) -> Vec<BorrowedFd<'_>> {
        self.inits.iter().map(|init| init.pidfd.as_fd()).collect()
    }

    /// Takes note of ended inits, and ends what they left.
    pub(super) fn reap(&mut self) {
        match self.plan {
            Plan::Full => {
                let ended = self.inits.extract_if(.., |init| init.has_ended()).collect();
                self.leave(ended);
            }
            Plan::Bare | Plan::Off => {
                let pids = family::reap();
                self.workers.retain(|worker| !pids.contains(worker));
                let ended: Vec<Init> = self.inits.extract_if(.., |init| pids.contains(&init.pid)).collect();
                if !ended.is_empty() {
                    // Its own cgroup first: nothing is born there any more, so nothing slips through.
                    let of_calls = ended.iter().filter_map(|init| init.leaf.as_ref());
                    let counts = of_calls.map(|leaf| leaf.end(CALL_END_TIME));
                    let counted = counts.fold(0, u32::saturating_add);
                    self.swept = self.swept.saturating_add(counted).saturating_add(self.end_orphans());
                    self.leave(ended);
                    self.reap();
                }
            }
        }
    }

    fn leave(&mut self, ended: Vec<Init>) {
        for mut init in ended {
            self.leaving.extend(init.leaf.take());
            self.tries = 0;
        }
    }

    /// Removes cgroups of ended calls as far as they are empty.
    pub(super) fn remove(&mut self) {
        self.tries = self.tries.saturating_add(1);
        match self.plan {
            Plan::Full => {}
            // Who was being born or handed over while the others were ended is found now. Not told: its call is answered.
            Plan::Bare | Plan::Off => {
                self.end_orphans();
            }
        }
        let Some(zone) = &self.zone else { return };
        self.leaving.retain(|leaf| !zone.remove(leaf));
    }

    /// When to try again.
    pub(super) fn again(&self) -> Option<u16> {
        match self.leaving.is_empty() {
            // Who was killed can be reaped a moment after its cgroup was empty.
            true => {
                let most = match (self.plan, self.counted) {
                    (Plan::Full, _) | (Plan::Bare | Plan::Off, true) => AFTERMATH,
                    (Plan::Bare | Plan::Off, false) => AFTERMATH_OF_ORPHANS,
                };
                (self.tries < most).then_some(REMOVE_EVERY_MS)
            }
            false if self.tries < SOON => Some(REMOVE_EVERY_MS),
            false => Some(REMOVE_SELDOM_MS),
        }
    }

    /// Ends children that are neither an init nor a files worker, and all below them. Nothing leaves its cgroup, so
    /// where there is one for tasks nobody has to be looked for.
    fn end_orphans(&self) -> u32 {
        if self.counted {
            return 0;
        }
        let spared: Vec<Pid> =
            self.inits.iter().map(|init| init.pid).chain(self.workers.iter().copied()).collect();
        family::end(&spared, SWEEP_TIME).count()
    }

    /// Ends what calls left. With PID namespaces the kernel did already.
    pub(super) fn sweep(&mut self) -> u32 {
        match self.plan {
            Plan::Full => 0,
            Plan::Bare | Plan::Off => {
                self.reap();
                std::mem::take(&mut self.swept).saturating_add(self.end_orphans())
            }
        }
    }

    /// The supervisor is gone: nothing may stay. What is in use a moment longer is removed by the nursery.
    pub(super) fn end(&mut self) {
        match self.plan {
            // Inits have the death signal, their namespaces the rest.
            Plan::Full => {}
            Plan::Bare | Plan::Off => {
                let ended: Vec<Init> = std::mem::take(&mut self.inits);
                for leaf in ended.iter().filter_map(|init| init.leaf.as_ref()) {
                    leaf.end(CALL_END_TIME);
                }
                // Whoever is left now goes to the nursery, which goes on.
                let _ = family::end(&[], SWEEP_TIME);
                self.leave(ended);
            }
        }
        self.remove();
    }
}
