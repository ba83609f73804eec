//! What the model is shown of one turn, read from the turn's journal entries.
//!
//! The running turn and the history after a restart use this same reading, so a model cannot be told two stories. It is
//! pure, total over any order of entries, and never shows a call without a result or a result without its call.

use std::collections::BTreeMap;

use crate::model::{Message, Part, Role, StopReason, ToolAnswer, ToolCall};
use crate::store::{Ending, Entry};

/// The reading of one turn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transcript {
    messages: Vec<Message>,
    /// Calls of the last reply, in the order the model wrote them.
    open: Vec<ToolCall>,
    begun: Vec<String>,
    answers: BTreeMap<String, ToolAnswer>,
    /// What waits to be said to the model with its next request.
    pending: Vec<Message>,
    ending: Option<Ending>,
    taken_back: bool,
}

impl Transcript {
    /// Takes the next entry of the turn.
    pub fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::TurnStarted { message, .. } => self.messages.push(message.clone()),
            Entry::Asked { .. } => self.flush(),
            Entry::Replied { parts, stop, .. } => {
                // A message that came while the model wrote stays pending: the reply does not answer it.
                self.close_calls();
                let calls: Vec<ToolCall> = calls_of(parts, *stop);
                if calls.is_empty() && !parts.iter().any(says_something) {
                    return;
                }
                if *stop == StopReason::Refusal {
                    return;
                }
                self.messages.push(Message { role: Role::Assistant, parts: parts.clone() });
                self.open = calls;
            }
            Entry::CallBegun { call } => self.begun.push(call.id.clone()),
            Entry::CallEnded { answer, .. } => {
                self.answers.insert(answer.id.clone(), answer.clone());
            }
            Entry::MessageArrived { message } => self.pending.push(message.clone()),
            Entry::Noted { text } => self.pending.push(note(text)),
            Entry::TurnEnded { ending } => {
                self.flush();
                self.ending = Some(*ending);
                if let Some(text) = told(*ending) {
                    self.messages.push(note(text));
                }
            }
            Entry::TakenBack { .. } => self.taken_back = true,
            Entry::Summarised { .. } => {}
        }
    }

    /// The messages so far; every call has a result, be it that its outcome is unknown.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        if self.taken_back {
            return Vec::new();
        }
        let mut whole = self.clone();
        whole.flush();
        whole.messages
    }

    /// How the turn ended, if it did.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Entries that close a turn whose process died: unknown outcomes, then the end. Empty when it had ended.
    #[must_use]
    pub fn recover(&self) -> Vec<Entry> {
        if self.ending.is_some() || self.messages.is_empty() {
            return Vec::new();
        }
        let mut entries: Vec<Entry> = self.unanswered().map(|(call, begun)| missing(call, begun)).collect();
        entries.push(Entry::TurnEnded { ending: Ending::Interrupted });
        entries
    }

    /// Calls that began and have no answer.
    #[must_use]
    pub fn unknown(&self) -> Vec<ToolCall> {
        self.unanswered().filter(|(_, begun)| *begun).map(|(call, _)| call.clone()).collect()
    }

    fn unanswered(&self) -> impl Iterator<Item = (&ToolCall, bool)> {
        self.open
            .iter()
            .filter(|call| !self.answers.contains_key(&call.id))
            .map(|call| (call, self.begun.contains(&call.id)))
    }

    fn flush(&mut self) {
        self.close_calls();
        self.messages.append(&mut self.pending);
    }

    /// Closes the open calls with one message of results in the order of the calls.
    fn close_calls(&mut self) {
        if !self.open.is_empty() {
            let mut parts = Vec::with_capacity(self.open.len());
            for call in std::mem::take(&mut self.open) {
                let answer = self.answers.remove(&call.id).unwrap_or_else(|| {
                    let begun = self.begun.contains(&call.id);
                    if begun { unknown_outcome(&call) } else { not_run(&call, NEVER_BEGAN) }
                });
                parts.push(Part::ToolResult(answer));
            }
            self.messages.push(Message { role: Role::Tool, parts });
        }
        self.answers.clear();
    }
}

const NEVER_BEGAN: &str = "OxiBot ended before this call began";

/// The calls of a reply that are to be answered. A refusal's are not: nothing the vendor stopped is carried out.
#[must_use]
pub fn calls_of(parts: &[Part], stop: StopReason) -> Vec<ToolCall> {
    if stop == StopReason::Refusal {
        return Vec::new();
    }
    parts
        .iter()
        .filter_map(|part| match part {
            Part::ToolCall(call) => Some(call.clone()),
            Part::Text { .. } | Part::Image { .. } | Part::Reasoning(_) | Part::ToolResult(_) => None,
        })
        .collect()
}

/// Whether a part is worth a message of its own. Reasoning alone is not: vendors refuse such a message.
fn says_something(part: &Part) -> bool {
    match part {
        Part::Text { text } => !text.trim().is_empty(),
        Part::Image { .. } | Part::ToolCall(_) => true,
        Part::Reasoning(_) | Part::ToolResult(_) => false,
    }
}

