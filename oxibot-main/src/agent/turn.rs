//! A turn as a pure state machine: events in, effects out. No clock, no socket, no model.
//!
//! It starts with a person's message and ends exactly once, with [`Effect::Finish`]. What it promises, and what its
//! tests try to break: a call is announced to the journal before it runs and runs at most once; each call of a reply is
//! answered, in the order of the calls; budgets of rounds, tokens and time hold; a provider's error ends the turn and
//! never becomes part of the conversation. It does not judge calls: it answers only those that cannot be sent.

mod checks;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
mod vocabulary;
#[cfg(test)]
pub(crate) use properties::assert_paired;

use std::collections::BTreeSet;
use std::time::Duration;

use super::hands::{CallEnding, MindFault};
use super::transcript::{Transcript, calls_of, not_run, unknown_outcome};
use super::untrusted::Boundary;
use crate::model::{ModelReply, Part, StopReason, TokenUsage, ToolAnswer, ToolCall};
use crate::store::{Ending, Entry};
pub use vocabulary::{Budget, CallKey, CallRecord, Effect, Event, Finished, Setting, Show};

use checks::{Failures, unique_ids, unsendable};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Asking,
    Calling,
    /// Calls were cancelled; the turn ends when they have answered or the grace is over.
    Stopping {
        ending: Ending,
        since: Duration,
    },
    Done,
}

#[derive(Debug)]
struct Slot {
    key: CallKey,
    call: ToolCall,
    /// Position in `records`.
    record: usize,
}

/// One turn.
#[derive(Debug)]
pub struct Turn {
    setting: Setting,
    state: State,
    transcript: Transcript,
    running: Vec<Slot>,
    records: Vec<CallRecord>,
    ids: BTreeSet<String>,
    failures: Failures,
    /// Requests made; each may lead to one round of calls.
    asked: u32,
    usage: TokenUsage,
    reply: String,
    /// Whole answers given before a message that came meanwhile was answered too.
    answers: Vec<String>,
    /// Replies with nothing in them, one after another.
    empty: u32,
    /// The model was told that its rounds are used up.
    last_words: bool,
    /// Messages came that the model has not seen.
    unseen: bool,
}

/// Replies with nothing in them that are asked again.
const EMPTY_REPLIES: u32 = 1;

impl Turn {
    /// A turn that waits for [`Event::Start`].
    #[must_use]
    pub fn new(setting: Setting) -> Self {
        let ids = setting.known_ids.clone();
        Self {
            setting,
            state: State::Ready,
            transcript: Transcript::default(),
            running: Vec::new(),
            records: Vec::new(),
            ids,
            failures: Failures::default(),
            asked: 0,
            usage: TokenUsage::default(),
            reply: String::new(),
            answers: Vec::new(),
            empty: 0,
            last_words: false,
            unseen: false,
        }
    }

