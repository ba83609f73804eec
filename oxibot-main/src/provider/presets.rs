//! The providers known by name: where each is, and in which details its wire differs. Data only.
//!
//! No model list and no prices: both change weekly, and the vendor's own list is one request away.

/// Which of the two wire formats a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// OpenAI-compatible chat completions.
    OpenAi,
    /// Anthropic messages.
    Anthropic,
}

/// Whether a provider wants a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyNeed {
    /// Hosted: nothing works without one.
    Required,
    /// Runs on the user's own machine, or may.
    Optional,
}

/// How reasoning is handed back in the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasoningEcho {
    /// Not at all: the vendor refuses or ignores it.
    Never,
    /// `reasoning_content` beside the content.
    Content,
    /// `reasoning` beside the content.
    Plain,
    /// `reasoning_details`, unchanged.
    Details,
}

/// How a reasoning effort is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffortField {
    /// The vendor has no such setting on this API.
    None,
    /// `reasoning_effort: "low"`.
    ReasoningEffort,
    /// `reasoning: {effort: "low"}`.
    ReasoningObject,
}

/// Which tool call ids a vendor accepts in a history that another vendor may have begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdRule {
    /// At most 40 characters of `[A-Za-z0-9_-]`, which OpenAI and Anthropic accept.
    Plain,
    /// Exactly nine of `[A-Za-z0-9]` (Mistral).
    NineAlphanumerics,
}

/// One provider known by name.
#[derive(Debug, PartialEq, Eq)]
pub struct Preset {
    /// Name in the configuration and before the slash of a model name.
    pub name: &'static str,
    /// Name for people.
    pub title: &'static str,
    /// Wire format.
    pub wire: Wire,
    /// Where it is; none for `custom`.
    pub base: Option<&'static str>,
    /// Whether a key is needed.
    pub key: KeyNeed,
    /// What its keys begin with, if that is distinctive: a key of another vendor is then noticed before it is sent.
    pub key_prefix: Option<&'static str>,
    /// Where a person gets a key.
    pub key_page: Option<&'static str>,
    /// Beginnings of model names that are this vendor's.
    pub families: &'static [&'static str],
    /// What OpenRouter calls this vendor.
    pub openrouter_vendor: Option<&'static str>,
    /// `max_completion_tokens` instead of `max_tokens`.
    pub completion_tokens_field: bool,
    /// Whether `stream_options: {include_usage: true}` is accepted.
    pub stream_options: bool,
    /// How reasoning goes back.
    pub echo: ReasoningEcho,
    /// How an effort is asked for.
    pub effort: EffortField,
    /// Rule for tool call ids.
    pub ids: IdRule,
}

/// The common case: a hosted OpenAI-compatible service without peculiarities.
const HOSTED: Preset = Preset {
    name: "",
    title: "",
    wire: Wire::OpenAi,
    base: None,
    key: KeyNeed::Required,
    key_prefix: None,
    key_page: None,
    families: &[],
    openrouter_vendor: None,
    completion_tokens_field: false,
    stream_options: true,
    echo: ReasoningEcho::Never,
    effort: EffortField::None,
    ids: IdRule::Plain,
};

/// A server on the user's machine.
const LOCAL: Preset = Preset { key: KeyNeed::Optional, ..HOSTED };

