//! The result of a call: the frozen JSON object of `tool call --json`, and its form for people.
//!
//! Built only from a [`CallResult`], whose outcome the toolhost decided; nothing a confined program printed can change
//! any field but `output`.

use std::fmt::Write as _;

use oxibot_proto::message::{
    CallResult, Certainty, Denial, JudgedRule, Judgement, Level, MAX_OUTPUT, Outcome, Proven, Usage, Verdict,
    Violation,
};
use serde::Serialize;

use super::neutral;
use super::output::{self, Truncated};
use crate::explain;

/// Longest text of a refusal's field, in bytes. Keeps a peer from filling a conversation with reasons.
const MAX_REASON: usize = 2048;
/// Room in the output for remarks about the call, in bytes.
const MAX_NOTES: usize = 1024;

/// What came of a call. Serialises to exactly the object that scripts depend on; fields without meaning are null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CallReport {
    /// Unique id, as in the audit log.
    pub call_id: Option<String>,
    /// Canonical tool name.
    pub tool: String,
    /// Name of the outcome.
    pub outcome: &'static str,
    /// Exit status of the program.
    pub exit_code: Option<i32>,
    /// Signal that ended the program.
    pub signal: Option<i32>,
    /// What it printed or read, or what is wrong; at most 10 240 bytes.
    pub output: Option<String>,
    /// What was left out of `output`.
    pub truncated: Option<Truncated>,
    /// Why it was refused and what to do instead.
    pub denial: Option<Denial>,
    /// What the wall refused while it ran.
    pub violations: Vec<Violation>,
    /// Level it ran under.
    pub level: Level,
    /// How that level was proven.
    pub proven: Option<Proven>,
    /// From admission to end, in milliseconds.
    pub duration_ms: u64,
    /// What it used.
    pub usage: Option<Usage>,
    /// `violations` in words, for a person and for a model: shown after the output, no part of the object.
    #[serde(skip)]
    pub wall: String,
}

impl CallReport {
    /// Reports a result of something that was no shell command, or of one nobody knows.
    #[must_use]
    pub fn new(result: &CallResult) -> Self {
        Self::of(result, None)
    }

    /// Reports a result. `command` is the shell command it is the result of, if it was one.
    #[must_use]
    pub fn of(result: &CallResult, command: Option<&str>) -> Self {
        let violations: Vec<Violation> =
            explain::violations(result, command).iter().map(harmless_violation).collect();
        // What was observed is said by the notes, or by the denial, already.
        let told = |violation: &&Violation| match violation.certainty {
            Certainty::Kernel | Certainty::Guessed => true,
            Certainty::Observed => false,
        };
        let wall = explain::section(&violations.iter().filter(told).cloned().collect::<Vec<_>>());
        let notes = notes(result);
        // One byte more, for the line feed that may go before the notes.
        let reserved = notes.len().saturating_add(wall.len()).saturating_add(2);
        let reserved = if notes.is_empty() && wall.is_empty() { 0 } else { reserved };
        let rendered = output::text_within(&result.output, MAX_OUTPUT.saturating_sub(reserved));
        let mut text = rendered.text;
        let (denial, message) = match &result.outcome {
            Outcome::Denied(denial) | Outcome::NeedsApproval(denial) => (Some(harmless(denial)), None),
            Outcome::Failed { message } | Outcome::Internal { message } => {
                (None, Some(neutral::text(&cut(message, MAX_REASON))))
            }
            Outcome::Completed | Outcome::TimedOut | Outcome::Cancelled | Outcome::Killed { .. } => {
                (None, None)
            }
        };
        let denied = denial.is_some();
        if let Some(message) = message {
            if text.is_empty() {
                text = message;
            } else if text.len().saturating_add(message.len()).saturating_add(notes.len()) < MAX_OUTPUT {
                text.insert(0, '\n');
                text.insert_str(0, &message);
            }
        }
        if !notes.is_empty() {
            end_line(&mut text);
            text.push_str(&notes);
        }
        let output = if denied && text.is_empty() { None } else { Some(text) };
        Self {
            call_id: (!result.call_id.is_empty()).then(|| neutral::line(&result.call_id, 128)),
            tool: neutral::line(&result.tool, 128),
            outcome: result.outcome.name(),
            exit_code: result.exit_code,
            signal: result.signal,
            output,
            truncated: rendered.truncated,
            denial,
            violations,
            level: result.level,
            proven: result.proven,
            duration_ms: result.duration_ms,
            usage: result.usage,
            wall,
        }
    }

