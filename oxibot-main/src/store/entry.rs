//! What is written to the journal of a conversation, one entry a step.
//!
//! Entries are only ever appended: history, recovery after a crash and `sessions show` are all readings of them. The
//! kinds are stored as JSON, so a kind may gain fields with a default, and none may change its meaning. Nothing here
//! decides anything: which entry follows which is the turn's business.

use serde::{Deserialize, Serialize};

use crate::model::{Message, Part, StopReason, TokenUsage, ToolAnswer, ToolCall};

/// One step of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// A person's message began a turn.
    TurnStarted {
        /// What they said.
        message: Message,
        /// Model the turn is meant for.
        model: String,
    },
    /// The model is about to be asked.
    Asked {
        /// Number of the request in its turn, from 1.
        round: u32,
    },
    /// The model replied.
    Replied {
        /// Model that replied.
        model: String,
        /// The reply as it goes back to the model; ids of calls are unique in the turn.
        parts: Vec<Part>,
        /// Why it ended.
        stop: StopReason,
        /// What it cost.
        usage: TokenUsage,
        /// What we had estimated the request at, in tokens; teaches the next estimate.
        #[serde(default)]
        estimate: u64,
    },
    /// A tool is about to be called. Without a [`Entry::CallEnded`] its outcome is unknown.
    CallBegun {
        /// The call.
        call: ToolCall,
    },
    /// A tool call has its answer.
    CallEnded {
        /// What the model is told.
        answer: ToolAnswer,
        /// Outcome by name: those of the toolhost, or `not_run`, or `unknown`.
        outcome: String,
    },
    /// Another message came while the turn ran; the model sees it with the next request.
    MessageArrived {
        /// What they said.
        message: Message,
    },
    /// OxiBot itself tells the model something, for example that its reply was empty.
    Noted {
        /// The remark.
        text: String,
    },
    /// The turn is over.
    TurnEnded {
        /// How.
        ending: Ending,
    },
    /// Older turns were summarised; the originals stay in the journal.
    Summarised {
        /// Last turn the summary covers.
        through: i64,
        /// The summary.
        text: String,
        /// Model that wrote it.
        model: String,
        /// What it cost.
        usage: TokenUsage,
    },
    /// An unanswered turn was taken back, to be tried again.
    TakenBack {
        /// The turn.
        turn: i64,
    },
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The model answered.
    Answered,
    /// The model's answer was cut at `maxTokens`.
    CutShort,
    /// The vendor refused to go on.
    Refused,
    /// The model replied with nothing, twice.
    Empty,
    /// As many rounds of tool calls as a turn may have.
    Iterations,
    /// As many tokens as a turn may use.
    Tokens,
    /// As much time as a turn may take.
    Time,
    /// The model repeats a call that fails.
    Stuck,
    /// The person cancelled it.
    Cancelled,
    /// The provider failed. What it said is shown and not kept.
    ProviderFailed,
    /// The process ended while the turn ran.
    Interrupted,
}

impl Ending {
    /// Stable name as printed and stored.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::CutShort => "cut_short",
            Self::Refused => "refused",
            Self::Empty => "empty",
            Self::Iterations => "iterations",
            Self::Tokens => "tokens",
            Self::Time => "time",
            Self::Stuck => "stuck",
            Self::Cancelled => "cancelled",
            Self::ProviderFailed => "provider_failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// An entry with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEntry {
    /// Number in the whole journal, ascending.
    pub id: i64,
    /// Turn of its session, from 1.
    pub turn: i64,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// What.
    pub entry: Entry,
}