static PRESETS: [Preset; 18] = [
    Preset {
        name: "openrouter",
        title: "OpenRouter",
        base: Some("https://openrouter.ai/api/v1"),
        key_prefix: Some("sk-or-"),
        key_page: Some("https://openrouter.ai/keys"),
        // Reasoning of Gemini and Claude behind it is lost, and the next tool call refused, unless it goes back whole.
        echo: ReasoningEcho::Details,
        effort: EffortField::ReasoningObject,
        ..HOSTED
    },
    Preset {
        name: "openai",
        title: "OpenAI",
        base: Some("https://api.openai.com/v1"),
        key_page: Some("https://platform.openai.com/api-keys"),
        families: &["gpt-", "chatgpt", "o1", "o3", "o4", "codex"],
        openrouter_vendor: Some("openai"),
        // Its reasoning models refuse `max_tokens`.
        completion_tokens_field: true,
        effort: EffortField::ReasoningEffort,
        ..HOSTED
    },
    Preset {
        name: "anthropic",
        title: "Anthropic",
        wire: Wire::Anthropic,
        base: Some("https://api.anthropic.com"),
        key_prefix: Some("sk-ant-"),
        key_page: Some("https://console.anthropic.com/settings/keys"),
        families: &["claude"],
        openrouter_vendor: Some("anthropic"),
        ..HOSTED
    },
    Preset {
        name: "deepseek",
        title: "DeepSeek",
        base: Some("https://api.deepseek.com/v1"),
        key_page: Some("https://platform.deepseek.com/api_keys"),
        families: &["deepseek"],
        openrouter_vendor: Some("deepseek"),
        // Refuses a history with tool calls whose reasoning was left out.
        echo: ReasoningEcho::Content,
        ..HOSTED
    },
    Preset {
        name: "groq",
        title: "Groq",
        base: Some("https://api.groq.com/openai/v1"),
        key_prefix: Some("gsk_"),
        key_page: Some("https://console.groq.com/keys"),
        effort: EffortField::ReasoningEffort,
        ..HOSTED
    },
    Preset {
        name: "gemini",
        title: "Google Gemini",
        base: Some("https://generativelanguage.googleapis.com/v1beta/openai"),
        key_prefix: Some("AIza"),
        key_page: Some("https://aistudio.google.com/apikey"),
        families: &["gemini", "gemma"],
        openrouter_vendor: Some("google"),
        effort: EffortField::ReasoningEffort,
        ..HOSTED
    },
    Preset {
        name: "mistral",
        title: "Mistral",
        base: Some("https://api.mistral.ai/v1"),
        key_page: Some("https://console.mistral.ai/api-keys"),
        families: &["mistral", "ministral", "magistral", "codestral", "devstral", "pixtral"],
        openrouter_vendor: Some("mistralai"),
        // Refuses unknown fields; reports usage unasked.
        stream_options: false,
        ids: IdRule::NineAlphanumerics,
        ..HOSTED
    },
    Preset {
        name: "xai",
        title: "xAI",
        base: Some("https://api.x.ai/v1"),
        key_prefix: Some("xai-"),
        key_page: Some("https://console.x.ai"),
        families: &["grok"],
        openrouter_vendor: Some("x-ai"),
        effort: EffortField::ReasoningEffort,
        ..HOSTED
    },
    Preset {
        name: "zhipu",
        title: "Zhipu (GLM)",
        base: Some("https://open.bigmodel.cn/api/paas/v4"),
        key_page: Some("https://open.bigmodel.cn/usercenter/apikeys"),
        families: &["glm"],
        openrouter_vendor: Some("z-ai"),
        echo: ReasoningEcho::Content,
        ..HOSTED
    },
    Preset {
        name: "dashscope",
        title: "Alibaba DashScope (Qwen)",
        base: Some("https://dashscope.aliyuncs.com/compatible-mode/v1"),
        key_page: Some("https://bailian.console.aliyun.com"),
        families: &["qwen", "qwq"],
        openrouter_vendor: Some("qwen"),
        ..HOSTED
    },
    Preset {
        name: "moonshot",
        title: "Moonshot (Kimi)",
        base: Some("https://api.moonshot.ai/v1"),
        key_page: Some("https://platform.moonshot.ai/console/api-keys"),
        families: &["kimi", "moonshot"],
        openrouter_vendor: Some("moonshotai"),
        echo: ReasoningEcho::Content,
        ..HOSTED
    },
    Preset {
        name: "minimax",
        title: "MiniMax",
        base: Some("https://api.minimax.io/v1"),
        key_page: Some("https://platform.minimax.io"),
        families: &["minimax"],
        openrouter_vendor: Some("minimax"),
        completion_tokens_field: true,
        echo: ReasoningEcho::Details,
        ..HOSTED
    },
    Preset {
        name: "aihubmix",
        title: "AiHubMix",
        base: Some("https://aihubmix.com/v1"),
        key_page: Some("https://aihubmix.com/token"),
        ..HOSTED
    },
    Preset {
        name: "ollama",
        title: "Ollama (this machine)",
        base: Some("http://127.0.0.1:11434/v1"),
        echo: ReasoningEcho::Plain,
        effort: EffortField::ReasoningEffort,
        ..LOCAL
    },
    Preset { name: "vllm", title: "vLLM (this machine)", base: Some("http://127.0.0.1:8000/v1"), ..LOCAL },
    Preset {
        name: "llamacpp",
        title: "llama.cpp (this machine)",
        base: Some("http://127.0.0.1:8080/v1"),
        echo: ReasoningEcho::Content,
        ..LOCAL
    },
    Preset {
        name: "lmstudio",
        title: "LM Studio (this machine)",
        base: Some("http://127.0.0.1:1234/v1"),
        ..LOCAL
    },
    Preset { name: "custom", title: "Other OpenAI-compatible service", ..LOCAL },
];

/// All providers known by name, in the order to offer them.
#[must_use]
pub fn presets() -> &'static [Preset] {
    &PRESETS
}

/// The preset of that name.
#[must_use]
pub fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

/// What a provider with a name of the user's own is taken for.
pub(crate) fn custom() -> &'static Preset {
    static CUSTOM: Preset = Preset { name: "custom", title: "Other OpenAI-compatible service", ..LOCAL };
    &CUSTOM
}

/// The vendor whose models begin like that (`claude-…` is Anthropic's).
pub(crate) fn vendor_of(model: &str) -> Option<&'static Preset> {
    let model = model.to_ascii_lowercase();
    PRESETS.iter().find(|preset| preset.families.iter().any(|family| model.starts_with(family)))
}

/// The vendor whose keys begin like that.
pub(crate) fn vendor_of_key(key: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.key_prefix.is_some_and(|prefix| key.starts_with(prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_but_custom_has_its_own_address() {
        let mut seen = std::collections::BTreeSet::new();
        for preset in presets() {
            match preset.base {
                Some(base) => assert!(seen.insert(base), "{base} twice"),
                None => assert_eq!(preset.name, "custom"),
            }
        }
        assert_eq!(preset("custom"), Some(custom()));
    }

    #[test]
    fn hosted_presets_need_a_key_and_https_and_local_ones_neither() {
        for preset in presets() {
            let Some(base) = preset.base else { continue };
            match preset.key {
                KeyNeed::Required => assert!(base.starts_with("https://"), "{base}"),
                KeyNeed::Optional => assert!(base.starts_with("http://127.0.0.1:"), "{base}"),
            }
        }
    }
}
