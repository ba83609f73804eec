//! Why the wall refused something, in words: what the kernel told us (refusals of the filter, limits reached) and what
//! we saw afterwards (git configuration put back, a path a files worker would not follow).
//!
//! Nothing a program printed is looked at here; conclusions from that are main's, and marked as guesses. The words
//! stand in tables, so that nothing but a number, a family or a path of the call's own gets into them.

use std::collections::BTreeSet;
use std::time::Duration;

use oxibot_proto::message::{Certainty, Denial, Outcome, Violation};
use oxibot_proto::settings::Limits;

use super::life::Conclusion;
use crate::wall::explain_rule;
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
                "it did not end within {} s and was ended with all its processes (rule timeout); give timeout_s, \
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
                "the call may use {} MiB (rule limits.memoryMb); work on smaller pieces, or read files in parts",
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
                "a process may use {} s of CPU time (rule limits.cpuSeconds); do the work in smaller steps",
                limits.cpu_seconds
            ),
        ),
        "file_size" => (
            "write",
            format!(
                "a file may grow to {} MiB (rule limits.fileSizeMb); write several smaller files",
                limits.file_size_mb
            ),
        ),
        _ => return None,
    };
    Some(kernel(what, "", why))
}

/// System calls the filter refused: each rule's own words, and the family of a socket.
pub(crate) fn refusals(refusals: &[Refusal]) -> Vec<Violation> {
    let mut seen = BTreeSet::new();
    refusals
        .iter()
        .map(|refusal| {
            let rule = &refusal.rule;
            let [family, ..] = refusal.arguments;
            (rule, if rule.starts_with("sockets.") { family_name(family) } else { String::new() })
        })
        // A rule may have been met with many arguments; its words are the same.
        .filter(|told| seen.insert(told.clone()))
        .map(|(rule, object)| match explain_rule(rule) {
            Some(text) => kernel(text.what, &object, format!("{} (rule {rule}); {}", text.why, text.instead)),
            None => kernel(rule, &object, format!("the system call filter refuses it (rule {rule})")),
        })
        .collect()
}

/// Families that are met; others by number.
fn family_name(family: u64) -> String {
    const NAMES: [(libc::c_int, &str); 12] = [
        (libc::AF_UNIX, "AF_UNIX"),
        (libc::AF_INET, "AF_INET"),
        (libc::AF_INET6, "AF_INET6"),
        (libc::AF_NETLINK, "AF_NETLINK"),
        (libc::AF_PACKET, "AF_PACKET"),
        (libc::AF_VSOCK, "AF_VSOCK"),
        (libc::AF_ALG, "AF_ALG"),
        (libc::AF_BLUETOOTH, "AF_BLUETOOTH"),
        (libc::AF_CAN, "AF_CAN"),
        (libc::AF_TIPC, "AF_TIPC"),
        (libc::AF_RDS, "AF_RDS"),
        (libc::AF_XDP, "AF_XDP"),
    ];
    let known = NAMES.iter().find(|(number, _)| u64::try_from(*number).is_ok_and(|number| number == family));
    known.map_or_else(|| format!("address family {family}"), |(_, name)| (*name).to_owned())
}

/// What a guard of the workspace did or saw, from its own note.
fn effect(note: &str) -> Violation {
    if let Some(created) = note.strip_prefix("created_executable_config: ") {
        let (what, path) = match created.rsplit_once(" in ") {
            Some((key, file)) => (format!("set {key}"), file),
            None => ("create".to_owned(), created),
        };
        return observed(&what, path, format!("allowed and recorded {}", advice(path)));
    }
    let (did, reason) = note.split_once(": ").unwrap_or((note, ""));
    let verbs = [
        ("put back ", "put back after the call"),
        ("removed ", "removed after the call"),
        ("could not put back ", "not put back"),
    ];
    let told = verbs.iter().find_map(|(verb, done)| Some((did.strip_prefix(verb)?, *done)));
    let (object, done) = told.unwrap_or(("", "not put back"));
    let (what, path) = match object.rsplit_once(" in ") {
        Some((key, file)) => (format!("set {key}"), file),
        // Behind a name may stand, in brackets, what it was.
        None => ("change".to_owned(), object.split(" (").next().unwrap_or(object)),
    };
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    observed(&what, path, format!("{done}{reason} {}", advice(path)))
}