    /// When the next [`Event::Tick`] is needed, counted from the beginning of the turn.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Ready | State::Done => None,
            State::Asking | State::Calling => Some(self.setting.budget.wall),
            State::Stopping { since, .. } => Some(since.saturating_add(self.setting.budget.stop_grace)),
        }
    }

    /// Takes an event that happened `elapsed` after the turn began. Events that make no sense now change nothing.
    pub fn handle(&mut self, event: Event, elapsed: Duration) -> Vec<Effect> {
        let mut out = Vec::new();
        match (self.state, event) {
            (State::Ready, Event::Start(message)) => {
                let model = self.setting.model.clone();
                self.persist(&mut out, Entry::TurnStarted { message, model });
                self.ask(&mut out);
            }
            (State::Asking, Event::ModelReplied(reply, estimate)) => self.replied(&mut out, reply, estimate),
            (State::Asking, Event::ModelFailed(fault)) => {
                self.finish(&mut out, Ending::ProviderFailed, Some(fault));
            }
            (State::Asking, Event::Cancel) => {
                out.push(Effect::AbandonModel);
                self.finish(&mut out, Ending::Cancelled, None);
            }
            (State::Calling, Event::ToolFinished(key, ending)) => {
                if self.tool_finished(&mut out, key, ending) && self.running.is_empty() {
                    self.after_calls(&mut out);
                }
            }
            (State::Stopping { ending, .. }, Event::ToolFinished(key, result)) => {
                if self.tool_finished(&mut out, key, result) && self.running.is_empty() {
                    self.finish(&mut out, ending, None);
                }
            }
            (State::Calling, Event::Cancel) => self.stop(&mut out, Ending::Cancelled, elapsed),
            // Said twice: do not wait for the calls any longer.
            (State::Stopping { ending, .. }, Event::Cancel) => self.give_up(&mut out, ending),
            (State::Asking | State::Calling, Event::Message(message)) => {
                self.unseen = true;
                self.persist(&mut out, Entry::MessageArrived { message });
            }
            (State::Asking | State::Calling | State::Stopping { .. }, Event::Tick) => {}
            (State::Ready | State::Stopping { .. }, Event::Message(_))
            | (State::Asking | State::Calling | State::Stopping { .. }, Event::Start(_))
            | (State::Ready | State::Calling | State::Stopping { .. }, Event::ModelReplied(..))
            | (State::Ready | State::Calling | State::Stopping { .. }, Event::ModelFailed(_))
            | (State::Ready | State::Asking, Event::ToolFinished(..))
            | (State::Ready, Event::Cancel | Event::Tick)
            | (State::Done, _) => {}
        }
        self.watch_the_clock(&mut out, elapsed);
        out
    }

    fn watch_the_clock(&mut self, out: &mut Vec<Effect>, elapsed: Duration) {
        if self.deadline().is_none_or(|deadline| elapsed < deadline) {
            return;
        }
        match self.state {
            State::Asking => {
                out.push(Effect::AbandonModel);
                self.finish(out, Ending::Time, None);
            }
            State::Calling => self.stop(out, Ending::Time, elapsed),
            State::Stopping { ending, .. } => self.give_up(out, ending),
            State::Ready | State::Done => {}
        }
    }

    fn replied(&mut self, out: &mut Vec<Effect>, reply: ModelReply, estimate: u64) {
        add(&mut self.usage, reply.usage);
        let ModelReply { mut parts, stop, usage } = reply;
        unique_ids(&mut parts, &mut self.ids, self.asked);
        let calls = calls_of(&parts, stop);
        let text = joined_text(&parts);
        let model = self.setting.model.clone();
        self.persist(out, Entry::Replied { model, parts, stop, usage, estimate });
        if !text.trim().is_empty() {
            self.reply = text.clone();
        }
        if stop == StopReason::Refusal {
            self.finish(out, Ending::Refused, None);
        } else if !calls.is_empty() {
            self.empty = 0;
            self.begin_calls(out, calls, stop);
        } else if text.trim().is_empty() {
            self.empty_reply(out);
        } else if self.unseen && self.may_ask() {
            self.answers.push(std::mem::take(&mut self.reply));
            self.ask(out);
        } else if stop == StopReason::Length {
            self.finish(out, Ending::CutShort, None);
        } else {
            self.finish(out, Ending::Answered, None);
        }
    }

    fn empty_reply(&mut self, out: &mut Vec<Effect>) {
        self.empty += 1;
        if self.empty > EMPTY_REPLIES || !self.may_ask() {
            self.finish(out, Ending::Empty, None);
            return;
        }
        let text = "your last reply was empty; answer the user, or call a tool".to_owned();
        self.persist(out, Entry::Noted { text });
        self.ask(out);
    }

    /// Announces and starts what may run; answers at once what may not.
    fn begin_calls(&mut self, out: &mut Vec<Effect>, calls: Vec<ToolCall>, stop: StopReason) {
        let spent = self.tokens_spent();
        let used_up = self.asked > self.setting.budget.tool_rounds;
        let last = calls.len().saturating_sub(1);
        let mut starts = Vec::new();
        for (index, call) in calls.into_iter().enumerate() {
            let refusal = if spent {
                Some("the turn has used its tokens".to_owned())
            } else if used_up {
                Some("the turn has used its rounds of tool calls".to_owned())
            } else if stop == StopReason::Length && index == last {
                Some("your reply was cut at its length limit, so this call may be incomplete; write less at once".to_owned())
            } else {
                unsendable(&call, &self.setting.tools).or_else(|| self.failures.refuse(&call))
            };
            if let Some(why) = refusal {
                self.record(&call, "not_run");
                out.push(Effect::Show(Show::ToolEnded {
                    name: call.name.clone(),
                    outcome: "not_run".to_owned(),
                    summary: why.clone(),
                }));
                let answer = not_run(&call, &why);
                self.persist(out, Entry::CallEnded { answer, outcome: "not_run".to_owned() });
                continue;
            }
            self.persist(out, Entry::CallBegun { call: call.clone() });
            let record = self.record(&call, "unknown");
            let key = CallKey { round: self.asked, index };
            starts.push(Effect::Show(Show::ToolBegun {
                name: call.name.clone(),
                arguments: call.arguments.clone(),
            }));
            starts.push(Effect::RunTool(key, call.clone()));
            self.running.push(Slot { key, call, record });
        }
        out.append(&mut starts);
        if spent {
            self.finish(out, Ending::Tokens, None);
        } else if used_up && (self.last_words || !self.may_ask()) {
            self.finish(out, Ending::Iterations, None);
        } else if used_up {
            self.last_words = true;
            let text =
                "no more tools in this turn; tell the user what you have and what is left to do".to_owned();
            self.persist(out, Entry::Noted { text });
            self.ask(out);
        } else if self.failures.stuck() && self.running.is_empty() {
            self.finish(out, Ending::Stuck, None);
        } else if self.running.is_empty() {
            self.after_calls(out);
        } else {
            self.state = State::Calling;
        }
    }

    fn after_calls(&mut self, out: &mut Vec<Effect>) {
        if self.tokens_spent() { self.finish(out, Ending::Tokens, None) } else { self.ask(out) }
    }

    /// `false` when there is no such running call.
    fn tool_finished(&mut self, out: &mut Vec<Effect>, key: CallKey, ending: CallEnding) -> bool {
        let Some(position) = self.running.iter().position(|slot| slot.key == key) else { return false };
        let slot = self.running.remove(position);
        self.failures.note(&slot.call, ending.is_error());
        if let Some(record) = self.records.get_mut(slot.record) {
            record.outcome.clone_from(&ending.outcome);
            record.call_id.clone_from(&ending.call_id);
            record.exit_code = ending.exit_code;
        }
        out.push(Effect::Show(Show::ToolEnded {
            name: slot.call.name.clone(),
            outcome: ending.outcome.clone(),
            summary: ending.summary.clone(),
        }));
        let answer = answer(&slot.call, &ending, &self.setting.boundary);
        self.persist(out, Entry::CallEnded { answer, outcome: ending.outcome });
        true
    }

    fn stop(&mut self, out: &mut Vec<Effect>, ending: Ending, elapsed: Duration) {
        out.push(Effect::CancelTools);
        self.state = State::Stopping { ending, since: elapsed };
    }

    fn give_up(&mut self, out: &mut Vec<Effect>, ending: Ending) {
        for slot in std::mem::take(&mut self.running) {
            let answer = unknown_outcome(&slot.call);
            out.push(Effect::Show(Show::ToolEnded {
                name: slot.call.name.clone(),
                outcome: "unknown".to_owned(),
                summary: "no result came; it may have taken effect".to_owned(),
            }));
            self.persist(out, Entry::CallEnded { answer, outcome: "unknown".to_owned() });
        }
        self.finish(out, ending, None);
    }

    fn ask(&mut self, out: &mut Vec<Effect>) {
        self.asked = self.asked.saturating_add(1);
        self.unseen = false;
        self.persist(out, Entry::Asked { round: self.asked });
        out.push(Effect::AskModel(self.transcript.messages()));
        self.state = State::Asking;
    }

    /// Requests that are no round of tool calls (an empty reply, a message that came) count too: else a model and a
    /// person, or a model alone, could go on for ever.
    fn may_ask(&self) -> bool {
        self.asked < self.setting.budget.tool_rounds.saturating_add(2) && !self.tokens_spent()
    }

    fn tokens_spent(&self) -> bool {
        let spent = self.usage.input.saturating_add(self.usage.output);
        self.setting.budget.tokens.is_some_and(|budget| spent >= budget)
    }

    fn finish(&mut self, out: &mut Vec<Effect>, ending: Ending, fault: Option<MindFault>) {
        self.persist(out, Entry::TurnEnded { ending });
        self.state = State::Done;
        let mut answers = std::mem::take(&mut self.answers);
        answers.push(std::mem::take(&mut self.reply));
        answers.retain(|answer| !answer.trim().is_empty());
        out.push(Effect::Finish(Finished {
            ending,
            reply: answers.join("\n\n"),
            usage: self.usage,
            calls: std::mem::take(&mut self.records),
            fault,
        }));
    }

    fn persist(&mut self, out: &mut Vec<Effect>, entry: Entry) {
        self.transcript.apply(&entry);
        out.push(Effect::Persist(entry));
    }

    fn record(&mut self, call: &ToolCall, outcome: &str) -> usize {
        self.records.push(CallRecord {
            name: call.name.clone(),
            arguments: call.arguments.clone(),
            outcome: outcome.to_owned(),
            call_id: None,
            exit_code: None,
        });
        self.records.len() - 1
    }
}