    /// The object on one line.
    #[must_use]
    pub fn json(&self) -> String {
        to_line(self)
    }

    /// The form for people, and for a model: the output, then how it ended where that says more.
    #[must_use]
    pub fn human(&self) -> String {
        let mut text = explain::quote_forged(self.output.as_deref().unwrap_or_default());
        if let Some(denial) = &self.denial {
            end_line(&mut text);
            let what = if self.outcome == "denied" { "denied" } else { "needs approval" };
            push(&mut text, &format!("{what}: {}", denial.reason));
            push(&mut text, &format!("  rule:    {}", denial.rule));
            if !denial.hint.is_empty() {
                push(&mut text, &format!("  instead: {}", denial.hint));
            }
        }
        let ending = self.ending();
        if !ending.is_empty() {
            end_line(&mut text);
            push(&mut text, &ending);
        }
        if !self.wall.is_empty() {
            end_line(&mut text);
            text.push_str(&self.wall);
        }
        text
    }

    fn ending(&self) -> String {
        match self.outcome {
            "completed" => match self.exit_code {
                Some(0) | None => String::new(),
                Some(code) => format!("[exit status {code}]"),
            },
            "timed_out" => {
                format!("[timed out after {}; every process of it was ended]", seconds(self.duration_ms))
            }
            "cancelled" => "[cancelled; every process of it was ended]".into(),
            "killed" => match self.signal {
                Some(signal) => format!("[ended by signal {signal}]"),
                None => "[ended by a limit]".into(),
            },
            "failed" => "[failed]".into(),
            "internal" => "[internal error of OxiBot, not of the command]".into(),
            _ => String::new(),
        }
    }
}

/// What the policy says of a call, in the frozen form of `tool call --dry-run --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JudgementReport {
    /// The strictest verdict.
    pub verdict: Verdict,
    /// Rules that matched.
    pub rules: Vec<JudgedRule>,
    /// Simple commands found.
    pub commands: Vec<String>,
}

impl JudgementReport {
    /// Reports a judgement.
    #[must_use]
    pub fn new(judgement: &Judgement) -> Self {
        Self {
            verdict: judgement.verdict,
            rules: judgement
                .rules
                .iter()
                .map(|rule| JudgedRule {
                    id: neutral::line(&rule.id, 128),
                    reason: neutral::line(&rule.reason, MAX_REASON),
                    alternative: neutral::line(&rule.alternative, MAX_REASON),
                })
                .collect(),
            commands: judgement.commands.iter().map(|command| neutral::text(command)).collect(),
        }
    }

    /// The object on one line.
    #[must_use]
    pub fn json(&self) -> String {
        to_line(self)
    }

    /// The form for people.
    #[must_use]
    pub fn human(&self) -> String {
        let mut text = String::new();
        push(
            &mut text,
            match self.verdict {
                Verdict::Allow => "allow: it would run",
                Verdict::Ask => "ask: it would run once a person says yes",
                Verdict::Block => "block: it would be refused",
            },
        );
        for rule in &self.rules {
            push(&mut text, &format!("  rule:    {}: {}", rule.id, rule.reason));
            if !rule.alternative.is_empty() {
                push(&mut text, &format!("  instead: {}", rule.alternative));
            }
        }
        for command in &self.commands {
            push(&mut text, &format!("  command: {}", neutral::line(command, 512)));
        }
        text
    }
}

