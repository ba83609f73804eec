//! Why the wall refused something, in words. Only what the kernel told us: nothing a program printed is looked at here.

use oxibot_proto::message::{Certainty, Violation};

use crate::wire::{LimitEvents, Refusal};

/// System calls the filter refused.
pub(crate) fn refusals(refusals: &[Refusal]) -> Vec<Violation> {
    refusals
        .iter()
        .map(|refusal| Violation {
            what: refusal.rule.clone(),
            path: String::new(),
            why: format!("the system call filter refuses it (rule {})", refusal.rule),
            certainty: Certainty::Kernel,
        })
        .collect()
}

/// Limits of its cgroup that a call ran into.
pub(crate) fn limits(events: LimitEvents) -> Vec<Violation> {
    let LimitEvents { out_of_memory, processes } = events;
    [
        (out_of_memory, "allocate memory", "limits.memoryMb"),
        (processes, "start a process", "limits.processes"),
    ]
    .into_iter()
    .filter(|(count, _, _)| *count > 0)
    .map(|(_, what, rule)| Violation {
        what: what.to_owned(),
        path: String::new(),
        why: format!("the call as a whole reached {rule}"),
        certainty: Certainty::Kernel,
    })
    .collect()
}
