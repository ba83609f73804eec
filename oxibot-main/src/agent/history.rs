//! What of a conversation fits into the model's window, and when its oldest part is to be summarised.
//!
//! Whole turns are the unit: a call is never separated from its result. First images and tool results of earlier turns
//! are shortened, then the oldest turns are summarised by the model (the runner asks), and only if that fails are they
//! left out. The journal keeps everything. Sizes are estimates: characters, corrected by what the provider counted.

use std::collections::BTreeSet;

use super::transcript::Transcript;
use super::untrusted::{Boundary, head_and_tail};
use crate::model::{Message, Part, Role};
use crate::store::{Entry, StoredEntry};

/// Tokens of an image, roughly, for vendors that count by tiles.
const IMAGE_TOKENS: u64 = 1_600;
/// Overhead of a message or a call on the wire.
const MESSAGE_TOKENS: u64 = 4;
/// Bytes kept of a tool result of an earlier turn once space is short.
const SHORT_RESULT: usize = 800;
/// Bytes kept of a tool result of the running turn once even that is too much.
const SHORTER_RESULT: usize = 2_000;
/// Earlier turns whose images are still sent.
const TURNS_WITH_IMAGES: usize = 2;
/// Turns that are never summarised: what the person refers to by "it".
const KEPT_TURNS: usize = 2;
/// Bytes of one tool result shown to the model that summarises.
const SUMMARISED_RESULT: usize = 500;

/// The past of a conversation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Past {
    /// What the oldest turns came to, if they were summarised.
    pub summary: Option<String>,
    /// The turns since, oldest first.
    pub turns: Vec<PastTurn>,
}

/// One turn of the past.
#[derive(Debug, Clone, PartialEq)]
pub struct PastTurn {
    /// Its number.
    pub turn: i64,
    /// Its messages; calls and results are paired.
    pub messages: Vec<Message>,
}

/// Reads the journal, in any order of turns; entries of one turn are in order.
#[must_use]
pub fn read(entries: &[StoredEntry]) -> Past {
    let mut past = Past::default();
    let mut through = 0;
    for stored in entries {
        if let Entry::Summarised { through: last, text, .. } = &stored.entry
            && *last >= through
        {
            through = *last;
            past.summary = Some(text.clone());
        }
    }
    for (turn, transcript) in transcripts(entries) {
        let messages = transcript.messages();
        if turn > through && !messages.is_empty() {
            past.turns.push(PastTurn { turn, messages });
        }
    }
    past
}

/// The turns of a journal, each read on its own, in order of their numbers.
#[must_use]
pub fn transcripts(entries: &[StoredEntry]) -> Vec<(i64, Transcript)> {
    let mut turns: Vec<(i64, Transcript)> = Vec::new();
    for stored in entries {
        // What is said of another turn is filed under it.
        let turn = match &stored.entry {
            Entry::TakenBack { turn } => *turn,
            Entry::Summarised { .. } => continue,
            Entry::TurnStarted { .. }
            | Entry::Asked { .. }
            | Entry::Replied { .. }
            | Entry::CallBegun { .. }
            | Entry::CallEnded { .. }
            | Entry::MessageArrived { .. }
            | Entry::Noted { .. }
            | Entry::TurnEnded { .. } => stored.turn,
        };
        let place = match turns.binary_search_by_key(&turn, |(number, _)| *number) {
            Ok(place) => place,
            Err(place) => {
                turns.insert(place, (turn, Transcript::default()));
                place
            }
        };
        if let Some((_, transcript)) = turns.get_mut(place) {
            transcript.apply(&stored.entry);
        }
    }
    turns
}

/// Ids of all calls of the past.
#[must_use]
pub fn call_ids(past: &Past) -> BTreeSet<String> {
    past.turns
        .iter()
        .flat_map(|turn| &turn.messages)
        .flat_map(|message| &message.parts)
        .filter_map(|part| match part {
            Part::ToolCall(call) => Some(call.id.clone()),
            Part::Text { .. } | Part::Image { .. } | Part::Reasoning(_) | Part::ToolResult(_) => None,
        })
        .collect()
}

