//! The list of models a provider offers, for `onboard` and `/model`.

use serde_json::Value;

use super::decode::count;
use super::error::ProviderError;
use super::hosted::Hosted;

/// Most models kept of a list (OpenRouter has some hundreds).
const MAX_MODELS: usize = 5000;

/// Longest name kept: longer ones are no names.
const MAX_NAME: usize = 256;

/// One model on offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedModel {
    /// Name to ask for, without the provider's prefix.
    pub id: String,
    /// Name for people, if the vendor has one.
    pub title: Option<String>,
    /// Tokens it can read, if the vendor says so.
    pub context_window: Option<u64>,
}

/// Asks a provider for its models, sorted by name. It also shows whether the address and the key are good.
pub(super) async fn list(hosted: &Hosted) -> Result<Vec<OfferedModel>, ProviderError> {
    let endpoint = hosted.endpoint();
    let url =
        if hosted.preset().name == "ollama" { endpoint.ollama_tags_url() } else { endpoint.models_url() };
    if hosted.preset().name == "openrouter" {
        hosted.get(endpoint.key_url()).await?;
    }
    let body = hosted.get(url).await?;
    read(&body).ok_or_else(|| hosted.garbage("the list of models has another form".to_owned()))
}

fn read(body: &Value) -> Option<Vec<OfferedModel>> {
    let entries = body.get("data").or_else(|| body.get("models")).unwrap_or(body).as_array()?;
    let mut models: Vec<OfferedModel> = entries.iter().take(MAX_MODELS).filter_map(model).collect();
    models.sort_by(|a, b| a.id.cmp(&b.id));
    models.dedup_by(|a, b| a.id == b.id);
    Some(models)
}

fn model(entry: &Value) -> Option<OfferedModel> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str);
    // Shown in a terminal and written to the configuration.
    let fit = |text: &&str| !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control);
    let id = text("id").or_else(|| text("model")).or_else(|| text("name")).filter(fit)?;
    let title = text("display_name").or_else(|| text("name")).filter(fit).filter(|title| *title != id);
    let context_window =
        ["context_length", "context_window", "max_model_len", "max_context_length", "max_input_tokens"]
            .iter()
            .find_map(|name| count(entry.get(*name)));
    Some(OfferedModel {
        // Gemini's names come with the collection before them.
        id: id.strip_prefix("models/").unwrap_or(id).to_owned(),
        title: title.map(str::to_owned),
        context_window,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_of_every_dialect_are_read() {
        let openrouter = read(&json!({"data": [
            {"id": "x/b", "name": "B", "context_length": 100}, {"id": "x/a"}, {"id": "x/a"}, {"nothing": 1},
            {"id": "evil\u{1b}[31m"}, {"id": ""}]}))
        .unwrap();
        let model = |id: &str, title: Option<&str>, context_window| OfferedModel {
            id: id.to_owned(),
            title: title.map(str::to_owned),
            context_window,
        };
        assert_eq!(openrouter, [model("x/a", None, None), model("x/b", Some("B"), Some(100))]);
        let ollama = read(&json!({"models": [{"name": "qwen3:8b", "model": "qwen3:8b"}]})).unwrap();
        assert_eq!(ollama, [model("qwen3:8b", None, None)]);
        let gemini = read(&json!({"data": [{"id": "models/gemini-3-pro"}]})).unwrap();
        assert_eq!(gemini, [model("gemini-3-pro", None, None)]);
        let anthropic = read(&json!({"data": [{"id": "claude-x", "display_name": "Claude X"}]})).unwrap();
        assert_eq!(anthropic, [model("claude-x", Some("Claude X"), None)]);
        assert_eq!(read(&json!({"data": "none"})), None);
    }
}