/// `{"error":{"kind","message","hint"}}`: what `--json` prints when there is no call to report.
#[must_use]
pub fn error_object(kind: &str, message: &str, hint: &str) -> String {
    #[derive(Serialize)]
    struct ErrorObject<'a> {
        error: Fields<'a>,
    }
    #[derive(Serialize)]
    struct Fields<'a> {
        kind: &'a str,
        message: &'a str,
        hint: &'a str,
    }
    to_line(&ErrorObject { error: Fields { kind, message: &neutral::text(message), hint } })
}

/// One line of JSON, with its line feed.
pub(crate) fn to_line(value: &impl Serialize) -> String {
    // Strings, numbers and lists of them cannot fail to serialise; an empty object would be the honest answer if so.
    let mut line = serde_json::to_string(value).unwrap_or_else(|_| "{}".into());
    line.push('\n');
    line
}

fn notes(result: &CallResult) -> String {
    let mut notes = String::new();
    if let Outcome::Killed { limit: Some(limit) } = &result.outcome {
        push(&mut notes, &format!("[note: ended by the limit on {}]", neutral::line(limit, 64)));
    }
    for note in &result.notes {
        let line = format!("[note: {}]", neutral::line(note, 400));
        if notes.len().saturating_add(line.len()).saturating_add(20) > MAX_NOTES {
            push(&mut notes, "[note: and more]");
            break;
        }
        push(&mut notes, &line);
    }
    notes
}

fn harmless(denial: &Denial) -> Denial {
    Denial {
        rule: neutral::line(&denial.rule, 128),
        reason: neutral::line(&denial.reason, MAX_REASON),
        hint: neutral::line(&denial.hint, MAX_REASON),
    }
}

fn harmless_violation(violation: &Violation) -> Violation {
    Violation {
        what: neutral::line(&violation.what, 128),
        path: neutral::line(&violation.path, MAX_REASON),
        why: neutral::line(&violation.why, MAX_REASON),
        certainty: violation.certainty,
    }
}

fn cut(text: &str, limit: usize) -> String {
    text.char_indices()
        .take_while(|(at, c)| at.saturating_add(c.len_utf8()) <= limit)
        .map(|(_, c)| c)
        .collect()
}

fn end_line(text: &mut String) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
}