/// The answer to a call that was not run, and why.
#[must_use]
pub fn not_run(call: &ToolCall, why: &str) -> ToolAnswer {
    ToolAnswer {
        id: call.id.clone(),
        name: call.name.clone(),
        text: format!("not run: {why}"),
        is_error: true,
    }
}

/// The answer to a call that began and whose end nobody saw.
#[must_use]
pub fn unknown_outcome(call: &ToolCall) -> ToolAnswer {
    ToolAnswer {
        id: call.id.clone(),
        name: call.name.clone(),
        text: "unknown outcome: the call began and was cut off before its result arrived. It may have taken \
               effect, in part or in whole. It was not run again. Look at the state of things before you \
               repeat it."
            .to_owned(),
        is_error: true,
    }
}

fn missing(call: &ToolCall, begun: bool) -> Entry {
    if begun {
        Entry::CallEnded { answer: unknown_outcome(call), outcome: "unknown".to_owned() }
    } else {
        Entry::CallEnded { answer: not_run(call, NEVER_BEGAN), outcome: "not_run".to_owned() }
    }
}

/// What OxiBot itself says to the model, marked as such.
fn note(text: &str) -> Message {
    Message::text(Role::User, format!("[note of OxiBot, not of the user: {text}]"))
}

/// What the model is told of an ending in which it did not have the last word.
fn told(ending: Ending) -> Option<&'static str> {
    match ending {
        Ending::Answered | Ending::CutShort => None,
        Ending::Refused | Ending::Empty => Some("this message was not answered"),
        Ending::Iterations => Some("the turn ended here: it had used its rounds of tool calls"),
        Ending::Tokens => Some("the turn ended here: it had used its tokens"),
        Ending::Time => Some("the turn ended here: its time was up"),
        Ending::Stuck => Some("the turn ended here: the same call kept failing"),
        Ending::Cancelled => Some("the user cancelled the turn here"),
        Ending::ProviderFailed => Some("the turn ended here without an answer, for a technical reason"),
        Ending::Interrupted => Some("OxiBot was ended here, in the middle of the turn"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TokenUsage;

    fn call(id: &str) -> ToolCall {
        ToolCall { id: id.to_owned(), name: "bash".to_owned(), arguments: "{}".to_owned() }
    }

    fn replied(parts: Vec<Part>, stop: StopReason) -> Entry {
        Entry::Replied { model: "m".to_owned(), parts, stop, usage: TokenUsage::default(), estimate: 0 }
    }

    fn begun_turn() -> Transcript {
        let mut transcript = Transcript::default();
        transcript
            .apply(&Entry::TurnStarted { message: Message::text(Role::User, "hi"), model: "m".to_owned() });
        transcript
    }

    fn answer(id: &str) -> Entry {
        let answer = ToolAnswer {
            id: id.to_owned(),
            name: "bash".to_owned(),
            text: format!("did {id}"),
            is_error: false,
        };
        Entry::CallEnded { answer, outcome: "completed".to_owned() }
    }

    #[test]
    fn results_stand_in_the_order_of_the_calls() {
        let mut transcript = begun_turn();
        transcript
            .apply(&replied(vec![Part::ToolCall(call("a")), Part::ToolCall(call("b"))], StopReason::ToolUse));
        transcript.apply(&answer("b"));
        transcript.apply(&answer("a"));
        let messages = transcript.messages();
        let ids: Vec<_> = messages[2]
            .parts
            .iter()
            .map(|part| if let Part::ToolResult(answer) = part { answer.id.as_str() } else { "?" })
            .collect();
        assert_eq!(ids, ["a", "b"]);
    }

    #[test]
    fn killed_turn_has_unknown_outcome_only_for_calls_that_began() {
        let mut transcript = begun_turn();
        transcript
            .apply(&replied(vec![Part::ToolCall(call("a")), Part::ToolCall(call("b"))], StopReason::ToolUse));
        transcript.apply(&Entry::CallBegun { call: call("a") });
        assert_eq!(transcript.unknown(), vec![call("a")]);
        let entries = transcript.recover();
        let outcomes: Vec<_> = entries
            .iter()
            .filter_map(|entry| {
                if let Entry::CallEnded { outcome, .. } = entry {
                    return Some(outcome.as_str());
                }
                if let Entry::TurnEnded { ending } = entry { Some(ending.name()) } else { None }
            })
            .collect();
        assert_eq!(outcomes, ["unknown", "not_run", "interrupted"]);
        for entry in &entries {
            transcript.apply(entry);
        }
        assert!(transcript.recover().is_empty(), "recovery happens once");
    }

    #[test]
    fn refused_and_empty_replies_leave_no_assistant_message() {
        for (parts, stop) in [
            (vec![], StopReason::EndTurn),
            (vec![Part::Text { text: "  ".to_owned() }], StopReason::EndTurn),
            (vec![Part::Text { text: "I".to_owned() }, Part::ToolCall(call("a"))], StopReason::Refusal),
        ] {
            let mut transcript = begun_turn();
            transcript.apply(&replied(parts, stop));
            assert_eq!(transcript.messages().len(), 1);
        }
    }

    #[test]
    fn taken_back_turn_is_not_shown() {
        let mut transcript = begun_turn();
        transcript.apply(&Entry::TakenBack { turn: 1 });
        assert!(transcript.messages().is_empty());
    }
}
