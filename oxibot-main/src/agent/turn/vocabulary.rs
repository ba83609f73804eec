//! The words of a turn: what it is begun with, what happens to it, what it wants done, how it ends. Data only.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::agent::hands::{CallEnding, MindFault};
use crate::agent::untrusted::Boundary;
use crate::model::{Message, ModelReply, TokenUsage, ToolCall};
use crate::store::{Ending, Entry};

/// What a turn may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Rounds of tool calls. The model is asked once more after the last, to say what it has.
    pub tool_rounds: u32,
    /// Tokens read and written, as the provider counts them; no bound when absent.
    pub tokens: Option<u64>,
    /// Time from the first event.
    pub wall: Duration,
    /// How long cancelled calls may take to answer before their outcome is called unknown.
    pub stop_grace: Duration,
}

/// What a turn is begun with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its budget.
    pub budget: Budget,
    /// Names and aliases of the tools on offer.
    pub tools: BTreeSet<String>,
    /// Ids of calls earlier in the conversation, which vendors refuse to see twice.
    pub known_ids: BTreeSet<String>,
    /// What delimits untrusted data.
    pub boundary: Boundary,
    /// Model, for the journal.
    pub model: String,
}

/// A call's place in its turn: which reply, and which call of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey {
    /// Number of the reply, from 1.
    pub round: u32,
    /// Position in the reply, from 0.
    pub index: usize,
}

/// What happens to a turn.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A person said something; begins the turn.
    Start(Message),
    /// The model replied to the last [`Effect::AskModel`], which was estimated at so many tokens.
    ModelReplied(ModelReply, u64),
    /// The model could not be asked.
    ModelFailed(MindFault),
    /// A call ended.
    ToolFinished(CallKey, CallEnding),
    /// Another message came while the turn runs.
    Message(Message),
    /// The person wants it to stop.
    Cancel,
    /// Time passed.
    Tick,
}

/// What a turn wants done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Write to the journal; what follows must not happen before it is written.
    Persist(Entry),
    /// Ask the model with these messages of this turn (history and system prompt come before them).
    AskModel(Vec<Message>),
    /// Give up the running request.
    AbandonModel,
    /// Run a tool.
    RunTool(CallKey, ToolCall),
    /// Cancel all running calls; their endings are still expected.
    CancelTools,
    /// Tell the person.
    Show(Show),
    /// The turn is over.
    Finish(Finished),
}

/// What the person is told while a turn runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Show {
    /// A call begins.
    ToolBegun {
        /// Tool.
        name: String,
        /// Its arguments as the model wrote them.
        arguments: String,
    },
    /// A call ended, or was not run.
    ToolEnded {
        /// Tool.
        name: String,
        /// Outcome by name.
        outcome: String,
        /// What we know of it in one line.
        summary: String,
    },
    /// A remark.
    Note(String),
}

/// How a turn ended and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How.
    pub ending: Ending,
    /// Text of the last reply that had any, after the answers that were whole before another message came.
    pub reply: String,
    /// Tokens of all replies.
    pub usage: TokenUsage,
    /// Calls, in the order they were asked for, with their outcomes.
    pub calls: Vec<CallRecord>,
    /// The provider's fault, when [`Ending::ProviderFailed`].
    pub fault: Option<MindFault>,
}

/// One call for the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRecord {
    /// Tool.
    pub name: String,
    /// Arguments as the model wrote them.
    pub arguments: String,
    /// Outcome by name; `not_run` and `unknown` are ours.
    pub outcome: String,
    /// The toolhost's id, if it got one.
    pub call_id: Option<String>,
    /// Exit status, if there is one.
    pub exit_code: Option<i32>,
}
