//! What a request says, turned into what admission works with: how long it may take, what is recorded of it, what a
//! worker is asked, and the refusals that say the same wherever they come from. Pure functions.

use std::time::Duration;

use oxibot_proto::message::{Denial, JudgedRule, Origin};

use super::audit::{About, capped};
use super::control::Stop;
use crate::tools::{ToolRequest, WebRequest};
use crate::wire::{FetchWork, FilesWork};

/// Bytes of a claimed name that are kept.
pub(super) const MAX_CLAIM: usize = 256;

/// A request may shorten its deadline, never lengthen it.
pub(super) fn narrowed(wanted: Duration, asked_ms: Option<u64>) -> Duration {
    asked_ms.map_or(wanted, |asked| wanted.min(Duration::from_millis(asked)))
}

/// What a rule says, as results carry it.
pub(super) fn denial(rule: Option<JudgedRule>) -> Denial {
    // A verdict without a rule would be a fault of the policy; it is refused all the same.
    let rule = rule.unwrap_or_else(|| JudgedRule {
        id: "policy.unknown".to_owned(),
        reason: "the policy gave no reason".to_owned(),
        alternative: "ask for something else".to_owned(),
    });
    Denial { rule: rule.id, reason: rule.reason, hint: rule.alternative }
}

/// Refusal of a toolhost that was started for dry runs.
pub(super) fn only_judges() -> Denial {
    Denial {
        rule: "purpose.judge".to_owned(),
        reason: "this toolhost was started to judge calls and has no wall to run them behind".to_owned(),
        hint: "leave out --dry-run".to_owned(),
    }
}

/// Refusal while an emergency stop is active.
pub(super) fn stop_denial(stop: Stop) -> Denial {
    Denial {
        rule: "stop.active".to_owned(),
        reason: "an emergency stop is active: new calls are refused".to_owned(),
        hint: stop.remedy().to_owned(),
    }
}

/// What a request is recorded as: the command line, or the path and the size of what is written; never contents.
pub(super) fn about(request: &ToolRequest) -> About {
    let text = match request {
        ToolRequest::Bash { command, .. } => command.clone(),
        ToolRequest::Files(work) => match work {
            FilesWork::Read { path, .. }
            | FilesWork::Write { path, .. }
            | FilesWork::Edit { path, .. }
            | FilesWork::List { path, .. }
            | FilesWork::Grep { path, .. }
            | FilesWork::Find { path, .. }
            | FilesWork::PutOpen { path, .. }
            | FilesWork::GetOpen { path, .. } => path.clone(),
            FilesWork::SpillOpen { .. }
            | FilesWork::SpillWrite { .. }
            | FilesWork::SpillClose { .. }
            | FilesWork::PutWrite { .. }
            | FilesWork::PutClose { .. }
            | FilesWork::PutAbort { .. }
            | FilesWork::GetRead { .. }
            | FilesWork::GetClose { .. }
            | FilesWork::GitCheckpoint
            | FilesWork::GitRestore => String::new(),
        },
        ToolRequest::Web(WebRequest::Get { url, .. }) => url.clone(),
        ToolRequest::Web(WebRequest::Search { query, .. }) => query.clone(),
    };
    let size = match request {
        ToolRequest::Files(FilesWork::Write { content, .. }) => u64::try_from(content.len()).ok(),
        ToolRequest::Files(_) | ToolRequest::Bash { .. } | ToolRequest::Web(_) => None,
    };
    About { text, size }
}

/// The conversation a page is kept for, as main claims it: what one fetched is not in the answer to another.
pub(super) fn conversation(origin: &Origin) -> String {
    let part = |text: &str| capped(text, MAX_CLAIM).replace('\n', " ");
    format!("{}\n{}\n{}", part(&origin.channel), part(&origin.session), part(&origin.who))
}

pub(super) fn fetch_work(asked: WebRequest, conversation: &str, allow: &[String]) -> FetchWork {
    match asked {
        WebRequest::Get { url, offset } => {
            FetchWork::Get { url, offset, conversation: conversation.to_owned(), allow: allow.to_vec() }
        }
        WebRequest::Search { query, count } => FetchWork::Search { query, count },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_can_shorten_its_deadline_and_not_lengthen_it() {
        let minute = Duration::from_secs(60);
        assert_eq!(narrowed(minute, None), minute);
        assert_eq!(narrowed(minute, Some(5)), Duration::from_millis(5));
        assert_eq!(narrowed(minute, Some(u64::MAX)), minute);
    }
}
