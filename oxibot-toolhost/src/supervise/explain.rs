//! Why the wall refused something, in words. Only what the kernel told us: nothing a program printed is looked at here.

use std::collections::BTreeSet;

use oxibot_proto::message::{Certainty, Violation};

use crate::wall::explain_rule;
use crate::wire::{LimitEvents, Refusal};

/// System calls the filter refused.
pub(crate) fn refusals(refusals: &[Refusal]) -> Vec<Violation> {
    let mut seen = BTreeSet::new();
    refusals
        .iter()
        // A rule may have been met with many arguments; its words are the same.
        .filter(|refusal| seen.insert(refusal.rule.as_str()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_says_what_was_tried_why_it_is_refused_and_what_to_do_instead() {
        let refusal = |rule: &str, argument| Refusal { rule: rule.into(), arguments: [argument, 0, 0] };
        let said = refusals(&[
            refusal("processes.trace", 0),
            refusal("processes.trace", 16),
            refusal("no.such-rule", 0),
        ]);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].what.contains("ptrace"), "{said:?}");
        assert!(
            said[0].why.contains("rule processes.trace") && said[0].why.contains("instead: "),
            "{said:?}"
        );
        assert_eq!((said[1].what.as_str(), said[1].certainty), ("no.such-rule", Certainty::Kernel));
    }
}
