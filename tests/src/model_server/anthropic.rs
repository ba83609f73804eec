//! What Anthropic's messages refuse, checked against the reference, field by field.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Rules, is_tool_name, unknown_field};

const BODY: &[&str] = &[
    "model",
    "messages",
    "max_tokens",
    "stream",
    "system",
    "temperature",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
];

/// The first reason to refuse the body.
pub(super) fn check(body: &Value, rules: &Rules) -> Result<(), String> {
    let object = body.as_object().ok_or("the body must be an object")?;
    if let Some(field) = unknown_field(object, BODY, &rules.body_fields) {
        return Err(format!("{field}: Extra inputs are not permitted"));
    }
    if body["model"].as_str().is_none_or(str::is_empty) {
        return Err("model: Field required".to_owned());
    }
    let max_tokens =
        body["max_tokens"].as_u64().filter(|limit| *limit > 0).ok_or("max_tokens: Field required")?;
    if body["stream"] != json!(true) {
        return Err("stream: the client under test always streams".to_owned());
    }
    if object
        .get("temperature")
        .is_some_and(|value| value.as_f64().is_none_or(|value| !(0.0..=1.0).contains(&value)))
    {
        return Err("temperature: range: 0..1".to_owned());
    }
    if let Some(system) = object.get("system") {
        let blocks =
            system.as_array().filter(|blocks| !blocks.is_empty()).ok_or("system: not a list of blocks")?;
        blocks.iter().try_for_each(|block| text(block, "system"))?;
    }
    if let Some(tools) = object.get("tools") {
        check_tools(tools)?;
    }
    let budgeted = check_thinking(object, max_tokens)?;
    check_messages(&body["messages"], budgeted)?;
    if body.to_string().matches("\"cache_control\"").count() > 4 {
        return Err("A maximum of 4 blocks with cache_control may be provided".to_owned());
    }
    Ok(())
}

/// Whether thinking with a budget is on, under which a tool call under way must begin with a thought.
fn check_thinking(body: &Map<String, Value>, max_tokens: u64) -> Result<bool, String> {
    let Some(thinking) = body.get("thinking") else { return Ok(false) };
    if body.contains_key("temperature") {
        return Err("`temperature` may only be set to 1 when thinking is enabled".to_owned());
    }
    match thinking["type"].as_str() {
        Some("adaptive") => Ok(false),
        Some("enabled") => match thinking["budget_tokens"].as_u64() {
            Some(budget) if budget >= 1024 && budget < max_tokens => Ok(true),
            _ => Err("thinking.budget_tokens: at least 1024 and less than max_tokens".to_owned()),
        },
        other => Err(format!("thinking.type: {other:?}")),
    }
}

fn check_tools(tools: &Value) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for tool in tools.as_array().ok_or("tools: not a list")? {
        let object = tool.as_object().ok_or("tools: not an object")?;
        if let Some(field) =
            unknown_field(object, &["name", "description", "input_schema", "cache_control"], &[])
        {
            return Err(format!("tools.{field}: Extra inputs are not permitted"));
        }
        let name = tool["name"].as_str().unwrap_or_default();
        if !is_tool_name(name) || !names.insert(name) {
            return Err(format!("tools: Tool names must be unique and well-formed: {name:?}"));
        }
        if tool["input_schema"]["type"] != "object" {
            return Err(format!("tools.{name}.input_schema.type: Field required"));
        }
    }
    Ok(())
}

