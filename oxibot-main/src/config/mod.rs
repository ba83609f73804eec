//! The configuration of main: one strict, typed value, made of defaults, file, environment and command line.
//!
//! Whatever is wrong refuses the start; nothing falls back to a default because a file could not be read. It decides
//! nothing about tools: `tools`, `sandbox`, `limits` and `policy` are read here only to be checked and shown, and the toolhost
//! reads them itself. `onboard` writes the file; this module only offers the means.

mod agents;
mod channels;
mod check;
mod environment;
mod error;
pub(crate) mod file;
#[cfg(feature = "keyring")]
mod keyring;
mod load;
mod paths;
mod position;
mod providers;
pub(crate) mod reader;
mod secret;
mod sections;
pub(crate) mod shape;
mod sources;

use std::collections::BTreeMap;

use oxibot_proto::settings::{Approvals, Audit, Limits, Policy, Sandbox, Tools, WebAccess};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

pub use self::agents::{AgentDefaults, Agents, DEFAULT_WORKSPACE, WorkspaceScope};
pub use self::channels::{
    CHANNELS, ChannelOverview, ChannelState, Channels, Discord, DmPolicy, Email, GroupPolicy, Slack, SlackDm,
    SlackMode, Telegram, Whatsapp,
};
pub use self::environment::{Environment, variable_of};
pub use self::error::{ConfigError, EXIT_CONFIGURATION, Origin, Problem};
pub use self::load::{Loaded, Options, Override, load, load_with, parse};
pub use self::paths::Paths;
pub(crate) use self::paths::make_private;
pub use self::providers::{KEYLESS, PROVIDERS, ProviderConfig};
pub use self::secret::MASK;
pub use self::sections::{
    Gateway, Groups, LogFormat, LogLevel, Logging, Sessions, Transcription, TranscriptionProvider,
};

/// The whole configuration. Secrets are inside and never printed: `Debug` and `Serialize` mask them.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(title = "OxiBot configuration")]
pub struct Config {
    /// Where this schema lies, for editors; ignored.
    #[serde(rename = "$schema", skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The model and the budgets of a turn.
    pub agents: Agents,
    /// Where models are to be had.
    #[schemars(schema_with = "providers::schema")]
    pub providers: BTreeMap<String, ProviderConfig>,
    /// Where people write from.
    pub channels: Channels,
    /// What tools may do.
    pub tools: Tools,
    /// The kernel wall around each call.
    pub sandbox: Sandbox,
    /// Bounds of one call and of one sender.
    pub limits: Limits,
    /// Rules for commands beside those that come with the product. The toolhost says whether they can be used.
    pub policy: Policy,
    /// What the web tools may reach.
    pub web: WebAccess,
    /// Who says yes to what the policy asks about.
    pub approvals: Approvals,
    /// The record of what was done.
    pub audit: Audit,
    /// The health endpoint.
    pub gateway: Gateway,
    /// Spoken messages to text.
    pub transcription: Transcription,
    /// When a conversation ends by itself.
    pub sessions: Sessions,
    /// What is logged, and where.
    pub logging: Logging,
    /// Conversations with more than one person.
    pub groups: Groups,
    /// `tools.web.search.apiKey`, kept apart because the type of `tools` is the toolhost's too.
    #[serde(skip)]
    pub search_key: Option<SecretString>,
}

impl Config {
    /// The model to use.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] when none was chosen; the exit status is 78 and the hint names the command.
    pub fn require_model(&self) -> Result<&str, ConfigError> {
        let missing = ConfigError::Missing { key: "agents.defaults.model", command: "oxibot onboard" };
        self.agents.defaults.model.as_deref().ok_or(missing)
    }
}

/// Every key there is, dotted, in order.
#[must_use]
pub fn keys() -> Vec<String> {
    shape::root().leaves()
}

/// The JSON Schema of the file, with the older names of keys marked as deprecated.
#[must_use]
pub fn published_schema() -> serde_json::Value {
    shape::published_with_older_names()
}

#[cfg(test)]
mod tests;
