//! Which provider a model name means. Pure.
//!
//! Rules, in this order (a name is split at its first `/`):
//!
//! 1. What stands before the slash is a provider that is set up, or a server on this machine: that provider, and the
//!    rest is the model. `openrouter/anthropic/claude-sonnet-4` asks OpenRouter for `anthropic/claude-sonnet-4`.
//! 2. It is a known provider that is not set up, but OpenRouter is and has that vendor: OpenRouter, under the vendor's
//!    name there. Without OpenRouter it is an error that says what to run.
//! 3. It is no provider's name (`meta-llama/llama-4`), so it belongs to the model: OpenRouter if it is set up,
//!    otherwise the only provider that is; with several the choice is the user's.
//! 4. No slash: the vendor whose models begin like that, if it is set up; otherwise OpenRouter, if it has the vendor;
//!    otherwise the only provider that is set up; with several the choice is the user's.

use thiserror::Error;

use super::endpoint::ProviderSettings;
use super::presets::{self, KeyNeed, Preset};

/// A model name meant no provider.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SelectError {
    /// No model is configured.
    #[error("cannot choose a model: none is set; run `oxibot onboard`, or give --model PROVIDER/MODEL")]
    NoModel,
    /// Nothing is set up.
    #[error("cannot use model {model}: no provider is set up; run `oxibot onboard`")]
    NoProvider {
        /// Model asked for.
        model: String,
    },
    /// The provider is known but not set up.
    #[error(
        "cannot use model {model}: provider {provider} is not set up; run `oxibot onboard` or set providers.{provider}.{setting}"
    )]
    NotConfigured {
        /// Model asked for.
        model: String,
        /// Provider it names.
        provider: String,
        /// The key of the configuration that is missing.
        setting: &'static str,
    },
    /// More than one provider could be meant.
    #[error("cannot tell which provider model {model} is at; write one of: {}", .choices.join(", "))]
    Ambiguous {
        /// Model asked for.
        model: String,
        /// Ways to write it.
        choices: Vec<String>,
    },
}

/// What a model name means.
#[derive(Debug, Clone)]
pub struct Selected {
    /// The provider's settings.
    pub settings: ProviderSettings,
    /// The model's name as that provider knows it.
    pub model: String,
}

/// Finds the provider a model name means.
pub fn select(model: &str, configured: &[ProviderSettings]) -> Result<Selected, SelectError> {
    let model = model.trim();
    if model.is_empty() {
        return Err(SelectError::NoModel);
    }
    let set_up: Vec<&ProviderSettings> =
        configured.iter().filter(|settings| settings.is_configured()).collect();
    match model.split_once('/') {
        Some((prefix, rest)) => with_prefix(model, prefix, rest.trim(), configured, &set_up),
        None => without_prefix(model, &set_up),
    }
}

fn with_prefix(
    model: &str,
    prefix: &str,
    rest: &str,
    configured: &[ProviderSettings],
    set_up: &[&ProviderSettings],
) -> Result<Selected, SelectError> {
    if rest.is_empty() {
        return Err(SelectError::NoModel);
    }
    if let Some(settings) = set_up.iter().find(|settings| settings.name == prefix) {
        return Ok(chosen(settings, rest));
    }
    if let Some(preset) = presets::preset(prefix) {
        if preset.key == KeyNeed::Optional && preset.base.is_some() {
            let listed = configured.iter().find(|settings| settings.name == prefix);
            return Ok(chosen(listed.unwrap_or(&ProviderSettings::named(prefix)), rest));
        }
        if let Some(selected) = at_openrouter(preset, rest, set_up) {
            return Ok(selected);
        }
        let setting = if preset.base.is_some() { "apiKey" } else { "apiBase" };
        return Err(SelectError::NotConfigured {
            model: model.to_owned(),
            provider: prefix.to_owned(),
            setting,
        });
    }
    match set_up {
        [] => Err(SelectError::NoProvider { model: model.to_owned() }),
        [only] => Ok(chosen(only, model)),
        several => match several.iter().find(|settings| settings.name == "openrouter") {
            Some(openrouter) => Ok(chosen(openrouter, model)),
            None => Err(ambiguous(model, several)),
        },
    }
}

fn without_prefix(model: &str, set_up: &[&ProviderSettings]) -> Result<Selected, SelectError> {
    let vendor = presets::vendor_of(model);
    if let Some(vendor) = vendor {
        if let Some(settings) = set_up.iter().find(|settings| settings.name == vendor.name) {
            return Ok(chosen(settings, model));
        }
        if let Some(selected) = at_openrouter(vendor, model, set_up) {
            return Ok(selected);
        }
    }
    match set_up {
        [] => Err(SelectError::NoProvider { model: model.to_owned() }),
        [only] => Ok(chosen(only, model)),
        several => Err(ambiguous(model, several)),
    }
}

fn at_openrouter(vendor: &Preset, model: &str, set_up: &[&ProviderSettings]) -> Option<Selected> {
    let name = vendor.openrouter_vendor?;
    let openrouter = set_up.iter().find(|settings| settings.name == "openrouter")?;
    Some(chosen(openrouter, &format!("{name}/{model}")))
}