fn check_messages(messages: &Value, budgeted: bool) -> Result<(), String> {
    let messages = messages
        .as_array()
        .filter(|messages| !messages.is_empty())
        .ok_or("messages: at least one message is required")?;
    let mut open: BTreeSet<String> = BTreeSet::new();
    for (at, message) in messages.iter().enumerate() {
        let place = format!("messages.{at}");
        let object = message.as_object().ok_or_else(|| format!("{place}: not an object"))?;
        if let Some(field) = unknown_field(object, &["role", "content"], &[]) {
            return Err(format!("{place}.{field}: Extra inputs are not permitted"));
        }
        let expected = if at % 2 == 0 { "user" } else { "assistant" };
        if message["role"] != expected {
            return Err(format!(
                "{place}: roles must alternate between \"user\" and \"assistant\", beginning with \"user\""
            ));
        }
        let blocks = message["content"]
            .as_array()
            .filter(|blocks| !blocks.is_empty())
            .ok_or_else(|| format!("{place}: all messages must have non-empty content"))?;
        if expected == "user" {
            user(blocks, &place, &mut open)?
        } else {
            assistant(blocks, &place, &mut open)?
        }
    }
    if !open.is_empty() || messages.len() % 2 == 0 {
        return Err("the last message must be the user's".to_owned());
    }
    let last_calls = messages.iter().rfind(|message| message["role"] == "assistant");
    if let Some(blocks) = last_calls.and_then(|message| message["content"].as_array()).filter(|_| budgeted) {
        let has_call = blocks.iter().any(|block| block["type"] == "tool_use");
        let first = blocks[0]["type"].as_str().unwrap_or_default();
        if has_call && !matches!(first, "thinking" | "redacted_thinking") {
            return Err(format!("Expected `thinking` or `redacted_thinking`, but found `{first}`"));
        }
    }
    Ok(())
}

fn known(block: &Value, fields: &[&str], place: &str) -> Result<(), String> {
    let object = block.as_object().ok_or_else(|| format!("{place}: block is no object"))?;
    match unknown_field(object, fields, &[]) {
        Some(field) => Err(format!("{place}.{field}: Extra inputs are not permitted")),
        None => Ok(()),
    }
}

fn text(block: &Value, place: &str) -> Result<(), String> {
    known(block, &["type", "text", "cache_control"], place)?;
    match block["text"].as_str() {
        Some(text) if block["type"] == "text" && !text.trim().is_empty() => Ok(()),
        _ => Err(format!("{place}: text content blocks must contain non-whitespace text")),
    }
}

fn user(blocks: &[Value], place: &str, open: &mut BTreeSet<String>) -> Result<(), String> {
    let mut results_over = false;
    for block in blocks {
        match block["type"].as_str() {
            Some("tool_result") => {
                known(block, &["type", "tool_use_id", "content", "is_error", "cache_control"], place)?;
                let id = block["tool_use_id"].as_str().unwrap_or_default();
                if results_over {
                    return Err(format!("{place}: tool_result blocks must come first"));
                }
                if !open.remove(id) {
                    return Err(format!(
                        "{place}: unexpected `tool_use_id` found in `tool_result` blocks: {id:?}"
                    ));
                }
                if block["content"].as_str().is_none_or(str::is_empty) {
                    return Err(format!("{place}: empty tool_result"));
                }
            }
            Some("text") => {
                results_over = true;
                text(block, place)?;
            }
            Some("image") => {
                results_over = true;
                known(block, &["type", "source", "cache_control"], place)?;
                let media = block["source"]["media_type"].as_str().unwrap_or_default();
                if block["source"]["type"] != "base64"
                    || !media.starts_with("image/")
                    || !block["source"]["data"].is_string()
                {
                    return Err(format!("{place}: bad image"));
                }
            }
            other => return Err(format!("{place}: a user's message must not hold {other:?}")),
        }
    }
    if open.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{place}: `tool_use` ids were found without `tool_result` blocks immediately after: {open:?}"
    ))
}

fn assistant(blocks: &[Value], place: &str, open: &mut BTreeSet<String>) -> Result<(), String> {
    for block in blocks {
        match block["type"].as_str() {
            Some("text") => text(block, place)?,
            Some("thinking") => {
                known(block, &["type", "thinking", "signature"], place)?;
                if !block["thinking"].is_string() || block["signature"].as_str().is_none_or(str::is_empty) {
                    return Err(format!("{place}.thinking.signature: Field required"));
                }
            }
            Some("redacted_thinking") => known(block, &["type", "data"], place)?,
            Some("tool_use") => {
                known(block, &["type", "id", "name", "input", "cache_control"], place)?;
                let id = block["id"].as_str().unwrap_or_default();
                let well_formed = !id.is_empty()
                    && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
                if !well_formed || !open.insert(id.to_owned()) {
                    return Err(format!("{place}: bad or repeated tool_use id {id:?}"));
                }
                if !is_tool_name(block["name"].as_str().unwrap_or_default()) || !block["input"].is_object() {
                    return Err(format!("{place}: bad tool_use: {block}"));
                }
            }
            other => return Err(format!("{place}: an assistant's message must not hold {other:?}")),
        }
    }
    Ok(())
}
