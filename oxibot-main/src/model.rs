//! The vocabulary of a conversation with a model, independent of any vendor's wire format.
//!
//! Providers translate to and from it, the agent loop reasons in it, the store keeps it. It performs no I/O.

use serde::{Deserialize, Serialize};

/// Who a message is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions from us.
    System,
    /// The person, or whatever stands in for one.
    User,
    /// The model.
    Assistant,
    /// Results of tool calls.
    Tool,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who it is from.
    pub role: Role,
    /// What it holds, in order.
    pub parts: Vec<Part>,
}

impl Message {
    /// A message of one text part.
    #[must_use]
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, parts: vec![Part::Text { text: text.into() }] }
    }

    /// All text parts joined.
    #[must_use]
    pub fn joined_text(&self) -> String {
        self.parts
            .iter()
            .filter_map(|part| match part {
                Part::Text { text } => Some(text.as_str()),
                Part::Image { .. } | Part::Reasoning(_) | Part::ToolCall(_) | Part::ToolResult(_) => None,
            })
            .collect::<Vec<_>>()
            .join("")
    }
}

/// One piece of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Part {
    /// Plain text.
    Text {
        /// The text.
        text: String,
    },
    /// An image, for models that see.
    Image {
        /// For example `image/png`.
        media_type: String,
        /// Base64 of the file.
        data: String,
    },
    /// Reasoning a vendor wants back unchanged in the next request.
    Reasoning(Reasoning),
    /// The model asks for a tool.
    ToolCall(ToolCall),
    /// What the tool answered.
    ToolResult(ToolAnswer),
}

/// Reasoning of a model, kept as the vendor sent it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reasoning {
    /// Readable text, possibly empty.
    pub text: String,
    /// The vendor's block, opaque to us, to be passed back to the same vendor only.
    pub opaque: Option<serde_json::Value>,
    /// Provider that produced it.
    pub provider: String,
}

/// A tool call as the model wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The vendor's id, echoed with the result.
    pub id: String,
    /// Tool name.
    pub name: String,
    /// Arguments as JSON text, possibly malformed: judged by the toolhost, not here.
    pub arguments: String,
}

/// The answer to a tool call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolAnswer {
    /// Id of the call.
    pub id: String,
    /// Tool name.
    pub name: String,
    /// Text for the model, already delimited as untrusted data.
    pub text: String,
    /// Whether the call did not complete.
    pub is_error: bool,
}

/// A tool as offered to a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedTool {
    /// Name.
    pub name: String,
    /// Description for the model.
    pub description: String,
    /// JSON Schema of the arguments.
    pub parameters: serde_json::Value,
}

/// One request to a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelRequest {
    /// Model name without the provider's prefix.
    pub model: String,
    /// The conversation, system message first.
    pub messages: Vec<Message>,
    /// Tools on offer.
    pub tools: Vec<OfferedTool>,
    /// Upper bound of the reply, in tokens.
    pub max_tokens: u32,
    /// Sampling temperature; the vendor's default when absent.
    pub temperature: Option<f32>,
    /// `low`, `medium` or `high`, for models that reason.
    pub reasoning_effort: Option<String>,
}

/// One whole reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelReply {
    /// Text, reasoning and tool calls in order.
    pub parts: Vec<Part>,
    /// Why it ended.
    pub stop: StopReason,
    /// What it cost.
    pub usage: TokenUsage,
}

/// Why a reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model is done.
    EndTurn,
    /// The model waits for tool results.
    ToolUse,
    /// `max_tokens` was reached.
    Length,
    /// The vendor refused to go on.
    Refusal,
}

/// Tokens of one request, as the vendor counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TokenUsage {
    /// Read, cached ones included.
    pub input: u64,
    /// Written.
    pub output: u64,
    /// Of the input, served from the vendor's cache.
    pub cache_read: u64,
    /// Of the input, written to the vendor's cache.
    pub cache_write: u64,
    /// Millionths of a US dollar, only when the vendor itself reports a price. Nothing is ever estimated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_microusd: Option<u64>,
}

/// What streams in before a reply is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// More text.
    Text(String),
    /// More reasoning text.
    Reasoning(String),
    /// A tool call begins.
    ToolCall {
        /// Tool name.
        name: String,
    },
    /// The request is repeated from the start: discard what streamed.
    Restarted,
}
