//! Why the wall refused something, in words: what the kernel told us (refusals of the filter, limits reached) and what
//! we saw afterwards (git configuration put back, a path a files worker would not follow).
//!
//! Nothing a program printed is looked at here; conclusions from that are main's, and marked as guesses. The words
//! stand in tables, so that nothing but a number, a family or a path of the call's own gets into them.

use std::time::Duration;

use oxibot_proto::message::{Certainty, Denial, Outcome, Violation};
use oxibot_proto::settings::Limits;

use super::life::Conclusion;
use crate::wire::{LimitEvents, Refusal};

/// Most violations of one result. A hostile call must not fill the conversation with reasons.
pub(crate) const MAX_VIOLATIONS: usize = 20;

/// What is known of a program that ended, most certain first.
pub(crate) fn program(
    conclusion: &Conclusion,
    limits: &Limits,
    timeout: Duration,
    seen: &[String],
) -> Vec<Violation> {
    let mut violations = reached(conclusion, limits, timeout);
    violations.extend(refusals(&conclusion.refusals));
    violations.extend(seen.iter().map(|note| effect(note)));
    violations.truncate(MAX_VIOLATIONS);
    violations
}

/// A path that a files worker or an init would not use.
pub(crate) fn denied(outcome: &Outcome, what: &str, path: &str) -> Vec<Violation> {
    match outcome {
        Outcome::Denied(Denial { rule, reason, hint }) => {
            vec![observed(what, path, format!("{reason} (rule {rule}); {hint}"))]
        }
        Outcome::Completed
        | Outcome::NeedsApproval(_)
        | Outcome::Failed { .. }
        | Outcome::TimedOut
        | Outcome::Cancelled
        | Outcome::Killed { .. }
        | Outcome::Internal { .. } => Vec::new(),
    }
}

fn kernel(what: &str, path: &str, why: String) -> Violation {
    Violation { what: what.to_owned(), path: path.to_owned(), why, certainty: Certainty::Kernel }
}

fn observed(what: &str, path: &str, why: String) -> Violation {
    Violation { what: what.to_owned(), path: path.to_owned(), why, certainty: Certainty::Observed }
}

/// Limits a call ran into.
fn reached(conclusion: &Conclusion, limits: &Limits, timeout: Duration) -> Vec<Violation> {
    let mut reached = Vec::new();
    match &conclusion.outcome {
        Outcome::TimedOut => reached.push(kernel(
            "run on",
            "",
            format!(
                "it did not end within {} s and was ended with all its processes (rule limits.timeout); give timeout_s, \
                 at most {}, or do the work in smaller steps",
                timeout.as_secs(),
                limits.max_timeout_seconds
            ),
        )),
        Outcome::Killed { limit: Some(limit) } => reached.extend(by_limit(limit, limits)),
        Outcome::Killed { limit: None }
        | Outcome::Completed
        | Outcome::Denied(_)
        | Outcome::NeedsApproval(_)
        | Outcome::Failed { .. }
        | Outcome::Cancelled
        | Outcome::Internal { .. } => {}
    }
    let LimitEvents { out_of_memory, processes } = conclusion.limits;
    for (count, limit) in [(out_of_memory, "memory"), (processes, "processes")] {
        if count > 0 && !matches!(&conclusion.outcome, Outcome::Killed { limit: Some(said) } if said == limit)
        {
            reached.extend(by_limit(limit, limits));
        }
    }
    reached
}

fn by_limit(limit: &str, limits: &Limits) -> Option<Violation> {
    let (what, why) = match limit {
        "memory" => (
            "allocate memory",
            format!(
                "the call may use {} MiB (rule limits.memory); work on smaller pieces, or read files in parts",
                limits.memory_mb
            ),
        ),
        "processes" => (
            "start a process",
            format!(
                "the call may have {} processes and threads (rule limits.processes); start fewer at once",
                limits.processes
            ),
        ),
        "cpu" => (
            "compute",
            format!(
                "a process may use {} s of CPU time (rule limits.cpu); do the work in smaller steps",
                limits.cpu_seconds
            ),
        ),
        "file_size" => (
            "write",
            format!(
                "a file may grow to {} MiB (rule limits.file_size); write several smaller files",
                limits.file_size_mb
            ),
        ),
        _ => return None,
    };
    Some(kernel(what, "", why))
}

/// System calls the filter refused.
pub(crate) fn refusals(refusals: &[Refusal]) -> Vec<Violation> {
    refusals
        .iter()
        .map(|refusal| {
            kernel(&refusal.rule, "", format!("the system call filter refuses it (rule {})", refusal.rule))
        })
        .collect()
}

/// What the git guard did or saw, from its own note.
fn effect(note: &str) -> Violation {
    let advice = "(rule protect); leave it to the user, because git would act on it outside the sandbox";
    if let Some(created) = note.strip_prefix("created_executable_config: ") {
        let (what, path) = match created.rsplit_once(" in ") {
            Some((key, file)) => (format!("set {key}"), file),
            None => ("create".to_owned(), created),
        };
        return observed(&what, path, format!("allowed and recorded {advice}"));
    }
    let (did, reason) = note.split_once(": ").unwrap_or((note, ""));
    let (what, path) = match did.strip_prefix("put back ").unwrap_or(did).rsplit_once(" in ") {
        Some((key, file)) => (format!("set {key}"), file),
        None => ("change".to_owned(), ".git"),
    };
    let done = if did.starts_with("put back") { "put back after the call" } else { "not put back" };
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    observed(&what, path, format!("{done}{reason} {advice}"))
}
