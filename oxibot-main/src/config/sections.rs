//! The small sections: `gateway`, `transcription`, `sessions`, `logging`, `groups`.

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::secret;

/// Section `gateway`: the health endpoint, and who runs the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Gateway {
    /// Address to listen on. Anything but this machine is for containers.
    pub host: String,
    /// Port to listen on; one that is taken is a warning.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: u16,
    /// Whether to listen at all.
    pub health: bool,
    /// Administrators, each as `channel:id`, for example `telegram:123456789`. They may use `/stop all` and `/restart` and
    /// answer for others what needs a yes. Empty: the one who is admitted, if it is one.
    pub admins: Vec<String>,
}

impl Default for Gateway {
    fn default() -> Self {
        Self { host: "127.0.0.1".into(), port: 18_790, health: true, admins: Vec::new() }
    }
}

/// Section `transcription`: spoken messages to text.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Transcription {
    /// Whether spoken messages are turned into text.
    pub enabled: bool,
    /// Which service does it.
    pub provider: TranscriptionProvider,
    /// The key; that of the same provider in `providers` when unset.
    #[schemars(schema_with = "secret::schema")]
    #[serde(serialize_with = "secret::masked", skip_serializing_if = "Option::is_none")]
    pub api_key: Option<SecretString>,
    /// The service's model.
    pub model: String,
    /// Language spoken, two or three letters; recognised when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
}

/// Services that turn speech into text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TranscriptionProvider {
    /// Groq.
    Groq,
    /// OpenAI.
    Openai,
}

impl Default for Transcription {
    fn default() -> Self {
        Self {
            enabled: true,
            provider: TranscriptionProvider::Groq,
            api_key: None,
            model: "whisper-large-v3".into(),
            language: None,
        }
    }
}

/// Section `sessions`: when a conversation ends by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Sessions {
    /// Days without a message after which a conversation expires; 0 is never.
    #[schemars(range(min = 0, max = 36_500))]
    pub idle_days: u32,
    /// Days after its first message at which a conversation expires; 0 is never.
    #[schemars(range(min = 0, max = 36_500))]
    pub max_days: u32,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { idle_days: 30, max_days: 365 }
    }
}

/// Section `logging`. `RUST_LOG`, `-v`, `-q` and `--log-file` are stronger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Logging {
    /// Least severity that is logged.
    pub level: LogLevel,
    /// File to append to, instead of standard error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Form of a line.
    pub format: LogFormat,
}

impl Default for Logging {
    fn default() -> Self {
        Self { level: LogLevel::Warn, file: None, format: LogFormat::Text }
    }
}

/// Severity of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What failed.
    Error,
    /// And what is doubtful.
    Warn,
    /// And what happened.
    Info,
    /// And how.
    Debug,
    /// And every step.
    Trace,
}

impl LogLevel {
    /// The name, as a filter of `tracing` understands it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Section `groups`: conversations with more than one person.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Groups {
    /// Whether `USER.md` and `memory/` are in the prompt and readable where more than one person listens.
    pub memory: bool,
}
