//! Section `agents`: the model, and the budgets of a turn.
//!
//! What a tool may do is not here; that is `tools`, `sandbox` and `limits`, which the toolhost reads itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// Section `agents`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Agents {
    /// What holds for every conversation.
    pub defaults: AgentDefaults,
    /// Who shares a workspace. Unset: `sender` as soon as more than one person is admitted, else `shared`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_scope: Option<WorkspaceScope>,
}

/// Who shares a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkspaceScope {
    /// One for all.
    Shared,
    /// One a person.
    Sender,
    /// One a conversation.
    Conversation,
}

/// Section `agents.defaults`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AgentDefaults {
    /// Directory the tools work in. With another home (`--home`) and no word here it is `workspace` in that home.
    pub workspace: String,
    /// The model, for example `openrouter/anthropic/claude-sonnet-4` or `ollama/llama3.2`. `oxibot onboard` sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Most tokens of one reply.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_tokens: u32,
    /// Sampling temperature, 0 to 2; the vendor's default when unset.
    #[schemars(range(min = 0.0, max = 2.0))]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "short_float")]
    pub temperature: Option<f32>,
    /// Most rounds of tool calls in one turn.
    #[schemars(range(min = 1, max = 1000))]
    pub max_tool_iterations: u32,
    /// Tokens the model can hold; older messages are summarised before it is reached.
    #[schemars(range(min = 1000, max = 100_000_000))]
    pub context_window_tokens: u32,
    /// Models to try in turn when the first cannot be reached.
    pub fallback_models: Vec<String>,
    /// How long a reasoning model should think; the vendor's default when unset.
    #[schemars(schema_with = "effort_schema")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<String>,
    /// Whether the model sees images; known by its name when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vision: Option<bool>,
    /// Longest a turn may take, in seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub turn_timeout_seconds: u64,
    /// Most tokens, in and out, a turn may use.
    #[schemars(range(min = 1000, max = 1_000_000_000))]
    pub turn_token_budget: u64,
}

/// Where the workspace is unless said otherwise.
pub const DEFAULT_WORKSPACE: &str = "~/.oxibot/workspace";

impl Default for AgentDefaults {
    fn default() -> Self {
        Self {
            workspace: DEFAULT_WORKSPACE.into(),
            model: None,
            max_tokens: 8192,
            temperature: None,
            max_tool_iterations: 20,
            context_window_tokens: 128_000,
            fallback_models: Vec::new(),
            reasoning_effort: None,
            vision: None,
            turn_timeout_seconds: 600,
            turn_token_budget: 1_000_000,
        }
    }
}

fn effort_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": ["string", "null"],
        "enum": ["none", "minimal", "low", "medium", "high", "xhigh", "max", null],
    })
}

/// 0.7 as `0.7` and not as the nearest `f64` of the nearest `f32`.
fn short_float<S: Serializer>(number: &Option<f32>, serializer: S) -> Result<S::Ok, S::Error> {
    number.and_then(|number| number.to_string().parse::<f64>().ok()).serialize(serializer)
}