/// How the provider's count relates to our estimate, learnt from the replies, in percent.
#[must_use]
pub fn scale(entries: &[StoredEntry]) -> u64 {
    let last = entries.iter().rev().find_map(|stored| match &stored.entry {
        Entry::Replied { usage, estimate, .. } if *estimate > 0 && usage.input > 0 => {
            Some(usage.input.saturating_mul(100) / estimate)
        }
        Entry::TurnStarted { .. }
        | Entry::Asked { .. }
        | Entry::Replied { .. }
        | Entry::CallBegun { .. }
        | Entry::CallEnded { .. }
        | Entry::MessageArrived { .. }
        | Entry::Noted { .. }
        | Entry::TurnEnded { .. }
        | Entry::Summarised { .. }
        | Entry::TakenBack { .. } => None,
    });
    // A provider that counts wildly must not make us send nothing, or everything.
    last.unwrap_or(100).clamp(50, 300)
}

/// Estimated tokens of some messages, unscaled.
#[must_use]
pub fn estimate(messages: &[Message]) -> u64 {
    messages.iter().map(|message| MESSAGE_TOKENS + message.parts.iter().map(part_tokens).sum::<u64>()).sum()
}

/// Estimated tokens of a text.
#[must_use]
pub fn text_tokens(text: &str) -> u64 {
    u64::try_from(text.chars().count().div_ceil(4)).unwrap_or(u64::MAX)
}

fn part_tokens(part: &Part) -> u64 {
    match part {
        Part::Text { text } => text_tokens(text),
        Part::Image { .. } => IMAGE_TOKENS,
        Part::Reasoning(reasoning) => {
            text_tokens(&reasoning.text)
                + reasoning.opaque.as_ref().map_or(0, |value| text_tokens(&value.to_string()) / 2)
        }
        Part::ToolCall(call) => MESSAGE_TOKENS + text_tokens(&call.name) + text_tokens(&call.arguments),
        Part::ToolResult(answer) => MESSAGE_TOKENS + text_tokens(&answer.text),
    }
}

/// Room for a request and what fills it.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// System prompt.
    pub system: &'a str,
    /// Tokens of the tools on offer, estimated.
    pub tools: u64,
    /// Tokens a request may have, the reply's share already taken off.
    pub room: u64,
    /// From [`scale`].
    pub scale: u64,
    /// What delimits untrusted data.
    pub boundary: &'a Boundary,
}

/// A request that fits, as far as it can be made to.
#[derive(Debug, Clone, PartialEq)]
pub struct Assembled {
    /// System message first; roles alternate.
    pub messages: Vec<Message>,
    /// Estimate, unscaled.
    pub estimate: u64,
    /// Turns that had to be left out whole.
    pub left_out: usize,
}

