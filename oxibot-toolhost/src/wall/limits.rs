//! Limits of one call, as the kernel counts them for each process.
//!
//! What a cgroup counts for the call as a whole is not limited here again: address space is not memory (V8, Go, the JVM
//! and address sanitisers reserve from gigabytes to terabytes and use little of it), and the count of a user's processes
//! holds those of other calls too.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use oxibot_proto::settings::Limits;

use super::cgroup::{Counted, Counter};
use super::family;
use super::fault::{Step, fault};
use super::orders::Plan;
use crate::wire::WallFault;

const MIB: u64 = 1 << 20;
/// Locked memory, in bytes: enough for a language runtime, too little to starve the machine.
const LOCKED_MEMORY: u64 = 64 * MIB;
/// Queued signals.
const PENDING_SIGNALS: u64 = 4096;
/// Bytes in POSIX message queues: the kernel's own default.
const MESSAGE_QUEUES: u64 = 819_200;
/// Seconds between SIGXCPU, which a program may handle, and SIGKILL.
const CPU_GRACE: u64 = 2;

/// Processes of others that the kernel will count together with a call's. Looks at all of them, so it is for whoever may.
pub(super) fn others(plan: Plan, counted: &Counted) -> u64 {
    match plan {
        // Counted for the user within its user namespace: all calls of one zygote together.
        Plan::Full => 0,
        Plan::Bare | Plan::Off if counted.has(Counter::Processes) => 0,
        // The user's own programs count too; a limit below what runs already would stop every call.
        Plan::Bare | Plan::Off => family::tasks_of_this_user(),
    }
}

/// Applies the limits to this process; they hold for all it starts, and cannot be raised again. `counted`: what the
/// call's cgroup limits.
pub(super) fn apply(limits: &Limits, others: u64, counted: &Counted) -> Result<(), WallFault> {
    let cpu = u64::from(limits.cpu_seconds);
    // 1 and not 0: a core_pattern that pipes ignores 0 but gives up on 1, and no file is smaller than one byte.
    lower(Resource::RLIMIT_CORE, 1, 1)?;
    lower(Resource::RLIMIT_CPU, cpu, cpu.saturating_add(CPU_GRACE))?;
    if !counted.has(Counter::Memory) {
        let memory = u64::from(limits.memory_mb).saturating_mul(MIB);
        lower(Resource::RLIMIT_AS, memory, memory)?;
    }
    if !counted.has(Counter::Processes) {
        let processes = u64::from(limits.processes).saturating_add(others);
        lower(Resource::RLIMIT_NPROC, processes, processes)?;
    }
    let bounds = [
        (Resource::RLIMIT_FSIZE, u64::from(limits.file_size_mb).saturating_mul(MIB)),
        (Resource::RLIMIT_NOFILE, u64::from(limits.open_files)),
        (Resource::RLIMIT_MEMLOCK, LOCKED_MEMORY),
        (Resource::RLIMIT_SIGPENDING, PENDING_SIGNALS),
        (Resource::RLIMIT_MSGQUEUE, MESSAGE_QUEUES),
        // Where sound programs may have real time, a call may not: it would have a processor for itself.
        (Resource::RLIMIT_RTPRIO, 0),
        (Resource::RLIMIT_NICE, 0),
    ];
    for (resource, bound) in bounds {
        lower(resource, bound, bound)?;
    }
    Ok(())
}

/// Sets a limit, or leaves the inherited one where that is lower: raising needs a capability nobody has here.
fn lower(resource: Resource, soft: u64, hard: u64) -> Result<(), WallFault> {
    let (_, inherited) = getrlimit(resource).step("read a limit")?;
    let wanted = (soft.min(hard.min(inherited)), hard.min(inherited));
    setrlimit(resource, wanted.0, wanted.1).step_on("set the limit", format!("{resource:?}"))?;
    // A kernel or filter that only says yes is found out here, not by a bomb.
    let found = getrlimit(resource).step("read a limit")?;
    if found == wanted {
        Ok(())
    } else {
        Err(fault(
            format!("rely on the limit {resource:?}"),
            format!("{found:?} holds instead of {wanted:?}"),
        ))
    }
}