/// What the model is told of a call: our words first, the untrusted output delimited after them.
fn answer(call: &ToolCall, ending: &CallEnding, boundary: &Boundary) -> ToolAnswer {
    let mut text = ending.summary.clone();
    if !ending.output.is_empty() {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&boundary.wrap("tool output", &ending.output));
    }
    if !ending.wall.is_empty() {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(ending.wall.trim_end());
    }
    if text.is_empty() {
        text = format!("outcome: {}, no output", ending.outcome);
    }
    ToolAnswer { id: call.id.clone(), name: call.name.clone(), text, is_error: ending.is_error() }
}

fn joined_text(parts: &[Part]) -> String {
    parts
        .iter()
        .filter_map(|part| match part {
            Part::Text { text } => Some(text.as_str()),
            Part::Image { .. } | Part::Reasoning(_) | Part::ToolCall(_) | Part::ToolResult(_) => None,
        })
        .collect()
}

fn add(sum: &mut TokenUsage, more: TokenUsage) {
    sum.input = sum.input.saturating_add(more.input);
    sum.output = sum.output.saturating_add(more.output);
    sum.cache_read = sum.cache_read.saturating_add(more.cache_read);
    sum.cache_write = sum.cache_write.saturating_add(more.cache_write);
    if let Some(cost) = more.cost_microusd {
        sum.cost_microusd = Some(sum.cost_microusd.unwrap_or(0).saturating_add(cost));
    }
}
