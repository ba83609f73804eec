//! Watches a turn for a chat: which call runs, what was refused. It shows nothing itself; the worker asks it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::office::Office;
use super::words;
use crate::agent::hands::CallProgress;
use crate::agent::runner::Audience;
use crate::agent::turn::{CallKey, Show};

/// A call is worth a word after this long.
const WORTH: Duration = Duration::from_secs(3);
/// Refusals told of in one answer.
const MOST: usize = 5;

/// What was seen.
pub(super) struct Watcher<'a> {
    office: &'a Office,
    conversation: &'a str,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    running: BTreeMap<CallKey, (String, CallProgress)>,
    refusals: Vec<String>,
    unsaid: usize,
}

impl<'a> Watcher<'a> {
    pub(super) fn new(office: &'a Office, conversation: &'a str) -> Self {
        Self { office, conversation, seen: Mutex::new(Seen::default()) }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be said of the call that runs longest, if it runs long.
    pub(super) fn running(&self) -> Option<String> {
        let seen = self.seen();
        let (tool, progress) = seen
            .running
            .values()
            .filter(|(_, progress)| progress.elapsed >= WORTH)
            .max_by_key(|(_, p)| p.elapsed)?;
        Some(words::running(tool, progress.elapsed, progress.deadline))
    }

    /// What was refused, a line each.
    pub(super) fn refusals(&self) -> String {
        let seen = self.seen();
        let mut text = seen.refusals.join("\n");
        if seen.unsaid > 0 {
            text.push_str(&format!("\nand {} more refusals", seen.unsaid));
        }
        text
    }
}

impl Audience for Watcher<'_> {
    fn text(&self, _delta: &str) {}

    fn restarted(&self) {}

    fn reply_ended(&self) {}

    fn show(&self, show: &Show) {
        match show {
            Show::ToolBegun { name, .. } => {
                tracing::info!(
                    target: "oxibot_agent", event = "tool_call", tool = %name, conversation = %self.conversation,
                    "tool_call: {name}"
                );
            }
            Show::ToolEnded { name, outcome, summary } => {
                self.office.figures.calls.add();
                tracing::info!(
                    target: "oxibot_agent", event = "tool_result", tool = %name, outcome = %outcome,
                    conversation = %self.conversation, "tool_result"
                );
                let mut seen = self.seen();
                seen.running.retain(|_, (tool, _)| tool != name);
                if let Some(refusal) = words::refusal(name, outcome, summary) {
                    self.office.figures.calls_refused.add();
                    if seen.refusals.len() < MOST {
                        seen.refusals.push(refusal);
                    } else {
                        seen.unsaid += 1;
                    }
                }
            }
            Show::Note(_) => {}
        }
    }

    fn progress(&self, key: CallKey, tool: &str, progress: CallProgress) {
        self.seen().running.insert(key, (tool.to_owned(), progress));
    }
}