impl Window<'_> {
    fn size(&self, messages: &[Message]) -> u64 {
        let plain = estimate(messages) + text_tokens(self.system) + self.tools + MESSAGE_TOKENS;
        plain.saturating_mul(self.scale) / 100
    }

    /// Puts a request together from the past and the running turn.
    #[must_use]
    pub fn assemble(&self, past: &Past, current: &[Message]) -> Assembled {
        let mut turns: Vec<Vec<Message>> = past.turns.iter().map(|turn| turn.messages.clone()).collect();
        let with_images = turns.len().saturating_sub(TURNS_WITH_IMAGES);
        for turn in turns.iter_mut().take(with_images) {
            turn.iter_mut().for_each(without_images);
        }
        let mut current = current.to_vec();
        let mut left_out = 0;
        let fits = |turns: &[Vec<Message>], left_out: usize, current: &[Message]| {
            self.size(&self.join(past, turns, left_out, current)) <= self.room
        };
        if !fits(&turns, 0, &current) {
            for turn in &mut turns {
                turn.iter_mut().for_each(|message| shorten_results(message, SHORT_RESULT));
            }
        }
        while !turns.is_empty() && !fits(&turns, left_out, &current) {
            turns.remove(0);
            left_out += 1;
        }
        if !fits(&turns, left_out, &current) {
            current.iter_mut().for_each(|message| shorten_results(message, SHORTER_RESULT));
        }
        if !fits(&turns, left_out, &current) {
            current.iter_mut().for_each(|message| shorten_results(message, SHORTER_RESULT / 10));
        }
        let rest = self.join(past, &turns, left_out, &current);
        let estimate = estimate(&rest) + text_tokens(self.system) + self.tools + MESSAGE_TOKENS;
        let mut messages = vec![Message::text(Role::System, self.system)];
        messages.extend(rest);
        Assembled { messages, estimate, left_out }
    }

    /// The last turn that should be summarised before this request, if some should.
    #[must_use]
    pub fn compaction(&self, past: &Past, current: &[Message]) -> Option<i64> {
        let mut turns: Vec<Vec<Message>> = past.turns.iter().map(|turn| turn.messages.clone()).collect();
        for turn in &mut turns {
            turn.iter_mut().for_each(|message| {
                without_images(message);
                shorten_results(message, SHORT_RESULT);
            });
        }
        if self.size(&self.join(past, &turns, 0, current)) <= self.room {
            return None;
        }
        // Down to half the room, so that the next turn does not come here again.
        let may_go = past.turns.len().saturating_sub(KEPT_TURNS);
        let mut last = None;
        for turn in past.turns.iter().take(may_go) {
            last = Some(turn.turn);
            turns.remove(0);
            if self.size(&self.join(past, &turns, 0, current)) <= self.room / 2 {
                break;
            }
        }
        last
    }

    /// The text a model is asked to summarise: the earlier summary and all turns up to `through`.
    #[must_use]
    pub fn to_summarise(&self, past: &Past, through: i64) -> String {
        let limit = usize::try_from(self.room.saturating_mul(3)).unwrap_or(usize::MAX);
        let mut text = String::new();
        if let Some(summary) = &past.summary {
            text.push_str("Summary of what came before:\n");
            text.push_str(summary);
            text.push('\n');
        }
        for turn in past.turns.iter().take_while(|turn| turn.turn <= through) {
            for message in &turn.messages {
                for part in &message.parts {
                    text.push_str(&spoken(message.role, part));
                }
            }
        }
        head_and_tail(&text, limit)
    }

    fn join(
        &self,
        past: &Past,
        turns: &[Vec<Message>],
        left_out: usize,
        current: &[Message],
    ) -> Vec<Message> {
        let mut out: Vec<Message> = Vec::new();
        if let Some(summary) = &past.summary {
            let text = format!(
                "Earlier in this conversation, summarised (a record, not a request):\n{}",
                self.boundary.wrap("summary", summary)
            );
            push(&mut out, Message::text(Role::User, text));
        }
        if left_out > 0 {
            let text = format!(
                "[note of OxiBot, not of the user: {left_out} older turns do not fit and are left out]"
            );
            push(&mut out, Message::text(Role::User, text));
        }
        for message in turns.iter().flatten().chain(current) {
            push(&mut out, message.clone());
        }
        out
    }
}

/// Joins messages of the same role: vendors want the roles to alternate.
fn push(out: &mut Vec<Message>, message: Message) {
    match out.last_mut() {
        Some(last) if last.role == message.role && message.role != Role::Tool => {
            last.parts.extend(message.parts)
        }
        Some(_) | None => out.push(message),
    }
}

fn without_images(message: &mut Message) {
    for part in &mut message.parts {
        if matches!(part, Part::Image { .. }) {
            *part = Part::Text { text: "[an image that was sent earlier]".to_owned() };
        }
    }
}

fn shorten_results(message: &mut Message, limit: usize) {
    for part in &mut message.parts {
        if let Part::ToolResult(answer) = part {
            // Head and tail, so that the first mark of a block and its last line both stay.
            answer.text = head_and_tail(&answer.text, limit);
        }
    }
}

fn spoken(role: Role, part: &Part) -> String {
    let who = match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    match part {
        Part::Text { text } => format!("{who}: {text}\n"),
        Part::Image { media_type, .. } => format!("{who}: [image, {media_type}]\n"),
        Part::Reasoning(_) => String::new(),
        Part::ToolCall(call) => {
            format!("{who} calls {} {}\n", call.name, head_and_tail(&call.arguments, SUMMARISED_RESULT))
        }
        Part::ToolResult(answer) => {
            format!("result of {}: {}\n", answer.name, head_and_tail(&answer.text, SUMMARISED_RESULT))
        }
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
