//! Section `providers`: where models are to be had, and the keys for them.
//!
//! Base addresses of the presets and what is sent there belong to the provider module, not here.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::secret;

/// Every provider that can be configured.
pub const PROVIDERS: [&str; 18] = [
    "aihubmix",
    "anthropic",
    "custom",
    "dashscope",
    "deepseek",
    "gemini",
    "groq",
    "llamacpp",
    "lmstudio",
    "minimax",
    "mistral",
    "moonshot",
    "ollama",
    "openai",
    "openrouter",
    "vllm",
    "xai",
    "zhipu",
];

/// Those that usually run on this machine and want no key.
pub const KEYLESS: [&str; 5] = ["custom", "llamacpp", "lmstudio", "ollama", "vllm"];

/// One provider.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProviderConfig {
    /// The key. Better kept out of the file: `OXIBOT_PROVIDERS__<NAME>__API_KEY_FILE`.
    #[schemars(schema_with = "secret::schema")]
    #[serde(serialize_with = "secret::masked", skip_serializing_if = "Option::is_none")]
    pub api_key: Option<SecretString>,
    /// Base address, where it is not the provider's own. `http://` with a key only on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_base: Option<String>,
    /// Headers to send with each request.
    #[serde(serialize_with = "secret::masked_map", skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_headers: BTreeMap<String, String>,
}

impl ProviderConfig {
    /// Whether a request to the provider of this name has what it needs: a key, or an address for one without keys.
    #[must_use]
    pub fn is_configured(&self, name: &str) -> bool {
        let has_key = self.api_key.is_some()
            || self.extra_headers.keys().any(|header| secret::is_credential_header(header));
        has_key || self.api_base.is_some() || (KEYLESS.contains(&name) && name != "custom")
    }
}

/// Header values may hold keys: only their names are printed.
impl fmt::Debug for ProviderConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderConfig")
            .field("api_key", &self.api_key)
            .field("api_base", &self.api_base)
            .field("extra_headers", &self.extra_headers.keys())
            .finish()
    }
}

/// The map as an object with one property a known provider, so that editors and the reader know the names.
pub(crate) fn schema(generator: &mut SchemaGenerator) -> Schema {
    let one = generator.subschema_for::<ProviderConfig>();
    let properties: BTreeMap<&str, &Schema> = PROVIDERS.iter().map(|name| (*name, &one)).collect();
    schemars::json_schema!({ "type": "object", "properties": properties, "additionalProperties": false })
}