/// The rule, and what to do instead.
fn advice(path: &str) -> &'static str {
    if path.split('/').any(|part| part == ".git") || path.is_empty() {
        "(rule protect); leave it to the user, because git would act on it outside the sandbox"
    } else {
        "(rule protect); leave it to the user, because programs would act on it outside the sandbox"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conclusion(outcome: Outcome) -> Conclusion {
        Conclusion {
            outcome,
            exit_code: None,
            signal: None,
            usage: None,
            notes: Vec::new(),
            refusals: Vec::new(),
            limits: LimitEvents::default(),
        }
    }

    fn told(conclusion: &Conclusion, seen: &[String]) -> Vec<Violation> {
        program(conclusion, &Limits::default(), Duration::from_secs(7), seen)
    }

    #[test]
    fn refused_socket_is_named_by_its_family_and_rule() {
        let refusal = |rule: &str, family| Refusal { rule: rule.into(), arguments: [family, 1, 0] };
        let said = refusals(&[
            refusal("sockets.family", 40),
            refusal("sockets.none", 4711),
            refusal("mounts.mount", 5),
            refusal("no.such", 5),
        ]);
        assert!(said.iter().all(|violation| violation.certainty == Certainty::Kernel));
        let paths: Vec<_> = said.iter().map(|violation| violation.path.as_str()).collect();
        assert_eq!(paths, ["AF_VSOCK", "address family 4711", "", ""]);
        for (violation, rule) in
            said.iter().zip(["sockets.family", "sockets.none", "mounts.mount", "no.such"])
        {
            assert!(violation.why.contains(&format!("(rule {rule})")), "{violation:?}");
        }
        assert!(
            said.iter().take(3).all(|violation| violation.why.contains("); ")),
            "what to do instead: {said:?}"
        );
    }

    #[test]
    fn limits_are_told_with_their_values_and_once() {
        for (limit, rule, value) in [
            ("memory", "limits.memoryMb", "8192 MiB"),
            ("processes", "limits.processes", "512"),
            ("cpu", "limits.cpuSeconds", "600 s"),
            ("file_size", "limits.fileSizeMb", "4096 MiB"),
        ] {
            let mut conclusion = conclusion(Outcome::Killed { limit: Some(limit.into()) });
            conclusion.limits = LimitEvents { out_of_memory: u32::from(limit == "memory"), processes: 0 };
            let said = told(&conclusion, &[]);
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(
                said[0].why.contains(&format!("(rule {rule})")) && said[0].why.contains(value),
                "{said:?}"
            );
        }
        let mut survived = conclusion(Outcome::Completed);
        survived.limits = LimitEvents { out_of_memory: 1, processes: 3 };
        assert_eq!(told(&survived, &[]).len(), 2, "a child that was ended is told too");
        let late = told(&conclusion(Outcome::TimedOut), &[]);
        assert!(late[0].why.contains("7 s") && late[0].why.contains("(rule timeout)"), "{late:?}");
    }

    #[test]
    fn effects_are_observed_and_all_are_bounded() {
        let seen = [
            "put back core.fsmonitor in .git/config: git would run it on the host".to_owned(),
            "created_executable_config: .git/hooks/pre-commit".to_owned(),
            "could not put back .git: it was a directory".to_owned(),
            "put back .git (gitdir: ../main/.git/worktrees/x): it was a file".to_owned(),
            "removed sub/.git/hooks/pre-push: git would run it on the host".to_owned(),
            "put back .vscode/tasks.json: programs outside the sandbox do what it says".to_owned(),
        ];
        let said = told(&conclusion(Outcome::Completed), &seen);
        let shown: Vec<_> = said.iter().map(|v| (v.what.as_str(), v.path.as_str(), v.certainty)).collect();
        assert_eq!(
            shown,
            [
                ("set core.fsmonitor", ".git/config", Certainty::Observed),
                ("create", ".git/hooks/pre-commit", Certainty::Observed),
                ("change", ".git", Certainty::Observed),
                ("change", ".git", Certainty::Observed),
                ("change", "sub/.git/hooks/pre-push", Certainty::Observed),
                ("change", ".vscode/tasks.json", Certainty::Observed),
            ]
        );
        assert!(said[4].why.starts_with("removed after the call: "), "{said:?}");
        assert!(said[5].why.starts_with("put back after the call: programs"), "{said:?}");
        assert!(said[2].why.contains("not put back"), "{said:?}");
        let many = vec![String::from("put back a in b: c"); 100];
        assert_eq!(told(&conclusion(Outcome::Completed), &many).len(), MAX_VIOLATIONS);
    }

    #[test]
    fn denial_of_a_path_is_told_with_its_rule_and_hint() {
        let denial =
            Denial { rule: "path.outside".into(), reason: "it leads out".into(), hint: "stay".into() };
        let said = denied(&Outcome::Denied(denial), "read", "/etc/shadow");
        assert_eq!(said[0].why, "it leads out (rule path.outside); stay");
        assert_eq!(denied(&Outcome::Completed, "read", "x"), []);
    }
}
