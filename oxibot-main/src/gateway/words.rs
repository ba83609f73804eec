//! What people see that no model wrote. Pure, and pinned by the tests below.

use std::time::Duration;

use crate::agent::turn::Finished;
use crate::render::neutral;
use crate::store::Ending;

/// Longest remark about one call, in characters.
const REMARK: usize = 600;

/// The reply of a turn, and what is to be said about how it ended.
pub(super) fn finished(finished: &Finished) -> String {
    let reply = finished.reply.trim();
    let remark = match finished.ending {
        Ending::Answered => String::new(),
        Ending::CutShort => "[the answer was cut at the model's length limit; ask me to go on]".to_owned(),
        Ending::Refused => "[the model's vendor refused to go on]".to_owned(),
        Ending::Empty => "[the model said nothing, twice; /retry asks again]".to_owned(),
        Ending::Iterations => {
            "[stopped: this turn has used its rounds of tool calls; ask me to go on]".to_owned()
        }
        Ending::Tokens => "[stopped: this turn has used its tokens; ask me to go on]".to_owned(),
        Ending::Time => "[stopped: this turn has used its time; ask me to go on]".to_owned(),
        Ending::Stuck => "[stopped: the same call failed again and again]".to_owned(),
        Ending::Cancelled => "[stopped]".to_owned(),
        Ending::Interrupted => "[interrupted]".to_owned(),
        Ending::ProviderFailed => match &finished.fault {
            Some(fault) => {
                let remedy =
                    if fault.remedy.is_empty() { String::new() } else { format!(" {}.", fault.remedy) };
                format!(
                    "[the model could not be asked: {}.{remedy} Your message is kept; /retry asks again]",
                    neutral::line(fault.message.trim_end_matches('.'), REMARK)
                )
            }
            None => "[the model could not be asked. Your message is kept; /retry asks again]".to_owned(),
        },
    };
    match (reply.is_empty(), remark.is_empty()) {
        (false, true) => reply.to_owned(),
        (false, false) => format!("{reply}\n\n{remark}"),
        (true, false) => remark,
        (true, true) => "[no answer came]".to_owned(),
    }
}

/// A refused call, from our own summary of it.
pub(super) fn refusal(tool: &str, outcome: &str, summary: &str) -> Option<String> {
    let verb = match outcome {
        "denied" => "refused",
        "needs_approval" => "needs approval",
        _ => return None,
    };
    let (rule, reason) =
        summary.lines().find_map(|line| line.strip_prefix("rule ")).and_then(|line| line.split_once(": "))?;
    let hint = summary.lines().find_map(|line| line.strip_prefix("instead: ")).unwrap_or_default();
    let hint = if hint.is_empty() { String::new() } else { format!(" Instead: {hint}.") };
    Some(neutral::line(&format!("{verb}: {tool}: {reason} ({rule}).{hint}"), REMARK))
}

/// A call that takes its time.
pub(super) fn running(tool: &str, elapsed: Duration, deadline: Option<Duration>) -> String {
    let until = deadline.map_or_else(String::new, |deadline| format!(" of at most {} s", deadline.as_secs()));
    format!("running {}: {} s{until}", neutral::line(tool, 40), elapsed.as_secs())
}

/// A turn that a crash cut off after tools had run.
pub(super) fn cut_off(tools: &[String]) -> String {
    format!(
        "[OxiBot was ended while it worked on your message. These calls had begun, and may have taken effect: {}. They \
         were not run again; /retry asks again]",
        neutral::line(&tools.join(", "), REMARK)
    )
}

/// What came with a message and was not taken.
pub(super) fn left_out(kinds: &[String], with_text: bool) -> String {
    let kinds = kinds.join(", ");
    if with_text {
        format!("[not taken: {kinds}; I read only the text]")
    } else {
        format!("[I cannot take this yet: {kinds}. Please write it as text]")
    }
}

/// Below a call that needs a yes.
pub(super) fn question(id: &str, expires_ms: u64) -> String {
    let id = neutral::line(id, 40);
    format!(
        "Run exactly this, once? Answer within {} minutes: /approve {id} or /deny {id}",
        (expires_ms / 60_000).max(1)
    )
}

/// In place of the question, once it is answered.
pub(super) fn answered(yes: bool, name: &str) -> String {
    let name = neutral::line(name, 80);
    if yes { format!("[approved by {name}, for this once]") } else { format!("[denied by {name}]") }
}

/// To who answered a question that is none, or not theirs.
pub(super) fn unheard(id: &str, theirs: bool) -> String {
    let id = neutral::line(id, 40);
    if theirs {
        format!("[nothing waits for a yes under {id}: it was answered, or its time is over]")
    } else {
        format!(
            "[{id} is not yours to answer: only who asked for it may, in that conversation, or an administrator]"
        )
    }
}

/// To who stopped everything.
pub(super) fn stopped_all(calls: u32) -> String {
    format!(
        "[everything is stopped: {calls} calls were ended, and no new ones are taken until `oxibot stop --clear` is \
         called on the machine]"
    )
}

/// To who gave a command that only administrators may give.
pub(super) const ADMINISTRATORS: &str =
    "[only an administrator may do that: see gateway.admins in the configuration]";

/// Before an answer that is late because the vendor could not be reached.
pub(super) fn late(minutes: u64) -> String {
    format!("[this answer is {minutes} minutes late: the service could not be reached]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::hands::{FaultClass, MindFault};
    use crate::model::TokenUsage;

    fn ended(ending: Ending, reply: &str, fault: Option<MindFault>) -> String {
        finished(&Finished {
            ending,
            reply: reply.into(),
            usage: TokenUsage::default(),
            calls: Vec::new(),
            fault,
        })
    }

    #[test]
    fn answer_is_the_answer_and_every_other_ending_is_said() {
        assert_eq!(ended(Ending::Answered, " yes ", None), "yes");
        assert_eq!(ended(Ending::Cancelled, "", None), "[stopped]");
        assert!(ended(Ending::Time, "so far", None).starts_with("so far\n\n[stopped: "));
        assert_eq!(ended(Ending::Answered, "", None), "[no answer came]");
    }

    #[test]
    fn failure_of_the_provider_names_cause_and_that_the_message_is_kept() {
        let fault = MindFault {
            kind: "rate_limited".into(),
            message: "anthropic: too many requests".into(),
            remedy: "Wait a minute".into(),
            class: FaultClass::TryAgain,
        };
        assert_eq!(
            ended(Ending::ProviderFailed, "", Some(fault)),
            "[the model could not be asked: anthropic: too many requests. Wait a minute. Your message is kept; /retry \
             asks again]"
        );
    }

    #[test]
    fn refusal_has_reason_rule_and_remedy() {
        let summary =
            "outcome: denied\nrule shell.rm-root: it removes the root directory\ninstead: name the files";
        assert_eq!(
            refusal("bash", "denied", summary).unwrap(),
            "refused: bash: it removes the root directory (shell.rm-root). Instead: name the files."
        );
        assert_eq!(refusal("bash", "completed", summary), None);
    }

    #[test]
    fn progress_names_tool_time_and_deadline() {
        let words = running("bash", Duration::from_secs(4), Some(Duration::from_secs(60)));
        assert_eq!(words, "running bash: 4 s of at most 60 s");
    }
}