fn push(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _never = writeln!(text, "{line}");
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use oxibot_proto::message::{CallNumber, Output};

    use super::*;

    fn result(outcome: Outcome, output: &[u8]) -> CallResult {
        CallResult {
            call: CallNumber(1),
            call_id: "c-1".into(),
            tool: "bash".into(),
            outcome,
            exit_code: None,
            signal: None,
            output: Output {
                head: output.to_vec(),
                tail: Vec::new(),
                total_bytes: u64::try_from(output.len()).unwrap(),
                passed_bytes: u64::try_from(output.len()).unwrap(),
                file: None,
            },
            violations: Vec::new(),
            notes: Vec::new(),
            level: Level::Full,
            proven: Some(Proven::Start),
            duration_ms: 12,
            usage: Some(Usage { cpu_ms: 3, max_rss_kb: 4096 }),
            view: None,
            approval: None,
        }
    }

    #[test]
    fn json_of_a_completed_call_is_frozen() {
        let mut completed = result(Outcome::Completed, b"hello\n");
        completed.exit_code = Some(3);
        assert_eq!(
            CallReport::new(&completed).json(),
            concat!(
                r#"{"call_id":"c-1","tool":"bash","outcome":"completed","exit_code":3,"signal":null,"#,
                r#""output":"hello\n","truncated":null,"denial":null,"violations":[],"level":"full","#,
                r#""proven":"start","duration_ms":12,"usage":{"cpu_ms":3,"max_rss_kb":4096}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn json_of_a_refused_call_is_frozen() {
        let mut denied = result(
            Outcome::Denied(Denial { rule: "path.outside".into(), reason: "r".into(), hint: "h".into() }),
            b"",
        );
        denied.usage = None;
        denied.proven = Some(Proven::Recorded);
        denied.level = Level::Kernel;
        denied.violations = vec![Violation {
            what: "write".into(),
            path: "/etc/hosts".into(),
            why: "outside the workspace".into(),
            certainty: Certainty::Observed,
        }];
        assert_eq!(
            CallReport::new(&denied).json(),
            concat!(
                r#"{"call_id":"c-1","tool":"bash","outcome":"denied","exit_code":null,"signal":null,"#,
                r#""output":null,"truncated":null,"denial":{"rule":"path.outside","reason":"r","hint":"h"},"#,
                r#""violations":[{"what":"write","path":"/etc/hosts","why":"outside the workspace","#,
                r#""certainty":"observed"}],"level":"kernel","proven":"recorded","duration_ms":12,"usage":null}"#,
                "\n"
            )
        );
    }

    #[test]
    fn json_of_truncation_and_error_is_frozen() {
        let mut long = result(Outcome::Completed, b"");
        long.output = Output {
            head: vec![b'a'; 9000],
            tail: vec![b'b'; 9000],
            total_bytes: 50_000,
            passed_bytes: 50_000,
            file: Some(".oxibot-output/c-1.txt".into()),
        };
        let value: serde_json::Value = serde_json::from_str(&CallReport::new(&long).json()).unwrap();
        let truncated = value.get("truncated").unwrap();
        assert_eq!(truncated.get("total_bytes").unwrap(), 50_000);
        assert!(truncated.get("omitted_bytes").unwrap().is_u64());
        assert_eq!(truncated.get("file").unwrap(), ".oxibot-output/c-1.txt");
        assert_eq!(truncated.as_object().unwrap().len(), 3);
        assert_eq!(
            error_object("internal", "m", "h"),
            "{\"error\":{\"kind\":\"internal\",\"message\":\"m\",\"hint\":\"h\"}}\n"
        );
    }

    #[test]
    fn json_of_a_judgement_is_frozen() {
        let judgement = Judgement {
            call: CallNumber(1),
            verdict: Verdict::Block,
            rules: vec![JudgedRule { id: "rm.root".into(), reason: "r".into(), alternative: "a".into() }],
            commands: vec!["rm -rf /".into()],
        };
        assert_eq!(
            JudgementReport::new(&judgement).json(),
            concat!(
                r#"{"verdict":"block","rules":[{"id":"rm.root","reason":"r","alternative":"a"}],"#,
                r#""commands":["rm -rf /"]}"#,
                "\n"
            )
        );
    }

    #[test]
    fn notes_never_push_the_output_over_the_limit() {
        let mut noisy = result(Outcome::Killed { limit: Some("memory".into()) }, &vec![b'x'; 20_000]);
        noisy.notes = vec!["n".repeat(5000); 40];
        let report = CallReport::new(&noisy);
        let output = report.output.unwrap();
        assert!(output.len() <= MAX_OUTPUT, "{}", output.len());
        assert!(output.contains("limit on memory"));
    }

    #[test]
    fn people_are_told_the_rule_the_reason_and_what_to_do_instead() {
        let denied = result(
            Outcome::Denied(Denial {
                rule: "path.outside".into(),
                reason: "/etc/shadow\x1b[2J is outside the workspace".into(),
                hint: "use a path inside the workspace".into(),
            }),
            b"",
        );
        let text = CallReport::new(&denied).human();
        assert_eq!(
            text,
            "denied: /etc/shadow␛[2J is outside the workspace\n  rule:    path.outside\n  \
             instead: use a path inside the workspace\n"
        );
    }

    #[test]
    fn failure_says_what_is_wrong_in_the_output() {
        let failed = result(Outcome::Failed { message: "unknown tool: bsh".into() }, b"");
        assert_eq!(CallReport::new(&failed).output.as_deref(), Some("unknown tool: bsh"));
    }
}