fn chosen(settings: &ProviderSettings, model: &str) -> Selected {
    Selected { settings: settings.clone(), model: model.to_owned() }
}

fn ambiguous(model: &str, set_up: &[&ProviderSettings]) -> SelectError {
    let choices = set_up.iter().map(|settings| format!("{}/{model}", settings.name)).collect();
    SelectError::Ambiguous { model: model.to_owned(), choices }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    fn keyed(name: &str) -> ProviderSettings {
        ProviderSettings { api_key: Some(SecretString::from("k")), ..ProviderSettings::named(name) }
    }

    fn based(name: &str) -> ProviderSettings {
        ProviderSettings {
            api_base: Some("http://127.0.0.1:9/v1".to_owned()),
            ..ProviderSettings::named(name)
        }
    }

    fn chosen(model: &str, configured: &[ProviderSettings]) -> (String, String) {
        let selected = select(model, configured).unwrap();
        (selected.settings.name, selected.model)
    }

    fn pair(provider: &str, model: &str) -> (String, String) {
        (provider.to_owned(), model.to_owned())
    }

    #[test]
    fn prefix_of_a_configured_provider_is_taken_off_once() {
        let configured = [keyed("openrouter"), keyed("anthropic"), keyed("deepseek"), based("work")];
        assert_eq!(chosen("anthropic/claude-x", &configured), pair("anthropic", "claude-x"));
        assert_eq!(
            chosen("openrouter/anthropic/claude-x", &configured),
            pair("openrouter", "anthropic/claude-x")
        );
        assert_eq!(chosen("deepseek/deepseek-chat", &configured), pair("deepseek", "deepseek-chat"));
        assert_eq!(chosen("work/org/model", &configured), pair("work", "org/model"));
    }

    #[test]
    fn local_servers_need_no_configuration() {
        assert_eq!(chosen("ollama/qwen3:8b", &[]), pair("ollama", "qwen3:8b"));
        assert_eq!(chosen("vllm/Qwen/Qwen3-8B", &[keyed("openai")]), pair("vllm", "Qwen/Qwen3-8B"));
    }

    #[test]
    fn vendor_that_is_not_set_up_goes_to_openrouter_under_its_name_there() {
        let configured = [keyed("openrouter")];
        assert_eq!(chosen("anthropic/claude-x", &configured), pair("openrouter", "anthropic/claude-x"));
        assert_eq!(chosen("gemini/gemini-3-pro", &configured), pair("openrouter", "google/gemini-3-pro"));
        assert_eq!(chosen("xai/grok-4", &configured), pair("openrouter", "x-ai/grok-4"));
        assert_eq!(chosen("claude-x", &configured), pair("openrouter", "anthropic/claude-x"));
    }

    #[test]
    fn vendor_that_is_not_set_up_without_openrouter_says_what_to_run() {
        let text = select("anthropic/claude-x", &[keyed("openai")]).unwrap_err().to_string();
        assert!(text.contains("oxibot onboard") && text.contains("providers.anthropic.apiKey"), "{text}");
        let text = select("custom/x", &[keyed("openai")]).unwrap_err().to_string();
        assert!(text.contains("providers.custom.apiBase"), "{text}");
    }

    #[test]
    fn foreign_prefix_belongs_to_the_model() {
        assert_eq!(
            chosen("meta-llama/llama-4", &[keyed("groq"), keyed("openrouter")]),
            pair("openrouter", "meta-llama/llama-4")
        );
        assert_eq!(chosen("meta-llama/llama-4", &[keyed("groq")]), pair("groq", "meta-llama/llama-4"));
        let error = select("meta-llama/llama-4", &[keyed("groq"), based("vllm")]).unwrap_err();
        assert!(error.to_string().contains("groq/meta-llama/llama-4, vllm/meta-llama/llama-4"), "{error}");
    }

    #[test]
    fn name_without_a_slash_goes_to_its_vendor_or_the_only_provider() {
        let several = [keyed("openai"), keyed("anthropic"), based("vllm")];
        assert_eq!(chosen("claude-x", &several), pair("anthropic", "claude-x"));
        assert_eq!(chosen("gpt-5", &several), pair("openai", "gpt-5"));
        assert_eq!(chosen("my-model", &[based("vllm")]), pair("vllm", "my-model"));
        assert!(matches!(select("my-model", &several), Err(SelectError::Ambiguous { .. })));
    }

    #[test]
    fn empty_sections_and_empty_names_select_nothing() {
        let empty = [ProviderSettings::named("openai"), ProviderSettings::named("vllm")];
        assert!(matches!(select("gpt-5", &empty), Err(SelectError::NoProvider { .. })));
        for model in ["", "  ", "openai/", "openai/  "] {
            assert_eq!(select(model, &[keyed("openai")]).unwrap_err(), SelectError::NoModel, "{model:?}");
        }
    }
}
