//! Why the wall refused something, in words. Only what the kernel told us: nothing a program printed is looked at here.

use oxibot_proto::message::{Certainty, Violation};

use crate::wall::explain_rule;
use crate::wire::{LimitEvents, Refusal};

/// System calls the filter refused.
pub(crate) fn refusals(refusals: &[Refusal]) -> Vec<Violation> {
    refusals
        .iter()
        .map(|refusal| {
            let rule = &refusal.rule;
            let (what, why) = match explain_rule(rule) {
                Some(text) => (
                    text.what.to_owned(),
                    format!("{} (system call rule {rule}); instead: {}", text.why, text.instead),
                ),
                None => (rule.clone(), format!("the system call filter refuses it (rule {rule})")),
            };
            Violation { what, path: String::new(), why, certainty: Certainty::Kernel }
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
