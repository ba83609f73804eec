//! From the commands of a script to a verdict: each command is held against the rules that could concern it.

use oxibot_proto::message::{JudgedRule, Verdict};
use oxibot_proto::settings::Unknown;

use super::read::Fault;
use super::rules::{Policy, Seen};
use super::tree::RedirectKind;
use super::value::cleaned;
use super::walk::{Event, Simple, Stream, Walker};
use super::{Judged, MAX_COMMANDS, MAX_SCRIPT};

/// Rules reported for one script.
const MAX_RULES: usize = 32;
/// Longest a command is reported, in characters.
const MAX_SHOWN: usize = 1024;

/// Judges a script. Does no I/O; what it costs is bounded by the length of the text and [`super::walk`]'s steps.
pub fn judge(policy: &Policy, script: &str) -> Judged {
    let mut walker = Walker::new(policy.languages());
    if script.len() > MAX_SCRIPT {
        walker.fault = Some(Fault::TooLong);
    } else {
        walker.text(&cleaned(script), &Stream::default());
    }
    let mut matched: Vec<(Verdict, &str)> = Vec::new();
    let mut rules: Vec<(Verdict, JudgedRule)> = Vec::new();
    for simple in &walker.found {
        let seen = Seen::new(simple, &walker.names);
        for rule in policy.matching(&seen) {
            if !matched.iter().any(|(_, id)| *id == rule.id()) && matched.len() < MAX_RULES {
                matched.push((rule.verdict(), rule.id()));
                rules.push((rule.verdict(), rule.judged()));
            }
        }
    }
    let Unknown { unreadable, runtime } = policy.unknown();
    if let Some(fault) = walker.fault {
        rules.push((unreadable, unreadable_rule(fault)));
    }
    if walker.found.iter().any(|simple| simple.events.contains(&Event::Runtime)) {
        rules.push((runtime, runtime_rule()));
    }
    // The strictest first: that one is what a caller is told.
    rules.sort_by_key(|(verdict, _)| std::cmp::Reverse(*verdict));
    let verdict = rules.first().map_or(Verdict::Allow, |(verdict, _)| *verdict);
    let commands = walker
        .found
        .iter()
        .filter(|simple| {
            !simple.words.is_empty() || !simple.redirects.is_empty() || !simple.assigned.is_empty()
        })
        .take(MAX_COMMANDS)
        .map(|simple| shown(simple, &walker))
        .collect();
    Judged { verdict, rules: rules.into_iter().map(|(_, rule)| rule).collect(), commands }
}

fn unreadable_rule(fault: Fault) -> JudgedRule {
    JudgedRule {
        id: "policy.unreadable".to_owned(),
        reason: format!("the command cannot be judged: {fault}"),
        alternative: "write it in simpler steps, or put a long script into a file and run that".to_owned(),
    }
}

fn runtime_rule() -> JudgedRule {
    JudgedRule {
        id: "policy.runtime".to_owned(),
        reason: "which program it runs is known only at run time, so it was not judged".to_owned(),
        alternative: "name the program itself".to_owned(),
    }
}

/// A command as a person would write it, with its words as they will be.
fn shown(simple: &Simple, walker: &Walker<'_>) -> String {
    let mut parts: Vec<String> = Vec::new();
    if simple.words.is_empty() {
        parts.extend(
            simple
                .assigned
                .iter()
                .map(|(name, value)| format!("{name}={}", quoted(&walker.names.shown(value)))),
        );
    }
    parts.extend(simple.words.iter().map(|word| quoted(&walker.names.shown(word))));
    for redirect in &simple.redirects {
        let operator = match redirect.kind {
            RedirectKind::Read => "<",
            RedirectKind::Write => ">",
            RedirectKind::Append => ">>",
            RedirectKind::Both => "<>",
            RedirectKind::Duplicate | RedirectKind::Here | RedirectKind::HereString => continue,
        };
        parts.push(format!("{operator} {}", quoted(&walker.names.shown(&redirect.target))));
    }
    let text = parts.join(" ");
    if text.chars().count() > MAX_SHOWN {
        text.chars().take(MAX_SHOWN).chain("…".chars()).collect()
    } else {
        text
    }
}

fn quoted(word: &str) -> String {
    let plain = !word.is_empty()
        && word.chars().all(|letter| letter.is_alphanumeric() || "-_./=:,+@%~*?[]^!{}$#…".contains(letter));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}
